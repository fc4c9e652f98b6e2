//! The only place that prints: results on standard output, everything else on
//! standard error.
//!
//! Whoever reads results may stop early (`| head`), which is no failure: the
//! command goes on quietly and ends with the exit code it would have had. A
//! standard output that cannot take them (a full disk) is one. Whether anybody
//! reads standard error never matters: no message stops a sweep.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

use super::CliError;
use crate::input_file::{steers, tame_line};
use crate::report::{LEAST_WIDTH, ReportFormat};

/// Prints a line to standard error, as `eprintln!` does, but whatever becomes of
/// it. What could steer a terminal is escaped: most messages quote files.
macro_rules! say {
    ($($message:tt)*) => {
        $crate::cli::output::say_line(format_args!($($message)*))
    };
}
pub(super) use say;

/// What [`say!`] does.
pub(super) fn say_line(message: Arguments<'_>) {
    let mut text = String::new();
    for line in message.to_string().split('\n') {
        text += &tame_line(line);
        text.push('\n');
    }
    // Nobody can be told that nobody can be told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says what a person should know of a sweep; whether anybody listens does not matter.
pub(super) fn tell_notes(notes: &[String]) {
    for note in notes {
        say!("note: {note}");
    }
}

/// Prints an error, each of its lines marked as one.
pub(super) fn say_error(error: &dyn Display) {
    for line in error.to_string().lines() {
        say!("error: {line}");
    }
}

/// Prints a text for people to standard output, with a line end if it has none.
/// What could steer a terminal is escaped, as in messages.
pub(super) fn print_text(text: &str) -> Result<(), CliError> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    print((tame(text) + end).as_bytes())
}

/// Prints JSON, CSV or what else programs read: into files and pipes as it is.
pub(super) fn print_data(data: &[u8]) -> Result<(), CliError> {
    match io::stdout().is_terminal() {
        true => print(tame(&String::from_utf8_lossy(data)).as_bytes()),
        false => print(data),
    }
}

/// As [`print_data`], from what `write` writes.
pub(super) fn print_data_with(
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> Result<(), CliError> {
    let mut data = Vec::new();
    write(&mut data).map_err(|error| CliError::Failure(error.to_string()))?;
    print_data(&data)
}

/// Prints what `write` writes: text for people, or data.
pub(super) fn print_as(
    format: ReportFormat,
    write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> Result<(), CliError> {
    if format != ReportFormat::Table {
        return print_data_with(write);
    }
    let mut text = Vec::new();
    write(&mut text).map_err(|error| CliError::Failure(error.to_string()))?;
    print_text(&String::from_utf8_lossy(&text))
}

fn print(content: &[u8]) -> Result<(), CliError> {
    printed_by(|| io::stdout().lock().write_all(content))
}

/// What became of something that prints to standard output by itself.
pub(super) fn printed_by(print: impl FnOnce() -> io::Result<()>) -> Result<(), CliError> {
    // What a full disk refuses shows only when it is flushed.
    match print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::Failure(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A text in which nothing but line ends does anything.
fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    for character in text.chars() {
        match character != '\n' && steers(character) {
            true => tame.extend(character.escape_default()),
            false => tame.push(character),
        }
    }
    tame
}

/// Characters per line where nobody says how many there are.
const UNKNOWN_WIDTH: usize = 120;
/// More are not used.
const MOST_WIDTH: usize = 10_000;

/// Characters of a line of standard output: what `COLUMNS` says, else the width of the
/// terminal, else what most windows hold.
pub(super) fn output_width() -> usize {
    let asked = std::env::var("COLUMNS").ok();
    let asked = asked.and_then(|columns| columns.trim().parse::<usize>().ok());
    let asked = asked.filter(|columns| *columns > 0);
    let width = asked.or_else(terminal_columns).filter(|width| *width > 0);
    width
        .unwrap_or(UNKNOWN_WIDTH)
        .clamp(LEAST_WIDTH, MOST_WIDTH)
}

/// Columns of the terminal that standard output is, if it is one.
#[cfg(unix)]
fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col))
}

/// Columns of the terminal that standard output is, if it is one.
#[cfg(not(unix))]
fn terminal_columns() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(width.0))
}

/// Writes a file that the user named; `-` is standard output.
pub(super) fn write_out(path: &Path, content: &[u8]) -> Result<(), CliError> {
    if path == Path::new("-") {
        return print_data(content);
    }
    crate::output_file::write_named(path, content)
        .map_err(|error| CliError::Failure(format!("{}: {error}", path.display())))
}
