//! How long the flow-level network model takes: first queries of recorded
//! cases, repeated ones, and collectives of thousands of GPUs.
//!
//! `cargo bench --bench network`

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use vidur_sweep::network::flow::{FlowNetwork, Layout, SimaiConf, SimaiEnvironment};
use vidur_sweep::network::topology::{Fabric, Topology, TopologyPlan};
use vidur_sweep::network::{Collective, GroupKind};

fn network(topology: &Topology) -> FlowNetwork {
    FlowNetwork::new(
        topology.clone(),
        SimaiConf::default(),
        SimaiEnvironment::default(),
    )
}

fn groups(topology: &Topology, tensor_parallel: u32) -> Vec<Vec<u32>> {
    let layout = Layout {
        gpus: topology.gpus(),
        tensor_parallel,
        expert_parallel: 1,
    };
    layout.groups(GroupKind::Tensor).unwrap()
}

fn query(topology: &Topology, tensor_parallel: u32, collective: Collective, bytes: u64) -> f64 {
    let network = network(topology);
    let group = network
        .groups(GroupKind::Tensor, groups(topology, tensor_parallel))
        .unwrap();
    network.time_ns(collective, bytes, group).unwrap()
}

/// The largest of the recorded cases, from a topology in memory to the result.
fn first_queries(criterion: &mut Criterion) {
    let hpn = TopologyPlan::new(Fabric::AlibabaHpn { dual_plane: false }, 32)
        .generate()
        .unwrap();
    let spectrum_32 = TopologyPlan::new(Fabric::SpectrumX, 32).generate().unwrap();
    let spectrum_128 = TopologyPlan::new(Fabric::SpectrumX, 128)
        .generate()
        .unwrap();
    let dcn = TopologyPlan::new(Fabric::DcnPlus { dual_tor: true }, 32)
        .generate()
        .unwrap();
    let (reduce, exchange) = (Collective::AllReduce, Collective::AllToAll);
    let cases = [
        ("all_reduce_8_of_128", &spectrum_128, 8, reduce, 1 << 27),
        ("all_reduce_16_of_128", &spectrum_128, 16, reduce, 1 << 27),
        ("all_reduce_32_of_128", &spectrum_128, 32, reduce, 1 << 24),
        ("all_reduce_32_hpn", &hpn, 32, reduce, 1 << 24),
        (
            "all_to_all_32_single_tor",
            &spectrum_32,
            32,
            exchange,
            1 << 27,
        ),
        ("all_to_all_32_dual_tor", &dcn, 32, exchange, 1 << 24),
    ];
    let mut group = criterion.benchmark_group("first_query");
    for (name, topology, tensor_parallel, collective, bytes) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(query(topology, tensor_parallel, collective, bytes)));
        });
    }
    group.finish();
}

fn repeated_query(criterion: &mut Criterion) {
    let topology = TopologyPlan::new(Fabric::SpectrumX, 16).generate().unwrap();
    let network = network(&topology);
    let group = network
        .groups(GroupKind::Tensor, groups(&topology, 16))
        .unwrap();
    network
        .time_ns(Collective::AllReduce, 1 << 20, group)
        .unwrap();
    criterion.bench_function("repeated_query", |bencher| {
        bencher.iter(|| network.time_ns(Collective::AllReduce, black_box(1 << 20), group));
    });
}

fn thousands_of_gpus(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("large");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    for (name, gpus, collective) in [
        ("all_to_all_1024", 1024, Collective::AllToAll),
        ("all_reduce_16384", 16_384, Collective::AllReduce),
    ] {
        let mut plan = TopologyPlan::new(Fabric::SpectrumX, gpus);
        plan.access_switches_max = None;
        let topology = plan.generate().unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (),
                |()| black_box(query(&topology, gpus, collective, 1 << 30)),
                BatchSize::PerIteration,
            );
        });
        println!(
            "{name}: peak memory of the process so far {}",
            peak_memory()
        );
    }
    group.finish();
}

/// Most memory this process ever held, as the kernel says it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |text| text.trim().to_owned())
}

criterion_group!(benches, first_queries, repeated_query, thousands_of_gpus);
criterion_main!(benches);
