//! What a configuration asks of steps beyond the plain ones: how tokens spread
//! over experts, two-batch overlap, speculation.

use super::{ExpertLoadConfig, MoeConfig, ResolveError, RunConfig};
use crate::catalog::ModelSpec;
use crate::execution_time::expert_load::{busiest_factor, power_law_factor};
use crate::execution_time::graph::usual_alpha;
use crate::execution_time::operator::ExpertLoad;
use crate::execution_time::{Speculation, StepOptions};
use crate::memory::Parallelism;

/// What the run asks of steps beyond the plain ones.
pub(super) fn step_options(
    config: &RunConfig,
    model: &ModelSpec,
    parallelism: &Parallelism,
) -> Result<StepOptions, ResolveError> {
    let speculation = match &config.speculative {
        Some(_) if model.mtp_layers == 0 => {
            let reason = format!(
                "speculative needs multi-token-prediction layers, and {} has none",
                model.name
            );
            return Err(ResolveError::settings("speculative", reason));
        }
        Some(speculative) => Some(Speculation {
            draft_tokens: speculative.draft_tokens,
            acceptance: speculative.acceptance,
        }),
        None => None,
    };
    Ok(StepOptions {
        expert_load: expert_load(config, model, parallelism)?,
        two_batch_overlap: config.two_batch_overlap.unwrap_or(false),
        speculation,
    })
}

/// How tokens spread over the experts' GPUs; none: as the model's router does.
fn expert_load(
    config: &RunConfig,
    model: &ModelSpec,
    parallelism: &Parallelism,
) -> Result<Option<ExpertLoad>, ResolveError> {
    let redundant = config.moe.redundant_experts.unwrap_or(0);
    let Some(moe) = &model.moe else {
        return match config.moe == MoeConfig::default() {
            true => Ok(None),
            false => Err(ResolveError::settings(
                "moe",
                format!(
                    "moe is for models with experts, and {} has none",
                    model.name
                ),
            )),
        };
    };
    let gpus = parallelism.expert_parallel;
    let power_law = |alpha| match redundant {
        0 => ExpertLoad::PowerLaw { alpha },
        _ => ExpertLoad::Uneven {
            factor: power_law_factor(alpha, moe.experts, moe.experts_per_token, gpus, redundant),
        },
    };
    Ok(match &config.moe.load {
        None if redundant == 0 => None,
        None => Some(power_law(usual_alpha(moe))),
        Some(ExpertLoadConfig::Balanced) => Some(ExpertLoad::Balanced),
        Some(ExpertLoadConfig::PowerLaw { alpha }) => Some(power_law(*alpha)),
        Some(ExpertLoadConfig::Histogram { tokens }) => {
            let sound = tokens.len() == moe.experts as usize
                && tokens
                    .iter()
                    .all(|count| count.is_finite() && *count >= 0.0)
                && tokens.iter().sum::<f64>() > 0.0;
            if !sound {
                let reason = format!(
                    "{} numbers; expected one per expert of {} ({}), 0 or more, not all 0",
                    tokens.len(),
                    model.name,
                    moe.experts
                );
                return Err(ResolveError::input("moe.load.tokens", reason));
            }
            Some(ExpertLoad::Uneven {
                factor: busiest_factor(tokens, gpus, redundant),
            })
        }
    })
}
