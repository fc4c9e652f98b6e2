//! Which knob binds the best deployments: what the tightest target is, what one
//! step further on each axis would do, and what the best have in common.

use serde::Serialize;
use serde_json::Value;

use super::deployment::{Deployment, Miss};
use super::format;
use crate::results::{ResultError, RunStatus, SummaryReader};
use crate::select::Selection;
use crate::select::neighbours::{Neighbour, Outcome, neighbours};

/// What keeps the best deployment from being better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Binding {
    /// Index of the best deployment's first run.
    pub run_index: u64,
    /// Its tightest target; none without targets.
    pub tightest: Option<Miss>,
    /// Steps along one axis that something forbids, most telling first.
    pub steps: Vec<BlockedStep>,
    /// Deployments looked at for `shared`.
    pub shared_among: usize,
    /// Axes with one value in all of them, and that value.
    pub shared: Vec<(String, Value)>,
}

/// A step along one axis that something forbids.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlockedStep {
    /// The axis.
    pub axis: String,
    /// Value at the best deployment.
    pub from: Value,
    /// Value that does not work.
    pub to: Value,
    /// Whether it would have been better by the first objective; none if it
    /// could not be deployed.
    pub would_be_better: Option<bool>,
    /// What forbids it, as part of a sentence.
    pub because: String,
}

impl BlockedStep {
    /// What changes, and why it cannot be had.
    pub(super) fn sentence(&self) -> String {
        let change = format!(
            "{} {} -> {}",
            self.axis,
            format::value(Some(&self.from)),
            format::value(Some(&self.to))
        );
        let because = self.because.trim_end_matches('.');
        match self.would_be_better {
            Some(_) => format!("{change} would be better, but {because}"),
            None => format!("{change} cannot be deployed: {because}"),
        }
    }
}

/// Looks around the deployment at `best`, the first of `leaders`.
pub(super) fn binding(
    reader: &SummaryReader,
    selection: &Selection,
    best: usize,
    leaders: &[Deployment],
    varying_axes: &[String],
) -> Result<Binding, ResultError> {
    let shared = varying_axes.iter().filter_map(|axis| {
        let mut values = leaders.iter().map(|d| d.axes.get(axis));
        let value = values.next()??;
        let same = values.all(|other| other == Some(value));
        (same && leaders.len() > 1).then(|| (axis.clone(), value.clone()))
    });
    Ok(Binding {
        run_index: selection.configurations()[best].run_index,
        tightest: leaders.first().and_then(|d| d.tightest.clone()),
        steps: blocked_steps(&neighbours(reader, selection, best)?),
        shared_among: leaders.len(),
        shared: shared.collect(),
    })
}

/// Per axis the one step that tells most: first those that would be better and
/// break a target, then those that cannot be deployed. A step that is worse and
/// does not work either binds nothing.
fn blocked_steps(neighbours: &[Neighbour]) -> Vec<BlockedStep> {
    let mut steps: Vec<(u8, f64, BlockedStep)> = Vec::new();
    for neighbour in neighbours {
        let Some((weight, distance)) = telling(neighbour) else {
            continue;
        };
        let step = BlockedStep {
            axis: neighbour.axis.clone(),
            from: neighbour.here.clone(),
            to: neighbour.there.clone(),
            would_be_better: neighbour.better,
            because: because(&neighbour.outcome),
        };
        let known = steps.iter_mut().find(|(.., other)| other.axis == step.axis);
        match known {
            Some(other) if (weight, distance) < (other.0, other.1) => {
                *other = (weight, distance, step);
            }
            Some(_) => {}
            None => steps.push((weight, distance, step)),
        }
    }
    steps.sort_by_key(|(weight, ..)| *weight);
    steps.into_iter().map(|(.., step)| step).collect()
}

/// Rank of a blocked step (less is more telling) and how far it goes.
fn telling(neighbour: &Neighbour) -> Option<(u8, f64)> {
    match (&neighbour.outcome, neighbour.better) {
        (Outcome::Breaks { bound, value }, Some(true)) => {
            Some((0, bound.side.strain(*value, bound.limit)))
        }
        (Outcome::Incomplete { fraction }, Some(true)) => Some((1, *fraction)),
        (
            Outcome::Unavailable {
                status: RunStatus::Infeasible,
                ..
            },
            _,
        ) => Some((2, step_size(&neighbour.here, &neighbour.there))),
        _ => None,
    }
}

/// Of several values that cannot be deployed the nearest one tells most.
fn step_size(here: &Value, there: &Value) -> f64 {
    match (here.as_f64(), there.as_f64()) {
        (Some(here), Some(there)) => (there - here).abs(),
        _ => 0.0,
    }
}

fn because(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Breaks { bound, value } => format!(
            "{} would be {} (limit {})",
            bound.column,
            format::figure(&bound.column, *value),
            format::limit(&bound.column, bound.limit)
        ),
        Outcome::Incomplete { fraction } => {
            format!(
                "{} of the requests would not complete",
                format::percent(*fraction)
            )
        }
        Outcome::Unavailable { reason, .. } => reason.clone(),
        Outcome::Meets => "it meets the targets".into(),
    }
}
