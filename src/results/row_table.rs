//! Tables of rows, such as requests, straight from the rows to Parquet.
//!
//! One row group at a time and in it one column at a time, so that a table of
//! any size needs memory for one column of one group.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::column::page::PageWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::SchemaDescPtr;

use super::ResultError;
use super::column_chunk::{self, Chunk};
use super::durable::{DurableFile, Written};
use super::parquet_io::{ROW_GROUP_ROWS, created_by, version_entry};
use super::schema::Column;

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

/// Version of the format: encodings of its second one are used.
const FORMAT_VERSION: i32 = 2;

/// A table on its way to disk.
pub(super) struct RowTableWriter<R: 'static> {
    path: PathBuf,
    sink: TrackedWrite<DurableFile>,
    columns: &'static [Column<R>],
    schema: SchemaDescPtr,
    groups: Vec<RowGroupMetaData>,
    rows: u64,
}

impl<R> RowTableWriter<R> {
    /// A table of `columns`, after a column of labels if `schema` has one more.
    pub(super) fn create(
        path: &Path,
        schema: &Schema,
        columns: &'static [Column<R>],
    ) -> Result<Self, ResultError> {
        let failed = ResultError::parquet;
        let schema = ArrowSchemaConverter::new()
            .convert(schema)
            .map_err(failed(path))?;
        let mut sink = TrackedWrite::new(DurableFile::create(path)?);
        sink.write_all(MAGIC).map_err(ResultError::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            sink,
            columns,
            schema: Arc::new(schema),
            groups: Vec::new(),
            rows: 0,
        })
    }

    /// Adds rows; with `labels`, the texts of the first column and for how many
    /// rows each stands.
    pub(super) fn write(
        &mut self,
        labels: &[(&str, usize)],
        rows: &[R],
    ) -> Result<(), ResultError> {
        debug_assert!(rows.len() <= ROW_GROUP_ROWS);
        let group = self.write_group(labels, rows);
        self.groups
            .push(group.map_err(ResultError::parquet(&self.path))?);
        self.rows += rows.len() as u64;
        Ok(())
    }

    fn write_group(
        &mut self,
        labels: &[(&str, usize)],
        rows: &[R],
    ) -> Result<RowGroupMetaData, ParquetError> {
        let labelled = self.schema.num_columns() > self.columns.len();
        let mut chunks = Vec::with_capacity(self.schema.num_columns());
        if labelled {
            chunks.push(self.write_chunk(0, column_chunk::labels(labels), rows.len())?);
        }
        for column in self.columns {
            let chunk = column_chunk::chunk(&column.getter, rows);
            chunks.push(self.write_chunk(chunks.len(), chunk, rows.len())?);
        }
        let bytes = chunks.iter().map(ColumnChunkMetaData::uncompressed_size);
        RowGroupMetaData::builder(Arc::clone(&self.schema))
            .set_num_rows(rows.len() as i64)
            .set_total_byte_size(bytes.sum())
            .set_ordinal(self.groups.len() as i32)
            .set_column_metadata(chunks)
            .build()
    }

    fn write_chunk(
        &mut self,
        position: usize,
        chunk: Chunk,
        rows: usize,
    ) -> Result<ColumnChunkMetaData, ParquetError> {
        let mut pages = SerializedPageWriter::new(&mut self.sink);
        let dictionary = chunk
            .dictionary
            .map(|page| pages.write_page(page))
            .transpose()?;
        let data = pages.write_page(chunk.data)?;
        let before = dictionary.as_ref().map_or(0, |page| page.uncompressed_size);
        let bytes = (before + data.uncompressed_size) as i64;
        ColumnChunkMetaData::builder(self.schema.column(position))
            .set_encodings(chunk.encodings)
            .set_num_values(rows as i64)
            .set_total_compressed_size(bytes)
            .set_total_uncompressed_size(bytes)
            .set_dictionary_page_offset(dictionary.map(|page| page.offset as i64))
            .set_data_page_offset(data.offset as i64)
            .set_statistics(chunk.statistics)
            .build()
    }

    /// Makes the file appear; tells its rows.
    pub(super) fn finish(self) -> Result<(Written, u64), ResultError> {
        let file = FileMetaData::new(
            FORMAT_VERSION,
            self.rows as i64,
            Some(created_by()),
            Some(vec![version_entry()]),
            self.schema,
            None,
        );
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &ParquetMetaData::new(file, self.groups))
            .finish()
            .map_err(ResultError::parquet(&self.path))?;
        let sink = self.sink.into_inner();
        let mut file = sink.map_err(ResultError::parquet(&self.path))?;
        file.write_all(&footer)
            .map_err(ResultError::io(&self.path))?;
        Ok((file.commit()?, self.rows))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::results::SummaryRow;
    use crate::results::parquet_io;
    use crate::results::reader::SummaryBatch;
    use crate::results::schema::Getter;

    #[derive(Debug, Clone, PartialEq)]
    struct Row {
        whole: Option<i64>,
        number: f64,
        text: Option<&'static str>,
    }

    static COLUMNS: [Column<Row>; 3] = [
        column("whole", Getter::Int(|row| row.whole)),
        column("number", Getter::Float(|row| row.number)),
        column("text", Getter::Text(|row| row.text)),
    ];

    const fn column(name: &'static str, getter: Getter<Row>) -> Column<Row> {
        Column {
            name,
            unit: "-",
            meaning: "",
            getter,
        }
    }

    /// Writes groups of (label, rows) and reads them back.
    fn through_a_file(groups: &[Vec<(String, Vec<Row>)>]) -> Vec<(String, Row)> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.parquet");
        let label = arrow_schema::Field::new("label", arrow_schema::DataType::Utf8, true);
        let fields = std::iter::once(label).chain(COLUMNS.iter().map(Column::arrow));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let mut table = RowTableWriter::create(&path, &schema, &COLUMNS).expect("a table");
        for group in groups {
            let labels: Vec<_> = group.iter().map(|(l, r)| (l.as_str(), r.len())).collect();
            let rows: Vec<Row> = group.iter().flat_map(|(_, rows)| rows.clone()).collect();
            table.write(&labels, &rows).expect("written");
        }
        table.finish().expect("finished");
        let mut found = Vec::new();
        for batch in parquet_io::open(&path, None).expect("a file") {
            let batch = SummaryBatch::new(batch.expect("a batch"));
            found.extend(batch.rows().map(|row| (text(row, "label"), read(row))));
        }
        found
    }

    fn text(row: SummaryRow<'_>, name: &str) -> String {
        row.text(name).expect("a text").to_owned()
    }

    fn read(row: SummaryRow<'_>) -> Row {
        let texts = TEXTS.iter().flatten();
        Row {
            whole: row.integer("whole"),
            number: row.number("number").unwrap_or(f64::NAN),
            text: texts.copied().find(|text| row.text("text") == Some(*text)),
        }
    }

    const TEXTS: [Option<&str>; 4] = [None, Some(""), Some("completed"), Some("größer")];

    /// Columns that keep a value for a while, climb, or jump about.
    fn row() -> impl Strategy<Value = Row> {
        let whole = prop_oneof![
            3 => Just(Some(7)),
            1 => Just(None),
            2 => (-40i64..40).prop_map(Some),
            1 => any::<i64>().prop_map(Some),
        ];
        let number = prop_oneof![
            3 => Just(0.0),
            1 => Just(-0.0),
            1 => Just(f64::NAN),
            2 => any::<f64>(),
        ];
        (whole, number, prop::sample::select(&TEXTS[..])).prop_map(|(whole, number, text)| Row {
            whole,
            number,
            text,
        })
    }

    fn run() -> impl Strategy<Value = (String, Vec<Row>)> {
        let rows = prop_oneof![
            prop::collection::vec(row(), 0..400),
            (row(), 0usize..400).prop_map(|(row, count)| vec![row; count]),
        ];
        ("[a-c]{0,2}", rows)
    }

    /// Bits of every value; what is not finite comes back as null.
    fn bits(found: &[(String, Row)]) -> Vec<(String, Option<i64>, u64, Option<&'static str>)> {
        let nan = |x: f64| if x.is_finite() { x.to_bits() } else { u64::MAX };
        let bits =
            |(label, row): &(String, Row)| (label.clone(), row.whole, nan(row.number), row.text);
        found.iter().map(bits).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_is_written_is_read(
            groups in prop::collection::vec(prop::collection::vec(run(), 1..4), 1..3),
        ) {
            let runs = groups.iter().flatten();
            let rows = runs.flat_map(|(label, rows)| rows.iter().map(|r| (label.clone(), r.clone())));
            let expected: Vec<_> = rows.collect();
            prop_assert_eq!(bits(&through_a_file(&groups)), bits(&expected));
        }
    }
}
