//! Batches of decodes that take turns on the stages of a pipeline.
//!
//! Mostly each of them is the next batch again, one token further, when it leaves the
//! last stage. While nothing else happens on the replica, one after the other is
//! counted and sent through the stages again, in one loop.

use super::STEPS;
use super::lane::{Lane, steps_within};
use super::rounds::ROUNDS_MIN;
use super::way::Way;
use crate::execution_time::StepCost;
use crate::number::narrow;
use crate::simulator::recorder::Recorder;
use crate::simulator::replica::Batch;

impl<R: Recorder> Lane<'_, '_, R> {
    /// Has batches leave the stages and enter them again, in order: those that leave
    /// before `until_s`, up to the first that is not all of the next batch, as it is.
    /// Returns when the last of them left; none: none did.
    #[inline(never)]
    pub(super) fn take_turns(&mut self, until_s: f64) -> Option<f64> {
        let first = self.state.pipeline.leaving.front()?;
        let has_decodes_only = self.state.batches[first.slot as usize].prefills.is_empty();
        if first.at_s >= until_s || !has_decodes_only || self.is_alone() {
            return None;
        }
        let state = &mut *self.state;
        let takes_turns = state.repeats_decodes()
            && state.queues.ready.is_empty()
            && !state.pipeline.tells_runs_apart
            && self.shared.limit_s == f64::INFINITY;
        if !takes_turns {
            return None;
        }
        // Nothing is freed meanwhile: what `Replica::turns_away` asks is the same for all.
        let limits = state.policy.limits();
        let is_closed = !(state.queues).admits_first(limits, &self.shared.requests);
        let mut last_s = None;
        loop {
            last_s = self.go_round(until_s, is_closed).or(last_s);
            let (turned_s, may_go_round) = self.turn_one_by_one(until_s, is_closed);
            last_s = turned_s.or(last_s);
            if !may_go_round {
                return last_s;
            }
        }
    }

    /// The same turn by turn, up to the first that is not sure, or has just been priced
    /// for many rounds. Returns when the last of them left, and whether it is for that.
    fn turn_one_by_one(&mut self, until_s: f64, is_closed: bool) -> (Option<f64>, bool) {
        let cost = self.cost();
        let state = &mut *self.state;
        let has_free_slot = state.has_free_slot();
        let blocks = &mut state.queues.blocks;
        let leaving = &mut state.pipeline.leaving;
        let (mut next, mut last_s, mut may_go_round) = (0, None, false);
        let (mut steps, mut tokens, mut pairs) = (0, 0, 0);
        while let Some(left) = leaving.get_mut(next)
            && left.at_s < until_s
        {
            let now_s = left.at_s;
            let batch = &mut state.batches[left.slot as usize];
            let count = narrow::<u32, _>(batch.decodes.len());
            if !is_closed && (has_free_slot || !state.policy.is_full_with(count)) {
                break;
            }
            let growth = batch.decodes.blocks_after_next_step();
            if growth > blocks.free() {
                break;
            }
            if batch.ahead.is_over() {
                let is_sure = price_repetitions(batch, until_s - now_s, cost);
                may_go_round = batch.ahead.left() >= ROUNDS_MIN;
                if !is_sure || may_go_round {
                    break;
                }
            }
            if growth > 0 {
                blocks.take(growth, now_s);
            }
            let spent = batch.spent_by_decodes();
            (batch.decodes).advance_together(now_s, spent, self.shared.recorder);
            steps += 1;
            tokens += u64::from(count);
            pairs += batch.decodes.context_tokens() + u64::from(count);
            let free_at_s = &mut state.pipeline.free_at_s;
            let way = Way::through_all(free_at_s, now_s, batch.ahead.step());
            batch.ahead.pass(1);
            state.busy.add_run(&way.busy, 1);
            batch.decodes_waited_s = way.first_start_s - now_s;
            batch.last_stage_at_s = way.executed_at_s;
            batch.spent = way.spent;
            *left = way.leaving(left.slot);
            last_s = Some(now_s);
            next += 1;
            if next == leaving.len() {
                next = 0;
            }
        }
        // They are few: less work than finding out how best to rotate them.
        for _ in 0..next {
            if let Some(first) = leaving.pop_front() {
                leaving.push_back(first);
            }
        }
        self.shared.batches += steps;
        state.work.count_decodes(steps, tokens, pairs);
        (last_s, may_go_round)
    }
}

/// Asks for the prices of the next repetitions of a batch, which is about to leave; whether
/// there are any: whether it is sure to be the next one again, if its blocks are there.
/// Nothing else happens for `free_s`.
#[inline(never)]
pub(super) fn price_repetitions(batch: &mut Batch, free_s: f64, cost: &dyn StepCost) -> bool {
    let repeats = match batch.prefills.is_empty() {
        true => batch.decodes.steps_nobody_ends(STEPS),
        false => 0,
    };
    if repeats > 0 {
        let members = batch.decodes.len() as u64;
        batch.shape.decode_context_tokens = batch.decodes.context_tokens() + members;
        let expected = steps_within(free_s, batch.spent.total_s);
        batch.ahead.price(cost, &batch.shape, repeats, expected);
    }
    repeats > 0
}
