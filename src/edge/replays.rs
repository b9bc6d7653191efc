//! Inputs that made the engine fail, kept for those who mend it: one file of JSON lines each.
//!
//! Invariant: at most so many files as configured, the oldest goes first; no password, key or digest
//! answer is in them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::warn;

use crate::edge::certificate::write_private;
use crate::edge::driver::Witness;
use crate::terms::{CallId, Now, WallMs};
use crate::trace::mask;

/// Where they are kept, and how many.
#[derive(Debug, Clone)]
pub struct Replays {
    folder: PathBuf,
    keep: usize,
}

/// The first line of a file.
#[derive(Serialize)]
struct Head<'a> {
    version: &'static str,
    at: WallMs,
    failed: &'a str,
    call: Option<CallId>,
}

/// The second: the input.
#[derive(Serialize)]
#[serde(tag = "input", rename_all = "snake_case")]
enum Line<'a> {
    Sip { path: String, text: String },
    Said { words: &'a str },
}

impl Replays {
    /// Files go below `data_dir`; `keep` 0 keeps none.
    pub fn below(data_dir: &Path, keep: usize) -> Self {
        Self { folder: data_dir.join("replays"), keep }
    }

    /// Writes one file; where it is, or nothing when none is kept or the disk refuses.
    pub(super) fn keep(
        &self,
        witness: &Witness,
        call: Option<CallId>,
        failed: &str,
        now: Now,
    ) -> Option<PathBuf> {
        if self.keep == 0 {
            return None;
        }
        let head = Head { version: env!("CARGO_PKG_VERSION"), at: now.wall_ms, failed, call };
        let line = match witness {
            Witness::Sip { path, bytes } => {
                Line::Sip { path: format!("{path:?}"), text: mask::secrets(bytes) }
            }
            Witness::Said(words) => Line::Said { words },
        };
        match self.write(&head, &line, now) {
            Ok(file) => Some(file),
            Err(why) => {
                warn!("{}: the input cannot be kept: {why:#}", self.folder.display());
                None
            }
        }
    }

    fn write(&self, head: &Head<'_>, line: &Line<'_>, now: Now) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let mut bytes = serde_json::to_vec(head)?;
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, line)?;
        bytes.write_all(b"\n")?;
        // Two failures in one millisecond: both clocks together differ.
        let file = self.folder.join(format!("{:015}-{}.jsonl", now.wall_ms, now.mono_ms));
        write_private(&file, &bytes)?;
        self.make_room()?;
        Ok(file)
    }

    fn make_room(&self) -> std::io::Result<()> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        files.sort();
        let over = files.len().saturating_sub(self.keep);
        files.iter().take(over).try_for_each(std::fs::remove_file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::sip;

    const REGISTER: &str = "REGISTER sip:tandem.local SIP/2.0\r\nAuthorization: Digest username=\"gsm-1\", \
        nonce=\"abc\", response=\"0123456789abcdef\"\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn the_newest_inputs_are_kept_without_their_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let replays = Replays::below(folder.path(), 3);
        let path = sip::Path::Udp {
            remote: "192.0.2.7:5060".parse().unwrap(),
            local: "192.0.2.1:5060".parse().unwrap(),
        };
        let mut last = None;
        for n in 0..5 {
            let witness = Witness::Sip { path, bytes: REGISTER.into() };
            let now = Now { mono_ms: n, wall_ms: 1_000 };
            last = replays.keep(&witness, None, "index out of bounds", now);
        }
        let names: Vec<_> = std::fs::read_dir(folder.path().join("replays")).unwrap().collect();
        assert_eq!(names.len(), 3);
        let text = std::fs::read_to_string(last.unwrap()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["failed"], "index out of bounds");
        assert_eq!(lines[1]["input"], "sip");
        assert!(lines[1]["path"].as_str().unwrap().contains("192.0.2.7:5060"));
        assert!(text.contains("username=") && !text.contains("0123456789abcdef"), "{text}");
        assert!(
            Replays::below(folder.path(), 0)
                .keep(&Witness::Said("x".into()), None, "", Now::default())
                .is_none()
        );
    }
}
