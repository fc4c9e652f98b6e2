//! Files by what is in them: what a result depends on is never a name or a path.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::lock;
use crate::input_file::{self, InputKind};
use crate::number::narrow;

/// Hash of a content: 32 hex digits of its blake3.
pub(super) fn hash_of(content: &[u8]) -> String {
    blake3::hash(content).to_hex()[..32].to_owned()
}

/// A file that was changed so recently when it was hashed may be changed once more
/// within the same tick of the file system's clock.
const CLOCK_TICK: Duration = Duration::from_secs(2);

/// Hashes of files, each read anew only if it has been written to since. Shared by all
/// threads.
#[derive(Debug, Default)]
pub(super) struct Contents {
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

#[derive(Debug)]
struct Known {
    state: State,
    hash: String,
}

/// What tells whether a file is still as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    size_bytes: u64,
    modified: SystemTime,
    /// Device, inode and the time its record was changed, where there are such.
    record: [u64; 4],
}

impl State {
    /// None where the file system cannot tell.
    fn of(metadata: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        let record = {
            use std::os::unix::fs::MetadataExt;
            [
                metadata.dev(),
                metadata.ino(),
                narrow::<u64, _>(metadata.ctime()),
                narrow::<u64, _>(metadata.ctime_nsec()),
            ]
        };
        #[cfg(not(unix))]
        let record = [0; 4];
        Some(Self {
            size_bytes: metadata.len(),
            modified: metadata.modified().ok()?,
            record,
        })
    }

    /// Whether any later write would show.
    fn is_settled(&self) -> bool {
        let age = SystemTime::now().duration_since(self.modified);
        age.is_ok_and(|age| age > CLOCK_TICK)
    }
}

impl Contents {
    /// Hash of the file's content; none if it cannot be read.
    pub(super) fn hash(&self, file: &Path) -> Option<String> {
        let metadata = std::fs::metadata(file).ok().filter(Metadata::is_file)?;
        let state = State::of(&metadata);
        if let (Some(state), Some(known)) = (&state, lock(&self.known).get(file))
            && known.state == *state
        {
            return Some(known.hash.clone());
        }
        // Read outside the lock: two threads may both do it, with the same result.
        let settled = state.filter(State::is_settled);
        let hash = hash_of(&input_file::read(file, InputKind::Program).ok()?);
        let mut known = lock(&self.known);
        match settled {
            Some(state) => {
                let hash = hash.clone();
                known.insert(file.to_path_buf(), Known { state, hash });
            }
            None => {
                known.remove(file);
            }
        }
        Some(hash)
    }

    /// Hash of the names and contents of the files in a folder, those below it left
    /// out; none if there is no such folder.
    pub(super) fn hash_of_folder(&self, folder: &Path) -> Option<String> {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        let mut hasher = blake3::Hasher::new();
        for file in files {
            let Some(hash) = self.hash(&file) else {
                continue;
            };
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            hasher.update(format!("{}:{name} {hash}\n", name.len()).as_bytes());
        }
        Some(hasher.finalize().to_hex()[..32].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_content_whenever_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let contents = Contents::default();
        assert_eq!(contents.hash(&one), None);
        std::fs::write(&one, "abc").expect("written");
        std::fs::write(&two, "abc").expect("written");
        let first = contents.hash(&one).expect("read");
        assert_eq!(contents.hash(&two), Some(first.clone()));
        // Of the same length, within the same tick.
        std::fs::write(&one, "abd").expect("written");
        assert_ne!(contents.hash(&one), Some(first.clone()));
        // Long ago: remembered, until it changes.
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let set = |time| {
            let file = std::fs::File::options().write(true).open(&two);
            file.and_then(|file| file.set_modified(time)).expect("set");
        };
        set(long_ago);
        assert_eq!(contents.hash(&two), Some(first.clone()));
        assert!(lock(&contents.known).contains_key(&two));
        std::fs::write(&two, "xyz").expect("written");
        set(long_ago);
        assert_ne!(contents.hash(&two), Some(first));
        assert_eq!(contents.hash(folder.path()), None);
    }

    #[test]
    fn a_folder_is_its_files_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::default();
        let hash = || contents.hash_of_folder(folder.path()).expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("a", "1");
        let first = hash();
        write("b", "2");
        let second = hash();
        std::fs::rename(folder.path().join("b"), folder.path().join("c")).expect("renamed");
        let third = hash();
        assert!(first != second && second != third && first != third);
        assert_eq!(contents.hash_of_folder(&folder.path().join("a")), None);
    }
}
