//! Results told to a person: what came out, in the terminal, as JSON or CSV,
//! and as a page to open in a browser.
//!
//! [`gather`] reads a result directory, finished or not, and condenses it into
//! a [`SweepReport`]; [`write_report`] prints one, [`html::write`] makes the
//! page. Knows nothing of how results came about.

mod answer;
mod capacity;
mod deployment;
mod figures;
mod format;
mod gather;
pub mod html;
mod insights;
mod simulation;
mod table;
mod text_table;

use std::io::{self, Write};

use clap::ValueEnum;

use crate::results::{ClaimedDirectory, SummaryReader};

pub use capacity::{
    CapacityReport, Demand, Holder, Provision, write_capacity, write_page_and_gather_capacity,
};
pub use deployment::{Deployment, Miss};
pub use figures::Figures;
pub use gather::{GatherOptions, Grounds, ListKind, ReportError, RunTotals, SweepReport, gather};
pub use simulation::simulation_text;
pub use text_table::{LEAST_WIDTH, TextColumn, TextTable, wrapped};

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReportFormat {
    /// Sentences and a table, for people.
    #[default]
    Table,
    /// The whole report as one JSON object.
    Json,
    /// The listed deployments, one a line.
    Csv,
}

/// Makes the page, and condenses the directory to the best deployments, at most `limit`
/// of them, by the sweep's own targets and objectives: one look at the runs does for both.
///
/// # Errors
/// If the results cannot be read or the page cannot be written.
pub fn write_page_and_gather(
    reader: &SummaryReader,
    dir: &ClaimedDirectory,
    limit: Option<usize>,
) -> Result<SweepReport, ReportError> {
    let overview = gather::overview(reader)?;
    html::write_with(reader, dir, &overview)?;
    let options = GatherOptions {
        limit,
        ..GatherOptions::default()
    };
    gather::condense(reader, &overview, &options)
}

/// Prints a report, for people in lines of at most `width` characters.
pub fn write_report(
    report: &SweepReport,
    format: ReportFormat,
    width: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        ReportFormat::Table => out.write_all(table::render(report, width).as_bytes()),
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)
        }
        ReportFormat::Csv => write_csv(report, out),
    }
}

/// Rank, identity, axes, every figure of `summary.parquet`, and what they rest on.
fn write_csv(report: &SweepReport, out: &mut impl Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let axes = || report.varying_axes.iter().chain(report.fixed_axes.keys());
    let fixed = [
        "rank",
        "run_index",
        "run_id",
        "replications",
        "slo_met",
        "slo_verdict",
        "load_verdict",
        "pareto",
    ];
    let mut header: Vec<&str> = fixed.to_vec();
    header.extend(axes().map(String::as_str));
    header.extend(Figures::names());
    header.push("assumptions");
    csv.write_record(&header)?;
    for (rank, deployment) in report.deployments.iter().enumerate() {
        let mut record = vec![
            (rank + 1).to_string(),
            deployment.run_index.to_string(),
            deployment.run_id.clone(),
            deployment.replications.to_string(),
            deployment.slo_met.to_string(),
            deployment.slo_verdict.to_owned(),
            deployment.load_verdict.unwrap_or_default().to_owned(),
            deployment.pareto.to_string(),
        ];
        record.extend(axes().map(|axis| format::exact_value(deployment.axes.get(axis))));
        let figures = deployment.figures.values().iter();
        record.extend(figures.map(|figure| figure.map_or_else(String::new, |f| f.to_string())));
        record.push(deployment.assumptions.join("\n"));
        csv.write_record(&record)?;
    }
    csv.flush()
}
