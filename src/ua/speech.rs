//! What the user agent says: tones, the ring of a Ukrainian exchange, and something that sounds like a person.
//!
//! Invariant: the same seed says the same, sample for sample.

use std::f64::consts::TAU;

use crate::media::g711::RATE_HZ;

/// How loud an identity tone is, as a part of full scale.
pub const TONE: f64 = 0.25;
/// How loud speech is at its peaks, roughly: well below [`TONE`] at any one frequency.
const SPEECH: f64 = 0.12;
/// Ring-back: 425 Hz, 1 s on, 4 s off (ITU-T E.180).
const RING_HZ: f64 = 425.0;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speak {
    /// Nothing.
    Silence,
    /// A tone of this frequency.
    Tone(f64),
    /// What a caller hears while the far phone rings.
    Ringback,
    /// A voice with a tone of this frequency in it, by which the listener knows who speaks.
    Talk(f64),
}

/// Makes the samples of one direction, 8 kHz.
#[derive(Debug, Clone)]
pub struct Speaker {
    speak: Speak,
    /// Samples since [`Speaker::say`].
    at: u64,
    throat: Throat,
}

impl Speaker {
    /// Silent until [`Speaker::say`].
    pub fn new(seed: u64) -> Self {
        Self { speak: Speak::Silence, at: 0, throat: Throat::new(seed) }
    }

    /// From now on it says this.
    pub fn say(&mut self, speak: Speak) {
        self.speak = speak;
        self.at = 0;
    }

    /// The next sample.
    pub fn sample(&mut self) -> i16 {
        let seconds = self.seconds();
        self.at = self.at.wrapping_add(1);
        let tone = |hz: f64| TONE * (TAU * hz * seconds).sin();
        pcm(match self.speak {
            Speak::Silence => 0.0,
            Speak::Tone(hz) => tone(hz),
            Speak::Ringback if seconds % 5.0 < 1.0 => tone(RING_HZ),
            Speak::Ringback => 0.0,
            Speak::Talk(hz) => tone(hz) + SPEECH * self.throat.next(),
        })
    }

    fn seconds(&self) -> f64 {
        // A day of samples has 30 bits.
        let at = u32::try_from(self.at % (u64::from(RATE_HZ) * 86_400)).unwrap_or(0);
        f64::from(at) / f64::from(RATE_HZ)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of a sample")]
fn pcm(level: f64) -> i16 {
    (level.clamp(-1.0, 1.0) * f64::from(i16::MAX)).round() as i16
}

/// A resonance: two poles.
#[derive(Debug, Clone, Copy, Default)]
struct Formant {
    turn: f64,
    decay: f64,
    last: [f64; 2],
}

impl Formant {
    fn tune(&mut self, hz: f64, width_hz: f64) {
        let radius = (-TAU / 2.0 * width_hz / f64::from(RATE_HZ)).exp();
        self.turn = 2.0 * radius * (TAU * hz / f64::from(RATE_HZ)).cos();
        self.decay = radius * radius;
    }

    fn pass(&mut self, input: f64) -> f64 {
        let [one, two] = self.last;
        let output = input * (1.0 - self.decay) + self.turn * one - self.decay * two;
        self.last = [output, one];
        output
    }
}

/// Syllables of pulses or noise through two formants, with pauses between words and phrases.
#[derive(Debug, Clone)]
struct Throat {
    noise: u64,
    formants: [Formant; 2],
    /// Samples left of the syllable or pause, and how many it had.
    left: u32,
    length: u32,
    /// Samples of a pitch period; 0 in a pause.
    period: u32,
    voiced: bool,
    /// Syllables left in the phrase.
    syllables: u32,
}

impl Throat {
    fn new(seed: u64) -> Self {
        Self {
            noise: seed | 1,
            formants: [Formant::default(); 2],
            left: 0,
            length: 1,
            period: 0,
            voiced: true,
            syllables: 5,
        }
    }

    /// Of `least` up to `most`, exclusive (xorshift).
    fn pick(&mut self, least: u32, most: u32) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let span = u64::from(most.saturating_sub(least).max(1));
        least + u32::try_from((self.noise >> 20).checked_rem(span).unwrap_or(0)).unwrap_or(0)
    }

    fn next(&mut self) -> f64 {
        if self.left == 0 {
            self.begin();
        }
        self.left -= 1;
        if self.period == 0 {
            return self.through(0.0);
        }
        let done = f64::from(self.length - self.left) / f64::from(self.length);
        let swell = (TAU / 2.0 * done).sin();
        let excitation = if self.voiced {
            if self.left.is_multiple_of(self.period) { 8.0 } else { -0.1 }
        } else {
            f64::from(self.pick(0, 2_001)) / 1_000.0 - 1.0
        };
        self.through(excitation * swell)
    }

    fn through(&mut self, excitation: f64) -> f64 {
        let [low, high] = &mut self.formants;
        (low.pass(excitation) + high.pass(excitation)).clamp(-1.0, 1.0)
    }

    /// The next syllable or pause.
    fn begin(&mut self) {
        let ms = RATE_HZ / 1_000;
        if self.period != 0 {
            self.period = 0;
            self.syllables = self.syllables.saturating_sub(1);
            let pause = if self.syllables == 0 { self.pick(300, 700) } else { self.pick(30, 120) };
            self.length = pause * ms;
        } else {
            if self.syllables == 0 {
                self.syllables = self.pick(4, 10);
            }
            self.length = self.pick(80, 220) * ms;
            self.period = RATE_HZ / self.pick(100, 180);
            self.voiced = self.pick(0, 5) != 0;
            let (low, high) = (self.pick(300, 800), self.pick(900, 2_400));
            let [first, second] = &mut self.formants;
            first.tune(f64::from(low), 90.0);
            second.tune(f64::from(high), 140.0);
        }
        self.left = self.length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::media::tone::strength;

    fn take(speaker: &mut Speaker, ms: u32) -> Vec<i16> {
        (0..ms * 8).map(|_| speaker.sample()).collect()
    }

    fn said(speak: Speak, ms: u32) -> Vec<i16> {
        let mut speaker = Speaker::new(7);
        speaker.say(speak);
        take(&mut speaker, ms)
    }

    #[test]
    fn a_tone_is_as_loud_as_it_says() {
        assert!((strength(&said(Speak::Tone(1000.0), 200), 1000.0) - TONE).abs() < 0.01);
        assert!(strength(&said(Speak::Tone(1000.0), 200), 700.0) < 0.01);
    }

    #[test]
    fn ring_back_is_one_second_of_five() {
        let sound = said(Speak::Ringback, 10_000);
        for (second, chunk) in sound.chunks(8_000).enumerate() {
            assert_eq!(strength(chunk, 425.0) > 0.2, second % 5 == 0, "second {second}");
        }
    }

    #[test]
    fn a_talker_has_words_and_pauses_and_is_known_by_its_tone() {
        let voice = said(Speak::Talk(0.0), 20_000);
        let loudness: Vec<i32> =
            voice.chunks(800).map(|part| part.iter().map(|s| i32::from(s.abs())).max().unwrap()).collect();
        let (loud, quiet) =
            (loudness.iter().filter(|l| **l > 800).count(), loudness.iter().filter(|l| **l < 200).count());
        assert!(loud > 80 && quiet > 10, "{loud} loud, {quiet} quiet of {}", loudness.len());
        let talker = said(Speak::Talk(700.0), 20_000);
        for window in talker.chunks(1_600) {
            assert!(strength(window, 700.0) > 0.15);
            assert!(strength(window, 425.0) < 0.12 && strength(window, 1000.0) < 0.12);
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(said(Speak::Talk(700.0), 2_000), said(Speak::Talk(700.0), 2_000));
    }
}
