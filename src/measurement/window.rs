//! The part of a run that counts, and the figures of it.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use super::{Figure, Limit, Metric, Side, Statistic};
use crate::number::whole_usize;
use crate::simulator::{
    Distribution, DistributionIntervals, Mark, OutcomeCounts, PoolWork, Progress, RequestOutcome,
    RequestRecord, RequestTargets, SegmentCounts, SimulationTotals, SparseHistogram,
};
use crate::statistics::batch_means::MIN_SEGMENTS;
use crate::statistics::quantile::{Quantiles, share_is_known, share_of};
use crate::statistics::warm_up::mser5;
use crate::statistics::{CellCounts, Interval, Mean, Sample, batch_means, length};

/// Pieces of time by which rates are told apart.
const PIECES: usize = 64;

/// When the requests of a run came and went, seconds, in the order of their arrivals; NaN:
/// not yet.
pub(super) struct Stays {
    pub(super) arrivals_s: Vec<f64>,
    pub(super) begins_s: Vec<f64>,
    pub(super) ends_s: Vec<f64>,
}

impl Stays {
    /// Of all that have arrived.
    pub(super) fn of(progress: &Progress<'_>) -> Self {
        let arrived = progress.arrived();
        let [mut arrivals_s, mut begins_s, mut ends_s] = [(); 3].map(|()| Vec::new());
        for times_s in [&mut arrivals_s, &mut begins_s, &mut ends_s] {
            times_s.reserve_exact(arrived);
        }
        for id in 0..arrived {
            arrivals_s.push(progress.arrived_at_s(id));
            begins_s.push(progress.began_at_s(id));
            ends_s.push(progress.ended_at_s(id));
        }
        Self {
            arrivals_s,
            begins_s,
            ends_s,
        }
    }
}

/// Requests at the start of a run that warm the system up, of the first `ended`, which
/// have ended. By how many requests each of them found in the system, and how long it
/// waited for its first token; not by how long requests took, which their lengths decide.
pub(super) fn warm_up(stays: &Stays, marks: &[Mark], ended: usize) -> usize {
    let ends_s = stays.ends_s.iter().copied();
    let mut ends_s: Vec<f64> = ends_s.filter(|end_s| !end_s.is_nan()).collect();
    ends_s.sort_unstable_by(f64::total_cmp);
    let mut gone = 0;
    let (mut found, mut waits_s) = (Vec::with_capacity(ended), Vec::with_capacity(ended));
    for id in 0..ended {
        let arrived_at_s = stays.arrivals_s[id];
        while ends_s.get(gone).is_some_and(|end_s| *end_s <= arrived_at_s) {
            gone += 1;
        }
        found.push(id as f64 - gone as f64);
        waits_s.push(stays.begins_s[id] - arrived_at_s);
    }
    let dropped = mser5(&found).dropped.max(mser5(&waits_s).dropped);
    // Segments begin with marks.
    let mut marks = marks.iter().map(|mark| mark.request as usize);
    marks.find(|mark| *mark >= dropped).unwrap_or(0)
}

/// A window of a run.
pub(super) struct Window<'a> {
    progress: &'a Progress<'a>,
    /// Requests that count.
    pub(super) ids: Range<usize>,
    /// From the arrival of the first of them to that of the one after the last, or to the
    /// present if there is none yet, seconds.
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    /// Whole segments within it; one more than there are marks: until now.
    segments: Range<usize>,
    pub(super) facts: Facts,
    pub(super) rates: Rates,
    tbt: Quantiles<SegmentCounts<'a>>,
    samples: [OnceCell<Quantiles<Sample>>; Metric::OF_REQUESTS.len()],
    estimates: RefCell<Vec<(Figure, Estimate)>>,
}

impl<'a> Window<'a> {
    /// Of requests `ids`; `tokens`: times between tokens by segment, the open one included.
    pub(super) fn new(
        progress: &'a Progress<'a>,
        tokens: &[&'a SparseHistogram],
        ids: Range<usize>,
        targets: Option<RequestTargets>,
    ) -> Self {
        let segments = whole_segments(progress.marks, &ids);
        let within = tokens[segments.clone()].to_vec();
        Self::of(progress, within, segments, ids, targets)
    }

    /// Of a run that is stopped before its requests have ended: of requests `ids`, but of the
    /// times between all tokens where the segments of `ids` would be too few for an interval.
    pub(super) fn of_stopped(
        progress: &'a Progress<'a>,
        tokens: &[&'a SparseHistogram],
        ids: Range<usize>,
        targets: Option<RequestTargets>,
    ) -> Self {
        let segments = whole_segments(progress.marks, &ids);
        let within = match segments.len() < MIN_SEGMENTS {
            true => tokens.to_vec(),
            false => tokens[segments.clone()].to_vec(),
        };
        Self::of(progress, within, segments, ids, targets)
    }

    fn of(
        progress: &'a Progress<'a>,
        tokens: Vec<&'a SparseHistogram>,
        segments: Range<usize>,
        ids: Range<usize>,
        targets: Option<RequestTargets>,
    ) -> Self {
        let start_s = progress.arrived_at_s(ids.start);
        let end_s = match ids.end < progress.arrived() {
            true => progress.arrived_at_s(ids.end),
            false => progress.now_s,
        };
        debug_assert!(keeps_littles_law(progress, start_s, end_s));
        Self {
            facts: Facts::of(progress, ids.clone(), targets),
            rates: Rates::of(progress, start_s, end_s),
            tbt: Quantiles::new(SegmentCounts::new(tokens)),
            samples: Default::default(),
            estimates: RefCell::default(),
            progress,
            ids,
            start_s,
            end_s,
            segments,
        }
    }

    /// Its length, seconds.
    pub(super) fn duration_s(&self) -> f64 {
        self.end_s - self.start_s
    }

    /// What the cluster did in its whole segments, and how long those took, seconds.
    pub(super) fn work(&self) -> (SimulationTotals, f64) {
        let end = match self.progress.marks.get(self.segments.end) {
            Some(mark) => &mark.totals,
            None => &self.progress.totals,
        };
        between(&self.progress.marks[self.segments.start].totals, end)
    }

    /// A figure with its interval.
    pub(super) fn interval(&self, figure: Figure) -> Interval {
        self.estimate(figure).interval
    }

    /// Whether the interval of a figure can be believed.
    pub(super) fn is_known(&self, figure: Figure) -> bool {
        self.estimate(figure).is_known
    }

    /// Whether the interval of a figure can be believed, whatever it is used for: that of the
    /// share of requests that keep their targets needs some that do not.
    pub(super) fn is_believable(&self, figure: Figure) -> bool {
        match figure {
            Figure::Attainment => share_is_known(&self.facts.met),
            figure => self.is_known(figure),
        }
    }

    /// What is known of a figure, found once: who watches a run asks several times.
    fn estimate(&self, figure: Figure) -> Estimate {
        let found = |kept: &[(Figure, Estimate)]| {
            let same = kept.iter().find(|(other, _)| *other == figure);
            same.map(|(_, estimate)| *estimate)
        };
        if let Some(estimate) = found(&self.estimates.borrow()) {
            return estimate;
        }
        let estimate = self.find(figure);
        self.estimates.borrow_mut().push((figure, estimate));
        estimate
    }

    fn find(&self, figure: Figure) -> Estimate {
        match figure {
            Figure::Latency(Metric::Tbt, Statistic::Mean) => {
                let mean = mean_tbt(self.tbt.counts());
                Estimate {
                    interval: mean.interval,
                    is_known: mean.independent,
                }
            }
            Figure::Latency(Metric::Tbt, Statistic::Quantile(p)) => {
                Estimate::of_quantile(&self.tbt, p)
            }
            Figure::Latency(metric, Statistic::Mean) => {
                let series_s = self.facts.series_s(metric);
                // Where nobody gets a second token, there is nothing to know.
                let is_never_seen = metric == Metric::RequestTbtMax && series_s.is_empty();
                Estimate {
                    interval: batch_means::mean(series_s).interval,
                    is_known: is_never_seen || length::mean_is_known(series_s),
                }
            }
            Figure::Latency(metric, Statistic::Quantile(p)) => {
                Estimate::of_quantile(self.sample(metric), p)
            }
            Figure::Requests => Estimate::known(self.rates.requests_per_s()),
            Figure::Tokens => Estimate::known(self.rates.tokens_per_s()),
            Figure::Attainment => Estimate::known(self.attainment()),
            Figure::Goodput => Estimate::known(self.goodput()),
        }
    }

    /// The latencies of a metric of requests in order.
    fn sample(&self, metric: Metric) -> &Quantiles<Sample> {
        let kept = &self.samples[place(metric).unwrap_or(0)];
        kept.get_or_init(|| Quantiles::new(Sample::new(self.facts.series_s(metric))))
    }

    /// The probability that a limit is kept: by the interval of its figure, as for whoever
    /// has only that.
    pub(super) fn likelihood(&self, limit: &Limit) -> f64 {
        let interval = self.interval(limit.figure);
        match limit.figure {
            // Without a sample a latency exceeds nothing.
            Figure::Latency(..) if interval.value.is_nan() => match limit.side {
                Side::AtMost => 1.0,
                Side::AtLeast => 0.0,
            },
            _ => limit.side.probability(interval, limit.value),
        }
    }

    /// The distribution of a metric, and the intervals of those of its figures that
    /// `has_interval` names.
    pub(super) fn distribution(
        &self,
        metric: Metric,
        has_interval: &dyn Fn(Figure) -> bool,
    ) -> (Distribution, DistributionIntervals) {
        let of = |statistic| {
            let figure = Figure::Latency(metric, statistic);
            match has_interval(figure) {
                true => self.interval(figure),
                false => Interval::unbounded(self.latency_s(metric, statistic)),
            }
        };
        let mean = of(Statistic::Mean);
        let [p50, p90, p95, p99] = [0.5, 0.9, 0.95, 0.99].map(|p| of(Statistic::Quantile(p)));
        let distribution = Distribution {
            mean_s: mean.value,
            p50_s: p50.value,
            p90_s: p90.value,
            p95_s: p95.value,
            p99_s: p99.value,
            max_s: match metric {
                Metric::Tbt => self.tbt.counts().max_s(),
                _ => self.sample(metric).counts().largest(),
            },
        };
        let intervals = DistributionIntervals {
            mean,
            p50,
            p90,
            p95,
            p99,
        };
        (distribution, intervals)
    }

    /// A figure of a latency without its interval.
    fn latency_s(&self, metric: Metric, statistic: Statistic) -> f64 {
        match (metric, statistic) {
            (Metric::Tbt, Statistic::Mean) => mean_tbt(self.tbt.counts()).interval.value,
            (Metric::Tbt, Statistic::Quantile(p)) => self.tbt.value(p),
            (_, Statistic::Mean) => {
                batch_means::mean(self.facts.series_s(metric))
                    .interval
                    .value
            }
            (_, Statistic::Quantile(p)) => self.sample(metric).value(p),
        }
    }

    /// Requests that keep every target of their own, per second.
    pub(super) fn goodput(&self) -> Interval {
        let Some(good) = &self.facts.good_at_s else {
            return Interval::unbounded(f64::NAN);
        };
        let piece_s = self.duration_s() / PIECES as f64;
        let mut requests = [0.0; PIECES];
        for at_s in good {
            let piece = whole_usize((at_s - self.start_s) / piece_s);
            requests[piece.min(PIECES - 1)] += 1.0;
        }
        batch_means::ratio(&requests, &[piece_s; PIECES]).interval
    }

    /// The share of decided requests that met every target.
    pub(super) fn attainment(&self) -> Interval {
        match self.facts.met.is_empty() {
            true => Interval::unbounded(f64::NAN),
            false => share_of(&self.facts.met),
        }
    }
}

/// The mean time between tokens, seconds.
pub(super) fn mean_tbt(tokens: &SegmentCounts<'_>) -> Mean {
    let sums_s: Vec<f64> = tokens.segments().map(SparseHistogram::sum_s).collect();
    let counts = tokens.segments().map(|segment| segment.count() as f64);
    batch_means::ratio(&sums_s, &counts.collect::<Vec<f64>>())
}

/// What is known of a figure.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    interval: Interval,
    is_known: bool,
}

impl Estimate {
    fn known(interval: Interval) -> Self {
        Self {
            interval,
            is_known: true,
        }
    }

    fn of_quantile(quantiles: &Quantiles<impl CellCounts>, p: f64) -> Self {
        Self {
            interval: quantiles.quantile(p),
            // Of what was never seen, there is nothing to know.
            is_known: quantiles.samples() == 0 || quantiles.is_known(p),
        }
    }
}

/// Little's law over a window: the mean number in the system, counted event by event, times
/// its length is the time that requests spend in it.
fn keeps_littles_law(progress: &Progress<'_>, start_s: f64, end_s: f64) -> bool {
    let (mut spent_s, mut events) = (0.0, Vec::new());
    for id in 0..progress.arrived() {
        let ended_at_s = match progress.ended_at_s(id) {
            ended_at_s if ended_at_s.is_nan() => end_s,
            ended_at_s => ended_at_s,
        };
        let within = |at_s: f64| at_s.clamp(start_s, end_s);
        let (from_s, to_s) = (within(progress.arrived_at_s(id)), within(ended_at_s));
        spent_s += to_s - from_s;
        events.extend([(from_s, 1.0), (to_s, -1.0)]);
    }
    events.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut at_s, mut present, mut area_s) = (start_s, 0.0, 0.0);
    for (event_s, change) in events {
        area_s += present * (event_s - at_s);
        (at_s, present) = (event_s, present + change);
    }
    (area_s - spent_s).abs() <= 1e-6 * (spent_s + 1.0)
}

/// Segments between marks that lie within `ids`; where there is none, all from the start
/// of the window on, the open one included.
fn whole_segments(marks: &[Mark], ids: &Range<usize>) -> Range<usize> {
    let before = |id: usize| marks.partition_point(|mark| (mark.request as usize) < id);
    let first = before(ids.start);
    let last = before(ids.end + 1).saturating_sub(1);
    match last > first {
        true => first..last,
        false => first.min(marks.len() - 1)..marks.len(),
    }
}

/// What was done between two marks, and the time between them, seconds.
fn between(start: &SimulationTotals, end: &SimulationTotals) -> (SimulationTotals, f64) {
    let span_s = end.end_s - start.end_s;
    let share =
        |of: fn(&SimulationTotals) -> f64| (of(end) * end.end_s - of(start) * start.end_s) / span_s;
    let pools = start.pools.iter().zip(&end.pools);
    let totals = SimulationTotals {
        end_s: end.end_s,
        pools: pools
            .map(|(start, end)| end.minus(*start))
            .collect::<Vec<PoolWork>>(),
        // What several stages have yet to do is only known to be no more than that.
        gpu_busy_fraction: share(|totals| totals.gpu_busy_fraction).clamp(0.0, 1.0),
        kv_cache_utilization: share(|totals| totals.kv_cache_utilization),
        preemptions: end.preemptions - start.preemptions,
        leaked_blocks: 0,
    };
    (totals, span_s)
}

/// What is known of the requests of a window.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) outcomes: OutcomeCounts,
    /// By metric, as [`Metric::OF_REQUESTS`] has them.
    series_s: [Vec<f64>; Metric::OF_REQUESTS.len()],
    /// Whether each request whose outcome is decided met every target.
    met: Vec<bool>,
    /// When those arrived that did, seconds; none where requests have no targets.
    good_at_s: Option<Vec<f64>>,
}

impl Facts {
    fn of(progress: &Progress<'_>, ids: Range<usize>, targets: Option<RequestTargets>) -> Self {
        let mut facts = Self {
            good_at_s: targets.map(|_| Vec::with_capacity(ids.len())),
            ..Self::default()
        };
        for series_s in &mut facts.series_s {
            series_s.reserve_exact(ids.len());
        }
        for id in ids {
            facts.add(&progress.record(id), targets);
        }
        facts
    }

    fn add(&mut self, record: &RequestRecord, targets: Option<RequestTargets>) {
        let is_good = self.outcomes.add(record, targets);
        self.met.extend(is_good);
        if let (Some(true), Some(good_at_s)) = (is_good, &mut self.good_at_s) {
            good_at_s.push(record.arrived_at_s);
        }
        if record.outcome == RequestOutcome::Completed {
            self.add_times(record);
        } else if record.outcome.is_unfinished() {
            // What it has waited for so far: of a run that was stopped, percentiles over
            // those that have ended alone would be too low.
            self.add_times(&record.completed_when_it_ended());
        }
    }

    fn add_times(&mut self, record: &RequestRecord) {
        for (series_s, metric) in self.series_s.iter_mut().zip(Metric::OF_REQUESTS) {
            series_s.extend(metric.of_request_s(record));
        }
    }

    /// Latencies in order of arrival, seconds; of requests that have not ended, so far.
    fn series_s(&self, metric: Metric) -> &[f64] {
        place(metric).map_or(&[], |place| &self.series_s[place])
    }
}

/// Where a metric of requests is among them.
fn place(metric: Metric) -> Option<usize> {
    Metric::OF_REQUESTS
        .iter()
        .position(|other| *other == metric)
}

/// What was served within a window.
pub(super) struct Rates {
    piece_s: f64,
    requests: [f64; PIECES],
    output_tokens: [f64; PIECES],
    /// Of the requests that arrive.
    offered_tokens: [f64; PIECES],
    pub(super) total_requests: u32,
    pub(super) total_output_tokens: u64,
    pub(super) total_prompt_tokens: u64,
}

impl Rates {
    fn of(progress: &Progress<'_>, start_s: f64, end_s: f64) -> Self {
        let mut rates = Self {
            piece_s: (end_s - start_s) / PIECES as f64,
            requests: [0.0; PIECES],
            output_tokens: [0.0; PIECES],
            offered_tokens: [0.0; PIECES],
            total_requests: 0,
            total_output_tokens: 0,
            total_prompt_tokens: 0,
        };
        let piece_s = rates.piece_s;
        let piece = |at_s: f64| {
            let is_within = at_s >= start_s && at_s < end_s;
            is_within.then(|| whole_usize((at_s - start_s) / piece_s).min(PIECES - 1))
        };
        for id in 0..progress.arrived() {
            let (_, output) = progress.lengths(id);
            if let Some(piece) = piece(progress.arrived_at_s(id)) {
                rates.offered_tokens[piece] += f64::from(output);
            }
            let Some((completed_at_s, prompt, output)) = progress.completion(id) else {
                continue;
            };
            let Some(piece) = piece(completed_at_s) else {
                continue;
            };
            rates.requests[piece] += 1.0;
            rates.output_tokens[piece] += f64::from(output);
            rates.total_requests += 1;
            rates.total_output_tokens += u64::from(output);
            rates.total_prompt_tokens += u64::from(prompt);
        }
        rates
    }

    pub(super) fn requests_per_s(&self) -> Interval {
        batch_means::ratio(&self.requests, &[self.piece_s; PIECES]).interval
    }

    pub(super) fn served_tokens_share(&self) -> Interval {
        batch_means::ratio(&self.output_tokens, &self.offered_tokens).interval
    }

    pub(super) fn tokens_per_s(&self) -> Interval {
        batch_means::ratio(&self.output_tokens, &[self.piece_s; PIECES]).interval
    }
}
