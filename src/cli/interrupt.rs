//! Signals that end a program: once to end in order, twice to end at once.
//!
//! Ctrl-C at a terminal, SIGTERM from a job scheduler, SIGHUP from a terminal that
//! goes away: what is done is kept, and the exit code says which it was.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::CliError;
use super::output::say;
use crate::external;
use crate::number::narrow;

/// What shells add to a signal's number for the exit code of what it ended.
const EXIT_CODE_OF_SIGNAL: u8 = 128;
const SIGINT: u8 = 2;

static STOP: AtomicBool = AtomicBool::new(false);
/// The first signal that came.
static SIGNAL: AtomicU8 = AtomicU8::new(SIGINT);

/// From now on such a signal sets the flag returned; the second one ends the
/// process. What is on disk stays whole either way.
pub fn stop_on_signals() -> Result<&'static AtomicBool, CliError> {
    listen().map_err(|error| CliError::Failure(format!("cannot catch signals: {error}")))?;
    Ok(&STOP)
}

/// From now on such a signal ends the process and the programs it has started, which
/// have a process group of their own and would go on.
pub fn end_on_signals() -> Result<(), CliError> {
    STOP.store(true, Ordering::SeqCst);
    stop_on_signals().map(|_| ())
}

/// Exit code of a command that a signal interrupted: 130 for Ctrl-C, 143 for
/// SIGTERM, 129 for SIGHUP.
pub fn exit_code() -> u8 {
    EXIT_CODE_OF_SIGNAL + SIGNAL.load(Ordering::SeqCst)
}

fn heard(signal: u8) {
    if STOP.load(Ordering::SeqCst) {
        external::end_all();
        std::process::exit(i32::from(EXIT_CODE_OF_SIGNAL + signal));
    }
    SIGNAL.store(signal, Ordering::SeqCst);
    STOP.store(true, Ordering::SeqCst);
    match signal {
        SIGINT => say!("\nfinishing the runs in progress; Ctrl-C again to end at once"),
        _ => say!("finishing the runs in progress; the signal again to end at once"),
    }
}

#[cfg(unix)]
fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut signals = vec![SIGINT, SIGTERM];
    // Whoever started this under nohup wants it to survive the terminal.
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                heard(u8::try_from(signal).unwrap_or(narrow::<u8, _>(SIGINT)));
            }
        })?;
    Ok(())
}

/// Whether the process was started with a signal ignored; as far as the system says.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| heard(SIGINT))
}
