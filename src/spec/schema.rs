//! The JSON schema of specifications, for editors to complete and check while
//! typing. Built from the same [`keys`](super::keys) that validation uses.
//!
//! What is in several places stands once, under `$defs`: mappings, choices and the
//! lists of an axis are references to it.

use serde_json::{Map, Value, json};

use super::columns::{is_share, metric_of, objective_columns, target_columns, usual_side};
use super::keys::{
    Key, Shape, Variant, Word, find_run_key, request_slo_keys, run_key_paths, run_keys, sweep_keys,
};

/// The JSON schema (draft 2020-12) of sweep specifications.
pub fn sweep_schema() -> Value {
    let mut definitions = Definitions::default();
    // Axes may complete `base`, so nothing in it is required.
    let run = definitions.object(run_keys(), "", false);
    definitions.insert("run", None, run);
    let axes = definitions.axes();
    definitions.insert("axes", None, axes);
    let number = |range: Value| {
        let mut number = json!({"type": "number"});
        if let (Some(number), Value::Object(range)) = (number.as_object_mut(), range) {
            number.extend(range);
        }
        number
    };
    for (name, range, alone) in [
        ("seconds", json!({"exclusiveMinimum": 0}), true),
        ("share", json!({"minimum": 0, "maximum": 1}), true),
        ("limit", json!({"minimum": 0}), true),
        ("sides", json!({"minimum": 0}), false),
    ] {
        definitions.insert(name, None, limits(&number(range), alone));
    }
    let per_request = definitions.object(request_slo_keys(), "slo.per_request.", true);
    definitions.insert("objective", None, objective());

    let mut schema = definitions.object(sweep_keys(), "sweep.", true);
    let properties = &mut schema["properties"];
    let mut refer = |key: &str, definition: &str| {
        let doc = properties[key]["description"].take();
        properties[key] = json!({"$ref": pointer(definition), "description": doc});
    };
    refer("base", "run");
    refer("axes", "axes");
    properties["slo"] = slo(properties["slo"]["description"].take(), per_request);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("vidur-sweep specification");
    let mut named: Map<String, Value> = Map::new();
    for (name, _, definition) in definitions.0 {
        named.insert(name, definition);
    }
    if let Some(objectives) = named.get_mut("sweep.objectives") {
        for direction in ["maximize", "minimize"] {
            objectives["properties"][direction]["items"] = json!({"$ref": pointer("objective")});
        }
    }
    schema["$defs"] = Value::Object(named);
    schema
}

/// Targets: columns and their limits, and what each request is to keep.
fn slo(doc: Value, per_request: Value) -> Value {
    let limit = |column: &str| match (metric_of(column), is_share(column), usual_side(column)) {
        (Some(_), ..) => "seconds",
        (_, true, _) => "share",
        (_, _, Some(_)) => "limit",
        (_, _, None) => "sides",
    };
    let mut targets: Map<String, Value> = target_columns()
        .into_iter()
        .map(|column| {
            let definition = pointer(limit(&column));
            (column, json!({"$ref": definition}))
        })
        .collect();
    targets.insert("per_request".to_owned(), per_request);
    json!({
        "type": "object",
        "properties": targets,
        // Keys of a run that are numbers.
        "additionalProperties": {"$ref": pointer("sides")},
        "propertyNames": {"anyOf": [{"$ref": pointer("objective")}, {"const": "per_request"}]},
        "description": doc,
    })
}

/// Limits of a column: a number alone, unless the side does not go without saying, or
/// those on the sides named.
fn limits(number: &Value, alone: bool) -> Value {
    let sides = json!({
        "type": "object",
        "properties": {"min": number, "max": number},
        "additionalProperties": false,
        "minProperties": 1,
    });
    match alone {
        true => json!({"anyOf": [number, sides]}),
        false => sides,
    }
}

/// Keys of a run that are numbers.
fn number_keys() -> impl Iterator<Item = String> {
    let is_number = |path: &&String| {
        let shape = find_run_key(path).map(|found| found.shape);
        matches!(shape, Ok(Shape::Integer { .. } | Shape::Number(_)))
    };
    run_key_paths().iter().filter(is_number).cloned()
}

/// Columns that can be large or small: of the summary, and axes.
fn objective() -> Value {
    let mut columns = objective_columns().to_vec();
    for key in number_keys() {
        if !columns.contains(&key) {
            columns.push(key);
        }
    }
    json!({"enum": columns})
}

fn pointer(definition: &str) -> String {
    format!("#/$defs/{definition}")
}

/// Keys within mappings, named with dots; what they hold is checked elsewhere.
fn dotted(keys: &[Key]) -> Option<Value> {
    let holds_keys = |key: &&Key| matches!(key.shape, Shape::Struct { .. } | Shape::Tagged { .. });
    let names = keys.iter().filter(holds_keys);
    let names: Vec<&str> = names.map(|key| key.name.as_str()).collect();
    (!names.is_empty()).then(|| json!({ format!("^({})\\.", names.join("|")): {} }))
}

/// Definitions so far: name, what it is of, if it is of values, and schema.
#[derive(Default)]
struct Definitions(Vec<(String, Option<Of>, Value)>);

/// Values that have a definition: their shape, and the type of a mapping that names none.
type Of = (Shape, Option<String>);

impl Definitions {
    fn insert(&mut self, name: &str, of: Option<Of>, schema: Value) {
        self.0.push((name.to_owned(), of, schema));
    }

    /// Name of the definition of some values, if there is one.
    fn find(&self, shape: &Shape, default_type: Option<&str>) -> Option<&str> {
        let is_it = |of: &Of| of.0 == *shape && of.1.as_deref() == default_type;
        let mut definitions = self.0.iter();
        let (name, ..) = definitions.find(|(_, of, _)| of.as_ref().is_some_and(is_it))?;
        Some(name)
    }

    /// Name of the definition of a shape that is worth one, made if there is none yet.
    fn of_shape(
        &mut self,
        shape: &Shape,
        default_type: Option<&str>,
        path: &str,
    ) -> Option<String> {
        if !matches!(
            shape,
            Shape::Struct { .. } | Shape::Tagged { .. } | Shape::Choice(_)
        ) {
            return None;
        }
        if let Some(name) = self.find(shape, default_type) {
            return Some(name.to_owned());
        }
        let schema = self.whole(shape, default_type, path);
        let of = (shape.clone(), default_type.map(str::to_owned));
        self.insert(path, Some(of), schema);
        Some(path.to_owned())
    }

    /// A reference to a shape's definition, or the whole of a small one.
    fn shape(&mut self, shape: &Shape, default_type: Option<&str>, path: &str) -> Value {
        match self.of_shape(shape, default_type, path) {
            Some(name) => json!({"$ref": pointer(&name)}),
            None => self.whole(shape, default_type, path),
        }
    }

    fn whole(&mut self, shape: &Shape, default_type: Option<&str>, path: &str) -> Value {
        let below = format!("{path}.");
        match shape {
            Shape::Struct { keys, shorthand } => match shorthand {
                None => self.object(keys, &below, true),
                Some(_) => {
                    json!({"anyOf": [{"type": "string"}, self.object(keys, &below, true)]})
                }
            },
            Shape::Tagged { variants, .. } => self.tagged(variants, default_type, &below),
            Shape::Choice(words) => {
                let word = |w: &Word| json!({"const": w.name, "description": w.doc});
                json!({"oneOf": words.iter().map(word).collect::<Vec<_>>()})
            }
            Shape::Integer { min, max } => {
                json!({"type": "integer", "minimum": min, "maximum": max})
            }
            Shape::Number(range) => {
                let mut schema = json!({"type": "number"});
                let mut bound = |names: [&str; 2], bound: Option<(f64, bool)>| {
                    if let Some((bound, excluded)) = bound {
                        schema[names[usize::from(excluded)]] = json!(bound);
                    }
                };
                bound(["minimum", "exclusiveMinimum"], range.min);
                bound(["maximum", "exclusiveMaximum"], range.max);
                schema
            }
            Shape::Text => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::List(inner) => json!({"type": "array", "items": self.shape(inner, None, path)}),
            Shape::Map(inner) => {
                json!({"type": "object", "additionalProperties": self.shape(inner, None, path)})
            }
            Shape::Either(shapes) => {
                let either = shapes.iter().enumerate();
                let either =
                    either.map(|(i, shape)| self.shape(shape, None, &format!("{below}{i}")));
                json!({"anyOf": either.collect::<Vec<_>>()})
            }
            Shape::Any => json!({"type": "object"}),
        }
    }

    fn object(&mut self, keys: &[Key], prefix: &str, with_required: bool) -> Value {
        let properties: Map<_, _> = keys
            .iter()
            .map(|key| (key.name.clone(), self.property(key, prefix)))
            .collect();
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if let Some(dotted) = dotted(keys) {
            schema["patternProperties"] = dotted;
        }
        let required = keys.iter().filter(|key| key.required);
        let required: Vec<_> = required.map(|key| &key.name).collect();
        if with_required && !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn property(&mut self, key: &Key, prefix: &str) -> Value {
        let path = format!("{prefix}{}", key.name);
        let mut schema = self.shape(&key.shape, key.default_type.as_deref(), &path);
        if key.nullable {
            schema = match schema.get("type").cloned() {
                Some(kind @ Value::String(_)) => {
                    schema["type"] = json!([kind, "null"]);
                    schema
                }
                _ => json!({"anyOf": [schema, {"type": "null"}]}),
            };
        }
        schema["description"] = json!(key.doc);
        if let Some(default) = key.default.as_ref().filter(|d| !d.is_null()) {
            schema["default"] = default.clone();
        }
        schema
    }

    /// A mapping by its `type`, which may be left out where it is the default one, or the
    /// name of a type that needs nothing else.
    fn tagged(&mut self, variants: &[Variant], default_type: Option<&str>, prefix: &str) -> Value {
        let mut choices = Vec::new();
        let needs_nothing = |v: &&Variant| v.keys.iter().all(|key| !key.required);
        let names = variants.iter().filter(needs_nothing);
        let names: Vec<_> = names.map(|variant| &variant.name).collect();
        if !names.is_empty() {
            choices.push(json!({"enum": names}));
        }
        for variant in variants {
            let mut schema = self.object(&variant.keys, prefix, true);
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
            choices.push(schema);
        }
        json!({"anyOf": choices})
    }

    /// Lists of values by dotted key, or nested.
    fn axes(&mut self) -> Value {
        let mut properties = Map::new();
        let place = format!("{}/properties", pointer("run"));
        self.add_axes(run_keys(), &place, &mut properties);
        for key in run_keys() {
            self.add_dotted(key, &key.name, &mut properties);
        }
        json!({"type": "object", "properties": properties, "additionalProperties": false})
    }

    /// Lists of the values of `keys`, whose own schemas are at `place`.
    fn add_axes(&mut self, keys: &[Key], place: &str, properties: &mut Map<String, Value>) {
        for key in keys {
            let value = format!("{place}/{}", key.name);
            let values = json!({"type": "array", "minItems": 1, "items": {"$ref": value}});
            let axis = match self.nested_axes(&key.shape, key.default_type.as_deref()) {
                Some(nested) => json!({"anyOf": [values, {"$ref": pointer(&nested)}]}),
                None => values,
            };
            properties.entry(key.name.clone()).or_insert(axis);
        }
    }

    /// Name of the definition of axes over keys within a shape.
    fn nested_axes(&mut self, shape: &Shape, default_type: Option<&str>) -> Option<String> {
        // Definitions of values come before those of axes over them.
        let defined = self.find(shape, default_type)?;
        let (name, place) = (format!("axes.{defined}"), pointer(defined));
        if self.0.iter().any(|(other, ..)| *other == name) {
            return Some(name);
        }
        let mut properties = Map::new();
        match shape {
            Shape::Struct { keys, shorthand } => {
                let object = if shorthand.is_some() { "/anyOf/1" } else { "" };
                self.add_axes(
                    keys,
                    &format!("{place}{object}/properties"),
                    &mut properties,
                );
            }
            Shape::Tagged { variants, .. } => {
                let names: Vec<_> = variants.iter().map(|variant| &variant.name).collect();
                let types = json!({"type": "array", "minItems": 1, "items": {"enum": names}});
                properties.insert("type".to_owned(), types);
                let has_names = variants
                    .iter()
                    .any(|v| v.keys.iter().all(|key| !key.required));
                for (position, variant) in variants.iter().enumerate() {
                    let choice = position + usize::from(has_names);
                    let place = format!("{place}/anyOf/{choice}/properties");
                    self.add_axes(&variant.keys, &place, &mut properties);
                }
            }
            _ => return None,
        }
        let axes =
            json!({"type": "object", "properties": properties, "additionalProperties": false});
        self.insert(&name, None, axes);
        Some(name)
    }

    /// The same axes by dotted keys, as references to the nested ones.
    fn add_dotted(&mut self, key: &Key, prefix: &str, properties: &mut Map<String, Value>) {
        let shape = &key.shape;
        let Some(nested) = self.nested_axes(shape, key.default_type.as_deref()) else {
            return;
        };
        let place = format!("{}/properties", pointer(&nested));
        let keys: Vec<Key> = match shape {
            Shape::Struct { keys, .. } => keys.clone(),
            Shape::Tagged { variants, .. } => {
                let reference = json!({"$ref": format!("{place}/type")});
                properties
                    .entry(format!("{prefix}.type"))
                    .or_insert(reference);
                variants.iter().flat_map(|v| v.keys.clone()).collect()
            }
            _ => Vec::new(),
        };
        for key in keys {
            let path = format!("{prefix}.{}", key.name);
            let reference = json!({"$ref": format!("{place}/{}", key.name)});
            properties.entry(path.clone()).or_insert(reference);
            self.add_dotted(&key, &path, properties);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `schema` is once references are followed.
    fn followed<'a>(whole: &'a Value, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            None => schema,
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("within the schema");
                let found = whole.pointer(pointer);
                followed(
                    whole,
                    found.unwrap_or_else(|| panic!("nothing at {reference}")),
                )
            }
        }
    }

    fn references<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
        match schema {
            Value::Object(map) => {
                if map.contains_key("$ref") {
                    found.push(schema);
                }
                map.values().for_each(|inner| references(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn editors_can_complete_base_axes_and_shorthands() {
        let schema = sweep_schema();
        let properties = &schema["properties"];
        assert_eq!(schema["required"], json!(["name", "base"]));
        let base = followed(&schema, &properties["base"]);
        let ratio = &base["properties"]["pd_node_ratio"];
        assert_eq!(
            (&ratio["exclusiveMinimum"], &ratio["maximum"]),
            (&json!(0.0), &json!(1.0))
        );
        assert!(base.get("required").is_none());
        let axes = followed(&schema, &properties["axes"]);
        let clients = followed(&schema, &axes["properties"]["workload.arrivals.clients"]);
        assert_eq!(clients["type"], "array");
        assert_eq!(followed(&schema, &clients["items"])["type"], "integer");
        let dotted = base["patternProperties"].as_object().expect("dotted keys");
        let pattern = dotted.keys().next().expect("a pattern");
        assert!(pattern.contains("|replica_scheduler|"), "{pattern}");
        let nested = followed(&schema, &axes["properties"]["workload"]["anyOf"][1]);
        assert_eq!(nested["properties"]["requests"]["type"], "array");
        let scheduler = &base["properties"]["replica_scheduler"]["anyOf"][0];
        assert_eq!(
            followed(&schema, scheduler)["anyOf"][0]["enum"],
            json!([
                "sarathi",
                "vllm",
                "split_wise",
                "orca",
                "faster_transformer",
                "lightllm"
            ])
        );
        // A dotted key for every key of a run.
        for path in run_key_paths() {
            assert!(axes["properties"].get(path).is_some(), "{path}");
        }
    }

    #[test]
    fn columns_are_known_by_name() {
        let schema = sweep_schema();
        let slo = &schema["properties"]["slo"]["properties"];
        let alone = |column: &str| followed(&schema, &slo[column])["anyOf"][0].clone();
        assert_eq!(alone("ttft_p90_s")["exclusiveMinimum"], 0);
        assert_eq!(alone("slo_attainment")["maximum"], 1);
        assert_eq!(alone("throughput_requests_per_s")["minimum"], 0);
        // A number alone says nothing of GPUs.
        let gpus = followed(&schema, &slo["total_gpus"]);
        assert_eq!(gpus["properties"]["max"]["minimum"], 0);
        assert!(slo.get("ttft_p91_s").is_none() && slo.get("slo_probability").is_none());
        let of_each = &slo["per_request"];
        assert_eq!(of_each["properties"]["stall_s"]["exclusiveMinimum"], 0.0);
        assert_eq!(of_each["additionalProperties"], false);
        let objectives = followed(&schema, &schema["properties"]["objectives"]);
        let names = followed(&schema, &objectives["properties"]["minimize"]["items"]);
        for name in ["ttft_p90_s", "cost_usd_per_hour", "tensor_parallel"] {
            let names = names["enum"].as_array().expect("names");
            assert!(names.contains(&json!(name)), "{name}");
        }
    }

    #[test]
    fn it_is_small_and_every_reference_leads_somewhere() {
        let schema = sweep_schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            followed(&schema, reference);
        }
        let bytes = schema.to_string().len();
        assert!(bytes < 90_000, "{bytes} bytes");
        // What is long stands once.
        let definitions = schema["$defs"].as_object().expect("definitions");
        let mut long: Vec<String> = definitions.values().map(Value::to_string).collect();
        let defined = long.len();
        long.sort();
        long.dedup();
        assert_eq!(long.len(), defined);
    }
}
