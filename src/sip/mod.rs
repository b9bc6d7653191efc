//! SIP as a machine: messages in, messages and events out.

pub mod digest;
pub mod header;
pub mod message;
pub mod uri;

mod words;

use crate::record::Record;
use crate::terms::{LegId, MonoMs, Now};

pub use words::{
    Command, Config, Counts, Event, Identity, Input, Invited, Output, Path, Prefix, TrunkAccount, TrunkKind, Way,
};

/// The SIP machine. After each `handle` or `handle_timeout`, drain `poll` until `None`.
#[derive(Debug)]
pub struct Sip {
    config: Config,
    next_leg: u64,
}

impl Sip {
    /// A machine that knows nobody yet; `seed` comes from the OS (CSPRNG), never from a record.
    pub fn new(config: Config, _seed: [u8; 32]) -> Self { Self { config, next_leg: 1 } }

    /// Goes on where the writer of `records` stood. Trunks and phone keys are not in records:
    /// give them again by `Command::Trunks` and `Command::Phone` right after.
    pub fn restore(config: Config, seed: [u8; 32], _records: &[Record], _now: Now) -> Self { Self::new(config, seed) }

    /// A leg id that no other leg has.
    pub fn new_leg(&mut self) -> LegId { self.next_leg += 1; LegId(self.next_leg) }

    /// Something happened.
    pub fn handle(&mut self, _input: Input, _now: Now) {}

    /// What is to be done; drain until `None`.
    pub fn poll(&mut self) -> Option<Output> { None }

    /// When to call `handle_timeout` again.
    pub fn next_timeout(&self) -> Option<MonoMs> { None }

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// What changed since the last call, keys `sip/…`.
    pub fn records(&mut self, _now: Now) -> Vec<Record> { Vec::new() }

    /// How much it holds.
    pub fn counts(&self) -> Counts { let _ = &self.config; Counts::default() }
}
