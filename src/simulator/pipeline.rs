//! A replica's pipeline without its events.
//!
//! Stages are first come, first served, and what a batch costs is known when it is
//! formed; so is, then, when each stage will start and finish it: a stage starts
//! when both it and the batch are free. Only the end of the batch is an event, and
//! as batches leave in the order they entered, only the first one's is in the
//! queue. While nothing else happens before it, not even that; and where the next
//! batch is the old one again, one token further, only what changes is touched.
//!
//! Results are those of the chain of events in `cluster.rs`. That runs where a
//! recorder wants to be told of batches or events, and on replicas whose caches
//! leave while their prompts are being computed.

use std::collections::VecDeque;

use super::cluster::{Simulation, count_waiting};
use super::config::PoolRole;
use super::event::Event;
use super::recorder::Recorder;
use crate::execution_time::StageRun;

/// Batches on a replica's stages, in order.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// When each stage will have done all of its batches, seconds.
    free_at_s: Vec<f64>,
    leaving: VecDeque<Leaving>,
    /// Whether the queue knows of the first of `leaving`.
    is_announced: bool,
}

/// A batch on its way through the stages.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    slot: u32,
    /// When the last stage starts it, seconds.
    started_at_s: f64,
    /// When the last stage has executed it, seconds; after the limit, some time after.
    at_s: f64,
}

impl Pipeline {
    pub(crate) fn new(stages: u32) -> Self {
        Self {
            free_at_s: vec![0.0; stages as usize],
            ..Self::default()
        }
    }
}

impl<R: Recorder> Simulation<'_, R> {
    /// Whether the stages of `replica` are handled here.
    pub(super) fn is_pipelined(&self, replica: u32) -> bool {
        // Vidur executes the first event past the limit: which one it is matters.
        let ends_at_once = self.cluster.ends_past_its_limit();
        let told = R::WANTS_EVENTS || R::WANTS_BATCHES;
        !told && !ends_at_once && !self.sends_early(replica)
    }

    fn sends_early(&self, replica: u32) -> bool {
        let prefills_only = self.replicas[replica as usize].role == PoolRole::Prefill;
        self.overlaps && (prefills_only || self.mixed_pool.is_some())
    }

    /// Whether nothing is pending for the present time.
    fn is_quiet(&self) -> bool {
        let now_s = self.events.now_s();
        self.events.next_time_s() > now_s && self.next_arrival_s() > now_s
    }

    /// Sends a batch that has just been formed through all stages.
    pub(super) fn launch(&mut self, replica: u32, slot: u32) {
        let now_s = self.events.now_s();
        let limit_s = self.limit_s;
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        let cost = &self.cluster.pools[state.pool].cost;
        let mut leaving = Leaving {
            slot,
            started_at_s: now_s,
            at_s: now_s,
        };
        for (stage, free_at_s) in (0..).zip(&mut state.pipeline.free_at_s) {
            let start_s = leaving.at_s.max(*free_at_s);
            if start_s > limit_s {
                // It never starts.
                leaving.at_s = start_s;
                break;
            }
            count_waiting(batch, stage, &mut self.requests, start_s);
            let run = StageRun {
                replica: self.first_replica + replica,
                nth_batch: batch.nth,
                stage,
            };
            let time = cost.stage_time_of(run, &batch.shape);
            batch.spent.total_s += time.total_s();
            batch.spent.model_s += time.model_s;
            state.busy.add(time.total_s(), 1);
            leaving.started_at_s = start_s;
            leaving.at_s = start_s + time.total_s();
            batch.last_stage_at_s = leaving.at_s;
            *free_at_s = leaving.at_s;
        }
        state.pipeline.leaving.push_back(leaving);
    }

    /// Has the queue tell when the first batch leaves the pipeline.
    pub(super) fn announce(&mut self, replica: u32) {
        let pipeline = &mut self.replicas[replica as usize].pipeline;
        let stage = pipeline.free_at_s.len() as u32 - 1;
        if let Some(first) = pipeline.leaving.front()
            && !pipeline.is_announced
        {
            pipeline.is_announced = true;
            let end = Event::StageEnd {
                replica,
                stage,
                slot: first.slot,
            };
            self.events.push_as_of(first.started_at_s, first.at_s, end);
        }
    }

    /// A batch leaves the last stage of `replica`. Goes on until the replica has
    /// nothing to run, or something else happens first.
    pub(super) fn run_pipeline(&mut self, replica: u32) {
        self.replicas[replica as usize].pipeline.is_announced = false;
        while let Some(left) = self.replicas[replica as usize].pipeline.leaving.pop_front() {
            if !self.end_and_refill(replica, left.slot) || !self.goes_on(replica) {
                break;
            }
        }
        self.announce(replica);
    }

    /// The batch of `slot` has been executed; forms what can be formed next.
    /// Whether that is all that happens now.
    fn end_and_refill(&mut self, replica: u32, slot: u32) -> bool {
        if !self.is_quiet() {
            self.events.push_now(Event::BatchEnd { replica, slot });
            return false;
        }
        self.advance_decodes(replica, slot);
        if self.repeats(replica, slot) {
            self.repeat(replica, slot);
            return true;
        }
        self.complete_batch(replica, slot);
        if !self.is_quiet() || !self.wakes.is_empty() {
            self.schedule_after_batch(replica);
            return false;
        }
        while let Some(slot) = self.form_batch(replica) {
            self.launch(replica, slot);
        }
        true
    }

    /// Moves the clock to the end of the first batch if nothing happens before.
    fn goes_on(&mut self, replica: u32) -> bool {
        let Some(first) = self.replicas[replica as usize].pipeline.leaving.front() else {
            return false;
        };
        let other_s = self.events.next_time_s().min(self.next_arrival_s());
        let goes_on = first.at_s < other_s && first.at_s <= self.limit_s;
        if goes_on {
            self.events.advance(first.at_s);
        }
        goes_on
    }

    /// Whether the next batch will be the present one again: decodes only, none of
    /// them done, room for their tokens, and nobody who might join.
    fn repeats(&self, replica: u32, slot: u32) -> bool {
        let state = &self.replicas[replica as usize];
        let batch = &state.batches[slot as usize];
        let queues = &state.queues;
        state.policy.repeats_decodes()
            && batch.prefills.is_empty()
            && queues.waiting.is_empty()
            && queues.prefilling.is_empty()
            && queues.ready.is_empty()
            && state.incoming.is_empty()
            && !batch.decodes.is_empty()
            && !batch.decodes.is_done_with_any()
            && batch.decodes.blocks_for_next_step() <= queues.blocks.free()
    }

    /// Starts the present batch again, one token further.
    fn repeat(&mut self, replica: u32, slot: u32) {
        let now_s = self.events.now_s();
        let state = &mut self.replicas[replica as usize];
        let growth = state.batches[slot as usize].decodes.blocks_for_next_step();
        if growth > 0 {
            state.queues.blocks.take(growth, now_s);
        }
        state.repeat_batch(slot, self.batches, now_s);
        self.batches += 1;
        self.launch(replica, slot);
    }
}
