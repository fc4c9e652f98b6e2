//! Decodes of a replica that are in no batch, in batch order.
//!
//! Batches give their decodes back as they end and the next one takes those that
//! have waited longest. Where a micro-batch may not have all of them, what one batch
//! gives back is often just what another takes: cohorts stay as they are until a
//! batch needs members of several, and nobody is moved who need not be.

use std::collections::VecDeque;

use super::cohort::Cohort;
use super::request::RequestState;

#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "batches and what is here hand their boxes on"
)]
pub(crate) struct ReadyDecodes {
    /// Those that go first; empty only if nobody is here.
    first: Box<Cohort>,
    /// Those after them. None of these is empty.
    others: VecDeque<Box<Cohort>>,
    /// Empty cohorts, kept for their buffers.
    spare: Vec<Box<Cohort>>,
    /// Block size of the cohorts' KV cache, as [`Cohort::new`] has it.
    block_size: u32,
}

impl ReadyDecodes {
    /// Nobody, in cohorts as [`Cohort::new`] makes them.
    pub(crate) fn new(block_size: u32) -> Self {
        Self {
            first: Box::new(Cohort::new(block_size)),
            others: VecDeque::new(),
            spare: Vec::new(),
            block_size,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        let others: usize = self.others.iter().map(|cohort| cohort.len()).sum();
        self.first.len() + others
    }

    /// The cohorts they are in.
    pub(crate) fn cohorts(&self) -> impl Iterator<Item = &Box<Cohort>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Blocks the next step of all of them takes.
    #[inline]
    pub(crate) fn blocks_for_next_step(&self) -> u64 {
        let others = self.others.iter();
        let others: u64 = others.map(|cohort| cohort.blocks_for_next_step()).sum();
        self.first.blocks_for_next_step() + others
    }

    /// Adds one request, last of all.
    #[inline(always)]
    pub(crate) fn join(&mut self, id: u32, requests: &mut [RequestState]) {
        let last = self.others.back_mut().unwrap_or(&mut self.first);
        last.join(id, requests);
    }

    /// Adds all of `cohort`'s members after those that are here, and empties it.
    #[inline]
    pub(crate) fn put(&mut self, cohort: &mut Box<Cohort>) {
        if cohort.is_empty() {
            return;
        }
        if self.is_empty() {
            return std::mem::swap(&mut self.first, cohort);
        }
        let empty = self.empty_cohort();
        self.others.push_back(std::mem::replace(cohort, empty));
    }

    /// Moves the first `limit` members, or all if they are fewer, into the empty cohort
    /// `batch`.
    #[inline]
    pub(crate) fn take(
        &mut self,
        limit: usize,
        batch: &mut Box<Cohort>,
        requests: &mut [RequestState],
    ) {
        debug_assert!(batch.is_empty());
        if self.first.len() > limit {
            return self.first.split_front(limit, batch, requests);
        }
        std::mem::swap(&mut self.first, batch);
        if !self.others.is_empty() {
            self.fill_up(limit, batch, requests);
        }
    }

    /// Has members of the other cohorts follow those in `batch` until there are `limit`;
    /// the first cohort has been taken.
    #[inline(never)]
    fn fill_up(&mut self, limit: usize, batch: &mut Box<Cohort>, requests: &mut [RequestState]) {
        while let Some(mut next) = self.others.pop_front() {
            let room = limit - batch.len();
            if room < next.len() {
                next.split_front(room, &mut self.first, requests);
                batch.append(&mut self.first, requests);
                std::mem::swap(&mut self.first, &mut next);
                self.spare.push(next);
                return;
            }
            batch.append(&mut next, requests);
            self.spare.push(next);
        }
    }

    /// All of them in one cohort.
    #[inline]
    pub(crate) fn as_one(&mut self, requests: &mut [RequestState]) -> &mut Box<Cohort> {
        while let Some(mut next) = self.others.pop_front() {
            self.first.append(&mut next, requests);
            self.spare.push(next);
        }
        &mut self.first
    }

    /// Removes and returns the last one.
    pub(crate) fn pop_last(&mut self, requests: &mut [RequestState]) -> Option<u32> {
        let Some(last) = self.others.back_mut() else {
            return self.first.pop_last(requests);
        };
        let id = last.pop_last(requests);
        if last.is_empty() {
            self.spare.extend(self.others.pop_back());
        }
        id
    }

    /// An empty cohort, with buffers where there is one.
    pub(crate) fn empty_cohort(&mut self) -> Box<Cohort> {
        let spare = self.spare.pop();
        spare.unwrap_or_else(|| Box::new(Cohort::new(self.block_size)))
    }

    /// Keeps an empty cohort for its buffers.
    pub(crate) fn keep_spare(&mut self, cohort: Box<Cohort>) {
        debug_assert!(cohort.is_empty());
        self.spare.push(cohort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Request;
    use proptest::prelude::*;

    /// Requests that have one of many output tokens.
    fn decoding(count: u32) -> Vec<RequestState> {
        let request = Request {
            arrived_at_s: 0.0,
            prefill_tokens: 30,
            decode_tokens: 200,
        };
        let state = |id| RequestState {
            generated: 1,
            last_token_at_s: f64::from(id),
            ..RequestState::new(id, &request, request.decode_tokens)
        };
        (0..count).map(state).collect()
    }

    proptest! {
        /// Whatever is put, taken and left over: all in order, nobody lost, blocks counted.
        #[test]
        fn they_are_taken_in_the_order_they_came(
            moves in proptest::collection::vec((0u8..4, 1usize..9), 1..60),
        ) {
            let mut requests = decoding(600);
            let mut ready = ReadyDecodes::new(16);
            let (mut expected, mut next) = (VecDeque::new(), 0u32);
            for (kind, size) in moves {
                let mut batch = Box::new(Cohort::new(16));
                match kind {
                    0 => {
                        for id in next..next + size as u32 {
                            batch.join(id, &mut requests);
                            expected.push_back(id);
                        }
                        next += size as u32;
                        ready.put(&mut batch);
                        prop_assert!(batch.is_empty());
                    }
                    1 => {
                        ready.join(next, &mut requests);
                        expected.push_back(next);
                        next += 1;
                    }
                    2 => {
                        ready.take(size, &mut batch, &mut requests);
                        let taken: Vec<u32> = expected.drain(..size.min(expected.len())).collect();
                        prop_assert_eq!(batch.members(), taken);
                    }
                    _ => prop_assert_eq!(ready.pop_last(&mut requests), expected.pop_back()),
                }
                prop_assert_eq!(ready.len(), expected.len());
                prop_assert_eq!(ready.is_empty(), expected.is_empty());
                // Prompts of 30 tokens fill their second block two steps from now.
                prop_assert_eq!(ready.blocks_for_next_step(), 0);
            }
            let all = ready.as_one(&mut requests);
            prop_assert_eq!(all.members(), expected.make_contiguous());
            let blocks: Vec<u64> = (0..4).map(|step| all.blocks_for_step_in(step)).collect();
            prop_assert_eq!(blocks, [0, 0, all.len() as u64, 0]);
        }
    }
}
