//! YAML with positions: reads a file into a value tree that remembers where
//! each key and value stood, and turns it into typed values with errors that
//! name file, line, column, key, value and what is allowed.
//!
//! The dialect is YAML 1.2 (core schema) with anchors, aliases and `<<` merge
//! keys; one document a file; duplicate keys, tags and non-finite numbers are
//! errors, and so is what goes beyond [`crate::limits`]. Near the bottom of the module
//! order: uses only that, [`crate::spelling`] and [`crate::input_file`].

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::input_file::{self, InputKind};

mod compose;
mod error;
mod places;
mod typed;
mod write;

use places::{Places, place_at, value_at};

pub use error::{Position, YamlError, child_path};
pub use typed::{from_document, shown};
pub use write::to_text;

/// One parsed document and where its parts stood.
#[derive(Debug, Clone)]
pub struct Document {
    /// The content, anchors resolved.
    pub value: Value,
    /// File it came from, as named in messages.
    pub file: PathBuf,
    places: Option<Places>,
}

/// Parses `text`; `file` is what messages call it.
pub fn parse(text: &str, file: &Path) -> Result<Document, YamlError> {
    let (value, places) = compose::compose(text, file)?;
    Ok(Document {
        value,
        file: file.to_path_buf(),
        places: Some(places),
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
            places: None,
        }
    }

    /// The part at `path` as a document of its own, its paths starting there; none if
    /// there is nothing.
    pub fn within(&self, path: &str) -> Option<Self> {
        Some(Self {
            value: self.get(path)?.clone(),
            file: self.file.clone(),
            places: self.place(path).cloned(),
        })
    }

    /// Where the value at `path` starts, e.g. `base.workload.lengths.type` or
    /// `axes.qps[2]`; the empty path is the whole document.
    pub fn position(&self, path: &str) -> Option<Position> {
        self.place(path).map(Places::value)
    }

    /// Where the key at `path` starts; for a sequence item, its value.
    pub fn key_position(&self, path: &str) -> Option<Position> {
        self.place(path).map(Places::key)
    }

    /// The value at `path`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        value_at(&self.value, path)
    }

    fn place(&self, path: &str) -> Option<&Places> {
        place_at(self.places.as_ref()?, path)
    }

    /// An error about the value at `path`, placed there or, where that was not
    /// written in the file, at the nearest enclosing entry that was.
    pub fn error(&self, path: &str, message: impl Into<String>) -> YamlError {
        self.placed(path, self.nearest_place(path).map(Places::value), message)
    }

    /// Like [`Self::error`], pointing at the key instead of its value.
    pub fn error_at_key(&self, path: &str, message: impl Into<String>) -> YamlError {
        let place = self.nearest_place(path);
        self.placed(path, place.map(Places::key), message)
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

    fn nearest_place(&self, path: &str) -> Option<&Places> {
        let mut path = path;
        loop {
            if let Some(place) = self.place(path) {
                return Some(place);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

#[cfg(test)]
mod tests;
