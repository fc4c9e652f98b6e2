//! Algorithms as SimAI chooses them, and what a flow takes to start.

use crate::limits::LATENCY_NS_MAX;
use crate::network::collective::{Collective, GroupKind};

/// `AS_SEND_LAT` is in microseconds.
const NS_PER_US: f64 = 1e3;
/// Variables and the most each may be.
const VARIABLES: [(&str, f64); 3] = [
    ("AS_SEND_LAT", LATENCY_NS_MAX / NS_PER_US),
    ("AS_NVLS_ENABLE", 1.0),
    ("AS_PXN_ENABLE", 1.0),
];
/// From this size NVLS is chosen where it can be.
const NVLS_BYTES_MIN: u64 = 2 << 20;
/// Ranks below which NVLS is not chosen.
const NVLS_RANKS_MIN: usize = 8;
/// GPU types that SimAI gives NVLS (H20 it cannot read from a topology).
const NVLS_GPUS: [&str; 2] = ["H100", "H800"];
/// Largest messages of the protocols of a ring.
const LL_BYTES_MAX: u64 = 4 << 20;
const LL128_BYTES_MAX: u64 = 16 << 20;

/// What SimAI decomposes a collective into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Rings, or direct flows of an all-to-all.
    Ring,
    /// Reduction in the NVSwitch.
    Nvls,
}

/// What a flow takes to start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SendLatency {
    /// The same for every flow, nanoseconds (`AS_SEND_LAT`, which Vidur sets to
    /// 6 microseconds).
    Fixed(f64),
    /// SimAI's table of NCCL's latencies by algorithm, protocol and link, times
    /// a factor. SimAI confuses nanoseconds and picoseconds: its factor is 1000.
    NcclTable(f64),
}

/// SimAI's environment variables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimaiEnvironment {
    /// What a flow takes to start (`AS_SEND_LAT`).
    pub send_latency: SendLatency,
    /// Reductions in the NVSwitch where possible (`AS_NVLS_ENABLE`).
    pub nvls: bool,
    /// Forwarding to the receiver's rail inside a server (`AS_PXN_ENABLE`).
    pub pxn: bool,
}

/// As Vidur runs SimAI.
impl Default for SimaiEnvironment {
    fn default() -> Self {
        Self {
            send_latency: SendLatency::Fixed(6000.0),
            nvls: true,
            pxn: false,
        }
    }
}

impl SimaiEnvironment {
    /// Of a list of assignments, `AS_SEND_LAT=6;AS_NVLS_ENABLE=1`: what is not
    /// assigned is as SimAI has it by itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut environment = Self {
            send_latency: SendLatency::NcclTable(1000.0),
            nvls: false,
            pxn: false,
        };
        for assignment in text
            .split(';')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let (name, value) = assignment
                .split_once('=')
                .ok_or_else(|| format!("`{assignment}` is no NAME=VALUE"))?;
            let Some((_, most)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                let known = VARIABLES.map(|(known, _)| known);
                let hint = crate::spelling::did_you_mean(name, known);
                return Err(format!("no variable `{name}` ({}){hint}", known.join(", ")));
            };
            let number: f64 = value
                .parse()
                .ok()
                .filter(|number| (0.0..=*most).contains(number))
                .ok_or_else(|| {
                    format!(
                        "{name}: value `{value}` is not allowed; allowed is a number from 0 to \
                         {most}"
                    )
                })?;
            match name {
                "AS_SEND_LAT" => {
                    environment.send_latency = SendLatency::Fixed(number * NS_PER_US);
                }
                "AS_NVLS_ENABLE" => environment.nvls = number != 0.0,
                _ => environment.pxn = number != 0.0,
            }
        }
        Ok(environment)
    }

    /// NVLS for large all-reduces of tensor groups inside a server, rings
    /// otherwise. SimAI chooses NVLS across servers too, where it then sends
    /// nothing at all; rings are what it would do without NVLS.
    pub(super) fn algorithm(
        &self,
        collective: Collective,
        kind: GroupKind,
        ranks: usize,
        servers: usize,
        gpu_type: &str,
        bytes: u64,
    ) -> Algorithm {
        let nvls = self.nvls
            && collective == Collective::AllReduce
            && kind == GroupKind::Tensor
            && servers == 1
            && ranks >= NVLS_RANKS_MIN
            && bytes >= NVLS_BYTES_MIN
            && NVLS_GPUS.contains(&gpu_type);
        if nvls {
            Algorithm::Nvls
        } else {
            Algorithm::Ring
        }
    }

    /// From the decision to send to the sending, nanoseconds.
    pub(super) fn start_ns(&self, algorithm: Algorithm, bytes: u64, between: bool) -> f64 {
        let factor = match self.send_latency {
            SendLatency::Fixed(latency_ns) => return latency_ns,
            SendLatency::NcclTable(factor) => factor,
        };
        let latency_ns = match (algorithm, between) {
            (Algorithm::Nvls, false) => 25_000.0,
            (Algorithm::Nvls, true) => 18_000.0,
            (Algorithm::Ring, _) if bytes <= LL_BYTES_MAX => [7200.0, 9300.0][usize::from(between)],
            (Algorithm::Ring, _) if bytes <= LL128_BYTES_MAX => {
                [15_900.0, 18_000.0][usize::from(between)]
            }
            (Algorithm::Ring, _) => [11_800.0, 22_400.0][usize::from(between)],
        };
        latency_ns * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_strictly() {
        let vidur = SimaiEnvironment::parse("AS_SEND_LAT=6;AS_NVLS_ENABLE=1").unwrap();
        assert_eq!(vidur, SimaiEnvironment::default());
        let bare = SimaiEnvironment::parse("").unwrap();
        assert_eq!(bare.send_latency, SendLatency::NcclTable(1000.0));
        let wrong = SimaiEnvironment::parse("AS_SEND_LAG=6").unwrap_err();
        assert!(wrong.contains("did you mean `AS_SEND_LAT`?"), "{wrong}");
        assert!(SimaiEnvironment::parse("AS_SEND_LAT=fast").is_err());
        let late = SimaiEnvironment::parse("AS_SEND_LAT=4294967296").unwrap_err();
        let allowed = "AS_SEND_LAT: value `4294967296` is not allowed; allowed is a number from 0 to \
                       1000000";
        assert_eq!(late, allowed);
    }

    #[test]
    fn nvls_stays_inside_a_server() {
        let environment = SimaiEnvironment::default();
        let choose = |ranks, servers, bytes| {
            let (reduce, tensor) = (Collective::AllReduce, GroupKind::Tensor);
            environment.algorithm(reduce, tensor, ranks, servers, "H100", bytes)
        };
        assert_eq!(choose(8, 1, 2 << 20), Algorithm::Nvls);
        assert_eq!(choose(8, 1, 1 << 20), Algorithm::Ring);
        assert_eq!(choose(16, 2, 2 << 20), Algorithm::Ring);
    }
}
