//! What the commands that take a sweep have in common: options, loading, and
//! the runner.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use super::CliError;
use super::values::whole;
use crate::explore::{Plan, Shard, Simulate};
use crate::select::{Criteria, limits, request_targets};
use crate::spec::{self, Problem, SpecError, SpecErrors, SweepSpec};
use crate::workload::WorkloadSource;

/// A sweep, what to change in it, and how much of it to do.
#[derive(clap::Args)]
pub struct SweepArgs {
    /// Sweep specification (YAML; docs/spec.md lists every key)
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,

    /// Override a key of the specification; repeatable
    ///
    /// The key is dotted and the value is YAML, as in `--set axes.qps=[5,10]` or
    /// `--set slo.ttft_p90_s=1.5`. A run key, as in `--set qps=4`, is then the
    /// same for all runs.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Seed of every workload, instead of the specification's
    #[arg(long, value_name = "S", value_parser = whole(0..=u64::MAX), allow_negative_numbers = true)]
    pub seed: Option<u64>,

    /// Worker threads; default: one per core
    #[arg(long, value_name = "N", value_parser = whole(1..=4096u16), allow_negative_numbers = true)]
    pub threads: Option<u16>,

    /// Do only part K of N, numbered from 1, of the sweep
    ///
    /// Every run belongs to exactly one of the N parts, each of which has its
    /// own result directory, `shard-K-of-N` within the sweep's. Do them on as
    /// many machines, put the directories side by side and query them together,
    /// in DuckDB with `SELECT * FROM 'results/NAME/shard-*/summary.parquet'`.
    /// `run_index` is unique among all; `pareto` compares runs of one part only.
    #[arg(long, value_name = "K/N")]
    pub shard: Option<Shard>,
}

impl SweepArgs {
    /// Reads the specification and numbers its runs.
    pub fn plan(&self) -> Result<Plan, CliError> {
        self.numbered(spec::load(&self.spec, &self.overrides(&[])))
    }

    /// The same of a search for the load that each configuration holds, with `more` keys
    /// changed.
    pub fn capacity_plan(&self, more: &[String]) -> Result<Plan, CliError> {
        self.numbered(spec::load_seeking_capacity(
            &self.spec,
            &self.overrides(more),
        ))
    }

    fn overrides(&self, more: &[String]) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        let given = self.set.iter().cloned().chain(seed);
        given.chain(more.iter().cloned()).collect()
    }

    fn numbered(&self, spec: Result<SweepSpec, SpecErrors>) -> Result<Plan, CliError> {
        let spec = spec.map_err(|errors| CliError::BadInput(errors.to_string()))?;
        Plan::new(spec).map_err(|error| self.bad_input(&error))
    }

    /// What the specification asks for.
    pub fn criteria(&self, plan: &Plan) -> Result<Criteria, CliError> {
        let spec = plan.spec();
        Criteria::new(&spec.slo, &spec.objectives, plan.axis_columns())
            .map_err(|error| self.bad_input(&error))
    }

    /// Something wrong with the specification as a whole.
    pub fn bad_input(&self, error: &dyn Display) -> CliError {
        CliError::BadInput(format!("{}: {error}", self.spec.display()))
    }

    /// Something wrong with a configuration of the plan, at the key it is about.
    pub fn bad_configuration(&self, plan: &Plan, problem: &Problem) -> CliError {
        match problem.key.and_then(|key| plan.spec().location_of(key)) {
            Some(location) => {
                CliError::BadInput(SpecError::at(location, problem.message()).to_string())
            }
            None => self.bad_input(&problem.message()),
        }
    }

    /// What runs the plan's runs.
    pub fn runner(&self, plan: &Plan) -> Simulate {
        let spec = plan.spec();
        let workloads = WorkloadSource::new(spec.data_files());
        let targets = request_targets(&spec.slo);
        Simulate::new(workloads, spec.output.requests, targets).with_limits(limits(&spec.slo))
    }

    /// Worker threads to use.
    pub fn num_threads(&self) -> usize {
        match self.threads {
            Some(threads) => usize::from(threads),
            None => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }

    /// The part to do.
    pub fn shard(&self) -> Shard {
        self.shard.unwrap_or(Shard::WHOLE)
    }
}
