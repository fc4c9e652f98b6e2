//! The simulation loop: arrivals, routing, batches on stages, hand-over from
//! prefill to decode, completion.
//!
//! One loop, one clock. Every event ends in at most two follow-ups: a replica
//! forms batches while it has free slots, and an idle stage takes the next batch
//! of its queue. All control flow is here; policies and accounts are leaves.

use super::cohort::Executed;
use super::config::{ClusterSpec, PoolRole};
use super::event::{Event, EventQueue};
use super::pd_transfer::TransferNetwork;
use super::recorder::{Recorder, RequestOutcome, RequestRecord, SimulationTotals};
use super::replica::{PoolWork, PrefillWork, Replica};
use super::request::{NO_REPLICA, RequestState};
use super::scheduler::global::{Load, Router};
use crate::workload::Workload;

/// Simulates `workload` on `cluster` and tells `recorder` what happens.
///
/// A pure function of its arguments. Every request of the workload is recorded
/// exactly once: completed, rejected, or unfinished at the time limit.
///
/// # Panics
/// If `cluster` has no pool, or two pools without [`ClusterSpec::kv_transfer`].
pub fn simulate<R: Recorder>(
    cluster: &ClusterSpec,
    workload: &Workload,
    recorder: &mut R,
) -> SimulationTotals {
    let mut simulation = Simulation::new(cluster, workload, recorder);
    simulation.run();
    simulation.totals()
}

struct Simulation<'a, R> {
    cluster: &'a ClusterSpec,
    recorder: &'a mut R,
    requests: Vec<RequestState>,
    replicas: Vec<Replica>,
    routers: Vec<Router>,
    transfers: Option<TransferNetwork>,
    events: EventQueue,
    /// Open loop: next request to arrive. Closed loop: next one to be sent.
    next_request: usize,
    closed_loop: bool,
    now_s: f64,
    /// Requests not yet recorded.
    open_requests: usize,
    /// Replicas that got requests at this very time: they form batches once all
    /// simultaneous arrivals are in.
    received: Vec<u32>,
}

impl<'a, R: Recorder> Simulation<'a, R> {
    fn new(cluster: &'a ClusterSpec, workload: &Workload, recorder: &'a mut R) -> Self {
        assert!(
            cluster.pools.len() == 1 || cluster.kv_transfer.is_some(),
            "two pools need a KV transfer"
        );
        let mut replicas = Vec::new();
        let mut routers = Vec::new();
        for (index, pool) in cluster.pools.iter().enumerate() {
            routers.push(Router::new(
                cluster.global_scheduler,
                pool.role,
                replicas.len() as u32,
                pool.replicas,
                cluster.seed,
            ));
            let stages = pool.cost.stages();
            replicas.extend((0..pool.replicas).map(|_| Replica::new(index, pool, stages)));
        }
        let mut requests: Vec<_> = workload.requests.iter().map(RequestState::new).collect();
        if workload.clients.is_some() {
            for request in &mut requests {
                request.arrived_at_s = f64::NAN;
            }
        }
        let mut simulation = Self {
            transfers: cluster
                .kv_transfer
                .map(|spec| TransferNetwork::new(spec, replicas.len())),
            open_requests: requests.len(),
            closed_loop: workload.clients.is_some(),
            cluster,
            recorder,
            requests,
            replicas,
            routers,
            events: EventQueue::default(),
            next_request: 0,
            now_s: 0.0,
            received: Vec::new(),
        };
        for _ in 0..workload.clients.unwrap_or(0) {
            simulation.send_next_request();
        }
        simulation
    }

    /// Closed loop: a client sends its next request now.
    fn send_next_request(&mut self) {
        if self.next_request < self.requests.len() {
            let request = self.next_request as u32;
            self.requests[self.next_request].arrived_at_s = self.now_s;
            self.next_request += 1;
            self.events.push(self.now_s, Event::Arrival { request });
        }
    }

    fn run(&mut self) {
        let limit_s = self.cluster.time_limit_s.unwrap_or(f64::INFINITY);
        while self.open_requests > 0 {
            let arrival_s = match self.requests.get(self.next_request) {
                Some(request) if !self.closed_loop => request.arrived_at_s,
                _ => f64::INFINITY,
            };
            let event_s = self.events.next_time_s();
            if arrival_s.min(event_s) > limit_s {
                break;
            }
            // At equal times arrivals go first, as if created before the start.
            if arrival_s <= event_s {
                self.now_s = arrival_s;
                let request = self.next_request as u32;
                self.next_request += 1;
                self.arrive(request);
            } else if let Some((time_s, event)) = self.events.pop() {
                self.now_s = time_s;
                self.handle(event);
            }
            if !self.received.is_empty() && !self.more_arrive_now() {
                let mut received = std::mem::take(&mut self.received);
                for replica in received.drain(..) {
                    self.dispatch(replica);
                }
                self.received = received;
            }
        }
        self.report_unfinished();
    }

    /// Whether another request arrives at the present time.
    fn more_arrive_now(&self) -> bool {
        let open_loop = !self.closed_loop
            && self
                .requests
                .get(self.next_request)
                .is_some_and(|request| request.arrived_at_s <= self.now_s);
        open_loop || self.events.next_is_arrival_at(self.now_s)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival { request } => self.arrive(request),
            Event::StageEnd {
                replica,
                stage,
                slot,
            } => self.end_stage(replica, stage, slot),
            Event::TransferDrained { generation } => self.drain_transfers(generation),
            Event::KvArrived { request } => self.receive_kv(request),
        }
    }

    // Arrival and routing.

    fn arrive(&mut self, id: u32) {
        if let Some(outcome) = self.rejection(id) {
            self.close(id, outcome);
            if self.closed_loop {
                self.send_next_request();
            }
            return;
        }
        let replica = self.routers[0].route();
        let request = &mut self.requests[id as usize];
        request.prefill_replica = replica;
        self.account(0, id, replica, true);
        self.replicas[replica as usize].queues.waiting.push_back(id);
        if !self.received.contains(&replica) {
            self.received.push(replica);
        }
    }

    /// Why a request can never run here, if so.
    fn rejection(&self, id: u32) -> Option<RequestOutcome> {
        let request = &self.requests[id as usize];
        let mut first_replica = 0;
        for pool in &self.cluster.pools {
            let replica = &self.replicas[first_replica];
            let blocks = &replica.queues.blocks;
            let tokens = match pool.role {
                PoolRole::Prefill => u64::from(request.prefill_tokens),
                PoolRole::Mixed | PoolRole::Decode => request.final_kv_tokens(),
            };
            if blocks.blocks_for(tokens) > blocks.total() {
                return Some(RequestOutcome::RejectedTooLargeForKvCache);
            }
            let prefills = pool.role != PoolRole::Decode;
            if prefills
                && replica
                    .policy
                    .longest_prompt()
                    .is_some_and(|longest| request.prefill_tokens > longest)
            {
                return Some(RequestOutcome::RejectedPromptExceedsBatch);
            }
            first_replica += pool.replicas as usize;
        }
        None
    }

    /// Keeps the router's view of a replica's load up to date.
    fn account(&mut self, pool: usize, id: u32, replica: u32, arrives: bool) {
        let router = &mut self.routers[pool];
        let request = &self.requests[id as usize];
        let amount = match router.measures() {
            Load::None => return,
            Load::OutstandingRequests => 1,
            Load::PendingPrefillTokens => u64::from(request.prefill_tokens),
            Load::PromisedBlocks => self.replicas[replica as usize]
                .queues
                .blocks
                .blocks_for(u64::from(request.prefill_tokens) + 1),
        };
        if arrives {
            router.add(replica, amount);
        } else {
            router.remove(replica, amount);
        }
    }

    // Batches and stages.

    /// Forms batches while the replica has free slots and something to run.
    fn dispatch(&mut self, replica: u32) {
        while let Some(slot) =
            self.replicas[replica as usize].form_batch(&mut self.requests, self.now_s)
        {
            self.enqueue(replica, 0, slot);
        }
    }

    fn enqueue(&mut self, replica: u32, stage: u32, slot: u32) {
        let state = &mut self.replicas[replica as usize].stages[stage as usize];
        if state.busy {
            state.queue.push_back(slot);
        } else {
            self.start_stage(replica, stage, slot);
        }
    }

    fn start_stage(&mut self, replica: u32, stage: u32, slot: u32) {
        let now_s = self.now_s;
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        if std::mem::take(&mut batch.queued) {
            for work in &batch.prefills {
                let request = &mut self.requests[work.request as usize];
                if request.first_started_at_s.is_nan() {
                    request.first_started_at_s = now_s;
                }
            }
        }
        let time = self.cluster.pools[state.pool]
            .cost
            .stage_time(stage, &batch.shape);
        batch.executed.total_s += time.total_s();
        batch.executed.model_s += time.model_s;
        state.work.busy_s += time.total_s();
        state.stages[stage as usize].busy = true;
        self.events.push(
            now_s + time.total_s(),
            Event::StageEnd {
                replica,
                stage,
                slot,
            },
        );
    }

    fn end_stage(&mut self, replica: u32, stage: u32, slot: u32) {
        let state = &mut self.replicas[replica as usize];
        let last = stage as usize + 1 == state.stages.len();
        let current = &mut state.stages[stage as usize];
        current.busy = false;
        if let Some(next) = current.queue.pop_front() {
            self.start_stage(replica, stage, next);
        }
        if last {
            self.end_batch(replica, slot);
            self.admit_transfers(replica);
            self.dispatch(replica);
        } else {
            self.enqueue(replica, stage + 1, slot);
        }
    }

    fn end_batch(&mut self, replica: u32, slot: u32) {
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        let executed = batch.executed;
        if !batch.decodes.is_empty() {
            batch
                .decodes
                .advance(self.now_s, executed, &self.requests, self.recorder);
            while let Some(id) = self.replicas[replica as usize].batches[slot as usize]
                .decodes
                .pop_finished(&mut self.requests)
            {
                self.complete(id, replica);
            }
        }
        let mut prefills =
            std::mem::take(&mut self.replicas[replica as usize].batches[slot as usize].prefills);
        let mut unfinished = 0;
        for work in prefills.drain(..) {
            if self.end_chunk(work, executed) {
                self.end_prefill(replica, slot, work.request);
            } else {
                // Back to the front, in order: first come, first served.
                let queues = &mut self.replicas[replica as usize].queues;
                queues.prefilling.insert(unfinished, work.request);
                unfinished += 1;
            }
        }
        let state = &mut self.replicas[replica as usize];
        let batch = &mut state.batches[slot as usize];
        batch.prefills = prefills;
        batch.in_flight = false;
        state
            .queues
            .ready
            .append(&mut batch.decodes, &mut self.requests);
        state.running_batches -= 1;
    }

    /// A prompt chunk has been processed. Returns whether it was the last one.
    fn end_chunk(&mut self, work: PrefillWork, executed: Executed) -> bool {
        let request = &mut self.requests[work.request as usize];
        request.prefilled += work.tokens;
        request.execution_s += executed.total_s;
        request.model_execution_s += executed.model_s;
        request.prefilled == request.prefill_target
    }

    /// A prompt is complete (for the first time, or again after a restart) and
    /// emits an output token.
    fn end_prefill(&mut self, replica: u32, slot: u32, id: u32) {
        let request = &mut self.requests[id as usize];
        request.generated += 1;
        if request.generated == 1 {
            request.prefill_completed_at_s = self.now_s;
        } else {
            self.recorder
                .token_intervals(self.now_s - request.last_token_at_s, 1);
        }
        request.last_token_at_s = self.now_s;
        let finished = request.generated == request.decode_tokens;
        let role = self.replicas[replica as usize].role;
        let first_token = self.requests[id as usize].generated == 1;
        if first_token && self.routers[0].measures() == Load::PendingPrefillTokens {
            self.account(0, id, replica, false);
        }
        if finished {
            self.complete(id, replica);
        } else if role == PoolRole::Prefill {
            self.hand_over(id);
        } else {
            if role == PoolRole::Mixed {
                let request = &mut self.requests[id as usize];
                request.decode_replica = replica;
                request.decode_arrived_at_s = request.prefill_completed_at_s;
            }
            self.replicas[replica as usize].batches[slot as usize]
                .decodes
                .join(id, &mut self.requests);
        }
    }

    // Hand-over from prefill to decode.

    /// A prefill replica is done with a request: choose where it decodes.
    fn hand_over(&mut self, id: u32) {
        let receiver = self.routers[1].route();
        self.account(1, id, receiver, true);
        self.requests[id as usize].decode_replica = receiver;
        self.replicas[receiver as usize].incoming.push_back(id);
        self.admit_transfers(receiver);
    }

    /// Starts the transfers a decode replica has room for, in order. The prefill
    /// replica keeps the cache until it has drained.
    fn admit_transfers(&mut self, receiver: u32) {
        let mut started = false;
        loop {
            let state = &mut self.replicas[receiver as usize];
            let Some(&id) = state.incoming.front() else {
                break;
            };
            let sender = self.requests[id as usize].prefill_replica;
            let tokens = self.requests[id as usize].decode_context_tokens();
            let queues = &mut state.queues;
            let blocks = queues.blocks.blocks_for(tokens);
            // Requests preempted here go first, or they would never come back.
            if !queues.waiting.is_empty()
                || queues.admitted >= state.policy.limits().admitted
                || !queues.blocks.admits(blocks)
            {
                break;
            }
            state.incoming.pop_front();
            queues.blocks.take(blocks, self.now_s);
            queues.admitted += 1;
            let Some(transfers) = &mut self.transfers else {
                unreachable!("two pools have a KV transfer");
            };
            let size_bytes = transfers.size_bytes(tokens);
            let request = &mut self.requests[id as usize];
            request.transfer_bytes = size_bytes;
            request.transfer_started_at_s = self.now_s;
            transfers.start(id, sender, receiver, size_bytes, self.now_s);
            started = true;
        }
        if started {
            self.schedule_drain();
        }
    }

    fn schedule_drain(&mut self) {
        if let Some(transfers) = &self.transfers
            && let Some(at_s) = transfers.next_drain_s()
        {
            let generation = transfers.generation();
            self.events
                .push(at_s.max(self.now_s), Event::TransferDrained { generation });
        }
    }

    fn drain_transfers(&mut self, generation: u64) {
        let Some(transfers) = &mut self.transfers else {
            return;
        };
        if transfers.generation() != generation {
            return;
        }
        let latency_s = transfers.latency_s();
        let mut senders = Vec::new();
        let events = &mut self.events;
        let now_s = self.now_s;
        transfers.drain(now_s, |request, sender| {
            senders.push((request, sender));
            events.push(now_s + latency_s, Event::KvArrived { request });
        });
        self.schedule_drain();
        for (id, sender) in senders {
            self.replicas[sender as usize]
                .queues
                .release(id, &mut self.requests, now_s);
            if self.routers[0].measures() == Load::OutstandingRequests {
                self.account(0, id, sender, false);
            }
            self.dispatch(sender);
        }
    }

    fn receive_kv(&mut self, id: u32) {
        let request = &mut self.requests[id as usize];
        let receiver = request.decode_replica;
        request.decode_arrived_at_s = self.now_s;
        request.transfer_s = self.now_s - request.transfer_started_at_s;
        let queues = &mut self.replicas[receiver as usize].queues;
        request.blocks = queues.blocks.blocks_for(request.decode_context_tokens());
        queues.ready.join(id, &mut self.requests);
        self.dispatch(receiver);
    }

    // The end of a request.

    /// All tokens generated on `replica`.
    fn complete(&mut self, id: u32, replica: u32) {
        let state = &mut self.replicas[replica as usize];
        state.queues.release(id, &mut self.requests, self.now_s);
        let pool = state.pool;
        if self.routers[pool].measures() != Load::PendingPrefillTokens {
            self.account(pool, id, replica, false);
        }
        self.requests[id as usize].completed_at_s = self.now_s;
        self.close(id, RequestOutcome::Completed);
        if self.closed_loop {
            self.send_next_request();
        }
    }

    fn close(&mut self, id: u32, outcome: RequestOutcome) {
        let request = &mut self.requests[id as usize];
        debug_assert!(!request.done, "request {id} recorded twice");
        request.done = true;
        self.open_requests -= 1;
        self.recorder.request(&record_of(id, request, outcome));
    }

    fn report_unfinished(&mut self) {
        for id in 0..self.requests.len() {
            if !self.requests[id].done {
                self.close(id as u32, RequestOutcome::UnfinishedTimeLimit);
            }
        }
    }

    fn totals(&mut self) -> SimulationTotals {
        let end_s = self.now_s;
        let mut totals = SimulationTotals {
            end_s,
            pools: vec![PoolWork::default(); self.cluster.pools.len()],
            ..SimulationTotals::default()
        };
        let mut stages = 0;
        let mut busy_s = 0.0;
        for replica in &mut self.replicas {
            let pool = &mut totals.pools[replica.pool];
            *pool = pool.plus(replica.work);
            stages += replica.stages.len();
            busy_s += replica.work.busy_s;
            totals.preemptions += replica.queues.preemptions;
            totals.kv_cache_utilization += replica.queues.blocks.utilization(end_s);
        }
        totals.kv_cache_utilization /= self.replicas.len() as f64;
        if end_s > 0.0 {
            totals.gpu_busy_fraction = busy_s / (stages as f64 * end_s);
        }
        totals
    }
}

fn record_of(id: u32, request: &RequestState, outcome: RequestOutcome) -> RequestRecord {
    let execution_s = request.execution_s;
    let span_s = request.completed_at_s - request.first_started_at_s;
    RequestRecord {
        request_id: id,
        outcome,
        arrived_at_s: request.arrived_at_s,
        scheduled_at_s: request.scheduled_at_s,
        prefill_completed_at_s: request.prefill_completed_at_s,
        decode_arrived_at_s: request.decode_arrived_at_s,
        completed_at_s: request.completed_at_s,
        prefill_tokens: request.prefill_tokens,
        decode_tokens: request.decode_tokens,
        restarts: request.restarts,
        execution_s,
        model_execution_s: request.model_execution_s,
        // Rounding of the two sums must not show as a negative wait.
        preemption_s: if span_s.is_nan() {
            f64::NAN
        } else {
            (span_s - execution_s).max(0.0)
        },
        prefill_replica_id: request.prefill_replica,
        decode_replica_id: match request.decode_replica {
            NO_REPLICA => request.prefill_replica,
            replica => replica,
        },
        pd_p2p_comm_size_bytes: request.transfer_bytes,
        pd_p2p_comm_time_s: request.transfer_s,
    }
}
