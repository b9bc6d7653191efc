//! How loud the tones are by which the parties of a test are known, in windows of 200 ms of media time.
//!
//! Invariant: every sample counts in exactly one window.

use crate::media::g711::{RATE_HZ, SAMPLES_PER_MS};
use crate::media::tone::strength;

/// The frequencies that are looked for, Hz: ring-back 425, caller 700, operator 1000, and the unavailable
/// tone's first and second.
pub const HZ: [f64; 5] = [425.0, 700.0, 950.0, 1000.0, 1400.0];
/// The length of a window, milliseconds: 425 Hz has 85 periods in it, and 950 and 1000 Hz come apart.
pub const WINDOW_MS: u32 = 200;
const WINDOW: usize = (WINDOW_MS * SAMPLES_PER_MS) as usize;
/// Windows kept until they are taken: ten minutes. Then the oldest go.
const MAX_WINDOWS: usize = 3_000;

/// What was heard in 200 ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Where it begins on the media clock, milliseconds since the first sample.
    pub from_ms: u64,
    /// When its last sample came, on the driver's clock.
    pub at_ms: u64,
    /// Amplitude at each of [`HZ`]: 1.0 is a sine of full scale.
    pub levels: [f64; HZ.len()],
    /// The loudest sample, as a part of full scale.
    pub peak: f64,
}

impl Window {
    /// The amplitude at one of [`HZ`]; 0 for any other frequency.
    pub fn level(&self, hz: f64) -> f64 {
        let found = HZ.iter().position(|known| (known - hz).abs() < 0.5);
        found.and_then(|at| self.levels.get(at)).copied().unwrap_or(0.0)
    }
}

/// Collects samples into windows.
#[derive(Debug, Clone, Default)]
pub struct ToneMeter {
    samples: Vec<i16>,
    windows: std::collections::VecDeque<Window>,
    done: u64,
}

impl ToneMeter {
    /// A sample came.
    pub fn hear(&mut self, sample: i16, now_ms: u64) {
        self.samples.push(sample);
        if self.samples.len() == WINDOW {
            self.close(now_ms);
        }
    }

    fn close(&mut self, now_ms: u64) {
        let samples = std::mem::take(&mut self.samples);
        let loudest = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        if self.windows.len() == MAX_WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(Window {
            from_ms: self.done * u64::from(WINDOW_MS),
            at_ms: now_ms,
            levels: HZ.map(|hz| strength(&samples, hz)),
            peak: f64::from(loudest) / f64::from(i16::MAX),
        });
        self.done += 1;
        self.samples = samples;
        self.samples.clear();
    }

    /// The windows closed since the last call.
    pub fn take(&mut self) -> Vec<Window> {
        self.windows.drain(..).collect()
    }

    /// Milliseconds of sound heard so far.
    pub fn heard_ms(&self) -> u64 {
        let open = u64::try_from(self.samples.len()).unwrap_or(0) * 1_000 / u64::from(RATE_HZ);
        self.done * u64::from(WINDOW_MS) + open
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::ua::speech::{Speak, Speaker, TONE};

    #[test]
    fn tones_are_told_apart_window_by_window() {
        let mut meter = ToneMeter::default();
        let mut speaker = Speaker::new(1);
        for (n, hz) in HZ.into_iter().enumerate() {
            speaker.say(Speak::Tone(hz));
            for _ in 0..WINDOW {
                meter.hear(speaker.sample(), n as u64);
            }
        }
        let windows = meter.take();
        assert_eq!(windows.len(), HZ.len());
        for (n, window) in windows.iter().enumerate() {
            assert_eq!((window.from_ms, window.at_ms), (n as u64 * 200, n as u64));
            for hz in HZ {
                let expected = if hz == HZ[n] { TONE } else { 0.0 };
                assert!((window.level(hz) - expected).abs() < 0.02, "{hz} in {window:?}");
            }
        }
        assert!(meter.take().is_empty());
        assert_eq!(windows[0].level(777.0), 0.0);
    }
}
