//! What would make a deployment fit: the smallest changes, tried one by one.

use super::{PlanInput, plan};
use crate::catalog::{Catalog, DeviceSpec};

/// Most GPUs a change may ask for.
const GPUS_MAX: u32 = 1024;

/// The smallest changes of one kind each under which `input` fits, as words
/// joined by "or"; none, if no single change does.
pub fn remedy(input: &PlanInput<'_>) -> Option<String> {
    let found = [
        more_tensor_parallel(input),
        more_expert_ranks(input),
        more_stages(input),
        larger_device(input),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(", or "))
}

/// Tries `change` with 2, 4, 8, ...
fn doubling(
    input: &PlanInput<'_>,
    change: impl Fn(&mut PlanInput<'_>, u32) -> String,
) -> Option<String> {
    (1..=10).map(|power| 1 << power).find_map(|factor| {
        let mut changed = *input;
        let text = change(&mut changed, factor);
        let few = changed.parallelism.gpus() <= GPUS_MAX;
        (few && plan(&changed).is_ok()).then_some(text)
    })
}

fn more_tensor_parallel(input: &PlanInput<'_>) -> Option<String> {
    doubling(input, |changed, factor| {
        let parallelism = &mut changed.parallelism;
        parallelism.tensor_parallel *= factor;
        if input.model.moe.is_some() {
            parallelism.expert_parallel *= factor;
        }
        format!("tensor_parallel {}", parallelism.tensor_parallel)
    })
}

fn more_expert_ranks(input: &PlanInput<'_>) -> Option<String> {
    input.model.moe.as_ref()?;
    doubling(input, |changed, factor| {
        let parallelism = &mut changed.parallelism;
        parallelism.attention_data_parallel *= factor;
        parallelism.expert_parallel = parallelism.gpus_per_stage();
        format!(
            "experts over {} GPUs (expert_parallel {})",
            parallelism.gpus_per_stage(),
            parallelism.expert_parallel
        )
    })
}

fn more_stages(input: &PlanInput<'_>) -> Option<String> {
    doubling(input, |changed, factor| {
        changed.parallelism.pipeline_parallel *= factor;
        format!(
            "pipeline_parallel {}",
            changed.parallelism.pipeline_parallel
        )
    })
}

fn larger_device(input: &PlanInput<'_>) -> Option<String> {
    let catalog = Catalog::builtin();
    let mut devices: Vec<&DeviceSpec> = catalog.devices().iter().collect();
    devices.sort_by_key(|device| device.memory_bytes);
    let fits = |device: &&DeviceSpec| plan(&PlanInput { device, ..*input }).is_ok();
    let device = devices.into_iter().find(fits)?;
    Some(format!("device {}", device.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Formats, Parallelism};

    #[test]
    fn the_smallest_change_of_each_kind_is_named() {
        let catalog = Catalog::builtin();
        let model = catalog.model("llama-2-70b").unwrap();
        let device = catalog.device("a100").unwrap();
        let mut input = PlanInput {
            model: &model,
            device: &device,
            parallelism: Parallelism {
                tensor_parallel: 1,
                pipeline_parallel: 1,
                expert_parallel: 1,
                attention_data_parallel: 1,
            },
            formats: Formats::of(&model, None, None),
            max_tokens_in_step: 512,
            max_requests_in_batch: 128,
            rule: crate::memory::MemoryRule::Margin(0.1),
            block_size: 16,
            include_mtp: false,
            redundant_experts: 0,
        };
        let text = remedy(&input).unwrap();
        assert!(
            text.starts_with("tensor_parallel 2, or pipeline_parallel 2"),
            "{text}"
        );
        assert!(text.contains("or device "), "{text}");
        input.rule = crate::memory::MemoryRule::Margin(0.999);
        assert!(remedy(&input).is_none_or(|text| !text.contains("tensor_parallel 2,")));
    }
}
