//! The RTP packet, read and written in place (RFC 3550 section 5.1).
//!
//! Invariant: a packet that is read has all the octets that its header promises; nothing is copied and
//! nothing is allocated.

use std::ops::Range;

/// The fixed header, the only one we write: no CSRC, no extension, no padding.
pub const HEADER_LEN: usize = 12;

/// The largest datagram of ours and the largest that is looked at: an Ethernet frame.
pub const MAX_DATAGRAM: usize = 1500;

/// What a datagram is, by its first octets (RFC 7983 section 7, RFC 5761 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// STUN: first octet 0-3.
    Stun,
    /// DTLS: first octet 20-63.
    Dtls,
    /// RTP or SRTP.
    Rtp,
    /// RTCP or SRTCP.
    Rtcp,
    /// Nothing that we speak.
    Unknown,
}

/// Sorts a datagram.
pub fn class(datagram: &[u8]) -> Class {
    match (datagram.first(), datagram.get(1)) {
        (Some(0..=3), _) => Class::Stun,
        (Some(20..=63), _) => Class::Dtls,
        // Payload types 64-95 with the marker set are RTCP packet types 192-223.
        (Some(128..=191), Some(192..=223)) => Class::Rtcp,
        (Some(128..=191), Some(_)) => Class::Rtp,
        (Some(_) | None, _) => Class::Unknown,
    }
}

/// A header, and where the payload lies in its datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Begins a talk spurt or an event.
    pub marker: bool,
    /// 0…127.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp, 8 kHz.
    pub ts: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Where the payload lies: CSRCs, extension and padding are outside.
    pub payload: Range<usize>,
}

/// Reads a header; `None` when the datagram is shorter than it says or not version 2.
pub fn read(datagram: &[u8]) -> Option<Header> {
    let (fixed, _) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let [first, second, seq_high, seq_low, t0, t1, t2, t3, s0, s1, s2, s3] = *fixed;
    if first >> 6 != 2 {
        return None;
    }
    let start = payload_start(datagram, first)?;
    let end = payload_end(datagram, first)?;
    (start <= end).then_some(Header {
        marker: second & 0x80 != 0,
        payload_type: second & 0x7f,
        seq: u16::from_be_bytes([seq_high, seq_low]),
        ts: u32::from_be_bytes([t0, t1, t2, t3]),
        ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        payload: start..end,
    })
}

/// Behind the CSRC list and the extension (RFC 3550 section 5.3.1).
fn payload_start(datagram: &[u8], first: u8) -> Option<usize> {
    let start = HEADER_LEN + 4 * usize::from(first & 0x0f);
    if first & 0x10 == 0 {
        return Some(start);
    }
    let (head, _) = datagram.get(start..)?.split_first_chunk::<4>()?;
    let [_, _, high, low] = *head;
    Some(start + 4 + 4 * usize::from(u16::from_be_bytes([high, low])))
}

/// Before the padding, whose last octet counts itself.
fn payload_end(datagram: &[u8], first: u8) -> Option<usize> {
    if first & 0x20 == 0 {
        return Some(datagram.len());
    }
    match usize::from(*datagram.last()?) {
        0 => None,
        padding => datagram.len().checked_sub(padding),
    }
}

/// Writes our header at the front of `out`; `None` when it does not fit.
pub fn write(out: &mut [u8], marker: bool, payload_type: u8, seq: u16, ts: u32, ssrc: u32) -> Option<()> {
    let (fixed, _) = out.split_first_chunk_mut::<HEADER_LEN>()?;
    let [seq_high, seq_low] = seq.to_be_bytes();
    let [t0, t1, t2, t3] = ts.to_be_bytes();
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    let second = (payload_type & 0x7f) | if marker { 0x80 } else { 0 };
    *fixed = [0x80, second, seq_high, seq_low, t0, t1, t2, t3, s0, s1, s2, s3];
    Some(())
}

/// How far `to` is ahead of `from` on the 16-bit circle: negative when behind.
pub fn seq_distance(from: u16, to: u16) -> i32 {
    i32::from(to.wrapping_sub(from).cast_signed())
}

/// How far `to` is ahead of `from` on the 32-bit circle: negative when behind.
pub fn ts_distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
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

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER_LEN];
        write(&mut out, true, 8, 65535, 0xfffffff0, 0xdeadbeef).unwrap();
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let header = read(&packet(&[1, 2, 3])).unwrap();
        assert_eq!(
            header,
            Header {
                marker: true,
                payload_type: 8,
                seq: 65535,
                ts: 0xfffffff0,
                ssrc: 0xdeadbeef,
                payload: 12..15
            }
        );
    }

    #[test]
    fn sources_extension_and_padding_are_outside_the_payload() {
        let mut bytes = packet(&[]);
        bytes[0] = 0x80 | 0x20 | 0x10 | 2;
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        bytes.extend_from_slice(&[7, 7, 7, 0, 0, 3]);
        assert_eq!(read(&bytes).unwrap().payload, 28..31);
    }

    #[test]
    fn a_packet_shorter_than_it_says_is_none() {
        let good = packet(&[5]);
        assert!(read(&good[..11]).is_none());
        for first in [0x00, 0x40, 0xc0, 0x8f, 0x90, 0xa0] {
            let mut bytes = good.clone();
            bytes[0] = first;
            assert!(read(&bytes).is_none(), "first octet {first:#x}");
        }
        let mut huge = packet(&[0xbe, 0xde, 0xff, 0xff]);
        huge[0] = 0x90;
        assert!(read(&huge).is_none());
    }

    #[test]
    fn datagrams_are_sorted_by_their_first_octets() {
        for (first, second, expected) in [
            (0, 1, Class::Stun),
            (3, 0, Class::Stun),
            (4, 0, Class::Unknown),
            (22, 254, Class::Dtls),
            (63, 0, Class::Dtls),
            (64, 0, Class::Unknown),
            (128, 8, Class::Rtp),
            (128, 0x80 | 101, Class::Rtp),
            (128, 200, Class::Rtcp),
            (129, 201, Class::Rtcp),
            (192, 0, Class::Unknown),
        ] {
            assert_eq!(class(&[first, second, 0, 0]), expected, "{first} {second}");
        }
        assert_eq!(class(&[]), Class::Unknown);
        assert_eq!(class(&[128]), Class::Unknown);
    }

    #[test]
    fn distances_go_round_the_circle() {
        assert_eq!(seq_distance(65535, 1), 2);
        assert_eq!(seq_distance(1, 65535), -2);
        assert_eq!(ts_distance(u32::MAX, 159), 160);
    }
}
