//! What is drawn: one chart a metric, as a picture and as a page.

use serde::Serialize;

use super::frame::Frame;
use crate::number::whole_usize;

/// Points of a line beyond which it is thinned out.
const POINTS_MAX: usize = 1_500;
/// Bars of a histogram, at most.
const BINS: usize = 25;

/// One chart.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Chart {
    /// Name of its files.
    pub(super) name: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    pub(super) marks: Marks,
}

/// What stands in it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Marks {
    /// Points, joined in order.
    Line(Vec<(f64, f64)>),
    /// Bars from one value to another: start, end, height.
    Histogram(Vec<(f64, f64, f64)>),
    /// Named bars.
    Bars(Vec<(String, f64)>),
}

impl Chart {
    /// A line through the columns `x` and `y` of a table.
    pub(super) fn line(name: &str, frame: &Frame, [x, y]: [usize; 2], labels: [&str; 2]) -> Self {
        let (x, y) = (&frame.columns[x].1, &frame.columns[y].1);
        let points = (0..frame.rows()).map(|row| (x.get(row), y.get(row)));
        let mut points: Vec<(f64, f64)> = points.collect();
        // Batches of several replicas do not end in the order of their numbers.
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            name: name.to_owned(),
            x_label: labels[0].to_owned(),
            y_label: labels[1].to_owned(),
            marks: Marks::Line(thinned(&points)),
        }
    }

    /// How often values occur.
    pub(super) fn histogram(name: &str, values: &[f64]) -> Self {
        Self {
            name: name.to_owned(),
            x_label: name.to_owned(),
            y_label: "count".to_owned(),
            marks: Marks::Histogram(bins(values)),
        }
    }
}

/// As many points as a chart can show: of each stretch the lowest and the highest.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS_MAX / 2).max(1);
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(POINTS_MAX);
    for part in points.chunks(stretch) {
        let place = |best: fn(f64, f64) -> bool| {
            (1..part.len()).fold(0, |place, next| {
                if best(part[next].1, part[place].1) {
                    next
                } else {
                    place
                }
            })
        };
        let (low, high) = (place(|a, b| a < b), place(|a, b| a > b));
        kept.push(part[low.min(high)]);
        if low != high {
            kept.push(part[low.max(high)]);
        }
    }
    kept
}

/// Bins of a round width over the values.
fn bins(values: &[f64]) -> Vec<(f64, f64, f64)> {
    let (low, high) = range(values.iter().copied());
    let width = round_step((high - low) / BINS as f64);
    let first = (low / width).floor();
    let mut counts = vec![0.0; whole_usize((high / width).floor() - first) + 1];
    for value in values {
        let bin = whole_usize((value / width).floor() - first);
        counts[bin] += 1.0;
    }
    let edge = |bin: usize| (first + bin as f64) * width;
    (counts.into_iter().enumerate())
        .map(|(bin, count)| (edge(bin), edge(bin + 1), count))
        .collect()
}

/// Smallest and largest; (0, 0) of nothing.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let both = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if both.0 <= both.1 { both } else { (0.0, 0.0) }
}

/// The next 1, 2 or 5 times a power of ten that is not below `least`; 1 for 0.
pub(super) fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let fits = |factor: &f64| factor * power >= least * (1.0 - 1e-9);
    [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_peaks() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        points[777].1 = -9.0;
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS_MAX);
        assert!(kept.contains(&(54_321.0, 9.0)) && kept.contains(&(777.0, -9.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn bins_hold_every_value_once() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * i % 977) * 0.37).collect();
        let bins = bins(&values);
        assert_eq!(bins.iter().map(|bin| bin.2).sum::<f64>(), 1000.0);
        assert!(bins.len() <= BINS + 1, "{}", bins.len());
        assert_eq!(super::bins(&[3.0, 3.0]), [(3.0, 4.0, 2.0)]);
        assert!(super::bins(&[]).iter().all(|bin| bin.2 == 0.0));
    }

    #[test]
    fn steps_are_round() {
        let steps = [0.0, 0.7, 1.0, 1.1, 3.0, 6.0, 0.013].map(round_step);
        assert_eq!(steps, [1.0, 1.0, 1.0, 2.0, 5.0, 10.0, 0.02]);
    }
}
