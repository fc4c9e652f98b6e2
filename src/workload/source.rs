//! Reads each data file once and keeps generated workloads for sharing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::generate::{UnitWorkload, generate};
use super::{
    ArrivalsConfig, DataFile, DataFiles, LengthData, LengthsConfig, Trace, WorkloadConfig,
    WorkloadError, read_lengths, read_trace,
};

/// Workloads are kept as long as they have so many requests together, or are so few:
/// neighbouring runs of a sweep share theirs, and a sweep over workloads stays within
/// bounds.
const REQUESTS_KEPT: usize = 2_000_000;
const WORKLOADS_KEPT: usize = 16;

/// Generates workloads, each once for all runs that use it. Shared by threads.
#[derive(Debug, Default)]
pub struct WorkloadSource {
    sources: Sources,
    kept: Mutex<Kept>,
}

/// Seed and replication: with the configuration, what determines a workload, its
/// files aside, which are read once.
type Draw = (u64, u32);

/// Workloads, and in what order they came.
#[derive(Debug, Default)]
struct Kept {
    by_draw: BTreeMap<Draw, VecDeque<(WorkloadConfig, Arc<UnitWorkload>)>>,
    order: VecDeque<Draw>,
    requests: usize,
}

impl Kept {
    fn find(&self, draw: Draw, config: &WorkloadConfig) -> Option<Arc<UnitWorkload>> {
        let drawn = self.by_draw.get(&draw)?;
        let found = drawn.iter().find(|(other, _)| other == config);
        found.map(|(_, workload)| Arc::clone(workload))
    }

    fn add(&mut self, draw: Draw, config: WorkloadConfig, workload: Arc<UnitWorkload>) {
        self.requests += workload.len();
        self.by_draw
            .entry(draw)
            .or_default()
            .push_back((config, workload));
        self.order.push_back(draw);
        while self.requests > REQUESTS_KEPT && self.order.len() > WORKLOADS_KEPT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(draw) = self.order.pop_front() else {
            return;
        };
        let Entry::Occupied(mut drawn) = self.by_draw.entry(draw) else {
            return;
        };
        if let Some((_, workload)) = drawn.get_mut().pop_front() {
            self.requests -= workload.len();
        }
        if drawn.get().is_empty() {
            drawn.remove();
        }
    }
}

impl WorkloadSource {
    /// Finds data files through `files`.
    pub fn new(files: DataFiles) -> Self {
        Self {
            sources: Sources {
                files,
                ..Sources::default()
            },
            kept: Mutex::default(),
        }
    }

    /// The workload of `config`, generated now or before.
    pub fn get(
        &self,
        config: &WorkloadConfig,
        seed: u64,
        replication: u32,
    ) -> Result<Arc<UnitWorkload>, WorkloadError> {
        let draw = (seed, replication);
        if let Some(workload) = lock(&self.kept).find(draw, config) {
            return Ok(workload);
        }
        // Generated outside the lock: two threads may both do it, with the same result.
        let workload = Arc::new(generate(config, seed, replication, &self.sources)?);
        let mut kept = lock(&self.kept);
        if let Some(workload) = kept.find(draw, config) {
            return Ok(workload);
        }
        kept.add(draw, config.clone(), Arc::clone(&workload));
        Ok(workload)
    }

    /// Requests of the trace `arrivals` names, within its window; none, if it is
    /// not a trace.
    ///
    /// # Errors
    /// If the file is missing or malformed, or the window is empty.
    pub fn arrivals_in_trace(
        &self,
        arrivals: &ArrivalsConfig,
    ) -> Result<Option<u32>, WorkloadError> {
        let ArrivalsConfig::Trace {
            file,
            start_time,
            end_time,
            ..
        } = arrivals
        else {
            return Ok(None);
        };
        let trace = self.sources.trace(file)?;
        let part = trace
            .data
            .between(start_time.as_deref(), end_time.as_deref())?;
        Ok(part.arrivals_s.map(|times| times.len() as u32))
    }

    /// Names and content hashes of the data files `config` draws from, for run
    /// identities. Reads (and checks) them.
    pub fn fingerprints(
        &self,
        config: &WorkloadConfig,
    ) -> Result<Vec<(String, String)>, WorkloadError> {
        let mut found = Vec::new();
        if let LengthsConfig::Trace { file, .. } | LengthsConfig::Histogram { file, .. } =
            &config.lengths
        {
            let hash = self.sources.lengths(file)?.fingerprint.clone();
            found.push(("workload.lengths.file".to_owned(), hash));
        }
        if let ArrivalsConfig::Trace { file, .. } = &config.arrivals {
            let hash = self.sources.trace(file)?.fingerprint.clone();
            found.push(("workload.arrivals.file".to_owned(), hash));
        }
        Ok(found)
    }
}

/// One file as read, with the hash of its content.
#[derive(Debug)]
pub(super) struct Loaded<T> {
    pub(super) data: T,
    pub(super) fingerprint: String,
}

/// Files of one kind read so far, by the name the specification gives them.
type ReadFiles<T> = Mutex<BTreeMap<PathBuf, Arc<Loaded<T>>>>;

/// Data files read so far.
#[derive(Debug, Default)]
pub(super) struct Sources {
    files: DataFiles,
    lengths: ReadFiles<LengthData>,
    traces: ReadFiles<Trace>,
}

impl Sources {
    pub(super) fn lengths(&self, file: &Path) -> Result<Arc<Loaded<LengthData>>, WorkloadError> {
        self.load(&self.lengths, file, read_lengths)
    }

    pub(super) fn trace(&self, file: &Path) -> Result<Arc<Loaded<Trace>>, WorkloadError> {
        self.load(&self.traces, file, read_trace)
    }

    fn load<T>(
        &self,
        read: &ReadFiles<T>,
        file: &Path,
        parse: fn(&DataFile) -> Result<T, WorkloadError>,
    ) -> Result<Arc<Loaded<T>>, WorkloadError> {
        // Held while reading, so that threads that start together read once.
        let mut read = lock(read);
        if let Some(loaded) = read.get(file) {
            return Ok(Arc::clone(loaded));
        }
        let found = self.files.read(file)?;
        let loaded = Arc::new(Loaded {
            data: parse(&found)?,
            fingerprint: found.fingerprint(),
        });
        read.insert(file.to_path_buf(), Arc::clone(&loaded));
        Ok(loaded)
    }
}

/// What a panicking thread left is whole: values are inserted in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_workloads_make_room() {
        let config = |requests: u32| -> WorkloadConfig {
            serde_json::from_value(serde_json::json!({
                "requests": requests,
                "lengths": {"type": "fixed", "prefill_tokens": 10, "decode_tokens": 5},
                "arrivals": {"type": "poisson"},
            }))
            .expect("a workload")
        };
        let source = WorkloadSource::default();
        let get = |requests, replication| {
            source
                .get(&config(requests), 1, replication)
                .expect("drawn")
        };
        let first = get(200, 0);
        let second = get(300, 0);
        assert!(Arc::ptr_eq(&first, &get(200, 0)) && Arc::ptr_eq(&second, &get(300, 0)));
        // Many small ones stay ...
        for replication in 1..100 {
            get(20, replication);
        }
        assert!(Arc::ptr_eq(&first, &get(200, 0)));
        // ... until there are too many requests.
        get(REQUESTS_KEPT as u32 - 300, 100);
        assert!(!Arc::ptr_eq(&first, &get(200, 0)));
        let kept = lock(&source.kept);
        assert_eq!(kept.order.len(), WORKLOADS_KEPT);
        let each = kept
            .by_draw
            .values()
            .flatten()
            .map(|(_, workload)| workload.len());
        assert_eq!(each.sum::<usize>(), kept.requests);
        assert_eq!(
            kept.by_draw.values().map(VecDeque::len).sum::<usize>(),
            kept.order.len()
        );
    }
}
