//! Routing by KV cache: the replica with the fewest blocks in use or promised, of
//! all of them, at that very moment.

use std::sync::Arc;

use proptest::prelude::*;
use vidur_sweep::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use vidur_sweep::one_by_one;
use vidur_sweep::simulator::{
    Compat, GlobalScheduler, KvUseFact, PoolRole, Recorder, RequestRecord, StageFact,
};

use super::properties::{
    pools, replica_scheduler, requests, shortcuts_agree, tick, tick_transfers,
};
use super::support::{cluster, pool, record, run, run_by_events, sarathi, split_wise, vllm};

const BLOCK_SIZE: u32 = 16;

/// Follows the memory of replicas by what is told of them, and looks at all of them
/// whenever a request is given to one. Holds without preemptions.
struct Onlooker {
    prompts: Vec<u32>,
    used_blocks: Vec<u64>,
    /// Requests each replica was given and has not started.
    waiting: Vec<Vec<u32>>,
    /// (request, replica it went to, replica it should have gone to).
    wrong: Vec<(u32, u32, usize)>,
}

impl Onlooker {
    fn least(&self) -> usize {
        let blocks = |replica: &usize| {
            let promised = self.waiting[*replica]
                .iter()
                .map(|&id| u64::from(self.prompts[id as usize].div_ceil(BLOCK_SIZE)));
            self.used_blocks[*replica] + promised.sum::<u64>()
        };
        let all = 0..self.used_blocks.len();
        all.min_by_key(blocks).expect("some replica")
    }
}

impl Recorder for Onlooker {
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, _record: &RequestRecord) {}
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
    fn request_routed(&mut self, request: u32, replica: u32) {
        let least = self.least();
        if least != replica as usize {
            self.wrong.push((request, replica, least));
        }
        self.waiting[replica as usize].push(request);
    }
    fn stage_started(&mut self, fact: &StageFact<'_>) {
        let started = |id: &u32| fact.requests.iter().any(|(request, _)| request == id);
        self.waiting[fact.replica as usize].retain(|id| !started(id));
    }
    fn kv_use(&mut self, fact: &KvUseFact) {
        self.used_blocks[fact.replica as usize] = fact.used_blocks;
    }
}

/// Every batch takes so many ticks of 1/128 s.
struct FixedCost(f64);

impl StepCost for FixedCost {
    fn stages(&self) -> u32 {
        1
    }
    fn stage_time(&self, _stage: u32, _shape: &StepShape) -> StageTime {
        StageTime {
            model_s: self.0 / 128.0,
            host_s: 0.0,
        }
    }
    fn explain(&self, _shape: &StepShape) -> Vec<PricedOperator> {
        Vec::new()
    }
    one_by_one!(
        stage_time_of,
        tells_runs_apart,
        stage_times,
        decode_times,
        explain_stage
    );
}

#[test]
fn what_has_become_free_counts_at_once() {
    let mut prefill = pool(PoolRole::Prefill, 1, 1, 100, vllm(512, 8));
    let mut decode = pool(PoolRole::Decode, 2, 1, 100, vllm(512, 8));
    prefill.cost = Arc::new(FixedCost(1.0));
    decode.cost = Arc::new(FixedCost(4.0));
    let mut cluster = cluster(vec![prefill, decode], GlobalScheduler::LeastKv);
    cluster.kv_transfer.iter_mut().for_each(tick_transfers);
    // The first one's ten blocks share the link with the second's five, arrive at tick 17
    // and are free at 21, when the third's prompt is complete, which started later.
    let requests = [(0.0, 160, 2), (1.0, 80, 100), (20.0, 16, 2)];
    let requests = requests.map(|(tick, prompt, output)| (tick / 128.0, prompt, output));
    for (everything, _) in [
        run(&cluster, &requests, None),
        run_by_events(&cluster, &requests, None),
    ] {
        assert_eq!(everything.records[0].completed_at_s, 21.0 / 128.0);
        let replicas = everything.records.iter().map(|r| r.decode_replica_id);
        assert_eq!(replicas.collect::<Vec<_>>(), [1, 2, 1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_chosen_one_is_the_least_of_all(
        requests in requests(),
        chunks: bool,
        replicas in 1u32..20,
        batch in 1u32..8,
    ) {
        let scheduler = if chunks { sarathi(64, batch) } else { vllm(512, batch) };
        let pools = vec![pool(PoolRole::Mixed, replicas, 1, 4000, scheduler)];
        let cluster = cluster(pools, GlobalScheduler::LeastKv);
        let mut onlooker = Onlooker {
            prompts: requests.iter().map(|&(_, prompt, _)| prompt).collect(),
            used_blocks: vec![0; replicas as usize],
            waiting: vec![Vec::new(); replicas as usize],
            wrong: Vec::new(),
        };
        let totals = record(&cluster, &requests, None, &mut onlooker);
        prop_assert_eq!(totals.preemptions, 0);
        prop_assert_eq!(onlooker.wrong, []);
    }

    /// Between two looks at a replica its decodes go on, of their own accord or as a
    /// forecast, and others come, end and are preempted.
    #[test]
    fn it_is_the_same_one_however_steps_are_made(
        requests in requests(),
        replica in replica_scheduler(),
        decode_replica in replica_scheduler(),
        disaggregated: bool,
        by_memory: bool,
        replicas in 2u32..20,
        stages in 1u32..3,
        blocks in 25u64..150,
        clients in proptest::option::of(1u32..60),
        compat in prop_oneof![
            4 => Just(Compat::None),
            1 => Just(Compat::Vidur),
            1 => Just(Compat::VidurAlibabaCloud),
        ],
        ticking: bool,
        longest in proptest::option::of(16u32..480),
    ) {
        let mut requests = requests;
        // Vidur has one pool.
        let disaggregated = disaggregated && compat != Compat::Vidur;
        // The pools of Vidur-AlibabaCloud know no other.
        let scheduler = |drawn| match compat {
            Compat::VidurAlibabaCloud => split_wise(512, 16),
            _ => drawn,
        };
        let (replica, decode_replica) = (scheduler(replica), scheduler(decode_replica));
        let decoding =
            disaggregated.then(|| pool(PoolRole::Decode, replicas, 1, blocks, decode_replica));
        let mut pools = pools(pool(PoolRole::Mixed, replicas, stages, blocks, replica), decoding);
        if ticking {
            tick(&mut pools, &mut requests);
        }
        let global = match by_memory || !disaggregated {
            true => GlobalScheduler::LeastKv,
            false => GlobalScheduler::SplitWise,
        };
        let mut cluster = cluster(pools, global);
        cluster.compat = compat;
        // Some take less than was promised to them.
        cluster.max_request_tokens = longest;
        shortcuts_agree(cluster, &requests, clients, ticking)?;
    }
}
