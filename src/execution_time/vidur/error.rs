//! What can be wrong with profiles and predictors.

use std::path::{Path, PathBuf};

use crate::input_file::tame_line;

/// Why a predictor could not be built. Messages are complete sentences for
/// people; [`VidurError::missing_file`] tells the one case in which a caller
/// may want to price by other means.
#[derive(Debug, thiserror::Error)]
pub enum VidurError {
    /// A profile does not exist.
    #[error("{}: no such file ({profile}, option `{option}`)", path.display())]
    MissingFile {
        /// The path asked for.
        path: PathBuf,
        /// What it should hold.
        profile: &'static str,
        /// The option that names it, without its prefix.
        option: &'static str,
    },
    /// A file exists but could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A place in a file is wrong.
    #[error("{}:{line}:{column}: {}", path.display(), tame_line(message))]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A profile holds nothing for this deployment.
    #[error("{}: no rows for {}; {}", path.display(), tame_line(wanted), tame_line(present))]
    NoRows {
        /// The file.
        path: PathBuf,
        /// The values looked for.
        wanted: String,
        /// The values the file has instead.
        present: String,
    },
    /// The model or a parameter is outside what the predictors cover.
    #[error("{0}")]
    Unsupported(String),
}

impl VidurError {
    /// The file that does not exist, if that is what is wrong.
    pub fn missing_file(&self) -> Option<&Path> {
        match self {
            Self::MissingFile { path, .. } => Some(path),
            _ => None,
        }
    }

    pub(super) fn at(path: &Path, line: u64, column: usize, what: impl Into<String>) -> Self {
        Self::BadFile {
            path: path.into(),
            line,
            column,
            message: what.into(),
        }
    }
}
