//! What a person sees: tables that fit, completions, manual pages, and the assumptions
//! that stand with an answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// Pools of which either is named like the whole, and an engine whose key ends like
/// others do; on a GPU without measured operators or a published price.
const SPEC: &str = "\
name: pools
base:
  model: llama-3-8b
  device: h20
  backend: roofline
  workload:
    requests: 40
    lengths: {type: fixed, prefill_tokens: 300, decode_tokens: 30}
    arrivals: poisson
axes:
  replicas: [2, 3]
  prefill.replicas: [1, 2]
  decode.replicas: [1, 2]
  engine.name: [vllm, sglang]
  global_scheduler: [round_robin, lor]
  qps: [0.333333333333, 5]
slo: {ttft_p90_s: 1.0}
";

fn program(folder: &Path, width: Option<usize>, arguments: &str) -> Command {
    let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
    command.current_dir(folder).env_remove("COLUMNS");
    if let Some(width) = width {
        command.env("COLUMNS", width.to_string());
    }
    command.args(arguments.split_whitespace());
    command
}

fn printed(folder: &Path, width: Option<usize>, arguments: &str) -> String {
    let assert = program(folder, width, arguments).assert().code(0);
    String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8")
}

fn swept() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("spec.yaml"), SPEC).expect("a file");
    printed(folder.path(), None, "run spec.yaml --out out");
    folder
}

#[test]
fn tables_of_every_command_fit_any_terminal() {
    let folder = swept();
    let commands = [
        "run spec.yaml --out out --resume",
        "report out",
        "pareto out --all",
        "plan spec.yaml --no-estimate",
        "catalog models",
        "catalog models deepseek-671B",
        "catalog devices",
        "catalog devices h20",
        "catalog engines",
        "catalog backends",
        "catalog schedulers",
        "catalog traces",
        "catalog traces azure-conv-2023",
        "profiles list",
        "explain --model deepseek-671B --device h200 --tensor-parallel 8 --expert-parallel 8 --prefill-tokens 64",
        "explain --spec spec.yaml --run 3",
        "simulate --backend roofline",
    ];
    for command in commands {
        // A result directory and a model have names that cannot be folded.
        for (asked, width) in [
            (Some(40), 40),
            (Some(60), 60),
            (Some(80), 80),
            (Some(131), 131),
            (None, 120),
        ] {
            let command = command.replace("simulate --backend roofline", SIMULATE);
            let text = printed(folder.path(), asked, &command);
            for line in text.lines() {
                let wide = line.chars().count();
                assert!(
                    wide <= width,
                    "{command}: {wide} > {width}:\n{line}\n\n{text}"
                );
            }
        }
    }
}

/// One that needs no profiles.
const SIMULATE: &str = "simulate --synthetic_request_generator_config_num_requests 8 --quiet";

/// The words above the rule of each table, column by column.
fn headings(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let rule = lines.iter().position(|line| line.starts_with("---"));
    let rule = rule.expect("a rule");
    let first = (0..rule)
        .rev()
        .take_while(|nth| !lines[*nth].ends_with(':') && !lines[*nth].is_empty());
    let first = first.last().expect("a heading");
    let header: Vec<Vec<char>> = lines[first..rule]
        .iter()
        .map(|l| l.chars().collect())
        .collect();
    let width = header.iter().map(Vec::len).max().expect("lines");
    let blank = |column: usize| {
        header
            .iter()
            .all(|l| l.get(column).is_none_or(|c| *c == ' '))
    };
    let mut found = vec![String::new()];
    for column in 0..width {
        if blank(column) && (column + 1 >= width || blank(column + 1)) {
            if found.last().is_some_and(|heading| !heading.is_empty()) {
                found.push(String::new());
            }
            continue;
        }
        for line in &header {
            found
                .last_mut()
                .expect("one")
                .push(*line.get(column).unwrap_or(&' '));
        }
    }
    found.retain(|heading| !heading.is_empty());
    found
}

#[test]
fn no_two_columns_share_a_heading() {
    let folder = swept();
    for command in ["report out --limit 64", "pareto out --all --limit 64"] {
        let text = printed(folder.path(), Some(300), command);
        let headings = headings(&text);
        let different: BTreeSet<&String> = headings.iter().collect();
        assert_eq!(different.len(), headings.len(), "{text}");
        assert!(headings.len() > 10, "{text}");
        for rounded in ["0.33333 ", "prefill", "decode", "engine"] {
            assert!(text.contains(rounded), "{rounded} in\n{text}");
        }
        assert!(!text.contains("0.333333333"), "{text}");
    }
    // Programs get every digit.
    let csv = printed(folder.path(), None, "report out --limit 64 --format csv");
    assert!(csv.contains("0.333333333333"), "{csv}");
}

#[test]
fn what_was_not_measured_stands_with_the_answer() {
    let folder = swept();
    let said = [
        "What these figures assume",
        "% of the steps' time is roofline, not measured (qkv_gemm, ",
        "the price of h20, $2.13 per GPU and hour, is an assumption",
    ];
    for command in [
        "run spec.yaml --out out --resume",
        "report out",
        "pareto out",
    ] {
        let text = printed(folder.path(), Some(200), command);
        for sentence in said {
            assert!(text.contains(sentence), "{sentence}\n{text}");
        }
    }
    let json: Value =
        serde_json::from_str(&printed(folder.path(), None, "report out --format json"))
            .expect("JSON");
    let sentences = json["assumptions"]["sentences"]
        .as_array()
        .expect("sentences");
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    let figures = &json["deployments"][0]["figures"];
    let roofline = figures["roofline_fraction"].as_f64().expect("a share");
    assert!((0.9..1.0).contains(&roofline), "{roofline}");
    assert_eq!(figures["extrapolated_fraction"].as_f64(), Some(0.0));
    let page = fs::read_to_string(folder.path().join("out/report.html")).expect("the page");
    assert!(page.contains("is an assumption: nobody publishes one"));
    let devices = printed(folder.path(), None, "catalog devices --format csv");
    let h20 = devices.lines().find(|line| line.starts_with("h20,"));
    assert!(h20.expect("h20").contains(",assumed,"), "{devices}");

    // Of measured prices there is nothing to say.
    let measured = SPEC
        .replace("device: h20", "device: h100")
        .replace("backend: roofline", "backend: silicon");
    fs::write(folder.path().join("measured.yaml"), measured).expect("a file");
    let text = printed(folder.path(), Some(200), "run measured.yaml --out measured");
    assert!(!text.contains("is an assumption"), "{text}");
    assert!(!text.contains("% of the steps' time is roofline"), "{text}");
}

#[test]
fn shipped_traces_are_listed_and_used_anywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = printed(folder.path(), None, "catalog traces");
    assert!(
        list.contains("azure-conv-2023") && list.contains("built in"),
        "{list}"
    );
    let spec = "\
name: trace
base:
  model: llama-3-8b
  device: h100
  qps: 2
  workload:
    requests: 5
    lengths: {type: trace, file: azure-code-2023}
    arrivals: poisson
";
    fs::write(folder.path().join("spec.yaml"), spec).expect("a file");
    printed(folder.path(), None, "run spec.yaml --quiet");
    fs::write(
        folder.path().join("spec.yaml"),
        spec.replace("2023", "2032"),
    )
    .expect("a file");
    let refused = program(folder.path(), None, "validate spec.yaml")
        .assert()
        .code(2);
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(
        message.contains("did you mean `azure-code-2023`?"),
        "{message}"
    );
}

#[test]
fn manual_pages_are_written_one_per_command() {
    let folder = tempfile::tempdir().expect("a folder");
    printed(folder.path(), None, "man pages");
    for (page, words) in [
        ("vidur-sweep.1", "Exit codes"),
        ("vidur-sweep-run.1", "require\\-feasible"),
        ("vidur-sweep-network-price.1", "predicted_us"),
        ("vidur-sweep-simulate.1", "replica_config_model_name"),
    ] {
        let text = fs::read_to_string(folder.path().join("pages").join(page)).expect(page);
        assert!(text.contains(words), "{words} in {page}");
        assert!(text.contains(".SH NAME"), "{page}");
    }
    program(folder.path(), None, "man pages/vidur-sweep.1")
        .assert()
        .code(1);
}

/// What bash offers for a line, by the script that the program prints.
#[cfg(unix)]
mod bash {
    use super::*;

    fn offered(folder: &Path, words: &[&str]) -> Vec<String> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source ./script; COMP_WORDS=({}); COMP_CWORD={}; \
             function=$(complete -p vidur-sweep | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function vidur-sweep \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            quoted.join(" "),
            words.len() - 1
        );
        let output = std::process::Command::new("bash")
            .current_dir(folder)
            .args(["--norc", "-c", &script])
            .output()
            .expect("bash runs");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(errors, "", "{script}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_names_of_all_that_can_be_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = printed(folder.path(), None, "completions bash");
        fs::write(folder.path().join("script"), script).expect("a file");
        let cases: [(&[&str], &str); 17] = [
            (&["ca"], "catalog"),
            (&["explain", "--mod"], "--model"),
            (&["explain", "--model", "deepseek-6"], "deepseek-671B"),
            (&["explain", "--model", "=", "deepseek-6"], "deepseek-671B"),
            (&["explain", "--device", "h20"], "h200"),
            (&["explain", "--engine", "sg"], "sglang"),
            (&["explain", "--backend", "roof"], "roofline"),
            (&["explain", "--dtype", "fp8_"], "fp8_block"),
            (&["catalog", "devices", "b2"], "b200"),
            (&["catalog", "schedulers", "sar"], "sarathi"),
            (
                &["run", "spec.yaml", "--set", "axes.tensor_par"],
                "axes.tensor_parallel=",
            ),
            (
                &["run", "spec.yaml", "--set", "slo.ttft_p90"],
                "slo.ttft_p90_s=",
            ),
            (&["pareto", "out", "--slo", "ttft_p90"], "ttft_p90_s="),
            (&["pareto", "out", "--slo", "=", "ttft_p90"], "ttft_p90_s="),
            (
                &[
                    "pareto",
                    "out",
                    "--objectives",
                    "max",
                    ":",
                    "throughput_req",
                ],
                "throughput_requests_per_s",
            ),
            (
                &["topology", "generate", "alibaba-hpn-d"],
                "alibaba-hpn-dual-plane",
            ),
            (
                &[
                    "simulate",
                    "--replica_config_model_name",
                    "meta-llama/Meta-Llama-3-8",
                ],
                "meta-llama/Meta-Llama-3-8B",
            ),
        ];
        for (words, wanted) in cases {
            let line: Vec<&str> = ["vidur-sweep"].iter().chain(words).copied().collect();
            let found = offered(folder.path(), &line);
            assert!(
                found.iter().any(|word| word == wanted),
                "{words:?}: {found:?}"
            );
        }
    }
}
