//! What can be wrong with a workload, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::input_file::tame_line;

/// A workload that cannot be generated: a file that is missing or malformed, or
/// settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadError {
    /// File concerned, as named to the user.
    pub file: Option<PathBuf>,
    /// Line and column in it, from 1.
    pub position: Option<(usize, usize)>,
    /// The key of a configuration to be changed, dotted, where it is one.
    pub key: Option<&'static str>,
    /// The sentence that says what is wrong, without file and key.
    pub message: String,
}

impl WorkloadError {
    /// An error about settings rather than a file.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            file: None,
            position: None,
            key: None,
            message: message.into(),
        }
    }

    /// A value that `key` may not have.
    pub(super) fn value(key: &'static str, value: impl fmt::Display, allowed: &str) -> Self {
        let message = format!("value `{value}` is not allowed; allowed is {allowed}");
        Self::new(message).at_key(key)
    }

    /// An error about a file as a whole.
    pub fn in_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_path_buf()),
            ..Self::new(message)
        }
    }

    /// An error at a line and column (from 1) of a file.
    pub fn at(file: &Path, line: usize, column: usize, message: impl Into<String>) -> Self {
        Self {
            position: Some((line, column)),
            ..Self::in_file(file, message)
        }
    }

    /// The same, to be mended by changing `key`, unless another is known or what is to
    /// be mended is a row of a file.
    #[must_use]
    pub fn at_key(self, key: &'static str) -> Self {
        let key = Some(key).filter(|_| self.position.is_none());
        Self {
            key: self.key.or(key),
            ..self
        }
    }

    /// What is wrong, for whoever names the key himself.
    pub fn reason(&self) -> String {
        let place = match (&self.file, self.position) {
            (None, _) => String::new(),
            (Some(file), None) => format!("{}: ", file.display()),
            (Some(file), Some((line, column))) => format!("{}:{line}:{column}: ", file.display()),
        };
        // One line, whatever the file has in it.
        tame_line(&(place + &self.message))
    }

    /// The same, about a file as a whole.
    pub(super) fn about(self, file: &Path) -> Self {
        Self {
            file: Some(file.to_path_buf()),
            ..self
        }
    }

    /// The same, at a line and column (from 1) of a file.
    pub(super) fn placed(self, file: &Path, line: usize, column: usize) -> Self {
        Self {
            position: Some((line, column)),
            ..self.about(file)
        }
    }
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = self.key {
            write!(f, "key `{key}`: ")?;
        }
        f.write_str(&self.reason())
    }
}

impl std::error::Error for WorkloadError {}
