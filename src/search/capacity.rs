//! The highest load at which targets hold, from simulations that are noisy and dear.
//!
//! A look at a load simulates so many requests at it and says how much of each target is
//! taken up, with an interval. Looks of one length share their requests (common random
//! numbers), so that what they show is about a smooth function of the load, whose root is
//! found by bisection. The root of short looks is off by what their requests happen to be;
//! so the search starts with short ones and takes longer ones around each root, until the
//! root is known as well as is wanted: retrospective approximation (Chen and Schmeiser
//! 2001, "Stochastic root finding via retrospective approximation", IIE Transactions 33).
//!
//! The interval of the capacity is made of the loads at which the interval of the figures
//! does not rule the limit out (inversion, as in calibration): it covers the true capacity
//! as often as the figures' intervals at that load cover the true figures. Its ends are
//! looked for as the root is.
//!
//! That more load is never better is not taken for granted: lower loads are looked at, and
//! every look is held against it.

/// How much of its limits a deployment takes up: natural logarithm of the largest share of
/// any limit, less than 0 where all are kept, with the ends of its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strain {
    /// By the figures as they are.
    pub value: f64,
    /// By the ends of their intervals that are better; NaN: not known.
    pub low: f64,
    /// By those that are worse; NaN: not known.
    pub high: f64,
}

/// A strain beyond which it says no more than that a limit is missed or kept by far:
/// tenfold.
const FAR: f64 = std::f64::consts::LN_10;

/// What a simulation at one load has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Requests offered per second.
    pub load_per_s: f64,
    /// Requests asked to be measured.
    pub requests: u32,
    /// Requests simulated.
    pub simulated: u64,
    /// Of its limits.
    pub strain: Strain,
    /// The share of the load by which it may exceed what is served, at most; infinite:
    /// nothing is known of that.
    pub excess_share: f64,
    /// What it served, requests per second, if it is known not to keep up.
    pub served_per_s: Option<f64>,
    /// Mean time a request was in the system, seconds.
    pub residence_s: f64,
}

impl Look {
    fn keeps(&self) -> bool {
        self.served_per_s.is_none() && self.strain.value <= 0.0
    }

    fn surely_keeps(&self) -> bool {
        self.excess_share.is_finite() && self.keeps() && self.strain.high <= 0.0
    }

    fn surely_misses(&self) -> bool {
        self.served_per_s.is_some() || self.strain.low > 0.0
    }

    /// Whether requests hardly ever meet: less load changes nothing.
    fn is_alone(&self) -> bool {
        self.load_per_s * self.residence_s < ALONE
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Half-width of the interval of the capacity, as a share of it.
    pub tolerance: f64,
    /// Requests of the first looks.
    pub first_requests: u32,
    /// Requests of a look, at most.
    pub max_requests: u32,
    /// Load to start from, requests per second.
    pub guess_per_s: f64,
    /// Whether the requests are given, and every look is at all of them: then there is one
    /// length, and nothing is uncertain.
    pub is_given: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The highest load that keeps all limits, requests per second; 0: none does; the
    /// highest that is tried where that keeps them, too.
    pub load_per_s: f64,
    /// Ends of its 95 % interval; NaN: not known.
    pub low_per_s: f64,
    /// The upper end.
    pub high_per_s: f64,
    /// The look that shows best what the capacity is like: the highest load that keeps all
    /// limits for certain, if there is one.
    pub shown: usize,
    /// The look at the lowest load that missed a limit, to tell which.
    pub missed: Option<usize>,
    /// A lower load that misses a limit for certain, or a higher one that keeps all,
    /// requests per second: then more load is not always worse, and the capacity is that of
    /// the loads around it.
    pub against_order_per_s: Option<f64>,
    /// Every look, in order.
    pub looks: Vec<Look>,
}

impl Found {
    /// Whether the look that is shown keeps all limits for certain.
    pub fn shown_is_held(&self) -> bool {
        self.looks[self.shown].surely_keeps()
    }
}

/// Requests that are in the system on average, below which none meets another.
const ALONE: f64 = 0.01;
/// The highest load tried, requests per second.
const MOST_PER_S: f64 = 1e7;
/// The lowest load tried.
const LEAST_PER_S: f64 = 1e-6;
/// From one load to the next, while nothing is known.
const STRIDE: f64 = 4.0;
/// Of what a saturated deployment served: about what it can hold within its limits.
const OF_SERVED: f64 = 0.7;
/// A bracket this narrow, as a share, ends the bisection of the shortest looks.
const COARSE: f64 = 0.05;
/// Looks between which a straight line tells the root and its interval are no further apart,
/// in tolerances: strains bend by little over so much.
const GAP: f64 = 2.5;
/// And where there is no line, or all requests are given.
const FINE: f64 = 0.5;
/// A search ends with looks so many times as long as the first, at least: intervals of
/// shorter ones, near the load that saturates, cover too little (docs/statistics.md).
const CONCLUDING_LENGTH: u32 = 32;
/// A load may exceed what is served by no more than this where a search ends, in tolerances:
/// the load that is held for certain is less by that.
const EXCESS: f64 = 0.5;
/// So many looks of one length are enough: then an end of the interval is where it is certain
/// so far.
const MOST_LOOKS: usize = 12;
/// The second length, in first ones.
const SECOND_LENGTH: u32 = 8;
/// A length is followed by one so many times as long, at most: what short looks expect of
/// longer ones is itself uncertain.
const MOST_GROWTH: f64 = 8.0;
/// The first looks of a length are so many times as far from where the root is expected as
/// the ends of its interval are: then they are likely to hold all three between them.
const REACH: f64 = 1.15;
/// And at least.
const LEAST_GROWTH: f64 = 1.5;
/// So much longer than seems needed.
const MARGIN: f64 = 1.2;
/// Furthest from the root that the ends of its interval are looked for, as a share.
const WIDEST: f64 = 4.0;
/// Loads in capacities at which order is checked.
const LOWER_LOADS: [f64; 3] = [0.25, 0.5, 0.75];
const HIGHER_LOADS: [f64; 3] = [1.5, 2.0, 3.0];

/// Finds the highest load that keeps all limits; `look` is asked for looks at a load with a
/// number of requests.
///
/// # Errors
/// The first of `look`.
pub fn highest_load<E>(
    wanted: &Wanted,
    look: impl FnMut(f64, u32) -> Result<Look, E>,
) -> Result<Found, E> {
    let mut search = Search {
        wanted,
        look,
        looks: Vec::new(),
    };
    match search.find_bracket()? {
        Start::Bracket(bracket) => search.narrow(bracket),
        Start::Nothing => Ok(search.nothing()),
        Start::Everything => Ok(search.everything()),
    }
}

/// A load that keeps all limits and a higher one that misses one, by looks of one length.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    keeps: usize,
    misses: usize,
}

/// Where an end of the interval of the capacity is looked for, and by what.
struct End {
    /// The look of the bracket that is on its side, and the other one.
    nearest: usize,
    inside: usize,
    /// 1: above the root; -1: below.
    direction: f64,
    is_certain: fn(&Look) -> bool,
    /// What is 0 at the end.
    strain: fn(&Look) -> f64,
}

enum Start {
    Bracket(Bracket),
    Nothing,
    Everything,
}

struct Search<'a, F> {
    wanted: &'a Wanted,
    look: F,
    looks: Vec<Look>,
}

impl<E, F: FnMut(f64, u32) -> Result<Look, E>> Search<'_, F> {
    /// Looks, unless the same was looked at before; which look it is.
    fn at(&mut self, load_per_s: f64, requests: u32) -> Result<usize, E> {
        let same = |look: &Look| look.load_per_s == load_per_s && look.requests == requests;
        if let Some(known) = self.looks.iter().position(same) {
            return Ok(known);
        }
        let look = (self.look)(load_per_s, requests)?;
        self.looks.push(look);
        Ok(self.looks.len() - 1)
    }

    /// Up while limits are kept, down while one is missed.
    fn find_bracket(&mut self) -> Result<Start, E> {
        let requests = self.wanted.first_requests;
        let mut load = self.wanted.guess_per_s.clamp(LEAST_PER_S, MOST_PER_S);
        let (mut keeps, mut misses) = (None, None);
        loop {
            let index = self.at(load, requests)?;
            let look = self.looks[index];
            match look.keeps() {
                true => keeps = Some(index),
                false => misses = Some(index),
            }
            load = match (keeps, misses) {
                (Some(keeps), Some(misses)) => {
                    return Ok(Start::Bracket(Bracket { keeps, misses }));
                }
                (Some(_), None) if load >= MOST_PER_S => return Ok(Start::Everything),
                (Some(_), None) => (load * STRIDE).min(MOST_PER_S),
                _ if look.is_alone() || load <= LEAST_PER_S => return Ok(Start::Nothing),
                _ => {
                    let lower = load / STRIDE;
                    let held = look.served_per_s.map_or(lower, |served| OF_SERVED * served);
                    held.min(load / 1.2).max(LEAST_PER_S)
                }
            };
        }
    }

    /// Narrows the bracket down with longer and longer looks.
    fn narrow(&mut self, bracket: Bracket) -> Result<Found, E> {
        let wanted = self.wanted;
        let mut requests = wanted.first_requests;
        let width = match wanted.is_given {
            true => FINE * wanted.tolerance,
            false => COARSE,
        };
        let bracket = self.bisect(bracket, requests, width)?;
        let mut root = self.root(bracket);
        if wanted.is_given {
            return self.conclude(bracket, root, [root, root]);
        }
        let mut spread = COARSE;
        let mut longer = self.longer(requests, f64::from(SECOND_LENGTH));
        loop {
            // The interval narrows with the root of the length.
            let expected = spread * (f64::from(requests) / f64::from(longer)).sqrt();
            let reach = expected.min(COARSE).max(wanted.tolerance / 2.0);
            requests = longer;
            let Some(bracket) = self.around(root, reach, requests)? else {
                // Longer looks find every load to miss.
                return Ok(self.nothing());
            };
            let mut bracket = self.bisect(bracket, requests, COARSE)?;
            let is_longest = requests >= wanted.max_requests;
            spread = self.expected_spread(bracket);
            root = self.root(bracket);
            let is_long = requests >= wanted.first_requests.saturating_mul(CONCLUDING_LENGTH);
            let is_enough = |spread: f64, excess_share: f64| {
                is_long && spread <= wanted.tolerance && excess_share <= EXCESS * wanted.tolerance
            };
            let excess_share = self.looks[bracket.keeps].excess_share;
            if is_longest || is_enough(spread, excess_share) {
                let gap = GAP * wanted.tolerance;
                bracket = self.bisect(bracket, requests, gap)?;
                if self.share_of_root(bracket).is_none() {
                    bracket = self.bisect(bracket, requests, FINE * wanted.tolerance)?;
                }
                root = self.root(bracket);
                let ends = self.ends(bracket, gap, requests)?;
                spread = (ends[1] - ends[0]) / 2.0 / root;
                if is_longest || is_enough(spread, excess_share) {
                    return self.conclude(bracket, root, ends);
                }
            }
            let growth = MARGIN * (spread / wanted.tolerance).powi(2);
            let growth = match growth.is_nan() {
                true => MOST_GROWTH,
                false => growth.clamp(LEAST_GROWTH, MOST_GROWTH),
            };
            longer = self.longer(requests, growth);
            spread = match spread.is_nan() {
                true => COARSE,
                false => spread.min(COARSE),
            };
        }
    }

    /// About the half-width of the interval of the root, as a share of it: that of the strain
    /// over how fast it rises. NaN where that says nothing.
    fn expected_spread(&self, bracket: Bracket) -> f64 {
        let [keeps, misses] = [bracket.keeps, bracket.misses].map(|index| self.looks[index]);
        let half = (keeps.strain.high - keeps.strain.low) / 2.0;
        let rise = misses.strain.value.min(FAR) - keeps.strain.value;
        half * (misses.load_per_s / keeps.load_per_s).ln() / rise
    }

    fn longer(&self, requests: u32, factor: f64) -> u32 {
        let longer = crate::number::whole_u32(f64::from(requests) * factor);
        longer.min(self.wanted.max_requests)
    }

    /// A bracket of looks of this length, at first on both sides of a load and `reach` away
    /// from it, as a share; none if even the least load misses.
    fn around(&mut self, load_per_s: f64, reach: f64, requests: u32) -> Result<Option<Bracket>, E> {
        let step = 1.0 + REACH * reach;
        let lower = self.at(load_per_s / step, requests)?;
        let upper = self.at(load_per_s * step, requests)?;
        let (mut keeps, mut misses) = match (self.looks[lower].keeps(), self.looks[upper].keeps()) {
            (true, false) => {
                return Ok(Some(Bracket {
                    keeps: lower,
                    misses: upper,
                }));
            }
            (true, true) => (Some(upper), None),
            (false, _) => (None, Some(lower)),
        };
        let onwards = |load: f64, step: f64, keeps: Option<usize>| match keeps {
            Some(_) => load * step,
            None => load / step,
        };
        let (mut load, mut step) = (onwards(load_per_s, step, keeps), step);
        loop {
            if let (Some(keeps), Some(misses)) = (keeps, misses) {
                return Ok(Some(Bracket { keeps, misses }));
            }
            load = onwards(load, step, keeps);
            let index = self.at(load, requests)?;
            match self.looks[index].keeps() {
                true => keeps = Some(index),
                false if keeps.is_none() && self.looks[index].is_alone() => return Ok(None),
                false => misses = Some(index),
            }
            step = (step * step).min(STRIDE);
        }
    }

    /// Makes a bracket as narrow as `width`, as a share.
    fn bisect(&mut self, mut bracket: Bracket, requests: u32, width: f64) -> Result<Bracket, E> {
        loop {
            let [keeps, misses] = self.loads(bracket);
            if misses / keeps <= 1.0 + width {
                return Ok(bracket);
            }
            let index = self.at(self.guess_between(bracket), requests)?;
            match self.looks[index].keeps() {
                true => bracket.keeps = index,
                false => bracket.misses = index,
            }
        }
    }

    fn loads(&self, bracket: Bracket) -> [f64; 2] {
        [bracket.keeps, bracket.misses].map(|index| self.looks[index].load_per_s)
    }

    /// A load well within a bracket: where a straight line through the strains is 0, if both
    /// say something, otherwise the middle.
    fn guess_between(&self, bracket: Bracket) -> f64 {
        let [keeps, misses] = self.loads(bracket);
        let share = self.share_of_root(bracket).unwrap_or(0.5).clamp(0.2, 0.8);
        keeps * (misses / keeps).powf(share)
    }

    /// Where in a bracket the root is, from 0 to 1, by a straight line.
    fn share_of_root(&self, bracket: Bracket) -> Option<f64> {
        let [keeps, misses] = [bracket.keeps, bracket.misses].map(|index| self.looks[index]);
        let says = |look: &Look| look.served_per_s.is_none() && look.strain.value.abs() < FAR;
        (says(&keeps) && says(&misses))
            .then(|| keeps.strain.value / (keeps.strain.value - misses.strain.value))
    }

    /// The load at which the strain is 0, within a narrow bracket.
    fn root(&self, bracket: Bracket) -> f64 {
        let [keeps, misses] = self.loads(bracket);
        let share = self.share_of_root(bracket).unwrap_or(0.0);
        keeps * (misses / keeps).powf(share)
    }

    /// The ends of the interval of the capacity: the highest load below the root that keeps
    /// all limits for certain, and the lowest above it that misses one for certain; NaN: not
    /// known. Looks are at most `gap` apart there, as a share.
    fn ends(&mut self, bracket: Bracket, gap: f64, requests: u32) -> Result<[f64; 2], E> {
        let expected = REACH * self.expected_spread(bracket);
        let reach = match expected > 0.0 {
            true => expected.min(COARSE),
            false => COARSE,
        };
        let root = self.root(bracket);
        let low = End {
            nearest: bracket.keeps,
            inside: bracket.misses,
            direction: -1.0,
            is_certain: Look::surely_keeps,
            strain: |look| look.strain.high,
        };
        let high = End {
            nearest: bracket.misses,
            inside: bracket.keeps,
            direction: 1.0,
            is_certain: Look::surely_misses,
            strain: |look| look.strain.low,
        };
        let kept = self.end(&low, root, reach, gap, requests)?;
        // What may be too much of it is not held for certain.
        let near = self
            .looks
            .iter()
            .filter(|look| look.requests == requests && look.load_per_s <= kept * (1.0 + gap));
        let nearest = near.max_by(|one, two| one.load_per_s.total_cmp(&two.load_per_s));
        let excess_share = nearest.map_or(0.0, |look| look.excess_share);
        let excess_share = match excess_share.is_finite() {
            true => excess_share,
            false => EXCESS * self.wanted.tolerance,
        };
        Ok([
            kept * (1.0 - excess_share),
            self.end(&high, root, reach, gap, requests)?,
        ])
    }

    /// One of them, expected `reach` away from the root.
    fn end(&mut self, end: &End, root: f64, reach: f64, gap: f64, requests: u32) -> Result<f64, E> {
        // Of what is not certain the outermost, and what is, next to it.
        let (mut open, mut certain) = (end.inside, end.nearest);
        let mut by = reach;
        while !(end.is_certain)(&self.looks[certain]) {
            if by > WIDEST {
                return Ok(f64::NAN);
            }
            open = certain;
            let so_far = (self.looks[open].load_per_s / root).ln() * end.direction;
            by = by.max(so_far + reach / 2.0);
            certain = self.at(root * (end.direction * by).exp(), requests)?;
            by *= 2.0;
        }
        loop {
            let [inner, outer] = [open, certain].map(|index| self.looks[index].load_per_s);
            let share = self.share_of_end(end, open, certain);
            let enough = match share {
                Some(_) => gap,
                None => self.wanted.tolerance,
            };
            let is_near = (inner / outer).max(outer / inner) <= 1.0 + enough;
            if is_near || self.looks_of(requests) >= MOST_LOOKS {
                return Ok(inner * (outer / inner).powf(share.unwrap_or(1.0)));
            }
            let index = self.at((inner * outer).sqrt(), requests)?;
            match (end.is_certain)(&self.looks[index]) {
                true => certain = index,
                false => open = index,
            }
        }
    }

    fn looks_of(&self, requests: u32) -> usize {
        let looks = self.looks.iter();
        looks.filter(|look| look.requests == requests).count()
    }

    /// Where between two looks an end is, from 0 to 1, by a straight line; none if one of
    /// them does not say: then only what is certain counts.
    fn share_of_end(&self, end: &End, open: usize, certain: usize) -> Option<f64> {
        let strain = |index: usize| {
            let look = self.looks[index];
            let strain = (end.strain)(&look);
            let says = look.served_per_s.is_none() && strain.abs() < FAR;
            says.then_some(strain)
        };
        let (open, certain) = (strain(open)?, strain(certain)?);
        (open * certain < 0.0).then(|| open / (open - certain))
    }

    /// Checks the order of loads and says what was found.
    fn conclude(
        &mut self,
        bracket: Bracket,
        load_per_s: f64,
        [low, high]: [f64; 2],
    ) -> Result<Found, E> {
        let against_order_per_s = self.against_order(load_per_s, [low, high])?;
        Ok(Found {
            load_per_s,
            low_per_s: low,
            high_per_s: high,
            shown: self.shown(bracket),
            missed: Some(bracket.misses),
            against_order_per_s,
            looks: std::mem::take(&mut self.looks),
        })
    }

    /// A load that breaks the order, if there is one.
    fn against_order(&mut self, root: f64, [low, high]: [f64; 2]) -> Result<Option<f64>, E> {
        let lower = LOWER_LOADS.map(|times| (times, Look::surely_misses as fn(&Look) -> bool));
        let higher = HIGHER_LOADS.map(|times| (times, Look::surely_keeps as fn(&Look) -> bool));
        for (times, breaks_it) in lower.into_iter().chain(higher) {
            let first = self.at(times * root, self.wanted.first_requests)?;
            if !breaks_it(&self.looks[first]) {
                continue;
            }
            // One in forty is wrong about that.
            let longer = self.longer(self.wanted.first_requests, f64::from(SECOND_LENGTH));
            let again = self.at(times * root, longer)?;
            if breaks_it(&self.looks[again]) {
                return Ok(Some(times * root));
            }
        }
        let longest = self.looks.iter().map(|look| look.requests).max();
        let mut long = self.looks.iter().filter(|l| Some(l.requests) == longest);
        let breaks = long.find(|look| {
            look.load_per_s > high && look.surely_keeps()
                || look.load_per_s < low && look.surely_misses()
        });
        Ok(breaks.map(|look| look.load_per_s))
    }

    /// Of the looks as long as those of the bracket the one at the highest load that keeps
    /// all limits for certain; where none does, the one of the bracket that keeps them.
    fn shown(&self, bracket: Bracket) -> usize {
        let requests = self.looks[bracket.keeps].requests;
        let best = self.looks.iter().enumerate().filter(|(_, look)| {
            look.requests == requests
                && (look.surely_keeps() || self.wanted.is_given && look.keeps())
        });
        let best = best.max_by(|(_, one), (_, two)| one.load_per_s.total_cmp(&two.load_per_s));
        best.map_or(bracket.keeps, |(index, _)| index)
    }

    /// No load keeps all limits.
    fn nothing(&mut self) -> Found {
        let lowest = (self.looks.iter().enumerate())
            .min_by(|(_, one), (_, two)| one.load_per_s.total_cmp(&two.load_per_s))
            .map_or(0, |(index, _)| index);
        let is_certain = self.looks.get(lowest).is_some_and(Look::surely_misses);
        Found {
            load_per_s: 0.0,
            low_per_s: 0.0,
            high_per_s: match is_certain || self.wanted.is_given {
                true => 0.0,
                false => f64::NAN,
            },
            shown: lowest,
            missed: Some(lowest),
            against_order_per_s: None,
            looks: std::mem::take(&mut self.looks),
        }
    }

    /// Every load that was tried keeps all limits.
    fn everything(&mut self) -> Found {
        Found {
            load_per_s: MOST_PER_S,
            low_per_s: MOST_PER_S,
            high_per_s: f64::NAN,
            shown: self.looks.len() - 1,
            missed: None,
            against_order_per_s: None,
            looks: std::mem::take(&mut self.looks),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A server of rate 10 whose mean time in the system is held against a limit of half a
    /// second, which it keeps up to 8 requests per second.
    const RATE: f64 = 10.0;
    const LIMIT_S: f64 = 0.5;
    const TRUE_CAPACITY: f64 = RATE - 1.0 / LIMIT_S;

    const WANTED: Wanted = Wanted {
        tolerance: 0.01,
        first_requests: 500,
        max_requests: 1_000_000,
        guess_per_s: 1.0,
        is_given: false,
    };

    /// The same error of all looks of one length, a standard normal one over the root of it
    /// times `scale`: common random numbers.
    fn look(load_per_s: f64, requests: u32, error: f64, scale: f64) -> Look {
        let deviation = scale / f64::from(requests).sqrt();
        let residence_s = match load_per_s < RATE {
            true => 1.0 / (RATE - load_per_s),
            false => 100.0,
        };
        let value = (residence_s / LIMIT_S).ln() + error * deviation;
        Look {
            load_per_s,
            requests,
            simulated: u64::from(requests),
            strain: Strain {
                value,
                low: value - 1.96 * deviation,
                high: value + 1.96 * deviation,
            },
            excess_share: if load_per_s < RATE {
                0.0
            } else {
                f64::INFINITY
            },
            served_per_s: (load_per_s >= RATE).then_some(RATE),
            residence_s,
        }
    }

    fn find(wanted: &Wanted, mut looks: impl FnMut(f64, u32) -> Look) -> Found {
        let found = highest_load(wanted, |load, requests| {
            Ok::<_, Infallible>(looks(load, requests))
        });
        match found {
            Ok(found) => found,
            Err(impossible) => match impossible {},
        }
    }

    /// Standard normal numbers, by a generator that anybody can check.
    fn normals(count: usize) -> impl Iterator<Item = f64> {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        (0..count).map(move |_| {
            let (radius, turn) = (uniform(), uniform());
            (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
        })
    }

    #[test]
    fn without_noise_the_root_is_found_from_any_guess() {
        for guess_per_s in [1e-9, 0.3, 7.9, 8.1, 9.99, 500.0, 1e12] {
            let wanted = Wanted {
                guess_per_s,
                ..WANTED
            };
            let found = find(&wanted, |load, n| look(load, n, 0.0, 0.0));
            let off = found.load_per_s / TRUE_CAPACITY - 1.0;
            assert!(off.abs() < 0.0025, "{guess_per_s}: {off}");
            // Straight lines between looks are off by a thousandth.
            assert!(found.low_per_s <= TRUE_CAPACITY * 1.001);
            assert!(found.high_per_s >= TRUE_CAPACITY * 0.999);
            assert!(found.high_per_s / found.low_per_s < 1.03);
            assert_eq!(found.against_order_per_s, None);
            let shown = found.looks[found.shown];
            assert!(shown.surely_keeps() && shown.load_per_s <= TRUE_CAPACITY);
            assert!(found.looks.len() < 40, "{}", found.looks.len());
        }
    }

    #[test]
    fn intervals_cover_the_capacity_as_often_as_they_say_and_are_as_narrow_as_wanted() {
        let tries = 1000;
        let (mut covered, mut lengths) = (0, 0.0);
        // Each length has errors of its own.
        let mut errors = normals(8 * tries);
        for _ in 0..tries {
            let mut known: Vec<(u32, f64)> = Vec::new();
            let found = find(&WANTED, |load, requests| {
                let of_length = known.iter().find(|(length, _)| *length == requests);
                let error = match of_length {
                    Some((_, error)) => *error,
                    None => {
                        let error = errors.next().expect("few lengths");
                        known.push((requests, error));
                        error
                    }
                };
                look(load, requests, error, 4.0)
            });
            let half = (found.high_per_s - found.low_per_s) / 2.0 / found.load_per_s;
            assert!(half <= 0.0101, "{half}");
            covered += u32::from((found.low_per_s..=found.high_per_s).contains(&TRUE_CAPACITY));
            lengths += f64::from(found.looks[found.shown].requests);
        }
        // Stopping when it is narrow enough costs about a point.
        assert!((925..=975).contains(&covered), "{covered} of {tries}");
        // The strain rises by 4 per natural logarithm of the load there: 1 % of load are 4 %,
        // so that 1.96 * 4 / sqrt(n) = 0.04 needs 38,416 requests.
        let mean = lengths / tries as f64;
        assert!((40_000.0..100_000.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_target_out_of_reach_leaves_no_capacity() {
        let found = find(&WANTED, |load, requests| {
            let mut look = look(load, requests, 0.0, 1.0);
            look.strain.value += 5.0;
            look.strain.low += 5.0;
            look.strain.high += 5.0;
            look
        });
        assert_eq!((found.load_per_s, found.high_per_s), (0.0, 0.0));
        assert!(found.looks[found.shown].is_alone());
    }

    #[test]
    fn what_nothing_strains_has_no_known_capacity() {
        let found = find(&WANTED, |load, requests| Look {
            load_per_s: load,
            served_per_s: None,
            excess_share: 0.0,
            ..look(0.1, requests, 0.0, 0.0)
        });
        assert_eq!(found.load_per_s, MOST_PER_S);
        assert!(found.high_per_s.is_nan() && found.missed.is_none());
    }

    #[test]
    fn a_saturated_look_ends_what_a_loose_target_would_allow() {
        let found = find(&WANTED, |load, requests| {
            let mut look = look(load, requests, 0.0, 1.0);
            look.strain.value -= 20.0;
            look.strain.low -= 20.0;
            look.strain.high -= 20.0;
            look
        });
        let off = found.load_per_s / RATE - 1.0;
        assert!((-0.01..=0.0).contains(&off), "{off}");
        assert!(found.high_per_s >= RATE);
    }

    #[test]
    fn misses_below_the_capacity_are_told() {
        let found = find(&WANTED, |load, requests| {
            let mut look = look(load, requests, 0.0, 0.5);
            if (3.0..5.0).contains(&load) {
                look.strain = Strain {
                    value: 1.0,
                    low: 0.9,
                    high: 1.1,
                };
            }
            look
        });
        // The first load to miss is what counts, and that a higher one keeps all is told.
        assert!((2.97..3.03).contains(&found.load_per_s), "{found:?}");
        let against = found.against_order_per_s.expect("a load");
        assert!((5.0..8.0).contains(&against), "{found:?}");
    }

    #[test]
    fn of_given_requests_there_is_one_length_and_no_doubt() {
        let wanted = Wanted {
            is_given: true,
            first_requests: 77,
            max_requests: 77,
            ..WANTED
        };
        let found = find(&wanted, |load, requests| {
            assert_eq!(requests, 77);
            look(load, requests, 0.0, 0.0)
        });
        assert!((found.load_per_s / TRUE_CAPACITY - 1.0).abs() < 0.005);
        assert_eq!(found.low_per_s, found.load_per_s);
        assert!(found.looks[found.shown].load_per_s <= TRUE_CAPACITY);
    }

    #[test]
    fn an_error_ends_the_search() {
        let found = highest_load(&WANTED, |_, _| Err::<Look, _>("no"));
        assert_eq!(found, Err("no"));
    }
}
