//! `capacity` end to end: against queues whose capacity is known, what a load takes, and
//! what contradicts a search for loads.

use std::fs;

use serde_json::Value;
use vidur_sweep::results::{SummaryTable, read_summary};

use crate::spec_folder::SpecFolder;

/// Servers of one request at a time, 20 ms each on average, exponential; requests go to one
/// of them at random: M/M/1 queues.
const QUEUES: &str = "\
name: queues
seed: 5
base:
  model: llama-3-8b
  device: h100
  backend: formula
  formula: {prefill_token_s: 2e-4}
  memory_check: warn
  global_scheduler: random
  replica_scheduler: {type: vllm, batch_size_cap: 1, max_tokens_in_batch: 16384}
  workload:
    lengths: {type: exponential, prefill_mean_tokens: 100, decode_mean_tokens: 1}
    arrivals: poisson
axes:
  replicas: [1, 2]
slo: {ttft_p90_s: 0.2}
";

const SERVICE_S: f64 = 0.02;

/// Load at which the 90th percentile of the time in the system of an M/M/1 queue is this.
fn capacity_of_p90(limit_s: f64) -> f64 {
    1.0 / SERVICE_S - 10f64.ln() / limit_s
}

fn figure(table: &SummaryTable, run: u64, column: &str) -> f64 {
    let mut rows = table.rows();
    let row = rows.find(|row| row.run_index() == run).expect("the run");
    row.number(column).unwrap_or(f64::NAN)
}

#[test]
fn capacities_are_those_of_queues() {
    let folder = SpecFolder::new(QUEUES);
    let report = folder.ok(&[
        "capacity",
        "spec.yaml",
        "--tolerance",
        "3%",
        "--load",
        "100",
        "--growth",
        "30,290",
        "--format",
        "json",
        "--quiet",
    ]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let table = read_summary(&folder.path("results/queues-capacity")).expect("a summary");
    for (run, servers) in [(0, 1.0), (1, 2.0)] {
        let expected = servers * capacity_of_p90(0.2);
        let found = |column: &str| figure(&table, run, column);
        let capacity = found("capacity_requests_per_s");
        assert!(
            (capacity / expected - 1.0).abs() < 0.03,
            "{run}: {capacity} for {expected}"
        );
        let low = found("capacity_low_requests_per_s");
        let high = found("capacity_high_requests_per_s");
        assert!(low < expected && expected < high, "{low} {expected} {high}");
        assert!((high - low) / 2.0 / capacity <= 0.03, "{low} {high}");
        assert_eq!(found("capacity_per_gpu"), capacity / servers);
        // The row is of a run at a load that surely keeps the targets.
        assert!(found("qps") <= capacity && found("qps") > 0.9 * capacity);
        assert!((found("offered_requests_per_s") / found("qps") - 1.0).abs() < 0.03);
        assert!(found("ttft_p90_high_s") <= 0.2);
    }
    for row in table.rows() {
        assert_eq!(row.text("binding_target"), Some("ttft_p90_s"));
        assert_eq!(row.flag("slo_met"), Some(true));
    }
    // 100 requests/s: one server surely holds about 38, two about 76.
    let load = report["load"].as_array().expect("ways");
    let copies: Vec<i64> = load
        .iter()
        .filter_map(|way| way["copies"].as_i64())
        .collect();
    assert_eq!(copies, [3, 2], "{load:?}");
    let low = figure(&table, 0, "capacity_low_requests_per_s");
    let headroom = load[0]["headroom"].as_f64().expect("a share");
    assert!((headroom - (3.0 * low / 100.0 - 1.0)).abs() < 1e-9);
    let growth = report["growth"].as_array().expect("loads");
    assert_eq!(growth[0]["total_gpus"], 1);
    assert_eq!(growth[1]["total_gpus"], 8);
    let answer = report["answer"].to_string();
    assert!(
        answer.contains("100 requests/s take 3 times run 0"),
        "{answer}"
    );
    for file in [
        "capacity.parquet",
        "summary.parquet",
        "report.html",
        "spec.yaml",
    ] {
        assert!(
            folder.path("results/queues-capacity").join(file).is_file(),
            "{file}"
        );
    }
}

#[test]
fn a_study_is_the_same_however_it_is_asked_for_and_done_once() {
    let folder = SpecFolder::new(QUEUES);
    let quick = ["--quiet", "--set", "slo.ttft_p90_s=0.1"];
    let ask = |command: &[&str]| folder.ok(&[command, &quick[..]].concat());
    ask(&[
        "capacity",
        "spec.yaml",
        "--tolerance",
        "20%",
        "--threads",
        "1",
        "--out",
        "one",
    ]);
    ask(&[
        "capacity",
        "spec.yaml",
        "--set",
        "capacity.tolerance=0.2",
        "--threads",
        "3",
        "--out",
        "two",
    ]);
    ask(&[
        "run",
        "spec.yaml",
        "--set",
        "search={type: capacity, tolerance: 20%}",
        "--out",
        "three",
    ]);
    let table = |out: &str| fs::read(folder.path(out).join("capacity.parquet")).expect("a table");
    assert!(table("one") == table("two") && table("one") == table("three"));
    // The same again is not done again, and not over another.
    let again = [
        "capacity",
        "spec.yaml",
        "--set",
        "slo.ttft_p90_s=0.1",
        "--tolerance",
        "20%",
        "--out",
        "one",
    ];
    let output = folder.output(&again);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = folder.output(&[&again[..], &["--resume"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && told.contains("every run was done before"),
        "{told}"
    );
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("Best: run 0"), "{shown}");
}

#[test]
fn a_target_out_of_reach_holds_no_load() {
    let folder = SpecFolder::new(QUEUES);
    let unreachable = ["--set", "slo.ttft_p90_s=0.01", "--quiet"];
    let shown = folder.ok(&[&["capacity", "spec.yaml"], &unreachable[..]].concat());
    assert!(
        shown.contains("No configuration holds any load within ttft_p90_s <= 10 ms"),
        "{shown}"
    );
    let table = read_summary(&folder.path("results/queues-capacity")).expect("a summary");
    assert_eq!(figure(&table, 0, "capacity_requests_per_s"), 0.0);
    let asked = ["capacity", "spec.yaml", "--force", "--require-feasible"];
    let output = folder.output(&[&asked[..], &unreachable[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn what_contradicts_a_capacity_is_refused_at_its_key() {
    let folder = SpecFolder::new(QUEUES);
    let refused = |more: &[&str]| {
        let output = folder.output(&[&["capacity", "spec.yaml"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let told = refused(&["--set", "axes.qps=[1, 2]"]);
    assert!(
        told.contains("--set axes.qps=[1, 2]: key `qps`: the load is what"),
        "{told}"
    );
    let told = refused(&["--set", "replications=3"]);
    assert!(told.contains("key `replications`"), "{told}");
    let told = refused(&["--set", "slo={}"]);
    assert!(told.contains("give `slo`"), "{told}");
    let told = refused(&["--set", "slo={ttft_max_s: 1}"]);
    assert!(
        told.contains("target `ttft_max_s`: the largest of all grows"),
        "{told}"
    );
    let told = refused(&["--set", "slo={throughput_requests_per_s: 5}"]);
    assert!(told.contains("`--load`"), "{told}");
    let told = refused(&["--set", "workload.arrivals={type: concurrency, clients: 4}"]);
    assert!(told.contains("closed loop"), "{told}");
    let told = refused(&["--tolerance", "200%"]);
    assert!(told.contains("'--tolerance <SHARE>'"), "{told}");
    let told = refused(&["--set", "capacity.tolerance=200%"]);
    assert!(told.contains("key `capacity.tolerance`"), "{told}");
    let told = refused(&["--load", "0"]);
    assert!(
        told.contains("allowed is a number greater than 0"),
        "{told}"
    );
    // An axis can be taken out.
    let without = [
        "--set",
        "axes.qps=[1, 2]",
        "--set",
        "axes.qps=null",
        "--tolerance",
        "30%",
    ];
    folder.ok(&[&["capacity", "spec.yaml", "--quiet"], &without[..]].concat());
}

/// What a study in JSON says, with more arguments.
fn told(folder: &SpecFolder, more: &[&str]) -> Value {
    let study = [
        "capacity",
        "spec.yaml",
        "--force",
        "--quiet",
        "--format",
        "json",
    ];
    let report = folder.ok(&[&study[..], more].concat());
    serde_json::from_str(&report).expect("JSON")
}

#[test]
fn what_no_load_breaks_is_no_less_than_what_some_load_does() {
    let folder = SpecFolder::new(QUEUES);
    let free = "axes={formula.prefill_token_s: [1e-13, 2e-4]}";
    let report = told(
        &folder,
        &["--set", free, "--tolerance", "20%", "--load", "1000"],
    );
    assert_eq!(report["holders"][0]["run_index"], 0, "{report}");
    assert_eq!(report["holders"][0]["capacity_requests_per_s"], 1e7);
    assert_eq!(report["load"][0]["copies"], 1);
    let remark = report["holders"][0]["remark"].to_string();
    assert!(
        remark.contains("no load up to 10000000 requests/s"),
        "{remark}"
    );
}

#[test]
fn only_poisson_arrivals_are_dealt_out_to_copies() {
    let folder = SpecFolder::new(QUEUES);
    for arrivals in ["static", "{type: gamma, cv: 2}"] {
        let set = format!("workload.arrivals={arrivals}");
        let more = ["--set", set.as_str(), "--set", "axes={replicas: [1]}"];
        let loads = ["--tolerance", "20%", "--load", "400", "--growth", "1,500"];
        let report = told(&folder, &[&more[..], &loads].concat());
        assert_eq!(report["load"], Value::Array(Vec::new()), "{arrivals}");
        assert_eq!(report["growth"].as_array().map(Vec::len), Some(1));
        assert_eq!(report["unprovided"].to_string(), "[400.0,500.0]");
        let answer = report["answer"].to_string();
        assert!(
            answer.contains("Nothing holds 400 requests/s for certain; copies"),
            "{answer}"
        );
    }
}

#[test]
fn loads_that_are_asked_for_are_answered_where_nothing_holds() {
    let folder = SpecFolder::new(QUEUES);
    let report = told(
        &folder,
        &[
            "--set",
            "slo.ttft_p90_s=0.01",
            "--load",
            "40",
            "--growth",
            "50",
        ],
    );
    let answer = report["answer"].to_string();
    for part in [
        "run 0: no load keeps the targets",
        "Nothing holds 40.0",
        "Nothing holds 50.0",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[test]
fn one_key_of_a_search_can_be_changed_and_a_wrong_one_is_told_once() {
    let spec = format!("{QUEUES}search: {{type: capacity, max_requests: 600, tolerance: 30%}}\n");
    let folder = SpecFolder::new(&spec);
    told(&folder, &["--tolerance", "25%"]);
    let resolved = fs::read_to_string(folder.path("results/queues-capacity/spec.yaml"));
    let resolved = resolved.expect("the specification");
    assert!(
        resolved.contains("max_requests: 600") && resolved.contains("25%"),
        "{resolved}"
    );
    for (given, key) in [("30%", "tolerance: 300%"), ("600", "max_requests: 6")] {
        let name = key.split(':').next().expect("a key");
        folder.write(
            "wrong.yaml",
            &spec.replace(&format!("{name}: {given}"), key),
        );
        for command in ["validate", "run", "capacity", "plan"] {
            let output = folder.output(&[command, "wrong.yaml"]);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command}: {told}");
            assert_eq!(told.lines().count(), 1, "{command}: {told}");
            assert!(told.contains("wrong.yaml:17:"), "{command}: {told}");
        }
    }
}

#[test]
fn what_has_no_steady_load_or_no_interval_is_refused() {
    let folder = SpecFolder::new(QUEUES);
    for (set, part) in [
        ("time_limit_s=5", "time_limit_s"),
        ("measure=all", "only recorded arrivals"),
        ("slo={gpu_busy_fraction: {max: 0.7}}", "gpu_busy_fraction"),
        (
            "slo={kv_cache_utilization: {max: 0.7}}",
            "kv_cache_utilization",
        ),
    ] {
        let output = folder.output(&["capacity", "spec.yaml", "--set", set]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{set}: {told}");
        assert!(told.contains(part), "{set}: {told}");
    }
}

/// The rate of a recording is that of the rows that a run uses: runs of other lengths in
/// the same process do not change it.
#[test]
fn recorded_arrivals_come_at_the_rate_asked_for_whatever_the_lengths_beside() {
    let folder = SpecFolder::new(QUEUES);
    // Ever slower, so that every length has a rate of its own.
    let rows = (0..3000).map(|row| format!("{},100,1\n", f64::from(row).powf(1.3) / 50.0));
    let trace = "arrived_at,num_prefill_tokens,num_decode_tokens\n".to_owned();
    folder.write("trace.csv", &(trace + &rows.collect::<String>()));
    folder.ok(&[
        "run",
        "spec.yaml",
        "--quiet",
        "--out",
        "out",
        "--threads",
        "1",
        "--set",
        "axes={workload.requests: [2000, 500, 1000]}",
        "--set",
        "base.qps=5",
        "--set",
        "measure=steady",
        "--set",
        "workload.arrivals={type: trace, file: trace.csv}",
    ]);
    let table = read_summary(&folder.path("out")).expect("a summary");
    for row in table.rows() {
        let offered = row.number("offered_requests_per_s").expect("a rate");
        // A warm-up is left out, and the rows of a window after it are slower ones.
        assert!(
            (4.5..5.5).contains(&offered),
            "{}: {offered}",
            row.run_index()
        );
    }
}

#[test]
fn tables_for_programs_are_of_what_was_asked_for() {
    let folder = SpecFolder::new(QUEUES);
    let csv = |asked: &[&str]| {
        let study = [
            "capacity",
            "spec.yaml",
            "--tolerance",
            "20%",
            "--out",
            "out",
            "--force",
            "-q",
            "--format",
            "csv",
        ];
        let told = folder.ok(&[&study[..], asked].concat());
        let lines: Vec<String> = told.lines().map(str::to_owned).collect();
        (lines[0].clone(), lines.len() - 1)
    };
    let (columns, lines) = csv(&[]);
    assert!(columns.starts_with("rank,run,replicas,"), "{columns}");
    assert_eq!(lines, 2);
    let ways = "load_requests_per_s,run,copies,total_gpus,cost_usd_per_hour,headroom,replicas";
    assert_eq!(csv(&["--load", "90"]), (ways.to_owned(), 2));
    assert_eq!(csv(&["--growth", "30,60,90"]), (ways.to_owned(), 3));
    // A share that starts with a dash is a share, and a wrong one.
    for share in ["-1%", "abc", "100%"] {
        let output = folder.output(&["capacity", "spec.yaml", "--tolerance", share]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        let expected = format!("invalid value '{share}' for '--tolerance <SHARE>': allowed is");
        assert!(told.contains(&expected), "{told}");
    }
}
