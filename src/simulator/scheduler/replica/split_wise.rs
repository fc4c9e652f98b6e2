//! Splitwise's machines (Patel et al., ISCA '24): a prefill replica runs whole
//! prompts first come first served; a decode replica batches continuously
//! whatever has arrived. Requests arrive on a decode replica with their KV cache,
//! so its queue holds only requests preempted there; they are prefilled again
//! before the next decode step.

use super::Forming;

pub(super) fn fill(forming: &mut Forming<'_>) {
    forming.prompts_or_decodes();
}
