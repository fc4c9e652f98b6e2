//! What `MetricsStore` writes against what recorded runs of Vidur wrote.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

#[path = "support/vidur_runs.rs"]
mod vidur_runs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vidur_runs::{Case, close, fixtures, named_cases};
use vidur_sweep::simulator::{
    Compat, KvTransferSpec, PoolRole, PoolSpec, SimulationTotals, simulate,
};
use vidur_sweep::units::DType;
use vidur_sweep::vidur::metrics::{ClusterFacts, MetricsConfig, MetricsStore, TransferFacts};

/// What the recorded runs asked for.
const RECORDED: MetricsConfig = MetricsConfig {
    write_metrics: true,
    write_json_trace: false,
    enable_chrome_trace: true,
    store_plots: false,
    store_operation_metrics: true,
    store_token_completion_metrics: true,
    store_request_metrics: true,
    store_batch_metrics: true,
    store_utilization_metrics: true,
    keep_individual_batch_metrics: true,
    subsamples: None,
    min_batch_index: None,
    max_batch_index: None,
};

/// Simulates a case and writes its files into `dir`.
fn run(
    case: &Case,
    compat: Compat,
    config: MetricsConfig,
    dir: &Path,
) -> (SimulationTotals, Vec<PathBuf>) {
    let prepared = case.prepare(Compat::Vidur, true).unwrap();
    let mut cluster = prepared.deployment.cluster.clone();
    cluster.compat = compat;
    let facts = ClusterFacts {
        compat,
        ..prepared.facts()
    };
    let mut store = MetricsStore::new(config, facts);
    let totals = simulate(&cluster, &prepared.workload, &mut store);
    let files = store.write(dir).unwrap();
    for file in &files {
        assert!(file.is_file(), "{}", file.display());
    }
    (totals, files)
}

fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (text.lines())
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}

/// The first difference between two CSV files; numbers are compared as such.
fn compare_csv(recorded: &Path, ours: &Path) -> Result<(), String> {
    let name = recorded.file_name().unwrap().to_string_lossy().into_owned();
    let (recorded, ours) = (lines(recorded), lines(ours));
    if recorded.len() != ours.len() {
        return Err(format!(
            "{name}: {} rows, ours {}",
            recorded.len(),
            ours.len()
        ));
    }
    for (row, (a, b)) in recorded.iter().zip(&ours).enumerate() {
        let same_field = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => close(a, b),
            _ => a == b,
        };
        if a.len() != b.len() || !a.iter().zip(b).all(same_field) {
            let place = a.iter().zip(b).position(|pair| !same_field(pair));
            let column = place.map_or("?", |place| &recorded[0][place]);
            return Err(format!("{name}, row {row}, {column}: {a:?}, ours {b:?}"));
        }
    }
    Ok(())
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every key of the statistics in `plots`.
fn statistics(dir: &Path) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir.join("plots")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let Value::Object(keys) = json(&path) else {
                panic!("{}", path.display());
            };
            all.extend(keys.into_iter().map(|(key, v)| (key, v.as_f64().unwrap())));
        }
    }
    all
}

fn compare_statistics(case: &Case, dir: &Path) -> Result<(), String> {
    let recorded = case.summary["utilization"].as_object().unwrap();
    let ours = statistics(dir);
    if recorded.len() != ours.len() {
        return Err(format!("{} keys, ours {}", recorded.len(), ours.len()));
    }
    for (key, value) in recorded {
        let ours = ours.get(key).copied().unwrap_or(f64::NAN);
        if !close(value.as_f64().unwrap(), ours) {
            return Err(format!("{key}: {value}, ours {ours}"));
        }
    }
    Ok(())
}

fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            // Whole numbers stay whole.
            a.is_f64() == b.is_f64() && close(a.as_f64().unwrap(), b.as_f64().unwrap())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && (a.iter().zip(b)).all(|((k, a), (l, b))| k == l && same_json(a, b))
        }
        (a, b) => a == b,
    }
}

fn compare_trace(recorded: &Path, ours: &Path) -> Result<(), String> {
    let events = |path: &Path| json(path)["traceEvents"].as_array().unwrap().clone();
    let (recorded, ours) = (events(recorded), events(ours));
    if recorded.len() != ours.len() {
        return Err(format!("{} slices, ours {}", recorded.len(), ours.len()));
    }
    let mut pairs = recorded.iter().zip(&ours);
    match pairs.find(|(a, b)| !same_json(a, b)) {
        None => Ok(()),
        Some((a, b)) => Err(format!("slice {a}, ours {b}")),
    }
}

/// Every file of a case that was recorded.
fn compare(case: &Case) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    run(case, Compat::Vidur, RECORDED, dir.path());
    let mut names = vec!["request_metrics.csv".to_owned()];
    let optional = ["batch_metrics.csv", "operation_metrics.csv"];
    names.extend(optional.map(str::to_owned));
    for entry in fs::read_dir(case.folder.join("plots")).unwrap() {
        let name = entry.unwrap().file_name();
        names.push(format!("plots/{}", name.to_string_lossy()));
    }
    let mut compared = 0;
    for name in names {
        let recorded = case.folder.join(&name);
        if !recorded.exists() && optional.contains(&name.as_str()) {
            continue;
        }
        compare_csv(&recorded, &dir.path().join(&name))?;
        compared += 1;
    }
    compare_statistics(case, dir.path())?;
    let trace = case.folder.join("chrome_trace.json");
    if trace.exists() {
        compare_trace(&trace, &dir.path().join("chrome_trace.json"))?;
        compared += 1;
    }
    Ok(compared + 1)
}

fn compare_all(cases: &[Case]) {
    let mut different = 0;
    for case in cases {
        match compare(case) {
            Ok(files) => println!("{}: {files} files are the same", case.name()),
            Err(difference) => {
                different += 1;
                println!("{}: DIFFERENT: {difference}", case.name());
            }
        }
    }
    assert_eq!(different, 0, "of {} cases", cases.len());
}

#[test]
fn recorded_files_are_reproduced() {
    compare_all(&fixtures());
}

#[test]
#[ignore = "needs the folder of recorded runs"]
fn more_recorded_files_are_reproduced() {
    compare_all(&named_cases());
}

/// Everything there is to write but pictures.
const ALL: MetricsConfig = MetricsConfig {
    write_json_trace: true,
    ..RECORDED
};

fn fixture(name: &str) -> Case {
    let mut cases = fixtures().into_iter();
    cases.find(|case| case.name().starts_with(name)).unwrap()
}

/// Rows of a CSV file by the name of their columns.
fn columns(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let lines = lines(path);
    let column = |place: usize| {
        let values = lines[1..].iter().map(move |line| line[place].clone());
        values.map(|text| text.parse().unwrap_or(f64::NAN))
    };
    (lines[0].iter().enumerate())
        .map(|(place, name)| (name.clone(), column(place).collect()))
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Two replicas of two stages: means over time, each in the file of its number.
#[test]
fn utilization_is_over_time_and_in_its_own_file() {
    let case = fixture("a05");
    let dir = tempfile::tempdir().unwrap();
    let (totals, _) = run(&case, Compat::None, ALL, dir.path());
    let all = statistics(dir.path());
    let means = |what: &str| {
        let end = format!("{what}_weighted_mean");
        let found = all.iter().filter(|(key, _)| key.ends_with(&end));
        mean(found.map(|(_, value)| *value))
    };
    assert!(close(
        means("memory_usage"),
        totals.kv_cache_utilization * 100.0
    ));
    assert!(close(
        means("busy_time_percent"),
        totals.gpu_busy_fraction * 100.0
    ));
    // The slices of the trace say which replica and stage were busy.
    let trace = json(&dir.path().join("chrome_trace.json"));
    let slices = trace["traceEvents"].as_array().unwrap();
    for (replica, stage) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let of = |s: &&Value| s["pid"] == replica && s["tid"] == stage;
        let busy_us: f64 = (slices.iter().filter(of))
            .map(|slice| slice["dur"].as_f64().unwrap())
            .sum();
        let name = format!(
            "replica_{}_stage_{}_busy_time_percent",
            replica + 1,
            stage + 1
        );
        let expected = busy_us * 1e-6 / totals.end_s * 100.0;
        let ours = all[&format!("{name}_weighted_mean")];
        assert!(
            (ours / expected - 1.0).abs() < 1e-9,
            "{name}: {ours}, {expected}"
        );
        let file = json(&dir.path().join(format!("plots/{name}.json")));
        assert_eq!(
            (&file["replica_id"], &file["stage_id"]),
            (&replica.into(), &stage.into())
        );
    }
    // MFU is work over time and peak: 2 x 6.6e9 weights, 13e9 operations a token.
    let batches = columns(&dir.path().join("batch_metrics.csv"));
    let tokens: f64 = batches["batch_num_tokens"].iter().sum();
    let linear = tokens * 13.2e9 / (totals.end_s * 4.0 * 312e12) * 100.0;
    let mfu = means("mfu");
    assert!(mfu > linear && mfu < linear * 1.15, "{mfu}, {linear}");
}

#[test]
fn operators_add_up_to_the_stage() {
    let case = fixture("g12");
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = run(&case, Compat::None, ALL, dir.path());
    let ops = columns(&dir.path().join("operation_metrics.csv"));
    let host = columns(&dir.path().join("cpu_operation_metrics.csv"));
    let batches = host["model_execution_e2e"].len();
    assert!(batches > 1000);
    for row in 0..batches {
        let times = ops.iter().filter(|(name, _)| *name != "Batch Id");
        let times = times
            .map(|(_, values)| values[row])
            .filter(|v| v.is_finite());
        let sum = 32.0 * times.sum::<f64>();
        assert!(
            close(sum, host["model_execution_e2e"][row]),
            "row {row}: {sum}"
        );
    }
    let sampled = |name: &str| files.contains(&dir.path().join(format!("plots/{name}.csv")));
    assert!(sampled("attn_rope_execution_time") && sampled("attn_rope_per_batch"));
    // One GPU: there is nothing to sum up.
    assert!(!sampled("mlp_down_proj_all_reduce_execution_time"));
}

#[test]
fn restarted_requests_keep_their_lengths_by_default() {
    let case = fixture("g12");
    let dir = tempfile::tempdir().unwrap();
    run(&case, Compat::None, ALL, dir.path());
    let rows = columns(&dir.path().join("request_metrics.csv"));
    let restarted: Vec<usize> = (0..100)
        .filter(|&row| rows["request_num_restarts"][row] > 0.0)
        .collect();
    assert!(!restarted.is_empty());
    for row in restarted {
        let normalized = rows["request_e2e_time"][row] / rows["request_num_decode_tokens"][row];
        assert!(close(rows["request_e2e_time_normalized"][row], normalized));
    }
    // Every token after the first of every request has an interval, and there is
    // a row for each batch that brought some.
    let series = columns(&dir.path().join("plots/decode_completion_time_series.csv"));
    let (totals, times) = (&series["decode_completion"], &series["Time (sec)"]);
    let tokens: f64 = rows["request_num_decode_tokens"].iter().sum();
    assert_eq!(totals.last(), Some(&(tokens - 100.0)));
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]) && times.len() < tokens as usize / 2);
}

#[test]
fn the_event_trace_holds_everything_that_happened() {
    let case = fixture("a05");
    let dir = tempfile::tempdir().unwrap();
    let (totals, _) = run(&case, Compat::Vidur, ALL, dir.path());
    let trace = json(&dir.path().join("event_trace.json"));
    let events = trace.as_array().unwrap();
    let of = |kind: &str| {
        let found = events.iter().filter(|event| event["event_type"] == kind);
        found.collect::<Vec<_>>()
    };
    // As many of each kind as the recorded run had.
    let counts = [
        ("REQUEST_ARRIVAL", 120),
        ("GLOBAL_SCHEDULE", 120),
        ("REPLICA_SCHEDULE", 2140),
        ("BATCH_STAGE_ARRIVAL", 4040),
        ("REPLICA_STAGE_SCHEDULE", 8080),
        ("BATCH_STAGE_END", 4040),
        ("BATCH_END", 2020),
    ];
    for (kind, count) in counts {
        assert_eq!(of(kind).len(), count, "{kind}");
    }
    let last = events.last().unwrap()["time"].as_f64().unwrap();
    assert_eq!(last, totals.end_s);
    let lists = |kind: &str, key: &str| -> Vec<Value> {
        let lists = of(kind)
            .into_iter()
            .map(|event| event[key].as_array().unwrap());
        lists.flatten().cloned().collect()
    };
    let formed = lists("REPLICA_SCHEDULE", "batch_ids");
    assert!(formed.iter().enumerate().all(|(id, batch)| *batch == id) && formed.len() == 2020);
    let routed = lists("GLOBAL_SCHEDULE", "request_mapping");
    assert!(routed.iter().enumerate().all(|(id, pair)| pair[1] == id) && routed.len() == 120);
    let mut runs: Vec<u64> = (of("BATCH_STAGE_END").iter())
        .map(|event| event["batch_stage_id"].as_u64().unwrap())
        .collect();
    runs.sort_unstable();
    assert!(runs.iter().enumerate().all(|(id, run)| *run == id as u64));
    for event in of("BATCH_STAGE_END") {
        assert_eq!(event["is_last_stage"], event["stage_id"] == 1);
    }
    let cluster = json(&dir.path().join("cluster.json"));
    assert_eq!(cluster["replicas"][1]["id"], 1);
    assert_eq!(cluster["replicas"][1]["num_pipeline_stages"], 2);
}

#[test]
fn batches_can_be_chosen_and_files_thinned() {
    let case = fixture("a02");
    let config = MetricsConfig {
        subsamples: Some(10),
        min_batch_index: Some(0),
        max_batch_index: Some(49),
        ..RECORDED
    };
    let completed = |dir: &Path| {
        let rows = columns(&dir.join("request_metrics.csv"));
        let times = rows["request_e2e_time"].iter();
        (times.len(), times.filter(|time| time.is_finite()).count())
    };
    for (compat, expected) in [(Compat::None, (100, 100)), (Compat::Vidur, (100, 0))] {
        let dir = tempfile::tempdir().unwrap();
        run(&case, compat, config, dir.path());
        let ids = &columns(&dir.path().join("batch_metrics.csv"))["Batch Id"];
        assert_eq!((ids.len(), ids[0], ids[49]), (50, 0.0, 49.0));
        // The original forgets the requests that other batches complete.
        let (rows, done) = completed(dir.path());
        assert_eq!(rows, expected.0);
        assert!(
            if compat == Compat::None {
                done == 100
            } else {
                done < 10
            },
            "{done}"
        );
        let thinned = columns(&dir.path().join("plots/request_arrival_time_series.csv"));
        assert_eq!(
            thinned["request_arrival"],
            [1.0, 11.0, 21.0, 31.0, 41.0, 51.0, 61.0, 71.0, 81.0, 91.0]
        );
    }
    let none = MetricsConfig {
        max_batch_index: Some(0),
        ..RECORDED
    };
    for (compat, batches) in [(Compat::None, Some(1)), (Compat::Vidur, None)] {
        let dir = tempfile::tempdir().unwrap();
        run(&case, compat, none, dir.path());
        let ids = columns(&dir.path().join("batch_metrics.csv"))["Batch Id"].len();
        assert!(batches.map_or(ids > 100, |batches| ids == batches), "{ids}");
    }
}

fn names_of(files: &[PathBuf], dir: &Path) -> Vec<String> {
    let name = |file: &PathBuf| {
        file.strip_prefix(dir)
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let mut names: Vec<String> = files.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn only_what_is_asked_for_is_written() {
    let case = fixture("a02");
    let nothing = MetricsConfig {
        write_metrics: false,
        ..MetricsConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = run(&case, Compat::None, nothing, dir.path());
    assert_eq!(names_of(&files, dir.path()), ["chrome_trace.json"]);
    let batches = MetricsConfig {
        enable_chrome_trace: false,
        store_plots: false,
        store_request_metrics: false,
        store_utilization_metrics: false,
        ..MetricsConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = run(&case, Compat::None, batches, dir.path());
    let expected = [
        "plots.parquet",
        "plots/batch_execution_time.csv",
        "plots/batch_num_decode_tokens.csv",
        "plots/batch_num_prefill_tokens.csv",
        "plots/batch_num_tokens.csv",
        "plots/batch_size.csv",
    ];
    assert_eq!(names_of(&files, dir.path()), expected);
    // The original needs utilization metrics for those of operators.
    let operators = MetricsConfig {
        store_operation_metrics: true,
        ..batches
    };
    for (compat, written) in [(Compat::None, true), (Compat::Vidur, false)] {
        let dir = tempfile::tempdir().unwrap();
        run(&case, compat, operators, dir.path());
        let file = dir.path().join("plots/add_execution_time.csv");
        assert_eq!(file.exists(), written);
    }
}

#[test]
fn every_plot_has_a_picture_and_a_page() {
    let case = fixture("g15");
    let config = MetricsConfig {
        store_plots: true,
        store_batch_metrics: false,
        store_utilization_metrics: false,
        enable_chrome_trace: false,
        ..MetricsConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = run(&case, Compat::None, config, dir.path());
    let names = names_of(&files, dir.path());
    let with = |extension: &str| {
        let found = names.iter().filter(|name| name.ends_with(extension));
        found.count()
    };
    // Six histograms have no table, one page shows all.
    assert_eq!((with(".png"), with(".html"), with(".csv")), (22, 23, 17));
    for name in &names {
        let bytes = fs::read(dir.path().join(name)).unwrap();
        if name.ends_with(".png") {
            assert!(
                bytes.starts_with(b"\x89PNG\r\n") && bytes.len() > 4_000,
                "{name}"
            );
        }
        if name.ends_with(".html") {
            let page = String::from_utf8(bytes).unwrap();
            let outside = page.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("://") && !outside.contains("src="),
                "{name}"
            );
            assert!(page.contains("\"charts\":[{\"name\":\""), "{name}");
        }
    }
}

#[test]
fn parquet_says_what_the_tables_say() {
    let case = fixture("g18");
    let dir = tempfile::tempdir().unwrap();
    run(&case, Compat::Vidur, RECORDED, dir.path());
    let rows = parquet_rows(&dir.path().join("requests.parquet"));
    let table = columns(&dir.path().join("request_metrics.csv"));
    assert_eq!(Some(rows.len() as u64), case.summary["requests"].as_u64());
    let mut completed = 0;
    for (row, id) in table["Request Id"].iter().enumerate() {
        let parquet = &rows[*id as usize];
        for (name, values) in &table {
            let value = parquet[name].as_f64().unwrap_or(f64::NAN);
            if parquet["status"] == "completed" {
                let both_missing = values[row].is_nan() && value.is_nan();
                assert!(both_missing || close(values[row], value), "{name} of {id}");
            }
        }
        completed += usize::from(parquet["status"] == "completed");
    }
    assert!(completed > 0 && completed < rows.len());
    let rows = parquet_rows(&dir.path().join("batches.parquet"));
    let table = columns(&dir.path().join("batch_metrics.csv"));
    assert_eq!(rows.len(), table["Batch Id"].len());
    for (row, parquet) in rows.iter().enumerate() {
        for (name, values) in &table {
            assert_eq!(parquet[name].as_f64(), Some(values[row]), "{name} of {row}");
        }
    }
}

#[test]
fn every_file_of_plots_is_in_parquet_too() {
    let case = fixture("g18");
    let dir = tempfile::tempdir().unwrap();
    run(&case, Compat::Vidur, RECORDED, dir.path());
    let plots = dir.path().join("plots");
    let mut points: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for row in parquet_rows(&dir.path().join("plots.parquet")) {
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        let metric = row["metric"].as_str().unwrap().to_owned();
        points
            .entry(metric)
            .or_default()
            .push([number("x"), number("y")]);
    }
    let mut files = 0;
    for entry in fs::read_dir(&plots).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let table = columns(&path);
            for axis in [0, 1] {
                let points = || points[name].iter().map(|point| point[axis]);
                let is_in = |values: &Vec<f64>| {
                    values.len() == points().len()
                        && values.iter().zip(points()).all(|(a, b)| close(*a, b))
                };
                assert!(table.values().any(is_in), "axis {axis} of {name}");
            }
            files += 1;
        }
    }
    assert_eq!(files, points.len());
    for row in parquet_rows(&dir.path().join("replica_statistics.parquet")) {
        // The original counts from 1 and is off by one, which wraps around.
        let place = |id: &str| row[id].as_u64().map(|_| 1);
        let stage = place("stage_id").map_or(String::new(), |_| "stage_1_".into());
        let name = format!("replica_1_{stage}{}", row["metric"].as_str().unwrap());
        let json = fs::read(plots.join(format!("{name}.json"))).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        for figure in ["max", "weighted_mean"] {
            assert!(close(
                json[format!("{name}_{figure}")].as_f64().unwrap(),
                row[figure].as_f64().unwrap()
            ));
        }
    }
    let operations = parquet_rows(&dir.path().join("operation_metrics.parquet"));
    let table = columns(&dir.path().join("operation_metrics.csv"));
    assert!(!operations.is_empty());
    for (row, parquet) in operations.iter().enumerate() {
        for (name, values) in &table {
            let value = parquet[name].as_f64().unwrap_or(f64::NAN);
            assert!(values[row].is_nan() && value.is_nan() || close(values[row], value));
        }
    }
}

fn parquet_rows(path: &Path) -> Vec<serde_json::Map<String, Value>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::try_from(path).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        let number = |field: &parquet::record::Field| match field {
            parquet::record::Field::Double(value) => Value::from(*value),
            parquet::record::Field::Long(value) => Value::from(*value),
            parquet::record::Field::Str(text) => Value::from(text.as_str()),
            parquet::record::Field::Bool(flag) => Value::from(*flag),
            parquet::record::Field::Null => Value::Null,
            other => panic!("{other}"),
        };
        let columns = row.get_column_iter();
        columns
            .map(|(name, field)| (name.clone(), number(field)))
            .collect()
    })
    .collect()
}

/// Prefill and decode on different replicas: both are told about.
#[test]
fn disaggregated_pools_are_recorded() {
    let case = fixture("a02");
    let prepared = case.prepare(Compat::Vidur, true).unwrap();
    let mut cluster = prepared.deployment.cluster.clone();
    let mixed = cluster.pools.remove(0);
    for role in [PoolRole::Prefill, PoolRole::Decode] {
        cluster.pools.push(PoolSpec {
            role,
            ..mixed.clone()
        });
    }
    cluster.compat = Compat::None;
    cluster.kv_transfer = Some(KvTransferSpec {
        bytes_per_token: 524_288.0,
        bytes_per_request: 0.0,
        window: None,
        sender_bytes_per_s: 25e9,
        receiver_bytes_per_s: 25e9,
        latency_s: 1e-4,
    });
    let pool = prepared.facts().pools.remove(0);
    let facts = ClusterFacts {
        compat: Compat::None,
        pools: vec![pool.clone(), pool],
        requests: 100,
        transfer: Some(TransferFacts {
            compat: Compat::None,
            dtype: DType::Float16,
            alone_bytes_per_s: 25e9,
        }),
    };
    let mut store = MetricsStore::new(ALL, facts);
    let totals = simulate(&cluster, &prepared.workload, &mut store);
    let dir = tempfile::tempdir().unwrap();
    store.write(dir.path()).unwrap();
    let all = statistics(dir.path());
    let means = [1, 2].map(|n| all[&format!("replica_{n}_memory_usage_weighted_mean")]);
    assert!(close(
        mean(means.into_iter()),
        totals.kv_cache_utilization * 100.0
    ));
    let rows = columns(&dir.path().join("request_metrics.csv"));
    assert!(rows["request_e2e_time"].iter().all(|time| time.is_finite()));
    let trace = json(&dir.path().join("event_trace.json"));
    let events = trace.as_array().unwrap();
    let arrivals = events
        .iter()
        .filter(|event| event["event_type"] == "KV_ARRIVAL");
    assert_eq!(arrivals.count(), 100);
}
