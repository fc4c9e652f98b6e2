//! The runner sweeps use: resolves a configuration, simulates it and summarises.

use std::sync::Arc;
use std::time::Instant;

use super::executor::RunOne;
use super::overload;
use super::preflight::Fingerprints;
use super::survey::CheckOne;
use crate::external::AllowPrograms;
use crate::results::{RunResult, RunStatus};
use crate::simulator::{RequestTargets, RunSummary, SummaryRecorder, simulate};
use crate::spec::{Deployment, RequestOutput, ResolveError, Resolver, RunConfig, run_id};
use crate::workload::{ArrivalsConfig, UnitWorkload, Workload, WorkloadError, WorkloadSource};

/// Simulates configurations; shared by all threads of a sweep.
pub struct Simulate {
    resolver: Resolver,
    workloads: WorkloadSource,
    log_every: u32,
    targets: Option<RequestTargets>,
}

impl Simulate {
    /// Workloads come from `workloads`; `requests` says which rows are kept and
    /// `targets` what counts as a request served well.
    pub fn new(
        workloads: WorkloadSource,
        requests: RequestOutput,
        targets: Option<RequestTargets>,
    ) -> Self {
        Self {
            resolver: Resolver::default(),
            workloads,
            log_every: requests.every(),
            targets,
        }
    }

    /// Also runs the programs that configurations name.
    #[must_use]
    pub fn allowing_programs(mut self, leave: AllowPrograms) -> Self {
        self.resolver = self.resolver.allowing_programs(leave);
        self
    }

    /// What a person should know of the prices of all runs so far, one sentence each.
    pub fn price_warnings(&self) -> Vec<String> {
        self.resolver.warnings()
    }

    /// The deployment of a configuration, for showing it.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub fn deployment(&self, config: &RunConfig) -> Result<Deployment, ResolveError> {
        self.resolver.resolve(config)
    }

    /// The requests of a configuration.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the arrivals need a rate.
    pub fn workload(&self, config: &RunConfig) -> Result<Workload, WorkloadError> {
        self.drawn(config)?.at_rate(config.qps)
    }

    fn drawn(&self, config: &RunConfig) -> Result<Arc<UnitWorkload>, WorkloadError> {
        self.workloads
            .get(&config.workload, config.seed, config.replication)
    }

    /// Names and content hashes of the data `config` draws on.
    fn data(&self, config: &RunConfig) -> Result<Vec<(String, String)>, WorkloadError> {
        let mut data = self.resolver.fingerprints(config);
        data.extend(self.workloads.fingerprints(&config.workload)?);
        Ok(data)
    }

    fn identity(&self, config: &RunConfig) -> Result<String, WorkloadError> {
        let data = self.data(config)?;
        if config.workload.requests.is_some() {
            return Ok(run_id(config, &data));
        }
        // A run is known by how many there are, not by whether somebody said so.
        let mut config = config.clone();
        let outline = self.workloads.outline(&config.workload, config.qps)?;
        config.workload.requests = Some(outline.requests);
        Ok(run_id(&config, &data))
    }

    fn simulated(
        &self,
        config: &RunConfig,
        deployment: &Deployment,
        drawn: &UnitWorkload,
        result: &mut RunResult,
    ) -> Result<(), WorkloadError> {
        let workload = drawn.at_rate(config.qps)?;
        let mut recorder =
            SummaryRecorder::new(workload.requests.len(), self.log_every, self.targets);
        let totals = simulate(&deployment.cluster, &workload, &mut recorder);
        let (summary, requests) = recorder.finish(&totals);
        result.mfu =
            (summary.duration_s > 0.0).then(|| deployment.mfu(&totals.pools, summary.duration_s));
        // Whatever prices other steps than the run's own: not a program that takes minutes.
        if config.network.simai_binary.is_none() {
            let assumptions = self
                .resolver
                .assumptions(deployment, &totals.pools, &summary);
            result.assumptions = Some(assumptions);
        }
        result.kv_cache_dtype = Some(deployment.formats.kv_cache);
        let memory = deployment.memory_warning.as_ref();
        let recorded_times = matches!(config.workload.arrivals, ArrivalsConfig::Trace { .. });
        let remarks = [
            memory.map(|warning| format!("memory_check warn: {warning}")),
            too_long(deployment, &summary),
            overload::remark(&deployment.cluster, &workload, &summary, recorded_times),
        ];
        let remarks = remarks.into_iter().flatten();
        let remarks: Vec<String> = remarks.chain(drawn.notes().iter().cloned()).collect();
        result.reason = (!remarks.is_empty()).then(|| remarks.join(". "));
        result.summary = Some(summary);
        result.requests = requests;
        result.status = RunStatus::Ok;
        Ok(())
    }
}

/// How many requests did not fit into the longest sequence, if any.
fn too_long(deployment: &Deployment, summary: &RunSummary) -> Option<String> {
    let longest = deployment.cluster.max_model_len?;
    let (rejected, capped) = (
        summary.rejected_by_max_model_len,
        summary.capped_by_max_model_len,
    );
    (rejected + capped > 0).then(|| {
        format!(
            "max_model_len {longest}: {rejected} of {} requests rejected for their prompts, \
             {capped} outputs capped",
            summary.num_requests
        )
    })
}

impl RunOne for Simulate {
    fn run_id(&self, config: &RunConfig) -> Option<String> {
        self.identity(config).ok()
    }

    fn run(&self, index: u64, config: &RunConfig) -> RunResult {
        let started = Instant::now();
        let mut result = RunResult {
            index,
            run_id: String::new(),
            status: RunStatus::Failed,
            reason: None,
            axes: Vec::new(),
            total_gpus: None,
            cost_usd_per_hour: None,
            mfu: None,
            assumptions: None,
            kv_cache_dtype: None,
            summary: None,
            requests: Vec::new(),
            wall_time_s: 0.0,
        };
        match self.identity(config).and_then(|run_id| {
            result.run_id = run_id;
            self.drawn(config)
        }) {
            Ok(drawn) => match self.resolver.resolve(config) {
                Ok(deployment) => {
                    result.total_gpus = Some(deployment.total_gpus());
                    result.cost_usd_per_hour = Some(deployment.cost_usd_per_hour());
                    if let Err(error) = self.simulated(config, &deployment, &drawn, &mut result) {
                        result.reason = Some(error.to_string());
                    }
                }
                Err(error) => {
                    result.reason = Some(error.to_string());
                    if matches!(error, ResolveError::Infeasible(_)) {
                        result.status = RunStatus::Infeasible;
                    }
                }
            },
            Err(error) => result.reason = Some(error.to_string()),
        }
        result.wall_time_s = started.elapsed().as_secs_f64();
        result
    }
}

impl CheckOne for Simulate {
    fn check(&self, config: &RunConfig) -> Result<(), ResolveError> {
        self.resolver.resolve(config).map(|_| ())
    }

    fn requests(&self, config: &RunConfig) -> Result<u32, String> {
        let outline = self.workloads.outline(&config.workload, config.qps);
        let outline = outline.map_err(|error| error.to_string())?;
        Ok(outline.requests)
    }
}

impl Fingerprints for Simulate {
    fn fingerprints(&self, config: &RunConfig) -> Result<Vec<(String, String)>, String> {
        self.data(config).map_err(|error| error.to_string())
    }
}
