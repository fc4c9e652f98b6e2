//! `vidur-sweep catalog` as a person or script uses it.

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, starts_with};
use serde_json::Value;

fn catalog(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vidur-sweep").expect("binary");
    command.arg("catalog").args(args);
    command
}

fn json(args: &[&str]) -> Value {
    let output = catalog(args).args(["--format", "json"]).assert().success();
    serde_json::from_slice(&output.get_output().stdout).expect("JSON")
}

#[test]
fn lists_name_everything_that_specs_may_name() {
    for (kind, expected) in [
        (
            "models",
            ["deepseek-671B", "qwen3-moe-235B", "microsoft/phi-2"],
        ),
        ("devices", ["a40", "h800", "gb200"]),
        ("engines", ["vllm", "sglang", "trtllm"]),
        ("backends", ["silicon", "roofline", "Measured"]),
        ("schedulers", ["round_robin", "sarathi", "chunk_size=512"]),
    ] {
        for word in expected {
            catalog(&[kind]).assert().success().stdout(contains(word));
        }
    }
}

#[test]
fn every_device_states_its_sources() {
    let devices = json(&["devices"]);
    let devices = devices.as_array().expect("list");
    assert_eq!(devices.len(), 9);
    for device in devices {
        let sources = device["sources"].as_array().expect("sources");
        let about = |word: &str| {
            sources
                .iter()
                .any(|s| s.as_str().is_some_and(|s| s.contains(word)))
        };
        assert!(about("Price"), "{}", device["name"]);
        assert!(about("NIC") || about("nic"), "{}", device["name"]);
    }
}

#[test]
fn details_carry_counts_and_sources() {
    let model = json(&["models", "DEEPSEEK-AI/deepseek-r1"]);
    assert_eq!(model["name"], "deepseek-671B");
    assert_eq!(model["kv_bytes_per_token"], 70272.0);
    let total = model["parameters"]["total"].as_f64().expect("number");
    assert!((total / 671e9 - 1.0).abs() < 1e-3);
    let device = json(&["devices", "h800_sxm"]);
    assert_eq!(device["kernels_of"], "h100");
    assert_eq!(device["nvlink_bandwidth_gbps"], 1600.0);
}

#[test]
fn csv_has_one_line_per_entry() {
    let output = catalog(&["schedulers", "--format", "csv"])
        .assert()
        .success();
    let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("level,name,description,settings"));
    let names: Vec<_> = lines
        .map(|line| line.split(',').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    for name in [
        "global round_robin",
        "global random",
        "global lor",
        "global split_wise",
        "replica sarathi",
        "replica vllm",
        "replica split_wise",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
}

#[test]
fn unknown_names_end_with_code_2_and_a_hint() {
    for (args, hint) in [
        (["models", "deepsek-671B"], "did you mean `deepseek-671B`?"),
        (["devices", "h20O"], "did you mean `h20`?"),
        (["engines", "vlllm"], "did you mean `vllm`?"),
        (["schedulers", "sarathy"], "did you mean `sarathi`?"),
        (["backends", "rofline"], "did you mean `roofline`?"),
        (
            ["models", "no-such.yaml"],
            "no-such.yaml: cannot read the file",
        ),
    ] {
        catalog(&args)
            .assert()
            .code(2)
            .stderr(starts_with("error: ").and(contains(hint)));
    }
}

#[test]
fn own_model_files_can_be_checked() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("config.json");
    std::fs::write(
        &path,
        r#"{"architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "hidden_size": 4096,
            "intermediate_size": 12288, "max_position_embeddings": 40960,
            "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 151936}"#,
    )
    .expect("write");
    // Qwen3-8B: 8.19 B parameters on its model page.
    let name = folder.path().to_str().expect("UTF-8");
    let model = json(&["models", name]);
    let total = model["parameters"]["total"].as_f64().expect("number");
    assert!((total / 8.19e9 - 1.0).abs() < 0.01, "{total}");
}

#[test]
fn traces_show_their_attribution() {
    let folder = tempfile::tempdir().expect("folder");
    catalog(&["traces"])
        .current_dir(&folder)
        .assert()
        .success()
        .stdout(contains("built in"));
    let traces = folder.path().join("data/traces");
    std::fs::create_dir_all(&traces).expect("create");
    let text = "# Lengths of a service.\n# Source: somebody, CC-BY 4.0.\na,b\n1,2\n3,4\n";
    std::fs::write(traces.join("service.csv"), text).expect("write");
    catalog(&["traces"])
        .current_dir(&folder)
        .assert()
        .success()
        .stdout(contains("Lengths of a service."));
    catalog(&["traces", "service"])
        .current_dir(&folder)
        .assert()
        .success()
        .stdout(contains("somebody, CC-BY 4.0.").and(contains("a,b")));
}

#[test]
fn help_has_examples() {
    catalog(&["--help"]).assert().success().stdout(contains(
        "vidur-sweep catalog models deepseek-ai/DeepSeek-R1",
    ));
}
