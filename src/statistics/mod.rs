//! What can be concluded from one simulated run: how much of its start to leave out
//! ([`warm_up`]), whether it kept up with its load ([`growth`]), how far its figures may
//! be off ([`batch_means`], [`quantile`]), and whether it was long enough to say so
//! ([`length`]).
//!
//! Knows no simulator, model or file: slices of numbers in, small values out. Every
//! function is deterministic, and takes time proportional to its input or to sorting it.
//! `docs/statistics.md` explains the methods to a user, with the error rates measured
//! (the tests here measure them again on queues with known answers).

pub mod batch_means;
mod cells;
mod confidence;
mod distributions;
pub mod growth;
mod interval;
pub mod length;
pub mod quantile;
#[cfg(test)]
mod queues;
#[cfg(test)]
mod tests;
pub mod warm_up;

pub use batch_means::Mean;
pub use confidence::{CERTAIN, CONFIDENCE};
pub use growth::{LoadEvidence, LoadVerdict};
pub use interval::Interval;
pub use quantile::{CellCounts, Sample};
pub use warm_up::WarmUp;
