//! Where the pools of a run sit: one after the other on the servers of its topology,
//! or on servers of their device.

use std::sync::Arc;

use super::{Infeasible, InputError, Problem, ResolveError, RunConfig, TopologyOf};
use crate::catalog::DeviceSpec;
use crate::memory::Parallelism;
use crate::network::Placement;
use crate::network::topology::Topology;

impl RunConfig {
    /// Whether a topology it names is the network all its pools sit in. To the originals
    /// it is that of a replica alone.
    pub fn places_pools(&self) -> bool {
        self.compat.is_none() && self.network.topology_of != Some(TopologyOf::Replica)
    }

    /// What is wrong with its `gpus_per_node` if the servers of its topology have so many.
    pub(super) fn other_servers(&self, servers: u32) -> Option<Problem> {
        let asked = self.gpus_per_node.filter(|asked| *asked != servers)?;
        let reason = format!(
            "value `{asked}`, but the servers of network.topology {} have {servers} GPUs: leave \
             gpus_per_node out",
            self.topology_file()
        );
        Some(Problem::about("gpus_per_node", reason))
    }

    fn topology_file(&self) -> String {
        let file = self.network.topology.as_ref();
        file.map_or_else(String::new, |file| file.display().to_string())
    }
}

/// Places the pools of a run in turn.
pub(super) struct Sites<'a> {
    config: &'a RunConfig,
    /// The network all of them sit in.
    topology: Option<Arc<Topology>>,
    /// The pool before: its device, its place and how many it has.
    last: Option<(DeviceSpec, Placement, u32)>,
}

impl<'a> Sites<'a> {
    pub(super) fn new(config: &'a RunConfig, topology: Option<Arc<Topology>>) -> Self {
        Self {
            config,
            topology: topology.filter(|_| config.places_pools()),
            last: None,
        }
    }

    /// The network all pools sit in, if the run names one and follows no original.
    pub(super) fn topology(&self) -> Option<&Arc<Topology>> {
        self.topology.as_ref()
    }

    /// GPUs of a server: the topology's, the run's or the device's.
    ///
    /// # Errors
    /// If the run says something else than its topology.
    pub(super) fn gpus_per_server(&self, device: &DeviceSpec) -> Result<u32, ResolveError> {
        let asked = self.config.gpus_per_node;
        let Some(topology) = &self.topology else {
            return Ok(asked.unwrap_or(device.gpus_per_node));
        };
        let servers = topology.gpus_per_server();
        match self.config.other_servers(servers) {
            None => Ok(servers),
            Some(problem) => Err(InputError::Settings(problem).into()),
        }
    }

    /// The place of the next pool: after the one before, in the same server if it is
    /// of the same device and `may_share` one.
    ///
    /// # Errors
    /// If servers are not as the run says, or there are too few.
    pub(super) fn place(
        &mut self,
        device: &DeviceSpec,
        parallelism: Parallelism,
        replicas: u32,
        may_share: bool,
    ) -> Result<Placement, ResolveError> {
        let own = Placement {
            gpus_per_server: self.gpus_per_server(device)?,
            first_server: 0,
            skipped_gpus: 0,
            tensor_parallel: parallelism.tensor_parallel,
            pipeline_parallel: parallelism.pipeline_parallel,
            attention_data_parallel: parallelism.attention_data_parallel,
        };
        let placement = match &self.last {
            None => own,
            Some((other, before, theirs)) => {
                before.followed_by(*theirs, own, may_share && other == device)
            }
        };
        if let Some(topology) = &self.topology {
            let (end, gpus) = (placement.end(replicas), topology.gpus());
            if end > gpus {
                let reason = format!(
                    "the replicas take {end} GPUs, those left out in servers included; \
                     network.topology {} has {gpus} (network.topology_of replica gives each \
                     replica one of its own)",
                    self.config.topology_file()
                );
                return Err(Infeasible::Network(reason).into());
            }
        }
        self.last = Some((device.clone(), placement, replicas));
        Ok(placement)
    }
}
