//! `vidur-sweep profiles`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::output::{output_width, print_data, print_text};
use super::{CliError, CliResult};
use crate::execution_time::silicon::{self, SiliconError, TableListing};
use crate::report::{TextColumn, TextTable};
use crate::spelling::did_you_mean;

/// Import and list operator profiles.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep profiles list --device h200")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Regenerate operator tables from somebody's measurements.
    #[command(subcommand)]
    Import(Import),
    /// List measured operators: devices, tables, engines, ranges, licences.
    List(List),
}

#[derive(clap::Args)]
struct List {
    /// Directory with tables and their manifest (default: those shipped with
    /// the program).
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only this device.
    #[arg(long)]
    device: Option<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For reading.
    Table,
    /// One array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

#[derive(clap::Subcommand)]
enum Import {
    /// From NVIDIA's Python package `aiconfigurator-core`, unpacked.
    Aiconfigurator(Aiconfigurator),
}

#[derive(clap::Args)]
struct Aiconfigurator {
    /// Directory the package was unpacked into (`unzip` of the wheel, or a
    /// site-packages directory).
    package: PathBuf,
    /// Directory the tables are written to.
    #[arg(long, default_value = "data/silicon")]
    out: PathBuf,
    /// Devices to import, separated by commas (default: all of the selection).
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    match args.command {
        Command::Import(Import::Aiconfigurator(import)) => import_aiconfigurator(&import),
        Command::List(list) => list_tables(&list),
    }
}

fn import_aiconfigurator(args: &Aiconfigurator) -> CliResult {
    let manifest = silicon::import_aiconfigurator(&args.package, &args.out, &args.systems)?;
    let rows: usize = manifest.tables.iter().map(|entry| entry.rows).sum();
    let bytes: usize = manifest.tables.iter().map(|entry| entry.bytes).sum();
    print_text(&format!(
        "{}: {} tables, {rows} rows, {bytes} bytes, from {}",
        args.out.display(),
        manifest.tables.len(),
        manifest.package
    ))?;
    Ok(std::process::ExitCode::SUCCESS)
}

fn list_tables(list: &List) -> CliResult {
    let mut tables = silicon::list_tables(list.data.as_deref())?;
    if let Some(device) = &list.device {
        let measured: BTreeSet<String> = tables.iter().map(|t| t.device.clone()).collect();
        tables.retain(|table| table.device.eq_ignore_ascii_case(device));
        if tables.is_empty() {
            let hint = did_you_mean(device, measured.iter().map(String::as_str));
            let measured: Vec<&str> = measured.iter().map(String::as_str).collect();
            return Err(CliError::BadInput(format!(
                "--device: `{device}` has no measured operators; measured: {}{hint}",
                measured.join(", ")
            )));
        }
    }
    let text = match list.format {
        Format::Table => listing_table(&tables),
        Format::Json => {
            let json = serde_json::to_string_pretty(&tables);
            json.map_err(|error| CliError::Failure(error.to_string()))? + "\n"
        }
        Format::Csv => listing_csv(&tables)?,
    };
    match matches!(list.format, Format::Table) {
        true => print_text(&text)?,
        false => print_data(text.as_bytes())?,
    }
    Ok(std::process::ExitCode::SUCCESS)
}

const COLUMNS: [&str; 7] = [
    "device", "table", "engine", "version", "rows", "keys", "licence",
];

fn cells(table: &TableListing) -> [String; 7] {
    let keys = table
        .keys
        .iter()
        .map(|key| format!("{} {}", key.column, key.values));
    let mut version = table.version.clone();
    if table.only_for_its_engine {
        version.push_str(" (for this engine only)");
    }
    [
        table.device.clone(),
        table.table.to_owned(),
        table.engine.clone(),
        version,
        table.rows.to_string(),
        keys.collect::<Vec<_>>().join("; "),
        table.licence.clone(),
    ]
}

fn listing_table(tables: &[TableListing]) -> String {
    let rows: Vec<[String; 7]> = tables.iter().map(cells).collect();
    let columns = COLUMNS.into_iter().enumerate().map(|(nth, name)| {
        let cells = rows.iter().map(|row| row[nth].clone());
        match name {
            "rows" => TextColumn::numbers(name, cells),
            _ => TextColumn::text(name, cells),
        }
    });
    TextTable::new(4, columns).render(output_width())
}

fn listing_csv(tables: &[TableListing]) -> Result<String, CliError> {
    let failed = |error: csv::Error| CliError::Failure(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = COLUMNS.into_iter().chain(["source"]);
    writer.write_record(header).map_err(failed)?;
    for table in tables {
        let record = cells(table).into_iter().chain([table.source.clone()]);
        writer.write_record(record).map_err(failed)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| CliError::Failure(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| CliError::Failure(error.to_string()))
}

impl From<SiliconError> for CliError {
    fn from(error: SiliconError) -> Self {
        match error {
            SiliconError::Write { .. } | SiliconError::Encoding { .. } => {
                Self::Failure(error.to_string())
            }
            other => Self::BadInput(other.to_string()),
        }
    }
}
