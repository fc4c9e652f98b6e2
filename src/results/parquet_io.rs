//! Parquet files with fixed properties: the same rows give the same bytes.

use std::fs::File;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::ResultError;
use super::durable::{DurableFile, Written};
use super::schema::SCHEMA_VERSION;

/// Rows of a row group; never depends on threads or memory.
pub(super) const ROW_GROUP_ROWS: usize = 65_536;
/// Rows of a batch when reading.
const READ_BATCH_ROWS: usize = 8_192;

const SCHEMA_VERSION_KEY: &str = "vidur_sweep.schema_version";

/// Name of the program that writes a file.
pub(super) fn created_by() -> String {
    format!("vidur-sweep {}", env!("CARGO_PKG_VERSION"))
}

/// Metadata of every file: the version of its columns.
pub(super) fn version_entry() -> KeyValue {
    KeyValue::new(SCHEMA_VERSION_KEY.to_string(), SCHEMA_VERSION.to_string())
}

/// Dictionaries pay for texts, which repeat, and not for measurements.
fn properties(schema: &SchemaRef, extra: Option<KeyValue>) -> WriterProperties {
    let mut metadata = vec![version_entry()];
    metadata.extend(extra);
    let mut builder = WriterProperties::builder()
        .set_created_by(created_by())
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(metadata));
    for field in schema.fields() {
        if field.data_type() == &DataType::Utf8 {
            let path = ColumnPath::new(vec![field.name().clone()]);
            builder = builder.set_column_dictionary_enabled(path, true);
        }
    }
    builder.build()
}

/// A Parquet file on its way to disk.
pub(super) struct TableWriter {
    path: std::path::PathBuf,
    writer: ArrowWriter<DurableFile>,
    rows: u64,
}

impl TableWriter {
    pub(super) fn create(
        path: &Path,
        schema: SchemaRef,
        extra: Option<KeyValue>,
    ) -> Result<Self, ResultError> {
        let file = DurableFile::create(path)?;
        let properties = properties(&schema, extra);
        let writer = ArrowWriter::try_new(file, schema, Some(properties))
            .map_err(ResultError::parquet(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            writer,
            rows: 0,
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ResultError> {
        self.rows += batch.num_rows() as u64;
        self.writer
            .write(batch)
            .map_err(ResultError::parquet(&self.path))
    }

    /// Makes the file appear; tells its rows.
    pub(super) fn finish(self) -> Result<(Written, u64), ResultError> {
        let file = self
            .writer
            .into_inner()
            .map_err(ResultError::parquet(&self.path))?;
        Ok((file.commit()?, self.rows))
    }
}

/// Opens a Parquet file for reading, all columns or those named.
pub(super) fn open(
    path: &Path,
    columns: Option<&[&str]>,
) -> Result<ParquetRecordBatchReader, ResultError> {
    let builder = open_builder(path)?;
    let mask = match columns {
        None => parquet::arrow::ProjectionMask::all(),
        Some(names) => {
            let wanted = builder
                .schema()
                .fields()
                .iter()
                .enumerate()
                .filter(|(_, field)| names.contains(&field.name().as_str()))
                .map(|(position, _)| position);
            parquet::arrow::ProjectionMask::roots(builder.parquet_schema(), wanted)
        }
    };
    builder
        .with_projection(mask)
        .with_batch_size(READ_BATCH_ROWS)
        .build()
        .map_err(ResultError::parquet(path))
}

fn open_builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, ResultError> {
    let file = File::open(path).map_err(ResultError::io(path))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(ResultError::parquet(path))
}

/// Schema of a Parquet file.
pub(super) fn schema(path: &Path) -> Result<SchemaRef, ResultError> {
    Ok(open_builder(path)?.schema().clone())
}

/// One entry of a Parquet file's metadata.
pub(super) fn metadata_value(path: &Path, key: &str) -> Result<Option<String>, ResultError> {
    let builder = open_builder(path)?;
    let entries = builder.metadata().file_metadata().key_value_metadata();
    let entry = entries.and_then(|all| all.iter().find(|entry| entry.key == key));
    Ok(entry.and_then(|entry| entry.value.clone()))
}
