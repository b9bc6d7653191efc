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
        let word = u32::try_from(index).ok().filter(|_| index <= LAST_RTCP_INDEX).ok_or(Refused::Exhausted)?;
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
