//! What counts as served, failed or neither, end to end: time limits, the longest
//! sequence, workloads without a second token, and keys in either notation.

use std::fs;
use std::ops::Deref;
use std::path::Path;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use serde_json::Value;
use vidur_sweep::results::{SummaryTable, read_summary};

use crate::spec_folder::SpecFolder;

/// A folder with specifications, in which the program runs.
struct Bench(SpecFolder);

impl Deref for Bench {
    type Target = SpecFolder;

    fn deref(&self) -> &SpecFolder {
        &self.0
    }
}

impl Bench {
    fn new(spec: &str) -> Self {
        Self(SpecFolder::new(spec))
    }

    /// What a command that succeeds says on standard error.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        told
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// Runs the specification with more arguments: what is printed, and the summary.
    fn run(&self, more: &[&str]) -> (String, SummaryTable) {
        let arguments = ["run", "spec.yaml", "--out", "out", "--force", "-q"];
        let told = self.ok(&[&arguments, more].concat());
        let summary = read_summary(&self.path("out")).expect("a summary");
        (told, summary)
    }

    /// One column of the run's requests.
    fn request_column(&self, name: &str) -> Vec<Value> {
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        let path = self.path("out/requests/part-000000.parquet");
        let file = fs::File::open(path).expect("rows of requests");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        let reader = reader.build().expect("a reader");
        let mut values = Vec::new();
        for batch in reader {
            let batch = batch.expect("a batch");
            let column = batch.column_by_name(name).expect("the column");
            let value = |row: usize| -> Value {
                if column.is_null(row) {
                    Value::Null
                } else if let Some(texts) = column.as_string_opt::<i32>() {
                    texts.value(row).into()
                } else if let Some(flags) = column.as_boolean_opt() {
                    flags.value(row).into()
                } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
                    numbers.value(row).into()
                } else {
                    column.as_primitive::<Float64Type>().value(row).into()
                }
            };
            values.extend((0..batch.num_rows()).map(value));
        }
        values
    }
}

impl Bench {
    /// The same of those requests that the figures are of.
    fn measured_column(&self, name: &str) -> Vec<Value> {
        let measured = self.request_column("measured").into_iter();
        let values = self.request_column(name).into_iter().zip(measured);
        let values = values.filter(|(_, measured)| measured == true);
        values.map(|(value, _)| value).collect()
    }
}

fn integer(summary: &SummaryTable, column: &str) -> i64 {
    let row = summary.rows().next().expect("a run");
    row.integer(column).expect(column)
}

fn count(values: &[Value], wanted: &str) -> usize {
    values.iter().filter(|value| *value == wanted).count()
}

fn count_number(values: &[Value], wanted: i64) -> usize {
    values
        .iter()
        .filter(|value| value.as_i64() == Some(wanted))
        .count()
}

const TIME_LIMIT: &str = "\
name: limited
base:
  model: meta-llama/Meta-Llama-3-8B
  device: h100
  time_limit_s: 30
  workload:
    requests: 1000
    lengths: {type: fixed, prefill_tokens: 500, decode_tokens: 20}
    arrivals: {type: static}
  qps: 5
slo: {ttft_p99_s: 1.0}
";

#[test]
fn requests_that_never_arrived_are_neither_served_nor_failed() {
    let bench = Bench::new(TIME_LIMIT);
    let (told, summary) = bench.run(&[]);
    let row = summary.rows().next().unwrap();
    let [completed, unfinished, undecided, not_arrived] =
        ["completed", "unfinished", "undecided", "not_arrived"].map(|c| integer(&summary, c));
    assert_eq!(row.number("slo_attainment"), Some(1.0), "{told}");
    assert_eq!(row.flag("slo_met"), Some(true));
    assert!(told.contains("1 of 1 configuration meet"), "{told}");
    assert!((149..=151).contains(&completed), "{completed}");
    assert_eq!(
        (undecided, completed + unfinished + not_arrived),
        (unfinished, 1000)
    );
    let status = bench.request_column("status");
    assert_eq!(count(&status, "unfinished_time_limit") as i64, unfinished);
    // Requests are drawn as they arrive: those that did not have no rows.
    assert_eq!(status.len() as i64, integer(&summary, "simulated_requests"));
    // With everything measured there are as many rows as requests.
    let (told, summary) = bench.run(&["--set", "measure=all"]);
    let row = summary.rows().next().unwrap();
    assert_eq!(
        (row.number("slo_attainment"), row.flag("slo_met")),
        (Some(1.0), Some(true)),
        "{told}"
    );
    let status = bench.request_column("status");
    assert_eq!(
        count(&status, "not_arrived") as i64,
        integer(&summary, "not_arrived")
    );
    // Judged again, the same.
    let again = bench.ok(&["pareto", "out", "--slo", "ttft_p99_s=1"]);
    assert!(again.contains("1 of 1 configuration meet"), "{again}");
}

#[test]
fn requests_that_wait_beyond_their_target_have_failed() {
    // Forty times as fast as one replica can serve them.
    let bench = Bench::new(TIME_LIMIT);
    let overload = ["--set", "qps=2000", "--set", "workload.requests=60000"];
    let (told, summary) = bench.run(&overload);
    assert_eq!(
        summary.rows().next().unwrap().text("load_verdict"),
        Some("saturated")
    );
    assert!(told.contains("saturated"), "{told}");
    // Measured to the end, whatever it shows.
    let (told, summary) = bench.run(&[&overload[..], &["--set", "measure=all"]].concat());
    let [completed, unfinished, undecided] =
        ["completed", "unfinished", "undecided"].map(|c| integer(&summary, c));
    assert!(
        undecided < 3000 && unfinished > 20_000,
        "{undecided} of {unfinished}"
    );
    let row = summary.rows().next().unwrap();
    let attainment = row.number("slo_attainment").unwrap();
    assert!(attainment < 0.2, "{attainment}");
    assert!(attainment <= completed as f64 / (completed + unfinished - undecided) as f64);
    assert_eq!(row.flag("slo_met"), Some(false));
    assert!(told.contains("not completed"), "{told}");
}

#[test]
fn where_nothing_is_decided_nothing_is_met() {
    let bench = Bench::new(TIME_LIMIT);
    for more in ["time_limit_s=0.001", "workload.lengths.decode_tokens=5000"] {
        let (told, summary) = bench.run(&["--set", more, "--set", "slo={tbt_p99_s: 1.0}"]);
        let row = summary.rows().next().unwrap();
        assert_eq!(row.integer("completed"), Some(0), "{more}");
        assert_eq!(row.number("slo_attainment"), None, "{more}");
        assert_eq!(row.flag("slo_met"), Some(false), "{told}");
    }
}

const TOO_LONG: &str = "\
name: long
base:
  model: meta-llama/Meta-Llama-3-8B
  device: h100
  engine: vllm
  workload:
    requests: 10
    lengths: {type: fixed, prefill_tokens: 35247, decode_tokens: 100}
    arrivals: poisson
  qps: 0.2
";

#[test]
fn prompts_beyond_the_models_positions_are_rejected_and_outputs_end_there() {
    let bench = Bench::new(TOO_LONG);
    let (told, summary) = bench.run(&[]);
    assert_eq!(integer(&summary, "rejected"), 10);
    assert_eq!(integer(&summary, "rejected_by_max_model_len"), 10);
    let reason = summary
        .rows()
        .next()
        .unwrap()
        .text("reason")
        .unwrap()
        .to_owned();
    assert!(
        reason.contains("max_model_len 8192: 10 of 10 requests rejected"),
        "{reason}"
    );
    assert!(
        told.contains("max_model_len: 10 rejected for their prompts, 0 outputs cut"),
        "{told}"
    );
    let status = bench.measured_column("status");
    assert_eq!(count(&status, "rejected_prompt_exceeds_max_model_len"), 10);

    for command in ["validate", "plan"] {
        let told = bench.told(&[command, "spec.yaml"]);
        let note = "max_model_len 8192: of the first 10 requests 10 will be rejected";
        assert!(told.contains(note), "{told}");
        let told = bench.told(&[command, "spec.yaml", "--set", "max_model_len=50000"]);
        assert!(!told.contains("will be rejected"), "{told}");
        assert!(told.contains("is above the 8192 positions"), "{told}");
    }

    // (Prompt, output, served output), none: rejected.
    let cases = [
        (8192, 10, None),
        (8191, 1, Some(1)),
        (8191, 10, Some(1)),
        (8000, 192, Some(192)),
        (8000, 193, Some(192)),
    ];
    for (prompt, output, served) in cases {
        let prompt = format!("workload.lengths.prefill_tokens={prompt}");
        let output_is = format!("workload.lengths.decode_tokens={output}");
        let (_, summary) = bench.run(&["--set", &prompt, "--set", &output_is]);
        let capped = served.is_some_and(|served| served < output);
        assert_eq!(
            integer(&summary, "completed"),
            if served.is_some() { 10 } else { 0 }
        );
        assert_eq!(
            integer(&summary, "capped_by_max_model_len"),
            if capped { 10 } else { 0 },
            "{prompt} {output_is}"
        );
        if let Some(served) = served {
            let tokens = bench.measured_column("request_num_decode_tokens");
            assert_eq!(count_number(&tokens, served), 10);
        }
    }
}

#[test]
fn max_model_len_sets_the_limit_for_every_scheduler_and_pool() {
    let bench = Bench::new(TOO_LONG);
    let (_, summary) = bench.run(&["--set", "max_model_len=40000"]);
    assert_eq!(integer(&summary, "completed"), 10);
    let lengths = "workload.lengths={type: uniform, min_tokens: 50, max_tokens: 600, \
                   prefill_to_decode_ratio: 2}";
    let more = [
        vec!["replica_scheduler=orca"],
        vec!["replica_scheduler=faster_transformer"],
        vec!["replica_scheduler=vllm"],
        vec!["replica_scheduler=lightllm", "memory.block_size=1"],
        vec!["replicas=4", "pd_node_ratio=0.5"],
        vec!["workload.arrivals={type: concurrency, clients: 3}"],
        vec!["replicas=3"],
    ];
    for more in more {
        let mut arguments = vec!["--set", lengths, "--set", "workload.requests=200"];
        arguments.extend(["--set", "qps=20", "--set", "max_model_len=250"]);
        more.iter()
            .for_each(|more| arguments.extend(["--set", more]));
        let (_, summary) = bench.run(&arguments);
        let rejected = integer(&summary, "rejected_by_max_model_len");
        assert!(rejected > 20, "{more:?}");
        assert_eq!(integer(&summary, "rejected"), rejected, "{more:?}");
        assert_eq!(integer(&summary, "completed"), 200 - rejected, "{more:?}");
        assert!(
            integer(&summary, "capped_by_max_model_len") > 20,
            "{more:?}"
        );
        for tokens in bench.request_column("request_num_tokens") {
            // A rejected one keeps what it asked for.
            assert!(tokens.as_i64() <= Some(600), "{more:?}");
        }
    }
    // Modes of the originals know no limit.
    let exempt = ["--set", "compat=vidur", "--set", "workload.requests=3"];
    let more = ["--set", "memory.max_request_tokens=40000"];
    let (_, summary) = bench.run(&[&exempt[..], &more].concat());
    assert_eq!(integer(&summary, "rejected_by_max_model_len"), 0);
    assert_eq!(integer(&summary, "completed"), 3);
}

const PREFILL_ONLY: &str = "\
name: prefill
measure: all
base:
  model: meta-llama/Meta-Llama-3-8B
  device: h100
  workload:
    requests: 200
    lengths: {type: fixed, prefill_tokens: 2000, decode_tokens: 1}
    arrivals: poisson
  qps: 10
axes:
  tensor_parallel: [1, 2, 4]
  replicas: [1, 2]
slo: {ttft_p90_s: 0.5}
";

#[test]
fn an_objective_without_values_is_dropped_and_said() {
    let bench = Bench::new(PREFILL_ONLY);
    let (told, summary) = bench.run(&[]);
    assert!(
        told.contains("Objective tbt_p99_s has no value in any run"),
        "{told}"
    );
    let on_frontier = |summary: &SummaryTable| {
        summary
            .rows()
            .filter(|row| row.flag("pareto") == Some(true))
            .count()
    };
    let pareto = on_frontier(&summary);
    assert!((1..6).contains(&pareto), "{told}");
    assert!(!told.contains("; 0 on the Pareto frontier"), "{told}");
    assert!(summary.rows().all(|row| row.number("tbt_mean_s").is_none()));
    assert!(bench.request_column("tbt").iter().all(Value::is_null));
    // As if it had not been asked for.
    let asked = "objectives={maximize: [throughput_tokens_per_s_per_gpu], minimize: [ttft_p90_s]}";
    let (_, without) = bench.run(&["--set", asked]);
    assert_eq!(on_frontier(&without), pareto);
    // Nothing left to judge by: all that meet the targets are as good as each other.
    let (told, summary) = bench.run(&["--set", "objectives={minimize: [tbt_p50_s]}"]);
    assert_eq!(on_frontier(&summary), 6, "{told}");
    // One request of two tokens, and it counts again.
    let longer = "workload.lengths.decode_tokens=2";
    let (told, summary) = bench.run(&["--set", longer]);
    assert!(!told.contains("has no value"), "{told}");
    assert!(on_frontier(&summary) > 0);
}

#[test]
fn dotted_and_nested_keys_make_the_same_runs() {
    let base = "model: llama-3-8b\n  device: h100\n  engine: vllm\n  backend: roofline\n  qps: 5\n";
    let lengths = "lengths: {type: fixed, prefill_tokens: 100, decode_tokens: 5}";
    let workload = format!("workload: {{requests: 20, {lengths}, arrivals: poisson}}\n");
    let catalog = vidur_sweep::catalog::Catalog::builtin();
    let of_engine = catalog.engine("vllm", None).unwrap().batch_size_cap;
    let written_out = format!(
        "replica_scheduler: {{type: sarathi, chunk_size: 256, batch_size_cap: {of_engine}}}"
    );
    let dotted = [
        "replica_scheduler.chunk_size: 256",
        "replica_scheduler: {chunk_size: 256}",
        &written_out,
    ];
    let ids = |spec: &str| -> Vec<String> {
        let bench = Bench::new(spec);
        let (_, summary) = bench.run(&[]);
        summary
            .rows()
            .map(|row| row.text("run_id").unwrap().to_owned())
            .collect()
    };
    let of_base: Vec<_> = dotted
        .iter()
        .map(|key| ids(&format!("name: a\nbase:\n  {base}  {workload}  {key}\n")))
        .collect();
    assert_eq!(of_base[0], of_base[1]);
    assert_eq!(of_base[0], of_base[2]);
    // An axis over a key of a mapping that `base` leaves out.
    let axis = ids(&format!(
        "name: a\nbase:\n  {base}  {workload}axes: {{replica_scheduler.chunk_size: [256]}}\n"
    ));
    assert_eq!(axis, of_base[0]);
    let closed = ids(&format!(
        "name: a\nbase:\n  {base}  workload: {{requests: 20, {lengths}}}\n\
         axes: {{workload.arrivals.clients: [2, 4]}}\n"
    ));
    assert_eq!(closed.len(), 2);
    let experts = "model: qwen3-30b-a3b\n  device: h100\n  backend: roofline\n  qps: 5\n";
    let loads = ids(&format!(
        "name: a\nbase:\n  {experts}  {workload}axes: {{moe.load.alpha: [0.2, 1.2]}}\n"
    ));
    assert_eq!(loads.len(), 2);
    // Pools, a list of points, and the command line.
    let pools = |keys: &str| {
        ids(&format!(
            "name: a\nbase:\n  {base}  {workload}  replicas: 2\n  pd_node_ratio: 0.5\n  {keys}\n"
        ))
    };
    let nested = "decode: {tensor_parallel: 2, replica_scheduler: {type: vllm, batch_size_cap: 9}}";
    let mixed = "decode.replica_scheduler: vllm\n  decode: {tensor_parallel: 2, \
                 replica_scheduler.batch_size_cap: 9}";
    assert_eq!(pools(nested), pools(mixed));

    let bench = Bench::new(&format!(
        "name: a\nbase:\n  {base}  {workload}  replica_scheduler: vllm\n\
         search: {{type: list, file: points.csv}}\n"
    ));
    bench.write(
        "points.csv",
        &format!(
            "replica_scheduler.batch_size_cap,replica_scheduler\n,{{chunk_size: 256}}\n\
             {of_engine},\"{{type: sarathi, chunk_size: 256}}\"\n"
        ),
    );
    let (_, summary) = bench.run(&[]);
    assert!(
        summary
            .rows()
            .all(|row| row.text("run_id") == Some(&of_base[0][0]))
    );
    let spec =
        format!("name: a\nbase:\n  {base}  {workload}search: {{type: list, file: points.csv}}\n");
    bench.write("spec.yaml", &spec);
    bench.write(
        "points.csv",
        "replica_scheduler,qps\nsarathi,1\n\"{type: sarathi}\",2\n",
    );
    let (_, summary) = bench.run(&[
        "--set",
        "replica_scheduler.chunk_size=256",
        "--set",
        "qps=5",
    ]);
    let row = summary.rows().next().unwrap();
    let scheduler = row.text("replica_scheduler").unwrap();
    assert!(scheduler.contains("chunk_size=256"), "{scheduler}");
    assert!(summary.axes.iter().all(|axis| axis.name != "qps"));
}

#[test]
fn a_key_given_twice_is_refused_wherever_it_is() {
    let spec = |base: &str, axes: &str| {
        format!(
            "name: a\nbase:\n  model: llama-3-8b\n  device: h100\n  qps: 5\n  workload:\n    \
             lengths: {{type: fixed, prefill_tokens: 9, decode_tokens: 5}}\n    arrivals: poisson\n\
             {base}\naxes: {{{axes}}}\n"
        )
    };
    let cases = [
        (
            "  memory: {block_size: 16}\n  memory.block_size: 32",
            "",
            ":10:3: key `base.memory.block_size`: is given twice",
        ),
        (
            "  engine: vllm\n  engine.name: sglang",
            "",
            ":10:3: key `base.engine.name`: is given twice",
        ),
        (
            "  memory.block_sise: 32",
            "",
            ":9:3: unknown key `block_sise` in `base.memory`",
        ),
        (
            "",
            "memory: {block_size: [16]}, memory.block_size: [32]",
            "key `axes.memory.block_size`: is given twice",
        ),
        (
            "  prefill: {memory.block_size: 8, memory: {block_size: 16}}",
            "",
            "key `base.prefill.memory.block_size`: is given twice",
        ),
        (
            "  replica_scheduler.max_tokens_in_batch: 100",
            "",
            "is for `replica_scheduler` of type",
        ),
        (
            "",
            "replica_scheduler: [{type: vllm, memory.x: 1}]",
            "unknown key `memory`",
        ),
    ];
    for (base, axes, part) in cases {
        let bench = Bench::new(&spec(base, axes));
        let told = bench.refused(&["validate", "spec.yaml"]);
        assert!(told.contains(part), "{base} {axes}: {told}");
    }
}

#[test]
fn one_catalogue_decides_what_can_be_judged() {
    let bench = Bench::new(PREFILL_ONLY);
    let quantities = [
        "throughput_total_tokens_per_s",
        "mean_batch_tokens",
        "rejected",
        "batches",
        "tensor_parallel",
        "not_arrived",
    ];
    for column in quantities {
        let asked = format!("objectives={{minimize: [{column}]}}");
        bench.ok(&["validate", "spec.yaml", "--set", &asked]);
        bench.run(&["--set", &asked, "--set", "workload.requests=5"]);
        bench.ok(&["pareto", "out", "--objectives", &format!("min:{column}")]);
    }
    for column in ["slo_met", "status", "replica_scheduler", "throughput"] {
        let asked = format!("objectives={{minimize: [{column}]}}");
        let by_validate = bench.refused(&["validate", "spec.yaml", "--set", &asked]);
        let by_run = bench.refused(&["run", "spec.yaml", "--out", "other", "--set", &asked]);
        let by_pareto = bench.refused(&["pareto", "out", "--objectives", &format!("min:{column}")]);
        let part = format!("unknown objective `{column}`; allowed: throughput_tokens");
        for told in [by_validate, by_run, by_pareto] {
            assert!(told.contains(&part), "{told}");
        }
        assert!(!Path::new("other").exists());
    }
    // What validate takes run takes, and the other way round.
    for (column, expected) in [
        ("qps", "tensor_parallel: [1, 2]"),
        ("replicas", "qps: [1, 2]"),
    ] {
        let asked = format!("objectives={{minimize: [{column}]}}");
        let axes = format!("axes={{{expected}}}");
        let arguments = ["spec.yaml", "--set", &asked, "--set", &axes];
        let codes = ["validate", "plan", "run"].map(|command| {
            let output = bench.output(&[&[command][..], &arguments].concat());
            output.status.code()
        });
        assert!(
            codes.iter().all(|code| *code == codes[0]),
            "{column}: {codes:?}"
        );
    }
}

/// What GPUs cost can be said in the specification, of a pool apart, and is then no
/// assumption; a pool of another device keeps that device's price.
#[test]
fn prices_of_gpus_can_be_given() {
    const PRICED: &str = "\
name: priced
base:
  model: llama-3-8b
  device: h100
  backend: roofline
  replicas: 4
  qps: 1
  price_usd_per_gpu_hour: 2.5
  workload:
    requests: 4
    lengths: {type: fixed, prefill_tokens: 10, decode_tokens: 2}
    arrivals: static
";
    let folder = SpecFolder::new(PRICED);
    let cost = |more: &[&str]| {
        let command = ["run", "spec.yaml", "--force", "--quiet", "--out", "out"];
        folder.ok(&[&command[..], more].concat());
        let table = read_summary(&folder.path("out")).expect("a summary");
        let row = table.rows().next().expect("a run");
        let assumed = row.text("assumptions").unwrap_or_default().to_owned();
        (row.number("cost_usd_per_hour").expect("a cost"), assumed)
    };
    assert_eq!(cost(&[]).0, 10.0);
    assert_eq!(cost(&["--set", "price_usd_per_gpu_hour=null"]).0, 17.0);
    let pools = [
        "--set",
        "pd_node_ratio=0.5",
        "--set",
        "global_scheduler=split_wise",
    ];
    let pools = [&pools[..], &["--set", "replica_scheduler=split_wise"]].concat();
    assert_eq!(cost(&pools).0, 10.0);
    let dear = [&pools[..], &["--set", "decode.price_usd_per_gpu_hour=4"]].concat();
    assert_eq!(cost(&dear).0, 13.0);
    // An A100 at its own price.
    let other = [&pools[..], &["--set", "decode.device=a100"]].concat();
    let a100 = vidur_sweep::catalog::Catalog::builtin()
        .device("a100")
        .expect("known");
    assert_eq!(cost(&other).0, 2.0 * 2.5 + 2.0 * a100.price_usd_per_hour);
    let (free, assumed) = cost(&["--set", "device=h200"]);
    assert!(
        free == 10.0 && !assumed.contains("price of h200"),
        "{assumed}"
    );
}
