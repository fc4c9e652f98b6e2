//! Overrides from the command line: `path.to.key=value`, applied to the file's
//! content before it is checked.

use std::path::Path;

use serde_json::{Map, Value};

use super::expand::check_tag;
use super::keys::{run_keys, set, sweep_keys};
use super::places::{SetPaths, is_within};
use super::{SpecError, SpecErrors};
use crate::spelling::did_you_mean;

/// What was overridden, for messages about it.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Paths of the file that were set, and what messages call the overrides.
    pub(super) set: SetPaths,
    /// Run keys that are the same for all runs.
    pinned: Vec<String>,
}

impl Overrides {
    /// Applies overrides in order. A path starts with a key of the file
    /// (`base.qps`, `seed`), or is a run key (`qps`), which then is pinned for
    /// all runs: set in `base` and taken from the axes.
    pub fn apply(spec: &mut Map<String, Value>, arguments: &[String]) -> Result<Self, SpecErrors> {
        let mut overrides = Self::default();
        let mut errors = Vec::new();
        for argument in arguments {
            match overrides.apply_one(spec, argument) {
                Ok(path) => overrides.set.add(path, label(argument)),
                Err(message) => errors.push(SpecError::at(label(argument), message)),
            }
        }
        match errors.is_empty() {
            true => Ok(overrides),
            false => Err(SpecErrors(errors)),
        }
    }

    /// Applies one override; returns the path that was set.
    fn apply_one(
        &mut self,
        spec: &mut Map<String, Value>,
        argument: &str,
    ) -> Result<String, String> {
        let Some((key, text)) = argument.split_once('=') else {
            return Err("an override is KEY=VALUE, such as qps=5 or slo.ttft_p90_s=1.5".to_owned());
        };
        let (key, text) = (key.trim(), text.trim());
        if key.is_empty() {
            return Err("no key before `=`; an override is KEY=VALUE, such as qps=5".to_owned());
        }
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
        self.pinned.push(key.to_owned());
        if let Some(Value::Object(axes)) = spec.get_mut("axes") {
            axes.retain(|axis, _| !is_within(axis, key));
            // What such an axis tries replaces what `base` has: the key is set in it, too.
            for (axis, values) in axes.iter_mut().filter(|(axis, _)| is_within(key, axis)) {
                let values = values.as_array_mut().into_iter().flatten();
                values.for_each(|tried| set_in_value(axis, tried, key, &value));
            }
        }
        let path = format!("base.{key}");
        set_spec_key(spec, &path, value)?;
        Ok(path)
    }

    /// Run keys that are the same for all runs, in the order of the arguments.
    pub fn pinned(&self) -> &[String] {
        &self.pinned
    }
}

fn label(argument: &str) -> String {
    format!("--set {argument}")
}

/// Sets a run key in a value of the key `holder`, which holds it; where that value is of a
/// type that does not have the key, nothing is to be set.
pub(super) fn set_in_value(holder: &str, holding: &mut Value, key: &str, value: &Value) {
    let mut map = Map::new();
    // `set` goes by paths from the top.
    if set(run_keys(), &mut map, holder, holding.clone()).is_err()
        || set(run_keys(), &mut map, key, value.clone()).is_err()
    {
        return;
    }
    let has_key = check_tag(&map, key).is_ok();
    let mut path = holder.split('.');
    let at_holder = path.try_fold(Value::Object(map), |mut map, key| {
        Some(map.get_mut(key)?.take())
    });
    let Some(mut changed) = at_holder else {
        return;
    };
    if !has_key {
        remove(&mut changed, &key[holder.len() + 1..]);
    }
    *holding = changed;
}

/// Takes a dotted key out again.
fn remove(value: &mut Value, key: &str) {
    match key.split_once('.') {
        Some((first, rest)) => {
            if let Some(inner) = value.get_mut(first) {
                remove(inner, rest);
            }
        }
        None => {
            if let Value::Object(map) = value {
                map.shift_remove(key);
            }
        }
    }
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
    match value {
        // An axis without values is none.
        Value::Null => drop(map.shift_remove(rest)),
        values => drop(map.insert(rest.to_owned(), values)),
    }
    Ok(())
}
