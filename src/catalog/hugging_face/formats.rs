//! The formats of a checkpoint's weights, as its quantisation describes them:
//! which format, and which weights are left out of it.
//!
//! Understood: `fp8`, `fbgemm_fp8`, `mxfp4`, `awq`, `gptq`, `compressed-tensors` and
//! `modelopt` in `quantization_config`, and ModelOpt's `hf_quant_config.json` beside
//! the config.

use regex_lite::{Regex, escape};
use serde_json::Value;

use crate::catalog::{Attention, ModelSpec, WeightClass};
use crate::units::DType;
use crate::yaml::{self, Document, YamlError, child_path};

/// Keys of the config that hold a quantisation.
const KEYS: [&str; 3] = [
    "quantization_config",
    "compression_config",
    "text_config.quantization_config",
];
/// ModelOpt's own file.
const MODELOPT_FILE: &str = "hf_quant_config.json";
/// Lists of weights that are left out, by who wrote the file.
const EXCEPTIONS: [&str; 4] = [
    "ignore",
    "modules_to_not_convert",
    "exclude_modules",
    "ignored_layers",
];
/// More exceptions than any checkpoint lists; bounds what a broken file asks for.
const EXCEPTIONS_MAX: usize = 20_000;
const SUPPORTED: &str = "fp8, fbgemm_fp8, mxfp4, awq and gptq of 4 or 8 bits, \
     compressed-tensors, modelopt; or take the key away and give `dtype` in the spec";

/// Sets the formats of `model`, whose 16-bit one it has, to the quantised ones, if
/// the config says that there are any.
pub(super) fn apply(config: &Document, model: &mut ModelSpec) -> Result<(), YamlError> {
    let given = |key: &&&str| config.get(key).is_some_and(Value::is_object);
    if let Some(key) = KEYS.iter().find(given) {
        return apply_from(config, key, model);
    }
    let beside = config.file.with_file_name(MODELOPT_FILE);
    let is_plain = (config.file.file_name()).is_some_and(|name| name == "config.json");
    if is_plain && beside.is_file() {
        let document = yaml::read(&beside)?;
        return apply_from(&document, "quantization", model);
    }
    Ok(())
}

fn apply_from(document: &Document, key: &str, model: &mut ModelSpec) -> Result<(), YamlError> {
    let plain = model.dtype;
    let quantisation = Quantisation::read(document, key)?;
    let classes = classes_of(model);
    let mut formats = Vec::new();
    for (class, layers) in classes {
        formats.push((class, quantisation.format(class, &layers).unwrap_or(plain)));
    }
    // Most weights are in the experts, or else in the dense MLPs: the last classes.
    let own = formats.iter().rev().map(|(_, dtype)| *dtype);
    model.dtype = own.clone().find(|dtype| *dtype != plain).unwrap_or(plain);
    for (class, dtype) in formats {
        if dtype != model.dtype {
            model.dtype_of.set(class, dtype);
        }
    }
    if let Some(kv_cache) = quantisation.kv_cache {
        model.kv_cache_dtype = kv_cache;
    }
    Ok(())
}

/// Classes of weights that `model` has, and the layers that have them; the largest
/// class last.
fn classes_of(model: &ModelSpec) -> Vec<(WeightClass, Vec<u32>)> {
    let layers = |is: &dyn Fn(u32) -> bool| (0..model.layers).filter(|&layer| is(layer)).collect();
    let shared = model.moe.as_ref();
    let has_shared = shared.is_some_and(|moe| moe.shared_intermediate_size > 0);
    let latent = matches!(model.attention, Attention::Mla { .. });
    // Latent attention is in every layer, whatever else.
    let attention = layers(&|layer| latent || model.is_softmax_attention_layer(layer));
    let mut classes = vec![(WeightClass::Attention, attention)];
    if has_shared {
        let with_experts = layers(&|layer| model.is_moe_layer(layer));
        classes.push((WeightClass::SharedExperts, with_experts));
    }
    if model.has_dense_mlp() {
        let dense = layers(&|layer| !model.is_moe_layer(layer));
        classes.push((WeightClass::DenseMlp, dense));
    }
    if model.moe.is_some() {
        let with_experts = layers(&|layer| model.is_moe_layer(layer));
        classes.push((WeightClass::RoutedExperts, with_experts));
    }
    classes
}

/// A quantisation.
struct Quantisation {
    groups: Vec<Group>,
    /// Left out of all groups.
    exceptions: Vec<Pattern>,
    kv_cache: Option<DType>,
}

/// Weights in one format.
struct Group {
    dtype: DType,
    /// Which; none: all.
    targets: Option<Vec<Pattern>>,
}

impl Quantisation {
    /// That of a class: of the first group that has the class in more than half of
    /// its layers; none if it stays as it is.
    fn format(&self, class: WeightClass, layers: &[u32]) -> Option<DType> {
        let mostly = |patterns: &[Pattern]| {
            let named = |layer: &&u32| names_class(patterns, class, **layer);
            layers.iter().filter(named).count() * 2 > layers.len()
        };
        if mostly(&self.exceptions) {
            return None;
        }
        let has = |group: &&Group| group.targets.as_deref().is_none_or(mostly);
        self.groups.iter().find(has).map(|group| group.dtype)
    }

    fn read(document: &Document, key: &str) -> Result<Self, YamlError> {
        let within = |name: &str| child_path(key, name);
        let text = |name: &str| document.get(&within(name)).and_then(Value::as_str);
        let all = |dtype| {
            vec![Group {
                dtype,
                targets: None,
            }]
        };
        let bits = document.get(&within("bits")).and_then(Value::as_u64);
        let has_blocks = (document.get(&within("weight_block_size"))).is_some_and(Value::is_array);
        let method = text("quant_method");
        // ModelOpt's own file names no method.
        let is_modelopt = method.is_none_or(|name| name.starts_with("modelopt"));
        let groups = match (method.unwrap_or_default(), bits) {
            ("fp8", _) if has_blocks => all(DType::Fp8Block),
            ("fp8" | "fbgemm_fp8", _) => all(DType::Fp8),
            ("mxfp4", _) => vec![Group {
                dtype: DType::Mxfp4,
                targets: Some(vec![Pattern::text("experts")]),
            }],
            ("awq" | "gptq", Some(4)) => all(DType::Int4),
            ("gptq", Some(8)) => all(DType::Int8),
            ("compressed-tensors", _) => config_groups(document, key)?,
            _ if is_modelopt => match text("quant_algo") {
                Some(name) => match modelopt_format(name) {
                    Some(dtype) => all(dtype),
                    None => return Err(unsupported(document, &within("quant_algo"))),
                },
                None => config_groups(document, key)?,
            },
            _ => return Err(unsupported(document, &within("quant_method"))),
        };
        let mut exceptions = Vec::new();
        for name in EXCEPTIONS {
            exceptions.extend(patterns(document, &within(name), is_modelopt)?);
        }
        Ok(Self {
            groups,
            exceptions,
            kv_cache: kv_cache_format(document, key),
        })
    }
}

/// Format by ModelOpt's name of the algorithm.
fn modelopt_format(name: &str) -> Option<DType> {
    Some(match name {
        "FP8" | "FP8_PER_CHANNEL_PER_TOKEN" => DType::Fp8,
        "FP8_BLOCK_SCALES" | "FP8_PB_WO" | "FP8_PB_REAL" => DType::Fp8Block,
        "NVFP4" | "NVFP4_AWQ" | "W4A16_NVFP4" => DType::Nvfp4,
        "MXFP4" | "W4A8_MXFP4_FP8" | "W4A8_MXFP4_MXFP8" | "W4A16_MXFP4" => DType::Mxfp4,
        "W4A16_AWQ" | "W4A8_AWQ" | "W4A16" => DType::Int4,
        "INT8_SQ" | "W8A8_SQ_PER_CHANNEL" | "W8A16" => DType::Int8,
        _ => return None,
    })
}

/// Groups of weights with a format each, as compressed-tensors and newer ModelOpt
/// files list them.
fn config_groups(document: &Document, key: &str) -> Result<Vec<Group>, YamlError> {
    let path = child_path(key, "config_groups");
    let Some(Value::Object(listed)) = document.get(&path) else {
        return Err(document.error(key, format!("missing key `config_groups` in `{key}`")));
    };
    let mut groups = Vec::new();
    for name in listed.keys() {
        let group = child_path(&path, name);
        let weights = child_path(&group, "weights");
        let figure = |name: &str| document.get(&child_path(&weights, name));
        let bits = figure("num_bits").and_then(Value::as_u64);
        let kind = figure("type").and_then(Value::as_str).unwrap_or("int");
        let strategy = figure("strategy").and_then(Value::as_str);
        let group_size = figure("group_size").and_then(Value::as_u64);
        let dtype = match (kind, bits, strategy, group_size) {
            ("float", Some(8), Some("block"), _) => DType::Fp8Block,
            ("float", Some(8), ..) => DType::Fp8,
            ("float", Some(4), _, Some(32)) => DType::Mxfp4,
            ("float", Some(4), ..) => DType::Nvfp4,
            ("int", Some(8), ..) => DType::Int8,
            ("int", Some(4), ..) => DType::Int4,
            _ => {
                return Err(document.error(
                    &weights,
                    format!(
                        "key `{weights}`: weights of this form are not supported; supported: \
                         type float or int, num_bits 4 or 8"
                    ),
                ));
            }
        };
        let targets = patterns(document, &child_path(&group, "targets"), false)?;
        let is_everything =
            |pattern: &Pattern| matches!(pattern, Pattern::Text(text) if text == "Linear");
        let everything = targets.is_empty() || targets.iter().any(is_everything);
        groups.push(Group {
            dtype,
            targets: (!everything).then_some(targets),
        });
    }
    Ok(groups)
}

/// Format of the KV cache, where the checkpoint has scales for one.
fn kv_cache_format(document: &Document, key: &str) -> Option<DType> {
    let within = |name: &str| document.get(&child_path(key, name));
    let by_name = within("kv_cache_quant_algo").and_then(Value::as_str);
    let bits = within("kv_cache_scheme.num_bits").and_then(Value::as_u64);
    let kind = within("kv_cache_scheme.type").and_then(Value::as_str);
    match (by_name, bits, kind) {
        (Some("FP8"), ..) | (_, Some(8), Some("float")) => Some(DType::Fp8),
        (Some("INT8"), ..) | (_, Some(8), Some("int")) => Some(DType::Int8),
        (Some("NVFP4"), ..) | (_, Some(4), Some("float")) => Some(DType::Nvfp4),
        _ => None,
    }
}

fn unsupported(document: &Document, path: &str) -> YamlError {
    let value = document.get(path).and_then(Value::as_str).unwrap_or("");
    let shown: String = value.chars().take(60).collect();
    document.error(
        path,
        format!("key `{path}`: value `{shown}` is not supported; supported: {SUPPORTED}"),
    )
}

/// Which modules are meant.
enum Pattern {
    /// Those whose name has these parts, separated by dots, in a row.
    Text(String),
    Regex(Regex),
}

impl Pattern {
    fn text(name: &str) -> Self {
        Self::Text(name.to_owned())
    }

    /// `re:` before a regular expression, `*` for anything in ModelOpt's lists, else
    /// parts of a name.
    fn parse(text: &str, has_wildcards: bool) -> Result<Self, regex_lite::Error> {
        if let Some(expression) = text.strip_prefix("re:") {
            return Regex::new(&format!("^(?:{expression})")).map(Self::Regex);
        }
        if has_wildcards && text.contains('*') {
            let expression = escape(text).replace(r"\*", ".*");
            return Regex::new(&format!("^(?:{expression})$")).map(Self::Regex);
        }
        Ok(Self::text(text.trim_end_matches('.')))
    }

    fn names(&self, module: &str) -> bool {
        match self {
            Self::Text(parts) => module.match_indices(parts.as_str()).any(|(start, _)| {
                let end = start + parts.len();
                let starts = start == 0 || module.as_bytes()[start - 1] == b'.';
                starts && (end == module.len() || module.as_bytes()[end] == b'.')
            }),
            Self::Regex(regex) => regex.is_match(module),
        }
    }
}

/// The patterns listed at `path`, if any.
fn patterns(
    document: &Document,
    path: &str,
    has_wildcards: bool,
) -> Result<Vec<Pattern>, YamlError> {
    let Some(Value::Array(listed)) = document.get(path) else {
        return Ok(Vec::new());
    };
    if listed.len() > EXCEPTIONS_MAX {
        return Err(document.error(
            path,
            format!("key `{path}`: more than {EXCEPTIONS_MAX} entries"),
        ));
    }
    let parse = |(index, value): (usize, &Value)| {
        let text = value.as_str().filter(|text| !text.is_empty())?;
        Some(Pattern::parse(text, has_wildcards).map_err(|error| {
            let path = format!("{path}[{index}]");
            document.error(
                &path,
                format!("key `{path}`: not a regular expression: {error}"),
            )
        }))
    };
    listed.iter().enumerate().filter_map(parse).collect()
}

/// Whether `patterns` name the weights of a class in a layer: one of the spellings of
/// its input and of its output projection.
fn names_class(patterns: &[Pattern], class: WeightClass, layer: u32) -> bool {
    const BEFORE: [&str; 3] = [
        "model.layers",
        "language_model.model.layers",
        "model.language_model.layers",
    ];
    let named = |module: &&str| {
        let is_named = |before: &&str| {
            let name = format!("{before}.{layer}.{module}");
            patterns.iter().any(|pattern| pattern.names(&name))
        };
        BEFORE.iter().any(is_named)
    };
    let [inputs, outputs] = modules(class);
    !patterns.is_empty() && inputs.iter().any(named) && outputs.iter().any(named)
}

/// Names of input and output projections of a class in checkpoints.
fn modules(class: WeightClass) -> [&'static [&'static str]; 2] {
    match class {
        WeightClass::Attention => [
            &[
                "self_attn.q_proj",
                "self_attn.qkv_proj",
                "self_attn.q_b_proj",
                "self_attn.kv_b_proj",
            ],
            &["self_attn.o_proj", "self_attn.dense"],
        ],
        WeightClass::DenseMlp => [
            &[
                "mlp.gate_proj",
                "mlp.gate_up_proj",
                "mlp.up_proj",
                "feed_forward.gate_proj",
            ],
            &["mlp.down_proj", "feed_forward.down_proj"],
        ],
        WeightClass::RoutedExperts => [
            &[
                "mlp.experts.0.gate_proj",
                "mlp.experts.gate_up_proj",
                "block_sparse_moe.experts.0.w1",
                "feed_forward.experts.gate_up_proj",
                "feed_forward.experts.0.gate_proj",
            ],
            &[
                "mlp.experts.0.down_proj",
                "mlp.experts.down_proj",
                "block_sparse_moe.experts.0.w2",
                "feed_forward.experts.down_proj",
                "feed_forward.experts.0.down_proj",
            ],
        ],
        WeightClass::SharedExperts => [
            &[
                "mlp.shared_experts.gate_proj",
                "mlp.shared_expert.gate_proj",
                "mlp.shared_expert.up_proj",
                "feed_forward.shared_expert.gate_proj",
            ],
            &[
                "mlp.shared_experts.down_proj",
                "mlp.shared_expert.down_proj",
                "feed_forward.shared_expert.down_proj",
            ],
        ],
    }
}
