//! `report.html`: one file that needs nothing else, no network either. The page
//! is a fixed template; the data stands in it as JSON, and its script puts every
//! value on the page as text.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::Figures;
use super::deployment::{Deployment, describe};
use super::gather::{
    GatherOptions, ListKind, Overview, ReportError, SweepReport, condense, overview,
};
use crate::number::{narrow, whole_i32};
use crate::output_file;
use crate::results::{ClaimedDirectory, SummaryReader};

/// Configurations a page holds; beyond, a browser gets slow and the tables are
/// the better tool.
const ROWS_MAX: usize = 5_000;

/// About what one of them takes in a page.
const ROW_BYTES: usize = 640;

const FILE: &str = "report.html";
const TEMPLATE: &str = include_str!("report.html");
const PLACE: &str = "__DATA__";

#[derive(Serialize)]
struct Page<'a> {
    report: &'a SweepReport,
    figures: &'static [&'static str],
    rows: Vec<Row<'a>>,
    /// Simulated configurations that are not in `rows`.
    left_out: usize,
}

/// One configuration: values in the order of the varying axes and of the
/// figures; names once per page instead of once per row keep it small.
#[derive(Serialize)]
struct Row<'a> {
    run_index: u64,
    run_id: &'a str,
    replications: u32,
    slo_met: bool,
    slo_verdict: &'static str,
    slo_probability: f64,
    /// None where all of a run was measured.
    load_verdict: Option<&'static str>,
    pareto: bool,
    axes: Vec<&'a Value>,
    figures: Vec<Option<f64>>,
}

impl<'a> Row<'a> {
    fn new(deployment: &'a Deployment, report: &SweepReport) -> Self {
        let figures = deployment.figures.values().iter();
        let axes = report.varying_axes.iter();
        Self {
            run_index: deployment.run_index,
            run_id: &deployment.run_id,
            replications: deployment.replications,
            slo_met: deployment.slo_met,
            slo_verdict: deployment.slo_verdict,
            slo_probability: rounded(deployment.slo_probability),
            load_verdict: deployment.load_verdict,
            pareto: deployment.pareto,
            axes: axes
                .map(|axis| deployment.axes.get(axis).unwrap_or(&Value::Null))
                .collect(),
            figures: figures.map(|figure| figure.map(rounded)).collect(),
        }
    }
}

/// Six significant digits: what a page can show, at a third of the size.
fn rounded(value: f64) -> f64 {
    let decimals = 5i32.saturating_sub(whole_i32(value.abs().log10().floor()));
    // Powers of ten up to the 22nd are exact, so what is divided by one is the number
    // nearest to the decimal one, which is how it is written.
    match decimals {
        0..=22 => (value * 10f64.powi(decimals)).round() / 10f64.powi(decimals),
        -22..0 => (value / 10f64.powi(-decimals)).round() * 10f64.powi(-decimals),
        _ => value,
    }
}

/// Writes the page into the result directory; gives its path.
///
/// # Errors
/// If the results cannot be read or the page cannot be written.
pub fn write(reader: &SummaryReader, dir: &ClaimedDirectory) -> Result<PathBuf, ReportError> {
    write_with(reader, dir, &overview(reader)?)
}

/// The same for those who have looked at the runs.
pub(super) fn write_with(
    reader: &SummaryReader,
    dir: &ClaimedDirectory,
    overview: &Overview,
) -> Result<PathBuf, ReportError> {
    let path = dir.path().join(FILE);
    let page = render(reader, overview)?;
    match output_file::write_whole(&path, page.as_bytes()) {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::Io { path, source }),
    }
}

/// The page: configurations that meet the targets best first, then the misses,
/// nearest first.
fn render(reader: &SummaryReader, overview: &Overview) -> Result<String, ReportError> {
    let options = GatherOptions {
        list: ListKind::Best,
        limit: Some(0),
        ..GatherOptions::default()
    };
    let mut report = condense(reader, overview, &options)?;
    // The page is the same wherever the directory lies and whatever is in it by now.
    report.directory.clear();
    report.files.clear();
    let selection = &overview.selection;
    let mut positions = selection.best(ROWS_MAX);
    positions.extend(selection.nearest_misses(ROWS_MAX - positions.len()));
    let deployments = describe(reader, selection, &positions)?;
    let row = |deployment| Row::new(deployment, &report);
    let page = Page {
        left_out: narrow::<usize, _>(report.configurations).saturating_sub(deployments.len()),
        report: &report,
        rows: deployments.iter().map(row).collect(),
        figures: Figures::names(),
    };
    fill_in(&page).map_err(|source| ReportError::Io {
        path: reader.dir().join(FILE),
        source,
    })
}

/// The template with `page` in it, put together in one piece of memory: pages are large,
/// and copies of them cost more than what is in them.
fn fill_in(page: &Page<'_>) -> io::Result<String> {
    let parts = TEMPLATE.split_once(PLACE);
    let (head, tail) = parts.expect("the template has a place for the data");
    let mut html = Vec::with_capacity(TEMPLATE.len() + (1 + page.rows.len()) * ROW_BYTES);
    html.extend_from_slice(head.as_bytes());
    serde_json::to_writer(Embedded(&mut html), page)?;
    html.extend_from_slice(tail.as_bytes());
    String::from_utf8(html).map_err(io::Error::other)
}

/// Takes JSON so that it cannot end the element it stands in: no `<` is left as such.
struct Embedded<'a>(&'a mut Vec<u8>);

impl Write for Embedded<'_> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        for (nth, part) in json.split(|&byte| byte == b'<').enumerate() {
            if nth > 0 {
                self.0.extend_from_slice(b"\\u003c");
            }
            self.0.extend_from_slice(part);
        }
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_the_element_it_stands_in() {
        let mut json = Vec::new();
        let text = "</script><b>\u{e9} < ";
        serde_json::to_writer(Embedded(&mut json), &[text, "<"]).unwrap();
        assert!(!json.contains(&b'<'));
        assert_eq!(
            serde_json::from_slice::<[String; 2]>(&json).unwrap(),
            [text, "<"]
        );
    }

    #[test]
    fn six_digits_are_written() {
        for (value, written) in [
            (0.0, "0.0"),
            (-0.123_456_789, "-0.123457"),
            (1.0 / 3.0 * 1e-7, "3.33333e-8"),
            (999_999.96, "1000000.0"),
            (12_345_678.9, "12345700.0"),
            (2.5, "2.5"),
            (9.876_543_21e15, "9876540000000000.0"),
            (1e-300, "1e-300"),
        ] {
            assert_eq!(serde_json::json!(rounded(value)).to_string(), written);
        }
        assert!(rounded(f64::NAN).is_nan() && rounded(f64::INFINITY).is_infinite());
    }
}
