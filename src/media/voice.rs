//! What a port says by itself: digits, prompts and tones, and silence where nobody speaks.
//!
//! Pressed digits win over a prompt, a prompt over the bridge, and comfort silence stands back for all:
//! it only keeps gateways from hanging up on a stream that stopped (GSM gateways do after 10 s).
//!
//! Invariant: while [`Voice::is_speaking`] nothing of the bridge reaches the party.

use std::sync::Arc;

use crate::media::command::{Law, MAX_DIGITS};
use crate::media::dtmf::{DIGIT_MS, DigitHand, GAP_MS, Stroke, code_of};
use crate::media::g711::{SAMPLES_PER_MS, silence};
use crate::media::prompt::{Playing, Track};
use crate::media::tone;

/// What is to be sent for the next packet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The buffer holds sound.
    Sound,
    /// A telephone event.
    Stroke(Stroke),
    /// Nothing, now or later.
    Nothing,
}

/// The sources of a port's own sound.
#[derive(Debug, Default)]
pub struct Voice {
    hand: DigitHand,
    keys: Option<Playing>,
    playing: Option<Playing>,
    comfort: bool,
    ended: Option<u64>,
}

impl Voice {
    /// Plays from now on, instead of what played.
    pub fn play(&mut self, playing: Playing) {
        self.playing = Some(playing);
    }

    /// Plays no more.
    pub fn stop(&mut self) {
        self.playing = None;
    }

    /// Presses digits: as events where the party agreed to them, else as the tones of a telephone.
    pub fn press(&mut self, digits: &str, as_events: bool) {
        if as_events {
            self.hand.press(digits);
            return;
        }
        let gap = usize::try_from(GAP_MS * SAMPLES_PER_MS).unwrap_or(0);
        let mut sound = Vec::new();
        for key in
            digits.chars().filter_map(code_of).take(MAX_DIGITS).filter_map(|code| tone::key(code, DIGIT_MS))
        {
            sound.extend(key);
            sound.resize(sound.len() + gap, 0);
        }
        self.keys = Some(Playing::new(Arc::new(Track::new(&sound)), false, 0));
    }

    /// Whether anything of ours must be heard now.
    pub fn is_speaking(&self) -> bool {
        self.hand.is_busy() || self.keys.is_some() || self.playing.is_some()
    }

    /// Whether there is anything to send at the next packet time.
    pub fn is_busy(&self) -> bool {
        self.comfort || self.is_speaking()
    }

    /// Begins or ends comfort silence.
    pub fn comfort(&mut self, on: bool) {
        self.comfort = on;
    }

    /// The token of a play that came to its end, once.
    pub fn take_ended(&mut self) -> Option<u64> {
        self.ended.take()
    }

    /// The next packet time: fills `out` (its length is the time) or names the event.
    pub fn next(&mut self, law: Law, out: &mut [u8]) -> Frame {
        let step_ms = u32::try_from(out.len()).unwrap_or(0) / SAMPLES_PER_MS;
        if let Some(stroke) = self.hand.step(step_ms) {
            return Frame::Stroke(stroke);
        }
        if let Some(keys) = &mut self.keys {
            keys.fill(law, out);
            if keys.is_over() {
                self.keys = None;
            }
            return Frame::Sound;
        }
        if let Some(playing) = &mut self.playing {
            playing.fill(law, out);
            if playing.is_over() {
                self.ended = Some(playing.token);
                self.playing = None;
            }
            return Frame::Sound;
        }
        if !self.comfort {
            return Frame::Nothing;
        }
        out.fill(silence(law));
        Frame::Sound
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
    use crate::media::g711::decode;
    use crate::media::tone::strength;

    fn track(samples: usize) -> Arc<Track> {
        Arc::new(Track::new(&vec![5_000; samples]))
    }

    #[test]
    fn digits_win_over_a_prompt_and_a_prompt_over_silence() {
        let mut voice = Voice::default();
        let mut out = [0; 160];
        assert_eq!(voice.next(Law::Pcma, &mut out), Frame::Nothing);
        voice.comfort(true);
        assert!(voice.is_busy() && !voice.is_speaking());
        voice.play(Playing::new(track(160), false, 9));
        voice.press("1", true);
        for _ in 0..8 {
            assert!(matches!(voice.next(Law::Pcma, &mut out), Frame::Stroke(_)));
        }
        assert_eq!(voice.next(Law::Pcma, &mut out), Frame::Sound);
        assert!(decode(Law::Pcma, out[0]) > 4_000);
        assert_eq!(voice.take_ended(), Some(9));
        assert_eq!(voice.take_ended(), None);
        assert_eq!(voice.next(Law::Pcma, &mut out), Frame::Sound);
        assert_eq!(out, [0xd5; 160]);
    }

    #[test]
    fn a_stopped_prompt_says_no_end() {
        let mut voice = Voice::default();
        voice.play(Playing::new(track(160), false, 9));
        voice.stop();
        assert_eq!(voice.next(Law::Pcma, &mut [0; 160]), Frame::Nothing);
        assert_eq!(voice.take_ended(), None);
    }

    #[test]
    fn digits_without_events_are_tones() {
        let mut voice = Voice::default();
        voice.press("5x", false);
        let mut sound = Vec::new();
        let mut out = [0; 160];
        while voice.next(Law::Pcmu, &mut out) == Frame::Sound {
            sound.extend(out.map(|octet| decode(Law::Pcmu, octet)));
        }
        assert_eq!(sound.len(), 1_280, "100 ms and 50 ms in whole packets");
        assert!(strength(&sound[..800], 770.0) > 0.15 && strength(&sound[..800], 1_336.0) > 0.15);
        assert!(!voice.is_speaking());
    }
}
