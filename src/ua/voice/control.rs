//! RTCP of one end: what it says about what it hears, as a browser does (RFC 3550 section 6).

use crate::media::rtcp::{self, Block, MAX_COMPOUND, Sent};
use crate::media::rtp::{Header, seq_distance, ts_distance};

/// Between reports, milliseconds.
const EVERY_MS: u64 = 5_000;
/// The first one comes sooner, so that short calls have one.
const FIRST_MS: u64 = 1_000;

/// Counts for reports.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    due_ms: Option<u64>,
    source: Option<Source>,
    /// The middle of the other end's last report, and when it came.
    last_report: Option<(u32, u64)>,
    /// The other end's last word about us.
    pub(super) about_us: Option<Block>,
    /// Milliseconds to the other end and back, by its last report.
    pub(super) round_trip_ms: Option<f32>,
}

/// Who is heard.
#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    first_seq: u32,
    highest_seq: u32,
    received: u32,
    /// At the last report: what was expected and what came.
    before: (u32, u32),
    /// Arrival and timestamp of the last packet, in samples.
    last: (u32, u32),
    /// Sixteen times the jitter, in samples (RFC 3550 appendix A.8).
    jitter: u32,
}

impl Control {
    /// A packet was heard.
    pub(super) fn heard(&mut self, header: &Header, now_ms: u64) {
        let arrival = u32::try_from(now_ms.wrapping_mul(8) & u64::from(u32::MAX)).unwrap_or(0);
        let seq = u32::from(header.seq);
        let Some(source) = self.source.as_mut().filter(|source| source.ssrc == header.ssrc) else {
            self.source = Some(Source {
                ssrc: header.ssrc,
                first_seq: seq,
                highest_seq: seq,
                received: 1,
                before: (0, 0),
                last: (arrival, header.ts),
                jitter: 0,
            });
            return;
        };
        source.received += 1;
        let ahead = seq_distance(u16::try_from(source.highest_seq & 0xffff).unwrap_or(0), header.seq);
        source.highest_seq = source.highest_seq.wrapping_add(u32::try_from(ahead).unwrap_or(0));
        let transit = ts_distance(source.last.0, arrival).wrapping_sub(ts_distance(source.last.1, header.ts));
        source.last = (arrival, header.ts);
        source.jitter = (source.jitter + transit.unsigned_abs()).saturating_sub((source.jitter + 8) >> 4);
    }

    /// A compound of the other end came.
    pub(super) fn read(&mut self, compound: &[u8], ours: u32, now_ms: u64) {
        let Some(heard) = rtcp::read(compound, ours) else { return };
        if let Some(middle) = heard.middle_ntp {
            self.last_report = Some((middle, now_ms));
        }
        if let Some(block) = heard.block {
            self.round_trip_ms = rtcp::round_trip_ms(&block, now_ms * 1_000);
            self.about_us = Some(block);
        }
    }

    /// The compound that is due, if one is. `sent` are our packets, octets and present timestamp.
    pub(super) fn report(&mut self, ssrc: u32, sent: (u32, u32, u32), now_ms: u64) -> Option<Vec<u8>> {
        let due = *self.due_ms.get_or_insert(now_ms + FIRST_MS);
        if now_ms < due {
            return None;
        }
        self.due_ms = Some(now_ms + EVERY_MS);
        let (packets, octets, ts) = sent;
        let sent = Sent { ntp: rtcp::ntp(now_ms * 1_000), ts, packets, octets };
        let block = self.block(now_ms);
        let mut out = vec![0; MAX_COMPOUND];
        let len = rtcp::write(&mut out, ssrc, (packets > 0).then_some(&sent), block.as_ref(), "tandem-ua")?;
        out.truncate(len);
        Some(out)
    }

    /// RFC 3550 appendix A.3.
    fn block(&mut self, now_ms: u64) -> Option<Block> {
        let source = self.source.as_mut()?;
        let expected = source.highest_seq.wrapping_sub(source.first_seq) + 1;
        let (was_expected, was_received) = std::mem::replace(&mut source.before, (expected, source.received));
        let (expected_now, received_now) = (expected - was_expected, source.received - was_received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255);
        let (last_sr, at) = self.last_report.unwrap_or((0, now_ms));
        let delay = now_ms.saturating_sub(at).saturating_mul(65_536) / 1_000;
        Some(Block {
            ssrc: source.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(255),
            lost: i32::try_from(i64::from(expected) - i64::from(source.received)).unwrap_or(i32::MAX),
            highest_seq: source.highest_seq,
            jitter: source.jitter >> 4,
            last_sr,
            delay: u32::try_from(delay).unwrap_or(u32::MAX),
        })
    }
}
