//! What happens on one replica's stages while nobody else is concerned: batches go
//! through them, decode steps are repeated and forecast.

use super::way::Way;
use super::{Leaving, STEPS};
use crate::execution_time::{StageRun, StageTime, StepCost};
use crate::number::{narrow, whole_usize};
use crate::simulator::cluster::{Shared, count_waiting};
use crate::simulator::exact_sum::ExactRun;
use crate::simulator::recorder::Recorder;
use crate::simulator::replica::{Batch, Replica};

/// One replica whose stages are handled here, looked up once for all that happens to
/// it at a time.
pub(super) struct Lane<'s, 'a, R> {
    pub(super) state: &'s mut Replica,
    pub(super) shared: &'s mut Shared<'a, R>,
    /// Number of the replica in the cluster.
    pub(super) number: u32,
}

impl<'a, R: Recorder> Lane<'_, 'a, R> {
    pub(super) fn cost(&self) -> &'a dyn StepCost {
        &*self.shared.cluster.pools[self.state.pool].cost
    }

    /// Sends a batch that has just been formed through all stages.
    #[inline(always)]
    pub(super) fn launch(&mut self, slot: u32, now_s: f64) {
        let cost = self.cost();
        let batch = &mut self.state.batches[slot as usize];
        if self.state.pipeline.tells_runs_apart {
            let (replica, nth_batch) = (self.number, batch.nth);
            return self.enter_stages(slot, now_s, |stage, batch| {
                let run = StageRun {
                    replica,
                    nth_batch,
                    stage,
                };
                cost.stage_time_of(run, &batch.shape)
            });
        }
        if self.state.stages.len() > 1 {
            batch.ahead.price_one(cost, &batch.shape);
            return self.enter_ahead(slot, now_s);
        }
        let repeats = match self.shared.forecasts {
            true => self.steps_after(slot, 1),
            false => 0,
        };
        if repeats > 0 {
            return self.launch_all(slot, repeats, now_s);
        }
        self.enter_stages(slot, now_s, |stage, batch| {
            cost.stage_time(stage, &batch.shape)
        });
    }

    /// Sends a batch of decodes that has just been formed to the only stage, and
    /// forecasts the next `repeats`, which it will be again.
    #[inline]
    fn launch_all(&mut self, slot: u32, repeats: usize, now_s: f64) {
        let cost = self.cost();
        let forecast = &mut self.state.pipeline.forecast;
        let times = forecast.room(repeats + 1);
        cost.decode_times(&self.state.batches[slot as usize].shape, times);
        let time = times[0];
        forecast.pass(1);
        self.enter_stages(slot, now_s, |_, _| time);
    }

    /// Sends a batch, priced ahead, through all stages.
    fn enter_ahead(&mut self, slot: u32, now_s: f64) {
        let cost = self.cost();
        self.enter_stages(slot, now_s, |stage, batch| {
            let time = batch.ahead.step()[stage as usize];
            debug_assert_eq!(time, cost.stage_time(stage, &batch.shape));
            time
        });
        self.state.batches[slot as usize].ahead.pass(1);
    }

    /// Sends a batch through all stages, where it takes what `time` says.
    #[inline]
    fn enter_stages(&mut self, slot: u32, now_s: f64, time: impl Fn(u32, &Batch) -> StageTime) {
        let limit_s = self.shared.limit_s;
        let state = &mut *self.state;
        let batch = &mut state.batches[slot as usize];
        let stages = &mut state.pipeline.free_at_s;
        let way = Way::through(stages, now_s, limit_s, |stage| time(stage, batch));
        if way.starts() {
            count_waiting(batch, 0, &mut self.shared.requests, way.first_start_s);
            batch.last_stage_at_s = way.executed_at_s;
        }
        batch.spent = way.spent;
        state.busy.add_run(&way.busy, 1);
        state.pipeline.leaving.push_back(way.leaving(slot));
    }

    /// Makes the steps that have been forecast happen that follow one that ends before
    /// `until_s`, and not after the limit.
    #[inline]
    pub(super) fn follow_forecast(&mut self, until_s: f64) {
        let pipeline = &self.state.pipeline;
        if !pipeline.forecast.is_empty()
            && let Some(&left) = pipeline.leaving.front()
            && left.at_s < until_s
            && left.at_s <= self.shared.limit_s
        {
            self.make_forecast(left, until_s);
        }
    }

    /// Makes steps that have been forecast happen, after the batch `left`.
    #[inline(never)]
    fn make_forecast(&mut self, left: Leaving, until_s: f64) {
        let pipeline = &mut self.state.pipeline;
        pipeline.leaving.clear();
        let mut forecast = std::mem::take(&mut pipeline.forecast);
        let batch = &mut self.state.batches[left.slot as usize];
        batch.advance_decodes(left.at_s, &mut self.shared.requests, self.shared.recorder);
        let steps = on_one_stage(forecast.steps());
        let made = self.make_steps(left.slot, left.at_s, until_s, steps);
        forecast.pass(made);
        self.state.pipeline.forecast = forecast;
    }

    /// Counts the tokens of the batch of `slot`, which has just been executed, and
    /// starts it again if it is the next one too, or all of that but who is ready;
    /// whether it is.
    #[inline]
    pub(super) fn advance(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        let batch = &mut self.state.batches[slot as usize];
        batch.advance_decodes(now_s, &mut self.shared.requests, self.shared.recorder);
        let nobody_ends = batch.prefills.is_empty() && !batch.decodes.may_have_finished();
        nobody_ends && self.repeat_if_alike(slot, now_s, pending_s)
    }

    /// The same for what is left of a batch.
    #[inline]
    pub(super) fn describe_and_repeat(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        self.state.batches[slot as usize].describe(&self.shared.requests);
        self.repeat_if_alike(slot, now_s, pending_s)
    }

    /// Starts the present batch again, if all of the next batch will be its decodes, or
    /// those and others that are ready.
    #[inline(always)]
    fn repeat_if_alike(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        let repeats = self.steps_after(slot, 0);
        if repeats == 0 {
            return self.repeat_with_ready(slot, now_s, pending_s);
        }
        match self.state.stages.len() {
            1 => self.repeat(slot, repeats, now_s, pending_s),
            2 if self.is_alone() => self.repeat_alone::<2>(slot, repeats, now_s, pending_s),
            4 if self.is_alone() => self.repeat_alone::<4>(slot, repeats, now_s, pending_s),
            8 if self.is_alone() => self.repeat_alone::<8>(slot, repeats, now_s, pending_s),
            _ => self.repeat_once(slot, repeats, now_s, pending_s),
        }
        true
    }

    /// Whether the only batch in flight is repeated by itself, on several stages: it never
    /// waits for one.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.state.running_batches == 1
            && !self.shared.forecasts
            && !self.state.pipeline.tells_runs_apart
            && matches!(self.state.stages.len(), 2 | 4 | 8)
    }

    /// Starts the present batch again with those who are ready, if they are all of the
    /// next batch: what taking it apart and forming the next would come to.
    #[inline]
    fn repeat_with_ready(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        if !self.decodes_only(slot) {
            return false;
        }
        let state = &mut *self.state;
        let (batch, queues) = (&mut state.batches[slot as usize], &mut state.queues);
        let others = queues.ready.len();
        let all = others > 0
            && state.stages.len() == 1
            && queues.waiting.is_empty()
            && others + batch.decodes.len() <= state.policy.limits().batch as usize;
        if !all {
            return false;
        }
        let growth = queues.ready.blocks_for_next_step() + batch.decodes.blocks_for_next_step();
        if growth > queues.blocks.free() {
            return false;
        }
        let ready = queues.ready.as_one(&mut self.shared.requests);
        ready.append(&mut batch.decodes, &mut self.shared.requests);
        std::mem::swap(ready, &mut batch.decodes);
        batch.describe(&self.shared.requests);
        self.count_again(slot, now_s);
        self.launch(slot, now_s);
        self.follow_forecast(pending_s);
        true
    }

    /// How many of the next batches will be the present one again: decodes only, room
    /// for their tokens, and nobody who can join, until one of them is done. Of the
    /// steps of the present one, `pending` have yet to end.
    #[inline]
    fn steps_after(&self, slot: u32, pending: usize) -> usize {
        let state = &*self.state;
        let batch = &state.batches[slot as usize];
        let queues = &state.queues;
        let alone = self.decodes_only(slot)
            && queues.ready.is_empty()
            && (queues.waiting.is_empty() || state.turns_away(slot, &self.shared.requests));
        if alone {
            batch
                .decodes
                .steps_alike(pending, STEPS - pending, queues.blocks.free())
        } else {
            0
        }
    }

    /// Whether decodes are all there is in the present batch, and neither prompts that
    /// have been begun nor KV caches wait beside it.
    #[inline]
    fn decodes_only(&self, slot: u32) -> bool {
        let state = &*self.state;
        let batch = &state.batches[slot as usize];
        batch.prefills.is_empty() && !batch.decodes.is_empty() && state.repeats_decodes()
    }

    /// Counts the present batch, decodes only, as the next one too.
    #[inline]
    fn count_again(&mut self, slot: u32, now_s: f64) {
        let state = &mut *self.state;
        let batch = &state.batches[slot as usize];
        let context_tokens = batch.decodes.context_tokens();
        (state.work).count_alike(&batch.shape, context_tokens, 1);
        state.repeat_batch(slot, self.shared.batches, now_s);
        self.shared.batches += 1;
    }

    /// Starts the present batch again, one token further, of the next `repeats` times
    /// that it is sure to be the same; nothing else happens before `pending_s`.
    fn repeat_once(&mut self, slot: u32, repeats: usize, now_s: f64, pending_s: f64) {
        self.count_again(slot, now_s);
        let cost = self.cost();
        if self.state.pipeline.tells_runs_apart {
            return self.launch(slot, now_s);
        }
        let batch = &mut self.state.batches[slot as usize];
        if batch.ahead.is_over() {
            let expected = steps_within(pending_s - now_s, batch.spent.total_s);
            batch.ahead.price(cost, &batch.shape, repeats, expected);
        }
        self.enter_ahead(slot, now_s);
    }

    /// Has so many stages repeat the present batch, the only one in flight, up to `repeats`
    /// times: those that end before `pending_s`, when something else happens, and one
    /// more.
    fn repeat_alone<const STAGES: usize>(
        &mut self,
        slot: u32,
        repeats: usize,
        now_s: f64,
        pending_s: f64,
    ) {
        let cost = self.cost();
        let batch = &mut self.state.batches[slot as usize];
        if batch.ahead.is_over() {
            let expected = steps_within(pending_s - now_s, batch.spent.total_s);
            batch.shape.decode_context_tokens = batch.decodes.context_tokens();
            batch.ahead.price(cost, &batch.shape, repeats, expected);
        }
        let mut ahead = std::mem::take(&mut batch.ahead);
        let priced = ahead.steps::<STAGES>();
        let made = self.make_steps(slot, now_s, pending_s, &priced[..priced.len().min(repeats)]);
        ahead.pass(made);
        self.state.batches[slot as usize].ahead = ahead;
    }

    /// Has the only stage repeat the present batch up to `steps` times: those that
    /// end before `pending_s`, when something else happens, and one more.
    #[inline]
    fn repeat(&mut self, slot: u32, steps: usize, now_s: f64, pending_s: f64) {
        let mut forecast = std::mem::take(&mut self.state.pipeline.forecast);
        let steps = self.price_ahead(slot, pending_s - now_s, forecast.room(steps));
        forecast.truncate(steps);
        let made = self.make_steps(slot, now_s, pending_s, on_one_stage(forecast.steps()));
        match self.shared.forecasts {
            true => forecast.pass(made),
            false => forecast.clear(),
        }
        self.state.pipeline.forecast = forecast;
    }

    /// Prices the next steps of a batch: all of `times` if they may be kept as a
    /// forecast, else about as many as start within `free_s`. Returns how many.
    #[inline]
    fn price_ahead(&mut self, slot: u32, free_s: f64, times: &mut [StageTime]) -> usize {
        let cost = self.cost();
        let batch = &mut self.state.batches[slot as usize];
        batch.shape.decode_context_tokens = batch.decodes.context_tokens();
        if self.state.pipeline.tells_runs_apart {
            let run = StageRun {
                replica: self.number,
                nth_batch: self.state.work.batches,
                stage: 0,
            };
            times[0] = cost.stage_time_of(run, &batch.shape);
            return 1;
        }
        let mut wanted = times.len();
        if !self.shared.forecasts {
            wanted = wanted.min(steps_within(free_s, batch.spent.total_s));
        }
        cost.decode_times(&batch.shape, &mut times[..wanted]);
        wanted
    }

    /// Repeats the present batch, the only one in flight, which has ended at `now_s`: those
    /// of the steps of `times` that end before `until_s` and not after the limit, but for
    /// the last, and one more, which is then on its way. Returns how many.
    #[inline(always)]
    fn make_steps<const STAGES: usize>(
        &mut self,
        slot: u32,
        mut now_s: f64,
        until_s: f64,
        times: &[[StageTime; STAGES]],
    ) -> usize {
        let until_s = until_s.min(self.shared.limit_s.next_up());
        let state = &mut *self.state;
        let batch = &mut state.batches[slot as usize];
        let first_context_tokens = batch.decodes.context_tokens();
        let mut steps = batch.decodes.steps();
        let (mut done, mut busy) = (0, ExactRun::default());
        for (times, interval_s) in times[..times.len() - 1]
            .iter()
            .zip(&mut self.shared.intervals_s)
        {
            let ends_s = ends_of(now_s, times);
            let at_s = ends_s[STAGES - 1];
            if at_s >= until_s {
                break;
            }
            let blocks = steps.make(times);
            if blocks > 0 {
                state.queues.blocks.take(u64::from(blocks), now_s);
            }
            *interval_s = at_s - now_s;
            if STAGES > 1 {
                let starts_s = std::iter::once(now_s).chain(ends_s);
                (starts_s.zip(ends_s)).for_each(|(start_s, end_s)| busy.add(end_s - start_s));
            }
            now_s = at_s;
            done += 1;
        }
        let made = steps.made();
        let intervals_s = &self.shared.intervals_s[..done];
        let sum = ExactRun::of(intervals_s);
        batch.decodes.count_steps(made, now_s, sum.longest_s());
        if done > 0 {
            let members = narrow::<u32, _>(batch.decodes.len());
            (self.shared.recorder).all_token_intervals(intervals_s, &sum, members);
            let busy = if STAGES > 1 { &busy } else { &sum };
            state.busy.add_run(busy, 1);
        }
        let steps = done as u64 + 1;
        (state.work).count_alike(&batch.shape, first_context_tokens, steps);
        self.shared.batches += steps;
        self.start_again(slot, now_s, times[done]);
        done + 1
    }

    /// Starts the present batch, already counted, again on stages that are free, where it
    /// will take `times`.
    #[inline]
    fn start_again<const STAGES: usize>(
        &mut self,
        slot: u32,
        now_s: f64,
        times: [StageTime; STAGES],
    ) {
        let state = &mut *self.state;
        let batch = state.repeat_batch(slot, self.shared.batches - 1, now_s);
        let [time] = times[..] else {
            return self.enter_stages(slot, now_s, |stage, _| times[stage as usize]);
        };
        let at_s = now_s + time.total_s();
        count_waiting(batch, 0, &mut self.shared.requests, now_s);
        batch.spent.total_s += time.total_s();
        batch.spent.model_s += time.model_s;
        batch.last_stage_at_s = at_s;
        state.busy.add(at_s - now_s, 1);
        state.pipeline.free_at_s[0] = at_s;
        state.pipeline.leaving.push_back(Leaving {
            slot,
            started_at_s: now_s,
            at_s,
        });
    }
}

/// Times of steps on the only stage.
#[inline]
fn on_one_stage(times: &[StageTime]) -> &[[StageTime; 1]] {
    times.as_chunks().0
}

/// When each of the stages, all free at `now_s`, has executed a batch.
#[inline(always)]
fn ends_of<const STAGES: usize>(now_s: f64, times: &[StageTime; STAGES]) -> [f64; STAGES] {
    let mut at_s = now_s;
    times.map(|time| {
        at_s += time.total_s();
        at_s
    })
}

/// About how many steps start within `free_s`, the first of them now, if they take as
/// long as the one that has just ended.
#[inline]
pub(super) fn steps_within(free_s: f64, step_s: f64) -> usize {
    whole_usize((free_s / step_s).ceil().max(1.0))
}
