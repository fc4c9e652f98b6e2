//! Bagged regression trees over one or two features.
//!
//! Trees are grown as scikit-learn grows those of its `RandomForestRegressor`:
//! each on as many rows drawn with replacement as there are, splits that most
//! reduce the squared error, thresholds half-way between neighbouring values,
//! every feature tried at every node, ties between features broken by chance.
//! A node with fewer different rows than `min_samples_split`, or at
//! `max_depth`, is a leaf. The draws are from ChaCha and depend only on seed,
//! fold and tree number.
//!
//! Three things make the search of a grid fast without changing its result:
//! - A tree cut at some depth, or with larger leaves, is the start of the tree
//!   grown without those limits. So each fold grows one tree for all depths and
//!   leaf sizes, and a larger forest starts with the trees of a smaller one.
//! - Rows with equal features cannot be parted: they are one cell with a weight
//!   and a sum of times, sorted once for all trees.
//! - The mean of the trees is constant between thresholds: the finished forest
//!   is stored as that step function, and a look-up walks no trees.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::validation::{Fold, grid_search_folds, mape};
use super::{Op, PredictorConfig, Samples};

/// Size and limits of a forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForestParameters {
    /// Trees.
    pub num_estimators: u32,
    /// Splits from the root to the deepest leaf.
    pub max_depth: u32,
    /// Different rows a node needs to be split.
    pub min_samples_split: u32,
}

/// A grown forest: constant between thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// Ascending thresholds of each feature; a value equal to one is below it.
    pub(super) thresholds: [Vec<f64>; 2],
    /// By interval of the first feature, then of the second.
    pub(super) values_ms: Vec<f64>,
}

impl Forest {
    /// Grows a forest.
    pub fn grow(samples: &Samples, parameters: ForestParameters, seed: u64) -> Self {
        let cells = Cells::new(samples);
        let rows: Vec<u32> = (0..samples.len() as u32).collect();
        let bag = Bag::new(&cells, samples, &rows);
        let grower = Grower {
            cells: &cells,
            bag: &bag,
            seed: stream(seed, WHOLE),
            max_depth: parameters.max_depth,
            min_samples_split: parameters.min_samples_split,
        };
        grower.step_function(parameters.num_estimators)
    }

    /// Time at a point, ms.
    pub fn predict(&self, point: [f64; 2]) -> f64 {
        let [first, second] = [0, 1].map(|axis| {
            self.thresholds[axis].partition_point(|threshold| *threshold < point[axis])
        });
        self.values_ms[first * (self.thresholds[1].len() + 1) + second]
    }
}

/// The best forest of a grid and its error over the folds, percent: all
/// combinations of the three lists, scored on consecutive rows set aside.
/// Equal errors go to the combination that comes first.
pub fn search(samples: &Samples, config: &PredictorConfig) -> (ForestParameters, f64) {
    let grid = Grid::new(config);
    let folds = grid_search_folds(samples.len(), config.k_fold_cv_splits);
    let cells = Cells::new(samples);
    let errors: Vec<Vec<f64>> = folds
        .par_iter()
        .enumerate()
        .map(|(index, fold)| grid.fold_errors(samples, &cells, fold, stream(config.seed, index)))
        .collect();
    let mean = |combination: usize| {
        errors.iter().map(|fold| fold[combination]).sum::<f64>() / folds.len() as f64
    };
    let mut best = (0, mean(0));
    for combination in 1..grid.len() {
        let error = mean(combination);
        if error < best.1 {
            best = (combination, error);
        }
    }
    (grid.parameters(best.0), best.1)
}

/// Marks the stream of the forest on all rows.
const WHOLE: usize = 1 << 20;

/// A seed of its own for every fold (splitmix64).
fn stream(seed: u64, index: usize) -> u64 {
    scramble(seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The combinations of a grid, in the order in which the original tries them:
/// depth, then leaf size, then number of trees.
struct Grid {
    num_estimators: Vec<u32>,
    max_depth: Vec<u32>,
    min_samples_split: Vec<u32>,
}

/// Trees per parallel task. Fixed, so that sums do not depend on threads.
const TREES_PER_TASK: u32 = 25;

impl Grid {
    fn new(config: &PredictorConfig) -> Self {
        Self {
            num_estimators: config.num_estimators.clone(),
            max_depth: config.max_depth.clone(),
            min_samples_split: config.min_samples_split.clone(),
        }
    }

    fn len(&self) -> usize {
        self.limits() * self.num_estimators.len()
    }

    /// Combinations of depth and leaf size.
    fn limits(&self) -> usize {
        self.max_depth.len() * self.min_samples_split.len()
    }

    fn parameters(&self, combination: usize) -> ForestParameters {
        let (limits, size) = (
            combination / self.num_estimators.len(),
            combination % self.num_estimators.len(),
        );
        ForestParameters {
            num_estimators: self.num_estimators[size],
            max_depth: self.max_depth[limits / self.min_samples_split.len()],
            min_samples_split: self.min_samples_split[limits % self.min_samples_split.len()],
        }
    }

    /// Ends of the tasks: every multiple, and every forest size.
    fn task_ends(&self) -> Vec<u32> {
        let most = self.num_estimators.iter().copied().max().unwrap_or(0);
        let mut ends: Vec<u32> = (1..)
            .map(|task| task * TREES_PER_TASK)
            .take_while(|end| *end < most)
            .chain(self.num_estimators.iter().copied())
            .collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Error of every combination on one fold.
    fn fold_errors(&self, samples: &Samples, cells: &Cells, fold: &Fold, seed: u64) -> Vec<f64> {
        let bag = Bag::new(cells, samples, &fold.train);
        let grower = Grower {
            cells,
            bag: &bag,
            seed,
            max_depth: self.max_depth.iter().copied().max().unwrap_or(0),
            min_samples_split: self.min_samples_split.iter().copied().min().unwrap_or(2),
        };
        let (tested, position) = tested_cells(cells, fold);
        let ends = self.task_ends();
        let sums: Vec<Vec<f64>> = ends
            .par_iter()
            .enumerate()
            .map(|(task, end)| {
                let start = if task == 0 { 0 } else { ends[task - 1] };
                self.predictions(&grower, &tested, start..*end)
            })
            .collect();
        let truth: Vec<f64> = fold
            .test
            .iter()
            .map(|row| samples.times_ms[*row as usize])
            .collect();
        let mut errors = vec![0.0; self.len()];
        let mut total = vec![0.0; tested.len() * self.limits()];
        let mut predicted = vec![0.0; truth.len()];
        for (end, sum) in ends.iter().zip(&sums) {
            total
                .iter_mut()
                .zip(sum)
                .for_each(|(total, sum)| *total += sum);
            for size in 0..self.num_estimators.len() {
                if self.num_estimators[size] != *end {
                    continue;
                }
                for limits in 0..self.limits() {
                    for (predicted, cell) in predicted.iter_mut().zip(&position) {
                        *predicted = total[cell * self.limits() + limits] / f64::from(*end);
                    }
                    errors[limits * self.num_estimators.len() + size] = mape(&truth, &predicted);
                }
            }
        }
        errors
    }

    /// Sums over trees of the prediction for every tested cell under every
    /// combination of limits.
    fn predictions(
        &self,
        grower: &Grower<'_>,
        tested: &[u32],
        trees: std::ops::Range<u32>,
    ) -> Vec<f64> {
        let mut sums = vec![0.0; tested.len() * self.limits()];
        let mut tree = Tree::default();
        let mut path = Vec::new();
        for index in trees {
            grower.grow(index, &mut tree);
            for (cell, sums) in tested.iter().zip(sums.chunks_mut(self.limits())) {
                tree.path(grower.cells.ranks[*cell as usize], &mut path);
                self.add_limited(&path, sums);
            }
        }
        sums
    }

    /// Adds what trees with each combination of limits predict, given the way
    /// down the tree without limits.
    fn add_limited(&self, path: &[Step], sums: &mut [f64]) {
        let deepest = path.len() - 1;
        for (split, min_samples_split) in self.min_samples_split.iter().enumerate() {
            let leaf = path
                .iter()
                .position(|step| step.different_rows < *min_samples_split)
                .unwrap_or(deepest);
            for (depth, max_depth) in self.max_depth.iter().enumerate() {
                sums[depth * self.min_samples_split.len() + split] +=
                    path[leaf.min(*max_depth as usize)].mean;
            }
        }
    }
}

/// The cells that a fold's test rows fall in, and each row's place among them.
fn tested_cells(cells: &Cells, fold: &Fold) -> (Vec<u32>, Vec<usize>) {
    let of_row = |row: &u32| cells.of_row[*row as usize];
    let mut tested: Vec<u32> = fold.test.iter().map(of_row).collect();
    tested.sort_unstable();
    tested.dedup();
    let place = |row| tested.partition_point(|cell| *cell < of_row(row));
    let position = fold.test.iter().map(place).collect();
    (tested, position)
}

/// Points with rows, sorted; the rows of a point cannot be told apart.
struct Cells {
    dimensions: usize,
    /// Which values a feature has.
    values: [Vec<f64>; 2],
    /// Place of a cell's features among the values.
    ranks: Vec<[u32; 2]>,
    /// Cells by first feature, and by second (empty for one feature).
    by_axis: [Vec<u32>; 2],
    of_row: Vec<u32>,
    op: Op,
}

impl Cells {
    fn new(samples: &Samples) -> Self {
        // The original compares features in single precision.
        let points: Vec<[f64; 2]> = samples
            .points
            .iter()
            .map(|point| point.map(|x| f64::from(x as f32)))
            .collect();
        let values = [0, 1].map(|axis| {
            let mut values: Vec<f64> = points.iter().map(|point| point[axis]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values
        });
        let rank = |point: &[f64; 2]| {
            [0, 1].map(|axis| values[axis].partition_point(|value| *value < point[axis]) as u32)
        };
        let of_point: Vec<[u32; 2]> = points.iter().map(rank).collect();
        let mut ranks = of_point.clone();
        ranks.sort_unstable();
        ranks.dedup();
        let of_row = of_point
            .iter()
            .map(|point| ranks.partition_point(|cell| cell < point) as u32)
            .collect();
        let dimensions = samples.dimensions();
        let first: Vec<u32> = (0..ranks.len() as u32).collect();
        let mut second = Vec::new();
        if dimensions == 2 {
            second.clone_from(&first);
            second.sort_by_key(|cell| (ranks[*cell as usize][1], *cell));
        }
        Self {
            dimensions,
            values,
            ranks,
            by_axis: [first, second],
            of_row,
            op: samples.op,
        }
    }

    /// Half-way between two values of a feature.
    fn threshold(&self, axis: usize, between: [u32; 2]) -> f64 {
        let [low, high] = between.map(|rank| self.values[axis][rank as usize]);
        low / 2.0 + high / 2.0
    }

    /// The highest rank up to the threshold.
    fn left_to(&self, axis: usize, between: [u32; 2]) -> u32 {
        if between[0] + 1 == between[1] {
            return between[0];
        }
        let threshold = self.threshold(axis, between);
        let candidates = &self.values[axis][between[0] as usize..between[1] as usize];
        let below = candidates.partition_point(|value| *value <= threshold);
        between[0] + below as u32 - 1
    }

    /// The largest value asked for that is not above a threshold: contexts and
    /// counts are whole, squared chunks are squares of whole numbers.
    fn asked_below(&self, axis: usize, threshold: f64) -> f64 {
        if self.op == Op::AttnPrefill && axis == 1 {
            threshold.sqrt().floor().powi(2)
        } else {
            threshold.floor()
        }
    }
}

/// The rows that trees are grown on, by cell.
struct Bag {
    /// Times of the rows.
    times_ms: Vec<f64>,
    /// Cell of each row; ascending.
    cells: Vec<u32>,
}

impl Bag {
    fn new(cells: &Cells, samples: &Samples, rows: &[u32]) -> Self {
        let cell = |row: u32| cells.of_row[row as usize];
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| (cell(*row), *row));
        Self {
            times_ms: rows
                .iter()
                .map(|row| samples.times_ms[*row as usize])
                .collect(),
            cells: rows.iter().map(|row| cell(*row)).collect(),
        }
    }
}

/// What was drawn of one cell.
#[derive(Debug, Clone, Copy, Default)]
struct Drawn {
    ranks: [u32; 2],
    /// Rows drawn, repeats counted.
    weight: f64,
    /// Sum of their times.
    sum: f64,
    /// Rows drawn, repeats not counted.
    different: u32,
}

/// A node; its left child follows it.
#[derive(Debug, Clone, Copy)]
struct Node {
    mean: f64,
    different_rows: u32,
    /// Right child; 0: a leaf.
    right: u32,
    axis: u32,
    /// Highest rank of the drawn cells on the left, lowest on the right.
    between: [u32; 2],
    /// Highest rank of all that belongs on the left: the threshold is half-way.
    left_to: u32,
}

/// One step of a way down a tree.
#[derive(Debug, Clone, Copy)]
struct Step {
    mean: f64,
    different_rows: u32,
}

/// A tree and the room to grow it in, used again for the next.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    times_drawn: Vec<u16>,
    by_axis: [Vec<Drawn>; 2],
    by_cell: Vec<Drawn>,
    spare: Vec<Drawn>,
    open: Vec<OpenNode>,
}

/// A node still to be looked at: a range of the drawn cells.
#[derive(Debug, Clone, Copy)]
struct OpenNode {
    start: usize,
    end: usize,
    depth: u32,
    /// Whose right child it is, if anybody's.
    right_of: Option<u32>,
}

impl Tree {
    /// The nodes on the way to a cell of these ranks.
    fn path(&self, ranks: [u32; 2], path: &mut Vec<Step>) {
        path.clear();
        let mut index = 0;
        loop {
            let node = &self.nodes[index];
            path.push(Step {
                mean: node.mean,
                different_rows: node.different_rows,
            });
            if node.right == 0 {
                return;
            }
            index = if ranks[node.axis as usize] <= node.left_to {
                index + 1
            } else {
                node.right as usize
            };
        }
    }
}

/// Grows the trees of one forest.
struct Grower<'a> {
    cells: &'a Cells,
    bag: &'a Bag,
    seed: u64,
    max_depth: u32,
    min_samples_split: u32,
}

impl Grower<'_> {
    /// Grows the tree of that number.
    fn grow(&self, index: u32, tree: &mut Tree) {
        self.draw(index, tree);
        let mut chance = scramble(self.seed ^ u64::from(index));
        tree.nodes.clear();
        tree.open.clear();
        tree.open.push(OpenNode {
            start: 0,
            end: tree.by_axis[0].len(),
            depth: 0,
            right_of: None,
        });
        while let Some(open) = tree.open.pop() {
            let index = tree.nodes.len() as u32;
            if let Some(parent) = open.right_of {
                tree.nodes[parent as usize].right = index;
            }
            chance = chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let node = self.node(open, tree, scramble(chance) as usize);
            tree.nodes.push(node);
        }
    }

    /// Draws rows with replacement and sums them up by cell.
    fn draw(&self, index: u32, tree: &mut Tree) {
        let rows = self.bag.times_ms.len();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::from(index));
        tree.times_drawn.clear();
        tree.times_drawn.resize(rows, 0);
        for _ in 0..rows {
            // 32 random bits are plenty: rows are thousands.
            let row = (u64::from(random.random::<u32>()) * rows as u64) >> 32;
            tree.times_drawn[row as usize] = tree.times_drawn[row as usize].saturating_add(1);
        }
        tree.by_cell.clear();
        tree.by_cell
            .resize(self.cells.ranks.len(), Drawn::default());
        for ((times, cell), time_ms) in tree
            .times_drawn
            .iter()
            .zip(&self.bag.cells)
            .zip(&self.bag.times_ms)
        {
            let drawn = &mut tree.by_cell[*cell as usize];
            let weight = f64::from(*times);
            drawn.weight += weight;
            drawn.sum += weight * time_ms;
            drawn.different += u32::from(*times > 0);
        }
        for axis in 0..self.cells.dimensions {
            let by_cell = &tree.by_cell;
            tree.by_axis[axis].clear();
            tree.by_axis[axis].extend(
                self.cells.by_axis[axis]
                    .iter()
                    .map(|cell| *cell as usize)
                    .filter(|cell| by_cell[*cell].different > 0)
                    .map(|cell| Drawn {
                        ranks: self.cells.ranks[cell],
                        ..by_cell[cell]
                    }),
            );
        }
    }

    /// Looks at an open node; opens its children if it is split.
    fn node(&self, open: OpenNode, tree: &mut Tree, chance: usize) -> Node {
        let range = open.start..open.end;
        let drawn = &tree.by_axis[0][range.clone()];
        let mut total = Drawn::default();
        for cell in drawn {
            total.weight += cell.weight;
            total.sum += cell.sum;
            total.different += cell.different;
        }
        let mut node = Node {
            mean: total.sum / total.weight,
            different_rows: total.different,
            right: 0,
            axis: 0,
            between: [0, 0],
            left_to: 0,
        };
        if open.depth >= self.max_depth || total.different < self.min_samples_split {
            return node;
        }
        let mut best: Option<Split> = None;
        for turn in 0..self.cells.dimensions {
            let axis = (chance + turn) % self.cells.dimensions;
            best_split(&tree.by_axis[axis][range.clone()], axis, &total, &mut best);
        }
        let Some(split) = best else {
            return node;
        };
        (node.axis, node.between) = (split.axis as u32, split.between);
        node.left_to = self.cells.left_to(split.axis, split.between);
        let middle = open.start + self.part(tree, range, &split);
        let right_of = Some(tree.nodes.len() as u32);
        for (start, end, right_of) in [(middle, open.end, right_of), (open.start, middle, None)] {
            tree.open.push(OpenNode {
                start,
                end,
                depth: open.depth + 1,
                right_of,
            });
        }
        node
    }

    /// Sorts the cells of a node by side, keeping their order otherwise; how
    /// many are on the left.
    fn part(&self, tree: &mut Tree, range: std::ops::Range<usize>, split: &Split) -> usize {
        if self.cells.dimensions == 2 {
            let other = &mut tree.by_axis[1 - split.axis][range];
            tree.spare.clear();
            let mut left = 0;
            for index in 0..other.len() {
                let cell = other[index];
                if cell.ranks[split.axis] <= split.between[0] {
                    other[left] = cell;
                    left += 1;
                } else {
                    tree.spare.push(cell);
                }
            }
            other[left..].copy_from_slice(&tree.spare);
        }
        split.left
    }

    /// The mean of the trees as a step function. Trees are grown twice, first
    /// for their thresholds and then for their values: cheaper than keeping
    /// them.
    fn step_function(&self, trees: u32) -> Forest {
        let tasks: Vec<u32> = (0..trees.div_ceil(TREES_PER_TASK)).collect();
        let each_tree = |task: u32, with: &mut dyn FnMut(&Tree)| {
            let mut tree = Tree::default();
            let first = task * TREES_PER_TASK;
            for index in first..(first + TREES_PER_TASK).min(trees) {
                self.grow(index, &mut tree);
                with(&tree);
            }
        };
        let found: Vec<[Vec<f64>; 2]> = tasks
            .par_iter()
            .map(|task| {
                let mut found = [Vec::new(), Vec::new()];
                each_tree(*task, &mut |tree| {
                    for node in tree.nodes.iter().filter(|node| node.right > 0) {
                        found[node.axis as usize].push(self.asked_below(node));
                    }
                });
                found.map(sorted)
            })
            .collect();
        let thresholds = [0, 1].map(|axis| {
            let all = found.iter().flat_map(|found| &found[axis]);
            thinned(sorted(all.copied().collect()))
        });
        let steps = Steps::new(thresholds, self.largest_ms(), trees);
        tasks.par_iter().for_each(|task| {
            each_tree(*task, &mut |tree| {
                steps.paint(tree, &|node| self.asked_below(node));
            });
        });
        steps.finish(trees)
    }

    fn asked_below(&self, node: &Node) -> f64 {
        let axis = node.axis as usize;
        self.cells
            .asked_below(axis, self.cells.threshold(axis, node.between))
    }

    fn largest_ms(&self) -> f64 {
        self.bag.times_ms.iter().copied().fold(0.0, f64::max)
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// Most thresholds kept for a feature. Measured grids have a few hundred; where
/// features are scattered so that there are more, neighbours are merged evenly.
const THRESHOLDS_MAX: usize = 4096;

fn thinned(values: Vec<f64>) -> Vec<f64> {
    let every = values.len().div_ceil(THRESHOLDS_MAX).max(1);
    values.into_iter().step_by(every).collect()
}

/// A split under consideration.
#[derive(Debug, Clone, Copy)]
struct Split {
    axis: usize,
    between: [u32; 2],
    /// Cells on the left.
    left: usize,
    /// What is to be as large as possible: the sum over both sides of squared
    /// sum over weight.
    gain: f64,
}

/// The best split of cells sorted by a feature, if better than `best`.
fn best_split(sorted: &[Drawn], axis: usize, total: &Drawn, best: &mut Option<Split>) {
    let mut most = best.map_or(f64::NEG_INFINITY, |split| split.gain);
    let (mut weight, mut sum) = (0.0, 0.0);
    for (index, pair) in sorted.windows(2).enumerate() {
        let (cell, next) = (&pair[0], &pair[1]);
        weight += cell.weight;
        sum += cell.sum;
        if cell.ranks[axis] == next.ranks[axis] {
            continue;
        }
        let (right_weight, right_sum) = (total.weight - weight, total.sum - sum);
        // One division for two.
        let gain =
            (sum * sum * right_weight + right_sum * right_sum * weight) / (weight * right_weight);
        if gain > most {
            most = gain;
            *best = Some(Split {
                axis,
                between: [cell.ranks[axis], next.ranks[axis]],
                left: index + 1,
                gain,
            });
        }
    }
}

/// A step function under construction: every leaf adds its value to a
/// rectangle, noted at the rectangle's corners and summed up at the end. Values
/// are whole multiples of a small unit, so that sums are exact in any order.
struct Steps {
    thresholds: [Vec<f64>; 2],
    units_per_ms: f64,
    units: Vec<AtomicI64>,
}

impl Steps {
    fn new(thresholds: [Vec<f64>; 2], largest_ms: f64, trees: u32) -> Self {
        let headroom = f64::from(trees.max(1)) * largest_ms.max(f64::MIN_POSITIVE);
        let exponent = 61 - headroom.log2().ceil() as i32;
        let places = (thresholds[0].len() + 1) * (thresholds[1].len() + 1);
        Self {
            thresholds,
            units_per_ms: f64::from(exponent.clamp(-1000, 1000)).exp2(),
            units: (0..places).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    fn width(&self) -> usize {
        self.thresholds[1].len() + 1
    }

    /// Notes the corners of every leaf of a tree.
    fn paint(&self, tree: &Tree, threshold: &dyn Fn(&Node) -> f64) {
        let ends = [0, 1].map(|axis| self.thresholds[axis].len() + 1);
        let mut open = vec![(0usize, [[0, ends[0]], [0, ends[1]]])];
        while let Some((index, area)) = open.pop() {
            let node = &tree.nodes[index];
            if node.right == 0 {
                self.paint_leaf(node.mean, area);
                continue;
            }
            let axis = node.axis as usize;
            let threshold = threshold(node);
            let cut = self.thresholds[axis].partition_point(|value| *value < threshold) + 1;
            let cut = cut.clamp(area[axis][0], area[axis][1]);
            let (mut left, mut right) = (area, area);
            left[axis][1] = cut;
            right[axis][0] = cut;
            open.push((index + 1, left));
            open.push((node.right as usize, right));
        }
    }

    fn paint_leaf(&self, mean: f64, area: [[usize; 2]; 2]) {
        let units = (mean * self.units_per_ms).round() as i64;
        let [[top, bottom], [left, right]] = area;
        if top >= bottom || left >= right {
            return;
        }
        let width = self.width();
        let note = |row: usize, column: usize, units: i64| {
            if row <= self.thresholds[0].len() && column < width {
                self.units[row * width + column].fetch_add(units, Relaxed);
            }
        };
        note(top, left, units);
        note(bottom, left, -units);
        note(top, right, -units);
        note(bottom, right, units);
    }

    /// Sums up the corners and divides by the number of trees.
    fn finish(self, trees: u32) -> Forest {
        let width = self.width();
        let mut units: Vec<i64> = self.units.into_iter().map(AtomicI64::into_inner).collect();
        for row in units.chunks_mut(width) {
            for column in 1..width {
                row[column] = row[column].wrapping_add(row[column - 1]);
            }
        }
        for place in width..units.len() {
            units[place] = units[place].wrapping_add(units[place - width]);
        }
        let scale = 1.0 / (self.units_per_ms * f64::from(trees.max(1)));
        Forest {
            values_ms: units.iter().map(|units| *units as f64 * scale).collect(),
            thresholds: self.thresholds,
        }
    }
}
