//! How long the rest of a sweep will take.
//!
//! Along a sweep runs get longer or shorter: an axis that changes seldom may make every
//! run ten times the work. So it is not runs that are counted but the time they keep a
//! thread busy: of each part of the sweep ([`super::order`]), as long as those of it
//! that are known, and as those of the parts beside it while few are. What all that
//! takes by the clock is what the runs done so far took by it.

use super::order::Order;
use crate::number::narrow;

/// Runs that a part's neighbours count for: with as many of its own it stands for
/// itself as much as they do.
const WEIGHT_OF_NEIGHBOURS: f64 = 1.0;
/// What a part counts for another, per part between them.
const FADING: f64 = 0.85;
/// A part counts for another as much as it has runs done, up to so many: one alone may have
/// been left out by a constraint, or be the longest.
const TELLING_RUNS: u64 = 30;
/// New estimates count for as much as the old one once this share of what was left has
/// gone by.
const SMOOTHING: f64 = 0.1;
/// Fewer runs say nothing of the others.
const LEAST_RUNS: u64 = 4;

/// What is known of one part of a sweep.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Runs that are not done.
    left: u64,
    /// Runs done.
    done: u64,
    /// Time they kept a thread busy.
    busy_s: f64,
}

/// Estimates the time left.
#[derive(Debug, Clone)]
pub struct Remaining {
    order: Order,
    parts: Vec<Part>,
    /// What was said last: when, and how long it would take from then.
    said: Option<(f64, f64)>,
}

impl Remaining {
    /// Of a sweep of which nothing is done.
    pub fn new(order: Order) -> Self {
        let parts = (0..order.parts()).map(|part| Part {
            left: order.part_len(part),
            ..Part::default()
        });
        Self {
            parts: parts.collect(),
            order,
            said: None,
        }
    }

    /// The run at `place` was done before: it takes no time, and says nothing of others.
    pub fn done_before(&mut self, place: u64) {
        let part = &mut self.parts[self.order.part_of(place)];
        part.left = part.left.saturating_sub(1);
    }

    /// The run at `place` is done, and kept a thread busy for so long.
    pub fn done(&mut self, place: u64, busy_s: f64) {
        let part = &mut self.parts[self.order.part_of(place)];
        part.left = part.left.saturating_sub(1);
        part.done += 1;
        part.busy_s += busy_s;
    }

    /// How long the rest will take, if the first runs began `elapsed_s` ago; none
    /// before enough is known. Once every part was sampled it changes little by little.
    pub fn time_s(&mut self, elapsed_s: f64) -> Option<f64> {
        let done_s: f64 = self.parts.iter().map(|part| part.busy_s).sum();
        let done: u64 = self.parts.iter().map(|part| part.done).sum();
        if done_s <= 0.0 || elapsed_s <= 0.0 || done < LEAST_RUNS {
            return None;
        }
        let now_s = self.busy_left_s() * elapsed_s / done_s;
        if done < self.parts.len() as u64 {
            // Every sample tells much that is new.
            return Some(now_s);
        }
        let said_s = match self.said {
            None => now_s,
            Some((at_s, said_s)) => {
                let gone_s = (elapsed_s - at_s).max(0.0);
                let expected_s = (said_s - gone_s).max(0.0);
                let scale_s = SMOOTHING * (said_s + at_s).max(f64::MIN_POSITIVE);
                let weight = 1.0 - (-gone_s / scale_s).exp();
                expected_s + weight * (now_s - expected_s)
            }
        };
        self.said = Some((elapsed_s, said_s));
        Some(said_s)
    }

    /// Time that the runs left will keep a thread busy.
    fn busy_left_s(&self) -> f64 {
        let parts = self.parts.iter().enumerate();
        parts
            .filter(|(_, part)| part.left > 0)
            .map(|(nth, part)| part.left as f64 * self.mean_s(nth))
            .sum()
    }

    /// Mean time of a run of a part, as far as it is known.
    fn mean_s(&self, nth: usize) -> f64 {
        let (mut weight, mut sum_s) = (0.0, 0.0);
        for (other, part) in self.parts.iter().enumerate() {
            if other != nth && part.done > 0 {
                let near = FADING.powi(narrow::<i32, _>(other.abs_diff(nth)))
                    * part.done.min(TELLING_RUNS) as f64;
                weight += near;
                sum_s += near * part.busy_s / part.done as f64;
            }
        }
        let neighbours_s = if weight > 0.0 { sum_s / weight } else { 0.0 };
        let own = &self.parts[nth];
        let neighbours = if weight > 0.0 {
            WEIGHT_OF_NEIGHBOURS
        } else {
            0.0
        };
        let runs = own.done as f64 + neighbours;
        if runs > 0.0 {
            (own.busy_s + neighbours * neighbours_s) / runs
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::PARTS_MAX;
    use super::*;

    /// Does a sweep of runs that take `time_s(place)` on one thread, and gives what is
    /// said on the way: after which share of the time, and over what was really left.
    fn said_over_true(runs: u64, time_s: impl Fn(u64) -> f64) -> Vec<(f64, f64)> {
        let order = Order::new(runs, PARTS_MAX);
        let total_s: f64 = (0..runs).map(&time_s).sum();
        let mut remaining = Remaining::new(order.clone());
        let mut elapsed_s = 0.0;
        let mut said = Vec::new();
        for place in (0..runs).map_while(|nth| order.at(nth)) {
            elapsed_s += time_s(place);
            remaining.done(place, time_s(place));
            if let Some(left_s) = remaining.time_s(elapsed_s) {
                said.push((elapsed_s / total_s, left_s / (total_s - elapsed_s)));
            }
        }
        said
    }

    /// A digit of a place: an axis of ten values, of which the last changes fastest.
    fn axis(place: u64, from_the_right: u32) -> f64 {
        (place / 10u64.pow(from_the_right) % 10) as f64
    }

    #[test]
    fn the_time_left_is_known_from_early_on_whatever_the_order_of_uneven_runs() {
        let growing: fn(u64) -> f64 = |place| 1.0 + place as f64;
        let shrinking: fn(u64) -> f64 = |place| 4001.0 - place as f64;
        let doubling_seldom: fn(u64) -> f64 = |place| 2f64.powf(axis(place, 3));
        let doubling_often: fn(u64) -> f64 = |place| 2f64.powf(axis(place, 0));
        let excluded: fn(u64) -> f64 = |place| if axis(place, 2) < 6.0 { 0.0 } else { 1.0 };
        for (name, time_s) in [
            ("growing", growing),
            ("shrinking", shrinking),
            ("doubling_seldom", doubling_seldom),
            ("doubling_often", doubling_often),
            ("excluded", excluded),
        ] {
            for (share, ratio) in said_over_true(4000, time_s) {
                if (0.05..0.95).contains(&share) {
                    let bounds = 0.6..1.6;
                    assert!(bounds.contains(&ratio), "{name}: {ratio:.2} at {share:.2}");
                }
            }
        }
    }

    #[test]
    fn what_is_said_does_not_grow_by_half_on_the_way() {
        // Counting runs says of this one a third of the truth at first.
        let order = Order::new(4000, PARTS_MAX);
        let time_s = |place: u64| 1.0 + place as f64 * place as f64;
        let mut remaining = Remaining::new(order.clone());
        let (mut elapsed_s, mut least_s) = (0.0, f64::INFINITY);
        for (nth, place) in (0..4000).map_while(|nth| order.at(nth)).enumerate() {
            elapsed_s += time_s(place);
            remaining.done(place, time_s(place));
            if nth >= order.parts() {
                let left_s = remaining.time_s(elapsed_s).expect("known");
                assert!(
                    left_s < 1.5 * least_s,
                    "{left_s} after {least_s}, run {nth}"
                );
                least_s = least_s.min(left_s);
            }
        }
    }

    #[test]
    fn runs_done_before_count_for_nothing() {
        let mut remaining = Remaining::new(Order::new(100, PARTS_MAX));
        assert_eq!(remaining.time_s(1.0), None);
        (0..50).for_each(|place| remaining.done_before(place));
        assert_eq!(remaining.time_s(1.0), None);
        (50..75).for_each(|place| remaining.done(place, 2.0));
        // Twenty-five of two seconds, on two threads.
        let left_s = remaining.time_s(25.0).expect("known");
        assert!((left_s - 25.0).abs() < 1e-9, "{left_s}");
    }
}
