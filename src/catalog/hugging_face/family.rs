//! Families of architectures: which names they go by, and the figures that their
//! configuration classes take where a `config.json` leaves them out (transformers
//! 5.24, `models/*/configuration_*.py`).

use serde_json::Value;

use crate::spelling::did_you_mean;
use crate::yaml::{Document, YamlError};

/// What a checkpoint's layers are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    ChatGlm,
    DeepseekV2,
    DeepseekV3,
    Gemma2,
    Gemma3,
    Glm,
    Glm4,
    Glm4Moe,
    GptOss,
    InternLm,
    Llama,
    Llama4,
    Mistral,
    Mixtral,
    Phi,
    Phi3,
    Qwen,
    Qwen2,
    Qwen2Moe,
    Qwen3,
    Qwen3Moe,
    Qwen3Next,
}

/// Name in `architectures`, `model_type`, family.
const NAMES: [(&str, &str, Family); 26] = [
    ("LlamaForCausalLM", "llama", Family::Llama),
    ("MistralForCausalLM", "mistral", Family::Mistral),
    ("MixtralForCausalLM", "mixtral", Family::Mixtral),
    ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
    ("Qwen2MoeForCausalLM", "qwen2_moe", Family::Qwen2Moe),
    ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
    ("Qwen3MoeForCausalLM", "qwen3_moe", Family::Qwen3Moe),
    ("Qwen3NextForCausalLM", "qwen3_next", Family::Qwen3Next),
    ("DeepseekV2ForCausalLM", "deepseek_v2", Family::DeepseekV2),
    ("DeepseekV3ForCausalLM", "deepseek_v3", Family::DeepseekV3),
    ("DeepseekV3ForCausalLM", "kimi_k2", Family::DeepseekV3),
    ("InternLMForCausalLM", "internlm", Family::InternLm),
    ("InternLM2ForCausalLM", "internlm2", Family::InternLm),
    ("QWenLMHeadModel", "qwen", Family::Qwen),
    ("PhiForCausalLM", "phi", Family::Phi),
    ("Phi3ForCausalLM", "phi3", Family::Phi3),
    ("Llama4ForCausalLM", "llama4_text", Family::Llama4),
    ("Llama4ForConditionalGeneration", "llama4", Family::Llama4),
    ("GptOssForCausalLM", "gpt_oss", Family::GptOss),
    ("Gemma2ForCausalLM", "gemma2", Family::Gemma2),
    ("Gemma3ForCausalLM", "gemma3_text", Family::Gemma3),
    ("Gemma3ForConditionalGeneration", "gemma3", Family::Gemma3),
    ("GlmForCausalLM", "glm", Family::Glm),
    ("Glm4ForCausalLM", "glm4", Family::Glm4),
    ("Glm4MoeForCausalLM", "glm4_moe", Family::Glm4Moe),
    ("ChatGLMModel", "chatglm", Family::ChatGlm),
];

/// Figures a configuration class takes where the file says nothing.
type Defaults = &'static [(&'static str, u32)];

impl Family {
    /// The family of the config, and the part of it that describes the language
    /// model, complete with its family's defaults.
    pub(super) fn of(document: &Document) -> Result<(Self, Document), YamlError> {
        let text = document.within("text_config");
        let family = Self::named(document)
            .or_else(|| text.as_ref().and_then(Self::named))
            .ok_or_else(|| unsupported(document))?;
        let mut text = text.unwrap_or_else(|| document.clone());
        if let Value::Object(map) = &mut text.value {
            for (theirs, ours) in family.other_keys() {
                if let Some(value) = map.get(*theirs).cloned() {
                    map.entry(*ours).or_insert(value);
                }
            }
            for (key, value) in family.defaults() {
                map.entry(*key).or_insert_with(|| Value::from(*value));
            }
        }
        Ok((family, text))
    }

    /// By its architecture, else by its model type.
    fn named(config: &Document) -> Option<Self> {
        let architecture = config.get("architectures[0]").and_then(Value::as_str);
        let model_type = config.get("model_type").and_then(Value::as_str);
        let by = |is: &dyn Fn(&(&str, &str, Self)) -> bool| {
            NAMES.iter().find(|entry| is(entry)).map(|entry| entry.2)
        };
        match (architecture, model_type) {
            (Some(name), _) if by(&|entry| entry.0 == name).is_some() => {
                by(&|entry| entry.0 == name)
            }
            // A wrapper of something else, which its text part may name.
            (Some(_), _) => None,
            (None, Some(name)) => by(&|entry| entry.1 == name),
            (None, None) => None,
        }
    }

    /// A name of the architecture, for messages.
    pub(super) fn name(self) -> &'static str {
        let entry = NAMES.iter().find(|entry| entry.2 == self);
        entry.map_or("this architecture", |entry| entry.0)
    }

    /// Keys of files older than the usual names: theirs, and the usual one.
    fn other_keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::ChatGlm => &[
                ("num_layers", "num_hidden_layers"),
                ("padded_vocab_size", "vocab_size"),
                ("ffn_hidden_size", "intermediate_size"),
                ("kv_channels", "head_dim"),
                ("multi_query_group_num", "num_key_value_heads"),
                ("add_qkv_bias", "qkv_bias"),
            ],
            _ => &[],
        }
    }

    fn defaults(self) -> Defaults {
        match self {
            Self::Llama4 => &[
                ("vocab_size", 202_048),
                ("hidden_size", 5120),
                ("intermediate_size", 8192),
                ("intermediate_size_mlp", 16_384),
                ("num_hidden_layers", 48),
                ("num_attention_heads", 40),
                ("num_key_value_heads", 8),
                ("head_dim", 128),
                ("max_position_embeddings", 131_072),
                ("num_experts_per_tok", 1),
                ("num_local_experts", 16),
                ("interleave_moe_layer_step", 1),
                ("no_rope_layer_interval", 4),
                ("attention_chunk_size", 8192),
            ],
            Self::GptOss => &[
                ("vocab_size", 201_088),
                ("hidden_size", 2880),
                ("intermediate_size", 2880),
                ("num_hidden_layers", 36),
                ("num_attention_heads", 64),
                ("num_key_value_heads", 8),
                ("head_dim", 64),
                ("max_position_embeddings", 131_072),
                ("num_experts_per_tok", 4),
                ("num_local_experts", 128),
                ("sliding_window", 128),
            ],
            Self::Gemma2 => &[
                ("vocab_size", 256_000),
                ("hidden_size", 2304),
                ("intermediate_size", 9216),
                ("num_hidden_layers", 26),
                ("num_attention_heads", 8),
                ("num_key_value_heads", 4),
                ("head_dim", 256),
                ("max_position_embeddings", 8192),
                ("sliding_window", 4096),
            ],
            Self::Gemma3 => &[
                ("vocab_size", 262_208),
                ("hidden_size", 2304),
                ("intermediate_size", 9216),
                ("num_hidden_layers", 26),
                ("num_attention_heads", 8),
                ("num_key_value_heads", 4),
                ("head_dim", 256),
                ("max_position_embeddings", 131_072),
                ("sliding_window", 4096),
            ],
            _ => &[],
        }
    }

    pub(super) fn has_latent_attention(self) -> bool {
        matches!(self, Self::DeepseekV2 | Self::DeepseekV3)
    }

    pub(super) fn has_experts(self) -> bool {
        matches!(
            self,
            Self::Mixtral
                | Self::Qwen2Moe
                | Self::Qwen3Moe
                | Self::Qwen3Next
                | Self::DeepseekV2
                | Self::DeepseekV3
                | Self::Llama4
                | Self::GptOss
                | Self::Glm4Moe
        )
    }

    /// Norms of a layer on the residual stream and on what is added to it.
    pub(super) fn norms_per_layer(self) -> u32 {
        match self {
            Self::Phi => 1,
            Self::Gemma2 | Self::Gemma3 | Self::Glm4 => 4,
            _ => 2,
        }
    }

    /// Whether queries and keys are normalised with learned weights.
    pub(super) fn has_qk_norm(self) -> bool {
        matches!(
            self,
            Self::Qwen3 | Self::Qwen3Moe | Self::Qwen3Next | Self::Gemma3
        )
    }

    /// Whether embedding and LM head are one matrix where the file says nothing.
    pub(super) fn ties_embeddings(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

fn unsupported(document: &Document) -> YamlError {
    let mut known: Vec<&str> = NAMES.iter().map(|entry| entry.0).collect();
    known.dedup();
    let instead = "what it cannot say a model YAML can: docs/models-and-devices.md";
    let (path, name) = match document.get("architectures[0]").and_then(Value::as_str) {
        Some(name) => ("architectures", name),
        None => {
            let name = document.get("model_type").and_then(Value::as_str);
            ("model_type", name.unwrap_or_default())
        }
    };
    if document.get(path).is_none() {
        return document.error(
            "",
            format!(
                "no key `architectures`; supported: {}; {instead}",
                known.join(", ")
            ),
        );
    }
    document.error(
        path,
        format!(
            "key `{path}`: value `{name}` is not supported; supported: {}; {instead}{}",
            known.join(", "),
            did_you_mean(name, known.iter().copied())
        ),
    )
}
