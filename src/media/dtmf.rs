//! Digits as telephone events (RFC 4733): a caller presses a key in a menu, an operator in a bank's one.
//!
//! A pressed key is a series of packets that repeat its code, its timestamp and its growing duration, the
//! last of them three times with the end bit. Packets are lost, doubled and reordered; a digit is still
//! reported exactly once ([`DigitEar`]). Towards the party digits are made by [`DigitHand`].
//!
//! Invariant: one (source, timestamp) is at most one digit.

use std::collections::VecDeque;

use crate::media::command::MAX_DIGITS;
use crate::media::g711::SAMPLES_PER_MS;
use crate::media::rtp::ts_distance;

/// How long a digit of ours lasts, milliseconds.
pub const DIGIT_MS: u32 = 100;

/// Pause after a digit of ours, milliseconds.
pub const GAP_MS: u32 = 50;

/// A digit whose end never came is reported when nothing of it came for so long, microseconds.
const END_LOST_US: u64 = 200_000;

/// An event older than the last one by up to this many samples is a late repeat: 30 s. A source whose
/// clock goes back further has begun anew.
const LATE_SAMPLES: i32 = 240_000;

/// The duration field is full: the event goes on in a segment that begins where this one ends
/// (RFC 4733 section 2.5.1.3).
const FULL_DURATION: u16 = 0xffff;

/// Our level, in -dBm0.
const VOLUME: u8 = 10;

/// Octets of an event payload.
pub const EVENT_LEN: usize = 4;

/// A payload of `telephone-event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telephone {
    /// 0-9, 10 `*`, 11 `#`, 12-15 `A`-`D`; others are signals that are no digits.
    pub code: u8,
    /// The key was let go.
    pub end: bool,
    /// So far, in samples.
    pub duration: u16,
}

impl Telephone {
    /// Reads a payload; `None` when it is too short. Further events in one packet do not occur in practice.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (bytes, _) = payload.split_first_chunk::<EVENT_LEN>()?;
        let [code, flags, high, low] = *bytes;
        Some(Self { code, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }

    /// The payload.
    pub fn write(self) -> [u8; EVENT_LEN] {
        let [high, low] = self.duration.to_be_bytes();
        [self.code, VOLUME | if self.end { 0x80 } else { 0 }, high, low]
    }
}

/// The character of an event code.
pub fn digit_of(code: u8) -> Option<char> {
    match code {
        0..=9 => Some(char::from(b'0' + code)),
        10 => Some('*'),
        11 => Some('#'),
        12..=15 => Some(char::from(b'A' + code - 12)),
        _ => None,
    }
}

/// The event code of a character.
pub fn code_of(digit: char) -> Option<u8> {
    match digit {
        '0'..='9' | 'A'..='D' | 'a'..='d' => digit.to_digit(16).and_then(|value| {
            let value = u8::try_from(value).ok()?;
            Some(if value < 10 { value } else { value + 2 })
        }),
        '*' => Some(10),
        '#' => Some(11),
        _ => None,
    }
}

/// A digit that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressed {
    /// Which.
    pub digit: char,
    /// How long, milliseconds.
    pub duration_ms: u32,
}

/// An event in progress.
#[derive(Debug, Clone, Copy)]
struct Running {
    code: u8,
    /// The timestamp of its current segment.
    ts: u32,
    duration: u16,
    /// Samples of the segments before.
    before: u32,
    heard_us: u64,
}

/// Hears the digits of one party.
#[derive(Debug, Default)]
pub struct DigitEar {
    running: Option<Running>,
    /// Timestamp of the newest event that is over.
    over: Option<u32>,
    ssrc: u32,
}

impl DigitEar {
    /// An event packet came. The digit that it (or its being another one) ends, if any.
    pub fn hear(&mut self, ssrc: u32, ts: u32, event: Telephone, now_us: u64) -> Option<Pressed> {
        let mut ended = None;
        if ssrc != self.ssrc {
            ended = self.finish();
            self.ssrc = ssrc;
            self.over = None;
        }
        if self.over.is_some_and(|last| (-LATE_SAMPLES..=0).contains(&ts_distance(last, ts))) {
            return ended;
        }
        match &mut self.running {
            Some(running) if running.ts == ts => {
                running.duration = running.duration.max(event.duration);
                running.heard_us = now_us;
            }
            Some(running) if (-LATE_SAMPLES..0).contains(&ts_distance(running.ts, ts)) => return ended,
            Some(running) if continues(running, ts, event) => {
                running.before += u32::from(running.duration);
                running.ts = ts;
                running.duration = event.duration;
                running.heard_us = now_us;
            }
            Some(_) | None => {
                ended = ended.or(self.finish());
                self.running = Some(Running {
                    code: event.code,
                    ts,
                    duration: event.duration,
                    before: 0,
                    heard_us: now_us,
                });
            }
        }
        // The end of this one. Should a lost end of another have been noticed by the same packet, this
        // one is reported by one of its repeats or by `overdue`.
        if event.end && ended.is_none() { self.finish() } else { ended }
    }

    /// A digit whose end was lost, once nothing of it came for a while.
    pub fn overdue(&mut self, now_us: u64) -> Option<Pressed> {
        let running = self.running?;
        if now_us.saturating_sub(running.heard_us) < END_LOST_US { None } else { self.finish() }
    }

    fn finish(&mut self) -> Option<Pressed> {
        let running = self.running.take()?;
        self.over = Some(running.ts);
        let samples = running.before + u32::from(running.duration);
        Some(Pressed { digit: digit_of(running.code)?, duration_ms: samples / SAMPLES_PER_MS })
    }
}

fn continues(running: &Running, ts: u32, event: Telephone) -> bool {
    running.code == event.code
        && running.duration >= FULL_DURATION - 800
        && ts == running.ts.wrapping_add(u32::from(FULL_DURATION))
}

/// A step of a digit that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// Send this event: `fresh` begins a digit, whose packets share one timestamp.
    Event {
        /// The payload.
        event: Telephone,
        /// The first packet of a digit.
        fresh: bool,
        /// How many copies: the end is sent three times (RFC 4733 section 2.5.1.4).
        copies: u8,
    },
    /// Nothing in this slot: the pause between digits.
    Gap,
}

/// Presses digits towards a party, one step each packet time.
#[derive(Debug, Default)]
pub struct DigitHand {
    waiting: VecDeque<u8>,
    /// The digit being pressed and how far it has come, in milliseconds.
    now: Option<(u8, u32)>,
}

impl DigitHand {
    /// Adds digits; what is none is skipped, and so is what exceeds [`MAX_DIGITS`] in waiting.
    pub fn press(&mut self, digits: &str) {
        for code in digits.chars().filter_map(code_of) {
            if self.waiting.len() < MAX_DIGITS {
                self.waiting.push_back(code);
            }
        }
    }

    /// Whether there is anything to send.
    pub fn is_busy(&self) -> bool {
        self.now.is_some() || !self.waiting.is_empty()
    }

    /// What to do in the next `step_ms` milliseconds; `None` when all is pressed.
    pub fn step(&mut self, step_ms: u32) -> Option<Stroke> {
        let (code, before_ms) = match self.now {
            Some(now) => now,
            None => (self.waiting.pop_front()?, 0),
        };
        let at_ms = before_ms + step_ms;
        if before_ms >= DIGIT_MS {
            self.now = (at_ms < DIGIT_MS + GAP_MS).then_some((code, at_ms));
            return Some(Stroke::Gap);
        }
        self.now = Some((code, at_ms));
        let end = at_ms >= DIGIT_MS;
        let duration = u16::try_from(at_ms * SAMPLES_PER_MS).unwrap_or(FULL_DURATION);
        let event = Telephone { code, end, duration };
        Some(Stroke::Event { event, fresh: before_ms == 0, copies: if end { 3 } else { 1 } })
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
    use super::*;

    /// The packets of `digits` as a gateway sends them: (timestamp, event).
    fn packets(digits: &str) -> Vec<(u32, Telephone)> {
        let mut hand = DigitHand::default();
        hand.press(digits);
        let (mut out, mut clock, mut ts) = (Vec::new(), 1_000u32, 0);
        while let Some(stroke) = hand.step(20) {
            if let Stroke::Event { event, fresh, copies } = stroke {
                if fresh {
                    ts = clock;
                }
                out.extend((0..copies).map(|_| (ts, event)));
            }
            clock += 160;
        }
        out
    }

    fn heard(packets: &[(u32, Telephone)]) -> String {
        let mut ear = DigitEar::default();
        let mut digits = String::new();
        let mut now = 0;
        for (ts, event) in packets {
            now += 20_000;
            digits.extend(ear.hear(7, *ts, *event, now).map(|pressed| pressed.digit));
        }
        digits.extend(ear.overdue(now + 300_000).map(|pressed| pressed.digit));
        assert_eq!(ear.overdue(now + 900_000), None);
        digits
    }

    #[test]
    fn every_digit_is_heard_once_as_it_was_pressed() {
        assert_eq!(heard(&packets("0123456789*#ABCD")), "0123456789*#ABCD");
        assert_eq!(heard(&packets("11 1x1")), "1111");
    }

    #[test]
    fn losing_any_one_or_doubling_all_changes_nothing() {
        let all = packets("1228");
        for lost in 0..all.len() {
            let mut some = all.clone();
            some.remove(lost);
            assert_eq!(heard(&some), "1228", "packet {lost} lost");
        }
        let doubled: Vec<_> = all.iter().flat_map(|packet| [*packet, *packet]).collect();
        assert_eq!(heard(&doubled), "1228");
    }

    #[test]
    fn losing_all_ends_changes_nothing() {
        let endless: Vec<_> = packets("1228").into_iter().filter(|(_, event)| !event.end).collect();
        assert_eq!(heard(&endless), "1228");
    }

    #[test]
    fn only_ends_left_is_enough() {
        let ends: Vec<_> = packets("1228").into_iter().filter(|(_, event)| event.end).collect();
        assert_eq!(heard(&ends), "1228");
    }

    #[test]
    fn a_late_packet_of_an_earlier_digit_is_nothing_new() {
        let all = packets("12");
        let mut late = all.clone();
        late.push(all[0]);
        late.insert(9, all[1]);
        assert_eq!(heard(&late), "12");
    }

    #[test]
    fn a_key_held_for_long_is_one_digit() {
        let mut ear = DigitEar::default();
        let mut now = 0;
        let mut got = Vec::new();
        for (ts, from, to) in [(1_000u32, 160u32, 0xffff), (1_000 + 0xffff, 160, 8_000)] {
            let mut duration = from;
            while duration < to {
                let event = Telephone { code: 5, end: false, duration: duration as u16 };
                got.extend(ear.hear(7, ts, event, now));
                duration += 160;
                now += 20_000;
            }
        }
        got.extend(ear.hear(7, 1_000 + 0xffff, Telephone { code: 5, end: true, duration: 8_000 }, now));
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].digit, '5');
        assert!((9_100..=9_300).contains(&got[0].duration_ms), "{got:?}");
    }

    #[test]
    fn a_digit_of_ours_lasts_its_time_and_ends_three_times() {
        let all = packets("5");
        assert_eq!(all.len(), 4 + 3);
        assert_eq!(all.last().unwrap().1, Telephone { code: 5, end: true, duration: 800 });
        let mut hand = DigitHand::default();
        hand.press("55");
        let mut steps = 0;
        while hand.step(20).is_some() {
            steps += 1;
        }
        assert_eq!(steps, 2 * (5 + 3), "100 ms and at least 50 ms each");
    }

    #[test]
    fn more_digits_than_the_limit_are_left_out() {
        let mut hand = DigitHand::default();
        hand.press(&"7".repeat(MAX_DIGITS + 5));
        let mut pressed = 0;
        while let Some(stroke) = hand.step(100) {
            pressed += usize::from(matches!(stroke, Stroke::Event { .. }));
        }
        assert_eq!(pressed, MAX_DIGITS);
    }

    #[test]
    fn a_short_payload_is_no_event() {
        assert_eq!(Telephone::read(&[1, 2, 3]), None);
        assert_eq!(Telephone::read(&[16, 0x80, 0, 1]), Some(Telephone { code: 16, end: true, duration: 1 }));
        assert_eq!(digit_of(16), None);
    }
}
