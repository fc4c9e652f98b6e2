//! One deployment, whoever asks: `explain` prices the steps a run makes, files count by
//! what is in them, and an engine is the same from a file, inline and by name.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use serde_json::{Value, json};
use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::{PrefillChunk, StepShape};
use vidur_sweep::explore::Plan;
use vidur_sweep::simulator::{Recorder, RequestRecord, StageFact, simulate};
use vidur_sweep::spec::keys::{Shape, find_run_key};
use vidur_sweep::spec::{ResolveError, Resolver, RunConfig, load, run_id};
use vidur_sweep::workload::WorkloadSource;

fn program() -> Command {
    Command::cargo_bin("vidur-sweep").expect("the binary builds")
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Steps of a run: their shapes and times over all stages, seconds.
#[derive(Default)]
struct Steps(Vec<(u64, StepShape, f64)>);

impl Recorder for Steps {
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, _record: &RequestRecord) {}
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
    fn stage_started(&mut self, fact: &StageFact<'_>) {
        let time_s = fact.time.total_s();
        match self
            .0
            .iter_mut()
            .find(|(batch, ..)| *batch == fact.batch_id)
        {
            Some((.., total_s)) => *total_s += time_s,
            None => self.0.push((fact.batch_id, fact.shape.clone(), time_s)),
        }
    }
}

impl Steps {
    fn of(config: &RunConfig, resolver: &Resolver) -> Result<Self, ResolveError> {
        let deployment = resolver.resolve(config)?;
        let source = WorkloadSource::default();
        let workload = source.get(&config.workload, 1, 0).expect("a workload");
        let workload = workload.at_rate(None).expect("static arrivals");
        let mut steps = Self::default();
        simulate(&deployment.cluster, &workload, &mut steps);
        Ok(steps)
    }
}

/// The flags that describe a step of equal requests on each of `ranks`, if it is one.
fn step_flags(shape: &StepShape, ranks: u32) -> Option<Vec<String>> {
    let per_rank = |requests: u32| requests.is_multiple_of(ranks).then(|| requests / ranks);
    let flag = |name: &str, value: u64| [format!("--{name}"), value.to_string()];
    let mut flags = Vec::new();
    if let Some(chunk) = shape.prefills.first() {
        let alike = shape.prefills.iter().all(|other| other == chunk);
        let whole = shape.sampled_tokens == shape.prefills.len() as u32;
        if !alike || !whole || shape.decode_requests > 0 {
            return None;
        }
        let requests = per_rank(shape.prefills.len() as u32)?;
        flags.extend(flag("batch-size", requests.into()));
        flags.extend(flag("prefill-tokens", chunk.new_tokens.into()));
        flags.extend(flag("context-tokens", chunk.context_tokens.into()));
    } else {
        let requests = u64::from(shape.decode_requests);
        if !shape.decode_context_tokens.is_multiple_of(requests) {
            return None;
        }
        flags.extend(flag("batch-size", per_rank(shape.decode_requests)?.into()));
        flags.extend(flag(
            "context-tokens",
            shape.decode_context_tokens / requests,
        ));
    }
    Some(flags)
}

/// Operators of a step and their sum, ms.
fn explained(arguments: &[String]) -> (Vec<Value>, f64) {
    let output = program()
        .arg("explain")
        .args(arguments)
        .args(["--format", "json"])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let times = lines
        .iter()
        .map(|line| line["time_ms"].as_f64().expect("a time"));
    let total_ms = times.sum();
    (lines, total_ms)
}

/// Prices the steps of a run as `explain` does; how many could be compared.
fn compare_steps(file: &Path, run: u64, config: &RunConfig) -> usize {
    let resolver = Resolver::default();
    let Ok(deployment) = resolver.resolve(config) else {
        return 0;
    };
    let ranks = (deployment.pools.iter())
        .map(|pool| pool.parallelism.attention_data_parallel)
        .max()
        .expect("a pool");
    let mut config = config.clone();
    config.qps = None;
    config.workload = serde_json::from_value(json!({
        "requests": ranks * config.replicas,
        "lengths": {"type": "fixed", "prefill_tokens": 48, "decode_tokens": 3},
        "arrivals": {"type": "static"},
    }))
    .expect("a workload");
    let steps = Steps::of(&config, &resolver).expect("a deployment");
    let role = |shape: &StepShape| usize::from(shape.prefills.is_empty());
    let mut compared = [0, 0];
    for (_, shape, run_s) in &steps.0 {
        let pool = role(shape).min(deployment.pools.len() - 1);
        let ranks = deployment.pools[pool].parallelism.attention_data_parallel;
        let Some(flags) = step_flags(shape, ranks) else {
            continue;
        };
        if compared[role(shape)] > 0 {
            continue;
        }
        compared[role(shape)] += 1;
        let spec = ["--spec".to_owned(), file.display().to_string()];
        let of_run = ["--run".to_owned(), run.to_string()];
        let (_, explain_ms) = explained(&[&spec[..], &of_run, &flags].concat());
        let error = explain_ms / (run_s * 1e3) - 1.0;
        assert!(
            error.abs() < 2e-3,
            "{} run {run} {flags:?}: explain {explain_ms} ms, run {} ms",
            file.display(),
            run_s * 1e3
        );
    }
    compared.iter().sum()
}

#[test]
fn explain_prices_the_steps_runs_make() {
    let mut sweeps = 0;
    for entry in std::fs::read_dir(manifest("sweeps")).expect("sweeps are shipped") {
        let file = entry.expect("an entry").path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        sweeps += 1;
        let plan = Plan::new(load(&file, &[]).expect("a specification")).expect("a plan");
        let runs = plan.num_runs();
        let mut compared = 0;
        let mut tried = (0..24).map(|nth| nth * (runs - 1) / 23).collect::<Vec<_>>();
        tried.dedup();
        for run in tried {
            let config = plan.config(run).expect("a configuration");
            compared += compare_steps(&file, run, &config);
            if compared >= 6 {
                break;
            }
        }
        assert!(compared > 0, "{}", file.display());
    }
    assert!(sweeps > 5);
}

#[test]
fn flags_describe_what_a_specification_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path().join("s.yaml");
    let engine = "{name: vllm, host_overhead_s_per_step: 0.001, host_overhead_s_per_request: 1e-5}";
    let cases: [(&[&str], &str); 7] = [
        (
            &[
                "deepseek-671B",
                "h200",
                "--tensor-parallel=8",
                "--expert-parallel=8",
            ],
            "tensor_parallel: 8\n  expert_parallel: 8",
        ),
        (
            &["deepseek-671B", "h800", "--expert-parallel=32"],
            "expert_parallel: 32",
        ),
        (&["qwen3-32b-fp8", "h100"], "replicas: 1"),
        (
            &["llama-3-8b", "h100", "--dtype=fp8", "--engine", engine],
            "dtype: fp8\n  engine: {name: vllm, host_overhead_s_per_step: 0.001, host_overhead_s_per_request: 1e-5}",
        ),
        (
            &[
                "llama-3-70b",
                "a100",
                "--tensor-parallel=2",
                "--pipeline-parallel=2",
                "--nvlink-bandwidth-gbps=900",
            ],
            "tensor_parallel: 2\n  pipeline_parallel: 2\n  network: {nvlink_bandwidth_gbps: 900}",
        ),
        (
            &[
                "llama-3-8b",
                "h20",
                "--backend=aicb",
                "--engine",
                "sglang 0.5.10",
            ],
            "backend: aicb\n  engine: {name: sglang, version: 0.5.10}",
        ),
        (
            &[
                "llama-3-8b",
                "l40s",
                "--backend=roofline",
                "--kv-cache-dtype=fp8",
                "--gpus-per-node=4",
                "--tensor-parallel=8",
            ],
            "backend: roofline\n  kv_cache_dtype: fp8\n  gpus_per_node: 4\n  tensor_parallel: 8",
        ),
    ];
    for (flags, keys) in cases {
        let text = format!(
            "name: s\nbase:\n  model: {}\n  device: {}\n  memory_check: warn\n  {keys}\n  workload: {{requests: 1, \
             arrivals: static, lengths: {{type: fixed, prefill_tokens: 8, decode_tokens: 8}}}}\n",
            flags[0], flags[1]
        );
        std::fs::write(&spec, text).expect("written");
        for step in [
            ["--batch-size=4", "--prefill-tokens=300"],
            ["--batch-size=16", "--context-tokens=2000"],
        ] {
            let owned = |words: &[&str]| -> Vec<String> {
                words.iter().map(|word| (*word).to_owned()).collect()
            };
            let plain = [
                owned(&["--model", flags[0], "--device", flags[1]]),
                owned(&flags[2..]),
                owned(&step),
            ];
            let file = spec.display().to_string();
            let of_spec = [owned(&["--spec", &file]), owned(&step)];
            let plain = explained(&plain.concat());
            assert_eq!(plain, explained(&of_spec.concat()), "{flags:?}");
        }
    }
}

/// A configuration with `keys` set.
fn config(keys: Value) -> RunConfig {
    let mut all = json!({
        "model": "llama-3-8b",
        "device": "h100",
        "workload": {
            "requests": 10,
            "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 10},
            "arrivals": {"type": "static"}
        }
    });
    for (key, value) in keys.as_object().expect("a mapping") {
        all[key] = value.clone();
    }
    serde_json::from_value(all).expect("a configuration")
}

fn identity(config: &RunConfig) -> String {
    let mut data = Resolver::default().fingerprints(config);
    let of_workload = WorkloadSource::default().fingerprints(&config.workload);
    data.extend(of_workload.expect("data files"));
    run_id(config, &data)
}

/// Configurations that name a file each, in the place of `FILE`.
fn configurations_with_files() -> Vec<(&'static str, &'static str, Value)> {
    let lengths = |lengths: Value| json!({"requests": 10, "arrivals": {"type": "static"}, "lengths": lengths});
    let device = include_str!("../../data/devices/h100.yaml");
    vec![
        (
            "model.yaml",
            include_str!("../../data/models/llama-3-8b.yaml"),
            json!({"model": "FILE"}),
        ),
        (
            "m/config.json",
            include_str!("../fixtures/own_profiles/mymodel.json"),
            json!({"model": "FILE"}),
        ),
        ("device.yaml", device, json!({"device": "FILE"})),
        (
            "prefill.yaml",
            device,
            json!({"pd_node_ratio": 0.5, "replicas": 2, "prefill": {"device": "FILE"}}),
        ),
        (
            "decode.yaml",
            device,
            json!({"pd_node_ratio": 0.5, "replicas": 2, "decode": {"device": "FILE"}}),
        ),
        (
            "engine.yaml",
            include_str!("../../data/engines/vllm-0.24.0.yaml"),
            json!({"engine": {"name": "FILE"}}),
        ),
        (
            "trace.csv",
            "num_prefill_tokens,num_decode_tokens\n1,2\n3,4\n",
            json!({"workload": lengths(json!({"type": "trace", "file": "FILE"}))}),
        ),
        (
            "arrivals.csv",
            "arrived_at,num_prefill_tokens,num_decode_tokens\n0,1,2\n1,3,4\n",
            json!({"workload": {"requests": 2, "arrivals": {"type": "trace", "file": "FILE"}, "lengths": {"type": "fixed", "prefill_tokens": 1, "decode_tokens": 1}}}),
        ),
        ("topology", "any", json!({"network": {"topology": "FILE"}})),
        (
            "SimAI.conf",
            "any",
            json!({"network": {"simai_conf": "FILE"}}),
        ),
        (
            "SimAI_simulator",
            "any",
            json!({"network": {"simai_binary": "FILE"}}),
        ),
        (
            "predictions.csv",
            "any",
            json!({"backend": "table", "predictions_file": "FILE"}),
        ),
        (
            "times.csv",
            "any",
            json!({"backend": "recorded", "execution_times_file": "FILE"}),
        ),
        (
            "aicb/a.csv",
            "any",
            json!({"backend": "aicb", "aicb_dir": "FOLDER"}),
        ),
        (
            "compute/h100/llama-3-8b/mlp.csv",
            "any",
            json!({"backend": "vidur", "profiling_dir": "FOLDER"}),
        ),
        (
            "own/mlp.csv",
            "any",
            json!({"backend": "linear", "predictor": {"compute_input_file": "FILE"}}),
        ),
    ]
}

#[test]
fn a_run_is_known_by_what_is_in_its_files() {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    for (name, text, keys) in configurations_with_files() {
        let id = |folder: &Path, text: &str| {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
            std::fs::write(&file, text).expect("written");
            // The folder that `FOLDER` stands for is the one all of the path is below,
            // but for the folder of AICB's files, which is theirs alone.
            let below = match name.starts_with("aicb/") {
                true => folder.join("aicb"),
                false => folder.to_path_buf(),
            };
            let keys = keys.to_string();
            let keys = keys.replace("FILE", &file.display().to_string());
            let keys = keys.replace("FOLDER", &below.display().to_string());
            identity(&config(serde_json::from_str(&keys).expect("JSON")))
        };
        let [here, there] = [folders[0].path(), folders[1].path()];
        let first = id(here, text);
        assert_eq!(first, id(there, text), "{name}");
        // Some other content that is still understood.
        let changed = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("yaml") => text
                .replace("sources:\n", "sources:\n  - \"another\"\n")
                .replace("layers: 32", "layers: 16"),
            Some("json") => text.replace("\"num_hidden_layers\": 32", "\"num_hidden_layers\": 16"),
            _ => text.replace("2\n", "7\n").replace("any", "other"),
        };
        assert_ne!(changed, text, "{name}");
        assert_ne!(first, id(there, &changed), "{name}");
    }
}

#[test]
fn a_path_may_be_written_in_any_way() {
    // The tests run in the project's folder.
    for (key, path) in [
        ("model", "data/models/llama-3-8b.yaml"),
        ("device", "data/devices/h100.yaml"),
        ("engine", "data/engines/vllm-0.24.0.yaml"),
        ("trace", "data/traces/azure-conv-2023.csv"),
    ] {
        let id = |path: String| {
            identity(&config(match key {
                "engine" => json!({"engine": {"name": path}}),
                "trace" => json!({"workload": {
                    "requests": 10,
                    "lengths": {"type": "trace", "file": path},
                    "arrivals": {"type": "static"},
                }}),
                key => json!({key: path}),
            }))
        };
        let relative = id(path.to_owned());
        assert_eq!(relative, id(manifest(path).display().to_string()), "{path}");
        assert_eq!(relative, id(format!("./{path}")), "{path}");
    }
}

/// Steps of each kind: decodes, a prompt, and both.
fn kinds_of_steps() -> [StepShape; 3] {
    let prompt = PrefillChunk {
        new_tokens: 64,
        context_tokens: 0,
    };
    let decodes = StepShape {
        decode_requests: 4,
        decode_context_tokens: 400,
        sampled_tokens: 4,
        ..StepShape::default()
    };
    let prompts = StepShape {
        prefills: vec![prompt],
        sampled_tokens: 1,
        ..StepShape::default()
    };
    let mixed = StepShape {
        prefills: vec![prompt],
        sampled_tokens: 5,
        ..decodes.clone()
    };
    [decodes, prompts, mixed]
}

/// What the host takes of a step.
#[derive(Debug)]
struct HostTime {
    requests: f64,
    /// The whole step, seconds.
    step_s: f64,
    /// Its host part, seconds.
    host_s: f64,
    /// The same as the explanation of the step has it, seconds.
    explained_s: f64,
}

fn host_times(config: &RunConfig) -> Vec<HostTime> {
    let deployment = Resolver::default().resolve(config).expect("a deployment");
    let cost = deployment.pools[0].step_cost();
    let of_step = |shape: &StepShape| {
        let time = cost.stage_time(0, shape);
        let rows = cost.explain(shape);
        let host = rows.iter().filter(|row| row.name == "host");
        HostTime {
            requests: f64::from(shape.decode_requests) + shape.prefills.len() as f64,
            step_s: time.total_s(),
            host_s: time.host_s,
            explained_s: host.map(|row| row.time_s).sum(),
        }
    };
    kinds_of_steps().iter().map(of_step).collect()
}

/// Every operator that Vidur's formula may ask for, by its key.
const PREDICTIONS: &str = "op,f0,f1,ms\n\
    attn_pre_proj,8,,0.1\nattn_post_proj,8,,0.1\nattn_rope,8,,0.1\nattn_kv_cache_save,4,,0.1\n\
    attn_decode,4,128,0.1\nattn_prefill,64,4096,0.1\nmlp_up_proj,8,,0.1\nmlp_down_proj,8,,0.1\n\
    mlp_act,8,,0.1\ninput_layernorm,8,,0.1\npost_attention_layernorm,8,,0.1\nadd,8,,0.1\n";

#[test]
fn the_host_of_an_engine_delays_the_steps_of_every_backend() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let times = "nth_batch,replica_id,stage_id,execution_time\n0,0,0,0.5\n";
    let own = manifest("tests/fixtures/own_profiles");
    let profiled = |backend: &str| {
        json!({
            "backend": backend,
            "model": "meta-llama/Llama-2-7b-hf",
            "device": own.join("rtx4090.yaml"),
            "profiling_dir": own.join("prof_save"),
        })
    };
    let cases = [
        json!({"backend": "silicon"}),
        json!({"backend": "aiconfigurator"}),
        json!({"backend": "roofline"}),
        json!({"backend": "aicb", "device": "h20"}),
        json!({
            "backend": "aicb",
            "aicb_dir": manifest("tests/fixtures/aicb/qnext_pd0.5_r4_tp2"),
            "model": "qwen3-next-80B",
            "tensor_parallel": 2,
            "expert_parallel": 4,
        }),
        json!({"backend": "table", "predictions_file": file("ops.csv", PREDICTIONS)}),
        json!({"backend": "recorded", "execution_times_file": file("times.csv", times)}),
        json!({"backend": "formula", "formula": {"step_s": 0.5}}),
        json!({"backend": "simai_analytical"}),
        json!({"backend": "simai_simulation"}),
        profiled("vidur"),
        profiled("linear"),
        profiled("simai_analytical"),
        profiled("simai_simulation"),
    ];
    let Shape::Choice(backends) = find_run_key("backend").expect("a key").shape else {
        panic!("a backend is one of some words");
    };
    for backend in backends {
        let is_tried = |keys: &Value| keys["backend"] == backend.name.as_str();
        assert!(cases.iter().any(is_tried), "{} is not tried", backend.name);
    }
    let inline = json!({"name": "vllm", "host_overhead_s_per_step": 0.25, "host_overhead_s_per_request": 0.03125});
    let mut engine = json!(Catalog::builtin().engine("vllm", None).expect("known"));
    engine["host_overhead_s_per_step"] = json!(0.25);
    engine["host_overhead_s_per_request"] = json!(0.03125);
    let engines = [
        inline,
        engine.clone(),
        json!({"name": file("engine.yaml", &engine.to_string())}),
    ];
    for mut keys in cases {
        keys["engine"] = json!({"name": "vllm"});
        let plain = host_times(&config(keys.clone()));
        let none = |time: &HostTime| (time.host_s, time.explained_s) == (0.0, 0.0);
        assert!(plain.iter().all(none), "{keys}: {plain:?}");
        for engine in &engines {
            keys["engine"] = engine.clone();
            for (time, plain) in host_times(&config(keys.clone())).iter().zip(&plain) {
                let host_s = 0.25 + 0.03125 * time.requests;
                let found = (time.host_s, time.explained_s);
                assert_eq!(found, (host_s, host_s), "{keys}: {time:?}");
                let device_s = time.step_s - host_s;
                assert!((device_s - plain.step_s).abs() < 1e-9, "{keys}: {time:?}");
            }
        }
    }
}

#[test]
fn a_replayed_run_of_experts_over_replicas_is_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let times = folder.path().join("times.csv");
    let mut text = "nth_batch,replica_id,stage_id,execution_time\n".to_owned();
    for (replica, time_s) in [(0, 0.125), (1, 0.25)] {
        for batch in 0..4 {
            text += &format!("{batch},{replica},0,{time_s}\n");
        }
    }
    std::fs::write(&times, text).expect("written");
    let config = config(json!({
        "model": "qwen3-30b-a3b",
        "backend": "recorded",
        "execution_times_file": times,
        "replicas": 2,
        "expert_parallel": 2,
        "expert_group": "pool",
        "workload": {
            "requests": 2,
            "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 3},
            "arrivals": {"type": "static"}
        }
    }));
    let steps = Steps::of(&config, &Resolver::default()).expect("a deployment");
    let mut took: Vec<f64> = steps.0.iter().map(|(.., time_s)| *time_s).collect();
    took.sort_by(f64::total_cmp);
    assert_eq!(took, [0.125, 0.125, 0.125, 0.25, 0.25, 0.25]);
}

#[test]
fn own_profiles_are_found_by_the_names_in_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = manifest("tests/fixtures/own_profiles");
    let out = folder.path().join("out");
    program()
        .current_dir(&cases)
        .args(["run", "s_prof_save.yaml", "--out"])
        .arg(&out)
        .args(["--quiet"])
        .assert()
        .success();
    program()
        .current_dir(&cases)
        .args(["simulate", "--replica_config_device", "./rtx4090.yaml"])
        .args(["--profiling_dir", "prof_save", "--strict-files"])
        .arg("--metrics_config_output_dir")
        .arg(folder.path().join("simulated"))
        .arg("--metrics_config_cache_dir")
        .arg(folder.path().join("cache"))
        .assert()
        .success()
        .stderr(predicate::str::contains("no such file").not());
    // A model of one's own, too.
    let own = folder.path().join("profiles/compute/a100/mymodel");
    std::fs::create_dir_all(&own).expect("a folder");
    for profile in ["mlp.csv", "attention.csv"] {
        let from = cases.join("prof_save/compute/rtx4090/meta-llama/Llama-2-7b-hf");
        std::fs::copy(from.join(profile), own.join(profile)).expect("copied");
    }
    let config = config(json!({
        "model": cases.join("mymodel.json"),
        "device": "a100",
        "backend": "vidur",
        "profiling_dir": folder.path().join("profiles"),
    }));
    let deployment = Resolver::default().resolve(&config);
    assert!(deployment.is_ok(), "{:?}", deployment.err());
}

#[test]
fn engines_of_ones_own_are_read_from_files_and_mappings() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("my engine.yaml");
    let shipped = include_str!("../../data/engines/vllm-0.24.0.yaml");
    std::fs::write(
        &file,
        shipped.replace("batch_size_cap: 1024", "batch_size_cap: 77"),
    )
    .expect("written");
    let shown = |engine: &str| {
        let mut command = program();
        command.args(["catalog", "engines", engine, "--format", "json"]);
        command.assert()
    };
    let file = file.display().to_string();
    for engine in [&*file, "{name: vllm, batch_size_cap: 77}"] {
        shown(engine)
            .success()
            .stdout(predicate::str::contains("\"batch_size_cap\": 77"))
            .stdout(predicate::str::contains("\"block_size\": 16"));
        program()
            .args(["explain", "--model", "llama-3-8b", "--device", "h100"])
            .args(["--engine", engine])
            .assert()
            .success();
    }
    // One rule for memory in the place of another.
    for rule in ["auto", "0.8"] {
        let engine = format!("{{name: vllm, mem_fraction_static: {rule}}}");
        shown(&engine)
            .success()
            .stdout(predicate::str::contains("\"mem_fraction_static\""))
            .stdout(predicate::str::contains("gpu_memory_utilization\"").not());
    }
    // All figures of an engine nobody knows.
    let own = "{name: mine, version: '1', max_tokens_in_batch: 512, batch_size_cap: 8, \
               block_size: 32, gpu_memory_utilization: 0.5, host_overhead_s_per_step: 0, \
               host_overhead_s_per_request: 0}";
    shown(own)
        .success()
        .stdout(predicate::str::contains("mine"));
    for (engine, message) in [
        ("{name: mine, block_size: 32}", "unknown engine `mine`"),
        (
            "{name: mine, block_size: 32}",
            "also needs version, max_tokens_in_batch, batch_size_cap, gpu_memory_utilization",
        ),
        (
            "{block_size: 32}",
            "say which, or what to call yours, with `name`",
        ),
        ("{name: vllm, block_sise: 32}", "did you mean `block_size`"),
        (
            "{name: vllm, gpu_memory_utilization: 2}",
            "greater than 0 and at most 1",
        ),
        (
            "{name: vllm, mem_fraction_static: often}",
            "a number, or one of auto",
        ),
        ("no_such.yaml", "no_such.yaml: cannot read the file"),
        ("vllmm", "did you mean `vllm`"),
    ] {
        program()
            .args(["explain", "--model", "llama-3-8b", "--device", "h100"])
            .args(["--engine", engine])
            .assert()
            .code(2)
            .stderr(predicate::str::contains("--engine: "))
            .stderr(predicate::str::contains(message));
    }
    // In a specification, with its place.
    let spec = folder.path().join("s.yaml");
    let text = "name: s\nbase:\n  model: llama-3-8b\n  device: h100\n  engine: {name: vllm, block_size: 0}\n  \
                workload: {requests: 1, arrivals: static, lengths: {type: fixed, prefill_tokens: 8, decode_tokens: 8}}\n";
    std::fs::write(&spec, text).expect("written");
    program()
        .arg("validate")
        .arg(&spec)
        .assert()
        .code(2)
        .stderr(predicate::str::contains(
            "s.yaml:5:36: key `base.engine.block_size`: value `0` is not allowed",
        ));
}

/// Whatever a file of an engine may say can be said in a specification.
#[test]
fn every_key_of_an_engine_file_is_a_key_of_engine() {
    use vidur_sweep::catalog::EngineSpec;
    use vidur_sweep::spec::keys::find_run_key;
    for key in EngineSpec::keys() {
        let path = format!("engine.{key}");
        assert!(find_run_key(&path).is_ok(), "{path}");
    }
}
