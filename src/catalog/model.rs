//! A model's architecture: everything that parameter counts, KV cache sizes and
//! operator shapes follow from.

use std::ops::Range;

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
    /// Softmax attention that does not look back to the start, of some or all layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_attention: Option<LocalAttention>,
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
    /// Parameters of a vision tower and its projector, which engines load and text does not
    /// visit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vision_parameters: f64,
    /// Format the published weights are served in by default.
    pub dtype: DType,
    /// Formats of classes of weights that differ from `dtype`.
    #[serde(default, skip_serializing_if = "ClassFormats::is_empty")]
    pub dtype_of: ClassFormats,
    /// Default format of the KV cache.
    pub kv_cache_dtype: DType,
    /// Published total parameters, in billions (for checks; not used in pricing);
    /// 0: not known.
    pub published_parameters_b: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(parameters: &f64) -> bool {
    *parameters == 0.0
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
        /// Whether the output projection carries a bias too (gpt-oss).
        #[serde(default, skip_serializing_if = "is_false")]
        output_bias: bool,
        /// Whether every head has a learned score that stands for no token
        /// (attention sinks, gpt-oss).
        #[serde(default, skip_serializing_if = "is_false")]
        sinks: bool,
    },
    /// Multi-head latent attention (DeepSeek).
    Mla {
        /// Query heads.
        heads: u32,
        /// Rank of the query down-projection; 0: queries are projected at once
        /// (DeepSeek-V2-Lite).
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
        let query_from = if q_lora_rank > 0 { q_rank } else { hidden };
        Some(LatentProjections {
            down: hidden * (q_rank + kv_rank + rope),
            query_up: query_from * heads * (nope + rope),
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

/// Softmax attention that does not look back to the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalAttention {
    /// How far back a token looks.
    #[serde(rename = "type")]
    pub reach: LocalReach,
    /// Tokens of the window, its own included, or of a chunk.
    pub tokens: u32,
    /// Every n-th layer (the last of each group of n) looks back to the start; 0:
    /// those of `full_attention_layers` do.
    #[serde(default)]
    pub full_attention_interval: u32,
    /// Layers (counted from 0) that look back to the start, where no interval says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_attention_layers: Vec<u32>,
}

/// How far back a token looks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LocalReach {
    /// Over the last so many tokens (Mistral, Gemma, gpt-oss).
    SlidingWindow,
    /// To the start of its chunk of so many tokens (Llama 4).
    Chunked,
}

impl LocalAttention {
    /// Keys a token reads when it and those before it are `tokens`, on average over
    /// the tokens of a chunk beyond the first.
    pub fn keys_read(&self, tokens: f64) -> f64 {
        let most = f64::from(self.tokens);
        match self.reach {
            LocalReach::SlidingWindow => tokens.min(most),
            LocalReach::Chunked if tokens <= most => tokens,
            LocalReach::Chunked => (most + 1.0) / 2.0,
        }
    }

    /// Query-key pairs of `new_tokens` after `prefix_tokens`.
    pub fn attended_pairs(&self, new_tokens: u32, prefix_tokens: u32) -> f64 {
        let size = f64::from(self.tokens);
        let triangle = |tokens: f64| tokens * (tokens + 1.0) / 2.0;
        let up_to = |tokens: f64| match self.reach {
            LocalReach::SlidingWindow => {
                triangle(tokens.min(size)) + (tokens - size).max(0.0) * size
            }
            LocalReach::Chunked => {
                let chunks = (tokens / size).floor();
                chunks * triangle(size) + triangle(tokens - chunks * size)
            }
        };
        let prefix = f64::from(prefix_tokens);
        up_to(prefix + f64::from(new_tokens)) - up_to(prefix)
    }
}

/// Formats of classes of weights; absent: the model's `dtype`. Embeddings, LM head,
/// norms and routers keep 16 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassFormats {
    /// Projections of attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<DType>,
    /// Dense MLPs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_mlp: Option<DType>,
    /// Routed experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed_experts: Option<DType>,
    /// Shared experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_experts: Option<DType>,
}

impl ClassFormats {
    /// All as the model's `dtype`.
    pub const NONE: Self = Self {
        attention: None,
        dense_mlp: None,
        routed_experts: None,
        shared_experts: None,
    };

    /// Whether none differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// That of a class, if it differs.
    pub fn get(&self, class: WeightClass) -> Option<DType> {
        match class {
            WeightClass::Attention => self.attention,
            WeightClass::DenseMlp => self.dense_mlp,
            WeightClass::RoutedExperts => self.routed_experts,
            WeightClass::SharedExperts => self.shared_experts,
        }
    }

    /// Sets that of a class.
    pub(super) fn set(&mut self, class: WeightClass, dtype: DType) {
        let place = match class {
            WeightClass::Attention => &mut self.attention,
            WeightClass::DenseMlp => &mut self.dense_mlp,
            WeightClass::RoutedExperts => &mut self.routed_experts,
            WeightClass::SharedExperts => &mut self.shared_experts,
        };
        *place = Some(dtype);
    }
}

/// Weights that checkpoints quantise together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightClass {
    /// Projections of attention, linear ones included.
    Attention,
    /// Dense MLPs.
    DenseMlp,
    /// Routed experts.
    RoutedExperts,
    /// Shared experts.
    SharedExperts,
}

impl WeightClass {
    /// Every class, as they are numbered.
    pub const ALL: [Self; 4] = [
        Self::Attention,
        Self::DenseMlp,
        Self::RoutedExperts,
        Self::SharedExperts,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::DenseMlp => "dense MLP",
            Self::RoutedExperts => "routed experts",
            Self::SharedExperts => "shared experts",
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
    /// Every n-th layer (the last of each group of n) has experts, the others a dense
    /// MLP (Llama 4 Maverick: 2).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_interval: u32,
    /// More layers (counted from 0) with a dense MLP instead of experts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense_layers: Vec<u32>,
    /// Whether the projections of routed experts and the router carry biases (gpt-oss).
    #[serde(default, skip_serializing_if = "is_false")]
    pub bias: bool,
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
fn is_one(value: &u32) -> bool {
    *value == 1
}
fn is_false(value: &bool) -> bool {
    !value
}
fn two() -> u32 {
    2
}

impl ModelSpec {
    /// Whether `layer` (0-based) has softmax attention, to the start or not.
    pub fn is_softmax_attention_layer(&self, layer: u32) -> bool {
        self.linear_attention
            .as_ref()
            .is_none_or(|l| layer % l.full_attention_interval == l.full_attention_interval - 1)
    }

    /// Whether `layer` (0-based) has softmax attention that does not look back to the
    /// start.
    pub fn is_local_attention_layer(&self, layer: u32) -> bool {
        let looks_back = |local: &LocalAttention| match local.full_attention_interval {
            0 => local.full_attention_layers.contains(&layer),
            interval => layer % interval == interval - 1,
        };
        self.is_softmax_attention_layer(layer)
            && (self.local_attention.as_ref()).is_some_and(|local| !looks_back(local))
    }

    /// Whether `layer` (0-based) has softmax attention that looks back to the start.
    pub fn is_full_attention_layer(&self, layer: u32) -> bool {
        self.is_softmax_attention_layer(layer) && !self.is_local_attention_layer(layer)
    }

    /// Whether `layer` (0-based) has routed experts.
    #[inline]
    pub fn is_moe_layer(&self, layer: u32) -> bool {
        self.moe.as_ref().is_some_and(|moe| {
            layer >= moe.first_dense_layers
                && layer % moe.layer_interval == moe.layer_interval - 1
                && !moe.dense_layers.contains(&layer)
        })
    }

    /// Of `layers` those in a row that are made of the same, in order.
    pub fn alike_layers(&self, layers: Range<u32>) -> impl Iterator<Item = Range<u32>> {
        let kind = |layer| {
            [
                self.is_softmax_attention_layer(layer),
                self.is_local_attention_layer(layer),
                self.is_moe_layer(layer),
            ]
        };
        let mut rest = layers;
        std::iter::from_fn(move || {
            let first = rest.next()?;
            let of_first = kind(first);
            let end = rest.clone().find(|&layer| kind(layer) != of_first);
            rest.start = end.unwrap_or(rest.end);
            Some(first..rest.start)
        })
    }

    /// Whether any layer has a dense MLP.
    pub fn has_dense_mlp(&self) -> bool {
        (0..self.layers).any(|layer| !self.is_moe_layer(layer))
    }

    /// Layers of pipeline stage `stage` out of `stages`, as `[start, end)`.
    /// Uneven splits give the earlier stages one layer more.
    pub fn stage_layers(&self, stage: u32, stages: u32) -> Range<u32> {
        let (base, extra) = (self.layers / stages, self.layers % stages);
        let start = stage * base + stage.min(extra);
        start..start + base + u32::from(stage < extra)
    }
}
