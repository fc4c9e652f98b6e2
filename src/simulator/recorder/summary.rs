//! The recorder every sweep uses: distributions over all requests and tokens,
//! and the request rows that are to be kept.

use super::log::RequestLog;
use super::{
    Distribution, ExactRun, OutcomeCounts, Recorder, RequestOutcome, RequestRecord, RequestTargets,
    RunSummary, SimulationTotals, TimeHistogram,
};
use crate::number::whole_usize;
use crate::simulator::exact_sum::ExactSum;

/// Keeps what [`RunSummary`] needs, and rows of requests.
///
/// What it makes of the facts does not depend on their order.
#[derive(Debug)]
pub struct SummaryRecorder {
    log: RequestLog,
    targets: Option<RequestTargets>,
    ttft_s: Vec<f64>,
    e2e_s: Vec<f64>,
    scheduling_delay_s: Vec<f64>,
    /// Longest time between two tokens, of requests that have two.
    stalls_s: Vec<f64>,
    intervals: TimeHistogram,
    outcomes: OutcomeCounts,
    prompt_tokens: u64,
    output_tokens: u64,
    /// Requests that arrived, or were to.
    arrivals: u32,
    first_arrival_s: f64,
    last_arrival_s: f64,
    last_completion_s: f64,
}

impl SummaryRecorder {
    /// `capacity` requests are expected; every `log_every`-th row is kept (0: none).
    pub fn new(capacity: usize, log_every: u32, targets: Option<RequestTargets>) -> Self {
        Self {
            log: RequestLog::new(capacity, log_every, false),
            targets,
            ttft_s: Vec::with_capacity(capacity),
            e2e_s: Vec::with_capacity(capacity),
            scheduling_delay_s: Vec::with_capacity(capacity),
            stalls_s: Vec::with_capacity(capacity),
            intervals: TimeHistogram::default(),
            outcomes: OutcomeCounts::default(),
            prompt_tokens: 0,
            output_tokens: 0,
            arrivals: 0,
            first_arrival_s: f64::INFINITY,
            last_arrival_s: f64::NEG_INFINITY,
            last_completion_s: 0.0,
        }
    }

    /// The summary, and the kept rows in order of request id.
    pub fn finish(self, totals: &SimulationTotals) -> (RunSummary, Vec<RequestRecord>) {
        let (work, outcomes) = (totals.work(), self.outcomes);
        let [p50_s, p90_s, p95_s, p99_s] = self.intervals.quantiles([0.5, 0.9, 0.95, 0.99]);
        let batches = work.batches as f64;
        let summary = RunSummary {
            num_requests: outcomes.requests,
            completed: outcomes.completed,
            rejected: outcomes.rejected,
            rejected_by_max_model_len: outcomes.rejected_by_max_model_len,
            capped_by_max_model_len: outcomes.capped_by_max_model_len,
            unfinished: outcomes.unfinished,
            undecided: outcomes.undecided,
            not_arrived: outcomes.not_arrived,
            offered_requests_per_s: match self.arrivals {
                0 | 1 => f64::NAN,
                more => f64::from(more - 1) / (self.last_arrival_s - self.first_arrival_s),
            },
            served_requests: outcomes.completed,
            duration_s: (self.last_completion_s - self.first_arrival_s).max(0.0),
            output_tokens: self.output_tokens,
            prompt_tokens: self.prompt_tokens,
            ttft: distribution(&self.ttft_s),
            tbt: Distribution {
                mean_s: self.intervals.mean_s(),
                p50_s,
                p90_s,
                p95_s,
                p99_s,
                max_s: self.intervals.max_s(),
            },
            e2e: distribution(&self.e2e_s),
            scheduling_delay: distribution(&self.scheduling_delay_s),
            request_tbt_max: distribution(&self.stalls_s),
            gpu_busy_fraction: totals.gpu_busy_fraction,
            kv_cache_utilization: totals.kv_cache_utilization,
            preemptions: totals.preemptions,
            batches: work.batches,
            mean_batch_tokens: work.tokens as f64 / batches,
            mean_batch_requests: work.batch_requests as f64 / batches,
            processed_tokens: work.tokens,
            attended_pairs: work.attended_pairs,
            sampled_tokens: work.sampled_tokens,
            slo_met_requests: self.targets.map(|_| outcomes.within_targets),
            steady: None,
        };
        (summary, self.log.finish())
    }
}

impl Recorder for SummaryRecorder {
    #[inline]
    fn request(&mut self, record: &RequestRecord) {
        self.outcomes.add(record, self.targets);
        self.arrivals += u32::from(!record.arrived_at_s.is_nan());
        self.first_arrival_s = self.first_arrival_s.min(record.arrived_at_s);
        self.last_arrival_s = self.last_arrival_s.max(record.arrived_at_s);
        if record.outcome == RequestOutcome::Completed {
            self.ttft_s.push(record.ttft_s());
            self.e2e_s.push(record.e2e_s());
            self.scheduling_delay_s.push(record.scheduling_delay_s());
            self.stalls_s.extend(record.stall_s());
            self.prompt_tokens += u64::from(record.prefill_tokens);
            self.output_tokens += u64::from(record.decode_tokens);
            self.last_completion_s = self.last_completion_s.max(record.completed_at_s);
        }
        if self.log.keeps(record.request_id) {
            self.log.insert(record.clone());
        }
    }

    #[inline]
    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        self.intervals.insert(interval_s, count);
    }

    #[inline]
    fn all_token_intervals(&mut self, intervals_s: &[f64], sum: &ExactRun, count: u32) {
        self.intervals.insert_all(intervals_s, sum, count);
    }

    const ANY_ORDER: bool = true;

    fn part(&self, requests: usize) -> Option<Self> {
        Some(Self {
            log: RequestLog::new(requests, self.log.every, true),
            ..Self::new(requests, 0, self.targets)
        })
    }

    fn merge(&mut self, mut part: Self) {
        part.log.rows.drain(..).for_each(|row| self.log.insert(row));
        self.ttft_s.append(&mut part.ttft_s);
        self.e2e_s.append(&mut part.e2e_s);
        self.scheduling_delay_s.append(&mut part.scheduling_delay_s);
        self.stalls_s.append(&mut part.stalls_s);
        self.intervals.merge(&part.intervals);
        self.outcomes.merge(part.outcomes);
        self.prompt_tokens += part.prompt_tokens;
        self.output_tokens += part.output_tokens;
        self.arrivals += part.arrivals;
        self.first_arrival_s = self.first_arrival_s.min(part.first_arrival_s);
        self.last_arrival_s = self.last_arrival_s.max(part.last_arrival_s);
        self.last_completion_s = self.last_completion_s.max(part.last_completion_s);
    }
}

/// An integer for each number, in the order of [`f64::total_cmp`].
fn ordered(number: f64) -> i64 {
    flipped(number.to_bits().cast_signed())
}

/// The number of an integer of [`ordered`].
fn from_ordered(key: i64) -> f64 {
    f64::from_bits(flipped(key).cast_unsigned())
}

/// Turns around how the bits of negative numbers count, and back again.
fn flipped(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

/// Exact statistics; nearest-rank percentiles.
pub(super) fn distribution(samples_s: &[f64]) -> Distribution {
    if samples_s.is_empty() {
        return Distribution {
            mean_s: f64::NAN,
            p50_s: f64::NAN,
            p90_s: f64::NAN,
            p95_s: f64::NAN,
            p99_s: f64::NAN,
            max_s: f64::NAN,
        };
    }
    let mut sum = ExactSum::default();
    for &time_s in samples_s {
        sum.add(time_s, 1);
    }
    let mean_s = sum.mean_s(samples_s.len() as u64);
    let count = samples_s.len();
    // As integers that are in the same order: less to compare.
    let mut keys: Vec<i64> = samples_s
        .iter()
        .map(|&sample_s| ordered(sample_s))
        .collect();
    // Each quantile is looked for above the one before: not all need be in order.
    let mut above = 0;
    let mut rank = |quantile: f64| {
        let index = whole_usize((quantile * count as f64).ceil()).clamp(1, count) - 1;
        let (_, &mut key, _) = keys[above..].select_nth_unstable(index - above);
        above = index;
        from_ordered(key)
    };
    Distribution {
        mean_s,
        p50_s: rank(0.5),
        p90_s: rank(0.9),
        p95_s: rank(0.95),
        p99_s: rank(0.99),
        max_s: rank(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_in_the_order_of_numbers() {
        let numbers = [
            f64::NEG_INFINITY,
            -2.5,
            -0.0,
            0.0,
            1e-300,
            2.5,
            f64::INFINITY,
        ];
        assert!(numbers.is_sorted_by(|a, b| ordered(*a) < ordered(*b)));
        assert_eq!(numbers.map(|number| from_ordered(ordered(number))), numbers);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let stats = distribution(&samples);
        assert_eq!(
            (
                stats.mean_s,
                stats.p50_s,
                stats.p90_s,
                stats.p99_s,
                stats.max_s
            ),
            (50.5, 50.0, 90.0, 99.0, 100.0)
        );
    }
}
