//! Runs whose length is decided while they go on: the same as others as far as both go,
//! and cut into segments exactly.

use proptest::prelude::*;
use vidur_sweep::simulator::{
    ClusterSpec, Mark, Next, Overseer, PoolRole, Progress, Recorder, RequestRecord,
    SimulationTotals, Until, observe, simulate,
};
use vidur_sweep::workload::{WorkloadConfig, WorkloadSource};

use super::properties::{global_scheduler, pools, replica_scheduler, window};
use super::support::{Everything, cluster, pool};

/// What happened between marks; `EVENTS`: by the chain of events.
#[derive(Default)]
struct Segments<const EVENTS: bool> {
    everything: Everything,
    /// Tokens after others, and the sum of the intervals, by segment.
    segments: Vec<(u64, f64)>,
}

impl<const EVENTS: bool> Recorder for Segments<EVENTS> {
    const WANTS_EVENTS: bool = EVENTS;
    const ANY_ORDER: bool = !EVENTS;

    fn request(&mut self, record: &RequestRecord) {
        self.everything.request(record);
    }
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        let segment = self.segments.last_mut().expect("a mark before everything");
        segment.0 += u64::from(count);
        segment.1 += interval_s * f64::from(count);
    }
    fn mark_passed(&mut self) {
        self.segments.push((0, 0.0));
    }
    fn segments_merged(&mut self) {
        let open = self.segments.pop().expect("a segment");
        let pairs = self.segments.chunks_exact(2);
        assert!(pairs.remainder().is_empty());
        let merged = pairs.map(|pair| (pair[0].0 + pair[1].0, pair[0].1 + pair[1].1));
        self.segments = merged.collect();
        self.segments.push(open);
    }
}

/// Looks at a run whenever `looks` says, as if it wanted to know more each time.
struct Looks {
    looks: Vec<u32>,
    next: usize,
    marks: Vec<Mark>,
    arrived: usize,
}

impl<R> Overseer<R> for Looks {
    fn look(&mut self, progress: &Progress<'_>, _recorder: &R) -> Next {
        self.arrived = progress.arrived();
        self.marks = progress.marks.to_vec();
        let Some(&ended) = self.looks.get(self.next) else {
            return Next::Stop;
        };
        self.next += 1;
        Next::Until(Until {
            ended,
            arrived: u32::MAX,
            rejects: false,
        })
    }
}

fn observed<const EVENTS: bool>(
    spec: &ClusterSpec,
    source: &WorkloadSource,
    config: &WorkloadConfig,
    looks: &[u32],
) -> (Segments<EVENTS>, SimulationTotals, Looks) {
    let stream = source.stream(config, 5, 0).expect("a stream");
    let stream = stream.at_rate(Some(20.0), 10_000).expect("a rate");
    let mut looks = Looks {
        looks: looks.to_vec(),
        next: 0,
        marks: Vec::new(),
        arrived: 0,
    };
    let mut recorder = Segments::default();
    let totals = observe(spec, stream, &mut looks, &mut recorder);
    recorder.everything.records.sort_by_key(|r| r.request_id);
    (recorder, totals, looks)
}

/// Sums in different order.
fn nearly(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn they_are_the_same_as_far_as_both_go(
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        global in global_scheduler(),
        disaggregated: bool,
        replicas in 1u32..4,
        stages in 1u32..4,
        blocks in 30u64..150,
        clients in proptest::option::of(1u32..30),
        window in window(),
        mut looks in proptest::collection::vec(1u32..700, 1..4),
    ) {
        let decoding = disaggregated.then(|| pool(PoolRole::Decode, 2, 1, blocks, decode_replica));
        let mut pools = pools(pool(PoolRole::Mixed, replicas, stages, blocks, replica), decoding);
        pools.iter_mut().for_each(|pool| pool.kv_cache.window = window);
        let mut spec = cluster(pools, global);
        spec.max_request_tokens = Some(300);
        let arrivals = match clients {
            Some(clients) => serde_json::json!({"type": "concurrency", "clients": clients}),
            None => serde_json::json!({"type": "gamma", "cv": 2.0}),
        };
        let config = |requests: usize| -> WorkloadConfig {
            serde_json::from_value(serde_json::json!({
                "requests": requests,
                "lengths": {"type": "uniform", "min_tokens": 2, "max_tokens": 300,
                            "prefill_to_decode_ratio": 4.0},
                "arrivals": arrivals,
            })).expect("a workload")
        };
        looks.sort_unstable();
        let source = WorkloadSource::default();
        let (seen, totals, ends) = observed::<false>(&spec, &source, &config(1), &looks);
        let records = &seen.everything.records;
        prop_assert_eq!(records.len(), ends.arrived);
        let ended = |record: &&RequestRecord| !record.outcome.is_unfinished();
        let first = records.iter().take_while(|record| record.request_id < looks[looks.len() - 1]);
        prop_assert!(first.clone().count() > 0 && first.clone().all(|record| ended(&record)));

        // As many requests as have arrived, and no more.
        let all = source.get(&config(ends.arrived), 5, 0).expect("drawn");
        let all = all.at_rate(Some(20.0)).expect("a rate");
        let mut everything = Everything::default();
        simulate(&spec, &all, &mut everything);
        everything.records.sort_by_key(|r| r.request_id);
        for (open, closed) in records.iter().zip(&everything.records) {
            if ended(&open) {
                prop_assert_eq!(format!("{open:?}"), format!("{closed:?}"));
            }
        }

        // Without shortcuts: the same segments.
        let (slow, slow_totals, slow_ends) = observed::<true>(&spec, &source, &config(1), &looks);
        prop_assert_eq!(ends.arrived, slow_ends.arrived);
        prop_assert_eq!(format!("{records:?}"), format!("{:?}", slow.everything.records));
        prop_assert_eq!(totals.preemptions, slow_totals.preemptions);
        prop_assert_eq!(ends.marks.len(), seen.segments.len());
        prop_assert_eq!(seen.segments.len(), slow.segments.len());
        for (fast, slow) in seen.segments.iter().zip(&slow.segments) {
            prop_assert_eq!(fast.0, slow.0);
            prop_assert!(nearly(fast.1, slow.1));
        }
        for (fast, slow) in ends.marks.iter().zip(&slow_ends.marks) {
            prop_assert_eq!((fast.request, fast.at_s), (slow.request, slow.at_s));
            prop_assert_eq!(fast.totals.preemptions, slow.totals.preemptions);
            let [fast, slow] = [fast, slow].map(|mark| &mark.totals);
            prop_assert!(nearly(fast.kv_cache_utilization, slow.kv_cache_utilization));
            prop_assert!(fast.pools.iter().zip(&slow.pools).all(|(a, b)| a.tokens == b.tokens));
        }
        let spacing: Vec<u32> = ends.marks.windows(2).map(|m| m[1].request - m[0].request).collect();
        prop_assert!(spacing.iter().all(|s| *s == spacing[0]));
    }
}
