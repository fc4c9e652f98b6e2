//! The discrete-event core: clock, event queue, cluster, replicas, pipeline
//! stages, batches, requests, and recorders of what happens.
//!
//! # Model
//! A request arrives, is routed to a replica and waits. A replica forms
//! micro-batches, as many in flight as it has pipeline stages; a batch runs
//! through the stages in order, each stage executing one batch at a time. A batch
//! holds prompt chunks and decodes; the chunk that completes a prompt emits the
//! first output token. Under prefill/decode disaggregation the KV cache then
//! moves to a decode replica, which reserves room for it first and starts
//! decoding when it has arrived (docs/disaggregation.md).
//!
//! # Ordering
//! Time is `f64` seconds. Events at equal times happen in the order they were
//! created; open-loop arrivals count as created before everything else.
//!
//! # Invariants
//! A run is a pure function of its arguments. Tokens and blocks are integers and
//! conserved. Every request is recorded exactly once. What can never be
//! scheduled is rejected on arrival, so nothing waits forever.

mod cluster;
mod cohort;
pub mod config;
mod event;
mod exact_sum;
mod footprint;
mod kv_cache;
mod open_end;
mod pd_transfer;
mod pipeline;
mod pool_work;
mod ready;
pub mod recorder;
mod replica;
mod request;
mod scheduler;
mod spent;
mod tournament;

pub use cluster::{observe, simulate};
pub use config::{
    ClusterSpec, Compat, Disaggregation, GlobalScheduler, KvCacheSpec, KvTransferSpec,
    MixedPoolConfig, PoolRole, PoolSpec, ReplicaScheduler,
};
pub use footprint::run_memory_bytes;
pub use open_end::{Mark, Next, Overseer, Progress, Until};
pub use pool_work::PoolWork;
pub(crate) use recorder::OutcomeCounts;
pub use recorder::{
    ArrivalFact, BatchFact, Distribution, DistributionIntervals, EventFact, EventKind, KvUseFact,
    PrefillFact, Recorder, RequestOutcome, RequestRecord, RequestTargets, RunSummary,
    SegmentCounts, SegmentRecorder, SimulationTotals, SparseHistogram, StageEndFact, StageFact,
    SteadyState, SummaryRecorder, TimeHistogram,
};
