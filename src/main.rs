//! `vidur-sweep`: parse arguments, call the library, print, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    vidur_sweep::cli::main()
}
