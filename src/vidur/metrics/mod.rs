//! What Vidur writes at the end of a run.
//!
//! [`MetricsStore`] is a recorder: it is told what happens, adds up what
//! [`MetricsConfig`] asks for and nothing else, and writes the files of Vidur's
//! output directory, same names and columns, and the tables as Parquet. What it
//! needs to know of the cluster beforehand is in [`ClusterFacts`]. Under
//! [`Compat::Vidur`] the figures are the original's, defects included:
//!
//! | | default | as Vidur |
//! |---|---|---|
//! | distributions of batches and operators | a bucket (0.2 % wide) is shown as the mean of what fell into it: counts are exact | as its middle (0.999 for 1) |
//! | `replica_<n>_...`, `..._stage_<n>_...` | `n` - 1 is the number of the replica or stage, which stands in the file too | the first replica and stage come last |
//! | mean of memory in use | over time | over the values reported |
//! | means of busy time and MFU | over the whole run | without a first segment from time 0, and without the end |
//! | MFU | causal attention, LM head, 10^12 operations in a tera, all GPUs of a stage | full attention, no LM head, 2^40, one GPU |
//! | residual addition in operator times | as priced | twice as priced |
//! | `store_operation_metrics` | by itself | needs `store_utilization_metrics` |
//! | `min_batch_index`, `max_batch_index` | choose batches | drop also the requests completed by the others, and 0 is no limit |
//! | intervals between tokens | all | not those of prompts recomputed after a restart |
//! | `decode_completion_time_series.csv` | a row for each batch | for each token |
//!
//! Thinning (`subsamples`) starts at the first row in both; the original starts
//! time series at a random one. Behaviour of the original: microsoft/vidur at
//! 7d475133, `vidur/metrics`.

mod batches;
mod chart;
mod frame;
mod meter;
mod operations;
mod page;
mod phases;
mod picture;
mod requests;
mod sketch;
mod store;
mod text;
mod trace;
mod utilization;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::ModelSpec;
use crate::execution_time::StepCost;
use crate::memory::Parallelism;
use crate::simulator::Compat;
use crate::units::DType;

pub use store::MetricsStore;

/// What is kept and written: Vidur's `--metrics_config_*` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsConfig {
    /// Write metrics at all; traces are written regardless.
    pub write_metrics: bool,
    /// `event_trace.json` and `cluster.json`.
    pub write_json_trace: bool,
    /// `chrome_trace.json`.
    pub enable_chrome_trace: bool,
    /// Pictures and pages next to the files in `plots/`.
    pub store_plots: bool,
    /// Times of single operators.
    pub store_operation_metrics: bool,
    /// Intervals between tokens, tokens over time.
    pub store_token_completion_metrics: bool,
    /// `request_metrics.csv` and what is made of it.
    pub store_request_metrics: bool,
    /// Sizes and times of batches.
    pub store_batch_metrics: bool,
    /// Memory in use, busy time and MFU.
    pub store_utilization_metrics: bool,
    /// Batch by batch, too: `batch_metrics.csv`, `operation_metrics.csv`.
    pub keep_individual_batch_metrics: bool,
    /// Rows of a file in `plots/`, about, where there are more.
    pub subsamples: Option<u64>,
    /// First batch that counts.
    pub min_batch_index: Option<u64>,
    /// Last batch that counts.
    pub max_batch_index: Option<u64>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            write_metrics: true,
            write_json_trace: false,
            enable_chrome_trace: true,
            store_plots: true,
            store_operation_metrics: false,
            store_token_completion_metrics: false,
            store_request_metrics: true,
            store_batch_metrics: true,
            store_utilization_metrics: true,
            keep_individual_batch_metrics: false,
            subsamples: None,
            min_batch_index: None,
            max_batch_index: None,
        }
    }
}

impl MetricsConfig {
    /// Whether a batch counts.
    fn counts(&self, batch_id: u64, compat: Compat) -> bool {
        let limit = |index: Option<u64>| match compat {
            Compat::None => index,
            _ => index.filter(|index| *index != 0),
        };
        limit(self.min_batch_index).is_none_or(|least| batch_id >= least)
            && limit(self.max_batch_index).is_none_or(|most| batch_id <= most)
    }
}

/// What is known of a pool of replicas before the simulation.
#[derive(Clone)]
pub struct PoolFacts {
    /// Replicas; they are numbered through all pools.
    pub replicas: u32,
    /// What they serve.
    pub model: ModelSpec,
    /// How they are cut.
    pub parallelism: Parallelism,
    /// Peak of one GPU, 10^12 operations per second.
    pub peak_tflops: f64,
    /// Where operator times come from.
    pub cost: Arc<dyn StepCost>,
}

/// What is known of a cluster before the simulation.
#[derive(Clone)]
pub struct ClusterFacts {
    /// Whose rules figures follow.
    pub compat: Compat,
    /// As in the simulated cluster.
    pub pools: Vec<PoolFacts>,
    /// Requests to make room for.
    pub requests: usize,
    /// KV transfers, under disaggregation.
    pub transfer: Option<TransferFacts>,
}

/// What is known of KV transfers before the simulation.
#[derive(Debug, Clone, Copy)]
pub struct TransferFacts {
    /// Whose rules figures follow.
    pub compat: Compat,
    /// Format in which caches are sent.
    pub dtype: DType,
    /// Bandwidth of a transfer that has its links for itself, bytes per second.
    pub alone_bytes_per_s: f64,
}
