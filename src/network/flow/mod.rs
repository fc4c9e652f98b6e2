//! The flow-level model (backend `simai_simulation`): SimAI's collectives over a
//! topology, as flows that share links max-min fairly.
//!
//! A [`FlowNetwork`] prices collectives of groups of GPUs. It stands in for
//! SimAI on NS-3: it decomposes collectives as SimAI does (`graph`), gives
//! flows the start-up, window, packet and acknowledgement times of NS-3
//! (`packets`), merges what behaves alike (`classes`) and simulates the rest
//! (`engine`). Packets, queues and congestion control are not simulated.

mod classes;
mod conf;
mod engine;
mod graph;
mod layout;
mod memo;
mod packets;
mod routes;
mod start;
mod transfers;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use conf::SimaiConf;
pub use graph::NoRoute;
pub use layout::{Layout, LayoutError};
pub use start::{SendLatency, SimaiEnvironment};
pub(crate) use transfers::Pace;
pub use transfers::{LoneTransfer, TransferError, TransferPaths};

use super::collective::{Collective, GroupKind};
use super::cost::{CollectiveCost, CostError};
use super::topology::Topology;
use crate::number::narrow;
use classes::Quotient;
use graph::{FlowRules, GraphBuilder};
use memo::Memo;
use packets::{Message, PathShape};
use routes::Router;
use start::Algorithm;

/// SimAI raises sizes to this.
const BYTES_MIN: u64 = 4096;
/// Between the cause of a flow and its start, besides the send latency: the
/// memory bus of a GPU.
const MEMORY_BUS_NS: f64 = 10.0;
/// Delay of every reduce-scatter step but the first.
const REDUCE_DELAY_NS: f64 = 30.0;
/// What a collective takes besides its flows.
const COLLECTIVE_NS: f64 = 103.0;
/// The same for NVLS, whose flows start without the memory bus.
const NVLS_NS: f64 = 3.0;
/// Chunks that NVLS cuts a message into, and slots of the pipeline they form.
const NVLS_CHUNKS: u64 = 4;
const NVLS_SLOTS: f64 = 5.0;
/// All-to-alls with up to this many flows take NS-3's hashed paths; larger ones
/// balance.
const HASHED_FLOWS_MAX: usize = 2048;
/// Edges up to which all groups of a layout are simulated together; beyond, one
/// stands for all.
const EDGES_MAX: usize = 400_000;

/// Groups that communicate at the same time, registered with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u32);

/// Groups and what of them decides the algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupSet {
    groups: Vec<Vec<u32>>,
    kind: GroupKind,
    ranks: usize,
    /// Ranks in each server of a group.
    local: usize,
}

/// Registered group sets. Those that look the same from the network share one.
#[derive(Debug, Default)]
struct Registry {
    sets: Vec<GroupSet>,
    by_form: BTreeMap<Vec<u64>, GroupId>,
}

/// Why a group cannot be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A rank is no GPU of the topology.
    #[error("GPU {gpu}, but the topology has {gpus} (0 to {})", gpus - 1)]
    UnknownGpu {
        /// The rank.
        gpu: u32,
        /// GPUs there are.
        gpus: u32,
    },
    /// A rank twice, or none.
    #[error("a group needs different ranks, at least one")]
    NotASet,
    /// Rings need the same number of ranks in every server.
    #[error("the group has {most} ranks in one server and {least} in another")]
    Uneven {
        /// Most ranks in a server.
        most: usize,
        /// Fewest ranks in a server that has any.
        least: usize,
    },
}

/// A topology that prices collectives. Shared by threads; repeated queries take
/// no lock.
#[derive(Debug)]
pub struct FlowNetwork {
    topology: Arc<Topology>,
    conf: SimaiConf,
    environment: SimaiEnvironment,
    window_bytes: u64,
    registry: RwLock<Registry>,
    memo: Memo,
}

impl FlowNetwork {
    /// A network of a topology under settings.
    pub fn new(
        topology: impl Into<Arc<Topology>>,
        conf: SimaiConf,
        environment: SimaiEnvironment,
    ) -> Self {
        let topology = topology.into();
        let window_bytes = if conf.windows {
            window_bytes(&topology, conf.packet_payload_bytes)
        } else {
            0
        };
        Self {
            topology,
            conf,
            environment,
            window_bytes,
            registry: RwLock::default(),
            memo: Memo::new(),
        }
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Registers a group that communicates alone.
    pub fn group(&self, kind: GroupKind, ranks: &[u32]) -> Result<GroupId, GroupError> {
        self.groups(kind, vec![ranks.to_vec()])
    }

    /// Registers groups of equal form that communicate at the same time.
    pub fn groups(&self, kind: GroupKind, groups: Vec<Vec<u32>>) -> Result<GroupId, GroupError> {
        let mut local = 0;
        for ranks in &groups {
            local = self.check(ranks)?;
        }
        let ranks = groups.first().map_or(0, Vec::len);
        if ranks == 0 || groups.iter().any(|group| group.len() != ranks) {
            return Err(GroupError::NotASet);
        }
        let form = self.form(kind, &groups);
        let mut registry = self
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = registry.by_form.get(&form) {
            return Ok(known);
        }
        let id = GroupId(narrow::<u32, _>(registry.sets.len()));
        registry.sets.push(GroupSet {
            groups,
            kind,
            ranks,
            local,
        });
        registry.by_form.insert(form, id);
        Ok(id)
    }

    /// Ranks of a group in each server.
    fn check(&self, ranks: &[u32]) -> Result<usize, GroupError> {
        let gpus = self.topology.gpus();
        if let Some(&gpu) = ranks.iter().find(|&&gpu| gpu >= gpus) {
            return Err(GroupError::UnknownGpu { gpu, gpus });
        }
        let mut sorted = ranks.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.is_empty() || sorted.len() != ranks.len() {
            return Err(GroupError::NotASet);
        }
        let servers = sorted.chunk_by(|&a, &b| self.topology.server(a) == self.topology.server(b));
        let sizes: Vec<usize> = servers.map(<[u32]>::len).collect();
        let (most, least) = (sizes.iter().max(), sizes.iter().min());
        match (most, least) {
            (Some(&most), Some(&least)) if most == least => Ok(most),
            (Some(&most), Some(&least)) => Err(GroupError::Uneven { most, least }),
            _ => Err(GroupError::NotASet),
        }
    }

    /// What the network sees of groups: how every rank is attached, with
    /// servers and switches numbered by first appearance. Groups of one form
    /// take the same time, up to hashed paths.
    fn form(&self, kind: GroupKind, groups: &[Vec<u32>]) -> Vec<u64> {
        let mut names: BTreeMap<(u8, u32), u64> = BTreeMap::new();
        let mut name = |class: u8, id: u32| {
            let fresh = names.len() as u64;
            *names.entry((class, id)).or_insert(fresh)
        };
        let mut form = vec![kind as u64, groups.len() as u64];
        for &gpu in groups.iter().flatten() {
            form.push(name(0, self.topology.server(gpu)));
            for port in self.topology.ports(gpu) {
                let link = self.topology.link(port.directed);
                form.push(name(1, port.to));
                form.push(link.bandwidth_gbps.to_bits());
                form.push(link.latency_ns.to_bits());
            }
        }
        form
    }

    /// Time of a collective, nanoseconds. The first query of a kind simulates,
    /// repeated ones look up.
    pub fn time_ns(
        &self,
        collective: Collective,
        bytes: u64,
        group: GroupId,
    ) -> Result<f64, NoRoute> {
        // 18 bits of group, 2 of collective, 44 of bytes: all but absurd keys.
        let exact = bytes < 1 << 44 && group.0 < 1 << 18;
        let key = u64::from(group.0) << 46 | (collective as u64) << 44 | bytes;
        if exact && let Some(time_ns) = self.memo.get(key) {
            return Ok(time_ns);
        }
        let set = {
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            registry.sets.get(group.0 as usize).cloned()
        };
        // Only this network makes its ids.
        let Some(set) = set else { return Ok(0.0) };
        let time_ns = self.simulate(collective, bytes, &set)?;
        if exact {
            self.memo.put(key, time_ns);
        }
        Ok(time_ns)
    }

    fn simulate(&self, collective: Collective, bytes: u64, set: &GroupSet) -> Result<f64, NoRoute> {
        if bytes == 0 || set.ranks < 2 {
            return Ok(0.0);
        }
        let bytes = bytes.max(BYTES_MIN);
        let servers = set.ranks / set.local;
        let algorithm = self.environment.algorithm(
            collective,
            set.kind,
            set.ranks,
            servers,
            self.topology.gpu_type(),
            bytes,
        );
        if algorithm == Algorithm::Nvls {
            return self.nvls_ns(bytes, set);
        }
        let ranks = set.ranks as u64;
        let message_bytes = match collective {
            Collective::AllToAll => bytes / ranks,
            _ => bytes / ranks / set.local as u64,
        };
        let start = |between| self.environment.start_ns(algorithm, bytes, between) + MEMORY_BUS_NS;
        let rules = FlowRules {
            payload_bytes: self.conf.packet_payload_bytes,
            window_bytes: self.window_bytes,
            start_inside_ns: start(false),
            start_between_ns: start(true),
            pxn: self.environment.pxn,
        };
        let mut builder = GraphBuilder::new(&self.topology, rules, message_bytes);
        let flows = match collective {
            Collective::AllToAll => set.ranks * (set.ranks - 1),
            _ => set.ranks * set.local,
        };
        let simulated = if set.groups.len() * flows > EDGES_MAX {
            1
        } else {
            set.groups.len()
        };
        let hashed = set.groups.len() * flows <= HASHED_FLOWS_MAX;
        for group in &set.groups[..simulated] {
            match collective {
                Collective::AllToAll => builder.add_all_to_all(group, hashed)?,
                _ => builder.add_rings(group, set.local)?,
            }
        }
        if hashed && collective == Collective::AllToAll && self.conf.congestion_control {
            builder.slow_down_on_marks(&self.conf.marking_bytes);
        }
        let (steps, delay_ns) = match collective {
            Collective::AllReduce => (2 * (set.ranks - 1), 0.0),
            Collective::AllGather => (set.ranks - 1, 0.0),
            Collective::ReduceScatter => (set.ranks - 1, REDUCE_DELAY_NS),
            Collective::AllToAll => (1, 0.0),
        };
        let graph = builder.finish(narrow::<u32, _>(steps), delay_ns);
        let mut quotient = Quotient::of(&graph);
        let mut time_ns = engine::simulate(&quotient);
        if quotient.wait_for_data(time_ns) {
            time_ns = engine::simulate(&quotient);
        }
        Ok(COLLECTIVE_NS + time_ns)
    }

    /// NVLS inside a server: chunks go up to the switch and down to everybody,
    /// each direction in turn, so that a slot holds one chunk.
    fn nvls_ns(&self, bytes: u64, set: &GroupSet) -> Result<f64, NoRoute> {
        let chunk = Message::new(bytes / NVLS_CHUNKS, self.conf.packet_payload_bytes);
        let mut router = Router::new(&*self.topology);
        let mut slot_ns: f64 = 0.0;
        for pair in set.groups.iter().flat_map(|group| group.windows(2)) {
            let (from, to) = (pair[0], pair[1]);
            let route = router.balanced(from, to).ok_or(NoRoute { from, to })?;
            let shape = router.shape(route.shape);
            // One hop, there and back: half of the way between two GPUs, twice.
            slot_ns = slot_ns.max(shape.latency_ns + chunk.occupancy_ns(shape.slowest_gbps()));
        }
        let start_ns = self.environment.start_ns(Algorithm::Nvls, bytes, false);
        Ok(NVLS_NS + NVLS_SLOTS * (start_ns + slot_ns))
    }

    /// Time of one message from a GPU to another, alone, nanoseconds.
    pub fn send_ns(&self, bytes: u64, from: u32, to: u32) -> Result<f64, NoRoute> {
        if bytes == 0 || from == to {
            return Ok(0.0);
        }
        let mut router = Router::new(&*self.topology);
        let route = router.balanced(from, to).ok_or(NoRoute { from, to })?;
        let shape = router.shape(route.shape);
        let message = Message::new(bytes, self.conf.packet_payload_bytes);
        let between = self.topology.server(from) != self.topology.server(to);
        let wire_ns = message.alone_ns(shape, self.window_bytes);
        Ok(self.start_ns(bytes, between) + wire_ns + message.tail_ns(shape))
    }

    /// From the decision to send a message to its first byte.
    fn start_ns(&self, bytes: u64, between: bool) -> f64 {
        self.environment.start_ns(Algorithm::Ring, bytes, between) + MEMORY_BUS_NS
    }
}

impl CollectiveCost for FlowNetwork {
    type Group = GroupId;

    fn group(&self, kind: GroupKind, gpus: &[u32]) -> Result<GroupId, CostError> {
        Ok(FlowNetwork::group(self, kind, gpus)?)
    }

    fn time_s(&self, collective: Collective, bytes: u64, group: GroupId) -> Result<f64, CostError> {
        Ok(self.time_ns(collective, bytes, group)? * 1e-9)
    }

    fn send_s(&self, bytes: u64, from: u32, to: u32) -> Result<f64, CostError> {
        Ok(self.send_ns(bytes, from, to)? * 1e-9)
    }
}

/// The window of every flow: SimAI takes the largest product of bandwidth and
/// round trip of any two GPUs (it reads `GLOBAL_T` and then sets it). Looked for
/// among pairs with the first and with the last GPU, which meet every distance
/// of regular fabrics.
fn window_bytes(topology: &Topology, payload_bytes: u64) -> u64 {
    let gpus = topology.gpus();
    let mut router = Router::new(topology);
    let mut best = 0;
    let mut seen = std::collections::HashSet::new();
    for from in [0, gpus - 1] {
        for to in (0..gpus).filter(|&to| to != from) {
            let Some(route) = router.balanced(from, to) else {
                continue;
            };
            if seen.insert(route.shape) {
                let shape: &PathShape = router.shape(route.shape);
                best = best.max(shape.bandwidth_delay_bytes(payload_bytes));
            }
        }
    }
    best
}
