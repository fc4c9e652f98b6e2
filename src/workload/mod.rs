//! Requests: lengths and arrivals, generated once per workload and shared by
//! every run that uses them.
//!
//! Common random numbers: draws depend on (seed, workload identity,
//! replication) alone, never on the deployment or the offered load. Arrivals
//! are stored at unit rate and scaled by the run's QPS.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked of the deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadConfig {
    /// Requests to generate.
    #[serde(default = "default_requests")]
    pub requests: u32,
    /// Prompt and output lengths.
    pub lengths: LengthsConfig,
    /// Arrival process.
    pub arrivals: ArrivalsConfig,
}

fn default_requests() -> u32 {
    1000
}

/// Prompt and output lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthsConfig {
    /// Every request the same.
    Fixed {
        /// Prompt tokens.
        prefill_tokens: u32,
        /// Output tokens, the first one included.
        decode_tokens: u32,
    },
    /// Total length uniform in `[min_tokens, max_tokens]`, split by ratio.
    Uniform {
        /// Shortest total.
        min_tokens: u32,
        /// Longest total.
        max_tokens: u32,
        /// Prompt tokens per output token.
        prefill_to_decode_ratio: f64,
    },
    /// Lengths of a trace, or of a histogram file standing for it, in shuffled order.
    Trace {
        /// CSV or JSONL file; see `docs/spec.md` for formats.
        file: PathBuf,
        /// Longest total; longer requests are shortened proportionally.
        #[serde(default)]
        max_tokens: Option<u32>,
        /// Factor on prompt lengths.
        #[serde(default = "unit")]
        prefill_scale_factor: f64,
        /// Factor on output lengths.
        #[serde(default = "unit")]
        decode_scale_factor: f64,
    },
    /// Sampled from a joint histogram of prompt and output lengths.
    Histogram {
        /// Histogram file; see `docs/spec.md` for the format.
        file: PathBuf,
        /// Longest total; longer requests are shortened proportionally.
        #[serde(default)]
        max_tokens: Option<u32>,
    },
}

fn unit() -> f64 {
    1.0
}

/// Arrival process. The rate is the run's `qps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ArrivalsConfig {
    /// Exponential inter-arrival times.
    Poisson,
    /// Gamma inter-arrival times.
    Gamma {
        /// Coefficient of variation; 1 is Poisson.
        cv: f64,
    },
    /// Equal inter-arrival times; without `qps`, all at time zero.
    Static,
    /// Arrival times of a trace.
    Trace {
        /// CSV or JSONL file.
        file: PathBuf,
        /// Factor on inter-arrival times.
        #[serde(default = "unit")]
        time_scale_factor: f64,
    },
    /// Closed loop: each client sends its next request when its last one ends.
    Concurrency {
        /// Clients.
        clients: u32,
    },
}

/// One request as it enters the system.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Arrival, seconds; ignored in a closed loop.
    pub arrived_at_s: f64,
    /// Prompt tokens, at least 1.
    pub prefill_tokens: u32,
    /// Output tokens, at least 1, the first one (emitted by the prefill) included.
    pub decode_tokens: u32,
}

/// A generated workload: requests in arrival order.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Requests in arrival order.
    pub requests: Vec<Request>,
    /// Closed loop with this many clients, instead of the arrival times.
    pub clients: Option<u32>,
}
