//! A GPU and the node it sits in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::DType;

/// One device type. Bandwidths of links are per GPU and direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Name used in specs, e.g. `h200`.
    pub name: String,
    /// Other spellings (`h200_sxm`), compared case-insensitively.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Data sheets and repositories the figures come from, one line each.
    pub sources: Vec<String>,
    /// Dense peak throughput per format.
    pub peak_tflops: PeakFlops,
    /// Device memory, bytes.
    pub memory_bytes: u64,
    /// Device memory bandwidth, 10^9 bytes per second.
    pub memory_bandwidth_gb_per_s: f64,
    /// NVLink (or PCIe peer-to-peer, where there is no NVLink) bandwidth per GPU
    /// and direction, gigabits per second.
    pub nvlink_bandwidth_gbps: f64,
    /// Host link per GPU and direction, gigabits per second.
    pub pcie_bandwidth_gbps: f64,
    /// NIC bandwidth per GPU and direction, gigabits per second.
    pub nic_bandwidth_gbps: f64,
    /// GPUs that share one NVLink domain in the usual node.
    pub gpus_per_node: u32,
    /// Board power limit, watts.
    pub power_w: f64,
    /// Price of one GPU for an hour, US dollars; a starting point to be edited.
    pub price_usd_per_hour: f64,
    /// Where the price comes from.
    #[serde(default)]
    pub price_basis: PriceBasis,
    /// Device whose measured kernels stand in for this one's, if it has none of
    /// its own (`h800` uses `h100`). Links are always this device's own.
    #[serde(default)]
    pub kernels_of: Option<String>,
}

/// Where the price of a GPU comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PriceBasis {
    /// Somebody asks for it, or, in a file of the user's, the user pays it.
    #[default]
    Published,
    /// From the ratio of published prices of this GPU and another.
    Derived,
    /// Nobody publishes one.
    Assumed,
}

/// Dense peak throughput, 10^12 operations per second; absent: not supported
/// in hardware, and priced at bfloat16 speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeakFlops {
    /// bfloat16 and float16 tensor cores.
    pub bfloat16: f64,
    /// FP8 tensor cores.
    #[serde(default)]
    pub fp8: Option<f64>,
    /// INT8 tensor cores.
    #[serde(default)]
    pub int8: Option<f64>,
    /// 4-bit floating point tensor cores.
    #[serde(default)]
    pub nvfp4: Option<f64>,
}

/// What the shipped measurements of a device were not made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unlike {
    /// Arithmetic or memory bandwidth: kernels take other times.
    pub kernels: bool,
    /// Bandwidth of links: collectives take other times.
    pub links: bool,
}

impl DeviceSpec {
    /// Where its figures are others than those of `measured`.
    pub fn unlike(&self, measured: &Self) -> Unlike {
        let kernels =
            |device: &Self| (device.peak_tflops.clone(), device.memory_bandwidth_gb_per_s);
        let links = |device: &Self| (device.nvlink_bandwidth_gbps, device.nic_bandwidth_gbps);
        Unlike {
            kernels: kernels(self) != kernels(measured),
            links: links(self) != links(measured),
        }
    }

    /// Peak operations per second in `dtype` (bfloat16's where unsupported).
    pub fn peak_flops(&self, dtype: DType) -> f64 {
        let peaks = &self.peak_tflops;
        let tflops = match dtype {
            DType::Fp8 | DType::Fp8Block => peaks.fp8,
            DType::Int8 => peaks.int8,
            DType::Nvfp4 => peaks.nvfp4,
            // Beside 8-bit activations where 4-bit floating point is supported.
            DType::Mxfp4 => peaks.nvfp4.and(peaks.fp8),
            DType::Float32 => Some(peaks.bfloat16 / 2.0),
            DType::Float16 | DType::Bfloat16 | DType::Int4 => None,
        };
        tflops.unwrap_or(peaks.bfloat16) * 1e12
    }
}
