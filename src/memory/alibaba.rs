//! Memory and KV cache sizes as Vidur-AlibabaCloud computes them, for
//! compatibility runs: weights of attention and experts only, one byte an element
//! where the cache travels as fp8 and two otherwise, and a cache of full heads
//! whatever the model's attention. Behaviour: aliyun/SimAI 1.7,
//! `vidur-alibabacloud`, and its version 1.5 where told.

use super::{VidurPlan, VidurPlanInput};
use crate::catalog::{Attention, ModelSpec};

/// Which version's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlibabaVersion {
    /// Cache as wide as the MLP.
    V1_5,
    /// Cache of all key-value heads.
    V1_7,
}

/// Bytes of weights on a GPU of the first of `stages`, of a model with experts
/// that are spread over all `world_size` GPUs of a phase; none for models without
/// experts.
pub fn alibaba_weights_bytes(
    model: &ModelSpec,
    tensor_parallel: u32,
    stages: u32,
    world_size: u32,
    element_bytes: u32,
) -> Option<f64> {
    let moe = model.moe.as_ref()?;
    let element = f64::from(element_bytes);
    let tp = f64::from(tensor_parallel);
    let hidden = f64::from(model.hidden_size);
    let expert = 3.0 * hidden * f64::from(moe.intermediate_size) * element;
    let held = f64::from(moe.experts) / f64::from(world_size);
    let attention = softmax_elements(model) * element / tp;
    // Shared experts count where the attention is latent, whole on every GPU.
    let latent = matches!(model.attention, Attention::Mla { .. });
    let shared = if latent {
        f64::from(moe.shared_intermediate_size) / f64::from(moe.intermediate_size)
    } else {
        0.0
    };
    let layers = 0..model.layers / stages.max(1);
    let of_layer = |layer: u32| {
        let own = match &model.linear_attention {
            Some(_) if !model.is_softmax_attention_layer(layer) => {
                linear_bytes(model, element) / tp
            }
            _ => attention,
        };
        // A dense layer counts as the experts that a token visits.
        let mlp = if model.is_moe_layer(layer) {
            expert * (held + shared)
        } else {
            expert * (f64::from(moe.experts_per_token) + shared) / tp
        };
        own + mlp
    };
    Some(layers.map(of_layer).sum())
}

/// Elements of one softmax attention block: without the rotary part of latent
/// keys.
fn softmax_elements(model: &ModelSpec) -> f64 {
    let hidden = f64::from(model.hidden_size);
    match model.attention {
        Attention::Mla {
            qk_rope_head_dim, ..
        } => {
            let projections = model.attention.latent_projections(model.hidden_size, 1);
            projections.map_or(0.0, |projections| projections.elements())
                - hidden * f64::from(qk_rope_head_dim)
        }
        Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            ..
        } => 2.0 * hidden * f64::from((heads + kv_heads) * head_dim),
    }
}

/// Bytes of one gated delta net: without its output projection, the convolution
/// in one byte an element.
fn linear_bytes(model: &ModelSpec, element: f64) -> f64 {
    let Some(linear) = &model.linear_attention else {
        return 0.0;
    };
    let hidden = f64::from(model.hidden_size);
    let keys = f64::from(linear.key_heads * linear.key_head_dim);
    let values = f64::from(linear.value_heads * linear.value_head_dim);
    let rates = f64::from(linear.value_heads);
    let convolution = f64::from(linear.conv_kernel) * (2.0 * keys + values);
    element * 2.0 * hidden * (keys + values + rates) + convolution
}

/// Bytes of the cache that travels when a prompt of `prompt_tokens` has been
/// prefilled: its tokens and the first of the output.
pub fn alibaba_transfer_bytes(
    model: &ModelSpec,
    prompt_tokens: u64,
    element_bytes: u32,
    version: AlibabaVersion,
) -> u64 {
    let kv_heads = match model.attention {
        Attention::Gqa { kv_heads, .. } => kv_heads,
        Attention::Mla { heads, .. } => heads,
    };
    let width = match version {
        AlibabaVersion::V1_5 => u64::from(model.intermediate_size),
        AlibabaVersion::V1_7 => {
            u64::from(kv_heads) * u64::from(model.hidden_size / model.attention.heads())
        }
    };
    2 * (prompt_tokens + 1) * width * u64::from(model.layers) * u64::from(element_bytes)
}

/// What the original allows models with experts: their caches are planned for
/// requests of two tokens, so that a million fit and memory never limits.
pub fn alibaba_plan(input: &VidurPlanInput<'_>) -> VidurPlan {
    const REQUESTS: u32 = 1_000_000;
    let blocks_per_request = u64::from(input.max_request_tokens / input.block_size);
    VidurPlan {
        max_batch_size: REQUESTS,
        num_blocks: blocks_per_request
            * u64::from(REQUESTS)
            * u64::from(input.parallelism.pipeline_parallel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::units::GIB;

    fn model(name: &str) -> ModelSpec {
        Catalog::builtin().model(name).unwrap()
    }

    #[test]
    fn weights_are_the_originals() {
        for (name, tp, world_size, bytes, gib) in [
            ("deepseek-671B", 2, 4, 2, 320.97),
            ("deepseek-671B", 4, 8, 2, 162.86),
            ("deepseek-671B", 8, 16, 2, 83.81),
            ("deepseek-671B", 8, 16, 1, 41.91),
            ("deepseek-671B", 8, 32, 1, 22.87),
            ("deepseek-671B", 8, 48, 1, 16.53),
            ("qwen3-moe-235B", 4, 8, 1, 28.00),
            ("qwen3-moe-235B", 4, 24, 1, 10.37),
            ("qwen3-next-80B", 1, 2, 1, 37.06),
            ("qwen3-next-80B", 1, 6, 1, 13.06),
            ("qwen3-next-80B", 1, 32, 1, 3.31),
            ("qwen3-next-80B", 1, 2, 2, 74.12),
        ] {
            let ours = alibaba_weights_bytes(&model(name), tp, 1, world_size, bytes).unwrap();
            assert!(
                (ours / GIB - gib).abs() < 0.0051,
                "{name} tp{tp} ws{world_size}: {}",
                ours / GIB
            );
        }
        assert_eq!(
            alibaba_weights_bytes(&model("llama-3-8b"), 1, 1, 1, 2),
            None
        );
    }

    #[test]
    fn transfers_are_the_originals() {
        use AlibabaVersion::{V1_5, V1_7};
        let per_token = |name, version| alibaba_transfer_bytes(&model(name), 0, 1, version);
        // Twice the elements of one of keys and values.
        assert_eq!(per_token("deepseek-671B", V1_7), 874_496);
        assert_eq!(per_token("qwen3-moe-235B", V1_7), 48_128);
        assert_eq!(per_token("qwen3-next-80B", V1_7), 24_576);
        assert_eq!(per_token("llama-2-7b", V1_7), 262_144);
        let sample = alibaba_transfer_bytes(&model("deepseek-671B"), 395, 4, V1_5);
        assert_eq!(sample, 3_561_947_136);
    }
}
