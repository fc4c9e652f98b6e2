//! A replica's pipeline without its events.
//!
//! Stages are first come, first served, and what a batch costs is known when it is
//! formed; so is, then, when each stage will start and finish it: a stage starts
//! when both it and the batch are free. Only the end of the batch is an event, and
//! as batches leave in the order they entered, only the first one's is in the
//! queue.
//!
//! Most batches are the one before again, one token further, and that can be told
//! beforehand: until the first decode has all its tokens, a block is missing or
//! somebody comes, nothing else can happen on the replica. Such steps are priced
//! together. Those that end before anything else happens are made at once. Where
//! others have events in between, the rest is kept as a forecast and only its end
//! is in the queue; whoever wants to look at the replica or to change something
//! first has it caught up with the present ([`Simulation::catch_up`]).
//!
//! Results are those of the chain of events in `cluster.rs`. That runs where a
//! recorder wants to be told of batches or events, and on replicas whose caches
//! leave while their prompts are being computed.

use std::collections::VecDeque;

use super::cluster::{Shared, Simulation, count_waiting};
use super::config::PoolRole;
use super::event::Event;
use super::exact_sum::ExactRun;
use super::recorder::Recorder;
use super::replica::{Batch, Replica};
use crate::execution_time::{StageRun, StageTime, StepCost, StepShape};

/// Steps that are priced together at most.
pub(super) const STEPS: usize = 32;

/// Batches on a replica's stages, in order.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// Whether this is used: else the stages have events.
    pub(super) is_used: bool,
    /// When each stage will have done all of its batches, seconds.
    free_at_s: Vec<f64>,
    leaving: VecDeque<Leaving>,
    /// Steps that follow the only batch in `leaving`: each is that batch again.
    forecast: Vec<StageTime>,
    /// Whether the queue will tell of the end of both.
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

/// Stage times of the next repetitions of a batch of decodes, priced together.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// By stage, then by repetition.
    times: Vec<StageTime>,
    repetitions: usize,
    /// Those that have been made.
    made: usize,
}

impl Ahead {
    /// Forgets them: the batch is another one.
    pub(super) fn clear(&mut self) {
        (self.repetitions, self.made) = (0, 0);
    }

    /// Of the next repetition.
    fn time(&self, stage: u32) -> StageTime {
        self.times[stage as usize * self.repetitions + self.made]
    }

    /// Prices up to `repetitions` of the step `shape`, if all before have been made;
    /// twice as many as those.
    fn price(&mut self, cost: &dyn StepCost, shape: &StepShape, repetitions: usize) {
        if self.made < self.repetitions {
            return;
        }
        self.made = 0;
        self.repetitions = repetitions.min(2 * self.repetitions.max(1));
        self.make_room(cost);
        cost.decode_times(shape, &mut self.times);
    }

    /// Prices the step `shape`, whatever it consists of, alone.
    fn price_one(&mut self, cost: &dyn StepCost, shape: &StepShape) {
        (self.repetitions, self.made) = (1, 0);
        self.make_room(cost);
        cost.stage_times(shape, &mut self.times);
    }

    fn make_room(&mut self, cost: &dyn StepCost) {
        let times = cost.stages() as usize * self.repetitions;
        self.times.resize(times, StageTime::default());
    }
}

impl Pipeline {
    pub(crate) fn new(stages: u32) -> Self {
        Self {
            free_at_s: vec![0.0; stages as usize],
            ..Self::default()
        }
    }
}

impl<'a, R: Recorder> Simulation<'a, R> {
    /// Whether the stages of `replica` are to be handled here.
    pub(super) fn can_be_pipelined(&self, replica: &Replica) -> bool {
        let told = R::WANTS_EVENTS || R::WANTS_BATCHES;
        // Vidur executes the first event past the limit: which one it is matters. And
        // its events go by number, of which every stage takes some.
        let numbered = !self.shared.cluster.compat.is_none()
            && self.replicas.len() > 1
            && replica.stages.len() > 1;
        let prefills_only = replica.role == PoolRole::Prefill;
        let sends_early = self.overlaps && (prefills_only || self.mixed_pool.is_some());
        !told && !self.shared.cluster.ends_past_its_limit() && !numbered && !sends_early
    }

    /// Whether nothing is pending for the present time.
    pub(super) fn is_quiet(&self) -> bool {
        self.next_pending_s() > self.events.now_s()
    }

    /// When something happens next that is in the queue, or somebody arrives.
    fn next_pending_s(&self) -> f64 {
        let (event_s, arrival_s) = (self.events.next_time_s(), self.next_arrival_s());
        // Neither is NaN: one comparison, where `min` makes two.
        if arrival_s < event_s {
            arrival_s
        } else {
            event_s
        }
    }

    /// The pipeline of `replica`.
    #[inline]
    fn lane(&mut self, replica: u32) -> Lane<'_, 'a, R> {
        Lane {
            number: self.shared.first_replica + replica,
            state: &mut self.replicas[replica as usize],
            shared: &mut self.shared,
        }
    }

    /// Has the queue tell when the first batch leaves the pipeline, and the forecast
    /// is over.
    pub(super) fn announce(&mut self, replica: u32) {
        let pipeline = &mut self.replicas[replica as usize].pipeline;
        let Some(&first) = pipeline.leaving.front() else {
            return;
        };
        if pipeline.is_announced {
            return;
        }
        pipeline.is_announced = true;
        let (mut started_at_s, mut at_s) = (first.started_at_s, first.at_s);
        for time in &pipeline.forecast {
            (started_at_s, at_s) = (at_s, at_s + time.total_s());
        }
        self.events.set_end(replica, started_at_s, at_s);
    }

    /// The forecast of `replica` is over, and a batch leaves the last stage. Goes on
    /// until the replica has nothing to run, or something else happens first.
    pub(super) fn run_pipeline(&mut self, replica: u32) {
        let mut lane = self.lane(replica);
        lane.state.pipeline.is_announced = false;
        lane.follow_forecast(f64::INFINITY);
        while let Some(left) = self.replicas[replica as usize].pipeline.leaving.pop_front() {
            let Some(free_until_s) = self.end_and_refill(replica, left.slot) else {
                break;
            };
            if !self.goes_on(replica, free_until_s) {
                break;
            }
        }
        self.announce(replica);
    }

    /// Makes what has been forecast for `replica` happen, up to the present, and
    /// forgets the rest: something will change.
    #[inline]
    pub(super) fn catch_up(&mut self, replica: u32) {
        if !self.replicas[replica as usize].pipeline.forecast.is_empty() {
            self.give_up_forecast(replica);
        }
    }

    /// Apart from the question whether there is one, which is asked more often.
    #[inline(never)]
    fn give_up_forecast(&mut self, replica: u32) {
        let now_s = self.events.now_s();
        let mut lane = self.lane(replica);
        lane.follow_forecast(now_s);
        let pipeline = &mut lane.state.pipeline;
        pipeline.forecast.clear();
        pipeline.is_announced = false;
        self.announce(replica);
    }

    /// Makes what has been forecast for `replica` happen, up to the present, for
    /// somebody who only looks: what is left of it still holds.
    pub(super) fn bring_up_to_date(&mut self, replica: u32) {
        let now_s = self.events.now_s();
        self.lane(replica).follow_forecast(now_s);
    }

    /// The same for all at the end, steps that end just then included.
    pub(super) fn catch_up_with_limit(&mut self) {
        for replica in 0..self.replicas.len() {
            let until_s = self.shared.limit_s.next_up();
            self.lane(replica as u32).follow_forecast(until_s);
        }
    }

    /// KV cache blocks that `replica` would have in use or promised if it were brought
    /// up to date.
    pub(super) fn present_load_blocks(&self, replica: u32) -> u64 {
        let state = &self.replicas[replica as usize];
        let mut blocks = state.queues.load_blocks();
        if let Some(left) = state.pipeline.leaving.front() {
            let decodes = &state.batches[left.slot as usize].decodes;
            let mut at_s = left.at_s;
            for (step, time) in (1..).zip(&state.pipeline.forecast) {
                if at_s >= self.events.now_s() {
                    break;
                }
                blocks += decodes.blocks_for_step_in(step);
                at_s += time.total_s();
            }
        }
        blocks
    }

    /// The batch of `slot` has been executed; forms what can be formed next. Returns
    /// when something else happens; none if that is now.
    fn end_and_refill(&mut self, replica: u32, slot: u32) -> Option<f64> {
        let (now_s, pending_s) = (self.events.now_s(), self.next_pending_s());
        if pending_s <= now_s {
            self.events.push_now(Event::BatchEnd { replica, slot });
            return None;
        }
        if self.lane(replica).advance(slot, now_s, pending_s) {
            return Some(pending_s);
        }
        let held = self.complete_members(replica, slot);
        let pending_s = self.next_pending_s();
        // Decodes that are left by themselves would be taken apart to be put together
        // again.
        if pending_s > now_s
            && self.mixed_pool.is_none()
            && self
                .lane(replica)
                .describe_and_repeat(slot, now_s, pending_s)
        {
            return Some(pending_s);
        }
        self.take_apart(replica, slot, held);
        if !self.is_quiet() || !self.wakes.is_empty() {
            self.schedule_after_batch(replica);
            return None;
        }
        self.refill(replica);
        let pending_s = self.next_pending_s();
        let until_s = pending_s.min(self.shared.limit_s.next_up());
        self.lane(replica).follow_forecast(until_s);
        Some(pending_s)
    }

    /// Forms batches while the replica has free slots and something to run.
    #[inline]
    pub(super) fn refill(&mut self, replica: u32) {
        while self.replicas[replica as usize].has_free_slot() && self.launch_next(replica) {}
    }

    /// Forms a batch and sends it through the stages, if there is something to run.
    #[inline(never)]
    fn launch_next(&mut self, replica: u32) -> bool {
        let formed = self.form_batch(replica);
        if let Some(slot) = formed {
            let now_s = self.events.now_s();
            self.lane(replica).launch(slot, now_s);
        }
        formed.is_some()
    }

    /// Moves the clock to the end of the first batch if that is before `free_until_s`.
    fn goes_on(&mut self, replica: u32, free_until_s: f64) -> bool {
        let Some(first) = self.replicas[replica as usize].pipeline.leaving.front() else {
            return false;
        };
        let goes_on = first.at_s < free_until_s && first.at_s <= self.shared.limit_s;
        if goes_on {
            self.events.advance(first.at_s);
        }
        goes_on
    }
}

/// One replica whose stages are handled here, looked up once for all that happens to
/// it at a time.
struct Lane<'s, 'a, R> {
    state: &'s mut Replica,
    shared: &'s mut Shared<'a, R>,
    /// Number of the replica in the cluster.
    number: u32,
}

impl<'a, R: Recorder> Lane<'_, 'a, R> {
    fn cost(&self) -> &'a dyn StepCost {
        &*self.shared.cluster.pools[self.state.pool].cost
    }

    /// The next batch of the replica on one of its stages.
    fn run_of(&self, nth_batch: u64, stage: u32) -> StageRun {
        StageRun {
            replica: self.number,
            nth_batch,
            stage,
        }
    }

    /// Sends a batch that has just been formed through all stages.
    fn launch(&mut self, slot: u32, now_s: f64) {
        let cost = self.cost();
        let batch = &mut self.state.batches[slot as usize];
        if cost.tells_runs_apart() {
            let first_run = self.run_of(self.state.batches[slot as usize].nth, 0);
            return self.enter_stages(slot, now_s, |stage, batch| {
                let run = StageRun { stage, ..first_run };
                cost.stage_time_of(run, &batch.shape)
            });
        }
        if self.state.stages.len() == 1 {
            return match self.steps_after(slot, 1) {
                repeats if self.shared.forecasts && repeats > 0 => {
                    self.launch_all(slot, repeats, now_s)
                }
                _ => self.enter_stages(slot, now_s, |stage, batch| {
                    cost.stage_time(stage, &batch.shape)
                }),
            };
        }
        batch.ahead.price_one(cost, &batch.shape);
        self.enter_ahead(slot, now_s);
    }

    /// Sends a batch of decodes that has just been formed to the only stage, and
    /// forecasts the next `repeats`, which it will be again.
    fn launch_all(&mut self, slot: u32, repeats: usize, now_s: f64) {
        let times = &mut self.shared.times[..=repeats];
        let batch = &self.state.batches[slot as usize];
        (self.shared.cluster.pools[self.state.pool].cost).decode_times(&batch.shape, times);
        self.state.pipeline.forecast.extend_from_slice(&times[1..]);
        let time = times[0];
        self.enter_stages(slot, now_s, |_, _| time);
    }

    /// Sends a batch, priced ahead, through all stages.
    fn enter_ahead(&mut self, slot: u32, now_s: f64) {
        let cost = self.cost();
        self.enter_stages(slot, now_s, |stage, batch| {
            let time = batch.ahead.time(stage);
            debug_assert_eq!(time, cost.stage_time(stage, &batch.shape));
            time
        });
        self.state.batches[slot as usize].ahead.made += 1;
    }

    /// Sends a batch through all stages, where it takes what `time` says.
    #[inline]
    fn enter_stages(&mut self, slot: u32, now_s: f64, time: impl Fn(u32, &Batch) -> StageTime) {
        let limit_s = self.shared.limit_s;
        let state = &mut *self.state;
        let batch = &mut state.batches[slot as usize];
        let mut spent = batch.spent;
        let mut busy = ExactRun::default();
        let mut leaving = Leaving {
            slot,
            started_at_s: now_s,
            at_s: now_s,
        };
        for (stage, free_at_s) in (0..).zip(&mut state.pipeline.free_at_s) {
            // Neither is NaN: one comparison, where `max` makes two.
            let start_s = if *free_at_s > leaving.at_s {
                *free_at_s
            } else {
                leaving.at_s
            };
            if start_s > limit_s {
                // It never starts.
                leaving.at_s = start_s;
                break;
            }
            if stage == 0 {
                count_waiting(batch, stage, &mut self.shared.requests, start_s);
            } else {
                spent.waiting_s += start_s - leaving.at_s;
            }
            let time = time(stage, batch);
            let total_s = time.total_s();
            spent.total_s += total_s;
            spent.model_s += time.model_s;
            leaving.started_at_s = start_s;
            leaving.at_s = start_s + total_s;
            busy.add(leaving.at_s - start_s);
            batch.last_stage_at_s = leaving.at_s;
            *free_at_s = leaving.at_s;
        }
        batch.spent = spent;
        state.busy.add_run(&busy, 1);
        state.pipeline.leaving.push_back(leaving);
    }

    /// Makes the steps that have been forecast happen that follow one that ends before
    /// `until_s`.
    #[inline]
    fn follow_forecast(&mut self, until_s: f64) {
        let pipeline = &self.state.pipeline;
        if !pipeline.forecast.is_empty()
            && let Some(&left) = pipeline.leaving.front()
            && left.at_s < until_s
        {
            self.make_forecast(left, until_s);
        }
    }

    #[inline(never)]
    fn make_forecast(&mut self, left: Leaving, until_s: f64) {
        let pipeline = &mut self.state.pipeline;
        pipeline.leaving.clear();
        let mut forecast = std::mem::take(&mut pipeline.forecast);
        let batch = &mut self.state.batches[left.slot as usize];
        batch.advance_decodes(left.at_s, &mut self.shared.requests, self.shared.recorder);
        let made = self.make_steps(left.slot, left.at_s, until_s, &forecast);
        forecast.drain(..made);
        self.state.pipeline.forecast = forecast;
    }

    /// Counts the tokens of the batch of `slot`, which has just been executed, and
    /// starts it again if it will be the next one too; whether it is.
    #[inline]
    fn advance(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        let batch = &mut self.state.batches[slot as usize];
        batch.advance_decodes(now_s, &mut self.shared.requests, self.shared.recorder);
        let nobody_ends = batch.prefills.is_empty() && !batch.decodes.may_have_finished();
        nobody_ends && self.repeat_if_alike(slot, now_s, pending_s)
    }

    /// The same for what is left of a batch.
    fn describe_and_repeat(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        self.state.batches[slot as usize].describe(&self.shared.requests);
        self.repeat_if_alike(slot, now_s, pending_s)
    }

    /// Starts the present batch again, if all of the next batch will be its decodes.
    fn repeat_if_alike(&mut self, slot: u32, now_s: f64, pending_s: f64) -> bool {
        let repeats = self.steps_after(slot, 0);
        if repeats > 0 {
            if self.state.stages.len() == 1 {
                self.repeat(slot, repeats, now_s, pending_s);
            } else {
                self.repeat_once(slot, repeats, now_s);
            }
        }
        repeats > 0
    }

    /// How many of the next batches will be the present one again: decodes only, room
    /// for their tokens, and nobody who can join, until one of them is done. Of the
    /// steps of the present one, `pending` have yet to end.
    #[inline]
    fn steps_after(&self, slot: u32, pending: usize) -> usize {
        let state = &*self.state;
        let batch = &state.batches[slot as usize];
        let queues = &state.queues;
        let alone = state.policy.repeats_decodes()
            && batch.prefills.is_empty()
            && !batch.decodes.is_empty()
            && queues.prefilling.is_empty()
            && queues.ready.is_empty()
            && state.incoming.is_empty()
            && (queues.waiting.is_empty() || state.turns_away(slot, &self.shared.requests));
        if alone {
            batch
                .decodes
                .steps_alike(pending, STEPS - pending, queues.blocks.free())
        } else {
            0
        }
    }

    /// Starts the present batch again, one token further, of the next `repeats` times
    /// that it is sure to be the same.
    fn repeat_once(&mut self, slot: u32, repeats: usize, now_s: f64) {
        let batch = &self.state.batches[slot as usize];
        let context_tokens = batch.decodes.context_tokens();
        (self.state.work).count_alike(&batch.shape, context_tokens, 1);
        (self.state).repeat_batch(slot, self.shared.batches, now_s);
        self.shared.batches += 1;
        let cost = self.cost();
        if cost.tells_runs_apart() {
            return self.launch(slot, now_s);
        }
        let batch = &mut self.state.batches[slot as usize];
        batch.ahead.price(cost, &batch.shape, repeats);
        self.enter_ahead(slot, now_s);
    }

    /// Has the only stage repeat the present batch up to `steps` times: those that
    /// end before `pending_s`, when something else happens, and one more.
    #[inline]
    fn repeat(&mut self, slot: u32, steps: usize, now_s: f64, pending_s: f64) {
        let mut times = std::mem::take(&mut self.shared.times);
        let steps = self.price_ahead(slot, pending_s - now_s, &mut times[..steps]);
        let until_s = pending_s.min(self.shared.limit_s.next_up());
        let made = self.make_steps(slot, now_s, until_s, &times[..steps]);
        if self.shared.forecasts {
            (self.state.pipeline.forecast).extend_from_slice(&times[made..steps]);
        }
        self.shared.times = times;
    }

    /// Prices the next steps of a batch: all of `times` if they may be kept as a
    /// forecast, else about as many as start within `free_s`. Returns how many.
    #[inline]
    fn price_ahead(&mut self, slot: u32, free_s: f64, times: &mut [StageTime]) -> usize {
        let cost = self.cost();
        let run = self.run_of(self.state.work.batches, 0);
        let batch = &mut self.state.batches[slot as usize];
        batch.shape.decode_context_tokens = batch.decodes.context_tokens();
        if cost.tells_runs_apart() {
            times[0] = cost.stage_time_of(run, &batch.shape);
            return 1;
        }
        let mut wanted = times.len();
        if !self.shared.forecasts {
            // They will take about as long as the one that has just ended.
            let start = (free_s / batch.spent.total_s).ceil().max(1.0);
            wanted = wanted.min(start as usize);
        }
        cost.decode_times(&batch.shape, &mut times[..wanted]);
        wanted
    }

    /// Repeats the present batch, which has ended at `now_s`: those of the steps of
    /// `times` that end before `until_s` but for the last, and one more, which is then
    /// on its way. Returns how many.
    fn make_steps(
        &mut self,
        slot: u32,
        mut now_s: f64,
        until_s: f64,
        times: &[StageTime],
    ) -> usize {
        let state = &mut *self.state;
        let batch = &mut state.batches[slot as usize];
        let first_context_tokens = batch.decodes.context_tokens();
        let mut steps = batch.decodes.steps();
        let mut done = 0;
        for (time, interval_s) in times[..times.len() - 1]
            .iter()
            .zip(&mut self.shared.intervals_s)
        {
            let at_s = now_s + time.total_s();
            if at_s >= until_s {
                break;
            }
            let blocks = steps.make(time.total_s(), time.model_s);
            if blocks > 0 {
                state.queues.blocks.take(u64::from(blocks), now_s);
            }
            *interval_s = at_s - now_s;
            now_s = at_s;
            done += 1;
        }
        let made = steps.made();
        batch.decodes.count_steps(made, now_s);
        if done > 0 {
            let intervals_s = &self.shared.intervals_s[..done];
            let sum = ExactRun::of(intervals_s);
            let members = batch.decodes.len() as u32;
            (self.shared.recorder).all_token_intervals(intervals_s, &sum, members);
            state.busy.add_run(&sum, 1);
        }
        let steps = done as u64 + 1;
        (state.work).count_alike(&batch.shape, first_context_tokens, steps);
        self.shared.batches += steps;
        self.start_again(slot, now_s, times[done]);
        done + 1
    }

    /// Starts the present batch, already counted, again on the only stage, where it will
    /// take `time`.
    #[inline]
    fn start_again(&mut self, slot: u32, now_s: f64, time: StageTime) {
        let state = &mut *self.state;
        let at_s = now_s + time.total_s();
        state.busy.add(at_s - now_s, 1);
        state.pipeline.free_at_s[0] = at_s;
        state.pipeline.leaving.push_back(Leaving {
            slot,
            started_at_s: now_s,
            at_s,
        });
        let batch = state.repeat_batch(slot, self.shared.batches - 1, now_s);
        count_waiting(batch, 0, &mut self.shared.requests, now_s);
        batch.spent.total_s += time.total_s();
        batch.spent.model_s += time.model_s;
        batch.last_stage_at_s = at_s;
    }
}
