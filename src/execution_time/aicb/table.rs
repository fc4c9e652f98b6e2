//! Files of one cut of a model as tables over batch size and sequence length,
//! per pipeline stage and phase.

use std::path::Path;

use super::curve::{Coverage, Curve};
use super::file::{AicbError, AicbFile, FileKey, LayerRows, Phase, Row, aicb_model};
use crate::catalog::ModelSpec;
use crate::memory::Parallelism;

/// The part of a file's name that a deployment determines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    model: &'static str,
    parallelism: Parallelism,
}

impl Cut {
    /// The cut of `model` by `parallelism` in AICB's words.
    ///
    /// # Errors
    /// If AICB does not know the model.
    pub fn of(model: &ModelSpec, parallelism: Parallelism) -> Result<Self, String> {
        let name = aicb_model(model).ok_or_else(|| {
            format!(
                "AICB has no workload of {}; its files cover DeepSeek-671B, Qwen3-Moe-235B and Qwen3-Next-80B",
                model.name
            )
        })?;
        Ok(Self {
            model: name,
            parallelism,
        })
    }

    /// The file of this cut for one phase, batch size and sequence length.
    pub fn file(&self, phase: Phase, batch_size: u32, sequence: u64) -> FileKey {
        FileKey {
            model: self.model.to_owned(),
            world_size: self.parallelism.gpus(),
            tensor_parallel: self.parallelism.tensor_parallel,
            pipeline_parallel: self.parallelism.pipeline_parallel,
            expert_parallel: self.parallelism.expert_parallel,
            phase,
            batch_size,
            sequence,
        }
    }

    fn matches(&self, key: &FileKey) -> bool {
        *key == self.file(key.phase, key.batch_size, key.sequence)
    }
}

/// Times of one stage's layers, seconds.
#[derive(Debug, Clone)]
pub(super) struct StageTable {
    /// By batch size, each over sequence length.
    attention: Vec<(f64, Curve)>,
    /// Over the tokens of a rank.
    mlp: Curve,
    moe: Curve,
}

/// The tables of one phase.
#[derive(Debug, Clone)]
pub(super) struct PhaseTable {
    pub(super) phase: Phase,
    pub(super) stages: Vec<StageTable>,
}

impl PhaseTable {
    /// The files of `cut` in `phase`; none if there are none.
    ///
    /// # Errors
    /// If a file lacks layers, or a part a layer of the model has.
    pub(super) fn build(
        directory: &Path,
        files: &[(FileKey, AicbFile)],
        cut: &Cut,
        model: &ModelSpec,
        phase: Phase,
    ) -> Result<Option<Self>, AicbError> {
        let mine: Vec<_> = files
            .iter()
            .filter(|(key, _)| key.phase == phase && cut.matches(key))
            .collect();
        if mine.is_empty() {
            return Ok(None);
        }
        for (key, file) in &mine {
            check_layers(model, file)
                .map_err(|problem| AicbError::whole(&directory.join(key.to_string()), problem))?;
        }
        let stages = cut.parallelism.pipeline_parallel;
        let stages = (0..stages)
            .map(|stage| StageTable::build(&mine, model, phase, stage, stages))
            .collect::<Option<Vec<_>>>();
        Ok(stages.map(|stages| Self { phase, stages }))
    }
}

impl StageTable {
    fn build(
        files: &[&(FileKey, AicbFile)],
        model: &ModelSpec,
        phase: Phase,
        stage: u32,
        stages: u32,
    ) -> Option<Self> {
        let layers = model.stage_layers(stage, stages);
        let sum = |file: &AicbFile, part: fn(&LayerRows) -> Row| -> f64 {
            let rows = &file.layers[layers.start as usize..layers.end as usize];
            rows.iter().map(|rows| part(rows).compute_s()).sum()
        };
        // AICB runs every prompt alone, whatever batch size its file is named after.
        let batch = |key: &FileKey| match phase {
            Phase::Prefill => 1,
            Phase::Decode => key.batch_size,
        };
        let tokens = |key: &FileKey| match phase {
            Phase::Prefill => key.sequence as f64,
            Phase::Decode => f64::from(key.batch_size),
        };
        let over_tokens = |part| {
            let points = files
                .iter()
                .map(|(key, file)| (tokens(key), sum(file, part)));
            Curve::through(points.collect())
        };
        let mut batches: Vec<u32> = files.iter().map(|(key, _)| batch(key)).collect();
        batches.sort_unstable();
        batches.dedup();
        let attention = batches.into_iter().map(|size| {
            let points = files
                .iter()
                .filter(|(key, _)| batch(key) == size)
                .map(|(key, file)| (key.sequence as f64, sum(file, |rows| rows.attention)));
            let curve = Curve::through(points.collect())?;
            Some((f64::from(size), curve))
        });
        Some(Self {
            attention: attention.collect::<Option<Vec<_>>>()?,
            mlp: over_tokens(|rows| rows.mlp)?,
            moe: over_tokens(|rows| rows.moe)?,
        })
    }

    /// Attention of `batch` sequences of `sequence` tokens.
    pub(super) fn attention(&self, batch: f64, sequence: f64) -> (f64, Coverage) {
        let rows = &self.attention;
        let next = rows.partition_point(|row| row.0 < batch);
        let at = |index: usize| rows[index].1.at(sequence);
        if rows.get(next).is_some_and(|row| row.0 == batch) {
            return at(next);
        }
        // Between two batch sizes, or along the two nearest beyond them.
        let (low, high) = match next {
            _ if rows.len() == 1 => {
                let (value, _) = at(0);
                return (value * (batch / rows[0].0).max(1.0), Coverage::Beyond);
            }
            0 => (0, 1),
            next if next == rows.len() => (next - 2, next - 1),
            next => (next - 1, next),
        };
        let ((a, cover_a), (b, cover_b)) = (at(low), at(high));
        let share = (batch - rows[low].0) / (rows[high].0 - rows[low].0);
        let value = a + (b - a) * share;
        if (0.0..=1.0).contains(&share) {
            return (value, cover_a.max(cover_b).max(Coverage::Between));
        }
        let least = if share < 0.0 {
            a * batch / rows[low].0
        } else {
            b
        };
        (value.max(least), Coverage::Beyond)
    }

    /// Dense MLPs over `tokens` of the rank.
    pub(super) fn mlp(&self, tokens: f64) -> (f64, Coverage) {
        self.mlp.at(tokens)
    }

    /// Experts over `tokens` of the rank.
    pub(super) fn moe(&self, tokens: f64) -> (f64, Coverage) {
        self.moe.at(tokens)
    }
}

fn check_layers(model: &ModelSpec, file: &AicbFile) -> Result<(), String> {
    let layers = file.layers.len();
    if layers < model.layers as usize {
        return Err(format!(
            "{layers} layers; {} has {}",
            model.name, model.layers
        ));
    }
    for layer in 0..model.layers {
        let rows = &file.layers[layer as usize];
        let (name, row) = if model.is_moe_layer(layer) {
            ("moe", rows.moe)
        } else {
            ("mlp", rows.mlp)
        };
        for (name, row) in [("attention", rows.attention), (name, row)] {
            if row.compute_ns <= 0.0 {
                return Err(format!("layer {layer} has no time for `{name}`"));
            }
        }
    }
    Ok(())
}
