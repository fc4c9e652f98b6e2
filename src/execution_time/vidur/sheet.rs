//! CSV text with a header, and messages that point into it.

use std::path::Path;

use csv::StringRecord;

use super::VidurError;
use crate::limits::STEP_TIME_S_MAX;
use crate::number::narrow;
use crate::spelling;

/// Seconds and milliseconds, for [`Sheet::time`].
pub(super) const SECONDS: (f64, &str) = (1.0, "s");
pub(super) const MILLISECONDS: (f64, &str) = (1e3, "ms");

/// A CSV file in memory.
#[derive(Debug)]
pub(super) struct Sheet<'a> {
    path: &'a Path,
    text: &'a [u8],
    header: StringRecord,
}

/// A row and where it stands.
#[derive(Debug)]
pub(super) struct Row {
    record: StringRecord,
    line: u64,
    byte: u64,
}

impl Row {
    /// The text of a field; nothing where there is no such column.
    pub(super) fn field(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default().trim()
    }
}

impl<'a> Sheet<'a> {
    /// The header, and all rows in order.
    pub(super) fn read(path: &'a Path, text: &'a [u8]) -> Result<(Self, Vec<Row>), VidurError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(text);
        let malformed = |error: &csv::Error| malformed(path, error);
        let header = reader.headers().map_err(|error| malformed(&error))?.clone();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| malformed(&error))?;
            let position = record.position();
            rows.push(Row {
                line: position.map_or(0, csv::Position::line),
                byte: position.map_or(0, csv::Position::byte),
                record,
            });
        }
        Ok((Self { path, text, header }, rows))
    }

    /// Place of the column of that name, if there is one.
    pub(super) fn find_column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column.trim() == name)
    }

    /// Places of the columns whose names begin so.
    pub(super) fn columns_from(&self, prefix: &str) -> Vec<usize> {
        let columns = self.header.iter().enumerate();
        let named = columns.filter(|(_, name)| name.trim().starts_with(prefix));
        named.map(|(place, _)| place).collect()
    }

    /// Place of the column of that name.
    pub(super) fn column(&self, name: &str) -> Result<usize, VidurError> {
        self.find_column(name).ok_or_else(|| {
            let hint = spelling::did_you_mean(name, self.header.iter());
            let what = format!("no column `{name}` in the header{hint}");
            VidurError::at(self.path, 1, 1, what)
        })
    }

    /// An error at a field: it is not what is `allowed` there.
    pub(super) fn refuse(&self, row: &Row, column: usize, allowed: &str) -> VidurError {
        VidurError::at(
            self.path,
            row.line,
            self.field_start(row, column),
            format!(
                "{}: `{}` is not {allowed}",
                self.header.get(column).unwrap_or_default(),
                row.field(column)
            ),
        )
    }

    /// A finite number.
    pub(super) fn number(&self, row: &Row, column: usize) -> Result<f64, VidurError> {
        match row.field(column).parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(self.refuse(row, column, "a number")),
        }
    }

    /// A finite number that is not negative.
    pub(super) fn zero_or_more(&self, row: &Row, column: usize) -> Result<f64, VidurError> {
        let value = self.number(row, column)?;
        if value < 0.0 {
            return Err(self.refuse(row, column, "a number from 0 on"));
        }
        Ok(value)
    }

    /// A time of a step or of a part of one, in a unit of which a second has
    /// `units_per_s`.
    pub(super) fn time(
        &self,
        row: &Row,
        column: usize,
        (units_per_s, unit): (f64, &str),
    ) -> Result<f64, VidurError> {
        let most = STEP_TIME_S_MAX * units_per_s;
        match self.number(row, column)? {
            time if (0.0..=most).contains(&time) => Ok(time),
            _ => Err(self.refuse(row, column, &format!("a time from 0 to {most:e} {unit}"))),
        }
    }

    /// True or false, as pandas writes it.
    pub(super) fn flag(&self, row: &Row, column: usize) -> Result<bool, VidurError> {
        match row.field(column) {
            "True" | "true" | "1" => Ok(true),
            "False" | "false" | "0" => Ok(false),
            _ => Err(self.refuse(row, column, "True or False")),
        }
    }

    /// The text of a row.
    pub(super) fn line_of(&self, row: &Row) -> &str {
        let mut rest = &self.text[narrow::<usize, _>(row.byte).min(self.text.len())..];
        // The reader counts from before the second half of a line break.
        while let [b'\r' | b'\n', after @ ..] = rest {
            rest = after;
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        std::str::from_utf8(&rest[..end.unwrap_or(rest.len())])
            .unwrap_or_default()
            .trim_end()
    }

    /// Where in its line a field starts, from 1.
    fn field_start(&self, row: &Row, column: usize) -> usize {
        let line = self.line_of(row);
        let (mut quoted, mut field) = (false, 0);
        for (index, byte) in line.bytes().enumerate() {
            if field == column {
                return index + 1;
            }
            match byte {
                b'"' => quoted = !quoted,
                b',' if !quoted => field += 1,
                _ => {}
            }
        }
        line.len() + 1
    }
}

fn malformed(path: &Path, error: &csv::Error) -> VidurError {
    let line = error.position().map_or(1, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields, but the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".into(),
        _ => error.to_string(),
    };
    VidurError::at(path, line, 1, what)
}
