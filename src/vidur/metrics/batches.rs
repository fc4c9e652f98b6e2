//! Batches and tokens: sizes and times of batches, intervals between tokens.

use super::frame::{Frame, Values};
use super::requests::in_batch_order;
use super::sketch::Sketch;
use crate::number::narrow;
use crate::results::BatchRow;
use crate::simulator::{BatchFact, Compat, PrefillFact};

/// The name of the key column.
pub(super) const BATCH_ID: &str = "Batch Id";

/// Metrics of a batch in the order of `batch_metrics.csv`: the time comes last,
/// the others are counts.
pub(super) const METRICS: [&str; 5] = [
    "batch_num_tokens",
    "batch_num_prefill_tokens",
    "batch_num_decode_tokens",
    "batch_size",
    "batch_execution_time",
];
/// The one of [`METRICS`] that is a time.
pub(super) const TIME: usize = 4;

#[derive(Debug)]
pub(super) struct Batches {
    sketches: [Sketch; 5],
    /// In the order in which they ended, if they are to be kept.
    rows: Option<Vec<BatchRow>>,
}

fn values_of(row: &BatchRow) -> [u64; TIME] {
    [
        u64::from(row.tokens),
        u64::from(row.prefill_tokens),
        u64::from(row.tokens - row.prefill_tokens),
        u64::from(row.requests),
    ]
}

impl Batches {
    pub(super) fn new(keep: bool) -> Self {
        Self {
            sketches: std::array::from_fn(|_| Sketch::new()),
            rows: keep.then(Vec::new),
        }
    }

    pub(super) fn ended(&mut self, fact: &BatchFact<'_>) {
        let row = BatchRow {
            batch_id: fact.batch_id,
            replica: fact.replica,
            scheduled_at_s: fact.scheduled_at_s,
            completed_at_s: fact.completed_at_s,
            tokens: fact.tokens,
            prefill_tokens: fact.prefill_tokens,
            requests: narrow::<u32, _>(fact.requests.len()),
            used_blocks: fact.used_blocks,
            total_blocks: fact.total_blocks,
        };
        for (sketch, value) in self.sketches.iter_mut().zip(values_of(&row)) {
            sketch.insert(value as f64, 1);
        }
        self.sketches[TIME].insert(row.execution_s(), 1);
        if let Some(rows) = &mut self.rows {
            rows.push(row);
        }
    }

    /// Quantiles of each metric, the time first.
    pub(super) fn distributions(&self, compat: Compat) -> Vec<(usize, Frame)> {
        std::iter::once(TIME)
            .chain(0..TIME)
            .filter(|&metric| !self.sketches[metric].is_empty())
            .map(|metric| {
                let sketch = &self.sketches[metric];
                (metric, quantiles(METRICS[metric], sketch, compat))
            })
            .collect()
    }

    /// Batches by number, for the tables.
    pub(super) fn rows(&self) -> Option<Vec<BatchRow>> {
        let mut rows = self.rows.clone()?;
        rows.sort_by_key(|row| row.batch_id);
        Some(rows)
    }

    /// Values of each metric batch by batch, in the order in which they ended.
    pub(super) fn per_batch(&self) -> Vec<(usize, Frame)> {
        let Some(rows) = &self.rows else {
            return Vec::new();
        };
        if rows.is_empty() {
            return Vec::new();
        }
        let frame = |metric: usize| Frame {
            index: Some((0..rows.len() as u64).collect()),
            columns: vec![id_column(rows), column(metric, rows)],
        };
        std::iter::once(TIME)
            .chain(0..TIME)
            .map(|metric| (metric, frame(metric)))
            .collect()
    }
}

fn id_column(rows: &[BatchRow]) -> (String, Values) {
    let ids = rows.iter().map(|row| row.batch_id);
    (BATCH_ID.to_owned(), Values::Ints(ids.collect()))
}

fn column(metric: usize, rows: &[BatchRow]) -> (String, Values) {
    let values = if metric == TIME {
        Values::Floats(rows.iter().map(BatchRow::execution_s).collect())
    } else {
        Values::Ints(rows.iter().map(|row| values_of(row)[metric]).collect())
    };
    (METRICS[metric].to_owned(), values)
}

/// `batch_metrics.csv`.
pub(super) fn table(rows: &[BatchRow]) -> Frame {
    let mut columns = vec![id_column(rows)];
    columns.extend((0..METRICS.len()).map(|metric| column(metric, rows)));
    Frame {
        index: None,
        columns,
    }
}

/// The file of a [`Sketch`].
pub(super) fn quantiles(name: &str, sketch: &Sketch, compat: Compat) -> Frame {
    let points = sketch.percentiles(compat);
    let values = if sketch.is_zero() {
        Values::Ints(vec![0; points.len()])
    } else {
        Values::Floats(points.iter().map(|(_, value)| *value).collect())
    };
    let shares = points.iter().map(|(share, _)| *share);
    Frame {
        index: Some((0..points.len() as u64).collect()),
        columns: vec![
            ("cdf".to_owned(), Values::Floats(shares.collect())),
            (name.to_owned(), values),
        ],
    }
}

/// Intervals between output tokens, and when tokens were processed. Takes as
/// many steps as there are batches, not tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    compat: Compat,
    intervals: Sketch,
    /// Of the batch that is ending: intervals and how many tokens had them.
    ending: Vec<(f64, u32)>,
    ending_prefills: Vec<PrefillFact>,
    /// (time, prompt tokens) of requests whose prompt is complete.
    prefills: Vec<(f64, u32)>,
    /// (time, output tokens) of batches.
    decodes: Vec<(f64, u32)>,
}

impl Tokens {
    pub(super) fn new(compat: Compat) -> Self {
        Self {
            compat,
            intervals: Sketch::new(),
            ending: Vec::new(),
            ending_prefills: Vec::new(),
            prefills: Vec::new(),
            decodes: Vec::new(),
        }
    }

    pub(super) fn interval(&mut self, interval_s: f64, count: u32) {
        self.ending.push((interval_s, count));
    }

    pub(super) fn prefill_completed(&mut self, fact: &PrefillFact) {
        self.ending_prefills.push(*fact);
    }

    /// Counts what the batch has brought, or drops it.
    pub(super) fn batch_ended(&mut self, fact: &BatchFact<'_>, counts: bool) {
        if counts {
            // The original does not count the token of a prompt that is complete
            // again after a restart; decodes come first.
            let decodes = fact.tokens - fact.prefill_tokens;
            let mut left = match self.compat {
                Compat::None => u32::MAX,
                _ => decodes,
            };
            let mut total = 0;
            for &(interval_s, count) in &self.ending {
                let count = count.min(left);
                left -= count;
                total += count;
                self.intervals.insert(interval_s, u64::from(count));
            }
            if total > 0 {
                self.decodes.push((fact.completed_at_s, total));
            }
            in_batch_order(&mut self.ending_prefills, |p| p.request_id, fact.requests);
            let tokens = self.ending_prefills.iter();
            self.prefills
                .extend(tokens.map(|p| (p.time_s, p.prefill_tokens)));
        }
        self.ending.clear();
        self.ending_prefills.clear();
    }

    pub(super) fn distribution(&self) -> Option<Frame> {
        let name = "decode_token_execution_plus_preemption_time";
        (!self.intervals.is_empty()).then(|| quantiles(name, &self.intervals, self.compat))
    }

    /// Tokens over time: name, times, tokens so far. The original has a row for
    /// every decode token; those of one batch come at once, so one row says it.
    pub(super) fn series(&self) -> [(&'static str, Vec<f64>, Vec<u64>); 2] {
        let (mut times_s, mut totals) = (Vec::new(), Vec::new());
        let mut total = 0;
        for &(time_s, count) in &self.decodes {
            let before = total;
            total += u64::from(count);
            match self.compat {
                Compat::None => totals.push(total),
                _ => totals.extend(before + 1..=total),
            }
            times_s.resize(totals.len(), time_s);
        }
        let so_far = self.prefills.iter().scan(0, |sum, (_, tokens)| {
            *sum += u64::from(*tokens);
            Some(*sum)
        });
        [
            (
                "prefill_completion",
                self.prefills.iter().map(|(time_s, _)| *time_s).collect(),
                so_far.collect(),
            ),
            ("decode_completion", times_s, totals),
        ]
    }
}
