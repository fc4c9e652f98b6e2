//! Data files of workloads, each read and checked once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::trace::{TraceFile, read_trace_file};
use super::{DataFiles, TimeUnit, WorkloadError};

/// One file as read, with the hash of its content.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    pub(super) data: T,
    pub(super) fingerprint: String,
}

/// Files read so far, by the name the specification gives them and the unit of their
/// times.
type ReadFiles = BTreeMap<(PathBuf, Option<TimeUnit>), Arc<Loaded<TraceFile>>>;

/// Data files read so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: DataFiles,
    read: Mutex<ReadFiles>,
}

impl Sources {
    /// None yet; they are found through `files`.
    pub(super) fn new(files: DataFiles) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// A trace with lengths, or a histogram of them.
    pub(super) fn lengths(&self, file: &Path) -> Result<Arc<Loaded<TraceFile>>, WorkloadError> {
        let loaded = self.load(file, None)?;
        match &loaded.data {
            TraceFile::Rows(trace) if trace.lengths.is_none() => Err(WorkloadError::in_file(
                &trace.name,
                "has no request lengths; needed are columns `num_prefill_tokens` and \
                 `num_decode_tokens` (or another format of docs/spec.md)",
            )),
            _ => Ok(loaded),
        }
    }

    /// A trace with arrival times.
    pub(super) fn trace(
        &self,
        file: &Path,
        time_unit: Option<TimeUnit>,
    ) -> Result<Arc<Loaded<TraceFile>>, WorkloadError> {
        let loaded = self.load(file, time_unit)?;
        let trace = loaded.data.trace().map_err(|error| error.about(file))?;
        trace.times_s()?;
        Ok(loaded)
    }

    fn load(
        &self,
        file: &Path,
        time_unit: Option<TimeUnit>,
    ) -> Result<Arc<Loaded<TraceFile>>, WorkloadError> {
        // Held while reading, so that threads that start together read once. What a
        // panicking thread left is whole: files are inserted in one step.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (file.to_path_buf(), time_unit);
        if let Some(loaded) = read.get(&key) {
            return Ok(Arc::clone(loaded));
        }
        let found = self.files.read(file)?;
        let loaded = Arc::new(Loaded {
            data: read_trace_file(&found, time_unit)?,
            fingerprint: found.fingerprint(),
        });
        read.insert(key, Arc::clone(&loaded));
        Ok(loaded)
    }
}
