//! The runner sweeps use: resolves a configuration, simulates it and summarises.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::executor::RunOne;
use super::overload;
use super::preflight::Fingerprints;
use super::survey::CheckOne;
use crate::external::AllowPrograms;
use crate::measurement::{Limit, Steady};
use crate::results::{RunResult, RunStatus};
use crate::simulator::{
    PoolWork, RequestRecord, RequestTargets, RunSummary, SegmentRecorder, SummaryRecorder, observe,
    simulate,
};
use crate::spec::{Deployment, Measure, RequestOutput, ResolveError, Resolver, RunConfig, run_id};
use crate::workload::{ArrivalsConfig, UnitWorkload, Workload, WorkloadError, WorkloadSource};

/// Simulates configurations; shared by all threads of a sweep.
pub struct Simulate {
    resolver: Resolver,
    workloads: WorkloadSource,
    log_every: u32,
    targets: Option<RequestTargets>,
    limits: Vec<Limit>,
    /// What of the specification decides how long runs become beside their configurations.
    deciding: String,
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
            limits: Vec::new(),
            deciding: String::new(),
        }
    }

    /// Figures and the limits they are to keep: a run that is sure to miss one need not be
    /// extended.
    #[must_use]
    pub fn with_limits(mut self, limits: Vec<Limit>) -> Self {
        self.deciding = format!("{limits:?}");
        self.limits = limits;
        self
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
        let mut data = self.data(config)?;
        let mut named = Cow::Borrowed(config);
        match config.measured() {
            Measure::Steady => {
                // Limits decide which runs are extended, and which are stopped.
                let limits = self.deciding.as_str();
                data.push(("measure".to_owned(), format!("steady {limits}")));
            }
            // A run is known by how many there are, not by whether somebody said so.
            Measure::All if config.workload.requests.is_none() => {
                let outline = self.workloads.outline(&config.workload, config.qps)?;
                named.to_mut().workload.requests = Some(outline.requests);
            }
            Measure::All => {}
        }
        if config.measure.is_some() {
            named.to_mut().measure = None;
        }
        Ok(run_id(&named, &data))
    }

    /// Simulates as many requests as the workload has, and measures all of them.
    fn simulated_all(
        &self,
        config: &RunConfig,
        deployment: &Deployment,
    ) -> Result<Simulated, WorkloadError> {
        let drawn = self.drawn(config)?;
        let workload = drawn.at_rate(config.qps)?;
        let mut recorder =
            SummaryRecorder::new(workload.requests.len(), self.log_every, self.targets);
        let totals = simulate(&deployment.cluster, &workload, &mut recorder);
        let (summary, requests) = recorder.finish(&totals);
        let recorded_times = matches!(config.workload.arrivals, ArrivalsConfig::Trace { .. });
        let overload = overload::remark(&deployment.cluster, &workload, &summary, recorded_times);
        Ok(Simulated {
            pools_span_s: summary.duration_s,
            pools: totals.pools,
            summary,
            requests,
            measured: None,
            remarks: overload
                .into_iter()
                .chain(drawn.notes().iter().cloned())
                .collect(),
        })
    }

    /// Simulates until enough is known of its steady state.
    fn simulated_steady(
        &self,
        config: &RunConfig,
        deployment: &Deployment,
    ) -> Result<Simulated, WorkloadError> {
        let length = config.length();
        let stream = (self.workloads).stream(&config.workload, config.seed, config.replication)?;
        let stream = stream.at_rate(config.qps, length.requests)?;
        let mut overseer = Steady::new(
            &length,
            &self.limits,
            self.targets,
            stream.clients().is_some(),
        );
        let mut recorder = SegmentRecorder::new(self.log_every);
        observe(&deployment.cluster, stream, &mut overseer, &mut recorder);
        let Some(measured) = overseer.measured() else {
            let message = "the time limit comes before the first request";
            return Err(WorkloadError::new(message));
        };
        let outline = self.workloads.outline(&config.workload, config.qps)?;
        let overload = overload::saturated(&measured.summary);
        Ok(Simulated {
            summary: measured.summary,
            pools: measured.pools,
            pools_span_s: measured.pools_span_s,
            requests: recorder.finish(),
            measured: Some(measured.requests),
            remarks: overload.into_iter().chain(outline.run_notes).collect(),
        })
    }

    fn simulated(
        &self,
        config: &RunConfig,
        deployment: &Deployment,
        result: &mut RunResult,
    ) -> Result<(), WorkloadError> {
        let simulated = match config.measured() {
            Measure::Steady => self.simulated_steady(config, deployment)?,
            Measure::All => self.simulated_all(config, deployment)?,
        };
        let (summary, span_s) = (simulated.summary, simulated.pools_span_s);
        result.mfu = (span_s > 0.0).then(|| deployment.mfu(&simulated.pools, span_s));
        // Whatever prices other steps than the run's own: not a program that takes minutes.
        if config.network.simai_binary.is_none() {
            let assumptions = self
                .resolver
                .assumptions(deployment, &simulated.pools, &summary);
            result.assumptions = Some(assumptions);
        }
        result.kv_cache_dtype = Some(deployment.formats.kv_cache);
        let memory = deployment.memory_warning.as_ref();
        let remarks = [
            memory.map(|warning| format!("memory_check warn: {warning}")),
            too_long(deployment, &summary),
        ];
        let remarks = remarks.into_iter().flatten();
        let remarks: Vec<String> = remarks.chain(simulated.remarks).collect();
        result.reason = (!remarks.is_empty()).then(|| remarks.join(". "));
        result.summary = Some(summary);
        result.requests = simulated.requests;
        result.measured = simulated.measured;
        result.status = RunStatus::Ok;
        Ok(())
    }
}

/// What a run has come to.
struct Simulated {
    summary: RunSummary,
    pools: Vec<PoolWork>,
    pools_span_s: f64,
    requests: Vec<RequestRecord>,
    measured: Option<Range<u32>>,
    remarks: Vec<String>,
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
            measured: None,
            capacity: None,
            wall_time_s: 0.0,
        };
        match self.identity(config).map(|run_id| result.run_id = run_id) {
            Ok(()) => match self.resolver.resolve(config) {
                Ok(deployment) => {
                    result.total_gpus = Some(deployment.total_gpus());
                    result.cost_usd_per_hour = Some(deployment.cost_usd_per_hour());
                    if let Err(error) = self.simulated(config, &deployment, &mut result) {
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

    fn requests(&self, config: &RunConfig) -> Result<u32, WorkloadError> {
        if config.measured() == Measure::Steady {
            return Ok(config.length().simulated_at_first());
        }
        let outline = self.workloads.outline(&config.workload, config.qps)?;
        Ok(outline.requests)
    }
}

impl Fingerprints for Simulate {
    fn fingerprints(&self, config: &RunConfig) -> Result<Vec<(String, String)>, WorkloadError> {
        self.data(config)
    }
}
