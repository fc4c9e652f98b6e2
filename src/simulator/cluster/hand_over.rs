//! From prefill to decode: where a request decodes, and the way of its KV cache
//! there. What it means is told in docs/disaggregation.md.

use super::Simulation;
use crate::simulator::config::PoolRole;
use crate::simulator::event::Event;
use crate::simulator::recorder::Recorder;
use crate::simulator::replica::Replica;
use crate::simulator::request::{NO_REPLICA, RequestState};
use crate::simulator::scheduler::global::mixed_pool::Candidate;

impl<R: Recorder> Simulation<'_, R> {
    /// Whether a request whose prompt is complete on `replica` decodes there. If
    /// not, its cache is on its way or waits for room.
    #[inline]
    pub(super) fn decodes_here(&mut self, id: u32, replica: u32) -> bool {
        if self.replicas[replica as usize].role == PoolRole::Mixed {
            return true;
        }
        if self.shared.requests[id as usize].decode_replica == NO_REPLICA {
            self.hand_over(id, replica);
        } else if let Some(transfers) = &mut self.transfers {
            transfers.computed(id, self.events.now_s());
        }
        self.shared.requests[id as usize].decode_replica == replica
    }

    /// Chooses where a request decodes and queues its cache there, unless that is
    /// where it is.
    #[inline(always)]
    fn hand_over(&mut self, id: u32, sender: u32) {
        let receiver = self.route_decode(id, sender);
        self.shared.requests[id as usize].decode_replica = receiver;
        if receiver == sender {
            return;
        }
        self.catch_up(receiver);
        let queues = &mut self.replicas[receiver as usize].queues;
        queues.promise(&mut self.shared.requests[id as usize]);
        self.replicas[receiver as usize].incoming.push_back(id);
        self.admit_transfers(receiver);
    }

    #[inline]
    fn route_decode(&mut self, id: u32, sender: u32) -> u32 {
        let (replicas, request) = (&self.replicas, &self.shared.requests[id as usize]);
        if let Some(pool) = &mut self.mixed_pool {
            let requests = &self.shared.requests;
            let receiver = pool.route_decode(sender, |replica| {
                let state = &replicas[replica as usize];
                let here = replica == sender;
                let blocks = state.queues.blocks_to_start(request);
                Candidate {
                    needed_blocks: if here { 0 } else { blocks },
                    has_room: here || has_room(state, request, blocks, requests),
                    is_able: can_end(state, request),
                    ..candidate(state)
                }
            });
            self.note_mixing(receiver);
            return receiver;
        }
        let receiver = self.route_in(1);
        self.account(1, id, receiver, true);
        receiver
    }

    /// Tells a replica's scheduler whether it helps out in the other phase.
    pub(super) fn note_mixing(&mut self, replica: u32) {
        if let Some(pool) = &self.mixed_pool {
            self.replicas[replica as usize].queues.mixes_phases = pool.mixes(replica);
        }
    }

    /// Vidur-AlibabaCloud's way: the prefill replica forgets the cache, the decode
    /// replica queues the request right away, and the transfer, alone on its link,
    /// only wakes it.
    pub(super) fn hand_over_at_once(&mut self, id: u32) {
        let now_s = self.events.now_s();
        let Some(transfers) = &self.transfers else {
            unreachable!("two pools have a KV transfer");
        };
        let request = &mut self.shared.requests[id as usize];
        let size_bytes = transfers.size_bytes(u64::from(request.prefill_tokens) + 1);
        request.transfer_bytes = size_bytes;
        request.transfer_s = transfers.alone_s(size_bytes);
        request.decode_arrived_at_s = now_s + request.transfer_s;
        let (sender, receiver) = (request.prefill_replica, request.decode_replica);
        self.wakes.push((request.decode_arrived_at_s, receiver));
        self.release(id, sender);
        let receiver = &mut self.replicas[receiver as usize].queues;
        receiver.enqueue(id, &mut self.shared.requests);
    }

    /// Starts the transfers a replica has room for, in order. The sender keeps the
    /// cache until it has drained.
    #[inline(always)]
    pub(super) fn admit_transfers(&mut self, receiver: u32) {
        let now_s = self.events.now_s();
        let mut started = false;
        while let Some(&id) = self.replicas[receiver as usize].incoming.front() {
            let state = &mut self.replicas[receiver as usize];
            let request = &self.shared.requests[id as usize];
            if !has_room(
                state,
                request,
                request.promised_blocks,
                &self.shared.requests,
            ) {
                break;
            }
            state.incoming.pop_front();
            let request = &mut self.shared.requests[id as usize];
            let blocks = request.promised_blocks;
            state.queues.promised_blocks -= blocks;
            state.queues.blocks.take(blocks, now_s);
            state.queues.admitted += 1;
            let Some(transfers) = &mut self.transfers else {
                unreachable!("two pools have a KV transfer");
            };
            let size_bytes = transfers.size_bytes(u64::from(request.prefill_target));
            request.transfer_bytes = size_bytes;
            request.transfer_started_at_s = now_s;
            transfers.start(id, request.prefill_replica, receiver, size_bytes, now_s);
            started = true;
        }
        if R::WANTS_BATCHES && started {
            self.tell_kv_use(receiver);
        }
    }

    /// Schedules the transfers' next change, if it is another one than before.
    #[inline(always)]
    pub(super) fn settle_transfers(&mut self) {
        let now_s = self.events.now_s();
        let Some(transfers) = &mut self.transfers else {
            return;
        };
        match transfers.settle(now_s) {
            Some((at_s, generation)) => {
                let due = Event::TransferDue { generation };
                self.events.set_transfer(Some((at_s.max(now_s), due)));
            }
            None if transfers.is_idle() => self.events.set_transfer(None),
            None => {}
        }
    }

    #[inline]
    pub(super) fn advance_transfers(&mut self, generation: u64) {
        let now_s = self.events.now_s();
        let Some(transfers) = &mut self.transfers else {
            return;
        };
        if transfers.generation() != generation {
            return;
        }
        let mut drained = std::mem::take(&mut self.drained);
        let events = &mut self.events;
        transfers.advance(now_s, |request, sender, latency_s| {
            drained.push((request, sender));
            events.push(now_s + latency_s, Event::KvArrived { request });
        });
        self.settle_transfers();
        for &(id, sender) in &drained {
            self.catch_up(sender);
            self.release(id, sender);
            self.account_outstanding(0, id, sender);
            if R::WANTS_BATCHES {
                self.tell_kv_use(sender);
            }
        }
        self.wake(drained.iter().map(|&(_, sender)| sender));
        drained.clear();
        self.drained = drained;
    }

    #[inline]
    pub(super) fn receive_kv(&mut self, id: u32) {
        let request = &mut self.shared.requests[id as usize];
        let replica = request.decode_replica;
        self.catch_up(replica);
        let request = &mut self.shared.requests[id as usize];
        request.decode_arrived_at_s = self.events.now_s();
        request.transfer_s = self.events.now_s() - request.transfer_started_at_s;
        let queues = &mut self.replicas[replica as usize].queues;
        queues.hold(request, request.promised_blocks);
        queues.ready.join(id, &mut self.shared.requests);
        self.wake(std::iter::once(replica));
    }

    // Layer by layer, while the prompt's last chunk is being computed.

    /// `stage` starts a batch and takes `time_s`.
    pub(super) fn overlap(&mut self, replica: u32, stage: u32, slot: u32, time_s: f64) {
        let batch = &mut self.replicas[replica as usize].batches[slot as usize];
        if batch.prefills.is_empty() {
            return;
        }
        batch.stage_time_s = time_s;
        if stage == 0 {
            self.hand_over_early(replica, slot);
            self.settle_transfers();
        }
        let Some(layers) = self.shared.cluster.disaggregation.overlap_layers else {
            return;
        };
        let stages = self.replicas[replica as usize].stages.len() as f64;
        let layers = (f64::from(layers) / stages).max(1.0);
        let first_layer_at_s = self.events.now_s() + time_s / layers;
        if first_layer_at_s < self.events.now_s() + time_s {
            let event = Event::LayerComputed {
                replica,
                stage,
                slot,
            };
            self.events.push(first_layer_at_s, event);
        }
    }

    /// Chooses where the prompts that a batch completes will decode, so that their
    /// caches can leave before it ends.
    fn hand_over_early(&mut self, replica: u32, slot: u32) {
        let now_s = self.events.now_s();
        let batch = &mut self.replicas[replica as usize].batches[slot as usize];
        let prefills = std::mem::take(&mut batch.prefills);
        for work in &prefills {
            let request = &self.shared.requests[work.request as usize];
            let is_last_chunk = request.prefilled + work.tokens == request.prefill_target;
            let has_more = request.generated + 1 < request.decode_tokens;
            if !is_last_chunk || !has_more || request.decode_replica != NO_REPLICA {
                continue;
            }
            if let Some(transfers) = &mut self.transfers {
                let size_bytes = transfers.size_bytes(u64::from(request.prefill_target));
                transfers.compute(work.request, size_bytes, 0.0, 0.0, now_s);
            }
            self.hand_over(work.request, replica);
        }
        self.replicas[replica as usize].batches[slot as usize].prefills = prefills;
    }

    /// The first layer of a batch is done on `stage`: from now on as much leaves as
    /// the layers before the present one hold.
    pub(super) fn first_layer_computed(&mut self, replica: u32, stage: u32, slot: u32) {
        let state = &self.replicas[replica as usize];
        let batch = &state.batches[slot as usize];
        let stages = state.stages.len() as f64;
        let per_s = 1.0 / (stages * batch.stage_time_s);
        self.tell_computed(replica, slot, f64::from(stage) / stages, per_s);
    }

    /// All layers of a batch are done on `stage`, the next one has not begun.
    pub(super) fn stage_computed(&mut self, replica: u32, stage: u32, slot: u32) {
        let stages = self.replicas[replica as usize].stages.len() as f64;
        self.tell_computed(replica, slot, f64::from(stage + 1) / stages, 0.0);
    }

    /// Of the caches that are computed by a batch, this share is there, and more
    /// comes at this share per second.
    fn tell_computed(&mut self, replica: u32, slot: u32, share: f64, share_per_s: f64) {
        let now_s = self.events.now_s();
        let Some(transfers) = &mut self.transfers else {
            return;
        };
        let batch = &self.replicas[replica as usize].batches[slot as usize];
        for work in &batch.prefills {
            if let Some(bytes) = transfers.computing_bytes(work.request) {
                let (ready_bytes, bytes_per_s) = (share * bytes, share_per_s * bytes);
                transfers.compute(work.request, bytes, ready_bytes, bytes_per_s, now_s);
            }
        }
        self.settle_transfers();
    }
}

/// A replica's memory as routing sees it.
pub(super) fn candidate(state: &Replica) -> Candidate {
    let queues = &state.queues;
    Candidate {
        used_blocks: queues.load_blocks(),
        needed_blocks: 0,
        total_blocks: queues.blocks.total(),
        is_able: true,
        has_room: true,
    }
}

/// Whether all of a request fits the KV cache of a replica.
fn can_end(state: &Replica, request: &RequestState) -> bool {
    let blocks = &state.queues.blocks;
    let needed = blocks
        .blocks_for(request.final_kv_tokens())
        .max(state.queues.reserved_blocks)
        + state.queues.window_blocks(request);
    needed <= blocks.total()
}

/// Whether a replica can take the cache of a request, `blocks`, now.
#[inline(always)]
fn has_room(
    state: &Replica,
    request: &RequestState,
    blocks: u64,
    requests: &[RequestState],
) -> bool {
    let queues = &state.queues;
    let first = queues
        .waiting
        .front()
        .map(|&first| &requests[first as usize]);
    let (others, their_blocks) = match first {
        // Requests preempted here go first, or they would never come back.
        Some(first) if first.restarts > 0 => return false,
        // A prompt that is to run here and arrived earlier keeps its place.
        Some(first) if first.arrived_at_s < request.arrived_at_s => (1, first.promised_blocks),
        _ => (0, 0),
    };
    queues.admitted.saturating_add(others) < state.policy.limits().admitted
        && queues.blocks.admits(blocks + their_blocks)
}
