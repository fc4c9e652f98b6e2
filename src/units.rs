//! The few types and constants every module shares: data types and their
//! widths, and unit conversions. Bottom of the module order: uses nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes in one gibibyte.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Bytes per second carried by one gigabit per second (decimal giga).
pub const BYTES_PER_S_PER_GBPS: f64 = 1e9 / 8.0;

/// Numeric format of weights, activations or KV cache entries.
///
/// `Fp8Block` is FP8 with 128x128 block scales (as DeepSeek-V3 ships its
/// weights); it has the width of FP8 and kernels of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// IEEE single precision.
    Float32,
    /// IEEE half precision; priced as bfloat16 where only that was measured.
    Float16,
    /// Brain float.
    Bfloat16,
    /// FP8 with per-tensor or per-channel scales.
    Fp8,
    /// FP8 with 128x128 block scales.
    Fp8Block,
    /// 8-bit integers.
    Int8,
    /// 4-bit integers (weight only).
    Int4,
    /// NVIDIA 4-bit floating point with block scales.
    Nvfp4,
}

impl DType {
    /// Bytes one element takes in memory, block scales not counted.
    pub const fn bytes(self) -> f64 {
        match self {
            Self::Float32 => 4.0,
            Self::Float16 | Self::Bfloat16 => 2.0,
            Self::Fp8 | Self::Fp8Block | Self::Int8 => 1.0,
            Self::Int4 | Self::Nvfp4 => 0.5,
        }
    }

    /// The name used in YAML, Parquet and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Fp8 => "fp8",
            Self::Fp8Block => "fp8_block",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Nvfp4 => "nvfp4",
        }
    }
}
