//! What is wrong with a YAML file, and how places in one are named.

use std::fmt;
use std::path::PathBuf;

use crate::input_file::tame_line;

/// Line and column, both counted from 1.
pub type Position = (usize, usize);

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
        f.write_str(&tame_line(&format!("{text}: {}", self.message)))
    }
}

impl std::error::Error for YamlError {}

/// `parent.key`, or `key` at the top.
pub fn child_path(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}
