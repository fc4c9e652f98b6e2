//! Operator prices of the `silicon` backend against figures that NVIDIA's
//! AIConfigurator 0.12.0 computes from the same measurements.
//!
//! A reference file has the columns `device,operator,arguments,expected_ms`;
//! the device may be followed by a slash and an engine;
//! `arguments` are the operator's fields, `name=value` with spaces between.
//! `VIDUR_SWEEP_SILICON_REFERENCE` names further files to check, separated by
//! colons (run with `--ignored --nocapture` for a summary).

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::collections::BTreeMap;
use std::path::Path;

use vidur_sweep::catalog::{Catalog, DeviceSpec};
use vidur_sweep::execution_time::operator::{ExpertLoad, ExpertTokens, LatentWidths};
use vidur_sweep::execution_time::silicon::{SiliconDb, Table, list_tables};
use vidur_sweep::execution_time::{Operator, OperatorCost, Provenance};
use vidur_sweep::units::DType;

fn device(name: &str) -> DeviceSpec {
    Catalog::builtin().device(name).expect("a device")
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
            widths: LatentWidths::DEEPSEEK_V3,
            dtype: a.dtype("dtype"),
            kv_dtype: a.dtype("kv_dtype"),
        },
        "mla_generation" => Operator::MlaGeneration {
            batch: a.whole("batch"),
            kv_tokens: a.real("kv_tokens"),
            heads: a.whole("heads"),
            widths: LatentWidths::DEEPSEEK_V3,
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
            arrival: ExpertTokens::Gathered,
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
                let database = SiliconDb::for_device(&device(device_name), engine).unwrap();
                database.with_experts_as_aiconfigurator()
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

/// Prices are stored as 32-bit floats and references are rounded to seven
/// digits.
const TOLERANCE: f64 = 2e-6;

#[test]
fn equals_the_reference() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/silicon_operators.csv"
    );
    let lines = compare(path);
    assert!(lines.len() > 200);
    for line in lines {
        let error = line.relative_error().unwrap();
        assert!(
            error.abs() < TOLERANCE,
            "{} {} {}: {:?} for {:?} ms",
            line.device,
            line.kind,
            line.arguments,
            line.price,
            line.expected_ms
        );
    }
}

fn database(name: &str) -> SiliconDb {
    SiliconDb::for_device(&device(name), None).unwrap()
}

fn gemm(tokens: u32, out_features: u32, in_features: u32, dtype: DType) -> Operator {
    Operator::Gemm {
        tokens,
        out_features,
        in_features,
        dtype,
    }
}

#[test]
fn says_how_a_price_was_found() {
    let h200 = database("h200");
    let provenance = |operator| h200.price(&operator).unwrap().provenance;
    let at = |tokens, out| provenance(gemm(tokens, out, 4096, DType::Bfloat16));
    assert_eq!(at(16, 4096), Provenance::Measured);
    assert_eq!(at(20, 4096), Provenance::Interpolated);
    assert_eq!(at(16, 28672), Provenance::Interpolated);
    assert_eq!(at(40_000, 4096), Provenance::Extrapolated);
    // Nothing measured is as wide as this LM head within two octaves.
    assert_eq!(at(16, 500_000), Provenance::Extrapolated);
    assert_eq!(
        provenance(Operator::AllReduce {
            bytes: 1e6,
            gpus: 16
        }),
        Provenance::Substituted {
            from: "8 GPUs".into()
        }
    );
    assert_eq!(
        provenance(Operator::Elementwise { bytes: 1e6 }),
        Provenance::Formula
    );
    assert_eq!(
        provenance(Operator::AllReduce {
            bytes: 1e6,
            gpus: 1
        }),
        Provenance::Nothing
    );
}

#[test]
fn states_every_substitution() {
    let attention = |kv_dtype, head_dim| Operator::GenerationAttention {
        batch: 8,
        kv_tokens: 2048.0,
        heads: 32,
        kv_heads: 8,
        head_dim,
        kv_dtype,
    };
    let a100 = database("a100");
    let bfloat16 = a100.price(&attention(DType::Bfloat16, 128)).unwrap();
    let fp8 = a100.price(&attention(DType::Fp8, 128)).unwrap();
    assert_eq!(fp8.time_s, bfloat16.time_s);
    assert_eq!(
        fp8.provenance,
        Provenance::Substituted {
            from: "bfloat16 KV cache".into()
        }
    );
    // Decode is bound by the bytes of the cache, half as many at half the width.
    let narrow = a100.price(&attention(DType::Bfloat16, 64)).unwrap();
    assert!((narrow.time_s / bfloat16.time_s - 0.5).abs() < 0.05);
    assert!(matches!(narrow.provenance, Provenance::Substituted { .. }));
    // Qwen3-Next: 10 of 512 experts; measured were 8 of 256 of that size.
    let experts = Operator::MoeExperts {
        tokens: 64,
        hidden_size: 2048,
        intermediate_size: 512,
        experts_per_token: 10,
        experts: 512,
        expert_tensor_parallel: 1,
        expert_parallel: 4,
        dtype: DType::Bfloat16,
        load: ExpertLoad::Balanced,
        arrival: ExpertTokens::Gathered,
    };
    assert_eq!(
        database("h100").price(&experts).unwrap().provenance,
        Provenance::Substituted {
            from: "8 of 256 experts".into()
        }
    );
}

#[test]
fn has_no_price_for_what_is_like_nothing_measured() {
    let a100 = database("a100");
    let error = a100.price(&gemm(16, 4096, 4096, DType::Fp8)).unwrap_err();
    assert_eq!(error.to_string(), "gemm: no products in fp8 measured");
    assert!(a100.price(&gemm(16, 4, 4096, DType::Bfloat16)).is_err());
    assert!(a100.price(&Operator::Host { requests: 3 }).is_err());
    let exchange = Operator::ExpertDispatch {
        tokens_per_rank: 64,
        hidden_size: 7168,
        experts_per_token: 8,
        experts: 256,
        expert_parallel: 16,
        element_bytes: 1.0,
        low_latency: true,
    };
    assert!(a100.price(&exchange).is_err());
    // Several nodes were measured on Hopper only.
    assert!(database("b200").price(&exchange).is_err());
    assert!(database("h100").price(&exchange).is_ok());
}

#[test]
fn lends_kernels_but_not_links() {
    let (h100, h800) = (database("h100"), database("h800"));
    assert!(SiliconDb::has_data("H100") && !SiliconDb::has_data("h800"));
    assert_eq!(h800.stand_in(), Some("h100"));
    let product = gemm(16, 4096, 4096, DType::Bfloat16);
    let lent = h800.price(&product).unwrap();
    assert_eq!(lent.time_s, h100.price(&product).unwrap().time_s);
    assert_eq!(
        lent.provenance,
        Provenance::Substituted {
            from: "h100".into()
        }
    );
    let collective = Operator::AllGather {
        bytes: 1e6,
        gpus: 8,
    };
    assert!(h100.price(&collective).is_ok());
    let error = h800.price(&collective).unwrap_err();
    assert!(error.reason.contains("links differ"), "{error}");

    let mut unknown = device("h800");
    unknown.kernels_of = None;
    let error = SiliconDb::for_device(&unknown, None).unwrap_err();
    assert!(
        error.to_string().contains("a100, b200, h100, h200"),
        "{error}"
    );
}

#[test]
fn prefers_kernels_of_the_engine() {
    let with = |engine| SiliconDb::for_device(&device("h200"), engine).unwrap();
    let product = gemm(64, 4096, 4096, DType::Bfloat16);
    let time = |database: &SiliconDb| database.price(&product).unwrap().time_s;
    let (vllm, sglang) = (with(None), with(Some("sglang")));
    assert_eq!(time(&vllm), time(&with(Some("vllm"))));
    assert_ne!(time(&vllm), time(&sglang));
    assert_eq!(
        sglang.measured_engine(Table::Gemm),
        Some(("sglang", "0.5.14"))
    );
    assert_eq!(vllm.measured_engine(Table::Gemm), Some(("vllm", "0.24.0")));
    assert_eq!(vllm.measured_engine(Table::ContextMla), None);
}

#[test]
fn reads_the_same_from_a_directory() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/silicon");
    let read = SiliconDb::from_directory(&directory, &device("a100"), None).unwrap();
    let product = gemm(100, 3000, 4096, DType::Bfloat16);
    assert_eq!(read.price(&product), database("a100").price(&product));

    let empty = tempfile::tempdir().unwrap();
    let error = SiliconDb::from_directory(empty.path(), &device("a100"), None).unwrap_err();
    assert!(error.to_string().contains("manifest.yaml"), "{error}");

    // A manifest whose files are gone: the price says which.
    let manifest = std::fs::read(directory.join("manifest.yaml")).unwrap();
    std::fs::write(empty.path().join("manifest.yaml"), manifest).unwrap();
    let broken = SiliconDb::from_directory(empty.path(), &device("a100"), None).unwrap();
    let error = broken.price(&product).unwrap_err();
    assert!(error.reason.contains("a100/gemm.parquet"), "{error}");
}

#[test]
fn lists_what_was_measured() {
    let tables = list_tables(None).unwrap();
    let gemm = tables
        .iter()
        .find(|table| (table.device.as_str(), table.table) == ("b200", "gemm"))
        .unwrap();
    assert_eq!(gemm.keys[0].column, "dtype");
    assert_eq!(gemm.keys[0].values, "bfloat16 fp8 fp8_block nvfp4");
    assert_eq!(gemm.keys[3].values, "1..32768");

    let mut list = assert_cmd::Command::cargo_bin("vidur-sweep").unwrap();
    let output = list.args(["profiles", "list", "--device", "a100", "--format", "csv"]);
    let output = output.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("a100,gemm,sglang,0.5.10,35742,"), "{text}");
    assert!(!text.contains("h100,"));

    let mut list = assert_cmd::Command::cargo_bin("vidur-sweep").unwrap();
    list.args(["profiles", "list", "--device", "h20"])
        .assert()
        .code(2)
        .stderr(predicates::str::contains(
            "measured: a100, b200, h100, h200",
        ));
}

#[test]
fn refuses_to_import_what_is_no_package() {
    let empty = tempfile::tempdir().unwrap();
    let mut import = assert_cmd::Command::cargo_bin("vidur-sweep").unwrap();
    import
        .args(["profiles", "import", "aiconfigurator"])
        .arg(empty.path())
        .arg("--out")
        .arg(empty.path().join("out"))
        .assert()
        .code(2)
        .stderr(predicates::str::contains(
            "aiconfigurator_core/systems/data",
        ));
    assert!(!empty.path().join("out").exists());
}
