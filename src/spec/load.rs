//! Reads a sweep specification: YAML, then overrides, then every check that can
//! be made without running anything. All that is found wrong is reported at once.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::check::{Checker, Issue, IssueKind, child};
use super::keys::{find_run_key, run_keys, sweep_keys};
use super::number_keys::number_keys;
use super::overrides::Overrides;
use super::places::{KeyPlaces, is_within};
use super::{
    Constraint, Points, PrecisionError, RelativeWidth, SpecError, SpecErrors, SweepSpec, capacity,
    check_precision, check_width, columns, data_files, dotted, slo_check, value_label,
};
use crate::limits::{ERRORS_MAX, NAME_CHARACTERS_MAX};
use crate::workload::{DataFiles, WorkloadSource};
use crate::yaml::{Document, Position, YamlError, shown};

/// The run key that names a program.
const PROGRAM_KEY: &str = "network.simai_binary";

/// Reads a sweep specification from a file, with `path.to.key=value` overrides.
pub fn load(path: &Path, overrides: &[String]) -> Result<SweepSpec, SpecErrors> {
    let document = crate::yaml::read(path).map_err(|e| from_yaml(&e))?;
    from_document(document, overrides, false)
}

/// The same of a sweep that is asked for the load that each configuration holds.
pub fn load_seeking_capacity(path: &Path, overrides: &[String]) -> Result<SweepSpec, SpecErrors> {
    let document = crate::yaml::read(path).map_err(|e| from_yaml(&e))?;
    from_document(document, overrides, true)
}

/// The same from text; `file` is what messages call it, and where it would lie.
pub fn load_str(text: &str, file: &Path, overrides: &[String]) -> Result<SweepSpec, SpecErrors> {
    let document = crate::yaml::parse(text, file).map_err(|e| from_yaml(&e))?;
    from_document(document, overrides, false)
}

fn from_yaml(error: &YamlError) -> SpecErrors {
    SpecErrors(vec![SpecError {
        location: None,
        message: error.to_string(),
    }])
}

fn from_document(
    mut document: Document,
    overrides: &[String],
    is_asked_for_capacity: bool,
) -> Result<SweepSpec, SpecErrors> {
    let Value::Object(mut spec) = document.value.take() else {
        let error = document.error("", "a specification is a mapping of keys to values");
        return Err(from_yaml(&error));
    };
    let mut issues = Vec::new();
    write_out_dots(&mut spec, &mut issues);
    let overrides = Overrides::apply(&mut spec, overrides)?;
    write_out_dots(&mut spec, &mut issues);
    let seeks_capacity = is_asked_for_capacity || capacity::is_sought(&spec);
    if seeks_capacity {
        capacity::start_somewhere(&mut spec);
    }
    let files = DataFiles::beside(document.file.parent().map(Path::to_path_buf));
    let mut findings = Findings {
        document: &document,
        overrides,
        errors: Vec::new(),
    };
    for issue in &issues {
        findings.issue(issue);
    }
    let points = findings.read_points(&spec, &files);
    findings.check_sections(&mut spec, points.as_ref());
    findings.check_names(&spec, points.as_ref());
    findings.check_constraints(&spec);
    let workloads = WorkloadSource::new(files);
    data_files::check(&spec, points.as_ref(), &workloads, &mut findings);
    findings.result()?;

    if seeks_capacity {
        capacity::unite(&mut spec);
    }
    let mut spec: SweepSpec = serde_json::from_value(Value::Object(spec)).map_err(|e| {
        // Unreachable while types and their schemas agree.
        SpecError::at(document.file.display().to_string(), e.to_string())
    })?;
    if seeks_capacity {
        spec = spec.seeking_capacity();
    }
    spec.file = Some(document.file.clone());
    spec.program_named_at = findings.program_named_at(&spec, points.as_ref());
    spec.points = points;
    if let Err((key, message)) = spec.check_size() {
        findings.at_key(key, message);
        findings.result()?;
    }
    if seeks_capacity {
        let axes = Value::Object(spec.axes.clone());
        let number_keys = number_keys(Some(&axes), spec.points.as_ref());
        for (path, message) in spec.against_capacity(&number_keys) {
            findings.at_key(&path, message);
        }
        findings.result()?;
    }
    spec.notes = super::trial::check(&spec, &workloads, &mut findings);
    findings.result()?;
    let set = findings.overrides.set;
    spec.places = KeyPlaces::new(document, set);
    Ok(spec)
}

/// Brings `base` into the form of nested mappings and axes into that of dotted keys,
/// however they are written. Paths of messages are the same either way.
fn write_out_dots(spec: &mut Map<String, Value>, issues: &mut Vec<Issue>) {
    let axes = match spec.get_mut("axes") {
        Some(Value::Object(axes)) => Some(std::mem::take(axes)),
        _ => None,
    };
    dotted::nest(sweep_keys(), "", spec, "", issues);
    if let Some(Value::Object(base)) = spec.get_mut("base") {
        dotted::nest(run_keys(), "", base, "base", issues);
    }
    if let Some(Value::Object(flat)) = spec.get_mut("axes") {
        // What was written at the top as `axes.key` is there by now.
        flat.extend(axes.into_iter().flatten());
        *flat = dotted::flatten(std::mem::take(flat), issues);
    }
}

impl SweepSpec {
    /// What messages about the value of a run key begin with, if the specification was
    /// read from a file: where the axis stands that sets it, or where it does in `base`.
    pub fn location_of(&self, key: &str) -> Option<String> {
        let axes = self.axes.keys().filter(|axis| is_within(key, axis));
        let path = match axes.max_by_key(|axis| axis.len()) {
            Some(axis) => child("axes", axis),
            None => child("base", key),
        };
        self.places.location(&path)
    }
}

/// Errors found in a specification, each with its place.
pub(super) struct Findings<'a> {
    document: &'a Document,
    overrides: Overrides,
    errors: Vec<(Option<Position>, SpecError)>,
}

impl Findings<'_> {
    /// Records an error about the value at `path`.
    pub(super) fn at_value(&mut self, path: &str, message: impl Into<String>) {
        if self.errors.len() > ERRORS_MAX {
            return;
        }
        let placed = self.document.error(path, message);
        self.place(path, placed);
    }

    /// Records an error about the key at `path`.
    pub(super) fn at_key(&mut self, path: &str, message: impl Into<String>) {
        if self.errors.len() > ERRORS_MAX {
            return;
        }
        let placed = self.document.error_at_key(path, message);
        self.place(path, placed);
    }

    /// Records errors that know their place in another file.
    pub(super) fn elsewhere(&mut self, errors: SpecErrors) {
        // Lengths and arrivals of one file complain of the same.
        for error in errors.0 {
            if !self.errors.iter().any(|(_, other)| *other == error) {
                self.errors.push((None, error));
            }
        }
    }

    /// Where the key of a program stands, if the specification has it.
    fn program_named_at(&self, spec: &SweepSpec, points: Option<&Points>) -> Option<String> {
        if points.is_some_and(|points| points.columns.iter().any(|key| key == PROGRAM_KEY)) {
            return points.map(|points| points.location(0));
        }
        let path = match spec.axes.contains_key(PROGRAM_KEY) {
            true => child("axes", PROGRAM_KEY),
            false => child("base", PROGRAM_KEY),
        };
        let in_base = spec.base.get("network").and_then(|n| n.get("simai_binary"));
        let named = path.starts_with("axes") || in_base.is_some_and(|value| !value.is_null());
        named.then(|| self.location(&path, &self.document.error_at_key(&path, "")))
    }

    fn location(&self, path: &str, placed: &YamlError) -> String {
        self.overrides.set.location(path, placed)
    }

    fn place(&mut self, path: &str, placed: YamlError) {
        let location = self.location(path, &placed);
        let error = SpecError::at(location, placed.message);
        if !self.errors.iter().any(|(_, other)| *other == error) {
            self.errors.push((placed.position, error));
        }
    }

    fn issue(&mut self, issue: &Issue) {
        match issue.kind {
            IssueKind::UnknownKey => self.at_key(&issue.path, &issue.message),
            IssueKind::MissingKey | IssueKind::Value => self.at_value(&issue.path, &issue.message),
        }
    }

    /// What was found so far, in the order of the file.
    fn result(&mut self) -> Result<(), SpecErrors> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let more = self.errors.len() > ERRORS_MAX;
        self.errors.truncate(ERRORS_MAX);
        self.errors.sort_by_key(|(position, _)| *position);
        let mut errors: Vec<SpecError> = self.errors.drain(..).map(|(_, e)| e).collect();
        if more {
            let file = self.document.file.display().to_string();
            let message = format!("more errors follow; these are {ERRORS_MAX} of them");
            errors.push(SpecError::at(file, message));
        }
        Err(SpecErrors(errors))
    }

    /// The points of a list search.
    fn read_points(&mut self, spec: &Map<String, Value>, files: &DataFiles) -> Option<Points> {
        let search = spec.get("search")?;
        if search.get("type")? != "list" {
            return None;
        }
        let file = search.get("file")?.as_str()?;
        if spec
            .get("axes")
            .and_then(Value::as_object)
            .is_some_and(|a| !a.is_empty())
        {
            let message = "`axes` and a list of configurations exclude each other: make the axes \
                           columns of the list";
            self.at_key("axes", message);
        }
        match files.read(Path::new(file)) {
            Ok(found) => {
                let points = Points::read(&found).map_err(|errors| self.elsewhere(errors));
                points.ok().map(|mut points| {
                    for key in self.overrides.pinned() {
                        let value = value_at(spec.get("base"), key);
                        points.pin(key, &value);
                    }
                    points
                })
            }
            Err(error) => {
                self.at_value("search.file", format!("key `search.file`: {error}"));
                None
            }
        }
    }

    /// Keys and values of the file, of `base` and of each axis.
    fn check_sections(&mut self, spec: &mut Map<String, Value>, points: Option<&Points>) {
        let mut checker = Checker::default();
        checker.map(sweep_keys(), spec, "");
        // Each with the run key it is about and the axis it is in, if any.
        let mut issues: Vec<(Option<String>, Option<String>, Issue)> = Vec::new();
        issues.extend(checker.issues.drain(..).map(|issue| (None, None, issue)));
        if let Some(base) = self.section(spec, "base") {
            checker.map(run_keys(), base, "base");
            for issue in checker.issues.drain(..) {
                let key = issue.path.strip_prefix("base.").map(str::to_owned);
                issues.push((key, None, issue));
            }
        }
        let mut set: Vec<String> = points.map_or_else(Vec::new, |p| p.columns.clone());
        if let Some(axes) = self.section(spec, "axes") {
            let known = axes.keys().filter(|key| find_run_key(key).is_ok());
            set.extend(known.cloned());
            for (key, values) in axes.iter_mut() {
                let found = self.check_axis(key, values).into_iter();
                issues.extend(found.map(|(about, i)| (about, Some(key.clone()), i)));
            }
        }
        for (key, axis, issue) in &issues {
            // What one section lacks another may bring.
            let elsewhere = |key: &String| {
                let mut others = set.iter().filter(|other| Some(*other) != axis.as_ref());
                others.any(|other| is_within(other, key) || is_within(key, other))
            };
            let brought =
                issue.kind == IssueKind::MissingKey && key.as_ref().is_some_and(elsewhere);
            if !brought {
                self.issue(issue);
            }
        }
    }

    fn section<'s>(
        &mut self,
        spec: &'s mut Map<String, Value>,
        name: &str,
    ) -> Option<&'s mut Map<String, Value>> {
        match spec.get_mut(name)? {
            Value::Object(map) => Some(map),
            other => {
                let message = format!(
                    "key `{name}`: value {} is not allowed; allowed is a mapping",
                    shown(other)
                );
                self.at_value(name, message);
                None
            }
        }
    }

    /// Checks one axis; issues come with the run key they are about.
    fn check_axis(&mut self, key: &str, values: &mut Value) -> Vec<(Option<String>, Issue)> {
        let path = format!("axes.{key}");
        let found = match find_run_key(key) {
            Ok(found) => found,
            Err(missing) => {
                let mut checker = Checker::default();
                let allowed: Vec<_> = missing.allowed.iter().map(String::as_str).collect();
                let parent = child("axes", &missing.parent);
                let parent = parent.trim_end_matches('.');
                checker.unknown_key(parent, &missing.key, &allowed);
                for issue in &checker.issues {
                    self.at_key(&path, &issue.message);
                }
                return Vec::new();
            }
        };
        let Value::Array(items) = values else {
            let message = format!(
                "key `{path}`: value {} is not allowed; allowed is a list of values to try, each {}",
                shown(values),
                found.shape.allowed()
            );
            self.at_value(&path, message);
            return Vec::new();
        };
        if items.is_empty() {
            self.at_value(
                &path,
                format!("key `{path}`: an axis needs at least one value"),
            );
        }
        let mut issues = Vec::new();
        for (index, item) in items.iter_mut().enumerate() {
            if item.is_null() && found.nullable {
                continue;
            }
            let item_path = format!("{path}[{index}]");
            let mut checker = Checker::default();
            if let Value::Object(map) = item {
                dotted::nest(run_keys(), key, map, &item_path, &mut checker.issues);
            }
            checker.found(&found, item, &item_path);
            for issue in checker.issues {
                let below = issue.path.strip_prefix(&item_path).unwrap_or("");
                issues.push((Some(format!("{key}{below}")), issue));
            }
        }
        self.check_repeats(&path, items);
        issues
    }

    fn check_repeats(&mut self, path: &str, items: &[Value]) {
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            if !seen.insert(item.to_string()) {
                let label = value_label(item);
                let message = format!("key `{path}`: value `{label}` appears twice");
                self.at_value(&format!("{path}[{index}]"), message);
            }
        }
    }

    /// The name, and the columns that targets and objectives speak of.
    fn check_names(&mut self, spec: &Map<String, Value>, points: Option<&Points>) {
        if let Some(name) = spec.get("name").and_then(Value::as_str) {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let short = name.len() <= NAME_CHARACTERS_MAX;
            if name.is_empty() || name.starts_with('.') || !short || !name.chars().all(fits) {
                let message = format!(
                    "key `name`: value {} is not allowed; allowed are up to \
                     {NAME_CHARACTERS_MAX} letters, digits, `.`, `_` and `-`, as it names a \
                     directory",
                    shown(&name.into())
                );
                self.at_value("name", message);
            }
        }
        if let Some(slo) = spec.get("slo") {
            let numbers = number_keys(spec.get("axes"), points);
            for issue in slo_check::check(&mut slo.clone(), &numbers) {
                self.issue(&issue);
            }
        }
        self.check_precision(spec);
        self.check_tolerance(spec);
        self.check_objectives(spec, points);
    }

    /// Figures that are to be known well, of all runs or in `base`.
    fn check_precision(&mut self, spec: &Map<String, Value>) {
        let base = spec.get("base").and_then(|base| base.get("precision"));
        let wishes = [
            ("precision", spec.get("precision")),
            ("base.precision", base),
        ];
        for (section, wishes) in wishes {
            for (column, width) in wishes.and_then(Value::as_object).into_iter().flatten() {
                let path = format!("{section}.{column}");
                let Ok(width) = RelativeWidth::deserialize(width) else {
                    continue;
                };
                match check_precision(column, &width) {
                    Ok(()) => {}
                    Err(problem @ PrecisionError::Column(_)) => {
                        self.at_key(&path, problem.to_string());
                    }
                    Err(problem @ PrecisionError::Width { .. }) => {
                        self.at_value(&path, format!("key `{path}`: {problem}"));
                    }
                }
            }
        }
    }

    /// How well capacities are to be known.
    fn check_tolerance(&mut self, spec: &Map<String, Value>) {
        for section in ["capacity", "search"] {
            let given = spec
                .get(section)
                .and_then(|section| section.get("tolerance"));
            let Some(Ok(width)) = given.map(RelativeWidth::deserialize) else {
                continue;
            };
            if let Err(problem) = check_width(&width) {
                let path = format!("{section}.tolerance");
                self.at_value(&path, format!("key `{path}`: {problem}"));
            }
        }
    }

    fn check_objectives(&mut self, spec: &Map<String, Value>, points: Option<&Points>) {
        let Some(objectives) = spec.get("objectives") else {
            return;
        };
        let numbers = number_keys(spec.get("axes"), points);
        let mut seen: HashSet<&str> = HashSet::new();
        for direction in ["maximize", "minimize"] {
            let columns = objectives.get(direction).and_then(Value::as_array);
            for (index, column) in columns.into_iter().flatten().enumerate() {
                let path = format!("objectives.{direction}[{index}]");
                let name = column.as_str().unwrap_or_default();
                if let Err(problem) = columns::check_objective(name, &numbers) {
                    self.at_value(&path, problem.to_string());
                } else if !seen.insert(name) {
                    self.at_value(&path, format!("objective `{name}` appears twice"));
                }
            }
        }
        let count = |direction| objectives.get(direction).and_then(Value::as_array);
        if ["maximize", "minimize"]
            .into_iter()
            .all(|d| count(d).is_none_or(Vec::is_empty))
        {
            self.at_value("objectives", "key `objectives`: at least one is needed");
        }
    }

    fn check_constraints(&mut self, spec: &Map<String, Value>) {
        let constraints = spec.get("constraints").and_then(Value::as_array);
        for (index, text) in constraints.into_iter().flatten().enumerate() {
            let Some(Err(error)) = text.as_str().map(Constraint::parse) else {
                continue;
            };
            let message = format!(
                "constraint `{}`: {error}",
                text.as_str().unwrap_or_default()
            );
            self.at_value(&format!("constraints[{index}]"), message);
        }
    }
}

/// The value at a dotted run key of `base`, checked or not; null if it is not there.
fn value_at(base: Option<&Value>, key: &str) -> Value {
    let value = base.and_then(|base| key.split('.').try_fold(base, |value, key| value.get(key)));
    value.cloned().unwrap_or_default()
}
