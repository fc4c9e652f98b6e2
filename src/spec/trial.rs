//! Tries configurations of a specification before any of them runs: the first
//! of all, and each axis value with the others at their first. That finds names
//! the catalog lacks, and values that are fine alone and contradict each other,
//! without expanding the sweep.

use std::collections::BTreeSet;

use serde_json::Value;

use super::entries::Entries;
use super::load::Findings;
use super::longest_sequence::LongestSequences;
use super::measure::Measure;
use super::places::is_within;
use super::price_files::PriceFiles;
use super::problem::ResolveError;
use super::step_options::step_options;
use super::{Constraint, Problem, RequestOutput, RunConfig, SpecError, SpecErrors, SweepSpec};
use crate::catalog::Catalog;
use crate::execution_time::BackendKind;
use crate::execution_time::silicon::{DEVICES, SiliconDb};
use crate::host_memory::host_memory_bytes;
use crate::limits::ERRORS_MAX;
use crate::memory::check_divisibility;
use crate::simulator::{Compat, run_memory_bytes};
use crate::workload::{ArrivalsConfig, LengthsConfig, WorkloadSource};

/// Keys of a run that a sweep may set for all of them, beside `base`.
const OF_ALL_RUNS: [&str; 3] = ["measure", "precision", "max_requests"];

/// Values tried of each axis.
const MAX_TRIED_PER_AXIS: usize = 1000;

impl RunConfig {
    /// What keeps it from being resolved as far as can be told without planning
    /// memory or pricing anything: unknown names, missing files, values that contradict
    /// each other, a model that cannot be cut so.
    pub fn problems(&self) -> Vec<Problem> {
        let entries = Entries::default();
        let mut problems: Vec<_> = (self.unknown_names(&entries))
            .map(|(key, reason)| Problem::about(key, reason))
            .collect();
        problems.extend(self.contradiction());
        problems.extend(self.unusable_prices(&entries, &mut PriceFiles::default()));
        problems.extend(self.unusable_step_options(&entries));
        if problems.is_empty()
            && let Ok(model) = entries.model(&self.model)
            && let Err(infeasible) = check_divisibility(&model.spec, &self.parallelism())
        {
            problems.push(Problem {
                key: infeasible.key,
                reason: infeasible.reason,
            });
        }
        problems
    }

    /// Keys whose names lead nowhere, and why.
    fn unknown_names(&self, entries: &Entries) -> impl Iterator<Item = (&'static str, String)> {
        let model = entries.model(&self.model).err().map(|e| e.to_string());
        let mut unknown = vec![("model", model)];
        for (key, device) in self.device_names() {
            unknown.push((key, entries.device(device).err().map(|e| e.to_string())));
        }
        unknown.push(("engine", entries.engine(&self.engine).err()));
        unknown
            .into_iter()
            .filter_map(|(key, reason)| Some((key, reason?)))
    }
}

/// Notes kept: a person reads no more.
const MAX_NOTES: usize = 20;

/// Records what is wrong with the configurations tried, and gives what a person
/// should know of them.
pub(super) fn check(
    spec: &SweepSpec,
    workloads: &WorkloadSource,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let mut trial = Trial {
        spec,
        workloads,
        memory_bytes: host_memory_bytes(),
        notes: Vec::new(),
        more_notes: BTreeSet::new(),
        constraints: spec
            .constraints
            .iter()
            .filter_map(|text| Constraint::parse(text).ok())
            .collect(),
        entries: Entries::default(),
        files: PriceFiles::default(),
        sequences: LongestSequences::default(),
    };
    if spec.points.is_some() {
        findings.elsewhere(SpecErrors(trial.points()));
    } else {
        trial.axes(findings);
    }
    let more = trial.more_notes.len();
    if more > 0 {
        trial.notes.push(format!("{more} more notes of this kind"));
    }
    trial.notes
}

struct Trial<'a> {
    spec: &'a SweepSpec,
    workloads: &'a WorkloadSource,
    /// What a run may take at most, if that is known.
    memory_bytes: Option<u64>,
    notes: Vec<String>,
    /// Those beyond [`MAX_NOTES`].
    more_notes: BTreeSet<String>,
    constraints: Vec<Constraint>,
    entries: Entries,
    /// Files that prices come from.
    files: PriceFiles,
    sequences: LongestSequences,
}

impl Trial<'_> {
    fn points(&mut self) -> Vec<SpecError> {
        let mut errors = Vec::new();
        let Some(points) = &self.spec.points else {
            return errors;
        };
        for index in 0..points.len() {
            let problems = self.attempt(&points.assignment(index));
            let place = |problem: Problem| {
                let location = points.location_of(index, problem.key);
                SpecError::at(location, problem.message())
            };
            errors.extend(problems.into_iter().map(place));
            if errors.len() >= ERRORS_MAX {
                break;
            }
        }
        errors
    }

    /// Where the value of a run key stands: in `base`, or in the axis that sets it or
    /// what it is within, at the index that `index_of` gives.
    fn path_of(&self, key: Option<&str>, index_of: impl Fn(&str) -> usize) -> String {
        let Some(key) = key else {
            return "base".to_owned();
        };
        let axes = self.spec.axes.keys().filter(|axis| is_within(key, axis));
        match axes.max_by_key(|axis| axis.len()) {
            Some(axis) => format!("axes.{axis}[{}]{}", index_of(axis), &key[axis.len()..]),
            // A key of the sweep that stands for that of all runs.
            None if OF_ALL_RUNS.contains(&key) && !self.spec.base.contains_key(key) => {
                key.to_owned()
            }
            None => format!("base.{key}"),
        }
    }

    fn axes(&mut self, findings: &mut Findings<'_>) {
        let axes: Vec<(&str, &[Value])> = self.spec.axis_values().collect();
        let mut point: Vec<(String, Value)> = axes
            .iter()
            .filter_map(|(key, values)| Some(((*key).to_owned(), values.first()?.clone())))
            .collect();
        let mut first = self.attempt(&point);
        for problem in &first {
            findings.at_value(&self.path_of(problem.key, |_| 0), problem.message());
        }
        if first.is_empty()
            && let Some(problem) = self.impossible(&point)
        {
            findings.at_value(&self.path_of(problem.key, |_| 0), &problem.reason);
            first.push(problem);
        }
        for (axis, (key, values)) in axes.iter().enumerate() {
            for (index, value) in values.iter().enumerate().take(MAX_TRIED_PER_AXIS).skip(1) {
                point[axis].1 = value.clone();
                for problem in self.attempt(&point) {
                    let known = |p: &Problem| *p == problem;
                    // With the first point broken at large, so is every other.
                    if first.iter().any(|p| known(p) || p.key.is_none()) {
                        continue;
                    }
                    // Whatever key it is about, this value is what makes the difference.
                    let within = problem.key.filter(|about| is_within(about, key));
                    let path = match within {
                        Some(about) => format!("axes.{key}[{index}]{}", &about[key.len()..]),
                        None => format!("axes.{key}[{index}]"),
                    };
                    findings.at_value(&path, problem.message());
                }
            }
            point[axis].1 = values[0].clone();
        }
    }

    /// Why no configuration of the sweep can exist, whatever the axes: the device
    /// has no data for the backend, or the model cannot be cut as `base` says. Where
    /// an axis has a part in it, such configurations are results instead.
    fn impossible(&self, point: &[(String, Value)]) -> Option<Problem> {
        let varies = |keys: &[&str]| {
            let pools = ["prefill", "decode"];
            let touched = |axis: &String| {
                (keys.iter().chain(&pools)).any(|key| is_within(axis, key) || is_within(key, axis))
            };
            self.spec.axes.keys().any(touched)
        };
        let config = self.spec.config_at(point).ok()?;
        let catalog = Catalog::builtin();
        let model = catalog.model(&config.model).ok()?;
        let device = catalog.device(&config.device).ok()?;
        let measured = [BackendKind::Silicon, BackendKind::Aiconfigurator];
        if measured.contains(&config.backend) && !varies(&["device", "backend"]) {
            let kernels = device.kernels_of.as_ref().unwrap_or(&device.name);
            if !SiliconDb::has_data(kernels) {
                return Some(Problem {
                    key: Some("device"),
                    reason: format!(
                        "key `device`: value `{}` has no measured operators for backend silicon; \
                         allowed are {}; backend roofline prices every device",
                        config.device,
                        DEVICES.join(", ")
                    ),
                });
            }
        }
        const CUTS: [&str; 4] = [
            "tensor_parallel",
            "pipeline_parallel",
            "expert_parallel",
            "attention_data_parallel",
        ];
        if varies(&["model"]) || varies(&CUTS) {
            return None;
        }
        let infeasible = check_divisibility(&model, &config.parallelism()).err()?;
        Some(Problem {
            key: (infeasible.key).filter(|key| self.spec.base.contains_key(*key)),
            reason: format!("no configuration can exist: {}", infeasible.reason),
        })
    }

    fn attempt(&mut self, point: &[(String, Value)]) -> Vec<Problem> {
        let config = match self.spec.config_at(point) {
            Ok(config) => config,
            Err(error) => return vec![Problem::new(error.message)],
        };
        let unknown = config.unknown_names(&self.entries);
        let mut problems: Vec<_> = unknown
            .map(|(key, reason)| Problem::about(key, reason))
            .collect();
        for constraint in &self.constraints {
            match constraint.holds(&config) {
                Ok(true) => {}
                Ok(false) => return problems,
                Err(problem) => {
                    let text = constraint.text();
                    problems.push(Problem::new(format!("constraint `{text}`: {problem}")));
                }
            }
        }
        match config.contradiction() {
            Some(contradiction) => problems.push(contradiction),
            None => problems.extend(self.unusable_workload(&config)),
        }
        if self.spec.capacity.is_some() {
            problems.extend(config.against_capacity());
        }
        problems.extend(config.unusable_prices(&self.entries, &mut self.files));
        problems.extend(config.unusable_step_options(&self.entries));
        problems
    }

    /// What keeps the requests from being drawn; of those that can be, notes.
    fn unusable_workload(&mut self, config: &RunConfig) -> Option<Problem> {
        let outline = match self.workloads.outline(&config.workload, config.qps) {
            Ok(outline) => outline,
            Err(error) => {
                let key = error.key.unwrap_or("workload");
                return Some(Problem::about(key, error.reason()));
            }
        };
        if let Some(reason) = self.takes_too_much(outline.requests) {
            return Some(Problem::about("workload.requests", reason));
        }
        let sequences = &mut self.sequences;
        let of_lengths = sequences.notes(config, outline.requests, self.workloads);
        let of_files = outline.file_notes.into_iter().chain(outline.run_notes);
        for note in of_files.chain(of_lengths) {
            if self.notes.contains(&note) {
                continue;
            }
            if self.notes.len() < MAX_NOTES {
                self.notes.push(note);
            } else if self.more_notes.len() < MAX_TRIED_PER_AXIS {
                self.more_notes.insert(note);
            }
        }
        None
    }

    /// Whether so many requests need more memory than there is, in words.
    fn takes_too_much(&self, requests: u32) -> Option<String> {
        let kept = self.spec.output.requests;
        let needed_bytes = run_memory_bytes(requests, kept.every());
        let memory_bytes = self.memory_bytes.filter(|most| needed_bytes > *most)?;
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let rows = match kept {
            RequestOutput::None => "",
            _ => " and `output: {requests: none}` keeps no row of each",
        };
        Some(format!(
            "a run of {requests} requests needs {:.1} GiB of memory, of which there are {:.1} GiB; \
             fewer requests need less{rows}",
            gib(needed_bytes),
            gib(memory_bytes)
        ))
    }
}

impl RunConfig {
    /// An option of the predictor out of range, where the backend uses it, or a file of
    /// prices that is not what it should be.
    fn unusable_prices(&self, entries: &Entries, files: &mut PriceFiles) -> Option<Problem> {
        let used = matches!(self.backend, BackendKind::Vidur | BackendKind::Linear);
        if let Some(error) = self.predictor().check().err().filter(|_| used) {
            return Some(Problem::about("predictor", error.to_string()));
        }
        if let Err(problem) = self.check_program() {
            return Some(problem);
        }
        let of_formula = self.unusable_formula();
        let (key, reason) = of_formula.or_else(|| files.problem(self, entries))?;
        Some(Problem::about(key, reason))
    }

    /// An option of steps that is not what the model needs.
    fn unusable_step_options(&self, entries: &Entries) -> Option<Problem> {
        let model = entries.model(&self.model).ok()?;
        match step_options(self, &model.spec, &self.parallelism()) {
            Err(ResolveError::Input(error)) => Some(Problem::from(&error)),
            Err(ResolveError::Infeasible(_)) | Ok(_) => None,
        }
    }

    /// What in this configuration contradicts itself, if anything does: values
    /// that are allowed alone and make no sense together.
    pub fn contradiction(&self) -> Option<Problem> {
        if let Err(too_large) = self.check_size() {
            return Some(too_large);
        }
        if let LengthsConfig::Uniform {
            min_tokens,
            max_tokens,
            ..
        }
        | LengthsConfig::Zipf {
            min_tokens,
            max_tokens,
            ..
        } = self.workload.lengths
            && min_tokens > max_tokens
        {
            let reason = format!(
                "value `{min_tokens}` is not allowed; allowed is at most `max_tokens` \
                 ({max_tokens})"
            );
            return Some(Problem::about("workload.lengths.min_tokens", reason));
        }
        match (&self.workload.arrivals, self.qps) {
            (ArrivalsConfig::Poisson | ArrivalsConfig::Gamma { .. }, None) => Some(Problem::about(
                "qps",
                "is missing: random arrivals (`poisson`, `gamma`) need a rate in requests per \
                 second",
            )),
            (
                ArrivalsConfig::Trace {
                    time_scale_factor, ..
                },
                Some(qps),
            ) if *time_scale_factor != 1.0 => Some(Problem::about(
                "workload.arrivals.time_scale_factor",
                format!(
                    "value `{time_scale_factor}` sets the rate of a trace, and so does `qps` \
                     ({qps}): leave one out"
                ),
            )),
            _ => self.contradicts_measure(),
        }
    }

    /// Wishes about the measurement that cannot be met together.
    fn contradicts_measure(&self) -> Option<Problem> {
        let has_precision = self.precision.as_ref().is_some_and(|p| !p.0.is_empty());
        if self.measured() == Measure::All {
            let wish = match (has_precision, self.max_requests) {
                (true, _) => "precision",
                (false, Some(_)) => "max_requests",
                (false, None) => return None,
            };
            let reason = "needs `measure: steady`, and what is measured is all of the run; recorded \
                          arrivals, bursts and `compat` have no steady state unless it is asked for";
            return Some(Problem::about(wish, reason));
        }
        if self.compat != Compat::None {
            return Some(Problem::about(
                "measure",
                "value `steady` is not allowed with `compat`, which measures all of a run",
            ));
        }
        if let (ArrivalsConfig::Static, None) = (&self.workload.arrivals, self.qps) {
            return Some(Problem::about(
                "measure",
                "value `steady` is not allowed where all requests arrive at once; set `qps`, or \
                 `measure: all`",
            ));
        }
        let fewest = self.workload.requests?;
        let most = self.max_requests.filter(|most| *most < fewest)?;
        let reason = format!(
            "value `{most}` is not allowed; allowed is at least `workload.requests` ({fewest})"
        );
        Some(Problem::about("max_requests", reason))
    }
}
