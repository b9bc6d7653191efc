//! Tones, made and found again.

use std::f64::consts::TAU;
use std::path::Path;

const RATE: u32 = 8_000;

/// Writes a mono WAV of one pure tone at 8 kHz.
pub fn write_tone(path: &Path, hz: f64, ms: u32) {
    write_tone_at(path, RATE, hz, ms);
}

/// The same at another rate.
pub fn write_tone_at(path: &Path, rate: u32, hz: f64, ms: u32) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    for sample in 0..rate / 1_000 * ms {
        let level = 16_000.0 * (TAU * hz * f64::from(sample) / f64::from(rate)).sin();
        #[expect(clippy::cast_possible_truncation, reason = "16,000 at most")]
        wav.write_sample(level as i16).unwrap();
    }
    wav.finalize().unwrap();
}

/// Writes one pure tone as A-law without any header: what SIPp sends as it is.
pub fn write_alaw(path: &Path, hz: f64, ms: u32) {
    std::fs::write(path, alaw_tone(hz, ms)).unwrap();
}

/// One pure tone as A-law.
pub fn alaw_tone(hz: f64, ms: u32) -> Vec<u8> {
    let sample = |n: u32| alaw(0.5 * (TAU * hz * f64::from(n) / f64::from(RATE)).sin());
    (0..RATE / 1_000 * ms).map(sample).collect()
}

/// One sample by the formula of G.711, −1…1.
fn alaw(sample: f64) -> u8 {
    const A: f64 = 87.6;
    let size = sample.abs();
    let bent = if size < 1.0 / A { A * size } else { 1.0 + (A * size).ln() } / (1.0 + A.ln());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 127")]
    let code = (bent * 127.0).round() as u8;
    (code | if sample < 0.0 { 0 } else { 0x80 }) ^ 0x55
}

/// The samples of a recording, also of one whose header was never finished, −1…1.
pub fn read(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let data = bytes.windows(4).position(|four| four == b"data").map_or(bytes.len(), |at| at + 8);
    let body = bytes.get(data..).unwrap_or_default();
    body.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect()
}

/// What a recording holds, in order: each tone (or 0 for silence) that lasts three windows of 100 ms or
/// longer, once as long as it lasts.
pub fn story(samples: &[f64], tones: &[u32]) -> Vec<u32> {
    let mut story: Vec<u32> = Vec::new();
    let (mut last, mut lasts) = (None, 0);
    for window in samples.chunks_exact(800) {
        let tone = tones.iter().copied().find(|hz| is_tone(window, f64::from(*hz)));
        let tone = tone.or_else(|| is_silent(window).then_some(0));
        lasts = if tone == last { lasts + 1 } else { 1 };
        last = tone;
        if let Some(tone) = tone.filter(|tone| lasts >= 3 && story.last() != Some(tone)) {
            story.push(tone);
        }
    }
    story
}

/// Whether this tone is more than 70 % of the energy of the window, and the window not silent.
pub fn is_tone(window: &[f64], hz: f64) -> bool {
    let energy: f64 = window.iter().map(|sample| sample * sample).sum();
    #[expect(clippy::cast_precision_loss, reason = "800 samples")]
    let length = window.len() as f64;
    let (mut re, mut im, mut phase) = (0.0, 0.0, 0.0_f64);
    for sample in window {
        re += sample * phase.cos();
        im += sample * phase.sin();
        phase += TAU * hz / f64::from(RATE);
    }
    let tone = 2.0 * (re * re + im * im) / length;
    energy / length > 1e-4 && tone > 0.7 * energy
}

/// Whether a window holds nothing.
pub fn is_silent(window: &[f64]) -> bool {
    window.iter().all(|sample| sample.abs() < 0.01)
}
