//! `vidur-sweep profiles`.

use std::path::PathBuf;

use super::{CliError, CliResult};
use crate::execution_time::silicon::{self, SiliconError};

/// Import and list operator profiles.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Regenerate operator tables from somebody's measurements.
    #[command(subcommand)]
    Import(Import),
}

#[derive(clap::Subcommand)]
enum Import {
    /// From NVIDIA's Python package `aiconfigurator-core`, unpacked.
    Aiconfigurator(Aiconfigurator),
}

#[derive(clap::Args)]
struct Aiconfigurator {
    /// Directory the package was unpacked into (`unzip` of the wheel, or a
    /// site-packages directory).
    package: PathBuf,
    /// Directory the tables are written to.
    #[arg(long, default_value = "data/silicon")]
    out: PathBuf,
    /// Devices to import, separated by commas (default: all of the selection).
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    match args.command {
        Command::Import(Import::Aiconfigurator(import)) => import_aiconfigurator(&import),
    }
}

fn import_aiconfigurator(args: &Aiconfigurator) -> CliResult {
    let manifest = silicon::import_aiconfigurator(&args.package, &args.out, &args.systems)?;
    let rows: usize = manifest.tables.iter().map(|entry| entry.rows).sum();
    let bytes: usize = manifest.tables.iter().map(|entry| entry.bytes).sum();
    println!(
        "{}: {} tables, {rows} rows, {bytes} bytes, from {}",
        args.out.display(),
        manifest.tables.len(),
        manifest.package
    );
    Ok(std::process::ExitCode::SUCCESS)
}

impl From<SiliconError> for CliError {
    fn from(error: SiliconError) -> Self {
        match error {
            SiliconError::Write { .. } | SiliconError::Encoding { .. } => {
                Self::Failure(error.to_string())
            }
            other => Self::BadInput(other.to_string()),
        }
    }
}
