//! Vidur's command line: one simulation from the original's flags.
//!
//! [`flags`] is the table of flags, [`settings`] their values; [`prepare()`] turns
//! them into a configuration, requests and prices; [`metrics`] writes what the
//! original writes.

pub mod flags;
mod measure;
pub mod metrics;
mod prepare;
mod requests;
mod run;
pub mod settings;

pub use prepare::{Options, PrepareError, Prepared, prepare};
pub use requests::read_requests;
pub use run::Outcome;
pub use settings::Settings;
