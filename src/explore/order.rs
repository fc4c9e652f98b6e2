//! In which order a sweep's runs are claimed: a few from all over it first, then one
//! after the other.
//!
//! Runs that are neighbours share prices and are written together, so most are done in
//! order. But along a sweep runs get longer or shorter, and what is left cannot be
//! judged by what was done from its beginning: the first few are a sample of each part
//! of it ([`super::remaining`] draws the conclusions). Results do not depend on the
//! order.

use crate::number::narrow;
use crate::permutation::Permutation;

/// Parts a sweep is sampled in, at most.
pub const PARTS_MAX: u64 = 128;
/// Runs of a part, at least.
const PART_RUNS_MIN: u64 = 8;
/// Stream of draws for the place of a sample in its part.
const SAMPLE_STREAM: u64 = 0x6f72_6465_725f_3031;

/// The order in which `count` places are claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    count: u64,
    parts: u64,
    /// Claimed first, one of each part; the first few of them are from all over, too.
    samples: Vec<u64>,
    /// The same in rising order.
    rising: Vec<u64>,
}

impl Order {
    /// The order of so many, of which at most `samples` are taken from all over first.
    pub fn new(count: u64, samples: u64) -> Self {
        let parts = (count / PART_RUNS_MIN).min(samples).clamp(1, PARTS_MAX);
        // At a random place in each part: at regular ones they would all have the same
        // value on axes that repeat.
        let sample = |part: u64| {
            let places = part_places(count, parts, part);
            let length = places.end - places.start;
            places.start + Permutation::new(length, part, SAMPLE_STREAM).at(0)
        };
        let shuffled = Permutation::new(parts, 0, SAMPLE_STREAM);
        let samples: Vec<u64> = match parts {
            1 => Vec::new(),
            parts => (0..parts).map(|nth| sample(shuffled.at(nth))).collect(),
        };
        let mut rising = samples.clone();
        rising.sort_unstable();
        Self {
            count,
            parts,
            samples,
            rising,
        }
    }

    /// The place that is claimed as `nth`; none if there are not so many.
    pub fn at(&self, nth: u64) -> Option<u64> {
        if nth >= self.count {
            return None;
        }
        let samples = self.samples.len() as u64;
        let Some(nth_other) = nth.checked_sub(samples) else {
            return Some(self.samples[narrow::<usize, _>(nth)]);
        };
        // So many samples come before it: each has others before it, as many as its place
        // says, less the samples among them.
        let (mut before, mut end) = (0, self.rising.len());
        while before < end {
            let middle = before.midpoint(end);
            match self.rising[middle] - middle as u64 <= nth_other {
                true => before = middle + 1,
                false => end = middle,
            }
        }
        Some(nth_other + before as u64)
    }

    /// Parts of about equally many places.
    pub fn parts(&self) -> usize {
        narrow::<usize, _>(self.parts)
    }

    /// The part a place belongs to.
    pub fn part_of(&self, place: u64) -> usize {
        let part = u128::from(place) * u128::from(self.parts) / u128::from(self.count.max(1));
        (part as usize).min(self.parts() - 1)
    }

    /// Places of a part.
    pub fn part_len(&self, part: usize) -> u64 {
        let places = part_places(self.count, self.parts, part as u64);
        places.end - places.start
    }
}

/// The places of one of so many parts: those that [`Order::part_of`] gives to it.
fn part_places(count: u64, parts: u64, part: u64) -> std::ops::Range<u64> {
    let start = |part: u64| {
        let start = (u128::from(part) * u128::from(count)).div_ceil(u128::from(parts.max(1)));
        // No more than `count`, which has 64 bits.
        u64::try_from(start).unwrap_or(count)
    };
    start(part)..start(part + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_is_claimed_once_and_belongs_to_a_part(
            count in 0u64..3000,
            samples in 0u64..200,
        ) {
            let order = Order::new(count, samples);
            let claimed: BTreeSet<u64> = (0..count).map_while(|nth| order.at(nth)).collect();
            prop_assert_eq!(claimed.len() as u64, count);
            prop_assert!(claimed.last().is_none_or(|last| *last < count));
            prop_assert_eq!(order.at(count), None);
            let mut sizes = vec![0; order.parts()];
            for place in 0..count {
                sizes[order.part_of(place)] += 1;
            }
            for (part, size) in sizes.into_iter().enumerate() {
                prop_assert_eq!(order.part_len(part), size);
            }
        }
    }

    #[test]
    fn the_first_are_from_all_over_and_the_others_in_order() {
        let order = Order::new(10_000_000_000, 32);
        let first = (0..32).filter_map(|nth| order.at(nth));
        let mut parts: Vec<usize> = first.map(|place| order.part_of(place)).collect();
        assert!(parts[..4].iter().any(|part| *part < 16));
        assert!(parts[..4].iter().any(|part| *part >= 16));
        parts.sort_unstable();
        assert_eq!(parts, (0..32).collect::<Vec<_>>());
        let others: Vec<u64> = (32..1000).filter_map(|nth| order.at(nth)).collect();
        assert!(others.is_sorted());
        assert_eq!(others[0], 0);
        let few: Vec<_> = (0..7).map_while(|nth| Order::new(7, 32).at(nth)).collect();
        assert_eq!(few, (0..7).collect::<Vec<_>>());
    }
}
