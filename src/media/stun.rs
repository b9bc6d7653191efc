//! The STUN message (RFC 8489), as far as ICE needs it: binding requests and their answers.
//!
//! Invariant: what is read was the whole datagram, with attributes that fit it exactly; what is written is
//! always protected by MESSAGE-INTEGRITY and FINGERPRINT.

use std::net::{IpAddr, SocketAddr};

use ring::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
use subtle::ConstantTimeEq;

/// The first two octets of a binding request, its success and its error (RFC 8489 section 5).
pub const REQUEST: u16 = 0x0001;
/// A binding success response.
pub const SUCCESS: u16 = 0x0101;
/// A binding error response.
pub const ERROR: u16 = 0x0111;

const HEADER_LEN: usize = 20;
const MAGIC: u32 = 0x2112_a442;
/// XORed onto the CRC of a FINGERPRINT (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// More attributes than that in one message are nonsense.
const MAX_ATTRIBUTES: usize = 32;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

/// Below it an attribute that is not understood forbids the request (RFC 8489 section 14).
const FIRST_OPTIONAL: u16 = 0x8000;

/// What a message said, before its integrity is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'d> {
    /// Class and method: [`REQUEST`], [`SUCCESS`], [`ERROR`] or another.
    pub kind: u16,
    /// Transaction id.
    pub id: [u8; 12],
    /// USERNAME.
    pub username: Option<&'d str>,
    /// USE-CANDIDATE is there: the pair is nominated.
    pub use_candidate: bool,
    /// ICE-CONTROLLED is there: the other end believes that we control.
    pub controlled: bool,
    /// XOR-MAPPED-ADDRESS.
    pub mapped: Option<SocketAddr>,
    /// The code of an ERROR-CODE.
    pub error: Option<u16>,
    /// The first comprehension-required attribute that we do not know.
    pub unknown: Option<u16>,
    /// Octets before MESSAGE-INTEGRITY, and its value.
    integrity: Option<(&'d [u8], &'d [u8; 20])>,
}

/// Whether a datagram can be STUN: first bits, length, magic cookie (RFC 8489 section 5).
pub fn is_stun(datagram: &[u8]) -> bool {
    header(datagram).is_some()
}

/// `(ours, theirs)` of the USERNAME of a binding request, nothing checked: the way to its port on a shared
/// socket (RFC 8445 section 7.2.2 has the receiver's fragment first).
pub fn stun_username(datagram: &[u8]) -> Option<(&str, &str)> {
    let (kind, _) = header(datagram)?;
    let mut attributes = Attributes { rest: datagram.get(HEADER_LEN..)?, left: MAX_ATTRIBUTES };
    let username = attributes.find(|found| found.is_none_or(|(name, _)| name == USERNAME))??.1;
    (kind == REQUEST).then_some(std::str::from_utf8(username).ok()?.split_once(':')?)
}

/// Kind and transaction id, if the frame is sound.
fn header(datagram: &[u8]) -> Option<(u16, [u8; 12])> {
    let (fixed, body) = datagram.split_first_chunk::<HEADER_LEN>()?;
    let [k0, k1, l0, l1, m0, m1, m2, m3, id @ ..] = *fixed;
    let sound = k0 < 0x40
        && u32::from_be_bytes([m0, m1, m2, m3]) == MAGIC
        && usize::from(u16::from_be_bytes([l0, l1])) == body.len()
        && body.len() % 4 == 0;
    sound.then_some((u16::from_be_bytes([k0, k1]), id))
}

/// Walks attributes; a `None` item means that one does not fit, and ends the walk.
struct Attributes<'d> {
    rest: &'d [u8],
    left: usize,
}

impl<'d> Iterator for Attributes<'d> {
    type Item = Option<(u16, &'d [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let one = self.left.checked_sub(1).and_then(|left| {
            self.left = left;
            let (&[n0, n1, l0, l1], body) = self.rest.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            let value = body.get(..len)?;
            self.rest = body.get(len.next_multiple_of(4)..)?;
            Some((u16::from_be_bytes([n0, n1]), value))
        });
        if one.is_none() {
            self.rest = &[];
        }
        Some(one)
    }
}

impl<'d> Message<'d> {
    /// Reads a datagram; `None` when it is no STUN message, its attributes do not fit, or its FINGERPRINT is
    /// missing or wrong (RFC 8445 section 7.1 demands one).
    pub fn read(datagram: &'d [u8]) -> Option<Self> {
        let (kind, id) = header(datagram)?;
        let mut message = Self {
            kind,
            id,
            username: None,
            use_candidate: false,
            controlled: false,
            mapped: None,
            error: None,
            unknown: None,
            integrity: None,
        };
        let mut attributes = Attributes { rest: datagram.get(HEADER_LEN..)?, left: MAX_ATTRIBUTES };
        loop {
            let at = datagram.len() - attributes.rest.len();
            let (name, value) = attributes.next()??;
            let before = datagram.get(..at)?;
            match name {
                // The fingerprint is the last one (RFC 8489 section 14.7).
                FINGERPRINT => {
                    let fits = attributes.rest.is_empty() && value == fingerprint(before).to_be_bytes();
                    return fits.then_some(message);
                }
                // What follows MESSAGE-INTEGRITY is not authentic and counts for nothing (section 14.5).
                _ if message.integrity.is_some() => {}
                MESSAGE_INTEGRITY => message.integrity = Some((before, value.try_into().ok()?)),
                _ => message.take(name, value)?,
            }
        }
    }

    fn take(&mut self, name: u16, value: &'d [u8]) -> Option<()> {
        match name {
            USERNAME => self.username = Some(std::str::from_utf8(value).ok()?),
            USE_CANDIDATE => self.use_candidate = true,
            ICE_CONTROLLED => self.controlled = true,
            XOR_MAPPED_ADDRESS => self.mapped = Some(read_mapped(value, &self.id)?),
            ERROR_CODE => {
                let (&[_, _, class, number], _) = value.split_first_chunk::<4>()?;
                self.error = Some(u16::from(class & 7) * 100 + u16::from(number));
            }
            PRIORITY | UNKNOWN_ATTRIBUTES | ICE_CONTROLLING => {}
            FIRST_OPTIONAL.. => {}
            other => self.unknown = self.unknown.or(Some(other)),
        }
        Some(())
    }

    /// Whether MESSAGE-INTEGRITY is there and was made with `password` (RFC 8489 section 14.5). Constant time.
    pub fn is_authentic(&self, password: &str) -> bool {
        let Some((before, value)) = self.integrity else { return false };
        integrity(before, password).is_some_and(|expected| expected.ct_eq(value.as_slice()).into())
    }
}

/// The HMAC over all before the attribute, with the length as if the attribute were the last one.
fn integrity(before: &[u8], password: &str) -> Option<[u8; 20]> {
    let ([k0, k1, _, _], rest) = before.split_first_chunk::<4>()?;
    let [l0, l1] = body_len(before.len() + 24)?.to_be_bytes();
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let mut text = Vec::with_capacity(before.len());
    text.extend_from_slice(&[*k0, *k1, l0, l1]);
    text.extend_from_slice(rest);
    sign(&key, &text).as_ref().try_into().ok()
}

/// The CRC over all before the attribute; the length in the header counts the attribute already.
fn fingerprint(before: &[u8]) -> u32 {
    crc32fast::hash(before) ^ FINGERPRINT_XOR
}

fn body_len(whole: usize) -> Option<u16> {
    u16::try_from(whole.checked_sub(HEADER_LEN)?).ok()
}

/// RFC 8489 section 14.2.
fn read_mapped(value: &[u8], id: &[u8; 12]) -> Option<SocketAddr> {
    let ([_, family, p0, p1], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*p0, *p1]) ^ MAGIC_HIGH;
    let ip = match family {
        1 => IpAddr::from((u32::from_be_bytes(address.try_into().ok()?) ^ MAGIC).to_be_bytes()),
        2 => IpAddr::from((u128::from_be_bytes(address.try_into().ok()?) ^ mask(id)).to_be_bytes()),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The upper half of the magic cookie.
const MAGIC_HIGH: u16 = 0x2112;

fn mask(id: &[u8; 12]) -> u128 {
    id.iter().fold(u128::from(MAGIC), |sum, octet| sum << 8 | u128::from(*octet))
}

/// A message that is being written.
pub struct Draft {
    id: [u8; 12],
    bytes: Vec<u8>,
}

impl Draft {
    /// An empty message.
    pub fn new(kind: u16, id: [u8; 12]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC.to_be_bytes());
        bytes.extend_from_slice(&id);
        Self { id, bytes }
    }

    /// USERNAME, cut at 508 octets (RFC 8489 section 14.3).
    pub fn username(self, text: &str) -> Self {
        let text = text.as_bytes();
        self.attribute(USERNAME, text.get(..508).unwrap_or(text))
    }

    /// PRIORITY (RFC 8445 section 7.1.1).
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(PRIORITY, &priority.to_be_bytes())
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(self) -> Self {
        self.attribute(USE_CANDIDATE, &[])
    }

    /// ICE-CONTROLLING with the tie breaker.
    pub fn controlling(self, tie_breaker: u64) -> Self {
        self.attribute(ICE_CONTROLLING, &tie_breaker.to_be_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn mapped(self, at: SocketAddr) -> Self {
        let [p0, p1] = (at.port() ^ MAGIC_HIGH).to_be_bytes();
        let mut value = Vec::with_capacity(20);
        match at.ip() {
            IpAddr::V4(ip) => {
                value.extend_from_slice(&[0, 1, p0, p1]);
                value.extend_from_slice(&(u32::from(ip) ^ MAGIC).to_be_bytes());
            }
            IpAddr::V6(ip) => {
                value.extend_from_slice(&[0, 2, p0, p1]);
                value.extend_from_slice(&(u128::from(ip) ^ mask(&self.id)).to_be_bytes());
            }
        }
        self.attribute(XOR_MAPPED_ADDRESS, &value)
    }

    /// ERROR-CODE with its phrase: `class` hundreds and `number`.
    pub fn error(self, class: u8, number: u8, phrase: &str) -> Self {
        let value = [&[0, 0, class, number], phrase.as_bytes()].concat();
        self.attribute(ERROR_CODE, &value)
    }

    /// UNKNOWN-ATTRIBUTES with one entry.
    pub fn unknown(self, attribute: u16) -> Self {
        self.attribute(UNKNOWN_ATTRIBUTES, &attribute.to_be_bytes())
    }

    /// The datagram, with MESSAGE-INTEGRITY of `password` and FINGERPRINT.
    pub fn finish(self, password: &str) -> Vec<u8> {
        let value = integrity(&self.bytes, password).unwrap_or_default();
        let mut message = self.attribute(MESSAGE_INTEGRITY, &value);
        // Counts the 8 octets that follow.
        message.set_len(message.bytes.len() + 8);
        let value = fingerprint(&message.bytes).to_be_bytes();
        message.attribute(FINGERPRINT, &value).bytes
    }

    pub(super) fn attribute(mut self, name: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&name.to_be_bytes());
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.set_len(self.bytes.len());
        self
    }

    fn set_len(&mut self, whole: usize) {
        let len = body_len(whole).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(2..4) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    /// RFC 5769 section 2.1 and 2.2.
    const SAMPLE_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5\
        b2d3f249c1b571a280280004e57a3bcf";
    const SAMPLE_RESPONSE: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220\
        002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    fn octets(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    #[test]
    fn the_messages_of_rfc_5769_are_read_and_authentic() {
        let bytes = octets(SAMPLE_REQUEST);
        let request = Message::read(&bytes).unwrap();
        assert_eq!((request.kind, request.username, request.controlled), (REQUEST, Some("evtj:h6vY"), true));
        assert!(request.is_authentic(PASSWORD));
        assert!(!request.is_authentic("VOkJxbRl1RmTxUk/WvJxBT"));
        assert_eq!(stun_username(&bytes), Some(("evtj", "h6vY")));
        let bytes = octets(SAMPLE_RESPONSE);
        let response = Message::read(&bytes).unwrap();
        assert_eq!((response.kind, response.mapped), (SUCCESS, Some("192.0.2.1:32853".parse().unwrap())));
        assert!(response.is_authentic(PASSWORD));
        assert_eq!(stun_username(&bytes), None);
    }

    #[test]
    fn a_changed_message_is_not_read_and_a_cut_one_neither() {
        let good = octets(SAMPLE_REQUEST);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(Message::read(&bad).is_none_or(|message| !message.is_authentic(PASSWORD)), "octet {at}");
            assert!(Message::read(&good[..at]).is_none(), "length {at}");
        }
    }

    #[test]
    fn without_fingerprint_nothing_is_read() {
        let mut bytes = octets(SAMPLE_REQUEST);
        bytes.truncate(bytes.len() - 8);
        bytes[3] -= 8;
        assert!(is_stun(&bytes));
        assert!(Message::read(&bytes).is_none());
    }

    #[test]
    fn addresses_of_both_families_come_back() {
        for at in ["127.0.0.1:1", "203.0.113.9:65535", "[2001:db8::1]:5004"] {
            let at: SocketAddr = at.parse().unwrap();
            let bytes = Draft::new(SUCCESS, *b"abcdefghijkl").mapped(at).finish("secret");
            let message = Message::read(&bytes).unwrap();
            assert_eq!(message.mapped, Some(at));
            assert!(message.is_authentic("secret"));
        }
    }

    #[test]
    fn attributes_behind_the_integrity_count_for_nothing() {
        let bytes = Draft::new(REQUEST, [7; 12]).username("a:b").finish("secret");
        let cut = &bytes[..bytes.len() - 8];
        let mut draft = Draft { id: [7; 12], bytes: cut.to_vec() }.use_candidate();
        draft.set_len(draft.bytes.len() + 8);
        let value = fingerprint(&draft.bytes).to_be_bytes();
        let bytes = draft.attribute(FINGERPRINT, &value).bytes;
        let message = Message::read(&bytes).unwrap();
        assert!(message.is_authentic("secret"));
        assert!(!message.use_candidate);
    }

    #[test]
    fn lying_lengths_and_endless_attributes_are_refused() {
        let mut lying = octets(SAMPLE_REQUEST);
        lying[23] = 0xff;
        assert!(Message::read(&lying).is_none());
        assert!(stun_username(&lying).is_none());
        let mut many = Draft::new(REQUEST, [1; 12]);
        for _ in 0..200 {
            many = many.attribute(0x8fff, &[]);
        }
        assert!(Message::read(&many.finish("secret")).is_none());
    }
}
