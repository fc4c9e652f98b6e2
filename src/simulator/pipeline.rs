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

mod lane;
mod rounds;
mod turns;
mod way;

use std::collections::VecDeque;

use self::lane::Lane;
use super::cluster::Simulation;
use super::config::PoolRole;
use super::event::Event;
use super::recorder::Recorder;
use super::replica::Replica;
use crate::execution_time::{StageTime, StepCost, StepShape};
use crate::number::narrow;

/// Steps that are priced together at most.
pub(super) const STEPS: usize = 62;

/// Batches on a replica's stages, in order.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// Whether this is used: else the stages have events.
    pub(super) is_used: bool,
    /// Whether prices differ from batch to batch, whatever is in them.
    tells_runs_apart: bool,
    /// When each stage will have done all of its batches, seconds.
    free_at_s: Vec<f64>,
    leaving: VecDeque<Leaving>,
    /// Steps that follow the only batch in `leaving`: each is that batch again.
    forecast: Forecast,
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

/// Times of steps that are priced together, of which those to come are left.
#[derive(Debug, Default)]
struct Forecast {
    times: Vec<StageTime>,
    /// The first to come, and one after the last.
    from: usize,
    to: usize,
}

impl Forecast {
    #[inline]
    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The steps to come.
    #[inline]
    fn steps(&self) -> &[StageTime] {
        &self.times[self.from..self.to]
    }

    #[inline]
    fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Room for so many steps, in place of those there were.
    #[inline]
    fn room(&mut self, steps: usize) -> &mut [StageTime] {
        if self.times.len() < steps {
            self.times.resize(steps, StageTime::default());
        }
        (self.from, self.to) = (0, steps);
        &mut self.times[..steps]
    }

    /// Of those to come, only the first so many.
    #[inline]
    fn truncate(&mut self, steps: usize) {
        self.to = self.to.min(self.from + steps);
    }

    /// So many have been made.
    #[inline]
    fn pass(&mut self, steps: usize) {
        self.from += steps;
    }
}

/// Stage times of the next repetitions of a batch of decodes, priced together.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// By repetition, then by stage; longer, if there were more of them before.
    times: Vec<StageTime>,
    stages: usize,
    repetitions: usize,
    /// Those that have been made.
    made: usize,
}

impl Ahead {
    /// Forgets them: the batch is another one.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.repetitions, self.made) = (0, 0);
    }

    /// Times of the next repetition on all stages.
    #[inline]
    fn step(&self) -> &[StageTime] {
        let first = self.made * self.stages;
        &self.times[first..first + self.stages]
    }

    /// The times of those that have been priced and not made, on so many stages.
    #[inline]
    fn steps<const STAGES: usize>(&self) -> &[[StageTime; STAGES]] {
        debug_assert_eq!(self.stages, STAGES);
        let (steps, _) = self.times.as_chunks();
        &steps[self.made..self.repetitions]
    }

    /// How many those are.
    #[inline]
    fn left(&self) -> usize {
        self.repetitions - self.made
    }

    /// So many more repetitions have been made.
    #[inline]
    fn pass(&mut self, repetitions: usize) {
        self.made += repetitions;
    }

    /// Whether all that have been priced have been made.
    #[inline]
    fn is_over(&self) -> bool {
        self.made == self.repetitions
    }

    /// Prices the next repetitions of the step `shape`, all before having been made: up
    /// to `most`, about as many as `expected`, and at least twice as many as before.
    fn price(&mut self, cost: &dyn StepCost, shape: &StepShape, most: usize, expected: usize) {
        self.made = 0;
        self.repetitions = most.min(expected.max(2 * self.repetitions));
        cost.decode_times(shape, self.room(cost));
    }

    /// Prices the step `shape`, whatever it consists of, alone.
    fn price_one(&mut self, cost: &dyn StepCost, shape: &StepShape) {
        (self.repetitions, self.made) = (1, 0);
        cost.stage_times(shape, self.room(cost));
    }

    /// Room for all times.
    fn room(&mut self, cost: &dyn StepCost) -> &mut [StageTime] {
        self.stages = cost.stages() as usize;
        let times = self.stages * self.repetitions;
        if self.times.len() < times {
            self.times.resize(times, StageTime::default());
        }
        &mut self.times[..times]
    }
}

impl Pipeline {
    pub(crate) fn new(cost: &dyn StepCost) -> Self {
        Self {
            tells_runs_apart: cost.tells_runs_apart(),
            free_at_s: vec![0.0; cost.stages() as usize],
            ..Self::default()
        }
    }

    /// How much longer its stages will take for what they have been given, together, at
    /// most: of several stages some may have to wait for another.
    pub(super) fn pending_s(&self, now_s: f64) -> f64 {
        let pending = self
            .free_at_s
            .iter()
            .map(|free_at_s| (free_at_s - now_s).max(0.0));
        pending.sum()
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
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.next_pending_s() > self.events.now_s()
    }

    /// When something happens next that is in the queue, or somebody arrives.
    #[inline]
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
    /// is over, if it does not yet.
    #[inline]
    pub(super) fn announce(&mut self, replica: u32) {
        let pipeline = &self.replicas[replica as usize].pipeline;
        if !pipeline.is_announced
            && let Some(&first) = pipeline.leaving.front()
        {
            self.announce_after(replica, first);
        }
    }

    /// The same, the first batch being `first`.
    #[inline(never)]
    fn announce_after(&mut self, replica: u32, first: Leaving) {
        let pipeline = &mut self.replicas[replica as usize].pipeline;
        pipeline.is_announced = true;
        let (mut started_at_s, mut at_s) = (first.started_at_s, first.at_s);
        for time in pipeline.forecast.steps() {
            (started_at_s, at_s) = (at_s, at_s + time.total_s());
        }
        self.events.set_end(replica, started_at_s, at_s);
    }

    /// The forecast of `replica` is over, and a batch leaves the last stage. Goes on
    /// until the replica has nothing to run, or something else happens first.
    #[inline]
    pub(super) fn run_pipeline(&mut self, replica: u32) {
        let mut lane = self.lane(replica);
        lane.state.pipeline.is_announced = false;
        lane.follow_forecast(f64::INFINITY);
        let mut free_until_s = self.next_pending_s();
        if free_until_s <= self.events.now_s() {
            self.end_later(replica);
        }
        while let Some(slot) = self.next_to_leave(replica, free_until_s) {
            match self.end_and_refill(replica, slot, free_until_s) {
                Some(until_s) => free_until_s = until_s,
                None => break,
            }
        }
        self.announce(replica);
    }

    /// Has the queue tell of the end of the first batch, which is now, after all else
    /// that is.
    #[cold]
    fn end_later(&mut self, replica: u32) {
        if let Some(left) = self.replicas[replica as usize].pipeline.leaving.pop_front() {
            let slot = left.slot;
            self.events.push_now(Event::BatchEnd { replica, slot });
        }
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
            self.lane(narrow::<u32, _>(replica))
                .follow_forecast(f64::INFINITY);
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
            for (step, time) in (1..).zip(state.pipeline.forecast.steps()) {
                if at_s >= self.events.now_s() {
                    break;
                }
                blocks += decodes.blocks_for_step_in(step);
                at_s += time.total_s();
            }
        }
        blocks
    }

    /// The batch of `slot` has been executed; forms what can be formed next, nothing else
    /// happening before `pending_s`. Returns when it does then; none if that is now.
    #[inline]
    fn end_and_refill(&mut self, replica: u32, slot: u32, pending_s: f64) -> Option<f64> {
        let now_s = self.events.now_s();
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
        // What was formed may have come with a forecast, the first steps of which end
        // before anything else happens.
        let pending_s = self.next_pending_s();
        self.lane(replica).follow_forecast(pending_s);
        Some(pending_s)
    }

    /// Forms batches while the replica has free slots and something to run.
    #[inline]
    pub(super) fn refill(&mut self, replica: u32) {
        let can_form = |state: &Replica| state.has_free_slot() && state.queues.has_work();
        while can_form(&self.replicas[replica as usize]) && self.launch_next(replica) {}
    }

    /// Forms a batch and sends it through the stages, if there is something to run. Kept
    /// out of the question whether a slot is free, which mostly none is.
    #[inline(never)]
    fn launch_next(&mut self, replica: u32) -> bool {
        let formed = self.form_batch(replica);
        if let Some(slot) = formed {
            let now_s = self.events.now_s();
            self.lane(replica).launch(slot, now_s);
        }
        formed.is_some()
    }

    /// Moves the clock to the end of the first batch, and takes that off the stages, if
    /// it is before `free_until_s`, those that only take turns having done so.
    #[inline]
    fn next_to_leave(&mut self, replica: u32, free_until_s: f64) -> Option<u32> {
        let mut lane = self.lane(replica);
        let turned_s = match lane.state.stages.len() {
            1 => None,
            _ => lane.take_turns(free_until_s),
        };
        let limit_s = lane.shared.limit_s;
        let leaving = &mut lane.state.pipeline.leaving;
        let first =
            leaving.pop_front_if(|first| first.at_s < free_until_s && first.at_s <= limit_s);
        let now_s = first.map(|first| first.at_s).or(turned_s);
        if let Some(now_s) = now_s {
            self.events.advance(now_s);
        }
        first.map(|first| first.slot)
    }
}
