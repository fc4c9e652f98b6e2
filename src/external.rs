//! Other programs this one runs, as installed simulators and profilers.

use std::process::Output;

/// How a program that failed has ended: its status and the last line it said.
pub(crate) fn failure(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    let last = told.lines().rfind(|line| !line.trim().is_empty());
    let last = last.map_or_else(String::new, |line| format!(": {}", line.trim()));
    format!("{}{last}", output.status)
}
