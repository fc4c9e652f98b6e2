//! One operator, one price: measured where that is possible, roofline where
//! not, and always said which.

use std::sync::Arc;

use crate::catalog::DeviceSpec;
use crate::execution_time::roofline::{self, KernelFits, Roofline};
use crate::execution_time::{Operator, OperatorCost, Price, Provenance};
use crate::network::{Collective, Fabric, LinkOverrides, Links};

/// Prices operators from a measured source with the roofline behind it.
pub(super) struct Pricer {
    measured: Option<Arc<dyn OperatorCost>>,
    roofline: Roofline,
    links: LinkSource,
    gpus_per_node: u32,
    groups: (u32, u32),
    fabric: Option<Arc<Fabric>>,
}

/// Whether measured collectives stand for the links of this deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkSource {
    Measured,
    /// Not: the formulas are used, for this reason.
    Formula(String),
}

impl Pricer {
    pub(super) fn new(
        device: &DeviceSpec,
        measured: Option<Arc<dyn OperatorCost>>,
        fits: Option<KernelFits>,
        groups: (u32, u32),
        gpus_per_node: u32,
        overrides: &LinkOverrides,
    ) -> Self {
        let links = Links::new(device, gpus_per_node, overrides);
        let roofline = Roofline::new(device, links).with_expert_groups(groups.0, groups.1);
        Self {
            measured,
            roofline: match fits {
                Some(fits) => roofline.with_fits(fits),
                None => roofline,
            },
            links: link_source(device, overrides),
            gpus_per_node,
            groups,
            fabric: None,
        }
    }

    /// The same with communication over `fabric`.
    pub(super) fn over(self, fabric: Arc<Fabric>) -> Self {
        Self {
            fabric: Some(fabric),
            ..self
        }
    }

    /// What a person should know of the fabric's prices so far.
    pub(super) fn warnings(&self) -> Vec<String> {
        let fabric = self.fabric.as_ref();
        fabric.map_or_else(Vec::new, |fabric| fabric.warnings())
    }

    /// Price of communication over the fabric, if there is one and `operator` is
    /// communication.
    fn over_fabric(&self, operator: &Operator) -> Option<Price> {
        let fabric = self.fabric.as_ref()?;
        let collective = |collective, bytes, gpus| fabric.collective_s(collective, bytes, gpus);
        let time_s = match *operator {
            Operator::AllReduce { bytes, gpus } => collective(Collective::AllReduce, bytes, gpus),
            Operator::AllGather { bytes, gpus } => collective(Collective::AllGather, bytes, gpus),
            Operator::ReduceScatter { bytes, gpus } => {
                collective(Collective::ReduceScatter, bytes, gpus)
            }
            Operator::SendRecv { bytes, .. } => fabric.send_s(bytes),
            _ => fabric.exchange_s(&operator.exchange(self.groups)?),
        };
        Some(match time_s {
            Ok(time_s) => Price {
                time_s,
                provenance: Provenance::Substituted {
                    from: fabric.name().to_owned(),
                },
            },
            Err(reason) => Price {
                time_s: self.roofline.time_s(operator),
                provenance: Provenance::Roofline { reason },
            },
        })
    }

    /// Time of one run, seconds.
    pub(super) fn time_s(&self, operator: &Operator) -> f64 {
        self.price(operator).time_s
    }

    pub(super) fn price(&self, operator: &Operator) -> Price {
        let formula = |provenance| Price {
            time_s: self.roofline.time_s(operator),
            provenance,
        };
        if let Some(price) = self.over_fabric(operator) {
            return price;
        }
        if roofline::is_formula(operator) {
            return formula(Provenance::Formula);
        }
        let Some(measured) = &self.measured else {
            let reason = match self.roofline.fits() {
                Some(fits) => format!("kernel efficiencies fitted on {}", fits.device()),
                None => "backend roofline".into(),
            };
            return formula(Provenance::Roofline { reason });
        };
        if let Some(reason) = self.unmeasurable_link(operator) {
            return formula(Provenance::Roofline { reason });
        }
        match measured.price(operator) {
            Ok(price) => price,
            Err(error) => formula(Provenance::Roofline {
                reason: error.reason,
            }),
        }
    }

    /// Whether a chunk of a prompt costs its share of the whole prompt, whatever
    /// the two are: measured attention does.
    pub(super) fn shares_prompts(&self, operator: &Operator) -> bool {
        let measured = self
            .measured
            .as_ref()
            .map(|measured| measured.price(operator));
        matches!(operator, Operator::ContextAttention { .. }) && matches!(measured, Some(Ok(_)))
    }

    /// Why a collective cannot be looked up, if it is one.
    fn unmeasurable_link(&self, operator: &Operator) -> Option<String> {
        let inside_node = match *operator {
            Operator::AllReduce { gpus, .. }
            | Operator::AllGather { gpus, .. }
            | Operator::ReduceScatter { gpus, .. } => gpus <= self.gpus_per_node,
            Operator::ExpertDispatch { .. } | Operator::ExpertCombine { .. } => true,
            _ => return None,
        };
        if let LinkSource::Formula(reason) = &self.links {
            return Some(reason.clone());
        }
        (!inside_node).then(|| "group spans nodes; measured inside one".into())
    }
}

fn link_source(device: &DeviceSpec, overrides: &LinkOverrides) -> LinkSource {
    let replaced = |own: f64, wanted: Option<f64>| wanted.is_some_and(|wanted| wanted != own);
    if replaced(
        device.nvlink_bandwidth_gbps,
        overrides.nvlink_bandwidth_gbps,
    ) {
        return LinkSource::Formula("nvlink_bandwidth_gbps is not the measured device's".into());
    }
    if replaced(device.nic_bandwidth_gbps, overrides.rdma_bandwidth_gbps) {
        return LinkSource::Formula("rdma_bandwidth_gbps is not the measured device's".into());
    }
    match &device.kernels_of {
        Some(other) => LinkSource::Formula(format!(
            "{} has links of its own; collectives were measured on {other}",
            device.name
        )),
        None => LinkSource::Measured,
    }
}
