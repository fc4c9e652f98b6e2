//! A parquet file as named columns in memory: how tables are read and written.
//!
//! Only what operator tables need: text keys, non-negative whole numbers and
//! one column of times. Whole files are decoded at once; the largest has about
//! 10^5 rows.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type};
use arrow_array::{Array, ArrayRef, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::SiliconError;
use super::table::LATENCY;
use crate::limits::STEP_TIME_S_MAX;
use crate::number::{narrow, single};

/// Times are in milliseconds or microseconds.
const UNITS_PER_S_MAX: f64 = 1e6;

/// Columns of one file.
pub(super) struct Frame {
    name: String,
    batch: RecordBatch,
}

impl Frame {
    /// Decodes `bytes`; `name` is used in messages.
    pub(super) fn read(name: &str, bytes: Bytes) -> Result<Self, SiliconError> {
        let malformed = |reason: String| SiliconError::Malformed {
            file: name.to_owned(),
            reason,
        };
        let metadata = metadata(&bytes).map_err(|error| malformed(error.to_string()))?;
        let schema = Arc::clone(metadata.schema());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata);
        let rows = narrow(builder.metadata().file_metadata().num_rows().max(1));
        let mut reader = builder
            .with_batch_size(rows)
            .build()
            .map_err(|error| malformed(error.to_string()))?;
        let batch = match reader.next() {
            Some(batch) => batch.map_err(|error| malformed(error.to_string()))?,
            None => RecordBatch::new_empty(schema),
        };
        Ok(Self {
            name: name.to_owned(),
            batch,
        })
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there is a column `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// Whole numbers of column `name`.
    pub(super) fn numbers(&self, name: &str) -> Result<ScalarBuffer<u32>, SiliconError> {
        let column = self.column(name)?;
        let whole = |value: i64| {
            u32::try_from(value).map_err(|_| self.bad(name, format!("{value} is out of range")))
        };
        match column.data_type() {
            DataType::UInt32 => Ok(column.as_primitive::<UInt32Type>().values().clone()),
            DataType::Int32 => {
                let values = column.as_primitive::<Int32Type>().values();
                values.iter().map(|&v| whole(i64::from(v))).collect()
            }
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>().values();
                values.iter().map(|&v| whole(v)).collect()
            }
            other => Err(self.bad(name, format!("holds {other}, not whole numbers"))),
        }
    }

    /// Real numbers of column `name`.
    fn reals(&self, name: &str) -> Result<Vec<f64>, SiliconError> {
        let column = self.column(name)?;
        match column.data_type() {
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>().values();
                Ok(values.iter().map(|&v| f64::from(v)).collect())
            }
            DataType::Float64 => Ok(column.as_primitive::<Float64Type>().values().to_vec()),
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>().values();
                Ok(values.iter().map(|&v| v as f64).collect())
            }
            other => Err(self.bad(name, format!("holds {other}, not real numbers"))),
        }
    }

    /// The measured times, milliseconds.
    pub(super) fn latencies_ms(&self) -> Result<ScalarBuffer<f32>, SiliconError> {
        let column = self.column(LATENCY)?;
        if let Some(values) = column.as_primitive_opt::<Float32Type>() {
            let times = values.values();
            self.check_times(LATENCY, times.iter().map(|&time| f64::from(time)))?;
            return Ok(times.clone());
        }
        let times = self.times(LATENCY)?;
        Ok(times.into_iter().map(single).collect())
    }

    /// Times of column `name`, whatever their unit.
    pub(super) fn times(&self, name: &str) -> Result<Vec<f64>, SiliconError> {
        let times = self.reals(name)?;
        self.check_times(name, times.iter().copied())?;
        Ok(times)
    }

    /// Refuses what is no time.
    fn check_times(
        &self,
        name: &str,
        times: impl Iterator<Item = f64>,
    ) -> Result<(), SiliconError> {
        for (row, time) in times.enumerate() {
            if !(0.0..=STEP_TIME_S_MAX * UNITS_PER_S_MAX).contains(&time) {
                let reason = format!("has {time} in row {}, which is no time", row + 1);
                return Err(self.bad(name, reason));
            }
        }
        Ok(())
    }

    /// Text of column `name`.
    pub(super) fn texts(&self, name: &str) -> Result<Texts, SiliconError> {
        let column = self.column(name)?;
        let texts = column.as_dictionary_opt::<Int32Type>().and_then(|column| {
            Some(Texts {
                codes: column.keys().values().clone(),
                values: column.values().as_string_opt::<i32>()?.clone(),
            })
        });
        texts.ok_or_else(|| self.bad(name, format!("holds {}, not text", column.data_type())))
    }

    fn column(&self, name: &str) -> Result<&ArrayRef, SiliconError> {
        let column = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| self.bad(name, "is missing".into()))?;
        if column.null_count() > 0 {
            return Err(self.bad(name, "has empty cells".into()));
        }
        Ok(column)
    }

    fn bad(&self, column: &str, reason: String) -> SiliconError {
        SiliconError::Malformed {
            file: self.name.clone(),
            reason: format!("column `{column}` {reason}"),
        }
    }
}

/// What is in a file, its texts to be read as numbers into a list of different ones.
fn metadata(bytes: &Bytes) -> parquet::errors::Result<ArrowReaderMetadata> {
    // Without the Arrow metadata every text column is plain UTF-8, whatever library
    // wrote the file.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::load(bytes, options.clone())?;
    let fields = plain.schema().fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Utf8 => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
            other => other.clone(),
        };
        Field::new(field.name(), data_type, field.is_nullable())
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options.with_schema(schema))
}

/// A column of text: rows have numbers into a list of texts.
pub(super) struct Texts {
    codes: ScalarBuffer<i32>,
    values: StringArray,
}

impl Texts {
    /// Of a row.
    pub(super) fn value(&self, row: usize) -> &str {
        self.values.value(narrow::<usize, _>(self.codes[row]))
    }

    /// Those there are, some perhaps twice.
    pub(super) fn distinct(&self) -> impl Iterator<Item = &str> {
        (0..self.values.len()).map(|code| self.values.value(code))
    }

    /// What `parse` makes of each, by row.
    pub(super) fn parsed<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, SiliconError>,
    ) -> Result<Parsed<T>, SiliconError> {
        Ok(Parsed {
            codes: self.codes.clone(),
            values: self.distinct().map(parse).collect::<Result<_, _>>()?,
        })
    }
}

/// What the texts of a column mean.
pub(super) struct Parsed<T> {
    codes: ScalarBuffer<i32>,
    values: Vec<T>,
}

impl<T: Copy> Parsed<T> {
    /// That of a row.
    pub(super) fn of(&self, row: usize) -> T {
        self.values[narrow::<usize, _>(self.codes[row])]
    }
}

/// A column to be written.
pub(super) enum Column {
    /// Text keys.
    Text(Vec<String>),
    /// Whole numbers.
    Number(Vec<u32>),
    /// Measured values.
    Real(Vec<f32>),
}

/// Encodes columns as parquet: dictionaries for the keys, split byte streams
/// for the measured values, zstd, no statistics (files are read whole).
pub(super) fn encode(columns: Vec<(&str, Column)>) -> Result<Vec<u8>, SiliconError> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    let level = ZstdLevel::try_new(19).map_err(encoding_error)?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by("vidur-sweep".into())
        .set_max_row_group_row_count(Some(1 << 20))
        .set_data_page_size_limit(1 << 24)
        .set_data_page_row_count_limit(1 << 20);
    for (name, column) in columns {
        let (data_type, array): (DataType, ArrayRef) = match column {
            Column::Text(values) => (
                DataType::Utf8,
                Arc::new(StringArray::from_iter_values(values)),
            ),
            Column::Number(values) => (DataType::UInt32, Arc::new(UInt32Array::from(values))),
            Column::Real(values) => {
                let path = ColumnPath::from(name);
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
                (DataType::Float32, Arc::new(Float32Array::from(values)))
            }
        };
        fields.push(Field::new(name, data_type, false));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(encoding_error)?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    let mut file = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut file, schema, options).map_err(encoding_error)?;
    writer.write(&batch).map_err(encoding_error)?;
    writer.close().map_err(encoding_error)?;
    Ok(file)
}

fn encoding_error(error: impl std::fmt::Display) -> SiliconError {
    SiliconError::Encoding {
        reason: error.to_string(),
    }
}
