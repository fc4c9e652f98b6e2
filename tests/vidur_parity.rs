//! Recorded runs of Vidur from their flags: the same requests drawn, the same
//! blocks planned, the same batches, in the same order, at the same times, and the
//! same events.
//!
//! A few cases are in `tests/fixtures/vidur_runs`; `VIDUR_SWEEP_VIDUR_RUNS` names a
//! folder of more.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

#[path = "support/vidur_runs.rs"]
mod vidur_runs;

use std::collections::BTreeMap;
use std::path::Path;

use vidur_runs::{Case, close, fixtures, named_cases};
use vidur_sweep::simulator::{BatchFact, Compat, EventFact, Recorder, RequestRecord, simulate};

/// Fields of a CSV file without its header.
fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let row = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader
        .records()
        .map(|record| row(record.unwrap()))
        .collect()
}

#[derive(Default)]
struct Everything {
    batches: Vec<(u64, u32, f64, f64, u32, u32, String)>,
    events: Vec<EventFact>,
    requests: BTreeMap<u32, RequestRecord>,
}

impl Recorder for Everything {
    const WANTS_EVENTS: bool = true;
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        self.requests.insert(record.request_id, record.clone());
    }
    fn token_intervals(&mut self, _interval_s: f64, _count: u32) {}
    fn event(&mut self, fact: &EventFact) {
        self.events.push(*fact);
    }
    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        let members: Vec<String> = (fact.requests.iter())
            .map(|(id, tokens)| match tokens {
                1 => id.to_string(),
                _ => format!("{id}:{tokens}"),
            })
            .collect();
        self.batches.push((
            fact.batch_id,
            fact.replica,
            fact.scheduled_at_s,
            fact.completed_at_s,
            fact.tokens,
            fact.prefill_tokens,
            members.join(";"),
        ));
    }
}

/// The first difference between a recorded case and our run of it.
fn compare(case: &Case) -> Result<(), String> {
    let number = |text: &str| text.parse::<f64>().unwrap();
    let (summary, file) = (&case.summary, |name: &str| case.folder.join(name));
    let prepared = case.prepare(Compat::Vidur, true).unwrap();
    let blocks = prepared.deployment.cluster.pools[0].kv_cache.num_blocks;
    if summary["num_blocks"].as_f64() != Some(blocks as f64) {
        return Err(format!("{} blocks, ours {blocks}", summary["num_blocks"]));
    }
    let mut ours = Everything::default();
    let totals = simulate(&prepared.deployment.cluster, &prepared.workload, &mut ours);
    for (row, event) in rows(&file("events_head.csv")).iter().zip(&ours.events) {
        let kind = serde_json::to_value(event.kind).unwrap();
        let same = close(number(&row[1]), event.time_s)
            && number(&row[2]) as u64 == event.id
            && row[3] == kind.as_str().unwrap();
        if !same {
            return Err(format!("event {row:?}, ours {event:?}"));
        }
    }
    let recorded = rows(&file("batches.csv"));
    for (row, batch) in recorded.iter().zip(&ours.batches) {
        let same = number(&row[0]) as u64 == batch.0
            && number(&row[1]) as u32 == batch.1
            && close(number(&row[2]), batch.2)
            && close(number(&row[3]), batch.3)
            && number(&row[5]) as u32 == batch.4
            && number(&row[6]) as u32 == batch.5
            && row[8] == batch.6;
        if !same {
            return Err(format!("batch {row:?}, ours {batch:?}"));
        }
    }
    let batches = summary["batches_rows_total"].as_u64().unwrap();
    if ours.batches.len() as u64 != batches {
        return Err(format!("{batches} batches, ours {}", ours.batches.len()));
    }
    if !close(summary["sim_end"].as_f64().unwrap(), totals.end_s) {
        return Err(format!("end {}, ours {}", summary["sim_end"], totals.end_s));
    }
    for row in rows(&file("requests_out.csv")) {
        let ours = &ours.requests[&(number(&row[0]) as u32)];
        if row[6] != "1" {
            continue;
        }
        let same = close(number(&row[2]), ours.scheduled_at_s)
            && close(number(&row[4]), ours.prefill_completed_at_s)
            && close(number(&row[5]), ours.completed_at_s)
            && number(&row[7]) as u32 == ours.restarts
            && number(&row[8]) as u32 == ours.prefill_tokens
            && number(&row[9]) as u32 == ours.decode_tokens
            && close(number(&row[11]), ours.execution_s)
            && close(number(&row[13]), ours.preemption_s);
        if !same {
            return Err(format!("request {row:?}, ours {ours:?}"));
        }
    }
    Ok(())
}

/// The first request that the generators draw otherwise than recorded, to the
/// last bit.
fn compare_requests(case: &Case) -> Result<(), String> {
    let ours = case
        .prepare(Compat::Vidur, false)
        .map_err(|e| e.to_string())?;
    let recorded = rows(&case.folder.join("requests.csv"));
    let count = ours.workload.requests.len();
    if recorded.len() != count {
        return Err(format!("{} requests, ours {count}", recorded.len()));
    }
    for (row, request) in recorded.iter().zip(&ours.workload.requests) {
        let same = row[1].parse::<f64>().unwrap() == request.arrived_at_s
            && row[2].parse::<f64>().unwrap() == f64::from(request.prefill_tokens)
            && row[3].parse::<f64>().unwrap() == f64::from(request.decode_tokens);
        if !same {
            return Err(format!("request {row:?}, ours {request:?}"));
        }
    }
    Ok(())
}

/// Compares all of `cases`.
fn compare_all(cases: &[Case], compare: fn(&Case) -> Result<(), String>) {
    let mut different = 0;
    for case in cases {
        match compare(case) {
            Ok(()) => println!("{}: same", case.name()),
            Err(difference) => {
                different += 1;
                println!("{}: DIFFERENT: {difference}", case.name());
            }
        }
    }
    assert_eq!(different, 0, "of {} cases", cases.len());
}

#[test]
fn recorded_runs_are_reproduced_event_for_event() {
    compare_all(&fixtures(), compare);
}

#[test]
#[ignore = "needs the folder of recorded runs"]
fn more_recorded_runs_are_reproduced_event_for_event() {
    compare_all(&named_cases(), compare);
    compare_all(&named_cases(), compare_requests);
}
