//! One replica: its queue, its KV cache, the requests it runs, and the
//! micro-batches in flight on its pipeline stages.

use std::collections::VecDeque;

use super::cohort::Cohort;
use super::config::{Compat, PoolRole, PoolSpec};
use super::exact_sum::ExactSum;
use super::kv_cache::BlockPool;
use super::pipeline::{Ahead, Pipeline};
use super::pool_work::PoolWork;
use super::ready::ReadyDecodes;
use super::recorder::{Recorder, RequestOutcome};
use super::request::RequestState;
use super::scheduler::replica::{BatchPolicy, Limits, Need, Reservation};
use super::spent::Spent;
use crate::execution_time::{PrefillChunk, StepShape};
use crate::memory::WindowCache;
use crate::number::narrow;

/// A chunk of one request's prompt in a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefillWork {
    pub request: u32,
    pub tokens: u32,
}

/// One batch in flight. Reused, with its buffers, for every batch of its slot.
#[derive(Debug)]
pub(crate) struct Batch {
    pub id: u64,
    /// Number among the batches of its replica, from 0.
    pub nth: u64,
    pub scheduled_at_s: f64,
    pub prefills: Vec<PrefillWork>,
    pub decodes: Box<Cohort>,
    pub shape: StepShape,
    /// Since it was formed; waiting: between stages only.
    pub spent: Spent,
    /// What its decodes waited for its first stage since their last token.
    pub decodes_waited_s: f64,
    pub last_stage_at_s: f64,
    /// What its next repetitions will take.
    pub ahead: Ahead,
    /// Of the stage that executes it; kept only where caches leave layer by layer.
    pub stage_time_s: f64,
    pub in_flight: bool,
    /// (request, tokens) in batch order; kept only for recorders that want it.
    pub composition: Vec<(u32, u32)>,
    /// Compatibility mode: requests in batch order.
    pub order: Vec<u32>,
    /// Static batching: blocks of members that have ended, held until all have.
    pub held_blocks: u64,
    pub held_requests: u32,
}

impl Batch {
    fn new(growth: u32) -> Self {
        Self {
            id: 0,
            nth: 0,
            scheduled_at_s: 0.0,
            prefills: Vec::new(),
            decodes: Box::new(Cohort::new(growth)),
            shape: StepShape::default(),
            spent: Spent::default(),
            decodes_waited_s: 0.0,
            last_stage_at_s: 0.0,
            ahead: Ahead::default(),
            stage_time_s: 0.0,
            in_flight: false,
            composition: Vec::new(),
            order: Vec::new(),
            held_blocks: 0,
            held_requests: 0,
        }
    }

    #[inline]
    pub(crate) fn requests(&self) -> usize {
        self.prefills.len() + self.decodes.len()
    }

    /// One token for every decode of the batch, which ends at `now_s`.
    #[inline]
    pub(crate) fn advance_decodes(
        &mut self,
        now_s: f64,
        requests: &mut [RequestState],
        recorder: &mut impl Recorder,
    ) {
        if !self.decodes.is_empty() {
            let spent = self.spent_by_decodes();
            self.decodes.advance(now_s, spent, requests, recorder);
        }
    }

    /// What its decodes have spent since their last token.
    #[inline(always)]
    pub(crate) fn spent_by_decodes(&self) -> Spent {
        Spent {
            waiting_s: self.spent.waiting_s + self.decodes_waited_s,
            ..self.spent
        }
    }

    /// Fills in the shape from the members.
    #[inline]
    pub(crate) fn describe(&mut self, requests: &[RequestState]) {
        let shape = &mut self.shape;
        self.ahead.clear();
        shape.prefills.clear();
        shape.decode_requests = narrow::<u32, _>(self.decodes.len());
        shape.decode_context_tokens = self.decodes.context_tokens();
        shape.sampled_tokens = shape.decode_requests;
        for work in &self.prefills {
            let request = &requests[work.request as usize];
            shape.prefills.push(PrefillChunk {
                new_tokens: work.tokens,
                context_tokens: request.prefilled,
            });
            if request.prefilled + work.tokens == request.prefill_target {
                shape.sampled_tokens += 1;
            }
        }
    }

    /// Lists the members in batch order: decodes, then prompts, unless the
    /// policy keeps an order of its own.
    pub(crate) fn compose(&mut self) {
        self.composition.clear();
        let tokens_of = |id: u32| {
            let work = self.prefills.iter().find(|work| work.request == id);
            (id, work.map_or(1, |work| work.tokens))
        };
        if self.order.is_empty() {
            let decodes = self.decodes.members().iter().map(|&id| (id, 1));
            let prefills = self.prefills.iter().map(|work| (work.request, work.tokens));
            self.composition.extend(decodes.chain(prefills));
        } else {
            self.composition
                .extend(self.order.iter().map(|&id| tokens_of(id)));
        }
    }
}

/// Decodes of a static batch between two of its steps.
#[derive(Debug)]
pub(crate) struct StaticGroup {
    pub decodes: Box<Cohort>,
    pub held_blocks: u64,
    pub held_requests: u32,
}

/// What batch formation works on.
#[derive(Debug)]
pub(crate) struct ReplicaQueues {
    pub compat: Compat,
    /// Not started, or restarted; first come first served, restarted ones first.
    pub waiting: VecDeque<u32>,
    /// Prompts partly in the cache, not in flight.
    pub prefilling: VecDeque<u32>,
    /// Decoding, not in flight.
    pub ready: ReadyDecodes,
    /// Static batching: batches between two of their steps.
    pub groups: VecDeque<StaticGroup>,
    /// Compatibility mode: started requests not in flight, in the original's order.
    pub preempted: Vec<u32>,
    pub blocks: BlockPool,
    /// Requests that hold blocks.
    pub admitted: u32,
    pub preemptions: u64,
    /// Decode steps since the queue was last looked at (`lightllm`).
    pub waiting_iters: u32,
    /// Buffer of `lightllm`.
    pub needs: Vec<Need>,
    /// Blocks each request reserves, where the policy reserves all at the start.
    pub reserved_blocks: u64,
    /// Blocks that those who wait here, in `waiting` or for their cache to come, will
    /// take when they are admitted.
    pub promised_blocks: u64,
    /// Runs both phases for now, though its pool is there for one.
    pub mixes_phases: bool,
}

impl ReplicaQueues {
    /// KV cache blocks in use or promised.
    #[inline]
    pub(crate) fn load_blocks(&self) -> u64 {
        self.blocks.used() + self.promised_blocks
    }

    /// Blocks a request takes when it is admitted, or its cache is.
    #[inline]
    pub(crate) fn blocks_to_start(&self, request: &RequestState) -> u64 {
        let prompt = self.blocks.blocks_for(u64::from(request.prefill_target));
        prompt.max(self.reserved_blocks) + self.window_blocks(request)
    }

    /// Those of them that layers take which cache only the last tokens.
    #[inline]
    pub(crate) fn window_blocks(&self, request: &RequestState) -> u64 {
        match self.reserved_blocks {
            0 => self.blocks.window_blocks(request.final_kv_tokens()),
            // Reserved with the others.
            _ => 0,
        }
    }

    /// Whether the first in the queue may be admitted now; others wait for it.
    #[inline]
    pub(crate) fn admits_first(&self, limits: &Limits, requests: &[RequestState]) -> bool {
        self.waiting.front().is_some_and(|&id| {
            let request = &requests[id as usize];
            let blocks = match self.reserved_blocks {
                0 => request.promised_blocks,
                reserved => reserved,
            };
            self.admitted < limits.admitted && self.blocks.admits(blocks)
        })
    }

    /// Whether a batch could be formed of something here.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !(self.ready.is_empty()
            && self.waiting.is_empty()
            && self.prefilling.is_empty()
            && self.groups.is_empty()
            && self.preempted.is_empty())
    }

    /// Promises a request, which is about to wait here, what it will take.
    #[inline]
    pub(crate) fn promise(&mut self, request: &mut RequestState) {
        request.promised_blocks = self.blocks_to_start(request);
        self.promised_blocks += request.promised_blocks;
    }

    /// Puts a request at the end of the queue.
    #[inline]
    pub(crate) fn enqueue(&mut self, id: u32, requests: &mut [RequestState]) {
        self.promise(&mut requests[id as usize]);
        self.waiting.push_back(id);
    }

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
        self.send_back(victim, requests, now_s);
        true
    }

    /// Takes a request's blocks and puts it first in the queue, to start again.
    pub(crate) fn send_back(&mut self, victim: u32, requests: &mut [RequestState], now_s: f64) {
        self.release(victim, requests, now_s);
        let request = &mut requests[victim as usize];
        if request.generated > 0 {
            request.last_stage_at_s = request.last_token_at_s;
        }
        match self.compat {
            Compat::None => request.restart(),
            _ => request.restart_as_new_prompt(),
        }
        self.promise(request);
        self.waiting.push_front(victim);
        self.preemptions += 1;
    }

    /// Gives a request's blocks back.
    #[inline(always)]
    pub(crate) fn release(&mut self, id: u32, requests: &mut [RequestState], now_s: f64) {
        let blocks = std::mem::take(&mut requests[id as usize].blocks);
        self.blocks.give(blocks, now_s);
        self.admitted -= 1;
    }

    /// Notes that a request has `blocks`.
    #[inline]
    pub(crate) fn hold(&self, request: &mut RequestState, blocks: u64) {
        request.blocks = blocks;
        request.window_blocks = self.window_blocks(request);
    }

    /// Takes `blocks` for a request from the queue.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        id: u32,
        blocks: u64,
        requests: &mut [RequestState],
        now_s: f64,
    ) {
        let request = &mut requests[id as usize];
        debug_assert_eq!(request.promised_blocks, self.blocks_to_start(request));
        self.promised_blocks -= request.promised_blocks;
        self.hold(request, blocks);
        self.blocks.take(blocks, now_s);
        self.admitted += 1;
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
    pub pipeline: Pipeline,
    pub work: PoolWork,
    /// Time its stages were busy.
    pub busy: ExactSum,
    /// Requests whose KV cache waits for room here.
    pub incoming: VecDeque<u32>,
}

/// What is left of a replica at the end of a simulation.
#[derive(Debug)]
pub(crate) struct ReplicaEnd {
    pub pool: usize,
    pub stages: usize,
    pub work: PoolWork,
    pub preemptions: u64,
    pub blocks: BlockPool,
    pub has_waiting: bool,
}

impl ReplicaEnd {
    /// What a replica has come to at `now_s`, without what its stages have begun and not
    /// done.
    pub(crate) fn so_far(replica: &Replica, now_s: f64) -> Self {
        let end = Self::of(replica);
        let busy_s = (end.work.busy_s - replica.pipeline.pending_s(now_s)).max(0.0);
        Self {
            work: PoolWork { busy_s, ..end.work },
            ..end
        }
    }

    fn of(replica: &Replica) -> Self {
        Self {
            pool: replica.pool,
            stages: replica.stages.len(),
            work: PoolWork {
                busy_s: replica.busy.total_s(),
                ..replica.work
            },
            preemptions: replica.queues.preemptions,
            blocks: replica.queues.blocks.clone(),
            has_waiting: !replica.queues.waiting.is_empty(),
        }
    }
}

impl From<Replica> for ReplicaEnd {
    fn from(replica: Replica) -> Self {
        Self::of(&replica)
    }
}

impl Replica {
    pub(crate) fn new(
        pool: usize,
        spec: &PoolSpec,
        compat: Compat,
        max_request_tokens: u32,
    ) -> Self {
        let stages = spec.cost.stages();
        let policy = BatchPolicy::new(
            &spec.scheduler,
            spec.attention_data_parallel,
            stages,
            compat,
        );
        let blocks = BlockPool::new(spec.kv_cache, policy.watermark_blocks_fraction());
        let (growth, reserved_blocks) = match policy.reservation() {
            Reservation::Grows => match spec.kv_cache.window {
                Some(WindowCache { full_layers: 0, .. }) => (0, 0),
                _ => (spec.kv_cache.block_size, 0),
            },
            Reservation::Longest => {
                let (tokens, size) = (max_request_tokens, spec.kv_cache.block_size);
                let reserved = match compat {
                    Compat::None => {
                        let tokens = u64::from(tokens);
                        blocks.blocks_for(tokens) + blocks.window_blocks(tokens)
                    }
                    _ => u64::from(tokens / size),
                };
                (0, reserved)
            }
        };
        Self {
            pool,
            role: spec.role,
            queues: ReplicaQueues {
                compat,
                waiting: VecDeque::new(),
                prefilling: VecDeque::new(),
                ready: ReadyDecodes::new(growth),
                groups: VecDeque::new(),
                preempted: Vec::new(),
                blocks,
                admitted: 0,
                preemptions: 0,
                waiting_iters: 0,
                needs: Vec::new(),
                reserved_blocks,
                promised_blocks: 0,
                mixes_phases: false,
            },
            policy,
            batches: (0..stages).map(|_| Batch::new(growth)).collect(),
            running_batches: 0,
            stages: (0..stages).map(|_| Stage::default()).collect(),
            pipeline: Pipeline::new(&*spec.cost),
            work: PoolWork::default(),
            busy: ExactSum::default(),
            incoming: VecDeque::new(),
        }
    }

    /// Why a request can never run here, if so.
    #[inline]
    pub(crate) fn rejection(&self, request: &RequestState) -> Option<RequestOutcome> {
        let blocks = &self.queues.blocks;
        let tokens = match self.role {
            PoolRole::Prefill => u64::from(request.prefill_tokens),
            PoolRole::Mixed | PoolRole::Decode => request.final_kv_tokens(),
        };
        let needed = blocks.blocks_for(tokens).max(self.queues.reserved_blocks)
            + self.queues.window_blocks(request);
        if needed > blocks.total() {
            return Some(RequestOutcome::RejectedTooLargeForKvCache);
        }
        let too_long = |longest| request.prefill_tokens > longest;
        let prefills = self.role != PoolRole::Decode;
        (prefills && self.policy.longest_prompt().is_some_and(too_long))
            .then_some(RequestOutcome::RejectedPromptExceedsBatch)
    }

    /// Brings what is told of requests that decode here and have not ended up to date.
    pub(crate) fn tell_unfinished(&self, requests: &mut [RequestState]) {
        let in_flight = self.batches.iter().map(|batch| &batch.decodes);
        let groups = self.queues.groups.iter().map(|group| &group.decodes);
        for cohort in in_flight.chain(groups).chain(self.queues.ready.cohorts()) {
            cohort.tell_unfinished(requests);
        }
    }

    /// Makes the batch of a slot, decodes only, the next one, one token further; its
    /// work has been counted.
    #[inline]
    pub(crate) fn repeat_batch(&mut self, slot: u32, id: u64, now_s: f64) -> &mut Batch {
        let batch = &mut self.batches[slot as usize];
        let growth = batch.decodes.blocks_for_next_step();
        if growth > 0 {
            self.queues.blocks.take(growth, now_s);
        }
        batch.id = id;
        batch.nth = self.work.batches - 1;
        batch.scheduled_at_s = now_s;
        batch.spent = Spent::default();
        batch.shape.decode_context_tokens = batch.decodes.context_tokens();
        batch
    }

    /// Whether decodes that nobody joins are the next batch again: neither prompts that
    /// have been begun nor KV caches wait beside it.
    #[inline]
    pub(crate) fn repeats_decodes(&self) -> bool {
        self.policy.repeats_decodes()
            && self.queues.prefilling.is_empty()
            && self.incoming.is_empty()
    }

    /// Whether one more batch may be in flight.
    #[inline]
    pub(crate) fn has_free_slot(&self) -> bool {
        (self.running_batches as usize) < self.batches.len()
    }

    /// Whether nobody who waits can join the decodes of a slot when they are all of a
    /// batch, nor after more such batches while nothing is freed.
    #[inline(always)]
    pub(crate) fn turns_away(&self, slot: u32, requests: &[RequestState]) -> bool {
        let decodes = self.batches[slot as usize].decodes.len();
        // Might there be another batch, they would go there.
        (self.policy.is_full_with(narrow::<u32, _>(decodes)) && !self.has_free_slot())
            || !self.queues.admits_first(self.policy.limits(), requests)
    }

    /// Forms the next batch, if a slot is free and there is anything to run.
    /// Returns its slot.
    #[inline(always)]
    pub(crate) fn form_batch(
        &mut self,
        id: u64,
        requests: &mut [RequestState],
        now_s: f64,
    ) -> Option<u32> {
        if !self.has_free_slot() {
            return None;
        }
        let slot = self.batches.iter().position(|batch| !batch.in_flight)?;
        let batch = &mut self.batches[slot];
        debug_assert!(batch.prefills.is_empty() && batch.decodes.is_empty());
        self.policy.fill(&mut self.queues, batch, requests, now_s);
        if batch.requests() == 0 {
            return None;
        }
        batch.describe(requests);
        for work in &batch.prefills {
            let request = &mut requests[work.request as usize];
            if request.scheduled_at_s.is_nan() {
                request.scheduled_at_s = now_s;
            }
        }
        batch.id = id;
        batch.nth = self.work.batches;
        batch.scheduled_at_s = now_s;
        batch.spent = Spent::default();
        batch.in_flight = true;
        self.running_batches += 1;
        self.work.count(&batch.shape);
        Some(narrow::<u32, _>(slot))
    }
}
