//! `vidur-sweep report`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::CliResult;
use super::pareto::{failure, open, printed, terminal_width};
use crate::report::{ReportFormat, write_page_and_gather, write_report};

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
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let reader = open(&args.results)?;
    let report = write_page_and_gather(&reader, Some(args.limit)).map_err(failure)?;
    let mut out = io::stdout().lock();
    printed(write_report(
        &report,
        args.format,
        terminal_width(),
        &mut out,
    ))?;
    Ok(ExitCode::SUCCESS)
}
