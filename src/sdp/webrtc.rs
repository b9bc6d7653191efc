//! What a browser adds to a description: ICE, the DTLS fingerprint and role, BUNDLE (RFC 8829, 8839, 8842).
//!
//! Invariant: we are ICE-lite, so a browser's candidates are never needed to reach it (its checks come to us);
//! media is encrypted or there is none: without a SHA-256 fingerprint there is no WebRTC end.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Media, SdpError, Section, Session, address_text};
use crate::terms::Secret;

/// Which end begins the DTLS handshake (RFC 4145, RFC 8842).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setup {
    /// This one.
    Active,
    /// The other one.
    Passive,
    /// The answer decides.
    ActPass,
}

impl Setup {
    /// As the value of `a=setup`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }

    fn read(text: &str) -> Option<Self> {
        [Self::Active, Self::Passive, Self::ActPass].into_iter().find(|one| one.as_str() == text)
    }
}

/// The SHA-256 of a certificate, as SDP writes it: `50:49:1C:…`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Reads `50:49:1C:…` in either case.
    pub fn read(text: &str) -> Option<Self> {
        let mut octets = [0; 32];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(octets))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, octet) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(":")?;
            }
            write!(f, "{octet:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The other end, as its description says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Theirs {
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: Secret<String>,
    /// What its certificate must hash to.
    pub fingerprint: Fingerprint,
    /// Its DTLS role.
    pub setup: Setup,
    /// The name of its audio line.
    pub mid: Option<String>,
    /// Whether it is ICE-lite itself (we are; our own user agent is not).
    pub ice_lite: bool,
    /// Whether RTCP may share the port.
    pub mux: bool,
    /// Its UDP candidates of component 1 with a literal address, in order.
    pub candidates: Vec<SocketAddr>,
}

impl Theirs {
    pub(super) fn read(session: &Session, media: &Media) -> Result<Self, SdpError> {
        let value = |name: &str| session.value(media, name).map(str::to_owned);
        let missing = |what: &'static str| SdpError::NotSupported(what);
        let ufrag = value("ice-ufrag").filter(|text| is_ice_text(text, 4)).ok_or(missing("no ICE user"))?;
        let pwd = value("ice-pwd").filter(|text| is_ice_text(text, 22)).ok_or(missing("no ICE password"))?;
        let fingerprint = fingerprint(&media.lines).or_else(|| fingerprint(&session.lines));
        let setup = match session.value(media, "setup") {
            // RFC 8842 section 5.2 demands it; what is absent counts as the offerer's usual choice.
            None => Setup::ActPass,
            Some(text) => Setup::read(text).ok_or(missing("unknown DTLS role"))?,
        };
        Ok(Self {
            ufrag,
            pwd: Secret::new(pwd),
            fingerprint: fingerprint.ok_or(missing("no SHA-256 fingerprint"))?,
            setup,
            mid: media.lines.value("mid").map(str::to_owned),
            ice_lite: session.lines.has("ice-lite"),
            mux: media.lines.has("rtcp-mux"),
            candidates: media.lines.values("candidate").filter_map(read_candidate).collect(),
        })
    }
}

/// RFC 8839 section 5.4: 4 or 22 up to 256 ice-chars.
fn is_ice_text(text: &str, least: usize) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    (least..=256).contains(&text.len()) && text.bytes().all(fine)
}

fn fingerprint(lines: &Section) -> Option<Fingerprint> {
    lines.values("fingerprint").find_map(|value| {
        let (hash, octets) = value.split_once(' ')?;
        hash.eq_ignore_ascii_case("sha-256").then(|| Fingerprint::read(octets.trim())).flatten()
    })
}

/// `foundation component transport priority address port typ …`. Names (mDNS), TCP and other components are
/// left out: nobody resolves them and nobody calls there.
fn read_candidate(value: &str) -> Option<SocketAddr> {
    let mut words = value.split_ascii_whitespace().skip(1);
    let (component, transport) = (words.next()?, words.next()?);
    let (address, port) = (words.nth(1)?, words.next()?);
    if component != "1" || !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    let at = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
    (!at.ip().is_unspecified() && at.port() != 0).then_some(at)
}

/// Our end of a WebRTC leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// The one host candidate: where checks, DTLS and media come.
    pub at: SocketAddr,
    /// The `o=` session number: the same for all descriptions of a leg.
    pub session_id: u64,
    /// The `o=` version: grows with each change.
    pub version: u64,
    /// ICE user fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: Secret<String>,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// The role in answers; offers always say `actpass` (RFC 8842 section 5.2). The bridge is `Passive`.
    pub setup: Setup,
    /// Whether we only answer checks: the bridge does, the user agent in tests does not.
    pub ice_lite: bool,
    /// The name of the audio line in offers; an answer takes the offer's.
    pub mid: String,
    /// The one SSRC that we send with.
    pub ssrc: u32,
    /// Its canonical name.
    pub cname: String,
}

impl Ours {
    /// The session's lines.
    pub(super) fn session(&self, bundle: &str) -> Section {
        let mut lines = super::negotiate::session_lines(self.session_id, self.version, self.at.ip(), false);
        lines.attribute(format!("group:BUNDLE {bundle}"));
        if self.ice_lite {
            lines.attribute("ice-lite");
        }
        lines.attribute(format!("msid-semantic: WMS {}", self.cname));
        lines
    }

    /// The audio line's own lines before the codecs; an answer may say `rtcp-mux` only after the offer did.
    pub(super) fn media(&self, mid: &str, setup: Setup, mux: bool) -> Section {
        let mut lines = Section::default();
        lines.push('c', address_text(self.at.ip()));
        // RFC 8445 section 5.1.2.1: a host candidate, component 1, the only one.
        let priority = 2_130_706_431_u32;
        lines.attribute(format!("candidate:1 1 udp {priority} {} {} typ host", self.at.ip(), self.at.port()));
        lines.attribute("end-of-candidates");
        lines.attribute(format!("ice-ufrag:{}", self.ufrag));
        lines.attribute(format!("ice-pwd:{}", self.pwd.expose()));
        lines.attribute(format!("fingerprint:sha-256 {}", self.fingerprint));
        lines.attribute(format!("setup:{}", setup.as_str()));
        lines.attribute(format!("mid:{mid}"));
        if mux {
            lines.attribute("rtcp-mux");
        }
        lines
    }

    /// The lines that name our stream.
    pub(super) fn stream(&self, lines: &mut Section) {
        lines.attribute(format!("msid:{0} {0}-audio", self.cname));
        lines.attribute(format!("ssrc:{} cname:{}", self.ssrc, self.cname));
    }
}
