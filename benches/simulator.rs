//! One simulation: 10,000 chat-like requests on one replica, and how the cost
//! of a decode step grows with the batch size.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vidur_sweep::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use vidur_sweep::simulator::{
    ClusterSpec, Compat, Disaggregation, GlobalScheduler, KvCacheSpec, KvTransferSpec, PoolRole,
    PoolSpec, ReplicaScheduler, SummaryRecorder, simulate,
};
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

fn cluster(chunk_size: u32, batch_size_cap: u32, num_blocks: u64) -> ClusterSpec {
    ClusterSpec {
        pools: vec![PoolSpec {
            role: PoolRole::Mixed,
            replicas: 1,
            attention_data_parallel: 1,
            scheduler: ReplicaScheduler::Sarathi {
                chunk_size,
                batch_size_cap,
                watermark_blocks_fraction: 0.01,
            },
            kv_cache: KvCacheSpec {
                num_blocks,
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

/// Lengths with the means and skew of the Azure 2023 conversation trace
/// (log-normal; 1,155 prompt and 211 output tokens on average), Poisson arrivals.
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

fn run(cluster: &ClusterSpec, workload: &Workload, log_every: u32) -> f64 {
    let mut recorder = SummaryRecorder::new(workload.requests.len(), log_every, None);
    let totals = simulate(cluster, workload, &mut recorder);
    recorder.finish(&totals).0.ttft.p90_s
}

fn single_run(c: &mut Criterion) {
    let workload = chat_requests(10_000, 4.0);
    let cluster = cluster(512, 128, 7424);
    let mut group = c.benchmark_group("single_run_10k_chat");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("summary", |b| {
        b.iter(|| run(black_box(&cluster), &workload, 0));
    });
    group.bench_function("per_request_rows", |b| {
        b.iter(|| run(black_box(&cluster), &workload, 1));
    });
    group.finish();
}

/// Closed loop of as many clients as the batch holds: every step is a full
/// batch of decodes, 200 steps a request.
fn decode_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_step_by_batch_size");
    for batch in [8u32, 32, 128, 512] {
        let requests = vec![
            Request {
                arrived_at_s: 0.0,
                prefill_tokens: 1,
                decode_tokens: 10_000,
            };
            batch as usize
        ];
        let workload = Workload {
            requests,
            clients: Some(batch),
        };
        let cluster = cluster(1024, batch, 1_000_000);
        group.throughput(Throughput::Elements(10_000));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |b, _| {
            b.iter(|| run(black_box(&cluster), &workload, 0));
        });
    }
    group.finish();
}

/// Forty prefill and forty decode replicas with slow links: 2,000 KV caches to
/// move, more than a thousand of them at a time. Each starts and drains once.
fn transfers(c: &mut Criterion) {
    let requests = (0..2000)
        .map(|i| Request {
            arrived_at_s: 1e-4 * f64::from(i),
            prefill_tokens: 100 + i % 50,
            decode_tokens: 4,
        })
        .collect();
    let workload = Workload {
        requests,
        clients: None,
    };
    let mut cluster = cluster(512, 1024, 100_000);
    let pool = PoolSpec {
        replicas: 40,
        ..cluster.pools[0].clone()
    };
    cluster.pools = [PoolRole::Prefill, PoolRole::Decode]
        .map(|role| PoolSpec {
            role,
            ..pool.clone()
        })
        .into();
    cluster.global_scheduler = GlobalScheduler::Random;
    cluster.kv_transfer = Some(KvTransferSpec {
        bytes_per_token: 1e5,
        bytes_per_request: 0.0,
        sender_bytes_per_s: 1e8,
        receiver_bytes_per_s: 1.3e8,
        latency_s: 1e-5,
    });
    let mut group = c.benchmark_group("thousand_transfers_at_once");
    group.throughput(Throughput::Elements(2000));
    group.bench_function("80_replicas", |b| {
        b.iter(|| run(black_box(&cluster), &workload, 0));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_secs(1)).measurement_time(std::time::Duration::from_secs(4));
    targets = single_run, decode_step, transfers
}
criterion_main!(benches);
