//! How engines share out the memory of a GPU: what they keep free, and of what
//! the fraction is that their user sets.

use serde::Serialize;

use super::Parallelism;
use crate::catalog::{Attention, DeviceSpec, EngineSpec, ModelSpec, StaticFraction};

const MIB: f64 = (1u64 << 20) as f64;

/// Which memory the KV cache gets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryRule {
    /// A share of device memory is kept free; weights, activations, buffers and KV
    /// cache have the rest (vLLM: 1 - `gpu_memory_utilization`; and
    /// `memory.margin_fraction`).
    Margin(f64),
    /// Weights and KV cache have a share of device memory; activations, buffers and
    /// CUDA graphs live in the rest (SGLang's `mem_fraction_static`; none: as SGLang
    /// computes it).
    StaticFraction(Option<f64>),
    /// The KV cache has a share of what is free beside weights, activations and
    /// buffers (TensorRT-LLM's `free_gpu_memory_fraction`).
    FreeFraction(f64),
}

impl MemoryRule {
    /// The rule of `engine`.
    pub fn of_engine(engine: &EngineSpec) -> Self {
        if let Some(fraction) = engine.free_gpu_memory_fraction {
            return Self::FreeFraction(fraction);
        }
        match (engine.mem_fraction_static, engine.gpu_memory_utilization) {
            (Some(StaticFraction::Fixed(fraction)), _) => Self::StaticFraction(Some(fraction)),
            (Some(StaticFraction::Computed(_)), _) => Self::StaticFraction(None),
            // The catalog insists on one of the three.
            (None, utilization) => Self::Margin(1.0 - utilization.unwrap_or(1.0)),
        }
    }

    /// The rule, where it is not just a share of the memory.
    pub(super) fn text(self) -> String {
        match self {
            Self::Margin(_) => String::new(),
            Self::StaticFraction(None) => " under mem_fraction_static auto".into(),
            Self::StaticFraction(Some(fraction)) => {
                format!(" under mem_fraction_static {fraction}")
            }
            Self::FreeFraction(fraction) => {
                format!(" under free_gpu_memory_fraction {fraction}")
            }
        }
    }

    /// Share of device memory kept free, if the fraction were of all of it.
    pub fn margin_fraction(self) -> f64 {
        match self {
            Self::Margin(margin) => margin,
            Self::StaticFraction(fraction) => 1.0 - fraction.unwrap_or(SGLANG_FALLBACK_FRACTION),
            Self::FreeFraction(fraction) => 1.0 - fraction,
        }
    }
}

/// SGLang's fraction where it knows no GPU memory: `server_args.py`,
/// `_handle_gpu_memory_settings`, 0.5.10 and 0.5.14.
const SGLANG_FALLBACK_FRACTION: f64 = 0.88;

/// What a GPU has to hold beside KV cache, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occupied {
    pub capacity: f64,
    /// CUDA context, cuBLAS workspaces and the like.
    pub runtime: f64,
    pub weights: f64,
    pub activations: f64,
    pub communication: f64,
    /// State of requests that does not grow.
    pub state: f64,
}

/// What [`sglang_reserve_bytes`] depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct SglangStart<'a> {
    pub model: &'a ModelSpec,
    pub device: &'a DeviceSpec,
    pub parallelism: &'a Parallelism,
    pub chunk_tokens: u32,
    pub kv_bytes_per_token: f64,
}

/// What is kept free under `rule`, the runtime's memory included, so that what
/// remains beside the other items is the KV cache's.
pub(super) fn reserve_bytes(rule: MemoryRule, on_gpu: Occupied, start: SglangStart<'_>) -> f64 {
    match rule {
        MemoryRule::Margin(margin) => on_gpu.capacity * margin + on_gpu.runtime,
        MemoryRule::StaticFraction(Some(fraction)) => {
            beside_static(on_gpu, on_gpu.capacity * (1.0 - fraction))
        }
        MemoryRule::StaticFraction(None) => {
            let reserve = sglang_reserve_bytes(start);
            let pool = on_gpu.capacity - reserve - on_gpu.weights - on_gpu.state;
            // Under which SGLang refuses to start, or has no room for one chunk of a
            // prompt, and asks for a larger fraction: the most that leaves the
            // reserve which it keeps at least.
            let least = start.kv_bytes_per_token * f64::from(start.chunk_tokens);
            let reserve = if pool < least {
                reserve.min(SGLANG_LEAST_RESERVE_BYTES)
            } else {
                reserve
            };
            beside_static(on_gpu, reserve)
        }
        MemoryRule::FreeFraction(fraction) => {
            let free = on_gpu.capacity
                - on_gpu.runtime
                - on_gpu.weights
                - on_gpu.activations
                - on_gpu.communication;
            on_gpu.runtime + (1.0 - fraction) * free.max(0.0)
        }
    }
}

/// Of the `rest` beside weights and KV cache, what activations and buffers leave
/// unused; they need the runtime's memory beside them, whatever the fraction.
fn beside_static(on_gpu: Occupied, rest: f64) -> f64 {
    (rest - on_gpu.activations - on_gpu.communication).max(on_gpu.runtime)
}

/// The least that SGLang keeps beside weights and KV cache on GPUs of more than
/// 60 GiB.
const SGLANG_LEAST_RESERVE_BYTES: f64 = 10_240.0 * MIB;

/// What SGLang sets aside for activations, CUDA graphs and the like when it starts:
/// `server_args.py`, `_handle_gpu_memory_settings`, the same in 0.5.10 and 0.5.14,
/// with the default attention backend, piecewise CUDA graphs on.
fn sglang_reserve_bytes(start: SglangStart<'_>) -> f64 {
    let gpu_mib = start.device.memory_bytes as f64 / MIB;
    let tp = start.parallelism.gpus_per_stage();
    let graph_batch = f64::from(sglang_graph_batch(gpu_mib, tp));
    let stages = f64::from(start.parallelism.pipeline_parallel);
    let mut mib = 512.0
        + 1.5 * f64::from(start.chunk_tokens.max(2048))
        + 2.0 * graph_batch
        + f64::from(tp) * stages / 8.0 * 1024.0;
    let ranks = f64::from(start.parallelism.attention_data_parallel);
    if ranks > 1.0 {
        let each = if graph_batch > 300.0 { 4.5 } else { 3.0 };
        mib += graph_batch * ranks * each;
    }
    mib += match start.model.attention {
        Attention::Gqa { .. } => 8.0 * f64::from(piecewise_graphs(start.chunk_tokens)),
        Attention::Mla { .. } => 1536.0,
    };
    if gpu_mib > 60.0 * 1024.0 {
        mib = mib.max(SGLANG_LEAST_RESERVE_BYTES / MIB);
    }
    mib * MIB
}

/// Largest batch SGLang captures a CUDA graph of.
fn sglang_graph_batch(gpu_mib: f64, tp: u32) -> u32 {
    let few = tp < 4;
    match gpu_mib / 1024.0 {
        gib if gib < 20.0 => 8,
        gib if gib < 35.0 => [80, 24][usize::from(few)],
        gib if gib < 60.0 => [160, 32][usize::from(few)],
        gib if gib < 160.0 => [512, 256][usize::from(few)],
        _ => 512,
    }
}

/// Lengths of prompts SGLang captures piecewise CUDA graphs of, up to a chunk.
fn piecewise_graphs(chunk_tokens: u32) -> u32 {
    const RANGES: [(u32, u32, u32); 6] = [
        (4, 32, 4),
        (48, 256, 16),
        (288, 512, 32),
        (576, 1024, 64),
        (1280, 4096, 256),
        (4608, u32::MAX, 512),
    ];
    let within = |&(first, last, step): &(u32, u32, u32)| {
        let last = last.min(chunk_tokens);
        (last + step).saturating_sub(first) / step
    };
    RANGES.iter().map(within).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn sglang_s_reserve_is_its_start_up_estimate() {
        let catalog = Catalog::builtin();
        let reserve = |model: &str, device: &str, tp, dp, chunk_tokens| {
            let start = SglangStart {
                model: &catalog.model(model).unwrap(),
                device: &catalog.device(device).unwrap(),
                parallelism: &Parallelism {
                    tensor_parallel: tp,
                    pipeline_parallel: 1,
                    expert_parallel: 1,
                    attention_data_parallel: dp,
                },
                chunk_tokens,
                kv_bytes_per_token: 0.0,
            };
            sglang_reserve_bytes(start) / MIB
        };
        // 8 + 14 + 8 + 8 + 12 + 8 lengths up to 8,192.
        assert_eq!(piecewise_graphs(8192), 58);
        assert_eq!(piecewise_graphs(100), 12);
        assert_eq!(piecewise_graphs(3), 0);
        let llama = 512.0 + 12_288.0 + 512.0 + 256.0 + 58.0 * 8.0;
        assert_eq!(reserve("llama-3-70b", "h100", 2, 1, 8192), llama);
        let deepseek = 512.0 + 24_576.0 + 1024.0 + 1024.0 + 1536.0;
        assert_eq!(reserve("deepseek-671B", "b200", 8, 1, 16_384), deepseek);
        let ranks = 512.0 + 12_288.0 + 1024.0 + 1024.0 + 512.0 * 8.0 * 4.5 + 1536.0;
        assert_eq!(reserve("deepseek-671B", "h200", 1, 8, 8192), ranks);
        // Small chunks: the least on large GPUs, and as it comes on small ones.
        assert_eq!(reserve("llama-3-8b", "h100", 1, 1, 2048), 10_240.0);
        let small = 512.0 + 3072.0 + 64.0 + 128.0 + 42.0 * 8.0;
        assert_eq!(reserve("llama-3-8b", "l40s", 1, 1, 2048), small);
    }
}
