//! SIPp with a scenario of `fixtures/sipp`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::peers::Kept;
use super::ports::Block;
use super::tandem::Tandem;
use super::wait::until_within;

/// One run of SIPp that is going on.
#[derive(Debug)]
pub struct Sipp {
    process: Kept,
    errors: PathBuf,
    screen: PathBuf,
    name: String,
}

impl Sipp {
    /// Starts `fixtures/sipp/NAME.xml` at `port` towards Tandem, its files in Tandem's folder.
    pub fn start(tandem: &Tandem, name: &str, port: u16, words: &[&str]) -> Self {
        Self::start_to(tandem, name, port, Some(tandem.sip), words)
    }

    /// Waits at `port` for calls.
    pub fn wait_for_calls(tandem: &Tandem, name: &str, port: u16, words: &[&str]) -> Self {
        Self::start_to(tandem, name, port, None, words)
    }

    fn start_to(tandem: &Tandem, name: &str, port: u16, to: Option<SocketAddr>, words: &[&str]) -> Self {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/sipp/{name}.xml"));
        let (errors, screen) =
            (tandem.path(&format!("{name}-{port}.err")), tandem.path(&format!("{name}-{port}.out")));
        let out = File::create(&screen).unwrap();
        let mut command = Command::new("sipp");
        command.args(to.map(|to| to.to_string()));
        command.arg("-sf").arg(scenario);
        command.args(["-i", "127.0.0.1", "-nostdin", "-p", &port.to_string()]);
        command.args(["-mp", &Block::of(6).at(0).to_string(), "-trace_err", "-error_file"]);
        command.arg(&errors).args(words).current_dir(tandem.path("."));
        command.stdout(out.try_clone().unwrap()).stderr(out);
        Self { process: Kept::spawn(&mut command), errors, screen, name: name.to_owned() }
    }

    /// Waits for its end; every call must have gone as the scenario says.
    pub async fn succeeds(self, patience_s: u64) {
        let (code, said) = self.ends(patience_s).await;
        assert_eq!(code, 0, "SIPp: {said}");
    }

    /// Waits for its end: the exit code, and what it complained of.
    pub async fn ends(mut self, patience_s: u64) -> (i32, String) {
        let patience = std::time::Duration::from_secs(patience_s);
        let process = std::sync::Mutex::new(&mut self.process);
        let status = until_within(patience, &format!("SIPp ends {}", self.name), || async {
            process.lock().unwrap().0.try_wait().unwrap()
        })
        .await;
        let read =
            |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let end = |text: String| {
            text.chars().rev().take(4_000).collect::<Vec<_>>().into_iter().rev().collect::<String>()
        };
        let said = format!("{}: {} {}", self.name, end(read(&self.errors)), end(read(&self.screen)));
        (status.code().unwrap_or(-1), said)
    }
}
