//! The one step of `explain` as text.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::OperatorLine;
use super::deployment::{Deployment, Phase, StepRequest};

/// Title, placement, table with shares, and total.
pub(super) fn render(
    deployment: &Deployment,
    replicas: u32,
    step: &StepRequest,
    lines: &[OperatorLine],
) -> String {
    let total_ms: f64 = lines.iter().map(|line| line.time_ms).sum();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["operator", "count", "time ms", "share", "provenance"]);
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in lines {
        table.add_row([
            line.operator.clone(),
            format!("{}", line.count),
            format!("{:.4}", line.time_ms),
            format!("{:.1} %", 100.0 * line.time_ms / total_ms),
            line.provenance.clone(),
        ]);
    }
    table.add_row(["total", "", &format!("{total_ms:.4}"), "100 %", ""]);
    let what = match step.phase {
        Phase::Prefill => format!("{} prompt tokens each", step.new_tokens),
        Phase::Decode => "one token each".into(),
    };
    let mut text = String::new();
    let _ = writeln!(text, "{}", deployment.title());
    let _ = writeln!(text, "{}", deployment.site(replicas).text(false));
    let _ = writeln!(
        text,
        "{} requests per attention rank, {what}, {} tokens cached each",
        step.batch_size, step.context_tokens
    );
    let _ = write!(text, "{table}");
    text
}

/// Lines as CSV.
pub(super) fn csv(lines: &[OperatorLine]) -> String {
    let mut text = String::from("operator,count,time_ms,provenance\n");
    for line in lines {
        let provenance = line.provenance.replace('"', "\"\"");
        let _ = writeln!(
            text,
            "{},{},{:e},\"{provenance}\"",
            line.operator, line.count, line.time_ms
        );
    }
    text.truncate(text.trim_end().len());
    text
}
