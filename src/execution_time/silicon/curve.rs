//! One measured axis: points in ascending order, exact hits, straight lines
//! between neighbours, and beyond the ends the utilisation of the end points.

use super::{How, Reading};
use crate::number::narrow;

/// The keys of many curves and their points, in flat arrays.
#[derive(Debug)]
pub(super) struct CurveSet<K> {
    keys: Vec<K>,
    /// Where the points of each curve start; one more entry than keys.
    starts: Vec<u32>,
    coordinates: Vec<u32>,
    latencies_ms: Vec<f32>,
}

impl<K: Ord + Copy> CurveSet<K> {
    /// Sorts points into curves; of equal points the first stays.
    pub(super) fn build(mut points: Vec<(K, u32, f32)>) -> Self {
        points.sort_by_key(|&(key, x, _)| (key, x));
        points.dedup_by_key(|&mut (key, x, _)| (key, x));
        let curves = points.chunk_by(|a, b| a.0 == b.0);
        let keyed = curves.map(|curve| (curve[0].0, curve.iter().map(|&(_, x, y)| (x, y))));
        Self::of_curves(keyed)
    }

    /// From curves in ascending order of keys, each of distinct points in ascending
    /// order.
    pub(super) fn of_curves<C>(curves: impl Iterator<Item = (K, C)>) -> Self
    where
        C: IntoIterator<Item = (u32, f32)>,
    {
        let mut set = Self {
            keys: Vec::new(),
            starts: Vec::new(),
            coordinates: Vec::new(),
            latencies_ms: Vec::new(),
        };
        for (key, points) in curves {
            set.keys.push(key);
            set.starts.push(narrow::<u32, _>(set.coordinates.len()));
            for (x, latency_ms) in points {
                set.coordinates.push(x);
                set.latencies_ms.push(latency_ms);
            }
        }
        set.starts.push(narrow::<u32, _>(set.coordinates.len()));
        set
    }

    /// The curve of `key`.
    pub(super) fn get(&self, key: &K) -> Option<Curve<'_>> {
        let index = self.keys.binary_search(key).ok()?;
        Some(self.at(index))
    }

    /// All keys, ascending.
    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    /// The curve of the key of number `index`.
    pub(super) fn at(&self, index: usize) -> Curve<'_> {
        let range = self.starts[index] as usize..self.starts[index + 1] as usize;
        Curve {
            coordinates: &self.coordinates[range.clone()],
            latencies_ms: &self.latencies_ms[range],
        }
    }
}

/// One curve; never empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve<'a> {
    /// Ascending, distinct.
    pub coordinates: &'a [u32],
    /// One per coordinate.
    pub latencies_ms: &'a [f32],
}

impl Curve<'_> {
    /// Whether `x` lies within the measured range.
    pub(super) fn covers(&self, x: f64) -> bool {
        let (first, last) = (
            self.coordinates[0],
            self.coordinates[self.coordinates.len() - 1],
        );
        f64::from(first) <= x && x <= f64::from(last)
    }

    /// Time at `x`. Outside the range the median utilisation of the `tail` end
    /// points is held, utilisation being `speed_of_light_ms` over measured
    /// time. `None` if that has no positive value to hold.
    pub(super) fn lookup(
        &self,
        x: f64,
        tail: usize,
        speed_of_light_ms: impl Fn(f64) -> f64,
    ) -> Option<Reading> {
        let above = self.coordinates.partition_point(|&c| f64::from(c) < x);
        if above < self.coordinates.len() && f64::from(self.coordinates[above]) == x {
            return Some(Reading::new(self.latencies_ms[above], How::Measured));
        }
        if above == 0 || above == self.coordinates.len() {
            return self.hold(x, above == 0, tail, speed_of_light_ms);
        }
        let (x0, x1) = (
            f64::from(self.coordinates[above - 1]),
            f64::from(self.coordinates[above]),
        );
        let (y0, y1) = (
            f64::from(self.latencies_ms[above - 1]),
            f64::from(self.latencies_ms[above]),
        );
        let latency_ms = y0 + (y1 - y0) * ((x - x0) / (x1 - x0));
        Some(Reading::new(latency_ms, How::Interpolated))
    }

    fn hold(
        &self,
        x: f64,
        below: bool,
        tail: usize,
        speed_of_light_ms: impl Fn(f64) -> f64,
    ) -> Option<Reading> {
        /// More end points than any table asks for.
        const MOST: usize = 3;
        let count = tail.min(MOST).min(self.coordinates.len());
        let first = if below {
            0
        } else {
            self.coordinates.len() - count
        };
        let mut utilisations = [0.0; MOST];
        let mut found = 0;
        for index in first..first + count {
            let ideal = speed_of_light_ms(f64::from(self.coordinates[index]));
            let measured = f64::from(self.latencies_ms[index]);
            if ideal > 0.0 && measured > 0.0 {
                utilisations[found] = ideal / measured;
                found += 1;
            }
        }
        let ideal = speed_of_light_ms(x);
        if found == 0 || !(ideal.is_finite() && ideal > 0.0) {
            return None;
        }
        let held = &mut utilisations[..found];
        held.sort_by(f64::total_cmp);
        let median = (held[(found - 1) / 2] + held[found / 2]) / 2.0;
        Some(Reading::new(ideal / median, How::Extrapolated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> CurveSet<u8> {
        CurveSet::build(vec![(7, 20, 3.0), (7, 10, 1.0), (7, 10, 9.0), (9, 1, 0.5)])
    }

    #[test]
    fn finds_points_lines_and_held_utilisation() {
        let set = set();
        let curve = set.get(&7).unwrap();
        let at = |x| curve.lookup(x, 1, |x| x).unwrap();
        assert_eq!(at(10.0), Reading::new(1.0, How::Measured));
        assert_eq!(at(15.0), Reading::new(2.0, How::Interpolated));
        assert_eq!(at(40.0), Reading::new(6.0, How::Extrapolated));
        assert_eq!(at(5.0), Reading::new(0.5, How::Extrapolated));
        assert!(set.get(&8).is_none());
    }

    #[test]
    fn holds_the_median_of_the_tail() {
        let set = set();
        let curve = set.get(&7).unwrap();
        // Utilisations 10 / 1 and 20 / 3 of the ideal `x`; their mean is held.
        let held = curve.lookup(100.0, 3, |x| x).unwrap();
        assert_eq!(held.latency_ms, 100.0 / ((10.0 + 20.0 / 3.0) / 2.0));
        assert!(curve.lookup(100.0, 1, |_| 0.0).is_none());
    }
}
