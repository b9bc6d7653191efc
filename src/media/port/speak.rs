//! What goes out: packets of the joined party, and the port's own sound on its packet clock.

use std::net::SocketAddr;

use super::{Heard, Kind, Port, Way};
use crate::media::bridge::Place;
use crate::media::command::{Event, Law};
use crate::media::dtmf::Stroke;
use crate::media::g711::{SAMPLES_PER_MS, transcode};
use crate::media::latch::Latch;
use crate::media::outbox::{Component, Outbox};
use crate::media::rtp::{self, HEADER_LEN};
use crate::media::voice::Frame;

/// The longest packet time of our own frames, in samples: 60 ms.
const MAX_FRAME: usize = 480;

/// Own frames further behind than this are not made up for, microseconds.
const MAX_BEHIND_US: u64 = 100_000;

/// A packet to be written.
struct Outgoing<'a> {
    payload_type: u8,
    place: Place,
    to: SocketAddr,
    payload: &'a [u8],
    /// The law that the payload is in, where the party's is the other.
    other_law: Option<Law>,
}

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
    pub(super) fn address(&self, now_us: u64) -> Option<SocketAddr> {
        match &self.way {
            Way::Plain { latch, .. } => latch.as_ref().map(Latch::current),
            Way::Browser(shield) => shield.address(now_us / 1_000),
        }
    }

    pub(super) fn may_send(&self, now_us: u64) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.send) && self.address(now_us).is_some()
    }

    /// Begins the packet clock of our own sound, if there is any and the party can hear it.
    pub(super) fn wake(&mut self, now_us: u64) {
        if self.frame_us.is_none() && self.voice.is_busy() && self.may_send(now_us) {
            self.frame_us = Some(now_us);
        }
    }

    /// One packet time of our own.
    pub(super) fn frame(&mut self, now_us: u64, out: &mut Outbox) {
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
