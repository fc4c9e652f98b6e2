//! What links and collectives cost between GPUs: alpha-beta formulas over the
//! NVLink domain of a node and one NIC per GPU between nodes.
//!
//! Used where nothing was measured: groups larger than a node, links that
//! differ from the measured device's, pipeline sends, and the KV cache transfer
//! of disaggregated serving. Knows nothing of models beyond bytes. The formulas
//! and the origin of every constant are in `docs/execution-time.md`.

mod links;

pub use links::{ExpertExchange, LinkOverrides, Links, NIC_LATENCY_S};
