//! Readers of Vidur's profiling files: which rows count for a deployment, and
//! what an operator's time is a function of.
//!
//! As the original does it: equal rows count once; rows are kept whose shape,
//! tensor-parallel degree (and block size, or node layout) are the
//! deployment's; times are the medians of the profiled runs. The vocabulary
//! size is not compared: nothing priced here depends on it, and the files hold
//! a padded figure.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::sheet::{MILLISECONDS, Row, Sheet};
use super::{Op, Profile, VidurError};
use crate::input_file::{self, InputKind};

/// What rows of a deployment have in common.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ProfileShape {
    /// The name that `cpu_overheads.csv` gives the model.
    pub model_name: String,
    /// Query heads of the model.
    pub heads: u32,
    /// Key/value heads of the model.
    pub kv_heads: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Intermediate size of the MLP.
    pub intermediate_size: u32,
    /// Whether the MLP has a gate projection.
    pub gated_mlp: bool,
    /// Tensor-parallel degree.
    pub tensor_parallel: u32,
    /// Tokens of a KV cache block.
    pub block_size: u32,
    /// Ranks of a tensor-parallel group in one node.
    pub ranks_per_node: u32,
    /// Whether pipeline neighbours are in different nodes.
    pub across_nodes: bool,
}

impl ProfileShape {
    /// What the rows of a profile must have.
    fn wanted(&self, profile: Profile) -> Vec<(&'static str, Wanted)> {
        use Wanted::{Flag, Number, Text};
        let number = |value: u32| Number(f64::from(value));
        let tensor_parallel = number(self.tensor_parallel);
        match profile {
            Profile::Compute => vec![
                ("n_head", number(self.heads)),
                ("n_kv_head", number(self.kv_heads)),
                ("n_embd", number(self.hidden_size)),
                ("n_expanded_embd", number(self.intermediate_size)),
                ("use_gated_mlp", Flag(self.gated_mlp)),
                ("num_tensor_parallel_workers", tensor_parallel),
            ],
            Profile::Attention => vec![
                ("n_embd", number(self.hidden_size)),
                ("n_q_head", number(self.heads)),
                ("n_kv_head", number(self.kv_heads)),
                ("block_size", number(self.block_size)),
                ("num_tensor_parallel_workers", tensor_parallel),
            ],
            Profile::AllReduce => vec![
                ("collective", Text("all_reduce".into())),
                ("num_workers", tensor_parallel),
                ("devices_per_node", number(self.ranks_per_node)),
            ],
            Profile::SendRecv => vec![
                ("collective", Text("send_recv".into())),
                (
                    "devices_per_node",
                    number(if self.across_nodes { 1 } else { 2 }),
                ),
            ],
            Profile::CpuOverhead => vec![
                ("model_name", Text(self.model_name.clone())),
                ("tensor_parallel_degree", tensor_parallel),
            ],
        }
    }

    /// Everything of the deployment that samples of a profile depend on.
    pub(super) fn identity(&self, profile: Profile) -> String {
        format!("{:?} width {}", self.wanted(profile), self.hidden_size)
    }
}

/// Which rows of an operator are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rows {
    /// All that Vidur looks at.
    All,
    /// Those of prompt chunks.
    Prefill,
    /// Those of decodes.
    Decode,
}

/// Measurements of one operator: times by one or two features.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    pub(super) op: Op,
    /// Features, in the order of [`Op::features`]; the second is 0 where there
    /// is one.
    pub(super) points: Vec<[f64; 2]>,
    pub(super) times_ms: Vec<f64>,
}

impl Samples {
    /// Measurements of `op` at `points`, one time each.
    pub fn new(op: Op, points: Vec<[f64; 2]>, times_ms: Vec<f64>) -> Self {
        assert_eq!(points.len(), times_ms.len(), "one time a point");
        Self {
            op,
            points,
            times_ms,
        }
    }

    /// The operator.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Features of every measurement.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Time of every measurement.
    pub fn times_ms(&self) -> &[f64] {
        &self.times_ms
    }

    /// How many features there are.
    pub(super) fn dimensions(&self) -> usize {
        self.op.features().len()
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// The measurements with these indices.
    pub(super) fn subset(&self, rows: &[u32]) -> Self {
        let pick = |row: &u32| *row as usize;
        Self {
            op: self.op,
            points: rows.iter().map(|row| self.points[pick(row)]).collect(),
            times_ms: rows.iter().map(|row| self.times_ms[pick(row)]).collect(),
        }
    }
}

/// A profile in memory, not yet taken apart.
#[derive(Debug)]
pub struct ProfileFile {
    path: PathBuf,
    profile: Profile,
    text: Vec<u8>,
}

impl ProfileFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`VidurError::MissingFile`] if there is none, [`VidurError::Io`] if it
    /// cannot be read.
    pub fn read(path: &Path, profile: Profile) -> Result<Self, VidurError> {
        let option = match profile {
            Profile::Compute => "compute_input_file",
            Profile::Attention => "attention_input_file",
            Profile::AllReduce => "all_reduce_input_file",
            Profile::SendRecv => "send_recv_input_file",
            Profile::CpuOverhead => "cpu_overhead_input_file",
        };
        let text = input_file::read(path, InputKind::Profile).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                VidurError::MissingFile {
                    path: path.into(),
                    profile: profile.description(),
                    option,
                }
            } else {
                VidurError::Io {
                    path: path.into(),
                    source,
                }
            }
        })?;
        Ok(Self {
            path: path.into(),
            profile,
            text,
        })
    }

    /// What identifies the content.
    pub(super) fn hash(&self) -> blake3::Hash {
        blake3::hash(&self.text)
    }

    /// Looks whether the file is one of its kind: a table, with what deployments are
    /// told apart by, and with times that are times.
    ///
    /// # Errors
    /// As [`Self::select`], whatever the deployment.
    pub fn check(&self) -> Result<(), VidurError> {
        let (sheet, rows) = Sheet::read(&self.path, &self.text)?;
        for (name, _) in ProfileShape::default().wanted(self.profile) {
            sheet.column(name)?;
        }
        let times = sheet.columns_from(TIMES);
        for row in &rows {
            // Rows of one phase have no times of the other's operators.
            for &column in times
                .iter()
                .filter(|column| !row.field(**column).is_empty())
            {
                sheet.time(row, column, MILLISECONDS)?;
            }
        }
        Ok(())
    }

    /// Takes the file apart and keeps the rows of one deployment.
    ///
    /// # Errors
    /// Names the line and column of the first thing that cannot be read, or
    /// says which values of the file would have been needed.
    pub fn select(&self, shape: &ProfileShape) -> Result<ProfileRows<'_>, VidurError> {
        let (sheet, rows) = Sheet::read(&self.path, &self.text)?;
        let conditions = shape
            .wanted(self.profile)
            .into_iter()
            .map(|(name, wanted)| {
                Ok(Condition {
                    name,
                    column: sheet.column(name)?,
                    wanted,
                })
            })
            .collect::<Result<Vec<Condition>, VidurError>>()?;
        let mut seen = HashSet::new();
        let mut others = vec![BTreeSet::new(); conditions.len()];
        let mut chosen = Vec::new();
        for row in rows {
            let mut fits = true;
            for (condition, values) in conditions.iter().zip(&mut others) {
                if !condition.holds(&sheet, &row)? {
                    fits = false;
                    if values.len() < VALUES_NAMED {
                        values.insert(row.field(condition.column).to_owned());
                    }
                }
            }
            if fits && seen.insert(blake3::hash(sheet.line_of(&row).as_bytes())) {
                chosen.push(row);
            }
        }
        let names: Vec<String> = conditions.iter().map(Condition::to_string).collect();
        let wanted = names.join(", ");
        if chosen.is_empty() {
            return Err(self.nothing(&wanted, &conditions, &others));
        }
        Ok(ProfileRows {
            path: &self.path,
            sheet,
            rows: chosen,
            wanted,
        })
    }

    fn nothing(
        &self,
        wanted: &str,
        conditions: &[Condition],
        others: &[BTreeSet<String>],
    ) -> VidurError {
        let values: Vec<String> = conditions
            .iter()
            .zip(others)
            .filter(|(_, others)| !others.is_empty())
            .map(|(condition, others)| {
                let others: Vec<&str> = others.iter().map(String::as_str).collect();
                format!("{} {}", condition.name, others.join(", "))
            })
            .collect();
        VidurError::NoRows {
            path: self.path.clone(),
            wanted: wanted.into(),
            present: if values.is_empty() {
                "it has no rows at all".into()
            } else {
                format!("other rows have {}", values.join("; "))
            },
        }
    }
}

/// How the names of columns with times begin.
const TIMES: &str = "time_stats.";

/// How many values of a column a message lists.
const VALUES_NAMED: usize = 8;

/// A value that a column must have.
#[derive(Debug)]
enum Wanted {
    Number(f64),
    Flag(bool),
    Text(String),
}

#[derive(Debug)]
struct Condition {
    name: &'static str,
    column: usize,
    wanted: Wanted,
}

impl Condition {
    fn holds(&self, sheet: &Sheet<'_>, row: &Row) -> Result<bool, VidurError> {
        Ok(match &self.wanted {
            Wanted::Number(wanted) => sheet.number(row, self.column)? == *wanted,
            Wanted::Flag(wanted) => sheet.flag(row, self.column)? == *wanted,
            Wanted::Text(wanted) => row.field(self.column) == wanted,
        })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wanted {
            Wanted::Number(wanted) => write!(f, "{} {wanted}", self.name),
            Wanted::Flag(wanted) => write!(f, "{} {wanted}", self.name),
            Wanted::Text(wanted) => write!(f, "{} {wanted}", self.name),
        }
    }
}

/// The rows of a profile that count for a deployment.
#[derive(Debug)]
pub struct ProfileRows<'a> {
    path: &'a Path,
    sheet: Sheet<'a>,
    rows: Vec<Row>,
    wanted: String,
}

impl ProfileRows<'_> {
    /// The measurements of one operator, in the order of the file.
    ///
    /// # Errors
    /// Names the line and column of a value that cannot be used, or what was
    /// looked for in vain.
    pub fn samples(
        &self,
        op: Op,
        shape: &ProfileShape,
        which: Rows,
    ) -> Result<Samples, VidurError> {
        let features = self.features(op, shape)?;
        let sheet = &self.sheet;
        let time = match sheet.find_column(&op.time_column()) {
            None if op.may_be_unmeasured() => None,
            _ => Some(sheet.column(&op.time_column())?),
        };
        let mut samples = Samples::new(op, Vec::new(), Vec::new());
        for row in &self.rows {
            let Some(point) = features.of(sheet, row, which)? else {
                continue;
            };
            let time_ms = match time {
                None => 0.0,
                Some(column) if row.field(column).is_empty() && op.may_be_unmeasured() => 0.0,
                Some(column) => sheet.time(row, column, MILLISECONDS)?,
            };
            samples.points.push(point);
            samples.times_ms.push(time_ms);
        }
        if samples.times_ms.is_empty() {
            return Err(VidurError::NoRows {
                path: self.path.into(),
                wanted: format!("{op} with {}", self.wanted),
                present: "the rows for it are all of the other phase".into(),
            });
        }
        Ok(samples)
    }

    fn features(&self, op: Op, shape: &ProfileShape) -> Result<Features, VidurError> {
        Ok(match op.profile() {
            Profile::Compute => Features::Plain(self.sheet.column("num_tokens")?),
            Profile::CpuOverhead => Features::Plain(self.sheet.column("batch_size")?),
            // Two bytes an element, whatever was sent.
            Profile::AllReduce | Profile::SendRecv => {
                Features::Bytes(self.sheet.column("size")?, f64::from(shape.hidden_size))
            }
            Profile::Attention => Features::Attention {
                op,
                batch: self.sheet.column("batch_size")?,
                chunk: self.sheet.column("prefill_chunk_size")?,
                kv: self.sheet.column("kv_cache_size")?,
            },
        })
    }
}

/// How features are derived from columns.
enum Features {
    Plain(usize),
    Bytes(usize, f64),
    Attention {
        op: Op,
        batch: usize,
        chunk: usize,
        kv: usize,
    },
}

impl Features {
    /// The features of a row; none if it is not one of the operator's.
    fn of(
        &self,
        sheet: &Sheet<'_>,
        row: &Row,
        which: Rows,
    ) -> Result<Option<[f64; 2]>, VidurError> {
        match *self {
            Self::Plain(column) => Ok(Some([sheet.zero_or_more(row, column)?, 0.0])),
            Self::Bytes(column, hidden_size) => {
                let bytes = sheet.zero_or_more(row, column)?;
                Ok(Some([bytes / hidden_size / 2.0, 0.0]))
            }
            Self::Attention {
                op,
                batch,
                chunk,
                kv,
            } => {
                let chunk = sheet.zero_or_more(row, chunk)?;
                let batch = sheet.zero_or_more(row, batch)?;
                let kv = sheet.zero_or_more(row, kv)?;
                let is_decode = chunk == 0.0;
                let counts = match (op, which) {
                    (Op::AttnPrefill, _) | (_, Rows::Prefill) => !is_decode,
                    (Op::AttnDecode, _) | (_, Rows::Decode) => is_decode,
                    (_, Rows::All) => true,
                };
                Ok(counts.then_some(match op {
                    Op::AttnPrefill => [kv, chunk * chunk],
                    Op::AttnDecode => [batch, kv],
                    _ => [chunk.max(batch), 0.0],
                }))
            }
        }
    }
}
