//! From a point of the sweep to a typed configuration.

use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde_json::{Map, Value};

use super::keys::{find_run_key, run_keys, set};
use super::{RunConfig, SearchConfig, SpecError, SweepSpec, default_types};
use crate::limits::RUNS_MAX;
use crate::workload::DataFiles;

/// A dotted key and the value it is given.
pub type Setting<'a> = (&'a str, &'a Value);

impl SweepSpec {
    /// The configuration in which `assignment` replaces values of `base`.
    ///
    /// Keys are dotted; a mapping given for a key replaces it whole, and keys
    /// within it, if assigned too, are set afterwards. The sweep's seed and what it says
    /// of the measurement are the run's unless set otherwise. Values are taken to have been checked, as
    /// those of a loaded specification are.
    pub fn config_at(&self, assignment: &[(String, Value)]) -> Result<RunConfig, SpecError> {
        let settings: Vec<_> = assignment
            .iter()
            .map(|(key, v)| (key.as_str(), v))
            .collect();
        self.config_with(&settings)
    }

    /// The same with borrowed keys and values.
    pub fn config_with(&self, assignment: &[Setting<'_>]) -> Result<RunConfig, SpecError> {
        let of_all = self.settings_of_all_runs();
        let within = self.set_within(assignment)?;
        // Nothing is copied that is not set within: this is done for every run.
        let mut entries: Vec<Setting<'_>> = Vec::with_capacity(self.base.len() + 8);
        entries.extend(self.base.iter().map(|(key, value)| (key.as_str(), value)));
        let whole = assignment
            .iter()
            .filter(|(key, _)| depth(key) == 0)
            .copied();
        let within = within.iter().map(|(key, value)| (key.as_str(), value));
        for (key, value) in whole.chain(within) {
            match entries.iter_mut().find(|(there, _)| *there == key) {
                Some(entry) => entry.1 = value,
                None => entries.push((key, value)),
            }
        }
        for (key, value) in &of_all {
            if entries.iter().all(|(other, _)| other != key) {
                entries.push((key, value));
            }
        }
        let completed = default_types::complete(&entries)
            .map_err(|message| self.error_at(assignment, &message))?;
        for (key, value) in &completed {
            let there = entries.iter_mut().filter(|(other, _)| other == key);
            there.for_each(|entry| entry.1 = value);
        }
        RunConfig::deserialize(MapDeserializer::new(entries.iter().copied()))
            .or_else(|_: serde_json::Error| self.explain(&entries, assignment))
    }

    /// Keys of runs that the sweep sets for all of them, unless they are set otherwise.
    fn settings_of_all_runs(&self) -> Vec<(&'static str, Value)> {
        let mut settings = vec![("seed", Value::from(self.seed))];
        // Serialising what has been deserialised cannot fail.
        let value = |given: Result<Value, _>| given.unwrap_or_default();
        if let Some(measure) = &self.measure {
            settings.push(("measure", value(serde_json::to_value(measure))));
        }
        if let Some(precision) = &self.precision {
            settings.push(("precision", value(serde_json::to_value(precision))));
        }
        if let Some(most) = self.max_requests {
            settings.push(("max_requests", Value::from(most)));
        }
        settings
    }

    /// The top-level values of which `assignment` sets keys within, with those set.
    fn set_within(&self, assignment: &[Setting<'_>]) -> Result<Map<String, Value>, SpecError> {
        let mut map = Map::new();
        let deepest = assignment.iter().map(|(key, _)| depth(key)).max();
        for level in 1..=deepest.unwrap_or(0) {
            for &(key, value) in assignment.iter().filter(|(key, _)| depth(key) == level) {
                let top = key.split('.').next().unwrap_or(key);
                if !map.contains_key(top) {
                    let given = assignment.iter().rev().find(|(whole, _)| *whole == top);
                    let given = given.map(|(_, value)| *value).or(self.base.get(top));
                    map.extend(given.map(|value| (top.to_owned(), value.clone())));
                }
                set(run_keys(), &mut map, key, value.clone())
                    .and_then(|()| check_tag(&map, key))
                    .map_err(|message| self.error_at(assignment, &message))?;
            }
        }
        Ok(map)
    }

    /// What is wrong with a configuration, and where: finding the place takes longer than
    /// the configuration.
    fn explain(
        &self,
        entries: &[Setting<'_>],
        assignment: &[Setting<'_>],
    ) -> Result<RunConfig, SpecError> {
        let entries = entries
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.clone()));
        let config = Value::Object(entries.collect());
        serde_path_to_error::deserialize(config).map_err(|e| {
            let path = e.path().to_string();
            let message = match path.as_str() {
                "." => e.inner().to_string(),
                path => format!("key `{path}`: {}", e.inner()),
            };
            self.error_at(assignment, &message)
        })
    }

    /// Where the data files of this specification are found.
    pub fn data_files(&self) -> DataFiles {
        let dir = self.file.as_ref().and_then(|file| file.parent());
        DataFiles::beside(dir.map(std::path::Path::to_path_buf))
    }

    /// Values of each axis, in the order of the file.
    pub fn axis_values(&self) -> impl Iterator<Item = (&str, &[Value])> {
        self.axes.iter().map(|(key, values)| {
            let values = values.as_array().map_or(&[][..], Vec::as_slice);
            (key.as_str(), values)
        })
    }

    /// Configurations the search looks at, before constraints and replications;
    /// saturates.
    pub fn configurations(&self) -> u64 {
        let sizes = self.axis_values().map(|(_, values)| values.len() as u64);
        let grid = sizes.fold(1, u64::saturating_mul);
        match &self.search {
            SearchConfig::Grid | SearchConfig::Capacity { .. } => grid,
            SearchConfig::Random { samples } => grid.min(*samples),
            SearchConfig::List { .. } => self.points.as_ref().map_or(0, |p| p.len() as u64),
        }
    }

    /// Whether the sweep is too large to be run: the key that says so, and why.
    pub fn check_size(&self) -> Result<(), (&'static str, String)> {
        let sizes: Vec<u64> = match self.search {
            SearchConfig::List { .. } => vec![self.configurations()],
            _ => (self.axis_values())
                .map(|(_, values)| values.len() as u64)
                .collect(),
        };
        let said = sizes.iter().map(u64::to_string).collect::<Vec<_>>();
        let said = said.join(" x ");
        let (key, points, hint) = match self.search {
            SearchConfig::Grid | SearchConfig::Capacity { .. } => (
                "axes",
                format!("the axes span {said} points"),
                "; `search: {type: random, samples: N}` draws N of the points",
            ),
            SearchConfig::Random { .. } => ("axes", format!("the axes span {said} points"), ""),
            SearchConfig::List { .. } => ("replications", format!("the list has {said} rows"), ""),
        };
        let points_numbered = sizes.into_iter().try_fold(1, u64::checked_mul);
        if points_numbered.is_none_or(|points| points > i64::MAX as u64) {
            let message = format!("key `{key}`: {points}, more than can be numbered (2^63){hint}");
            return Err((key, message));
        }
        let runs = u128::from(self.configurations()) * u128::from(self.replications);
        if runs > u128::from(RUNS_MAX) {
            let message = format!(
                "key `{key}`: {points}, {runs} runs with {} replications of each; allowed are at \
                 most {RUNS_MAX} runs{hint}",
                self.replications
            );
            return Err((key, message));
        }
        Ok(())
    }

    fn error_at(&self, assignment: &[Setting<'_>], message: &str) -> SpecError {
        let settings: Vec<_> = assignment
            .iter()
            .map(|(key, value)| format!("{key}={}", value_label(value)))
            .collect();
        let message = match settings.is_empty() {
            true => message.to_owned(),
            false => format!("{message} (with {})", settings.join(", ")),
        };
        SpecError {
            location: self.file.as_ref().map(|file| file.display().to_string()),
            message,
        }
    }
}

/// Mappings a dotted key goes into.
fn depth(key: &str) -> usize {
    key.bytes().filter(|byte| *byte == b'.').count()
}

/// Refuses a key that the mapping it was set in does not have under its `type`.
pub(super) fn check_tag(config: &Map<String, Value>, key: &str) -> Result<(), String> {
    let Ok(found) = find_run_key(key) else {
        return Err(format!("unknown key `{key}`"));
    };
    let Some(types) = found.only_for() else {
        return Ok(());
    };
    let mut parents = found.parent.split('.');
    let top = parents.next().and_then(|first| config.get(first));
    let map = parents.try_fold(top, |value, key| Some(value?.get(key)));
    let tag = map.flatten().and_then(|map| map.get("type"));
    match tag.and_then(Value::as_str) {
        Some(tag) if !types.contains(&tag) => Err(format!(
            "key `{key}` is for `{}` of type {}, not {tag}",
            found.parent,
            types.join(" or ")
        )),
        _ => Ok(()),
    }
}

/// A value of an axis in a few characters, for tables and messages: `512`,
/// `vllm`, `sarathi chunk_size=512`.
pub fn value_label(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() => x.to_string(),
            _ => number.to_string(),
        },
        Value::Object(map) => {
            let tag = map.get("type").map(value_label);
            let others = map
                .iter()
                .filter(|(key, _)| *key != "type")
                .map(|(key, inner)| format!("{key}={}", value_label(inner)));
            tag.into_iter().chain(others).collect::<Vec<_>>().join(" ")
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(value_label).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Bool(truth) => truth.to_string(),
    }
}
