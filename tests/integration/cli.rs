//! The command line from end to end: what it writes, prints and returns.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::str::{contains, is_empty};
use serde_json::Value;
use tempfile::TempDir;
use vidur_sweep::results::{SummaryTable, read_summary};

/// Two deployments' worth of axes, each a fraction of a second.
const SPEC: &str = "\
name: small
seed: 7
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  workload:
    requests: 60
    lengths: {type: uniform, min_tokens: 100, max_tokens: 900, prefill_to_decode_ratio: 4}
    arrivals: poisson
axes:
  tensor_parallel: [1, 2]
  replicas: [1, 2, 4]
  qps: [4, 16]
constraints: [total_gpus <= 4]
slo: {ttft_p90_s: 1.0}
";

/// A folder to work in, with a specification.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let bench = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        bench.write("spec.yaml", spec);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// The program, in the folder, with arguments split at blanks.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("vidur-sweep").expect("the binary");
        command
            .current_dir(self.folder.path())
            .args(arguments.split_whitespace());
        command
    }

    fn ok(&self, arguments: &str) -> String {
        let output = self
            .command(arguments)
            .assert()
            .code(0)
            .get_output()
            .clone();
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The messages of a refused command.
    fn refused(&self, arguments: &str) -> String {
        let assert = self.command(arguments).assert().code(2).stdout(is_empty());
        String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
    }

    fn summary(&self, name: &str) -> SummaryTable {
        read_summary(&self.path(name)).expect("a summary")
    }
}

/// Every file whose bytes follow from the sweep alone, by path.
fn deterministic_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in [dir.to_path_buf(), dir.join("requests")] {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(dir).expect("inside").to_path_buf();
            // The manifest has the hash of the timings.
            let others = ["timing.parquet", "manifest.json"].map(PathBuf::from);
            if path.is_file() && !others.contains(&name) {
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    for name in [
        "summary.parquet",
        "pareto.parquet",
        "spec.yaml",
        "requests/part-000000.parquet",
    ] {
        assert!(
            files.contains_key(Path::new(name)),
            "{name} in {:?}",
            files.keys()
        );
    }
    files
}

fn assert_same_results(a: &Path, b: &Path) {
    let (a, b) = (deterministic_files(a), deterministic_files(b));
    assert!(a.keys().eq(b.keys()), "{:?}\n{:?}", a.keys(), b.keys());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{} differs", name.display());
    }
}

#[test]
fn the_smoke_sweep_runs_and_prints_nothing_but_its_result() {
    let repository = env!("CARGO_MANIFEST_DIR");
    let bench = Bench::new("");
    bench
        .command(&format!("run {repository}/sweeps/smoke.yaml --quiet"))
        .assert()
        .code(0)
        .stdout(contains("24 runs"))
        .stderr(is_empty());
    let table = bench.summary("results/smoke");
    assert_eq!(table.rows().count(), 24);
    assert!(bench.path("results/smoke/report.html").is_file());
}

#[test]
fn one_and_many_threads_write_the_same_bytes() {
    let bench = Bench::new(SPEC);
    bench.ok("run spec.yaml --out one --threads 1");
    bench.ok("run spec.yaml --out many --threads 3");
    assert_same_results(&bench.path("one"), &bench.path("many"));
    let other_seed = bench.ok("run spec.yaml --out other --seed 8 --format csv");
    assert_ne!(
        other_seed,
        bench.ok("run spec.yaml --out one --resume --format csv")
    );
}

#[test]
fn constraints_leave_runs_out_and_rows_say_what_ran() {
    let bench = Bench::new(SPEC);
    bench.ok("run spec.yaml --out out");
    let table = bench.summary("out");
    let rows: Vec<_> = table.rows().collect();
    // Of (1, 2) x (1, 2, 4) GPUs, 2 x 4 is too many.
    assert_eq!(rows.len(), 5 * 2);
    for row in rows {
        let gpus = row.integer("tensor_parallel").zip(row.integer("replicas"));
        assert_eq!(
            row.integer("total_gpus"),
            gpus.map(|(tp, replicas)| tp * replicas)
        );
        assert_eq!(row.integer("completed"), Some(60));
        assert_eq!(row.text("run_id").map(str::len), Some(32));
    }
}

/// Seconds of work in many runs, for interrupting.
const LONG_SPEC: &str = "\
name: long
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  replica_scheduler: sarathi
  workload:
    requests: 600
    lengths: {type: uniform, min_tokens: 100, max_tokens: 900, prefill_to_decode_ratio: 4}
    arrivals: poisson
axes:
  qps: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
  replica_scheduler.chunk_size: [128, 256, 512, 1024, 2048, 4096]
";

#[cfg(unix)]
mod interruption {
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Starts the long sweep and sends `signal` once its first results are on disk.
    fn interrupted(bench: &Bench, signal: &str) -> std::process::Output {
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_vidur-sweep"))
            .current_dir(bench.folder.path())
            .args(["run", "spec.yaml", "--out", "cut", "--threads", "1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        wait_for_first_part(&bench.path("cut/parts"), &child);
        let sent = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        child.wait_with_output().expect("ends")
    }

    fn wait_for_first_part(parts: &Path, child: &Child) {
        let started = Instant::now();
        let is_part = |name: &str| name.starts_with("summary-") && name.ends_with(".parquet");
        loop {
            let entries = fs::read_dir(parts).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            if names.any(|name| is_part(&name)) {
                return;
            }
            let waited = started.elapsed();
            assert!(
                waited < Duration::from_secs(120),
                "no part from {}",
                child.id()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn long_bench() -> Bench {
        let bench = Bench::new(LONG_SPEC.trim_end_matches("base_of: {}\n"));
        bench.ok("run spec.yaml --out whole --quiet");
        bench
    }

    #[test]
    fn ctrl_c_keeps_what_is_done_and_resume_completes_it() {
        let bench = long_bench();
        let output = interrupted(&bench, "-INT");
        assert_eq!(output.status.code(), Some(130));
        assert!(output.stdout.is_empty());
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(told.contains("--resume"), "{told}");
        assert!(!bench.path("cut/manifest.json").exists());
        bench
            .command("run spec.yaml --out cut")
            .assert()
            .code(2)
            .stderr(contains("--resume"));
        bench
            .command("run spec.yaml --out cut --resume")
            .assert()
            .code(0)
            .stderr(contains("done before"));
        assert_same_results(&bench.path("whole"), &bench.path("cut"));
    }

    #[test]
    fn a_killed_sweep_resumes_as_well() {
        let bench = long_bench();
        let output = interrupted(&bench, "-KILL");
        assert_eq!(output.status.code(), None);
        assert!(!bench.path("cut/manifest.json").exists());
        bench.ok("run spec.yaml --out cut --resume");
        assert_same_results(&bench.path("whole"), &bench.path("cut"));
    }
}

#[test]
fn bad_specifications_are_refused_with_position_and_remedy() {
    let trace = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,10,5\n0.5,ten,5\n";
    let uniform = "{type: uniform, min_tokens: 100, max_tokens: 900, prefill_to_decode_ratio: 4}";
    let replaced = |from: &str, to: &str| {
        assert!(SPEC.contains(from), "{from}");
        SPEC.replace(from, to)
    };
    let cases: [(&str, String, &[&str]); 10] = [
        (
            "unknown key",
            replaced("replicas:", "replcas:"),
            &["spec.yaml:13:3:", "replcas", "did you mean `replicas`"],
        ),
        (
            "wrong type",
            replaced("requests: 60", "requests: many"),
            &["spec.yaml:8:15:", "requests", "many", "whole number"],
        ),
        (
            "out of range",
            replaced("replicas: [1, 2, 4]", "replicas: [1, 0]"),
            &["spec.yaml:13:17:", "replicas", "0", "1 to"],
        ),
        (
            "wrong choice",
            replaced("roofline", "rooflin"),
            &[
                "spec.yaml:6:12:",
                "backend",
                "rooflin",
                "did you mean `roofline`",
            ],
        ),
        (
            "missing file",
            replaced(uniform, "{type: trace, file: nowhere.csv}"),
            &["spec.yaml:9:", "nowhere.csv"],
        ),
        (
            "malformed trace row",
            replaced(uniform, "{type: trace, file: trace.csv}"),
            &["trace.csv:3:5:", "ten"],
        ),
        (
            "unknown model",
            replaced("llama-3-8b", "llama-3-9b"),
            &["spec.yaml:4:10:", "llama-3-9b", "did you mean `llama-3-8b`"],
        ),
        (
            "unknown device",
            replaced("h100", "h1000"),
            &["spec.yaml:5:11:", "h1000", "did you mean `h100`"],
        ),
        (
            "unknown target",
            replaced("ttft_p90_s", "ttft_p91_s"),
            &["spec.yaml:16:", "ttft_p91_s", "did you mean `ttft_p90_s`"],
        ),
        (
            "bad constraint",
            replaced("total_gpus <= 4", "total_gpu <= 4"),
            &["spec.yaml:15:", "total_gpu", "did you mean `total_gpus`"],
        ),
    ];
    for (what, spec, fragments) in cases {
        let bench = Bench::new(&spec);
        bench.write("trace.csv", trace);
        let told = bench.refused("run spec.yaml --out out");
        for fragment in fragments {
            assert!(
                told.contains(fragment),
                "{what}: no `{fragment}` in\n{told}"
            );
        }
        assert!(
            told.lines().all(|line| line.starts_with("error: ")),
            "{told}"
        );
        assert!(!bench.path("out").exists(), "{what}: left a directory");
        let same = bench.refused("plan spec.yaml");
        assert_eq!(told, same, "{what}: plan says something else");
    }
}

#[test]
fn bad_arguments_are_refused() {
    let bench = Bench::new(SPEC);
    let cases = [
        ("run nowhere.yaml", "nowhere.yaml"),
        ("run spec.yaml --shard 3/2", "K/N"),
        ("run spec.yaml --threads 0", "--threads"),
        ("run spec.yaml --set base.replcas=2", "did you mean"),
        ("run spec.yaml --set nonsense", "nonsense"),
        ("run spec.yaml --resume --force", "--force"),
        ("run spec.yaml --format yaml", "csv"),
        ("rum spec.yaml", "run"),
        ("completions tcsh2", "bash"),
    ];
    for (arguments, fragment) in cases {
        let told = bench.refused(arguments);
        assert!(told.contains(fragment), "{arguments}: {told}");
    }
    assert!(!bench.path("results").exists());
}

#[test]
fn results_are_replaced_only_when_told_to() {
    let bench = Bench::new(SPEC);
    bench.ok("run spec.yaml --out out");
    let refused = bench.refused("run spec.yaml --out out");
    assert!(refused.contains("--force"), "{refused}");
    let refused = bench.refused("run spec.yaml --out out --resume --set axes.qps=[5]");
    assert!(refused.contains("specification differs"), "{refused}");
    bench
        .command("run spec.yaml --out out --resume")
        .assert()
        .code(0)
        .stderr(contains("done before"));
    bench.ok("run spec.yaml --out out --force --set axes.qps=[5]");
    assert_eq!(bench.summary("out").rows().count(), 5);
}

#[test]
fn changed_data_makes_another_sweep() {
    let uniform = "{type: uniform, min_tokens: 100, max_tokens: 900, prefill_to_decode_ratio: 4}";
    let bench = Bench::new(&SPEC.replace(uniform, "{type: trace, file: trace.csv}"));
    let header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
    bench.write("trace.csv", &format!("{header}0.0,100,50\n0.5,200,30\n"));
    bench.ok("run spec.yaml --out out");
    bench.ok("run spec.yaml --out out --resume");
    bench.write("trace.csv", &format!("{header}0.0,100,50\n0.5,200,31\n"));
    let refused = bench.refused("run spec.yaml --out out --resume");
    assert!(refused.contains("differs"), "{refused}");
}

#[test]
fn what_cannot_be_deployed_is_a_row_with_a_reason() {
    let bench = Bench::new(SPEC);
    let printed = bench.ok("run spec.yaml --out out --set axes.tensor_parallel=[1,3]");
    assert!(printed.contains("infeasible"), "{printed}");
    let table = bench.summary("out");
    let odd: Vec<_> = table
        .rows()
        .filter(|row| row.integer("tensor_parallel") == Some(3))
        .collect();
    assert_eq!(odd.len(), 2);
    for row in odd {
        assert_eq!(row.text("status"), Some("infeasible"));
        let reason = row.text("reason").expect("a reason");
        assert!(reason.contains("tensor_parallel 3"), "{reason}");
        assert_eq!(row.number("ttft_p90_s"), None);
    }
    let planned = bench.ok("plan spec.yaml --set axes.tensor_parallel=[1,3] --format json");
    let planned: Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!(planned["infeasible"], 2);
    assert_eq!(planned["infeasible_reasons"][0]["runs"], 2);
}

#[test]
fn require_feasible_fails_where_nothing_meets_the_targets() {
    let bench = Bench::new(SPEC);
    let strict = "--set slo.ttft_p90_s=0.000001";
    bench.ok(&format!("run spec.yaml --out lenient {strict}"));
    bench
        .command(&format!(
            "run spec.yaml --out strict {strict} --require-feasible"
        ))
        .assert()
        .code(3)
        .stdout(contains("Nearest misses"));
    bench.ok("run spec.yaml --out easy --require-feasible --set measure=all");
}

#[test]
fn shards_together_are_the_sweep() {
    let bench = Bench::new(SPEC);
    bench.ok("run spec.yaml --out whole");
    bench.ok("run spec.yaml --out parts --shard 1/2");
    bench.ok("run spec.yaml --out parts --shard 2/2");
    let runs = |name: &str| -> Vec<(i64, String)> {
        let table = bench.summary(name);
        let rows = table.rows();
        rows.map(|row| {
            let index = row.integer("run_index").expect("an index");
            (index, row.text("run_id").expect("an identity").to_owned())
        })
        .collect()
    };
    let mut together = runs("parts/shard-1-of-2");
    together.extend(runs("parts/shard-2-of-2"));
    together.sort();
    assert_eq!(together, runs("whole"));
}

#[test]
fn plan_counts_and_writes_nothing() {
    let bench = Bench::new(SPEC);
    let before = fs::read_dir(bench.folder.path()).expect("a folder").count();
    let json: Value =
        serde_json::from_str(&bench.ok("plan spec.yaml --format json")).expect("JSON");
    assert_eq!((&json["points"], &json["runs"]), (&12.into(), &12.into()));
    assert_eq!(
        (&json["excluded"], &json["feasible"]),
        (&2.into(), &10.into())
    );
    // Ten runs of 60 requests, and an eighth more of each to warm up.
    assert_eq!(json["requests"], 680);
    assert!(json["estimate"]["time_s"].as_f64().expect("a time") > 0.0);
    let table = bench.ok("plan spec.yaml --no-estimate");
    assert!(table.contains("2  excluded by constraints"), "{table}");
    assert!(table.contains("time unknown"), "{table}");
    let csv = bench.ok("plan spec.yaml --format csv");
    assert!(csv.contains("\ncount,feasible,10\n"), "{csv}");
    assert_eq!(
        fs::read_dir(bench.folder.path()).expect("a folder").count(),
        before
    );
}

#[test]
fn a_huge_space_is_planned_by_sample_and_searched_at_random() {
    let values: Vec<String> = (1..=1000).map(|value| value.to_string()).collect();
    let axes = format!(
        "axes:\n  replica_scheduler.batch_size_cap: [{0}]\n  qps: [{0}]\n  \
         replica_scheduler.chunk_size: [{0}]\n  tensor_parallel: [1, 2]\n",
        values.join(", ")
    );
    let start = SPEC.find("axes:").expect("axes");
    let base = SPEC[..start].replace("roofline", "roofline\n  replica_scheduler: sarathi");
    let spec = format!("{base}{axes}constraints: [tensor_parallel == 2]\n");
    let bench = Bench::new(&spec);
    let json = bench.ok("plan spec.yaml --format json --examine 2000 --no-estimate");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["runs"], &json["examined"]),
        (&2_000_000_000u64.into(), &2000.into())
    );
    let share = json["excluded"].as_f64().expect("a count") / 2e9;
    assert!((share - 0.5).abs() < 0.06, "{share}");
    bench.write(
        "drawn.yaml",
        &format!("{spec}search: {{type: random, samples: 6}}\n"),
    );
    bench.ok("run drawn.yaml --out drawn");
    let table = bench.summary("drawn");
    let drawn = table.rows().map(|row| row.integer("tensor_parallel"));
    assert_eq!(drawn.collect::<Vec<_>>(), [Some(2); 6]);
}

#[test]
fn a_list_of_candidates_runs_row_by_row() {
    let start = SPEC.find("axes:").expect("axes");
    let spec = format!(
        "{}search: {{type: list, file: points.csv}}\n",
        &SPEC[..start]
    );
    let bench = Bench::new(&spec);
    bench.write(
        "points.csv",
        "tensor_parallel,workload.arrivals.type,workload.arrivals.clients,qps\n\
         1,concurrency,4,\n2,poisson,,8\n",
    );
    bench.ok("run spec.yaml --out out");
    let table = bench.summary("out");
    let rows: Vec<_> = table.rows().collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].integer("workload.arrivals.clients"), Some(4));
    assert_eq!(rows[1].integer("workload.arrivals.clients"), None);
    assert!(rows.iter().all(|row| row.text("status") == Some("ok")));
}

#[test]
fn tables_say_what_runs_are_of_and_what_a_list_calls_them() {
    let start = SPEC.find("axes:").expect("axes");
    let base = SPEC[..start].replace("roofline", "roofline\n  qps: 4\n  engine: vllm");
    let bench = Bench::new(&format!("{base}search: {{type: list, file: points.csv}}\n"));
    bench.write(
        "points.csv",
        "name,tensor_parallel,id,qps\nsmall,1,7,8\nlarge,2,x9,\n",
    );
    bench.ok("run spec.yaml --out out");
    let table = bench.summary("out");
    let rows: Vec<_> = table.rows().collect();
    let texts = [
        ("name", "small"),
        ("id", "7"),
        ("model", "llama-3-8b"),
        ("device", "h100"),
        ("engine", "vllm"),
        ("engine_version", "0.24.0"),
        ("backend", "roofline"),
        ("workload.arrivals.type", "poisson"),
    ];
    for (column, text) in texts {
        assert_eq!(rows[0].text(column), Some(text), "{column}");
    }
    assert_eq!(rows[0].integer("workload.requests"), Some(60));
    // An empty cell is as in `base`.
    let rates: Vec<_> = rows.iter().map(|row| row.number("qps")).collect();
    assert_eq!(rates, [Some(8.0), Some(4.0)]);
    // Labels are what a person looks for, and no axes.
    assert_eq!(
        table
            .axes
            .iter()
            .map(|axis| axis.name.as_str())
            .collect::<Vec<_>>(),
        ["tensor_parallel", "qps"]
    );
    let csv = bench.ok("pareto out --all --no-slo --format csv");
    let mut lines = csv.lines();
    let header = lines.next().expect("a header");
    assert!(header.contains(",name,id,tensor_parallel"), "{header}");
    assert!(
        csv.contains(",small,7,1,") && csv.contains(",large,x9,2,"),
        "{csv}"
    );
    let printed = bench.ok("pareto out --all --no-slo");
    assert!(
        printed.contains("small") && printed.contains("x9"),
        "{printed}"
    );
    // A sweep over other axes has the same columns, of the same types.
    bench.write("other.yaml", &SPEC.replace("qps: [4, 16]", "qps: [4]"));
    bench.ok("run other.yaml --out other");
    let other = bench.summary("other");
    let row = other.rows().next().expect("a run");
    assert_eq!(row.text("model"), Some("llama-3-8b"));
    assert_eq!(row.text("engine"), None);
    assert_eq!(row.number("qps"), Some(4.0));
}

#[test]
fn machine_formats_hold_the_result_alone() {
    let bench = Bench::new(SPEC);
    let json = bench.ok("run spec.yaml --out out --format json --quiet");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["deployments"].as_array().map(Vec::len), Some(10));
    let csv = bench.ok("run spec.yaml --out out --resume --format csv --quiet");
    assert_eq!(csv.lines().count(), 11);
    assert!(csv.starts_with("rank,run_index,run_id"), "{csv}");
}

#[test]
fn replications_differ_in_their_requests_and_count_as_one_configuration() {
    let bench = Bench::new(SPEC);
    let json = bench.ok("run spec.yaml --out out --set replications=3 --format json");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["deployments"].as_array().map(Vec::len), Some(10));
    let table = bench.summary("out");
    let rows: Vec<_> = table.rows().collect();
    assert_eq!(rows.len(), 30);
    assert_eq!(rows[2].integer("replication"), Some(2));
    assert_ne!(rows[0].number("ttft_mean_s"), rows[1].number("ttft_mean_s"));
}

#[test]
fn help_is_a_manual() {
    let bench = Bench::new(SPEC);
    let help = bench.ok("--help");
    assert!(help.contains("Exit codes:"), "{help}");
    let commands = [
        "run",
        "plan",
        "validate",
        "pareto",
        "report",
        "explain",
        "catalog",
        "profiles",
        "schema",
        "completions",
    ];
    for command in commands {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} in\n{help}"
        );
        let own = bench.ok(&format!("{command} --help"));
        let example = format!("vidur-sweep {command}");
        assert!(own.contains("Examples:") && own.contains(&example), "{own}");
    }
    let version = bench.ok("--version");
    assert_eq!(
        version,
        format!("vidur-sweep {}\n", env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.ok(&format!("completions {shell}"));
        assert!(script.contains("require-feasible"), "{shell}");
    }
}
