//! CPython's `random`: the Mersenne Twister MT19937 (Matsumoto and Nishimura,
//! 1998) with its seeding by array and bounded integers by rejection, so that
//! Vidur's `random` router makes the same choices in compatibility mode.

const SIZE: usize = 624;
const SHIFT: usize = 397;

#[derive(Debug)]
pub(crate) struct PythonRandom {
    state: [u32; SIZE],
    index: usize,
}

impl PythonRandom {
    /// As `random.seed(seed)`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut key = vec![seed as u32];
        if seed >> 32 != 0 {
            key.push((seed >> 32) as u32);
        }
        let mut state = [0u32; SIZE];
        state[0] = 19_650_218;
        for i in 1..SIZE {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = 1_812_433_253u32
                .wrapping_mul(previous)
                .wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..SIZE.max(key.len()) {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == SIZE {
                state[0] = state[SIZE - 1];
                i = 1;
            }
        }
        for _ in 1..SIZE {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
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

    /// Values of CPython 3.11: `random.seed(42)`, then `random.randint(1, 20) - 1`
    /// ten times, and after three `random.random()`.
    #[test]
    fn draws_as_python_does() {
        let draws = |skip| -> Vec<u32> {
            let mut rng = PythonRandom::new(42);
            rng.skip(skip);
            (0..10).map(|_| rng.below(20)).collect()
        };
        assert_eq!(draws(0), [3, 0, 8, 7, 7, 4, 3, 17, 2, 18]);
        assert_eq!(draws(3), [7, 4, 3, 17, 2, 18, 13, 1, 0, 2]);
    }
}
