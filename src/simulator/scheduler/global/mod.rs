//! Routing: which replica of a pool gets a request.
//!
//! A router sees one number per replica, kept by the simulator: a load to be
//! least of. What the load is depends on the policy (see [`Router::measures`]).
//! Where replicas help out in the other phase, [`mixed_pool`] routes both.

pub(crate) mod mixed_pool;
pub(crate) mod python_set;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::simulator::config::{ClusterSpec, Compat, GlobalScheduler, PoolRole};
use crate::simulator::tournament::Tournament;
use crate::workload::MersenneTwister;

/// What a replica's load counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing: the policy does not look.
    None,
    /// Requests routed there and not yet gone.
    OutstandingRequests,
    /// Requests in its queue, looked up when routing (Vidur's `lor`).
    WaitingRequests,
    /// Prompt tokens routed there and not yet prefilled.
    PendingPrefillTokens,
    /// KV cache blocks in use there or promised to requests that wait. The router
    /// knows of no more than there are, and those who route make sure of the least
    /// (see [`Router::least`]).
    KvBlocks,
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
    Random(Box<ChaCha8Rng>),
    PythonRandom(Box<MersenneTwister>),
    Least(Tournament<u64>),
}

impl Router {
    pub(crate) fn new(
        cluster: &ClusterSpec,
        role: PoolRole,
        first_replica: u32,
        replicas: u32,
    ) -> Self {
        let least = || Policy::Least(no_loads(replicas));
        let (policy, load) = match (cluster.pool_scheduler(role), cluster.compat) {
            (GlobalScheduler::RoundRobin, _) => (Policy::RoundRobin { next: 0 }, Load::None),
            (GlobalScheduler::Random, Compat::None) => {
                // A stream per pool, so that one pool's draws do not shift the other's.
                let mut rng = ChaCha8Rng::seed_from_u64(cluster.seed);
                rng.set_stream(u64::from(role == PoolRole::Decode));
                (Policy::Random(Box::new(rng)), Load::None)
            }
            (GlobalScheduler::Random, _) => {
                let mut rng = MersenneTwister::python(cluster.seed);
                rng.skip(cluster.earlier_random_draws);
                (Policy::PythonRandom(Box::new(rng)), Load::None)
            }
            (GlobalScheduler::Lor, Compat::None) => (least(), Load::OutstandingRequests),
            (GlobalScheduler::Lor, _) => (least(), Load::WaitingRequests),
            (GlobalScheduler::LeastKv, _) => (least(), Load::KvBlocks),
            (GlobalScheduler::SplitWise, compat) if !compat.is_none() => {
                // What Vidur-AlibabaCloud calls least outstanding is in turn.
                (Policy::RoundRobin { next: 0 }, Load::None)
            }
            (GlobalScheduler::SplitWise, _) => match role {
                PoolRole::Decode => (least(), Load::KvBlocks),
                PoolRole::Mixed | PoolRole::Prefill => (least(), Load::PendingPrefillTokens),
            },
        };
        Self {
            policy,
            load,
            first_replica,
            replicas,
        }
    }

    /// What [`Self::add`] and [`Self::remove`] must be told.
    #[inline]
    pub(crate) fn measures(&self) -> Load {
        self.load
    }

    /// Replica for the next request.
    #[inline(always)]
    pub(crate) fn route(&mut self) -> u32 {
        self.first_replica
            + match &mut self.policy {
                Policy::RoundRobin { next } => {
                    let chosen = *next;
                    *next = (chosen + 1) % self.replicas;
                    chosen
                }
                Policy::Random(rng) => rng.random_range(0..self.replicas),
                Policy::PythonRandom(rng) => rng.below(self.replicas),
                Policy::Least(loads) => loads.least(),
            }
    }

    /// The replica it takes for the least loaded, if it looks at load. Where others
    /// may have more than is known of them but not less, it is if its own load is as
    /// known (see [`Self::set`]).
    #[inline]
    pub(crate) fn least(&self) -> Option<u32> {
        match &self.policy {
            Policy::Least(loads) => Some(self.first_replica + loads.least()),
            _ => None,
        }
    }

    /// Sets the load of a replica; whether it is another than was known.
    #[inline]
    pub(crate) fn set(&mut self, replica: u32, load: u64) -> bool {
        self.change(replica, |_| load)
    }

    /// Sets the load of a replica if it is less than was known.
    #[inline]
    pub(crate) fn lower(&mut self, replica: u32, load: u64) {
        self.change(replica, |known| known.min(load));
    }

    /// Sets the load of every replica of the pool.
    pub(crate) fn look_up(&mut self, load_of: impl Fn(u32) -> u64) {
        for replica in self.first_replica..self.first_replica + self.replicas {
            self.set(replica, load_of(replica));
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, replica: u32, amount: u64) {
        self.change(replica, |load| load + amount);
    }

    #[inline]
    pub(crate) fn remove(&mut self, replica: u32, amount: u64) {
        self.change(replica, |load| load - amount);
    }

    /// Changes a load, if any are looked at; whether that makes it another.
    #[inline(always)]
    fn change(&mut self, replica: u32, update: impl FnOnce(u64) -> u64) -> bool {
        let Policy::Least(loads) = &mut self.policy else {
            return false;
        };
        let index = replica - self.first_replica;
        let (known, load) = (loads.key(index), update(loads.key(index)));
        if load != known {
            loads.set(index, load);
        }
        load != known
    }
}

/// Replicas without load.
fn no_loads(replicas: u32) -> Tournament<u64> {
    Tournament::new(replicas as usize, 0, u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What happens to the load of a replica between two requests.
    #[derive(Debug, Clone)]
    enum Change {
        /// It is more, and nobody says so.
        Grows(u32, u64),
        /// It is another, perhaps less, and the router is told.
        Becomes(u32, u64),
        /// The next request adds so much where it goes.
        Request(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0u32..40, 1u64..5).prop_map(|(replica, more)| Change::Grows(replica, more)),
            (0u32..40, 0u64..12).prop_map(|(replica, load)| Change::Becomes(replica, load)),
            (0u64..8).prop_map(Change::Request),
        ]
    }

    proptest! {
        #[test]
        fn the_least_is_found_by_what_is_known_at_least(
            replicas in 1u32..40,
            first_replica in 0u32..3,
            changes in proptest::collection::vec(change(), 0..200),
        ) {
            let mut router = Router {
                policy: Policy::Least(no_loads(replicas)),
                load: Load::KvBlocks,
                first_replica,
                replicas,
            };
            let mut loads = vec![0; replicas as usize];
            for change in changes {
                match change {
                    Change::Grows(replica, more) => loads[(replica % replicas) as usize] += more,
                    Change::Becomes(replica, load) => {
                        loads[(replica % replicas) as usize] = load;
                        router.lower(first_replica + replica % replicas, load);
                    }
                    Change::Request(load) => {
                        while let Some(replica) = router.least()
                            && router.set(replica, loads[(replica - first_replica) as usize])
                        {}
                        let chosen = (router.route() - first_replica) as usize;
                        let least = (0..loads.len()).min_by_key(|&replica| loads[replica]);
                        prop_assert_eq!(Some(chosen), least);
                        loads[chosen] += load;
                    }
                }
            }
        }
    }
}
