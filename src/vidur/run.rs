//! Runs a prepared simulation and writes its folder.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::metrics::{MetricsConfig, MetricsStore};
use super::prepare::Prepared;
use crate::catalog::Attention;
use crate::results::schema::figures;
use crate::results::{RunResult, RunStatus};
use crate::simulator::{
    Recorder, RequestOutcome, RequestRecord, SimulationTotals, SummaryRecorder, simulate,
};
use crate::units::GIB;

/// What a simulation came to.
pub struct Outcome {
    /// Its figures, as a row of a sweep's summary.
    pub result: RunResult,
    /// What the simulator counted.
    pub totals: SimulationTotals,
    /// What went wrong in it, one sentence each: requests that did not complete,
    /// blocks that were not given back.
    pub problems: Vec<String>,
    /// What a person should know of the requests and the prices, one sentence each.
    pub warnings: Vec<String>,
    store: Option<MetricsStore>,
}

/// Counts requests by how they ended.
#[derive(Default)]
struct Ends {
    too_large: u32,
    too_long: u32,
    too_long_for_model: u32,
    at_limit: u32,
    not_arrived: u32,
    stuck: u32,
}

impl Recorder for Ends {
    fn request(&mut self, record: &RequestRecord) {
        match record.outcome {
            RequestOutcome::Completed => {}
            RequestOutcome::RejectedTooLargeForKvCache => self.too_large += 1,
            RequestOutcome::RejectedPromptExceedsBatch => self.too_long += 1,
            RequestOutcome::RejectedPromptExceedsMaxModelLen => self.too_long_for_model += 1,
            RequestOutcome::UnfinishedTimeLimit | RequestOutcome::UnfinishedEndOfRun => {
                self.at_limit += 1;
            }
            RequestOutcome::NotArrived => self.not_arrived += 1,
            RequestOutcome::UnfinishedStuck => self.stuck += 1,
        }
    }
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
}

impl Outcome {
    /// Its figures by name.
    pub fn figures(&self) -> serde_json::Map<String, Value> {
        let mut figures = figures(&self.result);
        let feasible = self.result.reason.is_none();
        figures.insert("memory_feasible".to_owned(), feasible.into());
        figures
    }
}

impl Prepared {
    /// What of the simulation is kept.
    fn metrics(&self) -> MetricsConfig {
        let document = self.settings.document();
        // The section has every key, of the right kind: it was made from flags.
        serde_json::from_value(document["metrics_config"].clone()).unwrap_or_default()
    }

    /// Simulates.
    pub fn run(&self) -> Outcome {
        let metrics = self.metrics();
        let wanted =
            metrics.write_metrics || metrics.enable_chrome_trace || metrics.write_json_trace;
        let requests = self.workload.requests.len();
        let summary = SummaryRecorder::new(requests, 0, None);
        let cluster = &self.deployment.cluster;
        let (recorder, store, totals) = if wanted {
            let store = MetricsStore::new(metrics, self.facts());
            let mut both = ((summary, Ends::default()), store);
            let totals = simulate(cluster, &self.workload, &mut both);
            (both.0, Some(both.1), totals)
        } else {
            let mut recorder = (summary, Ends::default());
            let totals = simulate(cluster, &self.workload, &mut recorder);
            (recorder, None, totals)
        };
        let (summary, ends) = recorder;
        let (summary, _) = summary.finish(&totals);
        let mfu = (summary.duration_s > 0.0)
            .then(|| self.deployment.mfu(&totals.pools, summary.duration_s));
        // Before other steps than the run's own are priced.
        let warnings = self.warnings();
        let assumptions = self.assumptions(&totals, &summary);
        Outcome {
            problems: problems(&ends, &totals),
            result: RunResult {
                index: 0,
                run_id: String::new(),
                status: RunStatus::Ok,
                reason: self.deployment.memory_warning.clone(),
                axes: Vec::new(),
                total_gpus: Some(self.deployment.total_gpus()),
                cost_usd_per_hour: Some(self.deployment.cost_usd_per_hour()),
                mfu,
                assumptions,
                kv_cache_dtype: Some(self.deployment.formats.kv_cache),
                summary: Some(summary),
                requests: Vec::new(),
                measured: None,
                capacity: None,
                wall_time_s: 0.0,
            },
            totals,
            warnings,
            store,
        }
    }

    /// Writes `config.json`, `summary.json` and the metrics into `dir`, which is
    /// made, and gives the files.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, outcome: &Outcome, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(dir)?;
        let mut files = Vec::new();
        let mut write = |name: &str, value: &Value| {
            let path = dir.join(name);
            let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
            std::fs::write(&path, text + "\n")?;
            files.push(path);
            Ok::<(), io::Error>(())
        };
        write("config.json", &self.config_document(outcome, dir))?;
        write("summary.json", &Value::Object(outcome.figures()))?;
        if let Some(store) = &outcome.store {
            files.extend(store.write(dir)?);
        }
        Ok(files)
    }

    /// The original's document, what follows from it, and in `vidur_sweep` what
    /// the original does not know.
    fn config_document(&self, outcome: &Outcome, dir: &Path) -> Value {
        let mut document = self.settings.document();
        document["metrics_config"]["output_dir"] = dir.display().to_string().into();
        let requests = &mut document["request_generator_config"];
        if requests["max_tokens"].is_null() {
            requests["max_tokens"] = requests["length_generator_config"]["max_tokens"].clone();
        }
        let replica = &mut document["cluster_config"]["replica_config"];
        let model = &self.deployment.model;
        let kv_heads = match model.attention {
            Attention::Gqa { kv_heads, .. } => kv_heads,
            Attention::Mla { heads, .. } => heads,
        };
        let pool = &self.deployment.pools[0];
        replica["world_size"] = pool.parallelism.gpus().into();
        replica["model_config"] = json!({
            "num_layers": model.layers,
            "num_q_heads": model.attention.heads(),
            "num_kv_heads": kv_heads,
            "embedding_dim": model.hidden_size,
            "mlp_hidden_dim": model.intermediate_size,
            "max_position_embeddings": model.max_position_tokens,
            "use_gated_mlp": model.gated_mlp,
            "vocab_size": model.vocab_size,
            "name": model.name,
        });
        replica["device_config"] = json!({
            "fp16_tflops": pool.device.peak_tflops.bfloat16,
            "total_memory_gb": (pool.device.memory_bytes as f64 / GIB).round(),
            "name": pool.device.name,
        });
        replica["node_config"] = json!({
            "num_devices_per_node": self.config.gpus_per_node.unwrap_or(pool.device.gpus_per_node),
            "name": self.config.network_device,
        });
        let cache = &self.deployment.cluster.pools[0].kv_cache;
        document["vidur_sweep"] = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "compat": self.config.compat,
            "backend": self.config.backend,
            "num_blocks": cache.num_blocks,
            "memory_per_gpu": pool.memory,
            "memory_feasible": self.deployment.memory_warning.is_none(),
            "notes": self.notes,
            "warnings": outcome.warnings,
            "problems": outcome.problems,
            "run_config": self.config,
        });
        document
    }
}

fn problems(ends: &Ends, totals: &SimulationTotals) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |count: u32, what: &str| {
        if count > 0 {
            let (noun, verb) = if count == 1 {
                ("request", "was")
            } else {
                ("requests", "were")
            };
            problems.push(format!("{count} {noun} {verb} {what}"));
        }
    };
    say(
        ends.too_large,
        "rejected: longer than the KV cache of a replica (fewer tokens or more num_blocks)",
    );
    say(
        ends.too_long,
        "rejected: prompt longer than the token budget of a batch (max_tokens_in_batch)",
    );
    say(
        ends.too_long_for_model,
        "rejected: prompt as long as the longest sequence, or longer (max_model_len)",
    );
    let at_limit = match ends.not_arrived {
        0 => "unfinished at the time limit".to_owned(),
        later => format!("unfinished at the time limit, {later} of them not yet arrived"),
    };
    say(ends.at_limit + ends.not_arrived, &at_limit);
    say(
        ends.stuck,
        "never scheduled, as in the original, which stops with an AssertionError: the head of the \
         queue fits neither the token budget nor the KV cache; without --compat it is rejected \
         and the others go on",
    );
    if totals.leaked_blocks > 0 {
        problems.push(format!(
            "{} KV cache blocks are still taken although nothing runs, as in the original, which \
             stops with an AssertionError: its scheduler never frees the blocks of requests that \
             end before their batch does; without --compat they are freed",
            totals.leaked_blocks
        ));
    }
    problems
}
