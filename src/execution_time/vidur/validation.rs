//! How good a fit is: Vidur's error measure, and folds to measure it on.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Estimator, Fit, PredictorConfig, Samples};
use crate::number::narrow;

/// Mean absolute percentage error as Vidur scores fits: where the truth is 0,
/// anything but 0 counts as 100 %.
pub fn mape(truth: &[f64], predicted: &[f64]) -> f64 {
    let error = |(truth, predicted): (&f64, &f64)| match (*truth == 0.0, *predicted == 0.0) {
        (true, true) => 0.0,
        (true, false) => 100.0,
        (false, _) => ((truth - predicted) / truth).abs() * 100.0,
    };
    truth.iter().zip(predicted).map(error).sum::<f64>() / truth.len() as f64
}

/// One way to set rows aside.
#[derive(Debug, Clone)]
pub(super) struct Fold {
    pub(super) train: Vec<u32>,
    pub(super) test: Vec<u32>,
}

/// `order` cut into `count` parts of even size, each set aside in turn; the
/// first parts are one longer where the sizes cannot be equal. Rows come in
/// the order given.
fn folds(order: &[u32], count: usize) -> Vec<Fold> {
    let count = count.clamp(2, order.len().max(2));
    let (size, longer) = (order.len() / count, order.len() % count);
    (0..count)
        .map(|index| {
            let start = index * size + index.min(longer);
            let end = start + size + usize::from(index < longer);
            Fold {
                train: [&order[..start], &order[end..]].concat(),
                test: order[start..end].to_vec(),
            }
        })
        .collect()
}

/// The folds of Vidur's grid search: consecutive rows of the file, and only two
/// folds where there are fewer rows than folds asked for.
pub(super) fn grid_search_folds(rows: usize, asked: u32) -> Vec<Fold> {
    let order: Vec<u32> = (0..narrow::<u32, _>(rows)).collect();
    let asked = asked as usize;
    folds(&order, if rows < asked { 2 } else { asked })
}

/// Error on rows that a fit has not seen: rows are shuffled by `seed` and cut
/// into `count` folds; the mean of the folds' errors, percent. The forest's and
/// the polynomial's parameters are the best of their grids on all rows.
pub fn shuffled_mape(
    samples: &Samples,
    estimator: Estimator,
    config: &PredictorConfig,
    count: usize,
    seed: u64,
) -> f64 {
    let mut order: Vec<u32> = (0..narrow::<u32, _>(samples.len())).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let whole = Fit::new(samples, estimator, config);
    let folds = folds(&order, count);
    let errors = folds.iter().map(|fold| {
        let fit = whole.again(&samples.subset(&fold.train), config);
        let test = samples.subset(&fold.test);
        let predicted: Vec<f64> = test.points.iter().map(|x| fit.predict(*x)).collect();
        mape(&test.times_ms, &predicted)
    });
    errors.sum::<f64>() / folds.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_truths_count_as_right_or_wholly_wrong() {
        assert_eq!(mape(&[2.0, 4.0], &[1.0, 5.0]), (50.0 + 25.0) / 2.0);
        assert_eq!(mape(&[0.0, 0.0, 1.0], &[0.0, 1e-9, 1.0]), 100.0 / 3.0);
    }

    #[test]
    fn folds_are_cut_as_in_the_original() {
        let folds = grid_search_folds(23, 10);
        let sizes: Vec<usize> = folds.iter().map(|fold| fold.test.len()).collect();
        assert_eq!(sizes, [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(folds[1].test, [3, 4, 5]);
        assert_eq!(folds[1].train.len(), 20);
        assert_eq!(grid_search_folds(9, 10).len(), 2);
    }
}
