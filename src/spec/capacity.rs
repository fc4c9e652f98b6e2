//! Sweeps that look for the load that each configuration holds, and what contradicts that.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::metric_of;
use super::{
    ATTAINMENT_COLUMN, Bound, Measure, Objectives, Problem, RequestOutput, RunConfig, SearchConfig,
    SweepSpec,
};
use crate::measurement::Side;
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

/// Whether a specification, as a result directory keeps it, is one of a capacity study.
pub fn is_capacity_study(spec_yaml: &str) -> bool {
    let document = crate::yaml::parse(spec_yaml, Path::new("spec.yaml"));
    document.is_ok_and(|document| document.value.as_object().is_some_and(is_sought))
}

/// Brings the keys of `search: {type: capacity}` to where they are looked for, so that an
/// override of one keeps the others.
pub(super) fn unite(spec: &mut Map<String, Value>) {
    let Some(Value::Object(search)) = spec.get("search") else {
        return;
    };
    if search.get("type").is_none_or(|kind| kind != "capacity") {
        return;
    }
    let own: Vec<(String, Value)> = (search.iter())
        .filter(|(key, _)| *key != "type")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let capacity = spec.entry("capacity").or_insert_with(|| Map::new().into());
    if let Value::Object(capacity) = capacity {
        for (key, value) in own {
            capacity.entry(key).or_insert(value);
        }
    }
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

/// What is wrong where nothing is to be kept.
const NO_TARGETS: &str = "a capacity is the highest load that keeps the targets, and there are \
                          none: give `slo`, as in `slo: {ttft_p99_s: 1.0, tbt_p99_s: 0.05}`";

/// Why more load does not make a target harder to keep.
fn unfitness(bound: &Bound) -> Option<&'static str> {
    let column = bound.column.as_str();
    if metric_of(column).is_some() {
        return match (column.ends_with("_max_s"), bound.side) {
            (true, _) => Some(
                "the largest of all grows with the length of a run; a capacity needs a mean or \
                 a percentile, or `per_request`",
            ),
            (false, Side::AtLeast) => Some("no load is too high for it"),
            (false, Side::AtMost) => None,
        };
    }
    match (column, bound.side) {
        (ATTAINMENT_COLUMN, Side::AtLeast) => None,
        _ => Some(
            "it is not what more load makes harder to keep; a capacity needs targets of \
             latencies or of requests. What a deployment may be is for `constraints`, what it \
             is to serve for `--load`",
        ),
    }
}

impl SweepSpec {
    /// The same, looking for the load that each configuration holds.
    #[must_use]
    pub(super) fn seeking_capacity(mut self) -> Self {
        // Its keys have been brought to `capacity`.
        if matches!(self.search, SearchConfig::Capacity { .. }) {
            self.search = SearchConfig::Grid;
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

    /// What in a study of capacities contradicts it, each with the path of its key: loads
    /// that are given, and targets that do not say which load is held. `number_keys` of its
    /// runs are columns of numbers.
    pub(super) fn against_capacity(&self, number_keys: &[&str]) -> Vec<(String, String)> {
        let given = "the load is what a capacity study looks for: leave it out, or set one to \
                     start from, as in `--set qps=8`";
        let mut found = Vec::new();
        if self.axes.contains_key(LOAD_KEY) {
            found.push((
                format!("axes.{LOAD_KEY}"),
                format!("key `{LOAD_KEY}`: {given}"),
            ));
        }
        let columns = self.points.iter().flat_map(|points| &points.columns);
        if columns.into_iter().any(|key| key == LOAD_KEY) {
            found.push((
                "search.file".into(),
                format!("column `{LOAD_KEY}`: {given}"),
            ));
        }
        if self.replications > 1 {
            let message = "key `replications`: a capacity has its interval from the length of \
                           runs; leave them out";
            found.push(("replications".into(), message.into()));
        }
        let bounds = self.slo.bounds(number_keys).unwrap_or_default();
        if bounds.is_empty() {
            found.push(("slo".into(), NO_TARGETS.into()));
        }
        found.extend(bounds.iter().filter_map(|bound| {
            let path = format!("slo.{}", bound.column);
            let message = format!("target `{}`: {}", bound.column, unfitness(bound)?);
            Some((path, message))
        }));
        found
    }
}

impl RunConfig {
    /// Why there is no load to look for, if there is none.
    pub(super) fn against_capacity(&self) -> Option<Problem> {
        let is_closed = matches!(self.workload.arrivals, ArrivalsConfig::Concurrency { .. });
        let reason = "the load of a closed loop follows from its clients; a capacity needs \
                      arrivals with a rate: poisson, gamma, static or trace";
        if is_closed {
            return Some(Problem::about("workload.arrivals", reason));
        }
        let reason = "a capacity is that of a load that goes on; leave the limit out";
        if self.time_limit_s.is_some() {
            return Some(Problem::about("time_limit_s", reason));
        }
        let is_recorded = matches!(self.workload.arrivals, ArrivalsConfig::Trace { .. });
        let reason = "a capacity is that of steady state; only recorded arrivals are taken as \
                      they are";
        (self.measured() == Measure::All && !is_recorded).then(|| Problem::about("measure", reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_more_load_does_not_break_are_told() {
        for (column, side, fits) in [
            ("ttft_p99_s", Side::AtMost, true),
            ("scheduling_delay_p99_s", Side::AtMost, true),
            ("slo_attainment", Side::AtLeast, true),
            ("ttft_max_s", Side::AtMost, false),
            ("ttft_p99_s", Side::AtLeast, false),
            ("throughput_requests_per_s", Side::AtLeast, false),
            ("cost_usd_per_million_tokens", Side::AtMost, false),
            ("total_gpus", Side::AtMost, false),
        ] {
            let told = unfitness(&Bound {
                column: column.to_owned(),
                side,
                limit: 0.5,
            });
            assert_eq!(told.is_none(), fits, "{column}: {told:?}");
        }
    }
}
