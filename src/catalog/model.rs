//! A model's architecture: everything that parameter counts, KV cache sizes and
//! operator shapes follow from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::DType;

/// Architecture of one model, as in its published `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name used in specs, e.g. `deepseek-671B`.
    pub name: String,
    /// Other spellings that resolve to this model (compared case-insensitively).
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where the figures come from.
    pub source: String,
    /// Transformer layers, without multi-token-prediction layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Entries of the (unpadded) vocabulary.
    pub vocab_size: u32,
    /// Longest supported sequence, prompt and output together, with what rope
    /// scaling adds; tokens.
    pub max_position_tokens: u32,
    /// Softmax attention of the layers that have it.
    pub attention: Attention,
    /// Linear attention of the other layers, for hybrid models.
    #[serde(default)]
    pub linear_attention: Option<LinearAttention>,
    /// Intermediate size of the dense MLP (of the dense layers, in a MoE model).
    pub intermediate_size: u32,
    /// Whether the MLP has a gate projection (SwiGLU); `false`: up and down only.
    #[serde(default = "yes")]
    pub gated_mlp: bool,
    /// Mixture of experts, if any.
    #[serde(default)]
    pub moe: Option<Moe>,
    /// Norms per layer that read and write the residual stream: 2, or 1 for
    /// parallel attention/MLP blocks (phi-2).
    #[serde(default = "two")]
    pub norms_per_layer: u32,
    /// LayerNorm with bias (two vectors) instead of RMSNorm (one vector).
    #[serde(default)]
    pub layer_norm_bias: bool,
    /// Whether linear projections carry biases (all of them; phi-2).
    #[serde(default)]
    pub projection_bias: bool,
    /// Whether embedding and LM head share one matrix.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Multi-token-prediction layers shipped with the weights.
    #[serde(default)]
    pub mtp_layers: u32,
    /// Format the published weights are served in by default.
    pub dtype: DType,
    /// Default format of the KV cache.
    pub kv_cache_dtype: DType,
    /// Published total parameters, in billions (for checks; not used in pricing);
    /// 0: not known.
    pub published_parameters_b: f64,
}

/// Softmax attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Attention {
    /// Multi-head (`kv_heads == heads`), grouped-query or multi-query attention.
    Gqa {
        /// Query heads.
        heads: u32,
        /// Key/value heads.
        kv_heads: u32,
        /// Width of one head.
        head_dim: u32,
        /// Whether queries and keys are normalised per head (Qwen3).
        #[serde(default)]
        qk_norm: bool,
        /// Whether Q, K, V projections carry a bias (Qwen-1).
        #[serde(default)]
        qkv_bias: bool,
        /// Whether the attention output is gated by a projection of the input
        /// as wide as the queries (Qwen3-Next).
        #[serde(default)]
        output_gate: bool,
    },
    /// Multi-head latent attention (DeepSeek).
    Mla {
        /// Query heads.
        heads: u32,
        /// Rank of the query down-projection.
        q_lora_rank: u32,
        /// Rank of the compressed KV (what is cached).
        kv_lora_rank: u32,
        /// Non-rotary part of a query/key head.
        qk_nope_head_dim: u32,
        /// Rotary part of a query/key head; cached once per token.
        qk_rope_head_dim: u32,
        /// Width of a value head.
        v_head_dim: u32,
    },
}

/// Elements of the projections of one latent-attention block on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentProjections {
    /// Down-projections of queries and of keys and values; no heads, so every
    /// rank holds them whole.
    pub down: f64,
    /// Up-projection of the queries.
    pub query_up: f64,
    /// Up-projection of keys and values.
    pub key_value_up: f64,
    /// Output projection.
    pub output: f64,
}

impl LatentProjections {
    /// All of them.
    pub fn elements(&self) -> f64 {
        self.down + self.query_up + self.key_value_up + self.output
    }
}

impl Attention {
    /// Projections of a latent-attention block whose heads are cut `tp` ways;
    /// none for other attention.
    pub fn latent_projections(&self, hidden_size: u32, tp: u32) -> Option<LatentProjections> {
        let Self::Mla {
            heads,
            q_lora_rank,
            kv_lora_rank,
            qk_nope_head_dim,
            qk_rope_head_dim,
            v_head_dim,
        } = *self
        else {
            return None;
        };
        let hidden = f64::from(hidden_size);
        let heads = f64::from(heads) / f64::from(tp);
        let (q_rank, kv_rank) = (f64::from(q_lora_rank), f64::from(kv_lora_rank));
        let (nope, rope) = (f64::from(qk_nope_head_dim), f64::from(qk_rope_head_dim));
        let value = f64::from(v_head_dim);
        Some(LatentProjections {
            down: hidden * (q_rank + kv_rank + rope),
            query_up: q_rank * heads * (nope + rope),
            key_value_up: kv_rank * heads * (nope + value),
            output: heads * value * hidden,
        })
    }

    /// Query heads.
    pub fn heads(&self) -> u32 {
        match self {
            Self::Gqa { heads, .. } | Self::Mla { heads, .. } => *heads,
        }
    }
}

/// Gated delta net layers of a hybrid model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearAttention {
    /// Every n-th layer (the last of each group of n) has softmax attention.
    pub full_attention_interval: u32,
    /// Key (and query) heads.
    pub key_heads: u32,
    /// Value heads.
    pub value_heads: u32,
    /// Width of a key head.
    pub key_head_dim: u32,
    /// Width of a value head.
    pub value_head_dim: u32,
    /// Taps of the short convolution.
    pub conv_kernel: u32,
}

/// Mixture-of-experts layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moe {
    /// Routed experts.
    pub experts: u32,
    /// Routed experts each token visits.
    pub experts_per_token: u32,
    /// Intermediate size of one routed expert.
    pub intermediate_size: u32,
    /// Intermediate size of all shared experts together; 0: none.
    #[serde(default)]
    pub shared_intermediate_size: u32,
    /// Whether the shared expert's output is scaled by a learned gate.
    #[serde(default)]
    pub shared_expert_gate: bool,
    /// Leading layers with a dense MLP instead of experts.
    #[serde(default)]
    pub first_dense_layers: u32,
    /// Expert groups of node-limited routing; 1: none.
    #[serde(default = "one")]
    pub expert_groups: u32,
    /// Groups a token may visit.
    #[serde(default = "one")]
    pub groups_per_token: u32,
}

fn yes() -> bool {
    true
}
fn one() -> u32 {
    1
}
fn two() -> u32 {
    2
}

impl ModelSpec {
    /// Whether `layer` (0-based) has softmax attention.
    pub fn is_full_attention_layer(&self, layer: u32) -> bool {
        self.linear_attention
            .as_ref()
            .is_none_or(|l| layer % l.full_attention_interval == l.full_attention_interval - 1)
    }

    /// Whether `layer` (0-based) has routed experts.
    pub fn is_moe_layer(&self, layer: u32) -> bool {
        self.moe
            .as_ref()
            .is_some_and(|m| layer >= m.first_dense_layers)
    }

    /// Layers of pipeline stage `stage` out of `stages`, as `[start, end)`.
    /// Uneven splits give the earlier stages one layer more.
    pub fn stage_layers(&self, stage: u32, stages: u32) -> std::ops::Range<u32> {
        let (base, extra) = (self.layers / stages, self.layers % stages);
        let start = stage * base + stage.min(extra);
        start..start + base + u32::from(stage < extra)
    }
}
