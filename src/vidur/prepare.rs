//! From flags to what is simulated: configuration, requests, prices.

use std::path::{Path, PathBuf};

use super::metrics::{ClusterFacts, PoolFacts, TransferFacts};
use super::requests::{How, Requests, flag_of, max_request_tokens, requests};
use super::{Settings, measure};
use crate::catalog::{Catalog, CatalogError, DeviceSpec};
use crate::execution_time::BackendKind;
use crate::execution_time::aicb::{AicbError, AicbProgram, has_files};
use crate::execution_time::silicon::SiliconDb;
use crate::execution_time::vidur::{Estimator, PredictorConfig};
use crate::external::AllowPrograms;
use crate::memory::Formats;
use crate::number::{narrow, whole_i32, whole_u32};
use crate::simulator::{Compat, GlobalScheduler, ReplicaScheduler, RunSummary, SimulationTotals};
use crate::spec::{
    Assumptions, Deployment, EngineConfig, ExpertGroup, Infeasible, MemoryCheck, MemoryConfig,
    MoeConfig, NetworkConfig, Pool, PoolOverride, Replicas, ResolveError, Resolver, RunConfig,
    TopologyOf,
};
use crate::units::DType;
use crate::workload::limits::MOST_TOKENS;
use crate::workload::{Workload, WorkloadError};

/// What is asked for besides the original's flags.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whose behaviour.
    pub compat: Compat,
    /// Explicit requests, instead of the generators.
    pub requests_file: Option<PathBuf>,
    /// Operator times, instead of a predictor.
    pub predictions_file: Option<PathBuf>,
    /// Stage times of a recorded run, instead of a predictor.
    pub execution_times_file: Option<PathBuf>,
    /// Folder of profiles, instead of `./data/profiling`.
    pub profiling_dir: Option<PathBuf>,
    /// Refuse to put anything in the place of a file that is not there.
    pub strict_files: bool,
    /// Run an installed SimAI for collectives.
    pub use_simai_binary: bool,
    /// Have an installed AICB measure what its files lack.
    pub use_aicb: bool,
    /// How long one of these programs may take for one answer, seconds.
    pub program_time_limit_s: u32,
    /// What to do with a deployment that does not fit.
    pub memory_check: MemoryCheck,
}

const STRICT_FILES: &str = "--strict-files";
const NO_SUCH_FILE: &str = "no such file";

/// A simulation ready to run.
pub struct Prepared {
    /// The flags, with the predictor that is used.
    pub settings: Settings,
    /// The configuration, with the requests' generators and the backend used.
    pub config: RunConfig,
    /// The deployment it describes.
    pub deployment: Deployment,
    /// The requests.
    pub workload: Workload,
    /// What a person should know: what was put in the place of missing files, and
    /// flags without effect.
    pub notes: Vec<String>,
    /// That requests exceed the model's positions, if so.
    too_long: Option<String>,
    resolver: Resolver,
}

impl Prepared {
    /// What the outputs need to know of the cluster.
    pub fn facts(&self) -> ClusterFacts {
        let deployment = &self.deployment;
        let pool = |pool: &Pool| PoolFacts {
            replicas: pool.replicas,
            model: deployment.model.clone(),
            parallelism: pool.parallelism,
            peak_tflops: peak_tflops(&pool.device, deployment.formats, self.config.compat),
            cost: pool.step_cost(),
        };
        ClusterFacts {
            compat: self.config.compat,
            pools: deployment.pools.iter().map(pool).collect(),
            requests: self.workload.requests.len(),
            transfer: deployment
                .cluster
                .kv_transfer
                .map(|transfer| TransferFacts {
                    compat: self.config.compat,
                    dtype: (self.config.network.kv_transfer_dtype)
                        .unwrap_or(deployment.formats.kv_cache),
                    alone_bytes_per_s: transfer
                        .sender_bytes_per_s
                        .min(transfer.receiver_bytes_per_s),
                }),
        }
    }

    /// What a person should know of the requests, and of the prices used so far.
    pub fn warnings(&self) -> Vec<String> {
        let requests = self.too_long.iter().cloned();
        requests.chain(self.price_warnings()).collect()
    }

    /// What a person should know of the prices used so far.
    pub fn price_warnings(&self) -> Vec<String> {
        self.resolver.warnings()
    }

    /// What the figures of the simulation rest on besides measurements; none where
    /// finding it out would run a program.
    pub fn assumptions(
        &self,
        totals: &SimulationTotals,
        summary: &RunSummary,
    ) -> Option<Assumptions> {
        let runs_a_program = self.config.network.simai_binary.is_some();
        (!runs_a_program).then(|| {
            let deployment = &self.deployment;
            self.resolver
                .assumptions(deployment, &totals.pools, summary)
        })
    }
}

/// Why a simulation cannot be prepared; messages are complete.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A flag is not allowed, or not beside others.
    #[error("{0}")]
    Flags(String),
    /// The requests cannot be made.
    #[error("{}", of_flag(flag.as_deref(), error))]
    Requests {
        /// The flag to be changed, without dashes, where it is one.
        flag: Option<String>,
        /// What is wrong.
        error: WorkloadError,
    },
    /// A file is not there, and nothing may stand for it.
    #[error("{}: {what}{}", path.display(), asked_by.map(|flag| format!(" (and {flag})")).unwrap_or_default())]
    MissingFile {
        /// The file or folder.
        path: PathBuf,
        /// What is missing there.
        what: &'static str,
        /// The flag that insists on it.
        asked_by: Option<&'static str>,
    },
    /// A model or device is not known.
    #[error(transparent)]
    Name(#[from] CatalogError),
    /// The deployment cannot exist or be priced.
    #[error(transparent)]
    Deployment(#[from] ResolveError),
    /// An installed AICB does not do what it should.
    #[error("{error} (and --use-aicb){}", if *is_absent { INSTALL_AICB } else { "" })]
    Aicb {
        /// What is wrong.
        error: AicbError,
        /// Whether there is none.
        is_absent: bool,
    },
}

const INSTALL_AICB: &str = "; install AICB there, or name its parent folder with \
                            --random_forrest_execution_time_predictor_config_simai_dir";

/// A message about requests with the name of the flag, where it is about one.
fn of_flag(flag: Option<&str>, error: &WorkloadError) -> String {
    match flag {
        Some(flag) => format!("--{flag}: {}", error.reason()),
        None => error.reason(),
    }
}

/// Prepares the simulation `settings` describe.
///
/// # Errors
/// If a name is unknown, a file is missing (and nothing stands for it) or
/// damaged, or the deployment does not fit.
pub fn prepare(settings: &Settings, options: &Options) -> Result<Prepared, PrepareError> {
    let mut settings = with_estimator(settings, options.compat);
    let mut notes: Vec<String> = settings
        .dead()
        .into_iter()
        .map(|(flag, why)| format!("--{flag} has no effect: {why}"))
        .collect();
    notes.extend(split_pools(&mut settings, options.compat));
    let settings = &settings;
    let how = How {
        compat: options.compat,
        requests_file: options.requests_file.as_deref(),
        strict_files: options.strict_files,
    };
    check_limits(settings, options.compat)?;
    let requests = requests(settings, &how).map_err(|error| PrepareError::Requests {
        flag: error.key.and_then(|key| flag_of(key, settings)),
        error,
    })?;
    notes.extend(requests.notes.iter().cloned());
    let mut config = run_config(settings, options, &requests);
    choose_backend(&mut config, settings, options, &mut notes)?;
    let aicb = installed_aicb(config.backend, settings, options)?;
    if options.compat.is_none() {
        spread_experts(&mut config, settings, &mut notes)?;
    }
    let cache_dir = settings.text("metrics_config_cache_dir");
    let mut resolver = Resolver::with_cache(Path::new(cache_dir));
    if options.use_simai_binary {
        resolver =
            resolver.allowing_programs(AllowPrograms::by_option(options.program_time_limit_s));
    }
    let mut deployment = match resolver.resolve(&config) {
        Err(ResolveError::Input(missing))
            if missing.is_missing_profile() && !options.strict_files =>
        {
            let device = device(&config)?;
            config.backend = stand_in(&device);
            notes.push(match config.backend {
                BackendKind::Silicon => format!(
                    "{missing}; prices are this program's measured operators for {} \
                     (backend silicon)",
                    device.name
                ),
                _ => format!(
                    "{missing}, nor are operators measured for {}; prices are \
                     estimated from its data sheet (backend roofline)",
                    device.name
                ),
            });
            resolver.resolve(&config)
        }
        other => other,
    }?;
    if let Some(aicb) = aicb {
        notes.push(measure::with_aicb(&aicb, &deployment, &requests.workload)?);
        config.aicb_dir = Some(aicb.folder());
        deployment = resolver.resolve(&config)?;
    }
    let too_long = ignore_longest_sequence(&mut deployment, &requests.workload);
    if !options.compat.is_none() {
        deployment.cluster.seed = requests.python_seed;
        deployment.cluster.earlier_random_draws = requests.python_draws;
    }
    Ok(Prepared {
        settings: settings.clone(),
        config,
        deployment,
        workload: requests.workload,
        notes,
        too_long,
        resolver,
    })
}

/// Serves requests of any length, as the originals do, and says how many an engine would
/// not.
fn ignore_longest_sequence(deployment: &mut Deployment, workload: &Workload) -> Option<String> {
    let longest = deployment.cluster.max_model_len.take()?;
    let (refused, capped) = workload.beyond(longest);
    (refused + capped > 0).then(|| {
        format!(
            "{} of {} requests are longer than the {longest} positions of {}: served all the \
             same, as the original does; an engine would refuse {refused} of them and cut the \
             output of {capped} short",
            refused + capped,
            workload.requests.len(),
            deployment.model.name
        )
    })
}

/// Most replicas of a run: each has files of its own.
const MOST_REPLICAS: u32 = 100_000;

/// What no flag's own range can tell.
fn check_limits(settings: &Settings, compat: Compat) -> Result<(), PrepareError> {
    let refuse = |text: String| Err(PrepareError::Flags(text));
    let replicas = settings.whole("cluster_config_num_replicas");
    if replicas > MOST_REPLICAS {
        return refuse(format!(
            "--cluster_config_num_replicas is {replicas}; allowed is 1 to {MOST_REPLICAS}"
        ));
    }
    let max_tokens = max_request_tokens(settings);
    if max_tokens > MOST_TOKENS {
        return refuse(format!(
            "max_tokens of the length generator is {max_tokens}; allowed is 2 to {MOST_TOKENS}"
        ));
    }
    let batch_index = |which: &str| {
        let value = settings.get(&format!("metrics_config_{which}_batch_index"));
        value.as_u64()
    };
    if let (Some(least), Some(most)) = (batch_index("min"), batch_index("max"))
        && least > most
    {
        return refuse(format!(
            "--metrics_config_min_batch_index {least} is above --metrics_config_max_batch_index \
             {most}: no batch would be kept"
        ));
    }
    if !compat.is_none() && settings.text("replica_scheduler_config_type") == "lightllm" {
        let wanted = [
            ("lightllm_scheduler_config_block_size", "counts tokens"),
            ("replica_config_num_pipeline_stages", "knows no pipeline"),
        ];
        for (flag, why) in wanted {
            let value = settings.whole(flag);
            if value != 1 {
                return refuse(format!(
                    "--{flag} is {value}: the original's LightLLM {why} and stops with an \
                     AssertionError; give 1, or leave compatibility off"
                ));
            }
        }
    }
    Ok(())
}

/// Peak of one GPU; with compatibility the figures of the original's devices.
fn peak_tflops(device: &DeviceSpec, formats: Formats, compat: Compat) -> f64 {
    match (compat, device.name.as_str()) {
        (Compat::Vidur, "a40") => 150.0,
        (Compat::Vidur, "a100") => 312.0,
        (Compat::Vidur, "h100") => 1000.0,
        _ => device.peak_flops(formats.weights) / 1e12,
    }
}

/// The first profile of kernels that is not there.
fn missing_kernel_profile(config: &RunConfig) -> Result<Option<PathBuf>, PrepareError> {
    let catalog = Catalog::builtin();
    let names = catalog
        .model_name(&config.model)
        .and_then(|model| Ok((model, catalog.device_name(&config.device)?)));
    let (model, device) = names?;
    Ok(config.missing_kernel_profile(&model, &device))
}

fn device(config: &RunConfig) -> Result<DeviceSpec, PrepareError> {
    Ok(Catalog::builtin().device(&config.device)?)
}

/// What prices a device whose profile is not there.
fn stand_in(device: &DeviceSpec) -> BackendKind {
    let kernels = device.kernels_of.as_ref().unwrap_or(&device.name);
    if SiliconDb::has_data(kernels) {
        BackendKind::Silicon
    } else {
        BackendKind::Roofline
    }
}

fn run_config(settings: &Settings, options: &Options, requests: &Requests) -> RunConfig {
    let scheduler = Scheduler::of(settings);
    let time_limit_s = settings.number("time_limit");
    RunConfig {
        measure: None,
        precision: None,
        max_requests: None,
        model: settings.text("replica_config_model_name").to_owned(),
        device: settings.text("replica_config_device").to_owned(),
        backend: BackendKind::Vidur,
        profiling_dir: options.profiling_dir.clone(),
        network_device: Some(settings.text("replica_config_network_device").to_owned()),
        predictor: Some(predictor(settings)),
        predictions_file: options.predictions_file.clone(),
        execution_times_file: options.execution_times_file.clone(),
        formula: None,
        aicb_dir: None,
        engine: EngineConfig::default(),
        gpus_per_node: gpus_per_node(settings.text("replica_config_network_device")),
        price_usd_per_gpu_hour: None,
        dtype: None,
        kv_cache_dtype: None,
        tensor_parallel: settings.whole("replica_config_tensor_parallel_size"),
        pipeline_parallel: settings.whole("replica_config_num_pipeline_stages"),
        expert_parallel: 1,
        attention_data_parallel: None,
        expert_group: None,
        moe: MoeConfig::default(),
        two_batch_overlap: None,
        speculative: None,
        replicas: settings.whole("cluster_config_num_replicas"),
        pd_node_ratio: settings.number(NODE_RATIO),
        prefill: prefill_pool(settings, options.compat),
        decode: pool(settings, "decode", options.compat),
        network: network(settings, options.compat),
        global_scheduler: match settings.text("global_scheduler_config_type") {
            "random" => GlobalScheduler::Random,
            "lor" => GlobalScheduler::Lor,
            "split_wise" => GlobalScheduler::SplitWise,
            _ => GlobalScheduler::RoundRobin,
        },
        mixed_pool: None,
        replica_scheduler: Some(scheduler.policy),
        memory: MemoryConfig {
            margin_fraction: Some(settings.number("replica_config_memory_margin_fraction")),
            block_size: Some(scheduler.block_size),
            num_blocks: scheduler.num_blocks,
            max_request_tokens: Some(max_request_tokens(settings)),
        },
        memory_check: options.memory_check,
        max_model_len: None,
        workload: requests.config.clone(),
        qps: requests.qps,
        seed: u64::from(settings.whole("seed")),
        replication: 0,
        time_limit_s: (time_limit_s > 0.0).then_some(time_limit_s),
        compat: options.compat,
    }
}

/// Sets where prices come from.
fn choose_backend(
    config: &mut RunConfig,
    settings: &Settings,
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<(), PrepareError> {
    let option = |name: &str| predictor_option(settings, name);
    config.backend = match (&options.execution_times_file, &options.predictions_file) {
        (Some(_), _) => BackendKind::Recorded,
        (None, Some(_)) => BackendKind::Table,
        (None, None) => match option("backend") {
            "aicb" => BackendKind::Aicb,
            "simai_analytical" => BackendKind::SimaiAnalytical,
            "simai_simulation" => BackendKind::SimaiSimulation,
            _ => BackendKind::Vidur,
        },
    };
    let simai = matches!(
        config.backend,
        BackendKind::SimaiAnalytical | BackendKind::SimaiSimulation
    );
    if simai && let Some(missing) = missing_kernel_profile(config)? {
        if options.strict_files {
            return Err(PrepareError::MissingFile {
                path: missing,
                what: NO_SUCH_FILE,
                asked_by: Some(STRICT_FILES),
            });
        }
        notes.push(format!(
            "{}: no such file; prices of kernels are this program's measured operators for {}",
            missing.display(),
            config.device
        ));
    }
    if options.use_simai_binary {
        config.network.simai_binary = Some(simai_binary(config.backend, option("simai_dir"))?);
    }
    if config.backend == BackendKind::SimaiSimulation {
        // The program reads both; nothing stands for them.
        let strict = match options {
            _ if options.use_simai_binary => Some("--use-simai-binary"),
            _ if options.strict_files => Some(STRICT_FILES),
            _ => None,
        };
        let topology = option("simai_simulation_topo");
        let conf = option("simai_simulation_config");
        config.network.topology = file_or_note(topology, strict, notes, || {
            "a Spectrum-X fabric of the device's links stands for it; `vidur-sweep topology \
             generate` writes others"
        })?;
        // As the originals have it.
        config.network.topology_of = config
            .network
            .topology
            .as_ref()
            .map(|_| TopologyOf::Replica);
        config.network.simai_conf =
            file_or_note(conf, strict, notes, || "SimAI's own figures stand for it")?;
    }
    if config.backend == BackendKind::SimaiAnalytical && options.compat.is_alibaba_cloud() {
        notes.push(
            "as the original calls it, SimAI's analytical mode makes every all-reduce of 1 MiB or \
             more free"
                .to_owned(),
        );
    }
    if config.backend == BackendKind::Aicb {
        // With --use-aicb the folder is named once the files are in it.
        if !options.use_aicb {
            config.aicb_dir = aicb_files(settings, options, notes)?;
        }
        if !options.compat.is_none() {
            notes.push(
                "AICB's times are read right here; the original's, a thousand times shorter, come \
                 with --execution_times_file"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// The folder of AICB's files if there are some; if not, says what prices instead.
fn aicb_files(
    settings: &Settings,
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<Option<PathBuf>, PrepareError> {
    let simai_dir = Path::new(predictor_option(settings, "simai_dir"));
    let folder = simai_dir.join("aicb/results/workload");
    if has_files(&folder) {
        return Ok(Some(folder));
    }
    let what = "no AICB files there";
    if options.strict_files {
        return Err(PrepareError::MissingFile {
            path: folder,
            what,
            asked_by: Some(STRICT_FILES),
        });
    }
    notes.push(format!(
        "{}: {what}; operators are priced by this program's measured tables and fitted kernel \
         efficiencies",
        folder.display()
    ));
    Ok(None)
}

/// A flag of the predictor that has the backends' options.
fn predictor_option<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.text(&format!(
        "random_forrest_execution_time_predictor_config_{name}"
    ))
}

/// The AICB of a SimAI checkout, if it is to be used.
fn installed_aicb(
    backend: BackendKind,
    settings: &Settings,
    options: &Options,
) -> Result<Option<AicbProgram>, PrepareError> {
    if !options.use_aicb {
        return Ok(None);
    }
    if backend != BackendKind::Aicb {
        return Err(PrepareError::Flags(
            "--use-aicb is for \
             --random_forrest_execution_time_predictor_config_backend aicb"
                .to_owned(),
        ));
    }
    let checkout = Path::new(predictor_option(settings, "simai_dir")).join("aicb");
    let program = AicbProgram::at(
        &checkout,
        AllowPrograms::by_option(options.program_time_limit_s),
    )
    .map_err(|error| PrepareError::Aicb {
        error,
        is_absent: true,
    })?;
    Ok(Some(program))
}

/// The simulator of a SimAI checkout.
fn simai_binary(backend: BackendKind, simai_dir: &str) -> Result<PathBuf, PrepareError> {
    if backend != BackendKind::SimaiSimulation {
        return Err(PrepareError::Flags(
            "--use-simai-binary is for \
             --random_forrest_execution_time_predictor_config_backend simai_simulation"
                .to_owned(),
        ));
    }
    let binary = Path::new(simai_dir).join("bin/SimAI_simulator");
    if binary.is_file() {
        return Ok(binary);
    }
    Err(PrepareError::Flags(format!(
        "{}: no such file (and --use-simai-binary); build SimAI, or name its folder with \
         --random_forrest_execution_time_predictor_config_simai_dir",
        binary.display()
    )))
}

/// A file if it is there; if not, says what stands for it.
fn file_or_note(
    file: &str,
    strict: Option<&'static str>,
    notes: &mut Vec<String>,
    instead: impl FnOnce() -> &'static str,
) -> Result<Option<PathBuf>, PrepareError> {
    let path = PathBuf::from(file);
    if path.is_file() {
        return Ok(Some(path));
    }
    if let Some(flag) = strict {
        return Err(PrepareError::MissingFile {
            path,
            what: NO_SUCH_FILE,
            asked_by: Some(flag),
        });
    }
    notes.push(format!("{file}: no such file; {}", instead()));
    Ok(None)
}

/// Spreads experts over the replicas of each pool, as Vidur-AlibabaCloud means
/// its expert parallelism: a replica is one attention rank of it. Its GPUs must
/// divide the experts.
fn spread_experts(
    config: &mut RunConfig,
    settings: &Settings,
    notes: &mut Vec<String>,
) -> Result<(), PrepareError> {
    let model = Catalog::builtin().model(&config.model)?;
    let Some(moe) = &model.moe else {
        return Ok(());
    };
    if settings.text("replica_config_pd_p2p_comm_dtype") == "fp8" {
        config.kv_cache_dtype = Some(DType::Fp8);
        if model.dtype.bytes() > 1.0 {
            config.dtype = Some(DType::Fp8);
            notes.push("--replica_config_pd_p2p_comm_dtype fp8: weights are fp8, too".to_owned());
        }
    }
    config.expert_group = Some(ExpertGroup::Pool);
    let flag = "replica_config_expert_model_parallel_size";
    let given = settings.whole(flag);
    let mut spread = |role: &str, tensor_parallel: u32, replicas: u32| {
        let gpus = tensor_parallel * replicas;
        let wanted = if given > 1 { given } else { gpus };
        let usable = |ways: &u32| {
            moe.experts.is_multiple_of(*ways)
                && (ways.is_multiple_of(tensor_parallel) || tensor_parallel.is_multiple_of(*ways))
        };
        let ways = (1..=wanted.min(gpus)).rev().find(usable).unwrap_or(1);
        if ways != wanted {
            notes.push(format!(
                "experts of the {role} pool are spread {ways} ways: it has {gpus} GPUs a stage for \
                 {} experts, {wanted} were asked for",
                moe.experts
            ));
        }
        ways
    };
    let replicas = config.split_replicas();
    match replicas.map_err(|problem| ResolveError::from(Infeasible::Settings(problem)))? {
        Replicas::Mixed(replicas) => {
            config.expert_parallel = spread("mixed", config.tensor_parallel, replicas);
        }
        Replicas::Disaggregated { prefill, decode } => {
            let tensor_parallel =
                |pool: &PoolOverride| pool.tensor_parallel.unwrap_or(config.tensor_parallel);
            let ways = [
                spread("prefill", tensor_parallel(&config.prefill), prefill),
                spread("decode", tensor_parallel(&config.decode), decode),
            ];
            config.prefill.expert_parallel = Some(ways[0]);
            config.decode.expert_parallel = Some(ways[1]);
        }
    }
    Ok(())
}

/// How a pool differs. Vidur-AlibabaCloud schedules and prices both alike.
fn pool(settings: &Settings, phase: &str, compat: Compat) -> PoolOverride {
    let optional = |name: &str| {
        let value = settings.get(&format!("replica_config_{phase}_{name}"));
        value
            .as_u64()
            .map(|value| narrow::<u32, _>(value.min(u64::from(u32::MAX))))
    };
    if !compat.is_none() {
        return PoolOverride::default();
    }
    PoolOverride {
        tensor_parallel: optional("tensor_parallel_size"),
        pipeline_parallel: optional("num_pipeline_stages"),
        ..PoolOverride::default()
    }
}

fn prefill_pool(settings: &Settings, compat: Compat) -> PoolOverride {
    let ratio = settings.number(NODE_RATIO);
    let share = f64::from(settings.whole("cluster_config_num_replicas")) * ratio;
    let replicas = match settings.get("replica_config_num_prefill_replicas").as_u64() {
        // A replica prefills if its number is below the share.
        _ if compat.is_alibaba_cloud() => (ratio < 1.0).then(|| whole_u32((share - 1e-12).ceil())),
        given => given.map(|given| narrow::<u32, _>(given.min(u64::from(u32::MAX)))),
    };
    PoolOverride {
        replicas,
        ..pool(settings, "prefill", compat)
    }
}

fn network(settings: &Settings, compat: Compat) -> NetworkConfig {
    let given = |flag: &str| {
        let wanted = compat.is_none() && settings.is_given(flag);
        wanted.then(|| settings.number(flag))
    };
    NetworkConfig {
        nvlink_bandwidth_gbps: given("replica_config_nvlink_bandwidth"),
        rdma_bandwidth_gbps: given("replica_config_rdma_bandwidth"),
        kv_transfer_bandwidth_gbps: Some(settings.number("replica_config_pd_p2p_comm_bandwidth")),
        kv_transfer_dtype: Some(match settings.text("replica_config_pd_p2p_comm_dtype") {
            "fp8" => DType::Fp8,
            "int8" => DType::Int8,
            "bfloat16" => DType::Bfloat16,
            "float32" | "int32" => DType::Float32,
            // Two bytes: float16, int16.
            _ => DType::Float16,
        }),
        topology: None,
        topology_of: None,
        simai_conf: None,
        simai_binary: None,
        kv_transfer_overlap: None,
    }
}

/// GPUs of the nodes the original knows.
fn gpus_per_node(network_device: &str) -> Option<u32> {
    match network_device {
        "a100_pairwise_nvlink" | "h100_pairwise_nvlink" => Some(4),
        "a40_pairwise_nvlink" | "a100_dgx" | "h100_dgx" | "h800_dgx" | "h20_dgx" => Some(8),
        _ => None,
    }
}

/// The chosen replica scheduler and its blocks.
struct Scheduler {
    policy: ReplicaScheduler,
    block_size: u32,
    num_blocks: Option<u64>,
}

impl Scheduler {
    fn of(settings: &Settings) -> Self {
        let kind = settings.text("replica_scheduler_config_type");
        let prefix = match kind {
            "split_wise" => "split_wise_replica",
            kind => kind,
        };
        let name = |name: &str| format!("{prefix}_scheduler_config_{name}");
        let batch_size_cap = settings.whole(&name("batch_size_cap"));
        let watermark_blocks_fraction = settings.number(&name("watermark_blocks_fraction"));
        let max_tokens_in_batch = settings.whole(&name("max_tokens_in_batch"));
        let policy = match kind {
            "vllm" => ReplicaScheduler::Vllm {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            },
            "split_wise" => ReplicaScheduler::SplitWise {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            },
            "orca" => ReplicaScheduler::Orca { batch_size_cap },
            "faster_transformer" => ReplicaScheduler::FasterTransformer { batch_size_cap },
            "lightllm" => ReplicaScheduler::Lightllm {
                max_tokens_in_batch,
                batch_size_cap,
                max_waiting_iters: settings.whole(&name("max_waiting_iters")),
            },
            _ => ReplicaScheduler::Sarathi {
                chunk_size: settings.whole(&name("chunk_size")),
                batch_size_cap,
                watermark_blocks_fraction,
            },
        };
        Self {
            policy,
            block_size: settings.whole(&name("block_size")),
            num_blocks: settings.get(&name("num_blocks")).as_u64(),
        }
    }
}

const PREDICTOR_TYPE: &str = "execution_time_predictor_config_type";

/// Interpolation in the place of the original's default predictor, unless the
/// original is wanted.
fn with_estimator(settings: &Settings, compat: Compat) -> Settings {
    let mut settings = settings.clone();
    if !settings.is_given(PREDICTOR_TYPE) && compat.is_none() {
        settings.set(PREDICTOR_TYPE, "interpolation".into());
    }
    settings
}

const NODE_RATIO: &str = "replica_config_pd_node_ratio";

/// Gives half of the replicas to prompts where `split_wise` is chosen and nobody says how
/// many prefill: the default of Vidur-AlibabaCloud's documentation and of its version 1.5.
/// Later code has 1, and stops with it. Gives a note of it.
fn split_pools(settings: &mut Settings, compat: Compat) -> Option<String> {
    let types = [
        "global_scheduler_config_type",
        "replica_scheduler_config_type",
    ];
    let chosen = types.iter().any(|flag| settings.text(flag) == "split_wise");
    let applies = matches!(compat, Compat::None | Compat::VidurAlibabaCloud15);
    if !chosen || !applies || settings.is_stated(NODE_RATIO) {
        return None;
    }
    settings.set(NODE_RATIO, 0.5.into());
    Some(format!(
        "--{NODE_RATIO} is not given: 0.5 with split_wise, half of the replicas only prefill"
    ))
}

/// Options of the chosen predictor.
fn predictor(settings: &Settings) -> PredictorConfig {
    let (prefix, estimator) = match settings.text(PREDICTOR_TYPE) {
        "linear_regression" => ("linear_regression", Estimator::LinearRegression),
        "interpolation" => ("random_forrest", Estimator::Interpolation),
        _ => ("random_forrest", Estimator::RandomForest),
    };
    let name = |name: &str| format!("{prefix}_execution_time_predictor_config_{name}");
    let text = |flag: &str| settings.text(&name(flag)).to_owned();
    let whole = |flag: &str| settings.whole(&name(flag));
    let number = |flag: &str| settings.number(&name(flag));
    let is = |flag: &str| *settings.get(&name(flag)) == true;
    let wholes = |flag: &str, default: Vec<u32>| {
        let items = settings.get(&name(flag)).as_array();
        items.map_or(default, |items| {
            let whole = |item: &serde_json::Value| item.as_u64().unwrap_or(u64::MAX);
            items
                .iter()
                .map(|item| narrow::<u32, _>(whole(item).min(u64::from(u32::MAX))))
                .collect()
        })
    };
    let bools = |flag: &str, default: Vec<bool>| {
        let items = settings.get(&name(flag)).as_array();
        items.map_or(default, |items| {
            items.iter().map(|item| *item == true).collect()
        })
    };
    let defaults = PredictorConfig::default();
    PredictorConfig {
        estimator,
        compute_input_file: text("compute_input_file"),
        attention_input_file: text("attention_input_file"),
        all_reduce_input_file: text("all_reduce_input_file"),
        send_recv_input_file: text("send_recv_input_file"),
        cpu_overhead_input_file: text("cpu_overhead_input_file"),
        k_fold_cv_splits: whole("k_fold_cv_splits"),
        no_cache: is("no_cache"),
        kv_cache_prediction_granularity: whole("kv_cache_prediction_granularity"),
        prediction_max_prefill_chunk_size: whole("prediction_max_prefill_chunk_size"),
        prediction_max_batch_size: whole("prediction_max_batch_size"),
        prediction_max_tokens_per_request: whole("prediction_max_tokens_per_request"),
        attention_decode_batching_overhead_fraction: number(
            "attention_decode_batching_overhead_fraction",
        ),
        attention_prefill_batching_overhead_fraction: number(
            "attention_prefill_batching_overhead_fraction",
        ),
        nccl_cpu_launch_overhead_ms: number("nccl_cpu_launch_overhead_ms"),
        nccl_cpu_skew_overhead_per_device_ms: number("nccl_cpu_skew_overhead_per_device_ms"),
        num_training_job_threads: whole_i32(number("num_training_job_threads")),
        skip_cpu_overhead_modeling: is("skip_cpu_overhead_modeling"),
        num_estimators: wholes("num_estimators", defaults.num_estimators),
        max_depth: wholes("max_depth", defaults.max_depth),
        min_samples_split: wholes("min_samples_split", defaults.min_samples_split),
        polynomial_degree: wholes("polynomial_degree", defaults.polynomial_degree),
        polynomial_include_bias: bools("polynomial_include_bias", defaults.polynomial_include_bias),
        polynomial_interaction_only: bools(
            "polynomial_interaction_only",
            defaults.polynomial_interaction_only,
        ),
        fit_intercept: bools("fit_intercept", defaults.fit_intercept),
        seed: u64::from(settings.whole("seed")),
    }
}
