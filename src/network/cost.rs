//! The face that cost models of a step see of a network.

use super::collective::{Collective, GroupKind};
use super::flow::{GroupError, NoRoute};

/// Why a collective has no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// The group cannot communicate as one.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Links are missing.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// The model has no link between the ranks.
    #[error("no link joins the ranks of the group")]
    NoLink,
}

/// Prices of communication between GPUs. Implementations are shared by threads;
/// a repeated [`time_s`](Self::time_s) takes no lock.
///
/// Where ranks sit is explicit: a group is the list of its GPUs, registered once
/// (when a replica is placed), and queries name it by what registration gave.
pub trait CollectiveCost: Send + Sync {
    /// Names a registered group.
    type Group: Copy;

    /// Registers the group of these GPUs.
    fn group(&self, kind: GroupKind, gpus: &[u32]) -> Result<Self::Group, CostError>;

    /// Time of a collective of `bytes` in a group, seconds. Sizes are as
    /// [`Collective`] has them.
    fn time_s(
        &self,
        collective: Collective,
        bytes: u64,
        group: Self::Group,
    ) -> Result<f64, CostError>;

    /// Time of one message between two GPUs without other traffic, seconds:
    /// activations between pipeline stages.
    fn send_s(&self, bytes: u64, from: u32, to: u32) -> Result<f64, CostError>;
}
