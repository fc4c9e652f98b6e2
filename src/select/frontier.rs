//! The Pareto frontier of points in any number of dimensions, less being better
//! in each.

use std::collections::BTreeMap;

use super::forest::Forest;

/// A number with the total order of [`f64::total_cmp`]; zeros are one value.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Which of `points` no other point dominates: is at least as good everywhere
/// and better somewhere. Equal points stand or fall together. A point with a
/// NaN is on no frontier and dominates nothing. Points have `dimensions`
/// coordinates each, one after the other; without dimensions all are equal.
///
/// Sorting makes every dominator come before what it dominates, so one sweep is
/// enough: up to three dimensions in O(n log n), above against the frontier so
/// far in trees.
pub fn pareto_frontier(points: &[f64], dimensions: usize, count: usize) -> Vec<bool> {
    if dimensions == 0 {
        return vec![true; count];
    }
    debug_assert_eq!(points.len(), dimensions * count);
    // Adding zero makes -0 into 0, so that both sort as one.
    let points: Vec<f64> = points.iter().map(|value| value + 0.0).collect();
    let point = |i: usize| &points[i * dimensions..(i + 1) * dimensions];
    let mut order: Vec<usize> = (0..count)
        .filter(|&i| point(i).iter().all(|value| !value.is_nan()))
        .collect();
    order.sort_by(|&a, &b| compare(point(a), point(b)));

    let mut front = Front::new(dimensions);
    let mut kept = vec![false; count];
    let mut before: Option<usize> = None;
    for i in order {
        kept[i] = match before {
            Some(b) if point(b) == point(i) => kept[b],
            _ => front.admit(point(i)),
        };
        before = Some(i);
    }
    kept
}

fn compare(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| a.total_cmp(b))
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

/// What has been admitted so far of distinct points in lexicographic order, as
/// far as it matters for those to come: their first coordinate is not smaller.
enum Front {
    /// One or two dimensions: the smallest last coordinate.
    Least(f64),
    /// Three: the staircase of second and third coordinate, falling.
    Staircase(BTreeMap<Ordered, f64>),
    /// More: all of them, without the first coordinate.
    All(Forest),
}

impl Front {
    fn new(dimensions: usize) -> Self {
        match dimensions {
            0..=2 => Self::Least(f64::NAN),
            3 => Self::Staircase(BTreeMap::new()),
            _ => Self::All(Forest::new(dimensions - 1)),
        }
    }

    /// Takes the point unless an earlier one dominates it.
    fn admit(&mut self, point: &[f64]) -> bool {
        let last = point[point.len() - 1];
        match self {
            // NaN: nothing admitted yet. The last coordinate must be strictly
            // smaller: the first is not, and the points are distinct.
            Self::Least(least) => {
                let better = least.is_nan() || (point.len() == 2 && last < *least);
                if better {
                    *least = last;
                }
                better
            }
            Self::Staircase(stairs) => admit_to_staircase(stairs, point[1], last),
            Self::All(front) => {
                let dominated = front.has_below(&point[1..]);
                if !dominated {
                    front.add(&point[1..]);
                }
                !dominated
            }
        }
    }
}

fn admit_to_staircase(stairs: &mut BTreeMap<Ordered, f64>, second: f64, third: f64) -> bool {
    let step = stairs.range(..=Ordered(second)).next_back();
    if step.is_some_and(|(_, &height)| height <= third) {
        return false;
    }
    let hidden: Vec<Ordered> = stairs
        .range(Ordered(second)..)
        .take_while(|(_, height)| **height >= third)
        .map(|(key, _)| *key)
        .collect();
    for key in hidden {
        stairs.remove(&key);
    }
    stairs.insert(Ordered(second), third);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brute_force(points: &[f64], dimensions: usize, count: usize) -> Vec<bool> {
        let point = |i: usize| &points[i * dimensions..(i + 1) * dimensions];
        let valid = |i: usize| point(i).iter().all(|v| !v.is_nan());
        let dominates = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
        };
        (0..count)
            .map(|i| valid(i) && !(0..count).any(|j| valid(j) && dominates(point(j), point(i))))
            .collect()
    }

    /// Few distinct values, so that ties and equal points are common.
    fn coordinate() -> impl Strategy<Value = f64> {
        prop_oneof![
            20 => (-3i32..6).prop_map(|v| f64::from(v) * 0.5),
            1 => Just(f64::NAN),
            1 => Just(-0.0),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]
        #[test]
        fn agrees_with_brute_force(
            dimensions in 1usize..6,
            values in prop::collection::vec(coordinate(), 0..150),
        ) {
            let count = values.len() / dimensions;
            let points = &values[..count * dimensions];
            prop_assert_eq!(
                pareto_frontier(points, dimensions, count),
                brute_force(points, dimensions, count)
            );
        }
    }

    /// As many as trees of several sizes hold, all of them on the frontier or nearly.
    #[test]
    fn large_frontiers_agree_with_brute_force() {
        for dimensions in 4..7 {
            let mut state = 7u64;
            let mut uniform = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 40) as f64
            };
            let points: Vec<f64> = (0..1000)
                .flat_map(|_| {
                    let mut point: Vec<f64> = (1..dimensions).map(|_| uniform()).collect();
                    point.push(-point.iter().sum::<f64>() + 0.3 * uniform());
                    point
                })
                .collect();
            let kept = pareto_frontier(&points, dimensions, 1000);
            assert_eq!(kept, brute_force(&points, dimensions, 1000));
            assert!(kept.iter().filter(|kept| **kept).count() > 300);
        }
    }

    #[test]
    fn equal_points_stay_together() {
        let kept = pareto_frontier(&[1.0, 2.0, 1.0, 2.0, 2.0, 2.0], 2, 3);
        assert_eq!(kept, [true, true, false]);
    }

    #[test]
    fn without_objectives_all_are_equal() {
        assert_eq!(pareto_frontier(&[], 0, 2), [true, true]);
    }
}
