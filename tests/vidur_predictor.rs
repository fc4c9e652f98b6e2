//! Predictors fitted to Vidur's profiling files against scikit-learn's fits of
//! the same files, and the stage formula against recorded runs.
//!
//! `VIDUR_SWEEP_VIDUR_PROFILES` names a directory laid out like Vidur's
//! `data/profiling`, `VIDUR_SWEEP_VIDUR_REFERENCE` one with
//! `predictor/<set>/<op>.csv` (run with `--ignored --nocapture`).

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::vidur::{
    Estimator, Fit, Op, PredictorConfig, ProfileFile, ProfileShape, Rows, Samples, TableCost,
    validation::shuffled_mape,
};
use vidur_sweep::execution_time::{PrefillChunk, StepCost, StepShape};
use vidur_sweep::memory::Parallelism;

fn directory(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set"))
        .into()
}

/// A set of reference fits: its name, the model's directory, its shape.
struct Set {
    name: &'static str,
    model: &'static str,
    tensor_parallel: u32,
    ops: &'static [Op],
}

const COMPUTE: &[Op] = &[
    Op::AttnPreProj,
    Op::AttnPostProj,
    Op::AttnRope,
    Op::InputLayernorm,
    Op::PostAttentionLayernorm,
    Op::MlpUpProj,
    Op::MlpDownProj,
    Op::MlpAct,
    Op::Add,
];
const ATTENTION: &[Op] = &[Op::AttnKvCacheSave, Op::AttnDecode, Op::AttnPrefill];
const ALL: &[Op] = &[
    Op::AttnPreProj,
    Op::AttnPostProj,
    Op::AttnRope,
    Op::InputLayernorm,
    Op::PostAttentionLayernorm,
    Op::MlpUpProj,
    Op::MlpDownProj,
    Op::MlpAct,
    Op::Add,
    Op::AttnKvCacheSave,
    Op::AttnDecode,
    Op::AttnPrefill,
];

const SETS: &[Set] = &[
    Set {
        name: "llama2-7b_tp1",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 1,
        ops: ALL,
    },
    Set {
        name: "llama2-7b_tp2",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 2,
        ops: COMPUTE,
    },
    Set {
        name: "llama2-7b_tp4",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 4,
        ops: COMPUTE,
    },
    Set {
        name: "codellama34b_tp2",
        model: "codellama/CodeLlama-34b-Instruct-hf",
        tensor_parallel: 2,
        ops: ATTENTION,
    },
    Set {
        name: "codellama34b_tp4",
        model: "codellama/CodeLlama-34b-Instruct-hf",
        tensor_parallel: 4,
        ops: ATTENTION,
    },
    Set {
        name: "net_llama2-7b_a100_pairwise",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 2,
        ops: &[Op::SendRecv],
    },
    Set {
        name: "net_llama2-7b_a100_pairwise_tp2",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 2,
        ops: &[Op::AllReduce],
    },
    Set {
        name: "net_llama2-7b_a100_pairwise_tp4",
        model: "meta-llama/Llama-2-7b-hf",
        tensor_parallel: 4,
        ops: &[Op::AllReduce],
    },
];

fn shape(set: &Set) -> ProfileShape {
    let llama = set.model.contains("Llama-2-7b");
    ProfileShape {
        model_name: set.model.into(),
        heads: if llama { 32 } else { 64 },
        kv_heads: if llama { 32 } else { 8 },
        hidden_size: if llama { 4096 } else { 8192 },
        intermediate_size: if llama { 11008 } else { 22016 },
        gated_mlp: true,
        tensor_parallel: set.tensor_parallel,
        block_size: 16,
        ranks_per_node: set.tensor_parallel,
        across_nodes: false,
    }
}

fn samples(profiles: &Path, set: &Set, op: Op, rows: Rows) -> Samples {
    let compute = profiles.join("compute/a100").join(set.model);
    let network = profiles.join("network/a100_pairwise_nvlink");
    let path = match op {
        Op::AllReduce => network.join("all_reduce.csv"),
        Op::SendRecv => network.join("send_recv.csv"),
        Op::AttnKvCacheSave | Op::AttnDecode | Op::AttnPrefill => compute.join("attention.csv"),
        _ => compute.join("mlp.csv"),
    };
    let shape = shape(set);
    let file = ProfileFile::read(&path, op.profile()).unwrap();
    let rows_of = file.select(&shape).unwrap();
    rows_of.samples(op, &shape, rows).unwrap()
}

/// Points of a reference grid with the last three columns.
fn grid(path: &Path, op: Op) -> Vec<([f64; 2], [f64; 3])> {
    let text = std::fs::read_to_string(path).unwrap();
    let features = op.features().len();
    text.lines()
        .skip(1)
        .map(|line| {
            let values: Vec<f64> = line.split(',').map(|v| v.parse().unwrap()).collect();
            let mut point = [0.0; 2];
            point[..features].copy_from_slice(&values[..features]);
            (point, values[features..].try_into().unwrap())
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn relative(got: f64, expected: f64) -> f64 {
    if got == expected {
        0.0
    } else {
        (got / expected - 1.0).abs()
    }
}

fn each_reference(with: impl Fn(&Set, Op, &Samples, &[([f64; 2], [f64; 3])])) {
    let profiles = directory("VIDUR_SWEEP_VIDUR_PROFILES");
    let reference = directory("VIDUR_SWEEP_VIDUR_REFERENCE").join("predictor");
    for set in SETS {
        for op in set.ops {
            let points = grid(&reference.join(set.name).join(format!("{op}.csv")), *op);
            with(set, *op, &samples(&profiles, set, *op, Rows::All), &points);
        }
    }
}

#[test]
#[ignore = "needs Vidur's profiling files"]
fn regressions_equal_the_reference_grids() {
    each_reference(|set, op, samples, points| {
        let fit = Fit::new(
            samples,
            Estimator::LinearRegression,
            &PredictorConfig::default(),
        );
        let worst = points
            .iter()
            .map(|(point, [_, _, expected])| relative(fit.predict(*point), *expected))
            .fold(0.0, f64::max);
        println!(
            "{} {op}: worst {worst:.1e}, {}, error over folds {:.4} %",
            set.name,
            fit.parameters(),
            fit.search_mape().unwrap()
        );
        assert!(worst < 1e-6, "{} {op}: {worst:e}", set.name);
    });
}

#[test]
#[ignore = "needs Vidur's profiling files"]
fn forests_agree_with_the_reference_grids() {
    each_reference(|set, op, samples, points| {
        let start = Instant::now();
        let config = match std::env::var("FULL_GRID") {
            Ok(_) => PredictorConfig::default(),
            Err(_) => PredictorConfig {
                num_estimators: vec![250],
                ..PredictorConfig::default()
            },
        };
        let fit = Fit::new(samples, Estimator::RandomForest, &config);
        let seconds = start.elapsed().as_secs_f64();
        let error = |column: usize| {
            median(
                points
                    .iter()
                    .map(|(point, expected)| relative(fit.predict(*point), expected[column]))
                    .collect(),
            )
        };
        let spread = median(points.iter().map(|(_, e)| relative(e[0], e[1])).collect());
        println!(
            "{} {op}: median {:.4} and {:.4} %, between the seeds {:.4} %; {}, error over folds {:.4} %; {seconds:.2} s",
            set.name,
            100.0 * error(0),
            100.0 * error(1),
            100.0 * spread,
            fit.parameters(),
            fit.search_mape().unwrap()
        );
        assert!(error(0).max(error(1)) < spread + 0.01, "{} {op}", set.name);
    });
}

#[test]
#[ignore = "needs Vidur's profiling files"]
fn errors_on_unseen_rows() {
    each_reference(|set, op, samples, _| {
        let config = PredictorConfig {
            num_estimators: vec![20],
            ..PredictorConfig::default()
        };
        let error = |estimator| shuffled_mape(samples, estimator, &config, 10, 42);
        println!(
            "{} {op} ({} rows): forest {:.2}, regression {:.2}, interpolation {:.2}",
            set.name,
            samples.points().len(),
            error(Estimator::RandomForest),
            error(Estimator::LinearRegression),
            error(Estimator::Interpolation),
        );
    });
}

/// Recorded cases: model and parallelism.
const CASES: &[(&str, &str, [u32; 2])] = &[
    ("a01_sarathi", LLAMA, [1, 1]),
    ("a02_vllm_preempt", LLAMA, [1, 1]),
    ("a04_lightllm", LLAMA, [1, 1]),
    ("a05_orca_pp2_r2_random", LLAMA, [1, 2]),
    ("a06_ft_static_tp2", LLAMA, [2, 1]),
    ("a07_sarathi_static_r20_random", LLAMA, [1, 1]),
    ("g01_sarathi_7b", LLAMA, [1, 1]),
    ("g02_vllm_7b", LLAMA, [1, 1]),
    ("g04_ft_7b_fixed_static", LLAMA, [1, 1]),
    ("g05_lightllm_7b_zipf", LLAMA, [1, 1]),
    ("g07_vllm_34b_tp2_r4_lor", CODE_LLAMA, [2, 1]),
    ("g08_sarathi_34b_tp4_r4_random", CODE_LLAMA, [4, 1]),
    ("g09_sarathi_7b_pp4_uniform", LLAMA, [1, 4]),
    ("g10_orca_7b_pp2_r4_lor", LLAMA, [1, 2]),
    ("g12_sarathi_7b_preempt", LLAMA, [1, 1]),
    ("g14_vllm_7b_trace_intervals", LLAMA, [1, 1]),
    ("g15_ft_7b_varlen_leak", LLAMA, [1, 1]),
    ("g17_sarathi_7b_linreg", LLAMA, [1, 1]),
    ("g18_sarathi_7b_time_limit", LLAMA, [1, 1]),
];
const LLAMA: &str = "meta-llama/Llama-2-7b-hf";
const CODE_LLAMA: &str = "codellama/CodeLlama-34b-Instruct-hf";

/// A batch that has the keys of a recorded stage. Contexts are not recorded, so
/// the first prompt chunk has all of it, and every decode as much as the key.
fn shape_of(stage: &[&str], requests: &str) -> StepShape {
    let key = |column: usize| stage[column].parse::<u32>().unwrap();
    let (size, total, decodes, decode_kv, prefill_kv) = (key(7), key(8), key(10), key(11), key(12));
    let mut tokens: Vec<u32> = requests
        .split(';')
        .map(|request| {
            request
                .split_once(':')
                .map_or(1, |(_, n)| n.parse().unwrap())
        })
        .collect();
    assert_eq!(tokens.len() as u32, size);
    // Decodes have one token; prompt chunks are the rest.
    tokens.sort_unstable_by(|a, b| b.cmp(a));
    let chunks = &tokens[..(size - decodes) as usize];
    let shape = StepShape {
        prefills: chunks
            .iter()
            .enumerate()
            .map(|(index, tokens)| PrefillChunk {
                new_tokens: *tokens,
                context_tokens: if index == 0 { prefill_kv } else { 0 },
            })
            .collect(),
        decode_requests: decodes,
        decode_context_tokens: u64::from(decodes) * u64::from(decode_kv.saturating_sub(1)),
        sampled_tokens: decodes,
    };
    assert_eq!(shape.new_tokens(), total);
    shape
}

/// Prices every stage stored of a case; how many there are.
fn stages_equal_bit_for_bit(directory: &Path, model: &str, [tensor, pipeline]: [u32; 2]) -> usize {
    let parallelism = Parallelism {
        tensor_parallel: tensor,
        pipeline_parallel: pipeline,
        expert_parallel: 1,
        attention_data_parallel: 1,
    };
    let cost = TableCost::from_predictions(
        &directory.join("predictions.csv"),
        &Catalog::builtin().model(model).unwrap(),
        parallelism,
        4,
        &PredictorConfig::default(),
    )
    .unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let (batches, stages) = (read("batches.csv"), read("batch_stages.csv"));
    let requests: HashMap<&str, &str> = batches
        .lines()
        .skip(1)
        .map(|line| {
            (
                line.split(',').next().unwrap(),
                line.rsplit(',').next().unwrap(),
            )
        })
        .collect();
    let mut count = 0;
    for line in stages.lines().skip(1) {
        let stage: Vec<&str> = line.split(',').collect();
        // The last batches of a run that was stopped have no end.
        let Some(requests) = requests.get(stage[1]) else {
            continue;
        };
        let time = cost.stage_time(stage[3].parse().unwrap(), &shape_of(&stage, requests));
        let expected = |column: usize| stage[column].parse::<f64>().unwrap();
        assert_eq!(time.total_s(), expected(5), "{line}");
        assert_eq!(time.model_s, expected(6), "{line}");
        count += 1;
    }
    assert_eq!(cost.misses(), Vec::<String>::new());
    count
}

#[test]
fn recorded_stages_are_reproduced_bit_for_bit() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vidur_predictor");
    let mut stages = 0;
    for (name, model, parallelism) in CASES {
        let directory = fixtures.join(name);
        if directory.exists() {
            stages += stages_equal_bit_for_bit(&directory, model, *parallelism);
        }
    }
    assert!(stages > 60, "only {stages} stages found");
}

#[test]
#[ignore = "needs the recorded runs"]
fn all_recorded_stages_are_reproduced_bit_for_bit() {
    let reference = directory("VIDUR_SWEEP_VIDUR_REFERENCE");
    for (name, model, parallelism) in CASES {
        let count = stages_equal_bit_for_bit(&reference.join(name), model, *parallelism);
        println!("{name}: {count} stages");
    }
}
