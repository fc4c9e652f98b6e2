//! The event queue.
//!
//! Ordering rule: earlier time first; at equal times, the event created first.
//! Simulated times are finite and never negative, so their bit patterns order
//! like the numbers and a pair of integers is the whole key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A closed-loop client sends its next request.
    Arrival { request: u32 },
    /// A stage has executed a batch.
    StageEnd { replica: u32, stage: u32, slot: u32 },
    /// The earliest KV transfer has drained, if no transfer started or ended since.
    TransferDrained { generation: u64 },
    /// A KV cache has arrived on its decode replica.
    KvArrived { request: u32 },
}

/// Pending events in order.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    created: u64,
}

impl EventQueue {
    pub(crate) fn push(&mut self, time_s: f64, event: Event) {
        debug_assert!(time_s.is_finite() && time_s >= 0.0, "event at {time_s}");
        self.heap
            .push(Reverse((time_s.to_bits(), self.created, event)));
        self.created += 1;
    }

    /// Time of the next event, or infinity.
    pub(crate) fn next_time_s(&self) -> f64 {
        self.heap
            .peek()
            .map_or(f64::INFINITY, |Reverse((time, _, _))| f64::from_bits(*time))
    }

    /// Whether the next event is an arrival at `time_s`.
    pub(crate) fn next_is_arrival_at(&self, time_s: f64) -> bool {
        matches!(
            self.heap.peek(),
            Some(Reverse((time, _, Event::Arrival { .. }))) if *time == time_s.to_bits()
        )
    }

    pub(crate) fn pop(&mut self) -> Option<(f64, Event)> {
        self.heap
            .pop()
            .map(|Reverse((time, _, event))| (f64::from_bits(time), event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_first_created_first() {
        let mut queue = EventQueue::default();
        queue.push(1.0, Event::Arrival { request: 1 });
        queue.push(0.5, Event::Arrival { request: 2 });
        queue.push(0.5, Event::Arrival { request: 0 });
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            order,
            vec![
                (0.5, Event::Arrival { request: 2 }),
                (0.5, Event::Arrival { request: 0 }),
                (1.0, Event::Arrival { request: 1 }),
            ]
        );
        assert_eq!(queue.next_time_s(), f64::INFINITY);
    }
}
