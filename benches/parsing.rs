//! How reading and selecting grow: each group takes ten times as much from one line to
//! the next, and should take about ten times as long.
//!
//! `cargo bench --bench parsing`; `-- yaml` for one group.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vidur_sweep::network::topology::Topology;
use vidur_sweep::select::pareto_frontier;
use vidur_sweep::spec::{self, Points};
use vidur_sweep::workload::{DataFile, read_trace};
use vidur_sweep::yaml;

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

const BASE: &str = "name: x
base:
  model: llama-3-8b
  device: h100
  workload: {requests: 10, lengths: {type: fixed, prefill_tokens: 100, decode_tokens: 10}}
";

/// Runs `work` on what `input` makes of each size.
fn grows<T>(
    criterion: &mut Criterion,
    name: &str,
    sizes: &[usize],
    input: impl Fn(usize) -> T,
    work: impl Fn(&T),
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for &size in sizes {
        let input = input(size);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(size),
            &input,
            |bencher, input| {
                bencher.iter(|| work(input));
            },
        );
    }
    group.finish();
}

#[allow(clippy::ptr_arg, reason = "`grows` hands over what was made")]
fn parse(text: &String) {
    black_box(yaml::parse(text, Path::new("b.yaml")).expect("YAML"));
}

fn yaml_files(criterion: &mut Criterion) {
    let lines =
        |count: usize, line: &dyn Fn(usize) -> String| -> String { (0..count).map(line).collect() };
    let keys = |count| lines(count, &|i| format!("key{i}: {i}\n"));
    grows(criterion, "yaml/keys", &SIZES, keys, parse);
    let items = |count| format!("a: [{}]\n", lines(count, &|i| format!("{i}.5, ")));
    grows(criterion, "yaml/items", &SIZES, items, parse);
    let anchors = |count| lines(count, &|i| format!("key{i}: &a{i} {i}\n"));
    grows(criterion, "yaml/anchors", &SIZES, anchors, parse);
    let merges = |count| {
        let rest = lines(count, &|i| format!("key{i}: {{<<: *x, w: {i}}}\n"));
        format!("x: &x {{v: 1}}\n{rest}")
    };
    grows(criterion, "yaml/merges", &SIZES, merges, parse);
    let scalar = |count| format!("a: {}\n", "x".repeat(count));
    grows(criterion, "yaml/scalar", &SIZES, scalar, parse);
    // What one starts the program for.
    let own = std::fs::read_to_string("sweeps/deepseek.yaml").expect("a sweep");
    criterion.bench_function("yaml/sweeps/deepseek.yaml", |bencher| {
        bencher.iter(|| parse(&own));
    });
}

fn specifications(criterion: &mut Criterion) {
    let axis = |count| {
        let values: Vec<String> = (1..=count).map(|i| i.to_string()).collect();
        format!("{BASE}axes:\n  qps: [{}]\n", values.join(", "))
    };
    let load = |text: &String| {
        black_box(spec::load_str(text, Path::new("b.yaml"), &[]).expect("a specification"));
    };
    grows(criterion, "spec/axis", &SIZES, axis, load);
    let errors = |count| {
        let values = vec!["-1"; count].join(", ");
        format!("{BASE}axes:\n  qps: [{values}]\n")
    };
    let refuse = |text: &String| {
        black_box(spec::load_str(text, Path::new("b.yaml"), &[]).expect_err("wrong values"));
    };
    grows(criterion, "spec/errors", &SIZES, errors, refuse);
}

fn lists(criterion: &mut Criterion) {
    let rows = |count: usize| {
        let rows: String = (0..count).map(|i| format!("r{i},{},1\n", i + 1)).collect();
        DataFile {
            name: "b.csv".into(),
            text: format!("name,qps,tensor_parallel\n{rows}").into(),
        }
    };
    grows(criterion, "points/rows", &SIZES, rows, |file| {
        let points = Points::read(file).expect("points");
        black_box(points.column_values("qps").len());
    });
}

fn traces(criterion: &mut Criterion) {
    let file = |text: String| DataFile {
        name: "b".into(),
        text: text.into(),
    };
    let lines =
        |count: usize, line: &dyn Fn(usize) -> String| -> String { (0..count).map(line).collect() };
    let read = |file: &DataFile| {
        black_box(read_trace(file, None).expect("a trace"));
    };
    let rows = |count| {
        let rows = lines(count, &|i| format!("{i},1000,50\n"));
        file(format!(
            "arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}"
        ))
    };
    grows(criterion, "traces/rows", &SIZES, rows, read);
    let columns = |count| {
        let names = lines(count, &|i| format!(",column{i}"));
        let cells = ",1".repeat(count);
        file(format!(
            "num_prefill_tokens,num_decode_tokens{names}\n1000,50{cells}\n"
        ))
    };
    grows(criterion, "traces/columns", &SIZES, columns, read);
    let objects = |count| {
        file(lines(count, &|i| {
            format!("{{\"timestamp\": {i}, \"input_length\": 1000, \"output_length\": 50}}\n")
        }))
    };
    grows(criterion, "traces/objects", &SIZES, objects, read);
    let hashes = |count| {
        let hashes = lines(count, &|i| format!("{i}, "));
        file(format!(
            "{{\"input_length\": 1000, \"output_length\": 50, \"hash_ids\": [{hashes}0]}}\n"
        ))
    };
    grows(criterion, "traces/hashes", &SIZES, hashes, read);
}

fn topologies(criterion: &mut Criterion) {
    let switches = |count: usize| {
        let ids: String = (8..8 + count).map(|id| format!("{id} ")).collect();
        format!("{} 8 0 {count} 0 H100\n{ids}\n", 8 + count)
    };
    grows(criterion, "topology/switches", &SIZES, switches, |text| {
        black_box(Topology::parse(text, "b").expect("a topology"));
    });
}

/// Points on a plane, so that none beats another: all are on the frontier.
fn frontiers(criterion: &mut Criterion) {
    for dimensions in [3, 4, 5] {
        let points = |count: usize| {
            let mut state = 1u64;
            let mut uniform = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 40) as f64
            };
            let point = |_| {
                let mut point: Vec<f64> = (1..dimensions).map(|_| uniform()).collect();
                point.push(-point.iter().sum::<f64>());
                point
            };
            (0..count).flat_map(point).collect::<Vec<f64>>()
        };
        let name = format!("frontier/{dimensions}");
        grows(criterion, &name, &SIZES, points, |points| {
            let count = points.len() / dimensions;
            black_box(pareto_frontier(points, dimensions, count));
        });
    }
}

criterion_group!(
    parsing,
    yaml_files,
    specifications,
    lists,
    traces,
    topologies,
    frontiers
);
criterion_main!(parsing);
