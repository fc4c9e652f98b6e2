//! What links and collectives cost between GPUs.
//!
//! [`Links`] is the simplest view, alpha-beta formulas over the NVLink domain
//! of a node and one NIC per GPU between nodes, used where nothing was measured
//! and nobody named a topology. [`analytical`] is SimAI's bus-bandwidth model.
//!
//! Knows nothing of models beyond bytes. The formulas of [`Links`] and the
//! origin of its constants are in `docs/execution-time.md`, the rest in
//! `docs/network.md`.

pub mod analytical;
mod collective;
mod cost;
mod fabric;
pub mod flow;
mod links;
pub mod nccl;
pub mod query;
pub mod topology;

pub use collective::{Collective, GroupKind};
pub use cost::{CollectiveCost, CostError};
pub use fabric::{Fabric, FabricModel, Placement};
pub use links::{ExpertExchange, LinkOverrides, Links, NIC_LATENCY_S};
