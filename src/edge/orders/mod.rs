//! The order core's side of the edge: the courier that brings it letters, and the core that lives inside
//! this program where no other is configured.
//!
//! Invariant: nothing here is waited for by a call or a card.

pub mod core_http;
mod courier;

#[cfg(test)]
mod tests;

pub use courier::{Clock, CoreConfig, CoreConfigError, Courier, Made};
