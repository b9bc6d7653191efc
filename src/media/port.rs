//! One end of a call: what a party sends comes in here, what it hears goes out here.
//!
//! ```text
//!             handle()                                 relay()
//!  datagram ──▶ sort ─▶ admit or decrypt ─▶ count ─▶ Heard ──▶ the joined port ─▶ place in its line ─▶ protect ─▶ Outbox
//!                │ STUN, DTLS: answered here                       ▲
//!                │ RTCP: round trip, loss out                      │ handle_timeout(): digits, prompt, silence
//! ```
//!
//! Invariant: whoever speaks, the party hears one RTP line; a packet from where none may come is counted
//! and never answered; relaying allocates nothing.

mod chores;
mod hear;
mod speak;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::media::bridge::{EgressLine, Place};
use crate::media::command::{Connect, Event, Law, Line, PortProgress, Remote};
use crate::media::dtmf::DigitEar;
use crate::media::latch::Latch;
use crate::media::outbox::Outbox;
use crate::media::prompt::{Playing, Track};
use crate::media::quality::Reception;
use crate::media::shield::{Notice, Shield};
use crate::media::srtp::Srtp;
use crate::media::voice::Voice;
use crate::media::watch::Watch;
use crate::terms::{PortId, Secret};

/// How often a port looks after itself, microseconds.
pub const CHORE_US: u64 = 100_000;

/// How often the quality is told, microseconds.
const QUALITY_US: u64 = 5_000_000;

/// The least time between two reports, microseconds; a spread is added (RFC 3550 section 6.2).
const RTCP_MIN_US: u64 = 2_000_000;

/// A browser that agreed but has no keys after so long has failed, microseconds.
const KEYS_WITHIN_US: u64 = 20_000_000;

/// Stands for the port of a party that has not described itself yet; no packet comes from it.
const UNKNOWN_PORT: u16 = 0;

/// When to raise the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarms {
    /// No sound for so long is `Silent`, milliseconds.
    pub silence_ms: u64,
    /// Nothing at all for so long is `Dead`, milliseconds; 0 never.
    pub dead_ms: u64,
}

/// What kind of sound a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// G.711.
    Sound(Law),
    /// A telephone event.
    Telephone,
    /// Comfort noise parameters.
    Comfort,
}

/// A packet of the party, checked and decrypted, for whoever is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard<'a> {
    /// What it carries.
    pub kind: Kind,
    /// The party's SSRC.
    pub ssrc: u32,
    /// Its numbers.
    pub place: Place,
    /// The payload.
    pub payload: &'a [u8],
}

/// How packets travel to the party.
enum Way {
    Plain { latch: Option<Latch>, rtcp: Option<SocketAddr> },
    Browser(Box<Shield>),
}

/// One end of a call.
pub struct Port {
    id: PortId,
    tag: u32,
    cname: String,
    line: EgressLine,
    way: Way,
    agreed: Option<Connect>,
    voice: Voice,
    ear: DigitEar,
    watch: Watch,
    reception: Reception,
    events: VecDeque<Event>,
    connected: bool,
    heard_first: bool,
    sent_packets: u32,
    sent_octets: u32,
    sent_us: u64,
    frame_us: Option<u64>,
    chore_us: u64,
    quality_us: u64,
    rtcp_us: u64,
    keys_by_us: Option<u64>,
    party_report: Option<(u32, u64)>,
    rtt_ms: f32,
    loss_out: f32,
    spread: u64,
    told: (u64, u32),
}

impl Port {
    /// A plain port; `tag` is the worker's own name for it.
    pub fn plain(id: PortId, tag: u32, line: &Line, alarms: Alarms, now_us: u64) -> Self {
        Self::new(id, tag, line, Way::Plain { latch: None, rtcp: None }, alarms, now_us)
    }

    /// A browser's port.
    pub fn browser(id: PortId, tag: u32, line: &Line, shield: Shield, alarms: Alarms, now_us: u64) -> Self {
        Self::new(id, tag, line, Way::Browser(Box::new(shield)), alarms, now_us)
    }

    fn new(id: PortId, tag: u32, line: &Line, way: Way, alarms: Alarms, now_us: u64) -> Self {
        Self {
            id,
            tag,
            cname: line.cname.clone(),
            line: EgressLine::new(line),
            way,
            agreed: None,
            voice: Voice::default(),
            ear: DigitEar::default(),
            watch: Watch::new(alarms.silence_ms * 1_000, alarms.dead_ms * 1_000, now_us),
            reception: Reception::default(),
            events: VecDeque::new(),
            connected: false,
            heard_first: false,
            sent_packets: 0,
            sent_octets: 0,
            sent_us: now_us,
            frame_us: None,
            chore_us: now_us + CHORE_US,
            quality_us: now_us + QUALITY_US,
            rtcp_us: now_us + RTCP_MIN_US,
            keys_by_us: None,
            party_report: None,
            rtt_ms: 0.0,
            loss_out: 0.0,
            // The engine's SSRC is random: as good a seed as any for spreading reports.
            spread: u64::from(line.ssrc) | 1,
            told: (0, 0),
        }
    }

    /// Whether a browser's authentic check came from there.
    pub fn is_validated(&self, from: SocketAddr) -> bool {
        match &self.way {
            Way::Plain { .. } => false,
            Way::Browser(shield) => shield.is_validated(from),
        }
    }

    /// Our offer is out: sound from any one port of `from` is heard until signalling names its source.
    pub fn expect(&mut self, from: IpAddr) {
        let Way::Plain { latch, .. } = &mut self.way else { return };
        let known = latch.as_ref().is_some_and(|latch| latch.signalled().ip() == from);
        if self.agreed.is_none() && !known {
            *latch = Some(Latch::new(SocketAddr::new(from, UNKNOWN_PORT), None, true));
        }
    }

    /// What signalling agreed, first or again.
    pub fn connect(&mut self, connect: Connect, now_us: u64) {
        let notice = match (&mut self.way, &connect.remote) {
            (Way::Plain { latch, rtcp }, Remote::Plain { rtp, rtcp: remote_rtcp, may_latch, also }) => {
                // The same address again (hold, refresh) keeps what was learnt of it.
                if latch.as_ref().is_none_or(|latch| latch.signalled() != *rtp) {
                    *latch = Some(Latch::new(*rtp, *also, *may_latch));
                }
                *rtcp = Some(*remote_rtcp);
                None
            }
            (Way::Browser(shield), Remote::WebRtc { ufrag, fingerprint }) => {
                shield.promise(ufrag, *fingerprint)
            }
            (Way::Plain { .. }, Remote::WebRtc { .. }) | (Way::Browser(_), Remote::Plain { .. }) => {
                Some(Notice::Failed("the party's kind of media is not this port's".to_owned()))
            }
        };
        if self.agreed.is_none() {
            self.keys_by_us = matches!(self.way, Way::Browser(_)).then_some(now_us + KEYS_WITHIN_US);
            self.sent_us = now_us;
        }
        self.watch.expect(connect.receive, now_us);
        self.agreed = Some(connect);
        self.take_notice(notice);
        self.wake(now_us);
    }

    /// New ICE credentials of ours.
    pub fn restart(&mut self, ufrag: String, pwd: Secret<String>) {
        if let Way::Browser(shield) = &mut self.way {
            shield.restart(ufrag, pwd);
        }
    }

    /// Plays to the party as soon as it can be reached, instead of what played.
    pub fn play(&mut self, track: Arc<Track>, repeat: bool, token: u64, now_us: u64) {
        let playing = Playing::new(track, repeat, token);
        if playing.is_over() {
            self.events.push_back(Event::PlayEnded { port: self.id, token });
            return;
        }
        self.voice.play(playing);
        self.wake(now_us);
    }

    /// Plays no more.
    pub fn stop(&mut self) {
        self.voice.stop();
    }

    /// Presses digits towards the party.
    pub fn press(&mut self, digits: &str, now_us: u64) {
        let as_events = self.agreed.as_ref().is_some_and(|agreed| agreed.telephone_event.is_some());
        self.voice.press(digits, as_events);
        self.wake(now_us);
    }

    /// The port ends: the last figures of its quality, and a goodbye to a browser.
    pub fn close(&mut self, now_us: u64, out: &mut Outbox) {
        self.tell_quality(out);
        if let Way::Browser(shield) = &mut self.way {
            shield.close(now_us / 1_000);
        }
        self.drain_shield(out);
    }

    /// What there is to say; drain until `None`.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout`, microseconds.
    pub fn next_timeout(&self) -> u64 {
        let due = self.chore_us.min(self.frame_us.unwrap_or(u64::MAX));
        match &self.way {
            Way::Plain { .. } => due,
            Way::Browser(shield) => {
                due.min(shield.next_timeout().map_or(u64::MAX, |ms| ms.saturating_mul(1_000)))
            }
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now_us: u64, out: &mut Outbox) {
        if self.frame_us.is_some_and(|due| due <= now_us) {
            self.frame(now_us, out);
        }
        if let Way::Browser(shield) = &mut self.way {
            shield.handle_timeout(now_us / 1_000);
        }
        self.drain_shield(out);
        if self.chore_us <= now_us {
            self.chore_us = now_us + CHORE_US;
            self.chores(now_us, out);
        }
    }

    /// How far it has come, if further than the last time.
    pub fn progress(&mut self) -> Option<PortProgress> {
        let now = (self.line.index(), self.reception.received());
        if std::mem::replace(&mut self.told, now) == now {
            return None;
        }
        let srtp = match &self.way {
            Way::Plain { .. } => None,
            Way::Browser(shield) => shield.srtp(),
        };
        let ssrc = self.line.ssrc();
        Some(PortProgress {
            port: self.id,
            sent_index: srtp.map_or(self.line.index(), |srtp| srtp.sent_index(ssrc).unwrap_or(0)),
            sent_ts: self.line.ts(),
            sent_rtcp_index: srtp.map_or(0, |srtp| srtp.sent_rtcp_index(ssrc)),
            received: match srtp {
                Some(srtp) => srtp.received(),
                None => self.reception.ssrc().map(|ssrc| (ssrc, u64::from(self.reception.highest()))),
            },
            received_rtcp_index: srtp.map_or(0, Srtp::received_rtcp_index),
            address: match &self.way {
                Way::Plain { latch, .. } => latch.as_ref().map(Latch::current),
                Way::Browser(shield) => shield.nominated(),
            },
        })
    }
}

#[cfg(test)]
mod tests;
