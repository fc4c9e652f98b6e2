//! Columns to Arrow arrays: the one place where NaN becomes null.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, new_null_array};
use serde_json::Value;

use super::schema::{
    AxisColumn, Column, ColumnType, Getter, IDENTITY_COLUMNS, METRIC_COLUMNS, TIMING_COLUMNS,
    compact, part_schema,
};
use super::{ResultError, RunResult};

/// One column over `rows`. Verdicts are not known yet: they come out null.
pub(super) fn array<R>(column: &Column<R>, rows: &[R]) -> ArrayRef {
    match &column.getter {
        Getter::Int(take) => {
            let mut values = vec![None; rows.len()];
            take(rows, &mut values);
            Arc::new(Int64Array::from(values))
        }
        Getter::Float(take) => {
            let mut values = vec![f64::NAN; rows.len()];
            take(rows, &mut values);
            floats(values)
        }
        Getter::Text(get) => {
            let mut builder = StringBuilder::with_capacity(rows.len(), rows.len() * 16);
            rows.iter().for_each(|row| builder.append_option(get(row)));
            Arc::new(builder.finish())
        }
        Getter::Flag(get) => {
            let flags: BooleanArray = rows.iter().map(|row| Some(get(row))).collect();
            Arc::new(flags)
        }
        Getter::Verdict(column_type) => new_null_array(&column_type.arrow(), rows.len()),
    }
}

/// Numbers; what is not finite is null.
fn floats(values: Vec<f64>) -> ArrayRef {
    Arc::new(match values.iter().all(|value| value.is_finite()) {
        true => Float64Array::from(values),
        false => {
            let values = values.into_iter();
            values
                .map(|value| value.is_finite().then_some(value))
                .collect()
        }
    })
}

/// The part of one block: its runs' rows in index order.
pub(super) fn part_batch(
    axes: &[AxisColumn],
    runs: &[RunResult],
) -> Result<RecordBatch, ResultError> {
    let schema = part_schema(axes);
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    arrays.extend(IDENTITY_COLUMNS.iter().map(|c| array(c, runs)));
    for (position, axis) in axes.iter().enumerate() {
        arrays.push(axis_array(axis, position, runs)?);
    }
    let known = METRIC_COLUMNS
        .iter()
        .filter(|c| !matches!(c.getter, Getter::Verdict(_)));
    arrays.extend(known.map(|c| array(c, runs)));
    let timing = TIMING_COLUMNS.iter().filter(|c| c.name == "wall_time_s");
    arrays.extend(timing.map(|c| array(c, runs)));
    RecordBatch::try_new(schema, arrays).map_err(ResultError::from)
}

fn axis_array(
    axis: &AxisColumn,
    position: usize,
    runs: &[RunResult],
) -> Result<ArrayRef, ResultError> {
    let values = || runs.iter().map(|run| (run, &run.axes[position]));
    let misfit = |run: &RunResult, value: &Value| ResultError::AxisValue {
        run_index: run.index,
        axis: axis.name.clone(),
        value: compact(value),
        expected: axis.column_type.name(),
    };
    match axis.column_type {
        ColumnType::Int => {
            let mut builder = Int64Builder::with_capacity(runs.len());
            for (run, value) in values() {
                builder.append_option(or_null(value, Value::as_i64, || misfit(run, value))?);
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnType::Float => {
            let mut builder = Float64Builder::with_capacity(runs.len());
            for (run, value) in values() {
                builder.append_option(or_null(value, Value::as_f64, || misfit(run, value))?);
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnType::Bool => {
            let mut builder = BooleanBuilder::with_capacity(runs.len());
            for (run, value) in values() {
                builder.append_option(or_null(value, Value::as_bool, || misfit(run, value))?);
            }
            Ok(Arc::new(builder.finish()))
        }
        ColumnType::Text => {
            let mut builder = StringBuilder::new();
            for (_, value) in values() {
                builder.append_option((!value.is_null()).then(|| compact(value)));
            }
            Ok(Arc::new(builder.finish()))
        }
    }
}

fn or_null<T>(
    value: &Value,
    get: impl Fn(&Value) -> Option<T>,
    misfit: impl Fn() -> ResultError,
) -> Result<Option<T>, ResultError> {
    match value {
        Value::Null => Ok(None),
        value => get(value).map(Some).ok_or_else(misfit),
    }
}
