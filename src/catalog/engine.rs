//! A serving engine: the scheduler, batch limits and host overheads it brings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SGLang's `mem_fraction_static`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StaticFraction {
    /// Given.
    Fixed(f64),
    /// `auto`: computed from the deployment, as the engine does at its start.
    Computed(Computed),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Computed {
    /// Computed.
    Auto,
}

/// Defaults an engine brings to a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// `vllm`, `sglang` or `trtllm`.
    pub name: String,
    /// Version the figures stand for.
    pub version: String,
    /// Where the figures come from.
    pub sources: Vec<String>,
    /// Default token budget of one step.
    pub max_tokens_in_batch: u32,
    /// Default limit of requests in one batch.
    pub batch_size_cap: u32,
    /// Tokens per KV cache block.
    pub block_size: u32,
    /// vLLM's rule: share of device memory for weights, activations, buffers and KV
    /// cache together. Exactly one of the three rules is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_utilization: Option<f64>,
    /// SGLang's rule: share of device memory for weights and KV cache; activations,
    /// buffers and CUDA graphs live in the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_fraction_static: Option<StaticFraction>,
    /// TensorRT-LLM's rule: share for the KV cache of what weights, activations and
    /// buffers leave free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_gpu_memory_fraction: Option<f64>,
    /// Host time each step costs whatever is in it, seconds.
    pub host_overhead_s_per_step: f64,
    /// Host time each request of a step adds, seconds.
    pub host_overhead_s_per_request: f64,
}
