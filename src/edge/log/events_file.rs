//! `events.csv`: every fact as one line, written by a thread of its own.
//!
//! Invariant: the engine never waits for this disk. A full queue or a full disk costs lines, which are
//! counted and said once, and never a call; writing goes on by itself when there is room again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use crate::fact::Fact;
use crate::report::line;

/// Lines that may wait for the disk.
const WAITING_MAX: usize = 16_384;
/// The file is put aside as `….1` when it has grown so far, and `….1` as `….2`, and so on.
const ROTATE_AT_BYTES: u64 = 256 * 1024 * 1024;
/// Between two writes: waking this thread for each line costs more than the line.
const REST: Duration = Duration::from_millis(50);
/// Files put aside that are kept.
const KEPT_FILES: u32 = 4;

/// The end that the driver writes to. The thread ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct EventsFile {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl EventsFile {
    /// Opens or begins the file and starts the thread. A disk that is full already is only said: calls
    /// are taken without this file too.
    ///
    /// # Errors
    /// The folder cannot be made, the file cannot be opened, or no thread can be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, ROTATE_AT_BYTES).map(|(made, _)| made)
    }

    fn open_with(path: &Path, rotate_at: u64) -> io::Result<(Self, std::thread::JoinHandle<()>)> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let lost = Arc::new(AtomicU64::new(0));
        let mut disk = Disk::new(path.to_owned(), rotate_at, Arc::clone(&lost));
        if let Err(error) = disk.file() {
            if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Err(error);
            }
            disk.refused(&error);
        }
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let thread =
            std::thread::Builder::new().name("events.csv".to_owned()).spawn(move || run(disk, &waiting))?;
        Ok((Self { lines, lost }, thread))
    }

    /// Hands a fact over; never waits.
    pub fn write(&self, fact: &Fact) {
        if self.lines.try_send(line::line(fact)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that a full queue or a full disk cost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Disk {
    path: PathBuf,
    /// `None` before the first line, after a rotation and after a failure.
    file: Option<File>,
    size: u64,
    rotate_at: u64,
    failed: bool,
    lost: Arc<AtomicU64>,
}

/// Takes all that waits in one write, then rests: a busy second is a few system calls, a quiet one is
/// written at once.
fn run(mut disk: Disk, waiting: &Receiver<String>) {
    while let Ok(first) = waiting.recv() {
        let mut text = first;
        let mut lines: u64 = 1;
        text.push('\n');
        while let Ok(next) = waiting.try_recv() {
            text.push_str(&next);
            text.push('\n');
            lines += 1;
        }
        disk.take(&text, lines);
        std::thread::sleep(REST);
    }
}

impl Disk {
    fn new(path: PathBuf, rotate_at: u64, lost: Arc<AtomicU64>) -> Self {
        Self { path, file: None, size: 0, rotate_at, failed: false, lost }
    }

    fn take(&mut self, text: &str, lines: u64) {
        match self.write(text) {
            Ok(()) if self.failed => {
                self.failed = false;
                tracing::warn!(path = %self.path.display(), "events.csv is written again; the lines between are lost");
            }
            Ok(()) => {}
            Err(error) => {
                self.lost.fetch_add(lines, Ordering::Relaxed);
                self.refused(&error);
            }
        }
    }

    fn refused(&mut self, error: &io::Error) {
        // Opened anew with the next lines: the folder may have been moved or mounted again.
        self.file = None;
        if !self.failed {
            self.failed = true;
            tracing::warn!(path = %self.path.display(), %error, "events.csv cannot be written; calls go on");
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.size >= self.rotate_at {
            self.put_aside()?;
        }
        self.file()?.write_all(text.as_bytes())?;
        self.size = self.size.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// The open file; a new one begins with the names of the columns.
    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            // Who may read it knows who called when.
            let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            self.size = file.metadata()?.len();
            if self.size == 0 {
                writeln!(file, "{}", line::HEADER)?;
            }
            return Ok(self.file.insert(file));
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("events.csv is not open"))
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..KEPT_FILES).rev() {
            let older = self.aside(number);
            if older.exists() {
                std::fs::rename(older, self.aside(number + 1))?;
            }
        }
        std::fs::rename(&self.path, self.aside(1))?;
        self.size = 0;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fact::What;
    use crate::terms::Epoch;

    fn fact(seq: u64) -> Fact {
        let what = What::TrunkDown { trunk: "gsm-1".into(), why: format!("reason {seq}") };
        Fact { seq, epoch: Epoch(1), at: 0, call: None, what }
    }

    #[test]
    fn lines_follow_the_header_and_a_second_start_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/events.csv");
        for start in 0..2 {
            let (file, thread) = EventsFile::open_with(&path, ROTATE_AT_BYTES).unwrap();
            file.write(&fact(start));
            drop(file);
            thread.join().unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(text.lines().next(), Some(line::HEADER));
        assert!(text.lines().nth(2).unwrap().contains("reason 1"));
    }

    #[test]
    fn a_grown_file_is_put_aside_and_the_oldest_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.csv");
        let mut disk = Disk::new(path.clone(), 100, Arc::default());
        for number in 0..8 {
            disk.take(&format!("{number}{}\n", "x".repeat(120)), 1);
        }
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["events.csv", "events.csv.1", "events.csv.2", "events.csv.3", "events.csv.4"]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(line::HEADER) && text.contains("7xxx"));
    }

    #[test]
    fn a_disk_that_is_full_at_the_start_costs_lines_and_a_folder_in_the_way_is_an_error() {
        let (file, thread) = EventsFile::open_with(Path::new("/dev/full"), ROTATE_AT_BYTES).unwrap();
        file.write(&fact(1));
        let lost = Arc::clone(&file.lost);
        drop(file);
        thread.join().unwrap();
        assert_eq!(lost.load(Ordering::Relaxed), 1);
        assert!(EventsFile::open(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn a_disk_that_refuses_costs_lines_and_is_taken_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/events.csv");
        let mut disk = Disk::new(path.clone(), 1_000, Arc::default());
        disk.take("lost\n", 1);
        assert!(disk.failed);
        assert_eq!(disk.lost.load(Ordering::Relaxed), 1);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        disk.take("kept\n", 1);
        assert!(!disk.failed);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("kept\n"));
    }
}
