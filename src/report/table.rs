//! The report in a terminal: a few sentences around one table.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use super::format::{self, counted, grouped};
use super::gather::{Deployment, ListKind, Miss, SweepReport};
use super::insights::{Binding, BlockedStep};
use crate::results::schema::METRIC_COLUMNS;

/// Groups of reasons told one by one.
const REASONS_SHOWN: usize = 6;
/// Blocked steps told.
const STEPS_SHOWN: usize = 3;
/// Longest value of an axis in the table, characters.
const AXIS_CHARACTERS: usize = 34;

/// The whole report.
pub(super) fn render(report: &SweepReport, width: Option<u16>) -> String {
    let mut out = String::new();
    for section in [
        overview(report),
        reasons(report),
        listing(report, width),
        report.binding.as_ref().map(binding).unwrap_or_default(),
        files(report),
    ] {
        if !section.is_empty() {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&section);
        }
    }
    out
}

/// Joins `text` to `out`, one line. Writing to a string cannot fail.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn overview(report: &SweepReport) -> String {
    let mut out = String::new();
    let runs = &report.runs;
    if !report.complete {
        line(
            &mut out,
            format_args!(
                "This sweep is not finished: {} of {} are in; `--resume` runs the rest.",
                grouped(runs.seen),
                counted(runs.expected, "run")
            ),
        );
    }
    line(
        &mut out,
        format_args!(
            "{}: {}: {} simulated, {} infeasible, {} failed.",
            report.name,
            counted(runs.seen, "run"),
            grouped(runs.ok),
            grouped(runs.infeasible),
            grouped(runs.failed)
        ),
    );
    line(
        &mut out,
        format_args!(
            "{} of {} {}; {} on the Pareto frontier.",
            grouped(report.meeting_targets),
            counted(report.configurations, "configuration"),
            match targets(report) {
                targets if targets.is_empty() => "completed every request (no targets set)".into(),
                targets => format!("meet {targets}"),
            },
            grouped(report.on_frontier),
        ),
    );
    for note in &report.notes {
        line(&mut out, format_args!("{note}"));
    }
    out
}

/// `ttft_p90_s <= 2 s and tbt_p99_s <= 0.2 s`.
fn targets(report: &SweepReport) -> String {
    let targets = report.slo.0.iter();
    let targets: Vec<String> = targets
        .map(|(column, limit)| format!("{column} <= {}", format::limit(*limit)))
        .collect();
    targets.join(" and ")
}

fn reasons(report: &SweepReport) -> String {
    let mut out = String::new();
    for group in report.reasons.iter().take(REASONS_SHOWN) {
        let reason = if group.runs == 1 {
            &group.example
        } else {
            &group.reason
        };
        line(
            &mut out,
            format_args!(
                "{:>8} {}: {reason}",
                grouped(group.runs),
                group.status.name()
            ),
        );
    }
    let rest = &report.reasons[report.reasons.len().min(REASONS_SHOWN)..];
    if !rest.is_empty() {
        let runs: u64 = rest.iter().map(|group| group.runs).sum();
        let reasons = counted(rest.len() as u64, "more reason");
        line(&mut out, format_args!("{:>8} for {reasons}", grouped(runs)));
    }
    match out.is_empty() {
        true => out,
        false => format!("Not simulated to the end:\n{out}"),
    }
}

fn listing(report: &SweepReport, width: Option<u16>) -> String {
    if report.deployments.is_empty() {
        return "No configuration was simulated.\n".into();
    }
    let order = objective(report);
    let shown = report.deployments.len() as u64;
    let title = match report.list {
        ListKind::Best => format!(
            "Best deployments by {order} ({} of {} that meet the targets):",
            grouped(shown),
            grouped(report.meeting_targets)
        ),
        ListKind::Frontier => format!(
            "Pareto frontier, by {order} ({} of {}):",
            grouped(shown),
            grouped(report.on_frontier)
        ),
        ListKind::NearestMisses if report.meeting_targets == 0 => {
            "NO configuration meets the targets. Nearest misses:".into()
        }
        ListKind::NearestMisses => "Nearest misses:".into(),
    };
    let (table, same) = deployments(report, width);
    let mut out = format!("{title}\n{table}\n");
    if !same.is_empty() {
        let same = same.join(", ");
        line(&mut out, format_args!("In all listed: {same}."));
    }
    if !report.fixed_axes.is_empty() {
        let fixed = report.fixed_axes.iter();
        let fixed: Vec<String> = fixed
            .map(|(axis, value)| format!("{axis} = {}", format::value(Some(value))))
            .collect();
        line(&mut out, format_args!("In all runs: {}.", fixed.join(", ")));
    }
    out
}

fn objective(report: &SweepReport) -> &str {
    let objectives = &report.objectives;
    let mut all = objectives.maximize.iter().chain(&objectives.minimize);
    all.next().map_or("position in the sweep", String::as_str)
}

/// A column of the table: what it shows, and how readily it goes when the
/// terminal is narrow (0: never).
struct TableColumn {
    header: String,
    cells: Vec<String>,
    numeric: bool,
    dispensable: u8,
    /// Name of the axis, if it is one.
    axis: Option<String>,
}

impl TableColumn {
    /// An axis with one value in all of several lines.
    fn says_nothing(&self) -> bool {
        let first = self.cells.first();
        self.axis.is_some() && self.cells.len() > 1 && self.cells.iter().all(|c| Some(c) == first)
    }

    /// Width with one space on either side and one to the next column.
    fn width(&self) -> usize {
        let lines = self
            .header
            .lines()
            .chain(self.cells.iter().map(String::as_str));
        lines.map(|line| line.chars().count()).max().unwrap_or(0) + 3
    }
}

/// The table, and what had to leave it because it is the same in every line.
fn deployments(report: &SweepReport, width: Option<u16>) -> (Table, Vec<String>) {
    let mut columns = table_columns(report);
    let mut same = Vec::new();
    if let Some(width) = width {
        let too_wide = |columns: &[TableColumn]| {
            columns.iter().map(TableColumn::width).sum::<usize>() > usize::from(width)
        };
        while too_wide(&columns) {
            let most = columns.iter().map(|c| c.dispensable).max().unwrap_or(0);
            if most == 0 {
                break;
            }
            columns.retain(|column| column.dispensable < most);
        }
        while too_wide(&columns) {
            let Some(position) = columns.iter().position(TableColumn::says_nothing) else {
                break;
            };
            let column = columns.remove(position);
            same.push(format!(
                "{} = {}",
                column.axis.unwrap_or_default(),
                column.cells[0]
            ));
        }
    }
    let mut table = Table::new();
    table.load_style(match width {
        Some(_) => ruled('─'),
        None => ruled('-'),
    });
    let alignment = |column: &TableColumn| match column.numeric {
        true => CellAlignment::Right,
        false => CellAlignment::Left,
    };
    table.set_header(
        columns
            .iter()
            .map(|c| Cell::new(&c.header).set_alignment(alignment(c))),
    );
    for row in 0..report.deployments.len() {
        table.add_row(
            columns
                .iter()
                .map(|c| Cell::new(&c.cells[row]).set_alignment(alignment(c))),
        );
    }
    (table, same)
}

/// One rule under the header, nothing else.
fn ruled(rule: char) -> TableStyle {
    TableStyle::new().header_separator(LineStyle::none().fill(rule).junction(rule))
}

fn table_columns(report: &SweepReport) -> Vec<TableColumn> {
    let all = &report.deployments;
    let column =
        |header: String, numeric, dispensable, cell: &dyn Fn(&Deployment) -> String| TableColumn {
            header,
            cells: all.iter().map(cell).collect(),
            numeric,
            dispensable,
            axis: None,
        };
    let mut columns = vec![column("run".into(), true, 0, &|d| d.run_index.to_string())];
    for axis in &report.varying_axes {
        let values = || all.iter().filter_map(|d| d.axes.get(axis));
        let numeric = values().all(serde_json::Value::is_number);
        let cell = |d: &Deployment| shortened(&format::value(d.axes.get(axis)));
        columns.push(TableColumn {
            axis: Some(axis.clone()),
            ..column(stacked(axis), numeric, 0, &cell)
        });
    }
    for (name, header, dispensable) in figure_list(report) {
        let cell = |d: &Deployment| match d.figures.get(&name) {
            Some(value) => format::figure(&name, value),
            None => "-".into(),
        };
        columns.push(column(header, true, dispensable, &cell));
    }
    if report.list == ListKind::NearestMisses {
        columns.push(column("misses".into(), false, 0, &misses));
    } else if report.list == ListKind::Best && all.iter().any(|d| d.pareto) {
        columns.push(column("Pareto".into(), false, 4, &|d| {
            if d.pareto { "*".into() } else { String::new() }
        }));
    }
    columns
}

/// Figures to show: always size, speed, latency and price; the objectives and
/// targets whatever they are.
fn figure_list(report: &SweepReport) -> Vec<(String, String, u8)> {
    let asked = |name: &str| {
        let objectives = &report.objectives;
        report.slo.0.contains_key(name)
            || objectives.maximize.iter().any(|o| o == name)
            || objectives.minimize.iter().any(|o| o == name)
    };
    let usual = [
        ("total_gpus", "GPUs", 0),
        ("throughput_tokens_per_s_per_gpu", "tokens/s\nper GPU", 0),
        ("throughput_requests_per_s", "requests\n/s", 5),
        ("ttft_p50_s", "TTFT\np50", 3),
        ("ttft_p90_s", "TTFT\np90", 2),
        ("ttft_p99_s", "TTFT\np99", 0),
        ("tbt_p50_s", "TBT\np50", 3),
        ("tbt_p99_s", "TBT\np99", 0),
        ("slo_attainment", "meet all\ntargets", 4),
        ("cost_usd_per_million_tokens", "per Mtoken\nout", 0),
    ];
    let mut figures: Vec<(String, String, u8)> = Vec::new();
    for (name, header, dispensable) in usual {
        let dispensable = if asked(name) { 0 } else { dispensable };
        let empty = report
            .deployments
            .iter()
            .all(|d| d.figures.get(name).is_none());
        if !empty || asked(name) {
            figures.push((name.into(), header.into(), dispensable));
        }
    }
    for column in METRIC_COLUMNS.iter().map(|c| c.name) {
        if asked(column) && !figures.iter().any(|(name, ..)| name == column) {
            figures.push((column.into(), stacked(column), 0));
        }
    }
    figures
}

/// What a deployment misses: targets beyond their limit, requests not done.
fn misses(deployment: &Deployment) -> String {
    let mut parts = Vec::new();
    if deployment.incomplete_fraction > 0.0 {
        let share = format::percent(deployment.incomplete_fraction);
        parts.push(format!("{share} not completed"));
    }
    if let Some(Miss {
        column,
        value,
        limit,
    }) = &deployment.tightest
        && value > limit
    {
        parts.push(format!("{column} +{:.0} %", (value / limit - 1.0) * 100.0));
    }
    parts.join(", ")
}

/// A long name over several lines, cut where words meet; of a dotted key the
/// last part.
fn stacked(name: &str) -> String {
    let name = name.rsplit('.').next().unwrap_or(name);
    let mut lines: Vec<String> = Vec::new();
    for word in name.split('_') {
        match lines.last_mut() {
            Some(last) if last.len() + word.len() < 9 => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.join("\n")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(AXIS_CHARACTERS) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn binding(binding: &Binding) -> String {
    let mut out = String::new();
    if let Some(Miss {
        column,
        value,
        limit,
    }) = &binding.tightest
    {
        line(
            &mut out,
            format_args!(
                "Tightest target of the best one (run {}): {column} is at {:.0} % of its limit ({} of {}).",
                binding.run_index,
                value / limit * 100.0,
                format::figure(column, *value),
                format::limit(*limit),
            ),
        );
    }
    match binding.steps.first() {
        None => line(
            &mut out,
            format_args!(
                "No single step along an axis that this sweep tried is both better and ruled out."
            ),
        ),
        Some(first) => line(&mut out, format_args!("What binds it: {}.", step(first))),
    }
    for blocked in binding.steps.iter().take(STEPS_SHOWN).skip(1) {
        line(&mut out, format_args!("Also: {}.", step(blocked)));
    }
    if !binding.shared.is_empty() {
        let shared = binding.shared.iter();
        let shared: Vec<String> = shared
            .map(|(axis, value)| format!("{axis} = {}", format::value(Some(value))))
            .collect();
        line(
            &mut out,
            format_args!(
                "The best {} share {}.",
                binding.shared_among,
                shared.join(", ")
            ),
        );
    }
    out
}

fn step(blocked: &BlockedStep) -> String {
    let change = format!(
        "{} {} -> {}",
        blocked.axis,
        format::value(Some(&blocked.from)),
        format::value(Some(&blocked.to))
    );
    let because = blocked.because.trim_end_matches('.');
    match blocked.would_be_better {
        Some(_) => format!("{change} would be better, but {because}"),
        None => format!("{change} cannot be deployed: {because}"),
    }
}

fn files(report: &SweepReport) -> String {
    let what = match report.files.is_empty() {
        true => "finished parts".into(),
        false => report.files.join(", "),
    };
    format!("Results are in {} ({what}).\n", report.directory)
}
