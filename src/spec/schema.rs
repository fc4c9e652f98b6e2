//! The JSON schema of specifications, for editors to complete and check while
//! typing. Built from the same [`keys`](super::keys) that validation uses.

use serde_json::{Map, Value, json};

use super::keys::{Key, Shape, Variant, run_keys, sweep_keys};

/// The JSON schema (draft 2020-12) of sweep specifications.
pub fn sweep_schema() -> Value {
    let mut schema = object(sweep_keys(), true);
    let properties = &mut schema["properties"];
    // Axes may complete `base`, so nothing in it is required.
    let mut base = object(run_keys(), false);
    base["description"] = properties["base"]["description"].take();
    properties["base"] = base;
    let mut axes = axes(run_keys(), "");
    axes["description"] = properties["axes"]["description"].take();
    properties["axes"] = axes;
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("vidur-sweep specification");
    schema
}

fn object(keys: &[Key], with_required: bool) -> Value {
    let properties: Map<_, _> = keys
        .iter()
        .map(|key| (key.name.clone(), property(key)))
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if let Some(dotted) = dotted(keys) {
        schema["patternProperties"] = dotted;
    }
    let required: Vec<_> = keys
        .iter()
        .filter(|k| k.required)
        .map(|k| &k.name)
        .collect();
    if with_required && !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Keys within mappings, named with dots; what they hold is checked elsewhere.
fn dotted(keys: &[Key]) -> Option<Value> {
    let holds_keys = |key: &&Key| matches!(key.shape, Shape::Struct { .. } | Shape::Tagged { .. });
    let names = keys.iter().filter(holds_keys);
    let names: Vec<&str> = names.map(|key| key.name.as_str()).collect();
    (!names.is_empty()).then(|| json!({ format!("^({})\\.", names.join("|")): {} }))
}

fn property(key: &Key) -> Value {
    let mut schema = match &key.shape {
        Shape::Tagged { variants, .. } => tagged(variants, key.default_type.as_deref()),
        shape => self::shape(shape),
    };
    if key.nullable {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema["description"] = json!(key.doc);
    if let Some(default) = key.default.as_ref().filter(|d| !d.is_null()) {
        schema["default"] = default.clone();
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Struct { keys, shorthand } => match shorthand {
            None => object(keys, true),
            Some(_) => json!({"anyOf": [{"type": "string"}, object(keys, true)]}),
        },
        Shape::Tagged { variants, .. } => tagged(variants, None),
        Shape::Choice(words) => {
            let word = |w: &super::keys::Word| json!({"const": w.name, "description": w.doc});
            json!({"oneOf": words.iter().map(word).collect::<Vec<_>>()})
        }
        Shape::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Shape::Number(range) => {
            let mut schema = json!({"type": "number"});
            if let Some((min, excluded)) = range.min {
                schema[if excluded {
                    "exclusiveMinimum"
                } else {
                    "minimum"
                }] = json!(min);
            }
            if let Some((max, excluded)) = range.max {
                schema[if excluded {
                    "exclusiveMaximum"
                } else {
                    "maximum"
                }] = json!(max);
            }
            schema
        }
        Shape::Text => json!({"type": "string"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::List(inner) => json!({"type": "array", "items": self::shape(inner)}),
        Shape::Map(inner) => {
            json!({"type": "object", "additionalProperties": self::shape(inner)})
        }
        Shape::Either(shapes) => {
            json!({"anyOf": shapes.iter().map(self::shape).collect::<Vec<_>>()})
        }
        Shape::Any => json!({"type": "object"}),
    }
}

/// A mapping by its `type`, which may be left out where it is the default one, or the name
/// of a type that needs nothing else.
fn tagged(variants: &[Variant], default_type: Option<&str>) -> Value {
    let mapping = |variant: &Variant| {
        let mut schema = object(&variant.keys, true);
        schema["description"] = json!(variant.doc);
        schema["properties"]["type"] = json!({"const": variant.name});
        let mut required = Vec::new();
        if default_type != Some(&variant.name) {
            required.push(json!("type"));
        }
        if let Some(Value::Array(others)) = schema.get("required") {
            required.extend(others.iter().cloned());
        }
        schema["required"] = Value::Array(required);
        schema
    };
    let needs_nothing = |v: &&Variant| v.keys.iter().all(|key| !key.required);
    let names: Vec<_> = variants
        .iter()
        .filter(needs_nothing)
        .map(|v| &v.name)
        .collect();
    let mut choices: Vec<_> = variants.iter().map(mapping).collect();
    if !names.is_empty() {
        choices.insert(0, json!({"enum": names}));
    }
    json!({"anyOf": choices})
}

/// Lists of values by dotted key, or nested.
fn axes(keys: &[Key], prefix: &str) -> Value {
    let mut properties = Map::new();
    add_axes(keys, prefix, &mut properties);
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn add_axes(keys: &[Key], prefix: &str, properties: &mut Map<String, Value>) {
    for key in keys {
        let name = format!("{prefix}{}", key.name);
        let below = format!("{name}.");
        let values = json!({
            "type": "array",
            "minItems": 1,
            "items": property(key),
            "description": key.doc,
        });
        let nested = match &key.shape {
            Shape::Struct { keys, .. } => {
                add_axes(keys, &below, properties);
                Some(axes(keys, ""))
            }
            Shape::Tagged { variants, .. } => {
                let all: Vec<Key> = variants.iter().flat_map(|v| v.keys.clone()).collect();
                add_axes(&all, &below, properties);
                Some(axes(&all, ""))
            }
            _ => None,
        };
        let either = match nested {
            Some(nested) => json!({"anyOf": [values, nested], "description": key.doc}),
            None => values,
        };
        properties.entry(name).or_insert(either);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_can_complete_base_axes_and_shorthands() {
        let schema = sweep_schema();
        let properties = &schema["properties"];
        assert_eq!(schema["required"], json!(["name", "base"]));
        let ratio = &properties["base"]["properties"]["pd_node_ratio"];
        assert_eq!(
            (&ratio["exclusiveMinimum"], &ratio["maximum"]),
            (&json!(0.0), &json!(1.0))
        );
        assert!(properties["base"].get("required").is_none());
        let axes = &properties["axes"]["properties"];
        assert_eq!(
            axes["workload.arrivals.clients"]["items"]["type"],
            "integer"
        );
        let dotted = properties["base"]["patternProperties"].as_object().unwrap();
        let pattern = dotted.keys().next().unwrap();
        assert!(pattern.contains("|replica_scheduler|"), "{pattern}");
        assert_eq!(
            axes["workload"]["anyOf"][1]["properties"]["requests"]["type"],
            "array"
        );
        let scheduler = &properties["base"]["properties"]["replica_scheduler"];
        assert_eq!(
            scheduler["anyOf"][0]["anyOf"][0]["enum"],
            json!([
                "sarathi",
                "vllm",
                "split_wise",
                "orca",
                "faster_transformer",
                "lightllm"
            ])
        );
    }
}
