//! Batch formation. One file per policy; a new one is a file, a variant of
//! [`crate::simulator::ReplicaScheduler`] and an arm here.

mod sarathi;
mod split_wise;
mod vllm;

use crate::simulator::config::ReplicaScheduler;
use crate::simulator::replica::{Batch, PrefillWork, ReplicaQueues};
use crate::simulator::request::RequestState;

/// Limits of one replica, attention-data-parallel ranks and pipeline stages
/// accounted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tokens of one batch.
    pub tokens: u32,
    /// Tokens one request may add to a batch (it lives on one rank).
    pub tokens_per_request: u32,
    /// Requests that hold KV cache blocks.
    pub admitted: u32,
    /// Requests of one micro-batch.
    pub batch: u32,
}

impl Limits {
    fn new(tokens: u32, batch_size_cap: u32, ranks: u32, stages: u32) -> Self {
        let admitted = batch_size_cap.saturating_mul(ranks);
        Self {
            tokens: tokens.saturating_mul(ranks),
            tokens_per_request: tokens,
            admitted,
            batch: (admitted / stages).max(1),
        }
    }
}

/// A replica scheduler at work.
#[derive(Debug, Clone)]
pub(crate) enum BatchPolicy {
    Sarathi(Limits, f64),
    Vllm(Limits, f64),
    SplitWise(Limits, f64),
}

impl BatchPolicy {
    pub(crate) fn new(config: &ReplicaScheduler, ranks: u32, stages: u32) -> Self {
        match *config {
            ReplicaScheduler::Sarathi {
                chunk_size,
                batch_size_cap,
                watermark_blocks_fraction,
            } => Self::Sarathi(
                Limits::new(chunk_size, batch_size_cap, ranks, stages),
                watermark_blocks_fraction,
            ),
            ReplicaScheduler::Vllm {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            } => Self::Vllm(
                Limits::new(max_tokens_in_batch, batch_size_cap, ranks, stages),
                watermark_blocks_fraction,
            ),
            ReplicaScheduler::SplitWise {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            } => Self::SplitWise(
                Limits::new(max_tokens_in_batch, batch_size_cap, ranks, stages),
                watermark_blocks_fraction,
            ),
        }
    }

    pub(crate) fn watermark_blocks_fraction(&self) -> f64 {
        match *self {
            Self::Sarathi(_, fraction) | Self::Vllm(_, fraction) | Self::SplitWise(_, fraction) => {
                fraction
            }
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        match self {
            Self::Sarathi(limits, _) | Self::Vllm(limits, _) | Self::SplitWise(limits, _) => limits,
        }
    }

    /// Longest prompt the policy can ever schedule, if it cannot cut prompts.
    pub(crate) fn longest_prompt(&self) -> Option<u32> {
        match self {
            Self::Sarathi(..) => None,
            Self::Vllm(limits, _) | Self::SplitWise(limits, _) => Some(limits.tokens_per_request),
        }
    }

    /// Puts the next batch together, taking its blocks; leaves `batch` empty if
    /// nothing can run.
    pub(crate) fn fill(
        &self,
        queues: &mut ReplicaQueues,
        batch: &mut Batch,
        requests: &mut [RequestState],
        now_s: f64,
    ) {
        match self {
            Self::Sarathi(limits, _) => sarathi::fill(limits, queues, batch, requests, now_s),
            Self::Vllm(limits, _) => vllm::fill(limits, queues, batch, requests, now_s),
            Self::SplitWise(limits, _) => split_wise::fill(limits, queues, batch, requests, now_s),
        }
    }
}

/// Moves ready decodes into the batch and takes the blocks their new tokens
/// need, preempting the requests started last until there are enough.
pub(super) fn take_decodes(
    limits: &Limits,
    queues: &mut ReplicaQueues,
    batch: &mut Batch,
    requests: &mut [RequestState],
    now_s: f64,
) {
    if queues.ready.is_empty() {
        return;
    }
    while queues.ready.blocks_for_next_step() > queues.blocks.free() {
        if !queues.preempt_last(requests, now_s) {
            break;
        }
    }
    if queues.ready.len() <= limits.batch as usize {
        std::mem::swap(&mut queues.ready, &mut batch.decodes);
    } else {
        queues
            .ready
            .split_front(limits.batch as usize, &mut batch.decodes, requests);
    }
    let growth = batch.decodes.blocks_for_next_step();
    if growth > 0 {
        queues.blocks.take(growth, now_s);
    }
}

/// Admits whole prompts in order of arrival, up to the token budget.
pub(super) fn take_whole_prompts(
    limits: &Limits,
    queues: &mut ReplicaQueues,
    batch: &mut Batch,
    requests: &mut [RequestState],
    now_s: f64,
) {
    let mut tokens = 0;
    while let Some(&id) = queues.waiting.front() {
        let prompt = requests[id as usize].prefill_target;
        // A restarted request may have outgrown the budget; it then goes alone.
        let over_budget = tokens + prompt > limits.tokens && !batch.prefills.is_empty();
        if over_budget
            || queues.admitted >= limits.admitted
            || batch.requests() >= limits.batch as usize
            || !admit_front(queues, requests, now_s)
        {
            break;
        }
        tokens += prompt;
        batch.prefills.push(PrefillWork {
            request: id,
            tokens: prompt,
        });
    }
}

/// Admits the first waiting request if its prompt's blocks are to be had.
pub(super) fn admit_front(
    queues: &mut ReplicaQueues,
    requests: &mut [RequestState],
    now_s: f64,
) -> bool {
    let Some(&id) = queues.waiting.front() else {
        return false;
    };
    let blocks = queues
        .blocks
        .blocks_for(u64::from(requests[id as usize].prefill_target));
    if !queues.blocks.admits(blocks) {
        return false;
    }
    queues.waiting.pop_front();
    queues.admit(id, blocks, requests, now_s);
    true
}
