//! `manifest.json`: what the directory holds and what it was made from.
//! Written last; a directory without it is not complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::RunIndices;
use super::schema::AxisColumn;
use super::{ResultError, durable};
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
    /// Every other file.
    pub files: Vec<FileEntry>,
}

/// Name of the manifest within a result directory.
pub(super) const MANIFEST: &str = "manifest.json";

impl Manifest {
    /// Reads the manifest of a directory; none if it is not complete.
    pub fn read(dir: &Path) -> Result<Option<Self>, ResultError> {
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            return Ok(None);
        }
        read_json(&path).map(Some)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), ResultError> {
        write_json(&dir.join(MANIFEST), self)
    }
}

pub(super) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ResultError> {
    let content = fs::read(path).map_err(ResultError::io(path))?;
    serde_json::from_slice(&content).map_err(|error| ResultError::Malformed {
        path: path.to_path_buf(),
        message: format!("written by another version, or damaged: {error}"),
    })
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ResultError> {
    let mut content = serde_json::to_vec_pretty(value).map_err(|error| ResultError::Malformed {
        path: path.to_path_buf(),
        message: error.to_string(),
    })?;
    content.push(b'\n');
    durable::write_file(path, &content).map(|_| ())
}
