//! Result directories: schemas, and writers and readers of Parquet.
//!
//! One schema definition ([`schema`]) serves writer, reader, docs and tests.
//! A directory is written through [`ResultWriter`]: runs arrive in any order,
//! are gathered in blocks of neighbouring indices, and each block becomes part
//! files that are whole or absent. [`ResultWriter::finish`] joins the parts,
//! and the manifest, written last, is what makes the directory complete.
//! Equal runs give equal bytes, whatever the order they came in. Knows nothing
//! of how runs are scheduled, nor of what makes one better than another: that
//! is a [`Judge`]'s to say.

mod batches;
mod capacity_table;
mod claim;
mod column_chunk;
mod columns;
mod copied;
mod durable;
mod layout;
mod manifest;
mod merge;
mod parquet_io;
mod reader;
mod requests;
mod row_table;
pub mod schema;
mod tables;
mod writer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::output_file::LockError;
use crate::simulator::{RequestRecord, RunSummary, SteadyState};
use crate::spec::Assumptions;
use crate::units::DType;

pub use batches::{BATCH_COLUMNS, BatchRow};
pub use capacity_table::write_capacity_table;
pub use claim::ClaimedDirectory;
pub use layout::{
    CompletedRuns, DirectoryState, RunIndices, SweepSize, completed_runs, directory_state,
};
pub use manifest::{FileEntry, Manifest, RunCounts};
pub use merge::{Merge, Merged};
pub use reader::{Numbers, SummaryBatch, SummaryReader, SummaryRow, SummaryTable, read_summary};
pub use requests::RequestRow;
pub use schema::{AxisColumn, ColumnRole, ColumnType, REPLICATION_COLUMN, SCHEMA_VERSION, compact};
pub use tables::{write_batch_table, write_columns, write_request_table};
pub use writer::{Existing, Judge, ResultPlan, ResultWriter, SloVerdict, Verdict};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Simulated.
    Ok,
    /// Cannot be deployed.
    Infeasible,
    /// The simulation failed.
    Failed,
}

impl RunStatus {
    /// The name used in Parquet and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Infeasible => "infeasible",
            Self::Failed => "failed",
        }
    }
}

/// How much load a configuration holds within its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// The highest load that keeps all targets, requests per second; 0: none does; the
    /// highest that is tried where that keeps them, too.
    pub requests_per_s: f64,
    /// Ends of its 95 % interval; NaN: not known.
    pub low_requests_per_s: f64,
    /// The upper end.
    pub high_requests_per_s: f64,
    /// Column of the target that a little more load breaks.
    pub binding_target: Option<String>,
    /// Simulations it took.
    pub probes: u32,
    /// Requests in all of them.
    pub simulated_requests: u64,
    /// Load of the run whose figures stand beside it, requests per second.
    pub shown_qps: f64,
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
    /// What the figures rest on besides measurements.
    pub assumptions: Option<Assumptions>,
    /// Format of the KV cache, for the per-request rows under disaggregation.
    pub kv_cache_dtype: Option<DType>,
    /// What the run amounted to.
    pub summary: Option<RunSummary>,
    /// Per-request rows to keep, in order of request id.
    pub requests: Vec<RequestRecord>,
    /// Requests that its figures are of, by id; none: all.
    pub measured: Option<std::ops::Range<u32>>,
    /// What it holds, where that was looked for.
    pub capacity: Option<Box<Capacity>>,
    /// Wall time spent, seconds; kept out of the deterministic tables.
    pub wall_time_s: f64,
}

impl RunResult {
    /// A figure of the summary; NaN without one.
    fn of_summary(&self, get: impl Fn(&RunSummary) -> f64) -> f64 {
        self.summary.as_ref().map_or(f64::NAN, get)
    }

    /// A figure of the capacity; NaN where it was not looked for.
    fn of_capacity(&self, get: impl Fn(&Capacity) -> f64) -> f64 {
        self.capacity.as_deref().map_or(f64::NAN, get)
    }

    /// A share of what the figures rest on; NaN where nothing is known.
    fn assumed(&self, get: impl Fn(&Assumptions) -> f64) -> f64 {
        self.assumptions.as_ref().map_or(f64::NAN, get)
    }

    fn output_tokens_per_s(&self) -> f64 {
        self.of_summary(|s| s.output_tokens as f64 / s.duration_s)
    }

    /// Requests that keep every target of their own, per second.
    fn goodput_requests_per_s(&self) -> f64 {
        self.of_summary(|s| match s.slo_met_requests {
            Some(met) => f64::from(met) / s.duration_s,
            None => f64::NAN,
        })
    }

    /// How well its figures are known, if they are of steady state.
    pub fn steady(&self) -> Option<&SteadyState> {
        self.summary.as_ref()?.steady.as_deref()
    }

    /// A bound of a figure; NaN where none is known.
    fn of_steady(&self, get: impl Fn(&SteadyState) -> f64) -> f64 {
        self.steady().map_or(f64::NAN, get)
    }

    fn load_verdict(&self) -> Option<&str> {
        self.steady().map(|steady| steady.verdict.name())
    }

    fn per_gpu(&self, figure: f64) -> f64 {
        self.total_gpus
            .map_or(f64::NAN, |gpus| figure / f64::from(gpus))
    }

    fn cost_usd_per_million_tokens(&self, tokens_per_s: f64) -> f64 {
        // The lower end of an interval may be no rate at all: then nothing is known.
        let tokens_per_hour = match tokens_per_s > 0.0 {
            true => tokens_per_s * 3600.0,
            false => f64::NAN,
        };
        self.cost_usd_per_hour.unwrap_or(f64::NAN) / tokens_per_hour * 1e6
    }
}

/// What can go wrong with a result directory.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// Reading or writing a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A Parquet file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: parquet::errors::ParquetError,
    },
    /// Columns that do not fit together.
    #[error("result table: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A JSON file of the directory that is not what this version writes.
    #[error("{path}: {message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A file of the directory that is not there, or not as it was written.
    #[error("{path}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another program writes into the directory.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// No directory there, or one with something else in it.
    #[error("{path}: not a result directory ({why})", path = path.display())]
    NotResults {
        /// The directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The directory already holds results and may not be replaced.
    #[error("{path}: already holds results ({what}); --resume to go on, --force to replace them, or another --out", path = path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
    /// Resuming with another sweep, tool version or shard.
    #[error("{path}: cannot resume: {what} differs (there: {there}; now: {now}); --force to start over, or another --out", path = path.display())]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// Its value in the directory.
        there: String,
        /// Its value now.
        now: String,
    },
    /// Directories that are not of one sweep.
    #[error("{path}: does not belong together with {first}: {what} differs (here: {here}; there: {there})", path = path.display(), first = first.display())]
    Unlike {
        /// The directory.
        path: PathBuf,
        /// The one it is compared with.
        first: PathBuf,
        /// What differs.
        what: &'static str,
        /// Its value in the one compared with.
        there: String,
        /// Its value in the directory.
        here: String,
    },
    /// Two directories of one sweep have different rows of a run.
    #[error("{path}: run {run_index} is not the same as in {first}: {column} differs; one of them was altered, or written by another build", path = path.display(), first = first.display())]
    Disagree {
        /// The directory.
        path: PathBuf,
        /// The one it is compared with.
        first: PathBuf,
        /// The run.
        run_index: u64,
        /// The first column that differs.
        column: String,
    },
    /// An axis with the name of another column.
    #[error("axis `{0}`: a result column of this name exists already")]
    ColumnTaken(String),
    /// An axis value that does not fit its column.
    #[error("run {run_index}: axis `{axis}` is {value}, expected {expected}")]
    AxisValue {
        /// The run.
        run_index: u64,
        /// The axis.
        axis: String,
        /// Its value.
        value: String,
        /// Type of the column.
        expected: &'static str,
    },
    /// A run with too many or too few axis values.
    #[error("run {run_index}: {found} axis values, expected {expected}")]
    AxisCount {
        /// The run.
        run_index: u64,
        /// How many came.
        found: usize,
        /// How many columns there are.
        expected: usize,
    },
    /// A run that does not belong here, or was written before.
    #[error("run {run_index}: {why}")]
    UnexpectedRun {
        /// The run.
        run_index: u64,
        /// Why not.
        why: &'static str,
    },
    /// Some runs never came.
    #[error("{path}: {done} of {total} runs are in; not finished", path = path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// Runs kept.
        done: u64,
        /// Runs expected.
        total: u64,
    },
    /// The writer stopped earlier; its first error.
    #[error("writing results stopped: {0}")]
    WriterStopped(String),
}

impl ResultError {
    /// Whether the user can mend it by other arguments (exit code 2).
    pub fn is_bad_input(&self) -> bool {
        matches!(
            self,
            Self::NotResults { .. }
                | Self::Occupied { .. }
                | Self::Mismatch { .. }
                | Self::Unlike { .. }
                | Self::Disagree { .. }
                | Self::Malformed { .. }
                | Self::Damaged { .. }
                | Self::Locked(LockError::Held { .. })
                | Self::ColumnTaken(_)
        )
    }

    /// What cannot be written as JSON.
    pub(crate) fn malformed(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        move |error| Self::Malformed {
            path: path.into(),
            message: error.to_string(),
        }
    }

    pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            why: why.into(),
        }
    }

    /// A file that cannot be read, whatever the reason.
    pub(crate) fn unreadable<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self::damaged(path, error.to_string())
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Self + '_ {
        move |source| Self::Parquet {
            path: path.to_path_buf(),
            source,
        }
    }
}
