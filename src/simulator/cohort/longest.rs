//! The longest interval between tokens since any step of a cohort.
//!
//! Members share intervals from the step on at which they joined. So the longest is kept
//! since the last join, one comparison a step, and for each join before that of how long
//! the longest was until the next: those that are shorter than a later one are dropped, as
//! nobody will be told of them. What is left falls from the first to the last, and the
//! first after a step is the longest since.

/// Longest of no intervals between tokens.
pub(crate) const NO_INTERVAL_S: f64 = f64::NEG_INFINITY;

/// Longest intervals by step.
#[derive(Debug)]
pub(super) struct LongestIntervals {
    /// Longest since the last boundary, seconds.
    since_boundary_s: f64,
    /// Step of a boundary and longest interval between it and the one before, seconds:
    /// steps rise, intervals fall.
    before: Vec<(u64, f64)>,
}

impl Default for LongestIntervals {
    fn default() -> Self {
        Self {
            since_boundary_s: NO_INTERVAL_S,
            before: Vec::new(),
        }
    }
}

impl LongestIntervals {
    /// Forgets all.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.since_boundary_s = NO_INTERVAL_S;
        self.before.clear();
    }

    /// Steps were made, the longest of which took so long.
    #[inline(always)]
    pub(super) fn note(&mut self, longest_s: f64) {
        // As many instructions as a comparison needs: neither is NaN.
        if longest_s > self.since_boundary_s {
            self.since_boundary_s = longest_s;
        }
    }

    /// Somebody will want to know the longest since step `now`, the last one noted.
    #[inline]
    pub(super) fn bound(&mut self, now: u64) {
        let longest_s = std::mem::replace(&mut self.since_boundary_s, NO_INTERVAL_S);
        if longest_s == NO_INTERVAL_S {
            return;
        }
        while self.before.pop_if(|last| last.1 <= longest_s).is_some() {}
        self.before.push((now, longest_s));
    }

    /// The longest of all steps after `step`, at which there was a boundary;
    /// [`NO_INTERVAL_S`]: none was made.
    #[inline]
    pub(super) fn since(&self, step: u64) -> f64 {
        let first = self.before.partition_point(|(bound, _)| *bound <= step);
        match self.before.get(first) {
            Some(&(_, longest_s)) if longest_s > self.since_boundary_s => longest_s,
            _ => self.since_boundary_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_since_every_boundary_is_that_of_the_list(
            // Few values, so that many are equal.
            steps in proptest::collection::vec((0u8..6, any::<bool>()), 0..200),
        ) {
            let mut longest = LongestIntervals::default();
            let (mut all, mut boundaries) = (Vec::new(), vec![0u64]);
            for (interval, is_bound) in steps {
                let interval_s = f64::from(interval);
                longest.note(interval_s);
                all.push(interval_s);
                if is_bound {
                    longest.bound(all.len() as u64);
                    boundaries.push(all.len() as u64);
                }
                for &step in &boundaries {
                    let since = all[step as usize..].iter().copied();
                    prop_assert_eq!(longest.since(step), since.fold(NO_INTERVAL_S, f64::max));
                }
            }
        }
    }
}
