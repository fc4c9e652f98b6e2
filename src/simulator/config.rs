//! What the simulator needs to know of a cluster, and the schedulers' settings.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::execution_time::StepCost;
use crate::memory::WindowCache;
use crate::network::flow::TransferPaths;
use crate::workload::Request;

/// How requests are given to replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GlobalScheduler {
    /// In turn.
    #[default]
    RoundRobin,
    /// Uniformly at random, seeded.
    Random,
    /// Fewest outstanding requests (waiting and running), lowest id on ties.
    Lor,
    /// Fewest KV cache blocks in use or promised to requests that wait, lowest id
    /// on ties.
    LeastKv,
    /// Splitwise: prefill replica with the fewest pending prompt tokens, decode
    /// replica with the fewest KV cache blocks in use or promised. See `mixed_pool`.
    SplitWise,
}

/// Splitwise's mixed pool: a replica helps out in the other phase when that is
/// overloaded, and returns when it has no such work left.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixedPoolConfig {
    /// Prompt tokens pending on the least loaded prefill replica, those of the new
    /// prompt included, above which another replica prefills. Default: that of
    /// Splitwise's simulator.
    #[serde(default = "default_max_pending_prompt_tokens")]
    #[schemars(range(min = 1))]
    pub max_pending_prompt_tokens: u64,
    /// Share of KV cache blocks in use or promised on the least loaded decode
    /// replica, those of the new request included, above which another replica
    /// decodes. Default: all, as in Splitwise's simulator.
    #[serde(default = "default_max_kv_cache_fraction")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub max_kv_cache_fraction: f64,
}

impl Default for MixedPoolConfig {
    fn default() -> Self {
        Self {
            max_pending_prompt_tokens: default_max_pending_prompt_tokens(),
            max_kv_cache_fraction: default_max_kv_cache_fraction(),
        }
    }
}

/// How a replica forms batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReplicaScheduler {
    /// Chunked prefill: decodes first, prompt chunks fill the token budget.
    Sarathi {
        /// Token budget of a step.
        #[serde(default = "default_chunk_size")]
        #[schemars(range(min = 1))]
        chunk_size: u32,
        /// Most requests in flight on a replica.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
        /// Blocks kept free for running requests, as a fraction.
        #[serde(default = "default_watermark")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        watermark_blocks_fraction: f64,
    },
    /// Prefill-first batches of whole prompts, else one token for every running request.
    Vllm {
        /// Token budget of a prefill batch.
        #[serde(default = "default_max_tokens_in_batch")]
        #[schemars(range(min = 1))]
        max_tokens_in_batch: u32,
        /// Most requests in flight on a replica.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
        /// Blocks kept free for running requests, as a fraction.
        #[serde(default = "default_watermark")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        watermark_blocks_fraction: f64,
    },
    /// Splitwise pools: whole prompts first come first served on prefill
    /// replicas, continuous batching on decode replicas.
    SplitWise {
        /// Token budget of a prefill batch.
        #[serde(default = "default_max_tokens_in_batch")]
        #[schemars(range(min = 1))]
        max_tokens_in_batch: u32,
        /// Most requests in flight on a replica.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
        /// Blocks kept free for running requests, as a fraction.
        #[serde(default = "default_watermark")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        watermark_blocks_fraction: f64,
    },
    /// Orca: running requests and whole new prompts in every batch; each request
    /// reserves KV cache for the longest one allowed.
    Orca {
        /// Most requests in one batch.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
    },
    /// FasterTransformer: a batch runs until its last request ends; only then the
    /// next one is formed. KV cache is reserved as Orca does.
    FasterTransformer {
        /// Most requests in one batch.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
    },
    /// LightLLM: KV cache counted in tokens; prompts are admitted every few decode
    /// steps if the peak of all requests' needs fits.
    Lightllm {
        /// Token budget of a prefill batch.
        #[serde(default = "default_max_tokens_in_batch")]
        #[schemars(range(min = 1))]
        max_tokens_in_batch: u32,
        /// Most requests in flight on a replica.
        #[serde(default = "default_batch_size_cap")]
        #[schemars(range(min = 1))]
        batch_size_cap: u32,
        /// Decode steps between looks at the queue.
        #[serde(default = "default_max_waiting_iters")]
        #[schemars(range(min = 1))]
        max_waiting_iters: u32,
    },
}

/// Which phases a pool's replicas run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolRole {
    /// Both.
    Mixed,
    /// Prompts; their KV cache then moves to a decode replica.
    Prefill,
    /// Output tokens after the first.
    Decode,
}

impl PoolRole {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// KV cache of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvCacheSpec {
    /// Blocks of the replica (all attention-data-parallel ranks together).
    pub num_blocks: u64,
    /// Tokens per block.
    pub block_size: u32,
    /// Layers that cache only the last tokens of a request. Blocks are then those of
    /// the other layers, or of all where there is no other; what these layers need is
    /// taken at admission, in such blocks too, for as much of the request as they will
    /// ever hold at a time.
    pub window: Option<WindowCache>,
}

/// Replicas that are alike.
#[derive(Clone)]
pub struct PoolSpec {
    /// Phases they run.
    pub role: PoolRole,
    /// How many.
    pub replicas: u32,
    /// Attention-data-parallel ranks in each: token budgets and batch limits of
    /// the scheduler are per rank.
    pub attention_data_parallel: u32,
    /// How they form batches.
    pub scheduler: ReplicaScheduler,
    /// Their KV cache.
    pub kv_cache: KvCacheSpec,
    /// What their steps cost.
    pub cost: Arc<dyn StepCost>,
}

/// Moving KV caches from prefill to decode replicas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KvTransferSpec {
    /// Bytes per cached token, whole model.
    pub bytes_per_token: f64,
    /// Bytes per request that do not grow with its length.
    pub bytes_per_request: f64,
    /// Layers that cache, and send, only the last tokens of a request.
    pub window: Option<WindowCache>,
    /// Bandwidth of a prefill replica per direction, bytes per second.
    pub sender_bytes_per_s: f64,
    /// Bandwidth of a decode replica per direction, bytes per second.
    pub receiver_bytes_per_s: f64,
    /// Fixed time per transfer, seconds.
    pub latency_s: f64,
}

impl KvTransferSpec {
    /// Bytes of a KV cache of `tokens`.
    #[inline]
    pub fn size_bytes(&self, tokens: u64) -> f64 {
        let all = self.bytes_per_request + self.bytes_per_token * tokens as f64;
        match self.window {
            None => all,
            Some(window) => {
                let beyond = tokens.saturating_sub(u64::from(window.tokens));
                all - window.share() * self.bytes_per_token * beyond as f64
            }
        }
    }
}

/// How a prefill and a decode pool work together, beyond [`KvTransferSpec`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disaggregation {
    /// How requests are given to prefill replicas; none: as the cluster's.
    pub prefill_scheduler: Option<GlobalScheduler>,
    /// How requests are given to decode replicas; none: as the cluster's.
    pub decode_scheduler: Option<GlobalScheduler>,
    /// Replicas help out in the other phase; takes the place of both schedulers.
    pub mixed_pool: Option<MixedPoolConfig>,
    /// Layers of the model, if the cache of a layer may leave while later ones are
    /// still being prefilled.
    pub overlap_layers: Option<u32>,
}

/// Whose behaviour is simulated where right and original differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// Right.
    #[default]
    None,
    /// Microsoft Vidur's, event for event, defects included.
    Vidur,
    /// Vidur-AlibabaCloud's as of SimAI 1.7, event for event, defects included.
    #[serde(rename = "vidur-alibabacloud", alias = "vidur_alibabacloud")]
    VidurAlibabaCloud,
    /// The same as of SimAI 1.5, whose KV caches have another size.
    #[serde(rename = "vidur-alibabacloud-1.5", alias = "vidur_alibabacloud_1_5")]
    VidurAlibabaCloud15,
}

impl Compat {
    /// Whether nobody's.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether one of Vidur-AlibabaCloud's.
    pub fn is_alibaba_cloud(self) -> bool {
        matches!(self, Self::VidurAlibabaCloud | Self::VidurAlibabaCloud15)
    }
}

/// A cluster to simulate.
#[derive(Clone)]
pub struct ClusterSpec {
    /// One mixed pool, or a prefill and a decode pool.
    pub pools: Vec<PoolSpec>,
    /// How requests are given to replicas.
    pub global_scheduler: GlobalScheduler,
    /// KV transfer, if there are two pools.
    pub kv_transfer: Option<KvTransferSpec>,
    /// Links between the replicas' GPUs that KV caches cross, in the place of the
    /// bandwidths and the latency of [`Self::kv_transfer`]; replicas in the order of
    /// pools.
    pub transfer_paths: Option<Arc<TransferPaths>>,
    /// How two pools work together.
    pub disaggregation: Disaggregation,
    /// Seed of the random global scheduler.
    pub seed: u64,
    /// Simulated time after which the run stops; requests still waiting or running are
    /// reported unfinished, those that have not entered not arrived.
    pub time_limit_s: Option<f64>,
    /// Whose behaviour.
    pub compat: Compat,
    /// Longest request the deployment allows, prompt and output together: what
    /// `orca` and `faster_transformer` reserve; none: the workload's longest.
    pub max_request_tokens: Option<u32>,
    /// Longest sequence, prompt and output together: a prompt that leaves no room in it
    /// is rejected, an output ends where it is full. None: no limit.
    pub max_model_len: Option<u32>,
    /// Draws made before the first random routing decision, in compatibility runs,
    /// whose generators and routers share one random stream.
    pub earlier_random_draws: u64,
}

impl ClusterSpec {
    /// Whether caches leave layer by layer while their prompts are being computed.
    pub(crate) fn overlaps(&self) -> bool {
        let two_pools = self.pools.len() == 2;
        two_pools && self.disaggregation.overlap_layers.is_some() && self.compat.is_none()
    }

    /// Whether the first event past the time limit still happens, as in Vidur. Of the
    /// cluster's events, one at a time, it is one.
    pub(crate) fn ends_past_its_limit(&self) -> bool {
        self.time_limit_s.is_some() && !self.compat.is_none()
    }

    /// Whether a prompt leaves no room for an output token in the longest sequence.
    #[inline]
    pub(crate) fn refuses_prompt(&self, prompt_tokens: u32) -> bool {
        self.max_model_len
            .is_some_and(|longest| prompt_tokens >= longest)
    }

    /// Tokens generated for a request. Of one whose prompt is refused all it asks for.
    #[inline]
    pub(crate) fn output_tokens(&self, request: &Request) -> u32 {
        match self.max_model_len {
            Some(longest) if !self.refuses_prompt(request.prefill_tokens) => {
                request.decode_tokens.min(longest - request.prefill_tokens)
            }
            _ => request.decode_tokens,
        }
    }

    /// How requests are given to the replicas of a pool.
    pub fn pool_scheduler(&self, role: PoolRole) -> GlobalScheduler {
        let of_pool = match role {
            PoolRole::Mixed => None,
            PoolRole::Prefill => self.disaggregation.prefill_scheduler,
            PoolRole::Decode => self.disaggregation.decode_scheduler,
        };
        of_pool.unwrap_or(self.global_scheduler)
    }
}

impl ReplicaScheduler {
    /// Most tokens one attention rank processes in a step.
    pub fn max_tokens_in_step(&self) -> u32 {
        match *self {
            Self::Sarathi {
                chunk_size,
                batch_size_cap,
                ..
            } => chunk_size.max(batch_size_cap),
            Self::Vllm {
                max_tokens_in_batch,
                batch_size_cap,
                ..
            }
            | Self::SplitWise {
                max_tokens_in_batch,
                batch_size_cap,
                ..
            }
            | Self::Lightllm {
                max_tokens_in_batch,
                batch_size_cap,
                ..
            } => max_tokens_in_batch.max(batch_size_cap),
            // Whole prompts without a budget: what the planner allows for by default.
            Self::Orca { batch_size_cap } | Self::FasterTransformer { batch_size_cap } => {
                default_max_tokens_in_batch().max(batch_size_cap)
            }
        }
    }

    /// Most requests in flight on one attention rank.
    pub fn batch_size_cap(&self) -> u32 {
        match *self {
            Self::Sarathi { batch_size_cap, .. }
            | Self::Vllm { batch_size_cap, .. }
            | Self::SplitWise { batch_size_cap, .. }
            | Self::Orca { batch_size_cap }
            | Self::FasterTransformer { batch_size_cap }
            | Self::Lightllm { batch_size_cap, .. } => batch_size_cap,
        }
    }
}

impl Default for ReplicaScheduler {
    fn default() -> Self {
        Self::Sarathi {
            chunk_size: 512,
            batch_size_cap: 128,
            watermark_blocks_fraction: 0.01,
        }
    }
}

fn default_chunk_size() -> u32 {
    512
}
fn default_max_tokens_in_batch() -> u32 {
    4096
}
fn default_batch_size_cap() -> u32 {
    128
}
fn default_max_waiting_iters() -> u32 {
    10
}
fn default_watermark() -> f64 {
    0.01
}
fn default_max_pending_prompt_tokens() -> u64 {
    8192
}
fn default_max_kv_cache_fraction() -> f64 {
    1.0
}
