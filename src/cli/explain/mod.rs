//! `vidur-sweep explain`: what a step costs, operator by operator, and where
//! every figure comes from. One step from flags, or many from a CSV file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use super::output::{print_data, print_text};
use super::{CliError, CliResult};
use crate::catalog::Catalog;
use crate::execution_time::{BackendKind, Provenance};
use crate::network::LinkOverrides;
use crate::units::DType;

mod deployment;
mod placement;
mod steps;
mod table;

use deployment::{Deployment, Phase, Request, StepRequest, dtype_named};

/// What describes a deployment and a step, which a specification does itself.
const STEP_FLAGS: [&str; 20] = [
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
    "batch_size",
    "prefill_tokens",
    "context_tokens",
];

/// Price steps operator by operator.
///
/// With `--steps`, prices every row of a CSV file (columns model, device,
/// engine, tensor_parallel, pipeline_parallel, expert_parallel,
/// attention_data_parallel, dtype, phase, batch_size, new_tokens,
/// context_tokens) and writes one row per step and operator. Otherwise prices
/// the one step the flags describe and prints a table, and above it which GPUs
/// of which servers the replica and its parallel groups occupy; with `--spec`
/// only this, for each pool of a run of a sweep.
///
/// Examples:
///   vidur-sweep explain --model llama-3-70b --device h100 --tensor-parallel 4 --batch-size 64 --context-tokens 2048
///   vidur-sweep explain --model deepseek-671B --device h200 --tensor-parallel 8 --expert-parallel 8 --prefill-tokens 4096
///   vidur-sweep explain --model deepseek-671B --device h200 --tensor-parallel 8 --pipeline-parallel 2 --expert-parallel 8 --topology topo/Spectrum-X_128g_8gps_400Gbps_H100 --placement
///   vidur-sweep explain --spec sweeps/deepseek.yaml --run 54
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
    /// Sweep specification: show where the replicas of each pool of one of its
    /// runs sit, and price nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = STEP_FLAGS)]
    spec: Option<PathBuf>,
    /// Which run of the specification.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "spec")]
    run: u64,
    /// Model: a name of `catalog models`, a YAML file or a Hugging Face config.json.
    #[arg(long, required_unless_present_any = ["steps", "spec"])]
    model: Option<String>,
    /// Device: a name of `catalog devices` or a YAML file.
    #[arg(long, required_unless_present_any = ["steps", "spec"])]
    device: Option<String>,
    /// Engine whose host overheads count, as `vllm` or `vllm 0.24.0`.
    #[arg(long)]
    engine: Option<String>,
    /// Where kernel times come from.
    #[arg(long, value_enum, default_value = "silicon")]
    backend: Backend,
    /// Tensor-parallel ways.
    #[arg(long, default_value_t = 1)]
    tensor_parallel: u32,
    /// Pipeline stages.
    #[arg(long, default_value_t = 1)]
    pipeline_parallel: u32,
    /// Expert-parallel ways.
    #[arg(long, default_value_t = 1)]
    expert_parallel: u32,
    /// Attention data-parallel ranks.
    #[arg(long, default_value_t = 1)]
    attention_data_parallel: u32,
    /// Format of the weights; default: the model's.
    #[arg(long)]
    dtype: Option<String>,
    /// Format of the KV cache; default: fp8 with 8-bit weights, else bfloat16.
    #[arg(long)]
    kv_cache_dtype: Option<String>,
    /// GPUs of a node; default: the device's.
    #[arg(long)]
    gpus_per_node: Option<u32>,
    /// NVLink bandwidth per GPU and direction instead of the device's, Gb/s.
    #[arg(long)]
    nvlink_bandwidth_gbps: Option<f64>,
    /// NIC bandwidth per GPU and direction instead of the device's, Gb/s.
    #[arg(long)]
    rdma_bandwidth_gbps: Option<f64>,
    /// SimAI topology file: communication is priced as flows over it, and
    /// replicas are placed on its servers.
    #[arg(long, value_name = "FILE", conflicts_with = "steps")]
    topology: Option<PathBuf>,
    /// SimAI configuration file (`SimAI.conf`); default: SimAI's own figures.
    #[arg(long, value_name = "FILE", requires = "topology")]
    simai_conf: Option<PathBuf>,
    /// Replicas whose placement is shown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    replicas: u32,
    /// Print only the placement: one row per replica, stage and tensor group.
    #[arg(long, conflicts_with = "steps")]
    placement: bool,
    /// Requests on each attention data-parallel rank.
    #[arg(long, default_value_t = 1)]
    batch_size: u32,
    /// Prompt tokens each request processes; without it, each decodes one token.
    #[arg(long)]
    prefill_tokens: Option<u32>,
    /// Tokens of each request already in the KV cache.
    #[arg(long, default_value_t = 0)]
    context_tokens: u32,
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
        _ => match &args.spec {
            Some(spec) => {
                let places = placement::of_run(spec, args.run, args.replicas)?;
                let transfer = places.transfer.as_deref();
                let text = placement::only(&places.title, &places.sites, transfer, args.format)?;
                print_as(&text, args.format)?;
            }
            None => explain_one(&args)?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn explain_one(args: &Args) -> Result<(), CliError> {
    let catalog = Catalog::builtin();
    let request = one_request(args)?;
    let deployment = Deployment::resolve(catalog, &request).map_err(|error| {
        CliError::BadInput(format!(
            "--{}: {}",
            error.field.replace('_', "-"),
            error.reason
        ))
    })?;
    if args.placement {
        let text = placement::only(
            deployment.title(),
            &[deployment.site(args.replicas)],
            None,
            args.format,
        )?;
        return print_as(&text, args.format);
    }
    let step = StepRequest {
        phase: match args.prefill_tokens {
            Some(_) => Phase::Prefill,
            None => Phase::Decode,
        },
        batch_size: args.batch_size,
        new_tokens: args.prefill_tokens.unwrap_or(1),
        context_tokens: args.context_tokens,
    };
    if step.batch_size == 0 || step.new_tokens == 0 {
        let flag = if step.batch_size == 0 {
            "batch-size"
        } else {
            "prefill-tokens"
        };
        return Err(CliError::BadInput(format!("--{flag}: must be at least 1")));
    }
    let lines = deployment.price(&step, true);
    let text = match args.format {
        Format::Table => table::render(&deployment, args.replicas, &step, &lines),
        Format::Json => serde_json::to_string_pretty(&lines)
            .map_err(|error| CliError::Failure(error.to_string()))?,
        Format::Csv => table::csv(&lines),
    };
    print_as(&text, args.format)
}

/// Prints what is for people, or for programs.
fn print_as(text: &str, format: Format) -> Result<(), CliError> {
    match format {
        Format::Table => print_text(text),
        Format::Json | Format::Csv => print_data(format!("{text}\n").as_bytes()),
    }
}

fn one_request(args: &Args) -> Result<Request, CliError> {
    let format = |flag: &str, name: &Option<String>| -> Result<Option<DType>, CliError> {
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
    Ok(Request {
        model: args.model.clone().unwrap_or_default(),
        device: args.device.clone().unwrap_or_default(),
        engine: args.engine.clone().unwrap_or_default(),
        tensor_parallel: args.tensor_parallel,
        pipeline_parallel: args.pipeline_parallel,
        expert_parallel: args.expert_parallel,
        attention_data_parallel: args.attention_data_parallel,
        dtype: format("dtype", &args.dtype)?,
        kv_cache_dtype: format("kv-cache-dtype", &args.kv_cache_dtype)?,
        backend: args.backend.into(),
        gpus_per_node: args.gpus_per_node,
        links: LinkOverrides {
            nvlink_bandwidth_gbps: args.nvlink_bandwidth_gbps,
            rdma_bandwidth_gbps: args.rdma_bandwidth_gbps,
        },
        topology: args.topology.clone(),
        simai_conf: args.simai_conf.clone(),
    })
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
