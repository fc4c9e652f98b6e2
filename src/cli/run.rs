//! `vidur-sweep run`.

use super::{CliError, CliResult};

/// Simulate every configuration of a sweep.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
