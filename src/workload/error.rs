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
    /// The sentence that says what is wrong.
    pub message: String,
}

impl WorkloadError {
    /// An error about settings rather than a file.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            file: None,
            position: None,
            message: message.into(),
        }
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
        let mut text = String::new();
        if let Some(file) = &self.file {
            text += &file.display().to_string();
            if let Some((line, column)) = self.position {
                text += &format!(":{line}:{column}");
            }
            text += ": ";
        }
        // One line, whatever the file has in it.
        f.write_str(&tame_line(&(text + &self.message)))
    }
}

impl std::error::Error for WorkloadError {}
