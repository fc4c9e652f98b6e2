//! Matrix products: measured shapes scattered over output and input widths,
//! each with a curve over rows.
//!
//! A measured shape answers from its own curve. Another shape borrows the
//! utilisation of up to four measured shapes within two octaves that cover the
//! number of rows, weighted by inverse squared distance in log space. A shape
//! wider than everything measured in one direction (LM heads) may borrow from
//! further away in that direction.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::curve::Curve;
use super::{How, Reading};
use crate::number::{narrow, single};

/// Shapes that lend their utilisation.
const NEAREST: usize = 4;
/// How far away they may be, octaves.
const REACH: f64 = 2.0;
/// End points of a curve whose utilisation is held beyond it.
const TAIL: usize = 3;

/// Output and input width of a product.
type Shape = [u32; 2];

/// The products measured in one format.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// In file order, which decides between equally near shapes.
    shapes: Vec<Shape>,
    logs: Vec<[f64; 2]>,
    /// Indices into `shapes`, ascending by shape.
    by_shape: Vec<u32>,
    /// Where the points of each shape start; one more entry than shapes.
    starts: Vec<u32>,
    rows: Vec<u32>,
    latencies_ms: Vec<f32>,
    /// What [`Self::within_reach`] has found: a deployment asks for the same few
    /// shapes with every number of rows.
    neighbours: RwLock<HashMap<Shape, Neighbours>>,
}

/// Squared distances and indices of shapes, nearest first.
type Neighbours = Arc<[(f64, u32)]>;

impl Sites {
    /// From points (shape, rows, time) of which those of one shape stand
    /// together in ascending order of rows.
    pub(super) fn build(points: impl ExactSizeIterator<Item = (Shape, u32, f32)>) -> Self {
        let mut sites = Self {
            rows: Vec::with_capacity(points.len()),
            latencies_ms: Vec::with_capacity(points.len()),
            ..Self::default()
        };
        for (shape, rows, latency_ms) in points {
            if sites.shapes.last() != Some(&shape) {
                sites.shapes.push(shape);
                sites.logs.push(shape.map(|width| f64::from(width).log2()));
                sites.starts.push(narrow::<u32, _>(sites.rows.len()));
            }
            sites.rows.push(rows);
            sites.latencies_ms.push(latency_ms);
        }
        sites.starts.push(narrow::<u32, _>(sites.rows.len()));
        sites.by_shape = (0..narrow::<u32, _>(sites.shapes.len())).collect();
        sites
            .by_shape
            .sort_by_key(|&index| sites.shapes[index as usize]);
        sites
    }

    /// Raises every time to at least the ideal one.
    pub(super) fn floor(&mut self, speed_of_light_ms: impl Fn(f64, Shape) -> f64) {
        for index in 0..self.shapes.len() {
            for point in self.starts[index] as usize..self.starts[index + 1] as usize {
                let ideal = speed_of_light_ms(f64::from(self.rows[point]), self.shapes[index]);
                self.latencies_ms[point] = self.latencies_ms[point].max(single(ideal));
            }
        }
    }

    /// Time of a product with `rows` rows. `speed_of_light_ms` is the time an
    /// ideal device would take. `None` if nothing near was measured.
    pub(super) fn lookup(
        &self,
        rows: f64,
        shape: Shape,
        speed_of_light_ms: impl Fn(f64, Shape) -> f64,
    ) -> Option<Reading> {
        let own = self
            .by_shape
            .binary_search_by_key(&shape, |&index| self.shapes[index as usize]);
        if let Ok(place) = own {
            let curve = self.curve(self.by_shape[place] as usize);
            return curve.lookup(rows, TAIL, |rows| speed_of_light_ms(rows, shape));
        }
        let (lenders, far) = self.lenders(rows, shape)?;
        let (mut total, mut sum) = (0.0, 0.0);
        let mut how = if far {
            How::Extrapolated
        } else {
            How::Interpolated
        };
        for (squared_distance, index) in lenders.iter() {
            let lender = self.shapes[index];
            let ideal_there = |rows| speed_of_light_ms(rows, lender);
            let Some(found) = self.curve(index).lookup(rows, TAIL, ideal_there) else {
                continue;
            };
            how = how.max(found.how);
            let weight = 1.0 / (squared_distance + 1e-12);
            total += weight;
            sum += weight * ideal_there(rows) / found.latency_ms;
        }
        let ideal = speed_of_light_ms(rows, shape);
        (total > 0.0 && sum > 0.0).then(|| Reading::new(ideal / (sum / total), how))
    }

    fn curve(&self, index: usize) -> Curve<'_> {
        let range = self.starts[index] as usize..self.starts[index + 1] as usize;
        Curve {
            coordinates: &self.rows[range.clone()],
            latencies_ms: &self.latencies_ms[range],
        }
    }

    /// The shapes nearest to `shape`, and whether they lie further away than
    /// the reach.
    fn lenders(&self, rows: f64, shape: Shape) -> Option<(Nearest, bool)> {
        let target = shape.map(|width| f64::from(width).log2());
        let covering = |index: usize| self.curve(index).covers(rows);
        let mut near = Nearest::default();
        let neighbours = self.within_reach(shape, target);
        let neighbours = neighbours.iter().map(|&(far, index)| (far, index as usize));
        for (squared, index) in neighbours
            .filter(|&(_, index)| covering(index))
            .take(NEAREST)
        {
            near.insert(squared, index);
        }
        if near.count > 0 {
            return Some((near, false));
        }
        let mut all: Vec<usize> = (0..self.shapes.len()).filter(|&i| covering(i)).collect();
        if all.is_empty() {
            all = (0..self.shapes.len()).collect();
        }
        let beyond = self.only_beyond(&all, shape);
        for index in all {
            let away = [0, 1].map(|axis| (self.logs[index][axis] - target[axis]).powi(2));
            let checked = beyond.map_or(away[0] + away[1], |axis| away[1 - axis]);
            if checked <= REACH * REACH {
                near.insert(away[0] + away[1], index);
            }
        }
        (near.count > 0).then_some((near, beyond.is_some()))
    }

    /// The shapes within reach of `shape`, whose logarithms are `target`.
    fn within_reach(&self, shape: Shape, target: [f64; 2]) -> Neighbours {
        // Entries are whole whenever the lock is free, panic or not.
        let known = self.neighbours.read();
        if let Some(known) = known.unwrap_or_else(PoisonError::into_inner).get(&shape) {
            return Arc::clone(known);
        }
        let squared = |&[a, b]: &[f64; 2]| (a - target[0]).powi(2) + (b - target[1]).powi(2);
        let mut found: Vec<_> = self.logs.iter().map(squared).zip(0..).collect();
        found.retain(|&(squared, _)| squared <= REACH * REACH);
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let found: Neighbours = found.into();
        let known = self.neighbours.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.insert(shape, Arc::clone(&found));
        found
    }

    /// The one direction in which `shape` is wider than all of `candidates`;
    /// `None` if it is narrower anywhere, or wider in none or both.
    fn only_beyond(&self, candidates: &[usize], shape: Shape) -> Option<usize> {
        let range = |axis: usize| {
            let widths = candidates.iter().map(|&index| self.shapes[index][axis]);
            widths.fold((u32::MAX, 0), |(low, high), w| (low.min(w), high.max(w)))
        };
        let ranges = [range(0), range(1)];
        if (0..2).any(|axis| shape[axis] < ranges[axis].0) {
            return None;
        }
        match [0, 1].map(|axis| shape[axis] > ranges[axis].1) {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }
}

/// The nearest shapes so far: squared distance and index, nearest first, of
/// equally near ones the first found.
#[derive(Default)]
struct Nearest {
    found: [(f64, usize); NEAREST],
    count: usize,
}

impl Nearest {
    fn admits(&self, squared_distance: f64) -> bool {
        self.count < NEAREST || squared_distance < self.found[NEAREST - 1].0
    }

    fn insert(&mut self, squared_distance: f64, index: usize) {
        if !self.admits(squared_distance) {
            return;
        }
        let place = self.found[..self.count].partition_point(|f| f.0 <= squared_distance);
        self.count = (self.count + 1).min(NEAREST);
        self.found[place..self.count].rotate_right(1);
        self.found[place] = (squared_distance, index);
    }

    fn iter(&self) -> impl Iterator<Item = (f64, usize)> {
        self.found[..self.count].iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ideal(rows: f64, shape: Shape) -> f64 {
        rows * f64::from(shape[0]) * f64::from(shape[1]) * 1e-3
    }

    /// Shapes 64x64 (utilisation 1/2) and 256x64 (utilisation 1/4).
    fn sites() -> Sites {
        let mut points = Vec::new();
        for (shape, slow) in [([64, 64], 2.0), ([256, 64], 4.0)] {
            for rows in [1, 8] {
                points.push((shape, rows, (slow * ideal(f64::from(rows), shape)) as f32));
            }
        }
        Sites::build(points.into_iter())
    }

    #[test]
    fn measured_shapes_answer_themselves() {
        let found = sites().lookup(8.0, [256, 64], ideal).unwrap();
        assert_eq!(found.how, How::Measured);
        assert!((found.latency_ms / (4.0 * ideal(8.0, [256, 64])) - 1.0).abs() < 1e-6);
        assert_eq!(
            sites().lookup(9.0, [256, 64], ideal).unwrap().how,
            How::Extrapolated
        );
    }

    #[test]
    fn others_borrow_utilisation() {
        // 128 is one octave from both: utilisation is the mean of 1/2 and 1/4.
        let found = sites().lookup(4.0, [128, 64], ideal).unwrap();
        assert_eq!(found.how, How::Interpolated);
        assert!((found.latency_ms / (ideal(4.0, [128, 64]) / 0.375) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn only_wider_shapes_reach_far() {
        let found = sites().lookup(4.0, [4096, 64], ideal).unwrap();
        assert_eq!(found.how, How::Extrapolated);
        assert!(sites().lookup(4.0, [4, 64], ideal).is_none());
        assert!(sites().lookup(4.0, [4096, 4096], ideal).is_none());
    }
}
