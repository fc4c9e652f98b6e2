//! Kernel efficiencies of one device, fitted to benchmarks of single kernels.
//!
//! `data/kernels/<device>.yaml` holds three figures per class and benchmarked
//! shape; the nearest shape speaks for others. Kernels the
//! benchmarks leave out are charged as memory-bound ones: block-wise
//! quantisation of GEMM inputs, activation between the expert GEMMs, gathering of
//! rows by expert and their sum, choice of experts, norm, rotary embedding and
//! cache write around attention, and the assembly of latent attention's keys.
//! Work is spread evenly in the benchmarks; uneven loads are scaled first.

use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{
    Efficiency, Roofline, Work, absorbed_pair, attended_pairs, attention, compressed,
    expanded_pair, expert_work, gemm, is_8_bit,
};
use crate::execution_time::Operator;
use crate::execution_time::operator::LatentWidths;
use crate::units::DType;
use crate::yaml;

/// Bytes of an activation.
const WIDE: f64 = 2.0;

/// Widths of the latent attention that was benchmarked.
const MLA: LatentWidths = LatentWidths::DEEPSEEK_V3;

const FILES: &[(&str, &str)] = &[
    (
        "h20",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/data/kernels/h20.yaml"
        )),
    ),
    (
        "h800",
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/data/kernels/h800.yaml"
        )),
    ),
];

/// Kernels of one benchmarked shape.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fit {
    shape: Vec<u32>,
    launch_us: f64,
    compute: f64,
    memory: f64,
}

/// Kernels of one class, shape by shape; empty where none was benchmarked.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
struct Class(Vec<Fit>);

impl Class {
    /// Efficiency at the nearest shape, by octaves; the first of equals.
    fn at(&self, shape: &[u32]) -> Option<Efficiency> {
        // No logarithm for what is equal, and no more looks where all is.
        let octaves = |own: u32, asked: u32| match own == asked {
            true => 0.0,
            false => (f64::from(own.max(1)) / f64::from(asked.max(1))).log2(),
        };
        let mut nearest: Option<(f64, &Fit)> = None;
        for fit in &self.0 {
            let sides = fit.shape.iter().zip(shape);
            let distance = sides
                .map(|(&own, &asked)| octaves(own, asked).powi(2))
                .sum();
            if nearest.is_none_or(|(least, _)| distance < least) {
                nearest = Some((distance, fit));
            }
            if distance == 0.0 {
                break;
            }
        }
        let (_, nearest) = nearest?;
        Some(Efficiency::new(
            nearest.launch_us * 1e-6,
            nearest.compute,
            nearest.memory,
        ))
    }
}

/// Kernel efficiencies of one device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelFits {
    device: String,
    source: String,
    /// By in and out features.
    gemm: Class,
    /// Grouped GEMMs over rows sorted by expert; by hidden and intermediate size.
    experts_prefill: Class,
    /// Grouped GEMMs over a padded buffer per expert; by the same.
    experts_decode: Class,
    /// By heads.
    #[serde(default)]
    mla_prefill: Class,
    mla_decode: Class,
    /// By heads, KV heads and width of a head.
    #[serde(default)]
    attention_prefill: Class,
    attention_decode: Class,
    #[serde(default)]
    attention_decode_8_bit: Class,
}

impl KernelFits {
    /// The fits of the device called `name`, if its kernels were benchmarked.
    pub fn of_device(name: &str) -> Option<Self> {
        static ALL: LazyLock<Vec<KernelFits>> = LazyLock::new(|| {
            // Embedded files are part of the program: a test reads each of them.
            let read = |(name, text): &(&str, &str)| {
                yaml::parse(text, Path::new(name))
                    .and_then(|document| yaml::from_document(&document))
            };
            (FILES.iter().map(read).collect::<Result<_, _>>())
                .expect("embedded kernel efficiencies are valid")
        });
        ALL.iter()
            .find(|fits| fits.device.eq_ignore_ascii_case(name))
            .cloned()
    }

    /// Device the figures are of.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Where the figures come from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Time of one run of a kernel of a fitted class.
    pub(super) fn time_s(&self, roofline: &Roofline, operator: &Operator) -> Option<f64> {
        match *operator {
            Operator::Gemm {
                tokens,
                out_features,
                in_features,
                dtype,
            } => self.gemm_s(roofline, [tokens, out_features, in_features], dtype),
            Operator::ContextAttention {
                heads,
                kv_heads,
                head_dim,
                ..
            }
            | Operator::LocalContextAttention {
                heads,
                kv_heads,
                head_dim,
                ..
            } => {
                let own = self.attention_prefill.at(&[heads, kv_heads, head_dim]);
                let efficiency = own.or_else(|| self.mla_prefill.at(&[heads]))?;
                let (work, _) = attention(operator)?;
                Some(roofline.work_s(work, efficiency))
            }
            Operator::GenerationAttention {
                batch,
                heads,
                kv_heads,
                head_dim,
                kv_dtype,
                ..
            } => {
                let shape = [heads, kv_heads, head_dim];
                let narrow = (is_8_bit(kv_dtype))
                    .then(|| self.attention_decode_8_bit.at(&shape))
                    .flatten();
                let efficiency = narrow.or_else(|| self.attention_decode.at(&shape))?;
                let (work, _) = attention(operator)?;
                // Norm and rotary embedding of queries and keys; cache write.
                let row = f64::from(batch) * f64::from(head_dim) * WIDE;
                let (all, kv) = (f64::from(heads + kv_heads), f64::from(2 * kv_heads));
                let around_s =
                    2.0 * moved_s(roofline, 2.0 * row * all) + moved_s(roofline, 2.0 * row * kv);
                Some(roofline.work_s(work, efficiency) + around_s)
            }
            Operator::MlaContext { widths, .. } | Operator::MlaGeneration { widths, .. }
                if !widths.are_deepseek_v3() =>
            {
                None
            }
            Operator::MlaContext {
                batch,
                new_tokens,
                prefix_tokens,
                heads,
                dtype,
                ..
            } => self.mla_context_s(roofline, batch, [new_tokens, prefix_tokens], heads, dtype),
            Operator::MlaGeneration {
                batch,
                kv_tokens,
                heads,
                dtype,
                kv_dtype,
                ..
            } => self.mla_generation_s(roofline, batch, kv_tokens, heads, [dtype, kv_dtype]),
            Operator::MoeExperts { .. } => self.experts_s(roofline, operator),
            _ => None,
        }
    }

    /// A GEMM of `[m, n, k]`; block-wise formats quantise its input first.
    fn gemm_s(&self, roofline: &Roofline, [m, n, k]: [u32; 3], dtype: DType) -> Option<f64> {
        let (work, _) = gemm(m, n, k, dtype);
        let quantise_s = if dtype == DType::Fp8Block {
            moved_s(roofline, 3.0 * f64::from(m) * f64::from(k))
        } else {
            0.0
        };
        Some(quantise_s + roofline.work_s(work, self.gemm.at(&[k, n])?))
    }

    fn mla_context_s(
        &self,
        roofline: &Roofline,
        batch: u32,
        [new_tokens, prefix_tokens]: [u32; 2],
        heads: u32,
        dtype: DType,
    ) -> Option<f64> {
        let tokens = batch * new_tokens;
        // A prefix is expanded anew for every chunk.
        let cached = batch * (new_tokens + prefix_tokens);
        let (key, value) = (MLA.qk_nope_head_dim + MLA.qk_rope_head_dim, MLA.v_head_dim);
        let own = self.mla_prefill.at(&[heads]);
        let efficiency = own.or_else(|| self.attention_prefill.at(&[heads, heads, key]))?;
        let gemm = |m, n, k| self.gemm_s(roofline, [m, n, k], dtype);
        let projections_s = gemm(
            tokens,
            MLA.q_lora_rank + MLA.kv_lora_rank + MLA.qk_rope_head_dim,
            MLA.hidden_size,
        )? + gemm(tokens, heads * key, MLA.q_lora_rank)?
            + gemm(
                cached,
                heads * (MLA.qk_nope_head_dim + value),
                MLA.kv_lora_rank,
            )?
            + gemm(tokens, MLA.hidden_size, heads * value)?;
        let rows = f64::from(batch) * f64::from(heads);
        let core = Work {
            operations: f64::from(batch)
                * expanded_pair(&MLA, heads)
                * attended_pairs(new_tokens, prefix_tokens),
            bytes: rows
                * WIDE
                * (f64::from(new_tokens) * f64::from(key + value)
                    + f64::from(new_tokens + prefix_tokens) * f64::from(key + value)),
            dtype: DType::Bfloat16,
        };
        // Norms of the compressed forms; rotary part of the queries; keys put
        // together from their rotary and other part.
        let ranks = f64::from(tokens) * f64::from(MLA.q_lora_rank + MLA.kv_lora_rank);
        let rotary = f64::from(tokens) * f64::from(heads * MLA.qk_rope_head_dim);
        let keys = f64::from(cached) * f64::from(heads * (MLA.qk_nope_head_dim + key));
        let moved = moved_s(roofline, 2.0 * WIDE * ranks)
            + moved_s(roofline, 2.0 * WIDE * rotary)
            + moved_s(roofline, WIDE * keys);
        Some(projections_s + roofline.work_s(core, efficiency) + moved)
    }

    fn mla_generation_s(
        &self,
        roofline: &Roofline,
        batch: u32,
        kv_tokens: f64,
        heads: u32,
        [dtype, kv_dtype]: [DType; 2],
    ) -> Option<f64> {
        let (key, value) = (MLA.qk_nope_head_dim + MLA.qk_rope_head_dim, MLA.v_head_dim);
        let gemm = |n, k| self.gemm_s(roofline, [batch, n, k], dtype);
        let projections_s = gemm(
            MLA.q_lora_rank + MLA.kv_lora_rank + MLA.qk_rope_head_dim,
            MLA.hidden_size,
        )? + gemm(heads * key, MLA.q_lora_rank)?
            + gemm(MLA.hidden_size, heads * value)?;
        // Up-projections of keys and values are absorbed: per head, 16 bits.
        let absorbed_s = |width: u32| {
            let (m, n, k) = (
                f64::from(batch),
                f64::from(heads * width),
                f64::from(MLA.kv_lora_rank),
            );
            let rows = m * f64::from(heads) * f64::from(width + MLA.kv_lora_rank);
            let work = Work {
                operations: 2.0 * m * n * k,
                bytes: WIDE * (n * k + rows),
                dtype: DType::Bfloat16,
            };
            Some(roofline.work_s(work, self.gemm.at(&[MLA.kv_lora_rank, width])?))
        };
        let rows = f64::from(batch);
        let core = Work {
            operations: rows * absorbed_pair(&MLA, heads) * kv_tokens,
            bytes: rows
                * (kv_tokens * compressed(&MLA) * kv_dtype.bytes()
                    + WIDE
                        * f64::from(heads)
                        * f64::from(2 * MLA.kv_lora_rank + MLA.qk_rope_head_dim)),
            dtype: DType::Bfloat16,
        };
        let ranks = rows * f64::from(MLA.q_lora_rank + MLA.kv_lora_rank);
        let rotary = rows * f64::from(heads * MLA.qk_rope_head_dim);
        Some(
            projections_s
                + absorbed_s(MLA.qk_nope_head_dim)?
                + absorbed_s(value)?
                + roofline.work_s(core, self.mla_decode.at(&[heads])?)
                + moved_s(roofline, 2.0 * WIDE * ranks)
                + moved_s(roofline, 2.0 * WIDE * rotary),
        )
    }

    /// Whichever layout of rows is faster: sorted by expert, which takes a gather
    /// and a sum, or a padded buffer per expert.
    fn experts_s(&self, roofline: &Roofline, operator: &Operator) -> Option<f64> {
        let (work, dtype) = expert_work(operator)?;
        let Operator::MoeExperts {
            tokens,
            hidden_size,
            intermediate_size,
            experts_per_token,
            experts,
            expert_tensor_parallel,
            expert_parallel,
            load,
            ..
        } = *operator
        else {
            return None;
        };
        let factor = load.busiest_factor(experts, experts_per_token, expert_parallel);
        let visits =
            factor * f64::from(tokens) * f64::from(experts_per_token) / f64::from(expert_parallel);
        let width = f64::from(intermediate_size) / f64::from(expert_tensor_parallel);
        let narrow = dtype.bytes().clamp(1.0, WIDE);
        let activation_s = moved_s(roofline, visits * width * (2.0 * WIDE + narrow));
        let row = f64::from(hidden_size);
        // Tokens with at least one expert here arrive once each.
        let missed = 1.0 - 1.0 / f64::from(expert_parallel);
        let here = 1.0 - missed.powf(f64::from(experts_per_token));
        let received = (factor * f64::from(tokens) * here).min(visits);
        let gather_s = moved_s(roofline, (received + visits) * row * narrow);
        let sum_s = moved_s(roofline, (visits + received) * row * WIDE);
        let shape = [hidden_size, intermediate_size];
        let sorted_s = roofline.work_s(work, self.experts_prefill.at(&shape)?) + gather_s + sum_s;
        let padded_s = roofline.work_s(work, self.experts_decode.at(&shape)?);
        // Before them a rank chooses its tokens' experts, and writes the tokens in
        // the format in which they travel.
        let own = f64::from(tokens) / f64::from(expert_parallel * expert_tensor_parallel);
        let choice_s = 2.0 * moved_s(roofline, own * f64::from(experts) * 4.0);
        let format_s = if narrow < WIDE {
            moved_s(roofline, own * row * (WIDE + narrow))
        } else {
            0.0
        };
        Some(choice_s + format_s + activation_s + sorted_s.min(padded_s))
    }
}

/// Time of a memory-bound kernel that moves `bytes`.
fn moved_s(roofline: &Roofline, bytes: f64) -> f64 {
    roofline.time_s(&Operator::Elementwise { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::execution_time::operator::{ExpertLoad, ExpertTokens};
    use crate::network::{LinkOverrides, Links};

    fn roofline(device: &str) -> Roofline {
        let device = Catalog::builtin().device(device).unwrap();
        let links = Links::new(&device, 8, &LinkOverrides::default());
        Roofline::new(&device, links).with_fits(KernelFits::of_device(&device.name).unwrap())
    }

    #[test]
    fn every_file_is_read_and_named_after_its_device() {
        for (name, _) in FILES {
            let fits = KernelFits::of_device(name).unwrap();
            assert!(fits.source().contains("InferSim"), "{name}");
        }
        assert_eq!(KernelFits::of_device("h100"), None);
    }

    #[test]
    fn times_are_near_single_benchmarks() {
        // Kernels alone, microseconds: an H800 GEMM in plain fp8, FlashMLA's core
        // taken out of its block, and grouped GEMMs.
        let gemm = |tokens| Operator::Gemm {
            tokens,
            out_features: 7168,
            in_features: 16384,
            dtype: DType::Fp8,
        };
        let h800 = roofline("h800");
        for (tokens, us) in [(64, 51.7), (4096, 649.1), (16384, 2870.0)] {
            let error = h800.time_s(&gemm(tokens)) * 1e6 / us - 1.0;
            assert!(error.abs() < 0.15, "{tokens}: {error}");
        }
        let attention = Operator::GenerationAttention {
            batch: 128,
            kv_tokens: 4096.0,
            heads: 32,
            kv_heads: 4,
            head_dim: 128,
            kv_dtype: DType::Bfloat16,
        };
        let error = roofline("h20").time_s(&attention) * 1e6 / 362.9 - 1.0;
        assert!(error.abs() < 0.1, "{error}");
    }

    #[test]
    fn more_on_the_busiest_gpu_takes_longer() {
        let experts = |load| Operator::MoeExperts {
            tokens: 65_536,
            hidden_size: 7168,
            intermediate_size: 2048,
            experts_per_token: 8,
            experts: 256,
            expert_tensor_parallel: 1,
            expert_parallel: 32,
            dtype: DType::Fp8Block,
            load,
            arrival: ExpertTokens::Sent,
        };
        let h800 = roofline("h800");
        let even = h800.time_s(&experts(ExpertLoad::Balanced));
        let twice = h800.time_s(&experts(ExpertLoad::Uneven { factor: 2.0 }));
        assert!((1.8..2.0).contains(&(twice / even)), "{}", twice / even);
        assert!(h800.time_s(&experts(ExpertLoad::PowerLaw { alpha: 1.01 })) > twice);
    }
}
