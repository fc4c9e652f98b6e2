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
use crate::number::{narrow, single, whole_i32, whole_i64};

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
        let rows: Vec<u32> = (0..narrow::<u32, _>(samples.len())).collect();
        let bag = Bag::new(&cells, samples, &rows);
        let grower = Grower {
            cells: &cells,
            bag: &bag,
            seed: stream(seed, WHOLE),
            max_depth: parameters.max_depth,
            min_samples_split: parameters.min_samples_split,
            asked: None,
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
        let (tested, position) = tested_cells(cells, fold);
        let grower = Grower {
            cells,
            bag: &bag,
            seed,
            max_depth: self.max_depth.iter().copied().max().unwrap_or(0),
            min_samples_split: self.min_samples_split.iter().copied().min().unwrap_or(2),
            asked: Some(&tested),
        };
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
        tested: &[[u32; 2]],
        trees: std::ops::Range<u32>,
    ) -> Vec<f64> {
        let mut sums = vec![0.0; tested.len() * self.limits()];
        let mut tree = Tree::default();
        let mut path = Vec::new();
        for index in trees {
            grower.grow(index, &mut tree);
            for (ranks, sums) in tested.iter().zip(sums.chunks_mut(self.limits())) {
                tree.path(*ranks, &mut path);
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

/// The ranks of the cells that a fold's test rows fall in, and each row's place
/// among them.
fn tested_cells(cells: &Cells, fold: &Fold) -> (Vec<[u32; 2]>, Vec<usize>) {
    let of_row = |row: &u32| cells.of_row[*row as usize];
    let mut tested: Vec<u32> = fold.test.iter().map(of_row).collect();
    tested.sort_unstable();
    tested.dedup();
    let place = |row| tested.partition_point(|cell| *cell < of_row(row));
    let position = fold.test.iter().map(place).collect();
    let ranks = tested.iter().map(|cell| cells.ranks[*cell as usize]);
    (ranks.collect(), position)
}

/// Points with rows, sorted; the rows of a point cannot be told apart.
struct Cells {
    dimensions: usize,
    /// Which values a feature has.
    values: [Vec<f64>; 2],
    /// Place of a cell's features among the values.
    ranks: Vec<[u32; 2]>,
    of_row: Vec<u32>,
    op: Op,
}

impl Cells {
    fn new(samples: &Samples) -> Self {
        // The original compares features in single precision.
        let points: Vec<[f64; 2]> = samples
            .points
            .iter()
            .map(|point| point.map(|x| f64::from(single(x))))
            .collect();
        let values = [0, 1].map(|axis| {
            let mut values: Vec<f64> = points.iter().map(|point| point[axis]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            values
        });
        let rank = |point: &[f64; 2]| {
            [0, 1].map(|axis| {
                narrow::<u32, _>(values[axis].partition_point(|value| *value < point[axis]))
            })
        };
        let of_point: Vec<[u32; 2]> = points.iter().map(rank).collect();
        let mut ranks = of_point.clone();
        ranks.sort_unstable();
        ranks.dedup();
        let of_row = of_point
            .iter()
            .map(|point| narrow::<u32, _>(ranks.partition_point(|cell| cell < point)))
            .collect();
        Self {
            dimensions: samples.dimensions(),
            values,
            ranks,
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
        between[0] + narrow::<u32, _>(below) - 1
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

/// What was drawn of one cell, or of several.
#[derive(Debug, Clone, Copy, Default)]
struct Drawn {
    ranks: [u32; 2],
    /// Rows drawn, repeats counted. Whole, and far below what 32 bits can tell.
    weight: f32,
    /// Rows drawn, repeats not counted.
    different: u32,
    /// Sum of their times.
    sum: f64,
    /// Sum of the squares of their times.
    squares: f64,
}

impl Drawn {
    fn add(&mut self, other: &Self) {
        self.weight += other.weight;
        self.different += other.different;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.weight)
    }

    /// Whether the times are all the same, as far as can be told: the
    /// original's bound on the variance.
    fn is_pure(&self) -> bool {
        self.squares / f64::from(self.weight) - self.mean() * self.mean() <= f64::EPSILON
    }
}

/// A node; its left child follows it.
#[derive(Debug, Clone, Copy)]
struct Node {
    mean: f64,
    different_rows: u32,
    /// Right child; 0: a leaf; [`NOT_GROWN`].
    right: u32,
    axis: u32,
    /// Highest rank of the drawn cells on the left, lowest on the right.
    between: [u32; 2],
    /// Highest rank of all that belongs on the left: the threshold is half-way.
    left_to: u32,
}

/// A child that nobody asks for.
const NOT_GROWN: u32 = u32::MAX;

/// One step of a way down a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    mean: f64,
    different_rows: u32,
}

/// A tree and the room to grow it in, used again for the next.
#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    times_drawn: Vec<u16>,
    /// Cells drawn, those of a node side by side and by first feature.
    drawn: Vec<Drawn>,
    /// Room for cells of the right side, and for sums by second feature.
    spare: Vec<Drawn>,
    sums: Vec<Sum>,
    open: Vec<OpenNode>,
    /// Ranks asked for, those of a node side by side.
    asked: Vec<[u32; 2]>,
}

/// Weight and sum of the times of equal values of a feature.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    rank: u32,
    weight: f32,
    sum: f64,
}

/// A node still to be looked at: a range of the drawn cells.
#[derive(Debug, Clone, Copy)]
struct OpenNode {
    start: usize,
    end: usize,
    depth: u32,
    /// Range of the ranks asked for.
    asked: [usize; 2],
    /// Random bits.
    chance: u64,
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
    /// Ranks that predictions will be asked for, if not for all: only nodes on
    /// the way to them are grown.
    asked: Option<&'a [[u32; 2]]>,
}

impl Grower<'_> {
    /// Grows the tree of that number.
    fn grow(&self, index: u32, tree: &mut Tree) {
        self.draw(index, tree);
        tree.nodes.clear();
        tree.open.clear();
        tree.asked.clear();
        tree.asked.extend(self.asked.into_iter().flatten());
        tree.open.push(OpenNode {
            start: 0,
            end: tree.drawn.len(),
            depth: 0,
            asked: [0, tree.asked.len()],
            chance: scramble(self.seed ^ u64::from(index)),
            right_of: None,
        });
        while let Some(open) = tree.open.pop() {
            let index = narrow::<u32, _>(tree.nodes.len());
            if let Some(parent) = open.right_of {
                tree.nodes[parent as usize].right = index;
            }
            let node = self.node(open, tree);
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
        tree.drawn.clear();
        let rows = tree.times_drawn.iter().zip(&self.bag.cells);
        let mut last = u32::MAX;
        for ((times, cell), time_ms) in rows.zip(&self.bag.times_ms) {
            if *times == 0 {
                continue;
            }
            let weighted_ms = f64::from(*times) * time_ms;
            let drawn = Drawn {
                ranks: self.cells.ranks[*cell as usize],
                weight: f32::from(*times),
                different: 1,
                sum: weighted_ms,
                squares: weighted_ms * time_ms,
            };
            match tree.drawn.last_mut() {
                Some(same) if *cell == last => same.add(&drawn),
                _ => tree.drawn.push(drawn),
            }
            last = *cell;
        }
    }

    /// Looks at an open node; opens its children if it is split.
    fn node(&self, open: OpenNode, tree: &mut Tree) -> Node {
        let drawn = &tree.drawn[open.start..open.end];
        let mut total = Drawn::default();
        drawn.iter().for_each(|cell| total.add(cell));
        let mut node = Node {
            mean: total.mean(),
            different_rows: total.different,
            right: 0,
            axis: 0,
            between: [0, 0],
            left_to: 0,
        };
        let is_leaf = drawn.len() == 1
            || open.depth >= self.max_depth
            || total.different < self.min_samples_split
            || total.is_pure();
        if is_leaf {
            return node;
        }
        let mut best: Option<Split> = None;
        for turn in 0..self.cells.dimensions {
            let axis = (narrow::<usize, _>(open.chance) % 2 + turn) % self.cells.dimensions;
            if axis == 0 {
                let sums = drawn.iter().map(|cell| Sum {
                    rank: cell.ranks[0],
                    weight: cell.weight,
                    sum: cell.sum,
                });
                best_split(sums, 0, &total, &mut best);
            } else {
                sum_by_second(drawn, &mut tree.sums);
                best_split(tree.sums.iter().copied(), 1, &total, &mut best);
            }
        }
        let Some(split) = best else {
            return node;
        };
        (node.axis, node.between) = (narrow::<u32, _>(split.axis), split.between);
        node.left_to = self.cells.left_to(split.axis, split.between);
        node.right = NOT_GROWN;
        let middle = open.start + part(tree, open, &split);
        let [from, to] = open.asked;
        let asked = from + part_asked(&mut tree.asked[from..to], &node);
        let left = OpenNode {
            end: middle,
            depth: open.depth + 1,
            asked: [from, asked],
            chance: scramble(open.chance.wrapping_add(1)),
            right_of: None,
            ..open
        };
        let right = OpenNode {
            start: middle,
            end: open.end,
            asked: [asked, to],
            chance: scramble(open.chance.wrapping_add(2)),
            right_of: Some(narrow::<u32, _>(tree.nodes.len())),
            ..left
        };
        // The left one on top: it follows its parent.
        for child in [right, left] {
            if self.asked.is_none() || child.asked[0] < child.asked[1] {
                tree.open.push(child);
            }
        }
        node
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
            sorted(all.copied().collect())
        });
        let steps = Steps::new(thinned(thresholds), self.largest_ms(), trees);
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

/// Most steps of a step function (32 MiB). Profiles come nowhere near; where
/// both features are scattered, neighbouring thresholds are merged, evenly.
const STEPS_MAX: usize = 1 << 22;

fn thinned(mut thresholds: [Vec<f64>; 2]) -> [Vec<f64>; 2] {
    while (thresholds[0].len() + 1) * (thresholds[1].len() + 1) > STEPS_MAX {
        let longer = usize::from(thresholds[1].len() > thresholds[0].len());
        let kept = thresholds[longer].iter().copied().skip(1).step_by(2);
        thresholds[longer] = kept.collect();
    }
    thresholds
}

/// Sorts the cells of a node by side, keeping their order otherwise; how many
/// are on the left.
fn part(tree: &mut Tree, open: OpenNode, split: &Split) -> usize {
    let cells = &mut tree.drawn[open.start..open.end];
    if split.axis == 0 {
        return cells.partition_point(|cell| cell.ranks[0] <= split.between[0]);
    }
    tree.spare.clear();
    let mut left = 0;
    for index in 0..cells.len() {
        let cell = cells[index];
        if cell.ranks[1] <= split.between[0] {
            cells[left] = cell;
            left += 1;
        } else {
            tree.spare.push(cell);
        }
    }
    cells[left..].copy_from_slice(&tree.spare);
    left
}

/// Sorts ranks by side; how many are on the left.
fn part_asked(asked: &mut [[u32; 2]], node: &Node) -> usize {
    let mut left = 0;
    for index in 0..asked.len() {
        if asked[index][node.axis as usize] <= node.left_to {
            asked.swap(left, index);
            left += 1;
        }
    }
    left
}

/// Sums over cells with equal second feature, ascending. Between the smallest
/// and the largest there may be values without cells, of weight 0.
fn sum_by_second(cells: &[Drawn], sums: &mut Vec<Sum>) {
    sums.clear();
    let ranks = cells.iter().map(|cell| cell.ranks[1]);
    let (low, high) = ranks.fold((u32::MAX, 0), |(low, high), rank| {
        (low.min(rank), high.max(rank))
    });
    let width = (high - low) as usize + 1;
    let of_cell = |cell: &Drawn| Sum {
        rank: cell.ranks[1],
        weight: cell.weight,
        sum: cell.sum,
    };
    if width > 4 * cells.len() + 16 {
        // Few cells far apart: to sort them is less than to walk the gaps.
        sums.extend(cells.iter().map(of_cell));
        sums.sort_by_key(|sum| sum.rank);
        return;
    }
    sums.extend((low..=high).map(|rank| Sum {
        rank,
        ..Sum::default()
    }));
    for cell in cells {
        let sum = &mut sums[(cell.ranks[1] - low) as usize];
        sum.weight += cell.weight;
        sum.sum += cell.sum;
    }
}

/// A split under consideration.
#[derive(Debug, Clone, Copy)]
struct Split {
    axis: usize,
    between: [u32; 2],
    /// What is to be as large as possible: the sum over both sides of squared
    /// sum over weight.
    gain: f64,
}

/// The best split between sums in ascending order, if better than `best`.
fn best_split(
    sums: impl Iterator<Item = Sum>,
    axis: usize,
    total: &Drawn,
    best: &mut Option<Split>,
) {
    let mut most = best.map_or(f64::NEG_INFINITY, |split| split.gain);
    let total_weight = f64::from(total.weight);
    let mut left = Sum {
        rank: u32::MAX,
        ..Sum::default()
    };
    for next in sums {
        if next.weight == 0.0 {
            continue;
        }
        if next.rank != left.rank && left.weight > 0.0 {
            let weight = f64::from(left.weight);
            let (right_weight, right_sum) = (total_weight - weight, total.sum - left.sum);
            // One division for two.
            let gain = (left.sum * left.sum * right_weight + right_sum * right_sum * weight)
                / (weight * right_weight);
            if gain > most {
                most = gain;
                *best = Some(Split {
                    axis,
                    between: [left.rank, next.rank],
                    gain,
                });
            }
        }
        left.rank = next.rank;
        left.weight += next.weight;
        left.sum += next.sum;
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
        let exponent = 61 - whole_i32(headroom.log2().ceil());
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
        let units = whole_i64((mean * self.units_per_ms).round());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Times with steps and noise over scattered points.
    fn scattered(op: Op, rows: u32) -> Samples {
        let points: Vec<[f64; 2]> = (0..u64::from(rows))
            .map(|row| {
                let bits = scramble(row + 1);
                let second = f64::from((bits >> 8) as u8 % 40).powi(2);
                let two = op.features().len() == 2;
                [f64::from(bits as u8), if two { second } else { 0.0 }]
            })
            .collect();
        let times = points.iter().enumerate().map(|(row, [x, y])| {
            let noise = scramble(row as u64 + 1000) as u8 as f64 / 2560.0;
            0.1 + 0.01 * (x / 16.0).floor() + 1e-4 * y + noise
        });
        let times = times.collect();
        Samples::new(op, points, times)
    }

    #[test]
    fn the_step_function_is_the_mean_of_the_trees() {
        for op in [Op::Add, Op::AttnPrefill] {
            let samples = scattered(op, 300);
            let cells = Cells::new(&samples);
            let rows: Vec<u32> = (0..300).collect();
            let grower = Grower {
                cells: &cells,
                bag: &Bag::new(&cells, &samples, &rows),
                seed: stream(7, WHOLE),
                max_depth: 12,
                min_samples_split: 3,
                asked: None,
            };
            let mut sums = vec![0.0; cells.ranks.len()];
            let (mut tree, mut path) = (Tree::default(), Vec::new());
            for index in 0..60 {
                grower.grow(index, &mut tree);
                for (sum, ranks) in sums.iter_mut().zip(&cells.ranks) {
                    tree.path(*ranks, &mut path);
                    *sum += path.last().unwrap().mean;
                }
            }
            let parameters = ForestParameters {
                num_estimators: 60,
                max_depth: 12,
                min_samples_split: 3,
            };
            let forest = Forest::grow(&samples, parameters, 7);
            for (row, point) in samples.points.iter().enumerate() {
                let mean = sums[cells.of_row[row] as usize] / 60.0;
                let got = forest.predict(*point);
                assert!((got - mean).abs() < 1e-12, "{op} {point:?}: {got} {mean}");
            }
        }
    }

    #[test]
    fn trees_grown_for_some_cells_are_the_same_there() {
        let samples = scattered(Op::AttnPrefill, 400);
        let cells = Cells::new(&samples);
        let rows: Vec<u32> = (0..300).collect();
        let bag = Bag::new(&cells, &samples, &rows);
        let asked: Vec<[u32; 2]> = (300..400)
            .map(|row| cells.ranks[cells.of_row[row] as usize])
            .collect();
        let grower = |asked| Grower {
            cells: &cells,
            bag: &bag,
            seed: 5,
            max_depth: 16,
            min_samples_split: 2,
            asked,
        };
        let (mut some, mut all) = (Tree::default(), Tree::default());
        let (mut way, mut same_way) = (Vec::new(), Vec::new());
        for index in 0..20 {
            grower(Some(&asked)).grow(index, &mut some);
            grower(None).grow(index, &mut all);
            assert!(some.nodes.len() < all.nodes.len());
            for ranks in &asked {
                some.path(*ranks, &mut way);
                all.path(*ranks, &mut same_way);
                assert_eq!(way, same_way);
            }
        }
    }
}
