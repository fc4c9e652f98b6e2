//! Requests: `request_metrics.csv`, and the distributions and series of its
//! columns.

use super::frame::{Frame, Values};
use super::{ClusterFacts, phases};
use crate::number::narrow;
use crate::results::RequestRow;
use crate::simulator::{ArrivalFact, RequestOutcome, RequestRecord};
use crate::units::DType;

/// The name of the key column.
pub(super) const REQUEST_ID: &str = "Request Id";
/// The name of the time axis.
pub(super) const TIME_S: &str = "Time (sec)";

type Metric = (&'static str, fn(&RequestRecord) -> f64);

fn output_tokens(record: &RequestRecord) -> f64 {
    f64::from(record.decode_tokens)
}

/// What a completed request is measured by, in the order of the file. Token
/// counts are those at completion: under Vidur's rules restarts have changed
/// them.
pub(super) const TIMES: [Metric; 14] = [
    ("request_e2e_time", RequestRecord::e2e_s),
    ("request_e2e_time_normalized", |r| {
        r.e2e_s() / output_tokens(r)
    }),
    ("request_execution_time", |r| r.execution_s),
    ("request_execution_time_normalized", |r| {
        r.execution_s / output_tokens(r)
    }),
    ("request_model_execution_time", |r| r.model_execution_s),
    ("request_model_execution_time_normalized", |r| {
        r.model_execution_s / output_tokens(r)
    }),
    ("request_preemption_time", |r| r.preemption_s),
    (
        "request_scheduling_delay",
        RequestRecord::scheduling_delay_s,
    ),
    ("request_execution_plus_preemption_time", |r| {
        r.execution_s + r.preemption_s
    }),
    ("request_execution_plus_preemption_time_normalized", |r| {
        (r.execution_s + r.preemption_s) / output_tokens(r)
    }),
    ("prefill_e2e_time", RequestRecord::ttft_s),
    ("prefill_time_execution_plus_preemption", |r| {
        r.prefill_completed_at_s - r.scheduled_at_s
    }),
    ("prefill_time_execution_plus_preemption_normalized", |r| {
        (r.prefill_completed_at_s - r.scheduled_at_s) / f64::from(r.prefill_tokens)
    }),
    ("decode_time_execution_plus_preemption_normalized", |r| {
        (r.completed_at_s - r.prefill_completed_at_s) / output_tokens(r)
    }),
];

/// What arrivals and completions tell.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// In order of arrival.
    arrivals: Vec<ArrivalFact>,
    /// In the order in which they ended.
    ended: Vec<RequestRecord>,
    /// Of those, the completed ones that count, in order of completion.
    completed: Vec<u32>,
}

impl Requests {
    pub(super) fn with_capacity(requests: usize) -> Self {
        Self {
            arrivals: Vec::with_capacity(requests),
            ended: Vec::with_capacity(requests),
            completed: Vec::with_capacity(requests),
        }
    }

    pub(super) fn arrived(&mut self, fact: &ArrivalFact) {
        self.arrivals.push(*fact);
    }

    /// Keeps a request that has ended; gives its place.
    pub(super) fn ended(&mut self, record: &RequestRecord) -> u32 {
        self.ended.push(record.clone());
        narrow::<u32, _>(self.ended.len()) - 1
    }

    /// Requests of a batch that has ended, as [`Self::ended`] placed them. They
    /// count in the order of the batch.
    pub(super) fn completed(&mut self, places: &mut Vec<u32>, batch: &[(u32, u32)]) {
        let ended = &self.ended;
        in_batch_order(places, |&place| ended[place as usize].request_id, batch);
        self.completed.append(places);
    }

    fn completed_records(&self) -> impl Iterator<Item = &RequestRecord> {
        let record = |&place: &u32| &self.ended[place as usize];
        self.completed.iter().map(record)
    }

    /// `request_metrics.csv`: a row for every request that has arrived, by number;
    /// blank what a request has not come to.
    pub(super) fn table(&self, facts: &ClusterFacts) -> Frame {
        let mut arrivals: Vec<(usize, &ArrivalFact)> = self.arrivals.iter().enumerate().collect();
        arrivals.sort_by_key(|(_, arrival)| arrival.request_id);
        let mut places = vec![None; self.slots()];
        for &place in &self.completed {
            places[self.ended[place as usize].request_id as usize] = Some(place);
        }
        let records: Vec<Option<&RequestRecord>> = (arrivals.iter())
            .map(|(_, arrival)| {
                places[arrival.request_id as usize].map(|place| &self.ended[place as usize])
            })
            .collect();
        let ids = arrivals.iter().map(|(_, a)| u64::from(a.request_id));
        let mut columns = vec![(REQUEST_ID.to_owned(), Values::Ints(ids.collect()))];
        for (name, value) in TIMES {
            let values = records.iter().map(|record| record.map_or(f64::NAN, value));
            columns.push((name.to_owned(), Values::Floats(values.collect())));
        }
        let more = phases::wanted(facts.compat);
        if more {
            columns.extend(phases::columns(&records, facts));
        }
        let positions = arrivals.iter().map(|(position, _)| *position);
        columns.extend(self.arrival_columns(positions.collect()));
        let restarts = records.iter().map(|r| r.map(|r| u64::from(r.restarts)));
        columns.push((
            "request_num_restarts".to_owned(),
            Values::of_counts(restarts.collect()),
        ));
        if facts.compat.is_none() {
            columns.push(phases::tbt(&records));
        }
        Frame {
            index: None,
            columns,
        }
    }

    /// One more than the largest number of a request.
    fn slots(&self) -> usize {
        let ended = self.ended.iter().map(|record| record.request_id);
        let arrived = self.arrivals.iter().map(|arrival| arrival.request_id);
        ended.chain(arrived).max().map_or(0, |id| id as usize + 1)
    }

    /// What is known at arrival, for the arrivals at `positions`.
    fn arrival_columns(&self, positions: Vec<usize>) -> Vec<(String, Values)> {
        let counts = |tokens: fn(&ArrivalFact) -> u32| {
            let count = |&position: &usize| u64::from(tokens(&self.arrivals[position]));
            Values::Ints(positions.iter().map(count).collect())
        };
        let ratio = |&position: &usize| {
            let arrival = &self.arrivals[position];
            f64::from(arrival.prefill_tokens) / f64::from(arrival.decode_tokens)
        };
        let delay = |&position: &usize| self.inter_arrival_s(position);
        let named = |name: &str, values| (name.to_owned(), values);
        vec![
            named(
                "request_inter_arrival_delay",
                Values::Floats(positions.iter().map(delay).collect()),
            ),
            named(
                "request_num_tokens",
                counts(|a| a.prefill_tokens + a.decode_tokens),
            ),
            named("request_num_prefill_tokens", counts(|a| a.prefill_tokens)),
            named("request_num_decode_tokens", counts(|a| a.decode_tokens)),
            named(
                "request_pd_ratio",
                Values::Floats(positions.iter().map(ratio).collect()),
            ),
        ]
    }

    /// Since the arrival before; NaN for the first.
    fn inter_arrival_s(&self, position: usize) -> f64 {
        match position.checked_sub(1) {
            Some(before) => self.arrivals[position].time_s - self.arrivals[before].time_s,
            None => f64::NAN,
        }
    }

    /// A metric of completed requests with its distribution function: sorted, equal
    /// values in order of completion.
    pub(super) fn distribution(&self, (name, value): Metric) -> Option<Frame> {
        let values: Vec<f64> = self.completed_records().map(value).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let ids: Vec<u64> = self
            .completed_records()
            .map(|record| u64::from(record.request_id))
            .collect();
        let share = |rank: usize| (rank + 1) as f64 / values.len() as f64;
        (!values.is_empty()).then(|| Frame {
            index: Some(order.iter().map(|&place| place as u64).collect()),
            columns: vec![
                (
                    REQUEST_ID.to_owned(),
                    Values::Ints(order.iter().map(|&place| ids[place]).collect()),
                ),
                (
                    name.to_owned(),
                    Values::Floats(order.iter().map(|&place| values[place]).collect()),
                ),
                (
                    "cdf".to_owned(),
                    Values::Floats((0..values.len()).map(share).collect()),
                ),
            ],
        })
    }

    /// What is drawn as histograms: name and values, those that are known.
    pub(super) fn histograms(&self) -> Vec<(String, Vec<f64>)> {
        let mut columns = self.arrival_columns((0..self.arrivals.len()).collect());
        let restarts = self.completed_records().map(|r| u64::from(r.restarts));
        columns.push((
            "request_num_restarts".to_owned(),
            Values::Ints(restarts.collect()),
        ));
        let known = |values: Values| {
            let numbers = (0..values.len()).map(|row| values.get(row));
            numbers.filter(|value| value.is_finite()).collect()
        };
        (columns.into_iter())
            .map(|(name, values)| (name, known(values)))
            .collect()
    }

    /// When requests arrived and were completed.
    pub(super) fn series(&self) -> [(&'static str, Vec<f64>); 2] {
        let arrivals = self.arrivals.iter().map(|arrival| arrival.time_s);
        let completions = self.completed_records().map(|r| r.completed_at_s);
        [
            ("request_arrival", arrivals.collect()),
            ("request_completion", completions.collect()),
        ]
    }

    /// Rows of `requests.parquet`: every request of the workload, by number.
    pub(super) fn rows(&self, kv_cache_dtype: Option<DType>) -> Vec<RequestRow> {
        let mut positions = vec![None; self.slots()];
        for (position, arrival) in self.arrivals.iter().enumerate() {
            positions[arrival.request_id as usize] = Some(position);
        }
        let mut records: Vec<&RequestRecord> = self.ended.iter().collect();
        records.sort_by_key(|record| record.request_id);
        (records.into_iter())
            .map(|record| {
                let position = positions[record.request_id as usize];
                let arrival = position.map(|position| &self.arrivals[position]);
                RequestRow {
                    record: record.clone(),
                    inter_arrival_delay_s: position
                        .map_or(f64::NAN, |position| self.inter_arrival_s(position)),
                    prompt_tokens: arrival.map_or(record.prefill_tokens, |a| a.prefill_tokens),
                    output_tokens: arrival.map_or(record.decode_tokens, |a| a.decode_tokens),
                    measured: true,
                    kv_cache_dtype,
                }
            })
            .collect()
    }
}

/// Sorts what concerns members of a batch as they stand in it.
pub(super) fn in_batch_order<T>(items: &mut Vec<T>, id: impl Fn(&T) -> u32, batch: &[(u32, u32)]) {
    if items.len() < 2 {
        return;
    }
    items.sort_by_key(&id);
    let mut positions = vec![usize::MAX; items.len()];
    for (position, (member, _)) in batch.iter().enumerate() {
        if let Ok(found) = items.binary_search_by_key(member, &id) {
            positions[found] = position;
        }
    }
    let mut placed: Vec<(usize, T)> = positions.into_iter().zip(items.drain(..)).collect();
    placed.sort_by_key(|(position, _)| *position);
    items.extend(placed.into_iter().map(|(_, item)| item));
}

/// Whether a request has been served.
pub(super) fn is_completed(record: &RequestRecord) -> bool {
    record.outcome == RequestOutcome::Completed
}
