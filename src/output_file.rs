//! Files this program writes: whole or absent, created by nobody else, and never
//! through a link that somebody laid where a temporary file would be. And the lock
//! that keeps two programs from writing into one directory.
//! Near the bottom of the module order: uses only [`crate::input_file`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::input_file::{self, InputKind, shown};

/// Distinguishes files that threads of this program write at the same time.
static CREATED: AtomicU64 = AtomicU64::new(0);

/// Creates a file that is not there. A link of that name is not followed: it is
/// there.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`], or what the system says.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Creates a file in place of what an earlier attempt left under that name. What is
/// there is removed, not written to, link or not.
///
/// # Errors
/// As [`create_new`].
pub fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => create_new(path),
    }
}

/// A name beside `target` that no other thread or running program takes.
pub fn unique_beside(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let (process, number) = (std::process::id(), CREATED.fetch_add(1, Relaxed));
    target.with_file_name(format!(".{name}.{process}-{number}.tmp"))
}

/// Writes a file that others may be writing too: whoever is last wins, and nobody
/// sees half of one.
///
/// # Errors
/// What the system says; nothing is left then.
pub fn write_whole(target: &Path, content: &[u8]) -> io::Result<()> {
    write_whole_with(target, |file| file.write_all(content))
}

fn write_whole_with(
    target: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = unique_beside(target);
    // What is left by a program that had this one's number.
    let mut file = create_anew(&unfinished)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    written
        .and_then(|()| fs::rename(&unfinished, target))
        .inspect_err(|_| {
            // Nothing is lost with the unfinished file; the first error counts.
            let _ = fs::remove_file(&unfinished);
        })
}

/// Writes a file where the user said. What is there is replaced by the whole of it
/// or stays; a link leads to the file that is replaced; a pipe or device just gets
/// the content.
///
/// # Errors
/// What the system says.
pub fn write_named(path: &Path, content: &[u8]) -> io::Result<()> {
    let there = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return fs::write(path, content),
        Ok(metadata) => Some(metadata.permissions()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(permissions) = there else {
        return write_whole(path, content);
    };
    write_whole_with(&fs::canonicalize(path)?, |file| {
        file.set_permissions(permissions)?;
        file.write_all(content)
    })
}

/// Makes a directory unless it is there. A link of that name is refused: what is
/// written into the directory would be written elsewhere.
///
/// # Errors
/// [`ErrorKind::NotADirectory`] if something else is there, or what the system says.
pub fn own_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let what = fs::symlink_metadata(path)?.file_type();
            if what.is_dir() {
                return Ok(());
            }
            let message = match what.is_symlink() {
                true => "is a symbolic link, and results go into no other directory",
                false => "is no directory",
            };
            Err(io::Error::new(ErrorKind::NotADirectory, message))
        }
        made => made,
    }
}

/// The file that is locked, within the directory.
pub const LOCK_FILE: &str = ".vidur-sweep.lock";

/// How often, and how far apart, the name of a holder is looked for that has locked
/// the file and not yet written into it.
const HOLDER_LOOKS: u32 = 20;
const HOLDER_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The right to write into a directory, as long as it lives. Advisory: it binds
/// those who ask for it, which is this program. It ends with the process, however
/// that ends, and a file left behind by one that was killed locks nothing.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
    /// Whether the file system has locks; if not, this one keeps nobody out.
    binding: bool,
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{directory}: {holder} is writing here; wait for it or end it, or use another directory", directory = directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Who, as the lock file says.
        holder: String,
    },
    /// The lock file cannot be made.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Locks a directory that is there, or says who has it.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it, [`LockError::Io`] if nothing
    /// can be written into it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_FILE);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        loop {
            let mut file = open_lock_file(&path).map_err(failed)?;
            let binding = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        directory: directory.to_path_buf(),
                        holder: holder(&path),
                    });
                }
                Err(TryLockError::Error(error)) if has_no_locks(&error) => false,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            };
            // Whoever had it may have removed the file before this lock took hold: then
            // the next one to come would lock a new file.
            if binding && !is_file_at(&file, &path).map_err(failed)? {
                continue;
            }
            file.set_len(0)
                .and_then(|()| file.write_all(this_process().as_bytes()))
                .map_err(failed)?;
            return Ok(Self {
                file,
                path,
                binding,
            });
        }
    }

    /// Whether it keeps others out. Some network file systems have no locks.
    pub fn is_binding(&self) -> bool {
        self.binding
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Removed before it is unlocked. A file that stays behind locks nothing.
        if is_file_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;

        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// Whether an error says that the file system knows no locks.
fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;

        // What flock(2) gives on network file systems mounted without locks.
        let kinds = [Errno::NOSYS, Errno::NOTSUP, Errno::NOLCK];
        if kinds
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            return true;
        }
    }
    error.kind() == ErrorKind::Unsupported
}

/// Whether `path` still stands for the open file.
#[cfg(unix)]
fn is_file_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let (open, there) = (file.metadata()?, fs::symlink_metadata(path));
    match there {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_file_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// What the lock file says of its holder.
fn this_process() -> String {
    let arguments: Vec<_> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let started = chrono::Local::now().format("%Y-%m-%d %H:%M:%S %:z");
    format!(
        "process {} on {}, started {started}: {}\n",
        std::process::id(),
        host(),
        shown(&arguments.join(" "))
    )
}

#[cfg(unix)]
fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this host".to_owned())
}

/// Most bytes of a lock file that a message repeats.
const HOLDER_BYTES_MAX: u64 = 4096;

fn holder(path: &Path) -> String {
    for _ in 0..HOLDER_LOOKS {
        let Ok(file) = input_file::open(path, InputKind::Description) else {
            break;
        };
        let mut text = Vec::new();
        let read = file.take(HOLDER_BYTES_MAX).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        if read.is_ok() && text.ends_with('\n') {
            return format!("another program ({})", shown(text.trim()));
        }
        std::thread::sleep(HOLDER_LOOK_INTERVAL);
    }
    "another program".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_the_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::acquire(dir.path()).unwrap();
        assert!(lock.is_binding());
        let refused = DirectoryLock::acquire(dir.path()).unwrap_err().to_string();
        let process = format!("process {} on ", std::process::id());
        assert!(refused.contains(&process), "{refused}");
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        DirectoryLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, times) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(_lock) = DirectoryLock::acquire(dir.path()) else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Relaxed), 0);
                        times.fetch_add(1, Relaxed);
                        inside.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert!(times.into_inner() >= 8);
    }

    #[test]
    fn a_file_left_by_a_killed_process_locks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "process 1 on elsewhere\n").unwrap();
        DirectoryLock::acquire(dir.path()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().unwrap();
        let (victim, trap) = (dir.path().join("victim"), dir.path().join("trap"));
        fs::write(&victim, "mine").unwrap();
        symlink(&victim, &trap).unwrap();
        assert_eq!(
            create_new(&trap).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        create_anew(&trap).unwrap().write_all(b"ours").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(fs::read_to_string(&trap).unwrap(), "ours");

        let locked = dir.path().join("locked");
        fs::create_dir(&locked).unwrap();
        symlink(&victim, locked.join(LOCK_FILE)).unwrap();
        assert!(DirectoryLock::acquire(&locked).is_err());
        let linked = dir.path().join("linked");
        symlink(&locked, &linked).unwrap();
        let refused = own_directory(&linked).unwrap_err().to_string();
        assert!(refused.contains("symbolic link"), "{refused}");
        own_directory(&locked).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }

    #[cfg(unix)]
    #[test]
    fn what_the_user_named_is_replaced_where_it_is() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("out.csv"), dir.path().join("latest"));
        write_named(&file, b"1").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        write_named(&link, b"2").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        write_named(Path::new("/dev/null"), b"3").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
