//! How a leg sounds: loss, jitter, round trip and an estimate of what a listener would say.
//!
//! Invariant: a packet counts for the source it came from; a source that begins anew begins at zero.

use crate::fact::Quality;
use crate::media::g711::RATE_HZ;
use crate::media::rtcp::Block;
use crate::media::rtp::seq_distance;

/// A sequence that jumps further has begun anew (RFC 3550 A.1).
const MAX_DROPOUT: i32 = 3_000;

/// What one moment's counters were, to take differences from.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    expected: u32,
    received: u32,
}

/// What came from the party's current source (RFC 3550 appendix A).
#[derive(Debug, Default)]
pub struct Reception {
    ssrc: Option<u32>,
    base_seq: u32,
    highest: u32,
    received: u32,
    /// Jitter in samples, times 16 (A.8).
    jitter16: u32,
    transit: Option<u32>,
    last_ts: u32,
    reported: Mark,
    rated: Mark,
}

impl Reception {
    /// A packet of sound came. `timed` is false where the timestamp does not tell when (events).
    pub fn note(&mut self, ssrc: u32, seq: u16, ts: u32, timed: bool, now_us: u64) {
        if self.ssrc != Some(ssrc) || self.jumped(seq) {
            *self = Self {
                ssrc: Some(ssrc),
                base_seq: u32::from(seq),
                highest: u32::from(seq),
                ..Self::default()
            };
        }
        let ahead = seq_distance(low(self.highest), seq);
        if ahead > 0 {
            self.highest = self.highest.wrapping_add(ahead.unsigned_abs());
        }
        self.received = self.received.wrapping_add(1);
        if timed {
            self.note_jitter(ts, now_us);
        }
    }

    fn jumped(&self, seq: u16) -> bool {
        !(-MAX_DROPOUT..=MAX_DROPOUT).contains(&seq_distance(low(self.highest), seq))
    }

    /// RFC 3550 A.8, in integers.
    fn note_jitter(&mut self, ts: u32, now_us: u64) {
        let transit = samples(now_us).wrapping_sub(ts);
        if let Some(before) = self.transit {
            let apart = transit.wrapping_sub(before).cast_signed().unsigned_abs();
            // A clock that jumps (a transfer behind the party's gateway) is no jitter.
            if apart < RATE_HZ {
                self.jitter16 = self.jitter16 + apart - ((self.jitter16 + 8) >> 4);
            }
        }
        self.transit = Some(transit);
        self.last_ts = ts;
    }

    /// The party's source, once anything came.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Its highest sequence number with its cycles.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Packets received since the source began.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Interarrival jitter, milliseconds.
    pub fn jitter_ms(&self) -> f32 {
        share(self.jitter16, 16 * RATE_HZ / 1_000)
    }

    fn expected(&self) -> u32 {
        self.highest.wrapping_sub(self.base_seq).wrapping_add(1)
    }

    fn since(&self, mark: Mark) -> (u32, u32) {
        let expected = self.expected().wrapping_sub(mark.expected);
        let received = self.received.wrapping_sub(mark.received);
        (expected, expected.saturating_sub(received))
    }

    fn mark(&self) -> Mark {
        Mark { expected: self.expected(), received: self.received }
    }

    /// A block for our report (RFC 3550 A.3); its last two fields are the caller's.
    pub fn report(&mut self) -> Option<Block> {
        let ssrc = self.ssrc?;
        let (expected, lost) = self.since(self.reported);
        self.reported = self.mark();
        let fraction = lost.saturating_mul(256).checked_div(expected).unwrap_or(0);
        Some(Block {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            lost: self.expected().wrapping_sub(self.received).cast_signed(),
            highest_seq: self.highest,
            jitter: self.jitter16 >> 4,
            last_sr: 0,
            delay: 0,
        })
    }

    /// Share lost, jitter, and packets lost since the last call; `None` when nothing was to be heard.
    pub fn rate(&mut self) -> Option<(f32, f32, u32)> {
        self.ssrc?;
        let (expected, lost) = self.since(self.rated);
        self.rated = self.mark();
        (expected > 0).then(|| (share(lost, expected), self.jitter_ms(), lost))
    }
}

/// Adds the estimate to measured figures.
pub fn judged(loss_in: f32, loss_out: f32, jitter_ms: f32, rtt_ms: f32) -> Quality {
    Quality { loss_in, loss_out, jitter_ms, rtt_ms, mos: mos(loss_in, jitter_ms, rtt_ms) }
}

/// Simplified E-model for G.711 with packet loss concealment (ITU-T G.107, G.113 appendix I: Ie 0,
/// Bpl 25.1): delay is half the round trip and a jitter buffer of twice the jitter plus one packet.
pub fn mos(loss: f32, jitter_ms: f32, rtt_ms: f32) -> f32 {
    let delay = rtt_ms / 2.0 + 2.0 * jitter_ms + 20.0;
    let echoless = 0.024 * delay + if delay > 177.3 { 0.11 * (delay - 177.3) } else { 0.0 };
    let percent = 100.0 * loss.clamp(0.0, 1.0);
    let damage = 95.0 * percent / (percent + 25.1);
    let rating = (93.2 - echoless - damage).clamp(0.0, 100.0);
    1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7.0e-6
}

#[expect(clippy::cast_possible_truncation, reason = "RTP timestamps count modulo 2^32")]
fn samples(now_us: u64) -> u32 {
    (now_us * u64::from(RATE_HZ) / 1_000_000) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the sequence number without its cycles")]
fn low(highest: u32) -> u16 {
    highest as u16
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn share(part: u32, whole: u32) -> f32 {
    part as f32 / whole.max(1) as f32
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

    #[test]
    fn loss_is_what_did_not_come_over_the_wrap_too() {
        let mut reception = Reception::default();
        for step in 0..200u32 {
            if step % 10 != 3 {
                let seq = 65_500u16.wrapping_add(step as u16);
                reception.note(7, seq, step * 160, true, u64::from(step) * 20_000);
            }
        }
        let block = reception.report().unwrap();
        assert_eq!((block.lost, block.fraction_lost), (20, 25));
        assert_eq!(block.highest_seq, 65_500 + 199);
        let (loss, jitter, _) = reception.rate().unwrap();
        assert!((loss - 0.1).abs() < 1e-6 && jitter < 0.01);
        assert_eq!(reception.rate(), None, "nothing new");
    }

    #[test]
    fn jitter_grows_with_uneven_arrival() {
        let mut reception = Reception::default();
        for step in 0..400u32 {
            let late = u64::from(step % 2) * 10_000;
            reception.note(7, step as u16, step * 160, true, u64::from(step) * 20_000 + late);
        }
        assert!((9.0..10.5).contains(&reception.jitter_ms()), "{}", reception.jitter_ms());
    }

    #[test]
    fn another_source_or_a_wild_jump_begins_at_zero() {
        for (ssrc, seq) in [(8, 101), (7, 30_000)] {
            let mut reception = Reception::default();
            reception.note(7, 100, 0, true, 0);
            reception.note(ssrc, seq, 160, true, 20_000);
            assert_eq!(reception.report().unwrap().lost, 0);
            assert_eq!(reception.received(), 1);
        }
    }

    #[test]
    fn the_estimate_falls_with_each_trouble() {
        let clean = mos(0.0, 0.0, 0.0);
        assert!((4.3..4.5).contains(&clean), "{clean}");
        assert!(mos(0.05, 0.0, 0.0) < clean - 0.3);
        assert!(mos(0.0, 0.0, 600.0) < clean - 0.5);
        assert!(mos(0.0, 60.0, 0.0) < clean);
        assert!((1.0..1.5).contains(&mos(1.0, 100.0, 2_000.0)));
    }
}
