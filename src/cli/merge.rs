//! `vidur-sweep merge`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::capacity::print_capacities;
use super::output::say;
use super::pareto::{failure, print_report};
use super::session::{TABLE_ROWS, exit_code};
use super::{CliError, CliResult};
use crate::report::{Demand, ReportFormat, write_page_and_gather};
use crate::results::{
    ClaimedDirectory, DirectoryState, Existing, Manifest, Merge, Merged, ResultError,
    SummaryReader, directory_state,
};
use crate::select::{Criteria, Selection};
use crate::spec::is_capacity_study;

/// Unite result directories of one sweep
///
/// Shards, or what several machines or interrupted sessions did of a sweep, become what one
/// machine would have written: the same bytes, but for times by the clock. Frontier and page
/// are made of all runs. What does not belong together is refused with the reason; the
/// directories that are read are not changed.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  vidur-sweep run sweeps/deepseek.yaml --shard 1/2      on one machine
  vidur-sweep run sweeps/deepseek.yaml --shard 2/2      on another
  vidur-sweep merge results/whole results/deepseek/shard-1-of-2 results/deepseek/shard-2-of-2
      the whole sweep in results/whole
  vidur-sweep merge whole monday tuesday --partial
      what two interrupted sessions did; `run SPEC --out whole --resume` does the rest")]
pub struct Args {
    /// Directory to write into
    out: PathBuf,

    /// Result directories to unite, finished or not
    #[arg(value_name = "IN", required = true)]
    inputs: Vec<PathBuf>,

    /// Replace the results that are there
    #[arg(long)]
    force: bool,

    /// Write what there is even if runs are missing, for `run --resume` to go on with
    ///
    /// Runs are kept in groups of neighbours: of a group that is not complete nothing is
    /// kept. A shard has a run of every group, so without one of the shards there is none.
    #[arg(long)]
    partial: bool,

    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,

    /// Print the result and errors, nothing else
    #[arg(long, short)]
    quiet: bool,

    /// End with exit code 3 if no configuration meets the targets
    #[arg(long)]
    require_feasible: bool,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let merge = Merge::open(&args.inputs).map_err(|error| failure(error.into()))?;
    if merge.missing() > 0 && !args.partial {
        return Err(incomplete(&merge));
    }
    let existing = args.existing()?;
    let criteria = Criteria::new(merge.slo(), merge.objectives(), &merge.axes());
    let criteria = criteria.map_err(|error| CliError::BadInput(error.to_string()))?;
    let mut selection = Selection::new(criteria, &merge.axes());
    let claimed = ClaimedDirectory::for_sweep(&args.out).map_err(|error| failure(error.into()))?;
    let (total, missing) = (merge.total(), merge.missing());
    let is_study = is_capacity_study(merge.spec_yaml());
    if !args.quiet {
        let inputs = match args.inputs.len() {
            1 => "one directory".to_owned(),
            inputs => format!("{inputs} directories"),
        };
        let (name, out) = (merge.name(), args.out.display());
        say!("{name}: {total} points from {inputs}, results in {out}");
    }
    let merged = merge.write(&claimed, existing, &mut selection);
    match merged.map_err(|error| failure(error.into()))? {
        Merged::Unfinished(kept) => {
            say!(
                "{missing} of {total} runs are missing; {kept} are kept in {}: `run SPEC --out {} \
                 --resume` goes on",
                args.out.display(),
                args.out.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Merged::Finished(manifest) => args.print(*manifest, &claimed, is_study),
    }
}

/// Why directories that do not have all runs are not united.
fn incomplete(merge: &Merge) -> CliError {
    let (total, missing) = (merge.total(), merge.missing());
    let gaps = merge.gaps();
    let gaps = match gaps.is_empty() {
        true => String::new(),
        false => format!(" ({})", gaps.join("; ")),
    };
    CliError::BadInput(format!(
        "{missing} of {total} runs are in none of the directories{gaps}; do them first (`run SPEC \
         --shard K/N`, `run SPEC --resume`), or give --partial to keep what there is"
    ))
}

impl Args {
    /// What may be done with what is in the directory.
    fn existing(&self) -> Result<Existing, CliError> {
        let bad = |why: &str| CliError::BadInput(format!("{}: {why}", self.out.display()));
        let same = |dir: &PathBuf| match (dir.canonicalize(), self.out.canonicalize()) {
            (Ok(dir), Ok(out)) => dir == out,
            _ => dir == &self.out,
        };
        if self.inputs.iter().any(same) {
            return Err(bad(
                "is one of the directories to unite; name another one first, to write into",
            ));
        }
        let state = directory_state(&self.out).map_err(|error: ResultError| failure(error.into()));
        match (state?, self.force) {
            (DirectoryState::Complete | DirectoryState::InProgress { .. }, false) => Err(bad(
                "already holds results; --force replaces them, or name another directory first",
            )),
            (_, true) => Ok(Existing::Replace),
            (_, false) => Ok(Existing::Keep),
        }
    }

    /// Completes the directory and prints what a sweep prints at its end.
    fn print(&self, manifest: Manifest, claimed: &ClaimedDirectory, is_study: bool) -> CliResult {
        let found = match is_study {
            true => print_capacities(manifest.clone(), claimed, &Demand::default(), self.format)?,
            false => {
                let reader = SummaryReader::of_finished(claimed.path(), manifest.clone());
                let limit = (self.format == ReportFormat::Table).then_some(TABLE_ROWS);
                let report = write_page_and_gather(&reader, claimed, limit).map_err(failure)?;
                print_report(&report, self.format)?;
                report.meeting_targets > 0
            }
        };
        exit_code(&manifest, found, self.require_feasible)
    }
}
