//! Vidur's own rules for `sarathi` and `vllm`, and Vidur-AlibabaCloud's for
//! `split_wise`, for compatibility mode.
//!
//! They differ from the right ones where memory is short or micro-batches
//! overlap: a running request wants a free block whether it needs one or not,
//! victims come from the end of a list whose order is that of past batches,
//! running prompts ignore the micro-batch limit, and a prefill batch is charged
//! its longest prompt for every member. The list is `ReplicaQueues::preempted`.

use super::Forming;
use crate::number::narrow;

/// Started requests not in flight, taken from both ends.
struct Started {
    list: Vec<u32>,
    front: usize,
    back: usize,
}

impl Started {
    fn take(forming: &mut Forming<'_>) -> Self {
        let list = std::mem::take(&mut forming.queues.preempted);
        Self {
            front: 0,
            back: list.len(),
            list,
        }
    }

    fn pop_front(&mut self) -> Option<u32> {
        (self.front < self.back).then(|| {
            self.front += 1;
            self.list[self.front - 1]
        })
    }

    fn pop_back(&mut self) -> Option<u32> {
        (self.front < self.back).then(|| {
            self.back -= 1;
            self.list[self.back]
        })
    }

    /// Gives what is left back to the queues, after `skipped`.
    fn put_back(mut self, skipped: &[u32], forming: &mut Forming<'_>) {
        self.list.truncate(self.back);
        self.list.drain(..self.front);
        self.list.splice(0..0, skipped.iter().copied());
        forming.queues.preempted = self.list;
    }
}

pub(super) fn fill_sarathi(forming: &mut Forming<'_>) {
    let limits = forming.limits;
    forming.batch.order.clear();
    let mut started = Started::take(forming);
    let mut running_prompts = Vec::new();
    while forming.batch.order.len() < limits.batch as usize {
        let Some(id) = started.pop_front() else {
            break;
        };
        if forming.requests[id as usize].generated == 0 {
            running_prompts.push(id);
        } else {
            take_decode(id, &mut started, forming);
        }
    }
    move_decodes(forming);
    let mut budget = limits
        .tokens
        .saturating_sub(narrow::<u32, _>(forming.batch.decodes.len()));
    let mut skipped = Vec::new();
    for id in running_prompts {
        let request = &forming.requests[id as usize];
        let tokens = (request.prefill_target - request.prefilled).min(budget);
        if tokens == 0 {
            skipped.push(id);
            continue;
        }
        budget -= tokens;
        forming.batch.order.push(id);
        forming.add_prompt(id, tokens);
    }
    started.put_back(&skipped, forming);
    sort_by_arrival(forming);
    while let Some(&id) = forming.queues.waiting.front() {
        let tokens = forming.requests[id as usize].prefill_target.min(budget);
        if forming.queues.admitted >= limits.admitted
            || forming.batch.order.len() >= limits.batch as usize
            || !admits_front(forming)
            || tokens == 0
        {
            return;
        }
        budget -= tokens;
        admit_front(id, tokens, forming);
    }
}

pub(super) fn fill_vllm(forming: &mut Forming<'_>) {
    let limits = forming.limits;
    forming.batch.order.clear();
    let mut longest = 0;
    while let Some(&id) = forming.queues.waiting.front() {
        let prompt = forming.requests[id as usize].prefill_target;
        let members = forming.batch.order.len() as u64 + 1;
        if !admits_front(forming)
            || members * u64::from(longest.max(prompt)) > u64::from(limits.tokens)
            || forming.queues.admitted >= limits.admitted
            || forming.batch.order.len() >= limits.batch as usize
        {
            break;
        }
        longest = longest.max(prompt);
        admit_front(id, prompt, forming);
    }
    if !forming.batch.order.is_empty() {
        return;
    }
    sort_by_arrival(forming);
    let mut started = Started::take(forming);
    while forming.batch.order.len() < limits.batch as usize {
        let Some(id) = started.pop_front() else {
            break;
        };
        take_decode(id, &mut started, forming);
    }
    started.put_back(&[], forming);
    move_decodes(forming);
}

/// Whole prompts on a prefill replica; on a decode replica everything that runs,
/// then what waits. The micro-batch limit stops only what meets it exactly.
pub(super) fn fill_split_wise(forming: &mut Forming<'_>) {
    let limits = forming.limits;
    forming.batch.order.clear();
    let reserved = forming.queues.reserved_blocks;
    let slots = forming.queues.blocks.total() / reserved.max(1) / u64::from(limits.stages());
    let most = narrow::<usize, _>(slots.min(u64::from(limits.admitted)));
    let mut started = Started::take(forming);
    while forming.batch.order.len() < most {
        let Some(id) = started.pop_front() else {
            break;
        };
        forming.batch.order.push(id);
    }
    started.put_back(&[], forming);
    move_decodes(forming);
    let mut tokens = 0;
    while let Some(&id) = forming.queues.waiting.front() {
        let request = &forming.requests[id as usize];
        let decodes = request.generated > 0;
        let more = if decodes { 1 } else { request.prefill_target };
        if tokens + more > limits.tokens
            || (!decodes && forming.queues.admitted == limits.admitted)
            || forming.batch.order.len() == limits.batch as usize
            || forming.queues.blocks.free() < reserved
        {
            break;
        }
        tokens += more;
        forming.queues.waiting.pop_front();
        forming
            .queues
            .admit(id, reserved, forming.requests, forming.now_s);
        forming.batch.order.push(id);
        if decodes {
            forming.batch.decodes.join(id, forming.requests);
        } else {
            forming.add_prompt(id, more);
        }
    }
}

/// Puts a decode into the batch if a block is free, sending back victims from
/// the end of the list, and at last itself, until one is.
fn take_decode(id: u32, started: &mut Started, forming: &mut Forming<'_>) {
    while forming.queues.blocks.free() == 0 {
        let victim = started.pop_back();
        let sent_back = victim.unwrap_or(id);
        if forming.requests[sent_back as usize].generated > 0 {
            let ready = forming.queues.ready.as_one(forming.requests);
            ready.remove(sent_back, forming.requests);
        }
        forming
            .queues
            .send_back(sent_back, forming.requests, forming.now_s);
        if victim.is_none() {
            return;
        }
    }
    let ready = forming.queues.ready.as_one(forming.requests);
    let context = ready.context_tokens_of(id, forming.requests);
    // A block for the new token's entry, if the last one is full.
    let blocks = forming.queues.blocks.blocks_for(context + 1);
    if blocks > forming.queues.blocks.blocks_for(context) {
        forming.queues.blocks.take(1, forming.now_s);
    }
    forming.batch.order.push(id);
}

/// Moves the decodes chosen so far from the ready cohort to the batch's.
fn move_decodes(forming: &mut Forming<'_>) {
    let ready = forming.queues.ready.as_one(forming.requests);
    if forming.batch.order.len() == ready.len() {
        return std::mem::swap(ready, &mut forming.batch.decodes);
    }
    for index in 0..forming.batch.order.len() {
        let id = forming.batch.order[index];
        ready.remove(id, forming.requests);
        forming.batch.decodes.join(id, forming.requests);
    }
}

fn sort_by_arrival(forming: &mut Forming<'_>) {
    let requests = &forming.requests;
    forming.queues.preempted.sort_by(|&a, &b| {
        let at = |id: u32| requests[id as usize].arrived_at_s;
        at(a).total_cmp(&at(b))
    });
}

fn admits_front(forming: &Forming<'_>) -> bool {
    let Some(&id) = forming.queues.waiting.front() else {
        return false;
    };
    let prompt = forming.requests[id as usize].prefill_target;
    let blocks = forming.queues.blocks.blocks_for(u64::from(prompt));
    forming.queues.blocks.admits_strictly(blocks)
}

fn admit_front(id: u32, tokens: u32, forming: &mut Forming<'_>) {
    forming.queues.waiting.pop_front();
    let prompt = forming.requests[id as usize].prefill_target;
    let blocks = forming.queues.blocks.blocks_for(u64::from(prompt));
    forming
        .queues
        .admit(id, blocks, forming.requests, forming.now_s);
    forming.batch.order.push(id);
    forming.add_prompt(id, tokens);
}
