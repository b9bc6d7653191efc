//! The words between the engine and the media workers: commands go down, events come up.
//!
//! The engine names ports, chooses every number that others will see (SSRC, first sequence number,
//! credentials) and joins ports; the workers carry packets and say what they see.
//!
//! Invariant: a command never fails silently: what cannot be done comes back as an [`Event`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fact;
use crate::terms::{CallId, LegId, PortId, Secret};

/// The longest string of digits that one [`Command::Digits`] may carry; the rest is dropped.
pub const MAX_DIGITS: usize = 32;

/// Which companding law G.711 sound uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Law {
    /// A-law, static payload type 8 (RFC 3551 table 4).
    Pcma,
    /// µ-law, static payload type 0.
    Pcmu,
}

impl Law {
    /// The static payload type of RFC 3551 table 4.
    pub fn payload_type(self) -> u8 {
        match self {
            Law::Pcma => 8,
            Law::Pcmu => 0,
        }
    }

    /// The encoding name as SDP and people write it.
    pub fn name(self) -> &'static str {
        match self {
            Law::Pcma => "PCMA",
            Law::Pcmu => "PCMU",
        }
    }
}

/// The egress line of a port for its whole life: one SSRC, one sequence, one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Our synchronisation source (RFC 3550 section 3).
    pub ssrc: u32,
    /// Sequence number of the first packet.
    pub seq: u16,
    /// Timestamp of the first packet, 8 kHz.
    pub ts: u32,
    /// Canonical name in RTCP (RFC 7022).
    pub cname: String,
}

/// How a port meets the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// A plain pair of UDP ports.
    Rtp {
        /// The RTP address (even port); RTCP is at the next port.
        local: SocketAddr,
    },
    /// A browser: ICE-lite, DTLS-SRTP and rtcp-mux on the worker's shared UDP port.
    WebRtc {
        /// Our ICE user name fragment: the first half of the USERNAME that browsers will send.
        ufrag: String,
        /// Our ICE password.
        pwd: Secret<String>,
    },
}

/// Where the party is and how its packets are protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Plain RTP.
    Plain {
        /// Where its RTP goes and must come from.
        rtp: SocketAddr,
        /// Where its RTCP goes (`a=rtcp`, RFC 3605, else RTP + 1).
        rtcp: SocketAddr,
        /// Whether another port of the same address may claim the stream at its beginning (NAT).
        may_latch: bool,
        /// Another address of the party, proved by its signalling, that may claim it too (NAT).
        also: Option<IpAddr>,
    },
    /// A browser.
    WebRtc {
        /// Its ICE user name fragment: the second half of the USERNAME it must send.
        ufrag: String,
        /// SHA-256 of its certificate, as its SDP said (RFC 8122).
        fingerprint: [u8; 32],
    },
}

/// What signalling agreed for one port. A later one replaces it; the egress line goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The party.
    pub remote: Remote,
    /// The agreed law.
    pub law: Law,
    /// Its payload type.
    pub payload_type: u8,
    /// Payload type of `telephone-event/8000`, if agreed.
    pub telephone_event: Option<u8>,
    /// Payload type of `CN/8000` (RFC 3389), if agreed; 13 as a rule.
    pub comfort_noise: Option<u8>,
    /// Milliseconds of sound in each packet that we make ourselves, 10…60.
    pub ptime_ms: u32,
    /// Whether the party wants to hear us (`sendrecv` or `recvonly` at its side).
    pub send: bool,
    /// Whether the party will send to us.
    pub receive: bool,
}

/// What can be played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sound {
    /// A prompt of the sound store, by its file name as dialplans write it.
    File(Arc<str>),
    /// 425 Hz, 1 s on, 4 s off.
    Ringback,
    /// 425 Hz, 0.35 s on, 0.35 s off.
    Busy,
    /// 425 Hz, 0.2 s on, 0.2 s off.
    Congestion,
    /// Special information tones: 950, 1400, 1800 Hz of 330 ms each, then 1 s of pause.
    Unavailable,
}

/// Asked of a media worker. Commands about unknown ports are counted and dropped.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make a port.
    Open {
        /// Its name from now on.
        port: PortId,
        /// The call, for the log.
        call: CallId,
        /// The leg, for the log.
        leg: LegId,
        /// How it meets the network.
        open: Open,
        /// What the party will see of us.
        line: Line,
    },
    /// Our offer is out: hear the party from now on, although nobody knows yet where it is (RFC 3264
    /// section 5.1). Nothing is sent to it before `Connect`.
    Expect {
        /// Which port.
        port: PortId,
        /// Where its signalling is: sound may come from there only.
        from: IpAddr,
    },
    /// What signalling agreed, first or again.
    Connect {
        /// Which port.
        port: PortId,
        /// What.
        remote: Connect,
    },
    /// New ICE credentials for a browser port (its client restarts ICE, RFC 8445 section 9): the SRTP keys
    /// and the egress line go on. A `Connect` with the client's new `ufrag` follows.
    Restart {
        /// Which port.
        port: PortId,
        /// Our new user name fragment.
        ufrag: String,
        /// Our new password.
        pwd: Secret<String>,
    },
    /// Let two ports hear each other; each leaves the bridge it was in. Both are on this worker.
    Join {
        /// One.
        a: PortId,
        /// The other.
        b: PortId,
    },
    /// Take a port (and so its partner) out of the bridge.
    Part {
        /// Which.
        a: PortId,
    },
    /// Play to the party at the port. It wins over the bridge while it plays and replaces what played.
    Play {
        /// To whom.
        port: PortId,
        /// What.
        sound: Sound,
        /// Again and again until [`Command::Stop`]; tones always repeat.
        repeat: bool,
        /// Comes back in [`Event::PlayEnded`].
        token: u64,
    },
    /// Stop playing; no [`Event::PlayEnded`] follows.
    Stop {
        /// Where.
        port: PortId,
    },
    /// Press digits towards the party (RFC 4733), 100 ms each, 50 ms between.
    Digits {
        /// To whom.
        port: PortId,
        /// `0-9 * # A-D`, at most [`MAX_DIGITS`]; others are skipped.
        digits: String,
    },
    /// Forget the port.
    Close {
        /// Which.
        port: PortId,
    },
}

impl Command {
    /// The port it is about (the first one of a join).
    pub fn port(&self) -> PortId {
        match self {
            Command::Open { port, .. }
            | Command::Expect { port, .. }
            | Command::Connect { port, .. }
            | Command::Restart { port, .. }
            | Command::Play { port, .. }
            | Command::Stop { port }
            | Command::Digits { port, .. }
            | Command::Close { port } => *port,
            Command::Join { a, .. } | Command::Part { a } => *a,
        }
    }
}

/// SRTP keys of one browser leg, as DTLS gave them (RFC 5764 section 4.2): what a restore needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// IANA number of the protection profile: 1 `AES128_CM_HMAC_SHA1_80`, 7 `AEAD_AES_128_GCM`, 8 `AEAD_AES_256_GCM`.
    pub profile: u16,
    /// Our master key followed by our master salt.
    pub local: Secret<Vec<u8>>,
    /// The party's master key followed by its master salt.
    pub remote: Secret<Vec<u8>>,
}

/// How far a port has come: what a restore jumps forward from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortProgress {
    /// Which port.
    pub port: PortId,
    /// Last SRTP index sent: roll-over count × 65536 + sequence (RFC 3711 section 3.3.1).
    pub sent_index: u64,
    /// Last RTP timestamp sent.
    pub sent_ts: u32,
    /// Last SRTCP index sent.
    pub sent_rtcp_index: u32,
    /// The party's SSRC and its highest index received.
    pub received: Option<(u32, u64)>,
    /// The party's highest SRTCP index received.
    pub received_rtcp_index: u32,
    /// Where packets to the party go now: nominated, latched or signalled.
    pub address: Option<SocketAddr>,
}

/// What a worker has counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Ports open now.
    pub ports: u64,
    /// Datagrams received.
    pub received: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// RTP packets handed from one port of a bridge to the other.
    pub relayed: u64,
    /// Datagrams from an address that no port expects.
    pub stray: u64,
    /// Datagrams that are none of STUN, DTLS, RTP, RTCP, or are malformed.
    pub malformed: u64,
    /// SRTP or SRTCP packets that failed authentication or came twice.
    pub refused: u64,
    /// Valid RTP that had nowhere to go or a payload nobody agreed to.
    pub unwanted: u64,
    /// Packets that the kernel did not take.
    pub send_errors: u64,
    /// Commands about ports that are not there, or that a full queue lost.
    pub lost_commands: u64,
    /// Events that a full queue lost.
    pub lost_events: u64,
    /// Plays of a sound that is not in the store.
    pub missing_sounds: u64,
    /// RTP packets lost on the way to us, as gaps of the sequence say (RFC 3550 appendix A.3).
    pub lost: u64,
}

/// What a media worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The port could not be opened (as a rule its address is taken): it does not exist.
    OpenFailed {
        /// Which.
        port: PortId,
        /// In words.
        why: String,
    },
    /// DTLS is done and the party's certificate is the one its SDP promised.
    Secured {
        /// Which.
        port: PortId,
        /// For the record of the port.
        keys: Keys,
    },
    /// The way to the party stands: the first valid packet (RTP or RTCP, or for browsers a nominated
    /// pair with keys) came from it.
    Connected {
        /// Which.
        port: PortId,
    },
    /// The first sound came from the party.
    FirstPacket {
        /// Which.
        port: PortId,
    },
    /// A sound that does not repeat came to its end (at once, if it is not in the store).
    PlayEnded {
        /// Where.
        port: PortId,
        /// Of its [`Command::Play`].
        token: u64,
    },
    /// The party pressed a key: once for each RFC 4733 event.
    Digit {
        /// Which.
        port: PortId,
        /// `0-9 * # A-D`.
        digit: char,
        /// How long, milliseconds, as far as was heard.
        duration_ms: u32,
    },
    /// How far the ports that moved have come: one batch each 100 ms.
    Progress(Vec<PortProgress>),
    /// A direction carries no sound.
    Silent {
        /// Which.
        port: PortId,
        /// Which way.
        flow: fact::Flow,
        /// Probable cause in words.
        cause: String,
    },
    /// It carries sound again.
    Recovered {
        /// Which.
        port: PortId,
        /// Which way.
        flow: fact::Flow,
    },
    /// How the leg sounds, every few seconds.
    Quality {
        /// Which.
        port: PortId,
        /// Over the last seconds.
        quality: fact::Quality,
    },
    /// Nothing at all came from the party for the configured time: once, until something comes.
    Dead {
        /// Which.
        port: PortId,
    },
    /// The port can never carry sound (the party's certificate is not the promised one, DTLS failed):
    /// its call must end.
    Failed {
        /// Which.
        port: PortId,
        /// In words.
        why: String,
    },
    /// What the worker counted, every second while anything changed.
    Counts(Counts),
}
