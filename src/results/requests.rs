//! Per-request rows: one simulated request with what its run knows of it.

use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};

use super::row_table::RowTableWriter;
use super::schema::{Column, ColumnType, Getter, REQUEST_COLUMNS, TextOf, float, int};
use super::{ResultError, RunResult};
use crate::simulator::RequestRecord;
use crate::units::DType;

/// One row of the per-request table.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// What the simulator recorded.
    pub record: RequestRecord,
    /// Since the previous request's arrival, seconds; NaN if that is not known.
    pub inter_arrival_delay_s: f64,
    /// Prompt tokens at arrival. A restart in a compatibility mode changes those of
    /// the record.
    pub prompt_tokens: u32,
    /// Output tokens at arrival.
    pub output_tokens: u32,
    /// Whether it is one of those that the figures of its run are of.
    pub measured: bool,
    /// Format of the KV cache.
    pub kv_cache_dtype: Option<DType>,
}

impl RequestRow {
    pub(super) fn decode_s(&self) -> f64 {
        self.record.completed_at_s - self.record.prefill_completed_at_s
    }

    pub(super) fn decode_tokens(&self) -> f64 {
        f64::from(self.record.decode_tokens)
    }

    pub(super) fn transfer_dtype(&self) -> Option<&str> {
        let moved = self.record.pd_p2p_comm_size_bytes > 0.0;
        self.kv_cache_dtype.filter(|_| moved).map(DType::name)
    }
}

/// Adds the rows of these runs to a table, in order.
pub(super) fn write_requests<'a>(
    table: &mut RowTableWriter<'_, RequestRow>,
    runs: impl Iterator<Item = &'a RunResult>,
) -> Result<(), ResultError> {
    for run in runs {
        table.extend(&run.run_id, request_rows(run))?;
    }
    Ok(())
}

/// Rows of a run, which has its requests in order. A delay needs both arrivals: with
/// sampled requests most have none.
fn request_rows(run: &RunResult) -> impl Iterator<Item = RequestRow> {
    debug_assert!(run.requests.is_sorted_by_key(|record| record.request_id));
    let befores = std::iter::once(None).chain(run.requests.iter().map(Some));
    let requests = befores.zip(&run.requests);
    requests.map(|(before, record)| {
        let follows =
            |before: &&RequestRecord| before.request_id.checked_add(1) == Some(record.request_id);
        RequestRow {
            inter_arrival_delay_s: before
                .filter(follows)
                .map_or(f64::NAN, |before| record.arrived_at_s - before.arrived_at_s),
            prompt_tokens: record.prefill_tokens,
            output_tokens: record.decode_tokens,
            measured: (run.measured.as_ref()).is_none_or(|ids| ids.contains(&record.request_id)),
            kv_cache_dtype: run.kv_cache_dtype,
            record: record.clone(),
        }
    })
}

/// One row of a per-request table that is copied into another.
#[derive(Debug, Clone)]
pub(super) struct CopiedRow {
    /// Rows as they were read, the id of the run in front.
    batch: Arc<RecordBatch>,
    row: usize,
}

/// Place of the first of [`REQUEST_COLUMNS`] in the table: the id of the run is before it.
const FIRST_COLUMN: usize = 1;

impl CopiedRow {
    pub(super) fn new(batch: Arc<RecordBatch>, row: usize) -> Self {
        Self { batch, row }
    }

    /// The run it belongs to.
    pub(super) fn run_id(&self) -> Option<&str> {
        self.text(0)
    }

    /// The request.
    pub(super) fn request_id(&self) -> Option<i64> {
        self.integer(FIRST_COLUMN)
    }

    fn value(&self, column: usize) -> Option<&dyn Array> {
        let column = self.batch.columns().get(column)?.as_ref();
        column.is_valid(self.row).then_some(column)
    }

    fn integer(&self, column: usize) -> Option<i64> {
        let column = self.value(column)?.as_primitive_opt::<Int64Type>()?;
        Some(column.value(self.row))
    }

    fn number(&self, column: usize) -> f64 {
        let column = self.value(column);
        let column = column.and_then(|column| column.as_primitive_opt::<Float64Type>());
        column.map_or(f64::NAN, |column| column.value(self.row))
    }

    fn text(&self, column: usize) -> Option<&str> {
        let column = self.value(column)?.as_string_opt::<i32>()?;
        Some(column.value(self.row))
    }

    fn flag(&self, column: usize) -> bool {
        let column = self.value(column);
        let column = column.and_then(|column| column.as_boolean_opt());
        column.is_some_and(|column| column.value(self.row))
    }
}

/// [`REQUEST_COLUMNS`] of rows that are copied.
pub(super) static COPIED_COLUMNS: LazyLock<Vec<Column<CopiedRow>>> = LazyLock::new(|| {
    let columns = REQUEST_COLUMNS.iter().zip(FIRST_COLUMN..);
    columns
        .map(|(column, place)| copied(column, place))
        .collect()
});

fn copied(column: &Column<RequestRow>, place: usize) -> Column<CopiedRow> {
    let (name, unit, meaning) = (column.name, column.unit, column.meaning);
    let getter = match column.column_type() {
        ColumnType::Int => {
            return int(name, unit, meaning, move |row: &CopiedRow| {
                row.integer(place)
            });
        }
        ColumnType::Float => {
            return float(name, unit, meaning, move |row: &CopiedRow| {
                row.number(place)
            });
        }
        ColumnType::Text => Getter::Text(text_at(place)),
        ColumnType::Bool => Getter::Flag(Box::new(move |row: &CopiedRow| row.flag(place))),
    };
    Column {
        name,
        unit,
        meaning,
        getter,
    }
}

fn text_at(place: usize) -> TextOf<CopiedRow> {
    Box::new(move |row| row.text(place))
}
