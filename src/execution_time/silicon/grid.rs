//! Three measured axes, ragged: not every combination was measured (long
//! sequences only in small batches).
//!
//! Inside the data, each axis is bracketed in turn and blended in a straight
//! line, or in the square root of time along an axis where time grows as its
//! square. Where one side of a bracket has no data further in, the other
//! side's utilisation is held along that axis. Outside, the utilisation of the
//! four nearest points in log space is held, with weights that fade to zero at
//! the distance of the fifth, so that the estimate has no jumps.

use super::{How, Reading};
use crate::number::narrow;

/// Axes of a grid.
pub(super) const AXES: usize = 3;
/// Points whose utilisation is held outside the data.
const NEAREST: usize = 4;

/// Grids by key.
#[derive(Debug)]
pub(super) struct GridSet<K> {
    keys: Vec<K>,
    grids: Vec<Grid>,
}

impl<K: Ord + Copy> GridSet<K> {
    /// Sorts points into grids; of equal points the first stays.
    pub(super) fn build(mut points: Vec<(K, [u32; AXES], f32)>) -> Self {
        points.sort_by_key(|&(key, at, _)| (key, at));
        points.dedup_by_key(|&mut (key, at, _)| (key, at));
        let mut set = Self {
            keys: Vec::new(),
            grids: Vec::new(),
        };
        for slice in points.chunk_by(|a, b| a.0 == b.0) {
            set.keys.push(slice[0].0);
            set.grids
                .push(Grid::build(slice.iter().map(|&(_, at, y)| (at, y))));
        }
        set
    }

    /// The grid of `key`.
    pub(super) fn get(&self, key: &K) -> Option<&Grid> {
        let index = self.keys.binary_search(key).ok()?;
        Some(&self.grids[index])
    }

    /// All keys, ascending.
    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }
}

/// One grid: a tree of three levels in flat arrays.
#[derive(Debug, Default)]
pub(super) struct Grid {
    /// Coordinates per level, ascending within a parent.
    levels: [Vec<u32>; AXES],
    /// Logarithms (base 2) of the coordinates.
    logs: [Vec<f64>; AXES],
    /// Per level but the last: where the children of each node start, in the
    /// next level; one more entry than nodes.
    starts: [Vec<u32>; AXES - 1],
    latencies_ms: Vec<f32>,
}

/// A lookup in progress: the query and how to judge it.
struct Query<'a, F> {
    at: [f64; AXES],
    square_root_axis: Option<usize>,
    speed_of_light_ms: &'a F,
}

impl Grid {
    /// From distinct points in ascending order.
    fn build(points: impl Iterator<Item = ([u32; AXES], f32)>) -> Self {
        let mut grid = Self::default();
        let mut previous: Option<[u32; AXES]> = None;
        for (at, latency_ms) in points {
            let shared = previous.map_or(0, |p| (0..AXES).take_while(|&i| p[i] == at[i]).count());
            for (level, &value) in at.iter().enumerate().skip(shared) {
                if level + 1 < AXES {
                    let children = narrow::<u32, _>(grid.levels[level + 1].len());
                    grid.starts[level].push(children);
                }
                grid.levels[level].push(value);
                grid.logs[level].push(log2(f64::from(value)));
            }
            grid.latencies_ms.push(latency_ms);
            previous = Some(at);
        }
        for level in 0..AXES - 1 {
            let end = narrow::<u32, _>(grid.levels[level + 1].len());
            grid.starts[level].push(end);
        }
        grid
    }

    /// Time at `at`. `speed_of_light_ms` is the time an ideal device would
    /// take; `square_root_axis` names the axis blended in square roots.
    /// `None` if there is nothing to hold on to.
    pub(super) fn lookup<F: Fn([f64; AXES]) -> f64>(
        &self,
        at: [f64; AXES],
        square_root_axis: Option<usize>,
        speed_of_light_ms: F,
    ) -> Option<Reading> {
        let query = Query {
            at,
            square_root_axis,
            speed_of_light_ms: &speed_of_light_ms,
        };
        let all = 0..self.levels[0].len();
        self.inside(&query, 0, all).or_else(|| self.hold(&query))
    }

    /// Blend within the data; `None` if the query lies outside.
    fn inside<F: Fn([f64; AXES]) -> f64>(
        &self,
        query: &Query<'_, F>,
        axis: usize,
        nodes: std::ops::Range<usize>,
    ) -> Option<Reading> {
        let below = |index: usize| {
            if axis + 1 == AXES {
                return Some(Reading::new(self.latencies_ms[index], How::Measured));
            }
            let starts = &self.starts[axis];
            self.inside(
                query,
                axis + 1,
                starts[index] as usize..starts[index + 1] as usize,
            )
        };
        let keys = &self.levels[axis][nodes.clone()];
        let x = query.at[axis];
        let above = keys.partition_point(|&key| f64::from(key) < x);
        if above < keys.len() && f64::from(keys[above]) == x {
            return below(nodes.start + above);
        }
        if above == 0 || above == keys.len() {
            return None;
        }
        let (x0, x1) = (f64::from(keys[above - 1]), f64::from(keys[above]));
        let latency_ms = match (below(nodes.start + above - 1), below(nodes.start + above)) {
            (None, None) => return None,
            (Some(low), None) => query.carry(low.latency_ms, axis, x0),
            (None, Some(high)) => query.carry(high.latency_ms, axis, x1),
            (Some(low), Some(high)) => {
                let weight = (x - x0) / (x1 - x0);
                let blend = |a: f64, b: f64| a + (b - a) * weight;
                if query.square_root_axis == Some(axis) {
                    blend(low.latency_ms.sqrt(), high.latency_ms.sqrt()).powi(2)
                } else {
                    blend(low.latency_ms, high.latency_ms)
                }
            }
        };
        Some(Reading::new(latency_ms, How::Interpolated))
    }

    /// Utilisation of the nearest points, held.
    fn hold<F: Fn([f64; AXES]) -> f64>(&self, query: &Query<'_, F>) -> Option<Reading> {
        let nearest = self.nearest(query);
        let support = nearest.get(NEAREST).map(|leaf| leaf.distance);
        let anchors = &nearest[..nearest.len().min(NEAREST)];
        let weight = |distance: f64| match support {
            None => 1.0 / (distance * distance + 1e-12),
            Some(radius) => ((radius - distance) / (radius * distance + 1e-12)).powi(2),
        };
        let total: f64 = anchors.iter().map(|leaf| weight(leaf.distance)).sum();
        // All anchors as far as the fifth point: then they count alike.
        let share = |leaf: &Leaf| match total > 0.0 {
            true => weight(leaf.distance) / total,
            false => 1.0 / anchors.len() as f64,
        };
        let utilisation: f64 = anchors
            .iter()
            .map(|leaf| share(leaf) * leaf.utilisation)
            .sum();
        let ideal = (query.speed_of_light_ms)(query.at);
        (utilisation > 0.0 && ideal.is_finite() && ideal > 0.0)
            .then(|| Reading::new(ideal / utilisation, How::Extrapolated))
    }

    /// The five points nearest to the query in log space that have a
    /// utilisation, nearest first.
    fn nearest<F: Fn([f64; AXES]) -> f64>(&self, query: &Query<'_, F>) -> Vec<Leaf> {
        let target = query.at.map(log2);
        let squared = |axis: usize, node: usize| (self.logs[axis][node] - target[axis]).powi(2);
        let children = |axis: usize, node: usize| {
            self.starts[axis][node] as usize..self.starts[axis][node + 1] as usize
        };
        let mut best: Vec<Leaf> = Vec::with_capacity(NEAREST + 2);
        for a in 0..self.levels[0].len() {
            let outer = squared(0, a);
            for b in children(0, a) {
                let middle = outer + squared(1, b);
                for c in children(1, b) {
                    let distance = (middle + squared(2, c)).sqrt();
                    let full = best.len() > NEAREST;
                    if full && distance >= best[NEAREST].distance {
                        continue;
                    }
                    let at = [self.levels[0][a], self.levels[1][b], self.levels[2][c]];
                    let ideal = (query.speed_of_light_ms)(at.map(f64::from));
                    let measured = f64::from(self.latencies_ms[c]);
                    if !(ideal.is_finite() && ideal > 0.0 && measured > 0.0) {
                        continue;
                    }
                    let place = best.partition_point(|leaf| leaf.distance <= distance);
                    let utilisation = ideal / measured;
                    best.insert(
                        place,
                        Leaf {
                            distance,
                            utilisation,
                        },
                    );
                    best.truncate(NEAREST + 1);
                }
            }
        }
        best
    }
}

/// A measured point seen from a query.
struct Leaf {
    distance: f64,
    utilisation: f64,
}

impl<F: Fn([f64; AXES]) -> f64> Query<'_, F> {
    /// Carries a time found at `from` on `axis` to the query at equal
    /// utilisation.
    fn carry(&self, latency_ms: f64, axis: usize, from: f64) -> f64 {
        let mut there = self.at;
        there[axis] = from;
        let (ideal, ideal_there) = (
            (self.speed_of_light_ms)(self.at),
            (self.speed_of_light_ms)(there),
        );
        if ideal > 0.0 && ideal_there > 0.0 && (ideal / ideal_there).is_finite() {
            latency_ms * (ideal / ideal_there)
        } else {
            latency_ms
        }
    }
}

fn log2(x: f64) -> f64 {
    x.max(1e-12).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time `a * b * b * c`, with b = 20 measured for c = 1 only.
    fn grid() -> Grid {
        let mut points = Vec::new();
        for a in [1u32, 2] {
            for (b, c) in [(5u32, 1u32), (5, 2), (10, 1), (10, 2), (20, 1)] {
                points.push(((), [a, b, c], (a * b * b * c) as f32));
            }
        }
        GridSet::build(points).grids.remove(0)
    }

    fn ideal(at: [f64; 3]) -> f64 {
        at[0] * at[1] * at[1] * at[2] / 2.0
    }

    #[test]
    fn blends_each_axis() {
        let grid = grid();
        let at = |a, b, c| grid.lookup([a, b, c], Some(1), ideal).unwrap();
        assert_eq!(at(2.0, 10.0, 2.0), Reading::new(400.0, How::Measured));
        // Squares are straight in square roots.
        assert_eq!(at(1.0, 7.0, 1.0).latency_ms.round(), 49.0);
        assert_eq!(at(1.5, 10.0, 1.5).latency_ms, 225.0);
        assert_eq!(at(1.5, 10.0, 1.5).how, How::Interpolated);
        let straight = grid.lookup([1.0, 7.5, 1.0], None, ideal).unwrap();
        assert_eq!(straight.latency_ms, (25.0 + 100.0) / 2.0);
    }

    #[test]
    fn carries_utilisation_into_missing_corners() {
        let grid = grid();
        // Between b = 10 and 20 at c = 2 only b = 10 has data.
        let ragged = grid.lookup([1.0, 15.0, 2.0], Some(1), ideal).unwrap();
        assert_eq!(ragged, Reading::new(450.0, How::Interpolated));
        let beyond = grid.lookup([4.0, 40.0, 3.0], Some(1), ideal).unwrap();
        assert_eq!(beyond.how, How::Extrapolated);
        // Utilisation is one half everywhere.
        assert!((beyond.latency_ms - 2.0 * ideal([4.0, 40.0, 3.0])).abs() < 1e-9);
        assert!(grid.lookup([4.0, 40.0, 3.0], None, |_| 0.0).is_none());
    }
}
