//! Checks the data files a specification names before anything runs: they exist
//! and hold what is wanted of them.

use std::path::Path;

use serde_json::{Map, Value};

use super::load::Findings;
use super::overrides::is_within;
use super::{Points, SpecError, SpecErrors};
use crate::workload::{DataFiles, LengthData, WorkloadError, read_lengths, read_trace};

/// Reads every file that `base`, an axis or a list of points names.
pub(super) fn check(
    spec: &Map<String, Value>,
    points: Option<&Points>,
    files: &DataFiles,
    findings: &mut Findings<'_>,
) {
    let mut report = |path: &str, error: WorkloadError| match error.position {
        // A malformed row speaks for itself; of a file as a whole, say who asks for it.
        Some(_) => findings.elsewhere(SpecErrors(vec![SpecError {
            location: None,
            message: error.to_string(),
        }])),
        None => findings.at_value(path, error.to_string()),
    };
    let mut visit = |key: &str, value: &Value, path: &str| {
        for_each_file(key, value, path, &mut |key, kind, file, path| {
            if let Err(error) = check_file(key, kind, file, files) {
                report(path, error);
            }
        });
    };
    if let Some(workload) = spec.get("base").and_then(|base| base.get("workload")) {
        visit("workload", workload, "base.workload");
    }
    let axes = spec.get("axes").and_then(Value::as_object);
    for (key, values) in axes.into_iter().flatten() {
        if is_within(key, "workload") {
            for (index, value) in values.as_array().into_iter().flatten().enumerate() {
                visit(key, value, &format!("axes.{key}[{index}]"));
            }
        }
    }
    for column in points.map_or(&[][..], |points| &points.columns) {
        if is_within(column, "workload") {
            let values = points.map_or_else(Vec::new, |points| points.column_values(column));
            for value in values {
                visit(column, value, "search.file");
            }
        }
    }
}

/// Takes the run key, the `type` beside it, the name and the path of a file.
type FileVisitor<'a> = &'a mut dyn FnMut(&str, Option<&str>, &str, &str);

/// Calls `found` with the run key, the `type` beside it, the name and the path of
/// every file in a value.
fn for_each_file(key: &str, value: &Value, path: &str, found: FileVisitor<'_>) {
    match value {
        Value::Object(map) => {
            let kind = map.get("type").and_then(Value::as_str);
            for (name, inner) in map {
                let (key, path) = (format!("{key}.{name}"), format!("{path}.{name}"));
                match inner {
                    Value::String(file) if name == "file" => found(&key, kind, file, &path),
                    inner => for_each_file(&key, inner, &path, found),
                }
            }
        }
        Value::String(file) if key.ends_with(".file") => found(key, None, file, path),
        _ => {}
    }
}

fn check_file(
    key: &str,
    kind: Option<&str>,
    file: &str,
    files: &DataFiles,
) -> Result<(), WorkloadError> {
    let data = files.read(Path::new(file))?;
    if key == "workload.arrivals.file" {
        let trace = read_trace(&data)?;
        return match trace.arrivals_s {
            Some(_) => Ok(()),
            None => Err(WorkloadError::in_file(&data.name, "has no arrival times")),
        };
    }
    match (read_lengths(&data)?, kind) {
        (LengthData::Rows(_), Some("histogram")) => Err(WorkloadError::in_file(
            &data.name,
            "is a trace, not a length histogram: use `type: trace`",
        )),
        _ => Ok(()),
    }
}
