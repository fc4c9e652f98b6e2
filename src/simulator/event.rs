//! The event queue.
//!
//! Ordering rule: earlier time first; at equal times, the event created first.
//! Open-loop arrivals count as created before everything else. Events are
//! numbered in order of creation. An event that is put into the queue earlier than
//! it would come about says when that will be, and so that it makes no difference,
//! of those that came about at the same time ends of batches go first, by replica.
//! The originals have only the numbers.
//!
//! Most events happen at the very time that creates them (a batch reaching a
//! stage, a replica looking at its queue). They wait in a plain queue: whatever
//! is scheduled for the same time in the heap was created earlier, so it goes
//! first, and among themselves first in is first out. Only what takes time goes
//! through the heap, but for the ends of pipelines: a replica has one of those,
//! that changes often, and they have a tournament of their own. Simulated times
//! are finite and never negative, so their bit patterns order like the numbers
//! and integers are the whole key.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use super::tournament::Tournament;

/// Key of what never happens; its time is infinite.
const NEVER: u128 = (f64::INFINITY.to_bits() as u128) << 64;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A request enters the system.
    Arrival { request: u32 },
    /// Requests that have arrived are given to replicas.
    GlobalSchedule,
    /// A replica forms batches while it has free slots.
    ReplicaSchedule { replica: u32 },
    /// A batch queues at a stage.
    StageArrival { replica: u32, stage: u32, slot: u32 },
    /// An idle stage takes the next batch of its queue.
    StageSchedule { replica: u32, stage: u32 },
    /// A stage has executed a batch.
    StageEnd { replica: u32, stage: u32, slot: u32 },
    /// A batch has left the pipeline of a replica whose stages have no events of
    /// their own.
    PipelineEnd { replica: u32 },
    /// A batch has left the last stage.
    BatchEnd { replica: u32, slot: u32 },
    /// A stage has computed its first layer of a batch whose prompts hand their
    /// caches over layer by layer.
    LayerComputed { replica: u32, stage: u32, slot: u32 },
    /// The next KV transfer has drained or caught up with its prefill, unless
    /// something else changed first.
    TransferDue { generation: u64 },
    /// A KV cache has arrived on its decode replica.
    KvArrived { request: u32 },
}

impl Event {
    /// Place among events that came about at the same time, whoever of them was put
    /// into the queue first: ends of batches by replica, then all others. Ends of
    /// pipelines are ranked with those of stages, in the tournament.
    #[inline]
    fn rank(self) -> u32 {
        match self {
            Self::StageEnd { replica, .. } => replica,
            _ => u32::MAX,
        }
    }
}

/// An event and its place: that of its time, then its rank and its number.
#[derive(Debug, Clone, Copy)]
struct Pending {
    key: (u128, u32, u64),
    event: Event,
}

impl Pending {
    #[inline]
    fn time_bits(&self) -> u64 {
        time_bits(self.key.0)
    }
}

/// Place in time: bits of the time first, then of when the event came about, or its
/// number where only that decides.
#[inline]
fn place(time_s: f64, then: u64) -> u128 {
    u128::from(time_s.to_bits()) << 64 | u128::from(then)
}

#[inline]
fn time_bits(place: u128) -> u64 {
    (place >> 64) as u64
}

// The earliest is the greatest: what a heap has on top.
impl Ord for Pending {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Pending {}

/// Pending events in order.
#[derive(Debug)]
pub(crate) struct EventQueue {
    later: BinaryHeap<Pending>,
    /// Those that came in order: what takes the same time each time does.
    in_order: VecDeque<Pending>,
    /// Places in time of the end of each replica's pipeline.
    ends: Tournament<u128>,
    /// The next change of the KV transfers, of which there is one at a time: what
    /// others start and finish puts it off more often than it happens.
    transfer: Option<Pending>,
    /// Time of the first of these, but for the ends of pipelines.
    other_bits: u64,
    /// Time of the first of all these.
    first_bits: u64,
    now: VecDeque<(u64, Event)>,
    now_bits: u64,
    next_id: u64,
    /// Rank all alike, as the originals do.
    by_number: bool,
}

impl EventQueue {
    /// A queue at time zero for `replicas`; the first event created gets number
    /// `first_id`. `by_number`: only numbers decide at equal times.
    pub(crate) fn new(replicas: usize, first_id: u64, by_number: bool) -> Self {
        Self {
            by_number,
            later: BinaryHeap::new(),
            in_order: VecDeque::new(),
            ends: Tournament::new(replicas, NEVER, NEVER),
            transfer: None,
            other_bits: time_bits(NEVER),
            first_bits: time_bits(NEVER),
            now: VecDeque::new(),
            now_bits: 0,
            next_id: first_id,
        }
    }

    /// Present time, seconds.
    #[inline]
    pub(crate) fn now_s(&self) -> f64 {
        f64::from_bits(self.now_bits)
    }

    /// Moves the clock to `time_s`; nothing may be pending before it.
    #[inline]
    pub(crate) fn advance(&mut self, time_s: f64) {
        debug_assert!(self.now.is_empty() || time_s == self.now_s());
        self.now_bits = time_s.to_bits();
    }

    /// Moves the clock to `time_s`, where everything stops, whatever is pending later.
    pub(crate) fn stop_at(&mut self, time_s: f64) {
        self.now_bits = time_s.to_bits();
    }

    /// Schedules `event` for the present time, after all that is pending for it.
    #[inline]
    pub(crate) fn push_now(&mut self, event: Event) {
        self.now.push_back((self.next_id, event));
        self.next_id += 1;
    }

    /// Schedules `event` for `time_s`, not before the present.
    #[inline(always)]
    pub(crate) fn push(&mut self, time_s: f64, event: Event) {
        self.check(time_s);
        if time_s.to_bits() == self.now_bits {
            self.push_now(event);
        } else {
            let pending = self.number(time_s, event);
            if self.in_order.back().is_none_or(|last| *last > pending) {
                self.in_order.push_back(pending);
            } else {
                self.later.push(pending);
            }
            self.other_bits = self.other_bits.min(time_s.to_bits());
            self.note_first();
        }
    }

    /// Schedules the end of a replica's pipeline, in place of what was scheduled
    /// before. It comes about only at `created_at_s`, for its place among others of
    /// the same time.
    #[inline(always)]
    pub(crate) fn set_end(&mut self, replica: u32, created_at_s: f64, time_s: f64) {
        self.check(time_s);
        if time_s.to_bits() == self.now_bits {
            self.ends.set(replica, NEVER);
            self.push_now(Event::PipelineEnd { replica });
        } else {
            let then = self.then(created_at_s);
            self.ends.set(replica, place(time_s, then));
            self.next_id += 1;
        }
        self.note_first();
    }

    #[inline]
    fn check(&self, time_s: f64) {
        debug_assert!(
            time_s.is_finite() && time_s >= self.now_s(),
            "event at {time_s}, now {}",
            self.now_s()
        );
    }

    /// Schedules the change of the KV transfers that comes next, in place of any that
    /// was to; none: there is none.
    #[inline]
    pub(crate) fn set_transfer(&mut self, change: Option<(f64, Event)>) {
        self.transfer = None;
        if let Some((time_s, event)) = change {
            if time_s.to_bits() == self.now_bits {
                self.push_now(event);
            } else {
                self.transfer = Some(self.number(time_s, event));
            }
        }
        self.look_up_others();
    }

    /// What decides at equal times, before ranks do.
    #[inline]
    fn then(&self, created_at_s: f64) -> u64 {
        match self.by_number {
            true => self.next_id,
            false => created_at_s.to_bits(),
        }
    }

    #[inline]
    fn number(&mut self, time_s: f64, event: Event) -> Pending {
        let place = place(time_s, self.then(self.now_s()));
        let key = (place, event.rank(), self.next_id);
        self.next_id += 1;
        Pending { key, event }
    }

    /// The first of the events that have no place of their own. The greater one is
    /// the earlier one.
    #[inline(always)]
    fn first_other(&self) -> Option<&Pending> {
        let later = self.later.peek().max(self.in_order.front());
        later.max(self.transfer.as_ref())
    }

    #[inline(always)]
    fn look_up_others(&mut self) {
        let first = self.first_other().map(Pending::time_bits);
        self.other_bits = first.unwrap_or(time_bits(NEVER));
        self.note_first();
    }

    #[inline]
    fn note_first(&mut self) {
        let end = time_bits(self.ends.least_key());
        self.first_bits = self.other_bits.min(end);
    }

    /// Time of the next event, or infinity.
    #[inline]
    pub(crate) fn next_time_s(&self) -> f64 {
        f64::from_bits(match self.now.is_empty() {
            true => self.first_bits,
            false => self.now_bits,
        })
    }

    /// Removes the next event, moves the clock to it and returns it with its number;
    /// ends of pipelines have none.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        if !self.now.is_empty() && self.first_bits != self.now_bits {
            return self.now.pop_front();
        }
        if time_bits(self.ends.least_key()) < self.other_bits {
            return Some((0, self.pop_end()));
        }
        self.pop_first()
    }

    /// Removes the end of a pipeline that comes first.
    #[inline]
    fn pop_end(&mut self) -> Event {
        let (end, replica) = (self.ends.least_key(), self.ends.least());
        self.now_bits = time_bits(end);
        self.ends.set(replica, NEVER);
        self.note_first();
        Event::PipelineEnd { replica }
    }

    /// Removes the next event, if that is not known to be the end of a pipeline.
    #[inline(always)]
    fn pop_first(&mut self) -> Option<(u64, Event)> {
        let (end, replica) = (self.ends.least_key(), self.ends.least());
        let Some(&Pending { key, event }) = self
            .first_other()
            .filter(|other| (other.key.0, other.key.1) < (end, replica))
        else {
            return (end != NEVER).then(|| (0, self.pop_end()));
        };
        let is_first = |pending: &Pending| pending.key == key;
        if self.transfer.as_ref().is_some_and(is_first) {
            self.transfer = None;
        } else if self.in_order.front().is_some_and(is_first) {
            self.in_order.pop_front();
        } else {
            self.later.pop();
        }
        self.look_up_others();
        self.now_bits = time_bits(key.0);
        Some((key.2, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_first_created_first() {
        let arrival = |request| Event::Arrival { request };
        let mut queue = EventQueue::new(1, 10, false);
        queue.push(1.0, arrival(1));
        queue.push(0.5, arrival(2));
        queue.push(0.5, arrival(0));
        assert_eq!(queue.pop(), Some((11, arrival(2))));
        // Created now, at a time that others were scheduled for earlier.
        queue.push_now(Event::GlobalSchedule);
        assert_eq!(queue.next_time_s(), 0.5);
        assert_eq!(queue.pop(), Some((12, arrival(0))));
        assert_eq!(queue.pop(), Some((13, Event::GlobalSchedule)));
        assert_eq!(queue.next_time_s(), 1.0);
        assert_eq!(queue.pop(), Some((10, arrival(1))));
        assert_eq!(queue.now_s(), 1.0);
        // Only the last change that was set is one.
        queue.set_transfer(Some((1.5, arrival(7))));
        queue.set_transfer(Some((3.0, arrival(8))));
        queue.push(2.0, arrival(9));
        assert_eq!(queue.pop().map(|(_, event)| event), Some(arrival(9)));
        assert_eq!(queue.next_time_s(), 3.0);
        assert_eq!(queue.pop().map(|(_, event)| event), Some(arrival(8)));
        queue.set_transfer(Some((4.0, arrival(7))));
        queue.set_transfer(None);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.next_time_s(), f64::INFINITY);
    }

    #[test]
    fn ends_of_pipelines_go_first_by_replica() {
        let end = |replica| Event::PipelineEnd { replica };
        let mut queue = EventQueue::new(3, 0, false);
        queue.push(2.0, Event::GlobalSchedule);
        queue.set_end(2, 0.0, 2.0);
        queue.set_end(1, 0.5, 2.0);
        queue.set_end(0, 0.0, 5.0);
        // In place of the one before.
        queue.set_end(0, 0.0, 2.0);
        let order = [end(0), end(2), Event::GlobalSchedule, end(1)];
        assert_eq!(
            order.map(|_| queue.pop().map(|(_, event)| event)),
            order.map(Some)
        );
        assert_eq!(queue.pop(), None);
        // For the present: like all others.
        queue.push_now(Event::GlobalSchedule);
        queue.set_end(1, 2.0, 2.0);
        assert_eq!(
            queue.pop().map(|(_, event)| event),
            Some(Event::GlobalSchedule)
        );
        assert_eq!(queue.pop().map(|(_, event)| event), Some(end(1)));
        // By number.
        let mut queue = EventQueue::new(3, 0, true);
        queue.set_end(2, 0.0, 2.0);
        queue.push(2.0, Event::GlobalSchedule);
        queue.set_end(0, 0.0, 2.0);
        let order = [end(2), Event::GlobalSchedule, end(0)];
        assert_eq!(
            order.map(|_| queue.pop().map(|(_, event)| event)),
            order.map(Some)
        );
    }
}
