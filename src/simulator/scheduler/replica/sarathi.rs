//! Sarathi-Serve (Agrawal et al., OSDI '24): every running decode goes into
//! every batch; prompt chunks fill what is left of the token budget, so prefills
//! never stall decodes.

use super::{Limits, admit_front, take_decodes};
use crate::simulator::replica::{Batch, PrefillWork, ReplicaQueues};
use crate::simulator::request::RequestState;

pub(super) fn fill(
    limits: &Limits,
    queues: &mut ReplicaQueues,
    batch: &mut Batch,
    requests: &mut [RequestState],
    now_s: f64,
) {
    take_decodes(limits, queues, batch, requests, now_s);
    let mut budget = limits.tokens.saturating_sub(batch.decodes.len() as u32);
    while budget > 0 && batch.requests() < limits.batch as usize {
        let id = match queues.prefilling.pop_front() {
            Some(id) => id,
            None => {
                let Some(&id) = queues.waiting.front() else {
                    return;
                };
                if queues.admitted >= limits.admitted || !admit_front(queues, requests, now_s) {
                    return;
                }
                id
            }
        };
        let request = &requests[id as usize];
        let tokens = (request.prefill_target - request.prefilled)
            .min(budget)
            .min(limits.tokens_per_request);
        budget -= tokens;
        batch.prefills.push(PrefillWork {
            request: id,
            tokens,
        });
    }
}
