//! Looks over a plan without simulating: how many runs constraints exclude,
//! how many deployments cannot exist and why, how many requests remain.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::executor::{Task, Tasks};
use crate::number::whole_u64;
use crate::permutation::Permutation;
use crate::results::RunIndices;
use crate::select::normalise;
use crate::spec::{Problem, ResolveError, RunConfig};
use crate::workload::WorkloadError;

/// Stream of the sweep seed that the choice of runs to examine draws from.
const SURVEY_STREAM: u64 = 0x0073_7572_7665_7973;

/// Says whether a deployment can exist.
pub trait CheckOne: Sync {
    /// Nothing, or why the configuration cannot be simulated.
    fn check(&self, config: &RunConfig) -> Result<(), ResolveError>;

    /// Requests of the configuration's workload, or why it has none that can be
    /// simulated.
    fn requests(&self, config: &RunConfig) -> Result<u32, WorkloadError>;
}

/// What a plan amounts to. Counts are of the examined runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Runs of the plan, excluded ones included.
    pub total: u64,
    /// Runs examined: all of them, or an even sample.
    pub examined: u64,
    /// Runs that constraints exclude.
    pub excluded: u64,
    /// Runs that can be simulated.
    pub feasible: u64,
    /// Requests of the feasible runs.
    pub requests: u64,
    /// Deployments that cannot exist: how many, by reason.
    pub infeasible: BTreeMap<String, Reasons>,
    /// Configurations that are not understood: how many, by reason.
    pub invalid: BTreeMap<String, Reasons>,
    /// First and last run that can be simulated.
    pub feasible_ends: Option<(u64, u64)>,
}

/// Runs with the same reason, figures aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons {
    /// How many.
    pub count: u64,
    /// The reason in full of the one with the lowest index.
    pub example: String,
    /// The key to be changed, where it is one.
    pub key: Option<&'static str>,
    /// Its index.
    pub example_index: u64,
}

impl Survey {
    /// Whether every run was examined.
    pub fn is_whole(&self) -> bool {
        self.examined == self.total
    }

    /// Deployments that cannot exist, whatever the reason.
    pub fn num_infeasible(&self) -> u64 {
        self.infeasible.values().map(|reasons| reasons.count).sum()
    }

    /// What a count of examined runs stands for in the whole plan.
    pub fn extrapolate(&self, count: u64) -> u64 {
        match self.examined {
            0 => 0,
            examined => whole_u64((count as f64 / examined as f64 * self.total as f64).round()),
        }
    }

    fn one(index: u64, task: Task, checker: &dyn CheckOne) -> Self {
        let mut survey = Self {
            examined: 1,
            ..Self::default()
        };
        match task {
            Task::Excluded => survey.excluded = 1,
            Task::Invalid { reason, .. } => {
                note(&mut survey.invalid, index, Problem::new(reason));
            }
            Task::Run { config, .. } => match checker.check(&config) {
                Err(error @ ResolveError::Infeasible(_)) => {
                    let problem = Problem {
                        key: error.key(),
                        reason: error.to_string(),
                    };
                    note(&mut survey.infeasible, index, problem);
                }
                Err(ResolveError::Input(error)) => {
                    note(&mut survey.invalid, index, Problem::from(&error));
                }
                Ok(()) => match checker.requests(&config) {
                    Err(error) => note(&mut survey.invalid, index, Problem::from(&error)),
                    Ok(requests) => {
                        survey.feasible = 1;
                        survey.requests = u64::from(requests);
                        survey.feasible_ends = Some((index, index));
                    }
                },
            },
        }
        survey
    }

    /// Both together; the order does not matter.
    fn plus(mut self, other: Self) -> Self {
        self.examined += other.examined;
        self.excluded += other.excluded;
        self.feasible += other.feasible;
        self.requests += other.requests;
        self.feasible_ends = match (self.feasible_ends, other.feasible_ends) {
            (Some(mine), Some(theirs)) => Some((mine.0.min(theirs.0), mine.1.max(theirs.1))),
            (mine, theirs) => mine.or(theirs),
        };
        merge(&mut self.infeasible, other.infeasible);
        merge(&mut self.invalid, other.invalid);
        self
    }
}

fn note(kinds: &mut BTreeMap<String, Reasons>, index: u64, problem: Problem) {
    let kind = normalise(&problem.reason);
    let reasons = Reasons {
        count: 1,
        example: problem.reason,
        key: problem.key,
        example_index: index,
    };
    kinds.insert(kind, reasons);
}

fn merge(into: &mut BTreeMap<String, Reasons>, from: BTreeMap<String, Reasons>) {
    for (kind, theirs) in from {
        let mine = into.entry(kind).or_default();
        if mine.count == 0 || theirs.example_index < mine.example_index {
            mine.example = theirs.example;
            mine.key = theirs.key;
            mine.example_index = theirs.example_index;
        }
        mine.count += theirs.count;
    }
}

/// Examines the runs `indices` of `tasks`, or `limit` of them chosen at random
/// (by `seed`) if they are more. Uses the current rayon pool.
pub fn survey(
    tasks: &dyn Tasks,
    indices: RunIndices,
    checker: &dyn CheckOne,
    limit: u64,
    seed: u64,
) -> Survey {
    let order = Permutation::new(indices.count, seed, SURVEY_STREAM);
    let whole = indices.count <= limit;
    let survey = (0..indices.count.min(limit))
        .into_par_iter()
        .map(|position| {
            let slot = if whole { position } else { order.at(position) };
            let index = indices.index(slot);
            Survey::one(index, tasks.task(index), checker)
        })
        .reduce(Survey::default, Survey::plus);
    Survey {
        total: indices.count,
        ..survey
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Infeasible;

    struct Numbers(u64);

    impl Tasks for Numbers {
        fn len(&self) -> u64 {
            self.0
        }

        fn task(&self, index: u64) -> Task {
            let config = serde_json::json!({
                "model": "m", "device": "d", "tensor_parallel": index % 4,
                "workload": {
                    "requests": 10,
                    "lengths": {"type": "fixed", "prefill_tokens": 1, "decode_tokens": 1},
                    "arrivals": {"type": "poisson"},
                },
            });
            match index % 5 {
                4 => Task::Excluded,
                _ => Task::Run {
                    config: Box::new(serde_json::from_value(config).expect("a configuration")),
                    axes: Vec::new(),
                },
            }
        }
    }

    struct NotThree;

    impl CheckOne for NotThree {
        fn check(&self, config: &RunConfig) -> Result<(), ResolveError> {
            let infeasible = |reason: &str| {
                let problem = Problem::new(reason);
                Err(Infeasible::Settings(problem).into())
            };
            match config.tensor_parallel {
                3 => infeasible("3 does not divide 128 heads"),
                2 => infeasible("needs 2 of 1 GiB"),
                _ => Ok(()),
            }
        }

        fn requests(&self, config: &RunConfig) -> Result<u32, WorkloadError> {
            Ok(config.workload.requests.unwrap_or(0))
        }
    }

    #[test]
    fn every_run_is_counted_once_and_reasons_are_grouped() {
        let survey = survey(&Numbers(20), RunIndices::all(20), &NotThree, 100, 1);
        assert!(survey.is_whole());
        assert_eq!((survey.total, survey.excluded), (20, 4));
        assert_eq!((survey.feasible, survey.num_infeasible()), (8, 8));
        assert_eq!(survey.requests, 80);
        assert_eq!(survey.feasible_ends, Some((0, 17)));
        let reasons = &survey.infeasible["N does not divide N heads"];
        assert_eq!((reasons.count, reasons.example_index), (4, 3));
        assert_eq!(reasons.example, "3 does not divide 128 heads");
    }

    #[test]
    fn large_plans_are_sampled_evenly() {
        let survey = survey(
            &Numbers(1_000_000_000),
            RunIndices::all(1_000_000_000),
            &NotThree,
            2000,
            1,
        );
        assert!(!survey.is_whole());
        assert_eq!(survey.examined, 2000);
        // A fifth of the plan; the standard error of the estimate is 0.9 %.
        let excluded = survey.extrapolate(survey.excluded) as f64 / 1e9;
        assert!((excluded - 0.2).abs() < 0.04, "{excluded}");
    }
}
