//! Single tables outside a result directory: requests and batches of one run.

use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::Schema;

use super::batches::{BATCH_COLUMNS, BatchRow};
use super::parquet_io::{ROW_GROUP_ROWS, TableWriter};
use super::row_table::{RowColumns, RowTableWriter};
use super::schema::{Column, REQUEST_COLUMNS};
use super::{RequestRow, ResultError};

/// Writes rows of requests as Parquet, columns as in `requests/part-*.parquet`
/// but for `run_id`.
pub fn write_request_table(path: &Path, rows: &[RequestRow]) -> Result<(), ResultError> {
    write(path, &REQUEST_COLUMNS, rows)
}

/// Writes rows of batches as Parquet, columns [`BATCH_COLUMNS`].
pub fn write_batch_table(path: &Path, rows: &[BatchRow]) -> Result<(), ResultError> {
    write(path, &BATCH_COLUMNS, rows)
}

/// Writes named columns of equal length as Parquet; a value that is not there is null.
pub fn write_columns(path: &Path, columns: Vec<(String, ArrayRef)>) -> Result<(), ResultError> {
    let nullable = columns.into_iter().map(|(name, array)| (name, array, true));
    let all = RecordBatch::try_from_iter_with_nullable(nullable)?;
    let mut table = TableWriter::create(path, all.schema(), Vec::new())?;
    for first in (0..all.num_rows()).step_by(ROW_GROUP_ROWS) {
        table.write(&all.slice(first, ROW_GROUP_ROWS.min(all.num_rows() - first)))?;
    }
    table.finish().map(|_| ())
}

fn write<R: Clone>(
    path: &Path,
    columns: &'static [Column<R>],
    rows: &[R],
) -> Result<(), ResultError> {
    let fields: Vec<_> = columns.iter().map(Column::arrow).collect();
    let mut columns = RowColumns::new(columns);
    let schema = Schema::new(fields);
    let mut table = RowTableWriter::create(path, &schema, &mut columns, rows.len())?;
    table.extend("", rows.iter().cloned())?;
    table.finish().map(|_| ())
}
