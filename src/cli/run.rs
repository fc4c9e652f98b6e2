//! `vidur-sweep run`: simulate a sweep and print its best deployments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::interrupt::{INTERRUPTED, stop_on_interrupt};
use super::sweep::{Format, SweepArgs};
use super::{CliError, CliResult, NOTHING_FEASIBLE};
use crate::explore::{
    Identity, IfPresent, Plan, Progress, Session, SessionEnd, SessionError, SessionOptions,
    Simulate, check_input,
};
use crate::report;
use crate::results::Manifest;
use crate::select::{Criteria, Selection};

/// Simulate every configuration of a sweep
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  vidur-sweep run sweeps/deepseek.yaml
      simulate on all cores, results in results/deepseek
  vidur-sweep run sweeps/deepseek.yaml --resume
      go on after an interruption, or a reboot: finished runs are kept
  vidur-sweep run sweeps/deepseek.yaml --set axes.qps=[5,10] --set slo.ttft_p90_s=1 --out results/strict
      change keys of the specification for this time
  vidur-sweep run sweeps/deepseek.yaml --shard 2/8
      the second eighth, results in results/deepseek/shard-2-of-8
  vidur-sweep run sweeps/deepseek.yaml --quiet --format json > best.json
      nothing but the result

The result directory holds summary.parquet (a row per run), pareto.parquet,
requests/*.parquet, timing.parquet, spec.yaml and manifest.json. A directory
without manifest.json is unfinished.")]
pub struct Args {
    #[command(flatten)]
    sweep: SweepArgs,

    /// Result directory; default: results/NAME
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Keep the runs that are finished and do the others
    #[arg(long)]
    resume: bool,

    /// Replace the results that are there
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

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

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let plan = args.sweep.plan()?;
    let runner = args.sweep.runner(&plan);
    let spec = plan.spec();
    let bad_input = |message: String| CliError::BadInput(message);
    let criteria = Criteria::new(&spec.slo, &spec.objectives, plan.axis_columns())
        .map_err(|error| bad_input(format!("{}: {error}", args.sweep.spec.display())))?;
    let shard = args.sweep.shard();
    check_input(&plan, shard.of(plan.num_runs()), &runner)
        .map_err(|reason| bad_input(format!("{}: {reason}", args.sweep.spec.display())))?;

    let dir = args.directory(&spec.name);
    let options = SessionOptions {
        dir: &dir,
        shard,
        threads: args.sweep.num_threads(),
        if_present: args.if_present(),
        stop: stop_on_interrupt()?,
    };
    let session = Session::open(&plan, identity(&plan, &runner)?, options).map_err(cli_error)?;
    args.announce(&plan, &session, &dir);
    let hidden = args.quiet || args.no_progress;
    let mut progress = Progress::new(session.total(), session.done_before(), hidden);
    let mut selection = Selection::new(criteria, plan.axis_columns());
    let end = session.run(&runner, &mut [&mut progress], &mut selection);
    progress.finish();
    args.conclude(end.map_err(cli_error)?, &dir)
}

impl Args {
    fn directory(&self, name: &str) -> PathBuf {
        let whole = self.out.clone();
        let whole = whole.unwrap_or_else(|| Path::new("results").join(name));
        match self.sweep.shard {
            None => whole,
            Some(shard) => whole.join(format!("shard-{}-of-{}", shard.number(), shard.count())),
        }
    }

    fn if_present(&self) -> IfPresent {
        match (self.resume, self.force) {
            (true, _) => IfPresent::Resume,
            (_, true) => IfPresent::Replace,
            _ => IfPresent::Refuse,
        }
    }

    fn announce(&self, plan: &Plan, session: &Session<'_>, dir: &Path) {
        if self.quiet {
            return;
        }
        let before = match session.done_before() {
            0 => String::new(),
            done => format!(", {done} of them done before"),
        };
        let (name, dir) = (&plan.spec().name, dir.display());
        eprintln!("{name}: {} runs{before}, results in {dir}", session.total());
        if plan.passed_over() > 0 {
            let (drawn, passed_over) = (plan.num_points(), plan.passed_over());
            eprintln!("drew {drawn} points; constraints exclude {passed_over} others drawn");
        }
    }

    /// Says how it ended, prints the result, and picks the exit code.
    fn conclude(&self, end: SessionEnd, dir: &Path) -> CliResult {
        let manifest = match end {
            SessionEnd::Finished { manifest, .. } => manifest,
            SessionEnd::AlreadyComplete { manifest } => {
                if !self.quiet {
                    eprintln!("every run was done before");
                }
                manifest
            }
            SessionEnd::Interrupted { kept, total } => {
                eprintln!(
                    "interrupted: {kept} of {total} runs are kept in {}; \
                     the same command with --resume goes on",
                    dir.display()
                );
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        todo!()
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
