//! Two pools of different machines from specification to result, on the example
//! of `docs/disaggregation.md`.

use std::path::Path;

use vidur_sweep::explore::{Plan, Simulate};
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
        Err(ResolveError::Infeasible(reason)) => reason,
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
