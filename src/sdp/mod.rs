//! Session descriptions (RFC 8866): where sound is to go and in which form. Text becomes a value and back;
//! `negotiate` makes answers and offers of it, `webrtc` knows what a browser adds.
//!
//! Invariant: every line is kept in its place and spelling, also those nobody here understands; reading is
//! linear and bounded; a written line holds no line end.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod negotiate;
pub mod webrtc;

/// The longest description read, octets.
pub const MAX_OCTETS: usize = 65_536;
/// The most media lines.
pub const MAX_MEDIA: usize = 16;
/// The most attributes and other lines, candidates aside.
pub const MAX_LINES: usize = 256;
/// The most candidates kept; an ICE-lite end needs none of them, the rest are dropped.
pub const MAX_CANDIDATES: usize = 32;
/// The most formats of a media line kept: there are no more payload types.
pub const MAX_FORMATS: usize = 128;

/// Why a description leads to no sound. `NotSdp`, `TooLong` and `TooMany` are a 400, the others a 488.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SdpError {
    /// Not a session description.
    #[error("not a session description")]
    NotSdp,
    /// Longer than [`MAX_OCTETS`].
    #[error("session description too long")]
    TooLong,
    /// More than [`MAX_MEDIA`] media or [`MAX_LINES`] lines.
    #[error("too many lines in the session description")]
    TooMany,
    /// No audio line that is not refused.
    #[error("no audio")]
    NoAudio,
    /// No codec that both sides have.
    #[error("no common codec")]
    NoCommonCodec,
    /// Audio in a way we have not; the phrase says what.
    #[error("{0}")]
    NotSupported(&'static str),
}

/// Which way sound flows, from the point of view of the one who says it (RFC 8866 section 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// Only away from the speaker.
    SendOnly,
    /// Only towards the speaker.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// From whether sound is sent and received.
    pub fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the speaker sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the speaker receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same, seen from the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self::of(self.receives(), self.sends())
    }

    /// What both allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.sends() && other.sends(), self.receives() && other.receives())
    }

    /// As the name of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// One line, `kind=text`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The letter.
    pub kind: char,
    /// What follows the `=`.
    pub text: String,
}

/// The lines of the session or of one media, in order, without the `m=` line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Section(pub Vec<Line>);

impl Section {
    /// Adds a line.
    pub fn push(&mut self, kind: char, text: impl Into<String>) {
        self.0.push(Line { kind, text: text.into() });
    }

    /// Adds an `a=` line.
    pub fn attribute(&mut self, text: impl Into<String>) {
        self.push('a', text);
    }

    /// The text of the first line of this kind.
    pub fn first(&self, kind: char) -> Option<&str> {
        self.0.iter().find(|line| line.kind == kind).map(|line| line.text.as_str())
    }

    /// The values of all attributes of this name; a flag's value is empty.
    pub fn values<'s, 'n>(&'s self, name: &'n str) -> impl Iterator<Item = &'s str> + use<'s, 'n> {
        self.0.iter().filter(|line| line.kind == 'a').filter_map(move |line| {
            let (have, value) = line.text.split_once(':').unwrap_or((line.text.as_str(), ""));
            (have.trim() == name).then_some(value.trim())
        })
    }

    /// The value of the first attribute of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Whether there is such an attribute.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The literal address of the `c=` line; a name or a multicast range counts as none.
    pub fn address(&self) -> Option<IpAddr> {
        self.first('c').and_then(read_address)
    }

    /// The last direction attribute.
    pub fn direction(&self) -> Option<Direction> {
        let all = [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
        let attributes = self.0.iter().rev().filter(|line| line.kind == 'a');
        attributes.filter_map(|line| all.into_iter().find(|one| one.as_str() == line.text.trim())).next()
    }
}

/// Reads `IN IP4 192.0.2.1`.
fn read_address(text: &str) -> Option<IpAddr> {
    let mut words = text.split_ascii_whitespace();
    let (net, _, address) = (words.next()?, words.next()?, words.next()?);
    (net == "IN").then(|| address.parse().ok()).flatten()
}

/// Writes `IN IP4 192.0.2.1`.
fn address_text(address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "IP4" } else { "IP6" };
    format!("IN {kind} {address}")
}

/// One medium: its `m=` line and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// `audio`, `video` …
    pub kind: String,
    /// The port as text: `49170`, also `49170/2`.
    pub port: String,
    /// `RTP/AVP`, `UDP/TLS/RTP/SAVPF` …
    pub protocol: String,
    /// Payload types, or what stands for them.
    pub formats: Vec<String>,
    /// The lines below.
    pub lines: Section,
}

impl Media {
    /// The port; 0 when it is refused or no number.
    pub fn port(&self) -> u16 {
        self.port.split('/').next().and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().map(str::to_owned);
        let (kind, port, protocol) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            kind,
            port,
            protocol,
            formats: words.take(MAX_FORMATS).collect(),
            lines: Section::default(),
        })
    }

    /// The codec name and clock of a payload type: what `a=rtpmap` says, else the static table of RFC 3551.
    fn encoding(&self, payload_type: u8) -> Option<(&str, u32)> {
        let mapped = self.lines.values("rtpmap").find_map(|value| {
            let (number, rest) = value.split_once(' ')?;
            (number.parse() == Ok(payload_type)).then_some(rest.trim())
        });
        let Some(text) = mapped else {
            return match payload_type {
                0 => Some(("PCMU", 8000)),
                8 => Some(("PCMA", 8000)),
                _ => None,
            };
        };
        let mut parts = text.split('/');
        Some((parts.next()?, parts.next()?.trim().parse().ok()?))
    }
}

/// A whole description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Session {
    /// The lines before the first `m=`, `v=` included.
    pub lines: Section,
    /// The media in order.
    pub media: Vec<Media>,
}

impl Session {
    /// Reads a description. Lenient: a last line without end, bare CR or LF, lines that are none, odd `b=`.
    pub fn read(text: &[u8]) -> Result<Self, SdpError> {
        if text.len() > MAX_OCTETS {
            return Err(SdpError::TooLong);
        }
        let text = String::from_utf8_lossy(text);
        let mut session = Self::default();
        let mut counts = Counts::default();
        for line in text.split(['\r', '\n']) {
            let mut chars = line.chars();
            let (Some(kind), Some('=')) = (chars.next(), chars.next()) else { continue };
            session.take(kind, chars.as_str(), &mut counts)?;
        }
        if session.lines.first('v').is_none() {
            return Err(SdpError::NotSdp);
        }
        Ok(session)
    }

    fn take(&mut self, kind: char, text: &str, counts: &mut Counts) -> Result<(), SdpError> {
        if kind == 'm' {
            if self.media.len() == MAX_MEDIA {
                return Err(SdpError::TooMany);
            }
            self.media.push(Media::read(text).ok_or(SdpError::NotSdp)?);
            return Ok(());
        }
        if kind == 'a' && text.starts_with("candidate:") {
            counts.candidates = counts.candidates.saturating_add(1);
            if counts.candidates > MAX_CANDIDATES {
                return Ok(());
            }
        } else {
            counts.lines = counts.lines.saturating_add(1);
            if counts.lines > MAX_LINES {
                return Err(SdpError::TooMany);
            }
        }
        let section = self.media.last_mut().map_or(&mut self.lines, |media| &mut media.lines);
        section.push(kind, text);
        Ok(())
    }

    /// The attribute of a medium, or of the session when the medium has none.
    fn value<'s>(&'s self, media: &'s Media, name: &str) -> Option<&'s str> {
        media.lines.value(name).or_else(|| self.lines.value(name))
    }

    /// Where the medium is to be sent; `None` without a literal address.
    fn target(&self, media: &Media) -> Option<SocketAddr> {
        let address = media.lines.address().or_else(|| self.lines.address())?;
        Some(SocketAddr::new(address, media.port()))
    }
}

#[derive(Default)]
struct Counts {
    lines: usize,
    candidates: usize,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lines(f, &self.lines)?;
        for media in &self.media {
            let mut text = format!("{} {} {}", media.kind, media.port, media.protocol);
            for format in &media.formats {
                text.push(' ');
                text.push_str(format);
            }
            write_line(f, 'm', &text)?;
            write_lines(f, &media.lines)?;
        }
        Ok(())
    }
}

fn write_lines(f: &mut fmt::Formatter<'_>, section: &Section) -> fmt::Result {
    section.0.iter().try_for_each(|line| write_line(f, line.kind, &line.text))
}

fn write_line(f: &mut fmt::Formatter<'_>, kind: char, text: &str) -> fmt::Result {
    write!(f, "{kind}=")?;
    for part in text.split(['\r', '\n']) {
        f.write_str(part)?;
    }
    f.write_str("\r\n")
}
