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

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::fact::Quality;
use crate::media::bridge::{EgressLine, Place};
use crate::media::command::{Connect, Event, Law, Line, PortProgress, Remote};
use crate::media::dtmf::{DigitEar, Pressed, Stroke, Telephone};
use crate::media::g711::{SAMPLES_PER_MS, transcode};
use crate::media::latch::Latch;
use crate::media::outbox::{Component, Outbox};
use crate::media::prompt::{Playing, Track};
use crate::media::quality::{Reception, judged};
use crate::media::rtcp;
use crate::media::rtp::{self, Class, HEADER_LEN, Header};
use crate::media::shield::{Notice, Shield};
use crate::media::voice::{Frame, Voice};
use crate::media::watch::{Alarm, Watch};
use crate::terms::{PortId, Secret};

/// How often a port looks after itself, microseconds.
pub const CHORE_US: u64 = 100_000;

/// A party that heard nothing for so long gets comfort silence, microseconds.
const COMFORT_AFTER_US: u64 = 200_000;

/// How often the quality is told, microseconds.
const QUALITY_US: u64 = 5_000_000;

/// Reports are sent each 2 to 5 s: the spread of RFC 3550 section 6.2 around a fixed minimum.
const RTCP_MIN_US: u64 = 2_000_000;
const RTCP_SPREAD_US: u64 = 3_000_000;

/// A browser that agreed but has no keys after so long has failed, microseconds.
const KEYS_WITHIN_US: u64 = 20_000_000;

/// The longest packet time of our own frames, in samples: 60 ms.
const MAX_FRAME: usize = 480;

/// Own frames further behind than this are not made up for, microseconds.
const MAX_BEHIND_US: u64 = 100_000;

/// RFC 3389's static payload type.
const STATIC_COMFORT: u8 = 13;

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

/// A packet to be written.
struct Outgoing<'a> {
    payload_type: u8,
    place: Place,
    to: SocketAddr,
    payload: &'a [u8],
    /// The law that the payload is in, where the party's is the other.
    other_law: Option<Law>,
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

    /// Its name.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Whether a browser's authentic check came from there.
    pub fn is_validated(&self, from: SocketAddr) -> bool {
        match &self.way {
            Way::Plain { .. } => false,
            Way::Browser(shield) => shield.is_validated(from),
        }
    }

    /// What signalling agreed, first or again.
    pub fn connect(&mut self, connect: Connect, now_us: u64) {
        let notice = match (&mut self.way, &connect.remote) {
            (Way::Plain { latch, rtcp }, Remote::Plain { rtp, rtcp: remote_rtcp, may_latch }) => {
                // The same address again (hold, refresh) keeps what was learnt of it.
                if latch.as_ref().is_none_or(|latch| latch.signalled() != *rtp) {
                    *latch = Some(Latch::new(*rtp, *may_latch));
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
        self.tell_quality();
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
            received_rtcp_index: srtp.map_or(0, super::srtp::Srtp::received_rtcp_index),
            address: match &self.way {
                Way::Plain { latch, .. } => latch.as_ref().map(Latch::current),
                Way::Browser(shield) => shield.nominated(),
            },
        })
    }
}

/// What comes in.
impl Port {
    /// A datagram of the party came to one of the port's sockets. What it carries for the joined port.
    pub fn handle<'a>(
        &mut self,
        datagram: &'a mut [u8],
        from: SocketAddr,
        component: Component,
        now_us: u64,
        out: &mut Outbox,
    ) -> Option<Heard<'a>> {
        match rtp::class(datagram) {
            Class::Rtp if component == Component::Rtp => self.handle_rtp(datagram, from, now_us, out),
            Class::Rtcp => {
                self.handle_rtcp(datagram, from, now_us, out);
                None
            }
            Class::Stun => {
                self.handle_check(datagram, from, now_us, out);
                None
            }
            Class::Dtls => {
                self.handle_dtls(datagram, from, now_us, out);
                None
            }
            Class::Rtp | Class::Unknown => {
                out.counts.malformed += 1;
                None
            }
        }
    }

    fn handle_check(&mut self, datagram: &[u8], from: SocketAddr, now_us: u64, out: &mut Outbox) {
        let Way::Browser(shield) = &mut self.way else {
            out.counts.malformed += 1;
            return;
        };
        let Some(reply) = shield.check(datagram, from, now_us / 1_000) else {
            out.counts.refused += 1;
            return;
        };
        out.add_bytes(self.tag, Component::Rtp, from, &reply);
        self.watch.sign(now_us);
        self.note_reachable(now_us);
    }

    fn handle_dtls(&mut self, datagram: &[u8], from: SocketAddr, now_us: u64, out: &mut Outbox) {
        let Way::Browser(shield) = &mut self.way else {
            out.counts.malformed += 1;
            return;
        };
        if !shield.shake(datagram, from, now_us / 1_000) {
            out.counts.stray += 1;
            return;
        }
        self.drain_shield(out);
        self.note_reachable(now_us);
    }

    fn drain_shield(&mut self, out: &mut Outbox) {
        let Way::Browser(shield) = &mut self.way else { return };
        let tag = self.tag;
        let notice = shield.drain(|to, bytes| {
            out.add_bytes(tag, Component::Rtp, to, bytes);
        });
        self.take_notice(notice);
    }

    fn take_notice(&mut self, notice: Option<Notice>) {
        match notice {
            Some(Notice::Keyed(keys)) => {
                self.keys_by_us = None;
                self.events.push_back(Event::Secured { port: self.id, keys });
            }
            Some(Notice::Failed(why)) => {
                self.keys_by_us = None;
                self.events.push_back(Event::Failed { port: self.id, why });
            }
            None => {}
        }
    }

    /// A browser's way stands once it has keys and a pair.
    fn note_reachable(&mut self, now_us: u64) {
        if !self.connected && matches!(self.way, Way::Browser(_)) && self.address(now_us).is_some() {
            self.note_connected();
            self.wake(now_us);
        }
    }

    fn note_connected(&mut self) {
        if !self.connected {
            self.connected = true;
            self.events.push_back(Event::Connected { port: self.id });
        }
    }

    fn handle_rtp<'a>(
        &mut self,
        datagram: &'a mut [u8],
        from: SocketAddr,
        now_us: u64,
        out: &mut Outbox,
    ) -> Option<Heard<'a>> {
        let header = self.open_rtp(datagram, from, now_us, out)?;
        let agreed = self.agreed.as_ref()?;
        let kind = kind_of(agreed, header.payload_type);
        self.watch.sign(now_us);
        if header.ssrc == self.line.ssrc() || !agreed.receive {
            // Our own packets come back (RFC 3550 section 8.2), or the party is on hold and speaks anyway.
            out.counts.unwanted += 1;
            return None;
        }
        let timed = matches!(kind, Some(Kind::Sound(_)));
        self.reception.note(header.ssrc, header.seq, header.ts, timed, now_us);
        let Some(kind) = kind else {
            out.counts.unwanted += 1;
            return None;
        };
        self.note_sound(kind, now_us);
        let payload = datagram.get(header.payload.clone())?;
        if kind == Kind::Telephone {
            let event = Telephone::read(payload)?;
            let pressed = self.ear.hear(header.ssrc, header.ts, event, now_us);
            self.tell_digit(pressed);
        }
        let place = Place { seq: header.seq, ts: header.ts, marker: header.marker };
        Some(Heard { kind, ssrc: header.ssrc, place, payload })
    }

    /// Decrypts where there is something to decrypt, and checks that the packet may come from there.
    /// After it `header.payload` lies in the plain packet at the front of `datagram`.
    fn open_rtp(
        &mut self,
        datagram: &mut [u8],
        from: SocketAddr,
        now_us: u64,
        out: &mut Outbox,
    ) -> Option<Header> {
        match &mut self.way {
            Way::Plain { latch, .. } => {
                let Some(header) = rtp::read(datagram) else {
                    out.counts.malformed += 1;
                    return None;
                };
                if !latch.as_mut().is_some_and(|latch| latch.admits(from, header.ssrc, header.seq, now_us)) {
                    out.counts.stray += 1;
                    self.watch.stray();
                    return None;
                }
                Some(header)
            }
            Way::Browser(shield) => {
                let len = open_shielded(shield, datagram, from, false, &mut self.watch, out)?;
                let header = datagram.get(..len).and_then(rtp::read);
                if header.is_none() {
                    out.counts.malformed += 1;
                }
                header
            }
        }
    }

    fn note_sound(&mut self, kind: Kind, now_us: u64) {
        self.watch.sound(kind == Kind::Comfort, now_us);
        self.note_connected();
        if !self.heard_first {
            self.heard_first = true;
            self.events.push_back(Event::FirstPacket { port: self.id });
        }
    }

    fn tell_digit(&mut self, pressed: Option<Pressed>) {
        if let Some(Pressed { digit, duration_ms }) = pressed {
            self.events.push_back(Event::Digit { port: self.id, digit, duration_ms });
        }
    }

    fn handle_rtcp(&mut self, datagram: &mut [u8], from: SocketAddr, now_us: u64, out: &mut Outbox) {
        let len = match &mut self.way {
            Way::Plain { latch, .. } => {
                // Only figures hang on it, so the port may be any; the address must be the party's.
                if latch.as_ref().is_none_or(|latch| latch.signalled().ip() != from.ip()) {
                    out.counts.stray += 1;
                    return;
                }
                datagram.len()
            }
            Way::Browser(shield) => {
                let Some(len) = open_shielded(shield, datagram, from, true, &mut self.watch, out) else {
                    return;
                };
                len
            }
        };
        let Some(heard) = datagram.get(..len).and_then(|plain| rtcp::read(plain, self.line.ssrc())) else {
            out.counts.malformed += 1;
            return;
        };
        self.note_report(&heard, now_us);
    }

    fn note_report(&mut self, heard: &rtcp::Heard, now_us: u64) {
        self.watch.sign(now_us);
        self.note_connected();
        if let Some(middle) = heard.middle_ntp {
            self.party_report = Some((middle, now_us));
        }
        if let Some(block) = &heard.block {
            self.loss_out = f32::from(block.fraction_lost) / 256.0;
            if let Some(trip) = rtcp::round_trip_ms(block, now_us) {
                self.rtt_ms = trip;
            }
            let alarm = self.watch.report(block.highest_seq, self.sent_packets);
            self.tell_alarm(alarm);
        }
    }
}

/// What goes out.
impl Port {
    /// A packet of the joined party; `bridge` names the join, so that a new one begins a new source.
    pub fn relay(&mut self, heard: &Heard<'_>, bridge: u32, now_us: u64, out: &mut Outbox) {
        let Some((payload_type, law)) = self.outlet(heard) else {
            self.line.skip(heard.ssrc, bridge, heard.place.seq);
            out.counts.unwanted += 1;
            return;
        };
        let Some(to) = self.address(now_us) else {
            out.counts.unwanted += 1;
            return;
        };
        let Some(place) = self.line.relay(heard.ssrc, bridge, heard.place, now_us) else {
            out.counts.unwanted += 1;
            return;
        };
        self.voice.comfort(false);
        let other_law = match heard.kind {
            Kind::Sound(from) if from != law => Some(from),
            Kind::Sound(_) | Kind::Telephone | Kind::Comfort => None,
        };
        let outgoing = Outgoing { payload_type, place, to, payload: heard.payload, other_law };
        if self.send(&outgoing, now_us, out) {
            out.counts.relayed += 1;
        }
    }

    /// The payload type under which the party takes this, if it takes it now.
    fn outlet(&self, heard: &Heard<'_>) -> Option<(u8, Law)> {
        let agreed = self.agreed.as_ref()?;
        if !agreed.send || self.voice.is_speaking() {
            return None;
        }
        let payload_type = match heard.kind {
            Kind::Sound(_) => Some(agreed.payload_type),
            Kind::Telephone => agreed.telephone_event,
            Kind::Comfort => agreed.comfort_noise,
        };
        Some((payload_type?, agreed.law))
    }

    fn send(&mut self, outgoing: &Outgoing<'_>, now_us: u64, out: &mut Outbox) -> bool {
        let Outgoing { payload_type, place, to, payload, other_law } = *outgoing;
        let (way, ssrc) = (&mut self.way, self.line.ssrc());
        let sent = out.add(self.tag, Component::Rtp, to, |slot| {
            rtp::write(slot, place.marker, payload_type, place.seq, place.ts, ssrc)?;
            let len = HEADER_LEN + payload.len();
            let room = slot.get_mut(HEADER_LEN..len)?;
            match other_law {
                Some(from) => transcode(from, payload, room),
                None => room.copy_from_slice(payload),
            }
            match way {
                Way::Plain { .. } => Some(len),
                Way::Browser(shield) => shield.protect(slot, len, false),
            }
        });
        if sent {
            self.sent_us = now_us;
            self.sent_packets = self.sent_packets.wrapping_add(1);
            self.sent_octets = self.sent_octets.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        }
        sent
    }

    /// Where packets to the party go now, if it can be reached.
    fn address(&self, now_us: u64) -> Option<SocketAddr> {
        match &self.way {
            Way::Plain { latch, .. } => latch.as_ref().map(Latch::current),
            Way::Browser(shield) => shield.address(now_us / 1_000),
        }
    }

    fn may_send(&self, now_us: u64) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.send) && self.address(now_us).is_some()
    }

    /// Begins the packet clock of our own sound, if there is any and the party can hear it.
    fn wake(&mut self, now_us: u64) {
        if self.frame_us.is_none() && self.voice.is_busy() && self.may_send(now_us) {
            self.frame_us = Some(now_us);
        }
    }

    /// One packet time of our own.
    fn frame(&mut self, now_us: u64, out: &mut Outbox) {
        let due_us = self.frame_us.take().unwrap_or(now_us);
        let Some((agreed, to)) = self.agreed.as_ref().filter(|agreed| agreed.send).zip(self.address(now_us))
        else {
            // On hold or out of reach: what plays waits until `wake`.
            return;
        };
        let (law, sound_type, event_type) = (agreed.law, agreed.payload_type, agreed.telephone_event);
        let samples = agreed.ptime_ms.clamp(10, 60) * SAMPLES_PER_MS;
        let mut buffer = [0; MAX_FRAME];
        let len = usize::try_from(samples).unwrap_or(MAX_FRAME).min(MAX_FRAME);
        let Some(room) = buffer.get_mut(..len) else { return };
        match self.voice.next(law, room) {
            Frame::Nothing => return,
            Frame::Sound => {
                let place = self.line.own(samples, now_us);
                let outgoing =
                    Outgoing { payload_type: sound_type, place, to, payload: room, other_law: None };
                self.send(&outgoing, now_us, out);
            }
            Frame::Stroke(stroke) => self.stroke(stroke, event_type, samples, to, now_us, out),
        }
        if let Some(token) = self.voice.take_ended() {
            self.events.push_back(Event::PlayEnded { port: self.id, token });
        }
        if self.voice.is_busy() {
            let next = due_us + u64::from(samples) * 1_000 / u64::from(SAMPLES_PER_MS);
            self.frame_us = Some(if next + MAX_BEHIND_US < now_us { now_us } else { next });
        }
    }

    fn stroke(
        &mut self,
        stroke: Stroke,
        event_type: Option<u8>,
        samples: u32,
        to: SocketAddr,
        now_us: u64,
        out: &mut Outbox,
    ) {
        match stroke {
            // The clock of the line runs on: the next digit or sound is placed by time.
            Stroke::Gap => self.line.pause(),
            Stroke::Event { event, fresh, copies } => {
                let Some(payload_type) = event_type else { return };
                for copy in 0..copies {
                    let begins = fresh && copy == 0;
                    let mut place = self.line.own(if begins { samples } else { 0 }, now_us);
                    // RFC 4733 section 2.3: the marker says where an event begins.
                    place.marker = begins;
                    let payload = &event.write();
                    self.send(&Outgoing { payload_type, place, to, payload, other_law: None }, now_us, out);
                }
                if event.end {
                    self.line.pause();
                }
            }
        }
    }
}

/// What a port does by itself, ten times a second.
impl Port {
    fn chores(&mut self, now_us: u64, out: &mut Outbox) {
        let overdue = self.ear.overdue(now_us);
        self.tell_digit(overdue);
        if let Way::Browser(shield) = &self.way {
            self.watch.consent(shield.consent_in_doubt(now_us / 1_000));
        }
        while let Some(alarm) = self.watch.check(now_us) {
            self.tell_alarm(Some(alarm));
        }
        if self.keys_by_us.is_some_and(|by| by <= now_us) {
            self.take_notice(Some(Notice::Failed(
                "the browser did not finish ICE and DTLS in time".to_owned(),
            )));
        }
        self.note_reachable(now_us);
        self.keep_awake(now_us);
        if self.rtcp_us <= now_us {
            self.report(now_us, out);
        }
        if self.quality_us <= now_us {
            self.quality_us = now_us + QUALITY_US;
            self.tell_quality();
        }
    }

    /// Gateways hang up on a stream that stops (GSM gateways after 10 s): nobody speaks, so silence is sent.
    fn keep_awake(&mut self, now_us: u64) {
        let idle = now_us.saturating_sub(self.sent_us) > COMFORT_AFTER_US;
        if idle && matches!(self.way, Way::Plain { .. }) && self.may_send(now_us) {
            self.voice.comfort(true);
        }
        self.wake(now_us);
    }

    fn tell_alarm(&mut self, alarm: Option<Alarm>) {
        let port = self.id;
        self.events.extend(alarm.map(|alarm| match alarm {
            Alarm::Silent(flow, cause) => Event::Silent { port, flow, cause: cause.to_owned() },
            Alarm::Recovered(flow) => Event::Recovered { port, flow },
            Alarm::Dead => Event::Dead { port },
        }));
    }

    fn tell_quality(&mut self) {
        if let Some((loss_in, jitter_ms)) = self.reception.rate() {
            let quality: Quality = judged(loss_in, self.loss_out, jitter_ms, self.rtt_ms);
            self.events.push_back(Event::Quality { port: self.id, quality });
        }
    }

    /// Sends our report and chooses the time of the next.
    fn report(&mut self, now_us: u64, out: &mut Outbox) {
        // xorshift64: only a spread, so that a thousand ports do not report at once.
        self.spread ^= self.spread << 13;
        self.spread ^= self.spread >> 7;
        self.spread ^= self.spread << 17;
        self.rtcp_us = now_us + RTCP_MIN_US + self.spread % RTCP_SPREAD_US;
        let Some((component, to)) = self.report_address(now_us) else { return };
        let ntp = rtcp::ntp(now_us);
        let (packets, octets) = (self.sent_packets, self.sent_octets);
        let ts = self.line.ts_at(now_us);
        let sent = (packets > 0).then_some(rtcp::Sent { ntp, ts, packets, octets });
        let block = self.report_block(now_us);
        let (way, ssrc, cname) = (&mut self.way, self.line.ssrc(), self.cname.as_str());
        out.add(self.tag, component, to, |slot| {
            let len = rtcp::write(slot, ssrc, sent.as_ref(), block.as_ref(), cname)?;
            match way {
                Way::Plain { .. } => Some(len),
                Way::Browser(shield) => shield.protect(slot, len, true),
            }
        });
    }

    fn report_block(&mut self, now_us: u64) -> Option<rtcp::Block> {
        let mut block = self.reception.report()?;
        if let Some((middle, at_us)) = self.party_report {
            block.last_sr = middle;
            let delay = now_us.saturating_sub(at_us) * 65_536 / 1_000_000;
            block.delay = u32::try_from(delay).unwrap_or(u32::MAX);
        }
        Some(block)
    }

    fn report_address(&self, now_us: u64) -> Option<(Component, SocketAddr)> {
        match &self.way {
            Way::Browser(shield) => Some((Component::Rtp, shield.address(now_us / 1_000)?)),
            Way::Plain { latch, rtcp } => {
                let latch = latch.as_ref()?;
                if latch.current() == latch.signalled() {
                    return Some((Component::Rtcp, (*rtcp)?));
                }
                // Behind NAT the signalled RTCP port is as wrong as the RTP port was: the next one is the best guess.
                let mut to = latch.current();
                to.set_port(to.port().checked_add(1)?);
                Some((Component::Rtcp, to))
            }
        }
    }
}

/// What a payload type means for this party. The static types mean their laws even where the other was
/// agreed: some gateways change the law in mid-call without a word.
fn kind_of(agreed: &Connect, payload_type: u8) -> Option<Kind> {
    if payload_type == agreed.payload_type {
        Some(Kind::Sound(agreed.law))
    } else if Some(payload_type) == agreed.telephone_event {
        Some(Kind::Telephone)
    } else if Some(payload_type) == agreed.comfort_noise || payload_type == STATIC_COMFORT {
        Some(Kind::Comfort)
    } else {
        [Law::Pcma, Law::Pcmu].into_iter().find(|law| law.payload_type() == payload_type).map(Kind::Sound)
    }
}

/// Decrypts a browser's packet in place; the length of the plain packet.
fn open_shielded(
    shield: &mut Shield,
    datagram: &mut [u8],
    from: SocketAddr,
    is_rtcp: bool,
    watch: &mut Watch,
    out: &mut Outbox,
) -> Option<usize> {
    if !shield.is_validated(from) {
        out.counts.stray += 1;
        watch.stray();
        return None;
    }
    match shield.unprotect(datagram, is_rtcp) {
        Ok(len) => Some(len),
        Err(_) => {
            out.counts.refused += 1;
            watch.refused();
            None
        }
    }
}

#[cfg(test)]
mod tests;
