//! The reference of all keys in Markdown, as `docs/spec.md` contains it.

use serde_json::Value;

use super::columns::{objective_columns, target_columns, usual_side};
use super::keys::{Key, Shape, request_slo_keys, run_keys, sweep_keys};
use super::{DERIVED_NAMES, value_label};
use crate::limits::{
    BLOCK_TOKENS_MAX, COLLECTIVE_BYTES_MAX, DEVICE_FIGURE_MAX, DEVICE_FIGURE_MIN, EXPERTS_MAX,
    GPUS_MAX, HEADS_MAX, HOST_OVERHEAD_S_MAX, KV_BLOCKS_MAX, LATENCY_NS_MAX, LATEST_ARRIVAL_S,
    LAYERS_MAX, LINK_GBPS_MAX, LIST_COLUMNS_MAX, MEMORY_BYTES_MAX, MOST_REQUESTS, MOST_TOKENS,
    NAME_CHARACTERS_MAX, NODE_GPUS_MAX, PACKET_BYTES_MAX, POINTS_MAX, RUNS_MAX,
    SEQUENCE_TOKENS_MAX, TOPOLOGY_LINKS_MAX, TOPOLOGY_NODES_MAX, VOCABULARY_MAX, WIDTH_MAX,
    YAML_DEPTH_MAX, YAML_NODES_MAX,
};
use crate::measurement::Side;

/// Tables of every key of a specification: what it is, what is allowed, and
/// what holds where it is left out.
pub fn reference() -> String {
    let mut text = String::from("### Keys of a sweep\n\n");
    text += TABLE_HEADER;
    add_rows(sweep_keys(), "", &mut text);
    text += "\n### Keys of a run: `base`, `axes`, columns of a list\n\n";
    text += TABLE_HEADER;
    add_rows(run_keys(), "", &mut text);
    text +=
        "\n### Names in constraints besides the keys of a run\n\n| name | meaning |\n|---|---|\n";
    for (name, meaning) in DERIVED_NAMES {
        text += &format!("| `{name}` | {meaning} |\n");
    }
    text += "\n### Keys of `slo.per_request`\n\n";
    text += TABLE_HEADER;
    add_rows(request_slo_keys(), "slo.per_request.", &mut text);
    text += "\n### Columns for `slo`\n\n";
    for (what, side) in [
        ("A number alone is the most allowed", Some(Side::AtMost)),
        ("A number alone is the least allowed", Some(Side::AtLeast)),
        ("Only `{min: x}` and `{max: x}`", None),
    ] {
        let columns = target_columns().into_iter();
        let columns: Vec<_> = columns.filter(|c| usual_side(c) == side).collect();
        text += &format!("{what}: {}\n", list(&columns));
    }
    text += "\n### Columns for `objectives`\n\n";
    text += &list(objective_columns());
    text += "\n### Limits\n\n| of what | at most |\n|---|---|\n";
    for (what, limit) in limits() {
        text += &format!("| {what} | {limit} |\n");
    }
    text
}

/// What is refused however it is written, before anything is allocated or run.
fn limits() -> Vec<(&'static str, String)> {
    let levels = format!("{YAML_DEPTH_MAX} levels");
    vec![
        (
            "runs of a sweep, replications included",
            RUNS_MAX.to_string(),
        ),
        (
            "samples of a random search, rows of a list",
            POINTS_MAX.to_string(),
        ),
        ("columns of a list", LIST_COLUMNS_MAX.to_string()),
        ("GPUs of a deployment, all replicas", GPUS_MAX.to_string()),
        ("requests of a run", MOST_REQUESTS.to_string()),
        (
            "tokens of a request, prompt and output together",
            MOST_TOKENS.to_string(),
        ),
        (
            "arrival of a request, seconds",
            LATEST_ARRIVAL_S.to_string(),
        ),
        ("characters of `name`", NAME_CHARACTERS_MAX.to_string()),
        (
            "mappings and lists inside one another, YAML and JSON",
            levels,
        ),
        (
            "values of a YAML or JSON file, aliases counted as what they stand for",
            YAML_NODES_MAX.to_string(),
        ),
        ("layers of a model", LAYERS_MAX.to_string()),
        (
            "hidden and intermediate sizes and ranks of a model",
            WIDTH_MAX.to_string(),
        ),
        ("heads of a layer, width of a head", HEADS_MAX.to_string()),
        ("experts of a layer", EXPERTS_MAX.to_string()),
        ("entries of a vocabulary", VOCABULARY_MAX.to_string()),
        (
            "positions of a model, tokens and requests of a batch",
            SEQUENCE_TOKENS_MAX.to_string(),
        ),
        ("GPUs of a node", NODE_GPUS_MAX.to_string()),
        ("device memory, bytes", MEMORY_BYTES_MAX.to_string()),
        (
            "throughputs, bandwidths, power and price of a device, in the unit of each key",
            format!("{DEVICE_FIGURE_MAX}, and what is divided by at least {DEVICE_FIGURE_MIN}"),
        ),
        ("tokens of a KV cache block", BLOCK_TOKENS_MAX.to_string()),
        (
            "KV cache blocks of an attention rank",
            KV_BLOCKS_MAX.to_string(),
        ),
        (
            "host time of a step or request, figures of `formula`, seconds",
            HOST_OVERHEAD_S_MAX.to_string(),
        ),
        (
            "latency of a link, `AS_SEND_LAT`",
            format!("{} s", LATENCY_NS_MAX / 1e9),
        ),
        ("bandwidth of a link, Gb/s", LINK_GBPS_MAX.to_string()),
        ("`PACKET_PAYLOAD_SIZE`, bytes", PACKET_BYTES_MAX.to_string()),
        (
            "bytes of a collective to price",
            COLLECTIVE_BYTES_MAX.to_string(),
        ),
        ("nodes of a topology", TOPOLOGY_NODES_MAX.to_string()),
        (
            "links of a topology to generate",
            TOPOLOGY_LINKS_MAX.to_string(),
        ),
    ]
}

const TABLE_HEADER: &str = "| key | meaning | allowed | default |\n|---|---|---|---|\n";

fn list(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("{}.\n", quoted.join(", "))
}

fn add_rows(keys: &[Key], prefix: &str, text: &mut String) {
    for key in keys {
        let path = format!("{prefix}{}", key.name);
        let below = format!("{path}.");
        if let Some(other) = described_at_the_top(key, prefix) {
            *text += &row(&path, &key.doc, &format!("as `{other}`"), "");
            continue;
        }
        *text += &row(&path, &key.doc, &allowed(&key.shape), &default(key));
        match &key.shape {
            Shape::Struct { keys, .. } => add_rows(keys, &below, text),
            Shape::Tagged { variants, .. } => {
                for variant in variants {
                    let tag = format!("`type: {}`", variant.name);
                    *text += &row(&format!("{below}type"), &variant.doc, &tag, "");
                    add_rows(&variant.keys, &below, text);
                }
            }
            _ => {}
        }
    }
}

/// The run key of the same name and shape, where a pool overrides it.
fn described_at_the_top(key: &Key, prefix: &str) -> Option<&'static str> {
    let same = |top: &&Key| top.name == key.name && top.shape == key.shape;
    let top = run_keys().iter().find(same)?;
    let nested = !prefix.is_empty() && matches!(key.shape, Shape::Tagged { .. });
    nested.then_some(top.name.as_str())
}

fn row(path: &str, doc: &str, allowed: &str, default: &str) -> String {
    let plain = |text: &str| {
        text.replace("[`", "`")
            .replace("`]", "`")
            .replace('|', "\\|")
    };
    format!(
        "| `{path}` | {} | {} | {default} |\n",
        plain(doc),
        plain(allowed)
    )
}

fn allowed(shape: &Shape) -> String {
    match shape {
        Shape::Struct { shorthand, .. } => match shorthand {
            Some(key) => format!("a mapping, or its `{key}` alone"),
            None => "a mapping".to_owned(),
        },
        Shape::Tagged { .. } => "a mapping with `type`, or a type alone".to_owned(),
        Shape::Choice(words) => {
            let words: Vec<_> = words.iter().map(|w| format!("`{}`", w.name)).collect();
            words.join(", ")
        }
        Shape::Any => "a mapping".to_owned(),
        other => other.allowed(),
    }
}

fn default(key: &Key) -> String {
    match &key.default {
        _ if key.required => "required".to_owned(),
        None | Some(Value::Null) => String::new(),
        Some(Value::Object(map)) if map.values().all(|v| v.is_null() || v.is_object()) => {
            String::new()
        }
        Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(value) => format!("`{}`", value_label(value)),
    }
}
