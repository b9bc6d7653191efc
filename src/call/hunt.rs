//! One number, many trunks: which way is tried next.
//!
//! Invariant: a way that failed is never tried twice for one call; once a person was reached (rang,
//! refused, was busy) no other way is tried.

use serde::{Deserialize, Serialize};

use crate::fact::Cause;
use crate::terms::{LegId, Number, TrunkName};

/// The search for a way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hunt {
    /// The number to reach, E.164 or short.
    pub number: Number,
    /// What the far end is shown.
    pub show: Number,
    /// Ways in order; those before `next` were tried or skipped.
    pub ways: Vec<TrunkName>,
    /// The next way.
    pub next: usize,
    /// The leg that is being tried.
    pub leg: Option<LegId>,
    /// How long it may ring, milliseconds.
    pub ring_ms: u64,
    /// Why the last way failed.
    pub last: Option<Cause>,
    /// Whether the carrier sounds before the answer, by its description or by a packet.
    pub early: bool,
    /// Whether a packet of it came: until then our ring-back is what is heard.
    pub heard: bool,
    /// Whether our ring-back plays.
    pub ringback: bool,
}

impl Hunt {
    /// A search over `ways`.
    pub fn new(number: Number, show: Number, ways: Vec<TrunkName>, ring_ms: u64) -> Self {
        Self {
            number,
            show,
            ways,
            next: 0,
            leg: None,
            ring_ms,
            last: None,
            early: false,
            heard: false,
            ringback: false,
        }
    }

    /// The next way that `usable` allows.
    pub fn advance(&mut self, usable: impl Fn(&TrunkName) -> bool) -> Option<TrunkName> {
        self.leg = None;
        self.early = false;
        self.heard = false;
        self.ringback = false;
        while let Some(way) = self.ways.get(self.next) {
            self.next = self.next.saturating_add(1);
            if usable(way) {
                return Some(way.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_tried_once_in_order_and_full_ones_are_skipped() {
        let ways = ["a", "b", "c"].map(TrunkName::from).to_vec();
        let mut hunt = Hunt::new(Number::new("1"), Number::default(), ways, 1_000);
        assert_eq!(hunt.advance(|way| way.as_str() != "a"), Some(TrunkName::from("b")));
        assert_eq!(hunt.advance(|_| true), Some(TrunkName::from("c")));
        assert_eq!(hunt.advance(|_| true), None);
    }
}
