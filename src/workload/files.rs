//! Where data files named in a specification are found: as given, next to the
//! specification, or among those embedded in the binary.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::WorkloadError;
use crate::input_file::{self, InputKind};
use crate::spelling::did_you_mean;

/// Length histograms shipped with the program, by their path in the repository.
const EMBEDDED: [(&str, &str); 2] = [
    (
        "data/traces/azure-code-2023.csv",
        include_str!("../../data/traces/azure-code-2023.csv"),
    ),
    (
        "data/traces/azure-conv-2023.csv",
        include_str!("../../data/traces/azure-conv-2023.csv"),
    ),
];

/// Files shipped with the program: path in the repository, and content.
pub fn embedded_files() -> &'static [(&'static str, &'static str)] {
    &EMBEDDED
}

/// The shipped file of this path, or of this name with or without its extension.
fn shipped(file: &Path) -> Option<(&'static str, &'static str)> {
    let wanted = file.strip_prefix(".").unwrap_or(file);
    let is_wanted = |path: &Path| {
        let names = [path.file_name(), path.file_stem()];
        wanted == path || names.contains(&Some(wanted.as_os_str()))
    };
    EMBEDDED
        .into_iter()
        .find(|(path, _)| is_wanted(Path::new(path)))
}

/// A data file that was found.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// What messages call it.
    pub name: PathBuf,
    /// Its content.
    pub text: Cow<'static, str>,
}

impl DataFile {
    /// Content hash, for run identities: hex of the first 16 bytes of blake3.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::hash(self.text.as_bytes());
        hash.to_hex()[..32].to_owned()
    }
}

/// Finds data files.
#[derive(Debug, Clone, Default)]
pub struct DataFiles {
    spec_dir: Option<PathBuf>,
}

impl DataFiles {
    /// Looks next to a specification in `spec_dir` too.
    pub fn beside(spec_dir: Option<PathBuf>) -> Self {
        Self { spec_dir }
    }

    /// Where `file` lies on disk: as given (relative to the working directory),
    /// or relative to the specification. What is no regular file is found if
    /// nothing else is: reading it says what it is.
    pub fn locate(&self, file: &Path) -> Option<PathBuf> {
        let beside = self.spec_dir.as_ref().map(|dir| dir.join(file));
        let places = || [Some(file.to_path_buf()), beside.clone()];
        let found = |is_there: fn(&PathBuf) -> bool| places().into_iter().flatten().find(is_there);
        found(|path| path.is_file()).or_else(|| found(|path| path.exists()))
    }

    /// Reads `file` from disk, or from what is embedded in the program.
    pub fn read(&self, file: &Path) -> Result<DataFile, WorkloadError> {
        if let Some(path) = self.locate(file) {
            let bytes = input_file::read(&path, InputKind::Trace)
                .map_err(|e| WorkloadError::in_file(&path, format!("cannot be read: {e}")))?;
            let text = String::from_utf8(bytes).map_err(|e| not_utf8(&path, &e))?;
            return Ok(DataFile {
                name: path,
                text: Cow::Owned(text),
            });
        }
        match shipped(file) {
            Some((path, text)) => Ok(DataFile {
                name: path.into(),
                text: Cow::Borrowed(text),
            }),
            None => Err(self.not_found(file)),
        }
    }

    fn not_found(&self, file: &Path) -> WorkloadError {
        let mut message = "no such file in the working directory".to_owned();
        if let Some(dir) = &self.spec_dir {
            message += &format!(", nor in {}", show_dir(dir));
        }
        let names: Vec<&str> = EMBEDDED.iter().map(|(path, _)| *path).collect();
        message += &format!("; built in are {}", names.join(", "));
        let stems = EMBEDDED.map(|(path, _)| Path::new(path).file_stem());
        let stems = stems.into_iter().flatten().filter_map(|stem| stem.to_str());
        let wanted = file.to_string_lossy();
        message += &match wanted.contains(['/', '.']) {
            true => did_you_mean(&wanted, names),
            false => did_you_mean(&wanted, stems),
        };
        WorkloadError::in_file(file, message)
    }
}

fn show_dir(dir: &Path) -> String {
    if dir.as_os_str().is_empty() {
        "the directory of the specification".to_owned()
    } else {
        dir.display().to_string()
    }
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> WorkloadError {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = valid.iter().filter(|&&b| b == b'\n').count() + 1;
    let line_start = valid
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&valid[line_start..])
        .chars()
        .count()
        + 1;
    WorkloadError::at(path, line, column, "not UTF-8 text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_are_found_from_anywhere_and_misspellings_named() {
        let files = DataFiles::beside(Some("no/such/dir".into()));
        let found = files.read(Path::new("./data/traces/azure-conv-2023.csv"));
        assert!(found.unwrap().text.starts_with('#'));
        for name in ["azure-conv-2023", "azure-conv-2023.csv"] {
            let by_name = files.read(Path::new(name)).unwrap();
            assert_eq!(by_name.name, Path::new("data/traces/azure-conv-2023.csv"));
        }
        let error = files.read(Path::new("azure-conv-2032")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("did you mean `azure-conv-2023`?"),
            "{error}"
        );
        let error = files.read(Path::new("data/traces/azure-conf-2023.csv"));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("did you mean `data/traces/azure-conv-2023.csv`?"));
        assert!(message.contains("no/such/dir"), "{message}");
    }

    #[test]
    fn files_beside_the_specification_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.csv"), b"ab\nc\xff").unwrap();
        let files = DataFiles::beside(Some(dir.path().to_path_buf()));
        let message = files.read(Path::new("bad.csv")).unwrap_err().to_string();
        assert!(
            message.ends_with("bad.csv:2:2: not UTF-8 text"),
            "{message}"
        );
    }
}
