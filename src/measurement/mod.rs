//! What a run of open length is measured by: how long it goes on, which part of it counts
//! (the window), whether the system keeps up with its load, and how well each figure is
//! known.
//!
//! Looks at simulations and knows the statistics; knows nothing of specifications, models
//! or files. `docs/statistics.md` says what it does in words.

mod figure;
mod hopeless;
mod length;
mod overseer;
mod window;

pub use figure::{Figure, Metric, Statistic};
pub use length::{Length, Limit, Side};
pub use overseer::{Measured, Steady};
