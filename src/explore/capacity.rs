//! The runner of a capacity study: finds the load that each configuration holds.

use std::time::Instant;

use super::executor::RunOne;
use super::preflight::Fingerprints;
use super::simulate::Simulate;
use super::survey::CheckOne;
use crate::results::{Capacity, RunResult, RunStatus};
use crate::search::{Found, Look, Wanted, highest_load};
use crate::select::strained;
use crate::spec::{Bound, CapacitySearch, Measure, ResolveError, RunConfig};
use crate::statistics::LoadVerdict;
use crate::workload::WorkloadError;

/// Requests measured in the first looks: below it percentiles say little, and the first
/// looks only find the order of magnitude.
const FIRST_REQUESTS: u32 = 500;

/// What binds where more is offered than can be served, however long it may take.
const LOAD_BINDS: &str = "load";

/// A target that takes up less than this, as a logarithm, does not bind: two thirds.
const BINDS_FROM: f64 = -0.4;

/// Finds the capacity of configurations; shared by all threads.
pub struct FindCapacity {
    simulate: Simulate,
    bounds: Vec<Bound>,
    search: CapacitySearch,
}

impl FindCapacity {
    /// The highest loads that keep `bounds`, with simulations of `simulate`.
    pub fn new(simulate: Simulate, bounds: Vec<Bound>, search: CapacitySearch) -> Self {
        Self {
            simulate,
            bounds,
            search,
        }
    }

    /// What simulates the single loads.
    pub fn simulate(&self) -> &Simulate {
        &self.simulate
    }

    fn wanted(&self, config: &RunConfig) -> Wanted {
        Wanted {
            tolerance: self.search.tolerance_share(),
            first_requests: FIRST_REQUESTS.min(self.search.max_requests),
            max_requests: self.search.max_requests,
            // Arrivals of a file have a rate of their own; that is not known here.
            guess_per_s: config.qps.unwrap_or(1.0),
            is_given: config.measured() == Measure::All,
        }
    }

    /// What the result of a simulation shows.
    fn look(&self, load_per_s: f64, requests: u32, result: &RunResult) -> Look {
        let strained = strained(&self.bounds, result);
        let summary = result.summary.as_ref();
        let served_per_s = summary.map_or(0.0, |s| f64::from(s.served_requests) / s.duration_s);
        let simulated = result.steady().map_or_else(
            || summary.map_or(0, |s| s.num_requests),
            |steady| steady.simulated_requests,
        );
        Look {
            load_per_s,
            requests,
            simulated: u64::from(simulated),
            strain: strained.strain,
            excess_share: strained.excess_share,
            served_per_s: strained.is_saturated.then_some(served_per_s),
            residence_s: summary.map_or(f64::NAN, |s| s.e2e.mean_s),
        }
    }

    /// Which target a little more load breaks.
    fn binding(&self, found: &Found, results: &[RunResult]) -> Option<String> {
        let missed = found.missed?;
        if found.looks[missed].served_per_s.is_none() {
            return Some(strained(&self.bounds, &results[missed]).tightest);
        }
        let shown = strained(&self.bounds, &results[found.shown]);
        Some(match shown.strain.value >= BINDS_FROM {
            true => shown.tightest,
            false => LOAD_BINDS.to_owned(),
        })
    }

    /// The row of a configuration: the figures of the run that shows best what it holds.
    fn row(&self, found: &Found, mut results: Vec<RunResult>) -> RunResult {
        let simulated = found.looks.iter().map(|look| look.simulated).sum();
        let capacity = Capacity {
            requests_per_s: found.load_per_s,
            low_requests_per_s: found.low_per_s,
            high_requests_per_s: found.high_per_s,
            binding_target: self.binding(found, &results),
            probes: crate::number::narrow::<u32, _>(found.looks.len()),
            simulated_requests: simulated,
            shown_qps: found.looks[found.shown].load_per_s,
        };
        let mut row = results.swap_remove(found.shown);
        let steady = row.summary.as_mut().and_then(|s| s.steady.as_mut());
        // To within the tolerance, which is all that is asked here.
        if let Some(steady) = steady.filter(|_| found.shown_is_held()) {
            steady.verdict = LoadVerdict::Stable;
        }
        let rejected = row.summary.as_ref().map_or(0, |summary| summary.rejected);
        let remarks = row.reason.take().into_iter().chain(remark(found, rejected));
        let remarks: Vec<String> = remarks.collect();
        row.reason = (!remarks.is_empty()).then(|| remarks.join(". "));
        row.capacity = Some(Box::new(capacity));
        row
    }
}

/// What a person should know of what was found.
fn remark(found: &Found, rejected: u32) -> Option<String> {
    if found.load_per_s == 0.0 && rejected > 0 {
        let message = "requests are rejected at every load: too long for the scheduler's batch or \
                       the KV cache";
        return Some(message.to_owned());
    }
    if found.load_per_s == 0.0 {
        return Some("no load keeps the targets, not even of requests that never meet".to_owned());
    }
    if found.missed.is_none() {
        let tried = found.looks[found.shown].load_per_s;
        return Some(format!("no load up to {tried} requests/s misses a target"));
    }
    let against = found.against_order_per_s?;
    let what = match against < found.load_per_s {
        true => "missed",
        false => "kept",
    };
    Some(format!(
        "more load is not always worse here: the targets are {what} at {against:.4} requests/s"
    ))
}

/// A configuration at one load, for so many requests.
fn at_load(config: &RunConfig, load_per_s: f64, requests: u32, is_given: bool) -> RunConfig {
    let mut config = config.clone();
    config.qps = Some(load_per_s);
    if !is_given {
        config.workload.requests = Some(requests);
        config.max_requests = Some(requests);
        config.precision = None;
    }
    config
}

impl RunOne for FindCapacity {
    fn run_id(&self, config: &RunConfig) -> Option<String> {
        self.simulate.run_id(config)
    }

    fn run(&self, index: u64, config: &RunConfig) -> RunResult {
        let started = Instant::now();
        let wanted = self.wanted(config);
        let mut results = Vec::new();
        let found = highest_load(&wanted, |load_per_s, requests| {
            let at_load = at_load(config, load_per_s, requests, wanted.is_given);
            let result = self.simulate.run(index, &at_load);
            if result.status != RunStatus::Ok {
                return Err(Box::new(result));
            }
            let look = self.look(load_per_s, requests, &result);
            results.push(result);
            Ok(look)
        });
        let mut row = match found {
            Ok(found) => self.row(&found, results),
            Err(result) => *result,
        };
        row.wall_time_s = started.elapsed().as_secs_f64();
        row
    }
}

impl CheckOne for FindCapacity {
    fn check(&self, config: &RunConfig) -> Result<(), ResolveError> {
        self.simulate.check(config)
    }

    fn requests(&self, config: &RunConfig) -> Result<u32, WorkloadError> {
        match config.measured() {
            Measure::Steady => Ok(self.search.max_requests),
            Measure::All => self.simulate.requests(config),
        }
    }
}

impl Fingerprints for FindCapacity {
    fn fingerprints(&self, config: &RunConfig) -> Result<Vec<(String, String)>, WorkloadError> {
        self.simulate.fingerprints(config)
    }
}
