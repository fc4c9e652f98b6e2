//! Bytes of KV cache per token, and of state per request.

use std::ops::Range;

use super::Parallelism;
use crate::catalog::{Attention, LinearAttention, ModelSpec};
use crate::units::DType;

/// Format of gated-delta-net state: both the recurrent state and the
/// convolution's window are kept in the model's activation format, as vLLM does
/// by default (`mamba_ssm_cache_dtype: auto`). SGLang keeps the recurrent state
/// in float32, twice as large.
const STATE_DTYPE: DType = DType::Bfloat16;

/// KV cache bytes of one token in the whole model, every head counted once.
pub fn kv_bytes_per_token(model: &ModelSpec, dtype: DType) -> f64 {
    layer_kv_elements(&model.attention, 1) * full_layers(model, 0..model.layers) * dtype.bytes()
}

/// Bytes of one request's state that do not grow with its length (gated delta
/// nets), whole model; 0 for models with softmax attention only.
pub fn state_bytes_per_request(model: &ModelSpec) -> f64 {
    state_bytes(model, 1, 0..model.layers)
}

/// KV cache bytes of one token on one GPU that holds `layers`. KV heads are
/// replicated where there are fewer than ranks; the compressed KV of MLA has no
/// heads and is kept whole by every rank.
pub(super) fn kv_bytes_on_gpu(
    model: &ModelSpec,
    parallelism: &Parallelism,
    dtype: DType,
    layers: Range<u32>,
) -> f64 {
    let tp = parallelism.tensor_parallel;
    layer_kv_elements(&model.attention, tp) * full_layers(model, layers) * dtype.bytes()
}

/// State bytes of one request on one GPU that holds `layers`.
pub(super) fn state_bytes(model: &ModelSpec, tp: u32, layers: Range<u32>) -> f64 {
    let Some(linear) = &model.linear_attention else {
        return 0.0;
    };
    let linear_layers = layers.len() as f64 - full_layers(model, layers);
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

fn full_layers(model: &ModelSpec, layers: Range<u32>) -> f64 {
    layers
        .filter(|&layer| model.is_full_attention_layer(layer))
        .count() as f64
}
