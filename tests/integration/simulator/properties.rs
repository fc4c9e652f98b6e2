//! What must hold for every scheduler, layout and load.

use std::sync::Arc;

use proptest::prelude::*;
use vidur_sweep::memory::WindowCache;
use vidur_sweep::simulator::{
    ClusterSpec, Compat, GlobalScheduler, KvTransferSpec, PoolRole, PoolSpec, ReplicaScheduler,
    RequestOutcome, RequestRecord,
};

use super::support::{
    TickingCost, cluster, pool, run, run_by_events, run_by_tokens, sarathi, split_wise, summary,
    vllm,
};

pub fn replica_scheduler() -> impl Strategy<Value = ReplicaScheduler> {
    prop_oneof![
        (1u32..600, 1u32..40).prop_map(|(chunk, cap)| sarathi(chunk, cap)),
        (64u32..2000, 1u32..40).prop_map(|(tokens, cap)| vllm(tokens, cap)),
        (64u32..2000, 1u32..40).prop_map(|(tokens, cap)| split_wise(tokens, cap)),
        (1u32..40).prop_map(|batch_size_cap| ReplicaScheduler::Orca { batch_size_cap }),
        (1u32..40)
            .prop_map(|batch_size_cap| ReplicaScheduler::FasterTransformer { batch_size_cap }),
        (64u32..2000, 1u32..40, 1u32..12).prop_map(|(tokens, cap, iters)| {
            ReplicaScheduler::Lightllm {
                max_tokens_in_batch: tokens,
                batch_size_cap: cap,
                max_waiting_iters: iters,
            }
        }),
    ]
}

pub fn global_scheduler() -> impl Strategy<Value = GlobalScheduler> {
    prop_oneof![
        Just(GlobalScheduler::RoundRobin),
        Just(GlobalScheduler::Random),
        Just(GlobalScheduler::Lor),
        Just(GlobalScheduler::LeastKv),
        Just(GlobalScheduler::SplitWise),
    ]
}

pub fn requests() -> impl Strategy<Value = Vec<(f64, u32, u32)>> {
    proptest::collection::vec((0.0f64..0.05, 1u32..400, 1u32..80), 1..80).prop_map(|draws| {
        let mut at_s = 0.0;
        draws
            .into_iter()
            .map(|(gap_s, prompt, output)| {
                at_s += gap_s;
                (at_s, prompt, output)
            })
            .collect()
    })
}

/// Layers that cache only the last tokens, if any, beside others or not.
pub fn window() -> impl Strategy<Value = Option<WindowCache>> {
    let window =
        (1u32..200, 1u32..4, 0u32..3).prop_map(|(tokens, layers, full_layers)| WindowCache {
            tokens,
            layers,
            full_layers,
        });
    proptest::option::of(window)
}

/// One pool that does both phases, or does the first for a pool that does the other.
pub fn pools(first: PoolSpec, decoding: Option<PoolSpec>) -> Vec<PoolSpec> {
    let role = match decoding {
        Some(_) => PoolRole::Prefill,
        None => first.role,
    };
    std::iter::once(PoolSpec { role, ..first })
        .chain(decoding)
        .collect()
}

/// Has everything happen at whole multiples of a tick, many things at the same time.
pub fn tick(pools: &mut [PoolSpec], requests: &mut [(f64, u32, u32)]) {
    for pool in pools {
        let stages = pool.cost.stages();
        pool.cost = Arc::new(TickingCost { stages });
    }
    for request in requests {
        request.0 = (request.0 * 128.0).floor() / 128.0;
    }
}

/// The same for transfers: a block of 16 tokens takes a tick.
pub fn tick_transfers(transfer: &mut KvTransferSpec) {
    transfer.bytes_per_token = 1.0;
    (transfer.sender_bytes_per_s, transfer.receiver_bytes_per_s) = (2048.0, 2048.0);
    transfer.latency_s = 1.0 / 128.0;
}

/// That the shortcuts and the chain of events come to the same, to the last bit;
/// `ticking`: with transfers that take whole ticks.
pub fn shortcuts_agree(
    mut cluster: ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
    ticking: bool,
) -> Result<(), TestCaseError> {
    if ticking {
        cluster.kv_transfer.iter_mut().for_each(tick_transfers);
    }
    prop_assert_eq!(
        summary(&cluster, requests, clients, false),
        summary(&cluster, requests, clients, true)
    );
    Ok(())
}

fn check_record(record: &RequestRecord, disaggregated: bool) -> Result<(), TestCaseError> {
    match record.outcome {
        RequestOutcome::Completed => {
            prop_assert!(record.arrived_at_s <= record.scheduled_at_s);
            prop_assert!(record.scheduled_at_s < record.prefill_completed_at_s);
            prop_assert!(record.prefill_completed_at_s <= record.completed_at_s);
            prop_assert!(record.execution_s > 0.0);
            prop_assert!(record.model_execution_s < record.execution_s);
            prop_assert!(record.preemption_s >= 0.0);
            if record.decode_tokens > 1 {
                prop_assert!(record.decode_arrived_at_s >= record.prefill_completed_at_s);
                prop_assert!(record.decode_arrived_at_s < record.completed_at_s);
                prop_assert_eq!(disaggregated, record.pd_p2p_comm_time_s > 0.0);
                prop_assert_eq!(
                    disaggregated,
                    record.prefill_replica_id != record.decode_replica_id
                );
            }
        }
        _ => prop_assert!(record.completed_at_s.is_nan()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_request_ends_and_no_token_is_lost(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..4,
        stages in 1u32..4,
        blocks in 4u64..150,
        clients in proptest::option::of(1u32..30),
        window in window(),
    ) {
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 2, 1, blocks, decode_replica));
        let mut pools = pools(pool(PoolRole::Mixed, replicas, stages, blocks, replica), decoding);
        pools.iter_mut().for_each(|pool| pool.kv_cache.window = window);
        let cluster = cluster(pools, global);
        let (everything, totals) = run(&cluster, &requests, clients);
        // Shortcuts change nothing, to the last bit.
        let (by_events, totals_by_events) = run_by_events(&cluster, &requests, clients);
        prop_assert_eq!(
            format!("{:?} {:?}", everything.records, everything.intervals),
            format!("{:?} {:?}", by_events.records, by_events.intervals)
        );
        prop_assert_eq!(&totals, &totals_by_events);
        prop_assert_eq!(everything.records.len(), requests.len());
        for (id, (record, request)) in everything.records.iter().zip(&requests).enumerate() {
            prop_assert_eq!(record.request_id as usize, id);
            prop_assert_eq!((record.prefill_tokens, record.decode_tokens), (request.1, request.2));
            prop_assert!(record.outcome != RequestOutcome::UnfinishedTimeLimit);
            check_record(record, disaggregated)?;
        }
        // One interval for every output token but the first of each request.
        let completed = || {
            everything.records.iter().filter(|r| r.outcome == RequestOutcome::Completed)
        };
        let expected: u64 = completed().map(|r| u64::from(r.decode_tokens) - 1).sum();
        let recorded: u64 = everything.intervals.iter().map(|&(_, count)| u64::from(count)).sum();
        prop_assert_eq!(recorded, expected);
        prop_assert!(everything.intervals.iter().all(|&(interval_s, _)| interval_s > 0.0));
        // The sum of all intervals is the time between first and last tokens.
        let span_s: f64 = completed().map(|r| r.completed_at_s - r.prefill_completed_at_s).sum();
        let sum_s: f64 = everything.intervals.iter().map(|&(s, count)| s * f64::from(count)).sum();
        prop_assert!((span_s - sum_s).abs() <= 1e-6 * span_s.max(1.0), "{} {}", span_s, sum_s);
        // Without restarts each prompt token is processed once and each decode once.
        if totals.preemptions == 0 {
            let tokens: u64 = completed()
                .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens) - 1)
                .sum();
            prop_assert_eq!(totals.pools.iter().map(|pool| pool.tokens).sum::<u64>(), tokens);
        }
        prop_assert!((0.0..=1.0 + 1e-9).contains(&totals.gpu_busy_fraction));
        prop_assert!((0.0..=1.0 + 1e-9).contains(&totals.kv_cache_utilization));
    }

    #[test]
    fn replicas_that_nothing_connects_may_be_simulated_apart(
        requests in requests(),
        replica in replica_scheduler(),
        random: bool,
        replicas in 2u32..6,
        stages in 1u32..4,
        blocks in 4u64..150,
        vidur: bool,
        limit_s in proptest::option::of(0.0f64..3.0),
    ) {
        let global = if random { GlobalScheduler::Random } else { GlobalScheduler::RoundRobin };
        let mut cluster = cluster(
            vec![pool(PoolRole::Mixed, replicas, stages, blocks, replica)],
            global,
        );
        cluster.time_limit_s = limit_s;
        if vidur {
            cluster.compat = Compat::Vidur;
        }
        prop_assert_eq!(
            summary(&cluster, &requests, None, false),
            summary(&cluster, &requests, None, true)
        );
    }

    #[test]
    fn steps_may_be_made_before_those_of_other_replicas(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..5,
        stages in 1u32..3,
        blocks in 4u64..150,
        clients in proptest::option::of(1u32..30),
        (limit_s, window) in (proptest::option::of(0.0f64..3.0), window()),
        ticking: bool,
    ) {
        let mut requests = requests;
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 3, 1, blocks, decode_replica));
        let mut pools = pools(pool(PoolRole::Mixed, replicas, stages, blocks, replica), decoding);
        pools.iter_mut().for_each(|pool| pool.kv_cache.window = window);
        if ticking {
            tick(&mut pools, &mut requests);
        }
        let mut cluster = cluster(pools, global);
        cluster.time_limit_s = limit_s;
        shortcuts_agree(cluster, &requests, clients, ticking)?;
    }

    /// Against a recorder that knows when each token of each request came.
    #[test]
    fn the_longest_interval_of_a_request_is_that_of_its_tokens(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..4,
        stages in 1u32..5,
        blocks in 4u64..150,
        clients in proptest::option::of(1u32..30),
        limit_s in proptest::option::of(0.0f64..3.0),
    ) {
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 2, 1, blocks, decode_replica));
        let pools = pools(pool(PoolRole::Mixed, replicas, stages, blocks, replica), decoding);
        let mut cluster = cluster(pools, global);
        cluster.time_limit_s = limit_s;
        let tokens_at_s = run_by_tokens(&cluster, &requests, clients);
        let (everything, _) = run(&cluster, &requests, clients);
        for (record, tokens_at_s) in everything.records.iter().zip(tokens_at_s) {
            let mut longest_s = f64::NAN;
            for pair in tokens_at_s.windows(2) {
                longest_s = longest_s.max(pair[1] - pair[0]);
            }
            match record.outcome {
                RequestOutcome::Completed => {
                    prop_assert_eq!(tokens_at_s.len(), record.decode_tokens as usize);
                }
                RequestOutcome::UnfinishedTimeLimit => {
                    let waited = tokens_at_s.last().map(|last_s| record.ended_at_s - last_s);
                    longest_s = longest_s.max(waited.unwrap_or(f64::NAN));
                }
                _ => prop_assert!(tokens_at_s.is_empty()),
            }
            // To the last bit, and so NaN, too.
            prop_assert_eq!(record.longest_interval_s.to_bits(), longest_s.to_bits());
        }
    }

    #[test]
    fn a_time_limit_leaves_nothing_unreported(
        requests in requests(), replica in replica_scheduler(), limit_s in 0.0f64..2.0,
    ) {
        let mut cluster = cluster(
            vec![pool(PoolRole::Mixed, 2, 1, 100, replica)],
            GlobalScheduler::Lor,
        );
        cluster.time_limit_s = Some(limit_s);
        let (everything, totals) = run(&cluster, &requests, None);
        prop_assert_eq!(everything.records.len(), requests.len());
        prop_assert!(totals.end_s <= limit_s);
        for record in &everything.records {
            check_record(record, false)?;
            prop_assert!(record.completed_at_s.is_nan() || record.completed_at_s <= limit_s);
        }
    }
}

/// Enough requests for replicas to be simulated in parallel.
#[test]
fn threads_change_nothing() {
    let mixed = pool(PoolRole::Mixed, 70, 1, 100, sarathi(64, 8));
    let cluster = cluster(vec![mixed], GlobalScheduler::RoundRobin);
    // Every thousandth can never run.
    let prompt = |id: u32| if id % 1000 == 999 { 5000 } else { 1 + id % 7 };
    let request = |id: u32| (f64::from(id) * 1e-4, prompt(id), 1 + id % 3);
    let requests: Vec<_> = (0..200_000).map(request).collect();
    let parallel = summary(&cluster, &requests, None, false);
    assert!(parallel == summary(&cluster, &requests, None, true));
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let alone = threads
        .expect("a pool")
        .install(|| summary(&cluster, &requests, None, false));
    assert!(parallel == alone);
}

#[test]
fn what_can_never_run_is_rejected_with_the_reason() {
    let requests = [
        (0.0, 100, 10),
        (0.0, 5000, 10),
        (0.0, 900, 10),
        (0.0, 50, 2),
    ];
    let pools = vec![pool(PoolRole::Mixed, 1, 1, 64, vllm(512, 8))];
    let (everything, _) = run(
        &cluster(pools, GlobalScheduler::RoundRobin),
        &requests,
        None,
    );
    let outcomes: Vec<_> = everything.records.iter().map(|r| r.outcome).collect();
    assert_eq!(
        outcomes,
        [
            RequestOutcome::Completed,
            RequestOutcome::RejectedTooLargeForKvCache,
            RequestOutcome::RejectedPromptExceedsBatch,
            RequestOutcome::Completed,
        ]
    );
}

#[test]
fn decoding_waits_for_the_kv_cache() {
    // One transfer of 101 tokens takes 10.1 ms; the second one shares the link.
    let requests = [(0.0, 100, 5), (0.0, 100, 5)];
    let pools = vec![
        pool(PoolRole::Prefill, 1, 1, 1000, split_wise(4096, 8)),
        pool(PoolRole::Decode, 1, 1, 1000, split_wise(4096, 8)),
    ];
    let (everything, _) = run(&cluster(pools, GlobalScheduler::SplitWise), &requests, None);
    for record in &everything.records {
        assert_eq!(record.pd_p2p_comm_size_bytes, 100.0 * 1e5);
        assert!((record.pd_p2p_comm_time_s - (0.02 + 1e-5)).abs() < 1e-12);
        let gap_s = record.decode_arrived_at_s - record.prefill_completed_at_s;
        assert!((gap_s - record.pd_p2p_comm_time_s).abs() < 1e-12);
    }
}

#[test]
fn pipeline_stages_overlap_micro_batches() {
    let requests: Vec<_> = (0..64).map(|_| (0.0, 128, 64)).collect();
    let busy = |stages| {
        let pools = vec![pool(PoolRole::Mixed, 1, stages, 4000, sarathi(512, 64))];
        run(
            &cluster(pools, GlobalScheduler::RoundRobin),
            &requests,
            None,
        )
        .1
        .gpu_busy_fraction
    };
    assert!(busy(1) > 0.999);
    assert!(
        busy(4) > 0.8,
        "micro-batches keep four stages busy: {}",
        busy(4)
    );
}

#[test]
fn closed_loop_never_exceeds_its_clients() {
    let requests: Vec<_> = (0..200).map(|_| (0.0, 64, 20)).collect();
    let pools = vec![pool(PoolRole::Mixed, 2, 1, 1000, sarathi(512, 64))];
    let (everything, _) = run(&cluster(pools, GlobalScheduler::Lor), &requests, Some(8));
    for at in &everything.records {
        let open = everything
            .records
            .iter()
            .filter(|r| r.arrived_at_s <= at.arrived_at_s && r.completed_at_s > at.arrived_at_s)
            .count();
        assert!(open <= 8, "{open} open requests");
    }
}

#[test]
fn layers_with_a_window_stop_taking_blocks() {
    // 8 blocks of 16 tokens: a prompt of 100 takes 7 of all layers.
    let outcome = |window, prompt, output| {
        let mut pools = vec![pool(PoolRole::Mixed, 1, 1, 8, vllm(4096, 8))];
        pools[0].kv_cache.window = window;
        let (everything, totals) = run(
            &cluster(pools, GlobalScheduler::RoundRobin),
            &[(0.0, prompt, output)],
            None,
        );
        (everything.records[0].outcome, totals.preemptions)
    };
    let window = |tokens, layers, full_layers| {
        Some(WindowCache {
            tokens,
            layers,
            full_layers,
        })
    };
    let completed = (RequestOutcome::Completed, 0);
    let rejected = (RequestOutcome::RejectedTooLargeForKvCache, 0);
    assert_eq!(outcome(None, 100, 28), completed);
    assert_eq!(outcome(None, 100, 30), rejected);
    // All layers with a window of 64 tokens: 5 blocks, however long the request.
    assert_eq!(outcome(window(64, 1, 0), 3000, 1000), completed);
    assert_eq!(outcome(window(128, 1, 0), 3000, 1000), rejected);
    // One such layer beside two others: half as many blocks more.
    assert_eq!(outcome(window(32, 1, 2), 90, 6), completed);
    assert_eq!(outcome(window(32, 1, 2), 90, 7), completed);
    assert_eq!(outcome(window(32, 1, 2), 90, 8), rejected);
}
