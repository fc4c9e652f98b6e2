//! One line of a comma-separated file as cells that know their column, for
//! errors that point at the offending cell.

use std::borrow::Cow;

/// One cell of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Column of its first character in the line, from 1.
    pub column: usize,
    /// Its text, without surrounding blanks and quotes.
    pub text: Cow<'a, str>,
}

/// Splits a line at commas outside double quotes (`""` within quotes is one
/// quote). An unclosed quote runs to the end of the line.
pub fn split_cells(line: &str) -> Vec<Cell<'_>> {
    let mut cells = Vec::new();
    // Where the cell starts, in bytes and as a column.
    let (mut start, mut column) = (0, 1);
    let mut quoted = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                let raw = &line[start..at];
                cells.push(cell(raw, column));
                column += raw.chars().count() + 1;
                start = at + 1;
            }
            _ => {}
        }
    }
    cells.push(cell(&line[start..], column));
    cells
}

/// The cell of the text between two commas, which starts at `column`.
fn cell(raw: &str, column: usize) -> Cell<'_> {
    let text = raw.trim();
    let blanks = raw[..raw.len() - raw.trim_start().len()].chars().count();
    let unquoted = text
        .strip_prefix('"')
        .map(|rest| rest.strip_suffix('"').unwrap_or(rest));
    Cell {
        column: column + blanks,
        text: match unquoted {
            None => Cow::Borrowed(text),
            Some(inner) if inner.contains("\"\"") => Cow::Owned(inner.replace("\"\"", "\"")),
            Some(inner) => Cow::Borrowed(inner),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_know_their_column_and_lose_their_quotes() {
        let cells = split_cells(r#"a, b ,"x, ""y""",,é,z"#);
        let found: Vec<_> = cells.iter().map(|c| (c.column, c.text.as_ref())).collect();
        assert_eq!(
            found,
            [
                (1, "a"),
                (4, "b"),
                (7, r#"x, "y""#),
                (18, ""),
                (19, "é"),
                (21, "z")
            ]
        );
    }
}
