//! Max-min fair rates of flows that each cross two links.
//!
//! Progressive filling: all rates grow together until a link is full or a flow
//! has all it can use; those flows stop there, the others go on. What results is
//! the one division in which no flow can get more without taking from one that
//! has no more than it.
//!
//! A change on some links can only matter to flows connected with them through
//! shared links, so only those are filled anew: work is proportional to them
//! (and to their links times the logarithm of those), not to all flows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Links, the flows on them, and buffers kept between fillings.
#[derive(Debug, Default)]
pub(super) struct FairShare {
    links: Vec<Link>,
    flows: Vec<Flow>,
    /// Number of the filling under way; tells what it has seen.
    filling: u64,
    /// Links whose flows have changed since the last one.
    changed: Vec<u32>,
    touched_links: Vec<u32>,
    touched_flows: Vec<u32>,
    limited: Vec<u32>,
    /// (rate at which it is full, link); out of date where flows stopped since.
    full_at: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Link {
    bytes_per_s: f64,
    flows: Vec<u32>,
    seen: u64,
    left_bytes_per_s: f64,
    growing: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    links: [u32; 2],
    /// Where it stands in the lists of its links.
    positions: [u32; 2],
    seen: u64,
    stopped: bool,
    limit_bytes_per_s: f64,
    bytes_per_s: f64,
}

impl FairShare {
    /// Links of these bandwidths, numbered in this order.
    pub(super) fn new(bytes_per_s: impl Iterator<Item = f64>) -> Self {
        let link = |bytes_per_s| Link {
            bytes_per_s,
            flows: Vec::new(),
            seen: 0,
            left_bytes_per_s: 0.0,
            growing: 0,
        };
        Self {
            links: bytes_per_s.map(link).collect(),
            ..Self::default()
        }
    }

    /// Puts flow number `flow`, one that is not there, on two links.
    pub(super) fn add(&mut self, flow: u32, links: [u32; 2]) {
        let index = flow as usize;
        if index >= self.flows.len() {
            self.flows.resize(index + 1, Flow::default());
        }
        self.flows[index] = Flow {
            links,
            ..Flow::default()
        };
        for (end, link) in links.into_iter().enumerate() {
            let list = &mut self.links[link as usize].flows;
            self.flows[index].positions[end] = list.len() as u32;
            list.push(flow);
        }
        self.touch(flow);
    }

    /// Takes a flow off its links.
    pub(super) fn remove(&mut self, flow: u32) {
        self.touch(flow);
        let Flow {
            links, positions, ..
        } = self.flows[flow as usize];
        for end in 0..2 {
            let list = &mut self.links[links[end] as usize].flows;
            let position = positions[end];
            list.swap_remove(position as usize);
            if let Some(&moved) = list.get(position as usize) {
                self.flows[moved as usize].positions[end] = position;
            }
        }
    }

    /// What a flow can use has changed.
    pub(super) fn touch(&mut self, flow: u32) {
        self.changed.extend(self.flows[flow as usize].links);
    }

    /// Whether rates are out of date.
    pub(super) fn is_stale(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Brings rates up to date. `limit` says the most a flow can use.
    pub(super) fn fill(&mut self, limit: impl Fn(u32) -> f64) {
        self.collect(limit);
        self.grow();
    }

    /// Flows of the last filling, whose rates may have changed, and their rates,
    /// bytes per second.
    pub(super) fn filled(&self) -> impl Iterator<Item = (u32, f64)> {
        let rate = |&flow: &u32| (flow, self.flows[flow as usize].bytes_per_s);
        self.touched_flows.iter().map(rate)
    }

    /// Finds the flows connected with what has changed.
    fn collect(&mut self, limit: impl Fn(u32) -> f64) {
        self.filling += 1;
        self.touched_links.clear();
        self.touched_flows.clear();
        self.limited.clear();
        let seen = |link: &mut Link, filling| std::mem::replace(&mut link.seen, filling) == filling;
        for link in self.changed.drain(..) {
            if !seen(&mut self.links[link as usize], self.filling) {
                self.touched_links.push(link);
            }
        }
        let mut next = 0;
        while let Some(&link) = self.touched_links.get(next) {
            next += 1;
            for position in 0..self.links[link as usize].flows.len() {
                let id = self.links[link as usize].flows[position];
                let flow = &mut self.flows[id as usize];
                if flow.seen == self.filling {
                    continue;
                }
                flow.seen = self.filling;
                flow.stopped = false;
                flow.limit_bytes_per_s = limit(id);
                if flow.limit_bytes_per_s.is_finite() {
                    self.limited.push(id);
                }
                self.touched_flows.push(id);
                for end in flow.links {
                    if !seen(&mut self.links[end as usize], self.filling) {
                        self.touched_links.push(end);
                    }
                }
            }
        }
    }

    fn grow(&mut self) {
        self.full_at.clear();
        for &index in &self.touched_links {
            let link = &mut self.links[index as usize];
            link.left_bytes_per_s = link.bytes_per_s;
            link.growing = link.flows.len() as u32;
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
                    for position in 0..self.links[link as usize].flows.len() {
                        let flow = self.links[link as usize].flows[position];
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
        for link in flow.links {
            let link = &mut self.links[link as usize];
            link.left_bytes_per_s = (link.left_bytes_per_s - bytes_per_s).max(0.0);
            link.growing -= 1;
        }
    }
}

impl Link {
    fn share(&self) -> f64 {
        self.left_bytes_per_s / f64::from(self.growing.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rates of flows (links, limit).
    fn rates(bandwidths: &[f64], flows: &[([u32; 2], f64)]) -> Vec<f64> {
        let mut network = FairShare::new(bandwidths.iter().copied());
        for (id, (links, _)) in flows.iter().enumerate() {
            network.add(id as u32, *links);
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
        let rates = rates(
            &[100.0, 10.0, 100.0],
            &[([0, 2], f64::INFINITY), ([0, 1], f64::INFINITY)],
        );
        assert_eq!(rates, [90.0, 10.0]);
    }

    #[test]
    fn a_flow_that_cannot_use_its_share_leaves_it() {
        let all = f64::INFINITY;
        let flows = [([0, 1], 5.0), ([0, 2], all), ([0, 3], all), ([0, 4], 0.0)];
        assert_eq!(rates(&[100.0; 5], &flows), [5.0, 47.5, 47.5, 0.0]);
    }

    /// Max-min fair: every flow has all it can use, or crosses a full link on which
    /// nobody has more.
    fn check(
        bandwidths: &[f64],
        flows: &[([u32; 2], f64)],
        rates: &[f64],
    ) -> Result<(), TestCaseError> {
        let on = |link: u32| (0..flows.len()).filter(move |&id| flows[id].0.contains(&link));
        let used = |link: u32| on(link).map(|id| rates[id]).sum::<f64>();
        for (link, bandwidth) in bandwidths.iter().enumerate() {
            prop_assert!(used(link as u32) <= bandwidth * (1.0 + 1e-9));
        }
        for (id, (links, limit)) in flows.iter().enumerate() {
            prop_assert!(rates[id] <= *limit);
            let held = |link: u32| {
                let most = on(link).map(|id| rates[id]).fold(0.0, f64::max);
                used(link) >= bandwidths[link as usize] * (1.0 - 1e-9)
                    && rates[id] >= most * (1.0 - 1e-9)
            };
            prop_assert!(
                rates[id] == *limit || held(links[0]) || held(links[1]),
                "flow {} at {}",
                id,
                rates[id]
            );
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn rates_are_max_min_fair(
            bandwidths in proptest::collection::vec(1.0f64..100.0, 10),
            flows in proptest::collection::vec(
                ((0u32..5, 5u32..10), proptest::option::of(0.0f64..50.0)), 1..60,
            ),
        ) {
            let flows: Vec<_> = (flows.iter())
                .map(|&((a, b), limit)| ([a, b], limit.unwrap_or(f64::INFINITY)))
                .collect();
            check(&bandwidths, &flows, &rates(&bandwidths, &flows))?;
        }

        /// Adding and removing flows one by one ends where filling all at once does.
        #[test]
        fn what_is_not_connected_keeps_its_rate(
            bandwidths in proptest::collection::vec(1.0f64..100.0, 20),
            flows in proptest::collection::vec((0u32..10, 10u32..20), 1..60),
            gone in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let flows: Vec<_> = flows.iter().map(|&(a, b)| ([a, b], f64::INFINITY)).collect();
            let mut network = FairShare::new(bandwidths.iter().copied());
            let mut current = vec![0.0; flows.len()];
            let mut fill = |network: &mut FairShare| {
                network.fill(|_| f64::INFINITY);
                network.filled().for_each(|(id, rate)| current[id as usize] = rate);
            };
            for (id, (links, _)) in flows.iter().enumerate() {
                network.add(id as u32, *links);
                fill(&mut network);
            }
            let mut here = vec![true; flows.len()];
            for index in gone {
                let id = index.index(flows.len());
                if std::mem::take(&mut here[id]) {
                    network.remove(id as u32);
                    fill(&mut network);
                }
            }
            let left = |list: &[f64]| -> Vec<f64> {
                list.iter().zip(&here).filter_map(|(x, here)| here.then_some(*x)).collect()
            };
            let flows: Vec<_> = flows.iter().zip(&here).filter_map(|(f, h)| h.then_some(*f)).collect();
            check(&bandwidths, &flows, &left(&current))?;
        }
    }
}
