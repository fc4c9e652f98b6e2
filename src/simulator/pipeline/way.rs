//! The way of a batch through all stages of a pipeline.

use super::Leaving;
use crate::execution_time::StageTime;
use crate::simulator::exact_sum::ExactRun;
use crate::simulator::spent::Spent;

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
    /// Through stages that will be free at `free_at_s`, from `now_s` on, where it takes
    /// what `time` says. No stage starts after `limit_s`.
    #[inline(always)]
    pub(super) fn through(
        free_at_s: &mut [f64],
        now_s: f64,
        limit_s: f64,
        time: impl Fn(u32) -> StageTime,
    ) -> Self {
        Self::through_each(free_at_s.iter_mut().zip(0..), now_s, limit_s, time)
    }

    /// The same without a limit. `times` are those of the stages, in order.
    #[inline(always)]
    pub(super) fn through_all(free_at_s: &mut [f64], now_s: f64, times: &[StageTime]) -> Self {
        let (never_s, time) = (f64::INFINITY, |time: &StageTime| *time);
        // Loops of known length are unrolled.
        match (&mut *free_at_s, times) {
            ([a, b], [c, d]) => Self::through_each([(a, c), (b, d)], now_s, never_s, time),
            ([a, b, c, d], [e, f, g, h]) => {
                let stages = [(a, e), (b, f), (c, g), (d, h)];
                Self::through_each(stages, now_s, never_s, time)
            }
            _ => Self::through_each(free_at_s.iter_mut().zip(times), now_s, never_s, time),
        }
    }

    /// Through stages of which each comes with what `time` is to be asked with.
    #[inline(always)]
    fn through_each<'f, T>(
        stages: impl IntoIterator<Item = (&'f mut f64, T)>,
        now_s: f64,
        limit_s: f64,
        time: impl Fn(T) -> StageTime,
    ) -> Self {
        let mut way = Self {
            first_start_s: f64::INFINITY,
            started_at_s: now_s,
            at_s: now_s,
            executed_at_s: now_s,
            spent: Spent::default(),
            busy: ExactRun::default(),
        };
        for (nth, (free_at_s, stage)) in stages.into_iter().enumerate() {
            let start_s = later(*free_at_s, way.at_s);
            if start_s > limit_s {
                // It never starts.
                way.at_s = start_s;
                break;
            }
            if nth == 0 {
                way.first_start_s = start_s;
            } else {
                way.spent.waiting_s += start_s - way.at_s;
            }
            let time = time(stage);
            let total_s = time.total_s();
            way.spent.total_s += total_s;
            way.spent.model_s += time.model_s;
            way.started_at_s = start_s;
            way.at_s = start_s + total_s;
            way.executed_at_s = way.at_s;
            way.busy.add(way.at_s - start_s);
            *free_at_s = way.at_s;
        }
        way
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
