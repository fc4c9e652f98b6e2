//! `profiles import aiconfigurator`: our selection of NVIDIA's measurements,
//! regenerated from the unpacked Python package `aiconfigurator-core`.
//!
//! The package holds one parquet file per system, operator family, engine and
//! version under `systems/data`. Taken over are the engines and shapes that
//! our models need ([`sources`]); constant columns are dropped, columns get
//! names with units, keys are sorted, and of rows with equal keys the first
//! stays, as in the original. Values are not changed, except that times become
//! 32-bit floats in milliseconds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use saphyr::{LoadableYamlNode, Yaml};

use super::believed::{self, ExpertsRow};
use super::frame::{Column, Frame, Texts, encode};
use super::manifest::{MANIFEST_FILE, Manifest, TableEntry};
use super::table::LATENCY;
use super::{SiliconError, Table};
use crate::input_file::{self, InputKind};
use crate::number::single;
use crate::output_file::{self, DirectoryLock, LockError};

/// Licence of the package.
const LICENCE: &str = "Apache-2.0";
/// Copyright line of the package's files.
const COPYRIGHT: &str =
    "Copyright (c) 2025-2026 NVIDIA CORPORATION & AFFILIATES. All rights reserved.";

/// Routed-expert layers taken over: hidden size, intermediate size, experts
/// per token, experts. Qwen3-30B-A3B, Qwen3-235B-A22B, DeepSeek-V3, and
/// Qwen3.5-35B-A3B as the nearest to Qwen3-Next-80B-A3B.
const MOE_LAYERS: [[u32; 4]; 4] = [
    [2048, 768, 8, 128],
    [4096, 1536, 8, 128],
    [7168, 2048, 8, 256],
    [2048, 512, 8, 256],
];
/// Head widths taken over.
const HEAD_DIMS: [u32; 2] = [128, 256];
/// Model width whose gated delta net kernels are taken over.
const DELTA_NET_WIDTH: u32 = 2048;
/// Streaming multiprocessors DeepEP's throughput kernels were given.
const EXCHANGE_SMS: u32 = 20;
/// GPUs per node of the machines measured.
const GPUS_PER_NODE: u32 = 8;

/// A file of the package and what becomes of it.
struct Source {
    device: &'static str,
    /// Set where the table serves one engine only, beside the device's usual.
    only_for: Option<&'static str>,
    table: Table,
    system: &'static str,
    family: &'static str,
    engine: &'static str,
    /// `None`: the NCCL version that the system's description names.
    version: Option<&'static str>,
    file: &'static str,
}

/// Devices the selection covers, in the order of the manifest.
pub const DEVICES: [&str; 4] = ["a100", "b200", "h100", "h200"];

/// The files taken for `device`.
fn sources(device: &str) -> Vec<Source> {
    let (device, system, engine, version) = match device {
        "a100" => ("a100", "a100_sxm", "sglang", "0.5.10"),
        "b200" => ("b200", "b200_sxm", "vllm", "0.24.0"),
        "h100" => ("h100", "h100_sxm", "vllm", "0.24.0"),
        "h200" => ("h200", "h200_sxm", "vllm", "0.24.0"),
        _ => return Vec::new(),
    };
    let from = |table, family, engine, version, file| Source {
        device,
        only_for: None,
        table,
        system,
        family,
        engine,
        version,
        file,
    };
    let own = |table, family, file| from(table, family, engine, Some(version), file);
    let mut list = vec![
        own(Table::Gemm, "gemm", "gemm_perf"),
        own(
            Table::ContextAttention,
            "attention",
            "context_attention_perf",
        ),
        own(
            Table::GenerationAttention,
            "attention",
            "generation_attention_perf",
        ),
        own(Table::Moe, "moe", "moe_perf"),
        own(Table::GatedDeltaNet, "linear_attention", "gdn_perf"),
        own(Table::AllReduce, "comm", "custom_allreduce_perf"),
        from(Table::Nccl, "comm", "nccl", None, "nccl_perf"),
    ];
    list.extend(experts_sources(device));
    if device == "a100" {
        let trtllm = |table, family, file| from(table, family, "trtllm", Some("1.0.0"), file);
        list.push(trtllm(Table::ContextMla, "mla", "context_mla_perf"));
        list.push(trtllm(Table::GenerationMla, "mla", "generation_mla_perf"));
        list.push(own(Table::MlaBmm, "mla_bmm", "mla_bmm_perf"));
        return list;
    }
    list.push(own(
        Table::MlaContextModule,
        "mla",
        "mla_context_module_perf",
    ));
    list.push(own(
        Table::MlaGenerationModule,
        "mla",
        "mla_generation_module_perf",
    ));
    list.push(own(Table::ExpertExchange, "comm", "moe_a2a_perf"));
    // Layers that the newest collection left out, newest of the others first.
    let earlier: &[&str] = match device {
        "b200" => &["0.22.0", "0.19.0"],
        "h200" => &["0.19.0"],
        _ => &[],
    };
    for &version in earlier {
        list.push(from(
            Table::MoeEarlier,
            "moe",
            engine,
            Some(version),
            "moe_perf",
        ));
    }
    let sglang = |table, version, file| from(table, "comm", "sglang", Some(version), file);
    for file in ["wideep_deepep_ll_perf", "wideep_deepep_normal_perf"] {
        list.push(sglang(Table::ExpertExchangeWide, "0.5.12", file));
        if system != "b200_sxm" {
            list.push(sglang(Table::ExpertExchangeMultinode, "0.5.6.post2", file));
        }
    }
    if device == "h200" {
        list.extend(other_engines());
    }
    list
}

/// Versions in which an engine's expert kernels were measured on a system, newest
/// first.
fn experts_versions(system: &str, engine: &str) -> &'static [&'static str] {
    match (system, engine) {
        ("a100_sxm", "sglang") => &["0.5.10"],
        ("b200_sxm", "vllm") => &["0.24.0", "0.22.0", "0.19.0"],
        ("b200_sxm", "sglang") => &["0.5.14"],
        ("b200_sxm", "trtllm") => &["1.3.0rc20"],
        ("h100_sxm", "vllm") => &["0.24.0"],
        ("h200_sxm", "vllm") => &["0.24.0", "0.19.0"],
        ("h100_sxm" | "h200_sxm", "sglang") => &["0.5.14", "0.5.10"],
        ("h100_sxm" | "h200_sxm", "trtllm") => &["1.3.0rc20", "1.3.0rc10"],
        _ => &[],
    }
}

/// Where the balanced expert kernels of `device` are looked for, best first: the
/// engine's own, then those of the device's usual one, then the same device but for
/// its memory. Which of them are believed is [`believed`]'s to say.
fn experts_sources(device: &str) -> Vec<Source> {
    let (device, usual, others, like): (_, _, &[&'static str], &[&'static str]) = match device {
        "a100" => ("a100", "sglang", &[], &["a100_sxm"]),
        "b200" => ("b200", "vllm", &["sglang", "trtllm"], &["b200_sxm"]),
        "h100" => (
            "h100",
            "vllm",
            &["sglang", "trtllm"],
            &["h100_sxm", "h200_sxm"],
        ),
        "h200" => ("h200", "vllm", &["sglang", "trtllm"], &["h200_sxm"]),
        _ => return Vec::new(),
    };
    let mut list = Vec::new();
    let kept_for = std::iter::once(None).chain(others.iter().map(|&other| Some(other)));
    for only_for in kept_for {
        for engine in only_for.into_iter().chain([usual]) {
            for &system in like {
                for &version in experts_versions(system, engine) {
                    list.push(Source {
                        device,
                        only_for,
                        table: Table::Experts,
                        system,
                        family: "moe",
                        engine,
                        version: Some(version),
                        file: "moe_perf",
                    });
                }
            }
        }
    }
    let deepep: &[&'static str] = match device {
        "a100" => &[],
        "b200" => &["0.5.10"],
        _ => &["0.5.10", "0.5.6.post2"],
    };
    for (table, file) in [
        (Table::ExpertsDeepgemmPrefill, "wideep_context_moe_perf"),
        (Table::ExpertsDeepgemmDecode, "wideep_generation_moe_perf"),
    ] {
        for &version in deepep {
            list.push(Source {
                device,
                only_for: None,
                table,
                system: like[0],
                family: "moe",
                engine: "sglang",
                version: Some(version),
                file,
            });
        }
    }
    list
}

/// Tables of the other two engines, for the one device where that is worth
/// their size. What they lack is answered by the device's usual tables.
fn other_engines() -> Vec<Source> {
    let common = [
        (Table::Gemm, "gemm", "gemm_perf"),
        (
            Table::ContextAttention,
            "attention",
            "context_attention_perf",
        ),
        (
            Table::GenerationAttention,
            "attention",
            "generation_attention_perf",
        ),
        (Table::Moe, "moe", "moe_perf"),
        (Table::AllReduce, "comm", "custom_allreduce_perf"),
    ];
    let mla_parts = [
        (Table::ContextMla, "mla", "context_mla_perf"),
        (Table::GenerationMla, "mla", "generation_mla_perf"),
        (Table::MlaBmm, "mla_bmm", "mla_bmm_perf"),
    ];
    let mla_blocks = [
        (Table::MlaContextModule, "mla", "mla_context_module_perf"),
        (
            Table::MlaGenerationModule,
            "mla",
            "mla_generation_module_perf",
        ),
    ];
    let delta_net = [(Table::GatedDeltaNet, "linear_attention", "gdn_perf")];
    let earlier = [(Table::MoeEarlier, "moe", "moe_perf")];
    let of = |engine, version| {
        move |(table, family, file)| Source {
            device: "h200",
            only_for: Some(engine),
            table,
            system: "h200_sxm",
            family,
            engine,
            version: Some(version),
            file,
        }
    };
    let mut list = Vec::new();
    list.extend(common.map(of("sglang", "0.5.14")));
    list.extend(mla_parts.map(of("sglang", "0.5.14")));
    list.extend(delta_net.map(of("sglang", "0.5.14")));
    list.extend(earlier.map(of("sglang", "0.5.10")));
    list.extend(common.map(of("trtllm", "1.3.0rc20")));
    list.extend(mla_blocks.map(of("trtllm", "1.3.0rc20")));
    list.extend(earlier.map(of("trtllm", "1.3.0rc10")));
    list
}

/// Imports the selection for `devices` (empty: all) from the unpacked package
/// at `package` into `out`, and returns the new manifest. Entries of other
/// devices in an existing manifest are kept.
///
/// # Errors
/// If the package or one of its files is missing or not as expected, or `out`
/// cannot be written.
pub fn import_aiconfigurator(
    package: &Path,
    out: &Path,
    devices: &[String],
) -> Result<Manifest, SiliconError> {
    let systems = systems_directory(package)?;
    let wanted: Vec<&str> = match devices {
        [] => DEVICES.to_vec(),
        some => some
            .iter()
            .map(|name| known_device(name))
            .collect::<Result<_, _>>()?,
    };
    let unwritable = |reason: String| SiliconError::Write {
        path: out.display().to_string(),
        reason,
    };
    std::fs::create_dir_all(out).map_err(|error| unwritable(error.to_string()))?;
    let _lock = DirectoryLock::acquire(out).map_err(|error| match error {
        LockError::Held { .. } => SiliconError::Locked(error.to_string()),
        LockError::Io { .. } => unwritable(error.to_string()),
    })?;
    let manifest_path = out.join(MANIFEST_FILE);
    let mut tables = match input_file::read_text(&manifest_path, InputKind::Description) {
        Ok(text) => Manifest::parse(&manifest_path.display().to_string(), &text)?.tables,
        Err(_) => Vec::new(),
    };
    let (old, kept): (Vec<_>, Vec<_>) = tables
        .into_iter()
        .partition(|entry| wanted.contains(&entry.device.as_str()));
    tables = kept;
    for device in wanted {
        tables.extend(import_device(&systems, device, out)?);
    }
    for entry in old {
        if !tables.iter().any(|table| table.file == entry.file) {
            remove(&out.join(&entry.file))?;
        }
    }
    tables.sort_by(|a, b| a.file.cmp(&b.file));
    let manifest = Manifest {
        package: format!("aiconfigurator-core {}", package_version(&systems)),
        licence: LICENCE.into(),
        copyright: COPYRIGHT.into(),
        tables,
    };
    write(&manifest_path, manifest.to_yaml().as_bytes())?;
    Ok(manifest)
}

fn known_device(name: &str) -> Result<&'static str, SiliconError> {
    DEVICES
        .into_iter()
        .find(|device| *device == name || format!("{device}_sxm") == name)
        .ok_or_else(|| SiliconError::UnknownDevice {
            device: name.to_owned(),
            known: DEVICES.join(", "),
        })
}

/// Imports one device. Files of the package that share a table are joined.
fn import_device(
    systems: &Path,
    device: &str,
    out: &Path,
) -> Result<Vec<TableEntry>, SiliconError> {
    // `moe` comes before `moe_earlier`, which leaves out what it has.
    let mut by_file: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    let mut moe_layers = HashSet::new();
    for source in sources(device) {
        let overlay = source.only_for.map_or(String::new(), |e| format!("{e}/"));
        let file = format!("{}/{overlay}{}.parquet", source.device, source.table.name());
        by_file.entry(file).or_default().push(source);
    }
    let mut entries = Vec::new();
    for (file, sources) in by_file {
        let mut rows = Vec::new();
        let mut experts = Vec::new();
        let mut origins = Vec::new();
        let (table, engine) = (sources[0].table, sources[0].engine);
        for source in sources {
            let version = match source.version {
                Some(version) => version.to_owned(),
                None => nccl_version(systems, source.system)?,
            };
            let path = format!(
                "{}/{}/{}/{version}/{}.parquet",
                source.system, source.family, source.engine, source.file
            );
            let frame = read(&systems.join("data").join(&path), &path)?;
            match table {
                Table::Experts | Table::ExpertsDeepgemmPrefill | Table::ExpertsDeepgemmDecode => {
                    experts.push(select_experts(&frame)?);
                }
                _ => rows.extend(select(table, source.file, &frame)?),
            }
            origins.push(Origin {
                device: source.system.trim_end_matches("_sxm"),
                engine: source.engine,
                version,
                path,
            });
        }
        if !experts.is_empty() {
            let believed = match table {
                Table::Experts => believed::own_kernels(&experts),
                _ => believed::deepgemm(&experts, table == Table::ExpertsDeepgemmPrefill),
            };
            let used: HashSet<usize> = believed.iter().map(|&(source, _)| source).collect();
            rows.extend(
                (believed.into_iter()).map(|(source, row)| experts_row(&origins[source], row)),
            );
            let mut index = 0..origins.len();
            origins.retain(|_| index.next().is_some_and(|index| used.contains(&index)));
        }
        match table {
            Table::Moe => moe_layers = rows.iter().map(curve_key).collect(),
            Table::MoeEarlier => rows.retain(|row| !moe_layers.contains(&curve_key(row))),
            _ => {}
        }
        let paths: Vec<_> = origins.iter().map(|origin| origin.path.as_str()).collect();
        let mut versions: Vec<String> = Vec::new();
        for origin in &origins {
            let version = origin.version_beside(device, engine);
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        let rows = order(table, rows);
        let count = rows.len();
        if count == 0 {
            return Err(SiliconError::Malformed {
                file: paths.join(", "),
                reason: "holds no row of the selection".into(),
            });
        }
        let bytes = encode(columns(table, rows))?;
        write(&out.join(&file), &bytes)?;
        entries.push(TableEntry {
            file,
            device: device.to_owned(),
            table,
            engine: engine.to_owned(),
            version: versions.join(" + "),
            source: paths.join(" + "),
            rows: count,
            bytes: bytes.len(),
            blake3: blake3::hash(&bytes).to_hex().to_string(),
        });
    }
    Ok(entries)
}

/// Where rows of a table come from.
struct Origin {
    /// Device measured.
    device: &'static str,
    engine: &'static str,
    version: String,
    path: String,
}

impl Origin {
    /// The version, with engine and device where they are not those of the table.
    fn version_beside(&self, device: &str, engine: &str) -> String {
        let mut text = String::new();
        if self.device != device {
            text = format!("{} ", self.device);
        }
        if self.engine != engine {
            text += &format!("{} ", self.engine);
        }
        text + &self.version
    }
}

/// One row of ours: keys in the order of the table's columns, and the time.
struct Row {
    texts: Vec<String>,
    numbers: Vec<u32>,
    latency_ms: f32,
}

/// The keys of a row but for the axis of its curve.
fn curve_key(row: &Row) -> (Vec<String>, Vec<u32>) {
    let keys = &row.numbers[..row.numbers.len() - 1];
    (row.texts.clone(), keys.to_vec())
}

/// Sorts by keys and keeps the first of equal ones. GEMM shapes stay in the
/// order in which the source first names them (walking tokens, then output,
/// then input widths, each in order of first appearance): where two measured
/// shapes are equally near to an unmeasured one, that order decides.
fn order(table: Table, mut rows: Vec<Row>) -> Vec<Row> {
    let ranks = match table {
        Table::Gemm => gemm_shape_ranks(&rows),
        _ => HashMap::new(),
    };
    let rank = |row: &Row| match table {
        Table::Gemm => ranks[&(row.texts[0].clone(), row.numbers[0], row.numbers[1])],
        _ => 0,
    };
    rows.sort_by_cached_key(|row| (row.texts.clone(), rank(row), row.numbers.clone()));
    rows.dedup_by(|later, kept| later.texts == kept.texts && later.numbers == kept.numbers);
    rows
}

/// Rank of each (dtype, output width, input width) in the walk that [`order`]
/// describes.
fn gemm_shape_ranks(rows: &[Row]) -> HashMap<(String, u32, u32), usize> {
    /// Position of `key` among the distinct keys seen so far under `parent`.
    fn position<K: std::hash::Hash + Eq>(seen: &mut HashMap<K, usize>, key: K) -> usize {
        let next = seen.len();
        *seen.entry(key).or_insert(next)
    }
    let (mut tokens, mut outs, mut ins) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut first: HashMap<(String, u32, u32), [usize; 3]> = HashMap::new();
    for row in rows {
        let dtype = &row.texts[0];
        let [out, inp, m] = [row.numbers[0], row.numbers[1], row.numbers[2]];
        // Positions only need to be in order of first appearance, so counting
        // over all parents together serves.
        let walk = [
            position(&mut tokens, (dtype.clone(), m)),
            position(&mut outs, (dtype.clone(), m, out)),
            position(&mut ins, (dtype.clone(), m, out, inp)),
        ];
        first
            .entry((dtype.clone(), out, inp))
            .and_modify(|best| *best = walk.min(*best))
            .or_insert(walk);
    }
    let mut shapes: Vec<_> = first.into_iter().collect();
    shapes.sort_by(|a, b| (&a.0.0, a.1).cmp(&(&b.0.0, b.1)));
    shapes
        .into_iter()
        .enumerate()
        .map(|(rank, (shape, _))| (shape, rank))
        .collect()
}

fn columns(table: Table, rows: Vec<Row>) -> Vec<(&'static str, Column)> {
    let mut columns = Vec::new();
    for (i, &name) in table.text_columns().iter().enumerate() {
        let values = rows.iter().map(|row| row.texts[i].clone()).collect();
        columns.push((name, Column::Text(values)));
    }
    for (i, &name) in table.number_columns().iter().enumerate() {
        let values = rows.iter().map(|row| row.numbers[i]).collect();
        columns.push((name, Column::Number(values)));
    }
    let values = rows.iter().map(|row| row.latency_ms).collect();
    columns.push((LATENCY, Column::Real(values)));
    columns
}

/// Reads cells of a source file by column name.
struct Cells<'a> {
    frame: &'a Frame,
    texts: BTreeMap<&'static str, Texts>,
    numbers: BTreeMap<&'static str, ScalarBuffer<u32>>,
}

impl<'a> Cells<'a> {
    fn new(
        frame: &'a Frame,
        texts: &[&'static str],
        numbers: &[&'static str],
    ) -> Result<Self, SiliconError> {
        let texts = texts.iter().map(|&c| Ok((c, frame.texts(c)?)));
        let numbers = numbers.iter().map(|&c| Ok((c, frame.numbers(c)?)));
        Ok(Self {
            frame,
            texts: texts.collect::<Result<_, SiliconError>>()?,
            numbers: numbers.collect::<Result<_, SiliconError>>()?,
        })
    }

    fn text(&self, column: &str, row: usize) -> &str {
        self.texts[column].value(row)
    }

    fn number(&self, column: &str, row: usize) -> u32 {
        self.numbers[column][row]
    }

    /// Rows for which `make` gives keys, with the times of column `latency`.
    fn rows(
        &self,
        latencies_ms: &[f64],
        make: impl Fn(&Self, usize) -> Option<(Vec<String>, Vec<u32>)>,
    ) -> Vec<Row> {
        (0..self.frame.rows())
            .filter_map(|row| {
                let (texts, numbers) = make(self, row)?;
                Some(Row {
                    texts,
                    numbers,
                    latency_ms: single(latencies_ms[row]),
                })
            })
            .collect()
    }
}

/// The rows of our selection in a file of the package.
fn select(table: Table, file: &str, frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    match table {
        Table::Gemm => select_gemm(frame),
        Table::ContextAttention | Table::GenerationAttention => {
            select_attention(table == Table::ContextAttention, frame)
        }
        Table::MlaContextModule | Table::MlaGenerationModule => {
            select_mla(table == Table::MlaContextModule, true, frame)
        }
        Table::ContextMla | Table::GenerationMla => {
            select_mla(table == Table::ContextMla, false, frame)
        }
        Table::MlaBmm => select_mla_bmm(frame),
        Table::Moe | Table::MoeEarlier => select_moe(frame),
        // Judged together, source by source: `select_experts`.
        Table::Experts | Table::ExpertsDeepgemmPrefill | Table::ExpertsDeepgemmDecode => {
            Ok(Vec::new())
        }
        Table::GatedDeltaNet => select_delta_net(frame),
        Table::AllReduce => select_all_reduce(frame),
        Table::Nccl => select_nccl(frame),
        Table::ExpertExchange => select_exchange(frame),
        Table::ExpertExchangeWide | Table::ExpertExchangeMultinode => {
            select_deepep(file == "wideep_deepep_ll_perf", frame)
        }
    }
}

fn select_gemm(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let cells = Cells::new(frame, &["gemm_dtype"], &["m", "n", "k"])?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let shape = ["n", "k", "m"].map(|axis| c.number(axis, row));
        Some((vec![c.text("gemm_dtype", row).into()], shape.into()))
    }))
}

/// Attention without a sliding window. `isl` is the prompt of a context row
/// and 1 in a generation row, whose KV cache holds `isl + step` tokens.
fn select_attention(context: bool, frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let mut numbers = vec![
        "batch_size",
        "isl",
        "step",
        "num_heads",
        "num_key_value_heads",
    ];
    numbers.push("head_dim");
    let windowed = frame.has("window_size");
    if windowed {
        numbers.push("window_size");
    }
    let cells = Cells::new(frame, &["attn_dtype", "kv_cache_dtype"], &numbers)?;
    let in_window = |row: usize| windowed && cells.number("window_size", row) != 0;
    // Prompts are multiplied in 16 bits, unless the engine has only kernels in
    // the cache's format for that cache.
    let sixteen_bits: HashSet<(&str, u32)> = (0..frame.rows())
        .filter(|&row| !in_window(row) && cells.text("attn_dtype", row) == "bfloat16")
        .map(|row| {
            (
                cells.text("kv_cache_dtype", row),
                cells.number("head_dim", row),
            )
        })
        .collect();
    let usual = |row: usize| {
        let dtype = cells.text("attn_dtype", row);
        let kv_dtype = cells.text("kv_cache_dtype", row);
        let only_own = !sixteen_bits.contains(&(kv_dtype, cells.number("head_dim", row)));
        dtype == "bfloat16" || dtype == kv_dtype && only_own
    };
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let head_dim = c.number("head_dim", row);
        let [batch, isl, step] = ["batch_size", "isl", "step"].map(|axis| c.number(axis, row));
        let skip = in_window(row)
            || !HEAD_DIMS.contains(&head_dim)
            || context && (step != 0 || !usual(row));
        let sequence = if context {
            [isl, batch]
        } else {
            [batch, isl + step]
        };
        let heads = ["num_key_value_heads", "num_heads"].map(|axis| c.number(axis, row));
        let keys = [&[head_dim][..], &heads, &sequence].concat();
        (!skip).then(|| (vec![c.text("kv_cache_dtype", row).into()], keys))
    }))
}

/// MLA attention, alone or as a whole block with its projections.
fn select_mla(context: bool, module: bool, frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let mut texts = vec!["mla_dtype", "kv_cache_dtype"];
    if module {
        texts.push("gemm_type");
    }
    let cells = Cells::new(frame, &texts, &["num_heads", "batch_size", "isl", "step"])?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let [heads, batch] = ["num_heads", "batch_size"].map(|axis| c.number(axis, row));
        let [isl, step] = ["isl", "step"].map(|axis| c.number(axis, row));
        let skip = c.text("mla_dtype", row) != "bfloat16" || context && step != 0;
        let keys = if context {
            [heads, isl, batch]
        } else {
            [heads, batch, isl + step]
        };
        let kv_dtype = c.text("kv_cache_dtype", row).to_owned();
        let texts = match module {
            true => vec![c.text("gemm_type", row).into(), kv_dtype],
            false => vec![kv_dtype],
        };
        (!skip).then(|| (texts, keys.into()))
    }))
}

fn select_mla_bmm(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let cells = Cells::new(
        frame,
        &["op_name", "bmm_dtype"],
        &["num_heads", "num_tokens"],
    )?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let side = match c.text("op_name", row) {
            "mla_gen_pre" => "before",
            "mla_gen_post" => "after",
            _ => return None,
        };
        let keys = ["num_heads", "num_tokens"].map(|axis| c.number(axis, row));
        Some((
            vec![c.text("bmm_dtype", row).into(), side.into()],
            keys.into(),
        ))
    }))
}

fn select_moe(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let axes = ["hidden_size", "inter_size", "topk", "num_experts"];
    let cuts = ["moe_tp_size", "moe_ep_size", "num_tokens"];
    let cells = Cells::new(
        frame,
        &["moe_dtype", "distribution"],
        &[&axes[..], &cuts].concat(),
    )?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let layer = axes.map(|axis| c.number(axis, row));
        let keys = [
            layer.to_vec(),
            cuts.map(|axis| c.number(axis, row)).to_vec(),
        ]
        .concat();
        let dtype = experts_dtype(c.text("moe_dtype", row));
        MOE_LAYERS
            .contains(&layer)
            .then(|| (vec![dtype.into(), c.text("distribution", row).into()], keys))
    }))
}

/// Rows of routed experts of our layers, but for kernels that an engine has only for
/// the fewest tokens.
fn select_experts(frame: &Frame) -> Result<Vec<ExpertsRow>, SiliconError> {
    let axes = ["hidden_size", "inter_size", "topk", "num_experts"];
    let cuts = ["moe_tp_size", "moe_ep_size", "num_tokens"];
    let texts = ["moe_dtype", "distribution", "kernel_source"];
    let cells = Cells::new(frame, &texts, &[&axes[..], &cuts].concat())?;
    let latencies_ms = frame.times("latency")?;
    Ok((0..frame.rows())
        .filter_map(|row| {
            let layer = axes.map(|axis| cells.number(axis, row));
            let [expert_tensor_parallel, expert_parallel, tokens] =
                cuts.map(|axis| cells.number(axis, row));
            let few = cells.text("kernel_source", row).ends_with("_min_latency");
            (MOE_LAYERS.contains(&layer) && !few).then(|| ExpertsRow {
                dtype: experts_dtype(cells.text("moe_dtype", row)).to_owned(),
                load: cells.text("distribution", row).to_owned(),
                layer,
                expert_tensor_parallel,
                expert_parallel,
                tokens,
                latency_ms: single(latencies_ms[row]),
            })
        })
        .collect())
}

fn experts_row(origin: &Origin, row: ExpertsRow) -> Row {
    let kernels = format!("{} {}", origin.engine, origin.version);
    let cuts = [row.expert_tensor_parallel, row.expert_parallel, row.tokens];
    Row {
        texts: vec![row.dtype, origin.device.to_owned(), kernels],
        numbers: [&row.layer[..], &cuts].concat(),
        latency_ms: row.latency_ms,
    }
}

fn experts_dtype(name: &str) -> &str {
    match name {
        "int4_wo" => "int4",
        other => other,
    }
}

fn select_delta_net(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let numbers = [
        "d_model",
        "num_k_heads",
        "num_v_heads",
        "batch_size",
        "seq_len",
    ];
    let cells = Cells::new(frame, &["phase", "kernel_source"], &numbers)?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let phase = match c.text("phase", row) {
            "context" => "prefill",
            "generation" => "decode",
            _ => return None,
        };
        let kernel = match c.text("kernel_source", row) {
            "causal_conv1d_fn" | "causal_conv1d_update" => "convolution",
            _ => "recurrence",
        };
        let keys = ["num_k_heads", "num_v_heads", "batch_size", "seq_len"];
        let keys = keys.map(|axis| c.number(axis, row));
        (c.number("d_model", row) == DELTA_NET_WIDTH)
            .then(|| (vec![phase.into(), kernel.into()], keys.into()))
    }))
}

/// Rows measured inside a CUDA graph; eager ones are not what engines run.
/// Message sizes are in 16-bit elements.
fn select_all_reduce(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let axes = ["num_gpus", "message_size"];
    let cells = Cells::new(frame, &["kernel_source"], &axes)?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let eager = c.text("kernel_source", row).ends_with("_eager");
        let keys = ["num_gpus", "message_size"].map(|axis| c.number(axis, row));
        (!eager).then(|| (Vec::new(), keys.into()))
    }))
}

fn select_nccl(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let cells = Cells::new(
        frame,
        &["op_name", "nccl_dtype"],
        &["num_gpus", "message_size"],
    )?;
    Ok(cells.rows(&frame.times("latency")?, |c, row| {
        let collective = match c.text("op_name", row) {
            "alltoall" => "all_to_all",
            other => other,
        };
        let keys = ["num_gpus", "message_size"].map(|axis| c.number(axis, row));
        (c.text("nccl_dtype", row) == "half").then(|| (vec![collective.into()], keys.into()))
    }))
}

/// DeepEP as the engine ran it; `latency` is in microseconds.
fn select_exchange(frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let numbers = [
        "ep_size",
        "hidden_size",
        "topk",
        "num_experts",
        "num_tokens",
    ];
    let cells = Cells::new(frame, &["comm_backend", "phase"], &numbers)?;
    let latencies_ms: Vec<f64> = frame.times("latency")?.iter().map(|us| us / 1e3).collect();
    Ok(cells.rows(&latencies_ms, |c, row| {
        let mode = match c.text("comm_backend", row) {
            "deepep_ll" => "low_latency",
            "deepep_ht" => "normal",
            _ => return None,
        };
        let keys = numbers.map(|axis| c.number(axis, row));
        Some((vec![mode.into(), c.text("phase", row).into()], keys.into()))
    }))
}

/// DeepEP's own benchmark: one row holds dispatch and combine, microseconds.
fn select_deepep(low_latency: bool, frame: &Frame) -> Result<Vec<Row>, SiliconError> {
    let mut numbers = vec![
        "node_num",
        "hidden_size",
        "num_topk",
        "num_experts",
        "num_token",
    ];
    if !low_latency {
        numbers.push("dispatch_sms");
    }
    let cells = Cells::new(frame, &[], &numbers)?;
    let mut rows = Vec::new();
    for phase in ["dispatch", "combine"] {
        let parts: &[&str] = if low_latency {
            &["avg_t_us"]
        } else {
            &["transmit_us", "notify_us"]
        };
        let mut latencies_ms = vec![0.0; frame.rows()];
        for part in parts {
            let values = frame.times(&format!("{phase}_{part}"))?;
            latencies_ms
                .iter_mut()
                .zip(values)
                .for_each(|(sum, us)| *sum += us / 1e3);
        }
        rows.extend(cells.rows(&latencies_ms, |c, row| {
            let gpus = c.number("node_num", row) * GPUS_PER_NODE;
            let keys = ["hidden_size", "num_topk", "num_experts", "num_token"];
            let keys = [vec![gpus], keys.map(|axis| c.number(axis, row)).to_vec()].concat();
            let mode = if low_latency { "low_latency" } else { "normal" };
            (low_latency || c.number("dispatch_sms", row) == EXCHANGE_SMS)
                .then(|| (vec![mode.into(), phase.into()], keys))
        }));
    }
    Ok(rows)
}

/// The directory with the systems' YAML files and `data`.
fn systems_directory(package: &Path) -> Result<PathBuf, SiliconError> {
    ["aiconfigurator_core/systems", "systems", "."]
        .iter()
        .map(|below| package.join(below))
        .find(|path| path.join("data").is_dir())
        .ok_or_else(|| SiliconError::Read {
            path: package.display().to_string(),
            reason: "no `aiconfigurator_core/systems/data` inside: \
                     give the directory the package was unpacked into"
                .into(),
        })
}

/// Version of the package, from the metadata that pip installs beside it.
fn package_version(systems: &Path) -> String {
    let site = systems.ancestors().nth(2).unwrap_or(systems);
    let directories = std::fs::read_dir(site).into_iter().flatten().flatten();
    directories
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name
                .strip_prefix("aiconfigurator_core-")?
                .strip_suffix(".dist-info")?;
            Some(version.to_owned())
        })
        .max()
        .unwrap_or_else(|| "(version not stated)".into())
}

/// The NCCL version that the description of `system` names.
fn nccl_version(systems: &Path, system: &str) -> Result<String, SiliconError> {
    let path = systems.join(format!("{system}.yaml"));
    let text = input_file::read_text(&path, InputKind::Description)
        .map_err(|error| read_error(&path, &error))?;
    let malformed = |reason: String| SiliconError::Malformed {
        file: path.display().to_string(),
        reason,
    };
    let documents = Yaml::load_from_str(&text).map_err(|error| malformed(error.to_string()))?;
    documents
        .first()
        .and_then(|root| root.as_mapping_get("misc"))
        .and_then(|misc| misc.as_mapping_get("nccl_version"))
        .and_then(|value| value.as_str().map(str::to_owned))
        .ok_or_else(|| malformed("`misc.nccl_version` is missing".into()))
}

fn read(path: &Path, name: &str) -> Result<Frame, SiliconError> {
    let bytes =
        input_file::read(path, InputKind::KernelTable).map_err(|error| read_error(path, &error))?;
    Frame::read(name, Bytes::from(bytes))
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SiliconError> {
    let failed = |error: std::io::Error| SiliconError::Write {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    output_file::write_whole(path, bytes).map_err(failed)
}

/// Removes a file that an earlier import left.
fn remove(path: &Path) -> Result<(), SiliconError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SiliconError::Write {
            path: path.display().to_string(),
            reason: error.to_string(),
        }),
        _ => Ok(()),
    }
}

fn read_error(path: &Path, error: &std::io::Error) -> SiliconError {
    SiliconError::Read {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(values: &[u32]) -> Column {
        Column::Number(values.to_vec())
    }

    fn frame(columns: Vec<(&str, Column)>) -> Frame {
        let bytes = encode(columns).unwrap();
        Frame::read("test", Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for (time, said) in [(-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            for (name, read) in [
                (LATENCY, (|f| f.latencies_ms().map(drop)) as fn(&Frame) -> _),
                ("latency", |f| f.times("latency").map(drop)),
            ] {
                let source = frame(vec![(name, Column::Real(vec![0.5, time]))]);
                let told = read(&source).expect_err("no time").to_string();
                let expected = format!("test: column `{name}` has {said} in row 2");
                assert!(told.starts_with(&expected), "{told}");
            }
        }
    }

    #[test]
    fn keeps_the_first_of_equal_rows_and_the_order_of_gemm_shapes() {
        let source = frame(vec![
            ("gemm_dtype", Column::Text(vec!["bfloat16".into(); 5])),
            ("m", number(&[2, 2, 1, 1, 2])),
            ("n", number(&[64, 32, 32, 64, 64])),
            ("k", number(&[8, 8, 8, 8, 8])),
            ("latency", Column::Real(vec![1.0, 2.0, 3.0, 4.0, 5.0])),
        ]);
        let rows = order(Table::Gemm, select_gemm(&source).unwrap());
        let kept: Vec<_> = rows
            .iter()
            .map(|r| (r.numbers.clone(), r.latency_ms))
            .collect();
        // Shape 64x8 is named first; its second measurement at 2 rows is dropped.
        assert_eq!(
            kept,
            [
                (vec![64, 8, 1], 4.0),
                (vec![64, 8, 2], 1.0),
                (vec![32, 8, 1], 3.0),
                (vec![32, 8, 2], 2.0),
            ]
        );
    }

    #[test]
    fn splits_deepep_rows_into_milliseconds_of_both_phases() {
        let source = frame(vec![
            ("node_num", number(&[2, 2])),
            ("hidden_size", number(&[7168, 7168])),
            ("num_topk", number(&[8, 8])),
            ("num_experts", number(&[256, 256])),
            ("num_token", number(&[64, 64])),
            ("dispatch_sms", number(&[20, 24])),
            ("dispatch_transmit_us", Column::Real(vec![30.0, 1.0])),
            ("dispatch_notify_us", Column::Real(vec![5.0, 1.0])),
            ("combine_transmit_us", Column::Real(vec![50.0, 1.0])),
            ("combine_notify_us", Column::Real(vec![10.0, 1.0])),
        ]);
        let rows = select_deepep(false, &source).unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|r| (r.texts[1].as_str(), r.numbers[0], r.latency_ms))
            .collect();
        assert_eq!(found, [("dispatch", 16, 0.035), ("combine", 16, 0.06)]);
    }

    #[test]
    fn drops_eager_all_reduce_and_windowed_attention() {
        let source = frame(vec![
            (
                "kernel_source",
                Column::Text(vec!["vLLM_custom_eager".into(), "vLLM_custom_graph".into()]),
            ),
            ("num_gpus", number(&[8, 8])),
            ("message_size", number(&[128, 128])),
            ("latency", Column::Real(vec![0.02, 0.004])),
        ]);
        let rows = select_all_reduce(&source).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].latency_ms, 0.004);

        let texts = |value: &str| Column::Text(vec![value.into(); 3]);
        let source = frame(vec![
            ("attn_dtype", texts("bfloat16")),
            ("kv_cache_dtype", texts("fp8")),
            ("batch_size", number(&[4, 4, 4])),
            ("isl", number(&[1, 1, 1])),
            ("step", number(&[255, 255, 255])),
            ("num_heads", number(&[32, 32, 32])),
            ("num_key_value_heads", number(&[8, 8, 8])),
            ("head_dim", number(&[128, 128, 64])),
            ("window_size", number(&[0, 128, 0])),
            ("latency", Column::Real(vec![1.0, 2.0, 3.0])),
        ]);
        let rows = select_attention(false, &source).unwrap();
        assert_eq!(rows.len(), 1);
        // The cache holds the step's predecessors and the new token.
        assert_eq!(rows[0].numbers, [128, 8, 32, 4, 256]);
    }
}
