//! What can be deployed and on what: models, devices and engines as data.
//!
//! `data/models/*.yaml`, `data/devices/*.yaml` and `data/engines/*.yaml` are
//! embedded in the binary at build time; a file of the same shape given by the
//! user, or a Hugging Face `config.json`, is read at run time. Knows nothing of
//! time or simulation.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde::de::DeserializeOwned;

use crate::spelling::did_you_mean;
use crate::yaml::{self, Document, YamlError};

mod device;
mod embedded;
mod engine;
mod hugging_face;
mod model;
#[cfg(test)]
mod tests;
mod validate;

pub use device::{DeviceSpec, PeakFlops, PriceBasis, Unlike};
pub use engine::{Computed, EngineSpec, MEMORY_RULES, StaticFraction};
pub use model::{
    Attention, ClassFormats, LatentProjections, LinearAttention, LocalAttention, LocalReach,
    ModelSpec, Moe, WeightClass,
};

/// Everything known by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    models: Vec<ModelSpec>,
    devices: Vec<DeviceSpec>,
    engines: Vec<EngineSpec>,
}

/// Why a name or file does not lead to a catalog entry. The message is complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Neither a known name nor a file.
    #[error("{}", unknown_message(kind, name, known, aliases))]
    Unknown {
        /// `model`, `device`, `engine`, ...
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Names that exist.
        known: Vec<String>,
        /// Their other spellings.
        aliases: Vec<String>,
    },
    /// A file that cannot be read, or does not hold what it should.
    #[error(transparent)]
    File(#[from] YamlError),
}

fn unknown_message(kind: &str, name: &str, known: &[String], aliases: &[String]) -> String {
    let hint = did_you_mean(name, known.iter().chain(aliases).map(String::as_str));
    let file = match kind {
        "model" => ", or the path of a model YAML or a Hugging Face config.json",
        "device" => ", or the path of a device YAML",
        "engine" => ", or the path of an engine YAML",
        _ => "",
    };
    let known = known.join(", ");
    format!("unknown {kind} `{name}`; known: {known}{file}{hint}")
}

/// Something with a name and other spellings of it.
trait Named {
    const KIND: &'static str;
    fn name(&self) -> &str;
    fn aliases(&self) -> &[String];
    fn check(&self) -> Result<(), validate::Complaint>;
}

macro_rules! named {
    ($type:ty, $kind:literal) => {
        impl Named for $type {
            const KIND: &'static str = $kind;
            fn name(&self) -> &str {
                &self.name
            }
            fn aliases(&self) -> &[String] {
                &self.aliases
            }
            fn check(&self) -> Result<(), validate::Complaint> {
                self.check()
            }
        }
    };
}
named!(ModelSpec, "model");
named!(DeviceSpec, "device");

impl Catalog {
    /// The catalog compiled into the binary.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
            // Embedded files are part of the program: a test reads each of them.
            Catalog::load_embedded().expect("embedded catalog files are valid")
        });
        &BUILTIN
    }

    fn load_embedded() -> Result<Self, CatalogError> {
        fn all<T>(
            files: &[(&str, &str)],
            read: impl Fn(&Document) -> Result<T, YamlError>,
        ) -> Result<Vec<T>, CatalogError> {
            files
                .iter()
                .map(|(file, text)| Ok(read(&yaml::parse(text, Path::new(file))?)?))
                .collect()
        }
        Ok(Self {
            models: all(embedded::MODELS, read_entry)?,
            devices: all(embedded::DEVICES, read_entry)?,
            engines: all(embedded::ENGINES, read_engine)?,
        })
    }

    /// All models, in the order of their files.
    pub fn models(&self) -> &[ModelSpec] {
        &self.models
    }

    /// All devices, in the order of their files.
    pub fn devices(&self) -> &[DeviceSpec] {
        &self.devices
    }

    /// Where a device has other figures than the one of the same name here, which the
    /// shipped measurements are of; nowhere if there is none.
    pub fn unlike(&self, device: &DeviceSpec) -> Unlike {
        let name = |other: &&DeviceSpec| other.name.eq_ignore_ascii_case(&device.name);
        let measured = self.devices.iter().find(name);
        measured.map_or_else(Unlike::default, |measured| device.unlike(measured))
    }

    /// All engines and versions.
    pub fn engines(&self) -> &[EngineSpec] {
        &self.engines
    }

    /// The model called `name` (name or alias, letter case ignored), or read
    /// from the model YAML or Hugging Face `config.json` (or folder with one)
    /// at that path.
    pub fn model(&self, name: &str) -> Result<ModelSpec, CatalogError> {
        if let Some(found) = find(&self.models, name) {
            return Ok(found.clone());
        }
        match file_at(name) {
            Some(file) => Self::parse_model(&yaml::read_text(&file)?, &file),
            None => Err(unknown(&self.models, name)),
        }
    }

    /// The model in the text of a model YAML or Hugging Face `config.json`; `file` is
    /// what messages call it.
    pub fn parse_model(text: &str, file: &Path) -> Result<ModelSpec, CatalogError> {
        let document = yaml::parse(text, file)?;
        if hugging_face::is_config(&document) {
            let model = hugging_face::read(&document)?;
            return Ok(checked(&document, model)?);
        }
        Ok(read_entry(&document)?)
    }

    /// The file `name` leads to, if it is none of the known models.
    pub fn model_file(&self, name: &str) -> Option<PathBuf> {
        find(&self.models, name)
            .is_none()
            .then(|| file_at(name))
            .flatten()
    }

    /// The device called `name` (name or alias, letter case ignored), or read
    /// from the device YAML at that path.
    pub fn device(&self, name: &str) -> Result<DeviceSpec, CatalogError> {
        if let Some(found) = find(&self.devices, name) {
            return Ok(found.clone());
        }
        match file_at(name) {
            Some(file) => Self::parse_device(&yaml::read_text(&file)?, &file),
            None => Err(unknown(&self.devices, name)),
        }
    }

    /// The device in the text of a device YAML; `file` is what messages call it.
    pub fn parse_device(text: &str, file: &Path) -> Result<DeviceSpec, CatalogError> {
        Ok(read_entry(&yaml::parse(text, file)?)?)
    }

    /// The file `name` leads to, if it is none of the known devices.
    pub fn device_file(&self, name: &str) -> Option<PathBuf> {
        find(&self.devices, name)
            .is_none()
            .then(|| file_at(name))
            .flatten()
    }

    /// The engine `name`, of `version` or else of the newest version known; or read
    /// from the engine YAML at that path, `version` then taking the place of the
    /// file's.
    pub fn engine(&self, name: &str, version: Option<&str>) -> Result<EngineSpec, CatalogError> {
        if let Some(file) = self.engine_file(name) {
            let engine = Self::parse_engine(&yaml::read_text(&file)?, &file)?;
            let version = version.map_or(engine.version, str::to_owned);
            return Ok(EngineSpec { version, ..engine });
        }
        let of_name: Vec<_> = self
            .engines
            .iter()
            .filter(|e| e.name.eq_ignore_ascii_case(name))
            .collect();
        if of_name.is_empty() {
            let mut known: Vec<_> = self.engines.iter().map(|e| e.name.clone()).collect();
            known.dedup();
            return Err(CatalogError::Unknown {
                kind: "engine",
                name: name.to_owned(),
                known,
                aliases: Vec::new(),
            });
        }
        let found = match version {
            None => of_name.iter().max_by_key(|e| version_key(&e.version)),
            Some(version) => of_name.iter().find(|e| e.version == version),
        };
        found
            .map(|e| (*e).clone())
            .ok_or_else(|| CatalogError::Unknown {
                kind: "engine version",
                name: format!("{name} {}", version.unwrap_or_default()),
                known: of_name
                    .iter()
                    .map(|e| format!("{} {}", e.name, e.version))
                    .collect(),
                aliases: Vec::new(),
            })
    }
}

impl Catalog {
    /// What a model is called in the paths of profiles: as given where it is known, by
    /// the name in it where it is a file.
    pub fn model_name(&self, given: &str) -> Result<String, CatalogError> {
        match self.model_file(given) {
            Some(_) => Ok(self.model(given)?.name),
            None => Ok(given.to_owned()),
        }
    }

    /// The same of a device.
    pub fn device_name(&self, given: &str) -> Result<String, CatalogError> {
        match self.device_file(given) {
            Some(_) => Ok(self.device(given)?.name),
            None => Ok(given.to_owned()),
        }
    }

    /// The engine in the text of an engine YAML; `file` is what messages call it.
    pub fn parse_engine(text: &str, file: &Path) -> Result<EngineSpec, CatalogError> {
        Ok(read_engine(&yaml::parse(text, file)?)?)
    }

    /// The file `name` leads to, if it is none of the known engines.
    pub fn engine_file(&self, name: &str) -> Option<PathBuf> {
        let mut known = self.engines.iter();
        known
            .all(|engine| !engine.name.eq_ignore_ascii_case(name))
            .then(|| file_at(name))
            .flatten()
    }
}

fn find<'a, T: Named>(entries: &'a [T], name: &str) -> Option<&'a T> {
    entries.iter().find(|entry| {
        std::iter::once(entry.name())
            .chain(entry.aliases().iter().map(String::as_str))
            .any(|known| known.eq_ignore_ascii_case(name))
    })
}

fn unknown<T: Named>(entries: &[T], name: &str) -> CatalogError {
    CatalogError::Unknown {
        kind: T::KIND,
        name: name.to_owned(),
        known: entries.iter().map(|e| e.name().to_owned()).collect(),
        aliases: entries.iter().flat_map(|e| e.aliases().to_vec()).collect(),
    }
}

/// The file `name` points to, if it reads like a path: it exists, or ends in
/// `.yaml`, `.yml` or `.json` (then reading it says what is wrong).
fn file_at(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let config = path.join("config.json");
    if config.is_file() {
        return Some(config);
    }
    let extension = path.extension().and_then(|e| e.to_str());
    let named_like_a_file = matches!(extension, Some("yaml" | "yml" | "json"));
    // A pipe or a device is read too, which says what it is; a folder is named like a
    // model more often than not.
    (named_like_a_file || (path.exists() && !path.is_dir())).then(|| path.to_path_buf())
}

fn read_entry<T: Named + DeserializeOwned>(document: &Document) -> Result<T, YamlError> {
    checked(document, yaml::from_document(document)?)
}

fn checked<T: Named>(document: &Document, entry: T) -> Result<T, YamlError> {
    entry.check().map_err(|c| complaint(document, c))?;
    Ok(entry)
}

fn read_engine(document: &Document) -> Result<EngineSpec, YamlError> {
    let engine: EngineSpec = yaml::from_document(document)?;
    engine.check().map_err(|c| complaint(document, c))?;
    Ok(engine)
}

fn complaint(document: &Document, (path, allowed): validate::Complaint) -> YamlError {
    if path.is_empty() {
        return document.error("", format!("allowed: {allowed}"));
    }
    let path = validate::written_as(document, path);
    let value = document
        .get(&path)
        .map(|value| format!("value {} is not allowed; ", yaml::shown(value)))
        .unwrap_or_default();
    document.error(&path, format!("key `{path}`: {value}allowed: {allowed}"))
}

/// Sort key of a version: its numbers, releases after their candidates.
fn version_key(version: &str) -> (Vec<u64>, bool, u64) {
    let (release, candidate) = version.split_once("rc").unwrap_or((version, ""));
    let numbers = release.split('.').filter_map(|n| n.parse().ok()).collect();
    (
        numbers,
        candidate.is_empty(),
        candidate.parse().unwrap_or(0),
    )
}
