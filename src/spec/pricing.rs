//! What prices the steps of a pool: the backend of a configuration, made from
//! the catalog, from measured tables or from profiling files, and shared by all
//! configurations for which it is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::contents::Contents;
use super::entries::{Entries, Entry};
use super::problem::{Infeasible, InputError, Problem, ResolveError};
use super::{NetworkConfig, RunConfig, lock};
use crate::catalog::{DeviceSpec, EngineSpec, ModelSpec};
use crate::execution_time::aicb::{AicbCost, AicbCostError, Phase};
use crate::execution_time::formula::FormulaCost;
use crate::execution_time::silicon::SiliconDb;
use crate::execution_time::step_cost::{GraphCost, HostOverhead, HostedCost};
use crate::execution_time::vidur::{
    Estimator, FitLibrary, InputFiles, Keys, PredictorConfig, RecordedCost, TableCost, VidurCost,
    VidurDeployment, VidurError,
};
use crate::execution_time::{BackendKind, StepCost, StepOptions};
use crate::external::AllowPrograms;
use crate::memory::{Formats, Parallelism};
use crate::network::Collective;
use crate::network::flow::{FlowNetwork, SimaiConf, SimaiEnvironment, TransferPaths};
use crate::network::nccl::{Kernels, LinkGeneration, NcclModel};
use crate::network::topology::{self, Topology, TopologyError, TopologyPlan};
use crate::network::{Fabric, FabricModel, LinkOverrides, Placement, SimaiBinary};
use crate::simulator::Compat;
use crate::units::BYTES_PER_S_PER_GBPS;

/// Cost models kept at a time; neighbouring runs of a sweep share theirs.
const COSTS_KEPT: usize = 128;

/// What an installed SimAI is tried with: the least it simulates.
const PROBE_BYTES: u64 = 4096;

/// Where Vidur's option defaults look for profiles.
const DEFAULT_PROFILING_DIR: &str = "./data/profiling";

/// What prices a pool's steps.
#[derive(Debug, Clone)]
pub enum PoolCost {
    /// The model's operators, measured or estimated.
    Graph(Arc<GraphCost>),
    /// AICB's files.
    Aicb(Arc<AicbCost>),
    /// Fits of profiled operators.
    Vidur(Arc<VidurCost>),
    /// Operator times listed in a file.
    Table(Arc<TableCost>),
    /// Stage times of a recorded run.
    Recorded(Arc<RecordedCost>),
    /// A closed form.
    Formula(Arc<FormulaCost>),
    /// Any of them that knows no engine, with the host time of one.
    Hosted(Box<PoolCost>, HostOverhead),
}

impl PoolCost {
    /// Whether both are one and the same, not just alike.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Graph(one), Self::Graph(other)) => Arc::ptr_eq(one, other),
            (Self::Aicb(one), Self::Aicb(other)) => Arc::ptr_eq(one, other),
            (Self::Vidur(one), Self::Vidur(other)) => Arc::ptr_eq(one, other),
            (Self::Table(one), Self::Table(other)) => Arc::ptr_eq(one, other),
            (Self::Recorded(one), Self::Recorded(other)) => Arc::ptr_eq(one, other),
            (Self::Hosted(one, host), Self::Hosted(other, its_host)) => {
                one.is(other) && host == its_host
            }
            (Self::Formula(one), Self::Formula(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// For the simulator.
    pub fn step_cost(&self) -> Arc<dyn StepCost> {
        match self {
            Self::Graph(cost) => Arc::clone(cost) as _,
            Self::Aicb(cost) => Arc::clone(cost) as _,
            Self::Vidur(cost) => Arc::clone(cost) as _,
            Self::Table(cost) => Arc::clone(cost) as _,
            Self::Recorded(cost) => Arc::clone(cost) as _,
            Self::Formula(cost) => Arc::clone(cost) as _,
            Self::Hosted(cost, host) => Arc::new(HostedCost::new(cost.step_cost(), *host)),
        }
    }

    /// What a person should know of the prices so far, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Graph(cost) => cost.warnings(),
            Self::Aicb(cost) => cost.warnings(),
            Self::Vidur(cost) => cost.warnings(),
            Self::Table(cost) => cost.misses(),
            Self::Recorded(cost) => cost.warnings(),
            Self::Formula(_) => Vec::new(),
            Self::Hosted(cost, _) => cost.warnings(),
        }
    }
}

/// What determines a price besides the configuration.
pub(super) struct Pricing<'a> {
    pub config: &'a RunConfig,
    pub model: &'a Entry<ModelSpec>,
    pub device: &'a Entry<DeviceSpec>,
    pub engine: Option<&'a Entry<EngineSpec>>,
    pub formats: Formats,
    pub parallelism: Parallelism,
    pub block_size: u32,
    /// GPUs of a server.
    pub gpus_per_node: u32,
    /// Where the pool sits in the network of the run, if it names one.
    pub place: Option<(Placement, Arc<Topology>)>,
    /// Phases the pool is there for.
    pub phases: &'static [Phase],
    /// What steps do beyond the plain ones.
    pub options: StepOptions,
}

/// Cost models made so far. Shared by all threads.
#[derive(Default)]
pub(super) struct Costs {
    library: FitLibrary,
    kept: Mutex<Kept>,
    contents: Contents,
    /// Where results of an installed SimAI are kept.
    cache_dir: Option<PathBuf>,
    /// Whether an installed SimAI may be run.
    programs: Option<AllowPrograms>,
    /// Topologies read so far, by their content.
    topologies: Mutex<BTreeMap<String, Arc<Topology>>>,
    /// Ways between replicas found so far.
    paths: Mutex<BTreeMap<String, Arc<TransferPaths>>>,
}

/// What else may be used to make a cost model.
#[derive(Clone, Copy)]
struct Means<'a> {
    cache_dir: Option<&'a Path>,
    programs: Option<AllowPrograms>,
}

/// A cost model, once it is made. Locked while that is being done, so that only those
/// who need this very one wait.
type Slot = Arc<Mutex<Option<PoolCost>>>;

#[derive(Default)]
struct Kept {
    costs: BTreeMap<String, (u64, Slot)>,
    uses: u64,
    /// Of costs no longer kept.
    warnings: BTreeSet<String>,
}

impl Kept {
    /// The place of a cost model; the one unused for longest makes room for a new one.
    fn slot(&mut self, key: String) -> Slot {
        self.uses += 1;
        if let Some((used, slot)) = self.costs.get_mut(&key) {
            *used = self.uses;
            return Arc::clone(slot);
        }
        if self.costs.len() >= COSTS_KEPT {
            self.forget_oldest();
        }
        let slot = Slot::default();
        self.costs.insert(key, (self.uses, Arc::clone(&slot)));
        slot
    }

    fn forget_oldest(&mut self) {
        let idle = self
            .costs
            .iter()
            .filter(|(_, (_, slot))| Arc::strong_count(slot) == 1);
        let oldest = idle.min_by_key(|(_, (used, _))| *used);
        let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        if let Some((_, slot)) = self.costs.remove(&oldest) {
            let cost = lock(&slot);
            self.warnings
                .extend(cost.iter().flat_map(PoolCost::warnings));
        }
    }
}

impl Costs {
    pub(super) fn with_cache(cache_dir: Option<&Path>) -> Self {
        Self {
            library: cache_dir.map_or_else(FitLibrary::default, FitLibrary::below),
            cache_dir: cache_dir.map(Path::to_path_buf),
            ..Self::default()
        }
    }

    /// From now on prices may come from programs that a configuration names.
    pub(super) fn allow_programs(&mut self, leave: AllowPrograms) {
        self.programs = Some(leave);
    }

    /// The cost model of a pool, shared with every run that has the same.
    pub(super) fn get(&self, pricing: &Pricing<'_>) -> Result<PoolCost, ResolveError> {
        let slot = lock(&self.kept).slot(pricing.key(&self.contents));
        let mut cost = lock(&slot);
        if let Some(cost) = &*cost {
            return Ok(cost.clone());
        }
        let means = Means {
            cache_dir: self.cache_dir.as_deref(),
            programs: self.programs,
        };
        let made = pricing.make(&self.library, means)?;
        *cost = Some(made.clone());
        Ok(made)
    }

    /// The topology a run names.
    pub(super) fn topology(
        &self,
        config: &RunConfig,
    ) -> Result<Option<Arc<Topology>>, ResolveError> {
        let Some(file) = &config.network.topology else {
            return Ok(None);
        };
        let content = self.contents.hash(file);
        // Held while reading, so that threads that start together read once.
        let mut known = lock(&self.topologies);
        if let Some(topology) = content.as_ref().and_then(|content| known.get(content)) {
            return Ok(Some(Arc::clone(topology)));
        }
        let topology = Arc::new(Topology::load(file).map_err(of_topology)?);
        if let Some(content) = content {
            known.insert(content, Arc::clone(&topology));
        }
        Ok(Some(topology))
    }

    /// The ways of KV caches between pools that sit in a topology.
    pub(super) fn transfer_paths(
        &self,
        config: &RunConfig,
        topology: &Arc<Topology>,
        pools: Vec<(Placement, u32)>,
    ) -> Result<Arc<TransferPaths>, ResolveError> {
        let network = &config.network;
        let files = [&network.topology, &network.simai_conf].map(|file| self.contents.of(file));
        let swap = config.mixed_pool.is_some();
        let limit_gbps = network.kv_transfer_bandwidth_gbps;
        let key = format!("{files:?} {pools:?} {swap} {limit_gbps:?}");
        if let Some(paths) = lock(&self.paths).get(&key) {
            return Ok(Arc::clone(paths));
        }
        let conf = simai_conf(config)?;
        let flows = FlowNetwork::new(Arc::clone(topology), conf, SimaiEnvironment::default());
        let limit = limit_gbps.map(|gbps| gbps * BYTES_PER_S_PER_GBPS);
        let paths = TransferPaths::new(&flows, &pools, swap, limit);
        let paths = Arc::new(paths.map_err(Infeasible::Transfer)?);
        let mut known = lock(&self.paths);
        if known.len() >= COSTS_KEPT {
            known.clear();
        }
        known.insert(key, Arc::clone(&paths));
        Ok(paths)
    }

    /// What a person should know of all prices so far, in alphabetical order.
    pub(super) fn warnings(&self) -> Vec<String> {
        let kept = lock(&self.kept);
        let mut all = BTreeSet::new();
        for (_, slot) in kept.costs.values() {
            all.extend(lock(slot).iter().flat_map(PoolCost::warnings));
        }
        all.extend(kept.warnings.iter().cloned());
        all.extend(self.library.notes());
        all.into_iter().collect()
    }

    /// Content hashes of the files the prices of `config` come from, by the keys that
    /// name them; files that are not there are left out.
    pub(super) fn fingerprints(
        &self,
        config: &RunConfig,
        entries: &Entries,
    ) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |key: &str, hash: Option<String>| {
            found.extend(hash.map(|hash| (key.to_owned(), hash)));
        };
        for (key, file) in config.price_files() {
            add(key, file.and_then(|file| self.contents.hash(file)));
        }
        if let Some(folder) = &config.aicb_dir {
            add("aicb_dir", self.contents.hash_of_folder(folder));
        }
        if config.has_profiles() {
            let model = entries.model(&config.model);
            for (key, device) in config.device_names() {
                let (Ok(model), Ok(device)) = (&model, entries.device(device)) else {
                    continue;
                };
                let pool = key.strip_suffix("device").unwrap_or_default();
                for (profile, file) in config.profile_files(&model.name, &device.name).by_key() {
                    add(&format!("{pool}{profile}"), self.contents.hash(file));
                }
            }
        }
        found
    }
}

impl Contents {
    /// What stands for a file in a key: its content, or its name where it cannot be
    /// read, as then nothing is made.
    fn of(&self, file: &Option<PathBuf>) -> Option<String> {
        let file = file.as_ref()?;
        let content = self.hash(file).or_else(|| self.hash_of_folder(file));
        Some(content.unwrap_or_else(|| format!("{}: unreadable", file.display())))
    }
}

impl Pricing<'_> {
    fn links(&self) -> LinkOverrides {
        LinkOverrides {
            nvlink_bandwidth_gbps: self.config.network.nvlink_bandwidth_gbps,
            rdma_bandwidth_gbps: self.config.network.rdma_bandwidth_gbps,
        }
    }

    /// Equal for configurations whose cost model is the same: everything a price
    /// depends on, files and entries of the catalog by what they hold.
    fn key(&self, contents: &Contents) -> String {
        // A key of a configuration is named here, and either has a part in the prices
        // or not: a new one does not compile until that is said.
        let RunConfig {
            backend,
            aicb_dir,
            predictor,
            predictions_file,
            execution_times_file,
            formula,
            compat,
            network,
            // The entries they name are in the key, whatever they are called.
            model: _,
            device: _,
            engine: _,
            // What they come to in this pool is in the key.
            gpus_per_node: _,
            dtype: _,
            kv_cache_dtype: _,
            tensor_parallel: _,
            pipeline_parallel: _,
            expert_parallel: _,
            attention_data_parallel: _,
            expert_group: _,
            moe: _,
            two_batch_overlap: _,
            speculative: _,
            prefill: _,
            decode: _,
            mixed_pool: _,
            memory: _,
            // They say which profiles are used, whose contents are in the key.
            profiling_dir: _,
            network_device: _,
            // What GPUs cost changes no time.
            price_usd_per_gpu_hour: _,
            // They say what steps there are, not what one costs.
            replicas: _,
            pd_node_ratio: _,
            global_scheduler: _,
            replica_scheduler: _,
            memory_check: _,
            workload: _,
            qps: _,
            seed: _,
            replication: _,
            time_limit_s: _,
            max_model_len: _,
            measure: _,
            precision: _,
            max_requests: _,
        } = self.config;
        let NetworkConfig {
            nvlink_bandwidth_gbps,
            rdma_bandwidth_gbps,
            topology,
            topology_of,
            simai_conf,
            simai_binary,
            // Of transfers between pools, which are no part of a step.
            kv_transfer_bandwidth_gbps: _,
            kv_transfer_dtype: _,
            kv_transfer_overlap: _,
        } = network;
        let network_files = [topology, simai_conf, simai_binary].map(|file| contents.of(file));
        let mut key = format!(
            "{} {} {:?} {backend:?} {compat:?} {:?} {:?} {} {:?} {nvlink_bandwidth_gbps:?} \
             {rdma_bandwidth_gbps:?} {topology_of:?} {network_files:?} {:?}",
            self.model.hash,
            self.device.hash,
            self.engine.map(|engine| &engine.hash),
            self.formats,
            self.parallelism,
            self.gpus_per_node,
            self.options,
            self.place.as_ref().map(|(place, _)| place),
        );
        let mut add = |part: &dyn std::fmt::Debug| {
            // Writing to a text cannot fail.
            let _ = write!(key, " {part:?}");
        };
        if *backend == BackendKind::Aicb {
            add(&(contents.of(aicb_dir), self.phases));
        }
        if self.config.has_profiles() {
            let profiles = self.profile_files();
            let hash = |(_, file): (&str, &Path)| contents.hash(file);
            let hashes: Vec<_> = profiles.by_key().into_iter().map(hash).collect();
            // The profile of host times is looked up by the model's name.
            add(&(hashes, &self.model.name));
        }
        if !matches!(
            backend,
            BackendKind::Silicon | BackendKind::Aiconfigurator | BackendKind::Roofline
        ) {
            let files = [predictions_file, execution_times_file].map(|file| contents.of(file));
            add(&(predictor, self.block_size, files));
        }
        if *backend == BackendKind::Formula {
            add(formula);
        }
        key
    }

    fn profile_files(&self) -> InputFiles {
        self.config
            .profile_files(&self.model.name, &self.device.name)
    }

    fn engine_spec(&self) -> Option<&EngineSpec> {
        self.engine.map(|engine| &engine.spec)
    }

    /// What prices communication, where it is not the links of measured tables
    /// and formulas.
    fn fabric(&self, means: Means<'_>) -> Result<Option<Arc<Fabric>>, ResolveError> {
        let config = self.config;
        config.check_program().map_err(InputError::Settings)?;
        let predictor = config.predictor();
        let ranks = f64::from(self.parallelism.tensor_parallel);
        let launch_ms = predictor.nccl_cpu_launch_overhead_ms
            + predictor.nccl_cpu_skew_overhead_per_device_ms * ranks.powf(1.25);
        let (model, name, launch_ms) = match config.backend {
            BackendKind::SimaiAnalytical if config.compat.is_alibaba_cloud() => {
                let name = "SimAI's analytical mode as the original calls it";
                (FabricModel::AnalyticalAsCalled, name.to_owned(), launch_ms)
            }
            BackendKind::SimaiAnalytical => {
                let name = "NCCL-like model (DeepEP for experts)".to_owned();
                (FabricModel::Nccl(self.nccl()), name, launch_ms)
            }
            BackendKind::SimaiSimulation => {
                let (model, name) = self.simulated(means)?;
                (model, name, launch_ms)
            }
            _ if config.network.topology.is_some() => {
                let (model, name) = self.simulated(means)?;
                (model, name, 0.0)
            }
            _ => return Ok(None),
        };
        // Without a topology every replica has a network like any other.
        let (first_server, skipped_gpus) = match &self.place {
            Some((place, _)) => (place.first_server, place.skipped_gpus),
            None => (0, 0),
        };
        let placement = Placement {
            gpus_per_server: self.gpus_per_node,
            first_server,
            skipped_gpus,
            tensor_parallel: self.parallelism.tensor_parallel,
            pipeline_parallel: self.parallelism.pipeline_parallel,
            attention_data_parallel: self.parallelism.attention_data_parallel,
        };
        // Vidur's formula adds the host part of a collective itself.
        let launch_s = if self.profiled() {
            0.0
        } else {
            launch_ms * 1e-3
        };
        let fabric = Fabric::new(model, placement, name, launch_s);
        Ok(Some(Arc::new(fabric.map_err(Infeasible::Network)?)))
    }

    fn nccl(&self) -> NcclModel {
        let links = self.links();
        let nvlink_gbps = links
            .nvlink_bandwidth_gbps
            .unwrap_or(self.device.spec.nvlink_bandwidth_gbps);
        let nic_gbps = links
            .rdma_bandwidth_gbps
            .unwrap_or(self.device.spec.nic_bandwidth_gbps);
        let generation = LinkGeneration::of_gpu(&self.device.spec.name);
        NcclModel {
            generation: generation
                .unwrap_or_else(|| LinkGeneration::of_bandwidth(nvlink_gbps / 8.0)),
            gpus_per_server: self.gpus_per_node,
            nvlink_gb_per_s: nvlink_gbps / 8.0,
            nic_gb_per_s: nic_gbps / 8.0,
            kernels: Kernels::Nccl,
        }
    }

    /// Flows over a topology, or an installed SimAI, and its name.
    fn simulated(&self, means: Means<'_>) -> Result<(FabricModel, String), ResolveError> {
        let (flows, name) = self.flows()?;
        let network = &self.config.network;
        let Some(program) = &network.simai_binary else {
            return Ok((FabricModel::Flow(flows), name));
        };
        let needed = |file: &'_ Option<PathBuf>| file.clone().unwrap_or_default();
        let (topology, conf) = (needed(&network.topology), needed(&network.simai_conf));
        let cache = means
            .cache_dir
            .filter(|_| !self.config.predictor().no_cache);
        let binary = SimaiBinary::new(program, &topology, &conf, cache, means.programs);
        let binary = binary.map_err(InputError::Program)?;
        // A program that does not run at all is told of before anything is priced.
        let ranks = self.parallelism.tensor_parallel;
        if ranks > 1 && means.programs.is_some() {
            let probed = binary.time_us(Collective::AllReduce, PROBE_BYTES, ranks);
            probed.map_err(InputError::Program)?;
        }
        let name = format!("{} over {}", binary.program().display(), topology.display());
        Ok((FabricModel::SimaiBinary { binary, flows }, name))
    }

    /// The network of flows, and its name.
    fn flows(&self) -> Result<(FlowNetwork, String), ResolveError> {
        let network = &self.config.network;
        let conf = simai_conf(self.config)?;
        let loaded = match &self.place {
            Some((_, topology)) => Some(Arc::clone(topology)),
            // As the originals have it: groups begin at the first GPU.
            None => match &network.topology {
                Some(file) => Some(Arc::new(Topology::load(file).map_err(of_topology)?)),
                None => None,
            },
        };
        let topology = match loaded {
            Some(topology) => topology,
            None => {
                let servers = self.parallelism.gpus().div_ceil(self.gpus_per_node);
                let links = self.nccl();
                let plan = TopologyPlan {
                    gpus_per_server: self.gpus_per_node,
                    gpu_type: self.device.spec.name.to_uppercase(),
                    nvlink_bandwidth_gbps: links.nvlink_gb_per_s * 8.0,
                    nic_bandwidth_gbps: links.nic_gb_per_s * 8.0,
                    rails: self.gpus_per_node,
                    ..TopologyPlan::new(topology::Fabric::SpectrumX, servers * self.gpus_per_node)
                };
                let made = plan.generate();
                Arc::new(made.map_err(|error| Infeasible::Network(error.to_string()))?)
            }
        };
        let name = match &network.topology {
            Some(file) => format!("flows over {}", file.display()),
            None => "flows over a Spectrum-X fabric of the device's links".to_owned(),
        };
        Ok((
            FlowNetwork::new(topology, conf, SimaiEnvironment::default()),
            name,
        ))
    }

    /// Whether kernels are priced by Vidur's profiles.
    fn profiled(&self) -> bool {
        match self.config.backend {
            BackendKind::Vidur | BackendKind::Linear => true,
            BackendKind::SimaiAnalytical | BackendKind::SimaiSimulation => self
                .config
                .missing_kernel_profile(&self.model.name, &self.device.name)
                .is_none(),
            _ => false,
        }
    }

    fn make(&self, library: &FitLibrary, means: Means<'_>) -> Result<PoolCost, ResolveError> {
        let config = self.config;
        let operators = matches!(
            config.backend,
            BackendKind::Silicon
                | BackendKind::Aiconfigurator
                | BackendKind::Roofline
                | BackendKind::Aicb
                | BackendKind::SimaiAnalytical
                | BackendKind::SimaiSimulation
        );
        if let Some((key, reason)) = config.unusable_formula() {
            return Err(ResolveError::settings(key, format!("{key} {reason}")));
        }
        if config.aicb_dir.is_some() && config.backend != BackendKind::Aicb {
            let reason = "aicb_dir is for backend aicb: leave one of them out";
            return Err(ResolveError::settings("aicb_dir", reason));
        }
        if self.options != StepOptions::default() && (!operators || config.aicb_dir.is_some()) {
            return Err(ResolveError::settings(
                "backend",
                "moe, two_batch_overlap and speculative need operators one by one: backend \
                 silicon, aiconfigurator or roofline, or aicb without aicb_dir",
            ));
        }
        match config.backend {
            BackendKind::Silicon
            | BackendKind::Aiconfigurator
            | BackendKind::Roofline
            | BackendKind::Aicb => self.graph(means),
            BackendKind::Vidur | BackendKind::Linear => self.fitted(library, means),
            BackendKind::SimaiAnalytical | BackendKind::SimaiSimulation => {
                if self.profiled() {
                    self.fitted(library, means)
                } else {
                    self.graph(means)
                }
            }
            BackendKind::Table => self.table(),
            BackendKind::Recorded => self.recorded(),
            BackendKind::Formula => self.formula(),
        }
    }

    fn graph(&self, means: Means<'_>) -> Result<PoolCost, ResolveError> {
        let fabric = self.fabric(means)?;
        let kernels = match self.config.backend {
            BackendKind::SimaiAnalytical | BackendKind::SimaiSimulation => {
                let device = &self.device.spec;
                let device = device.kernels_of.as_ref().unwrap_or(&device.name);
                if SiliconDb::has_data(device) {
                    BackendKind::Silicon
                } else {
                    BackendKind::Roofline
                }
            }
            backend => backend,
        };
        let cost = || {
            let cost = GraphCost::new(
                &self.model.spec,
                &self.device.spec,
                kernels,
                self.engine_spec(),
                self.parallelism,
                self.formats,
                self.gpus_per_node,
                &self.links(),
            )?;
            Ok(match &fabric {
                Some(fabric) => cost.over(Arc::clone(fabric)),
                None => cost,
            })
        };
        let pool_cost = match &self.config.aicb_dir {
            None => cost().map(|cost| PoolCost::Graph(Arc::new(cost.with_options(&self.options)))),
            Some(folder) => {
                let cost = AicbCost::new(folder, self.phases, cost);
                let cost = cost.map_err(|error| match error {
                    AicbCostError::Files(error) => InputError::from(error).into(),
                    AicbCostError::Unpriced(reason) => {
                        ResolveError::from(Infeasible::Unpriced(reason))
                    }
                })?;
                return Ok(PoolCost::Aicb(Arc::new(cost)));
            }
        };
        pool_cost.map_err(|reason| Infeasible::Unpriced(reason).into())
    }

    fn fitted(&self, library: &FitLibrary, means: Means<'_>) -> Result<PoolCost, ResolveError> {
        let deployment = VidurDeployment {
            model: self.model.spec.clone(),
            model_name: self.model.name.clone(),
            parallelism: self.parallelism,
            block_size: self.block_size,
            gpus_per_node: self.gpus_per_node,
            keys: self.config.keys(),
            files: self.profile_files(),
            fabric: self.fabric(means)?,
        };
        let cost = VidurCost::fit(&deployment, &self.config.predictor(), library);
        let cost = cost.map_err(|error| unpriced("backend", error))?;
        Ok(self.hosted(PoolCost::Vidur(Arc::new(cost))))
    }

    fn table(&self) -> Result<PoolCost, ResolveError> {
        let key = "predictions_file";
        let path = needed(&self.config.predictions_file, "table", key)?;
        let cost = TableCost::from_predictions(
            path,
            &self.model.spec,
            self.parallelism,
            self.gpus_per_node,
            &self.config.predictor(),
        );
        let cost = cost.map_err(|error| unpriced(key, error))?;
        Ok(self.hosted(PoolCost::Table(Arc::new(cost))))
    }

    fn recorded(&self) -> Result<PoolCost, ResolveError> {
        let key = "execution_times_file";
        let path = needed(&self.config.execution_times_file, "recorded", key)?;
        let cost = RecordedCost::read(path, self.parallelism.pipeline_parallel);
        let cost = cost.map_err(|error| unpriced(key, error))?;
        Ok(self.hosted(PoolCost::Recorded(Arc::new(cost))))
    }

    fn formula(&self) -> Result<PoolCost, ResolveError> {
        let formula = needed(&self.config.formula, "formula", "formula")?;
        let cost = FormulaCost::new(*formula, self.parallelism.pipeline_parallel);
        Ok(self.hosted(PoolCost::Formula(Arc::new(cost))))
    }

    /// The same with the host time of the engine.
    fn hosted(&self, cost: PoolCost) -> PoolCost {
        let host = HostOverhead::of(self.engine_spec());
        if host.is_none() {
            return cost;
        }
        PoolCost::Hosted(Box::new(cost), host)
    }
}

/// SimAI's settings, as the run names them.
fn simai_conf(config: &RunConfig) -> Result<SimaiConf, ResolveError> {
    match &config.network.simai_conf {
        Some(file) => SimaiConf::load(file).map_err(|error| {
            let key = "network.simai_conf";
            InputError::Network { key, error }.into()
        }),
        None => Ok(SimaiConf::default()),
    }
}

/// What a backend cannot do without.
fn needed<'a, T>(
    value: &'a Option<T>,
    backend: &str,
    key: &'static str,
) -> Result<&'a T, ResolveError> {
    let missing = || ResolveError::input("backend", format!("{backend} needs `{key}`"));
    value.as_ref().ok_or_else(missing)
}

/// A topology that is not one.
fn of_topology(error: TopologyError) -> InputError {
    let key = "network.topology";
    InputError::Network { key, error }
}

/// A deployment that was not profiled cannot be priced, as one without measured
/// tables cannot: a result. A file that is not there, or damaged, is an error about
/// `key`.
fn unpriced(key: &'static str, error: VidurError) -> ResolveError {
    match error {
        VidurError::NoRows { .. } | VidurError::Unsupported(_) => {
            Infeasible::NotProfiled(error).into()
        }
        VidurError::MissingFile { .. } | VidurError::Io { .. } | VidurError::BadFile { .. } => {
            InputError::Profile { key, error }.into()
        }
    }
}

impl RunConfig {
    /// The first profile of kernels of `model` on `device` that is not there.
    pub fn missing_kernel_profile(&self, model: &str, device: &str) -> Option<PathBuf> {
        let files = self.profile_files(model, device);
        [files.compute, files.attention]
            .into_iter()
            .find(|file| !file.is_file())
    }

    /// Whether the program that prices the network, if one is named, is asked for prices
    /// and has the files it reads.
    pub(super) fn check_program(&self) -> Result<(), Problem> {
        let network = &self.network;
        let flows = match self.backend {
            BackendKind::SimaiSimulation => true,
            BackendKind::SimaiAnalytical => false,
            _ => network.topology.is_some(),
        };
        let reason = match network.simai_binary {
            None => return Ok(()),
            Some(_) if !flows => {
                "is for backend simai_simulation, and for others with network.topology"
            }
            Some(_) if network.topology.is_none() || network.simai_conf.is_none() => {
                "needs network.topology and network.simai_conf"
            }
            Some(_) => return Ok(()),
        };
        Err(Problem::about("network.simai_binary", reason))
    }

    /// The predictor's options, with the estimator the backend stands for.
    pub fn predictor(&self) -> PredictorConfig {
        let mut predictor = self.predictor.clone().unwrap_or_default();
        if self.backend == BackendKind::Linear {
            predictor.estimator = Estimator::LinearRegression;
        }
        predictor
    }

    /// What is wrong with the closed form of a step, by the key it is about.
    pub(super) fn unusable_formula(&self) -> Option<(&'static str, String)> {
        let (key, reason) = match (&self.formula, self.backend) {
            (None, BackendKind::Formula) => (
                "backend",
                "formula needs `formula`: a mapping of step_s, prefill_token_s, \
                 decode_request_s, decode_context_token_s",
            ),
            (Some(formula), BackendKind::Formula) if formula.is_nothing() => (
                "formula",
                "makes all steps take no time; allowed is at least one of step_s, \
                 prefill_token_s, decode_request_s, decode_context_token_s above 0",
            ),
            (None, _) | (Some(_), BackendKind::Formula) => return None,
            (Some(_), _) => (
                "formula",
                "is for backend formula: leave it out, or set `backend: formula`",
            ),
        };
        Some((key, reason.to_owned()))
    }

    /// What of a batch prices are looked up by.
    fn keys(&self) -> Keys {
        match self.compat {
            Compat::None => Keys::Exact,
            _ => Keys::Vidur,
        }
    }

    /// Whether its prices may come from Vidur's profiles.
    pub(super) fn has_profiles(&self) -> bool {
        matches!(
            self.backend,
            BackendKind::Vidur
                | BackendKind::Linear
                | BackendKind::SimaiAnalytical
                | BackendKind::SimaiSimulation
        )
    }

    /// Files that prices come from, by the keys that name them; those of Vidur's
    /// profiles and the folder of AICB's files are not among them.
    pub(super) fn price_files(&self) -> [(&'static str, Option<&Path>); 5] {
        let network = &self.network;
        let of = |backend: BackendKind| self.backend == backend;
        [
            ("network.topology", network.topology.as_deref()),
            ("network.simai_conf", network.simai_conf.as_deref()),
            ("network.simai_binary", network.simai_binary.as_deref()),
            (
                "predictions_file",
                self.predictions_file
                    .as_deref()
                    .filter(|_| of(BackendKind::Table)),
            ),
            (
                "execution_times_file",
                self.execution_times_file
                    .as_deref()
                    .filter(|_| of(BackendKind::Recorded)),
            ),
        ]
    }

    /// Where the profiles of `model` on `device` are.
    pub fn profile_files(&self, model: &str, device: &str) -> InputFiles {
        let mut predictor = self.predictor();
        if let Some(root) = &self.profiling_dir {
            for template in [
                &mut predictor.compute_input_file,
                &mut predictor.attention_input_file,
                &mut predictor.all_reduce_input_file,
                &mut predictor.send_recv_input_file,
                &mut predictor.cpu_overhead_input_file,
            ] {
                if let Some(rest) = template.strip_prefix(DEFAULT_PROFILING_DIR) {
                    *template = format!("{}{rest}", root.display());
                }
            }
        }
        let network = match &self.network_device {
            Some(network) => network.clone(),
            None => format!("{device}_dgx"),
        };
        predictor.input_files(device, model, &network)
    }
}

#[cfg(test)]
mod tests;
