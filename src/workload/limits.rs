//! How large a workload may be: the limits that hold for every source of requests,
//! whether drawn, read or given on a command line, and are checked before anything
//! is allocated.

use super::{Lengths, Request, WorkloadError};

pub use crate::limits::{LATEST_ARRIVAL_S, MOST_REQUESTS, MOST_TOKENS};

/// How much later than on average drawn arrivals may come: draws scatter.
const SCATTER: f64 = 10.0;

/// Prompt and output tokens of a request, unless they are more than allowed.
///
/// # Errors
/// If they are, in words that say how many there were.
pub(super) fn check_lengths(lengths: Lengths) -> Result<Lengths, WorkloadError> {
    let (prompt, output) = (lengths.prefill_tokens, lengths.decode_tokens);
    if u64::from(prompt) + u64::from(output) > u64::from(MOST_TOKENS) {
        return Err(WorkloadError::new(format!(
            "a request of {prompt} prompt and {output} output tokens; allowed is {MOST_TOKENS} \
             together"
        )));
    }
    Ok(lengths)
}

/// Refuses a request that cannot be simulated, by its length or its time.
///
/// # Errors
/// If it cannot.
pub(crate) fn check_request(request: &Request) -> Result<(), WorkloadError> {
    check_lengths(Lengths {
        prefill_tokens: request.prefill_tokens,
        decode_tokens: request.decode_tokens,
    })?;
    check_arrival(request.arrived_at_s)
}

/// Refuses an arrival that is not from 0 to [`LATEST_ARRIVAL_S`].
///
/// # Errors
/// If it is not.
pub(crate) fn check_arrival(arrived_at_s: f64) -> Result<(), WorkloadError> {
    check_within(arrived_at_s, LATEST_ARRIVAL_S)
}

/// The same for the last of drawn arrivals.
pub(super) fn check_drawn_arrival(arrived_at_s: f64) -> Result<(), WorkloadError> {
    check_within(arrived_at_s, SCATTER * LATEST_ARRIVAL_S)
}

fn check_within(arrived_at_s: f64, latest_s: f64) -> Result<(), WorkloadError> {
    if (0.0..=latest_s).contains(&arrived_at_s) {
        return Ok(());
    }
    Err(WorkloadError::new(format!(
        "a request arrives after {arrived_at_s:e} s; allowed is 0 to {latest_s:e}, as later times \
         leave no digits for those of a step"
    )))
}

/// Refuses a rate at which the requests of a run come later than allowed.
///
/// # Errors
/// If they do, on average.
pub(super) fn check_rate(requests: u32, qps: f64) -> Result<(), WorkloadError> {
    let last_s = f64::from(requests) / qps;
    if last_s <= LATEST_ARRIVAL_S {
        return Ok(());
    }
    let message = format!(
        "value `{qps:e}` makes {requests} requests take {last_s:.1e} s to arrive; allowed is \
         {LATEST_ARRIVAL_S:e} s, so at least {:.1e}, as later times leave no digits for those of a \
         step",
        f64::from(requests) / LATEST_ARRIVAL_S
    );
    Err(WorkloadError::new(message).at_key("qps"))
}

/// Refuses more requests than a run can hold.
///
/// # Errors
/// If there are more.
pub(crate) fn check_requests(requests: u64) -> Result<u32, WorkloadError> {
    let few_enough = u32::try_from(requests).ok().filter(|&n| n <= MOST_REQUESTS);
    few_enough.ok_or_else(|| {
        WorkloadError::new(format!(
            "a run of {requests} requests; allowed are {MOST_REQUESTS}"
        ))
    })
}
