//! `vidur-sweep plan`: what a sweep would run, without running it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use super::error::NOTHING_FEASIBLE;
use super::output::{output_width, print_data_with, print_text, tell_notes};
use super::sweep::SweepArgs;
use super::values::whole;
use super::{CliError, CliResult};
use crate::explore::progress::duration;
use crate::explore::survey::{CheckOne, Reasons};
use crate::explore::{Plan, RunOne, Simulate, Survey, preflight, survey};
use crate::report::{ReportFormat, TextColumn, TextTable, wrapped};
use crate::results::RunStatus;
use crate::spec::{Problem, Replicas, RunConfig, SearchConfig, value_label};

/// Requests simulated to measure the speed of this machine, per probe: so many, and
/// some for every replica.
const PROBE_REQUESTS: u32 = 1000;
const PROBE_REQUESTS_PER_REPLICA: u32 = 8;

/// Values of an axis shown in the table.
const VALUES_SHOWN: usize = 8;

/// Show what a sweep would run: counts, infeasible deployments, time
///
/// Nothing is written. Every configuration is resolved (does the model fit, do
/// its heads divide, ...) but not simulated; of large sweeps a random sample is,
/// and the counts are scaled up. The time is estimated from two probe runs.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  vidur-sweep plan sweeps/deepseek.yaml
  vidur-sweep plan sweeps/deepseek.yaml --set 'constraints=[total_gpus <= 32]'
  vidur-sweep plan sweeps/deepseek.yaml --shard 2/8
  vidur-sweep plan sweeps/deepseek.yaml --format json --no-estimate")]
pub struct Args {
    #[command(flatten)]
    sweep: SweepArgs,

    /// Configurations to resolve at most; the counts of larger sweeps are estimates
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = whole(1..=u64::MAX), allow_negative_numbers = true)]
    examine: u64,

    /// Do not simulate probes to estimate the time
    #[arg(long)]
    no_estimate: bool,

    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,

    /// End with exit code 3 if no configuration can be simulated
    #[arg(long)]
    require_feasible: bool,
}

/// What is printed. Counts are of the whole plan or shard, scaled up from the
/// examined part if not all of it was examined.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    search: &'static str,
    axes: Vec<Axis>,
    points: u64,
    replications: u32,
    shard: String,
    runs: u64,
    examined: u64,
    /// Points that random search drew and passed over.
    passed_over: u64,
    excluded: u64,
    infeasible: u64,
    feasible: u64,
    infeasible_reasons: Vec<Reason>,
    requests: u64,
    threads: usize,
    /// What a person should know of the requests.
    notes: Vec<String>,
    /// Absent: not measured, for there is nothing to measure or it was not wanted.
    /// Prices come from a program, so nothing can be measured.
    #[serde(skip)]
    needs_program: bool,
    estimate: Option<Estimate>,
}

#[derive(Debug, Serialize)]
struct Axis {
    name: String,
    values: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: String,
    runs: u64,
    example_run: u64,
    example: String,
}

#[derive(Debug, Serialize)]
struct Estimate {
    requests_per_s_per_thread: f64,
    time_s: f64,
}

/// The search for the load that each configuration holds.
const CAPACITY: &str = "capacity";

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let plan = args.sweep.plan()?;
    let runner = args.sweep.runner(&plan);
    preflight(&plan, &runner).map_err(|problem| args.sweep.bad_configuration(&plan, &problem))?;
    let threads = args.sweep.num_threads();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| CliError::Failure(format!("cannot start threads: {error}")))?;
    let indices = args.sweep.shard().of(plan.num_runs());
    let seed = plan.spec().seed;
    let found = pool.install(|| survey(&plan, indices, &runner, args.examine, seed));
    if let Some(reasons) = found.invalid.values().next() {
        let problem = Problem {
            key: reasons.key,
            reason: reasons.example.clone(),
        };
        return Err(args.sweep.bad_configuration(&plan, &problem));
    }
    // Programs are run by `run` alone, and only if told so.
    let needs_program = plan.spec().program_named_at.is_some();
    // How long a search for a load becomes shows while it goes on.
    let seeks_capacity = plan.spec().capacity.is_some();
    let rate = match args.no_estimate || needs_program || seeks_capacity {
        true => None,
        false => measure(&plan, &runner, &found),
    };
    let summary = summarise(&args, &plan, &found, rate, threads);
    tell_notes(&summary.notes);
    match args.format {
        ReportFormat::Table => print_text(&table(&summary, found.is_whole(), output_width()))?,
        ReportFormat::Json => print_data_with(|out| write_json(&summary, out))?,
        ReportFormat::Csv => print_data_with(|out| write_csv(&summary, out))?,
    }
    match args.require_feasible && found.feasible == 0 {
        true => Ok(ExitCode::from(NOTHING_FEASIBLE)),
        false => Ok(ExitCode::SUCCESS),
    }
}

/// Requests per second that one thread simulates: of the first and the last run that
/// can be simulated.
fn measure(plan: &Plan, runner: &Simulate, found: &Survey) -> Option<f64> {
    let (first, last) = found.feasible_ends?;
    let (mut requests, mut time_s) = (0.0, 0.0);
    for index in [first, last] {
        let config = plan.config(index).ok()?;
        let all = runner.requests(&config).ok()?;
        time_s += expected_s(runner, index, &config, all)?;
        requests += f64::from(all);
    }
    Some(requests / time_s)
}

/// How long a run will take: as long as it does shortened, and for the rest of its
/// requests as much more as half of those take. What it takes to set it up, much of it
/// where there are many replicas, is so counted once.
fn expected_s(runner: &Simulate, index: u64, config: &RunConfig, all: u32) -> Option<f64> {
    let replicas = match config.split_replicas() {
        Ok(Replicas::Disaggregated { prefill, decode }) => prefill.saturating_add(decode),
        _ => config.replicas,
    };
    let of_replicas = replicas.saturating_mul(PROBE_REQUESTS_PER_REPLICA);
    let whole = all.min(of_replicas.max(PROBE_REQUESTS));
    let time_s = |requests: u32| {
        let mut config = config.clone();
        config.workload.requests = Some(requests);
        // Most runs of a sweep find their prices in memory.
        runner.run(index, &config);
        let started = Instant::now();
        let result = runner.run(index, &config);
        (result.status == RunStatus::Ok).then(|| started.elapsed().as_secs_f64())
    };
    let whole_s = time_s(whole)?;
    if whole == all {
        return Some(whole_s);
    }
    let half = whole / 2;
    let more_s = (whole_s - time_s(half)?) / f64::from(whole - half);
    // Short times are noisy: a request costs something.
    let more_s = more_s.max(0.2 * whole_s / f64::from(whole));
    Some(whole_s + more_s * f64::from(all - whole))
}

fn summarise(
    args: &Args,
    plan: &Plan,
    found: &Survey,
    rate: Option<f64>,
    threads: usize,
) -> Summary {
    let spec = plan.spec();
    let requests = found.extrapolate(found.requests);
    let feasible = found.extrapolate(found.feasible);
    let mut reasons: Vec<Reason> = found
        .infeasible
        .iter()
        .map(|(kind, reasons)| reason(found, kind, reasons))
        .collect();
    reasons.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| a.reason.cmp(&b.reason)));
    Summary {
        name: spec.name.clone(),
        search: match spec.search {
            _ if spec.capacity.is_some() => CAPACITY,
            SearchConfig::Grid => "grid",
            SearchConfig::Capacity { .. } => CAPACITY,
            SearchConfig::Random { .. } => "random",
            SearchConfig::List { .. } => "list",
        },
        axes: axes(plan),
        points: plan.num_points(),
        replications: spec.replications,
        shard: args.sweep.shard().to_string(),
        runs: found.total,
        examined: found.examined,
        passed_over: plan.passed_over(),
        excluded: found.extrapolate(found.excluded),
        infeasible: found.extrapolate(found.num_infeasible()),
        feasible,
        infeasible_reasons: reasons,
        requests,
        threads,
        needs_program: spec.program_named_at.is_some(),
        notes: spec.notes.clone(),
        estimate: rate.map(|rate| Estimate {
            requests_per_s_per_thread: rate,
            // A run keeps one thread busy, mostly.
            time_s: requests as f64 / rate / (threads as u64).min(feasible.max(1)) as f64,
        }),
    }
}

fn reason(found: &Survey, kind: &str, reasons: &Reasons) -> Reason {
    Reason {
        reason: kind.to_owned(),
        runs: found.extrapolate(reasons.count),
        example_run: reasons.example_index,
        example: reasons.example.clone(),
    }
}

/// The axes with their values: of a list, those its columns have.
fn axes(plan: &Plan) -> Vec<Axis> {
    let spec = plan.spec();
    if let Some(points) = &spec.points {
        let values = |column: &String| points.column_values(column).into_iter().map(value_label);
        let columns = points.columns.iter();
        return columns
            .map(|column| Axis {
                name: column.clone(),
                values: values(column).collect(),
            })
            .collect();
    }
    spec.axis_values()
        .map(|(name, values)| Axis {
            name: name.to_owned(),
            values: values.iter().map(value_label).collect(),
        })
        .collect()
}

/// For people, in lines of at most `width` characters.
fn table(summary: &Summary, whole: bool, width: usize) -> String {
    let Summary { name, search, .. } = summary;
    let title = format!("{name}: {search} search, {} points", summary.points);
    let mut sections = vec![wrapped(&title, width)];
    if !summary.axes.is_empty() {
        sections.push(axes_table(&summary.axes).render(width));
    }
    sections.push(wrapped(&counts(summary, whole), width));
    let time = match &summary.estimate {
        Some(estimate) => format!(
            "about {} on {} threads, at {} requests per second and thread as measured now",
            duration(estimate.time_s),
            summary.threads,
            rounded_count(estimate.requests_per_s_per_thread)
        ),
        None if summary.needs_program => {
            "time unknown: `network.simai_binary` names a program, which `plan` does not run"
                .to_owned()
        }
        None if *search == CAPACITY => {
            "time unknown: it shows while the loads are looked for".to_owned()
        }
        None => "time unknown: nothing was measured".to_owned(),
    };
    sections.push(wrapped(&time, width));
    sections.join("\n")
}

fn axes_table(axes: &[Axis]) -> TextTable {
    let shown = |axis: &Axis| {
        let shown = axis.values.iter().take(VALUES_SHOWN).cloned();
        let mut shown = shown.collect::<Vec<_>>().join(", ");
        if axis.values.len() > VALUES_SHOWN {
            shown.push_str(", ...");
        }
        shown
    };
    let number = |axis: &Axis| axis.values.len().to_string();
    TextTable::new(
        1,
        [
            TextColumn::text("axis", axes.iter().map(|axis| axis.name.clone())),
            TextColumn::numbers("number", axes.iter().map(number)),
            TextColumn::text("values", axes.iter().map(shown)),
        ],
    )
}

/// What becomes of the runs, a line per count.
fn counts(summary: &Summary, whole: bool) -> String {
    let about = if whole { "" } else { "about " };
    let mut lines = Vec::new();
    let mut line = |count: u64, text: &str| lines.push(format!("{count:>10}  {text}"));
    let mut what = "runs".to_owned();
    if summary.replications > 1 {
        what += &format!(", {} replications of each point", summary.replications);
    }
    if summary.shard != "1/1" {
        what += &format!(", shard {}", summary.shard);
    }
    line(summary.runs, &what);
    if !whole {
        let what = "of them examined; what follows is scaled up";
        line(summary.examined, what);
    }
    if summary.passed_over > 0 {
        let what = "more points drawn, which constraints exclude";
        line(summary.passed_over, what);
    }
    line(summary.excluded, &format!("{about}excluded by constraints"));
    line(summary.infeasible, &format!("{about}infeasible"));
    for reason in &summary.infeasible_reasons {
        lines.push(format!("{:>14}  {}", reason.runs, reason.reason));
        if reason.example != reason.reason {
            let (run, example) = (reason.example_run, &reason.example);
            lines.push(format!("{:>16}run {run}: {example}", ""));
        }
    }
    let (feasible, requests) = (summary.feasible, summary.requests);
    lines.push(match summary.search {
        CAPACITY => format!(
            "{feasible:>10}  {about}to find the load of: some tens of simulations each, as long \
             as the tolerance takes"
        ),
        _ => format!("{feasible:>10}  {about}to simulate, {requests} requests"),
    });
    lines.join("\n")
}

/// A measured count: two digits of it, for the third is noise.
fn rounded_count(count: f64) -> String {
    if !(count.is_finite() && count >= 1.0) {
        return "less than 1".to_owned();
    }
    let unit = 10f64.powf((count.log10().floor() - 1.0).max(0.0));
    format!("{:.0}", (count / unit).round() * unit)
}

fn write_json(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, summary)?;
    writeln!(out)
}

/// One line per count, then one per axis and per reason.
fn write_csv(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(["what", "name", "count"])?;
    let counts = [
        ("points", summary.points),
        ("runs", summary.runs),
        ("examined", summary.examined),
        ("passed_over", summary.passed_over),
        ("excluded", summary.excluded),
        ("infeasible", summary.infeasible),
        ("feasible", summary.feasible),
        ("requests", summary.requests),
    ];
    for (name, count) in counts {
        csv.write_record(["count", name, &count.to_string()])?;
    }
    for axis in &summary.axes {
        csv.write_record(["axis", &axis.name, &axis.values.len().to_string()])?;
    }
    for reason in &summary.infeasible_reasons {
        csv.write_record(["infeasible", &reason.reason, &reason.runs.to_string()])?;
    }
    if let Some(estimate) = &summary.estimate {
        csv.write_record(["estimate", "time_s", &format!("{:.3}", estimate.time_s)])?;
    }
    csv.flush()
}
