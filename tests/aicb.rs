//! Backend `aicb`: recorded lookups of Vidur-AlibabaCloud to the last bit, and
//! the same files read right. `VIDUR_SWEEP_AICB_RUNS` names a folder of more
//! cases like those in `tests/fixtures/aicb`.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::path::{Path, PathBuf};

use vidur_sweep::catalog::{Catalog, ModelSpec};
use vidur_sweep::execution_time::aicb::{AicbCost, CompatAicb, CompatQuery, Phase, read_directory};
use vidur_sweep::execution_time::step_cost::GraphCost;
use vidur_sweep::execution_time::{
    BackendKind, PrefillChunk, Provenance, StageTime, StepCost, StepShape,
};
use vidur_sweep::memory::{Formats, Parallelism};
use vidur_sweep::network::LinkOverrides;
use vidur_sweep::simulator::{RunSummary, SummaryRecorder, simulate};
use vidur_sweep::spec::{Pool, Resolver, RunConfig};
use vidur_sweep::workload::WorkloadSource;

/// Folders of the cases.
fn cases() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aicb");
    let more = std::env::var_os("VIDUR_SWEEP_AICB_RUNS").map(PathBuf::from);
    let entries = [Some(fixtures), more].into_iter().flatten();
    let entries = entries.flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("lookups.csv").exists())
        .collect();
    cases.sort();
    cases
}

/// Lookups of a case and the times recorded for them.
fn lookups(case: &Path) -> Vec<(CompatQuery, f64)> {
    let mut reader = csv::Reader::from_path(case.join("lookups.csv")).unwrap();
    let row = |record: csv::StringRecord| {
        let query = CompatQuery {
            phase: match &record[0] {
                "prefill" => Phase::Prefill,
                _ => Phase::Decode,
            },
            batch_size: record[1].parse().unwrap(),
            sequence: record[2].parse().unwrap(),
            final_sequence: record[3].parse().ok(),
        };
        (query, record[4].parse().unwrap())
    };
    reader
        .records()
        .map(|record| row(record.unwrap()))
        .collect()
}

fn compat(case: &Path) -> CompatAicb {
    let files = read_directory(case).unwrap();
    let layers = files[0].1.layers.len() as u32;
    CompatAicb::new(files, layers, 800.0)
}

#[test]
fn recorded_lookups_come_out_to_the_last_bit() {
    let cases = cases();
    assert!(cases.len() >= 3);
    for case in cases {
        let original = compat(&case);
        let lookups = lookups(&case);
        let case = case.display();
        assert!(lookups.len() >= 32, "{case}");
        for (index, (query, recorded)) in lookups.iter().enumerate() {
            let time_s = original.time_s(query).unwrap();
            let error = (time_s / recorded - 1.0).abs();
            assert!(
                error < 1e-12,
                "{case} {index}: {query:?}: {time_s} vs {recorded}"
            );
        }
    }
}

#[test]
fn as_a_step_cost_it_answers_from_shapes() {
    // Batches that all end at one length: the file of that length is the one
    // that the original loads.
    let traced = |case: &PathBuf| case.to_string_lossy().ends_with("_trace");
    for case in cases().iter().filter(|case| !traced(case)) {
        let original = compat(case);
        for (query, recorded) in lookups(case) {
            let shape = shape_of(&query);
            let time_s = original.stage_time(0, &shape).model_s;
            assert!(
                (time_s / recorded - 1.0).abs() < 1e-12,
                "{} {query:?}",
                case.display()
            );
        }
    }
}

fn shape_of(query: &CompatQuery) -> StepShape {
    match query.phase {
        Phase::Prefill => prompt(query.sequence as u32, 0),
        Phase::Decode => StepShape {
            decode_requests: query.batch_size,
            decode_context_tokens: query.sequence,
            ..StepShape::default()
        },
    }
}

fn prompt(new_tokens: u32, context_tokens: u32) -> StepShape {
    StepShape {
        prefills: vec![PrefillChunk {
            new_tokens,
            context_tokens,
        }],
        ..StepShape::default()
    }
}

fn decodes(requests: u32, context: u64) -> StepShape {
    StepShape {
        decode_requests: requests,
        decode_context_tokens: u64::from(requests) * context,
        ..StepShape::default()
    }
}

fn cut(tensor_parallel: u32, expert_parallel: u32) -> Parallelism {
    Parallelism {
        tensor_parallel,
        pipeline_parallel: 1,
        expert_parallel,
        attention_data_parallel: expert_parallel / tensor_parallel,
    }
}

fn model(name: &str) -> ModelSpec {
    Catalog::builtin().model(name).unwrap()
}

fn graph(name: &str, device: &str, parallelism: Parallelism) -> Result<GraphCost, String> {
    let model = model(name);
    GraphCost::new(
        &model,
        &Catalog::builtin().device(device).unwrap(),
        BackendKind::Aicb,
        None,
        parallelism,
        Formats::of(&model, None, None),
        8,
        &LinkOverrides::default(),
    )
}

/// Writes an AICB file for each (batch, sequence): attention takes
/// `100 + batch * sequence` ns a layer, experts `1000 * tokens`, the MLP `500 *
/// tokens`.
fn write_files(
    directory: &Path,
    model: &ModelSpec,
    parallelism: Parallelism,
    sizes: &[(Phase, u32, u64)],
) {
    let aicb = vidur_sweep::execution_time::aicb::Cut::of(model, parallelism).unwrap();
    for &(phase, batch, sequence) in sizes {
        let tokens = match phase {
            Phase::Prefill => sequence,
            Phase::Decode => u64::from(batch),
        };
        let mut text = "layer_id\tlayer_name\tcomp_time\tcomm_size\n".to_owned();
        for layer in 0..model.layers {
            let attention = 100 + u64::from(batch) * sequence;
            text += &format!("{layer}\tattention\t{attention}\t0\n");
            let (name, each) = if model.is_moe_layer(layer) {
                ("moe", 1000)
            } else {
                ("mlp", 500)
            };
            text += &format!("{layer}\t{name}\t{}\t7\n", each * tokens);
        }
        let name = aicb.file(phase, batch, sequence).to_string();
        std::fs::write(directory.join(name), text).unwrap();
    }
}

/// Seconds of the parts that come from files.
fn from_files(cost: &AicbCost, shape: &StepShape) -> f64 {
    let rows = cost.explain(shape);
    let aicb = rows.iter().filter(|row| row.name.starts_with("aicb_"));
    aicb.map(|row| row.time_s).sum()
}

#[test]
fn files_are_interpolated_in_batch_and_sequence() {
    let directory = tempfile::tempdir().unwrap();
    let parallelism = cut(1, 32);
    let deepseek = model("deepseek-671B");
    let sizes = [
        (Phase::Prefill, 1, 1000),
        (Phase::Prefill, 1, 3000),
        (Phase::Decode, 10, 1000),
        (Phase::Decode, 10, 2000),
        (Phase::Decode, 30, 1000),
        (Phase::Decode, 30, 2000),
    ];
    write_files(directory.path(), &deepseek, parallelism, &sizes);
    let both = [Phase::Prefill, Phase::Decode];
    let cost = AicbCost::new(directory.path(), &both, || {
        graph("deepseek-671B", "h800", parallelism)
    })
    .unwrap();
    // 61 layers of attention, 3 of MLP, 58 of experts, nanoseconds.
    let expected = |attention: f64, tokens: f64| {
        (61.0 * (100.0 + attention) + 3.0 * 500.0 * tokens + 58.0 * 1000.0 * tokens) * 1e-9
    };
    let shape = decodes(32 * 10, 1500);
    let mut times = vec![StageTime::default(); 2 * cost.stages() as usize];
    cost.decode_times(&shape, &mut times);
    assert_eq!(times[0], cost.stage_time(0, &shape));
    cost.stage_times(&shape, &mut times[..1]);
    assert_eq!(times[0], cost.stage_time(0, &shape));
    assert_eq!(cost.explain_stage(0, &shape), cost.explain(&shape));
    for (shape, time_s) in [
        (prompt(1000, 0), expected(1000.0, 1000.0)),
        (prompt(2500, 0), expected(2500.0, 2500.0)),
        (decodes(32 * 10, 1500), expected(15_000.0, 10.0)),
        (decodes(32 * 20, 1000), expected(20_000.0, 20.0)),
    ] {
        // One prompt on 32 ranks: its tokens are spread over the ranks' experts.
        let ranks = if shape.prefills.is_empty() { 1.0 } else { 32.0 };
        let got = from_files(&cost, &shape);
        if ranks == 1.0 {
            assert!(
                (got / time_s - 1.0).abs() < 1e-9,
                "{shape:?}: {got} vs {time_s}"
            );
        } else {
            assert!(
                got < time_s && got > time_s / 40.0,
                "{shape:?}: {got} vs {time_s}"
            );
        }
        let stage_s = cost.stage_time(0, &shape).model_s;
        let sum_s: f64 = cost.explain(&shape).iter().map(|row| row.time_s).sum();
        assert!((stage_s / sum_s - 1.0).abs() < 2e-3, "{stage_s} vs {sum_s}");
        assert!(stage_s > got, "exchange, norms and head come on top");
    }
}

#[test]
fn a_chunk_costs_what_its_context_adds() {
    let directory = tempfile::tempdir().unwrap();
    let parallelism = cut(4, 4);
    let qwen = model("qwen3-moe-235B");
    let sizes = [
        (Phase::Prefill, 1, 1000),
        (Phase::Prefill, 1, 2000),
        (Phase::Prefill, 1, 4000),
    ];
    write_files(directory.path(), &qwen, parallelism, &sizes);
    let cost = AicbCost::new(directory.path(), &[Phase::Prefill], || {
        graph("qwen3-moe-235B", "h800", parallelism)
    })
    .unwrap();
    let attention_s = |shape: &StepShape| -> f64 {
        let rows = cost.explain(shape);
        let named = rows.iter().filter(|row| row.name == "aicb_attention");
        named.map(|row| row.time_s).sum()
    };
    let layers = 94.0 * 1e-9;
    assert!((attention_s(&prompt(1000, 0)) - 1100.0 * layers).abs() < 1e-12);
    // Linear files: no more than the chunk alone.
    assert!((attention_s(&prompt(1000, 3000)) - 1100.0 * layers).abs() < 1e-12);
    // Decodes have no files here: the whole step is the operator graph's.
    let decode = decodes(8, 1000);
    let whole = graph("qwen3-moe-235B", "h800", parallelism).unwrap();
    assert_eq!(cost.stage_time(0, &decode), whole.stage_time(0, &decode));
}

#[test]
fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let parallelism = cut(1, 32);
    let deepseek = model("deepseek-671B");
    let build = |phases: &[Phase], parallelism| {
        AicbCost::new(directory.path(), phases, || {
            graph("deepseek-671B", "h800", parallelism)
        })
    };
    let error = build(&[Phase::Prefill], parallelism)
        .unwrap_err()
        .to_string();
    assert!(error.contains("has no files named vidur-MODEL"), "{error}");
    write_files(
        directory.path(),
        &deepseek,
        parallelism,
        &[(Phase::Prefill, 1, 1000)],
    );
    let cost = build(&[Phase::Prefill], parallelism).unwrap();
    let error = build(&[Phase::Prefill, Phase::Decode], parallelism)
        .unwrap_err()
        .to_string();
    let file = "vidur-DeepSeek-671B-world_size32-tp1-pp1-ep32-bs32-seq4096-decode.csv";
    assert!(error.contains(file), "{error}");
    let error = build(&[Phase::Prefill], cut(2, 32))
        .unwrap_err()
        .to_string();
    assert!(error.contains("world_size32-tp2-pp1-ep32"), "{error}");
    // Beyond the files a step is priced and says which file would cover it.
    let rows = cost.explain(&prompt(5000, 0));
    let attention = rows
        .iter()
        .find(|row| row.name == "aicb_attention")
        .unwrap();
    let Provenance::Substituted { from } = &attention.provenance else {
        panic!("{:?}", attention.provenance);
    };
    assert!(from.contains("-bs1-seq5000-prefill.csv"), "{from}");
    // A file that lacks layers is refused by name.
    let name = "vidur-DeepSeek-671B-world_size32-tp1-pp1-ep32-bs1-seq9-prefill.csv";
    let text = "layer_id\tlayer_name\tcomp_time\tcomm_size\n0\tattention\t5\t0\n";
    std::fs::write(directory.path().join(name), text).unwrap();
    let error = build(&[Phase::Prefill], parallelism)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(name) && error.contains("1 layers"),
        "{error}"
    );
    // And models that AICB does not know.
    let error = AicbCost::new(directory.path(), &[], || {
        graph("llama-3-8b", "h800", cut(1, 1))
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("AICB has no workload of"), "{error}");
}

#[test]
fn without_files_every_named_device_is_priced() {
    for device in ["h20", "h800", "h100", "h200"] {
        let cost = graph("deepseek-671B", device, cut(1, 32)).unwrap();
        let step_s = cost.stage_time(0, &decodes(32 * 64, 4096)).model_s;
        assert!((0.01..0.2).contains(&step_s), "{device}: {step_s}");
        let rows = cost.explain(&decodes(32 * 64, 4096));
        let block = rows.iter().find(|row| row.name == "mla_block").unwrap();
        let fitted = matches!(&block.provenance, Provenance::Roofline { reason } if reason.contains("fitted"));
        assert_eq!(fitted, ["h20", "h800"].contains(&device), "{device}");
    }
}

#[test]
fn expert_exchange_depends_on_ranks_nodes_and_format() {
    let exchange_s = |ranks: u32| -> f64 {
        let cost = graph("deepseek-671B", "h800", cut(1, ranks)).unwrap();
        let rows = cost.explain(&prompt(1024 * ranks, 0));
        let named = rows
            .iter()
            .filter(|row| ["moe_dispatch", "moe_combine"].contains(&row.name.as_str()));
        named.map(|row| row.time_s).sum()
    };
    assert_eq!(exchange_s(1), 0.0);
    let (one_node, two, eight) = (exchange_s(8), exchange_s(16), exchange_s(64));
    assert!(
        one_node > 0.0 && two > 2.0 * one_node && eight > two,
        "{one_node} {two} {eight}"
    );
}

/// A run of DeepSeek-V3 on H800 with `changes` made to it.
fn config(changes: serde_json::Value) -> RunConfig {
    let mut json = serde_json::json!({
        "model": "deepseek-671B", "device": "h800", "backend": "aicb",
        "expert_parallel": 32, "qps": 20.0,
        "workload": {
            "requests": 60,
            "lengths": {"type": "uniform", "min_tokens": 64, "max_tokens": 2048, "prefill_to_decode_ratio": 8.0},
            "arrivals": {"type": "poisson"}
        }
    });
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    serde_json::from_value(json).unwrap()
}

fn summary(config: &RunConfig) -> RunSummary {
    let deployment = Resolver::default().resolve(config).unwrap();
    let source = WorkloadSource::default();
    let workload = source.get(&config.workload, config.seed, config.replication);
    let workload = workload.unwrap().at_rate(config.qps).unwrap();
    let mut recorder = SummaryRecorder::new(workload.requests.len(), 1, None);
    let totals = simulate(&deployment.cluster, &workload, &mut recorder);
    recorder.finish(&totals).0
}

#[test]
fn runs_with_options_finish_and_repeat() {
    let plain = config(serde_json::json!({}));
    let options = config(serde_json::json!({
        "two_batch_overlap": true,
        "speculative": {"acceptance": 0.85},
        "moe": {"load": {"type": "power_law", "alpha": 1.0}, "redundant_experts": 32},
        "pipeline_parallel": 2
    }));
    for config in [&plain, &options] {
        let first = summary(config);
        assert_eq!(first.completed, 60);
        assert_eq!(first, summary(config));
    }
    // 61 layers go 31 and 30.
    let deployment = Resolver::default().resolve(&options).unwrap();
    let layers: Vec<_> = deployment.pools[0]
        .graph
        .stages()
        .iter()
        .map(|stage| stage.layers())
        .collect();
    assert_eq!(layers, [31, 30]);
}

#[test]
fn runs_read_files_and_refuse_what_does_not_go_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let parallelism = cut(1, 32);
    let sizes = [
        (Phase::Prefill, 1, 64),
        (Phase::Prefill, 1, 4096),
        (Phase::Decode, 1, 64),
        (Phase::Decode, 64, 64),
        (Phase::Decode, 1, 4096),
        (Phase::Decode, 64, 4096),
    ];
    write_files(
        directory.path(),
        &model("deepseek-671B"),
        parallelism,
        &sizes,
    );
    let files = serde_json::json!({"aicb_dir": directory.path()});
    let from_files = summary(&config(files.clone()));
    assert_eq!(from_files.completed, 60);
    assert_ne!(from_files, summary(&config(serde_json::json!({}))));
    let refused = |changes: serde_json::Value| {
        let mut all = files.clone();
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        let error = Resolver::default().resolve(&config(all)).err().unwrap();
        error.to_string()
    };
    let with_overlap = refused(serde_json::json!({"two_batch_overlap": true}));
    assert!(
        with_overlap.contains("need operators one by one"),
        "{with_overlap}"
    );
    let other_backend = refused(serde_json::json!({"backend": "silicon"}));
    assert!(
        other_backend.contains("aicb_dir is for backend aicb"),
        "{other_backend}"
    );
    let other_cut = refused(serde_json::json!({"expert_parallel": 64}));
    assert!(
        other_cut.contains("world_size64-tp1-pp1-ep64"),
        "{other_cut}"
    );
    // Identities follow the files' content.
    let resolver = Resolver::default();
    let data = resolver.fingerprints(&config(files.clone()));
    write_files(
        directory.path(),
        &model("deepseek-671B"),
        parallelism,
        &[(Phase::Decode, 2, 64)],
    );
    assert_ne!(data, Resolver::default().fingerprints(&config(files)));
}

#[test]
fn options_that_a_model_cannot_have_are_refused() {
    let refused = |changes: serde_json::Value| {
        let error = Resolver::default().resolve(&config(changes)).err().unwrap();
        error.to_string()
    };
    let dense = refused(serde_json::json!({
        "model": "llama-3-8b", "expert_parallel": 1, "backend": "silicon",
        "moe": {"redundant_experts": 4}
    }));
    assert!(dense.contains("moe is for models with experts"), "{dense}");
    let no_mtp = refused(serde_json::json!({
        "model": "qwen3-moe-235B", "expert_parallel": 8, "speculative": {"acceptance": 0.5}
    }));
    assert!(
        no_mtp.contains("needs multi-token-prediction layers"),
        "{no_mtp}"
    );
    let short = refused(serde_json::json!({
        "moe": {"load": {"type": "histogram", "tokens": [1.0, 2.0]}}
    }));
    assert!(short.contains("`moe.load.tokens`: 2 numbers"), "{short}");
}

#[test]
fn redundant_experts_take_memory_and_even_out() {
    let load = |redundant: u32| {
        let mut tokens = vec![1.0; 256];
        tokens[7] = 60.0;
        config(serde_json::json!({
            "moe": {"load": {"type": "histogram", "tokens": tokens}, "redundant_experts": redundant}
        }))
    };
    let resolver = Resolver::default();
    let pool = |redundant| resolver.resolve(&load(redundant)).unwrap().pools.remove(0);
    let (none, some) = (pool(0), pool(32));
    // One more expert on every GPU: 58 layers of 3 x 7168 x 2048, in fp8 blocks.
    let expert = 58.0 * 3.0 * 7168.0 * 2048.0 * (1.0 + 4.0 / 16384.0);
    let more = some.memory.weights_bytes - none.memory.weights_bytes;
    assert!((more / expert - 1.0).abs() < 1e-9, "{more} {expert}");
    let step_s = |pool: &Pool| {
        pool.cost
            .step_cost()
            .stage_time(0, &prompt(65_536, 0))
            .model_s
    };
    assert!(step_s(&some) < step_s(&none));
}
