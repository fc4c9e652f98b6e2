//! `vidur-sweep completions`.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory;

use super::CliResult;

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
    clap_complete::generate(args.shell, &mut command, "vidur-sweep", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
