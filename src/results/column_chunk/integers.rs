//! Columns of whole numbers: as packed differences, or as runs where they rarely
//! change.

use parquet::basic::Encoding;
use parquet::file::statistics::Statistics;

use super::{Chunk, Places, VALUES_PER_RUN, write_varint};
use crate::number::narrow;

/// Values of a block of packed differences, and of each of its parts.
const BLOCK_VALUES: usize = 128;
const MINIBLOCK_VALUES: usize = 32;

/// Whole numbers, some of them null.
#[derive(Default)]
pub struct Integers {
    values: Vec<i64>,
    places: Places,
}

impl Integers {
    pub(super) fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    pub(super) fn extend(&mut self, more: &[Option<i64>]) {
        if more.iter().all(Option::is_some) {
            let values = more.iter().map(|value| value.unwrap_or_default());
            self.values.extend(values);
            self.places.extend_valid(more.len());
        } else {
            self.values.extend(more.iter().flatten());
            self.places.extend(more.iter().map(Option::is_some));
        }
    }

    pub(super) fn chunk(&self) -> Chunk {
        let values = &self.values;
        let range = values.first().map(|&first| {
            let values = values.iter();
            values.fold((first, first), |(min, max), &value| {
                (min.min(value), max.max(value))
            })
        });
        let (min, max) = range.unzip();
        let nulls = (self.places.rows - values.len()) as u64;
        let statistics = Statistics::int64(min, max, None, Some(nulls), false);
        if is_steady(values) {
            let runs = values.chunk_by(|a, b| a == b);
            let runs = runs.map(|run| (run[0], run.len()));
            return self.places.coded(
                runs,
                statistics,
                |value| value,
                |value, bytes| bytes.extend(value.to_le_bytes()),
            );
        }
        let mut page = self.places.levels();
        page.reserve(values.len() * 2);
        write_differences(values, &mut page);
        self.places
            .plain(page, Encoding::DELTA_BINARY_PACKED, statistics)
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.places.clear();
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

/// Small numbers of either sign as small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
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
        *above = difference.wrapping_sub(least).cast_unsigned();
    }
    write_varint(zigzag(least), page);
    let parts = above.chunks(MINIBLOCK_VALUES);
    let widths =
        parts.map(|part| u64::BITS - part.iter().fold(0, |all, x| all | x).leading_zeros());
    let widths: Vec<u32> = widths.collect();
    page.extend(widths.iter().map(|&width| narrow::<u8, _>(width)));
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
    for &value in values {
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
