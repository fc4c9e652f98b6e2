//! `vidur-sweep explain`.

use super::{CliError, CliResult};

/// Price steps operator by operator.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    Err(CliError::Failure("skeleton".into()))
}
