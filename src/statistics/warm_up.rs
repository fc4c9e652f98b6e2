//! How much of a run's start to leave out: MSER-5, confirmed.
//!
//! The marginal standard error rule drops the observations without which the standard
//! error of the mean of the rest is smallest, taken over batches of five: White 1997,
//! "An effective truncation heuristic for bias reduction in simulation output"
//! (Simulation 69(6)); White, Cobb and Spratt 2000, "A comparison of five steady-state
//! truncation heuristics for simulation" (Winter Simulation Conference). It is not looked
//! for beyond the first half: a minimum there says that the run is too short to have a
//! warm-up and anything after it.
//!
//! The rule by itself also cuts stationary series, and prefers to cut after a burst, so
//! that what it leaves is less variable than the system is and intervals miss the truth
//! more often (1 to 6 of 100 runs more on the queues of `docs/statistics.md`; Mokashi et al.
//! 2010, "Performance comparison of MSER-5 and N-Skart on the simulation start-up
//! problem", Winter Simulation Conference, see the same). So nothing is dropped
//! unless the mean of what would be differs from that of the rest by more than
//! chance explains. A start that differs by less is short against the run, and does less
//! to its figures than their intervals allow for.

use super::batch_means::mean;

/// Observations per batch.
const BATCH: usize = 5;

/// The first part must lie below the rest by so many standard errors of the difference.
/// It was chosen among many for being different, so that two would not do.
const CONFIRMED_BELOW: f64 = 3.0;

/// The first part must lie above the rest by so many standard errors of the difference:
/// waiting times are skewed, and a stationary queue has bursts that lie 3 to 5 above in
/// one of ten runs (`docs/statistics.md`).
const CONFIRMED_ABOVE: f64 = 6.0;

/// What to leave out of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmUp {
    /// The number of first observations to drop.
    pub dropped: usize,
    /// Whether it is as many as may be dropped, so that more might have to be.
    pub at_bound: bool,
}

/// The number of first observations of `series` to drop: those that the rule would, if
/// their mean differs from that of the rest.
pub fn mser5(series: &[f64]) -> WarmUp {
    let warm_up = least_error(series);
    let (first, rest) = series.split_at(warm_up.dropped);
    if first.is_empty() {
        return warm_up;
    }
    let kept = mean(rest);
    let difference = first.iter().sum::<f64>() / first.len() as f64 - kept.interval.value;
    // The variance of a mean goes with one over its number of observations.
    let error = kept.standard_error * (1.0 + rest.len() as f64 / first.len() as f64).sqrt();
    if (-CONFIRMED_BELOW * error..=CONFIRMED_ABOVE * error).contains(&difference) {
        return WarmUp {
            dropped: 0,
            at_bound: false,
        };
    }
    warm_up
}

/// The number of first observations without which the standard error is smallest.
fn least_error(series: &[f64]) -> WarmUp {
    let batches = series.len() / BATCH;
    let bound = batches / 2;
    let (mut sum, mut squares) = (0.0, 0.0);
    let (mut best, mut least) = (0, f64::INFINITY);
    // From the end, so that sums over the rest grow by one batch at a time. Values are
    // taken against one of them: differences of large squares lose digits.
    let origin = series.last().copied().unwrap_or(0.0);
    for batch in (0..batches).rev() {
        let values = &series[batch * BATCH..(batch + 1) * BATCH];
        let mean = values.iter().map(|value| value - origin).sum::<f64>() / BATCH as f64;
        sum += mean;
        squares += mean * mean;
        if batch > bound {
            continue;
        }
        let count = (batches - batch) as f64;
        let error = (squares - sum * sum / count).max(0.0) / (count * count);
        // Of equals the one that drops least.
        if error <= least {
            least = error;
            best = batch;
        }
    }
    WarmUp {
        dropped: best * BATCH,
        at_bound: best > 0 && best == bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(index: u32) -> f64 {
        f64::from(index.wrapping_mul(2_654_435_761) >> 16) / 65536.0
    }

    #[test]
    fn a_stationary_series_loses_little() {
        let series: Vec<f64> = (0..2000).map(noise).collect();
        let warm_up = mser5(&series);
        assert!(warm_up.dropped == 0 && !warm_up.at_bound, "{warm_up:?}");
    }

    #[test]
    fn a_ramp_is_dropped() {
        let series: Vec<f64> = (0..2000)
            .map(|i| noise(i) + 10.0 * (1.0 - f64::from(i) / 300.0).max(0.0))
            .collect();
        let warm_up = mser5(&series);
        assert!((250..400).contains(&warm_up.dropped), "{warm_up:?}");
    }

    #[test]
    fn a_series_that_never_settles_says_so() {
        let series: Vec<f64> = (0..2000).map(f64::from).collect();
        assert_eq!(
            mser5(&series),
            WarmUp {
                dropped: 1000,
                at_bound: true
            }
        );
    }

    #[test]
    fn only_what_differs_is_dropped() {
        let ramp = |height: f64| -> Vec<f64> {
            (0..2000)
                .map(|i| noise(i) + height * (1.0 - f64::from(i) / 300.0).max(0.0))
                .collect()
        };
        assert_eq!(mser5(&ramp(0.0)).dropped, 0);
        assert_eq!(mser5(&ramp(10.0)), least_error(&ramp(10.0)));
        assert!(mser5(&ramp(-10.0)).dropped > 250);
    }

    #[test]
    fn nothing_is_dropped_from_constants_or_a_handful() {
        let none = WarmUp {
            dropped: 0,
            at_bound: false,
        };
        assert_eq!(mser5(&[7.0; 500]), none);
        assert_eq!(mser5(&[1.0, 2.0, 3.0]), none);
        assert_eq!(mser5(&[]), none);
    }
}
