//! Result directories as the outside sees them: schemas, bytes, crash safety.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use vidur_sweep::report::{GatherOptions, ListKind, ReportFormat, gather, html, write_report};
use vidur_sweep::results::schema::{
    IDENTITY_COLUMNS, METRIC_COLUMNS, REQUEST_COLUMNS, TIMING_COLUMNS,
};
use vidur_sweep::results::{
    AxisColumn, ClaimedDirectory, ColumnType, DirectoryState, Existing, Manifest, ResultError,
    ResultPlan, ResultWriter, RunIndices, RunResult, RunStatus, SummaryReader, SweepSize,
    directory_state, read_summary,
};
use vidur_sweep::select::{Criteria, Selection};
use vidur_sweep::simulator::{Distribution, RequestOutcome, RequestRecord, RunSummary};
use vidur_sweep::spec::{Objectives, Slo};
use vidur_sweep::units::DType;

const QPS: [f64; 4] = [5.0, 10.0, 20.0, 40.0];
const TENSOR_PARALLEL: [u32; 4] = [1, 2, 4, 8];

/// A sweep of `qps` x `tensor_parallel` x `repeat`; tensor_parallel 1 does not fit.
pub(crate) struct Synthetic {
    pub(crate) runs: u64,
    pub(crate) requests: u32,
}

impl Synthetic {
    fn axes() -> Vec<AxisColumn> {
        vec![
            axis("tensor_parallel", &[json!(1), json!(2)]),
            axis("qps", &[json!(5), json!(7.5)]),
            axis(
                "replica_scheduler",
                &[json!("vllm"), json!({"type": "sarathi"})],
            ),
            axis("flag", &[json!(true)]),
            axis("repeat", &[json!(1)]),
        ]
    }

    pub(crate) fn plan(&self) -> ResultPlan {
        ResultPlan {
            name: "synthetic".into(),
            spec_yaml: "name: synthetic\n".into(),
            spec_hash: "abc".into(),
            data_hashes: BTreeMap::from([("data/models".into(), "123".into())]),
            slo: slo(),
            objectives: Objectives::default(),
            axes: Self::axes(),
            run_indices: RunIndices::all(self.runs),
            sweep: SweepSize {
                runs: self.runs,
                request_rows_per_run: (self.requests > 0).then_some(u64::from(self.requests)),
            },
            writer_threads: 2,
        }
    }

    pub(crate) fn run(&self, index: u64) -> RunResult {
        let tensor_parallel = TENSOR_PARALLEL[(index % 4) as usize];
        let qps = QPS[(index / 4 % 4) as usize];
        let infeasible = tensor_parallel == 1;
        let load = qps / f64::from(tensor_parallel);
        let requests = if infeasible { 0 } else { self.requests };
        RunResult {
            index,
            run_id: format!("run-{index:08x}"),
            status: if infeasible {
                RunStatus::Infeasible
            } else {
                RunStatus::Ok
            },
            reason: infeasible.then(|| format!("needs {}.5 GB of 80 GB on one GPU", 90 + index)),
            axes: vec![
                json!(tensor_parallel),
                json!(qps),
                json!({"type": "sarathi", "chunk_size": 512}),
                json!(index.is_multiple_of(2)),
                json!(index / 16),
            ],
            total_gpus: Some(tensor_parallel),
            cost_usd_per_hour: Some(2.5 * f64::from(tensor_parallel)),
            mfu: (!infeasible).then_some(0.3),
            assumptions: None,
            kv_cache_dtype: Some(DType::Fp8),
            measured: None,
            capacity: None,
            summary: (!infeasible).then(|| summary(requests.max(100), load)),
            requests: (0..requests).map(record).collect(),
            wall_time_s: 0.001 * (1.0 + index as f64),
        }
    }

    /// A writer into a directory that is empty.
    pub(crate) fn create(&self, dir: &Path) -> ResultWriter {
        ResultWriter::create(dir, self.plan(), Existing::Keep).unwrap()
    }

    /// A writer that goes on.
    fn resume(&self, dir: &Path) -> ResultWriter {
        ResultWriter::resume(dir, self.plan()).unwrap()
    }

    /// Writes the runs before `end` that are not there yet.
    pub(crate) fn write_missing(&self, writer: &ResultWriter, end: u64) {
        for index in (0..end).filter(|index| !writer.completed().contains(*index)) {
            writer.write(self.run(index)).unwrap();
        }
    }

    pub(crate) fn write(&self, dir: &Path, order: impl Iterator<Item = u64>) -> Manifest {
        let writer = self.create(dir);
        for index in order {
            writer.write(self.run(index)).unwrap();
        }
        writer.finish(&mut judge()).unwrap()
    }
}

fn axis(name: &str, values: &[Value]) -> AxisColumn {
    AxisColumn::infer(name, values)
}

fn targets(json: Value) -> Slo {
    serde_json::from_value(json).expect("targets")
}

fn slo() -> Slo {
    targets(json!({"ttft_p90_s": 4.0, "tbt_p99_s": 0.2}))
}

pub(crate) fn judge() -> Selection {
    let axes = Synthetic::axes();
    let criteria = Criteria::new(&slo(), &Objectives::default(), &axes).unwrap();
    Selection::new(criteria, &axes)
}

fn distribution(scale: f64) -> Distribution {
    Distribution {
        mean_s: scale,
        p50_s: scale * 0.9,
        p90_s: scale * 1.5,
        p95_s: scale * 2.0,
        p99_s: scale * 3.0,
        max_s: scale * 5.0,
    }
}

fn summary(num_requests: u32, load: f64) -> RunSummary {
    RunSummary {
        num_requests,
        completed: num_requests,
        rejected: 0,
        rejected_by_max_model_len: 0,
        capped_by_max_model_len: 0,
        unfinished: 0,
        undecided: 0,
        not_arrived: 0,
        offered_requests_per_s: load,
        served_requests: num_requests,
        duration_s: 100.0 / load,
        output_tokens: u64::from(num_requests) * 200,
        prompt_tokens: u64::from(num_requests) * 1000,
        ttft: distribution(0.4 * load),
        tbt: distribution(0.01),
        e2e: distribution(4.0),
        scheduling_delay: distribution(0.1),
        request_tbt_max: distribution(0.2),
        gpu_busy_fraction: 0.8,
        kv_cache_utilization: 0.4,
        preemptions: 3,
        batches: 1000,
        mean_batch_tokens: 500.0,
        mean_batch_requests: 30.0,
        processed_tokens: 1,
        attended_pairs: 1.0,
        sampled_tokens: 1,
        steady: None,
        slo_met_requests: Some(num_requests / 2),
    }
}

fn record(request_id: u32) -> RequestRecord {
    // Round numbers at first, to be checked by eye; then digits like measured ones.
    let jitter = match request_id {
        0..100 => 0.0,
        _ => (f64::from(request_id) * 12.9898).sin().abs() / 8.0,
    };
    let arrived_at_s = f64::from(request_id) * 0.25 + jitter;
    let rejected = request_id % 16 == 5;
    let or_never = |value: f64| if rejected { f64::NAN } else { value };
    RequestRecord {
        request_id,
        outcome: if rejected {
            RequestOutcome::RejectedTooLargeForKvCache
        } else {
            RequestOutcome::Completed
        },
        arrived_at_s,
        scheduled_at_s: or_never(arrived_at_s + 0.5 + jitter / 3.0),
        prefill_completed_at_s: or_never(arrived_at_s + 1.0 + jitter / 7.0),
        decode_arrived_at_s: or_never(arrived_at_s + 1.25 + jitter / 7.0),
        completed_at_s: or_never(arrived_at_s + 5.0 + jitter * 3.0),
        ended_at_s: arrived_at_s + 5.0 + jitter * 3.0,
        longest_interval_s: or_never(0.75 + jitter / 5.0),
        prefill_tokens: 1000 + request_id / 100 * 7 % 911,
        decode_tokens: 8,
        is_capped: false,
        restarts: request_id % 3,
        execution_s: or_never(3.0 + jitter / 9.0),
        model_execution_s: or_never(2.5 + jitter / 9.0),
        preemption_s: or_never(1.5 + jitter / 11.0),
        prefill_replica_id: if rejected { u32::MAX } else { 0 },
        decode_replica_id: if rejected { u32::MAX } else { 2 },
        pd_p2p_comm_size_bytes: if rejected { 0.0 } else { 1e6 },
        pd_p2p_comm_time_s: if rejected { 0.0 } else { 0.25 },
    }
}

fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
        .unwrap()
        .with_batch_size(1 << 20)
        .build()
        .unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.len(), 1, "{} has one batch", path.display());
    batches.into_iter().next().unwrap()
}

fn numbers(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    let column = batch.column_by_name(name).unwrap();
    column.as_primitive::<Float64Type>().iter().collect()
}

/// Hash of every file of the directory but the timing and what names its hash.
fn deterministic_files(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("timing.parquet") && !path.ends_with("manifest.json") {
                let name = path.strip_prefix(dir).unwrap().to_path_buf();
                let hash = blake3::hash(&fs::read(&path).unwrap());
                files.insert(name, hash.to_hex().to_string());
            }
        }
    }
    files
}

/// A fixed permutation of `0..count`: steps of a number prime to it.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |i| (i * 48_271 + 11) % count)
}

#[test]
fn summary_says_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 64,
        requests: 0,
    };
    let manifest = sweep.write(dir.path(), 0..64);
    assert_eq!(manifest.runs.total, 64);
    assert_eq!(manifest.runs.infeasible, 16);
    assert_eq!(manifest.runs.ok, 48);

    let table = read(&dir.path().join("summary.parquet"));
    let types: Vec<&str> = ["tensor_parallel", "qps", "replica_scheduler", "flag"]
        .iter()
        .map(
            |name| match table.schema().field_with_name(name).unwrap().data_type() {
                arrow_schema::DataType::Int64 => "int",
                arrow_schema::DataType::Float64 => "float",
                arrow_schema::DataType::Boolean => "bool",
                arrow_schema::DataType::Utf8 => "text",
                other => panic!("{other}"),
            },
        )
        .collect();
    assert_eq!(types, ["int", "float", "text", "bool"]);

    let summary = read_summary(dir.path()).unwrap();
    assert!(summary.complete);
    for (index, row) in summary.rows().enumerate() {
        assert_eq!(row.run_index(), index as u64);
    }
    let first = summary.rows().next().unwrap();
    assert_eq!(
        first.text("reason"),
        Some("needs 90.5 GB of 80 GB on one GPU")
    );
    assert_eq!(first.number("ttft_p90_s"), None);
    assert_eq!(first.flag("slo_met"), Some(false));

    // Run 6: tensor_parallel 4 at 10 requests/s: 100 requests in 40 s.
    let row = summary.rows().nth(6).unwrap();
    assert_eq!(
        row.text("replica_scheduler"),
        Some("sarathi(chunk_size=512)")
    );
    assert_eq!(row.number("throughput_requests_per_s"), Some(2.5));
    assert_eq!(row.number("throughput_tokens_per_s"), Some(500.0));
    assert_eq!(row.number("throughput_total_tokens_per_s"), Some(3000.0));
    assert_eq!(row.number("throughput_tokens_per_s_per_gpu"), Some(125.0));
    assert_eq!(row.number("slo_attainment"), Some(0.5));
    assert_eq!(row.number("ttft_p90_s"), Some(1.5));
    // 10 USD/h for 1.8 million output tokens an hour.
    let cost = row.number("cost_usd_per_million_tokens").unwrap();
    assert!((cost - 10.0 / 1.8).abs() < 1e-12, "{cost}");
    assert_eq!(row.flag("slo_met"), Some(true));
    // 20 requests/s per GPU: ttft_p90 is 12 s.
    let row = summary.rows().nth(13).unwrap();
    assert_eq!(row.flag("slo_met"), Some(false));
}

#[test]
fn pareto_table_holds_the_flagged_rows() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Synthetic {
        runs: 64,
        requests: 0,
    }
    .write(dir.path(), 0..64);
    let flagged: Vec<u64> = read_summary(dir.path())
        .unwrap()
        .rows()
        .filter(|row| row.flag("pareto") == Some(true))
        .map(|row| row.run_index())
        .collect();
    let pareto = read(&dir.path().join("pareto.parquet"));
    let column = pareto.column_by_name("run_index").unwrap();
    let listed: Vec<u64> = column
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .map(|v| *v as u64)
        .collect();
    assert_eq!(listed, flagged);
    assert_eq!(manifest.runs.pareto, flagged.len() as u64);
    assert!(!flagged.is_empty());
    // Tokens per GPU go with qps / tensor_parallel^2 and TTFT with
    // qps / tensor_parallel: two GPUs at 5 and 10 requests/s beat four at 10.
    let on_frontier = |run: u64| flagged.contains(&run);
    assert_eq!([1, 5, 6, 9].map(on_frontier), [true, true, false, false]);
}

#[test]
fn request_rows_follow_the_original_names() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Synthetic {
        runs: 4,
        requests: 32,
    }
    .write(dir.path(), 0..4);
    assert_eq!(manifest.request_rows, 3 * 32);
    // One run per block; the first is infeasible and still gives the glob a file.
    assert_eq!(
        read_rows(&dir.path().join("requests/part-000000.parquet")),
        0
    );
    let rows = read(&dir.path().join("requests/part-000001.parquet"));
    let at = |name: &str, row: usize| numbers(&rows, name)[row];
    assert_eq!(at("request_e2e_time", 0), Some(5.0));
    assert_eq!(at("prefill_e2e_time", 0), Some(1.0));
    assert_eq!(at("decode_time", 0), Some(4.0));
    assert_eq!(at("tbt", 0), Some(0.5));
    assert_eq!(at("request_execution_plus_preemption_time", 0), Some(4.5));
    assert_eq!(at("pd_p2p_comm_bandwidth", 0), Some(4e6));
    assert_eq!(at("pd_p2p_bytes_per_token", 0), Some(1000.0));
    assert_eq!(at("request_inter_arrival_delay", 0), None);
    assert_eq!(at("request_inter_arrival_delay", 1), Some(0.25));
    // What never happened is null.
    assert_eq!(at("request_e2e_time", 5), None);
    assert_eq!(at("arrived_at", 5), Some(1.25));
    let text = |name: &str, row: usize| {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        column.iter().nth(row).unwrap().map(str::to_string)
    };
    assert_eq!(text("run_id", 0).as_deref(), Some("run-00000001"));
    assert_eq!(text("status", 0).as_deref(), Some("completed"));
    assert_eq!(
        text("status", 5).as_deref(),
        Some("rejected_too_large_for_kv_cache")
    );
    assert_eq!(text("pd_p2p_comm_dtype", 0).as_deref(), Some("fp8"));
    assert_eq!(text("pd_p2p_comm_dtype", 5), None);
    let schema = rows.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names.join(","), REQUEST_HEADER);
}

/// Header of Vidur-AlibabaCloud's `request_metrics.csv`, between ours.
const REQUEST_HEADER: &str = "run_id,Request Id,request_e2e_time,request_e2e_time_normalized,request_execution_time,request_execution_time_normalized,request_model_execution_time,request_model_execution_time_normalized,request_preemption_time,request_scheduling_delay,request_execution_plus_preemption_time,request_execution_plus_preemption_time_normalized,prefill_e2e_time,prefill_time_execution_plus_preemption,prefill_time_execution_plus_preemption_normalized,decode_time_execution_plus_preemption_normalized,arrived_at,prefill_arrived_at,scheduled_at,prefill_completed_at,decode_arrived_at,completed_at,preempted_time,decode_time,prefill_replica_id,decode_replica_id,pd_p2p_comm_size,pd_p2p_comm_time,pd_p2p_comm_bandwidth,pd_p2p_bytes_per_token,pd_p2p_comm_dtype,request_inter_arrival_delay,request_num_tokens,request_num_prefill_tokens,request_num_decode_tokens,request_pd_ratio,request_num_restarts,tbt,request_longest_interval,status,measured";

fn read_rows(path: &Path) -> i64 {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    builder.metadata().file_metadata().num_rows()
}

#[test]
fn arrival_order_does_not_change_a_byte() {
    let sweep = Synthetic {
        runs: 500,
        requests: 3,
    };
    let (ordered, mixed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = sweep.write(ordered.path(), 0..500);
    let second = sweep.write(mixed.path(), shuffled(500));
    assert_eq!(
        deterministic_files(ordered.path()),
        deterministic_files(mixed.path())
    );
    assert_eq!(
        first, second,
        "wall times are equal here, so manifests are too"
    );
    // Blocks of 31 runs, a 16th of them.
    let requests = first
        .files
        .iter()
        .filter(|f| f.path.starts_with("requests/"));
    assert_eq!(requests.count(), 17);
}

#[test]
fn manifest_names_every_file_with_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Synthetic {
        runs: 40,
        requests: 3,
    }
    .write(dir.path(), 0..40);
    let mut listed: Vec<PathBuf> = Vec::new();
    for file in &manifest.files {
        let content = fs::read(dir.path().join(&file.path)).unwrap();
        assert_eq!(file.bytes, content.len() as u64, "{}", file.path);
        assert_eq!(file.blake3, blake3::hash(&content).to_hex().to_string());
        if file.path.ends_with(".parquet") {
            assert_eq!(file.rows as i64, read_rows(&dir.path().join(&file.path)));
        }
        listed.push(PathBuf::from(&file.path));
    }
    listed.retain(|path| !path.ends_with("timing.parquet"));
    listed.sort();
    let there: Vec<PathBuf> = deterministic_files(dir.path()).into_keys().collect();
    assert_eq!(listed, there);
    assert_eq!(Manifest::read(dir.path()).unwrap(), Some(manifest));
}

#[test]
fn an_interrupted_directory_does_not_look_complete_and_resumes_to_the_same_bytes() {
    let sweep = Synthetic {
        runs: 600,
        requests: 2,
    };
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sweep.write(whole.path(), 0..600);

    let writer = sweep.create(broken.path());
    for index in shuffled(600).take(400).chain([3]) {
        // Run 3 may come twice: the second time it is refused.
        if writer.write(sweep.run(index)).is_err() {
            assert_eq!(index, 3);
        }
    }
    drop(writer);
    assert!(!broken.path().join("manifest.json").exists());
    assert!(!broken.path().join("summary.parquet").exists());
    let state = directory_state(broken.path()).unwrap();
    let DirectoryState::InProgress { done, total: 600 } = state else {
        panic!("{state:?}");
    };
    assert!(done > 0 && done < 400, "{done}");
    let partial = SummaryReader::open(broken.path()).unwrap();
    assert!(partial.manifest().is_none());
    assert_eq!(read_summary(broken.path()).unwrap().len() as u64, done);

    // What a kill between two system calls leaves behind.
    fs::write(
        broken.path().join("parts/.summary-000001.parquet.tmp"),
        "half",
    )
    .unwrap();
    let writer = sweep.resume(broken.path());
    assert_eq!(writer.completed().len(), done);
    let missing = (0..600)
        .find(|run| !writer.completed().contains(*run))
        .unwrap();
    let orphan = format!("requests/part-{:06}.parquet", missing / (600 / 32));
    fs::write(broken.path().join(orphan), "half").unwrap();
    sweep.write_missing(&writer, 600);
    let manifest = writer.finish(&mut judge()).unwrap();
    assert_eq!(manifest.runs.total, 600);
    assert_eq!(
        directory_state(broken.path()).unwrap(),
        DirectoryState::Complete
    );
    assert_eq!(
        deterministic_files(whole.path()),
        deterministic_files(broken.path())
    );
}

/// How blocks were grouped in parts must not show, not even in where pages end.
#[test]
fn pages_end_at_the_same_rows_however_often_a_sweep_was_interrupted() {
    let sweep = Synthetic {
        runs: 22_000,
        requests: 0,
    };
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sweep.write(whole.path(), 0..22_000);
    let mut from = 0;
    for to in [3_000, 9_500, 9_700, 16_000] {
        let writer = match from {
            0 => sweep.create(broken.path()),
            _ => sweep.resume(broken.path()),
        };
        sweep.write_missing(&writer, to);
        from = writer.suspend().unwrap();
        assert!(from < to);
    }
    let writer = sweep.resume(broken.path());
    sweep.write_missing(&writer, 22_000);
    writer.finish(&mut judge()).unwrap();
    let files = |dir: &Path| deterministic_files(dir);
    assert!(files(whole.path()) == files(broken.path()));
}

/// Every part costs syncs: a sweep of short runs must not wait for the disk.
#[test]
fn blocks_that_finish_together_are_written_together() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 1280,
        requests: 0,
    };
    let writer = sweep.create(dir.path());
    // Ten runs make a block; of the last one is missing.
    for index in 0..1279 {
        writer.write(sweep.run(index)).unwrap();
    }
    drop(writer);
    let parts = fs::read_dir(dir.path().join("parts")).unwrap().count() - 1;
    assert!((1..64).contains(&parts), "{parts} parts of 127 blocks");
    let state = directory_state(dir.path()).unwrap();
    assert_eq!(
        state,
        DirectoryState::InProgress {
            done: 1270,
            total: 1280
        }
    );
    let indices = read_summary(dir.path()).unwrap();
    let indices: Vec<u64> = indices.rows().map(|row| row.run_index()).collect();
    assert_eq!(indices, (0..1270).collect::<Vec<_>>());
}

#[test]
fn finishing_without_every_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 10,
        requests: 0,
    };
    let writer = sweep.create(dir.path());
    (0..9).for_each(|index| writer.write(sweep.run(index)).unwrap());
    let error = writer.finish(&mut judge()).unwrap_err();
    assert!(
        matches!(
            error,
            ResultError::Incomplete {
                done: 9,
                total: 10,
                ..
            }
        ),
        "{error}"
    );
    assert!(!dir.path().join("manifest.json").exists());
}

#[test]
fn runs_that_do_not_belong_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 10,
        requests: 0,
    };
    let writer = sweep.create(dir.path());
    writer.write(sweep.run(4)).unwrap();
    let twice = writer.write(sweep.run(4)).unwrap_err();
    assert_eq!(twice.to_string(), "run 4: was written before");
    let outside = writer.write(sweep.run(10)).unwrap_err();
    assert!(matches!(
        outside,
        ResultError::UnexpectedRun { run_index: 10, .. }
    ));
    let mut short = sweep.run(5);
    short.axes.pop();
    let short = writer.write(short).unwrap_err();
    assert!(matches!(short, ResultError::AxisCount { run_index: 5, .. }));
}

#[test]
fn a_value_of_another_type_stops_the_writer_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 1,
        requests: 0,
    };
    let writer = sweep.create(dir.path());
    let mut run = sweep.run(0);
    run.axes[0] = json!("four");
    writer.write(run).unwrap();
    let error = writer.finish(&mut judge()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`tensor_parallel` is four, expected int64"),
        "{error}"
    );
}

#[test]
fn resuming_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 10,
        requests: 0,
    };
    drop(sweep.create(dir.path()));
    let mut other = sweep.plan();
    other.spec_hash = "def".into();
    let error = ResultWriter::resume(dir.path(), other).err().unwrap();
    assert!(error.is_bad_input());
    let expected = "cannot resume: the specification differs (there: abc; now: def)";
    assert!(error.to_string().contains(expected), "{error}");

    let keep = ResultWriter::create(dir.path(), sweep.plan(), Existing::Keep)
        .err()
        .unwrap();
    assert!(matches!(keep, ResultError::Occupied { .. }), "{keep}");
    fs::write(dir.path().join("parts/notes.txt"), "mine").unwrap();
    drop(ResultWriter::create(dir.path(), sweep.plan(), Existing::Replace).unwrap());
    assert!(dir.path().join("parts/notes.txt").exists());
}

#[test]
fn a_directory_with_other_files_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spec.yaml"), "mine").unwrap();
    let sweep = Synthetic {
        runs: 10,
        requests: 0,
    };
    let error = ResultWriter::create(dir.path(), sweep.plan(), Existing::Replace)
        .err()
        .unwrap();
    assert!(error.is_bad_input());
    assert_eq!(
        fs::read_to_string(dir.path().join("spec.yaml")).unwrap(),
        "mine"
    );
    let error = SummaryReader::open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("no manifest.json in it"),
        "{error}"
    );
}

#[test]
fn an_axis_may_not_hide_a_column() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Synthetic {
        runs: 1,
        requests: 0,
    }
    .plan();
    plan.axes[0].name = "mfu".into();
    let error = ResultWriter::create(dir.path(), plan, Existing::Keep)
        .err()
        .unwrap();
    assert!(matches!(error, ResultError::ColumnTaken(name) if name == "mfu"));
}

#[test]
fn axis_types_are_the_narrowest_that_fit() {
    let cases = [
        (vec![json!(1), json!(2), Value::Null], ColumnType::Int),
        (vec![json!(1), json!(2.5)], ColumnType::Float),
        (vec![json!(true)], ColumnType::Bool),
        (vec![json!(true), json!(1)], ColumnType::Text),
        (vec![json!("a"), json!({"type": "b"})], ColumnType::Text),
        (vec![], ColumnType::Text),
    ];
    for (values, expected) in cases {
        assert_eq!(axis("x", &values).column_type, expected, "{values:?}");
    }
}

#[test]
fn shards_cover_every_run_once() {
    for total in [0, 1, 7, 12] {
        let shards: Vec<RunIndices> = (0..3).map(|k| RunIndices::shard(total, k, 3)).collect();
        for run in 0..total {
            let holders = shards.iter().filter(|s| s.slot(run).is_some()).count();
            assert_eq!(holders, 1, "run {run} of {total}");
        }
        assert_eq!(shards.iter().map(|s| s.count).sum::<u64>(), total);
    }
}

#[test]
fn every_column_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results.md");
    let docs = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = docs.lines().collect();
    let mut expected: Vec<String> = Vec::new();
    for columns in [&IDENTITY_COLUMNS, &METRIC_COLUMNS, &TIMING_COLUMNS] {
        expected.extend(columns.iter().map(|c| c.documentation()));
    }
    expected.extend(REQUEST_COLUMNS.iter().map(|c| c.documentation()));
    let missing: Vec<String> = expected
        .into_iter()
        .filter(|line| !lines.contains(&line.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/results.md lacks:\n{}",
        missing.join("\n")
    );
}

#[test]
fn a_narrow_terminal_gets_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    Synthetic {
        runs: 16,
        requests: 0,
    }
    .write(dir.path(), 0..16);
    let options = GatherOptions {
        limit: Some(2),
        ..GatherOptions::default()
    };
    let report = gather(&opened(dir.path()), &options).unwrap();
    let mut out = Vec::new();
    write_report(&report, ReportFormat::Table, 60, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let table = text.lines().skip_while(|l| !l.starts_with("Best")).skip(1);
    let widths: Vec<usize> = table
        .take(5)
        .map(|l| l.trim_end().chars().count())
        .collect();
    assert!(widths.iter().all(|w| *w <= 60), "{widths:?}\n{text}");
    assert!(
        text.contains("In all listed: tensor_parallel = 2"),
        "{text}"
    );
}

fn opened(dir: &Path) -> SummaryReader {
    SummaryReader::open(dir).unwrap()
}

fn printed(dir: &Path, options: &GatherOptions, format: ReportFormat) -> String {
    let mut out = Vec::new();
    write_report(
        &gather(&opened(dir), options).unwrap(),
        format,
        1000,
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_report_names_the_best_and_the_knob_that_binds_it() {
    let dir = tempfile::tempdir().unwrap();
    Synthetic {
        runs: 16,
        requests: 0,
    }
    .write(dir.path(), 0..16);
    let report = gather(&opened(dir.path()), &GatherOptions::default()).unwrap();
    assert_eq!((report.runs.ok, report.runs.infeasible), (12, 4));
    let runs: Vec<u64> = report.deployments.iter().map(|d| d.run_index).collect();
    assert_eq!(report.meeting_targets, runs.len() as u64);
    // Tokens per GPU: 4 times qps / tensor_parallel^2; ties go to the earlier run.
    assert_eq!(runs[..3], [5, 1, 10]);
    assert_eq!(report.varying_axes, ["tensor_parallel", "qps", "flag"]);

    let binding = report.binding.unwrap();
    let tightest = binding.tightest.unwrap();
    assert_eq!(
        (tightest.bound.column.as_str(), tightest.bound.limit),
        ("ttft_p90_s", 4.0)
    );
    let step = &binding.steps[0];
    assert_eq!(
        (step.axis.as_str(), &step.from, &step.to),
        ("qps", &json!(10.0), &json!(20.0))
    );
    assert_eq!(step.because, "ttft_p90_s would be 6.00 s (limit 4 s)");
    assert_eq!(report.reasons.len(), 1);
    assert_eq!(report.reasons[0].reason, "needs N GB of N GB on one GPU");

    let text = printed(dir.path(), &GatherOptions::default(), ReportFormat::Table);
    for sentence in [
        "synthetic: 16 runs: 12 simulated, 4 infeasible, 0 failed.",
        "meet tbt_p99_s <= 200 ms and ttft_p90_s <= 4 s",
        "What binds it: qps 10 -> 20 would be better, but ttft_p90_s would be 6.00 s (limit 4 s).",
        "In all runs: replica_scheduler = sarathi(chunk_size=512), repeat = 0.",
    ] {
        assert!(text.contains(sentence), "{text}");
    }
}

#[test]
fn without_a_deployment_that_meets_the_targets_the_nearest_misses_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    Synthetic {
        runs: 16,
        requests: 0,
    }
    .write(dir.path(), 0..16);
    let options = GatherOptions {
        slo: Some(targets(json!({"ttft_p90_s": 0.1}))),
        limit: Some(2),
        ..GatherOptions::default()
    };
    let report = gather(&opened(dir.path()), &options).unwrap();
    assert_eq!(report.list, ListKind::NearestMisses);
    // 5 requests/s on 8 and on 4 GPUs.
    let runs: Vec<u64> = report.deployments.iter().map(|d| d.run_index).collect();
    assert_eq!(runs, [3, 2]);
    let text = printed(dir.path(), &options, ReportFormat::Table);
    assert!(
        text.contains("NO configuration meets the targets"),
        "{text}"
    );
    assert!(text.contains("ttft_p90_s +275 %"), "{text}");
    let csv = printed(dir.path(), &options, ReportFormat::Csv);
    assert_eq!(csv.lines().count(), 3);
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .starts_with("1,3,run-00000003,1,false,misses,,false,8,5,")
    );
    let json: Value =
        serde_json::from_str(&printed(dir.path(), &options, ReportFormat::Json)).unwrap();
    assert_eq!(json["deployments"][0]["figures"]["total_gpus"], json!(8.0));
}

/// Runs of `loads` as replications of as many configurations; TTFT p90 is 0.6 times the
/// load, its limit 4 s.
fn replicated(dir: &Path, loads: &[&[f64]]) -> Manifest {
    let replications = loads[0].len() as u64;
    let sweep = Synthetic {
        runs: loads.len() as u64 * replications,
        requests: 0,
    };
    let mut plan = sweep.plan();
    plan.axes = vec![axis("qps", &[json!(1)]), axis("replication", &[json!(0)])];
    let writer = ResultWriter::create(dir, plan.clone(), Existing::Keep).unwrap();
    for (index, load) in (0..).zip(loads.iter().flat_map(|loads| loads.iter())) {
        let mut run = sweep.run(5);
        run.index = index;
        run.axes = vec![json!(index / replications), json!(index % replications)];
        run.summary = Some(summary(100, *load));
        writer.write(run).unwrap();
    }
    let criteria = Criteria::new(&slo(), &Objectives::default(), &plan.axes).unwrap();
    writer
        .finish(&mut Selection::new(criteria, &plan.axes))
        .unwrap()
}

#[test]
fn replications_are_judged_by_their_mean_and_its_spread() {
    // 3 s seven times and 4.2 s once: one misses 4 s, the mean surely does not. Then 3 and
    // 6 s in turn.
    let near = [5.0, 5.0, 5.0, 7.0, 5.0, 5.0, 5.0, 5.0];
    let far = [5.0, 10.0, 5.0, 10.0, 5.0, 10.0, 5.0, 10.0];
    let dir = tempfile::tempdir().unwrap();
    let manifest = replicated(dir.path(), &[&near, &far]);
    // Each run is judged by itself, the frontier by configurations.
    assert_eq!((manifest.runs.slo_met, manifest.runs.pareto), (7 + 4, 8));
    let report = gather(&opened(dir.path()), &GatherOptions::default()).unwrap();
    assert_eq!(report.meeting_targets, 1);
    let best = &report.deployments[0];
    assert_eq!((best.replications, best.met_replications), (8, 7));
    let mean_s = best.figures.get("ttft_p90_s").unwrap();
    assert!((mean_s - 3.15).abs() < 1e-12, "{mean_s}");
    assert_eq!(report.varying_axes, ["qps"]);
    let text = printed(dir.path(), &GatherOptions::default(), ReportFormat::Table);
    assert!(text.contains("met in 7 of 8 replications"), "{text}");

    // Two of them say too little: 3 and 4.5 s may be 4 s as well.
    let dir = tempfile::tempdir().unwrap();
    replicated(dir.path(), &[&[5.0, 7.5], &[5.0, 10.0]]);
    let report = gather(&opened(dir.path()), &GatherOptions::default()).unwrap();
    assert_eq!((report.meeting_targets, report.unsure), (0, 2));
    assert_eq!(report.deployments[0].slo_verdict, "unsure");
}

#[test]
fn the_page_holds_the_data_and_lets_no_markup_through() {
    let dir = tempfile::tempdir().unwrap();
    let sweep = Synthetic {
        runs: 16,
        requests: 0,
    };
    let mut plan = sweep.plan();
    plan.name = "</script><img src=x onerror=alert(1)>".into();
    let writer = ResultWriter::create(dir.path(), plan, Existing::Keep).unwrap();
    (0..16).for_each(|index| writer.write(sweep.run(index)).unwrap());
    writer.finish(&mut judge()).unwrap();
    let claimed = ClaimedDirectory::existing(dir.path()).unwrap();
    let page = fs::read_to_string(html::write(&opened(dir.path()), &claimed).unwrap()).unwrap();
    assert!(!page.contains("<img"));
    let begin = page.find("id=\"data\">").unwrap() + 10;
    let data = &page[begin..begin + page[begin..].find("</script>").unwrap()];
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["rows"].as_array().unwrap().len(), 12);
    assert_eq!(data["rows"][0]["run_index"], json!(5));
    assert_eq!(data["rows"][0]["axes"], json!([2, 10.0, false]));
    assert_eq!(
        data["report"]["name"],
        "</script><img src=x onerror=alert(1)>"
    );
    assert!(
        !page.contains("http://")
            || !page
                .replace("http://www.w3.org/2000/svg", "")
                .contains("http")
    );
}

/// Kept for reading by hand: `target/tmp/large-sweep`. Run alone, since the
/// peak of the whole process is what it looks at.
#[test]
#[ignore = "two million rows; run with --ignored --exact --nocapture"]
fn a_thousand_runs_of_two_thousand_requests_stay_small() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large-sweep");
    let _ = fs::remove_dir_all(&dir);
    let sweep = Synthetic {
        runs: 1000,
        requests: 2000,
    };
    let begin = std::time::Instant::now();
    // Neighbours swapped: about in order, as threads bring them.
    let manifest = sweep.write(&dir, (0..1000).map(|index| index ^ 1));
    let seconds = begin.elapsed().as_secs_f64();
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kb: Option<u64> = peak.and_then(|p| p.trim().trim_end_matches(" kB").parse().ok());
    println!(
        "{} rows in {seconds:.2} s, {:.0} bytes a row, peak {peak_kb:?} kB",
        manifest.request_rows,
        bytes as f64 / manifest.request_rows as f64
    );
    if let Some(peak_kb) = peak_kb {
        assert!(peak_kb < 150_000, "{peak_kb} kB");
    }
}
