//! What one step of one pipeline stage costs.
//!
//! A backend is an operator graph of the model ([`graph`]) priced by an
//! operator cost source ([`silicon`] tables, [`roofline`]) plus host overhead, layer
//! times measured as a whole ([`aicb`]), Vidur's formula over fits of its
//! profiling files ([`vidur`]), or a closed form ([`formula`]).
//! The simulator sees only [`StepCost`]; `explain` sees every operator with its
//! [`Provenance`]. Knows nothing of requests, queues or time of day.

pub mod aicb;
pub mod expert_load;
pub mod formula;
pub mod graph;
pub mod operator;
pub mod roofline;
pub mod silicon;
pub mod step_cost;
pub mod vidur;

pub use operator::{Operator, OperatorCost, Price, PricingError, Provenance};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::narrow;

/// Where execution times come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// Measured operator tables, roofline where there is none.
    #[default]
    Silicon,
    /// The same with routed experts as AIConfigurator 0.12.0 prices them, to be
    /// compared with: from tables that cannot always be right.
    Aiconfigurator,
    /// Peak figures of the device with stated efficiencies; every device.
    Roofline,
    /// Layer times from AICB's files (`aicb_dir`); without them measured operators
    /// of the device itself, else kernel efficiencies fitted to it (H20, H800).
    Aicb,
    /// Fits of Vidur's profiling files (`profiling_dir`, `predictor`).
    Vidur,
    /// Vidur's profiling files by polynomial regression: `vidur` with
    /// `predictor: {estimator: linear_regression}`.
    Linear,
    /// Operator times listed in `predictions_file`, by Vidur's keys.
    Table,
    /// Stage times of a recorded run, listed in `execution_times_file`.
    Recorded,
    /// A closed form over what is in a step (`formula`): for tests and queueing theory.
    Formula,
    /// Kernels from profiles or measured tables, communication by formula: what
    /// NCCL was measured to take.
    SimaiAnalytical,
    /// Kernels from profiles or measured tables, communication as flows over
    /// `network.topology`.
    SimaiSimulation,
}

/// One prompt chunk of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefillChunk {
    /// Prompt tokens processed in this step.
    pub new_tokens: u32,
    /// Tokens of the same prompt already in the KV cache.
    pub context_tokens: u32,
}

/// Everything a cost model may know of a batch. Decodes are described by their
/// count and the sum of their contexts, which the simulator keeps up to date in
/// O(1) per step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Prompt chunks, in batch order.
    pub prefills: Vec<PrefillChunk>,
    /// Requests that generate one token each.
    pub decode_requests: u32,
    /// Sum over those requests of the tokens in their KV cache, the new one's
    /// predecessors (attention reads this many keys per layer, plus its own).
    pub decode_context_tokens: u64,
    /// Rows that go through the LM head: decodes and prompts that end in this step.
    pub sampled_tokens: u32,
}

impl StepShape {
    /// Tokens that go through the linear layers.
    pub fn new_tokens(&self) -> u32 {
        self.decode_requests + self.prefill_tokens()
    }

    /// Prompt tokens of the step.
    pub fn prefill_tokens(&self) -> u32 {
        self.prefills.iter().map(|chunk| chunk.new_tokens).sum()
    }
}

/// Time one stage is busy with one step, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageTime {
    /// Kernels, collectives and the send to the next stage.
    pub model_s: f64,
    /// Host work that delays the step.
    pub host_s: f64,
}

impl StageTime {
    /// Kernel and host time together.
    pub fn total_s(&self) -> f64 {
        self.model_s + self.host_s
    }
}

/// One operator of a step with its price, for `explain`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PricedOperator {
    /// Pipeline stage.
    pub stage: u32,
    /// Name within the graph, e.g. `qkv_gemm`.
    pub name: String,
    /// What is computed, with its shape.
    pub operator: Operator,
    /// How often it runs in the step (layers, mostly).
    pub count: f64,
    /// Time of all its runs together, seconds.
    pub time_s: f64,
    /// How the price came about.
    pub provenance: Provenance,
}

/// One stage's run of one batch, for backends that replay recorded runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageRun {
    /// Replica, counted through all pools.
    pub replica: u32,
    /// Number among the batches the replica has formed, from 0.
    pub nth_batch: u64,
    /// Pipeline stage.
    pub stage: u32,
}

/// Speculative decoding: tokens drafted by multi-token-prediction layers and
/// verified in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speculation {
    /// Tokens drafted per step.
    pub draft_tokens: u32,
    /// Chance that a drafted token is accepted, given that its predecessors were.
    pub acceptance: f64,
}

impl Speculation {
    /// Tokens a sequence gains per step, on average: its own and those accepted.
    pub fn tokens_per_step(&self) -> f64 {
        (0..=self.draft_tokens)
            .map(|drafted| self.acceptance.powi(narrow::<i32, _>(drafted)))
            .sum()
    }
}

/// What an engine does beyond the plain step; default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepOptions {
    /// How unevenly tokens spread over experts; none: as the model's router does.
    pub expert_load: Option<operator::ExpertLoad>,
    /// Two halves of a step take turns: one computes while the other's tokens
    /// travel to and from their experts.
    pub two_batch_overlap: bool,
    /// Speculative decoding.
    pub speculation: Option<Speculation>,
}

/// Prices steps of one pool's replicas. A pure function of the shape; may
/// memoise behind atomics. Shared by all replicas and threads.
///
/// No method has a default: whoever wraps another cost model says of each what
/// becomes of it, or does not compile. Cost models that have nothing better to say
/// name the methods of which that is so in [`one_by_one!`](crate::one_by_one).
pub trait StepCost: Send + Sync {
    /// Pipeline stages.
    fn stages(&self) -> u32;

    /// Time stage `stage` takes for `shape`. Called once per batch and stage:
    /// must not allocate in steady state.
    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime;

    /// The same for a certain batch of a certain replica.
    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime;

    /// Whether it matters which batch of which replica it is: then only
    /// [`Self::stage_time_of`] tells.
    fn tells_runs_apart(&self) -> bool;

    /// Times of all stages. The same as one by one, to the last bit.
    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]);

    /// Times of decode-only steps in a row, as many as `times` has room for: of the first
    /// on all stages, then of the second ... `shape` is the first step, and in each of the
    /// others every decode has one token more in its cache. The same as one by one, to the
    /// last bit.
    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]);

    /// The same price, operator by operator, all stages.
    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator>;

    /// Of [`Self::explain`], the operators of one stage.
    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator>;
}

/// In an implementation of [`StepCost`] for a cost model that wraps no other: those of
/// the named methods say what follows from [`StepCost::stage_time`] and
/// [`StepCost::explain`].
#[macro_export]
macro_rules! one_by_one {
    (@ stage_time_of) => {
        fn stage_time_of(
            &self,
            run: $crate::execution_time::StageRun,
            shape: &$crate::execution_time::StepShape,
        ) -> $crate::execution_time::StageTime {
            self.stage_time(run.stage, shape)
        }
    };
    (@ tells_runs_apart) => {
        fn tells_runs_apart(&self) -> bool {
            false
        }
    };
    (@ stage_times) => {
        fn stage_times(
            &self,
            shape: &$crate::execution_time::StepShape,
            times: &mut [$crate::execution_time::StageTime],
        ) {
            $crate::execution_time::stage_times_one_by_one(self, shape, times);
        }
    };
    (@ decode_times) => {
        fn decode_times(
            &self,
            shape: &$crate::execution_time::StepShape,
            times: &mut [$crate::execution_time::StageTime],
        ) {
            $crate::execution_time::decode_times_one_by_one(self, shape, times);
        }
    };
    (@ explain_stage) => {
        fn explain_stage(
            &self,
            stage: u32,
            shape: &$crate::execution_time::StepShape,
        ) -> Vec<$crate::execution_time::PricedOperator> {
            $crate::execution_time::operators_of_stage(self, stage, shape)
        }
    };
    ($($method:ident),+) => {
        $($crate::one_by_one!(@ $method);)+
    };
}

/// [`StepCost::stage_times`] by as many prices.
pub fn stage_times_one_by_one(
    cost: &(impl StepCost + ?Sized),
    shape: &StepShape,
    times: &mut [StageTime],
) {
    for (stage, time) in (0..).zip(times) {
        *time = cost.stage_time(stage, shape);
    }
}

/// [`StepCost::decode_times`] by as many prices.
pub fn decode_times_one_by_one(
    cost: &(impl StepCost + ?Sized),
    shape: &StepShape,
    times: &mut [StageTime],
) {
    let mut shape = StepShape {
        // Empty: nothing is allocated.
        prefills: Vec::new(),
        ..*shape
    };
    for step in times.chunks_exact_mut(cost.stages() as usize) {
        for (stage, time) in (0..).zip(step) {
            *time = cost.stage_time(stage, &shape);
        }
        shape.decode_context_tokens += u64::from(shape.decode_requests);
    }
}

/// [`StepCost::explain_stage`] by leaving out the others.
pub fn operators_of_stage(
    cost: &(impl StepCost + ?Sized),
    stage: u32,
    shape: &StepShape,
) -> Vec<PricedOperator> {
    let mut operators = cost.explain(shape);
    operators.retain(|operator| operator.stage == stage);
    operators
}
