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

use ndarray::{Array1, Array2, ArrayView1, ArrayViewMut1, Axis, ShapeBuilder, Slice, Zip};
use rayon::prelude::*;

use super::validation::{Fold, grid_search_folds, mape};
use super::{PredictorConfig, Samples};
use crate::number::narrow;

/// Axes of a matrix. They and slices along them say what `ndarray`'s macro `s!` would,
/// which brings unsafe code into whoever uses it.
const ROWS: Axis = Axis(0);
const COLUMNS: Axis = Axis(1);

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
        let rows: Vec<u32> = (0..narrow::<u32, _>(samples.len())).collect();
        Self::fit_rows(samples, &rows, parameters)
    }

    fn fit_rows(samples: &Samples, rows: &[u32], parameters: RegressionParameters) -> Self {
        let terms = parameters.terms(samples.dimensions());
        let shape = (rows.len(), terms.len()).f();
        let mut features = Array2::from_shape_fn(shape, |(row, column)| {
            term(samples.points[rows[row] as usize], terms[column])
        });
        let times = rows.iter().map(|row| samples.times_ms[*row as usize]);
        let mut times: Array1<f64> = times.collect();
        let mut means = Array1::zeros(terms.len());
        let mut mean_ms = 0.0;
        if parameters.fit_intercept {
            let columns = features.columns_mut().into_iter();
            means = columns.map(centre).collect();
            mean_ms = centre(times.view_mut());
        }
        let coefficients = least_squares(features, times);
        let offset = means.dot(&coefficients);
        Self {
            terms,
            coefficients: coefficients.to_vec(),
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
    point[0].powi(narrow::<i32, _>(exponents[0])) * point[1].powi(narrow::<i32, _>(exponents[1]))
}

/// Subtracts the mean and returns it.
fn centre(mut values: ArrayViewMut1<'_, f64>) -> f64 {
    let mean = values.sum() / values.len() as f64;
    values -= mean;
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

/// The shortest least-squares solution `x` of `features * x = times`.
fn least_squares(mut features: Array2<f64>, mut times: Array1<f64>) -> Array1<f64> {
    let (rows, count) = features.dim();
    let rank = count.min(rows);
    triangularise(&mut features, &mut times);
    // From here on the matrix is the triangle.
    features.slice_axis_inplace(ROWS, Slice::from(..rank));
    times.slice_axis_inplace(ROWS, Slice::from(..rank));
    for (index, mut column) in features.columns_mut().into_iter().enumerate() {
        let below = Slice::from(rank.min(index + 1)..);
        column.slice_axis_mut(ROWS, below).fill(0.0);
    }
    let rotations = orthogonalise(&mut features);
    let singular = features.map_axis(ROWS, norm);
    let largest = singular.iter().copied().fold(0.0, f64::max);
    let mut solution = Array1::zeros(count);
    for (index, length) in singular.into_iter().enumerate() {
        if length <= SINGULAR_MIN * largest {
            continue;
        }
        let part = features.column(index).dot(&times) / (length * length);
        solution.scaled_add(part, &rotations.column(index));
    }
    solution
}

/// Householder reflections of the columns and the right-hand side; below the
/// diagonal the columns are left as they come.
fn triangularise(features: &mut Array2<f64>, times: &mut Array1<f64>) {
    let (rows, count) = features.dim();
    for index in 0..count.min(rows) {
        let rest = Slice::from(index..);
        let pivot = features.column(index);
        let mut mirror = pivot.slice_axis(ROWS, rest).to_owned();
        let length = norm(mirror.view());
        if length == 0.0 {
            continue;
        }
        // Of the two reflections the one without cancellation.
        let image = if mirror[0] > 0.0 { -length } else { length };
        mirror[0] -= image;
        mirror /= norm(mirror.view());
        let reflect = |mut column: ArrayViewMut1<'_, f64>| {
            let twice = 2.0 * mirror.dot(&column);
            column.scaled_add(-twice, &mirror);
        };
        let mut below = features.slice_axis_mut(ROWS, rest);
        let columns = below.columns_mut().into_iter();
        columns.skip(index + 1).for_each(reflect);
        reflect(times.slice_axis_mut(ROWS, rest));
        features[[index, index]] = image;
    }
}

/// Sweeps until every pair of columns is orthogonal; 30 are far more than ever
/// needed.
const SWEEPS_MAX: usize = 30;

/// One-sided Jacobi: rotates pairs of columns until all are orthogonal. The
/// lengths are then the singular values; returns the right singular vectors.
fn orthogonalise(columns: &mut Array2<f64>) -> Array2<f64> {
    let count = columns.ncols();
    let mut vectors = Array2::eye(count);
    for _ in 0..SWEEPS_MAX {
        let mut settled = true;
        for first in 0..count {
            for second in first + 1..count {
                let (x, y) = (columns.column(first), columns.column(second));
                let (a, b) = (norm(x), norm(y));
                if a == 0.0 || b == 0.0 {
                    continue;
                }
                // Cosine of the angle, without squares of the lengths.
                let cosine = (&x / a).dot(&(&y / b));
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

fn rotate(columns: &mut Array2<f64>, first: usize, second: usize, c: f64, s: f64) {
    let (mut head, mut tail) = columns.view_mut().split_at(COLUMNS, second);
    Zip::from(head.column_mut(first))
        .and(tail.column_mut(0))
        .for_each(|x, y| (*x, *y) = (c * *x - s * *y, s * *x + c * *y));
}

/// Length, without overflow.
fn norm(values: ArrayView1<'_, f64>) -> f64 {
    let largest = values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let scaled = &values / largest;
    largest * scaled.dot(&scaled).sqrt()
}
