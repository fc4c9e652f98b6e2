//! What is too large is refused before any work, with the same words by every command
//! that would have to do with it.

use std::fs;

use assert_cmd::Command;
use tempfile::TempDir;

const BASE: &str = "\
name: large
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  qps: 1
  workload:
    requests: 10
    lengths: {type: fixed, prefill_tokens: 100, decode_tokens: 10}
    arrivals: poisson
";

fn program(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
    command.current_dir(folder.path()).args(arguments);
    command
}

/// What the program says when it refuses: the same under `validate`, `plan` and `run`,
/// which leaves nothing behind.
fn refused(folder: &TempDir, spec: &str) -> String {
    fs::write(folder.path().join("s.yaml"), spec).expect("a file");
    let said = |arguments: &[&str]| {
        let output = program(folder, arguments)
            .assert()
            .code(2)
            .get_output()
            .clone();
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let validate = said(&["validate", "s.yaml"]);
    assert_eq!(validate, said(&["plan", "s.yaml"]));
    assert_eq!(validate, said(&["run", "s.yaml", "--out", "out"]));
    assert!(!folder.path().join("out").exists());
    validate
}

#[test]
fn sweeps_and_deployments_that_are_too_large() {
    let folder = tempfile::tempdir().expect("a folder");
    let thousand: Vec<String> = (1..=1000).map(|value| value.to_string()).collect();
    let axis = |key: &str| format!("  {key}: [{}]\n", thousand.join(", "));
    let keys = [
        "qps",
        "replicas",
        "gpus_per_node",
        "seed",
        "workload.requests",
    ];
    let grid: String = keys.iter().map(|key| axis(key)).collect();
    let said = refused(
        &folder,
        &format!("{BASE}axes:\n{grid}  tensor_parallel: [1, 2]\n"),
    );
    assert!(
        said.starts_with(
            "error: s.yaml:11:1: key `axes`: the axes span 1000 x 1000 x 1000 x 1000 x 1000 x 2 \
             points, 2000000000000000 runs with 1 replications of each; allowed are at most \
             100000000000 runs; `search: {type: random, samples: N}` draws N"
        ),
        "{said}"
    );
    let many = format!(
        "{BASE}axes:\n{}{}replications: 1000000\n",
        axis("qps"),
        axis("replicas")
    );
    assert!(refused(&folder, &many).contains("1000000000000 runs with 1000000 replications"));
    let beyond = keys
        .iter()
        .chain(&["pipeline_parallel", "memory.block_size"]);
    let beyond: String = beyond.map(|key| axis(key)).collect();
    let beyond = format!("{BASE}axes:\n{beyond}search: {{type: random, samples: 10}}\n");
    assert!(refused(&folder, &beyond).contains("more than can be numbered (2^63)"));
    let samples = format!("{BASE}search: {{type: random, samples: 18446744073709551615}}\n");
    let said = refused(&folder, &samples);
    assert!(
        said.contains("s.yaml:11:33: key `search.samples`: value `18446744073709551615` is not"),
        "{said}"
    );
    assert!(
        said.contains("allowed is a whole number from 1 to 10000000"),
        "{said}"
    );

    let spec = BASE.replace(
        "  qps: 1\n",
        "  qps: 1\n  replicas: 1000000\n  tensor_parallel: 32\n  pipeline_parallel: 32\n",
    );
    let said = refused(&folder, &spec);
    assert!(
        said.contains("1024000000 GPUs in all replicas; allowed are at most 10000000"),
        "{said}"
    );
    // Where an axis leads there, it is a result.
    let axes = format!("{spec}axes: {{replicas: [1, 2], tensor_parallel: [1, 2]}}\n");
    fs::write(folder.path().join("s.yaml"), axes).expect("a file");
    program(&folder, &["validate", "s.yaml"]).assert().success();
}

/// Figures of models, devices and engines, wherever they come from.
#[test]
fn figures_beyond_any_model_or_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file");
    };
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096,
"intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 32,
"num_hidden_layers": 2147483648, "num_key_value_heads": 8, "vocab_size": 128256}"#;
    write("config.json", config);
    let said = refused(&folder, &BASE.replace("llama-3-8b", "config.json"));
    assert!(
        said.contains(
            "config.json:3:22: key `num_hidden_layers`: value `2147483648` is not allowed; \
             allowed: a whole number from 1 to 10000"
        ),
        "{said}"
    );
    let h100 = fs::read_to_string("data/devices/h100.yaml").expect("a device");
    let bandwidth = h100
        .lines()
        .find(|line| line.starts_with("memory_bandwidth_gb_per_s"));
    let faster = h100.replace(
        bandwidth.expect("a bandwidth"),
        "memory_bandwidth_gb_per_s: 1e300",
    );
    write("device.yaml", &faster.replace("name: h100", "name: faster"));
    let said = refused(&folder, &BASE.replace("h100", "device.yaml"));
    assert!(
        said.contains("key `memory_bandwidth_gb_per_s`: value `1e+300` is not allowed"),
        "{said}"
    );
    assert!(
        said.contains("a number from 0.000001 to 1000000000"),
        "{said}"
    );
}

#[test]
fn links_slower_than_any() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = "3 2 1 0 2 H100\n2 \n0 2 2880Gbps 0.000025ms 0\n1 2 2880Gbps 25ns 0\n";
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file");
    };
    write("late", &pair.replace("25ns", "1e32ms"));
    let assert = program(&folder, &["topology", "show", "late"])
        .assert()
        .code(2);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(
        said.contains("late:4:14: latency `1e32ms` is not allowed; allowed is at most 1 s"),
        "{said}"
    );
    write("pair", pair);
    write(
        "q.csv",
        "topology,collective,group_type,tp,bytes,env\n\
         pair,allreduce,tp,2,1048576,AS_SEND_LAT=4294967296\n",
    );
    let arguments = "network price --backend simai_simulation --queries q.csv --topology-dir .";
    let arguments: Vec<&str> = arguments.split(' ').chain(["--out", "o.csv"]).collect();
    let assert = program(&folder, &arguments).assert().code(2);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(
        said.contains(
            "q.csv:2:29: env: AS_SEND_LAT: value `4294967296` is not allowed; allowed is a number \
             from 0 to 1000000"
        ),
        "{said}"
    );
}

/// Nesting, anchors, errors without end: told once, and soon.
#[test]
fn files_made_to_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let deep = format!("{BASE}x:\n {}1\n", "- ".repeat(10_000));
    let said = refused(&folder, &deep);
    let message = "nested too deeply: allowed are 64 mappings and lists inside one another";
    assert!(said.starts_with("error: s.yaml:12:"), "{said}");
    assert!(said.contains(message), "{said}");
    let errors = format!("{BASE}axes:\n  qps: [{}]\n", vec!["-1"; 5_000].join(", "));
    let said = refused(&folder, &errors);
    assert_eq!(said.lines().count(), 101);
    assert!(
        said.ends_with("s.yaml: more errors follow; these are 100 of them\n"),
        "{said}"
    );
    let config = format!(
        "{{\"architectures\": {}{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    fs::write(folder.path().join("config.json"), config).expect("a file");
    let said = refused(&folder, &BASE.replace("llama-3-8b", "config.json"));
    assert!(
        said.contains("config.json:1:") && said.contains(message),
        "{said}"
    );
}
