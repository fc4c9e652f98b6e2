//! Which of two configurations is better, and when that cannot be told.
//!
//! All configurations of a sweep serve the same requests (common random numbers), so their
//! differences are known better than their figures: two that keep up with the same load
//! serve the same tokens, whatever that load happened to be in the window of each. Rates,
//! and costs per token, are therefore compared by the share of what was offered that was
//! served, times the load; other figures by themselves. With replications, differences
//! are taken seed by seed.

use super::criteria::{Direction, Objective};
use crate::results::SummaryRow;
use crate::spec::columns::interval_ends;
use crate::statistics::{Interval, batch_means};

/// Columns that a comparison looks at besides the objective.
const COLUMNS: [&str; 9] = [
    "qps",
    "offered_requests_per_s",
    "slo_attainment_low",
    "slo_attainment_high",
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

/// From so many replications on their differences say more than their own intervals do:
/// Student's quantile of fewer is large (of two 12.7, of three 4.3, of four 3.2).
const FEWEST_PAIRS: usize = 4;

/// Where configurations stand by one objective.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// By replication; less is better.
    values: Vec<f64>,
    /// Squares of half-widths of its interval, as shares of it: sum over replications.
    width_squares: f64,
    /// Price of its GPUs, US dollars per hour.
    cost_usd_per_hour: f64,
}

impl Standing {
    pub(super) fn of(objective: &Objective, row: SummaryRow<'_>, is_one_workload: bool) -> Self {
        let paired = paired(&objective.column, row).filter(|_| is_one_workload);
        let (value, width) = paired.unwrap_or_else(|| alone(&objective.column, row));
        Self {
            values: vec![match objective.direction {
                Direction::Maximize => -value,
                Direction::Minimize => value,
            }],
            width_squares: width * width,
            cost_usd_per_hour: row.number("cost_usd_per_hour").unwrap_or(f64::INFINITY),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.values.extend(other.values);
        self.width_squares += other.width_squares;
        self.cost_usd_per_hour += other.cost_usd_per_hour;
    }

    fn runs(&self) -> f64 {
        self.values.len() as f64
    }

    pub(super) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.runs()
    }

    pub(super) fn cost_usd_per_hour(&self) -> f64 {
        self.cost_usd_per_hour / self.runs()
    }

    /// Whether the difference is within the interval of it.
    pub(super) fn is_tied_with(&self, other: &Self) -> bool {
        let (one, two) = (self.mean(), other.mean());
        one == two || (one - two).abs() <= self.widest_tie(other)
    }

    /// The half-width of the interval of the difference.
    fn widest_tie(&self, other: &Self) -> f64 {
        let pairs = self.values.len();
        if pairs == other.values.len() && pairs >= FEWEST_PAIRS {
            let pairs = self.values.iter().zip(&other.values);
            let differences: Vec<f64> = pairs.map(|(one, two)| one - two).collect();
            let of_mean = batch_means::of_replications(&differences).interval;
            return of_mean.high - of_mean.value;
        }
        let width = |standing: &Self| standing.width_squares.sqrt() / standing.runs();
        width(self).hypot(width(other)) * self.mean().abs().max(other.mean().abs())
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

/// A rate or a cost per token by the share that was served of what was offered; goodput by
/// the share that was served well.
fn paired(column: &str, row: SummaryRow<'_>) -> Option<(f64, f64)> {
    if column.starts_with("goodput_") {
        let share = row.number(column)? / row.number("offered_requests_per_s")?;
        let (_, width) = alone("slo_attainment", row);
        let value = share * row.number("qps")?;
        return value.is_finite().then_some((value, width));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Replications whose figures are each known to a tenth.
    fn standing(values: &[f64]) -> Standing {
        Standing {
            values: values.to_vec(),
            width_squares: 0.01 * values.len() as f64,
            cost_usd_per_hour: 1.0,
        }
    }

    #[test]
    fn differences_seed_by_seed_tell_apart_what_common_noise_hides() {
        let noise = [1.0, 1.3, 0.8, 1.1, 0.9];
        let shifted = noise.map(|value| value + 0.02);
        assert!(!standing(&noise).is_tied_with(&standing(&shifted)));
        assert!(!standing(&shifted).is_tied_with(&standing(&noise)));
        // Their own intervals, of a tenth over the root of five, could not.
        let few = FEWEST_PAIRS - 1;
        assert!(standing(&noise[..few]).is_tied_with(&standing(&shifted[..few])));
        // Nor is a difference that changes its sign one.
        let mixed = [1.02, 1.28, 0.83, 1.08, 0.93];
        assert!(standing(&noise).is_tied_with(&standing(&mixed)));
    }

    #[test]
    fn numbers_of_replications_that_differ_are_compared_by_their_intervals() {
        let (five, four) = (standing(&[1.0; 5]), standing(&[1.02; 4]));
        assert!(five.is_tied_with(&four));
        assert!(!standing(&[1.0; 5]).is_tied_with(&standing(&[1.02; 5])));
        assert!(standing(&[1.0; 5]).is_tied_with(&standing(&[1.0; 5])));
    }
}
