//! The progress bar of a sweep, one observer of its events.
//!
//! Silent where nobody watches: it draws on standard error, and only if that
//! is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::executor::{Event, Observer};
use crate::results::RunStatus;

const TEMPLATE: &str = "{bar:32} {human_pos}/{human_len} runs ({msg}), {per_sec}, {eta} left";

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
        let progress = Self {
            bar,
            infeasible: 0,
            failed: 0,
        };
        progress.bar.set_message(progress.counts());
        progress
    }

    fn counts(&self) -> String {
        format!("{} infeasible, {} failed", self.infeasible, self.failed)
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Progress {
    fn observe(&mut self, event: &Event) {
        let status = match event {
            Event::Excluded(indices) => return self.bar.inc(indices.len() as u64),
            Event::Finished(result) => result.status,
        };
        match status {
            RunStatus::Infeasible => self.infeasible += 1,
            RunStatus::Failed => self.failed += 1,
            RunStatus::Ok => {}
        }
        if status != RunStatus::Ok {
            self.bar.set_message(self.counts());
        }
        self.bar.inc(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_and_hidden_bars_stay_hidden() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        assert!(Progress::new(10, 0, true).bar.is_hidden());
    }
}
