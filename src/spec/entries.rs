//! Models, devices and engines as configurations name them: looked up in the catalog or
//! read from files, and known by what they hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{EngineConfig, RunConfig, lock};
use crate::catalog::{Catalog, CatalogError, DeviceSpec, EngineSpec, ModelSpec};
use crate::yaml;

/// A catalog entry, or one of the user's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry<T> {
    pub(super) spec: T,
    /// Hash of everything in it.
    pub(super) hash: String,
    /// What it is called in the paths of profiles: as the configuration spells it, or as
    /// its file says.
    pub(super) name: String,
    /// Whether it is from a file.
    pub(super) from_file: bool,
}

/// Entries by name, or by file and its content.
type Found<T> = Mutex<BTreeMap<(String, Option<[u8; 32]>), Arc<Entry<T>>>>;

/// Entries looked up so far. Shared by all threads.
#[derive(Debug, Default)]
pub(super) struct Entries {
    models: Found<ModelSpec>,
    devices: Found<DeviceSpec>,
    engines: Found<EngineSpec>,
}

impl Entries {
    /// The model of that name or in that file.
    pub(super) fn model(&self, name: &str) -> Result<Arc<Entry<ModelSpec>>, CatalogError> {
        let catalog = Catalog::builtin();
        let file = catalog.model_file(name);
        let look_up = || catalog.model(name);
        let called = |model: &ModelSpec| model.name.clone();
        find(
            &self.models,
            name,
            file,
            look_up,
            Catalog::parse_model,
            called,
        )
    }

    /// The device of that name or in that file.
    pub(super) fn device(&self, name: &str) -> Result<Arc<Entry<DeviceSpec>>, CatalogError> {
        let catalog = Catalog::builtin();
        let file = catalog.device_file(name);
        let look_up = || catalog.device(name);
        let called = |device: &DeviceSpec| device.name.clone();
        find(
            &self.devices,
            name,
            file,
            look_up,
            Catalog::parse_device,
            called,
        )
    }

    /// The engine of a configuration, with what it says otherwise; none without one.
    pub(super) fn engine(
        &self,
        config: &EngineConfig,
    ) -> Result<Option<Arc<Entry<EngineSpec>>>, String> {
        let mut found = None;
        let engine = config.resolve(|name, version| {
            let entry = self.named_engine(name, version)?;
            let spec = entry.spec.clone();
            found = Some(entry);
            Ok(spec)
        })?;
        Ok(engine.map(|engine| match found {
            Some(entry) if config.is_plain() && entry.spec == engine => entry,
            _ => Arc::new(Entry {
                hash: content_hash(&engine),
                name: engine.name.clone(),
                spec: engine,
                from_file: true,
            }),
        }))
    }

    fn named_engine(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<Entry<EngineSpec>>, CatalogError> {
        let catalog = Catalog::builtin();
        let file = catalog.engine_file(name);
        let full = format!("{name}\n{}", version.unwrap_or_default());
        let look_up = || catalog.engine(name, version);
        let parse = |text: &str, file: &Path| {
            let engine = Catalog::parse_engine(text, file)?;
            let version = version.map_or(engine.version, str::to_owned);
            Ok(EngineSpec { version, ..engine })
        };
        let called = |engine: &EngineSpec| engine.name.clone();
        find(&self.engines, &full, file, look_up, parse, called)
    }

    /// Keys of `config` that name entries, with the hashes of those. Unknown names are
    /// left out; resolving tells about them.
    pub(super) fn fingerprints(&self, config: &RunConfig) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut add = |key: &str, hash: Option<String>| {
            found.extend(hash.map(|hash| (key.to_owned(), hash)));
        };
        let model = self.model(&config.model).ok();
        add("model", model.map(|model| model.hash.clone()));
        for (key, device) in config.device_names() {
            let device = self.device(device).ok();
            add(key, device.map(|device| device.hash.clone()));
        }
        let engine = self.engine(&config.engine).ok().flatten();
        add("engine", engine.map(|engine| engine.hash.clone()));
        found
    }
}

impl RunConfig {
    /// Keys that name devices, and the names.
    pub(super) fn device_names(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let devices = [
            ("device", Some(&self.device)),
            ("prefill.device", self.prefill.device.as_ref()),
            ("decode.device", self.decode.device.as_ref()),
        ];
        devices
            .into_iter()
            .filter_map(|(key, device)| Some((key, device?.as_str())))
    }
}

/// What is called `name`: looked up, or what `parse` makes of the content of `file`.
fn find<T: serde::Serialize>(
    known: &Found<T>,
    name: &str,
    file: Option<PathBuf>,
    look_up: impl FnOnce() -> Result<T, CatalogError>,
    parse: impl FnOnce(&str, &Path) -> Result<T, CatalogError>,
    called: impl FnOnce(&T) -> String,
) -> Result<Arc<Entry<T>>, CatalogError> {
    let text = match &file {
        Some(file) => Some(yaml::read_text(file)?),
        None => None,
    };
    let content = text
        .as_ref()
        .map(|text| *blake3::hash(text.as_bytes()).as_bytes());
    let key = (name.to_owned(), content);
    if let Some(entry) = lock(known).get(&key) {
        return Ok(Arc::clone(entry));
    }
    let spec = match (&text, &file) {
        (Some(text), Some(file)) => parse(text, file)?,
        _ => look_up()?,
    };
    let entry = Arc::new(Entry {
        hash: content_hash(&spec),
        name: if file.is_some() {
            called(&spec)
        } else {
            name.to_owned()
        },
        spec,
        from_file: file.is_some(),
    });
    lock(known).insert(key, Arc::clone(&entry));
    Ok(entry)
}

/// Hash of everything in an entry.
fn content_hash<T: serde::Serialize>(entry: &T) -> String {
    // Catalog entries are plain data: serialising them cannot fail.
    let json = serde_json::to_vec(entry).unwrap_or_default();
    blake3::hash(&json).to_hex()[..16].to_owned()
}
