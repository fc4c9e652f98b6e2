//! How a command ends.

use std::process::ExitCode;

/// Everything a command may end with besides success.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Bad input: exit code 2. The message is complete.
    #[error("{0}")]
    BadInput(String),
    /// Something that should not fail did (disk full, ...): exit code 1.
    #[error("{0}")]
    Failure(String),
}

/// Result of a command: the exit code to end with.
pub type CliResult = Result<ExitCode, CliError>;

/// Exit code of bad input.
pub(super) const BAD_INPUT: u8 = 2;

/// Exit code where no configuration meets the targets and that was required.
pub(super) const NOTHING_FEASIBLE: u8 = 3;
