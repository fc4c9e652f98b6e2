//! Batch pricing: a CSV file of steps in, a CSV file of operators out.
//!
//! `batch_size` counts requests on each attention data-parallel rank. A prefill
//! step processes `new_tokens` of each, `context_tokens` being cached already; a
//! decode step generates one token each after `context_tokens` in the KV cache.
//! Columns this command does not know are passed through.

use std::collections::HashMap;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::deployment::{
    Deployment, Phase, REQUESTS_MAX, Request, StepRequest, TOKENS_MAX, dtype_named,
};
use crate::cli::CliError;
use crate::cli::output::write_out;
use crate::execution_time::BackendKind;
use crate::input_file::{self, InputKind};
use crate::number::narrow;
use crate::spec::{Problem, Resolver};
use crate::spelling::did_you_mean;
use crate::units::DType;

const COLUMNS: [&str; 12] = [
    "model",
    "device",
    "engine",
    "tensor_parallel",
    "pipeline_parallel",
    "expert_parallel",
    "attention_data_parallel",
    "dtype",
    "phase",
    "batch_size",
    "new_tokens",
    "context_tokens",
];
const ADDED_COLUMNS: [&str; 5] = ["step", "operator", "count", "time_ms", "provenance"];

/// Prices `steps` into `out`.
pub(super) fn price_file(steps: &Path, out: &Path, backend: BackendKind) -> Result<(), CliError> {
    let text = input_file::read_text(steps, InputKind::Profile)
        .map_err(|error| CliError::BadInput(format!("{}: {error}", steps.display())))?;
    let priced = price_text(&steps.display().to_string(), &text, backend)?;
    write_out(out, &priced)
}

/// Prices the steps of `text`, calling it `file` in messages.
fn price_text(file: &str, text: &str, backend: BackendKind) -> Result<Vec<u8>, CliError> {
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let sheet = Steps::open(file, text, &mut reader)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failure = |error: csv::Error| CliError::Failure(error.to_string());
    writer
        .write_record(sheet.header.iter().chain(ADDED_COLUMNS))
        .map_err(failure)?;
    let resolver = Resolver::default();
    // By what is written: within one run of this command a name has one meaning.
    let mut deployments: HashMap<Vec<String>, Deployment> = HashMap::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|error| sheet.unreadable(&error))?;
        let row = Row {
            steps: &sheet,
            record: &record,
        };
        let key = row.deployment_key();
        if !deployments.contains_key(&key) {
            deployments.insert(key.clone(), row.deployment(&resolver, backend)?);
        }
        let deployment = &deployments[&key];
        let step = row.step()?;
        step.check(deployment.ranks(step.phase))
            .map_err(|(column, reason)| row.complain(column, &reason))?;
        for line in deployment.price(&step, false) {
            let added = [
                (index + 1).to_string(),
                line.operator,
                line.count.to_string(),
                format!("{:e}", line.time_ms),
                line.provenance,
            ];
            let fields = record.iter().chain(added.iter().map(String::as_str));
            writer.write_record(fields).map_err(failure)?;
        }
    }
    writer
        .into_inner()
        .map_err(|error| CliError::Failure(error.to_string()))
}

/// The file's header, and its text to point into.
struct Steps<'a> {
    file: &'a str,
    text: &'a str,
    header: StringRecord,
    /// Position of each of [`COLUMNS`], and of `kv_cache_dtype` if given.
    columns: [usize; COLUMNS.len()],
    kv_cache_dtype: Option<usize>,
}

impl<'a> Steps<'a> {
    fn open(
        file: &'a str,
        text: &'a str,
        reader: &mut csv::Reader<&[u8]>,
    ) -> Result<Self, CliError> {
        let bad = |message: String| CliError::BadInput(format!("{file}:1:1: {message}"));
        let header = reader
            .headers()
            .map_err(|error| bad(error.to_string()))?
            .clone();
        let position = |name: &str| header.iter().position(|given| given.trim() == name);
        let mut columns = [0; COLUMNS.len()];
        for (slot, name) in columns.iter_mut().zip(COLUMNS) {
            *slot = position(name).ok_or_else(|| {
                bad(format!(
                    "column `{name}` is missing; needed: {}{}",
                    COLUMNS.join(", "),
                    did_you_mean(name, header.iter().filter(|h| !COLUMNS.contains(h)))
                ))
            })?;
        }
        if let Some(taken) = ADDED_COLUMNS
            .into_iter()
            .find(|name| position(name).is_some())
        {
            return Err(bad(format!(
                "column `{taken}` is one this command adds; rename it"
            )));
        }
        Ok(Self {
            file,
            text,
            kv_cache_dtype: position("kv_cache_dtype"),
            columns,
            header,
        })
    }

    fn unreadable(&self, error: &csv::Error) -> CliError {
        let line = error.position().map_or(0, csv::Position::line);
        CliError::BadInput(format!("{}:{line}:1: {error}", self.file))
    }
}

struct Row<'a> {
    steps: &'a Steps<'a>,
    record: &'a StringRecord,
}

impl Row<'_> {
    fn text(&self, column: &str) -> &str {
        let nth = COLUMNS.iter().position(|name| *name == column);
        let field = match nth {
            Some(nth) => Some(self.steps.columns[nth]),
            None => self.steps.kv_cache_dtype,
        };
        field
            .and_then(|field| self.record.get(field))
            .unwrap_or_default()
            .trim()
    }

    /// What a deployment is made of, as written.
    fn deployment_key(&self) -> Vec<String> {
        COLUMNS[..8]
            .iter()
            .chain(&["kv_cache_dtype"])
            .map(|column| self.text(column).to_owned())
            .collect()
    }

    fn deployment(
        &self,
        resolver: &Resolver,
        backend: BackendKind,
    ) -> Result<Deployment, CliError> {
        let at_key = |error: Problem| {
            // What no column is about is about all of them: the row.
            let key = error.key.unwrap_or(COLUMNS[0]);
            let column = if COLUMNS.contains(&key) {
                key
            } else {
                COLUMNS[0]
            };
            self.complain(column, &error.reason)
        };
        let mut request = Request::default();
        request.set("backend", Some(backend));
        request.set("model", Some(self.text("model")));
        request.set("device", Some(self.text("device")));
        request.set_engine(self.text("engine")).map_err(at_key)?;
        for column in [
            "tensor_parallel",
            "pipeline_parallel",
            "expert_parallel",
            "attention_data_parallel",
        ] {
            request.set(column, self.ways(column)?);
        }
        let weights = self.dtype("dtype")?;
        request.set("dtype", weights);
        let kv_cache = self.dtype("kv_cache_dtype")?;
        request.set("kv_cache_dtype", kv_cache.or(weights.map(usual_kv_cache)));
        Deployment::of_request(resolver, &request).map_err(at_key)
    }

    fn step(&self) -> Result<StepRequest, CliError> {
        let phase = match self.text("phase") {
            "prefill" => Phase::Prefill,
            "decode" => Phase::Decode,
            other => {
                let hint = did_you_mean(other, ["prefill", "decode"]);
                let reason = format!("`{other}` is not a phase; allowed: prefill, decode{hint}");
                return Err(self.complain("phase", &reason));
            }
        };
        let batch_size = self.integer("batch_size", 1, REQUESTS_MAX)?;
        let new_tokens = self.integer("new_tokens", 1, TOKENS_MAX)?;
        if phase == Phase::Decode && new_tokens != 1 {
            let reason = format!("{new_tokens}; allowed: 1 in phase decode");
            return Err(self.complain("new_tokens", &reason));
        }
        Ok(StepRequest {
            phase,
            batch_size,
            new_tokens,
            context_tokens: self.integer("context_tokens", 0, TOKENS_MAX)?,
        })
    }

    /// Ways of a parallelism; empty: as a run has it that does not say.
    fn ways(&self, column: &'static str) -> Result<Option<u32>, CliError> {
        if self.text(column).is_empty() {
            return Ok(None);
        }
        self.integer(column, 1, 1 << 16).map(Some)
    }

    /// A whole number, also as data frames with gaps write it (`8.0`).
    fn integer(&self, column: &'static str, min: u32, max: u32) -> Result<u32, CliError> {
        let text = self.text(column);
        let whole = text.strip_suffix(".0").unwrap_or(text);
        match whole.parse::<u32>() {
            Ok(value) if (min..=max).contains(&value) => Ok(value),
            _ => {
                let reason = format!("`{text}`; allowed: whole numbers from {min} to {max}");
                Err(self.complain(column, &reason))
            }
        }
    }

    /// A format; none if empty or the column is absent.
    fn dtype(&self, column: &'static str) -> Result<Option<DType>, CliError> {
        match self.text(column) {
            "" => Ok(None),
            name => dtype_named(name)
                .map(Some)
                .map_err(|reason| self.complain(column, &reason)),
        }
    }

    /// An error that points at a field of this row.
    fn complain(&self, column: &str, reason: &str) -> CliError {
        let nth = COLUMNS.iter().position(|name| *name == column);
        let field = nth.map_or(self.steps.kv_cache_dtype.unwrap_or(0), |nth| {
            self.steps.columns[nth]
        });
        let (line, start) = self.record.position().map_or((0, 0), |position| {
            (position.line(), narrow::<usize, _>(position.byte()))
        });
        let width = field_offset(&self.steps.text[start.min(self.steps.text.len())..], field);
        CliError::BadInput(format!(
            "{}:{line}:{}: {column}: {reason}",
            self.steps.file,
            width + 1
        ))
    }
}

/// KV cache format that goes with a format of weights that a row names: 8 bits with
/// 8-bit weights. The tables of estimates such files are compared with have it so.
fn usual_kv_cache(weights: DType) -> DType {
    match weights {
        DType::Fp8 | DType::Fp8Block | DType::Nvfp4 => DType::Fp8,
        _ => DType::Bfloat16,
    }
}

/// Characters before field `field` of the record `text` begins with.
fn field_offset(text: &str, field: usize) -> usize {
    let mut commas = 0;
    let mut quoted = false;
    for (offset, letter) in text.chars().enumerate() {
        if commas == field {
            return offset;
        }
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => commas += 1,
            _ => {}
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "model,device,engine,tensor_parallel,pipeline_parallel,expert_parallel,attention_data_parallel,dtype,phase,batch_size,new_tokens,context_tokens\n";

    fn price(rows: &str) -> Result<String, String> {
        let text = format!("{HEADER}{rows}");
        price_text("steps.csv", &text, BackendKind::Roofline)
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn one_row_per_step_and_operator() {
        let priced = price(
            "Qwen/Qwen3-32B,h200_sxm,vllm 0.24.0,2,1,1,1,bfloat16,prefill,1,1024,0\n\
             llama-3-8b,a100,,1,2,,,,decode,4,1.0,100\n",
        )
        .unwrap();
        let lines: Vec<_> = priced.lines().collect();
        assert!(lines[0].ends_with("context_tokens,step,operator,count,time_ms,provenance"));
        let names = |step: &str| -> Vec<_> {
            let of_step = |line: &&&str| line.split(',').nth(12) == Some(step);
            let name = |line: &&str| line.split(',').nth(13).unwrap().to_owned();
            lines.iter().filter(of_step).map(name).collect()
        };
        let dense = [
            "embedding",
            "embedding_ar",
            "add_norm_1",
            "qkv_gemm",
            "proj_gemm",
            "add_norm_2",
            "gate_ffn1_gemm",
            "act_gate",
            "ffn2_gemm",
            "ar_1",
            "ar_2",
            "attention",
            "logits_gemm",
        ];
        assert_eq!(names("1"), dense);
        let mut decode: Vec<_> = dense.into_iter().filter(|n| !n.contains("ar")).collect();
        decode.insert(8, "p2p");
        assert!(names("2").contains(&"p2p".to_owned()), "{decode:?}");
        // All layers of both stages.
        let qkv = lines.iter().find(|l| l.contains(",2,qkv_gemm,")).unwrap();
        assert_eq!(qkv.split(',').nth(14), Some("32"));
    }

    #[test]
    fn bad_fields_are_pointed_at() {
        let cases = [
            (
                "llama-3-8b,h100,,3,1,1,1,bfloat16,decode,1,1,1\n",
                "steps.csv:2:18: tensor_parallel: tensor_parallel 3 does not divide 32 (attention heads)",
            ),
            (
                "llama-3-8b,h100,,1,1,1,1,bfloat61,decode,1,1,1\n",
                "steps.csv:2:26: dtype: `bfloat61` is not a format; allowed: float32, float16, bfloat16",
            ),
            (
                "\"llama-3-8b\",h100,,1,1,1,1,,prefil,1,1,1\n",
                "steps.csv:2:29: phase: `prefil` is not a phase; allowed: prefill, decode; did you mean `prefill`?",
            ),
            (
                "llama-3-8b,h100,,1,1,1,1,,decode,0,1,1\n",
                "steps.csv:2:34: batch_size: `0`; allowed: whole numbers from 1 to",
            ),
            (
                "llama-3-8b,h100,,1,1,1,1,,decode,1,2,1\n",
                "steps.csv:2:36: new_tokens: 2; allowed: 1 in phase decode",
            ),
            (
                "llama-3-8x,h100,,1,1,1,1,,decode,1,1,1\n",
                "steps.csv:2:1: model: unknown model `llama-3-8x`",
            ),
            (
                "llama-3-8b,h100,vllmm,1,1,1,1,,decode,1,1,1\n",
                "steps.csv:2:17: engine: unknown engine `vllmm`",
            ),
        ];
        for (rows, expected) in cases {
            let message = price(rows).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_missing_column_is_named() {
        let text = HEADER.replace("batch_size", "batchsize");
        let message = price_text("s.csv", &text, BackendKind::Roofline)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("s.csv:1:1: column `batch_size` is missing"));
        assert!(message.ends_with("did you mean `batchsize`?"), "{message}");
    }

    #[test]
    fn eight_bit_weights_bring_an_eight_bit_cache() {
        let time = |dtype: &str| {
            let rows = format!("llama-3-8b,h100,,1,1,1,1,{dtype},decode,64,1,8000\n");
            let priced = price(&rows).unwrap();
            let line = priced.lines().find(|l| l.contains(",attention,")).unwrap();
            line.split(',').nth(15).unwrap().parse::<f64>().unwrap()
        };
        assert!(time("fp8") < 0.75 * time("bfloat16"));
    }
}
