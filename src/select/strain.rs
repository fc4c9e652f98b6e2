//! How much of its targets a run takes up, for whoever looks for the load that takes up all.

use super::certainty::Figure;
use super::criteria::{Criteria, Requests};
use super::load::Load;
use crate::measurement::Side;
use crate::results::{RunResult, schema};
use crate::search::Strain;
use crate::spec::columns::{is_share, metric_of};
use crate::spec::{ATTAINMENT_COLUMN, Bound};

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
    let whole = |column: &str| {
        let count = schema::figure(run, column)?;
        Some(crate::number::narrow::<i64, _>(crate::number::whole_u64(
            count,
        )))
    };
    // Whoever rejects a request holds no load with it.
    if !Requests::of(whole).all_served() {
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

/// Why the targets of `criteria` do not say which load is held, if they do not: what is
/// wrong, and the target it is about, if it is one.
pub fn says_no_load(criteria: &Criteria) -> Option<(Option<String>, String)> {
    if criteria.bounds.is_empty() {
        let message = "a capacity is the highest load that keeps the targets, and there are \
                       none: give `slo`, as in `slo: {ttft_p99_s: 1.0, tbt_p99_s: 0.05}`";
        return Some((None, message.to_owned()));
    }
    let unfit = |bound: &&Bound| unfitness(bound).is_some();
    let bound = criteria.bounds.iter().find(unfit)?;
    Some((Some(bound.column.clone()), unfitness(bound)?.to_owned()))
}

/// Why more load does not make a target harder to keep.
fn unfitness(bound: &Bound) -> Option<&'static str> {
    let column = bound.column.as_str();
    if metric_of(column).is_some() {
        return match (column.ends_with("_max_s"), bound.side) {
            (true, _) => Some(
                "the largest of all grows with the length of a run; a capacity needs a mean or \
                 a percentile, or `per_request`",
            ),
            (false, Side::AtLeast) => Some("no load is too high for it"),
            (false, Side::AtMost) => None,
        };
    }
    match (column, bound.side) {
        (ATTAINMENT_COLUMN, Side::AtLeast)
        | ("gpu_busy_fraction" | "kv_cache_utilization", Side::AtMost) => None,
        _ => Some(
            "it is not what more load makes harder to keep; a capacity needs targets of \
             latencies or of requests. What a deployment may be is for `constraints`, what it \
             is to serve for `--load`",
        ),
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

    #[test]
    fn targets_that_more_load_does_not_break_are_told() {
        for (column, side, fits) in [
            ("ttft_p99_s", Side::AtMost, true),
            ("scheduling_delay_p99_s", Side::AtMost, true),
            ("slo_attainment", Side::AtLeast, true),
            ("ttft_max_s", Side::AtMost, false),
            ("ttft_p99_s", Side::AtLeast, false),
            ("throughput_requests_per_s", Side::AtLeast, false),
            ("cost_usd_per_million_tokens", Side::AtMost, false),
            ("total_gpus", Side::AtMost, false),
        ] {
            let criteria = Criteria {
                bounds: vec![bound(column, side, 0.5)],
                objectives: Vec::new(),
            };
            let told = says_no_load(&criteria);
            assert_eq!(told.is_none(), fits, "{column}: {told:?}");
        }
    }
}
