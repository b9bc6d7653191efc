//! The sound store: every prompt of `dialplans/sounds`, decoded and encoded once, and the tones.
//!
//! Invariant: a store that was made plays without touching a file again.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use hound::{SampleFormat, WavReader};

use crate::media::command::Sound;
use crate::media::prompt::{MAX_PROMPT_SECONDS, RATES_HZ, Track, mono, resample};
use crate::media::tone;

/// Why a sound cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sound {name}: {why}")]
pub struct SoundError {
    /// Which file.
    pub name: String,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Prompts by file name, and the tones.
#[derive(Debug, Clone)]
pub struct Sounds {
    prompts: BTreeMap<Arc<str>, Arc<Track>>,
    tones: [Arc<Track>; 4],
}

impl Default for Sounds {
    fn default() -> Self {
        let made = |sound| Arc::new(Track::new(&tone::cycle(&sound).unwrap_or_default()));
        let tones = [Sound::Ringback, Sound::Busy, Sound::Congestion, Sound::Unavailable].map(made);
        Self { prompts: BTreeMap::new(), tones }
    }
}

impl Sounds {
    /// The same store with one more prompt, by the name that dialplans use.
    #[must_use]
    pub fn with(mut self, name: &str, track: Track) -> Self {
        self.prompts.insert(name.into(), Arc::new(track));
        self
    }

    /// File names, sorted: what a dialplan may play.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.prompts.keys().map(|name| &**name)
    }

    /// What to play; `None` when there is no such prompt.
    pub fn track(&self, sound: &Sound) -> Option<Arc<Track>> {
        let [ringback, busy, congestion, unavailable] = &self.tones;
        match sound {
            Sound::File(name) => self.prompts.get(name).cloned(),
            Sound::Ringback => Some(Arc::clone(ringback)),
            Sound::Busy => Some(Arc::clone(busy)),
            Sound::Congestion => Some(Arc::clone(congestion)),
            Sound::Unavailable => Some(Arc::clone(unavailable)),
        }
    }
}

/// The sound of a WAV file of any common rate, width and channel count.
///
/// # Errors
/// The file's name, what is wrong with it and what would be right.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Track, SoundError> {
    let wrong = |why: String| SoundError { name: name.to_owned(), why };
    let reader = WavReader::new(Cursor::new(bytes))
        .map_err(|error| wrong(format!("not a playable WAV file ({error}); save it as 16-bit PCM")))?;
    let spec = reader.spec();
    if !RATES_HZ.contains(&spec.sample_rate) {
        return Err(wrong(format!(
            "{} Hz is out of {}-{} Hz",
            spec.sample_rate,
            RATES_HZ.start(),
            RATES_HZ.end()
        )));
    }
    if reader.duration() / spec.sample_rate > MAX_PROMPT_SECONDS {
        return Err(wrong(format!("longer than {} minutes", MAX_PROMPT_SECONDS / 60)));
    }
    let samples = sixteen_bits(reader).map_err(|error| wrong(format!("broken sound ({error})")))?;
    let sound = resample(&mono(&samples, spec.channels), spec.sample_rate);
    if sound.is_empty() {
        return Err(wrong("there is no sound in it".to_owned()));
    }
    Ok(Track::new(&sound))
}

fn sixteen_bits<R: std::io::Read>(mut reader: WavReader<R>) -> Result<Vec<i16>, hound::Error> {
    let spec = reader.spec();
    match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().map(|value| value.map(from_float)).collect(),
        SampleFormat::Int => {
            let bits = spec.bits_per_sample;
            reader.samples::<i32>().map(|value| value.map(|value| from_int(value, bits))).collect()
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to the range of a sample")]
fn from_float(value: f32) -> i16 {
    (value * 32_767.0).round().clamp(-32_768.0, 32_767.0) as i16
}

fn from_int(value: i32, bits: u16) -> i16 {
    let scaled = if bits > 16 { value >> (bits - 16) } else { value << (16 - bits) };
    i16::try_from(scaled.clamp(-32_768, 32_767)).unwrap_or(0)
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
    use crate::media::command::Law;
    use crate::media::g711;
    use crate::media::prompt::Playing;
    use hound::{WavSpec, WavWriter};

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16) -> WavSpec {
        let sample_format = if bits_per_sample == 32 { SampleFormat::Float } else { SampleFormat::Int };
        WavSpec { channels, sample_rate, bits_per_sample, sample_format }
    }

    fn wav(spec: WavSpec, seconds: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for at in 0..spec.sample_rate * seconds {
            let value =
                (2.0 * std::f32::consts::PI * 440.0 * at as f32 / spec.sample_rate as f32).sin() * 0.5;
            for _ in 0..spec.channels {
                match spec.sample_format {
                    SampleFormat::Float => writer.write_sample(value).unwrap(),
                    SampleFormat::Int => {
                        let full = (1i64 << (spec.bits_per_sample - 1)) as f32 - 1.0;
                        writer.write_sample((value * full) as i32).unwrap();
                    }
                }
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn files_of_every_kind_become_the_same_second_of_sound() {
        for spec in [
            spec(1, 8_000, 16),
            spec(2, 44_100, 16),
            spec(1, 48_000, 24),
            spec(2, 16_000, 32),
            spec(1, 22_050, 8),
        ] {
            let track = decode("a.wav", &wav(spec, 1)).unwrap();
            assert!((7_990..=8_000).contains(&track.len()), "{spec:?}: {}", track.len());
            let mut octets = [0; 4_000];
            Playing::new(Arc::new(track), false, 0).fill(Law::Pcma, &mut octets);
            let samples = octets.map(|octet| g711::decode(Law::Pcma, octet));
            assert!((tone::strength(&samples, 440.0) - 0.5).abs() < 0.03, "{spec:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_played_says_which_and_why() {
        for (bytes, words) in [
            (b"RIFF but not really".to_vec(), "16-bit PCM"),
            (Vec::new(), "16-bit PCM"),
            (wav(spec(1, 1_000, 16), 1), "1000 Hz"),
            (wav(spec(1, 8_000, 16), 0), "no sound"),
            (wav(spec(1, 8_000, 16), 1)[..900].to_vec(), "broken sound"),
        ] {
            let error = decode("bad.wav", &bytes).unwrap_err().to_string();
            assert!(error.contains("bad.wav") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_store_has_its_prompts_and_always_the_tones() {
        let sounds = Sounds::default().with("b.wav", Track::new(&[1; 8])).with("a.wav", Track::new(&[1; 9]));
        assert_eq!(sounds.names().collect::<Vec<_>>(), ["a.wav", "b.wav"]);
        assert_eq!(sounds.track(&Sound::File("a.wav".into())).unwrap().len(), 9);
        assert!(sounds.track(&Sound::File("z.wav".into())).is_none());
        assert_eq!(sounds.track(&Sound::Ringback).unwrap().len(), 40_000);
    }
}
