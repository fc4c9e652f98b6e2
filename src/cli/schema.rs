//! `vidur-sweep schema`.

use super::{CliError, CliResult};

/// Print the JSON schema of sweep specifications.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
