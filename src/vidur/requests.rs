//! The requests of a run: from a file of requests, from the original's
//! generators draw for draw, or from ours with the same options.

use std::path::Path;

use super::Settings;
use super::flags::is_flag;
use crate::input_file::{self, InputKind, shown};
use crate::number::{narrow, whole_u32};
use crate::simulator::Compat;
use crate::workload::limits::{
    LATEST_ARRIVAL_S, MOST_REQUESTS, MOST_TOKENS, check_request, check_requests,
};
use crate::workload::vidur::{
    VidurGenerator, VidurIntervals, VidurLengths, VidurReplay, VidurUntil,
};
use crate::workload::{
    ArrivalsConfig, DataFiles, Lengths, LengthsConfig, Request, TraceOrder, Workload,
    WorkloadConfig, WorkloadError, WorkloadSource,
};

/// Traces of which a length histogram is built in: name of the file, histogram,
/// and what is known of its arrivals.
const BUILT_IN: [BuiltIn; 2] = [
    BuiltIn {
        trace: "splitwise_conv.csv",
        histogram: "data/traces/azure-conv-2023.csv",
        requests: 19_366,
        rate_per_s: 5.5301,
        cv: 1.0942,
    },
    BuiltIn {
        trace: "splitwise_code.csv",
        histogram: "data/traces/azure-code-2023.csv",
        requests: 8_819,
        rate_per_s: 2.5664,
        cv: 13.1513,
    },
];

struct BuiltIn {
    trace: &'static str,
    histogram: &'static str,
    requests: u32,
    rate_per_s: f64,
    cv: f64,
}

/// Requests, and how they came about.
pub(super) struct Requests {
    pub workload: Workload,
    /// The generators as a configuration.
    pub config: WorkloadConfig,
    /// Rate, requests per second, if the arrivals have one.
    pub qps: Option<f64>,
    /// Draws from Python's stream before the first routing decision.
    pub python_draws: u64,
    /// Seed of that stream.
    pub python_seed: u64,
    /// What was put in the place of something missing.
    pub notes: Vec<String>,
}

/// How [`requests`] goes about it.
pub(super) struct How<'a> {
    pub compat: Compat,
    pub requests_file: Option<&'a Path>,
    pub strict_files: bool,
}

/// The requests that `settings` ask for.
pub(super) fn requests(settings: &Settings, how: &How<'_>) -> Result<Requests, WorkloadError> {
    let mut notes = Vec::new();
    let files = DataFiles::default();
    let ours = Ours::new(settings, &files, how, &mut notes)?;
    let original = Original::new(settings);
    let mut workload = if let Some(file) = how.requests_file {
        notes.clear();
        read_requests(file)?
    } else if !how.compat.is_none() && !ours.substituted {
        original.generate(&files, settings)?
    } else {
        let requests = ours.generate()?;
        notes.extend(ours.notes(requests.len() as u64)?);
        requests
    };
    workload.iter().try_for_each(check_request)?;
    if !workload.is_sorted_by(|a, b| a.arrived_at_s <= b.arrived_at_s) {
        workload.sort_by(|a, b| a.arrived_at_s.total_cmp(&b.arrived_at_s));
        notes.push("requests are numbered in order of arrival, not of the file".to_owned());
    }
    let count = workload.len() as u64;
    let (python_seed, python_draws) = original.python(settings, count);
    Ok(Requests {
        workload: Workload {
            requests: workload,
            clients: None,
        },
        config: WorkloadConfig {
            requests: Some(check_requests(count)?),
            ..ours.config
        },
        qps: ours.qps,
        python_draws,
        python_seed,
        notes,
    })
}

/// Prefix of the chosen length generator's flags.
fn lengths_prefix(settings: &Settings) -> String {
    let kind = settings.text("length_generator_config_type");
    format!("{kind}_request_length_generator_config_")
}

/// Prefix of the chosen interval generator's flags.
fn intervals_prefix(settings: &Settings) -> String {
    let kind = settings.text("interval_generator_config_type");
    format!("{kind}_request_interval_generator_config_")
}

/// The flag that says what a run key of the workload says, if there is one.
pub(super) fn flag_of(key: &str, settings: &Settings) -> Option<String> {
    let (lengths, intervals) = match is_replay(settings) {
        true => {
            let prefix = || "trace_request_generator_config_".to_owned();
            (prefix(), prefix())
        }
        false => (lengths_prefix(settings), intervals_prefix(settings)),
    };
    let in_flags = |key: &str| match key {
        "file" => "trace_file".to_owned(),
        key => key.to_owned(),
    };
    let flag = match key {
        "qps" => format!("{intervals}qps"),
        "workload.requests" => "synthetic_request_generator_config_num_requests".to_owned(),
        "workload.lengths.type" => "length_generator_config_type".to_owned(),
        "workload.arrivals.type" => "interval_generator_config_type".to_owned(),
        key => match key.strip_prefix("workload.lengths.") {
            Some(rest) => format!("{lengths}{}", in_flags(rest)),
            None => format!(
                "{intervals}{}",
                in_flags(key.strip_prefix("workload.arrivals.")?)
            ),
        },
    };
    is_flag(&flag).then_some(flag)
}

fn is_replay(settings: &Settings) -> bool {
    settings.text("request_generator_config_type") == "trace_replay"
}

/// Longest request allowed, prompt and output together: `max_tokens` of the
/// generator of lengths.
pub(super) fn max_request_tokens(settings: &Settings) -> u32 {
    if is_replay(settings) {
        settings.whole("trace_request_generator_config_max_tokens")
    } else {
        settings.whole(&format!("{}max_tokens", lengths_prefix(settings)))
    }
}

/// When synthetic requests end.
fn until(settings: &Settings) -> VidurUntil {
    let option = |name: &str| settings.get(&format!("synthetic_request_generator_config_{name}"));
    match (option("duration").as_f64(), option("num_requests").as_u64()) {
        (Some(duration_s), _) => VidurUntil::DurationS(duration_s),
        (None, Some(count)) => {
            VidurUntil::Requests(narrow::<u32, _>(count.min(u64::from(u32::MAX))))
        }
        (None, None) => VidurUntil::TraceEnds,
    }
}

/// The original's generators.
enum Original {
    Synthetic(VidurGenerator),
    Replay(VidurReplay),
}

impl Original {
    fn new(settings: &Settings) -> Self {
        if is_replay(settings) {
            let prefix = "trace_request_generator_config_";
            let factor = |name: &str| settings.number(&format!("{prefix}{name}"));
            return Self::Replay(VidurReplay {
                file: settings.text(&format!("{prefix}trace_file")).into(),
                max_tokens: max_request_tokens(settings),
                prefill_scale_factor: factor("prefill_scale_factor"),
                decode_scale_factor: factor("decode_scale_factor"),
                time_scale_factor: factor("time_scale_factor"),
            });
        }
        Self::Synthetic(VidurGenerator {
            seed: u64::from(settings.whole("synthetic_request_generator_config_seed")),
            until: until(settings),
            intervals: vidur_intervals(settings),
            lengths: vidur_lengths(settings),
        })
    }

    fn generate(
        &self,
        files: &DataFiles,
        settings: &Settings,
    ) -> Result<Vec<Request>, WorkloadError> {
        match self {
            Self::Replay(replay) => replay.generate(files),
            Self::Synthetic(generator) => {
                let scramble = "zipf_request_length_generator_config_scramble";
                if matches!(generator.lengths, VidurLengths::Zipf { .. })
                    && *settings.get(scramble) == true
                {
                    return Err(WorkloadError::new(format!(
                        "--{scramble} hashes text with a key that differs from one Python process \
                         to the next: there is nothing to be compatible with; give \
                         --requests_file, or leave compatibility off"
                    )));
                }
                check_stop(generator.until, &generator.intervals)?;
                generator.generate(files)
            }
        }
    }

    /// Seed of Python's stream when routing starts, and draws made from it.
    fn python(&self, settings: &Settings, requests: u64) -> (u64, u64) {
        match self {
            Self::Synthetic(generator) => (generator.seed, generator.python_draws(requests)),
            Self::Replay(_) => (u64::from(settings.whole("seed")), 0),
        }
    }
}

fn vidur_intervals(settings: &Settings) -> VidurIntervals {
    let prefix = intervals_prefix(settings);
    let name = |name: &str| format!("{prefix}{name}");
    match settings.text("interval_generator_config_type") {
        "gamma" => VidurIntervals::Gamma {
            qps: settings.number(&name("qps")),
            cv: settings.number(&name("cv")),
        },
        "static" => VidurIntervals::Static,
        "trace" => VidurIntervals::Trace {
            file: settings.text(&name("trace_file")).into(),
            start_time: settings.text(&name("start_time")).to_owned(),
            end_time: settings.text(&name("end_time")).to_owned(),
            time_scale_factor: settings.number(&name("time_scale_factor")),
        },
        _ => VidurIntervals::Poisson {
            qps: settings.number(&name("qps")),
        },
    }
}

fn vidur_lengths(settings: &Settings) -> VidurLengths {
    let prefix = lengths_prefix(settings);
    let whole = |name: &str| settings.whole(&format!("{prefix}{name}"));
    let number = |name: &str| settings.number(&format!("{prefix}{name}"));
    match settings.text("length_generator_config_type") {
        "uniform" => VidurLengths::Uniform {
            min_tokens: whole("min_tokens"),
            max_tokens: whole("max_tokens"),
            prefill_to_decode_ratio: number("prefill_to_decode_ratio"),
        },
        "zipf" => VidurLengths::Zipf {
            seed: whole("seed"),
            min_tokens: whole("min_tokens"),
            max_tokens: whole("max_tokens"),
            theta: number("theta"),
            prefill_to_decode_ratio: number("prefill_to_decode_ratio"),
        },
        "trace" => VidurLengths::Trace {
            seed: whole("seed"),
            file: settings.text(&format!("{prefix}trace_file")).into(),
            max_tokens: whole("max_tokens"),
            prefill_scale_factor: number("prefill_scale_factor"),
            decode_scale_factor: number("decode_scale_factor"),
        },
        _ => VidurLengths::Fixed(Lengths {
            prefill_tokens: whole("prefill_tokens"),
            decode_tokens: whole("decode_tokens"),
        }),
    }
}

/// Generators that would never stop are refused.
fn check_stop(until: VidurUntil, intervals: &VidurIntervals) -> Result<(), WorkloadError> {
    let trace = matches!(intervals, VidurIntervals::Trace { .. });
    check_count(until, intervals)?;
    let message = match (until, intervals) {
        (VidurUntil::DurationS(_), VidurIntervals::Static) => {
            "--synthetic_request_generator_config_duration never passes with static intervals, \
             which are all zero: give --synthetic_request_generator_config_num_requests instead"
        }
        (VidurUntil::TraceEnds, _) if !trace => {
            "--synthetic_request_generator_config_num_requests None goes on to the end of a trace \
             of intervals: use --interval_generator_config_type trace, or give a number"
        }
        _ => return Ok(()),
    };
    Err(WorkloadError::new(message))
}

/// More requests than a run can hold are refused before any is drawn.
fn check_count(until: VidurUntil, intervals: &VidurIntervals) -> Result<(), WorkloadError> {
    let rate_per_s = match intervals {
        VidurIntervals::Poisson { qps } | VidurIntervals::Gamma { qps, .. } => *qps,
        VidurIntervals::Static | VidurIntervals::Trace { .. } => 0.0,
    };
    let (flag, expected) = match until {
        VidurUntil::Requests(count) => ("num_requests", f64::from(count)),
        VidurUntil::DurationS(duration_s) => ("duration", duration_s * rate_per_s),
        VidurUntil::TraceEnds => return Ok(()),
    };
    if expected <= f64::from(MOST_REQUESTS) {
        return Ok(());
    }
    Err(WorkloadError::new(format!(
        "--synthetic_request_generator_config_{flag} asks for {expected:.0} requests; allowed are \
         {MOST_REQUESTS}"
    )))
}

/// Our generators with the same options.
struct Ours {
    source: WorkloadSource,
    config: WorkloadConfig,
    qps: Option<f64>,
    until: VidurUntil,
    seed: u64,
    length_seed: u64,
    /// Whether a histogram stands for a trace.
    substituted: bool,
}

impl Ours {
    fn new(
        settings: &Settings,
        files: &DataFiles,
        how: &How<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Self, WorkloadError> {
        let seed = u64::from(settings.whole("synthetic_request_generator_config_seed"));
        let mut ours = Self {
            source: WorkloadSource::new(DataFiles::default()),
            config: WorkloadConfig {
                requests: None,
                lengths: lengths_config(settings),
                arrivals: arrivals_config(settings),
            },
            qps: settings
                .get(&format!("{}qps", intervals_prefix(settings)))
                .as_f64(),
            until: until(settings),
            seed,
            length_seed: seed,
            substituted: false,
        };
        if is_replay(settings) {
            ours.qps = None;
            ours.until = VidurUntil::TraceEnds;
        } else if let Some(length_seed) = settings
            .get(&format!("{}seed", lengths_prefix(settings)))
            .as_u64()
            && matches!(
                ours.config.lengths,
                LengthsConfig::Trace { .. } | LengthsConfig::Zipf { .. }
            )
        {
            ours.length_seed = length_seed;
        }
        // Where requests are given, generators are not needed.
        if how.requests_file.is_none() {
            ours.substitute(settings, files, how.strict_files, notes)?;
            check_stop(ours.until, &vidur_intervals(settings)).or_else(|error| {
                if is_replay(settings) {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
        }
        Ok(ours)
    }

    /// Puts a built-in histogram in the place of a trace that is not there.
    fn substitute(
        &mut self,
        settings: &Settings,
        files: &DataFiles,
        strict: bool,
        notes: &mut Vec<String>,
    ) -> Result<(), WorkloadError> {
        let LengthsConfig::Trace { file, .. } = &mut self.config.lengths else {
            return Ok(());
        };
        if files.locate(file).is_some() {
            return Ok(());
        }
        let name = file.file_name().unwrap_or_default();
        let known = BUILT_IN.iter().find(|built_in| name == built_in.trace);
        let Some(known) = known.filter(|_| !strict) else {
            let message = if strict {
                "no such file (and --strict-files)".to_owned()
            } else {
                let names: Vec<&str> = BUILT_IN.iter().map(|built_in| built_in.trace).collect();
                format!(
                    "no such file; run from the folder of a Vidur checkout, or name a trace that \
                     is there; histograms of {} are built in",
                    names.join(" and ")
                )
            };
            return Err(WorkloadError::in_file(file, message));
        };
        let mut note = format!(
            "{}: not there; lengths are drawn from the built-in histogram {}",
            file.display(),
            known.histogram
        );
        *file = known.histogram.into();
        self.substituted = true;
        if is_replay(settings) {
            let scale = settings.number("trace_request_generator_config_time_scale_factor");
            self.config.arrivals = ArrivalsConfig::Gamma { cv: known.cv };
            self.qps = Some(known.rate_per_s / scale);
            self.until = VidurUntil::Requests(known.requests);
            note += &format!(
                ", {} requests come at the trace's mean rate ({} per second) and coefficient of \
                 variation ({})",
                known.requests,
                known.rate_per_s / scale,
                known.cv
            );
        }
        notes.push(note);
        Ok(())
    }

    /// What a person should know of so many requests.
    fn notes(&self, requests: u64) -> Result<Vec<String>, WorkloadError> {
        let config = WorkloadConfig {
            requests: Some(check_requests(requests)?),
            ..self.config.clone()
        };
        let outline = self.source.outline(&config, self.qps)?;
        Ok([outline.file_notes, outline.run_notes].concat())
    }

    fn generate(&self) -> Result<Vec<Request>, WorkloadError> {
        match self.until {
            VidurUntil::Requests(count) => self.first(count),
            VidurUntil::TraceEnds => {
                let rows = WorkloadConfig {
                    requests: None,
                    ..self.config.clone()
                };
                self.first(self.source.outline(&rows, self.qps)?.requests)
            }
            VidurUntil::DurationS(duration_s) => {
                let mut count = 1024;
                loop {
                    let mut requests = self.first(count)?;
                    if requests
                        .last()
                        .is_none_or(|last| last.arrived_at_s >= duration_s)
                    {
                        requests.retain(|request| request.arrived_at_s < duration_s);
                        return Ok(requests);
                    }
                    if count >= MOST_REQUESTS {
                        return Err(WorkloadError::new(format!(
                            "more than {MOST_REQUESTS} requests within {duration_s} s"
                        )));
                    }
                    count *= 2;
                }
            }
        }
    }

    /// The first `count` requests; draws do not depend on how many are made.
    fn first(&self, count: u32) -> Result<Vec<Request>, WorkloadError> {
        let config = WorkloadConfig {
            requests: Some(count),
            ..self.config.clone()
        };
        let timed = self.source.get(&config, self.seed, 0)?.at_rate(self.qps)?;
        if self.length_seed == self.seed {
            return Ok(timed.requests);
        }
        let sized = self
            .source
            .get(&config, self.length_seed, 0)?
            .at_rate(self.qps)?;
        let both = timed.requests.iter().zip(&sized.requests);
        let request = |(timed, sized): (&Request, &Request)| Request {
            arrived_at_s: timed.arrived_at_s,
            ..*sized
        };
        Ok(both.map(request).collect())
    }
}

fn lengths_config(settings: &Settings) -> LengthsConfig {
    if is_replay(settings) {
        let prefix = "trace_request_generator_config_";
        return LengthsConfig::Trace {
            file: settings.text(&format!("{prefix}trace_file")).into(),
            max_tokens: Some(max_request_tokens(settings)),
            prefill_scale_factor: settings.number(&format!("{prefix}prefill_scale_factor")),
            decode_scale_factor: settings.number(&format!("{prefix}decode_scale_factor")),
            order: TraceOrder::Recorded,
        };
    }
    match vidur_lengths(settings) {
        VidurLengths::Fixed(lengths) => LengthsConfig::Fixed {
            prefill_tokens: lengths.prefill_tokens,
            decode_tokens: lengths.decode_tokens,
        },
        VidurLengths::Uniform {
            min_tokens,
            max_tokens,
            prefill_to_decode_ratio,
        } => LengthsConfig::Uniform {
            min_tokens,
            max_tokens,
            prefill_to_decode_ratio,
        },
        VidurLengths::Zipf {
            min_tokens,
            max_tokens,
            theta,
            prefill_to_decode_ratio,
            ..
        } => LengthsConfig::Zipf {
            min_tokens,
            max_tokens,
            theta,
            scramble: *settings.get("zipf_request_length_generator_config_scramble") == true,
            prefill_to_decode_ratio,
        },
        VidurLengths::Trace {
            file,
            max_tokens,
            prefill_scale_factor,
            decode_scale_factor,
            ..
        } => LengthsConfig::Trace {
            file,
            max_tokens: Some(max_tokens),
            prefill_scale_factor,
            decode_scale_factor,
            order: TraceOrder::Shuffled,
        },
    }
}

fn arrivals_config(settings: &Settings) -> ArrivalsConfig {
    if is_replay(settings) {
        let prefix = "trace_request_generator_config_";
        return ArrivalsConfig::Trace {
            file: settings.text(&format!("{prefix}trace_file")).into(),
            start_time: None,
            end_time: None,
            time_scale_factor: settings.number(&format!("{prefix}time_scale_factor")),
            time_unit: None,
        };
    }
    match vidur_intervals(settings) {
        VidurIntervals::Poisson { .. } => ArrivalsConfig::Poisson,
        VidurIntervals::Gamma { cv, .. } => ArrivalsConfig::Gamma { cv },
        VidurIntervals::Static => ArrivalsConfig::Static,
        VidurIntervals::Trace {
            file,
            start_time,
            end_time,
            time_scale_factor,
        } => ArrivalsConfig::Trace {
            file,
            start_time: Some(start_time),
            end_time: Some(end_time),
            time_scale_factor,
            time_unit: None,
        },
    }
}

/// Columns of a file of requests.
const REQUEST_COLUMNS: [&str; 3] = ["arrived_at", "num_prefill_tokens", "num_decode_tokens"];

/// Reads explicit requests; other columns are ignored. Times are kept to the last
/// bit.
///
/// # Errors
/// Names the line and column of what cannot be read.
pub fn read_requests(path: &Path) -> Result<Vec<Request>, WorkloadError> {
    let in_file = |message: String| WorkloadError::in_file(path, message);
    let content = input_file::read(path, InputKind::Trace)
        .map_err(|error| in_file(format!("cannot be read: {error}")))?;
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(content.as_slice());
    let header = reader
        .headers()
        .map_err(|error| csv_error(path, &error))?
        .clone();
    let mut columns = [0; 3];
    for (column, name) in columns.iter_mut().zip(REQUEST_COLUMNS) {
        *column = header
            .iter()
            .position(|cell| cell == name)
            .ok_or_else(|| WorkloadError::at(path, 1, 1, format!("has no column `{name}`")))?;
    }
    let mut requests = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| csv_error(path, &error))?;
        requests.push(read_request(path, &row, columns)?);
    }
    if requests.is_empty() {
        return Err(in_file("has no requests".to_owned()));
    }
    Ok(requests)
}

/// What is wrong with a line that is no row of a table.
fn csv_error(path: &Path, error: &csv::Error) -> WorkloadError {
    let line = narrow::<usize, _>(error.position().map_or(1, csv::Position::line));
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields, the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8 text".to_owned(),
        csv::ErrorKind::Io(error) => return WorkloadError::in_file(path, error.to_string()),
        _ => error.to_string(),
    };
    WorkloadError::at(path, line, 1, message)
}

fn read_request(
    path: &Path,
    row: &csv::StringRecord,
    columns: [usize; 3],
) -> Result<Request, WorkloadError> {
    let line = narrow::<usize, _>(row.position().map_or(0, csv::Position::line));
    let at = |index: usize, message: String| {
        let cells_before = (0..columns[index]).filter_map(|c| row.get(c));
        let before: usize = cells_before.map(|c| c.chars().count() + 1).sum();
        WorkloadError::at(path, line, before + 1, message)
    };
    let number = |index: usize, allowed: &str, accept: &dyn Fn(f64) -> bool| {
        let text = row.get(columns[index]).unwrap_or_default();
        let value = text.parse::<f64>().ok().filter(|x| accept(*x));
        value.ok_or_else(|| {
            let (name, found) = (REQUEST_COLUMNS[index], shown(text));
            let message = format!("column `{name}` is `{found}`; allowed is {allowed}");
            at(index, message)
        })
    };
    // Whether it is too many shows together.
    let tokens = |x: f64| x.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&x);
    let whole = format!("a whole number from 1 to {MOST_TOKENS}");
    let seconds = format!("a number of seconds from 0 to {LATEST_ARRIVAL_S:e}");
    let request = Request {
        arrived_at_s: number(0, &seconds, &|x| (0.0..=LATEST_ARRIVAL_S).contains(&x))?,
        prefill_tokens: whole_u32(number(1, &whole, &tokens)?),
        decode_tokens: whole_u32(number(2, &whole, &tokens)?),
    };
    check_request(&request).map_err(|error| at(1, error.message))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_workload_are_flags_of_the_chosen_generators() {
        let mut settings = Settings::default();
        let mut flag = |chosen: [(&str, &str); 3], key: &str| {
            for (flag, value) in chosen {
                settings.set(flag, value.into());
            }
            flag_of(key, &settings)
        };
        let chosen = |requests, lengths, intervals| {
            [
                ("request_generator_config_type", requests),
                ("length_generator_config_type", lengths),
                ("interval_generator_config_type", intervals),
            ]
        };
        let zipf = chosen("synthetic", "zipf", "gamma");
        let trace = chosen("synthetic", "trace", "trace");
        let replay = chosen("trace_replay", "zipf", "gamma");
        let expected = [
            (
                zipf,
                "workload.lengths.theta",
                Some("zipf_request_length_generator_config_theta"),
            ),
            (
                zipf,
                "workload.arrivals.cv",
                Some("gamma_request_interval_generator_config_cv"),
            ),
            (
                zipf,
                "qps",
                Some("gamma_request_interval_generator_config_qps"),
            ),
            (
                zipf,
                "workload.requests",
                Some("synthetic_request_generator_config_num_requests"),
            ),
            (
                zipf,
                "workload.lengths.type",
                Some("length_generator_config_type"),
            ),
            // Keys that no flag stands for.
            (zipf, "workload.lengths.prefill_sigma", None),
            (zipf, "workload.arrivals.time_unit", None),
            (
                trace,
                "workload.lengths.file",
                Some("trace_request_length_generator_config_trace_file"),
            ),
            (
                trace,
                "workload.arrivals.start_time",
                Some("trace_request_interval_generator_config_start_time"),
            ),
            (trace, "qps", None),
            (
                replay,
                "workload.lengths.file",
                Some("trace_request_generator_config_trace_file"),
            ),
            (
                replay,
                "workload.arrivals.time_scale_factor",
                Some("trace_request_generator_config_time_scale_factor"),
            ),
        ];
        for (chosen, key, expected) in expected {
            assert_eq!(flag(chosen, key).as_deref(), expected, "{key}");
        }
    }
}
