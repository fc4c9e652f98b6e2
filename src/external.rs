//! Other programs this one runs, as installed simulators and profilers: only with
//! leave, in a process group of their own, and not for ever.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::input_file::shown;

/// Leave to run other programs. A specification cannot give it: it may come from
/// anybody. Only somebody at the command line can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowPrograms {
    /// How long one may run.
    pub time_limit: Duration,
}

/// How long a program may run unless told otherwise. A simulation of a few thousand
/// GPUs and a profiling run take minutes.
pub const TIME_LIMIT_S: u32 = 1800;

impl AllowPrograms {
    /// Leave because an option of the command line says so.
    pub const fn by_option(time_limit_s: u32) -> Self {
        Self {
            time_limit: Duration::from_secs(time_limit_s as u64),
        }
    }
}

/// How a program has ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself.
    Exited {
        /// How.
        status: ExitStatus,
        /// What it said last on standard error; empty if it said nothing.
        last_words: String,
    },
    /// It ran past its limit and was ended.
    TimedOut(Duration),
}

impl Ending {
    /// What went wrong; none if nothing did.
    pub(crate) fn failure(&self) -> Option<String> {
        match self {
            Self::Exited { status, .. } if status.success() => None,
            Self::Exited { status, last_words } if last_words.is_empty() => {
                Some(status.to_string())
            }
            Self::Exited { status, last_words } => Some(format!("{status}: {last_words}")),
            Self::TimedOut(limit) => Some(format!(
                "ended after its time limit of {} s",
                limit.as_secs()
            )),
        }
    }
}

/// How often a running program is looked after, at first and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Most bytes kept of what a program says.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// Process groups that run now.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    // A panic elsewhere leaves the set whole.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every program that runs now, for this one is about to end.
pub(crate) fn end_all() {
    for &group in running().iter() {
        end_group(group);
    }
}

/// Runs a program to its end or its limit. It reads nothing, and what it says goes
/// nowhere but into [`Ending`].
///
/// # Errors
/// If it cannot be started or watched.
pub(crate) fn run(command: &mut Command, leave: AllowPrograms) -> io::Result<Ending> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    in_own_group(command);
    let started = Instant::now();
    let mut child = command.spawn()?;
    running().insert(child.id());
    let ending = watch(&mut child, started, leave.time_limit);
    // Also those it started and left behind.
    end_group(child.id());
    running().remove(&child.id());
    ending
}

fn watch(child: &mut Child, started: Instant, limit: Duration) -> io::Result<Ending> {
    let said = child.stderr.take();
    let listener = thread::spawn(move || said.map(last_words).unwrap_or_default());
    let (mut pause, longest_pause) = LOOKS;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() >= limit {
            break None;
        }
        thread::sleep(pause.min(limit.saturating_sub(started.elapsed())));
        pause = (pause * 2).min(longest_pause);
    };
    end_group(child.id());
    let Some(status) = status else {
        child.kill()?;
        child.wait()?;
        return Ok(Ending::TimedOut(limit));
    };
    // The group is gone and with it whoever could still say something.
    let last_words = listener.join().unwrap_or_default();
    Ok(Ending::Exited { status, last_words })
}

/// Reads all a program says and keeps its last line.
fn last_words(mut said: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = said.read(&mut piece) {
        kept.extend_from_slice(&piece[..length]);
        let surplus = kept.len().saturating_sub(WORDS_BYTES_MAX);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    last.map_or_else(String::new, |line| shown(line.trim()))
}

/// What it starts in turn is ended with it.
#[cfg(unix)]
fn in_own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
}

#[cfg(not(unix))]
fn in_own_group(_: &mut Command) {}

#[cfg(unix)]
fn end_group(leader: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};

    let group = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn end_group(_: u32) {}
