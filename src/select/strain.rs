//! How much of its targets a run takes up, for whoever looks for the load that takes up all.

use super::certainty::Figure;
use super::criteria::Requests;
use super::load::Load;
use crate::measurement::Side;
use crate::results::{RunResult, schema};
use crate::search::Strain;
use crate::spec::Bound;
use crate::spec::columns::is_share;

/// What of a run decides whether it holds its load.
#[derive(Debug, Clone, PartialEq)]
pub struct Strained {
    /// Of all its targets.
    pub strain: Strain,
    /// Column of the target that takes up most.
    pub tightest: String,
    /// The share of its load by which it may exceed what is served, at most.
    pub excess_share: f64,
    /// Whether it is known not to.
    pub is_saturated: bool,
}

/// Further than this a strain says nothing: e^30 times a limit.
const UTMOST: f64 = 30.0;

/// What `run` takes up of `bounds`, of which there is at least one.
pub fn strained(bounds: &[Bound], run: &RunResult) -> Strained {
    let number = |column: &str| schema::figure(run, column);
    let load = Load::of_run(run);
    let mut all = Strained {
        strain: Strain {
            value: f64::NEG_INFINITY,
            low: f64::NEG_INFINITY,
            high: f64::NEG_INFINITY,
        },
        tightest: String::new(),
        excess_share: match load {
            Load::Stable | Load::Unjudged => 0.0,
            _ => run
                .steady()
                .map_or(f64::INFINITY, |steady| steady.excess_share),
        },
        is_saturated: load == Load::Saturated,
    };
    for bound in bounds {
        let figure = Figure::of(bound, number);
        let [low, high] = figure.interval(load);
        let value = strain(bound, figure.value());
        let (better, worse) = match bound.side {
            Side::AtMost => (low, high),
            Side::AtLeast => (high, low),
        };
        if value > all.strain.value || all.tightest.is_empty() {
            all.tightest.clone_from(&bound.column);
        }
        all.strain.value = all.strain.value.max(value);
        // An end that is not known rules nothing out.
        if !better.is_nan() {
            all.strain.low = all.strain.low.max(strain(bound, better));
        }
        all.strain.high = match worse.is_nan() || all.strain.high.is_nan() {
            true => f64::NAN,
            false => all.strain.high.max(strain(bound, worse)),
        };
    }
    // Whoever rejects a request holds no load with it.
    let requests = run.summary.as_ref().map(Requests::of_summary);
    if !requests.unwrap_or_default().all_served() {
        (all.strain.value, all.strain.low, all.strain.high) = (UTMOST, UTMOST, UTMOST);
    }
    all
}

/// Logarithm of the share of a limit that a value takes up: of a share that is to be large,
/// what is missing of one over what may be.
fn strain(bound: &Bound, value: f64) -> f64 {
    let taken_up = match bound.side {
        Side::AtLeast if is_share(&bound.column) => (1.0 - value) / (1.0 - bound.limit),
        side => side.strain(value, bound.limit),
    };
    match bound.side.has(value, bound.limit) {
        // Nothing of nothing.
        true if taken_up.is_nan() => 0.0,
        _ if taken_up.is_nan() => UTMOST,
        _ => taken_up.ln().clamp(-UTMOST, UTMOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(column: &str, side: Side, limit: f64) -> Bound {
        Bound {
            column: column.to_owned(),
            side,
            limit,
        }
    }

    #[test]
    fn a_strain_is_the_logarithm_of_what_is_taken_up() {
        let latency = bound("ttft_p90_s", Side::AtMost, 2.0);
        assert!((strain(&latency, 1.0) - 0.5f64.ln()).abs() < 1e-12);
        assert!((strain(&latency, 4.0) - 2f64.ln()).abs() < 1e-12);
        assert_eq!(strain(&latency, 0.0), -UTMOST);
        assert_eq!(strain(&latency, f64::NAN), UTMOST);
        // 2 % may fail: where 1 % does, that is half.
        let share = bound("slo_attainment", Side::AtLeast, 0.98);
        assert!((strain(&share, 0.99) - 0.5f64.ln()).abs() < 1e-9);
        assert_eq!(strain(&share, 1.0), -UTMOST);
        let all = bound("slo_attainment", Side::AtLeast, 1.0);
        assert_eq!(strain(&all, 1.0), 0.0);
        assert_eq!(strain(&all, 0.999), UTMOST);
    }
}
