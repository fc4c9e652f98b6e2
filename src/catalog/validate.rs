//! Consistency of catalog entries beyond their shape: what would otherwise end
//! in a division by zero or a nonsensical price.

use std::ops::RangeInclusive;

use super::{Attention, DeviceSpec, EngineSpec, ModelSpec, StaticFraction};
use crate::limits::{
    BLOCK_TOKENS_MAX, DEVICE_FIGURE_MAX, DEVICE_FIGURE_MIN, EXPERTS_MAX, HEADS_MAX,
    HOST_OVERHEAD_S_MAX, LAYERS_MAX, MEMORY_BYTES_MAX, NODE_GPUS_MAX, PARAMETERS_B_MAX,
    SEQUENCE_TOKENS_MAX, VOCABULARY_MAX, WIDTH_MAX,
};
use crate::yaml::Document;

/// A figure out of range: dotted path of the key and what is allowed there.
pub(super) type Complaint = (String, String);

/// Keys of a model, and what a checkpoint's `config.json` may call them.
const CHECKPOINT_KEYS: [(&str, &[&str]); 22] = [
    ("layers", &["num_hidden_layers", "n_layer", "num_layers"]),
    ("hidden_size", &["n_embd", "d_model"]),
    ("max_position_tokens", &["max_position_embeddings"]),
    ("intermediate_size", &["intermediate_size_mlp", "n_inner"]),
    ("mtp_layers", &["num_nextn_predict_layers"]),
    ("attention.heads", &["num_attention_heads"]),
    ("attention.kv_heads", &["num_key_value_heads"]),
    ("attention.head_dim", &["head_dim"]),
    ("attention.q_lora_rank", &["q_lora_rank"]),
    ("attention.kv_lora_rank", &["kv_lora_rank"]),
    ("attention.qk_nope_head_dim", &["qk_nope_head_dim"]),
    ("attention.qk_rope_head_dim", &["qk_rope_head_dim"]),
    ("attention.v_head_dim", &["v_head_dim"]),
    (
        "linear_attention.full_attention_interval",
        &["full_attention_interval"],
    ),
    ("linear_attention.key_heads", &["linear_num_key_heads"]),
    ("linear_attention.value_heads", &["linear_num_value_heads"]),
    ("linear_attention.key_head_dim", &["linear_key_head_dim"]),
    (
        "linear_attention.value_head_dim",
        &["linear_value_head_dim"],
    ),
    ("linear_attention.conv_kernel", &["linear_conv_kernel_dim"]),
    (
        "moe.experts",
        &["num_experts", "num_local_experts", "n_routed_experts"],
    ),
    (
        "moe.experts_per_token",
        &["num_experts_per_tok", "experts_per_token"],
    ),
    ("moe.intermediate_size", &["moe_intermediate_size"]),
];

/// The key of `document` that a model's key was read from; the model's own if none is
/// found.
pub(super) fn written_as(document: &Document, path: String) -> String {
    let names = CHECKPOINT_KEYS.iter().find(|(key, _)| *key == path);
    let names = names.map_or(&[][..], |(_, names)| names);
    let found = ["", "text_config."].iter().find_map(|prefix| {
        let mut keys = std::iter::once(path.as_str()).chain(names.iter().copied());
        keys.find_map(|key| {
            let key = format!("{prefix}{key}");
            document.get(&key).is_some().then_some(key)
        })
    });
    found.unwrap_or(path)
}

/// Checks `(path, ok, what is allowed)` triples; the first that fails is told.
fn first_failure(
    checks: impl IntoIterator<Item = (&'static str, bool, String)>,
) -> Result<(), Complaint> {
    match checks.into_iter().find(|(_, ok, _)| !ok) {
        Some((path, _, allowed)) => Err((path.to_owned(), allowed)),
        None => Ok(()),
    }
}

type Check = (&'static str, bool, String);

/// A whole number within limits.
fn whole(path: &'static str, value: u32, allowed: RangeInclusive<u32>) -> Check {
    let said = format!(
        "a whole number from {} to {}",
        allowed.start(),
        allowed.end()
    );
    (path, allowed.contains(&value), said)
}

/// A number within limits.
fn number(path: &'static str, value: f64, allowed: RangeInclusive<f64>) -> Check {
    let said = format!("a number from {} to {}", allowed.start(), allowed.end());
    (path, allowed.contains(&value), said)
}

/// A figure of a device that something is divided by.
fn figure(path: &'static str, value: f64) -> Check {
    number(path, value, DEVICE_FIGURE_MIN..=DEVICE_FIGURE_MAX)
}

/// A share that may be absent.
fn share(path: &'static str, value: Option<f64>) -> (&'static str, bool, String) {
    let ok = value.is_none_or(|value| value > 0.0 && value <= 1.0);
    (path, ok, "more than 0, at most 1".into())
}

impl ModelSpec {
    /// Whether the figures fit together; else the key at fault and what is allowed.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        first_failure([
            whole("layers", self.layers, 1..=LAYERS_MAX),
            whole("hidden_size", self.hidden_size, 1..=WIDTH_MAX),
            whole("vocab_size", self.vocab_size, 1..=VOCABULARY_MAX),
            whole(
                "max_position_tokens",
                self.max_position_tokens,
                1..=SEQUENCE_TOKENS_MAX,
            ),
            whole("intermediate_size", self.intermediate_size, 1..=WIDTH_MAX),
            whole("norms_per_layer", self.norms_per_layer, 1..=4),
            whole("mtp_layers", self.mtp_layers, 0..=LAYERS_MAX),
            number(
                "vision_parameters",
                self.vision_parameters,
                0.0..=1e9 * PARAMETERS_B_MAX,
            ),
            number(
                "published_parameters_b",
                self.published_parameters_b,
                0.0..=PARAMETERS_B_MAX,
            ),
        ])?;
        self.attention.check()?;
        if let Some(linear) = &self.linear_attention {
            first_failure([
                (
                    "linear_attention.full_attention_interval",
                    (2..=LAYERS_MAX).contains(&linear.full_attention_interval),
                    format!("2 to {LAYERS_MAX} (1 would leave no linear layer)"),
                ),
                whole(
                    "linear_attention.key_heads",
                    linear.key_heads,
                    1..=HEADS_MAX,
                ),
                whole(
                    "linear_attention.key_head_dim",
                    linear.key_head_dim,
                    1..=HEADS_MAX,
                ),
                whole(
                    "linear_attention.value_head_dim",
                    linear.value_head_dim,
                    1..=HEADS_MAX,
                ),
                whole(
                    "linear_attention.conv_kernel",
                    linear.conv_kernel,
                    1..=HEADS_MAX,
                ),
                (
                    "linear_attention.value_heads",
                    (1..=HEADS_MAX).contains(&linear.value_heads)
                        && linear.value_heads.is_multiple_of(linear.key_heads),
                    format!(
                        "a multiple of key_heads {} up to {HEADS_MAX}",
                        linear.key_heads
                    ),
                ),
            ])?;
        }
        if let Some(local) = &self.local_attention {
            let all_layers = 0..self.layers;
            first_failure([
                whole(
                    "local_attention.tokens",
                    local.tokens,
                    1..=SEQUENCE_TOKENS_MAX,
                ),
                (
                    "local_attention.full_attention_interval",
                    local.full_attention_interval != 1,
                    "0, or at least 2 (1 would leave no local layer)".into(),
                ),
                (
                    "local_attention.full_attention_layers",
                    local.full_attention_interval == 0 || local.full_attention_layers.is_empty(),
                    "only where full_attention_interval is 0".into(),
                ),
                (
                    "local_attention.full_attention_layers",
                    (local.full_attention_layers.iter()).all(|layer| all_layers.contains(layer)),
                    format!("0 to {}, the last layer", self.layers - 1),
                ),
                (
                    "local_attention",
                    matches!(self.attention, Attention::Gqa { .. }),
                    "only beside attention of type gqa".into(),
                ),
            ])?;
        }
        if let Some(moe) = &self.moe {
            first_failure([
                (
                    "moe.layer_interval",
                    (1..=self.layers).contains(&moe.layer_interval),
                    format!("1 to {}, the number of layers", self.layers),
                ),
                whole("moe.experts", moe.experts, 1..=EXPERTS_MAX),
                whole(
                    "moe.intermediate_size",
                    moe.intermediate_size,
                    1..=WIDTH_MAX,
                ),
                whole(
                    "moe.shared_intermediate_size",
                    moe.shared_intermediate_size,
                    0..=WIDTH_MAX,
                ),
                (
                    "moe.experts_per_token",
                    (1..=moe.experts).contains(&moe.experts_per_token),
                    format!("1 to {}, the number of experts", moe.experts),
                ),
                (
                    "moe.first_dense_layers",
                    moe.first_dense_layers < self.layers,
                    format!("less than {}, the number of layers", self.layers),
                ),
                (
                    "moe.expert_groups",
                    moe.expert_groups > 0 && moe.experts.is_multiple_of(moe.expert_groups),
                    format!("a divisor of {}, the number of experts", moe.experts),
                ),
                (
                    "moe.groups_per_token",
                    (1..=moe.expert_groups).contains(&moe.groups_per_token),
                    format!("1 to {}, the expert groups", moe.expert_groups),
                ),
            ])?;
        }
        Ok(())
    }
}

impl Attention {
    fn check(&self) -> Result<(), Complaint> {
        match self {
            Self::Gqa {
                heads,
                kv_heads,
                head_dim,
                ..
            } => first_failure([
                whole("attention.heads", *heads, 1..=HEADS_MAX),
                whole("attention.head_dim", *head_dim, 1..=HEADS_MAX),
                (
                    "attention.kv_heads",
                    *kv_heads > 0 && heads.is_multiple_of(*kv_heads),
                    format!("a divisor of heads {heads}"),
                ),
            ]),
            Self::Mla {
                heads,
                q_lora_rank,
                kv_lora_rank,
                qk_nope_head_dim,
                qk_rope_head_dim,
                v_head_dim,
            } => first_failure([
                whole("attention.heads", *heads, 1..=HEADS_MAX),
                whole("attention.q_lora_rank", *q_lora_rank, 0..=WIDTH_MAX),
                whole("attention.kv_lora_rank", *kv_lora_rank, 1..=WIDTH_MAX),
                whole(
                    "attention.qk_nope_head_dim",
                    *qk_nope_head_dim,
                    1..=HEADS_MAX,
                ),
                whole(
                    "attention.qk_rope_head_dim",
                    *qk_rope_head_dim,
                    1..=HEADS_MAX,
                ),
                whole("attention.v_head_dim", *v_head_dim, 1..=HEADS_MAX),
            ]),
        }
    }
}

impl DeviceSpec {
    /// Whether the figures make sense; else the key at fault and what is allowed.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let peaks = &self.peak_tflops;
        let given = |path, peak: Option<f64>| figure(path, peak.unwrap_or(1.0));
        first_failure([
            figure("peak_tflops.bfloat16", peaks.bfloat16),
            given("peak_tflops.fp8", peaks.fp8),
            given("peak_tflops.int8", peaks.int8),
            given("peak_tflops.nvfp4", peaks.nvfp4),
            (
                "memory_bytes",
                (1..=MEMORY_BYTES_MAX).contains(&self.memory_bytes),
                format!("a whole number from 1 to {MEMORY_BYTES_MAX}"),
            ),
            figure("memory_bandwidth_gb_per_s", self.memory_bandwidth_gb_per_s),
            figure("nvlink_bandwidth_gbps", self.nvlink_bandwidth_gbps),
            figure("pcie_bandwidth_gbps", self.pcie_bandwidth_gbps),
            figure("nic_bandwidth_gbps", self.nic_bandwidth_gbps),
            whole("gpus_per_node", self.gpus_per_node, 1..=NODE_GPUS_MAX),
            figure("power_w", self.power_w),
            number(
                "price_usd_per_hour",
                self.price_usd_per_hour,
                0.0..=DEVICE_FIGURE_MAX,
            ),
        ])
    }
}

impl EngineSpec {
    /// Whether the figures make sense; else the key at fault and what is allowed.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let static_fraction = match self.mem_fraction_static {
            Some(StaticFraction::Fixed(fraction)) => Some(fraction),
            Some(StaticFraction::Computed(_)) | None => None,
        };
        let rules = [
            self.gpu_memory_utilization.is_some(),
            self.mem_fraction_static.is_some(),
            self.free_gpu_memory_fraction.is_some(),
        ];
        first_failure([
            (
                "",
                rules.iter().filter(|given| **given).count() == 1,
                "exactly one of gpu_memory_utilization, mem_fraction_static and \
                 free_gpu_memory_fraction"
                    .into(),
            ),
            share("gpu_memory_utilization", self.gpu_memory_utilization),
            share("mem_fraction_static", static_fraction),
            share("free_gpu_memory_fraction", self.free_gpu_memory_fraction),
            whole(
                "max_tokens_in_batch",
                self.max_tokens_in_batch,
                1..=SEQUENCE_TOKENS_MAX,
            ),
            whole(
                "batch_size_cap",
                self.batch_size_cap,
                1..=SEQUENCE_TOKENS_MAX,
            ),
            whole("block_size", self.block_size, 1..=BLOCK_TOKENS_MAX),
            number(
                "host_overhead_s_per_step",
                self.host_overhead_s_per_step,
                0.0..=HOST_OVERHEAD_S_MAX,
            ),
            number(
                "host_overhead_s_per_request",
                self.host_overhead_s_per_request,
                0.0..=HOST_OVERHEAD_S_MAX,
            ),
        ])
    }
}
