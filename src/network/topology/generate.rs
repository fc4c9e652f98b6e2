//! Generating the usual fabrics.
//!
//! Defaults, numbering and order of links of Spectrum-X, AlibabaHPN and DCN+
//! follow the templates of SimAI, so a generated file is the file SimAI's own
//! generator writes.

use super::{Link, NodeKind, Topology};
use crate::limits::{LATENCY_NS_MAX, LINK_GBPS_MAX, TOPOLOGY_LINKS_MAX, TOPOLOGY_NODES_MAX};

/// The network between servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fabric {
    /// NVIDIA Spectrum-X: one switch per rail, spine above.
    SpectrumX,
    /// Alibaba HPN 7.0: two switches per rail, each NIC with a port on both.
    AlibabaHpn {
        /// Spines split in two planes, one per port.
        dual_plane: bool,
    },
    /// A data-centre network without rails: all NICs of a server on one switch.
    DcnPlus {
        /// Two switches, each NIC with a port on both.
        dual_tor: bool,
    },
    /// Rails and a spine just large enough for the GPUs.
    RailOptimized,
    /// Servers without a network: NVLink only.
    NvlinkDomain,
    /// GB200 NVL72: domains of 72 GPUs, four rails between them.
    Nvl72,
}

impl Fabric {
    /// All of them, by name.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("spectrum-x", Self::SpectrumX),
        ("alibaba-hpn", Self::AlibabaHpn { dual_plane: false }),
        (
            "alibaba-hpn-dual-plane",
            Self::AlibabaHpn { dual_plane: true },
        ),
        ("dcn+", Self::DcnPlus { dual_tor: false }),
        ("dcn+dual-tor", Self::DcnPlus { dual_tor: true }),
        ("rail-optimized", Self::RailOptimized),
        ("nvlink-domain", Self::NvlinkDomain),
        ("nvl72", Self::Nvl72),
    ];
}

/// A topology to generate. [`TopologyPlan::new`] has the fabric's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct TopologyPlan {
    /// The network between servers.
    pub fabric: Fabric,
    /// GPUs in all.
    pub gpus: u32,
    /// GPUs of a server (of an NVLink domain).
    pub gpus_per_server: u32,
    /// GPU type, for the file.
    pub gpu_type: String,
    /// NVSwitches of a server, each connected to every GPU.
    pub nvswitches_per_server: u32,
    /// NVLink bandwidth of a GPU and NVSwitch, gigabits per second.
    pub nvlink_bandwidth_gbps: f64,
    /// Delay of an NVLink hop, nanoseconds.
    pub nvlink_latency_ns: f64,
    /// Bandwidth of a NIC port, gigabits per second.
    pub nic_bandwidth_gbps: f64,
    /// Delay of a hop of the network, nanoseconds.
    pub hop_latency_ns: f64,
    /// NICs that share an access switch, at most.
    pub nics_per_switch: u32,
    /// Spine switches.
    pub spine_switches: u32,
    /// Bandwidth of a link between access and spine switch, gigabits per second.
    pub spine_bandwidth_gbps: f64,
    /// Access switches the spine has ports for; `None`: no limit.
    pub access_switches_max: Option<u32>,
    /// Rails: access switches the GPUs of a server spread over. Not for DCN+.
    pub rails: u32,
    /// Share of packets lost, for the file.
    pub error_rate: f64,
}

/// A plan that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

impl TopologyPlan {
    /// The fabric with its usual figures: H100 servers of 8 (NVL72: 72 B200s),
    /// 400 Gb/s NICs (two ports of 200 Gb/s where a NIC has two).
    pub fn new(fabric: Fabric, gpus: u32) -> Self {
        let plan = Self {
            fabric,
            gpus,
            gpus_per_server: 8,
            gpu_type: "H100".into(),
            nvswitches_per_server: 1,
            nvlink_bandwidth_gbps: 2880.0,
            nvlink_latency_ns: 25.0,
            nic_bandwidth_gbps: 400.0,
            hop_latency_ns: 500.0,
            nics_per_switch: 64,
            spine_switches: 64,
            spine_bandwidth_gbps: 400.0,
            access_switches_max: Some(64),
            rails: 8,
            error_rate: 0.0,
        };
        match fabric {
            Fabric::SpectrumX => plan,
            Fabric::AlibabaHpn { dual_plane } => Self {
                nic_bandwidth_gbps: 200.0,
                nics_per_switch: 128,
                spine_switches: 120,
                access_switches_max: Some(if dual_plane { 120 } else { 240 }),
                ..plan
            },
            Fabric::DcnPlus { dual_tor } => Self {
                nic_bandwidth_gbps: if dual_tor { 200.0 } else { 400.0 },
                nics_per_switch: if dual_tor { 128 } else { 64 },
                spine_switches: 8,
                access_switches_max: Some(8),
                ..plan
            },
            Fabric::RailOptimized => Self {
                spine_switches: 64.min(gpus.div_ceil(8)),
                access_switches_max: None,
                ..plan
            },
            Fabric::NvlinkDomain => Self {
                spine_switches: 0,
                access_switches_max: None,
                ..plan
            },
            Fabric::Nvl72 => Self {
                gpus_per_server: 72,
                gpu_type: "B200".into(),
                nvlink_bandwidth_gbps: 7200.0,
                nics_per_switch: 36,
                spine_switches: if gpus <= 72 { 0 } else { 36 },
                access_switches_max: None,
                rails: 4,
                ..plan
            },
        }
    }

    /// The name SimAI's generator gives such a file, e.g.
    /// `Spectrum-X_128g_8gps_100Gbps_A100`.
    pub fn file_name(&self) -> String {
        let (family, ports) = match self.fabric {
            Fabric::SpectrumX => ("Spectrum-X", ""),
            Fabric::AlibabaHpn { dual_plane: false } => ("AlibabaHPN", "DualToR_SinglePlane_"),
            Fabric::AlibabaHpn { dual_plane: true } => ("AlibabaHPN", "DualToR_DualPlane_"),
            Fabric::DcnPlus { dual_tor: false } => ("DCN+SingleToR", ""),
            Fabric::DcnPlus { dual_tor: true } => ("DCN+DualToR", ""),
            Fabric::RailOptimized => ("Rail_Opti_SingleToR", ""),
            Fabric::NvlinkDomain => ("NVLink", ""),
            Fabric::Nvl72 => ("NVL72", ""),
        };
        format!(
            "{family}_{}g_{}gps_{ports}{}Gbps_{}",
            self.gpus, self.gpus_per_server, self.nic_bandwidth_gbps, self.gpu_type
        )
    }

    /// Builds the graph.
    pub fn generate(&self) -> Result<Topology, PlanError> {
        self.check()?;
        let servers = self.gpus / self.gpus_per_server;
        let layout = self.layout();
        let nvswitches = servers * self.nvswitches_per_server;
        let first_access = self.gpus + nvswitches;
        let first_spine = first_access + layout.access_switches();
        let nodes = first_spine + self.spines();

        let mut kinds = vec![NodeKind::Switch; nodes as usize];
        kinds[..self.gpus as usize].fill(NodeKind::Gpu);
        kinds[self.gpus as usize..first_access as usize].fill(NodeKind::NvSwitch);

        let mut links = Vec::new();
        for gpu in 0..self.gpus {
            let server = gpu / self.gpus_per_server;
            for index in 0..self.nvswitches_per_server {
                let nvswitch = self.gpus + server * self.nvswitches_per_server + index;
                links.push(self.nvlink(gpu, nvswitch));
            }
            for side in 0..layout.ports_per_nic {
                let access = layout.access_switch(self, gpu, side);
                links.push(self.hop(gpu, first_access + access, self.nic_bandwidth_gbps));
            }
        }
        for access in 0..layout.access_switches() {
            let spines = layout.spines_above(access, self.spines());
            for spine in spines {
                let (access, spine) = (first_access + access, first_spine + spine);
                links.push(self.hop(access, spine, self.spine_bandwidth_gbps));
            }
        }
        let switch_order = (self.gpus..nodes).collect();
        let (gpu_type, per_server) = (self.gpu_type.clone(), self.gpus_per_server);
        Ok(Topology::new(
            gpu_type,
            per_server,
            kinds,
            switch_order,
            links,
        ))
    }

    fn check(&self) -> Result<(), PlanError> {
        let wrong = |message: String| Err(PlanError(message));
        if self.gpus == 0 || self.gpus_per_server == 0 || self.nvswitches_per_server == 0 {
            return wrong(
                "GPUs, GPUs per server and NVSwitches per server must be at least 1".into(),
            );
        }
        if !self.gpus.is_multiple_of(self.gpus_per_server) {
            let (gpus, servers) = (self.gpus, self.gpus_per_server);
            return wrong(format!("{gpus} GPUs do not fill servers of {servers}"));
        }
        if self.nics_per_switch == 0 || self.rails == 0 {
            return wrong("NICs per switch and rails must be at least 1".into());
        }
        if self.rails > self.gpus_per_server || !self.gpus_per_server.is_multiple_of(self.rails) {
            let (rails, servers) = (self.rails, self.gpus_per_server);
            return wrong(format!(
                "{rails} rails do not divide servers of {servers} GPUs"
            ));
        }
        let positive = [
            self.nvlink_bandwidth_gbps,
            self.nic_bandwidth_gbps,
            self.spine_bandwidth_gbps,
        ];
        if positive
            .iter()
            .any(|gbps| !(*gbps > 0.0 && *gbps <= LINK_GBPS_MAX))
        {
            return wrong("bandwidths must be positive, and at most 10^9 Gb/s".into());
        }
        let latencies = [self.nvlink_latency_ns, self.hop_latency_ns];
        if latencies
            .iter()
            .any(|latency| !(0.0..=LATENCY_NS_MAX).contains(latency))
        {
            return wrong("latencies are from 0 to 10^9 ns".into());
        }
        if self.gpu_type.is_empty() || self.gpu_type.contains(char::is_whitespace) {
            return wrong("the GPU type must be one word".into());
        }
        self.check_size()?;
        let layout = self.layout();
        if layout.segments > 1 && self.spines() == 0 {
            return wrong("several segments of access switches need spine switches".into());
        }
        // The spine's ports count the access switches of one side.
        let one_side = layout.segments * layout.access_per_segment;
        match self.access_switches_max {
            Some(most) if one_side > most => wrong(format!(
                "{} GPUs need {one_side} access switches, the spine has ports for {most}",
                self.gpus
            )),
            _ => Ok(()),
        }
    }

    /// Whether the graph stays within limits.
    fn check_size(&self) -> Result<(), PlanError> {
        let parts = [
            ("GPUs", self.gpus),
            ("NVSwitches per server", self.nvswitches_per_server),
            ("NICs per switch", self.nics_per_switch),
            ("spine switches", self.spines()),
        ];
        let large = parts.iter().find(|(_, count)| *count > TOPOLOGY_NODES_MAX);
        if let Some((what, count)) = large {
            return Err(PlanError(format!(
                "{count} {what}; at most {TOPOLOGY_NODES_MAX} are allowed"
            )));
        }
        let layout = self.layout();
        let (gpus, access) = (
            u64::from(self.gpus),
            u64::from(layout.segments)
                * u64::from(layout.access_per_segment)
                * u64::from(layout.ports_per_nic),
        );
        let of_server = u64::from(self.nvswitches_per_server);
        let nodes = gpus
            + gpus / u64::from(self.gpus_per_server) * of_server
            + access
            + u64::from(self.spines());
        let links = gpus * (of_server + u64::from(layout.ports_per_nic))
            + access * u64::from(self.spines());
        if nodes > u64::from(TOPOLOGY_NODES_MAX) || links > TOPOLOGY_LINKS_MAX {
            return Err(PlanError(format!(
                "{nodes} nodes and up to {links} links; at most {TOPOLOGY_NODES_MAX} nodes and \
                 {TOPOLOGY_LINKS_MAX} links are allowed"
            )));
        }
        Ok(())
    }

    fn spines(&self) -> u32 {
        if self.fabric == Fabric::NvlinkDomain {
            0
        } else {
            self.spine_switches
        }
    }

    fn layout(&self) -> Layout {
        let (ports_per_nic, planes, rails) = match self.fabric {
            Fabric::AlibabaHpn { dual_plane } => (2, if dual_plane { 2 } else { 1 }, self.rails),
            Fabric::DcnPlus { dual_tor } => (if dual_tor { 2 } else { 1 }, 1, 1),
            Fabric::SpectrumX | Fabric::RailOptimized | Fabric::Nvl72 => (1, 1, self.rails),
            Fabric::NvlinkDomain => (0, 1, 1),
        };
        Layout {
            ports_per_nic,
            planes,
            access_per_segment: rails,
            segments: self
                .gpus
                .div_ceil(self.nics_per_switch.saturating_mul(rails)),
        }
    }

    fn nvlink(&self, gpu: u32, nvswitch: u32) -> Link {
        Link {
            from: gpu,
            to: nvswitch,
            bandwidth_gbps: self.nvlink_bandwidth_gbps,
            latency_ns: self.nvlink_latency_ns,
            error_rate: self.error_rate,
        }
    }

    fn hop(&self, from: u32, to: u32, bandwidth_gbps: f64) -> Link {
        Link {
            from,
            to,
            bandwidth_gbps,
            latency_ns: self.hop_latency_ns,
            error_rate: self.error_rate,
        }
    }
}

/// How NICs meet access switches. Access switches are numbered side by side:
/// all for first ports, then all for second ports.
struct Layout {
    ports_per_nic: u32,
    planes: u32,
    /// Access switches of one side in a segment.
    access_per_segment: u32,
    segments: u32,
}

impl Layout {
    fn one_side(&self) -> u32 {
        self.segments * self.access_per_segment
    }

    fn access_switches(&self) -> u32 {
        self.one_side() * self.ports_per_nic
    }

    fn access_switch(&self, plan: &TopologyPlan, gpu: u32, side: u32) -> u32 {
        let segment = gpu / plan.nics_per_switch.saturating_mul(self.access_per_segment);
        let rail = gpu % self.access_per_segment;
        side * self.one_side() + segment * self.access_per_segment + rail
    }

    fn spines_above(&self, access: u32, spines: u32) -> std::ops::Range<u32> {
        let plane_size = spines / self.planes;
        let plane = if self.planes > 1 {
            access / self.one_side()
        } else {
            0
        };
        plane * plane_size..(plane + 1) * plane_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fabric_generates_what_it_announces() {
        for (name, fabric) in Fabric::NAMED {
            let gpus = if fabric == Fabric::Nvl72 { 144 } else { 64 };
            let topology = TopologyPlan::new(fabric, gpus).generate().unwrap();
            assert_eq!(topology.gpus(), gpus, "{name}");
            let again = Topology::parse(&topology.to_string(), name).unwrap();
            assert_eq!(again, topology, "{name}");
        }
    }

    #[test]
    fn segments_follow_the_ports_of_access_switches() {
        let mut plan = TopologyPlan::new(Fabric::SpectrumX, 1024);
        let topology = plan.generate().unwrap();
        // 1,024 GPUs on 8 rails of 64 ports: two segments, 16 access switches.
        let far = topology.ports(512)[1].to;
        assert_eq!(far, 1024 + 128 + 8);
        plan.access_switches_max = Some(8);
        let error = plan.generate().unwrap_err().to_string();
        assert_eq!(
            error,
            "1024 GPUs need 16 access switches, the spine has ports for 8"
        );
    }

    #[test]
    fn plans_that_do_not_fit_are_refused() {
        let change = |change: fn(&mut TopologyPlan)| {
            let mut plan = TopologyPlan::new(Fabric::RailOptimized, 32);
            change(&mut plan);
            plan.generate().unwrap_err().to_string()
        };
        assert_eq!(
            change(|plan| plan.gpus = 12),
            "12 GPUs do not fill servers of 8"
        );
        assert_eq!(
            change(|plan| plan.rails = 3),
            "3 rails do not divide servers of 8 GPUs"
        );
        assert!(change(|plan| plan.nic_bandwidth_gbps = -1.0).contains("positive"));
        let message = change(|plan| plan.gpus = 4_294_967_288);
        assert_eq!(message, "4294967288 GPUs; at most 4000000 are allowed");
        assert!(
            change(|plan| plan.nvswitches_per_server = 4_000_000).contains("at most 4000000 nodes")
        );
        assert!(change(|plan| plan.hop_latency_ns = 1e32).contains("10^9 ns"));
    }
}
