//! The one step of `explain` as text.

use std::fmt::Write as _;

use super::OperatorLine;
use super::deployment::{Phase, StepRequest};
use crate::cli::output::output_width;
use crate::report::{TextColumn, TextTable, wrapped};

/// Title, table with shares, and total.
pub(super) fn render(title: &str, step: &StepRequest, lines: &[OperatorLine]) -> String {
    let total_ms: f64 = lines.iter().map(|line| line.time_ms).sum();
    let with_total = |cell: &dyn Fn(&OperatorLine) -> String, total: &str| -> Vec<String> {
        let cells = lines.iter().map(cell);
        cells.chain([total.to_owned()]).collect()
    };
    let share = |line: &OperatorLine| format!("{:.1} %", 100.0 * line.time_ms / total_ms);
    let table = TextTable::new(
        1,
        [
            TextColumn::text("operator", with_total(&|l| l.operator.clone(), "total")),
            TextColumn::numbers("count", with_total(&|l| l.count.to_string(), "")),
            TextColumn::numbers(
                "time_ms",
                with_total(&|l| format!("{:.4}", l.time_ms), &format!("{total_ms:.4}")),
            ),
            TextColumn::numbers("share", with_total(&share, "100 %")),
            TextColumn::text("provenance", with_total(&|l| l.provenance.clone(), "")),
        ],
    );
    let width = output_width();
    let what = match step.phase {
        Phase::Prefill => format!("{} prompt tokens each", step.new_tokens),
        Phase::Decode => "one token each".into(),
    };
    let requests = match step.batch_size {
        1 => "1 request".to_owned(),
        several => format!("{several} requests"),
    };
    let step = format!(
        "{requests} per attention rank, {what}, {} tokens cached each",
        step.context_tokens
    );
    let above = format!("{title}\n{step}");
    let mut text = wrapped(above.trim_start(), width) + &table.render(width);
    text.truncate(text.trim_end().len());
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
