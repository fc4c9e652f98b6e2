//! From names to a priced deployment, and from a step in words to operators.

use std::path::PathBuf;
use std::sync::Arc;

use super::placement::{Site, experts};
use super::{OperatorLine, provenance_text};
use crate::catalog::{Catalog, EngineSpec};
use crate::execution_time::step_cost::GraphCost;
use crate::execution_time::{BackendKind, PrefillChunk, PricedOperator, StepCost, StepShape};
use crate::memory::{Formats, Parallelism};
use crate::network::flow::{FlowNetwork, SimaiConf, SimaiEnvironment};
use crate::network::topology::Topology;
use crate::network::{Fabric, FabricModel, LinkOverrides, Placement};
use crate::simulator::PoolRole;
use crate::spelling::did_you_mean;
use crate::units::DType;

pub(super) const DTYPES: [DType; 9] = [
    DType::Float32,
    DType::Float16,
    DType::Bfloat16,
    DType::Fp8,
    DType::Fp8Block,
    DType::Int8,
    DType::Int4,
    DType::Nvfp4,
    DType::Mxfp4,
];

/// A deployment in a person's words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) model: String,
    pub(super) device: String,
    /// Empty, `vllm`, or `vllm 0.24.0`.
    pub(super) engine: String,
    pub(super) tensor_parallel: u32,
    pub(super) pipeline_parallel: u32,
    pub(super) expert_parallel: u32,
    pub(super) attention_data_parallel: u32,
    /// The model's, if none.
    pub(super) dtype: Option<DType>,
    pub(super) kv_cache_dtype: Option<DType>,
    pub(super) backend: BackendKind,
    pub(super) gpus_per_node: Option<u32>,
    pub(super) links: LinkOverrides,
    /// SimAI's files: communication goes as flows over this topology.
    pub(super) topology: Option<PathBuf>,
    pub(super) simai_conf: Option<PathBuf>,
}

/// What is wrong with a request, and in which of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestError {
    pub(super) field: &'static str,
    pub(super) reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Prefill,
    Decode,
}

/// One step: `batch_size` equal requests on every attention data-parallel rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepRequest {
    pub(super) phase: Phase,
    pub(super) batch_size: u32,
    pub(super) new_tokens: u32,
    pub(super) context_tokens: u32,
}

impl StepRequest {
    fn shape(&self, ranks: u32) -> StepShape {
        let requests = self.batch_size * ranks;
        let context = u64::from(self.context_tokens);
        match self.phase {
            Phase::Prefill => StepShape {
                prefills: vec![
                    PrefillChunk {
                        new_tokens: self.new_tokens,
                        context_tokens: self.context_tokens,
                    };
                    requests as usize
                ],
                sampled_tokens: requests,
                ..StepShape::default()
            },
            Phase::Decode => StepShape {
                decode_requests: requests,
                decode_context_tokens: context * u64::from(requests),
                sampled_tokens: requests,
                ..StepShape::default()
            },
        }
    }
}

/// A deployment that can be priced.
#[derive(Debug)]
pub(super) struct Deployment {
    cost: GraphCost,
    title: String,
    placement: Placement,
    /// What says how many GPUs a server has.
    servers_of: String,
}

impl Deployment {
    pub(super) fn resolve(catalog: &Catalog, request: &Request) -> Result<Self, RequestError> {
        let named = |field| move |reason: String| RequestError { field, reason };
        let model = catalog
            .model(&request.model)
            .map_err(|error| named("model")(error.to_string()))?;
        let device = catalog
            .device(&request.device)
            .map_err(|error| named("device")(error.to_string()))?;
        let engine = engine(catalog, &request.engine).map_err(named("engine"))?;
        let weights = request.dtype.unwrap_or(model.dtype);
        let kv_cache = request
            .kv_cache_dtype
            .unwrap_or_else(|| usual_kv_cache(weights));
        let formats = Formats::of(&model, request.dtype, Some(kv_cache));
        let parallelism = Parallelism {
            tensor_parallel: request.tensor_parallel,
            pipeline_parallel: request.pipeline_parallel,
            expert_parallel: request.expert_parallel,
            attention_data_parallel: request.attention_data_parallel,
        };
        let network = network(request)?;
        let gpus_per_node = match (&network, request.gpus_per_node) {
            (_, Some(gpus)) => gpus,
            (Some(network), None) => network.topology().gpus_per_server(),
            (None, None) => device.gpus_per_node,
        };
        let placement = Placement {
            gpus_per_server: gpus_per_node,
            first_server: 0,
            skipped_gpus: 0,
            tensor_parallel: parallelism.tensor_parallel,
            pipeline_parallel: parallelism.pipeline_parallel,
            attention_data_parallel: parallelism.attention_data_parallel,
        };
        let cost = GraphCost::new(
            &model,
            &device,
            request.backend,
            engine.as_ref(),
            parallelism,
            formats,
            gpus_per_node,
            &request.links,
        )
        .map_err(|reason| RequestError {
            field: blamed_field(&reason),
            reason,
        })?;
        let servers_of = match (&request.topology, request.gpus_per_node) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(_)) => "--gpus-per-node".to_owned(),
            (None, None) => device.name.clone(),
        };
        let cost = match network {
            Some(network) => {
                let model = FabricModel::Flow(network);
                let name = format!("flows over {servers_of}");
                // The host part of a collective is the engine's.
                let fabric = Fabric::new(model, placement, name, 0.0);
                cost.over(Arc::new(fabric.map_err(named("topology"))?))
            }
            None => cost,
        };
        let title = format!(
            "{} on {} x {}, weights {}, KV cache {}",
            model.name,
            parallelism.gpus(),
            device.name,
            formats.weights_text(),
            formats.kv_cache.name()
        );
        Ok(Self {
            cost,
            title,
            placement,
            servers_of,
        })
    }

    /// Where its first `replicas` sit.
    pub(super) fn site(&self, replicas: u32) -> Site {
        let experts = match self.cost.graph().model().moe {
            Some(_) => experts(self.cost.graph().parallelism(), 1),
            None => String::new(),
        };
        Site {
            role: PoolRole::Mixed,
            replicas,
            placement: self.placement,
            servers_of: self.servers_of.clone(),
            experts,
            memory: None,
        }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The step's operators in graph order, each with all its layers and stages.
    /// Host time only `with_host`.
    pub(super) fn price(&self, step: &StepRequest, with_host: bool) -> Vec<OperatorLine> {
        let ranks = self.cost.graph().parallelism().attention_data_parallel;
        let mut priced = self.cost.explain(&step.shape(ranks));
        priced.retain(|row| with_host || row.name != "host");
        merge(priced)
    }
}

/// The network of the request's topology, whose servers must be those it names.
fn network(request: &Request) -> Result<Option<FlowNetwork>, RequestError> {
    let error = |field, reason: String| RequestError { field, reason };
    let Some(file) = &request.topology else {
        return Ok(None);
    };
    let topology = Topology::load(file).map_err(|found| error("topology", found.to_string()))?;
    let conf = match &request.simai_conf {
        Some(file) => {
            SimaiConf::load(file).map_err(|found| error("simai_conf", found.to_string()))?
        }
        None => SimaiConf::default(),
    };
    let per_server = topology.gpus_per_server();
    if let Some(asked) = request.gpus_per_node.filter(|asked| *asked != per_server) {
        let reason = format!(
            "{asked}, but the servers of {} have {per_server} GPUs",
            file.display()
        );
        return Err(error("gpus_per_node", reason));
    }
    Ok(Some(FlowNetwork::new(
        topology,
        conf,
        SimaiEnvironment::default(),
    )))
}

/// Adds up rows of one name. The count is that of the name's first operator of
/// every stage: what is folded into it (kernels around attention) is no run of
/// its own.
fn merge(priced: Vec<PricedOperator>) -> Vec<OperatorLine> {
    let mut lines: Vec<(OperatorLine, u32)> = Vec::new();
    for row in priced {
        let provenance = provenance_text(&row.provenance);
        let time_ms = row.time_s * 1e3;
        match lines.iter_mut().find(|(line, _)| line.operator == row.name) {
            Some((line, stage)) => {
                line.time_ms += time_ms;
                if row.stage != *stage {
                    *stage = row.stage;
                    line.count += row.count;
                }
                if !line.provenance.split(" + ").any(|part| part == provenance) {
                    line.provenance = format!("{} + {provenance}", line.provenance);
                }
            }
            None => lines.push((
                OperatorLine {
                    operator: row.name,
                    count: row.count,
                    time_ms,
                    provenance,
                },
                row.stage,
            )),
        }
    }
    lines.into_iter().map(|(line, _)| line).collect()
}

/// The column to point at for a reason: the parallelism it names first.
fn blamed_field(reason: &str) -> &'static str {
    [
        "tensor_parallel",
        "pipeline_parallel",
        "expert_parallel",
        "attention_data_parallel",
    ]
    .into_iter()
    .filter_map(|field| Some((reason.find(field)?, field)))
    .min()
    .map_or("device", |(_, field)| field)
}

/// KV cache format that goes with the weights: 8 bits with 8-bit weights.
fn usual_kv_cache(weights: DType) -> DType {
    match weights {
        DType::Fp8 | DType::Fp8Block | DType::Nvfp4 => DType::Fp8,
        _ => DType::Bfloat16,
    }
}

fn engine(catalog: &Catalog, text: &str) -> Result<Option<EngineSpec>, String> {
    let mut words = text.split_whitespace();
    let Some(name) = words.next() else {
        return Ok(None);
    };
    let version = words.next();
    if words.next().is_some() {
        return Err(format!(
            "`{text}` is not an engine; write a name and, if you like, a version: `vllm`, `vllm 0.24.0`"
        ));
    }
    catalog
        .engine(name, version)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// The format called `name`.
pub(super) fn dtype_named(name: &str) -> Result<DType, String> {
    let names = DTYPES.map(DType::name);
    DTYPES
        .into_iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            format!(
                "`{name}` is not a format; allowed: {}{}",
                names.join(", "),
                did_you_mean(name, names)
            )
        })
}
