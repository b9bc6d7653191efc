//! Browsers: JsSIP as recorded, sockets that come and go, session timers of 90 seconds.

use bytes::Bytes;

use super::hand::{Hand, answer, fixture, register, reply, udp, within, ws};
use super::world::bye;
use crate::fact::Party;
use crate::sip::message::{Message, Method, Name};
use crate::sip::{Command, Event, Way};

const CONTACT: &str = "Contact: <sip:op1@x.invalid;transport=ws>\r\nAllow: INVITE,ACK,CANCEL,BYE,UPDATE\r\n";

#[test]
fn what_jssip_sends_first_is_challenged_with_md5_alone_and_then_let_in() {
    let mut hand = Hand::new();
    let challenged = hand.ask(ws(1), &fixture!("op1-caller/01-out-REGISTER.sip"));
    assert_eq!(challenged.code, 401);
    let challenges: Vec<_> = challenged.headers.challenges(&Name::WwwAuthenticate).collect();
    assert_eq!(challenges.len(), 1);
    assert_eq!(challenges[0].text("algorithm").as_deref(), Some("MD5"));
    let credentials = answer(&challenged, "op1", "secret", &Method::Register, "sip:tandem.test");
    let recorded = fixture!("op1-caller/03-out-REGISTER-withauth.sip");
    let mut lines: Vec<&str> =
        recorded.split("\r\n").filter(|line| !line.starts_with("Authorization")).collect();
    lines.insert(3, credentials.trim_end());
    let done = hand.ask(ws(1), &lines.join("\r\n"));
    assert_eq!(done.code, 200);
    let contact = done.headers.text(&Name::Contact).unwrap();
    assert!(contact.starts_with("<sip:9fqin4lh@r3k05m96p66g.invalid;transport=ws>;expires=120"), "{contact}");
    assert!(
        matches!(hand.events.last(), Some(Event::Registered { expires_s: 120, instance, .. }) if instance.starts_with("urn:uuid:3d80"))
    );
    // The very same again is a replay.
    assert_eq!(hand.ask(ws(1), &lines.join("\r\n")).code, 401);
}

#[test]
fn an_unknown_user_and_a_wrong_password_cannot_be_told_apart() {
    let mut hand = Hand::new();
    let wrong = hand.register_as(ws(1), "op1", "guess", 600, 1);
    let unknown = hand.register_as(ws(1), "nobody", "guess", 600, 1);
    let names = |response: &crate::sip::message::Response| {
        response.headers.iter().map(|header| header.name().to_string()).collect::<Vec<_>>()
    };
    assert_eq!((wrong.code, unknown.code), (403, 403));
    assert_eq!(names(&wrong), names(&unknown));
    let guesses =
        hand.events.iter().filter(|event| matches!(event, Event::Stranger { guessed: true, .. })).count();
    assert_eq!(guesses, 2);
}

#[test]
fn a_recorded_invite_on_a_registered_socket_needs_no_challenge_and_from_must_be_its_owner() {
    let mut hand = Hand::new();
    let (_, response) = hand.browser_call();
    assert_eq!(response.headers.text(&Name::SessionExpires), Some("90;refresher=uac"));
    assert!(response.headers.lists(&Name::Require, "timer"));
    let other = fixture!("op1-caller/05-out-INVITE-sendrecv.sip")
        .replace("From: \"op1\" <sip:op1@", "From: \"op2\" <sip:op2@")
        .replace("z9hG4bK5359757", "z9hG4bKother")
        .replace("sc3ejbef", "other");
    assert_eq!(hand.ask(ws(1), &other).code, 401);
    assert_eq!(hand.ask(ws(9), &other.replace("z9hG4bKother", "z9hG4bKthird")).code, 401);
}

#[test]
fn a_call_lives_as_long_as_jssip_refreshes_it_and_ends_when_it_does_not() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    for round in 0..5 {
        hand.run(45_000);
        let update = within(
            &made,
            "UPDATE",
            7100 + round,
            "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n",
        );
        let done = hand.ask(ws(1), &update);
        assert_eq!((done.code, done.headers.text(&Name::SessionExpires)), (200, Some("90;refresher=uac")));
    }
    hand.sent.clear();
    hand.run(59_000);
    assert!(hand.sent.is_empty());
    hand.run(2_000);
    // Some phones forget: it is asked whether it is there, twice.
    assert_eq!((hand.requests(&Method::Update).len(), hand.requests(&Method::Bye).len()), (1, 0));
    hand.run(64_000);
    assert_eq!(hand.requests(&Method::Invite).len(), 1);
    let byes = hand.requests(&Method::Bye);
    assert_eq!(byes.len(), 1);
    assert_eq!(byes[0].1.headers.q850(), Some(102));
    assert!(
        matches!(hand.events.last(), Some(Event::Ended { leg: ended, by_peer: true, .. }) if *ended == leg)
    );
}

#[test]
fn a_socket_that_is_lost_does_not_cost_the_session() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    hand.run(44_000);
    hand.close(1);
    assert_eq!(hand.events.last(), Some(&Event::PhoneLost { who: Party::Operator("op1".into()) }));
    hand.run(30_000);
    assert_eq!(hand.register_as(ws(2), "op1", "secret", 600, 10).code, 200);
    hand.run(10_000);
    let update = within(&made, "UPDATE", 7100, "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\n");
    assert_eq!(hand.ask(ws(2), &update).code, 200);
    assert!(
        !hand.events.iter().any(|event| matches!(event, Event::Ended { leg: ended, .. } if *ended == leg))
    );
}

#[test]
fn bye_goes_to_the_socket_of_now_and_waits_for_one_if_there_is_none() {
    for (closes, wait_ms) in [(false, 100), (true, 100), (true, 30_000)] {
        let mut hand = Hand::new();
        let (leg, _) = hand.browser_call();
        if closes {
            hand.close(1);
        } else {
            assert_eq!(hand.register_as(ws(2), "op1", "secret", 600, 10).code, 200);
        }
        hand.sent.clear();
        hand.tell(Command::HangUp { leg, cause: bye() });
        assert!(matches!(hand.events.last(), Some(Event::Ended { .. })));
        if closes {
            assert!(hand.requests(&Method::Bye).is_empty());
            hand.run(wait_ms);
            hand.register_as(ws(2), "op1", "secret", 600, 10);
        }
        let byes = hand.requests(&Method::Bye);
        assert_eq!(byes.len(), 1, "{closes} {wait_ms}");
        assert_eq!(byes[0].0, ws(2));
        if !closes {
            assert_eq!(&byes[0].1.uri[..], b"sip:op1@x.invalid;transport=ws");
        }
        hand.say(ws(2), &reply(&byes[0].1, 481, "", "", ""));
        assert_eq!(hand.sip.counts().legs, 0);
    }
}

#[test]
fn a_phone_that_never_comes_back_leaves_no_leg() {
    let mut hand = Hand::new();
    let (leg, _) = hand.browser_call();
    hand.close(1);
    hand.tell(Command::HangUp { leg, cause: bye() });
    hand.run(34_000);
    assert_eq!(hand.sip.counts().legs, 1);
    hand.run(2_000);
    assert_eq!(hand.sip.counts().legs, 0);
}

#[test]
fn only_the_owner_of_a_call_can_change_it() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    assert_eq!(hand.register_as(ws(5), "op2", "secret", 600, 1).code, 200);
    // Another operator's socket, another address over UDP, a wrong tag: 481, and the call lives.
    assert_eq!(hand.ask(ws(5), &within(&made, "BYE", 7200, "")).code, 481);
    assert_eq!(hand.ask(udp("198.51.100.7:40000"), &within(&made, "BYE", 7201, "")).code, 481);
    assert_eq!(
        hand.ask(ws(1), &within(&made, "BYE", 7202, "").replace(";tag=s202bno92e", ";tag=guess")).code,
        481
    );
    // A socket that nobody registered on must prove itself.
    let plain = within(&made, "BYE", 7203, "");
    hand.run(5);
    let challenged = hand.ask(ws(6), &plain);
    assert_eq!(challenged.code, 401);
    let live = |hand: &Hand| !hand.events.iter().any(|event| matches!(event, Event::Ended { .. }));
    assert!(live(&hand));
    let credentials = answer(&challenged, "op2", "secret", &Method::Bye, "sip:tandem@192.0.2.1");
    assert_eq!(hand.ask(ws(6), &within(&made, "BYE", 7204, &credentials)).code, 481);
    assert!(live(&hand));
    hand.run(5);
    let challenged = hand.ask(ws(6), &plain);
    let credentials = answer(&challenged, "op1", "secret", &Method::Bye, "sip:tandem@192.0.2.1");
    assert_eq!(hand.ask(ws(6), &within(&made, "BYE", 7205, &credentials)).code, 200);
    assert!(
        matches!(hand.events.last(), Some(Event::Ended { leg: ended, by_peer: true, .. }) if *ended == leg)
    );
}

#[test]
fn an_operators_phone_is_called_by_its_contact_with_our_headers_and_nobody_elses() {
    let mut hand = Hand::new();
    hand.register_as(ws(1), "op1", "secret", 600, 1);
    let (leg, path, invite) = hand.call_op1();
    assert_eq!(path, ws(1));
    assert_eq!(&invite.uri[..], b"sip:op1@x.invalid;transport=ws");
    assert_eq!(invite.headers.all(&Name::Via).count(), 1);
    assert!(invite.headers.text(&Name::Via).unwrap().starts_with("SIP/2.0/WSS 192.0.2.1:443;branch=z9hG4bK"));
    assert_eq!(invite.headers.text(&Name::CallInfo), Some("<sip:tandem.test>;answer-after=0"));
    assert_eq!(invite.headers.text(&Name::PAssertedIdentity), Some("<sip:+380671234567@tandem.test>"));
    assert_eq!(invite.headers.text(&Name::Supported), Some("timer, replaces"));
    hand.say(ws(1), &reply(&invite, 180, "a", CONTACT, ""));
    assert_eq!(hand.events.last(), Some(&Event::Rang { leg }));
    let sent = hand.say(
        ws(1),
        &reply(&invite, 200, "a", &format!("{CONTACT}Content-Type: application/sdp\r\n"), "v=0\r\n"),
    );
    assert!(matches!(&sent[..], [(_, Message::Request(ack))] if ack.method == Method::Ack));
    // A fork answers too: ACK and BYE to it, once.
    let sent = hand.say(ws(1), &reply(&invite, 200, "b", CONTACT, "v=0\r\n"));
    let methods: Vec<_> = sent
        .iter()
        .map(|(_, message)| match message {
            Message::Request(request) => {
                (request.method.as_str().to_owned(), request.headers.to().unwrap().tag().map(str::to_owned))
            }
            Message::Response(_) => panic!(),
        })
        .collect();
    assert_eq!(methods, [("ACK".into(), Some("b".into())), ("BYE".into(), Some("b".into()))]);
    assert!(hand.say(ws(1), &reply(&invite, 200, "b", CONTACT, "v=0\r\n")).is_empty());
    assert_eq!(hand.events.iter().filter(|event| matches!(event, Event::Answered { .. })).count(), 1);
    // Late provisional answers change nothing.
    let before = hand.events.len();
    assert!(hand.say(ws(1), &reply(&invite, 180, "a", CONTACT, "")).is_empty());
    assert_eq!(hand.events.len(), before);
}

#[test]
fn a_desk_that_dies_before_it_hears_the_call_fails_at_once_and_one_that_rings_keeps_it() {
    let mut hand = Hand::new();
    hand.register_as(ws(1), "op1", "secret", 600, 1);
    let (leg, _, _) = hand.call_op1();
    hand.close(1);
    assert!(
        hand.events
            .iter()
            .any(|event| matches!(event, Event::Failed { leg: failed, way: Way::Way, .. } if *failed == leg))
    );
    hand.register_as(ws(2), "op1", "secret", 600, 5);
    let (leg, _, invite) = hand.call_op1();
    hand.say(ws(2), &reply(&invite, 180, "a", CONTACT, ""));
    hand.close(2);
    hand.register_as(ws(3), "op1", "secret", 600, 9);
    hand.say(ws(3), &reply(&invite, 200, "a", CONTACT, "v=0\r\n"));
    assert_eq!(hand.events.last(), Some(&Event::Answered { leg, sdp: Bytes::from_static(b"v=0\r\n") }));
}

#[test]
fn nobody_registered_is_said_at_once_and_a_void_key_unregisters() {
    let mut hand = Hand::new();
    hand.register_as(ws(1), "op1", "secret", 600, 1);
    hand.tell(Command::ForgetPhone { operator: "op1".into(), key: "k".into() });
    assert!(matches!(hand.events.last(), Some(Event::Unregistered { why: "forgotten", .. })));
    let leg = hand.sip.new_leg();
    hand.tell(Command::Invite {
        leg,
        to: Party::Operator("op1".into()),
        number: Default::default(),
        show: Default::default(),
        display: String::new(),
        headers: vec![],
        sdp: Bytes::new(),
        ring_ms: 1_000,
    });
    assert!(matches!(hand.events.last(), Some(Event::Failed { code: 480, .. })));
    assert_eq!(hand.ask(ws(1), &register(ws(1), "op1", 600, 9, "")).code, 401);
}

#[test]
fn an_operator_whose_browser_closes_is_called_at_his_desk_telephone() {
    let (mut hand, desk) = (Hand::new(), udp("10.0.0.9:5060"));
    hand.register_as(desk, "op1", "secret", 600, 1);
    hand.register_as(ws(2), "op1", "secret", 600, 5);
    let told = hand.events.len();
    hand.close(2);
    let [Event::Registered { path, .. }] = &hand.events[told..] else { panic!("{:?}", &hand.events[told..]) };
    assert_eq!(*path, desk);
}

#[test]
fn a_registration_expires_but_its_call_lives() {
    let mut hand = Hand::new();
    let (leg, made) = hand.browser_call();
    hand.register_as(ws(1), "op1", "secret", 60, 20);
    hand.run(40_000);
    assert_eq!(hand.ask(ws(1), &within(&made, "UPDATE", 7100, "Supported: timer\r\n")).code, 200);
    hand.run(25_000);
    assert!(matches!(hand.events.last(), Some(Event::Unregistered { why: "expired", .. })));
    let done = hand.ask(
        ws(1),
        &within(&made, "INFO", 7101, "Content-Type: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160"),
    );
    assert_eq!(done.code, 200);
    assert_eq!(hand.events.last(), Some(&Event::Digit { leg, digit: '5', duration_ms: 160 }));
}

#[test]
fn an_offer_to_a_phone_without_a_socket_is_refused_and_the_call_lives() {
    let mut hand = Hand::new();
    let (leg, _) = hand.browser_call();
    hand.close(1);
    hand.tell(Command::Offer { leg, sdp: Bytes::from_static(b"v=0 hold\r\n") });
    hand.run(36_000);
    assert_eq!(hand.events.last(), Some(&Event::ChangeRefused { leg, code: 408 }));
}

#[test]
fn a_cancel_by_the_new_socket_of_the_caller_counts() {
    let mut hand = Hand::new();
    hand.register_as(ws(1), "op1", "secret", 600, 1);
    let invite = fixture!("op1-caller/05-out-INVITE-sendrecv.sip");
    hand.say(ws(1), &invite);
    hand.close(1);
    hand.register_as(ws(2), "op1", "secret", 600, 5);
    let head = invite.split("Content-Type").next().unwrap().replace("INVITE", "CANCEL");
    let sent = hand.say(ws(2), &format!("{head}Content-Length: 0\r\n\r\n"));
    let codes: Vec<_> = sent
        .iter()
        .map(|(path, message)| match message {
            Message::Response(response) => (*path, response.code),
            Message::Request(_) => panic!(),
        })
        .collect();
    assert_eq!(codes, [(ws(2), 200), (ws(2), 487)]);
}
