//! The tables of one device, each read when it is first needed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;

use super::aiconfigurator_experts::AiconfiguratorExperts;
use super::attention::{ContextAttentionTable, GenerationAttentionTable};
use super::collectives::{AllReduceTable, NcclTable};
use super::delta_net::DeltaNetTable;
use super::embedded;
use super::exchange::ExchangeTable;
use super::experts::ExpertsTable;
use super::frame::Frame;
use super::gemm::GemmTable;
use super::manifest::{MANIFEST_FILE, Manifest};
use super::mla::{MlaAttentionTable, MlaBmmTable, MlaModuleTable};
use super::speed_of_light::Peaks;
use super::{SiliconError, Table};
use crate::input_file::{self, InputKind};

/// Where files come from.
#[derive(Debug, Clone)]
pub(super) enum Files {
    /// Out of the binary.
    Embedded,
    /// A directory laid out like `data/silicon`.
    Directory(PathBuf),
}

impl Files {
    /// Reads the file at `path` under the data directory.
    pub(super) fn read(&self, path: &str) -> Result<Frame, SiliconError> {
        let bytes = match self {
            Self::Embedded => embedded::file(path).map(Bytes::from_static),
            Self::Directory(directory) => {
                let path = directory.join(path);
                let bytes = input_file::read(&path, InputKind::KernelTable).map_err(|error| {
                    SiliconError::Read {
                        path: path.display().to_string(),
                        reason: error.to_string(),
                    }
                })?;
                Some(Bytes::from(bytes))
            }
        };
        let bytes = bytes.ok_or_else(|| SiliconError::Read {
            path: path.to_owned(),
            reason: "listed in the manifest but not there".into(),
        })?;
        Frame::read(path, bytes)
    }
}

/// A table that is read at most once; `None`: the device has no such table.
type Lazy<T> = OnceLock<Result<Option<T>, SiliconError>>;

/// Tables of one device as one engine uses them.
#[derive(Debug)]
pub(super) struct DeviceTables {
    files: Files,
    manifest: Arc<Manifest>,
    /// Device measured.
    pub(super) device: String,
    /// Engine whose own tables go before the device's usual ones.
    engine: Option<String>,
    /// Peaks of the device.
    pub(super) peaks: Peaks,
    gemm: Lazy<GemmTable>,
    context_attention: Lazy<ContextAttentionTable>,
    generation_attention: Lazy<GenerationAttentionTable>,
    mla_context_module: Lazy<MlaModuleTable>,
    mla_generation_module: Lazy<MlaModuleTable>,
    context_mla: Lazy<MlaAttentionTable>,
    generation_mla: Lazy<MlaAttentionTable>,
    mla_bmm: Lazy<MlaBmmTable>,
    experts: Lazy<ExpertsTable>,
    deepgemm_prefill: Lazy<ExpertsTable>,
    deepgemm_decode: Lazy<ExpertsTable>,
    aiconfigurator_experts: Lazy<AiconfiguratorExperts>,
    delta_net: Lazy<DeltaNetTable>,
    all_reduce: Lazy<AllReduceTable>,
    nccl: Lazy<NcclTable>,
    exchange: Lazy<ExchangeTable>,
}

/// The manifest of the shipped tables, and their stores. Only the list is
/// built at once; the tables inside stay unread until a price needs them.
struct Shipped {
    manifest: Arc<Manifest>,
    stores: BTreeMap<(String, Option<String>), Arc<DeviceTables>>,
}

static SHIPPED: LazyLock<Result<Shipped, SiliconError>> = LazyLock::new(|| {
    let manifest = Arc::new(Manifest::parse(MANIFEST_FILE, embedded::MANIFEST)?);
    let mut stores = BTreeMap::new();
    for entry in &manifest.tables {
        for engine in [None, entry.only_for()] {
            let key = (entry.device.clone(), engine.map(str::to_owned));
            if let Some(tables) =
                DeviceTables::new(Files::Embedded, &manifest, &entry.device, engine)
            {
                stores.entry(key).or_insert_with(|| Arc::new(tables));
            }
        }
    }
    Ok(Shipped { manifest, stores })
});

/// The manifest of the tables shipped with the program.
///
/// # Errors
/// If it cannot be read, which a test rules out.
pub fn shipped_manifest() -> Result<Arc<Manifest>, SiliconError> {
    match &*SHIPPED {
        Ok(shipped) => Ok(Arc::clone(&shipped.manifest)),
        Err(error) => Err(error.clone()),
    }
}

/// Shipped tables of `device`, with those of `engine` first where it has some.
pub(super) fn shipped(device: &str, engine: Option<&str>) -> Option<Arc<DeviceTables>> {
    let stores = &SHIPPED.as_ref().ok()?.stores;
    let key = |engine: Option<&str>| (device.to_owned(), engine.map(str::to_owned));
    stores
        .get(&key(engine))
        .or_else(|| stores.get(&key(None)))
        .cloned()
}

/// The manifest in a directory laid out like `data/silicon`.
pub(super) fn read_manifest(directory: &Path) -> Result<Arc<Manifest>, SiliconError> {
    let path = directory.join(MANIFEST_FILE);
    let name = path.display().to_string();
    let text = input_file::read_text(&path, InputKind::Description).map_err(|error| {
        SiliconError::Read {
            path: name.clone(),
            reason: error.to_string(),
        }
    })?;
    Ok(Arc::new(Manifest::parse(&name, &text)?))
}

/// Tables of `device` in a directory laid out like `data/silicon`.
pub(super) fn from_directory(
    directory: PathBuf,
    device: &str,
    engine: Option<&str>,
) -> Result<Option<DeviceTables>, SiliconError> {
    let manifest = read_manifest(&directory)?;
    Ok(DeviceTables::new(
        Files::Directory(directory),
        &manifest,
        device,
        engine,
    ))
}

impl DeviceTables {
    fn new(
        files: Files,
        manifest: &Arc<Manifest>,
        device: &str,
        engine: Option<&str>,
    ) -> Option<Self> {
        manifest
            .tables
            .iter()
            .find(|entry| entry.device == device)?;
        Some(Self {
            files,
            manifest: Arc::clone(manifest),
            device: device.to_owned(),
            engine: engine.map(str::to_owned),
            peaks: Peaks::of(device)?,
            gemm: Lazy::new(),
            context_attention: Lazy::new(),
            generation_attention: Lazy::new(),
            mla_context_module: Lazy::new(),
            mla_generation_module: Lazy::new(),
            context_mla: Lazy::new(),
            generation_mla: Lazy::new(),
            mla_bmm: Lazy::new(),
            experts: Lazy::new(),
            deepgemm_prefill: Lazy::new(),
            deepgemm_decode: Lazy::new(),
            aiconfigurator_experts: Lazy::new(),
            delta_net: Lazy::new(),
            all_reduce: Lazy::new(),
            nccl: Lazy::new(),
            exchange: Lazy::new(),
        })
    }

    /// Engine and version whose kernels `table` holds.
    pub(super) fn measured_engine(&self, table: Table) -> Option<(&str, &str)> {
        let file = self.file_of(table)?;
        let entry = self
            .manifest
            .tables
            .iter()
            .find(|entry| entry.file == file)?;
        Some((&entry.engine, &entry.version))
    }

    /// Whether the engine has a table of its own beside the device's usual.
    pub(super) fn is_engines_own(&self, table: Table) -> bool {
        self.own_file(table).is_some()
    }

    /// The file of `table`: the engine's own, or else the device's usual one.
    fn file_of(&self, table: Table) -> Option<String> {
        let usual = || format!("{}/{}.parquet", self.device, table.name());
        self.own_file(table)
            .or_else(|| Some(usual()).filter(|file| self.is_listed(file)))
    }

    fn own_file(&self, table: Table) -> Option<String> {
        let engine = self.engine.as_ref()?;
        let file = format!("{}/{engine}/{}.parquet", self.device, table.name());
        self.is_listed(&file).then_some(file)
    }

    fn is_listed(&self, file: &str) -> bool {
        self.manifest.tables.iter().any(|entry| entry.file == file)
    }

    fn frame(&self, table: Table) -> Result<Option<Frame>, SiliconError> {
        let file = self.file_of(table);
        file.map(|file| self.files.read(&file)).transpose()
    }

    fn load<'a, T>(
        &self,
        cell: &'a Lazy<T>,
        table: Table,
        build: impl FnOnce(&Frame) -> Result<T, SiliconError>,
    ) -> Result<&'a T, Cow<'a, str>> {
        let loaded = cell.get_or_init(|| self.frame(table)?.as_ref().map(build).transpose());
        self.loaded(loaded, table.name())
    }

    fn loaded<'a, T>(
        &self,
        loaded: &'a Result<Option<T>, SiliconError>,
        name: &str,
    ) -> Result<&'a T, Cow<'a, str>> {
        match loaded {
            Ok(Some(table)) => Ok(table),
            Ok(None) => Err(format!("no table `{name}` for {}", self.device).into()),
            Err(error) => Err(error.to_string().into()),
        }
    }

    pub(super) fn gemm(&self) -> Result<&GemmTable, Cow<'_, str>> {
        self.load(&self.gemm, Table::Gemm, GemmTable::build)
    }

    pub(super) fn context_attention(&self) -> Result<&ContextAttentionTable, Cow<'_, str>> {
        self.load(
            &self.context_attention,
            Table::ContextAttention,
            ContextAttentionTable::build,
        )
    }

    pub(super) fn generation_attention(&self) -> Result<&GenerationAttentionTable, Cow<'_, str>> {
        self.load(
            &self.generation_attention,
            Table::GenerationAttention,
            |frame| GenerationAttentionTable::build(frame, &self.peaks),
        )
    }

    pub(super) fn mla_context_module(&self) -> Result<&MlaModuleTable, Cow<'_, str>> {
        let table = Table::MlaContextModule;
        self.load(&self.mla_context_module, table, |f| {
            MlaModuleTable::build(f, table)
        })
    }

    pub(super) fn mla_generation_module(&self) -> Result<&MlaModuleTable, Cow<'_, str>> {
        let table = Table::MlaGenerationModule;
        self.load(&self.mla_generation_module, table, |f| {
            MlaModuleTable::build(f, table)
        })
    }

    pub(super) fn context_mla(&self) -> Result<&MlaAttentionTable, Cow<'_, str>> {
        let table = Table::ContextMla;
        self.load(&self.context_mla, table, |f| {
            MlaAttentionTable::build(f, table)
        })
    }

    pub(super) fn generation_mla(&self) -> Result<&MlaAttentionTable, Cow<'_, str>> {
        let table = Table::GenerationMla;
        self.load(&self.generation_mla, table, |f| {
            MlaAttentionTable::build(f, table)
        })
    }

    pub(super) fn mla_bmm(&self) -> Result<&MlaBmmTable, Cow<'_, str>> {
        self.load(&self.mla_bmm, Table::MlaBmm, MlaBmmTable::build)
    }

    /// The engine whose own tables go first.
    pub(super) fn engine(&self) -> Option<&str> {
        self.engine.as_deref()
    }

    /// Routed experts with the engines' own kernels.
    pub(super) fn experts(&self) -> Result<&ExpertsTable, Cow<'_, str>> {
        self.experts_of(&self.experts, Table::Experts)
    }

    /// The same with DeepGEMM behind DeepEP, of prompts or of decodes.
    pub(super) fn deepgemm_experts(&self, prompts: bool) -> Result<&ExpertsTable, Cow<'_, str>> {
        if prompts {
            self.experts_of(&self.deepgemm_prefill, Table::ExpertsDeepgemmPrefill)
        } else {
            self.experts_of(&self.deepgemm_decode, Table::ExpertsDeepgemmDecode)
        }
    }

    fn experts_of<'a>(
        &self,
        cell: &'a Lazy<ExpertsTable>,
        table: Table,
    ) -> Result<&'a ExpertsTable, Cow<'a, str>> {
        self.load(cell, table, |frame| {
            let (engine, versions) = self.measured_engine(table).unwrap_or_default();
            // Versions are listed best first.
            let version = versions.split(" + ").next().unwrap_or_default();
            let usual = format!("{engine} {version}");
            ExpertsTable::build(frame, &self.device, &self.peaks, &usual)
        })
    }

    /// Routed experts as AIConfigurator looks them up.
    pub(super) fn aiconfigurator_experts(&self) -> Result<&AiconfiguratorExperts, Cow<'_, str>> {
        self.load(&self.aiconfigurator_experts, Table::Moe, |frame| {
            // Earlier collections of the same engine only.
            let same = self.is_engines_own(Table::Moe) == self.is_engines_own(Table::MoeEarlier);
            let earlier = if same {
                self.frame(Table::MoeEarlier)?
            } else {
                None
            };
            AiconfiguratorExperts::build(frame, earlier.as_ref())
        })
    }

    pub(super) fn delta_net(&self) -> Result<&DeltaNetTable, Cow<'_, str>> {
        self.load(&self.delta_net, Table::GatedDeltaNet, DeltaNetTable::build)
    }

    pub(super) fn all_reduce(&self) -> Result<&AllReduceTable, Cow<'_, str>> {
        self.load(&self.all_reduce, Table::AllReduce, AllReduceTable::build)
    }

    pub(super) fn nccl(&self) -> Result<&NcclTable, Cow<'_, str>> {
        self.load(&self.nccl, Table::Nccl, NcclTable::build)
    }

    /// All tables of token exchange, joined.
    pub(super) fn exchange(&self) -> Result<&ExchangeTable, Cow<'_, str>> {
        let loaded = self.exchange.get_or_init(|| {
            let mut tables = vec![
                Table::ExpertExchange,
                Table::ExpertExchangeWide,
                Table::ExpertExchangeMultinode,
            ];
            // Of several curves for one exchange the first counts: that of the
            // engine asked for, or else of the one usual on the device.
            tables.sort_by_key(|&table| {
                let measured = self.measured_engine(table).map(|(engine, _)| engine);
                self.engine.is_some() && measured != self.engine.as_deref()
            });
            let mut frames = Vec::new();
            for table in tables {
                frames.extend(self.frame(table)?);
            }
            (!frames.is_empty())
                .then(|| ExchangeTable::build(&frames))
                .transpose()
        });
        self.loaded(loaded, Table::ExpertExchange.name())
    }
}
