//! The network models against recorded runs of SimAI.
//!
//! `VIDUR_SWEEP_SIMAI_REFERENCE` names a directory with `analytical.csv`,
//! `ns3.csv` and `topo/`; with it, `--ignored` compares every recorded row.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use vidur_sweep::network::analytical::{
    AnalyticalNetwork, ParallelGroup, nic_gib_per_s, nvlink_gib_per_s,
};
use vidur_sweep::network::deepep::DeepEpModel;
use vidur_sweep::network::flow::{FlowNetwork, Layout, SimaiConf, SimaiEnvironment};
use vidur_sweep::network::nccl::{GroupShape, Kernels, LinkGeneration, NcclModel};
use vidur_sweep::network::topology::{Fabric, Topology, TopologyEdit, TopologyPlan};
use vidur_sweep::network::{Collective, ExpertExchange, GroupKind};

/// A row of a CSV file by column name.
type Row = BTreeMap<String, String>;

fn read_rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows = reader.records().map(|record| {
        let record = record.unwrap();
        let cells = header.iter().zip(record.iter());
        cells.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    });
    rows.collect()
}

fn reference() -> PathBuf {
    let path = std::env::var_os("VIDUR_SWEEP_SIMAI_REFERENCE");
    PathBuf::from(path.expect("VIDUR_SWEEP_SIMAI_REFERENCE names the recorded runs"))
}

fn number<T: std::str::FromStr>(row: &Row, column: &str) -> T {
    let parsed = row[column].parse();
    parsed.unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

fn analytical_us(row: &Row) -> f64 {
    let collective = Collective::parse(&row["collective"]).unwrap();
    let ranks = number(row, "group_size");
    let bytes = number(row, "bytes");
    if row["mode"] == "vidur_as_called" {
        return AnalyticalNetwork::vidur_time_ns(ranks, bytes) / 1e3;
    }
    let nvlink = row["nvlink_bw_GBps_flag"].parse().ok();
    let nic = row["nic_bw_GBps_flag"].parse().ok();
    let network = AnalyticalNetwork {
        gpus_per_server: number(row, "gpus_per_server"),
        nics_per_server: number(row, "nics_per_server"),
        nvlink_gib_per_s: nvlink.unwrap_or_else(|| nvlink_gib_per_s(&row["gpu_type"]).unwrap()),
        nic_gib_per_s: nic.unwrap_or_else(|| nic_gib_per_s(&row["nic_bw_GBps_flag"]).unwrap()),
    };
    let group = ParallelGroup {
        kind: GroupKind::parse(&row["group_type"]).unwrap(),
        tensor_parallel: number(row, "tp"),
        expert_parallel: number(row, "ep"),
        ranks,
    };
    network.time_ns(collective, &group, bytes).unwrap() / 1e3
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network");
    fixtures.join(name)
}

fn check_analytical(rows: &[Row]) {
    let mut wrong = Vec::new();
    for row in rows {
        // Vidur reads the printed column, whole microseconds and never negative.
        let column = match row["mode"].as_str() {
            "vidur_as_called" => "csv_time_us",
            _ => "time_us",
        };
        let expected: f64 = number(row, column);
        let found = analytical_us(row);
        if (found - expected).abs() > 1.001e-3 {
            wrong.push(format!(
                "{found} us instead of {expected}: {:?}",
                row.values()
            ));
        }
    }
    let few: Vec<_> = wrong.iter().take(10).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {few:#?}",
        wrong.len(),
        rows.len()
    );
}

#[test]
fn analytical_rows_are_met_within_a_nanosecond() {
    let rows = read_rows(&fixture("analytical.csv"));
    assert!(rows.len() > 400);
    check_analytical(&rows);
}

#[test]
#[ignore = "needs VIDUR_SWEEP_SIMAI_REFERENCE"]
fn every_recorded_analytical_row_is_met_within_a_nanosecond() {
    let rows = read_rows(&reference().join("analytical.csv"));
    assert!(rows.len() > 10_000);
    check_analytical(&rows);
}

/// The plan that a file of SimAI's generator was made from, by its name.
fn plan_of(name: &str) -> TopologyPlan {
    let (family, rest) = name.split_once('_').unwrap();
    let parts: Vec<&str> = rest.split('_').collect();
    let fabric = match family {
        "Spectrum-X" => Fabric::SpectrumX,
        "AlibabaHPN" => Fabric::AlibabaHpn {
            dual_plane: parts.contains(&"DualPlane"),
        },
        "DCN+SingleToR" => Fabric::DcnPlus { dual_tor: false },
        "DCN+DualToR" => Fabric::DcnPlus { dual_tor: true },
        other => panic!("no fabric {other}"),
    };
    let leading = |suffix: &str| {
        let part = parts.iter().find_map(|part| part.strip_suffix(suffix));
        part.unwrap().parse::<u32>().unwrap()
    };
    let mut plan = TopologyPlan::new(fabric, leading("g"));
    plan.nic_bandwidth_gbps = f64::from(leading("Gbps"));
    plan.gpu_type = (*parts.last().unwrap()).to_owned();
    if plan.gpu_type == "A100" {
        plan.nvlink_bandwidth_gbps = 2400.0;
    }
    plan
}

#[test]
#[ignore = "needs VIDUR_SWEEP_SIMAI_REFERENCE"]
fn every_recorded_topology_is_generated_byte_for_byte() {
    let mut met = 0;
    for entry in std::fs::read_dir(reference().join("topo")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".conf") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let plan = plan_of(&name);
        assert_eq!(plan.file_name(), name);
        assert!(
            plan.generate().unwrap().to_string() == text,
            "{name} differs"
        );
        assert!(
            Topology::load(&path).unwrap().to_string() == text,
            "{name} reread"
        );
        met += 1;
    }
    assert!(met >= 15, "{met} topologies");
}

/// A recorded run of SimAI on NS-3.
struct Run {
    label: String,
    class: String,
    expected_us: Option<f64>,
    found_us: f64,
}

impl Run {
    fn error(&self) -> Option<f64> {
        Some(self.found_us / self.expected_us? - 1.0)
    }
}

/// Class of a run in error tables.
fn class_of(row: &Row) -> String {
    let tor = match row["topology"].contains("DualToR") {
        true => "dual-ToR",
        false => "single-ToR",
    };
    let collective = match row["collective"].as_str() {
        "ALLREDUCE" => "all-reduce",
        "ALLTOALL" => "all-to-all",
        _ => "all-gather, reduce-scatter",
    };
    format!("{collective}, {tor}")
}

/// Prices recorded runs.
fn price_runs(rows: &[Row], topology: impl Fn(&str) -> Topology) -> Vec<Run> {
    let mut networks: BTreeMap<(String, String), FlowNetwork> = BTreeMap::new();
    let price = |row: &Row| {
        let key = (row["topology"].clone(), row["env"].clone());
        let network = networks.entry(key).or_insert_with(|| {
            let environment = SimaiEnvironment::parse(&row["env"]).unwrap();
            FlowNetwork::new(
                topology(&row["topology"]),
                SimaiConf::default(),
                environment,
            )
        });
        let layout = Layout {
            gpus: network.topology().gpus(),
            tensor_parallel: number(row, "tp"),
            expert_parallel: number(row, "ep"),
        };
        let kind = GroupKind::parse(&row["group_type"]).unwrap();
        let group = network.groups(kind, layout.groups(kind).unwrap()).unwrap();
        let collective = Collective::parse(&row["collective"]).unwrap();
        let time_ns = network
            .time_ns(collective, number(row, "bytes"), group)
            .unwrap();
        Run {
            label: [
                "variant",
                "topology",
                "collective",
                "group_type",
                "tp",
                "ep",
                "bytes",
            ]
            .map(|column| row[column].as_str())
            .join(" "),
            class: class_of(row),
            expected_us: row["sim_time_us"].parse().ok(),
            found_us: time_ns / 1e3,
        }
    };
    rows.iter().map(price).collect()
}

/// SimAI skips expert groups of tensor parallel 1 and records nothing for them.
fn is_skipped_by_simai(row: &Row) -> bool {
    row["group_type"] == "EP" && row["tp"] == "1"
}

fn check_runs(runs: &[Run]) {
    let mut errors: Vec<f64> = Vec::new();
    let mut classes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in runs {
        let Some(error) = run.error() else { continue };
        let expected_us = run.expected_us.unwrap_or_default();
        let (percent, found_us) = (error * 100.0, run.found_us);
        println!(
            "{percent:>8.2} % {found_us:>12.3} {expected_us:>12.3} {}",
            run.label
        );
        errors.push(error.abs());
        classes.entry(&run.class).or_default().push(error.abs());
    }
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    println!("median {:.2} %", median * 100.0);
    assert!(median <= 0.01);
    for (class, errors) in &classes {
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let most = errors.iter().copied().fold(0.0, f64::max);
        let (mean_percent, most_percent) = (mean * 100.0, most * 100.0);
        let runs = errors.len();
        println!("{class}: {runs} runs, mean {mean_percent:.2} %, most {most_percent:.2} %");
        match *class {
            "all-to-all, dual-ToR" => assert!(mean <= 0.10, "{class}"),
            "all-to-all, single-ToR" => assert!(most <= 0.12, "{class}"),
            _ => assert!(most <= 0.04, "{class}"),
        }
    }
    // NS-3 had no result for NVLS across servers: rings are what would run.
    let empty: Vec<&Run> = runs
        .iter()
        .filter(|run| run.expected_us.is_none())
        .collect();
    assert!(!empty.is_empty());
    assert!(
        empty
            .iter()
            .all(|run| (200.0..300.0).contains(&run.found_us))
    );
}

#[test]
fn recorded_runs_on_ns3_are_met_closely() {
    let mut rows = read_rows(&fixture("ns3.csv"));
    rows.retain(|row| !is_skipped_by_simai(row));
    assert!(rows.len() > 50);
    check_runs(&price_runs(&rows, |name| plan_of(name).generate().unwrap()));
}

#[test]
#[ignore = "needs VIDUR_SWEEP_SIMAI_REFERENCE"]
fn every_recorded_run_on_ns3_is_met_closely() {
    let topologies = reference().join("topo");
    let conf = SimaiConf::load(&topologies.join("SimAI.conf")).unwrap();
    assert_eq!(conf, SimaiConf::default());
    let mut rows = read_rows(&reference().join("ns3.csv"));
    rows.retain(|row| !is_skipped_by_simai(row));
    let load = |name: &str| Topology::load(&topologies.join(name)).unwrap();
    check_runs(&price_runs(&rows, load));
}

#[test]
fn generated_topologies_have_the_counts_of_simais() {
    // First lines of files written by SimAI's generator.
    let recorded = [
        ("Spectrum-X_8g_8gps_100Gbps_A100", "81 8 1 72 528 A100"),
        ("Spectrum-X_128g_8gps_100Gbps_A100", "216 8 16 72 768 A100"),
        (
            "AlibabaHPN_16g_8gps_DualToR_DualPlane_200Gbps_H100",
            "154 8 2 136 1008 H100",
        ),
        (
            "AlibabaHPN_32g_8gps_DualToR_SinglePlane_200Gbps_H100",
            "172 8 4 136 2016 H100",
        ),
        ("DCN+SingleToR_16g_8gps_400Gbps_H100", "27 8 2 9 40 H100"),
        ("DCN+DualToR_16g_8gps_200Gbps_H100", "28 8 2 10 64 H100"),
    ];
    for (name, first_line) in recorded {
        let text = plan_of(name).generate().unwrap().to_string();
        assert_eq!(text.lines().next(), Some(first_line), "{name}");
        assert!(text.contains("\n0 "), "{name} has links of GPU 0");
    }
}

fn flow_network(topology: Topology) -> FlowNetwork {
    FlowNetwork::new(topology, SimaiConf::default(), SimaiEnvironment::default())
}

fn spectrum(gpus: u32) -> Topology {
    let mut plan = TopologyPlan::new(Fabric::SpectrumX, gpus);
    plan.access_switches_max = None;
    plan.generate().unwrap()
}

fn edited(topology: Topology, edits: &[&str]) -> Topology {
    let edits: Vec<TopologyEdit> = edits.iter().map(|text| text.parse().unwrap()).collect();
    topology.edited(&edits).unwrap()
}

#[test]
fn a_slow_rail_slows_what_crosses_it_and_nothing_else() {
    let time_ns = |edits: &[&str], ranks: &[u32]| {
        let network = flow_network(edited(spectrum(16), edits));
        let group = network.group(GroupKind::Tensor, ranks).unwrap();
        network
            .time_ns(Collective::AllReduce, 1 << 27, group)
            .unwrap()
    };
    let all: Vec<u32> = (0..16).collect();
    let server: Vec<u32> = (0..8).collect();
    let slow = ["rail=3:0.5"];
    let ratio = time_ns(&slow, &all) / time_ns(&[], &all);
    assert!((1.5..2.1).contains(&ratio), "{ratio}");
    assert_eq!(time_ns(&slow, &server), time_ns(&[], &server));
}

#[test]
fn a_failed_port_halves_a_nic_and_a_failed_nic_cuts_off() {
    let dual = TopologyPlan::new(Fabric::AlibabaHpn { dual_plane: false }, 16);
    let dual = dual.generate().unwrap();
    let send_ns = |topology: &Topology| flow_network(topology.clone()).send_ns(1 << 24, 0, 9);
    // GPU 0 is on switches 18 and 26.
    let one_port = edited(dual.clone(), &["0-18:0"]);
    assert!(send_ns(&one_port).is_ok());
    let crowded = |topology: &Topology| {
        // Without congestion control, which would slow both down as much.
        let conf = SimaiConf {
            congestion_control: false,
            ..SimaiConf::default()
        };
        let network = FlowNetwork::new(topology.clone(), conf, SimaiEnvironment::default());
        let group = network
            .group(GroupKind::Expert, &(0..16).collect::<Vec<_>>())
            .unwrap();
        network
            .time_ns(Collective::AllToAll, 1 << 26, group)
            .unwrap()
    };
    assert!(crowded(&one_port) > 1.05 * crowded(&dual));
    let no_port = edited(dual, &["0-18:0", "0-26:0"]);
    let error = send_ns(&no_port).unwrap_err().to_string();
    assert!(error.contains("GPU 0 has no way to GPU 9"), "{error}");
}

#[test]
fn thousands_of_gpus_are_a_handful_of_classes() {
    let network = flow_network(spectrum(2048));
    let ranks: Vec<u32> = (0..2048).collect();
    let group = network.group(GroupKind::Data, &ranks).unwrap();
    let time_ns = |bytes| {
        let time_ns = network.time_ns(Collective::AllReduce, bytes, group);
        time_ns.unwrap()
    };
    // Every NIC passes on its eighth of the data twice.
    let bytes = 1_u64 << 36;
    let ratio = time_ns(bytes) / (2.0 * bytes as f64 / 8.0 / 50.0);
    assert!((1.0..1.2).contains(&ratio), "bandwidth: {ratio}");
    // Small messages: of 4,094 steps an eighth goes through the spine, which
    // takes 10.01 us (6.01 and four hops there and back), the rest 6.11 us.
    let ratio = time_ns(1 << 16) / (4094.0 * (7.0 * 6110.0 + 10_010.0) / 8.0);
    assert!((1.0..1.05).contains(&ratio), "latency: {ratio}");
}

#[test]
fn groups_that_look_alike_are_simulated_once_and_threads_agree() {
    let network = flow_network(spectrum(64));
    let servers: Vec<_> = (0..8_u32)
        .map(|server| {
            let ranks: Vec<u32> = (8 * server..8 * server + 8).collect();
            network.group(GroupKind::Tensor, &ranks).unwrap()
        })
        .collect();
    assert!(servers.iter().all(|&group| group == servers[0]));
    let two = network.group(GroupKind::Tensor, &[0, 1]).unwrap();
    assert_ne!(two, servers[0]);
    let price = || {
        network
            .time_ns(Collective::AllGather, 12_345_678, servers[0])
            .unwrap()
    };
    let times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(price)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(times.iter().all(|&time| time == times[0]));
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let network = flow_network(spectrum(16));
    let refuse = |ranks: &[u32]| {
        let refused = network.group(GroupKind::Tensor, ranks);
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refuse(&[0, 99]),
        "GPU 99, but the topology has 16 (0 to 15)"
    );
    assert_eq!(
        refuse(&[1, 1]),
        "a group needs different ranks, at least one"
    );
    let uneven = "the group has 2 ranks in one server and 1 in another";
    assert_eq!(refuse(&[0, 1, 8]), uneven);
}

/// A measured time: collective (or `engine`), GPUs, bytes, microseconds.
fn measured(device: &str, table: &str) -> Vec<(String, u32, u64, f64)> {
    let path = format!(
        "{}/data/silicon/{device}/{table}.parquet",
        env!("CARGO_MANIFEST_DIR")
    );
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let mut found = ("engine".to_owned(), 0, 0, 0.0);
        for (name, field) in row.get_column_iter() {
            match (name.as_str(), field) {
                ("collective", Field::Str(text)) => found.0 = text.clone(),
                ("gpus", Field::UInt(gpus)) => found.1 = *gpus,
                // Elements of two bytes.
                ("elements", Field::UInt(elements)) => found.2 = u64::from(*elements) * 2,
                ("latency_ms", Field::Float(ms)) => found.3 = f64::from(*ms) * 1e3,
                other => panic!("{other:?}"),
            }
        }
        found
    });
    rows.collect()
}

#[test]
fn the_nccl_model_meets_measured_collectives() {
    let mut errors: BTreeMap<(&str, String, u32), Vec<f64>> = BTreeMap::new();
    for (device, nvlink_gb_per_s) in [
        ("a100", 300.0),
        ("h100", 450.0),
        ("h200", 450.0),
        ("b200", 900.0),
    ] {
        for (table, kernels) in [
            ("nccl", Kernels::Nccl),
            ("all_reduce", Kernels::ServingEngine),
        ] {
            let model = NcclModel {
                generation: LinkGeneration::of_gpu(device).unwrap(),
                gpus_per_server: 8,
                nvlink_gb_per_s,
                nic_gb_per_s: 0.0,
                kernels,
            };
            for (name, gpus, bytes, expected_us) in measured(device, table) {
                let collective = Collective::parse(&name).unwrap_or(Collective::AllReduce);
                let group = GroupShape {
                    ranks: gpus,
                    servers: 1,
                };
                let found_us = model.price(collective, bytes, group).unwrap().time_us;
                let error = (found_us / expected_us - 1.0).abs();
                errors.entry((device, name, gpus)).or_default().push(error);
            }
        }
    }
    assert_eq!(errors.len(), 4 * 5 * 3);
    let median = |errors: &mut Vec<f64>| {
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for ((device, name, gpus), errors) in &mut errors {
        println!(
            "{device} {name} {gpus}: median {:.1} %",
            median(errors) * 100.0
        );
        for key in [format!("{device} {name}"), format!("{name}, {gpus} GPUs")] {
            all.entry(key).or_default().extend_from_slice(errors);
        }
    }
    for (key, errors) in &mut all {
        let median = median(errors);
        println!("{key}: median {:.1} %", median * 100.0);
        assert!(median <= 0.10, "{key}: {median}");
    }
}

fn vidur_sweep() -> assert_cmd::Command {
    assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("vidur-sweep"))
}

#[test]
fn the_command_prices_both_kinds_of_rows_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let rows = read_rows(&fixture("ns3.csv"));
    for name in rows.iter().map(|row| &row["topology"]) {
        let text = plan_of(name).generate().unwrap().to_string();
        fs::write(folder.path().join(name), text).unwrap();
    }
    let price = |backend: &str, queries: &str, compat: bool| {
        let out = folder.path().join("out.csv");
        let mut command = vidur_sweep();
        command.args(["network", "price", "--backend", backend, "--queries"]);
        command.arg(fixture(queries)).arg("--out").arg(&out);
        command.arg("--topology-dir").arg(folder.path());
        if compat {
            command.args(["--compat", "vidur-alibabacloud"]);
        }
        command.assert().success();
        let given = fs::read_to_string(fixture(queries)).unwrap();
        let priced = fs::read_to_string(&out).unwrap();
        for (given, priced) in given.lines().zip(priced.lines()) {
            assert!(priced.starts_with(&format!("{given},")), "{priced}");
        }
        read_rows(&out)
    };
    for compat in [false, true] {
        let analytical = price("simai_analytical", "analytical.csv", compat);
        for row in analytical {
            let found: f64 = number(&row, "predicted_us");
            match (row["mode"].as_str(), compat) {
                ("vidur_as_called", false) => assert!(found > 4.0, "never free: {row:?}"),
                ("vidur_as_called", true) => assert_eq!(found, number::<f64>(&row, "csv_time_us")),
                _ => assert!((found - number::<f64>(&row, "time_us")).abs() < 1.001e-3),
            }
        }
        let simulated = price("simai_simulation", "ns3.csv", compat);
        assert_eq!(simulated.len(), rows.len());
        for row in simulated {
            let found: f64 = number(&row, "predicted_us");
            if is_skipped_by_simai(&row) {
                assert_eq!(found == 0.003, compat, "{row:?}");
            } else if let Ok(expected) = row["sim_time_us"].parse::<f64>() {
                assert!((found / expected - 1.0).abs() < 0.25, "{row:?}");
            }
        }
    }
}

#[test]
fn the_command_points_at_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let queries = folder.path().join("queries.csv");
    let header = "collective,group_type,tp,ep,bytes,topology\n";
    let text = TopologyPlan::new(Fabric::SpectrumX, 16)
        .generate()
        .unwrap()
        .to_string();
    fs::write(folder.path().join("spectrum"), text).unwrap();
    let complain = |text: &str| {
        fs::write(&queries, text).unwrap();
        let mut command = vidur_sweep();
        command.args([
            "network",
            "price",
            "--backend",
            "simai_simulation",
            "--queries",
        ]);
        command
            .arg(&queries)
            .arg("--topology-dir")
            .arg(folder.path());
        let output = command.assert().code(2).get_output().stderr.clone();
        String::from_utf8(output).unwrap()
    };
    let cases = [
        (
            "ALLREDUCE,TP,8,1,1024,spectrum\nALLREDUCES,TP,8,1,1024,spectrum",
            "queries.csv:3:1: collective: no `ALLREDUCES`",
        ),
        (
            "ALLREDUCE,TP,8,1,many,spectrum",
            "queries.csv:2:18: bytes: `many` is no whole number",
        ),
        (
            "ALLREDUCE,TP,3,1,1024,spectrum",
            "queries.csv:2:14: tp: groups of 3 ranks",
        ),
        (
            "ALLREDUCE,TP,8,1,1024,spectrun",
            "queries.csv:2:23: topology: no file `spectrun`",
        ),
        (
            "ALLREDUCE,TP,8,1",
            "queries.csv:2:16: 4 cells, but the header has 6",
        ),
    ];
    for (rows, expected) in cases {
        let found = complain(&format!("{header}{rows}\n"));
        assert!(found.contains(expected), "{found}");
    }
    assert!(complain("a,b\n").contains("queries.csv:1:1: no column `topology`"));
    assert!(complain("").contains("the file is empty"));
}

#[test]
fn the_command_generates_and_edits_topologies() {
    let folder = tempfile::tempdir().unwrap();
    let generate = |fabric: &str, gpus: &str| {
        let mut command = vidur_sweep();
        command.args(["topology", "generate", fabric, "--gpus", gpus, "--out"]);
        command.arg(folder.path()).assert()
    };
    generate("alibaba-hpn-dual-plane", "32").success();
    let name = "AlibabaHPN_32g_8gps_DualToR_DualPlane_200Gbps_H100";
    let written = fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(written, plan_of(name).generate().unwrap().to_string());
    let refused = generate("spectrum-x", "12")
        .code(2)
        .get_output()
        .stderr
        .clone();
    assert!(
        String::from_utf8(refused)
            .unwrap()
            .contains("12 GPUs do not fill servers of 8")
    );

    let mut edit = vidur_sweep();
    edit.args(["topology", "edit"])
        .arg(folder.path().join(name));
    let edited = edit.args(["--edit", "rail=3:0.5"]).assert().success();
    let edited = String::from_utf8(edited.get_output().stdout.clone()).unwrap();
    assert_eq!(
        edited.matches(" 100Gbps ").count(),
        8,
        "two ports of four GPUs"
    );
}

/// An exchange of tokens that was measured, and its time in seconds.
struct MeasuredExchange {
    exchange: ExpertExchange,
    hidden_size: u32,
    time_s: f64,
}

/// DeepEP's own benchmark on a device: tokens of 8 bits there, of 16 bits back.
fn measured_exchanges(device: &str, table: &str) -> Vec<MeasuredExchange> {
    let path = format!(
        "{}/data/silicon/{device}/{table}.parquet",
        env!("CARGO_MANIFEST_DIR")
    );
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let (mut texts, mut numbers, mut time_s) = (BTreeMap::new(), BTreeMap::new(), 0.0);
        for (name, field) in row.get_column_iter() {
            match field {
                Field::Str(text) => drop(texts.insert(name.clone(), text.clone())),
                Field::UInt(number) => drop(numbers.insert(name.clone(), *number)),
                Field::Float(ms) => time_s = f64::from(*ms) * 1e-3,
                other => panic!("{other:?}"),
            }
        }
        let combine = texts["phase"] == "combine";
        let (ranks, hidden_size) = (numbers["gpus"], numbers["hidden_size"]);
        let nodes = ranks / 8;
        MeasuredExchange {
            exchange: ExpertExchange {
                tokens_per_rank: numbers["tokens"],
                token_bytes: f64::from(hidden_size * if combine { 2 } else { 1 }),
                experts_per_token: numbers["experts_per_token"],
                experts: numbers["experts"],
                ranks,
                low_latency: texts["mode"] == "low_latency",
                combine,
                // The benchmark sends a token to four nodes at most.
                groups: (nodes, nodes.min(4)),
            },
            hidden_size,
            time_s,
        }
    });
    rows.collect()
}

/// Whether a row is one of those the constants were fitted to: inside a node every
/// other shape of model, low latency between nodes those with 256 experts, throughput
/// between nodes every other number of tokens, up to 32 GPUs.
fn is_fitted(row: &MeasuredExchange, rows: &[MeasuredExchange]) -> bool {
    let alike = |other: &&MeasuredExchange| {
        let (a, b) = (&row.exchange, &other.exchange);
        (a.ranks, a.low_latency, a.combine) == (b.ranks, b.low_latency, b.combine)
    };
    let alike = rows.iter().filter(alike);
    let exchange = &row.exchange;
    if exchange.ranks == 8 {
        let shape = |row: &MeasuredExchange| {
            let exchange = &row.exchange;
            (
                row.hidden_size,
                exchange.experts_per_token,
                exchange.experts,
            )
        };
        let shapes: BTreeSet<_> = alike.map(shape).collect();
        return shapes.range(..shape(row)).count() % 2 == 0;
    }
    if exchange.low_latency {
        return exchange.experts == 256;
    }
    let tokens: BTreeSet<_> = alike.map(|row| row.exchange.tokens_per_rank).collect();
    tokens.range(..exchange.tokens_per_rank).count() % 2 == 0 && exchange.ranks < 64
}

/// 8 GPUs of a node, and 16 to 64 of several; fitted and held-out rows. What was measured
/// of throughput kernels among 64 takes three times what DeepEP's authors publish, who
/// are met; it is shown, not asked for.
#[test]
fn the_deepep_model_meets_measured_exchanges() {
    let mut errors: BTreeMap<(String, bool), Vec<f64>> = BTreeMap::new();
    for (device, table, nvlink_gb_per_s) in [
        ("h100", "expert_exchange_wide", 450.0),
        ("h200", "expert_exchange_wide", 450.0),
        ("b200", "expert_exchange_wide", 900.0),
        // H200s: the same rows.
        ("h100", "expert_exchange_multinode", 450.0),
    ] {
        let generation = LinkGeneration::of_gpu(device).unwrap();
        let model = DeepEpModel::new(generation, 8, nvlink_gb_per_s, 50.0).unwrap();
        let rows = measured_exchanges(device, table);
        for row in &rows {
            let exchange = &row.exchange;
            if table.ends_with("multinode") && exchange.ranks == 8 {
                continue;
            }
            let error = (model.time_s(exchange).unwrap() / row.time_s - 1.0).abs();
            let kind = match exchange.low_latency {
                true => "low latency",
                false => "throughput",
            };
            let way = if exchange.combine {
                "combine"
            } else {
                "dispatch"
            };
            let ranks = exchange.ranks;
            let fitted = is_fitted(row, &rows);
            for key in [
                format!("{kind} {way}, {ranks} GPUs"),
                format!("{kind} {way}, {ranks} GPUs, {device}"),
            ] {
                errors.entry((key, fitted)).or_default().push(error);
            }
        }
    }
    for ((key, fitted), errors) in &mut errors {
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors[((errors.len() - 1) as f64 * share) as usize];
        let part = if *fitted { "fitted" } else { "held out" };
        println!(
            "{key}, {part}: median {:.1} %, 90 % {:.1} %, {} rows",
            at(0.5) * 100.0,
            at(0.9) * 100.0,
            errors.len()
        );
        if !key.starts_with("throughput") || !key.contains("64 GPUs") {
            assert!(at(0.5) <= 0.10, "{key}: {}", at(0.5));
        }
    }
    assert!(errors.len() >= 30);
}
