//! YAML sweep specifications as typed, validated configurations.
//!
//! [`RunConfig`] is everything that determines one simulation. A
//! [`SweepSpec`] is a base configuration plus axes, constraints, targets and
//! objectives. Reading keeps the position of every key so that each error
//! names file, line, column, key, value, what is allowed and the nearest
//! spelling. Knows nothing of executors or results.

mod config;

pub use config::{
    EngineConfig, MemoryCheck, MemoryConfig, NetworkConfig, Objectives, OutputConfig, PoolOverride,
    RequestOutput, RunConfig, SearchConfig, Slo, SweepSpec,
};
