//! `vidur-sweep validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::output::{print_text, tell_notes};
use super::{CliError, CliResult};
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
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let spec = spec::load(&args.spec, &args.overrides)
        .map_err(|errors| CliError::BadInput(errors.to_string()))?;
    tell_notes(&spec.notes);
    print_text(&describe(&spec))?;
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
