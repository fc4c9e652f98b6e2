//! `vidur-sweep validate`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::output::{print_data_with, print_text, tell_notes};
use super::{CliError, CliResult};
use crate::report::ReportFormat;
use crate::spec::{self, SearchConfig, SweepSpec};

/// Check a sweep specification without running anything.
///
/// Prints how many configurations it holds, or everything that is wrong with it
/// (exit code 2): each message names file, line and column, the key, its value
/// and what is allowed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vidur-sweep validate sweeps/deepseek.yaml
  vidur-sweep validate sweeps/deepseek.yaml --set axes.qps=[5,10]")]
pub struct Args {
    /// Sweep specification (YAML).
    spec: PathBuf,
    /// Override a key: `seed=7`, `axes.qps=[1, 2]`, or a run key such as `qps=4`,
    /// which is then the same for all runs. May be repeated.
    #[arg(long = "set", value_name = "PATH.TO.KEY=VALUE")]
    overrides: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// What a specification that is in order holds.
#[derive(Debug, Serialize)]
struct Contents<'a> {
    name: &'a str,
    configurations: u64,
    replications: u32,
    axes: Vec<Axis<'a>>,
    constraints: &'a [String],
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct Axis<'a> {
    name: &'a str,
    values: usize,
}

impl<'a> Contents<'a> {
    fn of(spec: &'a SweepSpec) -> Self {
        let axes = match &spec.points {
            Some(points) => (points.columns.iter())
                .map(|column| Axis {
                    name: column,
                    values: points.column_values(column).len(),
                })
                .collect(),
            None => spec
                .axis_values()
                .map(|(name, values)| Axis {
                    name,
                    values: values.len(),
                })
                .collect(),
        };
        Self {
            name: &spec.name,
            configurations: spec.configurations(),
            replications: spec.replications,
            axes,
            constraints: &spec.constraints,
            notes: &spec.notes,
        }
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// One line per count, then one per axis.
    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(["what", "name", "count"])?;
        let counts = [
            ("configurations", self.configurations),
            ("replications", u64::from(self.replications)),
            ("constraints", self.constraints.len() as u64),
        ];
        for (name, count) in counts {
            csv.write_record(["count", name, &count.to_string()])?;
        }
        for axis in &self.axes {
            csv.write_record(["axis", axis.name, &axis.values.to_string()])?;
        }
        csv.flush()
    }
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let spec = spec::load(&args.spec, &args.overrides)
        .map_err(|errors| CliError::BadInput(errors.to_string()))?;
    tell_notes(&spec.notes);
    let contents = Contents::of(&spec);
    match args.format {
        ReportFormat::Table => print_text(&describe(&spec))?,
        ReportFormat::Json => print_data_with(|out| contents.write_json(out))?,
        ReportFormat::Csv => print_data_with(|out| contents.write_csv(out))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(spec: &SweepSpec) -> String {
    let mut text = format!("ok: {} configurations", spec.configurations());
    if spec.replications > 1 {
        text += &format!(" x {} replications", spec.replications);
    }
    match (&spec.search, &spec.points) {
        (SearchConfig::List { .. }, Some(points)) => {
            text += &format!(", columns {}", points.columns.join(", "));
        }
        _ => {
            let axes: Vec<_> = spec
                .axis_values()
                .map(|(key, values)| format!("{key} ({})", values.len()))
                .collect();
            if !axes.is_empty() {
                text += &format!(", axes {}", axes.join(" x "));
            }
        }
    }
    if !spec.constraints.is_empty() {
        text += &format!("; before {} constraints", spec.constraints.len());
    }
    text
}
