//! Specifications as people write them: what is accepted, what is refused and
//! how that is said, on files under `tests/fixtures/spec` and `sweeps`.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::str::contains;
use serde_json::{Value, json};
use vidur_sweep::simulator::ReplicaScheduler;
use vidur_sweep::spec::{self, Constraint, SweepSpec};
use vidur_sweep::workload::{ArrivalsConfig, LengthsConfig, WorkloadSource};

fn fixture(name: &str) -> PathBuf {
    Path::new("tests/fixtures/spec").join(name)
}

fn load(name: &str, overrides: &[&str]) -> Result<SweepSpec, String> {
    let overrides: Vec<_> = overrides.iter().map(|o| (*o).to_owned()).collect();
    spec::load(&fixture(name), &overrides).map_err(|e| e.to_string())
}

fn assignment(pairs: &[(&str, Value)]) -> Vec<(String, Value)> {
    let own = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
    pairs.iter().map(own).collect()
}

#[test]
fn everything_wrong_is_reported_at_once_with_its_place() {
    let message = load("wrong.yaml", &[]).unwrap_err();
    let lines: Vec<_> = message.lines().collect();
    let expected = [
        (":1:7", "key `name`: value `not a name` is not allowed"),
        (":5:3", "unknown key `tensor_paralel` in `base`"),
        (
            ":6:18",
            "key `base.pd_node_ratio`: value `0` is not allowed; allowed is a number greater than 0 and at most 1",
        ),
        (
            ":7:12",
            "key `base.backend`: value `silicone` is not allowed; allowed is one of silicon, aiconfigurator, roofline, aicb, vidur, linear, table, recorded, formula, simai_analytical, simai_simulation; did you mean `silicon`?",
        ),
        (
            ":8:33",
            "key `base.engine.version`: value `0.24` is not allowed; allowed is text: write it in quotes",
        ),
        (
            ":9:38",
            "unknown key `chunk_sise` in `base.replica_scheduler`; allowed: type, chunk_size, batch_size_cap, watermark_blocks_fraction; did you mean `chunk_size`?",
        ),
        (
            ":11:15",
            "key `base.workload.requests`: value `-5` is not allowed; allowed is a whole number from 1 to 100000000",
        ),
        (
            ":12:14",
            "missing key `decode_tokens` in `base.workload.lengths`",
        ),
        (
            ":13:35",
            "unknown key `client` in `base.workload.arrivals`; allowed: type, clients; did you mean `clients`?",
        ),
        (
            ":15:24",
            "key `axes.tensor_parallel[1]`: value `0` is not allowed; allowed is a whole number from 1 to 1024",
        ),
        (
            ":15:27",
            "key `axes.tensor_parallel[2]`: value `2.5` is not allowed",
        ),
        (
            ":15:32",
            "key `axes.tensor_parallel[3]`: value `two` is not allowed",
        ),
        (
            ":18:20",
            "key `axes.workload.arrivals.clients`: value `4` appears twice",
        ),
        (
            ":19:5",
            "unknown key `request` in `axes.workload`; allowed: requests, lengths, arrivals; did you mean `requests`?",
        ),
        (
            ":20:22",
            "key `axes.pipeline_parallel`: value `2` is not allowed; allowed is a list of values to try, each a whole number from 1 to 1024",
        ),
        (":21:8", "key `axes.qps`: an axis needs at least one value"),
        (
            ":23:5",
            "constraint `total_gpu <= 64`: at character 1: unknown name `total_gpu`",
        ),
        (
            ":24:5",
            "constraint `tensor_parallel = 2`: at character 17: unexpected `=`; equality is `==`",
        ),
        (":25:7", "unknown target `ttft_p91_s`"),
        (
            ":25:35",
            "key `slo.tbt_p99_s`: value `-1` is not allowed; allowed is a number of seconds greater than 0",
        ),
        (":26:25", "unknown objective `throughput`"),
        (":26:61", "objective `ttft_p90_s` appears twice"),
        (":27:15", "key `replications`: value `0` is not allowed"),
        (":28:1", "unknown key `outputs`"),
    ];
    for (at, (place, part)) in expected.iter().enumerate() {
        let line = lines.get(at).unwrap_or(&"");
        let start = format!("tests/fixtures/spec/wrong.yaml{place}: {part}");
        assert!(
            line.starts_with(&start),
            "{at}: expected {start}\nfound {line}\nin\n{message}"
        );
    }
    assert_eq!(lines.len(), expected.len(), "{message}");
    assert!(
        lines[1].ends_with("did you mean `tensor_parallel`?"),
        "{}",
        lines[1]
    );
    assert!(
        lines[22 - 4].contains("did you mean `ttft_p"),
        "{}",
        lines[18]
    );
}

#[test]
fn shorthands_nested_axes_and_defaults_become_one_form() {
    let spec = load("full.yaml", &[]).unwrap();
    assert_eq!(
        (spec.seed, spec.replications, spec.configurations()),
        (7, 2, 16)
    );
    let axes: Vec<_> = spec.axis_values().collect();
    assert_eq!(axes[1].0, "replica_scheduler");
    assert_eq!(axes[1].1[1], json!({"type": "vllm"}));
    assert_eq!(
        axes[3],
        (
            "workload.lengths.max_tokens",
            &[json!(2048), Value::Null][..]
        )
    );
    let config = spec.config_at(&[]).unwrap();
    assert_eq!(config.engine.name.as_deref(), Some("vllm"));
    assert_eq!((config.seed, config.qps), (7, Some(4.0)));
    assert_eq!(config.workload.arrivals, ArrivalsConfig::Poisson);
}

#[test]
fn assigned_mappings_replace_and_keys_within_them_follow() {
    let spec = load("full.yaml", &[]).unwrap();
    let config = spec
        .config_at(&assignment(&[
            ("replica_scheduler.batch_size_cap", json!(64)),
            ("workload.lengths.max_tokens", json!(100)),
            ("replica_scheduler", json!({"type": "vllm"})),
        ]))
        .unwrap();
    let Some(ReplicaScheduler::Vllm { batch_size_cap, .. }) = config.replica_scheduler else {
        panic!("{:?}", config.replica_scheduler);
    };
    assert_eq!(batch_size_cap, 64);
    let LengthsConfig::Trace { max_tokens, .. } = config.workload.lengths else {
        panic!("{:?}", config.workload.lengths);
    };
    assert_eq!(max_tokens, Some(100));
    // A default the base leaves out is the starting point of keys within it.
    let memory = spec.config_at(&assignment(&[("memory.block_size", json!(32))]));
    assert_eq!(memory.unwrap().memory.block_size, Some(32));
    let error = spec
        .config_at(&assignment(&[("workload.arrivals.clients", json!(8))]))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tests/fixtures/spec/full.yaml: key `workload.arrivals.clients` is for \
         `workload.arrivals` of type concurrency, not poisson (with workload.arrivals.clients=8)"
    );
}

#[test]
fn overrides_come_before_the_checks_and_are_named_in_them() {
    let overrides = [
        "seed=9",
        "tensor_parallel=4",
        "base.workload.requests=50",
        "axes.qps=[1, 2.5]",
        "slo.ttft_p90_s=1",
        "replica_scheduler.chunk_size=128",
    ];
    let spec = load("full.yaml", &overrides).unwrap();
    let axes: Vec<_> = spec.axis_values().map(|(key, _)| key).collect();
    assert!(!axes.contains(&"tensor_parallel"), "pinned: {axes:?}");
    let config = spec.config_at(&[]).unwrap();
    assert_eq!((config.tensor_parallel, config.seed), (4, 9));
    assert_eq!(config.workload.requests, Some(50));
    let Some(ReplicaScheduler::Sarathi { chunk_size, .. }) = config.replica_scheduler else {
        panic!("{:?}", config.replica_scheduler);
    };
    assert_eq!(chunk_size, 128);

    let message = load("full.yaml", &["tensor_parallel=0"]).unwrap_err();
    assert_eq!(
        message,
        "--set tensor_parallel=0: key `base.tensor_parallel`: value `0` is not allowed; \
         allowed is a whole number from 1 to 1024"
    );
    let message = load("full.yaml", &["tensor_paralel=2", "base"]).unwrap_err();
    assert!(
        message.contains("did you mean `tensor_parallel`?"),
        "{message}"
    );
    assert!(message.contains("--set base: an override is"), "{message}");
}

#[test]
fn values_that_contradict_each_other_are_found_without_running() {
    let message = load("full.yaml", &["qps=null"]).unwrap_err();
    assert!(
        message.contains("random arrivals (`poisson`, `gamma`) need a rate"),
        "{message}"
    );
    let arrivals = "axes.workload.arrivals=[poisson, {type: gamma, cv: 2}, {type: gamma}]";
    let message = load("full.yaml", &[arrivals]).unwrap_err();
    assert!(
        message.contains("missing key `cv` in `axes.workload.arrivals[2]`"),
        "{message}"
    );
    let uniform = "workload.lengths={type: uniform, min_tokens: 20, max_tokens: 10, prefill_to_decode_ratio: 2}";
    let message = load("list.yaml", &[uniform]).unwrap_err();
    assert!(message.contains("points.csv:3:1:"), "{message}");
    assert!(
        message.contains("is for `workload.lengths` of type fixed"),
        "{message}"
    );
    // What another section brings is not missing.
    load(
        "full.yaml",
        &[
            "axes.model=[llama-3-8b, llama-3-70b]",
            "axes.workload.arrivals=[static]",
        ],
    )
    .unwrap();
}

/// A specification whose workload has a key in each line, lines 5 to 14.
fn with_workload(dir: &Path, lengths: &str, arrivals: &str, requests: &str) -> PathBuf {
    let text = format!(
        "name: w\nbase:\n  model: llama-3-8b\n  device: h100\n  workload:\n    requests: {requests}\n    \
         lengths:\n      {}\n    arrivals:\n      {}\n",
        lengths.replace(", ", "\n      "),
        arrivals.replace(", ", "\n      "),
    );
    let file = dir.join("sweep.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn what_is_wrong_with_a_workload_is_told_at_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let trace = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,10,5\n0,20,5\n";
    std::fs::write(dir.path().join("burst.csv"), trace).unwrap();
    let fixed = "type: fixed, prefill_tokens: 10, decode_tokens: 5";
    let burst = "type: trace, file: burst.csv";
    let cases = [
        (
            "type: uniform, min_tokens: 9, max_tokens: 4, prefill_to_decode_ratio: 1",
            "type: static",
            "",
            ":9:19: key `workload.lengths.min_tokens`: value `9`",
        ),
        (
            "type: fixed, prefill_tokens: 16777215, decode_tokens: 16777215",
            "type: static",
            "",
            ":9:23: key `workload.lengths.prefill_tokens`: a request of",
        ),
        (
            fixed,
            "type: trace, file: burst.csv, start_time: noon",
            "",
            ":14:19: key `workload.arrivals.start_time`: value `noon` is neither",
        ),
        (
            fixed,
            "type: trace, file: burst.csv, end_time: '-5'",
            "",
            ":14:17: key `workload.arrivals.end_time`: ",
        ),
        (
            fixed,
            "type: trace, file: burst.csv, time_scale_factor: 2",
            "qps=3",
            ":14:26: key `workload.arrivals.time_scale_factor`: value `2` sets the rate",
        ),
        (
            fixed,
            burst,
            "workload.requests=3",
            "--set workload.requests=3: key `workload.requests`: ",
        ),
        (
            fixed,
            burst,
            "qps=3",
            "--set qps=3: key `qps`: all 2 requests",
        ),
        (
            fixed,
            "type: poisson",
            "qps=1e-12",
            "--set qps=1e-12: key `qps`: value `1e-12` makes",
        ),
        (
            fixed,
            "type: trace, file: dated.csv, time_unit: s",
            "",
            ":14:18: key `workload.arrivals.time_unit`: ",
        ),
        (
            "type: histogram, file: burst.csv",
            "type: static",
            "",
            ":8:13: key `workload.lengths.type`: ",
        ),
        (
            fixed,
            "type: trace, file: data/traces/azure-conv-2023.csv",
            "",
            ":13:13: key `workload.arrivals.file`: ",
        ),
        (
            "type: trace, file: nowhere.csv",
            "type: static",
            "",
            ":9:13: key `workload.lengths.file`: ",
        ),
    ];
    let dated = "arrival_time\n1970-01-04 12:00:01\n1970-01-04 12:00:02\n";
    std::fs::write(dir.path().join("dated.csv"), dated).unwrap();
    for (lengths, arrivals, set, expected) in cases {
        let file = with_workload(dir.path(), lengths, arrivals, "2");
        let overrides: Vec<_> = (!set.is_empty())
            .then(|| set.to_owned())
            .into_iter()
            .collect();
        let message = spec::load(&file, &overrides).unwrap_err().to_string();
        let expected = match expected.starts_with(':') {
            true => format!("{}{expected}", file.display()),
            false => expected.to_owned(),
        };
        assert!(message.starts_with(&expected), "{expected}\n{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn what_is_wrong_in_an_axis_or_a_list_is_told_there() {
    let dir = tempfile::tempdir().unwrap();
    let fixed = "type: fixed, prefill_tokens: 10, decode_tokens: 5";
    let file = with_workload(dir.path(), fixed, "type: static", "2");
    let text = std::fs::read_to_string(&file).unwrap();
    let told = |more: &str| {
        let text = format!("{text}{more}\n");
        let errors = spec::load_str(&text, &file, &[]).unwrap_err();
        let message = errors.to_string();
        let (_, rest) = message.split_once("sweep.yaml:").expect("its file");
        rest.to_owned()
    };
    let uniform = |min: u32| {
        format!("{{type: uniform, min_tokens: {min}, max_tokens: 9, prefill_to_decode_ratio: 1}}")
    };
    let axis = format!(
        "axes:\n  workload.lengths:\n    - {}\n    - {}",
        uniform(3),
        uniform(10)
    );
    assert!(
        told(&axis).starts_with("16:35: key `workload.lengths.min_tokens`: value `10`"),
        "{}",
        told(&axis)
    );
    let axis = "axes:\n  workload.lengths.prefill_tokens: [10, 16777215]";
    let axis = axis.to_owned() + "\n  workload.lengths.decode_tokens: [5, 9]";
    assert!(
        told(&axis).starts_with("14:41: key `workload.lengths.prefill_tokens`: a request"),
        "{}",
        told(&axis)
    );

    let rows = "qps,workload.lengths.prefill_tokens\n1,10\n1e-12,20\n";
    std::fs::write(dir.path().join("rows.csv"), rows).unwrap();
    let text = text.clone() + "search: {type: list, file: rows.csv}\n";
    let errors = spec::load_str(&text, &file, &[]).unwrap_err().to_string();
    assert!(
        errors.contains("rows.csv:3:1: key `qps`: value `1e-12`"),
        "{errors}"
    );
    let rows = "qps,workload.lengths.prefill_tokens\n1,10\n1,16777215\n";
    std::fs::write(dir.path().join("rows.csv"), rows).unwrap();
    let text = text.replace("decode_tokens: 5", "decode_tokens: 50");
    let errors = spec::load_str(&text, &file, &[]).unwrap_err().to_string();
    assert!(
        errors.contains("rows.csv:3:3: key `workload.lengths.prefill_tokens`: a request"),
        "{errors}"
    );
}

#[test]
fn a_topology_that_is_not_there_is_told_at_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let fixed = "type: fixed, prefill_tokens: 10, decode_tokens: 5";
    let file = with_workload(dir.path(), fixed, "type: static", "2");
    let text = std::fs::read_to_string(&file).unwrap() + "  network:\n    topology: nowhere.txt\n";
    let message = spec::load_str(&text, &file, &[]).unwrap_err().to_string();
    assert!(
        message.contains("sweep.yaml:14:15: key `network.topology`: nowhere.txt: "),
        "{message}"
    );
    assert!(!message.contains(":1:1"), "{message}");
}

#[test]
fn what_only_shows_beside_the_model_or_the_topology_is_told_at_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let fixed = "type: fixed, prefill_tokens: 10, decode_tokens: 5";
    let file = with_workload(dir.path(), fixed, "type: static", "2");
    let topology = dir.path().join("servers");
    let made = Command::cargo_bin("vidur-sweep")
        .unwrap()
        .args([
            "topology",
            "generate",
            "spectrum-x",
            "--gpus",
            "16",
            "--out",
        ])
        .arg(&topology)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let told = |more: &str| {
        let text = text.replace("llama-3-8b", "qwen3-30b-a3b") + more;
        let errors = spec::load_str(&text, &file, &[]).unwrap_err();
        let message = errors.to_string();
        let (_, rest) = message.split_once("sweep.yaml:").expect("its file");
        rest.to_owned()
    };
    let topology = format!("  network: {{topology: {}}}\n", topology.display());
    let message = told(&(topology.clone() + "  gpus_per_node: 4\n"));
    assert!(
        message.starts_with("14:18: key `gpus_per_node`: value `4`"),
        "{message}"
    );
    let message = told("  moe: {load: {type: histogram, tokens: [1, 2]}}\n");
    assert!(
        message.starts_with("13:41: key `moe.load.tokens`: 2 numbers"),
        "{message}"
    );
    let message = told("  network: {simai_binary: /bin/true}\n");
    assert!(
        message.starts_with("13:27: key `network.simai_binary`: is for backend"),
        "{message}"
    );
}

#[test]
fn names_the_catalog_lacks_are_found_where_they_stand() {
    let message = load("full.yaml", &["axes.model=[llama-3-8b, lama-3-70b]"]).unwrap_err();
    assert!(message.starts_with("--set axes.model"), "{message}");
    assert!(
        message.contains("`lama-3-70b`") && message.contains("did you mean"),
        "{message}"
    );
    let text = std::fs::read_to_string(fixture("full.yaml")).unwrap();
    let text = text
        .replace("h100", "h1000")
        .replace("engine: vllm", "engine: {name: vllm, version: '9'}");
    let message = spec::load_str(&text, Path::new("s.yaml"), &[])
        .unwrap_err()
        .to_string();
    assert!(message.contains("s.yaml:6:11: key `device`"), "{message}");
    assert!(message.contains("s.yaml:8:11: key `engine`"), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
}

#[test]
fn missing_and_malformed_data_files_are_bad_input() {
    let message = load(
        "full.yaml",
        &["workload.lengths.file=data/traces/azure-conf-2023.csv"],
    );
    let message = message.unwrap_err();
    assert!(message.contains("no such file"), "{message}");
    assert!(
        message.contains("did you mean `data/traces/azure-conv-2023.csv`?"),
        "{message}"
    );

    let dir = tempfile::tempdir().unwrap();
    let trace = "arrived_at,num_prefill_tokens,num_decode_tokens\n0,10,x\n";
    std::fs::write(dir.path().join("bad.csv"), trace).unwrap();
    let text = std::fs::read_to_string(fixture("full.yaml")).unwrap();
    let text = text.replace("data/traces/azure-conv-2023.csv", "bad.csv");
    let file = dir.path().join("sweep.yaml");
    std::fs::write(&file, text).unwrap();
    let message = spec::load(&file, &[]).unwrap_err().to_string();
    assert!(
        message.contains("bad.csv:2:6: column `num_decode_tokens` is `x`"),
        "{message}"
    );

    let message = load("list.yaml", &["search.file=nowhere.csv"]).unwrap_err();
    assert!(
        message.contains("key `search.file`: nowhere.csv: no such file"),
        "{message}"
    );
}

#[test]
fn lists_bring_their_own_configurations() {
    let spec = load("list.yaml", &[]).unwrap();
    let points = spec.points.as_ref().unwrap();
    assert_eq!(spec.configurations(), 2);
    assert_eq!(points.labels(1), ["large"]);
    let small = spec.config_at(&points.assignment(0)).unwrap();
    assert_eq!(
        small.workload.arrivals,
        ArrivalsConfig::Concurrency { clients: 1 }
    );
    let large = spec.config_at(&points.assignment(1)).unwrap();
    assert_eq!(
        large.workload.arrivals,
        ArrivalsConfig::Concurrency { clients: 32 }
    );
    assert_eq!(large.tensor_parallel, 4);
    let message = load("list.yaml", &["axes.tensor_parallel=[1]"]).unwrap_err();
    assert!(message.contains("exclude each other"), "{message}");
}

#[test]
fn what_is_not_yaml_or_not_a_mapping_is_said() {
    let message = |text| {
        spec::load_str(text, Path::new("s.yaml"), &[])
            .unwrap_err()
            .to_string()
    };
    assert!(
        message("name: [a\n").starts_with("s.yaml:"),
        "{}",
        message("name: [a\n")
    );
    assert!(message("- 1").contains("a specification is a mapping"));
    assert!(message("name: x").contains("missing key `base`"));
    let message = message("name: x\nbase: {}\n");
    for key in ["model", "device", "workload"] {
        assert!(
            message.contains(&format!("missing key `{key}` in `base`")),
            "{message}"
        );
    }
    let missing = spec::load(Path::new("no.yaml"), &[])
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no.yaml: cannot read"), "{missing}");
}

#[test]
fn a_loaded_specification_survives_being_written_out() {
    let spec = load("full.yaml", &[]).unwrap();
    let text = serde_json::to_string_pretty(&spec).unwrap();
    let file = spec.file.clone().unwrap();
    assert_eq!(spec::load_str(&text, &file, &[]), Ok(spec));
}

#[test]
fn every_sweep_we_ship_is_valid_and_draws_its_requests() {
    let mut files: Vec<_> = std::fs::read_dir("sweeps")
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let spec = spec::load(&file, &[]).unwrap_or_else(|e| panic!("{e}"));
        let first: Vec<_> = spec
            .axis_values()
            .map(|(key, values)| (key.to_owned(), values[0].clone()))
            .collect();
        let first = match &spec.points {
            Some(points) => points.assignment(0),
            None => first,
        };
        let config = spec.config_at(&first).unwrap();
        let source = WorkloadSource::new(spec.data_files());
        let workload = source.get(&config.workload, config.seed, 0).unwrap();
        let workload = workload.at_rate(config.qps).unwrap();
        let drawn = workload.requests.len() as u32;
        assert!(config.workload.requests.is_none_or(|asked| asked == drawn));
        let of_file = matches!(config.workload.lengths, LengthsConfig::Trace { .. });
        let data = source.fingerprints(&config.workload).unwrap();
        assert_eq!(data.len(), usize::from(of_file));
    }
}

/// The figure its comments give; hundreds of runs, and not thousands.
#[test]
fn the_deepseek_sweep_has_the_size_it_says() {
    let spec = spec::load(Path::new("sweeps/deepseek.yaml"), &[]).unwrap();
    let constraints: Vec<_> = spec
        .constraints
        .iter()
        .map(|c| Constraint::parse(c).unwrap())
        .collect();
    let axes: Vec<_> = spec.axis_values().collect();
    let within = (0..spec.configurations()).filter(|&index| {
        let mut rest = index as usize;
        let pick = |(key, values): &(&str, &[Value])| {
            let value = values[rest % values.len()].clone();
            rest /= values.len();
            ((*key).to_owned(), value)
        };
        let point: Vec<_> = axes.iter().map(pick).collect();
        let config = spec.config_at(&point).unwrap();
        constraints.iter().all(|c| c.holds(&config).unwrap())
    });
    assert_eq!(within.count(), 720);
}

/// `UPDATE_DOCS=1 cargo test --test integration spec::` rewrites the tables.
#[test]
fn the_documentation_has_every_key() {
    let (start, end) = ("<!-- generated: keys -->\n", "<!-- end generated -->");
    let docs = std::fs::read_to_string("docs/spec.md").unwrap();
    let from = docs.find(start).expect("start mark") + start.len();
    let to = docs.find(end).expect("end mark");
    let reference = format!("\n{}\n", spec::reference());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = format!("{}{reference}{}", &docs[..from], &docs[to..]);
        std::fs::write("docs/spec.md", updated).unwrap();
    } else {
        assert_eq!(&docs[from..to], reference, "run with UPDATE_DOCS=1");
    }
    for path in spec::keys::run_key_paths() {
        // What pools override is described once.
        let path = path
            .trim_start_matches("prefill.")
            .trim_start_matches("decode.");
        assert!(reference.contains(&format!("| `{path}` |")), "{path}");
    }
}

#[test]
fn validate_prints_the_size_or_all_errors() {
    let mut command = Command::cargo_bin("vidur-sweep").unwrap();
    command.arg("validate").arg(fixture("full.yaml"));
    command.assert().success().stdout(
        "ok: 16 configurations x 2 replications, axes tensor_parallel (2) x replica_scheduler (2) \
         x replica_scheduler.batch_size_cap (2) x workload.lengths.max_tokens (2); \
         before 2 constraints\n",
    );
    let mut command = Command::cargo_bin("vidur-sweep").unwrap();
    command.arg("validate").arg(fixture("wrong.yaml"));
    command
        .assert()
        .code(2)
        .stderr(contains("wrong.yaml:5:3: unknown key `tensor_paralel`"));
    let mut command = Command::cargo_bin("vidur-sweep").unwrap();
    command
        .arg("validate")
        .arg(fixture("full.yaml"))
        .args(["--set", "qps=-1"]);
    command
        .assert()
        .code(2)
        .stderr(contains("--set qps=-1: key `base.qps`"));
}

#[test]
fn schema_prints_json() {
    let mut command = Command::cargo_bin("vidur-sweep").unwrap();
    let output = command
        .arg("schema")
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let schema: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(schema["title"], "vidur-sweep specification");
}

/// What no configuration of a sweep can do is an error of its text; where an axis
/// has a part in it, it is a result.
#[test]
fn what_can_never_exist_is_an_error_with_its_place() {
    let check = |base: &str, axes: &str| {
        let text = format!(
            "name: x\nbase:\n  model: meta-llama/Meta-Llama-3-8B\n  qps: 1\n{base}\n  workload:\n    \
             lengths: {{type: fixed, prefill_tokens: 5, decode_tokens: 5}}\n    arrivals: poisson\n\
             axes: {{{axes}}}\n"
        );
        let file = std::path::Path::new("x.yaml");
        vidur_sweep::spec::load_str(&text, file, &[]).map_err(|errors| errors.to_string())
    };
    let message = check("  device: h20", "replicas: [1, 2]").unwrap_err();
    assert_eq!(
        message,
        "x.yaml:5:11: key `device`: value `h20` has no measured operators for backend silicon; \
         allowed are a100, b200, h100, h200; backend roofline prices every device"
    );
    assert!(check("  device: h20\n  backend: roofline", "replicas: [1, 2]").is_ok());
    assert!(check("  device: h800", "replicas: [1, 2]").is_ok());
    assert!(check("  device: h20", "backend: [silicon, roofline]").is_ok());
    let message = check("  device: h100\n  tensor_parallel: 3", "replicas: [1, 2]").unwrap_err();
    assert!(
        message.starts_with(
            "x.yaml:6:20: no configuration can exist: tensor_parallel 3 does not divide 32"
        ),
        "{message}"
    );
    assert!(check("  device: h100", "tensor_parallel: [1, 3]").is_ok());
}

#[test]
fn what_a_specification_or_a_topology_holds_is_told_in_every_format() {
    let said = |arguments: &[&str]| {
        let output = Command::cargo_bin("vidur-sweep")
            .unwrap()
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let spec = "tests/fixtures/spec/full.yaml";
    let table = said(&["validate", spec, "--format", "table"]);
    assert_eq!(table, said(&["validate", spec]));
    let json: Value = serde_json::from_str(&said(&["validate", spec, "--format", "json"])).unwrap();
    let configurations = json["configurations"].as_u64().unwrap();
    assert!(
        table.starts_with(&format!("ok: {configurations} configurations")),
        "{table}"
    );
    let csv = said(&["validate", spec, "--format", "csv"]);
    assert!(csv.starts_with("what,name,count\n"), "{csv}");
    assert!(
        csv.contains(&format!("count,configurations,{configurations}\n")),
        "{csv}"
    );
    let axes = json["axes"].as_array().unwrap();
    assert!(!axes.is_empty());
    for axis in axes {
        let (name, values) = (axis["name"].as_str().unwrap(), &axis["values"]);
        assert!(csv.contains(&format!("axis,{name},{values}\n")), "{csv}");
        assert!(table.contains(&format!("{name} ({values})")), "{table}");
    }

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("topology");
    let file = file.to_str().unwrap();
    said(&[
        "topology",
        "generate",
        "spectrum-x",
        "--gpus",
        "16",
        "--out",
        file,
    ]);
    assert!(said(&["topology", "show", file]).starts_with("16 H100 GPUs in servers of 8"));
    let json = said(&["topology", "show", file, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["gpus"], &json["gpus_per_server"]),
        (&json!(16), &json!(8))
    );
    let csv = said(&["topology", "show", file, "--format", "csv"]);
    assert!(csv.contains("count,gpus,,16\n"), "{csv}");
    for links in json["links"].as_array().unwrap() {
        let row = format!(
            "links,{},{},{}\n",
            links["between"].as_str().unwrap(),
            links["bandwidth_gbps"],
            links["links"]
        );
        assert!(csv.contains(&row), "{row}{csv}");
    }
}
