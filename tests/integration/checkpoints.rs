//! Checkpoints as people have them: read from their `config.json`, counted against the
//! sums over their published tensors, cached and priced as their attention is.

use std::path::PathBuf;

use vidur_sweep::catalog::{Attention, Catalog, LocalReach, ModelSpec, WeightClass};
use vidur_sweep::execution_time::step_cost::GraphCost;
use vidur_sweep::execution_time::{
    BackendKind, PrefillChunk, PricedOperator, Provenance, StepCost, StepShape,
};
use vidur_sweep::memory::{
    Formats, Parallelism, kv_bytes_per_token, parameters, stage_weights_bytes, window_cache,
};
use vidur_sweep::network::LinkOverrides;
use vidur_sweep::units::DType;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/checkpoints")
        .join(name)
}

fn model(name: &str) -> ModelSpec {
    let path = folder(name);
    let read = Catalog::builtin().model(path.to_str().expect("UTF-8"));
    read.unwrap_or_else(|error| panic!("{error}"))
}

/// Parameters: sums over the tensors that the checkpoints' repositories list, without
/// multi-token-prediction layers.
const PARAMETERS: [(&str, f64); 24] = [
    ("phi-4", 14_659_507_200.0),
    ("deepseek-v2-lite", 15_706_484_224.0),
    ("llama-4-scout", 108_641_793_536.0),
    ("gpt-oss-20b", 20_914_757_184.0),
    ("gpt-oss-120b", 116_829_156_672.0),
    ("mistral-7b-v0.1", 7_241_732_096.0),
    ("llama-3.3-70b-dtype", 70_553_706_496.0),
    ("llama-3.3-70b-fp8dyn", 70_553_706_496.0),
    ("llama-3.1-8b-modelopt-fp8", 8_030_261_248.0),
    ("llama-3.1-8b-modelopt-nvfp4", 8_030_261_248.0),
    ("mixtral-8x7b", 46_702_792_704.0),
    ("qwen1.5-moe-a2.7b", 14_315_784_192.0),
    ("gemma-3-27b", 27_432_406_640.0),
    ("gemma-3-1b", 999_885_952.0),
    ("kimi-k2", 1_026_408_232_448.0),
    ("kimi-k2-thinking", 1_026_408_232_448.0),
    ("glm-4.5-air", 106_852_251_264.0),
    ("glm-4.5", 352_797_829_024.0),
    ("glm-4-9b-chat", 9_399_951_360.0),
    ("glm-4-32b", 32_566_081_536.0),
    ("llama-4-maverick", 401_583_781_376.0),
    ("phi-3.5-mini", 3_821_079_552.0),
    ("mistral-small-3.1", 24_011_361_280.0),
    ("deepseek-r1-nvfp4", 671_026_404_352.0),
];

#[test]
fn parameters_are_the_published_tensors() {
    for (name, published) in PARAMETERS {
        let counted = parameters(&model(name)).total;
        // Biases of routers apart, to the last one.
        let error = (counted / published - 1.0).abs();
        assert!(error < 1e-5, "{name}: {counted} against {published}");
    }
    let listed: Vec<_> = std::fs::read_dir(folder("")).unwrap().collect();
    assert_eq!(listed.len(), PARAMETERS.len(), "every folder is counted");
}

#[test]
fn vision_towers_are_loaded_and_not_visited() {
    // The language models' own sums.
    for (name, language) in [
        ("gemma-3-27b", 27_009_346_304.0),
        ("llama-4-scout", 107_769_861_120.0),
        ("mistral-small-3.1", 23_572_403_200.0),
    ] {
        let model = model(name);
        let count = parameters(&model);
        assert!(
            (count.total - count.vision - language).abs() / language < 1e-5,
            "{name}"
        );
        assert!(count.activated <= count.total - count.vision, "{name}");
        assert!(
            model.source.contains("with its vision tower"),
            "{}",
            model.source
        );
        let whole = ModelSpec {
            vision_parameters: 0.0,
            ..model.clone()
        };
        let bytes = |model: &ModelSpec, tensor_parallel, stage| {
            let parallelism = Parallelism {
                tensor_parallel,
                pipeline_parallel: 2,
                expert_parallel: 1,
                attention_data_parallel: 1,
            };
            let formats = Formats::new(DType::Bfloat16, DType::Bfloat16);
            stage_weights_bytes(model, &parallelism, &formats, stage, false)
        };
        // Two bytes each, on the first stage, cut like the layers.
        for (ways, stage, share) in [(1, 0, 1.0), (4, 0, 0.25), (1, 1, 0.0)] {
            let more = bytes(&model, ways, stage) - bytes(&whole, ways, stage);
            assert!(
                (more - 2.0 * share * count.vision).abs() < 1.0,
                "{name} {ways} {stage}"
            );
        }
    }
}

#[test]
fn the_catalog_s_files_say_what_checkpoints_do() {
    for name in ["gpt-oss-20b", "gpt-oss-120b"] {
        let of_catalog = Catalog::builtin().model(name).expect("known");
        let read = ModelSpec {
            aliases: of_catalog.aliases.clone(),
            source: of_catalog.source.clone(),
            published_parameters_b: of_catalog.published_parameters_b,
            ..model(name)
        };
        assert_eq!(read, of_catalog);
    }
}

#[test]
fn activated_parameters_are_the_model_cards() {
    // "3.6B", "5.1B", "17B", "2.7B" (embeddings apart), "32B", "12B" activated.
    for (name, billions) in [
        ("gpt-oss-20b", 3.6),
        ("gpt-oss-120b", 5.1),
        ("llama-4-scout", 17.2),
        ("qwen1.5-moe-a2.7b", 2.7),
        ("kimi-k2", 32.6),
        ("glm-4.5-air", 12.6),
    ] {
        let count = parameters(&model(name)).activated / 1e9;
        assert!((count / billions - 1.0).abs() < 0.17, "{name}: {count}");
    }
}

#[test]
fn positions_honour_rope_scaling() {
    for (name, tokens) in [
        ("phi-4", 16_384),
        ("phi-3.5-mini", 131_072),
        ("deepseek-v2-lite", 163_840),
        ("gpt-oss-20b", 131_072),
        ("gpt-oss-120b", 131_072),
        ("llama-4-scout", 131_072),
        ("llama-4-maverick", 1_048_576),
        ("llama-3.3-70b-dtype", 131_072),
        ("gemma-3-27b", 131_072),
        ("kimi-k2", 131_072),
        ("kimi-k2-thinking", 262_144),
        ("glm-4-9b-chat", 131_072),
    ] {
        assert_eq!(model(name).max_position_tokens, tokens, "{name}");
    }
}

#[test]
fn layers_look_as_far_back_as_they_do() {
    for (name, reach, tokens, local, first_full) in [
        ("mistral-7b-v0.1", LocalReach::SlidingWindow, 4096, 32, None),
        ("gpt-oss-20b", LocalReach::SlidingWindow, 128, 12, Some(1)),
        ("gpt-oss-120b", LocalReach::SlidingWindow, 128, 18, Some(1)),
        ("llama-4-scout", LocalReach::Chunked, 8192, 36, Some(3)),
        ("gemma-3-27b", LocalReach::SlidingWindow, 1024, 52, Some(5)),
        ("gemma-3-1b", LocalReach::SlidingWindow, 512, 22, Some(5)),
    ] {
        let model = model(name);
        let given = model.local_attention.as_ref().expect(name);
        assert_eq!((given.reach, given.tokens), (reach, tokens), "{name}");
        let is_local = |layer: &u32| model.is_local_attention_layer(*layer);
        assert_eq!((0..model.layers).filter(is_local).count(), local, "{name}");
        let full = (0..model.layers).find(|&layer| model.is_full_attention_layer(layer));
        assert_eq!(full, first_full, "{name}");
        assert!(
            given.full_attention_layers.is_empty(),
            "{name}: an interval says it"
        );
    }
    for name in [
        "phi-4",
        "mixtral-8x7b",
        "qwen1.5-moe-a2.7b",
        "kimi-k2",
        "mistral-small-3.1",
    ] {
        assert_eq!(model(name).local_attention, None, "{name}");
    }
}

#[test]
fn layers_with_experts_are_where_they_are() {
    let maverick = model("llama-4-maverick");
    let moe = maverick.moe.as_ref().expect("experts");
    assert_eq!((moe.layer_interval, moe.first_dense_layers), (2, 0));
    assert!(maverick.is_moe_layer(1) && !maverick.is_moe_layer(0));
    assert_eq!(maverick.intermediate_size, 16_384);
    assert!(model("deepseek-v2-lite").is_moe_layer(1));
    assert!(!model("deepseek-v2-lite").is_moe_layer(0));
    let Attention::Mla { q_lora_rank, .. } = model("deepseek-v2-lite").attention else {
        panic!("latent attention");
    };
    assert_eq!(q_lora_rank, 0);
}

#[test]
fn classes_of_weights_have_their_formats() {
    use DType::{Bfloat16, Fp8, Fp8Block, Int4, Mxfp4, Nvfp4};
    use WeightClass::{Attention, DenseMlp, RoutedExperts, SharedExperts};
    let of = |name, class| Formats::of(&model(name), None, None).of_class(class);
    for (name, class, dtype) in [
        ("gpt-oss-20b", Attention, Bfloat16),
        ("gpt-oss-20b", RoutedExperts, Mxfp4),
        ("gpt-oss-120b", Attention, Bfloat16),
        ("gpt-oss-120b", RoutedExperts, Mxfp4),
        ("llama-3.3-70b-fp8dyn", Attention, Fp8),
        ("llama-3.3-70b-fp8dyn", DenseMlp, Fp8),
        ("llama-3.1-8b-modelopt-fp8", DenseMlp, Fp8),
        ("llama-3.1-8b-modelopt-nvfp4", Attention, Nvfp4),
        ("kimi-k2", Attention, Fp8Block),
        ("kimi-k2-thinking", Attention, Bfloat16),
        ("kimi-k2-thinking", SharedExperts, Bfloat16),
        ("kimi-k2-thinking", DenseMlp, Bfloat16),
        ("kimi-k2-thinking", RoutedExperts, Int4),
        ("deepseek-r1-nvfp4", Attention, Bfloat16),
        ("deepseek-r1-nvfp4", RoutedExperts, Nvfp4),
        ("llama-3.3-70b-dtype", DenseMlp, Bfloat16),
    ] {
        assert_eq!(of(name, class), dtype, "{name} {class:?}");
    }
    assert_eq!(model("llama-3.1-8b-modelopt-fp8").kv_cache_dtype, Fp8);
    assert_eq!(model("llama-3.1-8b-modelopt-nvfp4").kv_cache_dtype, Fp8);
    let text = Formats::of(&model("gpt-oss-20b"), None, None).weights_text();
    assert_eq!(text, "mxfp4 (attention bfloat16)");
    // A format that is asked for is that of all weights.
    let asked = Formats::of(&model("gpt-oss-20b"), Some(Bfloat16), None);
    assert_eq!(asked.of_class(RoutedExperts), Bfloat16);
    assert_eq!(asked.weights_text(), "bfloat16");
}

const ONE_GPU: Parallelism = Parallelism {
    tensor_parallel: 1,
    pipeline_parallel: 1,
    expert_parallel: 1,
    attention_data_parallel: 1,
};

#[test]
fn checkpoints_weigh_what_their_files_do() {
    // Sizes of the safetensors files, GB: gpt-oss 13.76 and 65.25, FP8 dynamic 72.7.
    for (name, gb) in [
        ("gpt-oss-20b", 13.76),
        ("gpt-oss-120b", 65.25),
        ("llama-3.3-70b-fp8dyn", 72.66),
        ("phi-4", 29.32),
    ] {
        let model = model(name);
        let formats = Formats::of(&model, None, None);
        let bytes = stage_weights_bytes(&model, &ONE_GPU, &formats, 0, false);
        assert!((bytes / 1e9 / gb - 1.0).abs() < 0.01, "{name}: {bytes}");
    }
}

#[test]
fn local_layers_cache_their_window() {
    let scout = model("llama-4-scout");
    let window = window_cache(&scout).expect("local layers");
    assert_eq!(
        (window.tokens, window.layers, window.full_layers),
        (8192, 36, 12)
    );
    assert_eq!(kv_bytes_per_token(&scout, DType::Bfloat16), 48.0 * 4096.0);
    assert_eq!(window.share(), 0.75);
    let mistral = window_cache(&model("mistral-7b-v0.1")).expect("local layers");
    assert_eq!((mistral.full_layers, mistral.share()), (0, 1.0));
}

fn cost(model: &ModelSpec, device: &str, backend: BackendKind) -> GraphCost {
    let device = Catalog::builtin().device(device).expect("known");
    let formats = Formats::of(model, None, None);
    let links = LinkOverrides::default();
    GraphCost::new(model, &device, backend, None, ONE_GPU, formats, 8, &links).expect("priced")
}

fn decode(context: u64) -> StepShape {
    StepShape {
        decode_requests: 8,
        decode_context_tokens: 8 * context,
        sampled_tokens: 8,
        ..StepShape::default()
    }
}

fn prefill(new_tokens: u32) -> StepShape {
    StepShape {
        prefills: vec![PrefillChunk {
            new_tokens,
            context_tokens: 0,
        }],
        sampled_tokens: 1,
        ..StepShape::default()
    }
}

fn attention_s(rows: &[PricedOperator], name: &str) -> f64 {
    let of_name = rows.iter().filter(|row| row.name == name);
    of_name.map(|row| row.time_s).sum()
}

#[test]
fn attention_within_a_window_stops_growing() {
    let mistral = model("mistral-7b-v0.1");
    let full = ModelSpec {
        local_attention: None,
        ..mistral.clone()
    };
    for backend in [BackendKind::Roofline, BackendKind::Silicon] {
        let (windowed, full) = (
            cost(&mistral, "h100", backend),
            cost(&full, "h100", backend),
        );
        let time_s = |cost: &GraphCost, shape| cost.stage_time(0, &shape).model_s;
        // Within the window the two are one; beyond it decodes cost the same.
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3;
        assert!(close(
            time_s(&windowed, decode(2000)),
            time_s(&full, decode(2000))
        ));
        let beyond = time_s(&windowed, decode(30_000));
        assert!(
            close(beyond, time_s(&windowed, decode(5000))),
            "{backend:?}"
        );
        assert!(time_s(&full, decode(30_000)) > 1.5 * beyond);
        // Prompts grow with their length instead of its square.
        let rows = |cost: &GraphCost, tokens| cost.explain(&prefill(tokens));
        let name = "local_attention";
        let twice = attention_s(&rows(&windowed, 32_768), name)
            / attention_s(&rows(&windowed, 16_384), name);
        assert!((1.9..2.6).contains(&twice), "{backend:?} {twice}");
        let four_times = attention_s(&rows(&full, 32_768), "attention")
            / attention_s(&rows(&full, 16_384), "attention");
        assert!(four_times > 3.4, "{backend:?} {four_times}");
    }
    // Measured attention is full: what stands in for it is said.
    let rows = cost(&mistral, "h100", BackendKind::Silicon).explain(&prefill(16_384));
    let local = rows
        .iter()
        .find(|row| row.name == "local_attention")
        .unwrap();
    let Provenance::Substituted { from } = &local.provenance else {
        panic!("{:?}", local.provenance);
    };
    assert!(from.contains("pairs within 4096 tokens"), "{from}");
}

#[test]
fn every_checkpoint_is_priced_and_steps_are_what_explain_says() {
    for (name, _) in PARAMETERS {
        let model = model(name);
        for backend in [BackendKind::Roofline, BackendKind::Silicon] {
            let cost = cost(&model, "b200", backend);
            for shape in [decode(1000), decode(20_000), prefill(3000)] {
                let step_s = cost.stage_time(0, &shape).model_s;
                let rows = cost.explain(&shape);
                let sum_s: f64 = rows.iter().map(|row| row.time_s).sum();
                assert!(
                    (step_s / sum_s - 1.0).abs() < 5e-3,
                    "{name} {backend:?}: {step_s} {sum_s}"
                );
            }
        }
    }
}

#[test]
fn mixed_layers_are_priced_by_their_number() {
    let rows = cost(&model("gpt-oss-20b"), "h100", BackendKind::Roofline).explain(&decode(9000));
    let count = |name: &str| -> f64 {
        let of_name = rows.iter().filter(|row| row.name == name);
        of_name.map(|row| row.count).sum()
    };
    assert_eq!((count("attention"), count("local_attention")), (12.0, 12.0));
    assert_eq!(count("qkv_gemm"), 24.0);
    assert!(attention_s(&rows, "attention") > 1.5 * attention_s(&rows, "local_attention"));
}

#[test]
fn what_cannot_be_read_says_what_to_write() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("config.json");
    let base = std::fs::read_to_string(self::folder("mistral-7b-v0.1").join("config.json"));
    let base = base.expect("fixture");
    for (from, to, expected) in [
        (
            "\"MistralForCausalLM\"",
            "\"MambaForCausalLM\"",
            "value `MambaForCausalLM` is not supported; supported: LlamaForCausalLM",
        ),
        (
            "\"MistralForCausalLM\"",
            "\"MambaForCausalLM\"",
            "a model YAML can: docs/models-and-devices.md",
        ),
        (
            "\"vocab_size\": 32000",
            "\"vocab_size\": 32000, \"quantization_config\": {\"quant_method\": \"hqq\"}",
            "value `hqq` is not supported; supported: fp8, ",
        ),
        (
            "\"vocab_size\": 32000",
            "\"vocab_size\": 32000, \"quantization_config\": {\"quant_method\": \"hqq\"}",
            "take the key away and give `dtype` in the spec",
        ),
        (
            "\"vocab_size\": 32000",
            "\"vocab_size\": 32000, \"layer_types\": [\"full_attention\"]",
            "1 types for 32 layers",
        ),
        (
            "\"num_hidden_layers\": 32",
            "\"num_hidden_layers\": 2147483648",
            "value `2147483648` is not allowed; allowed: a whole number from 1 to 10000",
        ),
        (
            "\"hidden_size\": 4096",
            "\"hidden_size\": 4294967295",
            "allowed: a whole number from 1 to 1048576",
        ),
    ] {
        let text = base.replace(from, to);
        assert_ne!(text, base, "{from}");
        std::fs::write(&path, text).expect("write");
        let read = Catalog::builtin().model(path.to_str().expect("UTF-8"));
        let message = read.expect_err(to).to_string();
        assert!(message.contains(expected), "{message}");
    }
}
