//! Backend `vidur`: steps priced by fits of profiled operators.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::compose::{Composed, Deployment, OperatorTimes};
use super::library::{FitLibrary, Target};
use super::{
    Estimator, Fit, InputFiles, Keys, Op, PredictorConfig, ProfileShape, Rows, VidurError,
};
use crate::catalog::{Attention, ModelSpec};
use crate::execution_time::{PricedOperator, Provenance, StageRun, StageTime, StepCost, StepShape};
use crate::memory::Parallelism;
use crate::network::Fabric;
use crate::number::whole_u64;

/// What a [`VidurCost`] is for.
#[derive(Debug, Clone)]
pub struct VidurDeployment {
    /// The model.
    pub model: ModelSpec,
    /// Its name in `cpu_overheads.csv`.
    pub model_name: String,
    /// How it is cut; only tensor and pipeline parallelism count.
    pub parallelism: Parallelism,
    /// Tokens of a KV cache block.
    pub block_size: u32,
    /// GPUs of one node, by the network device.
    pub gpus_per_node: u32,
    /// What of a batch counts.
    pub keys: Keys,
    /// Where the profiles are.
    pub files: InputFiles,
    /// Prices communication in the place of profiles.
    pub fabric: Option<Arc<Fabric>>,
}

/// Prices steps by fits of profiled operators.
#[derive(Debug)]
pub struct VidurCost(Composed<FittedTimes>);

impl VidurCost {
    /// Fits the operators of a deployment, or takes them from `library`.
    ///
    /// # Errors
    /// If a profile is missing ([`VidurError::missing_file`]) or damaged, holds
    /// nothing for this deployment, or the model is of a kind that Vidur's
    /// profiles do not cover.
    pub fn fit(
        deployment: &VidurDeployment,
        predictor: &PredictorConfig,
        library: &FitLibrary,
    ) -> Result<Self, VidurError> {
        let formula = Deployment::new(
            &deployment.model,
            deployment.parallelism,
            deployment.gpus_per_node,
            deployment.keys,
            predictor,
        )?
        .over(deployment.fabric.clone());
        // The profile of cache writes is of two kernels. Fits of the original
        // take its rows as one.
        let two_phases =
            formula.keys() == Keys::Exact && predictor.estimator == Estimator::Interpolation;
        let mut targets: Vec<Target> = Vec::new();
        for op in formula.operators() {
            if op == Op::AttnKvCacheSave && two_phases {
                targets.extend([(op, Rows::Decode), (op, Rows::Prefill)]);
            } else {
                targets.push((op, Rows::All));
            }
        }
        let shape = deployment.shape(formula.across_nodes());
        let fits = library.fit(&targets, &deployment.files, &shape, predictor)?;
        let times = FittedTimes::new(&targets, fits);
        Ok(Self(Composed::new(times, formula)))
    }

    /// What went beyond the profiles so far, one sentence an operator and
    /// feature.
    pub fn warnings(&self) -> Vec<String> {
        let fits = self.0.times.fits.iter().flatten();
        let fabric = self.0.fabric().map(Fabric::warnings);
        fits.flat_map(Watched::warnings)
            .chain(fabric.into_iter().flatten())
            .collect()
    }

    /// The fits, for reports.
    pub fn fits(&self) -> impl Iterator<Item = (Op, &Fit)> {
        let fits = self.0.times.fits.iter().flatten();
        fits.map(|watched| (watched.fit.op, &*watched.fit))
    }
}

impl VidurDeployment {
    fn shape(&self, across_nodes: bool) -> ProfileShape {
        let kv_heads = match self.model.attention {
            Attention::Gqa { kv_heads, .. } => kv_heads,
            Attention::Mla { heads, .. } => heads,
        };
        let tensor_parallel = self.parallelism.tensor_parallel;
        ProfileShape {
            model_name: self.model_name.clone(),
            heads: self.model.attention.heads(),
            kv_heads,
            hidden_size: self.model.hidden_size,
            intermediate_size: self.model.intermediate_size,
            gated_mlp: self.model.gated_mlp,
            tensor_parallel,
            block_size: self.block_size,
            ranks_per_node: match self.keys {
                // A group larger than a node has rows too, if it was profiled.
                Keys::Exact => tensor_parallel.min(self.gpus_per_node),
                Keys::Vidur => tensor_parallel,
            },
            across_nodes,
        }
    }
}

impl StepCost for VidurCost {
    fn stages(&self) -> u32 {
        self.0.stages()
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        self.0.stage_time(stage, shape)
    }

    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.0.stage_time_of(run, shape)
    }

    fn tells_runs_apart(&self) -> bool {
        self.0.tells_runs_apart()
    }

    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.0.stage_times(shape, times);
    }

    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.0.decode_times(shape, times);
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        self.0.explain(shape)
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        self.0.explain_stage(stage, shape)
    }
}

/// A fit that remembers how far beyond its samples it was asked.
#[derive(Debug)]
struct Watched {
    fit: Arc<Fit>,
    /// Largest value of each feature asked for beyond the samples; 0: none.
    beyond: [AtomicU64; 2],
}

impl Watched {
    fn new(fit: Arc<Fit>) -> Self {
        Self {
            fit,
            beyond: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    #[inline]
    fn watch(&self, point: [f64; 2]) {
        for axis in [0, 1] {
            if point[axis] > self.fit.largest[axis] {
                self.note(axis, point[axis]);
            }
        }
    }

    #[cold]
    fn note(&self, axis: usize, value: f64) {
        self.beyond[axis].fetch_max(whole_u64(value), Relaxed);
    }

    fn predict(&self, point: [f64; 2]) -> f64 {
        self.watch(point);
        self.fit.predict(point)
    }

    fn warnings(&self) -> Vec<String> {
        let names = self.fit.op.features();
        let sentence = |axis: usize| {
            let asked = self.beyond[axis].load(Relaxed);
            (asked > 0).then(|| {
                format!(
                    "{}: {} up to {asked} asked for, profiled up to {}: {}",
                    self.fit.op,
                    names[axis],
                    self.fit.largest[axis],
                    self.fit.beyond()
                )
            })
        };
        (0..names.len()).filter_map(sentence).collect()
    }
}

/// Fits by operator.
#[derive(Debug)]
struct FittedTimes {
    /// In the order of [`Op::ALL`]; then the prompt half of cache writes.
    fits: Vec<Option<Watched>>,
}

const PREFILL_SAVE: usize = Op::ALL.len();

impl FittedTimes {
    fn new(targets: &[Target], fits: Vec<Arc<Fit>>) -> Self {
        let mut times = Self {
            fits: (0..=PREFILL_SAVE).map(|_| None).collect(),
        };
        for ((op, rows), fit) in targets.iter().zip(fits) {
            let slot = match rows {
                Rows::Prefill => PREFILL_SAVE,
                Rows::All | Rows::Decode => *op as usize,
            };
            times.fits[slot] = Some(Watched::new(fit));
        }
        times
    }

    fn predict(&self, slot: usize, point: [f64; 2]) -> f64 {
        // Operators that a deployment does not have take no time.
        self.fits[slot]
            .as_ref()
            .map_or(0.0, |fit| fit.predict(point))
    }
}

impl OperatorTimes for FittedTimes {
    fn by_count_ms(&self, op: Op, count: u32) -> f64 {
        self.predict(op as usize, [f64::from(count), 0.0])
    }

    fn saves_by_phase(&self) -> bool {
        self.fits[PREFILL_SAVE].is_some()
    }

    fn kv_cache_save_ms(&self, phase: Rows, tokens: u32) -> f64 {
        let slot = match phase {
            Rows::Prefill => PREFILL_SAVE,
            Rows::All | Rows::Decode => Op::AttnKvCacheSave as usize,
        };
        self.predict(slot, [f64::from(tokens), 0.0])
    }

    #[inline]
    fn decode_ms(&self, requests: u32, kv_tokens: f64) -> f64 {
        self.predict(Op::AttnDecode as usize, [f64::from(requests), kv_tokens])
    }

    #[inline]
    fn prefill_ms(&self, kv_tokens: f64, chunk: f64) -> f64 {
        let Some(watched) = &self.fits[Op::AttnPrefill as usize] else {
            return 0.0;
        };
        watched.watch([kv_tokens, chunk * chunk]);
        watched.fit.predict_chunk(kv_tokens, chunk)
    }

    fn provenance(&self, op: Op, features: [f64; 2]) -> Provenance {
        let beyond = self.fits[op as usize].as_ref().is_some_and(|watched| {
            let largest = watched.fit.largest;
            features[0] > largest[0] || features[1] > largest[1]
        });
        if beyond {
            Provenance::Extrapolated
        } else {
            Provenance::Interpolated
        }
    }
}

/// Where fits are kept below Vidur's cache directory.
impl FitLibrary {
    /// A library in the place Vidur has its own cache.
    pub fn below(cache_dir: &Path) -> Self {
        Self::new(Some(cache_dir.join("execution_time_predictor")))
    }
}
