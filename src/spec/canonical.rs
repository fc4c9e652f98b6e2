//! Canonical JSON: no blanks, keys sorted, one text for one content.
//!
//! Numbers are written as `serde_json` writes them, whole ones in full. The canonical
//! form of RFC 8785 has doubles only, so that seeds above 2^53 would share a text.

use serde::Serialize;
use serde_json::Value;

/// `data` as canonical JSON, all of it.
pub fn canonical_json<T: Serialize + ?Sized>(data: &T) -> String {
    text_of(tree_of(data))
}

/// The same without what is not set: null, and mappings of nothing but such. Within a
/// list all stays.
pub(super) fn canonical_json_of_set<T: Serialize + ?Sized>(data: &T) -> String {
    let mut tree = tree_of(data);
    keep_set(&mut tree);
    text_of(tree)
}

fn tree_of<T: Serialize + ?Sized>(data: &T) -> Value {
    // Configurations are plain data: what is not has no text.
    serde_json::to_value(data).unwrap_or_default()
}

fn text_of(mut tree: Value) -> String {
    tree.sort_all_objects();
    tree.to_string()
}

/// Takes entries from mappings that are not set.
fn keep_set(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, inner| {
            keep_set(inner);
            !inner.is_null() && inner.as_object().is_none_or(|map| !map.is_empty())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    /// What has the canonical text, as serde_json writes it: keys in order, and only what
    /// is set.
    fn set_in_order(value: &Value, keeps_all: bool) -> Value {
        match value {
            Value::Object(map) => {
                let in_order: BTreeMap<_, _> = map.iter().collect();
                let kept = in_order
                    .into_iter()
                    .filter(|(_, inner)| keeps_all || is_set(inner));
                kept.map(|(key, inner)| (key.clone(), set_in_order(inner, keeps_all)))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Value::Array(items) => items.iter().map(|item| set_in_order(item, true)).collect(),
            other => other.clone(),
        }
    }

    fn is_set(value: &Value) -> bool {
        match value {
            Value::Null => false,
            Value::Object(map) => map.values().any(is_set),
            _ => true,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\"\\\\\n ü]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let items = proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let entries = proptest::collection::vec(("[a-c]{1,3}", inner), 0..5);
            let map = |entries: Vec<(String, Value)>| Value::Object(entries.into_iter().collect());
            prop_oneof![items, entries.prop_map(map)]
        })
    }

    proptest! {
        #[test]
        fn text_is_that_of_the_tree_in_order(value in json()) {
            prop_assert_eq!(canonical_json(&value), set_in_order(&value, true).to_string());
            prop_assert_eq!(canonical_json_of_set(&value), set_in_order(&value, false).to_string());
        }
    }

    #[test]
    fn key_order_does_not_matter() {
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        let a = parse(r#"{"b": [1, {"y": 2.5, "x": null}], "a": "q\"1"}"#);
        let b = parse(r#"{"a": "q\"1", "b": [1, {"x": null, "y": 2.5}]}"#);
        assert_eq!(
            canonical_json(&a),
            r#"{"a":"q\"1","b":[1,{"x":null,"y":2.5}]}"#
        );
        assert_eq!(canonical_json(&a), canonical_json(&b));
    }

    #[test]
    fn what_is_not_set_is_left_out_but_of_lists() {
        let value = json!({
            "b": {"y": null, "x": {}},
            "a": [null, {"z": null, "y": {}}],
            "d": {"y": null, "x": 18446744073709551615u64},
            "c": null,
        });
        assert_eq!(
            canonical_json_of_set(&value),
            r#"{"a":[null,{"y":{},"z":null}],"d":{"x":18446744073709551615}}"#
        );
        assert_eq!(canonical_json_of_set(&json!({"a": {"b": null}})), "{}");
        assert_eq!(canonical_json(&f64::NAN), "null");
    }
}
