//! Fitting Vidur's profiles and looking steps up in the fits.
//!
//! Runs on made-up profiles of the size of those of Llama-2-7B on one GPU
//! (261 rows of linear layers, about 11,000 of attention), or on real ones:
//! `VIDUR_SWEEP_VIDUR_PROFILES` names a directory laid out like Vidur's
//! `data/profiling`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vidur_sweep::catalog::Catalog;
use vidur_sweep::execution_time::vidur::{
    Estimator, FitLibrary, InputFiles, Keys, PredictorConfig, VidurCost, VidurDeployment,
};
use vidur_sweep::execution_time::{PrefillChunk, StepCost, StepShape};
use vidur_sweep::memory::Parallelism;

const OPS: [&str; 9] = [
    "attn_pre_proj",
    "attn_post_proj",
    "attn_rope",
    "input_layernorm",
    "post_attention_layernorm",
    "mlp_up_proj",
    "mlp_down_proj",
    "mlp_act",
    "add",
];

/// Noise of about one percent, the same every time.
fn noisy(time_ms: f64, row: usize) -> f64 {
    let noise = (row * 7919 % 1013) as f64 / 1013.0 - 0.5;
    (time_ms * (1.0 + 0.02 * noise) * 1e3).round() / 1e3
}

fn compute_profile() -> String {
    let mut text = String::new();
    for op in OPS {
        write!(text, "time_stats.{op}.median,").unwrap();
    }
    text += "n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tokens,num_tensor_parallel_workers\n";
    let tokens = (1..=128)
        .map(|i| i * 8)
        .chain((65..=128).map(|i| i * 16))
        .chain((65..=128).map(|i| i * 32));
    for (row, tokens) in tokens.enumerate() {
        for (index, _) in OPS.iter().enumerate() {
            let time_ms = (1 + index) as f64 * (0.02 + 2e-4 * f64::from(tokens));
            write!(text, "{},", noisy(time_ms, row * OPS.len() + index)).unwrap();
        }
        writeln!(text, "32,32,4096,11008,True,{tokens},1").unwrap();
    }
    text
}

fn attention_profile() -> String {
    let mut text = String::from(
        "time_stats.attn_prefill.median,time_stats.attn_decode.median,time_stats.attn_kv_cache_save.median,\
         n_embd,n_q_head,n_kv_head,block_size,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size\n",
    );
    let lengths = || (1..=32).map(|i| i * 32).chain((17..=63).map(|i| i * 64));
    let mut row = 0;
    let mut line = |batch: u32, chunk: u32, kv: u32, time_ms: f64, save_ms: f64| {
        let (time_ms, save_ms) = (noisy(time_ms, row), noisy(save_ms, row + 1));
        row += 2;
        let [prefill, decode] = match chunk {
            0 => [String::new(), time_ms.to_string()],
            _ => [time_ms.to_string(), String::new()],
        };
        writeln!(
            text,
            "{prefill},{decode},{save_ms},4096,32,32,16,1,{batch},{chunk},{kv}"
        )
        .unwrap();
    };
    for chunk in lengths() {
        for kv in (0..=4096 - chunk).step_by(chunk as usize) {
            let pairs = f64::from(chunk) * (f64::from(kv) + f64::from(chunk) / 2.0);
            line(1, chunk, kv, 0.02 + 1.2e-7 * pairs, 8e-4 * f64::from(chunk));
        }
    }
    for kv in lengths() {
        for batch in 1..=128 {
            let waves = (f64::from(batch) * 32.0 / 108.0).ceil();
            let time_ms = 0.01 + 2e-5 * waves * f64::from(kv);
            line(batch, 0, kv, time_ms, 0.003 + 2e-5 * f64::from(batch));
        }
    }
    text
}

/// The profiles, and what keeps made-up ones on disk.
fn files() -> (InputFiles, Option<tempfile::TempDir>) {
    let files = |directory: &Path| {
        let path = |name: &str| directory.join(name);
        InputFiles {
            compute: path("mlp.csv"),
            attention: path("attention.csv"),
            all_reduce: path("all_reduce.csv"),
            send_recv: path("send_recv.csv"),
            cpu_overhead: path("cpu_overheads.csv"),
        }
    };
    if let Some(root) = std::env::var_os("VIDUR_SWEEP_VIDUR_PROFILES") {
        let model = PathBuf::from(root).join("compute/a100/meta-llama/Llama-2-7b-hf");
        return (files(&model), None);
    }
    let directory = tempfile::tempdir().unwrap();
    let made = files(directory.path());
    std::fs::write(&made.compute, compute_profile()).unwrap();
    std::fs::write(&made.attention, attention_profile()).unwrap();
    (made, Some(directory))
}

fn deployment(files: InputFiles, keys: Keys) -> VidurDeployment {
    VidurDeployment {
        model: Catalog::builtin().model("llama-2-7b").unwrap(),
        model_name: "meta-llama/Llama-2-7b-hf".into(),
        parallelism: Parallelism {
            tensor_parallel: 1,
            pipeline_parallel: 1,
            expert_parallel: 1,
            attention_data_parallel: 1,
        },
        block_size: 16,
        gpus_per_node: 4,
        keys,
        files,
        fabric: None,
    }
}

fn config(estimator: Estimator) -> PredictorConfig {
    PredictorConfig {
        estimator,
        ..PredictorConfig::default()
    }
}

/// All operators of a deployment from nothing, default grids.
fn fitting(c: &mut Criterion) {
    let (files, _keep) = files();
    let deployment = deployment(files, Keys::Vidur);
    let mut group = c.benchmark_group("fit a profile cold");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(1));
    for estimator in [
        Estimator::Interpolation,
        Estimator::LinearRegression,
        Estimator::RandomForest,
    ] {
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let name = format!("{}, {threads} threads", estimator.name());
            group.bench_function(name, |b| {
                b.iter(|| {
                    pool.install(|| {
                        let library = FitLibrary::default();
                        VidurCost::fit(&deployment, &config(estimator), &library).unwrap()
                    })
                });
            });
        }
    }
    group.finish();

    let store = tempfile::tempdir().unwrap();
    let forest = config(Estimator::RandomForest);
    VidurCost::fit(&deployment, &forest, &FitLibrary::below(store.path())).unwrap();
    c.bench_function("a forest from disk", |b| {
        b.iter(|| VidurCost::fit(&deployment, &forest, &FitLibrary::below(store.path())).unwrap());
    });
}

/// Steps as a simulation asks for them: the context grows.
fn look_up(c: &mut Criterion) {
    let (files, _keep) = files();
    let quick = |estimator| PredictorConfig {
        num_estimators: vec![20],
        ..config(estimator)
    };
    for keys in [Keys::Exact, Keys::Vidur] {
        for estimator in [
            Estimator::Interpolation,
            Estimator::RandomForest,
            Estimator::LinearRegression,
        ] {
            let deployment = deployment(files.clone(), keys);
            let library = FitLibrary::default();
            let cost = VidurCost::fit(&deployment, &quick(estimator), &library).unwrap();
            for (what, chunks) in [("decodes", 0), ("decodes and a chunk", 1)] {
                let mut shape = StepShape {
                    prefills: vec![
                        PrefillChunk {
                            new_tokens: 448,
                            context_tokens: 1024,
                        };
                        chunks
                    ],
                    decode_requests: 64,
                    decode_context_tokens: 0,
                    sampled_tokens: 64,
                };
                let name = format!("step: {what}, {}, {keys:?} keys", estimator.name());
                c.bench_function(&name, |b| {
                    b.iter(|| {
                        shape.decode_context_tokens = (shape.decode_context_tokens + 64) % 250_000;
                        cost.stage_time(0, black_box(&shape))
                    });
                });
            }
        }
    }
}

criterion_group!(benches, fitting, look_up);
criterion_main!(benches);
