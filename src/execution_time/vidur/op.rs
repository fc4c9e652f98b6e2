//! The operators of Vidur's profiles: their names, which file holds them, and
//! what they are a function of.

use std::fmt;

/// One profiled operator. Times are milliseconds of one run, of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// QKV projection.
    AttnPreProj,
    /// Attention output projection.
    AttnPostProj,
    /// Rotary embedding.
    AttnRope,
    /// New keys and values into the paged cache.
    AttnKvCacheSave,
    /// Attention of decodes over their contexts.
    AttnDecode,
    /// Attention of prompt chunks.
    AttnPrefill,
    /// Norm before attention.
    InputLayernorm,
    /// Norm before the MLP.
    PostAttentionLayernorm,
    /// MLP up (and gate) projection.
    MlpUpProj,
    /// MLP down projection.
    MlpDownProj,
    /// MLP activation.
    MlpAct,
    /// Residual addition.
    Add,
    /// Tensor-parallel sum of the residual stream.
    AllReduce,
    /// Residual stream to the next pipeline stage.
    SendRecv,
    /// Host: building the batch.
    Schedule,
    /// Host: sampling.
    SamplerE2e,
    /// Host: input tensors.
    PrepareInputsE2e,
    /// Host: outputs back to requests.
    ProcessModelOutputs,
    /// Host: messages between the engine and its workers.
    RayCommTime,
}

/// Which profile an operator is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// `mlp.csv`.
    Compute,
    /// `attention.csv`.
    Attention,
    /// `all_reduce.csv`.
    AllReduce,
    /// `send_recv.csv`.
    SendRecv,
    /// `cpu_overheads.csv`.
    CpuOverhead,
}

impl Profile {
    /// What the file is, for messages.
    pub fn description(self) -> &'static str {
        match self {
            Self::Compute => "compute profile",
            Self::Attention => "attention profile",
            Self::AllReduce => "all-reduce profile",
            Self::SendRecv => "send/receive profile",
            Self::CpuOverhead => "CPU overhead profile",
        }
    }
}

impl Op {
    /// All operators.
    pub const ALL: [Self; 19] = [
        Self::AttnPreProj,
        Self::AttnPostProj,
        Self::AttnRope,
        Self::AttnKvCacheSave,
        Self::AttnDecode,
        Self::AttnPrefill,
        Self::InputLayernorm,
        Self::PostAttentionLayernorm,
        Self::MlpUpProj,
        Self::MlpDownProj,
        Self::MlpAct,
        Self::Add,
        Self::AllReduce,
        Self::SendRecv,
        Self::Schedule,
        Self::SamplerE2e,
        Self::PrepareInputsE2e,
        Self::ProcessModelOutputs,
        Self::RayCommTime,
    ];
    /// The host operators, in the order Vidur adds them up.
    pub const HOST: [Self; 5] = [
        Self::Schedule,
        Self::SamplerE2e,
        Self::PrepareInputsE2e,
        Self::ProcessModelOutputs,
        Self::RayCommTime,
    ];

    /// The name in Vidur's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttnPreProj => "attn_pre_proj",
            Self::AttnPostProj => "attn_post_proj",
            Self::AttnRope => "attn_rope",
            Self::AttnKvCacheSave => "attn_kv_cache_save",
            Self::AttnDecode => "attn_decode",
            Self::AttnPrefill => "attn_prefill",
            Self::InputLayernorm => "input_layernorm",
            Self::PostAttentionLayernorm => "post_attention_layernorm",
            Self::MlpUpProj => "mlp_up_proj",
            Self::MlpDownProj => "mlp_down_proj",
            Self::MlpAct => "mlp_act",
            Self::Add => "add",
            Self::AllReduce => "all_reduce",
            Self::SendRecv => "send_recv",
            Self::Schedule => "schedule",
            Self::SamplerE2e => "sampler_e2e",
            Self::PrepareInputsE2e => "prepare_inputs_e2e",
            Self::ProcessModelOutputs => "process_model_outputs",
            Self::RayCommTime => "ray_comm_time",
        }
    }

    /// The operator of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The file that holds it.
    pub fn profile(self) -> Profile {
        match self {
            Self::AttnKvCacheSave | Self::AttnDecode | Self::AttnPrefill => Profile::Attention,
            Self::AllReduce => Profile::AllReduce,
            Self::SendRecv => Profile::SendRecv,
            Self::Schedule
            | Self::SamplerE2e
            | Self::PrepareInputsE2e
            | Self::ProcessModelOutputs
            | Self::RayCommTime => Profile::CpuOverhead,
            _ => Profile::Compute,
        }
    }

    /// The column with its median time.
    pub(super) fn time_column(self) -> String {
        match (self.profile(), self) {
            (_, Self::RayCommTime) => "ray_comm_time_mean".into(),
            (Profile::CpuOverhead, _) => format!("{}_median", self.name()),
            _ => format!("time_stats.{}.median", self.name()),
        }
    }

    /// Whether Vidur takes a missing time of it as zero.
    pub(super) fn may_be_unmeasured(self) -> bool {
        matches!(
            self,
            Self::AttnKvCacheSave | Self::PostAttentionLayernorm | Self::Add | Self::InputLayernorm
        )
    }

    /// What it is a function of, by the names of Vidur's columns.
    pub fn features(self) -> &'static [&'static str] {
        match (self.profile(), self) {
            (_, Self::AttnDecode) => &["batch_size", "kv_cache_size"],
            (_, Self::AttnPrefill) => &["kv_cache_size", "prefill_chunk_size_squared"],
            (Profile::CpuOverhead, _) => &["batch_size"],
            _ => &["num_tokens"],
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_operators() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(op));
        }
        assert_eq!(Op::from_name("attn"), None);
    }
}
