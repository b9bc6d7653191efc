//! Our account at a provider, spoken by hand: registering, being asked who we are, and whom we tell.

use super::hand::{Hand, reply, udp};
use crate::fact::Party;
use crate::sip::digest::Login;
use crate::sip::message::{Message, Method, Name, Request};
use crate::sip::{Command, Event, Health, Path, Prefix, Profile, Provider, TrunkAccount, TrunkKind, Way};
use crate::terms::{LegId, Number, Secret};

const FIRST: &str = "198.51.100.10:5060";
const SECOND: &str = "198.51.100.11:5060";
const MD5: &str =
    "WWW-Authenticate: Digest realm=\"isp.test\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";
const BOTH: &str = "WWW-Authenticate: Digest realm=\"isp.test\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n\
                    WWW-Authenticate: Digest realm=\"isp.test\", nonce=\"n2\", algorithm=SHA-256, qop=\"auth\"\r\n";

fn account(servers: &[&str]) -> TrunkAccount {
    TrunkAccount {
        name: "isp".into(),
        kind: TrunkKind::Provider(Box::new(Provider {
            login: Login { user: "380441110001".into(), password: Secret::new("secret".into()) },
            domain: "isp.test".into(),
            realm: None,
            servers: servers.iter().map(|at| at.parse().unwrap()).collect(),
            expires_s: 600,
        })),
        accept_from: Vec::new(),
        digest: Vec::new(),
        health: Health::default(),
        prack: true,
        profile: Profile::default(),
    }
}

fn gateway() -> TrunkAccount {
    TrunkAccount {
        name: "other".into(),
        kind: TrunkKind::Peer { server: Some("192.0.2.70:5060".parse().unwrap()) },
        accept_from: vec![Prefix { address: "192.0.2.64".parse().unwrap(), bits: 26 }],
        digest: Vec::new(),
        health: Health::default(),
        prack: true,
        profile: Profile::default(),
    }
}

struct Desk {
    hand: Hand,
}

impl Desk {
    fn new(servers: &[&str]) -> Self {
        let mut hand = Hand::new();
        hand.tell(Command::Trunks(vec![account(servers), gateway()]));
        hand.trunks.clear();
        hand.sent.clear();
        hand.run(600);
        Self { hand }
    }

    /// The newest request of this kind that went out since the last look.
    fn asked(&mut self, method: Method) -> Option<(Path, Request)> {
        let found = self.hand.requests(&method).pop();
        self.hand.sent.clear();
        found
    }

    fn register(&mut self) -> (Path, Request) {
        self.asked(Method::Register).expect("no REGISTER")
    }

    /// The next one that goes out within so long.
    fn next_register(&mut self, within_ms: u64) -> (Path, Request) {
        let end = self.hand.now + within_ms;
        while self.hand.requests(&Method::Register).is_empty() {
            assert!(self.hand.now < end, "no REGISTER");
            self.hand.run(100);
        }
        self.register()
    }

    fn says(&mut self, path: Path, request: &Request, code: u16, more: &str) {
        self.hand.say(path, &reply(request, code, "isp", more, ""));
    }

    fn registered(&mut self) {
        let (path, register) = self.register();
        self.says(path, &register, 401, MD5);
        let (path, register) = self.register();
        let contact = text(&register, &Name::Contact);
        self.says(path, &register, 200, &format!("Contact: {contact};expires=300\r\n"));
        assert!(matches!(self.hand.trunks.last(), Some(Event::TrunkUp { .. })), "{:?}", self.hand.trunks);
    }

    fn downs(&self) -> Vec<&str> {
        let why = |event: &Event| match event {
            Event::TrunkDown { why, .. } => Some(why.as_str().to_owned()),
            _ => None,
        };
        self.hand.trunks.iter().filter_map(why).map(|why| &*why.leak()).collect()
    }

    fn call(&mut self, trunk: &str) -> (LegId, Path, Request) {
        let leg = self.hand.sip.new_leg();
        self.hand.tell(Command::Invite {
            leg,
            to: Party::Trunk(trunk.into()),
            number: Number::new("380671234567"),
            show: Number::new("+380441110001"),
            display: String::new(),
            headers: Vec::new(),
            sdp: bytes::Bytes::from_static(b"v=0\r\n"),
            ring_ms: 60_000,
        });
        let (path, invite) = self.asked(Method::Invite).expect("no INVITE");
        (leg, path, invite)
    }

    fn answered(&mut self, path: Path, invite: &Request, contact: &str) {
        let more = format!("Contact: <sip:{contact}>\r\nContent-Type: application/sdp\r\n");
        self.hand.say(path, &reply(invite, 200, "far", &more, "v=0\r\n"));
        self.hand.sent.clear();
    }
}

fn text(request: &Request, name: &Name) -> String {
    String::from_utf8_lossy(request.headers.first(name).unwrap_or_default()).into_owned()
}

#[test]
fn it_registers_with_the_strongest_digest_and_refreshes_before_the_end() {
    for (challenge, algorithm) in [(MD5, "MD5"), (BOTH, "SHA-256")] {
        let mut desk = Desk::new(&[FIRST]);
        let (path, first) = desk.register();
        assert_eq!(path.remote(), FIRST.parse().unwrap());
        assert_eq!(&first.uri[..], b"sip:isp.test");
        assert!(!first.headers.has(&Name::Authorization));
        assert_eq!(text(&first, &Name::Expires), "600");
        desk.says(path, &first, 401, challenge);
        let (path, second) = desk.register();
        let shown = text(&second, &Name::Authorization);
        assert!(shown.contains(algorithm) && shown.contains("nc=00000001"), "{shown}");
        assert_eq!(second.headers.call_id(), first.headers.call_id());
        assert_eq!(second.headers.cseq().unwrap().0, first.headers.cseq().unwrap().0 + 1);
        // Somebody else's binding beside ours does not decide for how long.
        let own = text(&second, &Name::Contact);
        let contacts = format!("Contact: <sip:x@192.0.2.99>;expires=9\r\nContact: {own};expires=300\r\n");
        desk.says(path, &second, 200, &contacts);
        desk.hand.run(205_000);
        assert!(desk.asked(Method::Register).is_none());
        let (path, refresh) = desk.next_register(50_000);
        let shown = text(&refresh, &Name::Authorization);
        assert!(shown.contains("nc=00000002"), "a known nonce is used again: {shown}");
        desk.says(path, &refresh, 401, &challenge.replace("n1", "n7").replace("qop", "stale=true, qop"));
        let (path, again) = desk.register();
        assert!(text(&again, &Name::Authorization).contains("nc=00000001"));
        desk.says(path, &again, 200, "Expires: 300\r\n");
        desk.hand.run(200_000);
        assert_eq!(desk.downs(), Vec::<&str>::new());
    }
}

#[test]
fn a_registrar_that_wants_a_longer_time_gets_it() {
    let mut desk = Desk::new(&[FIRST]);
    let (path, register) = desk.register();
    desk.says(path, &register, 423, "Min-Expires: 1800\r\n");
    let (path, register) = desk.register();
    assert_eq!(text(&register, &Name::Expires), "1800");
    desk.says(path, &register, 200, "");
    assert!(desk.hand.sip.trunks.is_up(&"isp".into()));
}

#[test]
fn a_wrong_password_is_said_and_not_tried_again_at_once() {
    let mut desk = Desk::new(&[FIRST, SECOND]);
    let (path, register) = desk.register();
    desk.says(path, &register, 401, MD5);
    let (path, register) = desk.register();
    desk.says(path, &register, 401, &MD5.replace("n1", "n2"));
    assert_eq!(desk.downs(), ["the provider refuses user or password"]);
    desk.hand.run(29_000);
    assert!(desk.asked(Method::Register).is_none(), "providers ban whoever guesses");
    desk.hand.run(61_000);
    desk.register();
}

#[test]
fn servers_are_tried_in_their_order_and_then_after_growing_pauses() {
    let mut desk = Desk::new(&[FIRST, SECOND]);
    let (path, register) = desk.register();
    desk.says(path, &register, 503, "");
    let (path, _) = desk.register();
    assert_eq!(path.remote(), SECOND.parse().unwrap());
    desk.hand.sent.clear();
    // The second says nothing at all.
    desk.hand.run(8_100);
    assert_eq!(*desk.downs().last().unwrap(), format!("no answer from {SECOND}"));
    let mut pauses = Vec::new();
    desk.hand.sent.clear();
    for _ in 0..6 {
        let began = desk.hand.now;
        let (path, register) = desk.next_register(400_000);
        pauses.push(desk.hand.now - began);
        assert_eq!(path.remote(), FIRST.parse().unwrap());
        desk.says(path, &register, 500, "");
        let (path, register) = desk.register();
        desk.says(path, &register, 500, "");
    }
    assert!(pauses.windows(2).all(|two| two[0] < two[1] * 2), "{pauses:?}");
    assert!(pauses[0] <= 2_100 && pauses[5] >= 30_000, "{pauses:?}");
    let (path, register) = desk.next_register(400_000);
    desk.says(path, &register, 200, "");
    let Some(Event::TrunkUp { path, .. }) = desk.hand.trunks.last() else { panic!() };
    assert_eq!(path.remote(), FIRST.parse().unwrap());
}

#[test]
fn a_registration_that_cannot_be_refreshed_stands_until_its_end() {
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    desk.hand.run(295_000);
    assert_eq!(desk.downs(), Vec::<&str>::new());
    desk.hand.run(10_000);
    assert_eq!(desk.downs(), [format!("no answer from {FIRST}")]);
    let leg = desk.hand.sip.new_leg();
    desk.hand.tell(Command::Invite {
        leg,
        to: Party::Trunk("isp".into()),
        number: Number::new("1"),
        show: Number::default(),
        display: String::new(),
        headers: Vec::new(),
        sdp: bytes::Bytes::new(),
        ring_ms: 1_000,
    });
    assert!(matches!(desk.hand.events.last(), Some(Event::Failed { code: 480, way: Way::Way, .. })));
}

#[test]
fn the_registration_survives_a_restore() {
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    let said = desk.hand.trunks.len();
    desk.hand.die_alone();
    desk.hand.tell(Command::Trunks(vec![account(&[FIRST]), gateway()]));
    assert!(desk.hand.sip.trunks.is_up(&"isp".into()));
    let said: Vec<_> = desk.hand.trunks[said..].iter().filter(|event| is_of_isp(event)).collect();
    assert!(said.is_empty(), "{said:?}");
    desk.hand.sent.clear();
    let (path, refresh) = desk.next_register(260_000);
    assert!(text(&refresh, &Name::Authorization).contains("nc=00000002"));
    desk.says(path, &refresh, 200, "");
    assert!(desk.hand.sip.trunks.is_up(&"isp".into()));
}

fn is_of_isp(event: &Event) -> bool {
    matches!(event, Event::TrunkUp { trunk, .. } | Event::TrunkDown { trunk, .. } if trunk.as_str() == "isp")
}

#[test]
fn at_the_end_the_registration_is_taken_back() {
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    desk.hand.tell(Command::Leave);
    assert!(desk.hand.sip.is_leaving());
    let (path, gone) = desk.register();
    assert_eq!(text(&gone, &Name::Expires), "0");
    desk.says(path, &gone, 401, &MD5.replace("n1", "n3"));
    let (path, gone) = desk.register();
    desk.says(path, &gone, 200, "");
    assert!(!desk.hand.sip.is_leaving());
    // And so is that of an account that is configured away.
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    desk.hand.tell(Command::Trunks(vec![gateway()]));
    assert_eq!(desk.downs(), ["it is no longer configured"]);
    let (path, gone) = desk.register();
    assert_eq!(text(&gone, &Name::Expires), "0");
    desk.says(path, &gone, 200, "");
    assert!(!desk.hand.sip.is_leaving());
    desk.hand.run(600_000);
    assert!(desk.asked(Method::Register).is_none());
}

#[test]
fn a_provider_may_challenge_every_request_and_gets_the_proof() {
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    let (leg, path, invite) = desk.call("isp");
    assert_eq!(&invite.uri[..], b"sip:380671234567@isp.test");
    assert!(text(&invite, &Name::From).starts_with("<sip:+380441110001@isp.test>"));
    desk.says(path, &invite, 407, &MD5.replace("WWW", "Proxy").replace("n1", "n5"));
    let (path, proved) = desk.asked(Method::Invite).expect("no second INVITE");
    let shown = text(&proved, &Name::ProxyAuthorization);
    assert!(shown.contains("username=\"380441110001\"") && shown.contains("nonce=\"n5\""), "{shown}");
    assert_eq!(proved.headers.cseq().unwrap().0, invite.headers.cseq().unwrap().0 + 1);
    assert_ne!(proved.headers.via_top().unwrap().branch(), invite.headers.via_top().unwrap().branch());
    desk.answered(path, &proved, "b2b@198.51.100.10");
    assert!(matches!(desk.hand.events.last(), Some(Event::Answered { .. })), "{:?}", desk.hand.events);
    // Our re-INVITE and our BYE are challenged as well, by the provider's own machine.
    desk.hand.tell(Command::Offer { leg, sdp: bytes::Bytes::from_static(b"v=0\r\no=2\r\n") });
    let (path, change) = desk.asked(Method::Invite).unwrap();
    desk.says(path, &change, 401, &MD5.replace("n1", "n6"));
    let (path, change) = desk.asked(Method::Invite).expect("no proved re-INVITE");
    assert!(text(&change, &Name::Authorization).contains("nonce=\"n6\""));
    desk.answered(path, &change, "b2b@198.51.100.10");
    assert!(matches!(desk.hand.events.last(), Some(Event::ChangeAnswered { .. })));
    let cause = crate::fact::Cause::default();
    desk.hand.tell(Command::HangUp { leg, cause });
    let (path, bye) = desk.asked(Method::Bye).unwrap();
    desk.says(path, &bye, 407, &MD5.replace("WWW", "Proxy"));
    let (path, bye) = desk.asked(Method::Bye).expect("no proved BYE");
    desk.says(path, &bye, 200, "");
    assert_eq!(desk.hand.sip.counts().legs, 0);
}

#[test]
fn a_password_that_the_provider_does_not_take_is_shown_once() {
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    let (leg, path, invite) = desk.call("isp");
    desk.says(path, &invite, 401, MD5);
    let (path, proved) = desk.asked(Method::Invite).unwrap();
    desk.says(path, &proved, 401, &MD5.replace("n1", "n8"));
    assert!(desk.asked(Method::Invite).is_none());
    assert!(
        matches!(desk.hand.events.last(), Some(Event::Failed { leg: one, code: 401, way: Way::Way, .. }) if *one == leg)
    );
}

/// Row B-06: whoever we are led to may ask; only the provider itself is told.
#[test]
fn a_callee_that_challenges_gets_no_proof() {
    let other_realm = MD5.replace("isp.test", "evil.test");
    // Another trunk asks in the provider's name.
    let mut desk = Desk::new(&[FIRST]);
    desk.registered();
    let (leg, path, invite) = desk.call("other");
    desk.says(path, &invite, 401, MD5);
    assert!(desk.asked(Method::Invite).is_none());
    assert!(matches!(desk.hand.events.last(), Some(Event::Failed { leg: one, .. }) if *one == leg));
    // The provider asks for the password of somebody else.
    let (leg, path, invite) = desk.call("isp");
    desk.says(path, &invite, 407, &other_realm.replace("WWW", "Proxy"));
    assert!(desk.asked(Method::Invite).is_none());
    assert!(matches!(desk.hand.events.last(), Some(Event::Failed { leg: one, .. }) if *one == leg));
    // A callee behind the provider answers and challenges our BYE and re-INVITE in the provider's own realm.
    for method in [Method::Bye, Method::Invite] {
        let (leg, path, invite) = desk.call("isp");
        desk.answered(path, &invite, "victim@203.0.113.66");
        let cause = crate::fact::Cause::default();
        desk.hand.tell(match method {
            Method::Bye => Command::HangUp { leg, cause },
            _ => Command::Offer { leg, sdp: bytes::Bytes::from_static(b"v=0\r\no=3\r\n") },
        });
        let (path, request) = desk.asked(method.clone()).unwrap();
        assert_eq!(&request.uri[..], b"sip:victim@203.0.113.66");
        desk.says(path, &request, 407, &MD5.replace("WWW", "Proxy"));
        assert!(desk.asked(method).is_none());
    }
    let all = format!("{:?}", desk.hand.events);
    assert!(!all.contains("secret"));
}

#[test]
fn calls_of_the_provider_are_known_by_the_contact_it_was_told_and_by_its_address() {
    let mut desk = Desk::new(&[FIRST]);
    let (path, register) = desk.register();
    let contact = text(&register, &Name::Contact);
    let uri = contact.trim_start_matches('<').split('>').next().unwrap().to_owned();
    desk.says(path, &register, 200, "");
    let invite = |uri: &str, n: u32| {
        format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP p;branch=z9hG4bKp{n}\r\nMax-Forwards: 70\r\nTo: <sip:x@y>\r\n\
             From: <sip:+380501112233@isp.test>;tag=f{n}\r\nCall-ID: in{n}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:c@{FIRST}>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let line = uri.split_once("line=").unwrap().1.to_owned();
    for (n, (from, uri, code)) in [
        ("198.51.100.77:5060", uri.clone(), 100),
        ("198.51.100.10:9999", "sip:380441110001@192.0.2.1".to_owned(), 100),
        ("198.51.100.77:5060", "sip:380441110001@192.0.2.1".to_owned(), 401),
        ("198.51.100.77:5060", uri.replace(&line, "0000000000000000"), 401),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = desk.hand.ask(udp(from), &invite(&uri, n as u32));
        assert_eq!(answer.code, code, "{from} {uri}");
        if code == 100 {
            let Some(Event::Invited(invited)) = desk.hand.events.last() else { panic!() };
            assert_eq!(invited.from, Party::Trunk("isp".into()));
        }
    }
}

#[test]
fn responses_of_strangers_change_nothing() {
    let mut desk = Desk::new(&[FIRST]);
    let (_, register) = desk.register();
    desk.says(udp("203.0.113.5:5060"), &register, 200, "");
    assert!(!desk.hand.sip.trunks.is_up(&"isp".into()));
    let left = desk.hand.sent.iter().any(|(_, message)| matches!(message, Message::Request(_)));
    assert!(!left);
}
