//! `vidur-sweep schema`.

use std::process::ExitCode;

use super::output::print_data;
use super::{CliError, CliResult};

/// Print the JSON schema of sweep specifications.
///
/// Editors with YAML support complete and check specifications with it, for
/// example after `vidur-sweep schema > sweep.schema.json` and a first line
/// `# yaml-language-server: $schema=sweep.schema.json` in the specification.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep schema > sweep.schema.json")]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> CliResult {
    let schema = serde_json::to_string_pretty(&crate::spec::sweep_schema())
        .map_err(|e| CliError::Failure(e.to_string()))?;
    print_data((schema + "\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
