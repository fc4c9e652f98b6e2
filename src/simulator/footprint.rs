//! How much memory the requests of a run take, known before there are any.

use super::recorder::RequestRecord;
use super::request::RequestState;
use crate::workload::Request;

/// Sorted copies and room to sort in, queues, members of cohorts and such. Measured beyond
/// the tables of requests themselves are up to 58 bytes per request, in closed loops and
/// bursts; rows on their way into a file need no more than that.
const MORE_BYTES_PER_REQUEST: u64 = 64;

/// Bytes that a run of `requests` requests takes; of every `log_every`-th the row is
/// kept (0: of none).
pub fn run_memory_bytes(requests: u32, log_every: u32) -> u64 {
    let requests = u64::from(requests);
    let rows = match log_every {
        0 => 0,
        every => requests.div_ceil(u64::from(every)),
    };
    // As drawn, and at the rate of the run; then latency, time to first token, scheduling
    // delay and longest time between tokens.
    let kept = 2 * size_of::<Request>() + size_of::<RequestState>() + 4 * size_of::<f64>();
    let row = size_of::<RequestRecord>() as u64;
    requests * (kept as u64 + MORE_BYTES_PER_REQUEST) + rows * row
}
