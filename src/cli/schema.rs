//! `vidur-sweep schema`.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

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
    let mut schema = Vec::new();
    // Nested as it is, indentation is most of it.
    let format = PrettyFormatter::with_indent(b" ");
    let mut serializer = Serializer::with_formatter(&mut schema, format);
    let written = crate::spec::sweep_schema().serialize(&mut serializer);
    written.map_err(|e| CliError::Failure(e.to_string()))?;
    schema.push(b'\n');
    print_data(&schema)?;
    Ok(ExitCode::SUCCESS)
}
