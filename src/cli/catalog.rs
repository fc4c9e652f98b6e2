//! `vidur-sweep catalog`.

use super::{CliError, CliResult};

/// List models, devices, backends, schedulers, traces.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
