//! Collectives as NCCL runs them: several algorithms and protocols, of which the
//! fastest for a size is taken.
//!
//! Every (algorithm, protocol) is a line: a start, a latency per hop, and bytes
//! over a share of the link bandwidth. Inside a node the lines are fitted to
//! NCCL's times measured on A100, H100, H200 and B200 with 2, 4 and 8 GPUs (and
//! to the all-reduce kernels of serving engines); between nodes NCCL's published
//! hop latencies and the NICs' bandwidth are added. This is also the completed
//! form of the analytical model: no fixed table, no cliff, no free messages.

use std::str::FromStr;

use super::collective::{Collective, GroupKind};
use super::cost::{CollectiveCost, CostError};
use super::deepep::DeepEpModel;
use super::flow::GroupError;
use super::topology::{NodeKind, Topology};
use crate::number::narrow;

/// Links that times were measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkGeneration {
    /// A100 and A800.
    NvLink3,
    /// H100, H200, H800 and H20.
    NvLink4,
    /// B200 and GB200.
    NvLink5,
}

/// How the ranks of a group pass data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Around rings.
    Ring,
    /// Up and down two trees over nodes; all-reduce only.
    Tree,
    /// Reduced in the NVSwitch; all-reduce of 8 or more GPUs of one node.
    Nvls,
    /// Every rank to every other: all-to-all, and the all-reduce kernels of
    /// serving engines, up to 8 MiB in one node.
    Direct,
}

/// Largest message the all-reduce kernels of serving engines take.
pub const ENGINE_KERNEL_BYTES_MAX: u64 = 8 << 20;
/// GPUs from which NVLS pays.
const NVLS_RANKS_MIN: u32 = 8;

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ring, Self::Tree, Self::Nvls, Self::Direct];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Tree => "tree",
            Self::Nvls => "nvls",
            Self::Direct => "direct",
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name);
            let hint = crate::spelling::did_you_mean(text, known);
            format!("no algorithm `{text}` ({}){hint}", known.join(", "))
        })
    }
}

/// One protocol inside a node.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Start, microseconds.
    start_us: f64,
    /// For every further rank, microseconds.
    per_rank_us: f64,
    /// Share of the link bandwidth.
    efficiency: f64,
}

const fn line(start_us: f64, per_rank_us: f64, efficiency: f64) -> Line {
    Line {
        start_us,
        per_rank_us,
        efficiency,
    }
}

/// Three protocols: lowest latency, middle, highest bandwidth.
type Lines = [Line; 3];

/// Fits of one generation. Least squares of the logarithm, all devices of the
/// generation and 2, 4 and 8 GPUs together.
struct Fit {
    all_reduce: Lines,
    all_gather: Lines,
    reduce_scatter: Lines,
    all_to_all: Lines,
    engine_all_reduce: Lines,
    /// Start and efficiency of NVLS.
    nvls: Option<(f64, f64)>,
}

const NVLINK3: Fit = Fit {
    all_reduce: [
        line(8.8, 1.924, 0.183),
        line(66.354, 1.28, 0.712),
        line(24.842, 0.0, 0.475),
    ],
    all_gather: [
        line(8.257, 0.848, 0.018),
        line(11.152, 1.0, 0.243),
        line(39.452, 0.0, 0.589),
    ],
    reduce_scatter: [
        line(7.799, 0.994, 0.014),
        line(10.958, 0.582, 0.248),
        line(37.831, 0.0, 0.637),
    ],
    all_to_all: [
        line(9.98, 0.684, 0.018),
        line(13.463, 0.058, 0.246),
        line(33.859, 0.0, 0.612),
    ],
    engine_all_reduce: [
        line(4.797, 0.14, 0.148),
        line(14.588, 0.0, 0.776),
        line(3.273, 2.236, 0.674),
    ],
    nvls: None,
};

const NVLINK4: Fit = Fit {
    all_reduce: [
        line(4.632, 1.594, 0.042),
        line(5.394, 1.71, 0.38),
        line(19.717, 1.283, 0.719),
    ],
    all_gather: [
        line(4.417, 0.839, 0.016),
        line(5.08, 1.042, 0.274),
        line(23.29, 0.0, 0.673),
    ],
    reduce_scatter: [
        line(4.283, 0.933, 0.015),
        line(5.332, 0.788, 0.32),
        line(19.157, 0.0, 0.662),
    ],
    all_to_all: [
        line(6.335, 0.211, 0.025),
        line(12.039, 0.0, 0.545),
        line(33.733, 0.0, 0.718),
    ],
    engine_all_reduce: [
        line(4.229, 0.083, 0.172),
        line(8.703, 0.0, 0.695),
        line(3.681, 0.669, 0.565),
    ],
    nvls: Some((73.244, 0.598)),
};

const NVLINK5: Fit = Fit {
    all_reduce: [
        line(6.422, 2.717, 0.01),
        line(7.865, 2.539, 0.32),
        line(21.17, 6.912, 0.678),
    ],
    all_gather: [
        line(6.761, 1.299, 0.02),
        line(8.552, 1.227, 0.249),
        line(20.444, 5.406, 0.676),
    ],
    reduce_scatter: [
        line(6.478, 1.387, 0.009),
        line(8.027, 1.246, 0.273),
        line(20.175, 4.463, 0.653),
    ],
    all_to_all: [
        line(9.271, 0.122, 0.017),
        line(15.298, 0.0, 0.425),
        line(26.851, 0.0, 0.562),
    ],
    engine_all_reduce: [
        line(6.436, 0.166, 0.091),
        line(15.384, 0.219, 0.542),
        line(4.143, 2.542, 0.179),
    ],
    nvls: Some((73.187, 0.451)),
};

/// NCCL's latency of a hop between nodes, microseconds: low latency, LL128 and
/// simple protocol (`hwLatencies`, NET, in NCCL's `tuning.cc`).
const RING_HOP_US: [f64; 3] = [2.7, 4.0, 14.0];
const TREE_HOP_US: [f64; 3] = [5.0, 8.5, 14.0];
/// Share of the NICs' bandwidth: the low-latency protocol sends a flag with
/// every word, LL128 one with every 120 bytes.
const NIC_EFFICIENCY: [f64; 3] = [0.5, 0.9375 * 0.95, 0.95];
/// Share of a ring's bandwidth that two trees reach (NCCL's tuning).
const TREE_EFFICIENCY: f64 = 0.92;

impl LinkGeneration {
    /// Generation of a GPU type.
    pub fn of_gpu(gpu: &str) -> Option<Self> {
        match gpu.to_ascii_uppercase().as_str() {
            "A100" | "A800" => Some(Self::NvLink3),
            "H100" | "H200" | "H800" | "H20" => Some(Self::NvLink4),
            "B200" | "GB200" => Some(Self::NvLink5),
            _ => None,
        }
    }

    /// The generation whose usual bandwidth is nearest.
    pub fn of_bandwidth(nvlink_gb_per_s: f64) -> Self {
        match nvlink_gb_per_s {
            gb if gb < 375.0 => Self::NvLink3,
            gb if gb < 675.0 => Self::NvLink4,
            _ => Self::NvLink5,
        }
    }

    fn fit(self) -> &'static Fit {
        match self {
            Self::NvLink3 => &NVLINK3,
            Self::NvLink4 => &NVLINK4,
            Self::NvLink5 => &NVLINK5,
        }
    }
}

/// NVLink bandwidth of a GPU type per direction as its data sheet has it, 10^9
/// bytes per second.
pub fn nominal_nvlink_gb_per_s(gpu: &str) -> Option<f64> {
    match gpu.to_ascii_uppercase().as_str() {
        "A100" => Some(300.0),
        "A800" | "H800" => Some(200.0),
        "H100" | "H200" | "H20" => Some(450.0),
        "B200" | "GB200" => Some(900.0),
        _ => None,
    }
}

/// Whose kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kernels {
    /// NCCL's alone.
    #[default]
    Nccl,
    /// All-reduces of a node by the kernels of serving engines where they are
    /// faster.
    ServingEngine,
}

/// Servers as NCCL sees them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NcclModel {
    /// Links inside a server.
    pub generation: LinkGeneration,
    /// GPUs of a server.
    pub gpus_per_server: u32,
    /// NVLink bandwidth of a GPU and direction as its data sheet has it, 10^9
    /// bytes per second.
    pub nvlink_gb_per_s: f64,
    /// Bandwidth of a GPU's share of the NICs, 10^9 bytes per second; 0: none.
    pub nic_gb_per_s: f64,
    /// Whose kernels run.
    pub kernels: Kernels,
}

/// Size of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupShape {
    /// Ranks.
    pub ranks: u32,
    /// Servers they are spread over evenly.
    pub servers: u32,
}

/// A price, and how the collective runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NcclPrice {
    /// Microseconds.
    pub time_us: f64,
    /// The algorithm.
    pub algorithm: Algorithm,
}

impl NcclModel {
    /// DeepEP on the same machines, where it runs.
    pub fn deepep(&self) -> Option<DeepEpModel> {
        DeepEpModel::new(
            self.generation,
            self.gpus_per_server,
            self.nvlink_gb_per_s,
            self.nic_gb_per_s,
        )
    }

    /// Of the links of a topology: the first GPU's stand for all.
    pub fn of_topology(topology: &Topology, kernels: Kernels) -> Self {
        let gb_per_s = |kind| {
            let ports = topology.ports(0).iter();
            let links = ports.filter(|port| topology.kind(port.to) == kind);
            let gbps = links.map(|port| topology.link(port.directed).bandwidth_gbps);
            gbps.sum::<f64>() / 8.0
        };
        let nvlink = gb_per_s(NodeKind::NvSwitch);
        let generation = LinkGeneration::of_gpu(topology.gpu_type());
        Self {
            generation: generation.unwrap_or_else(|| LinkGeneration::of_bandwidth(nvlink)),
            gpus_per_server: topology.gpus_per_server(),
            nvlink_gb_per_s: nvlink,
            nic_gb_per_s: gb_per_s(NodeKind::Switch),
            kernels,
        }
    }

    /// The fastest algorithm and its time; `None` where no link joins the ranks.
    pub fn price(
        &self,
        collective: Collective,
        bytes: u64,
        group: GroupShape,
    ) -> Option<NcclPrice> {
        let algorithms = Algorithm::ALL.into_iter();
        let prices = algorithms.filter_map(|algorithm| {
            let time_us = self.time_us(collective, bytes, group, algorithm)?;
            Some(NcclPrice { time_us, algorithm })
        });
        prices.min_by(|a, b| a.time_us.total_cmp(&b.time_us))
    }

    /// Time with a given algorithm, microseconds; `None` where it cannot run.
    pub fn time_us(
        &self,
        collective: Collective,
        bytes: u64,
        group: GroupShape,
        algorithm: Algorithm,
    ) -> Option<f64> {
        if group.ranks <= 1 || bytes == 0 {
            return Some(0.0);
        }
        let local = f64::from(group.ranks) / f64::from(group.servers.max(1));
        let unlinked = (local > 1.0 && self.nvlink_gb_per_s <= 0.0)
            || (group.servers > 1 && self.nic_gb_per_s <= 0.0);
        if unlinked {
            return None;
        }
        let bytes_f = bytes as f64;
        let fit = self.generation.fit();
        let reduces = collective == Collective::AllReduce;
        match algorithm {
            Algorithm::Ring => {
                let lines = match collective {
                    Collective::AllReduce => &fit.all_reduce,
                    Collective::AllGather => &fit.all_gather,
                    Collective::ReduceScatter => &fit.reduce_scatter,
                    Collective::AllToAll => return None,
                };
                Some(self.ring_us(lines, collective.passes(), bytes_f, group))
            }
            Algorithm::Tree if reduces && group.servers > 1 => {
                Some(self.tree_us(&fit.all_reduce, bytes_f, group))
            }
            Algorithm::Nvls if reduces && group.servers == 1 && group.ranks >= NVLS_RANKS_MIN => {
                let (start_us, efficiency) = fit.nvls?;
                Some(start_us + bytes_f / (self.nvlink_gb_per_s * 1e3 * efficiency))
            }
            Algorithm::Direct if collective == Collective::AllToAll => {
                Some(self.all_to_all_us(&fit.all_to_all, bytes_f, group))
            }
            Algorithm::Direct
                if reduces
                    && group.servers == 1
                    && self.kernels == Kernels::ServingEngine
                    && bytes <= ENGINE_KERNEL_BYTES_MAX =>
            {
                Some(self.ring_us(&fit.engine_all_reduce, 2.0, bytes_f, group))
            }
            _ => None,
        }
    }

    /// The fastest protocol around rings over all ranks; each of a server's
    /// NICs carries a ring.
    fn ring_us(&self, lines: &Lines, passes: f64, bytes: f64, group: GroupShape) -> f64 {
        let (ranks, servers) = (f64::from(group.ranks), f64::from(group.servers));
        let local = ranks / servers;
        let wire_bytes = passes * (ranks - 1.0) / ranks * bytes;
        fastest(lines, |index, line| {
            let inside = self.nvlink_gb_per_s * 1e3 * line.efficiency;
            if group.servers == 1 {
                return line.start_us + line.per_rank_us * (ranks - 1.0) + wire_bytes / inside;
            }
            let between = local * self.nic_gb_per_s * 1e3 * NIC_EFFICIENCY[index];
            let bandwidth = if local > 1.0 {
                inside.min(between)
            } else {
                between
            };
            // Hops: as many between servers as there are servers, per pass.
            let hops_between = passes * servers;
            let hops_inside = (passes * (ranks - 1.0) - hops_between).max(0.0);
            line.start_us
                + line.per_rank_us / passes * hops_inside
                + RING_HOP_US[index] * hops_between
                + wire_bytes / bandwidth
        })
    }

    /// Chains inside servers, two binary trees between them.
    fn tree_us(&self, lines: &Lines, bytes: f64, group: GroupShape) -> f64 {
        let servers = f64::from(group.servers);
        let local = f64::from(group.ranks) / servers;
        fastest(lines, |index, line| {
            let inside = self.nvlink_gb_per_s * 1e3 * line.efficiency;
            let between = local * self.nic_gb_per_s * 1e3 * NIC_EFFICIENCY[index];
            let bandwidth = if local > 1.0 {
                inside.min(between)
            } else {
                between
            };
            line.start_us
                + line.per_rank_us * (local - 1.0)
                + 2.0 * servers.log2().ceil() * TREE_HOP_US[index]
                + 2.0 * bytes / (bandwidth * TREE_EFFICIENCY)
        })
    }

    fn all_to_all_us(&self, lines: &Lines, bytes: f64, group: GroupShape) -> f64 {
        let (ranks, servers) = (f64::from(group.ranks), f64::from(group.servers));
        let local = ranks / servers;
        let inside_bytes = bytes * (local - 1.0) / ranks;
        let between_bytes = bytes * (ranks - local) / ranks;
        fastest(lines, |index, line| {
            let start_us = line.start_us + line.per_rank_us * (ranks - 1.0);
            let inside_us = match inside_bytes > 0.0 {
                true => inside_bytes / (self.nvlink_gb_per_s * 1e3 * line.efficiency),
                false => 0.0,
            };
            if group.servers == 1 {
                return start_us + inside_us;
            }
            let between_us = between_bytes / (self.nic_gb_per_s * 1e3 * NIC_EFFICIENCY[index]);
            start_us + RING_HOP_US[index] + inside_us.max(between_us)
        })
    }
}

fn fastest(lines: &Lines, time_us: impl Fn(usize, &Line) -> f64) -> f64 {
    let times = lines
        .iter()
        .enumerate()
        .map(|(index, line)| time_us(index, line));
    times.fold(f64::INFINITY, f64::min)
}

impl CollectiveCost for NcclModel {
    type Group = GroupShape;

    fn group(&self, _kind: GroupKind, gpus: &[u32]) -> Result<GroupShape, CostError> {
        let mut servers: Vec<u32> = gpus.iter().map(|gpu| gpu / self.gpus_per_server).collect();
        servers.sort_unstable();
        let sizes: Vec<usize> = servers.chunk_by(|a, b| a == b).map(<[u32]>::len).collect();
        let most = sizes.iter().copied().max().unwrap_or(0);
        let least = sizes.iter().copied().min().unwrap_or(0);
        if most != least {
            return Err(GroupError::Uneven { most, least }.into());
        }
        if gpus.is_empty() {
            return Err(GroupError::NotASet.into());
        }
        Ok(GroupShape {
            ranks: narrow::<u32, _>(gpus.len()),
            servers: narrow::<u32, _>(sizes.len()),
        })
    }

    fn time_s(
        &self,
        collective: Collective,
        bytes: u64,
        group: GroupShape,
    ) -> Result<f64, CostError> {
        let price = self
            .price(collective, bytes, group)
            .ok_or(CostError::NoLink)?;
        Ok(price.time_us * 1e-6)
    }

    fn send_s(&self, bytes: u64, from: u32, to: u32) -> Result<f64, CostError> {
        let inside = from / self.gpus_per_server == to / self.gpus_per_server;
        let pair = GroupShape {
            ranks: 2,
            servers: if inside { 1 } else { 2 },
        };
        if from == to {
            return Ok(0.0);
        }
        // NCCL sends a message as an all-to-all in which only one rank has data;
        // of the two parts of an all-to-all one stays.
        self.time_s(Collective::AllToAll, bytes.saturating_mul(2), pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h100() -> NcclModel {
        NcclModel {
            generation: LinkGeneration::NvLink4,
            gpus_per_server: 8,
            nvlink_gb_per_s: 450.0,
            nic_gb_per_s: 50.0,
            kernels: Kernels::Nccl,
        }
    }

    fn group(ranks: u32, servers: u32) -> GroupShape {
        GroupShape { ranks, servers }
    }

    #[test]
    fn algorithms_cross_over_with_size() {
        let choose = |bytes, ranks, servers| {
            let price = h100().price(Collective::AllReduce, bytes, group(ranks, servers));
            price.unwrap().algorithm
        };
        assert_eq!(choose(1 << 16, 8, 1), Algorithm::Ring);
        assert_eq!(choose(1 << 29, 8, 1), Algorithm::Nvls);
        assert_eq!(choose(1 << 29, 4, 1), Algorithm::Ring);
        assert_eq!(choose(1 << 16, 64, 8), Algorithm::Tree);
        assert_eq!(choose(1 << 30, 64, 8), Algorithm::Ring);
    }

    #[test]
    fn there_is_no_cliff_and_nothing_is_free() {
        for collective in Collective::ALL {
            let mut before = 0.0;
            for exponent in 2..34 {
                for bytes in [
                    (1_u64 << exponent) + 1,
                    (1 << exponent) + (1 << exponent) / 2,
                ] {
                    let time_us = h100()
                        .price(collective, bytes, group(8, 1))
                        .unwrap()
                        .time_us;
                    assert!(time_us >= before && time_us > 4.0, "{collective:?} {bytes}");
                    assert!(
                        before == 0.0 || time_us < 1.6 * before,
                        "{collective:?} {bytes}"
                    );
                    before = time_us;
                }
            }
        }
    }

    #[test]
    fn engine_kernels_win_small_all_reduces_of_a_node() {
        let engine = NcclModel {
            kernels: Kernels::ServingEngine,
            ..h100()
        };
        let price = engine
            .price(Collective::AllReduce, 1 << 16, group(8, 1))
            .unwrap();
        assert_eq!(price.algorithm, Algorithm::Direct);
        assert!(price.time_us < 8.0);
        let far = engine
            .price(Collective::AllReduce, 1 << 16, group(16, 2))
            .unwrap();
        assert_ne!(far.algorithm, Algorithm::Direct);
    }

    #[test]
    fn without_nics_servers_are_apart() {
        let apart = NcclModel {
            nic_gb_per_s: 0.0,
            ..h100()
        };
        assert_eq!(
            apart.price(Collective::AllReduce, 1 << 20, group(16, 2)),
            None
        );
        assert!(
            apart
                .price(Collective::AllReduce, 1 << 20, group(8, 1))
                .is_some()
        );
    }
}
