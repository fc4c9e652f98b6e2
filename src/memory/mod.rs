//! What fits: parameters, KV cache and activation memory per GPU, and the
//! number of KV cache blocks that follow. Pure arithmetic over the catalog.
//!
//! [`parameters`] counts a whole model; [`plan`] says what one GPU of a
//! deployment holds, or why the deployment is [`Infeasible`]; [`estimate`] gives
//! the same figures without insisting that they fit. `docs/models-and-devices.md`
//! states every formula.

mod alibaba;
mod divisibility;
mod kv_cache;
mod parameters;
mod plan;
mod remedy;
mod rule;
#[cfg(test)]
mod tests;
mod vidur;

use serde::Serialize;

pub use crate::catalog::WeightClass;
use crate::catalog::{ClassFormats, ModelSpec};
use crate::units::{DType, GIB};

pub use alibaba::{AlibabaVersion, alibaba_plan, alibaba_transfer_bytes, alibaba_weights_bytes};
pub use divisibility::check_divisibility;
pub use kv_cache::{WindowCache, kv_bytes_per_token, state_bytes_per_request, window_cache};
pub use parameters::{ParameterCount, parameters, stage_weights_bytes};
pub use plan::{PlanInput, estimate, plan};
pub use remedy::remedy;
pub use rule::MemoryRule;
pub use vidur::{VidurPlan, VidurPlanInput, vidur_plan};

/// How one replica is cut over GPUs.
///
/// A replica has `tensor_parallel * pipeline_parallel * attention_data_parallel`
/// GPUs. Experts are spread over the `tensor_parallel * attention_data_parallel`
/// GPUs of a stage: `expert_parallel` ways by expert, the rest
/// ([`Self::expert_tensor_parallel`]) by cutting each expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Parallelism {
    /// Tensor-parallel ways of attention and dense MLP.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// Expert-parallel ways; 1 for dense models.
    pub expert_parallel: u32,
    /// Attention replicas that share the experts of one replica.
    pub attention_data_parallel: u32,
}

impl Parallelism {
    /// GPUs of one pipeline stage.
    pub fn gpus_per_stage(&self) -> u32 {
        self.tensor_parallel * self.attention_data_parallel
    }
    /// GPUs of one replica.
    pub fn gpus(&self) -> u32 {
        self.gpus_per_stage() * self.pipeline_parallel
    }
    /// Ways each expert is cut.
    pub fn expert_tensor_parallel(&self) -> u32 {
        (self.gpus_per_stage() / self.expert_parallel).max(1)
    }
}

/// Formats of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Formats {
    /// Weights and GEMM inputs.
    pub weights: DType,
    /// Classes of weights that differ.
    pub classes: ClassFormats,
    /// KV cache.
    pub kv_cache: DType,
}

impl Formats {
    /// All weights in one format.
    pub const fn new(weights: DType, kv_cache: DType) -> Self {
        Self {
            weights,
            classes: ClassFormats::NONE,
            kv_cache,
        }
    }

    /// Those of `model`, or all its weights in `weights`, and its cache in `kv_cache`,
    /// where given.
    pub fn of(model: &ModelSpec, weights: Option<DType>, kv_cache: Option<DType>) -> Self {
        let kv_cache = kv_cache.unwrap_or(model.kv_cache_dtype);
        match weights {
            Some(weights) => Self::new(weights, kv_cache),
            None => Self {
                weights: model.dtype,
                classes: model.dtype_of,
                kv_cache,
            },
        }
    }

    /// Format of a class of weights.
    pub fn of_class(&self, class: WeightClass) -> DType {
        self.classes.get(class).unwrap_or(self.weights)
    }

    /// The weights' formats in words: `mxfp4 (attention bfloat16)`.
    pub fn weights_text(&self) -> String {
        let differing: Vec<String> = WeightClass::ALL
            .into_iter()
            .filter(|&class| self.of_class(class) != self.weights)
            .map(|class| format!("{} {}", class.name(), self.of_class(class).name()))
            .collect();
        match differing.is_empty() {
            true => self.weights.name().to_owned(),
            false => format!("{} ({})", self.weights.name(), differing.join(", ")),
        }
    }
}

/// Memory of the fullest GPU of a replica, bytes, and what is left for KV cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// Device memory.
    pub capacity_bytes: f64,
    /// Kept free under the engine's rule (margin, CUDA graphs, fragmentation, driver).
    pub reserve_bytes: f64,
    /// Weights incl. embeddings, LM head, norms, routers, shared experts.
    pub weights_bytes: f64,
    /// Peak activations of a step.
    pub activation_bytes: f64,
    /// Communication buffers.
    pub communication_bytes: f64,
    /// KV cache bytes one token takes on one GPU of the fullest stage; of a model with
    /// local attention, what one more takes beyond the window.
    pub kv_bytes_per_token: f64,
    /// Bytes of per-request state that do not grow with its length (GDN state),
    /// on one GPU of the fullest stage.
    pub state_bytes_per_request: f64,
    /// That state for the largest batch, set aside before KV cache blocks.
    pub state_bytes: f64,
    /// KV cache blocks one attention-data-parallel rank can hold.
    pub blocks_per_rank: u64,
}

impl MemoryPlan {
    /// What the KV cache can have.
    pub fn kv_cache_bytes(&self) -> f64 {
        let occupied = self.reserve_bytes
            + self.weights_bytes
            + self.activation_bytes
            + self.communication_bytes
            + self.state_bytes;
        (self.capacity_bytes - occupied).max(0.0)
    }

    /// The parts in one line, GiB of one GPU.
    pub fn parts(&self) -> String {
        let gib = |bytes: f64| format!("{:.1}", bytes / GIB);
        let state = if self.state_bytes > 0.0 {
            format!(" + state of requests {}", gib(self.state_bytes))
        } else {
            String::new()
        };
        format!(
            "{} GiB/GPU = weights {} + activations {} + communication {}{state} + reserve {} + \
             KV cache {}",
            gib(self.capacity_bytes),
            gib(self.weights_bytes),
            gib(self.activation_bytes),
            gib(self.communication_bytes),
            gib(self.reserve_bytes),
            gib(self.kv_cache_bytes()),
        )
    }
}

/// What kind of obstacle makes a deployment infeasible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The model cannot be cut that way.
    Parallelism,
    /// Weights alone exceed device memory.
    Weights,
    /// Weights fit, but nothing is left for KV cache.
    KvCache,
}

/// Why a deployment cannot exist: a result, not a failure of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Infeasible {
    /// What kind of obstacle; for grouping.
    pub obstacle: Obstacle,
    /// The sentence for people, with the numbers.
    pub reason: String,
    /// The key of a configuration to be changed, where it is one.
    pub key: Option<&'static str>,
}

impl Infeasible {
    pub(crate) fn new(obstacle: Obstacle, reason: impl Into<String>) -> Self {
        Self {
            obstacle,
            reason: reason.into(),
            key: None,
        }
    }

    /// The same, to be mended by changing `key`.
    #[must_use]
    pub(crate) fn about(self, key: &'static str) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }
}
