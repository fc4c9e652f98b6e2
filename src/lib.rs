//! Design-space exploration for LLM serving.
//!
//! A sweep specification in YAML expands to many [`spec::RunConfig`]s; each is
//! resolved into a simulated cluster, run through a seeded discrete-event
//! simulation, and summarised in Parquet. See `ARCHITECTURE.md` for the map.
//!
//! Data flows one way: a module may only use those listed after it.
//!
//! ```text
//! cli → vidur → report → explore → select → search → results → spec → measurement → simulator → statistics
//!     → workload → execution_time → network → memory → catalog → yaml → external → spelling → permutation → host_memory → output_file → input_file → units → number → limits
//! ```

#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "tests count what is small"
    )
)]
// Only `cli/output.rs` prints, and nothing it prints to can end the program.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod catalog;
pub mod cli;
pub mod execution_time;
pub mod explore;
pub mod external;
pub mod host_memory;
pub mod input_file;
pub mod limits;
pub mod measurement;
pub mod memory;
pub mod network;
mod number;
pub mod output_file;
mod permutation;
pub mod report;
pub mod results;
pub mod search;
pub mod select;
pub mod simulator;
pub mod spec;
pub mod spelling;
pub mod statistics;
pub mod units;
pub mod vidur;
pub mod workload;
pub mod yaml;
