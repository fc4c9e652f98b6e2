//! Two pools of different machines from specification to result, on the example
//! of `docs/disaggregation.md`.

use std::path::Path;

use vidur_sweep::explore::{Plan, Simulate};
use vidur_sweep::network::topology::{Fabric, TopologyPlan};
use vidur_sweep::simulator::{
    ReplicaScheduler, RequestRecord, RunSummary, SummaryRecorder, simulate,
};
use vidur_sweep::spec::{
    self, Deployment, RequestOutput, ResolveError, Resolver, RunConfig, SweepSpec, run_id,
};
use vidur_sweep::workload::WorkloadSource;

/// The specification in the documentation.
fn documented(overrides: &[&str]) -> SweepSpec {
    let text = std::fs::read_to_string("docs/disaggregation.md").unwrap();
    let yaml = text
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a YAML block");
    let overrides: Vec<_> = overrides.iter().map(|o| (*o).to_owned()).collect();
    spec::load_str(yaml, Path::new("docs/disaggregation.md"), &overrides).unwrap()
}

fn configs(overrides: &[&str]) -> Vec<RunConfig> {
    let plan = Plan::new(documented(overrides)).unwrap();
    (0..plan.num_runs())
        .map(|index| plan.config(index).unwrap())
        .collect()
}

fn resolve(config: &RunConfig) -> Result<Deployment, ResolveError> {
    Resolver::default().resolve(config)
}

fn run(config: &RunConfig) -> (RunSummary, Vec<RequestRecord>) {
    let simulator = Simulate::new(WorkloadSource::default(), RequestOutput::All, None);
    let deployment = simulator.deployment(config).unwrap();
    let workload = simulator.workload(config).unwrap();
    let mut recorder = SummaryRecorder::new(workload.requests.len(), 1, None);
    let totals = simulate(&deployment.cluster, &workload, &mut recorder);
    assert_eq!(totals.leaked_blocks, 0);
    recorder.finish(&totals)
}

#[test]
fn each_pool_has_its_own_device_cut_scheduler_and_memory() {
    let config = &configs(&["prefill.memory.num_blocks=777"])[0];
    let deployment = resolve(config).unwrap();
    let [prefill, decode] = &deployment.pools[..] else {
        panic!("two pools");
    };
    assert_eq!(
        (&*prefill.device.name, &*decode.device.name),
        ("h800", "h20")
    );
    let ways = |pool: &spec::Pool| pool.parallelism.tensor_parallel;
    assert_eq!((ways(prefill), ways(decode)), (4, 2));
    assert_eq!(deployment.total_gpus(), 2 * 4 + 3 * 2);
    let [prefill, decode] = &deployment.cluster.pools[..] else {
        panic!("two pools");
    };
    assert_eq!(prefill.kv_cache.num_blocks, 777);
    assert_eq!(
        (prefill.kv_cache.block_size, decode.kv_cache.block_size),
        (16, 64)
    );
    let ReplicaScheduler::Sarathi { batch_size_cap, .. } = decode.scheduler else {
        panic!("{:?}", decode.scheduler);
    };
    assert_eq!(batch_size_cap, 64);
    // NICs of four GPUs of one device, and of two of the other.
    let transfer = deployment.cluster.kv_transfer.unwrap();
    let nics = |pool: &spec::Pool| {
        pool.device.nic_bandwidth_gbps * f64::from(pool.parallelism.gpus()) * 1e9 / 8.0
    };
    assert_eq!(transfer.sender_bytes_per_s, nics(&deployment.pools[0]));
    assert_eq!(transfer.receiver_bytes_per_s, nics(&deployment.pools[1]));
    // A pool's margin is its own too.
    let tight = &configs(&["decode.memory.margin_fraction=0.4"])[0];
    let blocks = |config| {
        resolve(config).unwrap().cluster.pools[1]
            .kv_cache
            .num_blocks
    };
    assert!(blocks(tight) < blocks(config));
}

#[test]
fn a_sweep_over_two_pools_runs_from_end_to_end() {
    let configs = configs(&["base.workload.requests=120"]);
    assert_eq!(configs.len(), 8);
    let mut second_token_s = Vec::new();
    let mut ids = Vec::new();
    for config in &configs {
        let (summary, rows) = run(config);
        assert_eq!(summary.completed, 120);
        let gap = |row: &RequestRecord| row.decode_arrived_at_s - row.prefill_completed_at_s;
        let gaps = rows.iter().map(gap);
        second_token_s.push(gaps.sum::<f64>() / 120.0);
        for row in &rows {
            let moved = row.prefill_replica_id != row.decode_replica_id;
            assert_eq!(moved, row.pd_p2p_comm_size_bytes > 0.0);
            if config.mixed_pool.is_none() {
                assert!(row.prefill_replica_id < 2 && row.decode_replica_id >= 2);
                // 80 layers of 8 heads of 128, keys and values.
                let per_token = row.pd_p2p_comm_size_bytes / 1500.0;
                assert_eq!(per_token % (80.0 * 8.0 * 128.0 * 2.0), 0.0);
            }
        }
        ids.push(run_id(config, &[]));
    }
    // The last axis is the fastest: pairs differ in the overlap alone.
    for pair in second_token_s.chunks(2) {
        assert!(pair[1] < 0.6 * pair[0], "{second_token_s:?}");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), configs.len());
}

#[test]
fn what_does_not_go_together_is_said() {
    let reason = |overrides: &[&str]| match resolve(&configs(overrides)[0]) {
        Err(ResolveError::Infeasible(infeasible)) => infeasible.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{overrides:?} can be resolved"),
    };
    let mixed = "axes.mixed_pool=[{}]";
    let text = reason(&[mixed, "prefill.global_scheduler=lor"]);
    assert_eq!(
        text,
        "mixed_pool needs global_scheduler split_wise in both pools"
    );
    let one_pool = ["prefill={}", "decode={}", "replicas=2", "tensor_parallel=4"];
    let text = reason(&[&[mixed][..], &one_pool[..]].concat());
    assert!(
        text.starts_with("mixed_pool needs a prefill and a decode pool"),
        "{text}"
    );
    let text = reason(&one_pool);
    assert!(
        text.starts_with("global_scheduler split_wise needs a prefill"),
        "{text}"
    );
    let text = reason(&["compat=vidur", "decode.global_scheduler=least_kv"]);
    assert!(text.contains("in none of the originals"), "{text}");
    let text = reason(&["compat=vidur"]);
    assert!(
        text.starts_with("Vidur has no prefill and decode"),
        "{text}"
    );
    let text = reason(&["compat=vidur-alibabacloud", "replica_scheduler=sarathi"]);
    assert!(text.contains("set both, or leave out compat"), "{text}");
}

#[test]
fn a_mixed_pool_is_written_out_with_its_defaults() {
    let config = &configs(&["axes.mixed_pool=[{}]"])[0];
    let mixed = config.mixed_pool.unwrap();
    assert_eq!(
        (mixed.max_pending_prompt_tokens, mixed.max_kv_cache_fraction),
        (8192, 1.0)
    );
}

/// A topology in a file, and the override that names it.
struct Network {
    _folder: tempfile::TempDir,
    set: String,
}

impl Network {
    fn of(plan: &TopologyPlan, edits: &[&str]) -> Self {
        let edits: Vec<_> = edits.iter().map(|edit| edit.parse().unwrap()).collect();
        let topology = plan.generate().unwrap().edited(&edits).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("topology");
        std::fs::write(&file, topology.to_string()).unwrap();
        Self {
            set: format!("network.topology={}", file.display()),
            _folder: folder,
        }
    }

    /// The documented deployment over it: prefill replicas on GPUs 0-3 and 4-7, decode
    /// replicas on GPUs 8-9, 10-11 and 12-13.
    fn config(&self, more: &[&str]) -> RunConfig {
        let overrides = [&[self.set.as_str()], more].concat();
        configs(&overrides).swap_remove(0)
    }
}

fn spectrum(gpus: u32) -> TopologyPlan {
    TopologyPlan::new(Fabric::SpectrumX, gpus)
}

/// Two prompts at the same time.
const TOGETHER: [&str; 3] = [
    "workload.requests=2",
    "workload.arrivals=static",
    "axes.qps=[1e9]",
];
/// Prompts that never meet.
const APART: [&str; 2] = ["workload.requests=4", "axes.qps=[0.01]"];

/// How long caches were on their way, and their size.
fn transfers(config: &RunConfig) -> (Vec<f64>, f64) {
    let (_, rows) = run(config);
    let times_s = rows.iter().map(|row| row.pd_p2p_comm_time_s).collect();
    (times_s, rows[0].pd_p2p_comm_size_bytes)
}

/// Bytes per second of a 400 Gb/s port without headers and acknowledgements.
const PORT: f64 = 9000.0 / 182e-9;

fn close(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 3e-3
}

#[test]
fn caches_cross_the_links_of_a_topology() {
    let network = Network::of(&spectrum(32), &[]);
    let (times_s, bytes) = transfers(&network.config(&APART));
    // Into the NICs of two GPUs; 6 us to start, and the way.
    let expected_s = bytes / (2.0 * PORT) + 12e-6;
    assert!(
        times_s.iter().all(|time_s| close(*time_s, expected_s)),
        "{times_s:?} {expected_s}"
    );
    // A slow NIC of the first decode replica slows those that go there.
    let slow = Network::of(&spectrum(32), &["8-36:0.5"]);
    let (slow_s, _) =
        transfers(&slow.config(&[&APART[..], &["decode.global_scheduler=round_robin"]].concat()));
    assert!(close(slow_s[0], 2.0 * expected_s), "{slow_s:?}");
    assert!(
        slow_s.iter().any(|time_s| close(*time_s, expected_s)),
        "{slow_s:?}"
    );
    // A limit of its own counts beside the links.
    let limit = ["network.kv_transfer_bandwidth_gbps=100"];
    let (limited_s, _) = transfers(&network.config(&[&APART[..], &limit].concat()));
    assert!(
        close(limited_s[0], bytes * 8.0 / 100e9 + 12e-6),
        "{limited_s:?}"
    );
}

/// All NICs of a server on one switch, and 800 Gb/s from there: what two receiving GPUs
/// take.
#[test]
fn transfers_at_the_same_time_share_what_leads_out_of_a_server() {
    let plan = |spines| TopologyPlan {
        nics_per_switch: 8,
        spine_switches: spines,
        spine_bandwidth_gbps: 800.0,
        ..TopologyPlan::new(Fabric::DcnPlus { dual_tor: false }, 32)
    };
    let (narrow, wide) = (Network::of(&plan(1), &[]), Network::of(&plan(8), &[]));
    let (alone_s, bytes) = transfers(&narrow.config(&APART));
    let (together_s, _) = transfers(&narrow.config(&TOGETHER));
    let (free_s, _) = transfers(&wide.config(&TOGETHER));
    let wire_s = bytes / (2.0 * PORT);
    assert!(close(alone_s[0], wire_s + 14e-6), "{alone_s:?} {wire_s}");
    // 9,052 bytes at 800 Gb/s, in whole nanoseconds.
    let spine = 9000.0 / 90e-9;
    for (together_s, free_s) in together_s.iter().zip(&free_s) {
        let expected_s = 2.0 * bytes / spine + 14e-6;
        assert!(close(*together_s, expected_s), "{together_s} {expected_s}");
        assert!(close(*free_s, wire_s + 14e-6), "{free_s} {wire_s}");
    }
}

#[test]
fn pools_of_one_server_use_nvlink() {
    let network = Network::of(&spectrum(16), &[]);
    let same = [
        "decode.device=h800",
        "decode.replicas=1",
        "prefill.replicas=1",
    ];
    let config = network.config(&[&APART[..], &same].concat());
    let places: Vec<u32> = (resolve(&config).unwrap().pools.iter())
        .map(|pool| pool.placement.first_gpu(0))
        .collect();
    assert_eq!(places, [0, 4]);
    let (near_s, bytes) = transfers(&config);
    let far = network.config(&[&APART[..], &["decode.replicas=1", "prefill.replicas=1"]].concat());
    let (far_s, _) = transfers(&far);
    // Two links of 2,880 Gb/s each, less what windows leave unused.
    let nvlinks = bytes / (2.0 * 2880e9 / 8.0);
    assert!(
        (1.0..1.2).contains(&(near_s[0] / nvlinks)),
        "{near_s:?} {nvlinks}"
    );
    assert!(near_s[0] < 0.2 * far_s[0], "{near_s:?} {far_s:?}");
}

#[test]
fn each_pool_is_priced_where_it_sits() {
    let whole = Network::of(&spectrum(32), &[]);
    // The NVLinks of the second server: where decode replicas are.
    let switch = |network: &TopologyPlan, gpu: u32| {
        let topology = network.generate().unwrap();
        topology.ports(gpu)[0].to
    };
    let slow = format!("node={}:0.01", switch(&spectrum(32), 8));
    let slow = Network::of(&spectrum(32), &[slow.as_str()]);
    let (fast, _) = run(&whole.config(&APART));
    let (slow, _) = run(&slow.config(&APART));
    assert_eq!(fast.ttft.p50_s, slow.ttft.p50_s);
    assert!(
        slow.tbt.p50_s > 1.05 * fast.tbt.p50_s,
        "{} {}",
        slow.tbt.p50_s,
        fast.tbt.p50_s
    );
}

#[test]
fn a_run_over_a_topology_is_the_same_every_time() {
    let network = Network::of(&spectrum(32), &["rail=2:0.3"]);
    let more = [
        "workload.requests=80",
        "axes.network.kv_transfer_overlap=[layer_wise]",
    ];
    let config = network.config(&more);
    let (first, second) = (run(&config).1, run(&config).1);
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    assert!(first.iter().all(|row| row.pd_p2p_comm_time_s > 0.0));
}

#[test]
fn a_topology_must_have_room_and_agree() {
    let small = Network::of(&spectrum(8), &[]);
    match resolve(&small.config(&[])) {
        Err(ResolveError::Infeasible(infeasible)) => {
            let reason = infeasible.to_string();
            assert!(reason.starts_with("the replicas take 14 GPUs"), "{reason}");
            assert!(reason.contains("has 8"), "{reason}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("14 GPUs on 8"),
    }
    assert!(resolve(&small.config(&["network.topology_of=replica"])).is_ok());
    let network = Network::of(&spectrum(32), &[]);
    let mut other_servers = network.config(&[]);
    other_servers.gpus_per_node = Some(4);
    match resolve(&other_servers) {
        Err(ResolveError::Input(error)) => {
            assert_eq!(error.key(), Some("gpus_per_node"));
            let text = error.to_string();
            assert!(text.contains("`4`, but the servers of"), "{text}");
            assert!(text.contains("have 8 GPUs"), "{text}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("servers of 4 and of 8"),
    }
    assert!(resolve(&network.config(&["gpus_per_node=8"])).is_ok());
    let islands = Network::of(&TopologyPlan::new(Fabric::NvlinkDomain, 32), &[]);
    match resolve(&islands.config(&[])) {
        Err(ResolveError::Infeasible(infeasible)) => {
            let reason = infeasible.to_string();
            assert!(reason.contains("a KV cache cannot be moved"), "{reason}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("no path between servers"),
    }
}
