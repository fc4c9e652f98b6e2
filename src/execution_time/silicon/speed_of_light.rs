//! The time an ideal device would take, from peak arithmetic and memory
//! bandwidth: the measure by which utilisation is carried from measured points
//! to others. Only ratios of these times ever enter a price (and the floor
//! under GEMM and decode attention times, which no real kernel beats).
//!
//! The figures are those of the devices that were *measured*, so that prices
//! do not depend on how a user describes his device.

use crate::number::whole_u64;
use crate::units::DType;

/// Peaks of a measured device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peaks {
    /// 16-bit operations per millisecond.
    bfloat16: f64,
    /// FP8 operations per millisecond; `None`: no FP8 units.
    fp8: Option<f64>,
    /// FP4 operations per millisecond.
    fp4: Option<f64>,
    /// Bytes per millisecond.
    memory: f64,
}

impl Peaks {
    /// Peaks of `device`, from NVIDIA's data sheets of the SXM boards (dense;
    /// B200 with the 7.7 TB/s of the HGX board).
    pub(super) fn of(device: &str) -> Option<Self> {
        let tera = 1e12 / 1e3;
        let peaks = |bfloat16: f64, fp8: Option<f64>, fp4: Option<f64>, memory: f64| Self {
            bfloat16: bfloat16 * tera,
            fp8: fp8.map(|f| f * tera),
            fp4: fp4.map(|f| f * tera),
            memory: memory * tera,
        };
        match device {
            "a100" => Some(peaks(312.0, None, None, 2.039)),
            "h100" => Some(peaks(989.0, Some(1978.0), None, 3.35)),
            "h200" => Some(peaks(989.0, Some(1978.0), None, 4.8)),
            "b200" => Some(peaks(2250.0, Some(4500.0), Some(9000.0), 7.7)),
            _ => None,
        }
    }

    fn operations(&self, dtype: DType) -> f64 {
        let special = match dtype {
            DType::Fp8 | DType::Fp8Block | DType::Int8 => self.fp8,
            DType::Nvfp4 => self.fp4,
            DType::Float32 | DType::Float16 | DType::Bfloat16 | DType::Int4 | DType::Mxfp4 => None,
        };
        special.unwrap_or(self.bfloat16)
    }

    /// Matrix product of `rows x inputs` and `inputs x outputs`.
    pub(super) fn gemm_ms(&self, dtype: DType, rows: f64, outputs: f64, inputs: f64) -> f64 {
        let operations = 2.0 * rows * outputs * inputs;
        let elements = rows * outputs + rows * inputs + outputs * inputs;
        let compute = operations / self.operations(dtype);
        compute.max(elements * stored_bytes(dtype) / self.memory)
    }

    /// Causal attention over a whole prompt, `[heads, tokens, batch]`.
    pub(super) fn context_attention_ms(
        &self,
        kv: Kv,
        head_dim: f64,
        [heads, tokens, batch]: [f64; 3],
    ) -> f64 {
        let kv_heads = kv.heads.unwrap_or(heads);
        let operations = 2.0 * batch * tokens * tokens * heads * head_dim;
        let bytes = 4.0 * batch * heads * tokens * head_dim
            + kv.dtype.bytes() * batch * 2.0 * kv_heads * tokens * head_dim;
        (operations / self.bfloat16).max(bytes / self.memory)
    }

    /// Attention of one token over `kv_tokens`, itself included,
    /// `[heads, batch, kv_tokens]`.
    pub(super) fn generation_attention_ms(
        &self,
        kv: Kv,
        head_dim: f64,
        [heads, batch, kv_tokens]: [f64; 3],
    ) -> f64 {
        let kv_heads = kv.heads.unwrap_or(heads);
        let past = kv_tokens - 1.0;
        let operations = 4.0 * batch * heads * head_dim * past;
        let bytes = batch * (4.0 * heads + 2.0 * kv_heads * past * kv.dtype.bytes()) * head_dim;
        (operations / self.decode_operations(kv.dtype)).max(bytes / self.memory)
    }

    /// MLA over a whole prompt (DeepSeek-V3 head widths), `[heads, tokens, batch]`.
    pub(super) fn context_mla_ms(&self, kv: DType, [heads, tokens, batch]: [f64; 3]) -> f64 {
        /// Widths of a query/key and of a value head together.
        const WIDTHS: f64 = 192.0 + 128.0;
        let operations = batch * heads * WIDTHS * tokens * tokens;
        let bytes = batch * heads * tokens * WIDTHS * (kv.bytes() + 2.0);
        (operations / self.bfloat16).max(bytes / self.memory)
    }

    /// MLA of one token over a compressed cache, `[heads, batch, kv_tokens]`;
    /// with `absorbed`, the products that absorb the up-projections too.
    pub(super) fn generation_mla_ms(
        &self,
        kv: DType,
        absorbed: Option<DType>,
        [heads, batch, kv_tokens]: [f64; 3],
    ) -> f64 {
        /// Compressed KV and rotary part (keys), compressed KV (values).
        const WIDTHS: f64 = 576.0 + 512.0;
        let operations = 2.0 * batch * heads * WIDTHS * kv_tokens;
        let bytes = batch * (heads * WIDTHS * 2.0 + (kv_tokens - 1.0) * 576.0 * kv.bytes());
        let mut compute = operations / self.decode_operations(kv);
        let mut memory = bytes / self.memory;
        if let Some(dtype) = absorbed {
            let (both_compute, both_memory) = self.mla_bmm_parts_ms(dtype, heads, batch);
            compute += 2.0 * both_compute;
            memory += 2.0 * both_memory;
        }
        compute.max(memory)
    }

    /// One of the products that absorb MLA's up-projections.
    pub(super) fn mla_bmm_ms(&self, dtype: DType, heads: f64, tokens: f64) -> f64 {
        let (compute, memory) = self.mla_bmm_parts_ms(dtype, heads, tokens);
        compute.max(memory)
    }

    fn mla_bmm_parts_ms(&self, dtype: DType, heads: f64, tokens: f64) -> (f64, f64) {
        let operations = 2.0 * tokens * heads * 128.0 * 512.0;
        let bytes = heads * (tokens * 640.0 + 128.0 * 512.0) * stored_bytes(dtype);
        (operations / self.operations(dtype), bytes / self.memory)
    }

    /// Routed experts of a layer on one GPU, load balanced; whole numbers of
    /// tokens and experts as the original counts them.
    pub(super) fn experts_ms(&self, dtype: DType, layer: ExpertLayer, tokens: f64) -> f64 {
        let routed = whole_u64(tokens.round()) * u64::from(layer.experts_per_token);
        let spread = u64::from(layer.expert_parallel).max(1);
        let cut = u64::from(layer.expert_tensor_parallel).max(1);
        let (hidden, inner) = (
            u64::from(layer.hidden_size),
            u64::from(layer.intermediate_size),
        );
        let operations = routed * hidden * inner * 3 * 2 / spread / cut;
        let active = (u64::from(layer.experts) / spread).min(routed / spread);
        let elements = routed / spread * hidden * 2
            + routed / spread * inner * 3 / cut
            + hidden * inner * 3 / cut * active;
        let compute = operations as f64 / self.operations(dtype);
        compute.max(elements as f64 * stored_bytes(dtype) / self.memory)
    }

    /// Routed experts of a layer on one GPU that tokens visit so often in all, once at
    /// least: the arithmetic of the visits, or the reading of the visited experts.
    pub(super) fn busiest_experts_ms(&self, dtype: DType, layer: ExpertLayer, visits: f64) -> f64 {
        let held = f64::from(layer.experts) / f64::from(layer.expert_parallel.max(1));
        let of_one = layer.all_elements() / f64::from(layer.experts.max(1));
        let visits = visits.max(1.0);
        let compute = 2.0 * visits * of_one / self.operations(dtype);
        compute.max(visits.min(held.max(1.0)) * of_one * stored_bytes(dtype) / self.memory)
    }

    /// Short convolution of a gated delta net over `tokens` in all.
    pub(super) fn convolution_ms(&self, heads: DeltaHeads, tokens: f64) -> f64 {
        /// Taps read, plus the bias, plus one write: 4 + 1 + 1.
        const ACCESSES: f64 = 6.0;
        tokens * heads.channels() * ACCESSES * 2.0 / self.memory
    }

    /// Recurrence of a gated delta net: `tokens` per sequence in chunks, or
    /// one token per sequence.
    pub(super) fn recurrence_ms(&self, heads: DeltaHeads, batch: f64, tokens: Option<f64>) -> f64 {
        let width = DeltaHeads::WIDTH;
        let state = heads.value * width * width;
        let chunks = tokens.map_or(0.0, |tokens| (tokens / 64.0).floor());
        let all = batch * tokens.unwrap_or(1.0);
        let bytes = all * (heads.channels() + heads.value * width) * 2.0
            + 2.0 * state * 4.0 * batch
            + 2.0 * chunks * state * 2.0 * batch;
        bytes / self.memory
    }

    /// Decode attention multiplies in the cache's format where the device can.
    fn decode_operations(&self, kv: DType) -> f64 {
        match kv {
            DType::Fp8 => self.fp8.unwrap_or(self.bfloat16),
            _ => self.bfloat16,
        }
    }
}

/// KV cache of an attention slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kv {
    /// Format.
    pub dtype: DType,
    /// KV heads; `None`: as many as query heads.
    pub heads: Option<f64>,
}

/// Shape of a layer of routed experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExpertLayer {
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub experts_per_token: u32,
    pub experts: u32,
    pub expert_tensor_parallel: u32,
    pub expert_parallel: u32,
}

impl ExpertLayer {
    /// Elements of all experts of the layer, cut as they are.
    pub(super) fn all_elements(&self) -> f64 {
        3.0 * f64::from(self.hidden_size)
            * f64::from(self.intermediate_size)
            * f64::from(self.experts)
            / f64::from(self.expert_tensor_parallel.max(1))
    }

    /// Whether the two differ only in how far experts are spread.
    pub(super) fn is_cut_like(&self, other: &Self) -> bool {
        Self {
            expert_parallel: other.expert_parallel,
            ..*self
        } == *other
    }
}

/// Heads of a gated delta net on one GPU, 128 wide.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeltaHeads {
    pub key: f64,
    pub value: f64,
}

impl DeltaHeads {
    /// Width of a head in everything measured.
    pub(super) const WIDTH: f64 = 128.0;

    /// Queries, keys and values side by side.
    fn channels(self) -> f64 {
        (2.0 * self.key + self.value) * Self::WIDTH
    }
}

/// Bytes of an element with its share of block scales: NVFP4 has one 8-bit
/// scale for 16 elements, MXFP4 one for 32.
fn stored_bytes(dtype: DType) -> f64 {
    match dtype {
        DType::Nvfp4 => 0.5 + 1.0 / 16.0,
        DType::Mxfp4 => 0.5 + 1.0 / 32.0,
        other => other.bytes(),
    }
}
