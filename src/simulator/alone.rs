//! What happens to a replica while nothing else does.
//!
//! At the end of a stage the event chain of `cluster.rs` runs at one and the same
//! time: the batch ends, the replica forms the next one, the stage takes it. If
//! nothing else is pending for that time, the chain is walked here without the
//! queue; if nothing else happens before the new batch ends, it goes on from
//! there; and where the new batch is the old one again, one token further, only
//! what changes is touched. Results are those of the chain, event by event: a
//! recorder that wants the events gets them from there.

use super::cluster::Simulation;
use super::config::PoolRole;
use super::recorder::Recorder;

impl<R: Recorder> Simulation<'_, R> {
    /// Whether the end of a stage of `replica` may be handled by [`Self::walk`]:
    /// nobody wants the events, none of those that follow is past the end, nothing
    /// else is pending for now, and no cache leaves this replica while its prompt is
    /// being computed.
    pub(super) fn is_alone(&self, replica: u32) -> bool {
        let ends_at_once = self.cluster.ends_past_its_limit();
        !R::WANTS_EVENTS && !ends_at_once && self.is_quiet() && !self.sends_early(replica)
    }

    fn sends_early(&self, replica: u32) -> bool {
        let prefills_only = self.replicas[replica as usize].role == PoolRole::Prefill;
        self.overlaps && (prefills_only || self.mixed_pool.is_some())
    }

    /// A stage has executed a batch: all that follows at the same time.
    pub(super) fn walk(&mut self, replica: u32, stage: u32, slot: u32) {
        let stages = self.replicas[replica as usize].stages.len() as u32;
        if stages == 1 {
            // Then there is one batch only.
            return self.run_alone(replica, slot);
        }
        self.leave_stage(replica, stage, slot);
        self.schedule_stage(replica, stage);
        if stage + 1 < stages {
            let next = &mut self.replicas[replica as usize].stages[stage as usize + 1];
            next.queue.push_back(slot);
            self.schedule_stage(replica, stage + 1);
            return;
        }
        self.advance_decodes(replica, slot);
        self.complete_batch(replica, slot);
        if !self.is_quiet() || !self.wakes.is_empty() {
            self.schedule_after_batch(replica);
            return;
        }
        let mut formed = 0;
        while let Some(slot) = self.form_batch(replica) {
            let first = &mut self.replicas[replica as usize].stages[0];
            first.queue.push_back(slot);
            formed += 1;
        }
        if R::WANTS_BATCHES && formed > 0 {
            self.tell_kv_use(replica);
        }
        for _ in 0..formed {
            self.schedule_stage(replica, 0);
        }
    }

    /// Whether nothing is pending for the present time.
    fn is_quiet(&self) -> bool {
        let now_s = self.events.now_s();
        self.events.next_time_s() > now_s && self.next_arrival_s() > now_s
    }

    /// The replica's stage has executed its batch. Goes on until the replica has
    /// nothing to run, or something else happens first.
    fn run_alone(&mut self, replica: u32, mut slot: u32) {
        loop {
            self.leave_stage(replica, 0, slot);
            self.advance_decodes(replica, slot);
            if !R::WANTS_BATCHES && self.repeats(replica, slot) {
                let end_s = self.events.now_s() + self.repeat(replica, slot);
                if self.goes_on(replica, slot, end_s) {
                    continue;
                }
                return;
            }
            self.complete_batch(replica, slot);
            if !self.is_quiet() || !self.wakes.is_empty() {
                self.schedule_after_batch(replica);
                return;
            }
            let Some(formed) = self.form_batch(replica) else {
                return;
            };
            slot = formed;
            if R::WANTS_BATCHES {
                self.tell_kv_use(replica);
            }
            let end_s = self.events.now_s() + self.start_stage(replica, 0, slot);
            if !self.goes_on(replica, slot, end_s) {
                return;
            }
        }
    }

    /// Moves the clock to the end of the batch if nothing happens before, and else
    /// leaves it to the queue.
    fn goes_on(&mut self, replica: u32, slot: u32, end_s: f64) -> bool {
        let other_s = self.events.next_time_s().min(self.next_arrival_s());
        let limit_s = self.cluster.time_limit_s.unwrap_or(f64::INFINITY);
        if end_s < other_s && end_s <= limit_s {
            self.events.advance(end_s);
            return true;
        }
        self.push_stage_end(end_s, replica, 0, slot);
        false
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
            && !batch.decodes.is_done_with_any()
            && batch.decodes.blocks_for_next_step() <= queues.blocks.free()
    }

    /// Starts the present batch again, one token further; returns how long it
    /// takes, in seconds.
    fn repeat(&mut self, replica: u32, slot: u32) -> f64 {
        let now_s = self.events.now_s();
        let state = &mut self.replicas[replica as usize];
        let growth = state.batches[slot as usize].decodes.blocks_for_next_step();
        if growth > 0 {
            state.queues.blocks.take(growth, now_s);
        }
        state.repeat_batch(slot, self.batches, now_s);
        self.batches += 1;
        self.start_stage(replica, 0, slot)
    }
}
