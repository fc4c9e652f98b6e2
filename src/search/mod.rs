//! Which simulations to make next, given what those before have shown.
//!
//! [`capacity`] finds the highest load that a deployment holds. Knows no simulator: it asks
//! for looks at single loads and is told what they show.

pub mod capacity;

pub use capacity::{Found, Look, Strain, Wanted, highest_load};
