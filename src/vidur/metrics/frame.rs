//! Tables on their way to CSV and Parquet.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};

use super::text::Text;
use crate::number::narrow;

/// Values of one column.
#[derive(Debug, Clone)]
pub(super) enum Values {
    /// Whole numbers.
    Ints(Vec<u64>),
    /// Numbers; NaN: blank.
    Floats(Vec<f64>),
    /// Names; none: blank.
    Names(Vec<Option<&'static str>>),
}

impl Values {
    /// Whole numbers, unless some are missing: then pandas takes them as floats.
    pub(super) fn of_counts(counts: Vec<Option<u64>>) -> Self {
        match counts.iter().copied().collect::<Option<Vec<u64>>>() {
            Some(whole) => Self::Ints(whole),
            None => {
                let float = |count: Option<u64>| count.map_or(f64::NAN, |c| c as f64);
                Self::Floats(counts.into_iter().map(float).collect())
            }
        }
    }

    fn put(&self, row: usize, text: &mut Text) {
        match self {
            Self::Ints(values) => text.int(values[row]),
            Self::Floats(values) => text.float(values[row]),
            Self::Names(values) => text.str(values[row].unwrap_or_default()),
        };
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Names(values) => values.len(),
        }
    }

    fn array(&self) -> ArrayRef {
        match self {
            Self::Ints(values) => Arc::new(int_array(values)),
            Self::Floats(values) => Arc::new(float_array(values.iter().copied())),
            Self::Names(values) => Arc::new(StringArray::from_iter(values.iter().copied())),
        }
    }

    pub(super) fn get(&self, row: usize) -> f64 {
        match self {
            Self::Ints(values) => values[row] as f64,
            Self::Floats(values) => values[row],
            Self::Names(_) => f64::NAN,
        }
    }
}

/// Named columns of equal length.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Numbers of the rows, where the file shows them (its first column, without
    /// a name).
    pub(super) index: Option<Vec<u64>>,
    pub(super) columns: Vec<(String, Values)>,
}

impl Frame {
    pub(super) fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, values)| values.len())
    }

    /// Every `step`-th row, if there are more than `subsamples`.
    pub(super) fn subsampled(self, subsamples: Option<u64>) -> Self {
        let rows = self.rows();
        let step = match subsamples {
            Some(wanted) if wanted > 0 && rows as u64 > wanted => rows / narrow::<usize, _>(wanted),
            _ => return self,
        };
        fn every<T: Copy>(values: Vec<T>, step: usize) -> Vec<T> {
            values.into_iter().step_by(step).collect()
        }
        let thinned = |values| match values {
            Values::Ints(values) => Values::Ints(every(values, step)),
            Values::Floats(values) => Values::Floats(every(values, step)),
            Values::Names(values) => Values::Names(every(values, step)),
        };
        Self {
            index: self.index.map(|index| every(index, step)),
            columns: (self.columns.into_iter())
                .map(|(name, values)| (name, thinned(values)))
                .collect(),
        }
    }

    /// Columns for Parquet; the index is not among them.
    pub(super) fn arrays(&self) -> Vec<(String, ArrayRef)> {
        let columns = self.columns.iter();
        columns
            .map(|(name, values)| (name.clone(), values.array()))
            .collect()
    }

    pub(super) fn to_csv(&self) -> Text {
        let rows = self.rows();
        let mut text = Text::with_capacity(64 + rows * self.columns.len() * 16);
        if self.index.is_some() {
            text.str(",");
        }
        for (position, (name, _)) in self.columns.iter().enumerate() {
            text.str(if position > 0 { "," } else { "" }).str(name);
        }
        text.str("\n");
        for row in 0..rows {
            if let Some(index) = &self.index {
                text.int(index[row]).str(",");
            }
            for (position, (_, values)) in self.columns.iter().enumerate() {
                if position > 0 {
                    text.str(",");
                }
                values.put(row, &mut text);
            }
            text.str("\n");
        }
        text
    }
}

/// Whole numbers as Parquet has them.
pub(super) fn int_array(values: &[u64]) -> Int64Array {
    values
        .iter()
        .map(|&value| Some(narrow::<i64, _>(value)))
        .collect()
}

/// Numbers as Parquet has them; NaN: null.
pub(super) fn float_array(values: impl Iterator<Item = f64>) -> Float64Array {
    values
        .map(|value| Some(value).filter(|v| !v.is_nan()))
        .collect()
}
