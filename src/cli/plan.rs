//! `vidur-sweep plan`.

use super::{CliError, CliResult};

/// Show what a sweep would run.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
