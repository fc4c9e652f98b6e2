//! One look at every run, then: what meets the targets, the frontier, the order.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::certainty::{Figure, probability, verdict};
use super::criteria::{Criteria, Objective, Requests};
use super::frontier::pareto_frontier;
use super::load::Load;
use super::ranking::{self, Standing};
use crate::number::narrow;
use crate::results::{
    AxisColumn, Judge, REPLICATION_COLUMN, RunStatus, SloVerdict, SummaryRow, Verdict,
};
use crate::spec::ATTAINMENT_COLUMN;

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
    /// Replications of which every request whose outcome is decided completed, whose load
    /// is not saturated, and whose figures keep every bound.
    pub met_runs: u32,
    /// What their load was.
    load: Load,
    /// Probability that the targets are met.
    pub slo_probability: f64,
    /// Whether they are.
    pub slo: SloVerdict,
    /// On the frontier of those that meet the targets.
    pub pareto: bool,
    /// Share of requests that keep their own targets: sum while observing, mean once
    /// concluded; NaN without such targets.
    pub attainment: f64,
}

impl Configuration {
    /// Whether the targets are met for certain.
    pub fn meets_targets(&self) -> bool {
        self.slo == SloVerdict::Meets
    }

    /// What its load was, over all replications: none where all of a run was measured.
    pub fn load_verdict(&self) -> Option<&'static str> {
        self.load.name()
    }

    /// Share of the requests whose outcome is decided that did not complete.
    pub fn incomplete_fraction(&self) -> f64 {
        self.requests.failed_fraction()
    }
}

/// What of one run decides whether it meets the targets.
struct Judged {
    is_ok: bool,
    requests: Requests,
    load: Load,
    /// One for each bound.
    figures: Vec<Figure>,
}

impl Judged {
    fn of(criteria: &Criteria, row: SummaryRow<'_>) -> Self {
        let number = |column: &str| row.number(column);
        let figures = criteria.bounds.iter();
        let figures = figures.map(|bound| Figure::of(bound, number));
        Self {
            is_ok: row.status() == Some(RunStatus::Ok),
            requests: Requests::of(row),
            load: Load::of(row),
            figures: figures.collect(),
        }
    }

    /// Whether its own figures keep every bound, as they are.
    fn keeps_all(&self, criteria: &Criteria) -> bool {
        let mut kept = criteria.bounds.iter().zip(&self.figures);
        self.is_ok
            && self.requests.all_served()
            && self.load != Load::Saturated
            && kept.all(|(bound, figure)| bound.side.has(figure.value(), bound.limit))
    }

    /// The probability that it meets the targets.
    fn probability(&self, criteria: &Criteria) -> f64 {
        let kept = criteria.bounds.iter().zip(&self.figures);
        let kept = kept.map(|(bound, figure)| figure.keeps(bound, self.load));
        probability(kept, self.load, self.is_ok && self.requests.all_served())
    }
}

/// Sees every run of a sweep and tells the good ones. Keeps a few numbers per
/// simulated run, not the runs.
#[derive(Debug, Clone)]
pub struct Selection {
    criteria: Criteria,
    /// Objectives left out of the criteria as no run has a value for them.
    dropped: Vec<Objective>,
    /// Axes that make a configuration; none: each run is one.
    key_axes: Option<Vec<String>>,
    by_key: HashMap<[u8; 32], u32>,
    configurations: Vec<Configuration>,
    /// Per configuration one for each bound.
    bounded: Vec<Figure>,
    /// Per configuration one value for each objective: sums while observing, means once
    /// concluded.
    figures: Vec<f64>,
    first_objective: Option<Objective>,
    /// Per configuration by that, if there is one.
    standings: Vec<Standing>,
    /// Whether all runs have the same requests, but for their rate.
    is_one_workload: bool,
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
            first_objective: criteria.objectives.first().cloned(),
            criteria,
            dropped: Vec::new(),
            key_axes: replicated.then(|| names.filter(|name| name != REPLICATION_COLUMN).collect()),
            by_key: HashMap::new(),
            configurations: Vec::new(),
            bounded: Vec::new(),
            figures: Vec::new(),
            standings: Vec::new(),
            is_one_workload: !axes.iter().any(|axis| axis.name.starts_with("workload")),
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
        self.criteria.objectives.len()
    }

    /// Takes one run. Runs come in index order.
    pub fn observe(&mut self, row: SummaryRow<'_>) {
        let ok = row.status() == Some(RunStatus::Ok);
        if !ok && self.key_axes.is_none() {
            return;
        }
        let position = self.configuration_of(row);
        self.runs
            .push((row.run_index(), narrow::<u32, _>(position)));
        let of_run = Judged::of(&self.criteria, row);
        let configuration = &mut self.configurations[position];
        configuration.runs += 1;
        configuration.all_ok &= ok;
        configuration.met_runs += u32::from(of_run.keeps_all(&self.criteria));
        configuration.requests = configuration.requests.plus(of_run.requests);
        configuration.attainment += row.number(ATTAINMENT_COLUMN).unwrap_or(f64::NAN);
        configuration.load = match configuration.runs {
            1 => of_run.load,
            _ => configuration.load.and(of_run.load),
        };
        let bounds = self.criteria.bounds.len();
        let bounded = &mut self.bounded[position * bounds..(position + 1) * bounds];
        for (figure, more) in bounded.iter_mut().zip(of_run.figures) {
            figure.add(more);
        }
        let width = self.width();
        let figures = &mut self.figures[position * width..(position + 1) * width];
        let objectives = self.criteria.objectives.iter();
        let objectives = objectives.map(|o| row.number(&o.column).unwrap_or(f64::NAN));
        for (figure, value) in figures.iter_mut().zip(objectives) {
            *figure += value;
        }
        if let Some(objective) = &self.first_objective {
            let standing = Standing::of(objective, row, self.is_one_workload);
            self.standings[position].add(standing);
        }
    }

    fn configuration_of(&mut self, row: SummaryRow<'_>) -> usize {
        let next = self.configurations.len();
        if let Some(key_axes) = &self.key_axes {
            let mut hasher = blake3::Hasher::new();
            for axis in key_axes {
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
            met_runs: 0,
            load: Load::Unjudged,
            slo_probability: 0.0,
            slo: SloVerdict::Misses,
            pareto: false,
            attainment: 0.0,
        });
        let bounds = self.criteria.bounds.len();
        self.bounded.resize((next + 1) * bounds, Figure::default());
        self.standings.push(Standing::default());
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
            configuration.attainment /= f64::from(configuration.runs);
            let load = configuration.load;
            let bounded = &self.bounded[position * bounds..(position + 1) * bounds];
            let kept = self.criteria.bounds.iter().zip(bounded);
            let kept = kept.map(|(bound, figure)| figure.keeps(bound, load));
            let all_served = configuration.all_ok && configuration.requests.all_served();
            configuration.slo_probability = probability(kept, load, all_served);
            configuration.slo = verdict(configuration.slo_probability, load);
        }
        self.drop_objectives_without_values();
        let good: Vec<usize> = (0..self.configurations.len())
            .filter(|&position| self.configurations[position].meets_targets())
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
        let width = self.width();
        let completed = |c: &Configuration| c.requests.completed > 0;
        if width == 0 || !self.configurations.iter().any(completed) {
            return;
        }
        let rows = || self.figures.chunks_exact(width);
        let has_value = |at: usize| rows().any(|figures| !figures[at].is_nan());
        let kept: Vec<bool> = (0..width).map(has_value).collect();
        let mut columns = kept.iter().copied().cycle();
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
    pub fn bound_values(&self, position: usize) -> impl Iterator<Item = f64> {
        self.bounded_of(position).iter().map(Figure::value)
    }

    /// Mean of one of them.
    pub fn bound_value(&self, position: usize, bound: usize) -> f64 {
        self.bounded_of(position)[bound].value()
    }

    /// Whether a configuration keeps every limit but that of requests' own targets, as its
    /// figures are.
    pub fn keeps_columns(&self, position: usize) -> bool {
        let bounds = self.criteria.bounds.iter();
        self.configurations[position].requests.all_served()
            && bounds
                .zip(self.bound_values(position))
                .all(|(bound, value)| {
                    bound.column == ATTAINMENT_COLUMN || bound.side.has(value, bound.limit)
                })
    }

    fn bounded_of(&self, position: usize) -> &[Figure] {
        let bounds = self.criteria.bounds.len();
        &self.bounded[position * bounds..(position + 1) * bounds]
    }

    /// Mean of each objective.
    pub fn objective_values(&self, position: usize) -> &[f64] {
        let width = self.width();
        &self.figures[position * width..(position + 1) * width]
    }

    /// Configuration of a run; none if the run was not simulated.
    pub fn position_of_run(&self, run_index: u64) -> Option<usize> {
        let found = self.runs.binary_search_by_key(&run_index, |run| run.0);
        found.ok().map(|at| self.runs[at].1 as usize)
    }

    /// The bound a configuration is closest to, or furthest beyond: position of
    /// the bound, and how much of it is taken up, more than 1 beyond it.
    pub fn tightest_bound(&self, position: usize) -> Option<(usize, f64)> {
        let bounds = self.criteria.bounds.iter();
        let ratios = bounds
            .zip(self.bound_values(position))
            .map(|(bound, value)| bound.side.strain(value, bound.limit));
        ratios.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Configurations that meet the targets, best first: by the first objective; of those
    /// that are tied in it the cheapest, then by the next objectives, then by index. At
    /// most `limit`.
    pub fn best(&self, limit: usize) -> Vec<usize> {
        let ranked = self.ranked(limit).into_iter();
        ranked.map(|(position, _)| position).collect()
    }

    /// The same with their places, from 1, which those that are tied with the best of them
    /// share.
    pub fn ranked(&self, limit: usize) -> Vec<(usize, u64)> {
        let best = self.sorted(usize::MAX, Configuration::meets_targets, |a, b| {
            self.compare_standings(a, b)
        });
        let mut ranked = Vec::with_capacity(best.len());
        let mut rest = &best[..];
        while let Some(&first) = rest.first() {
            let tied = rest.iter().skip(1);
            let tied = tied.take_while(|&&position| self.are_tied(first, position));
            let (group, after) = rest.split_at(1 + tied.count());
            let place = ranked.len() as u64 + 1;
            let mut group = group.to_vec();
            group.sort_by(|&a, &b| {
                let cost = |position: usize| self.standings[position].cost_usd_per_hour();
                let by_cost = cost(a).total_cmp(&cost(b));
                by_cost
                    .then_with(|| self.compare_objectives(a, b))
                    .then(a.cmp(&b))
            });
            ranked.extend(group.into_iter().map(|position| (position, place)));
            rest = after;
        }
        ranked.truncate(limit);
        ranked
    }

    /// Whether two configurations cannot be told apart by the first objective.
    pub fn are_tied(&self, a: usize, b: usize) -> bool {
        !self.has_lost_first() && self.standings[a].is_tied_with(&self.standings[b])
    }

    /// By the first objective alone, as far as it is the one configurations stand by.
    fn compare_standings(&self, a: usize, b: usize) -> Ordering {
        if self.has_lost_first() {
            return self.compare_objectives(a, b);
        }
        let [a, b] = [a, b].map(|position| self.standings[position].mean());
        a.is_nan()
            .cmp(&b.is_nan())
            .then((a + 0.0).total_cmp(&(b + 0.0)))
    }

    /// Whether there is no first objective, or it was left out after runs were seen.
    fn has_lost_first(&self) -> bool {
        self.criteria.objectives.first() != self.first_objective.as_ref()
            || self.first_objective.is_none()
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
            |c| c.all_ok && !c.meets_targets(),
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
        let criteria = self.criteria.columns();
        let compared = self.first_objective.iter().flat_map(ranking::columns);
        criteria
            .chain(compared)
            .chain(self.key_axes.iter().flatten().cloned())
            .collect()
    }

    fn observe(&mut self, row: SummaryRow<'_>) {
        Self::observe(self, row);
    }

    fn verdict(&mut self, row: SummaryRow<'_>) -> Verdict {
        self.conclude();
        let position = self.position_of_run(row.run_index());
        let judged = Judged::of(&self.criteria, row);
        let (of_row, load) = (judged.probability(&self.criteria), judged.load);
        Verdict {
            slo: verdict(of_row, load),
            slo_probability: of_row,
            pareto: position.is_some_and(|p| self.configurations[p].pareto),
        }
    }
}
