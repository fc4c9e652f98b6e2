//! What is cut off by a time limit is neither served nor failed unless a target was
//! missed by then, and what does not fit into the longest sequence is not generated.

use proptest::prelude::*;
use vidur_sweep::simulator::{
    ClusterSpec, GlobalScheduler, PoolRole, ReplicaScheduler, RequestOutcome, RequestRecord,
    RequestTargets, RunSummary, SummaryRecorder,
};

use super::properties::{global_scheduler, pools, replica_scheduler, requests};
use super::support::{cluster, pool, record, run, sarathi, summary};

fn summary_of(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
    targets: RequestTargets,
) -> RunSummary {
    let mut recorder = SummaryRecorder::new(requests.len(), 0, Some(targets));
    let totals = record(cluster, requests, clients, &mut recorder);
    recorder.finish(&totals).0
}

/// Whether a request that ran or waited at `limit_s` had missed a target, told from what
/// is known of it, one metric after the other.
fn is_past(record: &RequestRecord, targets: &RequestTargets, limit_s: f64) -> bool {
    let since = |from_s: f64, to_s: f64| {
        if to_s.is_nan() {
            limit_s - from_s
        } else {
            to_s - from_s
        }
    };
    let beyond = |value_s: f64, target_s: Option<f64>| target_s.is_some_and(|t| value_s > t);
    let first_s = record.prefill_completed_at_s;
    let intervals = f64::from(record.decode_tokens) - 1.0;
    beyond(
        since(record.arrived_at_s, record.scheduled_at_s),
        targets.scheduling_delay_s,
    ) || beyond(since(record.arrived_at_s, first_s), targets.ttft_s)
        || beyond(limit_s - record.arrived_at_s, targets.e2e_s)
        || beyond(record.longest_interval_s, targets.stall_s)
        || (!first_s.is_nan()
            && intervals > 0.0
            && beyond((limit_s - first_s) / intervals, targets.tbt_s))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_are_served_or_failed_or_neither(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..4,
        blocks in 4u64..150,
        clients in proptest::option::of(1u32..30),
        limit_s in 0.0f64..2.0,
        ttft_s in proptest::option::of(0.0f64..0.5),
        tbt_s in proptest::option::of(0.0f64..0.02),
        stall_s in proptest::option::of(0.0f64..0.1),
        e2e_s in proptest::option::of(0.0f64..1.0),
        scheduling_delay_s in proptest::option::of(0.0f64..0.5),
    ) {
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 2, 1, blocks, decode_replica));
        let pools = pools(pool(PoolRole::Mixed, replicas, 1, blocks, replica), decoding);
        let mut cluster = cluster(pools, global);
        cluster.time_limit_s = Some(limit_s);
        let targets = RequestTargets { ttft_s, tbt_s, stall_s, e2e_s, scheduling_delay_s };
        let summary = summary_of(&cluster, &requests, clients, targets);
        let (everything, _) = run(&cluster, &requests, clients);
        let count = |wanted: &dyn Fn(&&RequestRecord) -> bool| {
            everything.records.iter().filter(wanted).count() as u32
        };
        let unfinished = |r: &&RequestRecord| r.outcome == RequestOutcome::UnfinishedTimeLimit;
        let past = |r: &&RequestRecord| unfinished(r) && is_past(r, &targets, limit_s);
        prop_assert_eq!(summary.unfinished, count(&unfinished));
        prop_assert_eq!(summary.undecided, summary.unfinished - count(&past));
        prop_assert_eq!(
            summary.not_arrived,
            count(&|r| r.outcome == RequestOutcome::NotArrived)
        );
        prop_assert_eq!(
            summary.completed + summary.rejected + summary.unfinished + summary.not_arrived,
            summary.num_requests
        );
        prop_assert_eq!(
            summary.decided(),
            summary.completed + summary.rejected + count(&past)
        );
        for record in &everything.records {
            match (record.outcome, clients) {
                (RequestOutcome::NotArrived, None) => {
                    prop_assert!(record.arrived_at_s > limit_s);
                }
                (RequestOutcome::NotArrived, Some(_)) => prop_assert!(record.arrived_at_s.is_nan()),
                _ => prop_assert!(record.arrived_at_s <= limit_s),
            }
        }
    }

    #[test]
    fn nothing_is_longer_than_the_longest_sequence(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..4,
        clients in proptest::option::of(1u32..30),
        longest in 2u32..400,
    ) {
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 2, 1, 200, decode_replica));
        let pools = pools(pool(PoolRole::Mixed, replicas, 1, 200, replica), decoding);
        let mut cluster = cluster(pools, global);
        cluster.max_model_len = Some(longest);
        let (everything, _) = run(&cluster, &requests, clients);
        for (record, &(_, prompt, output)) in everything.records.iter().zip(&requests) {
            let refused = record.outcome == RequestOutcome::RejectedPromptExceedsMaxModelLen;
            prop_assert_eq!(refused, prompt >= longest);
            prop_assert_eq!(record.prefill_tokens, prompt);
            if !refused {
                prop_assert_eq!(record.decode_tokens, output.min(longest - prompt));
                prop_assert_eq!(record.is_capped, output > longest - prompt);
            }
        }
        prop_assert_eq!(
            summary(&cluster, &requests, clients, false),
            summary(&cluster, &requests, clients, true)
        );
        // What is served is served as if nothing else had been asked for.
        if clients.is_none() {
            let served = requests.iter().filter(|request| request.1 < longest);
            let served: Vec<_> = served
                .map(|&(at_s, prompt, output)| (at_s, prompt, output.min(longest - prompt)))
                .collect();
            cluster.max_model_len = None;
            let (plain, _) = run(&cluster, &served, clients);
            let times = |records: &[RequestRecord]| -> Vec<String> {
                let served = records
                    .iter()
                    .filter(|r| r.outcome != RequestOutcome::RejectedPromptExceedsMaxModelLen);
                let times = served.map(|r| format!("{:?} {:?}", r.outcome, r.completed_at_s));
                times.collect()
            };
            // Random routing draws for those it routes; in turn likewise.
            prop_assert_eq!(times(&everything.records), times(&plain.records));
        }
    }
}

#[test]
fn reservations_end_at_the_longest_sequence() {
    let pools = vec![pool(
        PoolRole::Mixed,
        1,
        1,
        7,
        ReplicaScheduler::Orca { batch_size_cap: 8 },
    )];
    let mut cluster = cluster(pools, GlobalScheduler::RoundRobin);
    let requests = [(0.0, 10, 1000), (0.0, 5000, 5), (0.0, 20, 5)];
    let outcomes = |cluster: &ClusterSpec| -> Vec<RequestOutcome> {
        let (everything, _) = run(cluster, &requests, None);
        everything.records.iter().map(|r| r.outcome).collect()
    };
    let too_large = RequestOutcome::RejectedTooLargeForKvCache;
    assert_eq!(outcomes(&cluster), [too_large; 3]);
    // 100 tokens are 7 blocks of 16.
    let served = [
        RequestOutcome::Completed,
        RequestOutcome::RejectedPromptExceedsMaxModelLen,
        RequestOutcome::Completed,
    ];
    for max_request_tokens in [None, Some(4096)] {
        cluster.max_request_tokens = max_request_tokens;
        cluster.max_model_len = Some(100);
        assert_eq!(outcomes(&cluster), served);
    }
}

#[test]
fn replicas_simulated_in_parallel_count_alike() {
    let mixed = pool(PoolRole::Mixed, 70, 1, 100, sarathi(64, 8));
    let mut cluster = cluster(vec![mixed], GlobalScheduler::RoundRobin);
    cluster.time_limit_s = Some(10.0);
    cluster.max_model_len = Some(8);
    let request = |id: u32| (f64::from(id) * 1e-4, 1 + id % 9, 1 + id % 5);
    let requests: Vec<_> = (0..200_000).map(request).collect();
    assert!(summary(&cluster, &requests, None, false) == summary(&cluster, &requests, None, true));
    let summary = summary_of(&cluster, &requests, None, RequestTargets::default());
    assert_eq!(summary.not_arrived, 200_000 - 100_001);
    assert!(summary.rejected_by_max_model_len > 20_000);
    assert!(summary.capped_by_max_model_len > 10_000);
    assert_eq!(summary.undecided, summary.unfinished);
}
