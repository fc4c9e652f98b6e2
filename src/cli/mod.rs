//! The command line: one file per command, each a clap `Args` struct and a
//! `run` function that calls the library and prints.

use std::process::ExitCode;

mod capacity;
mod catalog;
mod completions;
mod error;
mod explain;
mod interrupt;
mod man;
mod merge;
mod network;
mod output;
mod pareto;
mod plan;
mod profiles;
mod report;
mod run;
mod schema;
mod session;
mod simulate;
mod sweep;
mod topology;
mod validate;
mod values;

use clap::{CommandFactory, Parser, Subcommand};

use error::BAD_INPUT;
pub use error::{CliError, CliResult};

#[derive(Parser)]
#[command(
    name = "vidur-sweep",
    version,
    about,
    long_about = "\
Which deployment of this model, on this hardware, under this load, meets my \
latency targets at the lowest cost? vidur-sweep answers by simulating every \
candidate: a YAML sweep expands to configurations, each one seeded \
discrete-event simulation of an LLM serving cluster, run on all cores; the \
results are kept in Parquet and the best deployments are printed.",
    after_long_help = "\
Examples:
  vidur-sweep run sweeps/smoke.yaml              simulate a small sweep
  vidur-sweep capacity sweeps/deepseek-capacity.yaml   how much load deployments hold
  vidur-sweep plan sweeps/deepseek.yaml          what a sweep would run, without running it
  vidur-sweep pareto results/deepseek            the frontier of a finished sweep
  vidur-sweep merge whole monday tuesday         what several machines did, united
  vidur-sweep simulate -h                        one simulation, with the flags of Vidur
  vidur-sweep catalog models                     what can be simulated

Exit codes:
  0    done
  1    some runs failed, or something outside (such as the disk) did
  2    bad input; the message says which file, key and value, and what is allowed
  3    no configuration meets the targets (only with --require-feasible)
  130  interrupted (129 by SIGHUP, 143 by SIGTERM); continue with --resume

Results go to standard output, everything else to standard error."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Simulate(Box<simulate::Args>),
    Capacity(capacity::Args),
    Plan(plan::Args),
    Validate(validate::Args),
    Pareto(pareto::Args),
    Report(report::Args),
    Merge(merge::Args),
    Explain(Box<explain::Args>),
    Catalog(catalog::Args),
    Profiles(profiles::Args),
    Network(network::Args),
    Topology(topology::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// All commands with their options and help, for tests of what that says.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(told) => return tell(&told),
    };
    let result = match command {
        Command::Run(args) => run::run(args),
        Command::Simulate(args) => simulate::run(*args),
        Command::Capacity(args) => capacity::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Pareto(args) => pareto::run(args),
        Command::Report(args) => report::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Explain(args) => explain::run(*args),
        Command::Catalog(args) => catalog::run(args),
        Command::Profiles(args) => profiles::run(args),
        Command::Network(args) => network::run(args),
        Command::Topology(args) => topology::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::say_error(&error);
            match error {
                CliError::BadInput(_) => ExitCode::from(BAD_INPUT),
                CliError::Failure(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Help, the version, or what is wrong with the command line.
fn tell(told: &clap::Error) -> ExitCode {
    let printed = match told.use_stderr() {
        true => {
            // Whether anybody reads it does not matter.
            let _ = told.print();
            Ok(())
        }
        false => output::printed_by(|| told.print()),
    };
    match printed {
        Ok(()) => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(BAD_INPUT)),
        Err(error) => {
            output::say_error(&error);
            ExitCode::FAILURE
        }
    }
}
