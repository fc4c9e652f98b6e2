//! Draws the requests of a workload.
//!
//! Lengths and inter-arrival times come from separate ChaCha streams, keyed by
//! what is drawn, so that a change of one leaves the other as it was.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, LogNormal};

use super::source::Sources;
use super::{
    ArrivalsConfig, LengthData, Lengths, LengthsConfig, Request, Trace, TraceOrder, Workload,
    WorkloadConfig, WorkloadError,
};

/// What the arrival times of a [`UnitWorkload`] mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Timing {
    /// One request per second on average, to be scaled.
    UnitRate,
    /// As [`Self::UnitRate`]; without a rate, all requests at time zero.
    UnitRateOrAtOnce,
    /// As recorded, times a factor; the mean rate of the recording.
    Recorded { rate_per_s: f64, scale: f64 },
    /// Requests come when others end.
    ClosedLoop,
}

/// A workload before it is given its rate: what all points of a QPS sweep share.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitWorkload {
    requests: Vec<Request>,
    clients: Option<u32>,
    timing: Timing,
}

impl UnitWorkload {
    /// The requests at `qps` requests per second on average.
    ///
    /// Poisson and gamma arrivals need a rate; static ones without a rate all
    /// come at time zero; those of a trace come as recorded without a rate; a
    /// closed loop has no rate and ignores it.
    pub fn at_rate(&self, qps: Option<f64>) -> Result<Workload, WorkloadError> {
        let factor = match (self.timing, qps) {
            (Timing::ClosedLoop, _) | (Timing::UnitRateOrAtOnce, None) => 0.0,
            (_, Some(qps)) if !(qps > 0.0 && qps.is_finite()) => {
                let message = format!("`qps` is `{qps}`; allowed is a number greater than 0");
                return Err(WorkloadError::new(message));
            }
            (Timing::UnitRate, None) => {
                let message = "random arrivals need a rate: set `qps`";
                return Err(WorkloadError::new(message));
            }
            (Timing::UnitRate | Timing::UnitRateOrAtOnce, Some(qps)) => qps.recip(),
            (Timing::Recorded { scale, .. }, None) => scale,
            (Timing::Recorded { rate_per_s, scale }, Some(qps)) => {
                if scale != 1.0 {
                    let message = "`qps` and `workload.arrivals.time_scale_factor` both set the \
                                   rate of a trace: leave one out";
                    return Err(WorkloadError::new(message));
                }
                rate_per_s / qps
            }
        };
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

    /// Longest request, prompt and output together.
    pub fn max_total_tokens(&self) -> u64 {
        let totals = self.requests.iter();
        totals
            .map(|r| u64::from(r.prefill_tokens) + u64::from(r.decode_tokens))
            .max()
            .unwrap_or(0)
    }
}

/// Draws `config.requests` requests.
pub(super) fn generate(
    config: &WorkloadConfig,
    seed: u64,
    replication: u32,
    sources: &Sources,
) -> Result<UnitWorkload, WorkloadError> {
    let count = config.requests as usize;
    let stream = Streams { seed, replication };
    let lengths = draw_lengths(&config.lengths, count, &stream, sources)?;
    let (times, timing) = draw_arrivals(&config.arrivals, count, &stream, sources)?;
    let requests = lengths.iter().zip(times).map(|(l, arrived_at_s)| Request {
        arrived_at_s,
        prefill_tokens: l.prefill_tokens,
        decode_tokens: l.decode_tokens,
    });
    let clients = match config.arrivals {
        ArrivalsConfig::Concurrency { clients } => Some(clients),
        _ => None,
    };
    Ok(UnitWorkload {
        requests: requests.collect(),
        clients,
        timing,
    })
}

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
    count: usize,
    streams: &Streams,
    sources: &Sources,
) -> Result<Vec<Lengths>, WorkloadError> {
    match config {
        LengthsConfig::Fixed {
            prefill_tokens,
            decode_tokens,
        } => {
            let lengths = Lengths {
                prefill_tokens: (*prefill_tokens).max(1),
                decode_tokens: (*decode_tokens).max(1),
            };
            Ok(vec![lengths; count])
        }
        LengthsConfig::Uniform {
            min_tokens,
            max_tokens,
            prefill_to_decode_ratio,
        } => {
            let ratio = *prefill_to_decode_ratio;
            draw_uniform(*min_tokens, *max_tokens, ratio, count, streams)
        }
        LengthsConfig::Zipf {
            min_tokens,
            max_tokens,
            theta,
            scramble,
            prefill_to_decode_ratio,
        } => {
            check_range(*min_tokens, *max_tokens)?;
            let rng = streams.rng("lengths: zipf", "");
            let totals = zipf_totals(*min_tokens, *max_tokens, *theta, *scramble, rng);
            let split = |total| split(total, *prefill_to_decode_ratio);
            Ok(totals.map(split).take(count).collect())
        }
        LengthsConfig::Lognormal {
            prefill_median_tokens,
            prefill_sigma,
            decode_median_tokens,
            decode_sigma,
            max_tokens,
        } => {
            let prefill = lognormal("prefill", *prefill_median_tokens, *prefill_sigma)?;
            let decode = lognormal("decode", *decode_median_tokens, *decode_sigma)?;
            let mut rng = streams.rng("lengths: lognormal", "");
            let mut draw = |_| {
                let lengths = Lengths {
                    prefill_tokens: whole(prefill.sample(&mut rng)),
                    decode_tokens: whole(decode.sample(&mut rng)),
                };
                clip(lengths, *max_tokens)
            };
            Ok((0..count).map(&mut draw).collect())
        }
        LengthsConfig::Trace {
            file,
            max_tokens,
            prefill_scale_factor,
            decode_scale_factor,
            order,
        } => {
            let loaded = sources.lengths(file)?;
            let drawn = match &loaded.data {
                LengthData::Rows(rows) => {
                    let mut rng = streams.rng("lengths: trace", &loaded.fingerprint);
                    pass_over(rows, *order, count, &mut rng)
                }
                LengthData::Histogram(histogram) => {
                    let mut rng = streams.rng("lengths: histogram", &loaded.fingerprint);
                    (0..count).map(|_| histogram.sample(&mut rng)).collect()
                }
            };
            let shape = |l: Lengths| {
                let scaled = Lengths {
                    prefill_tokens: scale(l.prefill_tokens, *prefill_scale_factor),
                    decode_tokens: scale(l.decode_tokens, *decode_scale_factor),
                };
                clip(scaled, *max_tokens)
            };
            Ok(drawn.into_iter().map(shape).collect())
        }
        LengthsConfig::Histogram { file, max_tokens } => {
            let loaded = sources.lengths(file)?;
            let LengthData::Histogram(histogram) = &loaded.data else {
                let message = "is a trace, not a length histogram: use `type: trace`";
                return Err(WorkloadError::in_file(file, message));
            };
            let mut rng = streams.rng("lengths: histogram", &loaded.fingerprint);
            let draw = |_| clip(histogram.sample(&mut rng), *max_tokens);
            Ok((0..count).map(draw).collect())
        }
    }
}

fn draw_uniform(
    min_tokens: u32,
    max_tokens: u32,
    ratio: f64,
    count: usize,
    streams: &Streams,
) -> Result<Vec<Lengths>, WorkloadError> {
    check_range(min_tokens, max_tokens)?;
    let mut rng = streams.rng("lengths: uniform", "");
    let draw = |_| split(rng.random_range(min_tokens..=max_tokens), ratio);
    Ok((0..count).map(draw).collect())
}

fn check_range(min_tokens: u32, max_tokens: u32) -> Result<(), WorkloadError> {
    if min_tokens > max_tokens || min_tokens < 2 {
        let message = format!(
            "`workload.lengths.min_tokens` is `{min_tokens}`; \
             allowed is 2 to `max_tokens` ({max_tokens})"
        );
        return Err(WorkloadError::new(message));
    }
    Ok(())
}

/// Totals of which the k-th has weight `k^-theta`, by inversion of the
/// cumulative weights.
fn zipf_totals(
    min_tokens: u32,
    max_tokens: u32,
    theta: f64,
    scramble: bool,
    mut rng: ChaCha8Rng,
) -> impl Iterator<Item = u32> {
    let items = max_tokens - min_tokens + 1;
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=items)
        .map(|rank| {
            sum += f64::from(rank).powf(-theta);
            sum
        })
        .collect();
    let place: Option<Vec<u32>> = scramble.then(|| {
        let mut order: Vec<u32> = (0..items).collect();
        order.shuffle(&mut rng);
        order
    });
    std::iter::repeat_with(move || {
        let at = rng.random::<f64>() * sum;
        let rank = cumulative
            .partition_point(|&upto| upto <= at)
            .min(items as usize - 1);
        min_tokens + place.as_ref().map_or(rank as u32, |place| place[rank])
    })
}

fn lognormal(what: &str, median: f64, sigma: f64) -> Result<LogNormal<f64>, WorkloadError> {
    let usable = median > 0.0 && median.is_finite() && sigma >= 0.0 && sigma.is_finite();
    let distribution = LogNormal::new(median.ln(), sigma).ok().filter(|_| usable);
    distribution.ok_or_else(|| {
        WorkloadError::new(format!(
            "`workload.lengths.{what}_median_tokens` is `{median}` and `{what}_sigma` `{sigma}`; \
             allowed are a number greater than 0 and one from 0 on"
        ))
    })
}

/// The nearest whole number of tokens, at least 1.
fn whole(tokens: f64) -> u32 {
    (tokens.round() as u32).max(1)
}

/// Splits a total into prompt and output, rounding the output up and leaving
/// the prompt at least one token.
fn split(total_tokens: u32, prefill_to_decode_ratio: f64) -> Lengths {
    let decode = (f64::from(total_tokens) / (1.0 + prefill_to_decode_ratio)).ceil();
    let decode_tokens = (decode as u32).clamp(1, total_tokens - 1);
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
            let prefill = ((share + total / 2) / total) as u32;
            let prefill_tokens = prefill.clamp(1, most - 1);
            Lengths {
                prefill_tokens,
                decode_tokens: most - prefill_tokens,
            }
        }
        _ => lengths,
    }
}

/// `count` rows, passing over them as often as it takes.
fn pass_over(
    rows: &[Lengths],
    order: TraceOrder,
    count: usize,
    rng: &mut impl Rng,
) -> Vec<Lengths> {
    let mut drawn = Vec::with_capacity(count);
    let mut pass: Vec<Lengths> = rows.to_vec();
    while drawn.len() < count {
        if order == TraceOrder::Shuffled {
            pass.shuffle(rng);
        }
        drawn.extend(pass.iter().take(count - drawn.len()));
    }
    drawn
}

fn draw_arrivals(
    config: &ArrivalsConfig,
    count: usize,
    streams: &Streams,
    sources: &Sources,
) -> Result<(Vec<f64>, Timing), WorkloadError> {
    match config {
        ArrivalsConfig::Poisson => {
            let rng = streams.rng("arrivals: poisson", "");
            Ok((running_sums(Exp1, rng, count), Timing::UnitRate))
        }
        ArrivalsConfig::Gamma { cv } => {
            // Mean shape * scale is 1 and the coefficient of variation is
            // 1 / sqrt(shape).
            let gamma = Gamma::new(cv.powi(-2), cv.powi(2)).map_err(|_| {
                let message =
                    format!("`workload.arrivals.cv` is `{cv}`; allowed is a number greater than 0");
                WorkloadError::new(message)
            })?;
            let rng = streams.rng("arrivals: gamma", "");
            Ok((running_sums(gamma, rng, count), Timing::UnitRate))
        }
        ArrivalsConfig::Static => {
            let times = (0..count).map(|i| i as f64).collect();
            Ok((times, Timing::UnitRateOrAtOnce))
        }
        ArrivalsConfig::Trace {
            file,
            start_time,
            end_time,
            time_scale_factor,
        } => {
            let trace = sources.trace(file)?;
            if start_time.is_none() && end_time.is_none() {
                return recorded(&trace.data, count, *time_scale_factor);
            }
            let part = trace
                .data
                .between(start_time.as_deref(), end_time.as_deref())?;
            recorded(&part, count, *time_scale_factor)
        }
        ArrivalsConfig::Concurrency { .. } => Ok((vec![0.0; count], Timing::ClosedLoop)),
    }
}

fn running_sums(gaps: impl Distribution<f64>, mut rng: ChaCha8Rng, count: usize) -> Vec<f64> {
    let mut now = 0.0;
    let mut next = |_| {
        now += gaps.sample(&mut rng);
        now
    };
    (0..count).map(&mut next).collect()
}

/// Recorded arrival times; after the last row the recording starts again, one
/// mean gap later.
fn recorded(trace: &Trace, count: usize, scale: f64) -> Result<(Vec<f64>, Timing), WorkloadError> {
    let Some(times) = &trace.arrivals_s else {
        let message = "has no arrival times; needed is a column `arrived_at` (or another \
                       format of docs/spec.md)";
        return Err(WorkloadError::in_file(&trace.name, message));
    };
    let last = times[times.len() - 1];
    if last <= 0.0 {
        let message = "all requests arrive at the same time: a trace of arrivals needs a duration";
        return Err(WorkloadError::in_file(&trace.name, message));
    }
    let mean_gap = last / (times.len() - 1) as f64;
    let period = last + mean_gap;
    let time = |i: usize| (i / times.len()) as f64 * period + times[i % times.len()];
    let timing = Timing::Recorded {
        rate_per_s: mean_gap.recip(),
        scale,
    };
    Ok(((0..count).map(time).collect(), timing))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::{DataFiles, WorkloadSource};
    use super::*;

    fn poisson(requests: u32, lengths: LengthsConfig) -> WorkloadConfig {
        WorkloadConfig {
            requests,
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
            kind in 0..5,
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
                .contains("set `qps`")
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
        };
        let recorded = trace(file.clone(), None, TraceOrder::Recorded);
        let config = WorkloadConfig {
            requests: 7,
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
