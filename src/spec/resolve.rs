//! From a [`RunConfig`] to a cluster that can be simulated: names looked up,
//! defaults filled in, memory planned, execution times composed.
//!
//! What cannot exist (does not fit, does not divide) is a result with a reason;
//! what is not understood (an unknown model) is an error of the input.

use std::path::Path;
use std::sync::Arc;

use super::assumptions::{Assumptions, PricedSteps};
use super::entries::{Entries, Entry};
use super::placement::Sites;
use super::pricing::{Costs, PoolCost, Pricing};
use super::problem::{Infeasible, InputError, ResolveError};
use super::step_options::step_options;
use super::{
    ExpertGroup, KvTransferOverlap, MemoryCheck, PoolMemoryConfig, PoolOverride, Replicas,
    RunConfig,
};
use crate::catalog::{CatalogError, DeviceSpec, EngineSpec, ModelSpec, PriceBasis};
use crate::execution_time::StepCost;
use crate::execution_time::aicb::Phase;
use crate::execution_time::graph::Graph;
use crate::execution_time::step_cost::PeerCost;
use crate::external::AllowPrograms;
use crate::memory::{
    self, AlibabaVersion, Formats, MemoryPlan, MemoryRule, Parallelism, PlanInput, VidurPlan,
    VidurPlanInput, alibaba_plan, alibaba_transfer_bytes, kv_bytes_per_token,
    state_bytes_per_request, vidur_plan,
};
use crate::network::{NIC_LATENCY_S, Placement};
use crate::number::whole_u32;
use crate::simulator::{
    ClusterSpec, Compat, Disaggregation, KvCacheSpec, KvTransferSpec, PoolRole, PoolSpec, PoolWork,
    ReplicaScheduler, RunSummary,
};
use crate::units::{BYTES_PER_S_PER_GBPS, DType, GIB};

/// Share of device memory kept free where neither the run nor its engine says:
/// the default of Vidur's memory planner.
const DEFAULT_MARGIN_FRACTION: f64 = 0.1;

/// Tokens per KV cache block where nobody says: vLLM's and Vidur's default.
const DEFAULT_BLOCK_SIZE: u32 = 16;

/// Replicas that are alike, resolved.
pub struct Pool {
    /// Phases they run.
    pub role: PoolRole,
    /// How many.
    pub replicas: u32,
    /// What they run on.
    pub device: DeviceSpec,
    /// How each is cut.
    pub parallelism: Parallelism,
    /// Replicas that share experts.
    pub peers: u32,
    /// Where they sit: GPUs numbered over the servers of all pools.
    pub placement: Placement,
    /// What one GPU of them holds.
    pub memory: MemoryPlan,
    /// Tokens per KV cache block.
    pub block_size: u32,
    /// KV cache blocks per attention rank, where the configuration gives them.
    pub num_blocks: Option<u64>,
    /// How they form batches.
    pub scheduler: ReplicaScheduler,
    /// What their steps cost.
    pub cost: PoolCost,
    /// Their operators.
    pub graph: Graph,
    /// What Vidur's planner allows, where its behaviour is asked for.
    pub vidur_plan: Option<VidurPlan>,
}

impl Pool {
    /// What prices a replica's steps.
    pub fn step_cost(&self) -> Arc<dyn StepCost> {
        match self.peers {
            1 => self.cost.step_cost(),
            peers => Arc::new(PeerCost::new(self.cost.step_cost(), peers)),
        }
    }

    /// GPUs of the pool.
    pub fn gpus(&self) -> u32 {
        self.replicas * self.parallelism.gpus()
    }
}

/// A configuration ready to be simulated.
pub struct Deployment {
    /// Model.
    pub model: ModelSpec,
    /// Formats of weights and KV cache.
    pub formats: Formats,
    /// One mixed pool, or a prefill and a decode pool.
    pub pools: Vec<Pool>,
    /// The cluster the simulator sees.
    pub cluster: ClusterSpec,
    /// Why it would not fit, where the run said to go on all the same.
    pub memory_warning: Option<String>,
}

impl Deployment {
    /// GPUs of all pools.
    pub fn total_gpus(&self) -> u32 {
        self.pools.iter().map(Pool::gpus).sum()
    }

    /// Price of those GPUs, US dollars per hour.
    pub fn cost_usd_per_hour(&self) -> f64 {
        let price = |pool: &Pool| f64::from(pool.gpus()) * pool.device.price_usd_per_hour;
        self.pools.iter().map(price).sum()
    }

    /// Model FLOPs done over what the devices could have done in `duration_s`,
    /// at their peak for the format of the weights.
    pub fn mfu(&self, work: &[PoolWork], duration_s: f64) -> f64 {
        let done: f64 = (self.pools.iter().zip(work))
            .map(|(pool, work)| {
                let (tokens, sampled) = (work.tokens as f64, work.sampled_tokens as f64);
                pool.graph.flops(tokens, work.attended_pairs, sampled)
            })
            .sum();
        let peak: f64 = self
            .pools
            .iter()
            .map(|pool| f64::from(pool.gpus()) * pool.device.peak_flops(self.formats.weights))
            .sum();
        done / (peak * duration_s)
    }
}

/// Resolves configurations; shares cost models between those that are alike.
/// Used by all threads.
#[derive(Default)]
pub struct Resolver {
    costs: Costs,
    priced_steps: PricedSteps,
    entries: Entries,
}

impl Resolver {
    /// Keeps fits of profiling files below `cache_dir` too.
    pub fn with_cache(cache_dir: &Path) -> Self {
        Self {
            costs: Costs::with_cache(Some(cache_dir)),
            ..Self::default()
        }
    }

    /// Also runs the programs that configurations name. Without it their prices come
    /// from what earlier runs left, and there are none beyond.
    #[must_use]
    pub fn allowing_programs(mut self, leave: AllowPrograms) -> Self {
        self.costs.allow_programs(leave);
        self
    }

    /// What the figures of a run of `deployment` rest on: `work` is what its pools did.
    pub fn assumptions(
        &self,
        deployment: &Deployment,
        work: &[PoolWork],
        summary: &RunSummary,
    ) -> Assumptions {
        self.priced_steps.assumptions(deployment, work, summary)
    }

    #[cfg(test)]
    pub(super) fn costs(&self) -> &Costs {
        &self.costs
    }

    /// What a person should know of the prices so far, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.costs.warnings()
    }

    /// The deployment `config` describes.
    ///
    /// # Errors
    /// [`ResolveError::Infeasible`] if it cannot exist, [`ResolveError::Input`]
    /// if it names something unknown.
    pub fn resolve(&self, config: &RunConfig) -> Result<Deployment, ResolveError> {
        let named = |key| move |error: CatalogError| InputError::Name { key, error };
        let model = self.entries.model(&config.model);
        let model = model.map_err(named("model"))?;
        let engine = self.entries.engine(&config.engine);
        let engine = engine.map_err(|reason| ResolveError::input("engine", reason))?;
        let formats = Formats::of(&model.spec, config.dtype, config.kv_cache_dtype);
        let mut warning = None;
        let mut sites = Sites::new(config, self.costs.topology(config)?);
        let mut pools = Vec::new();
        for plan in plan_pools(config)? {
            let device = self.entries.device(plan.device);
            let device = device.map_err(named(plan.device_key))?;
            let context = PoolContext {
                config,
                model: &model,
                engine: engine.as_deref(),
                formats,
            };
            pools.push(self.resolve_pool(&context, &plan, &device, &mut sites, &mut warning)?);
        }
        let mut cluster = cluster_of(config, &model.spec, formats, &pools);
        if let (Some(topology), [_, _]) = (sites.topology(), &pools[..]) {
            let places = pools.iter().map(|pool| (pool.placement, pool.replicas));
            let paths = self
                .costs
                .transfer_paths(config, topology, places.collect())?;
            cluster.transfer_paths = Some(paths);
        }
        Ok(Deployment {
            model: model.spec.clone(),
            formats,
            pools,
            cluster,
            memory_warning: warning,
        })
    }

    /// Names and content hashes of the catalog entries `config` uses, for run
    /// identities: a changed figure makes another run. Unknown names are left out;
    /// resolving tells about them.
    pub fn fingerprints(&self, config: &RunConfig) -> Vec<(String, String)> {
        let mut found = self.entries.fingerprints(config);
        found.extend(self.costs.fingerprints(config, &self.entries));
        found
    }

    fn resolve_pool(
        &self,
        context: &PoolContext<'_>,
        plan: &PoolPlan<'_>,
        device: &Entry<DeviceSpec>,
        sites: &mut Sites<'_>,
        warning: &mut Option<String>,
    ) -> Result<Pool, ResolveError> {
        let config = context.config;
        // Of everything that shares experts.
        let parallelism = plan.parallelism;
        let peers = expert_peers(config, plan)?;
        let scheduler = scheduler_of(plan.scheduler, context.engine_spec());
        let input = PlanInput {
            model: &context.model.spec,
            device: &device.spec,
            parallelism,
            formats: context.formats,
            max_tokens_in_step: scheduler.max_tokens_in_step(),
            max_requests_in_batch: scheduler.batch_size_cap(),
            rule: plan.memory_rule(context),
            block_size: plan.block_size(context),
            include_mtp: config.speculative.is_some(),
            redundant_experts: config.moe.redundant_experts.unwrap_or(0),
        };
        let vidur_plan = vidur_plan_of(context, plan, &device.spec)?;
        let memory = match (memory::plan(&input), config.memory_check) {
            (Ok(memory), _) => memory,
            // The original's planner has the say.
            _ if vidur_plan.is_some() => memory::estimate(&input)?,
            (Err(infeasible), MemoryCheck::Refuse) => return Err(infeasible.into()),
            (Err(infeasible), MemoryCheck::Warn) => {
                let memory = memory::estimate(&input)?;
                let remedy = memory::remedy(&input)
                    .map(|remedy| format!("; it fits with {remedy}"))
                    .unwrap_or_default();
                let text = format!("{}: {}{remedy}", plan.role.name(), infeasible.reason);
                *warning = Some(match warning.take() {
                    None => text,
                    Some(earlier) => format!("{earlier}. {text}"),
                });
                memory
            }
        };
        let block_size = plan.block_size(context);
        let own = Parallelism {
            attention_data_parallel: parallelism.attention_data_parallel / peers,
            ..parallelism
        };
        let placement = sites.place(&device.spec, own, plan.replicas, peers == 1)?;
        let gpus_per_node = placement.gpus_per_server;
        let cost = self.costs.get(&Pricing {
            config,
            model: context.model,
            device,
            engine: context.engine,
            formats: context.formats,
            parallelism,
            block_size,
            gpus_per_node,
            place: sites
                .topology()
                .map(|topology| (placement, Arc::clone(topology))),
            phases: match config.mixed_pool {
                None => phases_of(plan.role),
                Some(_) => phases_of(PoolRole::Mixed),
            },
            options: step_options(config, &context.model.spec, &parallelism)?,
        })?;
        let graph = Graph::new(
            &context.model.spec,
            parallelism,
            context.formats,
            gpus_per_node,
        )
        .map_err(Infeasible::Unpriced)?;
        Ok(Pool {
            role: plan.role,
            replicas: plan.replicas,
            device: plan.priced(&device.spec),
            parallelism: own,
            peers,
            placement,
            memory,
            block_size,
            num_blocks: plan.memory.num_blocks.or(config.memory.num_blocks),
            scheduler,
            cost,
            graph,
            vidur_plan,
        })
    }
}

/// Phases that replicas of a role are there for.
fn phases_of(role: PoolRole) -> &'static [Phase] {
    match role {
        PoolRole::Prefill => &[Phase::Prefill],
        PoolRole::Decode => &[Phase::Decode],
        PoolRole::Mixed => &[Phase::Prefill, Phase::Decode],
    }
}

/// What all pools of a run share.
struct PoolContext<'a> {
    config: &'a RunConfig,
    model: &'a Entry<ModelSpec>,
    engine: Option<&'a Entry<EngineSpec>>,
    formats: Formats,
}

impl PoolContext<'_> {
    fn engine_spec(&self) -> Option<&EngineSpec> {
        self.engine.map(|engine| &engine.spec)
    }
}

/// One pool before anything is looked up.
struct PoolPlan<'a> {
    role: PoolRole,
    replicas: u32,
    device: &'a str,
    /// The key that names it.
    device_key: &'static str,
    /// What a GPU of it costs instead of what the device's description says.
    price_usd_per_gpu_hour: Option<f64>,
    parallelism: Parallelism,
    scheduler: Option<&'a ReplicaScheduler>,
    memory: PoolMemoryConfig,
}

/// The pools of a run, of one mixed role or two roles.
fn plan_pools(config: &RunConfig) -> Result<Vec<PoolPlan<'_>>, ResolveError> {
    let replicas = config.split_replicas().map_err(Infeasible::Settings)?;
    config.check_size().map_err(Infeasible::Settings)?;
    config
        .check_routing(replicas)
        .map_err(Infeasible::Settings)?;
    match replicas {
        Replicas::Disaggregated { prefill, decode } => Ok(vec![
            PoolPlan::of(config, &config.prefill, PoolRole::Prefill, prefill),
            PoolPlan::of(config, &config.decode, PoolRole::Decode, decode),
        ]),
        Replicas::Mixed(replicas) => Ok(vec![PoolPlan {
            role: PoolRole::Mixed,
            replicas,
            device: &config.device,
            device_key: "device",
            price_usd_per_gpu_hour: config.price_usd_per_gpu_hour,
            parallelism: config.parallelism(),
            scheduler: config.replica_scheduler.as_ref(),
            memory: PoolMemoryConfig::default(),
        }]),
    }
}

impl<'a> PoolPlan<'a> {
    fn of(config: &'a RunConfig, pool: &'a PoolOverride, role: PoolRole, replicas: u32) -> Self {
        let device_key = match (role, &pool.device) {
            (PoolRole::Prefill, Some(_)) => "prefill.device",
            (PoolRole::Decode, Some(_)) => "decode.device",
            _ => "device",
        };
        Self {
            role,
            replicas,
            device: pool.device.as_deref().unwrap_or(&config.device),
            device_key,
            // The run's price is that of its own device.
            price_usd_per_gpu_hour: pool.price_usd_per_gpu_hour.or_else(|| {
                let own = pool.device.as_ref().is_none_or(|own| *own == config.device);
                config.price_usd_per_gpu_hour.filter(|_| own)
            }),
            parallelism: config.pool_parallelism(pool),
            scheduler: pool
                .replica_scheduler
                .as_ref()
                .or(config.replica_scheduler.as_ref()),
            memory: pool.memory.clone(),
        }
    }

    /// The device at the price that the run gives.
    fn priced(&self, device: &DeviceSpec) -> DeviceSpec {
        let mut device = device.clone();
        if let Some(price) = self.price_usd_per_gpu_hour {
            device.price_usd_per_hour = price;
            device.price_basis = PriceBasis::Published;
        }
        device
    }

    /// Which memory the KV cache gets: beside the margin of the pool or the run, by
    /// the engine's rule, or beside the default margin.
    fn memory_rule(&self, context: &PoolContext<'_>) -> MemoryRule {
        self.memory
            .margin_fraction
            .or(context.config.memory.margin_fraction)
            .map(MemoryRule::Margin)
            .or(context.engine_spec().map(MemoryRule::of_engine))
            .unwrap_or(MemoryRule::Margin(DEFAULT_MARGIN_FRACTION))
    }

    /// Tokens per KV cache block, found likewise.
    fn block_size(&self, context: &PoolContext<'_>) -> u32 {
        self.memory
            .block_size
            .or(context.config.memory.block_size)
            .or(context.engine_spec().map(|engine| engine.block_size))
            .unwrap_or(DEFAULT_BLOCK_SIZE)
    }
}

/// The scheduler as given, else as the engine has it, else the default.
fn scheduler_of(given: Option<&ReplicaScheduler>, engine: Option<&EngineSpec>) -> ReplicaScheduler {
    given.map_or_else(|| default_scheduler(engine), Clone::clone)
}

/// The scheduler where none is given.
pub(super) fn default_scheduler(engine: Option<&EngineSpec>) -> ReplicaScheduler {
    match engine {
        Some(engine) => ReplicaScheduler::Sarathi {
            chunk_size: engine.max_tokens_in_batch,
            batch_size_cap: engine.batch_size_cap,
            watermark_blocks_fraction: 0.01,
        },
        None => ReplicaScheduler::default(),
    }
}

fn cluster_of(
    config: &RunConfig,
    model: &ModelSpec,
    formats: Formats,
    pools: &[Pool],
) -> ClusterSpec {
    let specs = pools.iter().map(|pool| {
        let ranks = pool.parallelism.attention_data_parallel;
        let planned = pool
            .num_blocks
            .or(pool.vidur_plan.map(|plan| plan.num_blocks));
        let per_rank = planned.unwrap_or_else(|| {
            // Where memory was not enough and the run goes on all the same, the
            // largest batch of the longest prompts it allows.
            match pool.memory.blocks_per_rank {
                0 => {
                    u64::from(pool.scheduler.batch_size_cap())
                        * u64::from(model.max_position_tokens.div_ceil(pool.block_size))
                }
                blocks => blocks,
            }
        });
        PoolSpec {
            role: pool.role,
            replicas: pool.replicas,
            attention_data_parallel: ranks,
            scheduler: limited(&pool.scheduler, pool.vidur_plan),
            kv_cache: KvCacheSpec {
                // No run holds more; keeps sums of blocks far from overflow.
                num_blocks: per_rank.saturating_mul(u64::from(ranks)).min(1 << 48),
                block_size: pool.block_size,
                window: match config.compat {
                    Compat::None => memory::window_cache(model),
                    _ => None,
                },
            },
            cost: pool.step_cost(),
        }
    });
    ClusterSpec {
        pools: specs.collect(),
        global_scheduler: config.global_scheduler,
        kv_transfer: kv_transfer_of(config, model, formats, pools),
        transfer_paths: None,
        disaggregation: disaggregation_of(config, model),
        seed: config.seed.wrapping_add(u64::from(config.replication)),
        time_limit_s: config.time_limit_s,
        compat: config.compat,
        max_request_tokens: match config.compat {
            Compat::None => config.memory.max_request_tokens,
            _ => Some(vidur_max_request_tokens(config)),
        },
        max_model_len: config.longest_sequence(model),
        earlier_random_draws: 0,
    }
}

fn disaggregation_of(config: &RunConfig, model: &ModelSpec) -> Disaggregation {
    let overlap = config.network.kv_transfer_overlap;
    Disaggregation {
        prefill_scheduler: config.prefill.global_scheduler,
        decode_scheduler: config.decode.global_scheduler,
        mixed_pool: config.mixed_pool,
        overlap_layers: (overlap == Some(KvTransferOverlap::LayerWise)).then_some(model.layers),
    }
}

/// Replicas of a pool that share experts: 1, unless the run says so.
fn expert_peers(config: &RunConfig, plan: &PoolPlan<'_>) -> Result<u32, ResolveError> {
    if config.expert_group != Some(ExpertGroup::Pool) {
        return Ok(1);
    }
    let peers = plan.parallelism.attention_data_parallel;
    if peers > plan.replicas {
        let reason = format!(
            "expert_group pool: expert_parallel {} over replicas of {} GPUs a stage takes {peers} \
             replicas, the {} pool has {}",
            plan.parallelism.expert_parallel,
            plan.parallelism.tensor_parallel,
            plan.role.name(),
            plan.replicas
        );
        return Err(ResolveError::settings("expert_group", reason));
    }
    Ok(peers)
}

/// What Vidur's planner allows on a pool, if its behaviour is asked for. Its
/// figures are not needed, and so not insisted on, where blocks are given and the
/// scheduler has no batch limit from it.
fn vidur_plan_of(
    context: &PoolContext<'_>,
    plan: &PoolPlan<'_>,
    device: &DeviceSpec,
) -> Result<Option<VidurPlan>, ResolveError> {
    let config = context.config;
    if config.compat == Compat::None {
        return Ok(None);
    }
    let input = VidurPlanInput {
        model: &context.model.spec,
        device,
        parallelism: plan.parallelism,
        margin_fraction: plan.memory_rule(context).margin_fraction(),
        max_request_tokens: vidur_max_request_tokens(config),
        block_size: plan.block_size(context),
    };
    let planned = if config.compat.is_alibaba_cloud() && context.model.spec.moe.is_some() {
        alibaba_plan(&input)
    } else {
        vidur_plan(&input)?
    };
    Ok(Some(planned))
}

/// `max_tokens` of Vidur's length generators by default.
const VIDUR_MAX_TOKENS: u32 = 4096;

fn vidur_max_request_tokens(config: &RunConfig) -> u32 {
    config.memory.max_request_tokens.unwrap_or(VIDUR_MAX_TOKENS)
}

/// The scheduler with the batch limit of Vidur's planner, where it applies.
fn limited(scheduler: &ReplicaScheduler, plan: Option<VidurPlan>) -> ReplicaScheduler {
    let mut scheduler = scheduler.clone();
    if let (
        Some(plan),
        ReplicaScheduler::Orca { batch_size_cap }
        | ReplicaScheduler::FasterTransformer { batch_size_cap },
    ) = (plan, &mut scheduler)
    {
        *batch_size_cap = plan.max_batch_size.min(*batch_size_cap);
    }
    scheduler
}

/// The link between the pools where no topology says what lies between them: every
/// GPU of a replica sends its share of the cache over its own NIC.
fn kv_transfer_of(
    config: &RunConfig,
    model: &ModelSpec,
    formats: Formats,
    pools: &[Pool],
) -> Option<KvTransferSpec> {
    let [sender, receiver] = pools else {
        return None;
    };
    let dtype = config.network.kv_transfer_dtype.unwrap_or(formats.kv_cache);
    if config.compat.is_alibaba_cloud() {
        return Some(alibaba_cloud_transfer(config, model, dtype));
    }
    let bytes_per_s = |pool: &Pool| {
        let nic_gbps = config
            .network
            .rdma_bandwidth_gbps
            .unwrap_or(pool.device.nic_bandwidth_gbps);
        config
            .network
            .kv_transfer_bandwidth_gbps
            .unwrap_or(nic_gbps * f64::from(pool.parallelism.gpus()))
            * BYTES_PER_S_PER_GBPS
    };
    Some(KvTransferSpec {
        bytes_per_token: kv_bytes_per_token(model, dtype),
        bytes_per_request: state_bytes_per_request(model),
        window: memory::window_cache(model),
        sender_bytes_per_s: bytes_per_s(sender),
        receiver_bytes_per_s: bytes_per_s(receiver),
        latency_s: NIC_LATENCY_S,
    })
}

/// Vidur-AlibabaCloud's transfers: its cache sizes, a gigabit of 2^30 bits, no
/// latency.
fn alibaba_cloud_transfer(config: &RunConfig, model: &ModelSpec, dtype: DType) -> KvTransferSpec {
    let version = match config.compat {
        Compat::VidurAlibabaCloud15 => AlibabaVersion::V1_5,
        _ => AlibabaVersion::V1_7,
    };
    let bytes_per_token = alibaba_transfer_bytes(model, 0, whole_u32(dtype.bytes()), version);
    let gbps = config.network.kv_transfer_bandwidth_gbps;
    let bytes_per_s = gbps.unwrap_or(800.0) * GIB / 8.0;
    KvTransferSpec {
        bytes_per_token: bytes_per_token as f64,
        bytes_per_request: 0.0,
        window: None,
        sender_bytes_per_s: bytes_per_s,
        receiver_bytes_per_s: bytes_per_s,
        latency_s: 0.0,
    }
}
