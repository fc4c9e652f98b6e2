//! vLLM's first scheduler (Kwon et al., SOSP '23): waiting prompts go first, in
//! batches of their own, and stall the decodes; otherwise every running request
//! decodes one token.

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
    take_whole_prompts(limits, queues, batch, requests, now_s);
    if batch.prefills.is_empty() {
        take_decodes(limits, queues, batch, requests, now_s);
    }
}
