//! Sarathi-Serve (Agrawal et al., OSDI '24): every running decode goes into
//! every batch; prompt chunks fill what is left of the token budget, so prefills
//! never stall decodes.

use super::Forming;
use crate::number::narrow;

#[inline(always)]
pub(super) fn fill(forming: &mut Forming<'_>) {
    forming.take_decodes();
    let limits = forming.limits;
    let mut budget = limits
        .tokens
        .saturating_sub(narrow::<u32, _>(forming.batch.decodes.len()));
    while budget > 0 && !forming.is_full() {
        let id = match forming.queues.prefilling.pop_front() {
            Some(id) => id,
            None => {
                let Some(id) = forming.admit_front() else {
                    return;
                };
                id
            }
        };
        let request = &forming.requests[id as usize];
        let tokens = (request.prefill_target - request.prefilled)
            .min(budget)
            .min(limits.tokens_per_request);
        budget -= tokens;
        forming.add_prompt(id, tokens);
    }
}
