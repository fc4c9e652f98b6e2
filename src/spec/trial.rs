//! Tries configurations of a specification before any of them runs: the first
//! of all, and each axis value with the others at their first. That finds values
//! that are fine alone and contradict each other, without expanding the sweep.

use serde_json::Value;

use super::load::Findings;
use super::{Constraint, RunConfig, SpecError, SpecErrors, SweepSpec};
use crate::workload::{ArrivalsConfig, LengthsConfig};

/// Values tried of each axis.
const MAX_TRIED_PER_AXIS: usize = 1000;

/// Errors reported of a list of points.
const MAX_ERRORS: usize = 20;

/// Records what is wrong with the configurations tried.
pub(super) fn check(spec: &SweepSpec, findings: &mut Findings<'_>) {
    let constraints: Vec<_> = spec
        .constraints
        .iter()
        .filter_map(|text| Constraint::parse(text).ok())
        .collect();
    if let Some(points) = &spec.points {
        let tried = (0..points.len()).filter_map(|index| {
            let message = attempt(spec, &points.assignment(index), &constraints).err()?;
            Some(SpecError::at(points.location(index), message))
        });
        findings.elsewhere(SpecErrors(tried.take(MAX_ERRORS).collect()));
        return;
    }
    let axes: Vec<(&String, &[Value])> = spec
        .axes
        .iter()
        .map(|(key, values)| (key, values.as_array().map_or(&[][..], Vec::as_slice)))
        .collect();
    let mut point: Vec<(String, Value)> = axes
        .iter()
        .filter_map(|(key, values)| Some(((*key).clone(), values.first()?.clone())))
        .collect();
    if let Err(message) = attempt(spec, &point, &constraints) {
        findings.at_value("base", message);
        return;
    }
    for (axis, (key, values)) in axes.iter().enumerate() {
        for (index, value) in values.iter().enumerate().take(MAX_TRIED_PER_AXIS).skip(1) {
            point[axis].1 = value.clone();
            if let Err(message) = attempt(spec, &point, &constraints) {
                findings.at_value(&format!("axes.{key}[{index}]"), message);
            }
        }
        point[axis].1 = values[0].clone();
    }
}

fn attempt(
    spec: &SweepSpec,
    point: &[(String, Value)],
    constraints: &[Constraint],
) -> Result<(), String> {
    let config = spec.config_at(point).map_err(|e| e.message)?;
    for constraint in constraints {
        match constraint.holds(&config) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(problem) => return Err(format!("constraint `{}`: {problem}", constraint.text())),
        }
    }
    config.contradiction().map_or(Ok(()), Err)
}

impl RunConfig {
    /// What in this configuration contradicts itself, if anything does: values
    /// that are allowed alone and make no sense together.
    pub fn contradiction(&self) -> Option<String> {
        if let LengthsConfig::Uniform {
            min_tokens,
            max_tokens,
            ..
        } = self.workload.lengths
            && min_tokens > max_tokens
        {
            return Some(format!(
                "key `workload.lengths.min_tokens`: value `{min_tokens}` is not allowed; \
                 allowed is at most `max_tokens` ({max_tokens})"
            ));
        }
        match (&self.workload.arrivals, self.qps) {
            (ArrivalsConfig::Poisson | ArrivalsConfig::Gamma { .. }, None) => Some(
                "missing key `qps`: random arrivals (`poisson`, `gamma`) need a rate in requests \
                 per second"
                    .to_owned(),
            ),
            (
                ArrivalsConfig::Trace {
                    time_scale_factor, ..
                },
                Some(qps),
            ) if *time_scale_factor != 1.0 => Some(format!(
                "`qps` ({qps}) and `workload.arrivals.time_scale_factor` ({time_scale_factor}) \
                     both set the rate of a trace: leave one out"
            )),
            _ => None,
        }
    }
}
