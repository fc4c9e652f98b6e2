//! One column of a row table as Parquet pages.
//!
//! Rows of requests and batches are measurements, which no compression shrinks,
//! beside columns that say the same a thousand times. So a column is written as
//! its values are, or, if it rarely changes, as a dictionary and the lengths of
//! its runs; whole numbers as packed differences. That costs little more than
//! copying, and readers need nothing unusual: the encodings are as old as
//! Parquet 2.

mod integers;
mod numbers;

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{CompressedPage, Page};
use parquet::data_type::ByteArray;
use parquet::file::statistics::Statistics;

use self::integers::Integers;
use self::numbers::Numbers;
use super::schema::{FlagOf, Getter, Take, TextOf};
use crate::number::narrow;

/// A column with at least so many values per run of equal ones is written as runs.
const VALUES_PER_RUN: usize = 16;

/// Bytes kept free for the levels of a page without nulls, which take at most a length,
/// a number of rows and a byte.
const LEVELS_ROOM: usize = 16;

/// Pages of one column of a row group.
pub(super) struct Chunk {
    /// Distinct values, if the data page refers to such.
    pub(super) dictionary: Option<CompressedPage>,
    /// The rows.
    pub(super) data: CompressedPage,
    /// Smallest and largest value, and nulls.
    pub(super) statistics: Statistics,
    /// Encodings used.
    pub(super) encodings: Vec<Encoding>,
}

/// The rows of a column, and which of them are null.
#[derive(Default)]
struct Places {
    rows: usize,
    /// One per row; empty if no row is null.
    valid: Vec<bool>,
}

impl Places {
    /// Adds rows that have a value.
    fn extend_valid(&mut self, rows: usize) {
        self.rows += rows;
        if !self.valid.is_empty() {
            self.valid.resize(self.rows, true);
        }
    }

    /// Adds rows some of which may be null.
    fn extend(&mut self, valid: impl Iterator<Item = bool>) {
        self.valid.resize(self.rows, true);
        self.valid.extend(valid);
        self.rows = self.valid.len();
    }

    fn clear(&mut self) {
        self.rows = 0;
        self.valid.clear();
    }

    /// Start of a data page: its definition levels, which say what is null.
    fn levels(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.valid.len() / 8 + LEVELS_ROOM);
        page.extend([0; 4]);
        if self.valid.is_empty() {
            write_varint((self.rows as u64) << 1, &mut page);
            page.push(1);
        } else {
            write_varint(((self.rows.div_ceil(8) as u64) << 1) | 1, &mut page);
            page.extend(packed(&self.valid));
        }
        let bytes = narrow::<u32, _>(page.len() - 4);
        page[..4].copy_from_slice(&bytes.to_le_bytes());
        page
    }

    fn data_page(&self, page: impl Into<Bytes>, encoding: Encoding) -> CompressedPage {
        let page = page.into();
        let bytes = page.len();
        let page = Page::DataPage {
            buf: page,
            num_values: narrow(self.rows),
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        CompressedPage::new(page, bytes)
    }

    /// A page that holds values as they are, or packed.
    fn plain(&self, page: impl Into<Bytes>, encoding: Encoding, statistics: Statistics) -> Chunk {
        Chunk {
            dictionary: None,
            data: self.data_page(page, encoding),
            statistics,
            encodings: vec![encoding, Encoding::RLE],
        }
    }

    /// A dictionary of the values, by `key`, and a number and a length for each that
    /// follows another.
    fn coded<T: Copy, K: Ord>(
        &self,
        runs: impl Iterator<Item = (T, usize)>,
        statistics: Statistics,
        key: fn(T) -> K,
        bytes: fn(T, &mut Vec<u8>),
    ) -> Chunk {
        let mut codes = BTreeMap::new();
        let mut dictionary = Vec::new();
        let mut coded: Vec<(u32, usize)> = Vec::new();
        for (value, length) in runs {
            let next = narrow::<u32, _>(codes.len());
            let code = *codes.entry(key(value)).or_insert_with(|| {
                bytes(value, &mut dictionary);
                next
            });
            coded.push((code, length));
        }
        if coded.is_empty() {
            // Nothing but nulls: some readers refuse a dictionary of nothing.
            return self.plain(self.levels(), Encoding::PLAIN, statistics);
        }
        let distinct = narrow::<u32, _>(codes.len());
        let bits = (u32::BITS - distinct.saturating_sub(1).leading_zeros()).max(1);
        let mut page = self.levels();
        page.push(narrow(bits));
        for (code, length) in coded {
            write_varint((length as u64) << 1, &mut page);
            page.extend(&code.to_le_bytes()[..bits.div_ceil(8) as usize]);
        }
        let size = dictionary.len();
        let dictionary = Page::DictionaryPage {
            buf: dictionary.into(),
            num_values: distinct,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        Chunk {
            dictionary: Some(CompressedPage::new(dictionary, size)),
            data: self.data_page(page, Encoding::RLE_DICTIONARY),
            statistics,
            encodings: vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY],
        }
    }
}

/// Rows that a column takes at a time: few enough that they and what is taken from
/// them stay in the fastest cache while one column after the other does.
pub(super) const ROWS_AT_A_TIME: usize = 256;

/// Texts and how often each comes in a row.
pub(super) type TextRuns = Vec<(Option<String>, usize)>;

/// A column of a row group while its rows come.
pub(super) enum Filling<R: 'static> {
    Int(&'static Take<R, Option<i64>>, Integers),
    Float(&'static Take<R, f64>, Numbers),
    Text(&'static TextOf<R>, TextRuns),
    Flag(&'static FlagOf<R>, Vec<bool>),
    /// Nothing but nulls.
    Null(Integers),
}

impl<R> Filling<R> {
    pub(super) fn new(getter: &'static Getter<R>) -> Self {
        match getter {
            Getter::Int(take) => Self::Int(take, Integers::default()),
            Getter::Float(take) => Self::Float(take, Numbers::default()),
            Getter::Text(get) => Self::Text(get, Vec::new()),
            // Verdicts are of runs; a row has none.
            Getter::Verdict(_) => Self::Null(Integers::default()),
            Getter::Flag(get) => Self::Flag(get, Vec::new()),
        }
    }

    /// Makes room for so many rows in all.
    pub(super) fn reserve(&mut self, rows: usize) {
        match self {
            Self::Int(_, integers) => integers.reserve(rows),
            Self::Float(_, numbers) => numbers.reserve(rows),
            Self::Flag(_, flags) => flags.reserve(rows),
            Self::Text(..) | Self::Null(_) => {}
        }
    }

    /// Adds at most [`ROWS_AT_A_TIME`] rows.
    pub(super) fn extend(&mut self, rows: &[R]) {
        match self {
            Self::Int(take, integers) => {
                let mut values = [None; ROWS_AT_A_TIME];
                let values = &mut values[..rows.len()];
                take(rows, values);
                integers.extend(values);
            }
            Self::Float(take, numbers) => {
                let mut values = [f64::NAN; ROWS_AT_A_TIME];
                let values = &mut values[..rows.len()];
                take(rows, values);
                numbers.extend(values);
            }
            Self::Text(get, runs) => extend_texts(runs, get, rows),
            Self::Flag(get, flags) => flags.extend(rows.iter().map(get)),
            Self::Null(nulls) => nulls.extend(&[None; ROWS_AT_A_TIME][..rows.len()]),
        }
    }

    /// The pages of all that came. [`Self::clear`] follows, once they are written.
    pub(super) fn chunk(&mut self) -> Chunk {
        match self {
            Self::Int(_, integers) | Self::Null(integers) => integers.chunk(),
            Self::Float(_, numbers) => numbers.chunk(),
            Self::Text(_, runs) => texts(runs),
            Self::Flag(_, flags) => flags_chunk(flags),
        }
    }

    /// Back to nothing.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Int(_, integers) | Self::Null(integers) => integers.clear(),
            Self::Float(_, numbers) => numbers.clear(),
            Self::Text(_, runs) => runs.clear(),
            Self::Flag(_, flags) => flags.clear(),
        }
    }
}

/// Adds the texts of rows. Names come from constants: the same text is mostly at the
/// same place.
fn extend_texts<R>(runs: &mut TextRuns, get: &TextOf<R>, rows: &[R]) {
    let same = |a: &R, b: &R| match (get(a), get(b)) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || a == b,
        (a, b) => a == b,
    };
    for alike in rows.chunk_by(same) {
        add_text(runs, get(&alike[0]), alike.len());
    }
}

/// Adds a text that comes so many times in a row.
pub(super) fn add_text(runs: &mut TextRuns, text: Option<&str>, count: usize) {
    match runs.last_mut() {
        Some((last, before)) if last.as_deref() == text => *before += count,
        _ => runs.push((text.map(str::to_owned), count)),
    }
}

/// The column of these texts.
pub(super) fn texts(runs: &TextRuns) -> Chunk {
    let mut places = Places::default();
    for (text, count) in runs {
        match text {
            Some(_) => places.extend_valid(*count),
            None => places.extend(std::iter::repeat_n(false, *count)),
        }
    }
    let there = || {
        let there = runs.iter();
        there.filter_map(|(text, count)| Some((text.as_deref()?, *count)))
    };
    let texts = || there().map(|(text, _)| text);
    let nulls = places.rows - there().map(|(_, count)| count).sum::<usize>();
    let (min, max) = (texts().min(), texts().max());
    let (min, max) = (min.map(ByteArray::from), max.map(ByteArray::from));
    let statistics = Statistics::byte_array(min, max, None, Some(nulls as u64), false);
    places.coded(there(), statistics, |text| text, write_text)
}

/// The column of these flags.
fn flags_chunk(flags: &[bool]) -> Chunk {
    let mut places = Places::default();
    places.extend_valid(flags.len());
    let (min, max) = (flags.iter().min().copied(), flags.iter().max().copied());
    let statistics = Statistics::boolean(min, max, None, Some(0), false);
    let mut page = places.levels();
    page.extend(packed(flags));
    places.plain(page, Encoding::PLAIN, statistics)
}

/// Eight to a byte, the lowest bit first.
fn packed(flags: &[bool]) -> impl Iterator<Item = u8> {
    flags.chunks(8).map(|flags| {
        let bits = flags.iter().enumerate();
        bits.fold(0, |byte, (bit, &flag)| byte | (u8::from(flag) << bit))
    })
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((narrow::<u32, _>(text.len())).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Seven bits a byte, lowest first; the highest bit says that more follow.
fn write_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(narrow(value));
}
