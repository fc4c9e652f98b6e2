//! Joint histograms of prompt and output lengths: a small stand-in for a trace.
//!
//! A file has the columns `prefill_min,prefill_max,decode_min,decode_max,count`,
//! one bin a row, bounds included, and `#` lines for where it comes from. A
//! request is drawn by choosing a bin by its count, then both lengths uniformly
//! within its bounds.

use rand::{Rng, RngExt};

use super::limits::{MOST_TOKENS, check_lengths};
use super::trace::content_lines;
use super::{DataFile, Lengths, WorkloadError, split_cells};
use crate::input_file::shown;
use crate::number::whole_usize;

/// Columns of a histogram file, in order.
const COLUMNS: [&str; 5] = [
    "prefill_min",
    "prefill_max",
    "decode_min",
    "decode_max",
    "count",
];

/// Shares of requests at which [`LengthHistogram::from_lengths`] ends a bin: a
/// coarse grid, and the percentiles people quote, so that those are exact.
pub const BIN_LEVELS: [f64; 36] = [
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
    0.775, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995,
    0.9975, 0.999, 0.9995, 1.0,
];

/// Requests whose lengths lie within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bin {
    prefill: (u32, u32),
    decode: (u32, u32),
}

/// A joint histogram of prompt and output lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LengthHistogram {
    bins: Vec<Bin>,
    /// Requests in the bins up to and including each.
    cumulative: Vec<u64>,
}

/// Whether `text` is a length histogram rather than a trace.
pub(super) fn is_histogram(text: &str) -> bool {
    content_lines(text)
        .next()
        .is_some_and(|(_, header)| split_cells(header).iter().any(|c| c.text == COLUMNS[0]))
}

impl LengthHistogram {
    /// Bins the lengths of a trace: each dimension is cut at the quantiles
    /// `levels` (which end with 1), a bin's bounds being the shortest and the
    /// longest length that fell between its cuts.
    pub fn from_lengths(lengths: &[Lengths], levels: &[f64]) -> Self {
        let prefill = cut(lengths.iter().map(|l| l.prefill_tokens), levels);
        let decode = cut(lengths.iter().map(|l| l.decode_tokens), levels);
        let mut counts = std::collections::BTreeMap::<_, u64>::new();
        for l in lengths {
            let at = (
                prefill.partition_point(|&(_, most)| most < l.prefill_tokens),
                decode.partition_point(|&(_, most)| most < l.decode_tokens),
            );
            *counts.entry(at).or_default() += 1;
        }
        let bins = counts.iter().map(|(&(p, d), &count)| {
            let bin = Bin {
                prefill: prefill[p],
                decode: decode[d],
            };
            (bin, count)
        });
        Self::from_bins(bins)
    }

    fn from_bins(bins: impl Iterator<Item = (Bin, u64)>) -> Self {
        let mut total = 0;
        let (bins, cumulative) = bins
            .map(|(bin, count)| {
                total += count;
                (bin, total)
            })
            .unzip();
        Self { bins, cumulative }
    }

    /// Reads a histogram file.
    pub fn read(file: &DataFile) -> Result<Self, WorkloadError> {
        let name = &file.name;
        let mut lines = content_lines(&file.text);
        let Some((line, header)) = lines.next() else {
            return Err(WorkloadError::in_file(name, "is empty"));
        };
        let columns: Vec<_> = split_cells(header).into_iter().map(|c| c.text).collect();
        if columns != COLUMNS {
            let message = format!(
                "header is `{}`; a length histogram has `{}`",
                shown(header.trim()),
                COLUMNS.join(",")
            );
            return Err(WorkloadError::at(name, line, 1, message));
        }
        let bins: Vec<_> = lines
            .map(|(line, text)| read_bin(file, line, text))
            .collect::<Result<_, _>>()?;
        if bins.is_empty() {
            return Err(WorkloadError::in_file(name, "has no bins"));
        }
        Ok(Self::from_bins(bins.into_iter()))
    }

    /// Header and bins as a file has them, without comments.
    pub fn to_csv(&self) -> String {
        let mut text = COLUMNS.join(",") + "\n";
        let mut before = 0;
        for (bin, &cumulative) in self.bins.iter().zip(&self.cumulative) {
            let (p, d, count) = (bin.prefill, bin.decode, cumulative - before);
            text += &format!("{},{},{},{},{count}\n", p.0, p.1, d.0, d.1);
            before = cumulative;
        }
        text
    }

    /// Requests counted.
    pub fn total(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    /// Bins.
    pub fn len(&self) -> usize {
        self.bins.len()
    }

    /// Whether there are no bins.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Upper bounds of prompts and outputs.
    pub(super) fn longest(&self) -> Lengths {
        Lengths {
            prefill_tokens: self.bins.iter().map(|bin| bin.prefill.1).max().unwrap_or(1),
            decode_tokens: self.bins.iter().map(|bin| bin.decode.1).max().unwrap_or(1),
        }
    }

    /// Draws one request; always three draws.
    pub(super) fn sample(&self, rng: &mut impl Rng) -> Lengths {
        let rank = rng.random_range(0..self.total());
        let bin = self.bins[self.cumulative.partition_point(|&upto| upto <= rank)];
        Lengths {
            prefill_tokens: rng.random_range(bin.prefill.0..=bin.prefill.1),
            decode_tokens: rng.random_range(bin.decode.0..=bin.decode.1),
        }
    }
}

/// Least and greatest value between consecutive quantiles.
fn cut(values: impl Iterator<Item = u32>, levels: &[f64]) -> Vec<(u32, u32)> {
    let mut sorted: Vec<u32> = values.collect();
    sorted.sort_unstable();
    let mut bounds: Vec<(u32, u32)> = Vec::new();
    let mut start = 0;
    for level in levels {
        let end = whole_usize((level * sorted.len() as f64).ceil()).clamp(1, sorted.len());
        let most = sorted[end - 1];
        let end = sorted.partition_point(|&v| v <= most);
        if end > start {
            bounds.push((sorted[start], most));
            start = end;
        }
    }
    bounds
}

fn read_bin(file: &DataFile, line: usize, text: &str) -> Result<(Bin, u64), WorkloadError> {
    let cells = split_cells(text);
    let error =
        |column: usize, message: String| WorkloadError::at(&file.name, line, column, message);
    if cells.len() != COLUMNS.len() {
        let message = format!("{} cells where a bin has {}", cells.len(), COLUMNS.len());
        return Err(error(1, message));
    }
    let mut values = [0u32; COLUMNS.len()];
    for (at, cell) in cells.iter().enumerate() {
        // An upper bound starts where its lower bound is.
        let least = if at == 1 || at == 3 {
            values[at - 1]
        } else {
            1
        };
        // The last column counts requests.
        let most = if at == 4 { u32::MAX } else { MOST_TOKENS };
        let value = cell.text.parse::<u32>().ok();
        let value = value.filter(|v| (least..=most).contains(v));
        values[at] = value.ok_or_else(|| {
            let message = format!(
                "column `{}` is `{}`; allowed is a whole number from {least} to {most}",
                COLUMNS[at],
                shown(&cell.text),
            );
            error(cell.column, message)
        })?;
    }
    let longest = Lengths {
        prefill_tokens: values[1],
        decode_tokens: values[3],
    };
    check_lengths(longest).map_err(|e| e.placed(&file.name, line, 1))?;
    let bin = Bin {
        prefill: (values[0], values[1]),
        decode: (values[2], values[3]),
    };
    Ok((bin, u64::from(values[4])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(prefill_tokens: u32, decode_tokens: u32) -> Lengths {
        Lengths {
            prefill_tokens,
            decode_tokens,
        }
    }

    fn file(text: &str) -> DataFile {
        DataFile {
            name: "h.csv".into(),
            text: text.to_owned().into(),
        }
    }

    #[test]
    fn bins_cover_every_request_and_survive_writing_and_reading() {
        let trace: Vec<_> = (0..1000)
            .map(|i| lengths(1 + i * i % 977, 1 + i % 7))
            .collect();
        let histogram = LengthHistogram::from_lengths(&trace, &BIN_LEVELS);
        assert_eq!(histogram.total(), 1000);
        assert!(histogram.bins.iter().any(|bin| bin.prefill.1 == 977));
        let read = LengthHistogram::read(&file(&format!("# from\n{}", histogram.to_csv())));
        assert_eq!(read, Ok(histogram));
    }

    #[test]
    fn malformed_bins_are_named_by_line_and_column() {
        let message = |rows: &str| {
            let text = format!("{}\n{rows}", COLUMNS.join(","));
            LengthHistogram::read(&file(&text)).unwrap_err().to_string()
        };
        assert_eq!(
            message("5,4,1,1,1\n"),
            "h.csv:2:3: column `prefill_max` is `4`; allowed is a whole number from 5 to 16777216"
        );
        assert!(message("5,5,1,1,0\n").starts_with("h.csv:2:9: column `count` is `0`"));
        assert!(message("5,5,1\n").starts_with("h.csv:2:1: 3 cells"));
        assert!(message("").ends_with("has no bins"));
    }
}
