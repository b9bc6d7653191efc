//! From the configuration and the dialplans to what the engine is told.
//!
//! Invariant: everything is checked before anything is started; a reload that fails leaves the old
//! plan working.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use crate::acd::QueueConfig;
use crate::call;
use crate::config::{Codec, Config, DigestHash, Profile, Trunk, TrunkKind};
use crate::dialplan::Plan;
use crate::engine;
use crate::report::{QueueKnown, Roster, TrunkKnown};
use crate::sdp::negotiate::Codec as Law;
use crate::sip;
use crate::sip::digest::{Algorithm, Ha1, Login};
use crate::terms::{Epoch, Secret};

/// Played to the caller when the longest call time is over.
const TIME_IS_UP: &str = "sorry.wav";

/// What only a running node knows.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Larger than any epoch persisted.
    pub epoch: Epoch,
    /// The last fact in the store.
    pub last_seq: u64,
    /// Keys nonces and phone passwords.
    pub pair_secret: Secret<[u8; 32]>,
    /// Where SIP over UDP is bound.
    pub udp: Option<SocketAddr>,
    /// Even ports that can be bound.
    pub rtp_ports: Vec<u16>,
    /// The shared browser port of each media worker.
    pub webrtc_ports: Vec<u16>,
    /// SHA-256 of the DTLS certificate.
    pub fingerprint: [u8; 32],
}

/// Everything the engine is told.
///
/// # Errors
/// In words, when a trunk's server has no address.
pub fn setup(config: &Config, plan: Plan, ground: &Ground) -> Result<engine::Setup, String> {
    Ok(engine::Setup {
        node_name: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: ground.epoch,
        last_seq: ground.last_seq,
        sip: sip_config(config, ground),
        accounts: config.trunks.iter().map(|trunk| account(config, trunk)).collect::<Result<_, _>>()?,
        calls: calls(config, plan, ground),
        queues: config.queues.clone(),
        cards: Vec::new(),
    })
}

fn sip_config(config: &Config, ground: &Ground) -> sip::Config {
    let seconds = |ms: u64| u32::try_from(ms / 1_000).unwrap_or(u32::MAX);
    let calls = usize::try_from(config.limits.calls).unwrap_or(usize::MAX);
    sip::Config {
        domain: config.sip.domain.clone(),
        user_agent: config.sip.user_agent.clone(),
        udp: SocketAddr::new(public_address(config), ground.udp.map_or(5060, |udp| udp.port())),
        session_expires_s: seconds(config.sip.session_expires_ms),
        min_se_s: seconds(config.sip.min_se_ms),
        pair_secret: ground.pair_secret.clone(),
        digest: algorithms(&config.sip.digest),
        guard: guard(config),
        // Two legs a call, and room for legs that are being refused.
        max_dialogs: calls.saturating_mul(4),
        ..sip::Config::default()
    }
}

/// The address of this node where no packet came in that says it: as a rule a peer that we call first.
fn public_address(config: &Config) -> IpAddr {
    let bound = config.sip.udp.map(|udp| udp.ip()).filter(|address| !address.is_unspecified());
    let servers = || config.trunks.iter().filter_map(|trunk| servers(trunk).ok()).flatten();
    let towards_trunks = || servers().find_map(address_towards);
    config.sip.public_address.or(bound).or_else(towards_trunks).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The address of this machine that packets to `peer` leave from; connecting UDP sends nothing.
fn address_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

fn account(config: &Config, trunk: &Trunk) -> Result<sip::TrunkAccount, String> {
    let kind = match trunk.kind {
        TrunkKind::Gateway => {
            let ha1 = Ha1::new(&trunk.username, &config.sip.domain, trunk.password.expose());
            sip::TrunkKind::Gateway { username: trunk.username.clone(), ha1 }
        }
        TrunkKind::Peer => sip::TrunkKind::Peer { server: servers(trunk)?.first().copied() },
        TrunkKind::Provider => sip::TrunkKind::Provider(Box::new(provider(trunk)?)),
    };
    Ok(sip::TrunkAccount {
        name: trunk.name.clone(),
        kind,
        accept_from: trunk.accept_from.iter().map(|cidr| prefix(*cidr)).collect(),
        digest: algorithms(&trunk.digest),
        profile: profile(trunk.profile),
        health: sip::Health { every_ms: trunk.health_every_ms, timeout_ms: trunk.health_timeout_ms },
        prack: trunk.prack,
    })
}

/// What failed log-ins lead to, by SIP and at the web.
pub fn guard(config: &Config) -> sip::guard::Rules {
    sip::guard::Rules {
        failures: config.limits.failed_logins,
        ban_ms: config.limits.ban_ms,
        never_ban: config.limits.never_ban.iter().map(|cidr| prefix(*cidr)).collect(),
    }
}

/// Digest algorithms in SIP's words.
fn algorithms(digest: &[DigestHash]) -> Vec<Algorithm> {
    let algorithm = |hash: &DigestHash| match hash {
        DigestHash::Sha256 => Algorithm::Sha256,
        DigestHash::Md5 => Algorithm::Md5,
    };
    digest.iter().map(algorithm).collect()
}

/// A range of addresses in SIP's words.
pub fn prefix(cidr: crate::config::Cidr) -> sip::Prefix {
    sip::Prefix { address: cidr.address, bits: cidr.prefix }
}

/// The same habits in SIP's words.
fn profile(profile: Profile) -> sip::Profile {
    match profile {
        Profile::Generic => sip::Profile::Generic,
        Profile::Goip => sip::Profile::Goip,
        Profile::Dinstar => sip::Profile::Dinstar,
        Profile::Openvox => sip::Profile::Openvox,
        Profile::Yeastar => sip::Profile::Yeastar,
        Profile::TwoN => sip::Profile::TwoN,
    }
}

/// Our account at a provider.
fn provider(trunk: &Trunk) -> Result<sip::Provider, String> {
    let first = trunk.servers.first().map(String::as_str).unwrap_or_default();
    let host = crate::sip::uri::read_host_port(first).map_or(first.to_owned(), |(host, _)| host.to_string());
    Ok(sip::Provider {
        login: Login { user: trunk.username.clone(), password: trunk.password.clone() },
        domain: if trunk.domain.is_empty() { host } else { trunk.domain.clone() },
        realm: (!trunk.realm.is_empty()).then(|| trunk.realm.clone()),
        servers: servers(trunk)?,
        expires_s: u32::try_from(trunk.expires_ms / 1_000).unwrap_or(u32::MAX),
    })
}

/// A trunk's addresses: looked up once, at start and on reload, never while a call waits.
fn servers(trunk: &Trunk) -> Result<Vec<SocketAddr>, String> {
    let one = |server: &String| {
        let bare = !server.contains(':') || server.ends_with(']') || server.parse::<Ipv6Addr>().is_ok();
        let text = match server.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:5060"),
            Err(_) if bare => format!("{server}:5060"),
            Err(_) => server.clone(),
        };
        let none = |why: String| format!("trunk {}: server {server:?} has no address{why}", trunk.name);
        let mut found = text.to_socket_addrs().map_err(|error| none(format!(": {error}")))?;
        found.next().ok_or_else(|| none(String::new()))
    };
    trunk.servers.iter().map(one).collect()
}

fn calls(config: &Config, plan: Plan, ground: &Ground) -> call::Setup {
    let limits = &config.limits;
    call::Setup {
        domain: config.sip.domain.clone(),
        trunks: config
            .trunks
            .iter()
            .map(|trunk| (trunk.name.clone(), trunk_for_calls(config, trunk)))
            .collect(),
        queues: config.queues.iter().map(queue_for_calls).collect(),
        plan: Arc::new(plan),
        numbers: config.numbers.rules.clone(),
        media: call::MediaSetup {
            rtp_ports: ground.rtp_ports.clone(),
            webrtc_ports: ground.webrtc_ports.clone(),
            address: config.media.address,
            fallback: public_address(config),
            fingerprint: ground.fingerprint,
        },
        limits: call::Limits {
            calls: usize::try_from(limits.calls).unwrap_or(usize::MAX),
            calls_per_second: limits.calls_per_second,
            emergency: limits.emergency.iter().map(|number| number.reveal().to_owned()).collect(),
            call_duration_ms: limits.call_duration_ms,
            destinations: limits.destinations.clone(),
            operator_calls_per_minute: limits.operator_calls_per_minute,
        },
        zone: config.node.time_zone(),
        time_is_up: TIME_IS_UP.to_owned(),
    }
}

fn trunk_for_calls(config: &Config, trunk: &Trunk) -> call::Trunk {
    call::Trunk {
        name: trunk.name.clone(),
        channels: trunk.channels,
        caller_from: trunk.caller_from.iter().map(|header| header.name().to_owned()).collect(),
        account: match trunk.kind {
            TrunkKind::Gateway | TrunkKind::Provider => trunk.username.clone(),
            TrunkKind::Peer => String::new(),
        },
        number_rules: config.caller_rules(trunk),
        dial_rules: trunk.dial_rules.clone(),
        codecs: trunk
            .codecs
            .iter()
            .map(|codec| match codec {
                Codec::Pcma => Law::Pcma,
                Codec::Pcmu => Law::Pcmu,
            })
            .collect(),
        redirects: trunk.redirects,
        // Known by its address alone, which anybody can write into a datagram.
        unproved: match trunk.kind {
            TrunkKind::Peer | TrunkKind::Provider => true,
            TrunkKind::Gateway => false,
        },
        line: trunk.numbers.first().map(|number| number.reveal().to_owned()),
    }
}

fn queue_for_calls(queue: &QueueConfig) -> (crate::terms::QueueName, call::Queue) {
    (queue.name.clone(), call::Queue { name: queue.name.clone(), music: queue.music.clone() })
}

/// What the wallboard must know beside the facts.
pub fn roster(config: &Config) -> Roster {
    Roster {
        node: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        queues: config
            .queues
            .iter()
            .map(|queue| QueueKnown {
                name: queue.name.clone(),
                service_level_ms: queue.service_level_ms,
                short_abandon_ms: queue.short_abandon_ms,
            })
            .collect(),
        trunks: config
            .trunks
            .iter()
            .map(|trunk| TrunkKnown {
                name: trunk.name.clone(),
                kind: trunk.kind.word().to_owned(),
                channels: trunk.channels,
                disabled: false,
            })
            .collect(),
        skills: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "tests")]
    use super::*;
    use crate::dialplan::Known;
    use crate::engine::{Engine, Input, Output};
    use crate::fact::{Fact, What};
    use crate::terms::{Now, Number};

    const PLAN: &str =
        "[[route]]\nname = \"in\"\nwhen = { from = \"trunk:*\" }\ndo = [{ hang_up = \"normal\" }]\n";

    fn ground() -> Ground {
        Ground {
            epoch: Epoch(1),
            last_seq: 0,
            pair_secret: Secret::new([1; 32]),
            udp: Some(([192, 0, 2, 1], 5060).into()),
            rtp_ports: vec![20_000],
            webrtc_ports: vec![10_000],
            fingerprint: [0; 32],
        }
    }

    /// Who calls, when this INVITE comes from a peer of this profile.
    fn caller(file: &str, profile: Profile) -> Number {
        let path = format!("{}/fixtures/sip/gateways/{file}.sip", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap().into();
        let mut config = Config::default();
        config.numbers.rules = vec![rule("00", "+"), rule("0", "+380")];
        let mut trunk = Trunk::named("gsm-1");
        trunk.kind = TrunkKind::Peer;
        trunk.servers = vec!["192.0.2.70".to_owned()];
        trunk.accept_from = vec![crate::config::Cidr::parse("192.0.2.70").unwrap()];
        trunk.profile = profile;
        trunk.caller_from = profile.caller_from();
        config.trunks = vec![trunk];
        let known = Known { trunks: vec!["gsm-1".into()], ..Known::default() };
        let plan = Plan::read(&[("plan.toml".to_owned(), PLAN.to_owned())], &known).unwrap();
        let now = Now { mono_ms: 1_000, wall_ms: 1_000 };
        let mut engine = Engine::new(setup(&config, plan, &ground()).unwrap(), [7; 32], now);
        let remote = ([192, 0, 2, 70], 5060).into();
        let path = sip::Path::Udp { remote, local: ([192, 0, 2, 1], 5060).into() };
        engine.handle(Input::Sip(sip::Input::Received { path, bytes }), now);
        let facts = std::iter::from_fn(|| engine.poll()).filter_map(|output| match output {
            Output::Fact(Fact { what: What::Arrived { caller, .. }, .. }) => Some(caller),
            _ => None,
        });
        facts.last().unwrap_or_else(|| panic!("{file}: no call"))
    }

    fn rule(strip: &str, add: &str) -> crate::dialplan::Rule {
        crate::dialplan::Rule { strip: strip.to_owned(), add: add.to_owned() }
    }

    #[test]
    fn the_caller_is_found_where_each_kind_of_gateway_puts_him() {
        let known = "+380671234567";
        for (file, profile, expected) in [
            ("goip-rpid", Profile::Goip, known),
            ("goip-cid-as-from", Profile::Goip, known),
            ("dinstar", Profile::Dinstar, known),
            ("dinstar-display", Profile::Dinstar, known),
            ("dinstar-display", Profile::Generic, ""),
            ("openvox", Profile::Openvox, known),
            ("yeastar", Profile::Yeastar, known),
            ("2n", Profile::TwoN, known),
            ("2n", Profile::Generic, ""),
            ("withheld", Profile::Generic, ""),
            ("withheld", Profile::TwoN, ""),
            ("no-number", Profile::Goip, ""),
            ("no-number", Profile::Dinstar, ""),
        ] {
            assert_eq!(caller(file, profile).reveal(), expected, "{file} {profile:?}");
        }
    }

    /// Row B-15: a display name is text that anybody may write.
    #[test]
    fn a_name_that_claims_to_be_somebody_never_says_who_calls() {
        for profile in [Profile::Generic, Profile::Goip, Profile::Dinstar, Profile::TwoN] {
            assert_eq!(caller("spoofed-name", profile).reveal(), "+380671234567", "{profile:?}");
        }
    }
}
