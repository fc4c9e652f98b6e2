//! Draws the requests of a workload.
//!
//! Lengths and inter-arrival times come from separate ChaCha streams, keyed by
//! what is drawn, so that a change of one leaves the other as it was.

use std::sync::Arc;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, LogNormal, Zipf};

use super::limits::{MOST_TOKENS, check_arrival, check_drawn_arrival, check_lengths};
use super::outline::{LengthSource, Outline, Timing};
use super::read_files::Sources;
use super::{
    ArrivalsConfig, Lengths, LengthsConfig, Request, TraceOrder, Workload, WorkloadConfig,
    WorkloadError,
};
use crate::number::{narrow, whole_u32};
use crate::permutation::Permutation;

/// A workload before it is given its rate: what all points of a QPS sweep share.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitWorkload {
    requests: Vec<Request>,
    clients: Option<u32>,
    timing: Timing,
    notes: Vec<String>,
}

impl UnitWorkload {
    /// The requests at `qps` requests per second on average.
    ///
    /// Poisson and gamma arrivals need a rate; static ones without a rate all
    /// come at time zero; those of a trace come as recorded without a rate; a
    /// closed loop has no rate and ignores it.
    ///
    /// # Errors
    /// If the arrivals need another `qps`, or come later than a simulation can tell.
    pub fn at_rate(&self, qps: Option<f64>) -> Result<Workload, WorkloadError> {
        let factor = self
            .timing
            .factor(narrow::<u32, _>(self.requests.len()), qps)?;
        if let Some(last) = self.requests.last() {
            let last_s = last.arrived_at_s * factor;
            match self.timing {
                Timing::UnitRate => check_drawn_arrival(last_s)?,
                _ => check_arrival(last_s)?,
            }
        }
        let scaled = self.requests.iter().map(|request| Request {
            arrived_at_s: request.arrived_at_s * factor,
            ..*request
        });
        Ok(Workload {
            requests: scaled.collect(),
            clients: self.clients,
        })
    }

    /// Requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are no requests.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// What a person should know of every run with these requests, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Longest request, prompt and output together.
    pub fn max_total_tokens(&self) -> u64 {
        let totals = self.requests.iter();
        totals
            .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens))
            .max()
            .unwrap_or(0)
    }
}

/// The requests of a workload one after the other, at unit rate, without end.
pub(super) struct Draws {
    lengths: LengthDraws,
    arrivals: ArrivalDraws,
}

impl Draws {
    pub(super) fn new(
        config: &WorkloadConfig,
        outline: &Outline,
        seed: u64,
        replication: u32,
    ) -> Result<Self, WorkloadError> {
        let streams = Streams { seed, replication };
        Ok(Self {
            lengths: draw_lengths(&config.lengths, outline, &streams)?,
            arrivals: draw_arrivals(&config.arrivals, outline, &streams)?,
        })
    }
}

impl Iterator for Draws {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let (lengths, arrived_at_s) = (self.lengths.next()?, self.arrivals.next()?);
        Some(Request {
            arrived_at_s,
            prefill_tokens: lengths.prefill_tokens,
            decode_tokens: lengths.decode_tokens,
        })
    }
}

/// Clients of a closed loop.
pub(super) fn clients(config: &ArrivalsConfig) -> Option<u32> {
    match config {
        ArrivalsConfig::Concurrency { clients } => Some(*clients),
        _ => None,
    }
}

/// Draws the requests of `config`.
pub(super) fn generate(
    config: &WorkloadConfig,
    seed: u64,
    replication: u32,
    sources: &Sources,
) -> Result<UnitWorkload, WorkloadError> {
    let outline = Outline::of(config, sources)?;
    let draws = Draws::new(config, &outline, seed, replication)?;
    let mut requests = Vec::with_capacity(outline.requests as usize);
    requests.extend(draws.take(outline.requests as usize));
    let mut notes = outline.run_notes.clone();
    notes.extend(shorten_beyond_limit(&config.lengths, &mut requests));
    requests
        .iter()
        .try_for_each(|request| check_lengths(request.lengths()).map(drop))?;
    Ok(UnitWorkload {
        requests,
        clients: clients(&config.arrivals),
        timing: outline.timing,
        notes,
    })
}

/// Log-normal and exponential lengths have no end: those beyond what any request may
/// have are shortened to that, and said to be.
fn shorten_beyond_limit(config: &LengthsConfig, drawn: &mut [Request]) -> Option<String> {
    let kind = match config {
        LengthsConfig::Lognormal {
            max_tokens: None, ..
        } => "log-normal",
        LengthsConfig::Exponential {
            max_tokens: None, ..
        } => "exponential",
        _ => return None,
    };
    let mut shortened = 0;
    for request in drawn.iter_mut() {
        shortened += u32::from(shorten_to_allowed(request));
    }
    (shortened > 0).then(|| {
        format!(
            "{shortened} of {} {kind} requests were longer than {MOST_TOKENS} tokens and are \
             shortened to that; `max_tokens` sets another limit",
            drawn.len()
        )
    })
}

/// Shortens a request that is longer than any may be; whether it was.
pub(super) fn shorten_to_allowed(request: &mut Request) -> bool {
    let is_longer = check_lengths(request.lengths()).is_err();
    if is_longer {
        let lengths = clip(request.lengths(), Some(MOST_TOKENS));
        request.prefill_tokens = lengths.prefill_tokens;
        request.decode_tokens = lengths.decode_tokens;
    }
    is_longer
}

/// Lengths of one request after the other, without end.
type LengthDraws = Box<dyn Iterator<Item = Lengths> + Send>;
/// Arrival times, likewise.
type ArrivalDraws = Box<dyn Iterator<Item = f64> + Send>;

/// Random streams of one replication.
struct Streams {
    seed: u64,
    replication: u32,
}

impl Streams {
    /// The stream for drawing `what`, from data of that fingerprint if any.
    fn rng(&self, what: &str, fingerprint: &str) -> ChaCha8Rng {
        let mut key = blake3::Hasher::new();
        key.update(&self.seed.to_le_bytes());
        key.update(&self.replication.to_le_bytes());
        key.update(what.as_bytes());
        key.update(b"\0");
        key.update(fingerprint.as_bytes());
        ChaCha8Rng::from_seed(*key.finalize().as_bytes())
    }
}

fn draw_lengths(
    config: &LengthsConfig,
    outline: &Outline,
    streams: &Streams,
) -> Result<LengthDraws, WorkloadError> {
    match config {
        LengthsConfig::Fixed {
            prefill_tokens,
            decode_tokens,
        } => {
            let lengths = Lengths {
                prefill_tokens: (*prefill_tokens).max(1),
                decode_tokens: (*decode_tokens).max(1),
            };
            Ok(Box::new(std::iter::repeat(lengths)))
        }
        LengthsConfig::Uniform {
            min_tokens,
            max_tokens,
            prefill_to_decode_ratio,
        } => {
            let (totals, ratio) = (*min_tokens..=*max_tokens, *prefill_to_decode_ratio);
            check_range(*min_tokens, *max_tokens)?;
            let mut rng = streams.rng("lengths: uniform", "");
            let draw = move || split(rng.random_range(totals.clone()), ratio);
            Ok(Box::new(std::iter::repeat_with(draw)))
        }
        LengthsConfig::Zipf {
            min_tokens,
            max_tokens,
            theta,
            scramble,
            prefill_to_decode_ratio,
        } => {
            check_range(*min_tokens, *max_tokens)?;
            let ratio = *prefill_to_decode_ratio;
            let rng = streams.rng("lengths: zipf", "");
            let totals = zipf_totals(*min_tokens, *max_tokens, *theta, *scramble, rng)?;
            Ok(Box::new(totals.map(move |total| split(total, ratio))))
        }
        LengthsConfig::Lognormal {
            prefill_median_tokens,
            prefill_sigma,
            decode_median_tokens,
            decode_sigma,
            max_tokens,
        } => {
            let keys = [
                "workload.lengths.prefill_median_tokens",
                "workload.lengths.prefill_sigma",
            ];
            let prefill = lognormal(keys, *prefill_median_tokens, *prefill_sigma)?;
            let keys = [
                "workload.lengths.decode_median_tokens",
                "workload.lengths.decode_sigma",
            ];
            let decode = lognormal(keys, *decode_median_tokens, *decode_sigma)?;
            let mut rng = streams.rng("lengths: lognormal", "");
            let max_tokens = *max_tokens;
            let draw = move || {
                let lengths = Lengths {
                    prefill_tokens: whole(prefill.sample(&mut rng)),
                    decode_tokens: whole(decode.sample(&mut rng)),
                };
                clip(lengths, max_tokens)
            };
            Ok(Box::new(std::iter::repeat_with(draw)))
        }
        LengthsConfig::Exponential {
            prefill_mean_tokens,
            decode_mean_tokens,
            max_tokens,
        } => {
            let prefill =
                Geometric::new("workload.lengths.prefill_mean_tokens", *prefill_mean_tokens)?;
            let decode =
                Geometric::new("workload.lengths.decode_mean_tokens", *decode_mean_tokens)?;
            // Of each its own, so that a change of one leaves the other as it was.
            let mut prompts = streams.rng("lengths: exponential prompts", "");
            let mut outputs = streams.rng("lengths: exponential outputs", "");
            let max_tokens = *max_tokens;
            let draw = move || {
                let lengths = Lengths {
                    prefill_tokens: prefill.sample(&mut prompts),
                    decode_tokens: decode.sample(&mut outputs),
                };
                clip(lengths, max_tokens)
            };
            Ok(Box::new(std::iter::repeat_with(draw)))
        }
        LengthsConfig::Trace { order, .. } => {
            let drawn = match &outline.lengths {
                LengthSource::Rows { file, rows } => {
                    let lengths = &file.data.lengths().unwrap_or_default()[rows.clone()];
                    let rng = streams.rng("lengths: trace", &file.fingerprint);
                    Box::new(passes_over(lengths.to_vec(), *order, rng))
                }
                source => from_histogram(source, streams),
            };
            let config = config.clone();
            Ok(Box::new(drawn.map(move |lengths| shaped(&config, lengths))))
        }
        LengthsConfig::Histogram { max_tokens, .. } => {
            let max_tokens = *max_tokens;
            let drawn = from_histogram(&outline.lengths, streams);
            Ok(Box::new(
                drawn.map(move |lengths| clip(lengths, max_tokens)),
            ))
        }
    }
}

/// Draws from a histogram.
fn from_histogram(source: &LengthSource, streams: &Streams) -> LengthDraws {
    let LengthSource::Histogram(file) = source else {
        return Box::new(std::iter::empty());
    };
    let file = Arc::clone(file);
    let mut rng = streams.rng("lengths: histogram", &file.fingerprint);
    Box::new(std::iter::from_fn(move || {
        Some(file.data.histogram()?.sample(&mut rng))
    }))
}

/// The lengths of a trace scaled and shortened as `config` says.
pub(super) fn shaped(config: &LengthsConfig, lengths: Lengths) -> Lengths {
    let LengthsConfig::Trace {
        max_tokens,
        prefill_scale_factor,
        decode_scale_factor,
        ..
    } = config
    else {
        return lengths;
    };
    let scaled = Lengths {
        prefill_tokens: scale(lengths.prefill_tokens, *prefill_scale_factor),
        decode_tokens: scale(lengths.decode_tokens, *decode_scale_factor),
    };
    clip(scaled, *max_tokens)
}

fn check_range(min_tokens: u32, max_tokens: u32) -> Result<(), WorkloadError> {
    if min_tokens > max_tokens || min_tokens < 2 {
        return Err(WorkloadError::value(
            "workload.lengths.min_tokens",
            min_tokens,
            &format!("2 to `max_tokens` ({max_tokens})"),
        ));
    }
    Ok(())
}

/// Totals of which the k-th has weight `k^-theta`, by rejection-inversion (Hörmann and
/// Derflinger, 1996), which needs no table of them.
fn zipf_totals(
    min_tokens: u32,
    max_tokens: u32,
    theta: f64,
    scramble: bool,
    mut rng: ChaCha8Rng,
) -> Result<impl Iterator<Item = u32>, WorkloadError> {
    let items = max_tokens - min_tokens + 1;
    let ranks = Zipf::new(f64::from(items), theta).map_err(|_| {
        WorkloadError::value("workload.lengths.theta", theta, "a number of at least 0")
    })?;
    let place = scramble.then(|| Permutation::new(u64::from(items), rng.random(), 0));
    Ok(std::iter::repeat_with(move || {
        // A whole number from 1 to `items`.
        let rank = whole_u32(ranks.sample(&mut rng)).clamp(1, items) - 1;
        let at = place
            .as_ref()
            .map(|place| narrow::<u32, _>(place.at(u64::from(rank))));
        min_tokens + at.unwrap_or(rank)
    }))
}

/// A number of tokens with its median and sigma, whose keys are `keys`.
fn lognormal(
    keys: [&'static str; 2],
    median: f64,
    sigma: f64,
) -> Result<LogNormal<f64>, WorkloadError> {
    if !(median > 0.0 && median.is_finite()) {
        let allowed = "a number greater than 0";
        return Err(WorkloadError::value(keys[0], median, allowed));
    }
    let distribution = LogNormal::new(median.ln(), sigma);
    let usable = sigma >= 0.0 && sigma.is_finite();
    (distribution.ok().filter(|_| usable))
        .ok_or_else(|| WorkloadError::value(keys[1], sigma, "a number of at least 0"))
}

/// An exponential time in whole tokens: `ceil` of an exponential variable is geometric on
/// 1, 2, ..., and at this scale its mean is as given.
struct Geometric {
    /// Mean of the exponential variable.
    scale: f64,
}

impl Geometric {
    fn new(key: &'static str, mean: f64) -> Result<Self, WorkloadError> {
        if !(mean >= 1.0 && mean.is_finite()) {
            return Err(WorkloadError::value(key, mean, "a number of at least 1"));
        }
        // P(X > k) = exp(-k / scale) = (1 - 1 / mean)^k; with a mean of 1 the scale is 0.
        let scale = -(-mean.recip()).ln_1p().recip();
        Ok(Self { scale })
    }

    fn sample(&self, rng: &mut ChaCha8Rng) -> u32 {
        let exponential: f64 = Exp1.sample(rng);
        whole_u32((exponential * self.scale).ceil()).max(1)
    }
}

/// The nearest whole number of tokens, at least 1.
fn whole(tokens: f64) -> u32 {
    whole_u32(tokens.round()).max(1)
}

/// Splits a total into prompt and output, rounding the output up and leaving
/// the prompt at least one token.
fn split(total_tokens: u32, prefill_to_decode_ratio: f64) -> Lengths {
    let decode = (f64::from(total_tokens) / (1.0 + prefill_to_decode_ratio)).ceil();
    let decode_tokens = whole_u32(decode).clamp(1, total_tokens - 1);
    Lengths {
        prefill_tokens: total_tokens - decode_tokens,
        decode_tokens,
    }
}

fn scale(tokens: u32, factor: f64) -> u32 {
    // Saturates at u32::MAX, as float casts do.
    whole(f64::from(tokens) * factor)
}

/// Shortens a request longer than `max_tokens` to exactly that, prompt and
/// output in proportion.
fn clip(lengths: Lengths, max_tokens: Option<u32>) -> Lengths {
    let total = u64::from(lengths.prefill_tokens) + u64::from(lengths.decode_tokens);
    match max_tokens {
        Some(most) if total > u64::from(most) => {
            let most = most.max(2);
            let share = u64::from(lengths.prefill_tokens) * u64::from(most);
            let prefill = narrow::<u32, _>((share + total / 2) / total);
            let prefill_tokens = prefill.clamp(1, most - 1);
            Lengths {
                prefill_tokens,
                decode_tokens: most - prefill_tokens,
            }
        }
        _ => lengths,
    }
}

/// The rows, again and again.
fn passes_over(
    mut rows: Vec<Lengths>,
    order: TraceOrder,
    mut rng: ChaCha8Rng,
) -> impl Iterator<Item = Lengths> {
    let mut next = 0;
    std::iter::from_fn(move || {
        if next == 0 && order == TraceOrder::Shuffled {
            rows.shuffle(&mut rng);
        }
        let row = rows.get(next).copied();
        next = (next + 1) % rows.len().max(1);
        row
    })
}

fn draw_arrivals(
    config: &ArrivalsConfig,
    outline: &Outline,
    streams: &Streams,
) -> Result<ArrivalDraws, WorkloadError> {
    match config {
        ArrivalsConfig::Poisson => {
            let rng = streams.rng("arrivals: poisson", "");
            Ok(Box::new(running_sums(Exp1, rng)))
        }
        ArrivalsConfig::Gamma { cv } => {
            // Mean shape * scale is 1 and the coefficient of variation is
            // 1 / sqrt(shape).
            let gamma = Gamma::new(cv.powi(-2), cv.powi(2)).map_err(|_| {
                WorkloadError::value("workload.arrivals.cv", cv, "a number greater than 0")
            })?;
            let rng = streams.rng("arrivals: gamma", "");
            Ok(Box::new(running_sums(gamma, rng)))
        }
        ArrivalsConfig::Static => Ok(Box::new((0u32..).map(f64::from))),
        ArrivalsConfig::Trace { .. } => match &outline.arrivals {
            Some(arrivals) => Ok(Box::new(arrivals.times_s()?)),
            None => Ok(Box::new(std::iter::empty())),
        },
        ArrivalsConfig::Concurrency { .. } => Ok(Box::new(std::iter::repeat(0.0))),
    }
}

fn running_sums(gaps: impl Distribution<f64>, mut rng: ChaCha8Rng) -> impl Iterator<Item = f64> {
    let mut now = 0.0;
    std::iter::repeat_with(move || {
        now += gaps.sample(&mut rng);
        now
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::{DataFiles, WorkloadSource};
    use super::*;

    fn poisson(requests: u32, lengths: LengthsConfig) -> WorkloadConfig {
        WorkloadConfig {
            requests: Some(requests),
            lengths,
            arrivals: ArrivalsConfig::Poisson,
        }
    }

    fn fixed() -> LengthsConfig {
        LengthsConfig::Fixed {
            prefill_tokens: 100,
            decode_tokens: 10,
        }
    }

    fn trace(file: PathBuf, max_tokens: Option<u32>, order: TraceOrder) -> LengthsConfig {
        LengthsConfig::Trace {
            file,
            max_tokens,
            prefill_scale_factor: 1.0,
            decode_scale_factor: 1.0,
            order,
        }
    }

    fn conversations(max_tokens: Option<u32>) -> LengthsConfig {
        let file = "data/traces/azure-conv-2023.csv".into();
        trace(file, max_tokens, TraceOrder::Shuffled)
    }

    fn draw(config: &WorkloadConfig, seed: u64, qps: Option<f64>) -> Workload {
        let source = WorkloadSource::new(DataFiles::default());
        source.get(config, seed, 0).unwrap().at_rate(qps).unwrap()
    }

    fn lengths_of(workload: &Workload) -> Vec<(u32, u32)> {
        let requests = workload.requests.iter();
        requests
            .map(|r| (r.prefill_tokens, r.decode_tokens))
            .collect()
    }

    fn times_of(workload: &Workload) -> Vec<f64> {
        workload.requests.iter().map(|r| r.arrived_at_s).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn lengths_and_times_stay_within_bounds(
            seed: u64,
            kind in 0..6,
            min_tokens in 2u32..5000,
            more in 0u32..5000,
            ratio in 0.001f64..1000.0,
            cv in 0.1f64..5.0,
            qps in 0.01f64..1000.0,
        ) {
            let max_tokens = min_tokens + more;
            let lengths = match kind {
                0 => LengthsConfig::Uniform { min_tokens, max_tokens, prefill_to_decode_ratio: ratio },
                1 => conversations(Some(max_tokens)),
                2 => LengthsConfig::Zipf {
                    min_tokens,
                    max_tokens,
                    theta: cv,
                    scramble: seed % 2 == 0,
                    prefill_to_decode_ratio: ratio,
                },
                3 => LengthsConfig::Lognormal {
                    prefill_median_tokens: ratio,
                    prefill_sigma: cv,
                    decode_median_tokens: ratio,
                    decode_sigma: 0.0,
                    max_tokens: Some(max_tokens),
                },
                4 => LengthsConfig::Exponential {
                    prefill_mean_tokens: 1.0 + ratio,
                    decode_mean_tokens: 1.0 + cv,
                    max_tokens: Some(max_tokens),
                },
                _ => LengthsConfig::Histogram {
                    file: "data/traces/azure-code-2023.csv".into(),
                    max_tokens: Some(max_tokens),
                },
            };
            let config = WorkloadConfig { arrivals: ArrivalsConfig::Gamma { cv }, ..poisson(50, lengths) };
            let workload = draw(&config, seed, Some(qps));
            prop_assert_eq!(workload.requests.len(), 50);
            let mut before_s = 0.0;
            for r in &workload.requests {
                prop_assert!(r.prefill_tokens >= 1 && r.decode_tokens >= 1);
                prop_assert!(r.prefill_tokens + r.decode_tokens <= max_tokens);
                prop_assert!(r.arrived_at_s >= before_s && r.arrived_at_s.is_finite());
                before_s = r.arrived_at_s;
            }
        }

        #[test]
        fn draws_do_not_depend_on_rate_count_or_clipping(seed: u64, qps in 0.01f64..1000.0) {
            let short = poisson(30, conversations(Some(4096)));
            let long = poisson(60, conversations(None));
            let (slow, fast) = (draw(&short, seed, Some(1.0)), draw(&long, seed, Some(qps)));
            for (slow, fast) in slow.requests.iter().zip(&fast.requests) {
                prop_assert!((slow.arrived_at_s / qps - fast.arrived_at_s).abs() <= 1e-12 * fast.arrived_at_s);
                if fast.prefill_tokens + fast.decode_tokens <= 4096 {
                    prop_assert_eq!(slow.prefill_tokens, fast.prefill_tokens);
                    prop_assert_eq!(slow.decode_tokens, fast.decode_tokens);
                }
            }
        }
    }

    #[test]
    fn lengths_and_arrivals_are_independent_streams() {
        let uniform = LengthsConfig::Uniform {
            min_tokens: 10,
            max_tokens: 999,
            prefill_to_decode_ratio: 3.0,
        };
        let base = poisson(50, uniform);
        let gamma = WorkloadConfig {
            arrivals: ArrivalsConfig::Gamma { cv: 2.0 },
            ..base.clone()
        };
        let (a, b) = (draw(&base, 1, Some(1.0)), draw(&gamma, 1, Some(1.0)));
        assert_eq!(lengths_of(&a), lengths_of(&b));
        assert_ne!(times_of(&a), times_of(&b));
        let other_lengths = poisson(50, fixed());
        assert_eq!(times_of(&a), times_of(&draw(&other_lengths, 1, Some(1.0))));
        assert_ne!(times_of(&a), times_of(&draw(&base, 2, Some(1.0))));
        let source = WorkloadSource::default();
        let replication = |n| source.get(&base, 1, n).unwrap();
        assert_ne!(replication(0), replication(1));
    }

    /// Pinned: a change of these draws changes every result there is.
    #[test]
    fn draws_are_the_same_everywhere() {
        let workload = draw(&poisson(3, conversations(None)), 42, Some(2.0));
        assert_eq!(lengths_of(&workload), [(2434, 76), (179, 150), (1059, 413)]);
        let times = [
            0.904_338_272_100_676_2,
            0.955_437_021_229_411_2,
            1.118_473_763_905_722_7,
        ];
        assert_eq!(times_of(&workload), times);
    }

    #[test]
    fn rates_and_variations_are_as_asked() {
        let count = 200_000;
        for (arrivals, cv) in [
            (ArrivalsConfig::Poisson, 1.0),
            (ArrivalsConfig::Gamma { cv: 0.5 }, 0.5),
            (ArrivalsConfig::Gamma { cv: 3.0 }, 3.0),
        ] {
            let config = WorkloadConfig {
                arrivals,
                ..poisson(count, fixed())
            };
            let times = times_of(&draw(&config, 7, Some(4.0)));
            let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            // Five standard errors of the mean.
            let tolerance = 5.0 * cv / f64::from(count).sqrt();
            assert!(
                (mean * 4.0 - 1.0).abs() < tolerance,
                "mean gap {mean} at cv {cv}"
            );
            assert!(
                (variance.sqrt() / mean / cv - 1.0).abs() < 0.03,
                "{config:?}"
            );
        }
    }

    /// Figures of the traces the shipped histograms were derived from: mean, p50,
    /// p90 and p99 of prompts, then of outputs.
    #[test]
    fn shipped_histograms_draw_what_the_traces_held() {
        let traces = [
            (
                "conv",
                [1154.7, 1020.0, 2734.5, 4142.0],
                [211.1, 129.0, 424.0, 601.0],
            ),
            (
                "code",
                [2047.8, 1469.0, 5187.6, 7436.0],
                [27.88, 13.0, 55.0, 251.5],
            ),
        ];
        for (name, prefill, decode) in traces {
            let file = PathBuf::from(format!("data/traces/azure-{name}-2023.csv"));
            let lengths = LengthsConfig::Histogram {
                file,
                max_tokens: None,
            };
            let drawn = lengths_of(&draw(&poisson(400_000, lengths), 1, Some(1.0)));
            let (p, d): (Vec<u32>, Vec<u32>) = drawn.into_iter().unzip();
            for (mut values, expected) in [(p, prefill), (d, decode)] {
                values.sort_unstable();
                let at = |share: f64| f64::from(values[(share * values.len() as f64) as usize]);
                let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
                for (found, expected) in [mean, at(0.5), at(0.9), at(0.99)].iter().zip(expected) {
                    let error = (found / expected - 1.0).abs();
                    assert!(error < 0.02, "{name}: {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn static_and_closed_loop_arrivals() {
        let with = |arrivals| WorkloadConfig {
            arrivals,
            ..poisson(3, fixed())
        };
        let static_ = with(ArrivalsConfig::Static);
        assert_eq!(times_of(&draw(&static_, 0, Some(4.0))), [0.0, 0.25, 0.5]);
        assert_eq!(times_of(&draw(&static_, 0, None)), [0.0; 3]);
        let closed = draw(&with(ArrivalsConfig::Concurrency { clients: 2 }), 0, None);
        assert_eq!((closed.clients, times_of(&closed)), (Some(2), vec![0.0; 3]));
        let unit = WorkloadSource::default()
            .get(&poisson(3, fixed()), 0, 0)
            .unwrap();
        assert!(
            unit.at_rate(None)
                .unwrap_err()
                .to_string()
                .contains("key `qps`: is missing")
        );
        assert!(
            unit.at_rate(Some(0.0))
                .unwrap_err()
                .to_string()
                .contains("greater than 0")
        );
    }

    #[test]
    fn traces_shorter_than_the_workload_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace.csv");
        let rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n5,10,1\n6,20,2\n9,30,3\n";
        std::fs::write(&file, rows).unwrap();
        let arrivals = ArrivalsConfig::Trace {
            start_time: None,
            end_time: None,
            file: file.clone(),
            time_scale_factor: 1.0,
            time_unit: None,
        };
        let recorded = trace(file.clone(), None, TraceOrder::Recorded);
        let config = WorkloadConfig {
            requests: Some(7),
            lengths: recorded,
            arrivals,
        };
        let workload = draw(&config, 0, None);
        assert_eq!(times_of(&workload), [0.0, 1.0, 4.0, 6.0, 7.0, 10.0, 12.0]);
        let row = |n: u32| (10 * n, n);
        assert_eq!(lengths_of(&workload), [1, 2, 3, 1, 2, 3, 1].map(row));
        // The recording has one request in 2 s; asked for 4 in one.
        let fast = draw(&config, 0, Some(4.0));
        assert_eq!(times_of(&fast)[..4], [0.0, 0.125, 0.5, 0.75]);
        let shuffled = poisson(300, trace(file, None, TraceOrder::Shuffled));
        let mut lengths = lengths_of(&draw(&shuffled, 0, Some(1.0)));
        let passes: std::collections::BTreeSet<_> = lengths.chunks(3).map(<[_]>::to_vec).collect();
        assert!(passes.len() > 1, "reshuffled for each pass");
        lengths.sort_unstable();
        let counts: Vec<_> = lengths.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
        assert_eq!(counts, [100; 3]);
    }

    /// A trace whose prompts tell its rows, arrivals of it within a window, and lengths
    /// of it in an order.
    fn windowed(
        dir: &std::path::Path,
        requests: Option<u32>,
        order: TraceOrder,
        start: &str,
    ) -> WorkloadConfig {
        let file = dir.join("trace.csv");
        let rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n\
                    5,10,1\n6,20,1\n9,30,1\n10,40,1\n16,50,1\n";
        std::fs::write(&file, rows).unwrap();
        // Under another name: what counts is what is in it.
        let copy = dir.join("copy.csv");
        std::fs::write(&copy, rows).unwrap();
        WorkloadConfig {
            requests,
            lengths: trace(copy, None, order),
            arrivals: ArrivalsConfig::Trace {
                file,
                start_time: Some(start.to_owned()),
                end_time: None,
                time_scale_factor: 1.0,
                time_unit: None,
            },
        }
    }

    #[test]
    fn lengths_and_arrivals_of_one_trace_are_those_of_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let prompts = |workload: &Workload| -> Vec<u32> {
            workload.requests.iter().map(|r| r.prefill_tokens).collect()
        };
        let recorded = |requests, start| {
            let config = windowed(dir.path(), requests, TraceOrder::Recorded, start);
            draw(&config, 0, None)
        };
        let whole = recorded(None, "0");
        assert_eq!(prompts(&whole), [10, 20, 30, 40, 50]);
        let part = recorded(None, "6");
        assert_eq!(prompts(&part), [30, 40, 50]);
        assert_eq!(times_of(&part), [0.0, 1.0, 7.0]);
        assert_eq!(prompts(&recorded(Some(2), "6")), [30, 40]);
        // Mean gap 3.5 s.
        let again = recorded(Some(5), "6");
        assert_eq!(prompts(&again), [30, 40, 50, 30, 40]);
        assert_eq!(times_of(&again), [0.0, 1.0, 7.0, 10.5, 11.5]);
        let shuffled = windowed(dir.path(), None, TraceOrder::Shuffled, "6");
        let mut shuffled = prompts(&draw(&shuffled, 3, None));
        shuffled.sort_unstable();
        assert_eq!(shuffled, [30, 40, 50], "of the window, too");
    }

    #[test]
    fn a_trace_is_scaled_to_a_rate_by_the_part_that_is_used() {
        let dir = tempfile::tempdir().unwrap();
        for (start, requests) in [("0", 5), ("0", 3), ("0", 2), ("6", 3), ("6", 2), ("0", 13)] {
            let config = windowed(dir.path(), Some(requests), TraceOrder::Recorded, start);
            let times = times_of(&draw(&config, 0, Some(10.0)));
            let rate = f64::from(requests - 1) / times[times.len() - 1];
            assert!(
                (rate - 10.0).abs() < 1e-9,
                "{rate} of {requests} from {start}"
            );
        }
    }

    #[test]
    fn what_repeats_and_what_is_shuffled_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let source = WorkloadSource::default();
        let outline = |requests, order, start| {
            let config = windowed(dir.path(), requests, order, start);
            source.outline(&config, None).unwrap()
        };
        let all = outline(None, TraceOrder::Recorded, "6");
        assert_eq!(all.requests, 3);
        assert!(
            all.run_notes.is_empty() && all.file_notes.is_empty(),
            "{all:?}"
        );
        let again = outline(Some(5), TraceOrder::Recorded, "6");
        assert_eq!(again.run_notes.len(), 1, "{again:?}");
        assert!(
            again.run_notes[0].ends_with(
                "trace.csv: 3 rows for 5 requests: after the last row the trace starts again"
            ),
            "{again:?}"
        );
        let shuffled = outline(Some(3), TraceOrder::Shuffled, "6");
        assert!(shuffled.run_notes.is_empty());
        assert!(shuffled.file_notes[0].contains("`order: recorded` keeps them together"));
        // Arrivals of one file, lengths of another: each repeats by itself.
        let other = dir.path().join("other.csv");
        std::fs::write(&other, "num_prefill_tokens,num_decode_tokens\n1,2\n").unwrap();
        let config = WorkloadConfig {
            lengths: trace(other, None, TraceOrder::Shuffled),
            ..windowed(dir.path(), None, TraceOrder::Recorded, "0")
        };
        let told = source.outline(&config, None).unwrap();
        assert_eq!((told.requests, told.run_notes.len()), (5, 1));
        assert!(
            told.run_notes[0].contains("1 rows for 5 requests"),
            "{told:?}"
        );
        let drawn = source.get(&config, 0, 0).unwrap();
        assert_eq!(drawn.notes(), told.run_notes);
    }

    /// Requests that come at the same time need neither a duration nor company.
    #[test]
    fn a_burst_needs_a_duration_only_to_repeat_or_to_be_scaled() {
        let dir = tempfile::tempdir().unwrap();
        let header = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
        for (name, rows) in [("burst.csv", 3u32), ("single.csv", 1)] {
            let file = dir.path().join(name);
            std::fs::write(
                &file,
                header.to_owned() + &"7,400,300\n".repeat(rows as usize),
            )
            .unwrap();
            let config = |requests| WorkloadConfig {
                requests,
                lengths: trace(file.clone(), None, TraceOrder::Recorded),
                arrivals: ArrivalsConfig::Trace {
                    file: file.clone(),
                    start_time: None,
                    end_time: None,
                    time_scale_factor: 1.0,
                    time_unit: None,
                },
            };
            let source = WorkloadSource::default();
            assert_eq!(
                times_of(&draw(&config(None), 0, None)),
                vec![0.0; rows as usize]
            );
            assert_eq!(
                source.outline(&config(Some(rows)), None).unwrap().requests,
                rows
            );
            let again = source.outline(&config(Some(rows + 1)), None).unwrap_err();
            assert!(
                again.to_string().contains("rows have the same time"),
                "{again}"
            );
            assert_eq!(
                source.get(&config(Some(rows + 1)), 0, 0).unwrap_err(),
                again
            );
            let scaled = source.outline(&config(None), Some(2.0)).unwrap_err();
            assert!(
                scaled.to_string().contains("which no factor turns"),
                "{scaled}"
            );
            let drawn = source.get(&config(None), 0, 0).unwrap();
            assert_eq!(drawn.at_rate(Some(2.0)).unwrap_err(), scaled);
        }
    }

    /// What double precision cannot tell is refused, by an outline as by a draw.
    #[test]
    fn rates_too_low_to_be_told_are_refused() {
        let source = WorkloadSource::default();
        for arrivals in [
            ArrivalsConfig::Poisson,
            ArrivalsConfig::Gamma { cv: 2.0 },
            ArrivalsConfig::Static,
        ] {
            let config = WorkloadConfig {
                arrivals,
                ..poisson(10, fixed())
            };
            let drawn = source.get(&config, 0, 0).unwrap();
            for qps in [1e-10, 1e-14, 1e-16, 1e-300, 5e-324] {
                let message = source.outline(&config, Some(qps)).unwrap_err();
                assert!(
                    message.to_string().contains("10 requests take"),
                    "{message}"
                );
                assert_eq!(drawn.at_rate(Some(qps)).unwrap_err(), message);
            }
            for qps in [2e-9, 1.0, 1e300] {
                source.outline(&config, Some(qps)).unwrap();
                drawn.at_rate(Some(qps)).unwrap();
            }
        }
    }

    #[test]
    fn scaled_and_drawn_lengths_stay_within_what_a_request_may_have() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        std::fs::write(&file, "num_prefill_tokens,num_decode_tokens\n1000,2\n").unwrap();
        let scaled = |factor: f64, max_tokens: Option<u32>| {
            let lengths = LengthsConfig::Trace {
                file: file.clone(),
                max_tokens,
                prefill_scale_factor: factor,
                decode_scale_factor: 1.0,
                order: TraceOrder::Shuffled,
            };
            poisson(3, lengths)
        };
        let source = WorkloadSource::default();
        for factor in [20_000.0, 5e6, 1e300] {
            let message = source
                .outline(&scaled(factor, None), Some(1.0))
                .unwrap_err();
            assert!(
                message.to_string().contains("allowed is 16777216 together"),
                "{message}"
            );
            assert!(source.get(&scaled(factor, None), 0, 0).is_err());
            let clipped = draw(&scaled(factor, Some(4096)), 0, Some(1.0));
            assert!(
                clipped
                    .requests
                    .iter()
                    .all(|r| r.prefill_tokens + r.decode_tokens == 4096)
            );
        }
        let endless = LengthsConfig::Lognormal {
            prefill_median_tokens: 1e6,
            prefill_sigma: 20.0,
            decode_median_tokens: 100.0,
            decode_sigma: 0.0,
            max_tokens: None,
        };
        let exponential = LengthsConfig::Exponential {
            prefill_mean_tokens: 1.6e7,
            decode_mean_tokens: 100.0,
            max_tokens: None,
        };
        for (kind, lengths) in [("log-normal", endless), ("exponential", exponential)] {
            let drawn = source.get(&poisson(100, lengths), 0, 0).unwrap();
            assert!(drawn.max_total_tokens() <= u64::from(MOST_TOKENS));
            let note = format!("{kind} requests were longer");
            assert!(drawn.notes()[0].contains(&note), "{drawn:?}");
        }
        let short = LengthsConfig::Exponential {
            prefill_mean_tokens: 3000.0,
            decode_mean_tokens: 1000.0,
            max_tokens: Some(4096),
        };
        let drawn = source.get(&poisson(100, short), 0, 0).unwrap();
        assert_eq!(drawn.max_total_tokens(), 4096);
        assert!(drawn.notes().is_empty());
    }

    /// No table of lengths: the widest range is drawn from at once.
    #[test]
    fn the_widest_zipf_is_drawn_at_once() {
        for (theta, scramble) in [(0.0, false), (0.6, true), (1.0, false), (3.0, true)] {
            let lengths = LengthsConfig::Zipf {
                min_tokens: 2,
                max_tokens: MOST_TOKENS,
                theta,
                scramble,
                prefill_to_decode_ratio: 4.0,
            };
            let started = std::time::Instant::now();
            let drawn = draw(&poisson(1000, lengths), 5, Some(1.0));
            assert_eq!(drawn.requests.len(), 1000);
            assert!(started.elapsed().as_secs_f64() < 1.0, "a table?");
        }
    }

    #[test]
    fn uniform_totals_split_with_the_output_rounded_up() {
        let pair = |total, ratio| {
            let l = split(total, ratio);
            (l.prefill_tokens, l.decode_tokens)
        };
        assert_eq!(pair(1024, 20.0), (975, 49));
        assert_eq!(pair(2, 1e-9), (1, 1));
        assert_eq!(pair(2, 1e9), (1, 1));
    }

    #[test]
    fn zipf_favours_short_requests_and_scrambling_keeps_the_shares() {
        let shares = |scramble| {
            let lengths = LengthsConfig::Zipf {
                min_tokens: 10,
                max_tokens: 13,
                theta: 1.0,
                scramble,
                prefill_to_decode_ratio: 1.0,
            };
            let mut counts = [0u32; 4];
            for (prefill, decode) in lengths_of(&draw(&poisson(24_000, lengths), 3, Some(1.0))) {
                counts[(prefill + decode - 10) as usize] += 1;
            }
            counts
        };
        let plain = shares(false);
        // Weights 1, 1/2, 1/3, 1/4 of 25/12.
        for (count, expected) in plain.iter().zip([11_520.0, 5_760.0, 3_840.0, 2_880.0]) {
            assert!(
                (f64::from(*count) / expected - 1.0).abs() < 0.06,
                "{plain:?}"
            );
        }
        let mut scrambled = shares(true);
        scrambled.sort_unstable_by(|a, b| b.cmp(a));
        assert!((f64::from(scrambled[0]) / 11_520.0 - 1.0).abs() < 0.06);
    }

    #[test]
    fn lognormal_lengths_have_the_median_asked_for() {
        let lengths = LengthsConfig::Lognormal {
            prefill_median_tokens: 1000.0,
            prefill_sigma: 1.0,
            decode_median_tokens: 200.0,
            decode_sigma: 0.5,
            max_tokens: None,
        };
        let mut prefills: Vec<u32> = lengths_of(&draw(&poisson(20_001, lengths), 1, Some(1.0)))
            .iter()
            .map(|(prefill, _)| *prefill)
            .collect();
        prefills.sort_unstable();
        assert!(
            (970..1030).contains(&prefills[10_000]),
            "{}",
            prefills[10_000]
        );
        // One standard deviation: 84 % lie below e times the median.
        assert!(
            (2550..2900).contains(&prefills[16_827]),
            "{}",
            prefills[16_827]
        );
    }

    /// Mean and tail of a geometric distribution: P(X > k) = (1 - 1 / mean)^k.
    #[test]
    fn exponential_lengths_are_geometric_with_the_mean_asked_for() {
        let lengths = |prefill_mean_tokens, decode_mean_tokens| LengthsConfig::Exponential {
            prefill_mean_tokens,
            decode_mean_tokens,
            max_tokens: None,
        };
        const DRAWN: u32 = 200_000;
        let drawn = |lengths| lengths_of(&draw(&poisson(DRAWN, lengths), 1, Some(1.0)));
        for (prefill, decode) in [(1000.0, 1.5), (2.0, 300.0), (1.0, 40.0)] {
            let drawn = drawn(lengths(prefill, decode));
            let (prompts, outputs): (Vec<u32>, Vec<u32>) = drawn.into_iter().unzip();
            for (mean, sample) in [(prefill, &prompts), (decode, &outputs)] {
                let total: f64 = sample.iter().copied().map(f64::from).sum();
                let sigma = (mean * (mean - 1.0) / f64::from(DRAWN)).sqrt();
                let off = total / f64::from(DRAWN) - mean;
                assert!(off.abs() <= 4.0 * sigma, "{off} of {mean}, sigma {sigma}");
                for k in [1.0, mean.floor(), (2.0 * mean).floor()] {
                    let share = (1.0 - 1.0 / mean).powf(k);
                    let beyond = sample.iter().filter(|x| f64::from(**x) > k).count() as f64;
                    let sigma = (share * (1.0 - share) / f64::from(DRAWN)).sqrt();
                    let off = beyond / f64::from(DRAWN) - share;
                    assert!(off.abs() <= 4.0 * sigma, "{off} beyond {k} of {mean}");
                }
            }
            // Independent of each other.
            let centred = |mean: f64| move |x: &u32| f64::from(*x) - mean;
            let products = prompts.iter().map(centred(prefill));
            let products = products.zip(outputs.iter().map(centred(decode)));
            let covariance: f64 = products.map(|(p, d)| p * d).sum::<f64>() / f64::from(DRAWN);
            let scale = (prefill * (prefill - 1.0) * decode * (decode - 1.0)).sqrt();
            assert!(covariance.abs() <= 0.01 * scale, "{covariance} of {scale}");
        }
        assert!(drawn(lengths(1.0, 1.0)).iter().all(|pair| *pair == (1, 1)));
        // Another mean of the outputs leaves the prompts as they were.
        let prompts = |decode| -> Vec<u32> {
            let drawn = drawn(lengths(50.0, decode)).into_iter();
            drawn.map(|(prompt, _)| prompt).collect()
        };
        assert_eq!(prompts(1.0), prompts(900.0));
    }

    #[test]
    fn clipping_is_proportional_and_exact() {
        let pair = |p, d, most| {
            let lengths = Lengths {
                prefill_tokens: p,
                decode_tokens: d,
            };
            let l = clip(lengths, Some(most));
            (l.prefill_tokens, l.decode_tokens)
        };
        assert_eq!(pair(3000, 1000, 2000), (1500, 500));
        assert_eq!(pair(3000, 1000, 4000), (3000, 1000));
        assert_eq!(pair(14_050, 1, 4096), (4095, 1));
        assert_eq!(pair(1, 100, 2), (1, 1));
    }

    #[test]
    fn what_a_file_lacks_is_said() {
        let source = WorkloadSource::default();
        let histogram = PathBuf::from("data/traces/azure-conv-2023.csv");
        let config = WorkloadConfig {
            arrivals: ArrivalsConfig::Trace {
                file: histogram,
                start_time: None,
                end_time: None,
                time_scale_factor: 1.0,
                time_unit: None,
            },
            ..poisson(3, fixed())
        };
        let message = source.get(&config, 0, 0).unwrap_err().to_string();
        assert!(
            message.contains("a length histogram has no arrival times"),
            "{message}"
        );
    }
}
