//! The ways of KV caches between replicas over a topology.
//!
//! A transfer is as many flows as there are pairs of GPUs with a part of the cache in
//! common: pipeline stages cut it by layers, tensor ranks by heads, and every part
//! goes from the GPU that has it to the GPU that needs it. Together they are one
//! fluid that puts a share of its bytes on each link it crosses. [`TransferPaths`]
//! finds these links and shares; who shares them with whom at which time is the
//! simulator's business.

use std::collections::{BTreeMap, BTreeSet};

use super::FlowNetwork;
use super::graph::NoRoute;
use super::packets::{Message, PathShape};
use super::routes::{Router, Stage};
use super::start::{Algorithm, SimaiEnvironment};
use super::{MEMORY_BUS_NS, Topology};
use crate::network::Placement;
use crate::network::topology::NodeKind;
use crate::number::{narrow, whole_u64};

const NONE: u32 = u32::MAX;

/// Where the replicas of a deployment sit, and which links lie between them.
#[derive(Debug)]
pub struct TransferPaths {
    /// Bytes of caches per second and link, headers and acknowledgements paid for.
    links: Vec<f64>,
    replicas: Vec<Replica>,
    ends: Vec<End>,
    ports: Vec<Ports>,
    fabrics: Vec<Fabric>,
    shapes: Vec<PathShape>,
    /// Index of a shape by class of sender and receiver: over the network, and through
    /// an NVSwitch.
    over_network: BTreeMap<(u32, u32), u32>,
    over_nvlink: BTreeMap<(u32, u32), u32>,
    payload_bytes: u64,
    window_bytes: u64,
    environment: SimaiEnvironment,
}

#[derive(Debug)]
struct Replica {
    /// The end of its first attention rank.
    first_end: u32,
    attention_ranks: u32,
    /// What it sends and receives through, where that is limited.
    limits: Option<[u32; 2]>,
}

/// GPUs that hold caches together: an attention rank of a replica.
#[derive(Debug)]
struct End {
    /// Index of the ports of its first GPU, stage by stage, tensor rank by rank.
    ports: Vec<u32>,
    stages: u32,
    tensor_parallel: u32,
    /// One link out and one in stand for those of all its GPUs, of which it loads each
    /// with the same share whatever goes where: over NICs, over NVLinks.
    merged: Option<[Option<[u32; 2]>; 2]>,
}

/// How a GPU is attached.
#[derive(Debug)]
struct Ports {
    gpu: u32,
    server: u32,
    class: u32,
    nvswitches: Vec<u32>,
    /// Index of the fabric its switches belong to.
    fabric: u32,
    /// Links out and in.
    nic: Option<[u32; 2]>,
    nvlink: Option<[u32; 2]>,
}

/// Access switches that share GPUs, and all that leads up from them.
#[derive(Debug)]
struct Fabric {
    switches: BTreeSet<u32>,
    /// Links up and down; none where they cannot be crowded.
    links: Option<[u32; 2]>,
}

/// What holds a transfer back besides links it shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    /// Rate it reaches alone.
    pub(crate) limit_bytes_per_s: f64,
    /// What its first and last bytes take beside its rate.
    pub(crate) latency_s: f64,
}

/// A transfer that has all links for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoneTransfer {
    /// Flows between two GPUs each.
    pub flows: u32,
    /// How many of them stay inside a server.
    pub flows_over_nvlink: u32,
    /// Switches between two GPUs, at most.
    pub most_switches: u32,
    /// Bytes per second of all flows together.
    pub bytes_per_s: f64,
    /// What it takes beside its bytes.
    pub latency_s: f64,
    /// From its start to its arrival.
    pub time_s: f64,
}

/// Why caches cannot be moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Two GPUs that have to exchange parts of caches are not joined.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// A replica sits where there is no GPU.
    #[error("GPU {gpu}, but the topology has {gpus} GPUs")]
    UnknownGpu {
        /// The GPU.
        gpu: u32,
        /// GPUs there are.
        gpus: u32,
    },
}

/// A flow of a transfer.
struct Part {
    from: u32,
    to: u32,
    /// Of the bytes.
    share: f64,
    shape: u32,
    nvlink: bool,
}

impl TransferPaths {
    /// For pools of replicas, numbered one pool after the other. Caches go from
    /// replicas of the first pool to those of the others, and to each other if they
    /// `swap`. No replica sends or receives more than `limit_bytes_per_s`.
    ///
    /// # Errors
    /// If no path leads from a GPU to one it has to send to, or the topology does not
    /// have it.
    pub fn new(
        network: &FlowNetwork,
        pools: &[(Placement, u32)],
        swap: bool,
        limit_bytes_per_s: Option<f64>,
    ) -> Result<Self, TransferError> {
        Builder::new(network).build(pools, swap, limit_bytes_per_s, true)
    }

    /// Bandwidths of all links, bytes per second.
    pub(crate) fn links(&self) -> &[f64] {
        &self.links
    }

    /// Number of replicas.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Attention ranks of a replica.
    pub(crate) fn attention_ranks(&self, replica: u32) -> u32 {
        self.replicas[replica as usize].attention_ranks
    }

    /// Links of a transfer between attention ranks (replica, rank), each with the
    /// share of the bytes that crosses it, go to `links`. The two are of different
    /// replicas between which caches go.
    pub(crate) fn find(
        &self,
        from: (u32, u32),
        to: (u32, u32),
        size_bytes: f64,
        links: &mut Vec<(u32, f64)>,
    ) -> Pace {
        links.clear();
        for (replica, way) in [(from.0, 0), (to.0, 1)] {
            if let Some(limits) = self.replicas[replica as usize].limits {
                links.push((limits[way], 1.0));
            }
        }
        let (mut slowest_ns, mut latency_ns) = (0.0_f64, 0.0_f64);
        let mut last = (NONE, f64::NAN);
        let (sender, receiver) = (self.end(from), self.end(to));
        self.parts(sender, receiver, |part| {
            self.cross(sender, receiver, &part, links);
            if std::mem::replace(&mut last, (part.shape, part.share)) == (part.shape, part.share) {
                return;
            }
            let bytes = whole_u64((size_bytes * part.share).ceil());
            let shape = &self.shapes[part.shape as usize];
            let message = Message::new(bytes, self.payload_bytes);
            slowest_ns = slowest_ns.max(message.alone_ns(shape, self.window_bytes));
            let start_ns = self
                .environment
                .start_ns(Algorithm::Ring, bytes, !part.nvlink);
            latency_ns = latency_ns.max(start_ns + MEMORY_BUS_NS + message.tail_ns(shape));
        });
        // A limit that a link keeps anyway is none: sharing need not look at it.
        let limit_bytes_per_s = size_bytes.max(1.0) / (slowest_ns * 1e-9);
        let kept =
            |&(link, share): &(u32, f64)| self.links[link as usize] <= limit_bytes_per_s * share;
        Pace {
            limit_bytes_per_s: match links.iter().any(kept) {
                true => f64::INFINITY,
                false => limit_bytes_per_s,
            },
            latency_s: latency_ns * 1e-9,
        }
    }

    /// A transfer between the first attention ranks of two replicas that nobody
    /// disturbs.
    pub fn alone(&self, sender: u32, receiver: u32, size_bytes: f64) -> LoneTransfer {
        let mut links = Vec::new();
        let pace = self.find((sender, 0), (receiver, 0), size_bytes, &mut links);
        let rates = links.iter();
        let rates = rates.map(|&(link, share)| self.links[link as usize] / share);
        let bytes_per_s = rates.fold(pace.limit_bytes_per_s, f64::min);
        let mut transfer = LoneTransfer {
            flows: 0,
            flows_over_nvlink: 0,
            most_switches: 0,
            bytes_per_s,
            latency_s: pace.latency_s,
            time_s: size_bytes / bytes_per_s + pace.latency_s,
        };
        self.parts(self.end((sender, 0)), self.end((receiver, 0)), |part| {
            let hops = narrow::<u32, _>(self.shapes[part.shape as usize].hops_gbps.len());
            transfer.flows += 1;
            transfer.flows_over_nvlink += u32::from(part.nvlink);
            transfer.most_switches = transfer.most_switches.max(hops.saturating_sub(1));
        });
        transfer
    }

    fn end(&self, (replica, rank): (u32, u32)) -> &End {
        &self.ends[(self.replicas[replica as usize].first_end + rank) as usize]
    }

    /// Pairs of GPUs with a part of the cache in common that a path joins.
    fn parts(&self, sender: &End, receiver: &End, mut each: impl FnMut(Part)) {
        pairs(sender, receiver, |from, to, share| {
            if let Some((shape, nvlink)) = self.shape(from, to) {
                each(Part {
                    from,
                    to,
                    share,
                    shape,
                    nvlink,
                });
            }
        });
    }

    /// Shape of the path between two GPUs, and whether it goes through an NVSwitch.
    fn shape(&self, from: u32, to: u32) -> Option<(u32, bool)> {
        let (from, to) = (&self.ports[from as usize], &self.ports[to as usize]);
        let key = (from.class, to.class);
        if from.server == to.server && joined(&from.nvswitches, &to.nvswitches) {
            return Some((*self.over_nvlink.get(&key)?, true));
        }
        Some((*self.over_network.get(&key)?, false))
    }

    /// Adds what a flow puts on its links.
    fn cross(&self, sender: &End, receiver: &End, part: &Part, links: &mut Vec<(u32, f64)>) {
        let (from, to) = (
            &self.ports[part.from as usize],
            &self.ports[part.to as usize],
        );
        let own = |ports: &Ports, end: &End, way: usize| {
            let merged = end.merged.map(|merged| merged[usize::from(part.nvlink)]);
            let of_gpu = if part.nvlink { ports.nvlink } else { ports.nic };
            Some(merged.unwrap_or(of_gpu)?[way])
        };
        let fabric = |ports: &Ports, way: usize| {
            let crosses = self.shapes[part.shape as usize].hops_gbps.len() > 2 && !part.nvlink;
            let fabric = self.fabrics.get(ports.fabric as usize)?;
            Some(fabric.links.filter(|_| crosses)?[way])
        };
        let crossed = [
            own(from, sender, 0),
            fabric(from, 0),
            fabric(to, 1),
            own(to, receiver, 1),
        ];
        for link in crossed.into_iter().flatten() {
            match links.iter_mut().find(|(known, _)| *known == link) {
                Some((_, share)) => *share += part.share,
                None => links.push((link, part.share)),
            }
        }
    }
}

/// Pairs of GPUs (the ports they have) with a part of the cache in common, and its
/// share of the whole.
fn pairs(sender: &End, receiver: &End, mut each: impl FnMut(u32, u32, f64)) {
    overlaps(sender.stages, receiver.stages, |stage, to_stage, layers| {
        let [tensor, to_tensor] = [sender.tensor_parallel, receiver.tensor_parallel];
        overlaps(tensor, to_tensor, |rank, to_rank, heads| {
            let from = sender.ports[(stage * tensor + rank) as usize];
            let to = receiver.ports[(to_stage * to_tensor + to_rank) as usize];
            each(from, to, layers * heads);
        });
    });
}

/// Parts of a whole that is cut `ways` ways here and `to_ways` there: number here,
/// number there, share.
fn overlaps(ways: u32, to_ways: u32, mut each: impl FnMut(u32, u32, f64)) {
    for part in 0..ways {
        let first = part * to_ways / ways;
        for other in first..((part + 1) * to_ways).div_ceil(ways) {
            let begin = (part * to_ways).max(other * ways);
            let end = ((part + 1) * to_ways).min((other + 1) * ways);
            each(
                part,
                other,
                f64::from(end - begin) / f64::from(ways * to_ways),
            );
        }
    }
}

/// Whether two GPUs of a server have an NVSwitch in common.
fn joined(nvswitches: &[u32], others: &[u32]) -> bool {
    nvswitches.iter().any(|node| others.contains(node))
}

/// What is found out once for a deployment.
struct Builder<'a> {
    topology: &'a Topology,
    router: Router<&'a Topology>,
    paths: TransferPaths,
    /// Index of the ports of a GPU.
    by_gpu: BTreeMap<u32, u32>,
    /// Some GPUs of each class: paths are found between two different ones.
    examples: BTreeMap<u32, Vec<u32>>,
    shape_ids: BTreeMap<Vec<u64>, u32>,
}

impl<'a> Builder<'a> {
    fn new(network: &'a FlowNetwork) -> Self {
        let topology = network.topology();
        Self {
            topology,
            router: Router::new(topology),
            paths: TransferPaths {
                links: Vec::new(),
                replicas: Vec::new(),
                ends: Vec::new(),
                ports: Vec::new(),
                fabrics: Vec::new(),
                shapes: Vec::new(),
                over_network: BTreeMap::new(),
                over_nvlink: BTreeMap::new(),
                payload_bytes: network.conf.packet_payload_bytes,
                window_bytes: network.window_bytes,
                environment: network.environment,
            },
            by_gpu: BTreeMap::new(),
            examples: BTreeMap::new(),
            shape_ids: BTreeMap::new(),
        }
    }

    fn build(
        mut self,
        pools: &[(Placement, u32)],
        swap: bool,
        limit_bytes_per_s: Option<f64>,
        merge: bool,
    ) -> Result<TransferPaths, TransferError> {
        let gpus = self.topology.gpus();
        for (placement, replicas) in pools {
            let end = placement.end(*replicas);
            if end > gpus {
                let gpu = end - 1;
                return Err(TransferError::UnknownGpu { gpu, gpus });
            }
            for replica in 0..*replicas {
                self.add_replica(placement, replica, limit_bytes_per_s);
            }
        }
        self.find_shapes();
        self.find_fabrics();
        if merge {
            self.merge_ports();
        }
        let senders = pools.first().map_or(0, |(_, replicas)| *replicas);
        let first_receiver = if swap { 0 } else { senders };
        self.check(senders, first_receiver)?;
        Ok(self.paths)
    }

    fn add_replica(&mut self, placement: &Placement, replica: u32, limit: Option<f64>) {
        let first_end = narrow::<u32, _>(self.paths.ends.len());
        for rank in 0..placement.attention_data_parallel {
            let gpus = placement.cache_holders(replica, rank);
            let ports = gpus.into_iter().map(|gpu| self.add_gpu(gpu)).collect();
            self.paths.ends.push(End {
                ports,
                stages: placement.pipeline_parallel,
                tensor_parallel: placement.tensor_parallel,
                merged: None,
            });
        }
        let limits = limit.map(|limit| self.add_links(limit));
        self.paths.replicas.push(Replica {
            first_end,
            attention_ranks: placement.attention_data_parallel,
            limits,
        });
    }

    /// A link each way.
    fn add_links(&mut self, bytes_per_s: f64) -> [u32; 2] {
        let first = narrow::<u32, _>(self.paths.links.len());
        self.paths.links.extend([bytes_per_s; 2]);
        [first, first + 1]
    }

    fn add_gpu(&mut self, gpu: u32) -> u32 {
        let server = self.topology.server(gpu);
        let attached = self.router.attached(gpu);
        let (class, nvswitches) = (attached.class, attached.nvswitches.to_vec());
        let switches: BTreeSet<u32> = attached.switches.iter().copied().collect();
        let (nic, nvlink) = (attached.nic.cloned(), attached.nvlink.cloned());
        let mut links = |stage: Option<Stage>| {
            let bytes_per_s = stage.map(|stage| stage.width * self.bytes_per_s(stage.gbps));
            bytes_per_s.map(|bytes_per_s| self.add_links(bytes_per_s))
        };
        let (nic, nvlink) = (links(nic), links(nvlink));
        let index = narrow::<u32, _>(self.paths.ports.len());
        let fabric = self.fabric_of(switches);
        self.by_gpu.insert(gpu, index);
        let examples = self.examples.entry(class).or_default();
        if examples.len() < 2 {
            examples.push(gpu);
        }
        self.paths.ports.push(Ports {
            gpu,
            server,
            class,
            nvswitches,
            fabric,
            nic,
            nvlink,
        });
        index
    }

    /// Bytes of caches that a link of this bandwidth takes.
    fn bytes_per_s(&self, gbps: f64) -> f64 {
        let payload = self.paths.payload_bytes;
        payload as f64 / (Message::new(payload, payload).occupancy_ns(gbps) * 1e-9)
    }

    /// The fabric these switches belong to; joins those they connect.
    fn fabric_of(&mut self, switches: BTreeSet<u32>) -> u32 {
        if switches.is_empty() {
            return NONE;
        }
        let fabrics = self.paths.fabrics.iter();
        let meets = |fabric: &Fabric| !fabric.switches.is_disjoint(&switches);
        let mut found: Vec<usize> = fabrics
            .enumerate()
            .filter(|(_, fabric)| meets(fabric))
            .map(|(index, _)| index)
            .collect();
        let Some(first) = (!found.is_empty()).then(|| found.remove(0)) else {
            self.paths.fabrics.push(Fabric {
                switches,
                links: None,
            });
            return narrow::<u32, _>(self.paths.fabrics.len()) - 1;
        };
        self.paths.fabrics[first].switches.extend(switches);
        for other in found {
            let moved = std::mem::take(&mut self.paths.fabrics[other].switches);
            self.paths.fabrics[first].switches.extend(moved);
            for ports in &mut self.paths.ports {
                if ports.fabric == narrow::<u32, _>(other) {
                    ports.fabric = narrow::<u32, _>(first);
                }
            }
        }
        narrow::<u32, _>(first)
    }

    /// Shapes of the paths between GPUs of all classes.
    fn find_shapes(&mut self) {
        let examples = std::mem::take(&mut self.examples);
        for (from_class, from) in &examples {
            for (to_class, to) in &examples {
                let pairs = from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b)));
                if let Some((a, b)) = pairs.into_iter().find(|(a, b)| a != b)
                    && let Some(shape) = self.router.network_shape(a, b)
                {
                    let shape = self.intern(shape);
                    let key = (*from_class, *to_class);
                    self.paths.over_network.insert(key, shape);
                }
            }
        }
        let mut servers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for ports in &self.paths.ports {
            servers.entry(ports.server).or_default().push(ports.gpu);
        }
        for gpus in servers.values() {
            for (a, b) in gpus.iter().flat_map(|a| gpus.iter().map(move |b| (*a, *b))) {
                let class = |gpu: u32| self.paths.ports[self.by_gpu[&gpu] as usize].class;
                let key = (class(a), class(b));
                if a != b
                    && !self.paths.over_nvlink.contains_key(&key)
                    && let Some(route) = self.router.through_nvswitch(a, b)
                {
                    let shape = self.intern(route.shape);
                    self.paths.over_nvlink.insert(key, shape);
                }
            }
        }
    }

    /// Number of a shape among those that differ.
    fn intern(&mut self, shape: u32) -> u32 {
        let shape = self.router.shape(shape);
        let hops = shape.hops_gbps.iter().map(|gbps| gbps.to_bits());
        let key: Vec<u64> = std::iter::once(shape.latency_ns.to_bits())
            .chain(hops)
            .collect();
        let fresh = narrow::<u32, _>(self.paths.shapes.len());
        let known = *self.shape_ids.entry(key).or_insert(fresh);
        if known == fresh {
            self.paths.shapes.push(shape.clone());
        }
        known
    }

    /// Links above access switches, unless they take all that NICs can send.
    fn find_fabrics(&mut self) {
        let mut nics = vec![0.0; self.paths.fabrics.len()];
        for ports in &self.paths.ports {
            if let (Some(nic), Some(sum)) = (ports.nic, nics.get_mut(ports.fabric as usize)) {
                *sum += self.paths.links[nic[0] as usize];
            }
        }
        for (index, nics_bytes_per_s) in nics.into_iter().enumerate() {
            let switches = &self.paths.fabrics[index].switches;
            let ports = switches
                .iter()
                .flat_map(|&switch| self.topology.ports(switch));
            let up = ports.filter(|port| {
                self.topology.kind(port.to) == NodeKind::Switch && !switches.contains(&port.to)
            });
            let up =
                up.map(|port| self.bytes_per_s(self.topology.link(port.directed).bandwidth_gbps));
            let bytes_per_s: f64 = up.sum();
            if bytes_per_s < nics_bytes_per_s * (1.0 - 1e-9) {
                self.paths.fabrics[index].links = Some(self.add_links(bytes_per_s));
            }
        }
    }

    /// Lets one link stand for those of the GPUs of an end where all of a transfer
    /// goes over NICs or all of it over NVLinks: in servers whose GPUs all have an
    /// NVSwitch in common or none of which has one, and which are all of one server or
    /// nobody else's.
    fn merge_ports(&mut self) {
        let mut owners: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (replica, state) in self.paths.replicas.iter().enumerate() {
            let ends = state.first_end..state.first_end + state.attention_ranks;
            for &ports in ends.flat_map(|end| &self.paths.ends[end as usize].ports) {
                let server = self.paths.ports[ports as usize].server;
                owners.entry(server).or_default().insert(replica);
            }
        }
        let alike: BTreeSet<u32> = owners
            .keys()
            .copied()
            .filter(|&server| self.is_alike(server))
            .collect();
        for end in 0..self.paths.ends.len() {
            let ports = &self.paths.ends[end].ports;
            let ports: Vec<&Ports> = ports
                .iter()
                .map(|&index| &self.paths.ports[index as usize])
                .collect();
            let servers: BTreeSet<u32> = ports.iter().map(|ports| ports.server).collect();
            let apart =
                servers.len() == 1 || servers.iter().all(|server| owners[server].len() == 1);
            if !apart || !servers.is_subset(&alike) {
                continue;
            }
            let gpus = ports.len() as f64;
            let least = |own: fn(&Ports) -> Option<[u32; 2]>| {
                let links = ports.iter().map(|ports| own(ports));
                let rates = links.map(|links| links.map(|[out, _]| self.paths.links[out as usize]));
                // None, if a GPU has none.
                let rates: Option<Vec<f64>> = rates.collect();
                rates.map(|rates| gpus * rates.into_iter().fold(f64::INFINITY, f64::min))
            };
            let merged = [least(|ports| ports.nic), least(|ports| ports.nvlink)];
            let merged = merged.map(|rate| rate.map(|rate| self.add_links(rate)));
            self.paths.ends[end].merged = Some(merged);
        }
    }

    /// Whether any two GPUs of a server that replicas have are joined by NVLink, or
    /// none are.
    fn is_alike(&self, server: u32) -> bool {
        let here = || {
            self.paths
                .ports
                .iter()
                .filter(|ports| ports.server == server)
        };
        let Some(first) = here().next() else {
            return true;
        };
        let any = here().any(|ports| !ports.nvswitches.is_empty());
        !any || here().all(|ports| joined(&first.nvswitches, &ports.nvswitches))
    }

    /// Whether paths join everything that has to be. Replicas attached alike and in
    /// servers of their own are looked at once.
    fn check(&self, senders: u32, first_receiver: u32) -> Result<(), NoRoute> {
        let form = |replica: &Replica| {
            let ends = replica.first_end..replica.first_end + replica.attention_ranks;
            let ends = ends.map(|end| &self.paths.ends[end as usize]);
            let class = |&ports: &u32| self.paths.ports[ports as usize].class;
            let forms = ends.map(|end| (end.stages, end.ports.iter().map(class).collect()));
            forms.collect::<Vec<(u32, Vec<u32>)>>()
        };
        let mut forms = BTreeMap::new();
        let forms: Vec<usize> = (self.paths.replicas.iter())
            .map(|replica| {
                let fresh = forms.len();
                *forms.entry(form(replica)).or_insert(fresh)
            })
            .collect();
        let servers: Vec<BTreeSet<u32>> = (self.paths.replicas.iter())
            .map(|replica| {
                let ends = replica.first_end..replica.first_end + replica.attention_ranks;
                let ports = ends.flat_map(|end| &self.paths.ends[end as usize].ports);
                ports
                    .map(|&ports| self.paths.ports[ports as usize].server)
                    .collect()
            })
            .collect();
        let mut seen = BTreeSet::new();
        for sender in 0..senders as usize {
            for receiver in first_receiver as usize..forms.len() {
                let apart = servers[sender].is_disjoint(&servers[receiver]);
                let known = apart && !seen.insert((forms[sender], forms[receiver]));
                if sender != receiver && !known {
                    self.check_pair(sender, receiver)?;
                }
            }
        }
        Ok(())
    }

    fn check_pair(&self, sender: usize, receiver: usize) -> Result<(), NoRoute> {
        let ends = |replica: usize| {
            let replica = &self.paths.replicas[replica];
            let first = replica.first_end as usize;
            &self.paths.ends[first..first + replica.attention_ranks as usize]
        };
        for sender in ends(sender) {
            for receiver in ends(receiver) {
                let mut missing = None;
                pairs(sender, receiver, |from, to, _| {
                    if self.paths.shape(from, to).is_none() {
                        let gpu = |ports: u32| self.paths.ports[ports as usize].gpu;
                        let (from, to) = (gpu(from), gpu(to));
                        missing.get_or_insert(NoRoute { from, to });
                    }
                });
                if let Some(missing) = missing {
                    return Err(missing);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::fair_share::FairShare;
    use crate::network::flow::{SimaiConf, SimaiEnvironment};
    use crate::network::topology::{Fabric as Kind, TopologyPlan};
    use proptest::prelude::*;

    const GIB: f64 = (1u64 << 30) as f64;

    fn network(plan: &TopologyPlan, edits: &[&str]) -> FlowNetwork {
        let edits: Vec<_> = edits.iter().map(|edit| edit.parse().unwrap()).collect();
        let topology = plan.generate().unwrap().edited(&edits).unwrap();
        FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default())
    }

    /// Two switches of a rail, one above; servers of two GPUs, one rail each.
    fn spectrum(gpus: u32) -> TopologyPlan {
        TopologyPlan::new(Kind::SpectrumX, gpus)
    }

    fn placement(first_server: u32, tensor: u32, stages: u32, ranks: u32) -> Placement {
        Placement {
            gpus_per_server: 8,
            first_server,
            skipped_gpus: 0,
            tensor_parallel: tensor,
            pipeline_parallel: stages,
            attention_data_parallel: ranks,
        }
    }

    fn paths(network: &FlowNetwork, pools: &[(Placement, u32)]) -> TransferPaths {
        TransferPaths::new(network, pools, false, None).unwrap()
    }

    /// Rates of transfers of 1 GiB between first attention ranks, all at once.
    fn rates(paths: &TransferPaths, transfers: &[(u32, u32)]) -> Vec<f64> {
        let mut shares = FairShare::new(paths.links().iter().copied());
        let mut links = Vec::new();
        let mut limits = Vec::new();
        for (id, &(from, to)) in transfers.iter().enumerate() {
            let pace = paths.find((from, 0), (to, 0), GIB, &mut links);
            limits.push(pace.limit_bytes_per_s);
            shares.add(id as u32, &links);
        }
        shares.fill(|id| limits[id as usize]);
        let mut rates = vec![0.0; transfers.len()];
        shares
            .filled()
            .for_each(|(id, rate)| rates[id as usize] = rate);
        rates
    }

    fn close(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 2e-3
    }

    /// Bytes of caches per second of a 400 Gb/s port: 9,000 of 9,052 and 62 bytes, in
    /// whole nanoseconds.
    const PORT: f64 = 9000.0 / 182e-9;

    #[test]
    fn parts_of_a_cache_go_to_the_gpus_that_need_them() {
        let mut found = Vec::new();
        overlaps(2, 4, |a, b, share| found.push((a, b, share)));
        assert_eq!(
            found,
            [(0, 0, 0.25), (0, 1, 0.25), (1, 2, 0.25), (1, 3, 0.25)]
        );
        found.clear();
        overlaps(3, 2, |a, b, share| found.push((a, b, share)));
        let sixth = 1.0 / 6.0;
        let expected = [
            (0, 0, 2.0 * sixth),
            (1, 0, sixth),
            (1, 1, sixth),
            (2, 1, 2.0 * sixth),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_lone_transfer_takes_what_a_send_takes() {
        let network = network(&spectrum(32), &[]);
        let paths = paths(
            &network,
            &[(placement(0, 1, 1, 1), 1), (placement(1, 1, 1, 1), 1)],
        );
        let send_s = network.send_ns(1 << 30, 0, 8).unwrap() * 1e-9;
        let alone = paths.alone(0, 1, GIB);
        assert!(close(alone.time_s, send_s), "{alone:?} {send_s}");
        assert_eq!(
            (alone.flows, alone.flows_over_nvlink, alone.most_switches),
            (1, 0, 1)
        );
    }

    #[test]
    fn every_gpu_sends_its_part_over_its_own_rail() {
        let network = network(&spectrum(32), &[]);
        let pools = [(placement(0, 4, 2, 1), 1), (placement(1, 8, 1, 1), 2)];
        let alone = paths(&network, &pools).alone(0, 1, GIB);
        // Four tensor ranks of two stages each send to two of eight ranks; and each of
        // eight GPUs receives from both stages.
        assert_eq!(alone.flows, 16);
        assert!(close(alone.bytes_per_s, 8.0 * PORT), "{alone:?} {PORT}");
        // Half of them on another rail: over the spine.
        assert_eq!(alone.most_switches, 3);
    }

    #[test]
    fn two_replicas_of_a_server_use_nvlink() {
        let network = network(&spectrum(16), &[]);
        let prefill = placement(0, 4, 1, 1);
        let decode = prefill.followed_by(1, placement(0, 4, 1, 1), true);
        let paths = paths(&network, &[(prefill, 1), (decode, 2)]);
        let (near, far) = (paths.alone(0, 1, GIB), paths.alone(0, 2, GIB));
        assert_eq!((near.flows, near.flows_over_nvlink), (4, 4));
        assert_eq!((far.flows, far.flows_over_nvlink), (4, 0));
        let nvlink = network.send_ns(1 << 28, 0, 4).unwrap() * 1e-9;
        assert!(close(near.time_s, nvlink), "{near:?} {nvlink}");
        assert!(near.time_s < 0.2 * far.time_s);
        // They do not meet.
        let together = rates(&paths, &[(0, 1), (0, 2)]);
        assert_eq!(together, [near.bytes_per_s, far.bytes_per_s]);
    }

    /// Two servers below the switches of each rail, and one NIC's bandwidth above them.
    #[test]
    fn transfers_share_an_oversubscribed_spine() {
        let plan = TopologyPlan {
            nics_per_switch: 2,
            spine_switches: 1,
            spine_bandwidth_gbps: 400.0,
            ..spectrum(64)
        };
        let network = network(&plan, &[]);
        // Servers 0 and 1 send to 2, 3 and 4: rail by rail, but over the spine.
        let pools = [(placement(0, 8, 1, 1), 2), (placement(2, 8, 1, 1), 3)];
        let paths = paths(&network, &pools);
        let of = |transfers: &[(u32, u32)]| rates(&paths, transfers);
        let all = 8.0 * PORT;
        assert!(close(of(&[(0, 2)])[0], all), "{:?} {all}", of(&[(0, 2)]));
        // Two from different servers share what leads up from their switches.
        let two = of(&[(0, 2), (1, 4)]);
        assert!(two.iter().all(|rate| close(*rate, all / 2.0)), "{two:?}");
        let three = of(&[(0, 2), (1, 4), (1, 3)]);
        assert!(
            three.iter().all(|rate| close(*rate, all / 3.0)),
            "{three:?}"
        );
        // One of ten times the spine is never crowded.
        let plan = TopologyPlan {
            spine_switches: 10,
            ..plan
        };
        let wide = super::tests::network(&plan, &[]);
        let free = rates(&super::tests::paths(&wide, &pools), &[(0, 2), (1, 4)]);
        assert!(free.iter().all(|rate| close(*rate, all)), "{free:?}");
    }

    #[test]
    fn a_slow_link_slows_what_crosses_it() {
        let slow = network(&spectrum(32), &["8-36:0.5", "rail=7:1"]);
        let pools = [(placement(0, 2, 1, 1), 1), (placement(1, 2, 1, 1), 5)];
        let paths = paths(&slow, &pools);
        let fast = 2.0 * PORT;
        assert!(
            close(paths.alone(0, 1, GIB).bytes_per_s, 0.5 * fast),
            "GPU 8"
        );
        assert!(close(paths.alone(0, 2, GIB).bytes_per_s, fast));
    }

    #[test]
    fn what_no_path_joins_is_an_error() {
        let islands = network(&TopologyPlan::new(Kind::NvlinkDomain, 16), &[]);
        let apart = [(placement(0, 8, 1, 1), 1), (placement(1, 8, 1, 1), 1)];
        let error = TransferPaths::new(&islands, &apart, false, None).unwrap_err();
        assert_eq!(error, TransferError::NoRoute(NoRoute { from: 0, to: 8 }));
        let outside = [(placement(0, 8, 1, 1), 1), (placement(1, 8, 1, 1), 2)];
        let error = TransferPaths::new(&islands, &outside, false, None).unwrap_err();
        assert_eq!(error.to_string(), "GPU 23, but the topology has 16 GPUs");
        let prefill = placement(0, 4, 1, 1);
        let decode = prefill.followed_by(1, prefill, true);
        let together = [(prefill, 1), (decode, 1)];
        assert!(TransferPaths::new(&islands, &together, false, None).is_ok());
    }

    #[test]
    fn links_that_cannot_be_crowded_are_left_out() {
        let paths = paths(
            &network(&spectrum(64), &[]),
            &[(placement(0, 4, 2, 1), 3), (placement(3, 2, 2, 2), 5)],
        );
        let mut links = Vec::new();
        paths.find((0, 0), (4, 1), GIB, &mut links);
        assert_eq!(links.len(), 2, "{links:?}");
        assert!(links.iter().all(|(_, share)| *share == 1.0), "{links:?}");
    }

    fn kind() -> impl Strategy<Value = Kind> {
        proptest::sample::select(vec![
            Kind::SpectrumX,
            Kind::AlibabaHpn { dual_plane: false },
            Kind::DcnPlus { dual_tor: true },
            Kind::RailOptimized,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Loads of all ports, counted GPU by GPU, stay below what the ports take; and
        /// links that stand for several give the rates that these would.
        #[test]
        fn no_port_carries_more_than_it_can(
            kind in kind(),
            (tensor, stages, ranks) in (0u32..4, 1u32..3, 1u32..3),
            (to_tensor, to_stages) in (0u32..3, 1u32..4),
            transfers in proptest::collection::vec((0u32..3, 3u32..6), 1..12),
            edits in proptest::collection::vec((0usize..1000, 0.1f64..1.0), 0..6),
        ) {
            let topology = TopologyPlan::new(kind, 256).generate().unwrap();
            let links = topology.links();
            let edits: Vec<_> = edits.iter().map(|(link, factor)| {
                let link = links[link % links.len()];
                format!("{}-{}:{factor}", link.from, link.to).parse().unwrap()
            }).collect();
            let topology = topology.edited(&edits).unwrap();
            let network =
                FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default());
            let prefill = placement(0, 1 << tensor, stages, ranks);
            let decode = placement(0, 1 << to_tensor, to_stages, 1);
            let decode = prefill.followed_by(3, decode, true);
            let pools = [(prefill, 3), (decode, 3)];
            let merged = paths(&network, &pools);
            let single = Builder::new(&network).build(&pools, false, None, false).unwrap();
            let (a, b) = (rates(&merged, &transfers), rates(&single, &transfers));
            for (a, b) in a.iter().zip(&b) {
                prop_assert!((a / b - 1.0).abs() < 1e-9, "{:?} {:?}", a, b);
            }
            let mut loads: BTreeMap<(u32, bool, bool), f64> = BTreeMap::new();
            for (&(from, to), rate) in transfers.iter().zip(&a) {
                let mut whole = 0.0;
                merged.parts(merged.end((from, 0)), merged.end((to, 0)), |part| {
                    whole += part.share;
                    *loads.entry((part.from, part.nvlink, true)).or_default() += part.share * rate;
                    *loads.entry((part.to, part.nvlink, false)).or_default() += part.share * rate;
                });
                prop_assert!((whole - 1.0).abs() < 1e-12, "{}", whole);
            }
            for ((ports, nvlink, out), load) in loads {
                let ports = &merged.ports[ports as usize];
                let own = if nvlink { ports.nvlink } else { ports.nic };
                let capacity = merged.links()[own.unwrap()[usize::from(!out)] as usize];
                prop_assert!(load <= capacity * (1.0 + 1e-9), "{} of {}", load, capacity);
            }
        }
    }
}
