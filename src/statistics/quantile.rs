//! Percentiles, shares and their intervals, from a correlated series.
//!
//! A percentile is the nearest-rank one. Its interval inverts the distribution function
//! (Woodruff 1952, "Confidence intervals for medians and other position measures",
//! JASA 47; for correlated series Heidelberger and Lewis 1984, "Quantile estimation in
//! dependent sequences", Operations Research 32(1)): a value belongs to it if the share
//! of samples beyond that value is one that chance may give where the percentile's share
//! is the true one.
//!
//! Samples beyond a high percentile are few and come in clusters (a busy period), so
//! that share is neither normal nor as certain as that of independent samples. How much
//! less certain is the *design effect*: the variance of the share, from batch means of
//! the indicator, over that of independent samples. Over it the samples beyond are as
//! good as a smaller number of independent events, of which Poisson limits are taken: of
//! a share the exact ones (Garwood 1936), the construction of Fay and Feuer 1997,
//! "Confidence intervals for directly standardized rates", Statistics in Medicine 16; of a
//! percentile the mid-P ones (Berry and Armitage 1995, "Mid-P confidence intervals: a brief
//! review", The Statistician 44). Where there are many events these are Woodruff's limits.
//!
//! The farther out, the fewer clusters, and the less is known of their size: one that
//! happens to hold none of the large ones would seem certain. So the design effect is
//! the largest of those at the percentile's share and at its doubles, up to one half or to
//! a share with so many independent events that they tell it by themselves.

use std::cell::RefCell;

use super::cells::{Cells, MIN_BATCHES, ROUNDING, Spread};
use super::confidence::TAIL;
use super::distributions::{gamma_below, gamma_shape, gamma_value, normal_quantile, student_end};
use super::interval::Interval;
use super::length::{
    CONSTANT_VALUES_PER_EVENT, MIN_EVENTS, MIN_TAIL_EVENTS, TELLING_EVENTS, is_enough,
};

/// Samples counted per consecutive cell of a run.
pub trait CellCounts {
    /// The number of cells, 16 to 64 (fewer have no interval, more are put together).
    fn cells(&self) -> usize;
    /// The number of samples in a cell.
    fn total(&self, cell: usize) -> u64;
    /// The number of samples in a cell that are `value` or less.
    fn at_most(&self, cell: usize, value: f64) -> u64;
    /// The smallest value that `rank` samples, at least one of them and at most all, do
    /// not exceed.
    fn at_rank(&self, rank: u64) -> f64;
}

/// A series in memory, in 64 cells. Nothing is sorted: a few of its values are asked for by
/// rank, and each of them brings only what lies between those known before into order.
#[derive(Debug, Clone)]
pub struct Sample {
    values: Vec<f64>,
    /// Where each cell begins, and where the last one ends.
    bounds: Vec<usize>,
    order: RefCell<Order>,
}

impl Sample {
    /// Takes a series in the order in which it came about. Infinity is a sample whose
    /// value is beyond all others; NaN counts as that.
    pub fn new(series: &[f64]) -> Self {
        let cells = series.len().min(super::cells::MAX_CELLS);
        let ends = (0..cells).map(|cell| super::cells::bounds(cell, cells, series.len()).end);
        Self {
            bounds: std::iter::once(0).chain(ends).collect(),
            order: RefCell::new(Order {
                values: series.to_vec(),
                known: Vec::new(),
            }),
            values: series.to_vec(),
        }
    }

    /// The largest sample; NaN of none.
    pub fn largest(&self) -> f64 {
        match self.values.len() {
            0 => f64::NAN,
            samples => self.order.borrow_mut().at(samples - 1),
        }
    }

    fn cell(&self, cell: usize) -> &[f64] {
        &self.values[self.bounds[cell]..self.bounds[cell + 1]]
    }
}

impl CellCounts for Sample {
    fn cells(&self) -> usize {
        self.bounds.len() - 1
    }

    fn total(&self, cell: usize) -> u64 {
        self.cell(cell).len() as u64
    }

    fn at_most(&self, cell: usize, value: f64) -> u64 {
        let samples = self.cell(cell).iter();
        samples.map(|sample| u64::from(*sample <= value)).sum()
    }

    fn at_rank(&self, rank: u64) -> f64 {
        let place = crate::number::narrow::<usize, _>(rank) - 1;
        self.order.borrow_mut().at(place)
    }
}

/// Values that are brought into order as far as somebody asks.
#[derive(Debug, Clone)]
struct Order {
    values: Vec<f64>,
    /// Places whose value is the one that all of them in order have there, rising: what is
    /// before is not larger, what is behind not smaller.
    known: Vec<usize>,
}

impl Order {
    /// The value at a place of all in order.
    fn at(&mut self, place: usize) -> f64 {
        let next = self.known.partition_point(|known| *known < place);
        if self.known.get(next) != Some(&place) {
            let start = next
                .checked_sub(1)
                .map_or(0, |before| self.known[before] + 1);
            let end = self.known.get(next).copied().unwrap_or(self.values.len());
            self.values[start..end].select_nth_unstable_by(place - start, f64::total_cmp);
            self.known.insert(next, place);
        }
        self.values[place]
    }
}

impl<C: CellCounts> CellCounts for &C {
    fn cells(&self) -> usize {
        (**self).cells()
    }

    fn total(&self, cell: usize) -> u64 {
        (**self).total(cell)
    }

    fn at_most(&self, cell: usize, value: f64) -> u64 {
        (**self).at_most(cell, value)
    }

    fn at_rank(&self, rank: u64) -> f64 {
        (**self).at_rank(rank)
    }
}

/// Everything that is asked of one set of samples.
#[derive(Debug, Clone)]
pub struct Quantiles<C> {
    counts: C,
    samples: u64,
    /// What is known of the samples beyond those of some ranks: percentiles share levels.
    levels: RefCell<Vec<(u64, Side, Level)>>,
}

impl<C: CellCounts> Quantiles<C> {
    /// Of these samples.
    pub fn new(counts: C) -> Self {
        let samples = (0..counts.cells()).map(|cell| counts.total(cell)).sum();
        Self {
            counts,
            samples,
            levels: RefCell::default(),
        }
    }

    /// The samples.
    pub const fn counts(&self) -> &C {
        &self.counts
    }

    /// The number of samples.
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The percentile `p` (0 to 1), without its interval; NaN of no samples.
    pub fn value(&self, p: f64) -> f64 {
        self.at_rank(self.rank(p))
    }

    /// The percentile `p` (0 to 1), and its interval. A bound that lies beyond the
    /// sample is that of lower percentiles, extrapolated upwards; NaN if there is none.
    /// Costs some thousands of counts, whatever the number of samples.
    pub fn quantile(&self, p: f64) -> Interval {
        let value = self.value(p);
        let Some(tail) = self.tail(p) else {
            return Interval::unbounded(value);
        };
        let samples = self.samples as f64;
        let (fewest, most) = (samples * tail.fewest(), samples * tail.most());
        // The bound on the side of the tail, and the one towards the middle.
        let (low, high) = match tail.side {
            Side::Above => (samples - most, samples - fewest),
            Side::Below => (fewest, most),
        };
        Interval {
            value,
            low: if low < 1.0 {
                self.low_of_lower(p)
            } else {
                self.at_rank(crate::number::whole_u64(low))
            },
            high: if high > samples - 1.0 {
                self.extrapolated_high(p)
            } else {
                self.at_rank(crate::number::whole_u64(high.ceil()))
            },
        }
    }

    /// The lower bound of the percentile `p` where it lies beyond the sample: that of the
    /// highest lower percentile which has one, as no percentile is below a lower one. NaN
    /// if there is none.
    fn low_of_lower(&self, p: f64) -> f64 {
        let samples = self.samples as f64;
        let mut share = 2.0 * (1.0 - p);
        while share <= 0.5 {
            let low = self
                .tail(1.0 - share)
                .map(|tail| samples * (1.0 - tail.most()));
            if let Some(low) = low.filter(|low| *low >= 1.0) {
                return self.at_rank(crate::number::whole_u64(low));
            }
            share *= 2.0;
        }
        f64::NAN
    }

    /// The upper bound of the percentile `p` where it lies beyond the sample: that of the
    /// highest percentile nearer to the middle which has one within it, carried on along
    /// an exponential tail that starts at the median and runs through it. Waiting times
    /// have such tails. NaN if there is none.
    fn extrapolated_high(&self, p: f64) -> f64 {
        let (median, samples) = (self.value(0.5), self.samples as f64);
        let mut share = 2.0 * (1.0 - p);
        while share < 0.5 {
            let high = self
                .tail(1.0 - share)
                .map(|tail| samples * (1.0 - tail.fewest()));
            if let Some(high) = high.filter(|high| *high <= samples - 1.0) {
                let bound = self.at_rank(crate::number::whole_u64(high.ceil()));
                let per_factor = (bound - median) / (0.5 / share).ln();
                let carried = bound + per_factor * (share / (1.0 - p)).ln();
                // A tail may be heavier: then it goes on from what was seen.
                let value = self.value(p);
                return carried.max(value + per_factor * std::f64::consts::LN_2);
            }
            share *= 2.0;
        }
        f64::NAN
    }

    /// The probability that the true percentile `p` is `limit` or less. Agrees with
    /// [`Self::quantile`]: at least 97.5 % from its upper bound on, at most 2.5 % below
    /// its lower. Says something of limits far from all samples, too.
    pub fn probability_at_most(&self, p: f64, limit: f64) -> f64 {
        let Some(tail) = self.tail(p) else {
            return f64::NAN;
        };
        let below = self.observed_share_at_most(limit);
        match tail.side {
            Side::Above => tail.probability_fewer(1.0 - below),
            Side::Below => 1.0 - tail.probability_fewer(below),
        }
    }

    /// The share of samples that are `limit` or less; NaN of none.
    fn observed_share_at_most(&self, limit: f64) -> f64 {
        self.at_most(limit) as f64 / self.samples as f64
    }

    /// The share of samples that are `limit` or less, with its interval: an attainment.
    pub fn share_at_most(&self, limit: f64) -> Interval {
        let value = self.observed_share_at_most(limit);
        share(&self.indicator(limit, Side::Below), value, self.samples)
    }

    /// Whether enough is known of the percentile `p` for its interval to be believed:
    /// see [`super::length`].
    pub fn is_known(&self, p: f64) -> bool {
        self.tail(p).is_some_and(|tail| tail.is_known())
    }

    fn rank(&self, p: f64) -> u64 {
        crate::number::whole_u64((p * self.samples as f64).ceil()).clamp(1, self.samples.max(1))
    }

    fn at_most(&self, value: f64) -> u64 {
        (0..self.counts.cells())
            .map(|cell| self.counts.at_most(cell, value))
            .sum()
    }

    /// The smallest value that `rank` samples do not exceed.
    fn at_rank(&self, rank: u64) -> f64 {
        if self.samples == 0 {
            return f64::NAN;
        }
        self.counts.at_rank(rank.clamp(1, self.samples))
    }

    fn indicator(&self, value: f64, side: Side) -> Cells {
        Cells::gather(
            self.counts.cells(),
            |cell| {
                let at_most = self.counts.at_most(cell, value);
                match side {
                    Side::Below => at_most as f64,
                    Side::Above => (self.counts.total(cell) - at_most) as f64,
                }
            },
            |cell| self.counts.total(cell) as f64,
        )
    }

    /// What is known of the share of samples beyond the one of `rank`, found once.
    fn known_at_rank(&self, rank: u64, side: Side) -> Level {
        let found = |kept: &[(u64, Side, Level)]| {
            let mut kept = kept.iter();
            kept.find(|(at, of, _)| (*at, *of) == (rank, side))
                .map(|(_, _, level)| *level)
        };
        if let Some(level) = found(&self.levels.borrow()) {
            return level;
        }
        let level = self.known_at(self.at_rank(rank), side);
        self.levels.borrow_mut().push((rank, side, level));
        level
    }

    /// What is known of the share of samples beyond `value`, with it and without: many
    /// samples may be equal to it.
    fn known_at(&self, value: f64, side: Side) -> Level {
        let mut level = Level {
            design_effect: 0.0,
            events: self.samples as f64 / CONSTANT_VALUES_PER_EVENT,
            independent: true,
        };
        let rounding = ROUNDING * value.abs();
        for value in [value + rounding, (value - rounding).min(value.next_down())] {
            let spread = self.indicator(value, side).spread();
            let effect = design_effect(&spread, self.samples as f64);
            if effect > level.design_effect {
                let rarer = spread.ratio.min(1.0 - spread.ratio);
                level = Level {
                    design_effect: effect,
                    events: self.samples as f64 * rarer / effect.max(1.0),
                    independent: spread.independent || effect <= 1.0,
                };
            }
        }
        level
    }

    /// What is known of the share of samples beyond the percentile `p`. None if there
    /// are too few cells, or nothing beyond.
    fn tail(&self, p: f64) -> Option<Tail> {
        // The least and the largest of all values have no interval.
        if self.counts.cells() < MIN_BATCHES || self.samples == 0 || !(0.0 < p && p < 1.0) {
            return None;
        }
        let (side, share) = if p >= 0.5 {
            (Side::Above, 1.0 - p)
        } else {
            (Side::Below, p)
        };
        let mut tail = Tail {
            side,
            share,
            samples: self.samples as f64,
            design_effect: 1.0,
            independent: true,
            clusters_known: false,
        };
        let mut level = share;
        while level <= 0.5 {
            let rank = self.rank(match side {
                Side::Above => 1.0 - level,
                Side::Below => level,
            });
            let known = self.known_at_rank(rank, side);
            tail.design_effect = tail.design_effect.max(known.design_effect);
            if level == share {
                tail.independent = known.independent;
            }
            tail.clusters_known |= is_enough(known.events, known.independent, MIN_EVENTS);
            if is_enough(known.events, known.independent, TELLING_EVENTS) {
                break;
            }
            level *= 2.0;
        }
        Some(tail)
    }
}

/// What is known of the share of samples beyond a value.
#[derive(Debug, Clone, Copy)]
struct Level {
    design_effect: f64,
    events: f64,
    independent: bool,
}

/// The percentile `p` (0 to 1) of a series in the order in which it came about. Who asks
/// for several keeps a [`Sample`].
pub fn of_series(series: &[f64], p: f64) -> Interval {
    Quantiles::new(Sample::new(series)).quantile(p)
}

/// The percentile `p` (0 to 1) of samples counted per consecutive cell.
pub fn of_counts(counts: &impl CellCounts, p: f64) -> Interval {
    Quantiles::new(counts).quantile(p)
}

/// The share of a series, in the order in which it came about, of which something holds,
/// with its interval. Never certain from a finite series: where it holds of all, as many
/// as chance may hide in the series may not.
pub fn share_of(series: &[bool]) -> Interval {
    let cells = Cells::gather(
        series.len(),
        |index| f64::from(u8::from(series[index])),
        |_| 1.0,
    );
    let held = series.iter().filter(|&&held| held).count();
    share(
        &cells,
        held as f64 / series.len() as f64,
        series.len() as u64,
    )
}

/// Whether enough is known of the share of a series for its interval to be believed: as many
/// independent events of the rarer kind as tell the size of their clusters.
pub fn share_is_known(series: &[bool]) -> bool {
    let held = |index: usize| f64::from(u8::from(series[index]));
    let spread = Cells::gather(series.len(), held, |_| 1.0).spread();
    let samples = series.len() as f64;
    let rarer = spread.ratio.min(1.0 - spread.ratio);
    let events = samples * rarer / design_effect(&spread, samples).max(1.0);
    is_enough(events, spread.independent, MIN_EVENTS)
}

fn share(cells: &Cells, value: f64, samples: u64) -> Interval {
    let spread = cells.spread();
    if spread.standard_error.is_nan() {
        return Interval::unbounded(value);
    }
    let effect = design_effect(&spread, samples as f64).max(1.0);
    let rare = value.min(1.0 - value);
    // As many independent events as say as much about the rarer side.
    let per_event = effect * (1.0 - rare) / samples as f64;
    let events = rare / per_event;
    let fewest = poisson_low(events) * per_event;
    let most = (poisson_high(events) * per_event).min(1.0);
    if value <= 0.5 {
        Interval {
            value,
            low: fewest,
            high: most,
        }
    } else {
        Interval {
            value,
            low: 1.0 - most,
            high: 1.0 - fewest,
        }
    }
}

/// Garwood's lower limit of a Poisson mean of which so many events were seen.
fn poisson_low(events: f64) -> f64 {
    gamma_value(events, TAIL)
}

/// Garwood's upper limit of a Poisson mean of which so many events were seen.
fn poisson_high(events: f64) -> f64 {
    gamma_value(events + 1.0, 1.0 - TAIL)
}

/// Which samples are the rarer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

/// Between none and one, by which the two exact limits of a Poisson mean differ: a
/// percentile's interval with them covers the truth in 99 of 100 runs instead of 95.
const HALF_AN_EVENT: f64 = 0.5;

/// The share of samples beyond a percentile.
#[derive(Debug, Clone, Copy)]
struct Tail {
    side: Side,
    /// The true share, by definition of the percentile.
    share: f64,
    samples: f64,
    /// The variance of the observed share over that of independent samples, at least 1.
    design_effect: f64,
    /// Whether batches looked independent at this share.
    independent: bool,
    /// Whether there is a level with enough events to know the size of clusters from.
    clusters_known: bool,
}

impl Tail {
    /// As many independent events as the samples beyond are worth.
    fn events(&self) -> f64 {
        self.samples * self.share / (self.design_effect * (1.0 - self.share))
    }

    /// The smallest observed share that does not contradict the true one.
    fn fewest(&self) -> f64 {
        self.observed(1.0 - TAIL)
    }

    /// The largest observed share that does not contradict the true one.
    fn most(&self) -> f64 {
        self.observed(TAIL).min(1.0)
    }

    /// The observed share of which less is seen with so much probability.
    fn observed(&self, probability_more: f64) -> f64 {
        let events = self.events();
        let observed = gamma_shape(events, probability_more) - HALF_AN_EVENT;
        observed.max(0.0) * self.share / events
    }

    /// The probability that the true share beyond a value is at most the percentile's,
    /// if `observed` is what was seen beyond it.
    fn probability_fewer(&self, observed: f64) -> f64 {
        let events = self.events();
        gamma_below(events, events * observed / self.share + HALF_AN_EVENT)
    }

    fn is_known(&self) -> bool {
        self.clusters_known && is_enough(self.events(), self.independent, MIN_TAIL_EVENTS)
    }
}

/// The variance of a share over that of independent samples, with what is not known of
/// that variance itself. 0 where the share is 0 or 1.
fn design_effect(spread: &Spread, samples: f64) -> f64 {
    let independent = spread.ratio * (1.0 - spread.ratio) / samples;
    if independent <= 0.0 {
        return 0.0;
    }
    let freedom = spread.batches as f64 - 1.0;
    let student = student_end(freedom) / normal_quantile(1.0 - TAIL);
    spread.standard_error * spread.standard_error * student * student / independent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(len: u64) -> Vec<f64> {
        // A permutation of 1 to `len`, a prime less one.
        (1..=len).map(|i| (i * 7919 % (len + 1)) as f64).collect()
    }

    #[test]
    fn nearest_rank() {
        let series = shuffled(1008);
        let sample = Sample::new(&series);
        let quantiles = Quantiles::new(&sample);
        for (p, value) in [(0.5, 504.0), (0.9, 908.0), (0.99, 998.0), (1.0, 1008.0)] {
            assert_eq!(quantiles.quantile(p).value, value, "{p}");
        }
        assert_eq!(of_series(&[3.0, 1.0, 2.0], 0.5).value, 2.0);
        assert_eq!(of_series(&[-3.0, -1.0, -2.0], 0.0).value, -3.0);
        assert!(of_series(&[], 0.5).value.is_nan());
    }

    #[test]
    fn independent_samples_have_the_binomial_interval() {
        let quantile = of_series(&shuffled(10_006), 0.5);
        // 1.96 times half the square root of 10,006: 98 ranks, and some for the
        // variance being estimated.
        assert!((4895.0..4907.0).contains(&quantile.low), "{quantile:?}");
        assert!((5100.0..5112.0).contains(&quantile.high), "{quantile:?}");
    }

    #[test]
    fn an_upper_bound_beyond_the_sample_is_carried_on_along_a_tail() {
        let few = of_series(&shuffled(100), 0.99);
        assert!(few.high > 100.0 && few.low < 99.0, "{few:?}");
        // The nearest percentile of which a bound is within the sample leads there.
        let nearer = [0.02, 0.04, 0.08, 0.16, 0.32].into_iter();
        let mut nearer = nearer.map(|share| (share, of_series(&shuffled(100), 1.0 - share).high));
        let within = nearer.find(|(_, high)| *high <= 100.0);
        let (share, high) = within.expect("a bound");
        let per_factor = (high - 50.0) / (0.5 / share).ln();
        let carried_on = high + per_factor * (share / 0.01).ln();
        // Not less than what was seen, carried on to half as many.
        let least = few.value + per_factor * std::f64::consts::LN_2;
        assert!(
            (few.high - carried_on.max(least)).abs() < 1e-6,
            "{few:?} {carried_on} {least}"
        );
        // A longer tail, a higher bound; in units of time as well.
        let stretched: Vec<f64> = shuffled(100).iter().map(|value| 7.0 * value).collect();
        let bound = of_series(&stretched, 0.99).high;
        assert!((bound / few.high - 7.0).abs() < 1e-6, "{bound}");
    }

    #[test]
    fn bounds_that_nothing_leads_to_are_unknown() {
        let none = of_series(&[1.0, 2.0], 0.99);
        assert!(none.low.is_nan() && none.high.is_nan());
        // A lower bound below the sample is never guessed.
        let few = of_series(&shuffled(100), 0.01);
        assert!(few.low.is_nan() && few.high.is_finite(), "{few:?}");
    }

    #[test]
    fn probability_agrees_with_the_interval_and_reaches_beyond() {
        let series = shuffled(10_006);
        let sample = Sample::new(&series);
        let quantiles = Quantiles::new(&sample);
        for p in [0.1, 0.5, 0.9, 0.99] {
            let interval = quantiles.quantile(p);
            assert!(quantiles.probability_at_most(p, interval.high) >= 0.975);
            assert!(quantiles.probability_at_most(p, interval.low - 1.0) <= 0.025);
            let middle = quantiles.probability_at_most(p, interval.value);
            assert!((0.35..0.65).contains(&middle), "{p}: {middle}");
            assert!(quantiles.probability_at_most(p, 1e9) > 0.999_999);
            assert!(quantiles.probability_at_most(p, -1.0) < 1e-6);
        }
    }

    #[test]
    fn correlation_widens_the_interval() {
        let independent = shuffled(10_006);
        let clustered: Vec<f64> = (0..10_006).map(|i| independent[i / 20 * 20]).collect();
        let width = |series: &[f64]| {
            let interval = of_series(series, 0.9);
            interval.high - interval.low
        };
        assert!(width(&clustered) > 3.0 * width(&independent));
    }

    #[test]
    fn shares_are_never_certain() {
        let all = share_of(&[true; 1000]);
        assert_eq!((all.value, all.high), (1.0, 1.0));
        // Rule of three and a bit: 3.689 of 1000.
        assert!((all.low - 0.9963).abs() < 1e-4, "{all:?}");
        let none = share_of(&[false; 1000]);
        assert!((none.high - 0.0037).abs() < 1e-4);
        let series = shuffled(1008);
        let sample = Sample::new(&series);
        let half = Quantiles::new(&sample).share_at_most(504.0);
        assert_eq!(half.value, 0.5);
        assert!(half.low > 0.45 && half.high < 0.55);
        assert!(share_of(&[true; 3]).low.is_nan());
    }

    #[test]
    fn infinite_samples_are_beyond_all_others() {
        let mut series = shuffled(1008);
        for value in series.iter_mut().step_by(10) {
            *value = f64::INFINITY;
        }
        let sample = Sample::new(&series);
        let quantiles = Quantiles::new(&sample);
        assert_eq!(quantiles.quantile(0.99).value, f64::INFINITY);
        assert!(quantiles.quantile(0.5).high.is_finite());
        assert!(quantiles.probability_at_most(0.99, 1e12) < 0.025);
    }
}
