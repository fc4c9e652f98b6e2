//! One step away from a deployment: what another value of a single axis does.
//! This is how a table of results says which knob binds.

use std::collections::HashSet;

use serde_json::Value;

use super::selection::Selection;
use crate::results::{
    AxisColumn, REPLICATION_COLUMN, ResultError, RunStatus, SummaryReader, SummaryRow,
};
use crate::spec::Bound;

/// What became of a neighbour.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Meets the targets.
    Meets,
    /// Breaks a target.
    Breaks {
        /// The bound.
        bound: Bound,
        /// Value of its column.
        value: f64,
    },
    /// Leaves requests undone.
    Incomplete {
        /// Share of requests.
        fraction: f64,
    },
    /// Cannot be deployed, or did not end well.
    Unavailable {
        /// Which of both.
        status: RunStatus,
        /// Why.
        reason: String,
    },
}

/// A run that differs from the deployment in one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// Index of the run.
    pub run_index: u64,
    /// The axis.
    pub axis: String,
    /// Its value at the deployment.
    pub here: Value,
    /// Its value at the neighbour.
    pub there: Value,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether its first objective is better than the deployment's; none if
    /// either has no value.
    pub better: Option<bool>,
}

/// All neighbours of a configuration, in index order. Reads the summary once.
pub fn neighbours(
    reader: &SummaryReader,
    selection: &Selection,
    position: usize,
) -> Result<Vec<Neighbour>, ResultError> {
    let axes: Vec<&AxisColumn> = reader
        .axes()
        .iter()
        .filter(|axis| axis.name != REPLICATION_COLUMN)
        .collect();
    let index = selection.configurations()[position].run_index;
    let mut columns: Vec<&str> = vec!["run_index", "status", "reason"];
    columns.extend(axes.iter().map(|axis| axis.name.as_str()));
    let Some(here) = axis_values(reader, &axes, &columns, index)? else {
        return Ok(Vec::new());
    };
    let mut found: Vec<Neighbour> = Vec::new();
    let mut seen: HashSet<(usize, String)> = HashSet::new();
    reader.for_each(Some(&columns), |batch| {
        for row in batch.rows() {
            let Some((axis, there)) = single_difference(&axes, &here, row) else {
                continue;
            };
            if seen.insert((axis, there.to_string())) {
                found.push(Neighbour {
                    run_index: row.run_index(),
                    axis: axes[axis].name.clone(),
                    here: here[axis].clone(),
                    outcome: outcome(selection, row),
                    better: better(selection, position, row),
                    there,
                });
            }
        }
    })?;
    Ok(found)
}

fn axis_values(
    reader: &SummaryReader,
    axes: &[&AxisColumn],
    columns: &[&str],
    run_index: u64,
) -> Result<Option<Vec<Value>>, ResultError> {
    let mut found = None;
    reader.for_each(Some(columns), |batch| {
        if let Some(row) = batch.rows().find(|row| row.run_index() == run_index) {
            found = Some(axes.iter().map(|axis| row.value(&axis.name)).collect());
        }
    })?;
    Ok(found)
}

/// The one axis in which the row differs and its value there; none if it is
/// none or more than one.
fn single_difference(
    axes: &[&AxisColumn],
    here: &[Value],
    row: SummaryRow<'_>,
) -> Option<(usize, Value)> {
    let mut difference = None;
    for (position, (axis, value)) in axes.iter().zip(here).enumerate() {
        let there = row.value(&axis.name);
        if there != *value {
            if difference.is_some() {
                return None;
            }
            difference = Some((position, there));
        }
    }
    difference
}

fn outcome(selection: &Selection, row: SummaryRow<'_>) -> Outcome {
    let status = row.status().unwrap_or(RunStatus::Failed);
    let position = selection.position_of_run(row.run_index());
    let (RunStatus::Ok, Some(position)) = (status, position) else {
        return Outcome::Unavailable {
            status,
            reason: row.text("reason").unwrap_or("no reason given").to_string(),
        };
    };
    let configuration = &selection.configurations()[position];
    if configuration.meets_targets() {
        return Outcome::Meets;
    }
    let bounds = &selection.criteria().bounds;
    match selection.tightest_bound(position) {
        Some((bound, strain)) if strain > 1.0 => Outcome::Breaks {
            bound: bounds[bound].clone(),
            value: selection.bound_value(position, bound),
        },
        _ => Outcome::Incomplete {
            fraction: configuration.incomplete_fraction(),
        },
    }
}

fn better(selection: &Selection, position: usize, row: SummaryRow<'_>) -> Option<bool> {
    let objective = selection.criteria().objectives.first()?;
    let there = selection.position_of_run(row.run_index())?;
    let here = objective.oriented(selection.objective_values(position)[0]);
    let there = objective.oriented(selection.objective_values(there)[0]);
    (!here.is_nan() && !there.is_nan()).then_some(there < here)
}
