//! What the figures of a run are of where it does not say so, and how long it becomes.

use super::{Measure, RunConfig};
use crate::measurement::{Figure, Length};
use crate::simulator::Compat;
use crate::workload::ArrivalsConfig;

/// Requests a run is extended to at most, where nobody says: an M/M/1 queue at 95 % of
/// its capacity needs some hundred thousand for intervals that can be believed.
const DEFAULT_MAX_REQUESTS: u32 = 2_000_000;

/// Requests that are measured at first where nobody says how many.
const FIRST_REQUESTS: u32 = 500;

impl RunConfig {
    /// What its figures are of: as it says, or by where its requests come from. Recorded
    /// arrivals and bursts have a beginning and an end of their own; those that are
    /// generated go on for as long as one likes.
    pub fn measured(&self) -> Measure {
        if let Some(measure) = self.measure {
            return measure;
        }
        match self.workload.arrivals {
            _ if self.compat != Compat::None => Measure::All,
            ArrivalsConfig::Trace { .. } => Measure::All,
            ArrivalsConfig::Static if self.qps.is_none() => Measure::All,
            ArrivalsConfig::Static
            | ArrivalsConfig::Poisson
            | ArrivalsConfig::Gamma { .. }
            | ArrivalsConfig::Concurrency { .. } => Measure::Steady,
        }
    }

    /// How many requests it measures in steady state: as many as it says; more if it asks
    /// for precision; and if it says nothing, until they are enough.
    pub fn length(&self) -> Length {
        let wishes = self.precision.iter().flat_map(|precision| &precision.0);
        let precision: Vec<_> = wishes
            .filter_map(|(column, width)| Some((Figure::of_column(column)?, width.share()?)))
            .collect();
        let requests = self.workload.requests.unwrap_or(FIRST_REQUESTS);
        let max_requests = match (self.max_requests, self.workload.requests) {
            (Some(most), _) => most,
            (None, Some(requests)) if precision.is_empty() => requests,
            (None, _) => DEFAULT_MAX_REQUESTS,
        };
        Length {
            requests: requests.min(max_requests),
            max_requests,
            precision,
        }
    }
}
