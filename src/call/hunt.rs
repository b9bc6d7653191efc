//! One number, many trunks: which way is tried next.
//!
//! Invariant: a way that failed is never tried twice for one call; once a person was reached (rang,
//! refused, was busy) no other way is tried.

use rand_chacha::rand_core::Rng as _;
use serde::{Deserialize, Serialize};

use crate::call::Room;
use crate::dialplan::{Choose, Ways};
use crate::fact::Cause;
use crate::terms::{LegId, Number, TrunkName};

/// How often one call may be sent elsewhere (RFC 3261 section 8.1.3.4 leaves it to us).
pub(super) const MAX_REDIRECTS: usize = 3;

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
    /// Where the tried way sends us instead.
    pub redirect: Option<Number>,
    /// Numbers that were called before a way sent us on.
    pub left: Vec<Number>,
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
            redirect: None,
            left: Vec::new(),
            early: false,
            heard: false,
            ringback: false,
        }
    }

    /// Turns to the number that the last way named, over the same ways; `false` when it named none, one
    /// that was called before, or one too many.
    pub fn follow(&mut self) -> bool {
        let Some(number) = self.redirect.take() else { return false };
        let known = number == self.number || self.left.contains(&number);
        if known || self.left.len() >= MAX_REDIRECTS {
            return false;
        }
        self.left.push(std::mem::replace(&mut self.number, number));
        self.next = 0;
        true
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

impl Room {
    /// The trunks of a dial in the order in which this call tries them.
    pub(super) fn choose(&mut self, over: &[Ways]) -> Vec<TrunkName> {
        let mut order = Vec::new();
        for ways in over {
            match ways.choose {
                Choose::Order => order.extend(ways.trunks.iter().cloned()),
                Choose::LeastUsed => {
                    let mut trunks = ways.trunks.clone();
                    trunks.sort_by_key(|trunk| self.used(trunk));
                    order.extend(trunks);
                }
                Choose::Share => order.extend(by_lot(ways, || self.rng.next_u32())),
            }
        }
        order
    }

    /// The part of a trunk's channels in use, in thousandths.
    fn used(&self, trunk: &TrunkName) -> u64 {
        let channels = self.setup.trunks.get(trunk).map_or(1, |trunk| trunk.channels.max(1));
        let busy = self.load.get(trunk).copied().unwrap_or(0);
        u64::from(busy).saturating_mul(1_000) / u64::from(channels)
    }
}

/// Draws one trunk after the other, each by its share of those that are left.
fn by_lot(ways: &Ways, mut lot: impl FnMut() -> u32) -> Vec<TrunkName> {
    let shares = ways.shares.iter().copied().chain(std::iter::repeat(1));
    let mut left: Vec<(TrunkName, u32)> = ways.trunks.iter().cloned().zip(shares).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let all: u32 = left.iter().fold(0, |sum, (_, share)| sum.saturating_add(*share));
        let mut drawn = lot().checked_rem(all).unwrap_or(0);
        let at = left.iter().position(|(_, share)| {
            let hit = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            hit
        });
        order.push(left.remove(at.unwrap_or(0)).0);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_over_many_calls_and_every_trunk_stays_a_way() {
        let trunks = ["a", "b", "c"].map(TrunkName::from).to_vec();
        let ways = Ways { name: "g".into(), trunks, choose: Choose::Share, shares: vec![70, 20, 10] };
        let mut noise = 1_u32;
        let mut first = [0; 3];
        for _ in 0..10_000 {
            let order = by_lot(&ways, || {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise >> 8
            });
            assert_eq!(order.len(), 3);
            let place = ways.trunks.iter().position(|trunk| Some(trunk) == order.first());
            place.and_then(|place| first.get_mut(place)).map(|count| *count += 1).unwrap_or_default();
        }
        for (count, share) in first.iter().zip([7_000, 2_000, 1_000]) {
            assert!((share - 300..share + 300).contains(count), "{first:?}");
        }
    }

    #[test]
    fn ways_are_tried_once_in_order_and_full_ones_are_skipped() {
        let ways = ["a", "b", "c"].map(TrunkName::from).to_vec();
        let mut hunt = Hunt::new(Number::new("1"), Number::default(), ways, 1_000);
        assert_eq!(hunt.advance(|way| way.as_str() != "a"), Some(TrunkName::from("b")));
        assert_eq!(hunt.advance(|_| true), Some(TrunkName::from("c")));
        assert_eq!(hunt.advance(|_| true), None);
    }
}
