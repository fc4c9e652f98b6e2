//! Everything Vidur writes at the end of a run: 10,000 chat-like requests on one
//! replica, recorded and written.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use vidur_sweep::memory::Parallelism;
use vidur_sweep::simulator::{
    ClusterSpec, Compat, Disaggregation, GlobalScheduler, KvCacheSpec, PoolRole, PoolSpec,
    ReplicaScheduler, SummaryRecorder, simulate,
};
use vidur_sweep::vidur::metrics::{ClusterFacts, MetricsConfig, MetricsStore, PoolFacts};
use vidur_sweep::workload::{Request, Workload};

/// Roughly Llama-2-7B on one A100, in closed form: pricing is not measured here.
struct ClosedForm;

impl StepCost for ClosedForm {
    fn stages(&self) -> u32 {
        1
    }
    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        let tokens = f64::from(shape.new_tokens());
        let model_ms =
            (9.0 + 0.005 * tokens).max(0.06 * tokens) + 3.4e-4 * shape.decode_context_tokens as f64;
        StageTime {
            model_s: model_ms * 1e-3,
            host_s: 0.0,
        }
    }
    fn explain(&self, _shape: &StepShape) -> Vec<PricedOperator> {
        Vec::new()
    }
}

/// Lengths and arrivals as in the bench of the simulator.
fn chat_requests(count: u32, qps: f64) -> Workload {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut normal = {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        move || {
            let (a, b): (f64, f64) = (rng.random::<f64>().max(1e-12), rng.random());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        }
    };
    let mut at_s = 0.0;
    let requests = (0..count)
        .map(|_| {
            at_s -= rng.random::<f64>().max(1e-12).ln() / qps;
            Request {
                arrived_at_s: at_s,
                prefill_tokens: ((6.6 + 0.95 * normal()).exp() as u32).clamp(1, 3500),
                decode_tokens: ((5.0 + 0.8 * normal()).exp() as u32).clamp(1, 500),
            }
        })
        .collect();
    Workload {
        requests,
        clients: None,
    }
}

fn cluster() -> ClusterSpec {
    ClusterSpec {
        pools: vec![PoolSpec {
            role: PoolRole::Mixed,
            replicas: 1,
            attention_data_parallel: 1,
            scheduler: ReplicaScheduler::Sarathi {
                chunk_size: 512,
                batch_size_cap: 128,
                watermark_blocks_fraction: 0.01,
            },
            kv_cache: KvCacheSpec {
                num_blocks: 7424,
                block_size: 16,
            },
            cost: Arc::new(ClosedForm),
        }],
        global_scheduler: GlobalScheduler::RoundRobin,
        kv_transfer: None,
        disaggregation: Disaggregation::default(),
        seed: 0,
        time_limit_s: None,
        compat: Compat::None,
        max_request_tokens: None,
        earlier_random_draws: 0,
    }
}

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
    let cluster = cluster();
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
