//! Overrides from the command line: `path.to.key=value`, applied to the file's
//! content before it is checked.

use std::path::Path;

use serde_json::{Map, Value};

use super::keys::{run_keys, set, sweep_keys};
use super::{SpecError, SpecErrors};
use crate::spelling::did_you_mean;

/// What was overridden, for messages about it.
#[derive(Debug, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Applies overrides in order. A path starts with a key of the file
    /// (`base.qps`, `seed`), or is a run key (`qps`), which then is pinned for
    /// all runs: set in `base` and taken from the axes.
    pub fn apply(spec: &mut Map<String, Value>, arguments: &[String]) -> Result<Self, SpecErrors> {
        let mut overrides = Self::default();
        let mut errors = Vec::new();
        for argument in arguments {
            match apply_one(spec, argument) {
                Ok(path) => overrides.0.push((path, label(argument))),
                Err(message) => errors.push(SpecError::at(label(argument), message)),
            }
        }
        match errors.is_empty() {
            true => Ok(overrides),
            false => Err(SpecErrors(errors)),
        }
    }

    /// The override that set the value at `path`, if one did.
    pub fn source_of(&self, path: &str) -> Option<&str> {
        let set = self.0.iter().rev();
        set.filter(|(prefix, _)| is_within(path, prefix))
            .map(|(_, label)| label.as_str())
            .next()
    }
}

fn label(argument: &str) -> String {
    format!("--set {argument}")
}

/// Whether `path` is `prefix` or lies below it.
pub fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Applies one override; returns the path that was set.
fn apply_one(spec: &mut Map<String, Value>, argument: &str) -> Result<String, String> {
    let Some((key, text)) = argument.split_once('=') else {
        return Err("an override is `path.to.key=value`".to_owned());
    };
    let (key, text) = (key.trim(), text.trim());
    let value = match text {
        "" => Value::Null,
        text => {
            let parsed = crate::yaml::parse(text, Path::new("--set"));
            parsed.map_err(|e| e.message)?.value
        }
    };
    let first = key.split('.').next().unwrap_or(key);
    if sweep_keys().iter().any(|k| k.name == first) {
        set_spec_key(spec, key, value)?;
        return Ok(key.to_owned());
    }
    if !run_keys().iter().any(|k| k.name == first) {
        let known = sweep_keys().iter().chain(run_keys());
        let known = known.map(|k| k.name.as_str());
        let hint = did_you_mean(first, known);
        return Err(format!(
            "unknown key `{first}`; allowed are the keys of the file and of `base`{hint}"
        ));
    }
    if let Some(Value::Object(axes)) = spec.get_mut("axes") {
        axes.retain(|axis, _| !is_within(axis, key));
    }
    let path = format!("base.{key}");
    set_spec_key(spec, &path, value)?;
    Ok(path)
}

fn set_spec_key(spec: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), String> {
    let Some((section @ ("base" | "axes"), rest)) = path.split_once('.') else {
        return set(sweep_keys(), spec, path, value);
    };
    let entry = spec
        .entry(section)
        .or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(map) = entry else {
        return Err(format!("`{section}` is `{entry}`, not a mapping"));
    };
    if section == "base" {
        return set(run_keys(), map, rest, value);
    }
    map.insert(rest.to_owned(), value);
    Ok(())
}
