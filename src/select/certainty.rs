//! How sure it is that targets are met, from figures and their intervals.
//!
//! A figure with a 95 % interval is taken to lie with 2.5 % each below and above it, and
//! to be spread normally on either side. So a target is met for certain if the whole
//! interval keeps it.

use super::load::Load;
use crate::measurement::Side;
use crate::results::SloVerdict;
use crate::spec::Bound;
use crate::spec::columns::{interval_ends, metric_of};
use crate::statistics::batch_means::half_width_of_replications;
use crate::statistics::{CERTAIN, Interval};

/// A figure of one or several runs: sums over them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figure {
    runs: u32,
    sum: f64,
    squares: f64,
    /// Squares of the distances from the figure to the ends of its interval.
    below_squares: f64,
    above_squares: f64,
}

impl Figure {
    /// A bounded figure of one run, whose columns of numbers `number` knows. A latency without a sample exceeds nothing; no other
    /// figure that is not there keeps a bound. What has no interval is taken as it is, but
    /// for the largest of latencies: a longer run has a larger one.
    pub(super) fn of(bound: &Bound, number: impl Fn(&str) -> Option<f64>) -> Self {
        let is_latency = metric_of(&bound.column).is_some();
        let value = match (number(&bound.column), bound.side) {
            (None, Side::AtMost) if is_latency => 0.0,
            (value, _) => value.unwrap_or(f64::NAN),
        };
        let ends = interval_ends(&bound.column);
        let ends = ends.map(|ends| ends.map(|end| number(&end).unwrap_or(f64::NAN)));
        let [low, high] = match (number(&bound.column), ends) {
            (Some(_), Some(ends)) => ends,
            (Some(_), None) if is_latency => [f64::NAN; 2],
            _ => [value; 2],
        };
        Self {
            runs: 1,
            sum: value,
            squares: value * value,
            below_squares: (value - low).powi(2),
            above_squares: (high - value).powi(2),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.sum += other.sum;
        self.squares += other.squares;
        self.below_squares += other.below_squares;
        self.above_squares += other.above_squares;
    }

    /// The mean over the runs.
    pub(super) fn value(&self) -> f64 {
        self.sum / f64::from(self.runs)
    }

    /// Ends of the interval of the mean; NaN where nothing is known.
    pub(super) fn interval(&self, load: Load) -> [f64; 2] {
        let (value, runs) = (self.value(), f64::from(self.runs));
        if load != Load::Unjudged {
            let ends = [-self.below_squares.sqrt(), self.above_squares.sqrt()];
            return ends.map(|distance| value + distance / runs);
        }
        match self.runs {
            1 => [value; 2],
            _ => {
                // As many values with this mean and variance.
                let variance = (self.squares / runs - value * value).max(0.0) * runs / (runs - 1.0);
                let half = half_width_of_replications(variance, runs);
                [value - half, value + half]
            }
        }
    }

    /// The probability that the true figure keeps `bound`.
    pub(super) fn keeps(&self, bound: &Bound, load: Load) -> f64 {
        let (value, [low, high]) = (self.value(), self.interval(load));
        match value.is_nan() {
            true => 0.0,
            false => (bound.side).probability(Interval { value, low, high }, bound.limit),
        }
    }
}

/// The probability that all bounds are kept, whose figures keep them with these.
pub(super) fn probability(kept: impl Iterator<Item = f64>, load: Load, all_served: bool) -> f64 {
    match all_served && load != Load::Saturated {
        true => kept.product(),
        false => 0.0,
    }
}

/// What such a probability comes to.
pub(super) fn verdict(probability: f64, load: Load) -> SloVerdict {
    if probability >= CERTAIN && load != Load::TooShort {
        SloVerdict::Meets
    } else if probability <= 1.0 - CERTAIN {
        SloVerdict::Misses
    } else {
        SloVerdict::Unsure
    }
}
