//! Batches of decodes that take turns on the stages of a pipeline.
//!
//! Mostly each of them is the next batch again, one token further, when it leaves the
//! last stage. While nothing else happens on the replica, one after the other is
//! counted and sent through the stages again, in one loop.

use super::STEPS;
use super::lane::Lane;
use super::way::Way;
use crate::simulator::recorder::Recorder;
use crate::simulator::replica::PoolWork;

impl<R: Recorder> Lane<'_, '_, R> {
    /// Has batches leave the stages and enter them again, in order: those that leave
    /// before `until_s`, and not after the limit, up to the first that is not all of the
    /// next batch, as it is. Returns when the last of them left; none: none did.
    #[inline(never)]
    pub(super) fn take_turns(&mut self, until_s: f64) -> Option<f64> {
        let (cost, limit_s) = (self.cost(), self.shared.limit_s);
        let until_s = until_s.min(limit_s.next_up());
        let state = &mut *self.state;
        if state.pipeline.tells_runs_apart
            || !state.repeats_decodes()
            || !state.queues.ready.is_empty()
        {
            return None;
        }
        // Nothing is freed meanwhile.
        let is_closed = !(state.queues).admits_first(state.policy.limits(), &self.shared.requests);
        let has_free_slot = state.has_free_slot();
        let blocks = &mut state.queues.blocks;
        let pipeline = &mut state.pipeline;
        let mut tally = Tally::default();
        let mut last_s = None;
        while let Some(&left) = pipeline.leaving.front()
            && left.at_s < until_s
        {
            let now_s = left.at_s;
            let batch = &mut state.batches[left.slot as usize];
            let decodes = &mut *batch.decodes;
            let count = decodes.len();
            let turns_away =
                is_closed || (!has_free_slot && state.policy.is_full_with(count as u32));
            if !turns_away || !batch.prefills.is_empty() || !decodes.goes_on_with(blocks.free()) {
                break;
            }
            batch.advance_decodes(now_s, &mut [], self.shared.recorder);
            let decodes = &mut *batch.decodes;
            if batch.ahead.is_over() {
                let repeats = decodes.steps_alike(0, STEPS, blocks.free());
                batch.shape.decode_context_tokens = decodes.context_tokens();
                batch.ahead.price(cost, &batch.shape, repeats);
            }
            let growth = decodes.blocks_for_next_step();
            if growth > 0 {
                blocks.take(growth, now_s);
            }
            tally.add(count, decodes.context_tokens());
            let way = Way::through(&mut pipeline.free_at_s, now_s, limit_s, |stage| {
                batch.ahead.time(stage)
            });
            batch.ahead.pass();
            if way.starts() {
                batch.decodes_waited_s = way.first_start_s - now_s;
            }
            state.busy.add_run(&way.busy, 1);
            let leaving = way.take(left.slot, batch);
            pipeline.leaving.pop_front();
            pipeline.leaving.push_back(leaving);
            last_s = Some(now_s);
        }
        self.shared.batches += tally.batches;
        tally.count(&mut state.work);
        last_s
    }
}

/// What steps of decodes come to.
#[derive(Default)]
struct Tally {
    batches: u64,
    members: u64,
    /// Query-key pairs.
    pairs: u64,
}

impl Tally {
    #[inline]
    fn add(&mut self, members: usize, context_tokens: u64) {
        self.batches += 1;
        self.members += members as u64;
        self.pairs += context_tokens + members as u64;
    }

    fn count(self, work: &mut PoolWork) {
        work.batches += self.batches;
        work.batch_requests += self.members;
        work.tokens += self.members;
        work.sampled_tokens += self.members;
        work.attended_pairs += self.pairs as f64;
    }
}
