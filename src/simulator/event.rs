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
//! through the heap. Simulated times are finite and never negative, so their bit
//! patterns order like the numbers and integers are the whole key.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

const INFINITE: u64 = f64::INFINITY.to_bits();

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
    /// their own, unless something else happened to it first.
    PipelineEnd { replica: u32, generation: u32 },
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
    /// into the queue first: ends of batches by replica, then all others.
    fn rank(self) -> u32 {
        match self {
            Self::StageEnd { replica, .. } | Self::PipelineEnd { replica, .. } => replica,
            _ => u32::MAX,
        }
    }
}

/// An event and when it goes off: bits of its time and of when it came about, its
/// rank, its number.
#[derive(Debug, Clone, Copy)]
struct Pending {
    key: (u64, u64, u32, u64),
    event: Event,
}

// The earliest is the greatest: what a heap has on top.
impl Ord for Pending {
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
    /// The next change of the KV transfers, of which there is one at a time: what
    /// others start and finish puts it off more often than it happens.
    transfer: Option<Pending>,
    now: VecDeque<(u64, Event)>,
    now_bits: u64,
    next_id: u64,
    /// Rank all alike, as the originals do.
    by_number: bool,
}

impl EventQueue {
    /// A queue at time zero; the first event created gets number `first_id`.
    /// `by_number`: only numbers decide at equal times.
    pub(crate) fn new(first_id: u64, by_number: bool) -> Self {
        Self {
            by_number,
            later: BinaryHeap::new(),
            transfer: None,
            now: VecDeque::new(),
            now_bits: 0,
            next_id: first_id,
        }
    }

    /// Present time, seconds.
    pub(crate) fn now_s(&self) -> f64 {
        f64::from_bits(self.now_bits)
    }

    /// Moves the clock to `time_s`; nothing may be pending before it.
    pub(crate) fn advance(&mut self, time_s: f64) {
        debug_assert!(self.now.is_empty() || time_s == self.now_s());
        self.now_bits = time_s.to_bits();
    }

    /// Moves the clock to `time_s`, where everything stops, whatever is pending later.
    pub(crate) fn stop_at(&mut self, time_s: f64) {
        self.now_bits = time_s.to_bits();
    }

    /// Schedules `event` for the present time, after all that is pending for it.
    pub(crate) fn push_now(&mut self, event: Event) {
        self.now.push_back((self.next_id, event));
        self.next_id += 1;
    }

    /// Schedules `event` for `time_s`, not before the present.
    pub(crate) fn push(&mut self, time_s: f64, event: Event) {
        self.push_as_of(self.now_s(), time_s, event);
    }

    /// The same of an event that comes about only at `created_at_s`, for its place
    /// among others of the same time.
    pub(crate) fn push_as_of(&mut self, created_at_s: f64, time_s: f64, event: Event) {
        debug_assert!(
            time_s.is_finite() && time_s >= self.now_s(),
            "event at {time_s}, now {}",
            self.now_s()
        );
        if time_s.to_bits() == self.now_bits {
            self.push_now(event);
        } else {
            let pending = self.number(created_at_s, time_s, event);
            self.later.push(pending);
        }
    }

    /// Schedules the change of the KV transfers that comes next, in place of any that
    /// was to; none: there is none.
    pub(crate) fn set_transfer(&mut self, change: Option<(f64, Event)>) {
        self.transfer = None;
        if let Some((time_s, event)) = change {
            if time_s.to_bits() == self.now_bits {
                self.push_now(event);
            } else {
                self.transfer = Some(self.number(self.now_s(), time_s, event));
            }
        }
    }

    fn number(&mut self, created_at_s: f64, time_s: f64, event: Event) -> Pending {
        let (created, rank) = match self.by_number {
            true => (0, 0),
            false => (created_at_s.to_bits(), event.rank()),
        };
        let key = (time_s.to_bits(), created, rank, self.next_id);
        self.next_id += 1;
        Pending { key, event }
    }

    /// The first event that takes time. The greater one is the earlier one.
    fn first(&self) -> Option<&Pending> {
        self.later.peek().max(self.transfer.as_ref())
    }

    /// Time of the next event, or infinity.
    pub(crate) fn next_time_s(&self) -> f64 {
        let bits = self.first().map_or(INFINITE, |first| first.key.0);
        if self.now.is_empty() || bits == self.now_bits {
            f64::from_bits(bits)
        } else {
            self.now_s()
        }
    }

    /// Removes the events at the head that are void, without moving the clock.
    pub(crate) fn drop_void(&mut self, is_void: impl Fn(Event) -> bool) {
        while let Some(first) = self.later.peek()
            && is_void(first.event)
        {
            self.later.pop();
        }
    }

    /// Removes the next event, moves the clock to it and returns it with its number.
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let first = self.first().copied();
        let is_now = |first: Pending| first.key.0 == self.now_bits;
        if !self.now.is_empty() && !first.is_some_and(is_now) {
            return self.now.pop_front();
        }
        let Pending { key, event } = first?;
        if self.transfer == first {
            self.transfer = None;
        } else {
            self.later.pop();
        }
        self.now_bits = key.0;
        Some((key.3, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_first_created_first() {
        let arrival = |request| Event::Arrival { request };
        let mut queue = EventQueue::new(10, false);
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
}
