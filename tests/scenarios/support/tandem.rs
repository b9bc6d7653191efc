//! The real program on free ports, in a folder of its own.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use toml::{Table, Value};

use super::desk::Desk;
use super::peers::Kept;
use super::ports::Block;
use super::wait::until_within;

/// Every account's password here.
pub const PASSWORD: &str = "correct horse battery";
/// How long a start may take on a busy machine, in a debug build.
const START: Duration = Duration::from_secs(60);

/// What a scene's Tandem is started with.
#[derive(Debug)]
pub struct House {
    config: Table,
    dialplan: Option<String>,
    sounds: Vec<(String, f64, u32)>,
    files: Option<u32>,
    sip_at: IpAddr,
}

/// The address of this machine towards the world; loopback where it has no other. Nothing is sent.
fn outside_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let known = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    known.map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip())
}

impl House {
    /// A house with one queue, `orders`, no trunk, and the dialplans that come with Tandem.
    pub fn new() -> Self {
        let config = "
            [node]
            name = \"scene\"
            data_dir = \"data\"
            drain = \"1s\"
            [recording]
            enabled = false
            [limits]
            destinations = [\"+380\"]
            calls = 100
            [log]
            level = \"info,tandem=debug\"
            events = \"data/events.csv\"
            [[queue]]
            name = \"orders\"
            wrap_up = \"1s\"
        ";
        Self {
            config: config.parse().unwrap(),
            dialplan: None,
            sounds: Vec::new(),
            files: None,
            sip_at: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Sets `table.key` to a TOML value, as text.
    pub fn set(mut self, path: &str, value: &str) -> Self {
        let (table, key) = path.split_once('.').unwrap();
        let value: Table = format!("v = {value}").parse().unwrap();
        let table = self.config.entry(table).or_insert_with(|| Value::Table(Table::new()));
        table.as_table_mut().unwrap().insert(key.to_owned(), value["v"].clone());
        self
    }

    /// Sets a key of the queue `orders`.
    pub fn queue(mut self, key: &str, value: &str) -> Self {
        let value: Table = format!("v = {value}").parse().unwrap();
        let queues = self.config["queue"].as_array_mut().unwrap();
        queues[0].as_table_mut().unwrap().insert(key.to_owned(), value["v"].clone());
        self
    }

    /// Adds a trunk: the lines of its table.
    pub fn trunk(mut self, lines: &str) -> Self {
        let trunks = self.config.entry("trunk").or_insert_with(|| Value::Array(Vec::new()));
        trunks.as_array_mut().unwrap().push(Value::Table(lines.parse().unwrap()));
        self
    }

    /// A dialplan instead of those that come with Tandem; the sounds stay.
    pub fn dialplan(mut self, text: &str) -> Self {
        self.dialplan = Some(text.to_owned());
        self
    }

    /// A sound that is one pure tone, instead of the one of this name that comes with Tandem.
    pub fn tone(mut self, name: &str, hz: f64, ms: u32) -> Self {
        self.sounds.push((name.to_owned(), hz, ms));
        self
    }

    /// SIP (and the sound of trunks) at this machine's address towards the world: baresip writes that one
    /// into its SDP, whatever it sends from.
    pub fn outside(mut self) -> Self {
        self.sip_at = outside_address();
        self
    }

    /// How many files the process may open.
    pub fn files(mut self, most: u32) -> Self {
        self.files = Some(most);
        self
    }

    fn write_dialplans(&self, folder: &Path) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialplans");
        std::fs::create_dir_all(folder.join("sounds")).unwrap();
        for sound in std::fs::read_dir(shipped.join("sounds")).unwrap() {
            let sound = sound.unwrap().path();
            std::fs::copy(&sound, folder.join("sounds").join(sound.file_name().unwrap())).unwrap();
        }
        for (name, hz, ms) in &self.sounds {
            super::sound::write_tone(&folder.join("sounds").join(name), *hz, *ms);
        }
        match &self.dialplan {
            Some(text) => std::fs::write(folder.join("10-scene.toml"), text).unwrap(),
            None => {
                for name in ["incoming.toml", "internal.toml", "outgoing.toml"] {
                    std::fs::copy(shipped.join(name), folder.join(name)).unwrap();
                }
            }
        }
    }
}

/// A running Tandem.
#[derive(Debug)]
pub struct Tandem {
    /// Where the web listens.
    pub web: SocketAddr,
    /// Where SIP over UDP listens.
    pub sip: SocketAddr,
    /// For the scene's peers.
    pub ports: Block,
    folder: TempDir,
    process: Option<Kept>,
    files: Option<u32>,
    starts: u32,
}

impl Tandem {
    /// Writes the house down on free ports (`rtp` of them for the sound of trunks) and starts nothing.
    pub fn prepare(house: House, rtp: u16) -> Self {
        // Whoever is first installs it; the others find it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::Builder::new().prefix("tandem-scene-").tempdir().unwrap();
        house.write_dialplans(&folder.path().join("dialplans"));
        let own = Block::of(4 + rtp);
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (web, sip) = (local(own.at(0)), SocketAddr::new(house.sip_at, own.at(1)));
        let House { config, files, .. } = house
            .set("sip.udp", &format!("\"{sip}\""))
            .set("sip.tcp", "\"\"")
            .set("web.listen", &format!("\"{web}\""))
            .set("media.webrtc_port", &own.at(2).to_string())
            .set("media.workers", "1")
            .set("media.rtp_ports", &format!("\"{}\"", own.from(4)))
            .set("store.url", "\"sqlite:data/tandem.db\"");
        std::fs::write(folder.path().join("tandem.toml"), config.to_string()).unwrap();
        Self { web, sip, ports: Block::of(80), folder, process: None, files, starts: 0 }
    }

    /// The program, in its folder, with these arguments and its configuration.
    fn command(&self, words: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_tandem");
        let mut command = match self.files {
            None => Command::new(program),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), program]);
                shell
            }
        };
        command.args(words).args(["--config", "tandem.toml"]).current_dir(self.folder.path());
        command
    }

    /// Starts the process and waits until `/readyz` says yes.
    pub async fn up(&mut self) {
        self.launch();
        let client = super::desk::client();
        let url = format!("http://{}/readyz", self.web);
        until_within(START, "Tandem is ready", || async {
            let ready = client.get(&url).send().await;
            ready.ok().filter(|answer| answer.status().is_success()).map(drop)
        })
        .await;
    }

    /// Starts the process and does not wait.
    pub fn launch(&mut self) {
        self.starts += 1;
        let log = File::create(self.path(&format!("tandem-{}.log", self.starts))).unwrap();
        let mut command = self.command(&["run"]);
        command.stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        self.process = Some(Kept::spawn(&mut command));
    }

    /// Adds accounts, all of them with [`PASSWORD`], by the program's own command.
    pub fn users(&self, role: &str, names: &[&str]) {
        let serves: &[&str] = if role == "operator" { &["--queue", "orders"] } else { &[] };
        for name in names {
            self.user(&[&["user", "add", name, "--role", role], serves].concat());
        }
    }

    /// Adds operators who have ordinary SIP phones.
    pub fn sip_phones(&self, names: &[&str]) {
        for name in names {
            self.user(&["user", "add", name, "--role", "operator", "--queue", "orders", "--sip-phone"]);
        }
    }

    fn user(&self, words: &[&str]) {
        let mut command = self.command(&[words, &["--password-stdin"]].concat());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Logs a person in.
    pub async fn log_in(&self, name: &str) -> Desk {
        Desk::log_in(self.web, name, PASSWORD).await
    }

    /// A file in the house's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Tells the process something.
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    /// Whether the process lives.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Kept::is_running)
    }

    /// All that the process said since its last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path(&format!("tandem-{}.log", self.starts))).unwrap_or_default()
    }
}

impl Drop for Tandem {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(16_000);
            let tail = log.get(from..).or_else(|| log.get(from + 1..)).unwrap_or(&log);
            eprintln!("---- log of tandem (its end) ----\n{tail}\n---- end of log ----");
            if std::env::var_os("TANDEM_KEEP").is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("kept: {}", self.folder.path().display());
            }
        }
    }
}
