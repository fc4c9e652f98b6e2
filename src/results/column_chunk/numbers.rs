//! Columns of measurements: as they are, in memory that is written as it is, or as
//! runs where they rarely change.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::file::statistics::Statistics;

use super::{Chunk, LEVELS_ROOM, Places, ROWS_AT_A_TIME, VALUES_PER_RUN};

/// Numbers of which those that are not finite are null. Whether they rarely change
/// shows as they come; if not, they go straight into their page.
pub struct Numbers {
    /// Room for the page's levels, then its values.
    page: Vec<u8>,
    /// The same memory while a page is being written.
    lent: Bytes,
    /// Values that are not null.
    present: usize,
    places: Places,
    extremes: Extremes,
    /// Bits of the values and how often each follows itself.
    runs: Vec<(u64, usize)>,
    /// Whether they changed too often for that.
    is_plain: bool,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            page: vec![0; LEVELS_ROOM],
            lent: Bytes::new(),
            present: 0,
            places: Places::default(),
            extremes: Extremes::default(),
            runs: Vec::new(),
            is_plain: false,
        }
    }
}

impl Numbers {
    pub(super) fn reserve(&mut self, rows: usize) {
        self.page.reserve(rows * size_of::<f64>());
    }

    /// Adds at most [`ROWS_AT_A_TIME`] numbers.
    pub(super) fn extend(&mut self, values: &[f64]) {
        match self.extremes.with(values) {
            Some(extremes) => {
                self.places.extend_valid(values.len());
                self.extend_present(values, extremes);
            }
            None => self.extend_finite(values),
        }
    }

    /// Adds numbers some of which are not finite.
    fn extend_finite(&mut self, values: &[f64]) {
        self.places
            .extend(values.iter().map(|value| value.is_finite()));
        let mut finite = [0.0; ROWS_AT_A_TIME];
        let mut count = 0;
        for value in values {
            finite[count] = *value;
            count += usize::from(value.is_finite());
        }
        let finite = &finite[..count];
        let extremes = self.extremes.with(finite).unwrap_or(self.extremes);
        self.extend_present(finite, extremes);
    }

    fn extend_present(&mut self, values: &[f64], extremes: Extremes) {
        self.extremes = extremes;
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

    pub(super) fn chunk(&mut self) -> Chunk {
        if self.runs.len() > 1 + self.present / VALUES_PER_RUN {
            self.make_plain();
        }
        let nulls = (self.places.rows - self.present) as u64;
        let (min, max) = self.extremes.ends().unzip();
        let statistics = Statistics::double(min, max, None, Some(nulls), false);
        if self.is_plain {
            let page = with_levels(std::mem::take(&mut self.page), &self.places.levels());
            self.lent = page.clone();
            return self.places.plain(page, Encoding::PLAIN, statistics);
        }
        self.places.coded(
            self.runs.iter().copied(),
            statistics,
            |bits| bits,
            |bits, bytes| bytes.extend(bits.to_le_bytes()),
        )
    }

    pub(super) fn clear(&mut self) {
        if !self.lent.is_empty() {
            // Nobody else has it any more, so that this moves nothing.
            self.lent.clear();
            self.page = Vec::from(std::mem::take(&mut self.lent));
        }
        self.page.clear();
        self.page.resize(LEVELS_ROOM, 0);
        self.places.clear();
        self.runs.clear();
        self.present = 0;
        self.extremes = Extremes::default();
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
struct Extremes {
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

impl Default for Extremes {
    fn default() -> Self {
        Self {
            low: [f64::INFINITY; LANES],
            high: [f64::NEG_INFINITY; LANES],
        }
    }
}

impl Extremes {
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

/// Adds at most [`ROWS_AT_A_TIME`] numbers as they are.
fn write_floats(values: &[f64], page: &mut Vec<u8>) {
    let mut bytes = [[0; size_of::<f64>()]; ROWS_AT_A_TIME];
    for (bytes, value) in bytes.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    page.extend_from_slice(bytes[..values.len()].as_flattened());
}
