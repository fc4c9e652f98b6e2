//! Recorded runs of Vidur: their flags, the cluster they simulated, their files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vidur_sweep::catalog::{Catalog, ModelSpec};
use vidur_sweep::execution_time::vidur::{PredictorConfig, TableCost};
use vidur_sweep::memory::Parallelism;
use vidur_sweep::simulator::{
    ClusterSpec, Compat, GlobalScheduler, KvCacheSpec, PoolRole, PoolSpec, ReplicaScheduler,
};
use vidur_sweep::workload::{Request, Workload};

/// Recorded flags of a case.
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    fn read(summary: &Value) -> Self {
        let words: Vec<&str> = summary["flags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        let mut flags = BTreeMap::new();
        for (index, word) in words.iter().enumerate() {
            if let Some(name) = word.strip_prefix("--") {
                let value = words.get(index + 1).filter(|next| !next.starts_with("--"));
                flags.insert(name.to_owned(), value.copied().unwrap_or("").to_owned());
            }
        }
        Self(flags)
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).map_or(default, String::as_str).to_owned()
    }

    pub fn number(&self, name: &str, default: f64) -> f64 {
        self.0
            .get(name)
            .map_or(default, |text| text.parse().unwrap())
    }
}

/// One recorded run.
pub struct Case {
    pub folder: PathBuf,
    pub summary: Value,
    pub flags: Flags,
}

impl Case {
    fn read(folder: PathBuf) -> Self {
        let text = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        let summary = serde_json::from_str(&text).unwrap();
        Self {
            flags: Flags::read(&summary),
            folder,
            summary,
        }
    }

    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap();
        name.to_string_lossy().into_owned()
    }

    pub fn model(&self) -> ModelSpec {
        let default = "meta-llama/Llama-2-7b-hf";
        let name = self.flags.text("replica_config_model_name", default);
        Catalog::builtin().model(&name).unwrap()
    }

    pub fn parallelism(&self) -> Parallelism {
        let size = |name: &str| self.flags.number(&format!("replica_config_{name}"), 1.0) as u32;
        Parallelism {
            tensor_parallel: size("tensor_parallel_size"),
            pipeline_parallel: size("num_pipeline_stages"),
            expert_parallel: 1,
            attention_data_parallel: 1,
        }
    }

    /// Exactly the requests of the run.
    pub fn workload(&self) -> Workload {
        let number = |text: &str| text.parse::<f64>().unwrap();
        Workload {
            requests: (rows(&self.folder.join("requests.csv")).iter())
                .map(|row| Request {
                    arrived_at_s: number(&row[1]),
                    prefill_tokens: number(&row[2]) as u32,
                    decode_tokens: number(&row[3]) as u32,
                })
                .collect(),
            clients: None,
        }
    }

    /// The simulated cluster, stages priced by what the run looked up.
    pub fn cluster(&self) -> ClusterSpec {
        let (flags, summary) = (&self.flags, &self.summary);
        let scheduler = flags.text("replica_scheduler_config_type", "sarathi");
        let option = |name: &str, default| {
            flags.number(&format!("{scheduler}_scheduler_config_{name}"), default)
        };
        let batch_size_cap = option("batch_size_cap", 128.0) as u32;
        let planned = summary["max_batch_size"].as_f64().unwrap() as u32;
        let watermark_blocks_fraction = option("watermark_blocks_fraction", 0.01);
        let max_tokens_in_batch = option("max_tokens_in_batch", 4096.0) as u32;
        let replica = match scheduler.as_str() {
            "sarathi" => ReplicaScheduler::Sarathi {
                chunk_size: option("chunk_size", 512.0) as u32,
                batch_size_cap,
                watermark_blocks_fraction,
            },
            "vllm" => ReplicaScheduler::Vllm {
                max_tokens_in_batch,
                batch_size_cap,
                watermark_blocks_fraction,
            },
            "orca" => ReplicaScheduler::Orca {
                batch_size_cap: planned.min(batch_size_cap),
            },
            "faster_transformer" => ReplicaScheduler::FasterTransformer {
                batch_size_cap: planned.min(batch_size_cap),
            },
            "lightllm" => ReplicaScheduler::Lightllm {
                max_tokens_in_batch,
                batch_size_cap,
                max_waiting_iters: option("max_waiting_iters", 10.0) as u32,
            },
            other => panic!("{other}"),
        };
        let cost = TableCost::from_predictions(
            &self.folder.join("predictions.csv"),
            &self.model(),
            self.parallelism(),
            8,
            &PredictorConfig::default(),
        )
        .unwrap();
        let lengths = flags.text("length_generator_config_type", "fixed");
        let max_tokens = flags.number(
            &format!("{lengths}_request_length_generator_config_max_tokens"),
            4096.0,
        );
        let draws = match flags
            .text("interval_generator_config_type", "poisson")
            .as_str()
        {
            "poisson" => 1,
            _ => 0,
        } + u64::from(lengths == "uniform");
        let num_requests = summary["requests"].as_u64().unwrap();
        ClusterSpec {
            pools: vec![PoolSpec {
                role: PoolRole::Mixed,
                replicas: flags.number("cluster_config_num_replicas", 1.0) as u32,
                attention_data_parallel: 1,
                scheduler: replica,
                kv_cache: KvCacheSpec {
                    num_blocks: summary["num_blocks"].as_f64().unwrap() as u64,
                    block_size: option("block_size", 16.0) as u32,
                },
                cost: Arc::new(cost),
            }],
            global_scheduler: match flags
                .text("global_scheduler_config_type", "round_robin")
                .as_str()
            {
                "lor" => GlobalScheduler::Lor,
                "random" => GlobalScheduler::Random,
                _ => GlobalScheduler::RoundRobin,
            },
            kv_transfer: None,
            seed: 42,
            time_limit_s: Some(flags.number("time_limit", 0.0)).filter(|limit| *limit > 0.0),
            compat: Compat::Vidur,
            max_request_tokens: Some(max_tokens as u32),
            earlier_random_draws: draws * num_requests,
        }
    }
}

/// The cases in `folder`, by name.
pub fn cases(folder: &Path) -> Vec<Case> {
    let mut folders: Vec<PathBuf> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("batches.csv").exists())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders.into_iter().map(Case::read).collect()
}

/// The committed cases.
pub fn fixtures() -> Vec<Case> {
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vidur_runs"))
}

/// The cases of the folder that `VIDUR_SWEEP_VIDUR_RUNS` names.
pub fn named_cases() -> Vec<Case> {
    let folder = std::env::var_os("VIDUR_SWEEP_VIDUR_RUNS").expect("VIDUR_SWEEP_VIDUR_RUNS");
    cases(Path::new(&folder))
}

/// Fields of a CSV file without its header.
pub fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let row = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader
        .records()
        .map(|record| row(record.unwrap()))
        .collect()
}

/// Equal but for rounding.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}
