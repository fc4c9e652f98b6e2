//! What must hold between a prefill and a decode pool, however requests are given
//! to replicas and whenever their caches leave.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vidur_sweep::simulator::{
    BatchFact, ClusterSpec, Disaggregation, EventFact, GlobalScheduler, KvTransferSpec, KvUseFact,
    MixedPoolConfig, PoolRole, Recorder, ReplicaScheduler, RequestOutcome, RequestRecord,
    SimulationTotals,
};

use super::properties::{global_scheduler, replica_scheduler};
use super::support::{self, cluster, pool, record, sarathi, split_wise, vllm};

/// Everything that happens.
#[derive(Default)]
struct Log {
    records: BTreeMap<u32, RequestRecord>,
    batches: Vec<Batch>,
    intervals: u64,
    times_s: Vec<f64>,
    fullest: u64,
}

struct Batch {
    replica: u32,
    scheduled_at_s: f64,
    completed_at_s: f64,
    prefill_tokens: u32,
    requests: Vec<(u32, u32)>,
}

impl Recorder for Log {
    const WANTS_EVENTS: bool = true;
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        let earlier = self.records.insert(record.request_id, record.clone());
        assert!(earlier.is_none(), "{record:?} recorded twice");
    }
    fn token_intervals(&mut self, _interval_s: f64, count: u32) {
        self.intervals += u64::from(count);
    }
    fn event(&mut self, fact: &EventFact) {
        self.times_s.push(fact.time_s);
    }
    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        self.batches.push(Batch {
            replica: fact.replica,
            scheduled_at_s: fact.scheduled_at_s,
            completed_at_s: fact.completed_at_s,
            prefill_tokens: fact.prefill_tokens,
            requests: fact.requests.to_vec(),
        });
    }
    fn kv_use(&mut self, fact: &KvUseFact) {
        assert!(fact.used_blocks <= fact.total_blocks, "{fact:?}");
        self.fullest = self.fullest.max(fact.used_blocks);
    }
}

fn run(cluster: &ClusterSpec, requests: &[(f64, u32, u32)]) -> (Log, SimulationTotals) {
    run_closed(cluster, requests, None)
}

fn run_closed(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
) -> (Log, SimulationTotals) {
    let mut log = Log::default();
    let totals = record(cluster, requests, clients, &mut log);
    (log, totals)
}

fn disaggregation() -> impl Strategy<Value = Disaggregation> {
    let mixed_pool = (1u64..2000, 0.05f64..1.0).prop_map(|(tokens, fraction)| MixedPoolConfig {
        max_pending_prompt_tokens: tokens,
        max_kv_cache_fraction: fraction,
    });
    (
        global_scheduler(),
        global_scheduler(),
        proptest::option::of(mixed_pool),
        proptest::option::of(1u32..40),
    )
        .prop_map(
            |(prefill, decode, mixed_pool, overlap_layers)| Disaggregation {
                prefill_scheduler: Some(prefill),
                decode_scheduler: Some(decode),
                mixed_pool,
                overlap_layers,
            },
        )
}

fn transfer() -> impl Strategy<Value = KvTransferSpec> {
    (1e7f64..1e10, 1e7f64..1e10, 0.0f64..1e6, 0.0f64..0.01).prop_map(
        |(sender_bytes_per_s, receiver_bytes_per_s, bytes_per_request, latency_s)| KvTransferSpec {
            bytes_per_token: 1e5,
            bytes_per_request,
            window: None,
            sender_bytes_per_s,
            receiver_bytes_per_s,
            latency_s,
        },
    )
}

fn requests() -> impl Strategy<Value = Vec<(f64, u32, u32)>> {
    proptest::collection::vec((0.0f64..0.05, 1u32..400, 1u32..60), 1..60).prop_map(|draws| {
        let mut at_s = 0.0;
        let request = |(gap_s, prompt, output)| {
            at_s += gap_s;
            (at_s, prompt, output)
        };
        draws.into_iter().map(request).collect()
    })
}

/// Requests that moved from one replica to another.
fn moved(log: &Log) -> impl Iterator<Item = &RequestRecord> {
    (log.records.values())
        .filter(|record| record.outcome == RequestOutcome::Completed && record.decode_tokens > 1)
        .filter(|record| record.prefill_replica_id != record.decode_replica_id)
}

/// Start, end, bytes.
type Span = (f64, f64, f64);

/// Bytes each link moves in any span of time are within its capacity.
fn check_links(
    spec: &KvTransferSpec,
    prefill_replicas: u32,
    log: &Log,
) -> Result<(), TestCaseError> {
    let capacity = |replica| match replica < prefill_replicas {
        true => spec.sender_bytes_per_s,
        false => spec.receiver_bytes_per_s,
    };
    let mut links: BTreeMap<(u32, bool), Vec<Span>> = BTreeMap::new();
    for record in moved(log) {
        let start_s = record.decode_arrived_at_s - record.pd_p2p_comm_time_s;
        let end_s = record.decode_arrived_at_s - spec.latency_s;
        let span = (start_s, end_s, record.pd_p2p_comm_size_bytes);
        let out = links.entry((record.prefill_replica_id, true)).or_default();
        out.push(span);
        let into = links.entry((record.decode_replica_id, false)).or_default();
        into.push(span);
    }
    for ((replica, _), spans) in &links {
        for &(from_s, _, _) in spans {
            for &(_, to_s, _) in spans {
                let within = spans
                    .iter()
                    .filter(|(start_s, end_s, _)| *start_s >= from_s && *end_s <= to_s);
                let bytes: f64 = within.map(|(_, _, bytes)| bytes).sum();
                let most = capacity(*replica) * (to_s - from_s).max(0.0);
                prop_assert!(
                    bytes <= most * (1.0 + 1e-9) + 1.0,
                    "{} bytes of {}",
                    bytes,
                    most
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn requests_end_caches_arrive_first_and_links_are_shared(
        requests in requests(),
        prefill_replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        disaggregation in disaggregation(),
        transfer in transfer(),
        replicas in (1u32..4, 1u32..4),
        stages in (1u32..4, 1u32..3),
        blocks in (4u64..150, 4u64..150),
        decode_block_size in 1u32..40,
        clients in proptest::option::of(1u32..30),
    ) {
        let mut pools = vec![
            pool(PoolRole::Prefill, replicas.0, stages.0, blocks.0, prefill_replica),
            pool(PoolRole::Decode, replicas.1, stages.1, blocks.1, decode_replica),
        ];
        pools[1].kv_cache.block_size = decode_block_size;
        let mut cluster = cluster(pools, GlobalScheduler::RoundRobin);
        cluster.kv_transfer = Some(transfer);
        cluster.disaggregation = disaggregation;
        let (log, totals) = run_closed(&cluster, &requests, clients);
        // Nobody watching, shortcuts are taken; they change nothing, to the last bit.
        let (unwatched, unwatched_totals) = support::run(&cluster, &requests, clients);
        let watched: Vec<_> = log.records.values().collect();
        let unwatched: Vec<_> = unwatched.records.iter().collect();
        prop_assert_eq!(format!("{watched:?}"), format!("{unwatched:?}"));
        prop_assert_eq!(&totals, &unwatched_totals);

        prop_assert!(log.times_s.is_sorted());
        prop_assert_eq!(log.records.len(), requests.len());
        prop_assert_eq!(totals.leaked_blocks, 0);
        let unfinished = |record: &&RequestRecord| matches!(
            record.outcome,
            RequestOutcome::UnfinishedStuck | RequestOutcome::UnfinishedTimeLimit
        );
        prop_assert!(!log.records.values().any(|record| unfinished(&record)));
        let completed = || {
            log.records.values().filter(|record| record.outcome == RequestOutcome::Completed)
        };
        let intervals: u64 = completed().map(|r| u64::from(r.decode_tokens) - 1).sum();
        prop_assert_eq!(log.intervals, intervals);
        if totals.preemptions == 0 {
            let tokens: u64 = completed()
                .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens) - 1)
                .sum();
            prop_assert_eq!(totals.pools.iter().map(|pool| pool.tokens).sum::<u64>(), tokens);
        }
        for record in moved(&log) {
            let bytes = 1e5 * f64::from(record.prefill_tokens) + transfer.bytes_per_request;
            prop_assert_eq!(record.pd_p2p_comm_size_bytes, bytes);
            let bytes_per_s = transfer.sender_bytes_per_s.max(transfer.receiver_bytes_per_s);
            let least_s = bytes / bytes_per_s + transfer.latency_s;
            prop_assert!(record.pd_p2p_comm_time_s >= least_s * (1.0 - 1e-9));
            // However early it starts, its last layer leaves when the prompt is complete.
            let layers = disaggregation.overlap_layers.map_or(1, |layers| layers.max(stages.0));
            let last_bytes = bytes / f64::from(layers);
            let last_s = last_bytes / bytes_per_s + transfer.latency_s;
            let after_s = record.decode_arrived_at_s - record.prefill_completed_at_s;
            prop_assert!(after_s >= last_s * (1.0 - 1e-9) - 1e-9, "{} of {}", after_s, last_s);
        }
        if disaggregation.mixed_pool.is_none() {
            let others = completed().filter(|record| record.decode_tokens > 1);
            prop_assert_eq!(others.count(), moved(&log).count());
        }
        check_links(&transfer, replicas.0, &log)?;
        for batch in &log.batches {
            prop_assert!(batch.scheduled_at_s < batch.completed_at_s);
            for (id, _) in &batch.requests {
                let record = &log.records[id];
                if record.prefill_replica_id != batch.replica {
                    prop_assert_eq!(record.decode_replica_id, batch.replica);
                    prop_assert!(record.decode_arrived_at_s <= batch.scheduled_at_s);
                }
            }
        }
    }
}

fn split_wise_pools(prefill: u32, decode: u32, blocks: [u64; 2]) -> ClusterSpec {
    let pools = vec![
        pool(
            PoolRole::Prefill,
            prefill,
            1,
            blocks[0],
            split_wise(2048, 64),
        ),
        pool(PoolRole::Decode, decode, 1, blocks[1], split_wise(2048, 64)),
    ];
    cluster(pools, GlobalScheduler::SplitWise)
}

#[test]
fn a_decode_cache_for_one_request_holds_the_others_back() {
    let requests: Vec<_> = (0..50).map(|_| (0.0, 100, 20)).collect();
    let (log, totals) = run(&split_wise_pools(2, 1, [20, 8]), &requests);
    assert_eq!(moved(&log).count(), 50);
    assert_eq!((totals.leaked_blocks, log.fullest), (0, 14));
    // One after the other: nobody's cache arrives before the last one's request ends.
    let mut spans: Vec<_> = (log.records.values())
        .map(|record| (record.decode_arrived_at_s, record.completed_at_s))
        .collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(spans.windows(2).all(|pair| pair[1].0 > pair[0].1));
}

/// One prompt of 100 tokens: 15 ms and 0.1 ms of the host for its prefill, 10 MB
/// of cache.
fn one_request(bytes_per_s: f64, overlap_layers: Option<u32>) -> RequestRecord {
    let mut cluster = split_wise_pools(1, 1, [100, 100]);
    cluster.disaggregation.overlap_layers = overlap_layers;
    cluster.kv_transfer = Some(KvTransferSpec {
        bytes_per_token: 1e5,
        bytes_per_request: 0.0,
        window: None,
        sender_bytes_per_s: bytes_per_s,
        receiver_bytes_per_s: bytes_per_s,
        latency_s: 1e-3,
    });
    run(&cluster, &[(0.0, 100, 5)]).0.records[&0].clone()
}

#[test]
fn layers_leave_while_later_ones_are_computed() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    let prefill_s = 0.0151;
    near(
        one_request(1e9, None).decode_arrived_at_s,
        prefill_s + 0.01 + 1e-3,
    );
    // A link faster than the layers come: only the last one is left at the end.
    let fast = one_request(1e9, Some(20));
    near(fast.decode_arrived_at_s, prefill_s + 5e5 / 1e9 + 1e-3);
    near(fast.pd_p2p_comm_time_s, fast.decode_arrived_at_s);
    // A slower one is busy from the first layer on.
    let slow = one_request(1e8, Some(20));
    near(slow.decode_arrived_at_s, prefill_s / 20.0 + 0.1 + 1e-3);
    // With a single layer nothing overlaps.
    near(
        one_request(1e9, Some(1)).decode_arrived_at_s,
        prefill_s + 0.01 + 1e-3,
    );
    near(fast.prefill_completed_at_s, prefill_s);
}

#[test]
fn stages_of_a_pipeline_send_their_layers_in_turn() {
    let mut cluster = split_wise_pools(1, 1, [100, 100]);
    cluster.pools[0] = pool(PoolRole::Prefill, 1, 2, 100, sarathi(64, 8));
    cluster.disaggregation.overlap_layers = Some(20);
    let (log, _) = run(&cluster, &[(0.0, 100, 5)]);
    let record = &log.records[&0];
    // The last chunk of 36 tokens takes 4.4 ms on each of two stages of ten layers,
    // a little faster than the link can send them: it is busy from the first layer
    // of the first stage on, through the first layer of the second.
    let left_s = record.decode_arrived_at_s - record.prefill_completed_at_s - 1e-5;
    let sent_bytes = 1e9 * (2.0 * 4.4e-3 - 0.44e-3);
    assert!(
        (left_s - (10e6 - sent_bytes) / 1e9).abs() < 1e-9,
        "{left_s}"
    );
}

#[test]
fn pools_are_routed_on_their_own() {
    // Long outputs go to the same decode replica in turn; least_kv sees its memory.
    let requests: Vec<_> = (0..40)
        .map(|i| (0.2 * f64::from(i), 64, if i % 2 == 0 { 400 } else { 2 }))
        .collect();
    let on = |decode| {
        let mut cluster = split_wise_pools(2, 2, [1000, 1000]);
        cluster.disaggregation.prefill_scheduler = Some(GlobalScheduler::RoundRobin);
        cluster.disaggregation.decode_scheduler = Some(decode);
        let (log, _) = run(&cluster, &requests);
        for (id, record) in &log.records {
            assert_eq!(record.prefill_replica_id, id % 2);
        }
        let long = log.records.values().filter(|r| r.decode_tokens > 2);
        let first = long.filter(|r| r.decode_replica_id == 2).count();
        (first, log)
    };
    assert_eq!(on(GlobalScheduler::RoundRobin).0, 20);
    assert!((8..=12).contains(&on(GlobalScheduler::LeastKv).0));
    assert!((8..=12).contains(&on(GlobalScheduler::SplitWise).0));
}

#[test]
fn least_kv_counts_what_waits_too() {
    // All arrive at once: nothing is in use yet, everything is promised.
    let requests = [(0.0, 300, 2), (0.0, 10, 2), (0.0, 10, 2), (0.0, 10, 2)];
    let pools = vec![pool(PoolRole::Mixed, 2, 1, 100, vllm(512, 8))];
    let (log, _) = run(&cluster(pools, GlobalScheduler::LeastKv), &requests);
    let replicas: Vec<_> = log.records.values().map(|r| r.prefill_replica_id).collect();
    assert_eq!(replicas, [0, 1, 1, 1]);
}

fn mean_ttft_s(log: &Log) -> f64 {
    let ttft = |record: &RequestRecord| record.prefill_completed_at_s - record.arrived_at_s;
    log.records.values().map(ttft).sum::<f64>() / log.records.len() as f64
}

#[test]
fn the_mixed_pool_takes_bursts_of_prompts_and_is_not_there_otherwise() {
    let with = |cluster: &ClusterSpec, max_pending_prompt_tokens| {
        let mut cluster = cluster.clone();
        cluster.disaggregation.mixed_pool = Some(MixedPoolConfig {
            max_pending_prompt_tokens,
            ..MixedPoolConfig::default()
        });
        cluster
    };
    let plain = split_wise_pools(1, 3, [2000, 2000]);
    let burst: Vec<_> = (0..100).map(|i| (0.01 * f64::from(i), 500, 30)).collect();
    let (alone, _) = run(&plain, &burst);
    let (helped, _) = run(&with(&plain, 2048), &burst);
    assert!(mean_ttft_s(&helped) < 0.5 * mean_ttft_s(&alone));
    // Prompts on decode replicas are batched with their decodes.
    let mixed = |batch: &&Batch| {
        let tokens: u32 = batch.requests.iter().map(|(_, tokens)| tokens).sum();
        batch.replica > 0 && batch.prefill_tokens > 0 && tokens > batch.prefill_tokens
    };
    assert!(helped.batches.iter().filter(mixed).count() > 5);
    assert!(!alone.batches.iter().any(|batch| mixed(&batch)));
    // They are back before the end: the last request is disaggregated again.
    let mut late = burst.clone();
    late.push((100.0, 500, 30));
    let (log, _) = run(&with(&plain, 2048), &late);
    assert!(moved(&log).any(|record| record.request_id == 100));

    let calm: Vec<_> = (0..100).map(|i| (0.2 * f64::from(i), 500, 30)).collect();
    let (log, _) = run(&with(&plain, 8192), &calm);
    assert_eq!(log.records, run(&plain, &calm).0.records);
}

#[test]
fn the_mixed_pool_takes_decodes_that_do_not_fit() {
    let requests: Vec<_> = (0..60).map(|i| (0.03 * f64::from(i), 160, 200)).collect();
    let mut cluster = split_wise_pools(3, 1, [400, 100]);
    let (alone, _) = run(&cluster, &requests);
    cluster.disaggregation.mixed_pool = Some(MixedPoolConfig::default());
    let (helped, totals) = run(&cluster, &requests);
    let on_prefill = helped.records.values().filter(|r| r.decode_replica_id < 3);
    assert!(on_prefill.count() > 10);
    assert_eq!(totals.leaked_blocks, 0);
    let end_s = |log: &Log| {
        let ends = log.records.values().map(|record| record.completed_at_s);
        ends.fold(0.0, f64::max)
    };
    assert!(end_s(&helped) < 0.6 * end_s(&alone));
}

/// A thousand caches on their way at once, from forty replicas to forty others.
#[test]
fn a_thousand_transfers_at_once_share_the_links() {
    let requests: Vec<_> = (0..2000)
        .map(|i| (1e-4 * f64::from(i), 100 + i % 50, 4))
        .collect();
    let scheduler = || ReplicaScheduler::Sarathi {
        chunk_size: 512,
        batch_size_cap: 1024,
        watermark_blocks_fraction: 0.01,
    };
    let pools = vec![
        pool(PoolRole::Prefill, 40, 1, 100_000, scheduler()),
        pool(PoolRole::Decode, 40, 1, 100_000, scheduler()),
    ];
    let mut cluster = cluster(pools, GlobalScheduler::Random);
    let transfer = KvTransferSpec {
        bytes_per_token: 1e5,
        bytes_per_request: 0.0,
        window: None,
        sender_bytes_per_s: 1e8,
        receiver_bytes_per_s: 1.3e8,
        latency_s: 1e-5,
    };
    cluster.kv_transfer = Some(transfer);
    let (log, _) = run(&cluster, &requests);
    assert_eq!(moved(&log).count(), 2000);
    check_links(&transfer, 40, &log).unwrap();
    let middle_s = 0.5;
    let on_their_way = moved(&log).filter(|record| {
        record.prefill_completed_at_s <= middle_s && record.decode_arrived_at_s > middle_s
    });
    assert!(on_their_way.count() > 1000);
    // On the whole senders are kept busy until all is sent.
    let bytes: f64 = moved(&log).map(|r| r.pd_p2p_comm_size_bytes).sum();
    let ends = moved(&log).map(|record| record.decode_arrived_at_s);
    let share = bytes / (40.0 * transfer.sender_bytes_per_s * ends.fold(0.0, f64::max));
    assert!((0.6..=1.0).contains(&share), "{share}");
}
