//! Writes result directories: blocks while the sweep runs, whole tables at its
//! end.
//!
//! Threads hand in runs through [`ResultWriter::write`]. The thread that brings
//! the last run of a block passes the block on, over a bounded channel, to the
//! encoding threads; when they fall behind, `write` waits. Memory holds the
//! open blocks, and those finished within a moment, only: hand out runs in about
//! index order and there are few.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parquet::file::metadata::KeyValue;
use parquet::file::reader::ChunkReader;
use rayon::prelude::*;

use super::copied::CopiedRow;
use super::durable::{self, Written};
use super::layout::{
    self, CompletedRuns, DirectoryState, Layout, RunIndices, SummaryPart, SweepSize,
};
use super::manifest::{FileEntry, Manifest, RunCounts, write_json};
use super::parquet_io::{TableFile, TableWriter};
use super::reader::{SummaryBatch, SummaryReader, SummaryRow};
use super::requests::write_requests;
use super::row_table::{RowColumns, RowTableWriter};
use super::schema::{
    self, AxisColumn, REQUEST_COLUMNS, SCHEMA_VERSION, part_schema, request_schema, summary_schema,
    timing_schema,
};
use super::{RequestRow, ResultError, RunResult, RunStatus, columns};
use crate::input_file::shown;
use crate::number::narrow;
use crate::output_file;
use crate::spec::{Objectives, Slo};

/// What a result directory is to hold.
#[derive(Debug, Clone)]
pub struct ResultPlan {
    /// Name of the sweep.
    pub name: String,
    /// Resolved specification, as kept in `spec.yaml`.
    pub spec_yaml: String,
    /// Hash of everything that determines the results; resuming needs the same.
    pub spec_hash: String,
    /// Hashes of the data the results depend on, by name.
    pub data_hashes: BTreeMap<String, String>,
    /// Targets, for the manifest.
    pub slo: Slo,
    /// Objectives, for the manifest.
    pub objectives: Objectives,
    /// Axis columns.
    pub axes: Vec<AxisColumn>,
    /// Runs that will come, or be excluded.
    pub run_indices: RunIndices,
    /// The whole sweep.
    pub sweep: SweepSize,
    /// Threads that encode and write.
    pub writer_threads: usize,
}

/// What to do with results that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Keep,
    /// Remove them. A directory that holds anything but results is refused all
    /// the same.
    Replace,
}

/// What is said of a run once all are in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Whether it meets all targets.
    pub slo: SloVerdict,
    /// Probability that it does.
    pub slo_probability: f64,
    /// On the Pareto frontier.
    pub pareto: bool,
}

/// Whether targets are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SloVerdict {
    /// All of them, for certain.
    Meets,
    /// Not all of them, for certain.
    Misses,
    /// That cannot be said.
    Unsure,
}

impl SloVerdict {
    /// The word in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meets => "meets",
            Self::Misses => "misses",
            Self::Unsure => "unsure",
        }
    }
}

/// Says which runs are good.
pub trait Judge {
    /// Columns it looks at when it sees runs.
    fn columns(&self) -> Vec<String>;
    /// Sees every run once, in index order.
    fn observe(&mut self, row: SummaryRow<'_>);
    /// Has seen every run and says of one, asked in index order.
    fn verdict(&mut self, row: SummaryRow<'_>) -> Verdict;
}

/// Key of the request parts' [`FileEntry`]s in a summary part's metadata.
const REQUEST_PARTS_KEY: &str = "vidur_sweep.request_parts";
/// Key, there too, of the [`Layout::identity`] it belongs to.
const LAYOUT_KEY: &str = "vidur_sweep.layout";

/// Finished blocks wait for so long to be written together, unless they are many:
/// every part costs two syncs, and short runs would wait for the disk.
const GROUP_INTERVAL: Duration = Duration::from_millis(250);

struct Block {
    number: u64,
    runs: Vec<RunResult>,
}

struct OpenBlock {
    slots: Vec<Slot>,
    missing: u64,
}

/// A run's place in an open block. Most will be runs, so boxing them saves nothing.
#[allow(clippy::large_enum_variant)]
enum Slot {
    Open,
    Excluded,
    Run(RunResult),
}

impl Slot {
    fn run(self) -> Option<RunResult> {
        match self {
            Self::Run(run) => Some(run),
            Self::Open | Self::Excluded => None,
        }
    }
}

/// Shared by `write` and the encoding threads.
struct Shared {
    dir: PathBuf,
    layout: Layout,
    /// First error; everything after it is moot.
    failure: Mutex<Option<String>>,
}

/// Takes the runs of one sweep.
pub struct ResultWriter {
    shared: Arc<Shared>,
    plan: ResultPlan,
    completed: CompletedRuns,
    damaged: Vec<String>,
    open: Mutex<BTreeMap<u64, OpenBlock>>,
    /// Blocks handed over, so that a run that comes twice is noticed.
    handed_over: Mutex<Vec<bool>>,
    sender: Option<Sender<Block>>,
    encoders: Vec<JoinHandle<()>>,
}

/// A poisoned lock means another thread panicked between two assignments; the
/// data behind these locks is whole at every point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl ResultWriter {
    /// Starts a directory.
    pub fn create(dir: &Path, plan: ResultPlan, existing: Existing) -> Result<Self, ResultError> {
        schema::check_axes(&plan.axes)?;
        let what = match layout::directory_state(dir)? {
            DirectoryState::Empty => None,
            DirectoryState::Foreign => {
                return Err(ResultError::NotResults {
                    path: dir.to_path_buf(),
                    why: "it holds other files; not touching them".into(),
                });
            }
            DirectoryState::Complete => Some("a finished sweep".to_string()),
            DirectoryState::InProgress { done, total } => {
                Some(format!("an unfinished sweep, {done} of {total} runs"))
            }
        };
        match (what, existing) {
            (Some(what), Existing::Keep) => {
                return Err(ResultError::Occupied {
                    path: dir.to_path_buf(),
                    what,
                });
            }
            (Some(_), Existing::Replace) => layout::clear(dir)?,
            (None, _) => {}
        }
        let layout = new_layout(&plan);
        prepare(dir, &plan, &layout)?;
        Ok(Self::start(dir, plan, CompletedRuns::none(&layout), layout))
    }

    /// Goes on with an unfinished directory of the same sweep. What is there is
    /// kept; see [`Self::completed`] for the runs not to repeat.
    pub fn resume(dir: &Path, plan: ResultPlan) -> Result<Self, ResultError> {
        match layout::directory_state(dir)? {
            DirectoryState::InProgress { .. } => {}
            DirectoryState::Empty => return Self::create(dir, plan, Existing::Keep),
            DirectoryState::Complete => {
                return Err(ResultError::Occupied {
                    path: dir.to_path_buf(),
                    what: "a finished sweep".into(),
                });
            }
            DirectoryState::Foreign => {
                return Err(ResultError::NotResults {
                    path: dir.to_path_buf(),
                    why: "no sweep was started in it".into(),
                });
            }
        }
        let layout = Layout::read(dir)?;
        check_same(dir, &layout, &new_layout(&plan))?;
        prepare(dir, &plan, &layout)?;
        let damaged = drop_damaged(dir, &layout)?;
        let completed = layout::completed_runs(dir)?;
        let mut writer = Self::start(dir, plan, completed, layout);
        writer.damaged = damaged;
        Ok(writer)
    }

    /// What of the directory was not as it was written; its runs are among those to
    /// be made again. One sentence each.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    fn start(dir: &Path, plan: ResultPlan, completed: CompletedRuns, layout: Layout) -> Self {
        let (threads, waiting) = match layout.keep_requests {
            true => (plan.writer_threads.max(1), plan.writer_threads.max(1)),
            // Without requests there is little to encode, and one thread gets all blocks
            // in about their order. A block of a run or two is not worth waiting until
            // it gets a processor.
            false => (
                1,
                narrow::<usize, _>(layout::BLOCK_RUNS_MAX.div_ceil(layout.block_runs)),
            ),
        };
        let (sender, receiver) = bounded::<Block>(waiting);
        let handed_over = (0..layout.blocks())
            .map(|block| completed.block_done(block))
            .collect();
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            layout,
            failure: Mutex::new(None),
        });
        let encoders = (0..threads)
            .map(|_| {
                let (shared, receiver) = (Arc::clone(&shared), receiver.clone());
                std::thread::spawn(move || encode_blocks(&shared, &receiver))
            })
            .collect();
        Self {
            shared,
            plan,
            completed,
            damaged: Vec::new(),
            open: Mutex::new(BTreeMap::new()),
            handed_over: Mutex::new(handed_over),
            sender: Some(sender),
            encoders,
        }
    }

    /// Runs kept from before this writer was opened.
    pub fn completed(&self) -> &CompletedRuns {
        &self.completed
    }

    /// Takes one run, from any thread, in any order.
    pub fn write(&self, run: RunResult) -> Result<(), ResultError> {
        let axes = self.shared.layout.axes.len();
        if run.axes.len() != axes {
            return Err(ResultError::AxisCount {
                run_index: run.index,
                found: run.axes.len(),
                expected: axes,
            });
        }
        self.fill(run.index, Slot::Run(run))
    }

    /// Takes note, instead of a run, that a constraint excludes `index`: it has
    /// no row, and is not waited for.
    pub fn exclude(&self, index: u64) -> Result<(), ResultError> {
        self.fill(index, Slot::Excluded)
    }

    fn fill(&self, index: u64, slot: Slot) -> Result<(), ResultError> {
        self.check_failure()?;
        let Some(block) = self.place(index, slot)? else {
            return Ok(());
        };
        let sent = self.sender.as_ref().map(|sender| sender.send(block));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(ResultError::WriterStopped(self.failure_message())),
        }
    }

    /// Fills a place of a block; gives the block if that completes it.
    fn place(&self, index: u64, filled: Slot) -> Result<Option<Block>, ResultError> {
        let layout = &self.shared.layout;
        let refuse = |why| ResultError::UnexpectedRun {
            run_index: index,
            why,
        };
        let slot = layout.run_indices.slot(index);
        let slot = slot.ok_or_else(|| refuse("is not one of this directory's"))?;
        let number = slot / layout.block_runs;
        let within = narrow::<usize, _>(slot % layout.block_runs);

        let mut open = lock(&self.open);
        if lock(&self.handed_over)[narrow::<usize, _>(number)] {
            return Err(refuse("was written before"));
        }
        let runs = layout.runs_in_block(number);
        let block = open.entry(number).or_insert_with(|| OpenBlock {
            slots: (0..runs).map(|_| Slot::Open).collect(),
            missing: runs,
        });
        if !matches!(block.slots[within], Slot::Open) {
            return Err(refuse("was written before"));
        }
        block.slots[within] = filled;
        block.missing -= 1;
        if block.missing > 0 {
            return Ok(None);
        }
        lock(&self.handed_over)[narrow::<usize, _>(number)] = true;
        Ok(open.remove(&number).map(|block| Block {
            number,
            runs: block.slots.into_iter().filter_map(Slot::run).collect(),
        }))
    }

    fn check_failure(&self) -> Result<(), ResultError> {
        match lock(&self.shared.failure).as_ref() {
            None => Ok(()),
            Some(message) => Err(ResultError::WriterStopped(message.clone())),
        }
    }

    fn failure_message(&self) -> String {
        let failure = lock(&self.shared.failure);
        failure.clone().unwrap_or_else(|| "writer closed".into())
    }

    /// Waits until every whole block is on disk.
    fn drain(&mut self) -> Result<(), ResultError> {
        self.sender = None;
        for encoder in self.encoders.drain(..) {
            if encoder.join().is_err() {
                let mut failure = lock(&self.shared.failure);
                failure.get_or_insert_with(|| "a writer thread panicked".into());
            }
        }
        self.check_failure()
    }

    /// How runs are cut into blocks.
    pub(super) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Writes a block of request rows that were taken from other directories, each run's
    /// with its id.
    pub(super) fn copy_requests(
        &self,
        block: u64,
        runs: &[(String, Vec<CopiedRow>)],
        columns: &mut RowColumns<CopiedRow>,
    ) -> Result<Option<FileEntry>, ResultError> {
        let rows = runs.iter().map(|(_, rows)| rows.len()).sum();
        request_part(&self.shared.dir, block, columns, rows, |part| {
            runs.iter()
                .try_for_each(|(run_id, rows)| part.extend(run_id, rows.iter().cloned()))
        })
    }

    /// Commits neighbouring blocks, a batch of runs each, that were taken from other
    /// directories, and their request parts.
    pub(super) fn copy_blocks(
        &self,
        first: u64,
        blocks: Vec<(RecordBatch, Option<FileEntry>)>,
    ) -> Result<(), ResultError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let last = first + blocks.len() as u64 - 1;
        let batches = blocks.iter().map(|(batch, _)| Ok(batch.clone()));
        let requests = blocks.iter().filter_map(|(_, part)| part.as_ref());
        commit_part(&self.shared, first..=last, batches, requests)
    }

    /// Stops early: whole blocks are kept for [`Self::resume`]. Tells how many
    /// runs that is.
    pub fn suspend(mut self) -> Result<u64, ResultError> {
        self.drain()?;
        Ok(layout::completed_runs(&self.shared.dir)?.len())
    }

    /// Joins the parts into the final tables and writes the manifest. Every run
    /// must have come.
    pub fn finish(mut self, judge: &mut dyn Judge) -> Result<Manifest, ResultError> {
        self.drain()?;
        let dir = &self.shared.dir;
        let done = layout::completed_runs(dir)?;
        if done.len() != done.total() {
            return Err(ResultError::Incomplete {
                path: dir.clone(),
                done: done.len(),
                total: done.total(),
            });
        }
        let mut manifest = consolidate(dir, &self.plan, &self.shared.layout, judge)?;
        manifest.write(dir)?;
        layout::clear_parts(dir)?;
        Ok(manifest)
    }
}

/// Dropped without [`ResultWriter::finish`], a writer still ends its threads;
/// the directory stays unfinished.
impl Drop for ResultWriter {
    fn drop(&mut self) {
        // An error here has nowhere to go; the block is absent and will be rerun.
        let _ = self.drain();
    }
}

fn new_layout(plan: &ResultPlan) -> Layout {
    let rows = plan.sweep.request_rows_per_run.unwrap_or(0);
    Layout {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION").to_string(),
        name: plan.name.clone(),
        spec_hash: plan.spec_hash.clone(),
        data_hashes: plan.data_hashes.clone(),
        sweep: plan.sweep,
        run_indices: plan.run_indices,
        block_runs: layout::block_runs(plan.run_indices.count, rows),
        keep_requests: plan.sweep.request_rows_per_run.is_some(),
        axes: plan.axes.clone(),
        slo: plan.slo.clone(),
        objectives: plan.objectives.clone(),
    }
}

fn check_same(dir: &Path, there: &Layout, now: &Layout) -> Result<(), ResultError> {
    let indices = |l: &Layout| {
        let RunIndices {
            first,
            stride,
            count,
        } = l.run_indices;
        format!("{count} runs from {first} by {stride}")
    };
    let axes = |l: &Layout| {
        let axes = l.axes.iter();
        let names: Vec<String> = axes
            .map(|axis| format!("{} ({})", axis.name, axis.column_type.name()))
            .collect();
        names.join(", ")
    };
    let facts = [
        (
            "the tool version",
            there.version.clone(),
            now.version.clone(),
        ),
        (
            "the specification",
            there.spec_hash.clone(),
            now.spec_hash.clone(),
        ),
        ("the selection of runs", indices(there), indices(now)),
        ("the axes", axes(there), axes(now)),
        (
            "the per-request output",
            format!(
                "{} ({} runs a block)",
                there.keep_requests, there.block_runs
            ),
            format!("{} ({} runs a block)", now.keep_requests, now.block_runs),
        ),
    ];
    match facts.into_iter().find(|(_, there, now)| there != now) {
        None => Ok(()),
        Some((what, there, now)) => Err(ResultError::Mismatch {
            path: dir.to_path_buf(),
            what,
            there,
            now,
        }),
    }
}

fn prepare(dir: &Path, plan: &ResultPlan, layout: &Layout) -> Result<(), ResultError> {
    let folders = [
        Some(layout::PARTS),
        layout.keep_requests.then_some(layout::REQUESTS),
    ];
    std::fs::create_dir_all(dir).map_err(ResultError::io(dir))?;
    for folder in folders.into_iter().flatten() {
        let path = dir.join(folder);
        output_file::own_directory(&path).map_err(|error| match error.kind() {
            ErrorKind::NotADirectory => ResultError::damaged(&path, error.to_string()),
            _ => ResultError::io(&path)(error),
        })?;
    }
    write_json(&Layout::path(dir), layout)?;
    durable::write_file(&dir.join(layout::SPEC), plan.spec_yaml.as_bytes()).map(|_| ())
}

/// An encoding thread: until the channel closes or something fails. Dropping
/// the receivers then makes `write` fail instead of wait.
fn encode_blocks(shared: &Shared, blocks: &Receiver<Block>) {
    let mut group = Group {
        columns: RowColumns::new(&REQUEST_COLUMNS),
        blocks: BTreeMap::new(),
        runs: 0,
        last_written: None,
    };
    let mut write_next = || {
        let more = group.take_next(shared, blocks)?;
        if !more || group.is_due() {
            group.write(shared)?;
        }
        Ok::<_, ResultError>(more)
    };
    while lock(&shared.failure).is_none() {
        match write_next() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                lock(&shared.failure).get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A finished block: its number, its runs without their requests, its request part.
type Finished = (u64, (Vec<RunResult>, Option<FileEntry>));

/// Finished blocks that are to be written together.
struct Group {
    /// Where their requests are taken apart.
    columns: RowColumns<RequestRow>,
    /// By number.
    blocks: BTreeMap<u64, (Vec<RunResult>, Option<FileEntry>)>,
    runs: usize,
    last_written: Option<Instant>,
}

impl Group {
    /// Waits for a block, or until those that are here are due. Whether more may come.
    fn take_next(
        &mut self,
        shared: &Shared,
        blocks: &Receiver<Block>,
    ) -> Result<bool, ResultError> {
        let next = match self.due_at() {
            None => blocks.recv().map_err(RecvTimeoutError::from),
            Some(due) => blocks.recv_deadline(due),
        };
        let mut block = match next {
            Ok(block) => block,
            Err(RecvTimeoutError::Timeout) => return Ok(true),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let requests = match shared.layout.keep_requests {
            true => write_request_part(&shared.dir, &block, &mut self.columns)?,
            false => None,
        };
        block
            .runs
            .iter_mut()
            .for_each(|run| run.requests = Vec::new());
        self.runs += block.runs.len();
        self.blocks.insert(block.number, (block.runs, requests));
        Ok(true)
    }

    /// When to write; none if there is nothing to be written.
    fn due_at(&self) -> Option<Instant> {
        let since = self.last_written;
        let due = since.map_or_else(Instant::now, |last| last + GROUP_INTERVAL);
        (!self.blocks.is_empty()).then_some(due)
    }

    fn is_due(&self) -> bool {
        let due = self.due_at().is_some_and(|due| due <= Instant::now());
        due || self.runs as u64 >= layout::BLOCK_RUNS_MAX
    }

    /// One part for each sequence of neighbouring blocks, so that parts can be read
    /// one after the other in the order of runs.
    fn write(&mut self, shared: &Shared) -> Result<(), ResultError> {
        let blocks: Vec<Finished> = std::mem::take(&mut self.blocks).into_iter().collect();
        for blocks in blocks.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
            write_summary_part(shared, blocks)?;
        }
        self.runs = 0;
        self.last_written = Some(Instant::now());
        Ok(())
    }
}

/// Commits these neighbouring blocks: their request parts are there.
fn write_summary_part(shared: &Shared, blocks: &[Finished]) -> Result<(), ResultError> {
    let (Some((first, _)), Some((last, _))) = (blocks.first(), blocks.last()) else {
        return Ok(());
    };
    let axes = &shared.layout.axes;
    let batches = blocks
        .iter()
        .map(|(_, (runs, _))| columns::part_batch(axes, runs));
    let requests = blocks.iter().filter_map(|(_, (_, part))| part.as_ref());
    commit_part(shared, *first..=*last, batches, requests)
}

/// Writes the summary part of some blocks, which commits them and the request parts that it
/// tells of.
fn commit_part<'a>(
    shared: &Shared,
    blocks: RangeInclusive<u64>,
    batches: impl Iterator<Item = Result<RecordBatch, ResultError>>,
    requests: impl Iterator<Item = &'a FileEntry>,
) -> Result<(), ResultError> {
    let mut notes = vec![KeyValue::new(
        LAYOUT_KEY.to_string(),
        shared.layout.identity()?,
    )];
    let requests: Vec<&FileEntry> = requests.collect();
    if !requests.is_empty() {
        let json = serde_json::json!(requests).to_string();
        notes.push(KeyValue::new(REQUEST_PARTS_KEY.to_string(), json));
    }
    let unnamed = SummaryPart::unnamed(&shared.dir, *blocks.start(), *blocks.end());
    let mut part = TableWriter::create(&unnamed, part_schema(&shared.layout.axes), notes)?;
    for batch in batches {
        part.write(&batch?)?;
    }
    let named = part.finish_as(|unnamed, hash| SummaryPart::named(&unnamed, hash));
    named.map(|_| ())
}

fn write_request_part(
    dir: &Path,
    block: &Block,
    columns: &mut RowColumns<RequestRow>,
) -> Result<Option<FileEntry>, ResultError> {
    let rows = block.runs.iter().map(|run| run.requests.len()).sum();
    request_part(dir, block.number, columns, rows, |part| {
        write_requests(part, block.runs.iter())
    })
}

/// A block without a row has no file, except the first: `requests/*.parquet`
/// always names a table.
fn request_part<R>(
    dir: &Path,
    block: u64,
    columns: &mut RowColumns<R>,
    rows: usize,
    fill: impl FnOnce(&mut RowTableWriter<'_, R>) -> Result<(), ResultError>,
) -> Result<Option<FileEntry>, ResultError> {
    if rows == 0 && block > 0 {
        return Ok(None);
    }
    let name = layout::request_part_name(block);
    let path = dir.join(&name);
    let mut part = RowTableWriter::create(&path, &request_schema(), columns, rows)?;
    fill(&mut part)?;
    let (written, rows) = part.finish()?;
    Ok(Some(file_entry(name, written, rows)))
}

fn file_entry(path: String, written: Written, rows: u64) -> FileEntry {
    FileEntry {
        path,
        rows,
        bytes: written.bytes,
        blake3: written.blake3,
    }
}

/// Two passes over the parts: one for the judge to see all runs, one to write
/// them with the verdicts.
fn consolidate(
    dir: &Path,
    plan: &ResultPlan,
    layout: &Layout,
    judge: &mut dyn Judge,
) -> Result<Manifest, ResultError> {
    let parts = SummaryReader::open_unfinished(dir)?;
    let columns = judge.columns();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    parts.for_each(Some(&columns), |batch| {
        batch.rows().for_each(|row| judge.observe(row));
    })?;
    let (runs, mut files) = write_tables(dir, layout, &parts, judge)?;
    let spec = plan.spec_yaml.as_bytes();
    files.push(FileEntry {
        path: layout::SPEC.to_string(),
        rows: 0,
        bytes: spec.len() as u64,
        blake3: blake3::hash(spec).to_hex().to_string(),
    });
    let requests = request_files(&parts)?;
    let request_rows = requests.iter().map(|file| file.rows).sum();
    files.extend(requests);
    Ok(Manifest {
        schema_version: SCHEMA_VERSION,
        tool: "vidur-sweep".to_string(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        complete: true,
        name: plan.name.clone(),
        spec_hash: plan.spec_hash.clone(),
        data_hashes: plan.data_hashes.clone(),
        sweep: plan.sweep,
        run_indices: plan.run_indices,
        runs,
        request_rows,
        axes: plan.axes.clone(),
        slo: plan.slo.clone(),
        objectives: plan.objectives.clone(),
        files,
        blake3: String::new(),
    })
}

fn write_tables(
    dir: &Path,
    layout: &Layout,
    parts: &SummaryReader,
    judge: &mut dyn Judge,
) -> Result<(RunCounts, Vec<FileEntry>), ResultError> {
    let schema = summary_schema(&layout.axes);
    let table = |name: &str, schema| TableWriter::create(&dir.join(name), schema, Vec::new());
    let mut summary = table(layout::SUMMARY, schema.clone())?;
    let mut pareto = table(layout::PARETO, schema.clone())?;
    let mut timing = table(layout::TIMING, timing_schema())?;
    let mut counts = RunCounts::default();
    parts.try_for_each(None, |batch| {
        let verdicts: Vec<Verdict> = batch.rows().map(|row| judge.verdict(row)).collect();
        count(&mut counts, batch, &verdicts);
        let rows = with_verdicts(batch.record_batch(), &schema, &verdicts)?;
        let times = project(batch.record_batch(), &timing_schema())?;
        // Where pages end depends on how much is written at a time: a block, whichever
        // part it was in.
        for block in rows_of_blocks(batch, layout) {
            summary.write(&rows.slice(block.start, block.len()))?;
            timing.write(&times.slice(block.start, block.len()))?;
        }
        for (row, verdict) in verdicts.iter().enumerate() {
            if verdict.pareto {
                pareto.write(&rows.slice(row, 1))?;
            }
        }
        Ok(())
    })?;
    let mut files = Vec::new();
    for (name, table) in [
        (layout::SUMMARY, summary),
        (layout::PARETO, pareto),
        (layout::TIMING, timing),
    ] {
        let (written, rows) = table.finish()?;
        files.push(file_entry(name.to_string(), written, rows));
    }
    Ok((counts, files))
}

/// Rows of each block in a batch.
fn rows_of_blocks(batch: &SummaryBatch, layout: &Layout) -> Vec<Range<usize>> {
    let slot = |row: SummaryRow<'_>| layout.run_indices.slot(row.run_index());
    let blocks: Vec<Option<u64>> = batch
        .rows()
        .map(|row| slot(row).map(|slot| slot / layout.block_runs))
        .collect();
    let mut end = 0;
    let rows = blocks.chunk_by(|a, b| a == b).map(|block| {
        end += block.len();
        end - block.len()..end
    });
    rows.collect()
}

fn count(counts: &mut RunCounts, batch: &SummaryBatch, verdicts: &[Verdict]) {
    for (row, verdict) in batch.rows().zip(verdicts) {
        counts.total += 1;
        match row.status() {
            Some(RunStatus::Ok) => counts.ok += 1,
            Some(RunStatus::Infeasible) => counts.infeasible += 1,
            Some(RunStatus::Failed) | None => counts.failed += 1,
        }
        counts.slo_met += u64::from(verdict.slo == SloVerdict::Meets);
        counts.pareto += u64::from(verdict.pareto);
    }
}

fn with_verdicts(
    part: &RecordBatch,
    schema: &arrow_schema::SchemaRef,
    verdicts: &[Verdict],
) -> Result<RecordBatch, ResultError> {
    let flags = |get: fn(&Verdict) -> bool| -> ArrayRef {
        Arc::new(
            verdicts
                .iter()
                .map(|v| Some(get(v)))
                .collect::<BooleanArray>(),
        )
    };
    let columns: Option<Vec<ArrayRef>> = schema
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "slo_met" => Some(flags(|v| v.slo == SloVerdict::Meets)),
            "slo_verdict" => {
                let words = verdicts.iter().map(|v| Some(v.slo.name()));
                Some(Arc::new(words.collect::<StringArray>()) as ArrayRef)
            }
            "slo_probability" => {
                let shares = verdicts.iter().map(|v| Some(v.slo_probability));
                Some(Arc::new(shares.collect::<Float64Array>()) as ArrayRef)
            }
            "pareto" => Some(flags(|v| v.pareto)),
            name => part.column_by_name(name).cloned(),
        })
        .collect();
    batch_of(schema, columns)
}

pub(super) fn project(
    part: &RecordBatch,
    schema: &arrow_schema::SchemaRef,
) -> Result<RecordBatch, ResultError> {
    let fields = schema.fields().iter();
    let columns = fields
        .map(|field| part.column_by_name(field.name()).cloned())
        .collect();
    batch_of(schema, columns)
}

pub(super) fn batch_of(
    schema: &arrow_schema::SchemaRef,
    columns: Option<Vec<ArrayRef>>,
) -> Result<RecordBatch, ResultError> {
    let missing = || arrow_schema::ArrowError::SchemaError("a part lacks a column".into());
    Ok(RecordBatch::try_new(
        schema.clone(),
        columns.ok_or_else(missing)?,
    )?)
}

/// The request parts, as their summary parts recorded them.
pub(super) fn request_files(parts: &SummaryReader) -> Result<Vec<FileEntry>, ResultError> {
    let mut files = Vec::new();
    for path in parts.files() {
        files.extend(request_parts_in(path, &TableFile::open(path)?)?);
    }
    Ok(files)
}

/// The request parts that a summary part tells of.
fn request_parts_in<R: ChunkReader + 'static>(
    path: &Path,
    part: &TableFile<'_, R>,
) -> Result<Vec<FileEntry>, ResultError> {
    match part.metadata_value(REQUEST_PARTS_KEY) {
        None => Ok(Vec::new()),
        Some(json) => serde_json::from_str(json).map_err(ResultError::unreadable(path)),
    }
}

/// Removes the parts that are not as they were written, or not of this sweep, and what
/// no part tells of: the runs in them are made again. Says what was damaged.
fn drop_damaged(dir: &Path, layout: &Layout) -> Result<Vec<String>, ResultError> {
    let identity = layout.identity()?;
    let parts = layout::summary_parts(dir)?;
    let checked: Vec<_> = parts
        .par_iter()
        .map(|part| check_part(dir, part, &identity))
        .collect();
    let mut damaged = Vec::new();
    let mut kept = CompletedRuns::none(layout);
    let mut told_of = BTreeSet::new();
    for (part, checked) in parts.iter().zip(checked) {
        let fresh = kept
            .blocks_of(part)
            .filter(|blocks| !blocks.contains(&true));
        match (checked, fresh) {
            (Ok(requests), Some(blocks)) => {
                blocks.fill(true);
                told_of.extend(requests);
            }
            (Ok(_), None) => {
                let what = "holds runs that another part has, or that are not in this sweep";
                damaged.push(ResultError::damaged(&part.path, what).to_string());
                durable::remove_file(&part.path)?;
            }
            (Err(error), _) => {
                damaged.push(error.to_string());
                durable::remove_file(&part.path)?;
            }
        }
    }
    for path in layout::request_parts(dir)? {
        if !told_of.contains(&path) {
            durable::remove_file(&path)?;
        }
    }
    Ok(damaged)
}

/// Compares a summary part and the request parts it tells of with what was written;
/// gives the latter.
fn check_part(dir: &Path, part: &SummaryPart, identity: &str) -> Result<Vec<PathBuf>, ResultError> {
    part.check()?;
    let table = TableFile::open(&part.path)?;
    if table.metadata_value(LAYOUT_KEY) != Some(identity) {
        let why = "was written by another sweep; its runs are made again";
        return Err(ResultError::damaged(&part.path, why));
    }
    let mut paths = Vec::new();
    for file in request_parts_in(&part.path, &table)? {
        let of_part = |block| layout::request_part_name(block) == file.path;
        if !(part.first..=part.last).any(of_part) {
            let why = format!("tells of `{}`, which is not its own", shown(&file.path));
            return Err(ResultError::damaged(&part.path, why));
        }
        file.check(dir, "its runs are made again")?;
        paths.push(dir.join(&file.path));
    }
    Ok(paths)
}
