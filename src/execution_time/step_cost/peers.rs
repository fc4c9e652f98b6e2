//! One attention rank of a group that shares experts, where the ranks of the
//! group are replicas of their own.

use std::cell::RefCell;
use std::sync::Arc;

use crate::execution_time::{PricedOperator, StageRun, StageTime, StepCost, StepShape};

thread_local! {
    /// The group's step, reused.
    static GROUP: RefCell<StepShape> = RefCell::default();
}

/// Prices the steps of a replica that shares its experts with `ranks - 1` peers,
/// each of which is taken to run the same step at the same time.
pub struct PeerCost {
    group: Arc<dyn StepCost>,
    ranks: u32,
}

impl PeerCost {
    /// `group` prices steps of all ranks together.
    pub fn new(group: Arc<dyn StepCost>, ranks: u32) -> Self {
        Self { group, ranks }
    }

    /// Calls `with` with the step of all ranks.
    fn with_group<T>(&self, shape: &StepShape, with: impl FnOnce(&StepShape) -> T) -> T {
        GROUP.with_borrow_mut(|group| {
            group.prefills.clear();
            for chunk in &shape.prefills {
                let ranks = std::iter::repeat_n(*chunk, self.ranks as usize);
                group.prefills.extend(ranks);
            }
            group.decode_requests = shape.decode_requests * self.ranks;
            group.decode_context_tokens = shape.decode_context_tokens * u64::from(self.ranks);
            group.sampled_tokens = shape.sampled_tokens * self.ranks;
            with(group)
        })
    }
}

impl StepCost for PeerCost {
    fn stages(&self) -> u32 {
        self.group.stages()
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        self.with_group(shape, |group| self.group.stage_time(stage, group))
    }

    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.with_group(shape, |group| self.group.stage_time_of(run, group))
    }

    fn tells_runs_apart(&self) -> bool {
        self.group.tells_runs_apart()
    }

    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.with_group(shape, |group| self.group.stage_times(group, times));
    }

    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        // A token more in the cache of each decode is one more in those of its peers.
        self.with_group(shape, |group| self.group.decode_times(group, times));
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        self.with_group(shape, |group| self.group.explain(group))
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        self.with_group(shape, |group| self.group.explain_stage(stage, group))
    }
}
