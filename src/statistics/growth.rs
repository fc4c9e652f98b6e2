//! Whether a system kept up with its load: stable, saturated, or too short to tell.
//!
//! Judged on the *backlog*: requests that have arrived and not yet begun. The number in
//! the system would not do: with many servers it grows through the first service times
//! although nobody waits.
//!
//! A system without spare capacity whose arrivals and services vary has a backlog that
//! is, over long times and from empty, a reflected Brownian motion of some variance rate
//! (Iglehart and Whitt 1970, "Multiple channel queues in heavy traffic"). Both tests
//! compare the backlog with that motion, with the variance of the run itself.
//!
//! *Saturated*: the backlog is larger at the end than a critically loaded system's. By
//! the reflection principle that is larger than `z` standard deviations with probability
//! `2 (1 - Φ(z))`, 6 in 100,000 for a `z` of 4; systems with spare capacity stay below. A
//! run is looked at as it grows, and variance is estimated, so `z` is far out
//! ([`SATURATED_SCORE`]).
//!
//! *Stable*: the mean backlog over the run is smaller than a critically loaded system's.
//! The time average of `|B|` over `[0, 1]` is below [`BOUNDED_LEVEL`] in fewer than one of
//! 40,000 walks, below 0.149 in 1 % (`tests.rs` tries it), an overloaded system's even
//! less often. And
//! the number in the system must have stopped growing, over a time that is long against
//! the time a request spends there.

use super::cells::Cells;

/// What can be said of a run's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadVerdict {
    /// The system keeps up, and the run was long enough to measure it.
    Stable,
    /// More arrives than is served: the backlog grows as long as the load lasts.
    Saturated,
    /// Neither can be said yet.
    TooShort,
}

/// What a run shows of its load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadEvidence {
    /// Requests that have arrived.
    pub arrived: usize,
    /// Requests of these that have not begun.
    pub waiting: usize,
    /// The backlog at the end over its standard deviation if load were just critical.
    pub growth: f64,
    /// The mean backlog over the same standard deviation.
    pub level: f64,
    /// Whether the number in the system has stopped growing.
    pub settled: bool,
    /// The share of what arrives by which the backlog may yet be growing, at most: what
    /// waits at the end, and two standard deviations of what chance adds to it, over what
    /// has arrived. Infinite of too short a run.
    pub growing_share: f64,
}

/// The backlog, in standard deviations, from which a system is saturated.
pub const SATURATED_SCORE: f64 = 4.0;

/// The least share of arrivals that must still wait: a system that serves 99 % of what
/// is offered is not called saturated.
pub const MATERIAL_BACKLOG: f64 = 0.01;

/// The mean backlog, in standard deviations, up to which a system is bounded.
pub const BOUNDED_LEVEL: f64 = 0.1;

/// The least standard deviation of a backlog, in requests: where nothing varies, less
/// than one says nothing.
const LEAST_DEVIATION: f64 = 1.0;

/// Over so many of the mean times that requests spend in the system it must have been
/// settled.
const SETTLED_RESIDENCES: f64 = 10.0;

/// A difference of so many standard errors between the second and the first half is growth.
const GROWTH_SCORE: f64 = 2.0;

/// Growth of the number in the system by less than this share is none.
const MATERIAL_GROWTH: f64 = 0.02;

/// The fewest requests of which anything is said.
const MIN_REQUESTS: usize = 100;

/// A run of so many requests is long against any one service. In a shorter one those
/// that arrived in the longest time in which none began may wait for just one, and do not
/// count as growth.
const LONG_RUN: usize = 1000;

/// Pieces of a run between which the backlog's increments are taken.
const MAX_PIECES: usize = 1024;
const MIN_PIECES: usize = 16;
const LONGEST_PIECES: usize = 4;

/// Up to so many pieces the dispersion of arrivals is taken.
const ARRIVAL_PIECES: usize = 64;

impl LoadVerdict {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Saturated => "saturated",
            Self::TooShort => "too_short",
        }
    }
}

impl LoadEvidence {
    /// Of a run from empty: when requests arrived, in order; when they began to be
    /// served and ended (NaN: not by `now`); and from when on it counts as settled.
    ///
    /// # Panics
    ///
    /// If there is not one of each per request.
    pub fn new(
        arrivals: &[f64],
        begins: &[f64],
        ends: &[f64],
        settled_from: f64,
        now: f64,
    ) -> Self {
        assert_eq!(arrivals.len(), begins.len(), "one of each");
        assert_eq!(arrivals.len(), ends.len(), "one of each");
        let arrived = arrivals.partition_point(|&arrival| arrival <= now);
        let (arrivals, begins, ends) = (&arrivals[..arrived], &begins[..arrived], &ends[..arrived]);
        let waiting = arrived - begins.iter().filter(|&&begin| begin <= now).count();
        let mut evidence = Self {
            arrived,
            waiting,
            growth: 0.0,
            level: f64::INFINITY,
            settled: false,
            growing_share: f64::INFINITY,
        };
        let from = arrivals.first().copied().unwrap_or(now);
        let duration = now - from;
        if arrived < MIN_REQUESTS || duration <= 0.0 {
            return evidence;
        }
        let backlog = Backlog::new(arrivals, begins, from, now);
        let lasting = if arrived < LONG_RUN {
            waiting as f64 - backlog.longest_stop
        } else {
            waiting as f64
        };
        evidence.growth = lasting / backlog.slow_deviation;
        evidence.growing_share =
            (waiting as f64 + GROWTH_SCORE * backlog.slow_deviation) / arrived as f64;
        evidence.level = backlog.mean / backlog.fast_deviation;
        evidence.settled = is_settled(arrivals, ends, settled_from.max(from), now);
        evidence
    }

    /// Whether the backlog grows.
    pub fn is_saturated(&self) -> bool {
        self.growth > SATURATED_SCORE
            && self.waiting as f64 > MATERIAL_BACKLOG * self.arrived as f64
    }

    /// Whether the backlog is bounded and the number in the system has settled.
    pub fn is_bounded(&self) -> bool {
        self.level < BOUNDED_LEVEL && self.settled
    }

    /// The verdict, of a run that is or is not long enough ([`super::length`]) to
    /// measure a stable system.
    pub fn verdict(&self, long_enough: bool) -> LoadVerdict {
        if self.is_saturated() {
            LoadVerdict::Saturated
        } else if long_enough && self.is_bounded() {
            LoadVerdict::Stable
        } else {
            LoadVerdict::TooShort
        }
    }
}

/// The backlog of a run.
struct Backlog {
    /// Its time average.
    mean: f64,
    /// The standard deviation at the end that its variation over long pieces of the run
    /// would give it without drift. Long ones, because what goes up and down within a
    /// piece (a server that takes many at once) does not add up; and down to four, because
    /// all growth may be due to one service.
    slow_deviation: f64,
    /// The same from short pieces and from arrivals: the variation over long ones is small
    /// where the backlog is bounded, which is what is to be shown.
    fast_deviation: f64,
    /// The most arrivals during a time in which none began.
    longest_stop: f64,
}

impl Backlog {
    fn new(arrivals: &[f64], begins: &[f64], from: f64, now: f64) -> Self {
        let pieces = (arrivals.len() / 2)
            .next_power_of_two()
            .clamp(MIN_PIECES, MAX_PIECES);
        let mut coming = [0.0; MAX_PIECES];
        let mut increments = [0.0; MAX_PIECES];
        let scale = pieces as f64 / (now - from);
        let piece = |time: f64| crate::number::whole_usize((time - from) * scale).min(pieces - 1);
        let mut waited = 0.0;
        for (&arrival, &begin) in arrivals.iter().zip(begins) {
            let at = piece(arrival);
            coming[at] += 1.0;
            increments[at] += 1.0;
            if begin <= now {
                increments[piece(begin)] -= 1.0;
                waited += begin - arrival;
            } else {
                waited += now - arrival;
            }
        }
        let longest_stop = longest_stop(&coming[..pieces], &increments[..pieces]);
        let (mut slow, mut fast): (f64, f64) = (0.0, 0.0);
        let mut len = pieces;
        while len >= LONGEST_PIECES {
            let variance = total_variance(&increments[..len]);
            if len <= MIN_PIECES {
                slow = slow.max(variance);
            }
            if len >= MIN_PIECES {
                fast = fast.max(variance);
                if len <= ARRIVAL_PIECES {
                    fast = fast.max(total_variance(&coming[..len]));
                }
            }
            for pair in 0..len / 2 {
                increments[pair] = increments[2 * pair] + increments[2 * pair + 1];
                coming[pair] = coming[2 * pair] + coming[2 * pair + 1];
            }
            len /= 2;
        }
        Self {
            mean: waited / (now - from),
            slow_deviation: slow.sqrt().max(LEAST_DEVIATION),
            fast_deviation: fast.sqrt().max(LEAST_DEVIATION),
            longest_stop,
        }
    }
}

/// The most that came in consecutive pieces in which nothing began.
fn longest_stop(coming: &[f64], increments: &[f64]) -> f64 {
    let (mut longest, mut current): (f64, f64) = (0.0, 0.0);
    for (&came, &increment) in coming.iter().zip(increments) {
        // Counts, so that the comparison is exact: all that came is still there.
        current = if came == increment {
            current + came
        } else {
            0.0
        };
        longest = longest.max(current);
    }
    longest
}

/// The variance of the sum of independent increments like these.
fn total_variance(increments: &[f64]) -> f64 {
    let count = increments.len() as f64;
    let mean = increments.iter().sum::<f64>() / count;
    let squares: f64 = increments.iter().map(|v| (v - mean) * (v - mean)).sum();
    squares * count / (count - 1.0)
}

/// Whether the number in the system does not grow between the halves of `[from, now]`.
fn is_settled(arrivals: &[f64], ends: &[f64], from: f64, now: f64) -> bool {
    let mut present = [0.0; super::cells::MAX_CELLS];
    // How many more are there in a whole cell, and in those after it.
    let mut entered = [0.0; super::cells::MAX_CELLS + 1];
    let width = (now - from) / present.len() as f64;
    if width <= 0.0 {
        return false;
    }
    let mut spent = 0.0;
    for (&arrival, &end) in arrivals.iter().zip(ends) {
        let until = if end <= now { end } else { now };
        spent += until - arrival;
        if until <= from {
            continue;
        }
        let (start, until) = ((arrival.max(from) - from) / width, (until - from) / width);
        // Time in each cell, in cells.
        let last = crate::number::whole_usize(until).min(present.len() - 1);
        let first = crate::number::whole_usize(start).min(last);
        if first == last {
            present[first] += until - start;
        } else {
            present[first] += first as f64 + 1.0 - start;
            present[last] += until - last as f64;
            entered[first + 1] += 1.0;
            entered[last] -= 1.0;
        }
    }
    let mut whole = 0.0;
    for (time, change) in present.iter_mut().zip(entered) {
        whole += change;
        *time += whole;
    }
    let residence = spent / arrivals.len() as f64;
    if now - from < SETTLED_RESIDENCES * residence {
        return false;
    }
    let half = present.len() / 2;
    let first = present[..half].iter().sum::<f64>() / half as f64;
    let second = present[half..].iter().sum::<f64>() / half as f64;
    let error = Cells::gather(present.len(), |cell| present[cell], |_| 1.0)
        .spread()
        .standard_error;
    // Each half's error is the root of two times the whole's, and so is the difference's.
    let growth = second - first;
    growth <= MATERIAL_GROWTH * first || growth <= GROWTH_SCORE * 2.0 * error
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One server with this service time and arrivals one second apart.
    fn queue(requests: u32, service_s: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let arrivals: Vec<f64> = (0..requests).map(f64::from).collect();
        let mut free = 0.0_f64;
        let begins: Vec<f64> = arrivals
            .iter()
            .map(|&arrival| {
                let begin = free.max(arrival);
                free = begin + service_s;
                begin
            })
            .collect();
        let ends = begins.iter().map(|begin| begin + service_s).collect();
        (arrivals, begins, ends)
    }

    fn verdict(requests: u32, service_s: f64) -> LoadVerdict {
        let (arrivals, begins, ends) = queue(requests, service_s);
        let now = f64::from(requests);
        LoadEvidence::new(&arrivals, &begins, &ends, 0.0, now).verdict(true)
    }

    #[test]
    fn deterministic_queues_are_told_apart() {
        for requests in [100, 200, 1000, 100_000] {
            assert_eq!(verdict(requests, 0.9), LoadVerdict::Stable, "{requests}");
            assert_ne!(verdict(requests, 1.1), LoadVerdict::Stable, "{requests}");
        }
        assert_eq!(verdict(100, 2.0), LoadVerdict::Saturated);
        assert_eq!(verdict(3000, 1.1), LoadVerdict::Saturated);
    }

    #[test]
    fn nothing_is_said_of_a_handful() {
        assert_eq!(verdict(20, 0.1), LoadVerdict::TooShort);
        assert_eq!(
            LoadEvidence::new(&[], &[], &[], 0.0, 0.0).verdict(true),
            LoadVerdict::TooShort
        );
    }

    #[test]
    fn many_servers_that_fill_are_not_saturated() {
        // Every request is served at once, for a thousand times as long as the gaps.
        let arrivals: Vec<f64> = (0..500).map(f64::from).collect();
        let ends: Vec<f64> = arrivals.iter().map(|arrival| arrival + 1000.0).collect();
        let evidence = LoadEvidence::new(&arrivals, &arrivals, &ends, 0.0, 500.0);
        assert!(!evidence.is_saturated());
        assert!(!evidence.settled);
        assert_eq!(evidence.verdict(true), LoadVerdict::TooShort);
    }

    #[test]
    fn what_never_begins_is_saturated() {
        let arrivals: Vec<f64> = (0..1000).map(f64::from).collect();
        let never = vec![f64::NAN; 1000];
        let evidence = LoadEvidence::new(&arrivals, &never, &never, 0.0, 999.0);
        assert_eq!(evidence.waiting, 1000);
        assert_eq!(evidence.verdict(false), LoadVerdict::Saturated);
        // Of half as many, all may wait for one.
        let evidence = LoadEvidence::new(&arrivals, &never, &never, 0.0, 499.0);
        assert_eq!(evidence.waiting, 500);
        assert_eq!(evidence.verdict(false), LoadVerdict::TooShort);
    }
}
