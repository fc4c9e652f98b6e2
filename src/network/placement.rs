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
    /// Where the first replica begins: servers before this one are left to others.
    pub first_server: u32,
    /// GPUs of that server that others have.
    pub skipped_gpus: u32,
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

    /// Where replicas of another shape begin after `replicas` of these: in the same
    /// server if they `may_share` one and the first of them fits what is left of it,
    /// else with the next. Replicas larger than a server have theirs for themselves.
    pub fn followed_by(&self, replicas: u32, next: Self, may_share: bool) -> Self {
        let (end, of_server) = (self.end(replicas), self.gpus_per_server.max(1));
        let (server, used) = (end / of_server, end % of_server);
        let may_share = may_share
            && self.gpus_per_server == next.gpus_per_server
            && self.gpus_per_replica() <= self.gpus_per_server
            && used + next.gpus_per_replica() <= self.gpus_per_server;
        let (first_server, skipped_gpus) = match (used, may_share) {
            (0, _) => (server, 0),
            (_, true) => (server, used),
            (_, false) => (server + 1, 0),
        };
        Self {
            first_server,
            skipped_gpus,
            ..next
        }
    }

    /// The GPU after the last one of `replicas`.
    pub fn end(&self, replicas: u32) -> u32 {
        match replicas.checked_sub(1) {
            None => self.first_server * self.gpus_per_server + self.skipped_gpus,
            Some(last) => self.first_gpu(last).saturating_add(self.gpus_per_replica()),
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
        let per_server = self.replicas_per_server();
        let size = self.gpus_per_replica();
        if per_server == 0 {
            let first = self.first_server + u32::from(self.skipped_gpus > 0);
            let servers = replica.saturating_mul(self.servers_per_replica());
            return first
                .saturating_add(servers)
                .saturating_mul(self.gpus_per_server);
        }
        let in_first = self.gpus_per_server.saturating_sub(self.skipped_gpus) / size.max(1);
        if let Some(later) = replica.checked_sub(in_first) {
            let server = self.first_server + 1 + later / per_server;
            return server
                .saturating_mul(self.gpus_per_server)
                .saturating_add(later % per_server * size);
        }
        self.first_server * self.gpus_per_server + self.skipped_gpus + replica * size
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

    /// GPUs that hold the KV caches of an attention rank: stage by stage, tensor rank
    /// by tensor rank.
    pub fn cache_holders(&self, replica: u32, attention_rank: u32) -> Vec<u32> {
        let stages = 0..self.pipeline_parallel;
        stages
            .flat_map(|stage| self.tensor_group(replica, stage, attention_rank))
            .collect()
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
            skipped_gpus: 0,
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
        assert_eq!(three.end(3), 19);
    }

    #[test]
    fn another_pool_takes_what_is_left_of_a_server() {
        let (four, two) = (placement(4, 1, 1), placement(2, 1, 1));
        // Three of four GPUs: 8-11, 12-15, 16-19; then two each from 20 on.
        let next = four.followed_by(3, two, true);
        assert_eq!((next.first_server, next.skipped_gpus), (2, 4));
        assert_eq!(next.gpus(1), [22, 23]);
        assert_eq!(next.first_gpu(2), 24);
        assert_eq!(next.first_gpu(6), 32);
        assert_eq!(four.followed_by(3, two, false).first_gpu(0), 24);
        assert_eq!(four.followed_by(2, two, true).first_gpu(0), 16, "full");
        // Six do not fit the four that are left, nor do they share with larger ones.
        assert_eq!(
            four.followed_by(1, placement(6, 1, 1), true).first_gpu(0),
            16
        );
        assert_eq!(
            placement(4, 3, 1).followed_by(1, two, true).first_gpu(0),
            24
        );
        // A replica larger than a server starts at the next one.
        assert_eq!(
            two.followed_by(1, placement(8, 2, 1), true).first_gpu(0),
            16
        );
        // Caches of an attention rank sit on all stages.
        assert_eq!(placement(2, 2, 2).cache_holders(0, 1), [10, 11, 14, 15]);
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
