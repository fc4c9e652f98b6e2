//! Quantiles of many values in little memory: the buckets of DDSketch (Masson,
//! Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees", VLDB 2019) with a relative accuracy of 0.1 %, as
//! Vidur uses them.

use crate::number::{narrow, whole_i32};
use crate::simulator::Compat;

const ACCURACY: f64 = 0.001;

/// Buckets grow by the factor `(1 + a) / (1 - a)`.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    /// Values no bucket could tell from 0.
    zeros: u64,
    /// Count and sum of each bucket.
    buckets: Vec<(u64, f64)>,
    /// Number of the first of `buckets`.
    first: i32,
    count: u64,
    sum: f64,
    /// Buckets per doubling.
    per_doubling: f64,
}

/// By how much a bucket is wider than the one before.
const GROWTH: f64 = 2.0 * ACCURACY / (1.0 - ACCURACY);
const GAMMA: f64 = 1.0 + GROWTH;

impl Sketch {
    pub(super) fn new() -> Self {
        Self {
            zeros: 0,
            buckets: Vec::new(),
            first: 0,
            count: 0,
            sum: 0.0,
            per_doubling: 1.0 / GROWTH.ln_1p() * std::f64::consts::LN_2,
        }
    }

    /// The bucket of a value.
    fn key_of(&self, value: f64) -> i32 {
        whole_i32((value.ln() / std::f64::consts::LN_2 * self.per_doubling).ceil())
    }

    /// Adds `count` times the same value; none is negative.
    pub(super) fn insert(&mut self, value: f64, count: u64) {
        if count == 0 {
            return;
        }
        self.count += count;
        self.sum += value * count as f64;
        if value <= f64::MIN_POSITIVE * GAMMA {
            self.zeros += count;
            return;
        }
        let bucket = self.bucket_mut(self.key_of(value));
        bucket.0 += count;
        bucket.1 += value * count as f64;
    }

    fn bucket_mut(&mut self, key: i32) -> &mut (u64, f64) {
        if self.buckets.is_empty() {
            self.first = key;
        }
        if key < self.first {
            let missing = narrow::<usize, _>(self.first - key);
            self.buckets
                .splice(0..0, std::iter::repeat_n((0, 0.0), missing));
            self.first = key;
        }
        let index = narrow::<usize, _>(key - self.first);
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, (0, 0.0));
        }
        &mut self.buckets[index]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Whether all values are 0.
    pub(super) fn is_zero(&self) -> bool {
        self.zeros == self.count
    }

    /// The quantiles 0, 0.01, ..., 1.
    pub(super) fn percentiles(&self, compat: Compat) -> Vec<(f64, f64)> {
        let quantile = |percent: u32| match percent {
            100 => 1.0,
            percent => f64::from(percent) * 0.01,
        };
        let mut passed = self.zeros;
        let mut index = 0;
        (0..=100)
            .map(|percent| {
                let quantile = quantile(percent);
                let rank = quantile * (self.count as f64 - 1.0);
                if rank < self.zeros as f64 || self.buckets.is_empty() {
                    return (quantile, 0.0);
                }
                while passed as f64 <= rank && index < self.buckets.len() {
                    passed += self.buckets[index].0;
                    index += 1;
                }
                (quantile, self.value(index.saturating_sub(1), compat))
            })
            .collect()
    }

    /// What a value in a bucket is reported as: Vidur's takes the middle of the
    /// bucket (0.999 for 1); the mean of what fell into it is exact where that is
    /// one value, as with counts below 500.
    fn value(&self, index: usize, compat: Compat) -> f64 {
        match compat {
            Compat::None => {
                let (count, sum) = self.buckets[index];
                sum / count as f64
            }
            _ => {
                let key = f64::from(self.first + narrow::<i32, _>(index));
                2f64.powf(key / self.per_doubling) * (2.0 / (1.0 + GAMMA))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_accuracy() {
        let mut sketch = Sketch::new();
        for value in 1..=10_000 {
            sketch.insert(f64::from(value) * 1e-3, 1);
        }
        for compat in [Compat::Vidur, Compat::None] {
            for (quantile, value) in sketch.percentiles(compat) {
                let exact = ((quantile * 9_999.0).floor() + 1.0) * 1e-3;
                let off = (value - exact).abs() / exact;
                let bound = if compat == Compat::Vidur { 1.0001 } else { 2.0 };
                assert!(off <= ACCURACY * bound, "{quantile}: {value}, {exact}");
            }
        }
    }

    #[test]
    fn counts_are_exact_unless_the_original_is_wanted() {
        let mut sketch = Sketch::new();
        sketch.insert(0.0, 10);
        sketch.insert(1.0, 70);
        sketch.insert(300.0, 21);
        let exact = sketch.percentiles(Compat::None);
        assert_eq!((exact[5].1, exact[10].1, exact[50].1), (0.0, 1.0, 1.0));
        assert_eq!(exact[100], (1.0, 300.0));
        assert_eq!(sketch.percentiles(Compat::Vidur)[50].1, 0.9989999999999999);
        assert_eq!(sketch.sum(), 6370.0);
    }
}
