//! One end of a sound path: packets out every 20 ms, packets in with what they hold and how they came.
//!
//! Invariant: what is heard is placed by its RTP timestamp: a lost packet leaves 20 ms of silence, a late or
//! doubled one is counted and not heard.

mod control;

use std::collections::VecDeque;

use self::control::Control;
use crate::media::command::Law;
use crate::media::dtmf::{DigitEar, DigitHand, Pressed, Stroke, Telephone};
use crate::media::g711::{SAMPLES_PER_MS, decode, encode};
use crate::media::rtp::{self, HEADER_LEN};
use crate::ua::speech::{Speak, Speaker};
use crate::ua::tone_meter::{ToneMeter, Window};

/// Milliseconds in a packet.
pub const PACKET_MS: u64 = 20;
const PACKET_STEP_MS: u32 = 20;
const PACKET: u32 = PACKET_STEP_MS * SAMPLES_PER_MS;
/// A leap of the timestamp above it is a new clock and not a gap: 10 s.
const MAX_LEAP: i32 = 80_000;

/// Digits kept until they are taken.
const MAX_DIGITS: usize = 64;

/// How the packets came.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Heard {
    /// Packets sent by us.
    pub sent: u64,
    /// Packets that were heard.
    pub packets: u64,
    /// Sequence numbers that never came, or came too late.
    pub lost: u64,
    /// Packets that came too late or twice.
    pub late: u64,
    /// Packets that are no RTP or of a payload type that nobody agreed to.
    pub unwanted: u64,
    /// How often the source or its clock changed.
    pub restarts: u64,
    /// When the first packet came, driver's clock, milliseconds.
    pub first_ms: Option<u64>,
    /// When the last packet came.
    pub last_ms: Option<u64>,
    /// The longest time between two packets, milliseconds.
    pub longest_gap_ms: u64,
    /// Milliseconds to the switch and back, as its last RTCP report lets us compute.
    pub round_trip_ms: Option<f32>,
    /// Packets of ours that the switch missed, by its last report.
    pub lost_there: Option<i32>,
}

/// Where the source stands.
#[derive(Debug, Clone, Copy)]
struct Clock {
    ssrc: u32,
    seq: u16,
    ts: u32,
}

/// One end.
#[derive(Debug)]
pub struct Voice {
    law: Law,
    payload_type: u8,
    ssrc: u32,
    seq: u16,
    ts: u32,
    speaker: Speaker,
    began: bool,
    meter: ToneMeter,
    clock: Option<Clock>,
    heard: Heard,
    /// Payload type of RFC 4733 events.
    events: Option<u8>,
    hand: DigitHand,
    /// Where the digit being pressed began.
    pressed_ts: u32,
    ear: DigitEar,
    digits: VecDeque<Pressed>,
    control: Control,
}

impl Voice {
    /// An end that is silent. The first sequence number and timestamp follow from the SSRC, which is random.
    pub fn new(law: Law, ssrc: u32) -> Self {
        let [_, _, high, low] = ssrc.to_be_bytes();
        Self {
            law,
            payload_type: law.payload_type(),
            ssrc,
            // Below 2^15, as RFC 3711 section 3.3.1 wants of a first sequence number.
            seq: u16::from_be_bytes([high & 0x7f, low]),
            ts: ssrc.rotate_left(16),
            speaker: Speaker::new(u64::from(ssrc)),
            began: false,
            meter: ToneMeter::default(),
            clock: None,
            heard: Heard::default(),
            events: None,
            hand: DigitHand::default(),
            pressed_ts: 0,
            ear: DigitEar::default(),
            digits: VecDeque::new(),
            control: Control::default(),
        }
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// What the session descriptions agreed on; `events` is the payload type of digits.
    pub fn agree(&mut self, law: Law, payload_type: u8, events: Option<u8>) {
        self.law = law;
        self.payload_type = payload_type;
        self.events = events;
    }

    /// From now on it says this.
    pub fn say(&mut self, speak: Speak) {
        self.speaker.say(speak);
    }

    /// Presses digits (RFC 4733), if the switch takes them.
    pub fn press(&mut self, digits: &str) {
        if self.events.is_some() {
            self.hand.press(digits);
        }
    }

    /// The next 20 ms: one RTP packet, at the end of a digit three.
    pub fn packets(&mut self) -> Vec<Vec<u8>> {
        let packets = match (self.hand.step(PACKET_STEP_MS), self.events) {
            (Some(Stroke::Event { event, fresh, copies }), Some(events)) => {
                if fresh {
                    self.pressed_ts = self.ts;
                }
                let ts = self.pressed_ts;
                (0..copies).map(|_| self.write(fresh, events, ts, &event.write())).collect()
            }
            (Some(Stroke::Event { .. } | Stroke::Gap) | None, _) => {
                let sound: Vec<u8> = (0..PACKET).map(|_| encode(self.law, self.speaker.sample())).collect();
                let marker = !std::mem::replace(&mut self.began, true);
                vec![self.write(marker, self.payload_type, self.ts, &sound)]
            }
        };
        self.ts = self.ts.wrapping_add(PACKET);
        packets
    }

    fn write(&mut self, marker: bool, payload_type: u8, ts: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN];
        // The buffer has the length of a header: it fits.
        if rtp::write(&mut packet, marker, payload_type, self.seq, ts, self.ssrc).is_none() {
            return Vec::new();
        }
        packet.extend_from_slice(payload);
        self.seq = self.seq.wrapping_add(1);
        self.heard.sent += 1;
        packet
    }

    /// The RTCP compound that is due, if one is.
    pub fn report(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        let packets = u32::try_from(self.heard.sent).unwrap_or(u32::MAX);
        self.control.report(self.ssrc, (packets, packets.saturating_mul(PACKET), self.ts), now_ms)
    }

    /// An RTCP compound came.
    pub fn hear_report(&mut self, compound: &[u8], now_ms: u64) {
        self.control.read(compound, self.ssrc, now_ms);
        self.heard.round_trip_ms = self.control.round_trip_ms;
        self.heard.lost_there = self.control.about_us.map(|block| block.lost);
    }

    /// Digits heard since the last call.
    pub fn digits(&mut self, now_ms: u64) -> Vec<Pressed> {
        if let Some(pressed) = self.ear.overdue(now_ms * 1_000) {
            self.note_digit(pressed);
        }
        self.digits.drain(..).collect()
    }

    fn note_digit(&mut self, pressed: Pressed) {
        if self.digits.len() < MAX_DIGITS {
            self.digits.push_back(pressed);
        }
    }

    /// An RTP packet came.
    pub fn hear(&mut self, packet: &[u8], now_ms: u64) {
        let known = |header: &rtp::Header| {
            header.payload_type == self.payload_type || self.events == Some(header.payload_type)
        };
        let Some(header) = rtp::read(packet).filter(known) else {
            self.heard.unwanted += 1;
            return;
        };
        let Some(payload) = packet.get(header.payload.clone()) else { return };
        self.control.heard(&header, now_ms);
        if self.events == Some(header.payload_type) {
            return self.hear_event(&header, payload, now_ms);
        }
        if !self.place(&header, now_ms) {
            self.heard.late += 1;
            return;
        }
        self.note_arrival(now_ms);
        for octet in payload {
            self.meter.hear(decode(self.law, *octet), now_ms);
        }
        let len = u32::try_from(payload.len()).unwrap_or(0);
        self.clock = Some(Clock {
            ssrc: header.ssrc,
            seq: header.seq.wrapping_add(1),
            ts: header.ts.wrapping_add(len),
        });
    }

    /// A digit has no place on the sound's clock; its packets are counted.
    fn hear_event(&mut self, header: &rtp::Header, payload: &[u8], now_ms: u64) {
        self.note_arrival(now_ms);
        if let Some(clock) = self.clock.as_mut().filter(|clock| clock.ssrc == header.ssrc) {
            clock.seq = header.seq.wrapping_add(1);
        }
        let event = Telephone::read(payload);
        let pressed = event.and_then(|event| self.ear.hear(header.ssrc, header.ts, event, now_ms * 1_000));
        if let Some(pressed) = pressed {
            self.note_digit(pressed);
        }
    }

    /// Fills the gap before a packet with silence; `false` when its place is past.
    fn place(&mut self, header: &rtp::Header, now_ms: u64) -> bool {
        let Some(clock) = self.clock else { return true };
        let leap = rtp::ts_distance(clock.ts, header.ts);
        if clock.ssrc != header.ssrc || leap.abs() > MAX_LEAP {
            self.heard.restarts += 1;
            return true;
        }
        if leap < 0 {
            return false;
        }
        let missing = rtp::seq_distance(clock.seq, header.seq);
        self.heard.lost += u64::try_from(missing).unwrap_or(0);
        for _ in 0..leap {
            self.meter.hear(0, now_ms);
        }
        true
    }

    fn note_arrival(&mut self, now_ms: u64) {
        let heard = &mut self.heard;
        heard.packets += 1;
        heard.first_ms.get_or_insert(now_ms);
        let gap = heard.last_ms.map_or(0, |last| now_ms.saturating_sub(last));
        heard.longest_gap_ms = heard.longest_gap_ms.max(gap);
        heard.last_ms = Some(now_ms);
    }

    /// Windows of sound since the last call.
    pub fn windows(&mut self) -> Vec<Window> {
        self.meter.take()
    }

    /// How the packets came so far.
    pub fn heard(&self) -> Heard {
        self.heard
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn one_end_hears_what_the_other_says_in_either_law() {
        for law in [Law::Pcma, Law::Pcmu] {
            let (mut a, mut b) = (Voice::new(law, 1), Voice::new(law, 2));
            a.say(Speak::Talk(700.0));
            for n in 0..50 {
                b.hear(&a.packets()[0], n * 20);
            }
            let windows = b.windows();
            assert_eq!(windows.len(), 5);
            assert!(windows.iter().all(|window| window.level(700.0) > 0.15));
            assert_eq!((b.heard().packets, b.heard().lost, b.heard().longest_gap_ms), (50, 0, 20));
            assert_eq!(a.heard().sent, 50);
        }
    }

    #[test]
    fn lost_packets_are_silence_and_late_ones_are_counted() {
        let (mut a, mut b) = (Voice::new(Law::Pcma, 1), Voice::new(Law::Pcma, 2));
        a.say(Speak::Tone(1000.0));
        let packets: Vec<_> = (0..40).flat_map(|_| a.packets()).collect();
        for (n, packet) in packets.iter().enumerate() {
            if !(10..20).contains(&n) {
                b.hear(packet, n as u64 * 20);
            }
        }
        b.hear(&packets[15], 900);
        b.hear(&packets[39], 900);
        let levels: Vec<bool> = b.windows().iter().map(|window| window.level(1000.0) > 0.2).collect();
        assert_eq!(levels, [true, false, true, true]);
        assert_eq!((b.heard().lost, b.heard().late, b.heard().longest_gap_ms), (10, 2, 220));
    }

    #[test]
    fn a_new_source_goes_on_and_noise_is_counted() {
        let mut ear = Voice::new(Law::Pcma, 9);
        let (mut a, mut b) = (Voice::new(Law::Pcma, 1), Voice::new(Law::Pcma, 0x7000_0000));
        ear.hear(&a.packets()[0], 0);
        ear.hear(&b.packets()[0], 20);
        ear.hear(b"noise", 40);
        ear.hear(&Voice::new(Law::Pcmu, 1).packets()[0], 60);
        let heard = ear.heard();
        assert_eq!((heard.packets, heard.restarts, heard.unwanted), (2, 1, 2));
    }

    #[test]
    fn digits_are_pressed_and_heard_beside_the_sound() {
        let (mut a, mut b) = (Voice::new(Law::Pcma, 1), Voice::new(Law::Pcma, 2));
        a.agree(Law::Pcma, 8, Some(101));
        b.agree(Law::Pcma, 8, Some(101));
        a.say(Speak::Tone(1000.0));
        let (mut digits, mut now) = (String::new(), 0);
        for step in 0..60 {
            if step == 10 {
                a.press("15#");
            }
            now += 20;
            for packet in a.packets() {
                b.hear(&packet, now);
            }
            digits.extend(b.digits(now).iter().map(|pressed| pressed.digit));
        }
        assert_eq!(digits, "15#");
        assert_eq!((b.heard().lost, b.heard().late, b.heard().unwanted), (0, 0, 0));
        assert!(b.windows().last().unwrap().level(1000.0) > 0.2);
    }

    #[test]
    fn reports_tell_the_loss_and_the_round_trip() {
        let (mut a, mut b) = (Voice::new(Law::Pcma, 1), Voice::new(Law::Pcma, 2));
        a.report(0);
        b.report(0);
        for n in 0..100 {
            for packet in a.packets() {
                if n % 10 != 5 {
                    b.hear(&packet, 20 * n);
                }
            }
            b.packets();
        }
        let first = a.report(2_000).unwrap();
        b.hear_report(&first, 2_010);
        let back = b.report(2_040).unwrap();
        a.hear_report(&back, 2_050);
        assert_eq!(a.heard().lost_there, Some(10));
        let trip = a.heard().round_trip_ms.unwrap();
        assert!((trip - 20.0).abs() < 1.0, "{trip} ms");
        assert_eq!(a.report(2_100), None);
    }
}
