//! Backend `silicon`: operator prices from measurements.
//!
//! [`SiliconDb`] answers [`OperatorCost`] for one device from tables of kernel
//! times measured on it, shipped inside the binary (`data/silicon`, a selection
//! of NVIDIA's Apache-2.0 measurements) or read from a directory of the same
//! layout. Tables are decoded when they are first needed and shared by all
//! databases of a device. How a price is found, best first:
//!
//! 1. a measured point, as it stands;
//! 2. inside the measured range, a blend of neighbours (`curve`, `grid`),
//!    for matrix products of unmeasured shape the utilisation of near shapes
//!    (`sites`);
//! 3. outside, the utilisation of the nearest points, times the time an ideal
//!    device would take (`speed_of_light`);
//! 4. the same from something similar that was measured, which the
//!    [`Provenance`] names;
//! 5. if nothing is near, an error: the caller decides what stands in.
//!
//! Norms, activations and sends between pipeline stages are stated formulas
//! over the device's figures. Knows operators, not models.

mod aiconfigurator_experts;
mod attention;
mod believed;
mod collectives;
mod curve;
mod delta_net;
mod embedded;
mod exchange;
mod experts;
mod frame;
mod gemm;
mod grid;
mod import;
mod listing;
mod manifest;
mod mla;
mod sites;
mod speed_of_light;
mod store;
mod table;

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

pub(super) use attention::unpaid_share;
pub use experts::DOUBTFUL_MULTIPLE;
pub use import::{DEVICES, import_aiconfigurator};
pub use listing::{KeyRange, TableListing, list_tables};
pub use manifest::{MANIFEST_FILE, Manifest, TableEntry};
pub use store::shipped_manifest;
pub use table::Table;

use super::operator::{
    ExpertLoad, ExpertTokens, Operator, OperatorCost, Price, PricingError, Provenance,
};
use crate::catalog::{Catalog, DeviceSpec, LocalAttention};
use crate::input_file::tame_line;
use crate::number::whole_u32;
use crate::units::{BYTES_PER_S_PER_GBPS, DType};
use attention::Heads;
use collectives::{Collective, Links};
use delta_net::DeltaNet;
use exchange::{Direction, Payload};
use experts::{BusiestGpu, ExpertsTable};
use mla::MlaBlock;
use speed_of_light::ExpertLayer;
use store::DeviceTables;

/// Share of the memory bandwidth that memory-bound kernels reach
/// (AIConfigurator's `mem_bw_empirical_scaling_factor`, all its systems).
const MEMORY_EFFICIENCY: f64 = 0.8;
/// Time a memory-bound kernel takes however little it moves, seconds
/// (AIConfigurator's `mem_empirical_constant_latency`, all its systems).
const MEMORY_LATENCY_S: f64 = 3e-6;
/// Time before the first byte of a send arrives, seconds (AIConfigurator's
/// `p2p_latency`, all its systems).
const SEND_LATENCY_S: f64 = 10e-6;
/// Collectives were measured on elements of this many bytes.
const COLLECTIVE_ELEMENT_BYTES: f64 = 2.0;

/// The engine that has no DeepGEMM behind DeepEP.
const OWN_EXPERTS_ENGINE: &str = "trtllm";

/// What can go wrong with operator tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiliconError {
    /// No tables for the device.
    #[error("device `{device}` has no measured operators (measured: {known})")]
    UnknownDevice {
        /// The device asked for.
        device: String,
        /// Devices with tables.
        known: String,
    },
    /// A file could not be read.
    #[error("{path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Another program writes into the directory.
    #[error("{0}")]
    Locked(String),
    /// A file is not as expected.
    #[error("{file}: {}", tame_line(reason))]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A table could not be encoded.
    #[error("cannot encode a table: {reason}")]
    Encoding {
        /// Why.
        reason: String,
    },
}

/// How a time was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Measured,
    Interpolated,
    Extrapolated,
}

/// A time read off measured points.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    latency_ms: f64,
    how: How,
}

impl Reading {
    fn new(latency_ms: impl Into<f64>, how: How) -> Self {
        Self {
            latency_ms: latency_ms.into(),
            how,
        }
    }

    /// The same, times `share`.
    fn share(self, share: f64) -> Self {
        Self {
            latency_ms: self.latency_ms * share,
            ..self
        }
    }

    /// Both after one another; as good as the worse.
    fn plus(self, other: Self) -> Self {
        Self {
            latency_ms: self.latency_ms + other.latency_ms,
            how: self.how.max(other.how),
        }
    }

    /// On the straight line to `other`; as good as the worse.
    fn towards(self, other: Self, weight: f64) -> Self {
        Self {
            latency_ms: self.latency_ms + (other.latency_ms - self.latency_ms) * weight,
            how: self.how.max(other.how).max(How::Interpolated),
        }
    }

    fn noted(self, note: Option<&'static str>) -> Found {
        Found::from(self).noted(note)
    }

    fn substituted(self, note: Option<String>) -> Found {
        Found::from(self).substituted(note)
    }
}

/// A time from the tables, and what to say about it.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    latency_ms: f64,
    how: How,
    /// What was measured, if it is not quite what was asked for.
    from: Option<Cow<'static, str>>,
    /// Times the bound, where that is more than kernels should take.
    doubt: Option<f64>,
}

impl From<Reading> for Found {
    fn from(Reading { latency_ms, how }: Reading) -> Self {
        Self {
            latency_ms,
            how,
            from: None,
            doubt: None,
        }
    }
}

impl Found {
    /// The same, times `share`.
    fn share(mut self, share: f64) -> Self {
        self.latency_ms *= share;
        self
    }

    /// Both after one another; as good as the worse.
    fn plus(mut self, other: Self) -> Self {
        self.latency_ms += other.latency_ms;
        self.how = self.how.max(other.how);
        self.add_other_note(other.from);
        self
    }

    fn noted(mut self, note: Option<&'static str>) -> Self {
        self.add_note(note.map(Cow::Borrowed));
        self
    }

    fn substituted(mut self, note: Option<String>) -> Self {
        self.add_note(note.map(Cow::Owned));
        self
    }

    /// Adds what is said of another time, unless it is the same.
    fn add_other_note(&mut self, note: Option<Cow<'static, str>>) {
        if note != self.from {
            self.add_note(note);
        }
    }

    fn add_note(&mut self, note: Option<Cow<'static, str>>) {
        self.from = match (self.from.take(), note) {
            (Some(a), Some(b)) => Some(Cow::Owned(format!("{a}, {b}"))),
            (a, b) => a.or(b),
        };
    }
}

/// Why the tables have no answer.
#[derive(Debug)]
struct Missing {
    reason: Cow<'static, str>,
}

impl Missing {
    fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

impl From<Cow<'_, str>> for Missing {
    fn from(reason: Cow<'_, str>) -> Self {
        Self::new(reason.into_owned())
    }
}

/// A format in files.
fn parse_dtype(name: &str) -> Result<DType, SiliconError> {
    use DType::{Bfloat16, Fp8, Fp8Block, Int4, Nvfp4};
    [Bfloat16, Fp8, Fp8Block, Int4, Nvfp4]
        .into_iter()
        .find(|dtype| dtype.name() == name)
        .ok_or_else(|| SiliconError::Malformed {
            file: "operator table".into(),
            reason: format!("unknown format `{name}`"),
        })
}

/// Formats whose kernels may price `dtype`, with what to say about it.
fn dtypes_like(dtype: DType) -> &'static [(DType, Option<&'static str>)] {
    use DType::{Bfloat16, Float16, Float32, Fp8, Fp8Block, Int4, Int8, Mxfp4, Nvfp4};
    match dtype {
        Bfloat16 | Float16 => &[(Bfloat16, None)],
        Fp8 => &[(Fp8, None), (Fp8Block, Some("fp8_block"))],
        Fp8Block => &[(Fp8Block, None), (Fp8, Some("fp8"))],
        Int8 => &[(Fp8, Some("fp8"))],
        Int4 => &[(Int4, None)],
        Nvfp4 => &[(Nvfp4, None)],
        // As wide, and widened for the product likewise.
        Mxfp4 => &[(Int4, Some("int4"))],
        Float32 => &[],
    }
}

/// The same for the KV cache: a narrower cache is at worst read as fast as a
/// wider one.
fn kv_dtypes_like(dtype: DType) -> &'static [(DType, Option<&'static str>)] {
    use DType::{Bfloat16, Float16, Float32, Fp8, Fp8Block, Int4, Int8, Mxfp4, Nvfp4};
    const WIDER: (DType, Option<&str>) = (DType::Bfloat16, Some("bfloat16 KV cache"));
    const FP8: (DType, Option<&str>) = (DType::Fp8, Some("fp8 KV cache"));
    match dtype {
        Bfloat16 | Float16 => &[(Bfloat16, None)],
        Fp8 => &[(Fp8, None), WIDER],
        Fp8Block | Int8 | Int4 | Nvfp4 | Mxfp4 => &[FP8, WIDER],
        Float32 => &[],
    }
}

/// Operator prices of one device, measured. Cheap to make and to clone: the
/// tables are shared.
#[derive(Debug, Clone)]
pub struct SiliconDb {
    tables: Arc<DeviceTables>,
    links: Links,
    /// Bytes per second.
    memory_bandwidth: f64,
    /// Bytes per second to a GPU in the same node and in another.
    send_bandwidths: [f64; 2],
    /// Device whose kernels stand in for this one's.
    stand_in: Option<String>,
    /// Device whose collectives were measured, if its links are not this one's.
    other_links: Option<String>,
    /// Whether routed experts are priced as AIConfigurator prices them.
    experts_as_aiconfigurator: bool,
}

impl SiliconDb {
    /// Prices of `device`, from its own measurements or from those of the
    /// device that lends it its kernels. Where kernels of `engine` were
    /// measured they are used, elsewhere those of the engine measured on the
    /// device (see [`Self::measured_engine`]).
    ///
    /// # Errors
    /// If neither was measured.
    pub fn for_device(device: &DeviceSpec, engine: Option<&str>) -> Result<Self, SiliconError> {
        let found = Self::find(device, |name| Ok(store::shipped(name, engine)))?;
        let unlike = Catalog::builtin().unlike(device);
        let catalog_s = |differs: bool| differs.then(|| format!("the catalog's {}", device.name));
        Ok(Self {
            stand_in: found.stand_in.or_else(|| catalog_s(unlike.kernels)),
            other_links: found.other_links.or_else(|| catalog_s(unlike.links)),
            ..found
        })
    }

    /// The same from the tables in `directory`, laid out like `data/silicon`.
    ///
    /// # Errors
    /// If the directory has no readable manifest, or does not cover the device.
    pub fn from_directory(
        directory: &Path,
        device: &DeviceSpec,
        engine: Option<&str>,
    ) -> Result<Self, SiliconError> {
        Self::find(device, |name| {
            let tables = store::from_directory(directory.to_owned(), name, engine)?;
            Ok(tables.map(Arc::new))
        })
    }

    /// Whether operators were measured on the device called `name` itself.
    pub fn has_data(name: &str) -> bool {
        store::shipped(&name.to_lowercase(), None).is_some()
    }

    /// Engine (or library) and version whose kernels `table` holds.
    pub fn measured_engine(&self, table: Table) -> Option<(&str, &str)> {
        self.tables.measured_engine(table)
    }

    /// Device whose kernels stand in for this one's, if it has none measured: another, or
    /// the one of the same name with other figures.
    pub fn stand_in(&self) -> Option<&str> {
        self.stand_in.as_deref()
    }

    fn find(
        device: &DeviceSpec,
        open: impl Fn(&str) -> Result<Option<Arc<DeviceTables>>, SiliconError>,
    ) -> Result<Self, SiliconError> {
        let own = device.name.to_lowercase();
        let (tables, stand_in) = match (open(&own)?, &device.kernels_of) {
            (Some(tables), _) => (tables, None),
            (None, Some(other)) => match open(&other.to_lowercase())? {
                Some(tables) => (tables, Some(other.clone())),
                None => return Err(unknown(device)),
            },
            (None, None) => return Err(unknown(device)),
        };
        let node = device.nvlink_bandwidth_gbps * BYTES_PER_S_PER_GBPS;
        let network = device.nic_bandwidth_gbps * BYTES_PER_S_PER_GBPS;
        Ok(Self {
            tables,
            links: Links {
                gpus_per_node: device.gpus_per_node,
                node_over_network: node / network,
            },
            memory_bandwidth: device.memory_bandwidth_gb_per_s * 1e9,
            send_bandwidths: [node, network],
            other_links: stand_in.clone(),
            stand_in,
            experts_as_aiconfigurator: false,
        })
    }

    /// The same with routed experts priced as AIConfigurator prices them, from tables
    /// that cannot always be right.
    #[must_use]
    pub fn with_experts_as_aiconfigurator(self) -> Self {
        Self {
            experts_as_aiconfigurator: true,
            ..self
        }
    }

    /// Links are a device's own: another's collectives cannot stand in.
    fn own_links(&self) -> Result<(), Missing> {
        match &self.other_links {
            None => Ok(()),
            Some(other) => Err(Missing::new(format!(
                "collectives were measured on {other} only, whose links differ"
            ))),
        }
    }

    fn nccl(&self, collective: Collective, bytes: f64, gpus: u32) -> Result<Found, Missing> {
        self.own_links()?;
        let elements = bytes / COLLECTIVE_ELEMENT_BYTES;
        self.tables
            .nccl()?
            .price(collective, elements, gpus, self.links)
    }

    fn all_reduce(&self, bytes: f64, gpus: u32) -> Result<Found, Missing> {
        self.own_links()?;
        let elements = bytes / COLLECTIVE_ELEMENT_BYTES;
        match self.tables.all_reduce() {
            Ok(table) => table.price(elements, gpus, self.links),
            Err(_) => self.nccl(Collective::AllReduce, bytes, gpus),
        }
    }

    /// Price of an operator that the tables know of.
    fn measured(&self, operator: &Operator) -> Result<Found, Missing> {
        let tables = &*self.tables;
        let peaks = &tables.peaks;
        match *operator {
            Operator::Gemm {
                tokens,
                out_features,
                in_features,
                dtype,
            } => tables
                .gemm()?
                .price(peaks, tokens, [out_features, in_features], dtype),
            Operator::ContextAttention {
                batch,
                new_tokens,
                prefix_tokens,
                heads: query,
                kv_heads: kv,
                head_dim: width,
                kv_dtype,
            } => {
                let heads = Heads {
                    query,
                    kv,
                    width,
                    kv_dtype,
                };
                let lengths = [new_tokens, prefix_tokens];
                tables
                    .context_attention()?
                    .price(peaks, batch, lengths, heads)
            }
            Operator::LocalContextAttention {
                batch,
                new_tokens,
                prefix_tokens,
                heads: query,
                kv_heads: kv,
                head_dim: width,
                kv_dtype,
                reach,
                reach_tokens,
            } => {
                let heads = Heads {
                    query,
                    kv,
                    width,
                    kv_dtype,
                };
                let local = LocalAttention {
                    reach,
                    tokens: reach_tokens,
                    full_attention_interval: 0,
                    full_attention_layers: Vec::new(),
                };
                let table = tables.context_attention()?;
                table.price_local(peaks, batch, [new_tokens, prefix_tokens], heads, &local)
            }
            Operator::GenerationAttention {
                batch,
                kv_tokens,
                heads: query,
                kv_heads: kv,
                head_dim: width,
                kv_dtype,
            } => {
                let heads = Heads {
                    query,
                    kv,
                    width,
                    kv_dtype,
                };
                tables
                    .generation_attention()?
                    .price(peaks, batch, kv_tokens, heads)
            }
            Operator::MlaContext { widths, .. } | Operator::MlaGeneration { widths, .. }
                if !widths.are_deepseek_v3() =>
            {
                Err(Missing::new(
                    "latent attention was measured with DeepSeek-V3's widths only",
                ))
            }
            Operator::MlaContext {
                batch,
                new_tokens,
                prefix_tokens,
                heads,
                dtype,
                kv_dtype,
                ..
            } => {
                let block = MlaBlock {
                    batch,
                    heads,
                    dtype,
                    kv_dtype,
                };
                mla::price_context(tables, block, [new_tokens, prefix_tokens])
            }
            Operator::MlaGeneration {
                batch,
                kv_tokens,
                heads,
                dtype,
                kv_dtype,
                ..
            } => {
                let block = MlaBlock {
                    batch,
                    heads,
                    dtype,
                    kv_dtype,
                };
                mla::price_generation(tables, block, kv_tokens)
            }
            Operator::MoeExperts {
                tokens,
                hidden_size,
                intermediate_size,
                experts_per_token,
                experts,
                expert_tensor_parallel,
                expert_parallel,
                dtype,
                load,
                arrival,
            } => {
                let layer = ExpertLayer {
                    hidden_size,
                    intermediate_size,
                    experts_per_token,
                    experts,
                    expert_tensor_parallel,
                    expert_parallel,
                };
                if self.experts_as_aiconfigurator {
                    // Unevenness that was not measured: the busiest GPU as if all were.
                    let (tokens, load) = match load {
                        ExpertLoad::Uneven { factor } => {
                            let tokens = whole_u32((f64::from(tokens) * factor).ceil());
                            (tokens, ExpertLoad::Balanced)
                        }
                        measured => (tokens, measured),
                    };
                    let table = tables.aiconfigurator_experts()?;
                    return table.price(peaks, tokens, layer, dtype, load);
                }
                let gpu = BusiestGpu {
                    tokens: f64::from(tokens),
                    factor: load.busiest_factor(experts, experts_per_token, expert_parallel),
                    arrival,
                    layer,
                    dtype,
                };
                self.experts(&gpu)
            }
            Operator::GatedDeltaNet {
                prefill,
                batch,
                new_tokens,
                key_heads,
                value_heads,
                key_head_dim,
                value_head_dim,
            } => {
                let net = DeltaNet {
                    prefill,
                    batch,
                    new_tokens,
                    heads: [key_heads, value_heads],
                    widths: [key_head_dim, value_head_dim],
                };
                tables.delta_net()?.price(peaks, net)
            }
            Operator::AllReduce { bytes, gpus } => self.all_reduce(bytes, gpus),
            Operator::AllGather { bytes, gpus } => self.nccl(Collective::AllGather, bytes, gpus),
            Operator::ReduceScatter { bytes, gpus } => {
                self.nccl(Collective::ReduceScatter, bytes, gpus)
            }
            Operator::ExpertDispatch {
                tokens_per_rank,
                hidden_size,
                experts_per_token,
                experts,
                expert_parallel,
                low_latency,
                ..
            } => self.exchange(
                low_latency,
                Direction::Dispatch,
                expert_parallel,
                Payload {
                    hidden_size,
                    experts_per_token,
                    experts,
                },
                tokens_per_rank,
            ),
            Operator::ExpertCombine {
                tokens_per_rank,
                hidden_size,
                experts_per_token,
                experts,
                expert_parallel,
                low_latency,
                ..
            } => self.exchange(
                low_latency,
                Direction::Combine,
                expert_parallel,
                Payload {
                    hidden_size,
                    experts_per_token,
                    experts,
                },
                tokens_per_rank,
            ),
            Operator::Elementwise { .. }
            | Operator::SendRecv { .. }
            | Operator::LayerParts { .. }
            | Operator::Host { .. } => Err(Missing::new("not an operator that is measured")),
        }
    }

    /// Routed experts of the busiest GPU. Engines that send tokens with DeepEP hand
    /// them to DeepGEMM, or at few tokens to the kernel they use otherwise;
    /// TensorRT-LLM has only that.
    fn experts(&self, gpu: &BusiestGpu) -> Result<Found, Missing> {
        let tables = &*self.tables;
        let peaks = &tables.peaks;
        let price = |table: Result<&ExpertsTable, Cow<'_, str>>| table?.price(peaks, gpu);
        let deepgemm = match gpu.arrival {
            ExpertTokens::Gathered => None,
            _ if tables.engine() == Some(OWN_EXPERTS_ENGINE) => None,
            ExpertTokens::Sent => Some(price(tables.deepgemm_experts(true))),
            ExpertTokens::SentLowLatency => Some(price(tables.deepgemm_experts(false))),
        };
        let usual = price(tables.experts());
        let found = match deepgemm {
            Some(deepgemm) => experts::faster(deepgemm, usual),
            None => usual,
        }?;
        Ok(experts::judged(found, gpu.bound_ms(peaks)))
    }

    fn exchange(
        &self,
        low_latency: bool,
        direction: Direction,
        gpus: u32,
        payload: Payload,
        tokens: u32,
    ) -> Result<Found, Missing> {
        self.own_links()?;
        let table = self.tables.exchange()?;
        table.price(low_latency, direction, gpus, payload, tokens)
    }

    /// Price of an operator that follows from device figures alone.
    fn formula_s(&self, operator: &Operator) -> Option<f64> {
        match *operator {
            Operator::Elementwise { bytes } => {
                Some(bytes / (self.memory_bandwidth * MEMORY_EFFICIENCY) + MEMORY_LATENCY_S)
            }
            Operator::SendRecv {
                bytes,
                across_nodes,
            } => Some(bytes / self.send_bandwidths[usize::from(across_nodes)] + SEND_LATENCY_S),
            _ => None,
        }
    }
}

impl OperatorCost for SiliconDb {
    fn price(&self, operator: &Operator) -> Result<Price, PricingError> {
        if is_nothing(operator) {
            return Ok(Price {
                time_s: 0.0,
                provenance: Provenance::Nothing,
            });
        }
        if let Some(time_s) = self.formula_s(operator) {
            return Ok(Price {
                time_s,
                provenance: Provenance::Formula,
            });
        }
        let found = self.measured(operator).map_err(|missing| PricingError {
            operator: short_name(operator).into(),
            reason: missing.reason.into_owned(),
        })?;
        let is_kernel = |_: &&String| !operator.is_communication();
        let stand_in = self.stand_in.as_ref().filter(is_kernel);
        let from = match (stand_in, found.from) {
            (None, None) => None,
            (Some(device), None) => Some(device.clone()),
            (None, Some(what)) => Some(what.into_owned()),
            (Some(device), Some(what)) => Some(format!("{device}, {what}")),
        };
        let provenance = match (from, found.how) {
            (Some(from), _) => Provenance::Substituted { from },
            (None, How::Measured) => Provenance::Measured,
            (None, How::Interpolated) => Provenance::Interpolated,
            (None, How::Extrapolated) => Provenance::Extrapolated,
        };
        let provenance = match found.doubt {
            Some(times) => Provenance::Doubtful {
                found: Box::new(provenance),
                times_bound: whole_u32(times.round()),
            },
            None => provenance,
        };
        Ok(Price {
            time_s: found.latency_ms / 1e3,
            provenance,
        })
    }
}

fn unknown(device: &DeviceSpec) -> SiliconError {
    SiliconError::UnknownDevice {
        device: device.name.clone(),
        known: DEVICES.join(", "),
    }
}

/// Whether an operator has nothing to do: no tokens, no bytes, one rank.
fn is_nothing(operator: &Operator) -> bool {
    match *operator {
        Operator::Gemm { tokens, .. } | Operator::MoeExperts { tokens, .. } => tokens == 0,
        Operator::ContextAttention {
            batch, new_tokens, ..
        }
        | Operator::LocalContextAttention {
            batch, new_tokens, ..
        }
        | Operator::MlaContext {
            batch, new_tokens, ..
        }
        | Operator::GatedDeltaNet {
            batch, new_tokens, ..
        } => batch == 0 || new_tokens == 0,
        Operator::GenerationAttention { batch, .. } | Operator::MlaGeneration { batch, .. } => {
            batch == 0
        }
        Operator::AllReduce { bytes, gpus }
        | Operator::AllGather { bytes, gpus }
        | Operator::ReduceScatter { bytes, gpus } => gpus <= 1 || bytes <= 0.0,
        Operator::ExpertDispatch {
            tokens_per_rank,
            expert_parallel,
            ..
        }
        | Operator::ExpertCombine {
            tokens_per_rank,
            expert_parallel,
            ..
        } => tokens_per_rank == 0 || expert_parallel <= 1,
        Operator::Elementwise { bytes } | Operator::SendRecv { bytes, .. } => bytes <= 0.0,
        Operator::LayerParts { .. } | Operator::Host { .. } => false,
    }
}

fn short_name(operator: &Operator) -> &'static str {
    match operator {
        Operator::Gemm { .. } => "gemm",
        Operator::ContextAttention { .. } => "context_attention",
        Operator::LocalContextAttention { .. } => "local_context_attention",
        Operator::GenerationAttention { .. } => "generation_attention",
        Operator::MlaContext { .. } => "mla_context",
        Operator::MlaGeneration { .. } => "mla_generation",
        Operator::MoeExperts { .. } => "moe_experts",
        Operator::GatedDeltaNet { .. } => "gated_delta_net",
        Operator::Elementwise { .. } => "elementwise",
        Operator::AllReduce { .. } => "all_reduce",
        Operator::AllGather { .. } => "all_gather",
        Operator::ReduceScatter { .. } => "reduce_scatter",
        Operator::ExpertDispatch { .. } => "expert_dispatch",
        Operator::ExpertCombine { .. } => "expert_combine",
        Operator::SendRecv { .. } => "send_recv",
        Operator::LayerParts { .. } => "layer_parts",
        Operator::Host { .. } => "host",
    }
}
