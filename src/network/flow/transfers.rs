//! Point-to-point transfers that come and go and share links.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::FlowNetwork;
use super::graph::NoRoute;
use super::packets::Message;
use super::routes::{Router, StagePath};
use crate::network::topology::Topology;

/// Remaining bytes that count as none.
const BYTES_LEFT_MIN: f64 = 1e-3;

/// A transfer in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(u64);

/// A transfer: where it goes, and what is left of it.
#[derive(Debug, Clone)]
struct Transfer {
    stages: StagePath,
    /// Bytes per second it reaches alone.
    limit: f64,
    left_bytes: f64,
    /// Bytes per second now.
    rate: f64,
    /// What follows the last byte, seconds.
    tail_s: f64,
}

/// Transfers over a network, for a discrete-event simulation: start some, ask
/// when the next ends, take it away. Rates are max-min fair and change whenever
/// a transfer starts or ends. Owned by one simulation; not shared.
pub struct TransferNetwork {
    network: Arc<FlowNetwork>,
    router: Router<Arc<Topology>>,
    now_s: f64,
    next_id: u64,
    /// By id, so that results do not depend on hashing.
    active: BTreeMap<TransferId, Transfer>,
}

impl TransferNetwork {
    /// A network without transfers at time 0.
    pub fn new(network: Arc<FlowNetwork>) -> Self {
        let router = Router::new(Arc::clone(&network.topology));
        Self {
            network,
            router,
            now_s: 0.0,
            next_id: 0,
            active: BTreeMap::new(),
        }
    }

    /// Transfers in progress.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// Nothing is in progress.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Starts a transfer of `bytes` between two GPUs. Time must not run
    /// backwards.
    pub fn start(
        &mut self,
        now_s: f64,
        bytes: u64,
        from: u32,
        to: u32,
    ) -> Result<TransferId, NoRoute> {
        let route = self.router.balanced(from, to).ok_or(NoRoute { from, to })?;
        let shape = self.router.shape(route.shape);
        let message = Message::new(bytes, self.network.conf.packet_payload_bytes);
        let between = self.network.topology.server(from) != self.network.topology.server(to);
        let alone_ns = message.alone_ns(shape, self.network.window_bytes);
        let tail_ns = message.tail_ns(shape);
        let start_ns = self.network.start_ns(bytes, between);
        self.advance(now_s);
        let id = TransferId(self.next_id);
        self.next_id += 1;
        let transfer = Transfer {
            stages: route.stages,
            limit: bytes as f64 / (alone_ns * 1e-9),
            left_bytes: bytes as f64,
            rate: 0.0,
            tail_s: (start_ns + tail_ns) * 1e-9,
        };
        self.active.insert(id, transfer);
        self.share();
        Ok(id)
    }

    /// When the next transfer ends if none starts before, and which it is.
    pub fn next_end(&self) -> Option<(f64, TransferId)> {
        let ends = self.active.iter().map(|(&id, transfer)| {
            let wire_s = if transfer.left_bytes > BYTES_LEFT_MIN {
                transfer.left_bytes / transfer.rate
            } else {
                0.0
            };
            (self.now_s + wire_s + transfer.tail_s, id)
        });
        ends.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    }

    /// Takes a transfer away at its end (or aborts it). What is left of the
    /// others goes on faster.
    pub fn finish(&mut self, now_s: f64, id: TransferId) {
        self.advance(now_s);
        if self.active.remove(&id).is_some() {
            self.share();
        }
    }

    fn advance(&mut self, now_s: f64) {
        debug_assert!(now_s >= self.now_s, "{now_s} is before {}", self.now_s);
        // Transfers that only wait for their tail free their links on the way.
        while let Some(empty_s) = self.next_empty_s().filter(|&empty_s| empty_s <= now_s) {
            self.drain(empty_s);
            self.share();
        }
        self.drain(now_s);
    }

    /// When the next transfer has sent its last byte.
    fn next_empty_s(&self) -> Option<f64> {
        let sending = self.active.values().filter(|transfer| transfer.rate > 0.0);
        let empty = sending.map(|transfer| self.now_s + transfer.left_bytes / transfer.rate);
        empty.min_by(f64::total_cmp)
    }

    fn drain(&mut self, now_s: f64) {
        let elapsed_s = (now_s - self.now_s).max(0.0);
        for transfer in self.active.values_mut() {
            if transfer.rate > 0.0 {
                transfer.left_bytes -= transfer.rate * elapsed_s;
            } else if transfer.left_bytes <= BYTES_LEFT_MIN {
                transfer.tail_s = (transfer.tail_s - elapsed_s).max(0.0);
            }
            if transfer.left_bytes <= BYTES_LEFT_MIN.max(transfer.rate * 1e-12) {
                transfer.left_bytes = 0.0;
                transfer.rate = 0.0;
            }
        }
        self.now_s = now_s;
    }

    /// Max-min fair rates.
    fn share(&mut self) {
        let payload = self.network.conf.packet_payload_bytes;
        let packet = Message::new(payload, payload);
        let stages = self.router.stages().iter();
        let bytes_per_s = |gbps: f64| payload as f64 / (packet.occupancy_ns(gbps) * 1e-9);
        let mut left: Vec<f64> = stages.map(|s| s.width * bytes_per_s(s.gbps)).collect();
        let mut users = vec![0_u32; left.len()];
        let mut rising: Vec<&mut Transfer> = self
            .active
            .values_mut()
            .filter(|transfer| transfer.left_bytes > 0.0)
            .collect();
        for transfer in &rising {
            transfer
                .stages
                .as_slice()
                .iter()
                .for_each(|&stage| users[stage as usize] += 1);
        }
        while !rising.is_empty() {
            let limits = rising.iter().map(|transfer| transfer.limit);
            let links = left.iter().zip(&users).filter(|(_, users)| **users > 0);
            let shares = links.map(|(left, &users)| left / f64::from(users));
            let level = limits.chain(shares).fold(f64::INFINITY, f64::min);
            let full: Vec<bool> = left
                .iter()
                .zip(&users)
                .map(|(&left, &users)| left <= level * f64::from(users) * (1.0 + 1e-9))
                .collect();
            rising.retain_mut(|transfer| {
                let stages = transfer.stages;
                let stages = stages.as_slice();
                let stops = transfer.limit <= level * (1.0 + 1e-9)
                    || stages.iter().any(|&stage| full[stage as usize]);
                if stops {
                    transfer.rate = level;
                    for &stage in stages {
                        let left = &mut left[stage as usize];
                        *left = (*left - level).max(0.0);
                        users[stage as usize] -= 1;
                    }
                }
                !stops
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimaiConf, SimaiEnvironment};
    use super::*;
    use crate::network::topology::{Fabric, TopologyPlan};

    const GIB: u64 = 1 << 30;

    fn transfers() -> TransferNetwork {
        let topology = TopologyPlan::new(Fabric::SpectrumX, 32).generate().unwrap();
        let (conf, environment) = (SimaiConf::default(), SimaiEnvironment::default());
        TransferNetwork::new(Arc::new(FlowNetwork::new(topology, conf, environment)))
    }

    /// Ends of all transfers, in order.
    fn run(mut network: TransferNetwork) -> Vec<f64> {
        let mut ends = Vec::new();
        while let Some((time_s, id)) = network.next_end() {
            network.finish(time_s, id);
            ends.push(time_s);
        }
        ends
    }

    #[test]
    fn a_lone_transfer_takes_what_a_send_takes() {
        let mut network = transfers();
        network.start(0.0, GIB, 0, 9).unwrap();
        let alone_s = network.network.send_ns(GIB, 0, 9).unwrap() * 1e-9;
        assert!((run(network)[0] - alone_s).abs() < 1e-9);
    }

    #[test]
    fn two_into_one_port_take_twice_as_long_and_the_late_one_longer() {
        let mut network = transfers();
        let alone_s = network.network.send_ns(GIB, 0, 9).unwrap() * 1e-9;
        network.start(0.0, GIB, 0, 9).unwrap();
        network.start(alone_s / 2.0, GIB, 16, 9).unwrap();
        let ends = run(network);
        // Half alone, half at half rate: 1.5; the other has half left then: 2.
        assert!((ends[0] / alone_s - 1.5).abs() < 1e-3, "{ends:?}");
        assert!((ends[1] / alone_s - 2.0).abs() < 1e-3, "{ends:?}");
    }

    #[test]
    fn transfers_on_different_ports_do_not_meet() {
        let mut network = transfers();
        let alone_s = network.network.send_ns(GIB, 0, 9).unwrap() * 1e-9;
        network.start(0.0, GIB, 0, 9).unwrap();
        network.start(0.0, GIB, 1, 10).unwrap();
        let ends = run(network);
        assert!(
            ends.iter().all(|end| (end / alone_s - 1.0).abs() < 1e-6),
            "{ends:?}"
        );
    }
}
