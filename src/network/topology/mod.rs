//! Clusters as graphs: GPUs, NVSwitches, switches and the links between them.
//!
//! [`Topology`] reads and writes the files of SimAI ([`Topology::parse`],
//! `Display`), [`TopologyPlan`] generates the usual fabrics, and
//! [`TopologyEdit`] degrades or fails links. GPUs are numbered from 0, server by
//! server; every link is full duplex.

mod edit;
mod generate;
mod parse;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::number::{narrow, whole_u64};

pub use edit::{EditError, LinkSelector, TopologyEdit};
pub use generate::{Fabric, PlanError, TopologyPlan};
pub use parse::TopologyError;

/// What a node of the graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// A GPU with its NIC ports.
    Gpu,
    /// The switch of an NVLink domain.
    NvSwitch,
    /// A switch of the network between servers.
    Switch,
}

/// A full-duplex link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// One end.
    pub from: u32,
    /// The other end.
    pub to: u32,
    /// Gigabits per second and direction.
    pub bandwidth_gbps: f64,
    /// Propagation delay, nanoseconds.
    pub latency_ns: f64,
    /// Share of packets lost; kept, not modelled.
    pub error_rate: f64,
}

/// A way out of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The node at the other end.
    pub to: u32,
    /// Directed link: twice the link's index, plus one against its direction.
    pub directed: u32,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    gpu_type: String,
    gpus_per_server: u32,
    kinds: Vec<NodeKind>,
    /// NVSwitches then switches, in the order of the file.
    switch_order: Vec<u32>,
    links: Vec<Link>,
    ports: Vec<Vec<Port>>,
    gpus: u32,
}

impl Topology {
    /// A topology of its parts; `kinds` has one entry per node.
    fn new(
        gpu_type: String,
        gpus_per_server: u32,
        kinds: Vec<NodeKind>,
        switch_order: Vec<u32>,
        links: Vec<Link>,
    ) -> Self {
        let gpus = narrow::<u32, _>(kinds.iter().filter(|&&kind| kind == NodeKind::Gpu).count());
        let mut topology = Self {
            gpu_type,
            gpus_per_server,
            ports: vec![Vec::new(); kinds.len()],
            kinds,
            switch_order,
            links,
            gpus,
        };
        topology.index_ports();
        topology
    }

    /// Rebuilds the adjacency after links have changed. Links without bandwidth
    /// are down and lead nowhere.
    fn index_ports(&mut self) {
        self.ports.iter_mut().for_each(Vec::clear);
        for (index, link) in self.links.iter().enumerate() {
            if link.bandwidth_gbps <= 0.0 {
                continue;
            }
            let directed = 2 * narrow::<u32, _>(index);
            self.ports[link.from as usize].push(Port {
                to: link.to,
                directed,
            });
            let back = Port {
                to: link.from,
                directed: directed + 1,
            };
            self.ports[link.to as usize].push(back);
        }
    }

    /// GPU type as the file names it, e.g. `H100`.
    pub fn gpu_type(&self) -> &str {
        &self.gpu_type
    }

    /// Number of GPUs.
    pub fn gpus(&self) -> u32 {
        self.gpus
    }

    /// GPUs of a server (of an NVLink domain).
    pub fn gpus_per_server(&self) -> u32 {
        self.gpus_per_server
    }

    /// Number of nodes of the graph.
    pub fn nodes(&self) -> u32 {
        narrow::<u32, _>(self.kinds.len())
    }

    /// What a node is.
    pub fn kind(&self, node: u32) -> NodeKind {
        self.kinds[node as usize]
    }

    /// All links, in the order of the file.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Ways out of a node that are up.
    pub fn ports(&self, node: u32) -> &[Port] {
        &self.ports[node as usize]
    }

    /// The link behind a directed link.
    pub fn link(&self, directed: u32) -> &Link {
        &self.links[directed as usize / 2]
    }

    /// Server of a GPU.
    pub fn server(&self, gpu: u32) -> u32 {
        gpu / self.gpus_per_server
    }

    /// How many of what.
    pub fn contents(&self) -> TopologyContents {
        let count = |wanted| self.kinds.iter().filter(|&&kind| kind == wanted).count();
        let mut speeds: BTreeMap<(NodeKind, NodeKind, u64), usize> = BTreeMap::new();
        for link in &self.links {
            let (a, b) = (self.kind(link.from), self.kind(link.to));
            let key = (a.min(b), a.max(b), whole_u64(link.bandwidth_gbps.round()));
            *speeds.entry(key).or_default() += 1;
        }
        TopologyContents {
            gpus: self.gpus,
            gpu_type: self.gpu_type.clone(),
            gpus_per_server: self.gpus_per_server,
            nvswitches: count(NodeKind::NvSwitch),
            switches: count(NodeKind::Switch),
            links: (speeds.into_iter())
                .map(|((a, b, bandwidth_gbps), links)| LinkCount {
                    between: format!("{a}-{b}"),
                    bandwidth_gbps,
                    links,
                })
                .collect(),
        }
    }
}

/// How many of what a topology has. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopologyContents {
    /// GPUs.
    pub gpus: u32,
    /// Their type.
    pub gpu_type: String,
    /// GPUs of a server.
    pub gpus_per_server: u32,
    /// NVSwitches.
    pub nvswitches: usize,
    /// Other switches.
    pub switches: usize,
    /// Links.
    pub links: Vec<LinkCount>,
}

/// Links that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkCount {
    /// What they join, e.g. `GPU-switch`.
    pub between: String,
    /// Their bandwidth, gigabits per second, rounded.
    pub bandwidth_gbps: u64,
    /// How many.
    pub links: usize,
}

impl fmt::Display for TopologyContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.links.iter().map(|alike| {
            let LinkCount {
                between,
                bandwidth_gbps,
                links,
            } = alike;
            format!("{links} x {bandwidth_gbps} Gb/s {between}")
        });
        write!(
            f,
            "{} {} GPUs in servers of {}, {} NVSwitches, {} switches; links: {}",
            self.gpus,
            self.gpu_type,
            self.gpus_per_server,
            self.nvswitches,
            self.switches,
            links.collect::<Vec<_>>().join(", ")
        )
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "GPU",
            Self::NvSwitch => "NVSwitch",
            Self::Switch => "switch",
        })
    }
}

/// SimAI's file format.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_kind = |wanted| self.kinds.iter().filter(|&&kind| kind == wanted).count();
        writeln!(
            f,
            "{} {} {} {} {} {}",
            self.kinds.len(),
            self.gpus_per_server,
            of_kind(NodeKind::NvSwitch),
            of_kind(NodeKind::Switch),
            self.links.len(),
            self.gpu_type
        )?;
        for id in &self.switch_order {
            write!(f, "{id} ")?;
        }
        writeln!(f)?;
        for link in &self.links {
            writeln!(
                f,
                "{} {} {}Gbps {}ms {}",
                link.from,
                link.to,
                link.bandwidth_gbps,
                link.latency_ns / 1e6,
                link.error_rate
            )?;
        }
        Ok(())
    }
}
