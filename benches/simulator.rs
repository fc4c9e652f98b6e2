//! One simulation: 10,000 chat-like requests on one replica, and how the cost
//! of a decode step grows with the batch size.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

mod chat;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vidur_sweep::network::Placement;
use vidur_sweep::network::flow::{FlowNetwork, SimaiConf, SimaiEnvironment, TransferPaths};
use vidur_sweep::network::topology::{Fabric, TopologyPlan};
use vidur_sweep::simulator::{
    ClusterSpec, GlobalScheduler, KvTransferSpec, PoolRole, PoolSpec, SummaryRecorder, simulate,
};
use vidur_sweep::workload::{Request, Workload};

use chat::{chat_requests, cluster};

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
        window: None,
        sender_bytes_per_s: 1e8,
        receiver_bytes_per_s: 1.3e8,
        latency_s: 1e-5,
    });
    let mut group = c.benchmark_group("thousand_transfers_at_once");
    group.throughput(Throughput::Elements(2000));
    group.bench_function("80_replicas", |b| {
        b.iter(|| run(black_box(&cluster), &workload, 0));
    });
    // The same bandwidths as NICs of eight GPUs a replica, below a fabric that takes
    // all of it or a quarter.
    for (name, spine_bandwidth_gbps) in [("open_fabric", 0.8), ("crowded_fabric", 0.2)] {
        cluster.transfer_paths = Some(Arc::new(paths(spine_bandwidth_gbps)));
        group.bench_function(name, |b| {
            b.iter(|| run(black_box(&cluster), &workload, 0));
        });
    }
    group.finish();
}

/// Between forty prefill and forty decode replicas, each a server of eight GPUs with
/// NICs of 100 Mb/s on a switch of its own and one link up.
fn paths(spine_bandwidth_gbps: f64) -> TransferPaths {
    let plan = TopologyPlan {
        nic_bandwidth_gbps: 0.1,
        nics_per_switch: 8,
        spine_switches: 1,
        spine_bandwidth_gbps,
        access_switches_max: None,
        ..TopologyPlan::new(Fabric::DcnPlus { dual_tor: false }, 640)
    };
    let topology = plan.generate().expect("a topology");
    let network = FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default());
    let prefill = Placement {
        gpus_per_server: 8,
        first_server: 0,
        skipped_gpus: 0,
        tensor_parallel: 8,
        pipeline_parallel: 1,
        attention_data_parallel: 1,
    };
    let decode = Placement {
        first_server: 40,
        ..prefill
    };
    let pools = [(prefill, 40), (decode, 40)];
    TransferPaths::new(&network, &pools, false, None).expect("paths")
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_secs(1)).measurement_time(std::time::Duration::from_secs(4));
    targets = single_run, decode_step, transfers
}
criterion_main!(benches);
