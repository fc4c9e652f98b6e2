//! From a result directory to what is worth telling.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::{Answer, answer};
use super::deployment::{Deployment, describe};
use super::format::{counted, grouped, percent};
use super::insights::{Binding, binding};
use crate::results::{
    REPLICATION_COLUMN, ResultError, RunStatus, SloVerdict, SummaryReader, SummaryRow,
};
use crate::select::{
    Configuration, Criteria, CriteriaError, ReasonGroup, ReasonGroups, Selection,
    promised_attainment,
};
use crate::spec::{Bound, Objectives, Slo};

/// The best deployments that are looked at, listed or not.
const LEADERS: usize = 5;

/// What to gather.
#[derive(Debug, Clone, Default)]
pub struct GatherOptions {
    /// Targets, instead of the sweep's.
    pub slo: Option<Slo>,
    /// Objectives, instead of the sweep's.
    pub objectives: Option<Objectives>,
    /// Which deployments to list.
    pub list: ListKind,
    /// How many at most; none: all.
    pub limit: Option<usize>,
}

/// Which deployments a report lists. Where none meets the targets it is the
/// nearest misses in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// Those that meet the targets, best first.
    #[default]
    Best,
    /// Those of them on the Pareto frontier.
    Frontier,
    /// Those that miss a target by least.
    NearestMisses,
}

/// A report that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory.
    #[error(transparent)]
    Results(#[from] ResultError),
    /// The targets or objectives.
    #[error(transparent)]
    Criteria(#[from] CriteriaError),
    /// Writing the page.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

impl ReportError {
    /// Whether the user can mend it by other arguments (exit code 2).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Results(error) => error.is_bad_input(),
            Self::Criteria(_) => true,
            Self::Io { .. } => false,
        }
    }
}

/// How the runs ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RunTotals {
    /// Runs the sweep has.
    pub expected: u64,
    /// Runs seen.
    pub seen: u64,
    /// Simulated.
    pub ok: u64,
    /// Could not be deployed.
    pub infeasible: u64,
    /// Did not end well.
    pub failed: u64,
}

/// What the figures of a deployment rest on besides measurements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grounds {
    /// Index of its first run.
    pub run_index: u64,
    /// A sentence each.
    pub sentences: Vec<String>,
}

/// What came out of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    /// Name of the sweep.
    pub name: String,
    /// Its directory; none in the page, which lies in it and may move with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub directory: String,
    /// Whether the sweep is finished.
    pub complete: bool,
    /// How the runs ended.
    pub runs: RunTotals,
    /// Targets used.
    pub slo: Slo,
    /// The limits of columns that they amount to.
    pub bounds: Vec<Bound>,
    /// Objectives used.
    pub objectives: Objectives,
    /// What a person should know of how the runs are judged, one sentence each.
    pub notes: Vec<String>,
    /// Configurations simulated in all their replications.
    pub configurations: u64,
    /// Configurations that meet the targets for certain.
    pub meeting_targets: u64,
    /// Configurations of which it is not certain whether they do.
    pub unsure: u64,
    /// Configurations to which more is offered than they serve.
    pub saturated: u64,
    /// Configurations of whose load too little was seen, but for those that miss a target
    /// whatever it is.
    pub too_short: u64,
    /// Configurations on the frontier.
    pub on_frontier: u64,
    /// Labels of a list, and axes with more than one value.
    pub varying_axes: Vec<String>,
    /// The others.
    pub fixed_axes: Map<String, Value>,
    /// What `deployments` lists.
    pub list: ListKind,
    /// The deployments.
    pub deployments: Vec<Deployment>,
    /// Why runs were infeasible or failed, largest group first.
    pub reasons: Vec<ReasonGroup>,
    /// The answer in a few sentences.
    pub answer: Answer,
    /// What binds the best deployment.
    pub binding: Option<Binding>,
    /// What the figures of the best deployment rest on that nobody measured or
    /// published; none meets the targets: of the one that misses them by least.
    pub assumptions: Option<Grounds>,
    /// Files of the directory worth opening; none in the page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// Reads a result directory and condenses it.
///
/// # Errors
/// If a file cannot be read, or targets or objectives name no column.
pub fn gather(reader: &SummaryReader, options: &GatherOptions) -> Result<SweepReport, ReportError> {
    let slo = options.slo.clone().unwrap_or_else(|| reader.slo().clone());
    let objectives = options.objectives.clone();
    let objectives = objectives.unwrap_or_else(|| reader.objectives().clone());
    let criteria = Criteria::new(&slo, &objectives, reader.axes())?;
    let overview = look_over(reader, criteria)?;
    condense(reader, &overview, options)
}

/// The report on what was seen, by the sweep's own targets and objectives.
pub(super) fn condense(
    reader: &SummaryReader,
    overview: &Overview,
    options: &GatherOptions,
) -> Result<SweepReport, ReportError> {
    let selection = &overview.selection;
    let slo = options.slo.as_ref().unwrap_or(reader.slo());
    // Requests were counted by the targets that the sweep had.
    let is_counted_so = slo.per_request.is_some() || slo.columns == reader.slo().columns;
    let limit = options.limit.unwrap_or(usize::MAX);
    let configurations = selection.configurations();
    let meeting = configurations.iter().filter(|c| c.meets_targets()).count() as u64;
    let count = |is: &dyn Fn(&Configuration) -> bool| {
        configurations.iter().filter(|c| is(c)).count() as u64
    };
    let ranked = selection.ranked(usize::MAX);
    let (list, positions) = match (meeting, options.list) {
        (0, _) | (_, ListKind::NearestMisses) => {
            (ListKind::NearestMisses, selection.nearest_misses(limit))
        }
        (_, ListKind::Frontier) => (ListKind::Frontier, selection.frontier(limit)),
        (_, ListKind::Best) => {
            let best = ranked.iter().map(|&(position, _)| position);
            (ListKind::Best, best.take(limit).collect())
        }
    };
    let leaders: Vec<usize> = match &ranked[..] {
        [] => selection.nearest_misses(2),
        best => best.iter().take(LEADERS).map(|&(at, _)| at).collect(),
    };
    // One look at the table for all of them.
    let mut wanted = positions.clone();
    wanted.extend(leaders.iter().filter(|leader| !positions.contains(leader)));
    let mut deployments = describe(reader, selection, &wanted)?;
    let of_leader = |leader: &usize| {
        let run_index = configurations[*leader].run_index;
        deployments
            .iter()
            .find(|d| d.run_index == run_index)
            .cloned()
    };
    let leaders: Vec<Deployment> = leaders.iter().filter_map(of_leader).collect();
    deployments.truncate(positions.len());
    if list == ListKind::Best {
        for (deployment, (_, place)) in deployments.iter_mut().zip(&ranked) {
            deployment.rank = Some(*place);
        }
    }
    let best = ranked.first().map(|&(position, _)| position);
    // Between capacities, a step that would be better has been found.
    let has_capacity = leaders
        .first()
        .is_some_and(|leader| leader.figures.get("capacity_requests_per_s").is_some());
    let binding = match best.filter(|_| !has_capacity) {
        Some(best) => Some(binding(
            reader,
            selection,
            best,
            &leaders,
            &overview.varying_axes,
        )?),
        None => None,
    };
    let answer = answer(
        reader,
        selection,
        &leaders,
        binding.as_ref(),
        &overview.varying_axes,
    );
    let assumptions = deployments.first().or(leaders.first()).map(grounds);
    Ok(SweepReport {
        name: reader.name().to_string(),
        directory: reader.dir().display().to_string(),
        complete: reader.manifest().is_some(),
        runs: overview.runs,
        slo: slo.clone(),
        bounds: selection.criteria().bounds.clone(),
        objectives: selection.criteria().objectives(),
        notes: notes(overview, Some(slo).filter(|_| is_counted_so)),
        configurations: configurations.iter().filter(|c| c.all_ok).count() as u64,
        meeting_targets: meeting,
        unsure: count(&|c| c.all_ok && c.slo == SloVerdict::Unsure),
        saturated: count(&|c| c.load_verdict() == Some("saturated")),
        too_short: count(&|c| c.load_verdict() == Some("too_short") && c.slo != SloVerdict::Misses),
        on_frontier: configurations.iter().filter(|c| c.pareto).count() as u64,
        varying_axes: overview.varying_axes.clone(),
        fixed_axes: overview.fixed_axes.clone(),
        list,
        deployments,
        reasons: overview.reasons.clone(),
        answer,
        binding,
        assumptions,
        files: files(reader.dir()),
    })
}

/// What a person should know of how the runs are judged.
fn notes(overview: &Overview, slo: Option<&Slo>) -> Vec<String> {
    let dropped = overview.selection.dropped_objectives().iter();
    let mut notes: Vec<String> = dropped
        .map(|objective| {
            format!(
                "Objective {} has no value in any run and is left out.",
                objective.column
            )
        })
        .collect();
    notes.extend(slo.and_then(|slo| disagreement(&overview.selection, slo)));
    let LengthTotals {
        runs,
        rejected,
        capped,
    } = overview.lengths;
    if runs > 0 {
        notes.push(format!(
            "In {} requests did not fit into max_model_len: {} rejected for their prompts, {} cut \
             short.",
            counted(runs, "run"),
            grouped(rejected),
            counted(capped, "output"),
        ));
    }
    notes
}

/// How many configurations keep every limit of a column while their requests do not keep
/// their own targets, if any do.
fn disagreement(selection: &Selection, slo: &Slo) -> Option<String> {
    let promised = promised_attainment(slo)?;
    let configurations = selection.configurations();
    let disagree = |position: &usize| {
        let attainment = configurations[*position].attainment;
        configurations[*position].all_ok
            && attainment < promised
            && selection.keeps_columns(*position)
    };
    let positions: Vec<usize> = (0..configurations.len()).filter(disagree).collect();
    let by_attainment = |a: &&usize, b: &&usize| {
        configurations[**a]
            .attainment
            .total_cmp(&configurations[**b].attainment)
    };
    let worst = &configurations[*positions.iter().min_by(by_attainment)?];
    Some(format!(
        "WARNING: {} every limit of a column while too few of their requests keep their own targets: \
         {} of run {}, where {} are to. Percentiles over all tokens hide stalls; slo.per_request \
         judges by requests.",
        match positions.len() {
            1 => "1 configuration keeps".to_owned(),
            more => format!("{} configurations keep", grouped(more as u64)),
        },
        percent(worst.attainment),
        worst.run_index,
        percent(promised),
    ))
}

/// What a deployment rests on.
fn grounds(deployment: &Deployment) -> Grounds {
    Grounds {
        run_index: deployment.run_index,
        sentences: deployment.assumptions.clone(),
    }
}

fn files(dir: &Path) -> Vec<String> {
    [
        "summary.parquet",
        "pareto.parquet",
        "requests",
        "report.html",
    ]
    .into_iter()
    .filter(|name| dir.join(name).exists())
    .map(|name| {
        if name == "requests" {
            "requests/*.parquet"
        } else {
            name
        }
    })
    .map(str::to_string)
    .collect()
}

/// What one look at every run gives.
pub(super) struct Overview {
    pub(super) selection: Selection,
    pub(super) runs: RunTotals,
    pub(super) reasons: Vec<ReasonGroup>,
    pub(super) lengths: LengthTotals,
    pub(super) varying_axes: Vec<String>,
    pub(super) fixed_axes: Map<String, Value>,
}

/// What the longest sequence allowed did to requests.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LengthTotals {
    /// Runs in which it did anything.
    runs: u64,
    rejected: u64,
    capped: u64,
}

impl LengthTotals {
    const COLUMNS: [&str; 2] = ["rejected_by_max_model_len", "capped_by_max_model_len"];

    fn add(&mut self, row: SummaryRow<'_>) {
        let [rejected, capped] =
            Self::COLUMNS.map(|column| row.integer(column).unwrap_or(0).unsigned_abs());
        self.runs += u64::from(rejected + capped > 0);
        self.rejected += rejected;
        self.capped += capped;
    }
}

/// All runs, by the sweep's own targets and objectives.
pub(super) fn overview(reader: &SummaryReader) -> Result<Overview, ReportError> {
    let criteria = Criteria::new(reader.slo(), reader.objectives(), reader.axes())?;
    look_over(reader, criteria)
}

fn look_over(reader: &SummaryReader, criteria: Criteria) -> Result<Overview, ReportError> {
    let axes: Vec<&str> = reader
        .axes()
        .iter()
        .map(|axis| axis.name.as_str())
        .collect();
    let others = axes
        .iter()
        .copied()
        .chain(["reason"])
        .chain(LengthTotals::COLUMNS);
    let columns: Vec<String> = criteria
        .columns()
        .chain(others.map(str::to_owned))
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();

    let mut selection = Selection::new(criteria, reader.axes());
    let mut reasons = ReasonGroups::default();
    let mut runs = RunTotals {
        expected: reader.expected_runs(),
        ..RunTotals::default()
    };
    let mut lengths = LengthTotals::default();
    let mut first: Option<Vec<Value>> = None;
    let mut varies = vec![false; axes.len()];
    reader.for_each(Some(&columns), |batch| {
        for row in batch.rows() {
            selection.observe(row);
            reasons.observe(row);
            count(&mut runs, row);
            lengths.add(row);
            let first = first.get_or_insert_with(|| axes.iter().map(|a| row.value(a)).collect());
            for ((axis, first), varies) in axes.iter().zip(first).zip(&mut varies) {
                *varies = *varies || row.value(axis) != *first;
            }
        }
    })?;
    selection.conclude();
    let first = first.unwrap_or_default();
    let named = axes.iter().zip(&varies);
    let varying_axes = named
        .filter(|(axis, varies)| **varies && **axis != REPLICATION_COLUMN)
        .map(|(axis, _)| axis.to_string());
    // What people call their configurations comes first.
    let labels = reader.labels().iter().map(|label| label.name.clone());
    let varying_axes = labels.chain(varying_axes);
    let fixed = axes.iter().zip(&varies).zip(first);
    let fixed_axes = fixed
        .filter(|((_, varies), _)| !**varies)
        .map(|((axis, _), value)| (axis.to_string(), value));
    Ok(Overview {
        varying_axes: varying_axes.collect(),
        fixed_axes: fixed_axes.collect(),
        reasons: reasons.sorted(),
        lengths,
        selection,
        runs,
    })
}

fn count(runs: &mut RunTotals, row: SummaryRow<'_>) {
    runs.seen += 1;
    match row.status() {
        Some(RunStatus::Ok) => runs.ok += 1,
        Some(RunStatus::Infeasible) => runs.infeasible += 1,
        Some(RunStatus::Failed) | None => runs.failed += 1,
    }
}
