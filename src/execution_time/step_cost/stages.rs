//! Prices of all stages of a pipeline at once: what they have in common is asked
//! for once.

use super::curve::MeanKvTokens;
use super::{BesideAttention, GraphCost};
use crate::execution_time::graph::Stage;
use crate::execution_time::{StageTime, StepShape};

/// The first stages that a stage is like; itself, if no other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alike {
    /// In everything.
    whole: usize,
    /// In its attention.
    attention: usize,
}

/// What stays the same in decode-only steps in a row, on one stage.
#[derive(Debug, Clone, Copy)]
struct Constant {
    beside: BesideAttention,
    host_s: f64,
}

impl Constant {
    #[inline(always)]
    fn with(&self, attention_s: f64) -> StageTime {
        StageTime {
            model_s: self.beside.layers_s + attention_s + self.beside.head_s,
            host_s: self.host_s,
        }
    }
}

/// Whether attention takes as long on all stages.
pub(super) fn have_one_attention(alike: &[Alike]) -> bool {
    alike.iter().all(|alike| alike.attention == 0)
}

/// Which stages are like which.
pub(super) fn alike(stages: &[Stage]) -> Vec<Alike> {
    let attention = |stage: &Stage| {
        let Stage {
            full_attention_layers,
            local_attention_layers,
            linear_attention_layers,
            ..
        } = *stage;
        [
            full_attention_layers,
            local_attention_layers,
            linear_attention_layers,
        ]
    };
    let first_like = |index: usize, is_like: &dyn Fn(&Stage) -> bool| {
        stages.iter().position(is_like).unwrap_or(index)
    };
    (stages.iter().enumerate())
        .map(|(index, stage)| Alike {
            whole: first_like(index, &|other| other == stage),
            attention: first_like(index, &|other| attention(other) == attention(stage)),
        })
        .collect()
}

impl GraphCost {
    /// Whether steps are run as they are: without speculation or halves that take turns.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.options.speculation.is_none() && !self.options.two_batch_overlap
    }

    /// Times of all stages, as [`Self::step_s`] has them, of a step whose ranks all have
    /// the same share, or of the only rank.
    pub(super) fn plain_stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        let decode_only = shape.prefills.is_empty();
        if decode_only && shape.decode_requests == 0 {
            return times.fill(StageTime::default());
        }
        let (pool, rows) = (self.pool_tokens(shape), self.sampled_rows(shape));
        self.with_busiest_rank(0, shape, |load| {
            let tokens = self.rank_tokens(load);
            // Of the stages that have as much as this one.
            let mut attention = (usize::MAX, 0.0);
            for index in 0..times.len() {
                let alike = self.alike[index];
                if alike.whole < index {
                    times[index] = times[alike.whole];
                    continue;
                }
                if attention.0 != alike.attention {
                    attention = (alike.attention, self.attention_s(index, load));
                }
                let model_s = if decode_only {
                    let beside = self.beside_attention(index, shape);
                    beside.layers_s + attention.1 + beside.head_s
                } else {
                    let rank_s = attention.1 + self.rank_tokens_s(index, tokens);
                    rank_s + self.pool_tokens_s(index, pool) + self.head_s(index, rows)
                };
                times[index] = StageTime {
                    model_s,
                    host_s: self.host_of_stage_s(index, shape),
                };
            }
        });
    }

    /// Times of decode-only steps in a row on all stages: all but attention stays the
    /// same.
    #[inline(always)]
    pub(super) fn plain_decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        if shape.decode_requests == 0 {
            return times.fill(StageTime::default());
        }
        let constant = |index: usize| Constant {
            beside: self.beside_attention(index, shape),
            host_s: self.host_of_stage_s(index, shape),
        };
        // Loops over so many stages are unrolled.
        match self.tables.len() {
            1 => self.decode_times_at_once::<1>(shape, times, constant),
            2 if self.one_attention => self.decode_times_at_once::<2>(shape, times, constant),
            4 if self.one_attention => self.decode_times_at_once::<4>(shape, times, constant),
            8 if self.one_attention => self.decode_times_at_once::<8>(shape, times, constant),
            _ => self.decode_times_by_stage(shape, times, constant),
        }
    }

    /// Times of decode-only steps in a row on all stages, on which attention takes as long.
    #[inline(always)]
    fn decode_times_at_once<const STAGES: usize>(
        &self,
        shape: &StepShape,
        times: &mut [StageTime],
        constant: impl Fn(usize) -> Constant,
    ) {
        let constants: [Constant; STAGES] = std::array::from_fn(constant);
        let (steps, _) = times.as_chunks_mut::<STAGES>();
        self.decode_attention(0, shape, steps.iter_mut(), |step, attention_s| {
            for (time, constant) in step.iter_mut().zip(&constants) {
                *time = constant.with(attention_s);
            }
        });
    }

    /// The same stage by stage.
    fn decode_times_by_stage(
        &self,
        shape: &StepShape,
        times: &mut [StageTime],
        constant: impl Fn(usize) -> Constant,
    ) {
        for index in 0..self.tables.len() {
            let constant = constant(index);
            let steps = times.chunks_exact_mut(self.tables.len());
            self.decode_attention(index, shape, steps, |step, attention_s| {
                step[index] = constant.with(attention_s);
            });
        }
    }

    /// Calls `each` with what comes with each of decode-only steps in a row, and what
    /// attention takes in it on one stage.
    #[inline(always)]
    fn decode_attention<T>(
        &self,
        index: usize,
        shape: &StepShape,
        steps: impl Iterator<Item = T>,
        each: impl Fn(T, f64),
    ) {
        let batch = self.of_one_rank(shape.decode_requests);
        self.tables[index].decode_attention.get_all(
            batch,
            MeanKvTokens::of(shape),
            steps,
            |kv_tokens| self.attention_price_s(index, batch, kv_tokens),
            each,
        );
    }
}
