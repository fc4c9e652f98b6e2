//! Backend `table`: operator times from a file, by Vidur's keys.
//!
//! A table holds what one run of the original looked up: columns
//! `op,f0,f1,ms`, `f1` blank for operators with one feature. Fed with it, the
//! formula gives that run's stage times to the last bit, without any fit. Times are
//! times: one below zero, which a regression may come to, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::compose::{Composed, Deployment, OperatorTimes};
use super::sheet::{MILLISECONDS, Sheet};
use super::{Keys, Op, PredictorConfig, Rows, VidurError};
use crate::catalog::ModelSpec;
use crate::execution_time::{PricedOperator, Provenance, StageRun, StageTime, StepCost, StepShape};
use crate::input_file::{self, InputKind};
use crate::memory::Parallelism;
use crate::number::whole_u64;
use crate::spelling;

/// Prices steps by operator times listed in a file.
#[derive(Debug)]
pub struct TableCost(Composed<TableTimes>);

impl TableCost {
    /// Looks whether a file is such a table, whatever the deployment.
    ///
    /// # Errors
    /// Names the line and column of what cannot be read.
    pub fn check(path: &Path) -> Result<(), VidurError> {
        let text = content(path)?;
        read(path, &text).map(|_| ())
    }

    /// Reads `op,f0,f1,ms`. Of `predictor` the overheads and the granularity of
    /// contexts count.
    ///
    /// # Errors
    /// Names the line and column of what cannot be read, or the operators that
    /// this deployment needs and the file has no row for.
    pub fn from_predictions(
        path: &Path,
        model: &ModelSpec,
        parallelism: Parallelism,
        gpus_per_node: u32,
        predictor: &PredictorConfig,
    ) -> Result<Self, VidurError> {
        let text = content(path)?;
        let entries = read(path, &text)?;
        let formula = Deployment::new(model, parallelism, gpus_per_node, Keys::Vidur, predictor)?;
        let lacking: Vec<&str> = formula
            .operators()
            .into_iter()
            // A run may have had no prompts, or no decodes, to look up.
            .filter(|op| !matches!(op, Op::AttnPrefill | Op::AttnDecode))
            .filter(|op| !entries.contains_key(op))
            .map(Op::name)
            .collect();
        if !lacking.is_empty() {
            return Err(VidurError::NoRows {
                path: path.into(),
                wanted: lacking.join(", "),
                present: "this deployment needs them".into(),
            });
        }
        let times = TableTimes {
            entries,
            misses: Mutex::default(),
        };
        Ok(Self(Composed::new(times, formula)))
    }

    /// What was looked up but is not in the table, a line an operator. The
    /// nearest entry stood in: results that needed it are not the table's.
    pub fn misses(&self) -> Vec<String> {
        let misses = self.0.times.misses();
        let mut by_op: BTreeMap<Op, Vec<&Key>> = BTreeMap::new();
        for (op, key) in misses.iter() {
            by_op.entry(*op).or_default().push(key);
        }
        let line = |(op, keys): (Op, Vec<&Key>)| {
            let features: Vec<String> = (op.features().iter().zip(keys[0]))
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            let more = match keys.len() {
                1 => String::new(),
                2 => ", nor for one other key".to_owned(),
                count => format!(", nor for {} other keys", count - 1),
            };
            format!(
                "{op}: no entry for {}{more}; the nearest stands in",
                features.join(", ")
            )
        };
        by_op.into_iter().map(line).collect()
    }
}

impl StepCost for TableCost {
    fn stages(&self) -> u32 {
        self.0.stages()
    }

    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        self.0.stage_time(stage, shape)
    }

    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.0.stage_time_of(run, shape)
    }

    fn tells_runs_apart(&self) -> bool {
        self.0.tells_runs_apart()
    }

    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.0.stage_times(shape, times);
    }

    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.0.decode_times(shape, times);
    }

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        self.0.explain(shape)
    }

    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        self.0.explain_stage(stage, shape)
    }
}

type Key = [u64; 2];

fn content(path: &Path) -> Result<Vec<u8>, VidurError> {
    input_file::read(path, InputKind::Profile).map_err(|source| VidurError::Io {
        path: path.into(),
        source,
    })
}

fn read(path: &Path, text: &[u8]) -> Result<BTreeMap<Op, Vec<(Key, f64)>>, VidurError> {
    let (sheet, rows) = Sheet::read(path, text)?;
    let columns = [
        sheet.column("op")?,
        sheet.column("f0")?,
        sheet.column("f1")?,
        sheet.column("ms")?,
    ];
    let mut entries: BTreeMap<Op, Vec<(Key, f64)>> = BTreeMap::new();
    for row in &rows {
        let name = row.field(columns[0]);
        let op = Op::from_name(name).ok_or_else(|| {
            let hint = spelling::did_you_mean(name, Op::ALL.map(Op::name));
            sheet.refuse(row, columns[0], &format!("an operator of Vidur{hint}"))
        })?;
        let mut key = [0; 2];
        for (feature, value) in key.iter_mut().enumerate() {
            let column = columns[1 + feature];
            match (feature < op.features().len(), row.field(column)) {
                (false, "") => {}
                (false, _) => {
                    return Err(sheet.refuse(row, column, &format!("blank, but {op} has one key")));
                }
                (true, text) => {
                    let number = text.parse::<f64>().ok();
                    let whole = number.filter(|x| x.fract() == 0.0 && (0.0..1e18).contains(x));
                    *value =
                        whole_u64(whole.ok_or_else(|| {
                            sheet.refuse(row, column, "a whole number from 0 on")
                        })?);
                }
            }
        }
        let time_ms = sheet.time(row, columns[3], MILLISECONDS)?;
        entries.entry(op).or_default().push((key, time_ms));
    }
    for list in entries.values_mut() {
        // Of equal keys the last counts, as in the dictionary of the original.
        list.reverse();
        list.sort_by_key(|(key, _)| *key);
        list.dedup_by_key(|(key, _)| *key);
    }
    Ok(entries)
}

#[derive(Debug)]
struct TableTimes {
    /// Sorted by key.
    entries: BTreeMap<Op, Vec<(Key, f64)>>,
    misses: Mutex<BTreeSet<(Op, Key)>>,
}

impl TableTimes {
    fn misses(&self) -> MutexGuard<'_, BTreeSet<(Op, Key)>> {
        // A panic elsewhere leaves the set whole.
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, op: Op, key: Key) -> f64 {
        let list = self.entries.get(&op).map_or(&[][..], Vec::as_slice);
        match list.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(found) => list[found].1,
            Err(_) => self.nearest(op, list, key),
        }
    }

    #[cold]
    fn nearest(&self, op: Op, list: &[(Key, f64)], key: Key) -> f64 {
        self.misses().insert((op, key));
        // By ratio, so that a chunk squared and a context count alike.
        let distance = |other: &Key| {
            let log = |value: u64| (value as f64 + 1.0).ln();
            (0..2)
                .map(|i| (log(key[i]) - log(other[i])).abs())
                .sum::<f64>()
        };
        let closest = list
            .iter()
            .min_by(|(a, _), (b, _)| distance(a).total_cmp(&distance(b)));
        closest.map_or(0.0, |(_, time_ms)| *time_ms)
    }
}

impl OperatorTimes for TableTimes {
    fn by_count_ms(&self, op: Op, count: u32) -> f64 {
        self.get(op, [u64::from(count), 0])
    }

    fn saves_by_phase(&self) -> bool {
        false
    }

    fn kv_cache_save_ms(&self, _phase: Rows, tokens: u32) -> f64 {
        self.by_count_ms(Op::AttnKvCacheSave, tokens)
    }

    fn decode_ms(&self, requests: u32, kv_tokens: f64) -> f64 {
        self.get(Op::AttnDecode, [u64::from(requests), whole_u64(kv_tokens)])
    }

    fn prefill_ms(&self, kv_tokens: f64, chunk: f64) -> f64 {
        let chunk = whole_u64(chunk);
        self.get(Op::AttnPrefill, [whole_u64(kv_tokens), chunk * chunk])
    }

    fn provenance(&self, _op: Op, _features: [f64; 2]) -> Provenance {
        Provenance::Substituted {
            from: "predictions file".into(),
        }
    }
}
