//! A whole sweep, and expanding a specification of a million points.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vidur_sweep::explore::{
    Event, ExecuteOptions, Plan, Shard, Simulate, Sink, Task, Tasks, execute,
};
use vidur_sweep::spec::{RequestOutput, load_str};
use vidur_sweep::workload::{DataFiles, WorkloadSource};

/// 500 runs of 500 requests of Llama-3-8B, priced from measured operators.
const SWEEP: &str = "
name: bench
base:
  model: meta-llama/Meta-Llama-3-8B
  device: h100
  backend: silicon
  workload:
    requests: 500
    lengths: {type: trace, file: data/traces/azure-conv-2023.csv, max_tokens: 8192}
    arrivals: poisson
axes:
  tensor_parallel: [1, 2, 4, 8]
  replicas: [1, 2, 3, 4, 8]
  qps: [2, 4, 8, 16, 32]
  replica_scheduler: [{type: sarathi, chunk_size: 512}, {type: sarathi, chunk_size: 2048}, vllm, orca, faster_transformer]
";

/// 10 x 10 x 10 x 10 x 100 points.
const MILLION: &str = "
name: million
base:
  model: meta-llama/Meta-Llama-3-8B
  device: h100
  workload:
    requests: 1
    lengths: {type: fixed, prefill_tokens: 10, decode_tokens: 10}
    arrivals: poisson
axes:
  tensor_parallel: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
  pipeline_parallel: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  replicas: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
  replica_scheduler.chunk_size: [128, 256, 384, 512, 640, 768, 896, 1024, 1536, 2048]
  qps: [QPS]
constraints: ['total_gpus <= 64']
";

fn plan(text: &str) -> Plan {
    let spec = load_str(text, Path::new("bench.yaml"), &[]).expect("the bench's specification");
    Plan::new(spec).expect("the bench's plan")
}

/// Takes results and drops them.
struct Discard;

impl Sink for Discard {
    fn accept(&mut self, event: Event) -> Result<(), String> {
        black_box(&event);
        Ok(())
    }
}

fn sweep(c: &mut Criterion) {
    let plan = plan(SWEEP);
    let mut group = c.benchmark_group("sweep_500_runs");
    group.throughput(Throughput::Elements(500 * 500));
    for threads in [1, 2] {
        for (kept, requests) in [
            ("summary", RequestOutput::None),
            ("rows", RequestOutput::All),
        ] {
            group.bench_function(format!("{kept}_threads_{threads}"), |b| {
                b.iter(|| {
                    // Cost tables start cold each time, as in a run of the program.
                    let workloads = WorkloadSource::new(DataFiles::default());
                    let runner = Simulate::new(workloads, requests, None);
                    let options = ExecuteOptions {
                        threads,
                        indices: Shard::WHOLE.of(plan.num_runs()),
                        samples: 0,
                        stop: &AtomicBool::new(false),
                        is_completed: &|_| false,
                    };
                    execute(&plan, &runner, &options, &mut [], &mut Discard)
                });
            });
        }
    }
    group.finish();
}

fn expansion(c: &mut Criterion) {
    let qps: Vec<String> = (1..=100).map(|qps| qps.to_string()).collect();
    let plan = plan(&MILLION.replace("QPS", &qps.join(", ")));
    assert_eq!(plan.num_runs(), 1_000_000);
    let mut group = c.benchmark_group("expand_million_points");
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("every_tenth", |b| {
        b.iter(|| {
            let run = |index: &u64| matches!(plan.task(*index), Task::Run { .. });
            (0..1_000_000).step_by(10).filter(run).count()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    targets = sweep, expansion
}
criterion_main!(benches);
