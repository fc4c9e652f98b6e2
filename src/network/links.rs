//! The two-level link model and the collectives over it.

use serde::{Deserialize, Serialize};

use crate::catalog::DeviceSpec;
use crate::units::BYTES_PER_S_PER_GBPS;

/// Fraction of the NVLink bandwidth an all-reduce of many megabytes reaches:
/// between the 0.4-0.5 measured at 1-16 MB and the 0.7-0.95 above 64 MB on
/// A100, H100, H200 and B200.
const ALL_REDUCE_EFFICIENCY: f64 = 0.6;
/// Start-up of one all-reduce kernel inside a node (measured: 4.3-5.8 us).
const ALL_REDUCE_LATENCY_S: f64 = 5e-6;
/// Fraction of the NVLink bandwidth all-gather and reduce-scatter reach
/// (measured, 64 MB and more on 4 and 8 GPUs: 0.57-0.71).
const GATHER_EFFICIENCY: f64 = 0.65;
/// Start-up of an all-gather or reduce-scatter (measured, 2/4/8 GPUs:
/// 5.3/7.2/10.6 us on H100): a constant and a share per rank.
const GATHER_LATENCY_S: f64 = 3.5e-6;
const GATHER_LATENCY_PER_RANK_S: f64 = 0.9e-6;
/// Fraction of the NIC bandwidth a collective between nodes reaches.
const NIC_EFFICIENCY: f64 = 0.8;
/// Start-up of one step between nodes, and of one pipeline send.
pub const NIC_LATENCY_S: f64 = 10e-6;
/// Start-up of one expert dispatch or combine: low-latency kernels (measured:
/// 12-16 us for one token) and throughput kernels (36-48 us).
const LOW_LATENCY_EXCHANGE_S: f64 = 14e-6;
const THROUGHPUT_EXCHANGE_S: f64 = 42e-6;

/// Link bandwidths that replace the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LinkOverrides {
    /// NVLink bandwidth per GPU and direction, gigabits per second.
    pub nvlink_bandwidth_gbps: Option<f64>,
    /// NIC bandwidth per GPU and direction, gigabits per second.
    pub rdma_bandwidth_gbps: Option<f64>,
}

/// Links of one GPU: NVLink to its node, a NIC to everything else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Links {
    nvlink_bytes_per_s: f64,
    nic_bytes_per_s: f64,
    gpus_per_node: u32,
}

/// One rank's share of an exchange of tokens between experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertExchange {
    /// Tokens of one rank.
    pub tokens_per_rank: u32,
    /// Bytes of one token.
    pub token_bytes: f64,
    /// Experts a token visits.
    pub experts_per_token: u32,
    /// Experts there are.
    pub experts: u32,
    /// Ranks.
    pub ranks: u32,
    /// One message per expert and no forwarding inside nodes (decode kernels).
    pub low_latency: bool,
    /// Results back, instead of tokens there.
    pub combine: bool,
    /// Expert groups and how many of them a token may visit (node-limited
    /// routing); (1, 1): no limit.
    pub groups: (u32, u32),
}

impl ExpertExchange {
    /// Times a token is sent, its own rank counted like the others: once per rank
    /// it visits, or once per expert.
    pub fn copies(&self) -> f64 {
        let (ranks, visits) = (f64::from(self.ranks), f64::from(self.experts_per_token));
        if self.low_latency {
            visits
        } else {
            ranks * (1.0 - (1.0 - 1.0 / ranks).powf(visits))
        }
    }

    /// Nodes a token visits on average, its own included, when `nodes` share the
    /// experts evenly.
    pub(super) fn nodes_visited(&self, nodes: u32) -> f64 {
        let (groups, chosen) = self.groups;
        let all = f64::from(nodes);
        let candidates = if groups <= 1 || chosen >= groups {
            all
        } else if groups >= nodes {
            // Some of whose groups are among the chosen ones.
            let per_node = groups / nodes;
            let missed: f64 = (0..chosen)
                .map(|taken| {
                    let left = f64::from(groups - taken);
                    ((left - f64::from(per_node)) / left).max(0.0)
                })
                .product();
            all * (1.0 - missed)
        } else {
            all * f64::from(chosen) / f64::from(groups)
        };
        candidates * (1.0 - (1.0 - 1.0 / candidates).powf(f64::from(self.experts_per_token)))
    }
}

impl Links {
    /// Links of `device` in nodes of `gpus_per_node`, with what `overrides` replaces.
    pub fn new(device: &DeviceSpec, gpus_per_node: u32, overrides: &LinkOverrides) -> Self {
        let nvlink_gbps = overrides
            .nvlink_bandwidth_gbps
            .unwrap_or(device.nvlink_bandwidth_gbps);
        let nic_gbps = overrides
            .rdma_bandwidth_gbps
            .unwrap_or(device.nic_bandwidth_gbps);
        Self {
            nvlink_bytes_per_s: nvlink_gbps * BYTES_PER_S_PER_GBPS,
            nic_bytes_per_s: nic_gbps * BYTES_PER_S_PER_GBPS,
            gpus_per_node: gpus_per_node.max(1),
        }
    }

    /// GPUs of one node.
    pub fn gpus_per_node(&self) -> u32 {
        self.gpus_per_node
    }

    /// Nodes a group of `gpus` consecutive GPUs spans.
    pub fn nodes(&self, gpus: u32) -> u32 {
        gpus.div_ceil(self.gpus_per_node)
    }

    /// Sum of `bytes` on each of `gpus` ranks, everywhere. Across nodes:
    /// reduce-scatter inside, ring all-reduce of the shards between, all-gather
    /// inside.
    pub fn all_reduce_s(&self, bytes: f64, gpus: u32) -> f64 {
        if gpus <= 1 {
            return 0.0;
        }
        let nodes = self.nodes(gpus);
        if nodes == 1 {
            let per_link = 2.0 * ring_share(gpus) * bytes;
            return ALL_REDUCE_LATENCY_S
                + per_link / (ALL_REDUCE_EFFICIENCY * self.nvlink_bytes_per_s);
        }
        let local = self.gpus_per_node.min(gpus);
        let shard_bytes = bytes / f64::from(local);
        2.0 * self.gather_inside_s(bytes, local) + 2.0 * self.between_nodes_s(shard_bytes, nodes)
    }

    /// Every rank gets the `bytes` of all parts together.
    pub fn all_gather_s(&self, bytes: f64, gpus: u32) -> f64 {
        if gpus <= 1 {
            return 0.0;
        }
        let nodes = self.nodes(gpus);
        let local = self.gpus_per_node.min(gpus);
        let inside_s = self.gather_inside_s(bytes, local);
        if nodes == 1 {
            return inside_s;
        }
        inside_s + self.between_nodes_s(bytes / f64::from(local), nodes)
    }

    /// Sum of `bytes` over ranks, each keeping its part: an all-gather backwards.
    pub fn reduce_scatter_s(&self, bytes: f64, gpus: u32) -> f64 {
        self.all_gather_s(bytes, gpus)
    }

    /// Tokens to the GPUs of their experts, or their results back. Uniform
    /// routing; a token is sent once per destination GPU, and between nodes once
    /// per destination node (throughput kernels) or per expert (low latency).
    pub fn expert_exchange_s(&self, exchange: &ExpertExchange) -> f64 {
        let ExpertExchange {
            tokens_per_rank,
            token_bytes,
            experts_per_token,
            ranks,
            low_latency,
            ..
        } = *exchange;
        if ranks <= 1 {
            return 0.0;
        }
        let bytes = f64::from(tokens_per_rank) * token_bytes;
        let visits = f64::from(experts_per_token);
        let elsewhere = |places: u32| {
            let places = f64::from(places);
            (places - 1.0) * (1.0 - (1.0 - 1.0 / places).powf(visits))
        };
        let nodes = self.nodes(ranks);
        let nvlink_s = bytes * elsewhere(ranks) / (GATHER_EFFICIENCY * self.nvlink_bytes_per_s);
        let copies_between = match (nodes, low_latency) {
            (1, _) => 0.0,
            (_, true) => visits * f64::from(nodes - 1) / f64::from(nodes),
            (_, false) => exchange.nodes_visited(nodes) * f64::from(nodes - 1) / f64::from(nodes),
        };
        let nic_s = bytes * copies_between / (NIC_EFFICIENCY * self.nic_bytes_per_s);
        let startup_s = if low_latency {
            LOW_LATENCY_EXCHANGE_S
        } else {
            THROUGHPUT_EXCHANGE_S
        };
        startup_s + if nodes > 1 { NIC_LATENCY_S } else { 0.0 } + nvlink_s.max(nic_s)
    }

    /// One GPU to another, at full link bandwidth.
    pub fn send_recv_s(&self, bytes: f64, across_nodes: bool) -> f64 {
        let bandwidth = if across_nodes {
            self.nic_bytes_per_s
        } else {
            self.nvlink_bytes_per_s
        };
        NIC_LATENCY_S + bytes / bandwidth
    }

    /// KV cache of one request from a prefill to a decode replica, `bytes` being
    /// split evenly over the NICs of `gpus` senders.
    pub fn kv_transfer_s(&self, bytes: f64, gpus: u32) -> f64 {
        NIC_LATENCY_S + bytes / f64::from(gpus.max(1)) / self.nic_bytes_per_s
    }

    fn gather_inside_s(&self, bytes: f64, gpus: u32) -> f64 {
        if gpus <= 1 {
            return 0.0;
        }
        GATHER_LATENCY_S
            + GATHER_LATENCY_PER_RANK_S * f64::from(gpus)
            + ring_share(gpus) * bytes / (GATHER_EFFICIENCY * self.nvlink_bytes_per_s)
    }

    /// Half of a ring all-reduce of `bytes` between one GPU of each node.
    fn between_nodes_s(&self, bytes: f64, nodes: u32) -> f64 {
        NIC_LATENCY_S + ring_share(nodes) * bytes / (NIC_EFFICIENCY * self.nic_bytes_per_s)
    }
}

/// Share of the data every link of a ring of `n` ranks carries in one pass.
fn ring_share(n: u32) -> f64 {
    f64::from(n - 1) / f64::from(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            nvlink_bytes_per_s: 450e9,
            nic_bytes_per_s: 50e9,
            gpus_per_node: 8,
        }
    }

    #[test]
    fn collectives_of_one_rank_are_free() {
        let links = links();
        assert_eq!(links.all_reduce_s(1e9, 1), 0.0);
        assert_eq!(links.all_gather_s(1e9, 1), 0.0);
        assert_eq!(links.reduce_scatter_s(1e9, 1), 0.0);
    }

    #[test]
    fn ring_all_reduce_inside_a_node() {
        let expected = 5e-6 + 2.0 * 7.0 / 8.0 * 1e9 / (0.6 * 450e9);
        assert!((links().all_reduce_s(1e9, 8) - expected).abs() < 1e-12);
    }

    #[test]
    fn leaving_the_node_costs_more_and_nic_bounds_it() {
        let links = links();
        let inside = links.all_reduce_s(1e8, 8);
        let across = links.all_reduce_s(1e8, 16);
        assert!(across > inside);
        // The shard of every GPU passes its NIC twice, halved by the ring share.
        assert!(across > 2.0 * 0.5 * 1e8 / 8.0 / 50e9);
    }

    #[test]
    fn throughput_exchange_sends_once_per_node() {
        let exchange = |low_latency, ranks| ExpertExchange {
            tokens_per_rank: 4096,
            token_bytes: 7168.0,
            experts_per_token: 8,
            experts: 256,
            ranks,
            low_latency,
            combine: false,
            groups: (1, 1),
        };
        let links = links();
        let normal = links.expert_exchange_s(&exchange(false, 32));
        let low = links.expert_exchange_s(&exchange(true, 32));
        assert!(low > normal, "8 copies a token against at most 3 nodes");
        assert_eq!(links.expert_exchange_s(&exchange(false, 1)), 0.0);
        assert!(links.expert_exchange_s(&exchange(false, 8)) < normal);
    }

    #[test]
    fn node_limited_routing_visits_fewer_nodes() {
        let free = ExpertExchange {
            tokens_per_rank: 4096,
            token_bytes: 7168.0,
            experts_per_token: 8,
            experts: 256,
            ranks: 64,
            low_latency: false,
            combine: false,
            groups: (1, 1),
        };
        let limited = ExpertExchange {
            groups: (8, 4),
            ..free
        };
        assert!((free.nodes_visited(8) - 8.0 * (1.0 - 0.875f64.powi(8))).abs() < 1e-12);
        // Half of eight nodes, of which eight visits find 90 %.
        assert!((limited.nodes_visited(8) - 4.0 * (1.0 - 0.75f64.powi(8))).abs() < 1e-12);
        let links = links();
        assert!(links.expert_exchange_s(&limited) < 0.9 * links.expert_exchange_s(&free));
        // Two groups a node: 15 in 70 choices of four miss a given one.
        let four: f64 = 4.0 * (1.0 - 15.0 / 70.0);
        let visited: f64 = four * (1.0 - (1.0 - 1.0 / four).powi(8));
        assert!((limited.nodes_visited(4) - visited).abs() < 1e-12);
    }

    #[test]
    fn kv_transfer_uses_every_nic() {
        let links = links();
        let one = links.kv_transfer_s(4e9, 1);
        let eight = links.kv_transfer_s(4e9, 8);
        assert!((one - 10e-6) / (eight - 10e-6) > 7.999);
        assert!((one - 10e-6 - 0.08).abs() < 1e-12);
    }
}
