//! Recorded runs of Vidur-AlibabaCloud from their commands and stage times: the
//! same batches at the same times, the same transfers, the same requests.
//!
//! A few cases are in `tests/fixtures/alibaba_runs`; `VIDUR_SWEEP_ALIBABA_RUNS`
//! names a folder of more.

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
#[ignore = "needs the folder of recorded runs"]
fn more_recorded_runs_are_reproduced_batch_for_batch() {
    let folder = std::env::var_os("VIDUR_SWEEP_ALIBABA_RUNS").expect("VIDUR_SWEEP_ALIBABA_RUNS");
    compare_all(Path::new(&folder));
}
