//! LightLLM: the KV cache is counted in tokens (blocks of one; larger blocks count
//! with all their tokens, used or not). Prompts are admitted when nothing runs, or
//! every few decode steps, and only if the peak of what all running requests will
//! need, were they to end in order of their remaining length, stays below the cache.

use super::Forming;
use crate::simulator::config::Compat;

pub(super) fn fill(forming: &mut Forming<'_>, max_waiting_iters: u32, compat: Compat) {
    let idle = forming.queues.ready.is_empty();
    if idle || forming.queues.waiting_iters >= max_waiting_iters {
        let looked = !idle;
        if looked {
            forming.queues.waiting_iters = 0;
        }
        take_prompts(forming, compat);
        if !forming.batch.prefills.is_empty() {
            forming.queues.waiting_iters = 0;
            return;
        }
        if idle {
            return;
        }
    }
    let needed = forming.queues.ready.blocks_for_next_step();
    // The original stops with an error here; right is to preempt.
    if compat != Compat::None && needed > forming.queues.blocks.free() {
        return;
    }
    forming.queues.waiting_iters += 1;
    forming.take_decodes();
}

fn take_prompts(forming: &mut Forming<'_>, compat: Compat) {
    if forming.queues.waiting.is_empty() {
        return;
    }
    let mut needs = std::mem::take(&mut forming.queues.needs);
    needs.clear();
    let ready = &**forming.queues.ready.as_one(forming.requests);
    needs.extend(ready.members().iter().map(|&id| {
        let held = ready.context_tokens_of(id, forming.requests) + 1;
        let request = &forming.requests[id as usize];
        let total = u64::from(request.prefill_tokens + request.decode_tokens);
        Need {
            held: (forming.queues.blocks).whole_blocks(held, request.final_kv_tokens()),
            remaining: (total - held).saturating_sub(1),
        }
    }));
    take_prompts_beside(forming, compat, &mut needs);
    forming.queues.needs = needs;
}

/// Takes prompts from the queue beside those who run and have `needs`.
fn take_prompts_beside(forming: &mut Forming<'_>, compat: Compat, needs: &mut Vec<Need>) {
    let mut tokens = 0;
    while let Some(&id) = forming.queues.waiting.front() {
        let request = &forming.requests[id as usize];
        let prompt = request.prefill_target;
        let over_budget = forming.limits.tokens.saturating_sub(tokens) < prompt
            && (compat != Compat::None || !forming.batch.prefills.is_empty());
        if over_budget || forming.queues.admitted >= forming.limits.admitted || forming.is_full() {
            return;
        }
        needs.push(Need {
            held: (forming.queues.blocks)
                .whole_blocks(u64::from(prompt) + 1, request.final_kv_tokens()),
            remaining: u64::from(request.decode_tokens - request.generated).saturating_sub(2),
        });
        let alone = needs.len() == 1;
        if peak_tokens(needs) >= forming.queues.blocks.total_tokens()
            && (compat != Compat::None || !alone)
        {
            return;
        }
        let blocks = request.promised_blocks;
        if blocks > forming.queues.blocks.free() {
            return;
        }
        forming.queues.waiting.pop_front();
        forming
            .queues
            .admit(id, blocks, forming.requests, forming.now_s);
        tokens += prompt;
        forming.add_prompt(id, prompt);
    }
}

/// Tokens a request holds, and how many more it will.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    held: u64,
    remaining: u64,
}

/// Most tokens held at any time if requests end in order of what remains.
fn peak_tokens(needs: &mut [Need]) -> u64 {
    // Of equals the last one counts, whichever that is.
    needs.sort_unstable_by_key(|need| std::cmp::Reverse(need.remaining));
    let mut held = 0;
    let mut peak = 0;
    for (index, need) in needs.iter().enumerate() {
        held += need.held;
        peak = peak.max(need.remaining * (index as u64 + 1) + held);
    }
    peak
}
