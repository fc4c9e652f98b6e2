//! A fitted operator, whatever the estimator, and its form on disk.

use super::forest::{self, Forest, ForestParameters};
use super::interpolation::{Surface, WorkLine};
use super::regression::{self, Polynomial, RegressionParameters};
use super::{Estimator, Op, PredictorConfig, Samples};
use crate::number::narrow;

/// One operator's times as a function of its features.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub(super) op: Op,
    model: Model,
    /// Largest measured value of each feature.
    pub(super) largest: [f64; 2],
    /// Error over the folds of the grid search, percent; none for estimators
    /// without a grid.
    pub(super) search_mape: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
enum Model {
    Surface(Surface),
    Forest(ForestParameters, Forest),
    Polynomial(RegressionParameters, Polynomial),
}

impl Fit {
    /// Fits `samples`: for the forest and the polynomial with the best
    /// parameters of the grid in `config`.
    pub fn new(samples: &Samples, estimator: Estimator, config: &PredictorConfig) -> Self {
        let (model, search_mape) = match estimator {
            Estimator::Interpolation => (Model::Surface(Surface::fit(samples)), None),
            Estimator::RandomForest => {
                let (parameters, error) = forest::search(samples, config);
                let forest = Forest::grow(samples, parameters, config.seed);
                (Model::Forest(parameters, forest), Some(error))
            }
            Estimator::LinearRegression => {
                let (parameters, error) = regression::search(samples, config);
                let polynomial = Polynomial::fit(samples, parameters);
                (Model::Polynomial(parameters, polynomial), Some(error))
            }
        };
        Self::of(samples, model, search_mape)
    }

    /// The same estimator with the same parameters on other rows.
    pub(super) fn again(&self, samples: &Samples, config: &PredictorConfig) -> Self {
        let model = match &self.model {
            Model::Surface(_) => Model::Surface(Surface::fit(samples)),
            Model::Forest(parameters, _) => {
                Model::Forest(*parameters, Forest::grow(samples, *parameters, config.seed))
            }
            Model::Polynomial(parameters, _) => {
                Model::Polynomial(*parameters, Polynomial::fit(samples, *parameters))
            }
        };
        Self::of(samples, model, self.search_mape)
    }

    fn of(samples: &Samples, model: Model, search_mape: Option<f64>) -> Self {
        let most = |axis: usize| {
            let values = samples.points.iter().map(|point| point[axis]);
            values.fold(0.0, f64::max)
        };
        Self {
            op: samples.op,
            model,
            largest: [most(0), most(1)],
            search_mape,
        }
    }

    /// Time at a point given by the operator's features, ms. A polynomial's may
    /// be negative.
    pub fn predict(&self, point: [f64; 2]) -> f64 {
        match &self.model {
            Model::Surface(surface) => surface.predict(point),
            Model::Forest(_, forest) => forest.predict(point),
            Model::Polynomial(_, polynomial) => polynomial.predict(point),
        }
    }

    /// Time of a prompt chunk, ms: [`Self::predict`] without squaring the chunk
    /// where the estimator does not want it squared.
    #[inline]
    pub(super) fn predict_chunk(&self, kv_tokens: f64, chunk: f64) -> f64 {
        match &self.model {
            Model::Surface(surface) => surface.at([kv_tokens, chunk]),
            _ => self.predict([kv_tokens, chunk * chunk]),
        }
    }

    /// The estimator.
    pub fn estimator(&self) -> Estimator {
        match &self.model {
            Model::Surface(_) => Estimator::Interpolation,
            Model::Forest(..) => Estimator::RandomForest,
            Model::Polynomial(..) => Estimator::LinearRegression,
        }
    }

    /// Error over the folds of the grid search, percent, if there was a search.
    pub fn search_mape(&self) -> Option<f64> {
        self.search_mape
    }

    /// The parameters found, for people.
    pub fn parameters(&self) -> String {
        match &self.model {
            Model::Surface(surface) => format!(
                "{} x {} points",
                surface.axes[0].len(),
                surface.axes[1].len()
            ),
            Model::Forest(parameters, _) => format!(
                "{} trees, depth {}, split {}",
                parameters.num_estimators, parameters.max_depth, parameters.min_samples_split
            ),
            Model::Polynomial(parameters, polynomial) => format!(
                "degree {}, {} terms{}",
                parameters.degree,
                polynomial.terms.len(),
                if parameters.fit_intercept {
                    ", intercept"
                } else {
                    ""
                }
            ),
        }
    }

    /// What happens beyond the measured values, for warnings.
    pub(super) fn beyond(&self) -> &'static str {
        match &self.model {
            Model::Surface(_) => "extrapolated in proportion to the work",
            Model::Forest(..) => "held at the edge of the profile, as forests do",
            Model::Polynomial(..) => "extrapolated by the polynomial",
        }
    }
}

/// Bytes of a fit: numbers in little-endian order, lists preceded by their
/// length. The reader refuses anything it does not expect.
impl Fit {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(Vec::new());
        out.text(self.op.name());
        out.numbers(&self.largest);
        out.numbers(&self.search_mape.map_or(Vec::new(), |error| vec![error]));
        match &self.model {
            Model::Surface(surface) => {
                out.count(0);
                surface.axes.iter().for_each(|axis| out.numbers(axis));
                out.numbers(&surface.values);
                out.numbers(&[surface.line.fixed_ms, surface.line.per_unit_ms]);
            }
            Model::Forest(p, forest) => {
                out.count(1);
                out.counts(&[p.num_estimators, p.max_depth, p.min_samples_split]);
                forest.thresholds.iter().for_each(|axis| out.numbers(axis));
                out.numbers(&forest.values_ms);
            }
            Model::Polynomial(p, polynomial) => {
                out.count(2);
                let flags = [p.include_bias, p.interaction_only, p.fit_intercept];
                out.counts(&[p.degree]);
                out.counts(&flags.map(u32::from));
                out.counts(polynomial.terms.as_flattened());
                out.numbers(&polynomial.coefficients);
                out.numbers(&[polynomial.intercept]);
            }
        }
        out.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = In(bytes);
        let op = Op::from_name(from.text()?)?;
        let largest = from.numbers()?.try_into().ok()?;
        let search_mape = from.numbers()?.first().copied();
        let model = match from.count()? {
            0 => {
                let axes = [from.numbers()?, from.numbers()?];
                let values = from.numbers()?;
                let [fixed_ms, per_unit_ms] = from.numbers()?.try_into().ok()?;
                if axes.iter().any(Vec::is_empty) || values.len() != axes[0].len() * axes[1].len() {
                    return None;
                }
                Model::Surface(Surface {
                    op,
                    axes,
                    values,
                    line: WorkLine {
                        fixed_ms,
                        per_unit_ms,
                    },
                })
            }
            1 => {
                let [num_estimators, max_depth, min_samples_split] =
                    from.counts()?.try_into().ok()?;
                let thresholds = [from.numbers()?, from.numbers()?];
                let values_ms = from.numbers()?;
                if values_ms.len() != (thresholds[0].len() + 1) * (thresholds[1].len() + 1) {
                    return None;
                }
                Model::Forest(
                    ForestParameters {
                        num_estimators,
                        max_depth,
                        min_samples_split,
                    },
                    Forest {
                        thresholds,
                        values_ms,
                    },
                )
            }
            2 => {
                let [degree] = from.counts()?.try_into().ok()?;
                let flags: [u32; 3] = from.counts()?.try_into().ok()?;
                let [include_bias, interaction_only, fit_intercept] = flags.map(|flag| flag != 0);
                let terms = from.counts()?.as_chunks::<2>().0.to_vec();
                let coefficients = from.numbers()?;
                let [intercept] = from.numbers()?.try_into().ok()?;
                if terms.len() != coefficients.len() {
                    return None;
                }
                Model::Polynomial(
                    RegressionParameters {
                        degree,
                        include_bias,
                        interaction_only,
                        fit_intercept,
                    },
                    Polynomial {
                        terms,
                        coefficients,
                        intercept,
                    },
                )
            }
            _ => return None,
        };
        from.0.is_empty().then_some(Self {
            op,
            model,
            largest,
            search_mape,
        })
    }
}

struct Out(Vec<u8>);

impl Out {
    fn count(&mut self, count: u32) {
        self.0.extend(count.to_le_bytes());
    }

    fn counts(&mut self, counts: &[u32]) {
        self.count(narrow::<u32, _>(counts.len()));
        counts.iter().for_each(|count| self.count(*count));
    }

    fn numbers(&mut self, numbers: &[f64]) {
        self.count(narrow::<u32, _>(numbers.len()));
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.count(narrow::<u32, _>(text.len()));
        self.0.extend(text.as_bytes());
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(bytes)?;
        self.0 = tail;
        Some(head)
    }

    fn count(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn counts(&mut self) -> Option<Vec<u32>> {
        let bytes = self.count()? as usize * 4;
        let chunks = self.take(bytes)?.as_chunks::<4>().0;
        Some(
            chunks
                .iter()
                .map(|four| u32::from_le_bytes(*four))
                .collect(),
        )
    }

    fn numbers(&mut self) -> Option<Vec<f64>> {
        let bytes = self.count()? as usize * 8;
        let chunks = self.take(bytes)?.as_chunks::<8>().0;
        Some(
            chunks
                .iter()
                .map(|eight| f64::from_le_bytes(*eight))
                .collect(),
        )
    }

    fn text(&mut self) -> Option<&'a str> {
        let bytes = self.count()? as usize;
        std::str::from_utf8(self.take(bytes)?).ok()
    }
}
