//! Everything Vidur writes at the end of a run: 10,000 chat-like requests on one
//! replica, recorded and written.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

mod chat;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vidur_sweep::catalog::Catalog;
use vidur_sweep::memory::Parallelism;
use vidur_sweep::simulator::{ClusterSpec, SummaryRecorder, simulate};
use vidur_sweep::vidur::metrics::{ClusterFacts, MetricsConfig, MetricsStore, PoolFacts};

use chat::{chat_requests, cluster};

fn store(cluster: &ClusterSpec, config: MetricsConfig) -> MetricsStore {
    let facts = ClusterFacts {
        compat: cluster.compat,
        pools: vec![PoolFacts {
            replicas: 1,
            model: (Catalog::builtin().model("meta-llama/Llama-2-7b-hf")).expect("a model"),
            parallelism: Parallelism {
                tensor_parallel: 1,
                pipeline_parallel: 1,
                expert_parallel: 1,
                attention_data_parallel: 1,
            },
            peak_tflops: 312.0,
            cost: cluster.pools[0].cost.clone(),
        }],
        requests: 10_000,
        transfer: None,
    };
    MetricsStore::new(config, facts)
}

fn outputs(c: &mut Criterion) {
    let workload = chat_requests(10_000, 4.0);
    let cluster = cluster(512, 128, 7424);
    let dir = tempfile::tempdir().expect("a directory");
    let files = MetricsConfig {
        store_plots: false,
        ..MetricsConfig::default()
    };
    let all = MetricsConfig {
        write_json_trace: true,
        store_token_completion_metrics: true,
        keep_individual_batch_metrics: true,
        ..files
    };
    let plots = MetricsConfig {
        store_plots: true,
        ..files
    };
    let mut group = c.benchmark_group("outputs_10k_chat");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("simulated_without", |b| {
        b.iter(|| {
            let mut recorder = SummaryRecorder::new(10_000, 0, None);
            simulate(black_box(&cluster), &workload, &mut recorder)
        });
    });
    group.bench_function("recorded", |b| {
        b.iter(|| {
            let mut store = store(&cluster, files);
            simulate(black_box(&cluster), &workload, &mut store);
            store
        });
    });
    for (name, config) in [
        ("recorded_and_written", files),
        ("with_batches_tokens_and_events", all),
        ("with_plots", plots),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut store = store(&cluster, config);
                simulate(black_box(&cluster), &workload, &mut store);
                store.write(dir.path()).expect("a writable directory")
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    targets = outputs
}
criterion_main!(benches);
