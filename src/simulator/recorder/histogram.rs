//! A histogram of positive times with buckets of equal relative width, for
//! weighted inserts in a few nanoseconds.
//!
//! A bucket is the exponent and the first bits of the mantissa of an `f64`, so
//! finding it takes a shift. With 512 buckets an octave, a bucket is at most
//! 0.2 % wide and a percentile, taken at the middle of its bucket, is off by at
//! most 0.1 %. Mean and maximum are exact. Nothing depends on the order of inserts.

use std::cell::OnceCell;

use crate::number::{narrow, whole_u64};
use crate::simulator::exact_sum::{ExactRun, ExactSum};
use crate::statistics::CellCounts;

const MANTISSA_BITS: u32 = 9;
/// Times under 2^-27 s (7 ns) fall into the first bucket, over 2^13 s into the last.
const LOWEST_EXPONENT: i32 = -27;
const OCTAVES: usize = 40;
const OCTAVE: usize = 1 << MANTISSA_BITS;
const BUCKETS: usize = OCTAVES * OCTAVE;
const OFFSET: u64 = ((1023 + LOWEST_EXPONENT) as u64) << MANTISSA_BITS;

/// Buckets that are looked at together.
const STRIDE: usize = 16;

/// Room for as many buckets as a segment of a run commonly fills.
const FEW_BUCKETS: usize = 64;

/// Weighted histogram of times in seconds.
#[derive(Debug, Clone)]
pub struct TimeHistogram {
    /// Counts of the buckets from `first` on, whole octaves of them: times of one run
    /// are alike, and short runs should not pay for all there could be.
    counts: Vec<u64>,
    first: usize,
    total: u64,
    sum: ExactSum,
    max_s: f64,
}

impl Default for TimeHistogram {
    fn default() -> Self {
        Self {
            counts: Vec::new(),
            first: 0,
            total: 0,
            sum: ExactSum::default(),
            max_s: f64::NEG_INFINITY,
        }
    }
}

impl TimeHistogram {
    /// Adds `count` samples of `time_s`.
    #[inline]
    pub fn insert(&mut self, time_s: f64, count: u32) {
        self.count_in_bucket(time_s, count);
        self.total += u64::from(count);
        self.sum.add(time_s, count);
        if time_s > self.max_s {
            self.max_s = time_s;
        }
    }

    /// Adds `count` samples of each of `times_s`, whose sum is `sum`.
    #[inline(always)]
    pub fn insert_all(&mut self, times_s: &[f64], sum: &ExactRun, count: u32) {
        // Up to the first without room: until then buckets stay where they are.
        let (first, counts) = (OFFSET + self.first as u64, &mut self.counts[..]);
        let inside = times_s.iter().map_while(|&time_s| {
            *counts.get_mut(bucket_after(first, time_s))? += u64::from(count);
            Some(())
        });
        for &time_s in &times_s[inside.count()..] {
            self.count_in_bucket(time_s, count);
        }
        self.total += times_s.len() as u64 * u64::from(count);
        self.sum.add_run(sum, count);
        if sum.longest_s() > self.max_s {
            self.max_s = sum.longest_s();
        }
    }

    #[inline]
    fn count_in_bucket(&mut self, time_s: f64, count: u32) {
        let first = OFFSET + self.first as u64;
        match self.counts.get_mut(bucket_after(first, time_s)) {
            Some(counted) => *counted += u64::from(count),
            None => self.insert_outside(time_s, count),
        }
    }

    /// Counts samples for whose bucket there is no room yet.
    #[cold]
    fn insert_outside(&mut self, time_s: f64, count: u32) {
        let bucket = narrow::<usize, _>(key(time_s).saturating_sub(OFFSET)).min(BUCKETS - 1);
        if bucket.wrapping_sub(self.first) >= self.counts.len() {
            self.widen(bucket, bucket + 1);
        }
        self.counts[bucket - self.first] += u64::from(count);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.total > 0 {
            self.widen(other.first, other.first + other.counts.len());
            let here = &mut self.counts[other.first - self.first..];
            for (count, more) in here.iter_mut().zip(&other.counts) {
                *count += more;
            }
        }
        self.total += other.total;
        self.sum.merge(other.sum);
        self.max_s = self.max_s.max(other.max_s);
    }

    /// Makes room for the buckets from `from` to before `to`.
    fn widen(&mut self, from: usize, to: usize) {
        // Those to come are longer rather than shorter: batches grow.
        let (mut first, mut end) = (from, (to + OCTAVE).min(BUCKETS));
        if !self.counts.is_empty() {
            first = first.min(self.first);
            end = end.max(self.first + self.counts.len());
        }
        first &= !(OCTAVE - 1);
        let mut counts = vec![0; end.next_multiple_of(OCTAVE) - first];
        if !self.counts.is_empty() {
            counts[self.first - first..][..self.counts.len()].copy_from_slice(&self.counts);
        }
        (self.counts, self.first) = (counts, first);
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Exact mean; NaN without samples.
    pub fn mean_s(&self) -> f64 {
        self.sum.mean_s(self.total)
    }

    /// Exact maximum; NaN without samples.
    pub fn max_s(&self) -> f64 {
        match self.total {
            0 => f64::NAN,
            _ => self.max_s,
        }
    }

    /// The `quantiles` (ascending, in [0, 1]) within 0.1 %; NaN without samples.
    pub fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [f64; N] {
        let mut values = [f64::NAN; N];
        if self.total == 0 {
            return values;
        }
        let (mut bucket, mut below) = (0, 0);
        for (value, quantile) in values.iter_mut().zip(quantiles) {
            let rank = whole_u64((quantile * self.total as f64).ceil()).clamp(1, self.total);
            while below + self.counts[bucket] < rank {
                below += self.counts[bucket];
                bucket += 1;
            }
            *value = bucket_middle_s(self.first + bucket).min(self.max_s);
        }
        values
    }
}

/// A histogram of few distinct buckets, as one of a segment of a run is.
#[derive(Debug, Clone, Default)]
pub struct SparseHistogram {
    /// Buckets in order, and how many samples are in each and those before it.
    buckets: Vec<(u32, u64)>,
    sum: ExactSum,
    max_s: f64,
}

impl SparseHistogram {
    /// Takes all samples of `histogram`, whose room stays for others.
    pub fn taken_from(histogram: &mut TimeHistogram) -> Self {
        let first = narrow::<u32, _>(histogram.first);
        let (mut buckets, mut sum) = (Vec::with_capacity(FEW_BUCKETS), 0);
        let strides = (first..).step_by(STRIDE);
        for (first, counts) in strides.zip(histogram.counts.chunks_mut(STRIDE)) {
            // Most are empty: many are passed over at once.
            if counts.iter().fold(0, |any, count| any | *count) == 0 {
                continue;
            }
            for (bucket, count) in (first..).zip(counts) {
                if *count > 0 {
                    sum += std::mem::take(count);
                    buckets.push((bucket, sum));
                }
            }
        }
        let taken = Self {
            buckets,
            sum: histogram.sum,
            max_s: histogram.max_s,
        };
        histogram.total = 0;
        histogram.sum = ExactSum::default();
        histogram.max_s = f64::NEG_INFINITY;
        taken
    }

    /// The samples of all of `parts` together.
    pub fn merged<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let ends = || {
            parts.clone().filter_map(|part| {
                let (first, last) = part.buckets.first().zip(part.buckets.last())?;
                Some((first.0, last.0))
            })
        };
        let first = ends().map(|(first, _)| first).min().unwrap_or(0);
        let end = ends().map(|(_, last)| last + 1).max().unwrap_or(0);
        let mut counts = vec![0; (end - first) as usize];
        let mut all = Self {
            max_s: f64::NEG_INFINITY,
            ..Self::default()
        };
        for part in parts {
            let mut before = 0;
            for &(bucket, up_to) in &part.buckets {
                counts[(bucket - first) as usize] += up_to - before;
                before = up_to;
            }
            all.sum.merge(part.sum);
            all.max_s = all.max_s.max(part.max_s);
        }
        let mut sum = 0;
        let filled = (first..).zip(counts).filter(|(_, count)| *count > 0);
        all.buckets.extend(filled.map(|(bucket, count)| {
            sum += count;
            (bucket, sum)
        }));
        all
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |&(_, count)| count)
    }

    /// Exact sum, seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum.total_s()
    }

    /// Exact maximum; NaN without samples.
    pub fn max_s(&self) -> f64 {
        match self.buckets.is_empty() {
            true => f64::NAN,
            false => self.max_s,
        }
    }

    /// Samples in the bucket of `value_s` and those before it.
    fn at_most(&self, value_s: f64) -> u64 {
        let bucket = narrow::<usize, _>(key(value_s.max(0.0)).saturating_sub(OFFSET));
        let bucket = narrow::<u32, _>(bucket.min(BUCKETS - 1));
        let after = self.buckets.partition_point(|&(other, _)| other <= bucket);
        after.checked_sub(1).map_or(0, |last| self.buckets[last].1)
    }

    /// The time that `rank` samples do not exceed, within 0.1 %.
    fn at_rank(&self, rank: u64) -> f64 {
        let at = self.buckets.partition_point(|&(_, count)| count < rank);
        let bucket = self.buckets[at].0 as usize;
        bucket_middle_s(bucket).min(self.max_s)
    }
}

/// Histograms of the segments of a run, and all of them together.
#[derive(Debug, Clone)]
pub struct SegmentCounts<'a> {
    segments: Vec<&'a SparseHistogram>,
    /// Found when somebody asks.
    all: OnceCell<SparseHistogram>,
}

impl<'a> SegmentCounts<'a> {
    /// Of these segments.
    pub fn new(segments: Vec<&'a SparseHistogram>) -> Self {
        Self {
            segments,
            all: OnceCell::new(),
        }
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &'a SparseHistogram> {
        self.segments.iter().copied()
    }

    /// The largest of all; NaN without samples.
    pub fn max_s(&self) -> f64 {
        self.all().max_s()
    }

    fn all(&self) -> &SparseHistogram {
        let segments = || self.segments.iter().copied();
        self.all.get_or_init(|| SparseHistogram::merged(segments()))
    }
}

impl CellCounts for SegmentCounts<'_> {
    fn cells(&self) -> usize {
        self.segments.len()
    }

    fn total(&self, cell: usize) -> u64 {
        self.segments[cell].count()
    }

    fn at_most(&self, cell: usize, value: f64) -> u64 {
        self.segments[cell].at_most(value)
    }

    fn at_rank(&self, rank: u64) -> f64 {
        self.all().at_rank(rank)
    }
}

/// Exponent and first bits of the mantissa.
#[inline]
fn key(time_s: f64) -> u64 {
    time_s.to_bits() >> (52 - MANTISSA_BITS)
}

/// How many buckets after that of key `first` the one of a time is; very many, if before.
#[inline]
fn bucket_after(first: u64, time_s: f64) -> usize {
    narrow::<usize, _>(key(time_s).wrapping_sub(first))
}

fn bucket_middle_s(bucket: usize) -> f64 {
    let edge = |bucket: usize| f64::from_bits((bucket as u64 + OFFSET) << (52 - MANTISSA_BITS));
    f64::midpoint(edge(bucket), edge(bucket + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_within_a_thousandth(
            samples in proptest::collection::vec((1e-6f64..100.0, 1u32..50), 1..200),
        ) {
            let mut histogram = TimeHistogram::default();
            let mut all = Vec::new();
            let mut in_runs = TimeHistogram::default();
            for &(time_s, count) in &samples {
                histogram.insert(time_s, count);
                in_runs.insert_all(&[time_s; 3], &ExactRun::of(&[time_s; 3]), count);
                all.extend(std::iter::repeat_n(time_s, count as usize));
            }
            all.sort_by(f64::total_cmp);
            let quantiles = [0.5, 0.9, 0.95, 0.99];
            for (quantile, value) in quantiles.into_iter().zip(histogram.quantiles(quantiles)) {
                let rank = ((quantile * all.len() as f64).ceil() as usize).clamp(1, all.len());
                let exact = all[rank - 1];
                prop_assert!((value / exact - 1.0).abs() <= 1e-3, "{} for {}", value, exact);
            }
            prop_assert_eq!(histogram.max_s(), all[all.len() - 1]);
            prop_assert_eq!(in_runs.max_s(), histogram.max_s());
            prop_assert_eq!(in_runs.count(), 3 * histogram.count());
            prop_assert_eq!(in_runs.quantiles(quantiles), histogram.quantiles(quantiles));
            prop_assert!((in_runs.mean_s() / histogram.mean_s() - 1.0).abs() < 1e-12);
        }

        #[test]
        fn parts_add_up_to_the_whole(
            samples in proptest::collection::vec((-40i32..20, 1u32..50), 0..60),
            cut in 0usize..60,
        ) {
            let of = |samples: &[(i32, u32)]| {
                let mut histogram = TimeHistogram::default();
                for &(exponent, count) in samples {
                    histogram.insert(1.1 * f64::from(exponent).exp2(), count);
                }
                histogram
            };
            let (first, second) = samples.split_at(cut.min(samples.len()));
            let (whole, mut parts) = (of(&samples), of(first));
            parts.merge(&of(second));
            prop_assert_eq!(parts.count(), whole.count());
            let quantiles = [0.0, 0.1, 0.5, 0.9, 1.0];
            let bits = |histogram: &TimeHistogram| histogram.quantiles(quantiles).map(f64::to_bits);
            prop_assert_eq!(bits(&parts), bits(&whole));
        }
    }
}
