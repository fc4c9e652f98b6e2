//! Files that a user names, opened one way: whatever reads one goes through here.
//!
//! A regular file on a disk is read, up to what a file of its kind can sensibly
//! have. A pipe would block, a device may never end, and files of the kernel
//! (`/proc`, `/sys`) hold what nobody wants in a message: they are refused before
//! a byte is read. [`shown`] is how a piece of such a file goes into a message.
//! At the bottom of the module order: uses nothing.

use std::fmt::Write as _;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::number::narrow;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a file is for, which says how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A specification, a catalog entry, a checkpoint's or the original's
    /// `config.json`: written by hand or as small.
    Description,
    /// A list of points to search.
    Points,
    /// A trace, a length histogram or the requests of one.
    Trace,
    /// A profile, a table of predictions, recorded stage times, steps to price.
    Profile,
    /// A topology.
    Topology,
    /// Layer times as AICB writes them.
    LayerTimes,
    /// Measured kernel times in Parquet.
    KernelTable,
    /// SimAI's configuration.
    SimaiConf,
    /// Collectives to price.
    Queries,
    /// A program, of which the content identifies the results.
    Program,
    /// A file of a result directory that is read at once.
    ResultNotes,
    /// A table of a result directory, read bit by bit.
    ResultTable,
}

impl InputKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Description,
        Self::Points,
        Self::Trace,
        Self::Profile,
        Self::Topology,
        Self::LayerTimes,
        Self::KernelTable,
        Self::SimaiConf,
        Self::Queries,
        Self::Program,
        Self::ResultNotes,
        Self::ResultTable,
    ];

    /// What messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Description => "a description",
            Self::Points => "a list of points",
            Self::Trace => "a trace",
            Self::Profile => "a profile",
            Self::Topology => "a topology",
            Self::LayerTimes => "a file of layer times",
            Self::KernelTable => "a table of kernel times",
            Self::SimaiConf => "a SimAI.conf",
            Self::Queries => "a file of queries",
            Self::Program => "a program",
            Self::ResultNotes => "a manifest",
            Self::ResultTable => "a result table",
        }
    }

    /// Largest size of such a file. Far beyond any that is known, and small enough
    /// to be read into the memory of one machine where that is how it is read.
    pub const fn limit_bytes(self) -> u64 {
        match self {
            Self::SimaiConf => MIB,
            Self::Description | Self::LayerTimes => 64 * MIB,
            Self::Queries | Self::ResultNotes => 256 * MIB,
            Self::Points | Self::Profile | Self::Topology | Self::KernelTable => GIB,
            Self::Trace | Self::Program => 4 * GIB,
            Self::ResultTable => 1024 * GIB,
        }
    }
}

/// Why a file is not read although it is there; inside an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputRefused {
    /// A directory, pipe, socket or device.
    #[error("is {0}, not a regular file")]
    NotRegular(&'static str),
    /// A file that the kernel makes up.
    #[error("is a file of the kernel ({0}), not one on a disk")]
    Kernel(&'static str),
    /// Too large for its kind.
    #[error("has more than {limit_bytes} bytes ({limit}), the most that {kind} may have", limit = binary_size(*limit_bytes))]
    TooLarge {
        /// Name of the kind.
        kind: &'static str,
        /// Its limit.
        limit_bytes: u64,
    },
    /// Text in another encoding, or no text.
    #[error("is not UTF-8 text: byte {byte} of line {line}")]
    NotText {
        /// Line, from 1.
        line: usize,
        /// Byte of the line, from 1.
        byte: usize,
    },
}

impl From<InputRefused> for io::Error {
    fn from(refused: InputRefused) -> Self {
        Self::new(ErrorKind::InvalidInput, refused)
    }
}

fn binary_size(size_bytes: u64) -> String {
    match size_bytes {
        GIB.. => format!("{} GiB", size_bytes / GIB),
        _ => format!("{} MiB", size_bytes / MIB),
    }
}

/// Opens a file, unless it is no regular file on a disk or too large.
///
/// # Errors
/// What the system says, or an [`InputRefused`].
pub fn open(path: &Path, kind: InputKind) -> io::Result<File> {
    // Looked at first, because opening alone acts on some devices; and once more
    // when open, because the name may stand for another file by then.
    check_regular(&std::fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    without_waiting(&mut options);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    check_on_disk(&file)?;
    if metadata.len() > kind.limit_bytes() {
        return Err(too_large(kind).into());
    }
    Ok(file)
}

/// Reads a whole file.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path, kind: InputKind) -> io::Result<Vec<u8>> {
    let file = open(path, kind)?;
    let size_bytes = file.metadata()?.len();
    let mut content = Vec::new();
    content
        .try_reserve_exact(usize::try_from(size_bytes).unwrap_or(usize::MAX))
        .map_err(|_| ErrorKind::OutOfMemory)?;
    read_limited(file, kind, &mut content)?;
    Ok(content)
}

/// Reads what a reader gives, which may be more than is on the disk (compressed
/// or growing files), up to the limit of the kind.
///
/// # Errors
/// What the reader says, or [`InputRefused::TooLarge`].
pub fn read_limited(reader: impl Read, kind: InputKind, content: &mut Vec<u8>) -> io::Result<()> {
    let limit_bytes = kind.limit_bytes();
    let read_bytes = reader.take(limit_bytes + 1).read_to_end(content)?;
    match read_bytes as u64 > limit_bytes {
        true => Err(too_large(kind).into()),
        false => Ok(()),
    }
}

/// Reads a whole file of UTF-8 text.
///
/// # Errors
/// As [`open`], or [`InputRefused::NotText`].
pub fn read_text(path: &Path, kind: InputKind) -> io::Result<String> {
    text(read(path, kind)?)
}

/// The text that `content` is.
///
/// # Errors
/// [`InputRefused::NotText`].
pub fn text(content: Vec<u8>) -> io::Result<String> {
    String::from_utf8(content).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line_start = good.iter().rposition(|&byte| byte == b'\n');
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        let byte = 1 + good.len() - line_start.map_or(0, |at| at + 1);
        InputRefused::NotText { line, byte }.into()
    })
}

/// What would keep a file from being read, in words; none if nothing does.
pub fn problem(path: &Path, kind: InputKind) -> Option<String> {
    match open(path, kind) {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => Some("no such file".into()),
        Err(error) => Some(error.to_string()),
    }
}

fn too_large(kind: InputKind) -> InputRefused {
    InputRefused::TooLarge {
        kind: kind.name(),
        limit_bytes: kind.limit_bytes(),
    }
}

fn check_regular(metadata: &Metadata) -> Result<(), InputRefused> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(InputRefused::NotRegular(what_it_is(metadata))),
    }
}

#[cfg(unix)]
fn what_it_is(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    let file_type = metadata.file_type();
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn what_it_is(metadata: &Metadata) -> &'static str {
    match metadata.is_dir() {
        true => "a directory",
        false => "something else",
    }
}

/// A pipe that took the place of the file would be waited for otherwise.
#[cfg(unix)]
fn without_waiting(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.custom_flags(flags.bits().cast_signed());
}

#[cfg(not(unix))]
fn without_waiting(_: &mut OpenOptions) {}

/// File systems whose files the kernel makes up: magic number and name, from Linux'
/// `include/uapi/linux/magic.h`. What lies on them has size 0 or any, may not end,
/// and may be secret.
#[cfg(target_os = "linux")]
const KERNEL_FILE_SYSTEMS: [(u32, &str); 11] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0x4249_4e4d, "binfmt_misc"),
];

#[cfg(target_os = "linux")]
fn check_on_disk(file: &File) -> io::Result<()> {
    let magic = rustix::fs::fstatfs(file)?.f_type;
    let known = KERNEL_FILE_SYSTEMS
        .iter()
        .find(|(number, _)| narrow::<u32, _>(magic) == *number);
    match known {
        Some((_, name)) => Err(InputRefused::Kernel(name).into()),
        None => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
fn check_on_disk(_: &File) -> io::Result<()> {
    Ok(())
}

/// Most characters of a file that one place of a message repeats.
pub const SHOWN_CHARACTERS_MAX: usize = 200;

/// A piece of a file as messages show it: what would steer a terminal or reorder
/// the line is escaped, and what is too long to read is cut.
pub fn shown(text: &str) -> String {
    let mut shown = escaped(text, SHOWN_CHARACTERS_MAX);
    let left = text.chars().skip(SHOWN_CHARACTERS_MAX).count();
    if left > 0 {
        // Writing to a text cannot fail.
        let _ = write!(shown, "… ({left} more characters)");
    }
    shown
}

/// Most characters of a line of a message: what lists every key that is allowed has
/// some thousand.
const LINE_CHARACTERS_MAX: usize = 8_000;
/// And of a word in it: more than a path has that a person can read.
const WORD_CHARACTERS_MAX: usize = 400;

/// A line of a message as it is printed: as [`shown`], but cut only where nobody reads
/// on, which is in words without end and in lines without end.
pub fn tame_line(line: &str) -> String {
    if line.len() <= WORD_CHARACTERS_MAX && !line.chars().any(steers) {
        return line.to_owned();
    }
    let words = line.split(' ').map(|word| {
        let left = word.chars().skip(WORD_CHARACTERS_MAX).count();
        match left {
            0 => escaped(word, WORD_CHARACTERS_MAX),
            _ => escaped(word, WORD_CHARACTERS_MAX) + &format!("… ({left} more characters)"),
        }
    });
    let tame = words.collect::<Vec<_>>().join(" ");
    match tame.char_indices().nth(LINE_CHARACTERS_MAX) {
        None => tame,
        Some((end, _)) => format!("{}…", &tame[..end]),
    }
}

/// The first characters of a text, with `\n`, `\t` and `\u{1b}` written out.
pub fn escaped(text: &str, characters_max: usize) -> String {
    let mut escaped = String::new();
    for character in text.chars().take(characters_max) {
        match steers(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped
}

/// Whether a character does something instead of showing something: controls, line
/// ends of every kind, and those that change the direction of writing.
pub fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path, kind: InputKind) -> Option<InputRefused> {
        let error = read(path, kind).err()?;
        error.get_ref()?.downcast_ref().cloned()
    }

    #[test]
    fn a_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(&path, "a,b\n").unwrap();
        assert_eq!(read_text(&path, InputKind::Trace).unwrap(), "a,b\n");
        assert_eq!(problem(&path, InputKind::Trace), None);
        let absent = problem(&dir.path().join("absent"), InputKind::Trace);
        assert_eq!(absent.as_deref(), Some("no such file"));
    }

    #[test]
    fn too_much_is_refused_before_it_is_read_and_when_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("SimAI.conf");
        let file = File::create(&path).unwrap();
        for kind in InputKind::ALL {
            // A hole: it takes no room.
            file.set_len(kind.limit_bytes() + 1).unwrap();
            assert_eq!(refusal(&path, kind), Some(too_large(kind)), "{kind:?}");
        }
        let message = problem(&path, InputKind::SimaiConf).unwrap();
        assert_eq!(
            message,
            "has more than 1048576 bytes (1 MiB), the most that a SimAI.conf may have"
        );
        let mut content = Vec::new();
        let endless = read_limited(io::repeat(b'x'), InputKind::SimaiConf, &mut content);
        let error = endless.unwrap_err();
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn what_is_not_text_is_placed() {
        let message = |bytes: &[u8]| text(bytes.to_vec()).unwrap_err().to_string();
        assert_eq!(message(b"\xff"), "is not UTF-8 text: byte 1 of line 1");
        assert_eq!(message(b"a\nbc\xff"), "is not UTF-8 text: byte 3 of line 2");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_on_a_disk_is_refused_at_once() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, expected) in [
            (dir.path(), InputRefused::NotRegular("a directory")),
            (&pipe, InputRefused::NotRegular("a pipe")),
            (&socket, InputRefused::NotRegular("a socket")),
            (&link, InputRefused::NotRegular("a device")),
            (
                Path::new("/proc/self/environ"),
                InputRefused::Kernel("proc"),
            ),
            (Path::new("/proc/kmsg"), InputRefused::Kernel("proc")),
        ] {
            let found = refusal(path, InputKind::Description);
            // Not everybody may open every file of the kernel.
            let denied = path.starts_with("/proc") && found.is_none();
            assert!(denied || found == Some(expected), "{}", path.display());
        }
    }

    #[test]
    fn what_is_shown_is_tame_and_short() {
        assert_eq!(shown("ein wörtchen 日本"), "ein wörtchen 日本");
        assert_eq!(shown("\u{1b}]0;x\u{7}\n\r\t"), "\\u{1b}]0;x\\u{7}\\n\\r\\t");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        let line = format!(
            "key `{}` is {}",
            "x".repeat(1_000),
            "no word ".repeat(2_000)
        );
        let line = tame_line(&line);
        assert!(
            line.starts_with("key `xxx") && line.contains("x… (602 more"),
            "{line}"
        );
        assert_eq!(line.chars().count(), LINE_CHARACTERS_MAX + 1);
        let long = shown(&"x".repeat(1_000));
        assert!(long.ends_with("xx… (800 more characters)"), "{long}");
    }
}
