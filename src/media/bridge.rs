//! Two ports joined: how the packets of whoever speaks become the one line that the party hears.
//!
//! A party hears many sources in a call (a prompt, a tone, another party, again a prompt), but for its
//! phone they are one RTP stream: one SSRC, one sequence, one clock ([`EgressLine`]). The packets of one
//! source are shifted by constant offsets, so a packet lost on the way to us stays a gap on the way out
//! and the party's loss concealment works; where the source changes, the sequence goes on without a gap,
//! the timestamp goes on by the clock, and the marker is set.
//!
//! Invariant: a sequence number of a line is sent at most once for new sound: a late packet of an earlier
//! source, which could only collide, is refused.

use crate::media::command::Line;
use crate::media::g711::{RATE_HZ, SAMPLES_PER_MS};
use crate::media::rtp::{seq_distance, ts_distance};

/// A jump of the sequence larger than this is a new beginning of the source (RFC 3550 A.1 `MAX_DROPOUT`).
const MAX_JUMP: i32 = 3_000;

/// Packets later than this are refused: no phone would play them, and SRTP's replay window ends there.
const MAX_LATE: i32 = 60;

/// A timestamp that leaves the clock by more than this is a new beginning of the source: 10 s.
const MAX_TS_JUMP: i32 = 80_000;

/// Whose packets a line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nobody's yet.
    None,
    /// Made here: prompt, tone, digits, silence.
    Own,
    /// A party's, by its SSRC and the bridge it came over.
    Party { ssrc: u32, bridge: u32 },
}

/// Where in the line a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub ts: u32,
    /// Marker.
    pub marker: bool,
}

/// The egress line of a port.
#[derive(Debug)]
pub struct EgressLine {
    ssrc: u32,
    source: Source,
    /// Added to the source's numbers.
    seq_shift: u16,
    ts_shift: u32,
    /// The newest numbers sent (the sequence with its roll-overs above), and when that timestamp was new.
    index: i64,
    ts: u32,
    ts_at_us: u64,
    /// Packets since the source changed: none of an earlier source may be overwritten.
    since_change: i32,
    begun: bool,
}

impl EgressLine {
    /// The line that the engine chose, before its first packet.
    pub fn new(line: &Line) -> Self {
        Self {
            ssrc: line.ssrc,
            source: Source::None,
            seq_shift: 0,
            ts_shift: 0,
            index: i64::from(line.seq) - 1,
            ts: line.ts,
            ts_at_us: 0,
            since_change: 0,
            begun: false,
        }
    }

    /// Our SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The newest timestamp sent.
    pub fn ts(&self) -> u32 {
        self.ts
    }

    /// The newest sequence number sent, with its roll-overs above (RFC 3711 section 3.3.1).
    pub fn index(&self) -> u64 {
        u64::try_from(self.index).unwrap_or(0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the index without its roll-overs"
    )]
    fn seq(&self) -> u16 {
        self.index as u16
    }

    /// The timestamp that the line's clock shows at `now_us`, for sender reports.
    pub fn ts_at(&self, now_us: u64) -> u32 {
        self.ts.wrapping_add(samples_between(self.ts_at_us, now_us))
    }

    /// Places a packet of a party that came over the bridge with this number; `None` refuses it.
    pub fn relay(&mut self, ssrc: u32, bridge: u32, packet: Place, now_us: u64) -> Option<Place> {
        let source = Source::Party { ssrc, bridge };
        let seq = packet.seq.wrapping_add(self.seq_shift);
        let ts = packet.ts.wrapping_add(self.ts_shift);
        let ahead = seq_distance(self.seq(), seq);
        let jumped = !(-MAX_JUMP..=MAX_JUMP).contains(&ahead)
            || !(-MAX_TS_JUMP..=MAX_TS_JUMP).contains(&ts_distance(self.ts_at(now_us), ts));
        if self.source != source || jumped {
            return Some(self.change_to(source, packet, now_us));
        }
        if ahead > 0 {
            self.since_change = self.since_change.saturating_add(ahead);
            self.note(seq, ts, now_us);
        } else if ahead < -MAX_LATE || -ahead >= self.since_change {
            return None;
        }
        Some(Place { seq, ts, marker: packet.marker })
    }

    /// A packet of the party with this number will not be sent on purpose: close the gap that it leaves.
    pub fn skip(&mut self, ssrc: u32, bridge: u32, seq: u16) {
        let next = seq.wrapping_add(self.seq_shift) == self.seq().wrapping_add(1);
        if next && self.source == (Source::Party { ssrc, bridge }) {
            self.seq_shift = self.seq_shift.wrapping_sub(1);
        }
    }

    /// Places the next packet of our own with `samples` of new sound (0 repeats the timestamp, as the
    /// packets of one telephone event do).
    pub fn own(&mut self, samples: u32, now_us: u64) -> Place {
        if self.source != Source::Own {
            let first = Place { seq: 0, ts: 0, marker: true };
            return self.change_to(Source::Own, first, now_us);
        }
        self.since_change = self.since_change.saturating_add(1);
        let ts = self.ts.wrapping_add(samples);
        self.note(self.seq().wrapping_add(1), ts, now_us);
        Place { seq: self.seq(), ts, marker: false }
    }

    /// Our own sound goes on after a pause of its own: the next packet is placed by the clock.
    pub fn pause(&mut self) {
        self.source = Source::None;
    }

    fn change_to(&mut self, source: Source, packet: Place, now_us: u64) -> Place {
        let seq = self.seq().wrapping_add(1);
        let ts = if self.begun {
            // At least one octet of sound further: two sounds must not share a timestamp.
            self.ts.wrapping_add(samples_between(self.ts_at_us, now_us).max(SAMPLES_PER_MS * 10))
        } else {
            self.ts
        };
        self.source = source;
        self.seq_shift = seq.wrapping_sub(packet.seq);
        self.ts_shift = ts.wrapping_sub(packet.ts);
        self.since_change = 1;
        self.begun = true;
        self.index += i64::from(seq_distance(self.seq(), seq));
        self.ts = ts;
        self.ts_at_us = now_us;
        Place { seq, ts, marker: true }
    }

    /// Remembers the newest numbers. A timestamp that repeats (a telephone event) keeps its time.
    fn note(&mut self, seq: u16, ts: u32, now_us: u64) {
        self.index += i64::from(seq_distance(self.seq(), seq));
        if ts_distance(self.ts, ts) > 0 {
            self.ts = ts;
            self.ts_at_us = now_us;
        }
    }
}

/// Samples that pass between two times; wraps like the timestamp does.
#[expect(clippy::cast_possible_truncation, reason = "RTP timestamps count modulo 2^32")]
fn samples_between(from_us: u64, to_us: u64) -> u32 {
    (to_us.saturating_sub(from_us) * u64::from(RATE_HZ) / 1_000_000) as u32
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

    fn line() -> EgressLine {
        EgressLine::new(&Line { ssrc: 1, seq: 65534, ts: 1000, cname: "c".into() })
    }

    fn at(seq: u16, ts: u32) -> Place {
        Place { seq, ts, marker: false }
    }

    #[test]
    fn the_line_begins_where_the_engine_said_and_keeps_the_gaps_of_its_source() {
        let mut line = line();
        let first = line.relay(7, 1, at(100, 5000), 20_000).unwrap();
        assert_eq!(first, Place { seq: 65534, ts: 1000, marker: true });
        // 101 and 102 are lost; 103 comes, then 102 late.
        let fourth = line.relay(7, 1, at(103, 5480), 80_000).unwrap();
        assert_eq!(fourth, Place { seq: 1, ts: 1480, marker: false });
        assert_eq!(line.relay(7, 1, at(102, 5320), 81_000).unwrap(), at(0, 1320));
    }

    #[test]
    fn another_source_continues_the_line_by_the_clock_with_the_marker() {
        let mut line = line();
        line.relay(7, 1, at(100, 5000), 1_000_000).unwrap();
        let next = line.relay(8, 1, at(40_000, 99), 1_500_000).unwrap();
        assert_eq!(next, Place { seq: 65535, ts: 1000 + 4000, marker: true });
        // The same SSRC over another bridge is another source too.
        let again = line.relay(8, 2, at(40_001, 259), 1_520_000).unwrap();
        assert_eq!(again, Place { seq: 0, ts: 5000 + 160, marker: true });
    }

    #[test]
    fn late_packets_never_reach_behind_the_change_of_source() {
        let mut line = line();
        line.own(160, 0);
        line.own(160, 20_000);
        line.relay(7, 1, at(100, 5000), 40_000).unwrap();
        assert_eq!(line.relay(7, 1, at(99, 4840), 41_000), None);
        line.relay(7, 1, at(101, 5160), 60_000).unwrap();
        assert!(line.relay(7, 1, at(100, 5000), 61_000).is_some());
        assert_eq!(line.relay(7, 1, at(99, 4840), 61_000), None);
    }

    #[test]
    fn a_wild_jump_of_a_source_is_a_new_beginning() {
        for jump in [at(20_100, 5160), at(101, 900_000_000)] {
            let mut line = line();
            line.relay(7, 1, at(100, 5000), 0).unwrap();
            let next = line.relay(7, 1, jump, 20_000).unwrap();
            assert_eq!(next, Place { seq: 65535, ts: 1160, marker: true });
        }
    }

    #[test]
    fn a_packet_left_out_on_purpose_leaves_no_gap() {
        let mut line = line();
        line.relay(7, 1, at(100, 5000), 0).unwrap();
        line.skip(7, 1, 101);
        line.skip(7, 1, 102);
        assert_eq!(line.relay(7, 1, at(103, 5480), 60_000).unwrap(), at(65535, 1480));
    }

    #[test]
    fn our_own_packets_step_by_their_sound() {
        let mut line = line();
        assert_eq!(line.own(160, 0), Place { seq: 65534, ts: 1000, marker: true });
        assert_eq!(line.own(160, 20_000), at(65535, 1160));
        assert_eq!(line.own(0, 40_000), at(0, 1160));
        assert_eq!(line.index(), 65_536);
        line.pause();
        assert_eq!(line.own(160, 1_020_000), Place { seq: 1, ts: 1160 + 8000, marker: true });
    }
}
