//! What happened when: `chrome_trace.json` for <https://ui.perfetto.dev>, and
//! `event_trace.json`.

use std::io::{self, Write};

use super::ClusterFacts;
use super::text::Text;
use crate::catalog::Attention;
use crate::number::narrow;
use crate::simulator::{EventFact, EventKind, StageEndFact, StageFact};

/// Text is handed on in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Executions of batches on stages.
#[derive(Debug, Default)]
pub(super) struct ChromeTrace {
    /// (request, tokens) of all batches.
    members: Vec<(u32, u32)>,
    /// Where the members of a batch begin and how many there are, by its number.
    batches: Vec<(usize, u32)>,
    /// In order of their ends.
    slices: Vec<Slice>,
    /// What the stages of each replica execute, seconds.
    running: Vec<Vec<f64>>,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    batch_id: u64,
    ended_at_s: f64,
    execution_s: f64,
    replica: u32,
    stage: u32,
}

impl ChromeTrace {
    pub(super) fn new(facts: &ClusterFacts) -> Self {
        Self {
            running: per_stage(facts, 0.0),
            ..Self::default()
        }
    }

    pub(super) fn stage_started(&mut self, fact: &StageFact<'_>) {
        self.running[fact.replica as usize][fact.stage as usize] = fact.time.total_s();
        if fact.stage == 0 {
            let batch = narrow::<usize, _>(fact.batch_id);
            if self.batches.len() <= batch {
                self.batches.resize(batch + 1, (0, 0));
            }
            self.batches[batch] = (self.members.len(), narrow::<u32, _>(fact.requests.len()));
            self.members.extend_from_slice(fact.requests);
        }
    }

    pub(super) fn stage_ended(&mut self, fact: &StageEndFact) {
        self.slices.push(Slice {
            batch_id: fact.batch_id,
            ended_at_s: fact.ended_at_s,
            execution_s: self.running[fact.replica as usize][fact.stage as usize],
            replica: fact.replica,
            stage: fact.stage,
        });
    }

    pub(super) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let mut text = Text::with_capacity(PIECE_BYTES + (1 << 16));
        let mut ids = Text::default();
        text.str("{\"traceEvents\": [");
        for (position, slice) in self.slices.iter().enumerate() {
            if position > 0 {
                text.str(", ");
            }
            let (first, count) = self.batches[narrow::<usize, _>(slice.batch_id)];
            let members = &self.members[first..first + count as usize];
            ids.clear();
            ids.int_list(members.iter().map(|(id, _)| u64::from(*id)));
            put_slice(&mut text, slice, &ids, members);
            if text.bytes().len() >= PIECE_BYTES {
                file.write_all(text.bytes())?;
                text.clear();
            }
        }
        text.str("]}");
        file.write_all(text.bytes())
    }
}

fn put_slice(text: &mut Text, slice: &Slice, ids: &Text, members: &[(u32, u32)]) {
    text.str("{\"name\": \"").append(ids);
    text.str("\", \"ph\": \"X\", \"ts\": ");
    text.float((slice.ended_at_s - slice.execution_s) * 1e6);
    text.str(", \"dur\": ").float(slice.execution_s * 1e6);
    text.str(", \"pid\": ").int(u64::from(slice.replica));
    text.str(", \"tid\": ").int(u64::from(slice.stage));
    text.str(", \"args\": {\"batch_id\": ").int(slice.batch_id);
    text.str(", \"batch_size\": ").int(members.len() as u64);
    text.str(", \"request_ids\": ").append(ids);
    text.str(", \"num_tokens\": ");
    text.int_list(members.iter().map(|(_, tokens)| u64::from(*tokens)));
    text.str("}}");
}

/// Every event as it was handled. Keys are those of the original's events, whose
/// own trace cannot be written:
/// - all: `time`, `event_type`;
/// - `REQUEST_ARRIVAL`, `KV_ARRIVAL`: `request`;
/// - `GLOBAL_SCHEDULE`: `replica_set`, `request_mapping` (`[replica, request]`);
/// - `REPLICA_SCHEDULE`: `replica_id`, `batch_ids`;
/// - `BATCH_STAGE_ARRIVAL`: `replica_id`, `stage_id`, `batch_id`;
/// - `REPLICA_STAGE_SCHEDULE`: the same and `batch_stage_id`, `is_last_stage`,
///   null where the stage was busy or had nothing to do;
/// - `BATCH_STAGE_END`: the same, never null;
/// - `BATCH_END`: `batch_id`.
#[derive(Debug, Default)]
pub(super) struct EventTrace {
    events: Vec<Traced>,
    routed: Vec<(u32, u32)>,
    formed: Vec<u64>,
    /// What the event that is being handled has started.
    started: Option<u64>,
    /// Stage runs in execution.
    running: Vec<Vec<u64>>,
}

#[derive(Debug)]
struct Traced {
    fact: EventFact,
    /// Where the next event's routings, or batches, begin.
    until: usize,
    stage_run: Option<u64>,
}

impl EventTrace {
    pub(super) fn new(facts: &ClusterFacts) -> Self {
        Self {
            running: per_stage(facts, 0),
            ..Self::default()
        }
    }

    pub(super) fn routed(&mut self, request_id: u32, replica: u32) {
        self.routed.push((replica, request_id));
    }

    pub(super) fn formed(&mut self, batch_id: u64) {
        self.formed.push(batch_id);
    }

    pub(super) fn stage_started(&mut self, fact: &StageFact<'_>) {
        self.running[fact.replica as usize][fact.stage as usize] = fact.stage_run_id;
        self.started = Some(fact.stage_run_id);
    }

    pub(super) fn event(&mut self, fact: &EventFact) {
        let stage_run = match (fact.kind, fact.replica, fact.stage) {
            (EventKind::BatchStageEnd, Some(replica), Some(stage)) => {
                Some(self.running[replica as usize][stage as usize])
            }
            _ => self.started.take(),
        };
        self.events.push(Traced {
            fact: *fact,
            until: match fact.kind {
                EventKind::GlobalSchedule => self.routed.len(),
                EventKind::ReplicaSchedule => self.formed.len(),
                _ => 0,
            },
            stage_run,
        });
    }

    pub(super) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        let mut text = Text::with_capacity(PIECE_BYTES + (1 << 16));
        let (mut routed, mut formed) = (0, 0);
        text.str("[");
        for (position, event) in self.events.iter().enumerate() {
            if position > 0 {
                text.str(", ");
            }
            text.str("{\"time\": ").float(event.fact.time_s);
            text.str(", \"event_type\": \"")
                .str(event.fact.kind.name())
                .str("\"");
            match event.fact.kind {
                EventKind::GlobalSchedule => {
                    put_routing(&mut text, &self.routed[routed..event.until]);
                    routed = event.until;
                }
                EventKind::ReplicaSchedule => {
                    put_number(&mut text, "replica_id", event.fact.replica.map(u64::from));
                    let batches = &self.formed[formed..event.until];
                    text.str(", \"batch_ids\": ")
                        .int_list(batches.iter().copied());
                    formed = event.until;
                }
                _ => self.put_subjects(&mut text, event),
            }
            text.str("}");
            if text.bytes().len() >= PIECE_BYTES {
                file.write_all(text.bytes())?;
                text.clear();
            }
        }
        text.str("]");
        file.write_all(text.bytes())
    }

    fn put_subjects(&self, text: &mut Text, event: &Traced) {
        let fact = &event.fact;
        if let Some(request) = fact.request_id {
            put_number(text, "request", Some(u64::from(request)));
        }
        if let (Some(replica), Some(stage)) = (fact.replica, fact.stage) {
            put_number(text, "replica_id", Some(u64::from(replica)));
            put_number(text, "stage_id", Some(u64::from(stage)));
            put_number(text, "batch_id", fact.batch_id);
            if fact.kind != EventKind::BatchStageArrival {
                put_number(text, "batch_stage_id", event.stage_run);
                let stages = self.running[replica as usize].len();
                let last = event.stage_run.map(|_| stage as usize + 1 == stages);
                text.str(", \"is_last_stage\": ").str(match last {
                    None => "null",
                    Some(true) => "true",
                    Some(false) => "false",
                });
            }
        } else if let Some(batch_id) = fact.batch_id {
            put_number(text, "batch_id", Some(batch_id));
        }
    }
}

fn put_number(text: &mut Text, key: &str, value: Option<u64>) {
    text.str(", \"").str(key).str("\": ");
    match value {
        Some(value) => text.int(value),
        None => text.str("null"),
    };
}

/// Replicas and requests of a global schedule.
fn put_routing(text: &mut Text, routed: &[(u32, u32)]) {
    let mut replicas: Vec<u64> = routed.iter().map(|(r, _)| u64::from(*r)).collect();
    replicas.sort_unstable();
    replicas.dedup();
    text.str(", \"replica_set\": ")
        .int_list(replicas.into_iter());
    text.str(", \"request_mapping\": [");
    for (position, (replica, request)) in routed.iter().enumerate() {
        text.str(if position > 0 { ", [" } else { "[" });
        text.int(u64::from(*replica)).str(", ");
        text.int(u64::from(*request)).str("]");
    }
    text.str("]");
}

/// `cluster.json`: every replica with its model and how it is cut.
pub(super) fn cluster_json(facts: &ClusterFacts) -> serde_json::Value {
    let mut replicas = Vec::new();
    for pool in &facts.pools {
        let model = &pool.model;
        let kv_heads = match model.attention {
            Attention::Gqa { kv_heads, .. } => kv_heads,
            Attention::Mla { heads, .. } => heads,
        };
        for _ in 0..pool.replicas {
            replicas.push(serde_json::json!({
                "id": replicas.len(),
                "num_layers": model.layers,
                "num_q_heads": model.attention.heads(),
                "num_kv_heads": kv_heads,
                "embedding_dim": model.hidden_size,
                "mlp_hidden_dim": model.intermediate_size,
                "use_gated_mlp": model.gated_mlp,
                "vocab_size": model.vocab_size,
                "num_pipeline_stages": pool.parallelism.pipeline_parallel,
                "num_tensor_parallel_workers": pool.parallelism.tensor_parallel,
            }));
        }
    }
    serde_json::json!({ "replicas": replicas })
}

/// One value for every stage of every replica.
fn per_stage<T: Copy>(facts: &ClusterFacts, value: T) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    for pool in &facts.pools {
        let stages = vec![value; pool.parallelism.pipeline_parallel as usize];
        all.resize(all.len() + pool.replicas as usize, stages);
    }
    all
}
