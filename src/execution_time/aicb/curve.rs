//! A time as a function of one figure, from few points.

/// How a value relates to the points given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coverage {
    /// At a point.
    Exact,
    /// Between points.
    Between,
    /// Beyond them.
    Beyond,
}

/// Piecewise linear over its points; beyond them along the last two, but never
/// below the share of the nearest point that is proportional to the argument. A
/// single point scales upwards with the argument and stands as it is below.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// A curve through `points`; several values at one argument are averaged.
    /// None without points.
    pub(super) fn through(mut points: Vec<(f64, f64)>) -> Option<Self> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let merged: Vec<_> = points
            .chunk_by(|a, b| a.0 == b.0)
            .map(|same| {
                let sum: f64 = same.iter().map(|point| point.1).sum();
                (same[0].0, sum / same.len() as f64)
            })
            .collect();
        (!merged.is_empty()).then_some(Self { points: merged })
    }

    pub(super) fn at(&self, x: f64) -> (f64, Coverage) {
        let next = self.points.partition_point(|point| point.0 < x);
        if let Some(point) = self.points.get(next)
            && point.0 == x
        {
            return (point.1, Coverage::Exact);
        }
        let line = |a: (f64, f64), b: (f64, f64)| a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0);
        let count = self.points.len();
        if next > 0 && next < count {
            let value = line(self.points[next - 1], self.points[next]);
            return (value, Coverage::Between);
        }
        let nearest = self.points[next.min(count - 1)];
        let value = match count {
            1 => nearest.1 * (x / nearest.0).max(1.0),
            _ if next == 0 => {
                line(nearest, self.points[1]).clamp(nearest.1 * (x / nearest.0).min(1.0), nearest.1)
            }
            _ => line(self.points[count - 2], nearest).max(nearest.1),
        };
        (value, Coverage::Beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_between_and_beyond() {
        let curve = Curve::through(vec![(30.0, 5.0), (10.0, 3.0)]).unwrap();
        assert_eq!(curve.at(10.0), (3.0, Coverage::Exact));
        assert_eq!(curve.at(20.0), (4.0, Coverage::Between));
        assert_eq!(curve.at(50.0), (7.0, Coverage::Beyond));
        assert_eq!(curve.at(0.0), (2.0, Coverage::Beyond));
    }

    #[test]
    fn one_point_scales_up_only() {
        let curve = Curve::through(vec![(10.0, 4.0)]).unwrap();
        assert_eq!(curve.at(20.0).0, 8.0);
        assert_eq!(curve.at(5.0).0, 4.0);
        assert!(Curve::through(vec![]).is_none());
    }

    #[test]
    fn never_negative_below_a_steep_start() {
        let curve = Curve::through(vec![(100.0, 1.0), (200.0, 9.0)]).unwrap();
        assert_eq!(curve.at(50.0).0, 0.5);
    }
}
