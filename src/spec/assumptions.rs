//! What the figures of a run rest on that nobody measured: which share of its steps'
//! time is roofline, substituted, extrapolated or doubtful and in which operators, and
//! prices of GPUs that nobody published.
//!
//! The shares are those of the run's own steps: a mean prompt and a mean step of
//! decodes of each pool, as often as its requests need them, priced operator by
//! operator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::pricing::PoolCost;
use super::resolve::{Deployment, Pool};
use crate::catalog::PriceBasis;
use crate::execution_time::silicon::DOUBTFUL_MULTIPLE;
use crate::execution_time::{PrefillChunk, PricedOperator, Provenance, StepShape};
use crate::number::whole_u32;
use crate::simulator::{PoolRole, PoolWork, RunSummary};

/// Shares below this are not worth a sentence.
const SHARE_MIN: f64 = 0.005;
/// Operators named in a sentence.
const OPERATORS_NAMED: usize = 4;
/// Sentences about shares.
const SENTENCES_MAX: usize = 6;
/// Steps remembered.
const STEPS_KEPT: usize = 256;

/// How a price that is not measured came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Roofline,
    Doubtful,
    Substituted,
    Extrapolated,
}

/// Time of a step by how it was priced: kind, why or by what, and operators.
type Times = BTreeMap<(Kind, String), (f64, Vec<String>)>;

/// A step's time in all, and what of it was not measured.
#[derive(Debug, Clone, Default)]
struct StepTimes {
    total_s: f64,
    unmeasured: Times,
}

/// What a run's figures rest on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assumptions {
    /// Share of the steps' time priced by peak figures of the device.
    pub roofline_fraction: f64,
    /// Share priced by what was measured for something else.
    pub substituted_fraction: f64,
    /// Share priced beyond what was measured.
    pub extrapolated_fraction: f64,
    /// Share priced by measurements that are implausible.
    pub doubtful_fraction: f64,
    /// All of it in sentences, one a line, the largest share first; empty: there is
    /// nothing to say.
    pub sentences: String,
}

/// Steps priced so far, by what prices them and their shape. Shared by all threads.
#[derive(Default)]
pub(super) struct PricedSteps(Mutex<Vec<PricedStep>>);

struct PricedStep {
    /// Kept, so that no other cost model takes its place in memory.
    cost: PoolCost,
    peers: u32,
    shape: StepShape,
    times: Arc<StepTimes>,
}

impl PricedSteps {
    /// What the figures of a run of `deployment` rest on.
    pub(super) fn assumptions(
        &self,
        deployment: &Deployment,
        work: &[PoolWork],
        summary: &RunSummary,
    ) -> Assumptions {
        let mut all = StepTimes::default();
        for (pool, work) in deployment.pools.iter().zip(work) {
            for (shape, steps) in mean_steps(pool, work, summary) {
                let step = self.times(pool, shape);
                all.total_s += steps * step.total_s;
                for (key, (time_s, operators)) in &step.unmeasured {
                    let known = all.unmeasured.entry(key.clone()).or_default();
                    known.0 += steps * time_s;
                    for operator in operators {
                        if !known.1.contains(operator) {
                            known.1.push(operator.clone());
                        }
                    }
                }
            }
        }
        let mut sentences = sentences(&all);
        sentences.extend(price_sentences(deployment));
        let fraction = |kind| {
            let of_kind = all
                .unmeasured
                .iter()
                .filter(|((found, _), _)| *found == kind);
            let time_s: f64 = of_kind.map(|(_, (time_s, _))| time_s).sum();
            if all.total_s > 0.0 {
                time_s / all.total_s
            } else {
                f64::NAN
            }
        };
        Assumptions {
            roofline_fraction: fraction(Kind::Roofline),
            substituted_fraction: fraction(Kind::Substituted),
            extrapolated_fraction: fraction(Kind::Extrapolated),
            doubtful_fraction: fraction(Kind::Doubtful),
            sentences: sentences.join("\n"),
        }
    }

    fn times(&self, pool: &Pool, shape: StepShape) -> Arc<StepTimes> {
        let is_it = |step: &PricedStep| {
            step.cost.is(&pool.cost) && step.peers == pool.peers && step.shape == shape
        };
        let found = |steps: &[PricedStep]| {
            let step = steps.iter().find(|step| is_it(step));
            step.map(|step| Arc::clone(&step.times))
        };
        if let Some(times) = found(&self.lock()) {
            return times;
        }
        let times = Arc::new(step_times(&pool.step_cost().explain(&shape)));
        let mut steps = self.lock();
        if let Some(times) = found(&steps) {
            return times;
        }
        if steps.len() >= STEPS_KEPT {
            steps.clear();
        }
        steps.push(PricedStep {
            cost: pool.cost.clone(),
            peers: pool.peers,
            shape,
            times: Arc::clone(&times),
        });
        times
    }

    /// A panic elsewhere leaves the list whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PricedStep>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mean steps of a pool, and how many of them did its work. Sizes are powers of two:
/// where prices come from does not change within less, and runs alike share them.
fn mean_steps(pool: &Pool, work: &PoolWork, summary: &RunSummary) -> Vec<(StepShape, f64)> {
    let completed = f64::from(summary.completed.max(1));
    let prompt = summary.prompt_tokens as f64 / completed;
    let output = summary.output_tokens as f64 / completed;
    let prompts = match pool.role {
        PoolRole::Decode => 0.0,
        PoolRole::Prefill | PoolRole::Mixed => f64::from(summary.completed),
    };
    let decodes = match pool.role {
        PoolRole::Prefill => 0.0,
        PoolRole::Decode | PoolRole::Mixed => (work.sampled_tokens as f64 - prompts).max(0.0),
    };
    let mut steps = Vec::new();
    let prompt_tokens = (work.tokens as f64 - decodes).max(0.0);
    if prompts > 0.0 && prompt_tokens > 0.0 {
        let new_tokens = power_of_two(prompt);
        let shape = StepShape {
            prefills: vec![PrefillChunk {
                new_tokens,
                context_tokens: 0,
            }],
            sampled_tokens: 1,
            ..StepShape::default()
        };
        steps.push((shape, prompt_tokens / f64::from(new_tokens)));
    }
    if decodes > 0.0 {
        let batch = work.batch_requests as f64 / work.batches.max(1) as f64;
        let requests = power_of_two(batch);
        let context = power_of_two(prompt + output / 2.0);
        let shape = StepShape {
            decode_requests: requests,
            decode_context_tokens: u64::from(requests) * u64::from(context),
            sampled_tokens: requests,
            ..StepShape::default()
        };
        steps.push((shape, decodes / f64::from(requests)));
    }
    steps
}

/// The nearest power of two, by ratio.
fn power_of_two(value: f64) -> u32 {
    let exponent = value.max(1.0).log2().round().min(30.0);
    1 << whole_u32(exponent)
}

fn step_times(operators: &[PricedOperator]) -> StepTimes {
    let mut times = StepTimes::default();
    for operator in operators {
        times.total_s += operator.time_s;
        let Some(key) = unmeasured(&operator.provenance) else {
            continue;
        };
        let (time_s, names) = times.unmeasured.entry(key).or_default();
        *time_s += operator.time_s;
        if !names.contains(&operator.name) {
            names.push(operator.name.clone());
        }
    }
    times
}

/// Kind of a price that nobody measured, and why or by what it was found.
fn unmeasured(provenance: &Provenance) -> Option<(Kind, String)> {
    match provenance {
        Provenance::Measured
        | Provenance::Interpolated
        | Provenance::Formula
        | Provenance::Nothing => None,
        Provenance::Extrapolated => Some((Kind::Extrapolated, String::new())),
        Provenance::Substituted { from } => Some((Kind::Substituted, from.clone())),
        Provenance::Doubtful { .. } => Some((
            Kind::Doubtful,
            format!(
                "measured at more than {DOUBTFUL_MULTIPLE} times what arithmetic and memory \
                 bandwidth allow"
            ),
        )),
        Provenance::Roofline { reason } => Some((Kind::Roofline, reason.clone())),
    }
}

/// `34 % of the steps' time is roofline (moe: no measured table)`, the largest first.
fn sentences(all: &StepTimes) -> Vec<String> {
    let mut parts: Vec<_> = all
        .unmeasured
        .iter()
        .map(|((kind, why), (time_s, operators))| (time_s / all.total_s, *kind, why, operators))
        .filter(|(share, ..)| *share >= SHARE_MIN)
        .collect();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    parts.truncate(SENTENCES_MAX);
    let sentence = |(share, kind, why, operators): (f64, Kind, &String, &Vec<String>)| {
        let mut named = operators[..operators.len().min(OPERATORS_NAMED)].join(", ");
        if operators.len() > OPERATORS_NAMED {
            named += ", ...";
        }
        let share = format!("{:.0} % of the steps' time", share * 100.0);
        match kind {
            Kind::Roofline => format!("{share} is roofline, not measured ({named}): {why}"),
            Kind::Substituted => format!("{share} is substituted ({named}): {why}"),
            Kind::Extrapolated => format!("{share} is beyond what was measured ({named})"),
            Kind::Doubtful => format!("{share} is doubtful ({named}): {why}"),
        }
    };
    parts.into_iter().map(sentence).collect()
}

/// Prices of GPUs that are assumptions.
fn price_sentences(deployment: &Deployment) -> Vec<String> {
    let mut sentences = Vec::new();
    for pool in &deployment.pools {
        let device = &pool.device;
        if device.price_basis == PriceBasis::Assumed {
            let sentence = format!(
                "the price of {}, ${} per GPU and hour, is an assumption: nobody publishes one",
                device.name, device.price_usd_per_hour
            );
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution_time::Operator;

    fn operator(name: &str, time_s: f64, provenance: Provenance) -> PricedOperator {
        PricedOperator {
            stage: 0,
            name: name.into(),
            operator: Operator::Host { requests: 1 },
            count: 1.0,
            time_s,
            provenance,
        }
    }

    #[test]
    fn shares_are_of_the_time_and_the_largest_comes_first() {
        let roofline = || Provenance::Roofline {
            reason: "no table".into(),
        };
        let times = step_times(&[
            operator("gemm", 5.0, Provenance::Measured),
            operator("moe", 2.0, roofline()),
            operator("attention", 1.0, roofline()),
            operator("head", 1.99, Provenance::Extrapolated),
            operator(
                "norm",
                0.01,
                Provenance::Substituted {
                    from: "h100".into(),
                },
            ),
        ]);
        assert_eq!(
            sentences(&times),
            [
                "30 % of the steps' time is roofline, not measured (moe, attention): no table",
                "20 % of the steps' time is beyond what was measured (head)",
            ]
        );
    }

    #[test]
    fn sizes_are_the_nearest_power_of_two() {
        let rounded = [0.0, 1.3, 1.5, 6.0, 1e12].map(power_of_two);
        assert_eq!(rounded, [1, 1, 2, 8, 1 << 30]);
    }
}
