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
//! one, and work is proportional to what the change concerns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Rates closer than this are the same, their difference rounding.
pub(crate) const SAME_RATE: f64 = 1e-12;

/// Links, the flows on them, and buffers kept between fillings.
#[derive(Debug, Default)]
pub(crate) struct FairShare {
    links: Vec<Link>,
    flows: Vec<Flow>,
    /// Number of the filling under way; tells which links take part.
    filling: u64,
    /// Number of its round; tells what has been looked at.
    round: u64,
    /// Links whose flows have changed since the last filling.
    changed: Vec<u32>,
    /// Links that take part, and the flows on them.
    active_links: Vec<u32>,
    active_flows: Vec<u32>,
    limited: Vec<u32>,
    /// (rate at which it is full, link); out of date where flows stopped since.
    full_at: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Link {
    bytes_per_s: f64,
    flows: Vec<OnLink>,
    filling: u64,
    round: u64,
    left_bytes_per_s: f64,
    growing: u32,
    /// Sum of the weights of the growing flows.
    growing_weight: f64,
    /// Rate of the flows that it holds back; infinite: of none.
    level_bytes_per_s: f64,
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
#[derive(Debug, Clone, Copy)]
struct Crossing {
    link: u32,
    /// Where the flow stands in the list of the link.
    position: u32,
    weight: f64,
}

#[derive(Debug, Clone, Default)]
struct Flow {
    crossings: Vec<Crossing>,
    filling: u64,
    round: u64,
    stopped: bool,
    limit_bytes_per_s: f64,
    bytes_per_s: f64,
    /// Before this filling.
    old_bytes_per_s: f64,
}

impl FairShare {
    /// Links of these bandwidths, numbered in this order.
    pub(crate) fn new(bytes_per_s: impl Iterator<Item = f64>) -> Self {
        let link = |bytes_per_s| Link {
            bytes_per_s,
            flows: Vec::new(),
            filling: 0,
            round: 0,
            left_bytes_per_s: 0.0,
            growing: 0,
            growing_weight: 0.0,
            level_bytes_per_s: f64::INFINITY,
        };
        Self {
            links: bytes_per_s.map(link).collect(),
            ..Self::default()
        }
    }

    /// Puts flow number `flow`, one that is not there, on different links with a
    /// weight, more than 0, on each.
    pub(crate) fn add(&mut self, flow: u32, links: &[(u32, f64)]) {
        let index = flow as usize;
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, Flow::default);
        }
        let state = &mut self.flows[index];
        let mut crossings = std::mem::take(&mut state.crossings);
        crossings.clear();
        for &(link, weight) in links {
            let list = &mut self.links[link as usize].flows;
            let crossing = crossings.len() as u32;
            crossings.push(Crossing {
                link,
                position: list.len() as u32,
                weight,
            });
            list.push(OnLink {
                flow,
                crossing,
                weight,
            });
        }
        *state = Flow {
            crossings,
            ..Flow::default()
        };
        self.touch(flow);
    }

    /// Takes a flow off its links.
    pub(crate) fn remove(&mut self, flow: u32) {
        self.touch(flow);
        for crossing in 0..self.flows[flow as usize].crossings.len() {
            let Crossing { link, position, .. } = self.flows[flow as usize].crossings[crossing];
            let list = &mut self.links[link as usize].flows;
            list.swap_remove(position as usize);
            if let Some(moved) = list.get(position as usize) {
                let crossings = &mut self.flows[moved.flow as usize].crossings;
                crossings[moved.crossing as usize].position = position;
            }
        }
    }

    /// What a flow can use has changed.
    pub(crate) fn touch(&mut self, flow: u32) {
        let crossings = self.flows[flow as usize].crossings.iter();
        self.changed.extend(crossings.map(|crossing| crossing.link));
    }

    /// Whether rates are out of date.
    pub(crate) fn is_stale(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Brings rates up to date. `limit` says the most a flow can use.
    pub(crate) fn fill(&mut self, limit: impl Fn(u32) -> f64) {
        self.filling += 1;
        self.active_links.clear();
        let mut joining = std::mem::take(&mut self.changed);
        while !joining.is_empty() {
            for link in joining.drain(..) {
                let joined =
                    std::mem::replace(&mut self.links[link as usize].filling, self.filling);
                if joined != self.filling {
                    self.active_links.push(link);
                }
            }
            self.collect(&limit);
            self.grow();
            self.find_concerned(&mut joining);
        }
        self.changed = joining;
    }

    /// Flows of the last filling, whose rates may have changed, and their rates,
    /// bytes per second.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u32, f64)> {
        let rate = |&flow: &u32| (flow, self.flows[flow as usize].bytes_per_s);
        self.active_flows.iter().map(rate)
    }

    /// Finds the flows on the links that take part, and what holds them elsewhere.
    fn collect(&mut self, limit: impl Fn(u32) -> f64) {
        self.round += 1;
        self.active_flows.clear();
        self.limited.clear();
        for &link in &self.active_links {
            for &OnLink { flow: id, .. } in &self.links[link as usize].flows {
                let flow = &mut self.flows[id as usize];
                if flow.round == self.round {
                    continue;
                }
                flow.round = self.round;
                if flow.filling != self.filling {
                    flow.filling = self.filling;
                    flow.old_bytes_per_s = flow.bytes_per_s;
                }
                flow.stopped = false;
                flow.limit_bytes_per_s = limit(id);
                for crossing in &flow.crossings {
                    let other = &self.links[crossing.link as usize];
                    if other.filling != self.filling {
                        let level = other.level_bytes_per_s;
                        flow.limit_bytes_per_s = flow.limit_bytes_per_s.min(level);
                    }
                }
                if flow.limit_bytes_per_s.is_finite() {
                    self.limited.push(id);
                }
                self.active_flows.push(id);
            }
        }
    }

    fn grow(&mut self) {
        self.full_at.clear();
        for &index in &self.active_links {
            let link = &mut self.links[index as usize];
            link.left_bytes_per_s = link.bytes_per_s;
            link.level_bytes_per_s = f64::INFINITY;
            link.growing = link.flows.len() as u32;
            link.growing_weight = link.flows.iter().map(|flow| flow.weight).sum();
            if link.growing > 0 {
                self.full_at.push(Reverse((link.share().to_bits(), index)));
            }
        }
        let flows = &self.flows;
        let limit = |id: u32| flows[id as usize].limit_bytes_per_s;
        // Lowest limit last.
        self.limited
            .sort_unstable_by(|&a, &b| limit(b).total_cmp(&limit(a)).then(b.cmp(&a)));
        while let Some((share, link)) = self.next_full() {
            match self.limited.last() {
                Some(&flow) if self.flows[flow as usize].stopped => {
                    self.limited.pop();
                }
                Some(&flow) if self.flows[flow as usize].limit_bytes_per_s <= share => {
                    self.limited.pop();
                    self.stop(flow, self.flows[flow as usize].limit_bytes_per_s);
                }
                _ => {
                    self.links[link as usize].level_bytes_per_s = share;
                    for position in 0..self.links[link as usize].flows.len() {
                        let OnLink { flow, .. } = self.links[link as usize].flows[position];
                        if !self.flows[flow as usize].stopped {
                            self.stop(flow, share);
                        }
                    }
                }
            }
        }
    }

    /// The link that is full first, and the rate of its growing flows then.
    fn next_full(&mut self) -> Option<(f64, u32)> {
        while let Some(&Reverse((bits, index))) = self.full_at.peek() {
            let link = &self.links[index as usize];
            let share = link.share();
            if link.growing > 0 && share <= f64::from_bits(bits) {
                return Some((share, index));
            }
            // Flows that stopped early have left more to the others.
            self.full_at.pop();
            if link.growing > 0 {
                self.full_at.push(Reverse((share.to_bits(), index)));
            }
        }
        None
    }

    fn stop(&mut self, flow: u32, bytes_per_s: f64) {
        let flow = &mut self.flows[flow as usize];
        flow.stopped = true;
        flow.bytes_per_s = bytes_per_s;
        for crossing in &flow.crossings {
            let link = &mut self.links[crossing.link as usize];
            if link.filling == self.filling {
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
        for &id in &self.active_flows {
            let flow = &self.flows[id as usize];
            let change = (flow.bytes_per_s - flow.old_bytes_per_s).abs();
            if change <= SAME_RATE * flow.old_bytes_per_s {
                continue;
            }
            for crossing in &flow.crossings {
                let link = &mut self.links[crossing.link as usize];
                let looked_at = std::mem::replace(&mut link.round, self.round) == self.round;
                if link.filling == self.filling || looked_at {
                    continue;
                }
                let rate = |on: &OnLink| on.weight * self.flows[on.flow as usize].bytes_per_s;
                let used = || link.flows.iter().map(rate).sum::<f64>();
                if link.level_bytes_per_s.is_finite()
                    || used() > link.bytes_per_s * (1.0 + SAME_RATE)
                {
                    concerned.push(crossing.link);
                }
            }
        }
    }
}

impl Link {
    /// Rate at which it is full, if its growing flows grow together.
    fn share(&self) -> f64 {
        // What rounding leaves of the weights is no less than nothing.
        let weight = self
            .growing_weight
            .max(f64::EPSILON * f64::from(self.growing.max(1)));
        self.left_bytes_per_s / weight
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

        /// Flows that come, change what they can use and go one by one share as if all
        /// were filled at once.
        #[test]
        fn changes_settled_where_they_happen_are_right(
            bandwidths in proptest::collection::vec(1.0f64..100.0, 20),
            flows in proptest::collection::vec(links(), 1..60),
            changes in proptest::collection::vec(
                (any::<prop::sample::Index>(), proptest::option::of(0.0f64..50.0)), 0..40,
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
            for (id, links) in (0..).zip(&flows) {
                network.add(id, links);
                here.insert(id, (links.clone(), f64::INFINITY));
                fill(&mut network, &here)?;
            }
            for (index, limit) in changes {
                let id = index.index(flows.len()) as u32;
                match (limit, here.get_mut(&id)) {
                    (_, None) => continue,
                    (Some(limit), Some(flow)) => {
                        flow.1 = limit;
                        network.touch(id);
                    }
                    (None, Some(_)) => {
                        here.remove(&id);
                        network.remove(id);
                    }
                }
                fill(&mut network, &here)?;
            }
        }
    }
}
