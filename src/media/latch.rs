//! From where a plain RTP stream may come (RTP bleed and injection: ES2017-04, CVE-2025-53399).
//!
//! Signalling names the address; a gateway behind NAT sends from another port of it. So the port may be
//! learnt, once, at the beginning, and only where signalling allowed it:
//!
//! ```text
//!            from the signalled address
//! Open ────────────────────────────────────▶ Locked
//!   │ other port, same address, may_latch     ▲   │ other port, same address, same SSRC, sequence goes
//!   ▼                  after 1 s              │   ▼ on, and the old port has been quiet: NAT rebinding
//! Learnt ─────────────────────────────────────┴───┘
//!   └── within 1 s the signalled address takes it back: Locked
//! ```
//!
//! A gateway behind NAT may write its private address into its description and send from the address that
//! its SIP comes from: signalling names that one too, and it counts like the first.
//!
//! Invariant: a packet of an IP address that signalling did not name never gets in, whatever it carries.

use std::net::{IpAddr, SocketAddr};

use crate::media::rtp::seq_distance;

/// How long after the first packet the signalled address may still take a learnt stream back.
const LEARN_US: u64 = 1_000_000;

/// How long the known port must have been quiet before another may continue its stream.
const QUIET_US: u64 = 200_000;

/// How far a continued stream's sequence may be ahead: 30 s of 20 ms packets.
const CONTINUES: std::ops::RangeInclusive<i32> = 1..=1_500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing came yet.
    Open,
    /// Learnt from a first packet at this time.
    Learnt { since_us: u64 },
    /// Settled.
    Locked,
}

/// The address that a stream comes from and goes to.
#[derive(Debug, Clone)]
pub struct Latch {
    signalled: SocketAddr,
    /// Where the party's SIP comes from, if that may claim the stream too.
    also: Option<IpAddr>,
    current: SocketAddr,
    may_latch: bool,
    state: State,
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    ssrc: u32,
    seq: u16,
    at_us: u64,
}

impl Latch {
    /// Expects `signalled`; another port of that address, or any of `also`, may claim the stream if `may_latch`.
    pub fn new(signalled: SocketAddr, also: Option<IpAddr>, may_latch: bool) -> Self {
        Self { signalled, also, current: signalled, may_latch, state: State::Open, last: None }
    }

    /// Where packets to the party go.
    pub fn current(&self) -> SocketAddr {
        self.current
    }

    /// The address that signalling named.
    pub fn signalled(&self) -> SocketAddr {
        self.signalled
    }

    /// Whether a packet with these numbers from this address belongs to the stream.
    pub fn admits(&mut self, from: SocketAddr, ssrc: u32, seq: u16, now_us: u64) -> bool {
        if from == self.current {
            self.settle(from, now_us);
        } else if !self.is_named(from.ip()) || !self.may_move(from, ssrc, seq, now_us) {
            return false;
        }
        let newer = self.last.is_none_or(|last| last.ssrc != ssrc || seq_distance(last.seq, seq) > 0);
        match &mut self.last {
            Some(last) if !newer => last.at_us = now_us,
            last => *last = Some(Last { ssrc, seq, at_us: now_us }),
        }
        true
    }

    fn is_named(&self, address: IpAddr) -> bool {
        address == self.signalled.ip() || self.also == Some(address)
    }

    fn settle(&mut self, from: SocketAddr, now_us: u64) {
        match self.state {
            State::Open if from == self.signalled => self.state = State::Locked,
            State::Learnt { since_us } if now_us.saturating_sub(since_us) >= LEARN_US => {
                self.state = State::Locked
            }
            State::Open | State::Learnt { .. } | State::Locked => {}
        }
    }

    fn may_move(&mut self, from: SocketAddr, ssrc: u32, seq: u16, now_us: u64) -> bool {
        if !self.may_latch {
            return false;
        }
        let state = match self.state {
            State::Open => State::Learnt { since_us: now_us },
            State::Learnt { since_us }
                if from == self.signalled && now_us.saturating_sub(since_us) < LEARN_US =>
            {
                State::Locked
            }
            State::Learnt { .. } | State::Locked if self.continues(ssrc, seq, now_us) => State::Locked,
            State::Learnt { .. } | State::Locked => return false,
        };
        self.state = state;
        self.current = from;
        true
    }

    fn continues(&self, ssrc: u32, seq: u16, now_us: u64) -> bool {
        self.last.is_some_and(|last| {
            last.ssrc == ssrc
                && CONTINUES.contains(&seq_distance(last.seq, seq))
                && now_us.saturating_sub(last.at_us) >= QUIET_US
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "tests"
    )]
    use super::*;

    /// A story: who sends (`s` signalled, `p` and `q` other ports of it, `x` another address), SSRC,
    /// sequence, milliseconds, admitted? `n` is the address that its SIP comes from.
    fn tell(may_latch: bool, story: &[(char, u32, u16, u64, bool)]) -> SocketAddr {
        let address = |who| -> SocketAddr {
            match who {
                's' => "192.0.2.1:4000",
                'p' => "192.0.2.1:5000",
                'q' => "192.0.2.1:6000",
                'n' => "198.51.100.7:4000",
                _ => "192.0.2.9:4000",
            }
            .parse()
            .unwrap()
        };
        let mut latch = Latch::new(address('s'), Some(address('n').ip()), may_latch);
        for (step, (who, ssrc, seq, ms, admitted)) in story.iter().enumerate() {
            let got = latch.admits(address(*who), *ssrc, *seq, ms * 1_000);
            assert_eq!(got, *admitted, "step {step} {who}");
        }
        latch.current()
    }

    #[test]
    fn the_signalled_address_is_admitted_and_locks() {
        let end = tell(true, &[('s', 1, 1, 0, true), ('p', 1, 2, 20, false), ('p', 9, 900, 90, false)]);
        assert_eq!(end.port(), 4000);
    }

    #[test]
    fn another_port_is_learnt_once_where_signalling_allows_it() {
        assert_eq!(
            tell(true, &[('p', 1, 1, 0, true), ('q', 2, 1, 10, false), ('p', 1, 2, 20, true)]).port(),
            5000
        );
        assert_eq!(tell(false, &[('p', 1, 1, 0, false), ('s', 1, 1, 10, true)]).port(), 4000);
    }

    #[test]
    fn the_signalled_address_takes_a_learnt_stream_back_only_within_a_second() {
        assert_eq!(
            tell(true, &[('p', 1, 1, 0, true), ('s', 2, 1, 900, true), ('p', 1, 2, 910, false)]).port(),
            4000
        );
        assert_eq!(
            tell(true, &[('p', 1, 1, 0, true), ('p', 1, 2, 1_100, true), ('s', 2, 1, 1_110, false)]).port(),
            5000
        );
    }

    #[test]
    fn another_address_never_gets_in() {
        tell(true, &[('x', 1, 1, 0, false), ('s', 1, 1, 10, true), ('x', 1, 2, 9_000, false)]);
    }

    #[test]
    fn a_rebound_port_must_continue_a_quiet_stream() {
        for (ssrc, seq, ms, admitted) in [
            (1, 12, 300, true),
            (2, 12, 300, false),
            (1, 10, 300, false),
            (1, 9, 300, false),
            (1, 5_000, 300, false),
            (1, 11, 120, false),
        ] {
            tell(true, &[('s', 1, 10, 0, true), ('p', ssrc, seq, ms, admitted)]);
            tell(false, &[('s', 1, 10, 0, true), ('p', ssrc, seq, ms, false)]);
        }
    }

    #[test]
    fn a_gateway_behind_nat_is_heard_where_its_signalling_comes_from() {
        let story = [('n', 1, 10, 0, true), ('x', 1, 11, 20, false), ('n', 1, 12, 40, true)];
        assert_eq!(tell(true, &story), "198.51.100.7:4000".parse().unwrap());
        assert_eq!(tell(false, &[('n', 1, 10, 0, false)]), "192.0.2.1:4000".parse().unwrap());
    }
}
