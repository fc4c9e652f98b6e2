//! The catalogue of result columns that targets and objectives may name: one for
//! specifications, options of commands and the judging of results. A test of the result
//! tables holds it against their schema.

use std::sync::LazyLock;

use crate::measurement::Side;
use crate::spelling::did_you_mean;

/// What latencies are measured of requests.
const METRICS: [&str; 5] = ["ttft", "tbt", "e2e", "scheduling_delay", "request_tbt_max"];
const STATISTICS: [&str; 6] = ["mean", "p50", "p90", "p95", "p99", "max"];

/// Columns of numbers in a summary other than latencies and keys of a run, those first
/// that are asked for most.
const QUANTITIES: [&str; 41] = [
    "throughput_tokens_per_s_per_gpu",
    "throughput_tokens_per_s",
    "throughput_total_tokens_per_s",
    "throughput_requests_per_s",
    "goodput_requests_per_s",
    "goodput_requests_per_s_per_gpu",
    "capacity_requests_per_s",
    "capacity_per_gpu",
    "offered_requests_per_s",
    "cost_usd_per_million_tokens",
    "cost_usd_per_hour",
    "total_gpus",
    "slo_attainment",
    "slo_probability",
    "simulated_requests",
    "measured_requests",
    "window_start_s",
    "window_end_s",
    "served_tokens_share",
    "gpu_busy_fraction",
    "mfu",
    "kv_cache_utilization",
    "preemptions",
    "duration_s",
    "num_requests",
    "completed",
    "rejected",
    "rejected_by_max_model_len",
    "capped_by_max_model_len",
    "unfinished",
    "undecided",
    "not_arrived",
    "batches",
    "mean_batch_tokens",
    "mean_batch_requests",
    "roofline_fraction",
    "substituted_fraction",
    "extrapolated_fraction",
    "doubtful_fraction",
    "capacity_probes",
    "capacity_simulated_requests",
];

/// Other columns than latencies that have an interval.
const INTERVAL_QUANTITIES: [&str; 6] = [
    "goodput_requests_per_s",
    "goodput_requests_per_s_per_gpu",
    "throughput_requests_per_s",
    "throughput_tokens_per_s",
    "throughput_tokens_per_s_per_gpu",
    "cost_usd_per_million_tokens",
];

/// Columns that have an interval too, which a run is not extended for.
const OTHERS_WITH_INTERVALS: [&str; 3] = [
    "slo_attainment",
    "served_tokens_share",
    "capacity_requests_per_s",
];

/// A column that cannot serve as what it is named for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ColumnError {
    /// Nothing a target can bound.
    #[error("unknown target `{column}`; allowed: {}{}", known.join(", "), hint(column, known))]
    Target {
        /// The name given.
        column: String,
        /// What would do.
        known: Vec<String>,
    },
    /// Nothing that can be made large or small.
    #[error("unknown objective `{column}`; allowed: {}{}", known.join(", "), hint(column, known))]
    Objective {
        /// The name given.
        column: String,
        /// What would do.
        known: Vec<String>,
    },
    /// Nothing that has an interval.
    #[error("unknown figure `{column}`; allowed: {}{}", interval_columns().join(", "), hint(column, interval_columns()))]
    Interval {
        /// The name given.
        column: String,
    },
}

fn hint(given: &str, known: &[String]) -> String {
    did_you_mean(given, known.iter().map(String::as_str))
}

/// Latency columns: `<metric>_<statistic>_s`.
pub fn latency_columns() -> &'static [String] {
    static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let of = |metric| STATISTICS.map(|statistic| format!("{metric}_{statistic}_s"));
        let all = METRICS.iter().flat_map(of);
        // The largest of the largest is `tbt_max_s`.
        all.filter(|name| name != "request_tbt_max_max_s").collect()
    });
    &COLUMNS
}

/// Columns that have an interval: means and percentiles of latencies, rates, and cost.
pub fn interval_columns() -> &'static [String] {
    static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let latencies = latency_columns().iter();
        let latencies = latencies.filter(|name| !name.ends_with("_max_s")).cloned();
        let others = INTERVAL_QUANTITIES.iter().map(|name| (*name).to_owned());
        latencies.chain(others).collect()
    });
    &COLUMNS
}

/// The columns of the two ends of the interval of `column`; none if it has none.
pub fn interval_ends(column: &str) -> Option<[String; 2]> {
    if !OTHERS_WITH_INTERVALS.contains(&column) {
        check_interval(column).ok()?;
    } else if is_share(column) {
        return Some(["low", "high"].map(|end| format!("{column}_{end}")));
    }
    let (figure, unit) = match column.strip_suffix("_s") {
        Some(figure) if metric_of(column).is_some() => (figure, "s"),
        _ => column.split_once('_')?,
    };
    Some(["low", "high"].map(|end| format!("{figure}_{end}_{unit}")))
}

/// Whether `column` has an interval.
///
/// # Errors
/// If not.
pub fn check_interval(column: &str) -> Result<(), ColumnError> {
    match interval_columns().iter().any(|known| known == column) {
        true => Ok(()),
        false => Err(ColumnError::Interval {
            column: column.to_owned(),
        }),
    }
}

/// Columns of numbers in every summary: what objectives may name besides keys of a run
/// that the summary has as numbers.
pub fn objective_columns() -> &'static [String] {
    static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let quantities = QUANTITIES.iter().map(|name| (*name).to_owned());
        let figures = interval_columns().iter().map(String::as_str);
        let ends = figures
            .chain(OTHERS_WITH_INTERVALS)
            .filter_map(interval_ends);
        quantities
            .chain(latency_columns().iter().cloned())
            .chain(ends.flatten())
            .collect()
    });
    &COLUMNS
}

/// `ttft` of `ttft_p90_s`; none if it is not a column of a latency.
pub fn metric_of(column: &str) -> Option<&'static str> {
    let known = latency_columns().iter().any(|known| known == column);
    let of = |metric: &&str| {
        let rest = column.strip_prefix(*metric);
        rest.is_some_and(|rest| rest.starts_with('_'))
    };
    METRICS.into_iter().find(|metric| known && of(metric))
}

/// Which side of a limit is allowed where a target is a number alone: latencies and costs
/// are limited from above, what is served from below; none if neither goes without saying.
pub fn usual_side(column: &str) -> Option<Side> {
    let is_latency = column.ends_with("_s")
        && METRICS.iter().any(|metric| {
            let rest = column.strip_prefix(metric);
            rest.is_some_and(|rest| rest.starts_with('_'))
        });
    if is_latency || column.starts_with("cost_") {
        return Some(Side::AtMost);
    }
    let is_served = ["throughput_", "goodput_", "capacity_", "slo_", "served_"];
    is_served
        .iter()
        .any(|start| column.starts_with(start))
        .then_some(Side::AtLeast)
}

/// Limits that make sense for a column: in words, and which they are.
pub(super) fn values_of(column: &str) -> (&'static str, fn(f64) -> bool) {
    if metric_of(column).is_some() {
        let is_time = |limit: f64| limit.is_finite() && limit > 0.0;
        return ("a number of seconds greater than 0", is_time);
    }
    match is_share(column) {
        true => ("a share of at least 0 and at most 1", |limit| {
            (0.0..=1.0).contains(&limit)
        }),
        false => ("a number of at least 0", |limit| {
            limit.is_finite() && limit >= 0.0
        }),
    }
}

/// Whether the values of a column are shares.
pub fn is_share(column: &str) -> bool {
    matches!(column, "mfu" | "served_tokens_share")
        || column.starts_with("slo_")
        || column.ends_with("_fraction")
        || column.ends_with("_utilization")
}

/// Whether a column counts requests that keep their targets.
pub fn counts_requests(column: &str) -> bool {
    column.starts_with("goodput_") || column.starts_with("slo_attainment")
}

/// Columns that targets may bound in every sweep.
pub fn target_columns() -> Vec<String> {
    target_columns_with(&[]).map(str::to_owned).collect()
}

/// The same where the summary has `number_keys` of a run as numbers, too. The probability
/// that targets are met cannot be one of them.
fn target_columns_with<'a>(number_keys: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    number_columns(number_keys).filter(|column| *column != "slo_probability")
}

/// Whether a target may bound `column` where the summary has `number_keys` of a run as
/// numbers.
pub(super) fn check_target(column: &str, number_keys: &[&str]) -> Result<(), ColumnError> {
    let known = || target_columns_with(number_keys);
    match known().any(|known| known == column) {
        true => Ok(()),
        false => Err(ColumnError::Target {
            column: column.to_owned(),
            known: std::iter::once("per_request")
                .chain(known())
                .map(str::to_owned)
                .collect(),
        }),
    }
}

/// Columns of numbers where the summary has `number_keys` of a run as numbers.
fn number_columns<'a>(number_keys: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let fixed = objective_columns().iter().map(String::as_str);
    fixed.chain(number_keys.iter().copied())
}

/// Whether `column` may be an objective where the summary has `number_keys` of a run as
/// numbers.
pub fn check_objective(column: &str, number_keys: &[&str]) -> Result<(), ColumnError> {
    match number_columns(number_keys).any(|known| known == column) {
        true => Ok(()),
        false => Err(ColumnError::Objective {
            column: column.to_owned(),
            known: number_columns(number_keys).map(str::to_owned).collect(),
        }),
    }
}
