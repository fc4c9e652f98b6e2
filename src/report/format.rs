//! Figures as people write them: three significant digits, fitting units.

use serde_json::{Map, Value};

use crate::number::{narrow, whole_i32};
use crate::results::compact;
use crate::spec::Bound;
use crate::spec::columns::is_share;

/// A value of an axis, to be read.
pub(super) fn value(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(number)) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, axis_number)
        }
        value => exact_value(value),
    }
}

/// A value of an axis with every digit, to be read by programs.
pub(super) fn exact_value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::Number(number)) => number.as_f64().map_or_else(String::new, short_number),
        Some(value) => compact(value),
    }
}

/// Significant digits of an axis value: enough to tell the steps of a fine axis apart.
const AXIS_DIGITS: i32 = 5;

/// A number somebody chose, without the digits that only computing gave it.
fn axis_number(value: f64) -> String {
    let magnitude = value.abs().log10();
    if !magnitude.is_finite() || !(-4.0..15.0).contains(&magnitude) {
        return short_number(value);
    }
    let decimals = (AXIS_DIGITS - 1 - whole_i32(magnitude.floor())).max(0);
    let text = format!("{value:.*}", narrow::<usize, _>(decimals));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// `run 54 (tensor_parallel = 8, replicas = 2)`, by those of `axes` that it has a value of.
pub(super) fn named(run_index: u64, values: &Map<String, Value>, axes: &[String]) -> String {
    let settings = axes.iter().filter_map(|axis| {
        let set = values.get(axis).filter(|set| !set.is_null())?;
        Some(format!("{axis} = {}", value(Some(set))))
    });
    let settings: Vec<String> = settings.collect();
    match settings.is_empty() {
        true => format!("run {run_index}"),
        false => format!("run {run_index} ({})", settings.join(", ")),
    }
}

/// Three significant digits, no exponent, thousands kept whole.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m == 0.0 || m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        m if m >= 0.009995 => 4,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.decimals$}")
}

/// The same without trailing zeros: for limits, which people gave.
pub(super) fn short_number(value: f64) -> String {
    match value {
        v if v == v.trunc() && v.abs() < 1e15 => format!("{v:.0}"),
        v => v.to_string(),
    }
}

/// A limit of a column, without digits that nobody wrote.
pub(super) fn limit(column: &str, value: f64) -> String {
    let short = |scaled: f64| short_number((scaled * 1e6).round() / 1e6);
    match unit(column) {
        Unit::Seconds if value < 1.0 => format!("{} ms", short(value * 1e3)),
        Unit::Seconds => format!("{} s", short_number(value)),
        Unit::Share => format!("{} %", short(value * 100.0)),
        Unit::Dollars => format!("${}", short_number(value)),
        Unit::Number => short_number(value),
    }
}

/// `ttft_p90_s <= 2 s`.
pub(super) fn bound(bound: &Bound) -> String {
    let Bound {
        column,
        side,
        limit: value,
    } = bound;
    format!("{column} {} {}", side.sign(), limit(column, *value))
}

/// A time in the unit that suits it.
pub(super) fn seconds(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "-".into(),
        v if v == 0.0 || v >= 0.9995 => format!("{} s", number(value)),
        v if v >= 0.9995e-3 => format!("{} ms", number(value * 1e3)),
        _ => format!("{} us", number(value * 1e6)),
    }
}

/// A share.
pub(super) fn percent(share: f64) -> String {
    match share.is_finite() {
        true => format!("{:.1} %", share * 100.0),
        false => "-".into(),
    }
}

/// What a column counts.
enum Unit {
    Seconds,
    Share,
    Dollars,
    Number,
}

/// The unit that the name of a column says.
fn unit(column: &str) -> Unit {
    if column.ends_with("_s") && !column.contains("_per_s") {
        Unit::Seconds
    } else if is_share(column) {
        Unit::Share
    } else if column.contains("usd") {
        Unit::Dollars
    } else {
        Unit::Number
    }
}

/// A figure of a column, with its unit.
pub(super) fn figure(column: &str, value: f64) -> String {
    match unit(column) {
        Unit::Seconds => seconds(value),
        Unit::Share => percent(value),
        Unit::Dollars => format!("${}", money(value)),
        // Counts; a mean over replications may still have a fraction.
        Unit::Number if value == value.trunc() && value.abs() < 1e15 => format!("{value:.0}"),
        Unit::Number => number(value),
    }
}

fn money(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".into(),
        v if v < 0.01 => format!("{v:.4}"),
        v if v < 1.0 => format!("{v:.3}"),
        v => format!("{v:.2}"),
    }
}

/// `1 run`, `2 runs`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// `12,345`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let cases = [
            ("ttft_p90_s", 1.23456, "1.23 s"),
            ("ttft_p90_s", 0.9996, "1.00 s"),
            ("tbt_p99_s", 0.0123456, "12.3 ms"),
            ("tbt_p99_s", 0.000012, "12.0 us"),
            ("throughput_tokens_per_s", 12345.6, "12346"),
            ("throughput_requests_per_s", 99.96, "100"),
            ("total_gpus", 8.0, "8"),
            ("mfu", 0.3214, "32.1 %"),
            ("cost_usd_per_million_tokens", 0.4567, "$0.457"),
            ("cost_usd_per_hour", 1234.5, "$1234.50"),
            ("ttft_p90_s", f64::NAN, "-"),
        ];
        for (column, value, expected) in cases {
            assert_eq!(figure(column, value), expected, "{column} {value}");
        }
    }

    #[test]
    fn counts_are_grouped_and_agree_with_their_noun() {
        assert_eq!(counted(1, "run"), "1 run");
        assert_eq!(counted(1_234_567, "run"), "1,234,567 runs");
        assert_eq!(grouped(999), "999");
        let axis = |number: f64| value(Some(&serde_json::json!(number)));
        assert_eq!(axis(1.0 / 3.0), "0.33333");
        assert_eq!(axis(0.1 + 0.2), "0.3");
        assert_eq!(axis(2048.0), "2048");
        assert_eq!(axis(1e-14), 1e-14.to_string());
        assert_eq!(
            exact_value(Some(&serde_json::json!(0.1 + 0.2))),
            (0.1 + 0.2).to_string()
        );
        assert_eq!(short_number(2.0), "2");
        assert_eq!(short_number(0.25), "0.25");
        assert_eq!(limit("ttft_p90_s", 2.0), "2 s");
        assert_eq!(limit("ttft_p90_s", 0.07), "70 ms");
        assert_eq!(limit("slo_attainment", 0.995), "99.5 %");
        assert_eq!(limit("cost_usd_per_hour", 12.5), "$12.5");
        assert_eq!(limit("throughput_requests_per_s", 40.0), "40");
        let at_least = Bound {
            column: "goodput_requests_per_s".into(),
            side: crate::measurement::Side::AtLeast,
            limit: 2.5,
        };
        assert_eq!(bound(&at_least), "goodput_requests_per_s >= 2.5");
    }
}
