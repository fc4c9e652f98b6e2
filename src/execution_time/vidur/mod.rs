//! Execution times from Vidur's profiles: the backend `vidur`, and `table`,
//! which takes the same formula's operator times from a file.
//!
//! [`FitLibrary`] reads the profiling files, fits every operator
//! ([`Estimator`]) and keeps the fits; [`VidurCost`] and [`TableCost`] put a
//! step together from them. What is priced, and by which [`Keys`], is described
//! in `docs/validation-vidur-predictors.md`. Behaviour and figures of the
//! original: microsoft/vidur at 7d475133, `vidur/execution_time_predictor` and
//! `vidur/entities/execution_time.py`.

mod cache;
mod compose;
mod config;
mod cost;
mod error;
mod fit;
pub mod forest;
mod interpolation;
mod library;
mod memo;
mod op;
mod profile;
mod recorded;
pub mod regression;
mod sheet;
mod table;
#[cfg(test)]
mod tests;
pub mod validation;

pub use compose::Keys;
pub use config::{Estimator, InputFiles, PredictorConfig};
pub use cost::{VidurCost, VidurDeployment};
pub use error::VidurError;
pub use fit::Fit;
pub use interpolation::Surface;
pub use library::FitLibrary;
pub use op::{Op, Profile};
pub use profile::{ProfileFile, ProfileRows, ProfileShape, Rows, Samples};
pub use recorded::RecordedCost;
pub use table::TableCost;
