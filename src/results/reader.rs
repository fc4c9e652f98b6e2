//! Reading summaries: batch by batch for sweeps of any size, or whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, Float64Array, Int64Array, RecordBatch};
use arrow_schema::SchemaRef;
use rayon::prelude::*;
use serde_json::Value;

use super::layout::{self, DirectoryState, Layout, SummaryPart, directory_state};
use super::manifest::Manifest;
use super::parquet_io::{self, TableFile};
use super::schema::{AxisColumn, ColumnRole};
use super::{ResultError, RunStatus};
use crate::number::narrow;
use crate::spec::{Objectives, Slo};

/// Rows of a summary.
#[derive(Debug, Clone)]
pub struct SummaryBatch {
    batch: RecordBatch,
    /// Number of each column: rows are asked for values by name, one after the other,
    /// and the names are our own, so a fast hash will do.
    columns: HashMap<String, usize, foldhash::fast::FixedState>,
}

impl SummaryBatch {
    pub(super) fn new(batch: RecordBatch) -> Self {
        let fields = batch.schema_ref().fields().iter();
        let columns = fields.map(|field| field.name().clone()).zip(0..).collect();
        Self { batch, columns }
    }

    fn column(&self, name: &str) -> Option<&dyn Array> {
        let column = self.batch.column(*self.columns.get(name)?);
        Some(column.as_ref())
    }

    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = SummaryRow<'_>> {
        (0..self.batch.num_rows()).map(|row| self.row(row))
    }

    /// One of the rows.
    pub(super) fn row(&self, row: usize) -> SummaryRow<'_> {
        SummaryRow { batch: self, row }
    }

    /// A column of numbers, integers or not; none if absent or of something else.
    pub fn numbers(&self, name: &str) -> Option<Numbers<'_>> {
        let column = self.column(name)?;
        let floats = column.as_primitive_opt::<Float64Type>();
        let integers = || column.as_primitive_opt::<Int64Type>();
        floats
            .map(Numbers::Floats)
            .or_else(|| integers().map(Numbers::Integers))
    }

    /// The columns as Arrow has them.
    pub fn record_batch(&self) -> &RecordBatch {
        &self.batch
    }
}

/// A column of numbers: found once, read for every row.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    /// Double precision.
    Floats(&'a Float64Array),
    /// Integers.
    Integers(&'a Int64Array),
}

impl Numbers<'_> {
    /// The number in a row; none if null.
    pub fn get(&self, row: usize) -> Option<f64> {
        match self {
            Self::Floats(column) => column.is_valid(row).then(|| column.value(row)),
            Self::Integers(column) => column.is_valid(row).then(|| column.value(row) as f64),
        }
    }
}

/// One run of a summary: a view into its batch.
#[derive(Debug, Clone, Copy)]
pub struct SummaryRow<'a> {
    batch: &'a SummaryBatch,
    row: usize,
}

impl<'a> SummaryRow<'a> {
    fn column(&self, name: &str) -> Option<&'a dyn Array> {
        let column = self.batch.column(name)?;
        (!column.is_null(self.row)).then_some(column)
    }

    /// A number, whether integer or not; none if null, absent or not a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        let column = self.column(name)?;
        if let Some(numbers) = column.as_primitive_opt::<Float64Type>() {
            return Some(numbers.value(self.row));
        }
        self.integer(name).map(|value| value as f64)
    }

    /// An integer.
    pub fn integer(&self, name: &str) -> Option<i64> {
        let column = self.column(name)?.as_primitive_opt::<Int64Type>()?;
        Some(column.value(self.row))
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let column = self.column(name)?.as_string_opt::<i32>()?;
        Some(column.value(self.row))
    }

    /// A flag.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let column = self.column(name)?.as_boolean_opt()?;
        Some(column.value(self.row))
    }

    /// Any value; null if null or absent.
    pub fn value(&self, name: &str) -> Value {
        let Some(column) = self.column(name) else {
            return Value::Null;
        };
        if let Some(flags) = column.as_boolean_opt() {
            return Value::Bool(flags.value(self.row));
        }
        if let Some(text) = self.text(name) {
            return Value::from(text);
        }
        match self.integer(name) {
            Some(integer) => Value::from(integer),
            None => self.number(name).map_or(Value::Null, Value::from),
        }
    }

    /// Position in the sweep.
    pub fn run_index(&self) -> u64 {
        narrow::<u64, _>(self.integer("run_index").unwrap_or(0))
    }

    /// How the run ended; none for a status this version does not know.
    pub fn status(&self) -> Option<RunStatus> {
        let name = self.text("status")?;
        [RunStatus::Ok, RunStatus::Infeasible, RunStatus::Failed]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// A whole summary in memory, in columns.
#[derive(Debug, Clone)]
pub struct SummaryTable {
    /// Axis columns.
    pub axes: Vec<AxisColumn>,
    /// Whether the sweep is finished.
    pub complete: bool,
    batches: Vec<SummaryBatch>,
}

impl SummaryTable {
    /// The runs in index order.
    pub fn rows(&self) -> impl Iterator<Item = SummaryRow<'_>> {
        self.batches.iter().flat_map(SummaryBatch::rows)
    }

    /// How many runs.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|b| b.batch.num_rows()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads the whole summary of a result directory, finished or not.
pub fn read_summary(dir: &Path) -> Result<SummaryTable, ResultError> {
    let reader = SummaryReader::open(dir)?;
    let mut batches = Vec::new();
    reader.for_each(None, |batch| batches.push(batch.clone()))?;
    Ok(SummaryTable {
        axes: reader.axes().to_vec(),
        complete: reader.manifest().is_some(),
        batches,
    })
}

/// Size of a summary that is read from disk once, however often it is looked through:
/// some ten thousand runs.
const KEPT_BYTES: u64 = 4 << 20;

/// Reads the summary of a result directory batch by batch. Of an unfinished
/// sweep it reads the blocks that are there, without `slo_met` and `pareto`.
#[derive(Debug)]
pub struct SummaryReader {
    dir: PathBuf,
    manifest: Option<Manifest>,
    name: String,
    axes: Vec<AxisColumn>,
    labels: Vec<AxisColumn>,
    slo: Slo,
    objectives: Objectives,
    expected_runs: u64,
    files: Vec<PathBuf>,
    /// All rows, if they are few.
    kept: OnceLock<Option<Vec<SummaryBatch>>>,
}

pub(super) fn of_role(columns: &[AxisColumn], role: ColumnRole) -> Vec<AxisColumn> {
    let columns = columns.iter().filter(|column| column.role == role);
    columns.cloned().collect()
}

impl SummaryReader {
    /// Finds the summary of a directory, and compares the directory with what was
    /// written.
    ///
    /// # Errors
    /// If there is none, or a file of it is damaged.
    pub fn open(dir: &Path) -> Result<Self, ResultError> {
        let reader = Self::find(dir)?;
        match &reader.manifest {
            Some(manifest) => manifest.verify(dir)?,
            None => layout::summary_parts(dir)?
                .par_iter()
                .try_for_each(SummaryPart::check)?,
        }
        Ok(reader)
    }

    /// The summary of a directory that this process has just finished.
    pub fn of_finished(dir: &Path, manifest: Manifest) -> Self {
        Self::complete(dir, manifest)
    }

    fn find(dir: &Path) -> Result<Self, ResultError> {
        let refuse = |why: &str| ResultError::NotResults {
            path: dir.to_path_buf(),
            why: why.to_string(),
        };
        match directory_state(dir)? {
            DirectoryState::Complete => Self::open_complete(dir),
            DirectoryState::InProgress { .. } => Self::open_unfinished(dir),
            DirectoryState::Empty if dir.is_dir() => Err(refuse("it is empty")),
            DirectoryState::Empty => Err(refuse("it does not exist")),
            DirectoryState::Foreign => Err(refuse("no manifest.json in it")),
        }
    }

    fn open_complete(dir: &Path) -> Result<Self, ResultError> {
        let manifest = Manifest::read(dir)?.ok_or_else(|| ResultError::NotResults {
            path: dir.to_path_buf(),
            why: "no manifest.json in it".into(),
        })?;
        Ok(Self::complete(dir, manifest))
    }

    fn complete(dir: &Path, manifest: Manifest) -> Self {
        Self {
            dir: dir.to_path_buf(),
            name: manifest.name.clone(),
            axes: of_role(&manifest.axes, ColumnRole::Axis),
            labels: of_role(&manifest.axes, ColumnRole::Label),
            slo: manifest.slo.clone(),
            objectives: manifest.objectives.clone(),
            expected_runs: manifest.run_indices.count,
            manifest: Some(manifest),
            files: vec![dir.join(layout::SUMMARY)],
            kept: OnceLock::new(),
        }
    }

    pub(super) fn open_unfinished(dir: &Path) -> Result<Self, ResultError> {
        let layout = Layout::read(dir)?;
        let parts = layout::summary_parts(dir)?.into_iter();
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest: None,
            expected_runs: layout.run_indices.count,
            files: parts.map(|part| part.path).collect(),
            name: layout.name,
            axes: of_role(&layout.axes, ColumnRole::Axis),
            labels: of_role(&layout.axes, ColumnRole::Label),
            slo: layout.slo,
            objectives: layout.objectives,
            kept: OnceLock::new(),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest; none if the sweep is not finished.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Name of the sweep.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Axis columns.
    pub fn axes(&self) -> &[AxisColumn] {
        &self.axes
    }

    /// Columns that label the rows of a list.
    pub fn labels(&self) -> &[AxisColumn] {
        &self.labels
    }

    /// The sweep's own targets.
    pub fn slo(&self) -> &Slo {
        &self.slo
    }

    /// The sweep's own objectives.
    pub fn objectives(&self) -> &Objectives {
        &self.objectives
    }

    /// Runs the finished directory has.
    pub fn expected_runs(&self) -> u64 {
        self.expected_runs
    }

    /// Schema of the rows; none if there is no row yet.
    pub fn schema(&self) -> Result<Option<SchemaRef>, ResultError> {
        self.files
            .first()
            .map(|path| Ok(TableFile::open(path)?.schema().clone()))
            .transpose()
    }

    /// Gives every batch in index order, with all columns or at least those named.
    pub fn for_each(
        &self,
        columns: Option<&[&str]>,
        mut give: impl FnMut(&SummaryBatch),
    ) -> Result<(), ResultError> {
        self.try_for_each(columns, |batch| {
            give(batch);
            Ok(())
        })
    }

    /// As [`Self::for_each`]; stops at the first error.
    pub fn try_for_each(
        &self,
        columns: Option<&[&str]>,
        mut give: impl FnMut(&SummaryBatch) -> Result<(), ResultError>,
    ) -> Result<(), ResultError> {
        if let Some(batches) = self.kept()? {
            return batches.iter().try_for_each(give);
        }
        for path in &self.files {
            for batch in parquet_io::open(path, columns)? {
                let batch = batch.map_err(ResultError::unreadable(path))?;
                give(&SummaryBatch::new(batch))?;
            }
        }
        Ok(())
    }

    /// All rows, if they are few; read when first asked for.
    fn kept(&self) -> Result<Option<&[SummaryBatch]>, ResultError> {
        let kept = match self.kept.get() {
            Some(kept) => kept,
            None => {
                let few = self.read_few()?;
                self.kept.get_or_init(|| few)
            }
        };
        Ok(kept.as_deref())
    }

    fn read_few(&self) -> Result<Option<Vec<SummaryBatch>>, ResultError> {
        let mut size_bytes = 0;
        for path in &self.files {
            let file = path.metadata().map_err(ResultError::unreadable(path))?;
            size_bytes += file.len();
            if size_bytes > KEPT_BYTES {
                return Ok(None);
            }
        }
        let mut batches = Vec::new();
        for path in &self.files {
            for batch in TableFile::load(path)?.read(None)? {
                let batch = batch.map_err(ResultError::unreadable(path))?;
                batches.push(SummaryBatch::new(batch));
            }
        }
        Ok(Some(batches))
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}
