//! `vidur-sweep pareto`.

use super::{CliError, CliResult};

/// Pareto frontier of a result directory.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
