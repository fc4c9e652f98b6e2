//! Text as Python writes it: shortest digits that read back as the same number,
//! exponents of two digits, separators of `json.dump`.

/// A file in the making.
#[derive(Debug, Default)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn str(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    pub(super) fn int(&mut self, value: u64) -> &mut Self {
        let digit = |value: u64| b'0' + (value % 10) as u8;
        // Most numbers are short; copies of a length known beforehand are fast.
        match value {
            0..=9 => self.0.push(digit(value)),
            10..=99 => self.0.extend_from_slice(&[digit(value / 10), digit(value)]),
            100..=999 => {
                let digits = [digit(value / 100), digit(value / 10), digit(value)];
                self.0.extend_from_slice(&digits);
            }
            1000..=9999 => {
                let (thousands, hundreds) = (digit(value / 1000), digit(value / 100));
                let digits = [thousands, hundreds, digit(value / 10), digit(value)];
                self.0.extend_from_slice(&digits);
            }
            _ => {
                self.int(value / 10_000);
                let rest = value % 10_000;
                let (thousands, hundreds) = (digit(rest / 1000), digit(rest / 100));
                let digits = [thousands, hundreds, digit(rest / 10), digit(rest)];
                self.0.extend_from_slice(&digits);
            }
        }
        self
    }

    /// A number as `repr` gives it; what is not a number is left blank.
    pub(super) fn float(&mut self, value: f64) -> &mut Self {
        if !value.is_finite() {
            return self.str(if value == f64::INFINITY { "inf" } else { "" });
        }
        let size = value.abs();
        if value == 0.0 || (1e-4..1e16).contains(&size) {
            let mut buffer = zmij::Buffer::new();
            let digits = buffer.format_finite(value);
            if !digits.contains('e') {
                return self.str(digits);
            }
        }
        self.str(&python_repr(value))
    }

    /// `[a, b]`
    pub(super) fn int_list(&mut self, values: impl Iterator<Item = u64>) -> &mut Self {
        self.str("[");
        for (position, value) in values.enumerate() {
            if position > 0 {
                self.str(", ");
            }
            self.int(value);
        }
        self.str("]")
    }
}

fn python_repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (9.263306688469695e-05, "9.263306688469695e-05"),
            (1e-5, "1e-05"),
            (1e-4, "0.0001"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (123456789.125, "123456789.125"),
            (f64::NAN, ""),
        ];
        for (value, expected) in cases {
            let mut text = Text::default();
            text.float(value);
            assert_eq!(std::str::from_utf8(text.bytes()), Ok(expected));
        }
        let mut text = Text::default();
        text.int(0)
            .str(" ")
            .int_list([7, 80, 905, 4010, 50_060, u64::MAX].into_iter());
        let expected = b"0 [7, 80, 905, 4010, 50060, 18446744073709551615]";
        assert_eq!(text.bytes(), expected);
    }
}
