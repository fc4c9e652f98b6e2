//! Counts against published sizes, plans against independent figures.

use super::*;
use crate::catalog::{Catalog, ModelSpec};
use crate::units::GIB;

fn model(name: &str) -> ModelSpec {
    Catalog::builtin().model(name).expect(name)
}

/// Tensor, pipeline, attention-data and expert parallelism.
fn cut(tp: u32, pp: u32, dp: u32, ep: u32) -> Parallelism {
    Parallelism {
        tensor_parallel: tp,
        pipeline_parallel: pp,
        expert_parallel: ep,
        attention_data_parallel: dp,
    }
}

fn with_input<T>(
    name: &str,
    device: &str,
    parallelism: Parallelism,
    use_input: impl Fn(&PlanInput<'_>) -> T,
) -> T {
    let model = model(name);
    let device = Catalog::builtin().device(device).expect(device);
    use_input(&PlanInput {
        model: &model,
        device: &device,
        parallelism,
        formats: Formats::of(&model, None, None),
        max_tokens_in_step: 8192,
        max_requests_in_batch: 128,
        rule: MemoryRule::Margin(0.1),
        block_size: 16,
        include_mtp: false,
        redundant_experts: 0,
    })
}

fn uniform(weights: DType) -> Formats {
    Formats::new(weights, DType::Bfloat16)
}

fn weights_gib(name: &str, parallelism: Parallelism, dtype: DType) -> f64 {
    let model = model(name);
    (0..parallelism.pipeline_parallel)
        .map(|stage| stage_weights_bytes(&model, &parallelism, &uniform(dtype), stage, false) / GIB)
        .fold(0.0, f64::max)
}

#[test]
fn totals_are_the_published_sizes() {
    for model in Catalog::builtin().models() {
        let billions = parameters(model).total / 1e9;
        let error = (billions / model.published_parameters_b - 1.0).abs();
        assert!(error < 0.01, "{}: {billions:.3} B, {error:.4}", model.name);
    }
    // phi-2 has biases everywhere and its size is published to the parameter.
    assert_eq!(parameters(&model("phi-2")).total, 2_779_683_840.0);
}

#[test]
fn activated_parameters_of_published_moe_models() {
    // "37B", "22B", "3.3B activated", from the model cards.
    for (name, billions) in [
        ("deepseek-671B", 37.5),
        ("qwen3-moe-235B", 22.0),
        ("Qwen/Qwen3-30B-A3B", 3.3),
    ] {
        let count = parameters(&model(name)).activated / 1e9;
        assert!((count / billions - 1.0).abs() < 0.02, "{name}: {count:.2}");
    }
    // DeepSeek-V3's multi-token prediction has 11.5B of its own (README).
    let mtp = parameters(&model("deepseek-671B")).mtp / 1e9;
    assert!((mtp / 11.5 - 1.0).abs() < 0.02, "{mtp:.2}");
}

#[test]
fn components_add_up_to_what_the_gpus_hold() {
    // Cut only by expert over stages of one GPU each, nothing is replicated.
    for name in ["deepseek-671B", "qwen3-next-80B", "phi-2"] {
        let model = model(name);
        let parallelism = cut(1, 4, 1, 1);
        let held: f64 = (0..4)
            .map(|stage| {
                stage_weights_bytes(
                    &model,
                    &parallelism,
                    &uniform(DType::Bfloat16),
                    stage,
                    false,
                )
            })
            .sum();
        // The GPUs' vocabulary is padded to 64, which these vocabularies are.
        assert_eq!(held, 2.0 * parameters(&model).total, "{name}");
    }
}

#[test]
fn kv_cache_bytes_per_token() {
    for (name, dtype, bytes) in [
        ("deepseek-671B", DType::Bfloat16, 70_272.0),
        ("deepseek-671B", DType::Fp8, 35_136.0),
        ("qwen3-moe-235B", DType::Bfloat16, 192_512.0),
        ("qwen3-next-80B", DType::Bfloat16, 24_576.0),
        ("meta-llama/Llama-2-7b-hf", DType::Float16, 524_288.0),
        ("meta-llama/Meta-Llama-3-70B", DType::Bfloat16, 327_680.0),
    ] {
        assert_eq!(kv_bytes_per_token(&model(name), dtype), bytes, "{name}");
    }
    // 36 layers of 32 heads x 128 x 128, and 3 taps of 8192 channels, 16 bits.
    let state = state_bytes_per_request(&model("qwen3-next-80B"));
    assert_eq!(state, 36.0 * (32.0 * 128.0 * 128.0 + 3.0 * 8192.0) * 2.0);
    assert_eq!(state_bytes_per_request(&model("deepseek-671B")), 0.0);
}

#[test]
fn kv_cache_is_cut_or_replicated() {
    let per_gpu = |name, parallelism| {
        with_input(name, "h200", parallelism, |input| {
            estimate(input).expect("divides").kv_bytes_per_token
        })
    };
    // Qwen3-235B has 4 KV heads: 8 ranks hold one each, twice over.
    assert_eq!(per_gpu("qwen3-moe-235B", cut(4, 1, 1, 4)), 192_512.0 / 4.0);
    assert_eq!(per_gpu("qwen3-moe-235B", cut(8, 1, 1, 8)), 192_512.0 / 4.0);
    // MLA's compressed KV is whole on every rank, and cut by stages (61 = 31 + 30).
    assert_eq!(per_gpu("deepseek-671B", cut(8, 1, 1, 8)), 70_272.0);
    assert_eq!(
        per_gpu("deepseek-671B", cut(8, 2, 1, 8)),
        576.0 * 2.0 * 31.0
    );
}

#[test]
fn weights_per_gpu_agree_with_independent_counts() {
    // GiB per GPU an independent planner (aiconfigurator 0.12.0) states for
    // dense models, which count the same things: agreement within 0.1 %.
    for (name, parallelism, dtype, gib) in [
        ("Qwen/Qwen3-32B", cut(2, 1, 1, 1), DType::Bfloat16, 30.511),
        (
            "Qwen/Qwen3-32B-FP8",
            cut(1, 1, 1, 1),
            DType::Fp8Block,
            31.960,
        ),
        ("llama-3.1-70b", cut(4, 1, 1, 1), DType::Bfloat16, 32.854),
        ("llama-3.1-70b", cut(4, 2, 1, 1), DType::Bfloat16, 16.427),
        ("llama-3.1-8b", cut(2, 1, 1, 1), DType::Bfloat16, 7.4785),
    ] {
        let ours = weights_gib(name, parallelism, dtype);
        assert!(
            (ours / gib - 1.0).abs() < 1e-3,
            "{name}: {ours:.4} vs {gib}"
        );
    }
    // Counts without embeddings, LM head, norms, routers and the replication of
    // MLA's down-projections (Vidur-AlibabaCloud): ours are larger, by no more
    // than 7 %. It keeps shared experts whole, which is taken out here.
    for (name, parallelism, dtype, gib) in [
        ("qwen3-moe-235B", cut(4, 1, 2, 8), DType::Fp8, 28.00),
        ("qwen3-next-80B", cut(1, 1, 2, 2), DType::Bfloat16, 74.12),
        ("deepseek-671B", cut(2, 1, 2, 4), DType::Bfloat16, 320.97),
        ("deepseek-671B", cut(8, 1, 2, 16), DType::Bfloat16, 83.81),
        ("deepseek-671B", cut(8, 1, 4, 32), DType::Fp8, 22.87),
    ] {
        let spec = model(name);
        let tp = f64::from(parallelism.tensor_parallel);
        let whole_shared = if name == "deepseek-671B" {
            parameters(&spec).shared_experts * (1.0 - 1.0 / tp) * dtype.bytes() / GIB
        } else {
            0.0
        };
        let ours = weights_gib(name, parallelism, dtype) + whole_shared;
        assert!(
            (1.0..1.07).contains(&(ours / gib)),
            "{name}: {ours:.2} vs {gib}"
        );
    }
}

#[test]
fn narrow_formats_keep_vocabulary_and_norms_wide() {
    let spec = model("Qwen/Qwen3-32B");
    let count = parameters(&spec);
    let bytes = stage_weights_bytes(&spec, &cut(1, 1, 1, 1), &uniform(DType::Fp8), 0, false);
    let head_norms = 64.0 * 2.0 * 128.0;
    let wide = count.embedding + count.lm_head + count.norms + head_norms;
    assert_eq!(bytes, 2.0 * wide + (count.total - wide));
}

#[test]
fn tied_embeddings_are_held_once_per_gpu_that_needs_them() {
    let mut tied = model("meta-llama/Meta-Llama-3-8B");
    tied.tie_word_embeddings = true;
    let untied = model("meta-llama/Meta-Llama-3-8B");
    let matrix = 2.0 * parameters(&untied).embedding;
    let held = |spec: &ModelSpec, pp| -> f64 {
        (0..pp)
            .map(|s| {
                stage_weights_bytes(spec, &cut(1, pp, 1, 1), &uniform(DType::Bfloat16), s, false)
            })
            .sum()
    };
    assert_eq!(held(&untied, 1) - held(&tied, 1), matrix);
    assert_eq!(held(&untied, 2), held(&tied, 2));
    assert_eq!(parameters(&tied).lm_head, 0.0);
}

#[test]
fn impossible_cuts_name_the_numbers() {
    for (name, parallelism, reason) in [
        (
            "llama-3-8b",
            cut(5, 1, 1, 1),
            "tensor_parallel 5 does not divide 32 (attention heads)",
        ),
        (
            "internlm-20b",
            cut(16, 1, 1, 1),
            "tensor_parallel 16 does not divide 40 (attention heads)",
        ),
        (
            "llama-3-8b",
            cut(1, 33, 1, 1),
            "pipeline_parallel 33 exceeds the 32 layers of meta-llama/Meta-Llama-3-8B",
        ),
        (
            "llama-3-8b",
            cut(1, 1, 1, 2),
            "expert_parallel 2 needs experts to share, and meta-llama/Meta-Llama-3-8B has none (use replicas instead)",
        ),
        (
            "llama-3-8b",
            cut(0, 1, 1, 1),
            "tensor_parallel 0: must be at least 1",
        ),
        (
            "deepseek-671B",
            cut(8, 1, 1, 3),
            "expert_parallel 3 does not divide 256 (routed experts)",
        ),
        (
            "qwen3-moe-235B",
            cut(4, 1, 6, 24),
            "expert_parallel 24 does not divide 128 (routed experts)",
        ),
        (
            "deepseek-671B",
            cut(4, 1, 1, 8),
            "expert_parallel 8 does not divide the 4 GPUs of a stage (tensor_parallel 4 x attention_data_parallel 1)",
        ),
        (
            "qwen3-next-80B",
            cut(32, 1, 1, 1),
            "tensor_parallel 32 does not divide 16 (attention heads)",
        ),
        (
            "Qwen/Qwen3-235B-A22B-FP8",
            cut(8, 1, 1, 1),
            "fp8_block weights: expert intermediate size 1536 cut 8 ways is 192, not a multiple of the 128-wide scale block",
        ),
    ] {
        let error = with_input(name, "h200", parallelism, |input| {
            plan(input).expect_err("impossible")
        });
        assert_eq!(error.obstacle, Obstacle::Parallelism);
        assert_eq!(error.reason, reason);
    }
    let mut odd = model("llama-3-8b");
    odd.attention = crate::catalog::Attention::Gqa {
        heads: 36,
        kv_heads: 6,
        head_dim: 128,
        qk_norm: false,
        qkv_bias: false,
        output_gate: false,
        output_bias: false,
        sinks: false,
    };
    let error = check_divisibility(&odd, &cut(4, 1, 1, 1)).expect_err("6 KV heads over 4");
    assert_eq!(
        error.reason,
        "tensor_parallel 4 neither divides nor is a multiple of the 6 KV heads"
    );
}

#[test]
fn what_does_not_fit_says_by_how_much() {
    let reason = |name, device, parallelism| {
        with_input(name, device, parallelism, |input| {
            let error = plan(input).expect_err("does not fit");
            (error.obstacle, error.reason)
        })
    };
    assert_eq!(
        reason("deepseek-671B", "h100", cut(8, 1, 1, 8)),
        (
            Obstacle::Weights,
            "weights 79.3 GiB/GPU exceed 71.5 GiB usable of h100".into()
        )
    );
    // The weights fit; the state of very many requests then takes the rest.
    let text = with_input("qwen3-next-80B", "h200", cut(2, 1, 1, 2), |input| {
        let error = plan(&PlanInput {
            max_requests_in_batch: 4096,
            ..*input
        })
        .expect_err("does not fit");
        assert_eq!(error.obstacle, Obstacle::KvCache);
        error.reason
    });
    assert_eq!(
        text,
        "no room for KV cache: weights 74.2 + activations of 8192 tokens 3.5 + communication 0.3 \
         + state of 4096 requests 75.4 GiB/GPU leave less than one block of the 126.4 GiB usable \
         of h200"
    );
}

#[test]
fn plan_accounts_for_every_byte() {
    with_input("qwen3-next-80B", "h200", cut(2, 1, 1, 2), |input| {
        let plan = plan(input).expect("fits");
        let used = plan.reserve_bytes
            + plan.weights_bytes
            + plan.activation_bytes
            + plan.communication_bytes
            + plan.state_bytes;
        let block = plan.kv_bytes_per_token * 16.0;
        let left = plan.capacity_bytes - used - plan.blocks_per_rank as f64 * block;
        assert!((0.0..block).contains(&left), "{left} of a block {block}");
        assert_eq!(plan.state_bytes, 128.0 * plan.state_bytes_per_request);
    });
}

#[test]
fn activations_grow_with_tokens_and_shrink_with_ranks() {
    let at = |tokens, tp| {
        with_input("Qwen/Qwen3-32B", "h200", cut(tp, 1, 1, 1), |input| {
            let input = PlanInput {
                max_tokens_in_step: tokens,
                ..*input
            };
            estimate(&input).expect("divides").activation_bytes
        })
    };
    // Two rows of the residual stream and gate, up and product of the MLP.
    assert_eq!(at(8192, 1), 8192.0 * 2.0 * (2.0 * 5120.0 + 3.0 * 25600.0));
    assert_eq!(at(16384, 1), 2.0 * at(8192, 1));
    assert!(at(8192, 4) < at(8192, 2));
    // Few tokens: the logits of the batch are the widest.
    assert_eq!(
        at(64, 1),
        64.0 * 2.0 * 2.0 * 5120.0 + 128.0 * 151_936.0 * 6.0
    );
}

/// KV cache tokens of `model` on `device` as `engine` shares out its memory.
fn kv_cache_tokens(model: &str, device: &str, engine: &str, tp: u32) -> u64 {
    let engine = Catalog::builtin().engine(engine, None).expect(engine);
    with_input(model, device, cut(tp, 1, 1, 1), |input| {
        let input = PlanInput {
            max_tokens_in_step: engine.max_tokens_in_batch,
            max_requests_in_batch: engine.batch_size_cap,
            rule: MemoryRule::of_engine(&engine),
            block_size: engine.block_size,
            ..*input
        };
        plan(&input).map_or(0, |plan| {
            plan.blocks_per_rank * u64::from(engine.block_size)
        })
    })
}

#[test]
fn engines_share_out_memory_by_their_own_rules() {
    let llama = |engine| kv_cache_tokens("llama-3-70b", "h100", engine, 2);
    // 0.9 of what is free beside 65.7 GiB of weights, and 10 GiB beside weights and
    // pool; vLLM's 0.92 are of the whole.
    let [vllm, sglang, trtllm] = ["vllm", "sglang", "trtllm"].map(llama);
    assert!((68_000..70_000).contains(&trtllm), "{trtllm}");
    assert!((26_000..31_000).contains(&sglang), "{sglang}");
    assert!((38_000..41_000).contains(&vllm), "{vllm}");
    // Runs, though weights and activations take more than 0.88 of the memory.
    let deepseek = kv_cache_tokens("deepseek-671B", "b200", "sglang", 4);
    assert!(deepseek > 100_000, "{deepseek}");
    // Where there is room, SGLang's own estimate: 0.836 of 80 GiB less 15 of weights.
    let small = kv_cache_tokens("llama-3-8b", "h100", "sglang", 1);
    let expected = (80.0 - (512.0 + 12_288.0 + 512.0 + 128.0 + 464.0) / 1024.0 - 14.96) * GIB;
    assert!(
        (small as f64 * 131_072.0 / expected - 1.0).abs() < 0.01,
        "{small}"
    );
}

#[test]
fn a_fraction_of_weights_and_pool_leaves_room_for_the_rest() {
    with_input("llama-3-8b", "h100", cut(1, 1, 1, 1), |input| {
        let with = |fraction| {
            let rule = MemoryRule::StaticFraction(Some(fraction));
            plan(&PlanInput { rule, ..*input }).expect("fits")
        };
        let half = with(0.5);
        assert_eq!(half.weights_bytes + half.kv_cache_bytes(), 40.0 * GIB);
        // A fraction that would leave too little for a step is held to what is there.
        let margin = plan(&PlanInput {
            rule: MemoryRule::Margin(0.0),
            ..*input
        });
        assert_eq!(with(1.0), margin.expect("fits"));
    });
}

#[test]
fn blocks_of_local_layers_fit_every_stage() {
    // Gemma 3's shape: 62 layers, every sixth looks back to the start.
    let mut spec = model("llama-3-8b");
    spec.layers = 62;
    spec.local_attention = Some(crate::catalog::LocalAttention {
        reach: crate::catalog::LocalReach::SlidingWindow,
        tokens: 1024,
        full_attention_interval: 6,
        full_attention_layers: Vec::new(),
    });
    let device = Catalog::builtin().device("h100").expect("known");
    let window = window_cache(&spec).expect("local layers");
    assert_eq!((window.layers, window.full_layers), (52, 10));
    let of_layer = 2.0 * 8.0 * 128.0 * 2.0;
    for stages in [1, 2, 3, 7, 16] {
        let input = PlanInput {
            model: &spec,
            device: &device,
            parallelism: cut(1, stages, 1, 1),
            formats: uniform(DType::Bfloat16),
            max_tokens_in_step: 2048,
            max_requests_in_batch: 16,
            rule: MemoryRule::Margin(0.1),
            block_size: 16,
            include_mtp: false,
            redundant_experts: 0,
        };
        let plan = plan(&input).expect("fits");
        // Requests of 4,096 tokens, as many as their blocks allow: what each stage
        // holds of them, by its own layers, is within what it has.
        let blocks_each = 256 + (65u64 * 52).div_ceil(10);
        let requests = (plan.blocks_per_rank / blocks_each) as f64;
        for stage in 0..stages {
            let (full, local) = spec
                .stage_layers(stage, stages)
                .fold((0.0, 0.0), |sum, layer| {
                    match spec.is_local_attention_layer(layer) {
                        true => (sum.0, sum.1 + 1.0),
                        false => (sum.0 + 1.0, sum.1),
                    }
                });
            let held = requests * of_layer * (full * 4096.0 + local * 65.0 * 16.0);
            let weights =
                stage_weights_bytes(&spec, &input.parallelism, &input.formats, stage, false);
            let usable = plan.capacity_bytes - plan.reserve_bytes - plan.communication_bytes;
            assert!(
                held + weights <= usable,
                "{stages} stages: {held} {weights}"
            );
            // No more than the odd layer is wasted where stages are alike.
            assert!(
                stages > 2 || held > 0.9 * plan.kv_cache_bytes(),
                "{stages} stages: {held}"
            );
        }
    }
}
