//! How long a run may become, and what it should come to know.

use super::Figure;

/// How many requests are measured, and what for.
#[derive(Debug, Clone, PartialEq)]
pub struct Length {
    /// At first.
    pub requests: u32,
    /// At most.
    pub max_requests: u32,
    /// Figures and the half-widths of their intervals, as shares, to be reached.
    pub precision: Vec<(Figure, f64)>,
}

/// A limit that a figure is to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The figure.
    pub figure: Figure,
    /// Its largest value allowed.
    pub at_most: f64,
}
