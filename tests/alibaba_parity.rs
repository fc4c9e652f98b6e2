//! Recorded runs of Vidur-AlibabaCloud from their commands and stage times: the
//! same batches at the same times, the same transfers, the same requests.
//!
//! A few cases are in `tests/fixtures/alibaba_runs`; `VIDUR_SWEEP_ALIBABA_RUNS`
//! names a folder of more.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vidur_sweep::simulator::{Compat, Recorder, RequestRecord, StageFact, simulate};
use vidur_sweep::vidur::{Options, Prepared, Settings, prepare};

/// One recorded run.
struct Case {
    folder: PathBuf,
    compat: Compat,
}

impl Case {
    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap();
        name.to_string_lossy().into_owned()
    }

    /// The flags of the recorded command.
    fn settings(&self) -> Settings {
        let text = std::fs::read_to_string(self.folder.join("cmd.txt")).unwrap();
        let words = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .skip_while(|word| !word.starts_with("--"))
            .filter(|word| *word != "\\");
        let command = Settings::augment(clap::Command::new("simulate"));
        let matches = command.get_matches_from(std::iter::once("simulate").chain(words));
        let mut settings = Settings::default();
        settings.take(&matches);
        settings.set("metrics_config_store_plots", false.into());
        settings
    }

    fn stage_times(&self) -> PathBuf {
        let plain = self.folder.join("batches.csv");
        if plain.exists() {
            plain
        } else {
            self.folder.join("batches.csv.gz")
        }
    }

    fn prepare(&self) -> Prepared {
        let options = Options {
            compat: self.compat,
            requests_file: Some(self.folder.join("requests.csv")),
            execution_times_file: Some(self.stage_times()),
            ..Options::default()
        };
        prepare(&self.settings(), &options).unwrap()
    }

    /// Rows of a CSV file by column, decompressed if need be.
    fn rows(&self, path: &Path) -> Vec<BTreeMap<String, String>> {
        let bytes = std::fs::read(path).unwrap();
        let mut text = Vec::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut gzip = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            std::io::copy(&mut gzip, &mut text).unwrap();
        } else {
            text = bytes;
        }
        let mut reader = csv::Reader::from_reader(text.as_slice());
        reader.deserialize().map(Result::unwrap).collect()
    }
}

#[derive(Default)]
struct Everything {
    stages: Vec<(f64, u32, u32, String, String)>,
    requests: BTreeMap<u32, RequestRecord>,
}

impl Recorder for Everything {
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        self.requests.insert(record.request_id, record.clone());
    }
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
    fn stage_started(&mut self, fact: &StageFact<'_>) {
        let join = |pick: fn(&(u32, u32)) -> u32| {
            let words: Vec<String> = fact.requests.iter().map(|r| pick(r).to_string()).collect();
            words.join("|")
        };
        self.stages.push((
            fact.started_at_s,
            fact.replica,
            fact.stage,
            join(|(id, _)| *id),
            join(|(_, tokens)| *tokens),
        ));
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// The first difference between a recorded case and our run of it.
fn compare(case: &Case) -> Result<(), String> {
    let prepared = case.prepare();
    let mut ours = Everything::default();
    simulate(&prepared.deployment.cluster, &prepared.workload, &mut ours);
    if let Some(warning) = prepared.price_warnings().first() {
        return Err(warning.clone());
    }
    let recorded = case.rows(&case.stage_times());
    let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    for (row, stage) in recorded.iter().zip(&ours.stages) {
        let same = close(number(&row["start_time"]), stage.0)
            && number(&row["replica_id"]) == f64::from(stage.1)
            && number(&row["stage_id"]) == f64::from(stage.2)
            && row["request_ids"] == stage.3
            && row["num_tokens"] == stage.4;
        if !same {
            return Err(format!("stage {row:?}, ours {stage:?}"));
        }
    }
    if recorded.len() != ours.stages.len() {
        return Err(format!(
            "{} stages, ours {}",
            recorded.len(),
            ours.stages.len()
        ));
    }
    let disaggregated = prepared.deployment.pools.len() == 2;
    for row in case.rows(&case.folder.join("request_metrics.csv")) {
        let request = &ours.requests[&(number(&row["Request Id"]) as u32)];
        let same = |column: &str, value: f64| {
            close(number(&row[column]), value)
                .then_some(())
                .ok_or_else(|| format!("{column} {}, ours {value}: {request:?}", row[column]))
        };
        same("scheduled_at", request.scheduled_at_s)?;
        same("prefill_completed_at", request.prefill_completed_at_s)?;
        same("completed_at", request.completed_at_s)?;
        same("request_execution_time", request.execution_s)?;
        same("request_preemption_time", request.preemption_s)?;
        if disaggregated {
            same("decode_arrived_at", request.decode_arrived_at_s)?;
            same("pd_p2p_comm_size", request.pd_p2p_comm_size_bytes)?;
            same("pd_p2p_comm_time", request.pd_p2p_comm_time_s)?;
            same("prefill_replica_id", f64::from(request.prefill_replica_id))?;
            same("decode_replica_id", f64::from(request.decode_replica_id))?;
        }
    }
    compare_metrics(case, &prepared)
}

/// Every column of `request_metrics.csv`, in order.
fn compare_metrics(case: &Case, prepared: &Prepared) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    prepared.write(&prepared.run(), dir.path()).unwrap();
    let lines = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("request_metrics.csv")).unwrap();
        let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
        text.lines().map(fields).collect::<Vec<_>>()
    };
    let (recorded, ours) = (lines(&case.folder), lines(dir.path()));
    if recorded.len() != ours.len() || recorded[0] != ours[0] {
        return Err(format!(
            "{} rows of {:?}, ours {} of {:?}",
            recorded.len(),
            recorded[0],
            ours.len(),
            ours[0]
        ));
    }
    for (a, b) in recorded.iter().zip(&ours).skip(1) {
        for (column, (a, b)) in recorded[0].iter().zip(a.iter().zip(b)) {
            let same = match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a == b || close(a, b),
                _ => a == b,
            };
            if !same {
                return Err(format!("{column} `{a}`, ours `{b}`"));
            }
        }
    }
    Ok(())
}

/// Compares the complete runs in `folder`.
fn compare_all(folder: &Path) {
    let mut folders: Vec<PathBuf> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        // Those whose names start with x failed in the original.
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('x'))
        .filter(|path| path.join("requests.csv").exists())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut different = Vec::new();
    for folder in folders {
        let old = folder.to_string_lossy().contains("v15");
        let compat = if old {
            Compat::VidurAlibabaCloud15
        } else {
            Compat::VidurAlibabaCloud
        };
        let case = Case { folder, compat };
        match compare(&case) {
            Ok(()) => println!("{}: same", case.name()),
            Err(difference) => {
                println!("{}: DIFFERENT: {difference}", case.name());
                different.push(case.name());
            }
        }
    }
    assert!(different.is_empty(), "{different:?}");
}

#[test]
fn recorded_runs_are_reproduced_batch_for_batch() {
    compare_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/alibaba_runs"));
}

/// The row the document shows: prompt of 395 tokens, replicas 0 and 2.
#[test]
fn the_documents_sample_row_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let requests = dir.path().join("requests.csv");
    // As the generators draw it: at 100 requests a second, seed 42.
    let row = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.01020060287274801,395,112\n";
    std::fs::write(&requests, row).unwrap();
    let words = "--replica_config_pd_p2p_comm_bandwidth 800 --replica_config_pd_p2p_comm_dtype float32 \
                 --cluster_config_num_replicas 4 --replica_config_pd_node_ratio 0.5 \
                 --global_scheduler_config_type split_wise \
                 --replica_scheduler_config_type split_wise \
                 --replica_config_model_name deepseek-671B \
                 --replica_config_tensor_parallel_size 2 \
                 --replica_config_expert_model_parallel_size 8 \
                 --random_forrest_execution_time_predictor_config_backend aicb";
    let command = Settings::augment(clap::Command::new("simulate"));
    let words = std::iter::once("simulate").chain(words.split_whitespace());
    let mut settings = Settings::default();
    settings.take(&command.get_matches_from(words));
    let options = Options {
        compat: Compat::VidurAlibabaCloud15,
        requests_file: Some(requests),
        ..Options::default()
    };
    let prepared = prepare(&settings, &options).unwrap();
    let mut ours = Everything::default();
    simulate(&prepared.deployment.cluster, &prepared.workload, &mut ours);
    let request = &ours.requests[&0];
    assert_eq!(format!("{:.7}", request.arrived_at_s), "0.0102006");
    assert_eq!(
        (request.prefill_replica_id, request.decode_replica_id),
        (0, 2)
    );
    assert_eq!(request.pd_p2p_comm_size_bytes, 3_561_947_136.0);
    assert_eq!(format!("{:.7}", request.pd_p2p_comm_time_s), "0.0331732");
}

#[test]
#[ignore = "needs the folder of recorded runs"]
fn more_recorded_runs_are_reproduced_batch_for_batch() {
    let folder = std::env::var_os("VIDUR_SWEEP_ALIBABA_RUNS").expect("VIDUR_SWEEP_ALIBABA_RUNS");
    compare_all(Path::new(&folder));
}
