//! Readers of request traces: the formats people have, told apart by their header
//! or keys.
//!
//! | format | columns or keys used | time |
//! |---|---|---|
//! | Vidur processed CSV | `arrived_at`, `num_prefill_tokens`, `num_decode_tokens` | seconds |
//! | Vidur arrivals CSV | `arrival_time` | date and time |
//! | Azure LLM inference CSV | `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` | date and time |
//! | BurstGPT CSV | `Timestamp`, `Request tokens`, `Response tokens` | seconds |
//! | Mooncake and AIPerf JSON lines | `timestamp`, `input_length`, `output_length` | milliseconds |
//! | Bailian JSON lines | the same, and `chat_id` | seconds |
//! | Vidur's columns as JSON lines | as in its CSV | seconds |
//!
//! A [`TimeUnit`] takes the place of a format's own. Other columns and keys are
//! ignored; those that would matter in reality are told as notes. Lengths or times
//! may be missing where they are not needed. Rows are put in order of time.

mod csv;
mod date_time;
mod json_lines;

use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::csv::CsvFormat;
pub(super) use self::date_time::parse_date_time;
use super::histogram::{self, LengthHistogram};
use super::limits::MOST_REQUESTS;
use super::{DataFile, WorkloadError};
use crate::input_file::shown;

/// Unit of the numbers of time in a trace.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum TimeUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl TimeUnit {
    /// Its name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }

    fn to_seconds(self, time: f64) -> f64 {
        match self {
            Self::Seconds => time,
            Self::Milliseconds => time / 1e3,
            Self::Microseconds => time / 1e6,
            Self::Nanoseconds => time / 1e9,
        }
    }
}

/// Prompt and output tokens of one request, both at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Prompt tokens.
    pub prefill_tokens: u32,
    /// Output tokens.
    pub decode_tokens: u32,
}

/// A trace as read.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Where it came from, for messages.
    pub name: PathBuf,
    /// Lengths in order of arrival, if the file has them.
    pub lengths: Option<Vec<Lengths>>,
    /// Arrival times since the first, seconds, not decreasing; if the file has them.
    pub arrivals_s: Option<Vec<f64>>,
    /// Time of the first request as the file has it, seconds; for dates, since
    /// 1970-01-01.
    pub origin_s: f64,
    /// The longest prompt and the longest output, which may be of two requests.
    pub longest: Lengths,
    /// What is in the file and has no effect, in words.
    pub notes: Vec<String>,
}

/// What a file of requests is.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceFile {
    /// A trace: one row per request.
    Rows(Trace),
    /// A joint histogram of lengths.
    Histogram(LengthHistogram),
}

/// Reads a trace or a length histogram; `time_unit` as for [`read_trace`].
pub(super) fn read_trace_file(
    file: &DataFile,
    time_unit: Option<TimeUnit>,
) -> Result<TraceFile, WorkloadError> {
    if histogram::is_histogram(&file.text) {
        return LengthHistogram::read(file).map(TraceFile::Histogram);
    }
    read_trace(file, time_unit).map(TraceFile::Rows)
}

/// Reads a trace in any of the formats above; `time_unit`: of its numbers of time, if
/// not the format's.
pub fn read_trace(file: &DataFile, time_unit: Option<TimeUnit>) -> Result<Trace, WorkloadError> {
    let mut lines = content_lines(&file.text).peekable();
    let Some(&(header_line, header)) = lines.peek() else {
        return Err(WorkloadError::in_file(&file.name, "is empty"));
    };
    if histogram::is_histogram(&file.text) {
        let message = "a length histogram has no arrival times: use a trace";
        return Err(WorkloadError::at(&file.name, header_line, 1, message));
    }
    let mut rows = if header.trim_start().starts_with('{') {
        json_lines::read(&file.name, lines, time_unit)?
    } else {
        lines.next();
        let format = CsvFormat::detect(&file.name, (header_line, header), time_unit)?;
        format.read(&file.name, lines)?
    };
    if rows.lengths.as_ref().is_some_and(Vec::is_empty)
        || rows.times_s.as_ref().is_some_and(Vec::is_empty)
    {
        return Err(WorkloadError::in_file(&file.name, "has no usable rows"));
    }
    let origin_s = rows.sort_by_time();
    Ok(Trace {
        name: file.name.clone(),
        longest: rows.longest(),
        lengths: rows.lengths,
        arrivals_s: rows.times_s,
        origin_s,
        notes: rows.notes,
    })
}

/// Lines that are neither blank nor comments, with their number from 1.
pub(super) fn content_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

/// Refuses a row beyond those that a run can have.
fn check_rows(file: &Path, line: usize, rows_before: usize) -> Result<(), WorkloadError> {
    match rows_before < MOST_REQUESTS as usize {
        true => Ok(()),
        false => {
            let message = format!("a trace has at most {MOST_REQUESTS} rows");
            Err(WorkloadError::at(file, line, 1, message))
        }
    }
}

#[derive(Default)]
struct Rows {
    lengths: Option<Vec<Lengths>>,
    times_s: Option<Vec<f64>>,
    notes: Vec<String>,
}

impl Rows {
    fn longest(&self) -> Lengths {
        let lengths = self.lengths.as_deref().unwrap_or_default();
        Lengths {
            prefill_tokens: lengths.iter().map(|l| l.prefill_tokens).max().unwrap_or(1),
            decode_tokens: lengths.iter().map(|l| l.decode_tokens).max().unwrap_or(1),
        }
    }

    /// Orders rows by time (rows of equal time as in the file) and counts times
    /// from the first, which it returns.
    fn sort_by_time(&mut self) -> f64 {
        let Some(times) = &mut self.times_s else {
            return 0.0;
        };
        if !times.is_sorted() {
            let mut order: Vec<usize> = (0..times.len()).collect();
            order.sort_by(|&a, &b| times[a].total_cmp(&times[b]));
            if let Some(lengths) = &mut self.lengths {
                *lengths = order.iter().map(|&i| lengths[i]).collect();
            }
            *times = order.iter().map(|&i| times[i]).collect();
        }
        let start = times[0];
        times.iter_mut().for_each(|t| *t -= start);
        start
    }
}

/// Keys of the window of a trace.
const START_KEY: &str = "workload.arrivals.start_time";
const END_KEY: &str = "workload.arrivals.end_time";

impl Trace {
    /// Rows.
    pub fn num_rows(&self) -> usize {
        let times = self.arrivals_s.as_ref().map(Vec::len);
        let lengths = self.lengths.as_ref().map(Vec::len);
        times.or(lengths).unwrap_or(0)
    }

    /// Arrival times since the first.
    ///
    /// # Errors
    /// If the file has none.
    pub fn times_s(&self) -> Result<&[f64], WorkloadError> {
        self.arrivals_s.as_deref().ok_or_else(|| {
            let message = "has no arrival times; needed is a column `arrived_at` (or another \
                           format of docs/spec.md)";
            WorkloadError::in_file(&self.name, message)
        })
    }

    /// The rows after `start` and before `end`, dates and times or seconds as the
    /// file has them.
    pub(super) fn window(
        &self,
        start: Option<&str>,
        end: Option<&str>,
    ) -> Result<Range<usize>, WorkloadError> {
        let bound = |key: &'static str, text: Option<&str>, none: f64| match text {
            None => Ok(none),
            Some(text) => {
                let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite());
                seconds.or_else(|| parse_date_time(text)).ok_or_else(|| {
                    let message = format!(
                        "value `{}` is neither a date and time such as `1970-01-04 12:00:00` nor a \
                         number of seconds",
                        shown(text)
                    );
                    WorkloadError::new(message).at_key(key)
                })
            }
        };
        let start_s = bound(START_KEY, start, f64::NEG_INFINITY)?;
        let end_s = bound(END_KEY, end, f64::INFINITY)?;
        let times_s = self.times_s()?;
        let first = times_s.partition_point(|time_s| self.origin_s + time_s <= start_s);
        let last = times_s.partition_point(|time_s| self.origin_s + time_s < end_s);
        if first >= last {
            let message = format!(
                "has no requests after {} and before {}",
                shown(start.unwrap_or("its start")),
                shown(end.unwrap_or("its end"))
            );
            // Of two bounds the one that leaves nothing of what the other leaves.
            let key = match first == times_s.len() || end.is_none() {
                true => START_KEY,
                false => END_KEY,
            };
            return Err(WorkloadError::in_file(&self.name, message).at_key(key));
        }
        Ok(first..last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in(text: &str, time_unit: Option<TimeUnit>) -> Result<Trace, WorkloadError> {
        let file = DataFile {
            name: "t.csv".into(),
            text: text.to_owned().into(),
        };
        read_trace(&file, time_unit)
    }

    fn read(text: &str) -> Result<Trace, WorkloadError> {
        read_in(text, None)
    }

    fn lengths(pairs: &[(u32, u32)]) -> Option<Vec<Lengths>> {
        let of = |&(prefill_tokens, decode_tokens): &(u32, u32)| Lengths {
            prefill_tokens,
            decode_tokens,
        };
        Some(pairs.iter().map(of).collect())
    }

    #[test]
    fn every_format_is_recognised_by_its_header() {
        let vidur = read("arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,374,44\n2,5,6.0\n");
        let vidur = vidur.unwrap();
        assert_eq!(vidur.lengths, lengths(&[(374, 44), (5, 6)]));
        assert_eq!(vidur.arrivals_s, Some(vec![0.0, 0.5]));

        let only = read("num_prefill_tokens,num_decode_tokens,pd_ratio\n37,5,7.4\n").unwrap();
        assert_eq!((only.lengths, only.arrivals_s), (lengths(&[(37, 5)]), None));

        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                     2023-12-31 23:59:59.5000000,10,20\n2024-01-01 00:00:01,30,40\n";
        let azure = read(azure).unwrap();
        assert_eq!(azure.lengths, lengths(&[(10, 20), (30, 40)]));
        assert_eq!(azure.arrivals_s, Some(vec![0.0, 1.5]));

        let mooncake = "{\"timestamp\": 3000, \"input_length\": 6, \"output_length\": 5}\n\
                        {\"timestamp\": 1000, \"input_length\": 7, \"output_length\": 8}\n";
        let mooncake = read(mooncake).unwrap();
        assert_eq!(
            mooncake.lengths,
            lengths(&[(7, 8), (6, 5)]),
            "sorted by time"
        );
        assert_eq!(mooncake.arrivals_s, Some(vec![0.0, 2.0]));

        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                     5,ChatGPT,472,18,490,Conversation log\n\
                     45,ChatGPT,1087,0,1087,\"failed, so left out\"\n118,GPT-4,417,276,693,API log\n";
        let burst = read(burst).unwrap();
        assert_eq!(burst.lengths, lengths(&[(472, 18), (417, 276)]));
        assert_eq!(burst.arrivals_s, Some(vec![0.0, 113.0]));

        let dated = read("arrival_time\n1970-01-04 12:00:01\n1970-01-04 12:00:03.5\n").unwrap();
        assert_eq!(dated.arrivals_s, Some(vec![0.0, 2.5]));
        assert_eq!(dated.origin_s, 3.5 * 86_400.0 + 1.0);

        let times = read("arrived_at\n0\n2\n").unwrap();
        assert_eq!(
            (times.lengths, times.arrivals_s),
            (None, Some(vec![0.0, 2.0]))
        );
    }

    #[test]
    fn malformed_rows_are_named_by_line_and_column() {
        let header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
        let message = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            message(&format!("# note\n{header}0,374,44\n1,x12,9\n")),
            "t.csv:4:3: column `num_prefill_tokens` is `x12`; \
             allowed is a whole number from 1 to 16777216"
        );
        assert!(
            message(&format!("{header}0,374,0\n")).starts_with("t.csv:2:7: column `num_decode")
        );
        assert!(message(&format!("{header}0,374,-3\n")).starts_with("t.csv:2:7:"));
        assert!(message(&format!("{header}0,1.5,3\n")).starts_with("t.csv:2:3:"));
        assert!(message(&format!("{header}nan,1,3\n")).contains("a number of seconds"));
        assert_eq!(
            message(&format!("{header}0,374\n")),
            "t.csv:2:1: 2 cells where the header has 3 columns"
        );
        assert!(message("a,b\n1,2\n").starts_with("t.csv:1:1: unknown header `a,b`"));
        assert!(message(header).ends_with("has no usable rows"));
        assert!(message("  \n# x\n").ends_with("is empty"));
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-01 00:00:00,1,2\n";
        assert!(message(azure).starts_with("t.csv:2:1: column `TIMESTAMP` is `2023-13-01"));
        let json = "{\"timestamp\": 1, \"input_length\": -6, \"output_length\": 5}";
        assert!(message(json).starts_with("t.csv:1:18: key `input_length` is `-6`"));
        assert!(message("{\"input_length\": 6}").contains("`output_length` is missing"));
        assert!(message("{\"input_length\": 6").starts_with("t.csv:1:18: not JSON"));
        let second = "{\"input_length\": 6, \"output_length\": 5}\n [6, 5]";
        assert!(message(second).starts_with("t.csv:2:2: not JSON: expected an object"));
    }

    /// The same requests in every format of JSON lines, a second apart.
    #[test]
    fn json_lines_are_told_apart_by_their_keys() {
        let mooncake = "{\"timestamp\": 1000, \"input_length\": 6, \"output_length\": 5}\n\
                        {\"timestamp\": 2000, \"input_length\": 7, \"output_length\": 8}\n";
        let aiperf = "{\"timestamp\": 1000.0, \"isl\": 6, \"osl\": 5, \"extra\": {\"a\": [1]}}\n\
                      {\"timestamp\": 2000, \"input_length\": 7, \"output_length\": 8.0}\n";
        let bailian = "{\"chat_id\": 1, \"parent_chat_id\": -1, \"timestamp\": 61.25, \
                       \"input_length\": 6, \"output_length\": 5, \"type\": \"text\", \"turn\": 1}\n\
                       {\"chat_id\": 2, \"parent_chat_id\": 1, \"timestamp\": 62.25, \
                       \"input_length\": 7, \"output_length\": 8, \"type\": \"text\", \"turn\": 2}\n";
        let vidur = "{\"arrived_at\": 4, \"num_prefill_tokens\": 6, \"num_decode_tokens\": 5}\n\
                     {\"arrived_at\": 5, \"num_prefill_tokens\": 7, \"num_decode_tokens\": 8}\n";
        for text in [mooncake, aiperf, bailian, vidur] {
            let trace = read(text).unwrap();
            assert_eq!(trace.lengths, lengths(&[(6, 5), (7, 8)]), "{text}");
            assert_eq!(trace.arrivals_s, Some(vec![0.0, 1.0]), "{text}");
            assert!(trace.notes.is_empty(), "{:?}", trace.notes);
        }
        let units = [
            (TimeUnit::Seconds, 1000.0),
            (TimeUnit::Milliseconds, 1.0),
            (TimeUnit::Microseconds, 1e-3),
            (TimeUnit::Nanoseconds, 1e-6),
        ];
        for (unit, apart_s) in units {
            let trace = read_in(mooncake, Some(unit)).unwrap();
            assert_eq!(trace.arrivals_s, Some(vec![0.0, apart_s]), "{unit:?}");
        }
        let csv = read_in("arrived_at\n0\n3\n", Some(TimeUnit::Milliseconds)).unwrap();
        assert_eq!(csv.arrivals_s, Some(vec![0.0, 0.003]));
        let dated = read_in(
            "arrival_time\n1970-01-04 12:00:01\n",
            Some(TimeUnit::Seconds),
        );
        let message = dated.unwrap_err().to_string();
        assert!(message.contains("leave out `time_unit: s`"), "{message}");
    }

    #[test]
    fn what_json_lines_hold_beyond_lengths_is_noted_or_refused() {
        let row = |more: &str| {
            format!("{{\"timestamp\": 0, \"input_length\": 6, \"output_length\": 5{more}}}\n")
        };
        let notes = |text: &str| read(text).unwrap().notes;
        let plain = row("");
        assert!(notes(&(plain.clone() + &row(", \"delay\": null"))).is_empty());
        let hashed = notes(&(plain.clone() + &row(", \"hash_ids\": [1, 2]")));
        assert_eq!(hashed.len(), 1);
        assert!(
            hashed[0].starts_with("`hash_ids` have no effect"),
            "{hashed:?}"
        );
        let session = notes(&row(", \"session_id\": \"a\""));
        assert!(session[0].starts_with("`session_id` has no effect"));

        let refused = |text: &str| read(text).unwrap_err().to_string();
        let message = refused(&(plain.clone() + &row(", \"delay\": 250")));
        assert!(
            message.starts_with("t.csv:2:57: key `delay`: sessions, whose turns follow a delay"),
            "{message}"
        );
        let text = "{\"text_input\": \"Hello\", \"output_length\": 5}";
        assert!(refused(text).contains("key `text_input`: the prompt is given as text"));
        let mixed = refused(&(plain + &row(", \"chat_id\": 4")));
        assert!(mixed.contains("a file has one format"), "{mixed}");
    }

    #[test]
    fn a_request_longer_than_allowed_is_refused_where_it_stands() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        let header = "num_prefill_tokens,num_decode_tokens\n";
        for tokens in ["4000000000", "16777217", "1e300"] {
            assert_eq!(
                message(&format!("{header}5,{tokens}\n")),
                format!(
                    "t.csv:2:3: column `num_decode_tokens` is `{tokens}`; allowed is a whole \
                     number from 1 to 16777216"
                )
            );
        }
        let together = message(&format!("{header}5,6\n16777216,1\n"));
        assert!(
            together.starts_with("t.csv:3:1: a request of 16777216 prompt and 1 output tokens"),
            "{together}"
        );
        let json = message("{\"input_length\": 4000000000, \"output_length\": 5}");
        assert!(
            json.starts_with("t.csv:1:2: key `input_length` is `4000000000`"),
            "{json}"
        );
    }

    /// What a file says does nothing to a terminal, and is not repeated at length.
    #[test]
    fn text_of_a_file_is_escaped_and_cut_in_messages() {
        let clean = |text: String| {
            let message = read(&text).unwrap_err().to_string();
            assert!(message.len() < 2000, "{} characters", message.len());
            assert!(!message.contains(['\u{1b}', '\u{7}']), "{message:?}");
        };
        let nasty = format!("\u{1b}]0;title\u{7}{}", "x".repeat(100_000));
        clean(format!("{nasty}\n1,2\n"));
        clean(format!("arrived_at\n{nasty}\n"));
        clean(format!("num_prefill_tokens,num_decode_tokens\n1,{nasty}\n"));
        clean(format!("prefill_min,{nasty}\n"));
        let json = "x".repeat(100_000) + "\\u001b";
        clean(format!("{{\"input_length\": \"{json}\"}}"));
        clean(format!(
            "{{\"timestamp\": \"{json}\", \"input_length\": 5, \"output_length\": 5}}"
        ));
        clean(format!("{{\"input_length\": {json}"));
    }

    #[test]
    fn windows_leave_out_their_bounds() {
        let trace = read("arrived_at\n5\n7\n8\n9.5\n").unwrap();
        let times = |start, end| trace.window(start, end);
        assert_eq!(times(None, None), Ok(0..4));
        assert_eq!(times(Some("5"), None), Ok(1..4));
        assert_eq!(times(Some("1970-01-01 00:00:06"), Some("9.5")), Ok(1..3));
        assert!(
            times(Some("20"), None)
                .unwrap_err()
                .to_string()
                .contains("no requests after 20")
        );
        assert!(
            times(Some("x"), None)
                .unwrap_err()
                .to_string()
                .starts_with("key `workload.arrivals.start_time`: value `x` is neither")
        );
    }
}
