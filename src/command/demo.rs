//! `tandem demo`: a dispatch centre on this machine, with a simulated GSM gateway that registers over
//! real SIP and places calls with real sound, so that a newcomer hears a call within a minute.
//!
//! Invariant: it touches nothing but a folder of its own, which goes with it, and loopback addresses.

mod check;
mod desk;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::command::check::DIALPLANS;
use crate::command::node::{Node, Start};
use crate::config::{Config, PortRange, Trunk};
use crate::edge::clock;
use crate::edge::store::{Account, Role};
use crate::fact::OperatorState;
use crate::sdp::negotiate::Codec;
use crate::terms::{Number, OperatorName, Secret};
use crate::ua::gateway;
use crate::ua::phone::{Answer, Phone, PhoneConfig, Report, Reports};
use crate::ua::speech::Speak;

pub use check::check;

/// Where a newcomer finds the desk.
const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// The gateway's digest user.
const GATEWAY: &str = "gsm-demo";
/// The line that its callers dial.
const LINE: &str = "+380441234567";
/// Who calls, with the name that the order core knows.
const CALLERS: [(&str, &str); 4] = [
    ("+380671112233", "Olena Kovalenko"),
    ("+380502223344", "Ivan Bondar"),
    ("+380933334455", "Maria Shevchenko"),
    ("+380684445566", ""),
];
/// By this tone in his voice the caller is known.
pub(crate) const CALLER_HZ: f64 = 700.0;
/// Between the looks at whether somebody could take a call.
const LOOK: Duration = Duration::from_secs(1);
/// Between two calls of the gateway.
const PAUSE: Duration = Duration::from_secs(10);
/// A caller whom nobody ends hangs up himself, milliseconds.
const CALLER_PATIENCE_MS: u64 = 180_000;

/// A running demonstration.
pub(crate) struct Demo {
    pub(crate) node: Node,
    pub(crate) folder: Folder,
    pub(crate) gateway: Phone,
    pub(crate) reports: Reports,
    pub(crate) password: Secret<String>,
}

/// A folder that goes with the demonstration.
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let name = format!("tandem-demo-{}-{}", std::process::id(), clock::mono_us());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{} stays behind: {why}", self.0.display());
        }
    }
}

impl Demo {
    /// Starts everything; port 0 takes a free one.
    pub(crate) async fn start(web: SocketAddr) -> Result<Self> {
        let folder = Folder::make()?;
        let password = random_words()?;
        let config = configuration(folder.path(), web, &password);
        let start = Start { config, file: None, dialplans: DIALPLANS.into() };
        let node = Node::start(start).await?;
        add_people(&node, &password).await?;
        let sip = node.sip.ok_or_else(|| anyhow!("the demonstration has no SIP over UDP"))?;
        let (gateway, mut reports) = gateway::start(gateway_config(&password)?, sip).await?;
        let registered = reports.wait_for(10_000, |report| matches!(report, Report::Registered { .. })).await;
        registered.context("the simulated gateway did not get registered within 10 s")?;
        Ok(Self { node, folder, gateway, reports, password })
    }

    pub(crate) async fn stop(self) {
        self.gateway.stop().await;
        self.node.stop().await;
    }
}

/// `tandem demo`, until Ctrl-C; `say` shows a line to the person.
///
/// # Errors
/// In words, when it cannot be started.
pub async fn run(say: impl Fn(&str) -> Result<()>) -> Result<()> {
    let demo = Demo::start(WEB).await.context("the demonstration could not be started")?;
    say(&format!("Tandem demonstrates itself at http://{}", demo.node.web))?;
    say("")?;
    for (name, role) in PEOPLE {
        say(&format!("  {:10} user {name:6} password {}", role.as_str(), demo.password.expose()))?;
    }
    say("")?;
    say("Log in as an operator, press Start shift and allow the microphone: a simulated gateway calls you.")?;
    say("Dial any number to hear the simulated carrier ring before it answers. Ctrl-C ends everything.")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let Demo { node, folder, gateway, reports, .. } = demo;
    tokio::select! {
        () = keep_calling(&node, &gateway, reports) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    gateway.stop().await;
    node.stop().await;
    drop(folder);
    Ok(())
}

/// Whenever an operator is free and nobody calls, somebody calls.
async fn keep_calling(node: &Node, gateway: &Phone, mut reports: Reports) {
    for (number, _) in CALLERS.iter().cycle() {
        while !somebody_is_free(node) {
            tokio::time::sleep(LOOK).await;
        }
        let Some(call) = gateway.call(LINE, Some(number), &[]).await else { return };
        let over = |report: &Report| {
            let of = if let Report::Failed { call, .. } | Report::Ended { call, .. } = report {
                Some(*call)
            } else {
                None
            };
            of == Some(call)
        };
        if reports.wait_for(CALLER_PATIENCE_MS, over).await.is_none() {
            gateway.hang_up(call).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn somebody_is_free(node: &Node) -> bool {
    let operators = node.handle.board().operators(clock::wall_ms());
    operators.iter().any(|operator| operator.state == OperatorState::Available)
}

/// Who may log in.
const PEOPLE: [(&str, Role); 3] =
    [("anna", Role::Operator), ("boris", Role::Operator), ("vera", Role::Supervisor)];

async fn add_people(node: &Node, password: &Secret<String>) -> Result<()> {
    let store = node.handle.store();
    for (name, role) in PEOPLE {
        let account = Account {
            name: OperatorName::from(name),
            role,
            queues: vec!["orders".into()],
            skills: Vec::new(),
            disabled: false,
        };
        store.add_account(&account, password.clone()).await?;
    }
    for (number, name) in CALLERS {
        store.core_set_customer(number, name, false).await?;
    }
    Ok(())
}

/// A dispatch centre that listens on loopback only.
fn configuration(folder: &Path, web: SocketAddr, password: &Secret<String>) -> Config {
    let mut config = Config::default();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    config.node.name = "demo".to_owned();
    config.node.data_dir = folder.to_owned();
    config.sip.udp = Some(SocketAddr::new(loopback, 0));
    config.sip.tcp = None;
    config.sip.domain = "demo.tandem.local".to_owned();
    config.web.listen = web;
    config.media.rtp_ports = PortRange { first: 20_000, last: 20_999 };
    config.media.webrtc_port = 0;
    config.media.workers = 1;
    config.store.url = Secret::new(format!("sqlite:{}", folder.join("tandem.db").display()));
    config.recording.enabled = false;
    config.limits.calls = 100;
    config.log.events = Some(folder.join("events.csv"));
    let mut trunk = Trunk::named(GATEWAY);
    trunk.password = password.clone();
    trunk.numbers = vec![Number::new(LINE)];
    config.trunks = vec![trunk];
    config
}

/// The gateway: it rings with sound, answers after four seconds, and its callers talk.
fn gateway_config(password: &Secret<String>) -> Result<PhoneConfig> {
    Ok(PhoneConfig {
        user: GATEWAY.to_owned(),
        password: password.clone(),
        domain: "demo.tandem.local".to_owned(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        talk: Speak::Talk(CALLER_HZ),
        answer: Answer::After { ring_ms: 4_000, early_media: true },
        expires_s: 300,
        digest: None,
        report_windows: true,
        seed: random()?,
        clock: Arc::new(clock::mono_ms),
    })
}

/// Entropy from the operating system.
pub(crate) fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|why| anyhow!("the operating system gives no randomness: {why}"))?;
    Ok(bytes)
}

/// A password that a person can type.
fn random_words() -> Result<Secret<String>> {
    let bytes = random()?;
    Ok(Secret::new(hex::encode(bytes.get(..5).unwrap_or_default())))
}
