//! Whether more is offered than a deployment could serve whatever happens: often a
//! trace whose times are in another unit than they were taken for.

use crate::execution_time::{PrefillChunk, StepShape};
use crate::number::{whole_u32, whole_u64};
use crate::simulator::{ClusterSpec, PoolRole, PoolSpec, RunSummary};
use crate::statistics::LoadVerdict;
use crate::workload::Workload;

/// What all remarks of this kind have in common.
const OFFERED: &str = " requests/s are offered, ";

/// A remark on a run that was offered more than it could serve.
pub(super) fn remark(
    cluster: &ClusterSpec,
    workload: &Workload,
    summary: &RunSummary,
    has_recorded_times: bool,
) -> Option<String> {
    let offered_per_s = summary.offered_requests_per_s;
    let is_open = workload.clients.is_none() && offered_per_s.is_finite();
    // Who kept up was not offered too much, and need not be looked at closer.
    let kept_up = f64::from(summary.num_requests) >= offered_per_s * summary.duration_s;
    if !is_open || kept_up {
        return None;
    }
    let most_per_s = most_requests_per_s(cluster, workload)?;
    if offered_per_s <= most_per_s {
        return None;
    }
    let hint = match has_recorded_times {
        true => "; if that is not meant, `workload.arrivals.time_unit` says what the times are in",
        false => "",
    };
    Some(format!(
        "{offered_per_s:.3}{OFFERED}{:.1} times the {most_per_s:.3} that the largest steps of this \
         deployment could serve{hint}",
        offered_per_s / most_per_s
    ))
}

/// A remark on a run whose backlog grew for as long as the load lasted.
pub(super) fn saturated(summary: &RunSummary) -> Option<String> {
    let steady = summary.steady.as_ref()?;
    let (offered_per_s, served_per_s) =
        (summary.offered_requests_per_s, steady.requests_per_s.value);
    (steady.verdict == LoadVerdict::Saturated)
        .then(|| format!("saturated: {offered_per_s:.3}{OFFERED}{served_per_s:.3} are served"))
}

/// Whether a remark on a run is one of these.
pub fn is_overload(remark: &str) -> bool {
    remark.contains(OFFERED)
}

/// Requests per second that no schedule can exceed: prompts alone in the largest steps
/// there are, or decodes alone, whichever are slower.
fn most_requests_per_s(cluster: &ClusterSpec, workload: &Workload) -> Option<f64> {
    // Replicas that change their phase serve more than those of one pool.
    if cluster.disaggregation.mixed_pool.is_some() {
        return None;
    }
    let count = workload.requests.len() as f64;
    let totals = workload.requests.iter().fold((0u64, 0u64), |sums, r| {
        let (prompts, decodes) = sums;
        // The prompt's step yields the first token.
        let decode_steps = u64::from(r.decode_tokens) - 1;
        (
            prompts + u64::from(r.prefill_tokens),
            decodes + decode_steps,
        )
    });
    let prompt_tokens = totals.0 as f64 / count;
    let decode_steps = totals.1 as f64 / count;
    let mut most_per_s = f64::INFINITY;
    for pool in &cluster.pools {
        if pool.cost.tells_runs_apart() {
            return None;
        }
        let mut at_most = |tokens_per_s: f64, tokens: f64| {
            if tokens > 0.0 {
                most_per_s = most_per_s.min(tokens_per_s * f64::from(pool.replicas) / tokens);
            }
        };
        if pool.role != PoolRole::Decode {
            at_most(prompt_tokens_per_s(pool, prompt_tokens), prompt_tokens);
        }
        if pool.role != PoolRole::Prefill {
            at_most(decodes_per_s(pool, prompt_tokens), decode_steps);
        }
    }
    most_per_s.is_finite().then_some(most_per_s)
}

/// Prompt tokens per second of a replica whose steps are full of prompts of the mean
/// length.
fn prompt_tokens_per_s(pool: &PoolSpec, mean_tokens: f64) -> f64 {
    let budget = pool.scheduler.max_tokens_in_step().max(1);
    let new_tokens = whole_u32(mean_tokens.round()).clamp(1, budget);
    let chunks = (budget / new_tokens).saturating_mul(pool.attention_data_parallel);
    let chunk = PrefillChunk {
        new_tokens,
        context_tokens: 0,
    };
    let shape = StepShape {
        prefills: vec![chunk; chunks as usize],
        sampled_tokens: chunks,
        ..StepShape::default()
    };
    f64::from(shape.prefill_tokens()) / slowest_stage_s(pool, &shape)
}

/// Decodes per second of a replica whose batches are full of requests that have just
/// got their prompts.
fn decodes_per_s(pool: &PoolSpec, mean_context_tokens: f64) -> f64 {
    let cap = pool.scheduler.batch_size_cap();
    let decodes = cap.saturating_mul(pool.attention_data_parallel).max(1);
    let shape = StepShape {
        decode_requests: decodes,
        decode_context_tokens: whole_u64(mean_context_tokens * f64::from(decodes)),
        sampled_tokens: decodes,
        ..StepShape::default()
    };
    f64::from(decodes) / slowest_stage_s(pool, &shape)
}

/// Stages work on different batches at once: the slowest sets the pace.
fn slowest_stage_s(pool: &PoolSpec, shape: &StepShape) -> f64 {
    let stages = 0..pool.cost.stages();
    let times = stages.map(|stage| pool.cost.stage_time(stage, shape).total_s());
    times.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::{RunOne, Simulate};
    use crate::spec::{RequestOutput, RunConfig};
    use crate::workload::WorkloadSource;

    fn config(more: serde_json::Value) -> RunConfig {
        let mut config = serde_json::json!({
            "model": "llama-3-8b", "device": "h100", "backend": "roofline",
            "workload": {
                "requests": 400,
                "lengths": {"type": "uniform", "min_tokens": 100, "max_tokens": 2000,
                            "prefill_to_decode_ratio": 8.0},
                "arrivals": {"type": "static"},
            },
        });
        for (key, value) in more.as_object().expect("a mapping") {
            config[key] = value.clone();
        }
        serde_json::from_value(config).expect("a configuration")
    }

    /// However they are scheduled, requests that are all there are not served faster
    /// than the bound says, and not ten times as slowly.
    #[test]
    fn no_schedule_exceeds_what_is_said_to_be_possible() {
        let runner = Simulate::new(WorkloadSource::default(), RequestOutput::None, None);
        for more in [
            serde_json::json!({}),
            serde_json::json!({"replica_scheduler": {"type": "vllm"}}),
            serde_json::json!({"replica_scheduler": {"type": "lightllm"}}),
            serde_json::json!({"replica_scheduler": {"type": "orca", "batch_size_cap": 64}}),
            serde_json::json!({"replica_scheduler": {"type": "sarathi", "chunk_size": 4096}}),
            serde_json::json!({"pipeline_parallel": 4}),
            serde_json::json!({"tensor_parallel": 2, "replicas": 3}),
            serde_json::json!({"replicas": 4, "pd_node_ratio": 0.5}),
        ] {
            let config = config(more);
            let cluster = runner.deployment(&config).expect("a deployment").cluster;
            let workload = runner.workload(&config).expect("requests");
            let most_per_s = most_requests_per_s(&cluster, &workload).expect("a bound");
            let summary = runner.run(0, &config).summary.expect("a result");
            let served_per_s = f64::from(summary.completed) / summary.duration_s;
            let share = served_per_s / most_per_s;
            assert!((0.1..=1.0).contains(&share), "{config:?}: {share}");
        }
    }
}
