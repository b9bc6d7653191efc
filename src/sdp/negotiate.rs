//! Offer and answer (RFC 3264) for one audio stream in G.711 with telephone-event.
//!
//! Invariant: an answer has as many media lines as its offer, in the same order, and refuses all but one; a
//! later offer of ours in the same leg keeps that layout and the payload types once agreed. Directions in
//! [`Offer`] are the offerer's, in [`Agreed`] ours.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::webrtc::{Ours, Setup, Theirs};
use super::{Direction, Media, SdpError, Section, Session, address_text};

/// The packet time when nobody asks for another, milliseconds.
pub const USUAL_PTIME_MS: u8 = 20;
/// The payload type of telephone-event in offers of ours.
pub const TELEPHONE_EVENT: u8 = 101;
/// The shortest and the longest packet time taken, milliseconds.
const PTIME_MS: std::ops::RangeInclusive<u8> = 10..=60;

/// The laws of G.711.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Codec {
    /// A-law.
    Pcma,
    /// µ-law.
    Pcmu,
}

impl Codec {
    /// As in `a=rtpmap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcma => "PCMA",
            Self::Pcmu => "PCMU",
        }
    }

    /// The payload type of RFC 3551.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcma => 8,
            Self::Pcmu => 0,
        }
    }
}

/// Where the other end takes media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// Plain RTP.
    Plain {
        /// RTP goes here; unspecified in an old hold (`c=0.0.0.0`).
        rtp: SocketAddr,
        /// RTCP goes here when it was said; else to the next port, or with RTP when `mux`.
        rtcp: Option<SocketAddr>,
        /// RTCP may share the port (RFC 5761).
        mux: bool,
    },
    /// A browser.
    WebRtc(Box<Theirs>),
}

/// Our end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// Plain RTP.
    Plain {
        /// Where we take it.
        address: IpAddr,
        /// On which port; RTCP on the next.
        port: u16,
        /// The `o=` session number: the same for all descriptions of a leg.
        session_id: u64,
        /// The `o=` version: grows with each change.
        version: u64,
        /// Whether we take RTCP on the same port if the other end does.
        mux: bool,
    },
    /// Towards a browser.
    WebRtc(Box<Ours>),
}

/// A media line that is refused, as it must be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    kind: String,
    protocol: String,
    format: String,
    mid: Option<String>,
}

/// Where our audio line stands among the media lines of a leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    before: Vec<Refused>,
    after: Vec<Refused>,
    protocol: String,
}

/// What is offered to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The codecs that we know, in the offerer's order, with payload types.
    pub codecs: Vec<(Codec, u8)>,
    /// Payload type of telephone-event at 8 kHz.
    pub telephone_event: Option<u8>,
    /// Packet time asked for, milliseconds.
    pub ptime_ms: u8,
    /// What the offerer wants to do.
    pub direction: Direction,
    /// Where the offerer is.
    pub remote: Remote,
    /// The `o=` line: the same text again means that nothing changed.
    pub origin: String,
    /// Where the audio line stands.
    pub layout: Layout,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The law.
    pub codec: Codec,
    /// Its payload type, in both directions.
    pub payload_type: u8,
    /// Payload type of digits, if both have them.
    pub telephone_event: Option<u8>,
    /// How much sound a packet that we make holds, milliseconds.
    pub ptime_ms: u8,
    /// What we do.
    pub direction: Direction,
    /// Where the other end is.
    pub remote: Remote,
    /// The other end's `o=` line.
    pub origin: String,
    /// Where the audio line stands.
    pub layout: Layout,
}

/// Reads an offer.
pub fn read_offer(text: &[u8]) -> Result<Offer, SdpError> {
    let session = Session::read(text)?;
    let chosen = session.media.iter().position(|media| media.kind == "audio" && media.port() != 0);
    let chosen = chosen.ok_or(SdpError::NoAudio)?;
    let media = session.media.get(chosen).ok_or(SdpError::NoAudio)?;
    let remote = read_remote(&session, media)?;
    let said = media.lines.direction().or_else(|| session.lines.direction()).unwrap_or_default();
    let refused = |media: &Media| Refused {
        kind: media.kind.clone(),
        protocol: media.protocol.clone(),
        format: media.formats.first().cloned().unwrap_or_else(|| "0".into()),
        mid: media.lines.value("mid").map(str::to_owned),
    };
    let layout = Layout {
        before: session.media.iter().take(chosen).map(refused).collect(),
        after: session.media.iter().skip(chosen.saturating_add(1)).map(refused).collect(),
        protocol: media.protocol.clone(),
    };
    Ok(Offer {
        codecs: codecs(media),
        telephone_event: telephone_event(media),
        ptime_ms: ptime(media),
        direction: said.and(old_hold(&remote)),
        remote,
        origin: session.lines.first('o').unwrap_or_default().to_owned(),
        layout,
    })
}

/// RFC 2543 held by the address 0.0.0.0 (RFC 3264 section 8.4): whoever says so hears nothing.
fn old_hold(remote: &Remote) -> Direction {
    match remote {
        Remote::Plain { rtp, .. } if rtp.ip().is_unspecified() => Direction::SendOnly,
        Remote::Plain { .. } | Remote::WebRtc(_) => Direction::SendRecv,
    }
}

fn read_remote(session: &Session, media: &Media) -> Result<Remote, SdpError> {
    let protocol = media.protocol.as_str();
    match protocol {
        "RTP/AVP" | "RTP/AVPF" => read_plain(session, media),
        "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVPF" | "RTP/SAVP" => {
            Theirs::read(session, media).map(|theirs| Remote::WebRtc(Box::new(theirs)))
        }
        _ => Err(SdpError::NotSupported("unknown media protocol")),
    }
}

fn read_plain(session: &Session, media: &Media) -> Result<Remote, SdpError> {
    let rtp = session.target(media).ok_or(SdpError::NotSupported("no literal media address"))?;
    let rtcp = media.lines.value("rtcp").and_then(|value| {
        let (port, address) = value.split_once(' ').map_or((value, None), |(port, rest)| (port, Some(rest)));
        let address = address.and_then(super::read_address).unwrap_or(rtp.ip());
        Some(SocketAddr::new(address, port.parse().ok().filter(|port| *port != 0)?))
    });
    Ok(Remote::Plain { rtp, rtcp, mux: media.lines.has("rtcp-mux") })
}

/// The payload types of a media line that are numbers, with their names and clocks.
fn encodings(media: &Media) -> impl Iterator<Item = (u8, &str, u32)> {
    let types = media.formats.iter().filter_map(|format| format.parse::<u8>().ok()).filter(|pt| *pt < 128);
    types.filter_map(|pt| media.encoding(pt).map(|(name, clock)| (pt, name, clock)))
}

fn codecs(media: &Media) -> Vec<(Codec, u8)> {
    let mut found: Vec<(Codec, u8)> = Vec::new();
    for (pt, name, clock) in encodings(media) {
        let codec =
            [Codec::Pcma, Codec::Pcmu].into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name));
        if let Some(codec) = codec
            && clock == 8000
            && !found.iter().any(|(have, _)| *have == codec)
        {
            found.push((codec, pt));
        }
    }
    found
}

/// Of the two that Chromium lists only the one with G.711's clock can be used beside it (RFC 4733 section 2.1).
fn telephone_event(media: &Media) -> Option<u8> {
    let wanted =
        |(_, name, clock): &(u8, &str, u32)| name.eq_ignore_ascii_case("telephone-event") && *clock == 8000;
    encodings(media).find(wanted).map(|(pt, ..)| pt)
}

fn ptime(media: &Media) -> u8 {
    let number = |name: &str| media.lines.value(name).and_then(|value| value.parse::<u8>().ok());
    let asked = number("ptime").filter(|ms| PTIME_MS.contains(ms)).unwrap_or(USUAL_PTIME_MS);
    let most = number("maxptime").filter(|ms| PTIME_MS.contains(ms)).unwrap_or(*PTIME_MS.end());
    // Our packets are cut from 10 ms pieces.
    let ms = asked.min(most);
    ms.saturating_sub(ms.checked_rem(10).unwrap_or(0))
}

/// Answers an offer with the first codec of `prefer` that it holds.
pub fn answer(offer: &Offer, local: &Local, prefer: &[Codec]) -> Result<(Agreed, String), SdpError> {
    let find = |codec: &Codec| offer.codecs.iter().find(|(have, _)| have == codec);
    let (codec, payload_type) = *prefer.iter().find_map(find).ok_or(SdpError::NoCommonCodec)?;
    let agreed = Agreed {
        codec,
        payload_type,
        telephone_event: offer.telephone_event,
        ptime_ms: offer.ptime_ms,
        direction: offer.direction.reversed(),
        remote: offer.remote.clone(),
        origin: offer.origin.clone(),
        layout: offer.layout.clone(),
    };
    let text = match (local, &offer.remote) {
        (Local::WebRtc(ours), Remote::WebRtc(theirs)) => {
            let setup = answered_setup(ours, theirs)?;
            write(local, &Words::of(&agreed, setup, theirs.mid.as_deref()), theirs.mux)
        }
        (Local::Plain { .. }, Remote::Plain { mux, .. }) => {
            write(local, &Words::of(&agreed, Setup::Passive, None), *mux)
        }
        (Local::WebRtc(_), Remote::Plain { .. }) | (Local::Plain { .. }, Remote::WebRtc(_)) => {
            return Err(SdpError::NotSupported("media protocol of another kind of leg"));
        }
    };
    Ok((agreed, text))
}

/// RFC 8842 section 5.3: one end calls, the other waits.
fn answered_setup(ours: &Ours, theirs: &Theirs) -> Result<Setup, SdpError> {
    match (theirs.setup, ours.setup) {
        (Setup::Passive, Setup::Passive) => Err(SdpError::NotSupported("both ends wait for DTLS")),
        (Setup::Active, Setup::Active) => Err(SdpError::NotSupported("both ends call DTLS")),
        (_, Setup::ActPass) => Err(SdpError::NotSupported("an answer cannot say actpass")),
        (_, setup) => Ok(setup),
    }
}

/// The first offer of a leg.
pub fn offer(local: &Local, codecs: &[Codec], direction: Direction) -> String {
    let protocol = match local {
        Local::Plain { .. } => "RTP/AVP",
        Local::WebRtc(_) => "UDP/TLS/RTP/SAVPF",
    };
    let layout = Layout { before: Vec::new(), after: Vec::new(), protocol: protocol.into() };
    let words = Words {
        codecs: codecs.iter().map(|codec| (*codec, codec.payload_type())).collect(),
        telephone_event: Some(TELEPHONE_EVENT),
        ptime_ms: USUAL_PTIME_MS,
        direction,
        layout: &layout,
        setup: Setup::ActPass,
        mid: None,
    };
    write(local, &words, true)
}

/// A later offer of ours in a leg: hold, resume, ICE restart. Layout and payload types stay as agreed
/// (RFC 3264 section 8).
pub fn offer_again(local: &Local, agreed: &Agreed, direction: Direction) -> String {
    let mid = match &agreed.remote {
        Remote::WebRtc(theirs) => theirs.mid.as_deref(),
        Remote::Plain { .. } => None,
    };
    write(local, &Words { direction, ..Words::of(agreed, Setup::ActPass, mid) }, true)
}

/// Reads the answer to an offer of ours.
pub fn read_answer(ours: &[Codec], text: &[u8]) -> Result<Agreed, SdpError> {
    let answer = read_offer(text)?;
    let common = answer.codecs.iter().find(|(codec, _)| ours.contains(codec));
    let (codec, payload_type) = *common.ok_or(SdpError::NoCommonCodec)?;
    Ok(Agreed {
        codec,
        payload_type,
        telephone_event: answer.telephone_event,
        ptime_ms: answer.ptime_ms,
        direction: answer.direction.reversed(),
        remote: answer.remote,
        origin: answer.origin,
        layout: answer.layout,
    })
}

/// What a description of ours is to say.
struct Words<'a> {
    codecs: Vec<(Codec, u8)>,
    telephone_event: Option<u8>,
    ptime_ms: u8,
    direction: Direction,
    layout: &'a Layout,
    setup: Setup,
    mid: Option<&'a str>,
}

impl<'a> Words<'a> {
    fn of(agreed: &'a Agreed, setup: Setup, mid: Option<&'a str>) -> Self {
        Self {
            codecs: vec![(agreed.codec, agreed.payload_type)],
            telephone_event: agreed.telephone_event,
            ptime_ms: agreed.ptime_ms,
            direction: agreed.direction,
            layout: &agreed.layout,
            setup,
            mid,
        }
    }

    fn formats(&self) -> Vec<String> {
        self.codecs.iter().map(|(_, pt)| *pt).chain(self.telephone_event).map(|pt| pt.to_string()).collect()
    }

    fn write_codecs(&self, lines: &mut Section) {
        for (codec, pt) in &self.codecs {
            lines.attribute(format!("rtpmap:{pt} {}/8000", codec.name()));
        }
        if let Some(pt) = self.telephone_event {
            lines.attribute(format!("rtpmap:{pt} telephone-event/8000"));
            lines.attribute(format!("fmtp:{pt} 0-16"));
        }
        lines.attribute(format!("ptime:{}", self.ptime_ms));
        lines.attribute(self.direction.as_str());
    }
}

/// `v= o= s= c= t=`, as every description of ours begins; a browser wants its `c=` at the medium.
pub(super) fn session_lines(session_id: u64, version: u64, address: IpAddr, connection: bool) -> Section {
    let mut lines = Section::default();
    lines.push('v', "0");
    lines.push('o', format!("- {session_id} {version} {}", address_text(address)));
    lines.push('s', "-");
    if connection {
        lines.push('c', address_text(address));
    }
    lines.push('t', "0 0");
    lines
}

fn write(local: &Local, words: &Words<'_>, mux_allowed: bool) -> String {
    let (lines, port, mut audio) = match local {
        Local::Plain { address, port, session_id, version, mux } => {
            let mut audio = Section::default();
            if *mux && mux_allowed {
                audio.attribute("rtcp-mux");
            }
            (session_lines(*session_id, *version, *address, true), *port, audio)
        }
        Local::WebRtc(ours) => {
            let mid = words.mid.unwrap_or(&ours.mid);
            (ours.session(mid), ours.at.port(), ours.media(mid, words.setup, mux_allowed))
        }
    };
    words.write_codecs(&mut audio);
    if let Local::WebRtc(ours) = local {
        ours.stream(&mut audio);
    }
    let audio = Media {
        kind: "audio".into(),
        port: port.to_string(),
        protocol: words.layout.protocol.clone(),
        formats: words.formats(),
        lines: audio,
    };
    let mut media: Vec<Media> = words.layout.before.iter().map(refuse).collect();
    media.push(audio);
    media.extend(words.layout.after.iter().map(refuse));
    Session { lines, media }.to_string()
}

fn refuse(line: &Refused) -> Media {
    let mut lines = Section::default();
    if let Some(mid) = &line.mid {
        lines.push('c', "IN IP4 0.0.0.0");
        lines.attribute(format!("mid:{mid}"));
        lines.attribute("inactive");
    }
    Media {
        kind: line.kind.clone(),
        port: "0".into(),
        protocol: line.protocol.clone(),
        formats: vec![line.format.clone()],
        lines,
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
    use super::super::webrtc::Fingerprint;
    use super::*;
    use crate::terms::Secret;

    const BOTH: [Codec; 2] = [Codec::Pcma, Codec::Pcmu];

    fn plain() -> Local {
        let address = "192.0.2.10".parse().unwrap();
        Local::Plain { address, port: 30_000, session_id: 77, version: 1, mux: true }
    }

    fn ours() -> Ours {
        Ours {
            at: "192.0.2.10:40000".parse().unwrap(),
            session_id: 78,
            version: 3,
            ufrag: "ufrg".into(),
            pwd: Secret::new("p".repeat(22)),
            fingerprint: Fingerprint([0xAB; 32]),
            setup: Setup::Passive,
            ice_lite: true,
            mid: "0".into(),
            ssrc: 4711,
            cname: "tandem".into(),
        }
    }

    fn browser() -> Local {
        Local::WebRtc(Box::new(ours()))
    }

    /// Bodies of the recorded browser traffic: file name and SDP.
    fn recorded() -> Vec<(String, Vec<u8>)> {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sip/jssip");
        let mut found = Vec::new();
        for folder in ["op1-caller", "op1-with-gateway", "op2-callee"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read(&path).unwrap();
                let at = text.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                if text[at..].starts_with(b"v=0") {
                    found.push((
                        path.file_name().unwrap().to_string_lossy().into_owned(),
                        text[at..].to_vec(),
                    ));
                }
            }
        }
        assert!(found.len() >= 20, "{}", found.len());
        found
    }

    fn theirs(remote: &Remote) -> &Theirs {
        match remote {
            Remote::WebRtc(theirs) => theirs,
            Remote::Plain { .. } => panic!("not a browser: {remote:?}"),
        }
    }

    const PHONE: &str = "v=0\r\no=root 1 2 IN IP4 198.51.100.4\r\ns=call\r\nc=IN IP4 198.51.100.4\r\nt=0 0\r\n\
        m=audio 17000 RTP/AVP 18 0 8 96\r\na=rtpmap:18 G729/8000\r\na=rtpmap:96 telephone-event/8000\r\n\
        a=fmtp:96 0-15\r\na=ptime:30\r\n";

    #[test]
    fn every_recorded_description_is_read_and_written_again_as_it_was() {
        for (file, text) in recorded() {
            let session = Session::read(&text).unwrap();
            assert_eq!(session.to_string().as_bytes(), &text[..], "{file}");
        }
    }

    #[test]
    fn every_recorded_browser_offer_can_be_answered() {
        for (file, text) in recorded() {
            let offer = read_offer(&text).unwrap();
            let Remote::WebRtc(theirs) = &offer.remote else {
                continue;
            };
            assert_eq!(offer.codecs.iter().filter(|(codec, _)| *codec == Codec::Pcma).count(), 1, "{file}");
            let (agreed, text) = answer(&offer, &browser(), &BOTH).unwrap();
            assert_eq!((agreed.codec, agreed.payload_type, agreed.ptime_ms), (Codec::Pcma, 8, 20), "{file}");
            assert_eq!(agreed.telephone_event, offer.telephone_event, "{file}");
            assert_eq!(agreed.direction, offer.direction.reversed(), "{file}");
            let mid = theirs.mid.as_deref().unwrap_or("0");
            assert!(text.contains(&format!("a=group:BUNDLE {mid}\r\n")), "{file} {text}");
        }
    }

    #[test]
    fn a_browser_gets_what_it_needs_in_an_answer() {
        let (_, text) =
            recorded().into_iter().find(|(file, _)| file == "05-out-INVITE-sendrecv.sip").unwrap();
        let offer = read_offer(&text).unwrap();
        assert_eq!(offer.codecs, [(Codec::Pcmu, 0), (Codec::Pcma, 8)]);
        assert_eq!(offer.telephone_event, Some(126));
        let them = theirs(&offer.remote);
        assert_eq!((them.setup, them.mux, them.ice_lite), (Setup::ActPass, true, false));
        assert_eq!(them.candidates.len(), 2, "UDP over IPv4 and IPv6; TCP is left out");
        let (_, text) = answer(&offer, &browser(), &BOTH).unwrap();
        let colons = ["AB"; 32].join(":");
        assert_eq!(
            text,
            format!(
                "v=0\r\no=- 78 3 IN IP4 192.0.2.10\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-lite\r\n\
                 a=msid-semantic: WMS tandem\r\nm=audio 40000 UDP/TLS/RTP/SAVPF 8 126\r\nc=IN IP4 192.0.2.10\r\n\
                 a=candidate:1 1 udp 2130706431 192.0.2.10 40000 typ host\r\na=end-of-candidates\r\n\
                 a=ice-ufrag:ufrg\r\na=ice-pwd:pppppppppppppppppppppp\r\na=fingerprint:sha-256 {colons}\r\n\
                 a=setup:passive\r\na=mid:0\r\na=rtcp-mux\r\na=rtpmap:8 PCMA/8000\r\n\
                 a=rtpmap:126 telephone-event/8000\r\na=fmtp:126 0-16\r\na=ptime:20\r\na=sendrecv\r\n\
                 a=msid:tandem tandem-audio\r\na=ssrc:4711 cname:tandem\r\n"
            )
        );
    }

    #[test]
    fn our_offer_to_a_browser_is_answered_by_our_own_user_agent_and_read_again() {
        let text = offer(&browser(), &BOTH, Direction::SendRecv);
        let read = read_offer(text.as_bytes()).unwrap();
        assert_eq!(read.codecs, [(Codec::Pcma, 8), (Codec::Pcmu, 0)]);
        let them = theirs(&read.remote);
        assert_eq!((them.setup, them.ice_lite, them.mux), (Setup::ActPass, true, true));
        assert_eq!(them.candidates, [ours().at]);
        let phone = Ours { setup: Setup::Active, ice_lite: false, ..ours() };
        let (_, text) = answer(&read, &Local::WebRtc(Box::new(phone)), &[Codec::Pcmu]).unwrap();
        let agreed = read_answer(&BOTH, text.as_bytes()).unwrap();
        assert_eq!((agreed.codec, theirs(&agreed.remote).setup), (Codec::Pcmu, Setup::Active));
        assert_eq!((agreed.telephone_event, agreed.direction), (Some(101), Direction::SendRecv));
    }

    #[test]
    fn a_gateway_is_answered_with_one_codec_and_keeps_its_payload_types() {
        let offer = read_offer(PHONE.as_bytes()).unwrap();
        assert_eq!(offer.codecs, [(Codec::Pcmu, 0), (Codec::Pcma, 8)]);
        assert_eq!((offer.telephone_event, offer.ptime_ms), (Some(96), 30));
        let (agreed, text) = answer(&offer, &plain(), &BOTH).unwrap();
        assert_eq!((agreed.codec, agreed.payload_type), (Codec::Pcma, 8));
        assert_eq!(
            agreed.remote,
            Remote::Plain { rtp: "198.51.100.4:17000".parse().unwrap(), rtcp: None, mux: false }
        );
        assert_eq!(
            text,
            "v=0\r\no=- 77 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
             m=audio 30000 RTP/AVP 8 96\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:96 telephone-event/8000\r\n\
             a=fmtp:96 0-16\r\na=ptime:30\r\na=sendrecv\r\n"
        );
    }

    #[test]
    fn each_direction_is_answered_by_its_mirror_in_both_forms_of_hold() {
        let table = [
            ("", Direction::SendRecv, Direction::SendRecv),
            ("a=sendrecv\r\n", Direction::SendRecv, Direction::SendRecv),
            ("a=sendonly\r\n", Direction::SendOnly, Direction::RecvOnly),
            ("a=recvonly\r\n", Direction::RecvOnly, Direction::SendOnly),
            ("a=inactive\r\n", Direction::Inactive, Direction::Inactive),
            ("c=IN IP4 0.0.0.0\r\n", Direction::SendOnly, Direction::RecvOnly),
            ("c=IN IP4 0.0.0.0\r\na=sendonly\r\n", Direction::SendOnly, Direction::RecvOnly),
            ("c=IN IP4 0.0.0.0\r\na=recvonly\r\n", Direction::Inactive, Direction::Inactive),
            ("c=IN IP6 ::\r\n", Direction::SendOnly, Direction::RecvOnly),
        ];
        for (more, theirs, ours) in table {
            let offer = read_offer(format!("{PHONE}{more}").as_bytes()).unwrap();
            let (agreed, _) = answer(&offer, &plain(), &BOTH).unwrap();
            assert_eq!((offer.direction, agreed.direction), (theirs, ours), "{more}");
        }
        let session = PHONE.replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n");
        assert_eq!(read_offer(session.as_bytes()).unwrap().direction, Direction::SendOnly);
    }

    #[test]
    fn other_media_lines_are_refused_in_their_places_and_stay_so_in_later_offers() {
        let video = "m=video 17002 RTP/AVP 99 100\r\na=rtpmap:99 H264/90000\r\n";
        let text = PHONE.replace("m=audio", &format!("{video}m=audio")) + "m=image 17004 udptl t38\r\n";
        let offer = read_offer(text.as_bytes()).unwrap();
        let (agreed, first) = answer(&offer, &plain(), &BOTH).unwrap();
        let later = offer_again(&plain(), &agreed, Direction::SendOnly);
        for text in [&first, &later] {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
            assert_eq!(lines, ["m=video 0 RTP/AVP 99", "m=audio 30000 RTP/AVP 8 96", "m=image 0 udptl t38"]);
        }
        assert!(later.contains("a=sendonly\r\n"));
    }

    #[test]
    fn rtcp_is_sent_where_the_description_says() {
        let table = [
            ("a=rtcp:17555\r\n", Some("198.51.100.4:17555"), false),
            ("a=rtcp:17555 IN IP4 198.51.100.5\r\n", Some("198.51.100.5:17555"), false),
            ("a=rtcp:17555 IN IP6 2001:db8::5\r\n", Some("[2001:db8::5]:17555"), false),
            ("a=rtcp:0\r\n", None, false),
            ("a=rtcp:x\r\na=rtcp-mux\r\n", None, true),
        ];
        for (more, expected, muxed) in table {
            let offer = read_offer(format!("{PHONE}{more}").as_bytes()).unwrap();
            let Remote::Plain { rtcp, mux, .. } = offer.remote else { panic!("{more}") };
            assert_eq!((rtcp, mux), (expected.map(|at| at.parse().unwrap()), muxed), "{more}");
        }
    }

    #[test]
    fn packet_times_outside_what_we_cut_are_brought_inside() {
        for (asked, ms) in [("10", 10), ("60", 60), ("35", 30), ("5", 20), ("200", 20), ("0", 20), ("x", 20)]
        {
            let text = PHONE.replace("a=ptime:30", &format!("a=ptime:{asked}"));
            assert_eq!(read_offer(text.as_bytes()).unwrap().ptime_ms, ms, "{asked}");
        }
        let text = format!("{PHONE}a=maxptime:20\r\n");
        assert_eq!(read_offer(text.as_bytes()).unwrap().ptime_ms, 20);
    }

    #[test]
    fn a_codec_under_a_dynamic_payload_type_is_found_and_one_at_another_clock_is_not() {
        let text = PHONE.replace("RTP/AVP 18 0 8 96", "RTP/AVP 97 98 96 8 300 x")
            + "a=rtpmap:97 pcma/8000/1\r\na=rtpmap:98 PCMU/16000\r\na=rtpmap:8 X-LAW/8000\r\n";
        assert_eq!(read_offer(text.as_bytes()).unwrap().codecs, [(Codec::Pcma, 97)]);
    }

    #[test]
    fn what_cannot_be_joined_says_why() {
        let fingerprint =
            "a=fingerprint:sha-1 00\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
        let secure = PHONE.replace("RTP/AVP", "UDP/TLS/RTP/SAVPF") + fingerprint;
        let table = [
            (PHONE.replace("17000", "0"), SdpError::NoAudio),
            (PHONE.replace("m=audio", "m=video"), SdpError::NoAudio),
            (PHONE.replace("RTP/AVP", "RTP/XYZ"), SdpError::NotSupported("unknown media protocol")),
            (secure, SdpError::NotSupported("no SHA-256 fingerprint")),
            (
                PHONE.replace("c=IN IP4 198.51.100.4", "c=IN IP4 host.example"),
                SdpError::NotSupported("no literal media address"),
            ),
            ("".into(), SdpError::NotSdp),
            ("{\"jsonrpc\": \"2.0\"".into(), SdpError::NotSdp),
            ("v=0\r\nm=\r\n".into(), SdpError::NotSdp),
            (format!("v=0\r\n{}", "m=audio 9 RTP/AVP 8\r\n".repeat(17)), SdpError::TooMany),
            (format!("v=0\r\n{}", "a=x\r\n".repeat(300)), SdpError::TooMany),
            (format!("v=0\r\n{}", "a".repeat(MAX)), SdpError::TooLong),
        ];
        for (text, error) in table {
            assert_eq!(
                read_offer(text.as_bytes()).unwrap_err(),
                error,
                "{}",
                text.get(..80).unwrap_or(&text)
            );
        }
        let offer = read_offer(PHONE.replace(" 0 8 ", " ").as_bytes()).unwrap();
        assert_eq!(answer(&offer, &plain(), &BOTH).unwrap_err(), SdpError::NoCommonCodec);
        let offer = read_offer(PHONE.as_bytes()).unwrap();
        assert!(matches!(answer(&offer, &browser(), &BOTH), Err(SdpError::NotSupported(_))));
        assert_eq!(read_answer(&BOTH, PHONE.replace("17000", "0").as_bytes()), Err(SdpError::NoAudio));
    }
    const MAX: usize = super::super::MAX_OCTETS;

    #[test]
    fn two_passive_ends_do_not_wait_for_each_other() {
        let text = offer(&browser(), &BOTH, Direction::SendRecv).replace("actpass", "passive");
        let read = read_offer(text.as_bytes()).unwrap();
        assert!(matches!(answer(&read, &browser(), &BOTH), Err(SdpError::NotSupported(_))));
    }

    #[test]
    fn odd_lines_missing_line_ends_and_ten_thousand_candidates_do_no_harm() {
        let cut = PHONE.trim_end().replace("s=call\r\n", "s=call\nb=AS\nb=:\r\nnonsense\r\nfoo=bar\r\n\r\n");
        let offer = read_offer(cut.as_bytes()).unwrap();
        assert_eq!(offer.ptime_ms, 30, "the last line has no end");
        let one = "a=candidate:1 1 udp 1 192.0.2.9 9999 typ host\r\na=candidate:2 9999 udp 1 x.local 1 typ host\r\n";
        let text = format!("{}{}", super::offer(&browser(), &BOTH, Direction::SendRecv), one.repeat(600));
        let offer = read_offer(text.as_bytes()).unwrap();
        assert_eq!(theirs(&offer.remote).candidates.len(), 17, "32 lines are kept, every second is good");
        let wide = PHONE.replace("18 0 8 96", &"8 ".repeat(20_000));
        assert_eq!(read_offer(wide.as_bytes()).unwrap().codecs, [(Codec::Pcma, 8)]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            failure_persistence: None,
            ..proptest::prelude::ProptestConfig::with_cases(200)
        })]

        #[test]
        fn damaged_descriptions_never_panic_and_answers_to_them_can_be_read(
            which in proptest::prelude::any::<proptest::sample::Index>(),
            places in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 0..8),
        ) {
            let all = recorded();
            let mut text = all[which.index(all.len())].1.clone();
            for (place, octet) in places {
                let at = place.index(text.len());
                if octet < 200 { text[at] = octet } else { text.remove(at); }
            }
            if let Ok(offer) = read_offer(&text)
                && let Ok((_, answer)) = answer(&offer, &browser(), &BOTH)
            {
                let again = read_answer(&BOTH, answer.as_bytes());
                proptest::prop_assert!(again.is_ok(), "{:?} {}", again, answer);
            }
        }
    }

    #[test]
    fn nothing_from_an_offer_can_begin_a_line_of_the_answer() {
        let text = offer(&browser(), &BOTH, Direction::SendRecv).replace("a=mid:0", "a=mid:0\ra=evil");
        let (_, text) = answer(&read_offer(text.as_bytes()).unwrap(), &browser(), &BOTH).unwrap();
        assert!(!text.contains("evil") && text.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
    }

    #[test]
    fn what_was_agreed_survives_a_record() {
        let read = read_offer(offer(&browser(), &BOTH, Direction::RecvOnly).as_bytes()).unwrap();
        let (agreed, _) = answer(&read, &browser(), &BOTH).unwrap();
        assert_eq!(agreed.direction, Direction::SendOnly, "a listener hears us and is not heard");
        let record = serde_json::to_vec(&agreed).unwrap();
        assert_eq!(serde_json::from_slice::<Agreed>(&record).unwrap(), agreed);
        assert!(!format!("{agreed:?}").contains("pppp"), "the password never prints");
    }
}
