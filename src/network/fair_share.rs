//! Max-min fair rates of flows that each cross some links.
//!
//! Progressive filling: all rates grow together until a link is full or a flow
//! has all it can use; those flows stop there, the others go on. What results is
//! the one division in which no flow can get more without taking from one that
//! has no more than it. A flow puts on each of its links a share of its rate, its
//! weight there: what is cut over several links side by side is one flow.
//!
//! A change on some links is settled where it happens if it can be: those links are
//! filled anew, with what their flows get elsewhere taken as given. Where that gives
//! a flow another rate, its other links join in, unless they have bandwidth to spare
//! before and after; and so on until nothing changes outside. Every flow then still
//! has a full link on which nobody has more than it, so the division is the right
//! one, and work is proportional to what the change concerns. Links on which flows
//! that a changed link holds back share with others that they hold back themselves
//! will have to join: they do from the start. A flow that has all its links for itself
//! has what the tightest gives, those that meet on one link only have equal parts of that
//! unless something else is tighter, and one that leaves links that held nobody back
//! leaves others as they are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::number::narrow;

/// Rates closer than this are the same, their difference rounding.
pub(crate) const SAME_RATE: f64 = 1e-12;

const NONE: u32 = u32::MAX;

/// Links, the flows on them, and buffers kept between fillings.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    links: Vec<Link>,
    /// Flows by link.
    on_links: Vec<Vec<OnLink>>,
    flows: Vec<Flow>,
    /// Links by flow, so many places for each.
    crossings: Vec<Crossing>,
    places: usize,
    /// Number of the filling under way; tells which links take part.
    filling: u64,
    /// Number of its round; tells what has been looked at.
    round: u64,
    /// The first round of the filling.
    first_round: u64,
    /// Links whose flows have changed since the last filling, if that concerns others.
    changed: Vec<u32>,
    /// Links that take part, and the flows on them.
    active_links: Vec<u32>,
    active_flows: Vec<u32>,
    /// Those of them that cross other links, too.
    leaving: Vec<u32>,
    /// How many have not stopped.
    growing: usize,
    /// (limit, flow) of the flows that can use less than links elsewhere leave them.
    /// Bits of rates are ordered as rates.
    limited: Vec<(u64, u32)>,
    /// The least of these limits. Once it has been reached, the list is in order, the
    /// lowest last.
    least_limit: u64,
    is_sorted: bool,
    /// (level, link) of links elsewhere that hold flows back.
    holding: Vec<(u64, u32)>,
    /// (rate at which it is full, link); out of date where flows stopped since.
    full_at: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Link {
    bytes_per_s: f64,
    /// Rate of the flows that it holds back; infinite: of none.
    level_bytes_per_s: f64,
    filling: u64,
    round: u64,
    left_bytes_per_s: f64,
    /// Sum of the weights of the growing flows.
    growing_weight: f64,
    growing: u32,
    /// First of the flows that it holds back from elsewhere in this round.
    first_held: u32,
}

/// A flow in the list of a link.
#[derive(Debug, Clone, Copy)]
struct OnLink {
    flow: u32,
    /// Where the link stands in the list of the flow.
    crossing: u32,
    weight: f64,
}

/// A link in the list of a flow.
#[derive(Debug, Clone, Copy, Default)]
struct Crossing {
    link: u32,
    /// Where the flow stands in the list of the link.
    position: u32,
    weight: f64,
}

#[derive(Debug, Clone, Default)]
struct Flow {
    bytes_per_s: f64,
    /// Before this filling.
    old_bytes_per_s: f64,
    round: u64,
    /// How many links it crosses.
    links: u32,
    /// The next one that the same link elsewhere holds back.
    next_held: u32,
    stopped: bool,
}

impl FairShare {
    /// Links of these bandwidths, numbered in this order.
    pub(crate) fn new(bytes_per_s: impl Iterator<Item = f64>) -> Self {
        let link = |bytes_per_s| Link {
            bytes_per_s,
            level_bytes_per_s: f64::INFINITY,
            filling: 0,
            round: 0,
            left_bytes_per_s: 0.0,
            growing_weight: 0.0,
            growing: 0,
            first_held: NONE,
        };
        let links: Vec<_> = bytes_per_s.map(link).collect();
        Self {
            on_links: vec![Vec::new(); links.len()],
            links,
            ..Self::default()
        }
    }

    /// Puts flow number `flow`, one that is not there, on different links with a
    /// weight, more than 0, on each.
    #[inline(always)]
    pub(crate) fn add(&mut self, flow: u32, links: &[(u32, f64)]) {
        let index = flow as usize;
        if index >= self.flows.len() || links.len() > self.places {
            self.make_room(index, links.len());
        }
        self.flows[index] = Flow {
            links: narrow::<u32, _>(links.len()),
            ..Flow::default()
        };
        let places = &mut self.crossings[index * self.places..];
        for (crossing, (place, &(link, weight))) in (0..).zip(places.iter_mut().zip(links)) {
            let list = &mut self.on_links[link as usize];
            *place = Crossing {
                link,
                position: narrow::<u32, _>(list.len()),
                weight,
            };
            list.push(OnLink {
                flow,
                crossing,
                weight,
            });
            self.changed.push(link);
        }
    }

    /// Makes room for a flow of this number and for one that crosses so many links.
    fn make_room(&mut self, index: usize, links: usize) {
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, Flow::default);
        }
        let before = self.places;
        self.places = before.max(links);
        self.crossings
            .resize(self.flows.len() * self.places, Crossing::default());
        if before < self.places {
            // The last one first: nobody is overwritten before it has moved.
            for flow in (0..self.flows.len()).rev() {
                let from = flow * before;
                let crossings = from..from + self.flows[flow].links as usize;
                self.crossings.copy_within(crossings, flow * self.places);
            }
        }
    }

    /// Takes a flow off its links.
    #[inline(always)]
    pub(crate) fn remove(&mut self, flow: u32) {
        let first = flow as usize * self.places;
        for index in first..first + self.flows[flow as usize].links as usize {
            let Crossing { link, position, .. } = self.crossings[index];
            let list = &mut self.on_links[link as usize];
            list.swap_remove(position as usize);
            if let Some(moved) = list.get(position as usize) {
                let index = moved.flow as usize * self.places + moved.crossing as usize;
                self.crossings[index].position = position;
            }
            let level_bytes_per_s = &mut self.links[link as usize].level_bytes_per_s;
            if list.is_empty() {
                *level_bytes_per_s = f64::INFINITY;
            } else if *level_bytes_per_s < f64::INFINITY {
                // One that holds nobody back is of no concern.
                self.changed.push(link);
            }
        }
        self.flows[flow as usize].links = 0;
    }

    /// What a flow can use has changed.
    pub(crate) fn touch(&mut self, flow: u32) {
        let crossings = crossings(&self.crossings, self.places, flow, &self.flows);
        let links = crossings.iter().map(|crossing| crossing.link);
        self.changed.extend(links);
    }

    /// Whether rates are out of date.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Brings rates up to date. `limit` says the most a flow can use.
    #[inline]
    pub(crate) fn fill(&mut self, limit: impl Fn(u32) -> f64) {
        if let Some(flow) = self.lone_flow() {
            self.fill_alone(flow, limit(flow));
            return;
        }
        if let Some(hub) = self.hub()
            && self.fill_hub(hub, &limit)
        {
            return;
        }
        self.filling += 1;
        self.first_round = self.round + 1;
        self.active_links.clear();
        let mut joining = std::mem::take(&mut self.changed);
        while !joining.is_empty() {
            self.join(&mut joining);
            self.collect(&limit);
            self.grow();
            self.find_concerned(&mut joining);
        }
        self.changed = joining;
    }

    /// Flows of the last filling, whose rates may have changed, and their rates,
    /// bytes per second.
    #[inline]
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u32, f64)> {
        let rate = |&flow: &u32| (flow, self.flows[flow as usize].bytes_per_s);
        self.active_flows.iter().map(rate)
    }

    /// The flow that has all links for itself on which something has changed.
    #[inline]
    fn lone_flow(&self) -> Option<u32> {
        let flow = self.only_flow(*self.changed.first()?)?;
        let is_alone = |&link: &u32| self.only_flow(link) == Some(flow);
        if !self.changed.iter().all(is_alone) {
            return None;
        }
        let crossings = crossings(&self.crossings, self.places, flow, &self.flows);
        let mut links = crossings.iter().map(|crossing| crossing.link);
        links.all(|link| is_alone(&link)).then_some(flow)
    }

    /// The flow that has a link for itself.
    #[inline]
    fn only_flow(&self, link: u32) -> Option<u32> {
        match self.on_links[link as usize][..] {
            [on] => Some(on.flow),
            _ => None,
        }
    }

    /// Gives a flow what its links have.
    #[inline]
    fn fill_alone(&mut self, flow: u32, limit_bytes_per_s: f64) {
        let (mut least, mut tightest) = (f64::INFINITY, NONE);
        for crossing in crossings(&self.crossings, self.places, flow, &self.flows) {
            let link = &mut self.links[crossing.link as usize];
            link.level_bytes_per_s = f64::INFINITY;
            let share = link.share_of_all(crossing.weight, 1);
            if share < least || (share == least && crossing.link < tightest) {
                (least, tightest) = (share, crossing.link);
            }
        }
        if least < limit_bytes_per_s {
            self.links[tightest as usize].level_bytes_per_s = least;
        }
        self.flows[flow as usize].bytes_per_s = least.min(limit_bytes_per_s);
        self.changed.clear();
        self.active_flows.clear();
        self.active_flows.push(flow);
    }

    /// The only link on which flows meet that a change concerns, if they have all their
    /// other links for themselves.
    #[inline]
    fn hub(&self) -> Option<u32> {
        let meet = |&link: &u32| self.on_links[link as usize].len() > 1;
        let hub = self.changed.iter().copied().find(meet)?;
        let links_of = |flow: u32| {
            let all = crossings(&self.crossings, self.places, flow, &self.flows);
            all.iter().map(|crossing| crossing.link)
        };
        let has_own = |on: &OnLink| {
            links_of(on.flow).all(|link| link == hub || self.only_flow(link).is_some())
        };
        let is_spoke = |link: u32| {
            self.only_flow(link)
                .is_some_and(|flow| links_of(flow).any(|l| l == hub))
        };
        let is_hub = self.on_links[hub as usize].iter().all(has_own)
            && (self.changed.iter()).all(|&link| link == hub || is_spoke(link));
        is_hub.then_some(hub)
    }

    /// Lets the flows on `hub` have as much as each other, if nothing else holds one of
    /// them back; whether that is so.
    #[inline]
    fn fill_hub(&mut self, hub: u32, limit: impl Fn(u32) -> f64) -> bool {
        let list = &self.on_links[hub as usize];
        let weight: f64 = list.iter().map(|on| on.weight).sum();
        let share = self.links[hub as usize].share_of_all(weight, list.len());
        let is_held = |on: &OnLink| {
            let crossings = crossings(&self.crossings, self.places, on.flow, &self.flows);
            let mut others = crossings.iter().filter(|crossing| crossing.link != hub);
            limit(on.flow) <= share
                || others.any(|crossing| {
                    let link = &self.links[crossing.link as usize];
                    let own = link.share_of_all(crossing.weight, 1);
                    (own, crossing.link) < (share, hub)
                })
        };
        if list.iter().any(is_held) {
            return false;
        }
        self.changed.clear();
        self.active_flows.clear();
        for on in list {
            self.active_flows.push(on.flow);
            self.flows[on.flow as usize].bytes_per_s = share;
            for crossing in crossings(&self.crossings, self.places, on.flow, &self.flows) {
                self.links[crossing.link as usize].level_bytes_per_s = f64::INFINITY;
            }
        }
        self.links[hub as usize].level_bytes_per_s = share;
        true
    }

    /// Lets links take part, and with them those that will have to: what a link holds
    /// back now changes, and so does what that leaves to others on its other links.
    fn join(&mut self, joining: &mut Vec<u32>) {
        let (links, flows, all) = (&mut self.links[..], &self.flows[..], &self.crossings[..]);
        let filling = self.filling;
        let mut next = self.active_links.len();
        for link in joining.drain(..) {
            let joined = std::mem::replace(&mut links[link as usize].filling, filling);
            if joined != filling {
                self.active_links.push(link);
            }
        }
        while let Some(&link) = self.active_links.get(next) {
            next += 1;
            let level_bytes_per_s = links[link as usize].level_bytes_per_s;
            if level_bytes_per_s == f64::INFINITY {
                continue;
            }
            for on in &self.on_links[link as usize] {
                if flows[on.flow as usize].bytes_per_s < level_bytes_per_s {
                    continue;
                }
                for crossing in crossings(all, self.places, on.flow, flows) {
                    let other = &mut links[crossing.link as usize];
                    if other.filling != filling && other.level_bytes_per_s < f64::INFINITY {
                        other.filling = filling;
                        self.active_links.push(crossing.link);
                    }
                }
            }
        }
    }

    /// Finds the flows on the links that take part, and what holds them elsewhere.
    fn collect(&mut self, limit: impl Fn(u32) -> f64) {
        self.round += 1;
        self.active_flows.clear();
        self.leaving.clear();
        self.limited.clear();
        self.full_at.clear();
        let (links, flows, all) = (
            &mut self.links[..],
            &mut self.flows[..],
            &self.crossings[..],
        );
        let (filling, round, first_round) = (self.filling, self.round, self.first_round);
        let mut least_limit = u64::MAX;
        for &index in &self.active_links {
            let list = &self.on_links[index as usize][..];
            let link = &mut links[index as usize];
            link.left_bytes_per_s = link.bytes_per_s;
            link.level_bytes_per_s = f64::INFINITY;
            link.growing = narrow::<u32, _>(list.len());
            link.growing_weight = list.iter().map(|on| on.weight).sum();
            if link.growing > 0 {
                self.full_at.push(Reverse((link.share().to_bits(), index)));
            }
            for &OnLink { flow: id, .. } in list {
                let flow = &mut flows[id as usize];
                if flow.round == round {
                    continue;
                }
                if flow.round < first_round {
                    flow.old_bytes_per_s = flow.bytes_per_s;
                }
                flow.round = round;
                flow.stopped = false;
                self.active_flows.push(id);
                let (mut least, mut holder) = (limit(id), NONE);
                let mut leaves = false;
                for crossing in crossings(all, self.places, id, flows) {
                    let other = &links[crossing.link as usize];
                    if other.filling == filling {
                        continue;
                    }
                    leaves = true;
                    if other.level_bytes_per_s < least {
                        (least, holder) = (other.level_bytes_per_s, crossing.link);
                    }
                }
                if leaves {
                    self.leaving.push(id);
                }
                if holder != NONE {
                    let first_held = &mut links[holder as usize].first_held;
                    let next = std::mem::replace(first_held, id);
                    flows[id as usize].next_held = next;
                    if next == NONE {
                        self.holding.push((least.to_bits(), holder));
                    }
                } else if least < f64::INFINITY {
                    self.limited.push((least.to_bits(), id));
                    least_limit = least_limit.min(least.to_bits());
                }
            }
        }
        self.growing = self.active_flows.len();
        self.least_limit = least_limit;
        self.is_sorted = false;
    }

    fn grow(&mut self) {
        // Lowest last.
        self.holding.sort_unstable_by(|a, b| b.cmp(a));
        let mut next_limit = self.next_limit();
        if let Some(&Reverse((full_at, index))) = self.full_at.peek()
            && self.on_links[index as usize].len() == self.growing
            && next_limit > full_at
        {
            // All of them are on the link that is full first.
            let share = f64::from_bits(full_at);
            self.links[index as usize].level_bytes_per_s = share;
            for &flow in &self.active_flows {
                self.flows[flow as usize].bytes_per_s = share;
            }
            self.growing = 0;
        }
        while self.growing > 0
            && let Some(&Reverse((full_at, index))) = self.full_at.peek()
        {
            // No link is full before that.
            while next_limit <= full_at {
                self.stop_limited(next_limit);
                next_limit = self.next_limit();
            }
            let link = &mut self.links[index as usize];
            if link.growing == 0 {
                self.full_at.pop();
                continue;
            }
            let share = link.share();
            if share > f64::from_bits(full_at) {
                // Flows that stopped early have left more to the others.
                if let Some(mut first) = self.full_at.peek_mut() {
                    first.0.0 = share.to_bits();
                }
                continue;
            }
            link.level_bytes_per_s = share;
            let list = std::mem::take(&mut self.on_links[index as usize]);
            for on in &list {
                self.stop(on.flow, share);
            }
            self.on_links[index as usize] = list;
        }
        for (_, link) in self.holding.drain(..) {
            self.links[link as usize].first_held = NONE;
        }
    }

    /// The lowest limit of the flows that have not reached theirs.
    fn next_limit(&self) -> u64 {
        let held = self.holding.last().map_or(u64::MAX, |&(level, _)| level);
        held.min(self.least_limit)
    }

    /// Stops flows that have this limit, the lowest there is.
    fn stop_limited(&mut self, limit: u64) {
        if self.least_limit == limit {
            self.stop_own(limit);
            return;
        }
        let Some((_, link)) = self.holding.pop() else {
            return;
        };
        let first_held = &mut self.links[link as usize].first_held;
        let mut next = std::mem::replace(first_held, NONE);
        while next != NONE {
            self.stop(next, f64::from_bits(limit));
            next = self.flows[next as usize].next_held;
        }
    }

    /// Stops a flow that can use no more than this, the lowest limit of its kind.
    fn stop_own(&mut self, limit: u64) {
        if !std::mem::replace(&mut self.is_sorted, true) {
            self.limited.sort_unstable_by(|a, b| b.cmp(a));
        }
        if let Some((_, flow)) = self.limited.pop() {
            self.stop(flow, f64::from_bits(limit));
        }
        self.least_limit = self.limited.last().map_or(u64::MAX, |&(limit, _)| limit);
    }

    /// Stops a flow at this rate, unless it has before.
    fn stop(&mut self, flow: u32, bytes_per_s: f64) {
        let (links, state) = (&mut self.links[..], &mut self.flows[flow as usize]);
        if std::mem::replace(&mut state.stopped, true) {
            return;
        }
        state.bytes_per_s = bytes_per_s;
        self.growing -= 1;
        let filling = self.filling;
        for crossing in crossings(&self.crossings, self.places, flow, &self.flows) {
            let link = &mut links[crossing.link as usize];
            if link.filling == filling {
                let used = crossing.weight * bytes_per_s;
                link.left_bytes_per_s = (link.left_bytes_per_s - used).max(0.0);
                link.growing -= 1;
                link.growing_weight -= crossing.weight;
            }
        }
    }

    /// Links outside that a changed rate concerns: those that hold flows back, and
    /// those that would be above their bandwidth.
    fn find_concerned(&mut self, concerned: &mut Vec<u32>) {
        let (links, flows) = (&mut self.links[..], &self.flows[..]);
        let (filling, round) = (self.filling, self.round);
        for &id in &self.leaving {
            let flow = &flows[id as usize];
            let change = flow.bytes_per_s - flow.old_bytes_per_s;
            if change.abs() <= SAME_RATE * flow.old_bytes_per_s {
                continue;
            }
            for crossing in crossings(&self.crossings, self.places, id, flows) {
                let link = &mut links[crossing.link as usize];
                if link.filling == filling || link.round == round {
                    continue;
                }
                let holds = link.level_bytes_per_s < f64::INFINITY;
                if !holds && change < 0.0 {
                    continue;
                }
                link.round = round;
                let rate = |on: &OnLink| on.weight * flows[on.flow as usize].bytes_per_s;
                let list = &self.on_links[crossing.link as usize];
                let used = || list.iter().map(rate).sum::<f64>();
                if holds || used() > link.bytes_per_s * (1.0 + SAME_RATE) {
                    concerned.push(crossing.link);
                }
            }
        }
    }
}

/// What a flow crosses.
fn crossings<'a>(all: &'a [Crossing], places: usize, flow: u32, flows: &[Flow]) -> &'a [Crossing] {
    let first = flow as usize * places;
    &all[first..first + flows[flow as usize].links as usize]
}

/// The sum of the weights of `flows`: what rounding leaves of it is no less than
/// nothing.
fn at_least_some(weight: f64, flows: usize) -> f64 {
    weight.max(f64::EPSILON * flows.max(1) as f64)
}

impl Link {
    /// Rate at which it is full, if these are all its flows and grow together.
    fn share_of_all(&self, weight: f64, flows: usize) -> f64 {
        self.bytes_per_s / at_least_some(weight, flows)
    }

    /// Rate at which it is full, if its growing flows grow together.
    fn share(&self) -> f64 {
        self.left_bytes_per_s / at_least_some(self.growing_weight, self.growing as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    type Links = Vec<(u32, f64)>;

    /// Two links, all of the flow on each.
    fn two(a: u32, b: u32) -> Links {
        vec![(a, 1.0), (b, 1.0)]
    }

    /// Rates of flows (links, limit).
    fn rates(bandwidths: &[f64], flows: &[(Links, f64)]) -> Vec<f64> {
        let mut network = FairShare::new(bandwidths.iter().copied());
        for (id, (links, _)) in flows.iter().enumerate() {
            network.add(id as u32, links);
        }
        let mut rates = vec![f64::NAN; flows.len()];
        network.fill(|id| flows[id as usize].1);
        for (id, rate) in network.filled() {
            rates[id as usize] = rate;
        }
        rates
    }

    #[test]
    fn what_one_link_cannot_give_another_flow_gets() {
        // 0 and 1 share a sender; 1 is held to 10 by its receiver, so 0 has 90.
        let all = f64::INFINITY;
        let rates = rates(&[100.0, 10.0, 100.0], &[(two(0, 2), all), (two(0, 1), all)]);
        assert_eq!(rates, [90.0, 10.0]);
    }

    #[test]
    fn a_flow_that_cannot_use_its_share_leaves_it() {
        let all = f64::INFINITY;
        let flows = [(1, 5.0), (2, all), (3, all), (4, 0.0)];
        let flows = flows.map(|(to, limit)| (two(0, to), limit));
        assert_eq!(rates(&[100.0; 5], &flows), [5.0, 47.5, 47.5, 0.0]);
    }

    #[test]
    fn a_flow_cut_over_two_links_loads_each_with_its_part() {
        // A quarter of flow 0 is on link 0 and three on link 1, which it fills at 40;
        // flow 1 has what is left of link 0.
        let all = f64::INFINITY;
        let flows = [(vec![(0, 0.25), (1, 0.75)], all), (vec![(0, 1.0)], all)];
        assert_eq!(rates(&[100.0, 30.0], &flows), [40.0, 90.0]);
    }

    /// Max-min fair: every flow has all it can use, or crosses a full link on which
    /// nobody has more.
    fn check(
        bandwidths: &[f64],
        flows: &[(Links, f64)],
        rates: &[f64],
    ) -> Result<(), TestCaseError> {
        let on = |link: u32| {
            let flows = flows.iter().enumerate();
            flows.filter_map(move |(id, (links, _))| {
                let crossing = links.iter().find(|(other, _)| *other == link);
                crossing.map(|&(_, weight)| (id, weight))
            })
        };
        let used = |link: u32| on(link).map(|(id, weight)| weight * rates[id]).sum::<f64>();
        for (link, bandwidth) in bandwidths.iter().enumerate() {
            prop_assert!(used(link as u32) <= bandwidth * (1.0 + 1e-9));
        }
        for (id, (links, limit)) in flows.iter().enumerate() {
            prop_assert!(rates[id] <= *limit);
            let held = |link: u32| {
                let most = on(link).map(|(id, _)| rates[id]).fold(0.0, f64::max);
                used(link) >= bandwidths[link as usize] * (1.0 - 1e-9)
                    && rates[id] >= most * (1.0 - 1e-9)
            };
            prop_assert!(
                rates[id] == *limit || links.iter().any(|(link, _)| held(*link)),
                "flow {} at {}",
                id,
                rates[id]
            );
        }
        Ok(())
    }

    /// Two links, or up to six of unlike weights.
    fn links() -> impl Strategy<Value = Links> {
        let many = proptest::collection::btree_map(0u32..20, 0.01f64..1.0, 1..7);
        prop_oneof![
            (0u32..10, 10u32..20).prop_map(|(a, b)| two(a, b)),
            many.prop_map(|links| links.into_iter().collect()),
        ]
    }

    proptest! {
        #[test]
        fn rates_are_max_min_fair(
            bandwidths in proptest::collection::vec(1.0f64..100.0, 20),
            flows in proptest::collection::vec(
                (links(), proptest::option::of(0.0f64..50.0)), 1..60,
            ),
        ) {
            let flows: Vec<_> = (flows.into_iter())
                .map(|(links, limit)| (links, limit.unwrap_or(f64::INFINITY)))
                .collect();
            check(&bandwidths, &flows, &rates(&bandwidths, &flows))?;
        }

        /// Flows that come, change what they can use and go, one by one or several
        /// between two fillings, share as if all were filled at once.
        #[test]
        fn changes_settled_where_they_happen_are_right(
            bandwidths in proptest::collection::vec(1.0f64..100.0, 20),
            flows in proptest::collection::vec((links(), any::<bool>()), 1..60),
            changes in proptest::collection::vec(
                (
                    any::<prop::sample::Index>(),
                    proptest::option::of(0.0f64..50.0),
                    any::<bool>(),
                ),
                0..80,
            ),
        ) {
            let mut network = FairShare::new(bandwidths.iter().copied());
            let mut here: BTreeMap<u32, (Links, f64)> = BTreeMap::new();
            let mut current = vec![0.0; flows.len()];
            let mut fill = |network: &mut FairShare, here: &BTreeMap<u32, (Links, f64)>| {
                network.fill(|id| here[&id].1);
                network.filled().for_each(|(id, rate)| current[id as usize] = rate);
                let flows: Vec<_> = here.values().cloned().collect();
                let rates: Vec<_> = here.keys().map(|&id| current[id as usize]).collect();
                check(&bandwidths, &flows, &rates)
            };
            for (id, (links, settles)) in (0..).zip(&flows) {
                network.add(id, links);
                here.insert(id, (links.clone(), f64::INFINITY));
                if *settles {
                    fill(&mut network, &here)?;
                }
            }
            for (index, limit, settles) in changes {
                let id = index.index(flows.len()) as u32;
                match (limit, here.get_mut(&id)) {
                    // Comes back.
                    (_, None) => {
                        let links = &flows[id as usize].0;
                        network.add(id, links);
                        here.insert(id, (links.clone(), f64::INFINITY));
                    }
                    (Some(limit), Some(flow)) => {
                        flow.1 = limit;
                        network.touch(id);
                    }
                    (None, Some(_)) => {
                        here.remove(&id);
                        network.remove(id);
                    }
                }
                if settles {
                    fill(&mut network, &here)?;
                }
            }
            fill(&mut network, &here)?;
        }
    }
}
