//! What the commands that carry out a sweep have in common: where results go, what is told
//! meanwhile, and how it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::error::NOTHING_FEASIBLE;
use super::interrupt::{self, stop_on_signals};
use super::output::{say, tell_notes};
use super::pareto::{failure, print_report};
use super::sweep::SweepArgs;
use super::values::whole;
use super::{CliError, CliResult};
use crate::explore::{
    CheckOne, Event, Fingerprints, IfPresent, Observer, Plan, RunOne, Session, SessionEnd,
    SessionError, SessionOptions, Shard, Simulate, is_overload, preflight,
};
use crate::external::{AllowPrograms, TIME_LIMIT_S};
use crate::host_memory::host_memory_bytes;
use crate::report::{ReportFormat, write_page_and_gather};
use crate::results::{ClaimedDirectory, Manifest, SummaryReader};
use crate::select::{Criteria, Selection};
use crate::simulator::run_memory_bytes;
use crate::spec::SearchConfig;

/// Deployments in the table.
pub(super) const TABLE_ROWS: usize = 10;

/// Where results go and what is told of them.
#[derive(clap::Args)]
pub struct SessionArgs {
    /// Result directory; default: results/NAME
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Keep the runs that are finished and do the others
    #[arg(long)]
    resume: bool,

    /// Replace the results that are there
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// Run the program that the specification names (`network.simai_binary`)
    ///
    /// A specification may come from anybody, so that it says so is not enough.
    #[arg(long)]
    allow_programs: bool,

    /// How long a program may take for one answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIME_LIMIT_S, requires = "allow_programs",
          value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    program_time_limit: u32,

    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,

    /// Print the result and errors, nothing else
    #[arg(long, short)]
    quiet: bool,

    /// Show no progress bar (there is none anyway unless standard error is a terminal)
    #[arg(long)]
    no_progress: bool,

    /// End with exit code 3 if no configuration meets the targets
    #[arg(long)]
    require_feasible: bool,
}

/// What a person should know of the prices of all runs.
pub(super) fn tell_prices(runner: &Simulate) {
    for warning in runner.price_warnings() {
        say!("warning: {warning}");
    }
}

/// How a sweep was left.
pub(super) enum Done {
    /// Before its end, with this exit code.
    Interrupted(ExitCode),
    /// Complete, in this directory.
    Finished(Box<Manifest>, ClaimedDirectory),
}

impl SessionArgs {
    /// What simulates single runs, if the programs that they name may be run.
    pub(super) fn runner(&self, sweep: &SweepArgs, plan: &Plan) -> Result<Simulate, CliError> {
        let runner = sweep.runner(plan);
        match (&plan.spec().program_named_at, self.allow_programs) {
            (Some(place), false) => Err(program_refused(place)),
            (_, true) => {
                let leave = AllowPrograms::by_option(self.program_time_limit);
                Ok(runner.allowing_programs(leave))
            }
            (None, false) => Ok(runner),
        }
    }

    /// Runs what is left of a sweep into its directory, which is called `name` unless the
    /// user says otherwise.
    pub(super) fn execute<R: RunOne + CheckOne + Fingerprints>(
        &self,
        sweep: &SweepArgs,
        plan: &Plan,
        runner: &R,
        criteria: Criteria,
        name: &str,
    ) -> Result<Done, CliError> {
        let identity =
            preflight(plan, runner).map_err(|problem| sweep.bad_configuration(plan, &problem))?;
        let dir = self.directory(name, sweep.shard);
        let claimed = ClaimedDirectory::for_sweep(&dir).map_err(|error| cli_error(error.into()))?;
        let options = SessionOptions {
            dir: &claimed,
            shard: sweep.shard(),
            threads: self.threads(sweep, plan, identity.requests_per_run),
            if_present: self.if_present(),
            stop: stop_on_signals()?,
        };
        let session = Session::open(plan, identity, options).map_err(cli_error)?;
        self.announce(plan, &session, &claimed);
        let total = session.total();
        let mut progress = session.progress(self.quiet || self.no_progress);
        let mut selection = Selection::new(criteria, plan.axis_columns());
        let mut overloads = Overloads::default();
        let observers: &mut [&mut dyn Observer] = &mut [&mut progress, &mut overloads];
        let end = session.run(runner, observers, &mut selection);
        progress.finish();
        if !self.quiet {
            tell_notes(overloads.note().as_slice());
        }
        self.conclude(end.map_err(cli_error)?, total, claimed)
    }

    fn directory(&self, name: &str, shard: Option<Shard>) -> PathBuf {
        let whole = self.out.clone();
        let whole = whole.unwrap_or_else(|| Path::new("results").join(name));
        match shard {
            None => whole,
            Some(shard) => whole.join(format!("shard-{}-of-{}", shard.number(), shard.count())),
        }
    }

    /// Worker threads: no more than there is memory for, as each works on a run.
    fn threads(&self, sweep: &SweepArgs, plan: &Plan, requests_per_run: u32) -> usize {
        let wanted = sweep.num_threads();
        let kept = plan.spec().output.requests;
        let run_bytes = run_memory_bytes(requests_per_run, kept.every()).max(1);
        let possible = host_memory_bytes().map_or(u64::MAX, |bytes| (bytes / run_bytes).max(1));
        let threads = usize::try_from(possible).unwrap_or(usize::MAX).min(wanted);
        if threads < wanted && !self.quiet {
            let note = format!(
                "{threads} of {wanted} threads have memory for runs of {requests_per_run} requests"
            );
            tell_notes(&[note]);
        }
        threads
    }

    /// How to print the result.
    pub(super) fn format(&self) -> ReportFormat {
        self.format
    }

    /// Whether only the result and errors are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    fn if_present(&self) -> IfPresent {
        match (self.resume, self.force) {
            (true, _) => IfPresent::Resume,
            (_, true) => IfPresent::Replace,
            _ => IfPresent::Refuse,
        }
    }

    fn announce(&self, plan: &Plan, session: &Session<'_>, claimed: &ClaimedDirectory) {
        for damaged in session.damaged() {
            say!("warning: {damaged}");
        }
        if !claimed.is_binding() {
            say!(
                "warning: {}: its file system has no locks; nothing keeps another sweep from \
                 writing there at the same time",
                claimed.path().display()
            );
        }
        if self.quiet {
            return;
        }
        let before = match session.done_before() {
            0 => String::new(),
            done => format!(", {done} of them done before"),
        };
        let (name, dir) = (&plan.spec().name, claimed.path().display());
        say!(
            "{name}: {} points{before}, results in {dir}",
            session.total()
        );
        tell_notes(&plan.spec().notes);
        if let SearchConfig::Random { samples } = plan.spec().search
            && plan.passed_over() > 0
        {
            let (drawn, passed_over) = (plan.num_points(), plan.passed_over());
            say!(
                "drew {drawn} points of {samples} wanted; constraints exclude {passed_over} more \
                 that were drawn"
            );
        }
    }

    /// Says how it ended.
    fn conclude(
        &self,
        end: SessionEnd,
        total: u64,
        claimed: ClaimedDirectory,
    ) -> Result<Done, CliError> {
        let manifest = match end {
            SessionEnd::Finished { manifest, .. } => manifest,
            SessionEnd::AlreadyComplete { manifest } => {
                if !self.quiet {
                    say!("every run was done before");
                }
                manifest
            }
            SessionEnd::Interrupted { kept } => {
                say!(
                    "interrupted: {kept} of {total} runs are kept in {}; \
                     the same command with --resume goes on",
                    claimed.path().display()
                );
                return Ok(Done::Interrupted(ExitCode::from(interrupt::exit_code())));
            }
        };
        let excluded = total - manifest.runs.total;
        if excluded > 0 && !self.quiet {
            say!("constraints exclude {excluded} of {total} runs");
        }
        Ok(Done::Finished(Box::new(manifest), claimed))
    }

    /// The exit code of a finished sweep, in which something was found or not.
    pub(super) fn exit_code(&self, manifest: &Manifest, found: bool) -> CliResult {
        exit_code(manifest, found, self.require_feasible)
    }

    /// The page, and the best deployments on standard output.
    pub(super) fn print(
        &self,
        manifest: Manifest,
        claimed: &ClaimedDirectory,
    ) -> Result<(), CliError> {
        // Nobody else has written since it was finished or verified.
        let reader = SummaryReader::of_finished(claimed.path(), manifest);
        let limit = (self.format() == ReportFormat::Table).then_some(TABLE_ROWS);
        let report = write_page_and_gather(&reader, claimed, limit).map_err(failure)?;
        print_report(&report, self.format())
    }
}

/// The exit code of a finished sweep, in which something was found or not.
pub(super) fn exit_code(manifest: &Manifest, found: bool, require_feasible: bool) -> CliResult {
    if manifest.runs.failed > 0 {
        let (failed, total) = (manifest.runs.failed, manifest.runs.total);
        say!("error: {failed} of {total} runs failed; `reason` in summary.parquet says why");
        return Ok(ExitCode::FAILURE);
    }
    match require_feasible && !found {
        true => Ok(ExitCode::from(NOTHING_FEASIBLE)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn program_refused(place: &str) -> CliError {
    CliError::BadInput(format!(
        "{place}: key `network.simai_binary` names a program; programs are run only with \
         --allow-programs: give it if you trust this specification"
    ))
}

/// Runs that were offered more than they could serve.
#[derive(Default)]
struct Overloads {
    runs: u64,
    /// The first of them by index, and its remark.
    first: Option<(u64, String)>,
}

impl Overloads {
    fn note(&self) -> Option<String> {
        let (index, remark) = self.first.as_ref()?;
        let runs = self.runs;
        let run = if runs == 1 { "run" } else { "runs" };
        Some(format!(
            "{runs} {run} could not serve the load: run {index}: {remark}"
        ))
    }
}

impl Observer for Overloads {
    fn observe(&mut self, event: &Event) {
        let Event::Finished(result) = event else {
            return;
        };
        let Some(remark) = result.reason.as_deref().filter(|r| is_overload(r)) else {
            return;
        };
        self.runs += 1;
        let is_first = |(index, _): &(u64, String)| result.index < *index;
        if self.first.as_ref().is_none_or(is_first) {
            self.first = Some((result.index, remark.to_owned()));
        }
    }
}

fn cli_error(error: SessionError) -> CliError {
    match error {
        SessionError::Results(error) if error.is_bad_input() => {
            CliError::BadInput(error.to_string())
        }
        other => CliError::Failure(other.to_string()),
    }
}
