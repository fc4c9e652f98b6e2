//! KV caches on their way from prefill to decode replicas.
//!
//! A fluid model: the transfers leaving one replica share its outgoing
//! bandwidth equally, those entering one share its incoming bandwidth, and each
//! runs at the smaller of its two shares. Rates change only when a transfer
//! starts or drains; between those times progress is linear. A transfer that
//! has drained arrives one link latency later.

use super::config::KvTransferSpec;

#[derive(Debug, Clone, Copy)]
struct Transfer {
    request: u32,
    sender: u32,
    receiver: u32,
    remaining_bytes: f64,
    bytes_per_s: f64,
}

/// All transfers in progress.
#[derive(Debug)]
pub(crate) struct TransferNetwork {
    spec: KvTransferSpec,
    active: Vec<Transfer>,
    outgoing: Vec<u32>,
    incoming: Vec<u32>,
    updated_at_s: f64,
    generation: u64,
}

impl TransferNetwork {
    pub(crate) fn new(spec: KvTransferSpec, replicas: usize) -> Self {
        Self {
            spec,
            active: Vec::new(),
            outgoing: vec![0; replicas],
            incoming: vec![0; replicas],
            updated_at_s: 0.0,
            generation: 0,
        }
    }

    /// Bytes of a KV cache of `tokens`.
    pub(crate) fn size_bytes(&self, tokens: u64) -> f64 {
        self.spec.bytes_per_request + self.spec.bytes_per_token * tokens as f64
    }

    /// Time of a transfer that has the links for itself, latency not included.
    pub(crate) fn alone_s(&self, size_bytes: f64) -> f64 {
        size_bytes
            / self
                .spec
                .sender_bytes_per_s
                .min(self.spec.receiver_bytes_per_s)
    }

    pub(crate) fn latency_s(&self) -> f64 {
        self.spec.latency_s
    }

    /// Tells drain events of this set of transfers from outdated ones.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn start(
        &mut self,
        request: u32,
        sender: u32,
        receiver: u32,
        size_bytes: f64,
        now_s: f64,
    ) {
        self.progress(now_s);
        self.outgoing[sender as usize] += 1;
        self.incoming[receiver as usize] += 1;
        self.active.push(Transfer {
            request,
            sender,
            receiver,
            remaining_bytes: size_bytes,
            bytes_per_s: 0.0,
        });
        self.share();
    }

    /// Time at which the first active transfer drains.
    pub(crate) fn next_drain_s(&self) -> Option<f64> {
        self.active
            .iter()
            .map(|transfer| transfer.remaining_bytes / transfer.bytes_per_s)
            .min_by(f64::total_cmp)
            .map(|rest_s| self.updated_at_s + rest_s.max(0.0))
    }

    /// Removes the transfers that have drained at `now_s`, a time given by
    /// [`Self::next_drain_s`], and returns (request, sender) of each through `drained`.
    pub(crate) fn drain(&mut self, now_s: f64, mut drained: impl FnMut(u32, u32)) {
        let Some(first_s) = self
            .active
            .iter()
            .map(|transfer| transfer.remaining_bytes / transfer.bytes_per_s)
            .min_by(f64::total_cmp)
        else {
            return;
        };
        // Those that end together with the first: equal up to rounding.
        let (outgoing, incoming) = (&mut self.outgoing, &mut self.incoming);
        let limit_s = first_s * (1.0 + 1e-12);
        self.active.retain(|transfer| {
            let done = transfer.remaining_bytes / transfer.bytes_per_s <= limit_s;
            if done {
                outgoing[transfer.sender as usize] -= 1;
                incoming[transfer.receiver as usize] -= 1;
                drained(transfer.request, transfer.sender);
            }
            !done
        });
        self.progress(now_s);
        self.share();
    }

    fn progress(&mut self, now_s: f64) {
        let elapsed_s = now_s - self.updated_at_s;
        for transfer in &mut self.active {
            transfer.remaining_bytes =
                (transfer.remaining_bytes - transfer.bytes_per_s * elapsed_s).max(0.0);
        }
        self.updated_at_s = now_s;
    }

    fn share(&mut self) {
        self.generation += 1;
        for transfer in &mut self.active {
            let out =
                self.spec.sender_bytes_per_s / f64::from(self.outgoing[transfer.sender as usize]);
            let into = self.spec.receiver_bytes_per_s
                / f64::from(self.incoming[transfer.receiver as usize]);
            transfer.bytes_per_s = out.min(into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> TransferNetwork {
        TransferNetwork::new(
            KvTransferSpec {
                bytes_per_token: 1.0,
                bytes_per_request: 0.0,
                sender_bytes_per_s: 100.0,
                receiver_bytes_per_s: 100.0,
                latency_s: 0.0,
            },
            4,
        )
    }

    #[test]
    fn two_transfers_from_one_sender_share_its_link() {
        let mut network = network();
        network.start(0, 0, 2, 100.0, 0.0);
        assert_eq!(network.next_drain_s(), Some(1.0));
        network.start(1, 0, 3, 100.0, 0.5);
        // 50 bytes left at 50 B/s; then the second has 50 left at 100 B/s.
        assert_eq!(network.next_drain_s(), Some(1.5));
        let mut drained = Vec::new();
        network.drain(1.5, |request, _| drained.push(request));
        assert_eq!(drained, [0]);
        assert_eq!(network.next_drain_s(), Some(2.0));
    }

    #[test]
    fn equal_transfers_drain_together() {
        let mut network = network();
        network.start(0, 0, 2, 70.0, 0.0);
        network.start(1, 1, 2, 70.0, 0.0);
        let at_s = network.next_drain_s().unwrap();
        let mut drained = Vec::new();
        network.drain(at_s, |request, sender| drained.push((request, sender)));
        assert_eq!(drained, [(0, 0), (1, 1)]);
        assert_eq!(network.next_drain_s(), None);
    }
}
