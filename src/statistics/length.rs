//! Whether a run was long enough for its intervals to be believed.
//!
//! An interval that covers the truth in 95 of 100 runs of a length does not do so in
//! runs that are stopped by looking at the data: those stop early that underestimate
//! their own variance. So a run is extended well beyond the length at which intervals of
//! a fixed one begin to hold, measured in independent events, which is what its
//! correlated samples are worth. The numbers here were chosen by trying: `tests.rs`,
//! tables in `docs/statistics.md`.

use super::batch_means::{Mean, mean};
use super::cells::ROUNDING;

/// The fewest independent values the mean of a series must be worth.
pub const MIN_EFFECTIVE_VALUES: f64 = 60.0;

/// The fewest independent events beyond a percentile.
pub(super) const MIN_TAIL_EVENTS: f64 = 5.0;

/// The fewest independent events at the level where there are most of them, from which
/// the size of clusters is known.
pub(super) const MIN_EVENTS: f64 = 20.0;

/// So many independent events beyond a percentile tell the size of their clusters by
/// themselves: no level nearer to the middle need be asked.
pub(super) const TELLING_EVENTS: f64 = 100.0;

/// Where all values are the same, each is worth less than an event: of what is rare there
/// may have been none yet (nobody waits before the last of many servers is busy).
pub(super) const CONSTANT_VALUES_PER_EVENT: f64 = 100.0;

/// So many times as many need not look independent: a test rejects some of what is, and
/// the correlation that is left is in the number.
const CORRELATED_FACTOR: f64 = 3.0;

/// Whether what is worth so many independent values or events is enough of them.
pub(super) fn is_enough(events: f64, independent: bool, least: f64) -> bool {
    events
        >= if independent {
            least
        } else {
            CORRELATED_FACTOR * least
        }
}

/// Whether the interval of the mean of `series` can be believed: it is worth
/// [`MIN_EFFECTIVE_VALUES`] independent values.
pub fn mean_is_known(series: &[f64]) -> bool {
    mean_is_enough(&mean(series), series)
}

fn mean_is_enough(mean: &Mean, series: &[f64]) -> bool {
    let center = mean.interval.value;
    let count = series.len() as f64;
    let variance = series
        .iter()
        .map(|value| (value - center) * (value - center))
        .sum::<f64>()
        / count;
    if variance.sqrt() <= ROUNDING * center.abs() {
        return count >= MIN_EVENTS * CONSTANT_VALUES_PER_EVENT;
    }
    let error = mean.standard_error * mean.standard_error;
    // Batches may vary less than independent values would: no correlation to fear.
    let steady = error <= variance / count;
    is_enough(
        variance / error,
        mean.independent || steady,
        MIN_EFFECTIVE_VALUES,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_known_and_trends_are_not() {
        assert!(mean_is_known(&[1.0; 2000]));
        // The same, but for rounding that grows with time.
        let rounded: Vec<f64> = (0..2000).map(|i| 1.0 + f64::from(i) * 1e-15).collect();
        assert!(mean_is_known(&rounded));
        assert!(!mean_is_known(&[1.0; 1000]));
        let trend: Vec<f64> = (0..10_000).map(f64::from).collect();
        assert!(!mean_is_known(&trend));
    }
}
