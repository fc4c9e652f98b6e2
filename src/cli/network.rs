//! `vidur-sweep network`: prices of collectives, without a simulation around
//! them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{say, write_out};
use super::{CliError, CliResult};
use crate::input_file::{self, InputKind};
use crate::network::flow::SimaiConf;
use crate::network::nccl::{Algorithm, Kernels};
use crate::network::query::{Backend, Pricer, PricerOptions};
use crate::network::topology::TopologyEdit;
use crate::spelling::did_you_mean;
use crate::workload::{Cell, split_cells};

/// Column that is appended.
const PREDICTED: &str = "predicted_us";
/// Settings that are used if they lie beside the topologies.
const CONF_FILE: &str = "SimAI.conf";

/// Price collectives and transfers.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep network price --backend simai_simulation --queries queries.csv \\
      --topology-dir topo --out priced.csv")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Price every row of a CSV file.
    ///
    /// Columns: `collective` (ALLREDUCE, ALLGATHER, REDUCESCATTER, ALLTOALL),
    /// `group_type` (TP, EP, DP, DP_EP), `tp`, `ep`, `bytes` and, by backend,
    /// `topology` (a file below --topology-dir) and `env` (AS_SEND_LAT=6;...)
    /// or `mode`, `gpu_type`, `nics_per_server`, ... Others are passed through.
    /// Every row comes back, in order, with `predicted_us` appended.
    Price(Price),
}

#[derive(clap::Args)]
struct Price {
    /// What prices: simai_analytical, simai_simulation (flow level) or nccl.
    #[arg(long, value_parser = parse_backend)]
    backend: Backend,
    /// CSV file with a row per query.
    #[arg(long)]
    queries: PathBuf,
    /// Directory with topology files.
    #[arg(long, default_value = ".")]
    topology_dir: PathBuf,
    /// SimAI.conf (default: that of the topology directory, if there is one).
    #[arg(long)]
    conf: Option<PathBuf>,
    /// File to write; `-` is standard output.
    #[arg(long, default_value = "-")]
    out: PathBuf,
    /// Reproduce what Vidur-AlibabaCloud gets from SimAI, defects included.
    #[arg(long, value_enum)]
    compat: Option<Compat>,
    /// Change links of every topology: `rail=R:FACTOR`, `node=N:FACTOR` or
    /// `A-B:FACTOR`; factor 0 takes them down. May be repeated.
    #[arg(long = "edit", value_name = "LINKS:FACTOR")]
    edits: Vec<TopologyEdit>,
    /// Algorithm of backend nccl and of the completed analytical model: ring,
    /// tree, nvls or direct (default: the fastest).
    #[arg(long)]
    algorithm: Option<Algorithm>,
    /// Let the same models use the all-reduce kernels of serving engines.
    #[arg(long)]
    engine_kernels: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Compat {
    /// Vidur-AlibabaCloud with SimAI 1.7.
    VidurAlibabacloud,
}

fn parse_backend(text: &str) -> Result<Backend, String> {
    let found = Backend::NAMED.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, backend)| backend).ok_or_else(|| {
        let names = Backend::NAMED.map(|(name, _)| name);
        let hint = did_you_mean(text, names);
        format!("no network backend `{text}` ({}){hint}", names.join(", "))
    })
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    match args.command {
        Command::Price(price) => run_price(price),
    }
}

fn run_price(args: Price) -> CliResult {
    if args.backend == Backend::Simulation && (args.algorithm.is_some() || args.engine_kernels) {
        let message = "--algorithm and --engine-kernels are for backends nccl and \
                       simai_analytical; simai_simulation decomposes as SimAI does";
        return Err(CliError::BadInput(message.into()));
    }
    let text = input_file::read_text(&args.queries, InputKind::Queries)
        .map_err(|error| CliError::BadInput(format!("{}: {error}", args.queries.display())))?;
    let conf = read_conf(&args)?;
    let mut pricer = Pricer::new(PricerOptions {
        backend: args.backend,
        topology_dir: args.topology_dir,
        conf,
        compat: args.compat.is_some(),
        edits: args.edits,
        algorithm: args.algorithm,
        kernels: if args.engine_kernels {
            Kernels::ServingEngine
        } else {
            Kernels::Nccl
        },
    });
    let priced = price_rows(&text, &args.queries, &mut pricer)?;
    for warning in pricer.warnings() {
        say!("warning: {warning}");
    }
    write_out(&args.out, priced.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn read_conf(args: &Price) -> Result<SimaiConf, CliError> {
    let beside = args.topology_dir.join(CONF_FILE);
    let path = match &args.conf {
        Some(path) => path,
        None if beside.exists() => &beside,
        None => return Ok(SimaiConf::default()),
    };
    let conf = SimaiConf::load(path).map_err(|error| CliError::BadInput(error.to_string()))?;
    for warning in conf.warnings(&path.display().to_string()) {
        say!("warning: {warning}");
    }
    Ok(conf)
}

/// All lines of the file, with a price at the end of every row.
fn price_rows(text: &str, file: &Path, pricer: &mut Pricer) -> Result<String, CliError> {
    let at = |line: usize, column: usize, message: &str| {
        CliError::BadInput(format!("{}:{line}:{column}: {message}", file.display()))
    };
    // A byte-order mark is not part of the first column's name.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let Some((header_index, header_line)) = lines.next() else {
        return Err(at(
            1,
            1,
            "the file is empty; a header and rows are expected",
        ));
    };
    let header = split_cells(header_line);
    check_header(&header, pricer)
        .map_err(|(column, message)| at(header_index + 1, column, &message))?;

    let names = header.iter().map(|cell| cell.text.as_ref());
    let places: HashMap<&str, usize> = names.zip(0..).collect();
    let mut out = format!("{header_line},{PREDICTED}\n");
    for (index, line) in lines {
        let cells = split_cells(line);
        if cells.len() != header.len() {
            let (found, expected) = (cells.len(), header.len());
            let column = cells.last().map_or(1, |cell| cell.column);
            let message = format!("{found} cells, but the header has {expected}");
            return Err(at(index + 1, column, &message));
        }
        let place = |name: &str| places.get(name).copied();
        let field = |name: &str| Some(cells[place(name)?].text.as_ref());
        let time_us = pricer.price_us(&field).map_err(|error| {
            let column = place(&error.column).map_or(1, |place| cells[place].column);
            at(
                index + 1,
                column,
                &format!("{}: {}", error.column, error.message),
            )
        })?;
        // Whole picoseconds: more than any model knows, and no float noise.
        let time_us = (time_us * 1e6).round() / 1e6;
        out.push_str(&format!("{line},{time_us}\n"));
    }
    Ok(out)
}

fn check_header(header: &[Cell<'_>], pricer: &Pricer) -> Result<(), (usize, String)> {
    let names = || header.iter().map(|cell| cell.text.as_ref());
    let mut seen = HashSet::new();
    for cell in header {
        if cell.text == PREDICTED {
            return Err((
                cell.column,
                format!("there is a column `{PREDICTED}` already"),
            ));
        }
        if !seen.insert(cell.text.as_ref()) {
            return Err((cell.column, format!("column `{}` twice", cell.text)));
        }
    }
    for &required in pricer.required_columns() {
        if !names().any(|name| name == required) {
            let hint = did_you_mean(required, names());
            let needed = pricer.required_columns().join(", ");
            let message = format!("no column `{required}`; needed: {needed}{hint}");
            return Err((1, message));
        }
    }
    Ok(())
}
