//! Reads a Hugging Face `config.json` into a [`ModelSpec`].
//!
//! JSON is YAML, so the same reader gives positions for errors. Of a model of several
//! modalities the language model is read (`text_config`). Only architectures whose
//! every layer a [`ModelSpec`] can represent are accepted; anything that would be
//! misrepresented is an error that says what to write instead. [`family`] knows the
//! architectures, [`layers`] which layers look how far back and have experts,
//! [`positions`] the longest sequence, [`formats`] the weights' formats.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Attention, ClassFormats, LinearAttention, ModelSpec, Moe};
use crate::units::DType;
use crate::yaml::{Document, YamlError, from_document};

mod family;
mod formats;
mod layers;
mod positions;
mod vision;

use family::Family;
use positions::max_position_tokens;

/// The keys read; everything else in the file is ignored.
#[derive(Debug, Deserialize)]
struct Config {
    num_hidden_layers: u32,
    hidden_size: u32,
    vocab_size: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    intermediate_size: Option<u32>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    qkv_bias: Option<bool>,
    #[serde(default)]
    bias: bool,
    use_qk_norm: Option<bool>,
    // How far back layers look.
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u32>,
    sliding_window_pattern: Option<u32>,
    attention_chunk_size: Option<u32>,
    no_rope_layers: Option<Vec<u32>>,
    no_rope_layer_interval: Option<u32>,
    layer_types: Option<Vec<String>>,
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
    intermediate_size_mlp: Option<u32>,
    interleave_moe_layer_step: Option<u32>,
    moe_layers: Option<Vec<u32>>,
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

/// Whether the document is a Hugging Face config rather than a model YAML.
pub(super) fn is_config(document: &Document) -> bool {
    document.get("architectures").is_some() || document.get("model_type").is_some()
}

/// Reads the config.
pub(super) fn read(document: &Document) -> Result<ModelSpec, YamlError> {
    // Before the rest: other architectures lack keys that are read here.
    let (family, text) = Family::of(document)?;
    let config: Config = from_document(&text)?;
    let reader = Reader {
        whole: document,
        document: &text,
        config,
        family,
    };
    let mut model = reader.model()?;
    formats::apply(document, &mut model)?;
    Ok(model)
}

struct Reader<'a> {
    /// The file.
    whole: &'a Document,
    /// The part about the language model.
    document: &'a Document,
    config: Config,
    family: Family,
}

impl Reader<'_> {
    fn model(&self) -> Result<ModelSpec, YamlError> {
        let config = &self.config;
        let family = self.family;
        let dtype = self.plain_dtype()?;
        let is_phi = family == Family::Phi;
        let vision_parameters = vision::parameters(self.whole, config.hidden_size);
        let part = match (self.whole.get("text_config"), vision_parameters) {
            (Some(_), None) => ", language model only",
            (Some(_), Some(_)) => ", with its vision tower",
            (None, _) => "",
        };
        let file = self.file_name();
        Ok(ModelSpec {
            name: self.name(),
            aliases: Vec::new(),
            source: format!("{file} ({}{part})", family.name()),
            layers: config.num_hidden_layers,
            hidden_size: config.hidden_size,
            vocab_size: config.vocab_size,
            max_position_tokens: self.needed(
                "max_position_embeddings",
                max_position_tokens(self.document)?,
            )?,
            attention: self.attention()?,
            linear_attention: self.linear_attention()?,
            local_attention: layers::local_attention(self)?,
            intermediate_size: self.intermediate_size()?,
            gated_mlp: !is_phi,
            moe: self.moe()?,
            norms_per_layer: family.norms_per_layer(),
            layer_norm_bias: is_phi,
            projection_bias: is_phi,
            tie_word_embeddings: (config.tie_word_embeddings)
                .or(self.flag_of_whole("tie_word_embeddings"))
                .unwrap_or(family.ties_embeddings()),
            mtp_layers: config.num_nextn_predict_layers.unwrap_or(0),
            vision_parameters: vision_parameters.unwrap_or(0.0),
            dtype,
            dtype_of: ClassFormats::NONE,
            kv_cache_dtype: dtype,
            published_parameters_b: 0.0,
        })
    }

    fn flag_of_whole(&self, key: &str) -> Option<bool> {
        self.whole.get(key).and_then(Value::as_bool)
    }

    /// The file's name, wherever it lies.
    fn file_name(&self) -> String {
        let name = self.document.file.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The folder's name (`.../Qwen3-8B/config.json`), else the file's; the same
    /// whichever way the path is written.
    fn name(&self) -> String {
        let file = self.document.file.as_path();
        let is_plain = file.file_name().is_some_and(|name| name == "config.json");
        // Of the file itself no link is followed: a download cache keeps contents
        // under their hashes.
        let beside = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = beside
            .canonicalize()
            .or_else(|_| std::path::absolute(beside))
            .unwrap_or_else(|_| beside.to_path_buf());
        let folder = folder.file_name().filter(|_| is_plain);
        let name = folder.or(file.file_stem());
        name.map_or_else(
            || self.family.name().to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, YamlError> {
        value.ok_or_else(|| {
            let architecture = self.family.name();
            let message = format!("missing key `{key}`, which {architecture} needs");
            self.document.error("", message)
        })
    }

    /// Format of what is not quantised.
    fn plain_dtype(&self) -> Result<DType, YamlError> {
        let places = [self.document, self.whole]
            .into_iter()
            .flat_map(|document| ["dtype", "torch_dtype"].map(|key| (document, key)));
        let given = places
            .filter_map(|(document, key)| Some((document, key, document.get(key)?.as_str()?)))
            .next();
        let Some((document, key, name)) = given else {
            return Ok(DType::Bfloat16);
        };
        match name.strip_prefix("torch.").unwrap_or(name) {
            "bfloat16" | "auto" => Ok(DType::Bfloat16),
            "float16" | "half" => Ok(DType::Float16),
            "float32" | "float" => Ok(DType::Float32),
            other => Err(document.error(
                key,
                format!(
                    "key `{key}`: value `{other}` is not allowed; allowed: bfloat16, float16, \
                     float32"
                ),
            )),
        }
    }

    fn intermediate_size(&self) -> Result<u32, YamlError> {
        // Llama 4 keeps the experts' size where others have the dense MLP's.
        if let (Family::Llama4, Some(size)) = (self.family, self.config.intermediate_size_mlp) {
            return Ok(size);
        }
        let size = self.needed("intermediate_size", self.config.intermediate_size)?;
        // Qwen (the first) gives the width of gate and up together.
        let together = self.family == Family::Qwen;
        Ok(if together { size / 2 } else { size })
    }

    fn attention(&self) -> Result<Attention, YamlError> {
        let config = &self.config;
        let heads = config.num_attention_heads;
        if self.family.has_latent_attention() {
            return Ok(Attention::Mla {
                heads,
                // Null where queries are projected at once.
                q_lora_rank: config.q_lora_rank.unwrap_or(0),
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
        let family = self.family;
        let is_gpt_oss = family == Family::GptOss;
        let attention_bias = config.attention_bias.unwrap_or(is_gpt_oss);
        let always_biased = matches!(family, Family::Qwen2 | Family::Qwen2Moe | Family::Qwen);
        Ok(Attention::Gqa {
            heads,
            kv_heads: config.num_key_value_heads.unwrap_or(heads),
            head_dim: config.head_dim.unwrap_or(config.hidden_size / heads),
            qk_norm: family.has_qk_norm()
                || (family == Family::Glm4Moe && config.use_qk_norm == Some(true)),
            qkv_bias: attention_bias || config.bias || config.qkv_bias.unwrap_or(always_biased),
            output_gate: family == Family::Qwen3Next,
            // The GLM family has none there, whatever `attention_bias`.
            output_bias: config.bias
                || (attention_bias
                    && matches!(family, Family::GptOss | Family::Llama | Family::Qwen3)),
            sinks: is_gpt_oss,
        })
    }

    fn linear_attention(&self) -> Result<Option<LinearAttention>, YamlError> {
        let config = &self.config;
        if self.family != Family::Qwen3Next {
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
        if !self.family.has_experts() {
            return Ok(None);
        }
        let own_intermediate_size = matches!(
            self.family,
            Family::Mixtral | Family::GptOss | Family::Llama4
        );
        let intermediate_size = match config.moe_intermediate_size {
            Some(size) => size,
            // Those have no dense MLP of that size and keep the expert's there.
            None if own_intermediate_size => {
                self.needed("intermediate_size", config.intermediate_size)?
            }
            None => self.needed("moe_intermediate_size", None)?,
        };
        let shared = match self.family {
            Family::Llama4 => intermediate_size,
            _ => config.shared_expert_intermediate_size.unwrap_or(
                (config.n_shared_experts.unwrap_or(0)).saturating_mul(intermediate_size),
            ),
        };
        let experts = config
            .num_experts
            .or(config.num_local_experts)
            .or(config.n_routed_experts);
        let dense = layers::dense_layers(self)?;
        Ok(Some(Moe {
            experts: self.needed("num_experts", experts)?,
            experts_per_token: self.needed("num_experts_per_tok", config.num_experts_per_tok)?,
            intermediate_size,
            shared_intermediate_size: shared,
            shared_expert_gate: matches!(self.family, Family::Qwen3Next | Family::Qwen2Moe),
            first_dense_layers: dense.first,
            layer_interval: dense.interval,
            dense_layers: dense.others,
            bias: self.family == Family::GptOss,
            expert_groups: config.n_group.unwrap_or(1),
            groups_per_token: config.topk_group.unwrap_or(1),
        }))
    }
}
