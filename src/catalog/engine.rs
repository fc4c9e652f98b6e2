//! A serving engine: the scheduler, batch limits and host overheads it brings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Fraction of device memory the engine may use.
    pub gpu_memory_utilization: f64,
    /// Host time each step costs whatever is in it, seconds.
    pub host_overhead_s_per_step: f64,
    /// Host time each request of a step adds, seconds.
    pub host_overhead_s_per_request: f64,
}
