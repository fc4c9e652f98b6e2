//! Pricing of recorded queries: rows with the columns of SimAI's own outputs.
//!
//! A [`Pricer`] takes a row as a function from column to text, so that it knows
//! nothing of files; what is wrong with a row names its column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::analytical::{self, AnalyticalNetwork, ParallelGroup};
use super::collective::{Collective, GroupKind};
use super::flow::{FlowNetwork, Layout, SimaiConf, SimaiEnvironment};
use super::nccl::{self, Algorithm, GroupShape, Kernels, LinkGeneration, NcclModel};
use super::topology::{Topology, TopologyEdit};
use crate::limits::COLLECTIVE_BYTES_MAX;
use crate::number::narrow;
use crate::spelling::did_you_mean;

/// What prices a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// [`AnalyticalNetwork`], or its completed form where a row has no mode.
    Analytical,
    /// [`FlowNetwork`].
    Simulation,
    /// [`NcclModel`] on the links of a topology or GPU type.
    Nccl,
}

impl Backend {
    /// All of them, by name.
    pub const NAMED: [(&'static str, Self); 3] = [
        ("simai_analytical", Self::Analytical),
        ("simai_simulation", Self::Simulation),
        ("nccl", Self::Nccl),
    ];
}

/// What is wrong with a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Column concerned.
    pub column: String,
    /// What is wrong.
    pub message: String,
}

impl FieldError {
    fn new(column: &str, message: impl Into<String>) -> Self {
        Self {
            column: column.into(),
            message: message.into(),
        }
    }
}

/// Settings of a [`Pricer`].
#[derive(Debug, Clone)]
pub struct PricerOptions {
    /// What prices rows.
    pub backend: Backend,
    /// Where topology files are.
    pub topology_dir: PathBuf,
    /// Settings of simulations.
    pub conf: SimaiConf,
    /// Do as Vidur-AlibabaCloud gets it from SimAI, defects included.
    pub compat: bool,
    /// Changes to every topology.
    pub edits: Vec<TopologyEdit>,
    /// Algorithm of [`NcclModel`]; the fastest if not set.
    pub algorithm: Option<Algorithm>,
    /// Whose kernels [`NcclModel`] runs.
    pub kernels: Kernels,
}

/// Prices rows. Networks are kept between rows.
pub struct Pricer {
    options: PricerOptions,
    topologies: BTreeMap<String, Topology>,
    networks: BTreeMap<(String, String), FlowNetwork>,
    warnings: BTreeSet<String>,
}

/// Time SimAI reports where it skips a collective.
const SKIPPED_US: f64 = 0.003;

/// A row: text by column, `None` where there is no such column.
type Row<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// The columns of a row that every backend needs.
struct Query {
    collective: Collective,
    kind: GroupKind,
    tensor_parallel: u32,
    expert_parallel: u32,
    bytes: u64,
}

impl Pricer {
    /// A pricer without rows yet.
    pub fn new(options: PricerOptions) -> Self {
        Self {
            options,
            topologies: BTreeMap::new(),
            networks: BTreeMap::new(),
            warnings: BTreeSet::new(),
        }
    }

    /// Columns without which no row can be priced.
    pub fn required_columns(&self) -> &'static [&'static str] {
        match self.options.backend {
            Backend::Simulation => &["topology", "collective", "group_type", "tp", "bytes"],
            Backend::Analytical | Backend::Nccl => &["collective", "group_type", "tp", "bytes"],
        }
    }

    /// What rows made worth saying, each once.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.iter().map(String::as_str)
    }

    /// Time of a row, microseconds.
    pub fn price_us<'a>(&mut self, row: &Row<'a>) -> Result<f64, FieldError> {
        let query = Query::read(row)?;
        match self.options.backend {
            Backend::Simulation => self.simulation_us(&query, row),
            Backend::Nccl => self.nccl_us(&query, row),
            Backend::Analytical => self.analytical_us(&query, row),
        }
    }

    fn simulation_us<'a>(&mut self, query: &Query, row: &Row<'a>) -> Result<f64, FieldError> {
        let name = text(row, "topology")?;
        let gpus = self.topology(name)?.gpus();
        if let Some(said) = optional_number::<u32>(row, "gpus")?
            && said != gpus
        {
            let message = format!("{said}, but topology `{name}` has {gpus} GPUs");
            return Err(FieldError::new("gpus", message));
        }
        let layout = Layout {
            gpus,
            tensor_parallel: query.tensor_parallel,
            expert_parallel: query.expert_parallel,
        };
        let groups = layout
            .groups(query.kind)
            .map_err(|error| FieldError::new("tp", error.to_string()))?;
        let ranks = narrow::<u32, _>(groups.first().map_or(0, Vec::len));
        if let Some(said) = optional_number::<u32>(row, "group_size")?
            && said != ranks
        {
            let kind = query.kind.name();
            let message = format!("{said}, but {kind} groups of this layout have {ranks} ranks");
            return Err(FieldError::new("group_size", message));
        }
        if query.kind == GroupKind::Expert && query.tensor_parallel == 1 && self.options.compat {
            return Ok(SKIPPED_US);
        }
        let environment = match row("env") {
            Some(said) => said.trim(),
            None => "AS_SEND_LAT=6;AS_NVLS_ENABLE=1",
        };
        let parsed = SimaiEnvironment::parse(environment)
            .map_err(|message| FieldError::new("env", message))?;
        if !environment.contains("AS_SEND_LAT") {
            self.warn(
                "env without AS_SEND_LAT: flows take milliseconds to start, as in SimAI, which \
                 takes nanoseconds for picoseconds; Vidur sets AS_SEND_LAT=6",
            );
        }
        let key = (name.to_owned(), environment.to_owned());
        if !self.networks.contains_key(&key) {
            let topology = self.topology(name)?.clone();
            let network = FlowNetwork::new(topology, self.options.conf.clone(), parsed);
            self.networks.insert(key.clone(), network);
        }
        let network = &self.networks[&key];
        let group = network
            .groups(query.kind, groups)
            .map_err(|error| FieldError::new("tp", error.to_string()))?;
        let time_ns = network
            .time_ns(query.collective, query.bytes, group)
            .map_err(|error| FieldError::new("topology", error.to_string()))?;
        Ok(time_ns / 1e3)
    }

    fn nccl_us<'a>(&mut self, query: &Query, row: &Row<'a>) -> Result<f64, FieldError> {
        let model = self.nccl_model(row)?;
        self.completed_us(&model, query, row)
    }

    fn analytical_us<'a>(&mut self, query: &Query, row: &Row<'a>) -> Result<f64, FieldError> {
        match row("mode").map_or("completed", str::trim) {
            "gtype" | "explicit" => self.original_us(query, row),
            "vidur_as_called" if self.options.compat => {
                self.warn(
                    "mode vidur_as_called: SimAI as Vidur calls it leaves bandwidths unset, so \
                     that all-reduces of 1 MiB and more are free; for comparisons with Vidur only",
                );
                let ranks = query.ranks(row)?;
                Ok(AnalyticalNetwork::vidur_time_ns(ranks, query.bytes) / 1e3)
            }
            mode @ ("vidur_as_called" | "completed") => {
                if mode == "vidur_as_called" {
                    self.warn(
                        "mode vidur_as_called is priced by the completed model: what Vidur gets \
                         from SimAI is zero from 1 MiB on; --compat vidur-alibabacloud gives that",
                    );
                }
                let model = self.nccl_model(row)?;
                self.completed_us(&model, query, row)
            }
            other => {
                let modes = ["completed", "gtype", "explicit", "vidur_as_called"];
                let hint = did_you_mean(other, modes);
                let message = format!("no mode `{other}` ({}){hint}", modes.join(", "));
                Err(FieldError::new("mode", message))
            }
        }
    }

    /// The original formula.
    fn original_us<'a>(&mut self, query: &Query, row: &Row<'a>) -> Result<f64, FieldError> {
        let network = AnalyticalNetwork {
            gpus_per_server: optional_number(row, "gpus_per_server")?.unwrap_or(8),
            nics_per_server: number(row, "nics_per_server")?,
            nvlink_gib_per_s: bandwidth(row, "nvlink_bw_GBps_flag", "gpu_type", |gpu| {
                analytical::nvlink_gib_per_s(gpu)
            })?,
            nic_gib_per_s: bandwidth(row, "nic_bw_GBps_flag", "nic_bw_GBps_flag", |nic| {
                analytical::nic_gib_per_s(nic)
            })?,
        };
        let group = ParallelGroup {
            kind: query.kind,
            tensor_parallel: query.tensor_parallel,
            expert_parallel: query.expert_parallel,
            ranks: query.ranks(row)?,
        };
        if network.bus_bandwidth(query.collective, &group).is_none() {
            self.warn(
                "some groups have no link in SimAI's analytical model (fewer NICs than GPUs that \
                 need one): their times are negative, as in the original",
            );
        }
        let time_ns = network
            .time_ns(query.collective, &group, query.bytes)
            .map_err(|error| FieldError::new("bytes", error.to_string()))?;
        Ok(time_ns / 1e3)
    }

    fn completed_us<'a>(
        &mut self,
        model: &NcclModel,
        query: &Query,
        row: &Row<'a>,
    ) -> Result<f64, FieldError> {
        let shape = query.shape(row, model.gpus_per_server)?;
        let time_us = match self.options.algorithm {
            None => model
                .price(query.collective, query.bytes, shape)
                .map(|price| price.time_us),
            Some(algorithm) => model.time_us(query.collective, query.bytes, shape, algorithm),
        };
        time_us.ok_or_else(|| {
            let (how, what) = (self.options.algorithm, query.collective.simai_name());
            let how = how.map_or("no link".to_owned(), |algorithm| {
                format!("no algorithm `{}`", algorithm.name())
            });
            let message = format!(
                "{how} for {what} of {} ranks on {} servers",
                shape.ranks, shape.servers
            );
            FieldError::new("collective", message)
        })
    }

    /// The links of a row: its topology's, or those of its GPU type and flags.
    fn nccl_model<'a>(&mut self, row: &Row<'a>) -> Result<NcclModel, FieldError> {
        let kernels = self.options.kernels;
        if let Some(name) = row("topology") {
            return Ok(NcclModel::of_topology(self.topology(name.trim())?, kernels));
        }
        let gpus_per_server = optional_number(row, "gpus_per_server")?.unwrap_or(8);
        let named = |text: &str| !["default", "by_type", "unset", ""].contains(&text);
        let gpu = row("gpu_type").map(str::trim).filter(|gpu| named(gpu));
        let gpu = gpu.unwrap_or_else(|| {
            self.warn("rows without a GPU type are priced as H100 servers");
            "H100"
        });
        let nvlink_gb_per_s = match row("nvlink_bw_GBps_flag").map(str::trim) {
            Some(flag) if named(flag) => real(flag, "nvlink_bw_GBps_flag")?,
            _ => nccl::nominal_nvlink_gb_per_s(gpu).ok_or_else(|| unknown_gpu(gpu))?,
        };
        let nic_gb_per_s = match row("nic_bw_GBps_flag").map(str::trim) {
            Some(flag) if named(flag) => match analytical::nic_gib_per_s(flag) {
                // 200 and 400 Gb/s.
                Some(gib) => {
                    if gib < 30.0 {
                        25.0
                    } else {
                        50.0
                    }
                }
                None => real(flag, "nic_bw_GBps_flag")?,
            },
            _ => 50.0,
        };
        let nics = match row("nics_per_server").map(str::trim) {
            Some(nics) if named(nics) => number::<u32>(row, "nics_per_server")?,
            _ => gpus_per_server,
        };
        let generation = LinkGeneration::of_gpu(gpu);
        Ok(NcclModel {
            generation: generation.unwrap_or_else(|| LinkGeneration::of_bandwidth(nvlink_gb_per_s)),
            gpus_per_server,
            nvlink_gb_per_s,
            nic_gb_per_s: nic_gb_per_s * f64::from(nics) / f64::from(gpus_per_server),
            kernels,
        })
    }

    fn topology(&mut self, name: &str) -> Result<&Topology, FieldError> {
        if !self.topologies.contains_key(name) {
            let path = self.options.topology_dir.join(name);
            if !path.exists() {
                return Err(FieldError::new("topology", self.no_file(name)));
            }
            let wrong = |message: String| FieldError::new("topology", message);
            let topology = Topology::load(&path).map_err(|error| wrong(error.to_string()))?;
            let edited = topology.edited(&self.options.edits);
            let edited = edited.map_err(|error| wrong(error.to_string()))?;
            self.topologies.insert(name.to_owned(), edited);
        }
        Ok(&self.topologies[name])
    }

    fn no_file(&self, name: &str) -> String {
        let folder = &self.options.topology_dir;
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        format!("no file `{name}` in {}{hint}", folder.display())
    }

    fn warn(&mut self, message: &str) {
        if !self.warnings.contains(message) {
            self.warnings.insert(message.to_owned());
        }
    }
}

impl Query {
    fn read<'a>(row: &Row<'a>) -> Result<Self, FieldError> {
        let collective = named(
            row,
            "collective",
            Collective::parse,
            &Collective::ALL.map(Collective::simai_name),
        )?;
        let kind = named(
            row,
            "group_type",
            GroupKind::parse,
            &GroupKind::ALL.map(GroupKind::name),
        )?;
        let whole = |column| match optional_number::<u32>(row, column)? {
            Some(0) => Err(FieldError::new(
                column,
                "0, but parallel degrees are at least 1",
            )),
            found => Ok(found),
        };
        Ok(Self {
            collective,
            kind,
            tensor_parallel: whole("tp")?.ok_or_else(|| missing("tp"))?,
            expert_parallel: whole("ep")?.unwrap_or(1),
            bytes: bytes(row)?,
        })
    }

    /// Ranks of the group: as the row says, else of its dimension.
    fn ranks<'a>(&self, row: &Row<'a>) -> Result<u32, FieldError> {
        if let Some(ranks) = optional_number(row, "group_size")? {
            return Ok(ranks);
        }
        match self.kind {
            GroupKind::Tensor => Ok(self.tensor_parallel),
            GroupKind::Expert => Ok(self.expert_parallel),
            GroupKind::Data | GroupKind::DataExpert => number(row, "dp"),
        }
    }

    /// Ranks and the servers they are spread over, with ranks numbered tensor
    /// parallel first.
    fn shape<'a>(&self, row: &Row<'a>, gpus_per_server: u32) -> Result<GroupShape, FieldError> {
        let ranks = self.ranks(row)?;
        let stride = match self.kind {
            GroupKind::Tensor => 1,
            GroupKind::Expert | GroupKind::Data => self.tensor_parallel,
            GroupKind::DataExpert => self.tensor_parallel.saturating_mul(self.expert_parallel),
        };
        let span = ranks.saturating_mul(stride);
        Ok(GroupShape {
            ranks,
            servers: span.div_ceil(gpus_per_server.max(1)).clamp(1, ranks.max(1)),
        })
    }
}

fn bytes(row: &Row<'_>) -> Result<u64, FieldError> {
    match number(row, "bytes")? {
        bytes if bytes <= COLLECTIVE_BYTES_MAX => Ok(bytes),
        bytes => Err(FieldError::new(
            "bytes",
            format!("value `{bytes}` is not allowed; allowed is at most {COLLECTIVE_BYTES_MAX}"),
        )),
    }
}

fn missing(column: &str) -> FieldError {
    FieldError::new(column, format!("no `{column}` given"))
}

fn text<'a>(row: &Row<'a>, column: &str) -> Result<&'a str, FieldError> {
    let found = row(column).map(str::trim).filter(|text| !text.is_empty());
    found.ok_or_else(|| missing(column))
}

fn optional_number<T: std::str::FromStr>(
    row: &Row<'_>,
    column: &str,
) -> Result<Option<T>, FieldError> {
    match row(column).map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(FieldError::new(
                column,
                format!("`{text}` is no whole number"),
            )),
        },
    }
}

fn number<T: std::str::FromStr>(row: &Row<'_>, column: &str) -> Result<T, FieldError> {
    optional_number(row, column)?.ok_or_else(|| missing(column))
}

fn real(text: &str, column: &str) -> Result<f64, FieldError> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| FieldError::new(column, format!("`{text}` is no positive number")))
}

fn unknown_gpu(gpu: &str) -> FieldError {
    let known: Vec<&str> = analytical::gpu_names().collect();
    let hint = did_you_mean(gpu, known.iter().copied());
    let message = format!(
        "no bandwidth known for GPU `{gpu}` ({}){hint}",
        known.join(", ")
    );
    FieldError::new("gpu_type", message)
}

/// A bandwidth: a number in its column, or that of a named part.
fn bandwidth(
    row: &Row<'_>,
    column: &str,
    part_column: &str,
    of_part: impl Fn(&str) -> Option<f64>,
) -> Result<f64, FieldError> {
    let flag = row(column).map(str::trim).unwrap_or_default();
    if let Ok(number) = flag.parse::<f64>() {
        return real(flag, column).map(|_| number);
    }
    let part = text(row, part_column)?;
    of_part(part).ok_or_else(|| {
        if part_column == "gpu_type" {
            return unknown_gpu(part);
        }
        let known: Vec<&str> = analytical::nic_names().collect();
        let hint = did_you_mean(part, known.iter().copied());
        let message = format!(
            "`{part}` is neither a bandwidth nor a NIC ({}){hint}",
            known.join(", ")
        );
        FieldError::new(part_column, message)
    })
}

fn named<'a, T>(
    row: &Row<'a>,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
    known: &[&str],
) -> Result<T, FieldError> {
    let said = text(row, column)?;
    parse(said).ok_or_else(|| {
        let hint = did_you_mean(said, known.iter().copied());
        FieldError::new(column, format!("no `{said}` ({}){hint}", known.join(", ")))
    })
}
