//! One replica: its queue, its KV cache, the requests it runs, and the
//! micro-batches in flight on its pipeline stages.

use std::collections::VecDeque;

use super::cohort::{Cohort, Executed};
use super::config::{PoolRole, PoolSpec};
use super::kv_cache::BlockPool;
use super::request::RequestState;
use super::scheduler::replica::BatchPolicy;
use crate::execution_time::StepShape;

/// A chunk of one request's prompt in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefillWork {
    pub request: u32,
    pub tokens: u32,
}

/// One batch in flight. Reused, with its buffers, for every batch of its slot.
#[derive(Debug)]
pub(crate) struct Batch {
    pub prefills: Vec<PrefillWork>,
    pub decodes: Box<Cohort>,
    pub shape: StepShape,
    pub executed: Executed,
    pub in_flight: bool,
    /// First stage has not started yet.
    pub queued: bool,
}

impl Batch {
    fn new(block_size: u32) -> Self {
        Self {
            prefills: Vec::new(),
            decodes: Box::new(Cohort::new(block_size)),
            shape: StepShape::default(),
            executed: Executed::default(),
            in_flight: false,
            queued: false,
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.prefills.len() + self.decodes.len()
    }
}

/// What batch formation works on.
#[derive(Debug)]
pub(crate) struct ReplicaQueues {
    /// Not started, or restarted; first come first served, restarted ones first.
    pub waiting: VecDeque<u32>,
    /// Prompts partly in the cache, not in flight.
    pub prefilling: VecDeque<u32>,
    /// Decoding, not in flight.
    pub ready: Box<Cohort>,
    pub blocks: BlockPool,
    /// Requests that hold blocks.
    pub admitted: u32,
    pub preemptions: u64,
}

impl ReplicaQueues {
    /// Takes the last started request off the replica and puts it first in the
    /// queue: a partly done prompt if there is one, else the decode that joined
    /// last. Returns whether there was one.
    pub(crate) fn preempt_last(&mut self, requests: &mut [RequestState], now_s: f64) -> bool {
        let Some(victim) = self
            .prefilling
            .pop_back()
            .or_else(|| self.ready.pop_last(requests))
        else {
            return false;
        };
        self.release(victim, requests, now_s);
        requests[victim as usize].restart();
        self.waiting.push_front(victim);
        self.preemptions += 1;
        true
    }

    /// Gives a request's blocks back.
    pub(crate) fn release(&mut self, id: u32, requests: &mut [RequestState], now_s: f64) {
        let blocks = std::mem::take(&mut requests[id as usize].blocks);
        self.blocks.give(blocks, now_s);
        self.admitted -= 1;
    }

    /// Takes `blocks` for a request new on this replica.
    pub(crate) fn admit(
        &mut self,
        id: u32,
        blocks: u64,
        requests: &mut [RequestState],
        now_s: f64,
    ) {
        requests[id as usize].blocks = blocks;
        self.blocks.take(blocks, now_s);
        self.admitted += 1;
    }
}

/// Work a pool has done, for utilisation figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoolWork {
    /// Batches executed.
    pub batches: u64,
    /// Requests in them.
    pub batch_requests: u64,
    /// Tokens through the linear layers.
    pub tokens: u64,
    /// Query-key pairs per layer and head.
    pub attended_pairs: f64,
    /// Rows through the LM head.
    pub sampled_tokens: u64,
    /// Time stages were busy, summed over stages.
    pub busy_s: f64,
}

impl PoolWork {
    /// Sum of two.
    pub fn plus(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            batch_requests: self.batch_requests + other.batch_requests,
            tokens: self.tokens + other.tokens,
            attended_pairs: self.attended_pairs + other.attended_pairs,
            sampled_tokens: self.sampled_tokens + other.sampled_tokens,
            busy_s: self.busy_s + other.busy_s,
        }
    }

    fn count(&mut self, shape: &StepShape, requests: usize) {
        self.batches += 1;
        self.batch_requests += requests as u64;
        self.tokens += u64::from(shape.new_tokens());
        self.sampled_tokens += u64::from(shape.sampled_tokens);
        self.attended_pairs +=
            shape.decode_context_tokens as f64 + f64::from(shape.decode_requests);
        for chunk in &shape.prefills {
            let (new, context) = (f64::from(chunk.new_tokens), f64::from(chunk.context_tokens));
            self.attended_pairs += new * context + new * (new + 1.0) / 2.0;
        }
    }
}

/// A pipeline stage: executes one batch at a time, first come first served.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    pub busy: bool,
    pub queue: VecDeque<u32>,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub pool: usize,
    pub role: PoolRole,
    pub policy: BatchPolicy,
    pub queues: ReplicaQueues,
    pub batches: Vec<Batch>,
    pub running_batches: u32,
    pub stages: Vec<Stage>,
    pub work: PoolWork,
    /// Decode replicas: requests whose KV cache waits for room here.
    pub incoming: VecDeque<u32>,
}

impl Replica {
    pub(crate) fn new(pool: usize, spec: &PoolSpec, stages: u32) -> Self {
        let block_size = spec.kv_cache.block_size;
        let policy = BatchPolicy::new(&spec.scheduler, spec.attention_data_parallel, stages);
        Self {
            pool,
            role: spec.role,
            queues: ReplicaQueues {
                waiting: VecDeque::new(),
                prefilling: VecDeque::new(),
                ready: Box::new(Cohort::new(block_size)),
                blocks: BlockPool::new(spec.kv_cache, policy.watermark_blocks_fraction()),
                admitted: 0,
                preemptions: 0,
            },
            policy,
            batches: (0..stages).map(|_| Batch::new(block_size)).collect(),
            running_batches: 0,
            stages: (0..stages).map(|_| Stage::default()).collect(),
            work: PoolWork::default(),
            incoming: VecDeque::new(),
        }
    }

    /// Forms the next batch, if a slot is free and there is anything to run.
    /// Returns its slot.
    pub(crate) fn form_batch(&mut self, requests: &mut [RequestState], now_s: f64) -> Option<u32> {
        if self.running_batches as usize == self.batches.len() {
            return None;
        }
        let slot = self.batches.iter().position(|batch| !batch.in_flight)?;
        let batch = &mut self.batches[slot];
        debug_assert!(batch.prefills.is_empty() && batch.decodes.is_empty());
        self.policy.fill(&mut self.queues, batch, requests, now_s);
        if batch.requests() == 0 {
            return None;
        }
        describe(batch, requests);
        for work in &batch.prefills {
            let request = &mut requests[work.request as usize];
            if request.scheduled_at_s.is_nan() {
                request.scheduled_at_s = now_s;
            }
        }
        batch.executed = Executed::default();
        batch.in_flight = true;
        batch.queued = true;
        self.running_batches += 1;
        self.work.count(&batch.shape, batch.requests());
        Some(slot as u32)
    }
}

/// Fills in the shape of a formed batch.
fn describe(batch: &mut Batch, requests: &[RequestState]) {
    let shape = &mut batch.shape;
    shape.prefills.clear();
    shape.decode_requests = batch.decodes.len() as u32;
    shape.decode_context_tokens = batch.decodes.context_tokens();
    shape.sampled_tokens = shape.decode_requests;
    for work in &batch.prefills {
        let request = &requests[work.request as usize];
        shape.prefills.push(crate::execution_time::PrefillChunk {
            new_tokens: work.tokens,
            context_tokens: request.prefilled,
        });
        if request.prefilled + work.tokens == request.prefill_target {
            shape.sampled_tokens += 1;
        }
    }
}
