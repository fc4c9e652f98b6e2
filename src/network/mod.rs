//! What links and collectives cost between GPUs.
//!
//! Four models. [`Links`]: alpha-beta formulas over the NVLink domain of a node
//! and one NIC per GPU, where nothing was measured and nobody named a topology.
//! [`nccl`]: NCCL's algorithms and protocols, fitted to measurements, and [`deepep`]
//! for the exchange of experts' tokens.
//! [`analytical`]: SimAI's bus-bandwidth formula. [`flow`]: SimAI's collectives
//! as flows over a [`topology`]. [`CollectiveCost`] is what a cost model of a
//! step sees of them, [`Placement`] says which GPUs a replica occupies, and
//! [`query`] prices rows of recorded queries.
//!
//! Knows nothing of models beyond bytes. The formulas of [`Links`] and the
//! origin of its constants are in `docs/execution-time.md`, the rest in
//! `docs/network.md`.

pub mod analytical;
mod collective;
mod cost;
pub mod deepep;
mod fabric;
pub(crate) mod fair_share;
pub mod flow;
mod links;
pub mod nccl;
mod placement;
pub mod query;
mod simai_binary;
pub mod topology;

pub use collective::{Collective, GroupKind};
pub use cost::{CollectiveCost, CostError};
pub use fabric::{Fabric, FabricModel};
pub use links::{ExpertExchange, LinkOverrides, Links, NIC_LATENCY_S};
pub use placement::{PlacedGroup, PlacedGroupKind, Placement};
pub use simai_binary::SimaiBinary;
