//! One column of a row table as Parquet pages.
//!
//! Rows of requests and batches are measurements, which no compression shrinks,
//! beside columns that say the same a thousand times. So a column is written as
//! its values are, or, if it rarely changes, as a dictionary and the lengths of
//! its runs; whole numbers as packed differences. That costs little more than
//! copying, and readers need nothing unusual: the encodings are as old as
//! Parquet 2.

use std::collections::BTreeMap;

use bytes::Bytes;
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
#[derive(Clone, Copy)]
struct Places<'a> {
    rows: usize,
    /// One per row; empty if no row is null.
    valid: &'a [bool],
}

impl Places<'_> {
    /// Start of a data page: its definition levels, which say what is null.
    fn levels(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.valid.len() / 8 + LEVELS_ROOM);
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

    fn data_page(&self, page: impl Into<Bytes>, encoding: Encoding) -> CompressedPage {
        let page = page.into();
        let bytes = page.len();
        let page = Page::DataPage {
            buf: page,
            num_values: self.rows as u32,
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
            let next = codes.len() as u32;
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
        let distinct = codes.len() as u32;
        let bits = (u32::BITS - distinct.saturating_sub(1).leading_zeros()).max(1);
        let mut page = self.levels();
        page.push(bits as u8);
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
type TextRuns = Vec<(Option<String>, usize)>;

/// A column of a row group while its rows come.
pub(super) enum Filling<R: 'static> {
    Int(&'static Take<R, Option<i64>>, Integers),
    Float(&'static Take<R, f64>, Numbers),
    Text(fn(&R) -> Option<&str>, TextRuns),
    /// Nothing but nulls.
    Null(usize),
}

impl<R> Filling<R> {
    pub(super) fn new(getter: &'static Getter<R>) -> Self {
        match getter {
            Getter::Int(take) => Self::Int(take, Integers::default()),
            Getter::Float(take) => Self::Float(take, Numbers::default()),
            Getter::Text(get) => Self::Text(*get, Vec::new()),
            // Verdicts are of runs; a row has none.
            Getter::Verdict => Self::Null(0),
        }
    }

    /// Makes room for so many rows in all.
    pub(super) fn reserve(&mut self, rows: usize) {
        match self {
            Self::Int(_, integers) => integers.values.reserve(rows),
            Self::Float(_, numbers) => numbers.page.reserve(rows * size_of::<f64>()),
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
            Self::Text(get, runs) => extend_texts(runs, rows.iter().map(*get)),
            Self::Null(count) => *count += rows.len(),
        }
    }

    /// The pages of all that came. [`Self::clear`] follows, once they are written.
    pub(super) fn chunk(&mut self) -> Chunk {
        match self {
            Self::Int(_, integers) => integers.chunk(),
            Self::Float(_, numbers) => numbers.chunk(),
            Self::Text(_, runs) => texts(runs),
            Self::Null(rows) => {
                let statistics = Statistics::int64(None, None, None, Some(*rows as u64), false);
                let valid = &vec![false; *rows];
                let places = Places { rows: *rows, valid };
                places.plain(places.levels(), Encoding::PLAIN, statistics)
            }
        }
    }

    /// Back to nothing.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Int(_, integers) => integers.clear(),
            Self::Float(_, numbers) => numbers.clear(),
            Self::Text(_, runs) => runs.clear(),
            Self::Null(rows) => *rows = 0,
        }
    }
}

/// Whole numbers, some of them null.
#[derive(Default)]
pub(super) struct Integers {
    values: Vec<i64>,
    /// One per row; empty if no row is null.
    valid: Vec<bool>,
    rows: usize,
}

impl Integers {
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

    fn chunk(&self) -> Chunk {
        let values = &self.values;
        let range = values.first().map(|&first| {
            let values = values.iter();
            values.fold((first, first), |(min, max), &value| {
                (min.min(value), max.max(value))
            })
        });
        let (min, max) = range.unzip();
        let nulls = (self.rows - values.len()) as u64;
        let statistics = Statistics::int64(min, max, None, Some(nulls), false);
        let places = Places {
            rows: self.rows,
            valid: &self.valid,
        };
        if is_steady(values) {
            let runs = values.chunk_by(|a, b| a == b);
            let runs = runs.map(|run| (run[0], run.len()));
            return places.coded(
                runs,
                statistics,
                |value| value,
                |value, bytes| bytes.extend(value.to_le_bytes()),
            );
        }
        let mut page = places.levels();
        page.reserve(values.len() * 2);
        write_differences(values, &mut page);
        places.plain(page, Encoding::DELTA_BINARY_PACKED, statistics)
    }

    fn clear(&mut self) {
        self.values.clear();
        self.valid.clear();
        self.rows = 0;
    }
}

/// Whether values rarely change. Looks no further than it must.
fn is_steady(values: &[i64]) -> bool {
    let mut left = values.len() / VALUES_PER_RUN;
    for pair in values.windows(2) {
        if pair[0] != pair[1] {
            if left == 0 {
                return false;
            }
            left -= 1;
        }
    }
    true
}

/// Numbers of which those that are not finite are null. Whether they rarely change
/// shows as they come; if not, they go straight into their page.
pub(super) struct Numbers {
    /// Room for the page's levels, then its values.
    page: Vec<u8>,
    /// The same memory while a page is being written.
    lent: Bytes,
    present: usize,
    /// One per row; empty if no row is null.
    valid: Vec<bool>,
    rows: usize,
    range: Range,
    /// Bits of the values and how often each follows itself.
    runs: Vec<(u64, usize)>,
    /// Whether they changed too often for that.
    is_plain: bool,
}

/// Bytes kept free for the levels of a page without nulls, which take at most a length,
/// a number of rows and a byte.
const LEVELS_ROOM: usize = 16;

impl Default for Numbers {
    fn default() -> Self {
        Self {
            page: vec![0; LEVELS_ROOM],
            lent: Bytes::new(),
            present: 0,
            valid: Vec::new(),
            rows: 0,
            range: Range::default(),
            runs: Vec::new(),
            is_plain: false,
        }
    }
}

impl Numbers {
    fn extend(&mut self, values: &[f64]) {
        match self.range.with(values) {
            Some(range) => {
                if !self.valid.is_empty() {
                    self.valid.resize(self.rows + values.len(), true);
                }
                self.extend_present(values, range);
            }
            None => self.extend_finite(values),
        }
        self.rows += values.len();
    }

    /// Adds numbers some of which are not finite.
    fn extend_finite(&mut self, values: &[f64]) {
        self.valid.resize(self.rows, true);
        let mut finite = [0.0; ROWS_AT_A_TIME];
        let mut count = 0;
        for value in values {
            self.valid.push(value.is_finite());
            finite[count] = *value;
            count += usize::from(value.is_finite());
        }
        let finite = &finite[..count];
        let range = self.range.with(finite).unwrap_or(self.range);
        self.extend_present(finite, range);
    }

    fn extend_present(&mut self, values: &[f64], range: Range) {
        self.range = range;
        self.present += values.len();
        if self.is_plain {
            return write_floats(values, &mut self.page);
        }
        for run in values.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
            match self.runs.last_mut() {
                Some((last, count)) if *last == run[0].to_bits() => *count += run.len(),
                _ => self.runs.push((run[0].to_bits(), run.len())),
            }
        }
        if self.runs.len() > VALUES_PER_RUN + self.present / VALUES_PER_RUN {
            self.make_plain();
        }
    }

    fn make_plain(&mut self) {
        for (bits, count) in self.runs.drain(..) {
            let bytes = bits.to_le_bytes();
            (0..count).for_each(|_| self.page.extend_from_slice(&bytes));
        }
        self.is_plain = true;
    }

    fn chunk(&mut self) -> Chunk {
        if self.runs.len() > 1 + self.present / VALUES_PER_RUN {
            self.make_plain();
        }
        let nulls = (self.rows - self.present) as u64;
        let (min, max) = self.range.ends().unzip();
        let statistics = Statistics::double(min, max, None, Some(nulls), false);
        let places = Places {
            rows: self.rows,
            valid: &self.valid,
        };
        if self.is_plain {
            let page = with_levels(std::mem::take(&mut self.page), &places.levels());
            self.lent = page.clone();
            return places.plain(page, Encoding::PLAIN, statistics);
        }
        places.coded(
            self.runs.iter().copied(),
            statistics,
            |bits| bits,
            |bits, bytes| bytes.extend(bits.to_le_bytes()),
        )
    }

    fn clear(&mut self) {
        if !self.lent.is_empty() {
            // Nobody else has it any more, so that this moves nothing.
            self.lent.clear();
            self.page = Vec::from(std::mem::take(&mut self.lent));
        }
        self.page.clear();
        self.page.resize(LEVELS_ROOM, 0);
        self.valid.clear();
        self.runs.clear();
        self.present = 0;
        self.rows = 0;
        self.range = Range::default();
        self.is_plain = false;
    }
}

/// A page whose levels go where room was left for them, if they fit there.
fn with_levels(mut page: Vec<u8>, levels: &[u8]) -> Bytes {
    match LEVELS_ROOM.checked_sub(levels.len()) {
        Some(start) => {
            page[start..LEVELS_ROOM].copy_from_slice(levels);
            Bytes::from(page).slice(start..)
        }
        None => [levels, &page[LEVELS_ROOM..]].concat().into(),
    }
}

/// Smallest and largest of the numbers so far; several at a time, as a comparison
/// waits for the one before.
#[derive(Clone, Copy)]
struct Range {
    low: [f64; LANES],
    high: [f64; LANES],
}

const LANES: usize = 8;

/// As processors compare, unlike [`f64::min`].
fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

impl Default for Range {
    fn default() -> Self {
        Self {
            low: [f64::INFINITY; LANES],
            high: [f64::NEG_INFINITY; LANES],
        }
    }
}

impl Range {
    /// With these numbers too; none if one is not finite.
    fn with(self, values: &[f64]) -> Option<Self> {
        let Self { mut low, mut high } = self;
        // Nothing but zeros, unless a number is infinite or none.
        let mut zeros = [0.0; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for lane in 0..LANES {
                low[lane] = smaller(group[lane], low[lane]);
            }
            for lane in 0..LANES {
                high[lane] = larger(group[lane], high[lane]);
            }
            for lane in 0..LANES {
                zeros[lane] += group[lane] * 0.0;
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            low[lane] = smaller(*value, low[lane]);
            high[lane] = larger(*value, high[lane]);
            zeros[lane] += value * 0.0;
        }
        let finite = zeros.iter().all(|zero| *zero == 0.0);
        finite.then_some(Self { low, high })
    }

    /// Zeros count as smaller and larger than each other, as readers may tell them
    /// apart.
    fn ends(&self) -> Option<(f64, f64)> {
        let min = self.low.into_iter().fold(f64::INFINITY, f64::min);
        let max = self.high.into_iter().fold(f64::NEG_INFINITY, f64::max);
        (min <= max).then_some((
            if min == 0.0 { -0.0 } else { min },
            if max == 0.0 { 0.0 } else { max },
        ))
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

/// The column of these texts.
pub(super) fn texts(runs: &[(Option<String>, usize)]) -> Chunk {
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
    let places = Places {
        rows,
        valid: &valid,
    };
    let range = there().map(|(text, _)| text);
    let statistics = text_statistics(range.clone().min(), range.max(), nulls as u64);
    places.coded(there(), statistics, |text| text, write_text)
}

fn text_statistics(min: Option<&str>, max: Option<&str>, nulls: u64) -> Statistics {
    let (min, max) = (min.map(ByteArray::from), max.map(ByteArray::from));
    Statistics::byte_array(min, max, None, Some(nulls), false)
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn write_floats(values: &[f64], page: &mut Vec<u8>) {
    let mut bytes = [[0; size_of::<f64>()]; ROWS_AT_A_TIME];
    for values in values.chunks(ROWS_AT_A_TIME) {
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
