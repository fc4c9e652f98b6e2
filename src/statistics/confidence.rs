//! How sure intervals are.

/// The share of intervals that contain the true value, at every place that states one.
pub const CONFIDENCE: f64 = 0.95;

/// What lies below an interval, and what lies above it.
pub(super) const TAIL: f64 = (1.0 - CONFIDENCE) / 2.0;

/// What is sure to this probability is certain: as much as the end of an interval says.
pub const CERTAIN: f64 = 1.0 - TAIL;
