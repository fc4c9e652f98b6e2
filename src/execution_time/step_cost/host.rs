//! Host time of an engine: part of an operator graph's steps, and what is added to
//! those of any other cost model.

use std::sync::Arc;

use crate::catalog::EngineSpec;
use crate::execution_time::{
    Operator, PricedOperator, Provenance, StageRun, StageTime, StepCost, StepShape,
};
use crate::number::narrow;

/// Host time of a step: it delays the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HostOverhead {
    /// Whatever is in the step, seconds.
    pub per_step_s: f64,
    /// For each of its requests, seconds.
    pub per_request_s: f64,
}

impl HostOverhead {
    /// That of an engine; none without one.
    pub fn of(engine: Option<&EngineSpec>) -> Self {
        engine.map_or_else(Self::default, |engine| Self {
            per_step_s: engine.host_overhead_s_per_step,
            per_request_s: engine.host_overhead_s_per_request,
        })
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Of a step of so many requests, seconds.
    #[inline(always)]
    pub(super) fn step_s(&self, requests: u32) -> f64 {
        self.per_step_s + self.per_request_s * f64::from(requests)
    }

    /// As an operator of the first stage; none where a step has no requests.
    pub(super) fn priced(&self, requests: u32, time_s: f64) -> Option<PricedOperator> {
        (requests > 0 && !self.is_none()).then(|| PricedOperator {
            stage: 0,
            name: "host".into(),
            operator: Operator::Host { requests },
            count: 1.0,
            time_s,
            provenance: Provenance::Formula,
        })
    }
}

/// Requests of a step.
#[inline(always)]
pub(super) fn requests(shape: &StepShape) -> u32 {
    shape.decode_requests + narrow::<u32, _>(shape.prefills.len())
}

/// A cost model that knows no engine, with the host time of one.
pub struct HostedCost {
    device: Arc<dyn StepCost>,
    host: HostOverhead,
}

impl HostedCost {
    /// Steps priced by `device`, delayed by `host`.
    pub fn new(device: Arc<dyn StepCost>, host: HostOverhead) -> Self {
        Self { device, host }
    }

    fn host_s(&self, shape: &StepShape) -> f64 {
        match requests(shape) {
            0 => 0.0,
            requests => self.host.step_s(requests),
        }
    }

    fn delayed(&self, stage: u32, shape: &StepShape, time: StageTime) -> StageTime {
        if stage > 0 {
            return time;
        }
        StageTime {
            host_s: time.host_s + self.host_s(shape),
            ..time
        }
    }

    fn priced(&self, shape: &StepShape) -> Option<PricedOperator> {
        self.host.priced(requests(shape), self.host_s(shape))
    }
}

impl StepCost for HostedCost {
    fn stages(&self) -> u32 {
        self.device.stages()
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        self.delayed(stage, shape, self.device.stage_time(stage, shape))
    }

    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.delayed(run.stage, shape, self.device.stage_time_of(run, shape))
    }

    fn tells_runs_apart(&self) -> bool {
        self.device.tells_runs_apart()
    }

    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.device.stage_times(shape, times);
        if let Some(first) = times.first_mut() {
            *first = self.delayed(0, shape, *first);
        }
    }

    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.device.decode_times(shape, times);
        // All steps are of the same requests.
        for step in times.chunks_exact_mut(self.stages() as usize) {
            step[0] = self.delayed(0, shape, step[0]);
        }
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = self.device.explain(shape);
        rows.extend(self.priced(shape));
        rows
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = self.device.explain_stage(stage, shape);
        if stage == 0 {
            rows.extend(self.priced(shape));
        }
        rows
    }
}
