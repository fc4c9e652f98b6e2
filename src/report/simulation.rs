//! One simulation told to a person.

use comfy_table::{Cell, CellAlignment, Table, TableStyle};

use super::format::{counted, figure, number, percent, seconds};
use crate::simulator::{Distribution, RunSummary};

/// The figures of one simulation. `title` names the deployment.
pub fn simulation_text(title: &str, summary: &RunSummary, mfu: Option<f64>) -> String {
    let rate = |count: f64| {
        if summary.duration_s > 0.0 {
            number(count / summary.duration_s)
        } else {
            "-".to_owned()
        }
    };
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(["", "mean", "p50", "p90", "p95", "p99", "max"]);
    for (name, metric) in [
        ("TTFT", &summary.ttft),
        ("TBT", &summary.tbt),
        ("end to end", &summary.e2e),
        ("scheduling delay", &summary.scheduling_delay),
    ] {
        let figures = times(metric).map(|time_s| {
            let text = if time_s.is_finite() {
                seconds(time_s)
            } else {
                "-".to_owned()
            };
            Cell::new(text).set_alignment(CellAlignment::Right)
        });
        table.add_row(std::iter::once(Cell::new(name)).chain(figures));
    }
    format!(
        "{title}\n{} of {} completed in {} simulated: {} requests/s, {} output tokens/s, {} prompt \
         tokens/s\n{table}\n{}, {} tokens and {} requests each on average; GPUs busy {}, MFU {}, \
         KV cache {} in use; {}\n",
        figure("completed", f64::from(summary.completed)),
        counted(u64::from(summary.num_requests), "request"),
        seconds(summary.duration_s),
        rate(f64::from(summary.completed)),
        rate(summary.output_tokens as f64),
        rate(summary.prompt_tokens as f64),
        counted(summary.batches, "batch").replace("batchs", "batches"),
        number(summary.mean_batch_tokens),
        number(summary.mean_batch_requests),
        percent(summary.gpu_busy_fraction),
        mfu.map_or("-".to_owned(), percent),
        percent(summary.kv_cache_utilization),
        counted(summary.preemptions, "preemption"),
    )
}

fn times(metric: &Distribution) -> [f64; 6] {
    [
        metric.mean_s,
        metric.p50_s,
        metric.p90_s,
        metric.p95_s,
        metric.p99_s,
        metric.max_s,
    ]
}
