//! The house: its accounts, its dialplan, its configuration.

use super::*;

pub(super) fn node() -> SocketAddr {
    NODE.parse().expect("address")
}

pub(super) fn browser(agent: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 1], 50_000 + agent as u16))
}

/// The last gateway is a peer with a fixed address; the others register.
pub fn gateway_account(number: usize) -> Account {
    Account {
        user: format!("gsm{number}"),
        password: format!("secret{number}"),
        udp: Some(SocketAddr::from(([10, 0, 1, number as u8 + 1], 5060))),
        domain: DOMAIN.to_owned(),
        registers: number != 2,
        expires_s: 60,
        timers: number != 1,
    }
}

pub(super) fn phone_account(operator: usize) -> Account {
    Account {
        user: format!("op{operator}"),
        password: format!("phone{operator}"),
        udp: None,
        domain: DOMAIN.to_owned(),
        registers: true,
        expires_s: 120,
        timers: operator != 1,
    }
}

const PLAN: &str = r#"
[[route]]
name = "in"
when = { from = "trunk:*" }
do = [
  { play = "welcome.wav" },
  { queue = "orders", wait = "12s", music = "hold.wav" },
  { queue = "night", wait = "8s" },
  { play = "sorry.wav" },
  { hang_up = "normal" },
]
[[route]]
name = "out"
when = { from = "operators", number = "any" }
do = [ { dial = "dialled", over = ["*"], ring = "12s" }, { hang_up = "congestion" } ]
"#;

pub(super) fn setup(shape: &Shape, (queues, trunks): (usize, usize), epoch: u64, last_seq: u64) -> Setup {
    let trunks: Vec<TrunkName> = (0..trunks).map(|number| TrunkName::from(format!("gsm-{number}"))).collect();
    let queues: Vec<QueueConfig> = ["orders", "night"]
        .into_iter()
        .take(queues)
        .map(|name| {
            let mut queue = QueueConfig::named(name);
            queue.ring_ms = 4_000;
            queue.wrap_up_ms = 2_000;
            queue
        })
        .collect();
    let known = Known {
        queues: queues.iter().map(|queue| queue.name.clone()).collect(),
        trunks: trunks.clone(),
        groups: Vec::new(),
        sounds: ["welcome.wav", "hold.wav", "sorry.wav"].map(str::to_owned).to_vec(),
    };
    let night = "{ queue = \"night\", wait = \"8s\" },";
    let plan = if queues.len() > 1 { PLAN.to_owned() } else { PLAN.replace(night, "") };
    let plan = Plan::read(&[("plan.toml".to_owned(), plan)], &known).expect("plan");
    let accounts = (0..trunks.len()).map(|number| trunk_account(number, &trunks[number])).collect();
    let trunk = |(number, name): (usize, &TrunkName)| {
        let peer = !gateway_account(number).registers;
        let trunk = call::Trunk {
            name: name.clone(),
            channels: 4,
            caller_from: vec!["P-Asserted-Identity".to_owned(), "From".to_owned()],
            account: String::new(),
            number_rules: Vec::new(),
            dial_rules: Vec::new(),
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            redirects: true,
            unproved: peer,
            line: Some("+380441110001".to_owned()),
        };
        (name.clone(), trunk)
    };
    let calls = call::Setup {
        domain: DOMAIN.to_owned(),
        trunks: trunks.iter().enumerate().map(trunk).collect(),
        queues: queues
            .iter()
            .map(|queue| {
                (queue.name.clone(), call::Queue { name: queue.name.clone(), music: queue.music.clone() })
            })
            .collect(),
        plan: Arc::new(plan),
        numbers: Vec::new(),
        media: call::MediaSetup {
            rtp_ports: (0..RTP_PORTS as u16).map(|n| 20_000 + 2 * n).collect(),
            webrtc_ports: vec![40_000, 40_001],
            address: None,
            fallback: IpAddr::from([10, 0, 0, 1]),
            fingerprint: [9; 32],
        },
        limits: call::Limits {
            calls: 8,
            calls_per_second: 5,
            emergency: vec!["112".to_owned()],
            call_duration_ms: if shape.long { 0 } else { 20_000 },
            destinations: Vec::new(),
            operator_calls_per_minute: 10,
        },
        zone: jiff::tz::TimeZone::UTC,
        time_is_up: "sorry.wav".to_owned(),
    };
    let sip = sip::Config {
        domain: DOMAIN.to_owned(),
        udp: node(),
        pair_secret: Secret::new([3; 32]),
        session_expires_s: 90,
        ..sip::Config::default()
    };
    Setup {
        node_name: "sim".to_owned(),
        version: "0".to_owned(),
        epoch: Epoch(epoch),
        last_seq,
        sip,
        accounts,
        calls,
        queues,
        cards: Vec::new(),
    }
}

pub(super) fn trunk_account(number: usize, name: &TrunkName) -> TrunkAccount {
    let account = gateway_account(number);
    let address = account.udp.expect("a gateway has an address");
    let kind = if account.registers {
        let ha1 = Ha1::new(&account.user, DOMAIN, &account.password);
        TrunkKind::Gateway { username: account.user, ha1 }
    } else {
        TrunkKind::Peer { server: Some(address) }
    };
    TrunkAccount {
        name: name.clone(),
        kind,
        accept_from: vec![Prefix { address: address.ip(), bits: 32 }],
        digest: vec![Algorithm::Sha256, Algorithm::Md5],
        health: tandem::sip::Health { every_ms: 30_000, timeout_ms: 4_000 },
        prack: true,
        profile: tandem::sip::Profile::default(),
    }
}
