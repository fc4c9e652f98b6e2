//! What a capacity study found: the deployments by the price of the load they hold, and
//! what a given load takes.

use std::cmp::Ordering;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::deployment::{axis_values, sentences};
use super::format::{self, counted, grouped, number};
use super::gather::{Overview, ReportError, overview};
use super::table::reasons;
use super::text_table::{TextColumn, TextTable, wrapped};
use super::{ReportFormat, html};
use crate::number::{whole_u32, whole_u64};
use crate::results::{ClaimedDirectory, SummaryReader, SummaryRow};
use crate::select::ReasonGroup;

/// One configuration and what it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// Place by the price of its load, from 1; those that cannot be told apart share it.
    pub rank: u64,
    /// Its run.
    pub run_index: u64,
    /// Values of its axes.
    pub axes: Map<String, Value>,
    /// GPUs.
    pub total_gpus: u32,
    /// The highest load that keeps the targets, requests per second.
    pub capacity_requests_per_s: f64,
    /// Ends of its 95 % interval, where they are known.
    pub capacity_low_requests_per_s: Option<f64>,
    /// The upper end.
    pub capacity_high_requests_per_s: Option<f64>,
    /// Requests per second and GPU.
    pub capacity_per_gpu: f64,
    /// The target that a little more load breaks.
    pub binding_target: Option<String>,
    /// US dollars per hour.
    pub cost_usd_per_hour: f64,
    /// US dollars per million requests at its capacity.
    pub cost_usd_per_million_requests: f64,
    /// US dollars per million output tokens at the highest load that it surely holds.
    pub cost_usd_per_million_tokens: Option<f64>,
    /// Whether copies of it, each with its share of the requests, hold as many times its
    /// load: requests that come at random may be dealt out at random.
    pub can_be_copied: bool,
    /// What a person should know of it.
    pub remark: Option<String>,
    /// What its figures rest on that nobody measured or published.
    pub assumptions: Vec<String>,
}

impl Holder {
    fn of(reader: &SummaryReader, row: SummaryRow<'_>) -> Option<Self> {
        let capacity = row.number("capacity_requests_per_s")?;
        let cost_usd_per_hour = row.number("cost_usd_per_hour")?;
        (capacity > 0.0).then_some(())?;
        Some(Self {
            rank: 0,
            run_index: row.run_index(),
            axes: axis_values(reader, row),
            total_gpus: whole_u32(row.number("total_gpus")?),
            capacity_requests_per_s: capacity,
            capacity_low_requests_per_s: row.number("capacity_low_requests_per_s"),
            capacity_high_requests_per_s: row.number("capacity_high_requests_per_s"),
            capacity_per_gpu: row.number("capacity_per_gpu")?,
            binding_target: row.text("binding_target").map(str::to_owned),
            cost_usd_per_hour,
            cost_usd_per_million_requests: cost_usd_per_hour / (capacity * 3600.0) * 1e6,
            cost_usd_per_million_tokens: row.number("cost_usd_per_million_tokens"),
            can_be_copied: ["workload.arrivals.type", "workload.arrivals"]
                .iter()
                .any(|column| row.text(column) == Some("poisson")),
            remark: row.text("reason").map(str::to_owned),
            assumptions: row.text("assumptions").map_or_else(Vec::new, sentences),
        })
    }

    /// The longer half of the interval, as a share; 1 where its lower end is not known.
    fn relative_half_width(&self) -> f64 {
        let value = self.capacity_requests_per_s;
        let below = self
            .capacity_low_requests_per_s
            .map_or(value, |low| value - low);
        let above = self
            .capacity_high_requests_per_s
            .map_or(0.0, |high| high - value);
        below.max(above) / value
    }

    /// The load that it holds for certain; 0 where that is not known.
    fn sure_requests_per_s(&self) -> f64 {
        self.capacity_low_requests_per_s.unwrap_or(0.0)
    }

    /// Whether the price of their loads differs by no more than is known of it.
    fn is_tied_with(&self, other: &Self) -> bool {
        let width = self
            .relative_half_width()
            .hypot(other.relative_half_width());
        let (one, two) = (
            self.cost_usd_per_million_requests,
            other.cost_usd_per_million_requests,
        );
        (one - two).abs() <= width * one.max(two)
    }

    fn shown(&self) -> String {
        let value = number(self.capacity_requests_per_s);
        match self.relative_half_width() {
            width if width >= 1.0 => format!("{value} ±?"),
            width if width > 0.0 => format!("{value} ±{:.1} %", (width * 1000.0).ceil() / 10.0),
            _ => value,
        }
    }
}

/// What it takes to hold a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provision {
    /// The load, requests per second.
    pub load_requests_per_s: f64,
    /// Run of the configuration to deploy.
    pub run_index: u64,
    /// How many times: each takes its share of the requests.
    pub copies: u64,
    /// GPUs of all.
    pub total_gpus: u64,
    /// US dollars per hour of all.
    pub cost_usd_per_hour: f64,
    /// What they hold for certain over the load, less one.
    pub headroom: f64,
}

impl Provision {
    fn of(holder: &Holder, load: f64) -> Option<Self> {
        let sure = holder.sure_requests_per_s();
        (sure > 0.0).then_some(()).and_then(|()| {
            let copies = whole_u64((load / sure).ceil()).max(1);
            (copies == 1 || holder.can_be_copied).then(|| Self {
                load_requests_per_s: load,
                run_index: holder.run_index,
                copies,
                total_gpus: copies.saturating_mul(holder.total_gpus.into()),
                cost_usd_per_hour: copies as f64 * holder.cost_usd_per_hour,
                headroom: copies as f64 * sure / load - 1.0,
            })
        })
    }

    /// Cheapest first, then fewest GPUs, then most headroom.
    fn order(&self, other: &Self) -> Ordering {
        let cost = self.cost_usd_per_hour.total_cmp(&other.cost_usd_per_hour);
        cost.then(self.total_gpus.cmp(&other.total_gpus))
            .then(other.headroom.total_cmp(&self.headroom))
            .then(self.run_index.cmp(&other.run_index))
    }
}

/// What came out of a capacity study.
#[derive(Debug, Clone, Serialize)]
pub struct CapacityReport {
    /// Name of the sweep.
    pub name: String,
    /// Its directory.
    pub directory: String,
    /// The answer, a sentence each.
    pub answer: Vec<String>,
    /// Configurations that were simulated.
    pub simulated: u64,
    /// Configurations that cannot exist.
    pub infeasible: u64,
    /// Configurations whose simulation failed.
    pub failed: u64,
    /// Configurations that keep the targets at no load.
    pub holding_nothing: u64,
    /// Why the first of them does not.
    pub nothing_because: Option<String>,
    /// Targets, as in `ttft_p90_s <= 2 s`.
    pub targets: Vec<String>,
    /// Axes with more than one value.
    pub varying_axes: Vec<String>,
    /// What holds a load, cheapest per request first.
    pub holders: Vec<Holder>,
    /// The ways to hold the load that was asked for, cheapest first.
    pub load: Vec<Provision>,
    /// The cheapest way to hold each load of a forecast.
    pub growth: Vec<Provision>,
    /// Loads that nothing holds.
    pub unprovided: Vec<f64>,
    /// Why configurations were not simulated.
    pub reasons: Vec<ReasonGroup>,
}

/// Loads to provide for, requests per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// One, of which all ways to hold it are wanted.
    pub load: Option<f64>,
    /// A forecast.
    pub growth: Vec<f64>,
}

/// Makes the page of a capacity study, and condenses the directory to what its
/// configurations hold and what `demand` takes: one look at the runs does for both.
///
/// # Errors
/// If the results cannot be read or the page cannot be written.
pub fn write_page_and_gather_capacity(
    reader: &SummaryReader,
    dir: &ClaimedDirectory,
    demand: &Demand,
) -> Result<CapacityReport, ReportError> {
    let overview = overview(reader)?;
    html::write_with(reader, dir, &overview)?;
    condense(reader, &overview, demand)
}

/// Condenses the directory of a capacity study, as it was looked over, and what `demand`
/// takes.
fn condense(
    reader: &SummaryReader,
    overview: &Overview,
    demand: &Demand,
) -> Result<CapacityReport, ReportError> {
    let (mut holders, mut holding_nothing, mut nothing_because) = (Vec::new(), 0, None);
    reader.for_each(None, |batch| {
        for row in batch.rows() {
            if row.number("capacity_requests_per_s") == Some(0.0) {
                holding_nothing += 1;
                let run = row.run_index();
                let because = || row.text("reason").map(|why| format!("run {run}: {why}"));
                nothing_because = nothing_because.take().or_else(because);
            }
            holders.extend(Holder::of(reader, row));
        }
    })?;
    rank(&mut holders);
    let mut load: Vec<Provision> = demand
        .load
        .map_or_else(Vec::new, |load| provisions(&holders, load).collect());
    load.sort_by(Provision::order);
    let mut unprovided: Vec<f64> = demand
        .load
        .filter(|_| load.is_empty())
        .into_iter()
        .collect();
    let mut growth = Vec::with_capacity(demand.growth.len());
    for &load in &demand.growth {
        match provisions(&holders, load).min_by(Provision::order) {
            Some(cheapest) => growth.push(cheapest),
            None => unprovided.push(load),
        }
    }
    let bounds = &overview.selection.criteria().bounds;
    let mut report = CapacityReport {
        name: reader.name().to_owned(),
        directory: reader.dir().display().to_string(),
        answer: Vec::new(),
        simulated: overview.runs.ok,
        infeasible: overview.runs.infeasible,
        failed: overview.runs.failed,
        holding_nothing,
        nothing_because,
        targets: bounds.iter().map(format::bound).collect(),
        varying_axes: overview.varying_axes.clone(),
        holders,
        load,
        growth,
        unprovided,
        reasons: overview.reasons.clone(),
    };
    report.answer = answer(&report);
    Ok(report)
}

/// Sorts by the price of a request and gives places; of those that are tied the smallest
/// deployment, in dollars an hour, comes first.
fn rank(holders: &mut [Holder]) {
    let price = |holder: &Holder| holder.cost_usd_per_million_requests;
    holders.sort_by(|a, b| {
        let by_price = price(a).total_cmp(&price(b));
        by_price.then(a.run_index.cmp(&b.run_index))
    });
    let mut start = 0;
    while start < holders.len() {
        let rest = &holders[start..];
        let tied = rest.iter().take_while(|other| rest[0].is_tied_with(other));
        let end = start + tied.count();
        let group = &mut holders[start..end];
        group.sort_by(|a, b| {
            let by_hour = a.cost_usd_per_hour.total_cmp(&b.cost_usd_per_hour);
            let by_price = by_hour.then(price(a).total_cmp(&price(b)));
            by_price.then(a.run_index.cmp(&b.run_index))
        });
        for holder in group {
            holder.rank = start as u64 + 1;
        }
        start = end;
    }
}

/// The ways to hold a load.
fn provisions(holders: &[Holder], load: f64) -> impl Iterator<Item = Provision> {
    let ways = holders.iter();
    ways.filter_map(move |holder| Provision::of(holder, load))
}

impl CapacityReport {
    fn holder(&self, run_index: u64) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.run_index == run_index)
    }

    fn named(&self, holder: &Holder) -> String {
        format::named(holder.run_index, &holder.axes, &self.varying_axes)
    }
}

fn answer(report: &CapacityReport) -> Vec<String> {
    let targets = report.targets.join(" and ");
    let Some(best) = report.holders.first() else {
        let because = report.nothing_because.iter();
        let because = because.map(|why| format!("For example {why}."));
        return std::iter::once(format!("No configuration holds any load within {targets}."))
            .chain(because)
            .chain(unprovided(report))
            .collect();
    };
    let mut sentences = vec![format!(
        "Best: {}, on {}, holds {}{} requests/s within {targets}, {} per GPU, at \
         {} per million requests{}.",
        report.named(best),
        counted(best.total_gpus.into(), "GPU"),
        number(best.capacity_requests_per_s),
        interval(best),
        number(best.capacity_per_gpu),
        format::figure("cost_usd", best.cost_usd_per_million_requests),
        match &best.binding_target {
            Some(load) if load == "load" =>
                "; it is saturated before a target is missed".to_owned(),
            Some(target) => format!("; {target} binds"),
            None => String::new(),
        }
    )];
    if let Some(next) = report.holders.get(1) {
        let tie = match next.rank == best.rank {
            true => ", a tie within the intervals",
            false => "",
        };
        sentences.push(format!(
            "Next: {}, on {}, {} requests/s, {} per million requests{tie}.",
            report.named(next),
            counted(next.total_gpus.into(), "GPU"),
            number(next.capacity_requests_per_s),
            format::figure("cost_usd", next.cost_usd_per_million_requests),
        ));
    }
    sentences.extend(report.load.first().map(|way| provided(report, way)));
    sentences.extend(unprovided(report));
    if !best.assumptions.is_empty() {
        sentences.push(format!("Assumed: {}.", best.assumptions.join("; ")));
    }
    sentences
}

/// Loads that nothing holds.
fn unprovided(report: &CapacityReport) -> impl Iterator<Item = String> {
    let why = match report.holders.iter().all(|holder| holder.can_be_copied) {
        true => "",
        false => "; copies are only counted where arrivals are Poisson",
    };
    let loads = report.unprovided.iter();
    loads.map(move |load| {
        format!(
            "Nothing holds {} requests/s for certain{why}.",
            number(*load)
        )
    })
}

fn interval(holder: &Holder) -> String {
    let ends = (holder.capacity_low_requests_per_s).zip(holder.capacity_high_requests_per_s);
    ends.map_or_else(String::new, |(low, high)| {
        format!(" ({} to {})", number(low), number(high))
    })
}

/// `40 requests/s: 2 x run 54, on 32 GPUs, $139.20 an hour, 7 % headroom.`
fn provided(report: &CapacityReport, way: &Provision) -> String {
    let what = match report.holder(way.run_index) {
        Some(holder) => report.named(holder),
        None => format!("run {}", way.run_index),
    };
    let copies = match way.copies {
        1 => String::new(),
        copies => format!("{} times ", grouped(copies)),
    };
    format!(
        "{} requests/s take {copies}{what}: {}, {} an hour, {} headroom.",
        number(way.load_requests_per_s),
        counted(way.total_gpus, "GPU"),
        format::figure("cost_usd", way.cost_usd_per_hour),
        format::percent(way.headroom),
    )
}

/// Prints a report, of each list at most `limit` lines.
///
/// # Errors
/// Of writing.
pub fn write_capacity(
    report: &CapacityReport,
    print_as: ReportFormat,
    width: usize,
    limit: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    match print_as {
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)
        }
        ReportFormat::Csv => csv(report, out),
        ReportFormat::Table => out.write_all(table(report, width, limit).as_bytes()),
    }
}

/// What was asked for, one a line: ways to hold a load, or the loads of a forecast; otherwise
/// the configurations that hold something.
fn csv(report: &CapacityReport, out: &mut impl Write) -> io::Result<()> {
    match (&report.load[..], &report.growth[..]) {
        ([], []) => holders_csv(report, out),
        ([], growth) => ways_csv(report, growth, out),
        (load, _) => ways_csv(report, load, out),
    }
}

fn ways_csv(report: &CapacityReport, ways: &[Provision], out: &mut impl Write) -> io::Result<()> {
    let mut lines = csv::Writer::from_writer(out);
    let figures = [
        "load_requests_per_s",
        "run",
        "copies",
        "total_gpus",
        "cost_usd_per_hour",
        "headroom",
    ];
    let axes = || report.varying_axes.iter().map(String::as_str);
    lines.write_record(figures.into_iter().chain(axes()))?;
    for way in ways {
        let figures = [
            way.load_requests_per_s.to_string(),
            way.run_index.to_string(),
            way.copies.to_string(),
            way.total_gpus.to_string(),
            way.cost_usd_per_hour.to_string(),
            way.headroom.to_string(),
        ];
        let holder = report.holder(way.run_index);
        let value = |axis: &str| format::exact_value(holder.and_then(|h| h.axes.get(axis)));
        lines.write_record(figures.into_iter().chain(axes().map(value)))?;
    }
    lines.flush()
}

/// The configurations that hold something, one a line.
fn holders_csv(report: &CapacityReport, out: &mut impl Write) -> io::Result<()> {
    let mut lines = csv::Writer::from_writer(out);
    let columns = columns(report, format::exact_value, &|value| value.to_string());
    lines.write_record(columns.iter().map(|column| column.name.as_str()))?;
    for at in 0..report.holders.len() {
        lines.write_record(columns.iter().map(|column| column.cells[at].as_str()))?;
    }
    lines.flush()
}

/// One column of the list.
struct Column {
    name: String,
    heading: Option<&'static str>,
    is_number: bool,
    dispensable: u8,
    cells: Vec<String>,
}

fn columns(
    report: &CapacityReport,
    value: fn(Option<&Value>) -> String,
    shown: &dyn Fn(f64) -> String,
) -> Vec<Column> {
    let cells = |cell: &dyn Fn(&Holder) -> String| report.holders.iter().map(cell).collect();
    let numbers = |name: &str, heading, dispensable, cell: &dyn Fn(&Holder) -> String| Column {
        name: name.to_owned(),
        heading,
        is_number: true,
        dispensable,
        cells: cells(cell),
    };
    let optional = |value: Option<f64>| value.map_or_else(String::new, shown);
    let mut columns = vec![
        numbers("rank", None, 0, &|h| h.rank.to_string()),
        numbers("run", None, 0, &|h| h.run_index.to_string()),
    ];
    columns.extend(report.varying_axes.iter().map(|axis| Column {
        name: axis.clone(),
        heading: None,
        is_number: (report.holders.iter()).all(|h| {
            h.axes
                .get(axis)
                .is_none_or(|v| v.is_number() || v.is_null())
        }),
        dispensable: 0,
        cells: cells(&|h| value(h.axes.get(axis))),
    }));
    columns.extend([
        numbers("total_gpus", Some("GPUs"), 0, &|h| h.total_gpus.to_string()),
        numbers(
            "capacity_requests_per_s",
            Some("holds, requests /s"),
            0,
            &|h| shown(h.capacity_requests_per_s),
        ),
        numbers("capacity_low_requests_per_s", Some("at least"), 3, &|h| {
            optional(h.capacity_low_requests_per_s)
        }),
        numbers("capacity_high_requests_per_s", Some("at most"), 3, &|h| {
            optional(h.capacity_high_requests_per_s)
        }),
        numbers("capacity_per_gpu", Some("per GPU"), 0, &|h| {
            shown(h.capacity_per_gpu)
        }),
        numbers("cost_usd_per_hour", Some("$ an hour"), 2, &|h| {
            shown(h.cost_usd_per_hour)
        }),
        numbers(
            "cost_usd_per_million_requests",
            Some("$ per million requests"),
            0,
            &|h| shown(h.cost_usd_per_million_requests),
        ),
        numbers(
            "cost_usd_per_million_tokens",
            Some("$ per Mtoken out"),
            1,
            &|h| optional(h.cost_usd_per_million_tokens),
        ),
    ]);
    columns.push(Column {
        name: "binding_target".to_owned(),
        heading: Some("binds"),
        is_number: false,
        dispensable: 0,
        cells: cells(&|h| h.binding_target.clone().unwrap_or_default()),
    });
    columns
}

fn table(report: &CapacityReport, width: usize, limit: usize) -> String {
    let mut out = wrapped(&overview_text(report), width);
    out.push('\n');
    out += &wrapped(&(report.answer.join(" ") + "\n"), width);
    if !report.holders.is_empty() {
        let title = format!(
            "\nBy the price of a request ({} of {}):",
            grouped(report.holders.len().min(limit) as u64),
            grouped(report.holders.len() as u64)
        );
        out += &wrapped(&title, width);
        // The interval stands beside its figure.
        let columns = columns(report, format::value, &number).into_iter();
        let columns = columns.filter(|c| !matches!(c.heading, Some("at least" | "at most")));
        let columns = columns.map(|column| text_column(report, column, limit));
        out += &TextTable::new(2, columns).render(width);
    }
    if let Some(first) = report.load.first() {
        let title = format!(
            "\n{} requests/s, cheapest first:",
            number(first.load_requests_per_s)
        );
        out += &ways_text(
            report,
            &title,
            &report.load[..report.load.len().min(limit)],
            width,
        );
    }
    if !report.growth.is_empty() {
        out += &ways_text(
            report,
            "\nAs the load grows, the cheapest:",
            &report.growth,
            width,
        );
    }
    if report
        .load
        .iter()
        .chain(&report.growth)
        .any(|way| way.copies > 1)
    {
        out += &wrapped("Copies share the requests at random.", width);
    }
    let remarks = report.holders.iter().take(limit);
    let remarks =
        remarks.filter_map(|h| Some(format!("run {}: {}", h.run_index, h.remark.as_ref()?)));
    for remark in remarks {
        out += &wrapped(&remark, width);
    }
    out += &wrapped(
        &format!(
            "\nResults are in {} (capacity.parquet, summary.parquet, report.html).",
            report.directory
        ),
        width,
    );
    out
}

fn text_column(report: &CapacityReport, column: Column, limit: usize) -> TextColumn {
    let cells: Vec<String> = match column.name.as_str() {
        "capacity_requests_per_s" => report.holders.iter().map(Holder::shown).collect(),
        _ => column.cells,
    };
    let cells = cells.into_iter().take(limit);
    let text = match column.is_number {
        true => TextColumn::numbers(&column.name, cells),
        false => TextColumn::text(&column.name, cells).said_once(),
    };
    let text = text.dispensable(column.dispensable);
    match column.heading {
        Some(heading) => text.headed(heading),
        None => text,
    }
}

fn overview_text(report: &CapacityReport) -> String {
    format!(
        "{}: the load that {} {} within {}; {} hold none, {} infeasible, {} failed.\n{}",
        report.name,
        counted(report.simulated, "configuration"),
        if report.simulated == 1 {
            "holds"
        } else {
            "hold"
        },
        report.targets.join(" and "),
        grouped(report.holding_nothing),
        grouped(report.infeasible),
        grouped(report.failed),
        reasons(&report.reasons),
    )
}

/// Ways to hold loads, one a line.
fn ways_text(report: &CapacityReport, title: &str, ways: &[Provision], width: usize) -> String {
    let numbers = |name: &str, cell: &dyn Fn(&Provision) -> String| {
        TextColumn::numbers(name, ways.iter().map(cell))
    };
    let name = |way: &Provision| {
        let holder = report.holder(way.run_index);
        holder.map_or_else(String::new, |holder| report.named(holder))
    };
    let columns = [
        numbers("load_requests_per_s", &|way| {
            number(way.load_requests_per_s)
        })
        .headed("requests /s"),
        numbers("copies", &|way| grouped(way.copies)),
        TextColumn::text("of", ways.iter().map(name)),
        numbers("total_gpus", &|way| grouped(way.total_gpus)).headed("GPUs"),
        numbers("cost_usd_per_hour", &|way| number(way.cost_usd_per_hour)).headed("$ an hour"),
        numbers("headroom", &|way| format::percent(way.headroom)),
    ];
    wrapped(title, width) + &TextTable::new(3, columns).render(width)
}
