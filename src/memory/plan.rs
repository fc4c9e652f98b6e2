//! The memory of one GPU, item by item, and the KV cache blocks left over.

use super::divisibility::check_scale_blocks;
use super::kv_cache::{conv_channels, kv_bytes_on_gpu, kv_heads_on_gpu, state_bytes};
use super::parameters::redundant_experts_bytes;
use super::rule::{Occupied, SglangStart, reserve_bytes};
use super::{
    Formats, Infeasible, MemoryPlan, MemoryRule, Obstacle, Parallelism, check_divisibility,
    stage_weights_bytes,
};
use crate::catalog::{Attention, DeviceSpec, ModelSpec};
use crate::number::whole_u64;
use crate::units::GIB;

const MIB: f64 = (1u64 << 20) as f64;

/// CUDA context, cuBLAS workspaces and the like: 551 MB, the figure NVIDIA's
/// aiconfigurator names for them (0.12.0, comment on `other_mem` in its
/// `systems/*.yaml`; it plans with 3.5 GiB to cover errors of its own estimate).
const RUNTIME_BYTES: f64 = 551e6;

/// Tokens experts are computed for at a time: engines bound the workspace by
/// chunking longer steps (vLLM's `VLLM_FUSED_MOE_CHUNK_SIZE`).
const MOE_CHUNK_TOKENS: f64 = 16384.0;

/// Bytes of an activation element: 16-bit formats throughout.
const ACTIVATION_BYTES: f64 = 2.0;

/// What [`plan`] needs to know of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// Model.
    pub model: &'a ModelSpec,
    /// Device.
    pub device: &'a DeviceSpec,
    /// How a replica is cut.
    pub parallelism: Parallelism,
    /// Formats of weights and KV cache.
    pub formats: Formats,
    /// Most tokens in one step of one attention rank.
    pub max_tokens_in_step: u32,
    /// Most requests in flight on one attention rank.
    pub max_requests_in_batch: u32,
    /// Which memory the KV cache gets.
    pub rule: MemoryRule,
    /// Tokens per KV cache block.
    pub block_size: u32,
    /// Whether multi-token-prediction layers are loaded.
    pub include_mtp: bool,
    /// Replicas of busy experts in every expert layer, over all GPUs that share
    /// them.
    pub redundant_experts: u32,
}

/// The memory plan of the deployment, or why it cannot exist.
pub fn plan(input: &PlanInput<'_>) -> Result<MemoryPlan, Infeasible> {
    let plan = estimate(input)?;
    let device = &input.device.name;
    let usable = plan.capacity_bytes - plan.reserve_bytes;
    let usable_gib = usable / GIB;
    let weights_gib = plan.weights_bytes / GIB;
    let rule = input.rule.text();
    if plan.weights_bytes > usable {
        return Err(Infeasible::new(
            Obstacle::Weights,
            format!(
                "weights {weights_gib:.1} GiB/GPU exceed {usable_gib:.1} GiB usable of {device}{rule}"
            ),
        ));
    }
    if plan.blocks_per_rank == 0 {
        let state = if plan.state_bytes > 0.0 {
            format!(
                " + state of {} requests {:.1}",
                input.max_requests_in_batch,
                plan.state_bytes / GIB
            )
        } else {
            String::new()
        };
        return Err(Infeasible::new(
            Obstacle::KvCache,
            format!(
                "no room for KV cache: weights {weights_gib:.1} + activations of {} tokens {:.1} \
                 + communication {:.1}{state} GiB/GPU leave less than one block of the \
                 {usable_gib:.1} GiB usable of {device}{rule}",
                input.max_tokens_in_step,
                plan.activation_bytes / GIB,
                plan.communication_bytes / GIB,
            ),
        ));
    }
    Ok(plan)
}

/// The same figures without insisting that they fit: `blocks_per_rank` is 0
/// where nothing is left. Fails only where the model cannot be cut that way.
pub fn estimate(input: &PlanInput<'_>) -> Result<MemoryPlan, Infeasible> {
    check_divisibility(input.model, &input.parallelism)?;
    check_scale_blocks(input.model, &input.parallelism, &input.formats)?;
    let stages = input.parallelism.pipeline_parallel;
    let fullest = (0..stages)
        .map(|stage| stage_plan(input, stage))
        .reduce(|fullest, other| {
            let key = |p: &MemoryPlan| (p.blocks_per_rank, -p.weights_bytes);
            if key(&other) < key(&fullest) {
                other
            } else {
                fullest
            }
        });
    // `check_divisibility` refuses 0 stages.
    fullest.ok_or_else(|| Infeasible::new(Obstacle::Parallelism, "pipeline_parallel 0"))
}

fn stage_plan(input: &PlanInput<'_>, stage: u32) -> MemoryPlan {
    let PlanInput {
        model,
        parallelism,
        formats,
        ..
    } = *input;
    let tp = parallelism.tensor_parallel;
    let layers = model.stage_layers(stage, parallelism.pipeline_parallel);
    let is_last = stage + 1 == parallelism.pipeline_parallel;
    let capacity_bytes = input.device.memory_bytes as f64;
    let weights_bytes =
        stage_weights_bytes(model, &parallelism, &formats, stage, input.include_mtp)
            + redundant_experts_bytes(
                model,
                &parallelism,
                &formats,
                stage,
                input.redundant_experts,
            );
    let activation_bytes = activation_bytes(input, layers.clone(), is_last);
    let communication_bytes = communication_bytes(&parallelism);
    let kv_bytes_per_token = kv_bytes_on_gpu(model, &parallelism, formats.kv_cache, layers.clone());
    let state_bytes_per_request = state_bytes(model, tp, layers);
    let state_bytes = state_bytes_per_request * f64::from(input.max_requests_in_batch);
    let on_gpu = Occupied {
        capacity: capacity_bytes,
        runtime: RUNTIME_BYTES,
        weights: weights_bytes,
        activations: activation_bytes,
        communication: communication_bytes,
        state: state_bytes,
    };
    let start = SglangStart {
        model,
        device: input.device,
        parallelism: &parallelism,
        chunk_tokens: input.max_tokens_in_step,
        kv_bytes_per_token,
    };
    let reserve_bytes = reserve_bytes(input.rule, on_gpu, start);
    let free = capacity_bytes
        - reserve_bytes
        - weights_bytes
        - activation_bytes
        - communication_bytes
        - state_bytes;
    let block_bytes = kv_bytes_per_token * f64::from(input.block_size);
    let blocks_per_rank = if block_bytes > 0.0 {
        // Negative floats become 0.
        whole_u64((free / block_bytes).floor())
    } else if free >= 0.0 {
        // A stage of linear attention only: it does not limit the blocks.
        u64::MAX
    } else {
        0
    };
    MemoryPlan {
        capacity_bytes,
        reserve_bytes,
        weights_bytes,
        activation_bytes,
        communication_bytes,
        kv_bytes_per_token,
        state_bytes_per_request,
        state_bytes,
        blocks_per_rank,
    }
}

/// Communication buffers: what NCCL was seen to take at 2, and at 4 and 8 GPUs
/// (aiconfigurator 0.12.0, `misc.nccl_mem` of its `systems/*.yaml`).
fn communication_bytes(parallelism: &Parallelism) -> f64 {
    match parallelism.gpus() {
        0 | 1 => 0.0,
        2 => 342.0 * MIB,
        _ => 392.0 * MIB,
    }
}

/// Peak activations of a step: residual stream and its normalised copy, and on
/// top the widest thing that lives at one time: the tensors of one attention
/// block, one MLP, one expert layer, or (last stage) the logits.
fn activation_bytes(input: &PlanInput<'_>, layers: std::ops::Range<u32>, is_last: bool) -> f64 {
    let model = input.model;
    let tp = f64::from(input.parallelism.tensor_parallel);
    let tokens = f64::from(input.max_tokens_in_step);
    let stream = 2.0 * tokens * f64::from(model.hidden_size) * ACTIVATION_BYTES;
    let mut widest = 0.0f64;
    for alike in model.alike_layers(layers) {
        let layer = alike.start;
        let attention = match &model.linear_attention {
            Some(linear) if !model.is_softmax_attention_layer(layer) => {
                let values = f64::from(linear.value_heads * linear.value_head_dim);
                // Q, K, V before and after the convolution; gate and output.
                (2.0 * f64::from(conv_channels(linear)) + 2.0 * values) / tp
            }
            _ => attention_width(&model.attention, input.parallelism.tensor_parallel),
        };
        widest = widest.max(tokens * attention * ACTIVATION_BYTES);
        let mlp = if model.is_moe_layer(layer) {
            moe_bytes(input, tokens)
        } else {
            tokens * mlp_width(model, f64::from(model.intermediate_size) / tp) * ACTIVATION_BYTES
        };
        widest = widest.max(mlp);
    }
    if is_last {
        // 16-bit logits of every request and the float32 copy sampling works on.
        let logits = f64::from(input.max_requests_in_batch) * f64::from(model.vocab_size);
        widest = widest.max(logits * (ACTIVATION_BYTES + 4.0));
    }
    stream + widest
}

/// Elements per token that one softmax attention block keeps alive on a GPU.
fn attention_width(attention: &Attention, tp: u32) -> f64 {
    match attention {
        Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            output_gate,
            ..
        } => {
            let queries = f64::from(*heads) / f64::from(tp);
            let gate = if *output_gate { queries } else { 0.0 };
            let keys_values = 2.0 * f64::from(kv_heads_on_gpu(*kv_heads, tp));
            // Q, K, V (and gate), then the attention output.
            (queries + gate + keys_values + queries) * f64::from(*head_dim)
        }
        Attention::Mla {
            heads,
            q_lora_rank,
            kv_lora_rank,
            qk_nope_head_dim,
            qk_rope_head_dim,
            v_head_dim,
        } => {
            let heads = f64::from(*heads) / f64::from(tp);
            let query_or_key = heads * f64::from(qk_nope_head_dim + qk_rope_head_dim);
            let value = heads * f64::from(*v_head_dim);
            // Compressed forms; queries, expanded keys, values and output.
            f64::from(q_lora_rank + kv_lora_rank + qk_rope_head_dim)
                + 2.0 * query_or_key
                + 2.0 * value
        }
    }
}

/// Elements per token one MLP of local width `width` keeps alive.
fn mlp_width(model: &ModelSpec, width: f64) -> f64 {
    if model.gated_mlp {
        3.0 * width
    } else {
        2.0 * width
    }
}

/// Bytes one expert layer keeps alive on a GPU: the tokens gathered from all
/// attention ranks and their sum, and per visited expert (in chunks) an input
/// or output row and the activated intermediate row.
fn moe_bytes(input: &PlanInput<'_>, tokens: f64) -> f64 {
    let model = input.model;
    let Some(moe) = &model.moe else {
        return 0.0;
    };
    let hidden = f64::from(model.hidden_size);
    let ranks = f64::from(input.parallelism.attention_data_parallel);
    let gathered = if ranks > 1.0 {
        2.0 * tokens * ranks * hidden
    } else {
        0.0
    };
    let width =
        f64::from(moe.intermediate_size) / f64::from(input.parallelism.expert_tensor_parallel());
    let visits = (tokens * ranks).min(MOE_CHUNK_TOKENS) * f64::from(moe.experts_per_token);
    let routed = visits * (hidden.max(2.0 * width) + width);
    let shared_width =
        f64::from(moe.shared_intermediate_size) / f64::from(input.parallelism.tensor_parallel);
    let shared = tokens * mlp_width(model, shared_width);
    (gathered + routed + shared) * ACTIVATION_BYTES
}
