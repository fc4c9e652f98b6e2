//! `vidur-sweep pareto`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{output_width, print_as};
use super::values::whole;
use super::{CliError, CliResult};
use crate::report::{
    GatherOptions, ListKind, ReportError, ReportFormat, SweepReport, gather, write_report,
};
use crate::results::SummaryReader;
use crate::select::number_columns;
use crate::spec::columns::counts_requests;
use crate::spec::{Objectives, Slo, Target, TargetRange};
use crate::spelling::did_you_mean;

/// Pareto frontier of a result directory.
///
/// Decides anew which runs meet the targets and which of them are on the
/// frontier, from `summary.parquet` alone: nothing is simulated, nothing is
/// changed. Works on unfinished sweeps too.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep pareto results/deepseek
  vidur-sweep pareto results/deepseek --slo ttft_p90_s=1.5 --slo tbt_p99_s=0.1
  vidur-sweep pareto results/deepseek --slo cost_usd_per_million_tokens=2 --slo total_gpus=max:32
  vidur-sweep pareto results/deepseek --no-slo --objectives max:throughput_tokens_per_s,min:cost_usd_per_hour
  vidur-sweep pareto results/deepseek --all --format csv > feasible.csv")]
pub struct Args {
    /// Result directory.
    results: PathBuf,
    /// Target to set or change, e.g. `ttft_p90_s=2.0` (seconds at most),
    /// `throughput_requests_per_s=40` (at least), `total_gpus=max:8` or
    /// `per_request.attainment=0.95`; may be repeated.
    #[arg(long, value_name = "COLUMN=LIMIT")]
    slo: Vec<String>,
    /// Drop the targets of the sweep; only those given by --slo count.
    #[arg(long)]
    no_slo: bool,
    /// Objectives instead of the sweep's, the first one ranking the list.
    #[arg(long, value_name = "max:COLUMN|min:COLUMN", value_delimiter = ',')]
    objectives: Vec<String>,
    /// List every configuration that meets the targets, not only the frontier.
    #[arg(long)]
    all: bool,
    /// List at most this many; default: 20 in a table, all otherwise.
    #[arg(long, value_name = "N", value_parser = whole(0..=usize::MAX), allow_negative_numbers = true)]
    limit: Option<usize>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    /// End with exit code 3 if no configuration meets the targets.
    #[arg(long)]
    require_feasible: bool,
}

/// Rows of a table unless asked otherwise.
const TABLE_ROWS: usize = 20;

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let reader = open(&args.results)?;
    let in_table = args.format == ReportFormat::Table;
    let numbers = number_columns(reader.axes());
    let options = GatherOptions {
        slo: Some(targets(&args, reader.slo(), &numbers)?),
        objectives: objectives(&args.objectives)?,
        list: match args.all {
            true => ListKind::Best,
            false => ListKind::Frontier,
        },
        limit: args.limit.or(in_table.then_some(TABLE_ROWS)),
    };
    let asked = !args.objectives.is_empty();
    let report = gather(&reader, &options).map_err(|error| match &error {
        ReportError::Criteria(criteria) if asked && criteria.is_of_objectives() => {
            CliError::BadInput(format!("--objectives: {criteria}"))
        }
        _ => failure(error),
    })?;
    print_report(&report, args.format)?;
    match args.require_feasible && report.meeting_targets == 0 {
        true => Ok(ExitCode::from(3)),
        false => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a report as asked.
pub(super) fn print_report(report: &SweepReport, format: ReportFormat) -> Result<(), CliError> {
    let width = output_width();
    print_as(format, |out| write_report(report, format, width, out))
}

/// Opens a result directory.
pub(super) fn open(dir: &Path) -> Result<SummaryReader, CliError> {
    SummaryReader::open(dir).map_err(|error| failure(error.into()))
}

/// A report that could not be made, as the command's end.
pub(super) fn failure(error: ReportError) -> CliError {
    match error.is_bad_input() {
        true => CliError::BadInput(error.to_string()),
        false => CliError::Failure(error.to_string()),
    }
}

/// The targets of the sweep with those given: a column and a limit, `min:` or `max:` before
/// it where that does not go without saying, or `per_request.attainment`.
fn targets(args: &Args, sweep: &Slo, numbers: &[&str]) -> Result<Slo, CliError> {
    let mut slo = match args.no_slo {
        true => Slo::default(),
        false => sweep.clone(),
    };
    for given in &args.slo {
        let bad = |reason: String| CliError::BadInput(format!("--slo {given}: {reason}"));
        let malformed = || {
            let example = "ttft_p90_s=2.0, throughput_requests_per_s=40 or total_gpus=max:8";
            bad(format!("expected COLUMN=LIMIT, e.g. {example}"))
        };
        let (column, limit) = given.split_once('=').ok_or_else(malformed)?;
        let (column, limit) = (column.trim(), limit.trim());
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| malformed());
        if let Some(key) = column.strip_prefix(PER_REQUEST) {
            let requests = sweep.per_request.as_ref().filter(|_| key == "attainment");
            let mut requests = *requests.ok_or_else(|| bad(counted_already(key, sweep)))?;
            requests.attainment = number(limit)?;
            if !(requests.attainment > 0.0 && requests.attainment <= 1.0) {
                let allowed = "allowed is a share greater than 0 and at most 1";
                return Err(bad(format!("value `{limit}` is not allowed; {allowed}")));
            }
            slo.per_request = Some(requests);
            continue;
        }
        let range = |min, max| Target::Range(TargetRange { min, max });
        let target = match limit.split_once(':') {
            Some(("min", least)) => range(Some(number(least)?), None),
            Some(("max", most)) => range(None, Some(number(most)?)),
            Some(_) => return Err(malformed()),
            None => Target::Usual(number(limit)?),
        };
        slo.columns.insert(column.to_owned(), target);
        match slo.bounds_of(column, target, numbers) {
            // Requests were counted by the targets that the sweep had.
            Err(_) if counts_requests(column) && !sweep.judges_requests() => {
                return Err(bad(counted_already("", sweep)));
            }
            Err(error) => return Err(bad(error.to_string())),
            Ok(_) => {}
        }
    }
    Ok(slo)
}

/// Before a key of `slo.per_request`.
const PER_REQUEST: &str = "per_request.";

/// Why targets of single requests cannot be changed.
fn counted_already(key: &str, sweep: &Slo) -> String {
    match (&sweep.per_request, key) {
        (Some(_), key) => {
            let hint = did_you_mean(key, ["attainment"]);
            format!(
                "requests were counted when they were simulated; allowed is \
                 per_request.attainment{hint}"
            )
        }
        (None, _) if sweep.judges_requests() => {
            "requests were counted when they were simulated, by the limits of latencies; a limit \
             of slo_attainment bounds their share"
                .to_owned()
        }
        (None, _) => "the sweep had no targets by which requests could be counted".to_owned(),
    }
}

fn objectives(given: &[String]) -> Result<Option<Objectives>, CliError> {
    if given.is_empty() {
        return Ok(None);
    }
    let mut objectives = Objectives {
        maximize: Vec::new(),
        minimize: Vec::new(),
    };
    for objective in given {
        match objective.trim().split_once(':') {
            Some(("max", column)) => objectives.maximize.push(column.to_string()),
            Some(("min", column)) => objectives.minimize.push(column.to_string()),
            _ => {
                let help = "expected max:COLUMN or min:COLUMN, e.g. min:ttft_p90_s";
                let message = format!("--objectives `{objective}`: {help}");
                return Err(CliError::BadInput(message));
            }
        }
    }
    Ok(Some(objectives))
}
