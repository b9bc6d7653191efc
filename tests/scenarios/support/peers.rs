//! The programs of others that play our peers, and how many heavy scenes are on at one time.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Browsers, gateways and floods at one time: more would make each other late on a small machine.
static STAGE: Semaphore = Semaphore::const_new(3);

/// A place on the stage, given back when dropped.
pub async fn stage() -> SemaphorePermit<'static> {
    STAGE.acquire().await.unwrap()
}

/// Whether all these programs are installed. Where one is missing the test says so and is to return;
/// with `TANDEM_PEERS=required` it fails instead.
pub fn need(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let missing =
        programs.iter().find(|program| !folders.iter().any(|folder| folder.join(program).is_file()));
    let Some(missing) = missing else { return true };
    absent(missing)
}

/// Says that a peer is missing; fails where peers are required.
pub fn absent(missing: &str) -> bool {
    let required = std::env::var("TANDEM_PEERS").is_ok_and(|value| value == "required");
    assert!(!required, "{missing} not found, and TANDEM_PEERS=required");
    eprintln!("skipped: {missing} not found");
    false
}

/// A child process that ends with its owner, by its id.
#[derive(Debug)]
pub struct Kept(pub Child);

impl Kept {
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|why| panic!("{command:?}: {why}")))
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// `SIGKILL`, at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.0.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}
