//! The tables shipped inside the binary.

/// The manifest of the shipped tables.
pub(super) const MANIFEST: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/data/silicon/manifest.yaml"
));

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/silicon/", $path)),
        )),*]
    };
}

/// Every shipped file by its path under `data/silicon`, ascending.
pub(super) const FILES: &[(&str, &[u8])] = files![
    "a100/all_reduce.parquet",
    "a100/context_attention.parquet",
    "a100/context_mla.parquet",
    "a100/experts.parquet",
    "a100/gated_delta_net.parquet",
    "a100/gemm.parquet",
    "a100/generation_attention.parquet",
    "a100/generation_mla.parquet",
    "a100/mla_bmm.parquet",
    "a100/moe.parquet",
    "a100/nccl.parquet",
    "b200/all_reduce.parquet",
    "b200/context_attention.parquet",
    "b200/expert_exchange.parquet",
    "b200/expert_exchange_wide.parquet",
    "b200/experts.parquet",
    "b200/experts_deepgemm_decode.parquet",
    "b200/experts_deepgemm_prefill.parquet",
    "b200/gated_delta_net.parquet",
    "b200/gemm.parquet",
    "b200/generation_attention.parquet",
    "b200/mla_context_module.parquet",
    "b200/mla_generation_module.parquet",
    "b200/moe.parquet",
    "b200/moe_earlier.parquet",
    "b200/nccl.parquet",
    "b200/sglang/experts.parquet",
    "b200/trtllm/experts.parquet",
    "h100/all_reduce.parquet",
    "h100/context_attention.parquet",
    "h100/expert_exchange.parquet",
    "h100/expert_exchange_multinode.parquet",
    "h100/expert_exchange_wide.parquet",
    "h100/experts.parquet",
    "h100/experts_deepgemm_decode.parquet",
    "h100/experts_deepgemm_prefill.parquet",
    "h100/gated_delta_net.parquet",
    "h100/gemm.parquet",
    "h100/generation_attention.parquet",
    "h100/mla_context_module.parquet",
    "h100/mla_generation_module.parquet",
    "h100/moe.parquet",
    "h100/nccl.parquet",
    "h100/sglang/experts.parquet",
    "h100/trtllm/experts.parquet",
    "h200/all_reduce.parquet",
    "h200/context_attention.parquet",
    "h200/expert_exchange.parquet",
    "h200/expert_exchange_multinode.parquet",
    "h200/expert_exchange_wide.parquet",
    "h200/experts.parquet",
    "h200/experts_deepgemm_decode.parquet",
    "h200/experts_deepgemm_prefill.parquet",
    "h200/gated_delta_net.parquet",
    "h200/gemm.parquet",
    "h200/generation_attention.parquet",
    "h200/mla_context_module.parquet",
    "h200/mla_generation_module.parquet",
    "h200/moe.parquet",
    "h200/moe_earlier.parquet",
    "h200/nccl.parquet",
    "h200/sglang/all_reduce.parquet",
    "h200/sglang/context_attention.parquet",
    "h200/sglang/context_mla.parquet",
    "h200/sglang/experts.parquet",
    "h200/sglang/gated_delta_net.parquet",
    "h200/sglang/gemm.parquet",
    "h200/sglang/generation_attention.parquet",
    "h200/sglang/generation_mla.parquet",
    "h200/sglang/mla_bmm.parquet",
    "h200/sglang/moe.parquet",
    "h200/sglang/moe_earlier.parquet",
    "h200/trtllm/all_reduce.parquet",
    "h200/trtllm/context_attention.parquet",
    "h200/trtllm/experts.parquet",
    "h200/trtllm/gemm.parquet",
    "h200/trtllm/generation_attention.parquet",
    "h200/trtllm/mla_context_module.parquet",
    "h200/trtllm/mla_generation_module.parquet",
    "h200/trtllm/moe.parquet",
    "h200/trtllm/moe_earlier.parquet",
];

/// The shipped file at `path`.
pub(super) fn file(path: &str) -> Option<&'static [u8]> {
    let index = FILES.binary_search_by_key(&path, |&(name, _)| name).ok()?;
    Some(FILES[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution_time::silicon::Manifest;

    #[test]
    fn ships_what_the_manifest_lists() {
        let manifest = Manifest::parse("manifest.yaml", MANIFEST).unwrap();
        let listed: Vec<&str> = manifest.tables.iter().map(|t| t.file.as_str()).collect();
        let shipped: Vec<&str> = FILES.iter().map(|&(path, _)| path).collect();
        assert_eq!(shipped, listed);
        for entry in &manifest.tables {
            let bytes = file(&entry.file).unwrap();
            assert_eq!(bytes.len(), entry.bytes, "{}", entry.file);
            assert_eq!(
                blake3::hash(bytes).to_hex().as_str(),
                entry.blake3,
                "{}",
                entry.file
            );
        }
        assert_eq!(manifest.to_yaml(), MANIFEST);
    }
}
