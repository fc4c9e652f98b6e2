//! Degraded and failed links.

use std::str::FromStr;

use super::{Link, NodeKind, Topology};

/// Links to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSelector {
    /// Between two nodes, in either direction.
    Between(u32, u32),
    /// All links of a node.
    Node(u32),
    /// Network links of every server's GPU with this local index.
    Rail(u32),
}

/// A change of bandwidth of some links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopologyEdit {
    /// Which links.
    pub selector: LinkSelector,
    /// What their bandwidth is multiplied with; 0 takes them down.
    pub factor: f64,
}

/// An edit that cannot be read or changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EditError(String);

/// `rail=3:0.5`, `node=18:0` or `0-18:0.5`: links, a colon, a factor.
impl FromStr for TopologyEdit {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        let wrong = || {
            EditError(format!(
                "`{text}` is no change of links; write `rail=R:FACTOR`, `node=N:FACTOR` or \
                 `A-B:FACTOR` with a factor from 0 (down) to 1"
            ))
        };
        let (links, factor) = text.rsplit_once(':').ok_or_else(wrong)?;
        let factor: f64 = factor.parse().map_err(|_| wrong())?;
        if !(0.0..=1.0).contains(&factor) {
            return Err(wrong());
        }
        let id = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let selector = match links.split_once('=') {
            Some(("rail", rail)) => LinkSelector::Rail(id(rail)?),
            Some(("node", node)) => LinkSelector::Node(id(node)?),
            Some(_) => return Err(wrong()),
            None => {
                let (a, b) = links.split_once('-').ok_or_else(wrong)?;
                LinkSelector::Between(id(a)?, id(b)?)
            }
        };
        Ok(Self { selector, factor })
    }
}

impl Topology {
    /// This topology with some links changed. An edit that meets no link is an
    /// error.
    pub fn edited(mut self, edits: &[TopologyEdit]) -> Result<Self, EditError> {
        for edit in edits {
            let met: Vec<usize> = (0..self.links.len())
                .filter(|&index| self.meets(edit.selector, &self.links[index]))
                .collect();
            if met.is_empty() {
                return Err(EditError(format!("no link is {:?}", edit.selector)));
            }
            for index in met {
                self.links[index].bandwidth_gbps *= edit.factor;
            }
        }
        self.index_ports();
        Ok(self)
    }

    fn meets(&self, selector: LinkSelector, link: &Link) -> bool {
        let ends = [link.from, link.to];
        match selector {
            LinkSelector::Between(a, b) => ends == [a, b] || ends == [b, a],
            LinkSelector::Node(node) => ends.contains(&node),
            LinkSelector::Rail(rail) => {
                let to_network = ends.iter().any(|&end| self.kind(end) == NodeKind::Switch);
                let on_rail = |&end: &u32| {
                    self.kind(end) == NodeKind::Gpu && end % self.gpus_per_server == rail
                };
                to_network && ends.iter().any(on_rail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fabric, TopologyPlan};
    use super::*;

    #[test]
    fn a_rail_at_half_speed_and_a_dead_link() {
        let plan = TopologyPlan::new(Fabric::SpectrumX, 16);
        let topology = plan.generate().unwrap();
        let edits = ["rail=3:0.5", "0-16:0"].map(|text| text.parse().unwrap());
        let edited = topology.clone().edited(&edits).unwrap();
        let slow = |topology: &Topology| {
            let links = topology.links().iter();
            links.filter(|link| link.bandwidth_gbps == 200.0).count()
        };
        assert_eq!((slow(&topology), slow(&edited)), (0, 2));
        assert_eq!(edited.ports(0).len(), topology.ports(0).len() - 1);
        let nowhere = TopologyEdit {
            selector: LinkSelector::Between(0, 1),
            factor: 0.0,
        };
        assert!(topology.edited(&[nowhere]).is_err());
    }

    #[test]
    fn edits_are_read_strictly() {
        for wrong in ["rail=3", "rails=3:0.5", "0-1:1.5", "0:0.5", "x-1:0.5"] {
            assert!(wrong.parse::<TopologyEdit>().is_err(), "{wrong}");
        }
    }
}
