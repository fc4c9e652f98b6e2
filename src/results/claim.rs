//! The right to write into a result directory: one session at a time has it.

use std::path::{Path, PathBuf};

use super::layout::{self, DirectoryState};
use super::{ResultError, directory_state};
use crate::output_file::DirectoryLock;

/// A result directory nobody else writes into as long as this lives.
#[derive(Debug)]
pub struct ClaimedDirectory {
    path: PathBuf,
    lock: DirectoryLock,
}

impl ClaimedDirectory {
    /// Claims a directory for a sweep; makes it if it is not there.
    ///
    /// # Errors
    /// [`ResultError::Locked`] if another program has it, [`ResultError::NotResults`]
    /// if it holds something else, which is not touched.
    pub fn for_sweep(path: &Path) -> Result<Self, ResultError> {
        if directory_state(path)? == DirectoryState::Foreign {
            return Err(ResultError::NotResults {
                path: path.to_path_buf(),
                why: "it holds other files; not touching them".into(),
            });
        }
        std::fs::create_dir_all(path).map_err(ResultError::io(path))?;
        Self::existing(path)
    }

    /// Claims a directory that is there.
    ///
    /// # Errors
    /// [`ResultError::Locked`] if another program has it, or nothing can be written
    /// into it.
    pub fn existing(path: &Path) -> Result<Self, ResultError> {
        let lock = DirectoryLock::acquire(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the claim keeps others out: some network file systems have no locks.
    pub fn is_binding(&self) -> bool {
        self.lock.is_binding()
    }

    /// Removes what a killed session left in a finished directory.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear_leftovers(&self) -> Result<(), ResultError> {
        layout::clear_leftovers(&self.path)
    }
}
