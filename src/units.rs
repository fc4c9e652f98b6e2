//! The few types and constants every module shares: data types and their
//! widths, and unit conversions. Bottom of the module order: uses nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::narrow;

/// Bytes in one gibibyte.
pub const GIB: f64 = (1u64 << 30) as f64;

/// Bytes per second carried by one gigabit per second (decimal giga).
pub const BYTES_PER_S_PER_GBPS: f64 = 1e9 / 8.0;

/// What many numbers are divided by. Powers of two, as KV cache block sizes and numbers
/// of ranks mostly are, divide by a shift, which takes a tenth of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divisor {
    value: u32,
    /// The power of two that it is.
    log2: Option<u8>,
}

impl Divisor {
    /// Divides by `value`, which is not zero.
    pub fn new(value: u32) -> Self {
        debug_assert!(value > 0, "division by zero");
        let log2 = value
            .is_power_of_two()
            .then(|| narrow::<u8, _>(value.ilog2()));
        Self { value, log2 }
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.value
    }

    /// Quotient and remainder.
    #[inline]
    pub fn div_rem(self, number: u32) -> (u32, u32) {
        match self.log2 {
            Some(log2) => (number >> log2, number & (self.value - 1)),
            None => (number / self.value, number % self.value),
        }
    }

    /// Quotient, rounded up.
    #[inline]
    pub fn div_ceil(self, number: u64) -> u64 {
        match self.log2 {
            Some(log2) => {
                let rest = number & u64::from(self.value - 1);
                (number >> log2) + u64::from(rest > 0)
            }
            None => number.div_ceil(u64::from(self.value)),
        }
    }
}

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
    /// NVIDIA 4-bit floating point, an fp8 scale per 16 elements.
    Nvfp4,
    /// 4-bit floating point of the OCP microscaling formats, an 8-bit exponent per 32
    /// elements (weight only on GPUs without 4-bit floating point).
    Mxfp4,
}

impl DType {
    /// Bytes one element takes in memory, block scales not counted.
    pub const fn bytes(self) -> f64 {
        match self {
            Self::Float32 => 4.0,
            Self::Float16 | Self::Bfloat16 => 2.0,
            Self::Fp8 | Self::Fp8Block | Self::Int8 => 1.0,
            Self::Int4 | Self::Nvfp4 | Self::Mxfp4 => 0.5,
        }
    }

    /// Whether weights of this format are widened for products with 16-bit
    /// activations.
    pub const fn is_weight_only(self) -> bool {
        matches!(self, Self::Int4 | Self::Mxfp4)
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
            Self::Mxfp4 => "mxfp4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shifts_divide_like_division(
            value in prop_oneof![1u32..300, (0u32..32).prop_map(|log2| 1 << log2)],
            number: u32,
        ) {
            let divisor = Divisor::new(value);
            prop_assert_eq!(divisor.div_rem(number), (number / value, number % value));
            let up = u64::from(number).div_ceil(u64::from(value));
            prop_assert_eq!(divisor.div_ceil(u64::from(number)), up);
        }
    }
}
