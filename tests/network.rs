//! The network models against recorded runs of SimAI.
//!
//! `VIDUR_SWEEP_SIMAI_REFERENCE` names a directory with `analytical.csv`,
//! `ns3.csv` and `topo/`; with it, `--ignored` compares every recorded row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vidur_sweep::network::analytical::{
    AnalyticalNetwork, ParallelGroup, nic_gib_per_s, nvlink_gib_per_s,
};
use vidur_sweep::network::topology::{Fabric, Topology, TopologyPlan};
use vidur_sweep::network::{Collective, GroupKind};

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

#[test]
#[ignore = "needs VIDUR_SWEEP_SIMAI_REFERENCE"]
fn every_recorded_analytical_row_is_met_within_a_nanosecond() {
    let rows = read_rows(&reference().join("analytical.csv"));
    assert!(rows.len() > 10_000);
    let mut wrong = Vec::new();
    for row in &rows {
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
