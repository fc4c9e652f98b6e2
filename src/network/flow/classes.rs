//! Flows and links that behave alike, found by colour refinement.
//!
//! Two edges are alike if they cost the same alone, take alike links and follow
//! and precede alike edges; two links if they are as fast and carry alike edges.
//! With max-min fairness alike flows have equal rates throughout, so one of each
//! class is simulated: a ring of 16,384 GPUs has a handful of classes.

use std::collections::HashMap;

use super::graph::{FlowGraph, FlowKind, NONE, Resource};
use crate::number::narrow;

/// Rounds of refinement at most. A ring in which one link differs needs one per
/// edge to be told apart completely; beyond this, edges far from the odd link
/// count as alike.
const ROUNDS_MAX: usize = 40;

/// One class of edges.
#[derive(Debug, Clone)]
pub(super) struct Class {
    pub(super) flow: FlowKind,
    /// Links it uses, and how many of its flows use the same one.
    pub(super) uses: Vec<(u32, f64)>,
    /// Classes whose flows wait for this one's.
    pub(super) after: Vec<u32>,
}

/// A flow graph with one edge per class.
#[derive(Debug, Clone)]
pub(super) struct Quotient {
    pub(super) resources: Vec<Resource>,
    pub(super) classes: Vec<Class>,
    pub(super) steps: u32,
    pub(super) step_delay_ns: f64,
}

fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn join(a: u64, b: u64) -> u64 {
    mix(a.rotate_left(23) ^ mix(b.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// Colours, numbered by first appearance.
fn number(colours: &[u64]) -> (Vec<u32>, Vec<u32>) {
    let mut ids: HashMap<u64, u32> = HashMap::new();
    let mut firsts = Vec::new();
    let numbered = colours.iter().enumerate().map(|(index, &colour)| {
        *ids.entry(colour).or_insert_with(|| {
            firsts.push(narrow::<u32, _>(index));
            narrow::<u32, _>(firsts.len()) - 1
        })
    });
    let numbered = numbered.collect();
    (numbered, firsts)
}

struct Colours {
    edges: Vec<u64>,
    links: Vec<u64>,
}

impl Colours {
    fn start(graph: &FlowGraph) -> Self {
        let link =
            |resource: &Resource| join(resource.capacity.to_bits(), resource.later_share.to_bits());
        let kinds: Vec<u64> = graph
            .kinds
            .iter()
            .map(|kind| {
                let alone = join(kind.start_ns.to_bits(), kind.tail_ns.to_bits());
                let alone = join(alone, kind.window_ns[1].to_bits());
                join(alone, kind.least_ns.to_bits())
            })
            .collect();
        Self {
            edges: graph
                .edges
                .iter()
                .map(|edge| kinds[edge.kind as usize])
                .collect(),
            links: graph.resources.iter().map(link).collect(),
        }
    }

    fn refine(&mut self, graph: &FlowGraph) {
        let mut carried = vec![0_u64; self.links.len()];
        let mut follower = vec![0_u64; self.edges.len()];
        for (edge, &colour) in graph.edges.iter().zip(&self.edges) {
            for &link in edge.stages.as_slice() {
                let sum = &mut carried[link as usize];
                *sum = sum.wrapping_add(mix(colour));
            }
            if edge.before != NONE {
                let sum = &mut follower[edge.before as usize];
                *sum = sum.wrapping_add(mix(colour));
            }
        }
        for (link, sum) in self.links.iter_mut().zip(carried) {
            *link = join(*link, sum);
        }
        let next: Vec<u64> = graph
            .edges
            .iter()
            .enumerate()
            .map(|(index, edge)| {
                let before = if edge.before == NONE {
                    0
                } else {
                    self.edges[edge.before as usize]
                };
                let mut colour = join(join(self.edges[index], before), follower[index]);
                for &link in edge.stages.as_slice() {
                    colour = join(colour, self.links[link as usize]);
                }
                colour
            })
            .collect();
        self.edges = next;
    }
}

impl Quotient {
    pub(super) fn of(graph: &FlowGraph) -> Self {
        let mut colours = Colours::start(graph);
        let (mut ids, mut firsts) = number(&colours.edges);
        for round in 0..ROUNDS_MAX {
            colours.refine(graph);
            let (next, next_firsts) = number(&colours.edges);
            let settled = next_firsts.len() == firsts.len();
            (ids, firsts) = (next, next_firsts);
            // The first round may only pass on what links tell.
            if settled && round > 0 {
                break;
            }
        }
        Self::from_classes(graph, &colours.links, &ids, &firsts)
    }

    /// Makes windows wait for acknowledgements as much as links were busy in a
    /// collective that took `time_ns`. False if that changes nothing.
    pub(super) fn wait_for_data(&mut self, time_ns: f64) -> bool {
        let mut busy = vec![0.0_f64; self.resources.len()];
        for class in &self.classes {
            for &(link, load) in &class.uses {
                let capacity = self.resources[link as usize].capacity;
                busy[link as usize] += load * f64::from(self.steps) / (capacity * time_ns);
            }
        }
        let mut changed = false;
        for class in &mut self.classes {
            let links = class.uses.iter().map(|&(link, _)| busy[link as usize]);
            let busy = links.fold(0.0, f64::max).min(1.0);
            let flow = &mut class.flow;
            let window_ns = flow.window_ns[0] + busy * flow.window_ns[1];
            changed |= window_ns > flow.least_ns;
            flow.least_ns = flow.least_ns.max(window_ns);
        }
        changed
    }

    fn from_classes(graph: &FlowGraph, links: &[u64], ids: &[u32], firsts: &[u32]) -> Self {
        let (link_ids, link_firsts) = number(links);
        let mut classes: Vec<Class> = firsts
            .iter()
            .map(|&first| Class {
                flow: graph.kinds[graph.edges[first as usize].kind as usize],
                uses: Vec::new(),
                after: Vec::new(),
            })
            .collect();
        // What the first link of each class carries, by class of edges.
        let mut loads: HashMap<(u32, u32), f64> = HashMap::new();
        for (edge, &id) in graph.edges.iter().zip(ids) {
            for &link in edge.stages.as_slice() {
                let class = link_ids[link as usize];
                if link_firsts[class as usize] == link {
                    *loads.entry((id, class)).or_default() += 1.0;
                }
            }
        }
        let mut loads: Vec<((u32, u32), f64)> = loads.into_iter().collect();
        loads.sort_unstable_by_key(|&(key, _)| key);
        for ((id, link), load) in loads {
            classes[id as usize].uses.push((link, load));
        }
        for (id, &first) in firsts.iter().enumerate() {
            let before = graph.edges[first as usize].before;
            if before != NONE {
                classes[ids[before as usize] as usize]
                    .after
                    .push(narrow::<u32, _>(id));
            }
        }
        let resource = |&first: &u32| graph.resources[first as usize];
        Self {
            resources: link_firsts.iter().map(resource).collect(),
            classes,
            steps: graph.steps,
            step_delay_ns: graph.step_delay_ns,
        }
    }
}
