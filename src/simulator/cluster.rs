//! The simulation loop: arrivals, routing, batches on stages, hand-over from
//! prefill to decode, completion.
//!
//! One loop, one clock. Handling an event may create others, mostly for the same
//! time: an arrival asks for a global schedule, that wakes replicas, a replica
//! forms batches and sends them to its first stage, a stage that is idle takes
//! the next one. The chain is spelled out event by event because its order is
//! part of the model: it decides who goes first when things happen at once. All
//! control flow is here and, where a request changes replicas, in [`hand_over`];
//! policies and accounts are leaves.

mod apart;
mod hand_over;
mod open;

use super::config::{ClusterSpec, Compat, PoolRole};
use super::event::{Event, EventQueue};
use super::open_end::{Marks, Next, Overseer, Until};
use super::pd_transfer::TransferNetwork;
use super::pipeline::STEPS;
use super::pool_work::PoolWork;
use super::recorder::{
    ArrivalFact, BatchFact, EventFact, EventKind, KvUseFact, PrefillFact, Recorder, RequestOutcome,
    SimulationTotals, StageEndFact, StageFact,
};
use super::replica::{Batch, PrefillWork, Replica, ReplicaEnd, StaticGroup};
use super::request::RequestState;
use super::scheduler::global::mixed_pool::{Candidate, MixedPool};
use super::scheduler::global::{Load, Router, python_set};
use super::spent::Spent;
use crate::execution_time::StageRun;
use crate::number::narrow;
use crate::workload::{Request, RequestStream, Workload};

/// Simulates `workload` on `cluster` and tells `recorder` what happens.
///
/// A pure function of its arguments. Every request of the workload is recorded
/// exactly once: completed, rejected, unfinished, or not arrived.
///
/// # Panics
/// If `cluster` has no pool, or two pools without [`ClusterSpec::kv_transfer`].
pub fn simulate<R: Recorder>(
    cluster: &ClusterSpec,
    workload: &Workload,
    recorder: &mut R,
) -> SimulationTotals {
    let longest_tokens = longest_request_tokens(cluster, workload);
    if apart::applies::<R>(cluster, workload) {
        return apart::simulate(cluster, &workload.requests, longest_tokens, recorder);
    }
    let scope = Scope {
        replica: None,
        clients: workload.clients,
        longest_tokens,
    };
    let requests = (0..).zip(&workload.requests);
    let requests = requests.map(|(id, request)| state_of(cluster, id, request));
    let requests = Requests::All(requests.collect());
    let mut simulation = Simulation::new(cluster, scope, requests, recorder);
    simulation.run();
    let unfinished = simulation.unfinished;
    let end_s = simulation.events.now_s();
    let pools = cluster.pools.len();
    let replicas = simulation.replicas.into_iter().map(ReplicaEnd::from);
    totals(pools, unfinished, end_s, replicas)
}

/// Simulates requests of `stream` on `cluster` for as long as `overseer` says, and tells
/// `recorder` what happens.
///
/// A pure function of its arguments. Every request that has arrived is recorded exactly
/// once. The requests and their histories are those of [`simulate`], as far as both go.
///
/// # Panics
/// As [`simulate`].
pub fn observe<R: Recorder>(
    cluster: &ClusterSpec,
    stream: RequestStream,
    overseer: &mut impl Overseer<R>,
    recorder: &mut R,
) -> SimulationTotals {
    let longest = u32::try_from(stream.longest_tokens()).unwrap_or(u32::MAX);
    let longest = cluster.max_request_tokens.unwrap_or(longest);
    let scope = Scope {
        replica: None,
        clients: stream.clients(),
        longest_tokens: longest.min(cluster.max_model_len.unwrap_or(u32::MAX)),
    };
    let mut simulation = Simulation::new(cluster, scope, Requests::Stream(stream), recorder);
    loop {
        let progress = simulation.progress();
        match overseer.look(&progress, simulation.shared.recorder) {
            Next::Until(until) if !progress.is_over => simulation.go_on(until),
            Next::Until(_) | Next::Stop => break,
        }
    }
    simulation.end_open();
    let end_s = simulation.events.now_s();
    let replicas = simulation.replicas.into_iter().map(ReplicaEnd::from);
    totals(cluster.pools.len(), simulation.unfinished, end_s, replicas)
}

/// Tokens of the longest request to plan for.
fn longest_request_tokens(cluster: &ClusterSpec, workload: &Workload) -> u32 {
    let served = workload.requests.iter();
    let served = served.filter(|request| !cluster.refuses_prompt(request.prefill_tokens));
    let longest = served
        .map(|request| request.prefill_tokens + cluster.output_tokens(request))
        .max();
    let longest = cluster.max_request_tokens.or(longest).unwrap_or(0);
    longest.min(cluster.max_model_len.unwrap_or(u32::MAX))
}

/// A request as `cluster` takes it.
fn state_of(cluster: &ClusterSpec, id: u32, request: &Request) -> RequestState {
    RequestState::new(id, request, cluster.output_tokens(request))
}

/// What of a cluster is simulated.
#[derive(Debug, Clone, Copy)]
struct Scope {
    /// This replica only, of the only pool; none: all.
    replica: Option<u32>,
    /// Closed loop with as many clients.
    clients: Option<u32>,
    /// Tokens of the longest request to plan for.
    longest_tokens: u32,
}

/// Where requests come from.
enum Requests {
    /// There are so many.
    All(Vec<RequestState>),
    /// There are more, whenever they are asked for.
    Stream(RequestStream),
}

/// What a run has whose length is open.
struct OpenEnd {
    stream: RequestStream,
    marks: Marks,
    until: Until,
    /// Of the requests that are to end, those that have not.
    left: u32,
    /// The first that was rejected.
    first_rejected: Option<u32>,
}

pub(super) struct Simulation<'a, R> {
    pub(super) shared: Shared<'a, R>,
    pub(super) replicas: Vec<Replica>,
    routers: Vec<Router>,
    /// Routes in place of the routers, if replicas help out in the other phase.
    pub(super) mixed_pool: Option<MixedPool>,
    transfers: Option<TransferNetwork>,
    /// Caches leave layer by layer while their prompts are being computed.
    pub(super) overlaps: bool,
    pub(super) events: EventQueue,
    /// Open loop: next request to arrive. Closed loop: next one to be sent.
    next_request: usize,
    /// When the next request enters, if that is known beforehand, seconds.
    next_arrival_s: f64,
    closed_loop: bool,
    /// Arrived and not yet given to a replica.
    arrived: Vec<u32>,
    /// Replicas that were given requests by the present global schedule.
    touched: Vec<u32>,
    /// Requests that have all their tokens now.
    finished: Vec<u32>,
    /// (request, sender) of the transfers that have drained now.
    drained: Vec<(u32, u32)>,
    /// Compatibility mode: when caches arrive, and where.
    pub(super) wakes: Vec<(f64, u32)>,
    /// Requests that had not ended when nothing more happened.
    unfinished: usize,
    stage_runs: u64,
    open_end: Option<OpenEnd>,
    /// The request before which the next mark stands.
    next_mark: u32,
    /// Whether the run is to be looked at before the next request arrives: there, what has
    /// happened does not depend on shortcuts.
    is_due: bool,
    /// Closed loop: what was to arrive then.
    held_arrival: Option<(u64, u32)>,
    /// Whether the time limit has come.
    past_limit: bool,
    /// Whether nothing more happens in a run whose length is open.
    is_over: bool,
}

/// What the steps of any replica touch.
pub(super) struct Shared<'a, R> {
    pub(super) cluster: &'a ClusterSpec,
    pub(super) recorder: &'a mut R,
    pub(super) requests: Vec<RequestState>,
    /// Number in the cluster of the first replica.
    pub(super) first_replica: u32,
    /// Nothing happens after, seconds; infinite: no limit.
    pub(super) limit_s: f64,
    /// Whether steps may be made before others' events that come earlier.
    pub(super) forecasts: bool,
    /// Formed so far.
    pub(super) batches: u64,
    /// Room for the times between tokens of steps in a row, seconds.
    pub(super) intervals_s: [f64; STEPS],
}

impl<'a, R: Recorder> Simulation<'a, R> {
    fn new(
        cluster: &'a ClusterSpec,
        scope: Scope,
        requests: Requests,
        recorder: &'a mut R,
    ) -> Self {
        assert!(
            cluster.pools.len() == 1 || cluster.kv_transfer.is_some(),
            "two pools need a KV transfer"
        );
        let mut replicas = Vec::new();
        let mut routers = Vec::new();
        for (index, pool) in cluster.pools.iter().enumerate() {
            let first = narrow::<u32, _>(replicas.len());
            let count = scope.replica.map_or(pool.replicas, |_| 1);
            routers.push(Router::new(cluster, pool.role, first, count));
            let replica = |_| Replica::new(index, pool, cluster.compat, scope.longest_tokens);
            replicas.extend((0..count).map(replica));
        }
        let closed_loop = scope.clients.is_some();
        let (mut requests, open_end) = match requests {
            Requests::All(requests) => (requests, None),
            Requests::Stream(stream) => {
                let requests = Vec::with_capacity(stream.expected_requests());
                (requests, Some(OpenEnd::new(stream)))
            }
        };
        if closed_loop {
            for request in &mut requests {
                request.arrived_at_s = f64::NAN;
            }
        }
        // Open-loop arrivals are numbered first, from 1.
        let first_event = 1 + match (closed_loop, &open_end) {
            (true, _) => 0,
            (false, Some(_)) => u64::from(u32::MAX),
            (false, None) => requests.len() as u64,
        };
        let mixed_pool = match (&cluster.pools[..], cluster.disaggregation.mixed_pool) {
            ([prefill, decode], Some(config)) => {
                Some(MixedPool::new(config, prefill.replicas, decode.replicas))
            }
            _ => None,
        };
        let shared = Shared {
            cluster,
            recorder,
            requests,
            first_replica: scope.replica.unwrap_or(0),
            limit_s: cluster.time_limit_s.unwrap_or(f64::INFINITY),
            // The originals' order of events at equal times is that of their creation. And
            // in a closed loop the end of a request is at once the arrival of another:
            // what else happens at that very time would have to be told apart.
            forecasts: R::ANY_ORDER
                && cluster.compat.is_none()
                && !closed_loop
                && replicas.len() > 1
                && mixed_pool.is_none(),
            batches: 0,
            intervals_s: [0.0; STEPS],
        };
        let mut simulation = Self {
            transfers: cluster.kv_transfer.map(|spec| {
                let links = replicas.iter().map(|replica: &Replica| match replica.role {
                    PoolRole::Decode => [spec.receiver_bytes_per_s; 2],
                    PoolRole::Prefill | PoolRole::Mixed => [spec.sender_bytes_per_s; 2],
                });
                TransferNetwork::new(spec, links, cluster.transfer_paths.clone())
            }),
            overlaps: cluster.overlaps(),
            events: EventQueue::new(replicas.len(), first_event, !cluster.compat.is_none()),
            shared,
            replicas,
            routers,
            mixed_pool,
            next_request: 0,
            next_arrival_s: f64::INFINITY,
            closed_loop,
            arrived: Vec::new(),
            touched: Vec::new(),
            finished: Vec::new(),
            drained: Vec::new(),
            wakes: Vec::new(),
            unfinished: 0,
            stage_runs: 0,
            next_mark: open_end.as_ref().map_or(u32::MAX, |_| 0),
            open_end,
            is_due: false,
            held_arrival: None,
            past_limit: false,
            is_over: false,
        };
        for replica in 0..simulation.replicas.len() {
            let is_used = simulation.can_be_pipelined(&simulation.replicas[replica]);
            simulation.replicas[replica].pipeline.is_used = is_used;
        }
        for _ in 0..scope.clients.unwrap_or(0) {
            simulation.send_next_request();
        }
        simulation
    }

    /// Closed loop: a client sends its next request now.
    fn send_next_request(&mut self) {
        self.draw_if_needed();
        if self.next_request < self.shared.requests.len() {
            let request = narrow::<u32, _>(self.next_request);
            self.shared.requests[self.next_request].arrived_at_s = self.events.now_s();
            self.next_request += 1;
            self.events.push_now(Event::Arrival { request });
        }
    }

    /// When the next request enters, if that is known beforehand.
    #[inline]
    pub(super) fn next_arrival_s(&self) -> f64 {
        self.next_arrival_s
    }

    fn look_up_next_arrival(&mut self) {
        self.draw_if_needed();
        self.next_arrival_s = match self.shared.requests.get(self.next_request) {
            Some(request) if !self.closed_loop => request.arrived_at_s,
            _ => f64::INFINITY,
        };
    }

    fn run(&mut self) {
        self.look_up_next_arrival();
        self.make_events();
        self.catch_up_with_limit();
        let outcome = if self.past_limit || self.shared.limit_s.is_finite() {
            RequestOutcome::UnfinishedTimeLimit
        } else {
            RequestOutcome::UnfinishedStuck
        };
        self.close_rest(outcome);
    }

    /// Makes events happen until there are none, the time limit comes, or a request arrives
    /// before which the run is to be looked at; whether it is for that.
    fn make_events(&mut self) -> bool {
        let limit_s = self.shared.limit_s;
        loop {
            let arrival_s = self.next_arrival_s();
            let event_s = self.events.next_time_s();
            let next_s = arrival_s.min(event_s);
            if next_s == f64::INFINITY || self.past_limit {
                return false;
            }
            if next_s > limit_s {
                self.past_limit = true;
                // Vidur executes the first event past the limit.
                if self.shared.cluster.compat == Compat::None {
                    self.events.stop_at(limit_s);
                    return false;
                }
            }
            // At equal times arrivals go first, as if created before the start.
            let next = if arrival_s <= event_s {
                self.events.advance(arrival_s);
                if self.is_due {
                    return true;
                }
                let request = narrow::<u32, _>(self.next_request);
                self.next_request += 1;
                self.look_up_next_arrival();
                Some((u64::from(request) + 1, Event::Arrival { request }))
            } else {
                self.events.pop()
            };
            match next {
                Some((id, Event::Arrival { request })) if self.is_due => {
                    self.held_arrival = Some((id, request));
                    return true;
                }
                Some((id, event)) => self.handle(id, event),
                None => {}
            }
        }
    }

    /// Brings what is told of requests that have not ended up to date: their cohorts
    /// count for them.
    fn tell_unfinished(&mut self) {
        for replica in &self.replicas {
            replica.tell_unfinished(&mut self.shared.requests);
        }
    }

    /// Ends what has not ended.
    fn close_rest(&mut self, outcome: RequestOutcome) {
        self.tell_unfinished();
        for id in 0..self.shared.requests.len() {
            if self.shared.requests[id].outcome.is_none() {
                self.unfinished += 1;
                let entered = id < self.next_request;
                let outcome = if entered {
                    outcome
                } else {
                    RequestOutcome::NotArrived
                };
                self.close(narrow::<u32, _>(id), outcome);
            }
        }
    }

    #[inline(always)]
    fn handle(&mut self, id: u64, event: Event) {
        let batch_id = match R::WANTS_EVENTS {
            true => self.batch_of(event),
            false => None,
        };
        let started = match event {
            Event::Arrival { request } => {
                self.arrive(request);
                None
            }
            Event::GlobalSchedule => {
                self.schedule_globally();
                None
            }
            Event::ReplicaSchedule { replica } => {
                self.schedule_replica(replica);
                None
            }
            Event::StageArrival {
                replica,
                stage,
                slot,
            } => {
                let state = &mut self.replicas[replica as usize];
                state.stages[stage as usize].queue.push_back(slot);
                self.events
                    .push_now(Event::StageSchedule { replica, stage });
                None
            }
            Event::StageSchedule { replica, stage } => self.schedule_stage(replica, stage),
            Event::StageEnd {
                replica,
                stage,
                slot,
            } => {
                self.end_stage(replica, stage, slot);
                None
            }
            Event::PipelineEnd { replica } => {
                self.run_pipeline(replica);
                None
            }
            Event::BatchEnd { replica, slot } => {
                self.end_batch(replica, slot);
                None
            }
            Event::LayerComputed {
                replica,
                stage,
                slot,
            } => {
                self.first_layer_computed(replica, stage, slot);
                None
            }
            Event::TransferDue { generation } => {
                self.advance_transfers(generation);
                None
            }
            Event::KvArrived { request } => {
                self.receive_kv(request);
                None
            }
        };
        if R::WANTS_EVENTS {
            self.tell_event(id, event, batch_id.or(started));
        }
    }

    /// Number of the batch that an event is about.
    fn batch_of(&self, event: Event) -> Option<u64> {
        match event {
            Event::StageArrival { replica, slot, .. }
            | Event::LayerComputed { replica, slot, .. }
            | Event::StageEnd { replica, slot, .. }
            | Event::BatchEnd { replica, slot } => {
                Some(self.replicas[replica as usize].batches[slot as usize].id)
            }
            _ => None,
        }
    }

    fn tell_event(&mut self, id: u64, event: Event, batch_id: Option<u64>) {
        let (kind, replica, stage, request) = match event {
            Event::Arrival { request } => (EventKind::RequestArrival, None, None, Some(request)),
            Event::GlobalSchedule => (EventKind::GlobalSchedule, None, None, None),
            Event::ReplicaSchedule { replica } => {
                (EventKind::ReplicaSchedule, Some(replica), None, None)
            }
            Event::StageArrival { replica, stage, .. } => (
                EventKind::BatchStageArrival,
                Some(replica),
                Some(stage),
                None,
            ),
            Event::StageSchedule { replica, stage } => (
                EventKind::ReplicaStageSchedule,
                Some(replica),
                Some(stage),
                None,
            ),
            Event::StageEnd { replica, stage, .. } => {
                (EventKind::BatchStageEnd, Some(replica), Some(stage), None)
            }
            Event::PipelineEnd { replica } | Event::BatchEnd { replica, .. } => {
                (EventKind::BatchEnd, Some(replica), None, None)
            }
            Event::LayerComputed { replica, stage, .. } => {
                (EventKind::LayerComputed, Some(replica), Some(stage), None)
            }
            Event::TransferDue { .. } => (EventKind::KvTransferDrained, None, None, None),
            Event::KvArrived { request } => (EventKind::KvArrival, None, None, Some(request)),
        };
        self.shared.recorder.event(&EventFact {
            time_s: self.events.now_s(),
            id,
            kind,
            replica,
            stage,
            batch_id,
            request_id: request,
        });
    }

    // Arrival and routing.

    #[inline]
    fn arrive(&mut self, id: u32) {
        if id == self.next_mark {
            self.mark(id);
        }
        let request = &self.shared.requests[id as usize];
        self.shared.recorder.request_arrived(&ArrivalFact {
            request_id: id,
            time_s: self.events.now_s(),
            prefill_tokens: request.prefill_tokens,
            decode_tokens: request.decode_tokens,
        });
        if self.is_undisturbed() {
            // A global schedule of this one alone: others that arrived would be waiting
            // for theirs.
            debug_assert!(self.arrived.is_empty());
            self.look_up_queues();
            if let Some(replica) = self.route(id) {
                self.wake(std::iter::once(replica));
            }
        } else {
            self.arrived.push(id);
            self.events.push_now(Event::GlobalSchedule);
        }
    }

    /// Whether what would be scheduled for now, after all that is, may be done at
    /// once: nothing is, nobody wants to be told of events, and the simulation does
    /// not end with a certain one.
    #[inline]
    fn is_undisturbed(&self) -> bool {
        !R::WANTS_EVENTS && !self.shared.cluster.ends_past_its_limit() && self.is_quiet()
    }

    /// Gives the requests that have arrived to replicas and wakes those.
    fn schedule_globally(&mut self) {
        if self.arrived.is_empty() {
            return;
        }
        self.look_up_queues();
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut touched = std::mem::take(&mut self.touched);
        touched.extend(arrived.drain(..).filter_map(|id| self.route(id)));
        self.arrived = arrived;
        match self.shared.cluster.compat {
            Compat::None => touched.sort_unstable(),
            _ => touched = python_set::iteration_order(&touched),
        }
        touched.dedup();
        self.wake(touched.drain(..));
        self.touched = touched;
    }

    /// Has the router count the requests in the queues, if that is what it looks at.
    fn look_up_queues(&mut self) {
        if self.routers[0].measures() == Load::WaitingRequests {
            let replicas = &self.replicas;
            self.routers[0]
                .look_up(|replica| replicas[replica as usize].queues.waiting.len() as u64);
        }
    }

    /// Has `replicas` look at their queues, after all that is scheduled for now.
    #[inline]
    fn wake(&mut self, replicas: impl ExactSizeIterator<Item = u32>) {
        if replicas.len() == 1 && self.is_undisturbed() {
            return replicas.for_each(|replica| self.schedule_replica(replica));
        }
        replicas.for_each(|replica| self.events.push_now(Event::ReplicaSchedule { replica }));
    }

    /// Gives a request to a replica, unless it can never run: which.
    #[inline(always)]
    fn route(&mut self, id: u32) -> Option<u32> {
        if self.shared.cluster.compat == Compat::None
            && let Some(outcome) = self.rejection(id)
        {
            self.close(id, outcome);
            if self.closed_loop {
                self.send_next_request();
            }
            return None;
        }
        let replica = self.route_prompt(id);
        self.catch_up(replica);
        self.shared.requests[id as usize].prefill_replica = replica;
        if self.shared.cluster.compat.is_alibaba_cloud() && self.routers.len() > 1 {
            self.shared.requests[id as usize].decode_replica = self.route_in(1);
        }
        self.shared.recorder.request_routed(id, replica);
        self.account(0, id, replica, true);
        let queues = &mut self.replicas[replica as usize].queues;
        queues.enqueue(id, &mut self.shared.requests);
        Some(replica)
    }

    #[inline]
    fn route_prompt(&mut self, id: u32) -> u32 {
        let (replicas, request) = (&self.replicas, &self.shared.requests[id as usize]);
        let Some(pool) = &mut self.mixed_pool else {
            return self.route_in(0);
        };
        let replica = pool.route_prompt(u64::from(request.prefill_tokens), |replica| {
            let state = &replicas[replica as usize];
            let too_long = |longest| request.prefill_tokens > longest;
            Candidate {
                is_able: !state.policy.longest_prompt().is_some_and(too_long),
                ..hand_over::candidate(state)
            }
        });
        self.note_mixing(replica);
        replica
    }

    /// Replica of a pool for the next request, by the pool's router.
    #[inline(always)]
    fn route_in(&mut self, pool: usize) -> u32 {
        if self.routers[pool].measures() == Load::KvBlocks {
            self.find_least_kv(pool);
        }
        self.routers[pool].route()
    }

    /// Has the router of a pool find the replica with the fewest KV cache blocks in use
    /// or promised. What it knows of each is no more than there are: a forecast only
    /// takes blocks, and whenever some may have become free it has been told
    /// ([`Self::note_freed`]). So it need only be told of the one it would choose, until
    /// that stays.
    fn find_least_kv(&mut self, pool: usize) {
        while let Some(replica) = self.routers[pool].least() {
            self.bring_up_to_date(replica);
            let blocks = self.replicas[replica as usize].queues.load_blocks();
            if !self.routers[pool].set(replica, blocks) {
                break;
            }
        }
        debug_assert_eq!(self.routers[pool].least(), self.least_kv_of_all(pool));
    }

    /// The same by looking at all of them, which changes nothing.
    fn least_kv_of_all(&self, pool: usize) -> Option<u32> {
        let of_pool = |replica: &u32| self.replicas[*replica as usize].pool == pool;
        let all = (0..narrow::<u32, _>(self.replicas.len())).filter(of_pool);
        all.min_by_key(|&replica| self.present_load_blocks(replica))
    }

    /// KV cache blocks may have become free on `replica`, or fewer be promised.
    #[inline]
    fn note_freed(&mut self, replica: u32) {
        let state = &self.replicas[replica as usize];
        let router = &mut self.routers[state.pool];
        if router.measures() == Load::KvBlocks {
            router.lower(replica, state.queues.load_blocks());
        }
    }

    /// Why a request can never run here, if so.
    #[inline]
    fn rejection(&self, id: u32) -> Option<RequestOutcome> {
        let request = &self.shared.requests[id as usize];
        if self.shared.cluster.refuses_prompt(request.prefill_tokens) {
            return Some(RequestOutcome::RejectedPromptExceedsMaxModelLen);
        }
        let mut first_replica = 0;
        for pool in &self.shared.cluster.pools {
            let replica = &self.replicas[first_replica];
            if let Some(outcome) = replica.rejection(request) {
                return Some(outcome);
            }
            first_replica += pool.replicas as usize;
        }
        None
    }

    /// Keeps the router's view of a replica's load up to date.
    #[inline]
    fn account(&mut self, pool: usize, id: u32, replica: u32, arrives: bool) {
        if self.mixed_pool.is_some() {
            return;
        }
        let router = &mut self.routers[pool];
        let request = &self.shared.requests[id as usize];
        let amount = match router.measures() {
            Load::None | Load::KvBlocks => return,
            // Looked up afresh for each schedule; counts those routed in it.
            Load::WaitingRequests if !arrives => return,
            Load::OutstandingRequests | Load::WaitingRequests => 1,
            Load::PendingPrefillTokens => u64::from(request.prefill_tokens),
        };
        if arrives {
            router.add(replica, amount);
        } else {
            router.remove(replica, amount);
        }
    }

    /// A prompt is done on `replica`, for routing.
    #[inline]
    fn account_first_token(&mut self, id: u32, replica: u32) {
        if let Some(pool) = &mut self.mixed_pool {
            let tokens = self.shared.requests[id as usize].prefill_tokens;
            pool.prompt_done(replica, u64::from(tokens));
            self.note_mixing(replica);
        } else if self.routers[0].measures() == Load::PendingPrefillTokens {
            self.account(0, id, replica, false);
        }
    }

    /// A request has left `replica` of `pool`, where that is what counts.
    #[inline]
    fn account_outstanding(&mut self, pool: usize, id: u32, replica: u32) {
        if self.routers[pool].measures() != Load::PendingPrefillTokens {
            self.account(pool, id, replica, false);
        }
    }

    // Batches and stages.

    /// Forms a batch if the replica has a free slot and something to run; returns
    /// its slot.
    #[inline(always)]
    pub(super) fn form_batch(&mut self, replica: u32) -> Option<u32> {
        let now_s = self.events.now_s();
        let state = &mut self.replicas[replica as usize];
        let formed = state.form_batch(self.shared.batches, &mut self.shared.requests, now_s);
        self.note_freed(replica);
        let slot = formed?;
        if R::WANTS_BATCHES {
            let state = &mut self.replicas[replica as usize];
            state.batches[slot as usize].compose();
            self.shared
                .recorder
                .batch_formed(replica, self.shared.batches);
        }
        self.shared.batches += 1;
        Some(slot)
    }

    /// Forms batches while the replica has free slots and something to run.
    #[inline]
    fn schedule_replica(&mut self, replica: u32) {
        if self.replicas[replica as usize].pipeline.is_used {
            self.catch_up(replica);
            self.refill(replica);
            return self.announce(replica);
        }
        let mut formed = false;
        while let Some(slot) = self.form_batch(replica) {
            formed = true;
            self.events.push_now(Event::StageArrival {
                replica,
                stage: 0,
                slot,
            });
        }
        if R::WANTS_BATCHES && formed {
            self.tell_kv_use(replica);
        }
    }

    pub(super) fn tell_kv_use(&mut self, replica: u32) {
        let blocks = &self.replicas[replica as usize].queues.blocks;
        self.shared.recorder.kv_use(&KvUseFact {
            time_s: self.events.now_s(),
            replica,
            used_blocks: blocks.used(),
            total_blocks: blocks.total(),
        });
    }

    /// An idle stage takes the next batch of its queue. Returns the batch's number.
    pub(super) fn schedule_stage(&mut self, replica: u32, stage: u32) -> Option<u64> {
        let current = &mut self.replicas[replica as usize].stages[stage as usize];
        if current.busy {
            return None;
        }
        let slot = current.queue.pop_front()?;
        let time_s = self.start_stage(replica, stage, slot);
        self.push_stage_end(self.events.now_s() + time_s, replica, stage, slot);
        if self.overlaps {
            self.overlap(replica, stage, slot, time_s);
        }
        Some(self.replicas[replica as usize].batches[slot as usize].id)
    }

    /// Has the queue tell when a stage has executed a batch.
    pub(super) fn push_stage_end(&mut self, at_s: f64, replica: u32, stage: u32, slot: u32) {
        let end = Event::StageEnd {
            replica,
            stage,
            slot,
        };
        self.events.push(at_s, end);
    }

    /// A stage starts to execute a batch; returns how long it will take, in seconds.
    pub(super) fn start_stage(&mut self, replica: u32, stage: u32, slot: u32) -> f64 {
        let now_s = self.events.now_s();
        let state = &mut self.replicas[replica as usize];
        state.stages[stage as usize].busy = true;
        let batch = &mut state.batches[slot as usize];
        count_waiting(batch, stage, &mut self.shared.requests, now_s);
        let cost = &self.shared.cluster.pools[state.pool].cost;
        let run = StageRun {
            replica: self.shared.first_replica + replica,
            nth_batch: batch.nth,
            stage,
        };
        let time = cost.stage_time_of(run, &batch.shape);
        batch.spent.total_s += time.total_s();
        batch.spent.model_s += time.model_s;
        let ends_at_s = now_s + time.total_s();
        state.busy.add(ends_at_s - now_s, 1);
        if R::WANTS_BATCHES {
            self.shared.recorder.stage_started(&StageFact {
                stage_run_id: self.stage_runs,
                batch_id: batch.id,
                replica,
                stage,
                started_at_s: now_s,
                time,
                shape: &batch.shape,
                requests: &batch.composition,
            });
        }
        self.stage_runs += 1;
        time.total_s()
    }

    /// A stage has executed a batch.
    pub(super) fn leave_stage(&mut self, replica: u32, stage: u32, slot: u32) {
        let state = &mut self.replicas[replica as usize];
        state.stages[stage as usize].busy = false;
        let batch = &mut state.batches[slot as usize];
        batch.last_stage_at_s = self.events.now_s();
        if R::WANTS_BATCHES {
            self.shared.recorder.stage_ended(&StageEndFact {
                batch_id: batch.id,
                replica,
                stage,
                ended_at_s: self.events.now_s(),
            });
        }
    }

    fn end_stage(&mut self, replica: u32, stage: u32, slot: u32) {
        self.leave_stage(replica, stage, slot);
        let stages = self.replicas[replica as usize].stages.len();
        let last = stage as usize + 1 == stages;
        if self.overlaps && !last {
            self.stage_computed(replica, stage, slot);
        }
        self.events
            .push_now(Event::StageSchedule { replica, stage });
        self.events.push_now(if last {
            Event::BatchEnd { replica, slot }
        } else {
            Event::StageArrival {
                replica,
                stage: stage + 1,
                slot,
            }
        });
    }

    fn end_batch(&mut self, replica: u32, slot: u32) {
        let batch = &mut self.replicas[replica as usize].batches[slot as usize];
        batch.advance_decodes(
            self.events.now_s(),
            &mut self.shared.requests,
            self.shared.recorder,
        );
        self.complete_batch(replica, slot);
        self.schedule_after_batch(replica);
    }

    /// What a batch has come to, its decodes' tokens counted.
    fn complete_batch(&mut self, replica: u32, slot: u32) {
        let held = self.complete_members(replica, slot);
        self.take_apart(replica, slot, held);
    }

    /// Ends what has all its tokens in a batch, and its prompt chunks.
    #[inline(always)]
    pub(super) fn complete_members(&mut self, replica: u32, slot: u32) -> Held {
        let mut held = Held::default();
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        let has_prefills = !batch.prefills.is_empty();
        if batch.decodes.may_have_finished() {
            let mut finished = std::mem::take(&mut self.finished);
            (batch.decodes).take_finished(&mut self.shared.requests, &mut finished);
            for id in finished.drain(..) {
                self.complete(id, replica, &mut held);
            }
            self.finished = finished;
        }
        if has_prefills {
            self.end_chunks(replica, slot, &mut held);
        }
        held
    }

    /// Ends the prompt chunks of a batch.
    #[inline]
    fn end_chunks(&mut self, replica: u32, slot: u32, held: &mut Held) {
        let state = &mut self.replicas[replica as usize];
        let keeps_order = state.policy.keeps_order();
        let batch = &mut state.batches[slot as usize];
        let spent = batch.spent;
        let mut prefills = std::mem::take(&mut batch.prefills);
        let mut unfinished = 0;
        for work in prefills.drain(..) {
            if self.end_chunk(work, spent) {
                self.end_prefill(replica, slot, work.request, held);
            } else if !keeps_order {
                // Back to the front, in order: first come, first served.
                let queues = &mut self.replicas[replica as usize].queues;
                queues.prefilling.insert(unfinished, work.request);
                unfinished += 1;
            }
        }
        self.replicas[replica as usize].batches[slot as usize].prefills = prefills;
    }

    /// Frees a batch's slot, and what waited for the batch to end goes on.
    #[inline(always)]
    pub(super) fn take_apart(&mut self, replica: u32, slot: u32, held: Held) {
        self.park_decodes(replica, slot, held);
        if R::WANTS_BATCHES {
            self.tell_batch(replica, slot);
        }
        if self.replicas[replica as usize].role == PoolRole::Decode {
            self.admit_transfers(replica);
        }
        self.settle_transfers();
    }

    /// What a replica does after a batch: look for the next one.
    pub(super) fn schedule_after_batch(&mut self, replica: u32) {
        self.events.push_now(Event::ReplicaSchedule { replica });
        for (at_s, replica) in std::mem::take(&mut self.wakes) {
            self.events.push(at_s, Event::ReplicaSchedule { replica });
        }
    }

    /// Puts a batch's decodes where the next batch finds them, and frees its slot.
    #[inline]
    fn park_decodes(&mut self, replica: u32, slot: u32, held: Held) {
        let now_s = self.events.now_s();
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        batch.in_flight = false;
        state.running_batches -= 1;
        let queues = &mut state.queues;
        if state.policy.keeps_order() && state.role != PoolRole::Prefill {
            let goes_on = |id: &&u32| self.shared.requests[**id as usize].outcome.is_none();
            queues.preempted.extend(batch.order.iter().filter(goes_on));
        }
        if !state.policy.is_static() {
            return queues.ready.put(&mut batch.decodes);
        }
        let earlier = Held {
            blocks: std::mem::take(&mut batch.held_blocks),
            requests: std::mem::take(&mut batch.held_requests),
        };
        if batch.decodes.is_empty() {
            // Vidur gives back only what the last step's members held.
            let all = match queues.compat {
                Compat::None => held.plus(earlier),
                _ => held,
            };
            queues.blocks.give(all.blocks, now_s);
            queues.admitted -= all.requests;
            self.note_freed(replica);
            return;
        }
        let all = held.plus(earlier);
        let empty = queues.ready.empty_cohort();
        queues.groups.push_back(StaticGroup {
            decodes: std::mem::replace(&mut batch.decodes, empty),
            held_blocks: all.blocks,
            held_requests: all.requests,
        });
    }

    fn tell_batch(&mut self, replica: u32, slot: u32) {
        let state = &self.replicas[replica as usize];
        let batch = &state.batches[slot as usize];
        self.shared.recorder.batch_ended(&BatchFact {
            batch_id: batch.id,
            replica,
            scheduled_at_s: batch.scheduled_at_s,
            completed_at_s: self.events.now_s(),
            tokens: batch.shape.new_tokens(),
            prefill_tokens: batch.shape.prefill_tokens(),
            requests: &batch.composition,
            used_blocks: state.queues.blocks.used(),
            total_blocks: state.queues.blocks.total(),
        });
        self.tell_kv_use(replica);
    }

    /// A prompt chunk has been processed. Returns whether it was the last one.
    #[inline]
    fn end_chunk(&mut self, work: PrefillWork, spent: Spent) -> bool {
        let request = &mut self.shared.requests[work.request as usize];
        request.prefilled += work.tokens;
        request.spent.add(spent);
        request.last_stage_at_s = self.events.now_s();
        request.prefilled == request.prefill_target
    }

    /// A prompt is complete (for the first time, or again after a restart) and
    /// emits an output token.
    #[inline]
    fn end_prefill(&mut self, replica: u32, slot: u32, id: u32, held: &mut Held) {
        let now_s = self.events.now_s();
        let request = &mut self.shared.requests[id as usize];
        request.generated += 1;
        if request.generated > 1 {
            let interval_s = now_s - request.last_token_at_s;
            request.note_interval(interval_s);
            self.shared.recorder.token_intervals(interval_s, 1);
        } else if request.prefill_completed_at_s.is_nan() {
            request.prefill_completed_at_s = now_s;
            self.shared.recorder.prefill_completed(&PrefillFact {
                request_id: id,
                time_s: now_s,
                prefill_tokens: request.prefill_tokens,
            });
        }
        request.last_token_at_s = now_s;
        let finished = request.generated == request.decode_tokens;
        let first_token = request.generated == 1;
        if first_token {
            self.account_first_token(id, replica);
        }
        let prefills_only = self.replicas[replica as usize].role == PoolRole::Prefill;
        if finished {
            self.complete(id, replica, held);
        } else if prefills_only && self.shared.cluster.compat.is_alibaba_cloud() {
            self.hand_over_at_once(id);
        } else if self.decodes_here(id, replica) {
            let request = &mut self.shared.requests[id as usize];
            request.decode_replica = replica;
            if request.decode_arrived_at_s.is_nan() {
                request.decode_arrived_at_s = request.prefill_completed_at_s;
            }
            self.replicas[replica as usize].batches[slot as usize]
                .decodes
                .join(id, &mut self.shared.requests);
        }
    }

    // The end of a request.

    /// All tokens generated on `replica`.
    #[inline(always)]
    fn complete(&mut self, id: u32, replica: u32, held: &mut Held) {
        let state = &mut self.replicas[replica as usize];
        let pool = state.pool;
        if state.policy.is_static() {
            held.blocks += std::mem::take(&mut self.shared.requests[id as usize].blocks);
            held.requests += 1;
        } else {
            self.release(id, replica);
        }
        self.account_outstanding(pool, id, replica);
        if let Some(pool) = &mut self.mixed_pool
            && self.shared.requests[id as usize].decode_replica == replica
        {
            pool.decode_done(replica);
            self.note_mixing(replica);
        }
        self.shared.requests[id as usize].completed_at_s = self.events.now_s();
        self.close(id, RequestOutcome::Completed);
        if self.closed_loop {
            self.send_next_request();
        }
    }

    /// Gives a request's blocks on `replica` back.
    #[inline(always)]
    fn release(&mut self, id: u32, replica: u32) {
        let now_s = self.events.now_s();
        let queues = &mut self.replicas[replica as usize].queues;
        queues.release(id, &mut self.shared.requests, now_s);
        self.note_freed(replica);
    }

    #[inline(always)]
    fn close(&mut self, id: u32, outcome: RequestOutcome) {
        // One that is stuck never ends.
        let ended_at_s = match outcome {
            RequestOutcome::UnfinishedStuck => f64::NAN,
            _ => self.events.now_s(),
        };
        let request = &mut self.shared.requests[id as usize];
        debug_assert!(request.outcome.is_none(), "request {id} recorded twice");
        request.outcome = Some(outcome);
        let first_replica = self.shared.first_replica;
        (self.shared.recorder).request(&request.record(first_replica, outcome, ended_at_s));
        if let Some(open_end) = &mut self.open_end {
            self.is_due |= open_end.has_ended(id, outcome);
        }
    }
}

/// What all `replicas` of the cluster, in order, have come to at `end_s`.
fn totals(
    pools: usize,
    unfinished: usize,
    end_s: f64,
    replicas: impl ExactSizeIterator<Item = ReplicaEnd>,
) -> SimulationTotals {
    let mut totals = SimulationTotals {
        end_s,
        pools: vec![PoolWork::default(); pools],
        ..SimulationTotals::default()
    };
    let count = replicas.len() as f64;
    let mut stages = 0;
    let mut busy_s = 0.0;
    for mut replica in replicas {
        let pool = &mut totals.pools[replica.pool];
        *pool = pool.plus(replica.work);
        stages += replica.stages;
        busy_s += replica.work.busy_s;
        totals.preemptions += replica.preemptions;
        totals.kv_cache_utilization += replica.blocks.utilization(end_s);
        if unfinished == 0 && !replica.has_waiting {
            totals.leaked_blocks += replica.blocks.used();
        }
    }
    totals.kv_cache_utilization /= count;
    if end_s > 0.0 {
        totals.gpu_busy_fraction = busy_s / (stages as f64 * end_s);
    }
    totals
}

/// Blocks of ended members of a static batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    blocks: u64,
    requests: u32,
}

impl Held {
    fn plus(self, other: Self) -> Self {
        Self {
            blocks: self.blocks + other.blocks,
            requests: self.requests + other.requests,
        }
    }
}

/// Adds the time a batch has waited for `stage`, which starts now, to its
/// members' accounts.
#[inline]
pub(super) fn count_waiting(
    batch: &mut Batch,
    stage: u32,
    requests: &mut [RequestState],
    now_s: f64,
) {
    if stage > 0 {
        batch.spent.waiting_s += now_s - batch.last_stage_at_s;
        return;
    }
    if !batch.decodes.is_empty() {
        batch.decodes_waited_s = now_s - batch.decodes.last_token_at_s();
    }
    for work in &batch.prefills {
        let request = &mut requests[work.request as usize];
        if !request.last_stage_at_s.is_nan() {
            request.spent.waiting_s += now_s - request.last_stage_at_s;
        }
    }
}
