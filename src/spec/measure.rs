//! What a run's figures are of, and how well they are to be known.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::columns::{self, ColumnError};

/// What the figures of a run are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// A window in which the system is in steady state: requests before it warm the system
    /// up, and the load goes on after it until the last measured request has ended.
    Steady,
    /// Everything, from the first arrival to the last completion.
    All,
}

/// How well figures are to be known: a summary column and the half-width of its 95 %
/// interval as a share of the figure, as a number or in per cent: `{ttft_p99_s: 5%}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Precision(pub BTreeMap<String, RelativeWidth>);

/// A half-width as a share of the figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RelativeWidth {
    /// `0.05`.
    Share(f64),
    /// `5%`.
    Percent(String),
}

impl RelativeWidth {
    /// The share, if it is one of more than 0 and less than 1.
    pub fn share(&self) -> Option<f64> {
        let share = match self {
            Self::Share(share) => *share,
            Self::Percent(text) => {
                let number = text.trim().strip_suffix('%')?.trim_end();
                number.parse::<f64>().ok()? / 100.0
            }
        };
        (share > 0.0 && share < 1.0).then_some(share)
    }
}

/// How well capacities are to be known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapacitySearch {
    /// Half-width of the 95 % interval of a capacity, as a share of it: a number or per cent.
    #[serde(default = "default_tolerance")]
    pub tolerance: RelativeWidth,
    /// Measured requests of one simulation, at most: what is not known by then is told with
    /// the interval that it has.
    #[serde(default = "default_max_requests")]
    #[schemars(range(min = 100, max = 100_000_000))]
    pub max_requests: u32,
}

pub(super) fn default_tolerance() -> RelativeWidth {
    RelativeWidth::Percent("1%".to_owned())
}

/// Enough for one per cent of most deployments; a capacity that is not known by then is that
/// of a system at the edge of what it can serve, of which longer runs tell slowly.
pub(super) const fn default_max_requests() -> u32 {
    300_000
}

impl Default for CapacitySearch {
    fn default() -> Self {
        Self {
            tolerance: default_tolerance(),
            max_requests: default_max_requests(),
        }
    }
}

impl CapacitySearch {
    /// The tolerance as a share; the default's where it is none, which loading rules out.
    pub fn tolerance_share(&self) -> f64 {
        let default = || default_tolerance().share().unwrap_or(0.01);
        self.tolerance.share().unwrap_or_else(default)
    }
}

/// What is wrong with a wish for precision: about its column, or about its value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrecisionError {
    /// A column without an interval.
    #[error(transparent)]
    Column(ColumnError),
    /// Not a share.
    #[error(
        "value `{given}` is not allowed; allowed is the half-width of the interval as a share of \
         the figure: more than 0 and less than 1, or in per cent, as in `5%`"
    )]
    Width {
        /// The value given.
        given: String,
    },
}

/// Whether `column` can be asked for with a half-width of `width`.
///
/// # Errors
/// If it cannot.
pub fn check_precision(column: &str, width: &RelativeWidth) -> Result<(), PrecisionError> {
    columns::check_interval(column).map_err(PrecisionError::Column)?;
    check_width(width)
}

/// Whether `width` is a share.
///
/// # Errors
/// If it is not.
pub fn check_width(width: &RelativeWidth) -> Result<(), PrecisionError> {
    match width.share() {
        Some(_) => Ok(()),
        None => Err(PrecisionError::Width {
            given: match width {
                RelativeWidth::Share(share) => share.to_string(),
                RelativeWidth::Percent(text) => text.clone(),
            },
        }),
    }
}
