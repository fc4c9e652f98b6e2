//! `vidur-sweep explain`: what a step costs, operator by operator, and where
//! every figure comes from. One step from flags, or many from a CSV file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use super::output::{print_data, print_text, say};
use super::values::{positive, whole};
use super::{CliError, CliResult};
use crate::execution_time::{BackendKind, Provenance};
use crate::explore::Plan;
use crate::spec::{self, Problem, Resolver};
use crate::units::DType;

mod deployment;
mod placement;
mod steps;
mod table;

use deployment::{Deployment, Phase, REQUESTS_MAX, Request, StepRequest, TOKENS_MAX, dtype_named};

/// What describes a deployment, which a specification does itself.
const DEPLOYMENT_FLAGS: [&str; 17] = [
    "steps",
    "out",
    "model",
    "device",
    "engine",
    "backend",
    "tensor_parallel",
    "pipeline_parallel",
    "expert_parallel",
    "attention_data_parallel",
    "dtype",
    "kv_cache_dtype",
    "gpus_per_node",
    "nvlink_bandwidth_gbps",
    "rdma_bandwidth_gbps",
    "topology",
    "simai_conf",
];

/// Price steps operator by operator.
///
/// With `--steps`, prices every row of a CSV file (columns model, device,
/// engine, tensor_parallel, pipeline_parallel, expert_parallel,
/// attention_data_parallel, dtype, phase, batch_size, new_tokens,
/// context_tokens) and writes one row per step and operator. Otherwise prices
/// the one step the flags describe and prints a table, and above it which GPUs
/// of which servers the replica and its parallel groups occupy. With `--spec` the
/// deployment is that of a run of a sweep, and the step one of its prefill or decode
/// pool. Everything the flags leave out is as in a run that leaves it out.
///
/// Examples:
///   vidur-sweep explain --model llama-3-70b --device h100 --tensor-parallel 4 --batch-size 64 --context-tokens 2048
///   vidur-sweep explain --model deepseek-671B --device h200 --tensor-parallel 8 --expert-parallel 8 --prefill-tokens 4096
///   vidur-sweep explain --model deepseek-671B --device h200 --tensor-parallel 8 --pipeline-parallel 2 --expert-parallel 8 --topology topo/Spectrum-X_128g_8gps_400Gbps_H100 --placement
///   vidur-sweep explain --spec sweeps/deepseek.yaml --run 54 --batch-size 64 --context-tokens 2048
///   vidur-sweep explain --model llama-3-8b --device h100 --engine '{name: vllm, host_overhead_s_per_step: 0.002}'
///   vidur-sweep explain --steps steps.csv --out ops.csv
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// CSV file of steps to price.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = ["model", "device"])]
    steps: Option<PathBuf>,
    /// Where to write the priced operators.
    #[arg(long, value_name = "FILE", requires = "steps")]
    out: Option<PathBuf>,
    /// Sweep specification: price a step of one of its runs, and show where the
    /// replicas of each of its pools sit. JSON and CSV hold the step where a flag
    /// describes one, else the places.
    #[arg(long, value_name = "FILE", conflicts_with_all = DEPLOYMENT_FLAGS)]
    spec: Option<PathBuf>,
    /// Which run of the specification.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "spec",
          value_parser = whole(0..=u64::MAX), allow_negative_numbers = true)]
    run: u64,
    /// Model: a name of `catalog models`, a YAML file or a Hugging Face config.json.
    #[arg(long, required_unless_present_any = ["steps", "spec"])]
    model: Option<String>,
    /// Device: a name of `catalog devices` or a YAML file.
    #[arg(long, required_unless_present_any = ["steps", "spec"])]
    device: Option<String>,
    /// Engine whose host overheads count: `vllm`, `"vllm 0.24.0"`, the path of an engine
    /// YAML, or a mapping as in a specification.
    #[arg(long)]
    engine: Option<String>,
    /// Where kernel times come from.
    #[arg(long, value_enum, default_value = "silicon")]
    backend: Backend,
    /// Tensor-parallel ways.
    #[arg(long, default_value_t = 1, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    tensor_parallel: u32,
    /// Pipeline stages.
    #[arg(long, default_value_t = 1, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    pipeline_parallel: u32,
    /// Expert-parallel ways.
    #[arg(long, default_value_t = 1, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    expert_parallel: u32,
    /// Attention data-parallel ranks; default: expert-parallel over tensor-parallel
    /// ways, at least 1.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    attention_data_parallel: Option<u32>,
    /// Format of the weights; default: the model's.
    #[arg(long)]
    dtype: Option<String>,
    /// Format of the KV cache; default: the model's.
    #[arg(long)]
    kv_cache_dtype: Option<String>,
    /// GPUs of a node; default: the device's.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    gpus_per_node: Option<u32>,
    /// NVLink bandwidth per GPU and direction instead of the device's, Gb/s.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    nvlink_bandwidth_gbps: Option<f64>,
    /// NIC bandwidth per GPU and direction instead of the device's, Gb/s.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    rdma_bandwidth_gbps: Option<f64>,
    /// SimAI topology file: communication is priced as flows over it, and
    /// replicas are placed on its servers.
    #[arg(long, value_name = "FILE", conflicts_with = "steps")]
    topology: Option<PathBuf>,
    /// SimAI configuration file (`SimAI.conf`); default: SimAI's own figures.
    #[arg(long, value_name = "FILE", requires = "topology")]
    simai_conf: Option<PathBuf>,
    /// Replicas whose placement is shown.
    #[arg(long, default_value_t = 1, value_parser = whole(1..=65_536u32), allow_negative_numbers = true)]
    replicas: u32,
    /// Print only the placement: one row per replica, stage and tensor group.
    #[arg(long, conflicts_with = "steps")]
    placement: bool,
    /// Requests on each attention data-parallel rank; default: 1.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    batch_size: Option<u32>,
    /// Prompt tokens each request processes; without it, each decodes one token.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    prefill_tokens: Option<u32>,
    /// Tokens of each request already in the KV cache; default: 0.
    #[arg(long, value_parser = whole(0..=u32::MAX), allow_negative_numbers = true)]
    context_tokens: Option<u32>,
    /// How to print the one step.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Silicon,
    Aiconfigurator,
    Roofline,
    Aicb,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

impl From<Backend> for BackendKind {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Silicon => Self::Silicon,
            Backend::Roofline => Self::Roofline,
            Backend::Aiconfigurator => Self::Aiconfigurator,
            Backend::Aicb => Self::Aicb,
        }
    }
}

/// All runs of one operator in a step: every layer, every stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OperatorLine {
    operator: String,
    count: f64,
    time_ms: f64,
    provenance: String,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    match (&args.steps, &args.out) {
        (Some(steps), Some(out)) => steps::price_file(steps, out, args.backend.into())?,
        _ => {
            let text = explain_one(&args)?;
            match args.format {
                Format::Table => print_text(&text)?,
                Format::Json | Format::Csv => print_data(format!("{text}\n").as_bytes())?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of one deployment, and of a step of it.
fn explain_one(args: &Args) -> Result<String, CliError> {
    let resolver = Resolver::default();
    let deployment = match &args.spec {
        Some(file) => deployment_of_run(&resolver, file, args.run)?,
        None => {
            let request = one_request(args)?;
            Deployment::of_request(&resolver, &request).map_err(in_flags)?
        }
    };
    if let Some(warning) = &deployment.resolved().memory_warning {
        say!("note: {warning}");
    }
    let step = step_of(args, &deployment)?;
    let title = match &args.spec {
        Some(file) => format!(
            "{}, run {}: {}",
            file.display(),
            args.run,
            deployment.config().model
        ),
        None => deployment.title(step.phase),
    };
    let described =
        args.batch_size.is_some() || args.prefill_tokens.is_some() || args.context_tokens.is_some();
    let only_places = match args.format {
        _ if args.placement => true,
        Format::Table => false,
        Format::Json | Format::Csv => args.spec.is_some() && !described,
    };
    let places = |format| {
        let transfer = placement::transfer(deployment.resolved());
        let sites = deployment.sites(args.replicas);
        placement::only(&title, &sites, transfer.as_deref(), format)
    };
    if only_places {
        return places(args.format);
    }
    let lines = deployment.price(&step, true);
    match args.format {
        Format::Table => {
            let what = match deployment.resolved().pools.len() {
                1 => String::new(),
                _ => format!("{} ", deployment.pool_of(step.phase).role.name()),
            };
            let priced = match &args.spec {
                Some(_) => format!("{what}{}", deployment.title(step.phase)),
                None => String::new(),
            };
            let table = table::render(&priced, &step, &lines);
            Ok(format!("{}\n{}", places(args.format)?, table.trim_start()))
        }
        Format::Json => serde_json::to_string_pretty(&lines)
            .map_err(|error| CliError::Failure(error.to_string())),
        Format::Csv => Ok(table::csv(&lines)),
    }
}

/// The deployment of a run of a specification.
fn deployment_of_run(resolver: &Resolver, file: &Path, run: u64) -> Result<Deployment, CliError> {
    let spec = spec::load(file, &[]).map_err(|errors| CliError::BadInput(errors.to_string()))?;
    let wrong = |reason: String| CliError::BadInput(format!("{}: {reason}", file.display()));
    let plan = Plan::new(spec).map_err(wrong)?;
    if run >= plan.num_runs() {
        let runs = plan.num_runs();
        return Err(CliError::BadInput(format!(
            "--run: {run}; {} has {runs} runs, the first is 0",
            file.display()
        )));
    }
    let config = plan.config(run).map_err(wrong)?;
    Deployment::of_config(resolver, config)
        .map_err(|problem| wrong(format!("run {run}: {}", problem.message())))
}

/// The step the flags describe.
fn step_of(args: &Args, deployment: &Deployment) -> Result<StepRequest, CliError> {
    let step = StepRequest {
        phase: match args.prefill_tokens {
            Some(_) => Phase::Prefill,
            None => Phase::Decode,
        },
        batch_size: args.batch_size.unwrap_or(1),
        new_tokens: args.prefill_tokens.unwrap_or(1),
        context_tokens: args.context_tokens.unwrap_or(0),
    };
    for (flag, figure, least, most) in [
        ("batch-size", step.batch_size, 1, REQUESTS_MAX),
        ("prefill-tokens", step.new_tokens, 1, TOKENS_MAX),
        ("context-tokens", step.context_tokens, 0, TOKENS_MAX),
    ] {
        if !(least..=most).contains(&figure) {
            return Err(CliError::BadInput(format!(
                "--{flag}: {figure}; allowed: {least} to {most}"
            )));
        }
    }
    step.check(deployment.ranks(step.phase))
        .map_err(|(figure, reason)| {
            let flag = match figure {
                "new_tokens" => "prefill-tokens",
                _ => "batch-size",
            };
            CliError::BadInput(format!("--{flag}: {reason}"))
        })?;
    Ok(step)
}

/// An error about a key of a run as one about a flag.
fn in_flags(error: Problem) -> CliError {
    let flag_of = |key: &str| key.rsplit('.').next().unwrap_or(key).replace('_', "-");
    let command = <Args as clap::Args>::augment_args(clap::Command::new("explain"));
    let is_flag = |flag: &String| command.get_arguments().any(|a| a.get_long() == Some(flag));
    CliError::BadInput(match error.key.map(flag_of).filter(is_flag) {
        Some(flag) => format!("--{flag}: {}", error.reason),
        None => error.message(),
    })
}

fn one_request(args: &Args) -> Result<Request, CliError> {
    let format = |flag: &str, name: &Option<String>| {
        name.as_deref()
            .map(dtype_named)
            .transpose()
            .map_err(|reason| CliError::BadInput(format!("--{flag}: {reason}")))
    };
    for (flag, bandwidth) in [
        ("nvlink-bandwidth-gbps", args.nvlink_bandwidth_gbps),
        ("rdma-bandwidth-gbps", args.rdma_bandwidth_gbps),
    ] {
        if bandwidth.is_some_and(|gbps| !(gbps.is_finite() && gbps > 0.0)) {
            return Err(CliError::BadInput(format!(
                "--{flag}: must be a positive number"
            )));
        }
    }
    if args.gpus_per_node == Some(0) {
        return Err(CliError::BadInput(
            "--gpus-per-node: must be at least 1".into(),
        ));
    }
    let mut request = Request::default();
    request.set("model", args.model.as_ref());
    request.set("device", args.device.as_ref());
    request.set("backend", Some(BackendKind::from(args.backend)));
    if let Some(engine) = &args.engine {
        request.set_engine(engine).map_err(in_flags)?;
    }
    request.set("tensor_parallel", Some(args.tensor_parallel));
    request.set("pipeline_parallel", Some(args.pipeline_parallel));
    request.set("expert_parallel", Some(args.expert_parallel));
    request.set("attention_data_parallel", args.attention_data_parallel);
    request.set("dtype", format("dtype", &args.dtype)?);
    request.set(
        "kv_cache_dtype",
        format("kv-cache-dtype", &args.kv_cache_dtype)?,
    );
    request.set("gpus_per_node", args.gpus_per_node);
    request.set("replicas", Some(args.replicas));
    request.set("network.nvlink_bandwidth_gbps", args.nvlink_bandwidth_gbps);
    request.set("network.rdma_bandwidth_gbps", args.rdma_bandwidth_gbps);
    request.set("network.topology", args.topology.as_ref());
    request.set("network.simai_conf", args.simai_conf.as_ref());
    Ok(request)
}

/// Names of the formats of weights and KV cache.
pub(super) fn dtype_names() -> [&'static str; 9] {
    deployment::DTYPES.map(DType::name)
}

/// One word or short phrase for a provenance.
fn provenance_text(provenance: &Provenance) -> String {
    match provenance {
        Provenance::Measured => "measured".into(),
        Provenance::Interpolated => "interpolated".into(),
        Provenance::Extrapolated => "extrapolated".into(),
        Provenance::Substituted { from } => format!("substituted: {from}"),
        Provenance::Doubtful { found, times_bound } => {
            let found = provenance_text(found);
            format!("{found} (doubtful: {times_bound} times the bound)")
        }
        Provenance::Formula => "formula".into(),
        Provenance::Roofline { reason } => format!("roofline: {reason}"),
        Provenance::Nothing => "nothing".into(),
    }
}
