//! `vidur-sweep completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use super::CliResult;
use super::output::print_data;

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidur-sweep completions bash > ~/.local/share/bash-completion/completions/vidur-sweep
  vidur-sweep completions zsh > ~/.zfunc/_vidur-sweep
  vidur-sweep completions fish > ~/.config/fish/completions/vidur-sweep.fish")]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    let mut command = super::Cli::command();
    // It panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "vidur-sweep", &mut script);
    print_data(&script)?;
    Ok(ExitCode::SUCCESS)
}
