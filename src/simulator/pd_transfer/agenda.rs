//! When something next happens to each of some transfers.
//!
//! A tree of least times: a change of one time costs a comparison with its neighbours,
//! and one more on each level on which it makes a difference; nothing outdated is kept.
use crate::number::narrow;

/// Times below one of the level above.
const FAN_OUT: usize = 8;

/// Times by number, infinite where nothing happens.
#[derive(Debug)]
pub(super) struct Agenda {
    /// The least of all, the least of every eighth of them, and so on down to
    /// themselves.
    times: Vec<f64>,
    /// Where that of number 0 is.
    first: usize,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self {
            times: vec![f64::INFINITY; 1 + FAN_OUT],
            first: 1,
        }
    }

    /// Time of the first.
    #[inline]
    pub(super) fn first_s(&self) -> f64 {
        self.times[0]
    }

    /// Something happens to `number` at this time, and not at the one set before.
    #[inline(always)]
    pub(super) fn set(&mut self, number: u32, at_s: f64) {
        let mut index = self.first + number as usize;
        while index >= self.times.len() {
            self.grow();
            index = self.first + number as usize;
        }
        let mut new_s = at_s;
        let mut old_s = std::mem::replace(&mut self.times[index], new_s);
        while index > 0 {
            index = (index - 1) / FAN_OUT;
            let least_s = self.times[index];
            if new_s >= least_s {
                if old_s > least_s {
                    return;
                }
                new_s = self.least_below(index);
                if new_s == least_s {
                    return;
                }
            }
            self.times[index] = new_s;
            old_s = least_s;
        }
    }

    /// Takes out the first, if it is no later than this.
    #[inline]
    pub(super) fn take(&mut self, until_s: f64) -> Option<u32> {
        let first_s = self.first_s();
        if first_s > until_s || first_s == f64::INFINITY {
            return None;
        }
        let mut index = 0;
        while index < self.first {
            index = index * FAN_OUT + 1;
            while self.times[index] != first_s {
                index += 1;
            }
        }
        let number = narrow::<u32, _>(index - self.first);
        self.set(number, f64::INFINITY);
        Some(number)
    }

    /// Makes room for eight times as many.
    fn grow(&mut self) {
        let first = self.first * FAN_OUT + 1;
        let mut times = vec![f64::INFINITY; first];
        times.extend_from_slice(&self.times[self.first..]);
        times.resize(first * FAN_OUT + 1, f64::INFINITY);
        (self.times, self.first) = (times, first);
        for index in (0..first).rev() {
            self.times[index] = self.least_below(index);
        }
    }

    #[inline]
    fn least_below(&self, index: usize) -> f64 {
        let times = &self.times[index * FAN_OUT + 1..][..FAN_OUT];
        let least = |a: f64, b: &f64| if *b < a { *b } else { a };
        times.iter().fold(f64::INFINITY, least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As a list that is searched from end to end.
        #[test]
        fn the_first_is_the_least(
            changes in proptest::collection::vec((0u32..600, 0u32..50), 1..400),
        ) {
            let mut agenda = Agenda::new();
            let mut times = vec![f64::INFINITY; 600];
            for (number, at) in changes {
                // A fifth of them is taken out again.
                let at_s = if at < 10 { f64::INFINITY } else { f64::from(at) };
                agenda.set(number, at_s);
                times[number as usize] = at_s;
                let least_s = times.iter().copied().fold(f64::INFINITY, f64::min);
                prop_assert_eq!(agenda.first_s(), least_s);
            }
            let mut taken = Vec::new();
            while let Some(number) = agenda.take(30.0) {
                taken.push(times[number as usize]);
                times[number as usize] = f64::INFINITY;
            }
            prop_assert!(taken.is_sorted());
            prop_assert!(times.iter().all(|&at_s| at_s > 30.0));
        }
    }
}
