//! Mappings that do not say their `type`: where the mapping as a whole has a default, the
//! keys that are given replace some of that default's, and elsewhere the keys may allow
//! one type only.
//!
//! The default of `replica_scheduler` is the engine's, that of a pool is the run's, and
//! any of them may be an axis: so this is done for the configuration of each run.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::EngineConfig;
use super::keys::{Shape, find_run_key, only_type};
use super::resolve::default_scheduler;
/// Dotted keys of the mappings with a `type` that may be left out.
const TYPED: [&str; 6] = [
    "replica_scheduler",
    "prefill.replica_scheduler",
    "decode.replica_scheduler",
    "moe.load",
    "workload.lengths",
    "workload.arrivals",
];

/// The entries of a configuration, of those given, that hold mappings without their type,
/// with it. An error says what no type, or not the default one, allows.
pub(super) fn complete(entries: &[(&str, &Value)]) -> Result<Vec<(&'static str, Value)>, String> {
    let mut completed: Vec<(&'static str, Value)> = Vec::new();
    for path in TYPED {
        let (top, below) = path
            .split_once('.')
            .map_or((path, None), |(a, b)| (a, Some(b)));
        let Some((_, whole)) = entries.iter().find(|(key, _)| *key == top) else {
            continue;
        };
        let map = match below {
            None => Some(*whole),
            Some(below) => whole.get(below),
        };
        let Some(map) = map.and_then(Value::as_object) else {
            continue;
        };
        if map.contains_key("type") {
            continue;
        }
        let own = completed
            .iter()
            .find(|(key, _)| *key == "replica_scheduler");
        let start = start_of(path, entries, own.map(|(_, value)| value));
        let typed = Value::Object(with_type(path, map, start)?);
        let at = match completed.iter().position(|(key, _)| *key == top) {
            Some(at) => at,
            None => {
                completed.push((top, (*whole).clone()));
                completed.len() - 1
            }
        };
        match (below, &mut completed[at].1) {
            (Some(below), Value::Object(whole)) => {
                whole.insert(below.to_owned(), typed);
            }
            (_, value) => *value = typed,
        }
    }
    Ok(completed)
}

/// The default of the mapping at `path`, if it has one. `own` is the run's scheduler where
/// it had to be completed.
fn start_of(
    path: &str,
    entries: &[(&str, &Value)],
    own: Option<&Value>,
) -> Option<Map<String, Value>> {
    let entry = |key: &str| {
        let found = entries.iter().find(|(other, _)| *other == key);
        found
            .map(|(_, value)| *value)
            .filter(|value| !value.is_null())
    };
    let start = match path {
        "replica_scheduler" => scheduler(entry("engine")),
        "prefill.replica_scheduler" | "decode.replica_scheduler" => {
            let of_run = own.or(entry("replica_scheduler")).cloned();
            of_run.unwrap_or_else(|| scheduler(entry("engine")))
        }
        _ => {
            let default_type = find_run_key(path).ok()?.default_type?;
            serde_json::json!({ "type": default_type })
        }
    };
    match start {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// The scheduler that an engine brings, or that there is without one.
fn scheduler(engine: Option<&Value>) -> Value {
    // An engine that is not known is reported when it is looked up for its own sake.
    let config = engine.and_then(|engine| EngineConfig::deserialize(engine).ok());
    let spec = config.and_then(|config| config.spec().ok().flatten());
    serde_json::to_value(default_scheduler(spec.as_ref())).unwrap_or_default()
}

/// The mapping with its type: that of `start`, whose other keys hold where none is given,
/// or the only one that has all its keys.
fn with_type(
    path: &str,
    map: &Map<String, Value>,
    start: Option<Map<String, Value>>,
) -> Result<Map<String, Value>, String> {
    let missing = |allowed: &str| format!("missing key `type` in `{path}`; allowed is {allowed}");
    let Ok(found) = find_run_key(path) else {
        return Err(missing("a mapping with a type"));
    };
    let Some(mut typed) = start else {
        let only = match found.shape {
            Shape::Tagged { variants, .. } => only_type(variants, map),
            _ => None,
        };
        let only = only.ok_or_else(|| missing(&found.shape.allowed()))?;
        let mut typed = map.clone();
        typed.insert("type".to_owned(), only.into());
        return Ok(typed);
    };
    let tag = typed
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    for key in map.keys() {
        let full = format!("{path}.{key}");
        let types = find_run_key(&full)
            .ok()
            .and_then(|found| Some(found.only_for()?.join(" or ")));
        if let Some(types) = types.filter(|types| !types.split(" or ").any(|one| one == tag)) {
            return Err(format!(
                "key `{full}` is for `{path}` of type {types}, not {tag}, which it has by default: \
                 give its `type` too"
            ));
        }
    }
    typed.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;

    fn completed(config: &Value) -> Result<Value, String> {
        let entries: Vec<(&str, &Value)> = (config.as_object().into_iter().flatten())
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        let completed = complete(&entries)?;
        Ok(completed
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }

    #[test]
    fn keys_that_are_given_replace_those_of_the_default() {
        let engine = Catalog::builtin().engine("vllm", None).unwrap();
        let found = completed(&json!({
            "engine": {"name": "vllm"},
            "replica_scheduler": {"chunk_size": 256},
            "prefill": {"replica_scheduler": {"batch_size_cap": 3}},
            "decode": {"replica_scheduler": {"type": "vllm"}},
            "moe": {"load": {"alpha": 0.5}},
            "workload": {"requests": 3, "arrivals": {"clients": 8}},
        }));
        let found = found.unwrap();
        let scheduler = &found["replica_scheduler"];
        assert_eq!(scheduler["type"], "sarathi");
        assert_eq!(scheduler["chunk_size"], 256);
        assert_eq!(scheduler["batch_size_cap"], engine.batch_size_cap);
        let of_pool = &found["prefill"]["replica_scheduler"];
        assert_eq!(
            (&of_pool["chunk_size"], &of_pool["batch_size_cap"]),
            (&json!(256), &json!(3))
        );
        assert!(found.get("decode").is_none());
        assert_eq!(
            found["moe"]["load"],
            json!({"type": "power_law", "alpha": 0.5})
        );
        assert_eq!(
            found["workload"],
            json!({"requests": 3, "arrivals": {"clients": 8, "type": "concurrency"}})
        );
    }

    #[test]
    fn an_engine_of_ones_own_brings_its_scheduler() {
        let found = completed(&json!({
            "engine": {"name": "vllm", "max_tokens_in_batch": 777, "batch_size_cap": 33},
            "replica_scheduler": {"chunk_size": 256},
        }));
        assert_eq!(found.unwrap()["replica_scheduler"]["batch_size_cap"], 33);
    }

    #[test]
    fn what_the_default_does_not_have_is_refused() {
        let message = |config: &Value| completed(config).unwrap_err();
        let vllm = json!({
            "replica_scheduler": {"type": "vllm"},
            "prefill": {"replica_scheduler": {"chunk_size": 5}},
        });
        assert!(message(&vllm).starts_with(
            "key `prefill.replica_scheduler.chunk_size` is for `prefill.replica_scheduler` of type \
             sarathi, not vllm"
        ));
        let tokens = json!({"moe": {"load": {"tokens": [1.0]}}});
        assert!(message(&tokens).contains("of type histogram, not power_law"));
        let file = json!({"workload": {"lengths": {"file": "a.csv"}}});
        assert!(message(&file).starts_with("missing key `type` in `workload.lengths`; allowed is"));
    }
}
