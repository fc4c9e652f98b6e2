//! `vidur-sweep`: parse arguments, call the library, print, exit.

use std::process::ExitCode;

/// Workers allocate and free on different threads all the time, which the
/// system's allocator serialises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vidur_sweep::cli::main()
}
