//! Calls of ten minutes under every session timer (RFC 4028), whatever the other end makes of it.

use bytes::Bytes;

use super::hand::{Hand, reply, udp, ws};
use crate::sip::message::{Message, Method, Name, Request};
use crate::sip::{Command, Event, Path, Way};

const GATEWAY: &str = "203.0.113.9:5062";
const PEER: &str = "192.0.2.70:5060";
const TALK_MS: u64 = 600_000;

/// What a peer does with our refreshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Answers them.
    Good,
    /// Answers UPDATE with this, and re-INVITE as it should.
    NoUpdate(u16),
    /// Refuses the first of each kind.
    Once(u16),
    /// Refuses all of them, and talks on.
    Never(u16),
    /// Wants a longer interval, each time again.
    Longer,
    /// Promised to refresh, and does not; answers ours.
    Forgetful,
}

/// Who refreshes, in the words of `Session-Expires`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refresher {
    Us,
    Them,
    Nobody,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    we_call: bool,
    interval_s: u64,
    refresher: Refresher,
    habit: Habit,
}

/// A far end with one call.
struct Peer {
    hand: Hand,
    case: Case,
    path: Path,
    /// From, To and Call-ID of its own requests.
    names: [String; 3],
    cseq: u32,
    refused: [u32; 2],
    refreshed_ms: u64,
    cut: Option<String>,
}

impl Peer {
    fn new(case: Case) -> Self {
        let mut hand = Hand::new();
        let (path, names) = if case.we_call { called(&mut hand, case) } else { calls(&mut hand, case) };
        hand.sent.clear();
        let refreshed_ms = hand.now;
        Self { hand, case, path, names, cseq: 10, refused: [0, 0], refreshed_ms, cut: None }
    }

    /// Ten minutes, second by second.
    fn talks(&mut self) {
        for _ in 0..TALK_MS / 1_000 {
            self.hand.run(1_000);
            loop {
                let sent = std::mem::take(&mut self.hand.sent);
                if sent.is_empty() {
                    break;
                }
                let request = |(_, message): (Path, Message)| match message {
                    Message::Request(request) => Some(request),
                    Message::Response(_) => None,
                };
                let requests: Vec<Request> = sent.into_iter().filter_map(request).collect();
                let said: Vec<_> = requests.iter().flat_map(|request| self.answers(request)).collect();
                self.hand.sent = said;
            }
            self.watches();
        }
    }

    fn answers(&mut self, request: &Request) -> Vec<(Path, Message)> {
        let kind = match request.method {
            Method::Update => 0,
            Method::Invite => 1,
            Method::Bye => {
                self.cut.get_or_insert(format!("BYE from Tandem at {}", self.hand.now));
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        self.refused[kind] += 1;
        let code = match self.case.habit {
            Habit::Good | Habit::Forgetful => 200,
            Habit::NoUpdate(code) if kind == 0 => code,
            Habit::Once(code) if self.refused[kind] == 1 => code,
            Habit::NoUpdate(_) | Habit::Once(_) => 200,
            Habit::Never(code) => code,
            Habit::Longer => 422,
        };
        if code == 200 {
            self.refreshed_ms = self.hand.now;
        }
        if let (200, Ok(Some(agreed))) = (code, request.headers.session_expires()) {
            self.case.interval_s = u64::from(agreed.secs);
        }
        let asked = request.headers.text(&Name::SessionExpires).unwrap_or("1800;refresher=uac").to_owned();
        let (more, body) = match (code, kind) {
            (200, 0) => (format!("Session-Expires: {asked}\r\n"), ""),
            (200, _) => (
                format!(
                    "Session-Expires: {asked}\r\nContact: <sip:peer@{}>\r\nContent-Type: application/sdp\r\n",
                    self.path.remote()
                ),
                "v=0 theirs\r\n",
            ),
            (422, _) => {
                (format!("Min-SE: {}\r\n", self.case.interval_s + 60 * u64::from(self.refused[kind])), "")
            }
            _ => (String::new(), ""),
        };
        self.hand.say(self.path, &reply(request, code, "peer", &more, body))
    }

    /// A request of the peer's own within the call.
    fn asks(&mut self, method: &str, more: &str, body: &str) -> Vec<(Path, Message)> {
        self.cseq += 1;
        let [from, to, call_id] = &self.names;
        let text = format!(
            "{method} sip:tandem@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKp{method}{};rport\r\nMax-Forwards: 70\r\n\
             From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {} {method}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            self.path.remote(),
            self.cseq,
            self.cseq,
            body.len()
        );
        self.hand.say(self.path, &text)
    }

    /// Refreshes if that is its part, and hangs up if it was ours and nothing came.
    fn watches(&mut self) {
        let interval_ms = self.case.interval_s * 1_000;
        let since = self.hand.now - self.refreshed_ms;
        match self.case.refresher {
            Refresher::Them if self.case.habit == Habit::Forgetful => {}
            Refresher::Them if since >= interval_ms / 2 => {
                self.refreshed_ms = self.hand.now;
                let more = format!(
                    "Session-Expires: {};refresher=uac\r\nSupported: timer\r\nContact: <sip:peer@{}>\r\n",
                    self.case.interval_s,
                    self.path.remote()
                );
                // Every second one by re-INVITE with the description as it stands.
                let sent = if self.cseq.is_multiple_of(2) {
                    self.asks("UPDATE", &more, "")
                } else {
                    let more = format!("{more}Content-Type: application/sdp\r\n");
                    self.asks("INVITE", &more, "v=0 theirs\r\n")
                };
                let Some((_, Message::Response(done))) = sent.last() else { panic!("{sent:?}") };
                assert_eq!(done.code, 200, "{:?}", self.case);
                if done.headers.cseq().unwrap().1 == Method::Invite {
                    self.cseq -= 1;
                    self.asks("ACK", "", "");
                }
            }
            Refresher::Them | Refresher::Nobody => {}
            Refresher::Us => {
                let patient = matches!(self.case.habit, Habit::Never(_) | Habit::Longer);
                let early_ms = 32_000.min(interval_ms / 3);
                if !patient && since > interval_ms - early_ms {
                    self.cut.get_or_insert(format!("BYE from the peer at {}", self.hand.now));
                }
            }
        }
    }
}

fn timer(case: Case, we: &str, they: &str) -> String {
    match case.refresher {
        Refresher::Us => format!("Session-Expires: {};refresher={we}\r\n", case.interval_s),
        Refresher::Them => format!("Session-Expires: {};refresher={they}\r\n", case.interval_s),
        Refresher::Nobody => String::new(),
    }
}

/// We call the gateway, which says who refreshes.
fn called(hand: &mut Hand, case: Case) -> (Path, [String; 3]) {
    let (_, invite) = hand.call_gsm(udp(GATEWAY));
    let allow = "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\nContent-Type: application/sdp\r\n";
    let more = format!("Contact: <sip:peer@{GATEWAY}>\r\n{allow}{}", timer(case, "uac", "uas"));
    hand.say(udp(GATEWAY), &reply(&invite, 200, "peer", &more, "v=0 theirs\r\n"));
    let text = |name: &Name| String::from_utf8_lossy(invite.headers.first(name).unwrap()).into_owned();
    (udp(GATEWAY), [format!("{};tag=peer", text(&Name::To)), text(&Name::From), text(&Name::CallId)])
}

/// The peer calls us and says who shall refresh.
fn calls(hand: &mut Hand, case: Case) -> (Path, [String; 3]) {
    let supported = if case.refresher == Refresher::Nobody { "" } else { "Supported: timer\r\n" };
    let timer = timer(case, "uas", "uac");
    let (from, to) = ("<sip:+380671234567@tandem.test>;tag=peer", "<sip:+380441234567@tandem.test>");
    let text = format!(
        "INVITE sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bKi;rport\r\nMax-Forwards: 70\r\n\
         From: {from}\r\nTo: {to}\r\nCall-ID: timers\r\nCSeq: 1 INVITE\r\nContact: <sip:peer@{PEER}>\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n\
         Content-Type: application/sdp\r\n{supported}{timer}Content-Length: 12\r\n\r\nv=0 theirs\r\n"
    );
    hand.say(udp(PEER), &text);
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!("{:?}", hand.events) };
    let leg = invited.leg;
    hand.sent.clear();
    hand.tell(Command::Answer { leg, sdp: Bytes::from_static(b"v=0 ours\r\n") });
    let [(_, Message::Response(made))] = hand.sent.as_slice() else { panic!("{:?}", hand.sent) };
    let to = String::from_utf8_lossy(made.headers.first(&Name::To).unwrap()).into_owned();
    let ack = format!(
        "ACK sip:tandem@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bKk;rport\r\nMax-Forwards: 70\r\n\
         From: {from}\r\nTo: {to}\r\nCall-ID: timers\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n"
    );
    hand.say(udp(PEER), &ack);
    (udp(PEER), [from.to_owned(), to, "timers".to_owned()])
}

#[test]
fn a_call_of_ten_minutes_outlives_every_session_timer() {
    let habits = [
        Habit::Good,
        Habit::Forgetful,
        Habit::NoUpdate(405),
        Habit::NoUpdate(501),
        Habit::NoUpdate(481),
        Habit::NoUpdate(408),
        Habit::NoUpdate(500),
        Habit::Once(422),
        Habit::Once(491),
        Habit::Once(500),
        Habit::Never(488),
        Habit::Never(500),
        Habit::Never(503),
        Habit::Longer,
    ];
    let mut refreshed = 0;
    for we_call in [true, false] {
        for interval_s in [90, 120, 180, 240, 1800] {
            for refresher in [Refresher::Us, Refresher::Them, Refresher::Nobody] {
                for habit in habits {
                    let case = Case { we_call, interval_s, refresher, habit };
                    let mut peer = Peer::new(case);
                    peer.talks();
                    assert_eq!(peer.cut, None, "{case:?}");
                    let over = |event: &Event| matches!(event, Event::Ended { .. } | Event::Failed { .. });
                    assert!(!peer.hand.events.iter().any(over), "{case:?}");
                    let asked = peer.refused[0] + peer.refused[1];
                    assert!(asked < 200, "{case:?}: {asked} refreshes in ten minutes");
                    refreshed += asked;
                }
            }
        }
    }
    assert!(refreshed > 500, "{refreshed}");
}

#[test]
fn a_refresh_that_meets_481_twice_or_silence_twice_ends_the_call() {
    for code in [481, 408] {
        let habit = Habit::Never(code);
        let mut peer = Peer::new(Case { we_call: true, interval_s: 120, refresher: Refresher::Us, habit });
        peer.hand.run(59_000);
        assert_eq!(peer.refused, [0, 0]);
        peer.talks();
        assert_eq!(peer.refused, [1, 1], "{code}: once each way");
        assert!(peer.cut.is_some());
        let ends = |event: &Event| matches!(event, Event::Ended { by_peer: true, .. });
        assert_eq!(peer.hand.events.iter().filter(|event| ends(event)).count(), 1, "{code}");
    }
}

#[test]
fn too_short_a_session_is_told_so_but_a_browser_never_is() {
    let mut hand = Hand::new();
    let short = Case { we_call: false, interval_s: 60, refresher: Refresher::Them, habit: Habit::Good };
    let invite = format!(
        "INVITE sip:+380441234567@tandem.test SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bKs;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:x@y>;tag=s\r\nTo: <sip:+380441234567@tandem.test>\r\nCall-ID: short\r\nCSeq: 1 INVITE\r\nContact: <sip:peer@{PEER}>\r\n\
         Supported: timer\r\n{}Content-Length: 0\r\n\r\n",
        timer(short, "uas", "uac")
    );
    let told = hand.ask(udp(PEER), &invite);
    assert_eq!((told.code, told.headers.text(&Name::MinSe)), (422, Some("90")));
    assert_eq!(hand.register_as(ws(1), "op1", "secret", 600, 1).code, 200);
    let browser = invite.replace("<sip:x@y>;tag=s", "<sip:op1@tandem.test>;tag=s");
    assert_eq!(hand.ask(ws(1), &browser.replace("z9hG4bKs", "z9hG4bKb")).code, 100);
}

#[test]
fn a_far_end_that_wants_ever_longer_sessions_is_asked_three_times() {
    let mut hand = Hand::new();
    let (leg, mut invite) = hand.call_gsm(udp(GATEWAY));
    let mut asked = vec![invite.headers.text(&Name::SessionExpires).unwrap().to_owned()];
    for round in 1..=3_u32 {
        let more = format!("Min-SE: {}\r\n", 1800 + 600 * round);
        hand.say(udp(GATEWAY), &reply(&invite, 422, "x", &more, ""));
        let again = hand.requests(&Method::Invite).pop();
        assert_eq!(again.is_some(), round < 3, "{round}");
        if let Some((_, again)) = again {
            assert!(
                again.headers.lists(&Name::Supported, "100rel")
                    && again.headers.lists(&Name::Supported, "timer")
            );
            assert_eq!(again.headers.call_id(), invite.headers.call_id());
            asked.push(again.headers.text(&Name::SessionExpires).unwrap().to_owned());
            invite = again;
        }
    }
    assert_eq!(asked, ["1800", "2400", "3000"]);
    assert!(
        matches!(hand.events.last(), Some(Event::Failed { leg: failed, code: 422, way: Way::Way, .. }) if *failed == leg)
    );
}

#[test]
fn a_registration_that_runs_out_or_is_refused_in_mid_call_ends_no_call() {
    let case = Case { we_call: true, interval_s: 90, refresher: Refresher::Us, habit: Habit::Good };
    let mut peer = Peer::new(case);
    assert_eq!(peer.hand.register_as(udp(GATEWAY), "gsm-1", "gsm", 60, 20).code, 200);
    // Its next log-in is refused, and what it had runs out.
    assert_eq!(peer.hand.register_as(udp(GATEWAY), "gsm-1", "wrong", 60, 30).code, 403);
    peer.hand.sent.clear();
    peer.talks();
    let gone = |event: &Event| matches!(event, Event::Unregistered { .. });
    assert!(peer.hand.events.iter().any(gone), "{:?}", peer.hand.events);
    assert_eq!(peer.cut, None);
    assert!(!peer.hand.events.iter().any(|event| matches!(event, Event::Ended { .. })));
    assert_eq!(peer.asks("BYE", "", "").len(), 1, "and its end is heard");
    assert!(peer.hand.events.iter().any(|event| matches!(event, Event::Ended { by_peer: true, .. })));
}

#[test]
fn a_wall_clock_that_jumps_in_mid_call_cuts_nothing_and_lets_phones_in() {
    for jump_ms in [3_600_000, -3_600_000, 1_000] {
        let case = Case { we_call: true, interval_s: 90, refresher: Refresher::Them, habit: Habit::Good };
        let mut peer = Peer::new(case);
        peer.hand.run(30_000);
        peer.hand.sent.clear();
        peer.hand.skew_ms += jump_ms;
        assert_eq!(peer.hand.register_as(ws(1), "op1", "secret", 600, 1).code, 200, "{jump_ms}");
        peer.hand.sent.clear();
        peer.talks();
        assert_eq!(peer.cut, None, "{jump_ms}");
        assert!(!peer.hand.events.iter().any(|event| matches!(event, Event::Ended { .. })), "{jump_ms}");
    }
}
