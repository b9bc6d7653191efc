//! The tones of the exchange: what a caller hears when nobody speaks.
//!
//! Each tone is one whole cycle of sound, made once at start; a party hears it round and round. 425 Hz in
//! the cadences of this part of the world (ITU-T E.180 supplement 2); the special information tone is
//! ITU-T E.180 section 7.
//!
//! Invariant: a cycle begins and ends at zero crossings as far as its frequencies allow, so that it repeats
//! without a click.

use std::f64::consts::TAU;

use crate::media::command::Sound;
use crate::media::g711::RATE_HZ;

/// Level of one frequency: about -12 dBm0.
const AMPLITUDE: f64 = 5_700.0;

/// One stretch of a cadence: frequencies (none is silence) and milliseconds.
struct Stretch(&'static [f64], u32);

/// One cycle of a tone, 8 kHz; `None` for prompts.
pub fn cycle(sound: &Sound) -> Option<Vec<i16>> {
    let stretches: &[Stretch] = match sound {
        Sound::File(_) => return None,
        Sound::Ringback => &[Stretch(&[425.0], 1_000), Stretch(&[], 4_000)],
        Sound::Busy => &[Stretch(&[425.0], 350), Stretch(&[], 350)],
        Sound::Congestion => &[Stretch(&[425.0], 200), Stretch(&[], 200)],
        Sound::Unavailable => {
            &[Stretch(&[950.0], 330), Stretch(&[1_400.0], 330), Stretch(&[1_800.0], 330), Stretch(&[], 1_000)]
        }
    };
    let mut out = Vec::new();
    for Stretch(frequencies, ms) in stretches {
        append(&mut out, frequencies, *ms);
    }
    Some(out)
}

/// The two frequencies of a key (ITU-T Q.23), `ms` long: for parties that agreed no telephone events.
pub fn key(code: u8, ms: u32) -> Option<Vec<i16>> {
    let (row, column) = match code {
        1..=9 => ((code - 1) / 3, (code - 1) % 3),
        10 => (3, 0),
        0 => (3, 1),
        11 => (3, 2),
        12..=15 => (code - 12, 3),
        _ => return None,
    };
    let low = *[697.0, 770.0, 852.0, 941.0].get(usize::from(row))?;
    let high = *[1_209.0, 1_336.0, 1_477.0, 1_633.0].get(usize::from(column))?;
    let mut out = Vec::new();
    append(&mut out, &[low, high], ms);
    Some(out)
}

fn append(out: &mut Vec<i16>, frequencies: &[f64], ms: u32) {
    for at in 0..ms * RATE_HZ / 1_000 {
        let seconds = f64::from(at) / f64::from(RATE_HZ);
        let level: f64 = frequencies.iter().map(|hz| AMPLITUDE * (TAU * hz * seconds).sin()).sum();
        out.push(sample(level));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of a sample")]
pub(crate) fn sample(level: f64) -> i16 {
    level.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// How strong a frequency is in a stretch of sound: 1.0 for a sine of full scale (Goertzel).
pub fn strength(samples: &[i16], hz: f64) -> f64 {
    let turn = 2.0 * (TAU * hz / f64::from(RATE_HZ)).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for value in samples {
        let next = f64::from(*value) / f64::from(i16::MAX) + turn * one - two;
        two = one;
        one = next;
    }
    let power = one * one + two * two - turn * one * two;
    let count = u32::try_from(samples.len()).map_or(f64::MAX, f64::from).max(1.0);
    2.0 * power.max(0.0).sqrt() / count
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

    /// The cadence as heard in windows of 10 ms: (on, milliseconds).
    fn cadence(samples: &[i16]) -> Vec<(bool, u32)> {
        let mut out: Vec<(bool, u32)> = Vec::new();
        for window in samples.chunks(80) {
            let on = window.iter().any(|value| value.abs() > 1_000);
            match out.last_mut() {
                Some((was, ms)) if *was == on => *ms += 10,
                _ => out.push((on, 10)),
            }
        }
        out
    }

    #[test]
    fn the_tones_have_their_cadence_and_frequency() {
        for (sound, expected) in [
            (Sound::Ringback, vec![(true, 1_000), (false, 4_000)]),
            (Sound::Busy, vec![(true, 350), (false, 350)]),
            (Sound::Congestion, vec![(true, 200), (false, 200)]),
            (Sound::Unavailable, vec![(true, 990), (false, 1_000)]),
        ] {
            let samples = cycle(&sound).unwrap();
            assert_eq!(cadence(&samples), expected, "{sound:?}");
            if sound != Sound::Unavailable {
                assert!(strength(&samples[..1_600], 425.0) > 0.15);
                assert!(strength(&samples[..1_600], 1_000.0) < 0.01);
            }
        }
    }

    #[test]
    fn the_information_tone_climbs() {
        let samples = cycle(&Sound::Unavailable).unwrap();
        for (part, hz) in [950.0, 1_400.0, 1_800.0].into_iter().enumerate() {
            let stretch = &samples[part * 2_640..(part + 1) * 2_640];
            assert!(strength(stretch, hz) > 0.15, "{hz}");
        }
    }

    #[test]
    fn keys_have_their_two_frequencies() {
        for (code, low, high) in
            [(1, 697.0, 1_209.0), (0, 941.0, 1_336.0), (11, 941.0, 1_477.0), (15, 941.0, 1_633.0)]
        {
            let samples = key(code, 100).unwrap();
            assert!(strength(&samples, low) > 0.15 && strength(&samples, high) > 0.15, "{code}");
        }
        assert_eq!(key(16, 100), None);
    }

    #[test]
    fn a_prompt_is_no_tone() {
        assert!(cycle(&Sound::File("a.wav".into())).is_none());
    }
}
