//! Every parser of the crate as a function of bytes, for libFuzzer and for the test that
//! runs the corpora. None of them may panic, whatever the bytes.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::aicb::{AicbFile, FileKey};
use vidur_sweep::execution_time::vidur::{
    PredictorConfig, Profile, ProfileFile, RecordedCost, TableCost,
};
use vidur_sweep::memory::Parallelism;
use vidur_sweep::network::flow::{SimaiConf, SimaiEnvironment};
use vidur_sweep::network::topology::Topology;
use vidur_sweep::results::SummaryReader;
use vidur_sweep::spec::{self, Constraint, Points, RunConfig};
use vidur_sweep::vidur::{Settings, read_requests};
use vidur_sweep::workload::{DataFile, LengthHistogram, read_trace};
use vidur_sweep::yaml;

/// A parser: its name, which is that of its corpus and fuzz target, and what it does
/// with some bytes, having a folder to put them in.
pub struct Parser {
    /// Name.
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8], &Path),
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser {
        name: "aicb",
        run: aicb,
    },
    Parser {
        name: "checkpoint",
        run: model,
    },
    Parser {
        name: "constraint",
        run: constraint,
    },
    Parser {
        name: "device",
        run: device,
    },
    Parser {
        name: "engine",
        run: engine,
    },
    Parser {
        name: "execution_times",
        run: execution_times,
    },
    Parser {
        name: "manifest",
        run: manifest,
    },
    Parser {
        name: "model",
        run: model,
    },
    Parser {
        name: "points",
        run: points,
    },
    Parser {
        name: "predictions",
        run: predictions,
    },
    Parser {
        name: "profile",
        run: profile,
    },
    Parser {
        name: "requests",
        run: requests,
    },
    Parser {
        name: "simai_conf",
        run: simai_conf,
    },
    Parser {
        name: "spec",
        run: spec,
    },
    Parser {
        name: "summary",
        run: summary,
    },
    Parser {
        name: "topology",
        run: topology,
    },
    Parser {
        name: "trace",
        run: trace,
    },
    Parser {
        name: "vidur_config",
        run: vidur_config,
    },
    Parser {
        name: "vidur_flags",
        run: vidur_flags,
    },
    Parser {
        name: "yaml",
        run: yaml,
    },
];

/// Runs the parser of that name in a folder of this process.
#[allow(dead_code)]
pub fn run(name: &str, bytes: &[u8]) {
    let folder = std::env::temp_dir().join(format!("vidur-sweep-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let parser = PARSERS.iter().find(|parser| parser.name == name);
    (parser.expect("a parser").run)(bytes, &folder);
}

/// The bytes as a file.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a writable folder");
    path
}

fn name_of(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn yaml(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(document) = yaml::parse(&text, Path::new("f.yaml")) {
        let _ = document.error("a.b[3].c", "no such value").to_string();
        // What was read can be written, and reads back as it was.
        let again = yaml::parse(&yaml::to_text(&document.value), Path::new("g.yaml"));
        assert_eq!(again.expect("what was written").value, document.value);
    }
}

fn spec(bytes: &[u8], folder: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let path = folder.join("f.yaml");
    if let Err(errors) = spec::load_str(&text, &path, &[]) {
        assert!(!errors.to_string().is_empty());
    }
}

fn points(bytes: &[u8], _: &Path) {
    let file = data_file(bytes);
    if let Ok(points) = Points::read(&file) {
        for index in 0..points.len().min(10) {
            let _ = (points.assignment(index), points.labels(index));
        }
    }
}

fn data_file(bytes: &[u8]) -> DataFile {
    DataFile {
        name: "f".into(),
        text: Cow::Owned(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn model(bytes: &[u8], folder: &Path) {
    let path = file(folder, "config.json", bytes);
    if let Ok(model) = Catalog::builtin().model(name_of(&path)) {
        let _ = vidur_sweep::memory::parameters(&model);
    }
}

fn device(bytes: &[u8], folder: &Path) {
    let path = file(folder, "device.yaml", bytes);
    let _ = Catalog::builtin().device(name_of(&path));
}

fn engine(bytes: &[u8], folder: &Path) {
    let path = file(folder, "engine.yaml", bytes);
    let _ = Catalog::builtin().engine(name_of(&path), None);
}

fn trace(bytes: &[u8], _: &Path) {
    let file = data_file(bytes);
    let _ = (LengthHistogram::read(&file), read_trace(&file, None));
}

fn requests(bytes: &[u8], folder: &Path) {
    let _ = read_requests(&file(folder, "requests.csv", bytes));
}

fn topology(bytes: &[u8], _: &Path) {
    if let Ok(topology) = Topology::parse(&String::from_utf8_lossy(bytes), "f") {
        let again = Topology::parse(&topology.to_string(), "g").expect("what was written");
        assert_eq!(again.nodes(), topology.nodes());
    }
}

fn simai_conf(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(conf) = SimaiConf::parse(&text, "f") {
        let _ = conf.warnings("f");
    }
    let _ = SimaiEnvironment::parse(&text);
}

fn aicb(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let name = text.lines().next().unwrap_or_default();
    if let Some(key) = FileKey::parse(name) {
        assert_eq!(FileKey::parse(&key.to_string()), Some(key));
    }
    let _ = AicbFile::parse(Path::new("f.csv"), &text);
}

fn profile(bytes: &[u8], folder: &Path) {
    let path = file(folder, "profile.csv", bytes);
    for profile in [
        Profile::Compute,
        Profile::Attention,
        Profile::AllReduce,
        Profile::SendRecv,
        Profile::CpuOverhead,
    ] {
        let _ = ProfileFile::read(&path, profile);
    }
}

fn predictions(bytes: &[u8], folder: &Path) {
    let path = file(folder, "predictions.csv", bytes);
    let model = Catalog::builtin()
        .model("llama-2-7b")
        .expect("a known model");
    let parallelism = Parallelism {
        tensor_parallel: 1,
        pipeline_parallel: 1,
        expert_parallel: 1,
        attention_data_parallel: 1,
    };
    let predictor = PredictorConfig::default();
    let _ = TableCost::from_predictions(&path, &model, parallelism, 8, &predictor);
}

fn execution_times(bytes: &[u8], folder: &Path) {
    if let Ok(cost) = RecordedCost::read(&file(folder, "times.csv", bytes), 2) {
        let _ = cost.warnings();
    }
}

fn constraint(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(constraint) = Constraint::parse(&text) {
        let config: RunConfig = serde_json::from_str(
            r#"{"model": "llama-3-8b", "device": "h100", "qps": 1, "workload": {
                "requests": 10, "arrivals": {"type": "poisson"},
                "lengths": {"type": "fixed", "prefill_tokens": 100, "decode_tokens": 10}}}"#,
        )
        .expect("a configuration");
        let _ = constraint.holds(&config);
    }
}

fn vidur_config(bytes: &[u8], folder: &Path) {
    let mut settings = Settings::default();
    if settings
        .take_config(&file(folder, "vidur.json", bytes))
        .is_ok()
    {
        let _ = (settings.document(), settings.dead());
    }
}

/// The words of a command line.
fn vidur_flags(bytes: &[u8], _: &Path) {
    let text = String::from_utf8_lossy(bytes);
    let words = std::iter::once("simulate").chain(text.split_whitespace());
    let command = Settings::augment(clap::Command::new("simulate"));
    if let Ok(matches) = command.try_get_matches_from(words) {
        let mut settings = Settings::default();
        settings.take(&matches);
        let _ = (settings.document(), settings.dead());
    }
}

/// The manifest of a result directory.
fn manifest(bytes: &[u8], folder: &Path) {
    let dir = folder.join("results");
    fs::create_dir_all(&dir).expect("a writable folder");
    file(&dir, "manifest.json", bytes);
    let _ = fs::remove_file(dir.join("summary.parquet"));
    read_results(&dir);
}

/// A table of a sweep that is not finished: nothing says what it should hold.
fn summary(bytes: &[u8], folder: &Path) {
    let dir = folder.join("table");
    let parts = dir.join("parts");
    fs::create_dir_all(&parts).expect("a writable folder");
    file(&parts, "layout.json", LAYOUT.as_bytes());
    file(&parts, "summary-000000-000000.parquet", bytes);
    read_results(&dir);
}

/// What an unfinished sweep says of itself.
const LAYOUT: &str = r#"{"schema_version": 2, "version": "0.1.0", "name": "toy", "spec_hash": "0",
    "run_indices": {"first": 0, "stride": 1, "count": 2}, "block_runs": 2,
    "keep_requests": false, "axes": [{"name": "tensor_parallel", "type": "int"}], "slo": {},
    "objectives": {"maximize": ["throughput_tokens_per_s_per_gpu"], "minimize": []}}"#;

fn read_results(dir: &Path) {
    if let Ok(reader) = SummaryReader::open(dir) {
        let _ = reader.for_each(None, |batch| {
            for row in batch.rows() {
                let _ = (row.run_index(), row.status(), row.value("ttft_p90_s"));
            }
        });
    }
}
