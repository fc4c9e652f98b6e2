//! Where things are in a result directory, and how far an unfinished one got.
//!
//! ```text
//! spec.yaml  summary.parquet  timing.parquet  pareto.parquet  report.html
//! capacity.parquet                      only of a capacity study
//! requests/part-000000.parquet ...      one file per block with per-request rows
//! parts/layout.json                     only while unfinished: block size and identity
//! parts/summary-000000-000003-HASH.parquet   only while unfinished: a group of finished blocks
//! manifest.json                         only when finished
//! ```
//!
//! Blocks are groups of neighbouring runs, the same in every session. One is
//! finished when a summary part holds it, the first and last block of which are
//! in its name, and the hash of its content; its request part is written before, so
//! the summary part is the commit mark of both, and knows size and hash of the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST, Manifest, read_json};
use super::schema::AxisColumn;
use super::{ResultError, durable};
use crate::number::narrow;
use crate::output_file;
use crate::spec::{Objectives, Slo};

pub(super) const SUMMARY: &str = "summary.parquet";
pub(super) const TIMING: &str = "timing.parquet";
pub(super) const PARETO: &str = "pareto.parquet";
pub(super) const CAPACITY: &str = "capacity.parquet";
pub(super) const SPEC: &str = "spec.yaml";
pub(super) const REPORT: &str = "report.html";
pub(super) const REQUESTS: &str = "requests";
pub(super) const PARTS: &str = "parts";
const LAYOUT: &str = "layout.json";

/// Rows of per-request output of a block, at most: about a tenth of a second's work.
/// A file of far fewer takes longer to create than to fill.
const BLOCK_REQUEST_ROWS: u64 = 65_536;
/// A sweep without such output is cut in about this many blocks: what is lost of an
/// interrupted one is less than one block per thread.
const BLOCKS_PER_SWEEP: u64 = 128;
/// One with such output in at least so many, if it has as many runs: they are encoded
/// while others run.
const BLOCKS_PER_SWEEP_MIN: u64 = 16;
/// Most runs of a block.
pub(super) const BLOCK_RUNS_MAX: u64 = 1024;

/// Indices of the runs a directory holds: one of every `stride` neighbours.
///
/// Which one rotates with the digit sum, in base `stride`, of the neighbours'
/// number. Shards of a sweep thus share out every group of neighbours evenly,
/// and no shard gets all expensive values of an axis whose length divides by
/// the number of shards, as every `stride`-th index would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIndices {
    /// Smallest index.
    pub first: u64,
    /// Neighbours of which one is here, at least 1.
    pub stride: u64,
    /// How many.
    pub count: u64,
}

impl RunIndices {
    /// All runs of a sweep.
    pub fn all(count: u64) -> Self {
        Self {
            first: 0,
            stride: 1,
            count,
        }
    }

    /// The runs of shard `shard` (from 0) of `shards`, out of `total`.
    pub fn shard(total: u64, shard: u64, shards: u64) -> Self {
        let mut indices = Self {
            first: shard,
            stride: shards.max(1),
            count: 0,
        };
        let whole_groups = total / indices.stride;
        let in_last_group = indices.digit(whole_groups) < total % indices.stride;
        indices.count = whole_groups + u64::from(in_last_group);
        indices
    }

    /// Position of a run among those held here.
    pub fn slot(&self, run_index: u64) -> Option<u64> {
        let slot = run_index / self.stride;
        (slot < self.count && run_index % self.stride == self.digit(slot)).then_some(slot)
    }

    /// Index of the run at a position.
    pub fn index(&self, slot: u64) -> u64 {
        slot * self.stride + self.digit(slot)
    }

    /// Which of the neighbours of group `group` is here.
    fn digit(&self, group: u64) -> u64 {
        let (mut rest, mut digit_sum) = (group, 0);
        while rest > 0 && self.stride > 1 {
            digit_sum += rest % self.stride;
            rest /= self.stride;
        }
        (self.first + digit_sum) % self.stride
    }
}

/// What of a whole sweep decides how its files are cut, whichever of its runs are here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepSize {
    /// Runs that there are, or are excluded.
    pub runs: u64,
    /// Per-request rows kept of each run, about; none: no per-request table.
    pub request_rows_per_run: Option<u64>,
}

/// `parts/layout.json`: what a resumed sweep must agree with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) schema_version: u32,
    pub(super) version: String,
    pub(super) name: String,
    pub(super) spec_hash: String,
    #[serde(default)]
    pub(super) data_hashes: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) sweep: SweepSize,
    pub(super) run_indices: RunIndices,
    pub(super) block_runs: u64,
    pub(super) keep_requests: bool,
    pub(super) axes: Vec<AxisColumn>,
    pub(super) slo: Slo,
    pub(super) objectives: Objectives,
}

/// Runs of a block, from the size of the sweep and the per-request rows kept of
/// each run. Never from the thread count: the files would differ.
pub(super) fn block_runs(runs: u64, request_rows_per_run: u64) -> u64 {
    let runs_per_block = match request_rows_per_run {
        0 => runs / BLOCKS_PER_SWEEP,
        rows => (BLOCK_REQUEST_ROWS / rows).min(runs / BLOCKS_PER_SWEEP_MIN),
    };
    runs_per_block.clamp(1, BLOCK_RUNS_MAX)
}

impl Layout {
    pub(super) fn blocks(&self) -> u64 {
        self.run_indices.count.div_ceil(self.block_runs)
    }

    /// Runs of block `block`: the last may have fewer.
    pub(super) fn runs_in_block(&self, block: u64) -> u64 {
        let before = block * self.block_runs;
        self.block_runs.min(self.run_indices.count - before)
    }

    /// What tells the parts of this sweep from those of any other.
    pub(super) fn identity(&self) -> Result<String, ResultError> {
        let json = serde_json::to_vec(self).map_err(ResultError::malformed(LAYOUT))?;
        Ok(blake3::hash(&json).to_hex().to_string())
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(PARTS).join(LAYOUT)
    }

    pub(super) fn read(dir: &Path) -> Result<Self, ResultError> {
        let path = Self::path(dir);
        let layout: Self = read_json(&path)?;
        if layout.block_runs == 0 || layout.run_indices.stride == 0 {
            return Err(ResultError::Malformed {
                path,
                message: "block size or stride is 0".into(),
            });
        }
        Ok(layout)
    }
}

const SUMMARY_PART: &str = "summary-";
const REQUEST_PART: &str = "part-";

/// Digits of a content hash in a name: 64 bits are enough to notice damage.
const NAME_HASH_DIGITS: usize = 16;

/// A file with the summaries of a group of neighbouring blocks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SummaryPart {
    /// First block.
    pub(super) first: u64,
    /// Last block.
    pub(super) last: u64,
    /// First digits of the content's hash.
    hash: String,
    /// Where it lies.
    pub(super) path: PathBuf,
}

impl SummaryPart {
    /// Where a part lies that holds blocks `first` to `last`, as long as its content
    /// is not known.
    pub(super) fn unnamed(dir: &Path, first: u64, last: u64) -> PathBuf {
        dir.join(PARTS)
            .join(format!("{SUMMARY_PART}{first:06}-{last:06}.parquet"))
    }

    /// Its name once the content is known.
    pub(super) fn named(unnamed: &Path, hash: &str) -> PathBuf {
        let stem = unnamed.file_stem().unwrap_or_default().to_string_lossy();
        let hash = hash.get(..NAME_HASH_DIGITS).unwrap_or(hash);
        unnamed.with_file_name(format!("{stem}-{hash}.parquet"))
    }

    /// What the name of a file says, if it is that of a part.
    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let told = name.strip_prefix(SUMMARY_PART)?.strip_suffix(".parquet")?;
        let mut words = told.split('-');
        let (first, last, hash) = (words.next()?, words.next()?, words.next()?.to_owned());
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            hash,
            path,
        })
    }

    /// Whether the content is what the name says.
    pub(super) fn check(&self) -> Result<(), ResultError> {
        let found = durable::examine(&self.path).map_err(ResultError::unreadable(&self.path))?;
        match found.blake3.get(..NAME_HASH_DIGITS) == Some(self.hash.as_str()) {
            true => Ok(()),
            false => Err(ResultError::damaged(
                &self.path,
                "damaged: its content is not what was written (its hash differs); `run --resume` makes \
                 its runs again",
            )),
        }
    }
}

fn has_summary_parts(dir: &Path) -> bool {
    let entries = fs::read_dir(dir.join(PARTS)).into_iter().flatten();
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.any(|path| SummaryPart::at(path).is_some())
}

/// The parts that are there, in order.
pub(super) fn summary_parts(dir: &Path) -> Result<Vec<SummaryPart>, ResultError> {
    let parts = dir.join(PARTS);
    let mut found = Vec::new();
    for entry in fs::read_dir(&parts).map_err(ResultError::io(&parts))? {
        let entry = entry.map_err(ResultError::io(&parts))?;
        found.extend(SummaryPart::at(entry.path()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn request_part_name(block: u64) -> String {
    format!("{REQUESTS}/{REQUEST_PART}{block:06}.parquet")
}

/// What a path holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryState {
    /// Nothing, or an empty directory.
    Empty,
    /// An unfinished sweep.
    InProgress {
        /// Runs kept.
        done: u64,
        /// Runs it is to have.
        total: u64,
    },
    /// A finished sweep.
    Complete,
    /// Something else.
    Foreign,
}

/// Looks at a directory without changing it.
pub fn directory_state(dir: &Path) -> Result<DirectoryState, ResultError> {
    if dir.join(MANIFEST).exists() {
        return Ok(DirectoryState::Complete);
    }
    if Layout::path(dir).exists() || has_summary_parts(dir) {
        // Of one whose layout is damaged nothing is known; who reads on is told why.
        let (done, total) = match completed_runs(dir) {
            Ok(done) => (done.len(), done.total()),
            Err(_) => (0, 0),
        };
        return Ok(DirectoryState::InProgress { done, total });
    }
    if !dir.exists() {
        return Ok(DirectoryState::Empty);
    }
    let mut entries = fs::read_dir(dir).map_err(ResultError::io(dir))?;
    Ok(match entries.next() {
        None => DirectoryState::Empty,
        Some(_) if only_our_leftovers(dir)? => DirectoryState::Empty,
        Some(_) => DirectoryState::Foreign,
    })
}

/// A run killed within its first instant leaves empty folders or temporary
/// files, but no layout yet.
fn only_our_leftovers(dir: &Path) -> Result<bool, ResultError> {
    for entry in fs::read_dir(dir).map_err(ResultError::io(dir))? {
        let entry = entry.map_err(ResultError::io(dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let temporary = is_temporary(&name) || name == output_file::LOCK_FILE;
        let folder = (name == PARTS || name == REQUESTS)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && only_our_leftovers(&entry.path())?;
        if !temporary && !folder {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs whose results are kept; the others have to be run (again).
#[derive(Debug, Clone)]
pub struct CompletedRuns {
    indices: RunIndices,
    block_runs: u64,
    blocks: Vec<bool>,
}

impl CompletedRuns {
    pub(super) fn none(layout: &Layout) -> Self {
        Self {
            indices: layout.run_indices,
            block_runs: layout.block_runs,
            blocks: vec![false; narrow::<usize, _>(layout.blocks())],
        }
    }

    /// Those of a finished directory.
    pub(super) fn all(indices: RunIndices) -> Self {
        Self {
            indices,
            block_runs: indices.count.max(1),
            blocks: vec![true; usize::from(indices.count > 0)],
        }
    }

    /// Those that `parts` of an unfinished one say they hold.
    pub(super) fn in_parts(layout: &Layout, parts: &[SummaryPart]) -> Self {
        let mut completed = Self::none(layout);
        for part in parts {
            // What names other blocks than there are was not written here.
            if let Some(blocks) = completed.blocks_of(part) {
                blocks.fill(true);
            }
        }
        completed
    }

    /// Whether the run's results are kept.
    pub fn contains(&self, run_index: u64) -> bool {
        self.indices
            .slot(run_index)
            .is_some_and(|slot| self.block_done(slot / self.block_runs))
    }

    /// The blocks a part says it holds; none if there are no such blocks.
    pub(super) fn blocks_of(&mut self, part: &SummaryPart) -> Option<&mut [bool]> {
        let (first, last) = (
            usize::try_from(part.first).ok()?,
            usize::try_from(part.last).ok()?,
        );
        self.blocks.get_mut(first..=last)
    }

    pub(super) fn block_done(&self, block: u64) -> bool {
        self.blocks
            .get(narrow::<usize, _>(block))
            .copied()
            .unwrap_or(false)
    }

    /// The runs that the directory is to have.
    pub fn indices(&self) -> RunIndices {
        self.indices
    }

    /// How many runs are kept.
    pub fn len(&self) -> u64 {
        let runs = |block: u64| {
            self.block_runs
                .min(self.indices.count - block * self.block_runs)
        };
        (0..self.blocks.len() as u64)
            .filter(|block| self.block_done(*block))
            .map(runs)
            .sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        !self.blocks.contains(&true)
    }

    /// How many runs the directory is to have.
    pub fn total(&self) -> u64 {
        self.indices.count
    }
}

/// Which runs of a result directory are there.
pub fn completed_runs(dir: &Path) -> Result<CompletedRuns, ResultError> {
    if let Some(manifest) = Manifest::read(dir)? {
        return Ok(CompletedRuns::all(manifest.run_indices));
    }
    let layout = Layout::read(dir)?;
    Ok(CompletedRuns::in_parts(&layout, &summary_parts(dir)?))
}

/// Removes everything this tool writes, the manifest first, so that the
/// directory never looks complete while it is being emptied.
pub(super) fn clear(dir: &Path) -> Result<(), ResultError> {
    durable::remove_file(&dir.join(MANIFEST))?;
    for name in [SUMMARY, TIMING, PARETO, CAPACITY, SPEC, REPORT] {
        durable::remove_file(&dir.join(name))?;
    }
    clear_parts(dir)?;
    clear_folder(&dir.join(REQUESTS), REQUEST_PART)?;
    durable::sync_directory(dir)
}

/// Removes the parts of a sweep, the layout last.
pub(super) fn clear_parts(dir: &Path) -> Result<(), ResultError> {
    let parts = dir.join(PARTS);
    if !is_own_directory(&parts)? {
        return Ok(());
    }
    clear_files(&parts, SUMMARY_PART)?;
    durable::remove_file(&Layout::path(dir))?;
    clear_folder(&parts, "layout")
}

/// Whether a folder is there. A link is refused: what lies behind it is not ours.
fn is_own_directory(folder: &Path) -> Result<bool, ResultError> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_symlink() => Err(ResultError::damaged(
            folder,
            "is a symbolic link; results are only read and removed where they were written",
        )),
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ResultError::io(folder)(error)),
    }
}

/// Removes a folder if nothing but our files were in it.
fn clear_folder(folder: &Path, prefix: &str) -> Result<(), ResultError> {
    if !is_own_directory(folder)? {
        return Ok(());
    }
    clear_files(folder, prefix)?;
    let mut entries = fs::read_dir(folder).map_err(ResultError::io(folder))?;
    if entries.next().is_none() {
        fs::remove_dir(folder).map_err(ResultError::io(folder))?;
    }
    Ok(())
}

/// Whether a file of this name is one that was not finished.
fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Removes what a killed session left in a directory that is finished.
pub(super) fn clear_leftovers(dir: &Path) -> Result<(), ResultError> {
    clear_parts(dir)?;
    for entry in fs::read_dir(dir).map_err(ResultError::io(dir))? {
        let path = entry.map_err(ResultError::io(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of = |own: &&str| name[1..].starts_with(*own);
        let ours = [SUMMARY, TIMING, PARETO, CAPACITY, SPEC, REPORT, MANIFEST];
        if is_temporary(&name) && ours.iter().any(of) {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Request parts that are there.
pub(super) fn request_parts(dir: &Path) -> Result<Vec<PathBuf>, ResultError> {
    let folder = dir.join(REQUESTS);
    if !is_own_directory(&folder)? {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    for entry in fs::read_dir(&folder).map_err(ResultError::io(&folder))? {
        let path = entry.map_err(ResultError::io(&folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(REQUEST_PART) && name.ends_with(".parquet") {
            parts.push(path);
        }
    }
    Ok(parts)
}

fn clear_files(folder: &Path, prefix: &str) -> Result<(), ResultError> {
    for entry in fs::read_dir(folder).map_err(ResultError::io(folder))? {
        let path = entry.map_err(ResultError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.starts_with(prefix) && name.ends_with(".parquet");
        if ours || is_temporary(&name) {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_even_and_hold_each_run_once() {
        for total in [0, 1, 7, 64, 100] {
            for shards in [1, 2, 3, 8] {
                let mut seen = vec![0; total as usize];
                for shard in 0..shards {
                    let indices = RunIndices::shard(total, shard, shards);
                    assert!(indices.count.abs_diff(total / shards) <= 1);
                    for slot in 0..indices.count {
                        let index = indices.index(slot);
                        assert_eq!(indices.slot(index), Some(slot));
                        seen[index as usize] += 1;
                    }
                    let held = (0..total).filter(|&index| indices.slot(index).is_some());
                    assert_eq!(held.count() as u64, indices.count);
                }
                assert!(seen.iter().all(|&times| times == 1), "{total} in {shards}");
            }
        }
    }

    #[test]
    fn blocks_are_many_and_not_too_small_for_a_file() {
        // A 128th of the sweep; with requests a 16th, or fewer if those fill a file.
        for (runs, rows, expected) in [
            (4, 32, 1),
            (12_800, 0, 100),
            (12_800, 1_000, 65),
            (12_800, 100_000, 1),
            (12_800, 40, 800),
            (1_152, 31, 72),
            (1_000_000, 2, 1024),
        ] {
            assert_eq!(block_runs(runs, rows), expected, "{runs} of {rows} rows");
        }
    }

    #[test]
    fn no_shard_gets_all_of_one_axis_value() {
        // The last axis has two values: even and odd indices.
        let indices = RunIndices::shard(64, 0, 2);
        let even = (0..indices.count).filter(|&slot| indices.index(slot).is_multiple_of(2));
        assert_eq!((indices.count, even.count()), (32, 16));
    }
}
