//! One sweep into one result directory: start or go on, execute, finish.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::executor::{
    Event, ExecuteError, ExecuteOptions, Observer, Outcome, RunOne, Shard, Sink, execute,
};
use super::plan::Plan;
use super::preflight::Identity;
use super::progress::Progress;
use crate::results::{
    ClaimedDirectory, DirectoryState, Existing, Judge, Manifest, ResultError, ResultPlan,
    ResultWriter, RunIndices, SweepSize, directory_state,
};
use crate::spec::RequestOutput;

/// Worker threads per thread that encodes results.
const WORKERS_PER_WRITER: usize = 8;

/// What to do with results that are in the directory already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPresent {
    /// Refuse to touch them.
    Refuse,
    /// Keep finished runs and do the others.
    Resume,
    /// Remove them.
    Replace,
}

/// How and where to run a sweep.
pub struct SessionOptions<'a> {
    /// Result directory, held as long as the session and whatever follows it.
    pub dir: &'a ClaimedDirectory,
    /// Part of the sweep.
    pub shard: Shard,
    /// Worker threads.
    pub threads: usize,
    /// What to do with results that are there already.
    pub if_present: IfPresent,
    /// Set from outside to interrupt.
    pub stop: &'a AtomicBool,
}

/// How a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// Every run has its row.
    Finished {
        /// What the directory holds.
        manifest: Manifest,
        /// What this session did.
        outcome: Outcome,
    },
    /// There was nothing left to do.
    AlreadyComplete {
        /// What the directory holds.
        manifest: Manifest,
    },
    /// Interrupted; the runs done so far are kept for the next session.
    Interrupted {
        /// Runs kept, or known to be excluded.
        kept: u64,
    },
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The result directory.
    #[error(transparent)]
    Results(#[from] ResultError),
    /// The execution.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// A session that is open: the directory is claimed, nothing has run yet.
pub struct Session<'a> {
    plan: &'a Plan,
    options: SessionOptions<'a>,
    indices: RunIndices,
    /// Runs taken from all over the sweep first, at most.
    samples: u64,
    state: State,
}

enum State {
    Open(ResultWriter),
    Complete(Manifest),
}

impl<'a> Session<'a> {
    /// Claims the directory for the sweep, or says why not.
    pub fn open(
        plan: &'a Plan,
        identity: Identity,
        options: SessionOptions<'a>,
    ) -> Result<Self, SessionError> {
        let indices = options.shard.of(plan.num_runs());
        let results = ResultPlan {
            name: plan.spec().name.clone(),
            spec_yaml: identity.spec_yaml,
            spec_hash: identity.spec_hash,
            data_hashes: identity.data_hashes,
            slo: plan.spec().slo.clone(),
            objectives: plan.spec().objectives.clone(),
            axes: plan.columns().to_vec(),
            run_indices: indices,
            sweep: SweepSize {
                runs: plan.num_runs(),
                request_rows_per_run: rows_per_run(
                    identity.requests_per_run,
                    plan.spec().output.requests,
                ),
            },
            writer_threads: options.threads.div_ceil(WORKERS_PER_WRITER),
        };
        let dir = options.dir.path();
        let samples = samples_max(results.sweep.request_rows_per_run);
        let state = match options.if_present {
            IfPresent::Refuse => create(dir, results, Existing::Keep)?,
            IfPresent::Replace => create(dir, results, Existing::Replace)?,
            IfPresent::Resume => resume(options.dir, results)?,
        };
        Ok(Self {
            plan,
            options,
            indices,
            samples,
            state,
        })
    }

    /// Runs this session is about, those done before included.
    pub fn total(&self) -> u64 {
        self.indices.count
    }

    /// What shows how far it is: nothing if `hidden`.
    pub fn progress(&self, hidden: bool) -> Progress {
        let completed = |index| match &self.state {
            State::Open(writer) => writer.completed().contains(index),
            State::Complete(_) => true,
        };
        Progress::new(self.indices, self.samples, &completed, hidden)
    }

    /// Runs done before.
    pub fn done_before(&self) -> u64 {
        match &self.state {
            State::Open(writer) => writer.completed().len(),
            State::Complete(_) => self.total(),
        }
    }

    /// What was there and not as it had been written, one sentence each; its runs are
    /// made again.
    pub fn damaged(&self) -> &[String] {
        match &self.state {
            State::Open(writer) => writer.damaged(),
            State::Complete(_) => &[],
        }
    }

    /// Does what is left to do.
    pub fn run(
        self,
        runner: &dyn RunOne,
        observers: &mut [&mut dyn Observer],
        judge: &mut dyn Judge,
    ) -> Result<SessionEnd, SessionError> {
        let writer = match self.state {
            State::Complete(manifest) => return Ok(SessionEnd::AlreadyComplete { manifest }),
            State::Open(writer) => writer,
        };
        let completed = writer.completed().clone();
        let options = ExecuteOptions {
            threads: self.options.threads,
            indices: self.indices,
            samples: self.samples,
            stop: self.options.stop,
            is_completed: &|index| completed.contains(index),
        };
        let mut columns = self.plan.columns().iter();
        let mut sink = WriterSink {
            writer: &writer,
            load_column: columns.position(|column| column.name == "qps"),
        };
        let outcome = execute(self.plan, runner, &options, observers, &mut sink)?;
        if outcome.interrupted {
            return Ok(SessionEnd::Interrupted {
                kept: writer.suspend()?,
            });
        }
        let manifest = writer.finish(judge)?;
        Ok(SessionEnd::Finished { manifest, outcome })
    }
}

/// Per-request rows that wait in memory until the neighbours of their runs are done, at
/// most: some tens of megabytes.
const SAMPLED_ROWS_MAX: u64 = 400_000;

/// How many runs may be taken from all over the sweep first.
fn samples_max(request_rows_per_run: Option<u64>) -> u64 {
    SAMPLED_ROWS_MAX / request_rows_per_run.unwrap_or(0).max(1)
}

/// Per-request rows kept of a run, at most; none: no such table.
fn rows_per_run(requests: u32, kept: RequestOutput) -> Option<u64> {
    match kept.every() {
        0 => None,
        every => Some(u64::from(requests.div_ceil(every))),
    }
}

fn create(dir: &Path, results: ResultPlan, existing: Existing) -> Result<State, ResultError> {
    ResultWriter::create(dir, results, existing).map(State::Open)
}

/// Goes on; a directory that is complete already is fine if it is of this sweep.
fn resume(claimed: &ClaimedDirectory, results: ResultPlan) -> Result<State, ResultError> {
    let dir = claimed.path();
    if directory_state(dir)? != DirectoryState::Complete {
        return ResultWriter::resume(dir, results).map(State::Open);
    }
    let Some(manifest) = Manifest::read(dir)? else {
        return ResultWriter::resume(dir, results).map(State::Open);
    };
    let differs = |what, there: &str, now: &str| ResultError::Mismatch {
        path: dir.to_path_buf(),
        what,
        there: there.to_owned(),
        now: now.to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    if manifest.version != version {
        return Err(differs("the tool version", &manifest.version, version));
    }
    if manifest.spec_hash != results.spec_hash {
        let (there, now) = (&manifest.spec_hash, &results.spec_hash);
        return Err(differs("the specification", there, now));
    }
    if manifest.run_indices != results.run_indices {
        let text =
            |i: RunIndices| format!("{} runs, shard {} of {}", i.count, i.first + 1, i.stride);
        let (there, now) = (text(manifest.run_indices), text(results.run_indices));
        return Err(differs("the selection of runs", &there, &now));
    }
    manifest.verify(dir)?;
    claimed.clear_leftovers()?;
    Ok(State::Complete(manifest))
}

/// Hands results to the writer.
struct WriterSink<'a> {
    writer: &'a ResultWriter,
    /// Place of the load among the columns: a run that looked for it says which it shows.
    load_column: Option<usize>,
}

impl Sink for WriterSink<'_> {
    fn accept(&mut self, event: Event) -> Result<(), String> {
        let written = match event {
            Event::Excluded(indices) => {
                let mut indices = indices.into_iter();
                indices.try_for_each(|index| self.writer.exclude(index))
            }
            Event::Finished(mut result) => {
                let shown_qps = result.capacity.as_ref().map(|found| found.shown_qps);
                if let (Some(column), Some(qps)) = (self.load_column, shown_qps) {
                    result.axes[column] = qps.into();
                }
                self.writer.write(*result)
            }
        };
        written.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::results::{RunResult, RunStatus};
    use crate::select::{Criteria, Selection};
    use crate::simulator::{
        Recorder, RequestOutcome, RequestRecord, SimulationTotals, SummaryRecorder,
    };
    use crate::spec::{RunConfig, SweepSpec};

    const REQUESTS: u32 = 8;

    fn plan(name: &str) -> Plan {
        let spec: SweepSpec = serde_json::from_value(serde_json::json!({
            "name": name,
            "base": {
                "model": "m", "device": "d",
                "workload": {
                    "requests": REQUESTS,
                    "lengths": {"type": "fixed", "prefill_tokens": 10, "decode_tokens": 5},
                    "arrivals": {"type": "poisson"},
                },
            },
            "axes": {"tensor_parallel": [1, 2, 4, 3], "qps": [0.5, 1, 2], "replicas": [1, 2, 3, 4]},
            "constraints": ["total_gpus <= 8"],
            "replications": 2,
        }))
        .expect("a sweep");
        Plan::new(spec).expect("a plan")
    }

    /// Latency falls with GPUs and rises with load; 3 GPUs are one too odd.
    struct Toy;

    impl RunOne for Toy {
        fn run_id(&self, _: &RunConfig) -> Option<String> {
            None
        }

        fn run(&self, index: u64, config: &RunConfig) -> RunResult {
            let gpus = config.tensor_parallel * config.replicas;
            let odd = config.tensor_parallel == 3;
            let qps = config.qps.expect("an axis");
            let mut recorder = SummaryRecorder::new(REQUESTS as usize, 1, None);
            for request_id in 0..REQUESTS {
                let arrived_at_s = f64::from(request_id) / qps;
                let ttft_s = qps / f64::from(gpus) + f64::from(config.replication);
                recorder.request(&record(request_id, arrived_at_s, ttft_s));
                recorder.token_intervals(0.1 * qps, 4);
            }
            let (summary, requests) = recorder.finish(&SimulationTotals::default());
            RunResult {
                index,
                run_id: format!("{gpus}-{qps}-{}", config.replication),
                status: if odd {
                    RunStatus::Infeasible
                } else {
                    RunStatus::Ok
                },
                reason: odd.then(|| "3 is odd".into()),
                axes: Vec::new(),
                total_gpus: Some(gpus),
                cost_usd_per_hour: Some(2.0 * f64::from(gpus)),
                mfu: Some(0.3),
                assumptions: None,
                kv_cache_dtype: None,
                summary: (!odd).then_some(summary),
                requests: if odd { Vec::new() } else { requests },
                measured: None,
                capacity: None,
                wall_time_s: 0.001,
            }
        }
    }

    fn record(request_id: u32, arrived_at_s: f64, ttft_s: f64) -> RequestRecord {
        RequestRecord {
            request_id,
            outcome: RequestOutcome::Completed,
            arrived_at_s,
            scheduled_at_s: arrived_at_s,
            prefill_completed_at_s: arrived_at_s + ttft_s,
            decode_arrived_at_s: arrived_at_s + ttft_s,
            completed_at_s: arrived_at_s + ttft_s + 1.0,
            ended_at_s: arrived_at_s + ttft_s + 1.0,
            longest_interval_s: 0.5,
            prefill_tokens: 10,
            decode_tokens: 5,
            is_capped: false,
            restarts: 0,
            execution_s: 1.0,
            model_execution_s: 1.0,
            preemption_s: 0.0,
            prefill_replica_id: 0,
            decode_replica_id: 0,
            pd_p2p_comm_size_bytes: 0.0,
            pd_p2p_comm_time_s: 0.0,
        }
    }

    /// Interrupts once so many runs have finished.
    struct StopAfter<'a> {
        stop: &'a AtomicBool,
        left: u32,
    }

    impl Observer for StopAfter<'_> {
        fn observe(&mut self, event: &Event) {
            if let Event::Finished(_) = event {
                self.left = self.left.saturating_sub(1);
                if self.left == 0 {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    struct Case {
        threads: usize,
        shard: Shard,
        if_present: IfPresent,
        spec_hash: &'static str,
        stop_after: u32,
    }

    const CASE: Case = Case {
        threads: 1,
        shard: Shard::WHOLE,
        if_present: IfPresent::Refuse,
        spec_hash: "abc",
        stop_after: u32::MAX,
    };

    fn session(dir: &Path, case: &Case) -> Result<SessionEnd, SessionError> {
        let plan = plan("toy");
        let stop = AtomicBool::new(false);
        let identity = Identity {
            spec_yaml: "name: toy\n".into(),
            spec_hash: case.spec_hash.into(),
            data_hashes: BTreeMap::new(),
            requests_per_run: REQUESTS,
        };
        let claimed = ClaimedDirectory::for_sweep(dir)?;
        let options = SessionOptions {
            dir: &claimed,
            shard: case.shard,
            threads: case.threads,
            if_present: case.if_present,
            stop: &stop,
        };
        let session = Session::open(&plan, identity, options)?;
        let spec = plan.spec();
        let criteria = Criteria::new(&spec.slo, &spec.objectives, plan.axis_columns());
        let mut judge = Selection::new(criteria.expect("criteria"), plan.axis_columns());
        let mut observer = StopAfter {
            stop: &stop,
            left: case.stop_after,
        };
        session.run(&Toy, &mut [&mut observer], &mut judge)
    }

    /// Every file whose bytes follow from the sweep alone.
    fn deterministic_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in [dir.to_path_buf(), dir.join("requests")] {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(dir).expect("inside").to_path_buf();
                let timed = ["timing.parquet", "manifest.json"].map(PathBuf::from);
                if path.is_file() && !timed.contains(&name) {
                    files.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
        files
    }

    fn counts(end: SessionEnd) -> crate::results::RunCounts {
        match end {
            SessionEnd::Finished { manifest, .. } => manifest.runs,
            other => panic!("not finished: {other:?}"),
        }
    }

    #[test]
    fn one_and_many_threads_write_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, many) = (folder.path().join("one"), folder.path().join("many"));
        let runs = counts(session(&one, &CASE).expect("runs"));
        // 96 runs, of which 4x3 and 4x4, 3x3 and 3x4 GPUs are too many.
        assert_eq!((runs.total, runs.infeasible, runs.failed), (72, 12, 0));
        session(&many, &Case { threads: 4, ..CASE }).expect("runs");
        let files = deterministic_files(&one);
        assert!(files.len() >= 4, "{:?}", files.keys());
        assert!(files == deterministic_files(&many));
    }

    #[test]
    fn an_interrupted_sweep_goes_on_to_the_same_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        session(&whole, &CASE).expect("runs");
        let resumed = |stop_after| Case {
            threads: 2,
            if_present: IfPresent::Resume,
            stop_after,
            ..CASE
        };
        for _ in 0..2 {
            match session(&parts, &resumed(20)).expect("runs") {
                SessionEnd::Interrupted { kept } => assert!(kept < 96),
                other => panic!("not interrupted: {other:?}"),
            }
            assert!(!parts.join("manifest.json").exists());
        }
        counts(session(&parts, &resumed(u32::MAX)).expect("runs"));
        assert!(deterministic_files(&whole) == deterministic_files(&parts));
        let again = session(&parts, &resumed(u32::MAX)).expect("runs");
        assert!(matches!(again, SessionEnd::AlreadyComplete { .. }));
    }

    #[test]
    fn results_that_are_there_are_not_touched_unless_told_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("toy");
        session(&dir, &CASE).expect("runs");
        let refused = |case: Case| match session(&dir, &case).expect_err("refused") {
            SessionError::Results(error) => {
                assert!(error.is_bad_input());
                error.to_string()
            }
            other => panic!("{other}"),
        };
        let occupied = refused(CASE);
        assert!(occupied.contains("--force"), "{occupied}");
        let other_sweep = refused(Case {
            if_present: IfPresent::Resume,
            spec_hash: "def",
            ..CASE
        });
        assert!(other_sweep.contains("specification"), "{other_sweep}");
        assert!(other_sweep.contains("--force"), "{other_sweep}");
        let replaced = Case {
            if_present: IfPresent::Replace,
            spec_hash: "def",
            ..CASE
        };
        assert_eq!(counts(session(&dir, &replaced).expect("runs")).total, 72);
    }

    #[test]
    fn shards_together_hold_every_run_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut total = 0;
        for number in 1..=3 {
            let shard = format!("{number}/3").parse().expect("a shard");
            let dir = folder.path().join(number.to_string());
            total += counts(session(&dir, &Case { shard, ..CASE }).expect("runs")).total;
        }
        assert_eq!(total, 72);
    }
}
