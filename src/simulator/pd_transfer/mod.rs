//! KV caches on their way from one replica to another.
//!
//! A fluid model. Every replica has a link out and a link in, or its GPUs have those of
//! a topology ([`TransferPaths`]); transfers share them max-min fairly ([`FairShare`]).
//! Rates change only when a transfer
//! starts, drains, or what it can use changes; between those times progress is
//! linear. A transfer that has drained arrives one latency later.
//!
//! A transfer may start while its cache is still being computed. It then has a
//! [`Source`]: what has been computed so far, and how fast more is. Once it has
//! caught up with its source it can use no more than that.

mod agenda;

use std::collections::BTreeMap;
use std::sync::Arc;

use agenda::Agenda;

use super::config::KvTransferSpec;
use crate::network::fair_share::{FairShare, SAME_RATE};
use crate::network::flow::{Pace, TransferPaths};
use crate::number::narrow;

/// Changes this close together happen at once: less than any link resolves.
const SAME_TIME_S: f64 = 1e-12;

#[derive(Debug, Clone, Copy)]
struct Transfer {
    request: u32,
    sender: u32,
    /// Rate it reaches alone; infinite: that of its links.
    limit_bytes_per_s: f64,
    /// From its last byte to its arrival.
    latency_s: f64,
    /// Number in order of starts: ties go to the first.
    number: u64,
    size_bytes: f64,
    /// As of `updated_at_s`.
    remaining_bytes: f64,
    bytes_per_s: f64,
    updated_at_s: f64,
    /// Its cache is being computed.
    has_source: bool,
    /// It has sent all its source has computed.
    caught_up: bool,
}

/// A cache that is being computed.
#[derive(Debug, Clone, Copy)]
struct Source {
    size_bytes: f64,
    /// Computed, as of `since_s`.
    ready_bytes: f64,
    bytes_per_s: f64,
    since_s: f64,
    /// Its transfer, once that has started.
    slot: Option<u32>,
}

impl Source {
    fn ready_bytes_at(&self, now_s: f64) -> f64 {
        (self.ready_bytes + self.bytes_per_s * (now_s - self.since_s)).min(self.size_bytes)
    }
}

/// Ways over a topology.
#[derive(Debug)]
struct Paths {
    found: Arc<TransferPaths>,
    /// Transfers by replica, out and in: attention ranks take turns, as requests are
    /// spread over them.
    turns: Vec<[u32; 2]>,
    /// Links of a transfer that starts.
    links: Vec<(u32, f64)>,
}

/// All transfers in progress.
#[derive(Debug)]
pub(crate) struct TransferNetwork {
    spec: KvTransferSpec,
    shares: FairShare,
    paths: Option<Paths>,
    slots: Vec<Transfer>,
    free_slots: Vec<u32>,
    /// (number, slot) of the changes that are due now.
    due: Vec<(u64, u32)>,
    sources: BTreeMap<u32, Source>,
    /// By slot.
    changes: Agenda,
    started: u64,
    generation: u64,
    /// When the present generation's change is due.
    due_at_s: Option<f64>,
}

impl TransferNetwork {
    /// For replicas with these links out and in, bytes per second; or with the links of
    /// a topology between them.
    pub(crate) fn new(
        spec: KvTransferSpec,
        links: impl Iterator<Item = [f64; 2]>,
        paths: Option<Arc<TransferPaths>>,
    ) -> Self {
        let shares = match &paths {
            None => FairShare::new(links.flatten()),
            Some(paths) => FairShare::new(paths.links().iter().copied()),
        };
        let replicas = paths.as_ref().map_or(0, |paths| paths.replicas());
        Self {
            spec,
            shares,
            paths: paths.map(|found| Paths {
                found,
                turns: vec![[0; 2]; replicas],
                links: Vec::new(),
            }),
            slots: Vec::new(),
            free_slots: Vec::new(),
            due: Vec::new(),
            sources: BTreeMap::new(),
            changes: Agenda::new(),
            started: 0,
            generation: 0,
            due_at_s: None,
        }
    }

    /// Bytes of a KV cache of `tokens`.
    #[inline]
    pub(crate) fn size_bytes(&self, tokens: u64) -> f64 {
        self.spec.size_bytes(tokens)
    }

    /// Time of a transfer that has the links for itself, latency not included.
    pub(crate) fn alone_s(&self, size_bytes: f64) -> f64 {
        size_bytes
            / self
                .spec
                .sender_bytes_per_s
                .min(self.spec.receiver_bytes_per_s)
    }

    /// Tells the due change from outdated ones.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Starts the transfer of a cache; all of it is there unless it has a source.
    /// Takes effect with [`Self::settle`].
    #[inline(always)]
    pub(crate) fn start(
        &mut self,
        request: u32,
        sender: u32,
        receiver: u32,
        size_bytes: f64,
        now_s: f64,
    ) {
        let slot = self
            .free_slots
            .pop()
            .unwrap_or(narrow::<u32, _>(self.slots.len()));
        let pace = self.add(slot, sender, receiver, size_bytes);
        let mut transfer = Transfer {
            request,
            sender,
            limit_bytes_per_s: pace.limit_bytes_per_s,
            latency_s: pace.latency_s,
            number: self.started,
            size_bytes,
            remaining_bytes: size_bytes,
            bytes_per_s: 0.0,
            updated_at_s: now_s,
            has_source: false,
            caught_up: false,
        };
        self.started += 1;
        if let Some(source) = self.source_mut(request) {
            source.slot = Some(slot);
            transfer.has_source = true;
            transfer.caught_up = source.ready_bytes_at(now_s) <= 0.0;
        }
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = transfer,
            None => self.slots.push(transfer),
        }
    }

    #[inline]
    fn source_mut(&mut self, request: u32) -> Option<&mut Source> {
        match self.sources.is_empty() {
            true => None,
            false => self.sources.get_mut(&request),
        }
    }

    /// Puts a transfer on its links.
    #[inline]
    fn add(&mut self, slot: u32, sender: u32, receiver: u32, size_bytes: f64) -> Pace {
        let Some(Paths {
            found,
            turns,
            links,
        }) = &mut self.paths
        else {
            let links = [(2 * sender, 1.0), (2 * receiver + 1, 1.0)];
            self.shares.add(slot, &links);
            return Pace {
                limit_bytes_per_s: f64::INFINITY,
                latency_s: self.spec.latency_s,
            };
        };
        let mut rank = |replica: u32, way: usize| {
            let turn = &mut turns[replica as usize][way];
            let rank = *turn;
            *turn = (rank + 1) % found.attention_ranks(replica);
            (replica, rank)
        };
        let (from, to) = (rank(sender, 0), rank(receiver, 1));
        let pace = found.find(from, to, size_bytes, links);
        self.shares.add(slot, links);
        pace
    }

    /// The cache of `request`, of `size_bytes` in the end, is being computed:
    /// `ready_bytes` are there now, and more comes at `bytes_per_s`.
    pub(crate) fn compute(
        &mut self,
        request: u32,
        size_bytes: f64,
        ready_bytes: f64,
        bytes_per_s: f64,
        now_s: f64,
    ) {
        let slot = self.sources.get(&request).and_then(|source| source.slot);
        if let Some(slot) = slot {
            self.progress(slot, now_s);
            self.shares.touch(slot);
        }
        let source = Source {
            size_bytes,
            ready_bytes,
            bytes_per_s,
            since_s: now_s,
            slot,
        };
        self.sources.insert(request, source);
        if let Some(slot) = slot {
            let transfer = &mut self.slots[slot as usize];
            let sent_bytes = transfer.size_bytes - transfer.remaining_bytes;
            transfer.caught_up = ready_bytes <= sent_bytes;
        }
    }

    /// What is being computed of the cache of `request`, if it is: its size.
    pub(crate) fn computing_bytes(&self, request: u32) -> Option<f64> {
        self.sources.get(&request).map(|source| source.size_bytes)
    }

    /// The whole cache of `request` is there.
    pub(crate) fn computed(&mut self, request: u32, now_s: f64) {
        let slot = self.sources.get(&request).and_then(|source| source.slot);
        if let Some(slot) = slot {
            self.progress(slot, now_s);
            self.shares.touch(slot);
            let transfer = &mut self.slots[slot as usize];
            transfer.has_source = false;
            transfer.caught_up = false;
            // Whatever was due was that of a transfer with a source.
            transfer.bytes_per_s = 0.0;
        }
        self.sources.remove(&request);
    }

    /// Shares the links anew if need be. Returns when the next change is due, and
    /// its generation, if that is not what was returned before.
    #[inline(always)]
    pub(crate) fn settle(&mut self, now_s: f64) -> Option<(f64, u64)> {
        if self.shares.is_stale() {
            self.share(now_s);
        }
        let next_s = self.changes.first_s();
        let next_s = (next_s < f64::INFINITY).then_some(next_s);
        if next_s == self.due_at_s {
            return None;
        }
        self.due_at_s = next_s;
        self.generation += 1;
        next_s.map(|at_s| (at_s, self.generation))
    }

    /// Whether no change is due.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.due_at_s.is_none()
    }

    /// Makes the changes due at `now_s`, a time given by [`Self::settle`]; (request,
    /// sender) of each transfer that has drained, and what is left until it arrives,
    /// go to `drained`, first started first. The caller then settles.
    #[inline]
    pub(crate) fn advance(&mut self, now_s: f64, mut drained: impl FnMut(u32, u32, f64)) {
        self.due_at_s = None;
        self.due.clear();
        while let Some(slot) = self.changes.take(now_s + SAME_TIME_S) {
            self.due.push((self.slots[slot as usize].number, slot));
        }
        self.due.sort_unstable();
        for &(_, slot) in &self.due {
            let transfer = &mut self.slots[slot as usize];
            if let Some(source) = transfer.source(&self.sources) {
                transfer.remaining_bytes = transfer.size_bytes - source.ready_bytes_at(now_s);
                transfer.updated_at_s = now_s;
                transfer.caught_up = true;
                self.shares.touch(slot);
                continue;
            }
            drained(transfer.request, transfer.sender, transfer.latency_s);
            self.shares.remove(slot);
            self.free_slots.push(slot);
        }
    }

    #[inline]
    fn progress(&mut self, slot: u32, now_s: f64) {
        let transfer = &mut self.slots[slot as usize];
        transfer.progress(transfer.source(&self.sources), now_s);
    }

    #[inline(always)]
    fn share(&mut self, now_s: f64) {
        let (slots, sources, changes) = (&mut self.slots, &self.sources, &mut self.changes);
        let limits: &[Transfer] = slots;
        let limit = |slot: u32| {
            let transfer = &limits[slot as usize];
            match transfer.source(sources) {
                Some(source) if transfer.caught_up => {
                    source.bytes_per_s.min(transfer.limit_bytes_per_s)
                }
                _ => transfer.limit_bytes_per_s,
            }
        };
        self.shares.fill(limit);
        for (slot, bytes_per_s) in self.shares.filled() {
            let transfer = &mut slots[slot as usize];
            let source = transfer.source(sources);
            let same = (bytes_per_s - transfer.bytes_per_s).abs() <= SAME_RATE * bytes_per_s;
            if same && source.is_none() {
                continue;
            }
            transfer.progress(source, now_s);
            transfer.bytes_per_s = bytes_per_s;
            let after_s = transfer.changes_after_s(source);
            changes.set(slot, now_s + after_s.unwrap_or(f64::INFINITY));
        }
    }
}

impl Transfer {
    #[inline]
    fn source<'a>(&self, sources: &'a BTreeMap<u32, Source>) -> Option<&'a Source> {
        match self.has_source {
            true => sources.get(&self.request),
            false => None,
        }
    }

    #[inline]
    fn progress(&mut self, source: Option<&Source>, now_s: f64) {
        let sent_bytes = self.bytes_per_s * (now_s - self.updated_at_s);
        let missing_bytes = source.map_or(0.0, |source| {
            source.size_bytes - source.ready_bytes_at(now_s)
        });
        self.remaining_bytes = (self.remaining_bytes - sent_bytes).max(missing_bytes);
        self.updated_at_s = now_s;
    }

    /// Time until it has drained or caught up with its source, at its present rate.
    #[inline]
    fn changes_after_s(&mut self, source: Option<&Source>) -> Option<f64> {
        let Some(source) = source else {
            return Some(self.remaining_bytes / self.bytes_per_s);
        };
        let gaining_bytes_per_s = self.bytes_per_s - source.bytes_per_s;
        if self.caught_up {
            // Falls behind again if it has less than it could use.
            self.caught_up = gaining_bytes_per_s >= -SAME_RATE * source.bytes_per_s;
            return None;
        }
        let sent_bytes = self.size_bytes - self.remaining_bytes;
        let behind_bytes = source.ready_bytes_at(self.updated_at_s) - sent_bytes;
        (gaining_bytes_per_s > 0.0).then(|| behind_bytes.max(0.0) / gaining_bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Replicas with links of these bandwidths in both directions.
    fn network(bandwidths: &[f64]) -> TransferNetwork {
        let spec = KvTransferSpec {
            bytes_per_token: 1.0,
            bytes_per_request: 0.0,
            window: None,
            sender_bytes_per_s: 100.0,
            receiver_bytes_per_s: 100.0,
            latency_s: 0.0,
        };
        let links = bandwidths.iter().map(|&bytes_per_s| [bytes_per_s; 2]);
        TransferNetwork::new(spec, links, None)
    }

    /// Makes all changes up to `until_s`; returns (time, request) of drains.
    fn run(network: &mut TransferNetwork, from_s: f64, until_s: f64) -> Vec<(f64, u32)> {
        let mut drained = Vec::new();
        network.settle(from_s);
        while let Some(at_s) = network.due_at_s.filter(|&at_s| at_s <= until_s) {
            network.advance(at_s, |request, _, _| drained.push((at_s, request)));
            network.settle(at_s);
        }
        drained
    }

    #[test]
    fn two_transfers_from_one_sender_share_its_link() {
        let mut network = network(&[100.0; 4]);
        network.start(0, 0, 2, 100.0, 0.0);
        assert_eq!(network.settle(0.0), Some((1.0, 1)));
        network.start(1, 0, 3, 100.0, 0.5);
        // 50 bytes left at 50 B/s; then the second has 50 left at 100 B/s.
        assert_eq!(run(&mut network, 0.5, 9.0), [(1.5, 0), (2.0, 1)]);
    }

    #[test]
    fn what_a_slow_receiver_cannot_take_the_others_get() {
        let mut network = network(&[100.0, 10.0, 100.0]);
        network.start(0, 0, 1, 10.0, 0.0);
        network.start(1, 0, 2, 180.0, 0.0);
        // 90 B/s for a second, then 100 B/s.
        assert_eq!(run(&mut network, 0.0, 9.0), [(1.0, 0), (1.9, 1)]);
    }

    #[test]
    fn equal_transfers_drain_together_first_started_first() {
        let mut network = network(&[100.0; 4]);
        network.start(7, 1, 2, 70.0, 0.0);
        network.start(3, 0, 2, 70.0, 0.0);
        assert_eq!(run(&mut network, 0.0, 9.0), [(1.4, 7), (1.4, 3)]);
        assert_eq!(network.due_at_s, None);
    }

    #[test]
    fn nothing_is_scheduled_twice() {
        let mut network = network(&[100.0; 4]);
        network.start(0, 0, 1, 100.0, 0.0);
        assert_eq!(network.settle(0.0), Some((1.0, 1)));
        assert_eq!(network.settle(0.2), None);
        // Ends later than the first, which it does not disturb.
        network.start(1, 2, 3, 100.0, 0.5);
        assert_eq!(network.settle(0.5), None);
    }

    #[test]
    fn a_transfer_that_has_caught_up_sends_what_is_computed() {
        let mut network = network(&[100.0; 2]);
        network.compute(0, 100.0, 0.0, 0.0, 0.0);
        network.start(0, 0, 1, 100.0, 0.0);
        assert_eq!(run(&mut network, 0.0, 1.0), []);
        // 90 bytes within two seconds, and the last layer at their end.
        network.compute(0, 100.0, 0.0, 45.0, 1.0);
        assert_eq!(run(&mut network, 1.0, 3.0), []);
        network.computed(0, 3.0);
        assert_eq!(run(&mut network, 3.0, 9.0), [(3.1, 0)]);
    }

    #[test]
    fn a_slow_transfer_only_misses_the_first_layer() {
        let mut network = network(&[10.0; 2]);
        network.compute(0, 100.0, 0.0, 0.0, 0.0);
        network.start(0, 0, 1, 100.0, 0.0);
        network.compute(0, 100.0, 0.0, 45.0, 1.0);
        assert_eq!(run(&mut network, 1.0, 3.0), []);
        network.computed(0, 3.0);
        assert_eq!(run(&mut network, 3.0, 99.0), [(11.0, 0)]);
    }

    #[test]
    fn a_late_transfer_catches_up_and_leaves_what_it_cannot_use() {
        let mut network = network(&[100.0, 100.0, 100.0]);
        network.compute(0, 100.0, 0.0, 20.0, 0.0);
        // 40 bytes wait; it gains 80 B/s on its source and has caught up at 2.5 s.
        network.start(0, 0, 1, 100.0, 2.0);
        assert_eq!(run(&mut network, 2.0, 2.6), []);
        // Another one gets 80 B/s then.
        network.start(1, 0, 2, 80.0, 3.0);
        assert_eq!(run(&mut network, 3.0, 4.5), [(4.0, 1)]);
        network.computed(0, 5.0);
        let [(at_s, 0)] = run(&mut network, 5.0, 9.0)[..] else {
            panic!("one transfer drains");
        };
        assert!((at_s - 5.0).abs() < 1e-9, "{at_s}");
    }

    /// A thousand transfers between two thousand replicas: those that share no link
    /// with a new one, directly or through others, are left alone.
    #[test]
    fn unconnected_transfers_are_not_looked_at() {
        let mut network = network(&[100.0; 2000]);
        for request in 0..1000 {
            network.start(request, 2 * request, 2 * request + 1, 1e3, 0.0);
            network.settle(0.0);
            assert_eq!(network.shares.filled().count(), 1);
        }
        network.start(1000, 0, 3, 1e3, 0.0);
        network.settle(0.0);
        assert_eq!(network.shares.filled().count(), 3);
    }

    #[derive(Debug, Clone)]
    struct Plan {
        gap_s: f64,
        sender: u32,
        receiver: u32,
        size_bytes: f64,
        /// Start of the computation before that of the transfer, its length.
        source_s: Option<(f64, f64)>,
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let source = proptest::option::of((0.0f64..2.0, 0.1f64..4.0));
        (0.0f64..0.5, 0u32..4, 4u32..8, 1.0f64..200.0, source).prop_map(
            |(gap_s, sender, receiver, size_bytes, source_s)| Plan {
                gap_s,
                sender,
                receiver,
                size_bytes,
                source_s,
            },
        )
    }

    /// What happens to the network from outside, in order of time.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Compute,
        Start,
        Computed,
    }

    fn steps(plans: &[Plan]) -> Vec<(f64, usize, Step)> {
        let mut steps = Vec::new();
        let mut start_s = 2.0;
        for (id, plan) in plans.iter().enumerate() {
            start_s += plan.gap_s;
            if let Some((before_s, length_s)) = plan.source_s {
                let from_s = start_s - before_s;
                steps.push((from_s, id, Step::Compute));
                let end_s = from_s + length_s;
                steps.push((end_s, id, Step::Computed));
            }
            steps.push((start_s, id, Step::Start));
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps
    }

    proptest! {
        #[test]
        fn bytes_are_conserved_and_links_never_above_their_capacity(
            plans in proptest::collection::vec(plan(), 1..60),
            bandwidths in proptest::collection::vec(5.0f64..200.0, 8),
        ) {
            let mut network = network(&bandwidths);
            let mut sent = vec![0.0; plans.len()];
            let mut drained_at_s = vec![f64::NAN; plans.len()];
            let (mut now_s, mut steps) = (0.0, steps(&plans).into_iter().peekable());
            loop {
                let due_s = network.due_at_s.unwrap_or(f64::INFINITY);
                let step_s = steps.peek().map_or(f64::INFINITY, |step| step.0);
                let next_s = due_s.min(step_s);
                if next_s == f64::INFINITY {
                    break;
                }
                prop_assert!(next_s >= now_s - 1e-9, "{} before {}", next_s, now_s);
                let mut used = [0.0; 16];
                for (slot, transfer) in network.slots.iter().enumerate() {
                    if network.free_slots.contains(&(slot as u32)) {
                        continue;
                    }
                    let id = transfer.request as usize;
                    sent[id] += transfer.bytes_per_s * (next_s - now_s);
                    used[2 * plans[id].sender as usize] += transfer.bytes_per_s;
                    used[2 * plans[id].receiver as usize + 1] += transfer.bytes_per_s;
                    let ready = network.sources.get(&transfer.request)
                        .map_or(transfer.size_bytes, |source| source.ready_bytes_at(next_s));
                    prop_assert!(sent[id] <= ready + 1e-6, "{} sent of {}", sent[id], ready);
                }
                for (link, used) in used.iter().enumerate() {
                    prop_assert!(*used <= bandwidths[link / 2] * (1.0 + 1e-9));
                }
                now_s = next_s;
                if due_s <= step_s {
                    network.advance(now_s, |request, _, _| drained_at_s[request as usize] = now_s);
                } else if let Some((_, id, step)) = steps.next() {
                    let (request, plan) = (id as u32, &plans[id]);
                    let size = plan.size_bytes;
                    match step {
                        Step::Compute => {
                            let (_, length_s) = plan.source_s.unwrap();
                            network.compute(request, size, 0.0, 0.9 * size / length_s, now_s);
                        }
                        Step::Start => {
                            network.start(request, plan.sender, plan.receiver, size, now_s);
                        }
                        Step::Computed => network.computed(request, now_s),
                    }
                }
                network.settle(now_s);
            }
            for (id, plan) in plans.iter().enumerate() {
                prop_assert!(drained_at_s[id].is_finite(), "{} has not drained", id);
                prop_assert!((sent[id] - plan.size_bytes).abs() <= 1e-6 * plan.size_bytes);
            }
        }
    }
}
