//! Profiles read and operators fitted, each once.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{self, FitKey};
use super::profile::{ProfileFile, ProfileRows, ProfileShape, Rows};
use super::{Fit, InputFiles, Op, PredictorConfig, Profile, VidurError};

/// Fits of everything asked of it, shared by the costs made from it. Keeps them
/// on disk as well if it has a directory.
#[derive(Debug, Default)]
pub struct FitLibrary {
    directory: Option<PathBuf>,
    fits: Mutex<HashMap<[u8; 32], Arc<Fit>>>,
    notes: Mutex<Vec<String>>,
}

/// One operator to fit.
pub(super) type Target = (Op, Rows);

impl FitLibrary {
    /// A library that keeps fits in `directory`, or only in memory.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            ..Self::default()
        }
    }

    /// What a person should know: so far, that fits could not be stored.
    pub fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// The fits of all `targets`, in their order. With
    /// [`PredictorConfig::no_cache`] nothing is taken from, or added to, what
    /// is kept.
    pub(super) fn fit(
        &self,
        targets: &[Target],
        files: &InputFiles,
        shape: &ProfileShape,
        config: &PredictorConfig,
    ) -> Result<Vec<Arc<Fit>>, VidurError> {
        let mut profiles = BTreeMap::new();
        for (op, _) in targets {
            let profile = op.profile();
            if let std::collections::btree_map::Entry::Vacant(entry) = profiles.entry(profile) {
                let file = ProfileFile::read(path(files, profile), profile)?;
                let content = file.hash();
                entry.insert((file, content));
            }
        }
        let key = |op: Op, rows| {
            let (_, content) = &profiles[&op.profile()];
            FitKey::new(*content, op, rows, shape, config)
        };
        let mut fits: Vec<Option<Arc<Fit>>> = targets
            .iter()
            .map(|(op, rows)| self.kept(key(*op, *rows), config))
            .collect();
        let missing: Vec<usize> = (0..fits.len()).filter(|i| fits[*i].is_none()).collect();
        let mut selected: BTreeMap<Profile, ProfileRows<'_>> = BTreeMap::new();
        for index in &missing {
            let profile = targets[*index].0.profile();
            if let std::collections::btree_map::Entry::Vacant(entry) = selected.entry(profile) {
                entry.insert(profiles[&profile].0.select(shape)?);
            }
        }
        let made = self.make(targets, &missing, &selected, shape, config)?;
        for (index, fit) in missing.into_iter().zip(made) {
            let (op, rows) = targets[index];
            let fit = Arc::new(fit);
            self.keep(key(op, rows), &fit, config);
            fits[index] = Some(fit);
        }
        Ok(fits.into_iter().flatten().collect())
    }

    fn make(
        &self,
        targets: &[Target],
        missing: &[usize],
        selected: &BTreeMap<Profile, ProfileRows<'_>>,
        shape: &ProfileShape,
        config: &PredictorConfig,
    ) -> Result<Vec<Fit>, VidurError> {
        use rayon::prelude::*;
        let samples = missing
            .iter()
            .map(|index| {
                let (op, rows) = targets[*index];
                selected[&op.profile()].samples(op, shape, rows)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(samples
            .par_iter()
            .map(|samples| Fit::new(samples, config.estimator, config))
            .collect())
    }

    fn kept(&self, key: FitKey, config: &PredictorConfig) -> Option<Arc<Fit>> {
        if config.no_cache {
            return None;
        }
        if let Some(fit) = lock(&self.fits).get(key.bytes()) {
            return Some(Arc::clone(fit));
        }
        let fit = Arc::new(cache::load(self.directory.as_deref()?, key)?);
        lock(&self.fits).insert(*key.bytes(), Arc::clone(&fit));
        Some(fit)
    }

    fn keep(&self, key: FitKey, fit: &Arc<Fit>, config: &PredictorConfig) {
        if config.no_cache {
            return;
        }
        lock(&self.fits).insert(*key.bytes(), Arc::clone(fit));
        if let Some(directory) = &self.directory
            && let Err(error) = cache::store(directory, key, fit)
        {
            let note = format!("{}: fits are not kept: {error}", directory.display());
            let mut notes = lock(&self.notes);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
}

/// A panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(files: &InputFiles, profile: Profile) -> &Path {
    match profile {
        Profile::Compute => &files.compute,
        Profile::Attention => &files.attention,
        Profile::AllReduce => &files.all_reduce,
        Profile::SendRecv => &files.send_recv,
        Profile::CpuOverhead => &files.cpu_overhead,
    }
}
