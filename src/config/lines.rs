//! `[[trunk]]` and `[[queue]]`: what there may be several of.

use std::collections::BTreeSet;

use crate::acd::{NoAnswer, QueueConfig, Strategy};
use crate::config::read::{Vault, number, rules, secret};
use crate::config::values::{self, Cidr, now_or_later};
use crate::config::{
    AnswerWhen, CallerHeader, Codec, DigestHash, Dtmf, Profile, Transport, Trunk, TrunkKind,
};
use crate::dialplan::parse::{Table, did_you_mean, word};
use crate::dialplan::pattern::name_fits;
use crate::dialplan::{Choose, Ways};
use crate::terms::TrunkName;

/// Trunks, and queues, of one configuration.
const MAX_LINES: usize = 500;
/// Calls on one trunk.
const MAX_CHANNELS: i64 = 10_000;

pub(crate) fn trunks(root: &Table<'_>, vault: Vault<'_>) -> Vec<Trunk> {
    let tables = root.tables("trunk", "[[trunk]]");
    let mut names = Unique::new("trunks");
    let mut users = Unique::new("gateways with the username");
    let mut trunks = Vec::new();
    for table in tables {
        let (page, line) = (table.page(), table.line());
        let Some(trunk) = trunk(table, vault) else { continue };
        let registers = trunk.kind == TrunkKind::Gateway;
        let clash =
            names.clash(trunk.name.as_str()).or_else(|| registers.then(|| users.clash(&trunk.username))?);
        match clash {
            Some(text) => page.wrong(line, text),
            None => trunks.push(trunk),
        }
    }
    trunks
}

pub(crate) fn groups(root: &Table<'_>, trunks: &[Trunk]) -> Vec<Ways> {
    let mut names = Unique::new("groups");
    let mut groups = Vec::new();
    for table in root.tables("group", "[[group]]") {
        let (page, line) = (table.page(), table.line());
        let Some(group) = group(table, trunks) else { continue };
        match names.clash(&group.name) {
            Some(text) => page.wrong(line, text),
            None => groups.push(group),
        }
    }
    groups
}

fn group(table: Table<'_>, trunks: &[Trunk]) -> Option<Ways> {
    let name = name(&table)?;
    let table = table.titled(format!("[[group]] {name}"));
    let names = || trunks.iter().map(|trunk| trunk.name.as_str());
    let wrong = |text: String| table.page().wrong(table.line(), format!("{name}: {text}"));
    if names().any(|trunk| trunk == name) {
        wrong("a trunk has this name".to_owned());
    }
    let entries = table.texts("trunks", Vec::new(), |pattern| {
        let found: Vec<TrunkName> = trunks
            .iter()
            .map(|trunk| &trunk.name)
            .filter(|one| name_fits(pattern, one.as_str()))
            .cloned()
            .collect();
        if found.is_empty() {
            return Err(format!("unknown trunk '{pattern}'{}", did_you_mean(pattern, names())));
        }
        Ok(found)
    });
    if table.value("trunks").is_none_or(|value| value.value.as_array().is_some_and(|list| list.is_empty())) {
        wrong("a group needs trunks = [\"gsm-1\", \"gsm-*\"]".to_owned());
    }
    let choices = [Choose::Order, Choose::Share, Choose::LeastUsed].map(|choose| (choose.word(), choose));
    let choose = table.text("choose", Choose::Order, |text| word(text, &choices));
    let shares = table.texts("shares", Vec::new(), percent);
    if !shares.is_empty() && choose != Choose::Share {
        wrong("shares go with choose = \"share\"".to_owned());
    } else if !shares.is_empty() && shares.len() != entries.len() {
        wrong("give one share for each entry of trunks".to_owned());
    } else if !shares.is_empty() && shares.iter().sum::<u32>() != 100 {
        wrong("the shares make 100 % together".to_owned());
    }
    table.finish();
    Some(spread(name, &entries, choose, &shares))
}

/// Each trunk once, where it stands first; an entry's share is parted between its trunks.
fn spread(name: String, entries: &[Vec<TrunkName>], choose: Choose, shares: &[u32]) -> Ways {
    let mut ways = Ways { name, trunks: Vec::new(), choose, shares: Vec::new() };
    for (entry, trunks) in entries.iter().enumerate() {
        let fresh: Vec<&TrunkName> = trunks.iter().filter(|trunk| !ways.trunks.contains(trunk)).collect();
        let parts = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
        let share = shares.get(entry).map_or(1, |share| (share / parts).max(1));
        let fresh: Vec<TrunkName> = fresh.into_iter().cloned().collect();
        if choose == Choose::Share {
            ways.shares.extend(fresh.iter().map(|_| share));
        }
        ways.trunks.extend(fresh);
    }
    if shares.is_empty() && choose == Choose::Share {
        let parts = u32::try_from(ways.trunks.len()).unwrap_or(u32::MAX).max(1);
        ways.shares = ways.trunks.iter().map(|_| (100 / parts).max(1)).collect();
    }
    ways
}

/// `30%`.
fn percent(text: &str) -> Result<u32, String> {
    let share = text.strip_suffix('%').and_then(|number| number.trim().parse::<u32>().ok());
    share
        .filter(|share| (1..=100).contains(share))
        .ok_or_else(|| format!("'{text}' is no share; write \"1%\" to \"100%\""))
}

pub(crate) fn queues(root: &Table<'_>) -> Vec<QueueConfig> {
    if root.value("queue").is_none() {
        return vec![QueueConfig::default()];
    }
    let mut names = Unique::new("queues");
    let mut queues = Vec::new();
    for table in root.tables("queue", "[[queue]]") {
        let (page, line) = (table.page(), table.line());
        let Some(queue) = queue(table) else { continue };
        match names.clash(queue.name.as_str()) {
            Some(text) => page.wrong(line, text),
            None => queues.push(queue),
        }
    }
    queues
}

/// Names that may be given once, and not too many of them.
struct Unique {
    what: &'static str,
    seen: BTreeSet<String>,
}

impl Unique {
    fn new(what: &'static str) -> Self {
        Self { what, seen: BTreeSet::new() }
    }

    /// Why `name` cannot be used, in words.
    fn clash(&mut self, name: &str) -> Option<String> {
        if !self.seen.insert(name.to_owned()) {
            return Some(format!("two {} '{name}'", self.what));
        }
        (self.seen.len() > MAX_LINES).then(|| format!("more than {MAX_LINES} {}", self.what))
    }
}

/// The name, without which nothing else is worth reading.
fn name(table: &Table<'_>) -> Option<String> {
    if table.value("name").is_none() {
        table.page().wrong(table.line(), "name is missing: name = \"…\"");
    }
    table.maybe("name", values::name)
}

fn trunk(table: Table<'_>, vault: Vault<'_>) -> Option<Trunk> {
    let name = name(&table)?;
    let table = table.titled(format!("[[trunk]] {name}"));
    let default = Trunk::named(name);
    let kinds = [TrunkKind::Gateway, TrunkKind::Peer, TrunkKind::Provider].map(|kind| (kind.word(), kind));
    let kind = table.text("kind", default.kind, |text| word(text, &kinds));
    let profile = table.text("profile", default.profile, |text| word(text, &PROFILES));
    let trunk = Trunk {
        username: table.text("username", default.username, user),
        name: default.name,
        kind,
        password: secret(&table, "password", default.password, vault),
        servers: servers(&table),
        domain: table.text("domain", default.domain, |text| {
            if text.is_empty() { Ok(String::new()) } else { values::domain(text) }
        }),
        realm: table.text("realm", default.realm, realm),
        expires_ms: table.duration("expires", default.expires_ms),
        health_every_ms: table.duration("health_every", default.health_every_ms),
        health_timeout_ms: table.duration("health_timeout", default.health_timeout_ms),
        accept_from: table.texts("accept_from", default.accept_from, Cidr::parse),
        transport: table.text("transport", default.transport, |text| now_or_later(text, &TRANSPORTS)),
        channels: table.whole("channels", default.channels, 1..=MAX_CHANNELS),
        numbers: table.texts("numbers", default.numbers, number),
        caller_from: table.texts("caller_from", profile.caller_from(), |text| word(text, &HEADERS)),
        number_rules: rules(&table, "number_rules", default.number_rules),
        dial_rules: rules(&table, "dial_rules", default.dial_rules),
        digest: digests(&table, default.digest),
        codecs: table.texts("codecs", default.codecs, |text| word(text, &CODECS)),
        dtmf: table.text("dtmf", default.dtmf, |text| now_or_later(text, &DTMF)),
        answer: table.text("answer", default.answer, |text| now_or_later(text, &ANSWERS)),
        prack: table.flag("prack", default.prack),
        redirects: table.flag("redirects", default.redirects),
        profile,
    };
    needs(&table, &trunk);
    table.finish();
    Some(trunk)
}

/// `digest` of a table.
pub(super) fn digests(table: &Table<'_>, default: Vec<DigestHash>) -> Vec<DigestHash> {
    table.texts("digest", default, |text| word(text, &DIGESTS))
}

/// What a trunk of this kind cannot do without.
fn needs(table: &Table<'_>, trunk: &Trunk) {
    let wrong = |bad: bool, text: &str| {
        if bad {
            table.page().wrong(table.line(), format!("{}: {text}", trunk.name));
        }
    };
    match trunk.kind {
        TrunkKind::Gateway => {
            wrong(trunk.password.expose().is_empty(), "a gateway needs a password");
        }
        TrunkKind::Peer => {
            wrong(trunk.servers.is_empty(), "a peer needs server, where its calls are sent");
            wrong(trunk.servers.len() > 1, "a peer has one server; write a trunk for each, and a group");
            wrong(trunk.accept_from.is_empty(), "a peer needs accept_from, where its calls come from");
        }
        TrunkKind::Provider => {
            wrong(trunk.servers.is_empty(), "a provider needs server, where we register");
            wrong(trunk.servers.len() > MAX_SERVERS, "a provider has at most 8 servers");
            wrong(trunk.password.expose().is_empty(), "a provider needs a password");
        }
    }
    let brief = |ms: u64, least_ms: u64| ms < least_ms;
    wrong(brief(trunk.expires_ms, 60_000), "expires is at least 1m");
    wrong(brief(trunk.health_timeout_ms, 1_000), "health_timeout is at least 1s");
    wrong(
        trunk.health_every_ms > 0 && brief(trunk.health_every_ms, 5_000),
        "health_every is at least 5s, or 0s for never",
    );
    wrong(trunk.caller_from.is_empty(), "caller_from is empty");
    wrong(trunk.digest.is_empty(), "digest is empty");
    wrong(trunk.codecs.is_empty(), "codecs is empty");
}

const TRANSPORTS: [(&str, Option<Transport>); 3] =
    [("udp", Some(Transport::Udp)), ("tcp", None), ("tls", None)];
const HEADERS: [(&str, CallerHeader); 5] = [
    ("P-Asserted-Identity", CallerHeader::PAssertedIdentity),
    ("P-Preferred-Identity", CallerHeader::PPreferredIdentity),
    ("Remote-Party-ID", CallerHeader::RemotePartyId),
    ("From", CallerHeader::From),
    ("display", CallerHeader::DisplayName),
];
const DIGESTS: [(&str, DigestHash); 2] = [("SHA-256", DigestHash::Sha256), ("MD5", DigestHash::Md5)];
const CODECS: [(&str, Codec); 2] = [("PCMA", Codec::Pcma), ("PCMU", Codec::Pcmu)];
const ANSWERS: [(&str, Option<AnswerWhen>); 3] =
    [("at_once", Some(AnswerWhen::AtOnce)), ("early_media", None), ("with_operator", None)];
const DTMF: [(&str, Option<Dtmf>); 3] = [("rfc4733", Some(Dtmf::Rfc4733)), ("info", None), ("inband", None)];
const PROFILES: [(&str, Profile); 6] = [
    ("generic", Profile::Generic),
    ("goip", Profile::Goip),
    ("dinstar", Profile::Dinstar),
    ("openvox", Profile::Openvox),
    ("yeastar", Profile::Yeastar),
    ("2n", Profile::TwoN),
];

/// Servers of one trunk.
const MAX_SERVERS: usize = 8;

/// One server or several, as a list or with commas; an empty text is none.
fn servers(table: &Table<'_>) -> Vec<String> {
    let servers = table.one_or_more("server", host).unwrap_or_default();
    servers.into_iter().filter(|server| !server.is_empty()).collect()
}

/// What stands in quotes in a challenge.
fn realm(text: &str) -> Result<String, String> {
    if text.len() > 128 || text.chars().any(char::is_control) {
        return Err(format!("'{text}' cannot be a realm"));
    }
    Ok(text.to_owned())
}

/// A digest user: it stands in quotes in a header and before `@` in an address.
fn user(text: &str) -> Result<String, String> {
    let good = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.!~*'()+$".contains(&letter);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
        return Err(format!("'{text}' cannot be a username"));
    }
    Ok(text.to_owned())
}

/// `host`, `host:port`, `[v6]:port`, or nothing.
fn host(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.parse::<std::net::SocketAddr>().is_ok()
        || text.parse::<std::net::IpAddr>().is_ok()
    {
        return Ok(text.to_owned());
    }
    let (name, port) = text.split_once(':').unwrap_or((text, "5060"));
    values::domain(name)?;
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        Ok(0) | Err(_) => Err(format!("'{text}': '{port}' is no port")),
    }
}

fn queue(table: Table<'_>) -> Option<QueueConfig> {
    let name = name(&table)?;
    let table = table.titled(format!("[[queue]] {name}"));
    let default = QueueConfig::named(name);
    let queue = QueueConfig {
        name: default.name,
        strategy: table.text("strategy", default.strategy, strategy),
        ring_ms: table.duration("ring", default.ring_ms),
        wrap_up_ms: table.duration("wrap_up", default.wrap_up_ms),
        max_wait_ms: table.duration("max_wait", default.max_wait_ms),
        max_length: table.whole("max_length", default.max_length, 0..=100_000),
        join_empty: table.flag("join_empty", default.join_empty),
        leave_empty: table.flag("leave_empty", default.leave_empty),
        service_level_ms: table.duration("service_level", default.service_level_ms),
        short_abandon_ms: table.duration("short_abandon", default.short_abandon_ms),
        no_answer: table.text("no_answer", default.no_answer, no_answer),
        music: table.text("music", default.music, |text| Ok(text.to_owned())),
        weight: table.whole("weight", default.weight, -1_000..=1_000),
        resume_place_ms: table.duration("resume_place", default.resume_place_ms),
        sticky_operator_ms: table.duration("sticky_operator", default.sticky_operator_ms),
    };
    if queue.ring_ms < MIN_RING_MS {
        let line = table.value("ring").map_or(table.line(), |value| value.line);
        table.page().wrong(line, "ring is at least 1s");
    }
    if let Some(value) = table.value("sticky_operator").filter(|_| queue.sticky_operator_ms > 0) {
        table.page().warn(value.line, "sticky_operator comes with a later release and does nothing yet");
    }
    table.finish();
    Some(queue)
}

/// A shorter ring would turn a caller's call round in circles.
const MIN_RING_MS: u64 = 1_000;

/// `longest_idle`; the others are known but come later.
fn strategy(text: &str) -> Result<Strategy, String> {
    let strategies = [
        ("longest_idle", Some(Strategy::LongestIdle)),
        ("round_robin", None),
        ("fewest_calls", None),
        ("least_talk", None),
        ("ring_all", None),
        ("progressive", None),
        ("top_down", None),
        ("random", None),
        ("weighted", None),
    ];
    now_or_later(text, &strategies)
}

/// `never` or `pause_after:2`.
fn no_answer(text: &str) -> Result<NoAnswer, String> {
    if text == "never" {
        return Ok(NoAnswer::Never);
    }
    let count = text.strip_prefix("pause_after:").and_then(|count| count.parse::<u32>().ok());
    count
        .filter(|count| (1..=100).contains(count))
        .map(NoAnswer::PauseAfter)
        .ok_or_else(|| format!("'{text}' is neither never nor pause_after:N"))
}
