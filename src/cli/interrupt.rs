//! Ctrl-C: once to end in order, twice to end at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::CliError;

/// Exit code of an interrupted command, as shells have it: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C sets the flag returned; the second time it ends the
/// process. What is on disk stays whole either way.
pub fn stop_on_interrupt() -> Result<&'static AtomicBool, CliError> {
    let handler = || {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nfinishing the runs in progress; Ctrl-C again to end at once");
    };
    ctrlc::set_handler(handler)
        .map_err(|error| CliError::Failure(format!("cannot catch Ctrl-C: {error}")))?;
    Ok(&STOP)
}
