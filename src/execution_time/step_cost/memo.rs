//! Tables that remember prices: filled when first asked, shared by threads
//! without locks. Every entry is a pure function of its key, so it does not
//! matter which thread fills it, or whether two do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a NaN no price has: marks an entry as empty.
const EMPTY: u64 = u64::MAX;
const PAGE: usize = 256;
const PAGES: usize = 512;

type Page = Box<[AtomicU64]>;

fn empty_page(len: usize) -> Page {
    (0..len).map(|_| AtomicU64::new(EMPTY)).collect()
}

fn read_or_fill(entry: &AtomicU64, price: impl FnOnce() -> f64) -> f64 {
    let bits = entry.load(Relaxed);
    if bits != EMPTY {
        return f64::from_bits(bits);
    }
    let value = price();
    entry.store(value.to_bits(), Relaxed);
    value
}

/// Prices by a count (tokens, rows), in pages that appear when touched. Counts
/// beyond the last page are priced anew each time.
#[derive(Debug)]
pub(super) struct CountTable {
    pages: Box<[OnceLock<Page>]>,
}

impl CountTable {
    pub(super) fn new() -> Self {
        Self {
            pages: (0..PAGES).map(|_| OnceLock::new()).collect(),
        }
    }

    #[inline]
    pub(super) fn get(&self, count: u32, price: impl FnOnce() -> f64) -> f64 {
        let index = count as usize;
        match self.pages.get(index / PAGE) {
            Some(page) => {
                let page = page.get_or_init(|| empty_page(PAGE));
                read_or_fill(&page[index % PAGE], price)
            }
            None => price(),
        }
    }
}

/// Knots per octave of context length: the error between them is below 0.2 %
/// even where a measured curve bends (a test holds it there).
const KNOTS_PER_OCTAVE_LOG2: u32 = 4;
const OCTAVES: usize = 20;
const KNOTS: usize = (OCTAVES << KNOTS_PER_OCTAVE_LOG2) + 1;
const MANTISSA_BITS: u32 = 52;
const CURVES: usize = 2048;

/// Prices of decode attention: one piecewise-linear curve over the mean context
/// for every batch size.
#[derive(Debug)]
pub(super) struct DecodeCurves {
    curves: Box<[OnceLock<Page>]>,
}

impl DecodeCurves {
    pub(super) fn new() -> Self {
        Self {
            curves: (0..CURVES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Price of `batch` decodes of `kv_tokens` keys each (at least 1).
    #[inline]
    pub(super) fn get(&self, batch: u32, kv_tokens: f64, price: impl Fn(f64) -> f64) -> f64 {
        let Some(curve) = self.curves.get(batch as usize) else {
            return price(kv_tokens);
        };
        // Cell and position in it straight from the bits: the exponent is the
        // octave, the leading mantissa bits the cell, the rest the position.
        let bits = kv_tokens.to_bits();
        let shift = MANTISSA_BITS - KNOTS_PER_OCTAVE_LOG2;
        let origin = 1.0f64.to_bits() >> shift;
        let Some(cell) = (bits >> shift).checked_sub(origin) else {
            return price(kv_tokens);
        };
        let cell = cell as usize;
        if cell + 1 >= KNOTS || kv_tokens.is_sign_negative() {
            return price(kv_tokens);
        }
        let curve = curve.get_or_init(|| empty_page(KNOTS));
        let low = read_or_fill(&curve[cell], || price(knot(cell)));
        let high = read_or_fill(&curve[cell + 1], || price(knot(cell + 1)));
        let position = (bits & ((1 << shift) - 1)) as f64 / (1u64 << shift) as f64;
        low + (high - low) * position
    }
}

/// Context length of a knot.
fn knot(index: usize) -> f64 {
    let shift = MANTISSA_BITS - KNOTS_PER_OCTAVE_LOG2;
    f64::from_bits(((1.0f64.to_bits() >> shift) + index as u64) << shift)
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
    use std::cell::Cell;

    #[test]
    fn counts_are_priced_once_and_beyond_the_table_each_time() {
        let table = CountTable::new();
        let calls = Cell::new(0);
        let price = |count: u32| {
            calls.set(calls.get() + 1);
            f64::from(count)
        };
        for _ in 0..3 {
            assert_eq!(table.get(1000, || price(1000)), 1000.0);
        }
        assert_eq!(calls.get(), 1);
        let far = (PAGE * PAGES) as u32;
        for _ in 0..2 {
            assert_eq!(table.get(far, || price(far)), f64::from(far));
        }
        assert_eq!(calls.get(), 3);
    }

    #[test]
    fn knots_are_the_powers_of_two_and_even_steps_between() {
        assert_eq!(knot(0), 1.0);
        assert_eq!(knot(1), 1.0625);
        assert_eq!(knot(16), 2.0);
        assert_eq!(knot(17), 2.125);
        assert_eq!(knot(KNOTS - 1), 1048576.0);
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
