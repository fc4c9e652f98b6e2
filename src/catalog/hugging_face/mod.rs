//! Reads a Hugging Face `config.json` into a [`ModelSpec`].
//!
//! JSON is YAML, so the same reader gives positions for errors. Only
//! architectures whose every layer a [`ModelSpec`] can represent are accepted;
//! anything that would be misrepresented (sliding windows, sparse MLP patterns,
//! unknown quantisation) is an error rather than an approximation.

use std::path::Path;

use serde::Deserialize;

use super::{Attention, LinearAttention, ModelSpec, Moe};
use crate::spelling::did_you_mean;
use crate::units::DType;
use crate::yaml::{Document, YamlError, from_document};

mod positions;

use positions::max_position_tokens;

/// Architectures understood, as in `architectures`.
const SUPPORTED: [&str; 12] = [
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
    "DeepseekV3ForCausalLM",
    "InternLMForCausalLM",
    "InternLM2ForCausalLM",
    "QWenLMHeadModel",
    "PhiForCausalLM",
];

/// The keys read; everything else in the file is ignored.
#[derive(Debug, Deserialize)]
struct Config {
    architectures: Vec<String>,
    num_hidden_layers: u32,
    hidden_size: u32,
    vocab_size: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    intermediate_size: Option<u32>,
    #[serde(default)]
    tie_word_embeddings: bool,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    quantization_config: Option<Quantization>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    bias: bool,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    // Mixture of experts.
    num_experts: Option<u32>,
    num_local_experts: Option<u32>,
    n_routed_experts: Option<u32>,
    num_experts_per_tok: Option<u32>,
    moe_intermediate_size: Option<u32>,
    shared_expert_intermediate_size: Option<u32>,
    n_shared_experts: Option<u32>,
    first_k_dense_replace: Option<u32>,
    n_group: Option<u32>,
    topk_group: Option<u32>,
    decoder_sparse_step: Option<u32>,
    moe_layer_freq: Option<u32>,
    #[serde(default)]
    mlp_only_layers: Vec<u32>,
    num_nextn_predict_layers: Option<u32>,
    // Multi-head latent attention.
    q_lora_rank: Option<u32>,
    kv_lora_rank: Option<u32>,
    qk_nope_head_dim: Option<u32>,
    qk_rope_head_dim: Option<u32>,
    v_head_dim: Option<u32>,
    // Gated delta net.
    full_attention_interval: Option<u32>,
    linear_num_key_heads: Option<u32>,
    linear_num_value_heads: Option<u32>,
    linear_key_head_dim: Option<u32>,
    linear_value_head_dim: Option<u32>,
    linear_conv_kernel_dim: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Quantization {
    quant_method: String,
    weight_block_size: Option<Vec<u32>>,
    bits: Option<u32>,
}

/// Whether the document is a Hugging Face config rather than a model YAML.
pub(super) fn is_config(document: &Document) -> bool {
    document.get("architectures").is_some() || document.get("model_type").is_some()
}

/// Reads the config.
pub(super) fn read(document: &Document) -> Result<ModelSpec, YamlError> {
    if document.get("architectures").is_none() {
        return Err(document.error(
            "",
            format!(
                "no key `architectures`; supported: {}",
                SUPPORTED.join(", ")
            ),
        ));
    }
    let architecture = document
        .get("architectures[0]")
        .and_then(|name| name.as_str())
        .unwrap_or_default()
        .to_owned();
    // Checked before the rest: other architectures lack keys that are read here.
    if !SUPPORTED.contains(&architecture.as_str()) {
        return Err(document.error(
            "architectures",
            format!(
                "key `architectures`: value `{architecture}` is not supported; supported: {}{}",
                SUPPORTED.join(", "),
                did_you_mean(&architecture, SUPPORTED)
            ),
        ));
    }
    let config: Config = from_document(document)?;
    Reader { document, config }.model()
}

struct Reader<'a> {
    document: &'a Document,
    config: Config,
}

impl Reader<'_> {
    fn architecture(&self) -> &str {
        &self.config.architectures[0]
    }

    fn model(&self) -> Result<ModelSpec, YamlError> {
        self.refuse_what_cannot_be_represented()?;
        let config = &self.config;
        let architecture = self.architecture();
        let is_phi = architecture == "PhiForCausalLM";
        let dtype = self.dtype()?;
        Ok(ModelSpec {
            name: self.name(),
            aliases: Vec::new(),
            source: format!("{} ({architecture})", self.document.file.display()),
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            max_position_tokens: self.needed(
                "max_position_embeddings",
                max_position_tokens(self.document, "", None)?,
            )?,
            attention: self.attention()?,
            linear_attention: self.linear_attention()?,
            intermediate_size: self.intermediate_size()?,
            gated_mlp: !is_phi,
            moe: self.moe()?,
            norms_per_layer: if is_phi { 1 } else { 2 },
            layer_norm_bias: is_phi,
            projection_bias: is_phi,
            tie_word_embeddings: config.tie_word_embeddings,
            mtp_layers: config.num_nextn_predict_layers.unwrap_or(0),
            dtype: dtype.0,
            kv_cache_dtype: dtype.1,
            published_parameters_b: 0.0,
        })
    }

    /// The folder's name (`.../Qwen3-8B/config.json`), else the file's.
    fn name(&self) -> String {
        let file = self.document.file.as_path();
        let is_plain = file.file_name().is_some_and(|name| name == "config.json");
        let folder = file.parent().and_then(Path::file_name);
        let name = folder.filter(|_| is_plain).or(file.file_stem());
        name.map_or_else(
            || self.architecture().to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    fn refuse_what_cannot_be_represented(&self) -> Result<(), YamlError> {
        let config = &self.config;
        let always_windowed = matches!(
            self.architecture(),
            "MistralForCausalLM" | "MixtralForCausalLM"
        );
        let windowed =
            config.use_sliding_window.unwrap_or(always_windowed) && config.sliding_window.is_some();
        let refusals = [
            ("sliding_window", windowed, "sliding-window attention"),
            (
                "decoder_sparse_step",
                config.decoder_sparse_step.is_some_and(|step| step != 1),
                "experts in only some layers",
            ),
            (
                "moe_layer_freq",
                config.moe_layer_freq.is_some_and(|step| step != 1),
                "experts in only some layers",
            ),
            (
                "mlp_only_layers",
                !config.mlp_only_layers.is_empty(),
                "dense MLPs between expert layers",
            ),
        ];
        match refusals.iter().find(|(_, refused, _)| *refused) {
            Some((key, _, what)) => Err(self
                .document
                .error(key, format!("key `{key}`: {what} cannot be represented"))),
            None => Ok(()),
        }
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, YamlError> {
        value.ok_or_else(|| {
            let architecture = self.architecture();
            let message = format!("missing key `{key}`, which {architecture} needs");
            self.document.error("", message)
        })
    }

    /// Formats of weights and KV cache.
    fn dtype(&self) -> Result<(DType, DType), YamlError> {
        let config = &self.config;
        let (key, name) = match (&config.dtype, &config.torch_dtype) {
            (Some(name), _) => ("dtype", name.as_str()),
            (None, Some(name)) => ("torch_dtype", name.as_str()),
            (None, None) => ("torch_dtype", "bfloat16"),
        };
        let plain = match name {
            "bfloat16" => DType::Bfloat16,
            "float16" => DType::Float16,
            "float32" => DType::Float32,
            other => {
                return Err(self.document.error(
                    key,
                    format!("key `{key}`: value `{other}` is not allowed; allowed: bfloat16, float16, float32"),
                ));
            }
        };
        let Some(quantization) = &config.quantization_config else {
            return Ok((plain, plain));
        };
        let blocks = quantization.weight_block_size.is_some();
        match (quantization.quant_method.as_str(), quantization.bits) {
            ("fp8", _) if blocks => Ok((DType::Fp8Block, plain)),
            ("fp8", _) => Ok((DType::Fp8, plain)),
            ("awq" | "gptq", Some(4)) => Ok((DType::Int4, plain)),
            (method, _) => {
                let key = "quantization_config.quant_method";
                Err(self.document.error(
                    key,
                    format!("key `{key}`: value `{method}` is not supported; supported: fp8, awq and gptq of 4 bits"),
                ))
            }
        }
    }

    fn intermediate_size(&self) -> Result<u32, YamlError> {
        let size = self.needed("intermediate_size", self.config.intermediate_size)?;
        // Qwen (the first) gives the width of gate and up together.
        let together = self.architecture() == "QWenLMHeadModel";
        Ok(if together { size / 2 } else { size })
    }

    fn attention(&self) -> Result<Attention, YamlError> {
        let config = &self.config;
        let heads = config.num_attention_heads;
        if self.architecture() == "DeepseekV3ForCausalLM" {
            return Ok(Attention::Mla {
                heads,
                q_lora_rank: self.needed("q_lora_rank", config.q_lora_rank)?,
                kv_lora_rank: self.needed("kv_lora_rank", config.kv_lora_rank)?,
                qk_nope_head_dim: self.needed("qk_nope_head_dim", config.qk_nope_head_dim)?,
                qk_rope_head_dim: self.needed("qk_rope_head_dim", config.qk_rope_head_dim)?,
                v_head_dim: self.needed("v_head_dim", config.v_head_dim)?,
            });
        }
        if heads == 0 {
            return Err(self.document.error(
                "num_attention_heads",
                "key `num_attention_heads`: value `0` is not allowed; allowed: at least 1",
            ));
        }
        let architecture = self.architecture();
        Ok(Attention::Gqa {
            heads,
            kv_heads: config.num_key_value_heads.unwrap_or(heads),
            head_dim: config.head_dim.unwrap_or(config.hidden_size / heads),
            qk_norm: architecture.starts_with("Qwen3"),
            qkv_bias: config.attention_bias
                || config.bias
                || matches!(architecture, "Qwen2ForCausalLM" | "QWenLMHeadModel"),
            output_gate: architecture == "Qwen3NextForCausalLM",
        })
    }

    fn linear_attention(&self) -> Result<Option<LinearAttention>, YamlError> {
        let config = &self.config;
        if self.architecture() != "Qwen3NextForCausalLM" {
            return Ok(None);
        }
        Ok(Some(LinearAttention {
            full_attention_interval: self
                .needed("full_attention_interval", config.full_attention_interval)?,
            key_heads: self.needed("linear_num_key_heads", config.linear_num_key_heads)?,
            value_heads: self.needed("linear_num_value_heads", config.linear_num_value_heads)?,
            key_head_dim: self.needed("linear_key_head_dim", config.linear_key_head_dim)?,
            value_head_dim: self.needed("linear_value_head_dim", config.linear_value_head_dim)?,
            conv_kernel: self.needed("linear_conv_kernel_dim", config.linear_conv_kernel_dim)?,
        }))
    }

    fn moe(&self) -> Result<Option<Moe>, YamlError> {
        let config = &self.config;
        let has_experts = matches!(
            self.architecture(),
            "MixtralForCausalLM"
                | "Qwen3MoeForCausalLM"
                | "Qwen3NextForCausalLM"
                | "DeepseekV3ForCausalLM"
        );
        if !has_experts {
            return Ok(None);
        }
        let intermediate_size = match config.moe_intermediate_size {
            Some(size) => size,
            // Mixtral has no dense MLP and keeps the expert's size there.
            None if self.architecture() == "MixtralForCausalLM" => self.intermediate_size()?,
            None => self.needed("moe_intermediate_size", None)?,
        };
        let shared = config
            .shared_expert_intermediate_size
            .unwrap_or(config.n_shared_experts.unwrap_or(0) * intermediate_size);
        let experts = config
            .num_experts
            .or(config.num_local_experts)
            .or(config.n_routed_experts);
        Ok(Some(Moe {
            experts: self.needed("num_experts", experts)?,
            experts_per_token: self.needed("num_experts_per_tok", config.num_experts_per_tok)?,
            intermediate_size,
            shared_intermediate_size: shared,
            shared_expert_gate: self.architecture() == "Qwen3NextForCausalLM",
            first_dense_layers: config.first_k_dense_replace.unwrap_or(0),
            expert_groups: config.n_group.unwrap_or(1),
            groups_per_token: config.topk_group.unwrap_or(1),
        }))
    }
}
