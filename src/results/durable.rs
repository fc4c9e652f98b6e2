//! Files that are whole or absent: written under a temporary name, flushed to
//! disk, then renamed into place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::ResultError;

/// What is known of a file after writing it.
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

/// Counts and hashes what passes through to the file.
pub(super) struct DurableFile {
    target: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl DurableFile {
    /// Opens the temporary file. A leftover of an earlier attempt is overwritten.
    pub(super) fn create(target: &Path) -> Result<Self, ResultError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.tmp"));
        let file = File::create(&temporary).map_err(ResultError::io(&temporary))?;
        Ok(Self {
            target: target.to_path_buf(),
            temporary,
            file: BufWriter::with_capacity(1 << 16, file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    /// Flushes to disk and moves the file into place.
    pub(super) fn commit(self) -> Result<Written, ResultError> {
        let file = self
            .file
            .into_inner()
            .map_err(|error| ResultError::io(&self.temporary)(error.into_error()))?;
        file.sync_all().map_err(ResultError::io(&self.temporary))?;
        fs::rename(&self.temporary, &self.target).map_err(ResultError::io(&self.target))?;
        if let Some(directory) = self.target.parent() {
            sync_directory(directory)?;
        }
        Ok(Written {
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

impl Write for DurableFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a small file whole.
pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<Written, ResultError> {
    let mut file = DurableFile::create(path)?;
    file.write_all(content).map_err(ResultError::io(path))?;
    file.commit()
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
