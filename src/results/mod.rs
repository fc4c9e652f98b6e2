//! Result directories: schemas, and writers and readers of Parquet and CSV.
//!
//! One schema definition serves writer, reader, docs and tests. Knows nothing
//! of how runs are scheduled.

use serde::Serialize;

use crate::simulator::{RequestRecord, RunSummary};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Simulated.
    Ok,
    /// Cannot be deployed.
    Infeasible,
    /// The simulation failed.
    Failed,
}

/// One run as it leaves the executor.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// Position in the sweep.
    pub index: u64,
    /// Content hash of the resolved configuration.
    pub run_id: String,
    /// How it ended.
    pub status: RunStatus,
    /// Why, unless `Ok`.
    pub reason: Option<String>,
    /// Values of the axes, in the order of the sweep's axis columns.
    pub axes: Vec<serde_json::Value>,
    /// GPUs of the deployment; absent if it could not be resolved that far.
    pub total_gpus: Option<u32>,
    /// Price of those GPUs, US dollars per hour.
    pub cost_usd_per_hour: Option<f64>,
    /// Model FLOPs utilisation.
    pub mfu: Option<f64>,
    /// What the run amounted to.
    pub summary: Option<RunSummary>,
    /// Per-request rows to keep.
    pub requests: Vec<RequestRecord>,
    /// Wall time spent, seconds; kept out of the deterministic tables.
    pub wall_time_s: f64,
}
