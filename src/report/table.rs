//! The report in a terminal: a few sentences around one table.

use std::fmt::Write as _;

use super::deployment::{Deployment, Miss};
use super::format::{self, counted, grouped};
use super::gather::{ListKind, SweepReport};
use super::insights::Binding;
use super::text_table::{TextColumn, TextTable, wrapped};
use crate::results::SloVerdict;
use crate::results::schema::METRIC_COLUMNS;
use crate::select::ReasonGroup;
use crate::spec::columns::interval_ends;

/// Groups of reasons told one by one.
const REASONS_SHOWN: usize = 6;
/// Blocked steps told.
const STEPS_SHOWN: usize = 3;
/// Longest value of an axis in the table, characters.
const AXIS_CHARACTERS: usize = 80;

/// The whole report, in lines of at most `width` characters.
pub(super) fn render(report: &SweepReport, width: usize) -> String {
    let sections = [
        wrapped(&overview(report), width),
        wrapped(&(report.answer.sentences.join(" ") + "\n"), width),
        wrapped(&reasons(&report.reasons), width),
        listing(report, width),
        wrapped(&assumptions(report), width),
        wrapped(
            &report.binding.as_ref().map(binding).unwrap_or_default(),
            width,
        ),
        wrapped(&files(report), width),
    ];
    let sections = sections.into_iter().filter(|section| !section.is_empty());
    sections.collect::<Vec<_>>().join("\n")
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
    let unsure = match report.unsure {
        0 => String::new(),
        unsure => format!("; {} unsure", grouped(unsure)),
    };
    line(
        &mut out,
        format_args!(
            "{} of {} {}{unsure}; {} on the Pareto frontier.",
            grouped(report.meeting_targets),
            counted(report.configurations, "configuration"),
            match targets(report) {
                targets if targets.is_empty() => "completed every request (no targets set)".into(),
                targets => format!("meet {targets}"),
            },
            grouped(report.on_frontier),
        ),
    );
    if report.saturated + report.too_short > 0 {
        let loads = [
            (
                report.saturated,
                "saturated: more is offered than they serve",
            ),
            (report.too_short, "seen for too short a time to tell"),
        ];
        let loads = loads.iter().filter(|(count, _)| *count > 0);
        let loads: Vec<String> = loads
            .map(|(count, what)| format!("{} {what}", grouped(*count)))
            .collect();
        line(&mut out, format_args!("Load: {}.", loads.join("; ")));
    }
    for note in &report.notes {
        line(&mut out, format_args!("{note}"));
    }
    out
}

/// `ttft_p90_s <= 2 s and tbt_p99_s <= 200 ms`.
fn targets(report: &SweepReport) -> String {
    let targets: Vec<String> = report.bounds.iter().map(format::bound).collect();
    let targets = targets.join(" and ");
    let Some(of_each) = &report.slo.per_request else {
        return targets;
    };
    let of_each = [
        ("TTFT", of_each.ttft_s),
        ("mean time per output token", of_each.tbt_s),
        ("longest time between tokens", of_each.stall_s),
        ("end to end", of_each.e2e_s),
    ];
    let of_each: Vec<String> = of_each
        .iter()
        .filter_map(|(what, limit)| Some(format!("{what} <= {}", format::limit("_s", (*limit)?))))
        .collect();
    format!("{targets} (of each request {})", of_each.join(", "))
}

/// Why configurations were not simulated to the end, a group of them a line.
pub(super) fn reasons(groups: &[ReasonGroup]) -> String {
    let mut out = String::new();
    for group in groups.iter().take(REASONS_SHOWN) {
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
    let rest = &groups[groups.len().min(REASONS_SHOWN)..];
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

fn listing(report: &SweepReport, width: usize) -> String {
    if report.deployments.is_empty() {
        return wrapped("No configuration was simulated.", width);
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
    let table = TextTable::new(1, table_columns(report)).render(width);
    let mut out = format!("{}{table}", wrapped(&title, width));
    if !report.fixed_axes.is_empty() {
        let fixed = report.fixed_axes.iter();
        let fixed: Vec<String> = fixed
            .map(|(axis, value)| format!("{axis} = {}", format::value(Some(value))))
            .collect();
        out += &wrapped(&format!("In all runs: {}.", fixed.join(", ")), width);
    }
    out
}

fn objective(report: &SweepReport) -> &str {
    let objectives = &report.objectives;
    let mut all = objectives.maximize.iter().chain(&objectives.minimize);
    all.next().map_or("position in the sweep", String::as_str)
}

fn table_columns(report: &SweepReport) -> Vec<TextColumn> {
    let all = &report.deployments;
    let cells =
        |cell: &dyn Fn(&Deployment) -> String| -> Vec<String> { all.iter().map(cell).collect() };
    let mut columns = vec![TextColumn::numbers(
        "run",
        cells(&|d| d.run_index.to_string()),
    )];
    // Places that several share say that their order means nothing.
    let places = || all.iter().filter_map(|d| d.rank);
    if places().zip(1..).any(|(place, at)| place != at) {
        let place = |d: &Deployment| d.rank.map_or_else(String::new, |place| place.to_string());
        columns.insert(0, TextColumn::numbers("rank", cells(&place)));
    }
    for axis in &report.varying_axes {
        let mut values = all.iter().filter_map(|d| d.axes.get(axis));
        let cells = cells(&|d| shortened(&format::value(d.axes.get(axis))));
        let column = match values.all(|value| value.is_number() || value.is_null()) {
            true => TextColumn::numbers(axis, cells),
            false => TextColumn::text(axis, cells),
        };
        columns.push(column.said_once());
    }
    for (name, heading, dispensable) in figure_list(report) {
        let cells = cells(&|d| match d.figures.get(&name) {
            Some(value) => {
                let figure = format::figure(&name, value);
                match half_width(d, &name, value).filter(|_| is_asked(report, &name)) {
                    Some(half) => format!("{figure} ±{:.0} %", (100.0 * half).ceil()),
                    None => figure,
                }
            }
            None => "-".into(),
        });
        let column = TextColumn::numbers(&name, cells).dispensable(dispensable);
        columns.push(match heading {
            Some(heading) => column.headed(heading),
            None => column,
        });
    }
    if report.list == ListKind::NearestMisses {
        columns.push(TextColumn::text("misses", cells(&misses)));
    } else if report.list == ListKind::Best && all.iter().any(|d| d.pareto) {
        let star = |d: &Deployment| if d.pareto { "*".into() } else { String::new() };
        columns.push(
            TextColumn::text("pareto", cells(&star))
                .headed("Pareto")
                .dispensable(4),
        );
    }
    columns
}

/// Whether a figure is a target or an objective.
fn is_asked(report: &SweepReport, name: &str) -> bool {
    let objectives = &report.objectives;
    report.bounds.iter().any(|bound| bound.column == name)
        || objectives.maximize.iter().any(|o| o == name)
        || objectives.minimize.iter().any(|o| o == name)
}

/// The longer half of a figure's 95 % interval as a share of it, if that is known. Over
/// replications, of which each has its own, it is that much narrower.
fn half_width(deployment: &Deployment, name: &str, value: f64) -> Option<f64> {
    let [low, high] = interval_ends(name)?;
    let [low, high] = [low, high].map(|end| deployment.figures.get(&end));
    let half = (high? - value).max(value - low?) / value.abs();
    Some(half / f64::from(deployment.replications).sqrt()).filter(|half| half.is_finite())
}

/// Figures to show, their headings where those are not their names, and how readily
/// they go: always size, speed, latency and price; the objectives and targets whatever
/// they are.
fn figure_list(report: &SweepReport) -> Vec<(String, Option<&'static str>, u8)> {
    let asked = |name: &str| is_asked(report, name);
    let usual = [
        ("total_gpus", "GPUs", 0),
        ("throughput_tokens_per_s_per_gpu", "tokens/s per GPU", 0),
        ("throughput_requests_per_s", "requests /s", 5),
        ("ttft_p50_s", "TTFT p50", 3),
        ("ttft_p90_s", "TTFT p90", 2),
        ("ttft_p99_s", "TTFT p99", 0),
        ("tbt_p50_s", "TBT p50", 3),
        ("tbt_p99_s", "TBT p99", 0),
        ("slo_attainment", "meet all targets", 4),
        ("cost_usd_per_million_tokens", "per Mtoken out", 0),
    ];
    let mut figures: Vec<(String, Option<&'static str>, u8)> = Vec::new();
    for (name, heading, dispensable) in usual {
        let dispensable = if asked(name) { 0 } else { dispensable };
        let empty = report
            .deployments
            .iter()
            .all(|d| d.figures.get(name).is_none());
        if !empty || asked(name) {
            figures.push((name.into(), Some(heading), dispensable));
        }
    }
    for column in METRIC_COLUMNS.iter().map(|c| c.name) {
        if asked(column) && !figures.iter().any(|(name, ..)| name == column) {
            figures.push((column.into(), None, 0));
        }
    }
    figures
}

/// What a deployment misses: targets beyond their limit, requests not done.
fn misses(deployment: &Deployment) -> String {
    let mut parts = Vec::new();
    // Of a run that was stopped, nobody expects all requests to have completed.
    let is_saturated = deployment.load_verdict == Some("saturated");
    if is_saturated {
        parts.push("saturated".to_owned());
    } else if deployment.slo_verdict == SloVerdict::Unsure.name() {
        let probability = format::percent(deployment.slo_probability);
        parts.push(match deployment.load_verdict {
            Some("too_short") => format!("too short a run: {probability} likely to meet"),
            _ => format!("unsure: {probability} likely to meet"),
        });
    }
    if deployment.incomplete_fraction > 0.0 && !is_saturated {
        let share = format::percent(deployment.incomplete_fraction);
        parts.push(format!("{share} not completed"));
    }
    if let Some(miss) = &deployment.tightest
        && miss.strain() > 1.0
    {
        let Miss { bound, value } = miss;
        let off = (value / bound.limit - 1.0) * 100.0;
        parts.push(match off.is_finite() {
            true => format!("{} {off:+.0} %", bound.column),
            false => bound.column.clone(),
        });
    }
    parts.join(", ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(AXIS_CHARACTERS) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Shares of the steps' time that were not measured, by column.
const SHARES: [(&str, &str); 4] = [
    ("roofline_fraction", "roofline"),
    ("doubtful_fraction", "doubtful"),
    ("substituted_fraction", "substituted"),
    ("extrapolated_fraction", "beyond what was measured"),
];
/// Another deployment's share is told if it is larger by so much.
const SHARE_TOLD: f64 = 0.05;

/// What the figures rest on besides measurements: those of the first line, and what
/// is more in the others.
fn assumptions(report: &SweepReport) -> String {
    let mut out = String::new();
    let Some(first) = &report.assumptions else {
        return out;
    };
    let mut sentences: Vec<String> = first.sentences.clone();
    let first_share = |column| {
        let first = report.deployments.first();
        first.and_then(|d| d.figures.get(column)).unwrap_or(0.0)
    };
    for (column, what) in SHARES {
        let shares = report.deployments.iter();
        let shares = shares.filter_map(|d| Some((d.figures.get(column)?, d.run_index)));
        let most = shares.max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((share, run)) = most
            && share > first_share(column) + SHARE_TOLD
        {
            sentences.push(format!("of run {run}, {:.0} % is {what}", share * 100.0));
        }
    }
    // What is no share holds for whichever run says so: prices of GPUs.
    for sentence in report.deployments.iter().flat_map(|d| &d.assumptions) {
        if !sentence.contains('%') && !sentences.contains(sentence) {
            sentences.push(sentence.clone());
        }
    }
    if !sentences.is_empty() {
        let run = first.run_index;
        line(
            &mut out,
            format_args!("What these figures assume (run {run}):"),
        );
        for sentence in sentences {
            line(&mut out, format_args!("  {sentence}"));
        }
    }
    out
}

fn binding(binding: &Binding) -> String {
    let mut out = String::new();
    if let Some(Miss { bound, value }) = &binding.tightest {
        let (column, limit) = (&bound.column, bound.limit);
        line(
            &mut out,
            format_args!(
                "Tightest target of the best one (run {}): {column} is at {:.0} % of its limit ({} of {}).",
                binding.run_index,
                value / limit * 100.0,
                format::figure(column, *value),
                format::limit(column, limit),
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
        Some(first) => line(
            &mut out,
            format_args!("What binds it: {}.", first.sentence()),
        ),
    }
    for blocked in binding.steps.iter().take(STEPS_SHOWN).skip(1) {
        line(&mut out, format_args!("Also: {}.", blocked.sentence()));
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

fn files(report: &SweepReport) -> String {
    let what = match report.files.is_empty() {
        true => "finished parts".into(),
        false => report.files.join(", "),
    };
    format!("Results are in {} ({what}).\n", report.directory)
}
