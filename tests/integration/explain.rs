//! `explain` from outside: one step, files of steps, and, where
//! `VIDUR_SWEEP_STATIC_ESTIMATES` names a table of AIConfigurator's static
//! estimates, the comparison of `docs/validation.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::*;
use serde_json::Value;
use vidur_sweep::network::topology::{Fabric, TopologyPlan};

const HEADER: &str = "model,device,engine,tensor_parallel,pipeline_parallel,expert_parallel,attention_data_parallel,dtype,phase,batch_size,new_tokens,context_tokens";

fn explain() -> Command {
    let mut command = Command::cargo_bin("vidur-sweep").expect("the binary builds");
    command.arg("explain");
    command
}

#[test]
fn one_step_is_a_table_with_a_total() {
    explain()
        .args(["--model", "llama-3-8b", "--device", "h800"])
        .args(["--batch-size", "8", "--context-tokens", "1000"])
        .args(["--backend", "roofline"])
        .assert()
        .success()
        .stdout(predicate::str::contains("qkv_gemm"))
        .stdout(predicate::str::contains("total"))
        .stdout(predicate::str::contains("100 %"));
}

#[test]
fn json_lines_carry_provenance() {
    let output = explain()
        .args(["--model", "qwen3-next-80b", "--device", "h20"])
        .args(["--tensor-parallel", "2", "--expert-parallel", "2"])
        .args(["--prefill-tokens", "512", "--format", "json"])
        .args(["--backend", "roofline"])
        .output()
        .expect("the binary runs");
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<_> = lines
        .iter()
        .filter_map(|l| l["operator"].as_str())
        .collect();
    for name in ["gdn_in_proj_gemm", "gated_delta_net", "attention", "moe"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(lines.iter().all(|l| l["provenance"].is_string()));
    assert!(lines.iter().all(|l| l["time_ms"].as_f64() > Some(0.0)));
}

/// A file that calls itself h100 is not the device that was measured when its memory or
/// links are others; a price of its own changes no time.
#[test]
fn measurements_are_of_the_catalog_s_device_not_of_its_name() {
    let catalog = vidur_sweep::catalog::Catalog::builtin();
    let h100 = serde_json::to_value(catalog.device("h100").expect("known")).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let provenance = |change: Option<(&str, f64)>| {
        let mut device = h100.clone();
        if let Some((key, factor)) = change {
            device[key] = (device[key].as_f64().expect("a number") * factor).into();
        }
        let file = folder.path().join("h100.yaml");
        std::fs::write(&file, device.to_string()).expect("written");
        let output = explain()
            .args(["--model", "llama-3-8b", "--device"])
            .arg(&file)
            .args(["--tensor-parallel", "2", "--batch-size", "8"])
            .args(["--format", "json"])
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        let of = |name: &str| {
            let mut lines = lines.iter();
            let line = lines.find(|line| line["operator"] == name);
            let line = line.unwrap_or_else(|| panic!("{name} in {output:?}"));
            line["provenance"].as_str().expect("text").to_owned()
        };
        (of("qkv_gemm"), of("ar_1"))
    };
    let (kernels, collectives) = provenance(None);
    assert!(kernels.starts_with("measured"), "{kernels}");
    assert!(!collectives.contains("catalog"), "{collectives}");
    let with_price = provenance(Some(("price_usd_per_hour", 2.0)));
    assert_eq!(with_price, (kernels.clone(), collectives.clone()));
    let slower_memory = provenance(Some(("memory_bandwidth_gb_per_s", 0.5)));
    assert_eq!(
        slower_memory,
        ("substituted: the catalog's h100".into(), collectives)
    );
    let (same, formula) = provenance(Some(("nvlink_bandwidth_gbps", 0.5)));
    assert_eq!(same, kernels);
    assert_eq!(
        formula,
        "roofline: collectives were measured on the catalog's h100 only, whose links differ"
    );
}

#[test]
fn placement_names_the_gpus_of_every_group() {
    let qwen = ["--model", "Qwen3-Moe-235B", "--device", "h20"];
    let cut = ["--tensor-parallel", "4", "--pipeline-parallel", "2"];
    let experts = ["--attention-data-parallel", "2", "--expert-parallel", "4"];
    let placed = |more: &[&str]| {
        let mut command = explain();
        command.args(qwen).args(cut).args(experts);
        command.args(["--backend", "roofline"]).args(more);
        let output = command.output().expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let table = placed(&[]);
    for line in [
        "placement on servers of 8 GPUs (h20)",
        "replica 0: GPUs 0-15 (servers 0-1)",
        "  stage 1: GPUs 8-15 (server 1: 0-7), its experts over all of them: 4 ways by expert, \
         each expert cut 2 ways",
        "    tensor group 1: GPUs 12-15 (server 1: 4-7)",
    ] {
        assert!(table.lines().any(|found| found == line), "{line}\n{table}");
    }
    assert!(table.contains("qkv_gemm"));

    let csv = placed(&["--placement", "--format", "csv", "--replicas", "2"]);
    let rows: Vec<_> = csv.lines().collect();
    assert_eq!(
        rows[0],
        "pool,replica,group,stage,attention_rank,servers,gpus"
    );
    assert_eq!(rows.len(), 1 + 2 * (1 + 2 * 3));
    assert!(rows.contains(&"mixed,1,tensor,0,1,2,20 21 22 23"), "{csv}");

    // Servers of another size, where a stage straddles them.
    let json = placed(&["--placement", "--format", "json", "--gpus-per-node", "6"]);
    let groups: Vec<Value> = serde_json::from_str(&json).expect("JSON");
    let stage = groups
        .iter()
        .find(|group| group["stage"] == 1)
        .expect("a stage");
    assert_eq!(stage["servers"], serde_json::json!([1, 2]));
}

#[test]
fn the_pools_of_a_run_sit_one_after_the_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = folder.path().join("s.yaml");
    let text = "name: places\nbase:\n  model: llama-3-8b\n  device: h100\n  replicas: 4\n  \
                pd_node_ratio: 0.5\n  prefill: {tensor_parallel: 4}\n  \
                decode: {tensor_parallel: 8}\n  workload: {requests: 10, arrivals: poisson, lengths: {type: fixed, prefill_tokens: 8, decode_tokens: 8}}\naxes:\n  qps: [1, 2]\n";
    std::fs::write(&spec, text).expect("the specification is written");
    let placed = |more: &[&str]| {
        let mut command = explain();
        command.arg("--spec").arg(&spec).args(more);
        command
    };
    let output = placed(&["--run", "1", "--replicas", "9", "--format", "csv"]).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let csv = String::from_utf8(output.stdout).expect("text");
    let replicas: Vec<_> = csv
        .lines()
        .filter(|row| row.contains(",replica,,,"))
        .collect();
    assert_eq!(
        replicas,
        [
            "prefill,0,replica,,,0,0 1 2 3",
            "prefill,1,replica,,,0,4 5 6 7",
            "decode,0,replica,,,1,8 9 10 11 12 13 14 15",
            "decode,1,replica,,,2,16 17 18 19 20 21 22 23",
        ]
    );
    placed(&[])
        .assert()
        .success()
        .stdout(predicate::str::contains(
            "decode placement on servers of 8 GPUs (h100)\nreplica 0: GPUs 8-15 (server 1: 0-7)",
        ))
        .stdout(predicate::str::contains(
            "KV cache of 1000 tokens (131.1 MB), prefill replica 0 to decode replica 0: from NICs \
             to NICs; alone 0.6",
        ));
    placed(&["--run", "2"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("has 2 runs, the first is 0"));
    placed(&["--tensor-parallel", "2"]).assert().code(2);
}

#[test]
fn the_way_of_a_cache_between_pools_is_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let topology = folder.path().join("topology");
    let plan = TopologyPlan::new(Fabric::SpectrumX, 32);
    let text = plan.generate().expect("a topology").to_string();
    std::fs::write(&topology, text).expect("the topology is written");
    let spec = folder.path().join("s.yaml");
    let text = format!(
        "name: way\nbase:\n  model: llama-3-8b\n  device: h100\n  backend: roofline\n  \
         prefill: {{replicas: 1, tensor_parallel: 4}}\n  \
         decode: {{replicas: 2, tensor_parallel: 2}}\n  network: {{topology: {}}}\n  \
         workload: {{requests: 10, arrivals: poisson, lengths: {{type: fixed, prefill_tokens: 8, \
         decode_tokens: 8}}}}\naxes:\n  qps: [1]\n  decode.replicas: [2, 20]\n  \
         prefill.tensor_parallel: [4, 8]\n",
        topology.display()
    );
    std::fs::write(&spec, text).expect("the specification is written");
    let shown = |run: &str| {
        let mut command = explain();
        command.arg("--spec").arg(&spec).args(["--run", run]);
        command.env("COLUMNS", "300").assert()
    };
    // The rest of the prefill server takes the first decode replica.
    shown("0")
        .success()
        .stdout(predicate::str::contains(
            "replica 0: GPUs 4-5 (server 0: 4-5)",
        ))
        .stdout(predicate::str::contains(
            "decode replica 0: 4 flows over NVLink; alone 0.",
        ));
    // 131 MB into two NICs of 400 Gb/s, half of it over the spine.
    shown("1").success().stdout(predicate::str::contains(
        "decode replica 0: 8 flows over NICs and up to 3 switches; alone 1.3",
    ));
    shown("2").code(2).stderr(predicate::str::contains(
        "run 2: the replicas take 44 GPUs, those left out in servers included",
    ));
}

#[test]
fn a_topology_places_replicas_and_prices_communication() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = TopologyPlan {
        gpus_per_server: 4,
        rails: 4,
        ..TopologyPlan::new(Fabric::RailOptimized, 8)
    };
    let topology = folder.path().join("two_servers");
    let text = plan.generate().expect("a topology").to_string();
    std::fs::write(&topology, text).expect("the topology is written");
    let over = |tensor: &str| {
        let mut command = explain();
        command.args(["--model", "llama-3-8b", "--device", "h100"]);
        command.args(["--tensor-parallel", tensor, "--backend", "roofline"]);
        command.arg("--topology").arg(&topology);
        command
    };
    over("8")
        .assert()
        .success()
        .stdout(predicate::str::contains("placement on servers of 4 GPUs"))
        .stdout(predicate::str::contains(
            "tensor group 0: GPUs 0-7 (servers 0-1)",
        ))
        .stdout(predicate::str::contains("substituted: flows over"));
    over("8")
        .args(["--gpus-per-node", "8"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains(
            "--gpus-per-node: value `8`, but the servers of",
        ));
    over("8")
        .args(["--pipeline-parallel", "2"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains(
            "the replicas take 16 GPUs, those left out in servers included",
        ));
    explain()
        .args(["--model", "llama-3-8b", "--device", "h100"])
        .args(["--topology", "no_such_topology"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--topology: no_such_topology"));
}

#[test]
fn bad_flags_end_in_exit_code_2() {
    explain()
        .args(["--model", "llama-3-8b", "--device", "h100"])
        .args(["--tensor-parallel", "3", "--backend", "roofline"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--tensor-parallel"))
        .stderr(predicate::str::contains(
            "does not divide 32 (attention heads)",
        ));
    explain()
        .args(["--model", "llama-3-8b", "--device", "h1000"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("did you mean `h100`"));
}

#[test]
fn bad_steps_leave_no_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (steps, out) = (folder.path().join("s.csv"), folder.path().join("o.csv"));
    let row = "llama-3-8b,h100,vllm,1,1,1,1,bfloat16,decode,1,1,-5";
    std::fs::write(&steps, format!("{HEADER}\n{row}\n")).expect("steps are written");
    explain()
        .args([Path::new("--steps"), &steps, Path::new("--out"), &out])
        .args(["--backend", "roofline"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains(
            "s.csv:2:50: context_tokens: `-5`; allowed: whole numbers from 0",
        ));
    assert!(!out.exists());
}

// ---------------------------------------------------------------------------
// Comparison with AIConfigurator's static estimates.

/// Every how many generated tokens the estimates sample a decode step.
const STRIDE: u32 = 32;
/// Allowed deviation of an operator both sides take from measured tables.
const TOLERANCE: f64 = 0.02;
/// Layers of DeepSeek-V3, and those of them that have experts. The estimates
/// price all of them as MoE layers.
const DEEPSEEK_LAYERS: f64 = 61.0;
const DEEPSEEK_MOE_LAYERS: f64 = 58.0;

/// One row of the estimates.
struct Estimate {
    fields: HashMap<String, String>,
}

impl Estimate {
    fn text(&self, column: &str) -> &str {
        &self.fields[column]
    }

    fn number(&self, column: &str) -> u32 {
        self.text(column).parse().expect("a whole number")
    }

    fn deepseek(&self) -> bool {
        self.text("model").contains("DeepSeek")
    }

    fn label(&self) -> String {
        let part = |column| self.text(column);
        format!(
            "{} {} tp{} pp{} dp{} moe_tp{} ep{} batch {} isl {}",
            part("model"),
            part("system"),
            part("tp"),
            part("pp"),
            part("attn_dp"),
            part("moe_tp"),
            part("moe_ep"),
            part("batch_per_dp_rank"),
            part("isl")
        )
    }

    /// The steps the row stands for: phase, context, and how often taken.
    fn steps(&self) -> Vec<(&'static str, u32, u32)> {
        let (isl, osl) = (self.number("isl"), self.number("osl"));
        let mut steps = vec![("prefill", 0, 1)];
        let mut generated = 0;
        while generated < osl - 1 {
            let repeats = STRIDE.min(osl - 1 - generated);
            steps.push(("decode", isl + generated, repeats));
            generated += STRIDE;
        }
        steps
    }

    /// The estimates of the operators of a phase, ms, and their sources.
    fn operators(&self, phase: &str) -> BTreeMap<String, (f64, String)> {
        let (column, prefix) = match phase {
            "prefill" => ("ctx_ops_ms", "context_"),
            _ => ("gen_ops_ms_sum", "generation_"),
        };
        let times: BTreeMap<String, f64> =
            serde_json::from_str(self.text(column)).expect("operator times");
        let sources: BTreeMap<String, String> =
            serde_json::from_str(self.text("non_silicon_ops")).unwrap_or_default();
        let source = |name: &str| sources.get(name).map_or("silicon", String::as_str).into();
        times
            .into_iter()
            .map(|(name, ms)| {
                let source = source(&name);
                (name.trim_start_matches(prefix).to_owned(), (ms, source))
            })
            .collect()
    }
}

fn estimates(path: &str) -> Vec<Estimate> {
    let mut reader = csv::Reader::from_path(path).expect("the estimates are readable");
    let header = reader.headers().expect("a header").clone();
    let rows = reader.records().map(|record| {
        let record = record.expect("a record");
        let fields = header.iter().zip(record.iter());
        Estimate {
            fields: fields.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    });
    let comparable = |row: &Estimate| {
        let (system, backend) = (row.text("system"), row.text("backend"));
        let measured = ["h100_sxm", "h200_sxm", "b200_sxm"].contains(&system) && backend == "vllm"
            || system == "a100_sxm" && backend == "sglang";
        // Rows whose expert exchange was borrowed from another topology are not.
        measured && row.text("substitute_comm") == "0"
    };
    rows.filter(comparable).collect()
}

/// Time of every operator by phase and name, and its provenance.
type Times = HashMap<(String, String), (f64, String)>;

/// Prices all rows in one call.
fn priced(rows: &[Estimate], backend: &str) -> Vec<Times> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (steps, out) = (folder.path().join("in.csv"), folder.path().join("out.csv"));
    let mut text = format!("{HEADER},row,weight\n");
    for (index, row) in rows.iter().enumerate() {
        for (phase, context, weight) in row.steps() {
            let new_tokens = if phase == "prefill" {
                row.number("isl")
            } else {
                1
            };
            let part = |column| row.text(column);
            let _ = writeln!(
                text,
                "{},{},,{},{},{},{},{},{phase},{},{new_tokens},{context},{index},{weight}",
                part("model"),
                part("system"),
                part("tp"),
                part("pp"),
                part("moe_ep"),
                part("attn_dp"),
                part("gemm"),
                part("batch_per_dp_rank"),
            );
        }
    }
    std::fs::write(&steps, text).expect("steps are written");
    explain()
        .args([Path::new("--steps"), &steps, Path::new("--out"), &out])
        .args(["--backend", backend])
        .assert()
        .success();
    let mut times = vec![HashMap::new(); rows.len()];
    let mut reader = csv::Reader::from_path(&out).expect("operators are readable");
    for line in reader.deserialize::<HashMap<String, String>>() {
        let line = line.expect("a priced operator");
        let number = |column: &str| -> f64 { line[column].parse().expect("a number") };
        let key = (line["phase"].clone(), line["operator"].clone());
        let entry = times[number("row") as usize]
            .entry(key)
            .or_insert((0.0, line["provenance"].clone()));
        entry.0 += number("time_ms") * number("weight");
    }
    times
}

/// Relative errors of one class of operators on one device.
#[derive(Default)]
struct Errors {
    relative: Vec<f64>,
}

impl Errors {
    fn quantile(&self, q: f64) -> f64 {
        let mut sorted: Vec<_> = self.relative.iter().map(|e| e.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * q).round() as usize]
    }

    fn median_signed(&self) -> f64 {
        let mut sorted = self.relative.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) / 2]
    }
}

/// Whether the two sides mean the same thing by the name.
fn same_thing(row: &Estimate, name: &str, ms: f64) -> bool {
    let double_counted = name == "tp_allreduce";
    // Sends inside a node go over NVLink here, over the NIC there.
    let other_link = name == "p2p";
    // DeepSeek's dense layers do not exist there.
    let dense = row.deepseek() && ["gate_ffn1_gemm", "act_gate", "ffn2_gemm"].contains(&name);
    ms > 0.0 && !double_counted && !other_link && !dense
}

/// Factor that brings our operator to the estimate's number of layers.
fn layers_factor(row: &Estimate, name: &str) -> f64 {
    let expert = name.starts_with("moe") || name.starts_with("shared") || name == "router_gemm";
    if row.deepseek() && expert {
        DEEPSEEK_LAYERS / DEEPSEEK_MOE_LAYERS
    } else {
        1.0
    }
}

/// Compares all rows: a table by operator and device, and what is beyond the
/// tolerance.
fn compare(rows: &[Estimate], backend: &str) -> (String, Vec<String>) {
    let ours = priced(rows, backend);
    let mut classes: BTreeMap<[String; 3], Errors> = BTreeMap::new();
    let mut models: BTreeMap<[String; 3], Errors> = BTreeMap::new();
    let mut beyond = Vec::new();
    for (row, times) in rows.iter().zip(&ours) {
        for phase in ["prefill", "decode"] {
            for (name, (estimate_ms, source)) in row.operators(phase) {
                if !same_thing(row, &name, estimate_ms) {
                    continue;
                }
                let Some((time_ms, provenance)) = times.get(&(phase.into(), name.clone())) else {
                    beyond.push(format!("{} {phase} {name}: not priced", row.label()));
                    continue;
                };
                let error = time_ms * layers_factor(row, &name) / estimate_ms - 1.0;
                let device = row.text("system");
                let class = [phase.into(), name.clone(), device.into()];
                classes.entry(class).or_default().relative.push(error);
                let class = [phase.into(), row.text("model").into(), device.into()];
                models.entry(class).or_default().relative.push(error);
                if error.abs() > TOLERANCE {
                    let percent = 100.0 * error;
                    beyond.push(format!(
                        "{} {phase} {name} ({source}): {time_ms:.4} ms ({provenance}) against {estimate_ms}: {percent:+.1} %",
                        row.label(),
                    ));
                }
            }
        }
    }
    let tables =
        [("operator", &classes), ("model", &models)].map(|(what, errors)| markdown(what, errors));
    (tables.join("\n"), beyond)
}

fn markdown(what: &str, classes: &BTreeMap<[String; 3], Errors>) -> String {
    let mut table = format!(
        "| phase | {what} | device | compared | median error | p90 error | largest error | median signed |\n|---|---|---|---|---|---|---|---|\n",
    );
    for ([phase, name, device], errors) in classes {
        let percent = |q: f64| 100.0 * errors.quantile(q);
        let _ = writeln!(
            table,
            "| {phase} | {name} | {device} | {} | {:.3} % | {:.3} % | {:.3} % | {:+.3} % |",
            errors.relative.len(),
            percent(0.5),
            percent(0.9),
            percent(1.0),
            100.0 * errors.median_signed()
        );
    }
    table
}

/// Run with `VIDUR_SWEEP_STATIC_ESTIMATES=static_estimates.csv cargo test --test
/// explain -- --nocapture`; without the variable there is nothing to compare.
#[test]
fn operators_agree_with_static_estimates() {
    let Ok(path) = std::env::var("VIDUR_SWEEP_STATIC_ESTIMATES") else {
        return;
    };
    let rows = estimates(&path);
    assert!(!rows.is_empty(), "{path} has no comparable rows");
    let (roofline, _) = compare(&rows, "roofline");
    println!("## roofline\n\n{roofline}");
    let (silicon, _) = compare(&rows, "silicon");
    println!("## silicon\n\n{silicon}");
    let (tables, beyond) = compare(&rows, "aiconfigurator");
    println!("## aiconfigurator\n\n{tables}");
    assert!(
        beyond.is_empty(),
        "{} beyond {TOLERANCE}:\n{}",
        beyond.len(),
        beyond.join("\n")
    );
}
