//! One dialog with one party, as the call sees it: who, where it stands, which port carries it,
//! and what was agreed about sound.
//!
//! ```text
//!   outgoing:  Trying ──Rang──▶ Ringing ──EarlyMedia──▶ Early ──Answered──▶ Up ⇄ Held
//!   incoming:  Trying ──────────── we answer ─────────────────────────────▶ Up ⇄ Held
//! ```

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::call::ports::{Local, PortRecord};
use crate::fact::{LegState, Party, What};
use crate::media::command::{Connect, Keys, Law, PortProgress, Remote as MediaRemote};
use crate::sdp::negotiate::{self as sdp, Agreed, Codec, Offer};
use crate::sdp::webrtc::{Fingerprint, Ours, Setup};
use crate::terms::{LegId, Number};

/// How far the version of our description jumps over a restore: those that the writer sent after its last
/// record.
const VERSION_GAP: u64 = 100;
/// How far our egress line jumps: five seconds of packets, more than leave between two reports of a worker
/// and in the batches that may be lost (RFC 3550 section 5.1: a number that comes twice is a duplicate).
const PACKETS_GAP: u16 = 256;
/// Samples of one packet of 20 ms.
const PACKET_SAMPLES: u32 = 160;

/// A leg as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leg {
    /// Its id, the same in SIP and media.
    pub id: LegId,
    /// Who is at the other end.
    pub party: Party,
    /// The number at that end.
    pub number: Number,
    /// Where it stands.
    pub state: LegState,
    /// Whether we called it.
    pub outgoing: bool,
    /// Its media end, once opened.
    pub port: Option<PortRecord>,
    /// What it offered and we have not answered yet.
    pub offer: Option<Offer>,
    /// What is agreed about sound.
    pub agreed: Option<Agreed>,
    /// The keys that its handshake gave, for another process to go on with.
    pub keys: Option<Keys>,
    /// How far its packets have come, for another process to jump forward from.
    pub progress: Option<PortProgress>,
    /// `o=` session id, and the version that grows with each description (RFC 3264 section 8).
    pub session: (u64, u64),
    /// Where its SIP comes from, if known: sound may come from there too.
    pub source: Option<IpAddr>,
    /// Whether its address is proved by an ACK or a packet; nothing is sent to it before.
    pub proved: bool,
}

impl Leg {
    /// A leg that begins.
    pub fn new(id: LegId, party: Party, number: Number, outgoing: bool) -> Self {
        Self {
            id,
            party,
            number,
            state: LegState::Trying,
            outgoing,
            port: None,
            offer: None,
            agreed: None,
            keys: None,
            progress: None,
            session: (id.0.saturating_add(1), 1),
            source: None,
            proved: true,
        }
    }

    /// Jumps over what the writer may have used after its last record.
    pub(crate) fn jump(&mut self) {
        self.session.1 = self.session.1.saturating_add(VERSION_GAP);
    }

    /// The egress line goes on beyond all that another process sent.
    pub(crate) fn jump_line(&mut self) {
        let Some(port) = &mut self.port else { return };
        let line = &mut port.line;
        if let Some(progress) = &self.progress {
            line.seq = u16::try_from(progress.sent_index & 0xffff).unwrap_or(line.seq);
            line.ts = progress.sent_ts;
        }
        line.seq = line.seq.wrapping_add(PACKETS_GAP);
        line.ts = line.ts.wrapping_add(u32::from(PACKETS_GAP).wrapping_mul(PACKET_SAMPLES));
        if let Some(progress) = &mut self.progress {
            progress.sent_index = progress.sent_index.saturating_add(u64::from(PACKETS_GAP));
            progress.sent_ts = line.ts;
        }
    }

    /// How it stands, as a fact.
    pub(crate) fn told(&self) -> What {
        What::Leg {
            leg: self.id,
            party: self.party.clone(),
            number: self.number.clone(),
            state: self.state,
            codec: self.codec_name(),
        }
    }

    /// `PCMA` or `PCMU`, empty before it is agreed.
    pub fn codec_name(&self) -> String {
        self.agreed.as_ref().map(|agreed| agreed.codec.name().to_owned()).unwrap_or_default()
    }

    /// Whether both sides have agreed and the leg can carry sound.
    pub fn is_up(&self) -> bool {
        matches!(self.state, LegState::Up | LegState::Held)
    }

    /// Our half of a description, with the next version.
    pub fn local(&mut self, fingerprint: [u8; 32]) -> Option<sdp::Local> {
        let port = self.port.as_ref()?;
        let (session_id, version) = self.session;
        self.session.1 = version.saturating_add(1);
        Some(match &port.local {
            Local::Rtp { address, port, .. } => {
                sdp::Local::Plain { address: *address, port: *port, session_id, version, mux: false }
            }
            Local::WebRtc { address, port: udp, ufrag, pwd } => sdp::Local::WebRtc(Box::new(Ours {
                at: SocketAddr::new(*address, *udp),
                session_id,
                version,
                ufrag: ufrag.clone(),
                pwd: pwd.clone(),
                fingerprint: Fingerprint(fingerprint),
                // Our role in answers, whoever called whom first: a browser that we called may send a
                // re-INVITE, and an answer cannot say actpass (RFC 8842 section 5.3).
                setup: Setup::Passive,
                ice_lite: true,
                mid: "0".to_owned(),
                ssrc: port.line.ssrc,
                cname: port.line.cname.clone(),
            })),
        })
    }

    /// What the media worker must know of the far end.
    pub fn connect(&self) -> Option<Connect> {
        let agreed = self.agreed.as_ref()?;
        let remote = match &agreed.remote {
            sdp::Remote::Plain { rtp, rtcp, .. } => {
                let next = SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1));
                MediaRemote::Plain {
                    rtp: *rtp,
                    rtcp: rtcp.unwrap_or(next),
                    may_latch: true,
                    also: self.source,
                }
            }
            sdp::Remote::WebRtc(theirs) => {
                MediaRemote::WebRtc { ufrag: theirs.ufrag.clone(), fingerprint: theirs.fingerprint.0 }
            }
        };
        Some(Connect {
            remote,
            law: law(agreed.codec),
            payload_type: agreed.payload_type,
            telephone_event: agreed.telephone_event,
            comfort_noise: None,
            ptime_ms: u32::from(agreed.ptime_ms),
            send: agreed.direction.sends() && self.proved,
            receive: agreed.direction.receives(),
        })
    }

    /// The codecs to offer this leg when the other side talks `law`: its law first, so that nothing
    /// is converted; the other stays possible by table.
    pub fn laws(law: Option<Codec>) -> [Codec; 2] {
        match law {
            Some(Codec::Pcmu) => [Codec::Pcmu, Codec::Pcma],
            Some(Codec::Pcma) | None => [Codec::Pcma, Codec::Pcmu],
        }
    }
}

/// The same law in the words of media.
fn law(codec: Codec) -> Law {
    match codec {
        Codec::Pcma => Law::Pcma,
        Codec::Pcmu => Law::Pcmu,
    }
}
