//! Why a configuration is not simulated: it cannot exist, which is a result, or it is
//! not understood, which is the specification's fault. Each says which key is to be
//! changed where one is, so that whoever reports it can point there.

use crate::catalog::CatalogError;
use crate::execution_time::aicb::AicbError;
use crate::execution_time::vidur::VidurError;
use crate::memory;
use crate::network::flow::TransferError;
use crate::network::topology::TopologyError;
use crate::workload::WorkloadError;

/// What is wrong with a configuration, and the run key it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key to be changed, where it is one.
    pub key: Option<&'static str>,
    /// What is wrong, without the key.
    pub reason: String,
}

impl Problem {
    /// One that no key alone is about.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            key: None,
            reason: reason.into(),
        }
    }

    pub(super) fn about(key: &'static str, reason: impl Into<String>) -> Self {
        Self {
            key: Some(key),
            reason: reason.into(),
        }
    }

    /// What is wrong, in one sentence that names the key.
    pub fn message(&self) -> String {
        match self.key {
            Some(key) => format!("key `{key}`: {}", self.reason),
            None => self.reason.clone(),
        }
    }
}

impl From<&ResolveError> for Problem {
    fn from(error: &ResolveError) -> Self {
        match error {
            ResolveError::Infeasible(infeasible) => Self::new(infeasible.to_string()),
            ResolveError::Input(error) => error.into(),
        }
    }
}

impl From<&InputError> for Problem {
    fn from(error: &InputError) -> Self {
        let reason = match error {
            InputError::Settings(problem) => problem.reason.clone(),
            error => error.to_string(),
        };
        Self {
            key: error.key(),
            reason,
        }
    }
}

impl From<&WorkloadError> for Problem {
    fn from(error: &WorkloadError) -> Self {
        Self {
            key: error.key,
            reason: error.reason(),
        }
    }
}

/// Why a configuration is not simulated.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The deployment cannot exist.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
    /// The configuration is not understood.
    #[error(transparent)]
    Input(#[from] InputError),
}

/// Why a deployment cannot exist.
#[derive(Debug, thiserror::Error)]
pub enum Infeasible {
    /// The model cannot be cut so, or does not fit.
    #[error(transparent)]
    Memory(#[from] memory::Infeasible),
    /// Values of keys that are allowed alone and make no deployment together.
    #[error("{}", .0.reason)]
    Settings(Problem),
    /// The network has no place for it.
    #[error("{0}")]
    Network(String),
    /// The network has no way from pool to pool.
    #[error("a KV cache cannot be moved: {0}")]
    Transfer(#[from] TransferError),
    /// It was not profiled.
    #[error(transparent)]
    NotProfiled(VidurError),
    /// The backend has no prices for it.
    #[error("{0}")]
    Unpriced(String),
}

impl Infeasible {
    pub(super) fn settings(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Settings(Problem::about(key, reason))
    }
}

/// What of a configuration is not understood.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A name the catalog does not have, or a file of the user's that is no entry of it.
    #[error("{error}")]
    Name {
        /// The key with the name.
        key: &'static str,
        /// What is wrong with it.
        error: CatalogError,
    },
    /// A value that only shows to be wrong beside others.
    #[error("{}", .0.message())]
    Settings(Problem),
    /// A file of the network.
    #[error("{error}")]
    Network {
        /// The key that names it.
        key: &'static str,
        /// What is wrong with it.
        error: TopologyError,
    },
    /// The program that prices the network does not do what it should.
    #[error("{0}")]
    Program(String),
    /// Files of AICB.
    #[error(transparent)]
    LayerTimes(#[from] AicbError),
    /// A profile, a table of operators or recorded times.
    #[error("{error}")]
    Profile {
        /// The key that names it, or that asks for it.
        key: &'static str,
        /// What is wrong with it.
        error: VidurError,
    },
}

impl InputError {
    /// The key to be changed, where it is one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Name { key, .. } | Self::Network { key, .. } | Self::Profile { key, .. } => {
                Some(key)
            }
            Self::Settings(problem) => problem.key,
            Self::Program(_) => Some("network.simai_binary"),
            Self::LayerTimes(_) => Some("aicb_dir"),
        }
    }

    /// Whether all that is wrong is that a profile is not there: something else may then
    /// stand for it.
    pub fn is_missing_profile(&self) -> bool {
        match self {
            Self::Profile { error, .. } => error.missing_file().is_some(),
            _ => false,
        }
    }
}

impl ResolveError {
    pub(super) fn settings(key: &'static str, reason: impl Into<String>) -> Self {
        Infeasible::settings(key, reason).into()
    }

    pub(super) fn input(key: &'static str, reason: impl Into<String>) -> Self {
        InputError::Settings(Problem::about(key, reason)).into()
    }

    /// The key to be changed, where it is one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Infeasible(Infeasible::Memory(infeasible)) => infeasible.key,
            Self::Infeasible(Infeasible::Settings(problem)) => problem.key,
            Self::Infeasible(_) => None,
            Self::Input(error) => error.key(),
        }
    }
}

impl From<memory::Infeasible> for ResolveError {
    fn from(infeasible: memory::Infeasible) -> Self {
        Infeasible::Memory(infeasible).into()
    }
}
