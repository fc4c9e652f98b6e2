//! What readers, estimators, store and costs promise, on small profiles whose
//! times follow known formulas.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::forest::{self, Forest, ForestParameters};
use super::regression::{self, Polynomial, RegressionParameters};
use super::*;
use crate::catalog::{Catalog, ModelSpec};
use crate::execution_time::step_cost::wrapper_tests::answers_agree;
use crate::execution_time::{PrefillChunk, StepCost, StepShape};
use crate::memory::Parallelism;

const TOKENS: [u32; 12] = [1, 2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// Time of a compute operator in the test profiles, ms.
fn compute_ms(op: Op, tokens: u32) -> f64 {
    let slot = f64::from(op as u32 + 1);
    0.01 * slot + 1e-4 * slot * f64::from(tokens)
}

fn decode_ms(requests: f64, kv_tokens: f64) -> f64 {
    0.01 + 2e-6 * requests * kv_tokens
}

fn prefill_ms(kv_tokens: f64, chunk: f64) -> f64 {
    0.02 + 1e-6 * chunk * (kv_tokens + chunk / 2.0)
}

fn save_ms(decode: bool, tokens: u32) -> f64 {
    if decode {
        0.004 + 1e-5 * f64::from(tokens)
    } else {
        0.01 + 8e-4 * f64::from(tokens)
    }
}

const COMPUTE: [Op; 9] = [
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

fn mlp_csv(tensor_parallel: u32) -> String {
    let times: Vec<String> = COMPUTE.iter().map(|op| op.time_column()).collect();
    let mut text = format!(
        "{},n_head,n_kv_head,n_embd,n_expanded_embd,vocab_size,use_gated_mlp,num_tokens,num_tensor_parallel_workers\n",
        times.join(",")
    );
    for tokens in TOKENS.iter().rev() {
        for op in COMPUTE {
            write!(text, "{},", compute_ms(op, *tokens)).unwrap();
        }
        writeln!(
            text,
            "32,32,4096,11008,32768,True,{tokens},{tensor_parallel}"
        )
        .unwrap();
    }
    text
}

const KV: [u32; 6] = [0, 64, 256, 1024, 2048, 4032];
const CHUNKS: [u32; 5] = [64, 128, 512, 1024, 2048];
const REQUESTS: [u32; 6] = [1, 2, 4, 16, 64, 128];

fn attention_csv(tensor_parallel: u32) -> String {
    let mut text = String::from(
        "time_stats.attn_prefill.median,time_stats.attn_decode.median,time_stats.attn_kv_cache_save.median,\
         n_embd,n_q_head,n_kv_head,block_size,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size,is_prefill\n",
    );
    let fixed = format!("4096,32,32,16,{tensor_parallel}");
    for kv in KV {
        for chunk in CHUNKS {
            let time = prefill_ms(f64::from(kv), f64::from(chunk));
            let save = save_ms(false, chunk);
            writeln!(text, "{time},,{save},{fixed},1,{chunk},{kv},True").unwrap();
        }
        for requests in REQUESTS {
            let time = decode_ms(f64::from(requests), f64::from(kv));
            let save = save_ms(true, requests);
            writeln!(text, ",{time},{save},{fixed},{requests},0,{kv},False").unwrap();
        }
    }
    text
}

fn network_csv(collective: &str, workers: u32, devices_per_node: u32) -> String {
    let mut text = format!(
        ",time_stats.{collective}.median,rank,num_workers,size,collective,devices_per_node,max_devices_per_node\n"
    );
    for (index, tokens) in TOKENS.iter().enumerate() {
        let time = 0.02 + 1e-5 * f64::from(*tokens);
        let bytes = tokens * 8192;
        writeln!(
            text,
            "{index},{time},0,{workers},{bytes},{collective},{devices_per_node},4"
        )
        .unwrap();
    }
    text
}

struct Profiles(tempfile::TempDir);

impl Profiles {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("mlp.csv", mlp_csv(1));
        write("attention.csv", attention_csv(1));
        write("mlp2.csv", mlp_csv(2));
        write("attention2.csv", attention_csv(2));
        write("all_reduce.csv", network_csv("all_reduce", 2, 2));
        write("send_recv.csv", network_csv("send_recv", 2, 2));
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, tensor_parallel: u32) -> InputFiles {
        let cut = if tensor_parallel == 2 { "2" } else { "" };
        InputFiles {
            compute: self.path(&format!("mlp{cut}.csv")),
            attention: self.path(&format!("attention{cut}.csv")),
            all_reduce: self.path("all_reduce.csv"),
            send_recv: self.path("send_recv.csv"),
            cpu_overhead: self.path("cpu_overheads.csv"),
        }
    }
}

fn llama() -> ModelSpec {
    Catalog::builtin().model("llama-2-7b").unwrap()
}

fn parallelism(tensor_parallel: u32, pipeline_parallel: u32) -> Parallelism {
    Parallelism {
        tensor_parallel,
        pipeline_parallel,
        expert_parallel: 1,
        attention_data_parallel: 1,
    }
}

fn deployment(profiles: &Profiles, tensor: u32, pipeline: u32, keys: Keys) -> VidurDeployment {
    VidurDeployment {
        model: llama(),
        model_name: "meta-llama/Llama-2-7b-hf".into(),
        parallelism: parallelism(tensor, pipeline),
        block_size: 16,
        gpus_per_node: 4,
        keys,
        files: profiles.files(tensor),
        fabric: None,
    }
}

fn shape_of_profile() -> ProfileShape {
    ProfileShape {
        model_name: "m".into(),
        heads: 32,
        kv_heads: 32,
        hidden_size: 4096,
        intermediate_size: 11008,
        gated_mlp: true,
        tensor_parallel: 1,
        block_size: 16,
        ranks_per_node: 1,
        across_nodes: false,
    }
}

fn select(path: &Path, profile: Profile, shape: &ProfileShape) -> Result<usize, VidurError> {
    let file = ProfileFile::read(path, profile)?;
    let rows = file.select(shape)?;
    Ok(rows.samples(Op::Add, shape, Rows::All)?.len())
}

fn close(got: f64, expected: f64) -> bool {
    (got - expected).abs() <= 1e-12 * expected.abs()
}

#[test]
fn rows_are_chosen_and_features_derived() {
    let profiles = Profiles::new();
    let shape = shape_of_profile();
    let file = ProfileFile::read(&profiles.path("attention.csv"), Profile::Attention).unwrap();
    let rows = file.select(&shape).unwrap();
    let prefill = rows.samples(Op::AttnPrefill, &shape, Rows::All).unwrap();
    assert_eq!(prefill.points[1], [0.0, 128.0 * 128.0]);
    assert_eq!(prefill.len(), 30);
    let decode = rows.samples(Op::AttnDecode, &shape, Rows::All).unwrap();
    assert_eq!(decode.points[7], [2.0, 64.0]);
    let save = |which| rows.samples(Op::AttnKvCacheSave, &shape, which).unwrap();
    assert_eq!(save(Rows::All).len(), 66);
    assert_eq!(save(Rows::Decode).points[5], [128.0, 0.0]);
    assert_eq!(save(Rows::Prefill).points[4], [2048.0, 0.0]);

    let file = ProfileFile::read(&profiles.path("send_recv.csv"), Profile::SendRecv).unwrap();
    let rows = file.select(&shape).unwrap();
    let sent = rows.samples(Op::SendRecv, &shape, Rows::All).unwrap();
    assert_eq!(sent.points[2], [8.0, 0.0]);
}

#[test]
fn equal_rows_count_once_and_unmeasured_columns_are_zero() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mlp.csv");
    let columns = "n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tokens,num_tensor_parallel_workers";
    let row = "32,32,4096,11008,True,8,1";
    std::fs::write(&path, format!("{columns}\r\n{row}\r\n{row}\r\n")).unwrap();
    let shape = shape_of_profile();
    assert_eq!(select(&path, Profile::Compute, &shape).unwrap(), 1);
    let file = ProfileFile::read(&path, Profile::Compute).unwrap();
    let rows = file.select(&shape).unwrap();
    let add = rows.samples(Op::Add, &shape, Rows::All).unwrap();
    assert_eq!(add.times_ms, [0.0]);
    let error = rows
        .samples(Op::MlpAct, &shape, Rows::All)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(":1:1: no column `time_stats.mlp_act.median` in the header"),
        "{error}"
    );
}

#[test]
fn bad_fields_are_named_by_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mlp.csv");
    let message = |text: String| {
        std::fs::write(&path, text).unwrap();
        let error = select(&path, Profile::Compute, &shape_of_profile()).unwrap_err();
        let message = error.to_string();
        message[message.find("mlp.csv").unwrap()..].to_owned()
    };
    let good = mlp_csv(1);
    let lines: Vec<&str> = good.lines().collect();
    let broken = lines[3].replace(",True,1024,1", ",True,many,1");
    let column = broken.find("many").unwrap() + 1;
    assert_eq!(
        message(good.replace(lines[3], &broken)),
        format!("mlp.csv:4:{column}: num_tokens: `many` is not a number from 0 on")
            .replace(" from 0 on", "")
    );
    let broken = lines[2].replace("True", "maybe");
    assert!(message(good.replace(lines[2], &broken)).ends_with("`maybe` is not True or False"));
    let short = lines[5].rsplit_once(',').unwrap().0;
    assert_eq!(
        message(good.replace(lines[5], short)),
        "mlp.csv:6:1: 16 fields, but the header has 17"
    );
    assert!(
        message(good.replace("num_tokens", "num_token"))
            .ends_with("no column `num_tokens` in the header; did you mean `num_token`?")
    );
}

#[test]
fn what_a_profile_lacks_is_said() {
    let profiles = Profiles::new();
    let shape = ProfileShape {
        tensor_parallel: 8,
        ..shape_of_profile()
    };
    let message = select(&profiles.path("mlp.csv"), Profile::Compute, &shape)
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("other rows have num_tensor_parallel_workers 1"),
        "{message}"
    );
    let missing = profiles.path("nowhere.csv");
    let error = select(&missing, Profile::Compute, &shape).unwrap_err();
    assert_eq!(error.missing_file(), Some(missing.as_path()));
    assert!(error.to_string().contains("`compute_input_file`"));
}

/// Times of a smooth function with a little noise, in no particular order.
fn noisy(op: Op, rows: u32) -> Samples {
    let point = |row: u32| {
        let second = f64::from(row * 37 % 40 + 1);
        match op {
            Op::AttnPrefill => [f64::from(row * 53 % 31) * 64.0, (second * 32.0).powi(2)],
            Op::AttnDecode => [second, f64::from(row * 53 % 31) * 64.0],
            _ => [f64::from(row * 53 % 97 + 1) * 8.0, 0.0],
        }
    };
    let points: Vec<[f64; 2]> = (0..rows).map(point).collect();
    let times = points.iter().enumerate().map(|(row, [x, y])| {
        let noise = f64::from(row as u32 * 7919 % 101) / 101.0 - 0.5;
        (0.1 + 1e-4 * x + 1e-5 * y) * (1.0 + 0.01 * noise)
    });
    let times = times.collect();
    Samples::new(op, points, times)
}

#[test]
fn a_polynomial_is_found_again() {
    let mut samples = noisy(Op::AttnDecode, 300);
    let truth = |[x, y]: [f64; 2]| 0.5 + 2e-3 * x + 3e-4 * y + 1e-6 * x * y;
    samples.times_ms = samples.points.iter().map(|point| truth(*point)).collect();
    let parameters = RegressionParameters {
        degree: 2,
        include_bias: true,
        interaction_only: true,
        fit_intercept: true,
    };
    let fit = Polynomial::fit(&samples, parameters);
    for point in [[3.0, 100.0], [40.0, 1900.0], [100.0, 5000.0]] {
        assert!((fit.predict(point) / truth(point) - 1.0).abs() < 1e-9);
    }
    let (found, error) = regression::search(&samples, &PredictorConfig::default());
    assert!(error < 1e-6, "{found:?}: {error} %");
}

const WITH_INTERCEPT: [f64; 3] = [0.09496468430251324, 0.10776724396950702, 0.4690898652089295];
const WITHOUT_INTERCEPT: [f64; 3] = [
    9.778696176152809e-08,
    0.02222656147858522,
    0.43389631458496525,
];

/// Figures of scikit-learn 1.9.1 on the same rows, `PolynomialFeatures(3)` and
/// `LinearRegression` with and without intercept.
#[test]
fn small_directions_are_left_out_as_scikit_learn_does() {
    let points: Vec<[f64; 2]> = (1..=20).map(|i| [f64::from(i * 200), 0.0]).collect();
    let times = points
        .iter()
        .map(|[x, _]| 0.05 + 1e-4 * x + 2e-9 * x * x)
        .collect();
    let samples = Samples::new(Op::Add, points, times);
    let predict = |fit_intercept| {
        let parameters = RegressionParameters {
            degree: 3,
            include_bias: true,
            interaction_only: false,
            fit_intercept,
        };
        let fit = Polynomial::fit(&samples, parameters);
        [1.0, 500.0, 4000.0].map(|x| fit.predict([x, 0.0]))
    };
    for (got, expected) in [
        (predict(true), WITH_INTERCEPT),
        (predict(false), WITHOUT_INTERCEPT),
    ] {
        for (got, expected) in got.iter().zip(expected) {
            assert!((got / expected - 1.0).abs() < 1e-9, "{got} {expected}");
        }
    }
}

#[test]
fn forests_do_not_depend_on_threads() {
    let samples = noisy(Op::AttnDecode, 400);
    let config = PredictorConfig {
        num_estimators: vec![10, 30],
        k_fold_cv_splits: 4,
        ..PredictorConfig::default()
    };
    let fit = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build()
            .unwrap()
            .install(|| Fit::new(&samples, Estimator::RandomForest, &config))
    };
    let one = fit(1);
    assert_eq!(one, fit(3));
    let other_seed = PredictorConfig { seed: 43, ..config };
    assert_ne!(
        one,
        Fit::new(&samples, Estimator::RandomForest, &other_seed)
    );
}

#[test]
fn forests_hold_the_edge_and_average_repeats() {
    let points = vec![[8.0, 0.0], [8.0, 0.0], [16.0, 0.0], [16.0, 0.0]];
    let samples = Samples::new(Op::Add, points, vec![1.0, 3.0, 10.0, 10.0]);
    let parameters = ForestParameters {
        num_estimators: 400,
        max_depth: 4,
        min_samples_split: 2,
    };
    let forest = Forest::grow(&samples, parameters, 1);
    assert_eq!(forest.predict([16.0, 0.0]), forest.predict([1e6, 0.0]));
    assert_eq!(forest.predict([12.0, 0.0]), forest.predict([1.0, 0.0]));
    // Rarely a tree has drawn only one side.
    assert!((forest.predict([8.0, 0.0]) - 2.0).abs() < 1.0);
    assert!((forest.predict([16.0, 0.0]) - 10.0).abs() < 1.0);
}

#[test]
fn the_search_takes_the_best_and_the_first_of_equals() {
    // Rows that are all alike: every combination is as good.
    let samples = Samples::new(Op::Add, vec![[8.0, 0.0]; 20], vec![2.0; 20]);
    let (first, error) = forest::search(&samples, &PredictorConfig::default());
    assert_eq!(error, 0.0);
    assert_eq!(
        (
            first.max_depth,
            first.min_samples_split,
            first.num_estimators
        ),
        (8, 2, 250)
    );
    // One split is far too few for a long line.
    let points: Vec<[f64; 2]> = (0..200).map(|i| [f64::from(i * 83 % 200), 0.0]).collect();
    let times = points.iter().map(|[x, _]| 1.0 + x).collect();
    let config = PredictorConfig {
        num_estimators: vec![20],
        max_depth: vec![1, 8],
        ..PredictorConfig::default()
    };
    let (best, _) = forest::search(&Samples::new(Op::Add, points, times), &config);
    assert_eq!((best.max_depth, best.min_samples_split), (8, 2));
}

#[test]
fn interpolation_is_exact_where_measured_and_proportional_beyond() {
    let samples = Samples::new(
        Op::MlpUpProj,
        vec![[8.0, 0.0], [8.0, 0.0], [8.0, 0.0], [16.0, 0.0], [32.0, 0.0]],
        vec![1.0, 9.0, 2.0, 3.0, 5.0],
    );
    let surface = Surface::fit(&samples);
    let at = |tokens: f64| surface.predict([tokens, 0.0]);
    // The median of the repeats, and straight lines between.
    assert_eq!(
        [at(8.0), at(12.0), at(16.0), at(24.0)],
        [2.0, 2.5, 3.0, 4.0]
    );
    assert_eq!(at(1.0), 2.0);
    assert!(at(64.0) > 8.0 && at(64.0) < 10.5, "{}", at(64.0));

    let profiles = Profiles::new();
    let shape = shape_of_profile();
    let file = ProfileFile::read(&profiles.path("attention.csv"), Profile::Attention).unwrap();
    let rows = file.select(&shape).unwrap();
    let fit = |op| Surface::fit(&rows.samples(op, &shape, Rows::All).unwrap());
    let (decode, prefill) = (fit(Op::AttnDecode), fit(Op::AttnPrefill));
    for kv in [0.0, 64.0, 100.0, 2000.0, 100_000.0] {
        for requests in [1.0, 3.0, 128.0, 500.0] {
            let got = decode.predict([requests, kv]);
            let expected = decode_ms(requests, kv);
            assert!(
                (got / expected - 1.0).abs() < 1e-9,
                "{requests} x {kv}: {got} {expected}"
            );
        }
        for chunk in [64.0, 512.0, 700.0, 9000.0] {
            let got = prefill.predict([kv, chunk * chunk]);
            let expected = prefill_ms(kv, chunk);
            assert!(
                (got / expected - 1.0).abs() < 1e-9,
                "{chunk} after {kv}: {got} {expected}"
            );
        }
    }
}

#[test]
fn gaps_are_filled_along_the_smooth_direction() {
    // A jump between 4 and 8 requests; along contexts there is none.
    let mut points = Vec::new();
    let mut times = Vec::new();
    for requests in [1.0, 2.0, 4.0, 8.0, 16.0] {
        for kv in [64.0, 128.0, 192.0, 256.0, 320.0] {
            if [requests, kv] != [8.0, 192.0] {
                points.push([requests, kv]);
                let step = if requests < 8.0 { 1.0 } else { 2.0 };
                times.push(step + 1e-4 * kv);
            }
        }
    }
    let surface = Surface::fit(&Samples::new(Op::AttnDecode, points, times));
    let got = surface.predict([8.0, 192.0]);
    assert!((got - 2.0192).abs() < 0.01, "{got}");
}

#[test]
fn fits_survive_the_way_to_disk() {
    let config = PredictorConfig {
        num_estimators: vec![20],
        ..PredictorConfig::default()
    };
    for estimator in [
        Estimator::Interpolation,
        Estimator::RandomForest,
        Estimator::LinearRegression,
    ] {
        for op in [Op::Add, Op::AttnDecode, Op::AttnPrefill] {
            let fit = Fit::new(&noisy(op, 200), estimator, &config);
            let bytes = fit.to_bytes();
            assert_eq!(Fit::from_bytes(&bytes), Some(fit));
            assert_eq!(Fit::from_bytes(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Fit::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
    }
}

/// Names and contents of the files in a directory.
fn listing(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn stored_fits_are_found_and_never_stale() {
    let profiles = Profiles::new();
    let store = tempfile::tempdir().unwrap();
    let directory = store.path().join("execution_time_predictor");
    let deployment = deployment(&profiles, 1, 1, Keys::Vidur);
    let config = PredictorConfig {
        estimator: Estimator::LinearRegression,
        ..PredictorConfig::default()
    };
    let fit = |config: &PredictorConfig| {
        let library = FitLibrary::below(store.path());
        let cost = VidurCost::fit(&deployment, config, &library).unwrap();
        assert_eq!(library.notes(), Vec::<String>::new());
        cost.fits()
            .map(|(_, fit)| fit.clone())
            .collect::<Vec<Fit>>()
    };
    let uncached = PredictorConfig {
        no_cache: true,
        ..config.clone()
    };
    let first = fit(&uncached);
    assert!(!directory.exists());
    assert_eq!(fit(&config), first);
    let stored = listing(&directory);
    assert_eq!(stored.len(), 12);
    assert!(stored.iter().all(|(name, _)| name.ends_with(".fit")));

    // A damaged file is made anew.
    std::fs::write(directory.join(&stored[3].0), &stored[3].1[..50]).unwrap();
    assert_eq!(fit(&config), first);
    assert_eq!(listing(&directory), stored);
    // A sound stored fit is taken as it is.
    for (name, _) in &stored {
        std::fs::write(directory.join(name), &stored[0].1).unwrap();
    }
    let taken = fit(&config);
    assert!(taken.iter().all(|fit| *fit == taken[0]));
    assert_eq!(fit(&uncached), first);

    // Other parameters and other data have other files.
    let other = PredictorConfig {
        k_fold_cv_splits: 4,
        ..config.clone()
    };
    fit(&other);
    assert_eq!(listing(&directory).len(), 24);
    let slower = mlp_csv(1).replace("4096,1\n", "4090,1\n");
    std::fs::write(profiles.path("mlp.csv"), slower).unwrap();
    fit(&config);
    assert_eq!(listing(&directory).len(), 33);
}

#[test]
fn a_directory_that_cannot_be_written_is_noted() {
    let profiles = Profiles::new();
    let library = FitLibrary::new(Some(profiles.path("mlp.csv")));
    let deployment = deployment(&profiles, 1, 1, Keys::Exact);
    VidurCost::fit(&deployment, &PredictorConfig::default(), &library).unwrap();
    let notes = library.notes();
    assert_eq!(notes.len(), 1);
    assert!(
        notes[0].contains("mlp.csv: fits are not kept: "),
        "{notes:?}"
    );
}

fn mixed() -> StepShape {
    StepShape {
        prefills: vec![
            PrefillChunk {
                new_tokens: 300,
                context_tokens: 100,
            },
            PrefillChunk {
                new_tokens: 64,
                context_tokens: 0,
            },
        ],
        decode_requests: 3,
        decode_context_tokens: 1000,
        sampled_tokens: 3,
    }
}

/// Sum of the token operators of one layer, `add` counted `adds` times.
fn layer_ms(tokens: u32, adds: f64) -> f64 {
    COMPUTE
        .iter()
        .map(|op| compute_ms(*op, tokens) * if *op == Op::Add { adds } else { 1.0 })
        .sum()
}

#[test]
fn exact_keys_price_the_batch_as_it_is() {
    let profiles = Profiles::new();
    let cost = VidurCost::fit(
        &deployment(&profiles, 1, 1, Keys::Exact),
        &PredictorConfig::default(),
        &FitLibrary::default(),
    )
    .unwrap();
    let shape = mixed();
    let launch = prefill_ms(0.0, 1.0);
    let prefill = prefill_ms(100.0, 300.0) + prefill_ms(0.0, 64.0) - launch;
    let decode = decode_ms(3.0, 1003.0 / 3.0);
    let save = save_ms(false, 364) + save_ms(true, 3) - save_ms(true, 1);
    let expected = (layer_ms(367, 2.0) + prefill + decode + save) * 32.0 * 1e-3;
    let got = cost.stage_time(0, &shape);
    assert!(
        (got.model_s / expected - 1.0).abs() < 1e-9,
        "{got:?} {expected}"
    );
    assert_eq!(got.host_s, 0.0);
    assert_eq!(cost.warnings(), Vec::<String>::new());
    assert_eq!(
        cost.stage_time(0, &StepShape::default()).total_s(),
        0.0,
        "nothing to do"
    );

    let far = StepShape {
        decode_requests: 200,
        decode_context_tokens: 200 * 9000,
        sampled_tokens: 200,
        ..StepShape::default()
    };
    let time = cost.stage_time(0, &far).model_s;
    let expected =
        (layer_ms(200, 2.0) + decode_ms(200.0, 9001.0) + save_ms(true, 200)) * 32.0 * 1e-3;
    assert!((time / expected - 1.0).abs() < 1e-9, "{time} {expected}");
    assert_eq!(
        cost.warnings(),
        [
            "attn_kv_cache_save: num_tokens up to 200 asked for, profiled up to 128: \
             extrapolated in proportion to the work",
            "attn_decode: batch_size up to 200 asked for, profiled up to 128: \
             extrapolated in proportion to the work",
            "attn_decode: kv_cache_size up to 9001 asked for, profiled up to 4032: \
             extrapolated in proportion to the work",
        ]
    );
}

#[test]
fn vidurs_keys_round_and_merge() {
    let profiles = Profiles::new();
    let config = PredictorConfig::default();
    let deployment = deployment(&profiles, 2, 2, Keys::Vidur);
    let cost = VidurCost::fit(&deployment, &config, &FitLibrary::default()).unwrap();
    answers_agree(&cost, "fitted");
    let fit = |op: Op, point: [f64; 2]| {
        let mut fits = cost.fits();
        fits.find(|(other, _)| *other == op)
            .unwrap()
            .1
            .predict(point)
    };
    let of = |op: Op| fit(op, [368.0, 0.0]);
    // 367 tokens; decodes (1000 + 3) / 3 = 334 -> 384; prompts 128 of context,
    // sqrt(300^2 + 64^2) = 306.75.
    let all_reduce = of(Op::AllReduce) + 0.02 + 0.0;
    let attention = of(Op::AttnPreProj)
        + of(Op::AttnPostProj)
        + of(Op::AttnRope)
        + fit(Op::AttnKvCacheSave, [367.0, 0.0])
        + fit(Op::AttnDecode, [3.0, 384.0])
        + fit(Op::AttnPrefill, [128.0, 307.0 * 307.0])
        + all_reduce
        + of(Op::InputLayernorm);
    let mlp = of(Op::MlpUpProj)
        + of(Op::MlpDownProj)
        + of(Op::MlpAct)
        + all_reduce
        + of(Op::PostAttentionLayernorm);
    let block = (attention + mlp) + of(Op::Add);
    let shape = mixed();
    assert_eq!(
        cost.stage_time(0, &shape).model_s,
        (block * 16.0 + of(Op::SendRecv)) * 1e-3
    );
    assert_eq!(cost.stage_time(1, &shape).model_s, block * 16.0 * 1e-3);
}

#[test]
fn explanations_add_up() {
    let profiles = Profiles::new();
    for keys in [Keys::Exact, Keys::Vidur] {
        let deployment = deployment(&profiles, 2, 2, keys);
        let library = FitLibrary::default();
        let cost = VidurCost::fit(&deployment, &PredictorConfig::default(), &library).unwrap();
        let shape = mixed();
        let rows = cost.explain(&shape);
        for stage in 0..2 {
            let of_stage = rows.iter().filter(|row| row.stage == stage);
            let sum: f64 = of_stage.map(|row| row.time_s).sum();
            assert!(close(sum, cost.stage_time(stage, &shape).total_s()));
        }
        let names: Vec<&str> = rows
            .iter()
            .filter(|row| row.stage == 1)
            .map(|row| row.name.as_str())
            .collect();
        assert!(names.contains(&"all_reduce") && !names.contains(&"send_recv"));
    }
}

#[test]
fn models_outside_vidurs_profiles_are_refused() {
    let profiles = Profiles::new();
    let refusal = |name: &str| {
        let deployment = VidurDeployment {
            model: Catalog::builtin().model(name).unwrap(),
            ..deployment(&profiles, 1, 1, Keys::Exact)
        };
        let library = FitLibrary::default();
        let error = VidurCost::fit(&deployment, &PredictorConfig::default(), &library);
        error.unwrap_err().to_string()
    };
    assert!(refusal("deepseek-671B").ends_with("models with multi-head latent attention"));
    assert!(refusal("Qwen3-30B-A3B").ends_with("models with experts"));
}

/// A table with a row for each operator, and what `change` makes of it.
fn table(change: impl Fn(String) -> String) -> Result<TableCost, VidurError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("predictions.csv");
    let mut text = String::from("op,f0,f1,ms\n");
    for op in COMPUTE {
        writeln!(text, "{op},8,,{}", compute_ms(op, 8)).unwrap();
    }
    text += "attn_kv_cache_save,5,,0.5\nattn_decode,5,64,0.25\nattn_decode,5,128,0.75\n";
    std::fs::write(&path, change(text)).unwrap();
    TableCost::from_predictions(
        &path,
        &llama(),
        parallelism(1, 1),
        4,
        &PredictorConfig::default(),
    )
}

fn decodes(requests: u32, context: u64) -> StepShape {
    StepShape {
        decode_requests: requests,
        decode_context_tokens: context * u64::from(requests),
        sampled_tokens: requests,
        ..StepShape::default()
    }
}

#[test]
fn tables_are_looked_up_and_gaps_reported() {
    answers_agree(&table(|text| text).unwrap(), "table");
    let cost = table(|text| text).unwrap();
    let time_ms = |attention: f64| (layer_ms(8, 1.0) + 0.5 + attention) * 32.0;
    let got = |shape: &StepShape| cost.stage_time(0, shape).total_s() * 1e3;
    assert!(close(got(&decodes(5, 63)), time_ms(0.25)));
    assert!(close(got(&decodes(5, 64)), time_ms(0.75)));
    assert_eq!(cost.misses(), Vec::<String>::new());
    assert!(close(got(&decodes(6, 500)), time_ms(0.75)));
    assert!(close(got(&decodes(6, 500)), time_ms(0.75)));
    assert_eq!(
        cost.misses(),
        [
            "attn_kv_cache_save: no entry for num_tokens 6; the nearest stands in",
            "attn_decode: no entry for batch_size 6, kv_cache_size 512; the nearest stands in",
        ]
    );
}

#[test]
fn bad_tables_are_refused() {
    let refusal = |from: &str, to: &str| {
        let message = table(|text| text.replace(from, to))
            .unwrap_err()
            .to_string();
        message[message.find("predictions.csv").unwrap()..].to_owned()
    };
    assert_eq!(
        refusal("attn_rope,8", "atn_rope,8"),
        "predictions.csv:4:1: op: `atn_rope` is not an operator of Vidur; did you mean `attn_rope`?"
    );
    assert_eq!(
        refusal("attn_decode,5,64", "attn_decode,5,6.5"),
        "predictions.csv:12:15: f1: `6.5` is not a whole number from 0 on"
    );
    assert_eq!(
        refusal("save,5,,0.5", "save,5,7,0.5"),
        "predictions.csv:11:22: f1: `7` is not blank, but attn_kv_cache_save has one key"
    );
    assert_eq!(
        refusal("save,5,,0.5", "save,5,,fast"),
        "predictions.csv:11:23: ms: `fast` is not a number"
    );
    assert_eq!(
        refusal("mlp_act,", "add,"),
        "predictions.csv: no rows for mlp_act; this deployment needs them"
    );
}

#[test]
fn host_time_is_priced_by_requests() {
    let profiles = Profiles::new();
    let mut text = String::from(
        "model_name,tensor_parallel_degree,batch_size,schedule_median,sampler_e2e_median,\
         prepare_inputs_e2e_median,process_model_outputs_median,ray_comm_time_mean\n",
    );
    for requests in [1, 4, 16] {
        writeln!(
            text,
            "meta-llama/Llama-2-7b-hf,1,{requests},0.{requests:02},0.1,0.2,0.3,0.4"
        )
        .unwrap();
    }
    std::fs::write(profiles.path("cpu_overheads.csv"), text).unwrap();
    let config = PredictorConfig {
        skip_cpu_overhead_modeling: false,
        ..PredictorConfig::default()
    };
    let deployment = deployment(&profiles, 1, 1, Keys::Exact);
    let cost = VidurCost::fit(&deployment, &config, &FitLibrary::default()).unwrap();
    let host_s = cost.stage_time(0, &decodes(16, 100)).host_s;
    assert!(close(host_s, 1.16e-3), "{host_s}");
}
