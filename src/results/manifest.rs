//! `manifest.json`: what the directory holds and what it was made from.
//! Written last; a directory without it is not complete.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::layout::{RunIndices, SweepSize};
use super::schema::AxisColumn;
use super::{ResultError, durable};
use crate::input_file::{self, InputKind};
use crate::spec::{Objectives, Slo};

/// One file of a result directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path within the directory.
    pub path: String,
    /// Rows; 0 for files that are not tables.
    pub rows: u64,
    /// Size, bytes.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub blake3: String,
}

/// How the runs ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// All runs.
    pub total: u64,
    /// Simulated.
    pub ok: u64,
    /// Could not be deployed.
    pub infeasible: u64,
    /// Did not end well.
    pub failed: u64,
    /// Met every target.
    pub slo_met: u64,
    /// On the Pareto frontier.
    pub pareto: u64,
}

/// Content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout version, [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Always `vidur-sweep`.
    pub tool: String,
    /// Version of the tool.
    pub version: String,
    /// Always true: the file is written when everything else is there.
    pub complete: bool,
    /// Name of the sweep.
    pub name: String,
    /// Hash of the resolved sweep specification.
    pub spec_hash: String,
    /// Hashes of the data the results depend on, by name.
    pub data_hashes: BTreeMap<String, String>,
    /// The whole sweep.
    #[serde(default)]
    pub sweep: SweepSize,
    /// Indices of the sweep's runs that are here.
    pub run_indices: RunIndices,
    /// How they ended.
    pub runs: RunCounts,
    /// Per-request rows in `requests/`.
    pub request_rows: u64,
    /// Axis columns.
    pub axes: Vec<AxisColumn>,
    /// Targets `slo_met` was decided by.
    pub slo: Slo,
    /// Objectives `pareto` was decided by.
    pub objectives: Objectives,
    /// Every other file, but for the report, which can be made again.
    pub files: Vec<FileEntry>,
    /// BLAKE3 of the manifest with nothing here.
    #[serde(default)]
    pub blake3: String,
}

/// Name of the manifest within a result directory.
pub(super) const MANIFEST: &str = "manifest.json";

impl Manifest {
    /// Reads the manifest of a directory; none if it is not complete.
    pub fn read(dir: &Path) -> Result<Option<Self>, ResultError> {
        let path = dir.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let manifest: Self = read_json(&path)?;
        match manifest.checksum()? == manifest.blake3 {
            true => Ok(Some(manifest)),
            false => Err(ResultError::damaged(
                &path,
                "written by another version, or altered: its checksum differs; `run --force` \
                 makes everything again",
            )),
        }
    }

    pub(super) fn write(&mut self, dir: &Path) -> Result<(), ResultError> {
        self.blake3 = self.checksum()?;
        write_json(&dir.join(MANIFEST), self)
    }

    fn checksum(&self) -> Result<String, ResultError> {
        let unsigned = Self {
            blake3: String::new(),
            ..self.clone()
        };
        let json = serde_json::to_vec(&unsigned).map_err(ResultError::malformed(MANIFEST))?;
        Ok(blake3::hash(&json).to_hex().to_string())
    }

    /// Compares every file of a finished directory with what was written.
    ///
    /// # Errors
    /// [`ResultError::Damaged`] names the first that differs.
    pub fn verify(&self, dir: &Path) -> Result<(), ResultError> {
        let checked: Vec<_> = self
            .files
            .par_iter()
            .map(|file| file.check(dir, "`run --force` makes everything again"))
            .collect();
        checked.into_iter().collect()
    }
}

impl FileEntry {
    /// Compares the file with what was written; `remedy` is for the message.
    pub(super) fn check(&self, dir: &Path, remedy: &str) -> Result<(), ResultError> {
        let path = dir.join(&self.path);
        let damaged = |why: String| {
            Err(ResultError::damaged(
                &path,
                format!("damaged: {why}; {remedy}"),
            ))
        };
        // Nothing outside is looked at, whatever the manifest says.
        let inside = |part| matches!(part, Component::Normal(_));
        if !Path::new(&self.path).components().all(inside) {
            return damaged("not a file of the directory".into());
        }
        let found = match durable::examine(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return damaged("it is missing".into());
            }
            Err(error) => return damaged(error.to_string()),
        };
        if found.bytes != self.bytes {
            let (bytes, written) = (found.bytes, self.bytes);
            return damaged(format!("it has {bytes} bytes, {written} were written"));
        }
        match found.blake3 == self.blake3 {
            true => Ok(()),
            false => damaged("its content is not what was written (its hash differs)".into()),
        }
    }
}

pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ResultError> {
    let content = input_file::read(path, InputKind::ResultNotes);
    let content = content.map_err(ResultError::unreadable(path))?;
    serde_json::from_slice(&content).map_err(|error| ResultError::Malformed {
        path: path.to_path_buf(),
        message: format!("written by another version, or damaged: {error}"),
    })
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ResultError> {
    let mut content = serde_json::to_vec_pretty(value).map_err(ResultError::malformed(path))?;
    content.push(b'\n');
    durable::write_file(path, &content).map(|_| ())
}
