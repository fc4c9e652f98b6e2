//! What is found when first asked for, and then read without a lock.
//! Every price is a pure function of its place, so it does not matter which
//! thread finds it, or whether two do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a NaN no price has: marks an entry as empty.
pub(super) const EMPTY: u64 = u64::MAX;

/// So many places for tables, none of which is there yet.
pub(super) fn places<T>(count: usize) -> Box<[OnceLock<T>]> {
    (0..count).map(|_| OnceLock::new()).collect()
}

pub(super) fn empty() -> AtomicU64 {
    AtomicU64::new(EMPTY)
}

#[inline]
pub(super) fn read_or_fill(entry: &AtomicU64, price: impl FnOnce() -> f64) -> f64 {
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
