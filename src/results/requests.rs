//! Per-request rows: one simulated request with what its run knows of it.

use super::row_table::RowTableWriter;
use super::{ResultError, RunResult};
use crate::simulator::RequestRecord;
use crate::units::DType;

/// One row of the per-request table.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// What the simulator recorded.
    pub record: RequestRecord,
    /// Since the previous request's arrival, seconds; NaN if that is not known.
    pub inter_arrival_delay_s: f64,
    /// Prompt tokens at arrival. A restart in a compatibility mode changes those of
    /// the record.
    pub prompt_tokens: u32,
    /// Output tokens at arrival.
    pub output_tokens: u32,
    /// Whether it is one of those that the figures of its run are of.
    pub measured: bool,
    /// Format of the KV cache.
    pub kv_cache_dtype: Option<DType>,
}

impl RequestRow {
    pub(super) fn decode_s(&self) -> f64 {
        self.record.completed_at_s - self.record.prefill_completed_at_s
    }

    pub(super) fn decode_tokens(&self) -> f64 {
        f64::from(self.record.decode_tokens)
    }

    pub(super) fn transfer_dtype(&self) -> Option<&str> {
        let moved = self.record.pd_p2p_comm_size_bytes > 0.0;
        self.kv_cache_dtype.filter(|_| moved).map(DType::name)
    }
}

/// Adds the rows of these runs to a table, in order.
pub(super) fn write_requests<'a>(
    table: &mut RowTableWriter<'_, RequestRow>,
    runs: impl Iterator<Item = &'a RunResult>,
) -> Result<(), ResultError> {
    for run in runs {
        table.extend(&run.run_id, request_rows(run))?;
    }
    Ok(())
}

/// Rows of a run, which has its requests in order. A delay needs both arrivals: with
/// sampled requests most have none.
fn request_rows(run: &RunResult) -> impl Iterator<Item = RequestRow> {
    debug_assert!(run.requests.is_sorted_by_key(|record| record.request_id));
    let befores = std::iter::once(None).chain(run.requests.iter().map(Some));
    let requests = befores.zip(&run.requests);
    requests.map(|(before, record)| {
        let follows =
            |before: &&RequestRecord| before.request_id.checked_add(1) == Some(record.request_id);
        RequestRow {
            inter_arrival_delay_s: before
                .filter(follows)
                .map_or(f64::NAN, |before| record.arrived_at_s - before.arrived_at_s),
            prompt_tokens: record.prefill_tokens,
            output_tokens: record.decode_tokens,
            measured: (run.measured.as_ref()).is_none_or(|ids| ids.contains(&record.request_id)),
            kv_cache_dtype: run.kv_cache_dtype,
            record: record.clone(),
        }
    })
}
