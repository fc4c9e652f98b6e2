//! Writes values as YAML that [`super::parse`] reads back as they were:
//! mappings as blocks, short sequences in one line.

use serde_json::Value;

/// The text of a document.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_block(value, 0, &mut text),
        other => {
            text += &flow(other);
            text.push('\n');
        }
    }
    text
}

/// The entries of a non-empty mapping or sequence, one a line.
fn write_block(value: &Value, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                *text += &format!("{pad}{}:", scalar(key));
                write_inner(inner, indent + 2, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{pad}- {}\n", flow(item));
            }
        }
        other => *text += &format!("{pad}{}\n", flow(other)),
    }
}

/// A value after its key: on the same line, or as a block below.
fn write_inner(value: &Value, indent: usize, text: &mut String) {
    let nested = |items: &[Value]| items.iter().any(|item| item.is_object() || item.is_array());
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            write_block(value, indent, text);
        }
        Value::Array(items) if nested(items) => {
            text.push('\n');
            write_block(value, indent, text);
        }
        other => *text += &format!(" {}\n", flow(other)),
    }
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = map.iter();
            let entries = entries.map(|(key, inner)| format!("{}: {}", scalar(key), flow(inner)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text as it is where nothing else could be meant, else in quotes.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+".contains(c);
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let a_word = ["true", "false", "null", "yes", "no", "on", "off"];
    let is_word = a_word.contains(&text.to_ascii_lowercase().as_str());
    match starts_plain && text.chars().all(plain) && !is_word {
        true => text.to_owned(),
        // JSON strings are YAML strings.
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn assert_survives(value: &Value) {
        let text = to_text(value);
        let read = super::super::parse(&text, Path::new("t.yaml"));
        let read = read.unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(&read.value, value, "{text}");
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_survives(&json!({
            "name": "deep: seek #1",
            "seed": u64::MAX,
            "base": {"model": "llama-3-8b", "empty": {}, "none": null, "nested": {"a": {"b": 0.5}}},
            "axes": {
                "qps": [0.5, 1.0, 1e-9, 1e300],
                "replica_scheduler": [{"type": "sarathi", "chunk_size": 512}, "vllm"],
                "workload.lengths.file": ["data/a b.csv", "../c.csv"],
                "empty": [],
                "matrix": [[1, 2], []],
            },
            "constraints": ["total_gpus <= 64", "model == 'a\"b'", "", "- x", "true", "No", "1e3", "~"],
            "flag": true,
            "multi": "line one\nline two\ttab é",
        }));
        assert_survives(&json!([]));
        assert_survives(&json!({}));
    }

    #[test]
    fn it_reads_as_a_person_would_write_it() {
        let value = json!({"name": "a", "axes": {"qps": [1, 2]}, "slo": {"ttft_p90_s": 2.0}});
        let text = "name: a\naxes:\n  qps: [1, 2]\nslo:\n  ttft_p90_s: 2.0\n";
        assert_eq!(to_text(&value), text);
    }
}
