//! Names of result columns that targets and objectives may speak of.

use std::sync::LazyLock;

const METRICS: [&str; 4] = ["ttft", "tbt", "e2e", "scheduling_delay"];
const STATISTICS: [&str; 6] = ["mean", "p50", "p90", "p95", "p99", "max"];

/// Summary columns other than latencies that can be maximised or minimised.
const QUANTITIES: [&str; 15] = [
    "throughput_tokens_per_s_per_gpu",
    "throughput_tokens_per_s",
    "throughput_requests_per_s",
    "cost_usd_per_million_tokens",
    "cost_usd_per_hour",
    "total_gpus",
    "slo_attainment",
    "gpu_busy_fraction",
    "mfu",
    "kv_cache_utilization",
    "preemptions",
    "duration_s",
    "completed",
    "num_requests",
    "qps",
];

/// Latency columns, which targets bound: `<metric>_<statistic>_s`.
pub fn latency_columns() -> &'static [String] {
    static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let of = |metric| STATISTICS.map(|statistic| format!("{metric}_{statistic}_s"));
        METRICS.iter().flat_map(of).collect()
    });
    &COLUMNS
}

/// Columns that objectives may name: latencies and other numbers of a summary.
pub fn objective_columns() -> &'static [String] {
    static COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let quantities = QUANTITIES.iter().map(|name| (*name).to_owned());
        quantities
            .chain(latency_columns().iter().cloned())
            .collect()
    });
    &COLUMNS
}
