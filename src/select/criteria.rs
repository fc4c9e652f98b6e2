//! Targets and objectives, checked against the columns there are.

use std::collections::BTreeMap;

use super::load::Load;
use crate::measurement::{Figure, Limit};
use crate::results::{AxisColumn, ColumnType, SummaryRow};
use crate::simulator::{RequestTargets, RunSummary};
use crate::spec::columns::{ColumnError, check_objective, interval_ends, metric_of};
use crate::spec::{ATTAINMENT_COLUMN, Bound, Objectives, Slo, TargetError};

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
    /// Limits of columns that targets amount to.
    pub bounds: Vec<Bound>,
    /// Objectives in order of weight: those to maximise, then those to minimise.
    pub objectives: Vec<Objective>,
}

/// A target or objective that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CriteriaError {
    /// Not a column for this purpose.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// A limit that makes no sense.
    #[error("target `{column}`: {problem}")]
    Target {
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: TargetError,
    },
    /// A column both to maximise and to minimise, or given twice.
    #[error("objective `{0}` appears twice")]
    Repeated(String),
}

impl CriteriaError {
    /// Whether it is an objective that cannot be evaluated.
    pub fn is_of_objectives(&self) -> bool {
        matches!(
            self,
            Self::Repeated(_) | Self::Column(ColumnError::Objective { .. })
        )
    }
}

impl Criteria {
    /// Checks targets and objectives; numeric axes may be objectives too.
    pub fn new(
        slo: &Slo,
        objectives: &Objectives,
        axes: &[AxisColumn],
    ) -> Result<Self, CriteriaError> {
        let maximize = objectives.maximize.iter();
        let minimize = objectives.minimize.iter();
        let given = maximize
            .map(|column| (column, Direction::Maximize))
            .chain(minimize.map(|column| (column, Direction::Minimize)));
        let numbers = number_columns(axes);
        let bounds = slo
            .bounds(&numbers)
            .map_err(|(column, error)| match error {
                TargetError::Column(error) => CriteriaError::Column(error),
                problem => CriteriaError::Target { column, problem },
            })?;
        let mut checked: Vec<Objective> = Vec::new();
        for (column, direction) in given {
            check_objective(column, &numbers)?;
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

    /// The objectives as a specification has them.
    pub fn objectives(&self) -> Objectives {
        let towards = |direction: Direction| {
            let objectives = self.objectives.iter();
            let ours = objectives.filter(|objective| objective.direction == direction);
            ours.map(|objective| objective.column.clone()).collect()
        };
        Objectives {
            maximize: towards(Direction::Maximize),
            minimize: towards(Direction::Minimize),
        }
    }

    /// Columns needed to evaluate them.
    pub fn columns(&self) -> impl Iterator<Item = String> {
        let bounds = self.bounds.iter().flat_map(|bound| {
            let ends = interval_ends(&bound.column).into_iter().flatten();
            std::iter::once(bound.column.clone()).chain(ends)
        });
        let objectives = self.objectives.iter().map(|o| o.column.clone());
        let always = ["run_index", "status", Load::COLUMN, ATTAINMENT_COLUMN]
            .into_iter()
            .chain(Requests::COLUMNS);
        always.map(str::to_owned).chain(bounds).chain(objectives)
    }
}

/// Names of the axes whose values are numbers.
pub fn number_columns(axes: &[AxisColumn]) -> Vec<&str> {
    let is_number =
        |axis: &&AxisColumn| matches!(axis.column_type, ColumnType::Int | ColumnType::Float);
    let numbers = axes.iter().filter(is_number);
    numbers.map(|axis| axis.name.as_str()).collect()
}

/// Requests of one run, or of some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Whose outcome is decided: completed, rejected, or past a target when the time
    /// limit came. Those that had not entered by then, and those that might still have
    /// kept every target, are neither served nor failed.
    pub decided: u64,
    /// Completed.
    pub completed: u64,
}

impl Requests {
    /// Columns it is made of.
    const COLUMNS: [&str; 4] = ["num_requests", "not_arrived", "undecided", "completed"];

    /// Those of a run; none of one that was not simulated.
    pub fn of(row: SummaryRow<'_>) -> Self {
        let [all, not_arrived, undecided, completed] =
            Self::COLUMNS.map(|column| row.integer(column).unwrap_or(0).unsigned_abs());
        Self {
            decided: all.saturating_sub(not_arrived).saturating_sub(undecided),
            completed,
        }
    }

    /// The same of a run that is in no table yet.
    pub fn of_summary(summary: &RunSummary) -> Self {
        Self {
            decided: summary.decided().into(),
            completed: summary.completed.into(),
        }
    }

    /// These and those of `other`.
    pub fn plus(self, other: Self) -> Self {
        Self {
            decided: self.decided + other.decided,
            completed: self.completed + other.completed,
        }
    }

    /// Whether all that are decided completed. Where none is, nothing is known.
    pub fn all_served(self) -> bool {
        self.decided > 0 && self.completed == self.decided
    }

    /// Share of the decided ones that did not complete; all, where none is decided.
    pub fn failed_fraction(self) -> f64 {
        match self.decided {
            0 => 1.0,
            decided => 1.0 - self.completed as f64 / decided as f64,
        }
    }
}

/// Limits of figures that have an interval and the unit of their column, by which runs
/// decide how long they become.
pub fn limits(slo: &Slo) -> Vec<Limit> {
    let has_own_unit =
        |bound: &Bound| !bound.column.ends_with("_per_gpu") && !bound.column.starts_with("cost_");
    // Which columns there are, and what makes sense for them, has been looked at.
    let columns: Vec<&str> = slo.columns.keys().map(String::as_str).collect();
    let bounds = slo.bounds(&columns).unwrap_or_default().into_iter();
    let limit = |bound: Bound| {
        Some(Limit {
            figure: Figure::of_column(&bound.column)?,
            side: bound.side,
            value: bound.limit,
        })
    };
    bounds.filter(has_own_unit).filter_map(limit).collect()
}

/// Share of requests that keep their own targets if all limits of columns hold: as many as
/// `per_request` asks for, or as the percentiles of latencies leave.
pub fn promised_attainment(slo: &Slo) -> Option<f64> {
    if let Some(requests) = slo.per_request {
        return Some(requests.attainment);
    }
    // Of each metric the tightest limit counts; what a percentile leaves out may differ from
    // metric to metric. A mean promises nothing of any share.
    let mut missed: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (column, limit) in slo.latency_limits() {
        let statistic = column.trim_end_matches("_s").rsplit('_').next()?;
        let share = match statistic {
            "max" => 1.0,
            percentile => percentile.strip_prefix('p')?.parse::<f64>().ok()? / 100.0,
        };
        let tightest = missed
            .entry(metric_of(column)?)
            .or_insert((limit, 1.0 - share));
        if limit < tightest.0 {
            *tightest = (limit, 1.0 - share);
        }
    }
    let left: f64 = 1.0 - missed.values().map(|(_, missed)| missed).sum::<f64>();
    (!missed.is_empty() && left > 0.0).then_some(left)
}

/// Per-request targets for the simulator to count by: those given; where there are none,
/// every upper limit of a latency holds for the request's own value, so the tightest one
/// counts. None if there are none of either.
pub fn request_targets(slo: &Slo) -> Option<RequestTargets> {
    if let Some(given) = slo.per_request {
        return Some(RequestTargets {
            ttft_s: given.ttft_s,
            tbt_s: given.tbt_s,
            stall_s: given.stall_s,
            e2e_s: given.e2e_s,
            scheduling_delay_s: None,
        });
    }
    let tightest = |metric: &str| {
        let ours = slo.latency_limits();
        let ours = ours.filter(|(column, _)| metric_of(column) == Some(metric));
        ours.map(|(_, limit)| limit).reduce(f64::min)
    };
    slo.judges_requests().then(|| RequestTargets {
        ttft_s: tightest("ttft"),
        tbt_s: tightest("tbt"),
        stall_s: tightest("request_tbt_max"),
        e2e_s: tightest("e2e"),
        scheduling_delay_s: tightest("scheduling_delay"),
    })
}
