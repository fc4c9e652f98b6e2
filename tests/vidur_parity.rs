//! The simulator with Vidur's rules against recorded runs of Vidur: the same
//! batches, in the same order, at the same times, and the same events.
//!
//! A few cases are in `tests/fixtures/vidur_runs`; `VIDUR_SWEEP_VIDUR_RUNS` names a
//! folder of more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::vidur::{PredictorConfig, TableCost};
use vidur_sweep::memory::Parallelism;
use vidur_sweep::simulator::{
    BatchFact, ClusterSpec, Compat, EventFact, GlobalScheduler, KvCacheSpec, PoolRole, PoolSpec,
    Recorder, ReplicaScheduler, RequestRecord, simulate,
};
use vidur_sweep::workload::{Request, Workload};

/// Recorded flags of a case.
struct Flags(BTreeMap<String, String>);

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

    fn text(&self, name: &str, default: &str) -> String {
        self.0.get(name).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.0
            .get(name)
            .map_or(default, |text| text.parse().unwrap())
    }
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let row = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader
        .records()
        .map(|record| row(record.unwrap()))
        .collect()
}

#[derive(Default)]
struct Everything {
    batches: Vec<(u64, u32, f64, f64, u32, u32, String)>,
    events: Vec<EventFact>,
    requests: BTreeMap<u32, RequestRecord>,
}

impl Recorder for Everything {
    const WANTS_EVENTS: bool = true;
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        self.requests.insert(record.request_id, record.clone());
    }
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
    fn event(&mut self, fact: &EventFact) {
        self.events.push(*fact);
    }
    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        let members: Vec<String> = (fact.requests.iter())
            .map(|(id, tokens)| match tokens {
                1 => id.to_string(),
                _ => format!("{id}:{tokens}"),
            })
            .collect();
        self.batches.push((
            fact.batch_id,
            fact.replica,
            fact.scheduled_at_s,
            fact.completed_at_s,
            fact.tokens,
            fact.prefill_tokens,
            members.join(";"),
        ));
    }
}

fn cluster(case: &Path, flags: &Flags, summary: &Value) -> ClusterSpec {
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
    let parallelism = Parallelism {
        tensor_parallel: flags.number("replica_config_tensor_parallel_size", 1.0) as u32,
        pipeline_parallel: flags.number("replica_config_num_pipeline_stages", 1.0) as u32,
        expert_parallel: 1,
        attention_data_parallel: 1,
    };
    let name = flags.text("replica_config_model_name", "meta-llama/Llama-2-7b-hf");
    let model = Catalog::builtin().model(&name).unwrap();
    let cost = TableCost::from_predictions(
        &case.join("predictions.csv"),
        &model,
        parallelism,
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

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// The first difference between a recorded case and our run of it.
fn compare(case: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(case.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&text).unwrap();
    let flags = Flags::read(&summary);
    let requests = rows(&case.join("requests.csv"));
    let number = |text: &str| text.parse::<f64>().unwrap();
    let workload = Workload {
        requests: (requests.iter())
            .map(|row| Request {
                arrived_at_s: number(&row[1]),
                prefill_tokens: number(&row[2]) as u32,
                decode_tokens: number(&row[3]) as u32,
            })
            .collect(),
        clients: None,
    };
    let mut ours = Everything::default();
    let totals = simulate(&cluster(case, &flags, &summary), &workload, &mut ours);
    for (row, event) in rows(&case.join("events_head.csv")).iter().zip(&ours.events) {
        let kind = serde_json::to_value(event.kind).unwrap();
        let same = close(number(&row[1]), event.time_s)
            && number(&row[2]) as u64 == event.id
            && row[3] == kind.as_str().unwrap();
        if !same {
            return Err(format!("event {row:?}, ours {event:?}"));
        }
    }
    let recorded = rows(&case.join("batches.csv"));
    for (row, batch) in recorded.iter().zip(&ours.batches) {
        let same = number(&row[0]) as u64 == batch.0
            && number(&row[1]) as u32 == batch.1
            && close(number(&row[2]), batch.2)
            && close(number(&row[3]), batch.3)
            && number(&row[5]) as u32 == batch.4
            && number(&row[6]) as u32 == batch.5
            && row[8] == batch.6;
        if !same {
            return Err(format!("batch {row:?}, ours {batch:?}"));
        }
    }
    let batches = summary["batches_rows_total"].as_u64().unwrap();
    if ours.batches.len() as u64 != batches {
        return Err(format!("{batches} batches, ours {}", ours.batches.len()));
    }
    if !close(summary["sim_end"].as_f64().unwrap(), totals.end_s) {
        return Err(format!("end {}, ours {}", summary["sim_end"], totals.end_s));
    }
    for row in rows(&case.join("requests_out.csv")) {
        let ours = &ours.requests[&(number(&row[0]) as u32)];
        if row[6] != "1" {
            continue;
        }
        let same = close(number(&row[2]), ours.scheduled_at_s)
            && close(number(&row[4]), ours.prefill_completed_at_s)
            && close(number(&row[5]), ours.completed_at_s)
            && number(&row[7]) as u32 == ours.restarts
            && number(&row[8]) as u32 == ours.prefill_tokens
            && number(&row[9]) as u32 == ours.decode_tokens
            && close(number(&row[11]), ours.execution_s)
            && close(number(&row[13]), ours.preemption_s);
        if !same {
            return Err(format!("request {row:?}, ours {ours:?}"));
        }
    }
    Ok(())
}

/// Compares every case in `folder`.
fn compare_all(folder: &Path) {
    let mut cases: Vec<PathBuf> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("batches.csv").exists())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut different = 0;
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match compare(case) {
            Ok(()) => println!("{name}: same"),
            Err(difference) => {
                different += 1;
                println!("{name}: DIFFERENT: {difference}");
            }
        }
    }
    assert_eq!(different, 0, "of {} cases", cases.len());
}

#[test]
fn recorded_runs_are_reproduced_event_for_event() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vidur_runs");
    compare_all(&fixtures);
}

#[test]
#[ignore = "needs the folder of recorded runs"]
fn more_recorded_runs_are_reproduced_event_for_event() {
    let folder = std::env::var_os("VIDUR_SWEEP_VIDUR_RUNS").expect("VIDUR_SWEEP_VIDUR_RUNS");
    compare_all(Path::new(&folder));
}
