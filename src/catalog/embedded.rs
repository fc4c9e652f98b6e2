//! The data files compiled into the binary. A test checks that every file of
//! `data/models`, `data/devices` and `data/engines` is listed.

/// Path in the repository and content of each data file of one kind.
macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$((
            concat!("data/", $folder, "/", $name, ".yaml"),
            include_str!(concat!("../../data/", $folder, "/", $name, ".yaml")),
        )),+]
    };
}

/// Models.
pub(super) const MODELS: &[(&str, &str)] = files!("models":
    "codellama-34b",
    "deepseek-671b",
    "gpt-oss-20b",
    "gpt-oss-120b",
    "internlm-20b",
    "internlm2-20b",
    "llama-2-7b",
    "llama-2-70b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "phi-2",
    "qwen-72b",
    "qwen3-30b-a3b",
    "qwen3-8b",
    "qwen3-8b-fp8",
    "qwen3-32b",
    "qwen3-32b-fp8",
    "qwen3-moe-235b",
    "qwen3-moe-235b-fp8",
    "qwen3-next-80b",
);

/// Devices.
pub(super) const DEVICES: &[(&str, &str)] = files!("devices":
    "a40", "a100", "b200", "gb200", "h20", "h100", "h200", "h800", "l40s",
);

/// Engines.
pub(super) const ENGINES: &[(&str, &str)] = files!("engines":
    "sglang-0.5.10",
    "sglang-0.5.14",
    "trtllm-1.0.0",
    "trtllm-1.3.0rc20",
    "vllm-0.24.0",
);
