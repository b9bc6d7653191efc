//! Prompts: greetings and announcements, ready to be sent in either law.
//!
//! A file of any common rate is brought to 8 kHz mono once, at load, and encoded to both laws; every party
//! that hears it shares the same octets.
//!
//! Invariant: playing copies octets and nothing else.

use std::f64::consts::PI;
use std::sync::Arc;

use crate::media::command::Law;
use crate::media::g711::{RATE_HZ, encode, silence};
use crate::media::tone::sample;

/// The longest prompt: ten minutes. Longer files are refused at load.
pub const MAX_PROMPT_SECONDS: u32 = 600;

/// Rates that are resampled, Hz.
pub const RATES_HZ: std::ops::RangeInclusive<u32> = 4_000..=192_000;

/// Zero crossings of the filter on each side: more is steeper and slower.
const CROSSINGS: f64 = 24.0;

/// Where the pass band ends, as a share of the lower of both half rates.
const PASS: f64 = 0.92;

/// Sound ready to be sent: the same samples in both laws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    a_law: Arc<[u8]>,
    u_law: Arc<[u8]>,
}

impl Track {
    /// Encodes 8 kHz mono sound.
    pub fn new(samples: &[i16]) -> Self {
        let all = |law| samples.iter().map(|value| encode(law, *value)).collect();
        Self { a_law: all(Law::Pcma), u_law: all(Law::Pcmu) }
    }

    /// Its length in samples.
    pub fn len(&self) -> usize {
        self.a_law.len()
    }

    /// Whether there is no sound in it at all.
    pub fn is_empty(&self) -> bool {
        self.a_law.is_empty()
    }

    fn octets(&self, law: Law) -> &[u8] {
        match law {
            Law::Pcma => &self.a_law,
            Law::Pcmu => &self.u_law,
        }
    }
}

/// A track being played to one party.
#[derive(Debug, Clone)]
pub struct Playing {
    track: Arc<Track>,
    at: usize,
    repeat: bool,
    /// Of its command.
    pub token: u64,
}

impl Playing {
    /// From the beginning.
    pub fn new(track: Arc<Track>, repeat: bool, token: u64) -> Self {
        Self { track, at: 0, repeat, token }
    }

    /// Whether nothing is left to play.
    pub fn is_over(&self) -> bool {
        self.track.is_empty() || (!self.repeat && self.at >= self.track.len())
    }

    /// Fills `out` with what comes next, the end of the last frame with silence.
    pub fn fill(&mut self, law: Law, out: &mut [u8]) {
        let octets = self.track.octets(law);
        let mut done = 0;
        while done < out.len() {
            let rest = octets.get(self.at..).unwrap_or(&[]);
            let room = out.get_mut(done..).unwrap_or(&mut []);
            let count = rest.len().min(room.len());
            if count == 0 {
                if self.repeat && !octets.is_empty() {
                    self.at = 0;
                    continue;
                }
                room.fill(silence(law));
                return;
            }
            for (to, from) in room.iter_mut().zip(rest) {
                *to = *from;
            }
            self.at += count;
            done += count;
        }
    }
}

/// Interleaved samples of `channels` channels as one.
pub fn mono(samples: &[i16], channels: u16) -> Vec<i16> {
    let width = usize::from(channels.max(1));
    let share = |frame: &[i16]| {
        let sum: i32 = frame.iter().map(|value| i32::from(*value)).sum();
        sample(f64::from(sum) / f64::from(channels.max(1)))
    };
    samples.chunks_exact(width).map(share).collect()
}

/// Mono sound of `rate_hz` (one of [`RATES_HZ`]; others come back empty) at 8 kHz, by a polyphase
/// windowed sinc: what lies above 4 kHz is removed, not folded into the voice.
pub fn resample(samples: &[i16], rate_hz: u32) -> Vec<i16> {
    if rate_hz == RATE_HZ {
        return samples.to_vec();
    }
    if !RATES_HZ.contains(&rate_hz) {
        return Vec::new();
    }
    let common = gcd(rate_hz, RATE_HZ);
    let (phases, step) = (RATE_HZ / common, rate_hz / common);
    let filter = Filter::new(phases, rate_hz);
    let count = u64::try_from(samples.len()).unwrap_or(0) * u64::from(phases) / u64::from(step);
    (0..count)
        .map(|at| {
            let position = at * u64::from(step);
            let whole = usize::try_from(position / u64::from(phases)).unwrap_or(usize::MAX);
            let phase = usize::try_from(position % u64::from(phases)).unwrap_or(0);
            filter.at(samples, whole, phase)
        })
        .collect()
}

/// One row of weights for each fraction of an input sample that an output sample can fall on.
struct Filter {
    rows: Vec<Vec<f64>>,
    half: usize,
}

impl Filter {
    fn new(phases: u32, rate_hz: u32) -> Self {
        let cutoff = PASS * (f64::from(RATE_HZ) / f64::from(rate_hz)).min(1.0);
        let reach = (CROSSINGS / cutoff).ceil();
        let half = reach_len(reach);
        let rows =
            (0..phases).map(|phase| row(f64::from(phase) / f64::from(phases), half, reach, cutoff)).collect();
        Self { rows, half }
    }

    fn at(&self, samples: &[i16], whole: usize, phase: usize) -> i16 {
        let Some(row) = self.rows.get(phase) else { return 0 };
        let sum: f64 = row
            .iter()
            .enumerate()
            .map(|(tap, weight)| {
                let at = (whole + tap + 1).checked_sub(self.half);
                let value = at.and_then(|at| samples.get(at)).copied().unwrap_or(0);
                f64::from(value) * weight
            })
            .sum();
        sample(sum)
    }
}

/// The weights of the input samples around a point `fraction` behind one of them; their sum is 1.
fn row(fraction: f64, half: usize, reach: f64, cutoff: f64) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..2 * half)
        .scan(-reach + 1.0 - fraction, |distance, _| {
            let weight = sinc(*distance * cutoff) * window(*distance / reach);
            *distance += 1.0;
            Some(weight)
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Blackman, -58 dB outside.
fn window(x: f64) -> f64 {
    if x.abs() >= 1.0 { 0.0 } else { 0.42 + 0.5 * (PI * x).cos() + 0.08 * (2.0 * PI * x).cos() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive whole number")]
fn reach_len(reach: f64) -> usize {
    reach as usize
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
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

    fn sine(hz: f64, rate: u32, ms: u32) -> Vec<i16> {
        (0..rate * ms / 1_000)
            .map(|at| (20_000.0 * (2.0 * PI * hz * f64::from(at) / f64::from(rate)).sin()) as i16)
            .collect()
    }

    #[test]
    fn a_voice_tone_survives_every_rate_and_the_rest_stays_silent() {
        for rate in [11_025, 16_000, 22_050, 44_100, 48_000, 6_000] {
            let out = resample(&sine(1_000.0, rate, 500), rate);
            assert!((3_990..=4_000).contains(&out.len()), "{rate}: {}", out.len());
            let middle = &out[800..3_200];
            assert!((strength(middle, 1_000.0) - 0.61).abs() < 0.02, "{rate}: {}", strength(middle, 1_000.0));
            for other in [500.0, 1_500.0, 2_000.0, 3_000.0] {
                assert!(strength(middle, other) < 0.003, "{rate}: {other} Hz {}", strength(middle, other));
            }
        }
    }

    #[test]
    fn what_a_telephone_cannot_carry_is_removed_and_not_folded() {
        for (hz, folded) in [(5_000.0, 3_000.0), (7_000.0, 1_000.0), (10_000.0, 2_000.0)] {
            let out = resample(&sine(hz, 48_000, 500), 48_000);
            assert!(strength(&out[800..3_200], folded) < 0.003, "{hz}");
        }
    }

    #[test]
    fn channels_become_their_mean() {
        assert_eq!(mono(&[10, 20, -4, 4, 7], 2), [15, 0]);
        assert_eq!(mono(&[1, 2], 1), [1, 2]);
    }

    #[test]
    fn a_rate_out_of_range_is_empty() {
        assert!(resample(&[1; 100], 1_000).is_empty());
        assert!(resample(&[1; 100], 0).is_empty());
        assert_eq!(resample(&[1; 100], 8_000).len(), 100);
    }

    #[test]
    fn a_prompt_plays_to_its_end_and_the_last_frame_is_padded() {
        let mut playing = Playing::new(Arc::new(Track::new(&[1_000; 200])), false, 1);
        let mut frame = [0; 160];
        playing.fill(Law::Pcma, &mut frame);
        assert!(!playing.is_over());
        playing.fill(Law::Pcma, &mut frame);
        assert!(playing.is_over());
        assert!((decode(Law::Pcma, frame[39]) - 1_000).abs() < 40);
        assert_eq!(frame[40..], [0xd5; 120]);
    }

    #[test]
    fn a_repeated_track_goes_round() {
        let track = Arc::new(Track::new(&[0, 1_000, 2_000]));
        let mut playing = Playing::new(track, true, 1);
        let mut frame = [0; 7];
        playing.fill(Law::Pcmu, &mut frame);
        assert_eq!(frame[0], frame[3]);
        assert_eq!(frame[2], frame[5]);
        assert!(!playing.is_over());
        assert!(Playing::new(Arc::new(Track::new(&[])), true, 1).is_over());
    }
}
