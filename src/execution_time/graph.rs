//! Operator graphs of models: which kernels and collectives one step of one
//! pipeline stage runs on the GPU with the most work, and how often.
//!
//! The graph is cut by what an operator depends on, because that is what
//! [`super::step_cost`] memoises by: tokens of the rank, tokens of all ranks
//! (expert pool), sequences and their contexts (attention), sampled rows (LM
//! head). Names are part of the interface; `docs/execution-time.md` lists them.
//! Knows shapes, not times.

use super::Operator;
use super::operator::{ExpertLoad, ExpertTokens, LatentWidths};
use crate::catalog::{Attention, LinearAttention, LocalAttention, ModelSpec, Moe};
use crate::memory::{Formats, Parallelism, WeightClass, check_divisibility};
use crate::units::DType;

/// Bytes of one activation element between layers (bfloat16).
const ACTIVATION_BYTES: f64 = 2.0;
/// Format of embedding, router and LM head, which engines leave unquantised.
const UNQUANTISED: DType = DType::Bfloat16;
/// Factor on the small kernels around prompt attention (rotary embedding, query
/// and key norm, cache write), as AIConfigurator applies it.
const ATTENTION_EXTRAS_FACTOR: f64 = 1.1;

/// An operator, its name in the graph, and how often it runs in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedOperator {
    /// Name, stable across models: `qkv_gemm`, `moe`, ...
    pub name: &'static str,
    /// What is computed.
    pub operator: Operator,
    /// Runs in the step; fractional where a correction factor is folded in.
    pub count: f64,
}

/// Layers of one pipeline stage by kind, and its place in the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Layers with softmax attention that looks back to the start.
    pub full_attention_layers: u32,
    /// Layers with softmax attention that does not.
    pub local_attention_layers: u32,
    /// Layers with linear attention.
    pub linear_attention_layers: u32,
    /// Layers with a dense MLP.
    pub dense_layers: u32,
    /// Layers with experts.
    pub moe_layers: u32,
    /// Whether the stage looks up embeddings.
    pub first: bool,
    /// Whether the stage has the LM head.
    pub last: bool,
    /// Whether the next stage sits in another node; `None` on the last stage.
    pub next_across_nodes: Option<bool>,
}

impl Stage {
    /// All layers.
    pub fn layers(&self) -> u32 {
        self.softmax_attention_layers() + self.linear_attention_layers
    }

    /// Layers with softmax attention of either reach.
    pub fn softmax_attention_layers(&self) -> u32 {
        self.full_attention_layers + self.local_attention_layers
    }
}

/// How tokens reach their experts and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertTransport {
    /// Every rank of the group sees every token: all-reduce over the tensor
    /// parallel ranks, all-gather and reduce-scatter over the attention ranks.
    Collectives,
    /// Each token travels to the GPUs of its experts only (DeepEP).
    AllToAll,
}

/// The operators of one deployment's steps.
#[derive(Debug, Clone)]
pub struct Graph {
    model: ModelSpec,
    parallelism: Parallelism,
    formats: Formats,
    transport: ExpertTransport,
    expert_load: ExpertLoad,
    /// Tokens every decode brings to a step.
    tokens_per_decode: u32,
    stages: Vec<Stage>,
}

impl Graph {
    /// The graph of `model` cut by `parallelism`.
    ///
    /// # Errors
    /// If the parallelism does not divide the model; says which figure.
    pub fn new(
        model: &ModelSpec,
        parallelism: Parallelism,
        formats: Formats,
        gpus_per_node: u32,
    ) -> Result<Self, String> {
        check_divisibility(model, &parallelism).map_err(|infeasible| infeasible.to_string())?;
        let spans_nodes = parallelism.gpus_per_stage() > gpus_per_node;
        let transport =
            if spans_nodes && parallelism.expert_parallel == parallelism.gpus_per_stage() {
                ExpertTransport::AllToAll
            } else {
                ExpertTransport::Collectives
            };
        let stages = (0..parallelism.pipeline_parallel)
            .map(|stage| stage_of(model, &parallelism, gpus_per_node, stage))
            .collect();
        Ok(Self {
            model: model.clone(),
            parallelism,
            formats,
            transport,
            expert_load: (model.moe.as_ref()).map_or(ExpertLoad::Balanced, |moe| {
                ExpertLoad::PowerLaw {
                    alpha: usual_alpha(moe),
                }
            }),
            tokens_per_decode: 1,
            stages,
        })
    }

    /// The same where every decode brings `tokens` to a step, drafted ones
    /// included.
    #[must_use]
    pub fn with_tokens_per_decode(self, tokens: u32) -> Self {
        Self {
            tokens_per_decode: tokens.max(1),
            ..self
        }
    }

    /// Tokens every decode brings to a step.
    pub fn tokens_per_decode(&self) -> u32 {
        self.tokens_per_decode
    }

    /// The same with another spread of tokens over experts.
    #[must_use]
    pub fn with_expert_load(self, expert_load: ExpertLoad) -> Self {
        Self {
            expert_load,
            ..self
        }
    }

    /// The same with every token travelling to its experts only, inside nodes too.
    /// Only for experts spread over all GPUs of a stage.
    #[must_use]
    pub fn with_all_to_all(self) -> Self {
        let everywhere = self.parallelism.expert_parallel == self.parallelism.gpus_per_stage();
        let transport = if everywhere && self.parallelism.expert_parallel > 1 {
            ExpertTransport::AllToAll
        } else {
            self.transport
        };
        Self { transport, ..self }
    }

    /// Expert groups and how many of them a token may visit; (1, 1): no limit.
    pub fn expert_groups(&self) -> (u32, u32) {
        (self.model.moe.as_ref()).map_or((1, 1), |moe| (moe.expert_groups, moe.groups_per_token))
    }

    /// The model.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// Pipeline stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// How the deployment is cut.
    pub fn parallelism(&self) -> &Parallelism {
        &self.parallelism
    }

    /// How tokens reach experts.
    pub fn transport(&self) -> ExpertTransport {
        self.transport
    }

    /// Whether shared experts run beside the routed ones on a second stream,
    /// which engines do in decode-only steps (captured graphs).
    pub fn overlaps_shared_expert(&self, stage: &Stage) -> bool {
        stage.moe_layers > 0
            && self
                .model
                .moe
                .as_ref()
                .is_some_and(|moe| moe.shared_intermediate_size > 0)
    }

    /// Operators that depend on nothing but the tokens of the rank: embedding,
    /// norms, projections, dense MLP, their collectives, and the send to the
    /// next stage.
    pub fn token_operators(
        &self,
        stage: &Stage,
        tokens: u32,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        if tokens == 0 {
            return;
        }
        let hidden_bytes = self.hidden_bytes(tokens);
        if stage.first {
            put(emit, "embedding", elementwise(hidden_bytes), 1.0);
            self.all_reduce("embedding_ar", tokens, 1.0, emit);
        }
        let layers = f64::from(stage.layers());
        // A fused residual add and norm reads both streams and writes both.
        put(emit, "add_norm_1", elementwise(4.0 * hidden_bytes), layers);
        self.projections(stage, tokens, emit);
        if self.model.norms_per_layer > 1 {
            put(emit, "add_norm_2", elementwise(4.0 * hidden_bytes), layers);
        }
        self.dense_mlp(stage, tokens, emit);
        if let Some(across_nodes) = stage.next_across_nodes {
            let operator = Operator::SendRecv {
                bytes: hidden_bytes,
                across_nodes,
            };
            put(emit, "p2p", operator, 1.0);
        }
    }

    /// The shared expert of the stage's MoE layers, on the rank's tokens.
    pub fn shared_expert_operators(
        &self,
        stage: &Stage,
        tokens: u32,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let Some(moe) = self.model.moe.as_ref() else {
            return;
        };
        let layers = f64::from(stage.moe_layers);
        if moe.shared_intermediate_size == 0 || stage.moe_layers == 0 || tokens == 0 {
            return;
        }
        // Under all-to-all every rank of the tensor-parallel group takes a slice
        // of the tokens and holds the whole shared expert.
        let (tokens, cut) = match self.transport {
            ExpertTransport::Collectives => (tokens, self.parallelism.tensor_parallel),
            ExpertTransport::AllToAll => (self.exchanged_tokens(tokens), 1),
        };
        let width = moe.shared_intermediate_size / cut;
        let hidden = self.model.hidden_size;
        let gemm = |m, n, k| self.gemm(WeightClass::SharedExperts, m, n, k);
        let gate_up = gemm(tokens, 2 * width, hidden);
        put(emit, "shared_gate_up_gemm", gate_up, layers);
        put(emit, "shared_act_gate", activation(tokens, width), layers);
        put(
            emit,
            "shared_ffn2_gemm",
            gemm(tokens, hidden, width),
            layers,
        );
        if moe.shared_expert_gate {
            // Scalar gate, its product with the output, and the final sum.
            let bytes = 2.0 * self.hidden_bytes(tokens);
            put(emit, "shared_expert_gate", elementwise(bytes), 3.0 * layers);
        }
    }

    /// The part of the routed experts' path that depends on the tokens of the
    /// rank: router, and collectives or exchanges sized by them.
    pub fn routed_rank_operators(
        &self,
        stage: &Stage,
        tokens: u32,
        decode_only: bool,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let Some(moe) = self.model.moe.as_ref() else {
            return;
        };
        if stage.moe_layers == 0 || tokens == 0 {
            return;
        }
        let layers = f64::from(stage.moe_layers);
        let router = Operator::Gemm {
            tokens,
            out_features: moe.experts,
            in_features: self.model.hidden_size,
            dtype: UNQUANTISED,
        };
        put(emit, "router_gemm", router, layers);
        match self.transport {
            ExpertTransport::Collectives => {
                self.all_reduce("moe_pre_dispatch", tokens, layers, emit);
                self.all_reduce("moe_post_dispatch", tokens, layers, emit);
            }
            ExpertTransport::AllToAll => self.exchange(moe, tokens, layers, decode_only, emit),
        }
    }

    /// The part of the routed experts' path that depends on the tokens of all
    /// attention ranks: the experts themselves, and the collectives that bring
    /// the tokens together.
    pub fn routed_pool_operators(
        &self,
        stage: &Stage,
        tokens: u32,
        decode_only: bool,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let Some(moe) = self.model.moe.as_ref() else {
            return;
        };
        if stage.moe_layers == 0 || tokens == 0 {
            return;
        }
        let layers = f64::from(stage.moe_layers);
        let ranks = self.parallelism.attention_data_parallel;
        let gather = self.transport == ExpertTransport::Collectives && ranks > 1;
        let bytes = self.hidden_bytes(tokens);
        if gather {
            let operator = Operator::AllGather { bytes, gpus: ranks };
            put(emit, "moe_pre_dispatch", operator, layers);
        }
        let experts = Operator::MoeExperts {
            tokens,
            hidden_size: self.model.hidden_size,
            intermediate_size: moe.intermediate_size,
            experts_per_token: moe.experts_per_token,
            experts: moe.experts,
            expert_tensor_parallel: self.parallelism.expert_tensor_parallel(),
            expert_parallel: self.parallelism.expert_parallel,
            dtype: self.formats.of_class(WeightClass::RoutedExperts),
            load: self.expert_load,
            arrival: match (self.transport, decode_only) {
                (ExpertTransport::Collectives, _) => ExpertTokens::Gathered,
                (ExpertTransport::AllToAll, false) => ExpertTokens::Sent,
                (ExpertTransport::AllToAll, true) => ExpertTokens::SentLowLatency,
            },
        };
        put(emit, "moe", experts, layers);
        if gather {
            let operator = Operator::ReduceScatter { bytes, gpus: ranks };
            put(emit, "moe_post_dispatch", operator, layers);
        }
    }

    /// Attention of `batch` equal prompt chunks, all layers of the stage.
    pub fn prefill_attention_operators(
        &self,
        stage: &Stage,
        batch: u32,
        new_tokens: u32,
        prefix_tokens: u32,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        if batch == 0 || new_tokens == 0 {
            return;
        }
        let layers = f64::from(stage.full_attention_layers);
        match self.model.attention {
            Attention::Gqa {
                head_dim, qk_norm, ..
            } => {
                let operator = Operator::ContextAttention {
                    batch,
                    new_tokens,
                    prefix_tokens,
                    heads: self.heads(),
                    kv_heads: self.kv_heads(),
                    head_dim,
                    kv_dtype: self.formats.kv_cache,
                };
                if stage.full_attention_layers > 0 || stage.local_attention_layers == 0 {
                    put(emit, "attention", operator, layers);
                    self.attention_extras("attention", head_dim, qk_norm, layers, emit);
                }
                if let Some((local, layers)) = self.local_attention(stage) {
                    let operator = Operator::LocalContextAttention {
                        batch,
                        new_tokens,
                        prefix_tokens,
                        heads: self.heads(),
                        kv_heads: self.kv_heads(),
                        head_dim,
                        kv_dtype: self.formats.kv_cache,
                        reach: local.reach,
                        reach_tokens: local.tokens,
                    };
                    put(emit, "local_attention", operator, layers);
                    self.attention_extras("local_attention", head_dim, qk_norm, layers, emit);
                }
            }
            Attention::Mla { .. } => {
                let operator = Operator::MlaContext {
                    batch,
                    new_tokens,
                    prefix_tokens,
                    heads: self.heads(),
                    widths: self.latent_widths(),
                    dtype: self.formats.of_class(WeightClass::Attention),
                    kv_dtype: self.formats.kv_cache,
                };
                put(emit, "mla_block", operator, layers);
            }
        }
        self.gated_delta_net(stage, true, batch, new_tokens, emit);
    }

    /// Attention of `batch` decodes that read `kv_tokens` keys each, the new one
    /// included, all layers of the stage. Drafted tokens share their sequence's
    /// keys, as more heads over them would; latent attention and gated delta nets
    /// are charged as for more sequences.
    pub fn decode_attention_operators(
        &self,
        stage: &Stage,
        batch: u32,
        kv_tokens: f64,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        if batch == 0 {
            return;
        }
        let layers = f64::from(stage.full_attention_layers);
        match self.model.attention {
            Attention::Gqa { head_dim, .. } => {
                let over = |kv_tokens| Operator::GenerationAttention {
                    batch,
                    kv_tokens,
                    heads: self.heads() * self.tokens_per_decode,
                    kv_heads: self.kv_heads(),
                    head_dim,
                    kv_dtype: self.formats.kv_cache,
                };
                if stage.full_attention_layers > 0 || stage.local_attention_layers == 0 {
                    put(emit, "attention", over(kv_tokens), layers);
                }
                if let Some((local, layers)) = self.local_attention(stage) {
                    // The same work as full attention over so few keys.
                    let operator = over(local.keys_read(kv_tokens));
                    put(emit, "local_attention", operator, layers);
                }
            }
            Attention::Mla { .. } => {
                let operator = Operator::MlaGeneration {
                    batch: batch * self.tokens_per_decode,
                    kv_tokens,
                    heads: self.heads(),
                    widths: self.latent_widths(),
                    dtype: self.formats.of_class(WeightClass::Attention),
                    kv_dtype: self.formats.kv_cache,
                };
                put(emit, "mla_block", operator, layers);
            }
        }
        self.gated_delta_net(stage, false, batch * self.tokens_per_decode, 1, emit);
    }

    /// The LM head over the rows sampled on one rank.
    pub fn head_operators(&self, stage: &Stage, rows: u32, emit: &mut impl FnMut(NamedOperator)) {
        if !stage.last || rows == 0 {
            return;
        }
        let operator = Operator::Gemm {
            tokens: rows,
            out_features: self.model.vocab_size / self.parallelism.tensor_parallel,
            in_features: self.model.hidden_size,
            dtype: UNQUANTISED,
        };
        put(emit, "logits_gemm", operator, 1.0);
    }

    /// Operations the model itself asks for, whatever the cut: two per weight
    /// and token (activated experts only), attention over `attended_pairs`
    /// query-key pairs (causal), the LM head over `sampled` rows. The numerator
    /// of model FLOPs utilisation.
    pub fn flops(&self, tokens: f64, attended_pairs: f64, sampled: f64) -> f64 {
        let work = WorkPerUnit::of(&self.model, 0..self.model.layers, true);
        work.flops(tokens, attended_pairs, sampled)
    }

    /// Local attention, and how many layers of a stage have it, if any.
    fn local_attention(&self, stage: &Stage) -> Option<(&LocalAttention, f64)> {
        let local = self.model.local_attention.as_ref()?;
        let layers = stage.local_attention_layers;
        (layers > 0).then(|| (local, f64::from(layers)))
    }

    /// Widths of latent attention; DeepSeek-V3's where there is none.
    fn latent_widths(&self) -> LatentWidths {
        match self.model.attention {
            Attention::Mla {
                q_lora_rank,
                kv_lora_rank,
                qk_nope_head_dim,
                qk_rope_head_dim,
                v_head_dim,
                ..
            } => LatentWidths {
                hidden_size: self.model.hidden_size,
                q_lora_rank,
                kv_lora_rank,
                qk_nope_head_dim,
                qk_rope_head_dim,
                v_head_dim,
            },
            Attention::Gqa { .. } => LatentWidths::DEEPSEEK_V3,
        }
    }

    fn heads(&self) -> u32 {
        self.model.attention.heads() / self.parallelism.tensor_parallel
    }

    /// KV heads of one GPU; replicated where there are fewer than GPUs.
    fn kv_heads(&self) -> u32 {
        match self.model.attention {
            Attention::Gqa { kv_heads, .. } => kv_heads.div_ceil(self.parallelism.tensor_parallel),
            Attention::Mla { .. } => 1,
        }
    }

    /// Bytes of the residual stream of `tokens`.
    fn hidden_bytes(&self, tokens: u32) -> f64 {
        f64::from(tokens) * f64::from(self.model.hidden_size) * ACTIVATION_BYTES
    }

    /// Tokens one GPU hands to the expert exchange: its slice of the rank's.
    fn exchanged_tokens(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.parallelism.tensor_parallel)
    }

    fn gemm(
        &self,
        class: WeightClass,
        tokens: u32,
        out_features: u32,
        in_features: u32,
    ) -> Operator {
        Operator::Gemm {
            tokens,
            out_features,
            in_features,
            dtype: self.formats.of_class(class),
        }
    }

    /// All-reduce of the residual stream over the tensor-parallel ranks.
    fn all_reduce(
        &self,
        name: &'static str,
        tokens: u32,
        count: f64,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let gpus = self.parallelism.tensor_parallel;
        if gpus > 1 {
            let bytes = self.hidden_bytes(tokens);
            put(emit, name, Operator::AllReduce { bytes, gpus }, count);
        }
    }

    /// Projections around attention, except MLA's, which belong to its block.
    fn projections(&self, stage: &Stage, tokens: u32, emit: &mut impl FnMut(NamedOperator)) {
        let tp = self.parallelism.tensor_parallel;
        let hidden = self.model.hidden_size;
        let gemm = |m, n, k| self.gemm(WeightClass::Attention, m, n, k);
        if let Attention::Gqa {
            head_dim,
            output_gate,
            ..
        } = self.model.attention
            && stage.softmax_attention_layers() > 0
        {
            let layers = f64::from(stage.softmax_attention_layers());
            let query = self.heads() * head_dim;
            let gates = if output_gate { query } else { 0 };
            let out = query + gates + 2 * self.kv_heads() * head_dim;
            put(emit, "qkv_gemm", gemm(tokens, out, hidden), layers);
            put(emit, "proj_gemm", gemm(tokens, hidden, query), layers);
        }
        if let Some(linear) = &self.model.linear_attention
            && stage.linear_attention_layers > 0
        {
            let layers = f64::from(stage.linear_attention_layers);
            let keys = linear.key_heads * linear.key_head_dim;
            let values = linear.value_heads * linear.value_head_dim;
            // Queries, keys, values and the output gate; decay and update rates
            // are a second, narrow projection.
            let inputs = gemm(tokens, (2 * keys + 2 * values) / tp, hidden);
            put(emit, "gdn_in_proj_gemm", inputs, layers);
            let rates = gemm(tokens, 2 * linear.value_heads / tp, hidden);
            put(emit, "gdn_in_proj_ba_gemm", rates, layers);
            let output = gemm(tokens, hidden, values / tp);
            put(emit, "gdn_out_proj_gemm", output, layers);
        }
    }

    /// Dense MLP layers with both their all-reduces: after attention and after
    /// the MLP.
    fn dense_mlp(&self, stage: &Stage, tokens: u32, emit: &mut impl FnMut(NamedOperator)) {
        if stage.dense_layers == 0 {
            return;
        }
        let layers = f64::from(stage.dense_layers);
        let width = self.model.intermediate_size / self.parallelism.tensor_parallel;
        let hidden = self.model.hidden_size;
        let (up_width, act) = if self.model.gated_mlp {
            (2 * width, activation(tokens, width))
        } else {
            let bytes = 2.0 * ACTIVATION_BYTES * f64::from(tokens) * f64::from(width);
            (width, elementwise(bytes))
        };
        let gemm = |m, n, k| self.gemm(WeightClass::DenseMlp, m, n, k);
        let up = gemm(tokens, up_width, hidden);
        put(emit, "gate_ffn1_gemm", up, layers);
        put(emit, "act_gate", act, layers);
        put(emit, "ffn2_gemm", gemm(tokens, hidden, width), layers);
        self.all_reduce("ar_1", tokens, layers, emit);
        self.all_reduce("ar_2", tokens, layers, emit);
    }

    /// Expert dispatch and combine, and what tensor parallelism adds to them:
    /// an all-reduce after attention, and an all-gather of the token slices.
    fn exchange(
        &self,
        moe: &Moe,
        tokens: u32,
        layers: f64,
        low_latency: bool,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        self.all_reduce("tp_allreduce", tokens, layers, emit);
        let tokens_per_rank = self.exchanged_tokens(tokens);
        let dispatch = Operator::ExpertDispatch {
            tokens_per_rank,
            hidden_size: self.model.hidden_size,
            experts_per_token: moe.experts_per_token,
            experts: moe.experts,
            expert_parallel: self.parallelism.expert_parallel,
            element_bytes: dispatched_bytes(self.formats.of_class(WeightClass::RoutedExperts)),
            low_latency,
        };
        put(emit, "moe_dispatch", dispatch, layers);
        let combine = Operator::ExpertCombine {
            tokens_per_rank,
            hidden_size: self.model.hidden_size,
            experts_per_token: moe.experts_per_token,
            experts: moe.experts,
            expert_parallel: self.parallelism.expert_parallel,
            element_bytes: ACTIVATION_BYTES,
            low_latency,
        };
        put(emit, "moe_combine", combine, layers);
        let gpus = self.parallelism.tensor_parallel;
        if gpus > 1 {
            let bytes = self.hidden_bytes(tokens);
            put(
                emit,
                "tp_allgather",
                Operator::AllGather { bytes, gpus },
                layers,
            );
        }
    }

    /// Query and key norm, rotary embedding and cache write of prompt attention,
    /// folded into it. As in AIConfigurator they are priced for one
    /// token's bytes, that is, at their start-up time whatever the chunk.
    fn attention_extras(
        &self,
        name: &'static str,
        head_dim: u32,
        qk_norm: bool,
        layers: f64,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let query_bytes = f64::from(self.heads() * head_dim) * ACTIVATION_BYTES;
        let key_bytes = f64::from(self.kv_heads() * head_dim) * ACTIVATION_BYTES;
        let mut extra = |bytes, runs: f64| {
            let count = runs * ATTENTION_EXTRAS_FACTOR * layers;
            put(emit, name, elementwise(bytes), count);
        };
        if qk_norm {
            extra(query_bytes, 4.0);
            extra(key_bytes, 4.0);
        }
        extra(query_bytes + key_bytes, 2.0);
        extra(key_bytes, 2.0);
    }

    fn gated_delta_net(
        &self,
        stage: &Stage,
        prefill: bool,
        batch: u32,
        new_tokens: u32,
        emit: &mut impl FnMut(NamedOperator),
    ) {
        let Some(linear) = &self.model.linear_attention else {
            return;
        };
        if stage.linear_attention_layers == 0 {
            return;
        }
        let tp = self.parallelism.tensor_parallel;
        let operator = Operator::GatedDeltaNet {
            prefill,
            batch,
            new_tokens,
            key_heads: linear.key_heads / tp,
            value_heads: linear.value_heads / tp,
            key_head_dim: linear.key_head_dim,
            value_head_dim: linear.value_head_dim,
        };
        let layers = f64::from(stage.linear_attention_layers);
        put(emit, "gated_delta_net", operator, layers);
    }
}

/// Bytes of an element sent to an expert whose weights have this format.
fn dispatched_bytes(weights: DType) -> f64 {
    if weights.is_weight_only() {
        ACTIVATION_BYTES
    } else {
        weights.bytes().clamp(1.0, ACTIVATION_BYTES)
    }
}

fn put(emit: &mut impl FnMut(NamedOperator), name: &'static str, operator: Operator, count: f64) {
    emit(NamedOperator {
        name,
        operator,
        count,
    });
}

fn elementwise(bytes: f64) -> Operator {
    Operator::Elementwise { bytes }
}

/// Gated activation: reads gate and up, writes their product.
fn activation(tokens: u32, width: u32) -> Operator {
    elementwise(3.0 * ACTIVATION_BYTES * f64::from(tokens) * f64::from(width))
}

/// How unevenly a model's router spreads tokens: AIConfigurator's exponents,
/// which it fitted to measured routing. Node-limited routing (DeepSeek) is the
/// more even one.
pub fn usual_alpha(moe: &Moe) -> f64 {
    if moe.expert_groups > 1 { 1.01 } else { 1.2 }
}

fn stage_of(model: &ModelSpec, parallelism: &Parallelism, gpus_per_node: u32, stage: u32) -> Stage {
    let stages = parallelism.pipeline_parallel;
    let layers = model.stage_layers(stage, stages);
    let total = layers.end - layers.start;
    let alike: Vec<_> = model.alike_layers(layers).collect();
    let count = |is: &dyn Fn(u32) -> bool| -> u32 {
        let counted = alike.iter().filter(|alike| is(alike.start));
        counted.map(|alike| alike.end - alike.start).sum()
    };
    let full = count(&|layer| model.is_full_attention_layer(layer));
    let local = count(&|layer| model.is_local_attention_layer(layer));
    let moe = count(&|layer| model.is_moe_layer(layer));
    let node_of = |stage: u32| stage * parallelism.gpus_per_stage() / gpus_per_node.max(1);
    let last = stage + 1 == stages;
    Stage {
        full_attention_layers: full,
        local_attention_layers: local,
        linear_attention_layers: total - full - local,
        dense_layers: total - moe,
        moe_layers: moe,
        first: stage == 0,
        last,
        next_across_nodes: (!last).then(|| node_of(stage) != node_of(stage + 1)),
    }
}

/// Operations of a model, or of some of its layers, by what they are sized by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkPerUnit {
    /// Per token: multiply-adds of every weight once (activated experts only).
    pub token_flops: f64,
    /// Per attended query-key pair, all heads and layers together that look back to
    /// the start.
    pub pair_flops: f64,
    /// The same of the other layers.
    pub local_pair_flops: f64,
    /// Keys that a token reads there at most, chunks on average.
    pub local_keys: f64,
    /// Per row through the LM head.
    pub row_flops: f64,
}

impl WorkPerUnit {
    /// Of the layers `layers` of `model`, and of its LM head.
    pub fn of(model: &ModelSpec, layers: std::ops::Range<u32>, lm_head: bool) -> Self {
        let (mut token_flops, mut pair_flops, mut local_pair_flops) = (0.0, 0.0, 0.0);
        let (projections, pair) = attention_flops(model);
        for alike in model.alike_layers(layers) {
            let layer = alike.start;
            let attention = match &model.linear_attention {
                Some(linear) if !model.is_softmax_attention_layer(layer) => {
                    linear_attention_flops(model, linear)
                }
                _ => projections,
            };
            let count = f64::from(alike.end - layer);
            if model.is_local_attention_layer(layer) {
                local_pair_flops += count * pair;
            } else if model.is_full_attention_layer(layer) {
                pair_flops += count * pair;
            }
            // Whole numbers: exact.
            token_flops += count * (attention + mlp_flops(model, layer));
        }
        let head = 2.0 * f64::from(model.hidden_size) * f64::from(model.vocab_size);
        Self {
            token_flops,
            pair_flops,
            local_pair_flops,
            local_keys: (model.local_attention.as_ref())
                .map_or(0.0, |local| local.keys_read(f64::INFINITY)),
            row_flops: if lm_head { head } else { 0.0 },
        }
    }

    /// Operations for that much work.
    pub fn flops(&self, tokens: f64, attended_pairs: f64, rows: f64) -> f64 {
        // No token attends to more keys than its window has, nor to more than there are.
        let local_pairs = attended_pairs.min(tokens * self.local_keys);
        tokens * self.token_flops
            + attended_pairs * self.pair_flops
            + local_pairs * self.local_pair_flops
            + rows * self.row_flops
    }
}

/// Operations per token of the projections of one attention layer, and per
/// attended query-key pair.
fn attention_flops(model: &ModelSpec) -> (f64, f64) {
    let hidden = f64::from(model.hidden_size);
    match model.attention {
        Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            output_gate,
            ..
        } => {
            let query = f64::from(heads * head_dim);
            let kv = f64::from(kv_heads * head_dim);
            let gate = if output_gate { query } else { 0.0 };
            (2.0 * hidden * (2.0 * query + gate + 2.0 * kv), 4.0 * query)
        }
        Attention::Mla {
            heads,
            qk_nope_head_dim,
            qk_rope_head_dim,
            v_head_dim,
            ..
        } => {
            let elements = (model.attention)
                .latent_projections(model.hidden_size, 1)
                .map_or(0.0, |projections| projections.elements());
            let widths = qk_nope_head_dim + qk_rope_head_dim + v_head_dim;
            (2.0 * elements, 2.0 * f64::from(heads * widths))
        }
    }
}

fn linear_attention_flops(model: &ModelSpec, linear: &LinearAttention) -> f64 {
    let hidden = f64::from(model.hidden_size);
    let keys = f64::from(linear.key_heads * linear.key_head_dim);
    let values = f64::from(linear.value_heads * linear.value_head_dim);
    let rates = 2.0 * f64::from(linear.value_heads);
    let projections = hidden * (2.0 * keys + 3.0 * values + rates);
    let convolution = f64::from(linear.conv_kernel) * (2.0 * keys + values);
    let recurrence = 3.0 * values * f64::from(linear.key_head_dim);
    2.0 * (projections + convolution + recurrence)
}

fn mlp_flops(model: &ModelSpec, layer: u32) -> f64 {
    let hidden = f64::from(model.hidden_size);
    let matrices = if model.gated_mlp { 3.0 } else { 2.0 };
    match &model.moe {
        Some(moe) if model.is_moe_layer(layer) => {
            let routed = f64::from(moe.experts_per_token) * f64::from(moe.intermediate_size);
            let shared = f64::from(moe.shared_intermediate_size);
            2.0 * hidden * (3.0 * (routed + shared) + f64::from(moe.experts))
        }
        _ => 2.0 * matrices * hidden * f64::from(model.intermediate_size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn graph(model: &str, tp: u32, pp: u32, ep: u32, dp: u32) -> Graph {
        let model = Catalog::builtin().model(model).unwrap();
        let formats = Formats::of(&model, None, None);
        let parallelism = Parallelism {
            tensor_parallel: tp,
            pipeline_parallel: pp,
            expert_parallel: ep,
            attention_data_parallel: dp,
        };
        Graph::new(&model, parallelism, formats, 8).unwrap()
    }

    /// All operators of a step of 100 tokens per rank but attention and head.
    fn operators(graph: &Graph, stage: usize, decode_only: bool) -> Vec<NamedOperator> {
        let stage = &graph.stages()[stage];
        let mut all = Vec::new();
        let mut emit = |named| all.push(named);
        graph.token_operators(stage, 100, &mut emit);
        graph.shared_expert_operators(stage, 100, &mut emit);
        graph.routed_rank_operators(stage, 100, decode_only, &mut emit);
        let pool = 100 * graph.parallelism().attention_data_parallel;
        graph.routed_pool_operators(stage, pool, decode_only, &mut emit);
        all
    }

    fn runs(all: &[NamedOperator], is: impl Fn(&Operator) -> bool) -> f64 {
        let of_kind = all.iter().filter(|named| is(&named.operator));
        of_kind.map(|named| named.count).sum()
    }

    fn is_all_reduce(operator: &Operator) -> bool {
        matches!(operator, Operator::AllReduce { .. })
    }

    #[test]
    fn two_all_reduces_per_layer_and_one_for_the_embedding() {
        for (model, layers, ep) in [("llama-3-70b", 80.0, 1), ("deepseek-671B", 61.0, 8)] {
            let all = operators(&graph(model, 8, 1, ep, 1), 0, false);
            assert_eq!(runs(&all, is_all_reduce), 2.0 * layers + 1.0, "{model}");
        }
    }

    #[test]
    fn deepseek_starts_with_dense_layers() {
        let graph = graph("deepseek-671B", 8, 1, 8, 1);
        assert_eq!(graph.stages()[0].dense_layers, 3);
        let all = operators(&graph, 0, true);
        let count = |name| {
            let of_name = all.iter().filter(|named| named.name == name);
            of_name.map(|named| named.count).sum::<f64>()
        };
        assert_eq!((count("ffn2_gemm"), count("moe")), (3.0, 58.0));
        assert!(graph.overlaps_shared_expert(&graph.stages()[0]));
    }

    #[test]
    fn attention_ranks_gather_their_tokens() {
        let all = operators(&graph("qwen3-30b-a3b", 1, 1, 4, 4), 0, false);
        assert_eq!(runs(&all, is_all_reduce), 0.0);
        let hidden_bytes = 2048.0 * 2.0;
        assert!(all.iter().any(|named| named.operator
            == Operator::AllGather {
                bytes: 400.0 * hidden_bytes,
                gpus: 4
            }));
    }

    #[test]
    fn beyond_a_node_tokens_travel_to_their_experts_only() {
        let inside = graph("deepseek-671B", 1, 1, 8, 8);
        assert_eq!(inside.transport(), ExpertTransport::Collectives);
        let across = graph("deepseek-671B", 2, 1, 32, 16);
        assert_eq!(across.transport(), ExpertTransport::AllToAll);
        let all = operators(&across, 0, true);
        let dispatch = |operator: &Operator| match *operator {
            Operator::ExpertDispatch {
                tokens_per_rank,
                low_latency,
                ..
            } => tokens_per_rank == 50 && low_latency,
            _ => false,
        };
        assert_eq!(runs(&all, dispatch), 58.0);
        // Attention's; the experts' is part of the exchange.
        assert_eq!(runs(&all, is_all_reduce), 58.0 + 2.0 * 3.0 + 1.0);
    }

    #[test]
    fn work_within_a_window_is_counted_as_such() {
        let model = Catalog::builtin().model("gpt-oss-20b").unwrap();
        let work = WorkPerUnit::of(&model, 0..model.layers, true);
        let pair = 12.0 * 4.0 * 64.0 * 64.0;
        assert_eq!((work.pair_flops, work.local_pair_flops), (pair, pair));
        // A decode over 9,000 keys reads 128 of them in every other layer.
        let attention = work.flops(1.0, 9000.0, 0.0) - work.token_flops;
        assert_eq!(attention, pair * (9000.0 + 128.0));
        let short = work.flops(1.0, 100.0, 0.0) - work.token_flops;
        assert_eq!(short, pair * 200.0);
    }

    #[test]
    fn stages_split_layers_and_send_where_the_next_one_sits() {
        let graph = graph("qwen3-next-80b", 4, 4, 4, 1);
        let full: Vec<_> = graph
            .stages()
            .iter()
            .map(|stage| (stage.full_attention_layers, stage.linear_attention_layers))
            .collect();
        assert_eq!(full, [(3, 9); 4]);
        let sends: Vec<_> = graph
            .stages()
            .iter()
            .map(|stage| stage.next_across_nodes)
            .collect();
        assert_eq!(sends, [Some(false), Some(true), Some(false), None]);
        let mut head = Vec::new();
        for stage in graph.stages() {
            graph.head_operators(stage, 7, &mut |named| head.push(named));
        }
        assert_eq!(head.len(), 1);
    }
}
