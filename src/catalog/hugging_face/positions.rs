//! The longest sequence a checkpoint is made for: its positions, with what rope
//! scaling adds to them.
//!
//! Behaviour: vLLM 0.24, `vllm/config/model.py`, `_get_and_verify_max_len`, which
//! takes the least of the keys below and scales it by the factor of linear,
//! dynamic and YaRN scaling. Of `longrope`, for which vLLM starts with the
//! unscaled positions unless told otherwise, the model's own are taken.

use serde_json::Value;

use crate::number::whole_u32;
use crate::yaml::{Document, YamlError, child_path};

/// Keys that say how many positions there are; the least counts.
const POSITION_KEYS: [&str; 4] = [
    "max_position_embeddings",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
];
/// Keys that hold rope scaling, by version of the library that wrote the file.
const SCALING_KEYS: [&str; 2] = ["rope_parameters", "rope_scaling"];
/// Scalings whose positions are already in `max_position_embeddings`.
const ALREADY_SCALED: [&str; 6] = [
    "default",
    "llama3",
    "longrope",
    "su",
    "mrope",
    "proportional",
];
/// Scalings that multiply the positions by `factor`.
const SCALED_BY_FACTOR: [&str; 4] = ["linear", "dynamic", "ntk", "yarn"];

/// Longest sequence in tokens; none if the config says nothing about it.
///
/// # Errors
/// If a scaling is unknown, lacks a figure, or leads beyond what can be counted.
pub(super) fn max_position_tokens(document: &Document) -> Result<Option<u32>, YamlError> {
    let mut least = None;
    for key in POSITION_KEYS {
        match document.get(key) {
            None | Some(Value::Null) => {}
            Some(_) => {
                let count = whole_number(document, key)?;
                least = Some(least.map_or(count, |least: u32| least.min(count)));
            }
        }
    }
    let Some(positions) = least else {
        return Ok(None);
    };
    if scales_twice(document) {
        return Ok(Some(positions));
    }
    let given = (SCALING_KEYS.iter()).find(|key| document.get(key).is_some_and(Value::is_object));
    match given {
        Some(path) => scaled(document, path, positions).map(Some),
        None => Ok(Some(positions)),
    }
}

/// Gemma 3 states scaled positions and the factor that led to them.
fn scales_twice(document: &Document) -> bool {
    let model_type = document.get("model_type").and_then(Value::as_str);
    model_type.is_some_and(|name| name.starts_with("gemma3"))
}

/// `positions` under the scaling at `path`: one for all layers, or one for each
/// kind of layers, of which the longest counts.
fn scaled(document: &Document, path: &str, positions: u32) -> Result<u32, YamlError> {
    let Some(Value::Object(scaling)) = document.get(path) else {
        return Ok(positions);
    };
    let kinds: Vec<String> = scaling
        .iter()
        .filter(|(_, inner)| inner.is_object())
        .map(|(kind, _)| child_path(path, kind))
        .collect();
    if kinds.is_empty() {
        return scaled_by(document, path, positions);
    }
    let mut longest = positions;
    for kind in kinds {
        longest = longest.max(scaled_by(document, &kind, positions)?);
    }
    Ok(longest)
}

/// `positions` under the one scaling at `path`.
fn scaled_by(document: &Document, path: &str, positions: u32) -> Result<u32, YamlError> {
    let within = |key: &str| child_path(path, key);
    let type_key = ["rope_type", "type"]
        .map(within)
        .into_iter()
        .find(|key| document.get(key).is_some_and(|value| !value.is_null()));
    // Without a type there is no scaling: newer files keep the base here only.
    let Some(type_key) = type_key else {
        return Ok(positions);
    };
    let kind = document.get(&type_key).and_then(Value::as_str);
    let kind = kind.unwrap_or_default();
    if ALREADY_SCALED.contains(&kind) {
        return Ok(positions);
    }
    if !SCALED_BY_FACTOR.contains(&kind) {
        let allowed = [ALREADY_SCALED.as_slice(), &SCALED_BY_FACTOR].concat();
        return Err(document.error(
            &type_key,
            format!(
                "key `{type_key}`: value `{kind}` is not known; known: {}; to go by \
                 `max_position_embeddings` alone write `default`",
                allowed.join(", ")
            ),
        ));
    }
    let base = match document.get(&within("original_max_position_embeddings")) {
        Some(value) if kind == "yarn" && !value.is_null() => {
            whole_number(document, &within("original_max_position_embeddings"))?
        }
        _ => positions,
    };
    let factor_key = within("factor");
    let factor = match document.get(&factor_key) {
        None | Some(Value::Null) => 1.0,
        Some(value) => value.as_f64().unwrap_or(f64::NAN),
    };
    let tokens = f64::from(base) * factor;
    if factor >= 1.0 && tokens <= f64::from(u32::MAX) {
        Ok(whole_u32(tokens))
    } else {
        Err(document.error(
            &factor_key,
            format!(
                "key `{factor_key}`: allowed: a number of at least 1 that leads to at most {} \
                 positions",
                u32::MAX
            ),
        ))
    }
}

fn whole_number(document: &Document, path: &str) -> Result<u32, YamlError> {
    let number = document.get(path).and_then(Value::as_u64);
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| {
        let value = document.get(path).cloned().unwrap_or_default();
        document.error(
            path,
            format!(
                "key `{path}`: value `{value}` is not allowed; expected a whole number of at \
                 least 1"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::yaml;

    fn positions(text: &str) -> Result<Option<u32>, String> {
        let document = yaml::parse(text, Path::new("config.json")).expect("JSON");
        max_position_tokens(&document).map_err(|error| error.to_string())
    }

    #[test]
    fn rope_scaling_is_honoured_as_engines_do() {
        for (name, text, tokens) in [
            ("plain", r#"{"max_position_embeddings": 8192}"#, 8192),
            (
                "Qwen-7B",
                r#"{"max_position_embeddings": 32768, "seq_length": 8192}"#,
                8192,
            ),
            (
                "Qwen2.5 with YaRN",
                r#"{"max_position_embeddings": 32768, "rope_scaling": {"factor": 4.0,
                "original_max_position_embeddings": 32768, "type": "yarn"}}"#,
                131_072,
            ),
            (
                "DeepSeek-V3",
                r#"{"max_position_embeddings": 163840, "rope_scaling": {"beta_fast": 32,
                "factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"}}"#,
                163_840,
            ),
            (
                "Kimi-K2",
                r#"{"max_position_embeddings": 131072, "rope_scaling": {"factor": 32.0,
                "original_max_position_embeddings": 4096, "type": "yarn"}}"#,
                131_072,
            ),
            (
                "Llama-3.1",
                r#"{"max_position_embeddings": 131072, "rope_scaling": {"factor": 8.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#,
                131_072,
            ),
            (
                "Phi-3-mini-128k",
                r#"{"max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope",
                "long_factor": [1.05, 1.1], "short_factor": [1.0, 1.0]}}"#,
                131_072,
            ),
            (
                "LongChat",
                r#"{"max_position_embeddings": 2048, "rope_scaling": {"type": "linear",
                "factor": 8}}"#,
                16_384,
            ),
            (
                "both spellings of the type",
                r#"{"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic",
                "rope_type": "dynamic", "factor": 2.0}}"#,
                8192,
            ),
            (
                "Gemma-3-27b",
                r#"{"model_type": "gemma3_text", "max_position_embeddings": 131072,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}"#,
                131_072,
            ),
            (
                "parameters by kind of layer",
                r#"{"max_position_embeddings": 4096, "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "factor": 4,
                "original_max_position_embeddings": 4096, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}"#,
                16_384,
            ),
            (
                "parameters with the base only",
                r#"{"max_position_embeddings": 4096, "rope_parameters": {"rope_theta": 1e6}}"#,
                4096,
            ),
        ] {
            assert_eq!(positions(text), Ok(Some(tokens)), "{name}");
        }
        assert_eq!(positions("{}"), Ok(None));
    }

    #[test]
    fn senseless_figures_are_named() {
        for (text, expected) in [
            (
                r#"{"max_position_embeddings": 0}"#,
                "config.json:1:29: key `max_position_embeddings`: value `0` is not allowed",
            ),
            (
                r#"{"max_position_embeddings": 9, "rope_scaling": {"type": "magic"}}"#,
                "key `rope_scaling.type`: value `magic` is not known; known: default, ",
            ),
            (
                r#"{"max_position_embeddings": 9, "rope_scaling": {"type": "linear", "factor": 1e9}}"#,
                "key `rope_scaling.factor`: allowed: a number of at least 1",
            ),
            (
                r#"{"max_position_embeddings": 9, "rope_scaling": {"type": "yarn", "factor": "x"}}"#,
                "key `rope_scaling.factor`: allowed: a number of at least 1",
            ),
        ] {
            let message = positions(text).expect_err(text);
            assert!(message.contains(expected), "{message}");
        }
    }
}
