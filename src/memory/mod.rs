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
#[cfg(test)]
mod tests;
mod vidur;

use serde::Serialize;

use crate::units::DType;

pub use alibaba::{AlibabaVersion, alibaba_plan, alibaba_transfer_bytes, alibaba_weights_bytes};
pub use divisibility::check_divisibility;
pub use kv_cache::{kv_bytes_per_token, state_bytes_per_request};
pub use parameters::{ParameterCount, parameters, stage_weights_bytes};
pub use plan::{PlanInput, estimate, plan};
pub use remedy::remedy;
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
    /// KV cache.
    pub kv_cache: DType,
}

/// Memory of the fullest GPU of a replica, bytes, and what is left for KV cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// Device memory.
    pub capacity_bytes: f64,
    /// Kept free (margin, fragmentation, driver).
    pub reserve_bytes: f64,
    /// Weights incl. embeddings, LM head, norms, routers, shared experts.
    pub weights_bytes: f64,
    /// Peak activations of a step.
    pub activation_bytes: f64,
    /// Communication buffers.
    pub communication_bytes: f64,
    /// KV cache bytes one token takes on one GPU of the fullest stage.
    pub kv_bytes_per_token: f64,
    /// Bytes of per-request state that do not grow with its length (GDN state),
    /// on one GPU of the fullest stage.
    pub state_bytes_per_request: f64,
    /// That state for the largest batch, set aside before KV cache blocks.
    pub state_bytes: f64,
    /// KV cache blocks one attention-data-parallel rank can hold.
    pub blocks_per_rank: u64,
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
}

impl Infeasible {
    pub(crate) fn new(obstacle: Obstacle, reason: impl Into<String>) -> Self {
        Self {
            obstacle,
            reason: reason.into(),
        }
    }
}
