//! Tables and sentences that fit the width they are printed to.
//!
//! What is too wide is first made narrower: columns that say the same in every line become
//! a sentence below; those that may go, go; texts are folded. If that is not enough,
//! the table is cut into several below each other, each with the columns that say which
//! line it is; and where not even one column fits beside those, every line of the table
//! becomes a paragraph. What was left out is said. Used by every command that prints a
//! table.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

/// Lines are never narrower than this: nothing can be read in fewer characters.
pub const LEAST_WIDTH: usize = 20;
/// Blanks between columns.
const GAP: usize = 2;
/// A text is folded to no fewer characters than this while there is another way.
const LEAST_FOLDED: usize = 10;
/// Wider words may be folded where an underscore is.
const LONG_WORD: usize = 24;
/// Headings are stacked to about this many characters even over narrower cells.
const HEADING_WIDTH: usize = 8;

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextColumn {
    /// What the column is called elsewhere: in CSV and Parquet.
    name: String,
    /// What stands above it: words, folded as needed.
    heading: String,
    cells: Vec<String>,
    /// Numbers are aligned to the right and never folded.
    numeric: bool,
    /// How readily it goes where room is short; 0: never.
    dispensable: u8,
    /// Whether it may become a sentence where it is the same in every line.
    may_be_said_once: bool,
}

impl TextColumn {
    /// A column of texts, headed by the words of its name.
    pub fn text(name: &str, cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.to_owned(),
            heading: name.replace(['_', '.'], " "),
            cells: cells.into_iter().collect(),
            numeric: false,
            dispensable: 0,
            may_be_said_once: false,
        }
    }

    /// A column of figures.
    pub fn numbers(name: &str, cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            numeric: true,
            ..Self::text(name, cells)
        }
    }

    /// The same under other words.
    #[must_use]
    pub fn headed(self, heading: &str) -> Self {
        Self {
            heading: heading.to_owned(),
            ..self
        }
    }

    /// The same, but the most dispensable columns go first where room is short.
    #[must_use]
    pub fn dispensable(self, dispensable: u8) -> Self {
        Self {
            dispensable,
            ..self
        }
    }

    /// The same, but it is said once where it is the same in every line and room is
    /// short.
    #[must_use]
    pub fn said_once(self) -> Self {
        Self {
            may_be_said_once: true,
            ..self
        }
    }

    fn is_same_in_all(&self) -> bool {
        let first = self.cells.first();
        self.cells.len() > 1 && self.cells.iter().all(|cell| Some(cell) == first)
    }

    /// Width of its cells as they stand.
    fn cells_width(&self) -> usize {
        let lines = self.cells.iter().flat_map(|cell| cell.lines());
        lines.map(str::width).max().unwrap_or(0)
    }

    /// Width of it, its heading stacked.
    fn width(&self) -> usize {
        let cells = self.cells_width();
        cells.max(self.heading_width(cells.max(HEADING_WIDTH)))
    }

    /// The least it can be folded to without cutting a word.
    fn least_width(&self) -> usize {
        if self.numeric {
            return self.width();
        }
        let cells = self.cells.iter().flat_map(|cell| fold(cell, LEAST_FOLDED));
        let cells = cells.map(|line| line.width()).max().unwrap_or(0);
        cells.max(self.heading_width(LEAST_FOLDED))
    }

    fn heading_width(&self, limit: usize) -> usize {
        let lines = fold(&self.heading, limit).into_iter();
        lines.map(|line| line.width()).max().unwrap_or(0)
    }
}

/// A table. The first columns say which line it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    keys: usize,
    columns: Vec<TextColumn>,
}

impl TextTable {
    /// A table of columns that have equally many cells, of which the first `keys`,
    /// at least one, say which line it is. No two get the same heading.
    pub fn new(keys: usize, columns: impl IntoIterator<Item = TextColumn>) -> Self {
        let mut columns: Vec<TextColumn> = columns.into_iter().collect();
        for index in 1..columns.len() {
            let (before, after) = columns.split_at_mut(index);
            if before.iter().any(|other| other.heading == after[0].heading) {
                after[0].heading = after[0].name.clone();
            }
        }
        Self { keys, columns }
    }

    /// The table in lines of at most `width` characters, each ended, and sentences
    /// about what did not fit.
    pub fn render(&self, width: usize) -> String {
        let width = width.max(LEAST_WIDTH);
        let mut table = self.clone();
        let mut left_out = Vec::new();
        let mut same = Vec::new();
        while table.width() > width {
            let say_once = |c: &TextColumn| c.may_be_said_once && c.is_same_in_all();
            let Some(at) = table.columns.iter().position(say_once) else {
                break;
            };
            let column = table.columns.remove(at);
            same.push(format!("{} = {}", column.name, column.cells[0]));
        }
        while table.width() > width {
            let most = table.columns.iter().map(|c| c.dispensable).max();
            let Some(most) = most.filter(|most| *most > 0) else {
                break;
            };
            // The last of the most dispensable: tables begin with what matters.
            if let Some(at) = table.columns.iter().rposition(|c| c.dispensable == most) {
                left_out.insert(0, table.columns.remove(at).name);
            }
        }
        let mut text = table.fitted(width);
        if !same.is_empty() {
            text += &wrapped(&format!("In all listed: {}.", same.join(", ")), width);
        }
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            let sentence = format!("Left out, for want of room: {names}.");
            text += &wrapped(&sentence, width);
        }
        text
    }

    /// Width of the columns as they stand.
    fn width(&self) -> usize {
        let columns = self.columns.iter().map(TextColumn::width).sum::<usize>();
        columns + GAP * self.columns.len().saturating_sub(1)
    }

    /// Folded, cut or one paragraph a line.
    fn fitted(&self, width: usize) -> String {
        let all: Vec<&TextColumn> = self.columns.iter().collect();
        if let Some(widths) = folded_widths(&all, width) {
            return lines_of(&all, &widths);
        }
        let (keys, others) = all.split_at(self.keys.min(all.len()));
        let mut blocks: Vec<Vec<&TextColumn>> = Vec::new();
        for column in others {
            let longer = blocks.last().map(|block| [&block[..], &[column]].concat());
            match longer.filter(|block| folded_widths(block, width).is_some()) {
                Some(longer) => {
                    blocks.pop();
                    blocks.push(longer);
                }
                None => blocks.push([keys, &[column]].concat()),
            }
        }
        let widths: Option<Vec<Vec<usize>>> = blocks
            .iter()
            .map(|block| folded_widths(block, width))
            .collect();
        match widths {
            Some(widths) if !blocks.is_empty() => {
                let blocks = blocks.iter().zip(&widths);
                let texts: Vec<String> = blocks.map(|(b, widths)| lines_of(b, widths)).collect();
                texts.join("\n")
            }
            _ => self.paragraphs(width),
        }
    }

    /// A paragraph for every line: heading and value, one below the other.
    fn paragraphs(&self, width: usize) -> String {
        let label = |column: &TextColumn| column.heading.width();
        let labels = self.columns.iter().map(label).max().unwrap_or(0);
        let labels = labels.min(width / 2);
        let rows = self
            .columns
            .iter()
            .map(|c| c.cells.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for row in 0..rows {
            if row > 0 {
                text.push('\n');
            }
            for column in &self.columns {
                let cell = column.cells.get(row).map_or("", String::as_str);
                let heads = hard_fold(&column.heading, labels);
                let cells = hard_fold(cell, width - labels - GAP);
                write_lines(&mut text, &[(heads, labels, false), (cells, 0, false)]);
            }
        }
        text
    }
}

/// Widths at which columns fit beside each other: texts are folded, the widest first,
/// but no word is cut. None if that is not enough.
fn folded_widths(columns: &[&TextColumn], width: usize) -> Option<Vec<usize>> {
    let room = width.checked_sub(GAP * columns.len().saturating_sub(1))?;
    let mut widths: Vec<usize> = columns.iter().map(|c| c.width()).collect();
    let total: usize = widths.iter().sum();
    if total <= room {
        return Some(widths);
    }
    let least: Vec<usize> = columns.iter().map(|c| c.least_width()).collect();
    if least.iter().sum::<usize>() > room {
        return None;
    }
    // All columns that are wider than a bound are folded to it, or as far as they can
    // be; the largest bound at which everything fits.
    let at = |bound: usize| -> Vec<usize> {
        let widths = widths.iter().zip(&least);
        widths
            .map(|(width, least)| (*width).min(bound.max(*least)))
            .collect()
    };
    let (mut fits, mut too_wide) = (0, widths.iter().copied().max().unwrap_or(0));
    while too_wide - fits > 1 {
        let bound = fits.midpoint(too_wide);
        match at(bound).iter().sum::<usize>() <= room {
            true => fits = bound,
            false => too_wide = bound,
        }
    }
    widths = at(fits);
    // What rounding left goes to the first that can use it.
    let mut spare = room - widths.iter().sum::<usize>();
    for (width, column) in widths.iter_mut().zip(columns) {
        let more = spare.min(column.width().saturating_sub(*width));
        *width += more;
        spare -= more;
    }
    Some(widths)
}

/// The columns beside each other, under their headings and a rule.
fn lines_of(columns: &[&TextColumn], widths: &[usize]) -> String {
    let mut text = String::new();
    let headings = columns
        .iter()
        .zip(widths)
        .map(|(column, width)| (fold(&column.heading, *width), *width, column.numeric));
    write_lines(&mut text, &headings.collect::<Vec<_>>());
    let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    text.push_str(&"-".repeat(total));
    text.push('\n');
    let rows = columns.iter().map(|c| c.cells.len()).max().unwrap_or(0);
    for row in 0..rows {
        let cells = columns.iter().zip(widths).map(|(column, width)| {
            let cell = column.cells.get(row).map_or("", String::as_str);
            (fold(cell, *width), *width, column.numeric)
        });
        write_lines(&mut text, &cells.collect::<Vec<_>>());
    }
    text
}

/// Cells of several lines beside each other: their lines, width, and whether they are
/// aligned to the right.
fn write_lines(text: &mut String, cells: &[(Vec<String>, usize, bool)]) {
    let height = cells.iter().map(|(lines, ..)| lines.len()).max();
    for nth in 0..height.unwrap_or(0) {
        let mut line = String::new();
        for (index, (lines, width, to_the_right)) in cells.iter().enumerate() {
            let cell = lines.get(nth).map_or("", String::as_str);
            let blank = " ".repeat(width.saturating_sub(cell.width()));
            let gap = if index > 0 {
                " ".repeat(GAP)
            } else {
                String::new()
            };
            // Writing to a string cannot fail.
            let _ = match to_the_right {
                true => write!(line, "{gap}{blank}{cell}"),
                false => write!(line, "{gap}{cell}{blank}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Sentences in lines of at most `width` characters, each ended; what follows the first
/// line of each is indented by as much as the first is, and two more.
pub fn wrapped(text: &str, width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let mut out = String::new();
    for line in text.lines() {
        let words = line.trim_start();
        let indent = line.width() - words.width();
        if indent + 2 + LEAST_FOLDED > width {
            push_lines(&mut out, &hard_fold(words, width), 0, 0);
            continue;
        }
        let lines = match hard_fold(words, width - indent) {
            one if one.len() == 1 => one,
            _ => hard_fold(words, width - indent - 2),
        };
        push_lines(&mut out, &lines, indent, indent + 2);
    }
    out
}

fn push_lines(out: &mut String, lines: &[String], first: usize, others: usize) {
    for (nth, line) in lines.iter().enumerate() {
        let indent = if nth == 0 { first } else { others };
        let _ = writeln!(out, "{}{line}", " ".repeat(indent));
    }
}

/// The lines of a text, folded where words meet so that they are at most `width`
/// characters wide, unless a word is wider.
fn fold(text: &str, width: usize) -> Vec<String> {
    fold_at(text, width, false)
}

/// The same with words that are wider cut.
fn hard_fold(text: &str, width: usize) -> Vec<String> {
    fold_at(text, width, true)
}

fn fold_at(text: &str, width: usize, cuts_words: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for (word, blank_before) in words(line) {
            let blank = usize::from(blank_before && !current.is_empty());
            if current.width() + blank + word.width() > width && !current.is_empty() {
                lines.push(std::mem::take(&mut current));
            } else if blank > 0 {
                current.push(' ');
            }
            let mut word = word;
            while cuts_words && word.width() > width.max(1) {
                let end = end_of(word, width.max(1));
                lines.push(word[..end].to_owned());
                word = &word[end..];
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// Where to cut a word that is too wide: after so many columns, at least one character.
fn end_of(word: &str, width: usize) -> usize {
    let mut end = 0;
    for (start, character) in word.char_indices() {
        let next = start + character.len_utf8();
        if word[..next].width() > width && end > 0 {
            break;
        }
        end = next;
    }
    end
}

/// The pieces of a line that stay together, and whether a blank stands before each.
/// Lines may also break after `,`, `;` and `/`, before `(`, and in long words after `_`.
fn words(line: &str) -> impl Iterator<Item = (&str, bool)> {
    line.split(' ').enumerate().flat_map(|(nth, word)| {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, character) in word.char_indices() {
            let end = at + character.len_utf8();
            let cut = match character {
                ',' | ';' | '/' => end,
                '_' if word.width() > LONG_WORD => end,
                '(' => at,
                _ => continue,
            };
            if cut > start && cut < word.len() {
                pieces.push((&word[start..cut], nth > 0 && start == 0));
                start = cut;
            }
        }
        pieces.push((&word[start..], nth > 0 && start == 0));
        pieces
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn example() -> TextTable {
        TextTable::new(
            1,
            [
                TextColumn::numbers("run", texts(&["7", "12"])),
                TextColumn::numbers("pd_node_ratio", texts(&["0.5", "0.5"])).said_once(),
                TextColumn::text(
                    "replica_scheduler",
                    texts(&["sarathi(chunk_size=2048)", "vllm"]),
                ),
                TextColumn::numbers("ttft_p50_s", texts(&["1.5 ms", "20 ms"])).dispensable(1),
            ],
        )
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let expected = "\
run  pd node  replica scheduler         ttft p50
       ratio                                   s
------------------------------------------------
  7      0.5  sarathi(chunk_size=2048)    1.5 ms
 12      0.5  vllm                         20 ms
";
        assert_eq!(example().render(48), expected);
    }

    #[test]
    fn what_does_not_fit_goes_is_said_once_is_folded_or_is_a_paragraph() {
        let once = example().render(47);
        let sentence = "In all listed: pd_node_ratio = 0.5.";
        assert!(once.contains(sentence) && once.contains("20 ms"), "{once}");
        let gone = example().render(36);
        let sentence = "Left out, for want of room:";
        assert!(gone.contains(sentence), "{gone}");
        assert!(gone.contains("sarathi(chunk_size=2048)"), "{gone}");
        let folded = example().render(26);
        assert!(
            folded.contains("  7  sarathi\n     (chunk_size=2048)\n"),
            "{folded}"
        );
        let wide = TextColumn::text("a_word", texts(&["indivisible-and-long"]));
        let paragraph = TextTable::new(1, [wide.clone(), wide.headed("b")]).render(20);
        assert_eq!(
            paragraph,
            "a word  indivisible-\n        and-long\nb       indivisible-\n        and-long\n"
        );
    }

    #[test]
    fn headings_differ() {
        let column = |name| TextColumn::text(name, texts(&["1"]));
        let table = TextTable::new(
            1,
            [
                column("replicas"),
                column("prefill.replicas"),
                column("prefill_replicas"),
            ],
        );
        let headings: Vec<&str> = table.columns.iter().map(|c| c.heading.as_str()).collect();
        assert_eq!(
            headings,
            ["replicas", "prefill replicas", "prefill_replicas"]
        );
    }

    #[test]
    fn sentences_are_wrapped_between_words_and_hang() {
        let text = "  12 of them: cannot be deployed here\nshort";
        assert_eq!(
            wrapped(text, 22),
            "  12 of them: cannot\n    be deployed here\nshort\n"
        );
    }

    proptest! {
        /// No line is wider than there is room, whatever the table, and no cell is lost.
        #[test]
        fn nothing_is_wider_than_the_terminal(
            width in LEAST_WIDTH..200,
            keys in 1usize..3,
            columns in prop::collection::vec(
                ("[a-z]{1,12}([_.][a-z]{1,9}){0,3}",
                 prop::collection::vec("[a-zé模]{0,30}([ ,(=/_][a-z0-9]{1,30}){0,4}", 3),
                 any::<bool>(), 0u8..3, any::<bool>()),
                1..12,
            ),
        ) {
            let columns = columns.into_iter().map(|(name, cells, numeric, dispensable, once)| {
                TextColumn { numeric, dispensable, may_be_said_once: once,
                    ..TextColumn::text(&name, cells) }
            });
            let table = TextTable::new(keys, columns);
            let text = table.render(width);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{} > {width}: {line}", line.width());
            }
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
            let needed: usize = table.columns.iter()
                .filter(|c| c.dispensable == 0 && !c.may_be_said_once)
                .flat_map(|c| &c.cells).map(|cell| letters(cell)).sum();
            prop_assert!(letters(&text) >= needed);
        }
    }
}
