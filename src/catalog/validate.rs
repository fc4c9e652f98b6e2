//! Consistency of catalog entries beyond their shape: what would otherwise end
//! in a division by zero or a nonsensical price.

use super::{Attention, DeviceSpec, EngineSpec, ModelSpec};

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

fn positive_number(path: &'static str, value: f64) -> (&'static str, bool, String) {
    let allowed = "a positive number".into();
    (path, value.is_finite() && value > 0.0, allowed)
}

fn not_negative(path: &'static str, value: f64) -> (&'static str, bool, String) {
    let allowed = "a number of at least 0".into();
    (path, value.is_finite() && value >= 0.0, allowed)
}

impl ModelSpec {
    /// Whether the figures fit together; else the key at fault and what is allowed.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        first_failure([
            positive("layers", self.layers),
            positive("hidden_size", self.hidden_size),
            positive("vocab_size", self.vocab_size),
            positive("max_position_tokens", self.max_position_tokens),
            positive("intermediate_size", self.intermediate_size),
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
                positive("linear_attention.key_heads", linear.key_heads),
                positive("linear_attention.key_head_dim", linear.key_head_dim),
                positive("linear_attention.value_head_dim", linear.value_head_dim),
                positive("linear_attention.conv_kernel", linear.conv_kernel),
                (
                    "linear_attention.value_heads",
                    linear.value_heads > 0 && linear.value_heads.is_multiple_of(linear.key_heads),
                    format!("a multiple of key_heads {}", linear.key_heads),
                ),
            ])?;
        }
        if let Some(moe) = &self.moe {
            first_failure([
                positive("moe.experts", moe.experts),
                positive("moe.intermediate_size", moe.intermediate_size),
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
                positive("attention.heads", *heads),
                positive("attention.head_dim", *head_dim),
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
                positive("attention.heads", *heads),
                positive("attention.q_lora_rank", *q_lora_rank),
                positive("attention.kv_lora_rank", *kv_lora_rank),
                positive("attention.qk_nope_head_dim", *qk_nope_head_dim),
                positive("attention.qk_rope_head_dim", *qk_rope_head_dim),
                positive("attention.v_head_dim", *v_head_dim),
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
        first_failure([
            positive("max_tokens_in_batch", self.max_tokens_in_batch),
            positive("batch_size_cap", self.batch_size_cap),
            positive("block_size", self.block_size),
            (
                "gpu_memory_utilization",
                self.gpu_memory_utilization > 0.0 && self.gpu_memory_utilization <= 1.0,
                "more than 0, at most 1".into(),
            ),
            not_negative("host_overhead_s_per_step", self.host_overhead_s_per_step),
            not_negative(
                "host_overhead_s_per_request",
                self.host_overhead_s_per_request,
            ),
        ])
    }
}
