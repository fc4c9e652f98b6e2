//! One attention rank of a group that shares experts, where the ranks of the
//! group are replicas of their own.

use std::cell::RefCell;
use std::sync::Arc;

use crate::execution_time::{PricedOperator, StageTime, StepCost, StepShape};

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

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        self.with_group(shape, |group| self.group.explain(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution_time::PrefillChunk;

    /// Tells the step it is asked about, in numbers.
    struct Echo;

    impl StepCost for Echo {
        fn stages(&self) -> u32 {
            1
        }
        fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
            StageTime {
                model_s: f64::from(shape.new_tokens()),
                host_s: shape.decode_context_tokens as f64,
            }
        }
        fn explain(&self, _shape: &StepShape) -> Vec<PricedOperator> {
            Vec::new()
        }
    }

    #[test]
    fn every_peer_carries_the_same_load() {
        let chunk = PrefillChunk {
            new_tokens: 100,
            context_tokens: 20,
        };
        let shape = StepShape {
            prefills: vec![chunk, chunk],
            decode_requests: 3,
            decode_context_tokens: 50,
            sampled_tokens: 4,
        };
        let time = PeerCost::new(Arc::new(Echo), 4).stage_time(0, &shape);
        assert_eq!((time.model_s, time.host_s), (812.0, 200.0));
    }
}
