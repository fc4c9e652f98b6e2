//! Whether what a run shows so far exceeds its limits by far.
//!
//! A run begins with nobody in the system, so that latencies are lower at first than later
//! on: what exceeds a limit by far by then will not keep it any more, if that is no chance,
//! which its interval must tell. Throughput is not judged here: it is low at first.

use super::window::mean_tbt;
use super::{Figure, Limit, Metric, Side, Statistic};
use crate::simulator::{OutcomeCounts, Progress, RequestTargets, SegmentCounts};
use crate::statistics::quantile::Quantiles;

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
    /// Whether `limit` is exceeded by far.
    pub(super) fn exceeds(&self, limit: &Limit) -> bool {
        use Statistic::{Mean, Quantile};
        match (limit.figure, limit.side) {
            (Figure::Latency(Metric::Tbt, Quantile(p)), Side::AtMost) => {
                1.0 - self.tokens.observed_share_at_most(limit.value) > far_beyond(1.0 - p)
            }
            (Figure::Latency(Metric::Tbt, Mean), Side::AtMost) => {
                mean_tbt(self.tokens.counts()).interval.value > EXCESS * limit.value
            }
            (Figure::Latency(metric, Quantile(p)), Side::AtMost) => {
                let exceeding = self.times_s(metric).map(|time_s| time_s > limit.value);
                share(exceeding) > far_beyond(1.0 - p)
            }
            (Figure::Latency(metric, Mean), Side::AtMost) => {
                let times_s: Vec<f64> = self.times_s(metric).collect();
                let mean_s = times_s.iter().sum::<f64>() / times_s.len() as f64;
                mean_s > EXCESS * limit.value
            }
            (Figure::Attainment, Side::AtLeast) => {
                let mut outcomes = OutcomeCounts::default();
                let records = self.judged().map(|id| self.progress.record(id));
                let met = records.filter_map(|record| outcomes.add(&record, self.targets));
                share(met.map(|is_met| !is_met)) > far_beyond(1.0 - limit.value)
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

/// The share of which something holds; NaN of none.
fn share(all: impl Iterator<Item = bool>) -> f64 {
    let (mut held, mut count) = (0.0, 0.0);
    for holds in all {
        held += f64::from(u8::from(holds));
        count += 1.0;
    }
    held / count
}
