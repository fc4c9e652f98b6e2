//! `vidur-sweep catalog`: what can be named in a specification, with the source
//! of every figure. Lists are built from the data files and from the very types
//! specifications are read into, so they cannot drift from what is accepted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::output::{output_width, print_data, print_text};
use super::{CliError, CliResult};
use crate::catalog::{Attention, Catalog, DeviceSpec, EngineSpec, LocalReach, ModelSpec};
use crate::execution_time::BackendKind;
use crate::memory::{
    Formats, kv_bytes_per_token, parameters, state_bytes_per_request, window_cache,
};
use crate::report::{TextColumn, TextTable};
use crate::simulator::{GlobalScheduler, ReplicaScheduler};
use crate::spec::EngineConfig;
use crate::spelling::did_you_mean;
use crate::units::GIB;
use crate::workload::{DataFiles, embedded_files};

/// Where traces are looked for besides those that ship with the program.
const TRACES_FOLDER: &str = "data/traces";

/// List models, devices, engines, backends, schedulers and traces.
///
/// Without NAME: everything of that kind, one line each. With NAME (or an
/// alias, in any letter case): all its figures and where they come from. For
/// models, NAME may also be the path of a model YAML or of a Hugging Face
/// config.json, for devices that of a device YAML, for engines that of an engine YAML
/// or a mapping as in a specification: the quickest way to check one of your own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidur-sweep catalog models
  vidur-sweep catalog models deepseek-ai/DeepSeek-R1
  vidur-sweep catalog models ./Qwen3-8B/config.json --format json
  vidur-sweep catalog devices h800
  vidur-sweep catalog engines '{name: vllm, host_overhead_s_per_step: 0.002}'
  vidur-sweep catalog devices --format csv > devices.csv")]
pub struct Args {
    /// What to list.
    #[arg(value_enum)]
    kind: Kind,
    /// Show this one in full.
    name: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Models, by architecture.
    Models,
    /// GPUs and their nodes.
    Devices,
    /// Serving engines whose defaults can be used.
    Engines,
    /// Where execution times can come from.
    Backends,
    /// How requests are given to replicas, and how replicas form batches.
    Schedulers,
    /// Request lengths that ship with the program, and those in ./data/traces.
    Traces,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Aligned columns for people.
    Table,
    /// One JSON document with every figure.
    Json,
    /// Comma-separated values, header first.
    Csv,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let entries = match (args.kind, &args.name) {
        (Kind::Models, None) => all(Catalog::builtin().models(), model_entry),
        (Kind::Models, Some(name)) => vec![model_entry(&named(Catalog::builtin().model(name))?)],
        (Kind::Devices, None) => all(Catalog::builtin().devices(), device_entry),
        (Kind::Devices, Some(name)) => {
            vec![device_entry(&named(Catalog::builtin().device(name))?)]
        }
        (Kind::Engines, name) => engines(name.as_deref())?,
        (Kind::Backends, name) => only("backend", name, backends())?,
        (Kind::Schedulers, name) => only("scheduler", name, schedulers())?,
        (Kind::Traces, name) => only("trace", name, traces()?)?,
    };
    let text = if args.name.is_some() {
        details(&entries, args.format)
    } else {
        list(&entries, args.format)
    }?;
    print(&text, args.format)
}

/// One thing of the catalog: a few columns for lists, and everything.
struct Entry {
    name: String,
    summary: Map<String, Value>,
    full: Value,
}

fn all<T>(items: &[T], entry: impl Fn(&T) -> Entry) -> Vec<Entry> {
    items.iter().map(entry).collect()
}

fn named<T>(found: Result<T, crate::catalog::CatalogError>) -> Result<T, CliError> {
    found.map_err(|e| CliError::BadInput(e.to_string()))
}

/// All entries, or those called `name`.
fn only(kind: &str, name: &Option<String>, entries: Vec<Entry>) -> Result<Vec<Entry>, CliError> {
    let Some(name) = name else {
        return Ok(entries);
    };
    let names: Vec<_> = entries.iter().map(|e| e.name.clone()).collect();
    let found: Vec<_> = entries
        .into_iter()
        .filter(|e| e.name.eq_ignore_ascii_case(name))
        .collect();
    if found.is_empty() {
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        let known = names.join(", ");
        let message = format!("unknown {kind} `{name}`; known: {known}{hint}");
        return Err(CliError::BadInput(message));
    }
    Ok(found)
}

/// An object from a `json!` literal.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|e| Value::String(format!("(not shown: {e})")))
}

fn model_entry(model: &ModelSpec) -> Entry {
    let count = parameters(model);
    let attention = match &model.attention {
        Attention::Gqa {
            heads,
            kv_heads,
            head_dim,
            ..
        } => format!("{heads} heads, {kv_heads} KV x {head_dim}"),
        Attention::Mla {
            heads,
            kv_lora_rank,
            qk_rope_head_dim,
            ..
        } => format!("{heads} heads, MLA {kv_lora_rank}+{qk_rope_head_dim}"),
    };
    let experts = model.moe.as_ref().map_or(String::new(), |moe| {
        let shared = if moe.shared_intermediate_size > 0 {
            " + shared"
        } else {
            ""
        };
        format!("{} of {}{shared}", moe.experts_per_token, moe.experts)
    });
    let hybrid = match &model.linear_attention {
        Some(linear) => format!(", 1 of {} layers", linear.full_attention_interval),
        None => String::new(),
    };
    let window = window_cache(model);
    let local = match &model.local_attention {
        Some(local) => {
            let layers = (0..model.layers)
                .filter(|&layer| model.is_local_attention_layer(layer))
                .count();
            let reach = match local.reach {
                LocalReach::SlidingWindow => "the last",
                LocalReach::Chunked => "chunks of",
            };
            format!(
                ", {layers} of {} layers over {reach} {} tokens",
                model.layers, local.tokens
            )
        }
        None => String::new(),
    };
    let kv_bytes = kv_bytes_per_token(model, model.kv_cache_dtype);
    let kv_bytes_beyond_window = window.map(|window| {
        let layers = f64::from(window.layers + window.full_layers);
        kv_bytes / layers * f64::from(window.full_layers)
    });
    let formats = Formats::of(model, None, None);
    let summary = object(json!({
        "name": model.name,
        "parameters_b": rounded(count.total / 1e9),
        "activated_b": rounded(count.activated / 1e9),
        "layers": model.layers,
        "hidden": model.hidden_size,
        "attention": format!("{attention}{hybrid}{local}"),
        "experts": experts,
        "dtype": formats.weights_text(),
        "kv_bytes_per_token": kv_bytes,
    }));
    let mut full = object(to_json(model));
    full.insert("parameters".into(), to_json(&count));
    full.insert("kv_bytes_per_token".into(), kv_bytes.into());
    if let Some(bytes) = kv_bytes_beyond_window {
        full.insert("kv_bytes_per_token_beyond_window".into(), bytes.into());
    }
    full.insert(
        "state_bytes_per_request".into(),
        state_bytes_per_request(model).into(),
    );
    Entry {
        name: model.name.clone(),
        summary,
        full: Value::Object(full),
    }
}

fn device_entry(device: &DeviceSpec) -> Entry {
    let peaks = &device.peak_tflops;
    let summary = object(json!({
        "name": device.name,
        "memory_gib": rounded(device.memory_bytes as f64 / GIB),
        "gb_per_s": device.memory_bandwidth_gb_per_s,
        "bf16_tflops": peaks.bfloat16,
        "fp8_tflops": peaks.fp8,
        "nvlink_gbps": device.nvlink_bandwidth_gbps,
        "nic_gbps": device.nic_bandwidth_gbps,
        "gpus_per_node": device.gpus_per_node,
        "power_w": device.power_w,
        "usd_per_hour": device.price_usd_per_hour,
        "price_basis": to_json(&device.price_basis),
        "kernels_of": device.kernels_of,
    }));
    Entry {
        name: device.name.clone(),
        summary,
        full: to_json(device),
    }
}

/// All engines, the versions of one (`vllm`), one version (`vllm-0.24.0`), or one of the
/// user's: a file, or a mapping as in a specification.
fn engines(name: Option<&str>) -> Result<Vec<Entry>, CliError> {
    let catalog = Catalog::builtin();
    let Some(name) = name else {
        return Ok(all(catalog.engines(), engine_entry));
    };
    if name.trim_start().starts_with('{') || catalog.engine_file(name).is_some() {
        let engine = EngineConfig::of_text(name).and_then(|engine| engine.spec());
        let engine = engine.map_err(CliError::BadInput)?;
        return Ok(engine.iter().map(engine_entry).collect());
    }
    if let Some((engine, version)) = name.split_once(['-', ' ']) {
        return Ok(vec![engine_entry(&named(
            catalog.engine(engine, Some(version)),
        )?)]);
    }
    let newest = named(catalog.engine(name, None))?;
    let versions = catalog.engines().iter().filter(|e| e.name == newest.name);
    Ok(versions.map(engine_entry).collect())
}

fn engine_entry(engine: &EngineSpec) -> Entry {
    let mut summary = object(to_json(engine));
    summary.shift_remove("sources");
    Entry {
        name: engine.name.clone(),
        summary,
        full: to_json(engine),
    }
}

fn backends() -> Vec<Entry> {
    variants::<BackendKind>()
        .into_iter()
        .map(|(name, description, _)| {
            let summary = object(json!({"name": name, "description": description}));
            Entry {
                name,
                full: Value::Object(summary.clone()),
                summary,
            }
        })
        .collect()
}

fn schedulers() -> Vec<Entry> {
    let of_level = |level: &'static str, variants: Vec<Variant>| {
        variants
            .into_iter()
            .map(move |(name, description, settings)| {
                let shown: Vec<_> = settings
                    .iter()
                    .map(|(key, setting)| format!("{key}={}", setting["default"]))
                    .collect();
                let summary = object(json!({
                    "level": level,
                    "name": name,
                    "description": description,
                    "settings": shown.join(" "),
                }));
                let full = json!({
                    "level": level,
                    "name": name,
                    "description": description,
                    "settings": settings,
                });
                Entry {
                    name,
                    summary,
                    full,
                }
            })
    };
    of_level("global", variants::<GlobalScheduler>())
        .chain(of_level("replica", variants::<ReplicaScheduler>()))
        .collect()
}

/// Names of backends and schedulers.
pub(super) fn backends_and_schedulers() -> impl Iterator<Item = String> {
    let all = backends().into_iter().chain(schedulers());
    all.map(|entry| entry.name)
}

/// Name, description and settings of one variant of an enum.
type Variant = (String, String, Map<String, Value>);

/// The variants of an enum specifications are read into, from its JSON schema:
/// unit variants are constants, tagged ones have a constant `type` and settings.
fn variants<T: JsonSchema>() -> Vec<Variant> {
    let schema = schemars::schema_for!(T);
    let cases = schema.get("oneOf").and_then(Value::as_array);
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('\n', " ");
    cases
        .into_iter()
        .flatten()
        .filter_map(|case| {
            let properties = case.get("properties").and_then(Value::as_object);
            let tag = properties.and_then(|p| p.get("type")).unwrap_or(case);
            let name = tag.get("const")?.as_str()?.to_owned();
            let mut settings = Map::new();
            for (key, schema) in properties.into_iter().flatten() {
                if key != "type" {
                    settings.insert(
                        key.clone(),
                        json!({
                            "default": schema.get("default"),
                            "description": text(&schema["description"]),
                        }),
                    );
                }
            }
            Some((name, text(&case["description"]), settings))
        })
        .collect()
}

/// The traces that ship with the program, and those of the working directory's
/// `data/traces`. Their leading `# ` lines say what they are and whose.
fn traces() -> Result<Vec<Entry>, CliError> {
    let shipped = || embedded_files().iter().map(|(path, _)| PathBuf::from(path));
    let mut files: Vec<PathBuf> = shipped().chain(traces_here()?).collect();
    files.sort();
    files.dedup();
    let entry = |path: PathBuf| {
        let data = DataFiles::default().read(&path);
        let data = data.map_err(|error| CliError::BadInput(error.to_string()))?;
        let on_disk = DataFiles::default().locate(&path).is_some();
        Ok(trace_entry(&path, &data.text, on_disk))
    };
    files.into_iter().map(entry).collect()
}

/// CSV files of [`TRACES_FOLDER`] in the working directory, if there is one.
fn traces_here() -> Result<Vec<PathBuf>, CliError> {
    let folder = Path::new(TRACES_FOLDER);
    let unreadable =
        |e: std::io::Error| CliError::BadInput(format!("cannot read {TRACES_FOLDER}: {e}"));
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "csv") {
            files.push(path);
        }
    }
    Ok(files)
}

fn trace_entry(path: &Path, text: &str, on_disk: bool) -> Entry {
    let name = path
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let header: Vec<_> = text
        .lines()
        .map_while(|line| line.strip_prefix('#'))
        .map(str::trim)
        .collect();
    let mut rows = text.lines().filter(|line| !line.starts_with('#'));
    let columns = rows.next().unwrap_or_default();
    let count = rows.filter(|line| !line.trim().is_empty()).count();
    let file = path.display().to_string();
    let found = if on_disk { "on disk" } else { "built in" };
    let summary = object(json!({
        "name": name,
        "file": file,
        "found": found,
        "rows": count,
        "description": header.first().copied().unwrap_or_default(),
    }));
    let full = json!({
        "name": name,
        "file": file,
        "found": found,
        "rows": count,
        "columns": columns,
        "header": header,
    });
    Entry {
        name,
        summary,
        full,
    }
}

/// Two decimals are enough to tell sizes apart.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn list(entries: &[Entry], format: Format) -> Result<String, CliError> {
    let columns: Vec<&str> = match entries.first() {
        Some(entry) => entry.summary.keys().map(String::as_str).collect(),
        None => return Ok("nothing to list\n".into()),
    };
    let rows = entries.iter().map(|entry| {
        columns
            .iter()
            .map(|column| entry.summary.get(*column).map_or(String::new(), cell))
            .collect()
    });
    match format {
        Format::Json => json_text(&entries.iter().map(|e| &e.full).collect::<Vec<_>>()),
        Format::Csv => csv_text(&columns, rows),
        Format::Table => Ok(table_text(keys(&columns), &columns, rows)),
    }
}

/// Columns that say which entry it is: all up to its name, and its version.
fn keys(columns: &[&str]) -> usize {
    let named = columns.iter().position(|column| *column == "name");
    let keys = named.map_or(1, |name| name + 1);
    keys + usize::from(columns.get(keys) == Some(&"version"))
}

fn details(entries: &[Entry], format: Format) -> Result<String, CliError> {
    if format == Format::Json {
        return match entries {
            [one] => json_text(&one.full),
            several => json_text(&several.iter().map(|e| &e.full).collect::<Vec<_>>()),
        };
    }
    let mut rows = Vec::new();
    for entry in entries {
        flatten("", &entry.full, &mut rows);
    }
    match format {
        Format::Csv => csv_text(&["key", "value"], rows.into_iter()),
        Format::Json | Format::Table => Ok(table_text(1, &["key", "value"], rows.into_iter())),
    }
}

/// `key.of.nested`, `value` pairs; lists of words become lines of one value.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, inner, rows);
            }
        }
        Value::Array(items) => {
            let lines: Vec<_> = items.iter().map(cell).collect();
            rows.push(vec![path.to_owned(), lines.join("\n")]);
        }
        Value::Null => {}
        other => rows.push(vec![path.to_owned(), cell(other)]),
    }
}

/// A value as text; whole numbers without a fraction, absent ones empty.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Rows as a table as wide as the terminal; the first `keys` columns say which row it is.
fn table_text(keys: usize, columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = columns.iter().enumerate().map(|(nth, name)| {
        let cells: Vec<String> = rows.iter().map(|row| row[nth].clone()).collect();
        let mut values = cells.iter().filter(|cell| !cell.is_empty()).peekable();
        let numeric = values.peek().is_some() && values.all(|cell| cell.parse::<f64>().is_ok());
        match numeric {
            true => TextColumn::numbers(name, cells),
            false => TextColumn::text(name, cells),
        }
    });
    TextTable::new(keys, columns).render(output_width())
}

fn csv_text(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<String, CliError> {
    let failure = |e: &dyn std::fmt::Display| CliError::Failure(format!("cannot write CSV: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).map_err(|e| failure(&e))?;
    for row in rows {
        writer.write_record(row).map_err(|e| failure(&e))?;
    }
    let bytes = writer.into_inner().map_err(|e| failure(&e))?;
    String::from_utf8(bytes).map_err(|e| failure(&e))
}

fn json_text<T: serde::Serialize>(value: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|e| CliError::Failure(format!("cannot write JSON: {e}")))
}

/// Prints what is for people, or for programs.
fn print(text: &str, format: Format) -> CliResult {
    match format {
        Format::Table => print_text(text)?,
        Format::Json | Format::Csv => print_data(text.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
