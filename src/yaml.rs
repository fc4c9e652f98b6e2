//! YAML with positions: reads a file into a value tree that remembers where
//! each key and value stood, and turns it into typed values with errors that
//! name file, line, column, key, value and what is allowed.
//!
//! The dialect is YAML 1.2 (core schema) with anchors, aliases and `<<` merge
//! keys; one document a file; duplicate keys, tags and non-finite numbers are
//! errors. Near the bottom of the module order: uses only [`crate::spelling`] and
//! [`crate::input_file`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use crate::input_file::{self, InputKind};
use crate::spelling::did_you_mean;

mod typed;
mod write;

pub use typed::from_document;
pub use write::to_text;

/// Line and column, both counted from 1.
pub type Position = (usize, usize);

/// One parsed document and where its parts stood.
#[derive(Debug, Clone)]
pub struct Document {
    /// The content, anchors resolved.
    pub value: Value,
    /// File it came from, as named in messages.
    pub file: PathBuf,
    places: BTreeMap<String, Place>,
}

/// Where one entry stands: its key (a sequence item has none) and its value.
#[derive(Debug, Clone, Copy)]
struct Place {
    key: Option<Position>,
    value: Position,
}

/// What is wrong with a YAML file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// File, as named by the user.
    pub file: PathBuf,
    /// Line and column, if known.
    pub position: Option<Position>,
    /// Dotted path of the key concerned; empty for the whole file.
    pub path: String,
    /// The sentence that says what is wrong, without file and position.
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.file.display().to_string();
        if let Some((line, column)) = self.position {
            text += &format!(":{line}:{column}");
        }
        // One line, whatever the file has in it.
        f.write_str(&input_file::tame_line(&format!("{text}: {}", self.message)))
    }
}

impl std::error::Error for YamlError {}

/// Parses `text`; `file` is what messages call it.
pub fn parse(text: &str, file: &Path) -> Result<Document, YamlError> {
    let error = |position, message: String| YamlError {
        file: file.to_path_buf(),
        position,
        path: String::new(),
        message,
    };
    let documents = MarkedYaml::load_from_str(text).map_err(|e| {
        error(
            Some(position_of(*e.marker())),
            format!("not valid YAML: {}", e.info()),
        )
    })?;
    let root = match documents.as_slice() {
        [] => return Err(error(None, "the file is empty".into())),
        [one] => one,
        [_, second, ..] => {
            return Err(error(
                Some(position_of(second.span.start)),
                "more than one YAML document in the file".into(),
            ));
        }
    };
    let mut reader = Reader {
        text,
        file,
        places: BTreeMap::new(),
    };
    let value = reader.read(root, "", None)?;
    Ok(Document {
        value,
        file: file.to_path_buf(),
        places: reader.places,
    })
}

/// Reads and parses a file; unreadable files are reported in the same form.
pub fn read(file: &Path) -> Result<Document, YamlError> {
    parse(&read_text(file)?, file)
}

/// Text of a file.
pub fn read_text(file: &Path) -> Result<String, YamlError> {
    input_file::read_text(file, InputKind::Description).map_err(|e| YamlError {
        file: file.to_path_buf(),
        position: None,
        path: String::new(),
        message: format!("cannot read the file: {e}"),
    })
}

impl Document {
    /// A document that was not read from YAML text: it has no positions.
    pub fn without_positions(value: Value, file: &Path) -> Self {
        Self {
            value,
            file: file.to_path_buf(),
            places: BTreeMap::new(),
        }
    }

    /// The part at `path` as a document of its own, its paths starting there; none if
    /// there is nothing.
    pub fn within(&self, path: &str) -> Option<Self> {
        let value = self.get(path)?.clone();
        let below = |place: &str| {
            let rest = place.strip_prefix(path)?;
            match rest.as_bytes().first() {
                None | Some(b'[') => Some(rest.to_owned()),
                Some(b'.') => Some(rest[1..].to_owned()),
                Some(_) => None,
            }
        };
        let places = (self.places.iter())
            .filter_map(|(place, position)| Some((below(place)?, *position)))
            .collect();
        Some(Self {
            value,
            file: self.file.clone(),
            places,
        })
    }

    /// Where the value at `path` starts, e.g. `base.workload.lengths.type` or
    /// `axes.qps[2]`; the empty path is the whole document.
    pub fn position(&self, path: &str) -> Option<Position> {
        self.places.get(path).map(|place| place.value)
    }

    /// Where the key at `path` starts; for a sequence item, its value.
    pub fn key_position(&self, path: &str) -> Option<Position> {
        self.places
            .get(path)
            .map(|place| place.key.unwrap_or(place.value))
    }

    /// The value at `path`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        lookup(&self.value, path)
    }

    /// An error about the value at `path`, placed there or, where that was not
    /// written in the file, at the nearest enclosing entry that was.
    pub fn error(&self, path: &str, message: impl Into<String>) -> YamlError {
        self.placed(path, self.nearest_place(path).map(|p| p.value), message)
    }

    /// Like [`Self::error`], pointing at the key instead of its value.
    pub fn error_at_key(&self, path: &str, message: impl Into<String>) -> YamlError {
        let place = self.nearest_place(path);
        self.placed(path, place.map(|p| p.key.unwrap_or(p.value)), message)
    }

    fn placed(
        &self,
        path: &str,
        position: Option<Position>,
        message: impl Into<String>,
    ) -> YamlError {
        YamlError {
            file: self.file.clone(),
            position,
            path: path.to_owned(),
            message: message.into(),
        }
    }

    fn nearest_place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return Some(*place);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// `parent.key`, or `key` at the top.
pub fn child_path(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

/// Walks a dotted path. Keys that themselves contain dots are found too: at
/// each mapping the longest key that fits is taken.
fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        let item = value.as_array()?.get(index.parse::<usize>().ok()?)?;
        return lookup(item, rest.strip_prefix('.').unwrap_or(rest));
    }
    let map = value.as_object()?;
    let mut fitting: Vec<_> = map
        .iter()
        .filter(|(key, _)| {
            path.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .collect();
    fitting.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    fitting.into_iter().find_map(|(key, inner)| {
        let rest = &path[key.len()..];
        lookup(inner, rest.strip_prefix('.').unwrap_or(rest))
    })
}

fn position_of(marker: Marker) -> Position {
    (marker.line(), marker.col() + 1)
}

/// Turns the marked tree into plain values, noting every place on the way.
struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    places: BTreeMap<String, Place>,
}

impl Reader<'_> {
    fn read(
        &mut self,
        node: &MarkedYaml<'_>,
        path: &str,
        key: Option<Position>,
    ) -> Result<Value, YamlError> {
        let value = position_of(node.span.start);
        self.places.insert(path.to_owned(), Place { key, value });
        match &node.data {
            YamlData::Value(scalar) => self.scalar(scalar, node, path),
            YamlData::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.read(item, &format!("{path}[{i}]"), None))
                .collect(),
            YamlData::Mapping(entries) => {
                let mut map = Map::new();
                for (key, inner) in entries {
                    self.entry(key, inner, path, &mut map)?;
                }
                Ok(Value::Object(map))
            }
            YamlData::Alias(_) | YamlData::BadValue if path.is_empty() => {
                Err(self.error(node, path, "the file is empty"))
            }
            YamlData::Tagged(..) => Err(self.error(node, path, "YAML tags are not supported")),
            YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) => {
                Err(self.error(node, path, "this value cannot be read"))
            }
        }
    }

    /// One `key: value`; a `<<` key merges the mappings it holds, whose entries
    /// yield to those written in this mapping.
    fn entry(
        &mut self,
        key: &MarkedYaml<'_>,
        inner: &MarkedYaml<'_>,
        path: &str,
        map: &mut Map<String, Value>,
    ) -> Result<(), YamlError> {
        let name = match &key.data {
            YamlData::Value(Scalar::String(name)) => name.to_string(),
            YamlData::Value(Scalar::Integer(number)) => number.to_string(),
            YamlData::Value(Scalar::Boolean(flag)) => flag.to_string(),
            _ => return Err(self.error(key, path, "a key must be a word")),
        };
        if name == "<<" {
            return self.merge(inner, path, map);
        }
        let inner_path = child_path(path, &name);
        let value = self.read(inner, &inner_path, Some(position_of(key.span.start)))?;
        map.insert(name, value);
        Ok(())
    }

    fn merge(
        &mut self,
        node: &MarkedYaml<'_>,
        path: &str,
        map: &mut Map<String, Value>,
    ) -> Result<(), YamlError> {
        match &node.data {
            YamlData::Sequence(items) => items
                .iter()
                .try_for_each(|item| self.merge(item, path, map)),
            YamlData::Mapping(entries) => {
                for (key, inner) in entries {
                    let mut one = Map::new();
                    // Places of merged entries must not replace those of the
                    // entries written in the mapping itself.
                    let kept = self.places.clone();
                    self.entry(key, inner, path, &mut one)?;
                    self.places.extend(kept);
                    for (name, value) in one {
                        map.entry(name).or_insert(value);
                    }
                }
                Ok(())
            }
            _ => Err(self.error(node, path, "`<<` needs a mapping or a list of mappings")),
        }
    }

    fn scalar(
        &self,
        scalar: &Scalar<'_>,
        node: &MarkedYaml<'_>,
        path: &str,
    ) -> Result<Value, YamlError> {
        Ok(match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(flag) => Value::Bool(*flag),
            Scalar::Integer(number) => Value::from(*number),
            Scalar::String(text) => Value::String(text.to_string()),
            Scalar::FloatingPoint(number) => {
                let number = number.into_inner();
                // Integers above i64 arrive as floats; u64 ones are kept exact.
                if number >= i64::MAX as f64
                    && let Ok(exact) = self.source(node).parse::<u64>()
                {
                    return Ok(Value::from(exact));
                }
                let number = Number::from_f64(number)
                    .ok_or_else(|| self.error(node, path, "a number must be finite"))?;
                Value::Number(number)
            }
        })
    }

    fn source(&self, node: &MarkedYaml<'_>) -> String {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        self.text
            .chars()
            .skip(start)
            .take(end.saturating_sub(start))
            .collect()
    }

    fn error(&self, node: &MarkedYaml<'_>, path: &str, message: &str) -> YamlError {
        let message = if path.is_empty() {
            message.to_owned()
        } else {
            format!("key `{path}`: {message}")
        };
        YamlError {
            file: self.file.to_path_buf(),
            position: Some(position_of(node.span.start)),
            path: path.to_owned(),
            message,
        }
    }
}

#[cfg(test)]
mod tests;
