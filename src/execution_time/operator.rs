//! Operators as kernels see them: shapes after sharding, on one GPU.

use serde::Serialize;

use super::expert_load::power_law_factor;
use crate::catalog::{Attention, LatentProjections, LocalReach};
use crate::network::ExpertExchange;
use crate::units::DType;

/// One kernel or collective on one GPU, shapes after sharding.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operator {
    /// `tokens x in_features` times `in_features x out_features`.
    Gemm {
        /// Rows (m).
        tokens: u32,
        /// Columns of the result (n).
        out_features: u32,
        /// Contraction length (k).
        in_features: u32,
        /// Format of the operands.
        dtype: DType,
    },
    /// Causal self-attention of prompt chunks.
    ContextAttention {
        /// Sequences.
        batch: u32,
        /// New tokens of each.
        new_tokens: u32,
        /// Tokens of each already cached.
        prefix_tokens: u32,
        /// Query heads on this GPU.
        heads: u32,
        /// KV heads on this GPU.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Format of the KV cache.
        kv_dtype: DType,
    },
    /// Causal self-attention of prompt chunks that does not look back to the start.
    LocalContextAttention {
        /// Sequences.
        batch: u32,
        /// New tokens of each.
        new_tokens: u32,
        /// Tokens of each already seen.
        prefix_tokens: u32,
        /// Query heads on this GPU.
        heads: u32,
        /// KV heads on this GPU.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Format of the KV cache.
        kv_dtype: DType,
        /// How far back a token looks.
        reach: LocalReach,
        /// Tokens of the window or chunk.
        reach_tokens: u32,
    },
    /// Attention of one new token per sequence.
    GenerationAttention {
        /// Sequences.
        batch: u32,
        /// Mean length of the KV cache read, the new token included.
        kv_tokens: f64,
        /// Query heads on this GPU.
        heads: u32,
        /// KV heads on this GPU.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Format of the KV cache.
        kv_dtype: DType,
    },
    /// Whole multi-head latent attention block (projections, rotary, attention,
    /// output projection) over prompt chunks.
    MlaContext {
        /// Sequences.
        batch: u32,
        /// New tokens of each.
        new_tokens: u32,
        /// Tokens of each already cached.
        prefix_tokens: u32,
        /// Query heads on this GPU.
        heads: u32,
        /// Widths of the block.
        #[serde(skip_serializing_if = "LatentWidths::are_deepseek_v3")]
        widths: LatentWidths,
        /// Format of the projections.
        dtype: DType,
        /// Format of the KV cache.
        kv_dtype: DType,
    },
    /// The same for one new token per sequence.
    MlaGeneration {
        /// Sequences.
        batch: u32,
        /// Mean length of the KV cache read, the new token included.
        kv_tokens: f64,
        /// Query heads on this GPU.
        heads: u32,
        /// Widths of the block.
        #[serde(skip_serializing_if = "LatentWidths::are_deepseek_v3")]
        widths: LatentWidths,
        /// Format of the projections.
        dtype: DType,
        /// Format of the KV cache.
        kv_dtype: DType,
    },
    /// Routed experts of one layer (grouped GEMMs, activation), on the GPU with
    /// the most work.
    MoeExperts {
        /// Tokens routed, of all attention ranks together.
        tokens: u32,
        /// Width of the residual stream.
        hidden_size: u32,
        /// Intermediate size of one expert, before cutting.
        intermediate_size: u32,
        /// Experts a token visits.
        experts_per_token: u32,
        /// Experts of the layer.
        experts: u32,
        /// Ways each expert is cut.
        expert_tensor_parallel: u32,
        /// Ways the experts are spread.
        expert_parallel: u32,
        /// Format of the experts' weights.
        dtype: DType,
        /// How unevenly tokens spread over experts.
        load: ExpertLoad,
        /// How tokens come to the GPU.
        arrival: ExpertTokens,
    },
    /// Gated delta net kernels (convolution and recurrence, without projections).
    GatedDeltaNet {
        /// Prompt chunks (`true`) or one token per sequence.
        prefill: bool,
        /// Sequences.
        batch: u32,
        /// New tokens of each sequence.
        new_tokens: u32,
        /// Key heads on this GPU.
        key_heads: u32,
        /// Value heads on this GPU.
        value_heads: u32,
        /// Width of a key head.
        key_head_dim: u32,
        /// Width of a value head.
        value_head_dim: u32,
    },
    /// Memory-bound kernel: norm, activation, residual, rotary, embedding look-up.
    Elementwise {
        /// Bytes read and written.
        bytes: f64,
    },
    /// Sum over a tensor-parallel group, every rank gets the result.
    AllReduce {
        /// Bytes of the tensor on each rank.
        bytes: f64,
        /// Ranks.
        gpus: u32,
    },
    /// Every rank gets all parts.
    AllGather {
        /// Bytes of the gathered result.
        bytes: f64,
        /// Ranks.
        gpus: u32,
    },
    /// Sum over ranks, each keeps its part.
    ReduceScatter {
        /// Bytes of the tensor before scattering.
        bytes: f64,
        /// Ranks.
        gpus: u32,
    },
    /// Tokens to the GPUs of their experts.
    ExpertDispatch {
        /// Tokens of one rank.
        tokens_per_rank: u32,
        /// Width of the residual stream.
        hidden_size: u32,
        /// Experts a token visits.
        experts_per_token: u32,
        /// Experts of the layer.
        experts: u32,
        /// Ranks.
        expert_parallel: u32,
        /// Bytes per element sent.
        element_bytes: f64,
        /// Low-latency (decode) or throughput (prefill) kernels.
        low_latency: bool,
    },
    /// Expert results back to their tokens.
    ExpertCombine {
        /// Tokens of one rank.
        tokens_per_rank: u32,
        /// Width of the residual stream.
        hidden_size: u32,
        /// Experts a token visits.
        experts_per_token: u32,
        /// Experts of the layer.
        experts: u32,
        /// Ranks.
        expert_parallel: u32,
        /// Bytes per element sent.
        element_bytes: f64,
        /// Low-latency (decode) or throughput (prefill) kernels.
        low_latency: bool,
    },
    /// Activations to the next pipeline stage.
    SendRecv {
        /// Bytes.
        bytes: f64,
        /// Whether the two GPUs sit in different nodes.
        across_nodes: bool,
    },
    /// One kind of part of all layers of a stage, measured as a whole (AICB), or a term
    /// of a closed form.
    LayerParts {
        /// Prompt chunks (`true`) or one token per sequence.
        prefill: bool,
        /// Sequences.
        batch: u32,
        /// Tokens of each prompt, or of the step.
        tokens: u32,
    },
    /// Host time of the step (scheduling, kernel launches, sampling).
    Host {
        /// Requests in the step.
        requests: u32,
    },
}

impl Operator {
    /// Whether GPUs send to one another.
    pub const fn is_communication(&self) -> bool {
        matches!(
            self,
            Self::AllReduce { .. }
                | Self::AllGather { .. }
                | Self::ReduceScatter { .. }
                | Self::ExpertDispatch { .. }
                | Self::ExpertCombine { .. }
        )
    }

    /// The exchange between the GPUs of experts, if it is one. `groups` are those
    /// of a node-limited router.
    pub fn exchange(&self, groups: (u32, u32)) -> Option<ExpertExchange> {
        match *self {
            Self::ExpertDispatch {
                tokens_per_rank,
                hidden_size,
                experts_per_token,
                experts,
                expert_parallel,
                element_bytes,
                low_latency,
            }
            | Self::ExpertCombine {
                tokens_per_rank,
                hidden_size,
                experts_per_token,
                experts,
                expert_parallel,
                element_bytes,
                low_latency,
            } => Some(ExpertExchange {
                tokens_per_rank,
                token_bytes: f64::from(hidden_size) * element_bytes,
                experts_per_token,
                experts,
                ranks: expert_parallel,
                low_latency,
                combine: matches!(self, Self::ExpertCombine { .. }),
                groups,
            }),
            _ => None,
        }
    }
}

/// Widths of a latent-attention block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LatentWidths {
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Rank of the query down-projection; 0: none.
    pub q_lora_rank: u32,
    /// Rank of the compressed KV.
    pub kv_lora_rank: u32,
    /// Non-rotary part of a query/key head.
    pub qk_nope_head_dim: u32,
    /// Rotary part of a query/key head.
    pub qk_rope_head_dim: u32,
    /// Width of a value head.
    pub v_head_dim: u32,
}

impl LatentWidths {
    /// Those that latent attention was measured with.
    pub const DEEPSEEK_V3: Self = Self {
        hidden_size: 7168,
        q_lora_rank: 1536,
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
    };

    /// Whether they are DeepSeek-V3's.
    pub fn are_deepseek_v3(&self) -> bool {
        *self == Self::DEEPSEEK_V3
    }

    /// The projections of a block with so many heads.
    pub fn projections(&self, heads: u32) -> LatentProjections {
        let block = Attention::Mla {
            heads,
            q_lora_rank: self.q_lora_rank,
            kv_lora_rank: self.kv_lora_rank,
            qk_nope_head_dim: self.qk_nope_head_dim,
            qk_rope_head_dim: self.qk_rope_head_dim,
            v_head_dim: self.v_head_dim,
        };
        // Latent attention has latent projections.
        let none = LatentProjections {
            down: 0.0,
            query_up: 0.0,
            key_value_up: 0.0,
            output: 0.0,
        };
        (block.latent_projections(self.hidden_size, 1)).unwrap_or(none)
    }
}

/// How unevenly tokens spread over experts.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertLoad {
    /// Every expert gets the same.
    Balanced,
    /// Expert popularity falls as rank^-alpha.
    PowerLaw {
        /// Exponent.
        alpha: f64,
    },
    /// The GPU with the most work gets so many times its even share.
    Uneven {
        /// At least 1.
        factor: f64,
    },
}

impl ExpertLoad {
    /// Work of the GPU with the most, in even shares, when a layer's experts are
    /// spread over `gpus`.
    pub fn busiest_factor(self, experts: u32, experts_per_token: u32, gpus: u32) -> f64 {
        match self {
            Self::Balanced => 1.0,
            Self::PowerLaw { alpha } => {
                power_law_factor(alpha, experts, experts_per_token, gpus, 0)
            }
            Self::Uneven { factor } => factor.max(1.0),
        }
    }
}

/// How tokens come to the GPUs of their experts, which decides what kernels have to
/// handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertTokens {
    /// Every GPU has all tokens of the group.
    Gathered,
    /// A GPU gets those that visit it, one after the other.
    Sent,
    /// The same in a buffer for each expert (low latency, decodes).
    SentLowLatency,
}

/// A time and how it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// Seconds for one run.
    pub time_s: f64,
    /// How it was found.
    pub provenance: Provenance,
}

/// How a price came about, best first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Provenance {
    /// A measured point, as it stands.
    Measured,
    /// Between measured points.
    Interpolated,
    /// Beyond the measured points, at the utilisation of the nearest ones.
    Extrapolated,
    /// Measured for something else and scaled; `from` says what.
    Substituted {
        /// What was measured.
        from: String,
    },
    /// Found as said, but so much slower than the bound of peak arithmetic and memory
    /// bandwidth that it should not be trusted.
    Doubtful {
        /// How it was found.
        found: Box<Provenance>,
        /// Times the bound.
        times_bound: u32,
    },
    /// A stated formula over device figures (norms, links, host overhead).
    Formula,
    /// Peak figures of the device; `reason` says why nothing measured was used.
    Roofline {
        /// Why.
        reason: String,
    },
    /// Nothing to do (a collective of one rank).
    Nothing,
}

/// Why an operator could not be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operator}: {reason}")]
pub struct PricingError {
    /// The operator, short.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// A source of operator prices. Pure; shared by threads.
pub trait OperatorCost: Send + Sync {
    /// Price of one run of `operator`.
    ///
    /// # Errors
    /// If the source has nothing to say about such an operator; the caller
    /// decides what stands in and says so in the provenance.
    fn price(&self, operator: &Operator) -> Result<Price, PricingError>;
}
