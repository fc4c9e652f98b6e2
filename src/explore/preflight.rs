//! What has to be known of a sweep before its first run: that every model,
//! device and data file is understood, and what the results depend on.
//!
//! Looks at configurations that together have every value of every axis, not at
//! all of them, so it costs what the axes cost.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::Plan;
use super::survey::CheckOne;
use crate::spec::{Problem, ResolveError, RunConfig, canonical_json, value_label};
use crate::workload::WorkloadError;
use crate::yaml;

/// Says what a configuration depends on besides itself.
pub trait Fingerprints {
    /// Configuration keys that name data, and hashes of the data.
    fn fingerprints(&self, config: &RunConfig) -> Result<Vec<(String, String)>, WorkloadError>;
}

/// What a sweep is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The sweep as resolved, for `spec.yaml`.
    pub spec_yaml: String,
    /// Hash of everything that determines the results.
    pub spec_hash: String,
    /// Hashes of the data the results depend on, by key and value.
    pub data_hashes: BTreeMap<String, String>,
    /// Requests of a run, at most.
    pub requests_per_run: u32,
}

/// Checks the plan and works out its identity. An error is the user's to mend.
pub fn preflight<R: CheckOne + Fingerprints>(plan: &Plan, runner: &R) -> Result<Identity, Problem> {
    let mut data_hashes = BTreeMap::new();
    let mut requests_per_run = 0;
    for config in plan.representatives() {
        let config = config.map_err(Problem::new)?;
        if let Err(ResolveError::Input(error)) = runner.check(&config) {
            return Err(Problem::from(&error));
        }
        let requests = runner
            .requests(&config)
            .map_err(|error| Problem::from(&error))?;
        requests_per_run = requests_per_run.max(requests);
        let names = serde_json::to_value(&config).unwrap_or_default();
        let fingerprints = runner.fingerprints(&config);
        for (key, hash) in fingerprints.map_err(|error| Problem::from(&error))? {
            data_hashes.insert(format!("{key}: {}", value_at(&names, &key)), hash);
        }
    }
    let spec =
        serde_json::to_value(plan.spec()).map_err(|error| Problem::new(error.to_string()))?;
    Ok(Identity {
        spec_hash: spec_hash(&spec, plan, &data_hashes),
        spec_yaml: yaml::to_text(&spec),
        data_hashes,
        requests_per_run,
    })
}

/// The value at a dotted path, as one would name it.
fn value_at(config: &Value, path: &str) -> String {
    let value = path
        .split('.')
        .try_fold(config, |value, key| value.get(key));
    match value {
        // `engine` is a mapping with a name.
        Some(Value::Object(map)) => map.get("name").map_or(String::new(), value_label),
        Some(other) => value_label(other),
        None => String::new(),
    }
}

/// Hash of the specification, of the rows of its list and of its data.
fn spec_hash(spec: &Value, plan: &Plan, data_hashes: &BTreeMap<String, String>) -> String {
    let rows = plan.spec().points.as_ref().map(|points| {
        let rows = (0..points.len()).map(|index| (points.labels(index), points.assignment(index)));
        rows.map(|row| json!(row)).collect::<Vec<_>>()
    });
    let all = json!({"spec": spec, "rows": rows, "data": data_hashes});
    blake3::hash(canonical_json(&all).as_bytes()).to_hex()[..32].to_owned()
}
