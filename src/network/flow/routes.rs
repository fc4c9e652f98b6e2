//! Which links a flow takes.
//!
//! Two ways to spread flows over equally short paths. Hashed: one path per flow
//! by the hash of its addresses, as NS-3 does; for few flows. Balanced: all
//! paths evenly, the links of a stage merged into one as wide as all of them;
//! for many flows, and for rings, whose every step hashes anew.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use super::packets::PathShape;
use crate::network::topology::{NodeKind, Topology};
use crate::number::narrow;

/// Seed of the hash that hosts choose their port with.
const HOST_HASH_SEED: u32 = 0x8BAD_F00D;
/// Ports of the first flow between two nodes.
const SOURCE_PORT: u32 = 10_000;
const DESTINATION_PORT: u32 = 100;

/// Links that a stage of paths shares, or one link.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stage {
    /// Bandwidth of one link.
    pub(super) gbps: f64,
    /// Links side by side.
    pub(super) width: f64,
    /// An NVLink.
    pub(super) nvlink: bool,
}

/// A path: the stages it takes and the shape it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) stages: StagePath,
    /// Index of a [`PathShape`].
    pub(super) shape: u32,
}

/// Stages of a path, without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StagePath {
    len: u8,
    stages: [u32; Self::MAX],
}

impl StagePath {
    const MAX: usize = 6;

    fn new(stages: &[u32]) -> Self {
        let mut path = Self {
            len: 0,
            stages: [0; Self::MAX],
        };
        stages.iter().for_each(|&stage| path.push(stage));
        path
    }

    /// Longer paths lose middle stages: the first and last are what can be
    /// crowded.
    fn push(&mut self, stage: u32) {
        if usize::from(self.len) == Self::MAX {
            self.stages[Self::MAX - 1] = stage;
        } else {
            self.stages[usize::from(self.len)] = stage;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        &self.stages[..usize::from(self.len)]
    }
}

/// How a GPU is attached.
struct GpuEnds {
    /// GPUs with the same switches over the same links are of one class.
    class: u32,
    /// Index of the set of its network switches.
    attachment: u32,
    nvswitches: Vec<u32>,
    /// Stages of its NVLinks, up and down.
    nvlink: Option<(u32, u32)>,
    /// Stages of its NIC ports, up and down.
    nic: Option<(u32, u32)>,
}

/// How a GPU is attached, for others than the router.
pub(super) struct Attached<'a> {
    /// GPUs with the same switches over the same links are of one class: paths from
    /// and to them look alike.
    pub(super) class: u32,
    /// Switches of the network.
    pub(super) switches: &'a [u32],
    pub(super) nvswitches: &'a [u32],
    /// Its NVLinks, each direction.
    pub(super) nvlink: Option<&'a Stage>,
    /// Its NIC ports, each direction.
    pub(super) nic: Option<&'a Stage>,
}

/// Shortest ways to the GPUs of one attachment. Vectors are by switch, from the
/// lowest id of a network switch on.
struct Destination {
    first_switch: u32,
    /// Hops from a switch to the nearest switch of the attachment.
    distance: Vec<u32>,
    /// Place of a switch in the order NS-3 finds them.
    found: Vec<u32>,
    /// Next switches on shortest ways, in the order NS-3 finds them.
    next: Vec<Vec<u32>>,
}

const UNREACHED: u32 = u32::MAX;

/// Finds paths and names the stages they share.
pub(super) struct Router<T> {
    topology: T,
    stages: Vec<Stage>,
    shapes: Vec<PathShape>,
    ends: Vec<Option<GpuEnds>>,
    classes: BTreeMap<Vec<u64>, u32>,
    /// Network switches of an attachment, in the order NS-3 visits neighbours:
    /// it keeps nodes by address, and switches are so large that later ones lie
    /// lower.
    attachments: Vec<Vec<u32>>,
    attachment_ids: BTreeMap<Vec<u32>, u32>,
    /// Stages between the switches of an attachment and those above, up and down.
    fabric: Vec<Option<Option<(u32, u32)>>>,
    destinations: Vec<Option<Destination>>,
    shape_ids: HashMap<(u32, u32, bool), Option<u32>>,
    by_link: HashMap<u32, u32>,
}

impl<T: Clone + Deref<Target = Topology>> Router<T> {
    pub(super) fn new(topology: T) -> Self {
        Self {
            ends: (0..topology.gpus()).map(|_| None).collect(),
            topology,
            stages: Vec::new(),
            shapes: Vec::new(),
            classes: BTreeMap::new(),
            attachments: Vec::new(),
            attachment_ids: BTreeMap::new(),
            fabric: Vec::new(),
            destinations: Vec::new(),
            shape_ids: HashMap::new(),
            by_link: HashMap::new(),
        }
    }

    /// Stages named so far, by index.
    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// A shape named by a route.
    pub(super) fn shape(&self, index: u32) -> &PathShape {
        &self.shapes[index as usize]
    }

    /// A path with load spread evenly; `None` where there is none.
    pub(super) fn balanced(&mut self, from: u32, to: u32) -> Option<Route> {
        if let Some(route) = self.through_nvswitch(from, to) {
            return Some(route);
        }
        let shape = self.network_shape(from, to)?;
        let source = self.ends(from);
        let (up, above) = (source.nic?.0, source.attachment);
        let target = self.ends(to);
        let (down, below) = (target.nic?.1, target.attachment);
        let mut stages = StagePath::new(&[up]);
        if self.shapes[shape as usize].hops_gbps.len() > 2 {
            if let Some((stage, _)) = self.fabric_stages(above) {
                stages.push(stage);
            }
            if let Some((_, stage)) = self.fabric_stages(below) {
                stages.push(stage);
            }
        }
        stages.push(down);
        Some(Route { stages, shape })
    }

    /// The path of the first flow between two GPUs, by hash.
    pub(super) fn hashed(&mut self, from: u32, to: u32) -> Option<Route> {
        if let Some(route) = self.through_nvswitch(from, to) {
            return Some(route);
        }
        let words = [
            address(from),
            address(to),
            SOURCE_PORT | (DESTINATION_PORT << 16),
        ];
        let attachment = self.ends(to).attachment;
        self.reach(attachment);
        let destination = self.destinations[attachment as usize].as_ref()?;
        let topology = self.topology.clone();
        let mut here = from;
        let mut links = Vec::with_capacity(4);
        while here != to {
            let first;
            let choices: &[u32] = if here == from {
                first = destination.first_hops(&topology, from);
                &first
            } else if destination.distance(here) == 0 {
                &[to]
            } else {
                destination.next(here)
            };
            let seed = if here == from { HOST_HASH_SEED } else { here };
            let choice = *choices.get(hash(&words, seed) as usize % choices.len().max(1))?;
            let mut ports = topology.ports(here).iter();
            links.push(ports.find(|port| port.to == choice)?.directed);
            here = choice;
        }
        let mut stages = StagePath::new(&[]);
        for link in links {
            let stage = self.link_stage(link);
            stages.push(stage);
        }
        let shape = self.network_shape(from, to)?;
        Some(Route { stages, shape })
    }

    /// How a GPU is attached.
    pub(super) fn attached(&mut self, gpu: u32) -> Attached<'_> {
        self.ends(gpu);
        let ends = self.ends[gpu as usize].as_ref().expect("just found");
        let pair = |stages: Option<(u32, u32)>| Some(&self.stages[stages?.0 as usize]);
        Attached {
            class: ends.class,
            switches: &self.attachments[ends.attachment as usize],
            nvswitches: &ends.nvswitches,
            nvlink: pair(ends.nvlink),
            nic: pair(ends.nic),
        }
    }

    /// Ports of a GPU's NIC.
    pub(super) fn nic_ports(&mut self, gpu: u32) -> f64 {
        let nic = self.ends(gpu).nic;
        nic.map_or(1.0, |(up, _)| self.stages[up as usize].width)
    }

    fn ends(&mut self, gpu: u32) -> &GpuEnds {
        if self.ends[gpu as usize].is_none() {
            let found = self.find_ends(gpu);
            self.ends[gpu as usize] = Some(found);
        }
        self.ends[gpu as usize].as_ref().expect("just found")
    }

    fn find_ends(&mut self, gpu: u32) -> GpuEnds {
        let topology = self.topology.clone();
        let ports = topology.ports(gpu);
        let of_kind = |kind| {
            let found = ports.iter().filter(|port| topology.kind(port.to) == kind);
            let mut nodes: Vec<u32> = found.map(|port| port.to).collect();
            nodes.sort_unstable_by(|a, b| b.cmp(a));
            nodes
        };
        let attachment = self.intern(of_kind(NodeKind::Switch));
        let mut signature: Vec<u64> = vec![u64::from(attachment)];
        for port in ports {
            let link = topology.link(port.directed);
            signature.push(topology.kind(port.to) as u64);
            signature.push(link.bandwidth_gbps.to_bits());
            signature.push(link.latency_ns.to_bits());
        }
        let fresh = narrow::<u32, _>(self.classes.len());
        let class = *self.classes.entry(signature).or_insert(fresh);
        GpuEnds {
            class,
            attachment,
            nvswitches: of_kind(NodeKind::NvSwitch),
            nvlink: self.port_stages(gpu, NodeKind::NvSwitch),
            nic: self.port_stages(gpu, NodeKind::Switch),
        }
    }

    fn intern(&mut self, switches: Vec<u32>) -> u32 {
        if let Some(&found) = self.attachment_ids.get(&switches) {
            return found;
        }
        let fresh = narrow::<u32, _>(self.attachments.len());
        self.attachments.push(switches.clone());
        self.attachment_ids.insert(switches, fresh);
        self.fabric.push(None);
        self.destinations.push(None);
        fresh
    }

    /// A stage for all ports of a GPU to nodes of a kind, in each direction. A
    /// flow is held to one port: the slowest that is up stands for all.
    fn port_stages(&mut self, gpu: u32, kind: NodeKind) -> Option<(u32, u32)> {
        let topology = self.topology.clone();
        let ports = topology.ports(gpu).iter();
        let links = ports.filter(|port| topology.kind(port.to) == kind);
        let speeds = links.map(|port| topology.link(port.directed).bandwidth_gbps);
        let nvlink = kind == NodeKind::NvSwitch;
        let stage = Stage::of(speeds, nvlink)?;
        Some((self.add(stage.clone()), self.add(stage)))
    }

    /// All links between the switches of an attachment and those above.
    fn fabric_stages(&mut self, attachment: u32) -> Option<(u32, u32)> {
        if let Some(found) = self.fabric[attachment as usize] {
            return found;
        }
        let topology = self.topology.clone();
        let switches = self.attachments[attachment as usize].iter();
        let ports = switches.flat_map(|&switch| topology.ports(switch));
        let links = ports.filter(|port| topology.kind(port.to) == NodeKind::Switch);
        let speeds = links.map(|port| topology.link(port.directed).bandwidth_gbps);
        let stages =
            Stage::of(speeds, false).map(|stage| (self.add(stage.clone()), self.add(stage)));
        self.fabric[attachment as usize] = Some(stages);
        stages
    }

    fn add(&mut self, stage: Stage) -> u32 {
        self.stages.push(stage);
        narrow::<u32, _>(self.stages.len()) - 1
    }

    fn link_stage(&mut self, directed: u32) -> u32 {
        if let Some(&found) = self.by_link.get(&directed) {
            return found;
        }
        let gbps = self.topology.link(directed).bandwidth_gbps;
        let stage = self.add(Stage {
            gbps,
            width: 1.0,
            nvlink: false,
        });
        self.by_link.insert(directed, stage);
        stage
    }

    /// Two GPUs of a server reach each other through an NVSwitch both have.
    pub(super) fn through_nvswitch(&mut self, from: u32, to: u32) -> Option<Route> {
        let topology = self.topology.clone();
        if topology.server(from) != topology.server(to) {
            return None;
        }
        self.ends(from);
        let target = self.ends(to);
        let (down, class) = (target.nvlink?.1, target.class);
        let source = self.ends[from as usize].as_ref()?;
        let target = self.ends[to as usize].as_ref()?;
        let shared = target
            .nvswitches
            .iter()
            .find(|node| source.nvswitches.contains(node));
        let (&nvswitch, up, key) = (shared?, source.nvlink?.0, (source.class, class, true));
        let shape = match self.shape_ids.get(&key) {
            Some(&found) => found?,
            None => {
                let link = |gpu: u32| {
                    let mut ports = topology.ports(gpu).iter();
                    Some(topology.link(ports.find(|port| port.to == nvswitch)?.directed))
                };
                let links = [link(from)?, link(to)?];
                let shape = self.add_shape(PathShape {
                    latency_ns: links.iter().map(|link| link.latency_ns).sum(),
                    hops_gbps: links.iter().map(|link| link.bandwidth_gbps).collect(),
                });
                self.shape_ids.insert(key, Some(shape));
                shape
            }
        };
        Some(Route {
            stages: StagePath::new(&[up, down]),
            shape,
        })
    }

    fn add_shape(&mut self, shape: PathShape) -> u32 {
        self.shapes.push(shape);
        narrow::<u32, _>(self.shapes.len()) - 1
    }

    pub(super) fn network_shape(&mut self, from: u32, to: u32) -> Option<u32> {
        let (source, target) = (self.ends(from).class, self.ends(to).class);
        let key = (source, target, false);
        if let Some(&found) = self.shape_ids.get(&key) {
            return found;
        }
        let shape = self.find_network_shape(from, to);
        let shape = shape.map(|shape| self.add_shape(shape));
        self.shape_ids.insert(key, shape);
        shape
    }

    fn find_network_shape(&mut self, from: u32, to: u32) -> Option<PathShape> {
        let attachment = self.ends(to).attachment;
        self.reach(attachment);
        let topology = self.topology.clone();
        let destination = self.destinations[attachment as usize].as_ref()?;
        let mut shape = PathShape::default();
        let mut here = from;
        while here != to {
            let next = if here == from {
                *destination.first_hops(&topology, from).first()?
            } else if destination.distance(here) == 0 {
                to
            } else {
                *destination.next(here).first()?
            };
            let mut ports = topology.ports(here).iter();
            let link = topology.link(ports.find(|port| port.to == next)?.directed);
            shape.latency_ns += link.latency_ns;
            shape.hops_gbps.push(link.bandwidth_gbps);
            here = next;
        }
        Some(shape)
    }

    /// Breadth-first search from an attachment, once.
    fn reach(&mut self, attachment: u32) {
        let slot = &mut self.destinations[attachment as usize];
        if slot.is_none() {
            *slot = Some(Destination::find(
                &self.topology,
                &self.attachments[attachment as usize],
            ));
        }
    }
}

impl Stage {
    /// Links side by side, as many of the slowest as make up their bandwidth.
    fn of(speeds_gbps: impl Iterator<Item = f64>, nvlink: bool) -> Option<Self> {
        let (mut sum, mut slowest) = (0.0, f64::INFINITY);
        for gbps in speeds_gbps {
            sum += gbps;
            slowest = slowest.min(gbps);
        }
        (sum > 0.0).then(|| Self {
            gbps: slowest,
            width: sum / slowest,
            nvlink,
        })
    }
}

impl Destination {
    fn find(topology: &Topology, attachment: &[u32]) -> Self {
        let is_switch = |&node: &u32| topology.kind(node) == NodeKind::Switch;
        let first_switch = (0..topology.nodes())
            .find(is_switch)
            .unwrap_or(topology.nodes());
        let switches = (topology.nodes() - first_switch) as usize;
        let mut destination = Self {
            first_switch,
            distance: vec![UNREACHED; switches],
            found: vec![UNREACHED; switches],
            next: vec![Vec::new(); switches],
        };
        let mut queue: Vec<u32> = attachment.to_vec();
        for (place, &switch) in attachment.iter().enumerate() {
            let index = destination.index(switch);
            destination.distance[index] = 0;
            destination.found[index] = narrow::<u32, _>(place);
        }
        let mut neighbours = Vec::new();
        let mut at = 0;
        while let Some(&here) = queue.get(at) {
            at += 1;
            let steps = destination.distance(here) + 1;
            neighbours.clear();
            let ports = topology.ports(here).iter().map(|port| port.to);
            neighbours.extend(ports.filter(|&node| topology.kind(node) == NodeKind::Switch));
            neighbours.sort_unstable_by(|a, b| b.cmp(a));
            for &node in &neighbours {
                let index = destination.index(node);
                if destination.distance[index] == UNREACHED {
                    destination.distance[index] = steps;
                    destination.found[index] = narrow::<u32, _>(queue.len());
                    queue.push(node);
                }
                if destination.distance[index] == steps {
                    destination.next[index].push(here);
                }
            }
        }
        destination
    }

    fn index(&self, switch: u32) -> usize {
        (switch - self.first_switch) as usize
    }

    fn distance(&self, switch: u32) -> u32 {
        self.distance[self.index(switch)]
    }

    fn next(&self, switch: u32) -> &[u32] {
        &self.next[self.index(switch)]
    }

    /// Switches a GPU can send to on a shortest way, in the order NS-3 lists
    /// them.
    fn first_hops(&self, topology: &Topology, from: u32) -> Vec<u32> {
        let ports = topology.ports(from).iter().map(|port| port.to);
        let mut hops: Vec<u32> = ports
            .filter(|&node| topology.kind(node) == NodeKind::Switch)
            .filter(|&node| self.distance(node) != UNREACHED)
            .collect();
        let nearest = hops.iter().map(|&node| self.distance(node)).min();
        hops.retain(|&node| Some(self.distance(node)) == nearest);
        hops.sort_by_key(|&node| self.found[self.index(node)]);
        hops
    }
}

/// Address of a node, as SimAI numbers them.
fn address(node: u32) -> u32 {
    0x0b00_0001 + (node / 256) * 0x1_0000 + (node % 256) * 0x100
}

/// MurmurHash3 (32 bit) of words.
fn hash(words: &[u32], seed: u32) -> u32 {
    let mut h = seed;
    for &word in words {
        let k = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        h ^= k.wrapping_mul(0x1b87_3593);
        h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    h ^= 4 * narrow::<u32, _>(words.len());
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::topology::{Fabric, TopologyPlan};

    #[test]
    fn hash_is_murmur3() {
        // Published vectors: the empty input, and four bytes of 0xff.
        assert_eq!(hash(&[], 1), 0x514E_28B7);
        assert_eq!(hash(&[0xffff_ffff], 0), 0x7629_3B50);
    }

    #[test]
    fn hops_between_gpus() {
        let topology = TopologyPlan::new(Fabric::SpectrumX, 16).generate().unwrap();
        let mut router = Router::new(&topology);
        let hops = |router: &mut Router<&Topology>, a, b| {
            let route = router.balanced(a, b).unwrap();
            router.shape(route.shape).hops_gbps.len()
        };
        assert_eq!(hops(&mut router, 0, 7), 2, "through the NVSwitch");
        assert_eq!(hops(&mut router, 0, 8), 2, "same rail");
        assert_eq!(hops(&mut router, 0, 9), 4, "over the spine");
        let route = router.hashed(0, 9).unwrap();
        assert_eq!(router.shape(route.shape).latency_ns, 2000.0);
        assert_eq!(route.stages.as_slice().len(), 4);
    }

    #[test]
    fn without_links_there_is_no_path() {
        let topology = TopologyPlan::new(Fabric::NvlinkDomain, 16)
            .generate()
            .unwrap();
        let mut router = Router::new(&topology);
        assert!(router.balanced(0, 1).is_some());
        assert!(router.balanced(0, 8).is_none());
        assert!(router.hashed(0, 8).is_none());
    }
}
