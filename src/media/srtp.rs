//! SRTP and SRTCP of a browser leg: what keeps the talk between a customer and an operator unreadable on
//! the way (RFC 3711, RFC 7714), of our own because a standby must take over key, roll-over count and index,
//! which every crate hides.
//!
//! Invariant: a packet that fails authentication changes nothing; an index is never sent twice under one
//! key, since GCM loses its secrecy with the first repeated nonce (RFC 7714 section 8.4); no packet costs an
//! allocation.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::suite::{Label, Suite};
use crate::media::command::{Keys, PortProgress};
use crate::terms::Secret;

mod suite;

/// What protecting adds to a packet at most (SRTCP with GCM): so much room must be behind it.
pub const MAX_OVERHEAD: usize = 20;
/// How many SSRCs a direction remembers. A receiver forgets the one silent for longest; a sender refuses
/// more, because a forgotten SSRC that comes back would repeat its indices.
pub const MAX_SOURCES: usize = 4;

/// The largest SRTP index: 32 bits of roll-over count above 16 of sequence (RFC 3711 section 3.3.1).
const LAST_RTP_INDEX: u64 = (1 << 48) - 1;
/// The largest SRTCP index, 31 bits (RFC 3711 section 3.4).
const LAST_RTCP_INDEX: u64 = (1 << 31) - 1;
/// The bit that says "encrypted" in front of the SRTCP index (RFC 3711 section 3.4).
const ENCRYPTED: u32 = 1 << 31;
/// What of an RTCP packet stays readable: the first word and the SSRC.
const RTCP_CLEAR: usize = 8;
/// The E bit and the SRTCP index.
const RTCP_INDEX_LEN: usize = 4;

/// How packets are protected (IANA "DTLS-SRTP Protection Profiles").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Profile {
    /// `SRTP_AES128_CM_HMAC_SHA1_80`, number 1 (RFC 5764 section 4.1.2).
    Aes128CmSha1_80,
    /// `SRTP_AEAD_AES_128_GCM`, number 7 (RFC 7714 section 14.2).
    AeadAes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`, number 8.
    AeadAes256Gcm,
}

impl Profile {
    /// All, the cheapest to run first.
    pub const ALL: [Self; 3] = [Self::AeadAes128Gcm, Self::AeadAes256Gcm, Self::Aes128CmSha1_80];

    /// The profile of an IANA number, if it is one of ours.
    pub fn from_iana(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.iana() == number)
    }

    /// Its IANA number, as [`Keys::profile`] has it.
    pub fn iana(self) -> u16 {
        match self {
            Self::Aes128CmSha1_80 => 1,
            Self::AeadAes128Gcm => 7,
            Self::AeadAes256Gcm => 8,
        }
    }

    /// Octets of a master key.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Octets of a master salt.
    pub fn salt_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Octets of the authentication tag.
    fn tag_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 10,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Octets that DTLS exports for both directions.
    pub fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Divides what DTLS exported: client key, server key, client salt, server salt (RFC 5764 section 4.2).
    /// `None` when it has the wrong length.
    pub fn split(self, material: &[u8], we_are_client: bool) -> Option<Keys> {
        if material.len() != self.keying_material_len() {
            return None;
        }
        let (keys, salts) = material.split_at(2 * self.key_len());
        let (client_key, server_key) = keys.split_at(self.key_len());
        let (client_salt, server_salt) = salts.split_at(self.salt_len());
        let client = Secret::new([client_key, client_salt].concat());
        let server = Secret::new([server_key, server_salt].concat());
        let (local, remote) = if we_are_client { (client, server) } else { (server, client) };
        Some(Keys { profile: self.iana(), local, remote })
    }
}

/// Why a packet was not taken. The octets of a refused packet are spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no RTP or RTCP packet, or too short to be protected, or its SRTCP is not encrypted.
    Malformed,
    /// Its index was seen before, or is too old to know; when sending, it was used before.
    Replayed,
    /// Its tag is wrong.
    Forged,
    /// There is no room behind the packet for what protection adds.
    NoRoom,
    /// The key must not protect more (2^48 packets, 2^31 of RTCP, [`MAX_SOURCES`]).
    Exhausted,
}

/// The highest index and which of the 64 up to it are spent (RFC 3711 section 3.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// The highest index.
    pub highest: u64,
    /// Bit `n`: `highest - n` is spent. 0: nothing came yet.
    pub seen: u64,
}

impl Window {
    /// Everything up to `highest` counts as spent.
    pub fn spent_to(highest: u64) -> Self {
        Self { highest, seen: u64::MAX }
    }

    fn is_empty(self) -> bool {
        self.seen == 0
    }

    fn is_fresh(self, index: u64) -> bool {
        if self.is_empty() || index > self.highest {
            return true;
        }
        let age = self.highest - index;
        age < u64::from(u64::BITS) && self.seen >> age & 1 == 0
    }

    fn spend(&mut self, index: u64) {
        if self.is_empty() {
            *self = Self { highest: index, seen: 1 };
        } else if index > self.highest {
            let by = u32::try_from(index - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(by).unwrap_or(0) | 1;
            self.highest = index;
        } else if let Ok(age) = u32::try_from(self.highest - index) {
            self.seen |= 1_u64.checked_shl(age).unwrap_or(0);
        }
    }

    /// The index that a sequence number most likely has (RFC 3711 section 3.3.1, appendix A); `None` before
    /// the first or behind the last roll-over.
    fn guess(self, seq: u16) -> Option<u64> {
        const HALF: u64 = 1 << 15;
        let seq = u64::from(seq);
        if self.is_empty() {
            return Some(seq);
        }
        let (roc, last) = (self.highest >> 16, self.highest & 0xffff);
        let roc = if last < HALF {
            if seq > last + HALF { roc.checked_sub(1)? } else { roc }
        } else if last - HALF > seq {
            roc + 1
        } else {
            roc
        };
        let index = roc << 16 | seq;
        (index <= LAST_RTP_INDEX).then_some(index)
    }
}

/// One SSRC in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who.
    pub ssrc: u32,
    /// Its RTP: roll-over count × 65536 + sequence.
    pub rtp: Window,
    /// Its RTCP: the SRTCP index, from 1.
    pub rtcp: Window,
}

impl Source {
    fn new(ssrc: u32) -> Self {
        Self { ssrc, rtp: Window::default(), rtcp: Window::default() }
    }
}

/// Everything that another process needs to go on with a leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrtpState {
    /// Profile, keys, salts.
    pub keys: Keys,
    /// What we sent.
    pub sent: Vec<Source>,
    /// What the party sent, the last heard first.
    pub received: Vec<Source>,
}

impl SrtpState {
    /// From what the engine records of a port: `our_ssrc` is that of its line. Indices of 0 mean "none yet".
    pub fn resume(keys: Keys, our_ssrc: u32, progress: &PortProgress) -> Self {
        let reached = |index: u64| if index == 0 { Window::default() } else { Window::spent_to(index) };
        let sent = Source {
            ssrc: our_ssrc,
            rtp: reached(progress.sent_index),
            rtcp: reached(u64::from(progress.sent_rtcp_index)),
        };
        let received = progress.received.map(|(ssrc, index)| Source {
            ssrc,
            // Index 0 was received here, or there would be no entry.
            rtp: Window::spent_to(index),
            rtcp: reached(u64::from(progress.received_rtcp_index)),
        });
        Self { keys, sent: vec![sent], received: received.into_iter().collect() }
    }
}

/// One direction: its session keys and its sources, the last used first.
struct Direction {
    rtp: Suite,
    rtcp: Suite,
    sources: Vec<Source>,
}

impl Direction {
    fn new(profile: Profile, master: &Secret<Vec<u8>>, known: &[Source]) -> Option<Self> {
        let mut sources = Vec::with_capacity(MAX_SOURCES);
        sources.extend(known.iter().take(MAX_SOURCES));
        Some(Self {
            rtp: Suite::derive(profile, master.expose(), Label::Rtp)?,
            rtcp: Suite::derive(profile, master.expose(), Label::Rtcp)?,
            sources,
        })
    }

    /// What is known of an SSRC; a new one changes nothing until [`Direction::keep`].
    fn source(&self, ssrc: u32) -> Source {
        self.find(ssrc).copied().unwrap_or(Source::new(ssrc))
    }

    fn find(&self, ssrc: u32) -> Option<&Source> {
        self.sources.iter().find(|source| source.ssrc == ssrc)
    }

    fn is_full_for(&self, ssrc: u32) -> bool {
        self.sources.len() >= MAX_SOURCES && self.find(ssrc).is_none()
    }

    /// Puts what an authentic packet taught in front.
    fn keep(&mut self, source: Source) {
        let at = self.sources.iter().position(|known| known.ssrc == source.ssrc);
        match at {
            Some(0) => {}
            Some(at) => {
                if let Some(up_to) = self.sources.get_mut(..=at) {
                    up_to.rotate_right(1);
                }
            }
            None => {
                self.sources.truncate(MAX_SOURCES - 1);
                self.sources.insert(0, source);
            }
        }
        if let Some(first) = self.sources.first_mut() {
            *first = source;
        }
    }
}

/// Both directions of one leg.
pub struct Srtp {
    keys: Keys,
    overhead: usize,
    sent: Direction,
    received: Direction,
}

impl Srtp {
    /// Fresh from DTLS; `None` when the profile is not ours or a length is wrong.
    pub fn new(keys: &Keys) -> Option<Self> {
        Self::restore(&SrtpState { keys: keys.clone(), sent: Vec::new(), received: Vec::new() })
    }

    /// As recorded; [`Srtp::jump`] comes before anything is sent.
    pub fn restore(state: &SrtpState) -> Option<Self> {
        let profile = Profile::from_iana(state.keys.profile)?;
        Some(Self {
            keys: state.keys.clone(),
            overhead: profile.tag_len(),
            sent: Direction::new(profile, &state.keys.local, &state.sent)?,
            received: Direction::new(profile, &state.keys.remote, &state.received)?,
        })
    }

    /// For the record.
    pub fn state(&self) -> SrtpState {
        SrtpState {
            keys: self.keys.clone(),
            sent: self.sent.sources.clone(),
            received: self.received.sources.clone(),
        }
    }

    /// Moves all that was sent `by` packets forward: further than the process before can have come since its
    /// last record. The next RTP packet has the sequence number behind [`Srtp::sent_index`]; a source that
    /// had sent no RTP yet begins where its port says.
    pub fn jump(&mut self, by: u32) {
        for source in &mut self.sent.sources {
            if !source.rtp.is_empty() {
                source.rtp = Window::spent_to(source.rtp.highest.saturating_add(u64::from(by)));
            }
            source.rtcp = Window::spent_to(source.rtcp.highest.saturating_add(u64::from(by)));
        }
    }

    /// Protects the first `len` octets of `buf`, an RTP packet, in place. The new length.
    pub fn protect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, Refused> {
        let end = len + self.overhead;
        let packet = buf.get_mut(..end).ok_or(Refused::NoRoom)?;
        let head = RtpHead::read(packet.get(..len).unwrap_or_default()).ok_or(Refused::Malformed)?;
        if self.sent.is_full_for(head.ssrc) {
            return Err(Refused::Exhausted);
        }
        let mut source = self.sent.source(head.ssrc);
        let index = source.rtp.guess(head.seq).ok_or(Refused::Exhausted)?;
        if !source.rtp.is_fresh(index) {
            return Err(Refused::Replayed);
        }
        self.sent.rtp.seal_rtp(packet, head.len, head.ssrc, index).ok_or(Refused::Malformed)?;
        source.rtp.spend(index);
        self.sent.keep(source);
        Ok(end)
    }

    /// Checks an SRTP packet and decrypts it in place. The length of the RTP packet.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        let head = RtpHead::read(packet).ok_or(Refused::Malformed)?;
        let len = packet.len().checked_sub(self.overhead).filter(|len| *len >= head.len);
        let len = len.ok_or(Refused::Malformed)?;
        let mut source = self.received.source(head.ssrc);
        let index = source.rtp.guess(head.seq).ok_or(Refused::Replayed)?;
        if !source.rtp.is_fresh(index) {
            return Err(Refused::Replayed);
        }
        self.received.rtp.open_rtp(packet, head.len, head.ssrc, index).ok_or(Refused::Forged)?;
        source.rtp.spend(index);
        self.received.keep(source);
        Ok(len)
    }

    /// Protects the first `len` octets of `buf`, a compound RTCP packet, in place. The new length.
    pub fn protect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, Refused> {
        let end = len + self.overhead + RTCP_INDEX_LEN;
        let packet = buf.get_mut(..end).ok_or(Refused::NoRoom)?;
        let ssrc = rtcp_ssrc(packet.get(..len).unwrap_or_default()).ok_or(Refused::Malformed)?;
        if self.sent.is_full_for(ssrc) {
            return Err(Refused::Exhausted);
        }
        let mut source = self.sent.source(ssrc);
        // From 1, as libsrtp does, so that 0 can mean "none" in records.
        let index = source.rtcp.highest.saturating_add(1);
        let word =
            u32::try_from(index).ok().filter(|_| index <= LAST_RTCP_INDEX).ok_or(Refused::Exhausted)?;
        self.sent.rtcp.seal_rtcp(packet, ssrc, word | ENCRYPTED).ok_or(Refused::Malformed)?;
        source.rtcp.spend(index);
        self.sent.keep(source);
        Ok(end)
    }

    /// Checks an SRTCP packet and decrypts it in place. The length of the compound RTCP packet.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        let ssrc = rtcp_ssrc(packet).ok_or(Refused::Malformed)?;
        let len = packet.len().checked_sub(self.overhead + RTCP_INDEX_LEN).filter(|len| *len >= RTCP_CLEAR);
        let len = len.ok_or(Refused::Malformed)?;
        let word = match *self.received.rtcp.index_word(packet).ok_or(Refused::Malformed)? {
            [a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
        };
        // DTLS-SRTP has no unencrypted SRTCP (RFC 5764 section 4.1.2).
        if word & ENCRYPTED == 0 {
            return Err(Refused::Malformed);
        }
        let index = u64::from(word & !ENCRYPTED);
        let mut source = self.received.source(ssrc);
        if !source.rtcp.is_fresh(index) {
            return Err(Refused::Replayed);
        }
        self.received.rtcp.open_rtcp(packet, ssrc, word).ok_or(Refused::Forged)?;
        source.rtcp.spend(index);
        self.received.keep(source);
        Ok(len)
    }

    /// The highest SRTP index sent with `ssrc`: roll-over count × 65536 + sequence.
    pub fn sent_index(&self, ssrc: u32) -> Option<u64> {
        self.sent.find(ssrc).filter(|source| !source.rtp.is_empty()).map(|source| source.rtp.highest)
    }

    /// The last SRTCP index sent with `ssrc`, 0 when none.
    pub fn sent_rtcp_index(&self, ssrc: u32) -> u32 {
        self.sent.find(ssrc).map_or(0, |source| short(source.rtcp))
    }

    /// The source whose RTP was heard last, with its highest index.
    pub fn received(&self) -> Option<(u32, u64)> {
        self.speaker().map(|source| (source.ssrc, source.rtp.highest))
    }

    /// The highest SRTCP index of that source, 0 when none.
    pub fn received_rtcp_index(&self) -> u32 {
        self.speaker().map_or(0, |source| short(source.rtcp))
    }

    fn speaker(&self) -> Option<&Source> {
        self.received.sources.iter().find(|source| !source.rtp.is_empty())
    }
}

/// An SRTCP index has 31 bits.
fn short(window: Window) -> u32 {
    u32::try_from(window.highest).unwrap_or(u32::MAX)
}

/// What SRTP needs of an RTP header. Padding is inside the encryption, so its count cannot be looked at.
struct RtpHead {
    seq: u16,
    ssrc: u32,
    /// With CSRCs and extension: what stays readable (RFC 3711 section 3.1).
    len: usize,
}

impl RtpHead {
    fn read(packet: &[u8]) -> Option<Self> {
        let (fixed, _) = packet.split_first_chunk::<12>()?;
        let [first, _, s0, s1, _, _, _, _, a, b, c, d] = *fixed;
        if first >> 6 != 2 {
            return None;
        }
        let mut len = 12 + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let (head, _) = packet.get(len..)?.split_first_chunk::<4>()?;
            let [_, _, high, low] = *head;
            len += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        let (seq, ssrc) = (u16::from_be_bytes([s0, s1]), u32::from_be_bytes([a, b, c, d]));
        (len <= packet.len()).then_some(Self { seq, ssrc, len })
    }
}

fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let ([first, _, _, _, a, b, c, d], _) = packet.split_first_chunk::<RTCP_CLEAR>()?;
    (first >> 6 == 2).then_some(u32::from_be_bytes([*a, *b, *c, *d]))
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

    const SSRC: u32 = 0xcafe_babe;

    /// What one end and the other get of one handshake.
    fn pair(profile: Profile) -> (Srtp, Srtp) {
        let material: Vec<u8> = (0..profile.keying_material_len()).map(|n| n as u8 ^ 0x5a).collect();
        let client = profile.split(&material, true).unwrap();
        let server = profile.split(&material, false).unwrap();
        assert_eq!((&client.local, &client.remote), (&server.remote, &server.local));
        (Srtp::new(&client).unwrap(), Srtp::new(&server).unwrap())
    }

    fn rtp(seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 12];
        crate::media::rtp::write(&mut packet, false, 8, seq, 160 * u32::from(seq), ssrc).unwrap();
        packet.extend_from_slice(payload);
        packet
    }

    fn rtcp(ssrc: u32) -> Vec<u8> {
        [&[0x81, 200, 0, 5][..], &ssrc.to_be_bytes(), &[0xab; 16]].concat()
    }

    fn sealed(srtp: &mut Srtp, packet: &[u8]) -> Vec<u8> {
        let mut buf = [packet, &[0; MAX_OVERHEAD]].concat();
        let len = srtp.protect_rtp(&mut buf, packet.len()).unwrap();
        buf.truncate(len);
        buf
    }

    fn sealed_rtcp(srtp: &mut Srtp, packet: &[u8]) -> Vec<u8> {
        let mut buf = [packet, &[0; MAX_OVERHEAD]].concat();
        let len = srtp.protect_rtcp(&mut buf, packet.len()).unwrap();
        buf.truncate(len);
        buf
    }

    fn opened(srtp: &mut Srtp, packet: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut buf = packet.to_vec();
        let len = srtp.unprotect_rtp(&mut buf)?;
        buf.truncate(len);
        Ok(buf)
    }

    fn opened_rtcp(srtp: &mut Srtp, packet: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut buf = packet.to_vec();
        let len = srtp.unprotect_rtcp(&mut buf)?;
        buf.truncate(len);
        Ok(buf)
    }

    /// The reference packets of libsrtp's `srtp_validate` and `srtp_validate_gcm`.
    #[test]
    fn the_packets_of_libsrtp() {
        for (profile, master, expected) in [
            (
                Profile::Aes128CmSha1_80,
                "e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6",
                "4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb",
            ),
            (
                Profile::AeadAes128Gcm,
                "000102030405060708090a0b0c0d0e0fa0a1a2a3a4a5a6a7a8a9aaab",
                "c5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a392",
            ),
        ] {
            let plain = hex::decode("800f1234decafbadcafebabeabababababababababababababababab").unwrap();
            assert_eq!(hex::encode(&sealed(&mut mirror(profile, master), &plain)[12..]), expected);
        }
    }

    /// The SRTCP packet of `srtp_validate`. (That of `srtp_validate_gcm` has no E bit.)
    #[test]
    fn the_control_packet_of_libsrtp() {
        let master = "e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6";
        let mut here = mirror(Profile::Aes128CmSha1_80, master);
        let plain = hex::decode("81c8000bcafebabeabababababababababababababababab").unwrap();
        let packet = sealed_rtcp(&mut here, &plain);
        assert_eq!(hex::encode(&packet[8..]), "7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
        assert_eq!(opened_rtcp(&mut here, &packet).unwrap(), plain);
    }

    /// Both directions with one key.
    fn mirror(profile: Profile, master: &str) -> Srtp {
        let key = Secret::new(hex::decode(master).unwrap());
        Srtp::new(&Keys { profile: profile.iana(), local: key.clone(), remote: key }).unwrap()
    }

    #[test]
    fn keying_material_is_client_key_server_key_client_salt_server_salt() {
        let material: Vec<u8> = (0..60).collect();
        let keys = Profile::Aes128CmSha1_80.split(&material, true).unwrap();
        assert_eq!(*keys.local.expose(), [&material[..16], &material[32..46]].concat());
        assert_eq!(*keys.remote.expose(), [&material[16..32], &material[46..]].concat());
        assert!(Profile::Aes128CmSha1_80.split(&material[1..], true).is_none());
    }

    #[test]
    fn every_profile_carries_packets_both_ways() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            for (from, to) in [(0, 1), (1, 0)] {
                let ends = [&mut here, &mut there];
                let [a, b] = ends;
                let (from, to) = if from < to { (a, b) } else { (b, a) };
                for payload in [&b""[..], b"x", &[7; 160]] {
                    let plain = rtp(100 + payload.len() as u16, SSRC, payload);
                    let packet = sealed(from, &plain);
                    assert!(payload.len() < 2 || packet[12..][..payload.len()] != *payload);
                    assert_eq!(opened(to, &packet).unwrap(), plain);
                }
                let packet = sealed_rtcp(from, &rtcp(SSRC));
                assert_eq!(opened_rtcp(to, &packet).unwrap(), rtcp(SSRC));
            }
        }
    }

    #[test]
    fn sources_and_extension_stay_readable_and_are_authentic() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            let mut plain = rtp(1, SSRC, &[]);
            plain[0] |= 0x11;
            plain.extend_from_slice(&[1, 2, 3, 4, 0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
            plain.extend_from_slice(&[5; 20]);
            let packet = sealed(&mut here, &plain);
            assert_eq!(packet[..24], plain[..24]);
            let mut forged = packet.clone();
            forged[22] ^= 1;
            assert_eq!(opened(&mut there, &forged), Err(Refused::Forged));
            assert_eq!(opened(&mut there, &packet).unwrap(), plain);
        }
    }

    #[test]
    fn the_roll_over_is_followed_by_both_ends() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            for step in 0..3_u32 * 8192 {
                let seq = (65_500 + 8 * step) as u16;
                let packet = sealed(&mut here, &rtp(seq, SSRC, b"sound"));
                assert_eq!(opened(&mut there, &packet).unwrap(), rtp(seq, SSRC, b"sound"), "step {step}");
            }
            let expected = 65_500 + 8 * (3 * 8192 - 1);
            assert_eq!(here.sent_index(SSRC), Some(expected));
            assert_eq!(there.received(), Some((SSRC, expected)));
        }
    }

    #[test]
    fn a_packet_from_before_the_roll_over_may_come_behind_it() {
        let (mut here, mut there) = pair(Profile::AeadAes128Gcm);
        let packets: Vec<_> =
            [65_534, 65_535, 0, 1].map(|seq| sealed(&mut here, &rtp(seq, SSRC, b"x"))).into_iter().collect();
        for at in [0, 3, 1, 2] {
            opened(&mut there, &packets[at]).unwrap();
        }
        assert_eq!(there.received(), Some((SSRC, 65_537)));
    }

    #[test]
    fn a_packet_from_before_the_very_first_is_refused() {
        let (mut here, mut there) = pair(Profile::AeadAes128Gcm);
        opened(&mut there, &sealed(&mut here, &rtp(3, SSRC, b"x"))).unwrap();
        let mut other = pair(Profile::AeadAes128Gcm).0;
        let older = sealed(&mut other, &rtp(65_000, SSRC, b"x"));
        assert_eq!(opened(&mut there, &older), Err(Refused::Replayed));
    }

    #[test]
    fn an_index_guess_follows_rfc_3711_appendix_a() {
        let at = |roc: u64, seq: u64| Window::spent_to(roc << 16 | seq);
        for (window, seq, expected) in [
            (Window::default(), 65_535, Some(65_535)),
            (at(0, 10), 11, Some(11)),
            (at(0, 10), 32_778, Some(32_778)),
            (at(0, 10), 32_779, None),
            (at(5, 10), 32_779, Some(4 << 16 | 32_779)),
            (at(5, 40_000), 7_232, Some(5 << 16 | 7_232)),
            (at(5, 40_000), 7_231, Some(6 << 16 | 7_231)),
            (at(0xffff_ffff, 65_535), 0, None),
        ] {
            assert_eq!(window.guess(seq), expected, "{window:?} {seq}");
        }
    }

    #[test]
    fn a_packet_counts_once_and_a_very_late_one_never() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            let packets: Vec<_> = (0..80).map(|seq| sealed(&mut here, &rtp(seq, SSRC, b"x"))).collect();
            for at in [79, 70, 16, 78, 17] {
                opened(&mut there, &packets[at]).unwrap();
                assert_eq!(opened(&mut there, &packets[at]), Err(Refused::Replayed), "{at}");
            }
            assert_eq!(opened(&mut there, &packets[15]), Err(Refused::Replayed));
            let control = sealed_rtcp(&mut here, &rtcp(SSRC));
            opened_rtcp(&mut there, &control).unwrap();
            assert_eq!(opened_rtcp(&mut there, &control), Err(Refused::Replayed));
        }
    }

    #[test]
    fn a_forged_packet_changes_nothing_whichever_octet_is_wrong() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            opened(&mut there, &sealed(&mut here, &rtp(7, SSRC, b"x"))).unwrap();
            let before = there.state();
            let good = sealed(&mut here, &rtp(8, SSRC, b"sound"));
            let control = sealed_rtcp(&mut here, &rtcp(SSRC));
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                assert!(opened(&mut there, &bad).is_err(), "octet {at}");
            }
            for at in 0..control.len() {
                let mut bad = control.clone();
                bad[at] ^= 0x10;
                assert!(opened_rtcp(&mut there, &bad).is_err(), "control octet {at}");
            }
            for len in 0..good.len() {
                assert!(opened(&mut there, &good[..len]).is_err(), "length {len}");
                assert!(opened_rtcp(&mut there, &control[..len.min(control.len() - 1)]).is_err());
            }
            assert_eq!(there.state(), before);
            opened(&mut there, &good).unwrap();
            opened_rtcp(&mut there, &control).unwrap();
        }
    }

    #[test]
    fn control_packets_must_be_encrypted() {
        let (mut here, mut there) = pair(Profile::AeadAes128Gcm);
        let mut packet = sealed_rtcp(&mut here, &rtcp(SSRC));
        let at = packet.len() - 4;
        packet[at] &= 0x7f;
        assert_eq!(opened_rtcp(&mut there, &packet), Err(Refused::Malformed));
    }

    #[test]
    fn an_index_is_never_sent_twice() {
        let (mut here, _) = pair(Profile::AeadAes256Gcm);
        sealed(&mut here, &rtp(9, SSRC, b"one"));
        let mut again = [&rtp(9, SSRC, b"two")[..], &[0; MAX_OVERHEAD]].concat();
        assert_eq!(here.protect_rtp(&mut again, 15), Err(Refused::Replayed));
    }

    #[test]
    fn a_buffer_without_room_and_what_is_no_packet_are_refused() {
        let (mut here, _) = pair(Profile::AeadAes128Gcm);
        let mut tight = [&rtp(9, SSRC, b"one")[..], &[0; 15]].concat();
        assert_eq!(here.protect_rtp(&mut tight, 15), Err(Refused::NoRoom));
        assert_eq!(here.protect_rtcp(&mut tight, 15), Err(Refused::NoRoom));
        assert_eq!(here.protect_rtp(&mut [0; 64], 20), Err(Refused::Malformed));
        assert_eq!(here.protect_rtcp(&mut [0x80; 64], 7), Err(Refused::Malformed));
        assert_eq!(here.sent_index(SSRC), None);
    }

    #[test]
    fn a_party_may_change_its_ssrc_and_only_a_few_are_remembered() {
        let (mut here, mut there) = pair(Profile::AeadAes128Gcm);
        let first = sealed(&mut here, &rtp(1, 0, b"x"));
        opened(&mut there, &first).unwrap();
        for ssrc in 1..=3 {
            opened(&mut there, &sealed(&mut here, &rtp(ssrc as u16, ssrc, b"x"))).unwrap();
            assert_eq!(there.received(), Some((ssrc, u64::from(ssrc))));
        }
        let mut fifth = [&rtp(1, 4, b"x")[..], &[0; MAX_OVERHEAD]].concat();
        assert_eq!(here.protect_rtp(&mut fifth, 13), Err(Refused::Exhausted));
        let mut other = pair(Profile::AeadAes128Gcm).0;
        opened(&mut there, &sealed(&mut other, &rtp(1, 4, b"x"))).unwrap();
        assert_eq!(there.state().received.len(), MAX_SOURCES);
        assert!(there.received.find(0).is_none(), "the one silent for longest is forgotten");
        assert_eq!(there.received(), Some((4, 1)));
    }

    #[test]
    fn another_process_goes_on_from_the_record() {
        for profile in Profile::ALL {
            let (mut here, mut there) = pair(profile);
            for step in 0..600_u32 {
                let seq = (65_300 + step) as u16;
                opened(&mut there, &sealed(&mut here, &rtp(seq, SSRC, b"x"))).unwrap();
                opened(&mut here, &sealed(&mut there, &rtp(seq, 1, b"y"))).unwrap();
            }
            opened_rtcp(&mut there, &sealed_rtcp(&mut here, &rtcp(SSRC))).unwrap();
            let text = serde_json::to_string(&here.state()).unwrap();
            // The old process sends some more before it dies.
            for step in 600..640_u32 {
                opened(&mut there, &sealed(&mut here, &rtp((65_300 + step) as u16, SSRC, b"x"))).unwrap();
            }
            let late = sealed(&mut there, &rtp((65_300_u32 + 605) as u16, 1, b"y"));
            let mut again = Srtp::restore(&serde_json::from_str(&text).unwrap()).unwrap();
            again.jump(256);
            let reached = again.sent_index(SSRC).unwrap();
            assert_eq!(reached, 65_300 + 599 + 256);
            let next = rtp((reached + 1) as u16, SSRC, b"go on");
            assert_eq!(opened(&mut there, &sealed(&mut again, &next)).unwrap(), next);
            assert_eq!(opened(&mut again, &late).unwrap(), rtp((65_300_u32 + 605) as u16, 1, b"y"));
            assert_eq!(opened(&mut again, &late), Err(Refused::Replayed));
            let control = sealed_rtcp(&mut again, &rtcp(SSRC));
            assert_eq!(opened_rtcp(&mut there, &control).unwrap(), rtcp(SSRC));
            assert_eq!(again.sent_rtcp_index(SSRC), 1 + 256 + 1);
        }
    }

    #[test]
    fn the_engines_record_of_a_port_is_enough_to_go_on() {
        let (mut here, mut there) = pair(Profile::AeadAes256Gcm);
        opened(&mut there, &sealed(&mut here, &rtp(65_535, SSRC, b"x"))).unwrap();
        opened(&mut there, &sealed(&mut here, &rtp(2, SSRC, b"x"))).unwrap();
        opened(&mut here, &sealed(&mut there, &rtp(40, 1, b"x"))).unwrap();
        let progress = PortProgress {
            port: crate::terms::PortId(1),
            sent_index: here.sent_index(SSRC).unwrap(),
            sent_ts: 0,
            sent_rtcp_index: here.sent_rtcp_index(SSRC),
            received: here.received(),
            received_rtcp_index: here.received_rtcp_index(),
            address: None,
        };
        let mut again = Srtp::restore(&SrtpState::resume(here.keys.clone(), SSRC, &progress)).unwrap();
        again.jump(256);
        let packet = rtp(2 + 256 + 1, SSRC, b"x");
        assert_eq!(opened(&mut there, &sealed(&mut again, &packet)).unwrap(), packet);
        opened(&mut again, &sealed(&mut there, &rtp(41, 1, b"x"))).unwrap();
    }

    #[test]
    fn keys_of_the_wrong_length_make_nothing() {
        let key = Secret::new(vec![0; 28]);
        for (profile, fits) in [(7, true), (1, false), (8, false), (2, false)] {
            let keys = Keys { profile, local: key.clone(), remote: key.clone() };
            assert_eq!(Srtp::new(&keys).is_some(), fits, "profile {profile}");
        }
    }

    #[test]
    fn noise_never_opens() {
        for profile in Profile::ALL {
            let (_, mut there) = pair(profile);
            let before = there.state();
            let mut noise = 1_u64;
            for _ in 0..2_000 {
                let mut packet: Vec<u8> = (0..(noise >> 33) % 80)
                    .map(|_| {
                        noise = noise
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (noise >> 56) as u8
                    })
                    .collect();
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if let Some(first) = packet.first_mut() {
                    *first = 0x80 | *first & 0x3f;
                }
                assert!(there.unprotect_rtp(&mut packet.clone()).is_err());
                assert!(there.unprotect_rtcp(&mut packet).is_err());
            }
            assert_eq!(there.state(), before);
        }
    }
}
