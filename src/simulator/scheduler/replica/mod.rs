//! Batch formation. One file per policy; a new one is a file, a variant of
//! [`crate::simulator::ReplicaScheduler`] and an arm here. `vidur.rs` holds the
//! originals' rules where they differ, for compatibility mode.

mod faster_transformer;
mod lightllm;
mod orca;
mod sarathi;
mod split_wise;
mod vidur;
mod vllm;

pub(crate) use lightllm::Need;

use crate::number::narrow;
use crate::simulator::config::{Compat, ReplicaScheduler};
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

    /// Pipeline stages.
    pub(crate) fn stages(&self) -> u32 {
        self.admitted / self.batch
    }

    /// Limits of a policy that only caps the requests of a micro-batch.
    fn of_batch(batch_size_cap: u32, ranks: u32) -> Self {
        Self {
            tokens: u32::MAX,
            tokens_per_request: u32::MAX,
            admitted: u32::MAX,
            batch: batch_size_cap.saturating_mul(ranks),
        }
    }
}

/// How a request's KV cache blocks are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// For the prompt at first, then one at a time.
    Grows,
    /// For the longest request allowed, at the start.
    Longest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sarathi,
    Vllm,
    SplitWise,
    Orca,
    FasterTransformer,
    Lightllm { max_waiting_iters: u32 },
}

/// A replica scheduler at work.
#[derive(Debug, Clone)]
pub(crate) struct BatchPolicy {
    kind: Kind,
    limits: Limits,
    watermark_blocks_fraction: f64,
    compat: Compat,
}

impl BatchPolicy {
    pub(crate) fn new(config: &ReplicaScheduler, ranks: u32, stages: u32, compat: Compat) -> Self {
        let (kind, limits, watermark_blocks_fraction) = match *config {
            ReplicaScheduler::Sarathi {
                chunk_size,
                batch_size_cap,
                watermark_blocks_fraction,
            } => {
                let limits = Limits::new(chunk_size, batch_size_cap, ranks, stages);
                (Kind::Sarathi, limits, watermark_blocks_fraction)
            }
            ReplicaScheduler::Vllm {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            } => {
                let limits = Limits::new(max_tokens_in_batch, batch_size_cap, ranks, stages);
                (Kind::Vllm, limits, watermark_blocks_fraction)
            }
            ReplicaScheduler::SplitWise {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            } => {
                let limits = Limits::new(max_tokens_in_batch, batch_size_cap, ranks, stages);
                (Kind::SplitWise, limits, watermark_blocks_fraction)
            }
            ReplicaScheduler::Orca { batch_size_cap } => {
                (Kind::Orca, Limits::of_batch(batch_size_cap, ranks), 0.0)
            }
            ReplicaScheduler::FasterTransformer { batch_size_cap } => (
                Kind::FasterTransformer,
                Limits::of_batch(batch_size_cap, ranks),
                0.0,
            ),
            ReplicaScheduler::Lightllm {
                max_tokens_in_batch,
                batch_size_cap,
                max_waiting_iters,
            } => {
                let limits = Limits::new(max_tokens_in_batch, batch_size_cap, ranks, stages);
                (Kind::Lightllm { max_waiting_iters }, limits, 0.0)
            }
        };
        Self {
            kind,
            limits,
            watermark_blocks_fraction,
            compat,
        }
    }

    pub(crate) fn watermark_blocks_fraction(&self) -> f64 {
        self.watermark_blocks_fraction
    }

    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn reservation(&self) -> Reservation {
        match self.kind {
            Kind::Orca | Kind::FasterTransformer => Reservation::Longest,
            Kind::SplitWise if !self.compat.is_none() => Reservation::Longest,
            _ => Reservation::Grows,
        }
    }

    /// Whether decodes that nobody joins or leaves make the same batch again.
    #[inline]
    pub(crate) fn repeats_decodes(&self) -> bool {
        let plain = matches!(
            self.kind,
            Kind::Sarathi | Kind::Vllm | Kind::SplitWise | Kind::Orca
        );
        plain && !self.keeps_order()
    }

    /// Whether so many decodes leave no room for a prompt in their batch.
    #[inline]
    pub(crate) fn is_full_with(&self, decodes: u32) -> bool {
        match self.kind {
            // Prompts come before decodes.
            Kind::Vllm | Kind::SplitWise => false,
            _ => decodes >= self.limits.batch.min(self.limits.tokens),
        }
    }

    /// Whether a batch keeps its members until the last one ends.
    #[inline]
    pub(crate) fn is_static(&self) -> bool {
        self.kind == Kind::FasterTransformer
    }

    /// Whether the original's list of started requests is kept.
    #[inline]
    pub(crate) fn keeps_order(&self) -> bool {
        let listed = matches!(self.kind, Kind::Sarathi | Kind::Vllm | Kind::SplitWise);
        self.compat != Compat::None && listed
    }

    /// Longest prompt the policy can ever schedule, if it cannot cut prompts.
    #[inline]
    pub(crate) fn longest_prompt(&self) -> Option<u32> {
        match self.kind {
            Kind::Vllm | Kind::SplitWise | Kind::Lightllm { .. } => {
                Some(self.limits.tokens_per_request)
            }
            Kind::Sarathi | Kind::Orca | Kind::FasterTransformer => None,
        }
    }

    /// Puts the next batch together, taking its blocks; leaves `batch` empty if
    /// nothing can run.
    #[inline(always)]
    pub(crate) fn fill(
        &self,
        queues: &mut ReplicaQueues,
        batch: &mut Batch,
        requests: &mut [RequestState],
        now_s: f64,
    ) {
        let mut forming = Forming {
            limits: &self.limits,
            queues,
            batch,
            requests,
            now_s,
        };
        match (self.kind, self.compat) {
            (Kind::Sarathi, Compat::None) => sarathi::fill(&mut forming),
            (Kind::Sarathi, _) => vidur::fill_sarathi(&mut forming),
            (Kind::Vllm, Compat::None) => vllm::fill(&mut forming),
            (Kind::Vllm, _) => vidur::fill_vllm(&mut forming),
            (Kind::SplitWise, Compat::None) => split_wise::fill(&mut forming),
            (Kind::SplitWise, _) => vidur::fill_split_wise(&mut forming),
            (Kind::Orca, _) => orca::fill(&mut forming),
            (Kind::FasterTransformer, _) => faster_transformer::fill(&mut forming),
            (Kind::Lightllm { max_waiting_iters }, compat) => {
                lightllm::fill(&mut forming, max_waiting_iters, compat);
            }
        }
    }
}

/// A batch being formed, and what it is formed from.
pub(super) struct Forming<'a> {
    pub limits: &'a Limits,
    pub queues: &'a mut ReplicaQueues,
    pub batch: &'a mut Batch,
    pub requests: &'a mut [RequestState],
    pub now_s: f64,
}

impl Forming<'_> {
    /// Whether the micro-batch has all the requests it may have.
    #[inline]
    fn is_full(&self) -> bool {
        self.batch.requests() >= self.limits.batch as usize
    }

    /// Moves ready decodes into the batch and takes the blocks their new tokens
    /// need, preempting the requests started last until there are enough.
    #[inline]
    fn take_decodes(&mut self) {
        if self.queues.ready.is_empty() {
            return;
        }
        while self.queues.ready.blocks_for_next_step() > self.queues.blocks.free() {
            if !self.queues.preempt_last(self.requests, self.now_s) {
                break;
            }
        }
        self.take_ready();
        let growth = self.batch.decodes.blocks_for_next_step();
        if growth > 0 {
            self.queues.blocks.take(growth, self.now_s);
        }
    }

    /// Moves ready decodes into the batch, as many as it may have.
    #[inline]
    fn take_ready(&mut self) {
        let (limit, decodes) = (self.limits.batch as usize, &mut self.batch.decodes);
        self.queues.ready.take(limit, decodes, self.requests);
    }

    /// A batch of waiting prompts, or else one of decodes.
    #[inline]
    fn prompts_or_decodes(&mut self) {
        self.take_whole_prompts();
        if self.batch.prefills.is_empty() {
            self.take_decodes();
        }
    }

    /// Admits whole prompts in order of arrival, up to the token budget.
    #[inline(always)]
    fn take_whole_prompts(&mut self) {
        let mut tokens = narrow::<u32, _>(self.batch.decodes.len());
        while let Some(&id) = self.queues.waiting.front() {
            let prompt = self.requests[id as usize].prefill_target;
            // A restarted request may have outgrown the budget; it is then the only
            // prompt.
            let over_budget = self.limits.tokens.saturating_sub(tokens) < prompt
                && !self.batch.prefills.is_empty();
            if over_budget || self.is_full() || self.admit_front().is_none() {
                break;
            }
            tokens += prompt;
            self.add_prompt(id, prompt);
        }
    }

    /// Admits whole prompts while a reservation for each is to be had.
    fn take_reserved_prompts(&mut self) {
        let blocks = self.queues.reserved_blocks;
        while !self.is_full() && self.queues.admits_first(self.limits, self.requests) {
            let Some(id) = self.queues.waiting.pop_front() else {
                break;
            };
            self.queues.admit(id, blocks, self.requests, self.now_s);
            let prompt = self.requests[id as usize].prefill_target;
            self.add_prompt(id, prompt);
        }
    }

    /// Admits the first waiting request if its prompt's blocks are to be had.
    #[inline(always)]
    fn admit_front(&mut self) -> Option<u32> {
        if !self.queues.admits_first(self.limits, self.requests) {
            return None;
        }
        let id = self.queues.waiting.pop_front()?;
        let blocks = self.requests[id as usize].promised_blocks;
        self.queues.admit(id, blocks, self.requests, self.now_s);
        Some(id)
    }

    #[inline]
    fn add_prompt(&mut self, request: u32, tokens: u32) {
        self.batch.prefills.push(PrefillWork { request, tokens });
    }
}
