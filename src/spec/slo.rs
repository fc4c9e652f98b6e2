//! Targets: limits of summary columns, and what each request is to keep.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::columns::{self, ColumnError};
use crate::measurement::Side;

/// What counts as good enough: limits of summary columns, and of each request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Limits by column.
    #[serde(flatten)]
    pub columns: BTreeMap<String, Target>,
    /// What each request is to keep, and how many are to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_request: Option<RequestSlo>,
}

/// A limit of a column, or two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Target {
    /// On the side that is usual for such a column.
    Usual(f64),
    /// On the sides named.
    Range(TargetRange),
}

/// Limits on the sides named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRange {
    /// Least value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest value allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Targets of single requests: a request keeps all of them or it does not, and so many
/// are to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestSlo {
    /// Time to first token, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub ttft_s: Option<f64>,
    /// Mean time per output token after the first, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub tbt_s: Option<f64>,
    /// Longest time between two output tokens, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub stall_s: Option<f64>,
    /// Arrival to last token, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub e2e_s: Option<f64>,
    /// Share of the requests whose outcome is decided that are to keep all of these.
    #[serde(default = "most")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub attainment: f64,
}

/// Services promise two nines where they promise anything of single requests.
fn most() -> f64 {
    0.99
}

/// Column in which the share of requests that keep their targets is.
pub const ATTAINMENT_COLUMN: &str = "slo_attainment";

/// A limit of a summary column on one side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// The column.
    pub column: String,
    /// Which side of the limit is allowed.
    pub side: Side,
    /// The limit.
    pub limit: f64,
}

/// A target that cannot be evaluated: about its column, or about its value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// Not a column of numbers.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// A number alone for a column that is neither better high nor low.
    #[error(
        "a number alone does not say whether it is the least or the most; allowed is {{min: \
         {given}}} or {{max: {given}}}"
    )]
    NoSide {
        /// The number given.
        given: f64,
    },
    /// A mapping without a limit.
    #[error("no limit is given; allowed is a mapping of min, max or both")]
    Empty,
    /// A value that the column never has.
    #[error("value `{given}` is not allowed; allowed is {allowed}")]
    Value {
        /// The value given.
        given: f64,
        /// What the column has.
        allowed: &'static str,
    },
    /// Limits that nothing keeps.
    #[error("`min` ({min}) is more than `max` ({max})")]
    Crossed {
        /// Least value allowed.
        min: f64,
        /// Largest value allowed.
        max: f64,
    },
    /// Requests are to be counted that have no target of their own.
    #[error(
        "no request has a target of its own to be counted by; `per_request` sets some, and so does \
         a limit of a latency"
    )]
    NothingToCountBy,
}

impl Target {
    /// Its limits, the column being `column`.
    ///
    /// # Errors
    /// If they make no sense for the column.
    fn limits(self, column: &str) -> Result<Vec<(Side, f64)>, TargetError> {
        let limits = match self {
            Self::Usual(given) => match columns::usual_side(column) {
                Some(side) => vec![(side, given)],
                None => return Err(TargetError::NoSide { given }),
            },
            Self::Range(TargetRange { min, max }) => {
                if let (Some(min), Some(max)) = (min, max)
                    && min > max
                {
                    return Err(TargetError::Crossed { min, max });
                }
                let least = min.map(|min| (Side::AtLeast, min));
                let most = max.map(|max| (Side::AtMost, max));
                least.into_iter().chain(most).collect()
            }
        };
        if limits.is_empty() {
            return Err(TargetError::Empty);
        }
        let (allowed, is_allowed) = columns::values_of(column);
        match limits.iter().find(|(_, limit)| !is_allowed(*limit)) {
            Some((_, given)) => Err(TargetError::Value {
                given: *given,
                allowed,
            }),
            None => Ok(limits),
        }
    }
}

impl RequestSlo {
    /// Whether a request is to keep nothing.
    pub fn is_empty(&self) -> bool {
        let all = [self.ttft_s, self.tbt_s, self.stall_s, self.e2e_s];
        all.iter().all(Option::is_none)
    }
}

impl Slo {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.per_request.is_none()
    }

    /// The bounds of one column, where `number_keys` of a run are columns of numbers too.
    ///
    /// # Errors
    /// If the target makes no sense.
    pub fn bounds_of(
        &self,
        column: &str,
        target: Target,
        number_keys: &[&str],
    ) -> Result<Vec<Bound>, TargetError> {
        columns::check_target(column, number_keys)?;
        if columns::counts_requests(column) && !self.judges_requests() {
            return Err(TargetError::NothingToCountBy);
        }
        let limits = target.limits(column)?.into_iter();
        let of_column = limits.map(|(side, limit)| Bound {
            column: column.to_owned(),
            side,
            limit,
        });
        Ok(of_column.collect())
    }

    /// All bounds: those given, and the share of requests that are to keep their targets.
    ///
    /// # Errors
    /// The first column whose target makes no sense, and why.
    pub fn bounds(&self, number_keys: &[&str]) -> Result<Vec<Bound>, (String, TargetError)> {
        let mut bounds = Vec::new();
        for (column, target) in &self.columns {
            let of_column = self.bounds_of(column, *target, number_keys);
            bounds.extend(of_column.map_err(|error| (column.clone(), error))?);
        }
        bounds.extend(self.per_request.map(|requests| Bound {
            column: ATTAINMENT_COLUMN.to_owned(),
            side: Side::AtLeast,
            limit: requests.attainment,
        }));
        Ok(bounds)
    }

    /// Largest value allowed of each column of a latency that has a limit.
    pub fn latency_limits(&self) -> impl Iterator<Item = (&str, f64)> {
        self.columns.iter().filter_map(|(column, target)| {
            columns::metric_of(column)?;
            let most = match *target {
                Target::Usual(limit) => Some(limit),
                Target::Range(range) => range.max,
            };
            Some((column.as_str(), most?))
        })
    }

    /// Whether single requests have targets to be counted by.
    pub fn judges_requests(&self) -> bool {
        self.per_request.is_some() || self.latency_limits().next().is_some()
    }
}

impl JsonSchema for Slo {
    fn schema_name() -> Cow<'static, str> {
        "Slo".into()
    }

    /// Which columns there are depends on the sweep; they are checked by themselves.
    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slo(value: Value) -> Slo {
        serde_json::from_value(value).expect("targets")
    }

    #[test]
    fn targets_are_written_as_they_were_read() {
        for value in [
            json!({}),
            json!({"tbt_p99_s": 0.2, "ttft_p90_s": 2.0}),
            json!({"total_gpus": {"max": 8.0}, "mfu": {"min": 0.1, "max": 0.9}}),
            json!({"ttft_p90_s": 2.0, "per_request": {"stall_s": 0.5, "attainment": 0.9}}),
        ] {
            assert_eq!(
                serde_json::to_value(slo(value.clone())).expect("JSON"),
                value
            );
        }
        let default = slo(json!({"per_request": {"ttft_s": 1.0}}));
        assert_eq!(default.per_request.expect("some").attainment, 0.99);
    }

    #[test]
    fn a_number_is_a_limit_on_the_usual_side() {
        let sides = |value: Value| -> Vec<(String, Side, f64)> {
            let limits = slo(value).bounds(&["tensor_parallel"]).expect("limits");
            limits
                .into_iter()
                .map(|l| (l.column, l.side, l.limit))
                .collect()
        };
        let one = |column: &str, side, limit| vec![(column.to_owned(), side, limit)];
        for (column, side) in [
            ("ttft_p90_s", Side::AtMost),
            ("request_tbt_max_p99_s", Side::AtMost),
            ("cost_usd_per_million_tokens", Side::AtMost),
            ("cost_usd_per_hour", Side::AtMost),
            ("throughput_requests_per_s", Side::AtLeast),
            ("throughput_tokens_per_s_per_gpu", Side::AtLeast),
        ] {
            assert_eq!(sides(json!({column: 0.5})), one(column, side, 0.5));
            let other = match side {
                Side::AtMost => json!({column: {"min": 0.5}}),
                Side::AtLeast => json!({column: {"max": 0.5}}),
            };
            assert_eq!(sides(other), one(column, side.other(), 0.5));
        }
        let counted =
            sides(json!({"ttft_p90_s": 1, "goodput_requests_per_s": 3, "slo_attainment": 0.9}));
        assert_eq!(
            counted,
            [
                ("goodput_requests_per_s".to_owned(), Side::AtLeast, 3.0),
                ("slo_attainment".to_owned(), Side::AtLeast, 0.9),
                ("ttft_p90_s".to_owned(), Side::AtMost, 1.0),
            ]
        );
        assert_eq!(
            sides(json!({"per_request": {"e2e_s": 9}})),
            one("slo_attainment", Side::AtLeast, 0.99)
        );
        assert_eq!(
            sides(json!({"tensor_parallel": {"max": 4}, "mfu": {"min": 0.1, "max": 0.9}})),
            [
                ("mfu".to_owned(), Side::AtLeast, 0.1),
                ("mfu".to_owned(), Side::AtMost, 0.9),
                ("tensor_parallel".to_owned(), Side::AtMost, 4.0),
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let problem = |value: Value| match slo(value).bounds(&["tensor_parallel"]) {
            Ok(limits) => panic!("{limits:?}"),
            Err((column, error)) => format!("{column}: {error}"),
        };
        for (value, told) in [
            (json!({"ttft_p91_s": 1}), "did you mean `ttft_p90_s`?"),
            (
                json!({"pipeline_parallel": {"max": 1}}),
                "unknown target `pipeline_parallel`",
            ),
            (json!({"total_gpus": 8}), "allowed is {min: 8} or {max: 8}"),
            (
                json!({"total_gpus": {}}),
                "allowed is a mapping of min, max or both",
            ),
            (
                json!({"ttft_p90_s": 0}),
                "allowed is a number of seconds greater than 0",
            ),
            (
                json!({"ttft_p90_s": {"max": -1}}),
                "value `-1` is not allowed",
            ),
            (
                json!({"mfu": {"min": 30}}),
                "allowed is a share of at least 0 and at most 1",
            ),
            (
                json!({"preemptions": {"max": -1}}),
                "allowed is a number of at least 0",
            ),
            (
                json!({"mfu": {"min": 0.5, "max": 0.4}}),
                "`min` (0.5) is more than `max` (0.4)",
            ),
            (json!({"slo_attainment": 0.9}), "`per_request` sets some"),
            (
                json!({"goodput_requests_per_s_per_gpu": 1}),
                "`per_request` sets some",
            ),
        ] {
            let problem = problem(value);
            assert!(problem.contains(told), "{problem}");
        }
    }
}
