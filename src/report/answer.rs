//! The answer in a few sentences: what to deploy, what it holds and costs, how sure that
//! is, which target is closest, what comes next, and under which assumptions.

use serde::Serialize;
use serde_json::Value;

use super::deployment::{Deployment, Miss};
use super::format;
use super::insights::Binding;
use crate::measurement::Side;
use crate::results::SummaryReader;
use crate::select::Selection;
use crate::spec::columns::interval_ends;
use crate::yaml;

/// File of a result directory that says what was asked.
const SPEC: &str = "spec.yaml";

/// What came out of a sweep, for somebody who reads nothing else.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// First run of the deployment that it is about; none if nothing was simulated.
    pub run_index: Option<u64>,
    /// A sentence each.
    pub sentences: Vec<String>,
}

/// The answer of a sweep: of the best that meets the targets, or of what comes nearest,
/// and the one after it.
pub(super) fn answer(
    reader: &SummaryReader,
    selection: &Selection,
    best: &[Deployment],
    binding: Option<&Binding>,
    varying_axes: &[String],
) -> Answer {
    let Some(first) = best.first() else {
        return Answer {
            run_index: None,
            sentences: vec!["Nothing was simulated, so there is nothing to deploy.".to_owned()],
        };
    };
    let mut sentences = vec![deploy(first, varying_axes)];
    sentences.extend(capacity(first));
    sentences.extend([holds(first), sure(selection, first)]);
    sentences.extend(
        best.get(1)
            .map(|next| next_best(selection, first, next, varying_axes)),
    );
    let step = binding.and_then(|binding| binding.steps.first());
    sentences.extend(step.map(|step| format!("What keeps it from more: {}.", step.sentence())));
    sentences.push(assumed(reader, first));
    Answer {
        run_index: Some(first.run_index),
        sentences,
    }
}

fn named(deployment: &Deployment, axes: &[String]) -> String {
    format::named(deployment.run_index, &deployment.axes, axes)
}

fn deploy(first: &Deployment, axes: &[String]) -> String {
    let gpus = match first.figures.get("total_gpus") {
        Some(1.0) => "1 GPU".to_owned(),
        Some(gpus) => format!("{gpus} GPUs"),
        None => "GPUs".to_owned(),
    };
    let what = named(first, axes);
    match first.slo_met {
        true => format!("Deploy {what}, on {gpus}."),
        false => format!(
            "No configuration meets the targets for certain; {what}, on {gpus}, comes nearest."
        ),
    }
}

/// A figure with its interval, where that is known.
fn figure(deployment: &Deployment, column: &str) -> Option<String> {
    let value = deployment.figures.get(column)?;
    let shown = |value| format::figure(column, value);
    let ends = interval_ends(column).map(|ends| ends.map(|end| deployment.figures.get(&end)));
    Some(match ends {
        Some([Some(low), Some(high)]) => {
            format!("{} ({} to {})", shown(value), shown(low), shown(high))
        }
        _ => shown(value),
    })
}

fn holds(first: &Deployment) -> String {
    let of = |column: &str| figure(first, column).unwrap_or_else(|| "-".to_owned());
    let offered = first.figures.get("offered_requests_per_s");
    let offered = offered.map_or_else(String::new, |offered| format!(" of {offered:.2} offered"));
    let cost = figure(first, "cost_usd_per_million_tokens");
    let cost = cost.map_or_else(String::new, |cost| {
        format!(", at {cost} per million output tokens")
    });
    format!(
        "It serves {} requests/s{offered}, {} output tokens/s per GPU{cost}.",
        of("throughput_requests_per_s"),
        of("throughput_tokens_per_s_per_gpu"),
    )
}

/// What it holds at most, where that was looked for; the rest is then of a run at about
/// that load.
fn capacity(first: &Deployment) -> Option<String> {
    let held = figure(first, "capacity_requests_per_s")?;
    Some(format!(
        "It holds up to {held} requests/s; what follows is of a run that it holds for certain."
    ))
}

fn sure(selection: &Selection, first: &Deployment) -> String {
    if selection.criteria().bounds.is_empty() {
        return "No targets were set.".to_owned();
    }
    let load = match first.load_verdict {
        Some("stable") => "It keeps up with its load",
        Some("saturated") => "It does not keep up with its load",
        Some(_) => "Too little was simulated to say whether it keeps up with its load",
        None => "All of the run was measured, so that nothing is said of longer ones",
    };
    let replications = match first.replications {
        1 => String::new(),
        all => format!(", met in {} of {all} replications", first.met_replications),
    };
    let probability = match first.slo_probability {
        // Nothing simulated is more certain than that.
        sure if sure > 0.999 => "more than 99.9 %".to_owned(),
        unsure => format::percent(unsure),
    };
    let closest = first.tightest.as_ref().map_or_else(String::new, |miss| {
        let Miss { bound, .. } = miss;
        let shown = figure(first, &bound.column).unwrap_or_else(|| "-".to_owned());
        let limit = format::limit(&bound.column, bound.limit);
        match bound.side {
            Side::AtMost => format!("; the closest is {}, {shown} of {limit}", bound.column),
            Side::AtLeast => format!(
                "; the closest is {}, {shown}, where {limit} is the least",
                bound.column
            ),
        }
    });
    format!("{load}; all targets hold with a probability of {probability}{replications}{closest}.")
}

fn next_best(
    selection: &Selection,
    first: &Deployment,
    next: &Deployment,
    axes: &[String],
) -> String {
    let differing: Vec<String> = axes
        .iter()
        .filter(|axis| first.axes.get(*axis) != next.axes.get(*axis))
        .cloned()
        .collect();
    let what = named(next, &differing);
    let Some(objective) = selection.criteria().objectives.first() else {
        return format!("Next best: {what}.");
    };
    let column = &objective.column;
    let shown = figure(next, column).unwrap_or_else(|| "-".to_owned());
    let positions = [first, next].map(|d| selection.position_of_run(d.run_index));
    let tie = match matches!(positions, [Some(a), Some(b)] if selection.are_tied(a, b)) {
        true => ", a tie within the intervals",
        false => "",
    };
    format!("Next best: {what}, {column} {shown}{tie}.")
}

/// What was asked, by whom it was computed, and from which numbers.
fn assumed(reader: &SummaryReader, first: &Deployment) -> String {
    let file = reader.dir().join(SPEC);
    let spec = yaml::read(&file)
        .map(|document| document.value)
        .unwrap_or_default();
    let of = |key: &str| {
        let axis = first
            .axes
            .get(key)
            .filter(|value| !value.is_null())
            .cloned();
        let in_base = key
            .split('.')
            .try_fold(&spec["base"], |value, key| value.get(key));
        axis.or_else(|| in_base.cloned()).unwrap_or_default()
    };
    let requests = match first.load_verdict {
        Some(_) => {
            let count = first.figures.get("measured_requests").unwrap_or(0.0);
            format!("{count:.0} requests of steady state")
        }
        None => format!(
            "{:.0} requests",
            first.figures.get("num_requests").unwrap_or(0.0)
        ),
    };
    let engine = match of("engine") {
        Value::Null => "no engine named".to_owned(),
        engine => format!("engine {}", format::value(Some(&engine))),
    };
    let version = match reader.manifest() {
        Some(manifest) => manifest.version.clone(),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    };
    let grounds = match first.assumptions.is_empty() {
        true => "steps as they were measured, GPUs as their prices are published".to_owned(),
        false => first.assumptions.join("; "),
    };
    let load = match of("qps") {
        // Where the load was looked for, the specification's is where that began.
        _ if first.figures.get("capacity_requests_per_s").is_some() => String::new(),
        Value::Null => String::new(),
        qps => format!(" at {} requests/s", format::value(Some(&qps))),
    };
    format!(
        "Assumed: {} on {}, lengths {}, arrivals {}{load}, {engine}; {grounds}; {requests}, \
         seed {}, vidur-sweep {version}.",
        format::value(Some(&of("model"))),
        format::value(Some(&of("device"))),
        format::value(Some(&of("workload.lengths"))),
        format::value(Some(&of("workload.arrivals"))),
        format::value(Some(&spec["seed"])),
    )
}
