//! Peers spoken by hand: texts in, messages out.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::fact::Party;
use crate::sip::digest::{Algorithm, Ha1, Login, choose};
use crate::sip::message::{Message, Method, Name, Request, Response};
use crate::sip::{Command, Config, Event, Input, Output, Path, Prefix, Sip, TrunkAccount, TrunkKind};
use crate::terms::{FlowId, LegId, Now, Number, Secret};

pub(super) struct Hand {
    pub(super) sip: Sip,
    pub(super) now: u64,
    pub(super) sent: Vec<(Path, Message)>,
    pub(super) events: Vec<Event>,
    /// What was said of trunks.
    pub(super) trunks: Vec<Event>,
    pub(super) dropped: Vec<&'static str>,
    pub(super) skew_ms: i64,
}

fn config() -> Config {
    Config { domain: "tandem.test".into(), max_dialogs: 8, ..Config::default() }
}

pub(super) fn ws(flow: u64) -> Path {
    Path::Ws {
        flow: FlowId(flow),
        remote: "198.51.100.7:40000".parse().unwrap(),
        local: "192.0.2.1:443".parse().unwrap(),
        secure: true,
    }
}

pub(super) fn udp(remote: &str) -> Path {
    Path::Udp { remote: remote.parse().unwrap(), local: "192.0.2.1:5060".parse().unwrap() }
}

/// A message as JsSIP sent it.
macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/sip/jssip/", $name)).to_owned()
    };
}
pub(super) use fixture;

impl Hand {
    pub(super) fn new() -> Self {
        let sip = Sip::new(config(), [7; 32]);
        let mut hand = Self {
            sip,
            now: 1_000,
            sent: vec![],
            events: vec![],
            trunks: vec![],
            dropped: vec![],
            skew_ms: 0,
        };
        hand.acquaint();
        hand
    }

    fn acquaint(&mut self) {
        let hand = self;
        for name in ["op1", "op2"] {
            let ha1 = Ha1::new(name, "tandem.test", "secret");
            hand.tell(Command::Phone { operator: name.into(), key: "k".into(), ha1 });
        }
        let prefix = |net: &str, bits| Prefix { address: net.parse().unwrap(), bits };
        let gateway =
            TrunkKind::Gateway { username: "gsm-1".into(), ha1: Ha1::new("gsm-1", "tandem.test", "gsm") };
        let trunk = |name: &str, kind, accept_from| TrunkAccount {
            name: name.into(),
            kind,
            accept_from,
            digest: vec![Algorithm::Sha256, Algorithm::Md5],
            health: crate::sip::Health::default(),
            prack: true,
            profile: crate::sip::Profile::default(),
        };
        hand.tell(Command::Trunks(vec![
            trunk("gsm", gateway, vec![prefix("203.0.113.0", 24)]),
            trunk("peer", TrunkKind::Peer { server: None }, vec![prefix("192.0.2.64", 26)]),
        ]));
    }

    fn at(&self) -> Now {
        Now { mono_ms: self.now, wall_ms: 1_800_000_000_000 + self.now as i64 - self.skew_ms }
    }

    fn drain(&mut self) {
        while let Some(output) = self.sip.poll() {
            match output {
                Output::Send { path, bytes } => {
                    match Message::read_datagram(&bytes) {
                        Ok(message) => self.sent.push((path, message)),
                        // The answer to a bad request echoes what was bad.
                        Err(_) => {
                            assert!(bytes.starts_with(b"SIP/2.0 4") || bytes.starts_with(b"SIP/2.0 505"))
                        }
                    }
                }
                Output::Event(event @ (Event::TrunkUp { .. } | Event::TrunkDown { .. })) => {
                    self.trunks.push(event);
                }
                Output::Event(event) => self.events.push(event),
                Output::Dropped(why) => self.dropped.push(why),
            }
        }
    }

    pub(super) fn tell(&mut self, command: Command) {
        let now = self.at();
        self.sip.handle(Input::Command(command), now);
        self.drain();
    }

    pub(super) fn close(&mut self, flow: u64) {
        let now = self.at();
        self.sip.handle(Input::FlowClosed(FlowId(flow)), now);
        self.drain();
    }

    /// Sends a text; what comes back before time passes.
    pub(super) fn say(&mut self, path: Path, text: &str) -> Vec<(Path, Message)> {
        self.sent.clear();
        let now = self.at();
        self.sip.handle(Input::Received { path, bytes: Bytes::from(text.to_owned()) }, now);
        self.drain();
        self.sent.clone()
    }

    /// Sends octets; what comes back before time passes, as octets: the answer to garbage echoes garbage.
    pub(super) fn octets(&mut self, path: Path, datagram: &[u8]) -> Vec<Bytes> {
        let now = self.at();
        self.sip.handle(Input::Received { path, bytes: Bytes::copy_from_slice(datagram) }, now);
        let mut sent = Vec::new();
        while let Some(output) = self.sip.poll() {
            match output {
                Output::Send { path: to, bytes } => {
                    assert_eq!(to, path);
                    sent.push(bytes);
                }
                Output::Event(event) => self.events.push(event),
                Output::Dropped(why) => self.dropped.push(why),
            }
        }
        sent
    }

    /// The same, where one response must come back.
    pub(super) fn ask(&mut self, path: Path, text: &str) -> Response {
        let sent = self.say(path, text);
        match sent.as_slice() {
            [(to, Message::Response(response))] => {
                assert_eq!(*to, path);
                response.clone()
            }
            other => panic!("not one response: {other:?}"),
        }
    }

    pub(super) fn run(&mut self, for_ms: u64) {
        let end = self.now + for_ms;
        while let Some(at) = self.sip.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.at();
            self.sip.handle_timeout(now);
            self.drain();
        }
        self.now = end;
    }

    /// Dies and is restored from its records, with another seed and another clock.
    pub(super) fn die(&mut self) {
        self.die_alone();
        self.acquaint();
    }

    /// The same, and nobody tells the heir whom it knows.
    pub(super) fn die_alone(&mut self) {
        let now = self.at();
        let records = self.sip.records(now);
        self.now += 1_000_000;
        let then = Now { mono_ms: self.now, wall_ms: now.wall_ms };
        let mut heir = Sip::restore(config(), [9; 32], &records, then);
        std::mem::swap(&mut self.sip, &mut heir);
        self.skew_ms += 1_000_000;
    }

    /// The requests that were sent, with their ways.
    pub(super) fn requests(&self, method: &Method) -> Vec<(Path, Request)> {
        let wanted = |(path, message): &(Path, Message)| match message {
            Message::Request(request) if request.method == *method => Some((*path, request.clone())),
            _ => None,
        };
        self.sent.iter().filter_map(wanted).collect()
    }

    /// A REGISTER of `user`, challenged and answered with `password`; the last response.
    pub(super) fn register_as(
        &mut self,
        path: Path,
        user: &str,
        password: &str,
        expires: u32,
        cseq: u32,
    ) -> Response {
        // A nonce lives in its millisecond; the next log-in is another one.
        self.now += 2;
        let plain = register(path, user, expires, cseq, "");
        let challenged = self.ask(path, &plain);
        assert_eq!(challenged.code, 401);
        let credentials = answer(&challenged, user, password, &Method::Register, "sip:tandem.test");
        let sent = self.say(path, &register(path, user, expires, cseq + 1, &credentials));
        // Whatever waited for the phone comes after the answer.
        match sent.first() {
            Some((_, Message::Response(response))) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// A call from op1's browser on flow 1 that is answered and confirmed.
    pub(super) fn browser_call(&mut self) -> (LegId, Response) {
        assert_eq!(self.register_as(ws(1), "op1", "secret", 600, 1).code, 200);
        let trying = self.ask(ws(1), &fixture!("op1-caller/05-out-INVITE-sendrecv.sip"));
        assert_eq!(trying.code, 100);
        let Some(Event::Invited(invited)) = self.events.last() else { panic!("{:?}", self.events) };
        let leg = invited.leg;
        assert_eq!(invited.from, Party::Operator("op1".into()));
        self.sent.clear();
        self.tell(Command::Answer { leg, sdp: Bytes::from_static(b"v=0\r\n") });
        let [(_, Message::Response(answer))] = self.sent.as_slice() else { panic!() };
        let answer = answer.clone();
        assert!(self.say(ws(1), &within(&answer, "ACK", 7061, "")).is_empty());
        assert_eq!(self.events.last(), Some(&Event::Confirmed { leg, sdp: None }));
        (leg, answer)
    }

    /// Calls over the gateway, which registered from `path` before.
    pub(super) fn call_gsm(&mut self, path: Path) -> (LegId, Request) {
        if self.sip.counts().registrations == 0 {
            assert_eq!(self.register_as(path, "gsm-1", "gsm", 600, 1).code, 200);
        }
        let leg = self.sip.new_leg();
        self.sent.clear();
        self.tell(Command::Invite {
            leg,
            to: Party::Trunk("gsm".into()),
            number: Number::new("+380671234567"),
            show: Number::new("+380441234567"),
            display: String::new(),
            headers: vec![],
            sdp: Bytes::from_static(b"v=0 ours\r\n"),
            ring_ms: 60_000,
        });
        let (_, invite) = self.requests(&Method::Invite).pop().expect("no INVITE");
        (leg, invite)
    }

    /// Calls op1's phone.
    pub(super) fn call_op1(&mut self) -> (LegId, Path, Request) {
        let leg = self.sip.new_leg();
        self.sent.clear();
        self.tell(Command::Invite {
            leg,
            to: Party::Operator("op1".into()),
            number: Number::default(),
            show: Number::new("+380671234567"),
            display: String::new(),
            headers: vec![
                ("Call-Info".into(), "<sip:tandem.test>;answer-after=0".into()),
                ("Via".into(), "evil".into()),
            ],
            sdp: Bytes::from_static(b"v=0\r\n"),
            ring_ms: 20_000,
        });
        let (path, invite) = self.requests(&Method::Invite).pop().expect("no INVITE");
        (leg, path, invite)
    }
}

pub(super) fn answer(
    challenged: &Response,
    user: &str,
    password: &str,
    method: &Method,
    uri: &str,
) -> String {
    let challenge = choose(challenged.headers.challenges(&Name::WwwAuthenticate)).unwrap();
    let login = Login { user: user.into(), password: Secret::new(password.into()) };
    format!("Authorization: {}\r\n", login.answer(&challenge, method, uri, "cn", 1).unwrap())
}

pub(super) fn register(path: Path, user: &str, expires: u32, cseq: u32, more: &str) -> String {
    let via = if path.flow().is_some() { "WS x.invalid" } else { "UDP 10.0.0.9:5060" };
    let (host, instance) = match path.flow() {
        Some(_) => ("x.invalid;transport=ws", ";+sip.instance=\"<urn:uuid:1>\""),
        None => ("10.0.0.9:5060", ""),
    };
    format!(
        "REGISTER sip:tandem.test SIP/2.0\r\nVia: SIP/2.0/{via};branch=z9hG4bKr{user}{cseq}{};rport\r\nMax-Forwards: 70\r\n\
         To: <sip:{user}@tandem.test>\r\nFrom: <sip:{user}@tandem.test>;tag=rt\r\nCall-ID: reg-{user}\r\nCSeq: {cseq} REGISTER\r\n\
         {more}Contact: <sip:{user}@{host}>{instance};expires={expires}\r\nContent-Length: 0\r\n\r\n",
        path.remote().port(),
    )
}

/// A request of the caller within the dialog that `answer` made.
pub(super) fn within(answer: &Response, method: &str, cseq: u32, more: &str) -> String {
    let text = |name: &Name| String::from_utf8_lossy(answer.headers.first(name).unwrap()).into_owned();
    let mut out = String::new();
    let (head, body) = match more.split_once("\r\n\r\n") {
        Some((head, body)) => (format!("{head}\r\n"), body),
        None => (more.to_owned(), ""),
    };
    write!(
        out,
        "{method} sip:tandem@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/WS x.invalid;branch=z9hG4bKw{method}{cseq}\r\nMax-Forwards: 70\r\n\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{head}Content-Length: {}\r\n\r\n{body}",
        text(&Name::From),
        text(&Name::To),
        text(&Name::CallId),
        body.len(),
    )
    .unwrap();
    out
}

/// A response of the callee to our request.
pub(super) fn reply(request: &Request, code: u16, tag: &str, more: &str, body: &str) -> String {
    let mut out = format!("SIP/2.0 {code} X\r\n");
    for name in [Name::Via, Name::From, Name::CallId, Name::CSeq] {
        for value in request.headers.all(&name) {
            write!(out, "{name}: {}\r\n", String::from_utf8_lossy(value)).unwrap();
        }
    }
    let to = String::from_utf8_lossy(request.headers.first(&Name::To).unwrap()).into_owned();
    let to = if to.contains(";tag=") || tag.is_empty() { to } else { format!("{to};tag={tag}") };
    write!(out, "To: {to}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    out
}
