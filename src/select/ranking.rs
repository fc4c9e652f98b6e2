//! Which of two configurations is better, and when that cannot be told.
//!
//! All configurations of a sweep serve the same requests (common random numbers), so their
//! differences are known better than their figures: two that keep up with the same load
//! serve the same tokens, whatever that load happened to be in the window of each. Rates,
//! and costs per token, are therefore compared by the share of what was offered that was
//! served, times the load; other figures by themselves.

use super::criteria::{Direction, Objective};
use crate::results::SummaryRow;
use crate::spec::columns::interval_ends;
use crate::statistics::Interval;

/// Columns that a comparison looks at besides the objective.
const COLUMNS: [&str; 6] = [
    "qps",
    "total_gpus",
    "cost_usd_per_hour",
    "served_tokens_share",
    "served_tokens_share_low",
    "served_tokens_share_high",
];

/// Columns needed to compare by `objective`.
pub fn columns(objective: &Objective) -> impl Iterator<Item = String> {
    let ends = interval_ends(&objective.column).into_iter().flatten();
    COLUMNS.into_iter().map(str::to_owned).chain(ends)
}

/// Where configurations stand by one objective: sums over their replications.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    runs: f64,
    /// Less is better.
    value: f64,
    /// Squares of half-widths of its interval, as shares of it.
    width_squares: f64,
    /// Price of its GPUs, US dollars per hour.
    cost_usd_per_hour: f64,
}

impl Standing {
    pub(super) fn of(objective: &Objective, row: SummaryRow<'_>, is_one_workload: bool) -> Self {
        let paired = paired(&objective.column, row).filter(|_| is_one_workload);
        let (value, width) = paired.unwrap_or_else(|| alone(&objective.column, row));
        Self {
            runs: 1.0,
            value: match objective.direction {
                Direction::Maximize => -value,
                Direction::Minimize => value,
            },
            width_squares: width * width,
            cost_usd_per_hour: row.number("cost_usd_per_hour").unwrap_or(f64::INFINITY),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.value += other.value;
        self.width_squares += other.width_squares;
        self.cost_usd_per_hour += other.cost_usd_per_hour;
    }

    pub(super) fn mean(&self) -> f64 {
        self.value / self.runs
    }

    pub(super) fn cost_usd_per_hour(&self) -> f64 {
        self.cost_usd_per_hour / self.runs
    }

    /// Whether the difference is within the interval of it.
    pub(super) fn is_tied_with(&self, other: &Self) -> bool {
        let (one, two) = (self.mean(), other.mean());
        let width = |standing: &Self| standing.width_squares.sqrt() / standing.runs;
        let widest = width(self).hypot(width(other)) * one.abs().max(two.abs());
        one == two || (one - two).abs() <= widest
    }
}

/// A figure as it is, and the half-width of its interval as a share of it; 0: exact.
fn alone(column: &str, row: SummaryRow<'_>) -> (f64, f64) {
    let value = row.number(column).unwrap_or(f64::NAN);
    let ends = interval_ends(column).map(|ends| ends.map(|end| row.number(&end)));
    let width = match ends {
        Some([Some(low), Some(high)]) => Interval { value, low, high }.relative_half_width(),
        _ => 0.0,
    };
    (value, width)
}

/// A rate or a cost per token by the share that was served of what was offered.
fn paired(column: &str, row: SummaryRow<'_>) -> Option<(f64, f64)> {
    let (share, width) = alone("served_tokens_share", row);
    let served = share * row.number("qps")?;
    let value = match column {
        "throughput_requests_per_s"
        | "throughput_tokens_per_s"
        | "throughput_total_tokens_per_s" => served,
        "throughput_tokens_per_s_per_gpu" => served / row.number("total_gpus")?,
        "cost_usd_per_million_tokens" => row.number("cost_usd_per_hour")? / served,
        _ => return None,
    };
    value.is_finite().then_some((value, width))
}
