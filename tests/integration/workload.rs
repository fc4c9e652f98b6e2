//! Workloads from end to end: what `validate`, `plan` and `run` make of traces, rates
//! and sizes, which is always the same.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use tempfile::TempDir;
use vidur_sweep::explore::{CheckOne, RunOne, Simulate};
use vidur_sweep::results::{SummaryTable, read_summary};
use vidur_sweep::simulator::run_memory_bytes;
use vidur_sweep::spec::RequestOutput;
use vidur_sweep::workload::WorkloadSource;

/// BurstGPT's columns; two rows are failed requests.
const BURST: &str = "\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,Conversation log
120,GPT-4,500,50,550,API log
200,ChatGPT,900,90,990,API log
300,ChatGPT,0,0,0,API log
310,ChatGPT,310,31,341,API log
";

const SESSION: &str = r#"{"session_id": "a", "timestamp": 0, "input_length": 300, "output_length": 4, "hash_ids": [1]}
{"session_id": "a", "delay": 250, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
{"session_id": "b", "timestamp": 40.5, "input_length": 700, "output_length": 3, "hash_ids": [1, 3]}
"#;

/// A folder with a specification whose workload is `workload`.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(workload: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let spec = format!(
            "name: workload\nbase:\n  model: llama-3-8b\n  device: h100\n  backend: roofline\n  \
             workload: {{{workload}}}\n{more}"
        );
        let bench = Self { folder };
        bench.write("spec.yaml", &spec);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Exit code and standard error of a command.
    fn told(&self, command: &str) -> (Option<i32>, String) {
        let mut process = Command::cargo_bin("vidur-sweep").expect("the binary");
        let output = process
            .current_dir(self.folder.path())
            .args(command.split_whitespace())
            .timeout(Duration::from_secs(60))
            .output()
            .expect("an end");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code(), told)
    }

    /// What all three commands say on standard error that accept the specification.
    fn accepted(&self, options: &str) -> [String; 3] {
        [
            "validate spec.yaml",
            "plan spec.yaml",
            "run spec.yaml --force --out out",
        ]
        .map(|command| {
            let (code, told) = self.told(&format!("{command} {options}"));
            assert_eq!(code, Some(0), "{command} {options}: {told}");
            told
        })
    }

    /// What all three commands say that refuse it, at once.
    fn refused(&self, options: &str) -> String {
        let messages = ["validate", "plan", "run"].map(|command| {
            let started = Instant::now();
            let (code, told) = self.told(&format!("{command} spec.yaml {options}"));
            assert_eq!(code, Some(2), "{command} {options}: {told}");
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "{command} {options}"
            );
            told
        });
        assert!(
            messages.iter().all(|message| *message == messages[0]),
            "{messages:?}"
        );
        messages[0].clone()
    }

    fn summary(&self) -> SummaryTable {
        read_summary(&self.path("out")).expect("a summary")
    }
}

/// What a run is said to need beforehand is what it takes, and not much more.
#[test]
fn the_memory_of_a_run_is_known_beforehand() {
    let requests = 100_000;
    let config = serde_json::json!({
        "model": "llama-3-8b", "device": "h100", "backend": "roofline", "qps": 20,
        "workload": {
            "requests": requests,
            "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 5},
            "arrivals": {"type": "poisson"},
        },
    });
    let config = serde_json::from_value(config).expect("a configuration");
    for rows in [RequestOutput::All, RequestOutput::None] {
        let runner = Simulate::new(WorkloadSource::default(), rows, None);
        let mut completed = None;
        let taken = allocation_counter::measure(|| {
            let summary = runner.run(0, &config).summary;
            completed = summary.map(|summary| summary.completed);
        });
        assert_eq!(completed, Some(requests));
        // Some more to warm up.
        let simulated = runner.requests(&config).expect("requests");
        assert!(
            (requests..requests * 6 / 5).contains(&simulated),
            "{simulated}"
        );
        let said = run_memory_bytes(simulated, rows.every()) as f64;
        // Prices and the like take the same whatever the number of requests.
        let share = (taken.bytes_max as f64 - 4e6) / said;
        assert!(
            (0.5..1.0).contains(&share),
            "{rows:?}: {share} of what is said"
        );
    }
}

fn traced(file: &str, more: &str) -> String {
    format!(
        "{more} lengths: {{type: trace, file: {file}, order: recorded}}, \
         arrivals: {{type: trace, file: {file}}}"
    )
}

#[test]
fn requests_are_as_many_as_the_trace_has_rows_and_the_load_is_reported() {
    let bench = Bench::new(&traced("burst.csv", ""), "");
    bench.write("burst.csv", BURST);
    for told in bench.accepted("") {
        assert!(!told.contains("note:"), "{told}");
    }
    let table = bench.summary();
    let row = table.rows().next().expect("a run");
    assert_eq!(row.integer("num_requests"), Some(5));
    assert_eq!(row.number("offered_requests_per_s"), Some(4.0 / 305.0));
    let counted = row.text("run_id").expect("an id").to_owned();
    bench.accepted("--set base.workload.requests=5");
    let said = bench.summary();
    let row = said.rows().next().expect("a run");
    assert_eq!(row.text("run_id"), Some(&*counted), "the same run");
}

#[test]
fn what_repeats_is_said_by_all_and_in_the_run() {
    let bench = Bench::new(&traced("burst.csv", "requests: 12,"), "");
    bench.write("burst.csv", BURST);
    let note = "burst.csv: 5 rows for 12 requests: after the last row the trace starts again";
    for told in bench.accepted("") {
        assert_eq!(told.matches(note).count(), 1, "{told}");
    }
    let table = bench.summary();
    let reason = table
        .rows()
        .next()
        .and_then(|row| row.text("reason").map(str::to_owned));
    assert!(reason.is_some_and(|reason| reason.contains(note)));
}

#[test]
fn a_rate_is_that_of_the_rows_that_are_used() {
    let bench = Bench::new(&traced("burst.csv", "requests: 3,"), "");
    bench.write("burst.csv", BURST);
    bench.accepted("--set base.qps=10");
    let table = bench.summary();
    let offered = table
        .rows()
        .next()
        .and_then(|row| row.number("offered_requests_per_s"));
    assert!(
        offered.is_some_and(|offered| (offered - 10.0).abs() < 1e-9),
        "{offered:?}"
    );
}

#[test]
fn seconds_are_told_from_milliseconds() {
    let rows = |key: &str| -> String {
        let row = |i: u32| {
            format!(
                "{{{key}\"timestamp\": {}, \"input_length\": 1500, \"output_length\": 150}}\n",
                f64::from(i) * 0.5
            )
        };
        (0..200).map(row).collect()
    };
    let offered = |bench: &Bench| {
        let table = bench.summary();
        let row = table.rows().next().expect("a run");
        row.number("offered_requests_per_s").expect("a rate")
    };
    let bailian = Bench::new(&traced("t.jsonl", ""), "");
    bailian.write(
        "t.jsonl",
        &rows("\"chat_id\": 1, \"parent_chat_id\": -1, \"turn\": 1, "),
    );
    for told in bailian.accepted("") {
        assert!(!told.contains("note:"), "{told}");
    }
    assert!((offered(&bailian) - 2.0).abs() < 1e-9);

    // Seconds of a file that looks like one with milliseconds.
    let mooncake = Bench::new(&traced("t.jsonl", ""), "");
    mooncake.write("t.jsonl", &rows(""));
    let [_, _, run] = mooncake.accepted("");
    assert!((offered(&mooncake) - 2000.0).abs() < 1e-6);
    assert!(
        run.contains("1 run could not serve the load: run 0: 2000.000 requests/s"),
        "{run}"
    );
    assert!(run.contains("`workload.arrivals.time_unit`"), "{run}");
    let [_, _, run] = mooncake.accepted("--set base.workload.arrivals.time_unit=s");
    assert!((offered(&mooncake) - 2.0).abs() < 1e-9);
    assert!(!run.contains("note:"), "{run}");
}

#[test]
fn hashes_of_prefixes_are_mentioned_once_and_sessions_refused() {
    let row = |at: u32| {
        format!(
            "{{\"timestamp\": {at}, \"input_length\": 4096, \"output_length\": 4, \
             \"hash_ids\": [1, 2, 3]}}\n"
        )
    };
    let bench = Bench::new(&traced("t.jsonl", ""), "axes: {replicas: [1, 2, 3]}\n");
    bench.write("t.jsonl", &(row(0) + &row(2000)));
    for told in bench.accepted("") {
        assert_eq!(told.matches("hash_ids").count(), 1, "{told}");
    }
    let session = Bench::new(&traced("t.jsonl", ""), "");
    session.write("t.jsonl", SESSION);
    let told = session.refused("");
    assert!(
        told.contains("t.jsonl:2:21: key `delay`: sessions")
            && told.contains("cannot be simulated yet"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "said once: {told}");
}

#[test]
fn a_burst_is_a_trace_and_can_neither_repeat_nor_be_scaled() {
    let bench = Bench::new(&traced("same.csv", ""), "");
    let header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
    for rows in [3, 1] {
        bench.write(
            "same.csv",
            &(header.to_owned() + &"0,400,300\n".repeat(rows)),
        );
        bench.accepted("");
        let table = bench.summary();
        let row = table.rows().next().expect("a run");
        assert_eq!(row.integer("completed"), Some(rows as i64));
        assert_eq!(row.number("offered_requests_per_s"), None);
        let told = bench.refused("--set base.workload.requests=9");
        assert!(told.contains("rows have the same time"), "{told}");
        let told = bench.refused("--set base.qps=2");
        assert!(told.contains("at the same time"), "{told}");
    }
}

#[test]
fn extremes_are_refused_before_any_work() {
    let uniform = "lengths: {type: uniform, min_tokens: 100, max_tokens: 900, \
                   prefill_to_decode_ratio: 4}, arrivals: poisson";
    let bench = Bench::new(uniform, "");
    let limit = |key: &str, value: &str| {
        let told = bench.refused(&format!(
            "--set base.qps=1 --set base.workload.{key}={value}"
        ));
        assert!(told.contains(key) && told.contains("allowed"), "{told}");
    };
    limit("requests", "4294967295");
    limit("requests", "100000001");
    limit("lengths.max_tokens", "4294967295");
    for qps in ["1e-14", "1e-16", "1e-300"] {
        let told = bench.refused(&format!("--set base.qps={qps}"));
        assert!(
            told.contains("key `qps`: value") && told.contains("allowed is 1e10 s"),
            "{told}"
        );
    }
    let fixed = Bench::new(
        "lengths: {type: fixed, prefill_tokens: 10, decode_tokens: 5}, \
                            arrivals: {type: concurrency, clients: 4}",
        "",
    );
    for (key, value) in [
        ("arrivals.clients", "2147483647"),
        ("lengths.prefill_tokens", "4000000000"),
        ("lengths.decode_tokens", "4294967295"),
    ] {
        let told = fixed.refused(&format!("--set base.workload.{key}={value}"));
        assert!(told.contains(key) && told.contains("from 1 to"), "{told}");
    }
    // Each within its limit, together beyond that of a request.
    let told = fixed.refused(
        "--set base.workload.lengths.prefill_tokens=16777215 \
         --set base.workload.lengths.decode_tokens=16777215",
    );
    assert!(told.contains("allowed is 16777216 together"), "{told}");
    let zipf = Bench::new(
        "lengths: {type: zipf, min_tokens: 2, max_tokens: 16777216, \
                           prefill_to_decode_ratio: 4}, arrivals: static, requests: 2",
        "",
    );
    let told = zipf.refused("--set base.workload.lengths.max_tokens=4294967295");
    assert!(
        told.contains("max_tokens") && told.contains("16777216"),
        "{told}"
    );
    let (code, told) = zipf.told("validate spec.yaml");
    assert_eq!(code, Some(0), "{told}");
    let trace = Bench::new(&traced("t.csv", ""), "");
    trace.write(
        "t.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0,4000000000,5\n",
    );
    assert!(
        trace
            .refused("")
            .contains("t.csv:2:3: column `num_prefill_tokens`")
    );
    trace.write(
        "t.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0,40,5\n1e17,40,5\n",
    );
    assert!(trace.refused("").contains("a request arrives after 1e17 s"));
    let list = Bench::new(
        "lengths: {type: fixed, prefill_tokens: 10, decode_tokens: 5}, arrivals: poisson",
        "search: {type: list, file: points.csv}\n",
    );
    list.write(
        "points.csv",
        "qps,workload.lengths.prefill_tokens\n1,10\n1,4000000000\n",
    );
    assert!(list.refused("").contains("points.csv:3:3"));
    list.write(
        "points.csv",
        "qps,workload.lengths.prefill_tokens\n1,10\n1e-16,10\n",
    );
    assert!(list.refused("").contains("points.csv:3"));
}
