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
