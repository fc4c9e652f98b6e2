//! One configuration of a sweep, as reports know it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::figures::Figures;
use crate::results::{
    Numbers, REPLICATION_COLUMN, ResultError, SummaryBatch, SummaryReader, SummaryRow,
};
use crate::select::Selection;
use crate::spec::Bound;

/// One configuration, means over its replications.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Deployment {
    /// Its place among those that meet the targets, from 1; those that are tied with the
    /// first of their places share it; none: it does not.
    pub rank: Option<u64>,
    /// Index of its first run.
    pub run_index: u64,
    /// Identity of its first run.
    pub run_id: String,
    /// Replications.
    pub replications: u32,
    /// Whether it meets the targets for certain.
    pub slo_met: bool,
    /// `meets`, `misses` or `unsure`.
    pub slo_verdict: &'static str,
    /// Probability that it meets the targets.
    pub slo_probability: f64,
    /// Replications whose own figures meet the targets.
    pub met_replications: u32,
    /// `stable`, `saturated` or `too_short`; none where all of a run was measured.
    pub load_verdict: Option<&'static str>,
    /// Whether it is on the frontier.
    pub pareto: bool,
    /// Labels, and values of all axes but `replication`.
    pub axes: Map<String, Value>,
    /// Its figures.
    pub figures: Figures,
    /// The target it is closest to or furthest beyond.
    pub tightest: Option<Miss>,
    /// Share of requests that did not complete.
    pub incomplete_fraction: f64,
    /// What its figures rest on that nobody measured or published.
    pub assumptions: Vec<String>,
}

/// A target and how far from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Miss {
    /// The limit.
    #[serde(flatten)]
    pub bound: Bound,
    /// Value of its column.
    pub value: f64,
}

impl Miss {
    /// How much of the limit is taken up; more than 1 beyond it.
    pub fn strain(&self) -> f64 {
        self.bound.side.strain(self.value, self.bound.limit)
    }
}

/// Sums of one configuration's figures while its runs pass by.
struct Gathering {
    run_id: String,
    assumptions: Vec<String>,
    axes: Map<String, Value>,
    sums: Vec<f64>,
    counts: Vec<u32>,
}

/// Reads the summary again for the rows of these configurations, in order.
pub(super) fn describe(
    reader: &SummaryReader,
    selection: &Selection,
    positions: &[usize],
) -> Result<Vec<Deployment>, ResultError> {
    let figures = Figures::names();
    let mut gathered: BTreeMap<usize, Option<Gathering>> =
        positions.iter().map(|&position| (position, None)).collect();
    if gathered.is_empty() {
        return Ok(Vec::new());
    }
    reader.for_each(None, |batch: &SummaryBatch| {
        let columns: Vec<Option<Numbers<'_>>> =
            figures.iter().map(|name| batch.numbers(name)).collect();
        for (at, row) in batch.rows().enumerate() {
            let position = selection.position_of_run(row.run_index());
            let Some(slot) = position.and_then(|p| gathered.get_mut(&p)) else {
                continue;
            };
            let gathering = slot.get_or_insert_with(|| Gathering {
                run_id: row.text("run_id").unwrap_or_default().to_string(),
                assumptions: row.text("assumptions").map_or_else(Vec::new, sentences),
                axes: axis_values(reader, row),
                sums: vec![0.0; figures.len()],
                counts: vec![0; figures.len()],
            });
            for (figure, column) in columns.iter().enumerate() {
                if let Some(value) = column.and_then(|column| column.get(at)) {
                    gathering.sums[figure] += value;
                    gathering.counts[figure] += 1;
                }
            }
        }
    })?;
    let listed = positions.iter();
    Ok(listed
        .filter_map(|&position| {
            let gathering = gathered.get_mut(&position)?.take()?;
            Some(deployment(selection, position, gathering))
        })
        .collect())
}

fn deployment(selection: &Selection, position: usize, gathering: Gathering) -> Deployment {
    let configuration = &selection.configurations()[position];
    let sums = gathering.sums.iter().zip(&gathering.counts);
    let means = sums.map(|(sum, &count)| (count > 0).then(|| sum / f64::from(count)));
    let bounds = &selection.criteria().bounds;
    Deployment {
        rank: None,
        run_index: configuration.run_index,
        run_id: gathering.run_id,
        replications: configuration.runs,
        slo_met: configuration.meets_targets(),
        slo_verdict: configuration.slo.name(),
        slo_probability: configuration.slo_probability,
        met_replications: configuration.met_runs,
        load_verdict: configuration.load_verdict(),
        pareto: configuration.pareto,
        axes: gathering.axes,
        figures: Figures::new(means),
        tightest: selection.tightest_bound(position).map(|(bound, _)| Miss {
            bound: bounds[bound].clone(),
            value: selection.bound_value(position, bound),
        }),
        incomplete_fraction: configuration.incomplete_fraction(),
        assumptions: gathering.assumptions,
    }
}

pub(super) fn sentences(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

pub(super) fn axis_values(reader: &SummaryReader, row: SummaryRow<'_>) -> Map<String, Value> {
    let axes = reader.labels().iter().chain(reader.axes());
    axes.filter(|axis| axis.name != REPLICATION_COLUMN)
        .map(|axis| (axis.name.clone(), row.value(&axis.name)))
        .collect()
}
