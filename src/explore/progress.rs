//! The progress bar of a sweep, one observer of its events.
//!
//! Silent where nobody watches: it draws on standard error, and only if that
//! is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::executor::{Event, Observer};
use super::order::Order;
use super::remaining::Remaining;
use crate::number::whole_u64;
use crate::results::{RunIndices, RunStatus};

/// Fits a terminal of 80 columns: what is longest goes last and is cut.
const TEMPLATE: &str = "{bar:20} {human_pos}/{human_len} runs, {msg}";

/// Redraws per second.
const REFRESH_HZ: u8 = 8;
/// New messages per second, at most: making one looks at every part of the sweep.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(125);

/// Shows runs done, infeasible and failed, rate, and time left.
pub struct Progress {
    bar: ProgressBar,
    indices: RunIndices,
    remaining: Remaining,
    started: Instant,
    said: Instant,
    finished: u64,
    infeasible: u64,
    failed: u64,
}

impl Progress {
    /// A bar over these runs, of which at most `samples` are taken from all over first
    /// and some were completed before; nothing at all if `hidden` or if standard error is not a terminal.
    pub fn new(
        indices: RunIndices,
        samples: u64,
        completed: &dyn Fn(u64) -> bool,
        hidden: bool,
    ) -> Self {
        let target = if hidden {
            ProgressDrawTarget::hidden()
        } else {
            // Hides itself when standard error is not a terminal.
            ProgressDrawTarget::stderr_with_hz(REFRESH_HZ)
        };
        let bar = ProgressBar::with_draw_target(Some(indices.count), target).with_style(style());
        let mut remaining = Remaining::new(Order::new(indices.count, samples));
        if !bar.is_hidden() {
            for slot in (0..indices.count).filter(|slot| completed(indices.index(*slot))) {
                remaining.done_before(slot);
                bar.inc(1);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        let now = Instant::now();
        let mut progress = Self {
            bar,
            indices,
            remaining,
            started: now,
            said: now,
            finished: 0,
            infeasible: 0,
            failed: 0,
        };
        progress.say(now);
        progress
    }

    /// `12/s, 3 min left; 4 infeasible`.
    fn say(&mut self, now: Instant) {
        self.said = now;
        let elapsed_s = now.duration_since(self.started).as_secs_f64();
        let mut parts = Vec::new();
        if let Some(left_s) = self.remaining.time_s(elapsed_s) {
            parts.push(format!("{}/s", rounded(self.finished as f64 / elapsed_s)));
            parts.push(format!("{} left", duration(left_s)));
        }
        for (count, what) in [(self.infeasible, "infeasible"), (self.failed, "failed")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        self.bar.set_message(parts.join(", "));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn done(&mut self, index: u64, busy_s: f64) {
        if let Some(slot) = self.indices.slot(index) {
            self.remaining.done(slot, busy_s);
        }
    }
}

/// Two digits of a rate.
fn rounded(rate: f64) -> String {
    match rate {
        r if r >= 99.5 => {
            let unit = 10f64.powf(r.log10().floor() - 1.0);
            format!("{:.0}", (r / unit).round() * unit)
        }
        r if r >= 9.95 => format!("{r:.0}"),
        r => format!("{r:.1}"),
    }
}

/// A time in the two units a person would say it in.
pub fn duration(time_s: f64) -> String {
    let (whole_s, minute, hour, day) = (whole_u64(time_s.round()), 60, 3600, 86_400);
    match whole_s {
        0 => "a second".to_owned(),
        s if s < minute => format!("{s} s"),
        s if s < hour => format!("{} min {} s", s / minute, s % minute),
        s if s < day => format!("{} h {} min", s / hour, s % hour / minute),
        s => format!("{} days {} h", s / day, s % day / hour),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Observer for Progress {
    fn observe(&mut self, event: &Event) {
        if self.bar.is_hidden() {
            return;
        }
        match event {
            Event::Excluded(indices) => {
                for index in indices {
                    self.done(*index, 0.0);
                }
                self.bar.inc(indices.len() as u64);
            }
            Event::Finished(result) => {
                self.done(result.index, result.wall_time_s);
                self.finished += 1;
                match result.status {
                    RunStatus::Infeasible => self.infeasible += 1,
                    RunStatus::Failed => self.failed += 1,
                    RunStatus::Ok => {}
                }
                self.bar.inc(1);
            }
        }
        let now = Instant::now();
        if now.duration_since(self.said) >= MESSAGE_INTERVAL {
            self.say(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_and_hidden_bars_stay_hidden() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let progress = Progress::new(RunIndices::all(10), 0, &|_| false, true);
        assert!(progress.bar.is_hidden());
    }

    #[test]
    fn rates_have_two_digits_and_times_two_units() {
        for (rate, said) in [
            (0.04, "0.0"),
            (1.26, "1.3"),
            (12.4, "12"),
            (1548.36, "1500"),
        ] {
            assert_eq!(rounded(rate), said);
        }
        for (time_s, said) in [
            (0.2, "a second"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (3_725.0, "1 h 2 min"),
            (200_000.0, "2 days 7 h"),
        ] {
            assert_eq!(duration(time_s), said);
        }
    }
}
