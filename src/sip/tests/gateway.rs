//! Gateways that die, start anew, come back elsewhere, and trunks that say nothing.

use bytes::Bytes;

use super::hand::{Hand, reply, udp};
use crate::fact::Party;
use crate::sip::message::{Method, Name, Request};
use crate::sip::{Command, Event, Health, Path, Prefix, Profile, TrunkAccount, TrunkKind, Way};
use crate::terms::{LegId, Number};

const OLD: &str = "203.0.113.9:5060";
const NEW: &str = "203.0.113.9:33061";

fn call(hand: &mut Hand, trunk: &str) -> (LegId, Path, Request) {
    let leg = hand.sip.new_leg();
    hand.sent.clear();
    hand.tell(Command::Invite {
        leg,
        to: Party::Trunk(trunk.into()),
        number: Number::new("380671234567"),
        show: Number::default(),
        display: String::new(),
        headers: Vec::new(),
        sdp: Bytes::from_static(b"v=0\r\n"),
        ring_ms: 60_000,
    });
    let (path, invite) = hand.requests(&Method::Invite).pop().expect("no INVITE");
    hand.sent.clear();
    (leg, path, invite)
}

fn answered(hand: &mut Hand, trunk: &str) -> LegId {
    let (leg, path, invite) = call(hand, trunk);
    let more = "Contact: <sip:gsm-1@10.0.0.9:5060>\r\nContent-Type: application/sdp\r\n";
    hand.say(path, &reply(&invite, 200, "gw", more, "v=0\r\n"));
    assert!(matches!(hand.events.last(), Some(Event::Answered { .. })));
    leg
}

fn ended(hand: &Hand, leg: LegId) -> bool {
    hand.events.iter().any(|event| matches!(event, Event::Ended { leg: one, .. } if *one == leg))
}

/// Row F-14.
#[test]
fn a_gateway_that_started_anew_at_another_port_frees_the_calls_it_forgot() {
    let mut hand = Hand::new();
    assert_eq!(hand.register_as(udp(OLD), "gsm-1", "gsm", 600, 1).code, 200);
    let (forgotten, known) = (answered(&mut hand, "gsm"), answered(&mut hand, "gsm"));
    assert_eq!(hand.register_as(udp(NEW), "gsm-1", "gsm", 600, 100).code, 200);
    assert_eq!(hand.sip.counts().registrations, 1, "the old contact is replaced, not joined");
    // Both calls are asked for at the new place.
    let asked: Vec<(Path, Request)> =
        [Method::Update, Method::Invite].iter().flat_map(|method| hand.requests(method)).collect();
    assert_eq!(asked.len(), 2, "{:?}", hand.sent);
    assert!(asked.iter().all(|(path, _)| path.remote() == NEW.parse().unwrap()));
    for (path, request) in asked {
        let his = request.headers.from().unwrap().tag().unwrap().starts_with(&format!("{:x}.", forgotten.0));
        let body = if his { "" } else { "v=0\r\n" };
        let more = if his { "" } else { "Content-Type: application/sdp\r\n" };
        hand.say(path, &reply(&request, if his { 481 } else { 200 }, "gw", more, body));
    }
    assert!(ended(&hand, forgotten) && !ended(&hand, known), "{:?}", hand.events);
    // A new call rings once, at the new place.
    let (_, path, _) = call(&mut hand, "gsm");
    assert_eq!(path.remote(), NEW.parse().unwrap());
}

#[test]
fn a_gateway_that_only_refreshes_is_asked_nothing() {
    let mut hand = Hand::new();
    hand.register_as(udp(OLD), "gsm-1", "gsm", 600, 1);
    answered(&mut hand, "gsm");
    hand.register_as(udp(OLD), "gsm-1", "gsm", 600, 100);
    assert!(hand.requests(&Method::Update).is_empty() && hand.requests(&Method::Invite).is_empty());
}

fn peer(health: Health) -> TrunkAccount {
    TrunkAccount {
        name: "peer".into(),
        kind: TrunkKind::Peer { server: Some("192.0.2.70:5060".parse().unwrap()) },
        accept_from: vec![Prefix { address: "192.0.2.70".parse().unwrap(), bits: 32 }],
        digest: Vec::new(),
        health,
        prack: true,
        profile: Profile::Generic,
    }
}

fn downs(hand: &Hand) -> Vec<String> {
    let why = |event: &Event| match event {
        Event::TrunkDown { why, .. } => Some(why.clone()),
        _ => None,
    };
    hand.trunks.iter().filter_map(why).collect()
}

fn with_peer(health: Health) -> Hand {
    let mut hand = Hand::new();
    hand.tell(Command::Trunks(vec![peer(health)]));
    hand.trunks.clear();
    hand.sent.clear();
    hand
}

/// Row F-13: found dead by a call, skipped by the next, asked until it answers.
#[test]
fn a_trunk_that_leaves_a_call_unanswered_is_down_until_it_answers() {
    let mut hand = with_peer(Health { every_ms: 0, timeout_ms: 4_000 });
    let (leg, _, _) = call(&mut hand, "peer");
    hand.run(4_000);
    assert!(matches!(hand.events.last(), Some(Event::Failed { leg: one, way: Way::Way, .. }) if *one == leg));
    assert_eq!(downs(&hand), ["a call got no answer at all"]);
    hand.run(10);
    let (path, options) = hand.requests(&Method::Options).pop().expect("it is asked at once");
    assert_eq!(text(&options, &Name::To), "<sip:192.0.2.70:5060>");
    // Whatever it says, it lives.
    hand.say(path, &reply(&options, 405, "p", "", ""));
    assert!(matches!(hand.trunks.last(), Some(Event::TrunkUp { .. })));
    hand.sent.clear();
    hand.run(60_000);
    assert!(hand.requests(&Method::Options).is_empty(), "it is not asked where the configuration says never");
}

fn text(request: &Request, name: &Name) -> String {
    String::from_utf8_lossy(request.headers.first(name).unwrap_or_default()).into_owned()
}

#[test]
fn a_trunk_that_never_answers_options_gets_a_call_again_after_half_a_minute() {
    let mut hand = with_peer(Health { every_ms: 0, timeout_ms: 4_000 });
    call(&mut hand, "peer");
    hand.run(20_000);
    assert_eq!(hand.trunks.len(), 1);
    hand.run(20_000);
    assert!(matches!(hand.trunks.last(), Some(Event::TrunkUp { .. })));
}

/// Row F-13: dies while it rings.
#[test]
fn a_trunk_that_dies_while_it_rings_fails_as_a_way_and_keeps_calls_that_talk() {
    let mut hand = with_peer(Health { every_ms: 30_000, timeout_ms: 4_000 });
    let talks = answered(&mut hand, "peer");
    let (rings, path, invite) = call(&mut hand, "peer");
    hand.say(path, &reply(&invite, 180, "p", "", ""));
    hand.run(40_000);
    assert_eq!(downs(&hand), ["it does not answer OPTIONS within 4 s"]);
    let failed = hand.events.iter().find_map(|event| match event {
        Event::Failed { leg, way, .. } if *leg == rings => Some(*way),
        _ => None,
    });
    assert_eq!(failed, Some(Way::Way));
    assert!(!ended(&hand, talks));
}

#[test]
fn a_trunk_that_answers_is_asked_again_and_again_and_never_said_to_be_down() {
    let mut hand = with_peer(Health { every_ms: 30_000, timeout_ms: 4_000 });
    let mut asked = 0;
    for _ in 0..3_000 {
        hand.run(100);
        for (path, options) in hand.requests(&Method::Options) {
            asked += 1;
            hand.say(path, &reply(&options, 200, "p", "", ""));
        }
        hand.sent.clear();
    }
    assert!((10..=12).contains(&asked), "{asked}");
    assert_eq!(hand.trunks, []);
}

/// Row B-11: a peer is its address, whatever port; a gateway is its address and port, or its proof; nobody
/// else is a trunk.
#[test]
fn a_call_from_an_address_of_no_trunk_gets_nothing_but_a_challenge() {
    let mut hand = Hand::new();
    hand.register_as(udp(OLD), "gsm-1", "gsm", 600, 1);
    let invite = |n: u32| {
        format!(
            "INVITE sip:+380441234567@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP p;branch=z9hG4bKs{n}\r\n\
             Max-Forwards: 70\r\nTo: <sip:x@y>\r\nFrom: <sip:gsm-1@tandem.test>;tag=f{n}\r\nCall-ID: s{n}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:c@p>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    for (n, (from, code)) in [
        ("192.0.2.70:5060", 100),
        ("192.0.2.70:61000", 100),
        ("192.0.2.200:5060", 401),
        (OLD, 100),
        (NEW, 401),
        ("198.51.100.9:5060", 401),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(hand.ask(udp(from), &invite(n as u32)).code, code, "{from}");
    }
    // The right proof from outside the fence.
    let outside = hand.register_as(udp("198.51.100.9:5060"), "gsm-1", "gsm", 600, 200);
    assert_eq!(outside.code, 403);
}

/// Row B-15.
#[test]
fn a_display_name_is_cut_and_cannot_turn_the_text_around_it() {
    let mut hand = Hand::new();
    let invite = include_str!("../../../fixtures/sip/gateways/spoofed-name.sip");
    assert_eq!(hand.ask(udp("192.0.2.70:5060"), invite).code, 100);
    let Some(Event::Invited(invited)) = hand.events.last() else { panic!() };
    assert_eq!(invited.display.chars().count(), 64);
    assert!(invited.display.starts_with("Police 112 AAA"), "{}", invited.display);
}
