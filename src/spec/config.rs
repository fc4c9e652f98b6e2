//! The typed configuration: one run ([`RunConfig`]) and one sweep ([`SweepSpec`]).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Points;
use super::measure::{
    CapacitySearch, Measure, Precision, RelativeWidth, default_max_requests, default_tolerance,
};
use super::places::KeyPlaces;
use super::slo::Slo;
use crate::catalog::StaticFraction;
use crate::execution_time::BackendKind;
use crate::execution_time::formula::FormulaConfig;
use crate::execution_time::vidur::PredictorConfig;
use crate::limits::{
    DEVICE_FIGURE_MIN, KV_BLOCKS_MAX, LINK_GBPS_MAX, POINTS_MAX, SEQUENCE_TOKENS_MAX,
};
use crate::simulator::{Compat, GlobalScheduler, MixedPoolConfig, ReplicaScheduler};
use crate::units::DType;
use crate::workload::WorkloadConfig;

/// Everything that determines one simulation. Optional values are filled in by
/// resolution (from the model, device or engine) before a run gets its identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Catalog name, alias, or path of a model YAML or Hugging Face `config.json`.
    pub model: String,
    /// Catalog name, alias, or path of a device YAML.
    pub device: String,
    /// Where execution times come from.
    #[serde(default)]
    pub backend: BackendKind,
    /// Folder of AICB's files, for backend `aicb`, relative to the working directory.
    #[serde(default)]
    pub aicb_dir: Option<PathBuf>,
    /// Folder of Vidur's profiling files (its `data/profiling`); backends `vidur`
    /// and `linear`. Default: `./data/profiling`.
    #[serde(default)]
    pub profiling_dir: Option<PathBuf>,
    /// Folder in `profiling_dir/network`; default: `<device>_dgx`.
    #[serde(default)]
    pub network_device: Option<String>,
    /// How profiling files are fitted; backends `vidur` and `linear`.
    #[serde(default)]
    pub predictor: Option<PredictorConfig>,
    /// CSV file `op,f0,f1,ms` of operator times; backend `table`.
    #[serde(default)]
    pub predictions_file: Option<PathBuf>,
    /// CSV file of stage times by replica, batch and stage; backend `recorded`.
    #[serde(default)]
    pub execution_times_file: Option<PathBuf>,
    /// What a step takes; backend `formula`. Each stage of a pipeline takes an equal
    /// share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<FormulaConfig>,
    /// Serving engine whose defaults and host overheads apply.
    #[serde(default)]
    pub engine: EngineConfig,
    /// GPUs per node; default: the device's.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub gpus_per_node: Option<u32>,
    /// What a GPU costs for an hour, US dollars; default: the device's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub price_usd_per_gpu_hour: Option<f64>,
    /// Format of weights; default: the model's.
    #[serde(default)]
    pub dtype: Option<DType>,
    /// Format of the KV cache; default: the model's.
    #[serde(default)]
    pub kv_cache_dtype: Option<DType>,
    /// Tensor-parallel ways.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub tensor_parallel: u32,
    /// Pipeline stages.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub pipeline_parallel: u32,
    /// Ways the experts of a stage are spread.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub expert_parallel: u32,
    /// Attention ranks that share the experts of one replica; default:
    /// `expert_parallel / tensor_parallel`, at least 1.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub attention_data_parallel: Option<u32>,
    /// Whose GPUs experts are spread over: those of one replica, or of several
    /// replicas of a pool, each of them one attention rank with a queue of its own;
    /// its steps are then priced as if the others ran the same ones. Default:
    /// replica.
    #[serde(default)]
    pub expert_group: Option<ExpertGroup>,
    /// How tokens spread over experts.
    #[serde(default)]
    pub moe: MoeConfig,
    /// Whether two halves of a step take turns, one computing while the other's
    /// tokens travel to their experts and back.
    #[serde(default)]
    pub two_batch_overlap: Option<bool>,
    /// Speculative decoding with the model's multi-token-prediction layers.
    #[serde(default)]
    pub speculative: Option<SpeculativeConfig>,
    /// Replicas, of both pools together under disaggregation.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub replicas: u32,
    /// Share of replicas that only prefill; 1: no disaggregation.
    #[serde(default = "unit")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub pd_node_ratio: f64,
    /// What differs on prefill replicas.
    #[serde(default)]
    pub prefill: PoolOverride,
    /// What differs on decode replicas.
    #[serde(default)]
    pub decode: PoolOverride,
    /// Links, where they differ from the device's.
    #[serde(default)]
    pub network: NetworkConfig,
    /// How requests are given to replicas.
    #[serde(default)]
    pub global_scheduler: GlobalScheduler,
    /// Splitwise's mixed pool, with `global_scheduler: split_wise`: a replica helps
    /// out in the other phase when that is overloaded. `{}`: with the defaults below;
    /// left out: no replica changes its phase.
    #[serde(default)]
    pub mixed_pool: Option<MixedPoolConfig>,
    /// How a replica forms batches; default: the engine's, or sarathi.
    #[serde(default)]
    #[schemars(extend("x-default-type" = "sarathi"))]
    pub replica_scheduler: Option<ReplicaScheduler>,
    /// Memory planning.
    #[serde(default)]
    pub memory: MemoryConfig,
    /// What to do with a configuration that does not fit.
    #[serde(default)]
    pub memory_check: MemoryCheck,
    /// Longest sequence, prompt and output together: a prompt that long or longer is
    /// rejected, an output ends where the sequence is full. Default: the model's
    /// positions, its scaling of them included; with `compat` no limit.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub max_model_len: Option<u32>,
    /// Requests.
    pub workload: WorkloadConfig,
    /// Offered load, requests per second over the whole cluster; open-loop arrivals only.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub qps: Option<f64>,
    /// Seed of the workload and of random routing; set from the sweep's.
    #[serde(default)]
    pub seed: u64,
    /// Replication number; set by the sweep.
    #[serde(default)]
    pub replication: u32,
    /// What the figures of a run are of. Default: `steady` where arrivals are generated,
    /// `all` for those of a trace, for bursts and with `compat`.
    #[serde(default)]
    pub measure: Option<Measure>,
    /// Half-widths of 95 % intervals to which figures are to be known: a run is extended
    /// until they are, or there are `max_requests`. Needs `measure: steady`.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Measured requests to which a run is extended at most, for `precision`, or where
    /// `workload.requests` is left out; default: 2000000.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_requests: Option<u32>,
    /// Simulated seconds after which a run stops.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub time_limit_s: Option<f64>,
    /// Whose behaviour is simulated where right and original differ.
    #[serde(default, skip_serializing_if = "Compat::is_none")]
    pub compat: Compat,
}

/// Serving engine, and what of it differs. In YAML also by its name alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-shorthand" = "name"))]
pub struct EngineConfig {
    /// `vllm`, `sglang`, `trtllm`, or the path of an engine YAML; none: no host
    /// overhead, scheduler as given. An engine of your own needs no file where all its
    /// figures stand here.
    #[serde(default)]
    pub name: Option<String>,
    /// Version; default: the newest known, or the file's.
    #[serde(default)]
    pub version: Option<String>,
    /// Where the figures come from; default: the named engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// Token budget of one step where the scheduler is the engine's; default: the named
    /// engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens_in_batch: Option<u32>,
    /// Limit of requests in one batch where the scheduler is the engine's; default: the
    /// named engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub batch_size_cap: Option<u32>,
    /// Tokens per KV cache block; default: the named engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_536))]
    pub block_size: Option<u32>,
    /// vLLM's rule: share of device memory for weights, activations, buffers and KV
    /// cache together; default: the named engine's rule. Of the three rules one may be
    /// given, which takes the place of the engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub gpu_memory_utilization: Option<f64>,
    /// SGLang's rule: share of device memory for weights and KV cache; `auto`: as the
    /// engine computes it when it starts. Default: the named engine's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_fraction_static: Option<StaticFraction>,
    /// TensorRT-LLM's rule: share for the KV cache of what weights, activations and
    /// buffers leave free; default: the named engine's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub free_gpu_memory_fraction: Option<f64>,
    /// Host time each step costs whatever is in it, seconds; default: the named
    /// engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub host_overhead_s_per_step: Option<f64>,
    /// Host time each request of a step adds, seconds; default: the named engine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub host_overhead_s_per_request: Option<f64>,
}

/// Whose GPUs experts are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpertGroup {
    /// Those of each replica.
    Replica,
    /// Those of `expert_parallel / tensor_parallel` replicas.
    Pool,
}

/// How tokens spread over experts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoeConfig {
    /// How unevenly; default: the power law of the model's kind of router.
    #[serde(default)]
    #[schemars(extend("x-default-type" = "power_law"))]
    pub load: Option<ExpertLoadConfig>,
    /// Replicas of the busiest experts, over all GPUs that share the experts;
    /// default: 0.
    #[serde(default)]
    #[schemars(range(max = 4096))]
    pub redundant_experts: Option<u32>,
}

/// How unevenly tokens spread over experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExpertLoadConfig {
    /// Every expert gets the same.
    Balanced,
    /// Popularity falls as rank^-alpha.
    PowerLaw {
        /// Exponent.
        #[schemars(range(min = 0, max = 10))]
        alpha: f64,
    },
    /// Tokens counted at each expert, in order of the experts.
    Histogram {
        /// One number per routed expert.
        tokens: Vec<f64>,
    },
}

/// Speculative decoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeculativeConfig {
    /// Tokens drafted per step.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub draft_tokens: u32,
    /// Chance that a drafted token is accepted, given that its predecessors were.
    #[schemars(range(min = 0, max = 1))]
    pub acceptance: f64,
}

/// What differs in one pool under disaggregation; absent: as the run's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolOverride {
    /// Replicas of this pool, instead of the share given by `pd_node_ratio`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub replicas: Option<u32>,
    /// Device.
    #[serde(default)]
    pub device: Option<String>,
    /// What one of its GPUs costs for an hour, US dollars; default: the run's, or, of
    /// another device than the run's, that device's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1e6))]
    pub price_usd_per_gpu_hour: Option<f64>,
    /// Tensor-parallel ways.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub tensor_parallel: Option<u32>,
    /// Pipeline stages.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub pipeline_parallel: Option<u32>,
    /// Expert-parallel ways.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub expert_parallel: Option<u32>,
    /// Attention-data-parallel ranks.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub attention_data_parallel: Option<u32>,
    /// How requests are given to the pool's replicas: prompts on arrival, decodes
    /// when their prompt is complete.
    #[serde(default)]
    pub global_scheduler: Option<GlobalScheduler>,
    /// Replica scheduler.
    #[serde(default)]
    #[schemars(extend("x-default-type" = "sarathi"))]
    pub replica_scheduler: Option<ReplicaScheduler>,
    /// Memory planning.
    #[serde(default)]
    pub memory: PoolMemoryConfig,
}

/// Memory planning of one pool; absent: as the run's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolMemoryConfig {
    /// Share of device memory kept free.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub margin_fraction: Option<f64>,
    /// Tokens per KV cache block.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub block_size: Option<u32>,
    /// KV cache blocks per attention rank, instead of what fits.
    #[serde(default)]
    #[schemars(range(min = 1, max = KV_BLOCKS_MAX))]
    pub num_blocks: Option<u64>,
}

/// Links, where they differ from the device's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// NVLink per GPU and direction, gigabits per second.
    #[serde(default)]
    #[schemars(range(min = DEVICE_FIGURE_MIN, max = LINK_GBPS_MAX))]
    pub nvlink_bandwidth_gbps: Option<f64>,
    /// NIC per GPU and direction, gigabits per second.
    #[serde(default)]
    #[schemars(range(min = DEVICE_FIGURE_MIN, max = LINK_GBPS_MAX))]
    pub rdma_bandwidth_gbps: Option<f64>,
    /// KV transfer per replica and direction, gigabits per second; default: the
    /// NICs of its GPUs together. With a topology: at most that, besides its links.
    #[serde(default)]
    #[schemars(range(min = DEVICE_FIGURE_MIN, max = LINK_GBPS_MAX))]
    pub kv_transfer_bandwidth_gbps: Option<f64>,
    /// Format in which a KV cache is sent; default: the cache's.
    #[serde(default)]
    pub kv_transfer_dtype: Option<DType>,
    /// SimAI topology file over which collectives, expert exchange, sends between
    /// stages and KV transfers are priced as flows; with backend `simai_simulation` by
    /// default a Spectrum-X fabric of the device's links for each replica.
    #[serde(default)]
    pub topology: Option<PathBuf>,
    /// Whose network the topology is; default: cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_of: Option<TopologyOf>,
    /// SimAI configuration file (`SimAI.conf`); default: SimAI's own figures.
    #[serde(default)]
    pub simai_conf: Option<PathBuf>,
    /// Installed `SimAI_simulator` that prices collectives in the place of flows;
    /// needs `topology` and `simai_conf`, and is run only under `run --allow-programs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simai_binary: Option<PathBuf>,
    /// Whether a KV cache starts to leave before its prompt is complete; default:
    /// none.
    #[serde(default)]
    pub kv_transfer_overlap: Option<KvTransferOverlap>,
}

/// Whose network a topology is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopologyOf {
    /// That of all replicas, each at its place.
    Cluster,
    /// That of every replica alone; KV caches go from NIC to NIC.
    Replica,
}

/// Whether a KV cache starts to leave before its prompt is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvTransferOverlap {
    /// No: when all layers of all its tokens are computed.
    None,
    /// Layer by layer, while the prompt's last chunk is computed.
    LayerWise,
}

/// Memory planning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Share of device memory kept free, in the place of the engine's rule; default: by
    /// that rule, or 0.1.
    #[serde(default)]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub margin_fraction: Option<f64>,
    /// Tokens per KV cache block; default: the engine's, or 16.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub block_size: Option<u32>,
    /// KV cache blocks per attention rank, instead of what fits.
    #[serde(default)]
    #[schemars(range(min = 1, max = KV_BLOCKS_MAX))]
    pub num_blocks: Option<u64>,
    /// Longest request allowed, prompt and output together: what `orca` and
    /// `faster_transformer` reserve. Default: the workload's longest; with
    /// `compat: vidur` 4096.
    #[serde(default)]
    #[schemars(range(min = 1, max = SEQUENCE_TOKENS_MAX))]
    pub max_request_tokens: Option<u32>,
}

/// What to do with a configuration that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCheck {
    /// Report it infeasible.
    #[default]
    Refuse,
    /// Simulate it all the same with the smallest usable KV cache, and say so.
    Warn,
}

/// A sweep: base point, axes, and what to look for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepSpec {
    /// Name; also of the result directory.
    pub name: String,
    /// Seed of every workload.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// [`RunConfig`] keys every run starts from (may be partial: axes complete it).
    pub base: serde_json::Map<String, serde_json::Value>,
    /// Dotted [`RunConfig`] keys and the list of values to try of each.
    #[serde(default)]
    pub axes: serde_json::Map<String, serde_json::Value>,
    /// How the space is searched.
    #[serde(default)]
    pub search: SearchConfig,
    /// Conditions a configuration must satisfy to be run, e.g. `total_gpus <= 64`.
    #[serde(default)]
    pub constraints: Vec<String>,
    /// Targets.
    #[serde(default)]
    pub slo: Slo,
    /// What the figures of all runs are of, unless `base` or an axis says otherwise.
    #[serde(default)]
    pub measure: Option<Measure>,
    /// How well figures of all runs are to be known, unless `base` or an axis says
    /// otherwise.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Measured requests to which runs are extended at most, unless `base` or an axis says
    /// otherwise.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_requests: Option<u32>,
    /// Looks for the highest load that each configuration holds within the targets, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacitySearch>,
    /// What is better.
    #[serde(default)]
    pub objectives: Objectives,
    /// Independent repetitions of each configuration.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub replications: u32,
    /// What is kept.
    #[serde(default)]
    pub output: OutputConfig,
    /// File the specification was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Configurations of a [`SearchConfig::List`], read with the specification.
    #[serde(skip)]
    pub points: Option<Points>,
    /// Where a program is named, if one is: `file:line:column`, or the argument.
    #[serde(skip)]
    pub program_named_at: Option<String>,
    /// What a person should know of the configurations tried when it was read, one
    /// sentence each.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// Where its keys stand.
    #[serde(skip)]
    pub places: KeyPlaces,
}

fn default_seed() -> u64 {
    42
}
fn one() -> u32 {
    1
}
fn unit() -> f64 {
    1.0
}

/// How the space is searched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SearchConfig {
    /// The whole cross product of the axes, last axis fastest.
    #[default]
    Grid,
    /// Points drawn from the cross product, without repetition.
    Random {
        /// How many.
        #[schemars(range(min = 1, max = POINTS_MAX))]
        samples: u64,
    },
    /// One configuration per row of a CSV whose columns are dotted keys.
    List {
        /// The CSV file.
        file: PathBuf,
    },
    /// The whole cross product of the axes, and of each point the highest load that keeps
    /// the targets: as `capacity` beside a grid.
    Capacity {
        /// As `capacity.tolerance`.
        #[serde(default = "default_tolerance")]
        tolerance: RelativeWidth,
        /// As `capacity.max_requests`.
        #[serde(default = "default_max_requests")]
        #[schemars(range(min = 100, max = 100_000_000))]
        max_requests: u32,
    },
}

/// What is better: summary columns to maximise and minimise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// Columns to maximise.
    #[serde(default)]
    pub maximize: Vec<String>,
    /// Columns to minimise.
    #[serde(default)]
    pub minimize: Vec<String>,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Per-request rows.
    #[serde(default)]
    pub requests: RequestOutput,
}

/// Which runs' requests are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutput {
    /// Every request of every run.
    #[default]
    All,
    /// Every 16th request of each run.
    Sampled,
    /// None.
    None,
}

impl RequestOutput {
    /// Of which requests a row is kept: every how many-th; 0: of none.
    pub const fn every(self) -> u32 {
        match self {
            Self::All => 1,
            Self::Sampled => 16,
            Self::None => 0,
        }
    }
}

impl Default for Objectives {
    fn default() -> Self {
        Self {
            maximize: vec!["throughput_tokens_per_s_per_gpu".into()],
            minimize: vec!["ttft_p90_s".into(), "tbt_p99_s".into()],
        }
    }
}
