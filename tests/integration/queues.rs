//! Deployments that are queues with known answers: backend `formula`, one request in a
//! batch.

use assert_cmd::Command;
use serde_json::{Value, json};
use vidur_sweep::execution_time::{PrefillChunk, StepShape};
use vidur_sweep::simulator::{Recorder, RequestOutcome, RequestRecord, simulate};
use vidur_sweep::spec::{Resolver, RunConfig};
use vidur_sweep::workload::{Workload, WorkloadSource};

fn config(keys: Value) -> RunConfig {
    let mut all = json!({
        "model": "llama-3-8b",
        "device": "h100",
        "backend": "formula",
        // Whatever a step of so many tokens would take.
        "memory_check": "warn",
        "workload": {
            "requests": 500,
            "lengths": {"type": "fixed", "prefill_tokens": 1, "decode_tokens": 1},
            "arrivals": {"type": "poisson"}
        }
    });
    for (key, value) in keys.as_object().expect("a mapping") {
        all[key] = value.clone();
    }
    serde_json::from_value(all).expect("a configuration")
}

/// Requests in order of their numbers.
#[derive(Default)]
struct Requests(Vec<RequestRecord>);

impl Recorder for Requests {
    fn request(&mut self, record: &RequestRecord) {
        self.0.push(record.clone());
    }
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
}

fn simulated(config: &RunConfig) -> (Workload, Vec<RequestRecord>) {
    let deployment = Resolver::default().resolve(config).expect("a deployment");
    let drawn = WorkloadSource::default().get(&config.workload, 7, 0);
    let workload = drawn
        .expect("requests")
        .at_rate(config.qps)
        .expect("a rate");
    let mut recorder = Requests::default();
    simulate(&deployment.cluster, &workload, &mut recorder);
    let mut requests = recorder.0;
    requests.sort_by_key(|record| record.request_id);
    assert_eq!(requests.len(), workload.requests.len());
    (workload, requests)
}

/// Schedulers that serve one request at a time, each prompt in one step.
fn one_at_a_time() -> Vec<Value> {
    vec![
        json!({"type": "vllm", "batch_size_cap": 1, "max_tokens_in_batch": 100_000}),
        json!({"type": "orca", "batch_size_cap": 1}),
        json!({"type": "sarathi", "batch_size_cap": 1, "chunk_size": 100_000}),
        json!({"type": "faster_transformer", "batch_size_cap": 1}),
    ]
}

/// Expects of every request the times that Lindley's recursion gives a queue of one
/// server that serves in order of arrival: who arrives while another is served waits for
/// the end of that.
fn is_a_queue_of_one_server(config: &RunConfig, service_s: impl Fn(u32, u32) -> f64) {
    let (workload, requests) = simulated(config);
    let mut free_s = 0.0_f64;
    for (request, record) in workload.requests.iter().zip(&requests) {
        assert_eq!(record.outcome, RequestOutcome::Completed);
        let started_s = request.arrived_at_s.max(free_s);
        free_s = started_s + service_s(request.prefill_tokens, request.decode_tokens);
        for (found_s, expected_s) in [
            (record.scheduled_at_s, started_s),
            (record.completed_at_s, free_s),
        ] {
            assert!(
                (found_s - expected_s).abs() < 1e-9,
                "{found_s} {expected_s}: {config:?}"
            );
        }
    }
    let waits = requests.iter().filter(|r| r.scheduling_delay_s() > 0.0);
    assert!(waits.count() > 50, "nobody to speak of had to wait");
}

#[test]
fn equal_prompts_are_a_queue_with_constant_service() {
    for scheduler in one_at_a_time() {
        let config = config(json!({
            "formula": {"step_s": 0.02},
            "replica_scheduler": scheduler,
            "qps": 40.0,
        }));
        is_a_queue_of_one_server(&config, |_, _| 0.02);
    }
}

#[test]
fn exponential_prompts_are_a_queue_with_exponential_service() {
    for scheduler in one_at_a_time() {
        let config = config(json!({
            "formula": {"prefill_token_s": 2e-5},
            "replica_scheduler": scheduler,
            "max_model_len": 100_000,
            "qps": 40.0,
            "workload": {
                "requests": 500,
                "lengths": {
                    "type": "exponential",
                    "prefill_mean_tokens": 1000,
                    "decode_mean_tokens": 1,
                },
                "arrivals": {"type": "poisson"},
            },
        }));
        is_a_queue_of_one_server(&config, |prompt, output| {
            assert_eq!(output, 1);
            f64::from(prompt) * 2e-5
        });
    }
}

/// All four coefficients: the n-th decode reads the prompt and the n - 1 output tokens
/// that the decodes before it put into the cache.
#[test]
fn whole_requests_take_the_sum_of_their_steps() {
    let keys = json!({
        "formula": {
            "step_s": 0.004,
            "prefill_token_s": 1e-5,
            "decode_request_s": 0.001,
            "decode_context_token_s": 1e-6,
        },
        "replica_scheduler": {"type": "vllm", "batch_size_cap": 1},
        "qps": 8.0,
        "workload": {
            "requests": 300,
            "lengths": {
                "type": "exponential",
                "prefill_mean_tokens": 200,
                "decode_mean_tokens": 12,
                "max_tokens": 8000,
            },
            "arrivals": {"type": "gamma", "cv": 2.0},
        },
    });
    is_a_queue_of_one_server(&config(keys), |prompt, output| {
        let prompt = f64::from(prompt);
        let decode_s = |n: u32| 0.004 + 0.001 + 1e-6 * (prompt + f64::from(n - 1));
        0.004 + 1e-5 * prompt + (1..output).map(decode_s).sum::<f64>()
    });
}

/// Requests that come together decode together: a step of all of them costs the closed
/// form, and a pipeline splits it evenly.
#[test]
fn a_batch_takes_the_closed_form() {
    for stages in [1, 2, 4] {
        let config = config(json!({
            "formula": {
                "step_s": 0.5,
                "prefill_token_s": 0.25,
                "decode_request_s": 0.125,
                "decode_context_token_s": 0.0625,
            },
            "pipeline_parallel": stages,
            "replica_scheduler": {"type": "vllm", "batch_size_cap": 64},
            "workload": {
                "requests": 4,
                "lengths": {"type": "fixed", "prefill_tokens": 10, "decode_tokens": 3},
                "arrivals": {"type": "static"},
            },
        }));
        let (_, requests) = simulated(&config);
        let prompts_s = 0.5 + 40.0 * 0.25;
        let first_s = 0.5 + 4.0 * 0.125 + 40.0 * 0.0625;
        let second_s = first_s + 4.0 * 0.0625;
        for record in &requests {
            assert_eq!(record.prefill_completed_at_s, prompts_s);
            let decodes_s = record.completed_at_s - record.prefill_completed_at_s;
            assert!((decodes_s - first_s - second_s).abs() < 1e-12);
        }
        let deployment = Resolver::default().resolve(&config).expect("a deployment");
        let cost = deployment.pools[0].step_cost();
        let shape = StepShape {
            prefills: vec![PrefillChunk {
                new_tokens: 40,
                context_tokens: 7,
            }],
            decode_requests: 4,
            decode_context_tokens: 40,
            sampled_tokens: 5,
        };
        for stage in 0..stages {
            let time = cost.stage_time(stage, &shape);
            let whole_s = first_s + 40.0 * 0.25;
            assert_eq!(
                (time.model_s, time.host_s),
                (whole_s / f64::from(stages), 0.0)
            );
        }
    }
}

const SPEC: &str = "\
name: queue
base:
  model: llama-3-8b
  device: h100
  backend: formula
  formula: {step_s: 0.02, decode_request_s: 0.001}
  replica_scheduler: {type: vllm, batch_size_cap: 1}
  workload:
    requests: 50
    lengths: {type: fixed, prefill_tokens: 1, decode_tokens: 1}
    arrivals: poisson
axes:
  qps: [10, 20]
";

/// Runs the program in a folder with `spec.yaml`: exit code, and what it prints and tells.
fn program(spec: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("spec.yaml"), spec).expect("written");
    let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
    let output = command
        .current_dir(folder.path())
        .args(arguments)
        .output()
        .expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_formula_is_explained_term_by_term() {
    let explain = ["explain", "--spec", "spec.yaml", "--format", "csv"];
    let step = ["--batch-size", "4", "--context-tokens", "100"];
    let (code, printed, told) = program(SPEC, &[&explain[..], &step].concat());
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<_> = printed.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "step,1,2e1,\"formula\"",
            "decode_requests,4,4e0,\"formula\""
        ]
    );
}

#[test]
fn a_formula_belongs_to_its_backend() {
    let check = |from: &str, to: &str| {
        let spec = SPEC.replace(from, to);
        assert_ne!(spec, SPEC);
        let (code, _, told) = program(&spec, &["validate", "spec.yaml"]);
        assert_eq!(code, Some(2), "{told}");
        told
    };
    let formula = "  formula: {step_s: 0.02, decode_request_s: 0.001}\n";
    let told = check(formula, "");
    assert!(
        told.contains("spec.yaml:5:12: key `backend`: formula needs `formula`"),
        "{told}"
    );
    let told = check("backend: formula", "backend: roofline");
    assert!(
        told.contains("spec.yaml:6:12: key `formula`: is for backend formula"),
        "{told}"
    );
    for nothing in ["{}", "{step_s: 0}"] {
        let told = check(formula, &format!("  formula: {nothing}\n"));
        assert!(told.contains("makes all steps take no time"), "{told}");
    }
    let told = check("step_s: 0.02", "step_s: -1");
    assert!(told.contains("allowed is a number of at least 0"), "{told}");
    let told = check("step_s: 0.02", "stop_s: 1");
    assert!(told.contains("did you mean `step_s`?"), "{told}");
    // An axis of backends has the formula with it.
    let both = SPEC.replace("  backend: formula\n", "") + "  backend: [formula, roofline]\n";
    let (code, _, told) = program(&both, &["validate", "spec.yaml"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("is for backend formula"), "{told}");
    let each = both.replace(formula, "")
        + "  formula: [{step_s: 0.02}, null]\nconstraints: [\"backend == 'formula' or formula.step_s == null\", \"backend != 'formula' or formula.step_s != null\"]\n";
    let (code, printed, told) = program(&each, &["validate", "spec.yaml"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(printed.contains("8 configurations"), "{printed}");
}

#[test]
fn exponential_lengths_have_means_of_at_least_a_token() {
    let lengths = |mean: &str| {
        format!("type: exponential, prefill_mean_tokens: {mean}, decode_mean_tokens: 1")
    };
    let fixed = "type: fixed, prefill_tokens: 1, decode_tokens: 1";
    for (mean, code) in [("1", 0), ("0.5", 2), ("1.5", 0), ("16777216", 2)] {
        let spec = SPEC.replace(fixed, &lengths(mean));
        let (exit, _, told) = program(&spec, &["validate", "spec.yaml"]);
        assert_eq!(exit, Some(code), "{mean}: {told}");
        if code == 2 {
            assert!(
                told.contains("allowed is a number of at least 1 and at most 16777215"),
                "{told}"
            );
        }
    }
    let (code, _, told) = program(
        &SPEC.replace(fixed, &lengths("100")),
        &["run", "spec.yaml", "--quiet"],
    );
    assert_eq!(code, Some(0), "{told}");
}

/// Ten requests decode when a long prompt stops them for five seconds, once.
const STALLED: &str = "\
name: stalled
base:
  model: llama-3-8b
  device: h100
  backend: formula
  formula: {step_s: 0.01, prefill_token_s: 0.00125}
  replica_scheduler: {type: vllm, batch_size_cap: 64}
  workload:
    lengths: {type: trace, file: trace.csv, order: recorded}
    arrivals: {type: trace, file: trace.csv}
objectives: {minimize: [ttft_p90_s]}
";

/// A stall that percentiles of single intervals hide shows in the distribution of requests'
/// longest ones, fails targets of single requests, and is warned of.
#[test]
fn a_stall_that_percentiles_hide_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = "0.0,1,300\n".repeat(10) + "1.0,4000,2\n";
    let trace = format!("arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}");
    std::fs::write(folder.path().join("trace.csv"), trace).expect("written");
    let run = |slo: &str| -> (Value, String) {
        let spec = format!("{STALLED}slo: {slo}\n");
        std::fs::write(folder.path().join("spec.yaml"), spec).expect("written");
        let command = |arguments: &[&str]| {
            let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
            let output = command.current_dir(folder.path()).args(arguments).output();
            let output = output.expect("it starts");
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let table = command(&["run", "spec.yaml", "--out", "out", "--force", "--quiet"]);
        let report = command(&["report", "out", "--format", "json"]);
        // However its lines are broken.
        let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
        (serde_json::from_str(&report).expect("JSON"), table)
    };
    let meets = |report: &Value| report["meeting_targets"] == 1;
    let figure = |report: &Value, column: &str| {
        let figures = &report["deployments"][0]["figures"];
        figures[column].as_f64().expect("a number")
    };

    let (report, table) = run("{tbt_p99_s: 0.02}");
    assert!(meets(&report), "{table}");
    assert!((figure(&report, "tbt_p99_s") - 0.01).abs() < 1e-3);
    assert!((figure(&report, "request_tbt_max_p50_s") - 5.01).abs() < 0.02);
    let attainment = figure(&report, "slo_attainment");
    assert!((attainment - 1.0 / 11.0).abs() < 1e-9, "{attainment}");
    assert!(
        table.contains("WARNING: 1 configuration keeps every limit"),
        "{table}"
    );
    assert!(
        table.contains("9.1 % of run 0, where 99.0 % are to"),
        "{table}"
    );
    let goodput = figure(&report, "goodput_requests_per_s") * figure(&report, "duration_s");
    assert!((goodput - 1.0).abs() < 1e-9, "{goodput}");

    for slo in [
        "{request_tbt_max_p90_s: 0.5}",
        "{tbt_p99_s: 0.02, per_request: {stall_s: 0.5}}",
        "{tbt_p99_s: 0.02, slo_attainment: 0.9}",
        "{tbt_p99_s: 0.02, goodput_requests_per_s: 1}",
    ] {
        let (report, table) = run(slo);
        assert!(!meets(&report), "{slo}: {table}");
    }
    for slo in [
        "{per_request: {stall_s: 6}}",
        "{per_request: {stall_s: 0.5, attainment: 0.05}}",
        "{tbt_p99_s: {max: 0.02}, total_gpus: {min: 1, max: 1}, cost_usd_per_hour: 100}",
    ] {
        let (report, table) = run(slo);
        assert!(meets(&report), "{slo}: {table}");
    }
}
