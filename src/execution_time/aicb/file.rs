//! AICB's files: names, columns, units.
//!
//! `vidur-{Model}-world_size{W}-tp{T}-pp{P}-ep{E}-bs{B}-seq{S}-{phase}.csv`, tab
//! separated with the header `layer_id layer_name comp_time comm_size`. Times are
//! nanoseconds of one layer on one rank, sizes are bytes.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::catalog::{Attention, ModelSpec};
use crate::input_file::{self, InputKind, tame_line};
use crate::limits::{COLLECTIVE_BYTES_MAX, LAYERS_MAX, STEP_TIME_S_MAX};

const HEADER: [&str; 4] = ["layer_id", "layer_name", "comp_time", "comm_size"];
const SECONDS_PER_NS: f64 = 1e-9;

/// Bytes that a row may say are sent.
const COMM_BYTES_MAX: f64 = COLLECTIVE_BYTES_MAX as f64;

/// Which half of serving a file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Prompts.
    Prefill,
    /// One token per sequence.
    Decode,
}

impl Phase {
    /// The word in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// What a file's name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    /// AICB's name of the model, e.g. `DeepSeek-671B`.
    pub model: String,
    /// GPUs.
    pub world_size: u32,
    /// Tensor-parallel ways.
    pub tensor_parallel: u32,
    /// Pipeline stages.
    pub pipeline_parallel: u32,
    /// Expert-parallel ways.
    pub expert_parallel: u32,
    /// Phase.
    pub phase: Phase,
    /// Sequences; always 1 in prefill.
    pub batch_size: u32,
    /// Tokens of the prompt, or in the cache of each sequence.
    pub sequence: u64,
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "vidur-{}-world_size{}-tp{}-pp{}-ep{}-bs{}-seq{}-{}.csv",
            self.model,
            self.world_size,
            self.tensor_parallel,
            self.pipeline_parallel,
            self.expert_parallel,
            self.batch_size,
            self.sequence,
            self.phase.name()
        )
    }
}

impl FileKey {
    /// Reads a file name; none if it is not one of AICB's.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix("vidur-")?.strip_suffix(".csv")?;
        let (rest, phase) = match stem.strip_suffix("-prefill") {
            Some(rest) => (rest, Phase::Prefill),
            None => (stem.strip_suffix("-decode")?, Phase::Decode),
        };
        let (rest, sequence) = rest.rsplit_once("-seq")?;
        let (rest, batch_size) = rest.rsplit_once("-bs")?;
        let (rest, expert_parallel) = rest.rsplit_once("-ep")?;
        let (rest, pipeline_parallel) = rest.rsplit_once("-pp")?;
        let (rest, tensor_parallel) = rest.rsplit_once("-tp")?;
        let (model, world_size) = rest.rsplit_once("-world_size")?;
        Some(Self {
            model: model.to_owned(),
            world_size: world_size.parse().ok()?,
            tensor_parallel: tensor_parallel.parse().ok()?,
            pipeline_parallel: pipeline_parallel.parse().ok()?,
            expert_parallel: expert_parallel.parse().ok()?,
            phase,
            batch_size: batch_size.parse().ok()?,
            sequence: sequence.parse().ok()?,
        })
    }
}

/// AICB's name of a model, by architecture; none for models it does not know.
pub(super) fn aicb_model(model: &ModelSpec) -> Option<&'static str> {
    let experts = model.moe.as_ref()?.experts;
    if model.local_attention.is_some() {
        return None;
    }
    match (&model.attention, &model.linear_attention) {
        (Attention::Mla { .. }, None) if model.layers == 61 && experts == 256 => {
            Some("DeepSeek-671B")
        }
        (Attention::Gqa { .. }, None) if model.layers == 94 && experts == 128 => {
            Some("Qwen3-Moe-235B")
        }
        (Attention::Gqa { .. }, Some(_)) if model.layers == 48 && experts == 512 => {
            Some("Qwen3-Next-80B")
        }
        _ => None,
    }
}

/// One row: a part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Row {
    /// Compute time in nanoseconds, as in the file.
    pub compute_ns: f64,
    /// Bytes sent after it.
    pub comm_bytes: f64,
}

impl Row {
    /// Compute time, seconds.
    pub fn compute_s(self) -> f64 {
        self.compute_ns * SECONDS_PER_NS
    }
}

/// The parts of one layer; what a file lacks is zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LayerRows {
    /// Attention block.
    pub attention: Row,
    /// Dense MLP.
    pub mlp: Row,
    /// Experts.
    pub moe: Row,
}

/// One file, by layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AicbFile {
    /// Layers from 0 on.
    pub layers: Vec<LayerRows>,
}

/// What is wrong with a file or folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {}", path.display(), position.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default(), tame_line(message))]
pub struct AicbError {
    /// File or folder.
    pub path: PathBuf,
    /// Line and column, from 1.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl AicbError {
    pub(super) fn whole(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            position: None,
            message: message.into(),
        }
    }
}

impl AicbFile {
    /// Reads a file's text; `path` is for messages.
    ///
    /// # Errors
    /// If a row is not as described above, with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Self, AicbError> {
        let mut layers: Vec<LayerRows> = Vec::new();
        let mut seen: Vec<[bool; 3]> = Vec::new();
        let mut lines = text.lines().enumerate();
        let header = lines.next().map(|(_, line)| line).unwrap_or_default();
        if header.trim_end().split('\t').ne(HEADER) {
            return Err(AicbError {
                path: path.to_owned(),
                position: Some((1, 1)),
                message: format!(
                    "header `{}`; expected `{}`, tab separated",
                    header.trim_end(),
                    HEADER.join(" ")
                ),
            });
        }
        for (index, line) in lines {
            if line.trim().is_empty() {
                continue;
            }
            let record = Record { path, line, index };
            let layer = record.layer()?;
            if layer >= layers.len() {
                layers.resize(layer + 1, LayerRows::default());
                seen.resize(layer + 1, [false; 3]);
            }
            let row = Row {
                compute_ns: record.number(2, STEP_TIME_S_MAX / SECONDS_PER_NS)?,
                comm_bytes: record.number(3, COMM_BYTES_MAX)?,
            };
            let part = record.part()?;
            if std::mem::replace(&mut seen[layer][part], true) {
                return Err(record.error(1, "this part of the layer comes twice".to_owned()));
            }
            let rows = &mut layers[layer];
            *[&mut rows.attention, &mut rows.mlp, &mut rows.moe][part] = row;
        }
        if layers.is_empty() {
            return Err(AicbError::whole(path, "has no layers"));
        }
        Ok(Self { layers })
    }
}

/// One line of a file.
struct Record<'a> {
    path: &'a Path,
    line: &'a str,
    index: usize,
}

impl Record<'_> {
    fn field(&self, column: usize) -> Result<&str, AicbError> {
        let fields = self.line.trim_end().split('\t').count();
        if fields != HEADER.len() {
            return Err(self.error(0, format!("{fields} columns; expected 4")));
        }
        Ok(self.line.trim_end().split('\t').nth(column).unwrap_or(""))
    }

    fn layer(&self) -> Result<usize, AicbError> {
        let text = self.field(0)?;
        let layer = text
            .parse()
            .ok()
            .filter(|layer| *layer < LAYERS_MAX as usize);
        layer.ok_or_else(|| self.error(0, format!("layer_id `{text}`; expected a layer number")))
    }

    fn part(&self) -> Result<usize, AicbError> {
        match self.field(1)? {
            "attention" => Ok(0),
            "mlp" => Ok(1),
            "moe" => Ok(2),
            other => Err(self.error(
                1,
                format!("layer_name `{other}`; allowed are attention, mlp, moe"),
            )),
        }
    }

    fn number(&self, column: usize, most: f64) -> Result<f64, AicbError> {
        let text = self.field(column)?;
        let number = text.parse().ok();
        number
            .filter(|number: &f64| (0.0..=most).contains(number))
            .ok_or_else(|| {
                let name = HEADER[column];
                self.error(
                    column,
                    format!("{name} `{text}`; expected a number from 0 to {most:e}"),
                )
            })
    }

    fn error(&self, column: usize, message: String) -> AicbError {
        let before: usize = (self.line.split('\t').take(column))
            .map(|field| field.chars().count() + 1)
            .sum();
        AicbError {
            path: self.path.to_owned(),
            position: Some((self.index + 1, before + 1)),
            message,
        }
    }
}

/// Whether `directory` is there and has files that are named as AICB's; what is in
/// them, [`read_directory`] says.
pub fn has_files(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut keys = names.filter_map(|name| FileKey::parse(name.to_str()?));
    keys.next().is_some()
}

/// All of AICB's files in `directory`, in order of their keys. Other files are
/// passed over.
///
/// # Errors
/// If the folder cannot be read, holds none, or one of them is malformed.
pub fn read_directory(directory: &Path) -> Result<Vec<(FileKey, AicbFile)>, AicbError> {
    let unreadable = |path: &Path, error: std::io::Error| AicbError::whole(path, error.to_string());
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(key) = name.and_then(FileKey::parse) {
            let text = input_file::read_text(&path, InputKind::LayerTimes)
                .map_err(|error| unreadable(&path, error))?;
            files.push((key, AicbFile::parse(&path, &text)?));
        }
    }
    if files.is_empty() {
        return Err(AicbError::whole(
            directory,
            "has no files named vidur-MODEL-world_sizeW-tpT-ppP-epE-bsB-seqS-prefill.csv or -decode.csv",
        ));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_print_alike() {
        let name = "vidur-Qwen3-Moe-235B-world_size8-tp4-pp2-ep8-bs3-seq100-decode.csv";
        let key = FileKey::parse(name).unwrap();
        assert_eq!((key.model.as_str(), key.world_size), ("Qwen3-Moe-235B", 8));
        assert_eq!((key.batch_size, key.sequence), (3, 100));
        assert_eq!(key.to_string(), name);
        for other in [
            "notes.csv",
            "vidur-X-world_size8-tp4-pp2-ep8-bs3-seq-decode.csv",
        ] {
            assert_eq!(FileKey::parse(other), None, "{other}");
        }
    }

    #[test]
    fn columns_are_nanoseconds_and_bytes() {
        let text =
            "layer_id\tlayer_name\tcomp_time\tcomm_size\n0\tattention\t1500\t64\n1\tmoe\t2\t3\n";
        let file = AicbFile::parse(Path::new("f.csv"), text).unwrap();
        assert_eq!(file.layers[0].attention.compute_s(), 1.5e-6);
        assert_eq!(file.layers[1].moe.comm_bytes, 3.0);
        assert_eq!(file.layers[1].attention, Row::default());
    }

    #[test]
    fn errors_name_the_place() {
        let head = "layer_id\tlayer_name\tcomp_time\tcomm_size\n";
        for (row, expected) in [
            ("0\tattn\t1\t2", "f.csv:2:3: layer_name `attn`"),
            ("0\tmlp\tfast\t2", "f.csv:2:7: comp_time `fast`"),
            ("x\tmlp\t1\t2", "f.csv:2:1: layer_id `x`"),
            ("0\tmlp\t1", "f.csv:2:1: 3 columns"),
            ("0\tmlp\t1\t2\n0\tmlp\t1\t2", "f.csv:3:3: this part"),
        ] {
            let text = format!("{head}{row}\n");
            let error = AicbFile::parse(Path::new("f.csv"), &text).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        let error = AicbFile::parse(Path::new("f.csv"), "a,b\n").unwrap_err();
        assert!(error.to_string().starts_with("f.csv:1:1: header `a,b`"));
    }
}
