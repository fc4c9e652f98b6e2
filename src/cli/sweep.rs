//! What the commands that take a sweep have in common: options and loading.

use std::path::PathBuf;

use clap::ValueEnum;

/// A sweep and what to change in it.
#[derive(clap::Args)]
pub struct SweepArgs {
    /// Sweep specification (YAML; see docs/spec.md)
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,

    /// Set one key of the specification, before it is checked; repeatable
    ///
    /// The key is dotted, the value is YAML: `--set base.replicas=4`,
    /// `--set axes.qps=[5,10]`, `--set slo.ttft_p90_s=1.5`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Seed of every workload, instead of the specification's
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// Comma-separated, with a header line
    Csv,
}
