//! The tables a device may have, and the layout of their files.

/// One kind of operator table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Matrix products.
    Gemm,
    /// Attention of prompts.
    ContextAttention,
    /// Attention of one new token per sequence.
    GenerationAttention,
    /// Whole MLA block over prompts.
    MlaContextModule,
    /// Whole MLA block, one new token per sequence.
    MlaGenerationModule,
    /// MLA attention alone, over prompts.
    ContextMla,
    /// MLA attention alone, one new token per sequence.
    GenerationMla,
    /// Batched products that absorb the KV up-projection in MLA decode.
    MlaBmm,
    /// Routed experts, balanced, with the engines' own kernels: those of the
    /// measurements below that can be right.
    Experts,
    /// The same with DeepGEMM's contiguous kernel, over prompts that DeepEP brought.
    ExpertsDeepgemmPrefill,
    /// The same with its masked kernel, one new token per sequence.
    ExpertsDeepgemmDecode,
    /// Routed experts as AIConfigurator looks them up.
    Moe,
    /// The same for layers that only an earlier version of the engine measured.
    MoeEarlier,
    /// Gated delta net kernels.
    GatedDeltaNet,
    /// All-reduce kernels of the engine, as replayed in CUDA graphs.
    AllReduce,
    /// NCCL collectives.
    Nccl,
    /// Token exchange between expert-parallel GPUs of one node (the engine's).
    ExpertExchange,
    /// The same, more model widths (from another engine).
    ExpertExchangeWide,
    /// The same over several nodes.
    ExpertExchangeMultinode,
}

/// Name of the measured column in every file: milliseconds of one call.
pub(super) const LATENCY: &str = "latency_ms";

impl Table {
    /// Every kind, in the order they are listed.
    pub const ALL: [Self; 19] = [
        Self::Gemm,
        Self::ContextAttention,
        Self::GenerationAttention,
        Self::MlaContextModule,
        Self::MlaGenerationModule,
        Self::ContextMla,
        Self::GenerationMla,
        Self::MlaBmm,
        Self::Experts,
        Self::ExpertsDeepgemmPrefill,
        Self::ExpertsDeepgemmDecode,
        Self::Moe,
        Self::MoeEarlier,
        Self::GatedDeltaNet,
        Self::AllReduce,
        Self::Nccl,
        Self::ExpertExchange,
        Self::ExpertExchangeWide,
        Self::ExpertExchangeMultinode,
    ];

    /// Name in manifests and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "gemm",
            Self::ContextAttention => "context_attention",
            Self::GenerationAttention => "generation_attention",
            Self::MlaContextModule => "mla_context_module",
            Self::MlaGenerationModule => "mla_generation_module",
            Self::ContextMla => "context_mla",
            Self::GenerationMla => "generation_mla",
            Self::MlaBmm => "mla_bmm",
            Self::Experts => "experts",
            Self::ExpertsDeepgemmPrefill => "experts_deepgemm_prefill",
            Self::ExpertsDeepgemmDecode => "experts_deepgemm_decode",
            Self::Moe => "moe",
            Self::MoeEarlier => "moe_earlier",
            Self::GatedDeltaNet => "gated_delta_net",
            Self::AllReduce => "all_reduce",
            Self::Nccl => "nccl",
            Self::ExpertExchange => "expert_exchange",
            Self::ExpertExchangeWide => "expert_exchange_wide",
            Self::ExpertExchangeMultinode => "expert_exchange_multinode",
        }
    }

    /// The table called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Text columns, first in the file.
    pub fn text_columns(self) -> &'static [&'static str] {
        match self {
            Self::Gemm => &["dtype"],
            Self::ContextAttention
            | Self::GenerationAttention
            | Self::ContextMla
            | Self::GenerationMla => &["kv_dtype"],
            Self::MlaContextModule | Self::MlaGenerationModule => &["dtype", "kv_dtype"],
            Self::MlaBmm => &["dtype", "side"],
            Self::Experts | Self::ExpertsDeepgemmPrefill | Self::ExpertsDeepgemmDecode => {
                &["dtype", "device", "kernels"]
            }
            Self::Moe | Self::MoeEarlier => &["dtype", "load"],
            Self::GatedDeltaNet => &["phase", "kernel"],
            Self::AllReduce => &[],
            Self::Nccl => &["collective"],
            Self::ExpertExchange | Self::ExpertExchangeWide | Self::ExpertExchangeMultinode => {
                &["mode", "phase"]
            }
        }
    }

    /// Whole-number columns, after the text columns; the last one is the axis
    /// of the curves, or the innermost axis of the grids. Rows are sorted by
    /// text and number columns in this order (but see `import` on GEMMs).
    pub fn number_columns(self) -> &'static [&'static str] {
        match self {
            Self::Gemm => &["out_features", "in_features", "tokens"],
            Self::ContextAttention => &["head_dim", "kv_heads", "heads", "tokens", "batch"],
            Self::GenerationAttention => &["head_dim", "kv_heads", "heads", "batch", "kv_tokens"],
            Self::MlaContextModule | Self::ContextMla => &["heads", "tokens", "batch"],
            Self::MlaGenerationModule | Self::GenerationMla => &["heads", "batch", "kv_tokens"],
            Self::MlaBmm => &["heads", "tokens"],
            Self::Experts
            | Self::ExpertsDeepgemmPrefill
            | Self::ExpertsDeepgemmDecode
            | Self::Moe
            | Self::MoeEarlier => &[
                "hidden_size",
                "intermediate_size",
                "experts_per_token",
                "experts",
                "expert_tensor_parallel",
                "expert_parallel",
                "tokens",
            ],
            Self::GatedDeltaNet => &["key_heads", "value_heads", "batch", "tokens"],
            Self::AllReduce | Self::Nccl => &["gpus", "elements"],
            Self::ExpertExchange | Self::ExpertExchangeWide | Self::ExpertExchangeMultinode => &[
                "gpus",
                "hidden_size",
                "experts_per_token",
                "experts",
                "tokens",
            ],
        }
    }
}
