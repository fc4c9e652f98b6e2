//! A figure and how far it may be off.

use super::confidence::TAIL;
use super::distributions::{normal_below, normal_quantile};

/// A figure with its interval. A bound that the run says nothing about is NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The figure itself.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Interval {
    /// A figure of which only the value is known.
    pub const fn unbounded(value: f64) -> Self {
        Self {
            value,
            low: f64::NAN,
            high: f64::NAN,
        }
    }

    /// A figure that is known exactly.
    pub const fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }

    /// The larger of the distances to the two ends, as a share of the figure; infinite
    /// if an end is unknown, 0 for a figure of 0 that is known exactly.
    pub fn relative_half_width(&self) -> f64 {
        let half = (self.high - self.value).max(self.value - self.low);
        if self.low.is_nan() || self.high.is_nan() || half.is_nan() {
            f64::INFINITY
        } else if half == 0.0 {
            0.0
        } else {
            half / self.value.abs()
        }
    }

    /// The probability that the true value is `limit` or less: 97.5 % at the upper end,
    /// 2.5 % at the lower, and in between and beyond as if the logarithm were spread
    /// normally on either side of the figure, as what is positive and skewed nearly is.
    /// One half where the end on that side is unknown.
    pub fn probability_at_most(&self, limit: f64) -> f64 {
        let [value, low, high, limit] = self.spread_evenly(limit);
        within(limit - value, [value - low, high - value])
    }

    /// The probability that the true value is `limit` or more, likewise.
    pub fn probability_at_least(&self, limit: f64) -> f64 {
        let [value, low, high, limit] = self.spread_evenly(limit);
        within(value - limit, [high - value, value - low])
    }

    /// The figure, its ends and a limit on a scale on which the figure is spread normally.
    fn spread_evenly(&self, limit: f64) -> [f64; 4] {
        let ends = [self.value, self.low, self.high, limit];
        let is_positive = ends.iter().all(|end| end.is_nan() || *end > 0.0);
        ends.map(|end| if is_positive { end.ln() } else { end })
    }

    /// Whether both ends are known.
    pub fn is_bounded(&self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }
}

/// The probability of being within a limit that is `distance` away, the figure being
/// spread so far towards what is beyond it, and so far away from it.
fn within(distance: f64, [towards, away]: [f64; 2]) -> f64 {
    let half = if distance >= 0.0 { away } else { towards };
    if half.is_nan() {
        0.5
    } else if half > 0.0 {
        normal_below(distance / half * normal_quantile(1.0 - TAIL))
    } else {
        f64::from(u8::from(distance >= 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_what_they_say() {
        let interval = Interval {
            value: 10.0,
            low: 5.0,
            high: 40.0,
        };
        let near = |limit, probability: f64| {
            let found = interval.probability_at_most(limit);
            assert!((found - probability).abs() < 1e-9, "{limit}: {found}");
        };
        near(5.0, 0.025);
        near(10.0, 0.5);
        near(40.0, 0.975);
        assert!(interval.probability_at_most(1.0) < 1e-10);
        let open = Interval {
            high: f64::NAN,
            ..interval
        };
        assert_eq!(open.probability_at_most(1e9), 0.5);
        let exact = Interval::exact(3.0);
        assert_eq!(
            [2.9, 3.0].map(|limit| exact.probability_at_most(limit)),
            [0.0, 1.0]
        );
    }

    #[test]
    fn at_least_is_at_most_seen_from_the_other_side() {
        let interval = Interval {
            value: 10.0,
            low: 5.0,
            high: 40.0,
        };
        for limit in [4.0, 5.0, 9.0, 10.0, 11.0, 40.0, 50.0] {
            let (most, least) = (
                interval.probability_at_most(limit),
                interval.probability_at_least(limit),
            );
            assert!(
                (most + least - 1.0).abs() < 1e-12,
                "{limit}: {most} {least}"
            );
        }
        let exact = Interval::exact(3.0);
        assert_eq!(
            [2.9, 3.0, 3.1].map(|limit| exact.probability_at_least(limit)),
            [1.0, 1.0, 0.0]
        );
        // All of a series keeps a target: it may be all, and is at least nearly all.
        let all = Interval {
            value: 1.0,
            low: 0.99,
            high: 1.0,
        };
        assert_eq!(all.probability_at_least(1.0), 0.5);
        assert!(all.probability_at_least(0.98) > 0.999);
        let unknown = Interval::unbounded(1.0);
        assert_eq!(unknown.probability_at_least(0.1), 0.5);
    }

    #[test]
    fn half_width_is_the_larger_side() {
        let interval = Interval {
            value: 10.0,
            low: 9.0,
            high: 12.0,
        };
        assert_eq!(interval.relative_half_width(), 0.2);
        assert_eq!(Interval::exact(0.0).relative_half_width(), 0.0);
        assert_eq!(Interval::exact(3.0).relative_half_width(), 0.0);
        assert_eq!(
            Interval::unbounded(1.0).relative_half_width(),
            f64::INFINITY
        );
        let open = Interval {
            high: f64::NAN,
            ..interval
        };
        assert_eq!(open.relative_half_width(), f64::INFINITY);
        assert!(!open.is_bounded());
    }
}
