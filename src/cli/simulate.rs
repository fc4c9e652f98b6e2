//! `vidur-sweep simulate`: one simulation from Vidur's flags.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{ArgMatches, Command, FromArgMatches, ValueEnum};

use super::interrupt::end_on_signals;
use super::output::{output_width, print_data, print_text, say};
use super::values::whole;
use super::{CliError, CliResult};
use crate::external::TIME_LIMIT_S;
use crate::report::{simulation_text, wrapped};
use crate::simulator::Compat;
use crate::spec::{MemoryCheck, value_label};
use crate::vidur::{Options, Outcome, Prepared, Settings, prepare};

/// Simulate one deployment, with the flags of `python -m vidur.main`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidur-sweep simulate
      Vidur's defaults: Llama-2-7b on an A100, 128 requests
  vidur-sweep simulate --replica_config_model_name meta-llama/Meta-Llama-3-8B --poisson_request_interval_generator_config_qps 4
  vidur-sweep simulate --config simulator_output/2026-01-01_00-00-00-000000/config.json
      a run of the original (or of this program) again
  vidur-sweep simulate --compat vidur --requests_file requests.csv --predictions_file predictions.csv
      event for event what the original does with these requests and execution times

Files go to OUTPUT_DIR/<time of the run>/: config.json, summary.json, request_metrics.csv,
requests.parquet, chrome_trace.json (open it in ui.perfetto.dev), plots/.")]
pub struct Args {
    /// Read a config.json of the original (or of this program); flags override it
    #[arg(long, value_name = "FILE", help_heading = "vidur-sweep")]
    config: Option<PathBuf>,

    /// Behave as the original does, event for event, defects included
    #[arg(
        long,
        value_name = "ORIGINAL",
        value_enum,
        help_heading = "vidur-sweep"
    )]
    compat: Option<CompatArg>,

    /// Replay these requests instead of generating some: CSV with columns arrived_at,
    /// num_prefill_tokens, num_decode_tokens
    #[arg(
        long = "requests_file",
        alias = "requests-file",
        value_name = "FILE",
        help_heading = "vidur-sweep"
    )]
    requests_file: Option<PathBuf>,

    /// Take operator times from here instead of fitting profiles: CSV with columns
    /// op, f0, f1, ms
    #[arg(
        long = "predictions_file",
        alias = "predictions-file",
        value_name = "FILE",
        help_heading = "vidur-sweep"
    )]
    predictions_file: Option<PathBuf>,

    /// Take stage times from here, as recorded: CSV with columns replica_id, stage_id,
    /// execution_time, and nth_batch or batch_id
    #[arg(
        long = "execution_times_file",
        alias = "execution-times-file",
        value_name = "FILE",
        conflicts_with = "predictions_file",
        help_heading = "vidur-sweep"
    )]
    execution_times_file: Option<PathBuf>,

    /// Folder of profiles, a Vidur checkout's data/profiling [default: ./data/profiling]
    #[arg(
        long = "profiling_dir",
        alias = "profiling-dir",
        value_name = "DIR",
        help_heading = "vidur-sweep"
    )]
    profiling_dir: Option<PathBuf>,

    /// Refuse to run where a profile or trace is not there, instead of using measured
    /// operators or a built-in histogram in its place
    #[arg(
        long = "strict-files",
        alias = "strict_files",
        help_heading = "vidur-sweep"
    )]
    strict_files: bool,

    /// Run an installed SimAI for collectives: bin/SimAI_simulator below
    /// --random_forrest_execution_time_predictor_config_simai_dir, with backend
    /// simai_simulation
    #[arg(
        long = "use-simai-binary",
        alias = "use_simai_binary",
        help_heading = "vidur-sweep"
    )]
    use_simai_binary: bool,

    /// Have an installed AICB measure the files that are missing: aicb/ below
    /// --random_forrest_execution_time_predictor_config_simai_dir, with backend aicb;
    /// it needs the GPU
    #[arg(long = "use-aicb", alias = "use_aicb", help_heading = "vidur-sweep")]
    use_aicb: bool,

    /// How long an installed SimAI or AICB may take for one answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIME_LIMIT_S,
          value_parser = whole(1..=u32::MAX), allow_negative_numbers = true, help_heading = "vidur-sweep")]
    program_time_limit: u32,

    /// What to do where weights and KV cache do not fit
    #[arg(
        long = "memory-check",
        alias = "memory_check",
        value_enum,
        default_value = "warn",
        value_name = "HOW",
        help_heading = "vidur-sweep"
    )]
    memory_check: MemoryCheckArg,

    /// How to print the result
    #[arg(long, value_enum, default_value_t, help_heading = "vidur-sweep")]
    format: Format,

    /// Print the result and errors, nothing else
    #[arg(long, short, help_heading = "vidur-sweep")]
    quiet: bool,

    #[command(flatten)]
    flags: Flags,
}

/// The original to behave as.
#[derive(Clone, Copy, ValueEnum)]
enum CompatArg {
    /// Microsoft Vidur
    Vidur,
    /// Vidur-AlibabaCloud, as of SimAI 1.7
    VidurAlibabacloud,
    /// Vidur-AlibabaCloud, as of SimAI 1.5
    #[value(name = "vidur-alibabacloud-1.5")]
    VidurAlibabacloud15,
}

impl From<CompatArg> for Compat {
    fn from(original: CompatArg) -> Self {
        match original {
            CompatArg::Vidur => Self::Vidur,
            CompatArg::VidurAlibabacloud => Self::VidurAlibabaCloud,
            CompatArg::VidurAlibabacloud15 => Self::VidurAlibabaCloud15,
        }
    }
}

/// What to do where a deployment does not fit.
#[derive(Clone, Copy, ValueEnum)]
enum MemoryCheckArg {
    /// Show the arithmetic and the smallest change that would fit, and go on
    Warn,
    /// Refuse
    Refuse,
}

/// How a result is printed.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// Sentences and a table, for people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// Names and figures, one line each.
    Csv,
}

/// The original's flags.
struct Flags(ArgMatches);

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        Settings::augment(command)
    }
    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let mut settings = Settings::default();
    if let Some(config) = &args.config {
        settings.take_config(config).map_err(CliError::BadInput)?;
    }
    settings.take(&args.flags.0);
    let options = Options {
        compat: args.compat.map_or(Compat::None, Compat::from),
        requests_file: args.requests_file.clone(),
        predictions_file: args.predictions_file.clone(),
        execution_times_file: args.execution_times_file.clone(),
        profiling_dir: args.profiling_dir.clone(),
        strict_files: args.strict_files,
        use_simai_binary: args.use_simai_binary,
        use_aicb: args.use_aicb,
        program_time_limit_s: args.program_time_limit,
        memory_check: match args.memory_check {
            MemoryCheckArg::Warn => MemoryCheck::Warn,
            MemoryCheckArg::Refuse => MemoryCheck::Refuse,
        },
    };
    if args.use_aicb || args.use_simai_binary {
        end_on_signals()?;
    }
    let started = Instant::now();
    let prepared =
        prepare(&settings, &options).map_err(|error| CliError::BadInput(error.to_string()))?;
    if !args.quiet {
        prepared.notes.iter().for_each(|note| say!("note: {note}"));
    }
    // First, so that no long simulation ends in a folder that cannot be made.
    let dir = output_dir(&settings)?;
    let failure = |error| CliError::Failure(format!("{}: {error}", dir.display()));
    let prepared_s = started.elapsed().as_secs_f64();
    let outcome = prepared.run();
    let simulated_s = started.elapsed().as_secs_f64() - prepared_s;
    prepared.write(&outcome, &dir).map_err(failure)?;
    args.say(&prepared, &outcome, &dir)?;
    if !args.quiet {
        let written_s = started.elapsed().as_secs_f64() - prepared_s - simulated_s;
        say!(
            "prepared in {prepared_s:.2} s, simulated in {simulated_s:.3} s, written in \
             {written_s:.2} s: {}",
            dir.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a folder named after the local time, as the original names it. It is nobody
/// else's, whoever starts in the same microsecond.
fn output_dir(settings: &Settings) -> Result<PathBuf, CliError> {
    let parent = Path::new(settings.text("metrics_config_output_dir"));
    let failure = |path: &Path, error: std::io::Error| {
        CliError::Failure(format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(parent).map_err(|error| failure(parent, error))?;
    loop {
        let now = chrono::Local::now().format("%Y-%m-%d_%H-%M-%S-%6f");
        let dir = parent.join(now.to_string());
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failure(&dir, error)),
        }
    }
}

impl Args {
    fn say(&self, prepared: &Prepared, outcome: &Outcome, dir: &Path) -> Result<(), CliError> {
        if !self.quiet {
            for warning in &outcome.warnings {
                say!("warning: {warning}");
            }
        }
        if let Some(warning) = &outcome.result.reason {
            say!("warning: does not fit: {warning}");
        }
        for problem in &outcome.problems {
            say!("warning: {problem}");
        }
        let mut figures = outcome.figures();
        match self.format {
            Format::Table => {
                if let Some(summary) = &outcome.result.summary {
                    let (title, mfu) = (title(prepared), outcome.result.mfu);
                    let mut text = simulation_text(&title, summary, mfu, output_width());
                    let assumptions = outcome.result.assumptions.as_ref();
                    let sentences = assumptions.map_or("", |found| &found.sentences);
                    if !sentences.is_empty() {
                        let told = format!("What these figures assume:\n{sentences}");
                        text += &wrapped(&told.replace('\n', "\n  "), output_width());
                    }
                    print_text(&text)?;
                }
            }
            Format::Json => {
                figures.insert("output_dir".to_owned(), dir.display().to_string().into());
                figures.insert("problems".to_owned(), outcome.problems.clone().into());
                let json = format!("{:#}\n", serde_json::Value::Object(figures));
                print_data(json.as_bytes())?;
            }
            Format::Csv => {
                let mut csv = "figure,value\n".to_owned();
                for (name, value) in figures {
                    let value = match value.is_null() {
                        true => String::new(),
                        false => value.to_string(),
                    };
                    csv += &format!("{name},{value}\n");
                }
                print_data(csv.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// Model, device, how it is cut and scheduled.
fn title(prepared: &Prepared) -> String {
    let config = &prepared.config;
    let label = |value: serde_json::Result<serde_json::Value>| {
        value.map_or_else(|_| String::new(), |value| value_label(&value))
    };
    format!(
        "{} on {}, tensor parallel {}, pipeline parallel {}, replicas {}; {}, {}; prices: {}",
        config.model,
        config.device,
        config.tensor_parallel,
        config.pipeline_parallel,
        config.replicas,
        label(serde_json::to_value(config.global_scheduler)),
        label(serde_json::to_value(&config.replica_scheduler)),
        label(serde_json::to_value(config.backend)),
    )
}
