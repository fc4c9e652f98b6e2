//! Recorded runs of Vidur: what their flags prepare, and their files.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vidur_sweep::simulator::Compat;
use vidur_sweep::vidur::{Options, PrepareError, Prepared, Settings, prepare};

/// One recorded run.
pub struct Case {
    pub folder: PathBuf,
    pub summary: Value,
}

impl Case {
    fn read(folder: PathBuf) -> Self {
        let text = std::fs::read_to_string(folder.join("summary.json")).unwrap();
        let summary = serde_json::from_str(&text).unwrap();
        Self { folder, summary }
    }

    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap();
        name.to_string_lossy().into_owned()
    }

    /// What the recorded flags say, the folder of traces made absolute.
    pub fn settings(&self) -> Settings {
        let words = self.summary["flags"].as_array().unwrap().iter();
        let words = words
            .map(|word| word.as_str().unwrap())
            // Told the recorder, not the simulator, what to do.
            .filter(|word| *word != "--lightllm-bs16");
        let command = Settings::augment(clap::Command::new("simulate"));
        let matches = command.get_matches_from(std::iter::once("simulate").chain(words));
        let mut settings = Settings::default();
        settings.take(&matches);
        let runs = self.folder.parent().unwrap();
        for generator in ["length", "interval"] {
            let flag = format!("trace_request_{generator}_generator_config_trace_file");
            if settings.is_given(&flag) {
                let file = runs.join(settings.text(&flag));
                settings.set(&flag, file.to_string_lossy().into());
            }
        }
        settings
    }

    /// With the execution times of the run, and its requests or what the
    /// generators draw.
    pub fn prepare(
        &self,
        compat: Compat,
        recorded_requests: bool,
    ) -> Result<Prepared, PrepareError> {
        let options = Options {
            compat,
            requests_file: recorded_requests.then(|| self.folder.join("requests.csv")),
            predictions_file: Some(self.folder.join("predictions.csv")),
            strict_files: true,
            use_simai_binary: false,
            use_aicb: false,
            program_time_limit_s: 1,
            ..Options::default()
        };
        prepare(&self.settings(), &options)
    }
}

/// The cases in `folder`, by name.
pub fn cases(folder: &Path) -> Vec<Case> {
    let mut folders: Vec<PathBuf> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("batches.csv").exists())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders.into_iter().map(Case::read).collect()
}

/// The committed cases.
pub fn fixtures() -> Vec<Case> {
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vidur_runs"))
}

/// The cases of the folder that `VIDUR_SWEEP_VIDUR_RUNS` names.
pub fn named_cases() -> Vec<Case> {
    let folder = std::env::var_os("VIDUR_SWEEP_VIDUR_RUNS").expect("VIDUR_SWEEP_VIDUR_RUNS");
    cases(Path::new(&folder))
}

/// Equal but for rounding.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}
