//! Backend `formula`: the time of a step in closed form, linear in what is in it.
//!
//! For tests and queueing theory: nothing of the device or the model is in it, so a
//! deployment becomes a queue whose service times are known exactly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Operator, PricedOperator, Provenance, StageTime, StepCost, StepShape};
use crate::limits::HOST_OVERHEAD_S_MAX;
use crate::number::narrow;
use crate::one_by_one;

/// What a step takes, seconds: the sum of these, each times how many of it are in the
/// step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormulaConfig {
    /// Seconds of every step, whatever is in it.
    #[serde(default)]
    #[schemars(range(min = 0, max = HOST_OVERHEAD_S_MAX))]
    pub step_s: f64,
    /// Seconds of each prompt token that is computed.
    #[serde(default)]
    #[schemars(range(min = 0, max = HOST_OVERHEAD_S_MAX))]
    pub prefill_token_s: f64,
    /// Seconds of each request that generates a token.
    #[serde(default)]
    #[schemars(range(min = 0, max = HOST_OVERHEAD_S_MAX))]
    pub decode_request_s: f64,
    /// Seconds of each token that is in the KV cache of those requests.
    #[serde(default)]
    #[schemars(range(min = 0, max = HOST_OVERHEAD_S_MAX))]
    pub decode_context_token_s: f64,
}

impl FormulaConfig {
    /// Whether every step would take no time.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Time of the step on all stages together, by name, number and seconds of each.
    fn terms(&self, shape: &StepShape) -> [(&'static str, f64, f64); 4] {
        let prompt_tokens = f64::from(shape.prefill_tokens());
        let decodes = f64::from(shape.decode_requests);
        let context_tokens = shape.decode_context_tokens as f64;
        [
            ("step", 1.0, self.step_s),
            ("prefill_tokens", prompt_tokens, self.prefill_token_s),
            ("decode_requests", decodes, self.decode_request_s),
            (
                "decode_context_tokens",
                context_tokens,
                self.decode_context_token_s,
            ),
        ]
    }
}

/// Prices steps by a [`FormulaConfig`]; each of the stages takes an equal share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormulaCost {
    formula: FormulaConfig,
    stages: u32,
}

impl FormulaCost {
    /// Prices of a replica of so many pipeline stages.
    pub fn new(formula: FormulaConfig, stages: u32) -> Self {
        Self { formula, stages }
    }

    fn model_s(&self, shape: &StepShape) -> f64 {
        let terms = self.formula.terms(shape);
        let sum_s: f64 = terms
            .iter()
            .map(|(_, number, each_s)| number * each_s)
            .sum();
        sum_s / f64::from(self.stages)
    }
}

impl StepCost for FormulaCost {
    fn stages(&self) -> u32 {
        self.stages
    }

    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        StageTime {
            model_s: self.model_s(shape),
            host_s: 0.0,
        }
    }

    one_by_one!(stage_time_of, tells_runs_apart, stage_times, explain_stage);

    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        let mut step = StepShape {
            // Empty: nothing is allocated.
            prefills: Vec::new(),
            ..*shape
        };
        for times in times.chunks_exact_mut(self.stages as usize) {
            // All stages take the same.
            times.fill(self.stage_time(0, &step));
            step.decode_context_tokens += u64::from(step.decode_requests);
        }
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let operator = Operator::LayerParts {
            prefill: !shape.prefills.is_empty(),
            batch: shape.decode_requests + narrow::<u32, _>(shape.prefills.len()),
            tokens: shape.new_tokens(),
        };
        let of_stage = |stage| {
            let terms = self.formula.terms(shape).into_iter();
            let counted = terms.filter(|(_, number, each_s)| number * each_s > 0.0);
            counted.map(move |(name, number, each_s)| PricedOperator {
                stage,
                name: name.into(),
                operator,
                count: number,
                time_s: number * each_s / f64::from(self.stages),
                provenance: Provenance::Formula,
            })
        };
        (0..self.stages).flat_map(of_stage).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution_time::PrefillChunk;

    const FORMULA: FormulaConfig = FormulaConfig {
        step_s: 0.5,
        prefill_token_s: 0.25,
        decode_request_s: 0.125,
        decode_context_token_s: 0.0625,
    };

    fn step() -> StepShape {
        let chunk = |new_tokens, context_tokens| PrefillChunk {
            new_tokens,
            context_tokens,
        };
        StepShape {
            // What is cached of a prompt costs nothing.
            prefills: vec![chunk(10, 0), chunk(6, 100)],
            decode_requests: 4,
            decode_context_tokens: 32,
            sampled_tokens: 5,
        }
    }

    #[test]
    fn a_step_takes_the_sum_of_what_is_in_it() {
        let total_s = 0.5 + 16.0 * 0.25 + 4.0 * 0.125 + 32.0 * 0.0625;
        for stages in [1, 2, 4] {
            let cost = FormulaCost::new(FORMULA, stages);
            let mut times = vec![StageTime::default(); stages as usize];
            cost.stage_times(&step(), &mut times);
            let each = StageTime {
                model_s: total_s / f64::from(stages),
                host_s: 0.0,
            };
            assert!(times.iter().all(|time| *time == each), "{times:?}");
            let rows = cost.explain(&step());
            assert_eq!(rows.len(), 4 * stages as usize);
            let sum_s: f64 = rows.iter().map(|row| row.time_s).sum();
            assert_eq!(sum_s, total_s);
            assert!(rows.iter().all(|row| row.provenance == Provenance::Formula));
        }
    }

    #[test]
    fn decode_steps_in_a_row_are_those_one_by_one() {
        let decodes = StepShape {
            prefills: Vec::new(),
            sampled_tokens: 4,
            ..step()
        };
        for stages in [1, 3] {
            let cost = FormulaCost::new(FORMULA, stages);
            let mut together = vec![StageTime::default(); 7 * stages as usize];
            let mut single = together.clone();
            cost.decode_times(&decodes, &mut together);
            super::super::decode_times_one_by_one(&cost, &decodes, &mut single);
            assert_eq!(together, single);
            // The context grows by one token of each decode.
            let grown_s = together[6 * stages as usize].model_s - together[0].model_s;
            assert!((grown_s - 24.0 * 0.0625 / f64::from(stages)).abs() < 1e-12);
        }
    }
}
