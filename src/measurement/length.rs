//! How long a run may become, and what it should come to know.

use serde::Serialize;

use super::Figure;
use crate::number::whole_u32;
use crate::statistics::Interval;

/// Requests simulated to warm up before the first window is cut, as a share of those to be
/// measured.
const EXPECTED_WARM_UP: f64 = 0.125;

/// How many requests are measured, and what for.
#[derive(Debug, Clone, PartialEq)]
pub struct Length {
    /// At first.
    pub requests: u32,
    /// At most.
    pub max_requests: u32,
    /// Figures and the half-widths of their intervals, as shares, to be reached.
    pub precision: Vec<(Figure, f64)>,
}

impl Length {
    /// Requests simulated before the first window is cut.
    pub fn simulated_at_first(&self) -> u32 {
        let warm_up = f64::from(self.requests) * EXPECTED_WARM_UP;
        self.requests.saturating_add(whole_u32(warm_up.ceil()))
    }
}

/// Which side of a limit is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The limit and what is below.
    AtMost,
    /// The limit and what is above.
    AtLeast,
}

impl Side {
    /// Whether `value` is on it. What is not known is on neither.
    pub fn has(self, value: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => value <= limit,
            Self::AtLeast => value >= limit,
        }
    }

    /// The probability that a figure is on it.
    pub fn probability(self, figure: Interval, limit: f64) -> f64 {
        match self {
            Self::AtMost => figure.probability_at_most(limit),
            Self::AtLeast => figure.probability_at_least(limit),
        }
    }

    /// How much of a limit a value takes up, or falls short of: 1 at the limit, more
    /// beyond it; infinite of what is not known.
    pub fn strain(self, value: f64, limit: f64) -> f64 {
        let strain = match self {
            Self::AtMost => value / limit,
            Self::AtLeast => limit / value,
        };
        match strain.is_nan() {
            // Nothing of a limit of nothing.
            true if self.has(value, limit) => 1.0,
            true => f64::INFINITY,
            false => strain,
        }
    }

    /// `<=`, as in a constraint.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::AtMost => Self::AtLeast,
            Self::AtLeast => Self::AtMost,
        }
    }
}

/// A limit that a figure is to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The figure.
    pub figure: Figure,
    /// Which side of it is allowed.
    pub side: Side,
    /// The limit.
    pub value: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strain_is_one_at_the_limit_and_more_beyond() {
        use Side::{AtLeast, AtMost};
        for (side, value, limit, strain) in [
            (AtMost, 1.0, 2.0, 0.5),
            (AtMost, 3.0, 2.0, 1.5),
            (AtMost, 0.0, 0.0, 1.0),
            (AtMost, 1.0, 0.0, f64::INFINITY),
            (AtMost, f64::NAN, 1.0, f64::INFINITY),
            (AtLeast, 4.0, 2.0, 0.5),
            (AtLeast, 1.0, 2.0, 2.0),
            (AtLeast, 0.0, 0.0, 1.0),
            (AtLeast, 0.0, 1.0, f64::INFINITY),
            (AtLeast, f64::NAN, 1.0, f64::INFINITY),
        ] {
            assert_eq!(
                side.strain(value, limit),
                strain,
                "{side:?} {value} {limit}"
            );
            assert_eq!(side.has(value, limit), strain <= 1.0);
        }
    }
}
