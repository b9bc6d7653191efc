//! Everything that touches the world: sockets, HTTP, SQL, files, time.
//!
//! Invariant: decisions are the engine's; the edge carries bytes to it and does what it says.

pub mod certificate;
pub mod clock;
pub mod driver;
mod handle;
pub mod limits;
pub mod log;
pub mod media;
pub mod metrics;
pub mod orders;
pub mod replays;
pub mod sip;
pub mod store;
pub mod story;
pub mod thread;
pub mod web;
