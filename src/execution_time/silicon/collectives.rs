//! Prices of collectives inside a node, and beyond it by a stated rule.

use super::curve::CurveSet;
use super::frame::Frame;
use super::{Found, How, Missing, Reading, SiliconError};

/// Links of the device, for groups larger than measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    pub gpus_per_node: u32,
    /// Bandwidth inside a node over that between nodes, per GPU.
    pub node_over_network: f64,
}

/// All-reduce kernels of an engine: curves over elements, by GPUs.
#[derive(Debug)]
pub(super) struct AllReduceTable {
    by_gpus: CurveSet<u32>,
}

impl AllReduceTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let gpus = frame.numbers("gpus")?;
        let elements = frame.numbers("elements")?;
        let latencies_ms = frame.latencies_ms()?;
        let points = (0..frame.rows()).map(|row| (gpus[row], elements[row], latencies_ms[row]));
        Ok(Self {
            by_gpus: CurveSet::build(points.collect()),
        })
    }

    pub(super) fn price(&self, elements: f64, gpus: u32, links: Links) -> Result<Found, Missing> {
        let find = |gpus: u32| self.by_gpus.get(&gpus)?.lookup(elements, 1, |size| size);
        group(self.by_gpus.keys(), find, gpus, links)
    }
}

/// What NCCL can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Collective {
    AllGather,
    AllReduce,
    AllToAll,
    ReduceScatter,
}

impl Collective {
    fn parse(name: &str) -> Result<Self, SiliconError> {
        match name {
            "all_gather" => Ok(Self::AllGather),
            "all_reduce" => Ok(Self::AllReduce),
            "all_to_all" => Ok(Self::AllToAll),
            "reduce_scatter" => Ok(Self::ReduceScatter),
            _ => Err(SiliconError::Malformed {
                file: "nccl".into(),
                reason: format!("unknown collective `{name}`"),
            }),
        }
    }
}

/// NCCL: curves over elements, by collective and GPUs.
#[derive(Debug)]
pub(super) struct NcclTable {
    curves: CurveSet<(Collective, u32)>,
}

impl NcclTable {
    pub(super) fn build(frame: &Frame) -> Result<Self, SiliconError> {
        let collectives = frame.texts("collective")?.parsed(Collective::parse)?;
        let gpus = frame.numbers("gpus")?;
        let elements = frame.numbers("elements")?;
        let latencies_ms = frame.latencies_ms()?;
        let point = |row: usize| {
            let key = (collectives.of(row), gpus[row]);
            (key, elements[row], latencies_ms[row])
        };
        Ok(Self {
            curves: CurveSet::build((0..frame.rows()).map(point).collect()),
        })
    }

    pub(super) fn price(
        &self,
        collective: Collective,
        elements: f64,
        gpus: u32,
        links: Links,
    ) -> Result<Found, Missing> {
        let keys = self.curves.keys().iter();
        let measured: Vec<u32> = keys
            .filter(|key| key.0 == collective)
            .map(|key| key.1)
            .collect();
        let find = |gpus: u32| {
            self.curves
                .get(&(collective, gpus))?
                .lookup(elements, 1, |size| size)
        };
        group(&measured, find, gpus, links)
    }
}

/// Time for a group of `gpus`, from those measured (ascending). Between them a
/// straight line. Beyond the largest, its time scaled as a ring would: by the
/// share of the data that travels, (n - 1) / n, and by the bandwidth that is
/// lost on leaving the node.
fn group(
    measured: &[u32],
    find: impl Fn(u32) -> Option<Reading>,
    gpus: u32,
    links: Links,
) -> Result<Found, Missing> {
    let held = || Missing::new("nothing measured to hold on to");
    let above = measured.partition_point(|&n| n < gpus);
    if measured.get(above) == Some(&gpus) {
        return find(gpus).map(Found::from).ok_or_else(held);
    }
    let Some(&below) = above.checked_sub(1).and_then(|i| measured.get(i)) else {
        return Err(Missing::new(format!("no group of {gpus} GPUs measured")));
    };
    let low = find(below).ok_or_else(held)?;
    if let Some(&next) = measured.get(above) {
        let high = find(next).ok_or_else(held)?;
        let weight = f64::from(gpus - below) / f64::from(next - below);
        let mut found = low.share(1.0 - weight).plus(high.share(weight));
        found.how = found.how.max(How::Interpolated);
        return Ok(found.into());
    }
    let travels = |n: u32| f64::from(n - 1) / f64::from(n);
    let leaves_node = gpus > links.gpus_per_node && below <= links.gpus_per_node;
    let slower = if leaves_node {
        links.node_over_network
    } else {
        1.0
    };
    let found = low.share(travels(gpus) / travels(below) * slower);
    Ok(found.substituted(Some(format!("{below} GPUs"))))
}
