//! Whether what a run shows so far exceeds its limits by far.
//!
//! A run begins with nobody in the system, so that latencies are lower at first than later
//! on: what exceeds a limit by far by then, and for certain, will not keep it any more.
//! Throughput is not judged here: it is low at first.

use super::window::mean_tbt;
use super::{Figure, Limit, Metric, Side, Statistic};
use crate::simulator::{OutcomeCounts, Progress, RequestTargets, SegmentCounts};
use crate::statistics::batch_means;
use crate::statistics::quantile::{Quantiles, share_of};

/// So many times what is allowed is exceeded by far: the share of requests or of times
/// between tokens, or a mean.
const EXCESS: f64 = 2.0;

/// What a run of open loop has shown so far.
pub(super) struct Prospect<'a> {
    pub(super) progress: &'a Progress<'a>,
    pub(super) tokens: Quantiles<SegmentCounts<'a>>,
    pub(super) targets: Option<RequestTargets>,
}

impl Prospect<'_> {
    /// Whether `limit` is exceeded by far, for certain.
    pub(super) fn exceeds(&self, limit: &Limit) -> bool {
        use Statistic::{Mean, Quantile};
        match (limit.figure, limit.side) {
            (Figure::Latency(Metric::Tbt, Quantile(p)), Side::AtMost) => {
                1.0 - self.tokens.share_at_most(limit.value).high > far_beyond(1.0 - p)
            }
            (Figure::Latency(Metric::Tbt, Mean), Side::AtMost) => {
                mean_tbt(self.tokens.counts()).interval.low > EXCESS * limit.value
            }
            (Figure::Latency(metric, Quantile(p)), Side::AtMost) => {
                let exceeding = self.times_s(metric).map(|time_s| time_s > limit.value);
                share_of(&exceeding.collect::<Vec<bool>>()).low > far_beyond(1.0 - p)
            }
            (Figure::Latency(metric, Mean), Side::AtMost) => {
                let times_s: Vec<f64> = self.times_s(metric).collect();
                batch_means::mean(&times_s).interval.low > EXCESS * limit.value
            }
            (Figure::Attainment, Side::AtLeast) => {
                let mut outcomes = OutcomeCounts::default();
                let records = self.judged().map(|id| self.progress.record(id));
                let met = records.filter_map(|record| outcomes.add(&record, self.targets));
                let met = share_of(&met.collect::<Vec<bool>>());
                1.0 - met.high > far_beyond(1.0 - limit.value)
            }
            _ => false,
        }
    }

    /// Those that arrived in the first half: they have had time to be served.
    fn judged(&self) -> std::ops::Range<usize> {
        0..self.progress.arrived() / 2
    }

    /// Latencies, seconds; of requests that have not ended, so far.
    fn times_s(&self, metric: Metric) -> impl Iterator<Item = f64> {
        self.judged().filter_map(move |id| {
            let so_far = self.progress.record(id).completed_when_it_ended();
            metric.of_request_s(&so_far)
        })
    }
}

/// The share that is more by far than the one allowed: twice that; or, as not more than all
/// can exceed a limit, half way to all.
fn far_beyond(allowed: f64) -> f64 {
    (EXCESS * allowed).min(f64::midpoint(1.0, allowed))
}
