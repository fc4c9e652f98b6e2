//! The command line: one file per command, each a clap `Args` struct and a
//! `run` function that calls the library and prints.

use std::process::ExitCode;

mod catalog;
mod completions;
mod explain;
mod pareto;
mod plan;
mod profiles;
mod report;
mod run;
mod schema;
mod validate;

use clap::{Parser, Subcommand};

/// Everything a command may end with besides success.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Bad input: exit code 2. The message is complete.
    #[error("{0}")]
    BadInput(String),
    /// Something that should not fail did (disk full, ...): exit code 1.
    #[error("{0}")]
    Failure(String),
}

/// Result of a command: the exit code to end with.
pub type CliResult = Result<ExitCode, CliError>;

#[derive(Parser)]
#[command(name = "vidur-sweep", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Validate(validate::Args),
    Pareto(pareto::Args),
    Report(report::Args),
    Explain(explain::Args),
    Catalog(catalog::Args),
    Profiles(profiles::Args),
    Schema(schema::Args),
    Completions(completions::Args),
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Pareto(args) => pareto::run(args),
        Command::Report(args) => report::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Catalog(args) => catalog::run(args),
        Command::Profiles(args) => profiles::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                CliError::BadInput(_) => ExitCode::from(2),
                CliError::Failure(_) => ExitCode::FAILURE,
            }
        }
    }
}
