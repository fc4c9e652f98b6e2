//! Backend `roofline`: any operator from the peak figures of a device.
//!
//! `launch + max(operations / (efficiency x peak), bytes / (efficiency x
//! bandwidth))` per operator class. The efficiencies are medians over the
//! measured tables of A100, H100, H200 and B200 (large shapes), the launch terms
//! medians over their smallest shapes; `docs/execution-time.md` lists them and
//! `docs/validation.md` the errors that remain. Also prices what is a formula in
//! every backend: memory-bound kernels, sends between stages. Devices whose
//! kernels were benchmarked one by one have efficiencies of their own
//! ([`KernelFits`]).

mod fitted;

pub use fitted::KernelFits;

use super::operator::LatentWidths;
use super::{Operator, OperatorCost, Price, PricingError, Provenance};
use crate::catalog::{DeviceSpec, LocalAttention};
use crate::network::Links;
use crate::number::narrow;
use crate::units::DType;

/// Memory-bound kernels: share of the bandwidth reached, and start-up.
const ELEMENTWISE: Efficiency = Efficiency::new(3e-6, 1.0, 0.8);
const GEMM_16_BIT: Efficiency = Efficiency::new(3.8e-6, 0.76, 0.77);
/// Includes the quantisation of the input.
const GEMM_8_BIT: Efficiency = Efficiency::new(8.2e-6, 0.38, 0.85);
/// Includes the block-wise quantisation of the input, a kernel of its own.
const GEMM_8_BIT_BLOCK: Efficiency = Efficiency::new(88e-6, 0.72, 1.0);
const CONTEXT_ATTENTION: Efficiency = Efficiency::new(13e-6, 0.54, 0.28);
const CONTEXT_ATTENTION_8_BIT: Efficiency = Efficiency::new(14e-6, 0.47, 0.16);
const GENERATION_ATTENTION: Efficiency = Efficiency::new(12.4e-6, 0.12, 0.66);
const GENERATION_ATTENTION_8_BIT: Efficiency = Efficiency::new(13.9e-6, 0.27, 0.53);
/// A whole latent-attention block is a dozen kernels, hence the start-up.
const MLA_CONTEXT: Efficiency = Efficiency::new(96e-6, 0.59, 0.77);
const MLA_GENERATION: Efficiency = Efficiency::new(84e-6, 0.31, 0.8);
/// Fitted to evenly spread work; what is uneven is scaled first.
const EXPERTS_16_BIT: Efficiency = Efficiency::new(30e-6, 0.31, 0.77);
const EXPERTS_8_BIT: Efficiency = Efficiency::new(29e-6, 0.24, 0.74);
const GATED_DELTA_NET_PREFILL: Efficiency = Efficiency::new(16e-6, 0.79, 0.31);
const GATED_DELTA_NET_DECODE: Efficiency = Efficiency::new(5.8e-6, 0.22, 0.88);

/// How close kernels of one class come to the peak figures.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Efficiency {
    compute: f64,
    memory: f64,
    launch_s: f64,
}

impl Efficiency {
    const fn new(launch_s: f64, compute: f64, memory: f64) -> Self {
        Self {
            compute,
            memory,
            launch_s,
        }
    }
}

/// Work of one kernel on one GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Work {
    operations: f64,
    bytes: f64,
    dtype: DType,
}

/// Prices every operator from a device's peak figures and links.
#[derive(Debug, Clone)]
pub struct Roofline {
    device: DeviceSpec,
    links: Links,
    fits: Option<KernelFits>,
    /// Expert groups and how many of them a token may visit.
    groups: (u32, u32),
}

impl Roofline {
    /// The roofline of `device` behind `links`.
    pub fn new(device: &DeviceSpec, links: Links) -> Self {
        Self {
            device: device.clone(),
            links,
            fits: None,
            groups: (1, 1),
        }
    }

    /// The same with the device's own kernel efficiencies.
    #[must_use]
    pub fn with_fits(self, fits: KernelFits) -> Self {
        Self {
            fits: Some(fits),
            ..self
        }
    }

    /// The same for a router that lets a token visit `chosen` of `groups`.
    #[must_use]
    pub fn with_expert_groups(self, groups: u32, chosen: u32) -> Self {
        Self {
            groups: (groups, chosen),
            ..self
        }
    }

    /// Whose efficiencies are used, where they are a device's own.
    pub fn fits(&self) -> Option<&KernelFits> {
        self.fits.as_ref()
    }

    /// Time of one run, seconds. Every operator but host time has one; host time
    /// belongs to an engine, not to a device, and is 0 here.
    pub fn time_s(&self, operator: &Operator) -> f64 {
        self.collective_s(operator)
            .or_else(|| self.kernel_s(operator))
            .unwrap_or(0.0)
    }

    fn collective_s(&self, operator: &Operator) -> Option<f64> {
        let links = &self.links;
        Some(match *operator {
            Operator::AllReduce { bytes, gpus } => links.all_reduce_s(bytes, gpus),
            Operator::AllGather { bytes, gpus } => links.all_gather_s(bytes, gpus),
            Operator::ReduceScatter { bytes, gpus } => links.reduce_scatter_s(bytes, gpus),
            Operator::SendRecv {
                bytes,
                across_nodes,
            } => links.send_recv_s(bytes, across_nodes),
            _ => links.expert_exchange_s(&operator.exchange(self.groups)?),
        })
    }

    fn kernel_s(&self, operator: &Operator) -> Option<f64> {
        if let Some(fits) = &self.fits
            && let Some(time_s) = fits.time_s(self, operator)
        {
            return Some(time_s);
        }
        let (work, efficiency) = work(operator)?;
        Some(self.work_s(work, efficiency))
    }

    fn work_s(&self, work: Work, efficiency: Efficiency) -> f64 {
        let compute_s = work.operations / (efficiency.compute * self.device.peak_flops(work.dtype));
        let bandwidth = self.device.memory_bandwidth_gb_per_s * 1e9;
        let memory_s = work.bytes / (efficiency.memory * bandwidth);
        efficiency.launch_s + compute_s.max(memory_s)
    }
}

impl OperatorCost for Roofline {
    fn price(&self, operator: &Operator) -> Result<Price, PricingError> {
        let provenance = if is_formula(operator) {
            Provenance::Formula
        } else {
            Provenance::Roofline {
                reason: "backend roofline".into(),
            }
        };
        Ok(Price {
            time_s: self.time_s(operator),
            provenance,
        })
    }
}

/// Whether the operator is a stated formula in every backend, as nothing
/// measured exists for it.
pub fn is_formula(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::Elementwise { .. } | Operator::SendRecv { .. } | Operator::Host { .. }
    )
}

/// Whether kernels multiply in 8 bits or fewer.
fn is_8_bit(dtype: DType) -> bool {
    dtype.bytes() <= 1.0 && !dtype.is_weight_only()
}

/// Operations and bytes of a kernel, and the efficiency of its class; none for
/// collectives and host time.
fn work(operator: &Operator) -> Option<(Work, Efficiency)> {
    match *operator {
        Operator::Gemm {
            tokens,
            out_features,
            in_features,
            dtype,
        } => Some(gemm(tokens, out_features, in_features, dtype)),
        Operator::Elementwise { bytes } => {
            let work = Work {
                operations: 0.0,
                bytes,
                dtype: DType::Bfloat16,
            };
            Some((work, ELEMENTWISE))
        }
        _ => attention(operator)
            .or_else(|| latent_attention(operator))
            .or_else(|| experts(operator))
            .or_else(|| gated_delta_net(operator)),
    }
}

fn gemm(m: u32, n: u32, k: u32, dtype: DType) -> (Work, Efficiency) {
    let (m, n, k) = (f64::from(m), f64::from(n), f64::from(k));
    // Weight-only formats multiply 16-bit activations.
    let activation_bytes = if dtype.is_weight_only() {
        2.0
    } else {
        dtype.bytes().max(1.0)
    };
    let work = Work {
        operations: 2.0 * m * n * k,
        bytes: m * k * activation_bytes + n * k * dtype.bytes() + 2.0 * m * n,
        dtype,
    };
    let efficiency = match dtype {
        DType::Fp8Block => GEMM_8_BIT_BLOCK,
        narrow if is_8_bit(narrow) => GEMM_8_BIT,
        _ => GEMM_16_BIT,
    };
    (work, efficiency)
}

fn attention(operator: &Operator) -> Option<(Work, Efficiency)> {
    match *operator {
        Operator::ContextAttention {
            batch,
            new_tokens,
            prefix_tokens,
            heads,
            kv_heads,
            head_dim,
            kv_dtype,
        } => {
            let width = f64::from(batch) * f64::from(head_dim);
            let (new, full) = (
                f64::from(new_tokens),
                f64::from(new_tokens) + f64::from(prefix_tokens),
            );
            let kv_bytes = 2.0 * full * f64::from(kv_heads) * kv_dtype.bytes();
            let query_bytes = 2.0 * 2.0 * new * f64::from(heads);
            let work = Work {
                operations: 4.0
                    * width
                    * f64::from(heads)
                    * attended_pairs(new_tokens, prefix_tokens),
                bytes: width * (kv_bytes + query_bytes),
                dtype: DType::Bfloat16,
            };
            let efficiency = if is_8_bit(kv_dtype) {
                CONTEXT_ATTENTION_8_BIT
            } else {
                CONTEXT_ATTENTION
            };
            Some((work, efficiency))
        }
        Operator::LocalContextAttention {
            batch,
            new_tokens,
            prefix_tokens,
            heads,
            kv_heads,
            head_dim,
            kv_dtype,
            reach,
            reach_tokens,
        } => {
            let width = f64::from(batch) * f64::from(head_dim);
            let local = LocalAttention {
                reach,
                tokens: reach_tokens,
                full_attention_interval: 0,
                full_attention_layers: Vec::new(),
            };
            let new = f64::from(new_tokens);
            // Of what is cached, no more than the first new token looks back to.
            let read = new + f64::from(prefix_tokens.min(reach_tokens));
            let kv_bytes = 2.0 * read * f64::from(kv_heads) * kv_dtype.bytes();
            let query_bytes = 2.0 * 2.0 * new * f64::from(heads);
            let pairs = local.attended_pairs(new_tokens, prefix_tokens);
            let work = Work {
                operations: 4.0 * width * f64::from(heads) * pairs,
                bytes: width * (kv_bytes + query_bytes),
                dtype: DType::Bfloat16,
            };
            let efficiency = if is_8_bit(kv_dtype) {
                CONTEXT_ATTENTION_8_BIT
            } else {
                CONTEXT_ATTENTION
            };
            Some((work, efficiency))
        }
        Operator::GenerationAttention {
            batch,
            kv_tokens,
            heads,
            kv_heads,
            head_dim,
            kv_dtype,
        } => {
            let width = f64::from(batch) * f64::from(head_dim);
            let work = Work {
                operations: 4.0 * width * f64::from(heads) * kv_tokens,
                bytes: width
                    * (2.0 * kv_tokens * f64::from(kv_heads) * kv_dtype.bytes()
                        + 4.0 * f64::from(heads)),
                dtype: DType::Bfloat16,
            };
            let efficiency = if is_8_bit(kv_dtype) {
                GENERATION_ATTENTION_8_BIT
            } else {
                GENERATION_ATTENTION
            };
            Some((work, efficiency))
        }
        _ => None,
    }
}

/// Query-key pairs of one causal prompt chunk.
fn attended_pairs(new_tokens: u32, prefix_tokens: u32) -> f64 {
    let (new, prefix) = (f64::from(new_tokens), f64::from(prefix_tokens));
    new * prefix + 0.5 * new * new
}

/// Operations per query-key pair of latent attention: expanded keys and values.
fn expanded_pair(widths: &LatentWidths, heads: u32) -> f64 {
    let per_head = widths.qk_nope_head_dim + widths.qk_rope_head_dim + widths.v_head_dim;
    2.0 * f64::from(heads * per_head)
}

/// The same in absorbed form: every head reads the compressed cache.
fn absorbed_pair(widths: &LatentWidths, heads: u32) -> f64 {
    2.0 * f64::from(heads * (2 * widths.kv_lora_rank + widths.qk_rope_head_dim))
}

/// Elements of one token in the compressed cache.
fn compressed(widths: &LatentWidths) -> f64 {
    f64::from(widths.kv_lora_rank + widths.qk_rope_head_dim)
}

fn latent_attention(operator: &Operator) -> Option<(Work, Efficiency)> {
    match *operator {
        Operator::MlaContext {
            batch,
            new_tokens,
            prefix_tokens,
            heads,
            widths,
            dtype,
            kv_dtype,
        } => {
            let batch = f64::from(batch);
            let tokens = batch * f64::from(new_tokens);
            let projections = widths.projections(heads).elements();
            let scores = expanded_pair(&widths, heads);
            let cached = batch * (f64::from(new_tokens) + f64::from(prefix_tokens));
            let work = Work {
                operations: 2.0 * tokens * projections
                    + batch * scores * attended_pairs(new_tokens, prefix_tokens),
                bytes: projections * dtype.bytes()
                    + cached * compressed(&widths) * kv_dtype.bytes()
                    + tokens * 4.0 * f64::from(widths.hidden_size),
                // Attention itself runs in 16 bits, and dominates.
                dtype: DType::Bfloat16,
            };
            Some((work, MLA_CONTEXT))
        }
        Operator::MlaGeneration {
            batch,
            kv_tokens,
            heads,
            widths,
            dtype,
            kv_dtype,
        } => {
            let batch = f64::from(batch);
            let projections = widths.projections(heads).elements();
            let scores = absorbed_pair(&widths, heads);
            let work = Work {
                operations: batch * (2.0 * projections + scores * kv_tokens),
                bytes: projections * dtype.bytes()
                    + batch * kv_tokens * compressed(&widths) * kv_dtype.bytes(),
                dtype: kv_dtype,
            };
            Some((work, MLA_GENERATION))
        }
        _ => None,
    }
}

fn experts(operator: &Operator) -> Option<(Work, Efficiency)> {
    let (work, dtype) = expert_work(operator)?;
    let efficiency = if is_8_bit(dtype) {
        EXPERTS_8_BIT
    } else {
        EXPERTS_16_BIT
    };
    Some((work, efficiency))
}

/// Work of the routed experts on the busiest GPU, and their format.
fn expert_work(operator: &Operator) -> Option<(Work, DType)> {
    let Operator::MoeExperts {
        tokens,
        hidden_size,
        intermediate_size,
        experts_per_token,
        experts,
        expert_tensor_parallel,
        expert_parallel,
        dtype,
        load,
        ..
    } = *operator
    else {
        return None;
    };
    let local_experts = f64::from(experts) / f64::from(expert_parallel);
    let visits = load.busiest_factor(experts, experts_per_token, expert_parallel)
        * f64::from(tokens)
        * f64::from(experts_per_token)
        / f64::from(expert_parallel);
    let expert_elements = 3.0 * f64::from(hidden_size) * f64::from(intermediate_size)
        / f64::from(expert_tensor_parallel);
    let miss = 1.0 - f64::from(experts_per_token) / f64::from(experts);
    let visited_experts = local_experts * (1.0 - miss.powi(narrow::<i32, _>(tokens.min(1 << 20))));
    let work = Work {
        operations: 2.0 * visits * expert_elements,
        bytes: visited_experts * expert_elements * dtype.bytes()
            + visits * 4.0 * f64::from(hidden_size),
        dtype,
    };
    Some((work, dtype))
}

fn gated_delta_net(operator: &Operator) -> Option<(Work, Efficiency)> {
    let Operator::GatedDeltaNet {
        prefill,
        batch,
        new_tokens,
        key_heads,
        value_heads,
        key_head_dim,
        value_head_dim,
    } = *operator
    else {
        return None;
    };
    let tokens = f64::from(batch) * f64::from(new_tokens);
    let key_width = f64::from(key_heads) * f64::from(key_head_dim);
    let value_width = f64::from(value_heads) * f64::from(value_head_dim);
    let state = value_width * f64::from(key_head_dim);
    let work = Work {
        // Decay and rank-one update of the state, and its product with the query.
        operations: 6.0 * tokens * state,
        // Convolution and recurrence each read and write their operands; the
        // 32-bit state is read and written once per sequence.
        bytes: 2.0 * 2.0 * tokens * (2.0 * key_width + 2.0 * value_width)
            + 8.0 * f64::from(batch) * state,
        dtype: DType::Bfloat16,
    };
    let efficiency = if prefill {
        GATED_DELTA_NET_PREFILL
    } else {
        GATED_DELTA_NET_DECODE
    };
    Some((work, efficiency))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::catalog::{PeakFlops, PriceBasis};
    use crate::execution_time::operator::{ExpertLoad, ExpertTokens};
    use crate::network::LinkOverrides;

    /// Figures of an H200, without the catalog.
    pub(in crate::execution_time) fn h200() -> DeviceSpec {
        DeviceSpec {
            name: "h200".into(),
            aliases: vec![],
            sources: vec![],
            peak_tflops: PeakFlops {
                bfloat16: 989.0,
                fp8: Some(1978.0),
                int8: Some(1978.0),
                nvfp4: None,
            },
            memory_bytes: 151_397_597_184,
            memory_bandwidth_gb_per_s: 4800.0,
            nvlink_bandwidth_gbps: 3600.0,
            pcie_bandwidth_gbps: 512.0,
            nic_bandwidth_gbps: 400.0,
            gpus_per_node: 8,
            power_w: 700.0,
            price_usd_per_hour: 3.5,
            price_basis: PriceBasis::Derived,
            kernels_of: None,
        }
    }

    fn roofline() -> Roofline {
        let device = h200();
        let links = Links::new(&device, 8, &LinkOverrides::default());
        Roofline::new(&device, links)
    }

    #[test]
    fn memory_bound_kernels_follow_the_stated_formula() {
        let time_s = roofline().time_s(&Operator::Elementwise { bytes: 4.8e9 });
        assert!((time_s - (3e-6 + 4.8e9 / (0.8 * 4.8e12))).abs() < 1e-12);
    }

    #[test]
    fn a_large_gemm_is_compute_bound_and_a_small_one_weight_bound() {
        let gemm = |tokens| Operator::Gemm {
            tokens,
            out_features: 8192,
            in_features: 8192,
            dtype: DType::Bfloat16,
        };
        let roofline = roofline();
        let large = roofline.time_s(&gemm(16384));
        let operations = 2.0 * 16384.0 * 8192.0 * 8192.0;
        assert!((large - 3.8e-6 - operations / (0.76 * 989e12)).abs() < 1e-9);
        let one = roofline.time_s(&gemm(1));
        let two = roofline.time_s(&gemm(2));
        assert!(two / one < 1.01, "weights dominate: {one} {two}");
    }

    #[test]
    fn a_prefix_adds_its_attention() {
        let chunk = |prefix_tokens| Operator::ContextAttention {
            batch: 1,
            new_tokens: 4096,
            prefix_tokens,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            kv_dtype: DType::Bfloat16,
        };
        let roofline = roofline();
        let ratio = (roofline.time_s(&chunk(4096)) - 13e-6) / (roofline.time_s(&chunk(0)) - 13e-6);
        assert!((ratio - 3.0).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn every_operator_of_every_class_has_a_positive_time() {
        let roofline = roofline();
        let operators = [
            Operator::MlaGeneration {
                batch: 4,
                kv_tokens: 100.0,
                heads: 16,
                widths: LatentWidths::DEEPSEEK_V3,
                dtype: DType::Fp8Block,
                kv_dtype: DType::Fp8,
            },
            Operator::MoeExperts {
                tokens: 8,
                hidden_size: 7168,
                intermediate_size: 2048,
                experts_per_token: 8,
                experts: 256,
                expert_tensor_parallel: 1,
                expert_parallel: 8,
                dtype: DType::Fp8Block,
                load: ExpertLoad::PowerLaw { alpha: 1.01 },
                arrival: ExpertTokens::Gathered,
            },
            Operator::GatedDeltaNet {
                prefill: true,
                batch: 1,
                new_tokens: 512,
                key_heads: 16,
                value_heads: 32,
                key_head_dim: 128,
                value_head_dim: 128,
            },
            Operator::AllReduce {
                bytes: 1e6,
                gpus: 4,
            },
        ];
        for operator in operators {
            let price = roofline.price(&operator).unwrap();
            assert!(price.time_s > 0.0 && price.time_s < 1.0, "{operator:?}");
            assert_eq!(
                price.provenance,
                Provenance::Roofline {
                    reason: "backend roofline".into()
                }
            );
        }
    }
}
