//! The simulator against its invariants and against a naive model that walks
//! over every request at every step.

mod allocations;
mod disaggregation;
mod least_kv;
mod limits;
mod naive;
mod open_end;
mod properties;
mod support;
