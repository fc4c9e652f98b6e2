//! Which layers of a checkpoint look how far back, and which have experts.

use super::Reader;
use super::family::Family;
use crate::catalog::{LocalAttention, LocalReach};
use crate::limits::LAYERS_MAX;
use crate::yaml::YamlError;

/// Local attention, if any layer has it.
pub(super) fn local_attention(reader: &Reader<'_>) -> Result<Option<LocalAttention>, YamlError> {
    let layers = layers_of(reader)?;
    let Some((reach, is_local)) = local_layers(reader, layers)? else {
        return Ok(None);
    };
    if !is_local.contains(&true) {
        return Ok(None);
    }
    let config = &reader.config;
    let (key, tokens) = match reach {
        LocalReach::SlidingWindow => ("sliding_window", config.sliding_window),
        LocalReach::Chunked => ("attention_chunk_size", config.attention_chunk_size),
    };
    let tokens = reader.needed(key, tokens)?;
    let full: Vec<u32> = (0..layers)
        .filter(|&layer| !is_local[layer as usize])
        .collect();
    let interval = full.first().map_or(0, |first| first + 1);
    let is_regular = interval > 1
        && (0..layers)
            .filter(|layer| layer % interval == interval - 1)
            .eq(full.clone());
    Ok(Some(LocalAttention {
        reach,
        tokens,
        full_attention_interval: if is_regular { interval } else { 0 },
        full_attention_layers: if is_regular { Vec::new() } else { full },
    }))
}

fn layers_of(reader: &Reader<'_>) -> Result<u32, YamlError> {
    let layers = reader.config.num_hidden_layers;
    if layers <= LAYERS_MAX {
        return Ok(layers);
    }
    let key = "num_hidden_layers";
    Err(reader.document.error(
        key,
        format!("key `{key}`: value `{layers}` is not allowed; allowed: a whole number from 1 to {LAYERS_MAX}"),
    ))
}

/// How far back local layers look, and which they are; none in families that have
/// none.
fn local_layers(
    reader: &Reader<'_>,
    layers: u32,
) -> Result<Option<(LocalReach, Vec<bool>)>, YamlError> {
    let config = &reader.config;
    let is_hybrid = reader.family == Family::Qwen3Next;
    if let Some(types) = config.layer_types.as_ref().filter(|_| !is_hybrid) {
        return by_types(reader, types, layers).map(Some);
    }
    let all = |is: &dyn Fn(u32) -> bool| (0..layers).map(is).collect::<Vec<bool>>();
    let has_window = config.sliding_window.is_some();
    let wants_window = config.use_sliding_window;
    // As the configuration classes have it where the file names no types.
    let local = match reader.family {
        Family::Mistral | Family::Mixtral | Family::Phi3 => {
            all(&|_| has_window && wants_window != Some(false))
        }
        Family::Qwen2 | Family::Qwen3 => {
            let first = config.max_window_layers.unwrap_or(0);
            all(&|layer| has_window && wants_window == Some(true) && layer >= first)
        }
        Family::Qwen3Moe => all(&|_| has_window && wants_window == Some(true)),
        Family::Qwen2Moe => {
            let beyond = config.max_window_layers.unwrap_or(u32::MAX);
            all(&|layer| wants_window == Some(true) && layer % 2 == 0 && layer < beyond)
        }
        Family::Gemma2 | Family::GptOss => all(&|layer| has_window && layer % 2 == 0),
        Family::Gemma3 => {
            let pattern = config.sliding_window_pattern.unwrap_or(6).max(1);
            all(&|layer| has_window && !(layer + 1).is_multiple_of(pattern))
        }
        Family::Llama4 => {
            return Ok(Some((
                LocalReach::Chunked,
                layers_with_rope(reader, layers),
            )));
        }
        _ => return Ok(None),
    };
    Ok(Some((LocalReach::SlidingWindow, local)))
}

/// Llama 4 looks back to the start where it has no rotary embedding.
fn layers_with_rope(reader: &Reader<'_>, layers: u32) -> Vec<bool> {
    let config = &reader.config;
    let is_chunked = config.attention_chunk_size.is_some();
    let interval = config.no_rope_layer_interval.unwrap_or(4).max(1);
    let listed = config.no_rope_layers.as_deref().unwrap_or_default();
    // A 1 stands for a layer with rotary embedding; an empty list for the interval.
    let has_rope = |layer: u32| match listed.get(layer as usize) {
        Some(&flag) => flag != 0,
        None => !(layer + 1).is_multiple_of(interval),
    };
    (0..layers)
        .map(|layer| is_chunked && has_rope(layer))
        .collect()
}

fn by_types(
    reader: &Reader<'_>,
    types: &[String],
    layers: u32,
) -> Result<(LocalReach, Vec<bool>), YamlError> {
    let refuse = |path: &str, message: String| Err(reader.document.error(path, message));
    if types.len() < layers as usize {
        return refuse(
            "layer_types",
            format!(
                "key `layer_types`: {} types for {layers} layers (num_hidden_layers)",
                types.len()
            ),
        );
    }
    let mut reach = None;
    let mut is_local = Vec::new();
    for (index, name) in types.iter().take(layers as usize).enumerate() {
        let own = match name.as_str() {
            "full_attention" => None,
            "sliding_attention" => Some(LocalReach::SlidingWindow),
            "chunked_attention" => Some(LocalReach::Chunked),
            other => {
                let path = format!("layer_types[{index}]");
                return refuse(
                    &path,
                    format!(
                        "key `{path}`: value `{other}` is not supported; supported: \
                         full_attention, sliding_attention, chunked_attention"
                    ),
                );
            }
        };
        is_local.push(own.is_some());
        if own.is_some() && reach.is_some() && reach != own {
            return refuse(
                "layer_types",
                "key `layer_types`: sliding and chunked attention in one model cannot be \
                 represented; use the one of most layers"
                    .into(),
            );
        }
        reach = reach.or(own);
    }
    Ok((reach.unwrap_or(LocalReach::SlidingWindow), is_local))
}

/// Layers without experts in a model that has some.
pub(super) struct DenseLayers {
    /// So many at the start.
    pub first: u32,
    /// All but every n-th.
    pub interval: u32,
    pub others: Vec<u32>,
}

/// The layers with a dense MLP.
pub(super) fn dense_layers(reader: &Reader<'_>) -> Result<DenseLayers, YamlError> {
    let config = &reader.config;
    let layers = layers_of(reader)?;
    if config.moe_layer_freq.is_some_and(|step| step > 1) {
        let key = "moe_layer_freq";
        return Err(reader.document.error(
            key,
            format!(
                "key `{key}`: experts in every n-th layer from the first on cannot be read; write \
                 a model YAML with `moe.dense_layers` (docs/models-and-devices.md)"
            ),
        ));
    }
    let interval = (config.decoder_sparse_step).or(config.interleave_moe_layer_step);
    let interval = interval.unwrap_or(1).max(1);
    let mut dense = DenseLayers {
        first: config.first_k_dense_replace.unwrap_or(0),
        interval,
        others: config.mlp_only_layers.clone(),
    };
    if let Some(with_experts) = &config.moe_layers {
        let is_regular = (0..layers)
            .filter(|layer| layer % interval == interval - 1)
            .eq(with_experts.iter().copied());
        if !is_regular {
            dense.interval = 1;
            dense.others = (0..layers)
                .filter(|layer| !with_experts.contains(layer))
                .collect();
        }
    }
    Ok(dense)
}
