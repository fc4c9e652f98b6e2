//! Checks the data files a specification names before anything runs: they exist
//! and hold what is wanted of them.

use std::path::Path;

use serde_json::{Map, Value};

use super::load::Findings;
use super::places::is_within;
use super::{Points, SpecError, SpecErrors};
use crate::workload::{WorkloadError, WorkloadSource};

/// Reads every file that `base`, an axis or a list of points names.
pub(super) fn check(
    spec: &Map<String, Value>,
    points: Option<&Points>,
    workloads: &WorkloadSource,
    findings: &mut Findings<'_>,
) {
    let mut report = |key: &str, path: &str, error: WorkloadError| match error.position {
        // A malformed row speaks for itself; of a file as a whole, say who asks for it.
        Some(_) => findings.elsewhere(SpecErrors(vec![SpecError {
            location: None,
            message: error.to_string(),
        }])),
        None => findings.at_value(path, format!("key `{key}`: {}", error.reason())),
    };
    let mut visit = |key: &str, value: &Value, path: &str| {
        for_each_file(key, value, path, &mut |key, file, path| {
            let checked = match key {
                "workload.arrivals.file" => workloads.check_arrivals_file(Path::new(file)),
                _ => workloads.check_lengths_file(Path::new(file)),
            };
            if let Err(error) = checked {
                report(key, path, error);
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

/// Takes the run key, the name and the path of a file.
type FileVisitor<'a> = &'a mut dyn FnMut(&str, &str, &str);

/// Calls `found` with the run key, the name and the path of every file in a value.
fn for_each_file(key: &str, value: &Value, path: &str, found: FileVisitor<'_>) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                let (key, path) = (format!("{key}.{name}"), format!("{path}.{name}"));
                match inner {
                    Value::String(file) if name == "file" => found(&key, file, &path),
                    inner => for_each_file(&key, inner, &path, found),
                }
            }
        }
        Value::String(file) if key.ends_with(".file") => found(key, file, path),
        _ => {}
    }
}
