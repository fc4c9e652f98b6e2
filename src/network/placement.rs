//! Which GPUs a replica occupies, and which of them form its groups.

use std::fmt;

use serde::Serialize;

/// Replicas of one shape, packed onto servers in order. A replica that fits a
/// server never straddles two; a larger one starts at a server of its own.
///
/// Inside a replica GPUs are numbered pipeline stage by stage, attention rank by
/// attention rank, tensor rank by tensor rank, so that tensor groups are
/// consecutive GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// GPUs of a server.
    pub gpus_per_server: u32,
    /// Where the first replica begins: a whole number of servers is left to
    /// others before it.
    pub first_server: u32,
    /// Ranks of a tensor parallel group.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// Attention ranks of a stage, each a tensor group.
    pub attention_data_parallel: u32,
}

impl Placement {
    /// GPUs of a stage.
    pub fn gpus_per_stage(&self) -> u32 {
        self.tensor_parallel * self.attention_data_parallel
    }

    /// GPUs of a replica.
    pub fn gpus_per_replica(&self) -> u32 {
        self.gpus_per_stage() * self.pipeline_parallel
    }

    /// Servers that `replicas` take.
    pub fn servers(&self, replicas: u32) -> u32 {
        match self.replicas_per_server() {
            0 => replicas * self.servers_per_replica(),
            several => replicas.div_ceil(several),
        }
    }

    /// Replicas that fit a server; 0 where one takes several servers.
    fn replicas_per_server(&self) -> u32 {
        self.gpus_per_server / self.gpus_per_replica().max(1)
    }

    fn servers_per_replica(&self) -> u32 {
        self.gpus_per_replica()
            .div_ceil(self.gpus_per_server.max(1))
    }

    /// First GPU of a replica.
    pub fn first_gpu(&self, replica: u32) -> u32 {
        let (server, within) = match self.replicas_per_server() {
            0 => (replica * self.servers_per_replica(), 0),
            several => (replica / several, replica % several),
        };
        (self.first_server + server) * self.gpus_per_server + within * self.gpus_per_replica()
    }

    /// All GPUs of a replica.
    pub fn gpus(&self, replica: u32) -> Vec<u32> {
        let first = self.first_gpu(replica);
        (first..first + self.gpus_per_replica()).collect()
    }

    /// GPUs of a stage of a replica: its experts' group.
    pub fn stage(&self, replica: u32, stage: u32) -> Vec<u32> {
        let first = self.first_gpu(replica) + stage * self.gpus_per_stage();
        (first..first + self.gpus_per_stage()).collect()
    }

    /// Tensor group of an attention rank of a stage.
    pub fn tensor_group(&self, replica: u32, stage: u32, attention_rank: u32) -> Vec<u32> {
        let first = self.first_gpu(replica)
            + stage * self.gpus_per_stage()
            + attention_rank * self.tensor_parallel;
        (first..first + self.tensor_parallel).collect()
    }

    /// Sender and receiver of activations after a stage, for one of its GPUs.
    pub fn stage_link(&self, replica: u32, stage: u32, rank: u32) -> (u32, u32) {
        let from = self.first_gpu(replica) + stage * self.gpus_per_stage() + rank;
        (from, from + self.gpus_per_stage())
    }
}

/// GPUs that belong together in a replica, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlacedGroup {
    /// Of which replica.
    pub replica: u32,
    /// What joins them.
    pub group: PlacedGroupKind,
    /// Of which pipeline stage; none for the whole replica.
    pub stage: Option<u32>,
    /// Of which attention rank, for a tensor group.
    pub attention_rank: Option<u32>,
    /// Servers they sit in, ascending.
    pub servers: Vec<u32>,
    /// The GPUs, ascending, numbered over all servers.
    pub gpus: Vec<u32>,
}

/// What joins the GPUs of a [`PlacedGroup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacedGroupKind {
    /// All of a replica.
    Replica,
    /// A pipeline stage; its experts are spread over it.
    Stage,
    /// A tensor parallel group: one attention rank of a stage.
    Tensor,
}

impl PlacedGroupKind {
    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Stage => "stage",
            Self::Tensor => "tensor",
        }
    }
}

impl Placement {
    /// The groups of a replica: itself, then every stage followed by its tensor
    /// groups.
    pub fn groups(&self, replica: u32) -> Vec<PlacedGroup> {
        let placed = |group, stage, attention_rank, gpus: Vec<u32>| {
            let mut servers: Vec<u32> = gpus.iter().map(|gpu| self.server(*gpu)).collect();
            servers.dedup();
            PlacedGroup {
                replica,
                group,
                stage,
                attention_rank,
                servers,
                gpus,
            }
        };
        let whole = self.gpus(replica);
        let mut groups = vec![placed(PlacedGroupKind::Replica, None, None, whole)];
        for stage in 0..self.pipeline_parallel {
            let all = self.stage(replica, stage);
            groups.push(placed(PlacedGroupKind::Stage, Some(stage), None, all));
            for rank in 0..self.attention_data_parallel {
                let gpus = self.tensor_group(replica, stage, rank);
                let kind = PlacedGroupKind::Tensor;
                groups.push(placed(kind, Some(stage), Some(rank), gpus));
            }
        }
        groups
    }

    /// Server of a GPU.
    pub fn server(&self, gpu: u32) -> u32 {
        gpu / self.gpus_per_server.max(1)
    }
}

/// The first replica, as an example of all.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first_gpu(0);
        let last = first + self.gpus_per_replica().max(1) - 1;
        let servers = self.gpus_per_server.max(1);
        write!(
            f,
            "replica 0 on GPUs {first}-{last} (servers {}-{}), {} per stage, tensor groups of {}",
            first / servers,
            last / servers,
            self.gpus_per_stage(),
            self.tensor_parallel
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(tensor: u32, pipeline: u32, attention: u32) -> Placement {
        Placement {
            gpus_per_server: 8,
            first_server: 1,
            tensor_parallel: tensor,
            pipeline_parallel: pipeline,
            attention_data_parallel: attention,
        }
    }

    #[test]
    fn replicas_that_fit_a_server_stay_in_one() {
        let three = placement(3, 1, 1);
        assert_eq!(three.gpus(0), [8, 9, 10]);
        assert_eq!(
            three.gpus(2),
            [16, 17, 18],
            "two GPUs of a server stay idle"
        );
        assert_eq!(three.servers(3), 2);
    }

    #[test]
    fn groups_say_which_servers_they_touch() {
        // A tensor group that straddles servers is seen as such.
        let wide = placement(6, 2, 2);
        let groups = wide.groups(0);
        let kinds: Vec<_> = groups.iter().map(|placed| placed.group.name()).collect();
        let stage = ["stage", "tensor", "tensor"];
        assert_eq!(kinds, [&["replica"][..], &stage, &stage].concat());
        assert_eq!(groups[0].servers, [1, 2, 3]);
        assert_eq!(groups[2].servers, [1]);
        assert_eq!(groups[3].gpus, [14, 15, 16, 17, 18, 19]);
        assert_eq!(groups[3].servers, [1, 2]);
        assert_eq!(
            (groups[6].stage, groups[6].attention_rank),
            (Some(1), Some(1))
        );
    }

    #[test]
    fn large_replicas_start_at_a_server() {
        let wide = placement(2, 2, 6);
        assert_eq!(wide.gpus_per_replica(), 24);
        assert_eq!(wide.first_gpu(1), 8 + 24);
        assert_eq!(wide.tensor_group(0, 1, 2), [8 + 12 + 4, 8 + 12 + 5]);
        assert_eq!(wide.stage(0, 1).len(), 12);
        assert_eq!(wide.stage_link(0, 0, 3), (11, 23));
        assert_eq!(
            wide.to_string(),
            "replica 0 on GPUs 8-31 (servers 1-3), 12 per stage, tensor groups of 2"
        );
    }
}
