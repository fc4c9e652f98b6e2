//! `vidur-sweep topology`: cluster topologies in SimAI's file format.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{print_data_with, print_text, say, write_out};
use super::values::{positive, whole};
use super::{CliError, CliResult};
use crate::network::topology::{Fabric, Topology, TopologyContents, TopologyEdit, TopologyPlan};
use crate::report::ReportFormat;
use crate::spelling::did_you_mean;

/// Generate and change cluster topologies.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep topology generate spectrum-x --gpus 128 --out topo/
  vidur-sweep topology generate alibaba-hpn-dual-plane --gpus 512 --out -
  vidur-sweep topology edit topo/Spectrum-X_128g_8gps_400Gbps_H100 --edit rail=3:0.5 --out slow
  vidur-sweep topology show topo/Spectrum-X_128g_8gps_400Gbps_H100")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Generate a fabric; figures that are not given are the fabric's usual ones.
    Generate(Box<Generate>),
    /// Degrade or fail links of a topology.
    Edit(Edit),
    /// Check a topology and say what is in it.
    Show {
        /// Topology file.
        file: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        format: ReportFormat,
    },
}

#[derive(clap::Args)]
struct Generate {
    /// spectrum-x, alibaba-hpn, alibaba-hpn-dual-plane, dcn+, dcn+dual-tor,
    /// rail-optimized, nvlink-domain or nvl72.
    #[arg(value_parser = parse_fabric)]
    fabric: Fabric,
    /// GPUs in all.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    gpus: u32,
    /// File to write; a directory, made where it ends in `/`: a file there, named as
    /// SimAI names it; `-`:
    /// standard output.
    #[arg(long, default_value = "-")]
    out: PathBuf,
    /// GPUs of a server (of an NVLink domain).
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    gpus_per_server: Option<u32>,
    /// GPU type, e.g. H100.
    #[arg(long)]
    gpu_type: Option<String>,
    /// NVSwitches of a server.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    nvswitches_per_server: Option<u32>,
    /// NVLink bandwidth of a GPU, gigabits per second and direction.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    nvlink_bandwidth_gbps: Option<f64>,
    /// Delay of an NVLink hop, nanoseconds.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    nvlink_latency_ns: Option<f64>,
    /// Bandwidth of a NIC port, gigabits per second.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    nic_bandwidth_gbps: Option<f64>,
    /// Delay of a hop between servers, nanoseconds.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    hop_latency_ns: Option<f64>,
    /// NICs that share an access switch.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    nics_per_switch: Option<u32>,
    /// Spine switches.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    spine_switches: Option<u32>,
    /// Bandwidth of a link to a spine switch, gigabits per second.
    #[arg(long, value_parser = positive, allow_negative_numbers = true)]
    spine_bandwidth_gbps: Option<f64>,
    /// Access switches that the GPUs of a server spread over.
    #[arg(long, value_parser = whole(1..=u32::MAX), allow_negative_numbers = true)]
    rails: Option<u32>,
}

#[derive(clap::Args)]
struct Edit {
    /// Topology file.
    file: PathBuf,
    /// `rail=R:FACTOR`, `node=N:FACTOR` or `A-B:FACTOR`; factor 0 takes links
    /// down. May be repeated.
    #[arg(long = "edit", value_name = "LINKS:FACTOR", required = true)]
    edits: Vec<TopologyEdit>,
    /// File to write; `-`: standard output.
    #[arg(long, default_value = "-")]
    out: PathBuf,
}

fn parse_fabric(text: &str) -> Result<Fabric, String> {
    let lower = text.to_ascii_lowercase();
    let found = Fabric::NAMED.into_iter().find(|(name, _)| *name == lower);
    found.map(|(_, fabric)| fabric).ok_or_else(|| {
        let names = Fabric::NAMED.map(|(name, _)| name);
        let hint = did_you_mean(text, names);
        format!("no fabric `{text}` ({}){hint}", names.join(", "))
    })
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    match args.command {
        Command::Generate(generate) => run_generate(&generate),
        Command::Edit(edit) => {
            let edited = load(&edit.file)?
                .edited(&edit.edits)
                .map_err(|error| CliError::BadInput(error.to_string()))?;
            write_out(&edit.out, edited.to_string().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { file, format } => {
            let contents = load(&file)?.contents();
            match format {
                ReportFormat::Table => print_text(&contents.to_string())?,
                ReportFormat::Json => print_data_with(|out| write_json(&contents, out))?,
                ReportFormat::Csv => print_data_with(|out| write_csv(&contents, out))?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write_json(contents: &TopologyContents, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, contents)?;
    writeln!(out)
}

/// One line per count, then one per kind of link.
fn write_csv(contents: &TopologyContents, out: &mut dyn Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(["what", "name", "bandwidth_gbps", "count"])?;
    let counts = [
        ("gpus", contents.gpus as usize),
        ("gpus_per_server", contents.gpus_per_server as usize),
        ("nvswitches", contents.nvswitches),
        ("switches", contents.switches),
    ];
    for (name, count) in counts {
        csv.write_record(["count", name, "", &count.to_string()])?;
    }
    for alike in &contents.links {
        let (gbps, links) = (alike.bandwidth_gbps.to_string(), alike.links.to_string());
        csv.write_record(["links", &alike.between, &gbps, &links])?;
    }
    csv.flush()
}

fn load(file: &Path) -> Result<Topology, CliError> {
    Topology::load(file).map_err(|error| CliError::BadInput(error.to_string()))
}

fn run_generate(args: &Generate) -> CliResult {
    let plan = plan(args);
    let topology = plan
        .generate()
        .map_err(|error| CliError::BadInput(error.to_string()))?;
    let names_folder = args.out.as_os_str().as_encoded_bytes().ends_with(b"/");
    if names_folder {
        std::fs::create_dir_all(&args.out)
            .map_err(|error| CliError::Failure(format!("{}: {error}", args.out.display())))?;
    }
    let out = if names_folder || args.out.is_dir() {
        args.out.join(plan.file_name())
    } else {
        args.out.clone()
    };
    write_out(&out, topology.to_string().as_bytes())?;
    say!("{}", topology.contents());
    Ok(ExitCode::SUCCESS)
}

fn plan(args: &Generate) -> TopologyPlan {
    let usual = TopologyPlan::new(args.fabric, args.gpus);
    // Servers smaller than usual have as many rails as GPUs.
    let gpus_per_server = args.gpus_per_server.unwrap_or(usual.gpus_per_server);
    let rails = match args.gpus_per_server {
        Some(gpus) if args.fabric != Fabric::Nvl72 => gpus,
        _ => usual.rails,
    };
    TopologyPlan {
        gpus_per_server,
        rails: args.rails.unwrap_or(rails),
        gpu_type: args.gpu_type.clone().unwrap_or(usual.gpu_type),
        nvswitches_per_server: args
            .nvswitches_per_server
            .unwrap_or(usual.nvswitches_per_server),
        nvlink_bandwidth_gbps: args
            .nvlink_bandwidth_gbps
            .unwrap_or(usual.nvlink_bandwidth_gbps),
        nvlink_latency_ns: args.nvlink_latency_ns.unwrap_or(usual.nvlink_latency_ns),
        nic_bandwidth_gbps: args.nic_bandwidth_gbps.unwrap_or(usual.nic_bandwidth_gbps),
        hop_latency_ns: args.hop_latency_ns.unwrap_or(usual.hop_latency_ns),
        nics_per_switch: args.nics_per_switch.unwrap_or(usual.nics_per_switch),
        spine_switches: args.spine_switches.unwrap_or(usual.spine_switches),
        spine_bandwidth_gbps: args
            .spine_bandwidth_gbps
            .unwrap_or(usual.spine_bandwidth_gbps),
        ..usual
    }
}
