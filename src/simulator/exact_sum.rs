//! Sums of times that do not depend on the order of their terms.
//!
//! Floating-point sums do, in the last bits, and then results would depend on
//! which replica is simulated first. Integers do not: a term is rounded once, to
//! 2^-44 s (57 fs), and added as an integer.
use crate::number::whole_u128;

/// Fraction bits of a term.
const FRACTION_BITS: u32 = 44;
const UNIT: f64 = (1u64 << FRACTION_BITS) as f64;
/// Added to a term below 2^51, in units, it leaves the term, rounded, in the lower
/// bits of the sum: two operations, where a conversion with its checks has eight.
const SHIFT: f64 = (1u64 << 52) as f64;
const SHIFTED: u64 = (1 << 52) - 1;
/// Terms below are less than 2^51 units: two minutes.
const LARGE_S: f64 = (1u64 << (51 - FRACTION_BITS)) as f64;

/// A sum of times of at least zero, seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ExactSum(u128);

impl ExactSum {
    /// Adds `time_s` `count` times.
    #[inline]
    pub(crate) fn add(&mut self, time_s: f64, count: u32) {
        match units(time_s) {
            Some(units) => self.0 += u128::from(units) * u128::from(count),
            None => self.add_large(time_s, count),
        }
    }

    /// Adds all terms of `run` `count` times.
    #[inline]
    pub(crate) fn add_run(&mut self, run: &ExactRun, count: u32) {
        self.0 += (u128::from(run.units) + run.large.0) * u128::from(count);
    }

    #[cold]
    fn add_large(&mut self, time_s: f64, count: u32) {
        self.0 += whole_u128(time_s * UNIT) * u128::from(count);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    pub(crate) fn total_s(self) -> f64 {
        self.0 as f64 / UNIT
    }

    /// The sum over `count`; NaN if that is 0.
    pub(crate) fn mean_s(self, count: u64) -> f64 {
        self.total_s() / count as f64
    }
}

/// A sum of few terms, in a register: at most 4,096 of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExactRun {
    units: u64,
    large: ExactSum,
    longest_s: f64,
}

impl ExactRun {
    /// Sum of `times_s`.
    #[inline]
    pub(crate) fn of(times_s: &[f64]) -> Self {
        let mut run = Self::default();
        for &time_s in times_s {
            debug_assert!(time_s >= 0.0, "{time_s} s");
            run.note_longest(time_s);
            run.units += bits_in_units(time_s);
        }
        if run.longest_s >= LARGE_S {
            run = Self::default();
            times_s.iter().for_each(|&time_s| run.add(time_s));
        }
        run
    }

    #[inline]
    pub(crate) fn add(&mut self, time_s: f64) {
        self.note_longest(time_s);
        match units(time_s) {
            Some(units) => self.units += units,
            None => self.large.add_large(time_s, 1),
        }
    }

    #[inline]
    fn note_longest(&mut self, time_s: f64) {
        if time_s > self.longest_s {
            self.longest_s = time_s;
        }
    }

    /// The longest of its terms; 0 of none.
    #[inline]
    pub(crate) fn longest_s(&self) -> f64 {
        self.longest_s
    }
}

/// A term in units, unless it is large.
#[inline]
fn units(time_s: f64) -> Option<u64> {
    debug_assert!(time_s.is_nan() || time_s >= 0.0, "{time_s} s");
    (time_s < LARGE_S).then(|| bits_in_units(time_s))
}

/// A term that is not large, in units.
#[inline]
fn bits_in_units(time_s: f64) -> u64 {
    (time_s * UNIT + SHIFT).to_bits() & SHIFTED
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(terms: &[(f64, u32)]) -> ExactSum {
        let mut sum = ExactSum::default();
        for &(time_s, count) in terms {
            sum.add(time_s, count);
        }
        sum
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_the_mean_is_right(
            mut terms in proptest::collection::vec((0.0f64..1e7, 1u32..1000), 1..100),
            cut in 0usize..100,
        ) {
            let whole = sum(&terms);
            let count: u64 = terms.iter().map(|&(_, count)| u64::from(count)).sum();
            let expected_s = terms.iter().map(|&(s, n)| s * f64::from(n)).sum::<f64>() / count as f64;
            prop_assert!((whole.mean_s(count) - expected_s).abs() <= 1e-12 * expected_s + 1e-13);
            terms.reverse();
            let (first, second) = terms.split_at(cut.min(terms.len()));
            let mut parts = sum(first);
            parts.merge(sum(second));
            prop_assert_eq!(parts, whole);
            let (mut run, mut alike) = (ExactRun::default(), ExactSum::default());
            for &(time_s, _) in &terms {
                run.add(time_s);
                alike.add(time_s, 7);
            }
            let times_s: Vec<f64> = terms.iter().map(|&(time_s, _)| time_s).collect();
            for run in [run, ExactRun::of(&times_s)] {
                let mut by_run = ExactSum::default();
                by_run.add_run(&run, 7);
                prop_assert_eq!(by_run, alike);
                let longest_s = times_s.iter().copied().fold(0.0, f64::max);
                prop_assert_eq!(run.longest_s(), longest_s);
            }
        }
    }
}
