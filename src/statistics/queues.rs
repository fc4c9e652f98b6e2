//! Queues with known answers, for the tests: Lindley's recursion and its like.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, LogNormal};

/// A queue whose server takes one second per request at full load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Poisson arrivals, exponential services.
    Markov,
    /// The same with so many servers.
    Servers(usize),
    /// Poisson arrivals, services of one length.
    ConstantService,
    /// Arrivals at equal distances, services of one length.
    Deterministic,
    /// Poisson arrivals, log-normal services with a coefficient of variation of 2.
    LogNormalService,
    /// Gamma distances with a coefficient of variation of 3, exponential services.
    GammaArrivals,
    /// Poisson arrivals; a server takes up to 32 that wait at once, for 16 seconds and
    /// half a second for each.
    Batches,
    /// The same with arrivals at equal distances.
    DeterministicBatches,
}

pub(super) const KINDS: [Kind; 9] = [
    Kind::Markov,
    Kind::Servers(16),
    Kind::Servers(64),
    Kind::ConstantService,
    Kind::Deterministic,
    Kind::LogNormalService,
    Kind::GammaArrivals,
    Kind::Batches,
    Kind::DeterministicBatches,
];

const MOST_IN_A_BATCH: usize = 32;

/// A queue from empty, as long as it is asked to be.
pub(super) struct Queue {
    kind: Kind,
    rng: ChaCha8Rng,
    gamma: Gamma<f64>,
    log_normal: LogNormal<f64>,
    gap_s: f64,
    free_at_s: Vec<f64>,
    batched: usize,
    pub arrivals_s: Vec<f64>,
    pub begins_s: Vec<f64>,
    pub ends_s: Vec<f64>,
}

impl Queue {
    pub fn new(kind: Kind, load: f64, seed: u64) -> Self {
        let servers = if let Kind::Servers(count) = kind {
            count
        } else {
            1
        };
        let variance = (1.0_f64 + 2.0 * 2.0).ln();
        Self {
            kind,
            rng: ChaCha8Rng::seed_from_u64(seed),
            gamma: Gamma::new(1.0 / 9.0, 9.0).expect("a shape and a scale"),
            log_normal: LogNormal::new(-variance / 2.0, variance.sqrt()).expect("a deviation"),
            gap_s: 1.0 / (load * servers as f64),
            free_at_s: vec![0.0; servers],
            batched: 0,
            arrivals_s: Vec::new(),
            begins_s: Vec::new(),
            ends_s: Vec::new(),
        }
    }

    /// The present: the arrival of the last request.
    pub fn now_s(&self) -> f64 {
        self.arrivals_s.last().copied().unwrap_or(0.0)
    }

    /// How long those waited, in order, that have begun.
    pub fn waits_s(&self) -> Vec<f64> {
        let now_s = self.now_s();
        let requests = self.arrivals_s.iter().zip(&self.begins_s);
        requests
            .filter(|&(_, begin_s)| *begin_s <= now_s)
            .map(|(arrival_s, begin_s)| begin_s - arrival_s)
            .collect()
    }

    /// Goes on until so many requests have arrived.
    pub fn extend(&mut self, requests: usize) {
        while self.arrivals_s.len() < requests {
            let arrival_s = self.now_s() + self.gap();
            self.arrivals_s.push(arrival_s);
            if matches!(self.kind, Kind::Batches | Kind::DeterministicBatches) {
                self.begins_s.push(f64::NAN);
                self.ends_s.push(f64::NAN);
                self.serve_batches(arrival_s);
            } else {
                self.serve(arrival_s);
            }
        }
    }

    fn gap(&mut self) -> f64 {
        let gap: f64 = match self.kind {
            Kind::Deterministic | Kind::DeterministicBatches => 1.0,
            Kind::GammaArrivals => self.gamma.sample(&mut self.rng),
            _ => Exp1.sample(&mut self.rng),
        };
        gap * self.gap_s
    }

    fn serve(&mut self, arrival_s: f64) {
        let service_s: f64 = match self.kind {
            Kind::ConstantService | Kind::Deterministic => 1.0,
            Kind::LogNormalService => self.log_normal.sample(&mut self.rng),
            _ => Exp1.sample(&mut self.rng),
        };
        let free_at_s = self.free_at_s.iter_mut().min_by(|a, b| a.total_cmp(b));
        let free_at_s = free_at_s.expect("a server");
        let begin_s = free_at_s.max(arrival_s);
        *free_at_s = begin_s + service_s;
        self.begins_s.push(begin_s);
        self.ends_s.push(begin_s + service_s);
    }

    fn serve_batches(&mut self, now_s: f64) {
        while let Some(&first_s) = self.arrivals_s.get(self.batched) {
            let begin_s = self.free_at_s[0].max(first_s);
            if begin_s > now_s {
                return;
            }
            let waiting = &self.arrivals_s[self.batched..];
            let size = waiting.partition_point(|&arrival_s| arrival_s <= begin_s);
            let size = size.min(MOST_IN_A_BATCH);
            let end_s = begin_s + 16.0 + 0.5 * size as f64;
            self.begins_s[self.batched..self.batched + size].fill(begin_s);
            self.ends_s[self.batched..self.batched + size].fill(end_s);
            self.batched += size;
            self.free_at_s[0] = end_s;
        }
    }
}

/// Mean and 99th percentile of the waiting time. For exponential services in closed form;
/// for constant ones the mean is Pollaczek and Khinchine's and the percentile that of the
/// tail's leading term, from which the distribution differs there by less than can be
/// computed (Tijms 2003, "A first course in stochastic models", 9.2).
pub(super) fn true_wait(kind: Kind, load: f64) -> (f64, f64) {
    match kind {
        Kind::Markov => (load / (1.0 - load), (load * 100.0).ln() / (1.0 - load)),
        Kind::ConstantService => {
            // The positive root of load (e^t - 1) = t.
            let (mut low, mut high) = (1e-6, 20.0_f64);
            for _ in 0..100 {
                let middle = f64::midpoint(low, high);
                if load * (middle.exp() - 1.0) < middle {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            let factor = (1.0 - load) / (load * low.exp() - 1.0);
            (load / (2.0 * (1.0 - load)), (factor * 100.0).ln() / low)
        }
        other => panic!("no formula for {other:?}"),
    }
}
