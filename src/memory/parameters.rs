//! Parameters: of a whole model, and the bytes of those one GPU holds.
//!
//! Every component is counted by one function of the ways it is cut; a whole
//! model is the count of one GPU that is cut no way at all.

use serde::Serialize;

use super::kv_cache::{conv_channels, kv_heads_on_gpu};
use super::{Formats, Parallelism, WeightClass};
use crate::catalog::{Attention, LinearAttention, ModelSpec, Moe};
use crate::units::DType;

/// Parameters of a whole model by component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterCount {
    /// Token embeddings.
    pub embedding: f64,
    /// Softmax attention incl. head norms and biases.
    pub attention: f64,
    /// Gated delta nets.
    pub linear_attention: f64,
    /// Dense MLPs.
    pub dense_mlp: f64,
    /// Routed experts, all of them.
    pub routed_experts: f64,
    /// Shared experts and their gates.
    pub shared_experts: f64,
    /// Routers.
    pub routers: f64,
    /// Norms of the residual stream, final norm included.
    pub norms: f64,
    /// LM head; 0 where it is the embedding matrix.
    pub lm_head: f64,
    /// A vision tower and its projector.
    pub vision: f64,
    /// Multi-token-prediction layers, without the embedding and LM head they
    /// share with the model. Not part of the total.
    pub mtp: f64,
    /// Sum, without multi-token prediction.
    pub total: f64,
    /// Those one token of text visits: the total less the routed experts not chosen, and
    /// vision.
    pub activated: f64,
}

/// Counts the parameters of a model.
pub fn parameters(model: &ModelSpec) -> ParameterCount {
    let cut = Cut::WHOLE;
    let sum = |count: &dyn Fn(u32) -> Count| -> f64 {
        (0..model.layers).map(|layer| count(layer).elements()).sum()
    };
    let embedding = f64::from(model.vocab_size) * f64::from(model.hidden_size);
    let lm_head = if model.tie_word_embeddings {
        0.0
    } else {
        embedding + lm_head_bias(model)
    };
    let attention = sum(&|l| softmax_attention_of(model, l, cut));
    let linear_attention = sum(&|l| linear_attention_of(model, l, cut));
    let dense_mlp = sum(&|l| dense_mlp_of(model, moe_of(model, l), cut));
    let routed_experts = sum(&|l| routed_experts_of(model, moe_of(model, l), cut));
    let shared_experts = sum(&|l| shared_experts_of(model, moe_of(model, l), cut));
    let routers = sum(&|l| router_of(model, moe_of(model, l)));
    let norms = sum(&|_| layer_norms(model)) + norm(model).elements();
    let total = embedding
        + attention
        + linear_attention
        + dense_mlp
        + routed_experts
        + shared_experts
        + routers
        + norms
        + lm_head
        + model.vision_parameters;
    let idle_share = model.moe.as_ref().map_or(0.0, |m| {
        1.0 - f64::from(m.experts_per_token) / f64::from(m.experts)
    });
    ParameterCount {
        embedding,
        attention,
        linear_attention,
        dense_mlp,
        routed_experts,
        shared_experts,
        routers,
        norms,
        lm_head,
        vision: model.vision_parameters,
        mtp: mtp(model, cut).elements(),
        total,
        activated: total - idle_share * routed_experts - model.vision_parameters,
    }
}

/// Bytes of the weights on one GPU of pipeline stage `stage` (0-based).
///
/// The first stage holds the embeddings and a vision tower, the last the final norm and the LM
/// head, both cut by vocabulary over the tensor-parallel ranks. Tied embeddings
/// are one matrix on a GPU that needs it for both. Formats narrower than 16 bits
/// apply to the GEMM weights of layers only: embeddings, LM head, norms, routers,
/// biases and the small projections of gated delta nets stay bfloat16.
pub fn stage_weights_bytes(
    model: &ModelSpec,
    parallelism: &Parallelism,
    formats: &Formats,
    stage: u32,
    include_mtp: bool,
) -> f64 {
    let stages = parallelism.pipeline_parallel;
    let cut = Cut::of(parallelism);
    let (first, last) = (stage == 0, stage + 1 == stages);
    let mut count = Count::default();
    for alike in model.alike_layers(model.stage_layers(stage, stages)) {
        let one = layer_of(model, alike.start, cut);
        alike.for_each(|_| count += one);
    }
    let vocabulary = Count::plain(vocabulary_rows(model, cut) * f64::from(model.hidden_size));
    if first {
        count += vocabulary;
        // Cut like the layers: vLLM and SGLang make towers of the same parallel matrices.
        count += Count::plain(model.vision_parameters / f64::from(cut.tp));
    }
    if last {
        count += norm(model);
        if !(first && model.tie_word_embeddings) {
            count += vocabulary;
            count += Count::plain(lm_head_bias(model) / f64::from(cut.tp));
        }
        if include_mtp {
            count += mtp(model, cut);
        }
    }
    count.bytes(formats)
}

/// Bytes that `redundant` more experts per layer add to a GPU of `stage`: its
/// slots, rounded up, less those it has anyway.
pub(super) fn redundant_experts_bytes(
    model: &ModelSpec,
    parallelism: &Parallelism,
    formats: &Formats,
    stage: u32,
    redundant: u32,
) -> f64 {
    let (Some(moe), true) = (&model.moe, redundant > 0) else {
        return 0.0;
    };
    let cut = Cut::of(parallelism);
    let slots = (moe.experts + redundant).div_ceil(cut.ep) - moe.experts / cut.ep;
    let layers = model
        .stage_layers(stage, parallelism.pipeline_parallel)
        .filter(|&layer| model.is_moe_layer(layer))
        .count();
    let expert = expert(model, moe, cut.expert_tp);
    expert.bytes(formats) * f64::from(slots) * layers as f64
}

/// Ways components are cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Attention, dense MLPs, shared experts and vocabulary.
    tp: u32,
    /// Routed experts, by expert.
    ep: u32,
    /// Routed experts, each of them.
    expert_tp: u32,
}

impl Cut {
    const WHOLE: Self = Self {
        tp: 1,
        ep: 1,
        expert_tp: 1,
    };

    fn of(parallelism: &Parallelism) -> Self {
        Self {
            tp: parallelism.tensor_parallel,
            ep: parallelism.expert_parallel,
            expert_tp: parallelism.expert_tensor_parallel(),
        }
    }
}

/// Parameters by how they are stored.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// GEMM weights by class, which take its format.
    gemm: [f64; WeightClass::ALL.len()],
    /// Everything that keeps at least 16 bits.
    plain: f64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        for (own, others) in self.gemm.iter_mut().zip(other.gemm) {
            *own += others;
        }
        self.plain += other.plain;
    }
}

impl Count {
    fn new(class: WeightClass, gemm: f64, plain: f64) -> Self {
        let mut count = Self::plain(plain);
        count.gemm[class as usize] = gemm;
        count
    }

    fn plain(elements: f64) -> Self {
        Self {
            plain: elements,
            ..Self::default()
        }
    }

    fn elements(self) -> f64 {
        self.gemm.iter().sum::<f64>() + self.plain
    }

    fn bytes(self, formats: &Formats) -> f64 {
        let plain = if formats.weights.bytes() < 2.0 {
            DType::Bfloat16
        } else {
            formats.weights
        };
        let classes = WeightClass::ALL.into_iter().zip(self.gemm);
        let gemm: f64 = classes
            .map(|(class, elements)| elements * stored_bytes(formats.of_class(class)))
            .sum();
        gemm + self.plain * plain.bytes()
    }
}

/// Bytes of one element incl. its share of the scales: a float32 per 128x128
/// block (DeepSeek-V3's fp8), an fp8 per 16 (NVFP4), an 8-bit exponent per 32
/// (MXFP4), a bfloat16 and a 4-bit zero point per 128 (group-wise int4).
fn stored_bytes(dtype: DType) -> f64 {
    let scales = match dtype {
        DType::Fp8Block => 4.0 / (128.0 * 128.0),
        DType::Nvfp4 => 1.0 / 16.0,
        DType::Mxfp4 => 1.0 / 32.0,
        DType::Int4 => 2.5 / 128.0,
        DType::Float32 | DType::Float16 | DType::Bfloat16 | DType::Fp8 | DType::Int8 => 0.0,
    };
    dtype.bytes() + scales
}

fn layer_of(model: &ModelSpec, layer: u32, cut: Cut) -> Count {
    let moe = moe_of(model, layer);
    let mut count = softmax_attention_of(model, layer, cut);
    count += linear_attention_of(model, layer, cut);
    count += dense_mlp_of(model, moe, cut);
    count += routed_experts_of(model, moe, cut);
    count += shared_experts_of(model, moe, cut);
    count += router_of(model, moe);
    count += layer_norms(model);
    count
}

fn softmax_attention_of(model: &ModelSpec, layer: u32, cut: Cut) -> Count {
    if model.is_softmax_attention_layer(layer) {
        softmax_attention(model, cut.tp)
    } else {
        Count::default()
    }
}

fn linear_attention_of(model: &ModelSpec, layer: u32, cut: Cut) -> Count {
    match &model.linear_attention {
        Some(linear) if !model.is_softmax_attention_layer(layer) => {
            linear_attention(linear, f64::from(model.hidden_size), cut.tp)
        }
        _ => Count::default(),
    }
}

/// The experts of a layer, if it has some.
fn moe_of(model: &ModelSpec, layer: u32) -> Option<&Moe> {
    model.moe.as_ref().filter(|_| model.is_moe_layer(layer))
}

fn dense_mlp_of(model: &ModelSpec, moe: Option<&Moe>, cut: Cut) -> Count {
    if moe.is_some() {
        Count::default()
    } else {
        let width = f64::from(model.intermediate_size);
        mlp(model, WeightClass::DenseMlp, width, cut.tp)
    }
}

fn routed_experts_of(model: &ModelSpec, moe: Option<&Moe>, cut: Cut) -> Count {
    let Some(moe) = moe else {
        return Count::default();
    };
    let expert = expert(model, moe, cut.expert_tp);
    let here = f64::from(moe.experts) / f64::from(cut.ep);
    Count {
        gemm: expert.gemm.map(|elements| elements * here),
        plain: expert.plain * here,
    }
}

/// One routed expert on one of `ways` ranks.
fn expert(model: &ModelSpec, moe: &Moe, ways: u32) -> Count {
    let width = f64::from(moe.intermediate_size);
    let mut expert = mlp(model, WeightClass::RoutedExperts, width, ways);
    if moe.bias {
        expert.plain += mlp_biases(model, width / f64::from(ways));
    }
    expert
}

fn shared_experts_of(model: &ModelSpec, moe: Option<&Moe>, cut: Cut) -> Count {
    let Some(moe) = moe else {
        return Count::default();
    };
    let width = f64::from(moe.shared_intermediate_size);
    let mut shared = mlp(model, WeightClass::SharedExperts, width, cut.tp);
    if moe.shared_expert_gate {
        shared += Count::plain(f64::from(model.hidden_size));
    }
    shared
}

fn router_of(model: &ModelSpec, moe: Option<&Moe>) -> Count {
    let Some(moe) = moe else {
        return Count::default();
    };
    // Group-limited routing (DeepSeek-V3) balances load with a bias per expert.
    let has_bias = moe.expert_groups > 1 || moe.bias;
    let bias = if has_bias { 1.0 } else { 0.0 };
    Count::plain((f64::from(model.hidden_size) + bias) * f64::from(moe.experts))
}

/// One softmax attention block on one of `tp` ranks.
fn softmax_attention(model: &ModelSpec, tp: u32) -> Count {
    let hidden = f64::from(model.hidden_size);
    match &model.attention {
        Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            qk_norm,
            qkv_bias,
            output_gate,
            output_bias,
            sinks,
        } => {
            let queries = f64::from(*heads) / f64::from(tp) * f64::from(*head_dim);
            let keys = f64::from(kv_heads_on_gpu(*kv_heads, tp)) * f64::from(*head_dim);
            let gate = if *output_gate { queries } else { 0.0 };
            let mut plain = 0.0;
            if *qkv_bias || model.projection_bias {
                plain += queries + 2.0 * keys;
            }
            if *output_bias || model.projection_bias {
                plain += hidden;
            }
            if *sinks {
                plain += f64::from(*heads) / f64::from(tp);
            }
            if *qk_norm {
                plain += 2.0 * f64::from(*head_dim);
            }
            let gemm = hidden * (queries + gate + 2.0 * keys) + queries * hidden;
            Count::new(WeightClass::Attention, gemm, plain)
        }
        Attention::Mla {
            q_lora_rank,
            kv_lora_rank,
            ..
        } => {
            let projections = model.attention.latent_projections(model.hidden_size, tp);
            let gemm = projections.map_or(0.0, |projections| projections.elements());
            let norms = f64::from(*q_lora_rank) + f64::from(*kv_lora_rank);
            Count::new(WeightClass::Attention, gemm, norms)
        }
    }
}

/// One gated delta net on one of `tp` ranks.
fn linear_attention(linear: &LinearAttention, hidden: f64, tp: u32) -> Count {
    let tp = f64::from(tp);
    let keys = f64::from(linear.key_heads) * f64::from(linear.key_head_dim) / tp;
    let value_heads = f64::from(linear.value_heads) / tp;
    let values = value_heads * f64::from(linear.value_head_dim);
    let convolution = f64::from(conv_channels(linear)) * f64::from(linear.conv_kernel) / tp;
    // Q, K, V and the output gate Z; then the output projection.
    let gemm = hidden * (2.0 * keys + 2.0 * values) + values * hidden;
    // Projections of beta and alpha, convolution, A and dt biases, head norm.
    let plain = hidden * 2.0 * value_heads
        + convolution
        + 2.0 * value_heads
        + f64::from(linear.value_head_dim);
    Count::new(WeightClass::Attention, gemm, plain)
}

/// One MLP of width `intermediate` on one of `ways` ranks.
fn mlp(model: &ModelSpec, class: WeightClass, intermediate: f64, ways: u32) -> Count {
    let hidden = f64::from(model.hidden_size);
    let width = intermediate / f64::from(ways);
    let plain = if model.projection_bias {
        mlp_biases(model, width)
    } else {
        0.0
    };
    let gemm = (up_projections(model) + 1.0) * hidden * width;
    Count::new(class, gemm, plain)
}

/// Projections into the MLP.
fn up_projections(model: &ModelSpec) -> f64 {
    if model.gated_mlp { 2.0 } else { 1.0 }
}

/// Biases of an MLP of width `width`.
fn mlp_biases(model: &ModelSpec, width: f64) -> f64 {
    if width > 0.0 {
        up_projections(model) * width + f64::from(model.hidden_size)
    } else {
        0.0
    }
}

fn norm(model: &ModelSpec) -> Count {
    let vectors = if model.layer_norm_bias { 2.0 } else { 1.0 };
    Count::plain(vectors * f64::from(model.hidden_size))
}

fn layer_norms(model: &ModelSpec) -> Count {
    Count::plain(f64::from(model.norms_per_layer) * norm(model).plain)
}

fn lm_head_bias(model: &ModelSpec) -> f64 {
    if model.projection_bias {
        f64::from(model.vocab_size)
    } else {
        0.0
    }
}

/// Vocabulary rows on one GPU: engines pad the vocabulary to a multiple of 64
/// and of the ranks.
fn vocabulary_rows(model: &ModelSpec, cut: Cut) -> f64 {
    f64::from(model.vocab_size.next_multiple_of(64).div_ceil(cut.tp))
}

/// The multi-token-prediction layers: each a layer like the last one, a
/// projection of two hidden states to one, and three norms (DeepSeek-V3
/// technical report, section 2.2).
fn mtp(model: &ModelSpec, cut: Cut) -> Count {
    let mut all = Count::default();
    for _ in 0..model.mtp_layers {
        let hidden = f64::from(model.hidden_size);
        all += layer_of(model, model.layers - 1, cut);
        all += Count::plain(2.0 * hidden * hidden);
        all += Count::plain(3.0 * norm(model).plain);
    }
    all
}
