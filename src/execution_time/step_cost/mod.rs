//! Composition of graph, cost sources and host overhead into
//! [`super::StepCost`].
//!
//! A price is split by what it depends on, and every part is remembered:
//! - everything sized by tokens alone, by token count;
//! - decode attention, as a piecewise-linear curve over the mean context for
//!   every batch size;
//! - prompt attention, by exact chunk shape;
//! - the LM head, by rows.
//!
//! A decode-only step is then three look-ups. Under attention data parallelism
//! a step waits for the rank with the most work: prompt chunks go longest first
//! to the least loaded rank, decodes are spread evenly.

mod memo;
mod pricer;
mod ranks;

use std::cell::RefCell;
use std::sync::Arc;

use self::memo::{ChunkCache, ChunkShape, CountTable, DecodeCurves};
use self::pricer::Pricer;
use self::ranks::{Ranks, groups};
use super::graph::{Graph, NamedOperator, Stage};
use super::silicon::SiliconDb;
use super::{
    BackendKind, Operator, OperatorCost, PricedOperator, Provenance, StageTime, StepCost, StepShape,
};
use crate::catalog::{DeviceSpec, EngineSpec, ModelSpec};
use crate::memory::{Formats, Parallelism};
use crate::network::LinkOverrides;

/// Prices steps of one deployment: the operator graph of a model on a device.
pub struct GraphCost {
    graph: Graph,
    pricer: Pricer,
    host: HostOverhead,
    tables: Vec<StageTables>,
}

/// Host time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct HostOverhead {
    per_step_s: f64,
    per_request_s: f64,
}

impl HostOverhead {
    fn step_s(&self, requests: u32) -> f64 {
        self.per_step_s + self.per_request_s * f64::from(requests)
    }
}

/// What is remembered of one stage.
struct StageTables {
    /// Decode-only steps without attention and LM head, by decodes of all ranks.
    decode_only: CountTable,
    /// The same of steps with prompts, by tokens of the rank ...
    rank_tokens: CountTable,
    /// ... and the experts, by tokens of all ranks.
    pool_tokens: CountTable,
    head: CountTable,
    decode_attention: DecodeCurves,
    prefill_attention: ChunkCache,
    /// Start-up time of prompt attention, paid once however many chunk shapes a
    /// step has.
    prefill_launch_s: f64,
}

thread_local! {
    /// Room to sort prompt chunks in, reused from step to step.
    static SCRATCH: RefCell<Ranks> = RefCell::new(Ranks::default());
}

/// One rank's share of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RankLoad<'a> {
    /// Prompt chunks, equal ones side by side.
    prefills: &'a [super::PrefillChunk],
    prefill_tokens: u32,
    decodes: u32,
    /// Mean keys a decode reads, its own included.
    kv_tokens: f64,
}

impl GraphCost {
    /// Prices of `model` on `device`, cut by `parallelism` over nodes of
    /// `gpus_per_node`.
    ///
    /// # Errors
    /// If the parallelism does not divide the model, or the backend has no data
    /// for the device; one line saying what and why.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        model: &ModelSpec,
        device: &DeviceSpec,
        backend: BackendKind,
        engine: Option<&EngineSpec>,
        parallelism: Parallelism,
        formats: Formats,
        gpus_per_node: u32,
        overrides: &LinkOverrides,
    ) -> Result<Self, String> {
        let measured: Option<Arc<dyn OperatorCost>> = match backend {
            BackendKind::Roofline => None,
            BackendKind::Silicon => {
                let engine = engine.map(|engine| engine.name.as_str());
                let tables = SiliconDb::for_device(device, engine)
                    .map_err(|error| format!("{error}; backend roofline prices every device"))?;
                Some(Arc::new(tables))
            }
            BackendKind::Vidur
            | BackendKind::Linear
            | BackendKind::Table
            | BackendKind::Recorded => {
                return Err("priced from files, not from the model's operators".into());
            }
        };
        let graph = Graph::new(model, parallelism, formats, gpus_per_node)?;
        let pricer = Pricer::new(device, measured, gpus_per_node, overrides);
        Ok(Self::compose(graph, pricer, engine))
    }

    fn compose(graph: Graph, pricer: Pricer, engine: Option<&EngineSpec>) -> Self {
        let host = engine.map_or_else(HostOverhead::default, |engine| HostOverhead {
            per_step_s: engine.host_overhead_s_per_step,
            per_request_s: engine.host_overhead_s_per_request,
        });
        let tables = graph
            .stages()
            .iter()
            .map(|stage| StageTables::new(&graph, &pricer, stage))
            .collect();
        Self {
            graph,
            pricer,
            host,
            tables,
        }
    }

    /// Operations the model asks for, for MFU: see [`Graph::flops`].
    pub fn flops(&self, tokens: f64, attended_pairs: f64, sampled: f64) -> f64 {
        self.graph.flops(tokens, attended_pairs, sampled)
    }

    /// The operator graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    fn attention_ranks(&self) -> u32 {
        self.graph.parallelism().attention_data_parallel
    }

    /// Time of operators visited by `visit`, seconds.
    fn sum_s(&self, visit: impl FnOnce(&mut dyn FnMut(NamedOperator))) -> f64 {
        let mut total = 0.0;
        visit(&mut |named| total += named.count * self.pricer.time_s(&named.operator));
        total
    }

    fn decode_only_s(&self, index: usize, decodes: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        self.tables[index].decode_only.get(decodes, |decodes| {
            let tokens = decodes.div_ceil(self.attention_ranks());
            let base = self.sum_s(|mut emit| self.graph.token_operators(stage, tokens, &mut emit));
            base + self.experts_s(stage, tokens, decodes, true)
        })
    }

    /// Routed and shared experts of a step: one beside the other in decode-only
    /// steps, one after the other otherwise.
    fn experts_s(&self, stage: &Stage, tokens: u32, pool: u32, decode_only: bool) -> f64 {
        let shared =
            self.sum_s(|mut emit| self.graph.shared_expert_operators(stage, tokens, &mut emit));
        let routed = self.sum_s(|mut emit| {
            self.graph
                .routed_rank_operators(stage, tokens, decode_only, &mut emit);
            self.graph.routed_pool_operators(stage, pool, &mut emit);
        });
        if decode_only {
            routed.max(shared)
        } else {
            routed + shared
        }
    }

    fn rank_tokens_s(&self, index: usize, tokens: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        self.tables[index].rank_tokens.get(tokens, |tokens| {
            self.sum_s(|mut emit| {
                self.graph.token_operators(stage, tokens, &mut emit);
                self.graph.shared_expert_operators(stage, tokens, &mut emit);
                self.graph
                    .routed_rank_operators(stage, tokens, false, &mut emit);
            })
        })
    }

    fn pool_tokens_s(&self, index: usize, tokens: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        self.tables[index].pool_tokens.get(tokens, |tokens| {
            self.sum_s(|mut emit| self.graph.routed_pool_operators(stage, tokens, &mut emit))
        })
    }

    fn head_s(&self, index: usize, sampled: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        if !stage.last {
            return 0.0;
        }
        let rows = sampled.div_ceil(self.attention_ranks());
        self.tables[index].head.get(rows, |rows| {
            self.sum_s(|mut emit| self.graph.head_operators(stage, rows, &mut emit))
        })
    }

    fn decode_attention_s(&self, index: usize, batch: u32, kv_tokens: f64) -> f64 {
        if batch == 0 {
            return 0.0;
        }
        let stage = &self.graph.stages()[index];
        self.tables[index]
            .decode_attention
            .get(batch, kv_tokens, |kv_tokens| {
                self.sum_s(|mut emit| {
                    self.graph
                        .decode_attention_operators(stage, batch, kv_tokens, &mut emit);
                })
            })
    }

    fn chunk_s(&self, index: usize, shape: ChunkShape) -> f64 {
        let stage = &self.graph.stages()[index];
        self.tables[index].prefill_attention.get(shape, || {
            self.sum_s(|mut emit| prefill_attention(&self.graph, stage, shape, &mut emit))
        })
    }

    /// Attention over prompt chunks: groups of equal chunks as measured, other
    /// groups adding their time beyond the start-up.
    fn prefill_attention_s(&self, index: usize, prefills: &[super::PrefillChunk]) -> f64 {
        let launch_s = self.tables[index].prefill_launch_s;
        groups(prefills)
            .map(|shape| self.chunk_s(index, shape))
            .reduce(|total, group| total + (group - launch_s).max(0.0))
            .unwrap_or(0.0)
    }

    /// Time of a rank that waits for nobody: all but the expert pool.
    fn rank_s(&self, index: usize, load: &RankLoad) -> f64 {
        self.prefill_attention_s(index, load.prefills)
            + self.decode_attention_s(index, load.decodes, load.kv_tokens)
            + self.rank_tokens_s(index, load.prefill_tokens + load.decodes)
    }

    /// Calls `with` with the share of the rank with the most work.
    fn with_busiest_rank<T>(
        &self,
        index: usize,
        shape: &StepShape,
        with: impl FnOnce(&RankLoad) -> T,
    ) -> T {
        let ranks = self.attention_ranks();
        let base = RankLoad {
            prefills: &[],
            prefill_tokens: 0,
            decodes: shape.decode_requests.div_ceil(ranks),
            kv_tokens: mean_kv_tokens(shape),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.assign(&shape.prefills, ranks);
            let mut busiest = RankLoad { ..base };
            let mut busiest_s = -1.0;
            for (prefills, prefill_tokens) in scratch.loads() {
                let load = RankLoad {
                    prefills,
                    prefill_tokens,
                    ..base
                };
                let time_s = if ranks == 1 {
                    0.0
                } else {
                    self.rank_s(index, &load)
                };
                if time_s > busiest_s {
                    (busiest, busiest_s) = (load, time_s);
                }
            }
            with(&busiest)
        })
    }

    fn model_s(&self, index: usize, shape: &StepShape) -> f64 {
        let head_s = self.head_s(index, shape.sampled_tokens);
        if shape.prefills.is_empty() {
            if shape.decode_requests == 0 {
                return 0.0;
            }
            let batch = shape.decode_requests.div_ceil(self.attention_ranks());
            return self.decode_only_s(index, shape.decode_requests)
                + self.decode_attention_s(index, batch, mean_kv_tokens(shape))
                + head_s;
        }
        let rank_s = self.with_busiest_rank(index, shape, |load| self.rank_s(index, load));
        rank_s + self.pool_tokens_s(index, shape.new_tokens()) + head_s
    }

    /// Host work: of the first stage.
    fn price_host(&self, shape: &StepShape) -> Option<PricedOperator> {
        let requests = shape.decode_requests + shape.prefills.len() as u32;
        (requests > 0 && self.host != HostOverhead::default()).then(|| PricedOperator {
            stage: 0,
            name: "host".into(),
            operator: Operator::Host { requests },
            count: 1.0,
            time_s: self.host.step_s(requests),
            provenance: Provenance::Formula,
        })
    }

    /// Operators of one stage, priced one by one.
    fn price_stage(&self, index: usize, shape: &StepShape, out: &mut Vec<PricedOperator>) {
        let stage = &self.graph.stages()[index];
        let mut sheet = Sheet {
            pricer: &self.pricer,
            stage: index as u32,
            rows: out,
        };
        let pool = shape.new_tokens();
        if pool == 0 {
            return;
        }
        self.with_busiest_rank(index, shape, |load| {
            let tokens = load.prefill_tokens + load.decodes;
            let decode_only = shape.prefills.is_empty();
            self.graph
                .token_operators(stage, tokens, &mut |named| sheet.add(named));
            let launch_s = self.tables[index].prefill_launch_s;
            for (nth, group) in groups(load.prefills).enumerate() {
                let saved_s = if nth == 0 { 0.0 } else { launch_s };
                sheet.add_saving(saved_s, |emit| {
                    prefill_attention(&self.graph, stage, group, emit);
                });
            }
            self.graph.decode_attention_operators(
                stage,
                load.decodes,
                load.kv_tokens,
                &mut |named| {
                    sheet.add(named);
                },
            );
            self.explain_experts(stage, tokens, pool, decode_only, &mut sheet);
        });
        let rows = shape.sampled_tokens.div_ceil(self.attention_ranks());
        self.graph
            .head_operators(stage, rows, &mut |named| sheet.add(named));
    }

    fn explain_experts(
        &self,
        stage: &Stage,
        tokens: u32,
        pool: u32,
        decode_only: bool,
        sheet: &mut Sheet,
    ) {
        let mut routed = Vec::new();
        self.graph
            .routed_rank_operators(stage, tokens, decode_only, &mut |named| routed.push(named));
        self.graph
            .routed_pool_operators(stage, pool, &mut |named| routed.push(named));
        let mut shared = Vec::new();
        self.graph
            .shared_expert_operators(stage, tokens, &mut |named| shared.push(named));
        if decode_only && self.graph.overlaps_shared_expert(stage) {
            sheet.add_overlap("moe_overlap", &routed, &shared);
        } else {
            routed
                .into_iter()
                .chain(shared)
                .for_each(|named| sheet.add(named));
        }
    }
}

impl StepCost for GraphCost {
    fn stages(&self) -> u32 {
        self.tables.len() as u32
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        let requests = shape.decode_requests + shape.prefills.len() as u32;
        StageTime {
            model_s: self.model_s(stage as usize, shape),
            host_s: if stage == 0 && requests > 0 {
                self.host.step_s(requests)
            } else {
                0.0
            },
        }
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = Vec::new();
        for index in 0..self.tables.len() {
            self.price_stage(index, shape, &mut rows);
        }
        rows.extend(self.price_host(shape));
        rows
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        let mut rows = Vec::new();
        self.price_stage(stage as usize, shape, &mut rows);
        if stage == 0 {
            rows.extend(self.price_host(shape));
        }
        rows
    }
}

impl StageTables {
    fn new(graph: &Graph, pricer: &Pricer, stage: &Stage) -> Self {
        let one_token = ChunkShape {
            batch: 1,
            new_tokens: 1,
            context_tokens: 0,
        };
        let mut prefill_launch_s = 0.0;
        prefill_attention(graph, stage, one_token, &mut |named| {
            prefill_launch_s += named.count * pricer.time_s(&named.operator);
        });
        Self {
            decode_only: CountTable::new(),
            rank_tokens: CountTable::new(),
            pool_tokens: CountTable::new(),
            head: CountTable::new(),
            decode_attention: DecodeCurves::new(),
            prefill_attention: ChunkCache::new(),
            prefill_launch_s,
        }
    }
}

/// Rows of an explanation under construction.
struct Sheet<'a> {
    pricer: &'a Pricer,
    stage: u32,
    rows: &'a mut Vec<PricedOperator>,
}

impl Sheet<'_> {
    fn add(&mut self, named: NamedOperator) {
        let price = self.pricer.price(&named.operator);
        self.rows.push(PricedOperator {
            stage: self.stage,
            name: named.name.into(),
            operator: named.operator,
            count: named.count,
            time_s: named.count * price.time_s,
            provenance: price.provenance,
        });
    }

    /// Adds what `visit` emits, its total shortened by `saved_s`, but not below
    /// nothing; the shortening is spread evenly.
    fn add_saving(&mut self, saved_s: f64, visit: impl FnOnce(&mut dyn FnMut(NamedOperator))) {
        let first = self.rows.len();
        visit(&mut |named| self.add(named));
        let rows = &mut self.rows[first..];
        let total_s: f64 = rows.iter().map(|row| row.time_s).sum();
        if total_s > 0.0 {
            let left = (total_s - saved_s).max(0.0) / total_s;
            rows.iter_mut().for_each(|row| row.time_s *= left);
        }
    }

    /// Adds one row for two streams that run side by side: the longer one's time,
    /// its largest operator, and the worst provenance in it.
    fn add_overlap(&mut self, name: &str, main: &[NamedOperator], side: &[NamedOperator]) {
        let priced = |stream: &[NamedOperator]| {
            let mut sheet = Vec::new();
            let mut rows = Sheet {
                pricer: self.pricer,
                stage: self.stage,
                rows: &mut sheet,
            };
            stream.iter().for_each(|named| rows.add(*named));
            let total_s: f64 = sheet.iter().map(|row| row.time_s).sum();
            (total_s, sheet)
        };
        let (main, side) = (priced(main), priced(side));
        let (time_s, stream) = if main.0 >= side.0 { main } else { side };
        let worst = stream.iter().map(|row| &row.provenance).max().cloned();
        let largest = stream
            .into_iter()
            .max_by(|a, b| a.time_s.total_cmp(&b.time_s));
        if let (Some(largest), Some(provenance)) = (largest, worst) {
            self.rows.push(PricedOperator {
                name: name.into(),
                time_s,
                provenance,
                ..largest
            });
        }
    }
}

fn prefill_attention(
    graph: &Graph,
    stage: &Stage,
    shape: ChunkShape,
    mut emit: &mut dyn FnMut(NamedOperator),
) {
    graph.prefill_attention_operators(
        stage,
        shape.batch,
        shape.new_tokens,
        shape.context_tokens,
        &mut emit,
    );
}

/// Mean keys a decode of `shape` reads: its context and its own.
fn mean_kv_tokens(shape: &StepShape) -> f64 {
    if shape.decode_requests == 0 {
        return 1.0;
    }
    1.0 + shape.decode_context_tokens as f64 / f64::from(shape.decode_requests)
}

impl std::fmt::Debug for GraphCost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphCost")
            .field("graph", &self.graph)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
