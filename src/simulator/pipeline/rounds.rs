//! Batches of decodes that take turns for many rounds.
//!
//! What changes with a turn is then held together, one piece for each batch, instead of
//! being looked up where it belongs; filling and writing it back takes as long as a few
//! turns.

use std::slice;

use super::Leaving;
use super::lane::{Lane, steps_within};
use super::turns::price_repetitions;
use super::way::Way;
use crate::execution_time::StageTime;
use crate::number::narrow;
use crate::simulator::cohort::{NO_INTERVAL_S, Steps, StepsMade};
use crate::simulator::recorder::Recorder;
use crate::simulator::replica::Batch;
use crate::simulator::spent::Spent;

/// Fewer rounds are made turn by turn.
pub(super) const ROUNDS_MIN: usize = 8;

/// A batch that takes turns on so many stages.
struct Turn<'b, const STAGES: usize> {
    /// How it leaves the stages.
    left: Leaving,
    members: u32,
    /// When its members' last token came, seconds.
    last_token_at_s: f64,
    /// What the step it leaves with has taken.
    spent: Spent,
    /// What its decodes waited for the first stage before that.
    waited_s: f64,
    /// Longest time between two tokens so far, seconds.
    longest_s: f64,
    /// Its steps, that one not counted.
    steps: Steps<'b>,
    /// Times of those to come.
    times: slice::Iter<'b, [StageTime; STAGES]>,
}

/// What a batch has come to.
struct Turned {
    left: Leaving,
    last_token_at_s: f64,
    spent: Spent,
    waited_s: f64,
    longest_s: f64,
    made: StepsMade,
}

impl<'b, const STAGES: usize> Turn<'b, STAGES> {
    /// Of the one of `batches` that leaves as `left` says.
    #[inline]
    fn new(left: Leaving, batches: &'b [Batch]) -> Self {
        let batch = &batches[left.slot as usize];
        Self {
            left,
            members: narrow::<u32, _>(batch.decodes.len()),
            last_token_at_s: batch.decodes.last_token_at_s(),
            spent: batch.spent,
            waited_s: batch.decodes_waited_s,
            longest_s: NO_INTERVAL_S,
            steps: batch.decodes.steps(),
            times: batch.ahead.steps().iter(),
        }
    }

    fn turned(self) -> Turned {
        Turned {
            left: self.left,
            last_token_at_s: self.last_token_at_s,
            spent: self.spent,
            waited_s: self.waited_s,
            longest_s: self.longest_s,
            made: self.steps.made(),
        }
    }
}

impl<R: Recorder> Lane<'_, '_, R> {
    /// Has batches leave the stages and enter them again, in order, as long as they leave
    /// before `until_s` and are sure to be the next ones again, if that promises to be
    /// for many rounds. `is_closed`: nobody who waits can join them. Returns when the
    /// last of them left; none: none did.
    pub(super) fn go_round(&mut self, until_s: f64, is_closed: bool) -> Option<f64> {
        match self.state.stages.len() {
            2 => self.go_round_on::<2>(until_s, is_closed),
            4 => self.go_round_on::<4>(until_s, is_closed),
            8 => self.go_round_on::<8>(until_s, is_closed),
            _ => None,
        }
    }

    /// The same on so many stages.
    #[inline(never)]
    fn go_round_on<const STAGES: usize>(&mut self, until_s: f64, is_closed: bool) -> Option<f64> {
        if !self.have_many_rounds(until_s, is_closed) {
            return None;
        }
        let state = &mut *self.state;
        let free_at_s: &mut [f64; STAGES] = state.pipeline.free_at_s.as_mut_array()?;
        let (leaving, batches) = (&state.pipeline.leaving, &state.batches);
        let count = leaving.len();
        // At most one batch for each stage; in place of those there are not stands the
        // first, and is not looked at.
        let mut turns: [Turn<'_, STAGES>; STAGES] =
            std::array::from_fn(|nth| Turn::new(leaving[nth % count], batches));
        let (mut next, mut last_s) = (0, None);
        while let Some(turn) = turns.get_mut(next)
            && turn.left.at_s < until_s
            && let Some(times) = turn.times.next()
        {
            let now_s = turn.left.at_s;
            let growth = turn.steps.end(Spent {
                waiting_s: turn.spent.waiting_s + turn.waited_s,
                ..turn.spent
            });
            if growth > 0 {
                state.queues.blocks.take(u64::from(growth), now_s);
            }
            let interval_s = now_s - turn.last_token_at_s;
            (self.shared.recorder).token_intervals(interval_s, turn.members);
            if interval_s > turn.longest_s {
                turn.longest_s = interval_s;
            }
            turn.last_token_at_s = now_s;
            let way = Way::through_all(free_at_s, now_s, times);
            state.busy.add_run(&way.busy, 1);
            turn.waited_s = way.first_start_s - now_s;
            turn.spent = way.spent;
            turn.left = way.leaving(turn.left.slot);
            last_s = Some(now_s);
            next = if next + 1 < count { next + 1 } else { 0 };
        }
        let turned = turns.map(Turn::turned);
        for (nth, batch) in turned.into_iter().take(count).enumerate() {
            // In the order in which they leave now.
            self.state.pipeline.leaving[(nth + count - next) % count] = batch.left;
            self.write_back(batch);
        }
        last_s
    }

    /// Whether all batches are sure to leave before `until_s` and enter again for many
    /// rounds, or now become so by being priced; and there are blocks for all of those.
    fn have_many_rounds(&mut self, until_s: f64, is_closed: bool) -> bool {
        let cost = self.cost();
        let state = &mut *self.state;
        let has_free_slot = state.has_free_slot();
        let mut blocks = 0;
        for left in &state.pipeline.leaving {
            let batch = &mut state.batches[left.slot as usize];
            let free_s = until_s - left.at_s;
            let may_grow = !is_closed
                && (has_free_slot
                    || !state
                        .policy
                        .is_full_with(narrow::<u32, _>(batch.decodes.len())));
            if may_grow || steps_within(free_s, batch.spent.total_s) < ROUNDS_MIN {
                return false;
            }
            if batch.ahead.is_over() {
                price_repetitions(batch, free_s, cost);
            }
            if batch.ahead.left() < ROUNDS_MIN {
                return false;
            }
            blocks += batch.decodes.most_blocks_for(batch.ahead.left());
        }
        blocks <= state.queues.blocks.free()
    }

    /// Counts the turns of a batch.
    #[inline]
    fn write_back(&mut self, turned: Turned) {
        let state = &mut *self.state;
        let batch = &mut state.batches[turned.left.slot as usize];
        let (turns, members) = (turned.made.count(), batch.decodes.len() as u64);
        // As if counted one by one: each step attends to one token more of every member.
        let first = batch.decodes.context_tokens() + 2 * members;
        let pairs = turns * first + members * (turns * turns.saturating_sub(1) / 2);
        self.shared.batches += turns;
        state.work.count_decodes(turns, turns * members, pairs);
        batch.ahead.pass(narrow::<usize, _>(turns));
        let last_token_at_s = turned.last_token_at_s;
        (batch.decodes).count_steps(turned.made, last_token_at_s, turned.longest_s);
        batch.decodes_waited_s = turned.waited_s;
        batch.last_stage_at_s = turned.left.at_s;
        batch.spent = turned.spent;
    }
}
