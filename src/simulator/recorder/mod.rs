//! Facts the simulator emits, and what keeps them.
//!
//! The simulator is generic over its [`Recorder`], so a fact nobody keeps costs
//! nothing. Recorders add up; they never influence the simulation.

mod histogram;
mod log;
mod outcomes;
mod segments;
mod summary;

pub use super::exact_sum::ExactRun;
pub use histogram::{SegmentCounts, SparseHistogram, TimeHistogram};
pub(crate) use outcomes::OutcomeCounts;
pub use segments::SegmentRecorder;
pub use summary::SummaryRecorder;

use serde::Serialize;

use crate::statistics::{Interval, LoadVerdict};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    /// All tokens generated.
    Completed,
    /// Cannot ever be scheduled here: more KV blocks than a replica has.
    RejectedTooLargeForKvCache,
    /// Cannot ever be scheduled here: prompt longer than the batch token budget.
    RejectedPromptExceedsBatch,
    /// Cannot ever be served here: prompt as long as the longest sequence, or longer.
    RejectedPromptExceedsMaxModelLen,
    /// The time limit came first, while it ran or waited.
    UnfinishedTimeLimit,
    /// It ran or waited when the run ended whose length was open.
    UnfinishedEndOfRun,
    /// The simulation ended before it entered.
    NotArrived,
    /// Nothing was left to happen and it had not ended: only where a compatibility
    /// mode keeps an original's way of getting stuck.
    UnfinishedStuck,
}

impl RequestOutcome {
    /// Whether it had entered and not ended when the simulation did.
    pub fn is_unfinished(self) -> bool {
        matches!(
            self,
            Self::UnfinishedTimeLimit | Self::UnfinishedEndOfRun | Self::UnfinishedStuck
        )
    }

    /// Whether it was turned away as it arrived: it can never be served.
    pub fn is_rejected(self) -> bool {
        matches!(
            self,
            Self::RejectedTooLargeForKvCache
                | Self::RejectedPromptExceedsBatch
                | Self::RejectedPromptExceedsMaxModelLen
        )
    }
}

/// One request's history. Times are seconds of simulated time; NaN where the
/// request never got there.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestRecord {
    /// Index in the workload.
    pub request_id: u32,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// Arrival.
    pub arrived_at_s: f64,
    /// First batch that held it.
    pub scheduled_at_s: f64,
    /// First output token.
    pub prefill_completed_at_s: f64,
    /// KV cache on the decode replica; equals `prefill_completed_at_s` without disaggregation.
    pub decode_arrived_at_s: f64,
    /// Last output token.
    pub completed_at_s: f64,
    /// End, in whatever way: of a request that the time limit cut off, that limit; NaN of
    /// one that got stuck.
    pub ended_at_s: f64,
    /// Longest time between two consecutive output tokens, preemptions and KV transfers
    /// included; NaN if it has fewer than two. Of a request that was cut off, the time
    /// since its last token is one of them.
    pub longest_interval_s: f64,
    /// Prompt tokens.
    pub prefill_tokens: u32,
    /// Output tokens.
    pub decode_tokens: u32,
    /// Whether it was to have more output tokens than the longest sequence allows.
    pub is_capped: bool,
    /// Restarts after preemption.
    pub restarts: u32,
    /// Sum of stage times of its batches, host overhead included.
    pub execution_s: f64,
    /// The same without host overhead.
    pub model_execution_s: f64,
    /// Time between its first stage start and completion it was not executing.
    pub preemption_s: f64,
    /// Replica that ran (or finished) the prefill; `u32::MAX`: none.
    pub prefill_replica_id: u32,
    /// Replica that ran the decode; equals the prefill replica without disaggregation.
    pub decode_replica_id: u32,
    /// KV transfer size; 0 without disaggregation.
    pub pd_p2p_comm_size_bytes: f64,
    /// KV transfer time, waiting for a place on the decode replica not included.
    pub pd_p2p_comm_time_s: f64,
}

/// Mean and percentiles of one metric, seconds; NaN without samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distribution {
    /// Arithmetic mean.
    pub mean_s: f64,
    /// Median.
    pub p50_s: f64,
    /// 90th percentile.
    pub p90_s: f64,
    /// 95th percentile.
    pub p95_s: f64,
    /// 99th percentile.
    pub p99_s: f64,
    /// Largest.
    pub max_s: f64,
}

/// What a run amounted to.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Requests of the workload.
    pub num_requests: u32,
    /// Requests completed.
    pub completed: u32,
    /// Requests rejected as unschedulable.
    pub rejected: u32,
    /// Of those, requests whose prompt leaves no room in the longest sequence.
    pub rejected_by_max_model_len: u32,
    /// Requests whose output was cut to fit into the longest sequence.
    pub capped_by_max_model_len: u32,
    /// Requests that had entered and not ended at the time limit.
    pub unfinished: u32,
    /// Of those, requests of which it was not known whether they would keep every
    /// per-request target.
    pub undecided: u32,
    /// Requests that had not entered at the time limit.
    pub not_arrived: u32,
    /// Requests that arrive after the first one, over the time from that to the last
    /// arrival; infinite if all come at the same time, NaN of fewer than two.
    pub offered_requests_per_s: f64,
    /// Requests completed within `duration_s`: all that were, unless the run was measured
    /// in steady state.
    pub served_requests: u32,
    /// From the first arrival to the last completion; of a run that was measured in steady
    /// state, the window.
    pub duration_s: f64,
    /// Output tokens of the served requests.
    pub output_tokens: u64,
    /// Prompt tokens of the served requests.
    pub prompt_tokens: u64,
    /// Time to first token.
    pub ttft: Distribution,
    /// Individual inter-token intervals of all requests.
    pub tbt: Distribution,
    /// Arrival to completion.
    pub e2e: Distribution,
    /// Arrival to first batch.
    pub scheduling_delay: Distribution,
    /// Longest time between two tokens of a request, over requests that have two.
    pub request_tbt_max: Distribution,
    /// Share of stage time spent executing, mean over replicas and stages.
    pub gpu_busy_fraction: f64,
    /// Time-weighted share of KV blocks in use, mean over replicas.
    pub kv_cache_utilization: f64,
    /// Preemptions (restarts) in total.
    pub preemptions: u64,
    /// Batches executed.
    pub batches: u64,
    /// Mean tokens per batch.
    pub mean_batch_tokens: f64,
    /// Mean requests per batch.
    pub mean_batch_requests: f64,
    /// Tokens through the linear layers, recomputed ones included.
    pub processed_tokens: u64,
    /// Query-key pairs attended to per layer and head.
    pub attended_pairs: f64,
    /// Rows through the LM head.
    pub sampled_tokens: u64,
    /// Completed requests that met every per-request target, if targets were given.
    pub slo_met_requests: Option<u32>,
    /// How well the figures are known, if they were measured in steady state.
    pub steady: Option<Box<SteadyState>>,
}

/// How well figures are known that were measured in steady state. Intervals contain the
/// true value 95 times in 100.
#[derive(Debug, Clone, PartialEq)]
pub struct SteadyState {
    /// Whether the system keeps up with its load.
    pub verdict: LoadVerdict,
    /// Begin of the window, seconds.
    pub window_start_s: f64,
    /// End of the window, seconds.
    pub window_end_s: f64,
    /// Requests simulated in all.
    pub simulated_requests: u32,
    /// Time to first token, seconds.
    pub ttft: DistributionIntervals,
    /// Time between tokens, seconds.
    pub tbt: DistributionIntervals,
    /// Arrival to completion, seconds.
    pub e2e: DistributionIntervals,
    /// Arrival to first batch, seconds.
    pub scheduling_delay: DistributionIntervals,
    /// Longest time between two tokens of a request, seconds.
    pub request_tbt_max: DistributionIntervals,
    /// Requests served per second.
    pub requests_per_s: Interval,
    /// Output tokens of served requests per second.
    pub output_tokens_per_s: Interval,
    /// Output tokens of the served requests over those of the requests of the window.
    pub served_tokens_share: Interval,
    /// Share of requests whose outcome is decided that meet every per-request target.
    pub attainment: Interval,
    /// Requests of the window that do, per second.
    pub goodput: Interval,
    /// The share of the load by which it may exceed what is served, at most: of a run whose
    /// figures with limits are known and whose number in the system does not grow; infinite
    /// of others.
    pub excess_share: f64,
}

/// Intervals of a [`Distribution`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistributionIntervals {
    /// Of the mean.
    pub mean: Interval,
    /// Of the median.
    pub p50: Interval,
    /// Of the 90th percentile.
    pub p90: Interval,
    /// Of the 95th percentile.
    pub p95: Interval,
    /// Of the 99th percentile.
    pub p99: Interval,
}

impl RunSummary {
    /// Requests whose outcome is known: completed, rejected, or past a target when the
    /// time limit came.
    pub fn decided(&self) -> u32 {
        self.num_requests - self.not_arrived - self.undecided
    }
}

/// What the simulator itself counts, whatever is recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SimulationTotals {
    /// When the last event happened, seconds.
    pub end_s: f64,
    /// Work per pool.
    pub pools: Vec<super::PoolWork>,
    /// Share of stage time spent executing, mean over all stages.
    pub gpu_busy_fraction: f64,
    /// Time-weighted share of KV cache blocks in use, mean over replicas.
    pub kv_cache_utilization: f64,
    /// Preemptions.
    pub preemptions: u64,
    /// KV cache blocks still taken when every request has ended: 0, unless a
    /// compatibility mode keeps an original's leak.
    pub leaked_blocks: u64,
}

impl SimulationTotals {
    /// Work of all pools.
    pub(crate) fn work(&self) -> super::PoolWork {
        let pools = self.pools.iter();
        pools.fold(super::PoolWork::default(), |sum, pool| sum.plus(*pool))
    }
}

/// Kinds of events, named as Vidur names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// A request entered the system.
    RequestArrival,
    /// Arrived requests were given to replicas.
    GlobalSchedule,
    /// A replica formed batches.
    ReplicaSchedule,
    /// A batch queued at a stage.
    BatchStageArrival,
    /// A stage looked at its queue.
    ReplicaStageSchedule,
    /// A stage executed a batch.
    BatchStageEnd,
    /// A batch left the last stage.
    BatchEnd,
    /// A stage computed the first layer of a batch whose caches leave layer by layer.
    LayerComputed,
    /// KV transfers left the prefill side, or caught up with it.
    KvTransferDrained,
    /// A KV cache arrived on the decode side.
    KvArrival,
}

impl EventKind {
    /// The name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestArrival => "REQUEST_ARRIVAL",
            Self::GlobalSchedule => "GLOBAL_SCHEDULE",
            Self::ReplicaSchedule => "REPLICA_SCHEDULE",
            Self::BatchStageArrival => "BATCH_STAGE_ARRIVAL",
            Self::ReplicaStageSchedule => "REPLICA_STAGE_SCHEDULE",
            Self::BatchStageEnd => "BATCH_STAGE_END",
            Self::BatchEnd => "BATCH_END",
            Self::LayerComputed => "LAYER_COMPUTED",
            Self::KvTransferDrained => "KV_TRANSFER_DRAINED",
            Self::KvArrival => "KV_ARRIVAL",
        }
    }
}

/// An event as it was handled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventFact {
    /// When, seconds.
    pub time_s: f64,
    /// Number, in order of creation, from 1.
    pub id: u64,
    /// Kind.
    pub kind: EventKind,
    /// Replica concerned.
    pub replica: Option<u32>,
    /// Stage concerned.
    pub stage: Option<u32>,
    /// Batch concerned.
    pub batch_id: Option<u64>,
    /// Request concerned.
    pub request_id: Option<u32>,
}

/// A batch that has left the last stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchFact<'a> {
    /// Number, in order of formation, from 0, over all replicas.
    pub batch_id: u64,
    /// Replica.
    pub replica: u32,
    /// When it was formed, seconds.
    pub scheduled_at_s: f64,
    /// When it left the last stage, seconds.
    pub completed_at_s: f64,
    /// Tokens processed.
    pub tokens: u32,
    /// Of those, prompt tokens.
    pub prefill_tokens: u32,
    /// (request, tokens) in batch order.
    pub requests: &'a [(u32, u32)],
    /// KV cache blocks in use on the replica after its end.
    pub used_blocks: u64,
    /// KV cache blocks of the replica.
    pub total_blocks: u64,
}

/// A stage that starts to execute a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageFact<'a> {
    /// Number, in order of starts, from 0, over all replicas.
    pub stage_run_id: u64,
    /// Batch.
    pub batch_id: u64,
    /// Replica.
    pub replica: u32,
    /// Stage.
    pub stage: u32,
    /// Now, seconds.
    pub started_at_s: f64,
    /// How long it will take.
    pub time: crate::execution_time::StageTime,
    /// What it will execute.
    pub shape: &'a crate::execution_time::StepShape,
    /// (request, tokens) in batch order.
    pub requests: &'a [(u32, u32)],
}

/// A stage that has executed a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageEndFact {
    /// Batch.
    pub batch_id: u64,
    /// Replica.
    pub replica: u32,
    /// Stage.
    pub stage: u32,
    /// Now, seconds.
    pub ended_at_s: f64,
}

/// A request that enters the system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArrivalFact {
    /// Index in the workload.
    pub request_id: u32,
    /// Now, seconds.
    pub time_s: f64,
    /// Prompt tokens.
    pub prefill_tokens: u32,
    /// Output tokens.
    pub decode_tokens: u32,
}

/// A request whose prompt is complete for the first time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefillFact {
    /// Index in the workload.
    pub request_id: u32,
    /// Now, seconds.
    pub time_s: f64,
    /// Prompt tokens.
    pub prefill_tokens: u32,
}

/// KV cache of a replica after a batch was formed or ended, or a transfer began or
/// drained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvUseFact {
    /// When, seconds.
    pub time_s: f64,
    /// Replica.
    pub replica: u32,
    /// Blocks in use.
    pub used_blocks: u64,
    /// Blocks in all.
    pub total_blocks: u64,
}

/// Receives facts from the simulator; chosen at compile time.
pub trait Recorder: Send {
    /// A request ended (in whatever way).
    fn request(&mut self, record: &RequestRecord);
    /// `count` output tokens came `interval_s` after their predecessors. Of one
    /// batch, tokens of decodes come before those of prompts (complete again
    /// after a restart).
    fn token_intervals(&mut self, interval_s: f64, count: u32);
    /// The same for the tokens of several steps in a row, in order, and the sum of the
    /// intervals; at most a few dozen of them.
    fn all_token_intervals(&mut self, intervals_s: &[f64], _sum: &ExactRun, count: u32) {
        for &interval_s in intervals_s {
            self.token_intervals(interval_s, count);
        }
    }

    /// Whether [`Self::event`] is to be called.
    const WANTS_EVENTS: bool = false;
    /// Whether batches, stages and KV use are to be told.
    const WANTS_BATCHES: bool = false;

    /// Whether the order in which replicas tell their facts makes no difference, not
    /// even in the last bit of a sum. Facts of one replica come in order of time
    /// always.
    const ANY_ORDER: bool = false;

    /// A new recorder for some of the replicas, with `requests` to come, if what it
    /// keeps can be added to this one ([`Self::merge`]); only with
    /// [`Self::ANY_ORDER`].
    fn part(&self, _requests: usize) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
    /// What follows is of another segment of time: a mark was passed. The first one comes
    /// before everything else.
    fn mark_passed(&mut self) {}
    /// Segments are twice as long from now on, and those so far were: each is one with its
    /// neighbour.
    fn segments_merged(&mut self) {}
    /// Adds what a recorder made by [`Self::part`] has kept.
    fn merge(&mut self, _part: Self)
    where
        Self: Sized,
    {
    }

    /// An event was handled.
    fn event(&mut self, _fact: &EventFact) {}
    /// A request arrived.
    fn request_arrived(&mut self, _fact: &ArrivalFact) {}
    /// A request was given to a replica.
    fn request_routed(&mut self, _request_id: u32, _replica: u32) {}
    /// A prompt is complete for the first time.
    fn prefill_completed(&mut self, _fact: &PrefillFact) {}
    /// A replica formed a batch.
    fn batch_formed(&mut self, _replica: u32, _batch_id: u64) {}
    /// A stage starts to execute a batch.
    fn stage_started(&mut self, _fact: &StageFact<'_>) {}
    /// A stage has executed a batch.
    fn stage_ended(&mut self, _fact: &StageEndFact) {}
    /// A batch has left the last stage.
    fn batch_ended(&mut self, _fact: &BatchFact<'_>) {}
    /// A replica's KV cache after a batch was formed or ended, or a transfer began
    /// or drained.
    fn kv_use(&mut self, _fact: &KvUseFact) {}
}

/// Two recorders that are told the same.
impl<A: Recorder, B: Recorder> Recorder for (A, B) {
    const WANTS_EVENTS: bool = A::WANTS_EVENTS || B::WANTS_EVENTS;
    const WANTS_BATCHES: bool = A::WANTS_BATCHES || B::WANTS_BATCHES;

    fn request(&mut self, record: &RequestRecord) {
        self.0.request(record);
        self.1.request(record);
    }
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        self.0.token_intervals(interval_s, count);
        self.1.token_intervals(interval_s, count);
    }
    fn all_token_intervals(&mut self, intervals_s: &[f64], sum: &ExactRun, count: u32) {
        self.0.all_token_intervals(intervals_s, sum, count);
        self.1.all_token_intervals(intervals_s, sum, count);
    }
    fn mark_passed(&mut self) {
        self.0.mark_passed();
        self.1.mark_passed();
    }
    fn segments_merged(&mut self) {
        self.0.segments_merged();
        self.1.segments_merged();
    }
    fn event(&mut self, fact: &EventFact) {
        self.0.event(fact);
        self.1.event(fact);
    }
    fn request_arrived(&mut self, fact: &ArrivalFact) {
        self.0.request_arrived(fact);
        self.1.request_arrived(fact);
    }
    fn request_routed(&mut self, request_id: u32, replica: u32) {
        self.0.request_routed(request_id, replica);
        self.1.request_routed(request_id, replica);
    }
    fn prefill_completed(&mut self, fact: &PrefillFact) {
        self.0.prefill_completed(fact);
        self.1.prefill_completed(fact);
    }
    fn batch_formed(&mut self, replica: u32, batch_id: u64) {
        self.0.batch_formed(replica, batch_id);
        self.1.batch_formed(replica, batch_id);
    }
    fn stage_started(&mut self, fact: &StageFact<'_>) {
        self.0.stage_started(fact);
        self.1.stage_started(fact);
    }
    fn stage_ended(&mut self, fact: &StageEndFact) {
        self.0.stage_ended(fact);
        self.1.stage_ended(fact);
    }
    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        self.0.batch_ended(fact);
        self.1.batch_ended(fact);
    }
    fn kv_use(&mut self, fact: &KvUseFact) {
        self.0.kv_use(fact);
        self.1.kv_use(fact);
    }
}

/// Upper bounds a request must keep to count as served well; absent: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RequestTargets {
    /// Time to first token, seconds.
    pub ttft_s: Option<f64>,
    /// The request's mean time between tokens, seconds.
    pub tbt_s: Option<f64>,
    /// The request's longest time between two tokens, seconds.
    pub stall_s: Option<f64>,
    /// Arrival to completion, seconds.
    pub e2e_s: Option<f64>,
    /// Arrival to first batch, seconds.
    pub scheduling_delay_s: Option<f64>,
}

impl RequestTargets {
    /// Whether `record` keeps every bound. A request that did not complete keeps none.
    pub fn met_by(&self, record: &RequestRecord) -> bool {
        let within = |value_s: f64, bound_s: Option<f64>| bound_s.is_none_or(|b| value_s <= b);
        record.outcome == RequestOutcome::Completed
            && within(record.ttft_s(), self.ttft_s)
            && within(record.mean_tbt_s().unwrap_or(0.0), self.tbt_s)
            && within(record.stall_s().unwrap_or(0.0), self.stall_s)
            && within(record.e2e_s(), self.e2e_s)
            && within(record.scheduling_delay_s(), self.scheduling_delay_s)
    }

    /// Whether a request that was cut off had exceeded a bound already: it would have even
    /// if it had completed at that moment.
    pub fn exceeded_by(&self, record: &RequestRecord) -> bool {
        !self.met_by(&record.completed_when_it_ended())
    }
}

impl RequestRecord {
    /// Stands for a request that has not ended.
    const NONE: Self = Self {
        request_id: u32::MAX,
        outcome: RequestOutcome::UnfinishedStuck,
        arrived_at_s: f64::NAN,
        scheduled_at_s: f64::NAN,
        prefill_completed_at_s: f64::NAN,
        decode_arrived_at_s: f64::NAN,
        completed_at_s: f64::NAN,
        ended_at_s: f64::NAN,
        longest_interval_s: f64::NAN,
        prefill_tokens: 0,
        decode_tokens: 0,
        is_capped: false,
        restarts: 0,
        execution_s: f64::NAN,
        model_execution_s: f64::NAN,
        preemption_s: f64::NAN,
        prefill_replica_id: u32::MAX,
        decode_replica_id: u32::MAX,
        pd_p2p_comm_size_bytes: 0.0,
        pd_p2p_comm_time_s: 0.0,
    };

    /// The history of a request that was cut off, as if what it had yet to do had been done
    /// at that moment.
    pub(crate) fn completed_when_it_ended(&self) -> Self {
        let or_then = |time_s: f64| match time_s.is_nan() {
            true => self.ended_at_s,
            false => time_s,
        };
        Self {
            scheduled_at_s: or_then(self.scheduled_at_s),
            prefill_completed_at_s: or_then(self.prefill_completed_at_s),
            completed_at_s: or_then(self.completed_at_s),
            outcome: RequestOutcome::Completed,
            ..self.clone()
        }
    }

    /// Arrival to first output token.
    pub fn ttft_s(&self) -> f64 {
        self.prefill_completed_at_s - self.arrived_at_s
    }

    /// Arrival to last output token.
    pub fn e2e_s(&self) -> f64 {
        self.completed_at_s - self.arrived_at_s
    }

    /// Arrival to first batch.
    pub fn scheduling_delay_s(&self) -> f64 {
        self.scheduled_at_s - self.arrived_at_s
    }

    /// Longest time between two consecutive output tokens; none if it has fewer.
    pub fn stall_s(&self) -> Option<f64> {
        Some(self.longest_interval_s).filter(|longest_s| !longest_s.is_nan())
    }

    /// Time from its first to its last output token per output token, which
    /// Vidur-AlibabaCloud's documentation calls time between tokens; none for a single
    /// token, which has none before it.
    pub fn tbt_s(&self) -> Option<f64> {
        (self.decode_tokens > 1).then(|| {
            (self.completed_at_s - self.prefill_completed_at_s) / f64::from(self.decode_tokens)
        })
    }

    /// Mean interval between its output tokens; none for a single token.
    pub fn mean_tbt_s(&self) -> Option<f64> {
        (self.decode_tokens > 1).then(|| {
            (self.completed_at_s - self.prefill_completed_at_s) / f64::from(self.decode_tokens - 1)
        })
    }
}
