//! The dialplan: where a call goes, written by people in TOML and checked before it is used.
//!
//! Invariants: a plan that exists names only queues, trunks and sounds that exist; a call takes the first
//! route that fits, and a route is at most [`plan::MAX_STEPS`] steps without a jump, so every way ends.
//! Nothing here reads a clock or a file: local time and texts are passed in.

pub mod hours;
pub mod numbers;
pub mod parse;
pub mod pattern;
pub mod plan;
mod read;
pub mod route;
mod shadow;
pub mod shipped;

pub use hours::{Hours, LocalTime, Weekday};
pub use numbers::{Rule, caller, dial_string, normalise};
pub use parse::Mistake;
pub use plan::{Choose, DialNumber, HangUpWhy, Known, Plan, Route, Step, Ways};
pub use route::{Attempt, Origin};

#[cfg(test)]
mod tests;
