//! Checks the targets of a specification: which columns they name, and their limits.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::check::{Checker, Issue};
use super::columns;
use super::keys::{request_slo_keys, target_range_keys};
use super::slo::Slo;

/// What is wrong with the targets of a specification, found at `slo`; `number_keys` of
/// its runs are columns of numbers.
pub(super) fn check(slo: &mut Value, number_keys: &[&str]) -> Vec<Issue> {
    let mut checker = Checker::default();
    let Value::Object(map) = slo else {
        checker.refuse_with(slo, "slo", "allowed is a mapping of columns to limits");
        return checker.issues;
    };
    // What is well-formed is looked at more closely, whatever is wrong beside it.
    let mut well_formed = Map::new();
    for (key, value) in map {
        let before = checker.issues.len();
        check_form(key, value, number_keys, &mut checker);
        if checker.issues.len() == before {
            well_formed.insert(key.clone(), value.clone());
        }
    }
    let targets = Slo::deserialize(Value::Object(well_formed)).unwrap_or_default();
    for (column, target) in &targets.columns {
        if let Err(error) = targets.bounds_of(column, *target, number_keys) {
            checker.refuse_value(&format!("slo.{column}"), &error.to_string());
        }
    }
    if targets.per_request.is_some_and(|r| r.is_empty()) {
        let problem =
            "no target is given; allowed is at least one of ttft_s, tbt_s, stall_s, e2e_s";
        checker.refuse_value("slo.per_request", problem);
    }
    checker.issues
}

/// Checks the name of one target, and what kind of value it has.
fn check_form(key: &str, value: &mut Value, number_keys: &[&str], checker: &mut Checker) {
    let path = format!("slo.{key}");
    if key == "per_request" {
        return match value {
            Value::Object(inner) => checker.map(request_slo_keys(), inner, &path),
            other => {
                let allowed = "allowed is a mapping of ttft_s, tbt_s, stall_s, e2e_s, attainment";
                checker.refuse_with(other, &path, allowed);
            }
        };
    }
    if let Err(error) = columns::check_target(key, number_keys) {
        return checker.refuse_name(&path, &error.to_string());
    }
    match value {
        Value::Number(_) => {}
        Value::Object(inner) => checker.map(target_range_keys(), inner, &path),
        other => {
            let allowed = "allowed is a number, or a mapping of min and max";
            checker.refuse_with(other, &path, allowed);
        }
    }
}
