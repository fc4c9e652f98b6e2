//! Dates and times of traces as seconds.

/// Years of traces: what has four digits.
const YEARS: std::ops::RangeInclusive<i64> = 0..=9999;

/// Seconds since 1970-01-01 of `YYYY-MM-DD HH:MM:SS[.fraction]`, with `T` for
/// the blank and a zero offset (`Z`, `+00:00`) if any.
pub(crate) fn parse_date_time(text: &str) -> Option<f64> {
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(':');
    let hour: u32 = time.next()?.parse().ok()?;
    let minute: u32 = time.next()?.parse().ok()?;
    let second: f64 = time.next()?.parse().ok()?;
    let valid = YEARS.contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && (0.0..61.0).contains(&second)
        && date.next().is_none()
        && time.next().is_none();
    valid.then(|| {
        let seconds = days_since_1970(year, month, day) * 86_400;
        seconds as f64 + f64::from(hour * 3600 + minute * 60) + second
    })
}

/// Days of the proleptic Gregorian calendar, years starting in March so that the
/// leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_as_the_calendar_does() {
        assert_eq!(parse_date_time("1970-01-01 00:00:00"), Some(0.0));
        assert_eq!(parse_date_time("2000-03-01T00:00:00Z"), Some(951_868_800.0));
        assert_eq!(
            parse_date_time("2024-05-10 00:00:00.5+00:00"),
            Some(1_715_299_200.5)
        );
        assert_eq!(parse_date_time("2024-05-10"), None);
        assert_eq!(parse_date_time("9223372036854775807-01-01 00:00:00"), None);
    }
}
