//! Reads each data file once and keeps generated workloads for sharing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::generate::{UnitWorkload, generate};
use super::outline::Outline;
use super::read_files::Sources;
use super::stream::UnitStream;
use super::{ArrivalsConfig, DataFiles, LengthsConfig, WorkloadConfig, WorkloadError};

/// Workloads are kept as long as they have so many requests together, or are so few
/// and not too large: neighbouring runs of a sweep share theirs, and a sweep over
/// workloads stays within bounds.
const REQUESTS_KEPT: usize = 2_000_000;
const WORKLOADS_KEPT: usize = 16;
const REQUESTS_OF_FEW_KEPT: usize = 32_000_000;

/// Generates workloads, each once for all runs that use it. Shared by threads.
#[derive(Debug, Default)]
pub struct WorkloadSource {
    sources: Sources,
    kept: Mutex<Kept>,
    /// Streams in use or lately so, the oldest first.
    streams: Mutex<VecDeque<(Draw, WorkloadConfig, Arc<UnitStream>)>>,
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
        let too_many = |kept: &Self| match kept.order.len() {
            0 | 1 => false,
            2..=WORKLOADS_KEPT => kept.requests > REQUESTS_OF_FEW_KEPT,
            _ => kept.requests > REQUESTS_KEPT,
        };
        while too_many(self) {
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
            sources: Sources::new(files),
            ..Self::default()
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

    /// The requests of `config` without end, whatever number of them it names.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stream(
        &self,
        config: &WorkloadConfig,
        seed: u64,
        replication: u32,
    ) -> Result<Arc<UnitStream>, WorkloadError> {
        let draw = (seed, replication);
        let mut streams = lock(&self.streams);
        // The rate of a recording is that of the rows that are used, which the number of
        // requests decides.
        let is_recorded = matches!(config.arrivals, ArrivalsConfig::Trace { .. });
        let is_same = |other: &WorkloadConfig| {
            other.lengths == config.lengths
                && other.arrivals == config.arrivals
                && (!is_recorded || other.requests == config.requests)
        };
        let found = streams.iter().find(|(d, c, _)| *d == draw && is_same(c));
        if let Some((_, _, stream)) = found {
            return Ok(Arc::clone(stream));
        }
        // Nothing is drawn yet, so holding the lock keeps nobody waiting.
        let outline = Outline::of(config, &self.sources)?;
        let stream = Arc::new(UnitStream::new(config, &outline, seed, replication)?);
        if streams.len() == WORKLOADS_KEPT {
            streams.pop_front();
        }
        streams.push_back((draw, config.clone(), Arc::clone(&stream)));
        Ok(stream)
    }

    /// What the workload of `config` amounts to at `qps`, without drawing it.
    ///
    /// # Errors
    /// If it cannot be drawn: a file is missing or malformed, settings contradict each
    /// other, or it is larger than allowed.
    pub fn outline(
        &self,
        config: &WorkloadConfig,
        qps: Option<f64>,
    ) -> Result<WorkloadOutline, WorkloadError> {
        let outline = Outline::of(config, &self.sources)?;
        outline.timing.factor(outline.requests, qps)?;
        Ok(WorkloadOutline {
            requests: outline.requests,
            run_notes: outline.run_notes,
            file_notes: outline.file_notes,
        })
    }

    /// Reads and checks a file that `lengths` names.
    ///
    /// # Errors
    /// If it is missing or malformed, or has no lengths.
    pub fn check_lengths_file(&self, file: &Path) -> Result<(), WorkloadError> {
        self.sources.lengths(file).map(drop)
    }

    /// Reads and checks a file that `arrivals` names.
    ///
    /// # Errors
    /// If it is missing or malformed, or has no arrival times.
    pub fn check_arrivals_file(&self, file: &Path) -> Result<(), WorkloadError> {
        self.sources.trace(file, None).map(drop)
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
        if let ArrivalsConfig::Trace {
            file, time_unit, ..
        } = &config.arrivals
        {
            let hash = self.sources.trace(file, *time_unit)?.fingerprint.clone();
            found.push(("workload.arrivals.file".to_owned(), hash));
        }
        Ok(found)
    }
}

/// What a workload amounts to before it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadOutline {
    /// Requests.
    pub requests: u32,
    /// What a person should know of every run with it, one sentence each.
    pub run_notes: Vec<String>,
    /// What a person should know once of all runs that use its files.
    pub file_notes: Vec<String>,
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
