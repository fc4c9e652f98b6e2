//! `vidur-sweep validate`.

use super::{CliError, CliResult};

/// Check a sweep specification.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
