//! Requests: lengths and arrivals, generated once per workload and shared by
//! every run that uses them.
//!
//! Common random numbers: draws depend on (seed, kind of draw and data file,
//! replication) alone, never on the deployment, the offered load, the number of
//! requests or how lengths are clipped. Arrivals are stored at unit rate and
//! scaled by the run's QPS ([`UnitWorkload::at_rate`]), so that two deployments
//! compared under one workload see the same requests, and the points of a QPS
//! sweep see the same requests faster or slower. Knows nothing of what serves
//! the requests.

mod cells;
mod error;
mod files;
mod generate;
pub mod histogram;
pub mod limits;
mod mersenne_twister;
mod outline;
mod read_files;
mod source;
mod stream;
mod trace;
pub mod vidur;

pub use cells::{Cell, split_cells};
pub use error::WorkloadError;
pub use files::{DataFile, DataFiles, embedded_files};
pub use generate::UnitWorkload;
pub use histogram::LengthHistogram;
pub(crate) use mersenne_twister::MersenneTwister;
pub use source::{WorkloadOutline, WorkloadSource};
pub use stream::{RequestStream, UnitStream};
pub use trace::{Lengths, TimeUnit, Trace, read_trace};

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked of the deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadConfig {
    /// Requests to generate. Default: as many as the trace of arrivals has rows, or
    /// else that of lengths; 1000 without a trace.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub requests: Option<u32>,
    /// Prompt and output lengths.
    pub lengths: LengthsConfig,
    /// Arrival process.
    pub arrivals: ArrivalsConfig,
}

/// Prompt and output lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthsConfig {
    /// Every request the same.
    Fixed {
        /// Prompt tokens.
        #[schemars(range(min = 1, max = 16_777_215))]
        prefill_tokens: u32,
        /// Output tokens, the first one included.
        #[schemars(range(min = 1, max = 16_777_215))]
        decode_tokens: u32,
    },
    /// Total length uniform in `[min_tokens, max_tokens]`, split by ratio.
    Uniform {
        /// Shortest total.
        #[schemars(range(min = 2, max = 16_777_216))]
        min_tokens: u32,
        /// Longest total.
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: u32,
        /// Prompt tokens per output token.
        #[schemars(extend("exclusiveMinimum" = 0))]
        prefill_to_decode_ratio: f64,
    },
    /// Total length Zipf-distributed over `[min_tokens, max_tokens]`, the shortest
    /// the most frequent, split by ratio.
    Zipf {
        /// Shortest total.
        #[schemars(range(min = 2, max = 16_777_216))]
        min_tokens: u32,
        /// Longest total.
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: u32,
        /// Skew: the k-th length has weight `k^-theta`.
        #[serde(default = "default_theta")]
        #[schemars(range(min = 0, max = 100))]
        theta: f64,
        /// Spread the frequent lengths over the range instead of having them at
        /// its lower end.
        #[serde(default)]
        scramble: bool,
        /// Prompt tokens per output token.
        #[schemars(extend("exclusiveMinimum" = 0))]
        prefill_to_decode_ratio: f64,
    },
    /// Prompts and outputs log-normal, independent of each other.
    Lognormal {
        /// Median prompt, tokens.
        #[schemars(range(max = 16_777_215), extend("exclusiveMinimum" = 0))]
        prefill_median_tokens: f64,
        /// Standard deviation of the logarithm of prompt lengths.
        #[schemars(range(min = 0, max = 20))]
        prefill_sigma: f64,
        /// Median output, tokens.
        #[schemars(range(max = 16_777_215), extend("exclusiveMinimum" = 0))]
        decode_median_tokens: f64,
        /// Standard deviation of the logarithm of output lengths.
        #[schemars(range(min = 0, max = 20))]
        decode_sigma: f64,
        /// Longest total; longer requests are shortened proportionally. Default: what
        /// any request may have, 16777216; then a run says how many it shortened.
        #[serde(default)]
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: Option<u32>,
    },
    /// Prompts and outputs exponential, independent of each other: whole tokens from 1
    /// on, geometrically distributed. A mean of 1 is 1 token always.
    Exponential {
        /// Mean prompt, tokens.
        #[schemars(range(min = 1, max = 16_777_215))]
        prefill_mean_tokens: f64,
        /// Mean output, tokens, the first one included.
        #[schemars(range(min = 1, max = 16_777_215))]
        decode_mean_tokens: f64,
        /// Longest total; longer requests are shortened proportionally. Default: what
        /// any request may have, 16777216; then a run says how many it shortened.
        #[serde(default)]
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: Option<u32>,
    },
    /// Lengths of a trace, or of a histogram file standing for it, in shuffled order.
    Trace {
        /// CSV or JSONL file; see `docs/spec.md` for formats.
        file: PathBuf,
        /// Longest total; longer requests are shortened proportionally.
        #[serde(default)]
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: Option<u32>,
        /// Factor on prompt lengths.
        #[serde(default = "unit")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        prefill_scale_factor: f64,
        /// Factor on output lengths.
        #[serde(default = "unit")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        decode_scale_factor: f64,
        /// Order in which the rows of a trace are used.
        #[serde(default)]
        order: TraceOrder,
    },
    /// Sampled from a joint histogram of prompt and output lengths.
    Histogram {
        /// Histogram file; see `docs/spec.md` for the format.
        file: PathBuf,
        /// Longest total; longer requests are shortened proportionally.
        #[serde(default)]
        #[schemars(range(min = 2, max = 16_777_216))]
        max_tokens: Option<u32>,
    },
}

/// Order in which the rows of a trace are used. Either way a trace shorter than
/// the workload is gone through again, and a window of arrivals of the same file is
/// one of its lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceOrder {
    /// Shuffled by the seed, anew for each pass over the trace.
    #[default]
    Shuffled,
    /// As recorded, by arrival time; with `arrivals` of the same file each
    /// request keeps its own time.
    Recorded,
}

fn unit() -> f64 {
    1.0
}

/// Vidur's default skew.
fn default_theta() -> f64 {
    0.6
}

/// Arrival process. The rate is the run's `qps`; times of a trace are used as
/// recorded without it, and scaled to it where it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ArrivalsConfig {
    /// Exponential inter-arrival times.
    Poisson,
    /// Gamma inter-arrival times.
    Gamma {
        /// Coefficient of variation; 1 is Poisson.
        #[schemars(range(min = 0.001, max = 1000))]
        cv: f64,
    },
    /// Equal inter-arrival times; without `qps`, all at time zero.
    Static,
    /// Arrival times of a trace, counted from its first request; a trace shorter
    /// than the workload is repeated.
    Trace {
        /// CSV or JSONL file with arrival times; see `docs/spec.md` for formats.
        file: PathBuf,
        /// Only requests after this time of the trace: a date and time such as
        /// `1970-01-04 12:00:00`, or seconds, as the file has them.
        #[serde(default)]
        start_time: Option<String>,
        /// Only requests before this time of the trace.
        #[serde(default)]
        end_time: Option<String>,
        /// Factor on inter-arrival times.
        #[serde(default = "unit")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        time_scale_factor: f64,
        /// Unit of the numbers of time in the file. Default: that of its format.
        #[serde(default)]
        time_unit: Option<TimeUnit>,
    },
    /// Closed loop: each client sends its next request when its last one ends.
    Concurrency {
        /// Clients.
        #[schemars(range(min = 1, max = 100_000_000))]
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

impl Request {
    /// Its lengths.
    pub(crate) fn lengths(&self) -> Lengths {
        Lengths {
            prefill_tokens: self.prefill_tokens,
            decode_tokens: self.decode_tokens,
        }
    }
}

/// A generated workload: requests in arrival order.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Requests in arrival order.
    pub requests: Vec<Request>,
    /// Closed loop with this many clients, instead of the arrival times.
    pub clients: Option<u32>,
}

impl Workload {
    /// Requests that do not fit into a sequence of `longest` tokens: prompts that leave
    /// no room for an output token, and the other requests that are too long.
    pub fn beyond(&self, longest: u32) -> (u64, u64) {
        let (mut prompts, mut others) = (0, 0);
        for request in &self.requests {
            if request.prefill_tokens >= longest {
                prompts += 1;
            } else if request.decode_tokens > longest - request.prefill_tokens {
                others += 1;
            }
        }
        (prompts, others)
    }
}
