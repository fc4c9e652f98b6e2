//! Least squares on polynomial features.
//!
//! Features are those of scikit-learn's `PolynomialFeatures`: all products of
//! the operator's features up to a degree, or only products of different ones.
//! The fit is that of its `LinearRegression` (1.9): columns and times are
//! centred if there is an intercept, and directions whose singular value is
//! below 1e-6 of the largest are left out, the shortest solution taken. On raw
//! powers of token counts that cut matters: it drops the bias column of most
//! fits without an intercept. The singular values come from a QR factorisation
//! and one-sided Jacobi rotations, which stay accurate for columns of very
//! different size.

use rayon::prelude::*;

use super::validation::{Fold, grid_search_folds, mape};
use super::{PredictorConfig, Samples};

/// Singular values below this part of the largest count as zero.
const SINGULAR_MIN: f64 = 1e-6;

/// What terms a polynomial has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegressionParameters {
    /// Highest degree of a term.
    pub degree: u32,
    /// Whether a column of ones is among the terms.
    pub include_bias: bool,
    /// Whether only products of different features are terms.
    pub interaction_only: bool,
    /// Whether an intercept is fitted beside the terms.
    pub fit_intercept: bool,
}

impl RegressionParameters {
    /// Exponents of the features in each term.
    fn terms(&self, dimensions: usize) -> Vec<[u32; 2]> {
        let first = u32::from(!self.include_bias);
        let mut terms = Vec::new();
        for degree in first..=self.degree {
            for second in 0..=(if dimensions == 2 { degree } else { 0 }) {
                let term = [degree - second, second];
                if !self.interaction_only || term.iter().all(|exponent| *exponent <= 1) {
                    terms.push(term);
                }
            }
        }
        terms
    }
}

/// A fitted polynomial.
#[derive(Debug, Clone, PartialEq)]
pub struct Polynomial {
    pub(super) terms: Vec<[u32; 2]>,
    pub(super) coefficients: Vec<f64>,
    pub(super) intercept: f64,
}

impl Polynomial {
    /// Fits by least squares.
    pub fn fit(samples: &Samples, parameters: RegressionParameters) -> Self {
        let rows: Vec<u32> = (0..samples.len() as u32).collect();
        Self::fit_rows(samples, &rows, parameters)
    }

    fn fit_rows(samples: &Samples, rows: &[u32], parameters: RegressionParameters) -> Self {
        let terms = parameters.terms(samples.dimensions());
        let mut columns: Vec<Vec<f64>> = terms
            .iter()
            .map(|exponents| {
                rows.iter()
                    .map(|row| term(samples.points[*row as usize], *exponents))
                    .collect()
            })
            .collect();
        let mut times: Vec<f64> = rows
            .iter()
            .map(|row| samples.times_ms[*row as usize])
            .collect();
        let mut means = vec![0.0; columns.len()];
        let mut mean_ms = 0.0;
        if parameters.fit_intercept {
            for (column, mean) in columns.iter_mut().zip(&mut means) {
                *mean = centre(column);
            }
            mean_ms = centre(&mut times);
        }
        let coefficients = least_squares(columns, times);
        let offset: f64 = means.iter().zip(&coefficients).map(|(m, c)| m * c).sum();
        Self {
            terms,
            coefficients,
            intercept: mean_ms - offset,
        }
    }

    /// Time at a point, ms; may be negative.
    pub fn predict(&self, point: [f64; 2]) -> f64 {
        let terms = self.terms.iter().zip(&self.coefficients);
        terms
            .map(|(exponents, coefficient)| coefficient * term(point, *exponents))
            .sum::<f64>()
            + self.intercept
    }
}

fn term(point: [f64; 2], exponents: [u32; 2]) -> f64 {
    point[0].powi(exponents[0] as i32) * point[1].powi(exponents[1] as i32)
}

/// Subtracts the mean and returns it.
fn centre(values: &mut [f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter_mut().for_each(|value| *value -= mean);
    mean
}

/// The best polynomial of a grid and its error over the folds, percent. Equal
/// errors go to the combination that comes first.
pub fn search(samples: &Samples, config: &PredictorConfig) -> (RegressionParameters, f64) {
    let grid = combinations(config);
    let folds = grid_search_folds(samples.len(), config.k_fold_cv_splits);
    // Many combinations have the same terms (one feature has no products).
    let mut distinct: Vec<RegressionParameters> = Vec::new();
    let same = |a: &RegressionParameters, b: &RegressionParameters| {
        let terms = |p: &RegressionParameters| p.terms(samples.dimensions());
        a.fit_intercept == b.fit_intercept && terms(a) == terms(b)
    };
    for parameters in grid {
        if !distinct.iter().any(|other| same(other, &parameters)) {
            distinct.push(parameters);
        }
    }
    let errors: Vec<f64> = distinct
        .par_iter()
        .map(|parameters| {
            let errors: Vec<f64> = folds
                .par_iter()
                .map(|fold| fold_error(samples, fold, *parameters))
                .collect();
            errors.iter().sum::<f64>() / errors.len() as f64
        })
        .collect();
    let mut best = 0;
    for index in 1..distinct.len() {
        if errors[index] < errors[best] {
            best = index;
        }
    }
    (distinct[best], errors[best])
}

/// In the order in which the original tries them.
fn combinations(config: &PredictorConfig) -> Vec<RegressionParameters> {
    let mut grid = Vec::new();
    for fit_intercept in &config.fit_intercept {
        for degree in &config.polynomial_degree {
            for include_bias in &config.polynomial_include_bias {
                for interaction_only in &config.polynomial_interaction_only {
                    grid.push(RegressionParameters {
                        degree: *degree,
                        include_bias: *include_bias,
                        interaction_only: *interaction_only,
                        fit_intercept: *fit_intercept,
                    });
                }
            }
        }
    }
    grid
}

fn fold_error(samples: &Samples, fold: &Fold, parameters: RegressionParameters) -> f64 {
    let fit = Polynomial::fit_rows(samples, &fold.train, parameters);
    let test = fold.test.iter().map(|row| *row as usize);
    let truth: Vec<f64> = test.clone().map(|row| samples.times_ms[row]).collect();
    let predicted: Vec<f64> = test.map(|row| fit.predict(samples.points[row])).collect();
    mape(&truth, &predicted)
}

/// The shortest least-squares solution of `columns * x = times`.
fn least_squares(mut columns: Vec<Vec<f64>>, mut times: Vec<f64>) -> Vec<f64> {
    let count = columns.len();
    let rank = count.min(times.len());
    triangularise(&mut columns, &mut times);
    // From here on the matrix is the triangle.
    for (index, column) in columns.iter_mut().enumerate() {
        column.truncate(rank);
        column.iter_mut().skip(index + 1).for_each(|x| *x = 0.0);
    }
    let rotations = orthogonalise(&mut columns);
    let singular: Vec<f64> = columns.iter().map(|column| norm(column)).collect();
    let largest = singular.iter().copied().fold(0.0, f64::max);
    let mut solution = vec![0.0; count];
    for index in 0..count {
        if singular[index] <= SINGULAR_MIN * largest {
            continue;
        }
        let part = dot(&columns[index], &times) / (singular[index] * singular[index]);
        for (solution, rotation) in solution.iter_mut().zip(&rotations[index]) {
            *solution += part * rotation;
        }
    }
    solution
}

/// Householder reflections of columns and right-hand side; below the diagonal
/// the columns are left as they come.
fn triangularise(columns: &mut [Vec<f64>], times: &mut [f64]) {
    for index in 0..columns.len().min(times.len()) {
        let (done, rest) = columns.split_at_mut(index + 1);
        let pivot = &mut done[index];
        let length = norm(&pivot[index..]);
        if length == 0.0 {
            continue;
        }
        // Of the two reflections the one without cancellation.
        let image = if pivot[index] > 0.0 { -length } else { length };
        let mut mirror = pivot[index..].to_vec();
        mirror[0] -= image;
        let scale = norm(&mirror);
        mirror.iter_mut().for_each(|x| *x /= scale);
        for column in rest.iter_mut().map(Vec::as_mut_slice).chain([&mut *times]) {
            let twice = 2.0 * dot(&mirror, &column[index..]);
            for (x, m) in column[index..].iter_mut().zip(&mirror) {
                *x -= twice * m;
            }
        }
        pivot[index] = image;
    }
}

/// Sweeps until every pair of columns is orthogonal; 30 are far more than ever
/// needed.
const SWEEPS_MAX: usize = 30;

/// One-sided Jacobi: rotates pairs of columns until all are orthogonal. The
/// lengths are then the singular values; returns the right singular vectors.
fn orthogonalise(columns: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
    let count = columns.len();
    let unit = |index: usize| {
        (0..count)
            .map(|i| f64::from(u8::from(i == index)))
            .collect()
    };
    let mut vectors: Vec<Vec<f64>> = (0..count).map(unit).collect();
    for _ in 0..SWEEPS_MAX {
        let mut settled = true;
        for first in 0..count {
            for second in first + 1..count {
                let (a, b) = (norm(&columns[first]), norm(&columns[second]));
                if a == 0.0 || b == 0.0 {
                    continue;
                }
                // Cosine of the angle, without squares of the lengths.
                let cosine = scaled_dot(&columns[first], a, &columns[second], b);
                if cosine.abs() <= f64::EPSILON {
                    continue;
                }
                settled = false;
                let zeta = (b / a - a / b) / (2.0 * cosine);
                let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let c = 1.0 / tangent.hypot(1.0);
                rotate(columns, first, second, c, c * tangent);
                rotate(&mut vectors, first, second, c, c * tangent);
            }
        }
        if settled {
            break;
        }
    }
    vectors
}

fn rotate(columns: &mut [Vec<f64>], first: usize, second: usize, c: f64, s: f64) {
    let (head, tail) = columns.split_at_mut(second);
    for (x, y) in head[first].iter_mut().zip(&mut tail[0]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn scaled_dot(a: &[f64], a_norm: f64, b: &[f64], b_norm: f64) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| (x / a_norm) * (y / b_norm))
        .sum()
}

/// Length, without overflow.
fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let sum: f64 = values.iter().map(|x| (x / largest) * (x / largest)).sum();
    largest * sum.sqrt()
}
