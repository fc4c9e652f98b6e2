//! Clusters with a closed-form cost, and a recorder that keeps everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use vidur_sweep::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use vidur_sweep::one_by_one;
use vidur_sweep::simulator::{
    BatchFact, ClusterSpec, Compat, Disaggregation, GlobalScheduler, KvCacheSpec, KvTransferSpec,
    PoolRole, PoolSpec, Recorder, ReplicaScheduler, RequestRecord, SimulationTotals, StageFact,
    SummaryRecorder, simulate,
};
use vidur_sweep::workload::{Request, Workload};

/// Milliseconds: 5 per step, 0.1 per prompt token, 0.2 per decode, and a little
/// for every thousand tokens of context.
pub struct LinearCost {
    pub stages: u32,
}

impl StepCost for LinearCost {
    fn stages(&self) -> u32 {
        self.stages
    }

    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        let model_ms = 5.0
            + 0.1 * f64::from(shape.prefill_tokens())
            + 0.2 * f64::from(shape.decode_requests)
            + 1e-3 * shape.decode_context_tokens as f64;
        StageTime {
            model_s: model_ms * 1e-3 / f64::from(self.stages),
            host_s: 1e-4,
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

/// Whole multiples of 1/128 s, so that many things happen at the same time.
pub struct TickingCost {
    pub stages: u32,
}

impl StepCost for TickingCost {
    fn stages(&self) -> u32 {
        self.stages
    }

    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        let ticks = 1 + shape.prefill_tokens() / 64 + shape.decode_requests / 8;
        StageTime {
            model_s: f64::from(ticks) / 128.0,
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

pub fn pool(
    role: PoolRole,
    replicas: u32,
    stages: u32,
    num_blocks: u64,
    scheduler: ReplicaScheduler,
) -> PoolSpec {
    PoolSpec {
        role,
        replicas,
        attention_data_parallel: 1,
        scheduler,
        kv_cache: KvCacheSpec {
            num_blocks,
            block_size: 16,
            window: None,
        },
        cost: Arc::new(LinearCost { stages }),
    }
}

pub fn cluster(pools: Vec<PoolSpec>, global_scheduler: GlobalScheduler) -> ClusterSpec {
    let kv_transfer = (pools.len() == 2).then_some(KvTransferSpec {
        bytes_per_token: 1e5,
        bytes_per_request: 0.0,
        window: None,
        sender_bytes_per_s: 1e9,
        receiver_bytes_per_s: 1e9,
        latency_s: 1e-5,
    });
    ClusterSpec {
        pools,
        global_scheduler,
        kv_transfer,
        transfer_paths: None,
        disaggregation: Disaggregation::default(),
        seed: 7,
        time_limit_s: None,
        compat: Compat::None,
        max_request_tokens: None,
        max_model_len: None,
        earlier_random_draws: 0,
    }
}

pub fn sarathi(chunk_size: u32, batch_size_cap: u32) -> ReplicaScheduler {
    ReplicaScheduler::Sarathi {
        chunk_size,
        batch_size_cap,
        watermark_blocks_fraction: 0.01,
    }
}

pub fn vllm(max_tokens_in_batch: u32, batch_size_cap: u32) -> ReplicaScheduler {
    ReplicaScheduler::Vllm {
        max_tokens_in_batch,
        batch_size_cap,
        watermark_blocks_fraction: 0.01,
    }
}

pub fn split_wise(max_tokens_in_batch: u32, batch_size_cap: u32) -> ReplicaScheduler {
    ReplicaScheduler::SplitWise {
        max_tokens_in_batch,
        batch_size_cap,
        watermark_blocks_fraction: 0.01,
    }
}

#[derive(Default)]
pub struct Everything {
    pub records: Vec<RequestRecord>,
    pub intervals: Vec<(f64, u32)>,
}

impl Recorder for Everything {
    fn request(&mut self, record: &RequestRecord) {
        self.records.push(record.clone());
    }
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        self.intervals.push((interval_s, count));
    }
}

/// The same as another recorder, and wants to be told of events: then every one
/// goes through the queue, and replicas stay together.
struct Watching<R>(R);

impl<R: Recorder> Recorder for Watching<R> {
    const WANTS_EVENTS: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        self.0.request(record);
    }
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        self.0.token_intervals(interval_s, count);
    }
}

/// When every output token of every request came, told batch by batch.
#[derive(Default)]
struct Tokens {
    /// By request, seconds.
    at_s: Vec<Vec<f64>>,
    prompts: Vec<u32>,
    /// Requests that have a token when a batch ends, by its number.
    emitting: BTreeMap<u64, Vec<u32>>,
}

impl Recorder for Tokens {
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, _record: &RequestRecord) {}
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}

    fn stage_started(&mut self, fact: &StageFact<'_>) {
        if fact.stage > 0 {
            return;
        }
        let decodes = fact.shape.decode_requests as usize;
        let mut emitting: Vec<u32> = fact.requests[..decodes].iter().map(|r| r.0).collect();
        let chunks = fact.requests[decodes..].iter().zip(&fact.shape.prefills);
        for (&(id, tokens), chunk) in chunks {
            assert_eq!(tokens, chunk.new_tokens);
            let generated = self.at_s[id as usize].len() as u32;
            let target = self.prompts[id as usize] + generated;
            if chunk.context_tokens + chunk.new_tokens == target {
                emitting.push(id);
            }
        }
        assert_eq!(emitting.len(), fact.shape.sampled_tokens as usize);
        self.emitting.insert(fact.batch_id, emitting);
    }

    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        for id in self.emitting.remove(&fact.batch_id).expect("it started") {
            self.at_s[id as usize].push(fact.completed_at_s);
        }
    }
}

/// When every output token of every request comes, seconds.
pub fn run_by_tokens(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
) -> Vec<Vec<f64>> {
    let mut tokens = Tokens {
        at_s: vec![Vec::new(); requests.len()],
        prompts: requests.iter().map(|request| request.1).collect(),
        emitting: BTreeMap::new(),
    };
    record(cluster, requests, clients, &mut tokens);
    tokens.at_s
}

/// Everything a summary says of a run, to the last bit, rows included; `by_events`
/// without shortcuts.
pub fn summary(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
    by_events: bool,
) -> String {
    let recorder = SummaryRecorder::new(requests.len(), 1, None);
    let (recorder, totals) = if by_events {
        let mut watching = Watching(recorder);
        let totals = record(cluster, requests, clients, &mut watching);
        (watching.0, totals)
    } else {
        let mut recorder = recorder;
        let totals = record(cluster, requests, clients, &mut recorder);
        (recorder, totals)
    };
    let (summary, rows) = recorder.finish(&totals);
    format!("{summary:#?} {rows:#?} {totals:#?}")
}

/// Runs a workload; records come back by request id.
pub fn run(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
) -> (Everything, SimulationTotals) {
    let mut everything = Everything::default();
    let totals = record(cluster, requests, clients, &mut everything);
    everything.records.sort_by_key(|record| record.request_id);
    (everything, totals)
}

/// As [`run`], event by event.
pub fn run_by_events(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
) -> (Everything, SimulationTotals) {
    let mut watching = Watching(Everything::default());
    let totals = record(cluster, requests, clients, &mut watching);
    let mut everything = watching.0;
    everything.records.sort_by_key(|record| record.request_id);
    (everything, totals)
}

/// Runs a workload of (arrival in seconds, prompt, output tokens).
pub fn record(
    cluster: &ClusterSpec,
    requests: &[(f64, u32, u32)],
    clients: Option<u32>,
    recorder: &mut impl Recorder,
) -> SimulationTotals {
    let request = |&(arrived_at_s, prefill_tokens, decode_tokens)| Request {
        arrived_at_s,
        prefill_tokens,
        decode_tokens,
    };
    let workload = Workload {
        requests: requests.iter().map(request).collect(),
        clients,
    };
    simulate(cluster, &workload, recorder)
}
