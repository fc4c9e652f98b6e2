//! Which results are good: targets, Pareto frontier, ranking, and what binds.
//!
//! [`Criteria`] are a sweep's targets and objectives, checked against the
//! summary's columns. A [`Selection`] sees every run once and then knows which
//! configurations meet the targets, which of them no other beats in every
//! objective, and how to rank them; it is the [`crate::results::Judge`] of a
//! finished sweep. [`neighbours`] tells what happens one step away from the
//! best deployment. Knows nothing of how runs came about or how they are shown.

mod certainty;
mod criteria;
mod forest;
mod frontier;
mod load;
pub mod neighbours;
mod ranking;
mod reasons;
mod selection;
mod strain;

pub use criteria::{
    Criteria, CriteriaError, Direction, Objective, Requests, limits, number_columns,
    promised_attainment, request_targets,
};
pub use frontier::pareto_frontier;
pub use ranking::columns as compared_columns;
pub use reasons::{ReasonGroup, ReasonGroups, normalise};
pub use selection::{Configuration, Selection};
pub use strain::{Strained, strained};
