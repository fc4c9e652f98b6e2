//! `vidur-sweep completions`.

use super::{CliError, CliResult};

/// Print shell completions.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
