//! How long messages occupy links when cut into packets.
//!
//! NS-3 counts whole nanoseconds, so what a packet takes on a link is cut to
//! one: on NVLink that makes headers and acknowledgements free.
use crate::number::whole_u64;

/// Headers of a data packet: PPP 14, IP 20, UDP 8, sequence number and
/// priority 10 bytes.
const HEADER_BYTES: u64 = 52;
/// An acknowledgement, one per data packet.
const ACK_BYTES: u64 = 62;
/// Share of a packet's time that an acknowledgement waits at a hop for the
/// data packet on the wire.
const ACK_WAIT_SHARE: f64 = 0.65;
/// Least occupancy, so that rates stay finite.
const OCCUPANCY_MIN_NS: f64 = 1e-3;

/// Nanoseconds that `bytes` take at `gbps`, whole.
fn transmission_ns(bytes: u64, gbps: f64) -> f64 {
    (bytes as f64 * 8.0 / gbps).floor()
}

/// A message as packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    payload_bytes: u64,
    packets: u64,
    last_bytes: u64,
}

impl Message {
    /// A message of `bytes` (at least one) in packets of `payload_bytes`.
    pub(super) fn new(bytes: u64, payload_bytes: u64) -> Self {
        let bytes = bytes.max(1);
        let packets = bytes.div_ceil(payload_bytes);
        Self {
            payload_bytes,
            packets,
            last_bytes: bytes - (packets - 1) * payload_bytes,
        }
    }

    /// Number of packets.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// Time of the largest packet on a link.
    pub(super) fn packet_ns(&self, gbps: f64) -> f64 {
        let payload = if self.packets > 1 {
            self.payload_bytes
        } else {
            self.last_bytes
        };
        transmission_ns(payload + HEADER_BYTES, gbps)
    }

    /// Time an acknowledgement takes on a link.
    pub(super) fn ack_ns(gbps: f64) -> f64 {
        transmission_ns(ACK_BYTES, gbps)
    }

    /// Time the message keeps a link busy, acknowledgements of as much traffic
    /// in the other direction included.
    pub(super) fn occupancy_ns(&self, gbps: f64) -> f64 {
        let full = (self.packets - 1) as f64 * self.packet_ns(gbps);
        let last = transmission_ns(self.last_bytes + HEADER_BYTES, gbps);
        let acks = self.packets as f64 * Self::ack_ns(gbps);
        (full + last + acks).max(OCCUPANCY_MIN_NS)
    }

    /// From the end of the last packet's transmission at the sender to its
    /// acknowledgement there: twice the propagation, the packet's time on every
    /// later hop, and the acknowledgement's on all.
    pub(super) fn tail_ns(&self, path: &PathShape) -> f64 {
        let later = path.hops_gbps.iter().skip(1);
        let forward: f64 = later.map(|&gbps| self.packet_ns(gbps)).sum();
        let acks: f64 = path.hops_gbps.iter().map(|&gbps| Self::ack_ns(gbps)).sum();
        2.0 * path.latency_ns + forward + acks
    }

    /// Least time from the first byte to the last that links allow.
    pub(super) fn wire_ns(&self, path: &PathShape) -> f64 {
        self.occupancy_ns(path.slowest_gbps())
    }

    /// Least time for the whole message that a window of unacknowledged bytes
    /// allows; 0 where it does not hold the sender back. Windows go out one
    /// after the other, a round trip apart. `busy` is how much of the time
    /// packets and acknowledgements meet others on their way.
    pub(super) fn window_ns(&self, path: &PathShape, window_bytes: u64, busy: f64) -> f64 {
        let in_flight = window_bytes.saturating_sub(1) / self.payload_bytes + 1;
        if window_bytes == 0 || self.packets <= in_flight {
            return 0.0;
        }
        let hops = path.hops_gbps.iter();
        let idle_ns: f64 = hops
            .map(|&gbps| self.packet_ns(gbps) + Self::ack_ns(gbps))
            .sum();
        // The ports at the ends are where others are met.
        let ends = [path.hops_gbps.first(), path.hops_gbps.last()];
        let ends = ends.into_iter().flatten();
        let packets_ns: f64 = ends.map(|&gbps| self.packet_ns(gbps)).sum();
        let round_trip_ns = 2.0 * path.latency_ns + idle_ns + busy * ACK_WAIT_SHARE * packets_ns;
        let rounds = (self.packets - 1) / in_flight;
        let rest = self.packets - rounds * in_flight;
        rounds as f64 * round_trip_ns + rest as f64 * self.packet_ns(path.slowest_gbps())
    }

    /// Time from the first byte to the last without other traffic, but that of
    /// acknowledgements.
    pub(super) fn alone_ns(&self, path: &PathShape, window_bytes: u64) -> f64 {
        let window_ns = self.window_ns(path, window_bytes, 0.0);
        self.wire_ns(path).max(window_ns)
    }
}

/// What a path costs whatever else is on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct PathShape {
    /// Propagation, one way.
    pub(super) latency_ns: f64,
    /// Bandwidth of every hop.
    pub(super) hops_gbps: Vec<f64>,
}

impl PathShape {
    /// Bandwidth of the slowest hop.
    pub(super) fn slowest_gbps(&self) -> f64 {
        self.hops_gbps.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Bytes in flight that fill the path: the window of the original.
    pub(super) fn bandwidth_delay_bytes(&self, payload_bytes: u64) -> u64 {
        let slowest = self.slowest_gbps();
        if !slowest.is_finite() {
            return 0;
        }
        let hops = self.hops_gbps.iter();
        let transmission: f64 = hops.map(|&gbps| transmission_ns(payload_bytes, gbps)).sum();
        whole_u64((2.0 * self.latency_ns + transmission) * slowest / 8.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_nanoseconds_make_nvlink_headers_free() {
        let message = Message::new(18_000, 9000);
        assert_eq!(message.packets(), 2);
        assert_eq!(message.occupancy_ns(2400.0), 60.0);
        assert_eq!(message.occupancy_ns(100.0), 2.0 * (724.0 + 4.0));
    }

    #[test]
    fn a_window_holds_back_a_lone_flow_on_nvlink() {
        let path = PathShape {
            latency_ns: 50.0,
            hops_gbps: vec![2400.0; 2],
        };
        let window = path.bandwidth_delay_bytes(9000);
        assert_eq!(window, 48_000);
        let message = Message::new(8 << 20, 9000);
        let bandwidth = 8.0 * f64::from(1 << 20) / message.window_ns(&path, window, 1.0);
        assert!(
            (bandwidth - 271.0).abs() < 1.0,
            "{bandwidth} bytes per ns of 300"
        );
        assert_eq!(
            Message::new(50_000, 9000).window_ns(&path, window, 1.0),
            0.0
        );
    }
}
