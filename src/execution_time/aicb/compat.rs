//! What Vidur-AlibabaCloud makes of the same files, defects included: one cache
//! that the first lookups of a (phase, batch size) fill and that answers all
//! later ones, a decode length that is the sum over the batch, a microsecond for
//! every part a layer does not have, exchanges at the NIC's binary gigabits
//! whatever the expert parallelism, and seconds taken for milliseconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{AicbFile, FileKey, LayerRows, Phase, Row};
use crate::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use crate::one_by_one;

/// Time of a part that a layer does not have, seconds.
const ABSENT_S: f64 = 1e-6;
/// The original's slip: its sum of seconds is read as milliseconds.
const MODEL_TIME_FACTOR: f64 = 1e-3;
/// Bytes per second of one of its gigabits.
const BINARY_GIGABIT_BYTES: f64 = (1u64 << 30) as f64 / 8.0;

/// One lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompatQuery {
    /// Phase.
    pub phase: Phase,
    /// Requests in decode; 1 in prefill.
    pub batch_size: u32,
    /// Prompt tokens of the batch, or the sum of its contexts.
    pub sequence: u64,
    /// Sum of the contexts when every request of a decode batch makes its last
    /// token; none: the next longer file of the batch size stands for it.
    pub final_sequence: Option<u64>,
}

/// Layers by length, of one phase and batch size.
type Lengths = BTreeMap<u64, Arc<Vec<LayerRows>>>;
/// The same of all phases and batch sizes.
type Groups = BTreeMap<(Phase, u32), Lengths>;

/// Execution times as the original computes them. What it answers depends on
/// what it was asked before, so an instance belongs to one run.
#[derive(Debug)]
pub struct CompatAicb {
    files: Groups,
    cached: Mutex<Groups>,
    layers: usize,
    rdma_bytes_per_s: f64,
}

impl CompatAicb {
    /// Times of a model of `layers` from `files`, which are of one cut per phase;
    /// `rdma_bandwidth` is the original's flag of that name.
    pub fn new(files: Vec<(FileKey, AicbFile)>, layers: u32, rdma_bandwidth: f64) -> Self {
        let mut groups = Groups::new();
        for (key, file) in files {
            let group = groups.entry((key.phase, key.batch_size)).or_default();
            group.insert(key.sequence, Arc::new(file.layers));
        }
        Self {
            files: groups,
            cached: Mutex::default(),
            layers: layers as usize,
            rdma_bytes_per_s: rdma_bandwidth * BINARY_GIGABIT_BYTES,
        }
    }

    /// Time of one batch, seconds; none where the original would have run AICB.
    pub fn time_s(&self, query: &CompatQuery) -> Option<f64> {
        let key = (query.phase, query.batch_size);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let group = cached.entry(key).or_default();
        let files = self.files.get(&key);
        let layers = match look_up(group, query.sequence) {
            Some(layers) => layers,
            None => Arc::clone(files?.get(&query.sequence)?),
        };
        group.insert(query.sequence, Arc::clone(&layers));
        if query.phase == Phase::Decode
            && let Some(files) = files
        {
            load_end(group, files, query);
        }
        Some(self.sum_s(&layers))
    }

    fn sum_s(&self, layers: &[LayerRows]) -> f64 {
        let or_absent = |time_s: f64| if time_s > 0.0 { time_s } else { ABSENT_S };
        let none = LayerRows::default();
        let mut total = 0.0;
        for layer in 0..self.layers {
            let rows = layers.get(layer).unwrap_or(&none);
            let exchange_s = rows.moe.comm_bytes / self.rdma_bytes_per_s;
            total += or_absent(rows.attention.compute_s())
                + or_absent(rows.mlp.compute_s())
                + or_absent(rows.moe.compute_s() + exchange_s);
        }
        total * MODEL_TIME_FACTOR
    }
}

/// The cached layers at a length: as they are, between their neighbours, or the
/// nearest ones.
fn look_up(group: &Lengths, sequence: u64) -> Option<Arc<Vec<LayerRows>>> {
    let below = group.range(..=sequence).next_back();
    let above = group.range(sequence..).next();
    match (below, above) {
        (Some((low, layers)), Some((high, _))) if low == high => Some(Arc::clone(layers)),
        (Some((low, a)), Some((high, b))) => {
            let share = (sequence - low) as f64 / (high - low) as f64;
            Some(Arc::new(blend(a, b, share)))
        }
        (Some((_, layers)), None) | (None, Some((_, layers))) => Some(Arc::clone(layers)),
        (None, None) => None,
    }
}

fn blend(a: &[LayerRows], b: &[LayerRows], share: f64) -> Vec<LayerRows> {
    let mix = |a: f64, b: f64| a * (1.0 - share) + b * share;
    let row = |a: Row, b: Row| Row {
        compute_ns: mix(a.compute_ns, b.compute_ns),
        comm_bytes: mix(a.comm_bytes, b.comm_bytes),
    };
    let none = LayerRows::default();
    (0..a.len().max(b.len()))
        .map(|layer| {
            let (a, b) = (a.get(layer).unwrap_or(&none), b.get(layer).unwrap_or(&none));
            LayerRows {
                attention: row(a.attention, b.attention),
                mlp: row(a.mlp, b.mlp),
                moe: row(a.moe, b.moe),
            }
        })
        .collect()
}

/// Loads the file of the length at which the batch ends, if it is not there yet.
fn load_end(group: &mut Lengths, files: &Lengths, query: &CompatQuery) {
    let end = match query.final_sequence {
        Some(end) => files.get_key_value(&end),
        None => files
            .range(query.sequence + 1..)
            .find(|(length, _)| !group.contains_key(length)),
    };
    if let Some((&end, layers)) = end
        && end != query.sequence
    {
        group.entry(end).or_insert_with(|| Arc::clone(layers));
    }
}

impl StepCost for CompatAicb {
    /// The original runs AICB with one stage only: its code fails beyond.
    fn stages(&self) -> u32 {
        1
    }

    /// A batch with prompts is a prefill of the sum of its prompts. Where no file
    /// and no earlier lookup covers the batch the time is that of a layer without
    /// any part, as in the original.
    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        let query = if shape.prefills.is_empty() {
            CompatQuery {
                phase: Phase::Decode,
                batch_size: shape.decode_requests,
                sequence: shape.decode_context_tokens,
                final_sequence: None,
            }
        } else {
            CompatQuery {
                phase: Phase::Prefill,
                batch_size: 1,
                sequence: u64::from(shape.prefill_tokens()),
                final_sequence: None,
            }
        };
        StageTime {
            model_s: self.time_s(&query).unwrap_or_else(|| self.sum_s(&[])),
            host_s: 0.0,
        }
    }

    /// Nothing: the original has no operators.
    fn explain(&self, _shape: &StepShape) -> Vec<PricedOperator> {
        Vec::new()
    }

    one_by_one!(
        stage_time_of,
        tells_runs_apart,
        stage_times,
        decode_times,
        explain_stage
    );
}
