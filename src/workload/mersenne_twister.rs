//! The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998) as CPython's
//! `random` and NumPy's `RandomState` seed and use it, so that Vidur's generators
//! and its `random` router draw the same in compatibility mode.

use crate::number::narrow;

const SIZE: usize = 624;
const SHIFT: usize = 397;

#[derive(Debug)]
pub(crate) struct MersenneTwister {
    state: [u32; SIZE],
    index: usize,
}

impl MersenneTwister {
    /// As `numpy.random.RandomState(seed)`.
    pub(crate) fn numpy(seed: u32) -> Self {
        let mut state = [0u32; SIZE];
        state[0] = seed;
        for i in 1..SIZE {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = 1_812_433_253u32
                .wrapping_mul(previous)
                .wrapping_add(narrow(i));
        }
        Self { state, index: SIZE }
    }

    /// As `random.seed(seed)` of CPython.
    pub(crate) fn python(seed: u64) -> Self {
        let mut key = vec![(seed & 0xffff_ffff) as u32];
        if seed >> 32 != 0 {
            key.push((seed >> 32) as u32);
        }
        let Self { mut state, .. } = Self::numpy(19_650_218);
        let (mut i, mut j) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(narrow(j));
            i += 1;
            j = (j + 1) % key.len();
            if i == SIZE {
                state[0] = state[SIZE - 1];
                i = 1;
            }
        }
        for _ in 1..SIZE {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_566_083_941)).wrapping_sub(narrow(i));
            i += 1;
            if i == SIZE {
                state[0] = state[SIZE - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, index: SIZE }
    }

    /// Makes as many draws as `draws` calls of `random.random()`.
    pub(crate) fn skip(&mut self, draws: u64) {
        for _ in 0..2 * draws {
            self.next();
        }
    }

    /// As `random.random()`: uniform in `[0, 1)`, 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        let (high, low) = (self.next() >> 5, self.next() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// As NumPy's legacy bounded integer: uniform in `[0, most]`.
    pub(crate) fn up_to(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let draw = self.next() & mask;
            if draw <= most {
                return draw;
            }
        }
    }

    /// As `random.randint(1, bound) - 1`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let bits = u32::BITS - bound.leading_zeros();
        loop {
            let draw = self.next() >> (u32::BITS - bits);
            if draw < bound {
                return draw;
            }
        }
    }

    fn next(&mut self) -> u32 {
        if self.index == SIZE {
            self.refill();
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for i in 0..SIZE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + SHIFT) % SIZE] ^ (y >> 1) ^ twist;
        }
        self.index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of NumPy: `RandomState(42).random_sample(3)` and of CPython:
    /// `random.seed(42); [random.random() for _ in range(2)]`.
    #[test]
    fn reals_are_those_of_numpy_and_python() {
        let mut numpy = MersenneTwister::numpy(42);
        let drawn = [numpy.unit(), numpy.unit(), numpy.unit()];
        let expected = [
            0.374_540_118_847_362_5,
            0.950_714_306_409_916_2,
            0.731_993_941_811_405_1,
        ];
        assert_eq!(drawn, expected);
        let mut python = MersenneTwister::python(42);
        assert_eq!(
            [python.unit(), python.unit()],
            [0.639_426_798_457_883_7, 0.025_010_755_222_666_936]
        );
    }

    /// Values of CPython 3.11: `random.seed(42)`, then `random.randint(1, 20) - 1`
    /// ten times, and after three `random.random()`.
    #[test]
    fn draws_as_python_does() {
        let draws = |skip| -> Vec<u32> {
            let mut rng = MersenneTwister::python(42);
            rng.skip(skip);
            (0..10).map(|_| rng.below(20)).collect()
        };
        assert_eq!(draws(0), [3, 0, 8, 7, 7, 4, 3, 17, 2, 18]);
        assert_eq!(draws(3), [7, 4, 3, 17, 2, 18, 13, 1, 0, 2]);
    }
}
