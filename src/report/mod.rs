//! What people and programs read about the call centre: wallboard, events, call records, the event file.
//!
//! Invariant: everything here is a fold over [`crate::fact::Fact`]s. Nothing asks the engine, a clock or
//! a database, so the same facts give the same board on every node and in every test.

pub mod board;
pub mod cdr;
pub mod event;
pub mod line;
pub mod shape;
#[cfg(test)]
mod testing;
mod today;

pub use board::{Board, DayOf, QueueKnown, Roster, TrunkKnown};
pub use cdr::{Cdr, Cdrs};
pub use event::{Audience, Event, EventLog, Since, Viewer, snapshot};
pub use shape::{
    At, CallShape, CardShape, CauseShape, LegShape, NodeShape, OperatorCounts, OperatorShape, QueueCaller,
    QueueShape, QueueToday, TrunkShape,
};
