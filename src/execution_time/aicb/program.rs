//! An installed AICB, asked for the files a deployment lacks. It measures kernels,
//! so it must run on the GPU in question.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::file::{AicbError, AicbFile, FileKey, Phase};
use super::table::Cut;
use crate::external::{self, AllowPrograms, Ending};
use crate::input_file::{self, InputKind};

/// Shortest prompt measured, tokens.
const PROMPT_MIN: u64 = 128;
/// Shortest context of a decode measured, tokens.
const CONTEXT_MIN: u64 = 256;

/// A checkout of AICB.
#[derive(Debug, Clone)]
pub struct AicbProgram {
    checkout: PathBuf,
    leave: AllowPrograms,
}

impl AicbProgram {
    /// The program in a checkout.
    ///
    /// # Errors
    /// If the module that writes the files is not there.
    pub fn at(checkout: &Path, leave: AllowPrograms) -> Result<Self, AicbError> {
        let module = checkout.join("workload_generator/Vidur_workload_generator.py");
        if !module.is_file() {
            return Err(AicbError::whole(&module, "no such file; this is no AICB"));
        }
        Ok(Self {
            checkout: checkout.to_owned(),
            leave,
        })
    }

    /// Where it writes its files.
    pub fn folder(&self) -> PathBuf {
        self.checkout.join("results/workload")
    }

    /// Has a file measured, unless it is there. Returns whether that was needed.
    ///
    /// # Errors
    /// If AICB cannot be run, fails, or does not leave a file that can be read.
    pub fn measure(&self, key: &FileKey) -> Result<bool, AicbError> {
        let path = self.folder().join(key.to_string());
        let needed = !path.is_file();
        if needed {
            let failed = |why: String| AicbError::whole(&path, why);
            let ending = (self.run(key))
                .map_err(|error| failed(format!("python cannot be run for AICB: {error}")))?;
            if let Some(failure) = ending.failure() {
                return Err(failed(format!("AICB did not write it: {failure}")));
            }
        }
        let text = input_file::read_text(&path, InputKind::LayerTimes)
            .map_err(|error| AicbError::whole(&path, format!("AICB ended well, but: {error}")))?;
        AicbFile::parse(&path, &text)?;
        Ok(needed)
    }

    fn run(&self, key: &FileKey) -> io::Result<Ending> {
        let python = |name: &str| {
            let mut command = Command::new(name);
            command.current_dir(&self.checkout).args(arguments(key));
            external::run(&mut command, self.leave)
        };
        match python("python") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => python("python3"),
            ended => ended,
        }
    }
}

/// What Vidur-AlibabaCloud calls AICB with.
fn arguments(key: &FileKey) -> Vec<String> {
    let config = match key.model.as_str() {
        "DeepSeek-671B" => "deepseek",
        "Qwen3-Moe-235B" => "qwen3_moe",
        _ => "qwen3_next",
    };
    let mut arguments = vec![
        "-m".to_owned(),
        "workload_generator.Vidur_workload_generator".to_owned(),
        key.model.clone(),
        format!("./scripts/inference_configs/{config}_default.json"),
    ];
    let mut option = |name: &str, value: String| {
        arguments.extend([format!("--{name}"), value]);
    };
    option("seq_length", key.sequence.to_string());
    option("micro_batch", key.batch_size.to_string());
    option("world_size", key.world_size.to_string());
    option(
        "tensor_model_parallel_size",
        key.tensor_parallel.to_string(),
    );
    option(
        "expert_model_parallel_size",
        key.expert_parallel.to_string(),
    );
    option("phase", key.phase.name().to_owned());
    if key.pipeline_parallel > 1 {
        option("pipeline_model_parallel", key.pipeline_parallel.to_string());
    }
    arguments.push("--aiob_enable".to_owned());
    arguments
}

impl Cut {
    /// Files that cover a phase up to prompts or contexts of `longest` tokens and
    /// decodes of `batch_size` requests: prompt lengths double, contexts and batch
    /// sizes quadruple, the last of each at or above what is asked.
    pub fn files_up_to(&self, phase: Phase, longest: u64, batch_size: u32) -> Vec<FileKey> {
        match phase {
            Phase::Prefill => (steps(PROMPT_MIN, 2, longest).into_iter())
                .map(|sequence| self.file(phase, 1, sequence))
                .collect(),
            Phase::Decode => {
                let batches = steps(1, 4, u64::from(batch_size));
                let contexts = steps(CONTEXT_MIN, 4, longest);
                let of_batch = |batch: u64| {
                    let batch = u32::try_from(batch).unwrap_or(u32::MAX);
                    let key = move |&sequence: &u64| self.file(phase, batch, sequence);
                    contexts.iter().map(key).collect::<Vec<_>>()
                };
                batches.into_iter().flat_map(of_batch).collect()
            }
        }
    }
}

/// From `first` on, each `factor` times the one before, up to one that is not
/// below `last`.
fn steps(first: u64, factor: u64, last: u64) -> Vec<u64> {
    let mut steps = vec![first];
    let mut step = first;
    while step < last {
        step *= factor;
        steps.push(step);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_reach_what_is_asked() {
        assert_eq!(steps(128, 2, 100), [128]);
        assert_eq!(steps(128, 2, 129), [128, 256]);
        assert_eq!(steps(1, 4, 16), [1, 4, 16]);
    }

    #[test]
    fn aicb_is_called_as_the_original_calls_it() {
        let name = "vidur-Qwen3-Moe-235B-world_size8-tp4-pp2-ep8-bs3-seq100-decode.csv";
        let key = FileKey::parse(name).unwrap();
        assert_eq!(
            arguments(&key).join(" "),
            "-m workload_generator.Vidur_workload_generator Qwen3-Moe-235B \
             ./scripts/inference_configs/qwen3_moe_default.json --seq_length 100 \
             --micro_batch 3 --world_size 8 --tensor_model_parallel_size 4 \
             --expert_model_parallel_size 8 --phase decode --pipeline_model_parallel 2 \
             --aiob_enable"
        );
    }

    #[test]
    fn a_folder_that_is_no_checkout_is_named() {
        let error =
            AicbProgram::at(Path::new("nowhere"), AllowPrograms::by_option(60)).unwrap_err();
        assert!(error.to_string().contains("Vidur_workload_generator.py"));
    }
}
