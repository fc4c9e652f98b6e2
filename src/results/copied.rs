//! Per-request rows that are taken from one table and written into another: the same columns
//! as those of rows that a run has just made, read by name.

use std::sync::{Arc, LazyLock};

use super::reader::{SummaryBatch, SummaryRow};
use super::requests::RequestRow;
use super::schema::{
    Column, ColumnType, FlagOf, Getter, REQUEST_COLUMNS, REQUEST_ID, RUN_ID, TextOf, float, int,
};

/// One row of a per-request table that is copied into another.
#[derive(Debug, Clone)]
pub(super) struct CopiedRow {
    batch: Arc<SummaryBatch>,
    row: usize,
}

impl CopiedRow {
    pub(super) fn new(batch: Arc<SummaryBatch>, row: usize) -> Self {
        Self { batch, row }
    }

    /// Its values by name.
    fn values(&self) -> SummaryRow<'_> {
        self.batch.row(self.row)
    }

    /// The run it belongs to.
    pub(super) fn run_id(&self) -> Option<&str> {
        self.values().text(RUN_ID)
    }

    /// The request.
    pub(super) fn request_id(&self) -> Option<i64> {
        self.values().integer(REQUEST_ID)
    }
}

/// [`REQUEST_COLUMNS`] of rows that are copied.
pub(super) static COPIED_COLUMNS: LazyLock<Vec<Column<CopiedRow>>> =
    LazyLock::new(|| REQUEST_COLUMNS.iter().map(copied).collect());

fn copied(column: &Column<RequestRow>) -> Column<CopiedRow> {
    let (name, unit, meaning) = (column.name, column.unit, column.meaning);
    let getter = match column.column_type() {
        ColumnType::Int => return int(name, unit, meaning, whole_at(name)),
        ColumnType::Float => return float(name, unit, meaning, number_at(name)),
        ColumnType::Text => Getter::Text(text_at(name)),
        ColumnType::Bool => Getter::Flag(flag_at(name)),
    };
    Column {
        name,
        unit,
        meaning,
        getter,
    }
}

fn whole_at(name: &'static str) -> impl Fn(&CopiedRow) -> Option<i64> {
    move |row| row.values().integer(name)
}

fn number_at(name: &'static str) -> impl Fn(&CopiedRow) -> f64 {
    move |row| row.values().number(name).unwrap_or(f64::NAN)
}

fn text_at(name: &'static str) -> TextOf<CopiedRow> {
    Box::new(move |row| row.values().text(name))
}

fn flag_at(name: &'static str) -> FlagOf<CopiedRow> {
    Box::new(move |row| row.values().flag(name).unwrap_or(false))
}
