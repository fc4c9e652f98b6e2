//! What the ranks of one replica pay for communicating over a network: where its
//! GPUs sit, which groups they form, and the model that prices them.
//!
//! Groups are priced as if they had the network for themselves; the first
//! replica of a [`Placement`] stands for all.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::analytical::AnalyticalNetwork;
use super::flow::{FlowNetwork, GroupId};
use super::nccl::{GroupShape, NcclModel};
use super::{Collective, ExpertExchange, GroupKind, Placement, SimaiBinary};
use crate::number::whole_u64;

/// How communication is priced.
#[derive(Debug)]
pub enum FabricModel {
    /// NCCL-like, from the links of a server and its NICs.
    Nccl(NcclModel),
    /// Flows over a topology.
    Flow(FlowNetwork),
    /// Collectives by an installed SimAI; sends, and what it gives no result for,
    /// as flows over the same topology.
    SimaiBinary {
        /// The program.
        binary: SimaiBinary,
        /// The flows.
        flows: FlowNetwork,
    },
    /// All-reduces as Vidur-AlibabaCloud gets them from SimAI's analytical mode:
    /// free from 1 MiB on. The rest is not priced.
    AnalyticalAsCalled,
}

impl FabricModel {
    /// The flows it has.
    fn flows(&self) -> Option<&FlowNetwork> {
        match self {
            Self::Flow(flows) | Self::SimaiBinary { flows, .. } => Some(flows),
            Self::Nccl(_) | Self::AnalyticalAsCalled => None,
        }
    }
}

/// Prices the communication of a replica.
#[derive(Debug)]
pub struct Fabric {
    model: FabricModel,
    placement: Placement,
    name: String,
    /// Groups of consecutive GPUs from the first on, registered beforehand.
    groups: Vec<(u32, GroupId)>,
    /// Host part of a collective, seconds.
    launch_s: f64,
    /// What a person should know of the prices so far.
    warnings: Mutex<BTreeSet<String>>,
}

impl Fabric {
    /// Places a replica. `name` is what prices are said to come from; `launch_s`
    /// is added to every collective.
    ///
    /// # Errors
    /// If the network has too few GPUs, or a group cannot communicate as one; one
    /// line.
    pub fn new(
        model: FabricModel,
        placement: Placement,
        name: String,
        launch_s: f64,
    ) -> Result<Self, String> {
        let mut groups = Vec::new();
        if let Some(network) = model.flows() {
            let gpus = network.topology().gpus();
            let needed = placement.gpus_per_replica();
            if placement.first_gpu(0) + needed > gpus {
                return Err(format!("{name} has {gpus} GPUs, a replica takes {needed}"));
            }
            for (ranks, kind) in [
                (placement.tensor_parallel, GroupKind::Tensor),
                (placement.gpus_per_stage(), GroupKind::Expert),
            ] {
                if ranks > 1 && !groups.iter().any(|(known, _)| *known == ranks) {
                    let members: Vec<u32> = (0..ranks)
                        .map(|rank| placement.first_gpu(0) + rank)
                        .collect();
                    let group = network.group(kind, &members);
                    groups.push((ranks, group.map_err(|error| format!("{name}: {error}"))?));
                }
            }
        }
        Ok(Self {
            model,
            placement,
            name,
            groups,
            launch_s,
            warnings: Mutex::default(),
        })
    }

    /// What prices are said to come from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the replica sits.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Time of a collective of `bytes` among `ranks` consecutive GPUs, seconds.
    ///
    /// # Errors
    /// Why it has no price.
    pub fn collective_s(
        &self,
        collective: Collective,
        bytes: f64,
        ranks: u32,
    ) -> Result<f64, String> {
        if ranks <= 1 || bytes <= 0.0 {
            return Ok(0.0);
        }
        let size = whole_u64(bytes.round());
        let time_s = match &self.model {
            FabricModel::Nccl(model) => {
                let servers = ranks.div_ceil(model.gpus_per_server.max(1));
                let price = model.price(collective, size, GroupShape { ranks, servers });
                price.ok_or("no link joins the ranks")?.time_us * 1e-6
            }
            FabricModel::SimaiBinary { binary, flows } => {
                match binary.time_us(collective, size, ranks) {
                    Ok(time_us) => time_us * 1e-6,
                    Err(reason) => {
                        self.warn(format!("{reason}; priced as flows instead"));
                        self.flow_s(flows, collective, size, ranks)?
                    }
                }
            }
            FabricModel::Flow(network) => self.flow_s(network, collective, size, ranks)?,
            FabricModel::AnalyticalAsCalled if collective == Collective::AllReduce => {
                AnalyticalNetwork::vidur_time_ns(ranks, size) * 1e-9
            }
            FabricModel::AnalyticalAsCalled => return Err("not priced by the original".into()),
        };
        Ok(time_s + self.launch_s)
    }

    fn flow_s(
        &self,
        network: &FlowNetwork,
        collective: Collective,
        size: u64,
        ranks: u32,
    ) -> Result<f64, String> {
        let group = self.groups.iter().find(|(known, _)| *known == ranks);
        let (_, group) = group.ok_or_else(|| format!("no group of {ranks} ranks"))?;
        let time = network.time_ns(collective, size, *group);
        Ok(time.map_err(|error| error.to_string())? * 1e-9)
    }

    fn warn(&self, warning: String) {
        let warnings = self.warnings.lock();
        warnings
            .unwrap_or_else(PoisonError::into_inner)
            .insert(warning);
    }

    /// What a person should know of the prices so far, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock();
        let warnings = warnings.unwrap_or_else(PoisonError::into_inner);
        warnings.iter().cloned().collect()
    }

    /// Tokens to the GPUs of their experts, or their results back: over flows an
    /// all-to-all of what the tokens of a rank are sent as; without a topology
    /// DeepEP's kernels, where they run.
    ///
    /// # Errors
    /// As [`Self::collective_s`].
    pub fn exchange_s(&self, exchange: &ExpertExchange) -> Result<f64, String> {
        if let FabricModel::Nccl(model) = &self.model
            && let Some(kernels) = model.deepep()
        {
            let time_s = kernels.time_s(exchange);
            let time_s = time_s.ok_or("no link joins the ranks")?;
            return Ok(time_s + self.launch_s);
        }
        let bytes = f64::from(exchange.tokens_per_rank) * exchange.token_bytes * exchange.copies();
        self.collective_s(Collective::AllToAll, bytes, exchange.ranks)
    }

    /// Activations from the ranks of a stage to those of the next, seconds.
    ///
    /// # Errors
    /// Why it has no price.
    pub fn send_s(&self, bytes: f64) -> Result<f64, String> {
        let size = whole_u64(bytes.round());
        // The last boundary: stages fill servers one after the other, so if any
        // crosses one, this does at the latest.
        let stage = self.placement.gpus_per_stage();
        let last = self.placement.pipeline_parallel.saturating_sub(1);
        let to = self.placement.first_gpu(0) + last * stage;
        let from = to.saturating_sub(stage);
        match &self.model {
            FabricModel::Nccl(model) => {
                let inside = from / model.gpus_per_server == to / model.gpus_per_server;
                let gb_per_s = if inside {
                    model.nvlink_gb_per_s
                } else {
                    model.nic_gb_per_s
                };
                if gb_per_s > 0.0 {
                    Ok(super::NIC_LATENCY_S + bytes / (gb_per_s * 1e9))
                } else {
                    Err("no link joins the stages".into())
                }
            }
            FabricModel::Flow(network) | FabricModel::SimaiBinary { flows: network, .. } => {
                let time = network.send_ns(size, from, to);
                Ok(time.map_err(|error| error.to_string())? * 1e-9)
            }
            FabricModel::AnalyticalAsCalled => Err("not priced by the original".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::{Fabric as Kind, TopologyPlan};
    use super::*;
    use crate::network::flow::{SimaiConf, SimaiEnvironment};

    fn placement(gpus_per_stage: u32, stages: u32, tensor_parallel: u32) -> Placement {
        Placement {
            gpus_per_server: 8,
            first_server: 0,
            skipped_gpus: 0,
            tensor_parallel,
            pipeline_parallel: stages,
            attention_data_parallel: gpus_per_stage / tensor_parallel,
        }
    }

    fn flow(placement: Placement) -> Result<Fabric, String> {
        let topology = TopologyPlan::new(Kind::SpectrumX, 16).generate().unwrap();
        let network = FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default());
        Fabric::new(FabricModel::Flow(network), placement, "test".into(), 2e-5)
    }

    #[test]
    fn groups_are_those_of_the_placement_and_carry_the_launch() {
        let fabric = flow(placement(16, 1, 8)).unwrap();
        let reduce = |ranks| fabric.collective_s(Collective::AllReduce, 1e6, ranks);
        assert!(reduce(8).unwrap() > 2e-5);
        assert!(reduce(16).unwrap() > reduce(8).unwrap());
        assert!(reduce(4).unwrap_err().contains("no group of 4"));
        assert_eq!(reduce(1), Ok(0.0));
        assert!(
            flow(placement(16, 2, 8))
                .unwrap_err()
                .contains("has 16 GPUs, a replica takes 32")
        );
    }

    #[test]
    fn stages_on_different_servers_are_further_apart() {
        let near = flow(placement(4, 2, 4)).unwrap().send_s(1e7).unwrap();
        let far = flow(placement(8, 2, 8)).unwrap().send_s(1e7).unwrap();
        assert!(far > near, "{far} {near}");
    }

    #[test]
    fn an_exchange_sends_each_token_once_to_each_gpu() {
        let fabric = flow(placement(8, 1, 1)).unwrap();
        let exchange = |low_latency| ExpertExchange {
            tokens_per_rank: 1000,
            token_bytes: 7168.0,
            experts_per_token: 8,
            experts: 256,
            ranks: 8,
            low_latency,
            combine: false,
            groups: (1, 1),
        };
        let throughput = fabric.exchange_s(&exchange(false)).unwrap();
        assert!(throughput < fabric.exchange_s(&exchange(true)).unwrap());
    }
}
