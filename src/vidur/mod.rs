//! Vidur's command line and outputs.

pub mod metrics;
