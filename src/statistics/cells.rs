//! A run cut into consecutive cells, from whose sums every standard error follows.
//!
//! All figures here are ratios of two sums over the run (a mean: values over their
//! number; a rate: events over seconds; a share: some samples over all), so one estimator
//! serves them all: nonoverlapping batch means of the ratio's residuals.

/// The most cells. More would not make a variance better known for long, and every
/// doubling asks for a run twice as long before cells are independent.
pub(super) const MAX_CELLS: usize = 64;

/// The fewest batches from which a variance is taken. Below it Student's quantile and
/// the variance's own spread make intervals wide and unsteady (Schmeiser 1982 finds
/// little to gain above 10 to 30 batches).
pub(super) const MIN_BATCHES: usize = 16;

/// The size of the randomness test: batches that are random fail it this often, and
/// half as many, twice as large, are taken (N-Skart's value).
const RANDOMNESS_QUANTILE: f64 = 0.841_621_233_572_914_2; // normal quantile of 0.8

/// Sums of numerator and denominator per cell, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cells {
    len: usize,
    numerators: [f64; MAX_CELLS],
    denominators: [f64; MAX_CELLS],
}

/// What the cells say about the ratio of all numerators to all denominators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    /// The ratio.
    pub ratio: f64,
    /// Its standard error, correlation of neighbouring batches included; NaN if there
    /// are too few cells.
    pub standard_error: f64,
    /// The number of batches it was taken from.
    pub batches: usize,
    /// The skewness of batches.
    pub skewness: f64,
    /// Whether these batches passed the test for randomness.
    pub independent: bool,
}

impl Cells {
    /// `numerator(i) / denominator(i)` for `i` below `len`, put together to at most
    /// [`MAX_CELLS`] cells of about as many.
    pub fn gather(
        len: usize,
        numerator: impl Fn(usize) -> f64,
        denominator: impl Fn(usize) -> f64,
    ) -> Self {
        let mut cells = Self {
            len: len.min(MAX_CELLS),
            numerators: [0.0; MAX_CELLS],
            denominators: [0.0; MAX_CELLS],
        };
        if len == cells.len {
            // Divisions take longer than what is counted.
            for cell in 0..len {
                cells.numerators[cell] = numerator(cell);
                cells.denominators[cell] = denominator(cell);
            }
            return cells;
        }
        for cell in 0..cells.len {
            for index in bounds(cell, cells.len, len) {
                cells.numerators[cell] += numerator(index);
                cells.denominators[cell] += denominator(index);
            }
        }
        cells
    }

    /// The ratio with its standard error, from the most batches that look independent.
    pub fn spread(&self) -> Spread {
        let (mut numerators, mut denominators) = (self.numerators, self.denominators);
        let total: f64 = denominators[..self.len].iter().sum();
        let ratio = numerators[..self.len].iter().sum::<f64>() / total;
        let mut batches = self.len;
        if batches < MIN_BATCHES || total <= 0.0 {
            return Spread {
                ratio,
                standard_error: f64::NAN,
                batches,
                skewness: 0.0,
                independent: false,
            };
        }
        let mut found: Option<Spread> = None;
        loop {
            let moments = Moments::of(&numerators[..batches], &denominators[..batches], ratio);
            let spread = moments.spread(ratio);
            found = match found {
                Some(best) if best.independent => Some(Spread {
                    standard_error: best.standard_error.max(spread.standard_error),
                    ..best
                }),
                _ => Some(spread),
            };
            if batches / 2 < MIN_BATCHES {
                return found.unwrap_or(spread);
            }
            batches = halve(&mut numerators, &mut denominators, batches);
        }
    }
}

/// The items of `cell` if `items` are dealt to `cells` in order, as evenly as possible.
pub(super) fn bounds(cell: usize, cells: usize, items: usize) -> std::ops::Range<usize> {
    cell * items / cells..(cell + 1) * items / cells
}

/// What differs by less, as a share, is the same: differences of times are off by some
/// units in the last place of those times, which are larger the later it is, so that
/// equal latencies seem to be correlated.
pub(super) const ROUNDING: f64 = 1e-7;

/// Puts neighbours together; the last of an odd number joins the last pair.
fn halve(numerators: &mut [f64], denominators: &mut [f64], len: usize) -> usize {
    let half = len / 2;
    for values in [numerators, denominators] {
        for pair in 0..half {
            values[pair] = values[2 * pair] + values[2 * pair + 1];
        }
        if len % 2 == 1 {
            values[half - 1] += values[len - 1];
        }
    }
    half
}

/// Moments of batches' residuals, each in units of the ratio.
struct Moments {
    batches: usize,
    variance: f64,
    lag_one: f64,
    skewness: f64,
    /// Sum of squared differences of neighbours over twice the sum of squares.
    von_neumann: f64,
}

impl Moments {
    fn of(numerators: &[f64], denominators: &[f64], ratio: f64) -> Self {
        let batches = numerators.len();
        let count = batches as f64;
        let mean_denominator = denominators.iter().sum::<f64>() / count;
        let residual =
            |index: usize| (numerators[index] - ratio * denominators[index]) / mean_denominator;
        let (mut squares, mut cubes, mut products, mut differences) = (0.0, 0.0, 0.0, 0.0);
        let mut previous = 0.0;
        for index in 0..batches {
            let value = residual(index);
            squares += value * value;
            cubes += value * value * value;
            if index > 0 {
                products += value * previous;
                differences += (value - previous) * (value - previous);
            }
            previous = value;
        }
        if (squares / count).sqrt() <= ROUNDING * ratio.abs() {
            (squares, cubes, products, differences) = (0.0, 0.0, 0.0, 0.0);
        }
        let variance = squares / (count - 1.0);
        let share = |value: f64| if squares > 0.0 { value / squares } else { 0.0 };
        let skewness = if variance > 0.0 {
            count / ((count - 1.0) * (count - 2.0)) * cubes / variance.powf(1.5)
        } else {
            0.0
        };
        Self {
            batches,
            variance,
            lag_one: share(products),
            skewness,
            von_neumann: if squares > 0.0 {
                differences / (2.0 * squares)
            } else {
                1.0
            },
        }
    }

    /// Von Neumann's test (1941) of randomness against positive correlation.
    fn is_random(&self) -> bool {
        let count = self.batches as f64;
        let score = (1.0 - self.von_neumann) * ((count * count - 1.0) / (count - 2.0)).sqrt();
        score <= RANDOMNESS_QUANTILE
    }

    /// The standard error, with the variance of an autoregressive process of order one
    /// for what correlation is left, as in N-Skart. Negative correlation, which would
    /// make it smaller, is not relied on.
    fn spread(&self, ratio: f64) -> Spread {
        let lag_one = self.lag_one.clamp(0.0, 0.9);
        let inflation = (1.0 + lag_one) / (1.0 - lag_one);
        Spread {
            ratio,
            standard_error: (inflation * self.variance / self.batches as f64).sqrt(),
            batches: self.batches,
            skewness: self.skewness,
            independent: self.is_random(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_one_cell() {
        for (cells, items) in [(16, 16), (16, 17), (64, 1000), (64, 64), (3, 10)] {
            let mut next = 0;
            for cell in 0..cells {
                let range = bounds(cell, cells, items);
                assert_eq!(range.start, next);
                assert!(range.len() >= items / cells);
                next = range.end;
            }
            assert_eq!(next, items);
        }
    }

    #[test]
    fn the_error_of_independent_values_is_the_textbook_s() {
        let values: Vec<f64> = (0..64u32).map(|i| f64::from((i * 37) % 64)).collect();
        let spread = Cells::gather(64, |i| values[i], |_| 1.0).spread();
        let mean = 31.5;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 63.0;
        assert_eq!(spread.batches, 64);
        assert!(spread.independent);
        assert!((spread.ratio - mean).abs() < 1e-12);
        assert!((spread.standard_error - (variance / 64.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_trend_is_never_random() {
        let spread = Cells::gather(6400, |i| i as f64, |_| 1.0).spread();
        assert_eq!(spread.batches, 16);
        assert!(!spread.independent);
    }

    #[test]
    fn constants_have_no_error_and_few_cells_have_none_known() {
        let constant = Cells::gather(1000, |_| 2.0, |_| 1.0).spread();
        assert_eq!(constant.standard_error, 0.0);
        assert!(constant.independent);
        let few = Cells::gather(15, |_| 2.0, |_| 1.0).spread();
        assert_eq!(few.ratio, 2.0);
        assert!(few.standard_error.is_nan());
        assert!(Cells::gather(0, |_| 2.0, |_| 1.0).spread().ratio.is_nan());
    }

    #[test]
    fn rounding_is_no_spread() {
        let rounded = |index: usize| 2.0 + if index < 500 { 0.0 } else { 1e-12 };
        let spread = Cells::gather(1000, rounded, |_| 1.0).spread();
        assert_eq!((spread.standard_error, spread.independent), (0.0, true));
    }

    #[test]
    fn an_odd_number_of_cells_loses_nothing() {
        let mut numerators = [1.0, 2.0, 3.0, 4.0, 5.0];
        let mut denominators = [1.0; 5];
        assert_eq!(halve(&mut numerators, &mut denominators, 5), 2);
        assert_eq!(numerators[..2], [3.0, 12.0]);
        assert_eq!(denominators[..2], [2.0, 3.0]);
    }
}
