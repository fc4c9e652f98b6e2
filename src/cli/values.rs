//! How numbers are read from the command line: what is not allowed is refused with what is.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::spec::RelativeWidth;

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

/// Reads a share, as a number or in per cent; gives it as it was written.
pub(super) fn share(text: &str) -> Result<String, String> {
    let width = match text.trim().parse::<f64>() {
        Ok(share) => RelativeWidth::Share(share),
        Err(_) => RelativeWidth::Percent(text.to_owned()),
    };
    match width.share() {
        Some(_) => Ok(text.to_owned()),
        None => Err(
            "allowed is a share of more than 0 and less than 1, or in per cent, as in 5%"
                .to_owned(),
        ),
    }
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
        for text in ["5%", "0.05", " 5 %"] {
            assert_eq!(share(text).as_deref(), Ok(text));
        }
        for text in ["", "abc", "-1%", "0", "1", "100%", "5", "nan", "%"] {
            let refused = share(text).expect_err(text);
            assert!(
                refused.starts_with("allowed is a share of more than 0"),
                "{text}"
            );
        }
        assert_eq!(positive("1e3"), Ok(1000.0));
        for text in ["", "0", "-2", "nan", "inf", "fast"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
