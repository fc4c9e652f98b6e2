//! `vidur-sweep report`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::pareto::{failure, open, print_report};
use super::values::whole;
use super::{CliError, CliResult};
use crate::output_file::LockError;
use crate::report::{GatherOptions, ReportFormat, gather, write_page_and_gather};
use crate::results::{ClaimedDirectory, DirectoryState, ResultError, directory_state};

/// What came out of a sweep: best deployments, what binds them, and report.html.
///
/// Prints what `run` prints at its end, and writes the page anew.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep report results/deepseek
  vidur-sweep report results/deepseek --limit 3 --format json")]
pub struct Args {
    /// Result directory.
    results: PathBuf,
    /// Deployments to list.
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = whole(0..=usize::MAX), allow_negative_numbers = true)]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let dir = &args.results;
    let state = directory_state(dir).map_err(|error| failure(error.into()))?;
    let claimed = match state {
        DirectoryState::Complete | DirectoryState::InProgress { .. } => {
            Some(ClaimedDirectory::existing(dir))
        }
        DirectoryState::Empty | DirectoryState::Foreign => None,
    };
    // Where there are no results it says so.
    let reader = match claimed {
        Some(Err(error @ ResultError::Locked(LockError::Held { .. }))) => {
            return Err(failure(error.into()));
        }
        _ => open(dir)?,
    };
    let problem = match claimed {
        Some(Ok(claimed)) => {
            let report = write_page_and_gather(&reader, &claimed, Some(args.limit));
            print_report(&report.map_err(failure)?, args.format)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Err(error)) => error.to_string(),
        None => "no results".to_owned(),
    };
    let options = GatherOptions {
        limit: Some(args.limit),
        ..GatherOptions::default()
    };
    print_report(&gather(&reader, &options).map_err(failure)?, args.format)?;
    Err(CliError::Failure(format!(
        "{}: nothing can be written here, so there is no new report.html: {problem}",
        dir.display()
    )))
}
