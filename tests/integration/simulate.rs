//! `vidur-sweep simulate` from end to end: what it takes, writes, says and refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;
use vidur_sweep::network::topology::{Fabric, TopologyPlan};
use vidur_sweep::vidur::flags::{SELECTORS, groups};

/// What most tests need no pictures for.
const PLAIN: &str = "--no-metrics_config_store_plots --no-metrics_config_enable_chrome_trace";

/// An empty folder to run in.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.0.path().join(name), text).unwrap();
        self
    }

    /// `simulate` with arguments split at blanks.
    fn try_run(&self, arguments: &str) -> Output {
        let mut command = Command::cargo_bin("vidur-sweep").unwrap();
        command
            .current_dir(self.0.path())
            .arg("simulate")
            .args(arguments.split_whitespace());
        command.output().unwrap()
    }

    /// A run that succeeds: what it said on stderr, and its folder.
    fn run(&self, arguments: &str) -> (String, PathBuf) {
        let before = self.runs();
        let output = self.try_run(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let new: Vec<PathBuf> = (self.runs().into_iter())
            .filter(|run| !before.contains(run))
            .collect();
        assert_eq!(new.len(), 1, "{told}");
        (told, new[0].clone())
    }

    /// What a run says that is refused.
    fn refused(&self, arguments: &str) -> String {
        let output = self.try_run(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {told}");
        assert!(!told.contains("panicked"), "{told}");
        assert!(self.runs().is_empty(), "{arguments} leaves a folder");
        told
    }

    fn runs(&self) -> Vec<PathBuf> {
        let folder = self.0.path().join("simulator_output");
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Header and fields of a CSV file.
fn table(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_path(path)
        .unwrap();
    let row = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
    reader
        .records()
        .map(|record| row(record.unwrap()))
        .collect()
}

/// Whether two tables have the same cells but for rounding.
fn same(a: &[Vec<String>], b: &[Vec<String>]) -> bool {
    let close = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => a == b,
    };
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(close))
}

/// The columns of `table` that `other` has.
fn columns_of(other: &[Vec<String>], table: &[Vec<String>]) -> Vec<Vec<String>> {
    let kept: Vec<usize> = (0..table[0].len())
        .filter(|&column| other[0].contains(&table[0][column]))
        .collect();
    let cells = |row: &Vec<String>| kept.iter().map(|&column| row[column].clone()).collect();
    table.iter().map(cells).collect()
}

/// Flags of a recorded run, without where its files went, and with the run's
/// requests and operator times.
fn recorded(case: &str) -> (PathBuf, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/vidur_runs")
        .join(case);
    let summary = json(&folder.join("summary.json"));
    let mut flags: Vec<String> = (summary["flags"].as_array().unwrap().iter())
        .map(|word| word.as_str().unwrap().to_owned())
        .collect();
    for name in ["output_dir", "cache_dir"] {
        let flag = format!("--metrics_config_{name}");
        let at = flags.iter().position(|word| *word == flag).unwrap();
        flags.drain(at..at + 2);
    }
    for name in ["requests", "predictions"] {
        let file = folder.join(format!("{name}.csv"));
        flags.extend([format!("--{name}_file"), file.display().to_string()]);
    }
    (folder, flags.join(" "))
}

#[test]
fn the_help_lists_every_flag_under_a_heading() {
    let place = Place::new();
    for flag in ["-h", "--help"] {
        let output = place.try_run(flag);
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = help.split_whitespace().collect();
        for group in groups() {
            assert!(
                help.contains(&format!("{}:", group.title)),
                "{}",
                group.title
            );
            for flag in group.flags() {
                let name = format!("--{}", group.full_name(flag));
                assert!(words.contains(&name.as_str()), "{name}");
            }
        }
        for selector in &SELECTORS {
            let name = format!("--{}", selector.flag);
            assert!(words.contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn vidurs_defaults_run_in_an_empty_folder_and_say_what_stands_in() {
    let place = Place::new();
    let (told, run) = place.run("");
    let missing = "./data/profiling/compute/a100/meta-llama/Llama-2-7b-hf/mlp.csv";
    let note = told.lines().find(|line| line.starts_with("note: "));
    let note = note.expect("a note");
    assert!(
        note.contains(missing) && note.contains("backend silicon"),
        "{told}"
    );
    let config = json(&run.join("config.json"));
    let notes = config["vidur_sweep"]["notes"].as_array().unwrap();
    assert!(notes.contains(&Value::from(note.trim_start_matches("note: "))));
    assert_eq!(config["vidur_sweep"]["backend"], "silicon");
    assert_eq!(json(&run.join("summary.json"))["completed"], 128);
    assert_eq!(table(&run.join("request_metrics.csv")).len(), 129);
    let trace = json(&run.join("chrome_trace.json"));
    assert!(!trace["traceEvents"].as_array().unwrap().is_empty());
    for file in [
        "requests.parquet",
        "plots.parquet",
        "replica_statistics.parquet",
        "plots/request_e2e_time.csv",
        "plots/request_e2e_time.png",
        "plots/batch_size.csv",
        "plots/replica_1_stage_1_mfu.json",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
}

#[test]
fn the_commands_of_vidurs_guide_run_in_an_empty_folder() {
    let place = Place::new();
    let llama = "--replica_config_device a100 \
                 --replica_config_model_name meta-llama/Meta-Llama-3-8B \
                 --cluster_config_num_replicas 1 --replica_config_tensor_parallel_size 1 \
                 --replica_config_num_pipeline_stages 1 --request_generator_config_type synthetic";
    let (_, run) = place.run(&format!(
        "{llama} --synthetic_request_generator_config_num_requests 64 {PLAIN}"
    ));
    assert_eq!(json(&run.join("summary.json"))["completed"], 64);
    // Contexts of 16,384 tokens, which the original stops at with a KeyError.
    let (told, run) = place.run(&format!(
        "{llama} --synthetic_request_generator_config_num_requests 512 \
         --length_generator_config_type trace \
         --trace_request_length_generator_config_trace_file \
         ./data/processed_traces/splitwise_conv.csv \
         --trace_request_length_generator_config_max_tokens 16384 \
         --interval_generator_config_type poisson \
         --poisson_request_interval_generator_config_qps 6.45 \
         --replica_scheduler_config_type sarathi \
         --sarathi_scheduler_config_batch_size_cap 512 \
         --sarathi_scheduler_config_chunk_size 512 {PLAIN}"
    ));
    assert_eq!(json(&run.join("summary.json"))["completed"], 512);
    assert!(told.contains("splitwise_conv.csv: not there"), "{told}");
    assert!(told.contains("azure-conv-2023"), "{told}");
    let notes = json(&run.join("config.json"))["vidur_sweep"]["notes"].clone();
    assert_eq!(notes.as_array().unwrap().len(), 2, "{notes}");
}

#[test]
fn strict_files_refuses_what_is_not_there() {
    let place = Place::new();
    let told = place.refused("--strict-files");
    assert!(told.contains("mlp.csv: no such file"), "{told}");
    let told = place.refused("--strict-files --request_generator_config_type trace_replay");
    assert!(told.contains("splitwise_conv.csv: no such file"), "{told}");
    let told = place.refused("--length_generator_config_type trace");
    assert!(
        told.contains("sharegpt_8k") && told.contains("are built in"),
        "{told}"
    );
}

#[test]
fn a_config_json_leads_to_the_same_run() {
    let place = Place::new();
    let (_, first) = place.run(&format!(
        "--cluster_config_num_replicas=2 --replica_scheduler_config_type vllm \
         --vllm_scheduler_config_max_tokens_in_batch 3000 \
         --length_generator_config_type uniform --interval_generator_config_type gamma \
         --gamma_request_interval_generator_config_qps 3 --seed 5 \
         --synthetic_request_generator_config_num_requests 40 {PLAIN}"
    ));
    let (_, again) = place.run(&format!("--config {}/config.json", first.display()));
    let metrics = |run: &Path| text(run.join("request_metrics.csv"));
    assert_eq!(metrics(&first), metrics(&again));
    assert!(!again.join("chrome_trace.json").exists());
    // A flag overrides the file.
    let (_, third) = place.run(&format!(
        "--config {}/config.json --synthetic_request_generator_config_num_requests 41",
        first.display()
    ));
    assert_eq!(metrics(&third).lines().count(), 42);
}

#[test]
fn the_same_run_writes_the_same_bytes() {
    let place = Place::new();
    let flags = "--synthetic_request_generator_config_num_requests 30 --global_scheduler_config_type \
         random --cluster_config_num_replicas 3 --length_generator_config_type zipf \
         --no-metrics_config_store_plots";
    let ((_, a), (_, b)) = (place.run(flags), place.run(flags));
    for file in [
        "request_metrics.csv",
        "requests.parquet",
        "plots.parquet",
        "replica_statistics.parquet",
        "chrome_trace.json",
        "summary.json",
    ] {
        let bytes = |run: &Path| fs::read(run.join(file)).unwrap();
        assert!(bytes(&a) == bytes(&b), "{file}");
    }
    assert_eq!(
        fs::read_dir(a.join("plots")).unwrap().count(),
        fs::read_dir(b.join("plots")).unwrap().count()
    );
    for entry in fs::read_dir(a.join("plots")).unwrap() {
        let name = entry.unwrap().file_name();
        let bytes = |run: &Path| fs::read(run.join("plots").join(&name)).unwrap();
        assert!(bytes(&a) == bytes(&b), "{}", name.display());
    }
}

#[test]
fn flags_are_taken_as_pythons_parser_takes_them() {
    let place = Place::new();
    let (told, run) = place.run(
        "--seed=1 --seed 2 --log_level debug --no-metrics_config_store_plots \
         --metrics_config_enable_chrome_trace --no-metrics_config_enable_chrome_trace \
         --random_forrest_execution_time_predictor_config_max_depth 8 16 \
         --random_forrest_execution_time_predictor_config_max_depth 4 \
         --synthetic_request_generator_config_num_requests 5",
    );
    let config = json(&run.join("config.json"));
    assert_eq!(config["seed"], 2);
    assert_eq!(config["metrics_config"]["enable_chrome_trace"], false);
    let depths = &config["execution_time_predictor_config"]["max_depth"];
    assert_eq!(*depths, serde_json::json!([4]));
    assert!(
        told.contains("note: --log_level has no effect: the original never reads it"),
        "{told}"
    );
    assert!(!run.join("chrome_trace.json").exists());
    assert!(!run.join("plots/request_e2e_time.png").exists());
}

#[test]
fn recorded_runs_come_out_as_recorded() {
    for (case, problem) in [
        ("a02_vllm_preempt", None),
        ("a05_orca_pp2_r2_random", None),
        (
            "g15_ft_7b_varlen_leak",
            Some("570 KV cache blocks are still taken"),
        ),
        (
            "g18_sarathi_7b_time_limit",
            Some("64 requests were unfinished at the time limit"),
        ),
    ] {
        let place = Place::new();
        let (folder, flags) = recorded(case);
        let (told, run) = place.run(&format!("--compat vidur {flags}"));
        let metrics = |folder: &Path| table(&folder.join("request_metrics.csv"));
        assert!(same(&metrics(&folder), &metrics(&run)), "{case}");
        match problem {
            Some(problem) => assert!(told.contains(problem), "{case}: {told}"),
            None => assert!(!told.contains("warning"), "{case}: {told}"),
        }
        // Without the defects, something differs; in this one, only how it ends.
        let (_, fixed) = place.run(&flags);
        let recorded = metrics(&folder);
        let differs = !same(&recorded, &columns_of(&recorded, &metrics(&fixed)));
        assert_eq!(differs, case != "g18_sarathi_7b_time_limit", "{case}");
    }
}

#[test]
fn freed_blocks_let_the_leaking_run_end_in_a_third_of_the_time() {
    let place = Place::new();
    let (_, flags) = recorded("g15_ft_7b_varlen_leak");
    let duration = |run: &Path| {
        json(&run.join("summary.json"))["duration_s"]
            .as_f64()
            .unwrap()
    };
    let (_, leaking) = place.run(&format!("--compat vidur {flags}"));
    let (told, fixed) = place.run(&flags);
    assert!(!told.contains("still taken"), "{told}");
    assert!(duration(&fixed) < 0.4 * duration(&leaking));
}

#[test]
fn a_prompt_over_the_budget_does_not_block_the_queue() {
    let place = Place::new();
    place.write(
        "requests.csv",
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,5\n1,2000,5\n2,100,5\n",
    );
    let flags = format!(
        "--requests_file requests.csv --replica_scheduler_config_type vllm \
         --vllm_scheduler_config_max_tokens_in_batch 1024 {PLAIN}"
    );
    let (told, run) = place.run(&flags);
    assert_eq!(json(&run.join("summary.json"))["completed"], 2);
    assert!(
        told.contains("1 request was rejected: prompt longer than the token budget"),
        "{told}"
    );
    let (told, run) = place.run(&format!("--compat vidur {flags}"));
    assert_eq!(json(&run.join("summary.json"))["completed"], 1);
    assert!(told.contains("2 requests were never scheduled"), "{told}");
}

#[test]
fn lightllm_counts_tokens_whatever_the_block_size() {
    let place = Place::new();
    let flags = |block_size: u32, num_blocks: u32| {
        format!(
            "--replica_scheduler_config_type lightllm --interval_generator_config_type static \
             --synthetic_request_generator_config_num_requests 24 --replica_config_device a100 \
             --lightllm_scheduler_config_block_size {block_size} \
             --lightllm_scheduler_config_num_blocks {num_blocks} {PLAIN}"
        )
    };
    let duration = |run: &Path| {
        json(&run.join("summary.json"))["duration_s"]
            .as_f64()
            .unwrap()
    };
    let (_, ones) = place.run(&flags(1, 32_000));
    let (_, sixteens) = place.run(&flags(16, 2_000));
    // The same memory: at most a block a request is lost.
    let ratio = duration(&sixteens) / duration(&ones);
    assert!((0.98..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn the_originals_assertions_of_lightllm_are_told() {
    let place = Place::new();
    let flags = "--compat vidur --replica_scheduler_config_type lightllm";
    let told = place.refused(flags);
    assert!(
        told.contains("--lightllm_scheduler_config_block_size is 16"),
        "{told}"
    );
    let told = place.refused(&format!(
        "{flags} --lightllm_scheduler_config_block_size 1 --replica_config_num_pipeline_stages 2"
    ));
    assert!(
        told.contains("--replica_config_num_pipeline_stages is 2"),
        "{told}"
    );
}

#[test]
fn a_duration_ends_the_arrivals() {
    let place = Place::new();
    let (_, run) = place.run(&format!(
        "--synthetic_request_generator_config_duration 30 \
         --poisson_request_interval_generator_config_qps 2 {PLAIN}"
    ));
    let arrivals = text(run.join("plots/request_arrival_time_series.csv"));
    let last = arrivals.lines().last().unwrap().split(',').nth(1).unwrap();
    let last: f64 = last.parse().unwrap();
    assert!((20.0..30.0).contains(&last), "{arrivals}");
    let count = table(&run.join("request_metrics.csv")).len() - 1;
    assert!((30..90).contains(&count), "{count}");
}

#[test]
fn a_trace_shorter_than_the_run_is_gone_through_again() {
    let place = Place::new();
    place.write(
        "lengths.csv",
        "num_prefill_tokens,num_decode_tokens\n100,10\n50,5\n30,7\n",
    );
    let flags = format!(
        "--length_generator_config_type trace \
         --trace_request_length_generator_config_trace_file lengths.csv \
         --synthetic_request_generator_config_num_requests 9 {PLAIN}"
    );
    let (_, run) = place.run(&flags);
    assert_eq!(json(&run.join("summary.json"))["completed"], 9);
    let place = Place::new();
    place.write(
        "lengths.csv",
        "num_prefill_tokens,num_decode_tokens\n100,10\n",
    );
    let told = place.refused(&format!("--compat vidur {flags}"));
    assert!(
        told.contains("the trace of lengths ends after 1 request"),
        "{told}"
    );
}

#[test]
fn results_are_printed_as_json_and_csv() {
    let place = Place::new();
    let flags = format!("--synthetic_request_generator_config_num_requests 6 --quiet {PLAIN}");
    let output = place.try_run(&format!("--format json {flags}"));
    assert!(output.stderr.is_empty());
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["completed"], 6);
    assert!(
        place
            .0
            .path()
            .join(figures["output_dir"].as_str().unwrap())
            .is_dir()
    );
    let output = place.try_run(&format!("--format csv {flags}"));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut reader = csv::Reader::from_reader(printed.as_bytes());
    let rows: Vec<(String, String)> = reader.deserialize().map(Result::unwrap).collect();
    assert!(
        rows.contains(&("completed".to_owned(), "6".to_owned())),
        "{printed}"
    );
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    let place = Place::new();
    let header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
    for (rows, message) in [
        (
            "0,100,10\n1,abc,3\n",
            "requests.csv:3:3: column `num_prefill_tokens` is `abc`",
        ),
        (
            "-1,100,10\n",
            "requests.csv:2:1: column `arrived_at` is `-1`",
        ),
        (
            "nan,100,10\n",
            "requests.csv:2:1: column `arrived_at` is `nan`",
        ),
        (
            "0,100,0\n",
            "requests.csv:2:7: column `num_decode_tokens` is `0`",
        ),
        ("0,100\n", "requests.csv:2:1: 2 fields, the header has 3"),
        (
            "0,4294967295,4294967295\n",
            "requests.csv:2:3: a request of 4294967295 prompt and 4294967295 output tokens; allowed is 16777216 together",
        ),
        ("", "requests.csv: has no requests"),
    ] {
        place.write("requests.csv", &format!("{header}{rows}"));
        let told = place.refused("--requests_file requests.csv");
        assert!(told.contains(message), "{rows}: {told}");
    }
    place.write("requests.csv", "arrived_at,num_prefill_tokens\n0,1\n");
    let told = place.refused("--requests_file requests.csv");
    assert!(
        told.contains("requests.csv:1:1: has no column `num_decode_tokens`"),
        "{told}"
    );
    for (rows, message) in [
        (
            "attn_decode,1,64,fast\n",
            "predictions.csv:2:18: ms: `fast` is not a number",
        ),
        (
            "attn_decod,1,64,1\n",
            "predictions.csv:2:1: op: `attn_decod` is not an operator",
        ),
        (
            "attn_decode,1,64,1\n",
            "predictions.csv: no rows for attn_pre_proj",
        ),
    ] {
        place.write("predictions.csv", &format!("op,f0,f1,ms\n{rows}"));
        let told = place.refused("--predictions_file predictions.csv");
        assert!(told.contains(message), "{rows}: {told}");
    }
    for (text, message) in [
        ("[]", "config.json: is not an object"),
        ("{", "config.json:1:1: not JSON"),
        (
            r#"{"request_generator_config": 3}"#,
            "key `request_generator_config`: value 3",
        ),
        (
            r#"{"seeds": 3}"#,
            "unknown key `seeds`; did you mean `seed`?",
        ),
    ] {
        place.write("config.json", text);
        let told = place.refused("--config config.json");
        assert!(told.contains(message), "{text}: {told}");
    }
}

#[test]
fn requests_out_of_order_are_sorted_and_that_is_told() {
    let place = Place::new();
    place.write(
        "requests.csv",
        "num_decode_tokens,arrived_at,comment,num_prefill_tokens\n5,3,late,60\n9,0,early,50\n",
    );
    for compat in ["", "--compat vidur"] {
        let (told, run) = place.run(&format!("--requests_file requests.csv {compat} {PLAIN}"));
        assert!(told.contains("numbered in order of arrival"), "{told}");
        let rows = table(&run.join("request_metrics.csv"));
        let column = rows[0]
            .iter()
            .position(|name| name == "request_num_prefill_tokens");
        assert_eq!(rows[1][column.unwrap()].parse::<f64>(), Ok(50.0));
    }
}

#[test]
fn what_cannot_be_run_is_refused_in_one_message() {
    let place = Place::new();
    for (flags, message) in [
        (
            "--poisson_request_interval_generator_config_qps nan",
            "a number greater than 0",
        ),
        ("--seed 4294967296", "a whole number from 0 to 4294967295"),
        (
            "--replica_scheduler_config_type sarati",
            "did you mean `sarathi`?",
        ),
        ("--replica_config_device a1000", "did you mean `a100`?"),
        (
            "--cluster_config_num_replicas 1000000",
            "allowed is 1 to 100000",
        ),
        (
            "--replica_config_num_pipeline_stages 33",
            "exceeds the 32 layers",
        ),
        (
            "--replica_config_tensor_parallel_size 3",
            "does not divide 32",
        ),
        (
            "--synthetic_request_generator_config_num_requests 4000000000",
            "asks for 4000000000 requests; allowed are 100000000",
        ),
        (
            "--synthetic_request_generator_config_duration 1e12",
            "asks for 500000000000 requests",
        ),
        (
            "--synthetic_request_generator_config_duration 9 --interval_generator_config_type \
             static",
            "never passes with static intervals",
        ),
        (
            "--synthetic_request_generator_config_num_requests None",
            "goes on to the end",
        ),
        (
            "--length_generator_config_type uniform \
             --uniform_request_length_generator_config_min_tokens 5000",
            "--uniform_request_length_generator_config_min_tokens",
        ),
        (
            "--metrics_config_min_batch_index 9 --metrics_config_max_batch_index 3",
            "no batch would be kept",
        ),
        (
            "--fixed_request_length_generator_config_max_tokens 4294967295",
            "max_tokens of the length generator is 4294967295; allowed is 2 to 16777216",
        ),
        (
            "--poisson_request_interval_generator_config_qps 1e-308",
            "requests take inf s to arrive; allowed is 1e10 s",
        ),
        ("--compat python", "invalid value 'python'"),
        ("stray", "unexpected argument 'stray'"),
    ] {
        let told = place.refused(flags);
        assert!(told.contains(message), "{flags}: {told}");
    }
}

#[test]
fn an_output_folder_that_cannot_be_made_is_told_before_simulating() {
    let place = Place::new();
    place.write("file", "");
    let output = place.try_run("--metrics_config_output_dir file");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("error: file: ") && !told.contains("simulated in"),
        "{told}"
    );
}

/// DeepSeek-V3 on eight A100s, as a document of Vidur-AlibabaCloud has it.
const DEEPSEEK: &str = "--replica_config_pd_p2p_comm_bandwidth 800 \
    --replica_config_nvlink_bandwidth 1600 --replica_config_rdma_bandwidth 800 \
    --replica_config_pd_p2p_comm_dtype float32 \
    --poisson_request_interval_generator_config_qps 100 \
    --synthetic_request_generator_config_num_requests 5 --length_generator_config_type fixed \
    --fixed_request_length_generator_config_prefill_tokens 1024 \
    --fixed_request_length_generator_config_decode_tokens 10 \
    --trace_request_length_generator_config_trace_file ./data/processed_traces/splitwise_conv.csv \
    --cluster_config_num_replicas 4 --replica_config_pd_node_ratio 0.5 \
    --global_scheduler_config_type split_wise --replica_scheduler_config_type split_wise \
    --replica_config_model_name deepseek-671B --replica_config_tensor_parallel_size 2 \
    --replica_config_num_pipeline_stages 1 --replica_config_expert_model_parallel_size 8 \
    --random_forrest_execution_time_predictor_config_backend aicb \
    --no-metrics_config_store_plots";

#[test]
fn what_does_not_fit_is_shown_with_what_would_and_goes_on_or_is_refused() {
    let place = Place::new();
    let told = place.refused(&format!("{DEEPSEEK} --memory-check refuse"));
    assert!(told.contains("GiB/GPU exceed"), "{told}");
    let (told, run) = place.run(DEEPSEEK);
    assert!(told.contains("it fits with tensor_parallel 8"), "{told}");
    let summary = json(&run.join("summary.json"));
    assert_eq!(summary["memory_feasible"], false);
    assert_eq!(summary["completed"], 5);
    assert_eq!(
        json(&run.join("config.json"))["vidur_sweep"]["memory_feasible"],
        false
    );
    let metrics = text(run.join("request_metrics.csv"));
    assert!(
        metrics.lines().next().unwrap().ends_with(",tbt"),
        "{metrics}"
    );
    assert!(metrics.contains(",float32,"), "{metrics}");
}

/// A SimAI whose all-reduces take 100 us, but for the largest, of which it says
/// nothing; it notes its calls. Written by another program: one that this has
/// open for writing could not be started while other tests start theirs.
#[cfg(unix)]
const SIMAI: &str = r#"mkdir -p simai/bin && cat > simai/bin/SimAI_simulator << 'END' &&
#!/bin/sh
grep layer0 workload.txt >> "$(dirname "$0")/calls"
bytes=$(sed -n 's/^layer0 -1 1 ALLREDUCE \([0-9]*\) .*/\1/p' workload.txt)
test "$bytes" -gt 4000000 || echo 'total exposed comm,100.000,total comp,0.001' > ncclFlowModel_EndToEnd.csv
END
chmod +x simai/bin/SimAI_simulator"#;

#[cfg(unix)]
#[test]
fn an_installed_simai_prices_collectives_once() {
    let place = Place::new();
    let flags = format!(
        "{PLAIN} --replica_config_model_name meta-llama/Meta-Llama-3-8B \
         --replica_config_tensor_parallel_size 4 --compat vidur-alibabacloud \
         --synthetic_request_generator_config_num_requests 3 --use-simai-binary \
         --random_forrest_execution_time_predictor_config_simai_dir simai \
         --random_forrest_execution_time_predictor_config_simai_simulation_topo topology \
         --random_forrest_execution_time_predictor_config_simai_simulation_config SimAI.conf"
    );
    let told = place.refused(&flags);
    assert!(told.contains("--use-simai-binary is for"), "{told}");
    let flags = format!(
        "{flags} --random_forrest_execution_time_predictor_config_backend simai_simulation"
    );
    let told = place.refused(&flags);
    assert!(
        told.contains("simai/bin/SimAI_simulator: no such file"),
        "{told}"
    );

    let shell = |text: &str| {
        let mut shell = std::process::Command::new("sh");
        let status = shell
            .current_dir(place.0.path())
            .args(["-c", text])
            .status();
        assert!(status.unwrap().success());
    };
    shell(SIMAI);
    let told = place.refused(&flags);
    assert!(
        told.contains("topology: no such file (and --use-simai-binary)"),
        "{told}"
    );
    let plan = TopologyPlan::new(Fabric::SpectrumX, 8);
    place.write("topology", &plan.generate().unwrap().to_string());
    place.write("SimAI.conf", "ENABLE_QCN 1\n");

    let (told, first) = place.run(&flags);
    assert_eq!(json(&first.join("summary.json"))["completed"], 3);
    let calls = || text(place.0.path().join("simai/bin/calls"));
    let sizes: Vec<String> = calls().lines().map(str::to_owned).collect();
    assert!(sizes.len() > 2, "{sizes:?}");
    let mut different = sizes.clone();
    different.sort();
    different.dedup();
    assert_eq!(sizes.len(), different.len(), "a size is simulated once");
    // First what it is tried with; Llama-3-8B has 8192 bytes a token.
    let bytes = |call: &String| call.split(' ').nth(4).unwrap().parse::<u64>().unwrap();
    assert_eq!(bytes(&sizes[0]), 4096);
    assert!(
        sizes[1..]
            .iter()
            .all(|call| bytes(call).is_multiple_of(8192))
    );
    // Without a result for whole prompts, and said so.
    let failed = |call: &String| bytes(call) > 4_000_000;
    assert!(sizes.iter().any(failed), "{sizes:?}");
    assert!(told.contains("no result in ncclFlowModel_EndToEnd.csv; priced as flows instead"));

    // From what is kept: only what had no result is tried again.
    let (_, second) = place.run(&flags);
    assert_eq!(
        text(first.join("request_metrics.csv")),
        text(second.join("request_metrics.csv"))
    );
    let all: Vec<String> = calls().lines().map(str::to_owned).collect();
    assert!(all[sizes.len()..].iter().all(failed), "{all:?}");

    // A program that does not run at all.
    shell("echo 'exit 7' > simai/bin/SimAI_simulator");
    let output = place.try_run(&flags);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("SimAI_simulator (ALLREDUCE of 4096 bytes, 4 ranks)"),
        "{told}"
    );
}

#[test]
fn the_network_backends_run_without_simai() {
    let place = Place::new();
    for backend in ["simai_analytical", "simai_simulation", "vidur"] {
        let (told, run) = place.run(&format!(
            "{PLAIN} --replica_config_model_name meta-llama/Meta-Llama-3-8B \
             --replica_config_tensor_parallel_size 4 \
             --synthetic_request_generator_config_num_requests 10 \
             --random_forrest_execution_time_predictor_config_backend {backend}"
        ));
        assert_eq!(json(&run.join("summary.json"))["completed"], 10);
        assert_eq!(
            told.contains("Spectrum-X"),
            backend == "simai_simulation",
            "{told}"
        );
    }
}

/// A python that stands for AICB's: 61 layers, attention twice as long in decode;
/// it notes its calls.
#[cfg(unix)]
const AICB: &str = r#"mkdir -p bin simai/aicb/workload_generator &&
touch simai/aicb/workload_generator/Vidur_workload_generator.py &&
cat > bin/python << 'END' &&
#!/bin/sh
[ "$2" = workload_generator.Vidur_workload_generator ] || exit 9
model=$3; shift 4; pp=1
while [ $# -gt 0 ]; do
  case $1 in
    --seq_length) seq=$2; shift;; --micro_batch) bs=$2; shift;; --world_size) ws=$2; shift;;
    --tensor_model_parallel_size) tp=$2; shift;; --expert_model_parallel_size) ep=$2; shift;;
    --phase) phase=$2; shift;;
  esac; shift
done
if [ -e fails ]; then echo "no GPU here" >&2; exit 3; fi
echo "$phase $bs $seq" >> calls
mkdir -p results/workload
{ printf 'layer_id\tlayer_name\tcomp_time\tcomm_size\n'; layer=0
  while [ $layer -lt 61 ]; do
    if [ $phase = decode ]; then time=200000; else time=100000; fi
    part=moe; [ $layer -lt 3 ] && part=mlp
    printf '%d\tattention\t%d\t0\n%d\t%s\t50000\t0\n' $layer $time $layer $part
    layer=$((layer + 1))
  done
} > results/workload/vidur-$model-world_size$ws-tp$tp-pp$pp-ep$ep-bs$bs-seq$seq-$phase.csv
END
chmod +x bin/python"#;

#[cfg(unix)]
#[test]
fn an_installed_aicb_measures_what_is_missing() {
    let place = Place::new();
    let simai = "--use-aicb --random_forrest_execution_time_predictor_config_simai_dir simai";
    let flags = format!("{DEEPSEEK} {simai}");
    let told = place.refused(&flags);
    assert!(told.contains("this is no AICB"), "{told}");
    let told = place.refused(&format!("{simai} --no-metrics_config_store_plots"));
    assert!(told.contains("--use-aicb is for"), "{told}");
    let written = std::process::Command::new("sh")
        .args(["-c", AICB])
        .current_dir(place.0.path())
        .status();
    assert!(written.unwrap().success());
    let with_python = |flags: &str| {
        let path = format!(
            "{}:{}",
            place.0.path().join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let mut command = Command::cargo_bin("vidur-sweep").unwrap();
        command.current_dir(place.0.path()).env("PATH", path);
        let output = command
            .arg("simulate")
            .args(flags.split_whitespace())
            .output();
        let output = output.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), told)
    };
    place.write("simai/aicb/fails", "");
    let (code, told) = with_python(&flags);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("no GPU here"), "{told}");
    fs::remove_file(place.0.path().join("simai/aicb/fails")).unwrap();
    let (code, told) = with_python(&flags);
    assert_eq!(code, Some(0), "{told}");
    let calls = text(place.0.path().join("simai/aicb/calls"));
    // Prompts of 1,024 tokens within a budget of 4,096; contexts up to 1,034 and
    // batches up to 128.
    for call in ["prefill 1 128", "prefill 1 4096", "decode 1 256"] {
        assert!(calls.lines().any(|line| line == call), "{call}: {calls}");
    }
    assert!(calls.contains("decode 256 4096"), "{calls}");
    let first = calls.lines().count();
    assert!(
        told.contains(&format!("{first} of {first} files measured")),
        "{told}"
    );
    // Another run finds them all.
    let (code, told) = with_python(&flags);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(&format!("0 of {first} files measured")),
        "{told}"
    );
    let config = json(&place.runs()[1].join("config.json"));
    let folder = config["vidur_sweep"]["run_config"]["aicb_dir"].clone();
    assert_eq!(folder, "simai/aicb/results/workload", "{config}");
}

#[test]
fn a_damaged_file_of_aicb_is_an_error_and_not_passed_over() {
    let place = Place::new();
    let folder = "simai/aicb/results/workload";
    fs::create_dir_all(place.0.path().join(folder)).unwrap();
    let name = "vidur-DeepSeek-671B-world_size4-tp2-pp1-ep4-bs1-seq128-prefill.csv";
    place.write(
        &format!("{folder}/{name}"),
        "layer_id\tlayer_name\n0\tattention\n",
    );
    let told = place.refused(&format!(
        "{DEEPSEEK} --random_forrest_execution_time_predictor_config_simai_dir simai"
    ));
    assert!(told.contains(name), "{told}");
}

/// Two pools, without saying how many replicas prefill.
const SPLIT_WISE: &str = "--replica_config_model_name meta-llama/Meta-Llama-3-8B \
    --cluster_config_num_replicas 4 --global_scheduler_config_type split_wise \
    --replica_scheduler_config_type split_wise --no-metrics_config_store_plots \
    --synthetic_request_generator_config_num_requests 20 \
    --poisson_request_interval_generator_config_qps 5";

#[test]
fn split_wise_has_half_of_the_replicas_prefill_unless_told_otherwise() {
    const RATIO: &str = "--replica_config_pd_node_ratio";
    let place = Place::new();
    let later = place.refused(&format!("{SPLIT_WISE} --compat vidur-alibabacloud"));
    assert!(later.contains("pd_node_ratio below 1"), "{later}");
    for told_otherwise in ["", "--compat vidur-alibabacloud-1.5"] {
        let refused = place.try_run(&format!("{SPLIT_WISE} {told_otherwise} {RATIO} 1"));
        assert_eq!(refused.status.code(), Some(2));
    }
    for compat in ["", "--compat vidur-alibabacloud-1.5"] {
        let (told, absent) = place.run(&format!("{SPLIT_WISE} {compat}"));
        assert!(
            told.contains(&format!("note: {RATIO} is not given: 0.5")),
            "{told}"
        );
        let (told, given) = place.run(&format!("{SPLIT_WISE} {compat} {RATIO} 0.5"));
        assert!(!told.contains("is not given"), "{told}");
        let metrics = |run: &Path| text(run.join("request_metrics.csv"));
        assert_eq!(metrics(&absent), metrics(&given), "{compat}");
        let config = json(&absent.join("config.json"));
        let replica = &config["cluster_config"]["replica_config"];
        assert_eq!(replica["pd_node_ratio"], 0.5);
        // The document of a run says it: nothing is left to a default.
        let again = absent.join("config.json");
        let (told, _) = place.run(&format!("--config {} {compat}", again.display()));
        assert!(!told.contains("is not given"), "{told}");
        let text = text(again.clone()).replace("\"pd_node_ratio\": 0.5", "\"pd_node_ratio\": 1.0");
        place.write("one.json", &text);
        let refused = place.try_run(&format!("--config one.json {compat}"));
        assert_eq!(refused.status.code(), Some(2), "1 stands there");
    }
    // Neither scheduler splits: one pool.
    let (_, run) = place.run(PLAIN);
    let config = json(&run.join("config.json"));
    assert_eq!(
        config["cluster_config"]["replica_config"]["pd_node_ratio"],
        1
    );
}

/// A column of a table by name, in numbers; none where it is blank.
fn numbers(table: &[Vec<String>], name: &str) -> Vec<Option<f64>> {
    let column = table[0]
        .iter()
        .position(|header| header == name)
        .expect(name);
    table[1..]
        .iter()
        .map(|row| row[column].parse().ok())
        .collect()
}

/// A column of numbers of a Parquet file.
fn parquet_numbers(path: &Path, name: &str) -> Vec<Option<f64>> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Float64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap();
    let mut values = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        values.extend(
            batch
                .column_by_name(name)
                .unwrap()
                .as_primitive::<Float64Type>(),
        );
    }
    values
}

#[test]
fn both_tables_of_requests_mean_the_same_bandwidth_and_time_between_tokens() {
    let place = Place::new();
    let single = "--length_generator_config_type uniform \
         --uniform_request_length_generator_config_min_tokens 4 \
         --uniform_request_length_generator_config_max_tokens 12 \
         --uniform_request_length_generator_config_prefill_to_decode_ratio 4";
    for flags in [
        SPLIT_WISE.to_owned(),
        format!("{SPLIT_WISE} {single}"),
        PLAIN.to_owned(),
    ] {
        let (_, run) = place.run(&flags);
        let csv = table(&run.join("request_metrics.csv"));
        let parquet = run.join("requests.parquet");
        for name in [
            "pd_p2p_comm_bandwidth",
            "pd_p2p_comm_time",
            "decode_time",
            "tbt",
        ] {
            let close = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs(),
                (a, b) => a.is_none() && b.is_none(),
            };
            let (a, b) = (numbers(&csv, name), parquet_numbers(&parquet, name));
            assert!(
                a.len() == b.len() && a.iter().zip(&b).all(close),
                "{name}: {a:?} {b:?}"
            );
        }
        let tokens = numbers(&csv, "request_num_decode_tokens");
        for (tokens, tbt) in tokens.into_iter().zip(numbers(&csv, "tbt")) {
            assert_eq!(tbt.is_none(), tokens == Some(1.0));
        }
        let moved = numbers(&csv, "pd_p2p_comm_size");
        let times = numbers(&csv, "pd_p2p_comm_time");
        let rates = numbers(&csv, "pd_p2p_comm_bandwidth");
        for ((size, time_s), rate) in moved.into_iter().zip(times).zip(rates) {
            let expected = size.zip(time_s).map(|(size, time_s)| size / time_s);
            let expected = expected.filter(|rate| rate.is_finite());
            assert_eq!(expected.is_some(), rate.is_some());
            assert!(expected.is_none_or(|e| (e - rate.unwrap()).abs() <= 1e-9 * e));
        }
    }
}

#[test]
fn requests_beyond_the_models_positions_are_served_and_told_of() {
    let place = Place::new();
    let long = "--replica_config_model_name meta-llama/Meta-Llama-3-8B \
        --synthetic_request_generator_config_num_requests 4 --length_generator_config_type fixed \
        --fixed_request_length_generator_config_prefill_tokens 9000 \
        --fixed_request_length_generator_config_decode_tokens 20";
    let (told, run) = place.run(&format!("{PLAIN} {long}"));
    assert!(
        told.contains("warning: 4 of 4 requests are longer than the 8192 positions"),
        "{told}"
    );
    let summary = json(&run.join("summary.json"));
    assert_eq!(summary["completed"], 4);
    assert_eq!(summary["rejected_by_max_model_len"], 0);
    let warnings = &json(&run.join("config.json"))["vidur_sweep"]["warnings"];
    assert!(
        warnings.to_string().contains("8192 positions"),
        "{warnings}"
    );
    let (told, _) = place.run(&format!("{PLAIN} {long} --compat vidur"));
    assert!(!told.contains("positions"), "{told}");
    let short = "--synthetic_request_generator_config_num_requests 4";
    let (told, _) = place.run(&format!("{PLAIN} {short}"));
    assert!(!told.contains("positions"), "{told}");
}
