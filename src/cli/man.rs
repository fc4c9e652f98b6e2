//! `vidur-sweep man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{CliError, CliResult};

/// Write manual pages, one per command, into a folder.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidur-sweep man pages/man1
      then `man -M pages vidur-sweep-run`; in ~/.local/share/man/man1 they are found
      by themselves")]
pub struct Args {
    /// Folder for vidur-sweep.1, vidur-sweep-run.1, ...; made if it is not there
    dir: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let failure = |error| CliError::Failure(format!("{}: {error}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).map_err(failure)?;
    let command = super::Cli::command();
    clap_mangen::generate_to(command, &args.dir).map_err(failure)?;
    Ok(ExitCode::SUCCESS)
}
