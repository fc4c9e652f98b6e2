//! A serving engine: the scheduler, batch limits and host overheads it brings.

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// Keys of the rules by which an engine shares out memory, of which it has one.
pub const MEMORY_RULES: [&str; 3] = [
    "gpu_memory_utilization",
    "mem_fraction_static",
    "free_gpu_memory_fraction",
];

/// Defaults an engine brings to a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// `vllm`, `sglang`, `trtllm`, or a name of your own.
    pub name: String,
    /// Version the figures stand for.
    pub version: String,
    /// Where the figures come from.
    #[serde(default)]
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

impl EngineSpec {
    /// The keys of an engine file.
    pub fn keys() -> Vec<&'static str> {
        static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
            let schema = schemars::schema_for!(EngineSpec);
            let keys = schema.get("properties").and_then(Value::as_object);
            keys.map_or_else(Vec::new, |keys| keys.keys().cloned().collect())
        });
        KEYS.iter().map(String::as_str).collect()
    }

    /// The engine with other figures, by their keys; of the rules for memory the one
    /// that is given takes the place of the engine's.
    ///
    /// # Errors
    /// If a key or a figure is none of an engine's; one line that names it.
    pub fn with(&self, figures: Map<String, Value>) -> Result<Self, String> {
        let mut all = match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all,
            // Plain data: serialising it cannot fail.
            _ => Map::new(),
        };
        if MEMORY_RULES.iter().any(|rule| figures.contains_key(*rule)) {
            all.retain(|key, _| !MEMORY_RULES.contains(&key.as_str()));
        }
        all.extend(figures);
        Self::of_figures(all)
    }

    /// The engine that has these figures.
    ///
    /// # Errors
    /// If a figure is missing, or a key or figure is none of an engine's.
    pub fn of_figures(figures: Map<String, Value>) -> Result<Self, String> {
        let engine: Self =
            serde_json::from_value(Value::Object(figures)).map_err(|error| error.to_string())?;
        engine
            .check()
            .map_err(|(key, allowed)| match key.as_str() {
                "" => format!("allowed: {allowed}"),
                key => format!("key `engine.{key}`: allowed: {allowed}"),
            })?;
        Ok(engine)
    }
}
