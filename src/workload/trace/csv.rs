//! Traces as comma-separated values, told apart by their header.

use std::path::Path;

use super::{Lengths, Rows, TimeUnit, check_rows, parse_date_time};
use crate::input_file::shown;
use crate::number::whole_u32;
use crate::workload::limits::{MOST_TOKENS, check_lengths};
use crate::workload::{Cell, WorkloadError, split_cells};

#[derive(Clone, Copy)]
enum TimeFormat {
    Number(TimeUnit),
    DateTime,
}

/// Columns of a CSV trace: name and position in the row.
pub(super) struct CsvFormat {
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
    /// Recognises a header; numbers of time are in `time_unit`, or in seconds.
    pub(super) fn detect(
        file: &Path,
        (line, header): (usize, &str),
        time_unit: Option<TimeUnit>,
    ) -> Result<Self, WorkloadError> {
        let cells = split_cells(header);
        let find = |name: &'static str| {
            let at = cells.iter().position(|cell| cell.text == name)?;
            Some((name, at))
        };
        let timed = |name, format| find(name).map(|(name, at)| (name, at, format));
        let number = TimeFormat::Number(time_unit.unwrap_or(TimeUnit::Seconds));
        let known = [
            (
                timed("arrived_at", number),
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
                timed("Timestamp", number),
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
                "unknown header `{}`; a trace starts with one of {CSV_HEADERS}, or is JSON lines \
                 (docs/spec.md lists their keys)",
                shown(header.trim())
            );
            return Err(WorkloadError::at(file, line, 1, message));
        };
        if let (Some((name, _, TimeFormat::DateTime)), Some(unit)) = (time, time_unit) {
            let message = format!(
                "column `{name}` holds dates and times: leave out `time_unit: {}`",
                unit.name()
            );
            return Err(WorkloadError::in_file(file, message).at_key("workload.arrivals.time_unit"));
        }
        Ok(Self {
            time,
            prefill,
            decode,
            skip_failed,
            columns: cells.len(),
        })
    }

    /// Reads the rows below the header.
    pub(super) fn read<'a>(
        &self,
        file: &Path,
        lines: impl Iterator<Item = (usize, &'a str)>,
    ) -> Result<Rows, WorkloadError> {
        let mut rows = Rows {
            lengths: self.prefill.map(|_| Vec::new()),
            times_s: self.time.map(|_| Vec::new()),
            notes: Vec::new(),
        };
        for (index, (line, text)) in lines.enumerate() {
            check_rows(file, line, index)?;
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
                let found = Lengths {
                    prefill_tokens: row.tokens(prefill, least)?,
                    decode_tokens: row.tokens(decode, least)?,
                };
                if found.prefill_tokens == 0 || found.decode_tokens == 0 {
                    continue;
                }
                let column = cells[prefill.1].column;
                lengths.push(check_lengths(found).map_err(|e| e.placed(file, line, column))?);
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
        let value = self.cells[at].text.parse::<f64>().ok();
        value
            .filter(|v| v.fract() == 0.0 && *v >= f64::from(least) && *v <= f64::from(MOST_TOKENS))
            .map(whole_u32)
            .ok_or_else(|| {
                let allowed = format!("a whole number from {least} to {MOST_TOKENS}");
                self.error(name, at, &allowed)
            })
    }

    fn time_s(&self, (name, at, format): (&str, usize, TimeFormat)) -> Result<f64, WorkloadError> {
        let text = &self.cells[at].text;
        match format {
            TimeFormat::Number(unit) => {
                let value = text.parse::<f64>().ok().filter(|v| v.is_finite());
                let value = value.map(|v| unit.to_seconds(v));
                value.ok_or_else(|| {
                    self.error(name, at, &format!("a number of {}", unit.in_words()))
                })
            }
            TimeFormat::DateTime => parse_date_time(text).ok_or_else(|| {
                let allowed = "a date and time like `2023-11-16 18:15:46.6805900`";
                self.error(name, at, allowed)
            }),
        }
    }

    fn error(&self, column: &str, at: usize, allowed: &str) -> WorkloadError {
        let cell = &self.cells[at];
        let found = shown(&cell.text);
        let message = format!("column `{column}` is `{found}`; allowed is {allowed}");
        WorkloadError::at(self.file, self.line, cell.column, message)
    }
}
