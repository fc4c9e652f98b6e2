//! Keys written with dots, brought into the form of nested mappings: `a.b: 1` and
//! `a: {b: 1}` are the same wherever a specification has keys of a run. A key that is
//! written both ways is an error, not a question of which counts.

use serde_json::{Map, Value};

use super::check::{Checker, Issue, child};
use super::keys::{Found, Key, Shape, expand_shorthand, find};

/// Writes the dotted keys of `map`, and of the mappings in it, out as mappings.
///
/// `map` is found at the dotted key `prefix` of mappings that have the keys `top` (empty:
/// it is one of them), and at `path` of the file. What cannot be written out is left out
/// and reported.
pub(super) fn nest(
    top: &[Key],
    prefix: &str,
    map: &mut Map<String, Value>,
    path: &str,
    issues: &mut Vec<Issue>,
) {
    if !has_dots(map) {
        return;
    }
    // Keys without dots first: they say what the others go into.
    let (plain, dotted): (Vec<_>, Vec<_>) = std::mem::take(map)
        .into_iter()
        .partition(|(key, _)| !key.contains('.'));
    for (key, mut value) in plain.into_iter().chain(dotted) {
        let (full, place) = (child(prefix, &key), child(path, &key));
        let found = find(top, &full);
        if let (Ok(found), Value::Object(inner)) = (&found, &mut value)
            && has_fixed_keys(found)
        {
            nest(top, &full, inner, &place, issues);
        }
        if !key.contains('.') {
            map.insert(key, value);
            continue;
        }
        let mut checker = Checker::default();
        match found {
            Err(missing) if !takes_any_key(top, &missing.parent) => {
                let allowed: Vec<_> = missing.allowed.iter().map(String::as_str).collect();
                let parent = missing.parent.strip_prefix(prefix).unwrap_or_default();
                let parent = child(path, parent.trim_start_matches('.'));
                let parent = parent.trim_end_matches('.');
                checker.unknown_key(parent, &missing.key, &allowed);
            }
            _ => {
                if let Err(problem) = put(top, prefix, map, &key, value) {
                    checker.refuse_key(&place, &problem);
                }
            }
        }
        issues.extend(checker.issues.into_iter().map(|issue| Issue {
            path: place.clone(),
            ..issue
        }));
    }
}

/// Whether a key of the mapping, or of one in it, is dotted.
fn has_dots(map: &Map<String, Value>) -> bool {
    map.iter().any(|(key, value)| {
        key.contains('.') || matches!(value, Value::Object(inner) if has_dots(inner))
    })
}

fn has_fixed_keys(found: &Found<'_>) -> bool {
    matches!(found.shape, Shape::Struct { .. } | Shape::Tagged { .. })
}

/// Whether the mapping at `parent` has keys that are not known here.
fn takes_any_key(top: &[Key], parent: &str) -> bool {
    let found = find(top, parent);
    found.is_ok_and(|found| matches!(found.shape, Shape::Map(_) | Shape::Any))
}

/// Puts `value` at the dotted `key` below `map`, which is at `prefix`.
fn put(
    top: &[Key],
    prefix: &str,
    map: &mut Map<String, Value>,
    key: &str,
    value: Value,
) -> Result<(), String> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let full = child(prefix, first);
    let entry = map.entry(first).or_insert(Value::Null);
    match (rest, &mut *entry) {
        (None, Value::Null) => *entry = value,
        (None, _) => merge(top, &full, entry, value)?,
        (Some(rest), _) => {
            if entry.is_null() {
                *entry = Value::Object(Map::new());
            }
            write_out(top, &full, entry);
            match entry {
                Value::Object(inner) => put(top, &full, inner, rest, value)?,
                other => return Err(format!("`{full}` is `{other}`, not a mapping")),
            }
        }
    }
    Ok(())
}

/// Adds the keys of one value of the key at `path` to another; anything that is there
/// already is a conflict.
fn merge(top: &[Key], path: &str, there: &mut Value, mut value: Value) -> Result<(), String> {
    write_out(top, path, there);
    write_out(top, path, &mut value);
    let (Value::Object(there), Value::Object(more)) = (there, value) else {
        return Err("is given twice, with dots and nested: keep one".to_owned());
    };
    for (key, value) in more {
        match there.get_mut(&key) {
            None => {
                there.insert(key, value);
            }
            Some(inner) => merge(top, &child(path, &key), inner, value)?,
        }
    }
    Ok(())
}

/// Writes out what stands for a mapping at `path`.
fn write_out(top: &[Key], path: &str, value: &mut Value) {
    if let Ok(found) = find(top, path)
        && let Some(mapping) = expand_shorthand(found.shape, value)
    {
        *value = mapping;
    }
}

/// Brings axes written as nested mappings into the form of dotted keys.
pub(super) fn flatten(nested: Map<String, Value>, issues: &mut Vec<Issue>) -> Map<String, Value> {
    let mut flat = Map::new();
    flatten_into("", nested, &mut flat, issues);
    flat
}

fn flatten_into(
    prefix: &str,
    nested: Map<String, Value>,
    flat: &mut Map<String, Value>,
    issues: &mut Vec<Issue>,
) {
    for (key, value) in nested {
        let path = child(prefix, &key);
        match value {
            Value::Object(inner) if !inner.is_empty() => flatten_into(&path, inner, flat, issues),
            _ if flat.contains_key(&path) => {
                let mut checker = Checker::default();
                let place = child("axes", &path);
                checker.refuse_key(&place, "is given twice, with dots and nested: keep one");
                issues.append(&mut checker.issues);
            }
            other => {
                flat.insert(path, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::keys::run_keys;

    fn nested(value: Value) -> Result<Value, Vec<String>> {
        let Value::Object(mut map) = value else {
            unreachable!("a mapping")
        };
        let mut issues = Vec::new();
        nest(run_keys(), "", &mut map, "base", &mut issues);
        match issues.is_empty() {
            true => Ok(Value::Object(map)),
            false => Err(issues.into_iter().map(|issue| issue.message).collect()),
        }
    }

    #[test]
    fn dotted_and_nested_keys_are_one() {
        let same = [
            json!({"prefill": {"replica_scheduler": {"type": "vllm", "batch_size_cap": 8}}}),
            json!({"prefill.replica_scheduler": "vllm", "prefill.replica_scheduler.batch_size_cap": 8}),
            json!({"prefill": {"replica_scheduler": "vllm", "replica_scheduler.batch_size_cap": 8}}),
            json!({"prefill.replica_scheduler.batch_size_cap": 8, "prefill": {"replica_scheduler": "vllm"}}),
            json!({"prefill.replica_scheduler": "vllm", "prefill": {"replica_scheduler.batch_size_cap": 8}}),
            json!({"prefill.replica_scheduler": {"batch_size_cap": 8}, "prefill.replica_scheduler.type": "vllm"}),
        ];
        for value in same.clone() {
            let mut found = nested(value).unwrap();
            let scheduler = &mut found["prefill"]["replica_scheduler"];
            scheduler.sort_all_objects();
            assert_eq!(*scheduler, json!({"batch_size_cap": 8, "type": "vllm"}));
        }
        let untouched = json!({"model": "./a.b.json", "engine": {"version": "0.24"}});
        assert_eq!(nested(untouched.clone()), Ok(untouched));
    }

    #[test]
    fn what_is_written_twice_or_unknown_is_refused() {
        let twice = [
            json!({"memory": {"block_size": 16}, "memory.block_size": 16}),
            json!({"replica_scheduler": "vllm", "replica_scheduler.type": "vllm"}),
            json!({"prefill": {"memory.block_size": 8, "memory": {"block_size": 16}}}),
            json!({"memory.block_size": 1, "memory": {"block_size": 2}}),
        ];
        for value in twice {
            let messages = nested(value.clone()).unwrap_err();
            assert!(
                messages[0].contains("is given twice"),
                "{value}: {messages:?}"
            );
        }
        let messages = nested(json!({"replica_schedular.chunk_size": 5})).unwrap_err();
        assert!(
            messages[0].starts_with("unknown key `replica_schedular` in `base`")
                && messages[0].ends_with("did you mean `replica_scheduler`?"),
            "{messages:?}"
        );
        let messages = nested(json!({"memory.blocksize": 5})).unwrap_err();
        assert!(
            messages[0].starts_with("unknown key `blocksize` in `base.memory`"),
            "{messages:?}"
        );
        let messages = nested(json!({"qps": 4, "qps.rate": 5})).unwrap_err();
        assert!(messages[0].contains("unknown key `rate`"), "{messages:?}");
        let messages = nested(json!({"memory": 4, "memory.block_size": 5})).unwrap_err();
        assert!(messages[0].contains("not a mapping"), "{messages:?}");
    }
}
