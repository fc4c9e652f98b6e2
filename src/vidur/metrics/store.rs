//! The recorder, and the directory it writes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use rayon::prelude::*;

use super::batches::{self, Batches, METRICS, TIME, Tokens};
use super::chart::{Chart, Marks};
use super::frame::{Frame, Values, float_array};
use super::operations::{MODEL, Operations};
use super::picture::Painter;
use super::requests::{REQUEST_ID, Requests, TIME_S, TIMES, is_completed};
use super::trace::{ChromeTrace, EventTrace, cluster_json};
use super::utilization::Utilization;
use super::{ClusterFacts, MetricsConfig, page};
use crate::results::{write_batch_table, write_columns, write_request_table};
use crate::simulator::{
    ArrivalFact, BatchFact, Compat, EventFact, KvUseFact, PrefillFact, Recorder, RequestRecord,
    StageEndFact, StageFact,
};

const TIME_MS: &str = "Time (ms)";
const COUNT: &str = "Count";
const CDF: &str = "cdf";

/// Keeps what the configuration asks for and writes it.
pub struct MetricsStore {
    config: MetricsConfig,
    facts: ClusterFacts,
    requests: Option<Requests>,
    batches: Option<Batches>,
    tokens: Option<Tokens>,
    operations: Option<Operations>,
    utilization: Option<Utilization>,
    chrome_trace: Option<ChromeTrace>,
    event_trace: Option<EventTrace>,
    /// Places of requests that the batch that is ending has completed.
    completed: Vec<u32>,
    /// The next report of KV use is that of a batch that does not count.
    skip_kv_use: bool,
    /// Time of the last event, seconds.
    end_s: f64,
}

impl MetricsStore {
    /// A store for one simulation of the cluster `facts` are about.
    pub fn new(config: MetricsConfig, facts: ClusterFacts) -> Self {
        let compat = facts.compat;
        let write = config.write_metrics;
        let operations = write
            && config.store_operation_metrics
            && (config.store_utilization_metrics || compat == Compat::None);
        Self {
            requests: (write && config.store_request_metrics)
                .then(|| Requests::with_capacity(facts.requests)),
            batches: (write && config.store_batch_metrics)
                .then(|| Batches::new(config.keep_individual_batch_metrics)),
            tokens: (write && config.store_token_completion_metrics).then(|| Tokens::new(compat)),
            operations: operations.then(|| Operations::new(&config, &facts)),
            utilization: (write && config.store_utilization_metrics)
                .then(|| Utilization::new(&facts)),
            chrome_trace: config.enable_chrome_trace.then(|| ChromeTrace::new(&facts)),
            event_trace: config.write_json_trace.then(|| EventTrace::new(&facts)),
            completed: Vec::new(),
            skip_kv_use: false,
            end_s: 0.0,
            config,
            facts,
        }
    }

    /// Writes everything into `dir`, which is created, and gives the files.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(dir)?;
        let mut metrics = Output::new(dir, &self.config);
        let mut traces = Output::new(dir, &self.config);
        // Traces are the most text by far.
        let (first, second) = rayon::join(
            || self.write_metrics(&mut metrics),
            || self.write_traces(&mut traces),
        );
        first.and(second)?;
        metrics.files.append(&mut traces.files);
        Ok(metrics.files)
    }

    fn write_metrics(&self, out: &mut Output<'_>) -> io::Result<()> {
        if !self.config.write_metrics {
            return Ok(());
        }
        fs::create_dir_all(out.dir.join("plots"))?;
        self.write_requests(out)?;
        self.write_batches(out)?;
        self.write_tokens(out)?;
        self.write_operations(out)?;
        self.write_utilization(out)?;
        out.write_points()?;
        out.draw()
    }

    fn write_requests(&self, out: &mut Output<'_>) -> io::Result<()> {
        let Some(requests) = &self.requests else {
            return Ok(());
        };
        out.table("request_metrics.csv", &requests.table(&self.facts))?;
        let path = out.dir.join("requests.parquet");
        write_request_table(
            &path,
            &requests.rows(self.facts.transfer.map(|transfer| transfer.dtype)),
        )
        .map_err(io::Error::other)?;
        out.files.push(path);
        for (name, values) in requests.histograms() {
            if !values.is_empty() {
                out.chart(|| Chart::histogram(&name, &values));
            }
        }
        for metric in TIMES {
            if let Some(frame) = requests.distribution(metric) {
                // Columns: the request, the value, its rank.
                debug_assert_eq!(frame.columns[0].0, REQUEST_ID);
                let labels = [&axis(metric.0, TIME_S), CDF];
                out.plot(metric.0, frame, [1, 2], labels)?;
            }
        }
        for (name, times_s) in requests.series() {
            let counts = (1..=times_s.len() as u64).collect();
            out.time_series(name, times_s, counts)?;
        }
        Ok(())
    }

    fn write_batches(&self, out: &mut Output<'_>) -> io::Result<()> {
        let Some(kept) = &self.batches else {
            return Ok(());
        };
        let unit = |metric: usize| if metric == TIME { TIME_S } else { COUNT };
        for (metric, frame) in kept.distributions(self.facts.compat) {
            let label = axis(METRICS[metric], unit(metric));
            out.quantiles(METRICS[metric], frame, &label)?;
        }
        for (metric, frame) in kept.per_batch() {
            let name = format!("{}_per_batch", METRICS[metric]);
            let labels = [batches::BATCH_ID, &axis(METRICS[metric], unit(metric))];
            out.plot(&name, frame, [0, 1], labels)?;
        }
        if let Some(rows) = kept.rows() {
            out.table("batch_metrics.csv", &batches::table(&rows))?;
            let path = out.dir.join("batches.parquet");
            write_batch_table(&path, &rows).map_err(io::Error::other)?;
            out.files.push(path);
        }
        Ok(())
    }

    fn write_tokens(&self, out: &mut Output<'_>) -> io::Result<()> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        if let Some(frame) = tokens.distribution() {
            let name = frame.columns[1].0.clone();
            out.quantiles(&name, frame, &axis(&name, TIME_S))?;
        }
        for (name, times_s, totals) in tokens.series() {
            out.time_series(name, times_s, totals)?;
        }
        Ok(())
    }

    fn write_operations(&self, out: &mut Output<'_>) -> io::Result<()> {
        let Some(operations) = &self.operations else {
            return Ok(());
        };
        for (name, frame) in operations.distributions() {
            let label = axis(&frame.columns[1].0.clone(), TIME_MS);
            out.quantiles(&name, frame, &label)?;
        }
        out.chart(|| Chart {
            name: "total_operation_runtimes".into(),
            x_label: TIME_MS.into(),
            y_label: "Operation".into(),
            // The whole model first.
            marks: Marks::Bars({
                let mut totals = operations.totals();
                totals.sort_by_key(|(name, _)| name != MODEL);
                totals
            }),
        });
        if !self.config.keep_individual_batch_metrics {
            return Ok(());
        }
        for (name, frame) in operations.per_batch() {
            let labels = [
                batches::BATCH_ID,
                &axis(&frame.columns[1].0.clone(), TIME_MS),
            ];
            out.plot(&name, frame, [0, 1], labels)?;
        }
        for (name, of_cpu) in [
            ("operation_metrics", false),
            ("cpu_operation_metrics", true),
        ] {
            let table = operations.table(of_cpu);
            out.table(&format!("{name}.csv"), &table)?;
            out.parquet(&format!("{name}.parquet"), table.arrays())?;
        }
        Ok(())
    }

    fn write_utilization(&self, out: &mut Output<'_>) -> io::Result<()> {
        let Some(utilization) = &self.utilization else {
            return Ok(());
        };
        let statistics = utilization.statistics(self.end_s);
        for statistic in &statistics {
            let text = utilization.to_json(statistic);
            out.file(&format!("plots/{}.json", statistic.name), text.bytes())?;
        }
        let table = Utilization::to_table(&statistics);
        out.parquet("replica_statistics.parquet", table)
    }

    fn write_traces(&self, out: &mut Output<'_>) -> io::Result<()> {
        if let Some(trace) = &self.event_trace {
            out.stream("event_trace.json", |file| trace.write(file))?;
            let cluster = cluster_json(&self.facts).to_string();
            out.file("cluster.json", cluster.as_bytes())?;
        }
        if let Some(trace) = &self.chrome_trace {
            out.stream("chrome_trace.json", |file| trace.write(file))?;
        }
        Ok(())
    }
}

impl Recorder for MetricsStore {
    const WANTS_EVENTS: bool = true;
    const WANTS_BATCHES: bool = true;

    fn request(&mut self, record: &RequestRecord) {
        if let Some(requests) = &mut self.requests {
            let place = requests.ended(record);
            if is_completed(record) {
                self.completed.push(place);
            }
        }
    }

    fn token_intervals(&mut self, interval_s: f64, count: u32) {
        if let Some(tokens) = &mut self.tokens {
            tokens.interval(interval_s, count);
        }
    }

    fn event(&mut self, fact: &EventFact) {
        self.end_s = fact.time_s;
        if let Some(trace) = &mut self.event_trace {
            trace.event(fact);
        }
    }

    fn request_arrived(&mut self, fact: &ArrivalFact) {
        if let Some(requests) = &mut self.requests {
            requests.arrived(fact);
        }
    }

    fn request_routed(&mut self, request_id: u32, replica: u32) {
        if let Some(trace) = &mut self.event_trace {
            trace.routed(request_id, replica);
        }
    }

    fn prefill_completed(&mut self, fact: &PrefillFact) {
        if let Some(tokens) = &mut self.tokens {
            tokens.prefill_completed(fact);
        }
    }

    fn batch_formed(&mut self, _replica: u32, batch_id: u64) {
        if let Some(trace) = &mut self.event_trace {
            trace.formed(batch_id);
        }
    }

    fn stage_started(&mut self, fact: &StageFact<'_>) {
        if let Some(utilization) = &mut self.utilization {
            utilization.stage_started(fact);
        }
        if let Some(operations) = &mut self.operations {
            operations.stage_started(fact, &self.facts);
        }
        if let Some(trace) = &mut self.chrome_trace {
            trace.stage_started(fact);
        }
        if let Some(trace) = &mut self.event_trace {
            trace.stage_started(fact);
        }
    }

    fn stage_ended(&mut self, fact: &StageEndFact) {
        if let Some(utilization) = &mut self.utilization {
            utilization.stage_ended(fact);
        }
        if let Some(trace) = &mut self.chrome_trace {
            trace.stage_ended(fact);
        }
    }

    fn batch_ended(&mut self, fact: &BatchFact<'_>) {
        let compat = self.facts.compat;
        let counts = self.config.counts(fact.batch_id, compat);
        if let Some(requests) = &mut self.requests {
            if counts || compat == Compat::None {
                requests.completed(&mut self.completed, fact.requests);
            }
            self.completed.clear();
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.batch_ended(fact, counts);
        }
        if counts && let Some(batches) = &mut self.batches {
            batches.ended(fact);
        }
        self.skip_kv_use = !counts && !compat.is_none();
    }

    fn kv_use(&mut self, fact: &KvUseFact) {
        if std::mem::take(&mut self.skip_kv_use) {
            return;
        }
        if let Some(utilization) = &mut self.utilization {
            utilization.kv_use(fact);
        }
    }
}

fn axis(name: &str, unit: &str) -> String {
    format!("{name}, {unit}")
}

/// The directory.
struct Output<'a> {
    dir: &'a Path,
    config: &'a MetricsConfig,
    files: Vec<PathBuf>,
    charts: Vec<Chart>,
    points: Points,
}

/// The lines of all files in `plots/`.
#[derive(Default)]
struct Points {
    /// Names, and how many points each has.
    metrics: Vec<(String, usize)>,
    x: Vec<f64>,
    y: Vec<f64>,
}

impl Points {
    fn put(&mut self, metric: &str, frame: &Frame, [x, y]: [usize; 2]) {
        let rows = 0..frame.rows();
        self.metrics.push((metric.to_owned(), rows.len()));
        self.x
            .extend(rows.clone().map(|row| frame.columns[x].1.get(row)));
        self.y.extend(rows.map(|row| frame.columns[y].1.get(row)));
    }
}

impl<'a> Output<'a> {
    fn new(dir: &'a Path, config: &'a MetricsConfig) -> Self {
        Self {
            dir,
            config,
            files: Vec::new(),
            charts: Vec::new(),
            points: Points::default(),
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, content)?;
        self.files.push(path);
        Ok(())
    }

    fn stream(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.dir.join(name);
        let mut file = BufWriter::new(File::create(&path)?);
        write(&mut file)?;
        file.flush()?;
        self.files.push(path);
        Ok(())
    }

    fn table(&mut self, name: &str, frame: &Frame) -> io::Result<()> {
        self.file(name, frame.to_csv().bytes())
    }

    fn parquet(&mut self, name: &str, columns: Vec<(String, ArrayRef)>) -> io::Result<()> {
        let path = self.dir.join(name);
        write_columns(&path, columns).map_err(io::Error::other)?;
        self.files.push(path);
        Ok(())
    }

    /// All lines in one table.
    fn write_points(&mut self) -> io::Result<()> {
        let Points { metrics, x, y } = std::mem::take(&mut self.points);
        let metrics = (metrics.iter()).flat_map(|(name, count)| std::iter::repeat_n(name, *count));
        let metrics = StringArray::from_iter_values(metrics);
        let columns = vec![
            ("metric".to_owned(), Arc::new(metrics) as ArrayRef),
            ("x".to_owned(), Arc::new(float_array(x.into_iter()))),
            ("y".to_owned(), Arc::new(float_array(y.into_iter()))),
        ];
        self.parquet("plots.parquet", columns)
    }

    /// A file in `plots/`, and a line through two of its columns.
    fn plot(
        &mut self,
        name: &str,
        frame: Frame,
        columns: [usize; 2],
        labels: [&str; 2],
    ) -> io::Result<()> {
        let frame = frame.subsampled(self.config.subsamples);
        self.table(&format!("plots/{name}.csv"), &frame)?;
        self.points.put(name, &frame, columns);
        self.chart(|| Chart::line(name, &frame, columns, labels));
        Ok(())
    }

    /// A file of quantiles: never thinned.
    fn quantiles(&mut self, name: &str, frame: Frame, label: &str) -> io::Result<()> {
        self.table(&format!("plots/{name}.csv"), &frame)?;
        self.points.put(name, &frame, [1, 0]);
        self.chart(|| Chart::line(name, &frame, [1, 0], [label, CDF]));
        Ok(())
    }

    fn time_series(&mut self, name: &str, times_s: Vec<f64>, totals: Vec<u64>) -> io::Result<()> {
        if times_s.is_empty() {
            return Ok(());
        }
        let frame = Frame {
            index: Some((0..times_s.len() as u64).collect()),
            columns: vec![
                (TIME_S.to_owned(), Values::Floats(times_s)),
                (name.to_owned(), Values::Ints(totals)),
            ],
        };
        let file = format!("{name}_time_series");
        self.plot(&file, frame, [0, 1], [TIME_S, name])
    }

    fn chart(&mut self, chart: impl FnOnce() -> Chart) {
        if self.config.store_plots {
            self.charts.push(chart());
        }
    }

    /// Pictures and pages of all charts, and one page with all of them.
    fn draw(&mut self) -> io::Result<()> {
        if self.charts.is_empty() {
            return Ok(());
        }
        let painter = Painter::new()?;
        let plots = self.dir.join("plots");
        let drawn: Vec<[PathBuf; 2]> = (self.charts.par_iter())
            .map(|chart| {
                let picture = plots.join(format!("{}.png", chart.name));
                fs::write(&picture, painter.png(chart)?)?;
                let page = plots.join(format!("{}.html", chart.name));
                fs::write(&page, page::html(&chart.name, &[chart]))?;
                Ok([picture, page])
            })
            .collect::<io::Result<_>>()?;
        self.files.extend(drawn.into_iter().flatten());
        let all: Vec<&Chart> = self.charts.iter().collect();
        self.file("plots/index.html", page::html("Metrics", &all).as_bytes())
    }
}
