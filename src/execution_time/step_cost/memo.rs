//! Tables that remember prices: filled when first asked, shared by threads
//! without locks. Every entry is a pure function of its key, so it does not
//! matter which thread fills it, or whether two do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a NaN no price has: marks an entry as empty.
const EMPTY: u64 = u64::MAX;
type Page = Box<[AtomicU64]>;

fn empty_page(len: usize) -> Page {
    (0..len).map(|_| AtomicU64::new(EMPTY)).collect()
}

fn empty_pages(len: usize) -> Box<[OnceLock<Page>]> {
    (0..len).map(|_| OnceLock::new()).collect()
}

#[inline]
fn read_or_fill(entry: &AtomicU64, price: impl FnOnce() -> f64) -> f64 {
    match entry.load(Relaxed) {
        EMPTY => fill(entry, price),
        bits => f64::from_bits(bits),
    }
}

/// Happens once per entry: kept out of where prices are read.
#[cold]
#[inline(never)]
fn fill(entry: &AtomicU64, price: impl FnOnce() -> f64) -> f64 {
    let value = price();
    entry.store(value.to_bits(), Relaxed);
    value
}

/// Knots per octave, as a power of two: 1.1 to 1.6 % apart.
const KNOTS_LOG2: u32 = 6;
const KNOTS_PER_OCTAVE: usize = 1 << KNOTS_LOG2;
/// Octaves from the first knot on: a factor of 65,536.
const OCTAVES: usize = 16;
/// Shortest argument with a knot. Below, measured curves are not smooth (they
/// jump between one and two keys).
const FIRST_KNOT: f64 = 16.0;
/// Largest bend over three knots, relative. Where a curve bends more (measured
/// tables have corners where neighbours are missing), it is priced anew.
const BEND_MAX: f64 = 3e-3;
const MANTISSA_BITS: u32 = 52;
/// One over the distance of the first knots.
const FIRST_PER_WIDTH: f64 = KNOTS_PER_OCTAVE as f64 / FIRST_KNOT;
/// Mantissa bits below those that choose the knot.
const POSITION_BITS: u32 = MANTISSA_BITS - KNOTS_LOG2;

/// A price as a function of one figure: piecewise linear over knots that are
/// even within each octave and priced when first needed.
#[derive(Debug)]
struct Curve {
    octaves: Box<[OnceLock<Page>]>,
}

impl Curve {
    fn new() -> Self {
        Self {
            octaves: empty_pages(OCTAVES),
        }
    }

    #[inline]
    fn get(&self, x: f64, price: impl Fn(f64) -> f64) -> f64 {
        match self.cell(x, &price) {
            Some(cell) => cell.at(x),
            None => price(x),
        }
    }

    /// The cell `x` is in; none where the curve is not known or bends too much.
    #[inline]
    fn cell(&self, x: f64, price: &impl Fn(f64) -> f64) -> Option<Cell> {
        // Octave, knot and position straight from the bits: the exponent, the
        // leading bits of the mantissa, and the rest of them.
        let bits = x.to_bits();
        let octave = (bits >> MANTISSA_BITS).wrapping_sub(FIRST_KNOT.to_bits() >> MANTISSA_BITS);
        let octave = octave as usize;
        let page = self.octaves.get(octave)?;
        let page = page.get_or_init(|| empty_page(KNOTS_PER_OCTAVE + 1));
        let cell = (bits >> POSITION_BITS) as usize % KNOTS_PER_OCTAVE;
        let at = |index: usize| read_or_fill(&page[index], || price(knot(octave, index)));
        // Cells come in pairs, whose three knots tell how straight the curve is.
        let pair = cell & !1;
        let knots = [at(pair), at(pair + 1), at(pair + 2)];
        let bend = (knots[0] + knots[2] - 2.0 * knots[1]).abs();
        let (low, high) = (knots[cell - pair], knots[cell - pair + 1]);
        (bend <= BEND_MAX * knots[1]).then(|| Cell::new(bits, octave, low, high))
    }
}

/// A straight piece of a curve.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Least argument in it, and the least beyond it.
    from: f64,
    to: f64,
    /// One over the difference, a power of two.
    per_width: f64,
    low: f64,
    rise: f64,
}

impl Cell {
    /// Reaches nothing.
    const NONE: Self = Self {
        from: 0.0,
        to: 0.0,
        per_width: 0.0,
        low: 0.0,
        rise: 0.0,
    };

    /// The cell of the argument with these `bits`, in this octave.
    #[inline]
    fn new(bits: u64, octave: usize, low: f64, high: f64) -> Self {
        let within = (1 << POSITION_BITS) - 1;
        // Cells of an octave are twice as wide as those of the one before: exponents say
        // so without a division.
        let per_width = FIRST_PER_WIDTH.to_bits() - ((octave as u64) << MANTISSA_BITS);
        Self {
            from: f64::from_bits(bits & !within),
            to: f64::from_bits((bits | within) + 1),
            per_width: f64::from_bits(per_width),
            low,
            rise: high - low,
        }
    }

    /// Whether `x`, not less than the argument it was made for, is in it.
    #[inline]
    fn reaches(&self, x: f64) -> bool {
        x < self.to
    }

    #[inline]
    fn at(&self, x: f64) -> f64 {
        self.low + self.rise * ((x - self.from) * self.per_width)
    }
}

/// Argument of a knot; the last of an octave is the first of the next.
fn knot(octave: usize, index: usize) -> f64 {
    let step = FIRST_KNOT * (1u64 << octave) as f64 / KNOTS_PER_OCTAVE as f64;
    step * (KNOTS_PER_OCTAVE + index) as f64
}

const PAGE: usize = 256;
const PAGES: usize = 4;
/// Pages of counts at which the curve may bend too much: up to 65,536.
const BENT_PAGES: usize = 256;

/// Prices by a count (tokens, rows): every small count, and a curve over the
/// larger ones but for those where it is not straight.
#[derive(Debug)]
pub(super) struct CountTable {
    pages: Box<[OnceLock<Page>]>,
    beyond: Curve,
    /// Prices of larger counts where the curve bends.
    bent: OnceLock<Box<[OnceLock<Page>]>>,
}

impl CountTable {
    pub(super) fn new() -> Self {
        Self::with_pages(PAGES)
    }

    /// With `pages` pages of counts that are priced one by one.
    pub(super) fn with_pages(pages: usize) -> Self {
        Self {
            pages: empty_pages(pages),
            beyond: Curve::new(),
            bent: OnceLock::new(),
        }
    }

    /// Counts below this one are priced one by one.
    pub(super) fn exact_below(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    #[inline]
    pub(super) fn get(&self, count: u32, price: impl Fn(u32) -> f64) -> f64 {
        match entry(&self.pages, count) {
            Some(entry) => read_or_fill(entry, || price(count)),
            None => self.get_beyond(count, price),
        }
    }

    fn get_beyond(&self, count: u32, price: impl Fn(u32) -> f64) -> f64 {
        // From here on all knots are whole numbers.
        let at_knot = |count: f64| price(count as u32);
        if let Some(cell) = self.beyond.cell(f64::from(count), &at_knot) {
            return cell.at(f64::from(count));
        }
        let bent = self.bent.get_or_init(|| empty_pages(BENT_PAGES));
        match entry(bent, count) {
            Some(entry) => read_or_fill(entry, || price(count)),
            None => price(count),
        }
    }
}

/// The entry of `count`; none beyond the pages.
#[inline]
fn entry(pages: &[OnceLock<Page>], count: u32) -> Option<&AtomicU64> {
    let index = count as usize;
    let page = pages.get(index / PAGE)?;
    let page = page.get_or_init(|| empty_page(PAGE));
    page.get(index % PAGE)
}

/// Most decodes of a step with a curve of their own.
const CURVES: usize = 2048;

/// Prices of decode attention: a curve over the mean context for every batch
/// size.
#[derive(Debug)]
pub(super) struct DecodeCurves {
    curves: Box<[OnceLock<Curve>]>,
}

impl DecodeCurves {
    pub(super) fn new() -> Self {
        Self {
            curves: (0..CURVES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Price of `batch` decodes of `kv_tokens` keys each.
    #[inline]
    pub(super) fn get(&self, batch: u32, kv_tokens: f64, price: impl Fn(f64) -> f64) -> f64 {
        match self.curves.get(batch as usize) {
            Some(curve) => curve.get_or_init(Curve::new).get(kv_tokens, price),
            None => price(kv_tokens),
        }
    }

    /// The same for steps in a row, in which the decodes read `kv_tokens` of what
    /// `first` is in the first step and `more` more in each other: calls `each` with
    /// what comes with a step, and its price.
    #[inline]
    pub(super) fn get_all<T>(
        &self,
        batch: u32,
        [first, more]: [f64; 2],
        kv_tokens: impl Fn(f64) -> f64,
        steps: &mut [T],
        price: impl Fn(f64) -> f64,
        each: impl Fn(&mut T, f64),
    ) {
        let curve = self.curves.get(batch as usize);
        let curve = curve.map(|curve| curve.get_or_init(Curve::new));
        let mut cell = Cell::NONE;
        let mut tokens = first;
        for step in steps {
            let x = kv_tokens(tokens);
            tokens += more;
            if !cell.reaches(x) {
                match curve.and_then(|curve| curve.cell(x, &price)) {
                    Some(found) => cell = found,
                    None => {
                        each(step, price(x));
                        continue;
                    }
                }
            }
            each(step, cell.at(x));
        }
    }
}

const SLOTS_LOG2: u32 = 13;

/// Prices of prompt chunks by exact shape: a direct-mapped cache. A slot holds
/// the value and the key xor the value, so that a torn pair of two writers
/// matches no key and reads as a miss.
#[derive(Debug)]
pub(super) struct ChunkCache {
    slots: OnceLock<Box<[[AtomicU64; 2]]>>,
}

impl ChunkCache {
    pub(super) fn new() -> Self {
        Self {
            slots: OnceLock::new(),
        }
    }

    #[inline]
    pub(super) fn get(&self, shape: ChunkShape, price: impl FnOnce() -> f64) -> f64 {
        let Some(key) = shape.key() else {
            return price();
        };
        let slots = self.slots.get_or_init(|| {
            (0..1usize << SLOTS_LOG2)
                .map(|_| [AtomicU64::new(0), AtomicU64::new(0)])
                .collect()
        });
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SLOTS_LOG2);
        let [check, value] = &slots[hash as usize];
        let bits = value.load(Relaxed);
        if check.load(Relaxed) ^ bits == key {
            return f64::from_bits(bits);
        }
        let bits = price().to_bits();
        value.store(bits, Relaxed);
        check.store(key ^ bits, Relaxed);
        f64::from_bits(bits)
    }
}

/// Equal prompt chunks of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkShape {
    pub(super) batch: u32,
    pub(super) new_tokens: u32,
    pub(super) context_tokens: u32,
}

impl ChunkShape {
    /// The shape in 64 bits, never 0; none if it does not fit.
    fn key(self) -> Option<u64> {
        const TOKENS: u32 = 1 << 25;
        const BATCH: u32 = 1 << 14;
        if self.new_tokens >= TOKENS || self.context_tokens >= TOKENS || self.batch >= BATCH {
            return None;
        }
        let key = u64::from(self.batch) << 50
            | u64::from(self.new_tokens) << 25
            | u64::from(self.context_tokens);
        (key != 0).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_counts_are_priced_once_and_large_ones_between_knots() {
        let table = CountTable::new();
        let calls = std::cell::Cell::new(0);
        let price = |count: u32| {
            calls.set(calls.get() + 1);
            5.0 + f64::from(count)
        };
        for _ in 0..3 {
            assert_eq!(table.get(1000, price), 1005.0);
        }
        assert_eq!(calls.get(), 1);
        for count in 4096..4160 {
            assert_eq!(table.get(count, price), 5.0 + f64::from(count));
        }
        assert_eq!(calls.get(), 4, "three knots for 64 counts");
        let far = 1 << 24;
        assert_eq!(table.get(far, price), 5.0 + f64::from(far));
    }

    #[test]
    fn large_counts_where_the_curve_bends_are_priced_once() {
        let table = CountTable::new();
        let calls = std::cell::Cell::new(0);
        let zigzag = |count: u32| {
            calls.set(calls.get() + 1);
            f64::from(count) * f64::from(10 + count / 64 % 2)
        };
        let all = || (4096..4160).map(|count| (count, table.get(count, zigzag)));
        assert!(all().all(|(count, price)| price == zigzag(count)));
        calls.set(0);
        assert_eq!(all().count(), 64);
        assert_eq!(calls.get(), 0);
    }

    #[test]
    fn knots_are_even_within_octaves() {
        assert_eq!(knot(0, 0), 16.0);
        assert_eq!(knot(0, 1), 16.25);
        assert_eq!(knot(0, 64), 32.0);
        assert_eq!(knot(1, 0), 32.0);
        assert_eq!(knot(6, 1), 1040.0);
    }

    #[test]
    fn a_straight_line_is_reproduced_between_knots() {
        let curves = DecodeCurves::new();
        let line = |x: f64| 3.0 + 0.25 * x;
        for x in [1.0, 1.03, 2.5, 777.7, 4096.0, 123456.7, 2e6] {
            let got = curves.get(8, x, line);
            assert!((got - line(x)).abs() < 1e-9 * line(x), "{x}: {got}");
        }
    }

    #[test]
    fn a_step_in_the_curve_is_priced_anew() {
        let curves = DecodeCurves::new();
        let jump = |x: f64| if x < 1000.0 { 1.0 } else { 1.5 };
        for x in [990.0, 999.0, 1000.0, 1001.0, 1010.0] {
            assert_eq!(curves.get(8, x, jump), jump(x), "{x}");
        }
    }

    #[test]
    fn many_prices_are_those_asked_for_one_by_one() {
        let curve = |x: f64| if x < 3000.0 { x.sqrt() } else { 2.0 * x.sqrt() };
        let arguments = || (0..4000).map(|step| 10.0 + 1.25 * f64::from(step));
        for batch in [3, CURVES as u32 + 1] {
            let (together, alone) = (DecodeCurves::new(), DecodeCurves::new());
            let mut prices = vec![0.0; 4000];
            let set = |price: &mut f64, found| *price = found;
            together.get_all(batch, [10.0, 1.25], |x| x, &mut prices, curve, set);
            let expected: Vec<f64> = (arguments()).map(|x| alone.get(batch, x, curve)).collect();
            assert_eq!(prices, expected);
        }
    }

    #[test]
    fn chunk_shapes_do_not_collide() {
        let cache = ChunkCache::new();
        for round in 0..2 {
            for new_tokens in 1..200 {
                for context_tokens in 0..100 {
                    let shape = ChunkShape {
                        batch: 1 + new_tokens % 3,
                        new_tokens,
                        context_tokens,
                    };
                    let value = f64::from(new_tokens * 1000 + context_tokens);
                    let got = cache.get(shape, || value);
                    assert_eq!(got, value, "round {round}");
                }
            }
        }
    }
}
