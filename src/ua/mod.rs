//! A small user agent of our own: what a GSM gateway and an operator's browser are to the switch, for the
//! demonstration, the load run, the test of a trunk, and tests. It shares the reading of messages with the
//! switch but none of its machines, so that the two can contradict each other.
//!
//! `agent` speaks SIP, `voice` speaks and listens, `secure` is the browser's way of carrying it; these do no
//! I/O. `gateway` and `browser` are the drivers with real sockets, and a [`phone::Phone`] is the hand on them.
//!
//! Invariant: it talks to one server, the switch, and believes nothing but what it heard.

pub mod agent;
pub mod browser;
pub mod gateway;
pub mod phone;
pub mod secure;
pub mod speech;
pub mod tone_meter;
pub mod voice;

#[cfg(test)]
mod tests;
