//! Parquet files with fixed properties: the same rows give the same bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;

use super::ResultError;
use super::durable::{DurableFile, Written};
use super::schema::SCHEMA_VERSION;
use crate::input_file::{self, InputKind};

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
fn properties(schema: &SchemaRef, extra: Vec<KeyValue>) -> WriterProperties {
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
    path: PathBuf,
    writer: ArrowWriter<DurableFile>,
    rows: u64,
}

impl TableWriter {
    pub(super) fn create(
        path: &Path,
        schema: SchemaRef,
        extra: Vec<KeyValue>,
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
        self.finish_as(|target, _| target)
    }

    /// As [`Self::finish`], under a name that tells what is in it.
    pub(super) fn finish_as(
        self,
        name: impl FnOnce(PathBuf, &str) -> PathBuf,
    ) -> Result<(Written, u64), ResultError> {
        let file = self
            .writer
            .into_inner()
            .map_err(ResultError::parquet(&self.path))?;
        Ok((file.commit_as(name)?, self.rows))
    }
}

/// Opens a Parquet file for reading, all columns or those named.
pub(super) fn open(
    path: &Path,
    columns: Option<&[&str]>,
) -> Result<ParquetRecordBatchReader, ResultError> {
    TableFile::open(path)?.read(columns)
}

/// A Parquet file of which only the footer has been decoded.
pub(super) struct TableFile<'a, R: ChunkReader> {
    path: &'a Path,
    builder: ParquetRecordBatchReaderBuilder<R>,
}

impl<'a> TableFile<'a, File> {
    /// A file that is read from disk bit by bit.
    pub(super) fn open(path: &'a Path) -> Result<Self, ResultError> {
        let file = input_file::open(path, InputKind::ResultTable);
        Self::new(path, file.map_err(ResultError::unreadable(path))?)
    }
}

impl<'a> TableFile<'a, Bytes> {
    /// A file that is read from disk at once.
    pub(super) fn load(path: &'a Path) -> Result<Self, ResultError> {
        let content =
            input_file::read(path, InputKind::ResultTable).map_err(ResultError::io(path))?;
        Self::new(path, Bytes::from(content))
    }
}

impl<'a, R: ChunkReader + 'static> TableFile<'a, R> {
    fn new(path: &'a Path, content: R) -> Result<Self, ResultError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(content);
        let builder = builder.map_err(ResultError::unreadable(path))?;
        Ok(Self { path, builder })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        self.builder.schema()
    }

    /// One entry of its metadata.
    pub(super) fn metadata_value(&self, key: &str) -> Option<&str> {
        let entries = self.builder.metadata().file_metadata();
        let mut entries = entries.key_value_metadata()?.iter();
        entries.find(|entry| entry.key == key)?.value.as_deref()
    }

    /// Its rows, all columns or those named.
    pub(super) fn read(
        self,
        columns: Option<&[&str]>,
    ) -> Result<ParquetRecordBatchReader, ResultError> {
        let mask = match columns {
            None => ProjectionMask::all(),
            Some(names) => {
                let fields = self.schema().fields().iter().enumerate();
                let wanted = fields
                    .filter(|(_, field)| names.contains(&field.name().as_str()))
                    .map(|(position, _)| position);
                ProjectionMask::roots(self.builder.parquet_schema(), wanted)
            }
        };
        let builder = self.builder.with_projection(mask);
        let reader = builder.with_batch_size(READ_BATCH_ROWS).build();
        reader.map_err(ResultError::unreadable(self.path))
    }
}
