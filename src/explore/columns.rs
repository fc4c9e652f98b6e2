//! Which columns tell of a run what it is of: the labels of its row in a list, its axes,
//! and what it has in common with all others, so that tables of several sweeps can be
//! put together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::catalog::Catalog;
use crate::results::schema::summary_column_names;
use crate::results::{AxisColumn, ColumnRole, ColumnType};
use crate::spec::keys::{Shape, find_run_key};
use crate::spec::{RunConfig, SweepSpec};

/// Columns every sweep has, whether or not an axis sets them.
const ALWAYS: [(&str, ColumnType); 5] = [
    ("model", ColumnType::Text),
    ("device", ColumnType::Text),
    ("engine", ColumnType::Text),
    ("engine_version", ColumnType::Text),
    ("qps", ColumnType::Float),
];

/// Keys that are among those under another name.
const NAMED_ELSEWHERE: [&str; 2] = ["engine.name", "engine.version"];

/// What all runs of a sweep say of themselves beyond its axes.
#[derive(Debug, Clone)]
pub(super) struct SharedColumns {
    /// Those of [`ALWAYS`] that are no axis.
    always: Vec<(&'static str, ColumnType)>,
    /// Keys of `base` that no axis touches, and their values.
    of_base: Vec<(String, ColumnType, Value)>,
    /// Newest versions of engines, by name: one may be a file.
    newest: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

impl SharedColumns {
    /// Of a sweep with these axes.
    pub(super) fn new(spec: &SweepSpec, axes: &[String]) -> Self {
        let no_axis = |name: &str| axes.iter().all(|axis| axis != name);
        let always = ALWAYS.into_iter().filter(|(name, _)| no_axis(name));
        let mut leaves = Vec::new();
        collect_leaves(&spec.base, "", &mut leaves);
        let is_new = |key: &str| {
            let known = ALWAYS.iter().any(|(name, _)| *name == key);
            let set_by_axis = |axis: &String| {
                key.strip_prefix(axis.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            !known
                && !NAMED_ELSEWHERE.contains(&key)
                && !axes.iter().any(set_by_axis)
                && summary_column_names().all(|name| name != key)
        };
        Self {
            always: always.collect(),
            of_base: (leaves.into_iter())
                .filter(|(key, _)| is_new(key))
                .map(|(key, value)| {
                    let column_type = type_of(&key);
                    (key, column_type, value)
                })
                .collect(),
            newest: Arc::default(),
        }
    }

    /// The columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = AxisColumn> {
        let always = self.always.iter().map(|(name, kind)| (*name, *kind));
        let of_base = self
            .of_base
            .iter()
            .map(|(key, kind, _)| (key.as_str(), *kind));
        always.chain(of_base).map(|(name, column_type)| AxisColumn {
            name: name.to_owned(),
            column_type,
            role: ColumnRole::Shared,
        })
    }

    /// Their values for a run; those that depend on the run are null where it has no
    /// configuration.
    pub(super) fn values(&self, config: Option<&RunConfig>) -> impl Iterator<Item = Value> {
        let always = self.always.iter().map(move |(name, _)| match config {
            Some(config) => self.always_value(config, name),
            None => Value::Null,
        });
        always.chain(self.of_base.iter().map(|(.., value)| value.clone()))
    }
}

impl SharedColumns {
    fn always_value(&self, config: &RunConfig, name: &str) -> Value {
        let engine = &config.engine;
        match name {
            "model" => config.model.as_str().into(),
            "device" => config.device.as_str().into(),
            "engine" => engine.name.clone().into(),
            "engine_version" => match (&engine.name, &engine.version) {
                (_, Some(version)) => version.as_str().into(),
                (Some(name), None) => self.newest_version(name).into(),
                (None, None) => Value::Null,
            },
            "qps" => config.qps.into(),
            _ => Value::Null,
        }
    }

    fn newest_version(&self, engine: &str) -> Option<String> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = newest.get(engine) {
            return version.clone();
        }
        let known = Catalog::builtin().engine(engine, None).ok();
        let version = known.map(|engine| engine.version);
        newest.insert(engine.to_owned(), version.clone());
        version
    }
}

/// Dotted keys within `map` that hold no others, and their values.
fn collect_leaves(map: &Map<String, Value>, prefix: &str, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in map {
        let path = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => collect_leaves(inner, &format!("{path}."), leaves),
            Value::Null => {}
            other => leaves.push((path, other.clone())),
        }
    }
}

/// Type of the values a key may have, the same in every sweep.
fn type_of(key: &str) -> ColumnType {
    match find_run_key(key).map(|found| found.shape) {
        Ok(Shape::Integer { .. }) => ColumnType::Int,
        Ok(Shape::Number(_)) => ColumnType::Float,
        Ok(Shape::Bool) => ColumnType::Bool,
        _ => ColumnType::Text,
    }
}
