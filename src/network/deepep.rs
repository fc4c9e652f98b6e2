//! DeepEP: tokens to the GPUs of their experts and back, by kernels of its own.
//!
//! Two kinds: low latency (decode), one message per token and expert straight to its
//! GPU; and throughput (prefill, DeepEP's "normal"), one per token and GPU, between
//! nodes one per token and node, handed on over NVLink. Each direction of each kind is
//! a formula: a start, what every token costs its GPU, and bytes over NVLink and NICs.
//! The constants are fits of the logarithm to a part of what DeepEP's own benchmark
//! measured, which `data/silicon` has; errors on that part and on the rest are in
//! `docs/network.md`.

use super::links::ExpertExchange;
use super::nccl::LinkGeneration;

/// Scales that go with a token of 8-bit numbers: four bytes for 128 of them.
const SCALES_SHARE: f64 = 4.0 / 128.0;
/// What a low-latency message says of its token.
const MESSAGE_BYTES: f64 = 16.0;

/// GPUs, their links and their NICs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeepEpModel {
    generation: Generation,
    gpus_per_server: u32,
    nvlink_bytes_per_s: f64,
    nic_bytes_per_s: f64,
}

/// Links that DeepEP was measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Generation {
    NvLink4,
    NvLink5,
}

/// Kernels of one direction inside a node.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    start_s: f64,
    /// Of start, for every byte of a token: throughput kernels.
    start_per_byte_s: f64,
    /// Of start, for every expert there is: low-latency kernels.
    start_per_expert_s: f64,
    /// For every token of a rank.
    token_s: f64,
    /// For every byte of a rank's tokens, however many copies there are.
    byte_s: f64,
    /// For every token that an expert gets, one after the other.
    expert_token_s: f64,
    /// Share of NVLink's bandwidth.
    nvlink_share: f64,
}

/// What leaving the node adds.
#[derive(Debug, Clone, Copy)]
struct Between {
    start_s: f64,
    /// For every doubling of nodes.
    doubling_s: f64,
    /// Share of a NIC's bandwidth. Above 1 for throughput kernels: part of what goes
    /// over NICs is hidden by what goes over NVLink.
    nic_share: f64,
}

/// NVLink of the machines measured, bytes per second.
const NVLINK4: f64 = 450e9;
const NVLINK5: f64 = 900e9;
/// NIC of the machines measured, bytes per second.
const NIC: f64 = 50e9;

const ZERO: Kernel = Kernel {
    start_s: 0.0,
    start_per_byte_s: 0.0,
    start_per_expert_s: 0.0,
    token_s: 0.0,
    byte_s: 0.0,
    expert_token_s: 0.0,
    nvlink_share: 1.0,
};

impl Generation {
    fn kernel(self, low_latency: bool, combine: bool) -> Kernel {
        match (self, low_latency, combine) {
            (Self::NvLink4, true, false) => Kernel {
                start_s: 7.898e-6,
                start_per_expert_s: 1.435e-8,
                expert_token_s: 1.312e-7,
                nvlink_share: 258.4e9 / NVLINK4,
                ..ZERO
            },
            (Self::NvLink5, true, false) => Kernel {
                start_s: 13.594e-6,
                start_per_expert_s: 2.692e-8,
                expert_token_s: 1.367e-7,
                nvlink_share: 496.6e9 / NVLINK5,
                ..ZERO
            },
            (Self::NvLink4, true, true) => Kernel {
                start_s: 9.914e-6,
                start_per_expert_s: 4.868e-9,
                nvlink_share: 223.0e9 / NVLINK4,
                ..ZERO
            },
            (Self::NvLink5, true, true) => Kernel {
                start_s: 15.713e-6,
                start_per_expert_s: 1.171e-8,
                nvlink_share: 607.6e9 / NVLINK5,
                ..ZERO
            },
            (Self::NvLink4, false, false) => Kernel {
                start_s: 26.224e-6,
                start_per_byte_s: 1.646e-10,
                token_s: 2.181e-8,
                nvlink_share: 328.7e9 / NVLINK4,
                ..ZERO
            },
            (Self::NvLink5, false, false) => Kernel {
                start_s: 35.828e-6,
                start_per_byte_s: 4.907e-11,
                token_s: 2.874e-8,
                nvlink_share: 325.4e9 / NVLINK5,
                ..ZERO
            },
            // Tokens come back in 16 bits.
            (Self::NvLink4, false, true) => Kernel {
                start_s: 26.830e-6,
                start_per_byte_s: 2.752e-9 / 2.0,
                byte_s: 1.032e-11 / 2.0,
                nvlink_share: 405.4e9 / NVLINK4,
                ..ZERO
            },
            (Self::NvLink5, false, true) => Kernel {
                start_s: 36.139e-6,
                start_per_byte_s: 2.697e-9 / 2.0,
                byte_s: 9.854e-12 / 2.0,
                nvlink_share: 423.3e9 / NVLINK5,
                ..ZERO
            },
        }
    }
}

/// Measured over 400 Gb/s NICs, with NVLink 4.
fn between(low_latency: bool, combine: bool) -> Between {
    let (start_us, doubling_us, gb_per_s) = match (low_latency, combine) {
        (true, false) => (4.835, 3.826, 47.7),
        (true, true) => (13.296, 0.426, 46.1),
        (false, false) => (0.0, 33.458, 74.9),
        (false, true) => (20.670, 27.236, 66.1),
    };
    Between {
        start_s: start_us * 1e-6,
        doubling_s: doubling_us * 1e-6,
        nic_share: gb_per_s * 1e9 / NIC,
    }
}

impl DeepEpModel {
    /// On GPUs of a generation; none for those DeepEP was not measured on. Bandwidths
    /// are data-sheet figures of one GPU and direction, 10^9 bytes per second.
    pub fn new(
        generation: LinkGeneration,
        gpus_per_server: u32,
        nvlink_gb_per_s: f64,
        nic_gb_per_s: f64,
    ) -> Option<Self> {
        let generation = match generation {
            LinkGeneration::NvLink3 => return None,
            LinkGeneration::NvLink4 => Generation::NvLink4,
            LinkGeneration::NvLink5 => Generation::NvLink5,
        };
        Some(Self {
            generation,
            gpus_per_server: gpus_per_server.max(1),
            nvlink_bytes_per_s: nvlink_gb_per_s * 1e9,
            nic_bytes_per_s: nic_gb_per_s * 1e9,
        })
    }

    /// Time of a dispatch or a combine, seconds; none where no link joins the ranks.
    pub fn time_s(&self, exchange: &ExpertExchange) -> Option<f64> {
        let nodes = exchange.ranks.div_ceil(self.gpus_per_server);
        if exchange.ranks <= 1 || exchange.tokens_per_rank == 0 {
            return Some(0.0);
        }
        let short = |bytes_per_s: f64| !(bytes_per_s > 0.0 && bytes_per_s.is_finite());
        if short(self.nvlink_bytes_per_s) || nodes > 1 && short(self.nic_bytes_per_s) {
            return None;
        }
        let combine = exchange.combine;
        let kernel = self.generation.kernel(exchange.low_latency, combine);
        let start_s = kernel.start_s
            + kernel.start_per_byte_s * exchange.token_bytes
            + kernel.start_per_expert_s * f64::from(exchange.experts);
        let nvlink = kernel.nvlink_share * self.nvlink_bytes_per_s;
        let inside_s = |bytes: f64| bytes / nvlink;
        let (tokens, all) = (
            f64::from(exchange.tokens_per_rank),
            f64::from(exchange.ranks),
        );
        // Of all copies, those for others.
        let sent = tokens * exchange.copies() * message_bytes(exchange);
        let other = |places: f64| (places - 1.0) / places;
        let node = f64::from(exchange.ranks.min(self.gpus_per_server));
        let between = between(exchange.low_latency, combine);
        let nic = between.nic_share * self.nic_bytes_per_s;
        let all_nodes = f64::from(nodes);
        let moved_s = if exchange.low_latency {
            let of_expert = tokens * f64::from(exchange.experts_per_token) * all
                / f64::from(exchange.experts.max(1));
            // Straight to where they are for.
            let inside_s = inside_s(sent / all_nodes * other(node));
            let between_s = if nodes > 1 {
                sent * other(all_nodes) / nic
            } else {
                0.0
            };
            inside_s
                .max(of_expert * kernel.expert_token_s)
                .max(between_s)
        } else {
            let each_s = tokens * (kernel.token_s + exchange.token_bytes * kernel.byte_s);
            let copies = exchange.nodes_visited(nodes) * other(all_nodes);
            let between_s = match nodes {
                1 => 0.0,
                _ => tokens * copies * exchange.token_bytes / nic,
            };
            each_s + inside_s(sent * other(node)) + between_s
        };
        let leaving_s = match nodes {
            1 => 0.0,
            _ => between.start_s + between.doubling_s * all_nodes.log2(),
        };
        Some(start_s + leaving_s + moved_s)
    }
}

/// What a token is sent as.
fn message_bytes(exchange: &ExpertExchange) -> f64 {
    match (exchange.low_latency, exchange.combine) {
        (true, false) => exchange.token_bytes * (1.0 + SCALES_SHARE) + MESSAGE_BYTES,
        _ => exchange.token_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(low_latency: bool, ranks: u32) -> ExpertExchange {
        ExpertExchange {
            tokens_per_rank: 128,
            token_bytes: 7168.0,
            experts_per_token: 8,
            experts: 256,
            ranks,
            low_latency,
            combine: false,
            groups: (1, 1),
        }
    }

    fn h100() -> DeepEpModel {
        DeepEpModel::new(LinkGeneration::NvLink4, 8, 450.0, 50.0).unwrap()
    }

    fn back(to: ExpertExchange) -> ExpertExchange {
        ExpertExchange {
            combine: true,
            token_bytes: 2.0 * to.token_bytes,
            ..to
        }
    }

    /// What DeepEP's authors publish (H800, tokens of 7,168 numbers, 8 experts each),
    /// which nothing was fitted to: microseconds of dispatch and combine.
    #[test]
    fn published_times_are_met() {
        let check = |exchange: ExpertExchange, expected_us: f64, tolerance: f64| {
            let us = h100().time_s(&exchange).unwrap() * 1e6;
            let error = us / expected_us - 1.0;
            assert!(error.abs() < tolerance, "{}: {us}", exchange.ranks);
        };
        for (ranks, dispatch_us, combine_us) in [
            (16, 118.0, 195.0),
            (32, 155.0, 273.0),
            (64, 173.0, 314.0),
            (128, 192.0, 369.0),
            (256, 194.0, 360.0),
        ] {
            check(exchange(true, ranks), dispatch_us, 0.16);
            check(back(exchange(true, ranks)), combine_us, 0.13);
        }
        // Throughput kernels are given as bandwidths: 51 and 50 GB/s of all copies for
        // nodes, of which there are four.
        let to = ExpertExchange {
            tokens_per_rank: 4096,
            groups: (8, 4),
            ..exchange(false, 64)
        };
        let copies_bytes = 4096.0 * to.nodes_visited(8) * 7168.0;
        check(to, copies_bytes * (1.0 + SCALES_SHARE) / 51e9 * 1e6, 0.1);
        check(back(to), copies_bytes * 2.0 / 50e9 * 1e6, 0.1);
    }

    #[test]
    fn more_tokens_more_nodes_and_slower_links_take_longer() {
        let time_s = |model: DeepEpModel, exchange| model.time_s(&exchange).unwrap();
        for low_latency in [false, true] {
            let (near, far) = (exchange(low_latency, 8), exchange(low_latency, 16));
            assert!(time_s(h100(), near) < time_s(h100(), far));
            let more = ExpertExchange {
                tokens_per_rank: 1024,
                ..near
            };
            assert!(time_s(h100(), near) < time_s(h100(), more));
            let slow = DeepEpModel {
                nic_bytes_per_s: 25e9,
                ..h100()
            };
            assert_eq!(time_s(slow, near), time_s(h100(), near));
            assert!(time_s(slow, far) > time_s(h100(), far));
        }
        assert_eq!(h100().time_s(&exchange(true, 1)), Some(0.0));
        let alone = DeepEpModel {
            nic_bytes_per_s: 0.0,
            ..h100()
        };
        assert_eq!(alone.time_s(&exchange(true, 16)), None);
        assert!(alone.time_s(&exchange(true, 8)).is_some());
        assert_eq!(
            DeepEpModel::new(LinkGeneration::NvLink3, 8, 300.0, 25.0),
            None
        );
    }
}
