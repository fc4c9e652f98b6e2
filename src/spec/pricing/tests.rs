//! Whatever a price depends on is in the key of its cost model; what it does not depend
//! on is not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::catalog::Catalog;
use crate::spec::keys::{run_key_paths, run_keys, set};
use crate::spec::{Resolver, test_config};

/// Keys of all cost models of a configuration, whether or not they can be made.
fn keys(config: &RunConfig) -> BTreeSet<String> {
    let resolver = Resolver::default();
    // A key is made before what it is for.
    let resolved = resolver.resolve(config).map(|_| ());
    let keys: BTreeSet<_> = lock(&resolver.costs().kept).costs.keys().cloned().collect();
    assert!(!keys.is_empty(), "nothing was to be priced: {resolved:?}");
    keys
}

/// A configuration with all kinds of operators, one that is priced whether it fits or
/// not.
fn everything() -> Value {
    json!({
        "model": "deepseek-671B",
        "device": "h200",
        "engine": {"name": "vllm"},
        "backend": "roofline",
        "tensor_parallel": 8,
        "expert_parallel": 8,
        "memory_check": "warn",
        "qps": 1.0,
        "workload": {
            "requests": 10,
            "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 10},
            "arrivals": {"type": "poisson"}
        }
    })
}

fn config(json: &Value) -> RunConfig {
    serde_json::from_value(json.clone()).expect("a configuration")
}

/// `json` with run keys set.
fn with(json: &Value, values: &[(&str, Value)]) -> Value {
    let mut map = json.as_object().cloned().expect("a mapping");
    for (path, value) in values {
        set(run_keys(), &mut map, path, value.clone()).expect("a key");
    }
    Value::Object(map)
}

/// Paths of everything in a value that holds nothing else.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                leaves(inner, &format!("{path}/{key}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Another value of the same kind.
fn other(path: &str, value: &Value) -> Value {
    match value {
        Value::Null => panic!("{path}: to be given a value, so that it can be varied"),
        Value::Bool(is) => json!(!is),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => json!(2 * whole.max(1)),
            // Fractions stay fractions.
            None => json!(number.as_f64().expect("a number") * 0.75),
        },
        Value::String(text) if text == "fp8_block" || text == "bfloat16" => json!("fp8"),
        Value::String(text) if text == "derived" => json!("assumed"),
        Value::String(text) => json!(format!("{text}x")),
        Value::Array(items) => json!([items.as_slice(), &[json!("one more")]].concat()),
        Value::Object(_) => panic!("{path}: a mapping is no leaf"),
    }
}

/// Varies every field of the entry `full`, written to a file that `key` of a
/// configuration names, and expects another key each time.
fn every_field_counts(key: &str, full: &Value, left_out: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("entry.yaml");
    let json = with(&everything(), &[(key, json!(file))]);
    let key_of = |entry: &Value| {
        std::fs::write(&file, entry.to_string()).expect("written");
        keys(&config(&json))
    };
    let first = key_of(full);
    assert_eq!(key_of(full), first);
    let mut fields = Vec::new();
    leaves(full, "", &mut fields);
    assert!(fields.len() >= 8, "{fields:?}");
    for field in fields {
        if left_out.contains(&field.as_str()) {
            continue;
        }
        let mut entry = full.clone();
        let place = entry.pointer_mut(&field).expect("a field");
        *place = other(&field, place);
        assert_ne!(key_of(&entry), first, "{key}: {field}");
    }
}

#[test]
fn every_field_of_a_device_counts() {
    let mut device = json!(Catalog::builtin().device("h200").expect("known"));
    device["kernels_of"] = json!("h100");
    for peak in ["fp8", "int8", "nvfp4"] {
        device["peak_tflops"][peak] = json!(1234.5);
    }
    every_field_counts("device", &device, &[]);
}

#[test]
fn every_field_of_a_model_counts() {
    // What a field allows depends on others: a model of each kind has those it can vary.
    let deepseek = json!(Catalog::builtin().model("deepseek-671B").expect("known"));
    let tags = ["/attention/type", "/moe/groups_per_token"];
    every_field_counts("model", &without_nulls(deepseek), &tags);
    let next = json!(Catalog::builtin().model("qwen3-next-80B").expect("known"));
    let tags = [
        "/attention/type",
        "/moe/expert_groups",
        "/moe/groups_per_token",
    ];
    let next = without_nulls(next);
    every_field_counts("model", &next, &tags);
}

/// Without keys that are null, which are the same as left out.
fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, inner| !inner.is_null());
        for inner in map.values_mut() {
            *inner = without_nulls(inner.take());
        }
    }
    value
}

#[test]
fn every_field_of_an_engine_counts_in_a_file_and_inline() {
    let mut engine = json!(Catalog::builtin().engine("vllm", None).expect("known"));
    engine["host_overhead_s_per_step"] = json!(0.25);
    engine["host_overhead_s_per_request"] = json!(0.125);
    every_field_counts("engine.name", &engine, &[]);
    let named = with(&everything(), &[("engine", engine.clone())]);
    let first = keys(&config(&named));
    for (field, value) in engine.as_object().expect("a mapping") {
        let path = format!("engine.{field}");
        let changed = with(&named, &[(&path, other(&path, value))]);
        assert_ne!(keys(&config(&changed)), first, "{path}");
    }
}

/// Configurations with a value of every key that prices depend on, and the base in which
/// they do.
fn priced_keys(folder: &Path) -> Vec<(Value, Vec<(&'static str, Value)>)> {
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let plan = topology::TopologyPlan::new(topology::Fabric::SpectrumX, 32);
    let text = plan.generate().expect("a topology").to_string();
    let topologies = [
        file("one.topology", &text),
        file("other.topology", &text.replace("400Gbps", "200Gbps")),
    ];
    let conf = file("simai.conf", "ENABLE_QCN 0\n");
    let binary = file("simai", "no program");
    let profiles = folder.join("profiles");
    std::fs::create_dir_all(profiles.join("compute/h200/deepseek-671B")).expect("a folder");
    std::fs::write(profiles.join("compute/h200/deepseek-671B/mlp.csv"), "a\n").expect("written");
    std::fs::create_dir_all(profiles.join("network/other")).expect("a folder");
    std::fs::write(profiles.join("network/other/all_reduce.csv"), "a\n").expect("written");
    std::fs::create_dir_all(folder.join("aicb")).expect("a folder");
    let table = file("table.csv", "op,f0,f1,ms\n");
    let times = "nth_batch,replica_id,stage_id,execution_time\n0,0,0,0.5\n";
    let times = file("times.csv", times);
    let plain = everything();
    let over = with(
        &plain,
        &[
            ("network.topology", json!(topologies[0])),
            ("network.simai_conf", Value::Null),
        ],
    );
    let profiled = with(
        &plain,
        &[
            ("backend", json!("vidur")),
            ("predictor", json!({})),
            ("profiling_dir", json!(folder)),
        ],
    );
    let split = with(
        &plain,
        &[
            ("pd_node_ratio", json!(0.5)),
            ("replicas", json!(2)),
            ("prefill.device", json!("h200")),
            ("decode.device", json!("h200")),
        ],
    );
    let tokens: Vec<u32> = (1..=256).collect();
    vec![
        (
            plain.clone(),
            vec![
                ("model", json!("qwen3-moe-235b")),
                ("device", json!("h100")),
                ("backend", json!("silicon")),
                ("engine.name", json!("sglang")),
                ("gpus_per_node", json!(4)),
                ("dtype", json!("bfloat16")),
                ("kv_cache_dtype", json!("fp8")),
                ("tensor_parallel", json!(4)),
                ("pipeline_parallel", json!(2)),
                ("expert_parallel", json!(4)),
                ("attention_data_parallel", json!(2)),
                ("moe.load", json!({"type": "power_law", "alpha": 2.0})),
                ("moe.load.type", json!("balanced")),
                ("moe.load", json!({"type": "histogram", "tokens": tokens})),
                ("moe.redundant_experts", json!(32)),
                ("two_batch_overlap", json!(true)),
                ("speculative", json!({"acceptance": 0.5})),
                ("network.nvlink_bandwidth_gbps", json!(100.0)),
                ("network.rdma_bandwidth_gbps", json!(100.0)),
                ("network.topology", json!(topologies[0])),
                ("compat", json!("vidur-alibabacloud")),
            ],
        ),
        (
            with(
                &plain,
                &[("moe.load", json!({"type": "power_law", "alpha": 2.0}))],
            ),
            vec![("moe.load.alpha", json!(1.5))],
        ),
        (
            with(
                &plain,
                &[("moe.load", json!({"type": "histogram", "tokens": tokens}))],
            ),
            vec![("moe.load.tokens", json!(vec![1; 256]))],
        ),
        (
            with(&plain, &[("speculative", json!({"acceptance": 0.5}))]),
            vec![
                ("speculative.draft_tokens", json!(2)),
                ("speculative.acceptance", json!(0.75)),
            ],
        ),
        (
            with(
                &plain,
                &[("replicas", json!(8)), ("tensor_parallel", json!(1))],
            ),
            vec![("expert_parallel", json!(4))],
        ),
        (
            over,
            vec![
                ("network.topology", json!(topologies[1])),
                ("network.topology_of", json!("replica")),
                ("network.simai_conf", json!(conf)),
                ("network.simai_binary", json!(binary)),
            ],
        ),
        (
            profiled,
            vec![
                ("profiling_dir", json!(profiles)),
                ("memory.block_size", json!(32)),
                ("predictor.estimator", json!("random_forest")),
                ("predictor.k_fold_cv_splits", json!(5)),
                ("predictor.no_cache", json!(true)),
                ("predictor.kv_cache_prediction_granularity", json!(8)),
                ("predictor.prediction_max_prefill_chunk_size", json!(8192)),
                ("predictor.prediction_max_batch_size", json!(256)),
                ("predictor.prediction_max_tokens_per_request", json!(8192)),
                (
                    "predictor.attention_decode_batching_overhead_fraction",
                    json!(0.5),
                ),
                (
                    "predictor.attention_prefill_batching_overhead_fraction",
                    json!(0.5),
                ),
                ("predictor.nccl_cpu_launch_overhead_ms", json!(0.5)),
                ("predictor.nccl_cpu_skew_overhead_per_device_ms", json!(0.5)),
                ("predictor.num_training_job_threads", json!(2)),
                ("predictor.skip_cpu_overhead_modeling", json!(false)),
                ("predictor.num_estimators", json!([1])),
                ("predictor.max_depth", json!([1])),
                ("predictor.min_samples_split", json!([2])),
                ("predictor.polynomial_degree", json!([1])),
                ("predictor.polynomial_include_bias", json!([true])),
                ("predictor.polynomial_interaction_only", json!([true])),
                ("predictor.fit_intercept", json!([true])),
                ("predictor.seed", json!(7)),
                ("predictor.compute_input_file", json!(table)),
                ("predictor.attention_input_file", json!(table)),
                ("predictor.all_reduce_input_file", json!(table)),
                ("predictor.send_recv_input_file", json!(table)),
                ("predictor.cpu_overhead_input_file", json!(table)),
            ],
        ),
        (
            with(
                &plain,
                &[
                    ("backend", json!("vidur")),
                    ("profiling_dir", json!(profiles)),
                ],
            ),
            vec![("network_device", json!("other"))],
        ),
        (
            with(&plain, &[("backend", json!("table"))]),
            vec![("predictions_file", json!(table))],
        ),
        (
            with(&plain, &[("backend", json!("recorded"))]),
            vec![("execution_times_file", json!(table))],
        ),
        (
            with(
                &plain,
                &[
                    ("backend", json!("formula")),
                    ("formula", json!({"step_s": 0.5})),
                ],
            ),
            vec![
                ("formula.step_s", json!(0.25)),
                ("formula.prefill_token_s", json!(0.25)),
                ("formula.decode_request_s", json!(0.25)),
                ("formula.decode_context_token_s", json!(0.25)),
            ],
        ),
        (
            with(&plain, &[("backend", json!("aicb"))]),
            vec![("aicb_dir", json!(folder.join("aicb")))],
        ),
        (
            split,
            vec![
                ("prefill.device", json!("h100")),
                ("prefill.tensor_parallel", json!(4)),
                ("prefill.pipeline_parallel", json!(2)),
                ("prefill.expert_parallel", json!(4)),
                ("prefill.attention_data_parallel", json!(2)),
                ("decode.device", json!("h100")),
                ("decode.tensor_parallel", json!(4)),
                ("decode.pipeline_parallel", json!(2)),
                ("decode.expert_parallel", json!(4)),
                ("decode.attention_data_parallel", json!(2)),
            ],
        ),
        (
            with(
                &plain,
                &[
                    ("backend", json!("recorded")),
                    ("execution_times_file", json!(times)),
                    ("pd_node_ratio", json!(0.5)),
                    ("replicas", json!(2)),
                ],
            ),
            vec![
                ("prefill.memory.block_size", json!(32)),
                ("decode.memory.block_size", json!(32)),
            ],
        ),
    ]
}

/// Keys that say which steps there are, not what one costs.
const UNPRICED: [&str; 39] = [
    "decode.global_scheduler",
    "decode.memory.margin_fraction",
    "decode.memory.num_blocks",
    "decode.replica_scheduler",
    "decode.replicas",
    "global_scheduler",
    "memory.margin_fraction",
    "memory.max_request_tokens",
    "memory.num_blocks",
    "max_model_len",
    "max_requests",
    "measure",
    "memory_check",
    "mixed_pool",
    "network.kv_transfer_bandwidth_gbps",
    "network.kv_transfer_dtype",
    "network.kv_transfer_overlap",
    "pd_node_ratio",
    "precision",
    "price_usd_per_gpu_hour",
    "prefill.price_usd_per_gpu_hour",
    "decode.price_usd_per_gpu_hour",
    "prefill.global_scheduler",
    "prefill.memory.margin_fraction",
    "prefill.memory.num_blocks",
    "prefill.replica_scheduler",
    "prefill.replicas",
    "qps",
    "replica_scheduler",
    "replicas",
    "replication",
    "seed",
    "time_limit_s",
    "workload",
    // Replicas that share experts ask the same cost model, for the steps of all.
    "expert_group",
    // Of an engine: it counts whole.
    "engine",
    // Some of the figures of an engine have a key of their own.
    "memory",
    "prefill.memory",
    "decode.memory",
];

#[test]
fn every_key_of_a_run_counts_or_is_known_not_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut tried = BTreeSet::new();
    let mut shared = Vec::new();
    for (base, values) in priced_keys(folder.path()) {
        let first = keys(&config(&base));
        for (path, value) in values {
            let changed = config(&with(&base, &[(path, value.clone())]));
            if keys(&changed) == first {
                shared.push(format!("{path}: {value}"));
            }
            tried.insert(path);
        }
    }
    assert!(shared.is_empty(), "without a part in prices: {shared:#?}");
    let within = |path: &str, parent: &str| {
        let rest = path.strip_prefix(parent);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let undecided: Vec<_> = run_key_paths()
        .iter()
        .filter(|path| !UNPRICED.iter().any(|parent| within(path, parent)))
        .filter(|path| !tried.contains(path.as_str()))
        .collect();
    assert!(
        undecided.is_empty(),
        "have they a part in prices? {undecided:#?}"
    );
}

#[test]
fn what_has_no_part_in_prices_shares_them() {
    let base = everything();
    let first = keys(&config(&base));
    for (path, value) in [
        ("replicas", json!(4)),
        ("qps", json!(2.0)),
        ("seed", json!(7)),
        ("replication", json!(3)),
        ("time_limit_s", json!(7.0)),
        ("measure", json!("all")),
        ("precision", json!({"ttft_p99_s": "5%"})),
        ("max_requests", json!(1000)),
        ("global_scheduler", json!("lor")),
        ("replica_scheduler", json!({"type": "vllm"})),
        ("memory.margin_fraction", json!(0.2)),
        ("memory.block_size", json!(32)),
        ("network.kv_transfer_bandwidth_gbps", json!(7.0)),
        ("workload.requests", json!(11)),
        // Under another name.
        ("model", json!("deepseek-ai/DeepSeek-V3")),
        ("engine.version", json!("0.24.0")),
    ] {
        let changed = config(&with(&base, &[(path, value)]));
        assert_eq!(keys(&changed), first, "{path}");
    }
    // The same entry from a file of the same content.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.yaml");
    let device = Catalog::builtin().device("h200").expect("known");
    std::fs::write(&file, json!(device).to_string()).expect("written");
    let copied = config(&with(&base, &[("device", json!(file))]));
    assert_eq!(keys(&copied), first);
}

/// Two entries of one name in one process: each has its own prices.
#[test]
fn namesakes_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, entry: Value| {
        let file = folder.path().join(name);
        std::fs::write(&file, entry.to_string()).expect("written");
        json!(file)
    };
    let mut device = json!(Catalog::builtin().device("h100").expect("known"));
    device["name"] = json!("mine");
    let slow = write("slow.yaml", device.clone());
    device["memory_bandwidth_gb_per_s"] = json!(33_500.0);
    let fast = write("fast.yaml", device);
    let mut model = json!(Catalog::builtin().model("llama-3-8b").expect("known"));
    model["name"] = json!("mine");
    let wide = write("wide.yaml", model.clone());
    model["intermediate_size"] = json!(7168);
    let narrow = write("narrow.yaml", model);
    let mut engine = json!(Catalog::builtin().engine("vllm", None).expect("known"));
    let light = write("light.yaml", engine.clone());
    engine["host_overhead_s_per_step"] = json!(0.5);
    let heavy = write("heavy.yaml", engine);
    let mut base = json!(test_config());
    base["backend"] = json!("roofline");
    let resolver = Resolver::default();
    let step_s = |json: &Value| {
        let deployment = resolver.resolve(&config(json)).expect("a deployment");
        let shape = crate::execution_time::StepShape {
            decode_requests: 1,
            decode_context_tokens: 100,
            sampled_tokens: 1,
            ..Default::default()
        };
        let cost = deployment.pools[0].step_cost();
        cost.stage_time(0, &shape).total_s()
    };
    for (key, dear, cheap) in [
        ("device", slow, fast),
        ("model", wide, narrow),
        ("engine", json!({"name": heavy}), json!({"name": light})),
    ] {
        let [dear, cheap] = [dear, cheap].map(|value| with(&base, &[(key, value)]));
        let (dear_s, cheap_s) = (step_s(&dear), step_s(&cheap));
        assert!(dear_s > 1.2 * cheap_s, "{key}: {dear_s} {cheap_s}");
        assert_eq!(step_s(&dear), dear_s, "{key}");
    }
}
