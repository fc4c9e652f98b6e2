//! Sweeps that look for the load that each configuration holds, and what contradicts that.

use serde_json::{Map, Value};

use super::{
    CapacitySearch, Measure, Objectives, Problem, RequestOutput, RunConfig, SearchConfig, SweepSpec,
};
use crate::workload::ArrivalsConfig;

/// The run key whose value is looked for.
const LOAD_KEY: &str = "qps";

/// Load that a search starts from where nobody says another, requests per second.
const FIRST_LOAD_PER_S: f64 = 1.0;

/// Whether a specification asks for capacities by itself.
pub(super) fn is_sought(spec: &Map<String, Value>) -> bool {
    let search = spec.get("search");
    let search = search.map(|search| search.get("type").unwrap_or(search));
    spec.get("capacity").is_some_and(|asked| !asked.is_null())
        || search.is_some_and(|search| search == "capacity")
}

/// Gives the configurations a load where none is given: one that is sought need not be.
pub(super) fn start_somewhere(spec: &mut Map<String, Value>) {
    let has_load = |section: &str| {
        spec.get(section)
            .is_some_and(|keys| keys.get(LOAD_KEY).is_some())
    };
    if has_load("axes") || has_load("base") {
        return;
    }
    if let Some(Value::Object(base)) = spec.get_mut("base") {
        base.insert(LOAD_KEY.to_owned(), FIRST_LOAD_PER_S.into());
    }
}

impl SweepSpec {
    /// The same, looking for the load that each configuration holds.
    #[must_use]
    pub(super) fn seeking_capacity(mut self) -> Self {
        if let SearchConfig::Capacity {
            tolerance,
            max_requests,
        } = self.search
        {
            self.search = SearchConfig::Grid;
            self.capacity.get_or_insert(CapacitySearch {
                tolerance,
                max_requests,
            });
        }
        self.capacity.get_or_insert_default();
        // Rows of requests of all the simulations that a search takes say little.
        self.output.requests = RequestOutput::None;
        if self.objectives == Objectives::default() {
            self.objectives = Objectives {
                maximize: vec!["capacity_per_gpu".to_owned()],
                minimize: vec!["cost_usd_per_hour".to_owned()],
            };
        }
        self
    }

    /// What in a study of capacities contradicts it: loads that are given.
    pub fn capacity_problem(&self) -> Option<Problem> {
        let columns = self.points.iter().flat_map(|points| &points.columns);
        if self.axes.keys().chain(columns).any(|key| key == LOAD_KEY) {
            let reason = "the load is what a capacity study looks for: leave it out, or set one to \
                          start from, as in `--set qps=8`";
            return Some(Problem::about(LOAD_KEY, reason));
        }
        let replicated = self.replications > 1;
        replicated.then(|| {
            Problem::new(
                "key `replications`: a capacity has its interval from the length of runs; leave \
                 them out",
            )
        })
    }
}

impl RunConfig {
    /// Why there is no load to look for, if there is none.
    pub fn capacity_problem(&self) -> Option<Problem> {
        let is_closed = matches!(self.workload.arrivals, ArrivalsConfig::Concurrency { .. });
        let reason = "the load of a closed loop follows from its clients; a capacity needs \
                      arrivals with a rate: poisson, gamma, static or trace";
        if is_closed {
            return Some(Problem::about("workload.arrivals", reason));
        }
        let is_stopped = self.time_limit_s.is_some() && self.measured() == Measure::Steady;
        let reason = "a capacity is that of a load that goes on; leave the limit out";
        is_stopped.then(|| Problem::about("time_limit_s", reason))
    }
}
