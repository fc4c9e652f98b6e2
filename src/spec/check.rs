//! Checks a value against its [`Shape`], finding everything wrong with it, and
//! brings it into one form: shorthands written out, whole numbers and decimals
//! told apart by the key rather than by how they were typed.

use serde_json::{Map, Value};

use super::keys::{Found, Key, Shape, Variant, expand_shorthand, only_type};
use crate::number::whole_u64;
use crate::spelling::did_you_mean;
use crate::yaml::shown;

/// One thing wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Dotted path of the value.
    pub path: String,
    /// What kind of thing.
    pub kind: IssueKind,
    /// The sentence that says what is wrong and what is allowed.
    pub message: String,
}

/// Kinds of [`Issue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueKind {
    /// A key nobody knows; `path` is the key's.
    UnknownKey,
    /// A required key is not there; `path` is the key's.
    MissingKey,
    /// A value that is not allowed.
    Value,
}

/// Collects issues while walking a value.
#[derive(Debug, Default)]
pub struct Checker {
    /// What was found.
    pub issues: Vec<Issue>,
}

impl Checker {
    /// Checks the entries of a mapping with fixed keys.
    pub fn map(&mut self, keys: &[Key], map: &mut Map<String, Value>, path: &str) {
        let all: Vec<&Key> = keys.iter().collect();
        self.entries(&all, map, path, false);
        self.missing(keys, map, path);
    }

    /// Checks the value of a key that was found.
    pub fn found(&mut self, found: &Found<'_>, value: &mut Value, path: &str) {
        self.value_of(found.shape, found.default_type, value, path);
    }

    /// Checks one value of any shape.
    fn value(&mut self, shape: &Shape, value: &mut Value, path: &str) {
        self.value_of(shape, None, value, path);
    }

    fn value_of(
        &mut self,
        shape: &Shape,
        default_type: Option<&str>,
        value: &mut Value,
        path: &str,
    ) {
        if let Some(expanded) = expand_shorthand(shape, value) {
            *value = expanded;
        }
        match (shape, &mut *value) {
            (Shape::Any, _) | (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => {}
            (Shape::Struct { keys, .. }, Value::Object(map)) => self.map(keys, map, path),
            (Shape::Tagged { variants, .. }, Value::Object(map)) => {
                self.tagged(variants, default_type, map, path)
            }
            (Shape::Choice(words), Value::String(word)) => {
                if !words.iter().any(|w| w.name == *word) {
                    let names = words.iter().map(|w| w.name.as_str());
                    let hint = did_you_mean(word, names);
                    self.refuse(shape, value, path, &hint);
                }
            }
            (Shape::Integer { min, max }, Value::Number(_)) => match as_whole(value) {
                Some(whole) if (*min..=*max).contains(&whole) => *value = whole.into(),
                _ => self.refuse(shape, value, path, ""),
            },
            (Shape::Number(range), Value::Number(number)) => match number.as_f64() {
                Some(x) if range.contains(x) => *value = x.into(),
                _ => self.refuse(shape, value, path, ""),
            },
            (Shape::List(inner), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(inner, item, &format!("{path}[{index}]"));
                }
            }
            (Shape::Map(inner), Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    self.value(inner, item, &child(path, key));
                }
            }
            (Shape::Either(shapes), _) => {
                let fits = shapes.iter().find_map(|shape| {
                    let (mut trial, mut fitting) = (Self::default(), value.clone());
                    trial.value(shape, &mut fitting, path);
                    trial.issues.is_empty().then_some(fitting)
                });
                match fits {
                    Some(fitting) => *value = fitting,
                    None => self.refuse(shape, value, path, ""),
                }
            }
            (Shape::Text, Value::Number(_) | Value::Bool(_)) => {
                self.refuse(shape, value, path, ": write it in quotes");
            }
            _ => self.refuse(shape, value, path, ""),
        }
    }

    /// Records that `key`, in the mapping at `parent`, is none of `allowed`.
    pub fn unknown_key(&mut self, parent: &str, key: &str, allowed: &[&str]) {
        let within = match parent {
            "" => String::new(),
            parent => format!(" in `{parent}`"),
        };
        let choice = if allowed.is_empty() {
            "no key is allowed here".to_owned()
        } else {
            format!("allowed: {}", allowed.join(", "))
        };
        let hint = did_you_mean(key, allowed.iter().copied());
        let message = format!("unknown key `{key}`{within}; {choice}{hint}");
        self.add(child(parent, key), IssueKind::UnknownKey, message);
    }

    /// Records what is wrong with the key at `path` itself.
    pub fn refuse_key(&mut self, path: &str, problem: &str) {
        let message = format!("key `{path}`: {problem}");
        self.add(path.to_owned(), IssueKind::UnknownKey, message);
    }

    /// Records that the key at `path` is none of those allowed, in the caller's words.
    pub fn refuse_name(&mut self, path: &str, message: &str) {
        self.add(path.to_owned(), IssueKind::UnknownKey, message.to_owned());
    }

    /// Records what is wrong with the value of the key at `path`.
    pub fn refuse_value(&mut self, path: &str, problem: &str) {
        let message = format!("key `{path}`: {problem}");
        self.add(path.to_owned(), IssueKind::Value, message);
    }

    /// Records a value that is not allowed.
    pub fn refuse(&mut self, shape: &Shape, value: &Value, path: &str, hint: &str) {
        let allowed = shape.allowed();
        self.refuse_with(value, path, &format!("allowed is {allowed}{hint}"));
    }

    /// Records a value that is not allowed, saying so in the caller's words.
    pub fn refuse_with(&mut self, value: &Value, path: &str, allowed: &str) {
        let message = format!(
            "key `{path}`: value {} is not allowed; {allowed}",
            shown(value)
        );
        self.add(path.to_owned(), IssueKind::Value, message);
    }

    fn add(&mut self, path: String, kind: IssueKind, message: String) {
        self.issues.push(Issue {
            path,
            kind,
            message,
        });
    }

    fn entries(&mut self, keys: &[&Key], map: &mut Map<String, Value>, path: &str, tagged: bool) {
        for (name, value) in map.iter_mut() {
            let Some(key) = keys.iter().find(|key| key.name == *name) else {
                if !(tagged && name == "type") {
                    let mut allowed: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
                    if tagged {
                        allowed.insert(0, "type");
                    }
                    self.unknown_key(path, name, &allowed);
                }
                continue;
            };
            if !(key.nullable && value.is_null()) {
                let default_type = key.default_type.as_deref();
                self.value_of(&key.shape, default_type, value, &child(path, name));
            }
        }
    }

    fn missing(&mut self, keys: &[Key], map: &Map<String, Value>, path: &str) {
        for key in keys.iter().filter(|key| key.required) {
            if !map.contains_key(&key.name) {
                let within = match path {
                    "" => String::new(),
                    path => format!(" in `{path}`"),
                };
                let message = format!(
                    "missing key `{}`{within}: {} Allowed is {}",
                    key.name,
                    key.doc,
                    key.shape.allowed()
                );
                self.add(child(path, &key.name), IssueKind::MissingKey, message);
            }
        }
    }

    fn tagged(
        &mut self,
        variants: &[Variant],
        default_type: Option<&str>,
        map: &mut Map<String, Value>,
        path: &str,
    ) {
        if let (None, None, Some(only)) = (map.get("type"), default_type, only_type(variants, map))
        {
            map.insert("type".to_owned(), only.into());
        }
        let names: Vec<_> = variants.iter().map(|v| v.name.as_str()).collect();
        let chosen = match map.get("type") {
            Some(Value::String(name)) => variants.iter().find(|v| v.name == *name),
            _ => None,
        };
        if let Some(variant) = chosen {
            let keys: Vec<&Key> = variant.keys.iter().collect();
            self.entries(&keys, map, path, true);
            self.missing(&variant.keys, map, path);
            return;
        }
        match map.get("type") {
            Some(tag) => {
                let hint = tag.as_str().map(|t| did_you_mean(t, names.iter().copied()));
                let hint = hint.unwrap_or_default();
                let allowed = format!("allowed is one of {}{hint}", names.join(", "));
                self.refuse_with(&tag.clone(), &child(path, "type"), &allowed);
            }
            None => {
                // By default it has one, which other keys may decide.
                if default_type.is_none() {
                    let message = format!(
                        "missing key `type` in `{path}`; allowed is one of {}",
                        names.join(", ")
                    );
                    self.add(child(path, "type"), IssueKind::MissingKey, message);
                }
                let keys: Vec<&Key> = variants.iter().flat_map(|v| &v.keys).collect();
                self.entries(&keys, map, path, true);
            }
        }
    }
}

/// `parent.key`, or `key` at the top.
pub fn child(parent: &str, key: &str) -> String {
    crate::yaml::child_path(parent, key)
}

/// The whole number a JSON number stands for: data frames write `4.0` where a
/// column of whole numbers has gaps.
fn as_whole(value: &Value) -> Option<u64> {
    let exact = value
        .as_f64()
        .filter(|v| v.fract() == 0.0 && *v >= 0.0 && *v < 2f64.powi(53));
    value.as_u64().or_else(|| exact.map(whole_u64))
}
