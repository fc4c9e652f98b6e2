//! Names of collectives and of the groups that run them.

use serde::{Deserialize, Serialize};

/// What a group of ranks does together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collective {
    /// The sum of every rank's bytes, on every rank.
    AllReduce,
    /// The parts of all ranks together, on every rank; sizes are of the whole.
    AllGather,
    /// The sum of every rank's bytes, each rank keeping its part; sizes are of
    /// the whole.
    ReduceScatter,
    /// A different part from every rank to every other; sizes are of what one
    /// rank holds, its own part included.
    AllToAll,
}

impl Collective {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AllReduce,
        Self::AllGather,
        Self::ReduceScatter,
        Self::AllToAll,
    ];

    /// Name in SimAI's workload files: `ALLREDUCE`.
    pub fn simai_name(self) -> &'static str {
        match self {
            Self::AllReduce => "ALLREDUCE",
            Self::AllGather => "ALLGATHER",
            Self::ReduceScatter => "REDUCESCATTER",
            Self::AllToAll => "ALLTOALL",
        }
    }

    /// The collective of a name as SimAI (`ALLREDUCE`) or NCCL's tables
    /// (`all_reduce`) write it.
    pub fn parse(name: &str) -> Option<Self> {
        let letters: String = name.chars().filter(|&c| c != '_' && c != '-').collect();
        Self::ALL
            .into_iter()
            .find(|collective| collective.simai_name().eq_ignore_ascii_case(&letters))
    }

    /// How often every byte passes a link of a ring: twice to reduce and
    /// spread, once otherwise.
    pub fn passes(self) -> f64 {
        match self {
            Self::AllReduce => 2.0,
            Self::AllGather | Self::ReduceScatter | Self::AllToAll => 1.0,
        }
    }
}

/// Which dimension of a parallel layout a group spans. Ranks are numbered
/// tensor parallel first, then expert, then data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GroupKind {
    /// Tensor parallel: consecutive ranks.
    #[serde(rename = "TP")]
    Tensor,
    /// Expert parallel: the same tensor rank of consecutive tensor groups.
    #[serde(rename = "EP")]
    Expert,
    /// Data parallel: the same rank of every replica.
    #[serde(rename = "DP")]
    Data,
    /// Data parallel among the replicas of one expert.
    #[serde(rename = "DP_EP")]
    DataExpert,
}

impl GroupKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tensor, Self::Expert, Self::Data, Self::DataExpert];

    /// Short name: `TP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensor => "TP",
            Self::Expert => "EP",
            Self::Data => "DP",
            Self::DataExpert => "DP_EP",
        }
    }

    /// The group of a short name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}
