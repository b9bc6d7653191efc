//! The text of `tandem.toml` → [`Config`], or every mistake in it.

use std::path::{Path, PathBuf};

use crate::config::values::{self, Cidr, PortRange, SecretSource, now_or_later, time_zone};
use crate::config::{
    Config, ConfigError, CreateOn, Ha, HaMode, Limits, Log, LogFormat, Media, Node, Numbers, OrderCore,
    Orders, Recording, Redis, Sip, Store, Web, lines,
};
use crate::dialplan::numbers::is_prefix;
use crate::dialplan::parse::{Mistake, Page, Table, word};
use crate::dialplan::{Rule, normalise};
use crate::terms::{Number, Secret};

/// Bytes of the configuration file, and of a file that holds a secret.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Where mistakes are said to be when there is no file.
const NO_FILE: &str = "built-in defaults";
/// RFC 4028 section 5: a Min-SE lower than this is not allowed.
const LEAST_MIN_SE_MS: u64 = 90_000;

/// What a file says, and what looks wrong in it but works.
#[derive(Debug)]
pub struct Reading {
    /// What it says.
    pub config: Config,
    /// What looks wrong; `tandem check` shows it.
    pub warnings: Vec<ConfigError>,
}

impl Reading {
    /// The file at `path`, or the built-in defaults without one.
    ///
    /// # Errors
    /// Every mistake of the file, with its line; one without a line if it cannot be read.
    pub fn load(path: Option<&Path>) -> Result<Self, Vec<ConfigError>> {
        load(path)
    }
}

/// Fetches the secret that a source names; an error is in words.
pub(crate) type Vault<'v> = &'v dyn Fn(&SecretSource<'_>) -> Result<String, String>;

pub(crate) fn load(path: Option<&Path>) -> Result<Reading, Vec<ConfigError>> {
    let Some(path) = path else { return read(NO_FILE, "", &open_secret) };
    let file = path.display().to_string();
    match read_file(path) {
        Ok(text) => read(&file, &text, &open_secret),
        Err(text) => Err(vec![Mistake { file, line: 0, text }]),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let wrong = |why: std::io::Error| format!("cannot be read: {why}");
    if std::fs::metadata(path).map_err(wrong)?.len() > MAX_FILE_BYTES {
        return Err(format!("longer than {MAX_FILE_BYTES} bytes"));
    }
    std::fs::read_to_string(path).map_err(wrong)
}

fn open_secret(source: &SecretSource<'_>) -> Result<String, String> {
    match source {
        SecretSource::Text(text) => Ok((*text).to_owned()),
        SecretSource::Env(name) => {
            std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))
        }
        SecretSource::File(path) => read_file(Path::new(path))
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|why| format!("{path} {why}")),
    }
}

pub(crate) fn read(file: &str, text: &str, vault: Vault<'_>) -> Result<Reading, Vec<ConfigError>> {
    let page = Page::new(file, text);
    let tree = page.tree();
    let root = Table::new(&page, "", 0, Some(tree.get_ref()));
    let trunks = lines::trunks(&root, vault);
    let groups = lines::groups(&root, &trunks);
    let config = Config {
        node: node(root.table("node", "[node]")),
        sip: sip(root.table("sip", "[sip]")),
        web: web(root.table("web", "[web]")),
        media: media(root.table("media", "[media]")),
        store: store(root.table("store", "[store]"), vault),
        redis: redis(root.table("redis", "[redis]"), vault),
        orders: orders(root.table("orders", "[orders]"), vault),
        recording: recording(root.table("recording", "[recording]")),
        ha: ha(root.table("ha", "[ha]")),
        limits: limits(root.table("limits", "[limits]")),
        numbers: numbers(root.table("numbers", "[numbers]")),
        log: log(root.table("log", "[log]")),
        trunks,
        groups,
        queues: lines::queues(&root),
    };
    root.finish();
    drop(tree);
    let (mistakes, warnings) = page.found();
    if mistakes.is_empty() { Ok(Reading { config, warnings }) } else { Err(mistakes) }
}

fn own(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty".into()) } else { Ok(text.into()) }
}

fn maybe_path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| text.into()))
}

pub(crate) fn secret(
    table: &Table<'_>,
    key: &'static str,
    default: Secret<String>,
    vault: Vault<'_>,
) -> Secret<String> {
    table.text(key, default, |text| {
        SecretSource::parse(text).and_then(|source| vault(&source)).map(Secret::new)
    })
}

/// The line of a key, or of its table.
fn line(table: &Table<'_>, key: &'static str) -> usize {
    table.value(key).map_or(table.line(), |value| value.line)
}

fn node(table: Table<'_>) -> Node {
    let default = Node::default();
    let node = Node {
        name: table.text("name", default.name, values::name),
        data_dir: table.text("data_dir", default.data_dir, path),
        drain_ms: table.duration("drain", default.drain_ms),
        language: table.text("language", default.language, |text| word(text, &[("en", "en".to_owned())])),
        timezone: table.text("timezone", default.timezone, |text| match time_zone(text) {
            Some(_) => Ok(text.to_owned()),
            None => Err(format!("'{text}' is no time zone; write local or a name such as Europe/Kyiv")),
        }),
    };
    table.finish();
    node
}

fn sip(table: Table<'_>) -> Sip {
    let default = Sip::default();
    let sip = Sip {
        udp: table.text("udp", default.udp, values::listener),
        tcp: table.text("tcp", default.tcp, values::listener),
        domain: table.text("domain", default.domain, values::domain),
        public_address: table.text("public_address", default.public_address, values::address),
        session_expires_ms: table.duration("session_expires", default.session_expires_ms),
        min_se_ms: table.duration("min_se", default.min_se_ms),
        user_agent: table.text("user_agent", default.user_agent, |text| {
            let good = text.bytes().all(|letter| letter.is_ascii_graphic() || letter == b' ');
            if good && text.len() <= 100 { own(text) } else { Err("use printable ASCII, at most 100".into()) }
        }),
        digest: super::lines::digests(&table, default.digest),
    };
    if sip.digest.is_empty() {
        table.page().wrong(line(&table, "digest"), "digest is empty: name SHA-256, MD5 or both");
    }
    let tls = table.text("tls", None, values::listener);
    if tls.is_some() {
        table.page().wrong(line(&table, "tls"), "SIP over TLS comes with a later release: leave tls empty");
    }
    if sip.tcp.is_some() {
        let text = "SIP over TCP comes with a later release: UDP and WebSocket are served";
        table.page().warn(line(&table, "tcp"), text);
    }
    if sip.min_se_ms < LEAST_MIN_SE_MS {
        table.page().wrong(line(&table, "min_se"), "min_se is at least 90s (RFC 4028 section 5)");
    }
    if sip.session_expires_ms < sip.min_se_ms {
        table.page().wrong(line(&table, "session_expires"), "session_expires is shorter than min_se");
    }
    table.finish();
    sip
}

fn web(table: Table<'_>) -> Web {
    let default = Web::default();
    let web = Web {
        listen: table.text("listen", default.listen, values::socket),
        tls_cert: table.text("tls_cert", default.tls_cert, maybe_path),
        tls_key: table.text("tls_key", default.tls_key, maybe_path),
        allowed_origins: table.texts("allowed_origins", default.allowed_origins, values::origin),
        trusted_proxies: table.texts("trusted_proxies", default.trusted_proxies, Cidr::parse),
    };
    if web.tls_cert.is_some() != web.tls_key.is_some() {
        table.page().wrong(table.line(), "tls_cert and tls_key belong together");
    }
    if web.tls_cert.is_none() && !web.listen.ip().is_loopback() && web.trusted_proxies.is_empty() {
        let text = "browsers give a microphone only to https or 127.0.0.1: set tls_cert and tls_key";
        table.page().warn(line(&table, "listen"), text);
    }
    table.finish();
    web
}

fn media(table: Table<'_>) -> Media {
    let default = Media::default();
    let media = Media {
        rtp_ports: table.text("rtp_ports", default.rtp_ports, PortRange::parse),
        webrtc_port: table.whole("webrtc_port", default.webrtc_port, 1_024..=65_535),
        dscp: table.whole("dscp", default.dscp, 0..=63),
        address: table.text("address", default.address, values::address),
        workers: table.whole("workers", default.workers, 0..=64),
        silence_alarm_ms: table.duration("silence_alarm", default.silence_alarm_ms),
        dead_after_ms: table.duration("dead_after", default.dead_after_ms),
    };
    let ptimes = [("20ms", Some(())), ("10ms", None), ("30ms", None), ("40ms", None), ("60ms", None)];
    table.maybe("ptime", |text| now_or_later(text, &ptimes));
    let webrtc_last = usize::from(media.webrtc_port) + media.workers.max(1) - 1;
    if webrtc_last > usize::from(u16::MAX) {
        table
            .page()
            .wrong(line(&table, "webrtc_port"), "there are not so many ports after webrtc_port as workers");
    }
    let ports = media.rtp_ports;
    if usize::from(ports.first) <= webrtc_last && media.webrtc_port <= ports.last {
        table.page().wrong(line(&table, "webrtc_port"), "webrtc_port lies inside rtp_ports");
    }
    table.finish();
    media
}

fn store(table: Table<'_>, vault: Vault<'_>) -> Store {
    let url = secret(&table, "url", Store::default().url, vault);
    if url.expose().strip_prefix("sqlite:").is_none_or(str::is_empty) {
        let text = "this release keeps its store in SQLite: write url = \"sqlite:PATH\"";
        table.page().wrong(line(&table, "url"), text);
    }
    let read_url = secret(&table, "read_url", Secret::new(String::new()), vault);
    if !read_url.expose().is_empty() {
        table.page().wrong(line(&table, "read_url"), "read_url comes with a later release: leave it empty");
    }
    table.finish();
    Store { url }
}

fn redis(table: Table<'_>, vault: Vault<'_>) -> Redis {
    let url = secret(&table, "url", Redis::default().url, vault);
    if !url.expose().is_empty() {
        table.page().wrong(line(&table, "url"), "Redis comes with a later release: leave url empty");
    }
    table.finish();
    Redis { url }
}

fn orders(table: Table<'_>, vault: Vault<'_>) -> Orders {
    let default = Orders::default();
    let moments = [("submit", Some(CreateOn::Submit)), ("answered", None), ("arrived", None)];
    let orders = Orders {
        core: order_core(&table),
        token: secret(&table, "token", default.token, vault),
        create_on: table.text("create_on", default.create_on, |text| now_or_later(text, &moments)),
        timeout_ms: table.duration("timeout", default.timeout_ms),
    };
    if orders.timeout_ms == 0 {
        table.page().wrong(line(&table, "timeout"), "timeout is longer than 0");
    }
    if orders.core != OrderCore::Embedded && orders.token.expose().is_empty() {
        table.page().warn(table.line(), "the order core is asked without a token: set token");
    }
    table.finish();
    orders
}

fn order_core(table: &Table<'_>) -> OrderCore {
    let core = table.texts("core", vec!["embedded".to_owned()], |text| {
        if text == "embedded" { own(text) } else { values::base_address(text) }
    });
    let embedded = core.iter().any(|address| address == "embedded");
    if core.is_empty() || (embedded && core.len() > 1) {
        table.page().wrong(line(table, "core"), "core is [\"embedded\"] or a list of http(s) addresses");
    }
    if embedded || core.is_empty() { OrderCore::Embedded } else { OrderCore::At(core) }
}

fn recording(table: Table<'_>) -> Recording {
    let default = Recording::default();
    let recording = Recording {
        enabled: table.flag("enabled", default.enabled),
        path: table.text("path", default.path, path),
        keep_ms: table.duration("keep", default.keep_ms),
    };
    if recording.enabled {
        let text = "recording comes with a later release: calls are not recorded yet";
        table.page().warn(line(&table, "enabled"), text);
    }
    table.finish();
    recording
}

/// The keys of a pair are known, so that a file written for a later release reads here; only `mode` decides.
fn ha(table: Table<'_>) -> Ha {
    let mode = table.text("mode", HaMode::Single, |text| {
        now_or_later(text, &[("single", Some(HaMode::Single)), ("pair", None)])
    });
    for key in ["listen", "peer", "cert", "key", "ca", "peer_fingerprint", "address", "interface"] {
        table.maybe(key, own);
    }
    table.maybe("witness", |text| word(text, &[("redis", ()), ("store", ()), ("none", ())]));
    table.maybe("mover", |text| word(text, &[("builtin", ()), ("keepalived", ()), ("none", ())]));
    table.finish();
    Ha { mode }
}

fn limits(table: Table<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        calls: table.whole("calls", default.calls, 1..=10_000),
        calls_per_second: table.whole("calls_per_second", default.calls_per_second, 1..=10_000),
        registrations_per_source: table.whole(
            "registrations_per_source",
            default.registrations_per_source,
            1..=10_000,
        ),
        failed_logins: table.whole("failed_logins", default.failed_logins, 1..=1_000),
        ban_ms: table.duration("ban", default.ban_ms),
        never_ban: table.texts("never_ban", default.never_ban, Cidr::parse),
        destinations: table.texts("destinations", default.destinations, prefix),
        operator_calls_per_minute: table.whole(
            "operator_calls_per_minute",
            default.operator_calls_per_minute,
            1..=1_000,
        ),
        emergency: table.texts("emergency", default.emergency, number),
        call_duration_ms: table.duration("call_duration", default.call_duration_ms),
    };
    if limits.call_duration_ms == 0 {
        table.page().wrong(line(&table, "call_duration"), "call_duration is longer than 0");
    }
    if limits.destinations.is_empty() {
        let text =
            "any number may be dialled: list the prefixes that you need in destinations, e.g. [\"+380\"]";
        table.page().warn(line(&table, "destinations"), text);
    }
    table.finish();
    limits
}

fn numbers(table: Table<'_>) -> Numbers {
    let rules = rules(&table, "rules", Vec::new());
    table.finish();
    Numbers { rules }
}

/// A list of `{ strip, add }`.
pub(crate) fn rules(table: &Table<'_>, key: &'static str, default: Vec<Rule>) -> Vec<Rule> {
    if table.value(key).is_none() {
        return default;
    }
    let rule = |table: Table<'_>| {
        let rule = Rule {
            strip: table.text("strip", String::new(), prefix),
            add: table.text("add", String::new(), prefix),
        };
        table.finish();
        rule
    };
    table.tables(key, "{ strip = \"…\", add = \"…\" }").into_iter().map(rule).collect()
}

fn prefix(text: &str) -> Result<String, String> {
    if is_prefix(text) { own(text) } else { Err(format!("'{text}' is no beginning of a number")) }
}

pub(crate) fn number(text: &str) -> Result<Number, String> {
    normalise(text, &[]).map_err(|why| format!("'{text}': {why}"))
}

fn log(table: Table<'_>) -> Log {
    let default = Log::default();
    let log = Log {
        format: table.text("format", default.format, |text| {
            word(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
        }),
        level: table.text("level", default.level, |text| {
            if text.is_empty() { Err("is empty".into()) } else { own(text) }
        }),
        events: table.text("events", default.events, maybe_path),
        replays: table.whole("replays", default.replays, 0..=10_000),
    };
    table.finish();
    log
}
