//! Consistency of catalog entries beyond their shape: what would otherwise end
//! in a division by zero or a nonsensical price.

use super::{Attention, DeviceSpec, EngineSpec, ModelSpec, StaticFraction};

/// Beyond any model there is; what is multiplied of them stays far from overflow.
const LAYERS_MAX: u32 = 10_000;
const WIDTH_MAX: u32 = 1 << 20;
/// Also of the width of a head.
const HEADS_MAX: u32 = 1 << 12;
const EXPERTS_MAX: u32 = 1 << 16;
const VOCABULARY_MAX: u32 = 1 << 26;

/// A figure out of range: dotted path of the key and what is allowed there.
pub(super) type Complaint = (String, String);

/// Checks `(path, ok, what is allowed)` triples; the first that fails is told.
fn first_failure(
    checks: impl IntoIterator<Item = (&'static str, bool, String)>,
) -> Result<(), Complaint> {
    match checks.into_iter().find(|(_, ok, _)| !ok) {
        Some((path, _, allowed)) => Err((path.to_owned(), allowed)),
        None => Ok(()),
    }
}

fn positive(path: &'static str, value: u32) -> (&'static str, bool, String) {
    (path, value > 0, "at least 1".into())
}

fn up_to(path: &'static str, value: u32, most: u32) -> (&'static str, bool, String) {
    let ok = (1..=most).contains(&value);
    (path, ok, format!("1 to {most}"))
}

fn positive_number(path: &'static str, value: f64) -> (&'static str, bool, String) {
    let allowed = "a positive number".into();
    (path, value.is_finite() && value > 0.0, allowed)
}

fn not_negative(path: &'static str, value: f64) -> (&'static str, bool, String) {
    let allowed = "a number of at least 0".into();
    (path, value.is_finite() && value >= 0.0, allowed)
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
            up_to("layers", self.layers, LAYERS_MAX),
            up_to("hidden_size", self.hidden_size, WIDTH_MAX),
            up_to("vocab_size", self.vocab_size, VOCABULARY_MAX),
            positive("max_position_tokens", self.max_position_tokens),
            up_to("intermediate_size", self.intermediate_size, WIDTH_MAX),
            (
                "norms_per_layer",
                (1..=4).contains(&self.norms_per_layer),
                "1 to 4".into(),
            ),
        ])?;
        self.attention.check()?;
        if let Some(linear) = &self.linear_attention {
            first_failure([
                (
                    "linear_attention.full_attention_interval",
                    linear.full_attention_interval > 1,
                    "at least 2 (1 would leave no linear layer)".into(),
                ),
                up_to("linear_attention.key_heads", linear.key_heads, HEADS_MAX),
                up_to(
                    "linear_attention.key_head_dim",
                    linear.key_head_dim,
                    HEADS_MAX,
                ),
                up_to(
                    "linear_attention.value_head_dim",
                    linear.value_head_dim,
                    HEADS_MAX,
                ),
                up_to(
                    "linear_attention.conv_kernel",
                    linear.conv_kernel,
                    HEADS_MAX,
                ),
                (
                    "linear_attention.value_heads",
                    (1..=HEADS_MAX).contains(&linear.value_heads)
                        && linear.value_heads.is_multiple_of(linear.key_heads),
                    format!("a multiple of key_heads {}", linear.key_heads),
                ),
            ])?;
        }
        if let Some(local) = &self.local_attention {
            let all_layers = 0..self.layers;
            first_failure([
                positive("local_attention.tokens", local.tokens),
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
                up_to("moe.experts", moe.experts, EXPERTS_MAX),
                up_to("moe.intermediate_size", moe.intermediate_size, WIDTH_MAX),
                (
                    "moe.shared_intermediate_size",
                    moe.shared_intermediate_size <= WIDTH_MAX,
                    format!("0 to {WIDTH_MAX}"),
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
                up_to("attention.heads", *heads, HEADS_MAX),
                up_to("attention.head_dim", *head_dim, HEADS_MAX),
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
                up_to("attention.heads", *heads, HEADS_MAX),
                (
                    "attention.q_lora_rank",
                    *q_lora_rank <= WIDTH_MAX,
                    format!("0 to {WIDTH_MAX}"),
                ),
                up_to("attention.kv_lora_rank", *kv_lora_rank, WIDTH_MAX),
                up_to("attention.qk_nope_head_dim", *qk_nope_head_dim, HEADS_MAX),
                up_to("attention.qk_rope_head_dim", *qk_rope_head_dim, HEADS_MAX),
                up_to("attention.v_head_dim", *v_head_dim, HEADS_MAX),
            ]),
        }
    }
}

impl DeviceSpec {
    /// Whether the figures make sense; else the key at fault and what is allowed.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        let peaks = &self.peak_tflops;
        let given = |path, peak: Option<f64>| positive_number(path, peak.unwrap_or(1.0));
        first_failure([
            positive_number("peak_tflops.bfloat16", peaks.bfloat16),
            given("peak_tflops.fp8", peaks.fp8),
            given("peak_tflops.int8", peaks.int8),
            given("peak_tflops.nvfp4", peaks.nvfp4),
            positive_number("memory_bytes", self.memory_bytes as f64),
            positive_number("memory_bandwidth_gb_per_s", self.memory_bandwidth_gb_per_s),
            positive_number("nvlink_bandwidth_gbps", self.nvlink_bandwidth_gbps),
            positive_number("pcie_bandwidth_gbps", self.pcie_bandwidth_gbps),
            positive_number("nic_bandwidth_gbps", self.nic_bandwidth_gbps),
            positive("gpus_per_node", self.gpus_per_node),
            positive_number("power_w", self.power_w),
            not_negative("price_usd_per_hour", self.price_usd_per_hour),
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
            positive("max_tokens_in_batch", self.max_tokens_in_batch),
            positive("batch_size_cap", self.batch_size_cap),
            positive("block_size", self.block_size),
            not_negative("host_overhead_s_per_step", self.host_overhead_s_per_step),
            not_negative(
                "host_overhead_s_per_request",
                self.host_overhead_s_per_request,
            ),
        ])
    }
}
