//! YAML sweep specifications as typed, validated configurations.
//!
//! [`RunConfig`] is everything that determines one simulation. A
//! [`SweepSpec`] is a base configuration plus axes, constraints, targets and
//! objectives. Reading keeps the position of every key so that each error
//! names file, line, column, key, value, what is allowed and the nearest
//! spelling. Knows nothing of executors or results.

mod assumptions;
mod canonical;
mod capacity;
mod check;
pub mod columns;
mod config;
mod constraint;
mod contents;
mod data_files;
mod default_types;
mod deployment;
mod dotted;
mod engine;
mod entries;
mod error;
mod expand;
mod identity;
pub mod keys;
mod length;
mod load;
mod longest_sequence;
mod measure;
mod number_keys;
mod overrides;
mod placement;
mod places;
mod points;
mod price_files;
mod pricing;
mod problem;
mod reference;
mod resolve;
mod schema;
mod slo;
mod slo_check;
mod step_options;
mod trial;

pub use assumptions::Assumptions;
pub use canonical::canonical_json;
pub use capacity::is_capacity_study;
pub use config::{
    EngineConfig, ExpertGroup, ExpertLoadConfig, KvTransferOverlap, MemoryCheck, MemoryConfig,
    MoeConfig, NetworkConfig, Objectives, OutputConfig, PoolMemoryConfig, PoolOverride,
    RequestOutput, RunConfig, SearchConfig, SpeculativeConfig, SweepSpec, TopologyOf,
};
pub use constraint::{Constraint, ConstraintError, DERIVED_NAMES, Operand};
pub use deployment::Replicas;
pub use error::{SpecError, SpecErrors};
pub use expand::value_label;
pub use identity::run_id;
pub use load::{load, load_seeking_capacity, load_str};
pub use measure::{
    CapacitySearch, Measure, Precision, PrecisionError, RelativeWidth, check_precision, check_width,
};
pub use places::KeyPlaces;
pub use points::Points;
pub use pricing::PoolCost;
pub use problem::{Infeasible, InputError, Problem, ResolveError};
pub use reference::reference;
pub use resolve::{Deployment, Pool, Resolver};
pub use schema::sweep_schema;
pub use slo::{ATTAINMENT_COLUMN, Bound, RequestSlo, Slo, Target, TargetError, TargetRange};

/// A panic elsewhere leaves what this crate keeps behind locks whole.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A configuration for tests to vary.
#[cfg(test)]
pub(crate) fn test_config() -> RunConfig {
    let json = serde_json::json!({
        "model": "llama-3-8b",
        "device": "h100",
        "qps": 1.0,
        "workload": {
            "requests": 10,
            "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 10},
            "arrivals": {"type": "poisson"}
        }
    });
    serde_json::from_value(json).unwrap()
}
