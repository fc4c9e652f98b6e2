//! Operator prices of the `silicon` backend against figures that NVIDIA's
//! AIConfigurator 0.12.0 computes from the same measurements.
//!
//! A reference file has the columns `device,operator,arguments,expected_ms`;
//! the device may be followed by a slash and an engine;
//! `arguments` are the operator's fields, `name=value` with spaces between.
//! `VIDUR_SWEEP_SILICON_REFERENCE` names further files to check, separated by
//! colons (run with `--ignored --nocapture` for a summary).

use std::collections::BTreeMap;

use vidur_sweep::catalog::{DeviceSpec, PeakFlops};
use vidur_sweep::execution_time::operator::ExpertLoad;
use vidur_sweep::execution_time::silicon::SiliconDb;
use vidur_sweep::execution_time::{Operator, OperatorCost, Provenance};
use vidur_sweep::units::DType;

/// A device with the figures that matter here: links and memory bandwidth.
fn device(name: &str) -> DeviceSpec {
    let (memory_bandwidth_gb_per_s, nvlink_gb_per_s, nic_gb_per_s) = match name {
        "a100" => (2039.0, 300.0, 25.0),
        "h100" | "h800" => (3350.0, 450.0, 50.0),
        "h200" => (4800.0, 450.0, 50.0),
        "b200" => (7700.0, 900.0, 100.0),
        other => panic!("no device {other}"),
    };
    DeviceSpec {
        name: name.into(),
        aliases: Vec::new(),
        sources: Vec::new(),
        peak_tflops: PeakFlops {
            bfloat16: 989.0,
            fp8: None,
            int8: None,
            nvfp4: None,
        },
        memory_bytes: 80 << 30,
        memory_bandwidth_gb_per_s,
        nvlink_bandwidth_gbps: nvlink_gb_per_s * 8.0,
        pcie_bandwidth_gbps: 512.0,
        nic_bandwidth_gbps: nic_gb_per_s * 8.0,
        gpus_per_node: 8,
        power_w: 700.0,
        price_usd_per_hour: 2.0,
        kernels_of: (name == "h800").then(|| "h100".into()),
    }
}

/// Fields of an operator by name.
struct Arguments<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Arguments<'a> {
    fn parse(text: &'a str) -> Self {
        let pairs = text.split(' ').map(|pair| pair.split_once('=').unwrap());
        Self(pairs.collect())
    }

    fn whole(&self, name: &str) -> u32 {
        self.0[name].parse().unwrap()
    }

    fn real(&self, name: &str) -> f64 {
        self.0[name].parse().unwrap()
    }

    fn flag(&self, name: &str) -> bool {
        self.0[name].parse().unwrap()
    }

    fn dtype(&self, name: &str) -> DType {
        let all = [DType::Bfloat16, DType::Fp8, DType::Fp8Block, DType::Nvfp4];
        let found = all.into_iter().find(|d| d.name() == self.0[name]);
        found.unwrap()
    }

    fn load(&self) -> ExpertLoad {
        match self.0["load"].strip_prefix("power_law_") {
            None => ExpertLoad::Balanced,
            Some(alpha) => ExpertLoad::PowerLaw {
                alpha: alpha.parse().unwrap(),
            },
        }
    }
}

fn operator(kind: &str, a: &Arguments<'_>) -> Operator {
    match kind {
        "gemm" => Operator::Gemm {
            tokens: a.whole("tokens"),
            out_features: a.whole("out_features"),
            in_features: a.whole("in_features"),
            dtype: a.dtype("dtype"),
        },
        "context_attention" => Operator::ContextAttention {
            batch: a.whole("batch"),
            new_tokens: a.whole("new_tokens"),
            prefix_tokens: a.whole("prefix_tokens"),
            heads: a.whole("heads"),
            kv_heads: a.whole("kv_heads"),
            head_dim: a.whole("head_dim"),
            kv_dtype: a.dtype("kv_dtype"),
        },
        "generation_attention" => Operator::GenerationAttention {
            batch: a.whole("batch"),
            kv_tokens: a.real("kv_tokens"),
            heads: a.whole("heads"),
            kv_heads: a.whole("kv_heads"),
            head_dim: a.whole("head_dim"),
            kv_dtype: a.dtype("kv_dtype"),
        },
        "mla_context" => Operator::MlaContext {
            batch: a.whole("batch"),
            new_tokens: a.whole("new_tokens"),
            prefix_tokens: a.whole("prefix_tokens"),
            heads: a.whole("heads"),
            dtype: a.dtype("dtype"),
            kv_dtype: a.dtype("kv_dtype"),
        },
        "mla_generation" => Operator::MlaGeneration {
            batch: a.whole("batch"),
            kv_tokens: a.real("kv_tokens"),
            heads: a.whole("heads"),
            dtype: a.dtype("dtype"),
            kv_dtype: a.dtype("kv_dtype"),
        },
        "moe_experts" => Operator::MoeExperts {
            tokens: a.whole("tokens"),
            hidden_size: a.whole("hidden_size"),
            intermediate_size: a.whole("intermediate_size"),
            experts_per_token: a.whole("experts_per_token"),
            experts: a.whole("experts"),
            expert_tensor_parallel: a.whole("expert_tensor_parallel"),
            expert_parallel: a.whole("expert_parallel"),
            dtype: a.dtype("dtype"),
            load: a.load(),
        },
        "gated_delta_net" => Operator::GatedDeltaNet {
            prefill: a.flag("prefill"),
            batch: a.whole("batch"),
            new_tokens: a.whole("new_tokens"),
            key_heads: a.whole("key_heads"),
            value_heads: a.whole("value_heads"),
            key_head_dim: 128,
            value_head_dim: 128,
        },
        "all_reduce" => Operator::AllReduce {
            bytes: a.real("bytes"),
            gpus: a.whole("gpus"),
        },
        "all_gather" => Operator::AllGather {
            bytes: a.real("bytes"),
            gpus: a.whole("gpus"),
        },
        "reduce_scatter" => Operator::ReduceScatter {
            bytes: a.real("bytes"),
            gpus: a.whole("gpus"),
        },
        "expert_dispatch" => Operator::ExpertDispatch {
            tokens_per_rank: a.whole("tokens_per_rank"),
            hidden_size: a.whole("hidden_size"),
            experts_per_token: a.whole("experts_per_token"),
            experts: a.whole("experts"),
            expert_parallel: a.whole("expert_parallel"),
            element_bytes: 2.0,
            low_latency: a.flag("low_latency"),
        },
        "expert_combine" => Operator::ExpertCombine {
            tokens_per_rank: a.whole("tokens_per_rank"),
            hidden_size: a.whole("hidden_size"),
            experts_per_token: a.whole("experts_per_token"),
            experts: a.whole("experts"),
            expert_parallel: a.whole("expert_parallel"),
            element_bytes: 2.0,
            low_latency: a.flag("low_latency"),
        },
        other => panic!("no operator {other}"),
    }
}

/// One line of a reference file with our price.
struct Compared {
    device: String,
    kind: String,
    arguments: String,
    /// `None`: the reference has no answer.
    expected_ms: Option<f64>,
    price: Option<(f64, Provenance)>,
}

impl Compared {
    fn relative_error(&self) -> Option<f64> {
        let (ms, _) = self.price.as_ref()?;
        Some(ms / self.expected_ms? - 1.0)
    }
}

fn compare(path: &str) -> Vec<Compared> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let mut databases: BTreeMap<String, SiliconDb> = BTreeMap::new();
    reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let name = record[0].to_owned();
            let database = databases.entry(name.clone()).or_insert_with(|| {
                let (device_name, engine) = match name.split_once('/') {
                    Some((device, engine)) => (device, Some(engine)),
                    None => (name.as_str(), None),
                };
                SiliconDb::for_device(&device(device_name), engine).unwrap()
            });
            let arguments = record[2].to_owned();
            let operator = operator(&record[1], &Arguments::parse(&arguments));
            let price = database.price(&operator).ok();
            Compared {
                device: name,
                kind: record[1].to_owned(),
                expected_ms: record[3].parse().ok(),
                price: price.map(|price| (price.time_s * 1e3, price.provenance)),
                arguments,
            }
        })
        .collect()
}

#[test]
#[ignore = "needs reference files"]
fn agrees_with_reference_files() {
    let paths = std::env::var("VIDUR_SWEEP_SILICON_REFERENCE").expect("no reference files named");
    let mut worst: Vec<(f64, String)> = Vec::new();
    let mut errors: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for line in paths.split(':').flat_map(compare) {
        let group = (line.device.clone(), line.kind.clone());
        match (line.relative_error(), line.expected_ms, &line.price) {
            (Some(error), Some(expected), Some((ms, provenance))) => {
                errors.entry(group).or_default().push(error);
                let text = format!(
                    "{} {} {}: {ms:.6} for {expected:.6} ({:+.2} %), {provenance:?}",
                    line.device,
                    line.kind,
                    line.arguments,
                    error * 1e2
                );
                worst.push((error.abs(), text));
            }
            (_, Some(_), None) => {
                println!("no price: {} {} {}", line.device, line.kind, line.arguments)
            }
            _ => {}
        }
    }
    for ((device, kind), mut errors) in errors {
        errors.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let at = |share: f64| errors[((errors.len() - 1) as f64 * share) as usize].abs() * 1e2;
        let beyond = errors.iter().filter(|e| e.abs() > 0.01).count();
        println!(
            "{device:5} {kind:22} {:5} queries, |error| median {:.4} %, p90 {:.4} %, p99 {:.3} %, \
             max {:.2} %, {beyond} beyond 1 %",
            errors.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (_, text) in worst.iter().take(25) {
        println!("{text}");
    }
}
