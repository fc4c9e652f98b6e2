//! Bytes of KV cache per token, and of state per request.

use std::ops::Range;

use serde::Serialize;

use super::Parallelism;
use crate::catalog::{Attention, LinearAttention, ModelSpec};
use crate::number::narrow;
use crate::units::DType;

/// Format of gated-delta-net state: both the recurrent state and the
/// convolution's window are kept in the model's activation format, as vLLM does
/// by default (`mamba_ssm_cache_dtype: auto`). SGLang keeps the recurrent state
/// in float32, twice as large.
const STATE_DTYPE: DType = DType::Bfloat16;

/// KV cache bytes of one token in the whole model, every head counted once; of
/// layers with local attention only within their window.
pub fn kv_bytes_per_token(model: &ModelSpec, dtype: DType) -> f64 {
    layer_kv_elements(&model.attention, 1) * softmax_layers(model, 0..model.layers) * dtype.bytes()
}

/// What layers with local attention keep of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WindowCache {
    /// Tokens that they keep at most.
    pub tokens: u32,
    /// Such layers.
    pub layers: u32,
    /// Layers that keep every token.
    pub full_layers: u32,
}

impl WindowCache {
    /// Share of these layers in the cache of a token within the window.
    pub fn share(&self) -> f64 {
        f64::from(self.layers) / f64::from(self.layers + self.full_layers)
    }
}

/// What `model`'s layers with local attention keep; none without such layers.
pub fn window_cache(model: &ModelSpec) -> Option<WindowCache> {
    let local = model.local_attention.as_ref()?;
    let (full, layers) = layers_by_reach(model, 0..model.layers);
    (layers > 0).then_some(WindowCache {
        tokens: local.tokens,
        layers,
        full_layers: full,
    })
}

/// Layers of `layers` with softmax attention to the start, and with local attention.
fn layers_by_reach(model: &ModelSpec, layers: Range<u32>) -> (u32, u32) {
    let count = |is: &dyn Fn(u32) -> bool| {
        narrow::<u32, _>(layers.clone().filter(|&layer| is(layer)).count())
    };
    (
        count(&|layer| model.is_full_attention_layer(layer)),
        count(&|layer| model.is_local_attention_layer(layer)),
    )
}

/// Bytes of one request's state that do not grow with its length (gated delta
/// nets), whole model; 0 for models with softmax attention only.
pub fn state_bytes_per_request(model: &ModelSpec) -> f64 {
    state_bytes(model, 1, 0..model.layers)
}

/// KV cache bytes of one token on one GPU that holds `layers`. KV heads are
/// replicated where there are fewer than ranks; the compressed KV of MLA has no
/// heads and is kept whole by every rank.
///
/// Blocks are those of the layers that keep every token; what layers with local
/// attention keep is counted in blocks too, as many for each of theirs as there are
/// such layers to one of the others in the whole model. A stage that has more of a
/// kind than its share counts as if it had as much more of the other.
pub(super) fn kv_bytes_on_gpu(
    model: &ModelSpec,
    parallelism: &Parallelism,
    dtype: DType,
    layers: Range<u32>,
) -> f64 {
    let of_layer = layer_kv_elements(&model.attention, parallelism.tensor_parallel) * dtype.bytes();
    let counted = match window_cache(model) {
        None => softmax_layers(model, layers),
        Some(whole) => {
            let (full, local) = layers_by_reach(model, layers);
            let share_of_local = f64::from(local) / f64::from(whole.layers);
            match whole.full_layers {
                0 => f64::from(local),
                all => f64::from(all) * (f64::from(full) / f64::from(all)).max(share_of_local),
            }
        }
    };
    of_layer * counted
}

/// State bytes of one request on one GPU that holds `layers`.
pub(super) fn state_bytes(model: &ModelSpec, tp: u32, layers: Range<u32>) -> f64 {
    let Some(linear) = &model.linear_attention else {
        return 0.0;
    };
    let linear_layers = layers.len() as f64 - softmax_layers(model, layers);
    let window = f64::from(conv_channels(linear)) * f64::from(linear.conv_kernel - 1);
    let recurrent = f64::from(linear.value_heads)
        * f64::from(linear.key_head_dim)
        * f64::from(linear.value_head_dim);
    (window + recurrent) / f64::from(tp) * linear_layers * STATE_DTYPE.bytes()
}

/// Channels the short convolution of a gated delta net runs over: Q, K and V.
pub(super) fn conv_channels(linear: &LinearAttention) -> u32 {
    2 * linear.key_heads * linear.key_head_dim + linear.value_heads * linear.value_head_dim
}

/// KV heads one of `tp` ranks holds.
pub(super) fn kv_heads_on_gpu(kv_heads: u32, tp: u32) -> u32 {
    (kv_heads / tp).max(1)
}

fn layer_kv_elements(attention: &Attention, tp: u32) -> f64 {
    match attention {
        Attention::Gqa {
            kv_heads, head_dim, ..
        } => 2.0 * f64::from(kv_heads_on_gpu(*kv_heads, tp)) * f64::from(*head_dim),
        Attention::Mla {
            kv_lora_rank,
            qk_rope_head_dim,
            ..
        } => f64::from(kv_lora_rank + qk_rope_head_dim),
    }
}

fn softmax_layers(model: &ModelSpec, layers: Range<u32>) -> f64 {
    layers
        .filter(|&layer| model.is_softmax_attention_layer(layer))
        .count() as f64
}
