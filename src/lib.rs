//! Design-space exploration for LLM serving.
//!
//! A sweep specification in YAML expands to many [`spec::RunConfig`]s; each is
//! resolved into a simulated cluster, run through a seeded discrete-event
//! simulation, and summarised in Parquet. See `ARCHITECTURE.md` for the map.
//!
//! Data flows one way: a module may only use those listed after it.
//!
//! ```text
//! cli → vidur → report → explore → select → results → spec → simulator
//!     → workload → execution_time → network → memory → catalog → yaml → external → spelling → units
//! ```

#![warn(missing_docs)]

pub mod catalog;
pub mod cli;
pub mod execution_time;
pub mod explore;
mod external;
pub mod memory;
pub mod network;
pub mod report;
pub mod results;
pub mod select;
pub mod simulator;
pub mod spec;
pub mod spelling;
pub mod units;
pub mod vidur;
pub mod workload;
pub mod yaml;
