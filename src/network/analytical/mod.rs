//! SimAI's analytical model (backend `simai_analytical`): a collective takes
//! its bytes over a bus bandwidth, which follows from the layout of the group.
//!
//! [`AnalyticalNetwork::time_ns`] is the original, to the nanosecond: a fixed
//! table below 1 MiB, no latency above, an efficiency that depends on size for
//! some collectives only. [`AnalyticalNetwork::vidur_time_ns`] is what Vidur
//! gets from it, for compatibility alone. The completed model, which has
//! latencies and no steps, is [`super::nccl`].

mod ratio;

use super::collective::{Collective, GroupKind};
use crate::number::single;
use ratio::{NodeColumn, RatioTable};

// The original keeps bandwidths and efficiencies in single precision, which
// shows in the last nanosecond; so does this.

/// Below this a table by group size answers, whatever the hardware.
const TABLE_BELOW_BYTES: u64 = 1 << 20;
/// What the original calculates with where there is no bandwidth.
const NO_BANDWIDTH: f32 = -1.0;
/// The unit the original calls GB.
const GIB: f64 = (1_u64 << 30) as f64;

/// GPUs whose bandwidth the original knows, GiB/s per direction.
const NVLINK_GIB_PER_S: [(&str, f64); 5] = [
    ("A100", 20.0 * 12.0),
    ("A800", 20.0 * 8.0),
    ("H100", 20.6 * 18.0),
    ("H20", 20.6 * 18.0),
    ("H800", 20.6 * 8.0),
];
/// NICs whose bandwidth the original knows, GiB/s per direction.
const NIC_GIB_PER_S: [(&str, f64); 3] = [("cx6", 23.5), ("cx7", 48.5), ("bf3", 48.5)];

/// NVLink bandwidth the original assumes for a GPU type, GiB/s.
pub fn nvlink_gib_per_s(gpu: &str) -> Option<f64> {
    named(&NVLINK_GIB_PER_S, gpu)
}

/// Bandwidth the original assumes for a NIC type, GiB/s.
pub fn nic_gib_per_s(nic: &str) -> Option<f64> {
    named(&NIC_GIB_PER_S, nic)
}

/// GPU types the analytical model knows.
pub fn gpu_names() -> impl Iterator<Item = &'static str> {
    NVLINK_GIB_PER_S.iter().map(|(name, _)| *name)
}

/// NIC types the analytical model knows.
pub fn nic_names() -> impl Iterator<Item = &'static str> {
    NIC_GIB_PER_S.iter().map(|(name, _)| *name)
}

fn named(table: &[(&str, f64)], name: &str) -> Option<f64> {
    let found = table
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value)
}

/// Servers as the analytical model sees them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnalyticalNetwork {
    /// GPUs of a server.
    pub gpus_per_server: u32,
    /// NICs of a server.
    pub nics_per_server: u32,
    /// NVLink bandwidth of a GPU, 2^30 bytes per second.
    pub nvlink_gib_per_s: f64,
    /// Bandwidth of one NIC, 2^30 bytes per second.
    pub nic_gib_per_s: f64,
}

/// A group of ranks within a parallel layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParallelGroup {
    /// The dimension the group spans.
    pub kind: GroupKind,
    /// Ranks of a tensor parallel group.
    pub tensor_parallel: u32,
    /// Ranks of an expert parallel group.
    pub expert_parallel: u32,
    /// Ranks of this group.
    pub ranks: u32,
}

/// Beyond the efficiency tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are more than the efficiency tables cover (16 GiB)")]
pub struct TooLarge {
    /// Bytes asked for.
    pub bytes: u64,
}

/// Bandwidth of a group, and what bounds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BusBandwidth {
    /// 2^30 bytes per second.
    pub gib_per_s: f32,
    /// NVLink is the bound, in the original's sense: a ring inside one node
    /// counts as not bound by NVLink.
    pub nvlink_bound: bool,
}

/// Where the ranks of a group sit: nodes, GPUs of each, NICs they share.
struct Spread {
    nodes: u32,
    gpus: u32,
    nics: u32,
}

impl AnalyticalNetwork {
    /// Time of a collective, whole nanoseconds. Where the layout leaves a group
    /// without a link (fewer NICs than GPUs that need one) the original counts
    /// a bandwidth of -1 and so a negative time; this does too:
    /// [`bus_bandwidth`](Self::bus_bandwidth) tells.
    pub fn time_ns(
        &self,
        collective: Collective,
        group: &ParallelGroup,
        bytes: u64,
    ) -> Result<f64, TooLarge> {
        if (2..TABLE_BELOW_BYTES).contains(&bytes) {
            return Ok(small_message_ns(group.ranks));
        }
        let bandwidth = self.bus_bandwidth(collective, group);
        let gib_per_s = bandwidth.map_or(NO_BANDWIDTH, |found| found.gib_per_s);
        let ratio = self
            .ratio(collective, group, bytes)
            .ok_or(TooLarge { bytes })?;
        let gib = bytes as f64 / GIB;
        let ranks = f64::from(group.ranks);
        let seconds = gib / f64::from(gib_per_s * ratio);
        Ok((seconds * 1e9 * collective.passes() * (ranks - 1.0) / ranks).trunc())
    }

    /// What Vidur reads from SimAI 1.7 as it calls it: bandwidths are left
    /// unset, so every all-reduce of 1 MiB or more is free. Wrong; for
    /// comparisons with Vidur only.
    pub fn vidur_time_ns(ranks: u32, bytes: u64) -> f64 {
        if (2..TABLE_BELOW_BYTES).contains(&bytes) {
            small_message_ns(ranks)
        } else {
            0.0
        }
    }

    /// Bandwidth of a group; `None` where the layout leaves no link.
    pub fn bus_bandwidth(
        &self,
        collective: Collective,
        group: &ParallelGroup,
    ) -> Option<BusBandwidth> {
        let spread = self.spread(group)?;
        let usable = self.nvlink_gib_per_s > 0.0 && self.nic_gib_per_s > 0.0;
        if !usable || spread.nics < 1 || spread.nodes * spread.gpus <= 1 {
            return None;
        }
        Some(match collective {
            Collective::AllToAll => self.all_to_all_bandwidth(&spread),
            Collective::AllReduce | Collective::AllGather | Collective::ReduceScatter => {
                self.ring_bandwidth(&spread)
            }
        })
    }

    /// Efficiency by size. All-reduce and everything but tensor parallel
    /// groups and all-to-all of expert groups have none in the original.
    fn ratio(&self, collective: Collective, group: &ParallelGroup, bytes: u64) -> Option<f32> {
        let servers = self.gpus_per_server;
        let (tensor, expert) = (group.tensor_parallel, group.expert_parallel);
        let (table, nodes) = match (collective, group.kind) {
            (Collective::AllGather | Collective::ReduceScatter, GroupKind::Tensor) => {
                let bandwidth = self.bus_bandwidth(collective, group);
                let table = if bandwidth.is_some_and(|found| found.nvlink_bound) {
                    RatioTable::NvLink
                } else {
                    RatioTable::Nic
                };
                let nodes = if tensor < servers {
                    1
                } else {
                    tensor / servers
                };
                (table, nodes)
            }
            (Collective::AllToAll, GroupKind::Tensor) => {
                let nodes = if tensor <= servers {
                    1
                } else {
                    tensor / servers
                };
                (RatioTable::AllToAll, nodes)
            }
            (Collective::AllToAll, GroupKind::Expert) => {
                let nodes = if tensor * expert <= servers {
                    1
                } else if tensor >= servers {
                    9
                } else {
                    tensor * expert / servers
                };
                (RatioTable::AllToAll, nodes)
            }
            _ => return Some(1.0),
        };
        ratio::ratio(table, NodeColumn::of_nodes(nodes), bytes)
    }

    /// The original's view of a group; all divisions drop the remainder.
    fn spread(&self, group: &ParallelGroup) -> Option<Spread> {
        let (servers, nics) = (self.gpus_per_server, self.nics_per_server);
        let (tensor, expert) = (group.tensor_parallel, group.expert_parallel);
        let model = match group.kind {
            GroupKind::DataExpert => tensor * expert,
            GroupKind::Tensor | GroupKind::Expert | GroupKind::Data => tensor,
        };
        if servers == 0 || model == 0 || expert == 0 {
            return None;
        }
        let (nodes, gpus, nics) = match group.kind {
            GroupKind::Tensor if tensor <= servers => (1, tensor, nics),
            GroupKind::Tensor => (tensor / servers, servers, nics),
            GroupKind::Expert if tensor * expert <= servers => (1, servers / tensor, nics),
            GroupKind::Expert => {
                let nics = if tensor > servers {
                    nics / servers
                } else {
                    nics / tensor
                };
                (tensor * expert / servers, (servers / tensor).max(1), nics)
            }
            GroupKind::Data | GroupKind::DataExpert if model <= servers => {
                (group.ranks, servers / model, nics / model)
            }
            GroupKind::Data | GroupKind::DataExpert => (group.ranks, 1, nics / servers),
        };
        Some(Spread { nodes, gpus, nics })
    }

    fn ring_bandwidth(&self, spread: &Spread) -> BusBandwidth {
        let nvlink = single(self.nvlink_gib_per_s);
        let nics = single(self.nic_gib_per_s) * spread.nics as f32;
        if spread.nodes == 1 {
            return BusBandwidth {
                gib_per_s: nvlink,
                nvlink_bound: false,
            };
        }
        if spread.gpus == 1 {
            return BusBandwidth {
                gib_per_s: nics,
                nvlink_bound: false,
            };
        }
        let gpus = spread.gpus as f32;
        // Where NICs are faster than NVLink, rings cross rails inside a node.
        let inside = if nics > nvlink {
            nvlink * gpus / (gpus - 1.0)
        } else {
            nvlink
        };
        BusBandwidth {
            gib_per_s: inside.min(nics),
            nvlink_bound: inside < nics,
        }
    }

    fn all_to_all_bandwidth(&self, spread: &Spread) -> BusBandwidth {
        if spread.nodes == 1 {
            return BusBandwidth {
                gib_per_s: single(self.nvlink_gib_per_s),
                nvlink_bound: true,
            };
        }
        let (nodes, gpus) = (spread.nodes as f32, spread.gpus as f32);
        let nic = single(self.nic_gib_per_s) * spread.nics as f32 / gpus;
        BusBandwidth {
            gib_per_s: nic * (nodes * gpus - 1.0) / ((nodes - 1.0) * gpus),
            nvlink_bound: false,
        }
    }
}

/// Time below 1 MiB by group size; groups of other sizes are free there.
fn small_message_ns(ranks: u32) -> f64 {
    let time_us = match ranks {
        2 => 10.0,
        4 => 12.0,
        8 => 15.0,
        16 => 66.0,
        32 => 135.0,
        64 => 200.0,
        128 => 320.0,
        _ => 0.0,
    };
    time_us * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(gpu: &str) -> AnalyticalNetwork {
        AnalyticalNetwork {
            gpus_per_server: 8,
            nics_per_server: 8,
            nvlink_gib_per_s: nvlink_gib_per_s(gpu).unwrap(),
            nic_gib_per_s: nic_gib_per_s("cx7").unwrap(),
        }
    }

    fn group(kind: GroupKind, tensor: u32, expert: u32, ranks: u32) -> ParallelGroup {
        ParallelGroup {
            kind,
            tensor_parallel: tensor,
            expert_parallel: expert,
            ranks,
        }
    }

    fn sixteen_mib_us(gpu: &str, collective: Collective, group: ParallelGroup) -> f64 {
        servers(gpu).time_ns(collective, &group, 1 << 24).unwrap() / 1e3
    }

    #[test]
    fn recorded_times_at_sixteen_mebibytes() {
        use Collective::{AllGather, AllReduce, AllToAll};
        use GroupKind::{Data, Expert, Tensor};
        let cases = [
            ("A100", AllReduce, group(Tensor, 2, 1, 2), 65.104),
            ("A100", AllReduce, group(Tensor, 8, 1, 8), 113.932),
            ("A100", AllReduce, group(Tensor, 16, 1, 16), 106.811),
            ("H100", AllGather, group(Tensor, 8, 1, 8), 66.368),
            ("H100", AllGather, group(Tensor, 16, 1, 16), 113.261),
            ("H100", AllToAll, group(Tensor, 16, 1, 16), 247.819),
            ("H100", AllToAll, group(Expert, 1, 8, 8), 65.362),
            ("H100", AllToAll, group(Expert, 8, 4, 4), 269.719),
            ("H100", AllReduce, group(Data, 1, 1, 8), 70.473),
        ];
        for (gpu, collective, group, expected_us) in cases {
            let time_us = sixteen_mib_us(gpu, collective, group);
            assert!(
                (time_us - expected_us).abs() < 1.01e-3,
                "{gpu} {collective:?} {group:?}: {time_us} instead of {expected_us}"
            );
        }
    }

    #[test]
    fn small_messages_come_from_a_table_and_lone_ranks_have_no_link() {
        let tensor = group(GroupKind::Tensor, 8, 1, 8);
        let network = servers("H100");
        let small = network.time_ns(Collective::AllGather, &tensor, (1 << 20) - 1);
        assert_eq!(small, Ok(15_000.0));
        let alone = group(GroupKind::Tensor, 1, 1, 1);
        assert_eq!(network.bus_bandwidth(Collective::AllReduce, &alone), None);
        assert_eq!(AnalyticalNetwork::vidur_time_ns(8, 1 << 24), 0.0);
    }
}
