//! Files that are whole or absent: written under a temporary name, flushed to
//! disk, then renamed into place.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::ResultError;
use crate::input_file::{self, InputKind};
use crate::output_file;

/// What is known of a file after writing it.
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// Bytes written at a time. A power of two: the hash is fastest on aligned blocks.
const BLOCK_BYTES: usize = 1 << 16;

/// Counts and hashes what passes through to the file.
pub(super) struct DurableFile {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    /// What does not fill a block yet.
    pending: Vec<u8>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl DurableFile {
    /// Opens the temporary file. A leftover of an earlier attempt goes away.
    pub(super) fn create(target: &Path) -> Result<Self, ResultError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.tmp"));
        let file = output_file::create_anew(&temporary).map_err(ResultError::io(&temporary))?;
        Ok(Self {
            target: target.to_path_buf(),
            temporary,
            file,
            pending: Vec::with_capacity(BLOCK_BYTES),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    /// Flushes to disk and moves the file into place.
    pub(super) fn commit(self) -> Result<Written, ResultError> {
        self.commit_as(|target, _| target)
    }

    /// As [`Self::commit`], under a name that may tell what is in it: `name` is given
    /// the name so far and the hash of the content.
    pub(super) fn commit_as(
        mut self,
        name: impl FnOnce(PathBuf, &str) -> PathBuf,
    ) -> Result<Written, ResultError> {
        let failed = ResultError::io(&self.temporary);
        self.file.write_all(&self.pending).map_err(failed)?;
        self.hasher.update(&self.pending);
        self.bytes += self.pending.len() as u64;
        self.file
            .sync_all()
            .map_err(ResultError::io(&self.temporary))?;
        let blake3 = self.hasher.finalize().to_hex().to_string();
        let target = name(self.target, &blake3);
        fs::rename(&self.temporary, &target).map_err(ResultError::io(&target))?;
        if let Some(directory) = target.parent() {
            sync_directory(directory)?;
        }
        Ok(Written {
            bytes: self.bytes,
            blake3,
        })
    }
}

impl Write for DurableFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // Whole blocks go from where they are, if nothing waits before them.
        if self.pending.is_empty() && buffer.len() >= BLOCK_BYTES {
            let whole = &buffer[..buffer.len() - buffer.len() % BLOCK_BYTES];
            self.file.write_all(whole)?;
            self.hasher.update(whole);
            self.bytes += whole.len() as u64;
            return Ok(whole.len());
        }
        let taken = buffer.len().min(BLOCK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&buffer[..taken]);
        if self.pending.len() == BLOCK_BYTES {
            self.file.write_all(&self.pending)?;
            self.hasher.update(&self.pending);
            self.bytes += BLOCK_BYTES as u64;
            self.pending.clear();
        }
        Ok(taken)
    }

    /// Does nothing: only [`Self::commit`] makes anything last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a small file whole.
pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<Written, ResultError> {
    let mut file = DurableFile::create(path)?;
    file.write_all(content).map_err(ResultError::io(path))?;
    file.commit()
}

/// Size and hash of a file as it is now.
pub(super) fn examine(path: &Path) -> io::Result<Written> {
    let mut file = input_file::open(path, InputKind::ResultTable)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    let mut bytes = 0;
    loop {
        let length = file.read(&mut block)?;
        if length == 0 {
            return Ok(Written {
                bytes,
                blake3: hasher.finalize().to_hex().to_string(),
            });
        }
        hasher.update(&block[..length]);
        bytes += length as u64;
    }
}

/// Makes renames and removals in `directory` survive a power cut.
pub(super) fn sync_directory(directory: &Path) -> Result<(), ResultError> {
    // Directories cannot be opened for syncing on Windows; renames there are
    // journaled by the file system.
    if cfg!(unix) {
        let handle = File::open(directory).map_err(ResultError::io(directory))?;
        handle.sync_all().map_err(ResultError::io(directory))?;
    }
    Ok(())
}

/// Removes a file that may not exist.
pub(super) fn remove_file(path: &Path) -> Result<(), ResultError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ResultError::io(path)(error)),
        _ => Ok(()),
    }
}
