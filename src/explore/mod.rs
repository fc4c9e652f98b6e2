//! From a sweep to results: which runs there are, and running them.
//!
//! [`plan`] numbers the runs of a sweep and computes each from its number;
//! [`preflight`](mod@preflight) checks what can be checked before the first;
//! [`executor`] runs them on all cores, in the order of [`order`], and tells others what
//! happened;
//! [`session`] does both for one result directory; [`progress`] is what a
//! person watches, with the time left from [`remaining`]; [`survey`](mod@survey) looks over a plan without running it.
//! [`capacity`] looks for the load that a configuration holds instead of running it at one.
//! Knows nothing of what makes a result good, nor of how files are laid out.

pub mod capacity;
mod columns;
pub mod executor;
pub mod order;
mod overload;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod remaining;
pub mod session;
pub mod simulate;
pub mod survey;

pub use capacity::FindCapacity;
pub use executor::{
    Event, ExecuteError, ExecuteOptions, Observer, Outcome, RunOne, Shard, Sink, Task, Tasks,
    execute,
};
pub use overload::is_overload;
pub use plan::Plan;
pub use preflight::{Fingerprints, Identity, preflight};
pub use progress::Progress;
pub use session::{IfPresent, Session, SessionEnd, SessionError, SessionOptions};
pub use simulate::Simulate;
pub use survey::{CheckOne, Survey, survey};
