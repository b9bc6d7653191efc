//! RTCP: what each side says about the sound it hears (RFC 3550 section 6).
//!
//! A compound of ours is a sender or receiver report with at most one block, followed by SDES CNAME. From
//! the party we take its reports about us and the time of its own; a BYE has no say in a call, SIP has.
//!
//! Invariant: reading never looks outside its datagram and allocates nothing.

/// The longest compound of ours: SR with one block, SDES with a CNAME of 255 octets.
pub const MAX_COMPOUND: usize = 52 + 12 + 256;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const SDES_CNAME: u8 = 1;

/// What a report block says (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Block {
    /// Whose packets.
    pub ssrc: u32,
    /// Lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Lost since the beginning, 24 bits, negative when duplicates outnumber losses.
    pub lost: i32,
    /// Highest sequence number with its cycles above.
    pub highest_seq: u32,
    /// Jitter in samples.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's time; 0 when there was none.
    pub last_sr: u32,
    /// Since that report, in 1/65536 s.
    pub delay: u32,
}

/// What a sender report says of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// When, in NTP format: seconds and fraction of some clock.
    pub ntp: u64,
    /// The same instant on the RTP clock.
    pub ts: u32,
    /// Packets since the beginning.
    pub packets: u32,
    /// Octets of payload since the beginning.
    pub octets: u32,
}

/// What a compound told us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Who reports.
    pub ssrc: u32,
    /// The middle 32 bits of its sender report's time.
    pub middle_ntp: Option<u32>,
    /// What it says about us.
    pub block: Option<Block>,
}

/// Microseconds of any steady clock in NTP format (RFC 3550 section 4 allows an elapsed-time clock).
pub fn ntp(now_us: u64) -> u64 {
    let seconds = now_us / 1_000_000;
    let fraction = ((now_us % 1_000_000) << 32) / 1_000_000;
    (seconds << 32) | fraction
}

/// The middle 32 bits of an NTP time: units of 1/65536 s.
#[expect(clippy::cast_possible_truncation, reason = "the middle 32 bits are what is asked for")]
pub fn middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round trip in milliseconds: now minus the time of our report minus the party's delay (section 6.4.1).
/// `None` before it has a report of ours, or when the figures make no sense.
pub fn round_trip_ms(block: &Block, now_us: u64) -> Option<f32> {
    if block.last_sr == 0 {
        return None;
    }
    let trip = middle(ntp(now_us)).wrapping_sub(block.last_sr).wrapping_sub(block.delay);
    // More than a minute is a forged or broken report; a tiny negative figure is the party's rounding.
    match trip.cast_signed() {
        -655..=0 => Some(0.0),
        1..=3_932_160 => Some(to_f32(trip) / 65.536),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn to_f32(value: u32) -> f32 {
    value as f32
}

/// Reads a compound; `None` when it is not one (section A.2). Only what is said about `ours` is kept.
pub fn read(datagram: &[u8], ours: u32) -> Option<Heard> {
    let mut rest = datagram;
    let mut heard: Option<Heard> = None;
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let [first, kind, high, low] = *head;
        let len = 4 * (1 + usize::from(u16::from_be_bytes([high, low])));
        let (packet, next) = rest.split_at_checked(len)?;
        if first >> 6 != 2 {
            return None;
        }
        if heard.is_none() && kind != SR && kind != RR {
            // Section 6.1: the first packet of a compound is a report. Reduced-size RTCP
            // (RFC 5506: bare feedback) is not agreed in our SDP.
            return None;
        }
        if kind == SR || kind == RR {
            take_report(packet, kind == SR, first & 0x1f, ours, heard.get_or_insert_default())?;
        }
        rest = next;
    }
    if rest.is_empty() { heard } else { None }
}

fn take_report(packet: &[u8], sender: bool, count: u8, ours: u32, heard: &mut Heard) -> Option<()> {
    heard.ssrc = word(packet, 4)?;
    let mut at = 8;
    if sender {
        heard.middle_ntp = Some((word(packet, 8)? << 16) | (word(packet, 12)? >> 16));
        at = 28;
    }
    for _ in 0..count {
        let block = read_block(packet.get(at..at + 24)?)?;
        if block.ssrc == ours {
            heard.block = Some(block);
        }
        at += 24;
    }
    Some(())
}

fn read_block(bytes: &[u8]) -> Option<Block> {
    let loss = word(bytes, 4)?;
    Some(Block {
        ssrc: word(bytes, 0)?,
        fraction_lost: *bytes.get(4)?,
        lost: (loss << 8).cast_signed() >> 8,
        highest_seq: word(bytes, 8)?,
        jitter: word(bytes, 12)?,
        last_sr: word(bytes, 16)?,
        delay: word(bytes, 20)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let (chunk, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*chunk))
}

/// Writes our compound to the front of `out`: SR when we sent, else RR; at most one block; SDES CNAME.
/// `None` when `out` is shorter than [`MAX_COMPOUND`] asks for.
pub fn write(
    out: &mut [u8],
    ssrc: u32,
    sent: Option<&Sent>,
    block: Option<&Block>,
    cname: &str,
) -> Option<usize> {
    let mut pen = Pen { out, at: 0 };
    let blocks = u8::from(block.is_some());
    let words = if sent.is_some() { 6 } else { 1 } + if blocks == 1 { 6 } else { 0 };
    pen.octets(&[0x80 | blocks, if sent.is_some() { SR } else { RR }, 0, words])?;
    pen.word(ssrc)?;
    if let Some(sent) = sent {
        pen.octets(&sent.ntp.to_be_bytes())?;
        pen.word(sent.ts)?;
        pen.word(sent.packets)?;
        pen.word(sent.octets)?;
    }
    if let Some(block) = block {
        write_block(&mut pen, block)?;
    }
    write_cname(&mut pen, ssrc, cname)?;
    Some(pen.at)
}

fn write_block(pen: &mut Pen<'_>, block: &Block) -> Option<()> {
    let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
    pen.word(block.ssrc)?;
    pen.word((u32::from(block.fraction_lost) << 24) | lost)?;
    pen.word(block.highest_seq)?;
    pen.word(block.jitter)?;
    pen.word(block.last_sr)?;
    pen.word(block.delay)
}

/// Section 6.5: one chunk with one item, closed by at least one zero octet up to a whole word.
fn write_cname(pen: &mut Pen<'_>, ssrc: u32, cname: &str) -> Option<()> {
    let name = cname.as_bytes();
    let name = name.get(..name.len().min(255))?;
    let name_len = u8::try_from(name.len()).ok()?;
    let padding = 4 - (2 + name.len()) % 4;
    let words = u8::try_from((4 + 2 + name.len() + padding) / 4).ok()?;
    pen.octets(&[0x81, SDES, 0, words])?;
    pen.word(ssrc)?;
    pen.octets(&[SDES_CNAME, name_len])?;
    pen.octets(name)?;
    pen.octets([0; 4].get(..padding)?)
}

struct Pen<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Pen<'_> {
    fn octets(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    fn word(&mut self, value: u32) -> Option<()> {
        self.octets(&value.to_be_bytes())
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

    fn block() -> Block {
        Block {
            ssrc: 42,
            fraction_lost: 25,
            lost: -3,
            highest_seq: 0x10005,
            jitter: 80,
            last_sr: 7,
            delay: 9,
        }
    }

    #[test]
    fn a_sender_report_is_read_as_it_was_written() {
        let mut out = [0; MAX_COMPOUND];
        let sent = Sent { ntp: 0x1122_3344_5566_7788, ts: 5, packets: 6, octets: 7 };
        let len = write(&mut out, 9, Some(&sent), Some(&block()), "abc").unwrap();
        assert_eq!(len % 4, 0);
        let heard = read(&out[..len], 42).unwrap();
        assert_eq!(heard, Heard { ssrc: 9, middle_ntp: Some(0x3344_5566), block: Some(block()) });
    }

    #[test]
    fn every_length_of_name_makes_whole_words() {
        for len in 0..=300 {
            let mut out = [0; MAX_COMPOUND];
            let written = write(&mut out, 9, None, None, &"x".repeat(len)).unwrap();
            assert_eq!(read(&out[..written], 1), Some(Heard { ssrc: 9, ..Heard::default() }), "length {len}");
        }
    }

    #[test]
    fn reports_about_others_are_left_out_and_a_bye_is_nothing() {
        let mut out = [0; MAX_COMPOUND];
        let len = write(&mut out, 9, None, Some(&block()), "abc").unwrap();
        let mut bytes = out[..len].to_vec();
        bytes.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 9]);
        assert_eq!(read(&bytes, 43).unwrap().block, None);
    }

    #[test]
    fn what_is_no_compound_is_none() {
        let mut out = [0; MAX_COMPOUND];
        let len = write(&mut out, 9, None, Some(&block()), "abc").unwrap();
        for cut in 1..len {
            let cut_inside = &out[..cut];
            if cut != 32 {
                assert_eq!(read(cut_inside, 42), None, "cut at {cut}");
            }
        }
        assert_eq!(read(&[], 42), None);
        assert_eq!(read(&[0x81, 203, 0, 1, 0, 0, 0, 9], 42), None, "a bare BYE");
        assert_eq!(read(&[0x9f, 201, 0, 1, 0, 0, 0, 9], 42), None, "31 blocks promised, none there");
    }

    #[test]
    fn the_round_trip_leaves_out_the_partys_delay() {
        let sent_us = 5_000_000_000;
        let report = Block { last_sr: middle(ntp(sent_us)), delay: 65_536 / 2, ..Block::default() };
        let trip = round_trip_ms(&report, sent_us + 540_000).unwrap();
        assert!((trip - 40.0).abs() < 0.1, "{trip}");
        assert_eq!(round_trip_ms(&Block::default(), sent_us), None);
        assert_eq!(round_trip_ms(&report, sent_us), None);
    }
}
