//! Points in any number of dimensions that come one by one, asked whether one of them
//! is nowhere greater than another point.
//!
//! Trees of doubling sizes, each cut in the middle of one dimension after the other; a
//! new point waits in a list until there are enough for a tree, and two trees of one
//! size become one. A node knows the corners of the box its points are in, and most
//! questions are answered by those.

/// Points of a leaf, and of the list of those that wait for a tree.
const LEAF: usize = 32;

/// The points so far.
#[derive(Debug, Clone)]
pub(super) struct Forest {
    dimensions: usize,
    /// Coordinates of points that are in no tree yet.
    waiting: Vec<f64>,
    /// At `i`, if any, a tree of `LEAF << i` points.
    trees: Vec<Option<Tree>>,
}

/// Points in the order of its leaves, and the corners of its nodes, numbered as in a
/// heap.
#[derive(Debug, Clone)]
struct Tree {
    points: Vec<f64>,
    least: Vec<f64>,
    greatest: Vec<f64>,
}

impl Forest {
    pub(super) fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            waiting: Vec::new(),
            trees: Vec::new(),
        }
    }

    /// Whether a point so far is nowhere greater than `point`.
    pub(super) fn has_below(&self, point: &[f64]) -> bool {
        let mut waiting = self.waiting.chunks_exact(self.dimensions);
        waiting.any(|other| is_below(other, point))
            || (self.trees.iter().flatten()).any(|tree| tree.has_below(point))
    }

    pub(super) fn add(&mut self, point: &[f64]) {
        self.waiting.extend_from_slice(point);
        if self.waiting.len() < LEAF * self.dimensions {
            return;
        }
        let mut points = std::mem::take(&mut self.waiting);
        for size in 0.. {
            if size == self.trees.len() {
                self.trees.push(None);
            }
            match self.trees[size].take() {
                Some(tree) => points.extend(tree.points),
                None => {
                    self.trees[size] = Some(Tree::new(&points, self.dimensions));
                    return;
                }
            }
        }
    }
}

/// Whether `a` is nowhere greater than `b`.
fn is_below(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b)
}

impl Tree {
    fn new(points: &[f64], dimensions: usize) -> Self {
        let mut all: Vec<&[f64]> = points.chunks_exact(dimensions).collect();
        let nodes = 2 * all.len().div_ceil(LEAF).next_power_of_two();
        let mut tree = Self {
            points: Vec::with_capacity(points.len()),
            least: vec![f64::INFINITY; nodes * dimensions],
            greatest: vec![f64::NEG_INFINITY; nodes * dimensions],
        };
        tree.build(&mut all, 1, 0, dimensions);
        tree
    }

    fn build(&mut self, points: &mut [&[f64]], node: usize, depth: usize, dimensions: usize) {
        let corner = node * dimensions..(node + 1) * dimensions;
        let (least, greatest) = (&mut self.least[corner.clone()], &mut self.greatest[corner]);
        for point in points.iter() {
            for (at, value) in point.iter().enumerate() {
                least[at] = least[at].min(*value);
                greatest[at] = greatest[at].max(*value);
            }
        }
        if points.len() <= LEAF {
            points
                .iter()
                .for_each(|point| self.points.extend_from_slice(point));
            return;
        }
        let (middle, cut) = (points.len() / 2, depth % dimensions);
        points.select_nth_unstable_by(middle, |a, b| a[cut].total_cmp(&b[cut]));
        let (lower, upper) = points.split_at_mut(middle);
        self.build(lower, 2 * node, depth + 1, dimensions);
        self.build(upper, 2 * node + 1, depth + 1, dimensions);
    }

    fn has_below(&self, point: &[f64]) -> bool {
        self.node_has_below(1, 0..self.points.len() / point.len(), point)
    }

    /// The same for the points `range` of one node.
    fn node_has_below(&self, node: usize, range: std::ops::Range<usize>, point: &[f64]) -> bool {
        let dimensions = point.len();
        let corner = node * dimensions..(node + 1) * dimensions;
        if !is_below(&self.least[corner.clone()], point) {
            return false;
        }
        if is_below(&self.greatest[corner], point) {
            return true;
        }
        if range.len() <= LEAF {
            let points = &self.points[range.start * dimensions..range.end * dimensions];
            let mut points = points.chunks_exact(dimensions);
            return points.any(|other| is_below(other, point));
        }
        let middle = range.start + range.len() / 2;
        self.node_has_below(2 * node, range.start..middle, point)
            || self.node_has_below(2 * node + 1, middle..range.end, point)
    }
}
