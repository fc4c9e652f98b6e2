//! What a workload amounts to before a request is drawn: how many requests, from
//! which rows of which files, at which times, and what of it a person should know.
//!
//! Everything that can be wrong with a workload, but for what chance makes of it, is
//! found here, so that whoever looks at it without running it says what a run would.

use std::ops::Range;
use std::sync::Arc;

use super::generate::shaped;
use super::limits::{self, MOST_TOKENS, check_lengths, check_rate, check_requests};
use super::read_files::{Loaded, Sources};
use super::trace::TraceFile;
use super::{
    ArrivalsConfig, LengthHistogram, Lengths, LengthsConfig, Trace, TraceOrder, WorkloadConfig,
    WorkloadError,
};

/// Requests where nobody says how many and no trace has as many rows.
pub(super) const DEFAULT_REQUESTS: u32 = 1000;

/// What the arrival times of a workload mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Timing {
    /// One request per second on average, to be scaled.
    UnitRate,
    /// As [`Self::UnitRate`]; without a rate, all requests at time zero.
    UnitRateOrAtOnce,
    /// As recorded, times a factor.
    Recorded {
        /// The last arrival that is used, counted from the first, before the factor.
        last_s: f64,
        /// The factor.
        scale: f64,
    },
    /// Requests come when others end.
    ClosedLoop,
}

impl Timing {
    /// Factor on the times of `requests` requests that are to come at `qps` requests
    /// per second.
    ///
    /// # Errors
    /// If they cannot, or if they come later than a simulation can tell.
    pub(super) fn factor(self, requests: u32, qps: Option<f64>) -> Result<f64, WorkloadError> {
        match (self, qps) {
            (Self::ClosedLoop, _) | (Self::UnitRateOrAtOnce, None) => Ok(0.0),
            (_, Some(qps)) if !(qps > 0.0 && qps.is_finite()) => {
                Err(WorkloadError::value("qps", qps, "a number greater than 0"))
            }
            (Self::UnitRate, None) => {
                let message = "is missing: random arrivals need a rate";
                Err(WorkloadError::new(message).at_key("qps"))
            }
            (Self::UnitRate | Self::UnitRateOrAtOnce, Some(qps)) => {
                check_rate(requests, qps)?;
                Ok(qps.recip())
            }
            (Self::Recorded { last_s, scale }, None) => {
                let key = match scale == 1.0 {
                    true => "workload.arrivals.file",
                    false => "workload.arrivals.time_scale_factor",
                };
                limits::check_arrival(last_s * scale).map_err(|error| error.at_key(key))?;
                Ok(scale)
            }
            (Self::Recorded { scale, .. }, Some(qps)) if scale != 1.0 => {
                let message = format!(
                    "value `{scale}` sets the rate of a trace, and so does `qps` ({qps}): leave \
                     one out"
                );
                Err(WorkloadError::new(message).at_key("workload.arrivals.time_scale_factor"))
            }
            (Self::Recorded { last_s, .. }, Some(_)) if last_s <= 0.0 => {
                let message = format!(
                    "all {requests} requests arrive at the same time, which no factor turns into a \
                     rate: leave it out, or take other arrivals than a trace's"
                );
                Err(WorkloadError::new(message).at_key("qps"))
            }
            (Self::Recorded { last_s, .. }, Some(qps)) => {
                check_rate(requests, qps)?;
                Ok(f64::from(requests - 1) / last_s / qps)
            }
        }
    }
}

/// Where lengths come from.
pub(super) enum LengthSource {
    /// A distribution of the configuration.
    Drawn,
    /// Rows of a trace.
    Rows {
        /// The trace.
        file: Arc<Loaded<TraceFile>>,
        /// The rows that are used.
        rows: Range<usize>,
    },
    /// A histogram.
    Histogram(Arc<Loaded<TraceFile>>),
}

/// Arrival times of a trace.
pub(super) struct RecordedArrivals {
    file: Arc<Loaded<TraceFile>>,
    /// The rows within the window.
    rows: Range<usize>,
}

impl RecordedArrivals {
    fn trace(&self) -> Result<&Trace, WorkloadError> {
        self.file.data.trace()
    }

    /// Time of the `index`-th request since the first; after the last row the recording
    /// starts again, one mean gap later.
    fn time_s(times_s: &[f64], index: usize) -> f64 {
        let (first_s, count) = (times_s[0], times_s.len());
        let last_s = times_s[count - 1] - first_s;
        let period_s = last_s + last_s / (count - 1).max(1) as f64;
        (index / count) as f64 * period_s + (times_s[index % count] - first_s)
    }

    fn rows_s(&self) -> Result<&[f64], WorkloadError> {
        Ok(&self.trace()?.times_s()?[self.rows.clone()])
    }

    /// Times of all requests since the first.
    pub(super) fn times_s(
        &self,
    ) -> Result<impl Iterator<Item = f64> + Send + use<>, WorkloadError> {
        let times_s = self.rows_s()?.to_vec();
        Ok((0..).map(move |index| Self::time_s(&times_s, index)))
    }
}

/// A workload before it is drawn.
pub(super) struct Outline {
    pub(super) requests: u32,
    pub(super) lengths: LengthSource,
    pub(super) arrivals: Option<RecordedArrivals>,
    pub(super) timing: Timing,
    /// What a person should know of every run with this workload.
    pub(super) run_notes: Vec<String>,
    /// What a person should know once of all runs that use these files.
    pub(super) file_notes: Vec<String>,
}

impl Outline {
    /// What `config` amounts to; reads its files.
    pub(super) fn of(config: &WorkloadConfig, sources: &Sources) -> Result<Self, WorkloadError> {
        let arrivals = recorded_arrivals(&config.arrivals, sources)?;
        let (lengths, is_paired) = length_source(&config.lengths, arrivals.as_ref(), sources)?;
        let rows_of_lengths = match &lengths {
            LengthSource::Rows { rows, .. } => Some(rows.len()),
            LengthSource::Drawn | LengthSource::Histogram(_) => None,
        };
        let rows_of_arrivals = arrivals.as_ref().map(|arrivals| arrivals.rows.len());
        let requests = match (config.requests, rows_of_arrivals.or(rows_of_lengths)) {
            (Some(requests), _) => u64::from(requests),
            (None, Some(rows)) => rows as u64,
            (None, None) => u64::from(DEFAULT_REQUESTS),
        };
        let requests =
            check_requests(requests).map_err(|error| error.at_key("workload.requests"))?;
        let timing = timing(&config.arrivals, arrivals.as_ref(), requests)?;
        let mut outline = Self {
            requests,
            lengths,
            arrivals,
            timing,
            run_notes: Vec::new(),
            file_notes: Vec::new(),
        };
        outline
            .check_lengths(&config.lengths)
            .map_err(|error| match &config.lengths {
                LengthsConfig::Trace { file, .. } | LengthsConfig::Histogram { file, .. } => {
                    error.about(file).at_key("workload.lengths.file")
                }
                _ => error,
            })?;
        outline.note(config, is_paired);
        Ok(outline)
    }

    /// Refuses lengths beyond what a request may have, as far as they are known: fixed
    /// ones, and those of a trace.
    fn check_lengths(&self, config: &LengthsConfig) -> Result<(), WorkloadError> {
        match (&self.lengths, config) {
            (
                LengthSource::Drawn,
                LengthsConfig::Fixed {
                    prefill_tokens,
                    decode_tokens,
                },
            ) => check_lengths(Lengths {
                prefill_tokens: *prefill_tokens,
                decode_tokens: *decode_tokens,
            })
            .map(drop)
            .map_err(|error| {
                error.at_key(match prefill_tokens < decode_tokens {
                    true => "workload.lengths.decode_tokens",
                    false => "workload.lengths.prefill_tokens",
                })
            }),
            (LengthSource::Drawn, _) => Ok(()),
            (LengthSource::Rows { file, rows }, _) => {
                // Whoever tries many configurations does not look at every row each time.
                let longest = file.data.trace()?.longest;
                if check_lengths(shaped(config, longest)).is_ok() {
                    return Ok(());
                }
                let lengths = &file.data.lengths().unwrap_or_default()[rows.clone()];
                lengths
                    .iter()
                    .try_for_each(|row| check_lengths(shaped(config, *row)).map(drop))
            }
            (LengthSource::Histogram(file), _) => {
                let longest = file.data.histogram().map(LengthHistogram::longest);
                longest.map_or(Ok(()), |l| check_lengths(shaped(config, l)).map(drop))
            }
        }
    }

    /// Tokens of the longest request there can be, prompt and output together.
    pub(super) fn longest_tokens(&self, config: &LengthsConfig) -> u64 {
        let sum = |l: Lengths| u64::from(l.prefill_tokens) + u64::from(l.decode_tokens);
        let most = u64::from(MOST_TOKENS);
        match (&self.lengths, config) {
            (LengthSource::Rows { file, rows }, _) => {
                let lengths = file.data.lengths().unwrap_or_default();
                let rows = lengths.get(rows.clone()).unwrap_or_default().iter();
                rows.map(|row| sum(shaped(config, *row))).max().unwrap_or(0)
            }
            (LengthSource::Histogram(file), LengthsConfig::Histogram { max_tokens, .. }) => {
                let longest = file.data.histogram().map(LengthHistogram::longest);
                let limit = max_tokens.map_or(most, u64::from);
                longest.map_or(0, sum).min(limit)
            }
            (LengthSource::Histogram(file), _) => {
                let longest = file.data.histogram().map(LengthHistogram::longest);
                longest.map_or(0, |longest| sum(shaped(config, longest)))
            }
            (
                LengthSource::Drawn,
                LengthsConfig::Fixed {
                    prefill_tokens,
                    decode_tokens,
                },
            ) => u64::from(*prefill_tokens) + u64::from(*decode_tokens),
            (
                LengthSource::Drawn,
                LengthsConfig::Uniform { max_tokens, .. } | LengthsConfig::Zipf { max_tokens, .. },
            ) => u64::from(*max_tokens),
            (
                LengthSource::Drawn,
                LengthsConfig::Lognormal { max_tokens, .. }
                | LengthsConfig::Exponential { max_tokens, .. },
            ) => max_tokens.map_or(most, u64::from),
            (
                LengthSource::Drawn,
                LengthsConfig::Trace { .. } | LengthsConfig::Histogram { .. },
            ) => most,
        }
    }

    fn note(&mut self, config: &WorkloadConfig, is_paired: bool) {
        let requests = self.requests as usize;
        let mut repeats = |what: &str, trace: Option<&Trace>, rows: usize| {
            if let Some(trace) = trace.filter(|_| rows < requests) {
                self.run_notes.push(format!(
                    "{}: {rows} rows for {requests} requests: after the last row {what} again",
                    trace.name.display()
                ));
            }
        };
        let of_arrivals = self.arrivals.as_ref().map(|arrivals| {
            let trace = arrivals.file.data.trace().ok();
            (trace, arrivals.rows.len())
        });
        let of_lengths = match &self.lengths {
            LengthSource::Rows { file, rows } => Some((file.data.trace().ok(), rows.len())),
            LengthSource::Drawn | LengthSource::Histogram(_) => None,
        };
        match (of_arrivals, of_lengths) {
            (Some((trace, rows)), Some(_)) if is_paired => {
                repeats("the trace starts", trace, rows);
            }
            (arrivals, lengths) => {
                if let Some((trace, rows)) = arrivals {
                    repeats("its arrival times start", trace, rows);
                }
                if let Some((trace, rows)) = lengths {
                    repeats("its lengths are used", trace, rows);
                }
            }
        }
        let both = [of_arrivals, of_lengths].map(|of| of.and_then(|(trace, _)| trace));
        for trace in both.into_iter().flatten() {
            for note in &trace.notes {
                let note = format!("{}: {note}", trace.name.display());
                if !self.file_notes.contains(&note) {
                    self.file_notes.push(note);
                }
            }
        }
        if let (
            true,
            LengthsConfig::Trace {
                order: TraceOrder::Shuffled,
                file,
                ..
            },
        ) = (is_paired, &config.lengths)
        {
            self.file_notes.push(format!(
                "{}: lengths are shuffled against the arrival times of the same rows; \
                 `order: recorded` keeps them together",
                file.display()
            ));
        }
    }
}

fn recorded_arrivals(
    config: &ArrivalsConfig,
    sources: &Sources,
) -> Result<Option<RecordedArrivals>, WorkloadError> {
    let ArrivalsConfig::Trace {
        file,
        start_time,
        end_time,
        time_unit,
        ..
    } = config
    else {
        return Ok(None);
    };
    let at_file = |error: WorkloadError| error.at_key("workload.arrivals.file");
    let file = sources.trace(file, *time_unit).map_err(at_file)?;
    let trace = file.data.trace().map_err(at_file)?;
    let rows = trace.window(start_time.as_deref(), end_time.as_deref())?;
    Ok(Some(RecordedArrivals { file, rows }))
}

/// Where lengths come from, and whether they are of the same rows as the arrivals: a
/// window of those is a window of both.
fn length_source(
    config: &LengthsConfig,
    arrivals: Option<&RecordedArrivals>,
    sources: &Sources,
) -> Result<(LengthSource, bool), WorkloadError> {
    let (LengthsConfig::Trace { file, .. } | LengthsConfig::Histogram { file, .. }) = config else {
        return Ok((LengthSource::Drawn, false));
    };
    let loaded = (sources.lengths(file)).map_err(|error| error.at_key("workload.lengths.file"))?;
    match (&loaded.data, config) {
        (TraceFile::Histogram(_), _) => Ok((LengthSource::Histogram(loaded), false)),
        (TraceFile::Rows(_), LengthsConfig::Histogram { .. }) => {
            let message = "is a trace, not a length histogram: use `type: trace`";
            Err(WorkloadError::in_file(file, message).at_key("workload.lengths.type"))
        }
        (TraceFile::Rows(trace), _) => {
            let same = arrivals.filter(|other| other.file.fingerprint == loaded.fingerprint);
            let rows = match same {
                Some(arrivals) => arrivals.rows.clone(),
                None => 0..trace.num_rows(),
            };
            let source = LengthSource::Rows { file: loaded, rows };
            Ok((source, same.is_some()))
        }
    }
}

fn timing(
    config: &ArrivalsConfig,
    arrivals: Option<&RecordedArrivals>,
    requests: u32,
) -> Result<Timing, WorkloadError> {
    match (config, arrivals) {
        (
            ArrivalsConfig::Trace {
                time_scale_factor, ..
            },
            Some(arrivals),
        ) => {
            let time_s = |index| {
                arrivals
                    .rows_s()
                    .map(|rows| RecordedArrivals::time_s(rows, index))
            };
            let rows = arrivals.rows.len();
            if requests as usize > rows && time_s(rows - 1)? <= 0.0 {
                let trace = arrivals.trace()?;
                let message = format!(
                    "all {rows} rows have the same time, so nobody knows when they would come \
                     again for {requests} requests: set `requests` to at most {rows}, or take \
                     other arrivals than a trace's"
                );
                return Err(
                    WorkloadError::in_file(&trace.name, message).at_key("workload.requests")
                );
            }
            Ok(Timing::Recorded {
                last_s: time_s(requests as usize - 1)?,
                scale: *time_scale_factor,
            })
        }
        (ArrivalsConfig::Static, _) => Ok(Timing::UnitRateOrAtOnce),
        (ArrivalsConfig::Concurrency { .. }, _) => Ok(Timing::ClosedLoop),
        _ => Ok(Timing::UnitRate),
    }
}

impl TraceFile {
    /// The trace.
    ///
    /// # Errors
    /// If it is a histogram.
    pub(super) fn trace(&self) -> Result<&Trace, WorkloadError> {
        match self {
            Self::Rows(trace) => Ok(trace),
            Self::Histogram(_) => Err(WorkloadError::new(
                "a length histogram has no arrival times: use a trace",
            )),
        }
    }

    /// The lengths of a trace that has them.
    pub(super) fn lengths(&self) -> Option<&[Lengths]> {
        match self {
            Self::Rows(trace) => trace.lengths.as_deref(),
            Self::Histogram(_) => None,
        }
    }

    /// The histogram.
    pub(super) fn histogram(&self) -> Option<&LengthHistogram> {
        match self {
            Self::Rows(_) => None,
            Self::Histogram(histogram) => Some(histogram),
        }
    }
}
