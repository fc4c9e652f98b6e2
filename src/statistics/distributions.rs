//! The normal, Student's and the gamma distribution, as this module asks for them.
//! Values come from `statrs`; what is added is what it panics on.

use std::sync::LazyLock;

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::function::gamma::gamma_lr;

use super::confidence::TAIL;
use crate::number::whole_usize;

/// The value below which a standard normal variable lies with `probability`.
pub(super) fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

/// The probability that a standard normal variable lies below `value`.
pub(super) fn normal_below(value: f64) -> f64 {
    Normal::standard().cdf(value)
}

/// The upper end of Student's interval for so many degrees of freedom, in standard errors.
/// Inverting the distribution takes as long as a hundred requests take to simulate, so the
/// usual ones are kept.
pub(super) fn student_end(freedom: f64) -> f64 {
    static ENDS: LazyLock<[f64; KEPT_ENDS]> = LazyLock::new(|| {
        std::array::from_fn(|freedom| student_quantile(1.0 - TAIL, freedom as f64))
    });
    let kept = whole_usize(freedom);
    match ENDS.get(kept).filter(|_| kept as f64 == freedom) {
        Some(end) => *end,
        None => student_quantile(1.0 - TAIL, freedom),
    }
}

/// Degrees of freedom there are with the most batches, and some more.
const KEPT_ENDS: usize = 128;

/// The value below which Student's t with `freedom` degrees lies with `probability`.
fn student_quantile(probability: f64, freedom: f64) -> f64 {
    student(freedom).map_or(f64::NAN, |student| student.inverse_cdf(probability))
}

/// The probability that Student's t with `freedom` degrees lies below `value`.
pub(super) fn student_below(value: f64, freedom: f64) -> f64 {
    if value.is_nan() {
        return f64::NAN;
    }
    if value.is_infinite() {
        return if value > 0.0 { 1.0 } else { 0.0 };
    }
    student(freedom).map_or(f64::NAN, |student| student.cdf(value))
}

fn student(freedom: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, freedom).ok()
}

/// The probability that a gamma variable of this shape and scale 1 lies below `value`.
/// A shape of 0 is all mass at 0.
pub(super) fn gamma_below(value: f64, shape: f64) -> f64 {
    if shape <= 0.0 {
        1.0
    } else if value <= 0.0 {
        0.0
    } else if value == f64::INFINITY {
        1.0
    } else {
        gamma_lr(shape, value)
    }
}

/// The shape at which a gamma variable of scale 1 lies below `value` with `probability`.
/// 0 where even the smallest shape has less below.
pub(super) fn gamma_shape(value: f64, probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, value + 10.0 * value.sqrt() + 20.0);
    // Shape up, mass below `value` down. False position, in which an end that stays counts
    // half from the second time on (the Illinois rule): some ten steps.
    let excess = |shape: f64| gamma_below(value, shape) - probability;
    let (mut above, mut below) = (excess(low), excess(high));
    let mut stayed = 0;
    for _ in 0..MOST_STEPS {
        let middle = (low * below - high * above) / (below - above);
        let found = excess(middle);
        if found.abs() < 1e-12 || (high - low) < 1e-12 * high {
            return middle;
        }
        if found > 0.0 {
            (low, above) = (middle, found);
            if stayed > 0 {
                below /= 2.0;
            }
            stayed = 1;
        } else {
            (high, below) = (middle, found);
            if stayed < 0 {
                above /= 2.0;
            }
            stayed = -1;
        }
    }
    f64::midpoint(low, high)
}

/// Steps after which a shape is close enough in any case.
const MOST_STEPS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from printed tables (Abramowitz and Stegun 26.1, 26.7, 26.10).
    #[test]
    fn agrees_with_printed_tables() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} {b}");
        close(normal_quantile(0.975), 1.959_964);
        close(student_quantile(0.975, 1.0), 12.7062);
        close(student_quantile(0.975, 15.0), 2.13145);
        close(student_quantile(0.975, 63.0), 1.99834);
        close(student_quantile(0.025, 15.0), -2.13145);
        close(student_below(2.13145, 15.0), 0.975);
        // Chi-square with 10 degrees lies below 20.4832 with 0.975.
        close(gamma_below(20.4832 / 2.0, 5.0), 0.975);
        // No event in a Poisson sample: at most 3.689 with 97.5 %.
        assert!(gamma_shape(3.688_88, 0.975) - 1.0 < 1e-4);
        close(gamma_shape(20.4832 / 2.0, 0.975), 5.0);
    }

    #[test]
    fn ends_do_not_panic() {
        assert_eq!(student_below(f64::INFINITY, 5.0), 1.0);
        assert_eq!(student_below(f64::NEG_INFINITY, 5.0), 0.0);
        assert!(student_quantile(0.5, 0.0).is_nan());
        assert!(student_below(0.0, f64::NAN).is_nan());
        assert!(student_below(f64::NAN, 5.0).is_nan());
        assert_eq!(gamma_below(0.0, 1.0), 0.0);
        assert_eq!(gamma_below(1.0, 0.0), 1.0);
        assert_eq!(gamma_below(f64::INFINITY, 2.0), 1.0);
        assert!(gamma_shape(1e6, 0.975) > 0.99e6);
    }
}
