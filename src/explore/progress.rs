//! The progress bar of a sweep, one consumer of its events.
//!
//! Silent where nobody watches: it draws on standard error, and only if that
//! is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::executor::{Consumer, Event};
use crate::results::RunStatus;

/// Redraws per second.
const REFRESH_HZ: u8 = 8;

/// Shows runs done, infeasible and failed, rate, and time left.
pub struct Progress {
    bar: ProgressBar,
    infeasible: u64,
    failed: u64,
}

impl Progress {
    /// A bar over `total` runs, of which `done` have results already; nothing
    /// at all if `hidden` or if standard error is not a terminal.
    pub fn new(total: u64, done: u64, hidden: bool) -> Self {
        let target = if hidden {
            ProgressDrawTarget::hidden()
        } else {
            // Hides itself when standard error is not a terminal.
            ProgressDrawTarget::stderr_with_hz(REFRESH_HZ)
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style());
        bar.set_position(done);
        // The rate and the time left are of this session's runs.
        bar.reset_eta();
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self {
            bar,
            infeasible: 0,
            failed: 0,
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:32} {human_pos}/{human_len} runs, {msg}{per_sec}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Consumer for Progress {
    fn consume(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Started { .. } => return Ok(()),
            Event::Excluded { .. } => {}
            Event::Finished(result) => match result.status {
                RunStatus::Ok => {}
                RunStatus::Infeasible => self.infeasible += 1,
                RunStatus::Failed => self.failed += 1,
            },
        }
        self.bar.set_message(counts(self.infeasible, self.failed));
        self.bar.inc(1);
        Ok(())
    }
}

/// What is unusual about the runs so far, ready to be followed by the rate.
fn counts(infeasible: u64, failed: u64) -> String {
    let mut text = String::new();
    for (count, word) in [(infeasible, "infeasible"), (failed, "failed")] {
        if count > 0 {
            text += &format!("{count} {word}, ");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only_what_happened() {
        assert_eq!(counts(0, 0), "");
        assert_eq!(counts(3, 0), "3 infeasible, ");
        assert_eq!(counts(3, 1), "3 infeasible, 1 failed, ");
    }

    #[test]
    fn the_template_is_valid_and_hidden_bars_stay_hidden() {
        let template = "{bar:32} {human_pos}/{human_len} runs, {msg}{per_sec}, {eta} left";
        assert!(ProgressStyle::with_template(template).is_ok());
        assert!(Progress::new(10, 0, true).bar.is_hidden());
    }
}
