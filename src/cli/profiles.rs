//! `vidur-sweep profiles`.

use super::{CliError, CliResult};

/// Import and list operator profiles.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
