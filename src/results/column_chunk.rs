//! One column of a row table as Parquet pages.
//!
//! Rows of requests and batches are measurements, which no compression shrinks,
//! beside columns that say the same a thousand times. So a column is written as
//! its values are, or, if it rarely changes, as a dictionary and the lengths of
//! its runs; whole numbers as packed differences. That costs little more than
//! copying, and readers need nothing unusual: the encodings are as old as
//! Parquet 2.

use std::collections::BTreeMap;

use parquet::basic::Encoding;
use parquet::column::page::{CompressedPage, Page};
use parquet::data_type::ByteArray;
use parquet::file::statistics::Statistics;

use super::schema::{Getter, Take};

/// A column with at least so many values per run of equal ones is written as runs.
const VALUES_PER_RUN: usize = 16;

/// Values of a block of packed differences, and of each of its parts.
const BLOCK_VALUES: usize = 128;
const MINIBLOCK_VALUES: usize = 32;

/// Values turned into bytes at a time.
const BYTES_AT_A_TIME: usize = 128;

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

/// What is there of a column: its values without nulls, and where those are.
#[derive(Clone, Copy)]
struct Present<'a, T> {
    values: &'a [T],
    /// One per row; empty if no row is null.
    valid: &'a [bool],
    rows: usize,
}

impl<T: Copy> Present<'_, T> {
    fn nulls(&self) -> u64 {
        (self.rows - self.values.len()) as u64
    }

    /// Start of a data page: its definition levels, which say what is null.
    fn levels(&self, bytes_to_come: usize) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.valid.len() / 8 + bytes_to_come + 16);
        page.extend([0; 4]);
        if self.valid.is_empty() {
            write_varint((self.rows as u64) << 1, &mut page);
            page.push(1);
        } else {
            write_varint(((self.rows.div_ceil(8) as u64) << 1) | 1, &mut page);
            page.extend(self.valid.chunks(8).map(|valid| {
                let bits = valid.iter().enumerate();
                bits.fold(0, |byte, (bit, &valid)| byte | (u8::from(valid) << bit))
            }));
        }
        let bytes = (page.len() - 4) as u32;
        page[..4].copy_from_slice(&bytes.to_le_bytes());
        page
    }

    fn data_page(&self, page: Vec<u8>, encoding: Encoding) -> CompressedPage {
        let bytes = page.len();
        let page = Page::DataPage {
            buf: page.into(),
            num_values: self.rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        CompressedPage::new(page, bytes)
    }

    /// Values as they are, or however `write` writes them.
    fn plain(
        &self,
        encoding: Encoding,
        statistics: Statistics,
        write: impl FnOnce(&[T], &mut Vec<u8>),
    ) -> Chunk {
        let mut page = self.levels(self.values.len() * size_of::<T>());
        write(self.values, &mut page);
        Chunk {
            dictionary: None,
            data: self.data_page(page, encoding),
            statistics,
            encodings: vec![encoding, Encoding::RLE],
        }
    }

    /// A dictionary of the values, by `key`, and a number and a length per run.
    fn runs<K: Ord>(
        &self,
        statistics: Statistics,
        key: fn(T) -> K,
        bytes: fn(T, &mut Vec<u8>),
    ) -> Chunk {
        let runs = self.values.chunk_by(|a, b| key(*a) == key(*b));
        let runs = runs.map(|run| (run[0], run.len()));
        self.coded(runs, statistics, key, bytes)
    }

    /// The same, of runs that are known.
    fn coded<K: Ord>(
        &self,
        values: impl Iterator<Item = (T, usize)>,
        statistics: Statistics,
        key: fn(T) -> K,
        bytes: fn(T, &mut Vec<u8>),
    ) -> Chunk {
        let mut codes = BTreeMap::new();
        let mut dictionary = Vec::new();
        let mut runs: Vec<(u32, usize)> = Vec::new();
        for (value, length) in values {
            let next = codes.len() as u32;
            let code = *codes.entry(key(value)).or_insert_with(|| {
                bytes(value, &mut dictionary);
                next
            });
            runs.push((code, length));
        }
        if runs.is_empty() {
            // Nothing but nulls: some readers refuse a dictionary of nothing.
            return self.plain(Encoding::PLAIN, statistics, |_, _| ());
        }
        let distinct = codes.len() as u32;
        let bits = (u32::BITS - distinct.saturating_sub(1).leading_zeros()).max(1);
        let mut page = self.levels(runs.len() * 4);
        page.push(bits as u8);
        for (code, length) in runs {
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

    /// Whether the column rarely changes, by `key`. Looks no further than it must.
    fn is_steady<K: PartialEq>(&self, key: fn(T) -> K) -> bool {
        let mut left = self.values.len() / VALUES_PER_RUN;
        for pair in self.values.windows(2) {
            if key(pair[0]) != key(pair[1]) {
                if left == 0 {
                    return false;
                }
                left -= 1;
            }
        }
        true
    }
}

/// Rows that a column takes at a time: few enough that they and what is taken from
/// them stay in the fastest cache while one column after the other does.
pub(super) const ROWS_AT_A_TIME: usize = 256;

/// Texts and how often each comes in a row.
type TextRuns = Vec<(Option<String>, usize)>;

/// A column of a row group while its rows come.
pub(super) enum Filling<R: 'static> {
    Int(&'static Take<R, Option<i64>>, Integers),
    Float(&'static Take<R, f64>, Vec<f64>),
    Text(fn(&R) -> Option<&str>, TextRuns),
    /// Nothing but nulls.
    Null(usize),
}

impl<R> Filling<R> {
    /// Nothing yet, with room for `rows`.
    pub(super) fn new(getter: &'static Getter<R>, rows: usize) -> Self {
        match getter {
            Getter::Int(take) => Self::Int(take, Integers::with_capacity(rows)),
            Getter::Float(take) => Self::Float(take, Vec::with_capacity(rows)),
            Getter::Text(get) => Self::Text(*get, Vec::new()),
            // Verdicts are of runs; a row has none.
            Getter::Verdict => Self::Null(0),
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
            Self::Float(take, values) => {
                let before = values.len();
                values.resize(before + rows.len(), f64::NAN);
                take(rows, &mut values[before..]);
            }
            Self::Text(get, runs) => extend_texts(runs, rows.iter().map(*get)),
            Self::Null(count) => *count += rows.len(),
        }
    }

    /// The pages of all that came; after that there is nothing again.
    pub(super) fn chunk(&mut self) -> Chunk {
        match self {
            Self::Int(_, integers) => {
                let chunk = ints(integers.present());
                integers.clear();
                chunk
            }
            Self::Float(_, values) => {
                let chunk = floats(values);
                values.clear();
                chunk
            }
            Self::Text(_, runs) => texts(&std::mem::take(runs)),
            Self::Null(count) => ints(Present {
                values: &[],
                valid: &vec![false; *count],
                rows: std::mem::take(count),
            }),
        }
    }
}

/// Whole numbers, some of them null.
pub(super) struct Integers {
    values: Vec<i64>,
    valid: Vec<bool>,
    rows: usize,
}

impl Integers {
    fn with_capacity(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            valid: Vec::new(),
            rows: 0,
        }
    }

    /// Most columns have no null, or nothing else.
    fn extend(&mut self, more: &[Option<i64>]) {
        if self.valid.is_empty() && more.iter().all(Option::is_some) {
            let more = more.iter().map(|value| value.unwrap_or_default());
            self.values.extend(more);
        } else {
            self.valid.resize(self.rows, true);
            self.valid.extend(more.iter().map(Option::is_some));
            self.values.extend(more.iter().flatten());
        }
        self.rows += more.len();
    }

    fn present(&self) -> Present<'_, i64> {
        Present {
            values: &self.values,
            valid: &self.valid,
            rows: self.rows,
        }
    }

    fn clear(&mut self) {
        self.values.clear();
        self.valid.clear();
        self.rows = 0;
    }
}

/// Adds texts one by one. Names come from constants: the same text is mostly at the
/// same place.
fn extend_texts<'a>(runs: &mut TextRuns, texts: impl Iterator<Item = Option<&'a str>>) {
    let same = |a: Option<&str>, b: Option<&str>| match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b) || a == b,
        (a, b) => a == b,
    };
    let mut texts = texts.peekable();
    while let Some(text) = texts.next() {
        let mut count = 1;
        while texts.next_if(|next| same(*next, text)).is_some() {
            count += 1;
        }
        add_text(runs, text, count);
    }
}

/// Adds a text that comes so many times in a row.
pub(super) fn add_text(runs: &mut TextRuns, text: Option<&str>, count: usize) {
    match runs.last_mut() {
        Some((last, before)) if last.as_deref() == text => *before += count,
        _ => runs.push((text.map(str::to_owned), count)),
    }
}

fn ints(column: Present<'_, i64>) -> Chunk {
    let first = column.values.first();
    let range = first.map(|&first| {
        let values = column.values.iter();
        values.fold((first, first), |(min, max), &value| {
            (min.min(value), max.max(value))
        })
    });
    let (min, max) = range.unzip();
    let statistics = Statistics::int64(min, max, None, Some(column.nulls()), false);
    match column.is_steady(|value| value) {
        true => column.runs(
            statistics,
            |value| value,
            |value, bytes| {
                bytes.extend(value.to_le_bytes());
            },
        ),
        false => column.plain(Encoding::DELTA_BINARY_PACKED, statistics, write_differences),
    }
}

/// Numbers; what is not finite is null.
fn floats(values: &[f64]) -> Chunk {
    let finite = values
        .iter()
        .fold(true, |all, value| all & value.is_finite());
    if finite {
        return finite_floats(Present {
            values,
            valid: &[],
            rows: values.len(),
        });
    }
    let valid: Vec<bool> = values.iter().map(|value| value.is_finite()).collect();
    let there: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    finite_floats(Present {
        values: &there,
        valid: &valid,
        rows: values.len(),
    })
}

fn finite_floats(column: Present<'_, f64>) -> Chunk {
    let (min, max) = float_range(column.values).unzip();
    let statistics = Statistics::double(min, max, None, Some(column.nulls()), false);
    match column.is_steady(f64::to_bits) {
        true => column.runs(statistics, f64::to_bits, |value, bytes| {
            bytes.extend(value.to_le_bytes());
        }),
        false => column.plain(Encoding::PLAIN, statistics, write_floats),
    }
}

/// The column of these texts.
pub(super) fn texts(runs: &TextRuns) -> Chunk {
    let there = || {
        let texts = runs.iter().filter(|(_, count)| *count > 0);
        texts.filter_map(|(text, count)| Some((text.as_deref()?, *count)))
    };
    let rows = runs.iter().map(|(_, count)| count).sum();
    let nulls = rows - there().map(|(_, count)| count).sum::<usize>();
    let valid: Vec<bool> = match nulls {
        0 => Vec::new(),
        _ => {
            let runs = runs.iter();
            runs.flat_map(|(text, count)| std::iter::repeat_n(text.is_some(), *count))
                .collect()
        }
    };
    let column = Present {
        values: &[],
        valid: &valid,
        rows,
    };
    let range = there().map(|(text, _)| text);
    let statistics = text_statistics(range.clone().min(), range.max(), nulls as u64);
    column.coded(there(), statistics, |text| text, write_text)
}

fn text_statistics(min: Option<&str>, max: Option<&str>, nulls: u64) -> Statistics {
    let (min, max) = (min.map(ByteArray::from), max.map(ByteArray::from));
    Statistics::byte_array(min, max, None, Some(nulls), false)
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// Smallest and largest; several at a time, as a comparison waits for the one
/// before. Zeros count as smaller and larger than each other, as readers may
/// tell them apart.
fn float_range(values: &[f64]) -> Option<(f64, f64)> {
    const LANES: usize = 8;
    let first = *values.first()?;
    let (mut low, mut high) = ([first; LANES], [first; LANES]);
    let take = |value: f64, low: &mut f64, high: &mut f64| {
        *low = if value < *low { value } else { *low };
        *high = if value > *high { value } else { *high };
    };
    let (groups, rest) = values.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            take(group[lane], &mut low[lane], &mut high[lane]);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        take(*value, &mut low[lane], &mut high[lane]);
    }
    let min = low.into_iter().fold(first, f64::min);
    let max = high.into_iter().fold(first, f64::max);
    Some((
        if min == 0.0 { -0.0 } else { min },
        if max == 0.0 { 0.0 } else { max },
    ))
}

fn write_floats(values: &[f64], page: &mut Vec<u8>) {
    let mut bytes = [[0; size_of::<f64>()]; BYTES_AT_A_TIME];
    for values in values.chunks(BYTES_AT_A_TIME) {
        for (bytes, value) in bytes.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        page.extend_from_slice(bytes[..values.len()].as_flattened());
    }
}

/// Seven bits a byte, lowest first; the highest bit says that more follow.
fn write_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Small numbers of either sign as small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// `DELTA_BINARY_PACKED`: the first value, then blocks of differences, each less
/// the smallest of its block, in as many bits as the largest of its part needs.
fn write_differences(values: &[i64], page: &mut Vec<u8>) {
    write_varint(BLOCK_VALUES as u64, page);
    write_varint((BLOCK_VALUES / MINIBLOCK_VALUES) as u64, page);
    write_varint(values.len() as u64, page);
    write_varint(zigzag(values.first().copied().unwrap_or(0)), page);
    let mut before = values.first().copied().unwrap_or(0);
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK_VALUES) {
        let mut differences = [0; BLOCK_VALUES];
        for (difference, value) in differences.iter_mut().zip(block) {
            *difference = value.wrapping_sub(before);
            before = *value;
        }
        write_difference_block(&differences, block.len(), page);
    }
}

/// A block of which the first `count` differences are there.
fn write_difference_block(differences: &[i64; BLOCK_VALUES], count: usize, page: &mut Vec<u8>) {
    let least = differences[..count].iter().copied().min().unwrap_or(0);
    let mut above = [0; BLOCK_VALUES];
    for (above, difference) in above.iter_mut().zip(&differences[..count]) {
        *above = difference.wrapping_sub(least) as u64;
    }
    write_varint(zigzag(least), page);
    let parts = above.chunks(MINIBLOCK_VALUES);
    let widths =
        parts.map(|part| u64::BITS - part.iter().fold(0, |all, x| all | x).leading_zeros());
    let widths: Vec<u32> = widths.collect();
    page.extend(widths.iter().map(|&width| width as u8));
    for (part, &width) in above[..count].chunks(MINIBLOCK_VALUES).zip(&widths) {
        let mut padded = [0; MINIBLOCK_VALUES];
        padded[..part.len()].copy_from_slice(part);
        write_packed(&padded, width, page);
    }
}

/// Values in `width` bits each, lowest bits first.
fn write_packed(values: &[u64; MINIBLOCK_VALUES], width: u32, page: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut word, mut filled) = (0u64, 0);
    for &value in values
        .iter()
        .take(if width == 0 { 0 } else { MINIBLOCK_VALUES })
    {
        word |= value << filled;
        filled += width;
        if filled >= u64::BITS {
            page.extend(word.to_le_bytes());
            filled -= u64::BITS;
            // What of the value did not fit; nothing, if it ended with the word.
            word = value.checked_shr(width - filled).unwrap_or(0);
        }
    }
    // 32 values fill whole words but for half a one.
    page.extend(&word.to_le_bytes()[..(filled / 8) as usize]);
}
