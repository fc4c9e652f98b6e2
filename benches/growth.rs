//! How time and memory grow: a table of measurements over each figure that makes a
//! simulation large, and the exponents that fit them.
//!
//! `cargo bench --bench growth` prints it as Markdown. Every measurement is a process
//! of its own, so that its peak memory is its own; of three, the fastest counts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

mod chat;

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use chat::{ClosedForm, chat_requests, cluster};
use vidur_sweep::simulator::{ClusterSpec, GlobalScheduler, SummaryRecorder, simulate};
use vidur_sweep::workload::{Request, Workload};

const REPEATS: usize = 3;

/// What grows, what a unit of work is, and the exponent of time per unit hoped for.
struct Series {
    name: &'static str,
    values: &'static [u32],
    unit: &'static str,
    ideal: &'static str,
    case: fn(u32) -> Case,
}

struct Case {
    cluster: ClusterSpec,
    workload: Workload,
    /// Units of work, if not batches.
    units: Option<f64>,
}

const SERIES: &[Series] = &[
    Series {
        name: "requests (one replica, chat)",
        values: &[10_000, 100_000, 1_000_000, 4_000_000],
        unit: "request",
        ideal: "0",
        case: requests,
    },
    Series {
        name: "replicas in turn (500,000 requests)",
        values: &[8, 64, 512, 4096],
        unit: "request",
        ideal: "0",
        case: |replicas| replicas_under(GlobalScheduler::RoundRobin, replicas),
    },
    Series {
        name: "replicas, fewest outstanding (500,000 requests)",
        values: &[8, 64, 512, 4096],
        unit: "request",
        ideal: "log n: 0.1-0.2",
        case: |replicas| replicas_under(GlobalScheduler::Lor, replicas),
    },
    Series {
        name: "replicas, least KV cache (500,000 requests)",
        values: &[8, 64, 512, 4096],
        unit: "request",
        ideal: "log n: 0.1-0.2",
        case: |replicas| replicas_under(GlobalScheduler::LeastKv, replicas),
    },
    Series {
        name: "batch size (decode only)",
        values: &[8, 32, 128, 512],
        unit: "batch",
        ideal: "0",
        case: batch_size,
    },
    Series {
        name: "prompt tokens (chunks of 512)",
        values: &[512, 2048, 8192, 32_768, 131_072],
        unit: "batch",
        ideal: "0",
        case: prompt_tokens,
    },
    Series {
        name: "pipeline stages (chat)",
        values: &[1, 2, 4, 8, 16],
        unit: "batch",
        ideal: "at most 1",
        case: pipeline_stages,
    },
];

fn requests(count: u32) -> Case {
    Case {
        cluster: cluster(512, 128, 7424),
        workload: chat_requests(count, 4.0),
        units: Some(f64::from(count)),
    }
}

fn replicas_under(scheduler: GlobalScheduler, replicas: u32) -> Case {
    let count = 500_000;
    let mut cluster = cluster(512, 128, 7424);
    cluster.pools[0].replicas = replicas;
    cluster.global_scheduler = scheduler;
    Case {
        cluster,
        workload: chat_requests(count, 4.0 * f64::from(replicas)),
        units: Some(f64::from(count)),
    }
}

/// As many requests as a batch holds, 100,000 steps each.
fn batch_size(batch: u32) -> Case {
    let request = Request {
        arrived_at_s: 0.0,
        prefill_tokens: 1,
        decode_tokens: 100_000,
    };
    Case {
        cluster: cluster(1024, batch, 10_000_000),
        workload: Workload {
            requests: vec![request; batch as usize],
            clients: Some(batch),
        },
        units: None,
    }
}

fn prompt_tokens(tokens: u32) -> Case {
    let request = |id| Request {
        arrived_at_s: f64::from(id) * 1e-3,
        prefill_tokens: tokens,
        decode_tokens: 1,
    };
    let count = (131_072 * 200 / tokens).max(200);
    Case {
        cluster: cluster(512, 8, 1_000_000),
        workload: Workload {
            requests: (0..count).map(request).collect(),
            clients: None,
        },
        units: None,
    }
}

fn pipeline_stages(stages: u32) -> Case {
    let mut cluster = cluster(512, 128, 7424);
    cluster.pools[0].cost = Arc::new(ClosedForm { stages });
    Case {
        cluster,
        workload: chat_requests(100_000, 4.0),
        units: None,
    }
}

/// Runs one case; prints seconds per unit and peak memory in MB.
fn measure(series: usize, value: u32) {
    let case = (SERIES[series].case)(value);
    let started = Instant::now();
    let mut recorder = SummaryRecorder::new(case.workload.requests.len(), 0, None);
    let totals = simulate(&case.cluster, &case.workload, &mut recorder);
    let (summary, _) = recorder.finish(&totals);
    let elapsed_s = started.elapsed().as_secs_f64();
    assert_eq!(summary.completed, summary.num_requests);
    let units = case.units.unwrap_or(summary.batches as f64);
    println!("{} {}", elapsed_s / units, peak_mb());
}

/// Largest resident set so far; NaN where the system does not say.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kb.map_or(f64::NAN, |kb| kb / 1024.0)
}

/// What one value of a series has come to.
struct Point {
    value: u32,
    time_s: f64,
    peak_mb: f64,
}

/// The fastest of some processes.
fn best(series: usize, value: u32) -> Point {
    let program = std::env::current_exe().expect("this program");
    let runs = (0..REPEATS).map(|_| {
        let arguments = ["point", &series.to_string(), &value.to_string()];
        let output = Command::new(&program).args(arguments).output();
        let text = String::from_utf8(output.expect("runs").stdout).expect("text");
        let mut figures = text.split_whitespace().map(|figure| figure.parse::<f64>());
        match (figures.next(), figures.next()) {
            (Some(Ok(time_s)), Some(Ok(peak_mb))) => Point {
                value,
                time_s,
                peak_mb,
            },
            _ => panic!("no figures: {text}"),
        }
    });
    runs.min_by(|a, b| a.time_s.total_cmp(&b.time_s))
        .expect("some runs")
}

/// Exponent of the power law through `points`, least squares in logarithms.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = logs.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
    covariance / logs.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [point, series, value] = &arguments[..]
        && point == "point"
    {
        return measure(
            series.parse().expect("a series"),
            value.parse().expect("a value"),
        );
    }
    println!("| what grows | measured at | time per unit | exponent | ideal | peak MB |");
    println!("|---|---|---|---|---|---|");
    for (index, series) in SERIES.iter().enumerate() {
        let points: Vec<_> = (series.values.iter())
            .map(|&value| best(index, value))
            .collect();
        let list =
            |each: fn(&Point) -> String| points.iter().map(each).collect::<Vec<_>>().join(", ");
        let line: Vec<_> = (points.iter())
            .map(|point| (f64::from(point.value), point.time_s))
            .collect();
        println!(
            "| {} | {} | {} ns per {} | {:.2} | {} | {} |",
            series.name,
            list(|point| point.value.to_string()),
            list(|point| format!("{:.0}", point.time_s * 1e9)),
            series.unit,
            exponent(&line),
            series.ideal,
            list(|point| format!("{:.0}", point.peak_mb)),
        );
    }
}
