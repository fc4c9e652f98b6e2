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
    // Shape up, mass below `value` down.
    root(shape_start(value, normal_tail(probability)), |shape| {
        probability - gamma_below(value, shape)
    })
}

/// The value below which a gamma variable of this shape lies with `probability`.
pub(super) fn gamma_value(shape: f64, probability: f64) -> f64 {
    root(
        gamma_start(shape.max(LEAST_START), normal_tail(probability)),
        |value| gamma_below(value, shape) - probability,
    )
}

/// The normal quantile of one of the two probabilities that intervals ask for.
fn normal_tail(probability: f64) -> f64 {
    static UPPER: LazyLock<f64> = LazyLock::new(|| normal_quantile(1.0 - TAIL));
    match probability < 0.5 {
        true => -*UPPER,
        false => *UPPER,
    }
}

/// About where a gamma variable of this shape lies in `score` standard deviations: its cube
/// root is nearly normal (Wilson and Hilferty 1931, "The distribution of chi-square", PNAS 17).
fn gamma_start(shape: f64, score: f64) -> f64 {
    let root = 1.0 - 1.0 / (9.0 * shape) + score / (3.0 * shape.sqrt());
    (shape * root.powi(3)).max(0.0)
}

/// About which shape's variable lies at `value` in `score` standard deviations.
fn shape_start(value: f64, score: f64) -> f64 {
    let mut shape = (value - score * value.sqrt()).max(LEAST_START);
    for _ in 0..3 {
        let step = value - gamma_start(shape, score);
        shape = (shape + step).max(LEAST_START);
    }
    shape
}

/// Of smaller shapes roots of normal variables say nothing.
const LEAST_START: f64 = 0.3;

/// Where a rising function of numbers from 0 on is 0, searched from `start` on; 0 where it
/// is more everywhere. Steps out until there is one on each side, then false position, in
/// which an end that stays counts half from the second time on (the Illinois rule).
fn root(start: f64, function: impl Fn(f64) -> f64) -> f64 {
    let at_start = function(start);
    let direction = if at_start > 0.0 { -1.0 } else { 1.0 };
    let mut step = (0.01 * start.sqrt()).max(0.02);
    let (mut near, mut far) = ((start, at_start), (start, at_start));
    while direction * far.1 <= 0.0 {
        if direction < 0.0 && far.0 <= 0.0 {
            return 0.0;
        }
        let next = (far.0 + direction * step).max(0.0);
        (near, far) = (far, (next, function(next)));
        step *= 4.0;
    }
    let ((mut low, mut below), (mut high, mut above)) = match direction < 0.0 {
        true => (far, near),
        false => (near, far),
    };
    let mut stayed = 0;
    for _ in 0..MOST_STEPS {
        let middle = (low * above - high * below) / (above - below);
        let found = function(middle);
        if found.abs() < CLOSE || (high - low) < CLOSE * high {
            return middle;
        }
        if found < 0.0 {
            (low, below) = (middle, found);
            if stayed > 0 {
                above /= 2.0;
            }
            stayed = 1;
        } else {
            (high, above) = (middle, found);
            if stayed < 0 {
                below /= 2.0;
            }
            stayed = -1;
        }
    }
    f64::midpoint(low, high)
}

/// A probability, or a share of a number, that is no more than rounding.
const CLOSE: f64 = 1e-10;

/// Steps after which a root is close enough in any case.
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
        close(gamma_value(5.0, 0.975), 20.4832 / 2.0);
    }

    #[test]
    fn shapes_and_values_are_found() {
        for scale in [1e-3, 0.02, 0.3, 1.0, 3.7, 20.0, 150.0, 1e3, 1e4, 1e6] {
            for probability in [TAIL, 1.0 - TAIL] {
                // Those of smaller shapes are too near to 0.
                if scale >= 0.3 {
                    let there = gamma_below(gamma_value(scale, probability), scale);
                    assert!((there - probability).abs() < 1e-9, "{scale} {probability}");
                }
                let shape = gamma_shape(scale, probability);
                let there = gamma_below(scale, shape);
                // Of the smallest shapes, less lies below than was asked for.
                let is_least = shape == 0.0 && gamma_below(scale, 1e-12) < probability;
                let is_found = (there - probability).abs() < 1e-9;
                assert!(
                    is_found || is_least,
                    "{scale} {probability}: {shape} {there}"
                );
            }
        }
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
