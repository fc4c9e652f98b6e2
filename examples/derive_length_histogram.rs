//! Derives a length histogram from a trace: how `data/traces/*.csv` were made.
//!
//! ```text
//! cargo run --example derive_length_histogram -- TRACE "source line" ["source line" ...] > HISTOGRAM
//! ```

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests and benches count what is small"
)]

use std::path::Path;
use std::process::ExitCode;

use vidur_sweep::workload::histogram::BIN_LEVELS;
use vidur_sweep::workload::{DataFiles, LengthHistogram, WorkloadError, read_trace};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(file) = args.next() else {
        eprintln!("usage: derive_length_histogram TRACE [SOURCE_LINE...]");
        return ExitCode::from(2);
    };
    match derive(Path::new(&file), &args.collect::<Vec<_>>()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn derive(file: &Path, source_lines: &[String]) -> Result<String, WorkloadError> {
    let trace = read_trace(&DataFiles::default().read(file)?, None)?;
    let lengths = trace
        .lengths
        .ok_or_else(|| WorkloadError::in_file(file, "has no request lengths"))?;
    let histogram = LengthHistogram::from_lengths(&lengths, &BIN_LEVELS);
    let mut text =
        String::from("# Joint histogram of prompt (prefill) and output (decode) tokens.\n");
    for line in source_lines {
        text += &format!("# {line}\n");
    }
    text += &format!(
        "# Derived with examples/derive_length_histogram.rs: each length cut at {} quantiles,\n\
         # bin bounds inclusive; draw a bin by count, then both lengths uniformly within it.\n\
         # Requests: {}, bins: {}.\n",
        BIN_LEVELS.len(),
        histogram.total(),
        histogram.len()
    );
    if let Some(times) = trace.arrivals_s {
        let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        text += &format!(
            "# Inter-arrival times: mean {mean:.6} s ({:.4} requests/s), coefficient of variation {:.4}.\n",
            mean.recip(),
            variance.sqrt() / mean
        );
    }
    Ok(text + &histogram.to_csv())
}
