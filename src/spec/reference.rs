//! The reference of all keys in Markdown, as `docs/spec.md` contains it.

use serde_json::Value;

use super::columns::{latency_columns, objective_columns};
use super::keys::{Key, Shape, run_keys, sweep_keys};
use super::{DERIVED_NAMES, value_label};

/// Tables of every key of a specification: what it is, what is allowed, and
/// what holds where it is left out.
pub fn reference() -> String {
    let mut text = String::from("### Keys of a sweep\n\n");
    text += TABLE_HEADER;
    add_rows(sweep_keys(), "", &mut text);
    text += "\n### Keys of a run: `base`, `axes`, columns of a list\n\n";
    text += TABLE_HEADER;
    add_rows(run_keys(), "", &mut text);
    text +=
        "\n### Names in constraints besides the keys of a run\n\n| name | meaning |\n|---|---|\n";
    for (name, meaning) in DERIVED_NAMES {
        text += &format!("| `{name}` | {meaning} |\n");
    }
    text += "\n### Columns for `slo`\n\n";
    text += &list(latency_columns());
    text += "\n### Columns for `objectives`\n\n";
    text += &list(objective_columns());
    text
}

const TABLE_HEADER: &str = "| key | meaning | allowed | default |\n|---|---|---|---|\n";

fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{}.\n", quoted.join(", "))
}

fn add_rows(keys: &[Key], prefix: &str, text: &mut String) {
    for key in keys {
        let path = format!("{prefix}{}", key.name);
        let below = format!("{path}.");
        if let Some(other) = described_at_the_top(key, prefix) {
            *text += &row(&path, &key.doc, &format!("as `{other}`"), "");
            continue;
        }
        *text += &row(&path, &key.doc, &allowed(&key.shape), &default(key));
        match &key.shape {
            Shape::Struct { keys, .. } => add_rows(keys, &below, text),
            Shape::Tagged { variants, .. } => {
                for variant in variants {
                    let tag = format!("`type: {}`", variant.name);
                    *text += &row(&format!("{below}type"), &variant.doc, &tag, "");
                    add_rows(&variant.keys, &below, text);
                }
            }
            _ => {}
        }
    }
}

/// The run key of the same name and shape, where a pool overrides it.
fn described_at_the_top(key: &Key, prefix: &str) -> Option<&'static str> {
    let same = |top: &&Key| top.name == key.name && top.shape == key.shape;
    let top = run_keys().iter().find(same)?;
    let nested = !prefix.is_empty() && matches!(key.shape, Shape::Tagged { .. });
    nested.then_some(top.name.as_str())
}

fn row(path: &str, doc: &str, allowed: &str, default: &str) -> String {
    let plain = |text: &str| {
        text.replace("[`", "`")
            .replace("`]", "`")
            .replace('|', "\\|")
    };
    format!(
        "| `{path}` | {} | {} | {default} |\n",
        plain(doc),
        plain(allowed)
    )
}

fn allowed(shape: &Shape) -> String {
    match shape {
        Shape::Struct { shorthand, .. } => match shorthand {
            Some(key) => format!("a mapping, or its `{key}` alone"),
            None => "a mapping".to_owned(),
        },
        Shape::Tagged { .. } => "a mapping with `type`, or a type alone".to_owned(),
        Shape::Choice(words) => {
            let words: Vec<_> = words.iter().map(|w| format!("`{}`", w.name)).collect();
            words.join(", ")
        }
        Shape::Any => "a mapping".to_owned(),
        other => other.allowed(),
    }
}

fn default(key: &Key) -> String {
    match &key.default {
        _ if key.required => "required".to_owned(),
        None | Some(Value::Null) => String::new(),
        Some(Value::Object(map)) if map.values().all(|v| v.is_null() || v.is_object()) => {
            String::new()
        }
        Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(value) => format!("`{}`", value_label(value)),
    }
}
