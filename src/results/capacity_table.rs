//! `capacity.parquet`: what each configuration of a capacity study holds, from its summary.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};

use super::layout::CAPACITY;
use super::parquet_io::TableWriter;
use super::reader::SummaryReader;
use super::schema::METRIC_COLUMNS;
use super::{ClaimedDirectory, ResultError};

/// Figures of the summary that are in the table.
const FIGURES: [&str; 13] = [
    "capacity_requests_per_s",
    "capacity_low_requests_per_s",
    "capacity_high_requests_per_s",
    "binding_target",
    "capacity_per_gpu",
    "total_gpus",
    "cost_usd_per_hour",
    "cost_usd_per_million_tokens",
    "cost_low_usd_per_million_tokens",
    "cost_high_usd_per_million_tokens",
    "capacity_simulated_requests",
    "capacity_probes",
    "assumptions",
];

/// What a column of the summary is called in the table: there all of it is about the search.
fn called(name: &str) -> &str {
    match name {
        "capacity_simulated_requests" => "simulated_requests",
        "capacity_probes" => "probes",
        name => name,
    }
}

/// The load that is looked for says nothing of a configuration.
const LOAD: &str = "qps";

/// Writes the table into a finished directory. It follows from the summary, and can be made
/// again.
///
/// # Errors
/// If the summary cannot be read or the table not be written.
pub fn write_capacity_table(
    reader: &SummaryReader,
    dir: &ClaimedDirectory,
) -> Result<(), ResultError> {
    let Some(summary) = reader.schema()? else {
        return Ok(());
    };
    let is_figure = |name: &str| METRIC_COLUMNS.iter().any(|column| column.name == name);
    let tells_apart = summary.fields().iter().map(|field| field.name().as_str());
    let tells_apart = tells_apart.filter(|name| !is_figure(name) && *name != LOAD);
    let columns: Vec<&str> = tells_apart.chain(FIGURES).collect();
    let field = |name: &&str| {
        let data_type = summary.field_with_name(name)?.data_type().clone();
        Ok(Field::new(called(name), data_type, true))
    };
    let fields = columns.iter().map(field);
    let fields: Vec<Field> = fields.collect::<Result<_, arrow_schema::ArrowError>>()?;
    let schema = Arc::new(Schema::new(fields));
    let path = dir.path().join(CAPACITY);
    let mut table = TableWriter::create(&path, Arc::clone(&schema), Vec::new())?;
    reader.try_for_each(None, |batch| {
        let batch = batch.record_batch();
        let arrays = columns.iter().map(|name| {
            let index = batch.schema_ref().index_of(name)?;
            Ok(Arc::clone(batch.column(index)))
        });
        let arrays = arrays.collect::<Result<_, arrow_schema::ArrowError>>()?;
        table.write(&RecordBatch::try_new(Arc::clone(&schema), arrays)?)
    })?;
    table.finish().map(|_| ())
}
