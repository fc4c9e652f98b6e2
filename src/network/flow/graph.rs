//! Collectives as graphs of flows.
//!
//! A ring collective repeats the same flows in every step, so the graph has one
//! edge per channel and rank, and a number of steps; the flow of an edge starts
//! when the flow of the edge before it, one step earlier, has arrived. An
//! all-to-all has an edge per pair of ranks and one step.

use std::collections::BTreeMap;

use super::packets::{Message, PathShape};
use super::routes::{Route, Router, Stage, StagePath};
use crate::network::topology::Topology;
use crate::number::{narrow, whole_u64};

/// No edge before this one.
pub(super) const NONE: u32 = u32::MAX;

/// How much longer the flow takes that congestion control slows down most:
/// three halvings of its rate.
const SLOWED_DOWN: f64 = 8.0;

/// A flow of every step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) stages: StagePath,
    /// Index of the flow's kind: what it costs alone.
    pub(super) kind: u32,
    /// Edge whose flow of the step before must have arrived.
    pub(super) before: u32,
}

/// What a flow costs alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FlowKind {
    /// From its cause to its first byte.
    pub(super) start_ns: f64,
    /// Least time from its first byte to its last.
    pub(super) least_ns: f64,
    /// The same by its window, on an idle network and what a busy one adds; 0
    /// where the window does not matter.
    pub(super) window_ns: [f64; 2],
    /// From its last byte to its completion.
    pub(super) tail_ns: f64,
}

/// Links side by side, in units of the collective's message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resource {
    /// Messages per nanosecond.
    pub(super) capacity: f64,
    /// How much of it a flow of a later step takes where all flows of the first
    /// step take 1: less where the first step has spread them in time.
    pub(super) later_share: f64,
}

/// A collective, ready to be simulated.
pub(super) struct FlowGraph {
    pub(super) resources: Vec<Resource>,
    pub(super) kinds: Vec<FlowKind>,
    pub(super) edges: Vec<Edge>,
    pub(super) steps: u32,
    /// Added to the start of every step but the first.
    pub(super) step_delay_ns: f64,
}

/// What all flows of a collective have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowRules {
    /// Payload of a packet.
    pub(super) payload_bytes: u64,
    /// Window of unacknowledged bytes; 0: none.
    pub(super) window_bytes: u64,
    /// Start of a flow inside a server.
    pub(super) start_inside_ns: f64,
    /// Start of a flow between servers.
    pub(super) start_between_ns: f64,
    /// Forward to the receiver's rail over NVLink before leaving a server.
    pub(super) pxn: bool,
}

/// A pair of ranks without a way between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("GPU {from} has no way to GPU {to}: the topology has no link left between them")]
pub struct NoRoute {
    /// Sender.
    pub from: u32,
    /// Receiver.
    pub to: u32,
}

/// Builds the graph of one collective of several groups at once.
pub(super) struct GraphBuilder<'a> {
    topology: &'a Topology,
    router: Router<&'a Topology>,
    rules: FlowRules,
    message: Message,
    edges: Vec<Edge>,
    /// (shape, class of the flow) of every kind, and the kinds.
    kind_keys: Vec<(u32, FlowClass)>,
    kinds: Vec<FlowKind>,
}

/// What distinguishes flows of the same shape.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FlowClass {
    between: bool,
    /// Forwarded over NVLink first.
    relayed: bool,
    /// Packets that wait at the receiver for those of other senders.
    crowd: f64,
}

impl<'a> GraphBuilder<'a> {
    pub(super) fn new(topology: &'a Topology, rules: FlowRules, message_bytes: u64) -> Self {
        Self {
            topology,
            router: Router::new(topology),
            rules,
            message: Message::new(message_bytes, rules.payload_bytes),
            edges: Vec::new(),
            kind_keys: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Rings of a group of `nodes` servers with `local` ranks each: one channel
    /// per local rank. Channel `c` visits in every server the local ranks
    /// `c, c + 1, ..., c - 1` and then rank `c` of the next.
    pub(super) fn add_rings(&mut self, ranks: &[u32], local: usize) -> Result<(), NoRoute> {
        for channel in 0..local {
            let order = ring_order(ranks, local, channel);
            let first = narrow::<u32, _>(self.edges.len());
            let n = narrow::<u32, _>(order.len());
            for place in 0..n {
                let (from, to) = (order[place as usize], order[((place + 1) % n) as usize]);
                let before = first + (place + n - 1) % n;
                let edge = self.ring_edge(from, to, before)?;
                self.edges.push(edge);
            }
        }
        Ok(())
    }

    fn ring_edge(&mut self, from: u32, to: u32, before: u32) -> Result<Edge, NoRoute> {
        let between = self.topology.server(from) != self.topology.server(to);
        let per_server = self.topology.gpus_per_server();
        // With PXN the GPU on the receiver's rail forwards.
        let relay = from / per_server * per_server + to % per_server;
        let relayed = self.rules.pxn && between && relay != from;
        let sender = if relayed { relay } else { from };
        let route = self
            .router
            .balanced(sender, to)
            .ok_or(NoRoute { from, to })?;
        let class = FlowClass {
            between,
            relayed,
            crowd: 0.0,
        };
        let kind = self.kind(route.shape, class, sender, from);
        Ok(Edge {
            stages: route.stages,
            kind,
            before,
        })
    }

    /// A flow from every rank to every other.
    pub(super) fn add_all_to_all(&mut self, ranks: &[u32], hashed: bool) -> Result<(), NoRoute> {
        let topology = self.topology;
        // Ranks of one server follow each other; how many there are in each.
        let mut inside: BTreeMap<u32, usize> = BTreeMap::new();
        for &rank in ranks {
            *inside.entry(topology.server(rank)).or_default() += 1;
        }
        for &from in ranks {
            for &to in ranks.iter().filter(|&&to| to != from) {
                let route = self.route(from, to, hashed).ok_or(NoRoute { from, to })?;
                let between = topology.server(from) != topology.server(to);
                let near = inside[&topology.server(to)];
                let (senders, ports) = if between {
                    (ranks.len() - near, self.router.nic_ports(to))
                } else {
                    (near - 1, 1.0)
                };
                let crowd = 0.5 * (senders as f64 / ports - 1.0).max(0.0);
                let class = FlowClass {
                    between,
                    relayed: false,
                    crowd,
                };
                let kind = self.kind(route.shape, class, from, from);
                self.edges.push(Edge {
                    stages: route.stages,
                    kind,
                    before: NONE,
                });
            }
        }
        Ok(())
    }

    /// Congestion control, for hashed paths. Where more flows meet at a port
    /// than leave any of their senders' ports, the senders fill the port's queue
    /// with their windows; beyond the queue at which it marks, senders slow down
    /// and within a collective do not recover. The unluckiest ends at an eighth
    /// of the port's bandwidth.
    pub(super) fn slow_down_on_marks(&mut self, marking_bytes: &BTreeMap<u64, u64>) {
        let window = self.rules.window_bytes;
        if window == 0 || self.message.packets() <= window / self.rules.payload_bytes + 1 {
            return;
        }
        let mut users: BTreeMap<u32, u32> = BTreeMap::new();
        for edge in &self.edges {
            for &stage in edge.stages.as_slice() {
                *users.entry(stage).or_default() += 1;
            }
        }
        // By receiving port: flows that come faster than it takes them, and the
        // one that comes from the emptiest port.
        let mut ports: BTreeMap<u32, (u64, u32, usize)> = BTreeMap::new();
        for (index, edge) in self.edges.iter().enumerate() {
            let [first, .., last] = edge.stages.as_slice() else {
                continue;
            };
            let (sending, receiving) = (users[first], users[last]);
            if self.router.stages()[*last as usize].nvlink || sending >= receiving {
                continue;
            }
            let port = ports.entry(*last).or_insert((0, sending, index));
            port.0 += 1;
            if sending < port.1 {
                (port.1, port.2) = (sending, index);
            }
        }
        for (stage, (flows, _, fastest)) in ports {
            let rate = whole_u64(self.router.stages()[stage as usize].gbps * 1e9);
            let Some(&marking) = marking_bytes.get(&rate) else {
                continue;
            };
            if flows.saturating_sub(1) * window > marking {
                let mut kind = self.kinds[self.edges[fastest].kind as usize];
                kind.least_ns *= SLOWED_DOWN;
                self.edges[fastest].kind = narrow::<u32, _>(self.kinds.len());
                self.kinds.push(kind);
            }
        }
    }

    fn route(&mut self, from: u32, to: u32, hashed: bool) -> Option<Route> {
        if hashed {
            self.router.hashed(from, to)
        } else {
            self.router.balanced(from, to)
        }
    }

    /// The kind of a flow of a shape and class; `relay` and `from` are the ends
    /// of the forwarding hop, if there is one.
    fn kind(&mut self, shape: u32, class: FlowClass, relay: u32, from: u32) -> u32 {
        let key = (shape, class);
        if let Some(found) = self.kind_keys.iter().position(|known| *known == key) {
            return narrow::<u32, _>(found);
        }
        let start_ns = if class.between {
            self.rules.start_between_ns
        } else {
            self.rules.start_inside_ns
        };
        let forwarding_ns = if class.relayed {
            self.forwarding_ns(from, relay)
        } else {
            0.0
        };
        let shape = self.router.shape(shape);
        let last_hop = shape.hops_gbps.last().copied().unwrap_or(f64::INFINITY);
        let message = &self.message;
        let window_ns = |busy| message.window_ns(shape, self.rules.window_bytes, busy);
        // Inside a server a flow that its window holds back is alone with the
        // acknowledgements of its like in the other direction.
        let window_ns = if class.between {
            [window_ns(0.0), window_ns(1.0) - window_ns(0.0)]
        } else {
            [window_ns(1.0), 0.0]
        };
        self.kinds.push(FlowKind {
            start_ns: start_ns + forwarding_ns,
            least_ns: message.wire_ns(shape).max(window_ns[0]),
            window_ns,
            tail_ns: message.tail_ns(shape) + class.crowd * message.packet_ns(last_hop),
        });
        self.kind_keys.push(key);
        narrow::<u32, _>(self.kinds.len()) - 1
    }

    /// A flow of the same message inside a server, alone.
    fn forwarding_ns(&mut self, from: u32, to: u32) -> f64 {
        let Some(route) = self.router.balanced(from, to) else {
            return 0.0;
        };
        let shape: &PathShape = self.router.shape(route.shape);
        self.rules.start_inside_ns
            + self.message.occupancy_ns(shape.slowest_gbps())
            + self.message.tail_ns(shape)
    }

    /// The graph, with `steps` steps.
    pub(super) fn finish(self, steps: u32, step_delay_ns: f64) -> FlowGraph {
        let stages = self.router.stages();
        let mut users = vec![0.0_f64; stages.len()];
        for edge in &self.edges {
            for &stage in edge.stages.as_slice() {
                users[stage as usize] += 1.0;
            }
        }
        let resource = |(stage, users): (&Stage, f64)| {
            let share = stage
                .nvlink
                .then(|| later_share(users, self.message.packets()));
            Resource {
                capacity: stage.width / self.message.occupancy_ns(stage.gbps),
                later_share: share.unwrap_or(1.0),
            }
        };
        FlowGraph {
            resources: stages.iter().zip(users).map(resource).collect(),
            kinds: self.kinds,
            edges: self.edges,
            steps,
            step_delay_ns,
        }
    }
}

/// Where `flows` start on a link at once, the first step serves them in turn,
/// packet by packet, and so spreads their later steps in time: the fewer packets
/// each has, the less they meet again. Share of the link that a flow of a later
/// step takes, such that all together take what they were seen to (fitted to
/// rings of 8 GPUs with 1 to 30 packets a flow).
fn later_share(flows: f64, packets: u64) -> f64 {
    if flows <= 1.0 {
        return 1.0;
    }
    let meeting = 1.0 - 0.8 * (packets as f64).powf(-1.75);
    (1.0 + (flows - 1.0) * meeting) / flows
}

/// Ranks in the order in which a channel's ring visits them.
fn ring_order(ranks: &[u32], local: usize, channel: usize) -> Vec<u32> {
    let servers = ranks.chunks(local);
    let visit = |server: &[u32]| -> Vec<u32> {
        (0..local)
            .map(|place| server[(channel + place) % local])
            .collect()
    };
    servers.flat_map(visit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_leaves_a_server_behind_its_first_rank() {
        let ranks: Vec<u32> = vec![0, 1, 2, 8, 9, 10];
        assert_eq!(ring_order(&ranks, 3, 0), [0, 1, 2, 8, 9, 10]);
        assert_eq!(ring_order(&ranks, 3, 2), [2, 0, 1, 10, 8, 9]);
    }

    #[test]
    fn flows_of_many_packets_keep_meeting() {
        assert!(later_share(8.0, 1) < 0.31);
        assert!(later_share(8.0, 30) > 0.99);
        assert_eq!(later_share(1.0, 1), 1.0);
    }
}
