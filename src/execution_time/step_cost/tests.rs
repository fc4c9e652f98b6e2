//! The memoised price against the sum of operators, on random shapes.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::catalog::{Attention, ClassFormats, LinearAttention, Moe};
use crate::execution_time::roofline::tests::h200;
use crate::execution_time::{PrefillChunk, Speculation};
use crate::units::DType;

fn dense() -> ModelSpec {
    ModelSpec {
        name: "llama-8b-like".into(),
        aliases: vec![],
        source: String::new(),
        layers: 32,
        hidden_size: 4096,
        vocab_size: 128_256,
        max_position_tokens: 131_072,
        attention: Attention::Gqa {
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            qk_norm: false,
            qkv_bias: false,
            output_gate: false,
            output_bias: false,
            sinks: false,
        },
        linear_attention: None,
        local_attention: None,
        intermediate_size: 14_336,
        gated_mlp: true,
        moe: None,
        norms_per_layer: 2,
        layer_norm_bias: false,
        projection_bias: false,
        tie_word_embeddings: false,
        mtp_layers: 0,
        vision_parameters: 0.0,
        dtype: DType::Bfloat16,
        dtype_of: ClassFormats::NONE,
        kv_cache_dtype: DType::Bfloat16,
        published_parameters_b: 8.03,
    }
}

fn latent_moe() -> ModelSpec {
    ModelSpec {
        name: "deepseek-v3-like".into(),
        layers: 61,
        hidden_size: 7168,
        vocab_size: 129_280,
        attention: Attention::Mla {
            heads: 128,
            q_lora_rank: 1536,
            kv_lora_rank: 512,
            qk_nope_head_dim: 128,
            qk_rope_head_dim: 64,
            v_head_dim: 128,
        },
        intermediate_size: 18_432,
        moe: Some(Moe {
            experts: 256,
            experts_per_token: 8,
            intermediate_size: 2048,
            shared_intermediate_size: 2048,
            shared_expert_gate: false,
            first_dense_layers: 3,
            layer_interval: 1,
            dense_layers: Vec::new(),
            bias: false,
            expert_groups: 8,
            groups_per_token: 4,
        }),
        dtype: DType::Fp8Block,
        dtype_of: ClassFormats::NONE,
        kv_cache_dtype: DType::Fp8,
        published_parameters_b: 671.0,
        ..dense()
    }
}

fn hybrid_moe() -> ModelSpec {
    ModelSpec {
        name: "qwen3-next-like".into(),
        layers: 48,
        hidden_size: 2048,
        vocab_size: 151_936,
        attention: Attention::Gqa {
            heads: 16,
            kv_heads: 2,
            head_dim: 256,
            qk_norm: true,
            qkv_bias: false,
            output_gate: true,
            output_bias: false,
            sinks: false,
        },
        linear_attention: Some(LinearAttention {
            full_attention_interval: 4,
            key_heads: 16,
            value_heads: 32,
            key_head_dim: 128,
            value_head_dim: 128,
            conv_kernel: 4,
        }),
        intermediate_size: 5120,
        moe: Some(Moe {
            experts: 512,
            experts_per_token: 10,
            intermediate_size: 512,
            shared_intermediate_size: 512,
            shared_expert_gate: true,
            first_dense_layers: 0,
            layer_interval: 1,
            dense_layers: Vec::new(),
            bias: false,
            expert_groups: 1,
            groups_per_token: 1,
        }),
        published_parameters_b: 80.0,
        ..dense()
    }
}

fn cut(tp: u32, pp: u32, ep: u32, dp: u32) -> Parallelism {
    Parallelism {
        tensor_parallel: tp,
        pipeline_parallel: pp,
        expert_parallel: ep,
        attention_data_parallel: dp,
    }
}

fn cost(model: &ModelSpec, parallelism: Parallelism, backend: BackendKind) -> GraphCost {
    let formats = Formats::of(model, None, None);
    let engine = EngineSpec {
        name: "vllm".into(),
        version: "0".into(),
        sources: vec![],
        max_tokens_in_batch: 8192,
        batch_size_cap: 256,
        block_size: 16,
        gpu_memory_utilization: Some(0.9),
        mem_fraction_static: None,
        free_gpu_memory_fraction: None,
        host_overhead_s_per_step: 2e-3,
        host_overhead_s_per_request: 1e-5,
    };
    GraphCost::new(
        model,
        &h200(),
        backend,
        Some(&engine),
        parallelism,
        formats,
        8,
        &LinkOverrides::default(),
    )
    .unwrap()
}

fn deployments() -> Vec<(ModelSpec, Parallelism)> {
    vec![
        (dense(), cut(1, 1, 1, 1)),
        (dense(), cut(2, 2, 1, 1)),
        (latent_moe(), cut(8, 1, 8, 1)),
        (latent_moe(), cut(1, 1, 8, 8)),
        (latent_moe(), cut(2, 1, 32, 16)),
        (hybrid_moe(), cut(2, 2, 2, 1)),
        (hybrid_moe(), cut(1, 1, 4, 4)),
    ]
}

fn random_shape(rng: &mut impl Rng) -> StepShape {
    let prefills: Vec<_> = (0..rng.random_range(0..6u32))
        .map(|_| PrefillChunk {
            new_tokens: rng.random_range(1..3000),
            context_tokens: if rng.random_bool(0.5) {
                0
            } else {
                rng.random_range(0..20_000)
            },
        })
        .collect();
    let decode_requests = rng.random_range(0..300u32);
    let mean_context = 2f64.powf(rng.random_range(0.0..16.5));
    StepShape {
        sampled_tokens: decode_requests + prefills.len() as u32,
        prefills,
        decode_requests,
        decode_context_tokens: (mean_context * f64::from(decode_requests)) as u64,
    }
}

fn explained_s(rows: &[PricedOperator], stage: u32, host: bool) -> f64 {
    rows.iter()
        .filter(|row| row.stage == stage && (row.name == "host") == host)
        .map(|row| row.time_s)
        .sum()
}

fn assert_explained(backend: BackendKind) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for (model, parallelism) in deployments() {
        let cost = cost(&model, parallelism, backend);
        for _ in 0..60 {
            let shape = random_shape(&mut rng);
            let rows = cost.explain(&shape);
            for stage in 0..cost.stages() {
                let whole = rows.iter().filter(|row| row.stage == stage).cloned();
                let whole: Vec<PricedOperator> = whole.collect();
                assert_eq!(cost.explain_stage(stage, &shape), whole);
                let time = cost.stage_time(stage, &shape);
                let direct_s = explained_s(&rows, stage, false);
                assert!(
                    (time.model_s - direct_s).abs() <= 0.002 * direct_s,
                    "{} {parallelism:?} {shape:?}: {} against {direct_s}",
                    model.name,
                    time.model_s
                );
                let host_s = explained_s(&rows, stage, true);
                assert!((time.host_s - host_s).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn the_memoised_price_is_the_sum_of_its_operators() {
    assert_explained(BackendKind::Roofline);
}

#[test]
fn the_same_from_measured_tables() {
    assert_explained(BackendKind::Silicon);
}

#[test]
fn prices_do_not_depend_on_order_or_thread() {
    let (model, parallelism) = (latent_moe(), cut(2, 1, 32, 16));
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let shapes: Vec<_> = (0..200).map(|_| random_shape(&mut rng)).collect();
    let prices = |cost: &GraphCost, order: &[usize]| {
        let mut bits = vec![0; shapes.len()];
        for &index in order {
            bits[index] = cost.stage_time(0, &shapes[index]).total_s().to_bits();
        }
        bits
    };
    let forward: Vec<_> = (0..shapes.len()).collect();
    let backward: Vec<_> = forward.iter().rev().copied().collect();
    let fresh = cost(&model, parallelism, BackendKind::Roofline);
    let expected = prices(&fresh, &forward);
    let shared = cost(&model, parallelism, BackendKind::Roofline);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| prices(&shared, &backward));
        let two = scope.spawn(|| prices(&shared, &forward));
        assert_eq!(one.join().unwrap(), expected);
        assert_eq!(two.join().unwrap(), expected);
    });
}

#[test]
fn an_empty_step_takes_no_time() {
    let cost = cost(&dense(), cut(1, 1, 1, 1), BackendKind::Roofline);
    assert_eq!(cost.stage_time(0, &StepShape::default()).total_s(), 0.0);
    assert!(cost.explain(&StepShape::default()).is_empty());
}

#[test]
fn a_prompt_costs_more_split_than_whole_and_shapes_share_one_launch() {
    let cost = cost(&dense(), cut(1, 1, 1, 1), BackendKind::Roofline);
    let chunk = |new_tokens, context_tokens| PrefillChunk {
        new_tokens,
        context_tokens,
    };
    let time = |prefills: Vec<PrefillChunk>| {
        let shape = StepShape {
            prefills,
            ..StepShape::default()
        };
        cost.stage_time(0, &shape).model_s
    };
    let whole = time(vec![chunk(4096, 0)]);
    let split = time(vec![chunk(2048, 0)]) + time(vec![chunk(2048, 2048)]);
    assert!(split > whole);
    let mixed = time(vec![chunk(2048, 0), chunk(2047, 0)]);
    let equal = time(vec![chunk(2048, 0), chunk(2048, 0)]);
    assert!((mixed / equal - 1.0).abs() < 0.01, "{mixed} {equal}");
}

#[test]
fn the_busiest_rank_decides() {
    let cost = cost(&latent_moe(), cut(1, 1, 8, 8), BackendKind::Roofline);
    let step = |prefills: Vec<u32>| StepShape {
        prefills: prefills
            .into_iter()
            .map(|new_tokens| PrefillChunk {
                new_tokens,
                context_tokens: 0,
            })
            .collect(),
        ..StepShape::default()
    };
    let one = cost.stage_time(0, &step(vec![4000])).model_s;
    let even = cost.stage_time(0, &step(vec![500; 8])).model_s;
    assert!(one > even, "one rank works, seven wait: {one} {even}");
}

#[test]
fn activated_parameters_set_the_flops() {
    // 37e9 activated parameters of DeepSeek-V3, without embeddings.
    let cost = cost(&latent_moe(), cut(8, 1, 8, 1), BackendKind::Roofline);
    let per_token = cost.flops(1.0, 0.0, 1.0) / 2.0;
    assert!((per_token / 36.7e9 - 1.0).abs() < 0.02, "{per_token}");
    let cost = super::tests::cost(&dense(), cut(1, 1, 1, 1), BackendKind::Roofline);
    let per_token = cost.flops(1.0, 0.0, 1.0) / 2.0;
    assert!((per_token / 7.5e9 - 1.0).abs() < 0.01, "{per_token}");
    assert_eq!(cost.flops(0.0, 1.0, 0.0), 4.0 * 4096.0 * 32.0);
}

#[test]
fn what_does_not_divide_is_refused_with_the_figure() {
    let refuse = |model: ModelSpec, parallelism| {
        let formats = Formats::of(&model, None, None);
        GraphCost::new(
            &model,
            &h200(),
            BackendKind::Roofline,
            None,
            parallelism,
            formats,
            8,
            &LinkOverrides::default(),
        )
        .unwrap_err()
    };
    assert!(refuse(dense(), cut(3, 1, 1, 1)).contains("does not divide 32 (attention heads)"));
    assert!(refuse(dense(), cut(1, 33, 1, 1)).contains("exceeds the 32 layers"));
    assert!(refuse(dense(), cut(2, 1, 2, 1)).contains("needs experts to share"));
    assert!(refuse(latent_moe(), cut(2, 1, 4, 1)).contains("does not divide the 2 GPUs"));
    assert!(refuse(latent_moe(), cut(0, 1, 1, 1)).contains("at least 1"));
}

#[test]
fn latent_attention_of_other_widths_is_not_priced_as_what_was_measured() {
    let narrow = ModelSpec {
        hidden_size: 5120,
        ..latent_moe()
    };
    let block = |model: &ModelSpec| {
        let cost = cost(model, cut(8, 1, 8, 1), BackendKind::Silicon);
        let rows = cost.explain(&StepShape {
            decode_requests: 8,
            decode_context_tokens: 8000,
            sampled_tokens: 8,
            ..StepShape::default()
        });
        let row = rows.into_iter().find(|row| row.name == "mla_block");
        row.unwrap().provenance
    };
    let reason = "latent attention was measured with DeepSeek-V3's widths only";
    let expected = Provenance::Roofline {
        reason: reason.into(),
    };
    assert_eq!(block(&narrow), expected);
    assert_ne!(block(&latent_moe()), expected);
}

/// DeepSeek-V3's shape over 32 ranks on four nodes.
fn wide(options: StepOptions) -> GraphCost {
    cost(&latent_moe(), cut(1, 1, 32, 32), BackendKind::Roofline).with_options(&options)
}

fn decodes(requests: u32, context: u64) -> StepShape {
    StepShape {
        decode_requests: requests,
        decode_context_tokens: u64::from(requests) * context,
        sampled_tokens: requests,
        ..StepShape::default()
    }
}

fn assert_rows_add_up(cost: &GraphCost, shape: &StepShape) {
    let sum_s: f64 = cost.explain(shape).iter().map(|row| row.time_s).sum();
    let step_s = cost.stage_time(0, shape).total_s();
    assert!((sum_s / step_s - 1.0).abs() < 2e-3, "{sum_s} {step_s}");
}

#[test]
fn overlap_hides_the_shorter_of_exchange_and_compute() {
    let plain = wide(StepOptions::default());
    let overlapped = wide(StepOptions {
        two_batch_overlap: true,
        ..StepOptions::default()
    });
    let shape = decodes(32 * 256, 4096);
    let exchange_s: f64 = (plain.explain(&shape).iter())
        .filter(|row| travels_to_experts(&row.operator))
        .map(|row| row.time_s)
        .sum();
    let (alone_s, together_s) = (
        plain.stage_time(0, &shape).model_s,
        overlapped.stage_time(0, &shape).model_s,
    );
    assert!(together_s < alone_s, "{together_s} {alone_s}");
    assert!(together_s > exchange_s && together_s > alone_s / 2.0);
    assert_rows_add_up(&overlapped, &shape);
    // One token cannot be halved; nor is there anything to hide without experts
    // elsewhere.
    let one = decodes(1, 100);
    assert_eq!(overlapped.stage_time(0, &one), plain.stage_time(0, &one));
    let alone = cost(&latent_moe(), cut(1, 1, 1, 1), BackendKind::Roofline);
    let expected = alone.stage_time(0, &shape);
    let alone = alone.with_options(&StepOptions {
        two_batch_overlap: true,
        ..StepOptions::default()
    });
    assert_eq!(alone.stage_time(0, &shape), expected);
}

#[test]
fn speculation_pays_for_drafts_and_gains_what_is_accepted() {
    let speculation = |draft_tokens, acceptance| {
        wide(StepOptions {
            speculation: Some(Speculation {
                draft_tokens,
                acceptance,
            }),
            ..StepOptions::default()
        })
    };
    let plain = wide(StepOptions::default());
    let shape = decodes(32 * 8, 2048);
    let time_s = |cost: &GraphCost| cost.stage_time(0, &shape).model_s;
    let (never, always) = (speculation(1, 0.0), speculation(1, 1.0));
    assert!(time_s(&never) > time_s(&plain), "rejected drafts cost");
    assert!((time_s(&always) * 2.0 / time_s(&never) - 1.0).abs() < 1e-12);
    assert!(time_s(&always) < time_s(&plain), "accepted ones pay");
    assert_rows_add_up(&always, &shape);
    // Prompts draft nothing.
    let prompt = StepShape {
        prefills: vec![PrefillChunk {
            new_tokens: 2048,
            context_tokens: 0,
        }],
        sampled_tokens: 1,
        ..StepShape::default()
    };
    assert_eq!(always.stage_time(0, &prompt), plain.stage_time(0, &prompt));
    // In a mixed step the prompt's share is not divided.
    let mixed = StepShape {
        prefills: prompt.prefills.clone(),
        sampled_tokens: shape.sampled_tokens + 1,
        ..shape.clone()
    };
    let mixed_s = always.stage_time(0, &mixed).model_s;
    assert!(mixed_s > plain.stage_time(0, &prompt).model_s);
    assert_rows_add_up(&always, &mixed);
    let tokens = |acceptance| {
        let speculation = Speculation {
            draft_tokens: 2,
            acceptance,
        };
        speculation.tokens_per_step()
    };
    assert_eq!((tokens(0.0), tokens(0.5), tokens(1.0)), (1.0, 1.75, 3.0));
}

#[test]
fn uneven_experts_take_longer() {
    let with = |load| {
        let options = StepOptions {
            expert_load: Some(load),
            ..StepOptions::default()
        };
        wide(options)
            .stage_time(0, &decodes(32 * 512, 1024))
            .model_s
    };
    let even = with(super::super::operator::ExpertLoad::Balanced);
    let uneven = with(super::super::operator::ExpertLoad::Uneven { factor: 2.0 });
    assert!(uneven > 1.1 * even, "{uneven} {even}");
}

/// Deployments of all kinds.
fn all_costs() -> Vec<GraphCost> {
    let mut costs: Vec<_> = (deployments().iter())
        .map(|(model, parallelism)| cost(model, *parallelism, BackendKind::Silicon))
        .collect();
    costs.push(wide(StepOptions {
        two_batch_overlap: true,
        ..StepOptions::default()
    }));
    costs.push(wide(StepOptions {
        speculation: Some(Speculation {
            draft_tokens: 2,
            acceptance: 0.5,
        }),
        ..StepOptions::default()
    }));
    costs
}

#[test]
fn steps_in_a_row_cost_what_each_costs() {
    for cost in &all_costs() {
        let stages = cost.stages() as usize;
        for (requests, context_tokens) in [(1, 3), (7, 900), (64, 64 * 1020), (300, 300 * 5000)] {
            let mut shape = decodes(requests, 0);
            shape.decode_context_tokens = context_tokens;
            let mut times = vec![StageTime::default(); 40 * stages];
            cost.decode_times(&shape, &mut times);
            for step in 0..40 {
                for stage in 0..stages {
                    let alone = cost.stage_time(stage as u32, &shape);
                    assert_eq!(times[stages * step + stage], alone);
                }
                shape.decode_context_tokens += u64::from(requests);
            }
        }
    }
}

#[test]
fn every_way_to_ask_has_the_same_answer() {
    for cost in all_costs() {
        wrapper_tests::answers_agree(&cost, "operators");
        let group = PeerCost::new(Arc::new(cost), 3);
        wrapper_tests::answers_agree(&group, "operators of peers");
    }
}

#[test]
fn stages_together_cost_what_each_costs() {
    let mut costs = all_costs();
    costs.push(cost(&dense(), cut(1, 8, 1, 1), BackendKind::Silicon));
    costs.push(cost(&hybrid_moe(), cut(2, 4, 2, 1), BackendKind::Silicon));
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    for cost in &costs {
        for decode_only in [false, true] {
            for _ in 0..20 {
                let mut shape = random_shape(rng);
                if decode_only {
                    shape.prefills.clear();
                }
                let mut times = vec![StageTime::default(); cost.stages() as usize];
                cost.stage_times(&shape, &mut times);
                for (stage, time) in (0..).zip(times) {
                    assert_eq!(time, cost.stage_time(stage, &shape));
                }
            }
        }
    }
}
