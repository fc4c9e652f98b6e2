//! Per-batch rows: what one batch of one run was.

use std::sync::LazyLock;

use super::schema::{Column, float, int};
use crate::number::narrow;

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
pub static BATCH_COLUMNS: LazyLock<Vec<Column<BatchRow>>> = LazyLock::new(|| {
    vec![
        int(
            "Batch Id",
            "-",
            "In order of formation, from 0",
            |b: &BatchRow| Some(narrow::<i64, _>(b.batch_id)),
        ),
        int(
            "batch_num_tokens",
            "tokens",
            "Tokens processed",
            |b: &BatchRow| Some(i64::from(b.tokens)),
        ),
        int(
            "batch_num_prefill_tokens",
            "tokens",
            "Of those, prompt tokens",
            |b: &BatchRow| Some(i64::from(b.prefill_tokens)),
        ),
        int(
            "batch_num_decode_tokens",
            "tokens",
            "Of those, tokens of decodes",
            |b: &BatchRow| Some(i64::from(b.tokens - b.prefill_tokens)),
        ),
        int("batch_size", "requests", "Requests", |b: &BatchRow| {
            Some(i64::from(b.requests))
        }),
        float(
            "batch_execution_time",
            "s",
            "From its formation to the end of its last stage, waiting included",
            BatchRow::execution_s,
        ),
        int("replica_id", "-", "Replica", |b: &BatchRow| {
            Some(i64::from(b.replica))
        }),
        float("scheduled_at", "s", "When it was formed", |b: &BatchRow| {
            b.scheduled_at_s
        }),
        float(
            "completed_at",
            "s",
            "When it left the last stage",
            |b: &BatchRow| b.completed_at_s,
        ),
        int(
            "used_blocks",
            "-",
            "KV cache blocks in use on its replica after its end",
            |b: &BatchRow| Some(narrow::<i64, _>(b.used_blocks)),
        ),
        int(
            "total_blocks",
            "-",
            "KV cache blocks of its replica",
            |b: &BatchRow| Some(narrow::<i64, _>(b.total_blocks)),
        ),
    ]
});
