//! What the administrator decided: one TOML file, every key with a default.
//!
//! Tandem runs without a file. Keys that do not exist are refused with file and line, so that a slip
//! of the pen never becomes a silent default; every mistake of a file is reported, not only the first.
//! Invariant: a [`Config`] that exists is one that this build can honour.

mod lines;
mod read;
mod trunk;
mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::acd::QueueConfig;
use crate::dialplan::{Mistake, Rule, Ways};
use crate::terms::{Number, Secret};

pub use read::Reading;
pub use trunk::{AnswerWhen, CallerHeader, Codec, DigestHash, Dtmf, Profile, Transport, Trunk, TrunkKind};
pub use values::{Cidr, PortRange};

/// A mistake in the configuration file, with its line.
pub type ConfigError = Mistake;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[sip]`
    pub sip: Sip,
    /// `[web]`
    pub web: Web,
    /// `[media]`
    pub media: Media,
    /// `[store]`
    pub store: Store,
    /// `[redis]`
    pub redis: Redis,
    /// `[orders]`
    pub orders: Orders,
    /// `[recording]`
    pub recording: Recording,
    /// `[ha]`
    pub ha: Ha,
    /// `[limits]`
    pub limits: Limits,
    /// `[numbers]`
    pub numbers: Numbers,
    /// `[log]`
    pub log: Log,
    /// `[[trunk]]`, in the order of the file; names are unique.
    pub trunks: Vec<Trunk>,
    /// `[[group]]`, in the order of the file; names are unique and no trunk's.
    pub groups: Vec<Ways>,
    /// `[[queue]]`, in the order of the file; names are unique. One queue `orders` if none is configured.
    pub queues: Vec<QueueConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: Node::default(),
            sip: Sip::default(),
            web: Web::default(),
            media: Media::default(),
            store: Store::default(),
            redis: Redis::default(),
            orders: Orders::default(),
            recording: Recording::default(),
            ha: Ha::default(),
            limits: Limits::default(),
            numbers: Numbers::default(),
            log: Log::default(),
            trunks: Vec::new(),
            groups: Vec::new(),
            queues: vec![QueueConfig::default()],
        }
    }
}

impl Config {
    /// The file at `path`, or the built-in defaults without one.
    ///
    /// # Errors
    /// Every mistake of the file, with its line; one without a line if it cannot be read.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<ConfigError>> {
        read::load(path).map(|reading| reading.config)
    }

    /// The rules for numbers as this trunk writes them, callers and our own lines: its own first, then
    /// everybody's.
    pub fn caller_rules(&self, trunk: &Trunk) -> Vec<Rule> {
        trunk.number_rules.iter().chain(&self.numbers.rules).cloned().collect()
    }
}

/// `[node]`
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Shown wherever nodes are listed.
    pub name: String,
    /// Everything Tandem writes, but what has its own path.
    pub data_dir: PathBuf,
    /// How long a stopping node waits for its calls.
    pub drain_ms: u64,
    /// Of prompts and screens: `en`.
    pub language: String,
    /// `local` or an IANA name; already known to exist.
    pub timezone: String,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "tandem-1".into(),
            data_dir: "data".into(),
            drain_ms: 60_000,
            language: "en".into(),
            timezone: "local".into(),
        }
    }
}

impl Node {
    /// The time zone of opening hours, "today" and reports.
    pub fn time_zone(&self) -> jiff::tz::TimeZone {
        values::time_zone(&self.timezone).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

/// `[sip]`
#[derive(Debug, Clone, PartialEq)]
pub struct Sip {
    /// Where UDP is served; `None` is off.
    pub udp: Option<SocketAddr>,
    /// Where TCP is to be served; not served yet.
    pub tcp: Option<SocketAddr>,
    /// Realm and host of our addresses of record.
    pub domain: String,
    /// What we write into Via and Contact; `None` is the address the packet came in on.
    pub public_address: Option<IpAddr>,
    /// Session-Expires that we ask for (RFC 4028).
    pub session_expires_ms: u64,
    /// Min-SE that we accept (RFC 4028), never under 90 s.
    pub min_se_ms: u64,
    /// User-Agent and Server.
    pub user_agent: String,
    /// Challenges to SIP phones and to whoever is no trunk, strongest first.
    pub digest: Vec<DigestHash>,
}

impl Default for Sip {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5060));
        Self {
            udp: Some(any),
            tcp: Some(any),
            domain: "tandem.local".into(),
            public_address: None,
            session_expires_ms: 30 * 60_000,
            min_se_ms: 90_000,
            user_agent: "Tandem".into(),
            digest: vec![DigestHash::Sha256, DigestHash::Md5],
        }
    }
}

/// `[web]`
#[derive(Debug, Clone, PartialEq)]
pub struct Web {
    /// UI at `/`, API at `/api/v1`, SIP over WebSocket at `/sip`.
    pub listen: SocketAddr,
    /// PEM chain; with `tls_key` the web is https.
    pub tls_cert: Option<PathBuf>,
    /// PEM key.
    pub tls_key: Option<PathBuf>,
    /// Origins besides our own that may open sockets and call the API.
    pub allowed_origins: Vec<String>,
    /// Proxies whose forwarding headers count.
    pub trusted_proxies: Vec<Cidr>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            tls_cert: None,
            tls_key: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// `[media]`
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// Ports of trunk legs: even for RTP, the next for RTCP.
    pub rtp_ports: PortRange,
    /// First of `workers` consecutive ports for browsers.
    pub webrtc_port: u16,
    /// DSCP of what we send, 0…63.
    pub dscp: u8,
    /// What we write into SDP; `None` is the address that signalling came in on.
    pub address: Option<IpAddr>,
    /// Media threads; 0 is one less than the machine has cores, at least one.
    pub workers: usize,
    /// A direction without packets for so long raises `media.silent`.
    pub silence_alarm_ms: u64,
    /// A call without packets in any direction for so long is ended.
    pub dead_after_ms: u64,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            rtp_ports: PortRange { first: 20_000, last: 29_999 },
            webrtc_port: 10_000,
            dscp: 46,
            address: None,
            workers: 0,
            silence_alarm_ms: 2_000,
            dead_after_ms: 60_000,
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// `sqlite:PATH`. A secret, because other stores carry a password in it.
    pub url: Secret<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: Secret::new("sqlite:data/tandem.db".into()) }
    }
}

/// `[redis]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redis {
    /// Empty: no Redis.
    pub url: Secret<String>,
}

/// `[orders]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// Where orders go.
    pub core: OrderCore,
    /// Bearer token in both directions; empty: the embedded core answers in-process only.
    pub token: Secret<String>,
    /// When an order is created.
    pub create_on: CreateOn,
    /// How long one request to the core may take.
    pub timeout_ms: u64,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            core: OrderCore::Embedded,
            token: Secret::new(String::new()),
            create_on: CreateOn::Submit,
            timeout_ms: 3_000,
        }
    }
}

/// Who keeps the orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderCore {
    /// Tandem itself, on its own store.
    Embedded,
    /// Base addresses (`http://…`, `https://…`) without a slash at the end, tried by health; never empty.
    At(Vec<String>),
}

/// When an order is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOn {
    /// When the operator submits the card.
    Submit,
}

/// `[recording]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Whether calls are recorded.
    pub enabled: bool,
    /// Where recordings are written.
    pub path: PathBuf,
    /// How long they are kept.
    pub keep_ms: u64,
}

impl Default for Recording {
    fn default() -> Self {
        Self { enabled: true, path: "data/recordings".into(), keep_ms: 90 * 24 * 3_600_000 }
    }
}

/// `[ha]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ha {
    /// Alone or one of a pair.
    pub mode: HaMode,
}

impl Default for Ha {
    fn default() -> Self {
        Self { mode: HaMode::Single }
    }
}

/// Alone or one of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaMode {
    /// No standby.
    Single,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Calls at one time.
    pub calls: u32,
    /// New calls in a second.
    pub calls_per_second: u32,
    /// Bindings from one source address.
    pub registrations_per_source: u32,
    /// Failed log-ins before a ban.
    pub failed_logins: u32,
    /// How long a ban lasts.
    pub ban_ms: u64,
    /// Addresses that are never banned.
    pub never_ban: Vec<Cidr>,
    /// Prefixes that may be dialled; empty: any.
    pub destinations: Vec<String>,
    /// Calls that one operator may dial in a minute.
    pub operator_calls_per_minute: u32,
    /// Numbers that pass every guard.
    pub emergency: Vec<Number>,
    /// No call is longer.
    pub call_duration_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 1_000,
            calls_per_second: 100,
            registrations_per_source: 20,
            failed_logins: 5,
            ban_ms: 15 * 60_000,
            never_ban: Vec::new(),
            destinations: Vec::new(),
            operator_calls_per_minute: 20,
            emergency: ["101", "102", "103", "112"].map(Number::new).to_vec(),
            call_duration_ms: 4 * 3_600_000,
        }
    }
}

impl Limits {
    /// Whether an operator may dial `number`: emergency numbers always, others by their prefix.
    pub fn allow(&self, number: &Number) -> bool {
        let digits = number.reveal();
        self.emergency.contains(number)
            || self.destinations.is_empty()
            || self.destinations.iter().any(|prefix| digits.starts_with(prefix.as_str()))
    }
}

/// `[numbers]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    /// What people type → E.164; the first rule that fits is taken.
    pub rules: Vec<Rule>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// For people or for programs.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, or a `tracing` filter such as `info,tandem::sip=debug`.
    pub level: String,
    /// Where `events.csv` is written; `None` is off.
    pub events: Option<PathBuf>,
    /// Files in `data_dir/replays`: inputs that made the engine fail; 0 keeps none.
    pub replays: usize,
}

impl Default for Log {
    fn default() -> Self {
        let events = Some("data/events.csv".into());
        Self { format: LogFormat::Text, level: "info".into(), events, replays: 20 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
