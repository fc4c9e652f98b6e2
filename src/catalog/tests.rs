//! The embedded catalog, lookup, and files given by the user.

use std::collections::BTreeSet;

use super::*;
use crate::units::DType;

fn files_of(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(folder);
    std::fs::read_dir(&path)
        .expect("data folder")
        .map(|entry| {
            let name = entry.expect("entry").file_name();
            format!("data/{folder}/{}", name.to_string_lossy())
        })
        .collect()
}

#[test]
fn every_data_file_is_embedded() {
    for (folder, files) in [
        ("models", embedded::MODELS),
        ("devices", embedded::DEVICES),
        ("engines", embedded::ENGINES),
    ] {
        let listed: BTreeSet<_> = files.iter().map(|(file, _)| (*file).to_owned()).collect();
        assert_eq!(listed, files_of(folder));
    }
}

#[test]
fn alike_layers_are_alike_and_all_there() {
    let catalog = Catalog::load_embedded().expect("valid");
    for model in catalog.models() {
        let name = &model.name;
        let kind = |layer| {
            let attention = (
                model.is_full_attention_layer(layer),
                model.is_local_attention_layer(layer),
            );
            (attention, model.is_moe_layer(layer))
        };
        for range in [0..model.layers, 1..model.layers.min(3), 2..2] {
            let runs: Vec<_> = model.alike_layers(range.clone()).collect();
            let all: Vec<u32> = runs.iter().cloned().flatten().collect();
            assert_eq!(all, range.collect::<Vec<_>>(), "{name}");
            for run in &runs {
                let mut inside = run.clone();
                assert!(inside.all(|layer| kind(layer) == kind(run.start)), "{name}");
            }
            let borders = runs.windows(2).map(|pair| (pair[0].start, pair[1].start));
            for (before, after) in borders {
                assert_ne!(kind(before), kind(after), "{name}");
            }
        }
    }
}

#[test]
fn embedded_files_are_valid_and_names_unique() {
    let catalog = Catalog::load_embedded().expect("valid");
    let spellings = |name: &str, aliases: &[String]| -> Vec<String> {
        std::iter::once(name.to_owned())
            .chain(aliases.iter().cloned())
            .map(|s| s.to_lowercase())
            .collect()
    };
    let mut seen = BTreeSet::new();
    let models = catalog
        .models()
        .iter()
        .map(|m| spellings(&m.name, &m.aliases));
    let devices = catalog
        .devices()
        .iter()
        .map(|d| spellings(&d.name, &d.aliases));
    for word in models.chain(devices).flatten() {
        assert!(seen.insert(word.clone()), "`{word}` is used twice");
    }
    for device in catalog.devices() {
        assert!(!device.sources.is_empty(), "{}", device.name);
        if let Some(other) = &device.kernels_of {
            catalog.device(other).expect("kernels_of names a device");
        }
    }
}

#[test]
fn names_and_aliases_ignore_case() {
    let catalog = Catalog::builtin();
    for name in [
        "deepseek-671B",
        "DEEPSEEK-671b",
        "deepseek-ai/DeepSeek-V3",
        "DeepSeek-V3-671B",
    ] {
        assert_eq!(catalog.model(name).expect(name).name, "deepseek-671B");
    }
    assert_eq!(catalog.device("H200_SXM").expect("alias").name, "h200");
}

#[test]
fn unknown_names_list_and_suggest() {
    let message = Catalog::builtin()
        .model("qwen3-next-80")
        .expect_err("unknown")
        .to_string();
    assert!(message.starts_with("unknown model `qwen3-next-80`; known: "));
    assert!(
        message.ends_with("did you mean `qwen3-next-80B`?"),
        "{message}"
    );
    let message = Catalog::builtin()
        .device("h20o")
        .expect_err("unknown")
        .to_string();
    assert_eq!(
        message,
        "unknown device `h20o`; known: a40, a100, b200, gb200, h20, h100, h200, h800, l40s, \
         or the path of a device YAML; did you mean `h20`?"
    );
}

#[test]
fn newest_engine_version_is_the_default() {
    let catalog = Catalog::builtin();
    let version = |name| catalog.engine(name, None).expect("known").version;
    assert_eq!(version("vllm"), "0.24.0");
    assert_eq!(version("SGLang"), "0.5.14");
    assert_eq!(version("trtllm"), "1.3.0rc20");
    assert!(version_key("1.3.0rc20") < version_key("1.3.0"));
    let older = catalog.engine("sglang", Some("0.5.10")).expect("known");
    assert_eq!(older.version, "0.5.10");
    assert_eq!(
        catalog
            .engine("vllm", Some("0.23"))
            .expect_err("unknown")
            .to_string(),
        "unknown engine version `vllm 0.23`; known: vllm 0.24.0; did you mean `vllm 0.24.0`?"
    );
    assert_eq!(
        catalog
            .engine("vlm", None)
            .expect_err("unknown")
            .to_string(),
        "unknown engine `vlm`; known: sglang, trtllm, vllm, or the path of an engine YAML; did you \
         mean `vllm`?"
    );
}

fn config(text: &str) -> Result<ModelSpec, YamlError> {
    let document = yaml::parse(text, Path::new("models/My-Model/config.json"))?;
    assert!(hugging_face::is_config(&document));
    checked(&document, hugging_face::read(&document)?)
}

/// What must agree between a model file and the published config.
fn architecture(model: &ModelSpec) -> ModelSpec {
    ModelSpec {
        name: String::new(),
        aliases: Vec::new(),
        source: String::new(),
        kv_cache_dtype: DType::Bfloat16,
        mtp_layers: 0,
        published_parameters_b: 0.0,
        ..model.clone()
    }
}

#[test]
fn hugging_face_configs_agree_with_the_catalog() {
    // The keys of the published configs that matter, in the published order.
    let cases = [
        (
            "meta-llama/Meta-Llama-3.1-8B",
            r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
                "hidden_size": 4096, "intermediate_size": 14336,
                "max_position_embeddings": 131072, "num_attention_heads": 32,
                "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
                "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256}"#,
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            r#"{"architectures": ["DeepseekV3ForCausalLM"], "first_k_dense_replace": 3,
                "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
                "max_position_embeddings": 163840, "moe_intermediate_size": 2048,
                "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256,
                "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8,
                "num_hidden_layers": 61, "num_key_value_heads": 128,
                "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
                "qk_rope_head_dim": 64, "quantization_config": {"quant_method": "fp8",
                "weight_block_size": [128, 128]}, "tie_word_embeddings": false, "topk_group": 4,
                "torch_dtype": "bfloat16", "v_head_dim": 128, "vocab_size": 129280}"#,
        ),
        (
            "Qwen/Qwen3-235B-A22B",
            r#"{"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false,
                "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 4096,
                "intermediate_size": 12288, "max_position_embeddings": 40960,
                "mlp_only_layers": [], "moe_intermediate_size": 1536,
                "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8,
                "num_hidden_layers": 94, "num_key_value_heads": 4, "sliding_window": null,
                "tie_word_embeddings": false, "torch_dtype": "bfloat16",
                "use_sliding_window": false, "vocab_size": 151936}"#,
        ),
        (
            "qwen3-next-80B",
            r#"{"architectures": ["Qwen3NextForCausalLM"], "dtype": "bfloat16",
                "full_attention_interval": 4, "head_dim": 256, "hidden_size": 2048,
                "intermediate_size": 5120, "linear_conv_kernel_dim": 4,
                "linear_key_head_dim": 128, "linear_num_key_heads": 16,
                "linear_num_value_heads": 32, "linear_value_head_dim": 128,
                "max_position_embeddings": 262144, "moe_intermediate_size": 512,
                "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10,
                "num_hidden_layers": 48, "num_key_value_heads": 2,
                "shared_expert_intermediate_size": 512, "vocab_size": 151936}"#,
        ),
        (
            "Qwen/Qwen-72B",
            r#"{"architectures": ["QWenLMHeadModel"], "hidden_size": 8192,
                "intermediate_size": 49152, "kv_channels": 128,
                "max_position_embeddings": 32768, "no_bias": true, "num_attention_heads": 64,
                "num_hidden_layers": 80, "seq_length": 32768, "tie_word_embeddings": false,
                "torch_dtype": "bfloat16", "vocab_size": 152064}"#,
        ),
        (
            "microsoft/phi-2",
            r#"{"architectures": ["PhiForCausalLM"], "hidden_size": 2560,
                "intermediate_size": 10240, "max_position_embeddings": 2048,
                "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 32, "tie_word_embeddings": false,
                "torch_dtype": "float16", "vocab_size": 51200}"#,
        ),
        (
            "internlm/internlm2-20b",
            r#"{"architectures": ["InternLM2ForCausalLM"], "bias": false,
                "hidden_size": 6144, "intermediate_size": 16384,
                "max_position_embeddings": 32768, "num_attention_heads": 48,
                "num_hidden_layers": 48, "num_key_value_heads": 8,
                "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 92544}"#,
        ),
    ];
    for (name, text) in cases {
        let read = config(text).expect(name);
        assert_eq!(read.name, "My-Model");
        let known = Catalog::builtin().model(name).expect(name);
        assert_eq!(architecture(&read), architecture(&known), "{name}");
    }
}

#[test]
fn unsupported_configs_say_why() {
    let base = r#"{"architectures": ["MixtralForCausalLM"], "hidden_size": 4096,
"intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
"num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
"num_local_experts": 8, "sliding_window": null, "vocab_size": 32000}"#;
    let mixtral = config(base).expect("supported");
    assert_eq!(
        mixtral.moe.as_ref().expect("experts").intermediate_size,
        14336
    );
    let cases = [
        (
            r#""MixtralForCausalLM""#,
            r#""MixtralForCausalML""#,
            ":1:19: key `architectures`: value `MixtralForCausalML` is not supported; supported: LlamaForCausalLM",
        ),
        (
            r#""sliding_window": null"#,
            r#""moe_layer_freq": 2"#,
            ":4:43: key `moe_layer_freq`: experts in every n-th layer from the first on cannot",
        ),
        (
            r#""num_key_value_heads": 8"#,
            r#""num_key_value_heads": 5"#,
            "key `num_key_value_heads`: value `5` is not allowed; allowed: a divisor of heads 32",
        ),
        (
            r#""num_local_experts": 8,"#,
            "",
            "missing key `num_experts`, which MixtralForCausalLM needs",
        ),
        (
            r#""vocab_size": 32000"#,
            r#""vocab_size": 32000, "quantization_config": {"quant_method": "aqlm"}"#,
            "value `aqlm` is not supported; supported: fp8",
        ),
        (
            r#""num_hidden_layers": 32"#,
            r#""num_hidden_layers": 2147483648"#,
            ":3:48: key `num_hidden_layers`: value `2147483648` is not allowed; allowed: a whole \
             number from 1 to 10000",
        ),
        (
            r#""vocab_size": 32000"#,
            r#""vocab_size": "many""#,
            "key `vocab_size`: value `many` is not allowed; expected a whole number",
        ),
    ];
    for (from, to, expected) in cases {
        let message = config(&base.replace(from, to)).expect_err(to).to_string();
        assert!(
            message.starts_with("models/My-Model/config.json"),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn files_of_the_user_are_read_and_checked() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("mine.yaml");
    let h100 = embedded::DEVICES
        .iter()
        .find(|(file, _)| file.ends_with("h100.yaml"))
        .expect("h100")
        .1;
    let named = h100.replace("name: h100", "name: mine");
    std::fs::write(&path, &named).expect("write");
    let name = path.to_str().expect("UTF-8");
    assert_eq!(Catalog::builtin().device(name).expect("valid").name, "mine");

    let broken = named.replace("gpus_per_node: 8", "gpus_per_node: 0");
    std::fs::write(&path, broken).expect("write");
    let message = Catalog::builtin().device(name).expect_err("0").to_string();
    assert!(
        message.ends_with(
            "key `gpus_per_node`: value `0` is not allowed; allowed: a whole number from 1 to 1024"
        ),
        "{message}"
    );
    let typo = named.replace("power_w", "power_W");
    std::fs::write(&path, typo).expect("write");
    let message = Catalog::builtin()
        .device(name)
        .expect_err("typo")
        .to_string();
    assert!(message.ends_with("did you mean `power_w`?"), "{message}");

    let message = Catalog::builtin()
        .model("no/such/model.yaml")
        .expect_err("no file")
        .to_string();
    assert!(message.starts_with("no/such/model.yaml: cannot read the file"));
}
