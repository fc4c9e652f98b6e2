//! One simulation told to a person.

use super::format::{counted, figure, number, percent, seconds};
use super::text_table::{TextColumn, TextTable, wrapped};
use crate::simulator::{Distribution, RunSummary};

/// The figures of one simulation in lines of at most `width` characters. `title` names
/// the deployment.
pub fn simulation_text(
    title: &str,
    summary: &RunSummary,
    mfu: Option<f64>,
    width: usize,
) -> String {
    let rate = |count: f64| {
        if summary.duration_s > 0.0 {
            number(count / summary.duration_s)
        } else {
            "-".to_owned()
        }
    };
    let metrics = [
        ("TTFT", &summary.ttft),
        ("TBT", &summary.tbt),
        ("end to end", &summary.e2e),
        ("scheduling delay", &summary.scheduling_delay),
    ];
    let names = metrics.iter().map(|(name, _)| (*name).to_owned());
    let mut columns = vec![TextColumn::text("time", names)];
    let figures = ["mean", "p50", "p90", "p95", "p99", "max"];
    for (nth, figure) in figures.into_iter().enumerate() {
        let cells = metrics
            .iter()
            .map(|(_, metric)| seconds(times(metric)[nth]));
        columns.push(TextColumn::numbers(figure, cells));
    }
    let table = TextTable::new(1, columns).render(width);
    let above = format!(
        "{title}\n{} of {} completed in {} simulated: {} requests/s, {} output tokens/s, {} prompt \
         tokens/s",
        figure("completed", f64::from(summary.completed)),
        counted(u64::from(summary.num_requests), "request"),
        seconds(summary.duration_s),
        rate(f64::from(summary.completed)),
        rate(summary.output_tokens as f64),
        rate(summary.prompt_tokens as f64),
    );
    let below = format!(
        "{}, {} tokens and {} requests each on average; GPUs busy {}, MFU {}, KV cache {} in use; {}",
        counted(summary.batches, "batch").replace("batchs", "batches"),
        number(summary.mean_batch_tokens),
        number(summary.mean_batch_requests),
        percent(summary.gpu_busy_fraction),
        mfu.map_or("-".to_owned(), percent),
        percent(summary.kv_cache_utilization),
        counted(summary.preemptions, "preemption"),
    );
    format!(
        "{}{table}{}",
        wrapped(&above, width),
        wrapped(&below, width)
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
