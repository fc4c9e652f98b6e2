//! Requests without end, for runs whose length is decided while they go on.
//!
//! The first requests of a stream are those of a [`super::UnitWorkload`] of the same
//! configuration, however long the run becomes: two deployments are compared under the
//! same requests as far as both of them go.

use std::sync::{Arc, Mutex, PoisonError};

use super::generate::{Draws, clients, shorten_to_allowed};
use super::outline::{Outline, Timing};
use super::{Request, WorkloadConfig, WorkloadError};

/// Requests drawn at a time: short runs, of some hundred requests, should not draw many
/// more, and a lock is taken for each.
const CHUNK: usize = 512;

/// A stream of requests at unit rate. Drawn once for all runs that use it, as far as the
/// longest of them goes.
pub struct UnitStream {
    drawn: Mutex<Drawn>,
    clients: Option<u32>,
    timing: Timing,
    longest_tokens: u64,
}

struct Drawn {
    draws: Draws,
    chunks: Vec<Arc<[Request]>>,
}

impl std::fmt::Debug for UnitStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnitStream").finish_non_exhaustive()
    }
}

impl UnitStream {
    pub(super) fn new(
        config: &WorkloadConfig,
        outline: &Outline,
        seed: u64,
        replication: u32,
    ) -> Result<Self, WorkloadError> {
        Ok(Self {
            drawn: Mutex::new(Drawn {
                draws: Draws::new(config, outline, seed, replication)?,
                chunks: Vec::new(),
            }),
            clients: clients(&config.arrivals),
            timing: outline.timing,
            longest_tokens: outline.longest_tokens(&config.lengths),
        })
    }

    /// The stream at `qps` requests per second on average, of which a run will take
    /// `requests` or a few more. As [`super::UnitWorkload::at_rate`].
    ///
    /// # Errors
    /// If the arrivals need another `qps`, or come later than a simulation can tell.
    pub fn at_rate(
        self: &Arc<Self>,
        qps: Option<f64>,
        requests: u32,
    ) -> Result<RequestStream, WorkloadError> {
        Ok(RequestStream {
            factor: self.timing.factor(requests, qps)?,
            requests,
            unit: Arc::clone(self),
            chunks_taken: 0,
        })
    }

    fn chunk(&self, index: usize) -> Arc<[Request]> {
        // What a panicking thread left is whole: chunks are pushed in one step.
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        while drawn.chunks.len() <= index {
            let mut chunk: Vec<Request> = drawn.draws.by_ref().take(CHUNK).collect();
            for request in &mut chunk {
                shorten_to_allowed(request);
            }
            drawn.chunks.push(chunk.into());
        }
        Arc::clone(&drawn.chunks[index])
    }
}

/// The requests of one run, in order of arrival, as far as it wants to go.
#[derive(Debug)]
pub struct RequestStream {
    unit: Arc<UnitStream>,
    factor: f64,
    requests: u32,
    chunks_taken: usize,
}

impl RequestStream {
    /// Closed loop with so many clients, instead of the arrival times.
    pub fn clients(&self) -> Option<u32> {
        self.unit.clients
    }

    /// Requests that a run is likely to take at first: some more than it measures.
    pub fn expected_requests(&self) -> usize {
        self.requests as usize / 4 * 5 + CHUNK
    }

    /// Tokens of the longest request there can be, prompt and output together.
    pub fn longest_tokens(&self) -> u64 {
        self.unit.longest_tokens
    }

    /// Takes some more requests.
    pub fn take_more(&mut self, mut each: impl FnMut(&Request)) {
        let chunk = self.unit.chunk(self.chunks_taken);
        self.chunks_taken += 1;
        for request in chunk.iter() {
            each(&Request {
                arrived_at_s: request.arrived_at_s * self.factor,
                ..*request
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::workload::{WorkloadConfig, WorkloadSource};

    #[test]
    fn a_stream_starts_like_a_workload() {
        for lengths in [
            serde_json::json!({"type": "trace", "file": "data/traces/azure-conv-2023.csv"}),
            serde_json::json!({"type": "zipf", "min_tokens": 2, "max_tokens": 900,
                               "prefill_to_decode_ratio": 3.0}),
            serde_json::json!({"type": "lognormal", "prefill_median_tokens": 500,
                               "prefill_sigma": 1, "decode_median_tokens": 50, "decode_sigma": 1}),
        ] {
            for arrivals in ["poisson", "static"] {
                let config: WorkloadConfig = serde_json::from_value(serde_json::json!({
                    "requests": 1500, "lengths": lengths, "arrivals": {"type": arrivals},
                }))
                .expect("a workload");
                let source = WorkloadSource::default();
                let all = source.get(&config, 3, 1).expect("drawn");
                let all = all.at_rate(Some(7.0)).expect("a rate");
                let stream = source.stream(&config, 3, 1).expect("a stream");
                for _ in 0..2 {
                    let mut stream = stream.at_rate(Some(7.0), 1500).expect("a rate");
                    let mut taken = Vec::new();
                    while taken.len() < all.requests.len() {
                        stream.take_more(|request| taken.push(*request));
                    }
                    assert_eq!(taken[..all.requests.len()], all.requests);
                    let longest = all.requests.iter();
                    let longest = longest
                        .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens))
                        .max();
                    assert!(longest <= Some(stream.longest_tokens()));
                }
            }
        }
    }
}
