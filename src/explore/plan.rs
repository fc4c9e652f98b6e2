//! A sweep as a numbered list of runs that is never written down.
//!
//! Run `i` is computed from `i`: grid search reads it as a mixed-radix number
//! (last axis fastest, replications faster still), random search sends it
//! through a seeded [`Permutation`] of the grid first, list search takes a row.
//! A plan of a million million points costs what its axes cost.
//!
//! Numbers are positions in the space before constraints, so they stay what
//! they are whichever runs are excluded, completed before, or done elsewhere.
//! An excluded number yields no row; it is counted. Random search is different
//! in one respect: whoever asks for 500 samples wants 500 that satisfy the
//! constraints, so points that violate them are passed over while drawing, and
//! the ones drawn are remembered (8 bytes each).

use serde_json::Value;

use super::executor::{Task, Tasks};
use super::permutation::Permutation;
use crate::spec::{RunConfig, SearchConfig, SweepSpec};

/// Stream of the sweep seed that random search draws from.
const SAMPLING_STREAM: u64 = 0x0073_616d_706c_6573;

/// Draws allowed per sample asked for, before random search settles for fewer.
const DRAWS_PER_SAMPLE_LIMIT: u64 = 1000;

/// A sweep as runs by number.
#[derive(Debug, Clone)]
pub struct Plan {
    spec: SweepSpec,
    /// Names of the axes.
    columns: Vec<String>,
    points: Points,
}

/// Where the points of a plan come from.
#[derive(Debug, Clone)]
enum Points {
    /// All points of the grid.
    Grid(Grid),
    /// The first `samples` points in a seeded order.
    Random {
        grid: Grid,
        order: Permutation,
        samples: Samples,
    },
    /// Rows of values.
    List(Vec<Vec<Value>>),
}

/// Which positions of the seeded order are samples.
#[derive(Debug, Clone)]
enum Samples {
    /// The first so many: there is nothing they could violate.
    First(u64),
    /// These: the first that satisfy the constraints.
    Satisfying {
        positions: Vec<u64>,
        passed_over: u64,
    },
}

/// The cross product of some axes.
#[derive(Debug, Clone)]
struct Grid {
    axes: Vec<Vec<Value>>,
    len: u64,
}

impl Grid {
    /// The cross product of `axes`; none if it has more than 2^63 points.
    fn new(axes: Vec<Vec<Value>>) -> Option<Self> {
        let len = axes
            .iter()
            .try_fold(1u64, |product, axis| product.checked_mul(axis.len() as u64))
            .filter(|&len| len <= i64::MAX as u64)?;
        Some(Self { axes, len })
    }

    /// The values of point `index`, in the order of the axes; last axis fastest.
    fn point(&self, index: u64) -> Vec<Value> {
        let mut rest = index;
        let mut values: Vec<Value> = self
            .axes
            .iter()
            .rev()
            .map(|axis| {
                let digit = rest % axis.len() as u64;
                rest /= axis.len() as u64;
                axis[digit as usize].clone()
            })
            .collect();
        values.reverse();
        values
    }
}
