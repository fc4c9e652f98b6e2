//! Splitwise's machines (Patel et al., ISCA '24): a prefill replica runs whole
//! prompts first come first served; a decode replica batches continuously
//! whatever has arrived. Requests arrive on a decode replica with their KV cache,
//! so its queue holds only requests preempted there; they are prefilled again
//! before the next decode step. A replica that helps out in the other phase batches
//! both together: decodes first, whole prompts in what is left of the budget.

use super::Forming;

pub(super) fn fill(forming: &mut Forming<'_>) {
    if forming.queues.mixes_phases {
        forming.take_decodes();
        forming.take_whole_prompts();
    } else {
        forming.prompts_or_decodes();
    }
}
