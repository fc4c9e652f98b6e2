//! Vidur's request generators, draw for draw.
//!
//! For compatibility runs only: these keep what the originals do, their capped
//! Poisson gaps, rounding and limits included, and draw from the same random
//! streams in the same order (per request the interval first, then the length).
//! Behaviour: microsoft/vidur at 7d475133, `vidur/request_generator`; NumPy's
//! legacy `RandomState` for gamma intervals and shuffled traces. What cannot be
//! had is the scrambling of `zipf`, which hashes text with a key that differs
//! from one Python process to the next.

use std::path::PathBuf;

use super::trace::parse_date_time;
use super::{DataFiles, Lengths, MersenneTwister, Request, Trace, WorkloadError, read_trace};
use crate::number::{narrow, whole_u32, whole_u64};

/// `synthetic` requests.
#[derive(Debug, Clone, PartialEq)]
pub struct VidurGenerator {
    /// Seed of Python's and NumPy's global streams.
    pub seed: u64,
    /// When to stop.
    pub until: VidurUntil,
    /// Gaps between arrivals.
    pub intervals: VidurIntervals,
    /// Prompt and output lengths.
    pub lengths: VidurLengths,
}

/// When [`VidurGenerator`] stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VidurUntil {
    /// After that many requests.
    Requests(u32),
    /// Before this arrival time, seconds.
    DurationS(f64),
    /// At the end of the trace of intervals.
    TraceEnds,
}

/// Gaps between arrivals.
#[derive(Debug, Clone, PartialEq)]
pub enum VidurIntervals {
    /// Exponential, none longer than three times the mean.
    Poisson {
        /// Rate before capping.
        qps: f64,
    },
    /// Gamma.
    Gamma {
        /// Rate.
        qps: f64,
        /// Coefficient of variation.
        cv: f64,
    },
    /// All requests at time zero.
    Static,
    /// Gaps of a trace, in whole seconds before scaling.
    Trace {
        /// Column `arrival_time`, dates and times.
        file: PathBuf,
        /// Only rows after this date and time.
        start_time: String,
        /// Only rows before this date and time.
        end_time: String,
        /// Factor on gaps.
        time_scale_factor: f64,
    },
}

/// Prompt and output lengths.
#[derive(Debug, Clone, PartialEq)]
pub enum VidurLengths {
    /// All the same.
    Fixed(Lengths),
    /// Uniform total, split by ratio.
    Uniform {
        /// Shortest total.
        min_tokens: u32,
        /// Longest total.
        max_tokens: u32,
        /// Prompt tokens per output token.
        prefill_to_decode_ratio: f64,
    },
    /// Zipf-distributed total, split by ratio.
    Zipf {
        /// Seed of its own stream.
        seed: u32,
        /// Shortest total.
        min_tokens: u32,
        /// Longest total.
        max_tokens: u32,
        /// Skew.
        theta: f64,
        /// Prompt tokens per output token.
        prefill_to_decode_ratio: f64,
    },
    /// A shuffled trace.
    Trace {
        /// Seed of the shuffle.
        seed: u32,
        /// Columns `num_prefill_tokens`, `num_decode_tokens`.
        file: PathBuf,
        /// Longest total.
        max_tokens: u32,
        /// Factor on prompts.
        prefill_scale_factor: f64,
        /// Factor on outputs.
        decode_scale_factor: f64,
    },
}

/// `trace_replay` requests: a trace as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct VidurReplay {
    /// Columns `arrived_at`, `num_prefill_tokens`, `num_decode_tokens`.
    pub file: PathBuf,
    /// Longest total; the excess is taken from the prompt.
    pub max_tokens: u32,
    /// Factor on prompts.
    pub prefill_scale_factor: f64,
    /// Factor on outputs.
    pub decode_scale_factor: f64,
    /// Factor on arrival times.
    pub time_scale_factor: f64,
}

impl VidurGenerator {
    /// The requests, in order of arrival.
    ///
    /// # Errors
    /// If a file is missing or malformed, a trace ends too early (where the
    /// original stops with an exception), or a request would have no output.
    pub fn generate(&self, files: &DataFiles) -> Result<Vec<Request>, WorkloadError> {
        let mut intervals = Intervals::new(&self.intervals, self.seed, files)?;
        let mut lengths = LengthDraws::new(&self.lengths, files)?;
        let mut python = MersenneTwister::python(self.seed);
        let mut requests = Vec::new();
        let mut now_s = 0.0;
        let wanted = |made: usize, now_s: f64| match self.until {
            VidurUntil::Requests(count) => made < count as usize,
            VidurUntil::DurationS(duration_s) => now_s < duration_s,
            VidurUntil::TraceEnds => true,
        };
        while wanted(requests.len(), now_s) {
            let Some(gap_s) = intervals.next(&mut python) else {
                match self.until {
                    VidurUntil::TraceEnds => break,
                    _ => return Err(ended_early("intervals", requests.len())),
                }
            };
            now_s += gap_s;
            let Some(drawn) = lengths.next(&mut python)? else {
                match self.until {
                    VidurUntil::TraceEnds => break,
                    _ => return Err(ended_early("lengths", requests.len())),
                }
            };
            requests.push(Request {
                arrived_at_s: now_s,
                prefill_tokens: drawn.prefill_tokens,
                decode_tokens: drawn.decode_tokens,
            });
        }
        if let VidurUntil::DurationS(duration_s) = self.until {
            requests.retain(|request| request.arrived_at_s < duration_s);
        }
        Ok(requests)
    }

    /// Draws from Python's stream for `requests` requests: routers that draw
    /// from it go on after them.
    pub fn python_draws(&self, requests: u64) -> u64 {
        let interval = u64::from(matches!(self.intervals, VidurIntervals::Poisson { .. }));
        let length = u64::from(matches!(self.lengths, VidurLengths::Uniform { .. }));
        requests * (interval + length)
    }
}

impl VidurReplay {
    /// The requests, in the order of the file.
    ///
    /// # Errors
    /// If the file is missing, malformed or lacks a column, or a prompt is cut
    /// to nothing.
    pub fn generate(&self, files: &DataFiles) -> Result<Vec<Request>, WorkloadError> {
        let trace = read_trace(&files.read(&self.file)?, None)?;
        let rows = lengths_of(&trace)?;
        let Some(times_s) = &trace.arrivals_s else {
            let message = "has no arrival times; needed is a column `arrived_at`";
            return Err(WorkloadError::in_file(&trace.name, message));
        };
        let request = |(row, time_s): (&Lengths, &f64)| {
            let scaled = scaled(*row, self.prefill_scale_factor, self.decode_scale_factor);
            let total = u64::from(scaled.prefill_tokens) + u64::from(scaled.decode_tokens);
            let excess = total.saturating_sub(u64::from(self.max_tokens));
            let prefill_tokens =
                narrow::<u32, _>(u64::from(scaled.prefill_tokens).saturating_sub(excess));
            if prefill_tokens == 0 {
                let message = format!(
                    "a request of {total} tokens has no prompt left when cut to max_tokens ({}); \
                     the original goes on with a prompt of no tokens or fewer",
                    self.max_tokens
                );
                return Err(WorkloadError::in_file(&trace.name, message));
            }
            Ok(Request {
                arrived_at_s: (trace.origin_s + time_s) * self.time_scale_factor,
                prefill_tokens,
                decode_tokens: scaled.decode_tokens,
            })
        };
        rows.iter().zip(times_s).map(request).collect()
    }
}

/// Draws of gaps.
enum Intervals {
    Poisson { qps: f64 },
    Gamma(Box<GammaDraws>),
    Static,
    Trace(std::vec::IntoIter<f64>),
}

impl Intervals {
    fn new(config: &VidurIntervals, seed: u64, files: &DataFiles) -> Result<Self, WorkloadError> {
        Ok(match config {
            VidurIntervals::Poisson { qps } => Self::Poisson { qps: *qps },
            VidurIntervals::Gamma { qps, cv } => {
                let shape = 1.0 / (cv * cv);
                Self::Gamma(Box::new(GammaDraws {
                    rng: MersenneTwister::numpy(narrow::<u32, _>(seed)),
                    spare: None,
                    shape,
                    scale: 1.0 / (qps * shape),
                }))
            }
            VidurIntervals::Static => Self::Static,
            VidurIntervals::Trace {
                file,
                start_time,
                end_time,
                time_scale_factor,
            } => {
                let trace = read_trace(&files.read(file)?, None)?;
                let gaps = gaps_s(&trace, start_time, end_time, *time_scale_factor)?;
                Self::Trace(gaps.into_iter())
            }
        })
    }

    fn next(&mut self, python: &mut MersenneTwister) -> Option<f64> {
        match self {
            Self::Poisson { qps } => {
                let gap_s = -(1.0 - python.unit()).ln() / *qps;
                Some(gap_s.min(1.0 / *qps * 3.0))
            }
            Self::Gamma(draws) => Some(draws.next()),
            Self::Static => Some(0.0),
            Self::Trace(gaps) => gaps.next(),
        }
    }
}

/// Gaps between rows within a window; the first row has none and is left out.
fn gaps_s(
    trace: &Trace,
    start_time: &str,
    end_time: &str,
    scale: f64,
) -> Result<Vec<f64>, WorkloadError> {
    let Some(times_s) = &trace.arrivals_s else {
        let message = "has no arrival times; needed is a column `arrival_time`";
        return Err(WorkloadError::in_file(&trace.name, message));
    };
    let bound = |key: &'static str, text: &str| {
        parse_date_time(text).ok_or_else(|| {
            let message =
                format!("value `{text}` is not a date and time; an example is 1970-01-04 12:00:00");
            WorkloadError::new(message).at_key(key)
        })
    };
    let (start_s, end_s) = (
        bound("workload.arrivals.start_time", start_time)?,
        bound("workload.arrivals.end_time", end_time)?,
    );
    let absolute = times_s.iter().map(|time_s| trace.origin_s + time_s);
    let within: Vec<f64> = absolute.filter(|t| *t > start_s && *t < end_s).collect();
    let Some(first) = within.first() else {
        let message = format!("no row lies between {start_time} and {end_time}");
        return Err(WorkloadError::in_file(&trace.name, message));
    };
    let whole: Vec<f64> = within.iter().map(|t| (t - first).floor() * scale).collect();
    Ok(whole.windows(2).map(|pair| pair[1] - pair[0]).collect())
}

/// NumPy's legacy `standard_gamma`: Marsaglia and Tsang (2000) from shape 1 on,
/// Ahrens and Dieter's rejection below, over polar normals.
struct GammaDraws {
    rng: MersenneTwister,
    spare: Option<f64>,
    shape: f64,
    scale: f64,
}

impl GammaDraws {
    fn next(&mut self) -> f64 {
        self.standard() * self.scale
    }

    fn standard(&mut self) -> f64 {
        if self.shape == 1.0 {
            return self.exponential();
        }
        if self.shape < 1.0 {
            return self.below_one();
        }
        let b = self.shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * b).sqrt();
        loop {
            let (x, v) = loop {
                let x = self.normal();
                let v = 1.0 + c * x;
                if v > 0.0 {
                    break (x, v * v * v);
                }
            };
            let u = self.rng.unit();
            if u < 1.0 - 0.0331 * (x * x) * (x * x) || u.ln() < 0.5 * x * x + b * (1.0 - v + v.ln())
            {
                return b * v;
            }
        }
    }

    fn below_one(&mut self) -> f64 {
        let shape = self.shape;
        loop {
            let u = self.rng.unit();
            let v = self.exponential();
            if u <= 1.0 - shape {
                let x = u.powf(1.0 / shape);
                if x <= v {
                    return x;
                }
            } else {
                let y = -((1.0 - u) / shape).ln();
                let x = (1.0 - shape + shape * y).powf(1.0 / shape);
                if x <= v + y {
                    return x;
                }
            }
        }
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.rng.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let x = 2.0 * self.rng.unit() - 1.0;
            let y = 2.0 * self.rng.unit() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(factor * x);
                return factor * y;
            }
        }
    }
}

/// Draws of lengths.
enum LengthDraws {
    Fixed(Lengths),
    Uniform { least: f64, range: f64, ratio: f64 },
    Zipf(Box<ZipfDraws>),
    Trace(std::vec::IntoIter<Lengths>),
}

impl LengthDraws {
    fn new(config: &VidurLengths, files: &DataFiles) -> Result<Self, WorkloadError> {
        Ok(match config {
            VidurLengths::Fixed(lengths) => Self::Fixed(*lengths),
            VidurLengths::Uniform {
                min_tokens,
                max_tokens,
                prefill_to_decode_ratio,
            } => Self::Uniform {
                least: f64::from(*min_tokens),
                range: f64::from(*max_tokens) - f64::from(*min_tokens),
                ratio: *prefill_to_decode_ratio,
            },
            VidurLengths::Zipf {
                seed,
                min_tokens,
                max_tokens,
                theta,
                prefill_to_decode_ratio,
            } => Self::Zipf(Box::new(ZipfDraws::new(
                *seed,
                (*min_tokens, *max_tokens),
                *theta,
                *prefill_to_decode_ratio,
            ))),
            VidurLengths::Trace {
                seed,
                file,
                max_tokens,
                prefill_scale_factor,
                decode_scale_factor,
            } => {
                let trace = read_trace(&files.read(file)?, None)?;
                let factors = (*prefill_scale_factor, *decode_scale_factor);
                let shorten =
                    |row: &Lengths| shortened(scaled(*row, factors.0, factors.1), *max_tokens);
                let mut rows: Vec<Lengths> = lengths_of(&trace)?.iter().map(shorten).collect();
                shuffle(&mut rows, *seed);
                Self::Trace(rows.into_iter())
            }
        })
    }

    fn next(&mut self, python: &mut MersenneTwister) -> Result<Option<Lengths>, WorkloadError> {
        match self {
            Self::Fixed(lengths) => Ok(Some(*lengths)),
            Self::Uniform {
                least,
                range,
                ratio,
            } => {
                let total = *least + *range * python.unit();
                let decode = (total / (1.0 + *ratio)).ceil();
                split(total, total - decode, decode).map(Some)
            }
            Self::Zipf(draws) => {
                let total = draws.next();
                let decode = total / (1.0 + draws.ratio);
                split(total, total - decode, decode).map(Some)
            }
            Self::Trace(rows) => Ok(rows.next()),
        }
    }
}

/// Whole tokens of a request, rounded down.
fn split(total: f64, prefill: f64, decode: f64) -> Result<Lengths, WorkloadError> {
    let lengths = Lengths {
        prefill_tokens: whole_u32(prefill),
        decode_tokens: whole_u32(decode),
    };
    if lengths.prefill_tokens == 0 || lengths.decode_tokens == 0 {
        let message = format!(
            "a request of {total} tokens splits into a prompt of {} and an output of {} tokens; \
             the original never completes such a request",
            lengths.prefill_tokens, lengths.decode_tokens
        );
        return Err(WorkloadError::new(message));
    }
    Ok(lengths)
}

/// Gray et al. (1994), as in the original: sums to one term less than there are
/// items, and no bounds check of the skew.
struct ZipfDraws {
    rng: MersenneTwister,
    least: f64,
    items: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
    ratio: f64,
}

impl ZipfDraws {
    fn new(seed: u32, (min, max): (u32, u32), theta: f64, ratio: f64) -> Self {
        let items = f64::from(max) - f64::from(min) + 1.0;
        let zeta = |count: f64| -> f64 {
            let term = |k: u64| 1.0 / (k as f64).powf(theta);
            pairwise_sum(&term, 1, whole_u64(count.max(1.0)).max(1) - 1)
        };
        let (zeta_2, zeta_n) = (zeta(2.0), zeta(items));
        Self {
            rng: MersenneTwister::numpy(seed),
            least: f64::from(min),
            items,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta: zeta_n,
            eta: (1.0 - (2.0 / items).powf(1.0 - theta)) / (1.0 - zeta_2 / (zeta_n + 1e-8)),
            ratio,
        }
    }

    fn next(&mut self) -> f64 {
        let u = self.rng.unit();
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return self.least;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return self.least + 1.0;
        }
        let rank = self.items * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        self.least + rank.trunc()
    }
}

/// The sum of `count` terms from the one of `first` on. Halves above 128 terms, eight
/// running sums below: how NumPy adds.
fn pairwise_sum(term: &impl Fn(u64) -> f64, first: u64, count: u64) -> f64 {
    if count > 128 {
        let half = count / 2 / 8 * 8;
        let rest = pairwise_sum(term, first + half, count - half);
        return pairwise_sum(term, first, half) + rest;
    }
    let mut terms = [0.0; 128];
    let terms = &mut terms[..narrow::<usize, _>(count)];
    (first..)
        .zip(terms.iter_mut())
        .for_each(|(k, value)| *value = term(k));
    if terms.len() < 8 {
        return terms.iter().sum();
    }
    let mut sums = [0.0; 8];
    let chunks = terms.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        sums.iter_mut()
            .zip(chunk)
            .for_each(|(sum, term)| *sum += term);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter()
        .fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, term| {
            sum + term
        })
}

fn lengths_of(trace: &Trace) -> Result<&[Lengths], WorkloadError> {
    trace.lengths.as_deref().ok_or_else(|| {
        let message =
            "has no request lengths; needed are `num_prefill_tokens` and `num_decode_tokens`";
        WorkloadError::in_file(&trace.name, message)
    })
}

/// Scaled and rounded down, at least one token each.
fn scaled(row: Lengths, prefill: f64, decode: f64) -> Lengths {
    let scale = |tokens: u32, factor: f64| whole_u32(f64::from(tokens) * factor).max(1);
    Lengths {
        prefill_tokens: scale(row.prefill_tokens, prefill),
        decode_tokens: scale(row.decode_tokens, decode),
    }
}

/// Shortened in proportion, both parts rounded in the shorter direction.
fn shortened(row: Lengths, max_tokens: u32) -> Lengths {
    let (prefill, decode) = (f64::from(row.prefill_tokens), f64::from(row.decode_tokens));
    let total = prefill + decode;
    let excess = (total - f64::from(max_tokens)).max(0.0);
    let less = |tokens: f64| whole_u32(tokens - (excess * (tokens / total)).ceil()).max(1);
    Lengths {
        prefill_tokens: less(prefill),
        decode_tokens: less(decode),
    }
}

/// As pandas' `sample(frac=1, random_state=seed)`.
fn shuffle(rows: &mut [Lengths], seed: u32) {
    let mut rng = MersenneTwister::numpy(seed);
    for last in (1..rows.len()).rev() {
        rows.swap(last, rng.up_to(narrow::<u32, _>(last)) as usize);
    }
}

fn ended_early(what: &str, requests: usize) -> WorkloadError {
    WorkloadError::new(format!(
        "the trace of {what} ends after {requests} requests, where the original stops with an \
         exception; ask for fewer requests, or leave compatibility off to go through it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gamma(shape: f64) -> Vec<f64> {
        let mut draws = GammaDraws {
            rng: MersenneTwister::numpy(42),
            spare: None,
            shape,
            scale: 1.0,
        };
        (0..3).map(|_| draws.next()).collect()
    }

    /// Values of NumPy: `np.random.seed(42)`, then `standard_gamma(shape)`.
    #[test]
    fn gamma_draws_are_numpys() {
        let same = |ours: Vec<f64>, theirs: [f64; 3]| {
            assert!(
                ours.iter()
                    .zip(theirs)
                    .all(|(a, b)| (a - b).abs() < 1e-15 * b.abs().max(1.0)),
                "{ours:?}"
            );
        };
        same(
            gamma(4.0),
            [
                4.702_413_898_135_869,
                3.408_231_901_014_329_6,
                3.236_324_709_968_233_7,
            ],
        );
        same(
            gamma(0.25),
            [
                0.019_678_562_743_776_044,
                0.287_097_854_446_300_9,
                0.000_592_524_014_235_303_2,
            ],
        );
        same(
            gamma(1.0),
            [
                0.469_268_089_976_859_1,
                3.010_121_430_917_521,
                1.316_745_693_545_449_3,
            ],
        );
    }

    /// NumPy: `RandomState(42).choice(10, size=10, replace=False)`.
    #[test]
    fn traces_are_shuffled_as_pandas_does() {
        let row = |n| Lengths {
            prefill_tokens: n,
            decode_tokens: 1,
        };
        let mut rows: Vec<Lengths> = (0..10).map(row).collect();
        shuffle(&mut rows, 42);
        let order: Vec<u32> = rows.iter().map(|row| row.prefill_tokens).collect();
        assert_eq!(order, [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
    }

    /// First arrivals of the original at 100 requests a second, seed 42.
    #[test]
    fn poisson_arrivals_are_pythons_and_capped() {
        let generator = VidurGenerator {
            seed: 42,
            until: VidurUntil::Requests(1000),
            intervals: VidurIntervals::Poisson { qps: 100.0 },
            lengths: VidurLengths::Fixed(Lengths {
                prefill_tokens: 5,
                decode_tokens: 2,
            }),
        };
        let requests = generator.generate(&DataFiles::default()).unwrap();
        assert!((requests[0].arrived_at_s - 0.01020060287274801).abs() < 1e-12);
        let longest = requests
            .windows(2)
            .map(|w| w[1].arrived_at_s - w[0].arrived_at_s);
        assert!((longest.fold(0.0, f64::max) - 0.03).abs() < 1e-12);
        assert_eq!(generator.python_draws(1000), 1000);
    }

    #[test]
    fn a_trace_that_ends_early_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.csv");
        std::fs::write(
            &file,
            "num_prefill_tokens,num_decode_tokens\n100,20\n3000,3000\n",
        )
        .unwrap();
        let mut generator = VidurGenerator {
            seed: 1,
            until: VidurUntil::Requests(2),
            intervals: VidurIntervals::Static,
            lengths: VidurLengths::Trace {
                seed: 42,
                file,
                max_tokens: 4096,
                prefill_scale_factor: 1.0,
                decode_scale_factor: 1.0,
            },
        };
        let drawn = generator.generate(&DataFiles::default()).unwrap();
        assert!(
            drawn
                .iter()
                .any(|r| (r.prefill_tokens, r.decode_tokens) == (2048, 2048))
        );
        generator.until = VidurUntil::Requests(3);
        let message = generator
            .generate(&DataFiles::default())
            .unwrap_err()
            .to_string();
        assert!(message.contains("ends after 2 requests"), "{message}");
    }
}
