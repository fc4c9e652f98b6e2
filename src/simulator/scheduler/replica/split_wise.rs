//! Splitwise's machines (Patel et al., ISCA '24): a prefill replica runs whole
//! prompts first come first served; a decode replica batches continuously
//! whatever has arrived. Requests arrive on a decode replica with their KV cache,
//! so its queue holds only requests preempted there; they are prefilled again
//! before the next decode step.

use super::{Limits, take_decodes, take_whole_prompts};
use crate::simulator::replica::{Batch, ReplicaQueues};
use crate::simulator::request::RequestState;

pub(super) fn fill(
    limits: &Limits,
    queues: &mut ReplicaQueues,
    batch: &mut Batch,
    requests: &mut [RequestState],
    now_s: f64,
) {
    if queues.waiting.is_empty() {
        take_decodes(limits, queues, batch, requests, now_s);
        return;
    }
    take_whole_prompts(limits, queues, batch, requests, now_s);
    if batch.prefills.is_empty() {
        take_decodes(limits, queues, batch, requests, now_s);
    }
}
