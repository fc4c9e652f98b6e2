//! Per-batch rows: what one batch of one run was.

use super::schema::{Column, Getter};

/// One row of the per-batch table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchRow {
    /// Number, in order of formation.
    pub batch_id: u64,
    /// Replica.
    pub replica: u32,
    /// When it was formed, seconds.
    pub scheduled_at_s: f64,
    /// When it left the last stage, seconds.
    pub completed_at_s: f64,
    /// Tokens processed.
    pub tokens: u32,
    /// Of those, prompt tokens.
    pub prefill_tokens: u32,
    /// Requests.
    pub requests: u32,
    /// KV cache blocks in use on the replica after its end.
    pub used_blocks: u64,
    /// KV cache blocks of the replica.
    pub total_blocks: u64,
}

impl BatchRow {
    /// From its formation to its end.
    pub fn execution_s(&self) -> f64 {
        self.completed_at_s - self.scheduled_at_s
    }
}

/// Columns of `batches.parquet`. The first six are those of Vidur's
/// `batch_metrics.csv`.
pub static BATCH_COLUMNS: [Column<BatchRow>; 11] = [
    Column {
        name: "Batch Id",
        unit: "-",
        meaning: "In order of formation, from 0",
        getter: Getter::Int(|b| Some(b.batch_id as i64)),
    },
    Column {
        name: "batch_num_tokens",
        unit: "tokens",
        meaning: "Tokens processed",
        getter: Getter::Int(|b| Some(i64::from(b.tokens))),
    },
    Column {
        name: "batch_num_prefill_tokens",
        unit: "tokens",
        meaning: "Of those, prompt tokens",
        getter: Getter::Int(|b| Some(i64::from(b.prefill_tokens))),
    },
    Column {
        name: "batch_num_decode_tokens",
        unit: "tokens",
        meaning: "Of those, tokens of decodes",
        getter: Getter::Int(|b| Some(i64::from(b.tokens - b.prefill_tokens))),
    },
    Column {
        name: "batch_size",
        unit: "requests",
        meaning: "Requests",
        getter: Getter::Int(|b| Some(i64::from(b.requests))),
    },
    Column {
        name: "batch_execution_time",
        unit: "s",
        meaning: "From its formation to the end of its last stage, waiting included",
        getter: Getter::Float(BatchRow::execution_s),
    },
    Column {
        name: "replica_id",
        unit: "-",
        meaning: "Replica",
        getter: Getter::Int(|b| Some(i64::from(b.replica))),
    },
    Column {
        name: "scheduled_at",
        unit: "s",
        meaning: "When it was formed",
        getter: Getter::Float(|b| b.scheduled_at_s),
    },
    Column {
        name: "completed_at",
        unit: "s",
        meaning: "When it left the last stage",
        getter: Getter::Float(|b| b.completed_at_s),
    },
    Column {
        name: "used_blocks",
        unit: "-",
        meaning: "KV cache blocks in use on its replica after its end",
        getter: Getter::Int(|b| Some(b.used_blocks as i64)),
    },
    Column {
        name: "total_blocks",
        unit: "-",
        meaning: "KV cache blocks of its replica",
        getter: Getter::Int(|b| Some(b.total_blocks as i64)),
    },
];
