//! From a [`RunConfig`] to a cluster that can be simulated: names looked up,
//! defaults filled in, memory planned, execution times composed.
//!
//! What cannot exist (does not fit, does not divide) is a result with a reason;
//! what is not understood (an unknown model) is an error of the input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{ExpertLoadConfig, MemoryCheck, MoeConfig, PoolOverride, Replicas, RunConfig};
use crate::catalog::{Catalog, DeviceSpec, EngineSpec, ModelSpec};
use crate::execution_time::aicb::{self, AicbCost, Phase};
use crate::execution_time::expert_load::{busiest_factor, power_law};
use crate::execution_time::graph::{self, Graph};
use crate::execution_time::operator::ExpertLoad;
use crate::execution_time::step_cost::GraphCost;
use crate::execution_time::{BackendKind, Speculation, StepCost, StepOptions};
use crate::memory::{
    self, Formats, Infeasible, MemoryPlan, Parallelism, PlanInput, kv_bytes_per_token,
    state_bytes_per_request,
};
use crate::network::{LinkOverrides, NIC_LATENCY_S};
use crate::simulator::{
    ClusterSpec, Compat, GlobalScheduler, KvCacheSpec, KvTransferSpec, PoolRole, PoolSpec,
    PoolWork, ReplicaScheduler,
};
use crate::units::BYTES_PER_S_PER_GBPS;

/// Share of device memory kept free where neither the run nor its engine says:
/// the default of Vidur's memory planner.
const DEFAULT_MARGIN_FRACTION: f64 = 0.1;

/// Tokens per KV cache block where nobody says: vLLM's and Vidur's default.
const DEFAULT_BLOCK_SIZE: u32 = 16;

/// Cost models kept at a time; neighbouring runs of a sweep share theirs.
const COSTS_KEPT: usize = 128;

/// Why a configuration is not simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The deployment cannot exist.
    #[error("{0}")]
    Infeasible(String),
    /// The configuration names something unknown.
    #[error("{0}")]
    Input(String),
}

impl From<Infeasible> for ResolveError {
    fn from(infeasible: Infeasible) -> Self {
        Self::Infeasible(infeasible.reason)
    }
}

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
    /// What one GPU of them holds.
    pub memory: MemoryPlan,
    /// How they form batches.
    pub scheduler: ReplicaScheduler,
    /// What their steps cost.
    pub cost: Arc<dyn StepCost>,
    /// Operators of those steps.
    pub graph: Graph,
}

impl Pool {
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
    costs: Mutex<Costs>,
    /// Content hashes of folders of AICB files, or what is wrong with them.
    aicb_folders: Mutex<BTreeMap<PathBuf, String>>,
}

/// A cost model and the operators it prices.
type PricedGraph = (Arc<dyn StepCost>, Graph);

#[derive(Default)]
struct Costs {
    kept: BTreeMap<String, (u64, PricedGraph)>,
    uses: u64,
}

impl Resolver {
    /// The deployment `config` describes.
    ///
    /// # Errors
    /// [`ResolveError::Infeasible`] if it cannot exist, [`ResolveError::Input`]
    /// if it names something unknown.
    pub fn resolve(&self, config: &RunConfig) -> Result<Deployment, ResolveError> {
        let catalog = Catalog::builtin();
        let input = |error: crate::catalog::CatalogError| ResolveError::Input(error.to_string());
        let model = catalog.model(&config.model).map_err(input)?;
        let engine = match &config.engine.name {
            Some(name) => Some(
                catalog
                    .engine(name, config.engine.version.as_deref())
                    .map_err(input)?,
            ),
            None => None,
        };
        let formats = Formats {
            weights: config.dtype.unwrap_or(model.dtype),
            kv_cache: config.kv_cache_dtype.unwrap_or(model.kv_cache_dtype),
        };
        let mut warning = None;
        let mut pools = Vec::new();
        for plan in plan_pools(config)? {
            let device = catalog.device(plan.device).map_err(input)?;
            let context = PoolContext {
                config,
                model: &model,
                engine: engine.as_ref(),
                formats,
            };
            pools.push(self.resolve_pool(&context, &plan, device, &mut warning)?);
        }
        let cluster = cluster_of(config, &model, formats, engine.as_ref(), &pools);
        Ok(Deployment {
            model,
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
        let catalog = Catalog::builtin();
        let mut found = Vec::new();
        if let Ok(model) = catalog.model(&config.model) {
            found.push(("model".to_owned(), content_hash(&model)));
        }
        let devices = [
            ("device", Some(&config.device)),
            ("prefill.device", config.prefill.device.as_ref()),
            ("decode.device", config.decode.device.as_ref()),
        ];
        for (key, name) in devices {
            if let Some(Ok(device)) = name.map(|name| catalog.device(name)) {
                found.push((key.to_owned(), content_hash(&device)));
            }
        }
        if let Some(name) = &config.engine.name
            && let Ok(engine) = catalog.engine(name, config.engine.version.as_deref())
        {
            found.push(("engine".to_owned(), content_hash(&engine)));
        }
        if let Some(folder) = &config.aicb_dir {
            found.push(("aicb_dir".to_owned(), self.aicb_hash(folder)));
        }
        found
    }

    /// Hash of the AICB files in a folder; of the complaint, where it cannot be
    /// read.
    fn aicb_hash(&self, folder: &Path) -> String {
        let folders = self.aicb_folders.lock();
        let mut folders = folders.unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = folders.get(folder) {
            return hash.clone();
        }
        let text = match aicb::read_directory(folder) {
            Ok(files) => format!("{files:?}"),
            Err(error) => error.to_string(),
        };
        let hash = blake3::hash(text.as_bytes()).to_hex()[..16].to_owned();
        folders.insert(folder.to_owned(), hash.clone());
        hash
    }

    fn resolve_pool(
        &self,
        context: &PoolContext<'_>,
        plan: &PoolPlan<'_>,
        device: DeviceSpec,
        warning: &mut Option<String>,
    ) -> Result<Pool, ResolveError> {
        let config = context.config;
        let parallelism = plan.parallelism;
        let scheduler = scheduler_of(plan.scheduler, context.engine);
        let input = PlanInput {
            model: context.model,
            device: &device,
            parallelism,
            formats: context.formats,
            max_tokens_in_step: scheduler.max_tokens_in_step(),
            max_requests_in_batch: scheduler.batch_size_cap(),
            margin_fraction: margin_fraction(config, context.engine),
            block_size: block_size(config, context.engine),
            include_mtp: config.speculative.is_some(),
            redundant_experts: config.moe.redundant_experts.unwrap_or(0),
        };
        let memory = match (memory::plan(&input), config.memory_check) {
            (Ok(memory), _) => memory,
            (Err(infeasible), MemoryCheck::Refuse) => return Err(infeasible.into()),
            (Err(infeasible), MemoryCheck::Warn) => {
                let memory = memory::estimate(&input)?;
                *warning = Some(infeasible.reason);
                memory
            }
        };
        let options = step_options(config, context.model, &parallelism)?;
        let (cost, graph) = self.cost(context, &device, plan, &options)?;
        Ok(Pool {
            role: plan.role,
            replicas: plan.replicas,
            device,
            parallelism,
            memory,
            scheduler,
            cost,
            graph,
        })
    }

    /// The cost model of a pool, shared with every run that has the same.
    fn cost(
        &self,
        context: &PoolContext<'_>,
        device: &DeviceSpec,
        plan: &PoolPlan<'_>,
        options: &StepOptions,
    ) -> Result<PricedGraph, ResolveError> {
        let config = context.config;
        let parallelism = plan.parallelism;
        let gpus_per_node = config.gpus_per_node.unwrap_or(device.gpus_per_node);
        let overrides = LinkOverrides {
            nvlink_bandwidth_gbps: config.network.nvlink_bandwidth_gbps,
            rdma_bandwidth_gbps: config.network.rdma_bandwidth_gbps,
        };
        let files = config.aicb_dir.as_ref().map(|folder| (folder, plan.role));
        let key = format!(
            "{} {} {:?} {:?} {parallelism:?} {:?} {gpus_per_node} {overrides:?} {options:?} {files:?}",
            config.model,
            device.name,
            config.backend,
            context.engine.map(|engine| (&engine.name, &engine.version)),
            context.formats,
        );
        let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        costs.uses += 1;
        let uses = costs.uses;
        if let Some((used, priced)) = costs.kept.get_mut(&key) {
            *used = uses;
            return Ok(priced.clone());
        }
        let graph_cost = || {
            GraphCost::new(
                context.model,
                device,
                config.backend,
                context.engine,
                parallelism,
                context.formats,
                gpus_per_node,
                &overrides,
            )
        };
        let priced =
            price(config, plan.role, options, graph_cost).map_err(ResolveError::Infeasible)?;
        if costs.kept.len() >= COSTS_KEPT {
            let oldest = costs.kept.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                costs.kept.remove(&oldest);
            }
        }
        costs.kept.insert(key, (uses, priced.clone()));
        Ok(priced)
    }
}

/// The cost model of a pool in `role`: of the operator graph, or of AICB's files
/// where the run names a folder of them.
fn price(
    config: &RunConfig,
    role: PoolRole,
    options: &StepOptions,
    graph_cost: impl Fn() -> Result<GraphCost, String>,
) -> Result<PricedGraph, String> {
    let Some(folder) = &config.aicb_dir else {
        let cost = graph_cost()?.with_options(options);
        let graph = cost.graph().clone();
        return Ok((Arc::new(cost), graph));
    };
    if config.backend != BackendKind::Aicb {
        return Err("aicb_dir is for backend aicb; leave one of them out".into());
    }
    if *options != StepOptions::default() {
        return Err(
            "moe, two_batch_overlap and speculative need operators one by one; files of aicb_dir \
             hold whole layers"
                .into(),
        );
    }
    let phases: &[Phase] = match role {
        PoolRole::Prefill => &[Phase::Prefill],
        PoolRole::Decode => &[Phase::Decode],
        PoolRole::Mixed => &[Phase::Prefill, Phase::Decode],
    };
    let graph = graph_cost()?.graph().clone();
    Ok((Arc::new(AicbCost::new(folder, phases, graph_cost)?), graph))
}

/// What the run asks of steps beyond the plain ones.
fn step_options(
    config: &RunConfig,
    model: &ModelSpec,
    parallelism: &Parallelism,
) -> Result<StepOptions, ResolveError> {
    let speculation = match &config.speculative {
        Some(_) if model.mtp_layers == 0 => {
            return Err(ResolveError::Infeasible(format!(
                "speculative needs multi-token-prediction layers, and {} has none",
                model.name
            )));
        }
        Some(speculative) => Some(Speculation {
            draft_tokens: speculative.draft_tokens,
            acceptance: speculative.acceptance,
        }),
        None => None,
    };
    Ok(StepOptions {
        expert_load: expert_load(config, model, parallelism)?,
        two_batch_overlap: config.two_batch_overlap.unwrap_or(false),
        speculation,
    })
}

/// How tokens spread over the experts' GPUs; none: as the model's router does.
fn expert_load(
    config: &RunConfig,
    model: &ModelSpec,
    parallelism: &Parallelism,
) -> Result<Option<ExpertLoad>, ResolveError> {
    let redundant = config.moe.redundant_experts.unwrap_or(0);
    let Some(moe) = &model.moe else {
        return match config.moe == MoeConfig::default() {
            true => Ok(None),
            false => Err(ResolveError::Infeasible(format!(
                "moe is for models with experts, and {} has none",
                model.name
            ))),
        };
    };
    let uneven = |popularity: &[f64]| ExpertLoad::Uneven {
        factor: busiest_factor(popularity, parallelism.expert_parallel, redundant),
    };
    let usual = || match graph::usual_expert_load(moe) {
        ExpertLoad::PowerLaw { alpha } => alpha,
        ExpertLoad::Balanced | ExpertLoad::Uneven { .. } => 0.0,
    };
    let power_law = |alpha| power_law(alpha, moe.experts, moe.experts_per_token);
    Ok(match &config.moe.load {
        None if redundant == 0 => None,
        None => Some(uneven(&power_law(usual()))),
        Some(ExpertLoadConfig::Balanced) => Some(ExpertLoad::Balanced),
        Some(ExpertLoadConfig::PowerLaw { alpha }) if redundant == 0 => {
            Some(ExpertLoad::PowerLaw { alpha: *alpha })
        }
        Some(ExpertLoadConfig::PowerLaw { alpha }) => Some(uneven(&power_law(*alpha))),
        Some(ExpertLoadConfig::Histogram { tokens }) => {
            let sound = tokens.len() == moe.experts as usize
                && tokens
                    .iter()
                    .all(|count| count.is_finite() && *count >= 0.0)
                && tokens.iter().sum::<f64>() > 0.0;
            if !sound {
                return Err(ResolveError::Input(format!(
                    "moe.load.tokens: {} numbers; expected one per expert of {} ({}), 0 or more, \
                     not all 0",
                    tokens.len(),
                    model.name,
                    moe.experts
                )));
            }
            Some(uneven(tokens))
        }
    })
}

/// Hash of a catalog entry.
fn content_hash<T: serde::Serialize>(entry: &T) -> String {
    // Catalog entries are plain data: serialising them cannot fail.
    let json = serde_json::to_vec(entry).unwrap_or_default();
    blake3::hash(&json).to_hex()[..16].to_owned()
}

/// What all pools of a run share.
struct PoolContext<'a> {
    config: &'a RunConfig,
    model: &'a ModelSpec,
    engine: Option<&'a EngineSpec>,
    formats: Formats,
}

/// One pool before anything is looked up.
struct PoolPlan<'a> {
    role: PoolRole,
    replicas: u32,
    device: &'a str,
    parallelism: Parallelism,
    scheduler: Option<&'a ReplicaScheduler>,
}

/// The pools of a run, of one mixed role or two roles.
fn plan_pools(config: &RunConfig) -> Result<Vec<PoolPlan<'_>>, ResolveError> {
    match config.split_replicas().map_err(ResolveError::Infeasible)? {
        Replicas::Disaggregated { prefill, decode } => Ok(vec![
            PoolPlan::of(config, &config.prefill, PoolRole::Prefill, prefill),
            PoolPlan::of(config, &config.decode, PoolRole::Decode, decode),
        ]),
        Replicas::Mixed(replicas) => {
            let key = match (config.global_scheduler, &config.replica_scheduler) {
                (GlobalScheduler::SplitWise, _) => Some("global_scheduler"),
                (_, Some(ReplicaScheduler::SplitWise { .. })) => Some("replica_scheduler"),
                _ => None,
            };
            if let Some(key) = key {
                return Err(ResolveError::Infeasible(format!(
                    "{key} split_wise needs a prefill and a decode pool: pd_node_ratio below 1"
                )));
            }
            Ok(vec![PoolPlan {
                role: PoolRole::Mixed,
                replicas,
                device: &config.device,
                parallelism: config.parallelism(),
                scheduler: config.replica_scheduler.as_ref(),
            }])
        }
    }
}

impl<'a> PoolPlan<'a> {
    fn of(config: &'a RunConfig, pool: &'a PoolOverride, role: PoolRole, replicas: u32) -> Self {
        Self {
            role,
            replicas,
            device: pool.device.as_deref().unwrap_or(&config.device),
            parallelism: config.pool_parallelism(pool),
            scheduler: pool
                .replica_scheduler
                .as_ref()
                .or(config.replica_scheduler.as_ref()),
        }
    }
}

/// The scheduler as given, else as the engine has it, else the default.
fn scheduler_of(given: Option<&ReplicaScheduler>, engine: Option<&EngineSpec>) -> ReplicaScheduler {
    match (given, engine) {
        (Some(scheduler), _) => scheduler.clone(),
        (None, Some(engine)) => ReplicaScheduler::Sarathi {
            chunk_size: engine.max_tokens_in_batch,
            batch_size_cap: engine.batch_size_cap,
            watermark_blocks_fraction: 0.01,
        },
        (None, None) => ReplicaScheduler::default(),
    }
}

fn margin_fraction(config: &RunConfig, engine: Option<&EngineSpec>) -> f64 {
    config
        .memory
        .margin_fraction
        .or(engine.map(|engine| 1.0 - engine.gpu_memory_utilization))
        .unwrap_or(DEFAULT_MARGIN_FRACTION)
}

fn block_size(config: &RunConfig, engine: Option<&EngineSpec>) -> u32 {
    config
        .memory
        .block_size
        .or(engine.map(|engine| engine.block_size))
        .unwrap_or(DEFAULT_BLOCK_SIZE)
}

fn cluster_of(
    config: &RunConfig,
    model: &ModelSpec,
    formats: Formats,
    engine: Option<&EngineSpec>,
    pools: &[Pool],
) -> ClusterSpec {
    let block_size = block_size(config, engine);
    let specs = pools.iter().map(|pool| {
        let ranks = pool.parallelism.attention_data_parallel;
        let per_rank = config.memory.num_blocks.unwrap_or_else(|| {
            // Where memory was not enough and the run goes on all the same, the
            // largest batch of the longest prompts it allows.
            match pool.memory.blocks_per_rank {
                0 => {
                    u64::from(pool.scheduler.batch_size_cap())
                        * u64::from(model.max_position_tokens.div_ceil(block_size))
                }
                blocks => blocks,
            }
        });
        PoolSpec {
            role: pool.role,
            replicas: pool.replicas,
            attention_data_parallel: ranks,
            scheduler: pool.scheduler.clone(),
            kv_cache: KvCacheSpec {
                // No run holds more; keeps sums of blocks far from overflow.
                num_blocks: per_rank.saturating_mul(u64::from(ranks)).min(1 << 48),
                block_size,
            },
            cost: pool.cost.clone(),
        }
    });
    ClusterSpec {
        pools: specs.collect(),
        global_scheduler: config.global_scheduler,
        kv_transfer: kv_transfer_of(config, model, formats, pools),
        seed: config.seed.wrapping_add(u64::from(config.replication)),
        time_limit_s: config.time_limit_s,
        compat: Compat::None,
        max_request_tokens: None,
        earlier_random_draws: 0,
    }
}

/// The link between the pools: every GPU of a replica sends its share of the
/// cache over its own NIC.
fn kv_transfer_of(
    config: &RunConfig,
    model: &ModelSpec,
    formats: Formats,
    pools: &[Pool],
) -> Option<KvTransferSpec> {
    let [sender, receiver] = pools else {
        return None;
    };
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
        bytes_per_token: kv_bytes_per_token(model, formats.kv_cache),
        bytes_per_request: state_bytes_per_request(model),
        sender_bytes_per_s: bytes_per_s(sender),
        receiver_bytes_per_s: bytes_per_s(receiver),
        latency_s: NIC_LATENCY_S,
    })
}
