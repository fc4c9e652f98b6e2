//! What a report knows of a deployment in numbers.

use std::sync::LazyLock;

use serde::{Serialize, Serializer};

use crate::results::schema::{ColumnType, METRIC_COLUMNS};

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let numeric = METRIC_COLUMNS
        .iter()
        .filter(|c| matches!(c.column_type(), ColumnType::Int | ColumnType::Float));
    numeric.map(|c| c.name).collect()
});

/// Every numeric column of the summary; none where it never happened. Serialises as a
/// mapping by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// In the order of the names.
    values: Vec<Option<f64>>,
}

impl Figures {
    /// Of these values, in the order of [`Self::names`].
    pub(super) fn new(values: impl Iterator<Item = Option<f64>>) -> Self {
        Self {
            values: values.collect(),
        }
    }

    /// Names of the columns, in the order of the summary.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The values, in the order of [`Self::names`].
    pub fn values(&self) -> &[Option<f64>] {
        &self.values
    }

    /// A figure; none if there is no such column, or no value in it.
    pub fn get(&self, name: &str) -> Option<f64> {
        let position = Self::names().iter().position(|known| *known == name)?;
        self.values[position]
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Self::names().iter().zip(&self.values))
    }
}
