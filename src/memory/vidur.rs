//! Vidur's memory planner, for compatibility runs: parameters of attention and
//! MLP only, two bytes each, and room for whole requests of the greatest length.
//! Behaviour: microsoft/vidur at 7d475133, `vidur/utils/param_counter.py` and
//! `vidur/scheduler/utils/memory_planner.py`.

use super::{Infeasible, Obstacle, Parallelism};
use crate::catalog::{Attention, DeviceSpec, ModelSpec};
use crate::number::whole_u32;
use crate::units::GIB;

/// Bytes of a parameter and of a cached element.
const ELEMENT_BYTES: u64 = 2;

/// What [`vidur_plan`] needs to know of a replica.
#[derive(Debug, Clone, Copy)]
pub struct VidurPlanInput<'a> {
    /// Model.
    pub model: &'a ModelSpec,
    /// Device.
    pub device: &'a DeviceSpec,
    /// How a replica is cut; tensor and pipeline parallelism count.
    pub parallelism: Parallelism,
    /// Share of device memory kept free.
    pub margin_fraction: f64,
    /// Longest request, prompt and output together.
    pub max_request_tokens: u32,
    /// Tokens per KV cache block.
    pub block_size: u32,
}

/// What the planner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VidurPlan {
    /// Requests of the greatest length that fit on one GPU.
    pub max_batch_size: u32,
    /// KV cache blocks of a replica.
    pub num_blocks: u64,
}

/// Plans as the original does: a pipeline of several stages is given the blocks
/// of as many GPUs, each of which is charged the cache of all layers.
///
/// # Errors
/// If not one request of the greatest length fits, or the model is of a kind the
/// original does not know.
pub fn vidur_plan(input: &VidurPlanInput<'_>) -> Result<VidurPlan, Infeasible> {
    let refuse = |reason: String| Infeasible::new(Obstacle::KvCache, reason);
    let model = input.model;
    let Attention::Gqa {
        heads, kv_heads, ..
    } = model.attention
    else {
        let reason = format!("Vidur's memory planner does not cover {}", model.name);
        return Err(refuse(reason));
    };
    if model.local_attention.is_some() {
        let reason = format!(
            "Vidur's memory planner does not cover the local attention of {}",
            model.name
        );
        return Err(refuse(reason));
    }
    let tensor_parallel = u64::from(input.parallelism.tensor_parallel);
    let stages = u64::from(input.parallelism.pipeline_parallel);
    let (heads, kv_heads) = (u64::from(heads), u64::from(kv_heads));
    let hidden = u64::from(model.hidden_size);
    let head_dim = hidden / heads;
    let kv_heads_per_gpu = kv_heads.div_ceil(tensor_parallel);
    let heads_per_gpu = heads / tensor_parallel;
    let attention = hidden * head_dim * (2 * heads_per_gpu + 2 * kv_heads_per_gpu);
    let projections = if model.gated_mlp { 3 } else { 2 };
    let mlp = projections * hidden * u64::from(model.intermediate_size) / tensor_parallel;
    let layers = u64::from(model.layers);
    let weights_bytes = ELEMENT_BYTES * (attention + mlp) * (layers / stages);
    let request_bytes = ELEMENT_BYTES
        * 2
        * head_dim
        * kv_heads_per_gpu
        * u64::from(input.max_request_tokens)
        * layers;
    let usable_bytes = memory_gib(input.device) * GIB * (1.0 - input.margin_fraction);
    let requests = ((usable_bytes - weights_bytes as f64) / request_bytes as f64).floor();
    if requests < 1.0 {
        return Err(refuse(format!(
            "Vidur's memory planner: weights {:.1} GiB/GPU and one request of {} tokens {:.1} GiB \
             exceed {:.1} GiB usable of {}",
            weights_bytes as f64 / GIB,
            input.max_request_tokens,
            request_bytes as f64 / GIB,
            usable_bytes / GIB,
            input.device.name
        )));
    }
    let max_batch_size = whole_u32(requests);
    let blocks_per_request = u64::from(input.max_request_tokens / input.block_size);
    Ok(VidurPlan {
        max_batch_size,
        num_blocks: blocks_per_request * u64::from(max_batch_size) * stages,
    })
}

/// Memory of the devices Vidur knows by its own figures, GiB.
fn memory_gib(device: &DeviceSpec) -> f64 {
    match device.name.as_str() {
        "a40" => 45.0,
        "a100" | "h100" | "h800" => 80.0,
        "h20" => 141.0,
        _ => device.memory_bytes as f64 / GIB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn plan(model: &str, cut: (u32, u32), max_request_tokens: u32) -> VidurPlan {
        let catalog = Catalog::builtin();
        let input = VidurPlanInput {
            model: &catalog.model(model).unwrap(),
            device: &catalog.device("a100").unwrap(),
            parallelism: Parallelism {
                tensor_parallel: cut.0,
                pipeline_parallel: cut.1,
                expert_parallel: 1,
                attention_data_parallel: 1,
            },
            margin_fraction: 0.1,
            max_request_tokens,
            block_size: 16,
        };
        vidur_plan(&input).unwrap()
    }

    /// Figures the original printed.
    #[test]
    fn slots_and_blocks_are_the_originals() {
        let expected = |max_batch_size, num_blocks| VidurPlan {
            max_batch_size,
            num_blocks,
        };
        assert_eq!(plan("llama-2-7b", (1, 1), 4096), expected(29, 7_424));
        assert_eq!(plan("llama-2-7b", (1, 4), 4096), expected(34, 34_816));
        assert_eq!(plan("codellama-34b", (4, 1), 4096), expected(301, 77_056));
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_figures() {
        let catalog = Catalog::builtin();
        let input = VidurPlanInput {
            model: &catalog.model("llama-2-70b").unwrap(),
            device: &catalog.device("a100").unwrap(),
            parallelism: Parallelism {
                tensor_parallel: 1,
                pipeline_parallel: 1,
                expert_parallel: 1,
                attention_data_parallel: 1,
            },
            margin_fraction: 0.1,
            max_request_tokens: 4096,
            block_size: 16,
        };
        let reason = vidur_plan(&input).unwrap_err().reason;
        assert!(reason.contains("127.5 GiB/GPU"), "{reason}");
    }
}
