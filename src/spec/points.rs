//! Configurations listed in a CSV file: one per row, the columns being dotted
//! run keys. Cells are read like YAML values; an empty cell leaves the key as
//! `base` has it. A column `name` or `id` labels the rows.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::check::Checker;
use super::keys::{Found, Shape, find_run_key, run_key_paths, run_keys};
use super::overrides::set_in_value;
use super::places::is_within;
use super::{SpecError, SpecErrors, dotted};
use crate::limits::{ERRORS_MAX, LIST_COLUMNS_MAX, POINTS_MAX};
use crate::spelling::did_you_mean;
use crate::workload::{Cell, DataFile, split_cells};

/// Columns that label rows instead of setting a key.
const LABEL_COLUMNS: [&str; 2] = ["name", "id"];

/// The configurations of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// File they came from, as messages call it.
    pub file: PathBuf,
    /// Dotted keys, one per column that is not a label.
    pub columns: Vec<String>,
    /// Names of the others.
    pub label_columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// Line in the file, from 1.
    line: usize,
    /// One per column that is a label.
    labels: Vec<String>,
    /// One per column; none: as in `base`.
    cells: Vec<Option<Value>>,
    /// Where in the line each of them starts, from 1.
    starts: Vec<u32>,
}

impl Points {
    /// Configurations.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What row `index` has in each column, none being as in `base`; empty past the
    /// end.
    pub fn cells(&self, index: usize) -> &[Option<Value>] {
        self.rows.get(index).map_or(&[][..], |row| &row.cells)
    }

    /// What row `index` sets, in the order of the columns; empty past the end.
    pub fn assignment(&self, index: usize) -> Vec<(String, Value)> {
        let set = self.columns.iter().zip(self.cells(index));
        set.filter_map(|(column, cell)| Some((column.clone(), cell.clone()?)))
            .collect()
    }

    /// Labels of row `index`, one per column that is a label.
    pub fn labels(&self, index: usize) -> &[String] {
        self.rows.get(index).map_or(&[], |row| &row.labels)
    }

    /// Where row `index` stands, for messages.
    pub fn location(&self, index: usize) -> String {
        self.location_of(index, None)
    }

    /// Where row `index` sets `key`, or what that is within; the row where it does not.
    pub(super) fn location_of(&self, index: usize, key: Option<&str>) -> String {
        let Some(row) = self.rows.get(index) else {
            return self.file.display().to_string();
        };
        let sets = |(at, column): (usize, &String)| {
            let set = row.cells[at].is_some() && is_within(key?, column);
            set.then_some((column.len(), row.starts[at]))
        };
        let columns = self.columns.iter().enumerate();
        let start = columns.filter_map(sets).max().map_or(1, |(_, start)| start);
        location(&self.file, row.line, start as usize)
    }

    /// Distinct values of a column, in order of appearance.
    pub fn column_values(&self, column: &str) -> Vec<&Value> {
        let Some(at) = self.columns.iter().position(|c| c == column) else {
            return Vec::new();
        };
        let given = self.rows.iter().filter_map(|row| row.cells[at].as_ref());
        let mut seen = HashSet::new();
        given
            .filter(|value| seen.insert(value.to_string()))
            .collect()
    }

    /// Gives `key` the same value in all rows: that which `base` has for it, in the place of
    /// what they have, and within the mappings they have.
    pub(super) fn pin(&mut self, key: &str, value: &Value) {
        if let Some(at) = self.columns.iter().position(|column| column == key) {
            self.columns.remove(at);
            self.rows.iter_mut().for_each(|row| {
                row.cells.remove(at);
                row.starts.remove(at);
            });
        }
        for (at, column) in self.columns.iter().enumerate() {
            if is_within(key, column) {
                let cells = self
                    .rows
                    .iter_mut()
                    .filter_map(|row| row.cells[at].as_mut());
                cells.for_each(|cell| set_in_value(column, cell, key, value));
            }
        }
    }

    /// Reads a list.
    pub fn read(file: &DataFile) -> Result<Self, SpecErrors> {
        let name = &file.name;
        let text = file.text.strip_prefix('\u{feff}').unwrap_or(&file.text);
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        let Some((line, header)) = lines.next() else {
            return Err(SpecError::at(name.display().to_string(), "is empty").into());
        };
        let header = split_cells(header);
        let columns = read_header(name, line, &header)?;
        let mut errors = Vec::new();
        let mut rows = Vec::new();
        for (line, text) in lines {
            if rows.len() as u64 == POINTS_MAX {
                let message = format!("has more rows than the {POINTS_MAX} that are allowed");
                return Err(SpecError::at(location(name, line, 1), message).into());
            }
            match read_row(name, line, text, &columns) {
                Ok(row) => rows.push(row),
                Err(found) => errors.extend(found),
            }
            if errors.len() >= ERRORS_MAX {
                errors.truncate(ERRORS_MAX);
                errors.push(SpecError::at(
                    name.display().to_string(),
                    "more errors follow; these are the first",
                ));
                break;
            }
        }
        if !errors.is_empty() {
            return Err(SpecErrors(errors));
        }
        if rows.is_empty() {
            return Err(SpecError::at(name.display().to_string(), "has no rows").into());
        }
        Ok(Self {
            file: name.clone(),
            columns: columns
                .iter()
                .filter_map(|c| c.key.as_ref().ok())
                .map(|(key, _)| (*key).to_owned())
                .collect(),
            label_columns: columns
                .iter()
                .filter_map(|c| c.key.as_ref().err())
                .map(|name| (*name).to_owned())
                .collect(),
            rows,
        })
    }
}

/// A column: the key it sets, or the name of a label.
struct Column<'a> {
    key: Result<(&'a str, Found<'a>), &'a str>,
}

fn location(file: &Path, line: usize, column: usize) -> String {
    format!("{}:{line}:{column}", file.display())
}

fn read_header<'a>(
    file: &Path,
    line: usize,
    cells: &'a [Cell<'a>],
) -> Result<Vec<Column<'a>>, SpecErrors> {
    if cells.len() > LIST_COLUMNS_MAX {
        let message = format!(
            "{} columns; allowed are at most {LIST_COLUMNS_MAX}",
            cells.len()
        );
        return Err(SpecError::at(location(file, line, 1), message).into());
    }
    let mut errors = Vec::new();
    let mut columns = Vec::new();
    let mut seen = HashSet::new();
    for cell in cells {
        let at = || location(file, line, cell.column);
        let name = cell.text.as_ref();
        if !seen.insert(name) {
            errors.push(SpecError::at(
                at(),
                format!("column `{name}` appears twice"),
            ));
        } else if LABEL_COLUMNS.contains(&name) {
            columns.push(Column { key: Err(name) });
        } else {
            match find_run_key(name) {
                Ok(found) => columns.push(Column {
                    key: Ok((name, found)),
                }),
                Err(_) => {
                    let known = run_key_paths().iter().map(String::as_str);
                    let message = format!(
                        "unknown column `{name}`; allowed are dotted run keys such as {}, and {}{}",
                        "`tensor_parallel` or `workload.arrivals.clients`",
                        LABEL_COLUMNS.join(" or "),
                        did_you_mean(name, known)
                    );
                    errors.push(SpecError::at(at(), message));
                }
            }
        }
    }
    if errors.is_empty() {
        Ok(columns)
    } else {
        Err(SpecErrors(errors))
    }
}

fn read_row(
    file: &Path,
    line: usize,
    text: &str,
    columns: &[Column<'_>],
) -> Result<Row, Vec<SpecError>> {
    let cells = split_cells(text);
    if cells.len() != columns.len() {
        let message = format!(
            "{} cells where the header has {} columns",
            cells.len(),
            columns.len()
        );
        return Err(vec![SpecError::at(location(file, line, 1), message)]);
    }
    let mut row = Row {
        line,
        labels: Vec::new(),
        cells: Vec::new(),
        starts: Vec::new(),
    };
    let mut errors = Vec::new();
    for (cell, column) in cells.iter().zip(columns) {
        if column.key.is_ok() {
            row.starts
                .push(u32::try_from(cell.column).unwrap_or(u32::MAX));
        }
        match &column.key {
            Err(_) => row.labels.push(cell.text.to_string()),
            Ok(_) if cell.text.is_empty() => row.cells.push(None),
            Ok((key, found)) => match read_cell(cell, key, found) {
                Ok(value) => row.cells.push(Some(value)),
                Err(messages) => errors.extend(
                    messages
                        .into_iter()
                        .map(|message| SpecError::at(location(file, line, cell.column), message)),
                ),
            },
        }
    }
    if errors.is_empty() {
        Ok(row)
    } else {
        Err(errors)
    }
}

fn read_cell(cell: &Cell<'_>, key: &str, found: &Found<'_>) -> Result<Value, Vec<String>> {
    let mut value = match found.shape {
        Shape::Text | Shape::Choice(_) => Value::String(cell.text.to_string()),
        _ => scalar(&cell.text),
    };
    if found.nullable && (value.is_null() || cell.text == "null") {
        return Ok(Value::Null);
    }
    let mut checker = Checker::default();
    if let Value::Object(map) = &mut value {
        dotted::nest(run_keys(), key, map, key, &mut checker.issues);
    }
    checker.found(found, &mut value, key);
    let messages: Vec<_> = checker.issues.into_iter().map(|i| i.message).collect();
    if messages.is_empty() {
        Ok(value)
    } else {
        Err(messages)
    }
}

/// A cell by the rules of YAML: numbers, truth values, null, `{...}` and `[...]`,
/// else text.
fn scalar(text: &str) -> Value {
    if let Ok(whole) = text.parse::<u64>() {
        return whole.into();
    }
    if let Some(number) = text.parse::<f64>().ok().filter(|v| v.is_finite()) {
        return number.into();
    }
    let parsed = match text {
        "null" | "~" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ if text.starts_with(['{', '[']) => crate::yaml::parse(text, Path::new("cell")).ok(),
        _ => None,
    };
    parsed.map_or_else(|| Value::String(text.to_owned()), |document| document.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Points, String> {
        let file = DataFile {
            name: "p.csv".into(),
            text: text.to_owned().into(),
        };
        Points::read(&file).map_err(|e| e.to_string())
    }

    #[test]
    fn cells_are_typed_by_their_column() {
        let points = read(
            "id,tensor_parallel,engine.version,replica_scheduler,qps,workload.arrivals.clients\n\
             a,4.0,0.24,\"{type: sarathi, chunk_size: 256}\",,8\n\
             b,2,1,vllm,5,\n",
        );
        let points = points.unwrap();
        let sarathi = serde_json::json!({"type": "sarathi", "chunk_size": 256});
        assert_eq!(
            points.assignment(0),
            [
                ("tensor_parallel".to_owned(), 4.into()),
                ("engine.version".to_owned(), "0.24".into()),
                ("replica_scheduler".to_owned(), sarathi),
                ("workload.arrivals.clients".to_owned(), 8.into()),
            ]
        );
        assert_eq!(points.assignment(1)[3], ("qps".to_owned(), 5.0.into()));
        assert_eq!((points.len(), points.labels(1)), (2, &["b".to_owned()][..]));
        assert_eq!(points.label_columns, ["id"]);
        assert_eq!(points.location(1), "p.csv:3:1");
        assert_eq!(
            points.column_values("tensor_parallel"),
            [&Value::from(4), &2.into()]
        );
    }

    #[test]
    fn every_wrong_cell_is_named() {
        let message = read("tensor_parallel,backend\n2,silicon\n0,silicone\n1.5,roofline\n3\n");
        let message = message.unwrap_err();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(
            lines[0],
            "p.csv:3:1: key `tensor_parallel`: value `0` is not allowed; \
             allowed is a whole number from 1 to 1024"
        );
        assert!(lines[1].starts_with("p.csv:3:3: key `backend`: value `silicone`"));
        assert!(lines[1].ends_with("did you mean `silicon`?"), "{message}");
        assert!(lines[2].starts_with("p.csv:4:1: key `tensor_parallel`: value `1.5`"));
        assert_eq!(
            lines[3],
            "p.csv:5:1: 1 cells where the header has 2 columns"
        );
        let message = read("tensor_paralel,qps,qps\n1,2,3\n").unwrap_err();
        assert!(message.starts_with("p.csv:1:1: unknown column `tensor_paralel`"));
        assert!(message.contains("did you mean `tensor_parallel`?"));
        assert!(message.contains("p.csv:1:20: column `qps` appears twice"));
        assert!(read("qps\n").unwrap_err().contains("has no rows"));
        let many = format!("qps\n{}", "0\n".repeat(200));
        assert_eq!(read(&many).unwrap_err().lines().count(), ERRORS_MAX + 1);
        let wide = vec!["x"; 160_000].join(",");
        let message = read(&format!("{wide}\n{wide}\n")).unwrap_err();
        assert_eq!(
            message,
            "p.csv:1:1: 160000 columns; allowed are at most 1000"
        );
    }
}
