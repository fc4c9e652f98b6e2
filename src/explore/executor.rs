//! Runs a plan on all cores and tells others what happened.
//!
//! Workers claim the next index in the order of [`super::order`], build its configuration,
//! and hand it to a [`RunOne`]. What happens becomes typed [`Event`]s on a
//! bounded channel; the calling thread shows each to every [`Observer`] (the
//! progress display, ...) and gives it to the [`Sink`] (the result writer), so
//! a slow disk slows the workers down instead of filling memory. What one run yields depends on its
//! configuration alone, so results do not depend on the number of threads;
//! only the order of events does.
//!
//! A run that panics is a run with status `failed`: the panic is caught, its
//! message becomes the reason, and the sweep goes on.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Once};

use crossbeam_channel::{Receiver, SendError, Sender};

use super::order::Order;
use crate::results::{RunIndices, RunResult, RunStatus};
use crate::spec::RunConfig;

/// Events that may wait for the observers and the sink, per worker.
const QUEUED_EVENTS_PER_THREAD: usize = 4;

/// Excluded indices an event tells of, at most.
const EXCLUDED_AT_ONCE: usize = 1024;

/// Does one run. The one in production resolves and simulates; tests bring
/// cheaper ones. Whatever it returns must follow from the configuration alone.
pub trait RunOne: Sync {
    /// Runs the configuration at `index` of the plan. Deployments that cannot
    /// exist are results too ([`RunStatus::Infeasible`]). `index` and `axes` of
    /// the result are filled in by the executor.
    fn run(&self, index: u64, config: &RunConfig) -> RunResult;

    /// Identity of the run `config` describes, for the row of a run that
    /// panicked before it could say; none if that cannot be worked out.
    fn run_id(&self, config: &RunConfig) -> Option<String>;
}

/// Where configurations come from, by index.
pub trait Tasks: Sync {
    /// One more than the last index.
    fn len(&self) -> u64;
    /// Whether there is nothing to do.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What to do at `index`.
    fn task(&self, index: u64) -> Task;
}

/// What to do at one index of a plan.
#[derive(Debug, Clone)]
pub enum Task {
    /// Run this configuration.
    Run {
        /// The configuration.
        config: Box<RunConfig>,
        /// Its values on the axes, in the order of the axis columns.
        axes: Vec<serde_json::Value>,
    },
    /// Nothing: a constraint of the sweep excludes it.
    Excluded,
    /// Not a configuration: its axis values do not go together.
    Invalid {
        /// What does not go together.
        reason: String,
        /// Its values on the axes, in the order of the axis columns.
        axes: Vec<serde_json::Value>,
    },
}

/// What happened to an index of a plan, or several.
#[derive(Debug)]
pub enum Event {
    /// Constraints exclude these indices.
    Excluded(Vec<u64>),
    /// An index was run, or found infeasible, or failed.
    Finished(Box<RunResult>),
}

/// Something that wants to know what happened, such as the progress display.
pub trait Observer {
    /// Takes note of an event.
    fn observe(&mut self, event: &Event);
}

/// Where events go in the end, results with them: the result writer.
pub trait Sink {
    /// Takes an event. An error stops the sweep.
    fn accept(&mut self, event: Event) -> Result<(), String>;
}

/// How to execute.
pub struct ExecuteOptions<'a> {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Which indices of the plan to execute.
    pub indices: RunIndices,
    /// Runs that are taken from all over first, at most: see [`super::order`].
    pub samples: u64,
    /// Set from outside to stop: no further run is claimed, running ones end.
    pub stop: &'a AtomicBool,
    /// Whether an index has a result already.
    pub is_completed: &'a (dyn Fn(u64) -> bool + Sync),
}

/// What became of the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Runs simulated.
    pub ok: u64,
    /// Runs whose deployment cannot exist.
    pub infeasible: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Indices excluded by constraints.
    pub excluded: u64,
    /// Indices skipped because they had a result already.
    pub skipped: u64,
    /// Whether it was stopped from outside before the end.
    pub interrupted: bool,
}

impl Outcome {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Excluded(indices) => self.excluded += indices.len() as u64,
            Event::Finished(result) => match result.status {
                RunStatus::Ok => self.ok += 1,
                RunStatus::Infeasible => self.infeasible += 1,
                RunStatus::Failed => self.failed += 1,
            },
        }
    }
}

/// Why a sweep could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The worker threads could not be started.
    #[error("cannot start {threads} worker threads: {source}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why.
        source: rayon::ThreadPoolBuildError,
    },
    /// The sink failed.
    #[error("{0}")]
    Sink(String),
}

/// Executes `tasks` with `runner`, shows every event to the observers and gives
/// it to the sink.
pub fn execute(
    tasks: &dyn Tasks,
    runner: &dyn RunOne,
    options: &ExecuteOptions<'_>,
    observers: &mut [&mut dyn Observer],
    sink: &mut dyn Sink,
) -> Result<Outcome, ExecuteError> {
    let threads = options.threads.max(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|worker| format!("worker-{worker}"))
        .build()
        .map_err(|source| ExecuteError::Threads { threads, source })?;
    install_panic_hook();
    let workers = Workers {
        tasks,
        runner,
        options,
        order: Order::new(options.indices.count, options.samples),
        next: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
        abandoned: AtomicBool::new(false),
    };
    let (sender, receiver) = crossbeam_channel::bounded(threads * QUEUED_EVENTS_PER_THREAD);
    // Work is shared out below only once every thread of the pool is a worker. One that
    // waits for a parallel part of its run could otherwise take up a second worker in
    // between, and wait there for what it holds itself.
    let all_there = Barrier::new(threads);
    let passed_on = pool.in_place_scope(|scope| {
        for _ in 0..threads {
            let (workers, sender, all_there) = (&workers, sender.clone(), &all_there);
            scope.spawn(move |_| {
                all_there.wait();
                // A worker ends early only when nobody listens any more.
                drop(workers.work(&sender));
            });
        }
        drop(sender);
        let passed_on = pass_on(receiver, observers, sink);
        if passed_on.is_err() {
            workers.abandoned.store(true, Ordering::Relaxed);
        }
        passed_on
    });
    let mut outcome = passed_on.map_err(ExecuteError::Sink)?;
    outcome.skipped = workers.skipped.into_inner();
    outcome.interrupted = workers.next.into_inner() < options.indices.count;
    Ok(outcome)
}

/// Passes events on until the last worker hangs up or the sink fails.
fn pass_on(
    receiver: Receiver<Event>,
    observers: &mut [&mut dyn Observer],
    sink: &mut dyn Sink,
) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for event in receiver {
        outcome.count(&event);
        for observer in &mut *observers {
            observer.observe(&event);
        }
        sink.accept(event)?;
    }
    Ok(outcome)
}

/// What the workers share.
struct Workers<'a> {
    tasks: &'a dyn Tasks,
    runner: &'a dyn RunOne,
    options: &'a ExecuteOptions<'a>,
    order: Order,
    /// How many indices were claimed.
    next: AtomicU64,
    skipped: AtomicU64,
    abandoned: AtomicBool,
}

impl Workers<'_> {
    /// Claims and does indices until there are none, or it is told to stop.
    fn work(&self, events: &Sender<Event>) -> Result<(), SendError<Event>> {
        // Told together, before the next run: an event each would wake who listens more
        // often than results do.
        let mut excluded = Vec::new();
        while let Some(index) = self.claim() {
            if (self.options.is_completed)(index) {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            match self.tasks.task(index) {
                Task::Excluded => {
                    excluded.push(index);
                    if excluded.len() == EXCLUDED_AT_ONCE {
                        tell_excluded(&mut excluded, events)?;
                    }
                }
                Task::Invalid { reason, axes } => {
                    let result = failed_result(index, axes, String::new(), reason);
                    events.send(Event::Finished(Box::new(result)))?;
                }
                Task::Run { config, axes } => {
                    tell_excluded(&mut excluded, events)?;
                    let result = run_caught(self.runner, index, &config, axes);
                    events.send(Event::Finished(Box::new(result)))?;
                }
            }
        }
        tell_excluded(&mut excluded, events)
    }

    /// The next index nobody has taken.
    fn claim(&self) -> Option<u64> {
        if self.options.stop.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed) {
            return None;
        }
        let end = self.options.indices.count;
        let claimed = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next < end).then_some(next + 1)
            });
        let slot = self.order.at(claimed.ok()?)?;
        Some(self.options.indices.index(slot))
    }
}

/// Tells of excluded indices, if there are any.
fn tell_excluded(indices: &mut Vec<u64>, events: &Sender<Event>) -> Result<(), SendError<Event>> {
    match indices.is_empty() {
        true => Ok(()),
        false => events.send(Event::Excluded(std::mem::take(indices))),
    }
}

fn run_caught(
    runner: &dyn RunOne,
    index: u64,
    config: &RunConfig,
    axes: Vec<serde_json::Value>,
) -> RunResult {
    // Nothing that the closure could leave half changed outlives a panic but
    // the runner's caches, which are only ever filled with whole entries.
    match catch_panic(AssertUnwindSafe(|| runner.run(index, config))) {
        Ok(mut result) => {
            result.index = index;
            result.axes = axes;
            result
        }
        Err(message) => {
            let run_id = catch_panic(AssertUnwindSafe(|| runner.run_id(config)));
            let run_id = run_id.ok().flatten().unwrap_or_default();
            failed_result(index, axes, run_id, format!("panic: {message}"))
        }
    }
}

/// The row of a run that failed.
fn failed_result(
    index: u64,
    axes: Vec<serde_json::Value>,
    run_id: String,
    reason: String,
) -> RunResult {
    RunResult {
        index,
        run_id,
        status: RunStatus::Failed,
        reason: Some(reason),
        axes,
        total_gpus: None,
        cost_usd_per_hour: None,
        mfu: None,
        assumptions: None,
        kv_cache_dtype: None,
        summary: None,
        requests: Vec::new(),
        measured: None,
        capacity: None,
        wall_time_s: 0.0,
    }
}

thread_local! {
    /// Whether a panic of this thread is somebody's to catch and report.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where and why this thread panicked last.
    static PANIC_MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics inside [`catch_panic`] silent and remembers where they
/// happened; all others are reported as before.
fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return previous(info);
            }
            let location = info
                .location()
                .map_or(String::new(), |l| format!(" at {l}"));
            let message = format!("{}{location}", payload_text(info.payload()));
            PANIC_MESSAGE.set(Some(message));
        }));
    });
}

fn catch_panic<T>(work: impl FnOnce() -> T + panic::UnwindSafe) -> Result<T, String> {
    CATCHING.set(true);
    let outcome = panic::catch_unwind(work);
    CATCHING.set(false);
    outcome.map_err(|payload| {
        PANIC_MESSAGE
            .take()
            .unwrap_or_else(|| payload_text(payload.as_ref()).to_owned())
    })
}

fn payload_text(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Part `number` (from 1) of `count` of a sweep, for as many machines; see
/// [`RunIndices`] for how the runs are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: u64,
    count: u64,
}

impl Shard {
    /// The whole sweep.
    pub const WHOLE: Self = Self {
        number: 1,
        count: 1,
    };

    /// Which shard, from 1.
    pub fn number(self) -> u64 {
        self.number
    }

    /// Of how many.
    pub fn count(self) -> u64 {
        self.count
    }

    /// Which of `total` indices are this shard's.
    pub fn of(self, total: u64) -> RunIndices {
        RunIndices::shard(total, self.number - 1, self.count)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((number, count)) if 1 <= number && number <= count => Ok(Self { number, count }),
            _ => Err(format!(
                "`{text}` is not a shard; write K/N with 1 <= K <= N, such as 2/8"
            )),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A plan of so many runs, of which every tenth is excluded.
    struct Numbers(u64);

    impl Tasks for Numbers {
        fn len(&self) -> u64 {
            self.0
        }

        fn task(&self, index: u64) -> Task {
            let config = serde_json::json!({
                "model": "m", "device": "d", "seed": index,
                "workload": {
                    "lengths": {"type": "fixed", "prefill_tokens": 1, "decode_tokens": 1},
                    "arrivals": {"type": "poisson"},
                },
            });
            match index % 10 {
                9 => Task::Excluded,
                8 => Task::Invalid {
                    reason: "eight".into(),
                    axes: vec![index.into()],
                },
                _ => Task::Run {
                    config: Box::new(serde_json::from_value(config).expect("a configuration")),
                    axes: vec![index.into()],
                },
            }
        }
    }

    /// Infeasible at 3, panics at 7, and otherwise fine.
    struct Fake;

    impl RunOne for Fake {
        fn run_id(&self, config: &RunConfig) -> Option<String> {
            Some(format!("id{}", config.seed))
        }

        fn run(&self, index: u64, config: &RunConfig) -> RunResult {
            assert_eq!(config.seed, index);
            assert_ne!(index % 10, 7, "seven does not compute");
            RunResult {
                run_id: format!("id{index}"),
                status: match index % 10 {
                    3 => RunStatus::Infeasible,
                    _ => RunStatus::Ok,
                },
                reason: None,
                ..failed_result(0, Vec::new(), String::new(), String::new())
            }
        }
    }

    #[derive(Default)]
    struct Collect {
        rows: Vec<RunResult>,
        fail_after: Option<usize>,
    }

    impl Sink for Collect {
        fn accept(&mut self, event: Event) -> Result<(), String> {
            if let Event::Finished(result) = event {
                self.rows.push(*result);
            }
            match self.fail_after {
                Some(limit) if self.rows.len() >= limit => Err("disk full".into()),
                _ => Ok(()),
            }
        }
    }

    struct Session {
        threads: usize,
        shard: Shard,
        done: BTreeSet<u64>,
        stop: AtomicBool,
    }

    impl Session {
        fn new(threads: usize) -> Self {
            Self {
                threads,
                shard: Shard::WHOLE,
                done: BTreeSet::new(),
                stop: AtomicBool::new(false),
            }
        }

        fn run(&self, runner: &dyn RunOne, sink: &mut dyn Sink) -> Result<Outcome, ExecuteError> {
            let options = ExecuteOptions {
                threads: self.threads,
                indices: self.shard.of(200),
                samples: 20,
                stop: &self.stop,
                is_completed: &|index| self.done.contains(&index),
            };
            execute(&Numbers(200), runner, &options, &mut [], sink)
        }

        fn rows(&self) -> (Outcome, Vec<RunResult>) {
            let mut collect = Collect::default();
            let outcome = self.run(&Fake, &mut collect).expect("executes");
            collect.rows.sort_by_key(|row| row.index);
            (outcome, collect.rows)
        }
    }

    fn text(rows: &[RunResult]) -> Vec<String> {
        rows.iter().map(|row| format!("{row:?}")).collect()
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (outcome, alone) = Session::new(1).rows();
        let expected = Outcome {
            ok: 120,
            infeasible: 20,
            failed: 40,
            excluded: 20,
            ..Outcome::default()
        };
        assert_eq!(outcome, expected);
        assert_eq!(alone.len(), 180);
        for threads in [2, 5] {
            let (outcome, rows) = Session::new(threads).rows();
            assert_eq!(outcome, expected);
            assert_eq!(text(&rows), text(&alone));
        }
    }

    #[test]
    fn a_panic_becomes_a_failed_row_that_says_where_and_why() {
        let (_, rows) = Session::new(2).rows();
        let row = rows.iter().find(|row| row.index == 17).expect("a row");
        assert_eq!(row.status, RunStatus::Failed);
        assert_eq!(row.run_id, "id17");
        assert_eq!(row.axes, [serde_json::Value::from(17)]);
        let reason = row.reason.as_deref().expect("a reason");
        assert!(reason.contains("seven does not compute"), "{reason}");
        assert!(reason.contains("executor.rs:"), "{reason}");
    }

    #[test]
    fn shards_are_balanced_and_cover_each_run_once() {
        let mut seen = BTreeSet::new();
        for number in 1..=3 {
            let session = Session {
                shard: format!("{number}/3").parse().expect("a shard"),
                ..Session::new(2)
            };
            let (outcome, rows) = session.rows();
            assert!((58..=62).contains(&rows.len()), "{}", rows.len());
            assert!(!outcome.interrupted);
            for row in rows {
                assert!(seen.insert(row.index), "{} twice", row.index);
            }
        }
        assert_eq!(seen.len(), 180);
    }

    #[test]
    fn shard_text_is_checked() {
        for bad in ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", ""] {
            let error = bad.parse::<Shard>().expect_err(bad);
            assert!(error.contains("K/N"), "{error}");
        }
    }

    /// Asks to stop once 20 results are in.
    struct StopEarly<'a>(&'a AtomicBool, Collect);

    impl Sink for StopEarly<'_> {
        fn accept(&mut self, event: Event) -> Result<(), String> {
            if self.1.rows.len() == 20 {
                self.0.store(true, Ordering::Relaxed);
            }
            self.1.accept(event)
        }
    }

    #[test]
    fn an_interrupted_sweep_resumes_without_losing_or_repeating_a_run() {
        let first = Session::new(2);
        let mut sink = StopEarly(&first.stop, Collect::default());
        let outcome = first.run(&Fake, &mut sink).expect("executes");
        assert!(outcome.interrupted);
        let mut rows = sink.1.rows;
        assert!((20..60).contains(&rows.len()), "{}", rows.len());
        let second = Session {
            done: rows.iter().map(|row| row.index).collect(),
            ..Session::new(2)
        };
        let (outcome, rest) = second.rows();
        assert_eq!(outcome.skipped, rows.len() as u64);
        assert!(!outcome.interrupted);
        rows.extend(rest);
        rows.sort_by_key(|row| row.index);
        assert_eq!(text(&rows), text(&Session::new(1).rows().1));
    }

    #[test]
    fn a_failing_sink_ends_the_sweep_with_its_error() {
        for threads in [1, 4] {
            let mut sink = Collect {
                fail_after: Some(5),
                ..Collect::default()
            };
            let error = Session::new(threads)
                .run(&Fake, &mut sink)
                .expect_err("must fail");
            assert_eq!(error.to_string(), "disk full");
            assert!(sink.rows.len() == 5);
        }
    }
}
