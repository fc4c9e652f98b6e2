//! Unites result directories of one sweep: its shards, or what several machines or
//! interrupted sessions did of it.
//!
//! Rows come in the order of runs from every directory, and go in that order into the blocks
//! that one machine would have made; the tables are then finished as any sweep's are, so that
//! they are the same bytes but for times by the clock. A run that several directories have
//! must be the same in all of them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use rayon::prelude::*;

use super::copied::{COPIED_COLUMNS, CopiedRow};
use super::layout::{self, CompletedRuns, Layout};
use super::manifest::{FileEntry, Manifest};
use super::reader::{SummaryBatch, SummaryReader, of_role};
use super::row_table::RowColumns;
use super::schema::{AxisColumn, ColumnRole, RUN_ID, part_schema};
use super::writer::{batch_of, project, request_files};
use super::{
    ClaimedDirectory, Existing, Judge, ResultError, ResultPlan, ResultWriter, RunIndices,
    SweepSize, parquet_io,
};
use crate::input_file::{self, InputKind};
use crate::spec::{Objectives, Slo};

/// Directories of one sweep that are to be united.
#[derive(Debug)]
pub struct Merge {
    inputs: Vec<Input>,
    facts: Facts,
    spec_yaml: String,
    missing: u64,
}

/// A directory that is read.
#[derive(Debug)]
struct Input {
    dir: PathBuf,
    has: CompletedRuns,
    is_finished: bool,
    /// Files of request rows, in the order of runs.
    requests: VecDeque<PathBuf>,
}

/// What all directories must have in common.
#[derive(Debug, Clone, PartialEq)]
struct Facts {
    version: String,
    name: String,
    spec_hash: String,
    data_hashes: BTreeMap<String, String>,
    sweep: SweepSize,
    axes: Vec<AxisColumn>,
    slo: Slo,
    objectives: Objectives,
}

/// How the united directory was left.
#[derive(Debug)]
pub enum Merged {
    /// Complete.
    Finished(Box<Manifest>),
    /// With so many runs; the others are to be done.
    Unfinished(u64),
}

impl Merge {
    /// Looks at the directories and whether they belong together; nothing is changed.
    ///
    /// # Errors
    /// If one of them is no result directory, is damaged, or is of something else.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, ResultError> {
        let mut read = Vec::new();
        for dir in dirs {
            let (input, facts) = open_input(dir)?;
            can_be_merged(dir, &facts)?;
            read.push((input, facts));
        }
        let mut read = read.into_iter();
        let Some((first, facts)) = read.next() else {
            return Err(ResultError::NotResults {
                path: PathBuf::new(),
                why: "no directory is named".into(),
            });
        };
        let mut inputs = vec![first];
        for (input, others) in read {
            belongs(&input.dir, &others, &inputs[0].dir, &facts)?;
            inputs.push(input);
        }
        let spec = inputs[0].dir.join(layout::SPEC);
        let spec_yaml = input_file::read(&spec, InputKind::ResultNotes);
        let spec_yaml = spec_yaml.map_err(ResultError::unreadable(&spec))?;
        let is_here = |index: &u64| inputs.iter().any(|input| input.has.contains(*index));
        let here = (0..facts.sweep.runs).filter(is_here).count() as u64;
        Ok(Self {
            missing: facts.sweep.runs - here,
            spec_yaml: String::from_utf8_lossy(&spec_yaml).into_owned(),
            inputs,
            facts,
        })
    }

    /// Name of the sweep.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The specification as all directories keep it.
    pub fn spec_yaml(&self) -> &str {
        &self.spec_yaml
    }

    /// Its targets.
    pub fn slo(&self) -> &Slo {
        &self.facts.slo
    }

    /// Its objectives.
    pub fn objectives(&self) -> &Objectives {
        &self.facts.objectives
    }

    /// Axis columns.
    pub fn axes(&self) -> Vec<AxisColumn> {
        of_role(&self.facts.axes, ColumnRole::Axis)
    }

    /// Runs of the whole sweep, those included that are excluded.
    pub fn total(&self) -> u64 {
        self.facts.sweep.runs
    }

    /// Runs of the whole sweep that no directory has.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// What is missing where, a sentence each: shards that are not here, and what is
    /// unfinished.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        for input in &self.inputs {
            let (done, total) = (input.has.len(), input.has.total());
            if done < total {
                let dir = input.dir.display();
                gaps.push(format!("{dir} is unfinished: {done} of {total} runs"));
            }
        }
        let strides = self.inputs.iter().map(|input| input.has.indices().stride);
        let shards = strides.clone().max().filter(|shards| *shards > 1);
        if let Some(shards) = shards.filter(|shards| strides.clone().all(|other| other == *shards))
        {
            let is_here = |shard: &u64| {
                let mut inputs = self.inputs.iter();
                inputs.any(|input| input.has.indices().first == *shard)
            };
            let absent = (0..shards).filter(|shard| !is_here(shard));
            gaps.extend(absent.map(|shard| format!("shard {} of {shards} is not here", shard + 1)));
        }
        gaps
    }

    /// Writes all that is there into `out`, and finishes it if nothing is missing.
    ///
    /// # Errors
    /// If two directories disagree about a run, or something cannot be read or written.
    pub fn write(
        self,
        out: &ClaimedDirectory,
        existing: Existing,
        judge: &mut dyn Judge,
    ) -> Result<Merged, ResultError> {
        let facts = self.facts;
        let plan = ResultPlan {
            name: facts.name,
            spec_yaml: self.spec_yaml,
            spec_hash: facts.spec_hash,
            data_hashes: facts.data_hashes,
            slo: facts.slo,
            objectives: facts.objectives,
            axes: facts.axes,
            run_indices: RunIndices::all(facts.sweep.runs),
            sweep: facts.sweep,
            writer_threads: 1,
        };
        let writer = ResultWriter::create(out.path(), plan, existing)?;
        let layout = writer.layout();
        let sources = self.inputs.into_iter();
        let sources = sources.map(|input| Source::open(input, &layout.axes));
        let mut copy = Copying {
            sources: sources.collect::<Result<_, _>>()?,
            columns: RowColumns::new(&COPIED_COLUMNS),
            writer: &writer,
            layout,
        };
        if let Err(error) = copy.all() {
            // Nobody can go on with half of it.
            drop(copy);
            drop(writer);
            layout::clear(out.path())?;
            return Err(error);
        }
        drop(copy);
        match self.missing {
            0 => Ok(Merged::Finished(Box::new(writer.finish(judge)?))),
            _ => Ok(Merged::Unfinished(writer.suspend()?)),
        }
    }
}

/// Runs on their way from the sources into blocks.
struct Copying<'a> {
    sources: Vec<Source>,
    /// Where rows of requests are taken apart.
    columns: RowColumns<CopiedRow>,
    writer: &'a ResultWriter,
    layout: &'a Layout,
}

/// A run that is copied.
struct CopiedRun {
    /// One row, of [`part_schema`].
    row: RecordBatch,
    run_id: String,
    requests: Vec<CopiedRow>,
}

impl Copying<'_> {
    /// Copies every block of which all runs are there.
    fn all(&mut self) -> Result<(), ResultError> {
        let (mut first, mut group, mut runs) = (0, Vec::new(), 0);
        for block in 0..self.layout.blocks() {
            let start = block * self.layout.block_runs;
            let indices = start..start + self.layout.runs_in_block(block);
            let is_whole = indices.clone().all(|index| {
                let mut sources = self.sources.iter();
                sources.any(|source| source.has.contains(index))
            });
            let copied = self.take_before(indices.end)?;
            if is_whole {
                runs += copied.len() as u64;
                group.push(self.block(block, copied)?);
            }
            if !is_whole || runs >= layout::BLOCK_RUNS_MAX {
                self.writer.copy_blocks(first, std::mem::take(&mut group))?;
                runs = 0;
            }
            if group.is_empty() {
                first = block + 1;
            }
        }
        self.writer.copy_blocks(first, group)
    }

    /// The runs before index `end` that were not taken yet, in order.
    fn take_before(&mut self, end: u64) -> Result<Vec<CopiedRun>, ResultError> {
        let mut runs = Vec::new();
        loop {
            let next = self.sources.iter().filter_map(Source::index).min();
            let Some(index) = next.filter(|index| *index < end) else {
                return Ok(runs);
            };
            let mut taken: Option<(CopiedRun, &Path)> = None;
            for source in &mut self.sources {
                let Some(run) = source.take(index)? else {
                    continue;
                };
                match &taken {
                    None => taken = Some((run, &source.dir)),
                    Some((first, dir)) => agree(index, (first, dir), (&run, &source.dir))?,
                }
            }
            runs.extend(taken.map(|(run, _)| run));
        }
    }

    /// The batch of a block, and its request rows, which are written.
    fn block(
        &mut self,
        block: u64,
        runs: Vec<CopiedRun>,
    ) -> Result<(RecordBatch, Option<FileEntry>), ResultError> {
        let rows: Vec<&RecordBatch> = runs.iter().map(|run| &run.row).collect();
        let batch = concat_batches(&part_schema(&self.layout.axes), rows)?;
        let requests = match self.layout.keep_requests {
            false => None,
            true => {
                let runs = runs.into_iter().map(|run| (run.run_id, run.requests));
                let runs: Vec<_> = runs.collect();
                (self.writer).copy_requests(block, &runs, &mut self.columns)?
            }
        };
        Ok((batch, requests))
    }
}

/// Whether two directories have the same of a run, but for the time it took.
fn agree(
    index: u64,
    (first, first_dir): (&CopiedRun, &Path),
    (run, dir): (&CopiedRun, &Path),
) -> Result<(), ResultError> {
    let schema = first.row.schema();
    let mut fields = schema.fields().iter().enumerate();
    let differs = fields.find(|(place, field)| {
        field.name() != WALL_TIME && first.row.column(*place) != run.row.column(*place)
    });
    let column = match differs {
        Some((_, field)) => field.name().clone(),
        None if first.requests.len() != run.requests.len() => "request rows".to_owned(),
        None => return Ok(()),
    };
    Err(ResultError::Disagree {
        path: dir.to_path_buf(),
        first: first_dir.to_path_buf(),
        run_index: index,
        column,
    })
}

/// The column that differs from machine to machine.
const WALL_TIME: &str = "wall_time_s";

/// The runs of one directory, one after the other.
struct Source {
    dir: PathBuf,
    has: CompletedRuns,
    tables: Tables,
    /// Rows that were read, of [`part_schema`], and the next of them.
    batch: Option<SummaryBatch>,
    row: usize,
    schema: SchemaRef,
    requests: RequestRows,
}

impl Source {
    fn open(input: Input, axes: &[AxisColumn]) -> Result<Self, ResultError> {
        let dir = input.dir;
        let tables = match input.is_finished {
            true => Tables::finished(&dir),
            false => {
                let parts = layout::summary_parts(&dir)?.into_iter();
                Tables::Parts(Chain::new(parts.map(|part| part.path)))
            }
        };
        let mut source = Self {
            has: input.has,
            tables,
            batch: None,
            row: 0,
            schema: part_schema(axes),
            requests: RequestRows {
                files: Chain::new(input.requests.into_iter()),
                batch: None,
                row: 0,
            },
            dir,
        };
        source.read_on()?;
        Ok(source)
    }

    /// Index of the next run.
    fn index(&self) -> Option<u64> {
        let batch = self.batch.as_ref()?;
        Some(batch.row(self.row).run_index())
    }

    /// Reads the next rows if none is left of those that were read.
    fn read_on(&mut self) -> Result<(), ResultError> {
        while (self.batch.as_ref()).is_none_or(|batch| self.row >= batch.rows().len()) {
            self.row = 0;
            match self.tables.next(&self.schema)? {
                Some(batch) => self.batch = Some(SummaryBatch::new(batch)),
                None => {
                    self.batch = None;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Takes the next run, if it is the one of this index.
    fn take(&mut self, index: u64) -> Result<Option<CopiedRun>, ResultError> {
        let Some(batch) = self.batch.as_ref().filter(|_| self.index() == Some(index)) else {
            return Ok(None);
        };
        let row = batch.record_batch().slice(self.row, 1);
        let run_id = batch.row(self.row).text(RUN_ID).unwrap_or_default();
        let run_id = run_id.to_owned();
        let requests = self.requests.take(&run_id)?;
        self.row += 1;
        self.read_on()?;
        Ok(Some(CopiedRun {
            row,
            run_id,
            requests,
        }))
    }
}

/// Files of rows that are read one after the other.
struct Chain {
    files: VecDeque<PathBuf>,
    open: Option<(PathBuf, ParquetRecordBatchReader)>,
}

impl Chain {
    fn new(files: impl Iterator<Item = PathBuf>) -> Self {
        Self {
            files: files.collect(),
            open: None,
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, ResultError> {
        loop {
            if let Some((path, reader)) = &mut self.open
                && let Some(batch) = reader.next()
            {
                return batch.map(Some).map_err(ResultError::unreadable(path));
            }
            let Some(path) = self.files.pop_front() else {
                return Ok(None);
            };
            let reader = parquet_io::open(&path, None)?;
            self.open = Some((path, reader));
        }
    }
}

/// Where the summaries of a directory are.
enum Tables {
    /// Of a finished one: the summary and, row for row, its timing.
    Whole { summary: Chain, timing: Chain },
    /// Of an unfinished one.
    Parts(Chain),
}

impl Tables {
    fn finished(dir: &Path) -> Self {
        let table = |name: &str| Chain::new(std::iter::once(dir.join(name)));
        Self::Whole {
            summary: table(layout::SUMMARY),
            timing: table(layout::TIMING),
        }
    }

    /// The next rows, with the columns of `schema`.
    fn next(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>, ResultError> {
        match self {
            Self::Parts(parts) => {
                let batch = parts.next()?;
                batch.map(|batch| project(&batch, schema)).transpose()
            }
            Self::Whole { summary, timing } => {
                let (Some(summary), Some(timing)) = (summary.next()?, timing.next()?) else {
                    return Ok(None);
                };
                let column = |name: &str| {
                    let summary = summary.column_by_name(name);
                    summary.or_else(|| timing.column_by_name(name)).cloned()
                };
                let columns = schema.fields().iter().map(|field| column(field.name()));
                batch_of(schema, columns.collect()).map(Some)
            }
        }
    }
}

/// The request rows of a directory, in the order of its runs.
struct RequestRows {
    files: Chain,
    batch: Option<Arc<SummaryBatch>>,
    row: usize,
}

impl RequestRows {
    /// The rows of the next run, which has this id: requests rise within a run, and begin
    /// again with the next one, which may have the same id.
    fn take(&mut self, run_id: &str) -> Result<Vec<CopiedRow>, ResultError> {
        let mut rows: Vec<CopiedRow> = Vec::new();
        while let Some(row) = self.next()? {
            let last = rows.last().and_then(CopiedRow::request_id);
            if row.run_id() != Some(run_id) || row.request_id() <= last {
                break;
            }
            rows.push(row);
            self.row += 1;
        }
        Ok(rows)
    }

    /// The next row, which stays.
    fn next(&mut self) -> Result<Option<CopiedRow>, ResultError> {
        while (self.batch.as_ref()).is_none_or(|batch| self.row >= batch.rows().len()) {
            self.row = 0;
            match self.files.next()? {
                Some(batch) => self.batch = Some(Arc::new(SummaryBatch::new(batch))),
                None => {
                    self.batch = None;
                    return Ok(None);
                }
            }
        }
        let batch = self.batch.as_ref().map(Arc::clone);
        Ok(batch.map(|batch| CopiedRow::new(batch, self.row)))
    }
}

/// Reads what a directory is of, and compares its files with what was written.
fn open_input(dir: &Path) -> Result<(Input, Facts), ResultError> {
    let reader = SummaryReader::open(dir)?;
    match reader.manifest() {
        Some(manifest) => Ok(finished(dir, manifest)),
        None => unfinished(dir, &reader),
    }
}

fn finished(dir: &Path, manifest: &Manifest) -> (Input, Facts) {
    let manifest = manifest.clone();
    let files = manifest.files.iter().map(|file| file.path.as_str());
    let requests = files.filter(|path| path.starts_with(layout::REQUESTS));
    let mut requests: Vec<PathBuf> = requests.map(|path| dir.join(path)).collect();
    requests.sort_unstable();
    let input = Input {
        dir: dir.to_path_buf(),
        has: CompletedRuns::all(manifest.run_indices),
        is_finished: true,
        requests: requests.into(),
    };
    let facts = Facts {
        version: manifest.version,
        name: manifest.name,
        spec_hash: manifest.spec_hash,
        data_hashes: manifest.data_hashes,
        sweep: manifest.sweep,
        axes: manifest.axes,
        slo: manifest.slo,
        objectives: manifest.objectives,
    };
    (input, facts)
}

fn unfinished(dir: &Path, reader: &SummaryReader) -> Result<(Input, Facts), ResultError> {
    let layout = Layout::read(dir)?;
    // The reader has looked at the parts, not at the request rows that they tell of.
    let requests = request_files(reader)?;
    let remedy = "`run --resume` makes its runs again";
    requests
        .par_iter()
        .try_for_each(|file| file.check(dir, remedy))?;
    let input = Input {
        dir: dir.to_path_buf(),
        has: CompletedRuns::in_parts(&layout, &layout::summary_parts(dir)?),
        is_finished: false,
        requests: requests.iter().map(|file| dir.join(&file.path)).collect(),
    };
    let facts = Facts {
        version: layout.version,
        name: layout.name,
        spec_hash: layout.spec_hash,
        data_hashes: layout.data_hashes,
        sweep: layout.sweep,
        axes: layout.axes,
        slo: layout.slo,
        objectives: layout.objectives,
    };
    Ok((input, facts))
}

/// Whether a directory is of the same sweep as the first one.
fn belongs(dir: &Path, its: &Facts, first: &Path, facts: &Facts) -> Result<(), ResultError> {
    let axes = |facts: &Facts| {
        let names = facts.axes.iter().map(|axis| axis.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let facts_of = |facts: &Facts| {
        [
            ("the tool's version", facts.version.clone()),
            ("the sweep's name", facts.name.clone()),
            ("the specification (its hash)", facts.spec_hash.clone()),
            ("the number of runs", facts.sweep.runs.to_string()),
            ("the columns", axes(facts)),
            ("the targets", json(&facts.slo)),
            ("the objectives", json(&facts.objectives)),
            ("the data", json(&facts.data_hashes)),
            (
                "the request rows kept of a run",
                json(&facts.sweep.request_rows_per_run),
            ),
        ]
    };
    let pairs = facts_of(facts).into_iter().zip(facts_of(its));
    for ((what, there), (_, here)) in pairs {
        if there != here {
            return Err(ResultError::Unlike {
                path: dir.to_path_buf(),
                first: first.to_path_buf(),
                what,
                there,
                here,
            });
        }
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Whether a directory can be united with others at all.
fn can_be_merged(dir: &Path, facts: &Facts) -> Result<(), ResultError> {
    let refuse = |why: String| {
        Err(ResultError::NotResults {
            path: dir.to_path_buf(),
            why,
        })
    };
    let version = env!("CARGO_PKG_VERSION");
    if facts.version != version {
        let there = &facts.version;
        return refuse(format!(
            "vidur-sweep {there} wrote it, and its tables may have other columns than those of \
             {version}"
        ));
    }
    match facts.sweep.runs {
        0 => refuse(
            "it does not say how many runs the whole sweep has: an earlier build wrote it".into(),
        ),
        _ => Ok(()),
    }
}
