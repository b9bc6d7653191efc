//! What happens to a packet: everything of the sound path that needs no socket, no clock and no entropy.
//!
//! A [`port::Port`] is one end of a call. Datagrams go in, datagrams and events come out; the threads of
//! `edge/media` own the sockets and tell the time. What the engine may ask, and what it hears back, is in
//! [`command`].
//!
//! Invariant: nothing here reads a clock or a file, and relaying a packet allocates nothing.

pub mod bridge;
pub mod command;
pub mod dtls;
pub mod dtmf;
pub mod g711;
pub mod ice;
pub mod latch;
pub mod outbox;
pub mod port;
pub mod prompt;
pub mod quality;
pub mod rtcp;
pub mod rtp;
pub mod shield;
pub mod srtp;
pub mod stun;
pub mod tone;
pub mod voice;
pub mod watch;
