//! From operator times to the time of a stage.
//!
//! Per layer, ms: `attention = pre_proj + post_proj + rope + kv_cache_save +
//! decode + prefill + all_reduce + norm`, `mlp = up + down + act + all_reduce +
//! norm`, `block = attention + mlp + add`; a stage takes `block * layers +
//! send_recv`. Terms are added in this order, which the recorded figures depend
//! on to the last bit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::memo::ByCount;
use super::{Op, PredictorConfig, Rows, VidurError};
use crate::catalog::{Attention, ModelSpec};
use crate::execution_time::{Operator, PricedOperator, Provenance, StageTime, StepCost, StepShape};
use crate::memory::Parallelism;
use crate::network::{Collective, Fabric};
use crate::number::narrow;
use crate::one_by_one;
use crate::units::DType;

/// Bytes of an element of the activations that travel.
const ACTIVATION_BYTES: f64 = 2.0;

/// What of a batch the operators are priced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// The batch as it is: exact tokens, the exact mean context, every prompt
    /// chunk by itself (the start-up of the attention kernel once), both
    /// residual additions of a block, uneven stages, no negative times.
    #[default]
    Exact,
    /// Vidur's: tokens rounded up to 8, contexts to
    /// `kv_cache_prediction_granularity`, prompt chunks merged into one.
    Vidur,
}

/// Times of single operators, ms.
pub(super) trait OperatorTimes: Send + Sync {
    /// An operator with one feature: tokens, or requests for host operators.
    fn by_count_ms(&self, op: Op, count: u32) -> f64;

    /// Whether prompt chunks and decodes have cache writes of their own.
    fn saves_by_phase(&self) -> bool;

    /// New keys and values of that many tokens, of [`Rows::All`] unless
    /// [`Self::saves_by_phase`].
    fn kv_cache_save_ms(&self, phase: Rows, tokens: u32) -> f64;

    /// Attention of `requests` decodes of `kv_tokens` each.
    fn decode_ms(&self, requests: u32, kv_tokens: f64) -> f64;

    /// Attention of a prompt chunk after `kv_tokens` of context.
    fn prefill_ms(&self, kv_tokens: f64, chunk: f64) -> f64;

    /// How a time comes about.
    fn provenance(&self, op: Op, features: [f64; 2]) -> Provenance;
}

/// What the formula needs to know of a deployment.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    keys: Keys,
    layers: Vec<f64>,
    tensor_parallel: u32,
    second_norm: bool,
    adds_per_layer: f64,
    /// Context granularity of Vidur's keys.
    granularity: u64,
    /// Added to the attention of several requests.
    decode_batching: f64,
    prefill_batching: f64,
    /// Host part of a collective, ms.
    launch_ms: f64,
    skew_ms: f64,
    host: bool,
    across_nodes: bool,
    shapes: Shapes,
    /// Prices communication in the place of profiles.
    fabric: Option<Arc<Fabric>>,
}

/// Widths on one GPU, for explanations.
#[derive(Debug, Clone, Copy)]
struct Shapes {
    hidden: u32,
    intermediate: u32,
    up_projections: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
}

impl Deployment {
    pub(super) fn new(
        model: &ModelSpec,
        parallelism: Parallelism,
        gpus_per_node: u32,
        keys: Keys,
        predictor: &PredictorConfig,
    ) -> Result<Self, VidurError> {
        predictor.check()?;
        let Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            ..
        } = model.attention
        else {
            return Err(unsupported(model, "multi-head latent attention"));
        };
        if model.moe.is_some() {
            return Err(unsupported(model, "experts"));
        }
        if model.local_attention.is_some() {
            return Err(unsupported(
                model,
                "attention that does not look back to the start",
            ));
        }
        if model.linear_attention.is_some() {
            return Err(unsupported(model, "linear attention"));
        }
        let stages = parallelism.pipeline_parallel.max(1);
        let layers = |stage: u32| match keys {
            Keys::Exact => f64::from(narrow::<u32, _>(model.stage_layers(stage, stages).len())),
            Keys::Vidur => f64::from(model.layers / stages),
        };
        let grouped = |fraction: f64| if heads > kv_heads { fraction } else { 0.0 };
        let tensor_parallel = parallelism.tensor_parallel.max(1);
        let second_norm = model.norms_per_layer > 1;
        Ok(Self {
            keys,
            layers: (0..stages).map(layers).collect(),
            tensor_parallel,
            second_norm,
            // The profile times one addition: the second of a block with two
            // norms, both together of a block with one.
            adds_per_layer: match keys {
                Keys::Exact if second_norm => 2.0,
                _ => 1.0,
            },
            granularity: u64::from(predictor.kv_cache_prediction_granularity),
            decode_batching: grouped(predictor.attention_decode_batching_overhead_fraction),
            prefill_batching: grouped(predictor.attention_prefill_batching_overhead_fraction),
            launch_ms: predictor.nccl_cpu_launch_overhead_ms,
            skew_ms: predictor.nccl_cpu_skew_overhead_per_device_ms,
            host: !predictor.skip_cpu_overhead_modeling,
            across_nodes: tensor_parallel * stages > gpus_per_node,
            shapes: Shapes {
                hidden: model.hidden_size,
                intermediate: model.intermediate_size / tensor_parallel,
                up_projections: if model.gated_mlp { 2 } else { 1 },
                heads: heads.div_ceil(tensor_parallel),
                kv_heads: kv_heads.div_ceil(tensor_parallel),
                head_dim,
            },
            fabric: None,
        })
    }

    /// The same with communication over `fabric`.
    pub(super) fn over(self, fabric: Option<Arc<Fabric>>) -> Self {
        Self { fabric, ..self }
    }

    /// Time of communication over the fabric, ms; none, if profiles have it.
    fn over_fabric_ms(&self, op: Op, tokens: u32) -> Option<f64> {
        let fabric = self.fabric.as_ref()?;
        let bytes = f64::from(tokens) * f64::from(self.shapes.hidden) * ACTIVATION_BYTES;
        let time_s = match op {
            Op::AllReduce => {
                fabric.collective_s(Collective::AllReduce, bytes, self.tensor_parallel)
            }
            Op::SendRecv => fabric.send_s(bytes),
            _ => return None,
        };
        // What the fabric cannot price was refused when it was made.
        time_s.ok().map(|time_s| time_s * 1e3)
    }

    /// The operators this deployment needs the times of.
    pub(super) fn operators(&self) -> Vec<Op> {
        let mut ops = vec![
            Op::AttnPreProj,
            Op::AttnPostProj,
            Op::AttnRope,
            Op::AttnKvCacheSave,
            Op::AttnDecode,
            Op::AttnPrefill,
            Op::InputLayernorm,
            Op::MlpUpProj,
            Op::MlpDownProj,
            Op::MlpAct,
            Op::Add,
        ];
        if self.second_norm {
            ops.push(Op::PostAttentionLayernorm);
        }
        if self.tensor_parallel > 1 && self.fabric.is_none() {
            ops.push(Op::AllReduce);
        }
        if self.layers.len() > 1 && self.fabric.is_none() {
            ops.push(Op::SendRecv);
        }
        if self.host {
            ops.extend(Op::HOST);
        }
        ops
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys
    }

    pub(super) fn across_nodes(&self) -> bool {
        self.across_nodes
    }

    fn key_tokens(&self, tokens: u32) -> u32 {
        match self.keys {
            Keys::Exact => tokens,
            Keys::Vidur => tokens.div_ceil(8) * 8,
        }
    }

    fn round_up(&self, tokens: u64) -> u64 {
        tokens.div_ceil(self.granularity) * self.granularity
    }

    /// Tokens a decode reads, on average.
    fn decode_kv(&self, shape: &StepShape) -> f64 {
        let requests = u64::from(shape.decode_requests);
        // Tokens processed so far: the context, and the token just fed in.
        let processed = shape.decode_context_tokens + requests;
        match self.keys {
            Keys::Exact => processed as f64 / requests as f64,
            Keys::Vidur => self.round_up(processed / requests) as f64,
        }
    }

    /// Vidur's one chunk for all prompt chunks of a step.
    fn merged_chunk(&self, shape: &StepShape) -> [f64; 2] {
        let (mut kv, mut squares) = (0, 0.0);
        for chunk in &shape.prefills {
            kv += self.round_up(u64::from(chunk.context_tokens));
            squares += f64::from(chunk.new_tokens).powi(2);
        }
        [kv as f64, squares.sqrt().round_ties_even()]
    }
}

fn unsupported(model: &ModelSpec, what: &str) -> VidurError {
    VidurError::Unsupported(format!(
        "{}: Vidur's profiles do not cover models with {what}",
        model.name
    ))
}

/// Sums of everything that depends on the number of tokens alone, ms.
#[derive(Debug, Clone, Copy)]
struct TokenTimes {
    /// `pre_proj + post_proj + rope`.
    projections: f64,
    all_reduce: f64,
    norm: f64,
    mlp: f64,
    add: f64,
    send_recv: f64,
}

/// Prices steps from operator times.
#[derive(Debug)]
pub(super) struct Composed<T> {
    pub(super) times: T,
    deployment: Deployment,
    tokens: ByCount<TokenTimes>,
    /// Cache writes of all tokens, or of decodes; of prompts.
    saves: [ByCount<f64>; 2],
    /// Start-up of prompt attention and of a cache write: counted once where
    /// several are merged.
    prefill_launch_ms: f64,
    save_launch_ms: f64,
}

impl<T: OperatorTimes> Composed<T> {
    pub(super) fn new(times: T, deployment: Deployment) -> Self {
        let mut composed = Self {
            times,
            deployment,
            tokens: ByCount::new(),
            saves: [ByCount::new(), ByCount::new()],
            prefill_launch_ms: 0.0,
            save_launch_ms: 0.0,
        };
        if composed.deployment.keys == Keys::Exact {
            composed.prefill_launch_ms = composed.usable(composed.times.prefill_ms(0.0, 1.0));
        }
        if composed.times.saves_by_phase() {
            composed.save_launch_ms = composed.phase_save_ms(Rows::Decode, 1);
        }
        composed
    }

    /// What prices communication in the place of profiles.
    pub(super) fn fabric(&self) -> Option<&Fabric> {
        self.deployment.fabric.as_deref()
    }

    /// What is made of a time an estimator came up with.
    fn usable(&self, time_ms: f64) -> f64 {
        match self.deployment.keys {
            Keys::Exact => time_ms.max(0.0),
            Keys::Vidur => time_ms,
        }
    }

    fn op(&self, op: Op, count: u32) -> f64 {
        let over_fabric = self.deployment.over_fabric_ms(op, count);
        over_fabric.unwrap_or_else(|| self.usable(self.times.by_count_ms(op, count)))
    }

    fn all_reduce_ms(&self, tokens: u32) -> f64 {
        let Deployment {
            tensor_parallel,
            launch_ms,
            skew_ms,
            ..
        } = self.deployment;
        if tensor_parallel == 1 {
            return 0.0;
        }
        let ranks = f64::from(tensor_parallel);
        self.op(Op::AllReduce, tokens) + launch_ms + skew_ms * ranks.powf(1.25)
    }

    fn token_times(&self, tokens: u32) -> TokenTimes {
        let op = |op| self.op(op, tokens);
        let all_reduce = self.all_reduce_ms(tokens);
        let second_norm = if self.deployment.second_norm {
            op(Op::PostAttentionLayernorm)
        } else {
            0.0
        };
        TokenTimes {
            projections: op(Op::AttnPreProj) + op(Op::AttnPostProj) + op(Op::AttnRope),
            all_reduce,
            norm: op(Op::InputLayernorm),
            mlp: op(Op::MlpUpProj)
                + op(Op::MlpDownProj)
                + op(Op::MlpAct)
                + all_reduce
                + second_norm,
            add: op(Op::Add) * self.deployment.adds_per_layer,
            send_recv: if self.deployment.layers.len() > 1 {
                op(Op::SendRecv)
            } else {
                0.0
            },
        }
    }

    fn save_ms(&self, shape: &StepShape) -> f64 {
        let (tokens, decodes) = (shape.prefill_tokens(), shape.decode_requests);
        if !self.times.saves_by_phase() {
            return self.phase_save_ms(Rows::All, tokens + decodes);
        }
        match (tokens, decodes) {
            (0, decodes) => self.phase_save_ms(Rows::Decode, decodes),
            (tokens, 0) => self.phase_save_ms(Rows::Prefill, tokens),
            (tokens, decodes) => {
                let further_ms = self.phase_save_ms(Rows::Decode, decodes) - self.save_launch_ms;
                self.phase_save_ms(Rows::Prefill, tokens) + further_ms.max(0.0)
            }
        }
    }

    fn phase_save_ms(&self, phase: Rows, tokens: u32) -> f64 {
        self.saves[usize::from(phase == Rows::Prefill)].get(tokens, |tokens| {
            self.usable(self.times.kv_cache_save_ms(phase, tokens))
        })
    }

    fn decode_ms(&self, shape: &StepShape) -> f64 {
        let requests = shape.decode_requests;
        if requests == 0 {
            return 0.0;
        }
        let time_ms = self
            .times
            .decode_ms(requests, self.deployment.decode_kv(shape));
        let several = f64::from(u8::from(requests > 1));
        self.usable(time_ms) * (1.0 + self.deployment.decode_batching * several)
    }

    fn prefill_ms(&self, shape: &StepShape) -> f64 {
        if shape.prefills.is_empty() {
            return 0.0;
        }
        let several = f64::from(u8::from(shape.prefills.len() > 1));
        let time_ms = match self.deployment.keys {
            Keys::Vidur => {
                let [kv, chunk] = self.deployment.merged_chunk(shape);
                self.times.prefill_ms(kv, chunk)
            }
            Keys::Exact => self.separate_chunks_ms(shape),
        };
        time_ms * (1.0 + self.deployment.prefill_batching * several)
    }

    /// One kernel for all chunks: their times, the start-up counted once.
    fn separate_chunks_ms(&self, shape: &StepShape) -> f64 {
        let chunk_ms = |chunk: &crate::execution_time::PrefillChunk| {
            self.usable(
                self.times
                    .prefill_ms(f64::from(chunk.context_tokens), f64::from(chunk.new_tokens)),
            )
        };
        let further_ms = |time_ms: f64| (time_ms - self.prefill_launch_ms).max(0.0);
        shape
            .prefills
            .iter()
            .map(chunk_ms)
            .reduce(|total, time_ms| total + further_ms(time_ms))
            .unwrap_or(0.0)
    }

    fn host_ms(&self, shape: &StepShape) -> f64 {
        if !self.deployment.host {
            return 0.0;
        }
        let requests = shape.decode_requests + narrow::<u32, _>(shape.prefills.len());
        Op::HOST
            .into_iter()
            .map(|op| self.op(op, requests))
            .reduce(|total, time_ms| total + time_ms)
            .unwrap_or(0.0)
    }
}

impl<T: OperatorTimes> StepCost for Composed<T> {
    fn stages(&self) -> u32 {
        narrow::<u32, _>(self.deployment.layers.len())
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        let tokens = shape.new_tokens();
        if tokens == 0 {
            return StageTime::default();
        }
        let times = self
            .tokens
            .get(self.deployment.key_tokens(tokens), |tokens| {
                self.token_times(tokens)
            });
        let attention = times.projections
            + self.save_ms(shape)
            + self.decode_ms(shape)
            + self.prefill_ms(shape)
            + times.all_reduce
            + times.norm;
        let block = (attention + times.mlp) + times.add;
        let stage = stage as usize;
        let send_recv = if stage + 1 == self.deployment.layers.len() {
            0.0
        } else {
            times.send_recv
        };
        StageTime {
            model_s: (block * self.deployment.layers[stage] + send_recv) * 1e-3,
            host_s: self.host_ms(shape) * 1e-3,
        }
    }

    one_by_one!(stage_time_of, tells_runs_apart, stage_times, decode_times);

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = Vec::new();
        if shape.new_tokens() > 0 {
            for stage in 0..self.stages() {
                self.price_stage(stage, shape, &mut rows);
            }
        }
        rows
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = Vec::new();
        if shape.new_tokens() > 0 {
            self.price_stage(stage, shape, &mut rows);
        }
        rows
    }
}

impl<T: OperatorTimes> Composed<T> {
    fn price_stage(&self, stage: u32, shape: &StepShape, rows: &mut Vec<PricedOperator>) {
        let deployment = &self.deployment;
        let layers = deployment.layers[stage as usize];
        let tokens = deployment.key_tokens(shape.new_tokens());
        let count = |op: Op| match op {
            Op::AllReduce => 2.0 * layers,
            Op::Add => deployment.adds_per_layer * layers,
            Op::SendRecv => 1.0,
            op if Op::HOST.contains(&op) => 1.0,
            _ => layers,
        };
        for op in deployment.operators() {
            let requests = shape.decode_requests + narrow::<u32, _>(shape.prefills.len());
            let (time_ms, features) = match op {
                Op::AttnDecode if shape.decode_requests == 0 => continue,
                Op::AttnPrefill if shape.prefills.is_empty() => continue,
                Op::SendRecv if stage + 1 == self.stages() => continue,
                Op::AttnDecode => (
                    self.decode_ms(shape),
                    [
                        f64::from(shape.decode_requests),
                        deployment.decode_kv(shape),
                    ],
                ),
                Op::AttnPrefill => {
                    let [kv, chunk] = deployment.merged_chunk(shape);
                    (self.prefill_ms(shape), [kv, chunk * chunk])
                }
                Op::AttnKvCacheSave => (self.save_ms(shape), [f64::from(shape.new_tokens()), 0.0]),
                Op::AllReduce => (self.all_reduce_ms(tokens), [f64::from(tokens), 0.0]),
                op if Op::HOST.contains(&op) => (self.op(op, requests), [f64::from(requests), 0.0]),
                op => (self.op(op, tokens), [f64::from(tokens), 0.0]),
            };
            rows.push(PricedOperator {
                stage,
                name: op.name().into(),
                operator: deployment.describe(op, shape, tokens),
                count: count(op),
                time_s: count(op) * time_ms * 1e-3,
                provenance: self.times.provenance(op, features),
            });
        }
    }
}

impl Deployment {
    /// The operator in terms all backends share.
    fn describe(&self, op: Op, shape: &StepShape, tokens: u32) -> Operator {
        let Shapes {
            hidden,
            intermediate,
            up_projections,
            heads,
            kv_heads,
            head_dim,
        } = self.shapes;
        // Vidur's profiles are of half precision throughout.
        let dtype = DType::Float16;
        let gemm = |out_features, in_features| Operator::Gemm {
            tokens,
            out_features,
            in_features,
            dtype,
        };
        let touched = |per_token: u32| Operator::Elementwise {
            bytes: f64::from(tokens) * f64::from(per_token) * dtype.bytes(),
        };
        let residual_bytes = f64::from(tokens) * f64::from(hidden) * dtype.bytes();
        match op {
            Op::AttnPreProj => gemm((heads + 2 * kv_heads) * head_dim, hidden),
            Op::AttnPostProj => gemm(hidden, heads * head_dim),
            Op::MlpUpProj => gemm(up_projections * intermediate, hidden),
            Op::MlpDownProj => gemm(hidden, intermediate),
            Op::AttnRope => touched(2 * (heads + kv_heads) * head_dim),
            Op::AttnKvCacheSave => touched(4 * kv_heads * head_dim),
            Op::InputLayernorm | Op::PostAttentionLayernorm => touched(2 * hidden),
            Op::MlpAct => touched((up_projections + 1) * intermediate),
            Op::Add => touched(3 * hidden),
            Op::AttnDecode => Operator::GenerationAttention {
                batch: shape.decode_requests,
                kv_tokens: self.decode_kv(shape),
                heads,
                kv_heads,
                head_dim,
                kv_dtype: dtype,
            },
            Op::AttnPrefill => {
                let chunks = narrow::<u32, _>(shape.prefills.len());
                let context = shape.prefills.iter().map(|chunk| chunk.context_tokens);
                Operator::ContextAttention {
                    batch: chunks,
                    new_tokens: shape.prefill_tokens() / chunks.max(1),
                    prefix_tokens: context.sum::<u32>() / chunks.max(1),
                    heads,
                    kv_heads,
                    head_dim,
                    kv_dtype: dtype,
                }
            }
            Op::AllReduce => Operator::AllReduce {
                bytes: residual_bytes,
                gpus: self.tensor_parallel,
            },
            Op::SendRecv => Operator::SendRecv {
                bytes: residual_bytes,
                across_nodes: self.across_nodes,
            },
            _ => Operator::Host {
                requests: shape.decode_requests + narrow::<u32, _>(shape.prefills.len()),
            },
        }
    }
}
