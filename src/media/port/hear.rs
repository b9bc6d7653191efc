//! What comes in: sorting, admitting or decrypting, counting.

use std::net::SocketAddr;

use super::{Heard, Kind, Port, Way};
use crate::media::bridge::Place;
use crate::media::command::{Connect, Event, Law};
use crate::media::dtmf::{Pressed, Telephone};
use crate::media::outbox::{Component, Outbox};
use crate::media::rtcp;
use crate::media::rtp::{self, Class, Header};
use crate::media::shield::{Notice, Shield};
use crate::media::watch::Watch;

/// RFC 3389's static payload type.
const STATIC_COMFORT: u8 = 13;

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

    pub(super) fn drain_shield(&mut self, out: &mut Outbox) {
        let Way::Browser(shield) = &mut self.way else { return };
        let tag = self.tag;
        let notice = shield.drain(|to, bytes| {
            out.add_bytes(tag, Component::Rtp, to, bytes);
        });
        self.take_notice(notice);
    }

    pub(super) fn take_notice(&mut self, notice: Option<Notice>) {
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
    pub(super) fn note_reachable(&mut self, now_us: u64) {
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
        let kind = kind_of(self.agreed.as_ref(), header.payload_type);
        self.watch.sign(now_us);
        let receives = self.agreed.as_ref().is_none_or(|agreed| agreed.receive);
        if header.ssrc == self.line.ssrc() || !receives {
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

    pub(super) fn tell_digit(&mut self, pressed: Option<Pressed>) {
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

/// What a payload type means for this party. The static types mean their laws even where the other was
/// agreed: some gateways change the law in mid-call without a word. Before anything is agreed they mean
/// what our offer said.
fn kind_of(agreed: Option<&Connect>, payload_type: u8) -> Option<Kind> {
    let of_agreed = agreed.and_then(|agreed| {
        if payload_type == agreed.payload_type {
            Some(Kind::Sound(agreed.law))
        } else if Some(payload_type) == agreed.telephone_event {
            Some(Kind::Telephone)
        } else {
            (Some(payload_type) == agreed.comfort_noise).then_some(Kind::Comfort)
        }
    });
    of_agreed.or_else(|| {
        let law = [Law::Pcma, Law::Pcmu].into_iter().find(|law| law.payload_type() == payload_type);
        law.map(Kind::Sound).or((payload_type == STATIC_COMFORT).then_some(Kind::Comfort))
    })
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
