//! What a configuration deploys: pools of replicas and their GPUs. Arithmetic
//! over the configuration alone; whether it fits is decided later.

use super::{KvTransferOverlap, PoolOverride, Problem, RunConfig};
use crate::limits::GPUS_MAX;
use crate::memory::Parallelism;
use crate::number::whole_u32;
use crate::simulator::{Compat, GlobalScheduler, ReplicaScheduler};

/// Replicas of a configuration, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// Every replica prefills and decodes.
    Mixed(u32),
    /// Prefill and decode are disaggregated.
    Disaggregated {
        /// Replicas that only prefill.
        prefill: u32,
        /// Replicas that only decode.
        decode: u32,
    },
}

impl RunConfig {
    /// How many replicas do what.
    ///
    /// `prefill.replicas` and `decode.replicas` come before `pd_node_ratio`,
    /// whose share of `replicas` is rounded down. An error says why no such
    /// deployment exists: a pool would be empty.
    pub fn split_replicas(&self) -> Result<Replicas, Problem> {
        let total = self.replicas;
        let (prefill, decode) = match (self.prefill.replicas, self.decode.replicas) {
            (None, None) if self.pd_node_ratio >= 1.0 => return Ok(Replicas::Mixed(total)),
            (Some(prefill), Some(decode)) => (prefill, decode),
            (Some(prefill), None) => (prefill, total.saturating_sub(prefill)),
            (None, Some(decode)) => (total.saturating_sub(decode), decode),
            (None, None) => {
                // The nudge keeps products such as 0.29 * 100 from falling short
                // of the whole number they stand for.
                let prefill = whole_u32((f64::from(total) * self.pd_node_ratio + 1e-9).floor());
                (prefill, total - prefill)
            }
        };
        for (replicas, phase) in [(prefill, "prefill"), (decode, "decode")] {
            if replicas == 0 {
                let key = match (self.prefill.replicas, self.decode.replicas) {
                    (Some(_), _) => "prefill.replicas",
                    (None, Some(_)) => "decode.replicas",
                    (None, None) => "pd_node_ratio",
                };
                let reason = format!(
                    "no replica left to {phase}: replicas {total}, pd_node_ratio {}, \
                     {prefill} prefill + {decode} decode",
                    self.pd_node_ratio
                );
                return Err(Problem::about(key, reason));
            }
        }
        Ok(Replicas::Disaggregated { prefill, decode })
    }

    /// Whether requests can be given to `replicas`, and moved between them, as the
    /// configuration says. An error says why not.
    pub(super) fn check_routing(&self, replicas: Replicas) -> Result<(), Problem> {
        let of_pool = |pool: &PoolOverride| pool.global_scheduler.unwrap_or(self.global_scheduler);
        let pools = [of_pool(&self.prefill), of_pool(&self.decode)];
        let overlaps = self.network.kv_transfer_overlap == Some(KvTransferOverlap::LayerWise);
        let of_pools = self.prefill.global_scheduler.is_some()
            || self.decode.global_scheduler.is_some()
            || self.mixed_pool.is_some();
        if !self.compat.is_none() && (of_pools || overlaps) {
            return Err(Problem::about(
                "compat",
                "global schedulers per pool, mixed_pool and kv_transfer_overlap are in none of the \
                 originals: leave them out, or compat",
            ));
        }
        if let Replicas::Mixed(_) = replicas {
            let what = match (self.global_scheduler, &self.replica_scheduler) {
                _ if self.mixed_pool.is_some() => "mixed_pool",
                (GlobalScheduler::SplitWise, _) => "global_scheduler split_wise",
                (_, Some(ReplicaScheduler::SplitWise { .. })) => "replica_scheduler split_wise",
                _ => return Ok(()),
            };
            let reason = format!("{what} needs a prefill and a decode pool: pd_node_ratio below 1");
            return Err(Problem::about("pd_node_ratio", reason));
        }
        self.check_originals_pools()?;
        if self.mixed_pool.is_some() && pools != [GlobalScheduler::SplitWise; 2] {
            return Err(Problem::about(
                "mixed_pool",
                "mixed_pool needs global_scheduler split_wise in both pools",
            ));
        }
        Ok(())
    }

    /// Whether the original that `compat` names has two pools, and these schedulers for
    /// them.
    fn check_originals_pools(&self) -> Result<(), Problem> {
        let is_split_wise = |pool: &PoolOverride| {
            let scheduler = pool.replica_scheduler.as_ref();
            let scheduler = scheduler.or(self.replica_scheduler.as_ref());
            matches!(scheduler, Some(ReplicaScheduler::SplitWise { .. }))
        };
        let both = [&self.prefill, &self.decode].into_iter().all(is_split_wise);
        match self.compat {
            Compat::None => Ok(()),
            Compat::Vidur => Err(Problem::about(
                "compat",
                "Vidur has no prefill and decode pools: set pd_node_ratio 1, or leave out compat",
            )),
            _ if both && self.global_scheduler == GlobalScheduler::SplitWise => Ok(()),
            _ => Err(Problem::about(
                "compat",
                "Vidur-AlibabaCloud separates prefill from decode only with global_scheduler \
                 split_wise and replica_scheduler split_wise: set both, or leave out compat",
            )),
        }
    }

    /// How a replica outside of pool overrides is cut over GPUs.
    pub fn parallelism(&self) -> Parallelism {
        self.pool_parallelism(&PoolOverride::default())
    }

    /// How a replica of a pool is cut over GPUs: [`Self::prefill`] or
    /// [`Self::decode`] over the run's own. Attention-data-parallel ranks, where
    /// nobody sets them, follow from the pool's expert and tensor parallelism.
    pub fn pool_parallelism(&self, pool: &PoolOverride) -> Parallelism {
        let tensor_parallel = pool.tensor_parallel.unwrap_or(self.tensor_parallel);
        let expert_parallel = pool.expert_parallel.unwrap_or(self.expert_parallel);
        let ranks = pool
            .attention_data_parallel
            .or(self.attention_data_parallel);
        Parallelism {
            tensor_parallel,
            pipeline_parallel: pool.pipeline_parallel.unwrap_or(self.pipeline_parallel),
            expert_parallel,
            attention_data_parallel: ranks
                .unwrap_or_else(|| (expert_parallel / tensor_parallel.max(1)).max(1)),
        }
    }

    /// Whether the deployment has too many GPUs to be simulated.
    pub fn check_size(&self) -> Result<(), Problem> {
        match self.total_gpus() {
            Some(gpus) if gpus > GPUS_MAX => Err(Problem::about(
                "replicas",
                format!("{gpus} GPUs in all replicas; allowed are at most {GPUS_MAX}"),
            )),
            _ => Ok(()),
        }
    }

    /// GPUs of the whole deployment; none where a pool would be empty.
    pub fn total_gpus(&self) -> Option<u64> {
        let gpus = |replicas: u32, pool: &PoolOverride| {
            u64::from(replicas).saturating_mul(gpus_of(self.pool_parallelism(pool)))
        };
        match self.split_replicas().ok()? {
            Replicas::Mixed(replicas) => Some(gpus(replicas, &PoolOverride::default())),
            Replicas::Disaggregated { prefill, decode } => {
                Some(gpus(prefill, &self.prefill).saturating_add(gpus(decode, &self.decode)))
            }
        }
    }
}

/// GPUs of one replica, without overflow.
pub(super) fn gpus_of(parallelism: Parallelism) -> u64 {
    u64::from(parallelism.tensor_parallel)
        * u64::from(parallelism.pipeline_parallel)
        * u64::from(parallelism.attention_data_parallel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::test_config;

    fn split(replicas: u32, pd_node_ratio: f64) -> Result<Replicas, Problem> {
        RunConfig {
            replicas,
            pd_node_ratio,
            ..test_config()
        }
        .split_replicas()
    }

    #[test]
    fn shares_are_rounded_down_and_no_pool_is_empty() {
        let disaggregated = |prefill, decode| Ok(Replicas::Disaggregated { prefill, decode });
        assert_eq!(split(4, 1.0), Ok(Replicas::Mixed(4)));
        assert_eq!(split(4, 0.5), disaggregated(2, 2));
        assert_eq!(split(4, 0.3), disaggregated(1, 3));
        assert_eq!(split(100, 0.29), disaggregated(29, 71));
        let none_left_to_prefill = |replicas, ratio| {
            let problem = split(replicas, ratio).unwrap_err();
            assert_eq!(problem.key, Some("pd_node_ratio"));
            assert!(problem.reason.contains("left to prefill"));
        };
        none_left_to_prefill(2, 0.25);
        none_left_to_prefill(1, 0.5);
        let mut config = test_config();
        config.replicas = 4;
        config.prefill.replicas = Some(4);
        let problem = config.split_replicas().unwrap_err();
        assert_eq!(problem.key, Some("prefill.replicas"));
        assert!(problem.reason.contains("left to decode"));
        assert_eq!(config.total_gpus(), None);
        config.prefill.replicas = Some(1);
        assert_eq!(config.split_replicas(), disaggregated(1, 3));
    }

    #[test]
    fn gpus_count_attention_ranks_and_pool_overrides() {
        let mut config = test_config();
        config.tensor_parallel = 2;
        config.expert_parallel = 8;
        config.pipeline_parallel = 2;
        config.replicas = 4;
        assert_eq!(config.parallelism().attention_data_parallel, 4);
        assert_eq!(config.total_gpus(), Some(4 * 16));
        config.pd_node_ratio = 0.25;
        config.decode.tensor_parallel = Some(8);
        assert_eq!(config.total_gpus(), Some(16 + 3 * 16));
        config.attention_data_parallel = Some(1);
        assert_eq!(config.total_gpus(), Some(4 + 3 * 16));
        assert_eq!(config.check_size(), Ok(()));
        config.replicas = 1_000_000;
        config.pd_node_ratio = 1.0;
        config.tensor_parallel = 1024;
        config.pipeline_parallel = 1024;
        let message = "1048576000000 GPUs in all replicas; allowed are at most 10000000";
        let too_large = Problem::about("replicas", message);
        assert_eq!(config.check_size(), Err(too_large));
    }
}
