//! Runs whose length is decided while they go on.
//!
//! Such a run takes its requests from a stream. Marks cut its time into segments, at the
//! arrivals of requests that are equally many apart, so that a window can be chosen
//! afterwards: each mark keeps what the cluster has done up to it. Somebody who oversees
//! the run looks at it now and then, and says when to look again or to stop.

use super::recorder::{RequestOutcome, RequestRecord, SimulationTotals};
use super::request::RequestState;

/// Requests between the first marks. Short runs should have enough segments to tell
/// batches apart, and between two marks all replicas are looked at.
const FIRST_SPACING: u32 = 16;

/// Segments at which every second mark is dropped: a run has half of that to all of it,
/// however long it becomes.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// A cut in the time of a run, just before a request arrives.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// The request.
    pub request: u32,
    /// When it arrives, seconds.
    pub at_s: f64,
    /// What has been done until then; a batch counts from when it is formed.
    pub totals: SimulationTotals,
}

/// When a run is to be looked at again: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// As many requests, the first ones, have ended.
    pub ended: u32,
    /// As many requests have arrived.
    pub arrived: u32,
    /// A request is rejected that arrives from now on, if that matters.
    pub rejects: bool,
}

/// How a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does, for now.
    Until(Until),
    /// It does not.
    Stop,
}

/// Decides how long a run becomes.
pub trait Overseer<R> {
    /// Looks at the run and at what its recorder has kept. Called once before anything
    /// has happened.
    fn look(&mut self, progress: &Progress<'_>, recorder: &R) -> Next;
}

/// A run so far.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// Present time, seconds.
    pub now_s: f64,
    /// Whether nothing more happens: the time limit has come.
    pub is_over: bool,
    /// Whether the requests have ended that were to.
    pub has_ended: bool,
    /// The first request that was rejected: it can never be served.
    pub first_rejected: Option<u32>,
    /// What has been done.
    pub totals: SimulationTotals,
    /// Cuts in its time, the first at the first arrival.
    pub marks: &'a [Mark],
    pub(super) requests: &'a [RequestState],
}

impl Progress<'_> {
    /// Requests that have arrived.
    pub fn arrived(&self) -> usize {
        self.requests.len()
    }

    /// When a request arrived, seconds.
    pub fn arrived_at_s(&self, id: usize) -> f64 {
        self.requests[id].arrived_at_s
    }

    /// When it stopped waiting, seconds: with its first token, or, where its KV cache is
    /// sent elsewhere, when that had arrived; NaN while it waits.
    pub fn began_at_s(&self, id: usize) -> f64 {
        let request = &self.requests[id];
        let times_s = [request.decode_arrived_at_s, request.prefill_completed_at_s];
        match (request.outcome, times_s) {
            (_, [arrived_s, _]) if !arrived_s.is_nan() => arrived_s,
            (Some(RequestOutcome::Completed), [_, first_token_s]) => first_token_s,
            (Some(_), _) => request.arrived_at_s,
            (None, _) => f64::NAN,
        }
    }

    /// When it ended, seconds; NaN while it has not.
    pub fn ended_at_s(&self, id: usize) -> f64 {
        let request = &self.requests[id];
        match request.outcome {
            Some(RequestOutcome::Completed) => request.completed_at_s,
            Some(_) => request.arrived_at_s,
            None => f64::NAN,
        }
    }

    /// Prompt and output tokens of a request.
    pub fn lengths(&self, id: usize) -> (u32, u32) {
        let request = &self.requests[id];
        (request.prefill_tokens, request.decode_tokens)
    }

    /// When a request completed, seconds, and its prompt and output tokens; none if it has
    /// not.
    pub fn completion(&self, id: usize) -> Option<(f64, u32, u32)> {
        let request = &self.requests[id];
        let is_completed = request.outcome == Some(RequestOutcome::Completed);
        is_completed.then_some((
            request.completed_at_s,
            request.prefill_tokens,
            request.decode_tokens,
        ))
    }

    /// A request's history so far; its outcome, if it has not ended, as if it were cut off
    /// now.
    pub fn record(&self, id: usize) -> RequestRecord {
        let request = &self.requests[id];
        let outcome = request
            .outcome
            .unwrap_or(RequestOutcome::UnfinishedEndOfRun);
        request.record(0, outcome, self.now_s)
    }
}

/// Marks of a run.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) list: Vec<Mark>,
    spacing: u32,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            list: Vec::with_capacity(SEGMENTS_MAX + 1),
            spacing: FIRST_SPACING,
        }
    }
}

impl Marks {
    /// Adds one, and drops every second one if there are too many; whether it did.
    pub(crate) fn add(&mut self, mark: Mark) -> bool {
        self.list.push(mark);
        let are_too_many = self.list.len() > SEGMENTS_MAX;
        if are_too_many {
            let mut index = 0;
            self.list.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.spacing *= 2;
        }
        are_too_many
    }

    /// The request before which the next one stands.
    pub(crate) fn next(&self) -> u32 {
        let last = self.list.last();
        last.map_or(0, |mark| mark.request.saturating_add(self.spacing))
    }
}
