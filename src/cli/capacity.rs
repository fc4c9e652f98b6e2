//! `vidur-sweep capacity`: how much load each configuration of a sweep holds.

use super::output::{output_width, print_as};
use super::pareto::failure;
use super::session::{Done, SessionArgs, TABLE_ROWS, tell_prices};
use super::sweep::SweepArgs;
use super::values::{positive, share, whole};
use super::{CliError, CliResult};
use crate::explore::{FindCapacity, Plan};
use crate::report::{
    CapacityReport, Demand, ReportFormat, write_capacity, write_page_and_gather_capacity,
};
use crate::results::{ClaimedDirectory, Manifest, SummaryReader, write_capacity_table};

/// Find the highest load that each configuration holds within the targets
///
/// Of every configuration of the sweep: the requests per second up to which all targets
/// hold, with a 95 % interval, and the target that a little more load breaks. Simulations
/// become as long as that takes. With --load or --growth also the cheapest way to hold a
/// given load.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  vidur-sweep capacity sweeps/deepseek-capacity.yaml
      what each deployment holds, cheapest per request first; results in
      results/NAME-capacity
  vidur-sweep capacity sweeps/deepseek-capacity.yaml --load 40
      and what it takes to hold 40 requests/s
  vidur-sweep capacity sweeps/deepseek-capacity.yaml --growth 40,60,90 --format json
      and what a forecast takes, for programs (as CSV: that alone)
  vidur-sweep capacity sweeps/deepseek.yaml --set qps=8
      of a sweep over loads, without them: the search starts at 8 requests/s
  vidur-sweep capacity sweeps/deepseek-capacity.yaml --tolerance 5%
      a fifth of the effort, or less

Targets are those of `slo`: latencies (not their largest), slo_attainment and
per_request. `base.qps` is where the search starts, if it is given. `precision`,
`max_requests`, `workload.requests` and `output` do not count: simulations become as
long as the tolerance takes.")]
pub struct Args {
    #[command(flatten)]
    sweep: SweepArgs,

    /// Half-width of the interval of a capacity, as a share of it; default: 1%
    #[arg(long, value_name = "SHARE", value_parser = share, allow_hyphen_values = true)]
    tolerance: Option<String>,

    /// Measured requests of one simulation, at most; default: 300000
    #[arg(long, value_name = "N", value_parser = whole(100..=100_000_000u32), allow_negative_numbers = true)]
    max_requests: Option<u32>,

    /// Also tell what it takes to hold this load, requests per second
    #[arg(long, value_name = "QPS", value_parser = positive, allow_negative_numbers = true)]
    load: Option<f64>,

    /// Also tell what each of these loads takes, requests per second
    #[arg(long, value_name = "QPS,QPS...", value_parser = positive, value_delimiter = ',', allow_negative_numbers = true)]
    growth: Vec<f64>,

    #[command(flatten)]
    session: SessionArgs,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let tolerance = args.tolerance.iter();
    let changes: Vec<String> = tolerance
        .map(|share| format!("capacity.tolerance={share}"))
        .chain(
            args.max_requests
                .map(|most| format!("capacity.max_requests={most}")),
        )
        .collect();
    let plan = args.sweep.capacity_plan(&changes)?;
    let demand = Demand {
        load: args.load,
        growth: args.growth,
    };
    study(&args.sweep, &args.session, &plan, &demand)
}

/// Carries out a plan that looks for capacities.
pub(super) fn study(
    sweep: &SweepArgs,
    session: &SessionArgs,
    plan: &Plan,
    demand: &Demand,
) -> CliResult {
    let criteria = sweep.criteria(plan)?;
    let search = plan.spec().capacity.clone().unwrap_or_default();
    let simulate = session.runner(sweep, plan)?;
    let runner = FindCapacity::new(simulate, criteria.bounds.clone(), search);
    let name = format!("{}-capacity", plan.spec().name);
    let done = session.execute(sweep, plan, &runner, criteria, &name);
    if !session.is_quiet() {
        tell_prices(runner.simulate());
    }
    match done? {
        Done::Interrupted(code) => Ok(code),
        Done::Finished(manifest, claimed) => {
            let found = print_capacities(*manifest.clone(), &claimed, demand, session.format())?;
            session.exit_code(&manifest, found)
        }
    }
}

/// Completes the directory of a study and prints what came out of it; whether anything
/// holds a load.
pub(super) fn print_capacities(
    manifest: Manifest,
    claimed: &ClaimedDirectory,
    demand: &Demand,
    format: ReportFormat,
) -> Result<bool, CliError> {
    let report = conclude(manifest, claimed, demand)?;
    let width = output_width();
    print_as(format, |out| {
        write_capacity(&report, format, width, TABLE_ROWS, out)
    })?;
    Ok(!report.holders.is_empty())
}

/// Completes the directory and condenses it.
fn conclude(
    manifest: Manifest,
    claimed: &ClaimedDirectory,
    demand: &Demand,
) -> Result<CapacityReport, CliError> {
    // Nobody else has written since it was finished or verified.
    let reader = SummaryReader::of_finished(claimed.path(), manifest);
    write_capacity_table(&reader, claimed).map_err(|error| failure(error.into()))?;
    write_page_and_gather_capacity(&reader, claimed, demand).map_err(failure)
}
