//! Identity of a run: a hash of everything that determines its result.

use std::fmt::Write;

use serde_json::Value;

use super::RunConfig;

/// The identity of a resolved configuration: 32 hex digits of the blake3 hash of
/// its canonical JSON and of the (name, content hash) pairs of the data it draws
/// on, in any order.
pub fn run_id(config: &RunConfig, data_fingerprints: &[(String, String)]) -> String {
    let mut hasher = blake3::Hasher::new();
    // A configuration is plain data: serialising it cannot fail.
    let value = serde_json::to_value(config).unwrap_or_default();
    let mut text = String::with_capacity(2048);
    // What is not set is left out, so that a new optional key leaves identities as they
    // are.
    write_canonical(&value, is_set, &mut text);
    hasher.update(text.as_bytes());
    let mut fingerprints: Vec<_> = data_fingerprints.iter().collect();
    fingerprints.sort();
    for (name, hash) in fingerprints {
        hasher.update(format!("\n{name}={hash}").as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Neither null nor a mapping of nothing but such.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => map.values().any(is_set),
        _ => true,
    }
}

/// JSON without blanks, keys sorted: one text for one content.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, |_| true, &mut text);
    text
}

/// Writes `value`, of mappings those entries that `keep` says; a list as it is.
fn write_canonical(value: &Value, keep: fn(&Value) -> bool, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, inner)| keep(inner)).collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, inner)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_text(key, text);
                text.push(':');
                write_canonical(inner, keep, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, inner) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(inner, |_| true, text);
            }
            text.push(']');
        }
        Value::String(content) => write_text(content, text),
        // Writing to a text cannot fail.
        other => drop(write!(text, "{other}")),
    }
}

/// A JSON string; most have nothing in them to escape.
fn write_text(content: &str, text: &mut String) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if content.bytes().all(plain) {
        text.push('"');
        text.push_str(content);
        text.push('"');
    } else {
        *text += &Value::from(content).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::test_config;

    #[test]
    fn key_order_does_not_matter_and_content_does() {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        let a = parse(r#"{"b": [1, {"y": 2.5, "x": null}], "a": "q\"1"}"#);
        let b = parse(r#"{"a": "q\"1", "b": [1, {"x": null, "y": 2.5}]}"#);
        assert_eq!(
            canonical_json(&a),
            r#"{"a":"q\"1","b":[1,{"x":null,"y":2.5}]}"#
        );
        assert_eq!(canonical_json(&a), canonical_json(&b));
    }

    /// Pinned: identities are kept in result directories across versions.
    #[test]
    fn identities_are_stable_and_tell_configurations_apart() {
        let config = test_config();
        let hash = |name: &str, hash: &str| (name.to_owned(), hash.to_owned());
        let data = [hash("a", "1"), hash("b", "2")];
        let id = run_id(&config, &data);
        assert_eq!(id, "f5257d4f06084b9ee176b730c1a36a05");
        assert_eq!(id, run_id(&config, &[hash("b", "2"), hash("a", "1")]));
        assert_ne!(id, run_id(&config, &data[..1]));
        let mut other = config;
        other.seed += 1;
        assert_ne!(id, run_id(&other, &data));
    }
}
