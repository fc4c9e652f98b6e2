//! The way of a batch through all stages of a pipeline.

use super::Leaving;
use crate::execution_time::StageTime;
use crate::simulator::cohort::Spent;
use crate::simulator::exact_sum::ExactRun;
use crate::simulator::replica::Batch;

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
    executed_at_s: f64,
    /// On the stages and between them.
    spent: Spent,
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
        mut time: impl FnMut(u32) -> StageTime,
    ) -> Self {
        let mut way = Self {
            first_start_s: f64::INFINITY,
            started_at_s: now_s,
            at_s: now_s,
            executed_at_s: now_s,
            spent: Spent::default(),
            busy: ExactRun::default(),
        };
        for (stage, free_at_s) in (0..).zip(free_at_s) {
            // Neither is NaN: one comparison, where `max` makes two.
            let start_s = if *free_at_s > way.at_s {
                *free_at_s
            } else {
                way.at_s
            };
            if start_s > limit_s {
                // It never starts.
                way.at_s = start_s;
                break;
            }
            if stage == 0 {
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
            way.busy.add(way.at_s - start_s);
            way.executed_at_s = way.at_s;
            *free_at_s = way.at_s;
        }
        way
    }

    /// Whether the first stage starts the batch.
    #[inline]
    pub(super) fn starts(&self) -> bool {
        self.first_start_s < f64::INFINITY
    }

    /// Has the batch of `slot` take it.
    #[inline(always)]
    pub(super) fn take(self, slot: u32, batch: &mut Batch) -> Leaving {
        batch.spent = self.spent;
        if self.starts() {
            batch.last_stage_at_s = self.executed_at_s;
        }
        Leaving {
            slot,
            started_at_s: self.started_at_s,
            at_s: self.at_s,
        }
    }
}
