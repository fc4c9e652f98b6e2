//! Everything that is tested from outside the crate and needs no folder of
//! recordings: one binary, so that the library is linked once. Run one module with
//! `cargo test --test integration cli::`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

mod architecture;
mod capacity;
mod catalog;
mod checkpoints;
mod cli;
mod crashes;
mod deployments;
mod disaggregation;
mod docs;
mod experts;
mod explain;
mod fuzz_corpora;
mod hostile;
mod limits;
mod merge;
mod outcomes;
mod published;
mod queues;
mod results;
mod simulate;
mod simulator;
mod spec;
mod spec_folder;
mod steady;
mod streams;
mod terminal;
mod theory;
mod workload;
