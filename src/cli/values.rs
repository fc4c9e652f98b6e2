//! How numbers are read from the command line: what is not allowed is refused with what is.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads a whole number of these. Its type needs no more than its range: what has too many
/// digits for it is out of it as well.
pub(super) fn whole<T>(
    allowed: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text: &str| {
        let number = text.trim().parse::<T>().ok();
        let number = number.filter(|number| allowed.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (allowed.start(), allowed.end());
            format!("allowed is a whole number from {least} to {most}")
        })
    }
}

/// Reads a number greater than zero.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok();
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "allowed is a number greater than 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_refused_with_what_is_allowed() {
        let to_nine = whole(1u32..=9);
        assert_eq!(to_nine(" 9 "), Ok(9));
        for text in ["", "x", "0", "10", "-1", "1.5", "99999999999999999999"] {
            let refused = to_nine(text).expect_err(text);
            assert_eq!(refused, "allowed is a whole number from 1 to 9");
        }
        assert_eq!(positive("1e3"), Ok(1000.0));
        for text in ["", "0", "-2", "nan", "inf", "fast"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
