//! Routing: which replica of a pool gets a request.
//!
//! A router sees two numbers per replica, kept by the simulator: a load to be
//! least of. What the load is depends on the policy (see [`Router::measures`]).

mod least;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::simulator::config::{GlobalScheduler, PoolRole};
use least::LeastLoaded;

/// What a replica's load counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing: the policy does not look.
    None,
    /// Requests routed there and not yet gone.
    OutstandingRequests,
    /// Prompt tokens routed there and not yet prefilled.
    PendingPrefillTokens,
    /// KV cache blocks promised to requests there.
    PromisedBlocks,
}

/// Routes requests within one pool.
#[derive(Debug)]
pub(crate) struct Router {
    policy: Policy,
    load: Load,
    first_replica: u32,
    replicas: u32,
}

#[derive(Debug)]
enum Policy {
    RoundRobin { next: u32 },
    Random { rng: Box<ChaCha8Rng> },
    Least(LeastLoaded),
}

impl Router {
    pub(crate) fn new(
        scheduler: GlobalScheduler,
        role: PoolRole,
        first_replica: u32,
        replicas: u32,
        seed: u64,
    ) -> Self {
        let (policy, load) = match scheduler {
            GlobalScheduler::RoundRobin => (Policy::RoundRobin { next: 0 }, Load::None),
            GlobalScheduler::Random => {
                // A stream per pool, so that one pool's draws do not shift the other's.
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(u64::from(role == PoolRole::Decode));
                (Policy::Random { rng: Box::new(rng) }, Load::None)
            }
            GlobalScheduler::Lor => (
                Policy::Least(LeastLoaded::new(replicas)),
                Load::OutstandingRequests,
            ),
            GlobalScheduler::SplitWise => (
                Policy::Least(LeastLoaded::new(replicas)),
                match role {
                    PoolRole::Decode => Load::PromisedBlocks,
                    PoolRole::Mixed | PoolRole::Prefill => Load::PendingPrefillTokens,
                },
            ),
        };
        Self {
            policy,
            load,
            first_replica,
            replicas,
        }
    }

    /// What [`Self::add`] and [`Self::remove`] must be told.
    pub(crate) fn measures(&self) -> Load {
        self.load
    }

    /// Replica for the next request.
    pub(crate) fn route(&mut self) -> u32 {
        self.first_replica
            + match &mut self.policy {
                Policy::RoundRobin { next } => {
                    let chosen = *next;
                    *next = (chosen + 1) % self.replicas;
                    chosen
                }
                Policy::Random { rng } => rng.random_range(0..self.replicas),
                Policy::Least(loads) => loads.least(),
            }
    }

    pub(crate) fn add(&mut self, replica: u32, amount: u64) {
        if let Policy::Least(loads) = &mut self.policy {
            loads.change(replica - self.first_replica, |load| load + amount);
        }
    }

    pub(crate) fn remove(&mut self, replica: u32, amount: u64) {
        if let Policy::Least(loads) = &mut self.policy {
            loads.change(replica - self.first_replica, |load| load - amount);
        }
    }
}
