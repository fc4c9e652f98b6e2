//! One look at every run, then: what meets the targets, the frontier, the order.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::criteria::{Criteria, Objective, Requests};
use super::frontier::pareto_frontier;
use crate::number::narrow;
use crate::results::{AxisColumn, Judge, REPLICATION_COLUMN, RunStatus, SummaryRow, Verdict};

/// One configuration with all its replications.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Index of its first run.
    pub run_index: u64,
    /// Replications seen.
    pub runs: u32,
    /// Whether all of them were simulated.
    pub all_ok: bool,
    /// Requests, over all replications.
    pub requests: Requests,
    /// Whether every replication completed every request whose outcome is decided and
    /// the means hold every bound.
    pub meets_targets: bool,
    /// On the frontier of those that meet the targets.
    pub pareto: bool,
}

impl Configuration {
    /// Share of the requests whose outcome is decided that did not complete.
    pub fn incomplete_fraction(&self) -> f64 {
        self.requests.failed_fraction()
    }
}

/// Sees every run of a sweep and tells the good ones. Keeps a few numbers per
/// simulated run, not the runs.
#[derive(Debug, Clone)]
pub struct Selection {
    criteria: Criteria,
    /// Objectives left out of the criteria as no run has a value for them.
    dropped: Vec<Objective>,
    /// Axes that make a configuration; empty: each run is one.
    key_axes: Vec<String>,
    by_key: HashMap<[u8; 32], u32>,
    configurations: Vec<Configuration>,
    /// Per configuration one value for each bound, then for each objective:
    /// sums while observing, means once concluded.
    figures: Vec<f64>,
    /// Runs in index order and their configurations.
    runs: Vec<(u64, u32)>,
    concluded: bool,
}

impl Selection {
    /// Nothing seen yet. Runs that differ in the axis `replication` alone are
    /// one configuration.
    pub fn new(criteria: Criteria, axes: &[AxisColumn]) -> Self {
        let replicated = axes.iter().any(|axis| axis.name == REPLICATION_COLUMN);
        let names = axes.iter().map(|axis| axis.name.clone());
        Self {
            criteria,
            dropped: Vec::new(),
            key_axes: match replicated {
                true => names.filter(|name| name != REPLICATION_COLUMN).collect(),
                false => Vec::new(),
            },
            by_key: HashMap::new(),
            configurations: Vec::new(),
            figures: Vec::new(),
            runs: Vec::new(),
            concluded: false,
        }
    }

    /// The targets and objectives; once concluded, without those objectives that no run
    /// has a value for.
    pub fn criteria(&self) -> &Criteria {
        &self.criteria
    }

    /// Objectives that were left out, as no run has a value for them: of requests with a
    /// single output token there is no time between tokens.
    pub fn dropped_objectives(&self) -> &[Objective] {
        &self.dropped
    }

    fn width(&self) -> usize {
        self.criteria.bounds.len() + self.criteria.objectives.len()
    }

    /// Takes one run. Runs come in index order.
    pub fn observe(&mut self, row: SummaryRow<'_>) {
        let ok = row.status() == Some(RunStatus::Ok);
        if !ok && self.key_axes.is_empty() {
            return;
        }
        let position = self.configuration_of(row);
        self.runs
            .push((row.run_index(), narrow::<u32, _>(position)));
        let configuration = &mut self.configurations[position];
        configuration.runs += 1;
        configuration.all_ok &= ok;
        configuration.requests = configuration.requests.plus(Requests::of(row));

        let width = self.width();
        let figures = &mut self.figures[position * width..(position + 1) * width];
        let bounds = self.criteria.bounds.iter();
        // Without a sample a metric exceeds nothing.
        let bounds = bounds.map(|bound| row.number(&bound.column).unwrap_or(0.0));
        let objectives = self.criteria.objectives.iter();
        let objectives = objectives.map(|o| row.number(&o.column).unwrap_or(f64::NAN));
        for (figure, value) in figures.iter_mut().zip(bounds.chain(objectives)) {
            *figure += value;
        }
    }

    fn configuration_of(&mut self, row: SummaryRow<'_>) -> usize {
        let next = self.configurations.len();
        if !self.key_axes.is_empty() {
            let mut hasher = blake3::Hasher::new();
            for axis in &self.key_axes {
                hasher.update(row.value(axis).to_string().as_bytes());
                hasher.update(&[0]);
            }
            let key = *hasher.finalize().as_bytes();
            if let Some(&position) = self.by_key.get(&key) {
                return position as usize;
            }
            self.by_key.insert(key, narrow::<u32, _>(next));
        }
        self.configurations.push(Configuration {
            run_index: row.run_index(),
            runs: 0,
            all_ok: true,
            requests: Requests::default(),
            meets_targets: false,
            pareto: false,
        });
        self.figures.resize((next + 1) * self.width(), 0.0);
        next
    }

    /// Decides, once every run was seen. Does nothing the second time.
    pub fn conclude(&mut self) {
        if std::mem::replace(&mut self.concluded, true) {
            return;
        }
        let (width, bounds) = (self.width(), self.criteria.bounds.len());
        for (position, configuration) in self.configurations.iter_mut().enumerate() {
            let figures = &mut self.figures[position * width..(position + 1) * width];
            for figure in figures.iter_mut() {
                *figure /= f64::from(configuration.runs);
            }
            let held = self.criteria.bounds.iter().zip(&figures[..bounds]);
            configuration.meets_targets = configuration.all_ok
                && configuration.requests.all_served()
                && held.into_iter().all(|(bound, value)| *value <= bound.limit);
        }
        self.drop_objectives_without_values();
        let good: Vec<usize> = (0..self.configurations.len())
            .filter(|&position| self.configurations[position].meets_targets)
            .collect();
        let points: Vec<f64> = good.iter().flat_map(|&p| self.oriented(p)).collect();
        let frontier = pareto_frontier(&points, self.criteria.objectives.len(), good.len());
        for (position, on_frontier) in good.into_iter().zip(frontier) {
            self.configurations[position].pareto = on_frontier;
        }
    }

    /// Leaves out objectives that are null in all runs: with one of them nothing would be
    /// on the frontier.
    fn drop_objectives_without_values(&mut self) {
        let (width, bounds) = (self.width(), self.criteria.bounds.len());
        let completed = |c: &Configuration| c.requests.completed > 0;
        if width == bounds || !self.configurations.iter().any(completed) {
            return;
        }
        let rows = || self.figures.chunks_exact(width);
        let has_value = |at: usize| rows().any(|figures| !figures[bounds + at].is_nan());
        let kept: Vec<bool> = (0..width - bounds).map(has_value).collect();
        let columns = std::iter::repeat_n(true, bounds).chain(kept.iter().copied());
        let mut columns = columns.cycle();
        self.figures.retain(|_| columns.next() == Some(true));
        let mut kept = kept.into_iter();
        let objectives = std::mem::take(&mut self.criteria.objectives).into_iter();
        (self.criteria.objectives, self.dropped) =
            objectives.partition(|_| kept.next() == Some(true));
    }

    /// Objective values of a configuration, less being better in each.
    fn oriented(&self, position: usize) -> Vec<f64> {
        let objectives = self.criteria.objectives.iter();
        let values = self.objective_values(position);
        objectives
            .zip(values)
            .map(|(o, v)| o.oriented(*v))
            .collect()
    }

    /// All configurations with at least one run simulated, in order of their
    /// first run. Positions in it are what other methods mean by `position`.
    pub fn configurations(&self) -> &[Configuration] {
        &self.configurations
    }

    /// Mean of each bounded column, in the order of the bounds.
    pub fn bound_values(&self, position: usize) -> &[f64] {
        let start = position * self.width();
        &self.figures[start..start + self.criteria.bounds.len()]
    }

    /// Mean of each objective.
    pub fn objective_values(&self, position: usize) -> &[f64] {
        let end = (position + 1) * self.width();
        &self.figures[end - self.criteria.objectives.len()..end]
    }

    /// Configuration of a run; none if the run was not simulated.
    pub fn position_of_run(&self, run_index: u64) -> Option<usize> {
        let found = self.runs.binary_search_by_key(&run_index, |run| run.0);
        found.ok().map(|at| self.runs[at].1 as usize)
    }

    /// The bound a configuration is closest to, or furthest beyond: position of
    /// the bound, and value over limit.
    pub fn tightest_bound(&self, position: usize) -> Option<(usize, f64)> {
        let bounds = self.criteria.bounds.iter();
        let ratios = bounds
            .zip(self.bound_values(position))
            .map(|(bound, value)| value / bound.limit);
        ratios.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Configurations that meet the targets, best first: by the first objective,
    /// ties by the next ones, then by index. At most `limit`.
    pub fn best(&self, limit: usize) -> Vec<usize> {
        self.sorted(
            limit,
            |c| c.meets_targets,
            |a, b| self.compare_objectives(a, b),
        )
    }

    /// Configurations on the frontier, best first.
    pub fn frontier(&self, limit: usize) -> Vec<usize> {
        self.sorted(limit, |c| c.pareto, |a, b| self.compare_objectives(a, b))
    }

    /// Simulated configurations that miss a target, nearest first: those that
    /// completed everything by their worst relative excess, then the others by
    /// the share of requests they did not complete.
    pub fn nearest_misses(&self, limit: usize) -> Vec<usize> {
        let excess = |position: usize| {
            let ratio = self
                .tightest_bound(position)
                .map_or(0.0, |(_, ratio)| ratio);
            (self.configurations[position].incomplete_fraction(), ratio)
        };
        self.sorted(
            limit,
            |c| c.all_ok && !c.meets_targets,
            |a, b| {
                let (a, b) = (excess(a), excess(b));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            },
        )
    }

    /// Sorts the configurations wanted, ties by index, and keeps the first ones.
    fn sorted(
        &self,
        limit: usize,
        wanted: impl Fn(&Configuration) -> bool,
        compare: impl Fn(usize, usize) -> Ordering,
    ) -> Vec<usize> {
        let all = 0..self.configurations.len();
        let mut positions: Vec<usize> = all.filter(|&p| wanted(&self.configurations[p])).collect();
        let ordering = |a: &usize, b: &usize| compare(*a, *b).then(a.cmp(b));
        if limit < positions.len() {
            positions.select_nth_unstable_by(limit, ordering);
            positions.truncate(limit);
        }
        positions.sort_unstable_by(ordering);
        positions
    }

    /// Better first; a value that is missing comes last.
    fn compare_objectives(&self, a: usize, b: usize) -> Ordering {
        let pairs = self.oriented(a).into_iter().zip(self.oriented(b));
        pairs
            .map(|(a, b)| {
                a.is_nan()
                    .cmp(&b.is_nan())
                    .then((a + 0.0).total_cmp(&(b + 0.0)))
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl Judge for Selection {
    fn columns(&self) -> Vec<String> {
        let criteria = self.criteria.columns().map(str::to_owned);
        criteria.chain(self.key_axes.iter().cloned()).collect()
    }

    fn observe(&mut self, row: SummaryRow<'_>) {
        Self::observe(self, row);
    }

    fn verdict(&mut self, row: SummaryRow<'_>) -> Verdict {
        self.conclude();
        let position = self.position_of_run(row.run_index());
        Verdict {
            slo_met: self.criteria.slo_met(row),
            pareto: position.is_some_and(|p| self.configurations[p].pareto),
        }
    }
}
