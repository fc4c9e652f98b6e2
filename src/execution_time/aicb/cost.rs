//! Step times from AICB's files and the operator graph together.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::curve::Coverage;
use super::file::{AicbError, Phase, read_directory};
use super::table::{Cut, PhaseTable, StageTable};
use crate::catalog::{Attention, ModelSpec};
use crate::execution_time::step_cost::GraphCost;
use crate::execution_time::{
    Operator, PrefillChunk, PricedOperator, Provenance, StageTime, StepCost, StepShape,
};
use crate::number::whole_u64;
use crate::one_by_one;

thread_local! {
    /// Room for the times of chunks and the loads of ranks, reused.
    static SCRATCH: RefCell<(Vec<f64>, Vec<f64>)> = RefCell::default();
}

/// Prices steps from AICB's files: compute of attention, MLPs and experts from
/// them, all else from the operator graph. Steps of a phase without files are
/// the graph's altogether.
#[derive(Debug)]
pub struct AicbCost {
    directory: PathBuf,
    cut: Cut,
    ranks: u32,
    prefill: Option<PhaseTable>,
    decode: Option<PhaseTable>,
    /// What the files lack.
    rest: GraphCost,
    /// Everything, for a phase without files.
    whole: GraphCost,
}

/// Why AICB's files give no prices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AicbCostError {
    /// One of them, or their folder, cannot be read.
    #[error(transparent)]
    Files(#[from] AicbError),
    /// They say nothing about this deployment.
    #[error("{0}")]
    Unpriced(String),
}

impl From<String> for AicbCostError {
    fn from(reason: String) -> Self {
        Self::Unpriced(reason)
    }
}

impl AicbCost {
    /// Prices from the files in `directory` of the cut that `graph_cost` has; it
    /// is called for two cost models of the graph that are alike. Every phase in
    /// `needed` must have files.
    ///
    /// # Errors
    /// If AICB does not know the model, a file is malformed, or a needed phase has
    /// no file: the message names one that would do.
    pub fn new(
        directory: &Path,
        needed: &[Phase],
        graph_cost: impl Fn() -> Result<GraphCost, String>,
    ) -> Result<Self, AicbCostError> {
        let whole = graph_cost()?;
        let model = whole.graph().model();
        let parallelism = *whole.graph().parallelism();
        let cut = Cut::of(model, parallelism)?;
        let files = read_directory(directory)?;
        let table = |phase| PhaseTable::build(directory, &files, &cut, model, phase);
        let (prefill, decode) = (table(Phase::Prefill)?, table(Phase::Decode)?);
        for phase in needed {
            let missing = match phase {
                Phase::Prefill => prefill.is_none(),
                Phase::Decode => decode.is_none(),
            };
            if missing {
                return Err(no_file(directory, &cut, *phase).into());
            }
        }
        let rest = graph_cost()?.without(in_files(model));
        Ok(Self {
            directory: directory.to_owned(),
            cut,
            ranks: parallelism.attention_data_parallel,
            prefill,
            decode,
            rest,
            whole,
        })
    }

    /// What a person should know of the prices so far, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        // Both cost models are over the same network.
        self.whole.warnings()
    }

    /// Whether the files cover every part of a step of this shape, and the table
    /// of its token-sized parts.
    fn tables(&self, shape: &StepShape) -> Option<&PhaseTable> {
        let prompts = !shape.prefills.is_empty();
        let decodes = shape.decode_requests > 0;
        match (&self.prefill, &self.decode) {
            (Some(table), _) if prompts && !decodes => Some(table),
            (Some(table), Some(_)) if prompts => Some(table),
            (_, Some(table)) if !prompts => Some(table),
            _ => None,
        }
    }

    /// Calls `part` with the name, operator, time and coverage of every part of a
    /// step that files cover.
    fn parts(
        &self,
        stage: usize,
        shape: &StepShape,
        by_tokens: &PhaseTable,
        mut part: impl FnMut(&'static str, Phase, [u64; 2], (f64, Coverage)),
    ) {
        let rank_tokens = shape.new_tokens().div_ceil(self.ranks);
        if let Some(table) = &self.prefill
            && !shape.prefills.is_empty()
        {
            let found = prompts(&table.stages[stage], &shape.prefills, self.ranks);
            let longest = (shape.prefills.iter())
                .map(|chunk| chunk.new_tokens + chunk.context_tokens)
                .max();
            let key = [1, u64::from(longest.unwrap_or(0))];
            part("attention", Phase::Prefill, key, found);
        }
        if let Some(table) = &self.decode
            && shape.decode_requests > 0
        {
            let batch = shape.decode_requests.div_ceil(self.ranks);
            let context = shape.decode_context_tokens as f64 / f64::from(shape.decode_requests);
            let found = table.stages[stage].attention(f64::from(batch), context);
            let key = [u64::from(batch), whole_u64(context.round())];
            part("attention", Phase::Decode, key, found);
        }
        let table = &by_tokens.stages[stage];
        let tokens = f64::from(rank_tokens);
        let key = match by_tokens.phase {
            Phase::Prefill => [1, u64::from(rank_tokens)],
            Phase::Decode => [u64::from(rank_tokens), 1],
        };
        part("mlp", by_tokens.phase, key, table.mlp(tokens));
        part("moe", by_tokens.phase, key, table.moe(tokens));
    }

    fn provenance(
        &self,
        phase: Phase,
        [batch, sequence]: [u64; 2],
        coverage: Coverage,
    ) -> Provenance {
        match coverage {
            Coverage::Exact => Provenance::Measured,
            Coverage::Between => Provenance::Interpolated,
            Coverage::Beyond => {
                let batch = u32::try_from(batch).unwrap_or(u32::MAX);
                let file = self.cut.file(phase, batch, sequence);
                Provenance::Substituted {
                    from: format!("AICB files of other sizes; {file} would cover it"),
                }
            }
        }
    }
}

impl StepCost for AicbCost {
    fn stages(&self) -> u32 {
        self.whole.stages()
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        let Some(by_tokens) = self.tables(shape).filter(|_| shape.new_tokens() > 0) else {
            return self.whole.stage_time(stage, shape);
        };
        let mut time = self.rest.stage_time(stage, shape);
        self.parts(stage as usize, shape, by_tokens, |_, _, _, found| {
            time.model_s += found.0;
        });
        time
    }

    one_by_one!(
        stage_time_of,
        tells_runs_apart,
        stage_times,
        decode_times,
        explain_stage
    );

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let Some(by_tokens) = self.tables(shape).filter(|_| shape.new_tokens() > 0) else {
            return self.whole.explain(shape);
        };
        let mut rows = Vec::new();
        for stage in 0..self.stages() {
            self.parts(
                stage as usize,
                shape,
                by_tokens,
                |name, phase, key, found| {
                    if found.0 <= 0.0 {
                        return;
                    }
                    let count = |figure: u64| u32::try_from(figure).unwrap_or(u32::MAX);
                    rows.push(PricedOperator {
                        stage,
                        name: format!("aicb_{name}"),
                        operator: Operator::LayerParts {
                            prefill: phase == Phase::Prefill,
                            batch: count(key[0]),
                            tokens: count(key[1]),
                        },
                        count: 1.0,
                        time_s: found.0,
                        provenance: self.provenance(phase, key, found.1),
                    });
                },
            );
        }
        rows.extend(self.rest.explain(shape));
        rows
    }
}

impl AicbCost {
    /// Folder the files come from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Attention of prompt chunks on the rank with the most: chunks go longest first
/// to the rank with the least. A chunk behind a context costs what the whole
/// costs more than the context alone.
fn prompts(table: &StageTable, chunks: &[PrefillChunk], ranks: u32) -> (f64, Coverage) {
    let mut coverage = Coverage::Exact;
    let mut time_s = |chunk: &PrefillChunk| {
        let (new, context) = (f64::from(chunk.new_tokens), f64::from(chunk.context_tokens));
        let (alone_s, cover) = table.attention(1.0, new);
        coverage = coverage.max(cover);
        if chunk.context_tokens == 0 {
            return alone_s;
        }
        let whole = table.attention(1.0, new + context);
        let context = table.attention(1.0, context);
        coverage = coverage.max(whole.1).max(context.1);
        (whole.0 - context.0).max(alone_s)
    };
    if ranks <= 1 {
        let total_s = chunks.iter().map(time_s).sum();
        return (total_s, coverage);
    }
    let busiest_s = SCRATCH.with_borrow_mut(|(times, loads)| {
        times.clear();
        times.extend(chunks.iter().map(&mut time_s));
        times.sort_unstable_by(|a, b| b.total_cmp(a));
        loads.clear();
        loads.resize(ranks as usize, 0.0);
        for time_s in times {
            if let Some(least) = loads.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *least += *time_s;
            }
        }
        loads.iter().copied().fold(0.0, f64::max)
    });
    (busiest_s, coverage)
}

fn no_file(directory: &Path, cut: &Cut, phase: Phase) -> String {
    let example = match phase {
        Phase::Prefill => cut.file(phase, 1, 4096),
        Phase::Decode => cut.file(phase, 32, 4096),
    };
    format!(
        "{}: no AICB file covers {} of this deployment; {example} and others of its kind would \
         (bs: requests per rank, seq: tokens)",
        directory.display(),
        phase.name()
    )
}

/// Which operators of the graph a model's files cover. AICB's attention rows of
/// Qwen include the norms, its expert rows the router; those of DeepSeek neither,
/// but the shared expert, which Qwen3-Next's lack.
fn in_files(model: &ModelSpec) -> fn(&str) -> bool {
    const ATTENTION_AND_MLP: [&str; 12] = [
        "qkv_gemm",
        "proj_gemm",
        "attention",
        "mla_block",
        "gdn_in_proj_gemm",
        "gdn_in_proj_ba_gemm",
        "gated_delta_net",
        "gdn_out_proj_gemm",
        "gate_ffn1_gemm",
        "act_gate",
        "ffn2_gemm",
        "moe",
    ];
    match model.attention {
        Attention::Mla { .. } => |name| {
            ATTENTION_AND_MLP.contains(&name)
                || ["shared_gate_up_gemm", "shared_act_gate", "shared_ffn2_gemm"].contains(&name)
        },
        Attention::Gqa { .. } => |name| {
            ATTENTION_AND_MLP.contains(&name)
                || ["add_norm_1", "add_norm_2", "router_gemm"].contains(&name)
        },
    }
}
