//! Every key of a specification with what it may hold: the one description that
//! validation, the JSON schema and the reference in `docs/spec.md` share. Taken
//! from the types of `super::config` through their derived JSON schemas.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::slo::{RequestSlo, TargetRange};
use super::{RunConfig, SweepSpec};

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A mapping with fixed keys; a bare value stands for its key `shorthand`.
    Struct {
        /// Its keys.
        keys: Vec<Key>,
        /// Key that a bare text stands for.
        shorthand: Option<String>,
    },
    /// A mapping whose key `type` says which other keys it has; a bare text
    /// stands for `type`.
    Tagged {
        /// What `type` may be.
        tag: Box<Shape>,
        /// What follows from it.
        variants: Vec<Variant>,
    },
    /// One of some words.
    Choice(Vec<Word>),
    /// A whole number, bounds included.
    Integer {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// A finite number.
    Number(Range),
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A list.
    List(Box<Shape>),
    /// A mapping with any keys.
    Map(Box<Shape>),
    /// Any of several.
    Either(Vec<Shape>),
    /// Anything: checked elsewhere.
    Any,
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Range {
    /// Least, and whether it is itself excluded.
    pub min: Option<(f64, bool)>,
    /// Greatest, and whether it is itself excluded.
    pub max: Option<(f64, bool)>,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What it is.
    pub doc: String,
    /// Whether it must be there.
    pub required: bool,
    /// Whether it may be null, which is the same as leaving it out.
    pub nullable: bool,
    /// Its value where it is left out; none or null: worked out from others.
    pub default: Option<Value>,
    /// Of a mapping with a `type`: its type where the mapping does not say, as the
    /// default that stands for it has that type.
    pub default_type: Option<String>,
    /// What it may hold.
    pub shape: Shape,
}

/// One of the mappings a [`Shape::Tagged`] may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Value of its `type`.
    pub name: String,
    /// What it is.
    pub doc: String,
    /// Its other keys.
    pub keys: Vec<Key>,
}

/// One word of a [`Shape::Choice`].
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// The word.
    pub name: String,
    /// What it means.
    pub doc: String,
}

/// Keys of a run: what `base` and `axes` hold.
pub fn run_keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(keys_of::<RunConfig>);
    &KEYS
}

/// Keys of a sweep, `base` and `axes` being [`Shape::Any`] here.
pub fn sweep_keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(keys_of::<SweepSpec>);
    &KEYS
}

/// Keys of `slo.per_request`.
pub fn request_slo_keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(keys_of::<RequestSlo>);
    &KEYS
}

/// Keys of a target that says on which side its limits are.
pub fn target_range_keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(keys_of::<TargetRange>);
    &KEYS
}

fn keys_of<T: JsonSchema>() -> Vec<Key> {
    let mut settings = SchemaSettings::draft2020_12().for_deserialize();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    keys(schema.as_value())
}

/// Keys of an object schema, its tag left out.
fn keys(schema: &Value) -> Vec<Key> {
    let required: Vec<&str> = items(schema, "required")
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten();
    properties
        .filter(|(name, property)| !(*name == "type" && property.get("const").is_some()))
        .map(|(name, property)| {
            let (nullable, inner) = without_null(property);
            Key {
                name: name.clone(),
                doc: doc(property),
                required: required.contains(&name.as_str()),
                nullable,
                default: property.get("default").cloned(),
                default_type: property["x-default-type"].as_str().map(str::to_owned),
                shape: shape(&inner),
            }
        })
        .collect()
}

/// Whether a schema allows null, and the schema without that.
fn without_null(schema: &Value) -> (bool, Value) {
    let mut inner = schema.clone();
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
        let is_null = |s: &&Value| s["type"] == "null";
        let other = either.iter().find(|s| !is_null(s));
        if let (true, Some(Value::Object(other))) = (either.iter().any(|s| is_null(&s)), other) {
            let mut merged = inner.as_object().cloned().unwrap_or_default();
            merged.remove("anyOf");
            merged.extend(other.clone());
            return (true, Value::Object(merged));
        }
    }
    let types = items(schema, "type").collect::<Vec<_>>();
    let nullable = types.iter().any(|t| *t == "null");
    if let (true, Some(other)) = (nullable, types.iter().find(|t| **t != "null")) {
        inner["type"] = (*other).clone();
    }
    (nullable, inner)
}

fn shape(schema: &Value) -> Shape {
    if schema.get("oneOf").is_some() {
        let is_object = |s: &Value| s["type"] == "object";
        return if items(schema, "oneOf").all(is_object) {
            tagged(items(schema, "oneOf").filter_map(variant).collect())
        } else {
            Shape::Choice(items(schema, "oneOf").flat_map(words).collect())
        };
    }
    if schema.get("enum").is_some() {
        return Shape::Choice(words(schema));
    }
    if schema.get("anyOf").is_some() {
        return Shape::Either(items(schema, "anyOf").map(shape).collect());
    }
    match schema["type"].as_str() {
        Some("object") => object_shape(schema),
        Some("integer") => Shape::Integer {
            min: schema["minimum"].as_u64().unwrap_or(0),
            max: match (schema["maximum"].as_u64(), schema["format"].as_str()) {
                (Some(max), _) => max,
                (None, Some("uint32")) => u64::from(u32::MAX),
                (None, _) => u64::MAX,
            },
        },
        Some("number") => Shape::Number(range(schema)),
        Some("string") => Shape::Text,
        Some("boolean") => Shape::Bool,
        Some("array") => Shape::List(Box::new(shape(&schema["items"]))),
        _ => Shape::Any,
    }
}

fn object_shape(schema: &Value) -> Shape {
    if schema.get("properties").is_some() {
        return Shape::Struct {
            keys: keys(schema),
            shorthand: schema["x-shorthand"].as_str().map(str::to_owned),
        };
    }
    match schema.get("additionalProperties") {
        Some(inner @ Value::Object(map)) if !map.is_empty() => Shape::Map(Box::new(shape(inner))),
        _ => Shape::Any,
    }
}

fn tagged(variants: Vec<Variant>) -> Shape {
    let word = |v: &Variant| Word {
        name: v.name.clone(),
        doc: v.doc.clone(),
    };
    Shape::Tagged {
        tag: Box::new(Shape::Choice(variants.iter().map(word).collect())),
        variants,
    }
}

fn variant(schema: &Value) -> Option<Variant> {
    Some(Variant {
        name: schema["properties"]["type"]["const"].as_str()?.to_owned(),
        doc: doc(schema),
        keys: keys(schema),
    })
}

fn words(schema: &Value) -> Vec<Word> {
    let names = schema.get("const").into_iter().chain(items(schema, "enum"));
    let word = |name: &str| Word {
        name: name.to_owned(),
        doc: doc(schema),
    };
    names.filter_map(Value::as_str).map(word).collect()
}

fn range(schema: &Value) -> Range {
    let bound = |including: &str, excluding: &str| {
        let excluded = schema[excluding].as_f64().map(|v| (v, true));
        excluded.or_else(|| schema[including].as_f64().map(|v| (v, false)))
    };
    Range {
        min: bound("minimum", "exclusiveMinimum"),
        max: bound("maximum", "exclusiveMaximum"),
    }
}

fn items<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    let list = schema.get(key).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// The first paragraph of a description, on one line.
fn doc(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or("");
    let paragraph = text.split("\n\n").next().unwrap_or("");
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A key found by its dotted path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found<'a> {
    /// What it may hold.
    pub shape: &'a Shape,
    /// Whether it may be null.
    pub nullable: bool,
    /// Its default, if it has one.
    pub default: Option<&'a Value>,
    /// Its type where it does not say, if it has one by default.
    pub default_type: Option<&'a str>,
    /// The mappings of the tagged one it lies in, if it does.
    variants: Option<&'a [Variant]>,
    /// Path of the mapping it lies in.
    pub parent: &'a str,
    /// Its own name.
    pub name: &'a str,
}

impl Found<'_> {
    /// The types of mapping that have this key, if it lies in a tagged one.
    pub fn only_for(&self) -> Option<Vec<&str>> {
        let variants = self.variants?.iter();
        let has = |v: &&Variant| v.keys.iter().any(|key| key.name == self.name);
        Some(variants.filter(has).map(|v| v.name.as_str()).collect())
    }
}

/// A dotted path that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// Path of the mapping that lacks the key; empty: the top.
    pub parent: String,
    /// The key it lacks.
    pub key: String,
    /// Keys it has.
    pub allowed: Vec<String>,
}

/// Finds a run key by its dotted path.
pub fn find_run_key(path: &str) -> Result<Found<'_>, NotFound> {
    find(run_keys(), path)
}

/// Keys at one place of the tree.
#[derive(Clone, Copy)]
enum Level<'a> {
    Fixed(&'a [Key]),
    Tagged(&'a Shape, &'a [Variant]),
}

impl<'a> Level<'a> {
    fn below(shape: &'a Shape) -> Self {
        match shape {
            Shape::Struct { keys, .. } => Self::Fixed(keys),
            Shape::Tagged { tag, variants } => Self::Tagged(tag, variants),
            _ => Self::Fixed(&[]),
        }
    }

    fn keys(self) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match self {
            Self::Fixed(keys) => Box::new(keys.iter()),
            Self::Tagged(_, variants) => Box::new(variants.iter().flat_map(|v| &v.keys)),
        }
    }

    fn names(self) -> Vec<String> {
        let tag = matches!(self, Self::Tagged(..)).then(|| "type".to_owned());
        let mut names: Vec<String> = tag.into_iter().collect();
        for key in self.keys() {
            if !names.contains(&key.name) {
                names.push(key.name.clone());
            }
        }
        names
    }
}

/// Finds a key by its dotted path, starting among the keys `top`.
pub fn find<'a>(top: &'a [Key], path: &'a str) -> Result<Found<'a>, NotFound> {
    let mut level = Level::Fixed(top);
    let mut start = 0;
    loop {
        let end = path[start..].find('.').map_or(path.len(), |at| start + at);
        let (parent, name) = (&path[..start.saturating_sub(1)], &path[start..end]);
        let variants = match level {
            Level::Tagged(_, variants) => Some(variants),
            Level::Fixed(_) => None,
        };
        let found = match level {
            Level::Tagged(tag, _) if name == "type" => Some((tag, false, None, None)),
            _ => {
                // Types of one mapping may share a key; null is fine if any takes it.
                let mut same = level.keys().filter(|key| key.name == name);
                same.next().map(|key| {
                    let nullable = key.nullable || same.any(|other| other.nullable);
                    let default_type = key.default_type.as_deref();
                    (&key.shape, nullable, key.default.as_ref(), default_type)
                })
            }
        };
        let Some((shape, nullable, default, default_type)) = found else {
            return Err(NotFound {
                parent: parent.to_owned(),
                key: name.to_owned(),
                allowed: level.names(),
            });
        };
        if end == path.len() {
            return Ok(Found {
                shape,
                nullable,
                default,
                default_type,
                variants: variants.filter(|_| name != "type"),
                parent,
                name,
            });
        }
        level = Level::below(shape);
        start = end + 1;
    }
}

/// Sets the value at a dotted path below `map`, whose keys are `top`. Mappings
/// on the way that are not there start from their default, shorthands are
/// written out. An error says what stands in the way.
pub fn set(
    top: &[Key],
    map: &mut Map<String, Value>,
    path: &str,
    value: Value,
) -> Result<(), String> {
    let mut map = map;
    let mut start = 0;
    while let Some(length) = path[start..].find('.') {
        let (name, prefix) = (&path[start..start + length], &path[..start + length]);
        let entry = map.entry(name).or_insert(Value::Null);
        if !entry.is_object() {
            let found = find(top, prefix).ok();
            if entry.is_null() {
                let default = found.and_then(|f| f.default).filter(|d| d.is_object());
                *entry = default
                    .cloned()
                    .unwrap_or_else(|| Value::Object(Map::new()));
            } else if let Some(expanded) = found.and_then(|f| expand_shorthand(f.shape, entry)) {
                *entry = expanded;
            }
        }
        match entry {
            Value::Object(inner) => map = inner,
            other => return Err(format!("`{prefix}` is `{other}`, not a mapping")),
        }
        start += length + 1;
    }
    map.insert(path[start..].to_owned(), value);
    Ok(())
}

/// Dotted paths of all run keys that hold no keys of their own, in the order of
/// their declaration; tagged mappings appear themselves, and so do their keys.
pub fn run_key_paths() -> &'static [String] {
    static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut paths = Vec::new();
        collect_paths(run_keys(), "", &mut paths);
        paths
    });
    &PATHS
}

fn collect_paths(keys: &[Key], prefix: &str, paths: &mut Vec<String>) {
    for key in keys {
        let path = format!("{prefix}{}", key.name);
        if paths.contains(&path) {
            continue;
        }
        let below = format!("{path}.");
        match &key.shape {
            Shape::Struct { keys, .. } => collect_paths(keys, &below, paths),
            Shape::Tagged { variants, .. } => {
                paths.push(path);
                paths.push(format!("{below}type"));
                for variant in variants {
                    collect_paths(&variant.keys, &below, paths);
                }
            }
            _ => paths.push(path),
        }
    }
}

impl Shape {
    /// What is allowed, as the end of "allowed is ...".
    pub fn allowed(&self) -> String {
        match self {
            Self::Struct { keys, shorthand } => {
                let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
                let short = shorthand
                    .as_ref()
                    .map(|key| format!(", or its `{key}` alone"));
                format!(
                    "a mapping of {}{}",
                    names.join(", "),
                    short.unwrap_or_default()
                )
            }
            Self::Tagged { variants, .. } => {
                let names: Vec<_> = variants.iter().map(|v| v.name.as_str()).collect();
                format!("a mapping whose `type` is one of {}", names.join(", "))
            }
            Self::Choice(words) => {
                let names: Vec<_> = words.iter().map(|w| w.name.as_str()).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Integer { min, max } if *max >= u64::from(u32::MAX) => {
                format!("a whole number of at least {min}")
            }
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number(range) => format!("a number{}", range.allowed()),
            Self::Text => "text".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) | Self::Any => "a mapping".to_owned(),
            Self::Either(shapes) => {
                let all: Vec<_> = shapes.iter().map(Self::allowed).collect();
                all.join(", or ")
            }
        }
    }
}

impl Range {
    /// Whether `value` is finite and within bounds.
    pub fn contains(&self, value: f64) -> bool {
        let above = |(min, excluded): (f64, bool)| value > min || (!excluded && value == min);
        let below = |(max, excluded): (f64, bool)| value < max || (!excluded && value == max);
        value.is_finite() && self.min.is_none_or(above) && self.max.is_none_or(below)
    }

    fn allowed(&self) -> String {
        let min = self.min.map(|(min, excluded)| {
            let word = if excluded {
                "greater than"
            } else {
                "of at least"
            };
            format!(" {word} {min}")
        });
        let max = self.max.map(|(max, excluded)| {
            let word = if excluded { "less than" } else { "at most" };
            format!(" {word} {max}")
        });
        match (min, max) {
            (Some(min), Some(max)) => format!("{min} and{max}"),
            (min, max) => min.or(max).unwrap_or_default(),
        }
    }
}

/// The type of a mapping that does not say: the only one that has all its keys.
pub fn only_type<'a>(variants: &'a [Variant], map: &Map<String, Value>) -> Option<&'a str> {
    let has = |variant: &Variant, name: &String| variant.keys.iter().any(|key| key.name == *name);
    let mut fitting = variants
        .iter()
        .filter(|variant| map.keys().all(|name| has(variant, name)));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) if !map.is_empty() => Some(&only.name),
        _ => None,
    }
}

/// The mapping a bare text stands for, if it may stand for one here.
pub fn expand_shorthand(shape: &Shape, value: &Value) -> Option<Value> {
    let Value::String(text) = value else {
        return None;
    };
    let key = match shape {
        Shape::Tagged { .. } => "type",
        Shape::Struct { shorthand, .. } => shorthand.as_deref()?,
        _ => return None,
    };
    let mut map = Map::new();
    map.insert(key.to_owned(), Value::String(text.clone()));
    Some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_dotted_paths() {
        let clients = find_run_key("workload.arrivals.clients").unwrap();
        assert_eq!(
            clients.shape.allowed(),
            "a whole number from 1 to 100000000"
        );
        assert_eq!(clients.only_for(), Some(vec!["concurrency"]));
        assert_eq!(clients.parent, "workload.arrivals");
        let tag = find_run_key("replica_scheduler.type").unwrap();
        assert_eq!(
            tag.shape.allowed(),
            "one of sarathi, vllm, split_wise, orca, faster_transformer, lightllm"
        );
        let ratio = find_run_key("pd_node_ratio").unwrap();
        assert_eq!(
            ratio.shape.allowed(),
            "a number greater than 0 and at most 1"
        );
        let missing = find_run_key("workload.arrival.clients").unwrap_err();
        assert_eq!((&*missing.parent, &*missing.key), ("workload", "arrival"));
        assert!(missing.allowed.contains(&"arrivals".to_owned()));
        assert!(find_run_key("qps.x").is_err());
    }

    #[test]
    fn nullable_keys_keep_their_shape() {
        let dtype = find_run_key("dtype").unwrap();
        assert!(dtype.nullable && matches!(dtype.shape, Shape::Choice(_)));
        let pool = find_run_key("decode.replica_scheduler").unwrap();
        assert!(pool.nullable && matches!(pool.shape, Shape::Tagged { .. }));
        assert!(run_key_paths().iter().any(|path| path == "engine.version"));
    }

    #[test]
    fn every_key_is_described_and_understood() {
        let mut stack: Vec<&Key> = run_keys().iter().collect();
        while let Some(key) = stack.pop() {
            assert!(!key.doc.is_empty(), "{} lacks a description", key.name);
            match &key.shape {
                Shape::Struct { keys, .. } => stack.extend(keys),
                Shape::Tagged { variants, .. } => {
                    stack.extend(variants.iter().flat_map(|v| &v.keys))
                }
                shape => assert_ne!(shape, &Shape::Any, "{} is not understood", key.name),
            }
        }
    }
}
