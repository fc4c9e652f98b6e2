//! The discrete-event core: clock, event queue, cluster, replicas, stages,
//! batches, requests, and recorders of what happens. (Skeleton.)

pub mod config;
pub mod recorder;

pub use config::{
    ClusterSpec, GlobalScheduler, KvCacheSpec, KvTransferSpec, PoolRole, PoolSpec, ReplicaScheduler,
};
pub use recorder::{Recorder, RequestOutcome, RequestRecord, RunSummary, SummaryRecorder};
