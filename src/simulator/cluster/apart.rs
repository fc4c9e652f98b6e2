//! Replicas that nothing connects, simulated one after the other or in parallel.
//!
//! Where routing does not look at load, which replica gets which request is known
//! beforehand, and without a second pool replicas have nothing to do with one
//! another. Each is then a simulation of its own: its events are those it has
//! among the others, in the same order, so results are the same to the last bit.
//! There is no shared queue, long stretches without events, and any number of
//! threads.

use std::ops::Range;

use rayon::prelude::*;

use super::{Requests, Scope, Simulation, state_of, totals};
use crate::number::narrow;
use crate::simulator::config::{ClusterSpec, Compat, PoolRole};
use crate::simulator::recorder::{Recorder, RequestOutcome, SimulationTotals};
use crate::simulator::replica::{Replica, ReplicaEnd};
use crate::simulator::request::{NO_REPLICA, RequestState};
use crate::simulator::scheduler::global::{Load, Router};
use crate::workload::{Request, Workload};

/// Requests from which on replicas are simulated in parallel. A sweep of smaller
/// runs keeps all cores busy anyway.
const PARALLEL_REQUESTS: usize = 200_000;

/// Parts, each with a recorder of its own, that a parallel simulation is cut into.
const PARTS: usize = 64;

/// Whether the replicas of `cluster` can be simulated apart and `R` be told of
/// them in any order.
pub(super) fn applies<R: Recorder>(cluster: &ClusterSpec, workload: &Workload) -> bool {
    let [pool] = &cluster.pools[..] else {
        return false;
    };
    R::ANY_ORDER
        && !R::WANTS_EVENTS
        && !R::WANTS_BATCHES
        && pool.replicas > 1
        && workload.clients.is_none()
        && cluster.kv_transfer.is_none()
        && !cluster.ends_past_its_limit()
        && router(cluster).measures() == Load::None
}

fn router(cluster: &ClusterSpec) -> Router {
    Router::new(cluster, PoolRole::Mixed, 0, cluster.pools[0].replicas)
}

/// Simulates every replica of the only pool.
pub(super) fn simulate<R: Recorder>(
    cluster: &ClusterSpec,
    requests: &[Request],
    longest_tokens: u32,
    recorder: &mut R,
) -> SimulationTotals {
    let split = Split::new(cluster, requests, longest_tokens, recorder);
    let replicas = cluster.pools[0].replicas;
    let replica_range = |range, recorder: &mut R| {
        let mut ends = Ends::default();
        let mut states = Vec::new();
        for replica in range {
            let own = &split.order[split.of(replica)];
            states.clear();
            states.extend(
                own.iter()
                    .map(|&id| state_of(cluster, id, &requests[id as usize])),
            );
            states = ends.simulate(cluster, replica, longest_tokens, states, recorder);
        }
        ends
    };
    let parts = parts(&split, replicas, requests.len(), recorder);
    let mut ends = Ends::default();
    if parts.is_empty() {
        ends = replica_range(0..replicas, recorder);
    } else {
        let done = parts.into_par_iter().map(|(range, mut part)| {
            let ends = replica_range(range, &mut part);
            (ends, part)
        });
        for (more, part) in done.collect::<Vec<_>>() {
            recorder.merge(part);
            ends.append(more);
        }
    }
    let end_s = ends.end_s.max(split.end_s);
    totals(1, ends.unfinished, end_s, ends.replicas.into_iter())
}

/// Ranges of replicas to be simulated in parallel, and their recorders; none if it
/// is not worth it, or they cannot be merged.
fn parts<R: Recorder>(
    split: &Split,
    replicas: u32,
    requests: usize,
    recorder: &R,
) -> Vec<(Range<u32>, R)> {
    if requests < PARALLEL_REQUESTS {
        return Vec::new();
    }
    let size = replicas.div_ceil(narrow::<u32, _>(PARTS));
    let part = |first| {
        let range: Range<u32> = first..(first + size).min(replicas);
        let own = split.first[range.start as usize]..split.first[range.end as usize];
        Some((range, recorder.part(own.len())?))
    };
    let parts: Option<Vec<_>> = (0..replicas).step_by(size as usize).map(part).collect();
    parts.unwrap_or_default()
}

/// Which replica gets which requests.
struct Split {
    /// Requests by replica, in order of arrival.
    order: Vec<u32>,
    /// Where each replica's requests begin in `order`, and the last one's end.
    first: Vec<usize>,
    /// When the last request was rejected, seconds.
    end_s: f64,
}

impl Split {
    /// Routes all requests, and tells of those that can never run.
    fn new<R: Recorder>(
        cluster: &ClusterSpec,
        requests: &[Request],
        longest_tokens: u32,
        recorder: &mut R,
    ) -> Self {
        let pool = &cluster.pools[0];
        let any = Replica::new(0, pool, cluster.compat, longest_tokens);
        let limit_s = cluster.time_limit_s.unwrap_or(f64::INFINITY);
        let mut router = router(cluster);
        let mut end_s: f64 = 0.0;
        let mut first = vec![0; pool.replicas as usize + 1];
        let mut replicas = Vec::with_capacity(requests.len());
        for (id, request) in (0..).zip(requests) {
            // What comes after the limit stays open, wherever it is.
            let is_routed = cluster.compat == Compat::None && request.arrived_at_s <= limit_s;
            let rejected = is_routed.then(|| reject(cluster, &any, id, request, recorder));
            let replica = match rejected.flatten() {
                Some(_) => {
                    end_s = end_s.max(request.arrived_at_s);
                    NO_REPLICA
                }
                None => {
                    let replica = router.route();
                    first[replica as usize + 1] += 1;
                    replica
                }
            };
            replicas.push(replica);
        }
        for replica in 0..pool.replicas as usize {
            first[replica + 1] += first[replica];
        }
        let mut next = first.clone();
        let mut order = vec![0; first[pool.replicas as usize]];
        for (id, replica) in (0..).zip(replicas) {
            if replica != NO_REPLICA {
                let place = &mut next[replica as usize];
                order[*place] = id;
                *place += 1;
            }
        }
        Self {
            order,
            first,
            end_s,
        }
    }

    /// Where the requests of `replica` are in `order`.
    fn of(&self, replica: u32) -> Range<usize> {
        self.first[replica as usize]..self.first[replica as usize + 1]
    }
}

/// Tells of a request that cannot ever run, if so.
fn reject<R: Recorder>(
    cluster: &ClusterSpec,
    replica: &Replica,
    id: u32,
    request: &Request,
    recorder: &mut R,
) -> Option<RequestOutcome> {
    let state = state_of(cluster, id, request);
    let outcome = match cluster.refuses_prompt(request.prefill_tokens) {
        true => RequestOutcome::RejectedPromptExceedsMaxModelLen,
        false => replica.rejection(&state)?,
    };
    recorder.request(&state.record(0, outcome, request.arrived_at_s));
    Some(outcome)
}

/// What replicas have come to.
#[derive(Default)]
struct Ends {
    replicas: Vec<ReplicaEnd>,
    unfinished: usize,
    end_s: f64,
}

impl Ends {
    /// Simulates one more replica; returns the buffer of its requests.
    fn simulate<R: Recorder>(
        &mut self,
        cluster: &ClusterSpec,
        replica: u32,
        longest_tokens: u32,
        requests: Vec<RequestState>,
        recorder: &mut R,
    ) -> Vec<RequestState> {
        let scope = Scope {
            replica: Some(replica),
            clients: None,
            longest_tokens,
        };
        let mut simulation = Simulation::new(cluster, scope, Requests::All(requests), recorder);
        simulation.run();
        self.unfinished += simulation.unfinished;
        self.end_s = self.end_s.max(simulation.events.now_s());
        self.replicas
            .extend(simulation.replicas.into_iter().map(ReplicaEnd::from));
        simulation.shared.requests
    }

    fn append(&mut self, mut more: Self) {
        self.replicas.append(&mut more.replicas);
        self.unfinished += more.unfinished;
        self.end_s = self.end_s.max(more.end_s);
    }
}
