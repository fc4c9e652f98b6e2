//! The predictors' options, with Vidur's names and defaults.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VidurError;

/// How times are estimated from profile rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Straight lines between medians of measured points; deterministic.
    #[default]
    Interpolation,
    /// Bagged regression trees (Vidur's `random_forrest`).
    #[serde(alias = "random_forrest")]
    RandomForest,
    /// Least squares on polynomial features (Vidur's `linear_regression`).
    LinearRegression,
}

impl Estimator {
    /// The name in specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interpolation => "interpolation",
            Self::RandomForest => "random_forest",
            Self::LinearRegression => "linear_regression",
        }
    }
}

/// Options of `--random_forrest_execution_time_predictor_config_*` and
/// `--linear_regression_execution_time_predictor_config_*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictorConfig {
    /// How times are estimated.
    pub estimator: Estimator,
    /// `mlp.csv`; `{DEVICE}` and `{MODEL}` are replaced.
    pub compute_input_file: String,
    /// `attention.csv`; `{DEVICE}` and `{MODEL}` are replaced.
    pub attention_input_file: String,
    /// `all_reduce.csv`; `{NETWORK_DEVICE}` is replaced.
    pub all_reduce_input_file: String,
    /// `send_recv.csv`; `{NETWORK_DEVICE}` is replaced.
    pub send_recv_input_file: String,
    /// `cpu_overheads.csv`; `{NETWORK_DEVICE}` and `{MODEL}` are replaced.
    pub cpu_overhead_input_file: String,
    /// Folds of the grid search.
    pub k_fold_cv_splits: u32,
    /// Fit anew instead of taking a stored fit.
    pub no_cache: bool,
    /// Contexts are rounded up to a multiple of this, with Vidur's keys.
    pub kv_cache_prediction_granularity: u32,
    /// Largest prompt chunk of Vidur's tables. Prices go on beyond it here.
    pub prediction_max_prefill_chunk_size: u32,
    /// Largest decode batch of Vidur's tables. Prices go on beyond it here.
    pub prediction_max_batch_size: u32,
    /// Longest context of Vidur's tables. Prices go on beyond it here.
    pub prediction_max_tokens_per_request: u32,
    /// Added to decode attention of several requests, for grouped-query models.
    pub attention_decode_batching_overhead_fraction: f64,
    /// Added to prompt attention of several requests, for grouped-query models.
    pub attention_prefill_batching_overhead_fraction: f64,
    /// Host time of one collective, ms.
    pub nccl_cpu_launch_overhead_ms: f64,
    /// Wait for the slowest rank of a collective, ms, times ranks^1.25.
    pub nccl_cpu_skew_overhead_per_device_ms: f64,
    /// Threads of a fit in Vidur; here the program's thread count decides.
    pub num_training_job_threads: i32,
    /// Leave host time out.
    pub skip_cpu_overhead_modeling: bool,
    /// Forest sizes tried.
    pub num_estimators: Vec<u32>,
    /// Tree depths tried.
    pub max_depth: Vec<u32>,
    /// Smallest nodes that are split, tried.
    pub min_samples_split: Vec<u32>,
    /// Polynomial degrees tried.
    pub polynomial_degree: Vec<u32>,
    /// Whether a column of ones is among the features, tried.
    pub polynomial_include_bias: Vec<bool>,
    /// Whether only products of different features are taken, tried.
    pub polynomial_interaction_only: Vec<bool>,
    /// Whether an intercept is fitted, tried.
    pub fit_intercept: Vec<bool>,
    /// Seed of the forests (Vidur's are unseeded).
    pub seed: u64,
}

impl Default for PredictorConfig {
    fn default() -> Self {
        let compute = "./data/profiling/compute/{DEVICE}/{MODEL}";
        let network = "./data/profiling/network/{NETWORK_DEVICE}";
        Self {
            estimator: Estimator::default(),
            compute_input_file: format!("{compute}/mlp.csv"),
            attention_input_file: format!("{compute}/attention.csv"),
            all_reduce_input_file: format!("{network}/all_reduce.csv"),
            send_recv_input_file: format!("{network}/send_recv.csv"),
            cpu_overhead_input_file:
                "./data/profiling/cpu_overhead/{NETWORK_DEVICE}/{MODEL}/cpu_overheads.csv".into(),
            k_fold_cv_splits: 10,
            no_cache: false,
            kv_cache_prediction_granularity: 64,
            prediction_max_prefill_chunk_size: 4096,
            prediction_max_batch_size: 128,
            prediction_max_tokens_per_request: 4096,
            attention_decode_batching_overhead_fraction: 0.1,
            attention_prefill_batching_overhead_fraction: 0.1,
            nccl_cpu_launch_overhead_ms: 0.02,
            nccl_cpu_skew_overhead_per_device_ms: 0.0,
            num_training_job_threads: -1,
            skip_cpu_overhead_modeling: true,
            num_estimators: vec![250, 500, 750],
            max_depth: vec![8, 16, 32],
            min_samples_split: vec![2, 5, 10],
            polynomial_degree: vec![1, 2, 3, 4, 5],
            polynomial_include_bias: vec![true, false],
            polynomial_interaction_only: vec![true, false],
            fit_intercept: vec![true, false],
            seed: 42,
        }
    }
}

/// Where the profiles of a deployment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFiles {
    /// `mlp.csv`.
    pub compute: PathBuf,
    /// `attention.csv`.
    pub attention: PathBuf,
    /// `all_reduce.csv`.
    pub all_reduce: PathBuf,
    /// `send_recv.csv`.
    pub send_recv: PathBuf,
    /// `cpu_overheads.csv`.
    pub cpu_overhead: PathBuf,
}

impl InputFiles {
    /// The files by the keys of [`PredictorConfig`] that name them.
    pub fn by_key(&self) -> [(&'static str, &Path); 5] {
        [
            ("compute_input_file", &self.compute),
            ("attention_input_file", &self.attention),
            ("all_reduce_input_file", &self.all_reduce),
            ("send_recv_input_file", &self.send_recv),
            ("cpu_overhead_input_file", &self.cpu_overhead),
        ]
    }
}

/// Most trees, deepest tree and highest degree accepted.
const ESTIMATORS_MAX: u32 = 100_000;
const DEPTH_MAX: u32 = 1_000;
const DEGREE_MAX: u32 = 10;
const FOLDS_MAX: u32 = 1_000;

impl PredictorConfig {
    /// The paths with device, model and network device filled in.
    pub fn input_files(&self, device: &str, model: &str, network_device: &str) -> InputFiles {
        let path = |template: &str| {
            PathBuf::from(
                template
                    .replace("{DEVICE}", device)
                    .replace("{MODEL}", model)
                    .replace("{NETWORK_DEVICE}", network_device),
            )
        };
        InputFiles {
            compute: path(&self.compute_input_file),
            attention: path(&self.attention_input_file),
            all_reduce: path(&self.all_reduce_input_file),
            send_recv: path(&self.send_recv_input_file),
            cpu_overhead: path(&self.cpu_overhead_input_file),
        }
    }

    /// Checks that every figure can be used.
    ///
    /// # Errors
    /// Names the first option that cannot, its value and what is allowed.
    pub fn check(&self) -> Result<(), VidurError> {
        within("k_fold_cv_splits", &[self.k_fold_cv_splits], 2, FOLDS_MAX)?;
        within(
            "kv_cache_prediction_granularity",
            &[self.kv_cache_prediction_granularity],
            1,
            u32::MAX,
        )?;
        within("num_estimators", &self.num_estimators, 1, ESTIMATORS_MAX)?;
        within("max_depth", &self.max_depth, 1, DEPTH_MAX)?;
        within("min_samples_split", &self.min_samples_split, 2, u32::MAX)?;
        within("polynomial_degree", &self.polynomial_degree, 1, DEGREE_MAX)?;
        for (name, list) in [
            ("polynomial_include_bias", &self.polynomial_include_bias),
            (
                "polynomial_interaction_only",
                &self.polynomial_interaction_only,
            ),
            ("fit_intercept", &self.fit_intercept),
        ] {
            if list.is_empty() {
                return Err(refused(name, "nothing", "at least one of true, false"));
            }
        }
        for (name, value) in [
            (
                "attention_decode_batching_overhead_fraction",
                self.attention_decode_batching_overhead_fraction,
            ),
            (
                "attention_prefill_batching_overhead_fraction",
                self.attention_prefill_batching_overhead_fraction,
            ),
            (
                "nccl_cpu_launch_overhead_ms",
                self.nccl_cpu_launch_overhead_ms,
            ),
            (
                "nccl_cpu_skew_overhead_per_device_ms",
                self.nccl_cpu_skew_overhead_per_device_ms,
            ),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(refused(name, &value.to_string(), "a number from 0 on"));
            }
        }
        Ok(())
    }
}

fn within(name: &str, values: &[u32], low: u32, high: u32) -> Result<(), VidurError> {
    let allowed = format!("whole numbers from {low} to {high}");
    if values.is_empty() {
        return Err(refused(name, "nothing", &allowed));
    }
    match values.iter().find(|value| !(low..=high).contains(value)) {
        Some(value) => Err(refused(name, &value.to_string(), &allowed)),
        None => Ok(()),
    }
}

fn refused(name: &str, value: &str, allowed: &str) -> VidurError {
    VidurError::Unsupported(format!("{name}: {value} given, allowed are {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_filled_in_as_in_the_original() {
        let files = PredictorConfig::default().input_files("a100", "org/model", "a100_dgx");
        let text = |path: &PathBuf| path.display().to_string();
        assert_eq!(
            text(&files.attention),
            "./data/profiling/compute/a100/org/model/attention.csv"
        );
        assert_eq!(
            text(&files.all_reduce),
            "./data/profiling/network/a100_dgx/all_reduce.csv"
        );
        assert_eq!(
            text(&files.cpu_overhead),
            "./data/profiling/cpu_overhead/a100_dgx/org/model/cpu_overheads.csv"
        );
    }

    #[test]
    fn unusable_figures_are_named() {
        let message = |change: fn(&mut PredictorConfig)| {
            let mut config = PredictorConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(PredictorConfig::default().check().is_ok());
        assert_eq!(
            message(|c| c.max_depth = vec![8, 0]),
            "max_depth: 0 given, allowed are whole numbers from 1 to 1000"
        );
        assert!(message(|c| c.num_estimators.clear()).starts_with("num_estimators: nothing"));
        assert!(message(|c| c.fit_intercept.clear()).starts_with("fit_intercept: nothing"));
        assert!(
            message(|c| c.nccl_cpu_launch_overhead_ms = f64::NAN).contains("launch_overhead_ms")
        );
    }
}
