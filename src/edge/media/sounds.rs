//! The sound store: every prompt of `dialplans/sounds`, decoded and encoded once, and the tones.
//!
//! Invariant: a store that was loaded plays without touching a file again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hound::{SampleFormat, WavReader};

use crate::media::command::Sound;
use crate::media::prompt::{MAX_PROMPT_SECONDS, RATES_HZ, Track, mono, resample};
use crate::media::tone;

/// The most files that a store holds; the folder's others are an error.
pub const MAX_SOUNDS: usize = 1_000;

/// Why a sound cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The folder or file cannot be read.
    #[error("{path}: cannot be read: {why}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// It is not a WAV file that can be played.
    #[error("{path}: {why}")]
    Unplayable {
        /// Which.
        path: PathBuf,
        /// What is wrong and what would be right.
        why: String,
    },
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
    /// Reads every `*.wav` of a folder. A folder that is not there has no prompts.
    ///
    /// # Errors
    /// The first file that cannot be used, by name and reason.
    pub fn load(folder: &Path) -> Result<Self, SoundError> {
        let mut sounds = Self::default();
        let unreadable = |why| SoundError::Unreadable { path: folder.to_owned(), why };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(sounds),
            Err(why) => return Err(unreadable(why)),
        };
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            let is_wav = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("wav"));
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_wav) else {
                continue;
            };
            if sounds.prompts.len() >= MAX_SOUNDS {
                let why = format!("more than {MAX_SOUNDS} sounds in one folder");
                return Err(SoundError::Unplayable { path: folder.to_owned(), why });
            }
            let track = read(&path)?;
            sounds.prompts.insert(name.into(), Arc::new(track));
        }
        Ok(sounds)
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

    /// The same store with one more prompt, already decoded: for tools and tests.
    #[must_use]
    pub fn with(mut self, name: &str, track: Track) -> Self {
        self.prompts.insert(name.into(), Arc::new(track));
        self
    }
}

/// Reads one WAV file of any common rate, width and channel count.
///
/// # Errors
/// The file's name and what is wrong with it.
pub fn read(path: &Path) -> Result<Track, SoundError> {
    let wrong = |why: String| SoundError::Unplayable { path: path.to_owned(), why };
    let file =
        std::fs::File::open(path).map_err(|why| SoundError::Unreadable { path: path.to_owned(), why })?;
    let reader = WavReader::new(std::io::BufReader::new(file))
        .map_err(|error| wrong(format!("not a playable WAV file ({error}); save it as 16-bit PCM")))?;
    track_of(reader, &wrong)
}

/// The same for a file that was read already; `name` is what errors call it.
///
/// # Errors
/// The name and what is wrong with the file.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Track, SoundError> {
    let wrong = |why: String| SoundError::Unplayable { path: name.into(), why };
    let reader = WavReader::new(bytes)
        .map_err(|error| wrong(format!("not a playable WAV file ({error}); save it as 16-bit PCM")))?;
    track_of(reader, &wrong)
}

fn track_of<R: std::io::Read>(
    reader: WavReader<R>,
    wrong: &impl Fn(String) -> SoundError,
) -> Result<Track, SoundError> {
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
    use hound::{WavSpec, WavWriter};

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16) -> WavSpec {
        let sample_format = if bits_per_sample == 32 { SampleFormat::Float } else { SampleFormat::Int };
        WavSpec { channels, sample_rate, bits_per_sample, sample_format }
    }

    fn write(path: &Path, spec: WavSpec, seconds: u32) {
        let mut writer = WavWriter::create(path, spec).unwrap();
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
    }

    #[test]
    fn files_of_every_kind_become_the_same_second_of_sound() {
        let folder = tempfile::tempdir().unwrap();
        for (name, spec) in [
            ("a.wav", spec(1, 8_000, 16)),
            ("b.WAV", spec(2, 44_100, 16)),
            ("c.wav", spec(1, 48_000, 24)),
            ("d.wav", spec(2, 16_000, 32)),
            ("e.wav", spec(1, 22_050, 8)),
        ] {
            write(&folder.path().join(name), spec, 1);
        }
        std::fs::write(folder.path().join("notes.txt"), "not a sound").unwrap();
        let sounds = Sounds::load(folder.path()).unwrap();
        assert_eq!(sounds.names().collect::<Vec<_>>(), ["a.wav", "b.WAV", "c.wav", "d.wav", "e.wav"]);
        for name in sounds.names() {
            let track = sounds.track(&Sound::File(name.into())).unwrap();
            assert!((7_990..=8_000).contains(&track.len()), "{name}: {}", track.len());
            let mut octets = [0; 4_000];
            crate::media::prompt::Playing::new(track, false, 0)
                .fill(crate::media::command::Law::Pcma, &mut octets);
            let samples: Vec<i16> = octets
                .iter()
                .map(|octet| crate::media::g711::decode(crate::media::command::Law::Pcma, *octet))
                .collect();
            assert!((tone::strength(&samples, 440.0) - 0.5).abs() < 0.03, "{name}");
        }
        assert!(sounds.track(&Sound::File("z.wav".into())).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_played_says_which_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.wav");
        std::fs::write(&path, "RIFF but not really").unwrap();
        let words = Sounds::load(folder.path()).unwrap_err().to_string();
        assert!(words.contains("bad.wav") && words.contains("16-bit PCM"), "{words}");
        write(&path, spec(1, 1_000, 16), 1);
        let words = Sounds::load(folder.path()).unwrap_err().to_string();
        assert!(words.contains("1000 Hz"), "{words}");
        write(&path, spec(1, 8_000, 16), 0);
        let words = Sounds::load(folder.path()).unwrap_err().to_string();
        assert!(words.contains("no sound"), "{words}");
    }

    #[test]
    fn a_folder_that_is_not_there_has_only_tones() {
        let sounds = Sounds::load(Path::new("no/such/folder")).unwrap();
        assert_eq!(sounds.names().count(), 0);
        assert_eq!(sounds.track(&Sound::Ringback).unwrap().len(), 40_000);
    }
}
