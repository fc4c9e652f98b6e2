//! Watches a run until enough is known of it.
//!
//! A run starts with as many requests as are asked for, and some to warm up. It is looked
//! at whenever twice as many have arrived: if the backlog grows for certain, it stops. When
//! the requests have ended, the warm-up is cut off and the window is measured; if that is
//! not enough to say what is to be said, the run goes on, and the window grows.

use std::ops::Range;

use super::window::{Window, warm_up};
use super::{Figure, Length, Limit, Metric, Side, Statistic};
use crate::number::{narrow, whole_u32};
use crate::simulator::{
    Mark, Next, Overseer, PoolWork, Progress, RequestTargets, RunSummary, SegmentRecorder,
    SparseHistogram, SteadyState, Until,
};
use crate::statistics::quantile::share_of;
use crate::statistics::{CERTAIN, LoadEvidence, LoadVerdict};

/// Requests that have arrived when a run is looked at first for a growing backlog.
const FIRST_LOOK: u32 = 128;

/// A run whose figures are not known well enough goes on to be as many times as long.
const GROWTH: f64 = 1.5;

/// Longest step in one go: what is expected of a longer run is itself only guessed.
const MOST_GROWTH: f64 = 4.0;

/// A saturated run stops when so many times as many requests have arrived as when that was
/// seen, or those that were to be measured.
const SEEN_SATURATED: usize = 4;

/// A target is out of reach for certain at this probability that it is met: then no figure
/// need be known any better.
const HOPELESS: f64 = 5e-3;

/// So many times the share of requests that may exceed a limit do for certain, of a run
/// that is stopped before its requests have ended.
const HOPELESS_EXCESS: f64 = 2.0;

/// Half-width, as a share, of the interval of a figure that may stay as near to its limit
/// as it is.
const CLOSE: f64 = 0.02;

/// A figure that takes up less of its limit than this is far from it.
const FAR_BELOW: f64 = 0.8;

/// Watches one run.
pub struct Steady<'a> {
    length: &'a Length,
    limits: &'a [Limit],
    targets: Option<RequestTargets>,
    is_closed_loop: bool,
    /// Requests to be measured, as the run is now to become.
    requests: usize,
    /// Of the first so many all are to end.
    goal: usize,
    /// Requests that have arrived when the backlog is looked at again.
    next_look: u32,
    /// Requests that had arrived when it was first seen to grow for certain.
    saturated_at: Option<usize>,
    measured: Option<Measured>,
}

/// What a run has come to.
#[derive(Debug)]
pub struct Measured {
    /// Figures of the window.
    pub summary: RunSummary,
    /// Requests of the window.
    pub requests: Range<u32>,
    /// Work done in whole segments of the window, by pool.
    pub pools: Vec<PoolWork>,
    /// How long those segments took, seconds.
    pub pools_span_s: f64,
}

impl<'a> Steady<'a> {
    /// A run of `length`, of open or closed loop, that need not become longer when it is
    /// sure that it misses one of `limits`; `targets` are those of each request.
    pub fn new(
        length: &'a Length,
        limits: &'a [Limit],
        targets: Option<RequestTargets>,
        is_closed_loop: bool,
    ) -> Self {
        let requests = length.requests as usize;
        Self {
            length,
            limits,
            targets,
            is_closed_loop,
            requests,
            goal: length.simulated_at_first() as usize,
            next_look: FIRST_LOOK,
            saturated_at: None,
            measured: None,
        }
    }

    /// What the run has come to; none of one that was never looked at.
    pub fn measured(self) -> Option<Measured> {
        self.measured
    }

    fn until(&self) -> Next {
        Next::Until(Until {
            ended: narrow::<u32, _>(self.goal),
            arrived: match self.is_closed_loop {
                true => u32::MAX,
                false => self.next_look,
            },
        })
    }

    /// What the run shows of its load, settled from `settled_from_s` on.
    fn evidence(&self, progress: &Progress<'_>, settled_from_s: f64) -> LoadEvidence {
        let of_all = |of: &dyn Fn(usize) -> f64| (0..progress.arrived()).map(of).collect();
        let arrivals: Vec<f64> = of_all(&|id| progress.arrived_at_s(id));
        let begins: Vec<f64> = of_all(&|id| progress.began_at_s(id));
        let ends: Vec<f64> = of_all(&|id| progress.ended_at_s(id));
        LoadEvidence::new(&arrivals, &begins, &ends, settled_from_s, progress.now_s)
    }

    /// Figures that must be known for a verdict: means; those that are to be known well;
    /// and, where nobody asks for any, the outermost that every summary has.
    fn figures(&self) -> Vec<Figure> {
        let wishes = self.length.precision.iter().map(|(figure, _)| *figure);
        let mut figures: Vec<_> = wishes.collect();
        if figures.is_empty() && self.limits.is_empty() {
            let outermost = |metric| Figure::Latency(metric, Statistic::Quantile(0.99));
            figures.extend([Metric::Ttft, Metric::Tbt, Metric::E2e].map(outermost));
        }
        let mean = |metric| Figure::Latency(metric, Statistic::Mean);
        figures.extend([Metric::Ttft, Metric::E2e].map(mean));
        figures
    }

    /// The share of the load by which it may exceed what is served, if so much can be said:
    /// of a run in which the figures that are near their limits can be believed.
    fn excess_share(&self, window: &Window<'_>, evidence: &LoadEvidence) -> f64 {
        let is_far = |limit: &Limit| {
            let value = window.interval(limit.figure).value;
            limit.figure != Figure::Attainment
                && limit.side.strain(value, limit.value) <= FAR_BELOW
                && is_certain(window.likelihood(limit))
        };
        let mut limits = self.limits.iter();
        let are_known = limits.all(|limit| window.is_believable(limit.figure) || is_far(limit));
        match evidence.settled && are_known {
            true => evidence.growing_share,
            false => f64::INFINITY,
        }
    }

    fn verdict(&self, window: &Window<'_>, evidence: &LoadEvidence) -> LoadVerdict {
        if !self.is_closed_loop && evidence.is_saturated() {
            return LoadVerdict::Saturated;
        }
        // Clients that wait for one another cannot be more than there are.
        let is_bounded = match self.is_closed_loop {
            true => evidence.settled,
            false => evidence.is_bounded(),
        };
        let are_known = || {
            let mut figures = self.figures().into_iter();
            figures.all(|figure| window.is_known(figure))
                && self.limits.iter().all(|limit| {
                    window.is_known(limit.figure) || is_certain(window.likelihood(limit))
                })
        };
        match is_bounded && are_known() {
            true => LoadVerdict::Stable,
            false => LoadVerdict::TooShort,
        }
    }

    /// How many requests to measure instead of those of `window`, if what they show is not
    /// enough.
    fn extended(&self, window: &Window<'_>, verdict: LoadVerdict) -> Option<usize> {
        let most = self.length.max_requests as usize;
        if self.requests >= most || verdict == LoadVerdict::Saturated {
            return None;
        }
        let likelihoods = self.limits.iter().map(|limit| window.likelihood(limit));
        let likelihood = likelihoods.fold(1.0, f64::min);
        // Whoever cannot serve a request misses every target.
        if likelihood <= HOPELESS || window.facts.outcomes.rejected > 0 {
            return None;
        }
        // The width falls with the root of the length.
        let wishes = self.length.precision.iter();
        let missing = wishes.map(|(figure, width)| {
            (window.interval(*figure).relative_half_width() / width).powi(2)
        });
        let missing = missing.fold(0.0, f64::max);
        // Whoever is this close to a limit may stay there.
        let nearness = self
            .limits
            .iter()
            .map(|limit| window.interval(limit.figure).relative_half_width() / CLOSE);
        let is_open = !is_certain(likelihood) && nearness.fold(0.0, f64::max) > 1.0;
        let factor = match verdict {
            LoadVerdict::TooShort => missing.max(GROWTH),
            _ if missing > 1.0 => (1.1 * missing).max(GROWTH),
            _ if is_open => GROWTH,
            _ => return None,
        };
        let longer = self.requests as f64 * factor.min(MOST_GROWTH);
        Some((whole_u32(longer) as usize).min(most))
    }

    /// Measures the window of `ids`.
    fn conclude(
        &mut self,
        window: &Window<'_>,
        progress: &Progress<'_>,
        verdict: LoadVerdict,
        excess_share: f64,
    ) -> Next {
        let (ttft, ttft_intervals) = window.distribution(Metric::Ttft);
        let (tbt, tbt_intervals) = window.distribution(Metric::Tbt);
        let (e2e, e2e_intervals) = window.distribution(Metric::E2e);
        let (delay, delay_intervals) = window.distribution(Metric::SchedulingDelay);
        let (tbt_max, tbt_max_intervals) = window.distribution(Metric::RequestTbtMax);
        let (work, pools_span_s) = window.work();
        let done = work.work();
        let batches = done.batches as f64;
        let (outcomes, rates) = (window.facts.outcomes, &window.rates);
        let arrived = narrow::<u32, _>(window.ids.len());
        let not_arrived = match progress.is_over {
            true => narrow::<u32, _>(self.requests).saturating_sub(arrived),
            false => 0,
        };
        let summary = RunSummary {
            num_requests: arrived + not_arrived,
            completed: outcomes.completed,
            rejected: outcomes.rejected,
            rejected_by_max_model_len: outcomes.rejected_by_max_model_len,
            capped_by_max_model_len: outcomes.capped_by_max_model_len,
            unfinished: outcomes.unfinished,
            undecided: outcomes.undecided,
            not_arrived,
            offered_requests_per_s: f64::from(arrived) / window.duration_s(),
            served_requests: rates.total_requests,
            duration_s: window.duration_s(),
            output_tokens: rates.total_output_tokens,
            prompt_tokens: rates.total_prompt_tokens,
            ttft,
            tbt,
            e2e,
            scheduling_delay: delay,
            request_tbt_max: tbt_max,
            gpu_busy_fraction: work.gpu_busy_fraction,
            kv_cache_utilization: work.kv_cache_utilization,
            preemptions: work.preemptions,
            batches: done.batches,
            mean_batch_tokens: done.tokens as f64 / batches,
            mean_batch_requests: done.batch_requests as f64 / batches,
            processed_tokens: done.tokens,
            attended_pairs: done.attended_pairs,
            sampled_tokens: done.sampled_tokens,
            slo_met_requests: self.targets.map(|_| outcomes.within_targets),
            steady: Some(Box::new(SteadyState {
                verdict,
                window_start_s: window.start_s,
                window_end_s: window.end_s,
                simulated_requests: narrow::<u32, _>(progress.arrived()),
                ttft: ttft_intervals,
                tbt: tbt_intervals,
                e2e: e2e_intervals,
                scheduling_delay: delay_intervals,
                request_tbt_max: tbt_max_intervals,
                requests_per_s: rates.requests_per_s(),
                output_tokens_per_s: rates.tokens_per_s(),
                served_tokens_share: rates.served_tokens_share(),
                attainment: window.attainment(),
                goodput: window.goodput(),
                excess_share,
            })),
        };
        self.measured = Some(Measured {
            summary,
            requests: narrow::<u32, _>(window.ids.start)..narrow::<u32, _>(window.ids.end),
            pools: work.pools,
            pools_span_s,
        });
        Next::Stop
    }

    /// Whether targets cannot be met any more: a request was rejected; or so many have waited
    /// for longer than a limit on a percentile that the others cannot make up for it, of those that arrived in the first half, which
    /// have had time to be served.
    fn is_hopeless(&self, progress: &Progress<'_>) -> bool {
        let was_refused = |id: usize| progress.is_rejected(id);
        if !self.limits.is_empty() && (0..progress.arrived()).any(was_refused) {
            return true;
        }
        self.limits.iter().any(|limit| {
            let (Figure::Latency(metric, Statistic::Quantile(p)), Side::AtMost) =
                (limit.figure, limit.side)
            else {
                return false;
            };
            let exceeds = |id: usize| {
                let so_far = progress.record(id).completed_when_it_ended();
                (metric.of_request_s(&so_far)).is_some_and(|time_s| time_s > limit.value)
            };
            let exceeding: Vec<bool> = (0..progress.arrived() / 2).map(exceeds).collect();
            share_of(&exceeding).low > HOPELESS_EXCESS * (1.0 - p)
        })
    }

    /// Stops a run of which enough is known before its requests have ended; what it served
    /// is told of its second half.
    fn conclude_early(
        &mut self,
        progress: &Progress<'_>,
        recorder: &SegmentRecorder,
        verdict: LoadVerdict,
    ) -> Next {
        let arrived = progress.arrived();
        let before = |mark: &Mark| mark.request as usize <= arrived / 2;
        let after = progress.marks.partition_point(before);
        let start = progress.marks[..after].last();
        let start = start.map_or(0, |mark| mark.request as usize);
        let tokens = tokens(recorder);
        let window = Window::new(progress, &tokens, start..arrived, self.targets);
        self.conclude(&window, progress, verdict, f64::INFINITY)
    }
}

fn is_certain(probability: f64) -> bool {
    !(1.0 - CERTAIN..CERTAIN).contains(&probability)
}

/// Times between tokens by segment, the open one included.
fn tokens(recorder: &SegmentRecorder) -> Vec<SparseHistogram> {
    let open = std::iter::once(recorder.open());
    recorder.segments().iter().cloned().chain(open).collect()
}

impl Overseer<SegmentRecorder> for Steady<'_> {
    fn look(&mut self, progress: &Progress<'_>, recorder: &SegmentRecorder) -> Next {
        let arrived = progress.arrived();
        if arrived == 0 && !progress.is_over {
            return self.until();
        }
        if !self.is_closed_loop && arrived >= self.next_look as usize {
            if self.saturated_at.is_none() && self.evidence(progress, 0.0).is_saturated() {
                self.saturated_at = Some(arrived);
            }
            // What it serves shows when those have ended that came when it was empty.
            let seen = self
                .saturated_at
                .map(|at| at.saturating_mul(SEEN_SATURATED));
            if seen.is_some_and(|seen| arrived >= seen.min(self.requests)) {
                return self.conclude_early(progress, recorder, LoadVerdict::Saturated);
            }
            if self.saturated_at.is_none() && self.is_hopeless(progress) {
                return self.conclude_early(progress, recorder, LoadVerdict::TooShort);
            }
            while self.next_look as usize <= arrived {
                self.next_look = self.next_look.saturating_mul(2);
            }
        }
        let has_ended = progress.has_ended;
        if !has_ended && !progress.is_over {
            return self.until();
        }
        let ended = match has_ended {
            true => self.goal,
            false => arrived,
        };
        let warm_up = warm_up(progress, ended).min(self.requests);
        if has_ended && warm_up + self.requests > self.goal {
            self.goal = warm_up + self.requests;
            return self.until();
        }
        let end = (warm_up + self.requests).min(arrived);
        let tokens = tokens(recorder);
        let window = Window::new(progress, &tokens, warm_up..end, self.targets);
        let evidence = self.evidence(progress, window.start_s);
        let verdict = self.verdict(&window, &evidence);
        if verdict == LoadVerdict::Saturated || self.saturated_at.is_some() {
            return self.conclude_early(progress, recorder, LoadVerdict::Saturated);
        }
        match self
            .extended(&window, verdict)
            .filter(|_| !progress.is_over)
        {
            Some(requests) => {
                self.requests = requests;
                self.goal = self.goal.max(warm_up + requests);
                self.until()
            }
            None => {
                let excess_share = self.excess_share(&window, &evidence);
                self.conclude(&window, progress, verdict, excess_share)
            }
        }
    }
}
