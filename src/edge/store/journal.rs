//! The local journal: where facts wait while the database is away.
//!
//! One line a fact: CRC-32 in hex, a space, JSON. Invariant: what [`Journal::append`] returned `Ok` for is
//! on the disk; a line that was cut off or damaged is passed over and costs no other line.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::fact::Fact;

/// File name in the data folder.
const NAME: &str = "facts.journal";
/// The longest the journal grows: days of a call centre's facts.
pub(super) const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// The longest line: a card with all its fields is 50 kB.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// The file whose lock says that a process owns the journal.
const LOCK: &str = "store.lock";

/// Takes the folder's lock, which lives as long as the file; `None` when another process has it.
pub(super) async fn lock(folder: &Path) -> Result<Option<File>, StoreError> {
    let path = folder.join(LOCK);
    let lock = path.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new().append(true).create(true).open(lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    let taken = taken.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    taken.map_err(|error| StoreError::File { path, error })
}

/// The open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

/// A part of the journal.
pub(super) struct Part {
    /// Its facts.
    pub(super) facts: Vec<Fact>,
    /// Where the next part begins; the same place when there is none.
    pub(super) next: u64,
    /// Lines that did not read back.
    pub(super) damaged: u64,
}

impl Journal {
    /// Opens or makes the journal in `folder` and cuts off a torn last line.
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(NAME);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let length = whole_lines(&mut file)?;
        file.set_len(length)?;
        Ok(Self { path, file, length })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds facts and syncs them.
    pub(super) fn append(&mut self, facts: &[Fact]) -> std::io::Result<()> {
        let mut text = Vec::new();
        for fact in facts {
            let json = serde_json::to_string(fact)?;
            writeln!(text, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
        }
        let added = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if self.length.saturating_add(added) > MAX_BYTES {
            return Err(std::io::Error::other("the journal is full"));
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not swallow the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length = self.length.saturating_add(added);
        Ok(())
    }

    /// At most `max` facts from byte `from` on.
    pub(super) fn read(&self, from: u64, max: usize) -> std::io::Result<Part> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new(file);
        let mut part = Part { facts: Vec::new(), next: from, damaged: 0 };
        while part.facts.len() < max && part.next < self.length {
            let mut line = Vec::new();
            let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            part.next = part.next.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            match fact_of(&line) {
                Some(fact) => part.facts.push(fact),
                None => part.damaged = part.damaged.saturating_add(1),
            }
        }
        Ok(part)
    }

    /// Empties the journal: all of it is in the database. One with damaged lines is kept beside it.
    pub(super) fn clear(&mut self, damaged: u64) -> std::io::Result<()> {
        if damaged > 0 {
            std::fs::copy(&self.path, self.path.with_extension("damaged"))?;
        }
        self.file.set_len(0)?;
        self.file.sync_data()?;
        self.length = 0;
        Ok(())
    }
}

fn fact_of(line: &[u8]) -> Option<Fact> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (crc, json) = text.split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (crc == crc32fast::hash(json.as_bytes())).then(|| serde_json::from_str(json).ok()).flatten()
}

/// The length of the file up to its last line end.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let (mut reader, mut seen, mut whole) = (BufReader::new(file), 0_u64, 0_u64);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(whole);
        }
        if let Some(at) = buffer.iter().rposition(|byte| *byte == b'\n') {
            whole = seen.saturating_add(u64::try_from(at).unwrap_or(u64::MAX)).saturating_add(1);
        }
        let length = buffer.len();
        seen = seen.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::fact::What;
    use crate::terms::Epoch;

    fn fact(seq: u64) -> Fact {
        Fact { seq, epoch: Epoch(1), at: 0, call: None, what: What::Held }
    }

    fn seqs(journal: &Journal) -> (Vec<u64>, u64) {
        let part = journal.read(0, 100).unwrap();
        (part.facts.iter().map(|fact| fact.seq).collect(), part.damaged)
    }

    #[test]
    fn a_torn_tail_and_a_flipped_bit_cost_their_own_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&[fact(1), fact(2), fact(3), fact(4)]).unwrap();
        let mut bytes = std::fs::read(journal.path()).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 20;
        bytes[second] ^= 1;
        bytes.truncate(bytes.len() - 3);
        std::fs::write(journal.path(), &bytes).unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        assert_eq!(seqs(&journal), (vec![1, 3], 1));
        journal.append(&[fact(5)]).unwrap();
        assert_eq!(seqs(&journal), (vec![1, 3, 5], 1));
        journal.clear(1).unwrap();
        assert!(journal.is_empty() && folder.path().join("facts.damaged").exists());
    }

    #[test]
    fn a_journal_reads_back_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&(1..=5).map(fact).collect::<Vec<_>>()).unwrap();
        let first = journal.read(0, 3).unwrap();
        let second = journal.read(first.next, 3).unwrap();
        assert_eq!((first.facts.len(), second.facts.len()), (3, 2));
        assert_eq!(journal.read(second.next, 3).unwrap().facts.len(), 0);
    }
}
