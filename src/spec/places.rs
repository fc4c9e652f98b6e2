//! Where the keys of a specification stand: in its file, or on the command line.

use std::sync::Arc;

use crate::yaml::{Document, YamlError};

/// Whether `path` is `prefix` or lies below it.
pub fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Paths that the command line set, and what messages call the arguments that did.
#[derive(Debug, Clone, Default)]
pub struct SetPaths(Vec<(String, String)>);

impl SetPaths {
    /// From now on the value at `path` is what the argument `label` says.
    pub fn add(&mut self, path: String, label: String) {
        self.0.push((path, label));
    }

    /// The argument that set the value at `path`, if one did.
    pub fn source_of(&self, path: &str) -> Option<&str> {
        let set = self.0.iter().rev();
        set.filter(|(prefix, _)| is_within(path, prefix))
            .map(|(_, label)| label.as_str())
            .next()
    }

    /// What messages about the value at `path` begin with; `placed` is one in the file.
    pub fn location(&self, path: &str, placed: &YamlError) -> String {
        match (self.source_of(path), placed.position) {
            (Some(argument), _) => argument.to_owned(),
            (None, Some((line, column))) => format!("{}:{line}:{column}", placed.file.display()),
            (None, None) => placed.file.display().to_string(),
        }
    }
}

/// Where the keys of a specification stand, for errors that show after it was read. No
/// part of what it says.
#[derive(Debug, Clone, Default)]
pub struct KeyPlaces(Option<Arc<(Document, SetPaths)>>);

impl KeyPlaces {
    /// Those of a file, but for what the command line set.
    pub(super) fn new(document: Document, set: SetPaths) -> Self {
        Self(Some(Arc::new((document, set))))
    }

    /// What messages about the value at `path` begin with, if it was read from a file.
    pub(super) fn location(&self, path: &str) -> Option<String> {
        let (document, set) = self.0.as_deref()?;
        Some(set.location(path, &document.error(path, "")))
    }
}

impl PartialEq for KeyPlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
