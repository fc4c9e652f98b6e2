//! A table of results that threads share without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots of the table, a power of two. Results beyond are computed anew.
const SLOTS: usize = 1 << 15;
/// Slots looked at for one key.
const PROBES: usize = 16;
/// Marks a slot whose value is still being written: no time has these bits.
const PENDING: u64 = u64::MAX;
/// Marks a free slot: no key has these bits.
const FREE: u64 = u64::MAX;

/// Times by key. A key is written once and never changes, so a reader needs one
/// load of the key and one of the value.
#[derive(Debug)]
pub(super) struct Memo {
    keys: Vec<AtomicU64>,
    values: Vec<AtomicU64>,
}

impl Memo {
    pub(super) fn new() -> Self {
        let full = |bits| (0..SLOTS).map(|_| AtomicU64::new(bits)).collect();
        Self {
            keys: full(FREE),
            values: full(PENDING),
        }
    }

    fn slots(key: u64) -> impl Iterator<Item = usize> {
        let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        (0..PROBES).map(move |probe| (start + probe) % SLOTS)
    }

    pub(super) fn get(&self, key: u64) -> Option<f64> {
        for slot in Self::slots(key) {
            match self.keys[slot].load(Ordering::Acquire) {
                FREE => return None,
                found if found == key => {
                    let bits = self.values[slot].load(Ordering::Acquire);
                    return (bits != PENDING).then(|| f64::from_bits(bits));
                }
                _ => {}
            }
        }
        None
    }

    /// Keeps a time if there is room.
    pub(super) fn put(&self, key: u64, time: f64) {
        for slot in Self::slots(key) {
            let taken =
                self.keys[slot].compare_exchange(FREE, key, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_ok() || taken == Err(key) {
                self.values[slot].store(time.to_bits(), Ordering::Release);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_by_every_thread() {
        let memo = Memo::new();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let memo = &memo;
                scope.spawn(move || {
                    for key in 0..2000 {
                        if (key + thread) % 2 == 0 {
                            memo.put(key, key as f64);
                        } else if let Some(found) = memo.get(key) {
                            assert_eq!(found, key as f64);
                        }
                    }
                });
            }
        });
        assert!((0..2000).all(|key| memo.get(key) == Some(key as f64)));
        assert_eq!(memo.get(5000), None);
    }
}
