//! Tables that remember prices: filled when first asked, shared by threads
//! without locks.

use super::curve::Curve;
use super::lazy::{empty, places, read_or_fill};
use crate::number::{narrow, whole_u32};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type Page = Box<[AtomicU64]>;

fn empty_page() -> Page {
    (0..PAGE).map(|_| empty()).collect()
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
            pages: places(pages),
            beyond: Curve::new(),
            bent: OnceLock::new(),
        }
    }

    /// Counts below this one are priced one by one.
    pub(super) fn exact_below(&self) -> u32 {
        narrow::<u32, _>(self.pages.len() * PAGE)
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
        let at_knot = |count: f64| price(whole_u32(count));
        if let Some(cell) = self.beyond.cell(f64::from(count), &at_knot) {
            return cell.at(f64::from(count));
        }
        let bent = self.bent.get_or_init(|| places(BENT_PAGES));
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
    let page = page.get_or_init(empty_page);
    page.get(index % PAGE)
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
