//! The chat case of several benches: a cluster with a price in closed form, and
//! requests for it.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vidur_sweep::execution_time::{PricedOperator, StageTime, StepCost, StepShape};
use vidur_sweep::one_by_one;
use vidur_sweep::simulator::{
    ClusterSpec, Compat, Disaggregation, GlobalScheduler, KvCacheSpec, PoolRole, PoolSpec,
    ReplicaScheduler,
};
use vidur_sweep::workload::{Request, Workload};

/// Roughly Llama-2-7B on one A100, in closed form: pricing is not measured here.
/// Each of the stages takes its part.
pub struct ClosedForm {
    pub stages: u32,
}

impl StepCost for ClosedForm {
    fn stages(&self) -> u32 {
        self.stages
    }
    fn stage_time(&self, _stage: u32, shape: &StepShape) -> StageTime {
        let tokens = f64::from(shape.new_tokens());
        let model_ms =
            (9.0 + 0.005 * tokens).max(0.06 * tokens) + 3.4e-4 * shape.decode_context_tokens as f64;
        StageTime {
            model_s: model_ms * 1e-3 / f64::from(self.stages),
            host_s: 0.0,
        }
    }
    fn explain(&self, _shape: &StepShape) -> Vec<PricedOperator> {
        Vec::new()
    }
    one_by_one!(
        stage_time_of,
        tells_runs_apart,
        stage_times,
        decode_times,
        explain_stage
    );
}

/// One replica under `sarathi`.
pub fn cluster(chunk_size: u32, batch_size_cap: u32, num_blocks: u64) -> ClusterSpec {
    ClusterSpec {
        pools: vec![PoolSpec {
            role: PoolRole::Mixed,
            replicas: 1,
            attention_data_parallel: 1,
            scheduler: ReplicaScheduler::Sarathi {
                chunk_size,
                batch_size_cap,
                watermark_blocks_fraction: 0.01,
            },
            kv_cache: KvCacheSpec {
                num_blocks,
                block_size: 16,
                window: None,
            },
            cost: Arc::new(ClosedForm { stages: 1 }),
        }],
        global_scheduler: GlobalScheduler::RoundRobin,
        kv_transfer: None,
        transfer_paths: None,
        disaggregation: Disaggregation::default(),
        seed: 0,
        time_limit_s: None,
        compat: Compat::None,
        max_request_tokens: None,
        max_model_len: None,
        earlier_random_draws: 0,
    }
}

/// Lengths like those of the Azure 2023 conversation trace (log-normal and cut: 1,046
/// prompt and 190 output tokens on average), Poisson arrivals.
pub fn chat_requests(count: u32, qps: f64) -> Workload {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut normal = {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        move || {
            let (a, b): (f64, f64) = (rng.random::<f64>().max(1e-12), rng.random());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        }
    };
    let mut at_s = 0.0;
    let requests = (0..count)
        .map(|_| {
            at_s -= rng.random::<f64>().max(1e-12).ln() / qps;
            Request {
                arrived_at_s: at_s,
                prefill_tokens: ((6.6 + 0.95 * normal()).exp() as u32).clamp(1, 3500),
                decode_tokens: ((5.0 + 0.8 * normal()).exp() as u32).clamp(1, 500),
            }
        })
        .collect();
    Workload {
        requests,
        clients: None,
    }
}
