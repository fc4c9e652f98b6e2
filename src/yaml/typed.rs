//! From a [`Document`] to a typed value, with serde's errors retold in terms of
//! the file: which key, which value, what is allowed, what was perhaps meant.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path as SerdePath, Segment};

use super::Document;
use super::error::{YamlError, child_path};
use crate::spelling::did_you_mean;

/// Deserialises the whole document.
///
/// Internally tagged enums are buffered by serde, which then reports the path
/// of the enum rather than of the entry inside it; the offending key or value is
/// searched there by the name serde's message gives.
pub fn from_document<T: DeserializeOwned>(document: &Document) -> Result<T, YamlError> {
    serde_path_to_error::deserialize(&document.value).map_err(|e| {
        let path = dotted(e.path());
        explain(document, &path, &e.inner().to_string())
    })
}

/// serde's path in the notation of [`Document::position`].
fn dotted(path: &SerdePath) -> String {
    path.iter()
        .fold(String::new(), |path, segment| match segment {
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } => child_path(&path, key),
            Segment::Unknown => path,
        })
}

/// Retells one of serde's messages, found at `path`.
fn explain(document: &Document, path: &str, message: &str) -> YamlError {
    let path = existing_prefix(document, path);
    let (problem, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if let Some(name) = quoted_after(problem, "unknown field ") {
        return unknown_key(document, path, name, expected);
    }
    if let Some(name) = quoted_after(problem, "missing field ") {
        let parent = if path.is_empty() {
            String::new()
        } else {
            format!(" in `{path}`")
        };
        return document.error(path, format!("missing key `{name}`{parent}"));
    }
    if let Some(name) = quoted_after(problem, "unknown variant ") {
        return unknown_variant(document, path, name, expected);
    }
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some(found) = problem.strip_prefix(kind) {
            let place = find_value(document, path, found);
            return document.error(&place, wrong_value(document, &place, expected));
        }
    }
    let message = match document.get(path).map(shown) {
        _ if path.is_empty() => message.to_owned(),
        Some(value) => format!("key `{path}`: value {value}: {message}"),
        None => format!("key `{path}`: {message}"),
    };
    document.error(path, message)
}

fn unknown_key(document: &Document, path: &str, name: &str, expected: &str) -> YamlError {
    // serde reports either the unknown key itself or (tagged enum) its parent.
    let place = if path == name || path.ends_with(&format!(".{name}")) {
        path.to_owned()
    } else {
        find(document, path, &|key, _| key == Some(name)).unwrap_or_else(|| path.to_owned())
    };
    let parent = place.strip_suffix(name).unwrap_or("");
    let parent = parent.strip_suffix('.').unwrap_or(parent);
    let within = if parent.is_empty() {
        String::new()
    } else {
        format!(" in `{parent}`")
    };
    let allowed = all_quoted(expected);
    let choice = if allowed.is_empty() {
        "; no key is allowed here".to_owned()
    } else {
        format!("; allowed: {}", allowed.join(", "))
    };
    let hint = did_you_mean(name, allowed.iter().copied());
    document.error_at_key(
        &place,
        format!("unknown key `{name}`{within}{choice}{hint}"),
    )
}

fn unknown_variant(document: &Document, path: &str, name: &str, expected: &str) -> YamlError {
    let place = find(document, path, &|_, value| value.as_str() == Some(name))
        .or_else(|| find(document, path, &|key, _| key == Some(name)))
        .unwrap_or_else(|| path.to_owned());
    let allowed = all_quoted(expected);
    let hint = did_you_mean(name, allowed.iter().copied());
    document.error(
        &place,
        format!(
            "{}value `{name}` is not allowed; allowed: {}{hint}",
            key_prefix(&place),
            allowed.join(", ")
        ),
    )
}

fn wrong_value(document: &Document, place: &str, expected: &str) -> String {
    let value = document.get(place).map_or_else(|| "nothing".into(), shown);
    format!(
        "{}value {value} is not allowed; expected {}",
        key_prefix(place),
        in_plain_words(expected)
    )
}

fn key_prefix(place: &str) -> String {
    if place.is_empty() {
        String::new()
    } else {
        format!("key `{place}`: ")
    }
}

/// The longest prefix of `path` that leads to a value in the document.
fn existing_prefix<'a>(document: &Document, path: &'a str) -> &'a str {
    let mut path = path;
    while document.get(path).is_none() {
        path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
    }
    path
}

/// Path of the value serde describes as `found`, at or below `path`.
fn find_value(document: &Document, path: &str, found: &str) -> String {
    let matches = |value: &Value| describe(value).iter().any(|d| found == d);
    find(document, path, &|_, value| matches(value)).unwrap_or_else(|| path.to_owned())
}

/// First entry at or below `path`, nearest to the top first, that `wanted`
/// accepts; it is given the entry's key (if it has one) and value.
fn find(
    document: &Document,
    path: &str,
    wanted: &dyn Fn(Option<&str>, &Value) -> bool,
) -> Option<String> {
    let mut level = vec![(path.to_owned(), None::<String>, document.get(path)?)];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (path, key, value) in level {
            if wanted(key.as_deref(), value) {
                return Some(path);
            }
            match value {
                Value::Object(map) => next.extend(
                    map.iter()
                        .map(|(k, v)| (child_path(&path, k), Some(k.clone()), v)),
                ),
                Value::Array(items) => next.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(i, v)| (format!("{path}[{i}]"), None, v)),
                ),
                _ => {}
            }
        }
        level = next;
    }
    None
}

/// How serde's messages describe a value (there may be more than one way).
fn describe(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec!["null".into(), "unit value".into(), "Option value".into()],
        Value::Bool(flag) => vec![format!("boolean `{flag}`")],
        Value::Number(n) if n.is_f64() => vec![
            format!("floating point `{n}`"),
            format!("floating point `{:?}`", n.as_f64().unwrap_or_default()),
        ],
        Value::Number(n) => vec![format!("integer `{n}`")],
        Value::String(text) => vec![format!("string {text:?}")],
        Value::Array(_) => vec!["sequence".into()],
        Value::Object(_) => vec!["map".into()],
    }
}

/// A value as one would write it, in backquotes, cut if it is long.
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Null => "(empty)".into(),
        other => other.to_string().into(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// serde's name of an expected type, for people.
fn in_plain_words(expected: &str) -> String {
    let whole = |from: i128, to: i128| format!("a whole number from {from} to {to}");
    match expected {
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" | "usize" => whole(0, u64::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "i64" => whole(i64::MIN.into(), i64::MAX.into()),
        "f32" | "f64" => "a number".into(),
        "a string" => "text".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping of keys to values".into(),
        other if other.starts_with("struct ") || other.starts_with("internally tagged enum ") => {
            "a mapping of keys to values".into()
        }
        other if other.starts_with("nonzero ") => "a positive whole number".into(),
        other => other.to_owned(),
    }
}

fn quoted_after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.strip_prefix(prefix)?
        .strip_prefix('`')?
        .strip_suffix('`')
}

fn all_quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
