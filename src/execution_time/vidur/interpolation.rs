//! Interpolation between measured points: deterministic, exact at what was
//! measured, and going on sensibly beyond it.
//!
//! Repeated measurements count by their median. One feature: straight lines
//! between neighbours. Two: the grid of all values of either feature is filled
//! in once, and look-ups are bilinear in it. A grid point without a
//! measurement is estimated along its row, along its column and, where
//! measurements are scattered, from its nearest neighbours; each estimate
//! counts by how well it does at the measured points around (every one left
//! out in turn) and by how far its neighbours are apart. So a jump in the times
//! (another kernel, one more wave of thread blocks) is not smeared over rows
//! that do not have it.
//!
//! Times are proportional to work far from the origin, `a + b * work`, with
//! - tokens, or requests, for one feature;
//! - requests times context for decode attention;
//! - chunk times (context + chunk / 2) for prompt attention: the pairs of
//!   tokens that a causal mask leaves.
//!
//! Beyond the measured range the nearest time is scaled by the ratio of this
//! line. Prompt attention is interpolated relative to it throughout.

use super::{Op, Samples};
use crate::number::narrow;

/// `fixed_ms + per_unit_ms * work`, least squares of the relative error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct WorkLine {
    pub(super) fixed_ms: f64,
    pub(super) per_unit_ms: f64,
}

impl WorkLine {
    fn at(&self, work: f64) -> f64 {
        self.fixed_ms + self.per_unit_ms * work
    }

    /// Time at `work` over time at `reference`; 1 if there is no line.
    fn ratio(&self, work: f64, reference: f64) -> f64 {
        let at = self.at(reference);
        if at > 0.0 { self.at(work) / at } else { 1.0 }
    }

    /// Neither part is negative: times do not fall with work.
    fn fit(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        // Sums of products of 1/t and work/t, which should add up to 1.
        let mut sums = [0.0; 5];
        for (work, time_ms) in points.filter(|(_, time_ms)| *time_ms > 0.0) {
            let (u, v) = (1.0 / time_ms, work / time_ms);
            for (sum, term) in sums.iter_mut().zip([u * u, u * v, v * v, u, v]) {
                *sum += term;
            }
        }
        let [uu, uv, vv, u, v] = sums;
        let determinant = uu * vv - uv * uv;
        let safe = |numerator: f64, denominator: f64| {
            if denominator > 0.0 {
                numerator / denominator
            } else {
                0.0
            }
        };
        let line = Self {
            fixed_ms: safe(u * vv - v * uv, determinant),
            per_unit_ms: safe(v * uu - u * uv, determinant),
        };
        if determinant <= 1e-12 * uu * vv || line.per_unit_ms < 0.0 {
            return Self {
                fixed_ms: safe(u, uu),
                per_unit_ms: 0.0,
            };
        }
        if line.fixed_ms < 0.0 {
            return Self {
                fixed_ms: 0.0,
                per_unit_ms: safe(v, vv),
            };
        }
        line
    }
}

/// The pairs, or rows, that a point of `op` stands for.
fn work(op: Op, point: [f64; 2]) -> f64 {
    match op {
        Op::AttnDecode => point[0] * point[1],
        Op::AttnPrefill => point[1] * (point[0] + point[1] / 2.0),
        _ => point[0],
    }
}

/// Features as they are interpolated: chunks, not their squares.
fn coordinates(op: Op, point: [f64; 2]) -> [f64; 2] {
    match op {
        Op::AttnPrefill => [point[0], point[1].sqrt()],
        _ => point,
    }
}

/// Times of one operator on a filled-in grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Surface {
    pub(super) op: Op,
    /// Ascending values of each feature; one value for a feature not there.
    pub(super) axes: [Vec<f64>; 2],
    /// By first feature, then second: times, ms, or times over the work line.
    pub(super) values: Vec<f64>,
    pub(super) line: WorkLine,
}

impl Surface {
    /// Fills in the grid.
    pub fn fit(samples: &Samples) -> Self {
        let op = samples.op;
        let points = medians(samples);
        let line = WorkLine::fit(points.iter().map(|(x, time_ms)| (work(op, *x), *time_ms)));
        let axes = [0, 1].map(|axis| {
            let mut values: Vec<f64> = points.iter().map(|(x, _)| x[axis]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values
        });
        let mut surface = Self {
            op,
            values: Vec::new(),
            axes,
            line,
        };
        surface.values = if samples.dimensions() == 1 {
            points.iter().map(|(_, time_ms)| *time_ms).collect()
        } else {
            Gaps::new(&surface, &points).fill()
        };
        surface
    }

    /// Whether values are relative to the work line.
    fn relative(&self) -> bool {
        self.op == Op::AttnPrefill && self.line.at(0.0) > 0.0
    }

    /// Time at a point given by its features, ms.
    pub fn predict(&self, point: [f64; 2]) -> f64 {
        self.at(coordinates(self.op, point))
    }

    /// Time at a point given by coordinates, ms.
    pub(super) fn at(&self, point: [f64; 2]) -> f64 {
        let [(row, down, first), (column, across, second)] =
            [0, 1].map(|axis| place(&self.axes[axis], point[axis]));
        let width = self.axes[1].len();
        let start = row * width + column;
        let along = |start: usize| match across {
            0.0 => self.values[start],
            _ => self.values[start] + (self.values[start + 1] - self.values[start]) * across,
        };
        let mut value = along(start);
        if down > 0.0 {
            value += (along(start + width) - value) * down;
        }
        let (nearest, asked) = (work(self.op, [first, second]), work(self.op, point));
        if self.relative() {
            value * self.line.at(asked)
        } else if asked > nearest {
            value * self.line.ratio(asked, nearest)
        } else {
            value
        }
    }
}

/// Left neighbour on an axis, how far between it and the next, and the value
/// itself, held within the axis. Below the axis the line is not followed down:
/// launching a kernel takes its time however little there is to do.
fn place(axis: &[f64], x: f64) -> (usize, f64, f64) {
    let last = axis.len() - 1;
    if x >= axis[last] {
        return (last, 0.0, axis[last]);
    }
    if x <= axis[0] {
        return (0, 0.0, axis[0]);
    }
    let next = axis.partition_point(|value| *value <= x);
    let (low, high) = (axis[next - 1], axis[next]);
    (next - 1, (x - low) / (high - low), x)
}

/// Points in coordinates, in ascending order, with the median of their times.
fn medians(samples: &Samples) -> Vec<([f64; 2], f64)> {
    let coordinate = |point: &[f64; 2]| coordinates(samples.op, *point);
    let mut rows: Vec<([f64; 2], f64)> = samples
        .points
        .iter()
        .map(coordinate)
        .zip(samples.times_ms.iter().copied())
        .collect();
    rows.sort_by(|(a, s), (b, t)| {
        a[0].total_cmp(&b[0])
            .then(a[1].total_cmp(&b[1]))
            .then(s.total_cmp(t))
    });
    rows.chunk_by(|(a, _), (b, _)| a == b)
        .map(|equal| {
            let (low, high) = (equal[(equal.len() - 1) / 2].1, equal[equal.len() / 2].1);
            (equal[0].0, (low + high) / 2.0)
        })
        .collect()
}

/// Nearest neighbours asked.
const NEIGHBOURS: usize = 6;
/// Estimates whose weights differ only by less than this error, relative, count
/// alike: measurements are not better.
const NOISE: f64 = 0.005;
/// Error assumed where nothing is known.
const UNKNOWN: f64 = 0.5;

/// Filling-in of a grid.
struct Gaps<'a> {
    surface: &'a Surface,
    /// Measured points: place on the grid, coordinates, value.
    places: Vec<[usize; 2]>,
    points: Vec<[f64; 2]>,
    values: Vec<f64>,
    /// Measured points of every row, by column; of every column, by row.
    lines: [Vec<Vec<u32>>; 2],
    /// Logarithms that distances to neighbours are measured in; empty if
    /// neighbours are not asked.
    positions: Vec<[f64; 2]>,
    /// How much the distance of an estimate's neighbours counts.
    gap_weight: f64,
}

/// A value, how far its neighbours are apart, and who they are.
#[derive(Debug, Clone, Default)]
struct Estimate {
    value: f64,
    gap: f64,
    from: [Option<u32>; 2],
}

impl<'a> Gaps<'a> {
    fn new(surface: &'a Surface, measured: &[([f64; 2], f64)]) -> Self {
        let points: Vec<[f64; 2]> = measured.iter().map(|(point, _)| *point).collect();
        let rank = |axis: usize, x: f64| surface.axes[axis].partition_point(|value| *value < x);
        let places: Vec<[usize; 2]> = points
            .iter()
            .map(|point| [rank(0, point[0]), rank(1, point[1])])
            .collect();
        let mut lines = [0, 1].map(|axis| vec![Vec::new(); surface.axes[axis].len()]);
        for (index, place) in places.iter().enumerate() {
            // Points are in order of rows and columns, so lines are sorted.
            lines[0][place[0]].push(narrow::<u32, _>(index));
            lines[1][place[1]].push(narrow::<u32, _>(index));
        }
        let relative = surface.relative();
        let scale = |point: &[f64; 2]| {
            if relative {
                surface.line.at(work(surface.op, *point))
            } else {
                1.0
            }
        };
        Self {
            values: measured
                .iter()
                .map(|(x, time_ms)| time_ms / scale(x))
                .collect(),
            // Chunks and contexts are measured in pairs that fill half of the
            // grid at best; decodes on a grid whose rows differ by whole waves,
            // where neighbours in other rows only blur.
            positions: match surface.op {
                Op::AttnPrefill => points.iter().map(|point| position(*point)).collect(),
                _ => Vec::new(),
            },
            gap_weight: if surface.op == Op::AttnPrefill {
                0.3
            } else {
                1.0
            },
            surface,
            places,
            points,
            lines,
        }
    }

    fn fill(&self) -> Vec<f64> {
        let [rows, columns] = [0, 1].map(|axis| self.surface.axes[axis].len());
        let mut values = vec![f64::NAN; rows * columns];
        for (place, value) in self.places.iter().zip(&self.values) {
            values[place[0] * columns + place[1]] = *value;
        }
        if self.places.len() == values.len() {
            return values;
        }
        let errors: Vec<[f64; 3]> = (0..self.places.len())
            .map(|index| self.errors_at(index))
            .collect();
        for row in 0..rows {
            for column in 0..columns {
                let value = &mut values[row * columns + column];
                if value.is_nan() {
                    *value = self.blend([row, column], &errors);
                }
            }
        }
        values
    }

    /// Relative error of each kind of estimate at a measured point, that point
    /// left out.
    fn errors_at(&self, index: usize) -> [f64; 3] {
        let truth = self.values[index];
        self.estimates(self.places[index], Some(narrow::<u32, _>(index)))
            .map(|estimate| match estimate {
                Some(estimate) if truth > 0.0 => (estimate.value / truth - 1.0).abs().min(UNKNOWN),
                _ => UNKNOWN,
            })
    }

    fn blend(&self, place: [usize; 2], errors: &[[f64; 3]]) -> f64 {
        let estimates = self.estimates(place, None);
        let around: Vec<u32> = estimates
            .iter()
            .flatten()
            .flat_map(|estimate| estimate.from.into_iter().flatten())
            .collect();
        let (mut sum, mut weights) = (0.0, 0.0);
        for (kind, estimate) in estimates.iter().enumerate() {
            let Some(estimate) = estimate else { continue };
            let squares = around
                .iter()
                .map(|point| errors[*point as usize][kind].powi(2));
            let error = squares.sum::<f64>() / around.len().max(1) as f64;
            let gap = self.gap_weight * estimate.gap / estimate.value.max(f64::MIN_POSITIVE);
            let weight = 1.0 / (error + gap * gap + NOISE * NOISE);
            sum += weight * estimate.value;
            weights += weight;
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    }

    /// Along the row, along the column, from neighbours; without the point
    /// `but`.
    fn estimates(&self, place: [usize; 2], but: Option<u32>) -> [Option<Estimate>; 3] {
        [
            self.along(0, place, but),
            self.along(1, place, but),
            self.by_neighbours(place, but),
        ]
    }

    fn along(&self, axis: usize, place: [usize; 2], but: Option<u32>) -> Option<Estimate> {
        let line = &self.lines[axis][place[axis]];
        let other = 1 - axis;
        let rank = |point: &u32| self.places[*point as usize][other];
        let next = line.partition_point(|point| rank(point) < place[other]);
        let before = line[..next].last().copied();
        let mut after = line[next..]
            .iter()
            .copied()
            .filter(|point| Some(*point) != but);
        match (before, after.next()) {
            (Some(low), Some(high)) => Some(self.between(other, low, high, place)),
            (Some(end), None) => {
                Some(self.beyond(end, next.checked_sub(2).map(|i| line[i]), place))
            }
            (None, Some(end)) => Some(self.beyond(end, after.next(), place)),
            (None, None) => None,
        }
    }

    fn between(&self, axis: usize, low: u32, high: u32, place: [usize; 2]) -> Estimate {
        let x = |point: u32| self.points[point as usize][axis];
        let y = |point: u32| self.values[point as usize];
        let share = (self.surface.axes[axis][place[axis]] - x(low)) / (x(high) - x(low));
        Estimate {
            value: y(low) + (y(high) - y(low)) * share,
            gap: (y(high) - y(low)).abs(),
            from: [Some(low), Some(high)],
        }
    }

    /// Past the end of a line: its last value, scaled by work.
    fn beyond(&self, end: u32, inner: Option<u32>, place: [usize; 2]) -> Estimate {
        let y = |point: u32| self.values[point as usize];
        let surface = self.surface;
        let at = [surface.axes[0][place[0]], surface.axes[1][place[1]]];
        let scale = if surface.relative() {
            1.0
        } else {
            let from = work(surface.op, self.points[end as usize]);
            surface.line.ratio(work(surface.op, at), from)
        };
        Estimate {
            value: y(end) * scale,
            gap: inner.map_or(UNKNOWN * y(end), |inner| (y(end) - y(inner)).abs()),
            from: [Some(end), None],
        }
    }

    /// Mean of the nearest measured points, nearer ones counting more.
    fn by_neighbours(&self, place: [usize; 2], but: Option<u32>) -> Option<Estimate> {
        let at = position([
            self.surface.axes[0][place[0]],
            self.surface.axes[1][place[1]],
        ]);
        // Sorted by distance; equal distances by order of points.
        let mut nearest: Vec<(f64, usize)> = Vec::with_capacity(NEIGHBOURS + 1);
        for (index, position) in self.positions.iter().enumerate() {
            if but == Some(narrow::<u32, _>(index)) {
                continue;
            }
            let distance = (position[0] - at[0]).powi(2) + (position[1] - at[1]).powi(2);
            if nearest.len() == NEIGHBOURS && distance >= nearest[NEIGHBOURS - 1].0 {
                continue;
            }
            let rank = nearest.partition_point(|(other, _)| *other <= distance);
            nearest.insert(rank, (distance, index));
            nearest.truncate(NEIGHBOURS);
        }
        let reach = 1.2 * nearest.last()?.0 + 1e-12;
        let (mut sum, mut weights) = (0.0, 0.0);
        for (distance, index) in nearest {
            let weight = (1.0 - distance / reach) / (distance + 1e-9 * reach);
            sum += weight * self.values[index];
            weights += weight;
        }
        Some(Estimate {
            value: sum / weights,
            ..Estimate::default()
        })
    }
}

/// Where a point lies for the distance to its neighbours: tokens double from
/// one unit to the next, more slowly below 32.
fn position(point: [f64; 2]) -> [f64; 2] {
    point.map(|tokens| (tokens + 32.0).log2())
}
