//! The simulation: flows share links max-min fairly, and start, end and complete
//! as events.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::classes::Quotient;
use crate::number::narrow;

/// Times closer than this are one, nanoseconds.
const TIE_NS: f64 = 1e-3;
/// Demand below this is what rounding left of none.
const NO_DEMAND: f64 = 1e-6;

/// A flow of a class in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    step: u32,
    class: u32,
}

/// What happens to a flow at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Event {
    time_ns: f64,
    flow: Flow,
    completes: bool,
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.time_ns.total_cmp(&other.time_ns);
        by_time
            .then(self.completes.cmp(&other.completes))
            .then(self.flow.cmp(&other.flow))
    }
}

/// A flow on the wire.
#[derive(Debug, Clone, Copy)]
struct Active {
    flow: Flow,
    /// Share of the message that is left.
    left: f64,
    /// Messages per nanosecond.
    rate: f64,
}

struct Simulation<'a> {
    quotient: &'a Quotient,
    now_ns: f64,
    events: BinaryHeap<Reverse<Event>>,
    active: Vec<Active>,
    end_ns: f64,
    shares: Shares,
}

/// Time from the start of the first flow's preparation to the completion of the
/// last, nanoseconds.
pub(super) fn simulate(quotient: &Quotient) -> f64 {
    if starts_at_once(quotient) {
        return all_at_once(quotient);
    }
    let mut simulation = Simulation {
        quotient,
        now_ns: 0.0,
        events: BinaryHeap::new(),
        active: Vec::new(),
        end_ns: 0.0,
        shares: Shares::new(quotient.resources.len()),
    };
    for (class, flow) in quotient.classes.iter().enumerate() {
        simulation.events.push(Reverse(Event {
            time_ns: flow.flow.start_ns,
            flow: Flow {
                step: 0,
                class: narrow::<u32, _>(class),
            },
            completes: false,
        }));
    }
    simulation.run();
    simulation.end_ns
}

/// One step, whose flows all start together.
fn starts_at_once(quotient: &Quotient) -> bool {
    let mut starts = quotient.classes.iter().map(|class| class.flow.start_ns);
    let first = starts.next();
    quotient.steps == 1 && starts.all(|start| Some(start) == first)
}

/// Flows of one size that start together need no events: the flows of the most
/// crowded link keep their first rate to the end, because no flow that leaves
/// changes the lowest of max-min fair rates, and nobody ends after them.
fn all_at_once(quotient: &Quotient) -> f64 {
    let flows = 0..narrow::<u32, _>(quotient.classes.len());
    let mut active: Vec<Active> = flows
        .map(|class| Active {
            flow: Flow { step: 0, class },
            left: 1.0,
            rate: 0.0,
        })
        .collect();
    Shares::new(quotient.resources.len()).share(quotient, &mut active);
    let end_ns = |active: &Active| {
        let flow = &quotient.classes[active.flow.class as usize].flow;
        flow.start_ns + 1.0 / active.rate + flow.tail_ns
    };
    active.iter().map(end_ns).fold(0.0, f64::max)
}

impl Simulation<'_> {
    fn run(&mut self) {
        loop {
            let next_event = self.events.peek().map(|event| event.0.time_ns);
            let next_end = self.next_end_ns();
            let time_ns = match (next_event, next_end) {
                (None, None) => return,
                (event, end) => event
                    .unwrap_or(f64::INFINITY)
                    .min(end.unwrap_or(f64::INFINITY)),
            };
            let changed = self.advance(time_ns);
            if self.take_events() || changed {
                self.shares.share(self.quotient, &mut self.active);
            }
        }
    }

    fn next_end_ns(&self) -> Option<f64> {
        let ends = self
            .active
            .iter()
            .map(|flow| self.now_ns + flow.left / flow.rate);
        ends.min_by(f64::total_cmp)
    }

    /// Moves to a time; flows whose last byte has gone leave the wire.
    fn advance(&mut self, time_ns: f64) -> bool {
        let elapsed_ns = time_ns - self.now_ns;
        self.now_ns = time_ns;
        let before = self.active.len();
        let (quotient, events) = (self.quotient, &mut self.events);
        self.active.retain_mut(|active| {
            active.left -= active.rate * elapsed_ns;
            let on_wire = active.left > active.rate * TIE_NS;
            if !on_wire {
                let class = &quotient.classes[active.flow.class as usize];
                events.push(Reverse(Event {
                    time_ns: time_ns + class.flow.tail_ns,
                    flow: active.flow,
                    completes: true,
                }));
            }
            on_wire
        });
        self.active.len() != before
    }

    /// Takes the events that are due; tells whether flows came onto the wire.
    fn take_events(&mut self) -> bool {
        let mut started = false;
        while let Some(&Reverse(event)) = self.events.peek() {
            if event.time_ns > self.now_ns + TIE_NS {
                break;
            }
            self.events.pop();
            if event.completes {
                self.complete(event);
            } else {
                started = true;
                self.active.push(Active {
                    flow: event.flow,
                    left: 1.0,
                    rate: 0.0,
                });
            }
        }
        started
    }

    fn complete(&mut self, event: Event) {
        self.end_ns = self.end_ns.max(event.time_ns);
        let step = event.flow.step + 1;
        if step >= self.quotient.steps {
            return;
        }
        for &class in &self.quotient.classes[event.flow.class as usize].after {
            let start_ns = self.quotient.classes[class as usize].flow.start_ns;
            self.events.push(Reverse(Event {
                time_ns: event.time_ns + start_ns + self.quotient.step_delay_ns,
                flow: Flow { step, class },
                completes: false,
            }));
        }
    }
}

/// Max-min fair rates by raising all rates together until a link is full or a
/// flow is as fast as it can be alone.
struct Shares {
    /// Rate left on each link.
    left: Vec<f64>,
    /// What flows still rising take of each link per unit of their rate.
    demand: Vec<f64>,
    /// Links in use.
    used: Vec<u32>,
}

impl Shares {
    fn new(links: usize) -> Self {
        Self {
            left: vec![0.0; links],
            demand: vec![0.0; links],
            used: Vec::new(),
        }
    }

    fn share(&mut self, quotient: &Quotient, active: &mut [Active]) {
        self.collect(quotient, active);
        // Flows still rising are kept in front.
        let mut rising = active.len();
        while rising > 0 {
            let before = rising;
            let level = self.level(quotient, &active[..rising]);
            let mut index = 0;
            while index < rising {
                let flow = active[index].flow;
                let class = &quotient.classes[flow.class as usize];
                let capped = level * class.flow.least_ns >= 1.0 - 1e-9;
                let uses = || class.uses.iter().copied();
                let full = |(link, _): (u32, f64)| {
                    let link = link as usize;
                    self.left[link] <= self.demand[link] * level * (1.0 + 1e-9)
                };
                if !capped && !uses().any(full) {
                    index += 1;
                    continue;
                }
                active[index].rate = level;
                rising -= 1;
                active.swap(index, rising);
                // Links are settled after the round, so that the order of flows
                // does not matter.
            }
            self.settle(quotient, &active[rising..before]);
        }
    }

    fn collect(&mut self, quotient: &Quotient, active: &mut [Active]) {
        for &link in &self.used {
            self.demand[link as usize] = 0.0;
        }
        self.used.clear();
        for flow in active.iter_mut() {
            flow.rate = 0.0;
            for (link, load) in loads(quotient, flow.flow) {
                let slot = &mut self.demand[link as usize];
                if *slot == 0.0 {
                    self.used.push(link);
                    self.left[link as usize] = quotient.resources[link as usize].capacity;
                }
                *slot += load;
            }
        }
    }

    /// The rate at which the next link is full or the next flow at its limit.
    fn level(&self, quotient: &Quotient, rising: &[Active]) -> f64 {
        let limits = rising.iter().map(|flow| {
            let class = &quotient.classes[flow.flow.class as usize];
            1.0 / class.flow.least_ns
        });
        let links = self.used.iter().filter_map(|&link| {
            let link = link as usize;
            (self.demand[link] > 0.0).then(|| self.left[link] / self.demand[link])
        });
        limits.chain(links).fold(f64::INFINITY, f64::min)
    }

    /// Takes what flows that no longer rise have from their links.
    fn settle(&mut self, quotient: &Quotient, frozen: &[Active]) {
        for flow in frozen {
            for (link, load) in loads(quotient, flow.flow) {
                let link = link as usize;
                self.left[link] = (self.left[link] - load * flow.rate).max(0.0);
                self.demand[link] -= load;
                if self.demand[link] < NO_DEMAND {
                    self.demand[link] = 0.0;
                }
            }
        }
    }
}

/// Links a flow uses, with what it takes of them per unit of its rate.
fn loads(quotient: &Quotient, flow: Flow) -> impl Iterator<Item = (u32, f64)> {
    let uses = quotient.classes[flow.class as usize].uses.iter();
    uses.map(move |&(link, load)| {
        let later = flow.step > 0;
        let share = if later {
            quotient.resources[link as usize].later_share
        } else {
            1.0
        };
        (link, load * share)
    })
}
