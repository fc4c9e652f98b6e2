//! Backend `aicb`: layer times from the CSV files of Alibaba's AICB.
//!
//! A file holds, for one cut of a model and one (phase, batch size, sequence
//! length), the compute time of attention, MLP and experts of every layer on one
//! rank. [`AicbCost`] reads a folder of them as a table over batch size and
//! sequence length, interpolates in both, and takes everything the files lack
//! from the operator graph: collectives, expert exchange, embedding, LM head and
//! sends between stages. [`CompatAicb`] computes what Vidur-AlibabaCloud computes
//! from the same files. `docs/execution-time.md` states the rules.
//!
//! Without a folder, backend `aicb` is the operator graph itself, priced by
//! measured tables or fitted kernel efficiencies
//! ([`super::step_cost::GraphCost`]).

mod compat;
mod cost;
mod curve;
mod file;
mod program;
mod table;

pub use compat::{CompatAicb, CompatQuery};
pub use cost::{AicbCost, AicbCostError};
pub use file::{AicbError, AicbFile, FileKey, LayerRows, Phase, Row, has_files, read_directory};
pub use program::AicbProgram;
pub use table::Cut;
