//! Whether a model can be cut a given way.

use super::{Formats, Infeasible, Obstacle, Parallelism, WeightClass};
use crate::catalog::{Attention, ModelSpec, Moe};
use crate::units::DType;

/// Side of the weight blocks that share one scale in [`DType::Fp8Block`].
const SCALE_BLOCK: u32 = 128;

/// Whether heads, layers, experts and widths of `model` divide as
/// `parallelism` asks; the reason names the numbers otherwise.
pub fn check_divisibility(model: &ModelSpec, parallelism: &Parallelism) -> Result<(), Infeasible> {
    check_ways(parallelism)?;
    let tp = parallelism.tensor_parallel;
    let pp = parallelism.pipeline_parallel;
    if pp > model.layers {
        return refuse(
            "pipeline_parallel",
            format!(
                "pipeline_parallel {pp} exceeds the {} layers of {}",
                model.layers, model.name
            ),
        );
    }
    check_attention(&model.attention, tp)?;
    if let Some(linear) = &model.linear_attention {
        divides(
            "tensor_parallel",
            tp,
            "linear-attention key heads",
            linear.key_heads,
        )?;
        divides(
            "tensor_parallel",
            tp,
            "linear-attention value heads",
            linear.value_heads,
        )?;
    }
    if model.has_dense_mlp() {
        let size = model.intermediate_size;
        divides("tensor_parallel", tp, "the MLP intermediate size", size)?;
    }
    match &model.moe {
        Some(moe) => check_experts(moe, parallelism),
        None => check_no_experts(model, parallelism),
    }
}

/// What block-wise fp8 weights ask beyond [`check_divisibility`]: every cut of
/// an MLP must be a whole number of scale blocks wide. (vLLM refuses to load
/// such layers; its message names `block_n = 128`.)
pub(super) fn check_scale_blocks(
    model: &ModelSpec,
    parallelism: &Parallelism,
    formats: &Formats,
) -> Result<(), Infeasible> {
    let whole = |class: WeightClass, what: &str, size: u32, ways: u32| {
        let has_blocks = formats.of_class(class) == DType::Fp8Block;
        if !has_blocks || (size / ways).is_multiple_of(SCALE_BLOCK) {
            return Ok(());
        }
        refuse(
            "tensor_parallel",
            format!(
                "fp8_block weights: {what} {size} cut {ways} ways is {}, not a multiple of the \
             {SCALE_BLOCK}-wide scale block",
                size / ways
            ),
        )
    };
    let tp = parallelism.tensor_parallel;
    if model.has_dense_mlp() {
        let size = model.intermediate_size;
        whole(WeightClass::DenseMlp, "MLP intermediate size", size, tp)?;
    }
    if let Some(moe) = &model.moe {
        let ways = parallelism.expert_tensor_parallel();
        whole(
            WeightClass::RoutedExperts,
            "expert intermediate size",
            moe.intermediate_size,
            ways,
        )?;
        whole(
            WeightClass::SharedExperts,
            "shared expert intermediate size",
            moe.shared_intermediate_size,
            tp,
        )?;
    }
    Ok(())
}

fn check_ways(parallelism: &Parallelism) -> Result<(), Infeasible> {
    for (name, ways) in [
        ("tensor_parallel", parallelism.tensor_parallel),
        ("pipeline_parallel", parallelism.pipeline_parallel),
        ("expert_parallel", parallelism.expert_parallel),
        (
            "attention_data_parallel",
            parallelism.attention_data_parallel,
        ),
    ] {
        if ways == 0 {
            return refuse(name, format!("{name} 0: must be at least 1"));
        }
    }
    Ok(())
}

fn check_attention(attention: &Attention, tp: u32) -> Result<(), Infeasible> {
    divides("tensor_parallel", tp, "attention heads", attention.heads())?;
    // Fewer KV heads than ranks are replicated, which needs whole copies.
    if let Attention::Gqa { kv_heads, .. } = attention
        && !kv_heads.is_multiple_of(tp)
        && !tp.is_multiple_of(*kv_heads)
    {
        return refuse(
            "tensor_parallel",
            format!(
                "tensor_parallel {tp} neither divides nor is a multiple of the {kv_heads} KV heads"
            ),
        );
    }
    Ok(())
}

fn check_experts(moe: &Moe, parallelism: &Parallelism) -> Result<(), Infeasible> {
    let ep = parallelism.expert_parallel;
    let gpus = parallelism.gpus_per_stage();
    divides("expert_parallel", ep, "routed experts", moe.experts)?;
    if !gpus.is_multiple_of(ep) {
        return refuse(
            "expert_parallel",
            format!(
                "expert_parallel {ep} does not divide the {gpus} GPUs of a stage \
             (tensor_parallel {} x attention_data_parallel {})",
                parallelism.tensor_parallel, parallelism.attention_data_parallel
            ),
        );
    }
    let ways = parallelism.expert_tensor_parallel();
    if !moe.intermediate_size.is_multiple_of(ways) {
        return refuse(
            "expert_parallel",
            format!(
                "the expert intermediate size {} cannot be cut {ways} ways ({gpus} GPUs of a stage \
             / expert_parallel {ep})",
                moe.intermediate_size
            ),
        );
    }
    let tp = parallelism.tensor_parallel;
    let shared = moe.shared_intermediate_size;
    divides(
        "tensor_parallel",
        tp,
        "the shared expert intermediate size",
        shared,
    )
}

fn check_no_experts(model: &ModelSpec, parallelism: &Parallelism) -> Result<(), Infeasible> {
    for (name, ways) in [
        ("expert_parallel", parallelism.expert_parallel),
        (
            "attention_data_parallel",
            parallelism.attention_data_parallel,
        ),
    ] {
        if ways > 1 {
            return refuse(
                name,
                format!(
                    "{name} {ways} needs experts to share, and {} has none (use replicas instead)",
                    model.name
                ),
            );
        }
    }
    Ok(())
}

fn divides(name: &'static str, ways: u32, what: &str, size: u32) -> Result<(), Infeasible> {
    if size.is_multiple_of(ways) {
        return Ok(());
    }
    refuse(
        name,
        format!("{name} {ways} does not divide {size} ({what})"),
    )
}

fn refuse(key: &'static str, reason: String) -> Result<(), Infeasible> {
    Err(Infeasible::new(Obstacle::Parallelism, reason).about(key))
}
