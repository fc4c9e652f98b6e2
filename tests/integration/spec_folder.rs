//! A folder with a specification, in which the program runs.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// The folder; tests of a kind put what they ask of it around it.
pub struct SpecFolder(TempDir);

impl SpecFolder {
    pub fn new(spec: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write("spec.yaml", spec);
        folder
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(path, text).expect("a file");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
        command
            .current_dir(self.0.path())
            .args(arguments)
            .output()
            .expect("it starts")
    }

    /// What a command that succeeds prints.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}
