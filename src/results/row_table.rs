//! Tables of rows, such as requests, straight from the rows to Parquet.
//!
//! Rows are taken apart a few at a time, while they are in the fastest cache; a
//! table of any size needs memory for the columns of one row group.

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
use super::column_chunk::{self, Chunk, Filling, ROWS_AT_A_TIME, TextRuns};
use super::durable::{DurableFile, Written};
use super::parquet_io::{ROW_GROUP_ROWS, created_by, version_entry};
use super::schema::Column;
use crate::number::narrow;

/// What a Parquet file begins with.
const MAGIC: &[u8] = b"PAR1";

/// Version of the format: encodings of its second one are used.
const FORMAT_VERSION: i32 = 2;

/// The columns of a row group while it is filled; their memory serves one table after
/// the other.
pub(super) struct RowColumns<R: 'static> {
    /// Rows that are not in the columns yet.
    pending: Vec<R>,
    columns: Vec<Filling<R>>,
    rows: usize,
}

impl<R> RowColumns<R> {
    pub(super) fn new(columns: &'static [Column<R>]) -> Self {
        let filling = |column: &'static Column<R>| Filling::new(&column.getter);
        Self {
            pending: Vec::with_capacity(ROWS_AT_A_TIME),
            columns: columns.iter().map(filling).collect(),
            rows: 0,
        }
    }

    fn take_pending(&mut self) {
        for column in &mut self.columns {
            column.extend(&self.pending);
        }
        self.rows += self.pending.len();
        self.pending.clear();
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.columns.iter_mut().for_each(Filling::clear);
        self.rows = 0;
    }
}

/// A table on its way to disk.
pub(super) struct RowTableWriter<'a, R: 'static> {
    path: PathBuf,
    sink: TrackedWrite<DurableFile>,
    schema: SchemaDescPtr,
    /// The row group that is being filled.
    group: &'a mut RowColumns<R>,
    /// Texts of the first column, if it is one of labels, and for how many rows each
    /// stands.
    labels: Option<TextRuns>,
    groups: Vec<RowGroupMetaData>,
    rows: u64,
}

impl<'a, R> RowTableWriter<'a, R> {
    /// A table of `columns`, after a column of labels if `schema` has one more.
    /// `rows` are expected.
    pub(super) fn create(
        path: &Path,
        schema: &Schema,
        columns: &'a mut RowColumns<R>,
        rows: usize,
    ) -> Result<Self, ResultError> {
        let failed = ResultError::parquet;
        let schema = ArrowSchemaConverter::new()
            .convert(schema)
            .map_err(failed(path))?;
        let mut sink = TrackedWrite::new(DurableFile::create(path)?);
        sink.write_all(MAGIC).map_err(ResultError::io(path))?;
        columns.clear();
        for column in &mut columns.columns {
            column.reserve(rows.min(ROW_GROUP_ROWS));
        }
        Ok(Self {
            path: path.to_path_buf(),
            sink,
            labels: (schema.num_columns() > columns.columns.len()).then(Vec::new),
            schema: Arc::new(schema),
            group: columns,
            groups: Vec::new(),
            rows: 0,
        })
    }

    /// Adds rows, all with this label if the table has labels.
    pub(super) fn extend(
        &mut self,
        label: &str,
        rows: impl Iterator<Item = R>,
    ) -> Result<(), ResultError> {
        let mut unlabelled = 0;
        for row in rows {
            self.group.pending.push(row);
            unlabelled += 1;
            if self.group.pending.len() == ROWS_AT_A_TIME {
                self.label(label, std::mem::take(&mut unlabelled));
                self.group.take_pending();
                if self.group.rows == ROW_GROUP_ROWS {
                    self.end_group()?;
                }
            }
        }
        self.label(label, unlabelled);
        Ok(())
    }

    fn label(&mut self, label: &str, rows: usize) {
        if let Some(labels) = self.labels.as_mut().filter(|_| rows > 0) {
            column_chunk::add_text(labels, Some(label), rows);
        }
    }

    fn end_group(&mut self) -> Result<(), ResultError> {
        let group = self.write_group();
        self.groups
            .push(group.map_err(ResultError::parquet(&self.path))?);
        self.rows += self.group.rows as u64;
        self.group.rows = 0;
        Ok(())
    }

    fn write_group(&mut self) -> Result<RowGroupMetaData, ParquetError> {
        let rows = self.group.rows;
        let mut chunks = Vec::with_capacity(self.schema.num_columns());
        if let Some(labels) = &mut self.labels {
            let chunk = column_chunk::texts(labels);
            labels.clear();
            chunks.push(self.write_chunk(0, chunk, rows)?);
        }
        for at in 0..self.group.columns.len() {
            let chunk = self.group.columns[at].chunk();
            chunks.push(self.write_chunk(chunks.len(), chunk, rows)?);
            self.group.columns[at].clear();
        }
        let bytes = chunks.iter().map(ColumnChunkMetaData::uncompressed_size);
        RowGroupMetaData::builder(Arc::clone(&self.schema))
            .set_num_rows(narrow::<i64, _>(rows))
            .set_total_byte_size(bytes.sum())
            .set_ordinal(narrow::<i32, _>(self.groups.len()))
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
        let bytes = narrow::<i64, _>(before + data.uncompressed_size);
        ColumnChunkMetaData::builder(self.schema.column(position))
            .set_encodings(chunk.encodings)
            .set_num_values(narrow::<i64, _>(rows))
            .set_total_compressed_size(bytes)
            .set_total_uncompressed_size(bytes)
            .set_dictionary_page_offset(dictionary.map(|page| narrow::<i64, _>(page.offset)))
            .set_data_page_offset(narrow::<i64, _>(data.offset))
            .set_statistics(chunk.statistics)
            .build()
    }

    /// Makes the file appear; tells its rows.
    pub(super) fn finish(mut self) -> Result<(Written, u64), ResultError> {
        self.group.take_pending();
        if self.group.rows > 0 {
            self.end_group()?;
        }
        let file = FileMetaData::new(
            FORMAT_VERSION,
            narrow::<i64, _>(self.rows),
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
    use std::sync::LazyLock;

    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::results::SummaryRow;
    use crate::results::parquet_io;
    use crate::results::reader::SummaryBatch;
    use crate::results::schema;

    #[derive(Debug, Clone, PartialEq)]
    struct Row {
        whole: Option<i64>,
        number: f64,
        text: Option<&'static str>,
    }

    static COLUMNS: LazyLock<Vec<Column<Row>>> = LazyLock::new(|| {
        vec![
            schema::int("whole", "-", "", |row: &Row| row.whole),
            schema::float("number", "-", "", |row: &Row| row.number),
            schema::text("text", "", |row: &Row| row.text),
        ]
    });

    /// [`COLUMNS`] after one of labels.
    fn labelled() -> Schema {
        let label = arrow_schema::Field::new("label", arrow_schema::DataType::Utf8, true);
        let fields = std::iter::once(label).chain(COLUMNS.iter().map(Column::arrow));
        Schema::new(fields.collect::<Vec<_>>())
    }

    /// Writes groups of (label, rows) and reads them back.
    fn through_a_file(groups: &[Vec<(String, Vec<Row>)>]) -> Vec<(String, Row)> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.parquet");
        let mut columns = RowColumns::new(&COLUMNS);
        let mut table =
            RowTableWriter::create(&path, &labelled(), &mut columns, 0).expect("a table");
        for group in groups {
            for (label, rows) in group {
                (table.extend(label, rows.iter().cloned())).expect("written");
            }
            table.group.take_pending();
            table.end_group().expect("written");
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

    #[test]
    fn a_row_group_ends_where_it_is_full() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.parquet");
        let mut columns = RowColumns::new(&COLUMNS);
        let mut table =
            RowTableWriter::create(&path, &labelled(), &mut columns, 0).expect("a table");
        let row = |at: i64| Row {
            whole: Some(at),
            number: at as f64 / 3.0,
            text: Some("completed"),
        };
        for (label, rows) in [
            ("a", 0..50_000),
            ("b", 50_000..100_000),
            ("c", 100_000..140_000),
        ] {
            table.extend(label, rows.map(row)).expect("written");
        }
        let (_, rows) = table.finish().expect("finished");
        assert_eq!(rows, 140_000);
        let file = std::fs::File::open(&path).expect("a file");
        let file = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        let groups = file.metadata().row_groups().iter();
        let sizes: Vec<i64> = groups.map(RowGroupMetaData::num_rows).collect();
        assert_eq!(sizes, [65_536, 65_536, 8_928]);
        let mut found = 0;
        for batch in parquet_io::open(&path, None).expect("a file") {
            let batch = SummaryBatch::new(batch.expect("a batch"));
            for read in batch.rows() {
                let label = ["a", "b", "c"][found as usize / 50_000];
                assert_eq!(text(read, "label"), label);
                assert_eq!(self::read(read), row(found));
                found += 1;
            }
        }
        assert_eq!(found, 140_000);
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
