//! Means, rates and their intervals, from one correlated, skewed, stationary series.
//!
//! Nonoverlapping batch means: the run is cut into at most 64 batches, which are made
//! larger until they pass von Neumann's test of randomness. The interval is Student's,
//! with the variance corrected for what correlation is left between neighbours, and its
//! two ends moved for the skewness of batches by Willink's transformation. These are the
//! parts of N-Skart (Tafazzoli, Steiger and Wilson 2011, "N-Skart: a nonsequential
//! skewness- and autoregression-adjusted batch-means procedure for simulation analysis",
//! IEEE Transactions on Automatic Control 56(2)); the number of batches and the test of
//! length differ, because a run here is extended until it is long enough
//! ([`super::length`]). The transformation is from Willink 2005, "A confidence interval
//! and test for the mean of an asymmetric distribution", Communications in
//! Statistics 34(4).

use super::cells::{Cells, MAX_CELLS, MIN_BATCHES, Spread};
use super::distributions::{student_below, student_end};
use super::interval::Interval;

/// A mean or a ratio of sums, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The figure with its 95 % interval; ends are NaN if there were too few values.
    pub interval: Interval,
    /// Its standard error.
    pub standard_error: f64,
    /// The degrees of freedom of the standard error.
    pub degrees_of_freedom: f64,
    /// Whether the batches passed the test of randomness. If not, the error is likely
    /// larger than it says.
    pub independent: bool,
    /// A sixth of the skewness of batches over the square root of their number.
    shift: f64,
}

impl Mean {
    /// The probability that the true value is `limit` or less. Agrees with the
    /// interval: 97.5 % at its upper end, 2.5 % at its lower.
    pub fn probability_at_most(&self, limit: f64) -> f64 {
        let distance = self.interval.value - limit;
        if self.standard_error == 0.0 {
            return if distance <= 0.0 { 1.0 } else { 0.0 };
        }
        let score = inverse_willink(distance / self.standard_error, self.shift);
        student_below(-score, self.degrees_of_freedom)
    }

    /// The probability that the true value is `limit` or more.
    pub fn probability_at_least(&self, limit: f64) -> f64 {
        let distance = self.interval.value - limit;
        if self.standard_error == 0.0 {
            return if distance >= 0.0 { 1.0 } else { 0.0 };
        }
        1.0 - self.probability_at_most(limit)
    }

    fn of(spread: Spread) -> Self {
        let freedom = spread.batches as f64 - 1.0;
        let shift = spread.skewness / (6.0 * (spread.batches as f64).sqrt());
        let score = if spread.standard_error.is_nan() {
            f64::NAN
        } else {
            student_end(freedom)
        };
        let end = |score| spread.ratio - willink(score, shift) * spread.standard_error;
        Self {
            interval: Interval {
                value: spread.ratio,
                low: end(score),
                high: end(-score),
            },
            standard_error: spread.standard_error,
            degrees_of_freedom: freedom,
            independent: spread.independent,
            shift,
        }
    }
}

/// The mean of `series`, given in the order in which it came about.
pub fn mean(series: &[f64]) -> Mean {
    Mean::of(Cells::gather(series.len(), |index| series[index], |_| 1.0).spread())
}

/// The sum of `numerators` over the sum of `denominators`, one of each per consecutive
/// segment of the run: events over seconds, tokens over steps. At least 16 segments.
///
/// # Panics
///
/// If there are not as many numerators as denominators.
pub fn ratio(numerators: &[f64], denominators: &[f64]) -> Mean {
    assert_eq!(numerators.len(), denominators.len(), "one of each");
    Mean::of(
        Cells::gather(
            numerators.len(),
            |index| numerators[index],
            |index| denominators[index],
        )
        .spread(),
    )
}

/// The mean of independent replications' values, with Student's interval.
pub fn of_replications(values: &[f64]) -> Mean {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let freedom = count - 1.0;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / freedom;
    let standard_error = (variance / count).sqrt();
    let half = half_width_of_replications(variance, count);
    Mean {
        interval: Interval {
            value: mean,
            low: mean - half,
            high: mean + half,
        },
        standard_error,
        degrees_of_freedom: freedom,
        independent: true,
        shift: 0.0,
    }
}

/// Half the width of Student's interval of the mean of `count` values of this variance.
pub fn half_width_of_replications(variance: f64, count: f64) -> f64 {
    student_end(count - 1.0) * (variance / count).sqrt()
}

/// The most segments of which [`ratio`] keeps apart what they say; more are put together.
pub const MAX_SEGMENTS: usize = MAX_CELLS;

/// The fewest segments of which [`ratio`] has an interval.
pub const MIN_SEGMENTS: usize = MIN_BATCHES;

/// Below this shift the transformation is the identity within rounding.
const NO_SHIFT: f64 = 1e-6;

/// Willink's transformation of a score of a symmetric distribution into one of a skewed.
fn willink(score: f64, shift: f64) -> f64 {
    if shift.abs() < NO_SHIFT {
        return score;
    }
    ((1.0 + 6.0 * shift * (score - shift)).cbrt() - 1.0) / (2.0 * shift)
}

fn inverse_willink(score: f64, shift: f64) -> f64 {
    if shift.abs() < NO_SHIFT {
        return score;
    }
    shift + ((1.0 + 2.0 * shift * score).powi(3) - 1.0) / (6.0 * shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy() -> Vec<f64> {
        // A skewed sequence without pattern: squares modulo a prime, squared again.
        (0..6400u64)
            .map(|i| ((i * i * i + 7 * i) % 1009) as f64)
            .map(|v| v * v)
            .collect()
    }

    #[test]
    fn probability_agrees_with_the_interval() {
        let mean = mean(&noisy());
        let Interval { value, low, high } = mean.interval;
        assert!(low < value && value < high);
        assert!((mean.probability_at_most(high) - 0.975).abs() < 1e-6);
        assert!((mean.probability_at_most(low) - 0.025).abs() < 1e-6);
        assert!((mean.probability_at_least(high) - 0.025).abs() < 1e-6);
        assert_eq!(mean.probability_at_most(f64::INFINITY), 1.0);
        assert!(mean.probability_at_most(0.0) < 1e-6);
    }

    #[test]
    fn right_skew_moves_the_interval_up() {
        let skewed = Mean::of(Spread {
            ratio: 1.0,
            standard_error: 0.1,
            batches: 16,
            skewness: 2.0,
            independent: true,
        });
        let Interval { value, low, high } = skewed.interval;
        assert!(high - value > value - low);
    }

    #[test]
    fn ratio_of_counts_to_seconds() {
        let seconds = vec![2.0; 32];
        let events: Vec<f64> = (0..32).map(|i| f64::from(10 + (i * 7) % 5)).collect();
        let rate = ratio(&events, &seconds);
        assert!((rate.interval.value - events.iter().sum::<f64>() / 64.0).abs() < 1e-12);
        assert!(rate.interval.low < rate.interval.value && rate.interval.is_bounded());
    }

    #[test]
    fn what_does_not_vary_is_certain() {
        let mean = mean(&[3.0; 100]);
        assert_eq!(mean.interval, Interval::exact(3.0));
        assert_eq!(mean.probability_at_most(3.0), 1.0);
        assert_eq!(mean.probability_at_most(2.9), 0.0);
        assert_eq!(mean.probability_at_least(3.0), 1.0);
    }

    #[test]
    fn too_few_values_have_no_interval() {
        let mean = mean(&[1.0, 2.0, 3.0]);
        assert_eq!(mean.interval.value, 2.0);
        assert!(mean.interval.low.is_nan() && mean.interval.high.is_nan());
        assert!(mean.probability_at_most(5.0).is_nan());
        assert!(of_replications(&[1.0]).interval.low.is_nan());
        assert!(super::mean(&[]).interval.value.is_nan());
    }

    #[test]
    fn replications_have_student_s_interval() {
        let mean = of_replications(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        // 2.776 times the square root of 2.5 / 5.
        assert!((mean.interval.high - 3.0 - 1.9632).abs() < 1e-3);
    }

    #[test]
    fn the_transformation_and_its_inverse() {
        for shift in [-0.1, 1e-9, 0.02, 0.2] {
            for score in [-2.0, 0.0, 1.0, 3.0] {
                assert!((inverse_willink(willink(score, shift), shift) - score).abs() < 1e-9);
            }
        }
    }
}
