//! Columns of `request_metrics.csv` that Vidur-AlibabaCloud added: where and when
//! the phases of a request happened, and what moved between them.
//!
//! By default they are filled for every request; the original leaves most of them
//! infinite or blank without disaggregation.

use super::frame::Values;
use super::{ClusterFacts, TransferFacts};
use crate::number::whole_u64;
use crate::simulator::{Compat, RequestRecord};

type Named = (String, Values);

fn named(name: &str, values: Values) -> Named {
    (name.to_owned(), values)
}

/// The columns, a row for each of `records`; none: the request has not ended.
pub(super) fn columns(records: &[Option<&RequestRecord>], facts: &ClusterFacts) -> Vec<Named> {
    let floats = |value: &dyn Fn(&RequestRecord) -> f64| {
        let values = records.iter().map(|record| record.map_or(f64::NAN, value));
        Values::Floats(values.collect())
    };
    let mixed_original = facts.compat.is_alibaba_cloud() && facts.transfer.is_none();
    let decode_arrived = |record: &RequestRecord| {
        if mixed_original {
            f64::INFINITY
        } else {
            record.decode_arrived_at_s
        }
    };
    let mut columns = vec![
        named("arrived_at", floats(&|r| r.arrived_at_s)),
        named("prefill_arrived_at", floats(&|r| r.arrived_at_s)),
        named("scheduled_at", floats(&|r| r.scheduled_at_s)),
        named(
            "prefill_completed_at",
            floats(&|r| r.prefill_completed_at_s),
        ),
        named("decode_arrived_at", floats(&decode_arrived)),
        named("completed_at", floats(&|r| r.completed_at_s)),
        named("preempted_time", floats(&|r| r.preemption_s)),
        named("decode_time", floats(&decode_s)),
    ];
    columns.extend(if mixed_original {
        unfilled(records.len())
    } else {
        transfers(records, facts.transfer)
    });
    columns
}

/// First to last output token.
fn decode_s(record: &RequestRecord) -> f64 {
    record.completed_at_s - record.prefill_completed_at_s
}

/// Time between tokens as the document defines it: `decode_time` per output token. Blank
/// for a single token.
pub(super) fn tbt(records: &[Option<&RequestRecord>]) -> Named {
    let of = |r: &RequestRecord| r.tbt_s().unwrap_or(f64::NAN);
    let values = records.iter().map(|record| record.map_or(f64::NAN, of));
    named("tbt", Values::Floats(values.collect()))
}

/// What the original writes without disaggregation.
fn unfilled(rows: usize) -> Vec<Named> {
    let same = |value| Values::Floats(vec![value; rows]);
    vec![
        named("prefill_replica_id", same(f64::NAN)),
        named("decode_replica_id", same(f64::NAN)),
        named("pd_p2p_comm_size", same(f64::INFINITY)),
        named("pd_p2p_comm_time", same(f64::INFINITY)),
        named("pd_p2p_comm_bandwidth", Values::Ints(vec![0; rows])),
        named("pd_p2p_bytes_per_token", same(f64::NAN)),
        named("pd_p2p_comm_dtype", same(f64::NAN)),
    ]
}

fn transfers(records: &[Option<&RequestRecord>], transfer: Option<TransferFacts>) -> Vec<Named> {
    let counts = |value: &dyn Fn(&RequestRecord) -> u64| {
        Values::of_counts(records.iter().map(|record| record.map(value)).collect())
    };
    let floats = |value: &dyn Fn(&RequestRecord) -> f64| {
        let values = records.iter().map(|record| record.map_or(f64::NAN, value));
        Values::Floats(values.collect())
    };
    let moved = |record: &RequestRecord| transfer.filter(|_| record.pd_p2p_comm_size_bytes > 0.0);
    let is_original = transfer.is_some_and(|transfer| transfer.compat.is_alibaba_cloud());
    let bandwidth = |record: &RequestRecord| match moved(record) {
        // The original's is that of the link, which a transfer there always gets.
        Some(transfer) if is_original => transfer.alone_bytes_per_s,
        None if is_original => 0.0,
        _ => record.pd_p2p_comm_size_bytes / record.pd_p2p_comm_time_s,
    };
    let per_token = |record: &RequestRecord| match moved(record) {
        // The original's is of one element.
        Some(transfer) if transfer.compat.is_alibaba_cloud() => transfer.dtype.bytes(),
        Some(_) => record.pd_p2p_comm_size_bytes / f64::from(record.prefill_tokens),
        None => f64::NAN,
    };
    let dtype = |record: Option<&RequestRecord>| Some(moved(record?)?.dtype.name());
    let size = |record: &RequestRecord| whole_u64(record.pd_p2p_comm_size_bytes);
    vec![
        named(
            "prefill_replica_id",
            counts(&|r| u64::from(r.prefill_replica_id)),
        ),
        named(
            "decode_replica_id",
            counts(&|r| u64::from(r.decode_replica_id)),
        ),
        named("pd_p2p_comm_size", counts(&size)),
        named("pd_p2p_comm_time", floats(&|r| r.pd_p2p_comm_time_s)),
        named("pd_p2p_comm_bandwidth", floats(&bandwidth)),
        named("pd_p2p_bytes_per_token", floats(&per_token)),
        named(
            "pd_p2p_comm_dtype",
            Values::Names(records.iter().copied().map(dtype).collect()),
        ),
    ]
}

/// Whether `request_metrics.csv` has these columns: Vidur's own has not.
pub(super) fn wanted(compat: Compat) -> bool {
    compat != Compat::Vidur
}
