//! What is in the tables: every column once, with its unit, type and meaning,
//! and how its value is taken from a row. Writer, reader, documentation and
//! tests all read these lists.

use std::slice;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field as ArrowField, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ResultError, RunResult, requests::RequestRow};
use crate::number::narrow;
use crate::simulator::RequestOutcome;

/// Version of the layout of result directories; rises when a column changes
/// its name, type or meaning.
pub const SCHEMA_VERSION: u32 = 3;

/// Axis column that tells repetitions of one configuration apart.
pub const REPLICATION_COLUMN: &str = "replication";

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Signed 64-bit integers.
    Int,
    /// Double precision; what never happened is null, not NaN.
    Float,
    /// True or false.
    Bool,
    /// UTF-8.
    Text,
}

impl ColumnType {
    /// The name used in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int => "int64",
            Self::Float => "double",
            Self::Bool => "bool",
            Self::Text => "string",
        }
    }

    /// The Arrow type.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
        }
    }
}

/// Takes a value from each of some rows. Of many at a time, as most values take less
/// than a call.
pub type Take<R, T> = Box<dyn Fn(&[R], &mut [T]) + Send + Sync>;

/// The text of a row, or null.
pub type TextOf<R> = Box<dyn for<'a> Fn(&'a R) -> Option<&'a str> + Send + Sync>;

/// Whether something holds of a row.
pub type FlagOf<R> = Box<dyn Fn(&R) -> bool + Send + Sync>;

/// How a column's values are taken from rows.
pub enum Getter<R> {
    /// Integers, or null.
    Int(Take<R, Option<i64>>),
    /// Numbers; not finite: null.
    Float(Take<R, f64>),
    /// The text of a row, or null.
    Text(TextOf<R>),
    /// True or false.
    Flag(FlagOf<R>),
    /// Something known only once every run is in.
    Verdict(ColumnType),
}

/// One column of a table whose rows are made from `R`.
pub struct Column<R> {
    /// Name.
    pub name: &'static str,
    /// Unit; `-` for names, flags, shares and counts of no unit.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Where it comes from.
    pub getter: Getter<R>,
}

impl<R> Column<R> {
    /// Type of the column.
    pub fn column_type(&self) -> ColumnType {
        match self.getter {
            Getter::Int(_) => ColumnType::Int,
            Getter::Float(_) => ColumnType::Float,
            Getter::Text(_) => ColumnType::Text,
            Getter::Flag(_) => ColumnType::Bool,
            Getter::Verdict(column_type) => column_type,
        }
    }

    /// The line that documents it in `docs/results.md`.
    pub fn documentation(&self) -> String {
        format!(
            "| `{}` | {} | {} | {} |",
            self.name,
            self.column_type().name(),
            self.unit,
            self.meaning
        )
    }

    pub(super) fn arrow(&self) -> ArrowField {
        ArrowField::new(self.name, self.column_type().arrow(), true)
    }
}

/// Takes what `get` gives of each row.
fn of_each<R, T>(get: impl Fn(&R) -> T + Send + Sync + 'static) -> Take<R, T> {
    Box::new(move |rows, values| {
        for (value, row) in values.iter_mut().zip(rows) {
            *value = get(row);
        }
    })
}

/// What `take` takes of a single row.
fn of_one<R, T: Default>(take: &Take<R, T>, row: &R) -> T {
    let mut value = T::default();
    take(slice::from_ref(row), slice::from_mut(&mut value));
    value
}

pub(super) fn int<R>(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    get: impl Fn(&R) -> Option<i64> + Send + Sync + 'static,
) -> Column<R> {
    Column {
        name,
        unit,
        meaning,
        getter: Getter::Int(of_each(get)),
    }
}

pub(super) fn float<R>(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    get: impl Fn(&R) -> f64 + Send + Sync + 'static,
) -> Column<R> {
    Column {
        name,
        unit,
        meaning,
        getter: Getter::Float(of_each(get)),
    }
}

pub(super) fn text<R: 'static>(
    name: &'static str,
    meaning: &'static str,
    get: fn(&R) -> Option<&str>,
) -> Column<R> {
    Column {
        name,
        unit: "-",
        meaning,
        getter: Getter::Text(Box::new(get)),
    }
}

fn verdict<R>(
    name: &'static str,
    column_type: ColumnType,
    unit: &'static str,
    meaning: &'static str,
) -> Column<R> {
    Column {
        name,
        unit,
        meaning,
        getter: Getter::Verdict(column_type),
    }
}

fn flag<R: 'static>(name: &'static str, meaning: &'static str, get: fn(&R) -> bool) -> Column<R> {
    Column {
        name,
        unit: "-",
        meaning,
        getter: Getter::Flag(Box::new(get)),
    }
}

/// The two ends of the interval of one figure of a latency distribution.
macro_rules! interval {
    ($metric:ident, $figure:ident) => {
        [
            float(
                concat!(stringify!($metric), "_", stringify!($figure), "_low_s"),
                "s",
                concat!(
                    "Lower end of the 95 % interval of `",
                    stringify!($metric),
                    "_",
                    stringify!($figure),
                    "_s`"
                ),
                |run: &RunResult| run.of_steady(|s| s.$metric.$figure.low),
            ),
            float(
                concat!(stringify!($metric), "_", stringify!($figure), "_high_s"),
                "s",
                "Upper end",
                |run: &RunResult| run.of_steady(|s| s.$metric.$figure.high),
            ),
        ]
    };
}

/// The intervals of one latency distribution.
macro_rules! intervals {
    ($metric:ident) => {
        [
            interval!($metric, mean),
            interval!($metric, p50),
            interval!($metric, p90),
            interval!($metric, p95),
            interval!($metric, p99),
        ]
    };
}

/// The columns of one latency distribution but for its largest value.
macro_rules! percentiles {
    ($metric:ident, $what:literal) => {
        [
            float(
                concat!(stringify!($metric), "_mean_s"),
                "s",
                concat!($what, ": mean"),
                |run: &RunResult| run.of_summary(|s| s.$metric.mean_s),
            ),
            float(
                concat!(stringify!($metric), "_p50_s"),
                "s",
                concat!($what, ": median"),
                |run: &RunResult| run.of_summary(|s| s.$metric.p50_s),
            ),
            float(
                concat!(stringify!($metric), "_p90_s"),
                "s",
                concat!($what, ": 90th percentile"),
                |run: &RunResult| run.of_summary(|s| s.$metric.p90_s),
            ),
            float(
                concat!(stringify!($metric), "_p95_s"),
                "s",
                concat!($what, ": 95th percentile"),
                |run: &RunResult| run.of_summary(|s| s.$metric.p95_s),
            ),
            float(
                concat!(stringify!($metric), "_p99_s"),
                "s",
                concat!($what, ": 99th percentile"),
                |run: &RunResult| run.of_summary(|s| s.$metric.p99_s),
            ),
        ]
    };
}

/// The six columns of one latency distribution.
macro_rules! distribution {
    ($metric:ident, $what:literal) => {
        percentiles!($metric, $what).into_iter().chain([float(
            concat!(stringify!($metric), "_max_s"),
            "s",
            concat!($what, ": largest"),
            |run: &RunResult| run.of_summary(|s| s.$metric.max_s),
        )])
    };
}

/// Columns of `summary.parquet` before the axes.
pub static IDENTITY_COLUMNS: LazyLock<Vec<Column<RunResult>>> = LazyLock::new(|| {
    vec![
        int(
            "run_index",
            "-",
            "Position in the sweep, from 0",
            |run: &RunResult| Some(narrow::<i64, _>(run.index)),
        ),
        text(
            "run_id",
            "Content hash of the resolved configuration and of what is in the files it names, wherever they lie; the same configuration has the same id anywhere",
            |run: &RunResult| Some(&run.run_id),
        ),
        text(
            "status",
            "`ok`, `infeasible` (cannot be deployed) or `failed` (the simulation did not end well)",
            |run: &RunResult| Some(run.status.name()),
        ),
        text(
            "reason",
            "Why, unless `ok`; of an `ok` run, a remark if there is one",
            |run: &RunResult| run.reason.as_deref(),
        ),
    ]
});

/// Columns of `summary.parquet` after the axes.
pub static METRIC_COLUMNS: LazyLock<Vec<Column<RunResult>>> = LazyLock::new(|| {
    let mut columns = load_columns();
    columns.extend(distribution!(ttft, "Time to first token"));
    columns.extend(intervals!(ttft).into_iter().flatten());
    columns.extend(distribution!(
        tbt,
        "Time between tokens, over all single intervals"
    ));
    columns.extend(intervals!(tbt).into_iter().flatten());
    columns.extend(distribution!(e2e, "Arrival to last token"));
    columns.extend(intervals!(e2e).into_iter().flatten());
    columns.extend(distribution!(
        scheduling_delay,
        "Arrival to the first batch"
    ));
    columns.extend(intervals!(scheduling_delay).into_iter().flatten());
    // The largest of all is `tbt_max_s`.
    columns.extend(percentiles!(
        request_tbt_max,
        "Longest time between two tokens of a request, over requests that have two"
    ));
    columns.extend(intervals!(request_tbt_max).into_iter().flatten());
    columns.extend(judgement_columns());
    columns.extend(capacity_columns());
    columns
});

/// A figure of one run by its column; none if it is null, or none of the numbers that a
/// run has by itself.
pub fn figure(run: &RunResult, column: &str) -> Option<f64> {
    let column = METRIC_COLUMNS.iter().find(|other| other.name == column)?;
    match &column.getter {
        Getter::Int(take) => of_one(take, run).map(|whole| whole as f64),
        Getter::Float(take) => Some(of_one(take, run)).filter(|value| value.is_finite()),
        Getter::Text(_) | Getter::Flag(_) | Getter::Verdict(_) => None,
    }
}

/// The figures of one run by column; verdicts, which need the other runs, are
/// left out, and what never happened is null.
pub fn figures(run: &RunResult) -> serde_json::Map<String, Value> {
    let value = |column: &Column<RunResult>| match &column.getter {
        Getter::Int(take) => Some(of_one(take, run).into()),
        Getter::Float(take) => Some(of_one(take, run).into()),
        Getter::Text(get) => Some(get(run).into()),
        Getter::Flag(get) => Some(get(run).into()),
        Getter::Verdict(_) => None,
    };
    let named = |column: &Column<RunResult>| Some((column.name.to_owned(), value(column)?));
    METRIC_COLUMNS.iter().filter_map(named).collect()
}

/// What was asked and what came out.
fn load_columns() -> Vec<Column<RunResult>> {
    vec![
        int(
            "total_gpus",
            "GPUs",
            "GPUs of the deployment, all replicas",
            |run: &RunResult| run.total_gpus.map(i64::from),
        ),
        int(
            "num_requests",
            "requests",
            "Requests measured: those of the window, or all of the workload under `measure: all`",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.num_requests)),
        ),
        text(
            "load_verdict",
            "`stable`: the deployment keeps up with its load and the run was long enough to measure it; `saturated`: its backlog grows as long as the load lasts, and the run was stopped; `too_short`: neither can be said; null under `measure: all`",
            |run: &RunResult| run.load_verdict(),
        ),
        float(
            "window_start_s",
            "s",
            "Begin of the window that is measured, simulated time",
            |run: &RunResult| run.of_steady(|s| s.window_start_s),
        ),
        float(
            "window_end_s",
            "s",
            "Its end: the load goes on until its last request has ended",
            |run: &RunResult| run.of_steady(|s| s.window_end_s),
        ),
        int(
            "measured_requests",
            "requests",
            "Of `num_requests`, those that arrived",
            |run: &RunResult| {
                let summary = run.summary.as_ref()?;
                Some(i64::from(summary.num_requests - summary.not_arrived))
            },
        ),
        int(
            "simulated_requests",
            "requests",
            "Requests simulated in all: those that are measured, and those that warmed the system up or kept it loaded",
            |run: &RunResult| match (run.steady(), &run.summary) {
                (Some(steady), _) => Some(i64::from(steady.simulated_requests)),
                (None, summary) => summary.as_ref().map(|s| i64::from(s.num_requests)),
            },
        ),
        float(
            "offered_requests_per_s",
            "requests/s",
            "The load as it came: requests of the window over its length; under `measure: all` requests after the first over the time from the first arrival to the last, null if all came at once",
            |run: &RunResult| run.of_summary(|s| s.offered_requests_per_s),
        ),
        int(
            "completed",
            "requests",
            "Requests that got all their tokens",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.completed)),
        ),
        int(
            "rejected",
            "requests",
            "Requests this deployment can never schedule",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.rejected)),
        ),
        int(
            "rejected_by_max_model_len",
            "requests",
            "Of those, requests whose prompt leaves no room in `max_model_len`",
            |run: &RunResult| {
                let summary = run.summary.as_ref();
                summary.map(|s| i64::from(s.rejected_by_max_model_len))
            },
        ),
        int(
            "capped_by_max_model_len",
            "requests",
            "Requests whose output was shortened to fit into `max_model_len`",
            |run: &RunResult| {
                let summary = run.summary.as_ref();
                summary.map(|s| i64::from(s.capped_by_max_model_len))
            },
        ),
        int(
            "unfinished",
            "requests",
            "Requests that waited or ran when the time limit came",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.unfinished)),
        ),
        int(
            "undecided",
            "requests",
            "Of those, requests that could still have kept every target: neither served nor failed",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.undecided)),
        ),
        int(
            "not_arrived",
            "requests",
            "Requests that had not entered when the time limit came: neither served nor failed",
            |run: &RunResult| run.summary.as_ref().map(|s| i64::from(s.not_arrived)),
        ),
        float(
            "duration_s",
            "s",
            "Length of the window; under `measure: all` first arrival to last completion; simulated",
            |run: &RunResult| run.of_summary(|s| s.duration_s),
        ),
        float(
            "throughput_requests_per_s",
            "requests/s",
            "Requests completed within `duration_s`, per second",
            |run: &RunResult| run.of_summary(|s| f64::from(s.served_requests) / s.duration_s),
        ),
        float(
            "throughput_low_requests_per_s",
            "requests/s",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_steady(|s| s.requests_per_s.low),
        ),
        float(
            "throughput_high_requests_per_s",
            "requests/s",
            "Upper end",
            |run: &RunResult| run.of_steady(|s| s.requests_per_s.high),
        ),
        float(
            "throughput_tokens_per_s",
            "tokens/s",
            "Output tokens of those requests, per second",
            |run: &RunResult| run.output_tokens_per_s(),
        ),
        float(
            "throughput_low_tokens_per_s",
            "tokens/s",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_steady(|s| s.output_tokens_per_s.low),
        ),
        float(
            "throughput_high_tokens_per_s",
            "tokens/s",
            "Upper end",
            |run: &RunResult| run.of_steady(|s| s.output_tokens_per_s.high),
        ),
        float(
            "served_tokens_share",
            "share",
            "Output tokens of the requests completed within the window over those of the requests that arrived in it: about 1 where the deployment keeps up, and comparable between deployments, which all serve the same requests",
            |run: &RunResult| run.of_steady(|s| s.served_tokens_share.value),
        ),
        float(
            "served_tokens_share_low",
            "share",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_steady(|s| s.served_tokens_share.low),
        ),
        float(
            "served_tokens_share_high",
            "share",
            "Upper end",
            |run: &RunResult| run.of_steady(|s| s.served_tokens_share.high),
        ),
        float(
            "throughput_total_tokens_per_s",
            "tokens/s",
            "Prompt and output tokens of those requests, per second",
            |run: &RunResult| {
                run.of_summary(|s| (s.output_tokens + s.prompt_tokens) as f64 / s.duration_s)
            },
        ),
        float(
            "goodput_requests_per_s",
            "requests/s",
            "Requests that keep every target of their own (those of `slo_attainment`), per second of `duration_s`; null without such targets",
            |run: &RunResult| run.goodput_requests_per_s(),
        ),
        float(
            "goodput_low_requests_per_s",
            "requests/s",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_steady(|s| s.goodput.low),
        ),
        float(
            "goodput_high_requests_per_s",
            "requests/s",
            "Upper end",
            |run: &RunResult| run.of_steady(|s| s.goodput.high),
        ),
        float(
            "goodput_requests_per_s_per_gpu",
            "requests/s/GPU",
            "`goodput_requests_per_s` / `total_gpus`",
            |run: &RunResult| run.per_gpu(run.goodput_requests_per_s()),
        ),
        float(
            "goodput_low_requests_per_s_per_gpu",
            "requests/s/GPU",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.per_gpu(run.of_steady(|s| s.goodput.low)),
        ),
        float(
            "goodput_high_requests_per_s_per_gpu",
            "requests/s/GPU",
            "Upper end",
            |run: &RunResult| run.per_gpu(run.of_steady(|s| s.goodput.high)),
        ),
        float(
            "throughput_tokens_per_s_per_gpu",
            "tokens/s/GPU",
            "`throughput_tokens_per_s` / `total_gpus`",
            |run: &RunResult| run.per_gpu(run.output_tokens_per_s()),
        ),
        float(
            "throughput_low_tokens_per_s_per_gpu",
            "tokens/s/GPU",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.per_gpu(run.of_steady(|s| s.output_tokens_per_s.low)),
        ),
        float(
            "throughput_high_tokens_per_s_per_gpu",
            "tokens/s/GPU",
            "Upper end",
            |run: &RunResult| run.per_gpu(run.of_steady(|s| s.output_tokens_per_s.high)),
        ),
    ]
}

/// What a configuration holds, where that was looked for.
fn capacity_columns() -> Vec<Column<RunResult>> {
    vec![
        float(
            "capacity_requests_per_s",
            "requests/s",
            "Highest load that keeps all targets; 0: none does. Null but in a capacity study, as all of `capacity_*`; the other figures of such a row are of a run at `qps`, the highest load tried that keeps the targets for certain",
            |run: &RunResult| run.of_capacity(|c| c.requests_per_s),
        ),
        float(
            "capacity_low_requests_per_s",
            "requests/s",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_capacity(|c| c.low_requests_per_s),
        ),
        float(
            "capacity_high_requests_per_s",
            "requests/s",
            "Upper end",
            |run: &RunResult| run.of_capacity(|c| c.high_requests_per_s),
        ),
        float(
            "capacity_per_gpu",
            "requests/s/GPU",
            "`capacity_requests_per_s` / `total_gpus`",
            |run: &RunResult| run.per_gpu(run.of_capacity(|c| c.requests_per_s)),
        ),
        text(
            "binding_target",
            "Target that a little more load breaks; `load`: more than can be served",
            |run: &RunResult| run.capacity.as_ref()?.binding_target.as_deref(),
        ),
        int(
            "capacity_probes",
            "-",
            "Loads and lengths that were simulated to find it",
            |run: &RunResult| run.capacity.as_ref().map(|c| i64::from(c.probes)),
        ),
        int(
            "capacity_simulated_requests",
            "requests",
            "Requests simulated to find it",
            |run: &RunResult| {
                let found = run.capacity.as_ref();
                found.and_then(|c| i64::try_from(c.simulated_requests).ok())
            },
        ),
    ]
}

/// How good it is, how busy the machine was, and what it costs.
fn judgement_columns() -> Vec<Column<RunResult>> {
    vec![
        verdict("slo_met", ColumnType::Bool, "-", "`slo_verdict` is `meets`"),
        verdict(
            "slo_verdict",
            ColumnType::Text,
            "-",
            "`meets`: it is certain to 97.5 % that all targets hold, the load is not `saturated` and every request whose outcome is decided completed; `misses`: that they do not, or it is `saturated`; `unsure`: neither",
        ),
        verdict(
            "slo_probability",
            ColumnType::Float,
            "share",
            "Probability that all targets hold; 0 or 1 under `measure: all` without replications, which is what happened to these requests",
        ),
        float(
            "slo_attainment",
            "share",
            "Share of the requests whose outcome is decided (`num_requests` - `not_arrived` - `undecided`) that keep every target on their own: those of `slo.per_request`, or else the upper limits of latencies (`tbt_*` on the request's mean interval, `request_tbt_max_*` on its longest); null without such targets",
            |run: &RunResult| {
                run.of_summary(|s| match s.slo_met_requests {
                    Some(met) => f64::from(met) / f64::from(s.decided()),
                    None => f64::NAN,
                })
            },
        ),
        float(
            "slo_attainment_low",
            "share",
            "Lower end of its 95 % interval",
            |run: &RunResult| run.of_steady(|s| s.attainment.low),
        ),
        float(
            "slo_attainment_high",
            "share",
            "Upper end",
            |run: &RunResult| run.of_steady(|s| s.attainment.high),
        ),
        verdict(
            "pareto",
            ColumnType::Bool,
            "-",
            "On the Pareto frontier of the objectives among configurations that meet the targets; with replications, by their means",
        ),
        float(
            "gpu_busy_fraction",
            "share",
            "Share of stage time spent executing, mean over replicas and stages",
            |run: &RunResult| run.of_summary(|s| s.gpu_busy_fraction),
        ),
        float(
            "mfu",
            "share",
            "Model FLOPs utilisation over `duration_s`; as other utilisations, batches and preemptions, in steady state over the whole segments of the window, 1/32 to 1/64 of the run each",
            |run: &RunResult| run.mfu.unwrap_or(f64::NAN),
        ),
        float(
            "kv_cache_utilization",
            "share",
            "Time-weighted share of KV cache blocks in use, mean over replicas",
            |run: &RunResult| run.of_summary(|s| s.kv_cache_utilization),
        ),
        int(
            "preemptions",
            "-",
            "Restarts of requests for lack of KV cache blocks",
            |run: &RunResult| {
                run.summary
                    .as_ref()
                    .map(|s| narrow::<i64, _>(s.preemptions))
            },
        ),
        int("batches", "-", "Batches executed", |run: &RunResult| {
            run.summary.as_ref().map(|s| narrow::<i64, _>(s.batches))
        }),
        float(
            "mean_batch_tokens",
            "tokens",
            "Mean tokens of a batch",
            |run: &RunResult| run.of_summary(|s| s.mean_batch_tokens),
        ),
        float(
            "mean_batch_requests",
            "requests",
            "Mean requests of a batch",
            |run: &RunResult| run.of_summary(|s| s.mean_batch_requests),
        ),
        float(
            "cost_usd_per_hour",
            "USD/h",
            "Price of all its GPUs",
            |run: &RunResult| run.cost_usd_per_hour.unwrap_or(f64::NAN),
        ),
        float(
            "cost_usd_per_million_tokens",
            "USD/Mtoken",
            "`cost_usd_per_hour` per million output tokens of the requests completed within `duration_s`",
            |run: &RunResult| run.cost_usd_per_million_tokens(run.output_tokens_per_s()),
        ),
        float(
            "cost_low_usd_per_million_tokens",
            "USD/Mtoken",
            "Lower end of its 95 % interval",
            |run: &RunResult| {
                run.cost_usd_per_million_tokens(run.of_steady(|s| s.output_tokens_per_s.high))
            },
        ),
        float(
            "cost_high_usd_per_million_tokens",
            "USD/Mtoken",
            "Upper end",
            |run: &RunResult| {
                run.cost_usd_per_million_tokens(run.of_steady(|s| s.output_tokens_per_s.low))
            },
        ),
        float(
            "roofline_fraction",
            "share",
            "Share of the steps' time that is priced by peak figures of the device, not measured",
            |run: &RunResult| run.assumed(|a| a.roofline_fraction),
        ),
        float(
            "substituted_fraction",
            "share",
            "Share priced by what was measured for something else",
            |run: &RunResult| run.assumed(|a| a.substituted_fraction),
        ),
        float(
            "extrapolated_fraction",
            "share",
            "Share priced beyond what was measured",
            |run: &RunResult| run.assumed(|a| a.extrapolated_fraction),
        ),
        float(
            "doubtful_fraction",
            "share",
            "Share priced by measurements that are implausible",
            |run: &RunResult| run.assumed(|a| a.doubtful_fraction),
        ),
        text(
            "assumptions",
            "What the figures rest on that nobody measured or published, a sentence a line",
            |run: &RunResult| {
                let assumptions = run.assumptions.as_ref()?;
                let sentences = assumptions.sentences.as_str();
                (!sentences.is_empty()).then_some(sentences)
            },
        ),
    ]
}

/// Columns of `timing.parquet`, the only table that differs from one machine
/// or thread count to the next.
pub static TIMING_COLUMNS: LazyLock<Vec<Column<RunResult>>> = LazyLock::new(|| {
    vec![
        int(
            "run_index",
            "-",
            "Position in the sweep, from 0",
            |run: &RunResult| Some(narrow::<i64, _>(run.index)),
        ),
        text("run_id", "As in `summary.parquet`", |run: &RunResult| {
            Some(&run.run_id)
        }),
        float(
            "wall_time_s",
            "s",
            "Time the simulation took",
            |run: &RunResult| run.wall_time_s,
        ),
    ]
});

/// Columns of `requests/part-*.parquet` after `run_id`. Names, units and order
/// are those of Vidur-AlibabaCloud's `request_metrics.csv`.
pub static REQUEST_COLUMNS: LazyLock<Vec<Column<RequestRow>>> = LazyLock::new(|| {
    let mut columns = request_time_columns();
    columns.extend(request_history_columns());
    columns.extend(request_transfer_columns());
    columns.extend(request_length_columns());
    columns
});

/// Column of the per-request table that names the request.
pub(super) const REQUEST_ID: &str = "Request Id";

/// Column that names the run.
pub(super) const RUN_ID: &str = "run_id";

/// `run_id` of the per-request table.
pub const REQUEST_RUN_ID_MEANING: &str = "Run the request belongs to; joins `summary.parquet`";

fn request_time_columns() -> Vec<Column<RequestRow>> {
    vec![
        int(
            REQUEST_ID,
            "-",
            "Index in the workload",
            |r: &RequestRow| Some(i64::from(r.record.request_id)),
        ),
        float(
            "request_e2e_time",
            "s",
            "Arrival to last token",
            |r: &RequestRow| r.record.e2e_s(),
        ),
        float(
            "request_e2e_time_normalized",
            "s/token",
            "The same per output token",
            |r: &RequestRow| r.record.e2e_s() / r.decode_tokens(),
        ),
        float(
            "request_execution_time",
            "s",
            "Stage times of its batches, host overhead included",
            |r: &RequestRow| r.record.execution_s,
        ),
        float(
            "request_execution_time_normalized",
            "s/token",
            "The same per output token",
            |r: &RequestRow| r.record.execution_s / r.decode_tokens(),
        ),
        float(
            "request_model_execution_time",
            "s",
            "Stage times of its batches without host overhead",
            |r: &RequestRow| r.record.model_execution_s,
        ),
        float(
            "request_model_execution_time_normalized",
            "s/token",
            "The same per output token",
            |r: &RequestRow| r.record.model_execution_s / r.decode_tokens(),
        ),
        float(
            "request_preemption_time",
            "s",
            "Time from its first stage start to its end in which it was not executing",
            |r: &RequestRow| r.record.preemption_s,
        ),
        float(
            "request_scheduling_delay",
            "s",
            "Arrival to the first batch",
            |r: &RequestRow| r.record.scheduling_delay_s(),
        ),
        float(
            "request_execution_plus_preemption_time",
            "s",
            "`request_execution_time` + `request_preemption_time`",
            |r: &RequestRow| r.record.execution_s + r.record.preemption_s,
        ),
        float(
            "request_execution_plus_preemption_time_normalized",
            "s/token",
            "The same per output token",
            |r: &RequestRow| (r.record.execution_s + r.record.preemption_s) / r.decode_tokens(),
        ),
        float(
            "prefill_e2e_time",
            "s",
            "Time to first token: arrival to the end of the prefill",
            |r: &RequestRow| r.record.ttft_s(),
        ),
        float(
            "prefill_time_execution_plus_preemption",
            "s",
            "First batch to the end of the prefill",
            |r: &RequestRow| r.record.prefill_completed_at_s - r.record.scheduled_at_s,
        ),
        float(
            "prefill_time_execution_plus_preemption_normalized",
            "s/token",
            "The same per prompt token",
            |r: &RequestRow| {
                (r.record.prefill_completed_at_s - r.record.scheduled_at_s)
                    / f64::from(r.record.prefill_tokens)
            },
        ),
        float(
            "decode_time_execution_plus_preemption_normalized",
            "s/token",
            "`decode_time` per output token",
            |r: &RequestRow| r.decode_s() / r.decode_tokens(),
        ),
    ]
}

fn request_history_columns() -> Vec<Column<RequestRow>> {
    vec![
        float("arrived_at", "s", "Arrival", |r: &RequestRow| {
            r.record.arrived_at_s
        }),
        float(
            "prefill_arrived_at",
            "s",
            "Arrival at the prefill replica; equals `arrived_at`",
            |r: &RequestRow| r.record.arrived_at_s,
        ),
        float(
            "scheduled_at",
            "s",
            "Start of the first batch that held it",
            |r: &RequestRow| r.record.scheduled_at_s,
        ),
        float(
            "prefill_completed_at",
            "s",
            "First output token",
            |r: &RequestRow| r.record.prefill_completed_at_s,
        ),
        float(
            "decode_arrived_at",
            "s",
            "KV cache on the decode replica; equals `prefill_completed_at` without disaggregation",
            |r: &RequestRow| r.record.decode_arrived_at_s,
        ),
        float(
            "completed_at",
            "s",
            "Last output token",
            |r: &RequestRow| r.record.completed_at_s,
        ),
        float(
            "preempted_time",
            "s",
            "As `request_preemption_time`",
            |r: &RequestRow| r.record.preemption_s,
        ),
        float(
            "decode_time",
            "s",
            "First to last output token, KV transfer included",
            |r: &RequestRow| r.decode_s(),
        ),
    ]
}

fn request_transfer_columns() -> Vec<Column<RequestRow>> {
    vec![
        int(
            "prefill_replica_id",
            "-",
            "Replica that ran (or finished) the prefill",
            |r: &RequestRow| replica(r.record.prefill_replica_id),
        ),
        int(
            "decode_replica_id",
            "-",
            "Replica that ran the decode; without disaggregation the same",
            |r: &RequestRow| replica(r.record.decode_replica_id),
        ),
        float(
            "pd_p2p_comm_size",
            "bytes",
            "KV cache moved from the prefill to the decode replica; 0 without disaggregation",
            |r: &RequestRow| r.record.pd_p2p_comm_size_bytes,
        ),
        float(
            "pd_p2p_comm_time",
            "s",
            "Time the KV transfer took; 0 without disaggregation",
            |r: &RequestRow| r.record.pd_p2p_comm_time_s,
        ),
        float(
            "pd_p2p_comm_bandwidth",
            "bytes/s",
            "`pd_p2p_comm_size` / `pd_p2p_comm_time`; null without disaggregation",
            |r: &RequestRow| r.record.pd_p2p_comm_size_bytes / r.record.pd_p2p_comm_time_s,
        ),
        float(
            "pd_p2p_bytes_per_token",
            "bytes/token",
            "`pd_p2p_comm_size` per prompt token",
            |r: &RequestRow| r.record.pd_p2p_comm_size_bytes / f64::from(r.record.prefill_tokens),
        ),
        text(
            "pd_p2p_comm_dtype",
            "Format of the KV cache moved; null without disaggregation",
            |r: &RequestRow| r.transfer_dtype(),
        ),
    ]
}

fn request_length_columns() -> Vec<Column<RequestRow>> {
    vec![
        float(
            "request_inter_arrival_delay",
            "s",
            "Since the arrival of the request before; null for the first, and where that one was not kept",
            |r: &RequestRow| r.inter_arrival_delay_s,
        ),
        int(
            "request_num_tokens",
            "tokens",
            "Prompt and output tokens",
            |r: &RequestRow| Some(i64::from(r.prompt_tokens) + i64::from(r.output_tokens)),
        ),
        int(
            "request_num_prefill_tokens",
            "tokens",
            "Prompt tokens",
            |r: &RequestRow| Some(i64::from(r.prompt_tokens)),
        ),
        int(
            "request_num_decode_tokens",
            "tokens",
            "Output tokens, the first one included",
            |r: &RequestRow| Some(i64::from(r.output_tokens)),
        ),
        float(
            "request_pd_ratio",
            "-",
            "Prompt tokens per output token",
            |r: &RequestRow| f64::from(r.prompt_tokens) / f64::from(r.output_tokens),
        ),
        int(
            "request_num_restarts",
            "-",
            "Restarts after preemption",
            |r: &RequestRow| Some(i64::from(r.record.restarts)),
        ),
        float(
            "tbt",
            "s/token",
            "`decode_time` / `request_num_decode_tokens`, as Vidur-AlibabaCloud defines it; null for a single token; the mean interval is `decode_time` / (`request_num_decode_tokens` - 1)",
            |r: &RequestRow| r.record.tbt_s().unwrap_or(f64::NAN),
        ),
        float(
            "request_longest_interval",
            "s",
            "Longest time between two consecutive output tokens, preemptions and KV transfer included; null for a single token; of a request that was cut off, the time since its last token counts too",
            |r: &RequestRow| r.record.longest_interval_s,
        ),
        text(
            "status",
            "`completed`, or why not: `rejected_too_large_for_kv_cache`, `rejected_prompt_exceeds_batch`, `rejected_prompt_exceeds_max_model_len`, `unfinished_time_limit`, `unfinished_end_of_run` (the run had seen enough), `not_arrived`; `unfinished_stuck` only where `compat` keeps an original's way of getting stuck",
            |r: &RequestRow| Some(outcome_name(r.record.outcome)),
        ),
        flag(
            "measured",
            "Whether the figures of the run are of this request: of those that warm the system up or keep it loaded they are not",
            |r: &RequestRow| r.measured,
        ),
    ]
}

fn replica(id: u32) -> Option<i64> {
    (id != u32::MAX).then_some(i64::from(id))
}

fn outcome_name(outcome: RequestOutcome) -> &'static str {
    match outcome {
        RequestOutcome::Completed => "completed",
        RequestOutcome::RejectedTooLargeForKvCache => "rejected_too_large_for_kv_cache",
        RequestOutcome::RejectedPromptExceedsBatch => "rejected_prompt_exceeds_batch",
        RequestOutcome::RejectedPromptExceedsMaxModelLen => "rejected_prompt_exceeds_max_model_len",
        RequestOutcome::UnfinishedTimeLimit => "unfinished_time_limit",
        RequestOutcome::UnfinishedEndOfRun => "unfinished_end_of_run",
        RequestOutcome::NotArrived => "not_arrived",
        RequestOutcome::UnfinishedStuck => "unfinished_stuck",
    }
}

/// What a column that tells runs apart says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnRole {
    /// What the sweep varies.
    #[default]
    Axis,
    /// What the row of a list is called.
    Label,
    /// What it is of besides, for tables of several sweeps.
    Shared,
}

/// A column of `summary.parquet` that says what a run is of: an axis of the sweep, a
/// label, or what runs have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisColumn {
    /// Dotted configuration key.
    pub name: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// What it says.
    #[serde(default)]
    pub role: ColumnRole,
}

impl AxisColumn {
    /// The narrowest type that holds all values: integers, numbers, flags,
    /// otherwise text (maps in the compact form of [`compact`]).
    pub fn infer<'a>(name: &str, values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut found: Option<ColumnType> = None;
        for value in values {
            let this = match value {
                Value::Null => continue,
                Value::Bool(_) => ColumnType::Bool,
                Value::Number(number) if number.as_i64().is_some() => ColumnType::Int,
                Value::Number(_) => ColumnType::Float,
                _ => ColumnType::Text,
            };
            found = Some(match (found, this) {
                (None, this) => this,
                (Some(before), this) if before == this => this,
                (Some(ColumnType::Int), ColumnType::Float)
                | (Some(ColumnType::Float), ColumnType::Int) => ColumnType::Float,
                _ => ColumnType::Text,
            });
        }
        Self {
            name: name.to_string(),
            column_type: found.unwrap_or(ColumnType::Text),
            role: ColumnRole::Axis,
        }
    }
}

/// A configuration value as one short text: `sarathi(chunk_size=512)` for a map
/// with a `type`, `{a=1, b=2}` for one without, texts as they are.
pub fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(compact).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .filter(|(key, value)| !(*key == "type" && value.is_string()))
                .map(|(key, value)| format!("{key}={}", compact(value)))
                .collect();
            match (map.get("type").and_then(Value::as_str), fields.is_empty()) {
                (Some(kind), true) => kind.to_string(),
                (Some(kind), false) => format!("{kind}({})", fields.join(", ")),
                (None, _) => format!("{{{}}}", fields.join(", ")),
            }
        }
        other => other.to_string(),
    }
}

/// Schema of `summary.parquet` for these axes.
pub fn summary_schema(axes: &[AxisColumn]) -> SchemaRef {
    let identity = IDENTITY_COLUMNS.iter().map(Column::arrow);
    let axes = axes
        .iter()
        .map(|axis| ArrowField::new(&axis.name, axis.column_type.arrow(), true));
    let metrics = METRIC_COLUMNS.iter().map(Column::arrow);
    Arc::new(Schema::new(
        identity.chain(axes).chain(metrics).collect::<Vec<_>>(),
    ))
}

/// Schema of a block's part: the summary without verdicts, and its timing.
pub(super) fn part_schema(axes: &[AxisColumn]) -> SchemaRef {
    let summary = summary_schema(axes);
    let is_verdict = |name: &str| {
        METRIC_COLUMNS
            .iter()
            .any(|c| c.name == name && matches!(c.getter, Getter::Verdict(_)))
    };
    let mut fields: Vec<_> = summary
        .fields()
        .iter()
        .filter(|field| !is_verdict(field.name()))
        .cloned()
        .collect();
    fields.extend(
        TIMING_COLUMNS
            .iter()
            .filter(|c| c.name == "wall_time_s")
            .map(|c| Arc::new(c.arrow())),
    );
    Arc::new(Schema::new(fields))
}

/// Schema of `timing.parquet`.
pub fn timing_schema() -> SchemaRef {
    Arc::new(Schema::new(
        TIMING_COLUMNS.iter().map(Column::arrow).collect::<Vec<_>>(),
    ))
}

/// Schema of `requests/part-*.parquet`.
pub fn request_schema() -> SchemaRef {
    let run_id = ArrowField::new(RUN_ID, DataType::Utf8, true);
    let columns = REQUEST_COLUMNS.iter().map(Column::arrow);
    Arc::new(Schema::new(
        std::iter::once(run_id).chain(columns).collect::<Vec<_>>(),
    ))
}

/// Names of all fixed columns of `summary.parquet`.
pub fn summary_column_names() -> impl Iterator<Item = &'static str> {
    let identity = IDENTITY_COLUMNS.iter().map(|c| c.name);
    identity.chain(METRIC_COLUMNS.iter().map(|c| c.name))
}

/// Refuses axes that would hide a column or one another.
pub(super) fn check_axes(axes: &[AxisColumn]) -> Result<(), ResultError> {
    for (position, axis) in axes.iter().enumerate() {
        let taken = summary_column_names().any(|name| name == axis.name)
            || axis.name == "wall_time_s"
            || axes[..position].iter().any(|other| other.name == axis.name);
        if taken {
            return Err(ResultError::ColumnTaken(axis.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::columns::objective_columns;

    /// Targets and objectives are checked before there are any results.
    #[test]
    fn the_catalogue_of_objectives_is_that_of_the_summary() {
        let is_number =
            |c: &&Column<RunResult>| matches!(c.column_type(), ColumnType::Int | ColumnType::Float);
        let mut here: Vec<&str> = (METRIC_COLUMNS.iter().filter(is_number))
            .map(|column| column.name)
            .collect();
        let mut there: Vec<&str> = objective_columns().iter().map(String::as_str).collect();
        here.sort_unstable();
        there.sort_unstable();
        assert_eq!(here, there);
    }
}
