//! `vidur-sweep run`: simulate a sweep and print its best deployments.

use super::session::{Done, SessionArgs, tell_prices};
use super::sweep::SweepArgs;
use super::{CliResult, capacity};
use crate::report::Demand;

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

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let plan = args.sweep.plan()?;
    if plan.spec().capacity.is_some() {
        return capacity::study(&args.sweep, &args.session, &plan, &Demand::default());
    }
    let criteria = args.sweep.criteria(&plan)?;
    let runner = args.session.runner(&args.sweep, &plan)?;
    let done = args
        .session
        .execute(&args.sweep, &plan, &runner, criteria, &plan.spec().name);
    if !args.session.is_quiet() {
        tell_prices(&runner);
    }
    match done? {
        Done::Interrupted(code) => Ok(code),
        Done::Finished(manifest, claimed) => {
            args.session.print(*manifest.clone(), &claimed)?;
            args.session.exit_code(&manifest, manifest.runs.slo_met > 0)
        }
    }
}
