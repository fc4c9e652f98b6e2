//! Backend `recorded`: stage times of a recorded run, by replica, batch and
//! stage, so that a schedule can be compared without any cost model.
//!
//! A file has one row per stage of a batch: `replica_id`, `stage_id`,
//! `execution_time` in seconds, and which batch: `nth_batch` (its number among
//! those of its replica, from 0), or `batch_id`, whose order of appearance gives
//! that number. `model_execution_time` (without host time) is optional; other
//! columns are ignored. The file may be compressed with gzip.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::VidurError;
use super::sheet::{SECONDS, Sheet};
use crate::execution_time::{
    Operator, PricedOperator, Provenance, StageRun, StageTime, StepCost, StepShape,
};
use crate::input_file::{self, InputKind};
use crate::number::{narrow, whole_u64};
use crate::one_by_one;

/// By how much a part of a time may exceed the time, relative to it: the originals add
/// up the two in different ways.
const ROUNDING: f64 = 1e-9;

/// First bytes of a file compressed with gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Stage times of a recorded run.
#[derive(Debug)]
pub struct RecordedCost {
    times: BTreeMap<StageRun, StageTime>,
    stages: u32,
    /// Median of all, for what was not recorded.
    typical: StageTime,
    misses: Mutex<BTreeSet<StageRun>>,
}

impl RecordedCost {
    /// Reads the stage times of `stages` stages.
    ///
    /// # Errors
    /// Names the line and column of what cannot be read.
    pub fn read(path: &Path, stages: u32) -> Result<Self, VidurError> {
        let text = content(path).map_err(|source| VidurError::Io {
            path: path.into(),
            source,
        })?;
        let (sheet, rows) = Sheet::read(path, &text)?;
        let columns = [
            sheet.column("replica_id")?,
            sheet.column("stage_id")?,
            sheet.column("execution_time")?,
        ];
        let numbered = sheet.find_column("nth_batch");
        let batch = match numbered {
            Some(column) => column,
            None => sheet.column("batch_id")?,
        };
        let model = sheet.find_column("model_execution_time");
        let mut seen: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut times = BTreeMap::new();
        for row in &rows {
            let whole = |column: usize| {
                let value = sheet.zero_or_more(row, column)?;
                if value.fract() == 0.0 && value < f64::from(u32::MAX) {
                    Ok(whole_u64(value))
                } else {
                    Err(sheet.refuse(row, column, "a whole number from 0 on"))
                }
            };
            let (replica, stage, batch) = (whole(columns[0])?, whole(columns[1])?, whole(batch)?);
            let nth_batch = if numbered.is_some() {
                batch
            } else {
                let batches = seen.entry(replica).or_default();
                let next = batches.len() as u64;
                *batches.entry(batch).or_insert(next)
            };
            let total_s = sheet.time(row, columns[2], SECONDS)?;
            let model_s = match model {
                None => total_s,
                Some(column) => {
                    let model_s = sheet.time(row, column, SECONDS)?;
                    if model_s > total_s * (1.0 + ROUNDING) {
                        let allowed = "a part of execution_time, which is less";
                        return Err(sheet.refuse(row, column, allowed));
                    }
                    model_s
                }
            };
            let run = StageRun {
                replica: narrow::<u32, _>(replica),
                nth_batch,
                stage: narrow::<u32, _>(stage),
            };
            let time = StageTime {
                model_s,
                host_s: total_s - model_s,
            };
            times.insert(run, time);
        }
        let mut sorted: Vec<StageTime> = times.values().copied().collect();
        sorted.sort_by(|a, b| a.total_s().total_cmp(&b.total_s()));
        let Some(typical) = sorted.get(sorted.len() / 2).copied() else {
            return Err(VidurError::at(path, 1, 1, "has no rows"));
        };
        Ok(Self {
            times,
            stages,
            typical,
            misses: Mutex::default(),
        })
    }

    fn misses(&self) -> MutexGuard<'_, BTreeSet<StageRun>> {
        // A panic elsewhere leaves the set whole.
        self.misses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked for and not recorded, in one sentence; the median of all
    /// recorded times stood in, and the run is not the recorded one.
    pub fn warnings(&self) -> Vec<String> {
        let misses = self.misses();
        let Some(first) = misses.first() else {
            return Vec::new();
        };
        vec![format!(
            "{} stage times asked for are not recorded, the first for batch {} of replica {} on \
             stage {}: the run departs from the recorded one",
            misses.len(),
            first.nth_batch,
            first.replica,
            first.stage
        )]
    }
}

/// Content of a file, decompressed if it is compressed.
fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = input_file::read(path, InputKind::Profile)?;
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let unpacked = flate2::read::MultiGzDecoder::new(bytes.as_slice());
    input_file::read_limited(unpacked, InputKind::Profile, &mut text)?;
    Ok(text)
}

impl StepCost for RecordedCost {
    fn stages(&self) -> u32 {
        self.stages
    }

    fn stage_time(&self, _stage: u32, _shape: &StepShape) -> StageTime {
        self.typical
    }

    fn stage_time_of(&self, run: StageRun, _shape: &StepShape) -> StageTime {
        match self.times.get(&run) {
            Some(time) => *time,
            None => {
                self.misses().insert(run);
                self.typical
            }
        }
    }

    fn tells_runs_apart(&self) -> bool {
        true
    }

    one_by_one!(stage_times, decode_times, explain_stage);

    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        let priced = |stage| PricedOperator {
            stage,
            name: "recorded".into(),
            operator: Operator::Host {
                requests: shape.decode_requests + narrow::<u32, _>(shape.prefills.len()),
            },
            count: 1.0,
            time_s: self.typical.total_s(),
            provenance: Provenance::Substituted {
                from: "recorded stage times".into(),
            },
        };
        (0..self.stages).map(priced).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<RecordedCost, VidurError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("times.csv");
        std::fs::write(&path, text).unwrap();
        RecordedCost::read(&path, 2)
    }

    fn time_s(cost: &RecordedCost, replica: u32, nth_batch: u64, stage: u32) -> f64 {
        let run = StageRun {
            replica,
            nth_batch,
            stage,
        };
        cost.stage_time_of(run, &StepShape::default()).total_s()
    }

    #[test]
    fn batches_are_numbered_by_appearance_on_their_replica() {
        let text = b"batch_id,replica_id,stage_id,execution_time\n\
                     7,0,0,0.5\n8,1,0,0.25\n7,0,1,0.75\n9,0,0,1.5\n";
        let cost = read(text).unwrap();
        assert_eq!(time_s(&cost, 0, 0, 0), 0.5);
        assert_eq!(time_s(&cost, 0, 0, 1), 0.75);
        assert_eq!(time_s(&cost, 1, 0, 0), 0.25);
        assert_eq!(time_s(&cost, 0, 1, 0), 1.5);
        assert!(cost.warnings().is_empty());
        assert_eq!(time_s(&cost, 3, 0, 0), 0.75);
        assert!(cost.warnings()[0].contains("batch 0 of replica 3 on stage 0"));
    }

    #[test]
    fn compressed_files_are_read_and_bad_ones_pointed_at() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"nth_batch,replica_id,stage_id,execution_time\n4,0,0,0.5\n")
            .unwrap();
        let cost = read(&gzip.finish().unwrap()).unwrap();
        assert_eq!(time_s(&cost, 0, 4, 0), 0.5);
        let message = |text: &[u8]| read(text).unwrap_err().to_string();
        assert!(
            message(b"nth_batch,replica_id,stage_id,execution_time\n0,0,0,x\n").contains(":2:7:")
        );
        assert!(message(b"nth_batch,replica_id,stage_id\n").contains("no column `execution_time`"));
    }
}
