//! `tandem check`: the configuration, the dialplans and the sounds as `run` would read them.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, Reading};
use crate::dialplan::parse::did_you_mean;
use crate::dialplan::{Known, Mistake, Plan, shipped};

/// Where dialplans are looked up, from the folder in which Tandem was started.
pub const DIALPLANS: &str = "dialplans";
/// Where sounds are looked up inside the dialplans.
const SOUNDS: &str = "sounds";
/// Dialplan files, and sounds.
const MAX_FILES: usize = 1_000;
/// Bytes of one sound: about an hour and a half at 8 kHz.
const MAX_SOUND_BYTES: u64 = 100 << 20;

/// All that an administrator wrote, read and found good.
#[derive(Debug)]
pub struct Report {
    /// The configuration.
    pub config: Config,
    /// The dialplans.
    pub plan: Plan,
    /// The sounds that dialplans and queues may play, by name.
    pub sounds: Vec<Sound>,
    /// What works but looks wrong.
    pub warnings: Vec<Mistake>,
}

/// A sound that may be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// As dialplans call it.
    pub name: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Shipped(&'static [u8]),
}

impl Sound {
    /// The WAV file.
    ///
    /// # Errors
    /// If it cannot be read (any more).
    pub fn bytes(&self) -> io::Result<Cow<'static, [u8]>> {
        match &self.source {
            Source::File(path) => std::fs::read(path).map(Cow::Owned),
            Source::Shipped(bytes) => Ok(Cow::Borrowed(bytes)),
        }
    }

    /// Why it cannot be played, in words.
    fn fault(&self) -> Option<String> {
        let (length, header) = match &self.source {
            Source::File(path) => {
                let length = std::fs::metadata(path).map(|file| file.len()).unwrap_or(0);
                (length, hound::WavReader::open(path).map(drop))
            }
            Source::Shipped(bytes) => {
                (u64::try_from(bytes.len()).unwrap_or(u64::MAX), hound::WavReader::new(*bytes).map(drop))
            }
        };
        if length > MAX_SOUND_BYTES {
            return Some(format!("longer than {MAX_SOUND_BYTES} bytes"));
        }
        header.err().map(|why| format!("no WAV file: {why}"))
    }
}

/// Reads everything: the configuration at `config` (or the built-in defaults), and the dialplans and
/// sounds in the folder `dialplans`, or those that come with Tandem if there is no such folder.
///
/// # Errors
/// Every mistake, with file and line.
pub fn check(config: Option<&Path>, dialplans: &Path) -> Result<Report, Vec<Mistake>> {
    let Reading { config, warnings } = Reading::load(config)?;
    let mut report = judge(config, dialplans)?;
    report.warnings.splice(0..0, warnings);
    Ok(report)
}

/// The same for a configuration that was read already.
///
/// # Errors
/// Every mistake, with file and line.
pub fn judge(config: Config, dialplans: &Path) -> Result<Report, Vec<Mistake>> {
    let sounds = sounds(dialplans)?;
    let known = Known {
        queues: config.queues.iter().map(|queue| queue.name.clone()).collect(),
        trunks: config.trunks.iter().map(|trunk| trunk.name.clone()).collect(),
        groups: config.groups.clone(),
        sounds: sounds.iter().map(|sound| sound.name.clone()).collect(),
    };
    let mut mistakes: Vec<Mistake> =
        sounds.iter().filter_map(|sound| wrong_sound(sound, dialplans)).collect();
    mistakes.extend(config.queues.iter().filter_map(|queue| wrong_music(queue, &known)));
    match Plan::read(&files(dialplans)?, &known) {
        Ok(plan) if mistakes.is_empty() => {
            let warnings = plan.warnings().to_vec();
            Ok(Report { config, plan, sounds, warnings })
        }
        Ok(_) => Err(mistakes),
        Err(more) => Err(mistakes.into_iter().chain(more).collect()),
    }
}

fn wrong_sound(sound: &Sound, dialplans: &Path) -> Option<Mistake> {
    let file = dialplans.join(SOUNDS).join(&sound.name).display().to_string();
    sound.fault().map(|text| Mistake { file, line: 0, text })
}

fn wrong_music(queue: &crate::acd::QueueConfig, known: &Known) -> Option<Mistake> {
    if known.sounds.contains(&queue.music) {
        return None;
    }
    let hint = did_you_mean(&queue.music, known.sounds.iter().map(String::as_str));
    let text = format!("music: unknown sound '{}'{hint}", queue.music);
    Some(Mistake { file: format!("[[queue]] {}", queue.name), line: 0, text })
}

/// The dialplan files in the order of their names, as `(name, text)`.
fn files(dialplans: &Path) -> Result<Vec<(String, String)>, Vec<Mistake>> {
    if !dialplans.is_dir() {
        return Ok(shipped::FILES.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec());
    }
    let paths = listed(dialplans, "toml")?;
    let read = |path: PathBuf| {
        let name = path.display().to_string();
        std::fs::read_to_string(&path).map(|text| (name, text)).map_err(|why| vec![unreadable(&path, &why)])
    };
    paths.into_iter().map(read).collect()
}

fn sounds(dialplans: &Path) -> Result<Vec<Sound>, Vec<Mistake>> {
    if !dialplans.is_dir() {
        let sound = |(name, bytes): (&str, &'static [u8])| Sound {
            name: name.to_owned(),
            source: Source::Shipped(bytes),
        };
        return Ok(shipped::SOUNDS.map(sound).to_vec());
    }
    let folder = dialplans.join(SOUNDS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let sound = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(Sound { name, source: Source::File(path) })
    };
    Ok(listed(&folder, "wav")?.into_iter().filter_map(sound).collect())
}

/// The files of a folder with this extension, by name.
fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Vec<Mistake>> {
    let wrong = |why: io::Error| vec![unreadable(folder, &why)];
    let entries = std::fs::read_dir(folder).map_err(wrong)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(wrong)?;
    paths.retain(|path| path.extension().is_some_and(|its| its == extension) && path.is_file());
    paths.sort();
    if paths.len() > MAX_FILES {
        let text = format!("more than {MAX_FILES} files");
        return Err(vec![Mistake { file: folder.display().to_string(), line: 0, text }]);
    }
    Ok(paths)
}

fn unreadable(path: &Path, why: &io::Error) -> Mistake {
    Mistake { file: path.display().to_string(), line: 0, text: format!("cannot be read: {why}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn shown(mistakes: &[Mistake]) -> String {
        mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
    }

    #[test]
    fn the_shipped_dialplans_are_good_for_the_built_in_defaults() {
        let report = check(None, Path::new("/nonexistent")).unwrap();
        assert_eq!(report.plan.routes().count(), 4);
        assert!(report.sounds.iter().all(|sound| sound.bytes().is_ok_and(|wav| wav.starts_with(b"RIFF"))));
        // Without a trunk every pattern says so; nothing else is odd about the plans.
        assert!(
            report.plan.warnings().iter().all(|warning| warning.text.contains("no trunk is called like"))
        );
        assert!(report.warnings.iter().any(|warning| warning.text.contains("recording comes with a later")));
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names_and_mistakes_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let route = |name: &str| {
            format!(
                "[[route]]\nname = \"{name}\"\nwhen = {{ from = \"operators\", number = \"{name}\" }}\ndo = [{{ play = \"a.wav\" }}]\n"
            )
        };
        std::fs::create_dir(folder.path().join("sounds")).unwrap();
        for (file, _) in shipped::SOUNDS.iter().zip(0..) {
            std::fs::write(folder.path().join("sounds").join(file.0), file.1).unwrap();
        }
        std::fs::write(folder.path().join("sounds/a.wav"), shipped::SOUNDS[0].1).unwrap();
        for name in ["20", "10", "30"] {
            std::fs::write(folder.path().join(format!("{name}.toml")), route(name)).unwrap();
        }
        std::fs::write(folder.path().join("40.toml.bak"), "nonsense").unwrap();
        let report = check(None, folder.path()).unwrap();
        assert_eq!(
            report.plan.routes().map(|route| route.name.as_str()).collect::<Vec<_>>(),
            ["10", "20", "30"]
        );

        std::fs::write(folder.path().join("sounds/a.wav"), "no sound").unwrap();
        std::fs::write(
            folder.path().join("20.toml"),
            "[[route]]\nname = \"x\"\ndo = [{ play = \"b.wav\" }]\n",
        )
        .unwrap();
        let mistakes = shown(&check(None, folder.path()).unwrap_err());
        assert!(mistakes.contains("sounds/a.wav: no WAV file"), "{mistakes}");
        assert!(
            mistakes.contains("20.toml:3: play: unknown sound 'b.wav' (did you mean 'a.wav'?)"),
            "{mistakes}"
        );
    }

    #[test]
    fn the_house_for_development_has_nothing_odd() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let report = check(Some(&root.join("config/dev.toml")), &root.join(DIALPLANS)).unwrap();
        assert_eq!(shown(&report.warnings), "");
        assert_eq!(report.sounds.len(), shipped::SOUNDS.len());
    }

    #[test]
    fn music_of_a_queue_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let mistakes = shown(&check(None, folder.path()).unwrap_err());
        assert_eq!(mistakes, "[[queue]] orders: music: unknown sound 'hold.wav'\n");
    }

    #[test]
    fn a_file_that_is_not_there_is_said_so() {
        let mistakes = shown(&check(Some(Path::new("/nonexistent.toml")), Path::new(DIALPLANS)).unwrap_err());
        assert!(mistakes.starts_with("/nonexistent.toml: cannot be read: "), "{mistakes}");
    }
}
