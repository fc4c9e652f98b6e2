//! Figures that can be asked for with an interval, by the names of their columns.

use crate::simulator::RequestRecord;

/// What is measured of requests or tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Time to first token.
    Ttft,
    /// Time between tokens.
    Tbt,
    /// Arrival to completion.
    E2e,
    /// Arrival to first batch.
    SchedulingDelay,
    /// Longest time between two tokens of a request.
    RequestTbtMax,
}

impl Metric {
    /// Those that a request has one of.
    pub(super) const OF_REQUESTS: [Self; 4] = [
        Self::Ttft,
        Self::E2e,
        Self::SchedulingDelay,
        Self::RequestTbtMax,
    ];

    /// What it is of a request that has completed, seconds; none where it has none: of
    /// times between tokens it has many.
    pub(super) fn of_request_s(self, record: &RequestRecord) -> Option<f64> {
        match self {
            Self::Ttft => Some(record.ttft_s()),
            Self::E2e => Some(record.e2e_s()),
            Self::SchedulingDelay => Some(record.scheduling_delay_s()),
            Self::RequestTbtMax => record.stall_s(),
            Self::Tbt => None,
        }
    }
}

/// Which figure of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// The mean.
    Mean,
    /// A percentile, from 0 to 1.
    Quantile(f64),
}

/// A figure with an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Figure {
    /// Of a latency.
    Latency(Metric, Statistic),
    /// Requests served per second.
    Requests,
    /// Output tokens per second, and whatever goes with them: per GPU, cost.
    Tokens,
    /// Share of requests that keep every target of their own.
    Attainment,
    /// Those requests per second.
    Goodput,
}

impl Figure {
    /// The figure of a summary column; none if that has no interval.
    pub fn of_column(column: &str) -> Option<Self> {
        let quantity = match column {
            "throughput_requests_per_s" => Some(Self::Requests),
            "throughput_tokens_per_s"
            | "throughput_tokens_per_s_per_gpu"
            | "cost_usd_per_million_tokens" => Some(Self::Tokens),
            "slo_attainment" => Some(Self::Attainment),
            "goodput_requests_per_s" | "goodput_requests_per_s_per_gpu" => Some(Self::Goodput),
            _ => None,
        };
        quantity.or_else(|| {
            let (metric, statistic) = column.strip_suffix("_s")?.rsplit_once('_')?;
            let metric = match metric {
                "ttft" => Metric::Ttft,
                "tbt" => Metric::Tbt,
                "e2e" => Metric::E2e,
                "scheduling_delay" => Metric::SchedulingDelay,
                "request_tbt_max" => Metric::RequestTbtMax,
                _ => return None,
            };
            let statistic = match statistic {
                "mean" => Statistic::Mean,
                "p50" => Statistic::Quantile(0.5),
                "p90" => Statistic::Quantile(0.9),
                "p95" => Statistic::Quantile(0.95),
                "p99" => Statistic::Quantile(0.99),
                _ => return None,
            };
            Some(Self::Latency(metric, statistic))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_with_intervals_are_figures() {
        for column in crate::spec::columns::interval_columns() {
            assert!(Figure::of_column(column).is_some(), "{column}");
        }
        for column in ["ttft_max_s", "mfu", "ttft_p90", "ttft_p42_s"] {
            assert_eq!(Figure::of_column(column), None);
        }
    }
}
