//! Fits on disk, found by what they were made of.
//!
//! The name of a file is a hash of the profile's bytes, of the rows chosen, of
//! every parameter that has a say and of the version of this code's fits: a
//! stored fit is the fit, or is not found. Files are written whole under
//! another name and renamed, so that programs that run at the same time can
//! share a directory; one that is cut short or altered does not match its own
//! checksum and is made anew.

use std::path::{Path, PathBuf};

use super::profile::{ProfileShape, Rows};
use super::{Estimator, Fit, Op, PredictorConfig};
use crate::input_file::{self, InputKind};
use crate::output_file;

/// To be changed with anything that changes what a fit is.
const VERSION: &str = "vidur-sweep fit 1";

/// Name of the file of one fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FitKey(blake3::Hash);

impl FitKey {
    pub(super) fn new(
        content: blake3::Hash,
        op: Op,
        rows: Rows,
        shape: &ProfileShape,
        config: &PredictorConfig,
    ) -> Self {
        let parameters = match config.estimator {
            Estimator::Interpolation => String::new(),
            Estimator::RandomForest => format!(
                "{:?} {:?} {:?} {} {}",
                config.num_estimators,
                config.max_depth,
                config.min_samples_split,
                config.k_fold_cv_splits,
                config.seed
            ),
            Estimator::LinearRegression => format!(
                "{:?} {:?} {:?} {:?} {}",
                config.polynomial_degree,
                config.polynomial_include_bias,
                config.polynomial_interaction_only,
                config.fit_intercept,
                config.k_fold_cv_splits
            ),
        };
        let text = format!(
            "{VERSION}\n{content}\n{op} {rows:?}\n{}\n{} {parameters}",
            shape.identity(op.profile()),
            config.estimator.name()
        );
        Self(blake3::hash(text.as_bytes()))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    fn path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.fit", self.0.to_hex()))
    }
}

/// The stored fit, if there is a sound one.
pub(super) fn load(directory: &Path, key: FitKey) -> Option<Fit> {
    let bytes = input_file::read(&key.path(directory), InputKind::Profile).ok()?;
    let (checksum, body) = bytes.split_at_checked(blake3::OUT_LEN)?;
    (blake3::hash(body).as_bytes() == checksum).then(|| Fit::from_bytes(body))?
}

/// Stores a fit.
pub(super) fn store(directory: &Path, key: FitKey, fit: &Fit) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let body = fit.to_bytes();
    let content = [blake3::hash(&body).as_bytes().as_slice(), &body].concat();
    output_file::write_whole(&key.path(directory), &content)
}
