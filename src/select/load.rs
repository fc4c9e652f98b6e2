//! Whether a deployment keeps up with its load, as the table of runs has it.

use crate::results::{RunResult, SummaryRow};
use crate::statistics::LoadVerdict;

/// How a run was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// All of it: what happened is what happened.
    Unjudged,
    /// In steady state, and it keeps up.
    Stable,
    /// In steady state, which it does not have.
    Saturated,
    /// In steady state, of which too little was seen.
    TooShort,
    /// The same, where a time limit wanted no more to be seen: it is judged by that.
    TooShortByLimit,
}

impl Load {
    /// The column it is in.
    pub(super) const COLUMN: &'static str = "load_verdict";
    /// Requests that had not arrived when the time limit came; also needed.
    const NOT_ARRIVED: &'static str = "not_arrived";

    pub(super) fn of(row: SummaryRow<'_>) -> Self {
        let not_arrived = row.integer(Self::NOT_ARRIVED);
        Self::named(
            row.text(Self::COLUMN),
            not_arrived.is_some_and(|count| count > 0),
        )
    }

    /// The same of a run that is in no table yet.
    pub(super) fn of_run(run: &RunResult) -> Self {
        let not_arrived = run
            .summary
            .as_ref()
            .map_or(0, |summary| summary.not_arrived);
        let verdict = run.steady().map(|steady| steady.verdict.name());
        Self::named(verdict, not_arrived > 0)
    }

    fn named(word: Option<&str>, is_limited: bool) -> Self {
        let judged = [Self::Stable, Self::Saturated, Self::TooShort];
        let found = judged
            .into_iter()
            .find(|load| word.is_some() && load.name() == word);
        match found {
            Some(Self::TooShort) if is_limited => Self::TooShortByLimit,
            found => found.unwrap_or(Self::Unjudged),
        }
    }

    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Unjudged => None,
            Self::Stable => Some(LoadVerdict::Stable.name()),
            Self::Saturated => Some(LoadVerdict::Saturated.name()),
            Self::TooShort | Self::TooShortByLimit => Some(LoadVerdict::TooShort.name()),
        }
    }

    /// Of several runs.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Saturated, _) | (_, Self::Saturated) => Self::Saturated,
            (Self::TooShort, _) | (_, Self::TooShort) => Self::TooShort,
            (Self::TooShortByLimit, _) | (_, Self::TooShortByLimit) => Self::TooShortByLimit,
            (Self::Stable, _) | (_, Self::Stable) => Self::Stable,
            (Self::Unjudged, Self::Unjudged) => Self::Unjudged,
        }
    }
}
