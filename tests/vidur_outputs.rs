//! What `MetricsStore` writes against what recorded runs of Vidur wrote.

#[path = "support/vidur_runs.rs"]
mod vidur_runs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vidur_runs::{Case, close, fixtures, named_cases};
use vidur_sweep::simulator::{Compat, SimulationTotals, simulate};
use vidur_sweep::vidur::metrics::{ClusterFacts, MetricsConfig, MetricsStore, PoolFacts};

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
    let mut cluster = case.cluster();
    cluster.compat = compat;
    let workload = case.workload();
    let facts = ClusterFacts {
        compat,
        pools: vec![PoolFacts {
            replicas: cluster.pools[0].replicas,
            model: case.model(),
            parallelism: case.parallelism(),
            peak_tflops: 312.0,
            cost: cluster.pools[0].cost.clone(),
        }],
        requests: workload.requests.len(),
        kv_cache_dtype: None,
    };
    let mut store = MetricsStore::new(config, facts);
    let totals = simulate(&cluster, &workload, &mut store);
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
