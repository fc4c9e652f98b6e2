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

mod curve;
mod host;
mod lazy;
mod memo;
mod peers;
mod pricer;
mod ranks;
mod stages;

pub use host::{HostOverhead, HostedCost};
pub use peers::PeerCost;

use std::sync::{Arc, OnceLock};

use self::curve::{DecodeCurves, MeanKvTokens};
use self::lazy::places;
use self::memo::{ChunkCache, ChunkShape, CountTable};
use self::pricer::Pricer;
use self::ranks::{RankLoad, Shares, groups};
use super::graph::{Graph, NamedOperator, Stage};
use super::roofline::KernelFits;
use super::silicon::{SiliconDb, unpaid_share};
use super::{
    BackendKind, Operator, OperatorCost, PricedOperator, Provenance, StageRun, StageTime, StepCost,
    StepOptions, StepShape, decode_times_one_by_one, stage_times_one_by_one,
};
use crate::catalog::{DeviceSpec, EngineSpec, ModelSpec};
use crate::memory::{Formats, Parallelism};
use crate::network::{Fabric, LinkOverrides};
use crate::number::narrow;
use crate::units::Divisor;

/// Prices steps of one deployment: the operator graph of a model on a device.
pub struct GraphCost {
    graph: Graph,
    pricer: Pricer,
    host: HostOverhead,
    options: StepOptions,
    /// Operators by name that are somebody else's to price.
    elsewhere: fn(&str) -> bool,
    tables: Vec<StageTables>,
    /// Ranks that hold all of the attention, each for requests of its own.
    ranks: Divisor,
    /// Which other stage each is like.
    alike: Vec<stages::Alike>,
    /// Whether attention takes as long on all of them.
    one_attention: bool,
}

/// Share of the compute units set aside for throughput exchange kernels: DeepEP's
/// normal kernels run on 24 of Hopper's 132 multiprocessors, and GEMMs that run
/// beside them are launched for the others. Low-latency kernels leave the
/// transfer to the network cards.
const EXCHANGE_COMPUTE_SHARE: f64 = 24.0 / 132.0;

/// Pages of whole prompts priced one by one: up to 16,384 tokens.
const WHOLE_PROMPT_PAGES: usize = 64;

/// Numbers of decodes whose steps have an entry of their own for all but attention.
const DECODES_LOOKED_UP: usize = 1024;

/// What a decode-only step takes beside attention, seconds.
#[derive(Debug, Clone, Copy)]
struct BesideAttention {
    layers_s: f64,
    head_s: f64,
}

/// What is remembered of one stage.
struct StageTables {
    /// Decode-only steps without attention and LM head, by decodes of all ranks.
    decode_only: CountTable,
    /// All of a decode-only step but its attention, for small numbers of decodes: what
    /// is looked up most.
    beside_attention: Box<[OnceLock<BesideAttention>]>,
    /// The same of steps with prompts, by tokens of the rank ...
    rank_tokens: CountTable,
    /// ... and the experts, by tokens of all ranks.
    pool_tokens: CountTable,
    /// None but on the last stage.
    head: Option<CountTable>,
    decode_attention: DecodeCurves,
    prefill_attention: ChunkCache,
    /// Attention over a whole prompt, by its length, and what every chunk costs
    /// beside it: where a chunk after a prefix costs its share of the whole, as
    /// measured attention does.
    whole_prompts: Option<(CountTable, f64)>,
    /// Halves of overlapped steps: with prompts, and decode-only.
    halves: [HalfTables; 2],
    /// Start-up time of prompt attention, paid once however many chunk shapes a
    /// step has.
    prefill_launch_s: f64,
}

/// Half a step that takes turns with the other half, by what it occupies.
#[derive(Debug)]
struct HalfTables {
    /// Layers without attention and experts, by tokens of the rank.
    tokens: CountTable,
    /// Router and shared experts, by the same; then routed experts, by tokens of
    /// all ranks.
    expert_compute: [CountTable; 2],
    /// Exchange with the experts' GPUs, by the same two.
    exchange: [CountTable; 2],
}

impl HalfTables {
    fn new() -> Self {
        Self {
            tokens: CountTable::new(),
            expert_compute: [CountTable::new(), CountTable::new()],
            exchange: [CountTable::new(), CountTable::new()],
        }
    }
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
            BackendKind::Aicb if !SiliconDb::has_data(&device.name) => None,
            BackendKind::Roofline => None,
            BackendKind::Silicon | BackendKind::Aiconfigurator | BackendKind::Aicb => {
                let engine = engine.map(|engine| engine.name.as_str());
                let tables = SiliconDb::for_device(device, engine)
                    .map_err(|error| format!("{error}; backend roofline prices every device"))?;
                Some(Arc::new(match backend {
                    BackendKind::Aiconfigurator => tables.with_experts_as_aiconfigurator(),
                    _ => tables,
                }))
            }
            BackendKind::Vidur
            | BackendKind::Linear
            | BackendKind::Table
            | BackendKind::Recorded
            | BackendKind::Formula
            | BackendKind::SimaiAnalytical
            | BackendKind::SimaiSimulation => {
                return Err("not a source of operator times".into());
            }
        };
        let graph = Graph::new(model, parallelism, formats, gpus_per_node)?;
        let (graph, fits) = match backend {
            BackendKind::Aicb => (graph.with_all_to_all(), KernelFits::of_device(&device.name)),
            _ => (graph, None),
        };
        let groups = graph.expert_groups();
        let pricer = Pricer::new(device, measured, fits, groups, gpus_per_node, overrides);
        Ok(Self::compose(graph, pricer, engine))
    }

    /// The same with communication over `fabric` instead of measured or assumed
    /// links.
    #[must_use]
    pub fn over(self, fabric: Arc<Fabric>) -> Self {
        let options = self.options;
        Self {
            options,
            ..Self::assemble(
                self.graph,
                self.pricer.over(fabric),
                self.host,
                self.elsewhere,
            )
        }
    }

    /// What a person should know of the prices so far, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.pricer.warnings()
    }

    /// The same with what an engine does beyond the plain step.
    #[must_use]
    pub fn with_options(self, options: &StepOptions) -> Self {
        let mut graph = self.graph;
        if let Some(load) = options.expert_load {
            graph = graph.with_expert_load(load);
        }
        if let Some(speculation) = options.speculation {
            graph = graph.with_tokens_per_decode(speculation.draft_tokens + 1);
        }
        Self {
            options: *options,
            ..Self::assemble(graph, self.pricer, self.host, self.elsewhere)
        }
    }

    /// The same without the operators that `elsewhere` names, and without options
    /// that need them.
    pub(super) fn without(self, elsewhere: fn(&str) -> bool) -> Self {
        Self::assemble(self.graph, self.pricer, self.host, elsewhere)
    }

    fn compose(graph: Graph, pricer: Pricer, engine: Option<&EngineSpec>) -> Self {
        Self::assemble(graph, pricer, HostOverhead::of(engine), |_| false)
    }

    fn assemble(
        graph: Graph,
        pricer: Pricer,
        host: HostOverhead,
        elsewhere: fn(&str) -> bool,
    ) -> Self {
        let tables = graph
            .stages()
            .iter()
            .map(|stage| StageTables::new(&graph, &pricer, stage, elsewhere))
            .collect();
        let alike = stages::alike(graph.stages());
        Self {
            ranks: Divisor::new(graph.parallelism().attention_data_parallel),
            one_attention: stages::have_one_attention(&alike),
            alike,
            graph,
            pricer,
            host,
            options: StepOptions::default(),
            elsewhere,
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

    /// Host time: of a decode-only step under speculation, the share of the
    /// tokens it gains.
    #[inline]
    fn host_s(&self, shape: &StepShape, requests: u32) -> f64 {
        let step_s = self.host.step_s(requests);
        match self.options.speculation {
            Some(speculation) if shape.prefills.is_empty() => {
                step_s / speculation.tokens_per_step()
            }
            _ => step_s,
        }
    }

    /// Host time before a stage: all of it is before the first.
    #[inline(always)]
    fn host_of_stage_s(&self, index: usize, shape: &StepShape) -> f64 {
        let requests = host::requests(shape);
        if index == 0 && requests > 0 {
            self.host_s(shape, requests)
        } else {
            0.0
        }
    }

    #[inline]
    fn attention_ranks(&self) -> u32 {
        self.ranks.get()
    }

    /// The most that one rank has of `all` that are spread evenly.
    #[inline]
    fn of_one_rank(&self, all: u32) -> u32 {
        narrow::<u32, _>(self.ranks.div_ceil(u64::from(all)))
    }

    /// Time of operators visited by `visit`, seconds.
    fn sum_s(&self, visit: impl FnOnce(&mut dyn FnMut(NamedOperator))) -> f64 {
        self.sum_of_s(|_| true, visit)
    }

    /// The same of those that `wanted` says.
    fn sum_of_s(
        &self,
        wanted: impl Fn(&Operator) -> bool,
        visit: impl FnOnce(&mut dyn FnMut(NamedOperator)),
    ) -> f64 {
        let mut total = 0.0;
        visit(&mut |named| {
            if wanted(&named.operator) && !(self.elsewhere)(named.name) {
                total += named.count * self.pricer.time_s(&named.operator);
            }
        });
        total
    }

    #[inline]
    fn decode_only_s(&self, index: usize, decodes: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        self.tables[index].decode_only.get(decodes, |decodes| {
            let each = self.graph.tokens_per_decode();
            let tokens = self.of_one_rank(decodes) * each;
            let base = self.sum_s(|mut emit| self.graph.token_operators(stage, tokens, &mut emit));
            base + self.experts_s(stage, tokens, decodes * each, true)
        })
    }

    /// What a decode-only step takes beside attention.
    #[inline(always)]
    fn beside_attention(&self, index: usize, shape: &StepShape) -> BesideAttention {
        let price = || BesideAttention {
            layers_s: self.decode_only_s(index, shape.decode_requests),
            head_s: self.head_s(index, self.sampled_rows(shape)),
        };
        let table = &self.tables[index].beside_attention;
        match table.get(shape.decode_requests as usize) {
            Some(entry) if shape.sampled_tokens == shape.decode_requests => {
                *entry.get_or_init(price)
            }
            _ => price(),
        }
    }

    /// Routed and shared experts of a step: one beside the other in decode-only
    /// steps, one after the other otherwise.
    fn experts_s(&self, stage: &Stage, tokens: u32, pool: u32, decode_only: bool) -> f64 {
        let shared =
            self.sum_s(|mut emit| self.graph.shared_expert_operators(stage, tokens, &mut emit));
        let routed = self.sum_s(|mut emit| {
            self.graph
                .routed_rank_operators(stage, tokens, decode_only, &mut emit);
            self.graph
                .routed_pool_operators(stage, pool, decode_only, &mut emit);
        });
        if decode_only {
            routed.max(shared)
        } else {
            routed + shared
        }
    }

    #[inline(always)]
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

    #[inline(always)]
    fn pool_tokens_s(&self, index: usize, tokens: u32) -> f64 {
        let stage = &self.graph.stages()[index];
        if stage.moe_layers == 0 {
            return 0.0;
        }
        self.tables[index].pool_tokens.get(tokens, |tokens| {
            self.sum_s(|mut emit| {
                self.graph
                    .routed_pool_operators(stage, tokens, false, &mut emit);
            })
        })
    }

    #[inline]
    fn head_s(&self, index: usize, sampled: u32) -> f64 {
        let Some(table) = &self.tables[index].head else {
            return 0.0;
        };
        let rows = self.of_one_rank(sampled);
        table.get(rows, |rows| {
            let stage = &self.graph.stages()[index];
            self.sum_s(|mut emit| self.graph.head_operators(stage, rows, &mut emit))
        })
    }

    #[inline(always)]
    fn decode_attention_s(&self, index: usize, batch: u32, kv_tokens: f64) -> f64 {
        if batch == 0 {
            return 0.0;
        }
        let price = |kv_tokens| self.attention_price_s(index, batch, kv_tokens);
        let table = &self.tables[index].decode_attention;
        table.get(batch, kv_tokens, price)
    }

    fn attention_price_s(&self, index: usize, batch: u32, kv_tokens: f64) -> f64 {
        let stage = &self.graph.stages()[index];
        self.sum_s(|mut emit| {
            self.graph
                .decode_attention_operators(stage, batch, kv_tokens, &mut emit);
        })
    }

    #[inline(always)]
    fn chunk_s(&self, index: usize, shape: ChunkShape) -> f64 {
        let stage = &self.graph.stages()[index];
        let whole = shape.new_tokens.saturating_add(shape.context_tokens);
        if let Some((table, beside_s)) = &self.tables[index].whole_prompts
            && shape.batch == 1
            && whole < table.exact_below()
        {
            let whole_s = table.get(whole, |whole| {
                let shape = ChunkShape {
                    batch: 1,
                    new_tokens: whole,
                    context_tokens: 0,
                };
                let attention =
                    |operator: &Operator| matches!(operator, Operator::ContextAttention { .. });
                self.sum_of_s(attention, |mut emit| {
                    prefill_attention(&self.graph, stage, shape, &mut emit);
                })
            });
            return whole_s * unpaid_share(shape.new_tokens, shape.context_tokens) + beside_s;
        }
        self.tables[index].prefill_attention.get(shape, || {
            self.sum_s(|mut emit| prefill_attention(&self.graph, stage, shape, &mut emit))
        })
    }

    /// Attention over prompt chunks: groups of equal chunks as measured, other
    /// groups adding their time beyond the start-up.
    #[inline(always)]
    fn prefill_attention_s(&self, index: usize, prefills: &[super::PrefillChunk]) -> f64 {
        let launch_s = self.tables[index].prefill_launch_s;
        groups(prefills)
            .map(|shape| self.chunk_s(index, shape))
            .reduce(|total, group| total + (group - launch_s).max(0.0))
            .unwrap_or(0.0)
    }

    /// Attention of a rank.
    #[inline]
    fn attention_s(&self, index: usize, load: &RankLoad) -> f64 {
        self.prefill_attention_s(index, load.prefills)
            + self.decode_attention_s(index, load.decodes, load.kv_tokens)
    }

    /// Time of a rank that waits for nobody: all but the expert pool.
    #[inline]
    fn rank_s(&self, index: usize, load: &RankLoad) -> f64 {
        self.attention_s(index, load) + self.rank_tokens_s(index, self.rank_tokens(load))
    }

    /// Calls `with` with the shares of the ranks.
    #[inline]
    fn with_shares<T>(&self, shape: &StepShape, with: impl FnOnce(Shares<'_>) -> T) -> T {
        let ranks = self.attention_ranks();
        let decodes = (
            self.of_one_rank(shape.decode_requests),
            mean_kv_tokens(shape),
        );
        ranks::with_shares(&shape.prefills, ranks, decodes, with)
    }

    /// Calls `with` with the share of the rank with the most work, the first of
    /// equals.
    #[inline]
    fn with_busiest_rank<T>(
        &self,
        index: usize,
        shape: &StepShape,
        with: impl FnOnce(&RankLoad<'_>) -> T,
    ) -> T {
        self.with_shares(shape, |shares| {
            with(&shares.longest(|load| self.rank_s(index, load)))
        })
    }

    /// Time of the rank with the most work.
    #[inline]
    fn busiest_rank_s(&self, index: usize, shape: &StepShape) -> f64 {
        self.with_shares(shape, |shares| {
            let times = shares.iter().map(|load| self.rank_s(index, &load));
            times.fold(0.0, f64::max)
        })
    }

    /// Tokens of a rank, drafted ones included.
    #[inline]
    fn rank_tokens(&self, load: &RankLoad) -> u32 {
        load.prefill_tokens + load.decodes * self.graph.tokens_per_decode()
    }

    /// Tokens of all ranks, drafted ones included.
    #[inline]
    fn pool_tokens(&self, shape: &StepShape) -> u32 {
        shape.prefill_tokens() + shape.decode_requests * self.graph.tokens_per_decode()
    }

    /// Rows of the LM head, drafted ones included.
    #[inline]
    fn sampled_rows(&self, shape: &StepShape) -> u32 {
        shape.sampled_tokens + shape.decode_requests * (self.graph.tokens_per_decode() - 1)
    }

    /// Time of a step in which each decode gains one token: under speculation,
    /// the share of a longer step that gains it more.
    #[inline(always)]
    fn model_s(&self, index: usize, shape: &StepShape) -> f64 {
        let step_s = self.step_s(index, shape);
        let Some(speculation) = self.options.speculation else {
            return step_s;
        };
        if shape.decode_requests == 0 {
            return step_s;
        }
        // What the prompts take is theirs; the rest is spread over the tokens.
        let prompts_s = if shape.prefills.is_empty() {
            0.0
        } else {
            self.prompts_s(index, shape)
        };
        let drafts_s = f64::from(speculation.draft_tokens) * self.draft_s(index, shape);
        let decodes_s = (step_s - prompts_s).max(0.0) + drafts_s;
        prompts_s + decodes_s / speculation.tokens_per_step()
    }

    /// Time of the step without its decodes.
    fn prompts_s(&self, index: usize, shape: &StepShape) -> f64 {
        let prompts = StepShape {
            prefills: shape.prefills.clone(),
            sampled_tokens: shape.sampled_tokens.saturating_sub(shape.decode_requests),
            ..StepShape::default()
        };
        self.step_s(index, &prompts)
    }

    /// Drafting one token for every decode: a layer like the model's and the LM
    /// head, on the last stage.
    fn draft_s(&self, index: usize, shape: &StepShape) -> f64 {
        let stage = &self.graph.stages()[index];
        if !stage.last {
            return 0.0;
        }
        // The tables know verifying steps, in which every decode has several
        // tokens; drafting one takes as many decodes fewer.
        let decodes = shape
            .decode_requests
            .div_ceil(self.graph.tokens_per_decode());
        let batch = self.of_one_rank(decodes);
        let layers_s = self.decode_only_s(index, decodes)
            + self.decode_attention_s(index, batch, mean_kv_tokens(shape));
        layers_s / f64::from(stage.layers().max(1)) + self.head_s(index, shape.decode_requests)
    }

    /// Time of a step as it is run, every token it brings included.
    #[inline(always)]
    fn step_s(&self, index: usize, shape: &StepShape) -> f64 {
        if shape.prefills.is_empty() && shape.decode_requests == 0 {
            return 0.0;
        }
        let head_s = || self.head_s(index, self.sampled_rows(shape));
        if self.takes_turns(index)
            && let Some(overlapped_s) = self.overlapped_s(index, shape)
        {
            return overlapped_s + head_s();
        }
        if shape.prefills.is_empty() {
            let batch = self.of_one_rank(shape.decode_requests);
            let beside = self.beside_attention(index, shape);
            return beside.layers_s
                + self.decode_attention_s(index, batch, mean_kv_tokens(shape))
                + beside.head_s;
        }
        self.busiest_rank_s(index, shape)
            + self.pool_tokens_s(index, self.pool_tokens(shape))
            + head_s()
    }

    /// Whether two halves of a step take turns in layers with experts.
    fn takes_turns(&self, index: usize) -> bool {
        self.options.two_batch_overlap
            && self.graph.parallelism().expert_parallel > 1
            && self.graph.stages()[index].moe_layers > 0
    }

    /// Time of all but the LM head in two halves that take turns in the layers
    /// with experts; none where a rank has too little for two.
    fn overlapped_s(&self, index: usize, shape: &StepShape) -> Option<f64> {
        let decode_only = shape.prefills.is_empty();
        let pool = self.pool_tokens(shape);
        self.with_busiest_rank(index, shape, |load| {
            let tokens = self.rank_tokens(load);
            (tokens > 1).then(|| {
                let halves = [tokens.div_ceil(2), pool.div_ceil(2)];
                // A prompt may be cut between the halves; decodes are shared out.
                let attention_s = self.prefill_attention_s(index, load.prefills)
                    + 2.0
                        * self.decode_attention_s(index, load.decodes.div_ceil(2), load.kv_tokens);
                self.turns_s(index, attention_s, halves, decode_only)
            })
        })
    }

    /// Two halves of `[rank, pool]` tokens: while one computes, the other's
    /// tokens travel.
    fn turns_s(
        &self,
        index: usize,
        attention_s: f64,
        [tokens, pool]: [u32; 2],
        decode_only: bool,
    ) -> f64 {
        let (graph, stage) = (&self.graph, &self.graph.stages()[index]);
        let tables = &self.tables[index].halves[usize::from(decode_only)];
        let rank = |table: &CountTable, travels: bool| {
            table.get(tokens, |tokens| {
                self.sum_of_s(
                    |operator| travels_to_experts(operator) == travels,
                    |mut emit| {
                        graph.routed_rank_operators(stage, tokens, decode_only, &mut emit);
                        graph.shared_expert_operators(stage, tokens, &mut emit);
                    },
                )
            })
        };
        let all = |table: &CountTable, travels: bool| {
            table.get(pool, |pool| {
                self.sum_of_s(
                    |operator| travels_to_experts(operator) == travels,
                    |mut emit| graph.routed_pool_operators(stage, pool, decode_only, &mut emit),
                )
            })
        };
        let layers_s = attention_s
            + 2.0
                * tables.tokens.get(tokens, |tokens| {
                    self.sum_s(|mut emit| graph.token_operators(stage, tokens, &mut emit))
                });
        let share = f64::from(stage.moe_layers) / f64::from(stage.layers().max(1));
        let [by_rank, by_pool] = &tables.expert_compute;
        let compute_s = share * layers_s + 2.0 * (rank(by_rank, false) + all(by_pool, false));
        let [by_rank, by_pool] = &tables.exchange;
        let exchange_s = 2.0 * (rank(by_rank, true) + all(by_pool, true));
        // What computes beside an exchange is confined to what that leaves it.
        let left = if decode_only {
            1.0
        } else {
            1.0 - EXCHANGE_COMPUTE_SHARE
        };
        let turns_s = exchange_s.max(compute_s / left);
        // On its way back from the last layer, the second half has nothing beside
        // it: half of one half's exchange there.
        let last_s = exchange_s / (4.0 * f64::from(stage.moe_layers.max(1)));
        (1.0 - share) * layers_s + turns_s + last_s
    }

    /// Host work: of the first stage.
    fn price_host(&self, shape: &StepShape) -> Option<PricedOperator> {
        let requests = host::requests(shape);
        self.host.priced(requests, self.host_s(shape, requests))
    }

    /// Operators of one stage, priced one by one.
    fn price_stage(&self, index: usize, shape: &StepShape, out: &mut Vec<PricedOperator>) {
        let stage = &self.graph.stages()[index];
        let first = out.len();
        let mut sheet = Sheet {
            pricer: &self.pricer,
            elsewhere: self.elsewhere,
            stage: narrow::<u32, _>(index),
            rows: out,
        };
        let pool = self.pool_tokens(shape);
        if pool == 0 {
            return;
        }
        self.with_busiest_rank(index, shape, |load| {
            let tokens = self.rank_tokens(load);
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
        let rows = self.of_one_rank(self.sampled_rows(shape));
        self.graph
            .head_operators(stage, rows, &mut |named| sheet.add(named));
        self.explain_options(index, shape, first, out);
    }

    /// One more row for what options make of the operators from `first` on:
    /// negative where they save time.
    fn explain_options(
        &self,
        index: usize,
        shape: &StepShape,
        first: usize,
        out: &mut Vec<PricedOperator>,
    ) {
        let name = match (self.options.speculation, self.options.two_batch_overlap) {
            (None, false) => return,
            (None, true) => "two_batch_overlap",
            (Some(_), false) => "speculative",
            (Some(_), true) => "two_batch_overlap+speculative",
        };
        let sum_s: f64 = out[first..].iter().map(|row| row.time_s).sum();
        out.push(PricedOperator {
            stage: narrow::<u32, _>(index),
            name: name.into(),
            operator: Operator::LayerParts {
                prefill: !shape.prefills.is_empty(),
                batch: shape.decode_requests + narrow::<u32, _>(shape.prefills.len()),
                tokens: self.pool_tokens(shape),
            },
            count: 1.0,
            time_s: self.model_s(index, shape) - sum_s,
            provenance: Provenance::Formula,
        });
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
            .routed_pool_operators(stage, pool, decode_only, &mut |named| routed.push(named));
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
        narrow::<u32, _>(self.tables.len())
    }

    #[inline]
    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        StageTime {
            model_s: self.model_s(stage as usize, shape),
            host_s: self.host_of_stage_s(stage as usize, shape),
        }
    }

    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.stage_time(run.stage, shape)
    }

    fn tells_runs_apart(&self) -> bool {
        false
    }

    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        // Which rank has the most prompts to do may differ from stage to stage.
        let has_one_share = shape.prefills.is_empty() || self.attention_ranks() == 1;
        if self.is_plain() && has_one_share {
            self.plain_stage_times(shape, times);
        } else {
            stage_times_one_by_one(self, shape, times);
        }
    }

    #[inline]
    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        if self.is_plain() {
            self.plain_decode_times(shape, times);
        } else {
            decode_times_one_by_one(self, shape, times);
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
    fn new(graph: &Graph, pricer: &Pricer, stage: &Stage, elsewhere: fn(&str) -> bool) -> Self {
        let one_token = ChunkShape {
            batch: 1,
            new_tokens: 1,
            context_tokens: 0,
        };
        let mut prefill_launch_s = 0.0;
        let (mut shared, mut other, mut beside_s) = (0, 0, 0.0);
        prefill_attention(graph, stage, one_token, &mut |named| {
            if !elsewhere(named.name) {
                let time_s = named.count * pricer.time_s(&named.operator);
                prefill_launch_s += time_s;
                match named.operator {
                    _ if pricer.shares_prompts(&named.operator) => shared += 1,
                    // Of the sequence, not of its tokens.
                    Operator::Elementwise { .. } => beside_s += time_s,
                    _ => other += 1,
                }
            }
        });
        Self {
            decode_only: CountTable::new(),
            beside_attention: places(DECODES_LOOKED_UP),
            rank_tokens: CountTable::new(),
            pool_tokens: CountTable::new(),
            head: stage.last.then(CountTable::new),
            decode_attention: DecodeCurves::new(),
            prefill_attention: ChunkCache::new(),
            whole_prompts: (shared == 1 && other == 0)
                .then(|| (CountTable::with_pages(WHOLE_PROMPT_PAGES), beside_s)),
            halves: [HalfTables::new(), HalfTables::new()],
            prefill_launch_s,
        }
    }
}

/// Rows of an explanation under construction.
struct Sheet<'a> {
    pricer: &'a Pricer,
    elsewhere: fn(&str) -> bool,
    stage: u32,
    rows: &'a mut Vec<PricedOperator>,
}

impl Sheet<'_> {
    fn add(&mut self, named: NamedOperator) {
        if (self.elsewhere)(named.name) {
            return;
        }
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
                elsewhere: self.elsewhere,
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

/// Whether an operator of the experts' path moves tokens rather than computes.
fn travels_to_experts(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::ExpertDispatch { .. }
            | Operator::ExpertCombine { .. }
            | Operator::AllGather { .. }
            | Operator::ReduceScatter { .. }
    )
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
#[inline]
fn mean_kv_tokens(shape: &StepShape) -> f64 {
    match shape.decode_requests {
        0 => 1.0,
        _ => MeanKvTokens::of(shape).first(),
    }
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
#[cfg(test)]
pub(crate) mod wrapper_tests;
