//! What went over the wire in a call, for the person who must find out at four in the morning why it
//! failed.
//!
//! Invariant: nothing leaves this module with a secret in it.

pub mod mask;
