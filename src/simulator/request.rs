//! A request on its way through the cluster.

use super::cohort::NO_INTERVAL_S;
use super::recorder::{RequestOutcome, RequestRecord};
use super::spent::Spent;

/// Marks "not on any replica".
pub(crate) const NO_REPLICA: u32 = u32::MAX;

/// Waiting times are differences of sums; what is shorter is their rounding.
const ROUNDING_S: f64 = 1e-10;

/// State of one request.
///
/// While a request decodes, [`super::cohort::Cohort`] counts for it: `generated`
/// and `spent` then stand as of `joined_step` and are brought up to date when it
/// leaves.
#[derive(Debug, Clone)]
pub(crate) struct RequestState {
    /// Index in the workload.
    pub id: u32,
    pub arrived_at_s: f64,
    pub scheduled_at_s: f64,
    pub prefill_completed_at_s: f64,
    pub decode_arrived_at_s: f64,
    pub completed_at_s: f64,
    /// Prompt length. Changes only by [`Self::restart_as_new_prompt`].
    pub prefill_tokens: u32,
    /// Output length. Changes only by [`Self::restart_as_new_prompt`].
    pub decode_tokens: u32,
    /// Tokens to put into the KV cache before the next output token: the prompt,
    /// and after a restart everything generated so far as well.
    pub prefill_target: u32,
    /// Of those, how many are in the cache.
    pub prefilled: u32,
    /// Output tokens emitted.
    pub generated: u32,
    /// KV cache blocks that it, or its cache, takes where it waits to be admitted.
    pub promised_blocks: u64,
    /// KV cache blocks held on its current replica (as of `joined_step`).
    pub blocks: u64,
    /// Of those, what layers hold that cache only its last tokens.
    pub window_blocks: u64,
    pub restarts: u32,
    /// Last output token.
    pub last_token_at_s: f64,
    /// Longest time between two of its output tokens; [`NO_INTERVAL_S`]: there are not two.
    pub longest_interval_s: f64,
    /// End of its last stage as part of a prompt batch.
    pub last_stage_at_s: f64,
    pub spent: Spent,
    /// Cohort counters when it joined.
    pub joined_step: u64,
    /// Step of its cohort from which on its tokens come with the others'.
    pub shares_intervals_since: u64,
    pub spent_at_join: Spent,
    /// In a cohort: whether its last token came at another time than the others'.
    pub is_late: bool,
    pub prefill_replica: u32,
    pub decode_replica: u32,
    pub transfer_bytes: f64,
    pub transfer_started_at_s: f64,
    pub transfer_s: f64,
    /// Output shortened to what the longest sequence allows.
    pub is_capped: bool,
    /// How it ended; none: it has not.
    pub outcome: Option<RequestOutcome>,
}

impl RequestState {
    /// Request `id` as a cluster that generates `output_tokens` for it knows it.
    pub(crate) fn new(id: u32, request: &crate::workload::Request, output_tokens: u32) -> Self {
        Self {
            id,
            arrived_at_s: request.arrived_at_s,
            scheduled_at_s: f64::NAN,
            prefill_completed_at_s: f64::NAN,
            decode_arrived_at_s: f64::NAN,
            completed_at_s: f64::NAN,
            prefill_tokens: request.prefill_tokens,
            decode_tokens: output_tokens,
            prefill_target: request.prefill_tokens,
            prefilled: 0,
            generated: 0,
            promised_blocks: 0,
            blocks: 0,
            window_blocks: 0,
            restarts: 0,
            last_token_at_s: f64::NAN,
            longest_interval_s: NO_INTERVAL_S,
            last_stage_at_s: f64::NAN,
            spent: Spent::default(),
            joined_step: 0,
            shares_intervals_since: 0,
            spent_at_join: Spent::default(),
            is_late: false,
            prefill_replica: NO_REPLICA,
            decode_replica: NO_REPLICA,
            transfer_bytes: 0.0,
            transfer_started_at_s: f64::NAN,
            transfer_s: 0.0,
            is_capped: output_tokens < request.decode_tokens,
            outcome: None,
        }
    }

    /// Notes a time between two of its output tokens.
    #[inline]
    pub(crate) fn note_interval(&mut self, interval_s: f64) {
        if interval_s > self.longest_interval_s {
            self.longest_interval_s = interval_s;
        }
    }

    /// The longest time between two of its output tokens, if it ends so at `ended_at_s`:
    /// one that was cut off was waiting for its next token.
    #[inline]
    fn longest_interval_s(&self, outcome: RequestOutcome, ended_at_s: f64) -> f64 {
        let waited_s = match outcome.is_unfinished() {
            // NaN if it has none: no comparison holds.
            true => ended_at_s - self.last_token_at_s,
            false => NO_INTERVAL_S,
        };
        let longest_s = match waited_s > self.longest_interval_s {
            true => waited_s,
            false => self.longest_interval_s,
        };
        match longest_s {
            NO_INTERVAL_S => f64::NAN,
            longest_s => longest_s,
        }
    }

    /// Tokens in the KV cache while decoding: the prompt and every output token
    /// but the newest, whose entry the next step writes.
    #[inline]
    pub(crate) fn decode_context_tokens(&self) -> u64 {
        u64::from(self.prefill_tokens) + u64::from(self.generated) - 1
    }

    /// Most tokens its KV cache ever holds.
    #[inline]
    pub(crate) fn final_kv_tokens(&self) -> u64 {
        u64::from(self.prefill_tokens) + u64::from(self.decode_tokens) - 1
    }

    /// Forgets the KV cache: everything so far must be prefilled again. What was
    /// generated stays generated.
    pub(crate) fn restart(&mut self) {
        self.prefill_target = self.prefill_tokens + self.generated;
        self.prefilled = 0;
        self.blocks = 0;
        self.window_blocks = 0;
        self.restarts += 1;
    }

    /// How Vidur restarts: whatever has been processed becomes the prompt and the
    /// rest the output, even of a half-prefilled prompt.
    pub(crate) fn restart_as_new_prompt(&mut self) {
        let processed = match self.generated {
            0 => self.prefilled,
            generated => self.prefill_tokens + generated,
        };
        let total = self.prefill_tokens + self.decode_tokens;
        self.prefill_tokens = processed;
        self.decode_tokens = total - processed;
        self.generated = 0;
        self.restart();
    }

    /// Its history on replicas numbered from `first_replica` on, if it ends so at
    /// `ended_at_s`.
    #[inline]
    pub(crate) fn record(
        &self,
        first_replica: u32,
        outcome: RequestOutcome,
        ended_at_s: f64,
    ) -> RequestRecord {
        let number = |replica| match replica {
            NO_REPLICA => NO_REPLICA,
            replica => first_replica + replica,
        };
        RequestRecord {
            request_id: self.id,
            outcome,
            arrived_at_s: self.arrived_at_s,
            scheduled_at_s: self.scheduled_at_s,
            prefill_completed_at_s: self.prefill_completed_at_s,
            decode_arrived_at_s: self.decode_arrived_at_s,
            completed_at_s: self.completed_at_s,
            ended_at_s,
            longest_interval_s: self.longest_interval_s(outcome, ended_at_s),
            prefill_tokens: self.prefill_tokens,
            decode_tokens: self.decode_tokens,
            is_capped: self.is_capped,
            restarts: self.restarts,
            execution_s: self.spent.total_s,
            model_execution_s: self.spent.model_s,
            preemption_s: match self.spent.waiting_s {
                waiting_s if waiting_s < ROUNDING_S => 0.0,
                waiting_s => waiting_s,
            },
            prefill_replica_id: number(self.prefill_replica),
            decode_replica_id: number(match self.decode_replica {
                NO_REPLICA => self.prefill_replica,
                replica => replica,
            }),
            pd_p2p_comm_size_bytes: self.transfer_bytes,
            pd_p2p_comm_time_s: self.transfer_s,
        }
    }
}
