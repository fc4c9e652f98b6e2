//! How long a run may become, and what it should come to know.

use super::Figure;
use crate::number::whole_u32;

/// Requests simulated to warm up before the first window is cut, as a share of those to be
/// measured.
const EXPECTED_WARM_UP: f64 = 0.125;

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

impl Length {
    /// Requests simulated before the first window is cut.
    pub fn simulated_at_first(&self) -> u32 {
        let warm_up = f64::from(self.requests) * EXPECTED_WARM_UP;
        self.requests.saturating_add(whole_u32(warm_up.ceil()))
    }
}

/// A limit that a figure is to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The figure.
    pub figure: Figure,
    /// Its largest value allowed.
    pub at_most: f64,
}
