//! Once its buffers have grown, a simulation asks for no more memory: thousands of
//! requests more need no more allocations, but those of the buffers that hold all
//! requests.

use std::sync::Arc;

use allocation_counter::measure;
use vidur_sweep::network::Placement;
use vidur_sweep::network::flow::{FlowNetwork, SimaiConf, SimaiEnvironment, TransferPaths};
use vidur_sweep::network::topology::{Fabric, TopologyPlan};
use vidur_sweep::simulator::{
    ClusterSpec, GlobalScheduler, PoolRole, ReplicaScheduler, SummaryRecorder, simulate,
};
use vidur_sweep::workload::{Request, Workload};

use super::support::{cluster, pool, sarathi, split_wise, vllm};

const WARM_UP: u32 = 4_000;
const MORE: u32 = 4_000;
/// Buffers that double do so once or twice in the second half; each of them once.
const GROWTH: u64 = 40;

/// Prompts and outputs of many lengths, ten requests per second.
fn requests(count: u32) -> Workload {
    let spread = |id: u32, prime: u32, range: u32| 1 + id.wrapping_mul(prime) % range;
    let request = |id| Request {
        arrived_at_s: f64::from(id) * 0.1,
        prefill_tokens: spread(id, 7919, 300),
        decode_tokens: spread(id, 104_729, 60),
    };
    Workload {
        requests: (0..count).map(request).collect(),
        clients: None,
    }
}

fn allocations(cluster: &ClusterSpec, count: u32) -> u64 {
    let workload = requests(count);
    let mut finished = 0;
    let info = measure(|| {
        let mut recorder = SummaryRecorder::new(workload.requests.len(), 0, None);
        let totals = simulate(cluster, &workload, &mut recorder);
        finished = recorder.finish(&totals).0.completed;
    });
    assert_eq!(finished, count, "every request ends");
    info.count_total
}

fn assert_steady(cluster: &ClusterSpec) {
    let (few, many) = (
        allocations(cluster, WARM_UP),
        allocations(cluster, WARM_UP + MORE),
    );
    let more = many.saturating_sub(few);
    assert!(
        more <= GROWTH,
        "{more} allocations for {MORE} requests: {:?}",
        cluster.pools[0].scheduler
    );
}

fn schedulers() -> [ReplicaScheduler; 6] {
    [
        sarathi(256, 32),
        vllm(2048, 32),
        split_wise(2048, 32),
        ReplicaScheduler::Orca { batch_size_cap: 32 },
        ReplicaScheduler::FasterTransformer { batch_size_cap: 32 },
        ReplicaScheduler::Lightllm {
            max_tokens_in_batch: 2048,
            batch_size_cap: 32,
            max_waiting_iters: 10,
        },
    ]
}

#[test]
fn no_scheduler_allocates_in_steady_state() {
    for scheduler in schedulers() {
        for (replicas, stages) in [(1, 1), (4, 1), (2, 2)] {
            let pools = vec![pool(
                PoolRole::Mixed,
                replicas,
                stages,
                4000,
                scheduler.clone(),
            )];
            assert_steady(&cluster(pools, GlobalScheduler::Lor));
        }
    }
}

#[test]
fn hand_overs_do_not_allocate_in_steady_state() {
    let pools = vec![
        pool(PoolRole::Prefill, 2, 1, 4000, sarathi(256, 32)),
        pool(PoolRole::Decode, 2, 1, 4000, sarathi(256, 32)),
    ];
    assert_steady(&cluster(pools, GlobalScheduler::SplitWise));
}

#[test]
fn hand_overs_over_a_topology_do_not_allocate_in_steady_state() {
    let pools = vec![
        pool(PoolRole::Prefill, 2, 1, 4000, sarathi(256, 32)),
        pool(PoolRole::Decode, 2, 1, 4000, sarathi(256, 32)),
    ];
    let mut cluster = cluster(pools, GlobalScheduler::SplitWise);
    // Two NICs' bandwidth above eight of them, so that spine links count.
    let plan = TopologyPlan {
        nics_per_switch: 8,
        spine_switches: 1,
        spine_bandwidth_gbps: 800.0,
        ..TopologyPlan::new(Fabric::DcnPlus { dual_tor: false }, 64)
    };
    let topology = plan.generate().unwrap();
    let network = FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default());
    let prefill = Placement {
        gpus_per_server: 8,
        first_server: 0,
        skipped_gpus: 0,
        tensor_parallel: 2,
        pipeline_parallel: 2,
        attention_data_parallel: 2,
    };
    let decode = Placement {
        first_server: 2,
        tensor_parallel: 4,
        ..prefill
    };
    let paths = TransferPaths::new(&network, &[(prefill, 2), (decode, 2)], false, None);
    cluster.transfer_paths = Some(Arc::new(paths.unwrap()));
    assert_steady(&cluster);
}
