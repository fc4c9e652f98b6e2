//! Watches a run until enough is known of it.
//!
//! A run starts with as many requests as are asked for, and some to warm up. It is looked
//! at whenever twice as many have arrived: if the backlog grows for certain, it stops. When
//! the requests have ended, the warm-up is cut off and the window is measured; if that is
//! not enough to say what is to be said, the run goes on, and the window grows.

use std::ops::Range;

use super::hopeless::Prospect;
use super::window::{Stays, Window, warm_up};
use super::{Figure, Length, Limit, Metric, Statistic};
use crate::number::{narrow, whole_u32};
use crate::simulator::{
    Mark, Next, Overseer, PoolWork, Progress, RequestTargets, RunSummary, SegmentCounts,
    SegmentRecorder, SparseHistogram, SteadyState, Until,
};
use crate::statistics::quantile::Quantiles;
use crate::statistics::{CERTAIN, Interval, LoadEvidence, LoadVerdict};

/// Requests that have arrived when a run is looked at first for a growing backlog.
const FIRST_LOOK: u32 = 128;

/// A run whose figures are not known well enough goes on to be as many times as long.
const GROWTH: f64 = 1.5;

/// Longest step in one go: what is expected of a longer run is itself only guessed.
const MOST_GROWTH: f64 = 4.0;

/// A saturated run stops when so large a share of the requests that were to be measured has
/// completed: what it serves shows in the second half of its time, when it is full.
const SERVED_SATURATED: f64 = 0.3;

/// Or as many, which are enough for that however many were to be measured.
const MOST_SERVED_SATURATED: f64 = 500.0;

/// Or when so many times as many have arrived: it may serve next to nothing of its load.
const MOST_SATURATED: usize = 16;

/// A saturated run is looked at whenever so many times as many have arrived.
const SATURATED_LOOKS: f64 = 1.25;

/// A target is out of reach for certain at this probability that it is met: then no figure
/// need be known any better.
const HOPELESS: f64 = 5e-3;

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
    /// Whether it was seen to grow for certain.
    is_saturated: bool,
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
            is_saturated: false,
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
            // Not before something can be said of what is served.
            rejects: !self.limits.is_empty() && self.next_look > FIRST_LOOK,
        })
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
    fn conclude(&mut self, window: &Window<'_>, progress: &Progress<'_>, end: End) -> Next {
        let limits = self.limits;
        let has_interval: &dyn Fn(Figure) -> bool = match end {
            // What it showed while it filled says little of other figures than those that
            // were exceeded.
            End::Stopped(LoadVerdict::TooShort) => {
                &|figure| limits.iter().any(|limit| limit.figure == figure)
            }
            _ => &|_| true,
        };
        let (ttft, ttft_intervals) = window.distribution(Metric::Ttft, has_interval);
        let (tbt, tbt_intervals) = window.distribution(Metric::Tbt, has_interval);
        let (e2e, e2e_intervals) = window.distribution(Metric::E2e, has_interval);
        let (delay, delay_intervals) = window.distribution(Metric::SchedulingDelay, has_interval);
        let (tbt_max, tbt_max_intervals) = window.distribution(Metric::RequestTbtMax, has_interval);
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
                verdict: end.verdict(),
                window_start_s: window.start_s,
                window_end_s: window.end_s,
                simulated_requests: narrow::<u32, _>(progress.arrived()),
                ttft: ttft_intervals,
                tbt: tbt_intervals,
                e2e: e2e_intervals,
                scheduling_delay: delay_intervals,
                request_tbt_max: tbt_max_intervals,
                requests_per_s: end.rate(rates.requests_per_s()),
                output_tokens_per_s: end.rate(rates.tokens_per_s()),
                served_tokens_share: end.rate(rates.served_tokens_share()),
                attainment: window.attainment(),
                goodput: end.rate(window.goodput()),
                excess_share: end.excess_share(),
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

    /// Stops a run of open loop if that much is known of it before its requests have ended.
    fn look_on_the_way(
        &mut self,
        progress: &Progress<'_>,
        recorder: &SegmentRecorder,
    ) -> Option<Next> {
        let arrived = progress.arrived();
        if self.is_closed_loop || arrived < FIRST_LOOK as usize {
            return None;
        }
        // Whoever cannot serve a request keeps no limit.
        if !self.is_saturated
            && !self.limits.is_empty()
            && let Some(rejected) = progress.first_rejected
        {
            let rejected = rejected as usize;
            return Some(self.conclude_early(progress, recorder, LoadVerdict::TooShort, rejected));
        }
        if arrived < self.next_look as usize {
            return None;
        }
        self.is_saturated =
            self.is_saturated || evidence(&Stays::of(progress), 0.0, progress.now_s).is_saturated();
        if self.is_saturated {
            if self.shows_what_is_served(progress) {
                return Some(self.conclude_early(
                    progress,
                    recorder,
                    LoadVerdict::Saturated,
                    arrived,
                ));
            }
            self.next_look = whole_u32(arrived as f64 * SATURATED_LOOKS);
            return None;
        }
        if let Some(next) = self.stop_if_hopeless(progress, recorder) {
            return Some(next);
        }
        while self.next_look as usize <= arrived {
            self.next_look = self.next_look.saturating_mul(2);
        }
        None
    }

    /// Whether a saturated run shows what it serves.
    fn shows_what_is_served(&self, progress: &Progress<'_>) -> bool {
        let arrived = progress.arrived();
        let has_completed = |id: &usize| progress.completion(*id).is_some();
        let completed = (0..arrived).filter(has_completed).count();
        let enough = SERVED_SATURATED * self.requests as f64;
        completed as f64 >= enough.min(MOST_SERVED_SATURATED)
            || arrived >= MOST_SATURATED.saturating_mul(self.requests)
    }

    /// Stops a run that exceeds one of its limits by far, and certainly.
    fn stop_if_hopeless(
        &mut self,
        progress: &Progress<'_>,
        recorder: &SegmentRecorder,
    ) -> Option<Next> {
        let segments: Vec<&SparseHistogram> = recorder.segments().iter().collect();
        let prospect = Prospect {
            progress,
            tokens: Quantiles::new(SegmentCounts::new(segments)),
            targets: self.targets,
        };
        let limits = self.limits.iter();
        let exceeded: Vec<&Limit> = limits.filter(|limit| prospect.exceeds(limit)).collect();
        if exceeded.is_empty() {
            return None;
        }
        let open = recorder.open();
        let tokens = tokens(recorder, &open);
        let half = second_half(progress, progress.arrived());
        let window = Window::of_stopped(progress, &tokens, half, self.targets);
        let mut exceeded = exceeded.into_iter();
        let is_hopeless = exceeded.any(|limit| window.likelihood(limit) <= HOPELESS);
        is_hopeless.then(|| self.conclude(&window, progress, End::Stopped(LoadVerdict::TooShort)))
    }

    /// Stops a run of which enough is known before its requests have ended; what it served
    /// is told of its second half, or from request `from` on if that is more.
    fn conclude_early(
        &mut self,
        progress: &Progress<'_>,
        recorder: &SegmentRecorder,
        verdict: LoadVerdict,
        from: usize,
    ) -> Next {
        let open = recorder.open();
        let tokens = tokens(recorder, &open);
        let half = second_half(progress, from);
        let window = Window::of_stopped(progress, &tokens, half, self.targets);
        self.conclude(&window, progress, End::Stopped(verdict))
    }
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Its window was measured: the verdict, and the share of the load by which it may exceed
    /// what is served.
    Measured(LoadVerdict, f64),
    /// Enough was known of it before its requests had ended.
    Stopped(LoadVerdict),
}

impl End {
    fn verdict(self) -> LoadVerdict {
        match self {
            Self::Measured(verdict, _) | Self::Stopped(verdict) => verdict,
        }
    }

    fn excess_share(self) -> f64 {
        match self {
            Self::Measured(_, excess_share) => excess_share,
            Self::Stopped(_) => f64::INFINITY,
        }
    }

    /// What is known of a rate: of a run that was stopped while it filled, its value.
    fn rate(self, rate: Interval) -> Interval {
        match self {
            Self::Stopped(LoadVerdict::TooShort) => Interval::unbounded(rate.value),
            _ => rate,
        }
    }
}

/// The second half of what has arrived, from the mark before it on; or from the one before
/// request `from`, if that is more.
fn second_half(progress: &Progress<'_>, from: usize) -> Range<usize> {
    let arrived = progress.arrived();
    let from = from.min(arrived / 2);
    let before = |mark: &Mark| mark.request as usize <= from;
    let after = progress.marks.partition_point(before);
    let start = progress.marks[..after].last();
    start.map_or(0, |mark| mark.request as usize)..arrived
}

/// What a run shows of its load, settled from `settled_from_s` on.
fn evidence(stays: &Stays, settled_from_s: f64, now_s: f64) -> LoadEvidence {
    LoadEvidence::new(
        &stays.arrivals_s,
        &stays.begins_s,
        &stays.ends_s,
        settled_from_s,
        now_s,
    )
}

fn is_certain(probability: f64) -> bool {
    !(1.0 - CERTAIN..CERTAIN).contains(&probability)
}

/// Times between tokens by segment, the `open` one included.
fn tokens<'a>(
    recorder: &'a SegmentRecorder,
    open: &'a SparseHistogram,
) -> Vec<&'a SparseHistogram> {
    let segments = recorder.segments().iter();
    segments.chain(std::iter::once(open)).collect()
}

impl Overseer<SegmentRecorder> for Steady<'_> {
    fn look(&mut self, progress: &Progress<'_>, recorder: &SegmentRecorder) -> Next {
        let arrived = progress.arrived();
        if arrived == 0 && !progress.is_over {
            return self.until();
        }
        if let Some(next) = self.look_on_the_way(progress, recorder) {
            return next;
        }
        let has_ended = progress.has_ended;
        if !has_ended && !progress.is_over {
            return self.until();
        }
        let ended = match has_ended {
            true => self.goal,
            false => arrived,
        };
        let stays = Stays::of(progress);
        let warm_up = warm_up(&stays, progress.marks, ended).min(self.requests);
        if has_ended && warm_up + self.requests > self.goal {
            self.goal = warm_up + self.requests;
            return self.until();
        }
        let end = (warm_up + self.requests).min(arrived);
        let open = recorder.open();
        let tokens = tokens(recorder, &open);
        let window = Window::new(progress, &tokens, warm_up..end, self.targets);
        let evidence = evidence(&stays, window.start_s, progress.now_s);
        drop(stays);
        let verdict = self.verdict(&window, &evidence);
        if verdict == LoadVerdict::Saturated || self.is_saturated {
            return self.conclude_early(progress, recorder, LoadVerdict::Saturated, arrived);
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
                self.conclude(&window, progress, End::Measured(verdict, excess_share))
            }
        }
    }
}
