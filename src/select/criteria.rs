//! Targets and objectives, checked against the columns there are.

use crate::results::schema::{ColumnType, METRIC_COLUMNS};
use crate::results::{AxisColumn, RunStatus, SummaryRow};
use crate::simulator::RequestTargets;
use crate::spec::{Objectives, Slo};

/// Metrics a target may be set on.
const METRICS: [&str; 4] = ["ttft", "tbt", "e2e", "scheduling_delay"];

/// An upper bound on a summary column.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The column.
    pub column: String,
    /// Largest value allowed, seconds.
    pub limit: f64,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More.
    Maximize,
    /// Less.
    Minimize,
}

/// A summary column to make large or small.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The column.
    pub column: String,
    /// Which way is better.
    pub direction: Direction,
}

impl Objective {
    /// The value such that less is better.
    pub fn oriented(&self, value: f64) -> f64 {
        match self.direction {
            Direction::Maximize => -value,
            Direction::Minimize => value,
        }
    }
}

/// Targets and objectives of a selection.
#[derive(Debug, Clone, PartialEq)]
pub struct Criteria {
    /// Targets, by column name.
    pub bounds: Vec<Bound>,
    /// Objectives in order of weight: those to maximise, then those to minimise.
    pub objectives: Vec<Objective>,
}

/// A target or objective that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CriteriaError {
    /// Not a column for this purpose.
    #[error("{purpose} `{column}`: no such column{hint}; {allowed}")]
    UnknownColumn {
        /// `slo` or `objective`.
        purpose: &'static str,
        /// The name given.
        column: String,
        /// The nearest name, as part of a sentence.
        hint: String,
        /// What would do.
        allowed: String,
    },
    /// A bound that is not a positive number.
    #[error("slo `{column}`: {limit} is not a positive number of seconds")]
    Limit {
        /// The column.
        column: String,
        /// The value given.
        limit: f64,
    },
    /// A column both to maximise and to minimise, or given twice.
    #[error("objective `{0}` is given twice")]
    Repeated(String),
}

impl Criteria {
    /// Checks targets and objectives; numeric axes may be objectives too.
    pub fn new(
        slo: &Slo,
        objectives: &Objectives,
        axes: &[AxisColumn],
    ) -> Result<Self, CriteriaError> {
        let mut bounds = Vec::with_capacity(slo.0.len());
        for (column, &limit) in &slo.0 {
            check_bound(column, limit)?;
            bounds.push(Bound {
                column: column.clone(),
                limit,
            });
        }
        let maximize = objectives.maximize.iter();
        let minimize = objectives.minimize.iter();
        let given = maximize
            .map(|column| (column, Direction::Maximize))
            .chain(minimize.map(|column| (column, Direction::Minimize)));
        let mut checked: Vec<Objective> = Vec::new();
        for (column, direction) in given {
            check_objective(column, axes)?;
            if checked.iter().any(|other| &other.column == column) {
                return Err(CriteriaError::Repeated(column.clone()));
            }
            checked.push(Objective {
                column: column.clone(),
                direction,
            });
        }
        Ok(Self {
            bounds,
            objectives: checked,
        })
    }

    /// Columns needed to evaluate them.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let bounds = self.bounds.iter().map(|bound| bound.column.as_str());
        let objectives = self.objectives.iter().map(|o| o.column.as_str());
        ["run_index", "status", "num_requests", "completed"]
            .into_iter()
            .chain(bounds)
            .chain(objectives)
    }

    /// Whether a run was simulated, completed every request and holds every
    /// bound. A metric without a sample (no interval between tokens in a
    /// workload of single-token outputs) exceeds nothing.
    pub fn slo_met(&self, row: SummaryRow<'_>) -> bool {
        row.status() == Some(RunStatus::Ok)
            && row.integer("completed") == row.integer("num_requests")
            && self
                .bounds
                .iter()
                .all(|bound| row.number(&bound.column).unwrap_or(0.0) <= bound.limit)
    }
}

/// Per-request targets for the simulator to count by: every bound on a metric
/// holds for the request's own value, so the tightest one counts.
pub fn request_targets(slo: &Slo) -> RequestTargets {
    let tightest = |metric: &str| {
        let ours = slo
            .0
            .iter()
            .filter(|(column, _)| metric_of(column) == Some(metric));
        ours.map(|(_, &limit)| limit).reduce(f64::min)
    };
    RequestTargets {
        ttft_s: tightest("ttft"),
        tbt_s: tightest("tbt"),
        e2e_s: tightest("e2e"),
        scheduling_delay_s: tightest("scheduling_delay"),
    }
}

/// `ttft` of `ttft_p90_s`; none if it is not a column of a latency metric.
fn metric_of(column: &str) -> Option<&'static str> {
    let metric = METRICS.into_iter().find(|metric| {
        let rest = column.strip_prefix(metric);
        rest.is_some_and(|rest| rest.starts_with('_'))
    })?;
    METRIC_COLUMNS
        .iter()
        .any(|c| c.name == column)
        .then_some(metric)
}

fn check_bound(column: &str, limit: f64) -> Result<(), CriteriaError> {
    if metric_of(column).is_none() {
        let names: Vec<&str> = METRIC_COLUMNS
            .iter()
            .map(|c| c.name)
            .filter(|name| metric_of(name).is_some())
            .collect();
        return Err(CriteriaError::UnknownColumn {
            purpose: "slo",
            column: column.to_string(),
            hint: nearest(column, &names),
            allowed: "targets are <ttft|tbt|e2e|scheduling_delay>_<mean|p50|p90|p95|p99|max>_s"
                .to_string(),
        });
    }
    if !(limit.is_finite() && limit > 0.0) {
        return Err(CriteriaError::Limit {
            column: column.to_string(),
            limit,
        });
    }
    Ok(())
}

fn check_objective(column: &str, axes: &[AxisColumn]) -> Result<(), CriteriaError> {
    let numeric = |t: ColumnType| matches!(t, ColumnType::Int | ColumnType::Float);
    let metrics = METRIC_COLUMNS
        .iter()
        .filter(|c| numeric(c.column_type()))
        .map(|c| c.name);
    let axes = axes
        .iter()
        .filter(|axis| numeric(axis.column_type))
        .map(|axis| axis.name.as_str());
    let names: Vec<&str> = metrics.chain(axes).collect();
    if names.contains(&column) {
        return Ok(());
    }
    Err(CriteriaError::UnknownColumn {
        purpose: "objective",
        column: column.to_string(),
        hint: nearest(column, &names),
        allowed: "any numeric column of summary.parquet will do (docs/results.md)".to_string(),
    })
}

fn nearest(given: &str, names: &[&str]) -> String {
    let similarity = |name: &&&str| strsim::jaro_winkler(given, name);
    let best = names
        .iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match best {
        Some(name) if similarity(&name) > 0.8 => format!(" (did you mean `{name}`?)"),
        _ => String::new(),
    }
}
