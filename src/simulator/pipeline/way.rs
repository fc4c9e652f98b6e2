//! The way of a batch through all stages of a pipeline.

use super::Leaving;
use crate::execution_time::StageTime;
use crate::simulator::cohort::Spent;
use crate::simulator::exact_sum::ExactRun;

/// When a batch is on which stage: a stage starts it when both are free.
pub(super) struct Way {
    /// When the first stage starts it, seconds; infinite: never.
    pub(super) first_start_s: f64,
    /// When the last stage it reaches starts it, seconds.
    started_at_s: f64,
    /// When the last stage has executed it, seconds; after the limit, when the stage
    /// that never starts it would have.
    at_s: f64,
    /// When the last stage that executes it has done so, seconds.
    pub(super) executed_at_s: f64,
    /// On the stages and between them.
    pub(super) spent: Spent,
    /// What stages are busy with it.
    pub(super) busy: ExactRun,
}

impl Way {
    #[inline(always)]
    fn from(now_s: f64) -> Self {
        Self {
            first_start_s: f64::INFINITY,
            started_at_s: now_s,
            at_s: now_s,
            executed_at_s: now_s,
            spent: Spent::default(),
            busy: ExactRun::default(),
        }
    }

    /// Through stages that will be free at `free_at_s`, from `now_s` on, where it takes
    /// what `time` says. No stage starts after `limit_s`.
    #[inline(always)]
    pub(super) fn through(
        free_at_s: &mut [f64],
        now_s: f64,
        limit_s: f64,
        mut time: impl FnMut(u32) -> StageTime,
    ) -> Self {
        let mut way = Self::from(now_s);
        for (stage, free_at_s) in (0..).zip(free_at_s) {
            let start_s = later(*free_at_s, way.at_s);
            if start_s > limit_s {
                // It never starts.
                way.at_s = start_s;
                break;
            }
            way.wait(stage == 0, start_s);
            way.execute(start_s, time(stage), free_at_s);
        }
        way
    }

    /// The same without a limit. `times` are those of the stages, in order.
    #[inline(always)]
    pub(super) fn through_all(free_at_s: &mut [f64], now_s: f64, times: &[StageTime]) -> Self {
        // Loops of known length are unrolled.
        match (&mut *free_at_s, times) {
            ([a, b], [c, d]) => Self::through_each([(a, c), (b, d)], now_s),
            ([a, b, c, d], [e, f, g, h]) => {
                Self::through_each([(a, e), (b, f), (c, g), (d, h)], now_s)
            }
            _ => Self::through_each(free_at_s.iter_mut().zip(times), now_s),
        }
    }

    #[inline(always)]
    fn through_each<'t>(
        stages: impl IntoIterator<Item = (&'t mut f64, &'t StageTime)>,
        now_s: f64,
    ) -> Self {
        let mut way = Self::from(now_s);
        let mut is_first = true;
        for (free_at_s, time) in stages {
            let start_s = later(*free_at_s, way.at_s);
            way.wait(is_first, start_s);
            is_first = false;
            way.execute(start_s, *time, free_at_s);
        }
        way
    }

    /// A stage starts it, the first or a later one.
    #[inline(always)]
    fn wait(&mut self, is_first: bool, start_s: f64) {
        if is_first {
            self.first_start_s = start_s;
        } else {
            self.spent.waiting_s += start_s - self.at_s;
        }
    }

    /// A stage executes it.
    #[inline(always)]
    fn execute(&mut self, start_s: f64, time: StageTime, free_at_s: &mut f64) {
        let total_s = time.total_s();
        self.spent.total_s += total_s;
        self.spent.model_s += time.model_s;
        self.started_at_s = start_s;
        self.at_s = start_s + total_s;
        self.executed_at_s = self.at_s;
        self.busy.add(self.at_s - start_s);
        *free_at_s = self.at_s;
    }

    /// Whether the first stage starts the batch.
    #[inline]
    pub(super) fn starts(&self) -> bool {
        self.first_start_s < f64::INFINITY
    }

    /// How the batch of `slot` leaves the stages.
    #[inline(always)]
    pub(super) fn leaving(&self, slot: u32) -> Leaving {
        Leaving {
            slot,
            started_at_s: self.started_at_s,
            at_s: self.at_s,
        }
    }
}

/// The later of two times. Neither is NaN: one comparison, where `max` makes two.
#[inline(always)]
fn later(a_s: f64, b_s: f64) -> f64 {
    if a_s > b_s { a_s } else { b_s }
}
