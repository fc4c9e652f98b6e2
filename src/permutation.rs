//! A seeded permutation of `0..n` that is computed, not stored: the order in
//! which random search visits a space of any size.
//!
//! A balanced Feistel network permutes the numbers of the smallest even bit
//! width that holds `n`; a result outside `0..n` is fed back in until it falls
//! inside ("cycle walking"), which keeps it a permutation. On average fewer
//! than four passes are needed, whatever `n` is. See Black and Rogaway,
//! "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Enough that no structure shows even in spaces of a few points.
const ROUNDS: usize = 12;

/// A seeded permutation of `0..len`.
#[derive(Debug, Clone)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that `seed` and `stream` stand for. Streams
    /// are independent, so a second user of the seed does not disturb the first.
    pub fn new(len: u64, seed: u64, stream: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| rng.random()),
        }
    }

    /// Where `position` is sent. `position` must be below the length.
    pub fn at(&self, position: u64) -> u64 {
        debug_assert!(position < self.len);
        let mut value = self.pass(position);
        while value >= self.len {
            value = self.pass(value);
        }
        value
    }

    fn pass(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The SplitMix64 output function (Steele, Lea and Flood, OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_every_number_once() {
        for len in [1, 2, 3, 5, 16, 17, 1000, 4096, 4097] {
            let permutation = Permutation::new(len, 7, 0);
            let mut seen = vec![false; len as usize];
            for position in 0..len {
                let value = permutation.at(position) as usize;
                assert!(!seen[value], "{value} twice in 0..{len}");
                seen[value] = true;
            }
        }
    }

    #[test]
    fn works_in_spaces_too_large_to_store() {
        for len in [1_000_000_000_000, u64::MAX] {
            let permutation = Permutation::new(len, 42, 0);
            let mut drawn: Vec<u64> = (0..2000).map(|position| permutation.at(position)).collect();
            assert!(drawn.iter().all(|&value| value < len));
            let mean = drawn.iter().map(|&v| v as f64 / len as f64).sum::<f64>() / 2000.0;
            // Standard error of the mean of 2000 uniform draws: 0.0065.
            assert!((mean - 0.5).abs() < 0.03, "mean {mean}");
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 2000);
        }
    }

    #[test]
    fn every_small_space_number_is_drawn_first_about_equally_often() {
        let (len, seeds) = (6, 6000);
        let mut counts = [0u32; 6];
        for seed in 0..seeds {
            counts[Permutation::new(len, seed, 0).at(0) as usize] += 1;
        }
        // Expected 1000 each, standard deviation 29.
        assert!(counts.iter().all(|c| (860..1140).contains(c)), "{counts:?}");
    }

    #[test]
    fn seed_and_stream_both_matter() {
        let draw = |seed, stream| {
            let permutation = Permutation::new(1 << 20, seed, stream);
            (0..8).map(|i| permutation.at(i)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }
}
