//! Tags, branches and Call-IDs that nobody can guess.
//!
//! Invariant: the generator is seeded by the edge from the operating system, is never part of a record,
//! and a restore seeds it anew.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The CSPRNG of the SIP machine.
pub(crate) struct Entropy(ChaCha20Rng);

impl Entropy {
    /// A generator for one life of the machine.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// The raw generator.
    pub(crate) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.0
    }

    /// 64 random bits in hexadecimal digits.
    pub(crate) fn word(&mut self) -> String {
        format!("{:016x}", self.0.next_u64())
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64().checked_rem(limit).unwrap_or(0)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(…)")
    }
}
