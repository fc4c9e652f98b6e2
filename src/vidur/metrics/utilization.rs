//! How much of each replica's memory and of each stage's time and peak is used.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};

use super::frame::float_array;
use super::meter::{Averaging, Meter, MeterReading};
use super::text::Text;
use super::{ClusterFacts, PoolFacts};
use crate::catalog::Attention;
use crate::execution_time::StepShape;
use crate::execution_time::graph::WorkPerUnit;
use crate::number::{narrow, whole_u64};
use crate::simulator::{Compat, KvUseFact, StageEndFact, StageFact};

#[derive(Debug)]
pub(super) struct Utilization {
    compat: Compat,
    replicas: Vec<Replica>,
    pools: Vec<Vec<StagePeak>>,
}

#[derive(Debug)]
struct Replica {
    pool: usize,
    memory: Meter,
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    busy: Meter,
    mfu: Meter,
}

/// One statistic of one file.
#[derive(Debug)]
pub(super) struct Statistic {
    /// Name of the file and beginning of its keys.
    pub(super) name: String,
    /// The same without replica and stage.
    metric: &'static str,
    replica: usize,
    stage: Option<usize>,
    /// Counts of percent: whole numbers.
    whole: bool,
    reading: MeterReading,
}

impl Utilization {
    pub(super) fn new(facts: &ClusterFacts) -> Self {
        let compat = facts.compat;
        let (memory, time) = match compat {
            Compat::None => (Averaging::Time, Averaging::Time),
            _ => (Averaging::Samples, Averaging::TimeBetweenChanges),
        };
        let stage = || Stage {
            busy: Meter::new(time),
            mfu: Meter::new(time),
        };
        let mut replicas = Vec::new();
        for (pool, facts) in facts.pools.iter().enumerate() {
            replicas.extend((0..facts.replicas).map(|_| {
                Replica {
                    pool,
                    memory: Meter::new(memory),
                    stages: (0..facts.parallelism.pipeline_parallel)
                        .map(|_| stage())
                        .collect(),
                }
            }));
        }
        let peaks = |pool: &PoolFacts| {
            let stages = 0..pool.parallelism.pipeline_parallel;
            let peak = |stage| match compat {
                Compat::None => StagePeak::new(pool, stage),
                _ => StagePeak::vidur(pool),
            };
            stages.map(peak).collect()
        };
        Self {
            compat,
            replicas,
            pools: facts.pools.iter().map(peaks).collect(),
        }
    }

    pub(super) fn kv_use(&mut self, fact: &KvUseFact) {
        let percent = fact.used_blocks as f64 * 100.0 / fact.total_blocks as f64;
        let replica = &mut self.replicas[fact.replica as usize];
        replica.memory.put(fact.time_s, percent);
    }

    pub(super) fn stage_started(&mut self, fact: &StageFact<'_>) {
        let replica = &mut self.replicas[fact.replica as usize];
        let peak = &self.pools[replica.pool][fact.stage as usize];
        let stage = &mut replica.stages[fact.stage as usize];
        stage.busy.put(fact.started_at_s, 100.0);
        let percent = peak.percent(fact.shape, fact.time.total_s());
        stage.mfu.put(fact.started_at_s, percent);
    }

    pub(super) fn stage_ended(&mut self, fact: &StageEndFact) {
        let replica = &mut self.replicas[fact.replica as usize];
        let stage = &mut replica.stages[fact.stage as usize];
        stage.busy.put(fact.ended_at_s, 0.0);
        stage.mfu.put(fact.ended_at_s, 0.0);
    }

    /// What there is to say at the end, in the order of the file names.
    pub(super) fn statistics(&self, end_s: f64) -> Vec<Statistic> {
        let mut all = Vec::new();
        for file in 0..self.replicas.len() {
            let index = self.shown_in(file, self.replicas.len());
            let replica = &self.replicas[index];
            let mut put = |metric, part: &str, stage, whole, meter: &Meter| {
                all.extend(meter.reading(end_s).map(|reading| Statistic {
                    name: format!("replica_{}_{part}{metric}", file + 1),
                    metric,
                    replica: index,
                    stage,
                    whole,
                    reading,
                }));
            };
            put("memory_usage", "", None, false, &replica.memory);
            for file in 0..replica.stages.len() {
                let index = self.shown_in(file, replica.stages.len());
                let stage = &replica.stages[index];
                let part = format!("stage_{}_", file + 1);
                put("busy_time_percent", &part, Some(index), true, &stage.busy);
                put("mfu", &part, Some(index), false, &stage.mfu);
            }
        }
        all
    }

    /// What a file (counted from 0) is about. The original takes 1 off an index
    /// that starts at 0, so the first comes last.
    fn shown_in(&self, file: usize, files: usize) -> usize {
        match self.compat {
            Compat::None => file,
            _ => (file + 1) % files,
        }
    }

    /// All statistics as one table.
    pub(super) fn to_table(statistics: &[Statistic]) -> Vec<(String, ArrayRef)> {
        let all = || statistics.iter();
        let id = |index: usize| narrow::<i64, _>(index);
        let metrics = StringArray::from_iter_values(all().map(|s| s.metric));
        let replicas = Int64Array::from_iter_values(all().map(|s| id(s.replica)));
        let stages: Int64Array = all().map(|s| s.stage.map(id)).collect();
        let maxima = float_array(all().map(|s| s.reading.max));
        let means = float_array(all().map(|s| s.reading.mean));
        vec![
            ("metric".to_owned(), Arc::new(metrics) as ArrayRef),
            ("replica_id".to_owned(), Arc::new(replicas)),
            ("stage_id".to_owned(), Arc::new(stages)),
            ("max".to_owned(), Arc::new(maxima)),
            ("weighted_mean".to_owned(), Arc::new(means)),
        ]
    }

    /// The file of a statistic.
    pub(super) fn to_json(&self, statistic: &Statistic) -> Text {
        let Statistic { name, reading, .. } = statistic;
        let mut text = Text::default();
        text.str("{");
        if self.compat == Compat::None {
            text.str("\"replica_id\": ").int(statistic.replica as u64);
            if let Some(stage) = statistic.stage {
                text.str(", \"stage_id\": ").int(stage as u64);
            }
            text.str(", ");
        }
        text.str(&format!("\"{name}_min\": 0, \"{name}_max\": "));
        if statistic.whole || reading.max == 0.0 {
            text.int(whole_u64(reading.max));
        } else {
            text.float(reading.max);
        }
        text.str(&format!(", \"{name}_weighted_mean\": "));
        text.float(reading.mean).str("}");
        text
    }
}

/// What the GPUs of a stage are asked to do and could do.
#[derive(Debug, Clone, Copy)]
struct StagePeak {
    compat: Compat,
    work: WorkPerUnit,
    /// Operations per second.
    peak_flops: f64,
}

impl StagePeak {
    /// All weights of the stage's layers, the LM head where it is, causal
    /// attention; of all its GPUs.
    fn new(pool: &PoolFacts, stage: u32) -> Self {
        let stages = pool.parallelism.pipeline_parallel;
        let layers = pool.model.stage_layers(stage, stages);
        let gpus = pool.parallelism.gpus_per_stage();
        Self {
            compat: Compat::None,
            work: WorkPerUnit::of(&pool.model, layers, stage + 1 == stages),
            peak_flops: f64::from(gpus) * pool.peak_tflops * 1e12,
        }
    }

    /// As Vidur counts, on one GPU: no embeddings and no LM head, attention as if
    /// it were not causal, and 2^40 operations in a tera.
    fn vidur(pool: &PoolFacts) -> Self {
        let model = &pool.model;
        let (heads, kv_heads, head_dim) = match model.attention {
            Attention::Gqa {
                heads,
                kv_heads,
                head_dim,
                ..
            } => (heads, kv_heads, head_dim),
            Attention::Mla { heads, .. } => (heads, heads, model.hidden_size / heads),
        };
        let tensor_parallel = pool.parallelism.tensor_parallel;
        let layers = f64::from(model.layers / pool.parallelism.pipeline_parallel);
        let hidden = f64::from(model.hidden_size);
        let heads = heads / tensor_parallel;
        let kv_heads = kv_heads.div_ceil(tensor_parallel);
        let attention = hidden * f64::from(head_dim * (2 * heads + 2 * kv_heads));
        let matrices = if model.gated_mlp { 3.0 } else { 2.0 };
        let mlp = matrices * hidden * f64::from(model.intermediate_size);
        let parameters = (attention + (mlp / f64::from(tensor_parallel)).floor()) * layers;
        Self {
            compat: Compat::Vidur,
            work: WorkPerUnit {
                token_flops: 2.0 * parameters,
                pair_flops: 4.0 * layers * f64::from(heads * head_dim),
                local_pair_flops: 0.0,
                local_keys: 0.0,
                row_flops: 0.0,
            },
            peak_flops: pool.peak_tflops * 2f64.powi(40),
        }
    }

    fn percent(&self, shape: &StepShape, time_s: f64) -> f64 {
        let pairs = self.pairs(shape);
        let rows = f64::from(shape.sampled_tokens);
        let done = (self.work).flops(f64::from(shape.new_tokens()), pairs, rows);
        done / time_s * 100.0 / self.peak_flops
    }

    /// Query-key pairs of a step.
    fn pairs(&self, shape: &StepShape) -> f64 {
        let decodes = f64::from(shape.decode_requests);
        let context = shape.decode_context_tokens as f64;
        let of_prompts = |pairs: fn(f64, f64) -> f64| -> f64 {
            let chunks = shape.prefills.iter();
            chunks
                .map(|chunk| pairs(f64::from(chunk.new_tokens), f64::from(chunk.context_tokens)))
                .sum()
        };
        match self.compat {
            Compat::None => {
                let causal = |new: f64, past: f64| new * past + new * (new + 1.0) / 2.0;
                of_prompts(causal) + context + decodes
            }
            // The original counts the token fed in as processed, and once more.
            _ => of_prompts(|new, past| new * (new + past)) + context + 2.0 * decodes,
        }
    }
}
