//! Readers of request traces: the formats people have, told apart by their header.
//!
//! | format | columns used | time |
//! |---|---|---|
//! | Vidur processed CSV | `arrived_at`, `num_prefill_tokens`, `num_decode_tokens` | seconds |
//! | Vidur arrivals CSV | `arrival_time` | date and time |
//! | Azure LLM inference CSV | `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` | date and time |
//! | BurstGPT CSV | `Timestamp`, `Request tokens`, `Response tokens` | seconds |
//! | Mooncake JSONL | `timestamp`, `input_length`, `output_length` | milliseconds |
//!
//! Other columns are ignored. Lengths or times may be missing where they are not
//! needed. Rows are put in order of time.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::histogram::{self, LengthHistogram};
use super::{Cell, DataFile, WorkloadError, split_cells};

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
}

/// What a file says about request lengths.
#[derive(Debug, Clone, PartialEq)]
pub enum LengthData {
    /// One row per request.
    Rows(Vec<Lengths>),
    /// A joint histogram.
    Histogram(LengthHistogram),
}

/// Reads request lengths: a trace with lengths, or a length histogram.
pub fn read_lengths(file: &DataFile) -> Result<LengthData, WorkloadError> {
    if histogram::is_histogram(&file.text) {
        return LengthHistogram::read(file).map(LengthData::Histogram);
    }
    let trace = read_trace(file)?;
    trace.lengths.map(LengthData::Rows).ok_or_else(|| {
        WorkloadError::in_file(
            &file.name,
            "has no request lengths; needed are columns `num_prefill_tokens` and \
             `num_decode_tokens` (or another format of docs/spec.md)",
        )
    })
}

/// Reads a trace in any of the formats above.
pub fn read_trace(file: &DataFile) -> Result<Trace, WorkloadError> {
    let mut lines = content_lines(&file.text).peekable();
    let Some(&(header_line, header)) = lines.peek() else {
        return Err(WorkloadError::in_file(&file.name, "is empty"));
    };
    if histogram::is_histogram(&file.text) {
        let message = "a length histogram has no arrival times: use a trace";
        return Err(WorkloadError::at(&file.name, header_line, 1, message));
    }
    let mut rows = if header.trim_start().starts_with('{') {
        read_jsonl(&file.name, lines)?
    } else {
        lines.next();
        let format = CsvFormat::detect(&file.name, header_line, header)?;
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
        lengths: rows.lengths,
        arrivals_s: rows.times_s,
        origin_s,
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

#[derive(Default)]
struct Rows {
    lengths: Option<Vec<Lengths>>,
    times_s: Option<Vec<f64>>,
}

impl Rows {
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

#[derive(Clone, Copy)]
enum TimeFormat {
    Seconds,
    DateTime,
}

/// Columns of a CSV trace: name and position in the row.
struct CsvFormat {
    time: Option<(&'static str, usize, TimeFormat)>,
    prefill: Option<(&'static str, usize)>,
    decode: Option<(&'static str, usize)>,
    /// Rows without output tokens are failed requests to be left out.
    skip_failed: bool,
    columns: usize,
}

const CSV_HEADERS: &str = "`arrived_at,num_prefill_tokens,num_decode_tokens` (Vidur), \
     `arrival_time` (Vidur), `TIMESTAMP,ContextTokens,GeneratedTokens` (Azure), \
     `Timestamp,Model,Request tokens,Response tokens,...` (BurstGPT), \
     `prefill_min,prefill_max,decode_min,decode_max,count` (length histogram)";

impl CsvFormat {
    fn detect(file: &Path, line: usize, header: &str) -> Result<Self, WorkloadError> {
        let cells = split_cells(header);
        let find = |name: &'static str| {
            let at = cells.iter().position(|cell| cell.text == name)?;
            Some((name, at))
        };
        let timed = |name, format| find(name).map(|(name, at)| (name, at, format));
        let known = [
            (
                timed("arrived_at", TimeFormat::Seconds),
                find("num_prefill_tokens"),
                find("num_decode_tokens"),
                false,
            ),
            (
                timed("arrival_time", TimeFormat::DateTime),
                None,
                None,
                false,
            ),
            (
                timed("TIMESTAMP", TimeFormat::DateTime),
                find("ContextTokens"),
                find("GeneratedTokens"),
                false,
            ),
            (
                timed("Timestamp", TimeFormat::Seconds),
                find("Request tokens"),
                find("Response tokens"),
                true,
            ),
        ];
        let found = known.into_iter().find(|(time, prefill, decode, _)| {
            prefill.is_some() == decode.is_some() && (prefill.is_some() || time.is_some())
        });
        let Some((time, prefill, decode, skip_failed)) = found else {
            let message = format!(
                "unknown header `{}`; a trace starts with one of {CSV_HEADERS}, \
                 or is JSON lines with `timestamp`, `input_length`, `output_length` (Mooncake)",
                header.trim()
            );
            return Err(WorkloadError::at(file, line, 1, message));
        };
        Ok(Self {
            time,
            prefill,
            decode,
            skip_failed,
            columns: cells.len(),
        })
    }

    fn read<'a>(
        &self,
        file: &Path,
        lines: impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<Rows, WorkloadError> {
        let mut rows = Rows {
            lengths: self.prefill.map(|_| Vec::new()),
            times_s: self.time.map(|_| Vec::new()),
        };
        for (line, text) in lines {
            let cells = split_cells(text);
            if cells.len() != self.columns {
                let message = format!(
                    "{} cells where the header has {} columns",
                    cells.len(),
                    self.columns
                );
                return Err(WorkloadError::at(file, line, 1, message));
            }
            let row = Row {
                file,
                line,
                cells: &cells,
            };
            if let (Some(prefill), Some(decode), Some(lengths)) =
                (self.prefill, self.decode, &mut rows.lengths)
            {
                let least = u32::from(!self.skip_failed);
                let prefill_tokens = row.tokens(prefill, least)?;
                let decode_tokens = row.tokens(decode, least)?;
                if prefill_tokens == 0 || decode_tokens == 0 {
                    continue;
                }
                lengths.push(Lengths {
                    prefill_tokens,
                    decode_tokens,
                });
            }
            if let (Some(time), Some(times)) = (self.time, &mut rows.times_s) {
                times.push(row.time_s(time)?);
            }
        }
        Ok(rows)
    }
}

/// One row of a CSV trace.
struct Row<'a> {
    file: &'a Path,
    line: usize,
    cells: &'a [Cell<'a>],
}

impl Row<'_> {
    /// Token count of a column. Whole numbers written as decimals (`374.0`) are
    /// accepted: data frames write integer columns like that.
    fn tokens(&self, (name, at): (&str, usize), least: u32) -> Result<u32, WorkloadError> {
        let text = &self.cells[at].text;
        let value = text.parse::<f64>().ok();
        value
            .filter(|v| v.fract() == 0.0 && *v >= f64::from(least) && *v <= f64::from(u32::MAX))
            .map(|v| v as u32)
            .ok_or_else(|| {
                self.error(
                    name,
                    at,
                    &format!("a whole number from {least} to {}", u32::MAX),
                )
            })
    }

    fn time_s(&self, (name, at, format): (&str, usize, TimeFormat)) -> Result<f64, WorkloadError> {
        let text = &self.cells[at].text;
        let (value, allowed) = match format {
            TimeFormat::Seconds => (
                text.parse::<f64>().ok().filter(|v| v.is_finite()),
                "a number of seconds",
            ),
            TimeFormat::DateTime => (
                parse_date_time(text),
                "a date and time like `2023-11-16 18:15:46.6805900`",
            ),
        };
        value.ok_or_else(|| self.error(name, at, allowed))
    }

    fn error(&self, column: &str, at: usize, allowed: &str) -> WorkloadError {
        let cell = &self.cells[at];
        let message = format!("column `{column}` is `{}`; allowed is {allowed}", cell.text);
        WorkloadError::at(self.file, self.line, cell.column, message)
    }
}

impl Trace {
    /// The part of a trace after `start` and before `end`, dates and times or
    /// seconds as the file has them; lengths go with their times.
    pub(super) fn between(
        &self,
        start: Option<&str>,
        end: Option<&str>,
    ) -> Result<Self, WorkloadError> {
        let bound = |text: Option<&str>, none: f64| match text {
            None => Ok(none),
            Some(text) => {
                let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite());
                seconds.or_else(|| parse_date_time(text)).ok_or_else(|| {
                    WorkloadError::new(format!(
                        "`{text}` is neither a date and time such as `1970-01-04 12:00:00` nor a \
                         number of seconds"
                    ))
                })
            }
        };
        let (start_s, end_s) = (bound(start, f64::NEG_INFINITY)?, bound(end, f64::INFINITY)?);
        let times = self.arrivals_s.iter().flatten();
        let kept: Vec<usize> = times
            .enumerate()
            .filter(|(_, time)| {
                (self.origin_s + **time) > start_s && (self.origin_s + **time) < end_s
            })
            .map(|(index, _)| index)
            .collect();
        let Some(first) = kept.first() else {
            let message = format!(
                "has no requests after {} and before {}",
                start.unwrap_or("its start"),
                end.unwrap_or("its end")
            );
            return Err(WorkloadError::in_file(&self.name, message));
        };
        let first_s = self.arrivals_s.as_ref().map_or(0.0, |times| times[*first]);
        let times = |times: &Vec<f64>| kept.iter().map(|i| times[*i] - first_s).collect();
        let lengths = |lengths: &Vec<Lengths>| kept.iter().map(|i| lengths[*i]).collect();
        Ok(Self {
            name: self.name.clone(),
            lengths: self.lengths.as_ref().map(lengths),
            arrivals_s: self.arrivals_s.as_ref().map(times),
            origin_s: self.origin_s + first_s,
        })
    }
}

/// Seconds since 1970-01-01 of `YYYY-MM-DD HH:MM:SS[.fraction]`, with `T` for
/// the blank and a zero offset (`Z`, `+00:00`) if any.
pub(super) fn parse_date_time(text: &str) -> Option<f64> {
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let hour: u32 = time.next()?.parse().ok()?;
    let minute: u32 = time.next()?.parse().ok()?;
    let second: f64 = time.next()?.parse().ok()?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && (0.0..61.0).contains(&second)
        && date.next().is_none()
        && time.next().is_none();
    valid.then(|| {
        let seconds = days_since_1970(year, month, day) * 86_400;
        seconds as f64 + f64::from(hour * 3600 + minute * 60) + second
    })
}

/// Days of the proleptic Gregorian calendar, years starting in March so that the
/// leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

fn read_jsonl<'a>(
    file: &Path,
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Result<Rows, WorkloadError> {
    let (mut lengths, mut times_s) = (Vec::new(), Vec::new());
    for (line, text) in lines {
        let row: Value = serde_json::from_str(text).map_err(|e| {
            WorkloadError::at(file, line, e.column().max(1), format!("not JSON: {e}"))
        })?;
        let row = JsonRow {
            file,
            line,
            text,
            row: &row,
        };
        lengths.push(Lengths {
            prefill_tokens: row.tokens("input_length")?,
            decode_tokens: row.tokens("output_length")?,
        });
        if row.row.get("timestamp").is_some() {
            times_s.push(row.time_s("timestamp")?);
        }
        if !times_s.is_empty() && times_s.len() != lengths.len() {
            let message = "`timestamp` must be in every line or in none";
            return Err(WorkloadError::at(file, line, 1, message));
        }
    }
    Ok(Rows {
        lengths: Some(lengths),
        times_s: (!times_s.is_empty()).then_some(times_s),
    })
}

/// One line of a JSONL trace.
struct JsonRow<'a> {
    file: &'a Path,
    line: usize,
    text: &'a str,
    row: &'a Value,
}

impl JsonRow<'_> {
    fn tokens(&self, key: &str) -> Result<u32, WorkloadError> {
        let value = self.row.get(key).and_then(Value::as_u64);
        value
            .and_then(|v| u32::try_from(v).ok())
            .filter(|&v| v >= 1)
            .ok_or_else(|| self.error(key, &format!("a whole number from 1 to {}", u32::MAX)))
    }

    /// Milliseconds in the file.
    fn time_s(&self, key: &str) -> Result<f64, WorkloadError> {
        let value = self.row.get(key).and_then(Value::as_f64);
        value
            .map(|ms| ms / 1e3)
            .ok_or_else(|| self.error(key, "a number of milliseconds"))
    }

    fn error(&self, key: &str, allowed: &str) -> WorkloadError {
        let found = match self.row.get(key) {
            Some(value) => format!("is `{value}`"),
            None => "is missing".to_owned(),
        };
        let column = self
            .text
            .find(&format!("\"{key}\""))
            .map_or(1, |at| self.text[..at].chars().count() + 1);
        let message = format!("key `{key}` {found}; allowed is {allowed}");
        WorkloadError::at(self.file, self.line, column, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, WorkloadError> {
        read_trace(&DataFile {
            name: "t.csv".into(),
            text: text.to_owned().into(),
        })
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
             allowed is a whole number from 1 to 4294967295"
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
    }

    #[test]
    fn windows_leave_out_their_bounds() {
        let trace = read("arrived_at\n5\n7\n8\n9.5\n").unwrap();
        let times = |start, end| trace.between(start, end).map(|t| t.arrivals_s.unwrap());
        assert_eq!(times(Some("5"), None), Ok(vec![0.0, 1.0, 2.5]));
        assert_eq!(
            times(Some("1970-01-01 00:00:06"), Some("9.5")),
            Ok(vec![0.0, 1.0])
        );
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
                .starts_with("`x` is neither")
        );
    }

    #[test]
    fn dates_count_as_the_calendar_does() {
        assert_eq!(parse_date_time("1970-01-01 00:00:00"), Some(0.0));
        assert_eq!(parse_date_time("2000-03-01T00:00:00Z"), Some(951_868_800.0));
        assert_eq!(
            parse_date_time("2024-05-10 00:00:00.5+00:00"),
            Some(1_715_299_200.5)
        );
        assert_eq!(parse_date_time("2024-05-10"), None);
    }
}
